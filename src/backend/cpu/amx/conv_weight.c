/*
 * conv2d_weight on AMX: dw[o, i, j, c] = sum over results v of dy[v, o] * x[v * stride + (i, j),
 * c], without groups and dilation.
 *
 * The depth of the product is results, 32 a step: A is dy turned (outputs by results), B needs
 * pairs of neighbouring results: for number u of a row of taps, x at result v and at result v + 1.
 * Those pairs are laid out once for every number of the picture (twice its size), and serve all
 * taps: a tile of B is 16 pairs, a fixed distance apart, of 16 neighbouring numbers. Rows of
 * results are numbered as laid out, padding included; dy is 0 there.
 *
 * Work is shared out by groups of input channels and parts of the results; each has sums of its
 * own, which are added in order. So results do not depend on the number of threads.
 */
#include "backend/cpu/amx/amx.h"

enum {
  GROUP = 128,         /* input channels together, where there are more */
  BAND_RESULTS = 640,  /* laid out at once: 20 steps */
  PART_RESULTS = 4096, /* in a part at least, where results are many */
  MOST_PARTS = 4,
  LEAST_RESULTS = 256,
  PAD = 16 /* numbers between pixels whose distance would be a power of two */
};

typedef struct plan {
  const dj__conv_attr *a;
  const uint16_t *x, *dy;
  dj_tensor dw;
  int64_t n, h, w, c, oh, ow, o, kh, kw, sy, sx;
  int64_t groups, group; /* of input channels; channels of one (the last may have fewer) */
  int64_t pixel;         /* laid out numbers of a pixel */
  int64_t pitch;         /* results of a laid out row, even */
  int64_t row;           /* numbers of a laid out row */
  int64_t units;         /* rows of results in all: n * oh */
  int64_t rows, images;  /* of a band: rows of one image, or several whole images */
  int64_t bands;         /* of an image (1 with several images), all */
  int64_t all_bands;
  int64_t steps; /* of 32 results of a band */
  int64_t lines; /* laid out source rows of one remainder of a band */
  int64_t parts, items;
  int64_t o_blocks, u_blocks;          /* of 32 outputs; of 32 numbers of a row of taps, at most */
  size_t sum_bytes, x_bytes, dy_bytes; /* of an item; of a thread */
} plan;

static plan plan_of(const dj__call *call) {
  const dj__conv_attr *a = call->attr;
  const int64_t *x = call->in[0].shape.dim, *dy = call->in[1].shape.dim;
  plan p = {.a = a, .x = call->in[0].data, .dy = call->in[1].data, .dw = call->out[0]};
  p.n = x[0], p.h = x[1], p.w = x[2], p.c = x[3];
  p.oh = dy[1], p.ow = dy[2], p.o = dy[3];
  p.kh = a->kh, p.kw = a->kw, p.sy = a->stride[0], p.sx = a->stride[1];
  const bool even = p.c % 32 == 0;
  p.group = even && p.c > GROUP ? GROUP : p.c;
  p.groups = (p.c + p.group - 1) / p.group;
  p.pixel = p.group + (even && p.group >= GROUP ? PAD : 0);
  p.pitch = ((p.ow - 1) * p.sx + p.kw + p.sx - 1) / p.sx;
  p.pitch += p.pitch % 2;
  p.row = p.pitch * p.sx * p.pixel;
  p.units = p.n * p.oh;
  const int64_t extra = (p.kh - 1) / p.sy;
  p.rows = BAND_RESULTS / p.pitch < 1 ? 1 : least(BAND_RESULTS / p.pitch, p.oh);
  p.bands = (p.oh + p.rows - 1) / p.rows;
  p.rows = (p.oh + p.bands - 1) / p.bands;
  p.lines = p.rows + extra;
  p.images = 1;
  if (p.bands ==
      1) { /* images lie one after another, with the rows between them that only taps see */
    p.images = least(p.n, BAND_RESULTS / (p.lines * p.pitch));
    if (p.images < 1) p.images = 1;
    const int64_t several = (p.n + p.images - 1) / p.images;
    p.images = (p.n + several - 1) / several;
  }
  p.all_bands = (p.n + p.images - 1) / p.images * p.bands;
  p.steps = (((p.images - 1) * p.lines + p.rows) * p.pitch + 31) / 32;
  p.parts = p.units * p.ow / PART_RESULTS;
  p.parts = p.parts < 1 ? 1 : least(p.parts, MOST_PARTS);
  if (p.groups * p.parts < MOST_PARTS)
    p.parts = least((MOST_PARTS + p.groups - 1) / p.groups, p.all_bands);
  p.parts = least(p.parts, p.all_bands);
  p.items = p.groups * p.parts;
  p.o_blocks = (p.o + 31) / 32;
  p.u_blocks = p.groups > 1 || even ? p.kw * ((p.group + 31) / 32) : (p.kw * p.c + 31) / 32;
  p.sum_bytes = (size_t)(p.kh * p.u_blocks * p.o_blocks) * 4096;
  /* Behind the last row: what its last step reads beyond, a row of taps and a step of results. */
  const int64_t behind = 32 * p.sx * p.pixel + p.kw * p.pixel + 64;
  p.x_bytes = (size_t)(p.sy * p.images * p.lines * p.row + behind) * 4;
  p.x_bytes = (p.x_bytes + 63) / 64 * 64;
  p.dy_bytes = (size_t)(p.o_blocks * p.steps) * 2 * DJ__TILE_BYTES;
  return p;
}

