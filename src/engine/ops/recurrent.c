/*
 * The gated recurrent unit's cell (Cho et al. 2014) without its matrix products, in the form that
 * applies the reset gate after the product (as cuDNN and PyTorch do):
 *   r = sigmoid(gx_r + gh_r), z = sigmoid(gx_z + gh_z), n = tanh(gx_n + r * gh_n),
 *   h' = (1 - z) * n + z * h
 * gx, gh (B, 3H) hold reset, update and new gates side by side; h, h' (B, H).
 */
#include "dojo/ops.h"
#include "engine/ops/common.h"

/* ---- shapes ---- */

static dj_status check(const dj__infer *s, dj_shape *h) {
  DJ_TRY(dj__want_float(s, 0, 2));
  DJ_TRY(dj__want_float(s, 2, 2));
  const int64_t *hd = s->in[2].shape.dim;
  int64_t gates;
  if (__builtin_mul_overflow(hd[1], (int64_t)3, &gates))
    return dj__bad(s, "width %lld is too large", (long long)hd[1]);
  DJ_TRY(dj__want_shape(s, 0, &DJ_SHAPE(hd[0], gates)));
  DJ_TRY(dj__want_shape(s, 1, &DJ_SHAPE(hd[0], gates)));
  *h = s->in[2].shape;
  return DJ_OK;
}

static dj_status gru_cell_infer(dj__infer *s) {
  return check(s, &s->out[0].shape);
}

static dj_status gru_cell_grad_infer(dj__infer *s) {
  dj_shape h = {0};
  DJ_TRY(check(s, &h));
  DJ_TRY(dj__want_shape(s, 3, &h));
  for (int i = 0; i < 3; i++) dj__set_out(s, i, s->in[i].dtype, s->in[i].shape);
  return DJ_OK;
}

/* ---- gradient ---- */

static void gru_cell_backward(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  dj_val dgx = dj__emit(g, DJ__OP_gru_cell_grad, (dj_val[]){n->in[0], n->in[1], n->in[2], dout[0]},
                        4, NULL, 0);
  if (dgx == DJ_NONE) return;
  for (int i = 0; i < 3; i++) din[i] = dj__sibling(g, dgx, i);
}

/* ---- cost ---- */

static void gru_cost(const dj__call *c, dj__cost *cost) {
  dj__cost_touch(c, cost);
  cost->flops = (c->op == DJ__OP_gru_cell ? 42.0 : 62.0) * (double)dj_shape_count(&c->in[2].shape);
}

/* ---- reference kernels ---- */

typedef struct gates {
  double r, z, n;
} gates;

static double sigmoid(double x) {
  return 1 / (1 + exp(-x));
}

/* gx, gh: one row (3H); i: unit. */
static gates gates_at(const float *gx, const float *gh, int64_t width, int64_t i) {
  double r = sigmoid((double)gx[i] + (double)gh[i]);
  double z = sigmoid((double)gx[width + i] + (double)gh[width + i]);
  return (gates){r, z, tanh((double)gx[2 * width + i] + r * (double)gh[2 * width + i])};
}

static dj_status gru_cell_ref(const dj__call *call) {
  const int64_t *d = call->in[2].shape.dim;
  const float *gx = call->in[0].data; // (B, 3H) f32
  const float *gh = call->in[1].data; // (B, 3H) f32
  const float *h = call->in[2].data;  // (B, H) f32
  float *y = call->out[0].data;       // (B, H) f32
  for (int64_t b = 0; b < d[0]; b++, gx += 3 * d[1], gh += 3 * d[1], h += d[1], y += d[1])
    for (int64_t i = 0; i < d[1]; i++) {
      gates k = gates_at(gx, gh, d[1], i);
      y[i] = (float)((1 - k.z) * k.n + k.z * (double)h[i]);
    }
  return DJ_OK;
}

static dj_status gru_cell_grad_ref(const dj__call *call) {
  const int64_t *d = call->in[2].shape.dim, w = d[1];
  const float *gx = call->in[0].data; // (B, 3H) f32
  const float *gh = call->in[1].data; // (B, 3H) f32
  const float *h = call->in[2].data;  // (B, H) f32
  const float *dy = call->in[3].data; // (B, H) f32
  float *dgx = call->out[0].data;     // (B, 3H) f32
  float *dgh = call->out[1].data;     // (B, 3H) f32
  float *dh = call->out[2].data;      // (B, H) f32
  for (int64_t b = 0; b < d[0]; b++) {
    for (int64_t i = 0; i < w; i++) {
      gates k = gates_at(gx, gh, w, i);
      double g = (double)dy[i], an = g * (1 - k.z) * (1 - k.n * k.n);
      double ar = an * (double)gh[2 * w + i] * k.r * (1 - k.r);
      double az = g * ((double)h[i] - k.n) * k.z * (1 - k.z);
      dgx[i] = dgh[i] = (float)ar;
      dgx[w + i] = dgh[w + i] = (float)az;
      dgx[2 * w + i] = (float)an;
      dgh[2 * w + i] = (float)(an * k.r);
      dh[i] = (float)(g * k.z);
    }
    gx += 3 * w, gh += 3 * w, h += w, dy += w;
    dgx += 3 * w, dgh += 3 * w, dh += w;
  }
  return DJ_OK;
}

/* ---- samples ---- */

#define GRU_SAMPLES(X)                                                                             \
  X("small", 3, 5, 2.0f, false)                                                                    \
  X("odd", 2, 33, 1.0f, false)                                                                     \
  X("saturated", 2, 8, 12.0f, false)                                                               \
  X("threads", 17, 300, 3.0f, false)                                                               \
  X("bench_256x256", 256, 256, 2.0f, true)
#define GRU(nm, B, H, r, b)                                                                        \
  {.label = nm,                                                                                    \
   .n_in = 3,                                                                                      \
   .in = {DJ__F32(B, 3 * (H)), DJ__F32(B, 3 * (H)), DJ__F32(B, H)},                                \
   .range = {{.lo = -(r), .hi = r}, {.lo = -(r), .hi = r}},                                        \
   .bench = b},
#define GRU_GRAD(nm, B, H, r, b)                                                                   \
  {.label = nm,                                                                                    \
   .n_in = 4,                                                                                      \
   .in = {DJ__F32(B, 3 * (H)), DJ__F32(B, 3 * (H)), DJ__F32(B, H), DJ__F32(B, H)},                 \
   .range = {{.lo = -(r), .hi = r}, {.lo = -(r), .hi = r}},                                        \
   .bench = b},
static const dj__sample gru_cell_samples[] = {GRU_SAMPLES(GRU)};
static const dj__sample gru_cell_grad_samples[] = {GRU_SAMPLES(GRU_GRAD)};

DJ__DEFINE_OP(gru_cell, 3, 3, 1, DJ__FOLLOW, 7u, 0, gru_cell_infer, gru_cell_backward, gru_cost,
              gru_cell_ref, gru_cell_samples);
DJ__DEFINE_OP(gru_cell_grad, 4, 4, 3, DJ__FOLLOW, 15u, 0, gru_cell_grad_infer, DJ__NO_GRAD,
              gru_cost, gru_cell_grad_ref, gru_cell_grad_samples);

/* ---- public constructor ---- */

dj_val dj_gru_cell(dj_graph *g, dj_val gx, dj_val gh, dj_val h) {
  return dj__emit(g, DJ__OP_gru_cell, (dj_val[]){gx, gh, h}, 3, NULL, 0);
}
