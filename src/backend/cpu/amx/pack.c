/* Packing for AMX: panels of B, tiles of A, and results back to where they belong. See amx.h. */
#include "backend/cpu/amx/amx.h"

enum {
  AHEAD = 512, /* bytes that rows are fetched ahead */
  RUN = 4      /* panels whose parts of a row are read together */
};

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
  int64_t n = m->cols - c0;
  __m512i a = i < m->rows ? row32(element(m, t, i, c0), t, n) : _mm512_setzero_si512();
  __m512i b = i + 1 < m->rows ? row32(element(m, t, i + 1, c0), t, n) : _mm512_setzero_si512();
  interleave(a, b, lo, hi);
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
  for (int i = 0; i < 16; i++) {
    r[i] = _mm512_setzero_si512();
    if (i0 + i >= m->rows) continue;
    const char *p = element(m, t, i0 + i, j0);
    _mm_prefetch(p + AHEAD, _MM_HINT_T0); // sixteen rows at once are too many for the processor
    if (t == DJ_F32) _mm_prefetch(p + AHEAD + 64, _MM_HINT_T0);
    r[i] = row32(p, t, n);
  }
}

DJ__INLINE void pack_b(char *dst, int64_t size, const dj__amx_matrix *m, const dj_dtype t,
                       bool turned, int64_t k0, int64_t steps, int64_t n0, int64_t panels) {
  for (int64_t s = 0; s < steps; s++, dst += DJ__STEP_BYTES) {
    int64_t k = k0 + 32 * s;
    for (int64_t half = 0; turned && half < 2 * panels; half++) {
      __m512i r[16];
      rows16(m, t, n0 + 16 * half, k, r);
      dj__amx_turn(r);
      store16(dst + half / 2 * size + half % 2 * DJ__TILE_BYTES, r);
    }
    for (int64_t p = 0; !turned && p < 16; p++)
      for (int64_t q = 0; q < panels; q++) { // long runs of each row
        __m512i lo, hi;
        pairs32(m, t, k + 2 * p, n0 + 32 * q, &lo, &hi);
        _mm512_store_si512(dst + q * size + p * 64, lo);
        _mm512_store_si512(dst + q * size + DJ__TILE_BYTES + p * 64, hi);
      }
  }
}
void dj__amx_pack_b(char *dst, int64_t size, const dj__amx_matrix *m, bool turned, int64_t k0,
                    int64_t steps, int64_t n0, int64_t panels) {
  const int64_t most = turned ? 1 : RUN;
  for (int64_t q = 0; q < panels; q += most) {
    int64_t n = panels - q < most ? panels - q : most;
    DJ__WITH_DTYPE(m->dtype, T,
                   pack_b(dst + q * size, size, m, T, turned, k0, steps, n0 + 32 * q, n));
  }
}

/* Up to RUN pairs of tiles, 32 rows of A each. */
DJ__INLINE void pack_a_turned(char *dst, const dj__amx_matrix *m, const dj_dtype t, int64_t k0,
                              int64_t steps, int64_t m0, int64_t n) {
  for (int64_t s = 0; s < steps; s++, dst += DJ__TILE_BYTES) {
    __m512i r[RUN][2][16];
    for (int64_t p = 0; p < 16; p++)
      for (int64_t q = 0; q < n; q++)
        pairs32(m, t, k0 + 32 * s + 2 * p, m0 + 32 * q, &r[q][0][p], &r[q][1][p]);
    for (int64_t q = 0; q < 2 * n; q++) {
      dj__amx_turn(r[q / 2][q % 2]);
      store16(dst + q * steps * DJ__TILE_BYTES, r[q / 2][q % 2]);
    }
  }
}

