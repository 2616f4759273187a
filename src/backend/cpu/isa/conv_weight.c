/*
 * conv2d_weight: dw[o, i, j, c] = sum over images and output pixels p of
 * dy[p, o] * x[window(p) + (i, j, c)]. Not for groups and dilation along the width.
 *
 * For a row i of the window, the KW * C inputs of output pixel p lie side by side in an image row,
 * and those of the next pixel `step` = stride * C elements further on. So without any copy of
 * windows, for every row i, dw is a sum of outer products: (KW * C) numbers of x times O numbers of
 * dy. A tile of it stays in registers over the pixels of a batch of output rows; one number of x is
 * broadcast, dy is read as vectors. Rows of x and dy are first laid out as f32 with padding; where
 * the processor multiplies pairs of bf16 (AVX-512 BF16), as pairs of neighbouring pixels instead.
 *
 * Output rows are shared out in parts; their number depends on the shape alone. Each part has a sum
 * of its own, the sums are added in order: results do not depend on the number of threads.
 */
#include "backend/cpu/isa/basic.h"
#include "backend/cpu/isa/nn.h"

#if defined DJ_ISA_avx512
#include <immintrin.h>
#endif

enum {
  LEAST_PIXELS = 64, /* that a tile stays in registers for */
  MOST_PIXELS = 1024,
  BATCH_BYTES = 192 << 10, /* laid out rows of a batch: they stay in second-level cache */
  PART_PIXELS = 1024,      /* of a part where there are many: its sum is worth adding */
  MOST_PARTS = 16,
  GROUP = 4 * VW /* outputs whose dy lies together: those of the widest tile */
};

typedef struct plan {
  int64_t n, h, w, c, o, oh, ow, kh, kw; /* x (n, h, w, c), dy (n, oh, ow, o), dw (o, kh, kw, c) */
  int64_t sh, sw, dh, pad_top, pad_left;
  int64_t step, run, len; /* elements: between windows, of a window's row, of a laid out row of x */
  int64_t wide;           /* o rounded up to whole vectors */
  int64_t units;          /* of a row of dy: pixels, or pairs of them */
  int64_t rows, slots;    /* of a batch: output rows, rows of x they can need */
  int64_t images;         /* that a batch can touch */
  int64_t batches, parts;
  bool pairs;
} plan;

