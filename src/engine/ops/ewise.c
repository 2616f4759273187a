/*
 * Elementwise ops: everything in ewise.h, cast, and the `fused` chains that the fusion pass makes
 * of them. The reference evaluates the same expressions as the fast kernels do, in double with
 * libm. Operands broadcast as in NumPy; the gradient of a broadcast operand is summed back to its
 * shape.
 */
#include "engine/ops/basic.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "dojo/ops.h"
#include "engine/graph.h"

/* ---- helpers of all op files (basic.h) ---- */

bool dj__broadcast_shape(const dj_shape *a, const dj_shape *b, dj_shape *out) {
  dj_shape r = {.rank = a->rank > b->rank ? a->rank : b->rank};
  for (int i = 0; i < r.rank; i++) {
    int ia = i - (r.rank - a->rank), ib = i - (r.rank - b->rank);
    int64_t da = ia < 0 ? 1 : a->dim[ia], db = ib < 0 ? 1 : b->dim[ib];
    if (da != db && da != 1 && db != 1) return false;
    r.dim[i] = da == 1 ? db : da;
  }
  *out = r;
  return true;
}

void dj__broadcast_strides(const dj_shape *in, const dj_shape *out, int64_t stride[DJ_MAX_RANK]) {
  int64_t step = 1;
  for (int i = out->rank - 1; i >= 0; i--) {
    int j = i - (out->rank - in->rank);
    stride[i] = j < 0 || in->dim[j] == 1 ? 0 : step;
    if (j >= 0) step *= in->dim[j];
  }
}

dj_val dj__op_error(dj_graph *g, const char *op, const char *fmt, ...) {
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  (void)vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  dj_status s = dj_error(DJ_E_INVALID, "%s: %s", op, text);
  if (g->label[0]) s = dj_error_context(s, "at '%s'", g->label);
  return dj__graph_fail(g, s);
}

/* ---- values of one element ---- */

