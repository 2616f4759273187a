/*
 * Reading images (N, H, W, C) between their pixels: resize and grid_sample, forward and backward
 * (definitions: engine/attrs.h, engine/ops/pool.c, engine/ops/sample.c). Channels are the vectors.
 *
 * resize_grad gathers: a pixel of dx looks up the output pixels that read it. grid_sample_grad
 * scatters, each thread into channels of an image that are its own. Both add in the order of the
 * points, whatever the number of threads.
 */
#include "backend/cpu/isa/nn.h"

/* ---- resize ---- */
/* One axis: what every pixel of the large side reads, and which pixels read one of the small. */
typedef struct axis {
  dj__lerp *lerp;     // (out)
  int64_t *from, *to; // (in) output pixels that read input pixel i; resize_grad only
} axis;

static size_t axis_bytes(int64_t in, int64_t out) {
  return (size_t)out * sizeof(dj__lerp) + 2 * (size_t)in * sizeof(int64_t);
}

static axis axis_make(void *memory, int64_t in, int64_t out, int64_t mode, bool grad) {
  axis a = {.lerp = memory};
  a.from = (int64_t *)(a.lerp + out);
  a.to = a.from + in;
  for (int64_t i = 0; grad && i < in; i++) a.from[i] = out, a.to[i] = 0;
  for (int64_t i = 0; i < out; i++) {
    if (mode == DJ_NEAREST) {
      int64_t p = dj__resize_nearest(i, in, out);
      a.lerp[i] = (dj__lerp){p, p, 0};
    } else {
      a.lerp[i] = dj__resize_linear(i, in, out);
    }
    for (int64_t p = a.lerp[i].i0; grad && p <= a.lerp[i].i1; p++) {
      if (i < a.from[p]) a.from[p] = i;
      a.to[p] = i + 1;
    }
  }
  return a;
}

size_t DJ__I(resize_workspace)(const dj__call *c) {
  bool grad = c->op == DJ__OP_resize_grad;
  const int64_t *in = grad ? c->out[0].shape.dim : c->in[0].shape.dim;
  const int64_t *out = grad ? c->in[0].shape.dim : c->out[0].shape.dim;
  return axis_bytes(in[1], out[1]) + axis_bytes(in[2], out[2]);
}

/* y (C) = the four taps at p (element offsets) with weights w */
DJ__INLINE void four_taps(const void *x, const int64_t *p, const float *w, int64_t c, void *y,
                          dj_dtype t) {
  int64_t k = 0;
  for (; k + VW <= c; k += VW)
    v_store(y, t, k,
            w[0] * v_load(x, t, p[0] + k) + w[1] * v_load(x, t, p[1] + k) +
                w[2] * v_load(x, t, p[2] + k) + w[3] * v_load(x, t, p[3] + k));
  for (; k < c; k++)
    st(y, t, k,
       w[0] * ld(x, t, p[0] + k) + w[1] * ld(x, t, p[1] + k) + w[2] * ld(x, t, p[2] + k) +
           w[3] * ld(x, t, p[3] + k));
}

/* One row of the output. x (H, W, C), y (OW, C) */
DJ__INLINE void resize_row(const void *x, dj_dtype t, void *y, dj__lerp v, const axis *cols,
                           int64_t w, int64_t ow, int64_t c, bool nearest) {
  for (int64_t j = 0; j < ow; j++) {
    dj__lerp h = cols->lerp[j];
    if (nearest) {
      memcpy(at_w(y, t, j * c), at(x, t, (v.i0 * w + h.i0) * c), (size_t)c * dj_dtype_size(t));
      continue;
    }
    int64_t p[4] = {(v.i0 * w + h.i0) * c, (v.i0 * w + h.i1) * c, (v.i1 * w + h.i0) * c,
                    (v.i1 * w + h.i1) * c};
    float weight[4] = {(1 - v.w1) * (1 - h.w1), (1 - v.w1) * h.w1, v.w1 * (1 - h.w1), v.w1 * h.w1};
    four_taps(x, p, weight, c, at_w(y, t, j * c), t);
  }
}

