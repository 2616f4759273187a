/*
 * Kernels on AMX: matrix products of bf16 tiles with f32 sums (Intel SDM volume 1, chapter 18).
 *
 * A tile is 16 rows of 64 bytes. The block that everything here is made of is 32 x 32 results: two
 * tiles of A (16 rows, 32 deep each), two of B (16 pairs deep, 16 columns), four of C. Measured on
 * Sapphire Rapids: a step of 32 deep takes 16 ns from first-level cache, 24 from second-level where
 * A is loaded past the first level (stream) and a panel of B stays in it, 34 ns a KiB beyond. So B
 * is packed in panels of 32 columns that stay in first-level cache, blocks of A in second-level
 * cache, and a panel that comes next is fetched ahead.
 *
 * Products of f32 keep f32's accuracy: a number is the sum of three limbs of bf16, h + m + l, 24
 * bits in all, and a product the sum of the six products of limbs that matter, hh + hm + mh + hl +
 * lh + mm; what is left out is of the size of f32's own rounding (Henry, Tang, Heinecke,
 * "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations",
 * ARITH 2019). Tiles take denormal numbers, and make those that would be, for 0: parts of numbers
 * below 2^-110 are lost, and sums are exact to some 2^-126. An infinity is its first limb; times
 * the others of a number it is no number. So where a number that is not finite was met, the same is
 * done once more with first limbs alone, and replaces what is NaN (mend).
 *
 * Compiled with AMX allowed; called only where dj__amx_usable() says so.
 */
#ifndef DOJO_CPU_AMX_H
#define DOJO_CPU_AMX_H

#include <immintrin.h>

#include "backend/cpu/isa/nn.h"
#include "backend/cpu/isa/turn.h"
#include "backend/cpu/isa/vmath.h"

enum {
  DJ__TILE_BYTES = 1024, /* bytes of a tile */
  DJ__STEP_BYTES = 2048, /* bytes of a panel of B for 32 of depth, of one limb */
  DJ__LIMBS = 3,         /* of an f32 number */
  DJ__DEEP = 512,        /* most depth summed at once: the panel stays in first-level cache */
  DJ__LIMBS_DEEP = 96,   /* the same in limbs: with A and sums beside it */
  DJ__A_BYTES = 3 << 18  /* of A that stay in second-level cache */
};

DJ__INLINE int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}
DJ__INLINE int64_t up(int64_t x, int64_t unit) { /* to the next multiple */
  return (x + unit - 1) / unit * unit;
}

DJ__INLINE char *aligned(void *p) { /* to the next line of 64 bytes */
  return (char *)(((uintptr_t)p + 63) / 64 * 64);
}

/* Steps of 32 deep that are summed at once. */
DJ__INLINE int64_t dj__amx_deep(int limbs) {
  return (limbs > 1 ? DJ__LIMBS_DEEP : DJ__DEEP) / 32;
}

/* Every row 64 bytes, every tile 16 rows: for the calling thread, until dj__amx_end. */
DJ__INLINE void dj__amx_begin(void) {
  struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } c __attribute__((aligned(64))) = {.palette = 1};
  for (int i = 0; i < 8; i++) c.bytes[i] = 64, c.rows[i] = 16;
  _tile_loadconfig(&c);
}
DJ__INLINE void dj__amx_end(void) {
  _mm_sfence(); /* behind stores past the caches */
  _tile_release();
}

/* Where the rows of a block of A are. Step k of its depth lies at + at[k]. */
typedef struct dj__amx_a {
  const char *row[2]; /* first and second 16 rows */
  size_t stride;      /* bytes between rows */
  const int32_t *at;  /* (steps) bytes */
  size_t limb;        /* bytes from a limb to the next */
} dj__amx_a;

/* Tiles of a block: how many there are (1 or 2) of A and B; limbs of numbers, 1 or 3. Constants. */
typedef struct dj__amx_form {
  int a, b, limbs;
} dj__amx_form;

/* The four tiles of c (32, 32) f32, `stride` bytes from row to row: loaded, or zero, before a
 * block's products; kept behind them. */
