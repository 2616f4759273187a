/*
 * conv2d_weight on AMX: dw[o, i, j, c] = sum over results v of dy[v, o] * x[v * stride + (i, j),
 * c], without groups and dilation; numbers bf16, or f32 in limbs (amx.h).
 *
 * The depth of the product is results, 32 a step: A is dy turned (outputs by results), B needs
 * pairs of results. Results are cut into strips of rows (whole images, or parts of them), and a
 * pair is the same result of two strips: so x, laid out as pairs of strips once, serves all taps,
 * and is no larger than it was. A band is `pairs` such pairs of strips, which lie side by side at
 * every pixel: rows of results are then whole steps also where pictures are narrow, and a tile of B
 * (16 pairs of 16 channels) is one run of memory, for each tap one somewhat further. Where channels
 * are no multiple of 16, a pair of strips is laid out as it is, and a row of B is what all taps of
 * a row read for one result (a window): it begins some pixels behind the one before, and overlaps
 * it.
 *
 * Work is shared out by groups of channels and outputs, or, where weights are few, by parts of the
 * results with sums of their own, which are added in order. So results do not depend on the number
 * of threads.
 */
#include "backend/cpu/amx/amx.h"

enum {
  BAND_BYTES = 1 << 20,  /* laid out at once */
  MOST_PAIRS = 16,       /* of strips, in a band */
  MOST_STRIPS = 16,      /* of an image, unless rows are long */
  ITEMS = 4,             /* that work is cut into */
  FEW_BYTES = 512 << 10, /* of weights, whose results are cut into parts */
  PIECE = 16,            /* steps whose B stays in first-level cache */
  LIMBS_PIECE = 8,
  LEAST_RESULTS = 256
};

typedef struct plan {
  const dj__conv_attr *a;
  dj_tensor x, dy, dw;
  int limbs;
  bool mend;
  bool direct; /* sums are kept in dw itself */
  bool once;   /* one band and piece: sums are not kept, and rounded */
  int64_t n, h, w, c, oh, ow, o, kh, kw, sy, sx;
  bool window;            /* laid out by rows of taps */
  int64_t group, o_group; /* channels and outputs of an item */
  int64_t groups, o_groups, parts, items;
  int64_t strips, rows;       /* of an image; rows of results of one */
  int64_t pairs;              /* of strips, in a band */
  int64_t bands, steps;       /* in all; of 32 results, of a band */
  int64_t row_steps;          /* of a row of results */
  int64_t tiles;              /* of 16 numbers of a pixel, or of a window */
  int64_t lines;              /* laid out source rows of one remainder of a band */
  int64_t run;                /* bytes from a tile to the one beside it */
  int64_t row;                /* bytes of a laid out row */
  int64_t apart;              /* bytes from a row of a tile to the next */
  int64_t o_blocks, u_blocks; /* of an item: of 32 outputs; of 32 numbers of a row of taps */
  size_t sum_bytes, x_limb, x_bytes, dy_bytes; /* of an item; of a thread (a limb of x) */
  size_t rounded_bytes;                        /* of a thread: a tap of 32 outputs, twice */
} plan;

/* How a band is laid out with `strips` of an image and `pairs` of those. Returns about how many
 * cycles an item takes, or -1: too large. */
