/*
 * Normalisation: y = (x - mean) * inv_std * scale + shift, with statistics over all axes but the
 * last (batch_norm; Ioffe & Szegedy 2015), over the last axis (layer_norm; Ba et al. 2016),
 * over the last axis without a mean (rms_norm; Zhang & Sennrich 2019), or over the middle axes and
 * a group of channels (group_norm; Wu & He 2018). Inputs and outputs: attrs.h.
 *
 * All four are one computation over a different geometry. An element's statistics and parameters
 * are found through `geometry`: x is seen as (outer, inner, C), and groups of channels of one outer
 * index share a mean. Statistics and parameters are f32 in every precision.
 */
#include "dojo/ops.h"
#include "engine/attrs.h"
#include "engine/ewise.h"
#include "engine/graph.h"
#include "engine/ops/common.h"

/* ---- geometry ---- */

/* x as (outer, inner, c); statistics over `inner` and c / groups channels: (outer, groups).
 * batch_norm: outer 1, groups C. layer and rms_norm: inner 1, groups 1. */
typedef struct geometry {
  int64_t outer, inner, c, groups;
} geometry;

static geometry geometry_of(dj__op op, const dj_shape *x, const dj__norm_attr *a) {
  int64_t c = x->dim[x->rank - 1], rows = 1;
  for (int i = 0; i < x->rank - 1; i++) rows *= x->dim[i];
  switch (op) {
  case DJ__OP_batch_norm:
  case DJ__OP_batch_norm_grad:
    return (geometry){1, rows, c, c};
  case DJ__OP_group_norm:
  case DJ__OP_group_norm_grad:
    return (geometry){x->dim[0], x->dim[0] ? rows / x->dim[0] : 0, c, a->groups};
  default:
    return (geometry){rows, 1, c, 1};
  }
}

/* ---- shapes ---- */

static dj_status check_eps(const dj__infer *s) {
  const dj__norm_attr *a = s->attr;
  if (!(a->eps > 0) || !isfinite(a->eps))
    return dj__bad(s, "eps is %g, must be positive and finite", (double)a->eps);
  return DJ_OK;
}

static dj_shape channels_of(const dj__infer *s) {
  const dj_shape *x = &s->in[0].shape;
  return DJ_SHAPE(x->dim[x->rank - 1]);
}

static dj_shape rows_of(const dj__infer *s) {
  dj_shape rows = s->in[0].shape;
  rows.dim[--rows.rank] = 0;
  return rows;
}

static dj_status want_x(const dj__infer *s, int min_rank) {
  DJ_TRY(dj__want_float(s, 0, -1));
  if (s->in[0].shape.rank < min_rank)
    return dj__bad(s, "the input must have at least rank %d, it has rank %d", min_rank,
                   s->in[0].shape.rank);
  return check_eps(s);
}

/* y like x, then mean and inv_std of the given shape. Inputs: x, scale, shift. */
static dj_status forward_infer(dj__infer *s, dj_shape stats) {
  dj_shape c = channels_of(s);
  DJ_TRY(dj__want_f32(s, 1, &c));
  DJ_TRY(dj__want_f32(s, 2, &c));
  s->out[0].shape = s->in[0].shape;
  dj__set_out(s, 1, DJ_F32, stats);
  dj__set_out(s, 2, DJ_F32, stats);
  return DJ_OK;
}

/* Inputs: x, scale, mean, inv_std, dy. */
static dj_status backward_infer(dj__infer *s, dj_shape stats) {
  dj_shape c = channels_of(s);
  DJ_TRY(dj__want_f32(s, 1, &c));
  DJ_TRY(dj__want_f32(s, 2, &stats));
  DJ_TRY(dj__want_f32(s, 3, &stats));
  DJ_TRY(dj__want_shape(s, 4, &s->in[0].shape));
  s->out[0].shape = s->in[0].shape;
  dj__set_out(s, 1, DJ_F32, c);
  dj__set_out(s, 2, DJ_F32, c);
  return DJ_OK;
}