DJ__INLINE void dj__amx_load_sums(const dj__amx_form f, const char *c, size_t stride, bool zero) {
  if (zero) {
    _tile_zero(0);
    if (f.b > 1) _tile_zero(1);
    if (f.a > 1) _tile_zero(2);
    if (f.a > 1 && f.b > 1) _tile_zero(3);
  } else {
    _tile_loadd(0, c, stride);
    if (f.b > 1) _tile_loadd(1, c + 64, stride);
    if (f.a > 1) _tile_loadd(2, c + 16 * stride, stride);
    if (f.a > 1 && f.b > 1) _tile_loadd(3, c + 16 * stride + 64, stride);
  }
}
DJ__INLINE void dj__amx_keep_sums(const dj__amx_form f, char *c, size_t stride) {
  _tile_stored(0, c, stride);
  if (f.b > 1) _tile_stored(1, c + 64, stride);
  if (f.a > 1) _tile_stored(2, c + 16 * stride, stride);
  if (f.a > 1 && f.b > 1) _tile_stored(3, c + 16 * stride + 64, stride);
}
/* A (tiles 4, 5) times B (6, 7). */
DJ__INLINE void dj__amx_multiply(const dj__amx_form f) {
  _tile_dpbf16ps(0, 4, 6);
  if (f.b > 1) _tile_dpbf16ps(1, 4, 7);
  if (f.a > 1) _tile_dpbf16ps(2, 5, 6);
  if (f.a > 1 && f.b > 1) _tile_dpbf16ps(3, 5, 7);
}
DJ__INLINE void dj__amx_load_a(const dj__amx_form f, const char *a0, const char *a1,
                               size_t stride) {
  _tile_stream_loadd(4, a0, stride);
  if (f.a > 1) _tile_stream_loadd(5, a1, stride);
}
/* second: bytes from the first tile to the one beside it. */
DJ__INLINE void dj__amx_load_b(const dj__amx_form f, const char *b, size_t second, size_t stride) {
  _tile_loadd(6, b, stride);
  if (f.b > 1) _tile_loadd(7, b + second, stride);
}

/* One step of 32 deep. a0, a1: rows of A; limbs of it lie a_limb bytes apart, those of B b_limb.
 * Of three limbs all products but ml, lm and ll, so that each changes one side only. */
DJ__INLINE void dj__amx_step(const dj__amx_form f, const char *a0, const char *a1, size_t a_stride,
                             size_t a_limb, const char *b, size_t b_second, size_t b_stride,
                             size_t b_limb) {
  if (f.limbs == 1) {
    dj__amx_load_a(f, a0, a1, a_stride);
    dj__amx_load_b(f, b, b_second, b_stride);
    dj__amx_multiply(f);
    return;
  }
  dj__amx_load_a(f, a0 + 2 * a_limb, a1 + 2 * a_limb, a_stride);
  dj__amx_load_b(f, b, b_second, b_stride);
  dj__amx_multiply(f); /* lh */
  dj__amx_load_a(f, a0 + a_limb, a1 + a_limb, a_stride);
  dj__amx_multiply(f); /* mh */
  dj__amx_load_b(f, b + b_limb, b_second, b_stride);
  dj__amx_multiply(f); /* mm */
  dj__amx_load_a(f, a0, a1, a_stride);
  dj__amx_multiply(f); /* hm */
  dj__amx_load_b(f, b + 2 * b_limb, b_second, b_stride);
  dj__amx_multiply(f); /* hl */
  dj__amx_load_b(f, b, b_second, b_stride);
  dj__amx_multiply(f); /* hh */
}

/* Memory that is fetched while a block is worked on, a part beside each step: all at once would
 * hold up what the step itself loads. */
typedef struct dj__amx_ahead {
  const char *far;  /* into second-level cache: `lines` lines */
  const char *near; /* (32, 32) f32, the sums of the next block, into first-level cache; or NULL */
  int64_t lines;
} dj__amx_ahead;

DJ__INLINE void dj__amx_fetch(const dj__amx_ahead *f, int64_t k, int64_t steps) {
  const char *far = f->far + f->lines * k / steps * 64,
             *stop = f->far + f->lines * (k + 1) / steps * 64;
  for (; far < stop; far += 64) _mm_prefetch(far, _MM_HINT_T1);
  if (!f->near) return;
  const char *near = f->near + 64 * k / steps * 64, *end = f->near + 64 * (k + 1) / steps * 64;
  for (; near < end; near += 64) _mm_prefetch(near, _MM_HINT_T0);
}

/* c (32, 32) f32 = (sum ? c : 0) + A B over `steps` of 32 deep; with one tile of A or B only the
 * first 16 rows or columns. b: packed panel. ahead may be NULL. */
DJ__INLINE void dj__amx_block(const dj__amx_form f, const dj__amx_a *a, const char *b,
                              int64_t steps, float *c, bool sum, const dj__amx_ahead *ahead) {
  dj__amx_load_sums(f, (const char *)c, 128, !sum);
  const char *a0 = a->row[0], *a1 = a->row[1];
  const size_t stride = a->stride, limb = a->limb;
  for (int64_t k = 0; k < steps; k++, b += f.limbs * DJ__STEP_BYTES) {
    const int64_t o = a->at[k];
    dj__amx_step(f, a0 + o, a1 + o, stride, limb, b, DJ__TILE_BYTES, 64, DJ__STEP_BYTES);
    if (ahead) dj__amx_fetch(ahead, k, steps);
  }
  dj__amx_keep_sums(f, (char *)c, 128);
}

