/* Any bytes as a NumPy array: a clear error, or as many numbers as its shape says. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fleet/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  dj__npy a;
  if (dj__npy_parse("fuzz", data, size, &a)) {
    if (!strstr(dj_error_message(), "fuzz") || a.data) abort();
    return 0;
  }
  size_t n = 1;
  for (int i = 0; i < a.ndim; i++) n *= a.shape[i];
  if (n != a.n || n > size || a.ndim > DJ__NPY_MAX_DIMS) abort();
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += a.data[i];
  volatile double keep = sum;
  (void)keep;
  dj__npy_free(&a);
  return 0;
}
