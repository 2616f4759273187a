/*
 * Updates of persistent variables: the optimisers' steps over all variables of a network in one
 * node, gradient accumulation, assignment, running statistics; and the global norm that guards the
 * optimisers. Updates have effects instead of outputs: a program runs them after every reader of
 * the old value. Everything is f32; gradients on their way to an optimiser may be bf16.
 *
 * AdamW: Loshchilov & Hutter 2019. SGD with momentum in PyTorch's form (m = beta1 m + g). The
 * averaged weights are ema += (1 - decay) * (param - ema), after the step.
 */
#include "dojo/ops.h"
#include "engine/attrs.h"
#include "engine/graph.h"
#include "engine/ops/common.h"

enum { MANY = 1 << 20 }; /* inputs of a node: more variables than any network has */
#define WRITES_UPDATE_LAYOUT (1u << 31)

/* ---- shapes ---- */

/* Input i is absent, or f32 of this shape. */
static dj_status want_optional(const dj__infer *s, int i, const dj_shape *shape) {
  return s->in[i].shape.rank < 0 ? DJ_OK : dj__want_f32(s, i, shape);
}

/* Input i is a gradient of this shape. */
static dj_status want_gradient(const dj__infer *s, int i, const dj_shape *shape) {
  return s->in[i].dtype == DJ_BF16 ? dj__want_shape(s, i, shape) : dj__want_f32(s, i, shape);
}

static dj_status update_infer(dj__infer *s, bool second_moment) {
  const dj__update_attr *a = s->attr;
  DJ_TRY(dj__want_f32(s, 0, &DJ_SHAPE(DJ__N_HYPER)));
  DJ_TRY(dj__want_f32(s, 1, &DJ_SHAPE(2)));
  if (s->n_in != DJ__UPDATE_FIRST + DJ__UPDATE_PER_VAR * (int64_t)a->n)
    return dj__bad(s, "has %d inputs for %d variables", s->n_in, a->n);
  for (int i = 0; i < a->n; i++) {
    int at = DJ__UPDATE_FIRST + DJ__UPDATE_PER_VAR * i;
    const dj_shape *p = &s->in[at].shape;
    if (!isfinite(a->var[i].weight_decay) || !isfinite(a->var[i].lr_scale))
      return dj__bad(s, "variable %d has a weight decay or learning rate factor that is not finite",
                     i);
    DJ_TRY(dj__want_f32(s, at, p));
    DJ_TRY(want_gradient(s, at + 1, p));
    DJ_TRY(dj__want_f32(s, at + 2, p));
    DJ_TRY(second_moment ? dj__want_f32(s, at + 3, p) : want_optional(s, at + 3, p));
    DJ_TRY(want_optional(s, at + 4, p));
  }
  s->n_out = 0;
  return DJ_OK;
}

static dj_status adamw_infer(dj__infer *s) {
  return update_infer(s, true);
}
static dj_status sgd_infer(dj__infer *s) {
  return update_infer(s, false);
}

static dj_status pair_infer(dj__infer *s) {
  DJ_TRY(dj__want_f32(s, 0, &s->in[0].shape));
  DJ_TRY(dj__want_f32(s, 1, &s->in[0].shape));
  s->n_out = 0;
  return DJ_OK;
}

static dj_status running_update_infer(dj__infer *s) {
  const dj__running_attr *a = s->attr;
  for (int i = 0; i < 4; i++) DJ_TRY(dj__want_f32(s, i, &s->in[2].shape));
  if (!(a->momentum >= 0 && a->momentum <= 1))
    return dj__bad(s, "momentum is %g, must be in 0..1", (double)a->momentum);
  s->n_out = 0;
  return DJ_OK;
}

static dj_status global_norm_infer(dj__infer *s) {
  for (int i = 0; i < s->n_in; i++) DJ_TRY(want_gradient(s, i, &s->in[i].shape));
  dj__set_out(s, 0, DJ_F32, DJ_SCALAR);
  return DJ_OK;
}

/* ---- cost ---- */