static dj_status batch_norm_infer(dj__infer *s) {
  DJ_TRY(want_x(s, 2));
  if (s->n_in > 3) DJ_TRY(dj__want_shape(s, 3, &s->in[0].shape));
  return forward_infer(s, channels_of(s));
}
static dj_status batch_norm_grad_infer(dj__infer *s) {
  const dj__norm_attr *a = s->attr;
  dj_shape c = {0};
  DJ_TRY(want_x(s, 2));
  c = channels_of(s);
  if ((s->n_in > 5) != (a->relu != 0))
    return dj__bad(s, "shift and relu belong together; %d inputs, relu %d", s->n_in, a->relu);
  if (s->n_in > 5) DJ_TRY(dj__want_f32(s, 5, &c));
  return backward_infer(s, c);
}
static dj_status layer_norm_infer(dj__infer *s) {
  DJ_TRY(want_x(s, 1));
  return forward_infer(s, rows_of(s));
}
static dj_status layer_norm_grad_infer(dj__infer *s) {
  DJ_TRY(want_x(s, 1));
  return backward_infer(s, rows_of(s));
}

static dj_status group_stats(const dj__infer *s, dj_shape *stats) {
  const dj__norm_attr *a = s->attr;
  const dj_shape *x = &s->in[0].shape;
  DJ_TRY(want_x(s, 2));
  if (a->groups < 1 || x->dim[x->rank - 1] % a->groups)
    return dj__bad(s, "%lld channels cannot be divided into %d groups",
                   (long long)x->dim[x->rank - 1], a->groups);
  *stats = DJ_SHAPE(x->dim[0], a->groups);
  return DJ_OK;
}
static dj_status group_norm_infer(dj__infer *s) {
  dj_shape stats = {0};
  DJ_TRY(group_stats(s, &stats));
  return forward_infer(s, stats);
}
static dj_status group_norm_grad_infer(dj__infer *s) {
  dj_shape stats = {0};
  DJ_TRY(group_stats(s, &stats));
  return backward_infer(s, stats);
}

static dj_status rms_norm_infer(dj__infer *s) {
  DJ_TRY(want_x(s, 1));
  dj_shape c = channels_of(s);
  DJ_TRY(dj__want_f32(s, 1, &c));
  s->out[0].shape = s->in[0].shape;
  dj__set_out(s, 1, DJ_F32, rows_of(s));
  return DJ_OK;
}
static dj_status rms_norm_grad_infer(dj__infer *s) {
  DJ_TRY(want_x(s, 1));
  dj_shape c = channels_of(s), rows = rows_of(s);
  DJ_TRY(dj__want_f32(s, 1, &c));
  DJ_TRY(dj__want_f32(s, 2, &rows));
  DJ_TRY(dj__want_shape(s, 3, &s->in[0].shape));
  s->out[0].shape = s->in[0].shape;
  dj__set_out(s, 1, DJ_F32, c);
  return DJ_OK;
}

/* ---- gradients ---- */

/* Of batch, layer and group norm: the gradient op gives dx, dscale, dshift. */
static void norm_backward(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (dout[0] == DJ_NONE) return; /* statistics alone pass nothing on */
  dj__op op = n->op == DJ__OP_batch_norm   ? DJ__OP_batch_norm_grad
              : n->op == DJ__OP_layer_norm ? DJ__OP_layer_norm_grad
                                           : DJ__OP_group_norm_grad;
  dj__norm_attr a = *(const dj__norm_attr *)n->attr;
  dj_val in[] = {n->in[0], n->in[1], n->out[1], n->out[2], dout[0], n->in[2]};
  if (n->n_in > 3) { // both summands have the gradient behind the activation
    if (a.relu)
      in[4] = dj__emit(g, DJ__OP_relu_grad, (dj_val[]){n->out[0], in[4]}, 2,
                       &(dj__ewise_attr){0, 0}, sizeof(dj__ewise_attr));
    din[3] = in[4];
    a.relu = 0;
  }
  dj_val dx = dj__emit(g, op, in, a.relu ? 6 : 5, &a, sizeof a);
  if (dx == DJ_NONE) return;
  din[0] = dx;
  din[1] = dj__sibling(g, dx, 1);
  din[2] = dj__sibling(g, dx, 2);
}

