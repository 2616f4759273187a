/*
 * Softmax and its logarithm over the last axis, and cross-entropy with integer labels. All f32
 * under any precision: exponentials and losses do not bear 8 bits of mantissa.
 */
#include "engine/ops/basic.h"

#include <math.h>

#include "dojo/ops.h"

/* ---- shapes ---- */

static dj_status infer_softmax(dj__infer *s) {
  DJ_TRY(dj__want_float(s, 0, -1));
  if (s->in[0].shape.rank < 1) return dj__bad(s, "needs an axis to run along, got a scalar");
  s->out[0].shape = s->in[0].shape;
  return DJ_OK;
}

static dj_status infer_softmax_grad(dj__infer *s) { // (y, dy) -> dx
  DJ_TRY(infer_softmax(s));
  return dj__want_shape(s, 1, &s->in[0].shape);
}

static dj_status infer_cross_entropy(dj__infer *s) { // (logits (N, C), labels (N) [, dy (N)])
  DJ_TRY(dj__want_float(s, 0, 2));
  dj_shape rows = {.rank = 1, .dim = {s->in[0].shape.dim[0]}};
  if (s->in[1].dtype != DJ_I32 || !dj_shape_equal(&s->in[1].shape, &rows))
    return dj__bad(s, "labels must be i32 of shape (%lld), one a row of the logits",
                   (long long)rows.dim[0]);
  if (s->n_in == 3) DJ_TRY(dj__want_shape(s, 2, &rows));
  s->out[0].shape = s->n_in == 3 ? s->in[0].shape : rows;
  return DJ_OK;
}

static void cost_softmax(const dj__call *c, dj__cost *cost) {
  dj__cost_touch(c, cost);
  cost->flops = 14.0 * (double)dj_shape_count(&c->in[0].shape); // maximum, exp, sum, scale
}

/* ---- references: rows of `width` elements ---- */

typedef struct dj__rows {
  int64_t count, width;
} dj__rows;

static dj__rows rows_of(const dj_tensor *x) {
  const dj_shape *s = &x->shape;
  return (dj__rows){dj__dims_product(s, 0, s->rank - 1), s->dim[s->rank - 1]};
}

/* log(sum(exp(x))) of a row, without overflow. */
static double log_sum_exp(const float *x, int64_t n) {
  double max = x[0], sum = 0;
  for (int64_t i = 1; i < n; i++)
    if (x[i] > max) max = x[i];
  if (isinf(max)) return max < 0 ? max : NAN;
  for (int64_t i = 0; i < n; i++) sum += exp(x[i] - max);
  return max + log(sum);
}

static dj_status ref_softmax(const dj__call *c) {
  dj__rows r = rows_of(&c->in[0]);
  for (int64_t i = 0; i < r.count; i++) {
    const float *x = (const float *)c->in[0].data + i * r.width; // (C)
    float *y = (float *)c->out[0].data + i * r.width;            // (C)
    double z = log_sum_exp(x, r.width);
    for (int64_t k = 0; k < r.width; k++) y[k] = (float)exp(x[k] - z);
  }
  return DJ_OK;
}

static dj_status ref_log_softmax(const dj__call *c) {
  dj__rows r = rows_of(&c->in[0]);
  for (int64_t i = 0; i < r.count; i++) {
    const float *x = (const float *)c->in[0].data + i * r.width; // (C)
    float *y = (float *)c->out[0].data + i * r.width;            // (C)
    double z = log_sum_exp(x, r.width);
    for (int64_t k = 0; k < r.width; k++) y[k] = (float)(x[k] - z);
  }
  return DJ_OK;
}

/* dx = y (dy - sum(y dy)) */
static dj_status ref_softmax_grad(const dj__call *c) {
  dj__rows r = rows_of(&c->in[0]);
  for (int64_t i = 0; i < r.count; i++) {
    const float *y = (const float *)c->in[0].data + i * r.width;  // (C)
    const float *dy = (const float *)c->in[1].data + i * r.width; // (C)
    float *dx = (float *)c->out[0].data + i * r.width;            // (C)
    double dot = 0;
    for (int64_t k = 0; k < r.width; k++) dot += (double)y[k] * dy[k];
    for (int64_t k = 0; k < r.width; k++) dx[k] = (float)(y[k] * (dy[k] - dot));
  }
  return DJ_OK;
}

/* dx = dy - exp(y) sum(dy) */
static dj_status ref_log_softmax_grad(const dj__call *c) {
  dj__rows r = rows_of(&c->in[0]);
  for (int64_t i = 0; i < r.count; i++) {
    const float *y = (const float *)c->in[0].data + i * r.width;  // (C)
    const float *dy = (const float *)c->in[1].data + i * r.width; // (C)
    float *dx = (float *)c->out[0].data + i * r.width;            // (C)
    double sum = 0;
    for (int64_t k = 0; k < r.width; k++) sum += dy[k];
    for (int64_t k = 0; k < r.width; k++) dx[k] = (float)(dy[k] - exp(y[k]) * sum);
  }
  return DJ_OK;
}