static double sigmoid(double x) {
  return 1 / (1 + exp(-x));
}
static double softplus(double x) {
  return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

/* Hendrycks & Gimpel 2016, "Gaussian error linear units", the tanh form: x/2 (1 + tanh u),
 * u = sqrt(2/pi) (x + 0.044715 x^3). */
static const double gelu_k = 0.79788456080286535588, gelu_c = 0.044715;
static double gelu(double x) {
  return 0.5 * x * (1 + tanh(gelu_k * (x + gelu_c * x * x * x)));
}
static double gelu_slope(double x) {
  double t = tanh(gelu_k * (x + gelu_c * x * x * x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * gelu_k * (1 + 3 * gelu_c * x * x);
}
/* d^2/2 up to |d| = p, then straight with slope p. */
static double huber(double d, double p) {
  double m = fabs(d);
  return m <= p ? 0.5 * d * d : p * (m - 0.5 * p);
}

#define EXP(x)      exp(x)
#define LOG(x)      log(x)
#define SQRT(x)     sqrt(x)
#define SIN(x)      sin(x)
#define COS(x)      cos(x)
#define TANH(x)     tanh(x)
#define SIGMOID(x)  sigmoid(x)
#define SOFTPLUS(x) softplus(x)
#define GELU(x)     gelu(x)
#define GELU_D(x)   gelu_slope(x)
#define HUBER(d, p) huber(d, p)

double dj__ewise_eval(dj__op op, double a, double b, double c, double p, double q) {
  switch (op) {
#define DJ__X(name, operands, expression, flops)                                                   \
  case DJ__OP_##name:                                                                              \
    return expression;
    DJ__EWISE_LIST(DJ__X)
#undef DJ__X
  default:
    return NAN; // not elementwise: infer has refused it
  }
}

static int ewise_operands(dj__op op) {
  switch (op) {
#define DJ__X(name, operands, expression, flops)                                                   \
  case DJ__OP_##name:                                                                              \
    return operands;
    DJ__EWISE_LIST(DJ__X)
#undef DJ__X
  default:
    return 0;
  }
}

static double ewise_flops(dj__op op) {
  switch (op) {
#define DJ__X(name, operands, expression, flops)                                                   \
  case DJ__OP_##name:                                                                              \
    return flops;
    DJ__EWISE_LIST(DJ__X)
#undef DJ__X
  default:
    return 0;
  }
}

/* ---- shape, cost, reference ---- */

/* All inputs are float; s->out[*] becomes the broadcast shape, bf16 if every input is. */
static dj_status infer_broadcast(dj__infer *s) {
  dj_shape shape = DJ_SCALAR;
  bool bf16 = s->n_in > 0;
  for (int i = 0; i < s->n_in; i++) {
    DJ_TRY(dj__want_float(s, i, -1));
    bf16 = bf16 && s->in[i].dtype == DJ_BF16;
    if (!dj__broadcast_shape(&shape, &s->in[i].shape, &shape))
      return dj__bad(s, "shapes do not broadcast: aligned at the last axis, sizes must agree or be "
                        "1");
  }
  for (int k = 0; k < s->n_out; k++) dj__set_out(s, k, bf16 ? DJ_BF16 : DJ_F32, shape);
  return DJ_OK;
}

static dj_status infer_ewise(dj__infer *s) {
  return infer_broadcast(s);
}

static void cost_ewise(const dj__call *c, dj__cost *cost) {
  dj__cost_touch(c, cost);
  cost->flops = ewise_flops(c->op) * (double)dj_shape_count(&c->out[0].shape);
}

static dj_status ref_ewise(const dj__call *c) {
  const dj__ewise_attr *attr = c->attr;
  const dj_shape *shape = &c->out[0].shape;
  const float *in[3] = {NULL, NULL, NULL};
  int64_t stride[3][DJ_MAX_RANK] = {{0}};
  for (int i = 0; i < c->n_in; i++) {
    in[i] = c->in[i].data; // (...) f32, broadcast to `shape`
    dj__broadcast_strides(&c->in[i].shape, shape, stride[i]);
  }
  float *y = c->out[0].data; // shape, f32
  double p = attr ? attr->p : 0, q = attr ? attr->q : 0;
  dj__walk w = dj__walk_over(shape);
  for (int64_t i = 0, n = dj_shape_count(shape); i < n; i++, dj__walk_next(&w)) {
    double v[3] = {0, 0, 0};
    for (int k = 0; k < c->n_in; k++) v[k] = in[k][dj__walk_offset(&w, stride[k])];
    y[i] = (float)dj__ewise_eval(c->op, v[0], v[1], v[2], p, q);
  }
  return DJ_OK;
}

/* ---- making nodes ---- */

static dj_val emit(dj_graph *g, dj__op op, int n, dj_val a, dj_val b, dj_val c, float p, float q) {
  dj_val in[3] = {a, b, c};
  dj__ewise_attr attr = {p, q};
  return dj__emit(g, op, in, n, &attr, sizeof attr);
}

#define UNARY_CONSTRUCTOR(name)                                                                    \
  dj_val dj_##name(dj_graph *g, dj_val x) {                                                        \
    return emit(g, DJ__OP_##name, 1, x, DJ_NONE, DJ_NONE, 0, 0);                                   \
  }
#define BINARY_CONSTRUCTOR(name)                                                                   \
  dj_val dj_##name(dj_graph *g, dj_val a, dj_val b) {                                              \
    return emit(g, DJ__OP_##name, 2, a, b, DJ_NONE, 0, 0);                                         \
  }
UNARY_CONSTRUCTOR(neg)
UNARY_CONSTRUCTOR(abs)
UNARY_CONSTRUCTOR(exp)
UNARY_CONSTRUCTOR(log)
UNARY_CONSTRUCTOR(sqrt)
UNARY_CONSTRUCTOR(square)
UNARY_CONSTRUCTOR(relu)
UNARY_CONSTRUCTOR(elu)
UNARY_CONSTRUCTOR(silu)
UNARY_CONSTRUCTOR(gelu)
UNARY_CONSTRUCTOR(sigmoid)
UNARY_CONSTRUCTOR(tanh)
UNARY_CONSTRUCTOR(softplus)
UNARY_CONSTRUCTOR(sin)
UNARY_CONSTRUCTOR(cos)
UNARY_CONSTRUCTOR(stop_gradient)
BINARY_CONSTRUCTOR(add)
BINARY_CONSTRUCTOR(sub)
BINARY_CONSTRUCTOR(mul)
BINARY_CONSTRUCTOR(div)
BINARY_CONSTRUCTOR(max2)
BINARY_CONSTRUCTOR(min2)
BINARY_CONSTRUCTOR(greater)

dj_val dj_affine(dj_graph *g, dj_val x, float scale, float shift) {
  return emit(g, DJ__OP_affine, 1, x, DJ_NONE, DJ_NONE, scale, shift);
}

dj_val dj_clamp(dj_graph *g, dj_val x, float lo, float hi) {
  if (!(lo <= hi)) return dj__op_error(g, "clamp", "needs lo <= hi, got %g and %g", lo, hi);
  return emit(g, DJ__OP_clamp, 1, x, DJ_NONE, DJ_NONE, lo, hi);
}

dj_val dj_select(dj_graph *g, dj_val c, dj_val a, dj_val b) {
  return emit(g, DJ__OP_select, 3, c, a, b, 0, 0);
}

/* Losses compare like with like: a silent broadcast of a target is nearly always a mistake. */
static bool equal_shapes(dj_graph *g, const char *op, dj_val x, dj_val target) {
  if (x == DJ_NONE || target == DJ_NONE) return true; // dj__emit passes DJ_NONE on
  dj_shape a = dj_val_shape(g, x), b = dj_val_shape(g, target);
  if (dj_shape_equal(&a, &b)) return true;
  char ta[DJ_SHAPE_TEXT], tb[DJ_SHAPE_TEXT];
  (void)dj__op_error(g, op, "operands must have equal shapes, got %s and %s; dj_reshape one",
                     dj_shape_text(&a, ta, sizeof ta), dj_shape_text(&b, tb, sizeof tb));
  return false;
}

dj_val dj_l1(dj_graph *g, dj_val x, dj_val target) {
  return equal_shapes(g, "l1", x, target) ? dj_abs(g, dj_sub(g, x, target)) : DJ_NONE;
}

dj_val dj_l2(dj_graph *g, dj_val x, dj_val target) {
  return equal_shapes(g, "l2", x, target) ? dj_square(g, dj_sub(g, x, target)) : DJ_NONE;
}

dj_val dj_huber(dj_graph *g, dj_val x, dj_val target, float delta) {
  if (!(delta > 0)) return dj__op_error(g, "huber", "needs delta > 0, got %g", delta);
  if (!equal_shapes(g, "huber", x, target)) return DJ_NONE;
  return emit(g, DJ__OP_huber, 2, x, target, DJ_NONE, delta, 0);
}

dj_val dj_bce_logits(dj_graph *g, dj_val logit, dj_val target) {
  if (!equal_shapes(g, "bce_logits", logit, target)) return DJ_NONE;
  return emit(g, DJ__OP_bce_logits, 2, logit, target, DJ_NONE, 0, 0);
}

dj_val dj_laplace_nll(dj_graph *g, dj_val x, dj_val log_b, dj_val target) {
  if (!equal_shapes(g, "laplace_nll", x, target) || !equal_shapes(g, "laplace_nll", x, log_b))
    return DJ_NONE;
  // |x - target| exp(-log_b) + (log_b + log 2): no division, and no pole where b is small
  dj_val scaled = dj_mul(g, dj_abs(g, dj_sub(g, x, target)), dj_exp(g, dj_neg(g, log_b)));
  return dj_add(g, scaled, dj_affine(g, log_b, 1, 0.69314718055994530942f));
}

/* ---- gradients: din[i] = dout * d(out)/d(in[i]), summed back where in[i] was repeated ---- */

#define GRAD(name)                                                                                 \
  static void grad_##name(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din)
/* Sets din[i] if it is needed; `expression` is evaluated only then. */
#define DIN(i, expression)                                                                         \
  do {                                                                                             \
    if (dj__needs_grad(g, n->in[i])) din[i] = dj__sum_to(g, (expression), n->in[i]);               \
  } while (0)
#define A  (n->in[0])
#define B  (n->in[1])
#define Y  (n->out[0])
#define DY (dout[0])

static dj_val with(dj_graph *g, const dj__node *n, dj__op op, dj_val a, dj_val b) {
  const dj__ewise_attr *attr = n->attr; // the gradient op takes the same parameters
  return emit(g, op, 2, a, b, DJ_NONE, attr->p, attr->q);
}

GRAD(add) {
  DIN(0, DY);
  DIN(1, DY);
}
GRAD(sub) {
  DIN(0, DY);
  DIN(1, dj_neg(g, DY));
}
GRAD(mul) {
  DIN(0, dj_mul(g, DY, B));
  DIN(1, dj_mul(g, DY, A));
}
GRAD(div) {
  DIN(0, dj_div(g, DY, B));
  DIN(1, dj_neg(g, dj_div(g, dj_mul(g, DY, Y), B)));
}
/* The gradient goes to the operand that was taken; to b where they are equal. */
static void grad_choice(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din,
                        dj_val a_taken) {
  dj_val zero = dj_scalar(g, 0);
  DIN(0, dj_select(g, a_taken, DY, zero));
  DIN(1, dj_select(g, a_taken, zero, DY));
}
GRAD(max2) {
  grad_choice(g, n, dout, din, dj_greater(g, A, B));
}
GRAD(min2) {
  grad_choice(g, n, dout, din, dj_greater(g, B, A));
}
GRAD(affine) {
  DIN(0, dj_affine(g, DY, ((const dj__ewise_attr *)n->attr)->p, 0));
}
GRAD(clamp) {
  DIN(0, with(g, n, DJ__OP_clamp_grad, A, DY));
}
GRAD(neg) {
  DIN(0, dj_neg(g, DY));
}
GRAD(abs) {
  DIN(0, dj_mul(g, DY, emit(g, DJ__OP_sign, 1, A, DJ_NONE, DJ_NONE, 0, 0)));
}
GRAD(exp) {
  DIN(0, dj_mul(g, DY, Y));
}
GRAD(log) {
  DIN(0, dj_div(g, DY, A));
}
GRAD(sqrt) {
  DIN(0, dj_div(g, dj_affine(g, DY, 0.5f, 0), Y));
}
GRAD(square) {
  DIN(0, dj_mul(g, DY, dj_affine(g, A, 2, 0)));
}
GRAD(relu) {
  DIN(0, with(g, n, DJ__OP_relu_grad, Y, DY));
}
GRAD(elu) {
  DIN(0, with(g, n, DJ__OP_elu_grad, Y, DY));
}
GRAD(silu) {
  DIN(0, with(g, n, DJ__OP_silu_grad, A, DY));
}
GRAD(gelu) {
  DIN(0, with(g, n, DJ__OP_gelu_grad, A, DY));
}
GRAD(sigmoid) {
  DIN(0, with(g, n, DJ__OP_sigmoid_grad, Y, DY));
}
GRAD(tanh) {
  DIN(0, with(g, n, DJ__OP_tanh_grad, Y, DY));
}
GRAD(softplus) {
  DIN(0, dj_mul(g, DY, dj_sigmoid(g, A)));
}
GRAD(sin) {
  DIN(0, dj_mul(g, DY, dj_cos(g, A)));
}
GRAD(cos) {
  DIN(0, dj_neg(g, dj_mul(g, DY, dj_sin(g, A))));
}
GRAD(select) { // (c, a, b); the condition has no gradient
  dj_val zero = dj_scalar(g, 0);
  DIN(1, dj_select(g, A, DY, zero));
  DIN(2, dj_select(g, A, zero, DY));
}
GRAD(huber) {
  const dj__ewise_attr *attr = n->attr;
  dj_val d = emit(g, DJ__OP_huber_grad, 3, A, B, DY, attr->p, 0);
  DIN(0, d);
  DIN(1, dj_neg(g, d));
}
GRAD(bce_logits) { // softplus(a) - a b
  DIN(0, dj_mul(g, DY, dj_sub(g, dj_sigmoid(g, A), B)));
  DIN(1, dj_neg(g, dj_mul(g, DY, A)));
}

#undef A
#undef B
#undef Y

/* ---- samples ---- */

#define RANGE1(lo, hi, away) .range = {{lo, hi, away}}
#define UNARY_SAMPLES(name, lo, hi, away, p, q)                                                    \
  static const dj__sample samples_##name[] = {                                                     \
      {"scalar", 1, {DJ__F32()}, RANGE1(lo, hi, away), DJ__ATTR_OF(dj__ewise_attr, p, q)},         \
      {"one", 1, {DJ__F32(1)}, RANGE1(lo, hi, away), DJ__ATTR_OF(dj__ewise_attr, p, q)},           \
      {"prime", 1, {DJ__F32(1031)}, RANGE1(lo, hi, away), DJ__ATTR_OF(dj__ewise_attr, p, q)},      \
      {"matrix", 1, {DJ__F32(5, 7)}, RANGE1(lo, hi, away), DJ__ATTR_OF(dj__ewise_attr, p, q)},     \
      {"rank 5",                                                                                   \
       1,                                                                                          \
       {DJ__F32(2, 1, 3, 1, 5)},                                                                   \
       RANGE1(lo, hi, away),                                                                       \
       DJ__ATTR_OF(dj__ewise_attr, p, q)},                                                         \
      {"image batch",                                                                              \
       1,                                                                                          \
       {DJ__F32(32, 60, 80, 32)},                                                                  \
       RANGE1(lo, hi, away),                                                                       \
       DJ__ATTR_OF(dj__ewise_attr, p, q),                                                          \
       .bench = true},                                                                             \
  }

#define RANGE2(lo, hi, away) .range = {{lo, hi, away}, {lo, hi, away}}
#define BINARY_CASE(text, a, b, lo, hi, away, p, q, big)                                           \
  { text, 2, {a, b}, RANGE2(lo, hi, away), DJ__ATTR_OF(dj__ewise_attr, p, q), .bench = big }
#define BINARY_SAMPLES(name, lo, hi, away, p, q)                                                   \
  static const dj__sample samples_##name[] = {                                                     \
      BINARY_CASE("scalars", DJ__F32(), DJ__F32(), lo, hi, away, p, q, false),                     \
      BINARY_CASE("equal", DJ__F32(3, 5), DJ__F32(3, 5), lo, hi, away, p, q, false),               \
      BINARY_CASE("prime", DJ__F32(521), DJ__F32(521), lo, hi, away, p, q, false),                 \
      BINARY_CASE("scalar left", DJ__F32(), DJ__F32(3, 4), lo, hi, away, p, q, false),             \
      BINARY_CASE("scalar right", DJ__F32(2, 3, 3), DJ__F32(), lo, hi, away, p, q, false),         \
      BINARY_CASE("channels right", DJ__F32(2, 3, 4, 19), DJ__F32(19), lo, hi, away, p, q, false), \
      BINARY_CASE("channels left", DJ__F32(7), DJ__F32(2, 3, 7), lo, hi, away, p, q, false),       \
      BINARY_CASE("column", DJ__F32(5, 17), DJ__F32(5, 1), lo, hi, away, p, q, false),             \
      BINARY_CASE("both ways", DJ__F32(4, 1, 7), DJ__F32(1, 5, 1), lo, hi, away, p, q, false),     \
      BINARY_CASE("rank 5", DJ__F32(2, 1, 3, 1, 5), DJ__F32(3, 2, 1), lo, hi, away, p, q, false),  \
      BINARY_CASE("image batch", DJ__F32(32, 60, 80, 32), DJ__F32(32, 60, 80, 32), lo, hi, away,   \
                  p, q, true),                                                                     \
      BINARY_CASE("image channels", DJ__F32(32, 60, 80, 32), DJ__F32(32), lo, hi, away, p, q,      \
                  true),                                                                           \
  }

#define RANGE3(lo, hi, away) .range = {{lo, hi, away}, {lo, hi, away}, {lo, hi, away}}
#define TERNARY_CASE(text, a, b, c, lo, hi, away, p, q, big)                                       \
  { text, 3, {a, b, c}, RANGE3(lo, hi, away), DJ__ATTR_OF(dj__ewise_attr, p, q), .bench = big }
#define TERNARY_SAMPLES(name, lo, hi, away, p, q)                                                  \
  static const dj__sample samples_##name[] = {                                                     \
      TERNARY_CASE("scalars", DJ__F32(), DJ__F32(), DJ__F32(), lo, hi, away, p, q, false),         \
      TERNARY_CASE("equal", DJ__F32(37), DJ__F32(37), DJ__F32(37), lo, hi, away, p, q, false),     \
      TERNARY_CASE("column, row, scalar", DJ__F32(5, 1), DJ__F32(1, 19), DJ__F32(), lo, hi, away,  \
                   p, q, false),                                                                   \
      TERNARY_CASE("full in the middle", DJ__F32(3), DJ__F32(2, 5, 3), DJ__F32(5, 1), lo, hi,      \
                   away, p, q, false),                                                             \
      TERNARY_CASE("large", DJ__F32(256, 4096), DJ__F32(256, 4096), DJ__F32(256, 4096), lo, hi,    \
                   away, p, q, true),                                                              \
  }

