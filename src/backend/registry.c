/* The backends in this build, by name. */
#include <string.h>

#include "engine/backend.h"

static const dj__backend *const backends[] = {&dj__backend_cpu, &dj__backend_ref};

const dj__backend *dj__backend_find(const char *name) {
  if (!name) return backends[0];
  for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++)
    if (!strcmp(backends[i]->name, name)) return backends[i];
  dj_error(DJ_E_NOT_FOUND, "no backend '%s' in this build; there are: cpu, ref", name);
  return NULL;
}
