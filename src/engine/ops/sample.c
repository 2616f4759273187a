/*
 * Sampling an image at given places: grid_sample (x (N, H, W, C), grid (N, HO, WO, 2)) -> y
 * (N, HO, WO, C), bilinear. The grid holds (x, y) in -1..1, from outer edge to outer edge of the
 * image (align_corners = false). Outside: DJ_BORDER_CLAMP takes the border's value (and passes no
 * gradient to the coordinate), DJ_BORDER_ZERO counts pixels outside as zero. A coordinate that is
 * NaN gives NaN, so that the failure is found where it is made.
 */
#include "dojo/ops.h"
#include "engine/attrs.h"
#include "engine/ops/common.h"

/* ---- shapes ---- */

static dj_status check(const dj__infer *s, dj_shape *y) {
  const dj__grid_attr *a = s->attr;
  DJ_TRY(dj__want_float(s, 0, 4));
  DJ_TRY(dj__want_float(s, 1, 4));
  const int64_t *x = s->in[0].shape.dim, *grid = s->in[1].shape.dim;
  DJ_TRY(dj__want_f32(s, 1, &DJ_SHAPE(x[0], grid[1], grid[2], 2)));
  if (a->border != DJ_BORDER_ZERO && a->border != DJ_BORDER_CLAMP)
    return dj__bad(s, "unknown border rule %d; use DJ_BORDER_ZERO or DJ_BORDER_CLAMP", a->border);
  if (x[1] > 1 << 24 || x[2] > 1 << 24) /* pixel coordinates are f32 */
    return dj__bad(s, "an image of %lld x %lld is too large to be sampled", (long long)x[1],
                   (long long)x[2]);
  *y = DJ_SHAPE(x[0], grid[1], grid[2], x[3]);
  return DJ_OK;
}

static dj_status grid_sample_infer(dj__infer *s) {
  return check(s, &s->out[0].shape);
}

static dj_status grid_sample_grad_infer(dj__infer *s) {
  dj_shape y = {0};
  DJ_TRY(check(s, &y));
  DJ_TRY(dj__want_shape(s, 2, &y));
  s->out[0].shape = s->in[0].shape;
  dj__set_out(s, 1, DJ_F32, s->in[1].shape);
  return DJ_OK;
}

/* ---- gradient ---- */

static void grid_sample_backward(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  dj_val dx = dj__emit(g, DJ__OP_grid_sample_grad, (dj_val[]){n->in[0], n->in[1], dout[0]}, 3,
                       n->attr, n->attr_size);
  if (dx == DJ_NONE) return;
  if (dj__needs_grad(g, n->in[0])) din[0] = dx;
  if (dj__needs_grad(g, n->in[1])) din[1] = dj__sibling(g, dx, 1);
}

/* ---- cost ---- */

/* Four taps of a multiply and an add; backward the same for dx and twice that for the grid. */
static void grid_cost(const dj__call *c, dj__cost *cost) {
  const int64_t *grid = c->in[1].shape.dim;
  double points = (double)grid[0] * (double)grid[1] * (double)grid[2];
  dj__cost_touch(c, cost);
  cost->flops = points * (double)c->in[0].shape.dim[3] * (c->op == DJ__OP_grid_sample ? 8.0 : 24.0);
}

/* ---- reference kernels ---- */

/* Pixel (i, j) of an image, or NULL if it is outside. */
static const float *pixel(const float *x, const int64_t *xd, int64_t i, int64_t j) {
  return i < 0 || j < 0 || i >= xd[1] || j >= xd[2] ? NULL : x + (i * xd[2] + j) * xd[3];
}

/* The four neighbours, row-major, and their weights in each axis. */
typedef struct corners {
  int64_t i[4], j[4];
  double wi[4], wj[4]; /* weight = wi * wj */
  double di, dj;       /* slopes of the pixel coordinates */
} corners;

static corners corners_at(const float *grid, const int64_t *xd, int border) {
  dj__grid_axis u = dj__grid_coord(grid[0], xd[2], border);
  dj__grid_axis v = dj__grid_coord(grid[1], xd[1], border);
  double a = (double)v.w1, b = (double)u.w1;
  return (corners){{v.i0, v.i0, v.i1, v.i1}, {u.i0, u.i1, u.i0, u.i1}, {1 - a, 1 - a, a, a},
                   {1 - b, b, 1 - b, b},     (double)v.slope,          (double)u.slope};
}

static dj_status grid_sample_ref(const dj__call *call) {
  const dj__grid_attr *a = call->attr;
  const int64_t *xd = call->in[0].shape.dim, *gd = call->in[1].shape.dim;
  const float *x = call->in[0].data;    // (N, H, W, C) f32
  const float *grid = call->in[1].data; // (N, HO, WO, 2) f32
  float *y = call->out[0].data;         // (N, HO, WO, C) f32
  for (int64_t n = 0; n < gd[0]; n++, x += xd[1] * xd[2] * xd[3])
    for (int64_t p = 0; p < gd[1] * gd[2]; p++, grid += 2, y += xd[3]) {
      corners q = corners_at(grid, xd, a->border);
      for (int64_t c = 0; c < xd[3]; c++) {
        double sum = 0;
        for (int k = 0; k < 4; k++) {
          const float *at = pixel(x, xd, q.i[k], q.j[k]);
          sum += q.wi[k] * q.wj[k] * (at ? (double)at[c] : 0);
        }
        y[c] = (float)sum;
      }
    }
  return DJ_OK;
}

