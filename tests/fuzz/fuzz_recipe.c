/* Any bytes as a recipe: a clear error, or a recipe whose numbers are all finite and in range. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dojo/train.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  dj_recipe *r;
  if (dj_recipe_parse((const char *)data, size, "fuzz", &r)) {
    if (!*dj_error_message()) abort();
    return 0;
  }
  if (!r->network.name || !r->name || r->data.width < 8 || r->train.batch < 1) abort();
  if (!isfinite(r->train.optimizer.lr) || !isfinite(r->train.epochs)) abort();
  if (!(r->augment.mirror >= 0 && r->augment.mirror <= 1)) abort();
  if (strlen(r->digest) != 64 || !dj_recipe_line(r, "train.batch")) abort();
  dj_recipe_free(r);
  return 0;
}
