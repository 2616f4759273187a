/*
 * conv2d and conv2d_data on AMX, channels last, without groups and dilation; numbers bf16, or f32
 * in limbs (amx.h).
 *
 * Both are sums over taps of shifted pictures. For a row of taps, what a result reads lies side by
 * side in the source: taps * channels numbers from its pixel on, and those of the next result a
 * constant distance further. So rows of A are read straight from a copy of the source with its
 * padding (a band, which stays in second-level cache); no windows are copied. B is the weights,
 * packed once a call, or kept packed by the program (layout).
 *
 * With a stride, conv2d_data falls apart into stride x stride pictures of which each sees every
 * stride-th tap (a phase). With a vertical stride of the source (conv2d), the rows of a band are
 * laid out by their remainder, so that the next result row always lies one row further.
 *
 * Results of a band are numbered along its rows as laid out, padding included; what falls on
 * padding is computed and dropped. Where rows are whole tiles only they are taken instead. Small
 * images lie beside each other at every pixel (mixed), so that more rows are whole tiles: 16 pixels
 * of a row are then 8 of two images. Sums are made in the same order whatever the band and the
 * number of threads.
 */
#include <assert.h>
#include <stdlib.h>

#include "backend/cpu/amx/amx.h"

enum {
  BAND_BYTES = 512 << 10,       /* of a limb, or */
  LIMBS_BAND_BYTES = 768 << 10, /* of all limbs */
  MOST_PIXELS = 1024,           /* of a band, padding included */
  PACKED = 4,                   /* panels packed together: longer runs of memory */
  LEAST_RESULTS = 64,
  MOST_PHASES = 16,
  MOST_MIXED = 4
};

/* Results (qh, qw) of every image: result (y, x) lies at pixel (y * step_y + first_y, x * step_x +
 * first_x) of the destination and sums taps (i, j) < (th, tw) over source pixel (y * sy + i + top,
 * x * sx + j + left). */
typedef struct phase {
  int64_t qh, qw, step_y, step_x, first_y, first_x, sy, sx, top, left, th, tw;
  int64_t kh0, kw0, kstep_h,
      kstep_w;          /* tap (i, j) is weight (kh0 + i * kstep_h, kw0 + j * kstep_w) */
  int64_t mixed;        /* images that lie beside each other at every pixel */
  int64_t pitch, row;   /* results of a laid out row, of all mixed images; its bytes */
  int64_t run, steps;   /* numbers in a row of taps; steps of depth in all */
  bool whole;           /* rows of results are whole tiles */
  int64_t images, rows; /* of a band: several whole images, or rows of one */
  int64_t bands;        /* of an image (1 with several images) */
  int64_t lines,
      plane;   /* of a band and mixed images: laid out source rows of one remainder, their bytes */
  size_t b_at; /* in a panel of weights */
} phase;

typedef struct plan {
  const dj__conv_attr *a;
  bool forward, mend;
  int limbs;
  dj_tensor src, dst, w;
  int64_t n, h, wd, c; /* source (n, h, wd, c) */
  int64_t oh, ow, o;   /* destination (n, oh, ow, o) */
  int64_t kh, kw, panels;
  int64_t pixel; /* bytes from a laid out pixel to the next */
  phase phase[MOST_PHASES];
  int n_phase;
  size_t blocks;      /* that a band has at most */
  size_t panel_bytes; /* of weights, all phases */
  size_t b_bytes, turned_bytes, limb_bytes, band_bytes,
      c_bytes; /* workspace: the first two once, the others a thread; a limb of a band */
} plan;

/* Tiles of mixed images, of `rows` rows of results. */
static int64_t tiles_of(const phase *f, int64_t rows) {
  return f->whole ? rows * (f->qw * f->mixed / 16) : (rows * f->pitch * f->mixed + 15) / 16;
}
static int64_t groups_of(const phase *f, int64_t images) {
  return (images + f->mixed - 1) / f->mixed;
}
/* Blocks of two tiles that a band can have, at most. */
static size_t most_blocks(const phase *f) {
  return (size_t)((groups_of(f, f->images) * tiles_of(f, f->rows) + 1) / 2);
}
/* Bytes behind a band that its last tile may read: 16 results, and rows of taps in whole steps. */
static size_t slack(const plan *p, const phase *f) {
  return (size_t)((15 + f->mixed * ((f->tw + f->sx - 1) / f->sx)) * f->sx * p->pixel + 128);
}