DJ__INLINE void pack_a_rows(char *dst, const dj__amx_matrix *m, const dj_dtype t, int64_t k0,
                            int64_t steps, int64_t m0) {
  for (int64_t i = 0; i < 16; i++, dst += 64) // a row at a time: one run of memory
    for (int64_t s = 0; s < steps; s++) {
      int64_t k = k0 + 32 * s;
      __m512i row = m0 + i < m->rows ? row32(element(m, t, m0 + i, k), t, m->cols - k)
                                     : _mm512_setzero_si512();
      _mm512_store_si512(dst + s * DJ__TILE_BYTES, row);
    }
}
void dj__amx_pack_a(char *dst, const dj__amx_matrix *m, bool turned, int64_t k0, int64_t steps,
                    int64_t m0, int64_t blocks) {
  for (int64_t b = 0; b < blocks; b += turned ? RUN : 1) {
    char *d = dst + b * 2 * steps * DJ__TILE_BYTES;
    int64_t row = m0 + 32 * b, n = blocks - b < RUN ? blocks - b : RUN;
    if (turned) {
      DJ__WITH_DTYPE(m->dtype, T, pack_a_turned(d, m, T, k0, steps, row, n));
    } else {
      DJ__WITH_DTYPE(m->dtype, T, pack_a_rows(d, m, T, k0, steps, row));
      DJ__WITH_DTYPE(m->dtype, T,
                     pack_a_rows(d + steps * DJ__TILE_BYTES, m, T, k0, steps, row + 16));
    }
  }
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

/* One row of results, c (32) f32, as act(c + bias) to y; m: which columns there are. past: y is a
 * whole line. */
DJ__INLINE void store_row(float *c, __mmask32 m, void *y, const dj_dtype t, __m512 b0, __m512 b1,
                          int act, bool past) {
  _mm512_store_ps(c, _mm512_add_ps(_mm512_load_ps(c), b0));
  _mm512_store_ps(c + 16, _mm512_add_ps(_mm512_load_ps(c + 16), b1));
  if (act) activate(c, act);
  __m512 lo = _mm512_load_ps(c), hi = _mm512_load_ps(c + 16);
  if (t == DJ_F32 && past) {
    _mm512_stream_ps(y, lo);
    _mm512_stream_ps((float *)y + 16, hi);
  } else if (t == DJ_F32) {
    _mm512_mask_storeu_ps(y, (__mmask16)m, lo);
    if (m >> 16) _mm512_mask_storeu_ps((float *)y + 16, (__mmask16)(m >> 16), hi);
  } else {
    __m512i v = (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
    if (past)
      _mm512_stream_si512(y, v);
    else if (m == 0xffffffffu)
      _mm512_storeu_si512(y, v);
    else
      _mm512_mask_storeu_epi16(y, m, v);
  }
}

DJ__INLINE void biases(const float *bias, __mmask32 m, __m512 *b0, __m512 *b1) {
  *b0 = *b1 = _mm512_setzero_ps();
  if (!bias) return;
  *b0 = _mm512_maskz_loadu_ps((__mmask16)m, bias);
  *b1 = _mm512_maskz_loadu_ps((__mmask16)(m >> 16), bias + 16);
}
DJ__INLINE __mmask32 columns(int64_t cols) {
  return cols >= 32 ? 0xffffffffu : (1u << cols) - 1;
}

void dj__amx_store(float *c, int64_t rows, int64_t cols, void *out, dj_dtype t, int64_t ld,
                   const float *bias, int act, bool past) {
  /* Whole lines of a large result go past the caches, which would read them first. */
  past = past && cols >= 32 && ((uintptr_t)out | (uintptr_t)ld * dj_dtype_size(t)) % 64 == 0;
  const __mmask32 m = columns(cols);
  __m512 b0, b1;
  biases(bias, m, &b0, &b1);
  DJ__WITH_DTYPE(t, T,
                 for (int64_t i = 0; i < rows; i++)
                     store_row(c + i * 32, m, at_w(out, T, i * ld), T, b0, b1, act, past));
}

void dj__amx_store_rows(float *c, int64_t cols, char *const *where, size_t offset, dj_dtype t,
                        const float *bias, int act) {
  const __mmask32 m = columns(cols);
  __m512 b0, b1;
  biases(bias, m, &b0, &b1);
  DJ__WITH_DTYPE(t, T,
                 for (int64_t i = 0; i < 32; i++) if (where[i])
                     store_row(c + i * 32, m, where[i] + offset, T, b0, b1, act, false));
}