static void rms_norm_backward(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (dout[0] == DJ_NONE) return;
  dj_val in[] = {n->in[0], n->in[1], n->out[1], dout[0]};
  dj_val dx = dj__emit(g, DJ__OP_rms_norm_grad, in, 4, n->attr, n->attr_size);
  if (dx == DJ_NONE) return;
  din[0] = dx;
  din[1] = dj__sibling(g, dx, 1);
}

/* ---- cost ---- */

/* Sums, squares and the affine map forward; two sums and the combination backward. */
static void norm_cost(const dj__call *c, dj__cost *cost) {
  bool backward = c->op == DJ__OP_batch_norm_grad || c->op == DJ__OP_layer_norm_grad ||
                  c->op == DJ__OP_rms_norm_grad || c->op == DJ__OP_group_norm_grad;
  dj__cost_touch(c, cost);
  cost->flops = (backward ? 13.0 : 8.0) * (double)dj_shape_count(&c->in[0].shape);
}

/* ---- reference kernels ---- */

typedef struct moments {
  double mean, var;
} moments;

/* Mean and biased variance of group j of outer index o. */
static moments moments_of(const geometry *m, const float *x, int64_t o, int64_t j) {
  int64_t gc = m->c / m->groups, n = m->inner * gc;
  const float *base = x + o * m->inner * m->c + j * gc;
  double sum = 0, sq = 0;
  for (int64_t i = 0; i < m->inner; i++)
    for (int64_t c = 0; c < gc; c++) sum += (double)base[i * m->c + c];
  double mean = sum / (double)n;
  for (int64_t i = 0; i < m->inner; i++)
    for (int64_t c = 0; c < gc; c++) {
      double d = (double)base[i * m->c + c] - mean;
      sq += d * d;
    }
  return (moments){mean, sq / (double)n};
}

static dj_status norm_ref(const dj__call *call) {
  const dj__norm_attr *a = call->attr;
  geometry m = geometry_of(call->op, &call->in[0].shape, a);
  int64_t gc = m.c / m.groups;
  const float *x = call->in[0].data;                            // (outer, inner, C) f32
  const float *scale = call->in[1].data;                        // (C) f32
  const float *shift = call->in[2].data;                        // (C) f32
  const float *more = call->n_in > 3 ? call->in[3].data : NULL; // (outer, inner, C) f32
  float *y = call->out[0].data;                                 // (outer, inner, C) f32
  float *mean = call->out[1].data;                              // (outer, groups) f32
  float *inv_std = call->out[2].data;                           // (outer, groups) f32
  for (int64_t o = 0; o < m.outer; o++)
    for (int64_t j = 0; j < m.groups; j++) {
      moments v = moments_of(&m, x, o, j);
      double inv = 1 / sqrt(v.var + (double)a->eps);
      mean[o * m.groups + j] = (float)v.mean;
      inv_std[o * m.groups + j] = (float)inv;
      for (int64_t i = 0; i < m.inner; i++)
        for (int64_t c = j * gc; c < (j + 1) * gc; c++) {
          int64_t at = (o * m.inner + i) * m.c + c;
          double to = ((double)x[at] - v.mean) * inv * (double)scale[c] + (double)shift[c];
          if (more) to += (double)more[at];
          y[at] = (float)(a->relu && to <= 0 ? 0 : to);
        }
    }
  return DJ_OK;
}

static dj_status rms_norm_ref(const dj__call *call) {
  const dj__norm_attr *a = call->attr;
  geometry m = geometry_of(call->op, &call->in[0].shape, a);
  const float *x = call->in[0].data;     // (rows, C) f32
  const float *scale = call->in[1].data; // (C) f32
  float *y = call->out[0].data;          // (rows, C) f32
  float *inv_rms = call->out[1].data;    // (rows) f32
  for (int64_t o = 0; o < m.outer; o++, x += m.c, y += m.c) {
    double sq = 0;
    for (int64_t c = 0; c < m.c; c++) sq += (double)x[c] * (double)x[c];
    double inv = 1 / sqrt(sq / (double)m.c + (double)a->eps);
    inv_rms[o] = (float)inv;
    for (int64_t c = 0; c < m.c; c++) y[c] = (float)((double)x[c] * inv * (double)scale[c]);
  }
  return DJ_OK;
}

