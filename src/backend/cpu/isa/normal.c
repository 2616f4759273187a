/*
 * Normally distributed numbers for initial weights: those of dj__rng_normal (base/rng.h), to
 * rounding, a vector at a time. A Philox block makes two of them. A seed stands for a network, so
 * these numbers must stay what they are, bit for bit.
 */
#include "backend/cpu/isa/philox.h"
#include "backend/cpu/isa/vmath.h"

enum { PIECE = 1 << 10 }; /* numbers: their random words fit in first-level cache */

/* Random words of numbers from .. from + count, and of those that fill the last vector. */
static void draw(uint32_t *u, uint32_t *v, int64_t from, int64_t count, uint64_t key,
                 uint64_t stream) {
  const uint64_t block = (uint64_t)from / 2;
  vq at = q_from(block);
  for (int64_t i = 0; i < count; i += VW) {
    const vq4 r = v_philox(key, at, q_all(block >> 32), q_all(stream), q_all(stream >> 32));
    *(vu *)(u + i) = q_pairs(r.v[0], r.v[2]);
    *(vu *)(v + i) = q_pairs(r.v[1], r.v[3]);
    at += VW / 2;
  }
}

/* 1 - v / 2^24 without its logarithm's special cases: v < 2^24. */
DJ__INLINE float log_rest(uint32_t v) {
  return vm_log_core(1.0f - (float)v * 0x1p-24f, 0);
}

/* vm_cos(2 pi v / 2^24) for v < 2^24. The nearest multiple of pi/2 is known, and in three parts it
 * is exact enough: the same bits for every v. */
DJ__INLINE float cos_turn(uint32_t v) {
  const float x = 6.28318530717958647692f * ((float)v * 0x1p-24f);
  const uint32_t q = (v + (1u << 21)) >> 22;
  const float n = (float)q;
#if defined VM_HAS_FMA
  float r = vm_fma(n, -0x1.921fb6p+0f, x);
  r = vm_fma(n, 0x1.777a5cp-25f, r);
  r = vm_fma(n, 0x1p-49f, r);
#else
  const float r = (float)((double)x - (double)n * 1.57079632679489661923);
#endif
  return vm_sincos_core(r, q + 1);
}

void DJ__I(fill_normal)(float *x, int64_t n, float std, uint64_t key, uint64_t stream,
                        int threads) {
  const int64_t pieces = (n + PIECE - 1) / PIECE;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t p = 0; p < pieces; p++) {
    uint32_t u[PIECE], v[PIECE];
    const int64_t from = p * PIECE, count = n - from < PIECE ? n - from : PIECE;
    draw(u, v, from, count, key, stream);
    DJ__SIMD for (int64_t i = 0; i < count; i++) x[from + i] =
        std * __builtin_sqrtf(-2.0f * log_rest(u[i] >> 8)) * cos_turn(v[i] >> 8);
  }
}