dj_status DJ__I(resize)(const dj__call *c, void *self) {
  (void)self;
  const dj__resize_attr *a = c->attr;
  const int64_t *xd = c->in[0].shape.dim, *yd = c->out[0].shape.dim;
  const dj_dtype t = c->in[0].dtype;
  axis rows = axis_make(c->workspace, xd[1], yd[1], a->mode, false);
  axis cols =
      axis_make((char *)c->workspace + axis_bytes(xd[1], yd[1]), xd[2], yd[2], a->mode, false);
#pragma omp parallel for schedule(static)                                                          \
    num_threads(threads_for(c, 4 * dj_shape_count(&c->out[0].shape)))
  for (int64_t u = 0; u < yd[0] * yd[1]; u++) {
    const void *x = at(c->in[0].data, t, u / yd[1] * xd[1] * xd[2] * xd[3]);
    void *y = at_w(c->out[0].data, t, u * yd[2] * yd[3]);
    DJ__WITH_DTYPE(t, T,
                   resize_row(x, T, y, rows.lerp[u % yd[1]], &cols, xd[2], yd[2], xd[3],
                              a->mode == DJ_NEAREST));
  }
  return DJ_OK;
}

/* Weight of input pixel p in output pixel l. */
DJ__INLINE float share(dj__lerp l, int64_t p) {
  return (l.i0 == p ? 1.0f - l.w1 : 0.0f) + (l.i1 == p ? l.w1 : 0.0f);
}

/* dx (C) of input pixel (h, w) from dy (OH, OW, C) of its image */
DJ__INLINE void resize_pixel_grad(const void *dy, dj_dtype t, void *dx, const axis *rows,
                                  const axis *cols, int64_t h, int64_t w, int64_t ow, int64_t c) {
  int64_t k = 0;
  for (; k + VW <= c; k += VW) {
    vf sum = v_all(0);
    for (int64_t i = rows->from[h]; i < rows->to[h]; i++) {
      float a = share(rows->lerp[i], h);
      for (int64_t j = cols->from[w]; j < cols->to[w]; j++)
        sum += a * share(cols->lerp[j], w) * v_load(dy, t, (i * ow + j) * c + k);
    }
    v_store(dx, t, k, sum);
  }
  for (; k < c; k++) {
    float sum = 0;
    for (int64_t i = rows->from[h]; i < rows->to[h]; i++)
      for (int64_t j = cols->from[w]; j < cols->to[w]; j++)
        sum += share(rows->lerp[i], h) * share(cols->lerp[j], w) * ld(dy, t, (i * ow + j) * c + k);
    st(dx, t, k, sum);
  }
}

dj_status DJ__I(resize_grad)(const dj__call *c, void *self) {
  (void)self;
  const dj__resize_attr *a = c->attr;
  const int64_t *yd = c->in[0].shape.dim, *xd = c->out[0].shape.dim;
  const dj_dtype t = c->in[0].dtype;
  axis rows = axis_make(c->workspace, xd[1], yd[1], a->mode, true);
  axis cols =
      axis_make((char *)c->workspace + axis_bytes(xd[1], yd[1]), xd[2], yd[2], a->mode, true);
#pragma omp parallel for schedule(static)                                                          \
    num_threads(threads_for(c, 4 * dj_shape_count(&c->in[0].shape)))
  for (int64_t u = 0; u < xd[0] * xd[1]; u++) {
    const void *dy = at(c->in[0].data, t, u / xd[1] * yd[1] * yd[2] * yd[3]);
    for (int64_t w = 0; w < xd[2]; w++) {
      void *dx = at_w(c->out[0].data, t, (u * xd[2] + w) * xd[3]);
      DJ__WITH_DTYPE(t, T, resize_pixel_grad(dy, T, dx, &rows, &cols, u % xd[1], w, yd[2], xd[3]));
    }
  }
  return DJ_OK;
}

/* ---- grid_sample ---- */
/* The up to four neighbours of a point that lie in the image, in row-major order. */
typedef struct taps {
  int n;
  int64_t at[4];      /* element offset of the pixel in its image */
  float w[4];         /* weight of the pixel */
  float gi[4], gj[4]; /* its weight's slope along rows and columns of the image */
  float slope_i, slope_j;
} taps;

