/* Any bytes as a safetensors file: either a clear error, or every byte given out is readable. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dojo/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  dj_safetensors *f;
  if (dj_safetensors_open_memory(data, size, "fuzz", &f)) return 0;
  unsigned sum = 0;
  for (size_t i = 0; i < dj_safetensors_count(f); i++) {
    const dj_st_tensor *t = dj_safetensors_get(f, i);
    if (dj_safetensors_find(f, t->name) != t) abort();
    for (uint64_t k = 0; k < t->size; k++) sum += ((const uint8_t *)t->data)[k];
  }
  for (size_t i = 0; i < dj_safetensors_metadata_count(f); i++)
    sum += (unsigned)strlen(dj_safetensors_metadata_get(f, i).value);
  volatile unsigned keep = sum;
  (void)keep;
  dj_safetensors_close(f);
  return 0;
}