UNARY_SAMPLES(affine, -2, 2, 0, 1.7f, -0.3f);
/* Both kinks lie among the values of the small samples; a large one would hit them in every
 * gradient check, so it keeps away from its only one, at 0. */
static const dj__sample samples_clamp[] = {
    {"scalar", 1, {DJ__F32()}, DJ__ATTR_OF(dj__ewise_attr, -0.4f, 0.6f)},
    {"one", 1, {DJ__F32(1)}, DJ__ATTR_OF(dj__ewise_attr, -0.4f, 0.6f)},
    {"prime", 1, {DJ__F32(1031)}, RANGE1(-1, 1, 0.1f), DJ__ATTR_OF(dj__ewise_attr, 0, 2)},
    {"matrix", 1, {DJ__F32(5, 7)}, DJ__ATTR_OF(dj__ewise_attr, -0.4f, 0.6f)},
    {"rank 5", 1, {DJ__F32(2, 1, 3, 1, 5)}, DJ__ATTR_OF(dj__ewise_attr, -0.4f, 0.6f)},
    {"image batch",
     1,
     {DJ__F32(32, 60, 80, 32)},
     DJ__ATTR_OF(dj__ewise_attr, -0.4f, 0.6f),
     .bench = true},
};
UNARY_SAMPLES(neg, -2, 2, 0, 0, 0);
UNARY_SAMPLES(abs, -2, 2, 0.1f, 0, 0);
UNARY_SAMPLES(sign, -2, 2, 0.1f, 0, 0);
UNARY_SAMPLES(exp, -5, 5, 0, 0, 0);
UNARY_SAMPLES(log, 0.3f, 9, 0, 0, 0);
UNARY_SAMPLES(sqrt, 0.3f, 9, 0, 0, 0);
UNARY_SAMPLES(square, -2, 2, 0, 0, 0);
UNARY_SAMPLES(relu, -2, 2, 0.1f, 0, 0);
UNARY_SAMPLES(elu, -3, 3, 0.1f, 0, 0);
UNARY_SAMPLES(silu, -6, 6, 0, 0, 0);
UNARY_SAMPLES(gelu, -4, 4, 0, 0, 0);
UNARY_SAMPLES(sigmoid, -6, 6, 0, 0, 0);
UNARY_SAMPLES(tanh, -4, 4, 0, 0, 0);
UNARY_SAMPLES(softplus, -8, 8, 0, 0, 0);
UNARY_SAMPLES(sin, -6, 6, 0, 0, 0);
UNARY_SAMPLES(cos, -6, 6, 0, 0, 0);
UNARY_SAMPLES(stop_gradient, -2, 2, 0, 0, 0);
BINARY_SAMPLES(add, -2, 2, 0, 0, 0);
BINARY_SAMPLES(sub, -2, 2, 0, 0, 0);
BINARY_SAMPLES(mul, -2, 2, 0, 0, 0);
BINARY_SAMPLES(div, -3, 3, 0.5f, 0, 0);
BINARY_SAMPLES(max2, -2, 2, 0, 0, 0);
BINARY_SAMPLES(min2, -2, 2, 0, 0, 0);
BINARY_SAMPLES(clamp_grad, -1, 1, 0, -0.4f, 0.6f);
BINARY_SAMPLES(relu_grad, -2, 2, 0.1f, 0, 0);
BINARY_SAMPLES(elu_grad, -0.9f, 2, 0.1f, 0, 0);
BINARY_SAMPLES(silu_grad, -6, 6, 0, 0, 0);
BINARY_SAMPLES(gelu_grad, -4, 4, 0, 0, 0);
BINARY_SAMPLES(sigmoid_grad, 0, 0.9f, 0, 0, 0);
BINARY_SAMPLES(tanh_grad, -0.9f, 0.9f, 0, 0, 0);
BINARY_SAMPLES(greater, -2, 2, 0, 0, 0);
BINARY_SAMPLES(huber, -2, 2, 0, 0.7f, 0);
BINARY_SAMPLES(bce_logits, -3, 3, 0, 0, 0);
TERNARY_SAMPLES(select, -1, 1, 0.1f, 0, 0);
TERNARY_SAMPLES(huber_grad, -2, 2, 0, 0.7f, 0);