static size_t workspace(const dj__call *c) {
  const plan p = plan_of(c);
  const size_t threads = c->threads > 1 ? (size_t)c->threads : 1;
  return 64 + (size_t)p.items * p.sum_bytes + threads * (p.x_bytes + p.dy_bytes);
}

static bool supports(const dj__call *c) {
  const dj__conv_attr *a = c->attr;
  if (a->groups > 1 || a->dilation[0] != 1 || a->dilation[1] != 1) return false;
  if (c->in[0].dtype != DJ_BF16 || c->in[1].dtype != DJ_BF16 || !is_float(&c->out[0])) return false;
  if (dj_shape_count(&c->in[1].shape) == 0 || dj_shape_count(&c->in[0].shape) == 0) return false;
  const plan p = plan_of(c);
  if (p.x_bytes > 8 << 20) return false;   /* rows too long to lie in cache */
  if (dj__worth_threads == 0) return true; /* a test, with small shapes */
  return p.units * p.ow >= LEAST_RESULTS && p.o >= 8 && p.kw * p.c >= 12;
}

/* ---- laying out ---- */
DJ__INLINE __m512i clip(const uint16_t *row, int64_t j,
                        int64_t end) { /* numbers j .. j + 32 that lie in 0 .. end */
  if (j >= 0 && j + 32 <= end) return _mm512_loadu_si512(row + j);
  const int64_t low = j < 0 ? -j : 0, high = end - j;
  if (low >= 32 || high <= 0 || high <= low) return _mm512_setzero_si512();
  __mmask32 m = (high >= 32 ? 0xffffffffu : (1u << high) - 1) & ~((1u << low) - 1);
  return _mm512_maskz_loadu_epi16(m, row + j);
}
DJ__INLINE void put_pairs(uint32_t *dst, __m512i a, __m512i b) {
  __m512i lo, hi;
  interleave(a, b, &lo, &hi);
  _mm512_storeu_si512(dst, lo);
  _mm512_storeu_si512(dst + 16, hi);
}

/* Source row y of image n, channels of group g, as pairs with the pixel of the next result. */
static void lay_x_row(const plan *p, uint32_t *dst, int64_t n, int64_t y, int64_t g) {
  if (y < 0 || y >= p->h) {
    memset(dst, 0, (size_t)p->row * 4);
    return;
  }
  const uint16_t *row = p->x + (n * p->h + y) * p->w * p->c;
  const int64_t end = p->w * p->c, left = p->a->pad[1] * p->c;
  if (p->pixel == p->c) {                    /* one run */
    for (int64_t j = 0; j < p->row; j += 32) /* the row behind is written next, or there is room */
      put_pairs(dst + j, clip(row, j - left, end), clip(row, j - left + p->sx * p->c, end));
    return;
  }
  const int64_t width = least(p->group, p->c - g * p->group);
  for (int64_t q = 0; q < p->pitch * p->sx; q++, dst += p->pixel) {
    const int64_t j = q * p->c - left + g * p->group, k = j + p->sx * p->c;
    for (int64_t c = 0; c < width; c += 32)
      put_pairs(dst + c,
                j >= 0 && j < end ? _mm512_loadu_si512(row + j + c) : _mm512_setzero_si512(),
                k >= 0 && k < end ? _mm512_loadu_si512(row + k + c) : _mm512_setzero_si512());
    memset(dst + width, 0, (size_t)(p->pixel - width) * 4);
  }
}

