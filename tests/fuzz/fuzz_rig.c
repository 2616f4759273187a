/* Any bytes as a rig: a clear error, or cameras whose numbers are finite and in range. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "world/render.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  dj__rig rig;
  if (dj__rig_parse((const char *)data, size, "fuzz", &rig)) {
    if (!*dj_error_message()) abort();
    return 0;
  }
  if (rig.n_camera < 1 || rig.n_camera > DJ__RIG_CAMERAS || !(rig.rate > 0)) abort();
  for (int k = 0; k < rig.n_camera; k++) {
    const dj_camera *c = &rig.camera[k].camera;
    double norm = 0;
    for (int i = 0; i < 4; i++) norm += c->rotation[i] * c->rotation[i];
    if (c->width < 8 || c->height < 8 || !(c->K[0] > 0) || !isfinite(c->K[4])) abort();
    if (!(fabs(norm - 1) < 1e-9) || !*c->name) abort();
  }
  return 0;
}