static double elements(const dj__call *c) {
  double n = 0;
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i].shape.rank >= 0) n += (double)dj_shape_count(&c->in[i].shape);
  return n;
}

static double bytes_of(const dj__call *c, int i) {
  return c->in[i].shape.rank < 0 ? 0 : (double)dj_tensor_bytes(&c->in[i]);
}

static void optimizer_cost(const dj__call *c, dj__cost *cost) {
  dj__cost_touch(c, cost);
  cost->flops = cost->bytes_written = 0;
  for (int i = DJ__UPDATE_FIRST; i + DJ__UPDATE_PER_VAR <= c->n_in; i += DJ__UPDATE_PER_VAR) {
    cost->flops += (c->op == DJ__OP_adamw ? 16.0 : 6.0) * (double)dj_shape_count(&c->in[i].shape);
    cost->bytes_written +=
        bytes_of(c, i) + bytes_of(c, i + 2) + bytes_of(c, i + 3) + bytes_of(c, i + 4);
  }
}

static void state_cost(const dj__call *c, dj__cost *cost) {
  dj__cost_touch(c, cost);
  cost->flops = c->op == DJ__OP_assign ? 0 : elements(c);
  cost->bytes_written = bytes_of(c, 0) + (c->op == DJ__OP_running_update ? bytes_of(c, 1) : 0);
}

static void global_norm_cost(const dj__call *c, dj__cost *cost) {
  dj__cost_touch(c, cost);
  cost->flops = 2 * elements(c);
}

/* ---- reference kernels ---- */

static float *floats(const dj__call *c, int i) {
  return c->in[i].shape.rank < 0 ? NULL : c->in[i].data;
}

static void average(float *ema, const float *p, int64_t n, float decay) {
  for (int64_t i = 0; i < n; i++)
    ema[i] = (float)((double)ema[i] + (1 - (double)decay) * ((double)p[i] - (double)ema[i]));
}

static dj_status adamw_ref(const dj__call *call) {
  const dj__update_attr *a = call->attr;
  const float *h = call->in[0].data; // (8) f32
  float clip;
  if (!dj__update_clip(h, call->in[1].data, &clip)) return DJ_OK;
  const double rest1 = 1 - (double)h[DJ__HYPER_BETA1], rest2 = 1 - (double)h[DJ__HYPER_BETA2];
  const bool first = dj__update_is_first(h);
  double b1 = first ? 0 : 1 - rest1, b2 = first ? 0 : 1 - rest2;
  double c1 = (double)h[DJ__HYPER_CORRECT1], c2 = (double)h[DJ__HYPER_CORRECT2];
  for (int k = 0; k < a->n; k++) {
    int at = DJ__UPDATE_FIRST + DJ__UPDATE_PER_VAR * k;
    float *p = floats(call, at), *m = floats(call, at + 2), *v = floats(call, at + 3);
    const float *grad = floats(call, at + 1);
    double lr = (double)h[DJ__HYPER_LR] * (double)a->var[k].lr_scale;
    double decay = (double)a->var[k].weight_decay;
    int64_t n = dj_shape_count(&call->in[at].shape);
    for (int64_t i = 0; i < n; i++) {
      double g = (double)grad[i] * (double)clip;
      double mi = b1 * (double)m[i] + rest1 * g, vi = b2 * (double)v[i] + rest2 * g * g;
      double step = mi / c1 / (sqrt(vi / c2) + (double)h[DJ__HYPER_EPS]);
      m[i] = (float)mi;
      v[i] = (float)vi;
      p[i] = (float)((double)p[i] - lr * (step + decay * (double)p[i]));
    }
    float *ema = floats(call, at + 4);
    if (ema) average(ema, p, n, h[DJ__HYPER_EMA]);
  }
  return DJ_OK;
}