/*
 * With xh = (x - mean) * inv and t = dy * scale, over a group of n elements:
 *   dx = inv * (t - mean(t) - xh * mean(t * xh));  dscale = sum(dy * xh), dshift = sum(dy).
 * rms_norm: the same without a mean, so that mean(t) drops out.
 */
typedef struct grad_in {
  const float *x, *scale, *mean, *inv, *dy; // mean: NULL for 0
  const float *shift;                       // NULL: no activation
} grad_in;

/* dy of one element of channel c, behind the activation. */
static double behind(const grad_in *in, int64_t at, double mean, double inv, int64_t c) {
  if (in->shift &&
      !(((double)in->x[at] - mean) * inv * (double)in->scale[c] + (double)in->shift[c] > 0))
    return 0;
  return (double)in->dy[at];
}

static void dx_of_group(const geometry *m, const grad_in *in, float *dx, int64_t o, int64_t j) {
  int64_t gc = m->c / m->groups, n = m->inner * gc;
  double mean = in->mean ? (double)in->mean[o * m->groups + j] : 0;
  double inv = (double)in->inv[o * m->groups + j], st = 0, sth = 0;
  for (int64_t i = 0; i < m->inner; i++)
    for (int64_t c = j * gc; c < (j + 1) * gc; c++) {
      int64_t at = (o * m->inner + i) * m->c + c;
      double t = behind(in, at, mean, inv, c) * (double)in->scale[c];
      st += t;
      sth += t * ((double)in->x[at] - mean) * inv;
    }
  st = in->mean ? st / (double)n : 0;
  sth /= (double)n;
  for (int64_t i = 0; i < m->inner; i++)
    for (int64_t c = j * gc; c < (j + 1) * gc; c++) {
      int64_t at = (o * m->inner + i) * m->c + c;
      double xh = ((double)in->x[at] - mean) * inv, t = behind(in, at, mean, inv, c);
      dx[at] = (float)(inv * (t * (double)in->scale[c] - st - xh * sth));
    }
}

/* dscale and dshift (NULL if there is none) of one channel. */
static void dparam_of_channel(const geometry *m, const grad_in *in, int64_t c, float *dscale,
                              float *dshift) {
  double ds = 0, db = 0;
  for (int64_t o = 0; o < m->outer; o++) {
    int64_t stat = o * m->groups + c / (m->c / m->groups);
    double mu = in->mean ? (double)in->mean[stat] : 0, inv = (double)in->inv[stat];
    for (int64_t i = 0; i < m->inner; i++) {
      int64_t at = (o * m->inner + i) * m->c + c;
      double dy = behind(in, at, mu, inv, c);
      ds += dy * ((double)in->x[at] - mu) * inv;
      db += dy;
    }
  }
  dscale[c] = (float)ds;
  if (dshift) dshift[c] = (float)db;
}

static dj_status norm_grad_ref(const dj__call *call) {
  bool rms = call->op == DJ__OP_rms_norm_grad;
  geometry m = geometry_of(call->op, &call->in[0].shape, call->attr);
  grad_in in = {.x = call->in[0].data,                              // (outer, inner, C) f32
                .scale = call->in[1].data,                          // (C) f32
                .mean = rms ? NULL : call->in[2].data,              // (outer, groups) f32
                .inv = call->in[rms ? 2 : 3].data,                  // (outer, groups) f32
                .dy = call->in[rms ? 3 : 4].data,                   // (outer, inner, C) f32
                .shift = call->n_in > 5 ? call->in[5].data : NULL}; // (C) f32
  float *dscale = call->out[1].data;                                // (C) f32
  float *dshift = rms ? NULL : call->out[2].data;                   // (C) f32
  for (int64_t o = 0; o < m.outer; o++)
    for (int64_t j = 0; j < m.groups; j++) dx_of_group(&m, &in, call->out[0].data, o, j);
  for (int64_t c = 0; c < m.c; c++) dparam_of_channel(&m, &in, c, dscale, dshift);
  return DJ_OK;
}