static void mix(phase *f, int64_t images) {
  f->mixed = images;
  f->whole = f->qw * images % 16 == 0;
}
/* Mixes the images of a band so that it has the fewest tiles. */
static void best_mix(const plan *p, phase *f) {
  int64_t best = 1, least_tiles = f->images * tiles_of(f, f->rows);
  for (int64_t m = 2; m <= least(f->images, MOST_MIXED) && p->c % 32 == 0; m *= 2) {
    mix(f, m);
    const int64_t tiles = groups_of(f, f->images) * tiles_of(f, f->rows);
    if (tiles < least_tiles) best = m, least_tiles = tiles;
  }
  mix(f, best);
}

/* How a phase's bands are laid out and cut. */
static void lay_out(plan *p, phase *f, int64_t threads) {
  f->run = f->tw * p->c;
  f->steps = f->th * (up(f->run, 32) / 32);
  const int64_t wide = (f->qw - 1) * f->sx + f->tw;
  f->pitch = (wide + f->sx - 1) / f->sx;
  const int64_t extra = (f->th - 1) / f->sy; /* rows beyond those of results */
  const int64_t most = MOST_PIXELS / f->pitch > 0 ? MOST_PIXELS / f->pitch : 1;
  const int64_t row = f->pitch * f->sx * p->pixel, image = f->sy * (f->qh + extra) * row,
                band = p->limbs > 1 ? LIMBS_BAND_BYTES / p->limbs : BAND_BYTES;
  f->images = 1;
  f->rows = f->qh;
  mix(f, 1);
  if (image > band || f->qh > most) {
    f->rows = band / (f->sy * row) - extra;
    f->rows = f->rows < 1 ? 1 : least(f->rows, most);
    f->rows = (f->qh + (f->qh + f->rows - 1) / f->rows - 1) /
              ((f->qh + f->rows - 1) / f->rows); /* even ones */
  } else {
    f->images = least(band / image, most / f->qh > 0 ? most / f->qh : 1);
    const int64_t each = up((p->n + f->images - 1) / f->images, threads); /* even ones, too */
    f->images = (p->n + each - 1) / each;
    best_mix(p, f);
  }
  f->row = row * f->mixed;
  f->bands = (f->qh + f->rows - 1) / f->rows;
  f->lines = f->rows + extra;
  f->plane = f->lines * f->row;
}

static void phases_forward(plan *p) {
  const dj__conv_attr *a = p->a;
  p->n_phase = 1;
  p->phase[0] = (phase){.qh = p->oh,
                        .qw = p->ow,
                        .step_y = 1,
                        .step_x = 1,
                        .sy = a->stride[0],
                        .sx = a->stride[1],
                        .top = -a->pad[0],
                        .left = -a->pad[1],
                        .th = p->kh,
                        .tw = p->kw,
                        .kstep_h = 1,
                        .kstep_w = 1};
}

/* One axis of a phase of conv2d_data: pixels first, first + stride, ... of `size`. Tap k reaches
 * pixel i from source (i + pad - k) / stride. False: no tap does. */
static bool phase_axis(int64_t first, int64_t size, int64_t stride, int64_t pad, int64_t k,
                       int64_t *q, int64_t *taps, int64_t *k_last, int64_t *from) {
  const int64_t k0 = (first + pad) % stride; /* the smallest tap that fits */
  *q = (size - first + stride - 1) / stride;
  *taps = k > k0 ? (k - k0 + stride - 1) / stride : 0;
  *k_last = k0 + (*taps - 1) * stride; /* farthest back in the source: comes first */
  *from = (first + pad - *k_last) / stride;
  if ((first + pad - *k_last) % stride != 0) return false;
  return *taps > 0 && *q > 0;
}

static bool phases_data(plan *p) {
  const dj__conv_attr *a = p->a;
  const int64_t sh = a->stride[0], sw = a->stride[1];
  if (sh * sw > MOST_PHASES) return false;
  for (int64_t y = 0; y < sh; y++)
    for (int64_t x = 0; x < sw; x++) {
      if (y >= p->oh || x >= p->ow) continue;
      phase f = {.step_y = sh,
                 .step_x = sw,
                 .first_y = y,
                 .first_x = x,
                 .sy = 1,
                 .sx = 1,
                 .kstep_h = -sh,
                 .kstep_w = -sw};
      if (!phase_axis(y, p->oh, sh, a->pad[0], p->kh, &f.qh, &f.th, &f.kh0, &f.top) ||
          !phase_axis(x, p->ow, sw, a->pad[1], p->kw, &f.qw, &f.tw, &f.kw0, &f.left))
        return false; /* pixels without a tap: left to others */
      p->phase[p->n_phase++] = f;
    }
  return true;
}

