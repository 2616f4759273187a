/*
 * Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011). A value is a pure function of (key, counter): no state, no order, the same on
 * every thread count. The engine uses key = seed and counter = (step, node, index); the loader uses
 * (epoch or step, stream, index).
 */
#ifndef DOJO_BASE_RNG_H
#define DOJO_BASE_RNG_H

#include <math.h>
#include <stdint.h>

typedef struct dj__u32x4 {
  uint32_t v[4];
} dj__u32x4;

static inline dj__u32x4 dj__philox(uint64_t key, uint64_t c0, uint64_t c1) {
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
  uint32_t x0 = (uint32_t)c0, x1 = (uint32_t)(c0 >> 32), x2 = (uint32_t)c1,
           x3 = (uint32_t)(c1 >> 32);
  for (int i = 0; i < 10; i++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * x0, p1 = (uint64_t)0xCD9E8D57u * x2;
    x0 = (uint32_t)(p1 >> 32) ^ x1 ^ k0;
    x1 = (uint32_t)p1;
    x2 = (uint32_t)(p0 >> 32) ^ x3 ^ k1;
    x3 = (uint32_t)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return (dj__u32x4){{x0, x1, x2, x3}};
}

/* A stream of numbers, for sequential code: rng = {key, stream}; then dj__rng_*(&rng). */
typedef struct dj__rng {
  uint64_t key, stream, counter;
} dj__rng;

static inline uint32_t dj__rng_u32(dj__rng *r) {
  uint64_t i = r->counter++;
  return dj__philox(r->key, i / 4, r->stream).v[i % 4];
}
/* Uniform in [0, 1) with 24 bits. */
static inline float dj__u01(uint32_t x) {
  return (float)(x >> 8) * 0x1p-24f;
}
static inline float dj__rng_uniform(dj__rng *r, float lo, float hi) {
  return lo + (hi - lo) * dj__u01(dj__rng_u32(r));
}
/* Integer in [0, n), n > 0, without bias worth speaking of (Lemire's multiply-shift on 64 bits). */
static inline uint64_t dj__rng_below(dj__rng *r, uint64_t n) {
  uint64_t x = ((uint64_t)dj__rng_u32(r) << 32) | dj__rng_u32(r);
  return (uint64_t)(((unsigned __int128)x * n) >> 64);
}
/* Standard normal (Box-Muller). */
static inline float dj__rng_normal(dj__rng *r) {
  float u = dj__u01(dj__rng_u32(r)), v = dj__u01(dj__rng_u32(r));
  return sqrtf(-2.0f * logf(1.0f - u)) * cosf(6.28318530717958647692f * v);
}

/* FNV-1a, 64 bits: names to stream numbers. */
static inline uint64_t dj__hash64(const void *data, uint64_t n, uint64_t h) {
  const unsigned char *p = data;
  h ^= 0xcbf29ce484222325ull;
  for (uint64_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3ull;
  return h;
}

#endif
