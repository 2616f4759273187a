/* Packing for AMX: panels of B, tiles of A, and results back to where they belong. See amx.h. */
#include "backend/cpu/amx/amx.h"

/* 32 elements from p on of which n (<= 32) are there, as bf16. */
DJ__INLINE __m512i row32(const void *p, const dj_dtype t, int64_t n) {
  if (n <= 0) return _mm512_setzero_si512();
  if (t == DJ_BF16) {
    if (n >= 32) return _mm512_loadu_si512(p);
    return _mm512_maskz_loadu_epi16((__mmask32)((1u << n) - 1), p);
  }
  const float *f = p;
  __m512 lo, hi;
  if (n >= 32) {
    lo = _mm512_loadu_ps(f);
    hi = _mm512_loadu_ps(f + 16);
  } else {
    __mmask16 ml = (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1);
    __mmask16 mh = (__mmask16)(n > 16 ? (1u << (n - 16)) - 1 : 0);
    lo = _mm512_maskz_loadu_ps(ml, f);
    hi = _mm512_maskz_loadu_ps(mh, f + 16);
  }
  return (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
}

DJ__INLINE const void *element(const dj__amx_matrix *m, const dj_dtype t, int64_t i, int64_t j) {
  return at(m->data, t, i * m->ld + j);
}

/* Columns c0 .. c0 + 32 of rows i and i + 1, as pairs: the first 16 columns, the last 16. */
DJ__INLINE void pairs32(const dj__amx_matrix *m, const dj_dtype t, int64_t i, int64_t c0,
                        __m512i *lo, __m512i *hi) {
  const __m512i first = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40,
                                         8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i last = _mm512_add_epi16(first, _mm512_set1_epi16(16));
  int64_t n = m->cols - c0;
  __m512i a = i < m->rows ? row32(element(m, t, i, c0), t, n) : _mm512_setzero_si512();
  __m512i b = i + 1 < m->rows ? row32(element(m, t, i + 1, c0), t, n) : _mm512_setzero_si512();
  *lo = _mm512_permutex2var_epi16(a, first, b);
  *hi = _mm512_permutex2var_epi16(a, last, b);
}

void dj__amx_turn(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; i++) { // lanes of 128 bits
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

DJ__INLINE void store16(char *dst, const __m512i r[16]) {
  for (int i = 0; i < 16; i++) _mm512_store_si512(dst + i * 64, r[i]);
}

/* 16 rows of 32 as they are, from (i0, j0) on. */
DJ__INLINE void rows16(const dj__amx_matrix *m, const dj_dtype t, int64_t i0, int64_t j0,
                       __m512i r[16]) {
  int64_t n = m->cols - j0;
  for (int i = 0; i < 16; i++)
    r[i] = i0 + i < m->rows ? row32(element(m, t, i0 + i, j0), t, n) : _mm512_setzero_si512();
}

DJ__INLINE void pack_b(char *dst, const dj__amx_matrix *m, const dj_dtype t, bool turned,
                       int64_t k0, int64_t steps, int64_t n0) {
  for (int64_t s = 0; s < steps; s++, dst += DJ__STEP_BYTES) {
    int64_t k = k0 + 32 * s;
    if (turned) {
      __m512i r[16];
      rows16(m, t, n0, k, r);
      dj__amx_turn(r);
      store16(dst, r);
      rows16(m, t, n0 + 16, k, r);
      dj__amx_turn(r);
      store16(dst + DJ__TILE_BYTES, r);
    } else {
      for (int p = 0; p < 16; p++) {
        __m512i lo, hi;
        pairs32(m, t, k + 2 * p, n0, &lo, &hi);
        _mm512_store_si512(dst + p * 64, lo);
        _mm512_store_si512(dst + DJ__TILE_BYTES + p * 64, hi);
      }
    }
  }
}
void dj__amx_pack_b(char *dst, const dj__amx_matrix *m, bool turned, int64_t k0, int64_t steps,
                    int64_t n0) {
  DJ__WITH_DTYPE(m->dtype, T, pack_b(dst, m, T, turned, k0, steps, n0));
}

DJ__INLINE void pack_a(char *dst, const dj__amx_matrix *m, const dj_dtype t, bool turned,
                       int64_t k0, int64_t steps, int64_t m0) {
  for (int64_t s = 0; s < steps; s++, dst += DJ__TILE_BYTES) {
    int64_t k = k0 + 32 * s;
    __m512i r[16], unused;
    if (turned) {
      for (int p = 0; p < 16; p++) pairs32(m, t, k + 2 * p, m0, &r[p], &unused);
      dj__amx_turn(r);
    } else {
      rows16(m, t, m0, k, r);
    }
    store16(dst, r);
  }
}
void dj__amx_pack_a(char *dst, const dj__amx_matrix *m, bool turned, int64_t k0, int64_t steps,
                    int64_t m0) {
  DJ__WITH_DTYPE(m->dtype, T, pack_a(dst, m, T, turned, k0, steps, m0));
}

/* ---- results ---- */
#define ACT(name, expression)                                                                      \
  case DJ__OP_##name:                                                                              \
    DJ__SIMD for (int64_t j = 0; j < 32; j++) {                                                    \
      float x = c[j];                                                                              \
      c[j] = (expression);                                                                         \
    }                                                                                              \
    break;
DJ__INLINE void activate(float *c, int act) { // (32)
  switch (act) {
    ACT(relu, x > 0 ? x : x != x ? x : 0.0f)
    ACT(sigmoid, vm_sigmoid(x))
    ACT(tanh, vm_tanh(x))
    ACT(elu, x > 0 ? x : vm_exp(x) - 1.0f)
    ACT(silu, x * vm_sigmoid(x))
    ACT(gelu, vm_gelu(x))
  default:
    break;
  }
}

void dj__amx_store(float *c, int64_t rows, int64_t cols, void *out, dj_dtype t, int64_t ld,
                   const float *bias, int act) {
  __mmask32 m = cols >= 32 ? 0xffffffffu : (1u << cols) - 1;
  __m512 b0 = _mm512_setzero_ps(), b1 = b0;
  if (bias) {
    b0 = _mm512_maskz_loadu_ps((__mmask16)m, bias);
    b1 = _mm512_maskz_loadu_ps((__mmask16)(m >> 16), bias + 16);
  }
  for (int64_t i = 0; i < rows; i++, c += 32) {
    if (bias) {
      _mm512_store_ps(c, _mm512_add_ps(_mm512_load_ps(c), b0));
      _mm512_store_ps(c + 16, _mm512_add_ps(_mm512_load_ps(c + 16), b1));
    }
    if (act) activate(c, act);
    __m512 lo = _mm512_load_ps(c), hi = _mm512_load_ps(c + 16);
    if (t == DJ_F32) {
      float *y = (float *)out + i * ld;
      _mm512_mask_storeu_ps(y, (__mmask16)m, lo);
      if (m >> 16) _mm512_mask_storeu_ps(y + 16, (__mmask16)(m >> 16), hi);
    } else {
      uint16_t *y = (uint16_t *)out + i * ld;
      __m512i v = (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
      if (m == 0xffffffffu)
        _mm512_storeu_si512(y, v);
      else
        _mm512_mask_storeu_epi16(y, m, v);
    }
  }
}