static taps taps_at(const float *grid, const int64_t *xd, int border) {
  dj__grid_axis u = dj__grid_coord(grid[0], xd[2], border);
  dj__grid_axis v = dj__grid_coord(grid[1], xd[1], border);
  taps t = {.slope_i = v.slope, .slope_j = u.slope};
  for (int k = 0; k < 4; k++) {
    int64_t i = k < 2 ? v.i0 : v.i1, j = k % 2 ? u.i1 : u.i0;
    if (i < 0 || j < 0 || i >= xd[1] || j >= xd[2]) continue;
    float wi = k < 2 ? 1.0f - v.w1 : v.w1, wj = k % 2 ? u.w1 : 1.0f - u.w1;
    t.at[t.n] = (i * xd[2] + j) * xd[3];
    t.w[t.n] = wi * wj;
    t.gi[t.n] = k < 2 ? -wj : wj;
    t.gj[t.n] = k % 2 ? wi : -wi;
    t.n++;
  }
  return t;
}

/* y (C) of one point */
DJ__INLINE void sample_point(const taps *p, const void *x, dj_dtype t, void *y, int64_t c) {
  if (p->n == 4) {
    four_taps(x, p->at, p->w, c, y, t);
    return;
  }
  int64_t k = 0;
  for (; k + VW <= c; k += VW) {
    vf sum = v_all(0);
    for (int q = 0; q < p->n; q++) sum += p->w[q] * v_load(x, t, p->at[q] + k);
    v_store(y, t, k, sum);
  }
  for (; k < c; k++) {
    float sum = 0;
    for (int q = 0; q < p->n; q++) sum += p->w[q] * ld(x, t, p->at[q] + k);
    st(y, t, k, sum);
  }
}

bool DJ__I(grid_supports)(const dj__call *c) { /* images of one dtype, coordinates f32 */
  const dj_dtype t = c->in[0].dtype;
  bool grad = c->op == DJ__OP_grid_sample_grad;
  return is_float(&c->in[0]) && c->in[1].dtype == DJ_F32 && c->out[0].dtype == t &&
         (!grad || (c->in[2].dtype == t && c->out[1].dtype == DJ_F32));
}

dj_status DJ__I(grid_sample)(const dj__call *c, void *self) {
  (void)self;
  const int64_t *xd = c->in[0].shape.dim, *gd = c->in[1].shape.dim, points = gd[1] * gd[2];
  const float *grid = c->in[1].data; // (N, HO, WO, 2) f32
  const int border = ((const dj__grid_attr *)c->attr)->border;
  const dj_dtype t = c->in[0].dtype;
#pragma omp parallel for schedule(static)                                                          \
    num_threads(threads_for(c, 8 * dj_shape_count(&c->out[0].shape)))
  for (int64_t u = 0; u < gd[0] * points; u++) {
    taps p = taps_at(grid + 2 * u, xd, border);
    const void *x = at(c->in[0].data, t, u / points * xd[1] * xd[2] * xd[3]); // (H, W, C)
    DJ__WITH_DTYPE(t, T, sample_point(&p, x, T, at_w(c->out[0].data, T, u * xd[3]), xd[3]));
  }
  return DJ_OK;
}

/* Units of the backward pass: images, of a few images also tiles of their channels. */
typedef struct grid_units {
  int64_t tile, tiles; /* channels of a tile, tiles of an image */
  int64_t image;       /* elements of f32 scratch for one tile of an image, in bf16 */
} grid_units;

static grid_units grid_units_of(const dj__call *c) {
  const int64_t *xd = c->in[0].shape.dim;
  grid_units g = {.tile = xd[0] >= 8 || xd[3] < 64 ? xd[3] : 64};
  g.tiles = (xd[3] + g.tile - 1) / g.tile;
  g.image = c->out[0].dtype == DJ_BF16 ? xd[1] * xd[2] * g.tile : 0;
  return g;
}

/* Gradients of the coordinates by tile, then an image a thread. */
size_t DJ__I(grid_grad_workspace)(const dj__call *c) {
  grid_units g = grid_units_of(c);
  size_t threads = (size_t)(c->threads > 1 ? c->threads : 1);
  size_t grid = g.tiles > 1 ? (size_t)(g.tiles * dj_shape_count(&c->in[1].shape)) : 0;
  return (grid + threads * (size_t)g.image) * sizeof(float);
}

