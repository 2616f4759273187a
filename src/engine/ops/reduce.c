/*
 * Reductions over a set of axes (sum with a factor, maximum, index of the maximum) and their
 * counterpart, broadcast. Means are sums with the factor 1/count; minima are maxima of the negated.
 * Sums leave as f32 whatever comes in: they are gradients of biases, statistics and losses.
 */
#include "engine/ops/basic.h"

#include <math.h>

#include "dojo/ops.h"

/* ---- shapes ---- */

/* Shape of s without the axes in the mask, or with 1 in their place. */
static dj_shape reduced_shape(const dj_shape *s, uint32_t axes, bool keep) {
  dj_shape r = {0};
  for (int i = 0; i < s->rank; i++) {
    bool gone = axes >> i & 1u;
    if (!gone || keep) r.dim[r.rank++] = gone ? 1 : s->dim[i];
  }
  return r;
}

static dj_status check_axes(const dj__infer *s, uint32_t axes) {
  DJ_TRY(dj__want_float(s, 0, -1));
  if (axes >> s->in[0].shape.rank)
    return dj__bad(s, "axis mask 0x%x names an axis beyond rank %d", axes, s->in[0].shape.rank);
  return DJ_OK;
}

static dj_status infer_sum(dj__infer *s) {
  const dj__reduce_attr *attr = s->attr;
  DJ_TRY(check_axes(s, attr->axes));
  dj__set_out(s, 0, DJ_F32, reduced_shape(&s->in[0].shape, attr->axes, attr->keep));
  return DJ_OK;
}

static dj_status infer_reduce_max(dj__infer *s) {
  const dj__reduce_attr *attr = s->attr;
  DJ_TRY(check_axes(s, attr->axes));
  s->out[0].shape = reduced_shape(&s->in[0].shape, attr->axes, attr->keep);
  return DJ_OK;
}

static dj_status infer_reduce_max_grad(dj__infer *s) { // (x, dy) -> dx
  const dj__reduce_attr *attr = s->attr;
  DJ_TRY(check_axes(s, attr->axes));
  dj_shape y = reduced_shape(&s->in[0].shape, attr->axes, attr->keep);
  DJ_TRY(dj__want_shape(s, 1, &y));
  s->out[0].shape = s->in[0].shape;
  return DJ_OK;
}

static dj_status infer_argmax(dj__infer *s) {
  const dj__axis_attr *attr = s->attr;
  DJ_TRY(dj__want_float(s, 0, -1));
  if (attr->axis < 0 || attr->axis >= s->in[0].shape.rank)
    return dj__bad(s, "axis %d of a tensor of rank %d", attr->axis, s->in[0].shape.rank);
  dj__set_out(s, 0, DJ_I32, reduced_shape(&s->in[0].shape, 1u << attr->axis, false));
  return DJ_OK;
}

static dj_status infer_broadcast(dj__infer *s) {
  const dj__shape_attr *attr = s->attr;
  dj_shape both;
  char text[DJ_SHAPE_TEXT];
  DJ_TRY(dj__want_float(s, 0, -1));
  if (!dj__broadcast_shape(&s->in[0].shape, &attr->shape, &both) ||
      !dj_shape_equal(&both, &attr->shape))
    return dj__bad(s, "cannot be repeated to %s", dj_shape_text(&attr->shape, text, sizeof text));
  s->out[0].shape = attr->shape;
  return DJ_OK;
}

/* ---- costs ---- */

static void cost_reduce(const dj__call *c, dj__cost *cost) {
  dj__cost_touch(c, cost);
  cost->flops = (double)dj_shape_count(&c->in[0].shape);
}

static void cost_broadcast(const dj__call *c, dj__cost *cost) {
  dj__cost_touch(c, cost);
  cost->flops = 0;
}

/* ---- references ---- */

/* A tensor's elements as (kept, reduced): two walks and the strides of x along each. */
typedef struct dj__fold {
  dj_shape kept, reduced;
  int64_t kept_stride[DJ_MAX_RANK], reduced_stride[DJ_MAX_RANK];
} dj__fold;

static dj__fold fold_of(const dj_shape *x, uint32_t axes) {
  dj__fold f = {0};
  int64_t stride[DJ_MAX_RANK];
  dj__broadcast_strides(x, x, stride);
  for (int i = 0; i < x->rank; i++) {
    dj_shape *s = axes >> i & 1u ? &f.reduced : &f.kept;
    (s == &f.kept ? f.kept_stride : f.reduced_stride)[s->rank] = stride[i];
    s->dim[s->rank++] = x->dim[i];
  }
  return f;
}

