/* Packing for AMX: panels of B, tiles of A, and results back to where they belong. See amx.h. */
#include "backend/cpu/amx/amx.h"

enum {
  AHEAD = 512, /* bytes that rows are fetched ahead */
  RUN = 4      /* panels whose parts of a row are read together */
};

void dj__amx_split_strange(__m512 x, __m512i limb[DJ__LIMBS], bool *strange) {
  const __m512i size = _mm512_and_si512((__m512i)x, _mm512_set1_epi32(0x7fffffff));
  const __m512i upper = _mm512_set1_epi32(-0x10000), half = _mm512_set1_epi32(0x8000);
  const __mmask16 no_number = _mm512_cmpge_epu32_mask(size, _mm512_set1_epi32(0x7f800000)),
                  nan = _mm512_cmpgt_epu32_mask(size, _mm512_set1_epi32(0x7f800000)),
                  cut = _mm512_cmpge_epu32_mask(size, _mm512_set1_epi32(0x7f7f8000));
  *strange |= no_number != 0;
  limb[0] = _mm512_mask_add_epi32((__m512i)x, (__mmask16)~cut, (__m512i)x, half);
  limb[0] = _mm512_mask_or_epi32(limb[0], nan, limb[0], _mm512_set1_epi32(0x400000)); /* quiet */
  limb[0] = _mm512_and_si512(limb[0], upper);
  x = _mm512_maskz_sub_ps((__mmask16)~no_number, x, (__m512)limb[0]);
  limb[1] = _mm512_and_si512(_mm512_add_epi32((__m512i)x, half), upper);
  limb[2] = (__m512i)_mm512_sub_ps(x, (__m512)limb[1]);
}

DJ__INLINE void split_run(char *dst, size_t apart, const void *src, const dj_dtype t,
                          const int limbs, int64_t n, bool *strange) {
  for (int64_t i = 0; i < n; i += 32) {
    __m512i v[DJ__LIMBS];
    const __mmask32 m = dj__amx_first(n - i);
    dj__amx_load(at(src, t, i), t, limbs, m, v, strange);
    for (int k = 0; k < limbs; k++)
      _mm512_mask_storeu_epi16(dst + (size_t)k * apart + i * 2, m, v[k]);
  }
}
void dj__amx_split_run(char *dst, size_t apart, const void *src, dj_dtype t, int limbs, int64_t n,
                       bool *strange) {
  DJ__AMX_WITH_KIND(t, limbs, F, split_run(dst, apart, src, F.t, F.limbs, n, strange));
}

/* 32 elements of row i from column j on as limbs; those outside are 0. */
DJ__INLINE void row32(const dj__amx_matrix *m, const dj__amx_kind f, int64_t i, int64_t j,
                      __m512i v[]) {
  const __mmask32 there = i < m->rows ? dj__amx_first(m->cols - j) : 0;
  if (there)
    dj__amx_load(at(m->data, f.t, i * m->ld + j), f.t, f.limbs, there, v, m->strange);
  else
    for (int k = 0; k < f.limbs; k++) v[k] = _mm512_setzero_si512();
}

/* Columns c0 .. c0 + 32 of rows i and i + 1, as pairs: the first 16 columns, the last 16. */
DJ__INLINE void pairs32(const dj__amx_matrix *m, const dj__amx_kind f, int64_t i, int64_t c0,
                        __m512i lo[], __m512i hi[]) {
  __m512i a[DJ__LIMBS], b[DJ__LIMBS];
  row32(m, f, i, c0, a);
  row32(m, f, i + 1, c0, b);
  for (int k = 0; k < f.limbs; k++) interleave(a[k], b[k], &lo[k], &hi[k]);
}

void dj__amx_turn(__m512i r[16]) {
  turn16(r);
}

DJ__INLINE void store16(char *dst, const __m512i r[16]) {
  for (int i = 0; i < 16; i++) _mm512_store_si512(dst + i * 64, r[i]);
}

/* 16 rows of 32 as they are, from (i0, j0) on. */
DJ__INLINE void rows16(const dj__amx_matrix *m, const dj__amx_kind f, int64_t i0, int64_t j0,
                       __m512i r[][16]) {
  for (int i = 0; i < 16; i++) {
    if (i0 + i < m->rows) {
      const char *p = at(m->data, f.t, (i0 + i) * m->ld + j0);
      _mm_prefetch(p + AHEAD, _MM_HINT_T0); // sixteen rows at once are too many for the processor
      if (f.t == DJ_F32) _mm_prefetch(p + AHEAD + 64, _MM_HINT_T0);
    }
    __m512i v[DJ__LIMBS];
    row32(m, f, i0 + i, j0, v);
    for (int k = 0; k < f.limbs; k++) r[k][i] = v[k];
  }
}

DJ__INLINE void pack_b(char *dst, int64_t size, const dj__amx_matrix *m, const dj__amx_kind f,
                       bool turned, int64_t k0, int64_t steps, int64_t n0, int64_t panels) {
  for (int64_t s = 0; s < steps; s++, dst += f.limbs * DJ__STEP_BYTES) {
    int64_t k = k0 + 32 * s;
    for (int64_t half = 0; turned && half < 2 * panels; half++) {
      __m512i r[DJ__LIMBS][16];
      rows16(m, f, n0 + 16 * half, k, r);
      for (int l = 0; l < f.limbs; l++) {
        dj__amx_turn(r[l]);
        store16(dst + half / 2 * size + l * DJ__STEP_BYTES + half % 2 * DJ__TILE_BYTES, r[l]);
      }
    }
    for (int64_t p = 0; !turned && p < 16; p++)
      for (int64_t q = 0; q < panels; q++) { // long runs of each row
        __m512i lo[DJ__LIMBS], hi[DJ__LIMBS];
        pairs32(m, f, k + 2 * p, n0 + 32 * q, lo, hi);
        for (int l = 0; l < f.limbs; l++) {
          char *to = dst + q * size + l * DJ__STEP_BYTES + p * 64;
          _mm512_store_si512(to, lo[l]);
          _mm512_store_si512(to + DJ__TILE_BYTES, hi[l]);
        }
      }
  }
}
void dj__amx_pack_b(char *dst, int64_t size, const dj__amx_matrix *m, bool turned, int64_t k0,
                    int64_t steps, int64_t n0, int64_t panels) {
  const int64_t most = turned ? 1 : RUN;
  for (int64_t q = 0; q < panels; q += most) {
    int64_t n = panels - q < most ? panels - q : most;
    DJ__AMX_WITH_KIND(m->dtype, m->limbs, F,
                      pack_b(dst + q * size, size, m, F, turned, k0, steps, n0 + 32 * q, n));
  }
}

