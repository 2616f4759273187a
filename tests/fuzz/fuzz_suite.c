/* Any bytes as a suite: a clear error, or cases with names of their own and numbers in range. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "world/drive.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  dj__suite s;
  if (dj__suite_parse((const char *)data, size, "fuzz", -1, 0, &s)) {
    if (!*dj_error_message() || s.cases || s.n) abort();
    return 0;
  }
  if (s.n < 1) abort();
  for (int i = 0; i < s.n; i++) {
    const dj__case *c = &s.cases[i];
    if (!c->name[0] || !c->weather[0] || !c->vehicle[0] || !c->rig[0]) abort();
    if (!(c->seconds >= 1 && c->seconds <= 36000) || !(c->length >= 1)) abort();
    if (c->n_vehicle < 0 || c->n_vehicle > 2000 || !(c->unruly >= 0)) abort();
    if ((unsigned)c->kind >= DJ__N_CASES || (unsigned)c->town.style >= DJ__N_TOWN_STYLES) abort();
  }
  dj__suite_free(&s);
  return 0;
}