/* One point: adds to dx (image), sets dgrid (2). */
static void point_grad(const corners *q, const float *x, const int64_t *xd, const float *dy,
                       float *dx, float *dgrid) {
  double gi = 0, gj = 0; /* d loss / d pixel coordinate, rows and columns */
  for (int k = 0; k < 4; k++) {
    const float *at = pixel(x, xd, q->i[k], q->j[k]);
    if (!at) continue;
    double si = k < 2 ? -1 : 1, sj = k % 2 ? 1 : -1, w = q->wi[k] * q->wj[k];
    for (int64_t c = 0; c < xd[3]; c++) {
      dx[at - x + c] += (float)(w * (double)dy[c]);
      gi += si * q->wj[k] * (double)at[c] * (double)dy[c];
      gj += sj * q->wi[k] * (double)at[c] * (double)dy[c];
    }
  }
  dgrid[0] = (float)(gj * q->dj);
  dgrid[1] = (float)(gi * q->di);
}

static dj_status grid_sample_grad_ref(const dj__call *call) {
  const dj__grid_attr *a = call->attr;
  const int64_t *xd = call->in[0].shape.dim, *gd = call->in[1].shape.dim;
  const float *x = call->in[0].data;    // (N, H, W, C) f32
  const float *grid = call->in[1].data; // (N, HO, WO, 2) f32
  const float *dy = call->in[2].data;   // (N, HO, WO, C) f32
  float *dx = call->out[0].data;        // (N, H, W, C) f32
  float *dgrid = call->out[1].data;     // (N, HO, WO, 2) f32
  int64_t image = xd[1] * xd[2] * xd[3];
  memset(dx, 0, dj_tensor_bytes(&call->out[0]));
  for (int64_t n = 0; n < gd[0]; n++, x += image, dx += image)
    for (int64_t p = 0; p < gd[1] * gd[2]; p++, grid += 2, dgrid += 2, dy += xd[3]) {
      corners q = corners_at(grid, xd, a->border);
      point_grad(&q, x, xd, dy, dx, dgrid);
    }
  return DJ_OK;
}

/* ---- samples ---- */

/* The bilinear surface has kinks where a coordinate meets a pixel centre: a pixel is 2 / size wide
 * in the grid, and a gradient check's step must not cross one. The samples that are checked stay
 * between two centres: see their ranges. */
static const dj__grid_attr zero_attr = {.border = DJ_BORDER_ZERO};
static const dj__grid_attr clamp_attr = {.border = DJ_BORDER_CLAMP};

/* Of the backward kernel only, whose points may lie anywhere. */
#define GRID_GRAD_MORE(X)                                                                          \
  X("whole image", 8, 9, 7, 33, 13, 11, -1.2f, 1.2f, zero_attr, false)                             \
  X("channel tiles", 2, 9, 7, 150, 13, 11, -1.2f, 1.2f, clamp_attr, false)

/* X(label, N, H, W, C, HO, WO, lo, hi, attr, bench) */
#define GRID_SAMPLES(X)                                                                            \
  X("inside", 2, 4, 4, 5, 3, 2, 0.30f, 0.70f, zero_attr, false)                                    \
  X("inside_clamp", 1, 4, 4, 3, 2, 5, 0.30f, 0.70f, clamp_attr, false)                             \
  X("edge_zero", 1, 3, 3, 16, 3, 3, 0.70f, 1.20f, zero_attr, false)                                \
  X("edge_clamp", 1, 3, 3, 4, 3, 3, 0.75f, 1.40f, clamp_attr, false)                               \
  X("far_outside", 1, 3, 5, 2, 2, 2, 3.0f, 9.0f, zero_attr, false)                                 \
  X("threads", 2, 4, 4, 33, 25, 30, 0.30f, 0.70f, zero_attr, false)                                \
  X("bench_8x64x64x64", 8, 32, 64, 64, 64, 64, -1.1f, 1.1f, zero_attr, true)
#define GRID_SAMPLE(nm, N, H, W, C, HO, WO, l, h, at, b)                                           \
  {.label = nm,                                                                                    \
   .n_in = 2,                                                                                      \
   .in = {DJ__F32(N, H, W, C), DJ__F32(N, HO, WO, 2)},                                             \
   .range = {[1] = {.lo = l, .hi = h}},                                                            \
   DJ__ATTR(at),                                                                                   \
   .bench = b},
#define GRID_GRAD_SAMPLE(nm, N, H, W, C, HO, WO, l, h, at, b)                                      \
  {.label = nm,                                                                                    \
   .n_in = 3,                                                                                      \
   .in = {DJ__F32(N, H, W, C), DJ__F32(N, HO, WO, 2), DJ__F32(N, HO, WO, C)},                      \
   .range = {[1] = {.lo = l, .hi = h}},                                                            \
   DJ__ATTR(at),                                                                                   \
   .bench = b},
static const dj__sample grid_sample_samples[] = {GRID_SAMPLES(GRID_SAMPLE)};
static const dj__sample grid_sample_grad_samples[] = {GRID_SAMPLES(GRID_GRAD_SAMPLE)
                                                          GRID_GRAD_MORE(GRID_GRAD_SAMPLE)};

DJ__DEFINE_OP(grid_sample, 2, 2, 1, DJ__FOLLOW, 1u, 0, grid_sample_infer, grid_sample_backward,
              grid_cost, grid_sample_ref, grid_sample_samples);
DJ__DEFINE_OP(grid_sample_grad, 3, 3, 2, DJ__FOLLOW, 5u, 0, grid_sample_grad_infer, DJ__NO_GRAD,
              grid_cost, grid_sample_grad_ref, grid_sample_grad_samples);

/* ---- public constructor ---- */

dj_val dj_grid_sample(dj_graph *g, dj_val x, dj_val grid, dj_border border) {
  dj__grid_attr a = {.border = border};
  return dj__emit(g, DJ__OP_grid_sample, (dj_val[]){x, grid}, 2, &a, sizeof a);
}