static dj_status ref_sum(const dj__call *c) {
  const dj__reduce_attr *attr = c->attr;
  const float *x = c->in[0].data; // (...) f32
  float *y = c->out[0].data;      // x without axes, f32
  dj__fold f = fold_of(&c->in[0].shape, attr->axes);
  int64_t outer = dj_shape_count(&f.kept), inner = dj_shape_count(&f.reduced);
  dj__walk o = dj__walk_over(&f.kept);
  for (int64_t i = 0; i < outer; i++, dj__walk_next(&o)) {
    const float *at = x + dj__walk_offset(&o, f.kept_stride);
    double sum = 0;
    dj__walk r = dj__walk_over(&f.reduced);
    for (int64_t j = 0; j < inner; j++, dj__walk_next(&r))
      sum += at[dj__walk_offset(&r, f.reduced_stride)];
    y[i] = (float)(sum * attr->scale);
  }
  return DJ_OK;
}

/* Offset, relative to `at`, of the first maximum; a NaN counts as larger than any number. */
static int64_t first_maximum(const float *at, const dj__fold *f) {
  int64_t best = 0, inner = dj_shape_count(&f->reduced);
  dj__walk r = dj__walk_over(&f->reduced);
  for (int64_t j = 0; j < inner; j++, dj__walk_next(&r)) {
    int64_t k = dj__walk_offset(&r, f->reduced_stride);
    if (at[k] > at[best] || (isnan(at[k]) && !isnan(at[best]))) best = k;
  }
  return best;
}

static dj_status ref_reduce_max(const dj__call *c) {
  const float *x = c->in[0].data; // (...) f32
  float *y = c->out[0].data;      // x without axes, f32
  dj__fold f = fold_of(&c->in[0].shape, ((const dj__reduce_attr *)c->attr)->axes);
  dj__walk o = dj__walk_over(&f.kept);
  for (int64_t i = 0, n = dj_shape_count(&f.kept); i < n; i++, dj__walk_next(&o)) {
    const float *at = x + dj__walk_offset(&o, f.kept_stride);
    y[i] = at[first_maximum(at, &f)];
  }
  return DJ_OK;
}

static dj_status ref_reduce_max_grad(const dj__call *c) {
  const float *x = c->in[0].data;  // (...) f32
  const float *dy = c->in[1].data; // x without axes, f32
  float *dx = c->out[0].data;      // (...) f32
  dj__fold f = fold_of(&c->in[0].shape, ((const dj__reduce_attr *)c->attr)->axes);
  memset(dx, 0, dj_tensor_bytes(&c->out[0]));
  dj__walk o = dj__walk_over(&f.kept);
  for (int64_t i = 0, n = dj_shape_count(&f.kept); i < n; i++, dj__walk_next(&o)) {
    int64_t at = dj__walk_offset(&o, f.kept_stride);
    dx[at + first_maximum(x + at, &f)] = dy[i];
  }
  return DJ_OK;
}

static dj_status ref_argmax(const dj__call *c) {
  int axis = ((const dj__axis_attr *)c->attr)->axis;
  const dj_shape *s = &c->in[0].shape;
  const float *x = c->in[0].data; // (...) f32
  int32_t *y = c->out[0].data;    // x without the axis, i32
  dj__fold f = fold_of(s, 1u << axis);
  int64_t step = dj__dims_product(s, axis + 1, s->rank); // between neighbours along the axis
  dj__walk o = dj__walk_over(&f.kept);
  for (int64_t i = 0, n = dj_shape_count(&f.kept); i < n; i++, dj__walk_next(&o))
    y[i] = (int32_t)(first_maximum(x + dj__walk_offset(&o, f.kept_stride), &f) / step);
  return DJ_OK;
}

static dj_status ref_broadcast(const dj__call *c) {
  const float *x = c->in[0].data; // (...) f32
  float *y = c->out[0].data;      // attr shape, f32
  int64_t stride[DJ_MAX_RANK];
  dj__broadcast_strides(&c->in[0].shape, &c->out[0].shape, stride);
  dj__walk w = dj__walk_over(&c->out[0].shape);
  for (int64_t i = 0, n = dj_shape_count(&c->out[0].shape); i < n; i++, dj__walk_next(&w))
    y[i] = x[dj__walk_offset(&w, stride)];
  return DJ_OK;
}

/* ---- making nodes ---- */