static double lay_out(plan *p, int64_t strips, int64_t pairs) {
  p->rows = (p->oh + strips - 1) / strips;
  p->strips = (p->oh + p->rows - 1) / p->rows;
  p->pairs = pairs;
  p->bands = (p->n * p->strips + 2 * pairs - 1) / (2 * pairs);
  p->row_steps = (p->ow * pairs + 15) / 16;
  p->steps = p->rows * p->row_steps;
  p->lines = p->rows + (p->kh - 1) / p->sy;
  p->apart = p->window ? p->sx * p->c * 4 : 64;
  p->run = p->window ? 64 : (p->ow + (p->kw - 1) / p->sx) * pairs * 64;
  p->row = p->run * p->tiles * least(p->sx, p->kw);
  if (p->window) p->row = up((16 * p->row_steps - 1) * p->apart + p->run * p->tiles, 128);
  p->x_limb = (size_t)(least(p->sy, p->kh) * p->lines * p->row +
                       DJ__TILE_BYTES); /* the last step may read on */
  p->x_bytes = p->x_limb * (size_t)p->limbs;
  p->dy_bytes = (size_t)(p->o_blocks * p->steps * p->limbs) * 2 * DJ__TILE_BYTES;
  if (p->x_bytes + p->dy_bytes > BAND_BYTES) return -1;
  const double blocks = (double)(p->kh * p->u_blocks * p->o_blocks), steps = (double)p->steps;
  const double piece = p->limbs > 1 ? LIMBS_PIECE : PIECE;
  const double band = blocks * (64 * steps + 100 * ceil(steps / piece)) +
                      200 * steps * (double)p->o_blocks + (double)p->x_bytes / 25;
  const int64_t each = (p->bands + p->parts - 1) / p->parts; /* bands of a part, at most */
  return band * (double)each;
}

/* Which channels, outputs and results an item has. */
static void share_out(plan *p) {
  p->group = p->c, p->o_group = p->o;
  p->parts = ITEMS;
  if (p->kh * p->kw * p->c * p->o * 4 > FEW_BYTES) {
    p->parts = 1;
    if (p->c % 64 == 0) p->group = p->c / 2;
    if (p->o % 64 == 0) p->o_group = p->o / 2;
    if (p->c % 64 != 0 || p->o % 64 != 0) p->parts = ITEMS / 2;
    if (p->c % 64 != 0 && p->o % 64 != 0) p->parts = ITEMS;
  }
  p->groups = p->c / p->group, p->o_groups = p->o / p->o_group;
}

static plan plan_of(const dj__call *call) {
  const dj__conv_attr *a = call->attr;
  const int64_t *x = call->in[0].shape.dim, *dy = call->in[1].shape.dim;
  plan p = {.a = a, .x = call->in[0], .dy = call->in[1], .dw = call->out[0]};
  p.limbs = dj__amx_limbs(&p.x, false);
  p.n = x[0], p.h = x[1], p.w = x[2], p.c = x[3];
  p.oh = dy[1], p.ow = dy[2], p.o = dy[3];
  p.kh = a->kh, p.kw = a->kw, p.sy = a->stride[0], p.sx = a->stride[1];
  p.window = p.c % 16 != 0;
  share_out(&p);
  p.tiles = p.window ? (p.kw * p.c + 15) / 16 : p.group / 16;
  p.o_blocks = (p.o_group + 31) / 32;
  p.u_blocks = ((p.window ? 1 : p.kw) * p.tiles + 1) / 2;
  const int64_t most = p.window ? 1 : MOST_PAIRS;
  int64_t strips = least(p.oh, MOST_STRIPS), pairs = 1;
  double best = -1;
  for (int64_t s = 1; s <= least(p.oh, MOST_STRIPS); s *= 2)
    for (int64_t q = 1; q <= most && 2 * q <= up(p.n * s, 2); q += q < 4   ? 1
                                                                   : q % 3 ? q / 2
                                                                           : q / 3) {
      const double cost = lay_out(&p, s, q);
      if (cost >= 0 && (best < 0 || cost < best)) best = cost, strips = s, pairs = q;
    }
  if (best < 0) strips = p.oh;
  lay_out(&p, strips, pairs);
  p.parts = least(p.parts, p.bands);
  p.items = p.groups * p.o_groups * p.parts;
  const bool whole = p.parts == 1 && p.limbs == 1 && p.group % 32 == 0 && p.o_group % 32 == 0;
  p.direct = whole && p.dw.dtype == DJ_F32;
  p.once = whole && p.dw.dtype == DJ_BF16 && p.bands == 1 && p.steps <= PIECE;
  p.sum_bytes = p.direct || p.once ? 0 : (size_t)(p.kh * p.u_blocks * p.o_blocks) * 4096;
  p.rounded_bytes = p.once ? (size_t)p.group * 128 : 0;
  return p;
}