/* ---- samples ---- */

static const dj__norm_attr eps5 = {.eps = 1e-5f}, eps3 = {.eps = 1e-3f};
static const dj__norm_attr eps5_relu = {.eps = 1e-5f, .relu = 1};
static const dj__norm_attr groups1 = {.eps = 1e-5f, .groups = 1};
static const dj__norm_attr groups2 = {.eps = 1e-5f, .groups = 2};
static const dj__norm_attr groups5 = {.eps = 1e-3f, .groups = 5};
static const dj__norm_attr groups8 = {.eps = 1e-5f, .groups = 8};

/* dims of x, of the statistics, C. Gradient ops get statistics in a plausible range: they need not
 * belong to x for the kernels to agree. */
#define ARGS(...) __VA_ARGS__
#define NORM(nm, x, st, C, at, b)                                                                  \
  {.label = nm, .n_in = 3, .in = {DJ__F32(x), DJ__F32(C), DJ__F32(C)}, DJ__ATTR(at), .bench = b},
#define NORM_GRAD(nm, x, st, C, at, b)                                                             \
  {.label = nm,                                                                                    \
   .n_in = 5,                                                                                      \
   .in = {DJ__F32(x), DJ__F32(C), DJ__F32(st), DJ__F32(st), DJ__F32(x)},                           \
   .range = {[3] = {.lo = 0.5f, .hi = 2.0f}},                                                      \
   DJ__ATTR(at),                                                                                   \
   .bench = b},
#define RMS(nm, x, st, C, at, b)                                                                   \
  {.label = nm, .n_in = 2, .in = {DJ__F32(x), DJ__F32(C)}, DJ__ATTR(at), .bench = b},
#define RMS_GRAD(nm, x, st, C, at, b)                                                              \
  {.label = nm,                                                                                    \
   .n_in = 4,                                                                                      \
   .in = {DJ__F32(x), DJ__F32(C), DJ__F32(st), DJ__F32(x)},                                        \
   .range = {[2] = {.lo = 0.5f, .hi = 2.0f}},                                                      \
   DJ__ATTR(at),                                                                                   \
   .bench = b},

#define BATCH_SAMPLES(X)                                                                           \
  X("image", ARGS(2, 3, 5, 16), 16, 16, eps5, false)                                               \
  X("odd", ARGS(3, 5, 7, 13), 13, 13, eps3, false)                                                 \
  X("rank2", ARGS(9, 33), 33, 33, eps5, false)                                                     \
  X("one_channel", ARGS(4, 5, 1), 1, 1, eps5, false)                                               \
  X("threads", ARGS(3, 20, 50, 37), 37, 37, eps5, false)                                           \
  X("wide", ARGS(70, 1030), 1030, 1030, eps5, false)                                               \
  X("bench_32x64x128x32", ARGS(32, 64, 128, 32), 32, 32, eps5, true)                               \
  X("bench_32x32x64x64", ARGS(32, 32, 64, 64), 64, 64, eps5, true)                                 \
  X("bench_32x8x16x256", ARGS(32, 8, 16, 256), 256, 256, eps5, true)
#define ROW_SAMPLES(X)                                                                             \
  X("rank2", ARGS(5, 32), 5, 32, eps5, false)                                                      \
  X("rank3_odd", ARGS(2, 3, 17), ARGS(2, 3), 17, eps3, false)                                      \
  X("rank4", ARGS(2, 2, 3, 70), ARGS(2, 2, 3), 70, eps5, false)                                    \
  X("threads", ARGS(301, 130), 301, 130, eps5, false)                                              \
  X("bench_4096x512", ARGS(4096, 512), 4096, 512, eps5, true)
#define GROUP_SAMPLES(X)                                                                           \
  X("image", ARGS(2, 3, 5, 16), ARGS(2, 8), 16, groups8, false)                                    \
  X("odd", ARGS(3, 5, 3, 15), ARGS(3, 5), 15, groups5, false)                                      \
  X("one_group", ARGS(2, 7, 6), ARGS(2, 1), 6, groups1, false)                                     \
  X("rank2", ARGS(4, 10), ARGS(4, 2), 10, groups2, false)                                          \
  X("threads", ARGS(3, 25, 32, 40), ARGS(3, 8), 40, groups8, false)                                \
  X("bench_32x32x64x64", ARGS(32, 32, 64, 64), ARGS(32, 8), 64, groups8, true)