/* Of turned weights: f32 for limbs. */
static dj_dtype turned_type(const plan *p) {
  return p->limbs > 1 ? DJ_F32 : DJ_BF16;
}

static bool plan_of(const dj__call *call, plan *p) {
  *p = (plan){.a = call->attr,
              .forward = call->op == DJ__OP_conv2d,
              .src = call->in[0],
              .w = call->in[1],
              .dst = call->out[0]};
  const int64_t *s = p->src.shape.dim, *d = p->dst.shape.dim, *w = p->w.shape.dim;
  p->n = s[0], p->h = s[1], p->wd = s[2], p->c = s[3];
  p->oh = d[1], p->ow = d[2], p->o = d[3];
  p->kh = w[1], p->kw = w[2];
  p->pixel = p->c * 2 + (p->c % 512 == 0 ? 64 : 0);
  p->panels = (p->o + 31) / 32;
  p->limbs = dj__amx_limbs(&p->src, false);
  if (p->forward)
    phases_forward(p);
  else if (!phases_data(p))
    return false;
  p->turned_bytes = 0;
  if (!p->forward && p->c % 32)
    p->turned_bytes =
        (size_t)up(p->kh * p->kw * p->c * p->o * (int64_t)dj_dtype_size(turned_type(p)), 64);
  for (int i = 0; i < p->n_phase; i++) {
    phase *f = &p->phase[i];
    lay_out(p, f, call->threads > 1 ? call->threads : 1);
    f->b_at = p->panel_bytes;
    p->panel_bytes += (size_t)(f->steps * p->limbs) * DJ__STEP_BYTES;
    size_t limb = (size_t)(groups_of(f, f->images) * f->sy * f->plane) + slack(p, f);
    if (limb > p->limb_bytes) p->limb_bytes = limb;
    if (most_blocks(f) > p->blocks) p->blocks = most_blocks(f);
  }
  p->b_bytes = (size_t)p->panels * p->panel_bytes;
  p->limb_bytes = (p->limb_bytes + 63) / 64 * 64;
  p->band_bytes = p->limb_bytes * (size_t)p->limbs;
  size_t deepest = 0;
  for (int i = 0; i < p->n_phase; i++)
    if ((size_t)p->phase[i].steps > deepest) deepest = (size_t)p->phase[i].steps;
  p->c_bytes = p->blocks * (4096 + 32 * sizeof(char *) + 2 * sizeof(char *)) +
               deepest * sizeof(int32_t) + 256;
  p->c_bytes = (p->c_bytes + 63) / 64 * 64;
  return true;
}

static size_t workspace(const dj__call *c) {
  plan p;
  if (!plan_of(c, &p)) return 0;
  const size_t threads = c->threads > 1 ? (size_t)c->threads : 1;
  return 64 + p.b_bytes + p.turned_bytes + threads * (p.band_bytes + p.c_bytes) +
         (size_t)up(p.o, 32) * 4;
}

static bool supports(const dj__call *c) {
  const dj__conv_attr *a = c->attr;
  if (a->groups > 1 || a->dilation[0] != 1 || a->dilation[1] != 1 || !DJ__I(all_float)(c))
    return false;
  const int limbs = dj__amx_limbs(&c->in[0], false);
  if (limbs != dj__amx_limbs(&c->in[1], a->rounds >> 1 & 1u)) return false;
  if (limbs > 1 && c->out[0].dtype != DJ_F32) return false;
  if (dj_shape_count(&c->out[0].shape) == 0 || dj_shape_count(&c->in[0].shape) == 0) return false;
  plan p;
  if (!plan_of(c, &p)) return false;
  for (int i = 0; i < p.n_phase; i++)
    if (p.phase[i].sx * p.phase[i].pitch * p.c > 1 << 20) return false;
  if (dj__worth_threads == 0) return true; /* a test, with small shapes */
  if (p.o < 16 || p.n * p.oh * p.ow < LEAST_RESULTS || p.c * p.kh * p.kw < 32) return false;
  if (p.limbs > 1) /* oneDNN's reach a third of the rate, but lose little by small depths */
    return p.c % 32 == 0 && p.kh * p.kw > 1 && p.o >= 32 && (p.c >= 64 || p.forward);
  /* Elsewhere oneDNN's are as fast or faster. */
  const int64_t wide = p.phase[0].qw;
  const bool small = wide < 16 || (!p.forward && p.n_phase == 1 && wide < 32 && p.c >= 256);
  return small ? p.c >= 64 && p.kh > 1 : p.n_phase > 1 && p.c >= 32 && p.o >= 32;
}