/* Of where B is, step by step. */
static size_t table_bytes(const plan *p) {
  return (size_t)up(p->steps * (int64_t)sizeof(int32_t), 64);
}

static size_t thread_bytes(const plan *p) {
  return p->x_bytes + p->dy_bytes + table_bytes(p) + p->rounded_bytes;
}

static size_t workspace(const dj__call *c) {
  const plan p = plan_of(c);
  const size_t threads = c->threads > 1 ? (size_t)c->threads : 1;
  return 64 + (size_t)p.items * p.sum_bytes + threads * thread_bytes(&p);
}

static bool supports(const dj__call *c) {
  const dj__conv_attr *a = c->attr;
  if (a->groups > 1 || a->dilation[0] != 1 || a->dilation[1] != 1) return false;
  if (!DJ__I(all_float)(c) || c->in[0].dtype != c->in[1].dtype) return false;
  if (c->in[0].dtype == DJ_F32 && c->out[0].dtype != DJ_F32) return false;
  if (dj_shape_count(&c->in[1].shape) == 0 || dj_shape_count(&c->in[0].shape) == 0) return false;
  const plan p = plan_of(c);
  if (p.x_bytes > 8 << 20) return false;                  /* rows too long to lie in cache */
  if (dj__worth_threads == 0) return true;                /* a test, with small shapes */
  const bool picture = p.c <= 4 && p.kh > 1 && p.o >= 24; /* in limbs: stems, and many channels */
  const bool wide = p.c >= 64 && p.c % 32 == 0 && p.kh * p.kw > 1 && p.o >= 32;
  if (p.limbs > 1 && !picture && !wide) return false;
  return p.n * p.oh * p.ow >= LEAST_RESULTS && p.o >= 8 && p.kw * p.c >= 12;
}

/* ---- laying out ---- */
typedef struct laid {
  char *dy, *x;
  int32_t *at;       /* (steps) bytes from the first step's B */
  uint16_t *rounded; /* (2, 32, group) bf16 */
  bool *strange;     /* a number is not finite */
} laid;

/* Image and first row of results of strip v; false: there is none. */
typedef struct strip {
  int64_t n, y;
} strip;
static bool strip_of(const plan *p, int64_t v, strip *s) {
  *s = (strip){v / p->strips, v % p->strips * p->rows};
  return s->n < p->n;
}

/* Numbers j .. j + 32 of a row of which 0 .. end are there; row NULL: none. */
DJ__INLINE void clip(const dj__amx_kind f, const void *row, int64_t j, int64_t end, __m512i v[],
                     bool *strange) {
  const __mmask32 m = row ? dj__amx_first(end - j) & (j < 0 ? ~dj__amx_first(-j) : 0xffffffffu) : 0;
  if (m)
    dj__amx_load((const char *)row + j * (int64_t)dj_dtype_size(f.t), f.t, f.limbs, m, v, strange);
  else
    for (int l = 0; l < f.limbs; l++) v[l] = _mm512_setzero_si512();
}
/* The first numbers of a row that are in m; row NULL: 0. */
DJ__INLINE void clip32(const dj__amx_kind f, const void *row, __mmask32 m, __m512i v[],
                       bool *strange) {
  if (row)
    dj__amx_load(row, f.t, f.limbs, m, v, strange);
  else
    for (int l = 0; l < f.limbs; l++) v[l] = _mm512_setzero_si512();
}
/* Rows that become pairs, and where: numbers a tile apart, limbs. */
typedef struct pairing {
  const char *one, *two; /* NULL: zeros */
  int64_t run;
  size_t limb;
  bool *strange;
} pairing;

/* 32 numbers of two strips as pairs: two tiles' rows, the second only where it is there. */
DJ__INLINE void put_pairs(const pairing r, const dj__amx_kind f, char *dst, bool both,
                          const __m512i a[], const __m512i b[]) {
  for (int l = 0; l < f.limbs; l++) {
    __m512i lo, hi;
    interleave(a[l], b[l], &lo, &hi);
    char *to = dst + (size_t)l * r.limb;
    _mm512_store_si512(to, lo);
    if (both) _mm512_store_si512(to + r.run, hi);
  }
}