static dj_status check_label(const dj__call *c, int64_t row, int32_t label, int64_t classes) {
  if (label < classes) return DJ_OK;
  return dj_error(DJ_E_INVALID,
                  "%s: label %d of row %lld is outside 0..%lld; use a negative label for rows "
                  "without one",
                  dj__op_get(c->op)->name, label, (long long)row, (long long)classes - 1);
}

static dj_status ref_cross_entropy(const dj__call *c) {
  dj__rows r = rows_of(&c->in[0]);
  const int32_t *label = c->in[1].data; // (N)
  float *y = c->out[0].data;            // (N)
  for (int64_t i = 0; i < r.count; i++) {
    const float *x = (const float *)c->in[0].data + i * r.width; // (C)
    DJ_TRY(check_label(c, i, label[i], r.width));
    y[i] = label[i] < 0 ? 0 : (float)(log_sum_exp(x, r.width) - x[label[i]]);
  }
  return DJ_OK;
}

/* dx = dy (softmax(x) - one_hot(label)) */
static dj_status ref_cross_entropy_grad(const dj__call *c) {
  dj__rows r = rows_of(&c->in[0]);
  const int32_t *label = c->in[1].data; // (N)
  const float *dy = c->in[2].data;      // (N)
  for (int64_t i = 0; i < r.count; i++) {
    const float *x = (const float *)c->in[0].data + i * r.width; // (C)
    float *dx = (float *)c->out[0].data + i * r.width;           // (C)
    DJ_TRY(check_label(c, i, label[i], r.width));
    double z = log_sum_exp(x, r.width);
    for (int64_t k = 0; k < r.width; k++)
      dx[k] = label[i] < 0 ? 0 : (float)(dy[i] * (exp(x[k] - z) - (k == label[i] ? 1 : 0)));
  }
  return DJ_OK;
}

/* ---- making nodes, gradients ---- */

dj_val dj_softmax(dj_graph *g, dj_val x) {
  return dj__emit(g, DJ__OP_softmax, &x, 1, NULL, 0);
}
dj_val dj_log_softmax(dj_graph *g, dj_val x) {
  return dj__emit(g, DJ__OP_log_softmax, &x, 1, NULL, 0);
}
dj_val dj_cross_entropy(dj_graph *g, dj_val logits, dj_val labels) {
  dj_val in[] = {logits, labels};
  return dj__emit(g, DJ__OP_cross_entropy, in, 2, NULL, 0);
}

static void grad_softmax(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (!dj__needs_grad(g, n->in[0])) return;
  dj_val in[] = {n->out[0], dout[0]};
  din[0] = dj__emit(g, DJ__OP_softmax_grad, in, 2, NULL, 0);
}
static void grad_log_softmax(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (!dj__needs_grad(g, n->in[0])) return;
  dj_val in[] = {n->out[0], dout[0]};
  din[0] = dj__emit(g, DJ__OP_log_softmax_grad, in, 2, NULL, 0);
}
static void grad_cross_entropy(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (!dj__needs_grad(g, n->in[0])) return;
  dj_val in[] = {n->in[0], n->in[1], dout[0]};
  din[0] = dj__emit(g, DJ__OP_cross_entropy_grad, in, 3, NULL, 0);
}

/* ---- samples and table ---- */