static dj_val emit_reduce(dj_graph *g, dj__op op, dj_val x, uint32_t axes, bool keep, float scale) {
  dj_shape s = dj_val_shape(g, x);
  dj__reduce_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.axes = axes == DJ_ALL_AXES ? (1u << s.rank) - 1 : axes;
  attr.keep = keep;
  attr.scale = scale;
  return dj__emit(g, op, &x, 1, &attr, sizeof attr);
}

/* How many elements go into one. */
static int64_t reduced_count(dj_graph *g, dj_val x, uint32_t axes) {
  dj_shape s = dj_val_shape(g, x);
  int64_t n = 1;
  for (int i = 0; i < s.rank; i++)
    if (axes >> i & 1u) n *= s.dim[i];
  return n;
}

dj_val dj_sum(dj_graph *g, dj_val x, uint32_t axes) {
  return emit_reduce(g, DJ__OP_sum, x, axes, false, 1);
}
dj_val dj_sum_keep(dj_graph *g, dj_val x, uint32_t axes) {
  return emit_reduce(g, DJ__OP_sum, x, axes, true, 1);
}
dj_val dj_mean(dj_graph *g, dj_val x, uint32_t axes) {
  return emit_reduce(g, DJ__OP_sum, x, axes, false, (float)(1.0 / reduced_count(g, x, axes)));
}
dj_val dj_mean_keep(dj_graph *g, dj_val x, uint32_t axes) {
  return emit_reduce(g, DJ__OP_sum, x, axes, true, (float)(1.0 / reduced_count(g, x, axes)));
}
dj_val dj_reduce_max(dj_graph *g, dj_val x, uint32_t axes) {
  return emit_reduce(g, DJ__OP_reduce_max, x, axes, false, 1);
}
dj_val dj_reduce_min(dj_graph *g, dj_val x, uint32_t axes) {
  return dj_neg(g, dj_reduce_max(g, dj_neg(g, x), axes));
}
dj_val dj_argmax(dj_graph *g, dj_val x, int axis) {
  dj__axis_attr attr = {axis};
  return dj__emit(g, DJ__OP_argmax, &x, 1, &attr, sizeof attr);
}
dj_val dj_argmin(dj_graph *g, dj_val x, int axis) {
  return dj_argmax(g, dj_neg(g, x), axis);
}

dj_val dj_broadcast(dj_graph *g, dj_val x, dj_shape s) {
  dj__shape_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.shape.rank = s.rank;
  for (int i = 0; i < s.rank && i < DJ_MAX_RANK; i++) attr.shape.dim[i] = s.dim[i];
  return dj__emit(g, DJ__OP_broadcast, &x, 1, &attr, sizeof attr);
}

dj_val dj__sum_to(dj_graph *g, dj_val v, dj_val like) {
  if (v == DJ_NONE || like == DJ_NONE) return DJ_NONE;
  dj_shape s = dj_val_shape(g, v), to = dj_val_shape(g, like);
  if (dj_shape_equal(&s, &to)) return v;
  uint32_t axes = 0;
  for (int i = 0; i < s.rank; i++) {
    int j = i - (s.rank - to.rank);
    if (j < 0 || (to.dim[j] == 1 && s.dim[i] != 1)) axes |= 1u << i;
  }
  dj_val sum = dj_sum(g, v, axes);
  s = dj_val_shape(g, sum);
  return dj_shape_equal(&s, &to) ? sum : dj_reshape(g, sum, to);
}

/* ---- gradients ---- */

static void grad_sum(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (!dj__needs_grad(g, n->in[0])) return;
  const dj__reduce_attr *attr = n->attr;
  dj_shape x = dj_val_shape(g, n->in[0]);
  dj_val d = attr->scale == 1 ? dout[0] : dj_affine(g, dout[0], attr->scale, 0);
  if (!attr->keep) d = dj_reshape(g, d, reduced_shape(&x, attr->axes, true));
  din[0] = dj_broadcast(g, d, x);
}

static void grad_reduce_max(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (!dj__needs_grad(g, n->in[0])) return;
  dj_val in[] = {n->in[0], dout[0]};
  din[0] = dj__emit(g, DJ__OP_reduce_max_grad, in, 2, n->attr, n->attr_size);
}

static void grad_broadcast(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (dj__needs_grad(g, n->in[0])) din[0] = dj__sum_to(g, dout[0], n->in[0]);
}

/* ---- samples and table ---- */