static bool has_pairs(void) {
#if defined DJ_ISA_avx512
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

static plan plan_of(const dj__call *call) {
  const dj__conv_attr *a = call->attr;
  const int64_t *x = call->in[0].shape.dim, *dy = call->in[1].shape.dim;
  plan p = {.n = x[0], .h = x[1], .w = x[2], .c = x[3], .o = dy[3], .oh = dy[1], .ow = dy[2]};
  p.kh = a->kh, p.kw = a->kw;
  p.sh = a->stride[0], p.sw = a->stride[1], p.dh = a->dilation[0];
  p.pad_top = a->pad[0], p.pad_left = a->pad[1];
  p.pairs = call->in[0].dtype == DJ_BF16 && call->in[1].dtype == DJ_BF16 && has_pairs();
  p.step = p.sw * p.c;
  p.run = p.kw * p.c;
  p.len = ((p.ow - 1) * p.step + p.run + 15) / 16 * 16;
  p.wide = (p.o + VW - 1) / VW * VW;
  p.units = p.pairs ? (p.ow + 1) / 2 : p.ow;
  int64_t all = p.n * p.oh, least = (LEAST_PIXELS + p.ow - 1) / p.ow;
  p.rows = (BATCH_BYTES / 4 - p.kh * p.len) / (p.sh * p.len + p.units * p.wide);
  if (p.rows > MOST_PIXELS / p.ow) p.rows = MOST_PIXELS / p.ow;
  if (p.rows > all / MOST_PARTS) p.rows = all / MOST_PARTS;
  if (p.rows < least) p.rows = least;
  if (p.rows > all) p.rows = all;
  /* Rows of x that a batch needs: at most kh for each output row, and no more than its images
   * have. */
  p.images = (p.rows + p.oh - 2) / p.oh + 1;
  p.slots = p.images * p.h < p.rows * p.kh ? p.images * p.h : p.rows * p.kh;
  p.batches = (all + p.rows - 1) / p.rows;
  p.parts = all * p.ow / PART_PIXELS;
  if (p.parts < 4) p.parts = 4;
  if (p.parts > MOST_PARTS) p.parts = MOST_PARTS;
  if (p.parts > p.batches) p.parts = p.batches;
  return p;
}

/* ---- workspace ---- */
static size_t sum_bytes(const plan *p) { /* of one part: (kh, run, wide) f32 */
  return (size_t)(p->kh * p->run * p->wide) * sizeof(float);
}
static size_t scratch_bytes(const plan *p) { /* of one thread */
  size_t x = (size_t)(p->slots * p->len) * 4, dy = (size_t)(p->rows * p->units * p->wide) * 4;
  size_t pointers = (size_t)(p->rows * p->kh + 2 * p->rows + p->images * p->h) * sizeof(void *);
  return (x + dy + pointers + 64 + 63) / 64 * 64;
}

size_t DJ__I(conv2d_weight_workspace)(const dj__call *c) {
  plan p = plan_of(c);
  size_t threads = c->threads > 1 ? (size_t)c->threads : 1;
  return (size_t)p.parts * sum_bytes(&p) + threads * scratch_bytes(&p);
}

bool DJ__I(conv2d_weight_supports)(const dj__call *c) {
  const dj__conv_attr *a = c->attr;
  return is_float(&c->in[0]) && is_float(&c->in[1]) && is_float(&c->out[0]) && a->groups <= 1 &&
         a->dilation[1] == 1 && dj_shape_count(&c->in[1].shape) > 0;
}

/* ---- laying out ---- */
/* Row of x (w, c) as len units: element j of the padded row; in pairs with element j + step. */
DJ__INLINE void lay_x(const plan *p, void *dst, const void *row, const dj_dtype t) {
  int64_t from = p->pad_left * p->c, to = from + p->w * p->c; /* where the image lies */
  if (to > p->len) to = p->len;
  if (!p->pairs) {
    float *d = dst;
    int64_t margin = from < p->len ? from : p->len;
    for (int64_t j = 0; j < margin; j++) d[j] = 0;
    DJ__SIMD for (int64_t j = from; j < to; j++) d[j] = ld(row, t, j - from);
    for (int64_t j = to > margin ? to : margin; j < p->len; j++) d[j] = 0;
    return;
  }
  uint32_t *d = dst;
  const uint16_t *x = row;
  memset(d, 0, (size_t)p->len * sizeof *d);
  DJ__SIMD for (int64_t j = from; j < to; j++) d[j] = x[j - from];
  int64_t low = from - p->step > 0 ? from - p->step : 0, high = to - p->step;
  DJ__SIMD for (int64_t j = low; j < high; j++) d[j] |= (uint32_t)x[j + p->step - from] << 16;
}

/* Row of dy (ow, o): for each group of outputs (units, its width). */
DJ__INLINE void lay_dy(const plan *p, void *dst, const void *row, const dj_dtype t) {
  int64_t o = p->o;
  for (int64_t g = 0; g < p->wide; g += GROUP) {
    int64_t width = p->wide - g < GROUP ? p->wide - g : GROUP, n = o - g < width ? o - g : width;
    for (int64_t u = 0; u < p->units; u++) {
      if (!p->pairs) {
        float *d = (float *)dst + g * p->units + u * width;
        DJ__SIMD for (int64_t i = 0; i < n; i++) d[i] = ld(row, t, u * o + g + i);
        for (int64_t i = n; i < width; i++) d[i] = 0;
        continue;
      }
      uint32_t *d = (uint32_t *)dst + g * p->units + u * width;
      const uint16_t *a = (const uint16_t *)row + 2 * u * o + g;
      if (2 * u + 1 < p->ow) {
        DJ__SIMD for (int64_t i = 0; i < n; i++) d[i] = a[i] | (uint32_t)a[o + i] << 16;
      } else {
        DJ__SIMD for (int64_t i = 0; i < n; i++) d[i] = a[i];
      }
      for (int64_t i = n; i < width; i++) d[i] = 0;
    }
  }
}

/* ---- tiles ---- */
/* What a tile of dw sums over: for each of `rows` output rows, a row of x and one of dy. */
typedef struct terms {
  int64_t rows;
  const void *const *x, *const *dy;
  int64_t units, x_step;  /* pixels (pairs) of a row; units between their windows */
  int64_t dy_at, dy_step; /* where the outputs of the tile are in a laid out row of dy */
  int64_t wide;           /* between rows of the sum */
  bool fresh;             /* the sum begins here */
} terms;

/* Four bytes, an f32 or a pair of bf16, in every element of a vector. */
typedef uint32_t word __attribute__((may_alias));
DJ__INLINE vf spread(word w) {
  return (vf)((vu){0} + w);
}

/* Sums (k, o): k < KT neighbours of x from k0 on, o < OT vectors of dy. */
#define TILE_BODY(OT, KT, MULTIPLY_ADD)                                                            \
  static const vf zero[OT];                                                                        \
  const float *old = t->fresh ? (const float *)zero : sum;                                         \
  int64_t old_step = t->fresh ? 0 : t->wide;                                                       \
  vf a[KT][OT];                                                                                    \
  for (int k = 0; k < (KT); k++)                                                                   \
    for (int v = 0; v < (OT); v++) a[k][v] = *(const vf *)(old + k * old_step + v * VW);           \
  for (int64_t r = 0; r < t->rows; r++) {                                                          \
    const word *x = (const word *)t->x[r] + k0, *dy = (const word *)t->dy[r] + t->dy_at;           \
    for (int64_t u = 0; u < t->units; u++, x += t->x_step, dy += t->dy_step) {                     \
      vf d[OT];                                                                                    \
      for (int v = 0; v < (OT); v++) d[v] = *(const vf *)(dy + v * VW);                            \
      for (int k = 0; k < (KT); k++)                                                               \
        for (int v = 0; v < (OT); v++) a[k][v] = MULTIPLY_ADD(a[k][v], spread(x[k]), d[v]);        \
    }                                                                                              \
  }                                                                                                \
  for (int k = 0; k < (KT); k++)                                                                   \
    for (int v = 0; v < (OT); v++) *(vf *)(sum + k * t->wide + v * VW) = a[k][v];

typedef void tile_fn(float *sum, const terms *t, int64_t k0);

#define F32_ADD(a, x, d) ((a) + (x) * (d))
#define TILE(OT, KT)                                                                               \
  static void tile_##OT##_##KT(float *sum, const terms *t, int64_t k0) {                           \
    TILE_BODY(OT, KT, F32_ADD)                                                                     \
  }
