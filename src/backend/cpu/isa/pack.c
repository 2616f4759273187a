/*
 * Weights into the layouts that kernels like (dj__layout), rounded to bf16 or as they are.
 *
 * Words are f32 numbers, or pairs of bf16 numbers that are neighbours in the copy. Mostly 16 words
 * are neighbours, and are written as one run (dj__form).
 */
#include "backend/cpu/isa/isa.h"

#if defined __AVX512F__
#include "backend/cpu/isa/turn.h"
#endif

enum { RUN = DJ__RUN, STREAM = 1 << 18 };

/* Up to 16 rows of a weight (rows, taps, cols), at one tap. */
typedef struct strip {
  const float *w; /* of the first row */
  int64_t ld, rows, cols;
  const int32_t *row, *col; /* places */
  dj_dtype dtype;
  void *copy; /* where the tap is */
  bool past;  /* the caches */
} strip;

typedef struct words {
  uint32_t u[RUN][RUN];
} words;

static void turn(words *w) {
#if defined __AVX512F__
  __m512i r[RUN];
  for (int i = 0; i < RUN; i++) r[i] = _mm512_loadu_si512(w->u[i]);
  turn16(r);
  for (int i = 0; i < RUN; i++) _mm512_storeu_si512(w->u[i], r[i]);
#else
  for (int i = 0; i < RUN; i++)
    for (int j = 0; j < i; j++) {
      const uint32_t x = w->u[i][j];
      w->u[i][j] = w->u[j][i];
      w->u[j][i] = x;
    }
#endif
}

/* As to_bf16, in the upper half of a word. */
DJ__INLINE uint32_t upper(float f) {
  union {
    float f;
    uint32_t u;
  } x = {.f = f};
  const uint32_t rounded = x.u + 0x7fffu + ((x.u >> 16) & 1u);
  return (x.u & 0x7fffffffu) > 0x7f800000u ? x.u | 0x400000u : rounded;
}
/* Words of numbers that lie in a, of those in b beside them. */
DJ__INLINE uint32_t pair(float a, float b) {
  return upper(a) >> 16 | (upper(b) & 0xffff0000u);
}

/* n words of a row. */
DJ__INLINE void load(words *w, const strip *s, int64_t r, int64_t c, const int64_t n) {
  const float *x = s->w + r * s->ld + c;
  if (s->dtype == DJ_F32)
    memcpy(w->u[r], x, (size_t)n * sizeof *x);
  else
    DJ__SIMD for (int64_t i = 0; i < n; i++) w->u[r][i] = pair(x[2 * i], x[2 * i + 1]);
}

/* n words. Whole runs of large copies go past the caches: who reads them comes a step later. */
DJ__INLINE void write_run(const strip *s, void *to, const uint32_t *run, const int64_t n) {
#if defined __AVX512F__
  if (n == RUN && s->past && ((uintptr_t)to & 63) == 0) {
    _mm512_stream_si512(to, _mm512_loadu_si512(run));
    return;
  }
#else
  (void)s;
#endif
  memcpy(to, run, (size_t)n * sizeof *run);
}

/* Rows are neighbours, and columns in a word. */
static void write_turned(const strip *s) {
  const int64_t each = s->dtype == DJ_F32 ? 1 : 2, size = 4 / each;
  char *base = (char *)s->copy + s->row[0] * size;
  for (int64_t c = 0; c < s->cols; c += RUN * each) {
    words w;
    const int64_t n = (s->cols - c) / each;
    if (s->rows == RUN && n >= RUN) {
      for (int64_t r = 0; r < RUN; r++) load(&w, s, r, c, RUN);
      turn(&w);
      for (int64_t k = 0; k < RUN; k++)
        write_run(s, base + s->col[c + k * each] * size, w.u[k], RUN);
    } else {
      memset(&w, 0, sizeof w);
      for (int64_t r = 0; r < s->rows; r++) load(&w, s, r, c, n < RUN ? n : RUN);
      turn(&w);
      for (int64_t k = 0; k < n && k < RUN; k++)
        write_run(s, base + s->col[c + k * each] * size, w.u[k], s->rows);
    }
  }
}

/* The last of an odd number of rows is beside zeros. */
DJ__INLINE void write_pair(const strip *s, int64_t r, int64_t c, const int64_t n) {
  static const float nothing[RUN];
  const float *a = s->w + r * s->ld + c, *b = r + 1 < s->rows ? a + s->ld : nothing;
  uint32_t run[RUN];
  DJ__SIMD for (int64_t i = 0; i < n; i++) run[i] = pair(a[i], b[i]);
  write_run(s, (uint16_t *)s->copy + s->row[r] + s->col[c], run, n);
}
/* Columns are neighbours, and two rows in a word. */
static void write_pairs(const strip *s) {
  int64_t c = 0;
  for (; c + RUN <= s->cols; c += RUN)
    for (int64_t r = 0; r < s->rows; r += 2) write_pair(s, r, c, RUN);
  for (int64_t r = 0; r < s->rows && c < s->cols; r += 2) write_pair(s, r, c, s->cols - c);
}

/* Columns are neighbours. */
static void write_rows(const strip *s) {
  enum { PART = 2 * RUN };
  for (int64_t r = 0; r < s->rows; r++) {
    const float *x = s->w + r * s->ld;
    uint16_t *to = (uint16_t *)s->copy + s->row[r] + s->col[0];
    int64_t c = 0;
    for (; c + PART <= s->cols; c += PART) {
      uint32_t run[RUN];
      DJ__SIMD for (int64_t i = 0; i < RUN; i++) run[i] = pair(x[c + 2 * i], x[c + 2 * i + 1]);
      write_run(s, to + c, run, RUN);
    }
    for (; c < s->cols; c++) to[c] = to_bf16(x[c]);
  }
}

static void write_numbers(const strip *s) {
  for (int64_t r = 0; r < s->rows; r++)
    for (int64_t c = 0; c < s->cols; c++)
      st(s->copy, s->dtype, s->row[r] + s->col[c], s->w[r * s->ld + c]);
}

void DJ__I(pack)(const dj__layout *l, void *copy, const float *w, int64_t from, int64_t to) {
  static void (*const write[])(const strip *) = {[DJ__FORM_NUMBERS] = write_numbers,
                                                 [DJ__FORM_ROWS] = write_rows,
                                                 [DJ__FORM_PAIRS] = write_pairs,
                                                 [DJ__FORM_TURNED] = write_turned};
  for (int64_t r = from; r < to; r += RUN) {
    strip s = {.ld = l->taps * l->cols,
               .rows = to - r < RUN ? to - r : RUN,
               .cols = l->cols,
               .row = l->place + r,
               .col = l->place + l->rows + l->taps,
               .dtype = l->dtype,
               .past = l->count >= STREAM};
    for (int64_t t = 0; t < l->taps; t++) {
      s.w = w + (r * l->taps + t) * l->cols;
      s.copy = at_w(copy, l->dtype, l->place[l->rows + t]);
      write[l->form](&s);
    }
  }
  const int32_t *gap = l->place + l->rows + l->taps + l->cols;
  for (int i = 0; to == l->rows && i < l->gaps; i++) memset(at_w(copy, l->dtype, gap[i]), 0, 64);
#if defined __AVX512F__
  _mm_sfence();
#endif
}
