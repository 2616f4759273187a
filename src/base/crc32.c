/*
 * CRC-32. Every byte of a drive log goes through it on reading and on writing, so it has to keep up
 * with memory: 16-byte words are folded with carry-less multiplication (V. Gopal et al., "Fast CRC
 * Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009, whose constants for
 * the reflected polynomial are used here). The table version ("slicing by 8") handles short pieces,
 * tails and other processors.
 */
#include "base/crc32.h"

#include <pthread.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static uint32_t table[8][256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_table(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t c = i;
    for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
    table[0][i] = c;
  }
  for (uint32_t i = 0; i < 256; i++)
    for (int k = 1; k < 8; k++)
      table[k][i] = table[0][table[k - 1][i] & 255] ^ (table[k - 1][i] >> 8);
}

// `c` is the inverted running value here and below.
static uint32_t run_table(uint32_t c, const unsigned char *p, size_t n) {
  while (n >= 8) {
    uint32_t a =
        c ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
    c = table[7][a & 255] ^ table[6][a >> 8 & 255] ^ table[5][a >> 16 & 255] ^ table[4][a >> 24] ^
        table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
    p += 8;
    n -= 8;
  }
  while (n--) c = table[0][(c ^ *p++) & 255] ^ (c >> 8);
  return c;
}

#if defined(__x86_64__)
#define FOLD __attribute__((target("pclmul,sse4.1")))

// One 128-bit word moved ahead by the distance that `k` stands for, and the data there added.
FOLD static inline __m128i fold(__m128i x, __m128i k, __m128i data) {
  return _mm_xor_si128(
      _mm_xor_si128(_mm_clmulepi64_si128(x, k, 0x00), _mm_clmulepi64_si128(x, k, 0x11)), data);
}

static inline const __m128i *at(const unsigned char *p, int i) {
  return (const __m128i *)(const void *)p + i;
}

// n >= 64 and a multiple of 16.
FOLD static uint32_t run_fold(uint32_t c, const unsigned char *p, size_t n) {
  const __m128i by64 = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
  const __m128i by16 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
  const __m128i to64 = _mm_set_epi64x(0, 0x0163cd6124);
  const __m128i barrett = _mm_set_epi64x(0x01f7011641, 0x01db710641); // mu, polynomial
  const __m128i low32 = _mm_setr_epi32(-1, 0, -1, 0);

  __m128i x0 = _mm_xor_si128(_mm_loadu_si128(at(p, 0)), _mm_cvtsi32_si128((int)c));
  __m128i x1 = _mm_loadu_si128(at(p, 1)), x2 = _mm_loadu_si128(at(p, 2)),
          x3 = _mm_loadu_si128(at(p, 3));
  for (p += 64, n -= 64; n >= 64; p += 64, n -= 64) {
    x0 = fold(x0, by64, _mm_loadu_si128(at(p, 0)));
    x1 = fold(x1, by64, _mm_loadu_si128(at(p, 1)));
    x2 = fold(x2, by64, _mm_loadu_si128(at(p, 2)));
    x3 = fold(x3, by64, _mm_loadu_si128(at(p, 3)));
  }
  x0 = fold(fold(fold(x0, by16, x1), by16, x2), by16, x3);
  for (; n >= 16; p += 16, n -= 16) x0 = fold(x0, by16, _mm_loadu_si128(at(p, 0)));

  // 128 bits to 64, then to 32 by Barrett reduction.
  x0 = _mm_xor_si128(_mm_srli_si128(x0, 8), _mm_clmulepi64_si128(x0, by16, 0x10));
  x0 = _mm_xor_si128(_mm_srli_si128(x0, 4),
                     _mm_clmulepi64_si128(_mm_and_si128(x0, low32), to64, 0x00));
  __m128i q = _mm_clmulepi64_si128(_mm_and_si128(x0, low32), barrett, 0x10);
  q = _mm_clmulepi64_si128(_mm_and_si128(q, low32), barrett, 0x00);
  return (uint32_t)_mm_extract_epi32(_mm_xor_si128(x0, q), 1);
}
#endif

uint32_t dj__crc32_table(uint32_t crc, const void *data, size_t n) {
  pthread_once(&once, make_table);
  return ~run_table(~crc, data, n);
}

uint32_t dj__crc32(uint32_t crc, const void *data, size_t n) {
  const unsigned char *p = data;
#if defined(__x86_64__)
  if (n >= 64 && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1")) {
    size_t whole = n & ~(size_t)15;
    crc = ~run_fold(~crc, p, whole);
    p += whole;
    n -= whole;
  }
#endif
  return n ? dj__crc32_table(crc, p, n) : crc;
}