/* Up to RUN pairs of tiles, 32 rows of A each. */
DJ__INLINE void pack_a_turned(char *dst, const dj__amx_matrix *m, const dj__amx_kind f, int64_t k0,
                              int64_t steps, int64_t m0, int64_t n) {
  const int64_t run = steps * f.limbs * DJ__TILE_BYTES;
  for (int64_t s = 0; s < steps; s++, dst += f.limbs * DJ__TILE_BYTES) {
    __m512i r[RUN][2][DJ__LIMBS][16];
    for (int64_t p = 0; p < 16; p++)
      for (int64_t q = 0; q < n; q++) {
        __m512i lo[DJ__LIMBS], hi[DJ__LIMBS];
        pairs32(m, f, k0 + 32 * s + 2 * p, m0 + 32 * q, lo, hi);
        for (int l = 0; l < f.limbs; l++) r[q][0][l][p] = lo[l], r[q][1][l][p] = hi[l];
      }
    for (int64_t q = 0; q < 2 * n; q++)
      for (int l = 0; l < f.limbs; l++) {
        dj__amx_turn(r[q / 2][q % 2][l]);
        store16(dst + q * run + l * DJ__TILE_BYTES, r[q / 2][q % 2][l]);
      }
  }
}

DJ__INLINE void pack_a_rows(char *dst, const dj__amx_matrix *m, const dj__amx_kind f, int64_t k0,
                            int64_t steps, int64_t m0) {
  for (int64_t i = 0; i < 16; i++, dst += 64) // a row at a time: one run of memory
    for (int64_t s = 0; s < steps; s++) {
      __m512i v[DJ__LIMBS];
      row32(m, f, m0 + i, k0 + 32 * s, v);
      for (int l = 0; l < f.limbs; l++)
        _mm512_store_si512(dst + (s * f.limbs + l) * DJ__TILE_BYTES, v[l]);
    }
}
void dj__amx_pack_a(char *dst, const dj__amx_matrix *m, bool turned, int64_t k0, int64_t steps,
                    int64_t m0, int64_t blocks) {
  const int64_t run = steps * m->limbs * DJ__TILE_BYTES;
  for (int64_t b = 0; b < blocks; b += turned ? RUN : 1) {
    char *d = dst + b * 2 * run;
    int64_t row = m0 + 32 * b, n = blocks - b < RUN ? blocks - b : RUN;
    if (turned) {
      DJ__AMX_WITH_KIND(m->dtype, m->limbs, F, pack_a_turned(d, m, F, k0, steps, row, n));
    } else {
      DJ__AMX_WITH_KIND(m->dtype, m->limbs, F, pack_a_rows(d, m, F, k0, steps, row));
      DJ__AMX_WITH_KIND(m->dtype, m->limbs, F, pack_a_rows(d + run, m, F, k0, steps, row + 16));
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
 * whole line. mend: only what is NaN there. */
DJ__INLINE void store_row(float *c, __mmask32 m, void *y, const dj_dtype t, __m512 b0, __m512 b1,
                          int act, bool past, bool mend) {
  _mm512_store_ps(c, _mm512_add_ps(_mm512_load_ps(c), b0));
  _mm512_store_ps(c + 16, _mm512_add_ps(_mm512_load_ps(c + 16), b1));
  if (act) activate(c, act);
  __m512 lo = _mm512_load_ps(c), hi = _mm512_load_ps(c + 16);
  if (mend && t == DJ_F32) m = dj__amx_nan(y, m);
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

void dj__amx_store(float *c, int64_t rows, int64_t cols, void *out, int64_t ld,
                   const dj__amx_to *to) {
  /* Whole lines of a large result go past the caches, which would read them first. */
  const size_t row = (size_t)ld * dj_dtype_size(to->dtype);
  const bool past = to->past && !to->mend && cols >= 32 && ((uintptr_t)out | row) % 64 == 0;
  const __mmask32 m = dj__amx_first(cols);
  __m512 b0, b1;
  biases(to->bias, m, &b0, &b1);
  DJ__WITH_DTYPE(to->dtype, T,
                 for (int64_t i = 0; i < rows; i++) store_row(c + i * 32, m, at_w(out, T, i * ld),
                                                              T, b0, b1, to->act, past, to->mend));
}

void dj__amx_store_rows(float *c, int64_t cols, char *const *where, size_t offset,
                        const dj__amx_to *to) {
  const __mmask32 m = dj__amx_first(cols);
  __m512 b0, b1;
  biases(to->bias, m, &b0, &b1);
  DJ__WITH_DTYPE(to->dtype, T,
                 for (int64_t i = 0; i < 32; i++) if (where[i]) store_row(
                     c + i * 32, m, where[i] + offset, T, b0, b1, to->act, false, to->mend));
}
