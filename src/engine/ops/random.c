/*
 * Dropout (Srivastava et al. 2014), scaled at training time. Whether an element stays is a pure
 * function of (seed, step, the node's stream, its index), so that the gradient is the same op with
 * the same stream on dy, and no mask is stored.
 */
#include "dojo/ops.h"
#include "engine/attrs.h"
#include "engine/ops/common.h"

static dj_status dropout_infer(dj__infer *s) {
  const dj__dropout_attr *a = s->attr;
  DJ_TRY(dj__want_float(s, 0, -1));
  if (!(a->p >= 0 && a->p < 1)) return dj__bad(s, "p is %g, must be in [0, 1)", (double)a->p);
  s->out[0].shape = s->in[0].shape;
  return DJ_OK;
}

static void dropout_backward(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  din[0] = dj__emit(g, DJ__OP_dropout, dout, 1, n->attr, n->attr_size);
}

/* A Philox block of four numbers is 10 rounds of about 10 operations. */
static void dropout_cost(const dj__call *c, dj__cost *cost) {
  dj__cost_touch(c, cost);
  cost->flops = 26.0 * (double)dj_shape_count(&c->in[0].shape);
}

static dj_status dropout_ref(const dj__call *call) {
  const dj__dropout_attr *a = call->attr;
  const float *x = call->in[0].data; // (...) f32
  float *y = call->out[0].data;      // (...) f32
  float scale = 1.0f / (1.0f - a->p);
  int64_t n = dj_shape_count(&call->in[0].shape);
  for (int64_t i = 0; i < n; i += 4) {
    dj__u32x4 r = dj__dropout_block(call->seed, call->step, a->stream, (uint64_t)i / 4);
    for (int64_t k = 0; k < 4 && i + k < n; k++)
      y[i + k] = r.v[k] >= a->threshold ? x[i + k] * scale : 0.0f;
  }
  return DJ_OK;
}

static const dj__dropout_attr tenth = {.stream = 3, .p = 0.1f, .threshold = 429496736u};
static const dj__dropout_attr half = {.stream = 1, .p = 0.5f, .threshold = 0x80000000u};
static const dj__sample dropout_samples[] = {
    {.label = "tenth", .n_in = 1, .in = {DJ__F32(3, 5, 7)}, DJ__ATTR(tenth)},
    {.label = "half", .n_in = 1, .in = {DJ__F32(64, 33)}, DJ__ATTR(half)},
    {.label = "threads", .n_in = 1, .in = {DJ__F32(41, 1003)}, DJ__ATTR(tenth)},
    {.label = "bench_4096x512",
     .n_in = 1,
     .in = {DJ__F32(4096, 512)},
     DJ__ATTR(tenth),
     .bench = true}};

DJ__DEFINE_OP(dropout, 1, 1, 1, DJ__FOLLOW | DJ__RANDOM, 1u, 0, dropout_infer, dropout_backward,
              dropout_cost, dropout_ref, dropout_samples);

dj_val dj_dropout(dj_graph *g, dj_val x, float p) {
  if (p == 0.0f) return x;
  dj__dropout_attr a;
  memset(&a, 0, sizeof a);
  a.stream = x == DJ_NONE ? 0 : dj__graph_stream(g);
  a.p = p;
  if (p > 0 && p < 1) a.threshold = (uint32_t)((double)p * 0x1p32);
  return dj__emit(g, DJ__OP_dropout, &x, 1, &a, sizeof a);
}
