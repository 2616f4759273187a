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
 * Compiled with AMX allowed; called only where dj__amx_usable() says so.
 */
#ifndef DOJO_CPU_AMX_H
#define DOJO_CPU_AMX_H

#include <immintrin.h>

#include "backend/cpu/isa/nn.h"
#include "backend/cpu/isa/vmath.h"

enum {
  DJ__TILE_BYTES = 1024, /* bytes of a tile */
  DJ__STEP_BYTES = 2048, /* bytes of a panel of B for 32 of depth */
  DJ__DEEP = 512,        /* most depth summed at once: the panel stays in first-level cache */
  DJ__A_BYTES = 3 << 18  /* of A that stay in second-level cache */
};

DJ__INLINE int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}
DJ__INLINE int64_t up(int64_t x, int64_t unit) { /* to the next multiple */
  return (x + unit - 1) / unit * unit;
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
} dj__amx_a;

/* The four tiles of c (32, 32) f32: loaded, or zero, before a block's products; kept behind them.
 */
DJ__INLINE void dj__amx_load_sums(const int at, const int bt, const float *c, bool zero) {
  if (zero) {
    _tile_zero(0);
    if (bt > 1) _tile_zero(1);
    if (at > 1) _tile_zero(2);
    if (at > 1 && bt > 1) _tile_zero(3);
  } else {
    _tile_loadd(0, c, 128);
    if (bt > 1) _tile_loadd(1, c + 16, 128);
    if (at > 1) _tile_loadd(2, c + 16 * 32, 128);
    if (at > 1 && bt > 1) _tile_loadd(3, c + 16 * 32 + 16, 128);
  }
}
DJ__INLINE void dj__amx_keep_sums(const int at, const int bt, float *c) {
  _tile_stored(0, c, 128);
  if (bt > 1) _tile_stored(1, c + 16, 128);
  if (at > 1) _tile_stored(2, c + 16 * 32, 128);
  if (at > 1 && bt > 1) _tile_stored(3, c + 16 * 32 + 16, 128);
}
/* A (tiles 4, 5) times B (6, 7). */
DJ__INLINE void dj__amx_multiply(const int at, const int bt) {
  _tile_dpbf16ps(0, 4, 6);
  if (bt > 1) _tile_dpbf16ps(1, 4, 7);
  if (at > 1) _tile_dpbf16ps(2, 5, 6);
  if (at > 1 && bt > 1) _tile_dpbf16ps(3, 5, 7);
}

/* c (32, 32) f32 = (sum ? c : 0) + A B over `steps` of 32 deep; with at or bt 1 only the first 16
 * rows or columns. b: packed panel. at, bt: constants. */
DJ__INLINE void dj__amx_block(const int at, const int bt, const dj__amx_a *a, const char *b,
                              int64_t steps, float *c, bool sum) {
  dj__amx_load_sums(at, bt, c, !sum);
  const char *a0 = a->row[0], *a1 = a->row[1];
  const size_t stride = a->stride;
  for (int64_t k = 0; k < steps; k++, b += DJ__STEP_BYTES) {
    const int64_t o = a->at[k];
    _tile_stream_loadd(4, a0 + o, stride);
    if (at > 1) _tile_stream_loadd(5, a1 + o, stride);
    _tile_loadd(6, b, 64);
    if (bt > 1) _tile_loadd(7, b + DJ__TILE_BYTES, 64);
    dj__amx_multiply(at, bt);
  }
  dj__amx_keep_sums(at, bt, c);
}

/* The same for any number of rows and columns (1..32). */
DJ__INLINE void dj__amx_any(int64_t rows, int64_t cols, const dj__amx_a *a, const char *b,
                            int64_t steps, float *c, bool sum) {
  if (rows > 16 && cols > 16)
    dj__amx_block(2, 2, a, b, steps, c, sum);
  else if (rows > 16)
    dj__amx_block(2, 1, a, b, steps, c, sum);
  else if (cols > 16)
    dj__amx_block(1, 2, a, b, steps, c, sum);
  else
    dj__amx_block(1, 1, a, b, steps, c, sum);
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

/* ---- packing (pack.c). Source elements are f32 or bf16; what lies outside is 0. ---- */
/* A matrix in memory: element (i, j) at data[i * ld + j]. */
typedef struct dj__amx_matrix {
  const void *data;
  dj_dtype dtype;
  int64_t rows, cols, ld;
} dj__amx_matrix;

/* Panels of B, `size` bytes from one to the next: depth k0 .. k0 + 32 steps, columns from n0 on.
 * `m` is B (K, N), or with `turned` B's transpose (N, K). Writes steps * DJ__STEP_BYTES of each. */
void dj__amx_pack_b(char *dst, int64_t size, const dj__amx_matrix *m, bool turned, int64_t k0,
                    int64_t steps, int64_t n0, int64_t panels);
/* Blocks of 32 rows of A from m0 on, as two runs of tiles each: 2 * blocks * steps *
 * DJ__TILE_BYTES. `m` is A (M, K), or with `turned` its transpose (K, M). */
void dj__amx_pack_a(char *dst, const dj__amx_matrix *m, bool turned, int64_t k0, int64_t steps,
                    int64_t m0, int64_t blocks);
/* 16 rows of 16 words, turned. */
void dj__amx_turn(__m512i r[16]);

/* Writes rows x cols of c (32, 32) f32 as act(c + bias) to out[i * ld + j] of dtype t; bias (cols)
 * f32 or NULL. past: the result is large, and caches are better used otherwise; then dj__amx_end.
 */
void dj__amx_store(float *c, int64_t rows, int64_t cols, void *out, dj_dtype t, int64_t ld,
                   const float *bias, int act, bool past);
/* The same for row i (of 32) to where[i] + offset, if that is not NULL. */
void dj__amx_store_rows(float *c, int64_t cols, char *const *where, size_t offset, dj_dtype t,
                        const float *bias, int act);

#endif
