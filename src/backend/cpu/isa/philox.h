/*
 * dj__philox (base/rng.h), VW / 2 blocks at a time. Numbers are the lower halves of 64-bit lanes,
 * where products of 32-bit numbers are made; nothing reads the upper halves.
 */
#ifndef DOJO_ISA_PHILOX_H
#define DOJO_ISA_PHILOX_H

#include "backend/cpu/isa/nn.h"
#if defined __SSE2__
#include <emmintrin.h>
#endif

typedef uint64_t vq __attribute__((vector_size(VW * 4)));

typedef struct vq4 {
  vq v[4];
} vq4;

DJ__INLINE vq q_all(uint64_t u) {
  return u - (vq){0};
}
/* u, u + 1, .. */
DJ__INLINE vq q_from(uint64_t u) {
  vq x = q_all(u);
  for (int i = 0; i < VW / 2; i++) x[i] += (uint64_t)i;
  return x;
}
/* Products of lower halves. */
DJ__INLINE vq q_mul(vq a, vq b) {
#if defined DJ_ISA_avx512
  return (vq)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined DJ_ISA_avx2
  return (vq)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined __SSE2__
  return (vq)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}
/* Lower halves of a, each followed by that of b. */
DJ__INLINE vu q_pairs(vq a, vq b) {
  return (vu)((a & 0xffffffffu) | b << 32);
}

/* Counters c0 and c1; their upper halves are given apart. */
DJ__INLINE vq4 v_philox(uint64_t key, vq c0, vq c0_high, vq c1, vq c1_high) {
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
  vq x0 = c0, x1 = c0_high, x2 = c1, x3 = c1_high;
  for (int i = 0; i < 10; i++) {
    const vq p0 = q_mul(x0, q_all(0xD2511F53u)), p1 = q_mul(x2, q_all(0xCD9E8D57u));
    x0 = p1 >> 32 ^ x1 ^ q_all(k0);
    x1 = p1;
    x2 = p0 >> 32 ^ x3 ^ q_all(k1);
    x3 = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return (vq4){{x0, x1, x2, x3}};
}

#endif