static void lay_x(const plan *p, uint32_t *dst, int64_t n0, int64_t n1, int64_t y0, int64_t g) {
  uint32_t *to = dst;
  for (int64_t r = 0; r < p->sy; r++)
    for (int64_t n = n0; n < n0 + p->images; n++)
      for (int64_t l = 0; l < p->lines; l++, to += p->row)
        lay_x_row(p, to, n, n < n1 ? (y0 + l) * p->sy + r - p->a->pad[0] : -1, g);
  memset(to, 0, p->x_bytes - (size_t)(to - dst) * 4);
}

/* Where dy of result v of the band is (its outputs lie side by side), or NULL: padding. */
DJ__INLINE const uint16_t *dy_of(const plan *p, int64_t n0, int64_t n1, int64_t y0, int64_t y1,
                                 int64_t v) {
  const int64_t line = v / p->pitch, x = v % p->pitch, n = n0 + line / p->lines,
                y = y0 + line % p->lines;
  if (n >= n1 || y >= y1 || x >= p->ow) return NULL;
  return p->dy + ((n * p->oh + y) * p->ow + x) * p->o;
}

/* dy of result rows y0 .. y1 of images n0 .. n1, turned: (o_blocks, 2, steps) tiles. */
static void lay_dy(const plan *p, char *dst, int64_t n0, int64_t n1, int64_t y0, int64_t y1) {
  for (int64_t s = 0; s < p->steps; s++) {
    const uint16_t *row[32];
    for (int64_t k = 0; k < 32; k++) row[k] = dy_of(p, n0, n1, y0, y1, 32 * s + k);
    for (int64_t b = 0; b < p->o_blocks; b++) {
      const int64_t left = p->o - 32 * b;
      const __mmask32 m = left >= 32 ? 0xffffffffu : (1u << left) - 1;
      __m512i r[2][16];
      for (int64_t k = 0; k < 16; k++) {
        __m512i one = _mm512_setzero_si512(), two = one;
        if (row[2 * k]) one = _mm512_maskz_loadu_epi16(m, row[2 * k] + 32 * b);
        if (row[2 * k + 1]) two = _mm512_maskz_loadu_epi16(m, row[2 * k + 1] + 32 * b);
        interleave(one, two, &r[0][k], &r[1][k]);
      }
      for (int half = 0; half < 2; half++) {
        char *to = dst + ((2 * b + half) * p->steps + s) * DJ__TILE_BYTES;
        dj__amx_turn(r[half]);
        for (int i = 0; i < 16; i++) _mm512_store_si512(to + i * 64, r[half][i]);
      }
    }
  }
}

/* ---- sums ---- */
/* c (32 outputs, 32 numbers) += dy turned x pairs; with bt 1 only 16 numbers. */
DJ__INLINE void block(const int at, const int bt, const char *a, int64_t a_half, const char *b,
                      size_t stride, int64_t steps, float *c, bool fresh) {
  dj__amx_load_sums(at, bt, c, fresh);
  for (int64_t k = 0; k < steps; k++, a += DJ__TILE_BYTES, b += 16 * stride) {
    _tile_stream_loadd(4, a, 64);
    if (at > 1) _tile_stream_loadd(5, a + a_half, 64);
    _tile_loadd(6, b, stride);
    if (bt > 1) _tile_loadd(7, b + 64, stride);
    dj__amx_multiply(at, bt);
  }
  dj__amx_keep_sums(at, bt, c);
}

/* Block u of a row of taps: where it begins in a laid out row, where in dw, how many numbers it has
 * (0: none). */
typedef struct span {
  int64_t laid, in_dw, count;
} span;
static span span_of(const plan *p, int64_t g, int64_t u) {
  if (p->c % 32) return (span){32 * u, 32 * u, least(32, p->kw * p->c - 32 * u)};
  const int64_t blocks = p->u_blocks / p->kw, j = u / blocks, c = u % blocks * 32;
  if (g * p->group + c >= p->c) return (span){0, 0, 0};
  return (span){j * p->pixel + c, j * p->c + g * p->group + c, 32};
}