#define REDUCE(mask, keep, scale) DJ__ATTR_OF(dj__reduce_attr, mask, keep, scale)
static const dj__sample samples_sum[] = {
    {"scalar", 1, {DJ__F32()}, REDUCE(0, false, 1)},
    {"nothing reduced", 1, {DJ__F32(3, 5)}, REDUCE(0, false, 2.5f)},
    {"all", 1, {DJ__F32(3, 5, 7)}, REDUCE(7, false, 1)},
    {"prime", 1, {DJ__F32(4099)}, REDUCE(1, false, 1.0f / 4099)},
    {"rows", 1, {DJ__F32(13, 37)}, REDUCE(2, false, 1)},
    {"columns", 1, {DJ__F32(37, 13)}, REDUCE(1, true, 1)},
    {"channels", 1, {DJ__F32(2, 5, 7, 19)}, REDUCE(7, false, 1)},
    {"middle", 1, {DJ__F32(3, 5, 7)}, REDUCE(2, true, 0.2f)},
    {"outer and inner", 1, {DJ__F32(3, 5, 7, 4)}, REDUCE(9, false, 1)},
    {"alternating, rank 5", 1, {DJ__F32(2, 3, 1, 5, 4)}, REDUCE(10, false, 1)},
    {"every pixel", 1, {DJ__F32(3, 11, 1, 17)}, REDUCE(6, false, 1.0f / 11)},
    {"threads, all", 1, {DJ__F32(7, 71, 83)}, REDUCE(7, false, 0.5f)},
    {"threads, channels", 1, {DJ__F32(3, 41, 37, 11)}, REDUCE(7, false, 1)},
    {"threads, 32 channels", 1, {DJ__F32(3, 40, 41, 32)}, REDUCE(7, false, 1)},
    {"threads, pixels", 1, {DJ__F32(3, 40, 41, 32)}, REDUCE(6, true, 1.0f / 1640)},
    {"threads, rows", 1, {DJ__F32(701, 67)}, REDUCE(2, false, 1)},
    {"threads, long rows", 1, {DJ__F32(5, 9001)}, REDUCE(2, false, 1)},
    {"threads, wide", 1, {DJ__F32(31, 1500)}, REDUCE(1, false, 1)},
    {"threads, outer and middle", 1, {DJ__F32(5, 9, 31, 41)}, REDUCE(5, false, 1)},
    {"threads, outer and inner", 1, {DJ__F32(5, 9, 31, 41)}, REDUCE(9, false, 1)},
    {"pairs", 1, {DJ__F32(37, 2)}, REDUCE(2, false, 1)},
    {"threads, colours", 1, {DJ__F32(3, 53, 47, 3)}, REDUCE(8, true, 1.0f / 3)},
    {"fours", 1, {DJ__F32(5, 19, 4)}, REDUCE(4, false, 0.25f)},
    {"colours", 1, {DJ__F32(40, 52, 160, 3)}, REDUCE(8, false, 1.0f / 3), .bench = true},
    {"bias gradient", 1, {DJ__F32(32, 60, 80, 32)}, REDUCE(7, false, 1), .bench = true},
    {"mean loss", 1, {DJ__F32(4096, 256)}, REDUCE(3, false, 1e-6f), .bench = true},
};
/* The two largest of many numbers in -1..1 are too close for finite differences. */
#define FAR_APART .range = {{-1000, 1000, 0}}
static const dj__sample samples_reduce_max[] = {
    {"scalar", 1, {DJ__F32()}, REDUCE(0, false, 1)},
    {"all", 1, {DJ__F32(3, 5, 7)}, REDUCE(7, false, 1)},
    {"rows", 1, {DJ__F32(13, 37)}, REDUCE(2, false, 1)},
    {"columns", 1, {DJ__F32(37, 13)}, REDUCE(1, true, 1)},
    {"alternating, rank 5", 1, {DJ__F32(2, 3, 1, 5, 4)}, REDUCE(10, false, 1)},
    {"threads, rows", 1, {DJ__F32(701, 67)}, FAR_APART, REDUCE(2, false, 1)},
    {"threads, columns", 1, {DJ__F32(31, 1500)}, FAR_APART, REDUCE(1, false, 1)},
    {"threads, pixels", 1, {DJ__F32(3, 40, 41, 11)}, FAR_APART, REDUCE(6, false, 1)},
    {"rows of scores", 1, {DJ__F32(4096, 1000)}, REDUCE(2, false, 1), .bench = true},
};
static const dj__sample samples_reduce_max_grad[] = {
    {"scalar", 2, {DJ__F32(), DJ__F32()}, REDUCE(0, false, 1)},
    {"all", 2, {DJ__F32(3, 5, 7), DJ__F32()}, REDUCE(7, false, 1)},
    {"rows", 2, {DJ__F32(13, 37), DJ__F32(13)}, REDUCE(2, false, 1)},
    {"columns", 2, {DJ__F32(37, 13), DJ__F32(1, 13)}, REDUCE(1, true, 1)},
    {"alternating, rank 5", 2, {DJ__F32(2, 3, 1, 5, 4), DJ__F32(2, 1, 4)}, REDUCE(10, false, 1)},
    {"threads, rows", 2, {DJ__F32(701, 67), DJ__F32(701)}, REDUCE(2, false, 1)},
    {"threads, columns", 2, {DJ__F32(31, 1500), DJ__F32(1500)}, REDUCE(1, false, 1)},
    {"threads, outer, inner", 2, {DJ__F32(5, 90, 91), DJ__F32(90)}, REDUCE(5, false, 1)},
};
static const dj__sample samples_argmax[] = {
    {"vector", 1, {DJ__F32(17)}, DJ__ATTR_OF(dj__axis_attr, 0)},
    {"last of three", 1, {DJ__F32(3, 5, 7)}, DJ__ATTR_OF(dj__axis_attr, 2)},
    {"middle of three", 1, {DJ__F32(3, 5, 7)}, DJ__ATTR_OF(dj__axis_attr, 1)},
    {"first, rank 5", 1, {DJ__F32(3, 2, 1, 4, 2)}, DJ__ATTR_OF(dj__axis_attr, 0)},
    {"one to choose from", 1, {DJ__F32(4, 1)}, DJ__ATTR_OF(dj__axis_attr, 1)},
    {"threads, rows", 1, {DJ__F32(701, 67)}, DJ__ATTR_OF(dj__axis_attr, 1)},
    {"threads, columns", 1, {DJ__F32(3, 31, 500)}, DJ__ATTR_OF(dj__axis_attr, 1)},
    {"rows of scores", 1, {DJ__F32(4096, 1000)}, DJ__ATTR_OF(dj__axis_attr, 1), .bench = true},
};
#define TO(...)                                                                                    \
  .attr = &(const dj__shape_attr){DJ__DIMS(__VA_ARGS__)}, .attr_size = sizeof(dj__shape_attr)