#if defined DJ_ISA_avx512
#define TILES(X) X(4, 6) X(4, 3) X(4, 1) X(2, 12) X(2, 6) X(2, 3) X(2, 1) X(1, 12) X(1, 3) X(1, 1)
#elif defined DJ_ISA_avx2
#define TILES(X) X(2, 6) X(2, 3) X(2, 1) X(1, 12) X(1, 3) X(1, 1)
#else
#define TILES(X) X(2, 4) X(2, 1) X(1, 8) X(1, 1)
#endif
TILES(TILE)

typedef struct tile {
  int o, k; /* vectors, neighbours */
  tile_fn *f32, *pairs;
} tile;

#if defined DJ_ISA_avx512
#define PAIR_ADD(a, x, d) ((vf)_mm512_dpbf16_ps((__m512)(a), (__m512bh)(x), (__m512bh)(d)))
#define PAIR_TILE(OT, KT)                                                                          \
  __attribute__((target("avx512bf16"))) static void pairs_##OT##_##KT(float *sum, const terms *t,  \
                                                                      int64_t k0) {                \
    TILE_BODY(OT, KT, PAIR_ADD)                                                                    \
  }
TILES(PAIR_TILE)
#define ENTRY(OT, KT) {OT, KT, tile_##OT##_##KT, pairs_##OT##_##KT},
#else
#define ENTRY(OT, KT) {OT, KT, tile_##OT##_##KT, NULL},
#endif
static const tile TILE_LIST[] = {TILES(ENTRY)};

/* The first tile, widest first, that fits into what is left. */
static const tile *tile_for(int64_t vectors, int64_t k) {
  const tile *t = TILE_LIST;
  int o = t->o;
  while (o > vectors) o /= 2;
  while (t->o != o || t->k > k) t++;
  return t;
}

/* All of one row of windows: sum (run, wide). */
static void add_window_row(const plan *p, float *sum, terms *t) {
  for (int64_t o = 0; o < p->wide;) {
    int64_t group = o / GROUP * GROUP, done = 0;
    t->dy_step = p->wide - group < GROUP ? p->wide - group : GROUP;
    t->dy_at = group * p->units + o - group;
    for (int64_t k = 0; k < p->run;) {
      const tile *f = tile_for((group + t->dy_step - o) / VW, p->run - k);
      (p->pairs ? f->pairs : f->f32)(sum + k * p->wide + o, t, k);
      k += f->k;
      done = f->o; /* the same for all k */
    }
    o += done * VW;
  }
}

/* ---- batches ---- */
typedef struct scratch {
  char *x, *dy;          /* (slots, len) and (rows, units, wide), 4 bytes each */
  const void **laid;     /* (images, h): where a row of x is laid out, or NULL */
  const void **row;      /* (kh, rows): for every output row, its rows of x; NULL in the padding */
  const void **tx, **td; /* (rows): terms of one row of windows */
} scratch;

static scratch scratch_at(const plan *p, char *at) {
  scratch s = {.x = at};
  s.dy = s.x + (size_t)(p->slots * p->len) * 4;
  char *rest = s.dy + (size_t)(p->rows * p->units * p->wide) * 4;
  rest += (size_t)(-(uintptr_t)rest & 7);
  s.laid = (const void **)(void *)rest;
  s.row = s.laid + p->images * p->h;
  s.tx = s.row + p->rows * p->kh;
  s.td = s.tx + p->rows;
  return s;
}