/* ---- weights ---- */
/* conv2d_data: rows (kh, kw, o) of c numbers, so that what a row of taps reads of B lies in order.
 */
static void turn_weights(const plan *p, void *out, int id, int team) {
  const int64_t taps = p->kh * p->kw,
                all = taps * p->c; /* here c is what the convolution calls O */
  for (int64_t r = part_from(all, team, id); r < part_from(all, team, id + 1); r++) {
    const int64_t t = r / p->c, o = r % p->c, from = (o * taps + t) * p->o;
    if (p->limbs > 1)
      memcpy((float *)out + r * p->o, (const float *)p->w.data + from, (size_t)p->o * 4);
    else
      DJ__WITH_DTYPE(p->w.dtype, T,
                     for (int64_t i = 0; i < p->o; i++)
                         st(out, DJ_BF16, r * p->o + i, ld(p->w.data, T, from + i)));
  }
}

/* conv2d_data where channels are no whole steps: one panel, its rows gathered from the turned
 * weights. */
static void gather_panel(const plan *p, const phase *f, const void *turned, char *dst, int64_t kh,
                         int64_t n, bool *strange) {
  const int64_t each = f->steps / f->th, cols = least(32, p->o - 32 * n);
  const dj_dtype t = turned_type(p);
  float rows[32 * 32]; /* of t */
  for (int64_t s = 0; s < each; s++) {
    for (int64_t k = 0; k < 32; k++) {
      const int64_t at_k = 32 * s + k, j = at_k / p->c, o = at_k % p->c;
      void *row = at_w(rows, t, k * 32);
      memset(row, 0, 32 * dj_dtype_size(t));
      if (at_k >= f->run) continue;
      const int64_t tap = kh * p->kw + f->kw0 + j * f->kstep_w;
      memcpy(row, at(turned, t, (tap * p->c + o) * p->o + 32 * n), (size_t)cols * dj_dtype_size(t));
    }
    const dj__amx_matrix m = {rows, t, 32, 32, 32, p->limbs, strange};
    dj__amx_pack_b(dst + s * p->limbs * DJ__STEP_BYTES, 0, &m, false, 0, 1, 0, 1);
  }
}

/* Packs panels n0 .. n1 of phase f: for every row of taps its run, in whole steps. */
static void pack_weights(const plan *p, const phase *f, const void *turned, char *packed,
                         int64_t n0, int64_t n1, bool *strange) {
  const int64_t each = f->steps / f->th, taps = p->kh * p->kw, step = p->limbs * DJ__STEP_BYTES,
                size = (int64_t)p->panel_bytes;
  char *dst = packed + f->b_at + n0 * size;
  for (int64_t i = 0; i < f->th; i++, dst += each * step) {
    const int64_t kh = f->kh0 + i * f->kstep_h;
    if (p->forward) {
      const dj__amx_matrix m = {at(p->w.data, p->w.dtype, kh * p->kw * p->c),
                                p->w.dtype,
                                p->o,
                                f->run,
                                taps * p->c,
                                p->limbs,
                                strange};
      dj__amx_pack_b(dst, size, &m, true, 0, each, 32 * n0, n1 - n0);
    } else if (turned) {
      for (int64_t n = n0; n < n1; n++)
        gather_panel(p, f, turned, dst + (n - n0) * size, kh, n, strange);
    } else {
      for (int64_t j = 0; j < f->tw; j++) { /* taps run backwards; rows of B are outputs */
        const int64_t tap = kh * p->kw + f->kw0 + j * f->kstep_w;
        const dj__amx_matrix m = {at(p->w.data, p->w.dtype, tap * p->o),
                                  p->w.dtype,
                                  p->c,
                                  p->o,
                                  taps * p->o,
                                  p->limbs,
                                  strange};
        dj__amx_pack_b(dst + j * p->c / 32 * step, size, &m, false, 0, p->c / 32, 32 * n0, n1 - n0);
      }
    }
  }
}