static void add_band(const plan *p, const char *dy, const uint32_t *x, int64_t g, float *sums,
                     bool fresh) {
  const size_t stride = (size_t)(2 * p->sx * p->pixel) * 4;
  const int64_t half = p->steps * DJ__TILE_BYTES;
  for (int64_t i = 0; i < p->kh; i++)
    for (int64_t u = 0; u < p->u_blocks; u++) {
      const span s = span_of(p, g, u);
      const char *b =
          (const char *)(x + (i % p->sy * p->images * p->lines + i / p->sy) * p->row + s.laid);
      for (int64_t o = 0; o < p->o_blocks && s.count > 0; o++) {
        float *c = sums + ((i * p->u_blocks + u) * p->o_blocks + o) * 1024;
        const char *a = dy + 2 * o * half;
        const bool tall = p->o - 32 * o > 16;
        if (tall && s.count > 16)
          block(2, 2, a, half, b, stride, p->steps, c, fresh);
        else if (tall)
          block(2, 1, a, half, b, stride, p->steps, c, fresh);
        else if (s.count > 16)
          block(1, 2, a, half, b, stride, p->steps, c, fresh);
        else
          block(1, 1, a, half, b, stride, p->steps, c, fresh);
      }
    }
}

/* A group of channels, a part of the results. */
static void one_item(const plan *p, int64_t item, float *sums, char *dy, uint32_t *x) {
  const int64_t g = item / p->parts, part = item % p->parts;
  const int64_t first = part_from(p->all_bands, p->parts, part),
                last = part_from(p->all_bands, p->parts, part + 1);
  for (int64_t b = first; b < last; b++) {
    const int64_t n0 = b / p->bands * p->images, n1 = least(n0 + p->images, p->n);
    const int64_t y0 = b % p->bands * p->rows, y1 = least(y0 + p->rows, p->oh);
    lay_x(p, x, n0, n1, y0, g);
    lay_dy(p, dy, n0, n1, y0, y1);
    add_band(p, dy, x, g, sums, b == first);
  }
}

/* Adds the parts, in order, into dw. */
static void gather(const plan *p, const float *sums, int64_t unit) {
  const size_t each = p->sum_bytes / sizeof(float);
  const int64_t o = unit % p->o_blocks, u = unit / p->o_blocks % p->u_blocks,
                i = unit / p->o_blocks / p->u_blocks % p->kh;
  const int64_t g = unit / p->o_blocks / p->u_blocks / p->kh;
  const span s = span_of(p, g, u);
  if (s.count <= 0) return;
  const float *from =
      sums + (size_t)(g * p->parts) * each + ((i * p->u_blocks + u) * p->o_blocks + o) * 1024;
  const __mmask32 m = s.count >= 32 ? 0xffffffffu : (1u << s.count) - 1;
  for (int64_t r = 0; r < 32 && 32 * o + r < p->o; r++) {
    __m512 lo = _mm512_load_ps(from + r * 32), hi = _mm512_load_ps(from + r * 32 + 16);
    for (int64_t k = 1; k < p->parts; k++) {
      lo = _mm512_add_ps(lo, _mm512_load_ps(from + (size_t)k * each + r * 32));
      hi = _mm512_add_ps(hi, _mm512_load_ps(from + (size_t)k * each + r * 32 + 16));
    }
    const int64_t to = ((32 * o + r) * p->kh + i) * p->kw * p->c + s.in_dw;
    if (p->dw.dtype == DJ_F32) {
      _mm512_mask_storeu_ps((float *)p->dw.data + to, (__mmask16)m, lo);
      if (m >> 16) _mm512_mask_storeu_ps((float *)p->dw.data + to + 16, (__mmask16)(m >> 16), hi);
    } else {
      _mm512_mask_storeu_epi16((uint16_t *)p->dw.data + to, m,
                               (__m512i)_mm512_cvtne2ps_pbh(hi, lo));
    }
  }
}

static dj_status run(const dj__call *c, void *self) {
  (void)self;
  const plan p = plan_of(c);
  float *sums = (float *)(((uintptr_t)c->workspace + 63) / 64 * 64);
  char *mine = (char *)sums + (size_t)p.items * p.sum_bytes;
  const int threads = threads_for(c, p.units * p.ow * p.o * p.kh * p.kw * p.c / 64);
#pragma omp parallel num_threads(threads)
  {
    char *dy = mine + (size_t)omp_get_thread_num() * (p.x_bytes + p.dy_bytes);
    uint32_t *x = (uint32_t *)(void *)(dy + p.dy_bytes);
    dj__amx_begin();
#pragma omp for schedule(static)
    for (int64_t item = 0; item < p.items; item++)
      one_item(&p, item, sums + (size_t)item * p.sum_bytes / sizeof(float), dy, x);
    dj__amx_end();
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < p.groups * p.kh * p.u_blocks * p.o_blocks; unit++)
      gather(&p, sums, unit);
  }
  return DJ_OK;
}

const dj__own dj__amx_conv2d_weight = {run, supports, workspace};