/* Lays out what output rows from..to (of n * oh) need. */
DJ__INLINE void lay_batch(const plan *p, const dj__call *c, const scratch *s, int64_t from,
                          int64_t to, const dj_dtype xt, const dj_dtype dt) {
  int64_t filled = 0, first = from / p->oh;
  memset(s->laid, 0, (size_t)(p->images * p->h) * sizeof *s->laid);
  for (int64_t r = from; r < to; r++) {
    int64_t n = r / p->oh, top = r % p->oh * p->sh - p->pad_top;
    lay_dy(p, s->dy + (r - from) * p->units * p->wide * 4, at(c->in[1].data, dt, r * p->ow * p->o),
           dt);
    for (int64_t i = 0; i < p->kh; i++) {
      int64_t ih = top + i * p->dh;
      const void **where = &s->row[i * p->rows + r - from];
      *where = NULL;
      if (ih < 0 || ih >= p->h) continue;
      const void **laid = &s->laid[(n - first) * p->h + ih];
      if (!*laid) {
        char *dst = s->x + filled++ * p->len * 4;
        lay_x(p, dst, at(c->in[0].data, xt, (n * p->h + ih) * p->w * p->c), xt);
        *laid = dst;
      }
      *where = *laid;
    }
  }
}

/* Output rows from..to (of n * oh) into sum (kh, run, wide). */
static void add_batch(const plan *p, const dj__call *c, const scratch *s, float *sum, int64_t from,
                      int64_t to, bool fresh) {
  DJ__WITH_DTYPE(c->in[0].dtype, XT,
                 DJ__WITH_DTYPE(c->in[1].dtype, DT, lay_batch(p, c, s, from, to, XT, DT)));
  for (int64_t i = 0; i < p->kh; i++) {
    float *row = sum + i * p->run * p->wide;
    terms t = {.x = s->tx,
               .dy = s->td,
               .units = p->units,
               .x_step = p->pairs ? 2 * p->step : p->step,
               .wide = p->wide,
               .fresh = fresh};
    for (int64_t r = 0; r < to - from; r++) {
      if (!s->row[i * p->rows + r]) continue;
      s->tx[t.rows] = s->row[i * p->rows + r];
      s->td[t.rows++] = s->dy + r * p->units * p->wide * 4;
    }
    if (t.rows)
      add_window_row(p, row, &t);
    else if (fresh)
      memset(row, 0, (size_t)(p->run * p->wide) * sizeof *row);
  }
}

/* dw (o, kh, kw, c) from the sums of the parts (parts, kh * run, wide), added in order. */
static void gather_parts(const plan *p, const dj__call *c, const float *sums, int nt) {
  int64_t all = p->kh * p->run, each = all * p->wide, blocks = (all + 15) / 16;
#pragma omp parallel for schedule(static) num_threads(nt)
  for (int64_t b = 0; b < blocks; b++) {
    int64_t to = b * 16 + 16 < all ? b * 16 + 16 : all;
    for (int64_t o = 0; o < p->wide; o += VW)
      for (int64_t k = b * 16; k < to; k++) {
        const float *at = sums + k * p->wide + o;
        vf total = *(const vf *)at;
        for (int64_t i = 1; i < p->parts; i++) total += *(const vf *)(at + i * each);
        for (int v = 0; v < VW && o + v < p->o; v++)
          st(c->out[0].data, c->out[0].dtype, (o + v) * all + k, total[v]);
      }
  }
}

dj_status DJ__I(conv2d_weight_run)(const dj__call *c, void *self) {
  (void)self;
  plan p = plan_of(c);
  float *sums = c->workspace; // (parts, kh * run, wide) f32
  char *scratches = (char *)c->workspace + (size_t)p.parts * sum_bytes(&p);
  int nt = threads_for(c, p.n * p.oh * p.ow * p.o * p.kh * p.run / 16);
#pragma omp parallel num_threads(nt)
  {
    scratch s = scratch_at(&p, scratches + (size_t)omp_get_thread_num() * scratch_bytes(&p));
#pragma omp for schedule(static)
    for (int64_t part = 0; part < p.parts; part++) {
      float *sum = sums + (size_t)part * sum_bytes(&p) / sizeof *sums;
      int64_t first = part_from(p.batches, p.parts, part), all = p.n * p.oh;
      int64_t last = part_from(p.batches, p.parts, part + 1);
      for (int64_t b = first; b < last; b++) {
        int64_t end = (b + 1) * p.rows < all ? (b + 1) * p.rows : all;
        add_batch(&p, c, &s, sum, b * p.rows, end, b == first);
      }
    }
  }
  gather_parts(&p, c, sums, threads_for(c, p.parts * p.kh * p.run * p.wide));
  return DJ_OK;
}