/* ---- bands ---- */
typedef struct band {
  char *data;
  float *c;          /* (blocks, 32, 32) */
  char **where;      /* (blocks, 32) where results go, NULL: dropped */
  const char **from; /* (blocks, 2) rows of A */
  int32_t *at;       /* (steps) */
  int64_t blocks;
  bool *strange; /* a number of it is not finite */
} band;

/* Lays out `count` numbers, limb by limb; from NULL: zeros. */
static void lay_run(const plan *p, char *dst, const void *from, int64_t count, bool *strange) {
  assert(dst);
  if (!from)
    for (int l = 0; l < p->limbs; l++)
      memset(dst + (size_t)l * p->limb_bytes, 0, (size_t)count * 2);
  else if (p->src.dtype == DJ_BF16)
    memcpy(dst, from, (size_t)count * 2);
  else
    dj__amx_split_run(dst, p->limb_bytes, from, DJ_F32, p->limbs, count, strange);
}

/* One source row (image n, row y; outside: zeros), pixel by pixel where others come between. */
static void lay_row(const plan *p, const phase *f, char *dst, int64_t n, int64_t y, bool *strange) {
  const int64_t wide = f->pitch * f->sx;
  const bool here = n < p->n && y >= 0 && y < p->h;
  const int64_t piece = f->mixed > 1 || p->pixel > p->c * 2 ? 1 : wide;
  for (int64_t i = 0; i < wide; i += piece) {
    char *to = dst + (i / f->sx * f->mixed * f->sx + i % f->sx) * p->pixel;
    const int64_t x = f->left + i, before = here ? x < 0 ? least(-x, piece) : 0 : piece;
    int64_t count = least(p->wd - x - before, piece - before);
    if (count < 0) count = 0;
    lay_run(p, to, NULL, before * p->c, strange);
    to += before * p->c * 2;
    if (count)
      lay_run(p, to, at(p->src.data, p->src.dtype, ((n * p->h + y) * p->wd + x + before) * p->c),
              count * p->c, strange);
    lay_run(p, to + count * p->c * 2, NULL, (piece - before - count) * p->c, strange);
  }
}

/* Images from n0 on; those from n1 on are not there. */
static void lay_band(const plan *p, const phase *f, const band *b, int64_t n0, int64_t n1,
                     int64_t y0) {
  char *image = b->data;
  assert(image);
  for (int64_t n = n0; n < n1; n += f->mixed, image += f->sy * f->plane)
    for (int64_t m = 0; m < f->mixed; m++)
      for (int64_t r = 0; r < f->sy; r++) /* remainder */
        for (int64_t l = 0; l < f->lines; l++)
          lay_row(p, f, image + r * f->plane + l * f->row + m * f->sx * p->pixel,
                  n + m < n1 ? n + m : p->n, (y0 + l) * f->sy + r + f->top, b->strange);
  for (int l = 0; l < p->limbs; l++) memset(image + (size_t)l * p->limb_bytes, 0, slack(p, f));
}

static char *result_at(const plan *p, const phase *f, int64_t n, int64_t y, int64_t x) {
  if (y >= f->qh || x >= f->qw) return NULL;
  const int64_t i = (n * p->oh + y * f->step_y + f->first_y) * p->ow + x * f->step_x + f->first_x;
  return (char *)at_w(p->dst.data, p->dst.dtype, i * p->o);
}

/* Tiles of 16 results, two to a block: where their A is, and where they go. */
static void list_tiles(const plan *p, const phase *f, band *b, int64_t n0, int64_t n1, int64_t y0,
                       int64_t rows) {
  int64_t tiles = 0;
  const int64_t pitch = f->pitch * f->mixed, in_row = f->whole ? f->qw * f->mixed : pitch;
  const char *image = b->data;
  for (int64_t n = n0; n < n1; n += f->mixed, image += f->sy * f->plane) {
    int64_t y = 0, v = 0, x = 0, m = 0; /* row, number in it: column and image */
    for (int64_t t = 0; t < tiles_of(f, rows); t++, tiles++) {
      b->from[tiles] = image + (y * pitch + v) * f->sx * p->pixel;
      for (int64_t i = 0; i < 16; i++) {
        b->where[tiles * 16 + i] =
            y < rows && n + m < n1 ? result_at(p, f, n + m, y0 + y, x) : NULL;
        v++, m++;
        if (m == f->mixed) m = 0, x++;
        if (v == in_row) v = x = 0, y++;
      }
    }
  }
  b->blocks = (tiles + 1) / 2;
  if (tiles % 2 == 0) return;
  b->from[tiles] = NULL; /* the last block has one tile */
  for (int64_t i = 0; i < 16; i++) b->where[tiles * 16 + i] = NULL;
}