static const dj__sample samples_broadcast[] = {
    {"scalar to scalar", 1, {DJ__F32()}, TO()},
    {"scalar to matrix", 1, {DJ__F32()}, TO(5, 7)},
    {"row", 1, {DJ__F32(19)}, TO(3, 1, 19)},
    {"column", 1, {DJ__F32(5, 1)}, TO(5, 13)},
    {"middle", 1, {DJ__F32(2, 1, 3)}, TO(2, 5, 3)},
    {"outer and inner, rank 5", 1, {DJ__F32(1, 3, 1, 2, 1)}, TO(2, 3, 1, 2, 4)},
    {"same", 1, {DJ__F32(3, 5)}, TO(3, 5)},
    {"threads, pixels", 1, {DJ__F32(3, 1, 1, 37)}, TO(3, 20, 21, 37)},
    {"threads, column", 1, {DJ__F32(41, 1)}, TO(41, 1003)},
    {"gradient of a global mean", 1, {DJ__F32(32, 1, 1, 128)}, TO(32, 30, 40, 128), .bench = true},
};

DJ__DEFINE_OP(sum, 1, 1, 1, DJ__FOLLOW, 1, 0, infer_sum, grad_sum, cost_reduce, ref_sum,
              samples_sum);
DJ__DEFINE_OP(reduce_max, 1, 1, 1, DJ__FOLLOW, 1, 0, infer_reduce_max, grad_reduce_max, cost_reduce,
              ref_reduce_max, samples_reduce_max);
DJ__DEFINE_OP(reduce_max_grad, 2, 2, 1, DJ__FOLLOW, 3, 0, infer_reduce_max_grad, DJ__NO_GRAD,
              cost_reduce, ref_reduce_max_grad, samples_reduce_max_grad);
DJ__DEFINE_OP(argmax, 1, 1, 1, DJ__FOLLOW, 1, 0, infer_argmax, DJ__NO_GRAD, cost_reduce, ref_argmax,
              samples_argmax);
DJ__DEFINE_OP(broadcast, 1, 1, 1, DJ__FOLLOW, 1, 0, infer_broadcast, grad_broadcast, cost_broadcast,
              ref_broadcast, samples_broadcast);
