/*
 * Normally distributed numbers for initial weights: those of dj__rng_normal (base/rng.h), to
 * rounding, a vector at a time. A Philox block makes two of them.
 */
#include "backend/cpu/isa/nn.h"
#include "backend/cpu/isa/vmath.h"
#include "base/rng.h"

enum { PIECE = 1 << 14 };

void DJ__I(fill_normal)(float *x, int64_t n, float std, uint64_t key, uint64_t stream,
                        int threads) {
  const int64_t pieces = (n + PIECE - 1) / PIECE;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t p = 0; p < pieces; p++) {
    float u[PIECE], v[PIECE];
    const int64_t from = p * PIECE, count = n - from < PIECE ? n - from : PIECE;
    DJ__SIMD for (int64_t k = 0; k < (count + 1) / 2; k++) {
      dj__u32x4 r = dj__philox(key, (uint64_t)(from / 2 + k), stream);
      u[2 * k] = dj__u01(r.v[0]);
      v[2 * k] = dj__u01(r.v[1]);
      u[2 * k + 1] = dj__u01(r.v[2]);
      v[2 * k + 1] = dj__u01(r.v[3]);
    }
    DJ__SIMD for (int64_t i = 0; i < count; i++) x[from + i] =
        std * __builtin_sqrtf(-2.0f * vm_log(1.0f - u[i])) * vm_cos(6.28318530717958647692f * v[i]);
  }
}