/* Calls fn(form, ...) with a constant form for any number of rows, columns (1..32) and limbs. */
#define DJ__AMX_FORMS(n_limbs, rows, cols, fn, ...)                                                \
  do {                                                                                             \
    const int form_ = ((n_limbs) > 1 ? 4 : 0) + ((rows) > 16 ? 2 : 0) + ((cols) > 16 ? 1 : 0);     \
    if (form_ == 7) fn(((dj__amx_form){2, 2, DJ__LIMBS}), __VA_ARGS__);                            \
    if (form_ == 6) fn(((dj__amx_form){2, 1, DJ__LIMBS}), __VA_ARGS__);                            \
    if (form_ == 5) fn(((dj__amx_form){1, 2, DJ__LIMBS}), __VA_ARGS__);                            \
    if (form_ == 4) fn(((dj__amx_form){1, 1, DJ__LIMBS}), __VA_ARGS__);                            \
    if (form_ == 3) fn(((dj__amx_form){2, 2, 1}), __VA_ARGS__);                                    \
    if (form_ == 2) fn(((dj__amx_form){2, 1, 1}), __VA_ARGS__);                                    \
    if (form_ == 1) fn(((dj__amx_form){1, 2, 1}), __VA_ARGS__);                                    \
    if (form_ == 0) fn(((dj__amx_form){1, 1, 1}), __VA_ARGS__);                                    \
  } while (0)

DJ__INLINE void dj__amx_any(int limbs, int64_t rows, int64_t cols, const dj__amx_a *a,
                            const char *b, int64_t steps, float *c, bool sum,
                            const dj__amx_ahead *ahead) {
  DJ__AMX_FORMS(limbs, rows, cols, dj__amx_block, a, b, steps, c, sum, ahead);
}

/* 32 numbers each of a and b as pairs: of the first 16, of the last. */
DJ__INLINE void interleave(__m512i a, __m512i b, __m512i *lo,
                           __m512i *hi) { /* a and b by turns: the first 16 of each, the last */
  const __m512i first = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40,
                                         8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i last = _mm512_add_epi16(first, _mm512_set1_epi16(16));
  *lo = _mm512_permutex2var_epi16(a, first, b);
  *hi = _mm512_permutex2var_epi16(a, last, b);
}

/* ---- splitting ---- */
/* Limbs of 16 numbers x, each in the upper half of its word; `strange`: one is not finite. For
 * numbers that are infinite, NaN, or so large that rounding their first limb would make it
 * infinite: it is cut instead. */
void dj__amx_split_strange(__m512 x, __m512i limb[DJ__LIMBS], bool *strange);

DJ__INLINE bool dj__amx_is_strange(__m512 x) {
  const __m512i size = _mm512_and_si512((__m512i)x, _mm512_set1_epi32(0x7fffffff));
  return _mm512_cmpge_epu32_mask(size, _mm512_set1_epi32(0x7f7f8000)) != 0;
}
/* The first limb is x to 8 bits, the second what that leaves to 8 bits, the third the rest: exact.
 */
DJ__INLINE void dj__amx_split16(__m512 x, __m512i limb[DJ__LIMBS], bool *strange) {
  if (__builtin_expect(dj__amx_is_strange(x), 0)) {
    dj__amx_split_strange(x, limb, strange);
    return;
  }
  const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32(-0x10000);
  for (int i = 0; i < DJ__LIMBS - 1; i++) {
    limb[i] = _mm512_and_si512(_mm512_add_epi32((__m512i)x, half), upper);
    x = _mm512_sub_ps(x, (__m512)limb[i]);
  }
  limb[DJ__LIMBS - 1] = (__m512i)x;
}

/* The upper halves of 32 words. */
DJ__INLINE __m512i dj__amx_upper(__m512i lo, __m512i hi) {
  const __m512i odd =
      _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27,
                       25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return _mm512_permutex2var_epi16(lo, odd, hi);
}