/* One source row of two strips, channels from `first` on: (remainders of columns, tiles, columns,
 * pairs, 16) pairs. */
DJ__INLINE void lay_pixels(const plan *p, const dj__amx_kind f, char *dst, const pairing r,
                           int64_t first) {
  const int64_t wide = r.run / 64 / p->pairs, size = (int64_t)dj_dtype_size(f.t), c = p->c,
                sx = p->sx, w = p->w, tiles = p->tiles, apart = p->pairs * 64;
  __m512i a[DJ__LIMBS], b[DJ__LIMBS];
  for (int64_t i = 0; i < least(sx, p->kw); i++, dst += tiles * r.run)
    for (int64_t k = 0, x = i - p->a->pad[1]; k < wide; k++, x += sx) {
      const bool here = x >= 0 && x < w;
      const char *one = here && r.one ? r.one + (x * c + first) * size : NULL,
                 *two = here && r.two ? r.two + (x * c + first) * size : NULL;
      char *pixel = dst + k * apart;
      for (int64_t t = 0; t < tiles; t += 2, pixel += 2 * r.run) {
        const bool both = t + 1 < tiles;
        const __mmask32 m = both ? 0xffffffffu : 0xffffu;
        clip32(f, one ? one + 16 * t * size : NULL, m, a, r.strange);
        clip32(f, two ? two + 16 * t * size : NULL, m, b, r.strange);
        put_pairs(r, f, pixel, both, a, b);
      }
    }
}
/* The same for windows: all pixels in order, with padding. */
DJ__INLINE void lay_row(const plan *p, const dj__amx_kind f, char *dst, const pairing r) {
  const int64_t begin = -p->a->pad[1] * p->c, end = p->w * p->c;
  __m512i a[DJ__LIMBS], b[DJ__LIMBS];
  for (int64_t j = 0; j < p->row / 4; j += 32) {
    clip(f, r.one, begin + j, end, a, r.strange);
    clip(f, r.two, begin + j, end, b, r.strange);
    put_pairs(r, f, dst + j * 4, true, a, b);
  }
}

/* Source row of strip v: of its line k with remainder r, or NULL. */
static const char *source(const plan *p, int64_t v, int64_t k, int64_t r) {
  strip s;
  if (!strip_of(p, v, &s)) return NULL;
  const int64_t y = (s.y + k) * p->sy + r - p->a->pad[0];
  if (y < 0 || y >= p->h) return NULL;
  return at(p->x.data, p->x.dtype, (s.n * p->h + y) * p->w * p->c);
}

/* Strips from v on, channels from c on. */
static void lay_x(const plan *p, const laid *l, int64_t v, int64_t c) {
  char *to = l->x;
  for (int64_t r = 0; r < least(p->sy, p->kh); r++) /* those that taps read */
    for (int64_t k = 0; k < p->lines; k++, to += p->row)
      for (int64_t q = 0; q < p->pairs; q++) {
        const pairing pair = {source(p, v + 2 * q, k, r), source(p, v + 2 * q + 1, k, r), p->run,
                              p->x_limb, l->strange};
        if (p->window)
          DJ__AMX_WITH_KIND(p->x.dtype, p->limbs, F, lay_row(p, F, to, pair));
        else
          DJ__AMX_WITH_KIND(p->x.dtype, p->limbs, F, lay_pixels(p, F, to + q * 64, pair, c));
      }
  for (int k = 0; k < p->limbs; k++) memset(to + (size_t)k * p->x_limb, 0, DJ__TILE_BYTES);
}