static dj_status sgd_ref(const dj__call *call) {
  const dj__update_attr *a = call->attr;
  const float *h = call->in[0].data; // (8) f32
  float clip;
  if (!dj__update_clip(h, call->in[1].data, &clip)) return DJ_OK;
  for (int k = 0; k < a->n; k++) {
    int at = DJ__UPDATE_FIRST + DJ__UPDATE_PER_VAR * k;
    float *p = floats(call, at), *m = floats(call, at + 2);
    const float *grad = floats(call, at + 1);
    double lr = (double)h[DJ__HYPER_LR] * (double)a->var[k].lr_scale;
    double decay = (double)a->var[k].weight_decay, beta = (double)h[DJ__HYPER_BETA1];
    int64_t n = dj_shape_count(&call->in[at].shape);
    for (int64_t i = 0; i < n; i++) {
      double g = (double)grad[i] * (double)clip + decay * (double)p[i];
      double mi = beta * (double)m[i] + g;
      m[i] = (float)mi;
      p[i] = (float)((double)p[i] - lr * mi);
    }
    float *ema = floats(call, at + 4);
    if (ema) average(ema, p, n, h[DJ__HYPER_EMA]);
  }
  return DJ_OK;
}

static dj_status global_norm_ref(const dj__call *call) {
  double total = 0;
  for (int k = 0; k < call->n_in; k++) {
    const float *x = call->in[k].data; // (...) f32
    int64_t n = dj_shape_count(&call->in[k].shape);
    for (int64_t i = 0; i < n; i += DJ__NORM_BLOCK) {
      int64_t end = i + DJ__NORM_BLOCK < n ? i + DJ__NORM_BLOCK : n;
      double sum = 0;
      for (int64_t j = i; j < end; j++) sum += (double)x[j] * (double)x[j];
      total += sum;
    }
  }
  *(float *)call->out[0].data = (float)sqrt(total);
  return DJ_OK;
}

static dj_status accumulate_ref(const dj__call *call) {
  const dj__accumulate_attr *a = call->attr;
  float *state = call->in[0].data;
  const float *x = call->in[1].data;
  int64_t n = dj_shape_count(&call->in[0].shape);
  for (int64_t i = 0; i < n; i++) state[i] += a->scale * x[i];
  return DJ_OK;
}

static dj_status assign_ref(const dj__call *call) {
  memmove(call->in[0].data, call->in[1].data, dj_tensor_bytes(&call->in[0]));
  return DJ_OK;
}

static dj_status running_update_ref(const dj__call *call) {
  const dj__running_attr *a = call->attr;
  float *rm = call->in[0].data, *rv = call->in[1].data;          // (C) f32
  const float *mean = call->in[2].data, *inv = call->in[3].data; // (C) f32
  double k = (double)a->momentum;
  for (int64_t c = 0; c < call->in[0].shape.dim[0]; c++) {
    double var = 1 / ((double)inv[c] * (double)inv[c]) - (double)a->eps;
    var = (var > 0 ? var : 0) * (double)a->unbias;
    rm[c] = (float)((double)rm[c] + k * ((double)mean[c] - (double)rm[c]));
    rv[c] = (float)((double)rv[c] + k * (var - (double)rv[c]));
  }
  return DJ_OK;
}

/* ---- samples ---- */

/* As the flexible attribute, with room for two variables. */
typedef struct two_vars {
  int n;
  dj__update_var var[2];
} two_vars;
static const two_vars one_var = {1, {{0.1f, 1.0f}}};
static const two_vars no_decay = {1, {{0.0f, 0.5f}}};

/* Hyperparameters are drawn from a range too: all of lr, beta1, .. lie in it. */
#define HYPER                                                                                      \
  { .lo = 0.1f, .hi = 0.9f }
#define SECOND_MOMENT                                                                              \
  { .lo = 0.01f, .hi = 1.0f }
#define UPDATE(nm, at, v, ema, bn, ...)                                                            \
  {                                                                                                \
    .label = nm, .n_in = 7, .in = {DJ__F32(8),                                                     \
                                   DJ__F32(2),                                                     \
                                   DJ__F32(__VA_ARGS__),                                           \
                                   DJ__F32(__VA_ARGS__),                                           \
                                   DJ__F32(__VA_ARGS__),                                           \
                                   v,                                                              \
                                   ema},                                                           \
    .range = {HYPER, {.lo = 1, .hi = 2}, [5] = SECOND_MOMENT}, .attr = &(at),                      \
    .attr_size = sizeof(int) + sizeof(dj__update_var), .bench = bn                                 \
  }