/* One point and n channels from c0 on: adds to dx, whose pixels are `stride` apart and start at
 * channel c0; sets dgrid (2). x (H, W, C), dy (C) */
DJ__INLINE void point_grad(const taps *p, const void *x, const void *dy, dj_dtype t, int64_t c0,
                           int64_t n, int64_t channels, float *dx, int64_t stride, float *dgrid) {
  float gi = 0, gj = 0;
  for (int q = 0; q < p->n; q++) {
    float *d = dx + p->at[q] / channels * stride, dot = 0;
    vf acc = v_all(0);
    int64_t k = 0;
    for (; k + VW <= n; k += VW) {
      vf g = v_load(dy, t, c0 + k);
      acc += g * v_load(x, t, p->at[q] + c0 + k);
      v_store(d, DJ_F32, k, v_load(d, DJ_F32, k) + p->w[q] * g);
    }
    for (; k < n; k++) {
      float g = ld(dy, t, c0 + k);
      dot += g * ld(x, t, p->at[q] + c0 + k);
      d[k] += p->w[q] * g;
    }
    dot += v_sum(acc);
    gi += p->gi[q] * dot;
    gj += p->gj[q] * dot;
  }
  dgrid[0] = gj * p->slope_j;
  dgrid[1] = gi * p->slope_i;
}

/* All points of one tile of one image. */
static void tile_grad(const dj__call *c, const grid_units *g, int64_t image, int64_t tile,
                      float *dgrid, float *scratch) {
  const int64_t *xd = c->in[0].shape.dim, *gd = c->in[1].shape.dim, points = gd[1] * gd[2];
  const int64_t pixels = xd[1] * xd[2], ch = xd[3], c0 = tile * g->tile;
  const int64_t n = ch - c0 < g->tile ? ch - c0 : g->tile;
  const int border = ((const dj__grid_attr *)c->attr)->border;
  const dj_dtype t = c->in[0].dtype;
  const float *grid = (const float *)c->in[1].data + image * points * 2; // (HO, WO, 2) f32
  const void *x = at(c->in[0].data, t, image * pixels * ch);             // (H, W, C)
  const void *dy = at(c->in[2].data, t, image * points * ch);            // (HO, WO, C)
  void *out = at_w(c->out[0].data, t, image * pixels * ch + c0);         // (H, W, C)
  float *dx = t == DJ_F32 ? out : scratch;
  const int64_t stride = t == DJ_F32 ? ch : n;
  for (int64_t i = 0; i < pixels; i++) memset(dx + i * stride, 0, (size_t)n * sizeof *dx);
  for (int64_t i = 0; i < points; i++) {
    taps p = taps_at(grid + 2 * i, xd, border);
    DJ__WITH_DTYPE(t, T,
                   point_grad(&p, x, at(dy, T, i * ch), T, c0, n, ch, dx, stride, dgrid + 2 * i));
  }
  for (int64_t i = 0; t == DJ_BF16 && i < pixels; i++)
    DJ__I(store_block)(at_w(out, t, i * ch), t, dx + i * n, n);
}

dj_status DJ__I(grid_sample_grad)(const dj__call *c, void *self) {
  (void)self;
  const int64_t *gd = c->in[1].shape.dim, points = gd[1] * gd[2], all = gd[0] * points * 2;
  grid_units g = grid_units_of(c);
  float *dgrid = c->out[1].data; // (N, HO, WO, 2) f32
  float *part = g.tiles > 1 ? c->workspace : dgrid;
  float *images = (float *)c->workspace + (g.tiles > 1 ? g.tiles * all : 0);
  int nt = threads_for(c, 16 * dj_shape_count(&c->in[2].shape));
#pragma omp parallel for schedule(static) num_threads(nt)
  for (int64_t u = 0; u < gd[0] * g.tiles; u++) {
    int64_t image = u / g.tiles, tile = u % g.tiles;
    tile_grad(c, &g, image, tile, part + tile * all + image * points * 2,
              images + omp_get_thread_num() * g.image);
  }
  for (int64_t i = 0; g.tiles > 1 && i < all; i++) {
    float sum = part[i];
    for (int64_t k = 1; k < g.tiles; k++) sum += part[k * all + i];
    dgrid[i] = sum;
  }
  return DJ_OK;
}