/* ---- the table ---- */

#define FLOWS  (DJ__EWISE | DJ__FOLLOW | DJ__INPLACE)
#define LOSSES (DJ__EWISE | DJ__F32_ONLY | DJ__INPLACE)
#define ENTRY(id, n, flags, grad)                                                                  \
  DJ__DEFINE_OP(id, n, n, 1, flags, (flags)&DJ__FOLLOW ? (1u << (n)) - 1 : 0, 0, infer_ewise,      \
                grad, cost_ewise, ref_ewise, samples_##id)

ENTRY(add, 2, FLOWS, grad_add);
ENTRY(sub, 2, FLOWS, grad_sub);
ENTRY(mul, 2, FLOWS, grad_mul);
ENTRY(div, 2, FLOWS, grad_div);
ENTRY(max2, 2, FLOWS, grad_max2);
ENTRY(min2, 2, FLOWS, grad_min2);
ENTRY(affine, 1, FLOWS, grad_affine);
ENTRY(clamp, 1, FLOWS, grad_clamp);
ENTRY(clamp_grad, 2, FLOWS, DJ__NO_GRAD);
ENTRY(neg, 1, FLOWS, grad_neg);
ENTRY(abs, 1, FLOWS, grad_abs);
ENTRY(sign, 1, FLOWS, DJ__NO_GRAD);
ENTRY(exp, 1, FLOWS, grad_exp);
ENTRY(log, 1, FLOWS, grad_log);
ENTRY(sqrt, 1, FLOWS, grad_sqrt);
ENTRY(square, 1, FLOWS, grad_square);
ENTRY(relu, 1, FLOWS, grad_relu);
ENTRY(relu_grad, 2, FLOWS, DJ__NO_GRAD);
ENTRY(elu, 1, FLOWS, grad_elu);
ENTRY(elu_grad, 2, FLOWS, DJ__NO_GRAD);
ENTRY(silu, 1, FLOWS, grad_silu);
ENTRY(silu_grad, 2, FLOWS, DJ__NO_GRAD);
ENTRY(gelu, 1, FLOWS, grad_gelu);
ENTRY(gelu_grad, 2, FLOWS, DJ__NO_GRAD);
ENTRY(sigmoid, 1, FLOWS, grad_sigmoid);
ENTRY(sigmoid_grad, 2, FLOWS, DJ__NO_GRAD);
ENTRY(tanh, 1, FLOWS, grad_tanh);
ENTRY(tanh_grad, 2, FLOWS, DJ__NO_GRAD);
ENTRY(softplus, 1, FLOWS, grad_softplus);
ENTRY(sin, 1, FLOWS, grad_sin);
ENTRY(cos, 1, FLOWS, grad_cos);
ENTRY(greater, 2, FLOWS, DJ__NO_GRAD);
ENTRY(select, 3, FLOWS, grad_select);
ENTRY(stop_gradient, 1, FLOWS, DJ__NO_GRAD);
ENTRY(huber, 2, LOSSES, grad_huber);
ENTRY(huber_grad, 3, LOSSES, DJ__NO_GRAD);
ENTRY(bce_logits, 2, LOSSES, grad_bce_logits);

/* ---- cast: any dtype to f32 or bf16, f32 to i32 (toward zero) ---- */

dj_val dj_cast(dj_graph *g, dj_val x, dj_dtype t) {
  if (x != DJ_NONE && dj_val_dtype(g, x) == t) return x;
  dj__cast_attr attr = {t};
  return dj__emit(g, DJ__OP_cast, &x, 1, &attr, sizeof attr);
}

static dj_status infer_cast(dj__infer *s) {
  const dj__cast_attr *attr = s->attr;
  dj_dtype from = s->in[0].dtype;
  if (!dj__is_float(attr->to) && !(attr->to == DJ_I32 && (from == DJ_F32 || from == DJ_U8)))
    return dj__bad(s, "no cast from %s to %s; to f32 or bf16 from anything, to i32 from f32 or u8",
                   dj_dtype_name(from), dj_dtype_name(attr->to));
  dj__set_out(s, 0, attr->to, s->in[0].shape);
  return DJ_OK;
}

GRAD(cast) {
  if (dj__needs_grad(g, n->in[0]) && dj__is_float(dj_val_dtype(g, n->in[0])))
    din[0] = dj_cast(g, DY, dj_val_dtype(g, n->in[0]));
}

static void cost_cast(const dj__call *c, dj__cost *cost) {
  dj__cost_touch(c, cost);
  cost->flops = 0;
}

static int32_t to_i32(double v) {
  return v >= 2147483647.0 ? INT32_MAX : v > -2147483648.0 ? (int32_t)v : v == v ? INT32_MIN : 0;
}

/* Unlike other references this one sees bf16: the conversion is what it is for. */
static dj_status ref_cast(const dj__call *c) {
  const void *x = c->in[0].data;
  void *y = c->out[0].data;
  for (int64_t i = 0, n = dj_shape_count(&c->in[0].shape); i < n; i++) {
    double v = 0;
    switch (c->in[0].dtype) {
    case DJ_F32:
      v = ((const float *)x)[i];
      break;
    case DJ_BF16:
      v = dj_bf16_to_f32(((const uint16_t *)x)[i]);
      break;
    case DJ_I32:
      v = ((const int32_t *)x)[i];
      break;
    default:
      v = ((const uint8_t *)x)[i];
      break;
    }
    switch (c->out[0].dtype) {
    case DJ_F32:
      ((float *)y)[i] = (float)v;
      break;
    case DJ_BF16:
      ((uint16_t *)y)[i] = dj_f32_to_bf16((float)v);
      break;
    case DJ_I32:
      ((int32_t *)y)[i] = to_i32(v);
      break;
    default:
      ((uint8_t *)y)[i] = (uint8_t)v;
      break;
    }
  }
  return DJ_OK;
}

#define CAST_CASE(text, from, dtype_to, big, ...)                                                  \
  {                                                                                                \
    text, 1, {{.dtype = from, .shape = DJ__DIMS(__VA_ARGS__)}},                                    \
        .range = {{from == DJ_I32 || from == DJ_U8 ? 0 : -100.0f, from == DJ_U8 ? 256 : 100, 0}},  \
        DJ__ATTR_OF(dj__cast_attr, dtype_to), .bench = big                                         \
  }
static const dj__sample samples_cast[] = {
    CAST_CASE("f32 to bf16", DJ_F32, DJ_BF16, false, 3, 37),
    CAST_CASE("f32 to f32", DJ_F32, DJ_F32, false, 5),
    CAST_CASE("bf16 to f32", DJ_BF16, DJ_F32, false, 2, 3, 5, 7),
    CAST_CASE("u8 to f32", DJ_U8, DJ_F32, false, 257),
    CAST_CASE("u8 to bf16", DJ_U8, DJ_BF16, false, 3, 5, 3),
    CAST_CASE("i32 to f32", DJ_I32, DJ_F32, false, 31),
    CAST_CASE("f32 to i32", DJ_F32, DJ_I32, false, 67),
    CAST_CASE("u8 to i32", DJ_U8, DJ_I32, false, 13),
    CAST_CASE("camera frames", DJ_U8, DJ_BF16, true, 32, 120, 160, 3),
    CAST_CASE("weights", DJ_F32, DJ_BF16, true, 1024, 4096),
};
DJ__DEFINE_OP(cast, 1, 1, 1, 0, 0, 0, infer_cast, grad_cast, cost_cast, ref_cast, samples_cast);

/* ---- fused: a straight-line program of elementwise ops ---- */

static dj_status infer_fused(dj__infer *s) {
  const dj__fused_attr *attr = s->attr;
  if (s->n_in > DJ__FUSED_IN || attr->n_instr < 0 || attr->n_instr > DJ__FUSED_INSTR ||
      attr->n_out < 1 || attr->n_out > DJ__FUSED_OUT)
    return dj__bad(s, "%d inputs, %d instructions and %d outputs; the most are %d, %d and %d",
                   s->n_in, attr->n_instr, attr->n_out, DJ__FUSED_IN, DJ__FUSED_INSTR,
                   DJ__FUSED_OUT);
  for (int i = 0; i < attr->n_instr; i++) {
    const dj__fused_instr *in = &attr->instr[i];
    int n = in->op == DJ__OP_cast ? 1 : ewise_operands((dj__op)in->op);
    if (n == 0) return dj__bad(s, "instruction %d: op %d is not elementwise", i, in->op);
    const int reg[3] = {in->a, in->b, in->c};
    for (int k = 0; k < n; k++)
      if (reg[k] >= s->n_in + i)
        return dj__bad(s, "instruction %d reads register %d, which is not written yet", i, reg[k]);
  }
  for (int k = 0; k < attr->n_out; k++)
    if (attr->out[k] >= s->n_in + attr->n_instr)
      return dj__bad(s, "output %d is register %d, which does not exist", k, attr->out[k]);
  s->n_out = attr->n_out;
  DJ_TRY(infer_broadcast(s));
  if (!attr->sum) return DJ_OK;
  const dj_shape *shape = &s->out[0].shape;
  if (attr->n_out < 2 || shape->rank < 1 || shape->dim[shape->rank - 1] > DJ__FUSED_COLUMNS)
    return dj__bad(s, "sums need a result beside them, of 1 to %d columns", DJ__FUSED_COLUMNS);
  dj__set_out(s, attr->n_out - 1, DJ_F32, DJ_SHAPE(shape->dim[shape->rank - 1]));
  return DJ_OK;
}

static void cost_fused(const dj__call *c, dj__cost *cost) {
  const dj__fused_attr *attr = c->attr;
  dj__cost_touch(c, cost);
  double flops = attr->sum;
  for (int i = 0; i < attr->n_instr; i++) flops += ewise_flops((dj__op)attr->instr[i].op);
  cost->flops = flops * (double)dj_shape_count(&c->out[0].shape);
}

static double fused_instr(const dj__fused_instr *in, const double *reg) {
  if (in->op == DJ__OP_cast) {
    float v = (float)reg[in->a];
    return in->p == 1 ? dj_bf16_to_f32(dj_f32_to_bf16(v)) : v;
  }
  return dj__ewise_eval((dj__op)in->op, reg[in->a], reg[in->b], reg[in->c], in->p, in->q);
}

/* Inputs may be of any type: the fusion pass takes casts from u8 and i32 in. */
static double element(const dj_tensor *t, int64_t i) {
  switch (t->dtype) {
  case DJ_F32:
    return ((const float *)t->data)[i];
  case DJ_BF16:
    return dj_bf16_to_f32(((const uint16_t *)t->data)[i]);
  case DJ_I32:
    return ((const int32_t *)t->data)[i];
  case DJ_U8:
    return ((const uint8_t *)t->data)[i];
  case DJ_N_DTYPES:
    break;
  }
  return NAN;
}

static dj_status ref_fused(const dj__call *c) {
  const dj__fused_attr *attr = c->attr;
  const int full = c->n_out - attr->sum;
  const int64_t columns = attr->sum ? dj_shape_count(&c->out[full].shape) : 1;
  double sum[DJ__FUSED_COLUMNS] = {0};
  const dj_shape *shape = &c->out[0].shape;
  int64_t stride[DJ__FUSED_IN][DJ_MAX_RANK] = {{0}};
  for (int k = 0; k < c->n_in; k++) dj__broadcast_strides(&c->in[k].shape, shape, stride[k]);
  dj__walk w = dj__walk_over(shape);
  for (int64_t i = 0, n = dj_shape_count(shape); i < n; i++, dj__walk_next(&w)) {
    double reg[DJ__FUSED_IN + DJ__FUSED_INSTR] = {0};
    for (int k = 0; k < c->n_in; k++) reg[k] = element(&c->in[k], dj__walk_offset(&w, stride[k]));
    for (int k = 0; k < attr->n_instr; k++) reg[c->n_in + k] = fused_instr(&attr->instr[k], reg);
    for (int k = 0; k < full; k++) ((float *)c->out[k].data)[i] = (float)reg[attr->out[k]];
    if (attr->sum) sum[i % columns] += reg[attr->out[full]];
  }
  for (int64_t i = 0; attr->sum && i < columns; i++)
    ((float *)c->out[full].data)[i] = (float)sum[i];
  return DJ_OK;
}

static const dj__fused_attr fused_one = {
    .n_instr = 1, .instr = {{DJ__OP_relu, 0, 0, 0, 0, 0}}, .n_out = 1, .out = {1}};
/* silu(x * scale + shift) + residual, rounded to bf16 on the way */
static const dj__fused_attr fused_norm = {.n_instr = 5,
                                          .instr = {{DJ__OP_mul, 0, 1, 0, 0, 0},
                                                    {DJ__OP_add, 4, 2, 0, 0, 0},
                                                    {DJ__OP_silu, 5, 0, 0, 0, 0},
                                                    {DJ__OP_cast, 6, 0, 0, 1, 0},
                                                    {DJ__OP_add, 7, 3, 0, 0, 0}},
                                          .n_out = 1,
                                          .out = {8}};
/* Two outputs and an input handed through: tanh(a + b), exp(-(a + b)), a */
static const dj__fused_attr fused_many = {.n_instr = 4,
                                          .instr = {{DJ__OP_add, 0, 1, 0, 0, 0},
                                                    {DJ__OP_tanh, 2, 0, 0, 0, 0},
                                                    {DJ__OP_affine, 2, 0, 0, -1, 0},
                                                    {DJ__OP_exp, 4, 0, 0, 0, 0}},
                                          .n_out = 3,
                                          .out = {3, 5, 0}};
/* The gradient of a Laplacian loss: several kinds of operand at once */
static const dj__fused_attr fused_loss = {.n_instr = 6,
                                          .instr = {{DJ__OP_sub, 0, 1, 0, 0, 0},
                                                    {DJ__OP_sign, 4, 0, 0, 0, 0},
                                                    {DJ__OP_neg, 2, 0, 0, 0, 0},
                                                    {DJ__OP_exp, 6, 0, 0, 0, 0},
                                                    {DJ__OP_mul, 5, 7, 0, 0, 0},
                                                    {DJ__OP_select, 3, 8, 4, 0, 0}},
                                          .n_out = 2,
                                          .out = {9, 7}};
/* dx behind ReLU, and the gradient of the bias before it */
static const dj__fused_attr fused_relu_grad = {.n_instr = 1,
                                               .instr = {{DJ__OP_relu_grad, 0, 1, 0, 0, 0}},
                                               .n_out = 2,
                                               .out = {2, 2},
                                               .sum = true};
/* a + b rounded, and tanh of it; sums of one that is not kept */
static const dj__fused_attr fused_sums = {.n_instr = 4,
                                          .instr = {{DJ__OP_add, 0, 1, 0, 0, 0},
                                                    {DJ__OP_cast, 2, 0, 0, 1, 0},
                                                    {DJ__OP_tanh, 3, 0, 0, 0, 0},
                                                    {DJ__OP_mul, 4, 0, 0, 0, 0}},
                                          .n_out = 3,
                                          .out = {3, 4, 5},
                                          .sum = true};
#define AWAY   .range = {{-2, 2, 0.1f}, {-2, 2, 0.1f}}
#define IMAGES DJ__F32(32, 60, 80, 32)
static const dj__sample samples_fused[] = {
    {"relu", 1, {DJ__F32(131)}, DJ__ATTR(fused_one)},
    {"norm, activation, residual",
     4,
     {DJ__F32(2, 3, 5, 19), DJ__F32(19), DJ__F32(19), DJ__F32(2, 3, 5, 19)},
     DJ__ATTR(fused_norm)},
    {"norm with scalar and column",
     4,
     {DJ__F32(7, 33), DJ__F32(7, 1), DJ__F32(), DJ__F32(33)},
     DJ__ATTR(fused_norm)},
    {"three outputs", 2, {DJ__F32(3, 67), DJ__F32(3, 67)}, DJ__ATTR(fused_many)},
    {"three outputs, scalar", 2, {DJ__F32(), DJ__F32()}, DJ__ATTR(fused_many)},
    {"loss",
     4,
     {DJ__F32(5, 33), DJ__F32(5, 33), DJ__F32(33), DJ__F32(5, 1)},
     .range = {{-1, 1, 0.01f}, {-1, 1, 0.01f}, {-1, 1, 0}, {-1, 1, 0.01f}},
     DJ__ATTR(fused_loss)},
    {"sums", 2, {DJ__F32(5, 7, 3), DJ__F32(5, 7, 3)}, AWAY, DJ__ATTR(fused_relu_grad)},
    {"sums, one column", 2, {DJ__F32(37, 1), DJ__F32(37, 1)}, DJ__ATTR(fused_sums)},
    {"sums of a row", 2, {DJ__F32(67), DJ__F32(67)}, DJ__ATTR(fused_sums)},
    {"sums of broadcasts", 2, {DJ__F32(4, 9, 48), DJ__F32(9, 1)}, DJ__ATTR(fused_sums)},
    {"threads, sums",
     2,
     {DJ__F32(3, 40, 41, 32), DJ__F32(3, 40, 41, 32)},
     AWAY,
     DJ__ATTR(fused_relu_grad)},
    {"threads, sums of 11", 2, {DJ__F32(3, 41, 37, 11), DJ__F32(11)}, DJ__ATTR(fused_sums)},
    {"threads, sums of 1000", 2, {DJ__F32(31, 1000), DJ__F32(31, 1000)}, DJ__ATTR(fused_sums)},
    {"ReLU's gradient, sums", 2, {IMAGES, IMAGES}, AWAY, DJ__ATTR(fused_relu_grad), .bench = true},
    {"image batch",
     4,
     {IMAGES, DJ__F32(32), DJ__F32(32), IMAGES},
     DJ__ATTR(fused_norm),
     .bench = true},
};
DJ__DEFINE_OP(fused, 1, DJ__FUSED_IN, DJ__FUSED_OUT, DJ__FOLLOW | DJ__INPLACE,
              (1u << DJ__FUSED_IN) - 1, 0, infer_fused, DJ__NO_GRAD, cost_fused, ref_fused,
              samples_fused);