static const dj__sample adamw_samples[] = {
    UPDATE("ema", one_var, DJ__F32(3, 5, 7), DJ__F32(3, 5, 7), false, 3, 5, 7),
    UPDATE("no_ema", no_decay, DJ__F32(65), DJ__ABSENT, false, 65),
    UPDATE("scalar_like", one_var, DJ__F32(1), DJ__F32(1), false, 1),
    UPDATE("threads", one_var, DJ__F32(41, 1001), DJ__F32(41, 1001), false, 41, 1001),
    UPDATE("bench_4M", one_var, DJ__F32(4096, 1024), DJ__F32(4096, 1024), true, 4096, 1024)};
static const dj__sample sgd_samples[] = {
    UPDATE("ema", one_var, DJ__ABSENT, DJ__F32(3, 5, 7), false, 3, 5, 7),
    UPDATE("no_ema", no_decay, DJ__ABSENT, DJ__ABSENT, false, 65),
    UPDATE("threads", one_var, DJ__ABSENT, DJ__F32(41, 1001), false, 41, 1001),
    UPDATE("bench_4M", one_var, DJ__ABSENT, DJ__ABSENT, true, 4096, 1024)};
static const dj__sample global_norm_samples[] = {
    {.label = "one", .n_in = 1, .in = {DJ__F32(3, 5)}},
    {.label = "several",
     .n_in = 4,
     .in = {DJ__F32(5000), DJ__F32(1), DJ__F32(4096), DJ__F32(3, 8193)}},
    {.label = "large_values",
     .n_in = 2,
     .in = {DJ__F32(100), DJ__F32(7)},
     .range = {{.lo = 1e20f, .hi = 1e25f}, {.lo = -1e25f, .hi = 1e25f}}},
    {.label = "threads", .n_in = 3, .in = {DJ__F32(9, 4097), DJ__F32(7), DJ__F32(8192)}},
    {.label = "bench_4M", .n_in = 1, .in = {DJ__F32(4096, 1024)}, .bench = true}};

static const dj__accumulate_attr quarter = {.scale = 0.25f};
static const dj__sample accumulate_samples[] = {
    {.label = "odd", .n_in = 2, .in = {DJ__F32(3, 5, 7), DJ__F32(3, 5, 7)}, DJ__ATTR(quarter)},
    {.label = "threads", .n_in = 2, .in = {DJ__F32(40961), DJ__F32(40961)}, DJ__ATTR(quarter)},
    {.label = "bench_4M",
     .n_in = 2,
     .in = {DJ__F32(4096, 1024), DJ__F32(4096, 1024)},
     DJ__ATTR(quarter),
     .bench = true}};
static const dj__sample assign_samples[] = {
    {.label = "odd", .n_in = 2, .in = {DJ__F32(3, 5, 7), DJ__F32(3, 5, 7)}},
    {.label = "threads", .n_in = 2, .in = {DJ__F32(40961), DJ__F32(40961)}}};
static const dj__running_attr running = {.momentum = 0.1f, .eps = 1e-5f, .unbias = 1.125f};
static const dj__sample running_update_samples[] = {
    {.label = "odd",
     .n_in = 4,
     .in = {DJ__F32(17), DJ__F32(17), DJ__F32(17), DJ__F32(17)},
     .range = {[3] = {.lo = 0.5f, .hi = 2.0f}},
     DJ__ATTR(running)}};

enum { OPTIMIZER_FLAGS = DJ__EFFECT | DJ__F32_ONLY };
/* Gradients, which may be bf16: of a norm all inputs, of an optimiser the first variable's. */
enum { FOLLOW_NORM = -1, FOLLOW_FIRST = 1 << (DJ__UPDATE_FIRST + 1) };

DJ__DEFINE_OP(global_norm, 1, MANY, 1, DJ__F32_ONLY, (uint32_t)FOLLOW_NORM, 0, global_norm_infer,
              DJ__NO_GRAD, global_norm_cost, global_norm_ref, global_norm_samples);