#define WIDE .range = {{-8, 8, 0}}
static const dj__sample samples_softmax[] = {
    {"one", 1, {DJ__F32(1)}, WIDE},
    {"vector", 1, {DJ__F32(17)}, WIDE},
    {"rows of one", 1, {DJ__F32(5, 1)}, WIDE},
    {"rows", 1, {DJ__F32(13, 37)}, WIDE},
    {"rank 5", 1, {DJ__F32(2, 1, 3, 2, 33)}, WIDE},
    {"threads", 1, {DJ__F32(67, 301)}, WIDE},
    {"attention", 1, {DJ__F32(8, 8, 256, 256)}, WIDE, .bench = true},
};
static const dj__sample samples_log_softmax[] = {
    {"one", 1, {DJ__F32(1)}, WIDE},
    {"vector", 1, {DJ__F32(17)}, WIDE},
    {"rows", 1, {DJ__F32(13, 37)}, WIDE},
    {"rank 5", 1, {DJ__F32(2, 1, 3, 2, 33)}, WIDE},
    {"threads", 1, {DJ__F32(67, 301)}, WIDE},
    {"words", 1, {DJ__F32(512, 32000)}, WIDE, .bench = true},
};
static const dj__sample samples_softmax_grad[] = {
    {"one", 2, {DJ__F32(1), DJ__F32(1)}, .range = {{0, 1, 0}}},
    {"vector", 2, {DJ__F32(17), DJ__F32(17)}, .range = {{0, 0.1f, 0}}},
    {"rows", 2, {DJ__F32(13, 37), DJ__F32(13, 37)}, .range = {{0, 0.05f, 0}}},
    {"rank 5", 2, {DJ__F32(2, 1, 3, 2, 33), DJ__F32(2, 1, 3, 2, 33)}, .range = {{0, 0.05f, 0}}},
    {"threads", 2, {DJ__F32(67, 301), DJ__F32(67, 301)}, .range = {{0, 0.005f, 0}}},
    {"attention",
     2,
     {DJ__F32(8, 8, 256, 256), DJ__F32(8, 8, 256, 256)},
     .range = {{0, 0.005f, 0}},
     .bench = true},
};
static const dj__sample samples_log_softmax_grad[] = {
    {"one", 2, {DJ__F32(1), DJ__F32(1)}, .range = {{-4, 0, 0}}},
    {"vector", 2, {DJ__F32(17), DJ__F32(17)}, .range = {{-6, -1, 0}}},
    {"rows", 2, {DJ__F32(13, 37), DJ__F32(13, 37)}, .range = {{-6, -1, 0}}},
    {"rank 5", 2, {DJ__F32(2, 1, 3, 2, 33), DJ__F32(2, 1, 3, 2, 33)}, .range = {{-6, -1, 0}}},
    {"threads", 2, {DJ__F32(67, 301), DJ__F32(67, 301)}, .range = {{-8, -4, 0}}},
    {"words",
     2,
     {DJ__F32(512, 32000), DJ__F32(512, 32000)},
     .range = {{-12, -8, 0}},
     .bench = true},
};
static const dj__sample samples_cross_entropy[] = {
    {"one class", 2, {DJ__F32(3, 1), DJ__I32(3)}, .range = {{-4, 4, 0}, {0, 1, 0}}},
    {"one row", 2, {DJ__F32(1, 10), DJ__I32(1)}, .range = {{-4, 4, 0}, {0, 10, 0}}},
    {"some without a label", 2, {DJ__F32(31, 7), DJ__I32(31)}, .range = {{-8, 8, 0}, {-3, 7, 0}}},
    {"many classes", 2, {DJ__F32(11, 1009), DJ__I32(11)}, .range = {{-8, 8, 0}, {0, 1009, 0}}},
    {"words",
     2,
     {DJ__F32(512, 32000), DJ__I32(512)},
     .range = {{-8, 8, 0}, {0, 32000, 0}},
     .bench = true},
};
static const dj__sample samples_cross_entropy_grad[] = {
    {"one class", 3, {DJ__F32(3, 1), DJ__I32(3), DJ__F32(3)}, .range = {{-4, 4, 0}, {0, 1, 0}}},
    {"one row", 3, {DJ__F32(1, 10), DJ__I32(1), DJ__F32(1)}, .range = {{-4, 4, 0}, {0, 10, 0}}},
    {"some without a label",
     3,
     {DJ__F32(31, 7), DJ__I32(31), DJ__F32(31)},
     .range = {{-8, 8, 0}, {-3, 7, 0}}},
    {"many classes",
     3,
     {DJ__F32(11, 1009), DJ__I32(11), DJ__F32(11)},
     .range = {{-8, 8, 0}, {0, 1009, 0}}},
    {"words",
     3,
     {DJ__F32(512, 32000), DJ__I32(512), DJ__F32(512)},
     .range = {{-8, 8, 0}, {0, 32000, 0}},
     .bench = true},
};

DJ__DEFINE_OP(softmax, 1, 1, 1, DJ__F32_ONLY, 0, 0, infer_softmax, grad_softmax, cost_softmax,
              ref_softmax, samples_softmax);
DJ__DEFINE_OP(softmax_grad, 2, 2, 1, DJ__F32_ONLY, 0, 0, infer_softmax_grad, DJ__NO_GRAD,
              cost_softmax, ref_softmax_grad, samples_softmax_grad);
DJ__DEFINE_OP(log_softmax, 1, 1, 1, DJ__F32_ONLY, 0, 0, infer_softmax, grad_log_softmax,
              cost_softmax, ref_log_softmax, samples_log_softmax);
DJ__DEFINE_OP(log_softmax_grad, 2, 2, 1, DJ__F32_ONLY, 0, 0, infer_softmax_grad, DJ__NO_GRAD,
              cost_softmax, ref_log_softmax_grad, samples_log_softmax_grad);
DJ__DEFINE_OP(cross_entropy, 2, 2, 1, DJ__FOLLOW, 1u, 0, infer_cross_entropy, grad_cross_entropy,
              cost_softmax, ref_cross_entropy, samples_cross_entropy);
DJ__DEFINE_OP(cross_entropy_grad, 3, 3, 1, DJ__FOLLOW | DJ__INPLACE, 1u, 0, infer_cross_entropy,
              DJ__NO_GRAD, cost_softmax, ref_cross_entropy_grad, samples_cross_entropy_grad);