/* Fused forms. Forward the channels keep clear of the kink, on or off as a whole, for the gradient
 * check. */
#define FUSED(nm, n, x, C, at, b)                                                                  \
  {.label = nm,                                                                                    \
   .n_in = n,                                                                                      \
   .in = {DJ__F32(x), DJ__F32(C), DJ__F32(C), DJ__F32(x)},                                         \
   .range = {[2] = {.lo = -30, .hi = 30, .away = 9}},                                              \
   DJ__ATTR(at),                                                                                   \
   .bench = b},
#define RELU_GRAD(nm, x, C, b)                                                                     \
  {.label = nm,                                                                                    \
   .n_in = 6,                                                                                      \
   .in = {DJ__F32(x), DJ__F32(C), DJ__F32(C), DJ__F32(C), DJ__F32(x), DJ__F32(C)},                 \
   .range = {[3] = {.lo = 0.5f, .hi = 2.0f}},                                                      \
   DJ__ATTR(eps5_relu),                                                                            \
   .bench = b},
#define RELU_GRAD_SAMPLES(X)                                                                       \
  X("relu", ARGS(2, 3, 5, 16), 16, false)                                                          \
  X("relu_odd", ARGS(3, 5, 2, 13), 13, false)                                                      \
  X("relu_threads", ARGS(3, 20, 50, 37), 37, false)                                                \
  X("bench_relu_32x32x64x64", ARGS(32, 32, 64, 64), 64, true)

static const dj__sample batch_norm_samples[] = {
    BATCH_SAMPLES(NORM) FUSED("relu", 3, ARGS(2, 3, 5, 16), 16, eps5_relu, false)
        FUSED("residual", 4, ARGS(2, 3, 5, 16), 16, eps5, false)
            FUSED("residual_relu", 4, ARGS(2, 3, 5, 35), 35, eps5_relu, false)
                FUSED("residual_threads", 4, ARGS(3, 20, 50, 37), 37, eps5_relu, false)
                    FUSED("bench_relu_32x32x64x64", 3, ARGS(32, 32, 64, 64), 64, eps5_relu, true)};
static const dj__sample batch_norm_grad_samples[] = {BATCH_SAMPLES(NORM_GRAD)
                                                         RELU_GRAD_SAMPLES(RELU_GRAD)};
static const dj__sample layer_norm_samples[] = {ROW_SAMPLES(NORM)};
static const dj__sample layer_norm_grad_samples[] = {ROW_SAMPLES(NORM_GRAD)};
static const dj__sample rms_norm_samples[] = {ROW_SAMPLES(RMS)};
static const dj__sample rms_norm_grad_samples[] = {ROW_SAMPLES(RMS_GRAD)};
static const dj__sample group_norm_samples[] = {GROUP_SAMPLES(NORM)};
static const dj__sample group_norm_grad_samples[] = {GROUP_SAMPLES(NORM_GRAD)};

enum {
  FOLLOW_X = 1u,
  FOLLOW_X_MORE = 1u | 1u << 3,
  FOLLOW_X_DY = 1u | 1u << 4,
  FOLLOW_X_DY_RMS = 1u | 1u << 3
};

DJ__DEFINE_OP(batch_norm, 3, 4, 3, DJ__FOLLOW, FOLLOW_X_MORE, 0, batch_norm_infer, norm_backward,
              norm_cost, norm_ref, batch_norm_samples);
DJ__DEFINE_OP(batch_norm_grad, 5, 6, 3, DJ__FOLLOW, FOLLOW_X_DY, 0, batch_norm_grad_infer,
              DJ__NO_GRAD, norm_cost, norm_grad_ref, batch_norm_grad_samples);