static void compute(const plan *p, const phase *f, const band *b, const char *packed,
                    const float *bias) {
  const int64_t deep = dj__amx_deep(p->limbs), pieces = (f->steps + deep - 1) / deep,
                step = p->limbs * DJ__STEP_BYTES;
  const size_t size = dj_dtype_size(p->dst.dtype), stride = (size_t)(f->sx * p->pixel);
  assert(b->blocks > 0);
  for (int64_t n = 0; n < p->panels; n++) {
    const char *panel = packed + (size_t)n * p->panel_bytes + f->b_at;
    const int64_t cols = least(32, p->o - 32 * n);
    const dj__amx_to to = {p->dst.dtype, p->a->post.act, bias ? bias + 32 * n : NULL, false,
                           p->mend};
    for (int64_t q = 0; q < pieces; q++) {
      const int64_t s0 = f->steps * q / pieces, s1 = f->steps * (q + 1) / pieces;
      const int64_t lines = ((s1 - s0) * step / 64 + b->blocks - 1) / b->blocks;
      const char *next = panel + (q + 1 < pieces ? s1 * step : (int64_t)p->panel_bytes);
      for (int64_t m = 0; m < b->blocks; m++) {
        float *c = b->c + (pieces > 1 ? m * 1024 : 0);
        const dj__amx_a a = {
            {b->from[2 * m], b->from[2 * m + 1]}, stride, b->at + s0, p->limb_bytes};
        const dj__amx_ahead ahead = {next + m * lines * 64,
                                     q > 0 && m + 1 < b->blocks ? (const char *)(c + 1024) : NULL,
                                     lines};
        dj__amx_any(p->limbs, a.row[1] ? 32 : 16, cols, &a, panel + s0 * step, s1 - s0, c, q > 0,
                    &ahead);
        if (q + 1 == pieces)
          dj__amx_store_rows(c, cols, b->where + 32 * m, (size_t)(32 * n) * size, &to);
      }
    }
  }
}

static void one_band(const plan *p, const phase *f, band *b, int64_t item, const char *packed,
                     const float *bias) {
  int64_t n0 = item / f->bands * f->images, n1 = least(n0 + f->images, p->n);
  int64_t y0 = item % f->bands * f->rows, rows = least(f->rows, f->qh - y0);
  lay_band(p, f, b, n0, n1, y0);
  list_tiles(p, f, b, n0, n1, y0, rows);
  compute(p, f, b, packed, bias);
}

static void steps_of(const plan *p, const phase *f, int32_t *at) {
  const int64_t each = f->steps / f->th, others = (f->mixed - 1) * f->sx * p->pixel;
  for (int64_t i = 0; i < f->th; i++)
    for (int64_t u = 0; u < each; u++)
      at[i * each + u] =
          (int32_t)(i % f->sy * f->plane + i / f->sy * f->row + u * 64 +
                    32 * u / p->c * (p->pixel - p->c * 2) + 32 * u / p->c / f->sx * others);
}