/* 32 f32 numbers as vectors of bf16: rounded where limbs is 1, else split. */
DJ__INLINE void dj__amx_split(__m512 lo, __m512 hi, const int limbs, __m512i out[], bool *strange) {
  if (limbs == 1) {
    out[0] = (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
    return;
  }
  __m512i first[DJ__LIMBS], last[DJ__LIMBS];
  dj__amx_split16(lo, first, strange);
  dj__amx_split16(hi, last, strange);
  for (int i = 0; i < DJ__LIMBS; i++) out[i] = dj__amx_upper(first[i], last[i]);
}

/* Numbers from p on of which those in mask m are there (others are 0), as limbs. */
DJ__INLINE void dj__amx_load(const void *p, const dj_dtype t, const int limbs, __mmask32 m,
                             __m512i out[], bool *strange) {
  if (t == DJ_BF16) {
    out[0] = m == 0xffffffffu ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(m, p);
    return;
  }
  const float *f = p;
  __m512 lo, hi;
  if (m == 0xffffffffu) {
    lo = _mm512_loadu_ps(f);
    hi = _mm512_loadu_ps(f + 16);
  } else {
    lo = _mm512_maskz_loadu_ps((__mmask16)m, f);
    hi = _mm512_maskz_loadu_ps((__mmask16)(m >> 16), f + 16);
  }
  dj__amx_split(lo, hi, limbs, out, strange);
}
/* The first n of 32. */
DJ__INLINE __mmask32 dj__amx_first(int64_t n) {
  return n >= 32 ? 0xffffffffu : n <= 0 ? 0 : (1u << n) - 1;
}

/* Calls something with a constant kind of numbers K: bf16, f32 to be rounded, f32 to be split. */
typedef struct dj__amx_kind {
  dj_dtype t;
  int limbs;
} dj__amx_kind;
#define DJ__AMX_WITH_KIND(dtype, n_limbs, K, call)                                                 \
  do {                                                                                             \
    if ((dtype) == DJ_BF16) {                                                                      \
      const dj__amx_kind K = {DJ_BF16, 1};                                                         \
      call;                                                                                        \
    } else if ((n_limbs) == 1) {                                                                   \
      const dj__amx_kind K = {DJ_F32, 1};                                                          \
      call;                                                                                        \
    } else {                                                                                       \
      const dj__amx_kind K = {DJ_F32, DJ__LIMBS};                                                  \
      call;                                                                                        \
    }                                                                                              \
  } while (0)

/* dst[0..n) = src[0..n) as bf16: limb k to dst + k * apart bytes. */
void dj__amx_split_run(char *dst, size_t apart, const void *src, dj_dtype t, int limbs, int64_t n,
                       bool *strange);

/* Numbers that a call has to be split, or are rounded (or bf16): limbs. */
DJ__INLINE int dj__amx_limbs(const dj_tensor *t, bool rounded) {
  return t->dtype == DJ_F32 && !rounded ? DJ__LIMBS : 1;
}

/* ---- packing (pack.c). Source elements are f32 or bf16; what lies outside is 0. ---- */
/* A matrix in memory: element (i, j) at data[i * ld + j]. Limbs: 1, or DJ__LIMBS of f32. */
typedef struct dj__amx_matrix {
  const void *data;
  dj_dtype dtype;
  int64_t rows, cols, ld;
  int limbs;
  bool *strange; /* becomes true where a number is not finite, if limbs is not 1 */
} dj__amx_matrix;

/* Panels of B, `size` bytes from one to the next: depth k0 .. k0 + 32 steps, columns from n0 on.
 * `m` is B (K, N), or with `turned` B's transpose (N, K). Writes for each step its limbs,
 * DJ__STEP_BYTES each. */
void dj__amx_pack_b(char *dst, int64_t size, const dj__amx_matrix *m, bool turned, int64_t k0,
                    int64_t steps, int64_t n0, int64_t panels);
/* Blocks of 32 rows of A from m0 on, as two runs of tiles each: (blocks, 2, steps, limbs) tiles.
 * `m` is A (M, K), or with `turned` its transpose (K, M). */
void dj__amx_pack_a(char *dst, const dj__amx_matrix *m, bool turned, int64_t k0, int64_t steps,
                    int64_t m0, int64_t blocks);
/* 16 rows of 16 words, turned. */
void dj__amx_turn(__m512i r[16]);

/* Which of 32 numbers at y, of those in m, are NaN. */
DJ__INLINE __mmask32 dj__amx_nan(const float *y, __mmask32 m) {
  const __m512 lo = _mm512_maskz_loadu_ps((__mmask16)m, y),
               hi = _mm512_maskz_loadu_ps((__mmask16)(m >> 16), y + 16);
  return (__mmask32)_mm512_cmp_ps_mask(lo, lo, _CMP_UNORD_Q) |
         (__mmask32)_mm512_cmp_ps_mask(hi, hi, _CMP_UNORD_Q) << 16;
}

/* Where results go: out, of dtype t; what is added (bias, of the columns, f32 or NULL), and act. */
typedef struct dj__amx_to {
  dj_dtype dtype;
  int act;
  const float *bias;
  bool past; /* the result is large, and caches are better used otherwise; then dj__amx_end */
  bool mend; /* only f32 results that are NaN are replaced */
} dj__amx_to;

/* Writes rows x cols of c (32, 32) f32 as act(c + bias) to out[i * ld + j]. */
void dj__amx_store(float *c, int64_t rows, int64_t cols, void *out, int64_t ld,
                   const dj__amx_to *to);
/* The same for row i (of 32) to where[i] + offset, if that is not NULL. */
void dj__amx_store_rows(float *c, int64_t cols, char *const *where, size_t offset,
                        const dj__amx_to *to);

#endif