/* Four times 16 bytes. */
DJ__INLINE __m512i four(const char *a, const char *b, const char *c, const char *d) {
  __m512i v = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)a));
  v = _mm512_mask_broadcast_i32x4(v, 0x00f0, _mm_loadu_si128((const __m128i *)(const void *)b));
  v = _mm512_mask_broadcast_i32x4(v, 0x0f00, _mm_loadu_si128((const __m128i *)(const void *)c));
  return _mm512_mask_broadcast_i32x4(v, 0xf000, _mm_loadu_si128((const __m128i *)(const void *)d));
}
/* 8 bf16 of 32 results, at byte `from` of row (32), turned: rows of 64 bytes. */
DJ__INLINE void turn8(char *dst, const char *const *row, size_t from) {
  __m512i v[8], t[8];
  for (int i = 0; i < 8; i++)
    v[i] = four(row[i] + from, row[8 + i] + from, row[16 + i] + from, row[24 + i] + from);
  for (int i = 0; i < 4; i++) { /* pairs of results, of the first four outputs and the last */
    t[i] = _mm512_unpacklo_epi16(v[2 * i], v[2 * i + 1]);
    t[4 + i] = _mm512_unpackhi_epi16(v[2 * i], v[2 * i + 1]);
  }
  for (int i = 0; i < 8; i += 2) { /* of four */
    v[i] = _mm512_unpacklo_epi32(t[i], t[i + 1]);
    v[i + 1] = _mm512_unpackhi_epi32(t[i], t[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int k = 0; k < 2; k++, dst += 128) {
      _mm512_store_si512(dst, _mm512_unpacklo_epi64(v[i + k], v[i + 2 + k]));
      _mm512_store_si512(dst + 64, _mm512_unpackhi_epi64(v[i + k], v[i + 2 + k]));
    }
}
/* 32 results of `outputs` (whole eights, 32 at most), as below; what is behind them stays. */
static void turn_bf16(char *dst, int64_t half, const void *const *rows, int64_t outputs) {
  static const char nothing[64] = {0};
  const char *row[32];
  for (int k = 0; k < 32; k++) row[k] = rows[k] ? rows[k] : nothing;
  for (int64_t o = 0; o < outputs; o += 8)
    turn8(dst + o / 16 * half + o % 16 * 64, row, (size_t)o * 2);
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

/* Where row y of results of each strip from v on begins in dy, outputs from o on, or NULL. */
static void list_rows(const plan *p, int64_t v, int64_t o, int64_t y, const char *row[]) {
  for (int64_t k = 0; k < 2 * p->pairs; k++) {
    strip s;
    const bool here = strip_of(p, v + k, &s) && s.y + y < p->oh;
    row[k] = here ? at(p->dy.data, p->dy.dtype, (s.n * p->oh + s.y + y) * p->ow * p->o + o) : NULL;
  }
}
/* Where the results of step m of a row are, or NULL: padding. */
static void list_results(const plan *p, const char *const row[], int64_t m, const void *dy[32]) {
  const int64_t pixel = p->o * (int64_t)dj_dtype_size(p->dy.dtype);
  int64_t x = 16 * m / p->pairs, q = 16 * m % p->pairs;
  for (int k = 0; k < 32; k += 2) {
    for (int i = 0; i < 2; i++)
      dy[k + i] = x < p->ow && row[2 * q + i] ? row[2 * q + i] + x * pixel : NULL;
    if (++q == p->pairs) q = 0, x++;
  }
}

/* One step of a band: (o_blocks, 2, steps, limbs) tiles, `half` bytes from one run to the next. */
static void lay_step(const plan *p, const laid *l, char *to, int64_t half, const void *dy[32]) {
  const size_t block = 32 * dj_dtype_size(p->dy.dtype);
  for (int64_t o = 0; o < p->o_group; o += 32, to += 2 * half) {
    const int64_t outputs = least(32, p->o_group - o);
    const __mmask32 m = dj__amx_first(outputs);
    if (p->dy.dtype == DJ_BF16 && outputs % 8 == 0)
      turn_bf16(to, half, dy, outputs);
    else
      DJ__AMX_WITH_KIND(p->dy.dtype, p->limbs, F, turn_dy(F, to, half, dy, m, l->strange));
    for (int k = 0; k < 32; k++)
      if (dy[k]) dy[k] = (const char *)dy[k] + block;
  }
}

/* dy of the strips from v on, outputs from o on, turned. */
static void lay_dy(const plan *p, const laid *l, int64_t v, int64_t o) {
  const int64_t step = p->limbs * DJ__TILE_BYTES;
  char *to = l->dy;
  for (int64_t y = 0; y < p->rows; y++) {
    const char *row[2 * MOST_PAIRS];
    list_rows(p, v, o, y, row);
    for (int64_t m = 0; m < p->row_steps; m++, to += step) {
      const void *dy[32];
      list_results(p, row, m, dy);
      lay_step(p, l, to, p->steps * step, dy);
    }
  }
}

/* ---- sums ---- */
/* Where sums of a block are: its first, and bytes between rows. */
typedef struct place {
  char *c;
  size_t stride;
} place;

/* What a block multiplies: dy turned (rows `half` bytes further: the second 16 outputs), pairs of
 * two tiles of x, `second` bytes apart. */
typedef struct factors {
  const char *a, *b;
  int64_t half;
  size_t apart, second, limb; /* of b: its rows */
  const int32_t *at;          /* (steps) bytes, of b */
  int64_t steps;
} factors;

/* c (32 outputs, 32 numbers) += dy turned x pairs. */
DJ__INLINE void block(const dj__amx_form f, const factors *w, place to, bool fresh) {
  dj__amx_load_sums(f, to.c, to.stride, fresh);
  const char *a = w->a;
  for (int64_t k = 0; k < w->steps; k++, a += f.limbs * DJ__TILE_BYTES)
    dj__amx_step(f, a, a + w->half, 64, DJ__TILE_BYTES, w->b + w->at[k], w->second, w->apart,
                 w->limb);
  dj__amx_keep_sums(f, to.c, to.stride);
}

/* Which part of the work an item is. */
typedef struct item {
  int64_t c, o, first, last; /* first channel and output, bands */
  float *sums;               /* NULL: dw itself */
} item;

/* Block u of a row of taps: where it is in a row of taps of dw, and how many numbers it has. */
typedef struct span {
  int64_t in_dw, count;
} span;
static span span_of(const plan *p, int64_t c, int64_t u) {
  if (p->groups == 1) return (span){32 * u, least(32, p->kw * p->c - 32 * u)};
  const int64_t blocks = p->group / 32;
  return (span){u / blocks * p->c + c + u % blocks * 32, 32};
}

/* Where tile t of row i of taps lies in a band, first step. */
static int64_t tile_at(const plan *p, int64_t i, int64_t t) {
  const int64_t line = (i % p->sy * p->lines + i / p->sy) * p->row;
  if (p->window) return line + t * p->run;
  const int64_t j = t / p->tiles;
  return line + (j % p->sx * p->tiles + t % p->tiles) * p->run + j / p->sx * p->pairs * 64;
}

static place sums_of(const plan *p, const item *it, int64_t i, int64_t u, int64_t o) {
  const int64_t taps = p->kh * p->kw * p->c;
  if (!it->sums)
    return (place){(char *)p->dw.data +
                       ((it->o + 32 * o) * taps + i * p->kw * p->c + span_of(p, it->c, u).in_dw) *
                           4,
                   (size_t)taps * 4};
  return (place){(char *)(it->sums + ((i * p->u_blocks + u) * p->o_blocks + o) * 1024), 128};
}

/* Rounds a block's sums (32, 32) to rows `ld` numbers apart. */
static void round_block(const float *sums, uint16_t *to, int64_t ld) {
  for (int64_t r = 0; r < 32; r++, sums += 32, to += ld)
    _mm512_store_si512(
        to, (__m512i)_mm512_cvtne2ps_pbh(_mm512_load_ps(sums + 16), _mm512_load_ps(sums)));
}

/* A tap of 32 outputs, rounded, on its way to dw: past the caches, as it is read much later, in
 * long runs, which memory likes better, and a few lines at a time, so that products need not wait.
 */
typedef struct leaving {
  const uint16_t *from; /* (32, group) */
  uint16_t *to;
  int64_t ld;                /* numbers from a row of `to` to the next */
  int64_t done, all, in_row; /* lines */
} leaving;

static void leave(leaving *v, int64_t lines) {
  for (; lines > 0 && v->done < v->all; lines--, v->done++) {
    uint16_t *to = v->to + v->done / v->in_row * v->ld + v->done % v->in_row * 32;
    const __m512i x = _mm512_load_si512(v->from + v->done * 32);
    if ((uintptr_t)to % 64 == 0)
      _mm512_stream_si512((void *)to, x);
    else
      _mm512_storeu_si512(to, x);
  }
}

/* The only band, in one piece: sums of a block go to dw as soon as they are there. */
static void all_at_once(const plan *p, const laid *l, const item *it) {
  const dj__amx_form whole = {2, 2, 1};
  const int64_t blocks = p->group / 32, taps = p->kh * p->kw, half = p->steps * DJ__TILE_BYTES;
  float sums[1024] __attribute__((aligned(64)));
  leaving v = {.ld = taps * p->c, .in_row = blocks};
  for (int64_t i = 0; i < p->o_blocks * taps; i++) {
    const int64_t o = i / taps, tap = i % taps;
    uint16_t *rounded = l->rounded + i % 2 * 32 * p->group;
    for (int64_t u = 0; u < blocks; u++) {
      const int64_t t = tap % p->kw * p->tiles + 2 * u, b = tile_at(p, tap / p->kw, t),
                    second = tile_at(p, tap / p->kw, t + 1) - b;
      const char *a = l->dy + 2 * o * half;
      dj__amx_load_sums(whole, (char *)sums, 128, true);
      for (int64_t k = 0; k < p->steps; k++, a += DJ__TILE_BYTES) {
        const char *x = l->x + b + l->at[k];
        _tile_loadd(4, a, 64); /* stays in first-level cache, and x in second-level */
        _tile_loadd(5, a + half, 64);
        _tile_stream_loadd(6, x, (size_t)p->apart);
        _tile_stream_loadd(7, x + second, (size_t)p->apart);
        dj__amx_multiply(whole);
        leave(&v, (32 + p->steps - 1) / p->steps);
      }
      dj__amx_keep_sums(whole, (char *)sums, 128);
      round_block(sums, rounded + 32 * u, p->group);
    }
    v.from = rounded;
    v.to = (uint16_t *)p->dw.data + ((it->o + 32 * o) * taps + tap) * p->c + it->c;
    v.done = 0, v.all = 32 * blocks;
  }
  leave(&v, v.all);
}

/* Steps k .. k + steps of a band. */
static void add_piece(const plan *p, const laid *l, const item *it, int64_t k, int64_t steps,
                      bool fresh) {
  const int64_t last = (p->window ? 1 : p->kw) * p->tiles - 1;
  factors f = {.half = p->steps * p->limbs * DJ__TILE_BYTES,
               .apart = (size_t)p->apart,
               .limb = p->x_limb,
               .at = l->at + k,
               .steps = steps};
  for (int64_t i = 0; i < p->kh; i++)
    for (int64_t u = 0; u < p->u_blocks; u++) {
      const int64_t b = tile_at(p, i, 2 * u), count = span_of(p, it->c, u).count;
      f.b = l->x + b;
      f.second = (size_t)(tile_at(p, i, least(2 * u + 1, last)) - b);
      for (int64_t o = 0; o < p->o_blocks; o++) {
        f.a = l->dy + 2 * o * f.half + k * p->limbs * DJ__TILE_BYTES;
        DJ__AMX_FORMS(p->limbs, p->o_group - 32 * o, count, block, &f, sums_of(p, it, i, u, o),
                      fresh);
      }
    }
}

static void one_item(const plan *p, const item *it, const laid *l) {
  const int64_t most = p->limbs > 1 ? LIMBS_PIECE : PIECE, pieces = (p->steps + most - 1) / most;
  for (int64_t b = it->first; b < it->last; b++) {
    lay_x(p, l, b * 2 * p->pairs, it->c);
    lay_dy(p, l, b * 2 * p->pairs, it->o);
    if (p->once) all_at_once(p, l, it);
    for (int64_t q = 0; q < pieces && !p->once; q++) {
      const int64_t k = part_from(p->steps, pieces, q);
      add_piece(p, l, it, k, part_from(p->steps, pieces, q + 1) - k, b == it->first && q == 0);
    }
  }
}

static item item_of(const plan *p, float *sums, int64_t i) {
  const int64_t part = i % p->parts, g = i / p->parts;
  return (item){.c = g % p->groups * p->group,
                .o = g / p->groups * p->o_group,
                .first = part_from(p->bands, p->parts, part),
                .last = part_from(p->bands, p->parts, part + 1),
                .sums = p->direct ? NULL : sums + (size_t)i * p->sum_bytes / sizeof(float)};
}

/* Adds the parts, in order, into dw: one row of taps of 32 outputs of 32 numbers. */
static void gather(const plan *p, float *sums, int64_t unit) {
  const size_t each = p->sum_bytes / sizeof(float);
  const int64_t o = unit % p->o_blocks, u = unit / p->o_blocks % p->u_blocks,
                i = unit / p->o_blocks / p->u_blocks % p->kh;
  const item it = item_of(p, sums, unit / p->o_blocks / p->u_blocks / p->kh * p->parts);
  const span s = span_of(p, it.c, u);
  const float *from = (const float *)(const void *)sums_of(p, &it, i, u, o).c;
  const __mmask32 all = dj__amx_first(s.count);
  for (int64_t r = 0; r < 32 && 32 * o + r < p->o_group; r++) {
    __m512 lo = _mm512_load_ps(from + r * 32), hi = _mm512_load_ps(from + r * 32 + 16);
    for (int64_t k = 1; k < p->parts; k++) {
      lo = _mm512_add_ps(lo, _mm512_load_ps(from + (size_t)k * each + r * 32));
      hi = _mm512_add_ps(hi, _mm512_load_ps(from + (size_t)k * each + r * 32 + 16));
    }
    const int64_t to = ((it.o + 32 * o + r) * p->kh + i) * p->kw * p->c + s.in_dw;
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

/* Where the steps of a band lie in x. */
static void steps_of(const plan *p, int32_t *at) {
  for (int64_t k = 0; k < p->steps; k++)
    at[k] = (int32_t)(k / p->row_steps * p->row + k % p->row_steps * 16 * p->apart);
}

/* The whole call. True: there were numbers that are not finite. */
static bool gradients(const dj__call *c, const plan *p) {
  float *sums = (float *)(void *)aligned(c->workspace);
  char *mine = (char *)sums + (size_t)p->items * p->sum_bytes;
  const size_t each = thread_bytes(p);
  const int64_t units =
      p->direct || p->once ? 0 : p->groups * p->o_groups * p->kh * p->u_blocks * p->o_blocks;
  const int threads = threads_for(c, p->n * p->oh * p->ow * p->o * p->kh * p->kw * p->c / 64);
  bool any = false;
#pragma omp parallel num_threads(threads) reduction(|| : any)
  {
    laid l = {.dy = mine + (size_t)omp_get_thread_num() * each, .strange = &any};
    l.x = l.dy + p->dy_bytes;
    l.at = (int32_t *)(void *)(l.x + p->x_bytes);
    l.rounded = (uint16_t *)(void *)((char *)l.at + table_bytes(p));
    steps_of(p, l.at);
    dj__amx_begin();
#pragma omp for schedule(static)
    for (int64_t i = 0; i < p->items; i++) {
      const item it = item_of(p, sums, i);
      one_item(p, &it, &l);
    }
    dj__amx_end();
#pragma omp for schedule(static)
    for (int64_t unit = 0; unit < units; unit++) gather(p, sums, unit);
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

const dj__own dj__amx_conv2d_weight = {run, supports, workspace, NULL};