/* The whole call. kept: packed weights, or NULL. True: there were numbers that are not finite. */
static bool pictures(const dj__call *call, const plan *p, const char *kept) {
  char *packed = aligned(call->workspace);
  char *turned = p->turned_bytes ? packed + p->b_bytes : NULL;
  char *mine = packed + p->b_bytes + p->turned_bytes;
  int threads = threads_for(call, dj_shape_count(&p->dst.shape) * p->phase[0].steps);
  float *bias = (float *)(void *)(mine + (size_t)(call->threads > 1 ? call->threads : 1) *
                                             (p->band_bytes + p->c_bytes));
  if (p->a->post.bias) DJ__I(load_block)(bias, call->in[2].data, call->in[2].dtype, p->o);
  bool any = false;
#pragma omp parallel num_threads(threads) reduction(|| : any)
  {
    const int id = omp_get_thread_num(), team = omp_get_num_threads();
    band b = {.data = mine + (size_t)id * (p->band_bytes + p->c_bytes), .strange = &any};
    b.c = (float *)(void *)(b.data + p->band_bytes);
    b.where = (char **)(void *)(b.c + p->blocks * 1024);
    b.from = (const char **)(void *)(b.where + p->blocks * 32);
    b.at = (int32_t *)(void *)(b.from + p->blocks * 2);
    if (turned && !kept) {
      turn_weights(p, turned, id, team);
#pragma omp barrier
    }
    dj__amx_begin();
    for (int i = 0; i < p->n_phase && !kept; i++)
#pragma omp for schedule(static)
      for (int64_t n = 0; n < p->panels; n += PACKED)
        pack_weights(p, &p->phase[i], turned, packed, n, least(n + PACKED, p->panels), &any);
    for (int i = 0; i < p->n_phase; i++) {
      const phase *f = &p->phase[i];
      steps_of(p, f, b.at);
#pragma omp for schedule(static) nowait
      for (int64_t item = 0; item < (p->n + f->images - 1) / f->images * f->bands; item++)
        one_band(p, f, &b, item, kept ? kept : packed, p->a->post.bias ? bias : NULL);
    }
    dj__amx_end();
  }
  return any;
}

/* self: the layout of packed weights, or NULL. */
static dj_status run(const dj__call *call, void *self) {
  plan p;
  if (!plan_of(call, &p)) return dj_error(DJ_E_UNSUPPORTED, "convolution of this shape on AMX");
  if (!pictures(call, &p, self ? call->packed : NULL)) return DJ_OK;
  p.limbs = 1;
  p.mend = true;
  pictures(call, &p, NULL);
  return DJ_OK;
}

/* ---- layout of weights ---- */
enum { STEP = DJ__STEP_BYTES / 2, HALF = DJ__TILE_BYTES / 2 }; /* in numbers */

/* Of number i along the depth of B, and of column i. */
static int32_t depth_at(int64_t i) {
  return (int32_t)(i / 32 * STEP + i % 32 / 2 * 32 + i % 2);
}
static int32_t column_at(const plan *p, int64_t i) {
  return (int32_t)(i / 32 * (int64_t)(p->panel_bytes / 2) + i % 32 / 16 * HALF + i % 16 * 2);
}
/* Of a tap; -1: no phase reads it. */
static int32_t tap_at(const plan *p, int64_t kh, int64_t kw) {
  for (int k = 0; k < p->n_phase; k++) {
    const phase *f = &p->phase[k];
    for (int64_t i = 0; i < f->th; i++)
      for (int64_t j = 0; j < f->tw; j++)
        if (f->kh0 + i * f->kstep_h == kh && f->kw0 + j * f->kstep_w == kw)
          return (int32_t)(f->b_at / 2) + depth_at((i * f->tw + j) * p->c);
  }
  return -1;
}

static dj__layout *layout(const dj__call *c) {
  plan p;
  if (!plan_of(c, &p) || p.limbs > 1 || p.c % 32 || p.b_bytes / 2 > INT32_MAX) return NULL;
  const int64_t rows = p.w.shape.dim[0], cols = p.w.shape.dim[3], taps = p.kh * p.kw;
  dj__layout *l = malloc(sizeof *l + (size_t)(rows + taps + cols) * sizeof l->place[0]);
  if (!l) return NULL;
  *l = (dj__layout){.rows = rows,
                    .taps = taps,
                    .cols = cols,
                    .count = (int64_t)(p.b_bytes / 2),
                    .dtype = DJ_BF16};
  int32_t *place = l->place;
  for (int64_t i = 0; i < rows; i++) *place++ = p.forward ? column_at(&p, i) : depth_at(i);
  bool all = true;
  for (int64_t i = 0; i < taps; i++) {
    *place = tap_at(&p, i / p.kw, i % p.kw);
    all &= *place++ >= 0;
  }
  for (int64_t i = 0; i < cols; i++) *place++ = p.forward ? depth_at(i) : column_at(&p, i);
  if (!all) {
    free(l);
    return NULL;
  }
  dj__layout_finish(l);
  return l;
}

const dj__own dj__amx_conv2d = {run, supports, workspace, layout};
