/*
 * conv2d_weight on AMX: dw[o, i, j, c] = sum over results v of dy[v, o] * x[v * stride + (i, j),
 * c], without groups and dilation; numbers bf16, or f32 in limbs (amx.h).
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
  GROUP = 128,        /* input channels together, where there are more */
  BAND_RESULTS = 640, /* laid out at once: 20 steps */
  LIMBS_BAND_RESULTS = 256,
  PART_RESULTS = 4096, /* in a part at least, where results are many */
  MOST_PARTS = 4,
  LEAST_RESULTS = 256,
  PAD = 16 /* numbers between pixels whose distance would be a power of two */
};

typedef struct plan {
  const dj__conv_attr *a;
  dj_tensor x, dy, dw;
  int limbs;
  bool mend;
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
  int64_t o_blocks, u_blocks; /* of 32 outputs; of 32 numbers of a row of taps, at most */
  size_t sum_bytes, x_limb, x_bytes, dy_bytes; /* of an item; of a thread (a limb of x) */
} plan;

static plan plan_of(const dj__call *call) {
  const dj__conv_attr *a = call->attr;
  const int64_t *x = call->in[0].shape.dim, *dy = call->in[1].shape.dim;
  plan p = {.a = a, .x = call->in[0], .dy = call->in[1], .dw = call->out[0]};
  p.limbs = dj__amx_limbs(&p.x, false);
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
  const int64_t band = p.limbs > 1 ? LIMBS_BAND_RESULTS : BAND_RESULTS;
  p.rows = band / p.pitch < 1 ? 1 : least(band / p.pitch, p.oh);
  p.bands = (p.oh + p.rows - 1) / p.rows;
  p.rows = (p.oh + p.bands - 1) / p.bands;
  p.lines = p.rows + extra;
  p.images = 1;
  if (p.bands ==
      1) { /* images lie one after another, with the rows between them that only taps see */
    p.images = least(p.n, band / (p.lines * p.pitch));
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
  p.x_limb = (size_t)(p.sy * p.images * p.lines * p.row + behind) * 4;
  p.x_limb = (p.x_limb + 63) / 64 * 64;
  p.x_bytes = p.x_limb * (size_t)p.limbs;
  p.dy_bytes = (size_t)(p.o_blocks * p.steps * p.limbs) * 2 * DJ__TILE_BYTES;
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
  if (!DJ__I(all_float)(c) || c->in[0].dtype != c->in[1].dtype) return false;
  if (c->in[0].dtype == DJ_F32 && c->out[0].dtype != DJ_F32) return false;
  if (dj_shape_count(&c->in[1].shape) == 0 || dj_shape_count(&c->in[0].shape) == 0) return false;
  const plan p = plan_of(c);
  if (p.x_bytes > 8 << 20) return false;   /* rows too long to lie in cache */
  if (dj__worth_threads == 0) return true; /* a test, with small shapes */
  if (p.limbs > 1 && (p.c < 64 || p.c % 32 || p.kh * p.kw == 1 || p.o < 32)) return false;
  return p.units * p.ow >= LEAST_RESULTS && p.o >= 8 && p.kw * p.c >= 12;
}

/* ---- laying out ---- */
typedef struct laid {
  char *dy;
  uint32_t *x;
  bool *strange; /* a number is not finite */
} laid;

/* Numbers j .. j + 32 of a row of which 0 .. end are there. */
DJ__INLINE void clip(const dj__amx_kind f, const void *row, int64_t j, int64_t end, __m512i v[],
                     bool *strange) {
  const __mmask32 m = dj__amx_first(end - j) & (j < 0 ? ~dj__amx_first(-j) : 0xffffffffu);
  if (m)
    dj__amx_load((const char *)row + j * (int64_t)dj_dtype_size(f.t), f.t, f.limbs, m, v, strange);
  else
    for (int l = 0; l < f.limbs; l++) v[l] = _mm512_setzero_si512();
}
/* The outputs of a result that are in m; row NULL: 0. */
DJ__INLINE void clip32(const dj__amx_kind f, const void *row, __mmask32 m, __m512i v[],
                       bool *strange) {
  if (row)
    dj__amx_load(row, f.t, f.limbs, m, v, strange);
  else
    for (int l = 0; l < f.limbs; l++) v[l] = _mm512_setzero_si512();
}
DJ__INLINE void put_pairs(const plan *p, const dj__amx_kind f, uint32_t *dst, const __m512i a[],
                          const __m512i b[]) {
  for (int l = 0; l < f.limbs; l++) {
    __m512i lo, hi;
    interleave(a[l], b[l], &lo, &hi);
    char *to = (char *)dst + (size_t)l * p->x_limb;
    _mm512_storeu_si512(to, lo);
    _mm512_storeu_si512(to + 64, hi);
  }
}

/* One laid out row of pairs with the pixel of the next result, from a source row, channels of group
 * g. */
DJ__INLINE void lay_pairs(const plan *p, const dj__amx_kind f, const laid *to, uint32_t *dst,
                          const void *row, int64_t g) {
  const int64_t end = p->w * p->c, left = p->a->pad[1] * p->c;
  __m512i a[DJ__LIMBS], b[DJ__LIMBS];
  if (p->pixel == p->c) { /* one run; the row behind is written next, or there is room */
    for (int64_t j = 0; j < p->row; j += 32) {
      clip(f, row, j - left, end, a, to->strange);
      clip(f, row, j - left + p->sx * p->c, end, b, to->strange);
      put_pairs(p, f, dst + j, a, b);
    }
    return;
  }
  const int64_t width = least(p->group, p->c - g * p->group);
  for (int64_t q = 0; q < p->pitch * p->sx; q++, dst += p->pixel) {
    const int64_t j = q * p->c - left + g * p->group, k = j + p->sx * p->c;
    for (int64_t c = 0; c < width; c += 32) { /* whole pixels are there or not */
      clip(f, row, j + c, j < 0 ? 0 : end, a, to->strange);
      clip(f, row, k + c, k < 0 ? 0 : end, b, to->strange);
      put_pairs(p, f, dst + c, a, b);
    }
    for (int l = 0; l < f.limbs; l++)
      memset((char *)(dst + width) + (size_t)l * p->x_limb, 0, (size_t)(p->pixel - width) * 4);
  }
}

/* Source row y of image n. */
static void lay_x_row(const plan *p, const laid *to, uint32_t *dst, int64_t n, int64_t y,
                      int64_t g) {
  if (y < 0 || y >= p->h) {
    for (int l = 0; l < p->limbs; l++)
      memset((char *)dst + (size_t)l * p->x_limb, 0, (size_t)p->row * 4);
    return;
  }
  const void *row = at(p->x.data, p->x.dtype, (n * p->h + y) * p->w * p->c);
  DJ__AMX_WITH_KIND(p->x.dtype, p->limbs, F, lay_pairs(p, F, to, dst, row, g));
}

static void lay_x(const plan *p, const laid *l, int64_t n0, int64_t n1, int64_t y0, int64_t g) {
  uint32_t *to = l->x;
  for (int64_t r = 0; r < p->sy; r++)
    for (int64_t n = n0; n < n0 + p->images; n++)
      for (int64_t k = 0; k < p->lines; k++, to += p->row)
        lay_x_row(p, l, to, n, n < n1 ? (y0 + k) * p->sy + r - p->a->pad[0] : -1, g);
  const size_t used = (size_t)(to - l->x) * 4;
  for (int k = 0; k < p->limbs; k++)
    memset((char *)l->x + (size_t)k * p->x_limb + used, 0, p->x_limb - used);
}

/* Where dy of result v of the band is (its outputs lie side by side), or NULL: padding. */
DJ__INLINE const void *dy_of(const plan *p, int64_t n0, int64_t n1, int64_t y0, int64_t y1,
                             int64_t v) {
  const int64_t line = v / p->pitch, x = v % p->pitch, n = n0 + line / p->lines,
                y = y0 + line % p->lines;
  if (n >= n1 || y >= y1 || x >= p->ow) return NULL;
  return at(p->dy.data, p->dy.dtype, ((n * p->oh + y) * p->ow + x) * p->o);
}

/* 32 results of 32 outputs, turned: two tiles a limb, `half` bytes apart. row: (32) their outputs.
 */
DJ__INLINE void turn_dy(const dj__amx_kind f, char *dst, int64_t half, const void *const *row,
                        __mmask32 m, bool *strange) {
  __m512i r[2][DJ__LIMBS][16];
  for (int64_t k = 0; k < 16; k++) {
    __m512i one[DJ__LIMBS], two[DJ__LIMBS];
    clip32(f, row[2 * k], m, one, strange);
    clip32(f, row[2 * k + 1], m, two, strange);
    for (int l = 0; l < f.limbs; l++) interleave(one[l], two[l], &r[0][l][k], &r[1][l][k]);
  }
  for (int h = 0; h < 2; h++)
    for (int l = 0; l < f.limbs; l++) {
      char *to = dst + h * half + l * DJ__TILE_BYTES;
      dj__amx_turn(r[h][l]);
      for (int i = 0; i < 16; i++) _mm512_store_si512(to + i * 64, r[h][l][i]);
    }
}

/* dy of result rows y0 .. y1 of images n0 .. n1, turned: (o_blocks, 2, steps, limbs) tiles. */
static void lay_dy(const plan *p, const laid *l, int64_t n0, int64_t n1, int64_t y0, int64_t y1) {
  const int64_t half = p->steps * p->limbs * DJ__TILE_BYTES;
  const size_t block = 32 * dj_dtype_size(p->dy.dtype);
  for (int64_t s = 0; s < p->steps; s++) {
    const void *row[32];
    for (int64_t k = 0; k < 32; k++) row[k] = dy_of(p, n0, n1, y0, y1, 32 * s + k);
    for (int64_t b = 0; b < p->o_blocks; b++) {
      char *to = l->dy + 2 * b * half + s * p->limbs * DJ__TILE_BYTES;
      const __mmask32 m = dj__amx_first(p->o - 32 * b);
      DJ__AMX_WITH_KIND(p->dy.dtype, p->limbs, F, turn_dy(F, to, half, row, m, l->strange));
      for (int64_t k = 0; k < 32; k++)
        if (row[k]) row[k] = (const char *)row[k] + block;
    }
  }
}

/* ---- sums ---- */
/* c (32 outputs, 32 numbers) += dy turned x pairs. */
DJ__INLINE void block(const dj__amx_form f, const char *a, int64_t a_half, const char *b,
                      size_t stride, size_t limb, int64_t steps, float *c, bool fresh) {
  dj__amx_load_sums(f, c, fresh);
  for (int64_t k = 0; k < steps; k++, a += f.limbs * DJ__TILE_BYTES, b += 16 * stride)
    dj__amx_step(f, a, a + a_half, 64, DJ__TILE_BYTES, b, 64, stride, limb);
  dj__amx_keep_sums(f, c);
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

static void add_band(const plan *p, const laid *l, int64_t g, float *sums, bool fresh) {
  const size_t stride = (size_t)(2 * p->sx * p->pixel) * 4;
  const int64_t half = p->steps * p->limbs * DJ__TILE_BYTES;
  for (int64_t i = 0; i < p->kh; i++)
    for (int64_t u = 0; u < p->u_blocks; u++) {
      const span s = span_of(p, g, u);
      const char *b =
          (const char *)(l->x + (i % p->sy * p->images * p->lines + i / p->sy) * p->row + s.laid);
      for (int64_t o = 0; o < p->o_blocks && s.count > 0; o++) {
        float *c = sums + ((i * p->u_blocks + u) * p->o_blocks + o) * 1024;
        const char *a = l->dy + 2 * o * half;
        DJ__AMX_FORMS(p->limbs, p->o - 32 * o, s.count, block, a, half, b, stride, p->x_limb,
                      p->steps, c, fresh);
      }
    }
}

/* A group of channels, a part of the results. */
static void one_item(const plan *p, int64_t item, float *sums, const laid *l) {
  const int64_t g = item / p->parts, part = item % p->parts;
  const int64_t first = part_from(p->all_bands, p->parts, part),
                last = part_from(p->all_bands, p->parts, part + 1);
  for (int64_t b = first; b < last; b++) {
    const int64_t n0 = b / p->bands * p->images, n1 = least(n0 + p->images, p->n);
    const int64_t y0 = b % p->bands * p->rows, y1 = least(y0 + p->rows, p->oh);
    lay_x(p, l, n0, n1, y0, g);
    lay_dy(p, l, n0, n1, y0, y1);
    add_band(p, l, g, sums, b == first);
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
  const __mmask32 all = dj__amx_first(s.count);
  for (int64_t r = 0; r < 32 && 32 * o + r < p->o; r++) {
    __m512 lo = _mm512_load_ps(from + r * 32), hi = _mm512_load_ps(from + r * 32 + 16);
    for (int64_t k = 1; k < p->parts; k++) {
      lo = _mm512_add_ps(lo, _mm512_load_ps(from + (size_t)k * each + r * 32));
      hi = _mm512_add_ps(hi, _mm512_load_ps(from + (size_t)k * each + r * 32 + 16));
    }
    const int64_t to = ((32 * o + r) * p->kh + i) * p->kw * p->c + s.in_dw;
    __mmask32 m = all;
    if (p->dw.dtype == DJ_F32) {
      if (p->mend) m = dj__amx_nan((float *)p->dw.data + to, all);
      _mm512_mask_storeu_ps((float *)p->dw.data + to, (__mmask16)m, lo);
      if (m >> 16) _mm512_mask_storeu_ps((float *)p->dw.data + to + 16, (__mmask16)(m >> 16), hi);
    } else {
      _mm512_mask_storeu_epi16((uint16_t *)p->dw.data + to, m,
                               (__m512i)_mm512_cvtne2ps_pbh(hi, lo));
    }
  }
}

/* The whole call. True: there were numbers that are not finite. */
static bool gradients(const dj__call *c, const plan *p) {
  float *sums = (float *)(((uintptr_t)c->workspace + 63) / 64 * 64);
  char *mine = (char *)sums + (size_t)p->items * p->sum_bytes;
  const int threads = threads_for(c, p->units * p->ow * p->o * p->kh * p->kw * p->c / 64);
  bool any = false;
#pragma omp parallel num_threads(threads) reduction(|| : any)
  {
    laid l = {.dy = mine + (size_t)omp_get_thread_num() * (p->x_bytes + p->dy_bytes),
              .strange = &any};
    l.x = (uint32_t *)(void *)(l.dy + p->dy_bytes);
    dj__amx_begin();
#pragma omp for schedule(static)
    for (int64_t item = 0; item < p->items; item++)
      one_item(p, item, sums + (size_t)item * p->sum_bytes / sizeof(float), &l);
    dj__amx_end();
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < p->groups * p->kh * p->u_blocks * p->o_blocks; unit++)
      gather(p, sums, unit);
  }
  return any;
}

static dj_status run(const dj__call *c, void *self) {
  (void)self;
  plan p = plan_of(c);
  if (!gradients(c, &p)) return DJ_OK;
  p.limbs = 1;
  p.mend = true;
  gradients(c, &p);
  return DJ_OK;
}

const dj__own dj__amx_conv2d_weight = {run, supports, workspace};