DJ__DEFINE_OP(adamw, 7, MANY, 0, OPTIMIZER_FLAGS, FOLLOW_FIRST, WRITES_UPDATE_LAYOUT, adamw_infer,
              DJ__NO_GRAD, optimizer_cost, adamw_ref, adamw_samples);
DJ__DEFINE_OP(sgd, 7, MANY, 0, OPTIMIZER_FLAGS, FOLLOW_FIRST, WRITES_UPDATE_LAYOUT, sgd_infer,
              DJ__NO_GRAD, optimizer_cost, sgd_ref, sgd_samples);
DJ__DEFINE_OP(accumulate, 2, 2, 0, OPTIMIZER_FLAGS, 0, 1u, pair_infer, DJ__NO_GRAD, state_cost,
              accumulate_ref, accumulate_samples);
DJ__DEFINE_OP(assign, 2, 2, 0, OPTIMIZER_FLAGS, 0, 1u, pair_infer, DJ__NO_GRAD, state_cost,
              assign_ref, assign_samples);
DJ__DEFINE_OP(running_update, 4, 4, 0, OPTIMIZER_FLAGS, 0, 3u, running_update_infer, DJ__NO_GRAD,
              state_cost, running_update_ref, running_update_samples);

/* ---- public constructors ---- */

/* Variables whose gradient is DJ_NONE (the loss does not depend on them) are left out. */
static void emit_update(dj_graph *g, dj__op op, dj_val hyper, dj_val guard, const dj_update *u,
                        int n) {
  if (n <= 0 || dj_graph_status(g)) return;
  size_t attr_size = sizeof(dj__update_attr) + (size_t)n * sizeof(dj__update_var);
  size_t n_in = DJ__UPDATE_FIRST + DJ__UPDATE_PER_VAR * (size_t)n;
  dj_val *in = dj__arena_alloc(&g->arena, n_in * sizeof(dj_val));
  dj__update_attr *a = dj__arena_alloc(&g->arena, attr_size);
  if (!in || !a) {
    dj__graph_fail(g, dj_error(DJ_E_NOMEM, "out of memory for an update of %d variables", n));
    return;
  }
  in[0] = hyper;
  in[1] = guard;
  a->n = 0;
  for (int i = 0; i < n; i++) {
    if (u[i].grad == DJ_NONE) continue;
    dj_val *at = in + DJ__UPDATE_FIRST + (ptrdiff_t)DJ__UPDATE_PER_VAR * a->n;
    at[0] = u[i].param;
    at[1] = u[i].grad;
    at[2] = u[i].m;
    at[3] = u[i].v;
    at[4] = u[i].ema;
    a->var[a->n++] = (dj__update_var){u[i].weight_decay, u[i].lr_scale};
  }
  if (a->n > 0)
    dj__emit(g, op, in, DJ__UPDATE_FIRST + DJ__UPDATE_PER_VAR * a->n, a,
             sizeof *a + (size_t)a->n * sizeof a->var[0]);
}

void dj_adamw(dj_graph *g, dj_val hyper, dj_val guard, const dj_update *u, int n) {
  emit_update(g, DJ__OP_adamw, hyper, guard, u, n);
}

void dj_sgd(dj_graph *g, dj_val hyper, dj_val guard, const dj_update *u, int n) {
  emit_update(g, DJ__OP_sgd, hyper, guard, u, n);
}

dj_val dj_global_norm(dj_graph *g, const dj_val *x, int n) {
  return dj__emit(g, DJ__OP_global_norm, x, n, NULL, 0);
}

void dj_accumulate(dj_graph *g, dj_val state, dj_val x, float scale) {
  dj__accumulate_attr a = {.scale = scale};
  dj__emit(g, DJ__OP_accumulate, (dj_val[]){state, x}, 2, &a, sizeof a);
}

void dj_assign(dj_graph *g, dj_val state, dj_val x) {
  dj__emit(g, DJ__OP_assign, (dj_val[]){state, x}, 2, NULL, 0);
}