DJ__DEFINE_OP(layer_norm, 3, 3, 3, DJ__FOLLOW, FOLLOW_X, 0, layer_norm_infer, norm_backward,
              norm_cost, norm_ref, layer_norm_samples);
DJ__DEFINE_OP(layer_norm_grad, 5, 5, 3, DJ__FOLLOW, FOLLOW_X_DY, 0, layer_norm_grad_infer,
              DJ__NO_GRAD, norm_cost, norm_grad_ref, layer_norm_grad_samples);
DJ__DEFINE_OP(rms_norm, 2, 2, 2, DJ__FOLLOW, FOLLOW_X, 0, rms_norm_infer, rms_norm_backward,
              norm_cost, rms_norm_ref, rms_norm_samples);
DJ__DEFINE_OP(rms_norm_grad, 4, 4, 2, DJ__FOLLOW, FOLLOW_X_DY_RMS, 0, rms_norm_grad_infer,
              DJ__NO_GRAD, norm_cost, norm_grad_ref, rms_norm_grad_samples);
DJ__DEFINE_OP(group_norm, 3, 3, 3, DJ__FOLLOW, FOLLOW_X, 0, group_norm_infer, norm_backward,
              norm_cost, norm_ref, group_norm_samples);
DJ__DEFINE_OP(group_norm_grad, 5, 5, 3, DJ__FOLLOW, FOLLOW_X_DY, 0, group_norm_grad_infer,
              DJ__NO_GRAD, norm_cost, norm_grad_ref, group_norm_grad_samples);

/* ---- public constructors ---- */

/* y = x * s + (shift - running_mean * s), s = scale / sqrt(running_var + eps): two small rows of
 * parameters and one fused pass over x. */
static dj_val batch_norm_fixed(dj_graph *g, dj_val x, dj_val scale, dj_val shift,
                               dj_val running_mean, dj_val running_var, float eps) {
  dj_val s = dj_div(g, scale, dj_sqrt(g, dj_affine(g, running_var, 1.0f, eps)));
  dj_val b = dj_sub(g, shift, dj_mul(g, running_mean, s));
  return dj_add(g, dj_mul(g, x, s), b);
}

dj_val dj_batch_norm(dj_graph *g, dj_val x, dj_val scale, dj_val shift, dj_val running_mean,
                     dj_val running_var, bool training, float momentum, float eps) {
  if (!training) return batch_norm_fixed(g, x, scale, shift, running_mean, running_var, eps);
  dj__norm_attr a = {.eps = eps};
  dj_val y = dj__emit(g, DJ__OP_batch_norm, (dj_val[]){x, scale, shift}, 3, &a, sizeof a);
  if (y == DJ_NONE || (running_mean == DJ_NONE && running_var == DJ_NONE)) return y;
  geometry m = {0};
  dj_shape s = dj_val_shape(g, x);
  m = geometry_of(DJ__OP_batch_norm, &s, &a);
  dj__running_attr r = {momentum, eps,
                        m.inner > 1 ? (float)((double)m.inner / (double)(m.inner - 1)) : 1.0f};
  dj_val in[] = {running_mean, running_var, dj__sibling(g, y, 1), dj__sibling(g, y, 2)};
  dj__emit(g, DJ__OP_running_update, in, 4, &r, sizeof r);
  return y;
}

dj_val dj_layer_norm(dj_graph *g, dj_val x, dj_val scale, dj_val shift, float eps) {
  dj__norm_attr a = {.eps = eps};
  return dj__emit(g, DJ__OP_layer_norm, (dj_val[]){x, scale, shift}, 3, &a, sizeof a);
}

dj_val dj_rms_norm(dj_graph *g, dj_val x, dj_val scale, float eps) {
  dj__norm_attr a = {.eps = eps};
  return dj__emit(g, DJ__OP_rms_norm, (dj_val[]){x, scale}, 2, &a, sizeof a);
}

dj_val dj_group_norm(dj_graph *g, dj_val x, dj_val scale, dj_val shift, int groups, float eps) {
  dj__norm_attr a = {.eps = eps, .groups = groups};
  return dj__emit(g, DJ__OP_group_norm, (dj_val[]){x, scale, shift}, 3, &a, sizeof a);
}
