/*
 * Rotary positions (Su et al. 2021) in the halves form of Llama: of the D numbers of a head, i and
 * i + D/2 are turned together by the angle position * theta^(-2i / D). And attention over a cache
 * of earlier keys and values, for writing text token by token.
 */
#include "dojo/ops.h"
#include "engine/attrs.h"
#include "engine/ops/common.h"

/* ---- shapes ---- */

static dj_status want_positions(const dj__infer *s, int i, int64_t t) {
  const dj_tensor *p = &s->in[i];
  if (p->dtype != DJ_I32 || p->shape.rank != 1 || p->shape.dim[0] != t)
    return dj__bad(s, "input %d must be i32 of shape (%lld), a position for each token", i,
                   (long long)t);
  return DJ_OK;
}

static dj_status rotary_infer(dj__infer *s) {
  const dj__rotary_attr *a = s->attr;
  DJ_TRY(dj__want_float(s, 0, 4));
  const int64_t *d = s->in[0].shape.dim;
  DJ_TRY(want_positions(s, 1, d[1]));
  if (d[3] % 2)
    return dj__bad(s, "heads have %lld numbers; an even number is needed", (long long)d[3]);
  if (a->heads < 0 || a->heads > d[2])
    return dj__bad(s, "%d heads to turn of %lld", a->heads, (long long)d[2]);
  if (!(a->theta >= 1) || !isfinite(a->theta)) return dj__bad(s, "theta is %g", (double)a->theta);
  s->out[0].shape = s->in[0].shape;
  return DJ_OK;
}

static dj_status attention_cached_infer(dj__infer *s) {
  DJ_TRY(dj__want_float(s, 0, 4));
  DJ_TRY(dj__want_float(s, 1, 4));
  const int64_t *x = s->in[0].shape.dim, *k = s->in[1].shape.dim;
  DJ_TRY(dj__want_shape(s, 2, &s->in[1].shape));
  DJ_TRY(want_positions(s, 3, x[1]));
  int64_t heads;
  if (k[0] != x[0] || k[3] != x[3])
    return dj__bad(s, "tokens have batch %lld and width %lld, the cache %lld and %lld",
                   (long long)x[0], (long long)x[3], (long long)k[0], (long long)k[3]);
  DJ_TRY(dj__query_heads(s, x[2], k[1], &heads));
  s->out[0].shape = DJ_SHAPE(x[0], x[1], heads, x[3]);
  return DJ_OK;
}

/* ---- gradient ---- */

static void rotary_backward(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  dj__rotary_attr a = *(const dj__rotary_attr *)n->attr;
  a.back = !a.back;
  din[0] = dj__emit(g, DJ__OP_rotary, (dj_val[]){dout[0], n->in[1]}, 2, &a, sizeof a);
}

/* ---- cost ---- */

static void rotary_cost(const dj__call *c, dj__cost *cost) {
  dj__cost_touch(c, cost);
  cost->flops = 3.0 * (double)dj_shape_count(&c->in[0].shape);
}

/* As if every token saw the whole cache. */
static void attention_cached_cost(const dj__call *c, dj__cost *cost) {
  dj__cost_touch(c, cost);
  cost->flops = (4.0 + 5.0 / (double)c->in[1].shape.dim[3]) *
                (double)dj_shape_count(&c->out[0].shape) * (double)c->in[1].shape.dim[2];
}

/* ---- reference kernels ---- */

static dj_status rotary_ref(const dj__call *call) {
  const dj__rotary_attr *a = call->attr;
  const int64_t *d = call->in[0].shape.dim, half = d[3] / 2;
  const float *x = call->in[0].data;          // (B, T, N, D) f32
  const int32_t *position = call->in[1].data; // (T) i32
  float *y = call->out[0].data;               // (B, T, N, D) f32
  for (int64_t row = 0; row < d[0] * d[1] * d[2]; row++, x += d[3], y += d[3])
    for (int64_t i = 0; i < half; i++) {
      double angle = dj__rotary_angle(a, position[row / d[2] % d[1]], i, d[3]);
      double c = row % d[2] < a->heads ? cos(angle) : 1, s = row % d[2] < a->heads ? sin(angle) : 0;
      double u = (double)x[i], v = (double)x[i + half]; // y may be x
      y[i] = (float)(u * c - v * s);
      y[i + half] = (float)(v * c + u * s);
    }
  return DJ_OK;
}

/* One query: q (D), keys and values (n, D) -> o (D) */
static void attend(const float *q, const float *keys, const float *values, int64_t n, int64_t d,
                   double scale, float *o) {
  double max = -INFINITY, sum = 0;
  for (int64_t s = 0; s < n; s++) {
    double dot = 0;
    for (int64_t i = 0; i < d; i++) dot += (double)q[i] * (double)keys[s * d + i];
    max = fmax(max, dot * scale);
  }
  for (int64_t i = 0; i < d; i++) o[i] = 0;
  for (int64_t s = 0; s < n; s++) {
    double dot = 0;
    for (int64_t i = 0; i < d; i++) dot += (double)q[i] * (double)keys[s * d + i];
    double e = exp(dot * scale - max);
    sum += e;
    for (int64_t i = 0; i < d; i++) o[i] += (float)(e * (double)values[s * d + i]);
  }
  for (int64_t i = 0; i < d; i++) o[i] = (float)((double)o[i] / sum);
}

static dj_status attention_cached_ref(const dj__call *call) {
  const dj__attention_attr *a = call->attr;
  const int64_t *x = call->in[0].shape.dim, *k = call->in[1].shape.dim, d = x[3], t = x[1];
  const int64_t heads = x[2] - 2 * k[1], group = heads / k[1];
  const float *in = call->in[0].data;                         // (B, T, N, D) f32
  float *keys = call->in[1].data, *values = call->in[2].data; // (B, HK, S, D) f32
  const int32_t *position = call->in[3].data;                 // (T) i32
  float *out = call->out[0].data;                             // (B, T, H, D) f32
  DJ_TRY(dj__check_positions(position, t, k[2]));
  for (int64_t b = 0; b < x[0]; b++) {
    for (int64_t i = 0; i < t; i++)
      for (int64_t h = 0; h < k[1]; h++) {
        int64_t to = ((b * k[1] + h) * k[2] + position[i]) * d;
        const float *from = in + ((b * t + i) * x[2] + heads + h) * d;
        memcpy(keys + to, from, (size_t)d * sizeof *keys);
        memcpy(values + to, from + k[1] * d, (size_t)d * sizeof *values);
      }
    for (int64_t i = 0; i < t; i++)
      for (int64_t h = 0; h < heads; h++) {
        int64_t cache = (b * k[1] + h / group) * k[2] * d;
        attend(in + ((b * t + i) * x[2] + h) * d, keys + cache, values + cache, position[i] + 1, d,
               (double)a->scale, out + ((b * t + i) * heads + h) * d);
      }
  }
  return DJ_OK;
}

/* ---- samples ---- */

static const dj__rotary_attr turn_all = {.heads = 3, .theta = 10000.0f};
static const dj__rotary_attr turn_some = {.heads = 2, .theta = 100.0f};
static const dj__rotary_attr turn_back = {.heads = 5, .theta = 500000.0f, .back = 1};
static const dj__rotary_attr turn_large = {.heads = 24, .theta = 10000.0f};
static const dj__sample rotary_samples[] = {{.label = "all heads",
                                             .n_in = 2,
                                             .in = {DJ__F32(2, 5, 3, 8), DJ__I32(5)},
                                             .range = {[1] = {.lo = 0, .hi = 50}},
                                             DJ__ATTR(turn_all)},
                                            {.label = "some heads",
                                             .n_in = 2,
                                             .in = {DJ__F32(1, 3, 5, 6), DJ__I32(3)},
                                             .range = {[1] = {.lo = 0, .hi = 9}},
                                             DJ__ATTR(turn_some)},
                                            {.label = "back, far",
                                             .n_in = 2,
                                             .in = {DJ__F32(3, 37, 7, 66), DJ__I32(37)},
                                             .range = {[1] = {.lo = 0, .hi = 2000}},
                                             DJ__ATTR(turn_back)},
                                            {.label = "bench_4x1024x36x64",
                                             .n_in = 2,
                                             .in = {DJ__F32(4, 1024, 36, 64), DJ__I32(1024)},
                                             .range = {[1] = {.lo = 0, .hi = 1024}},
                                             DJ__ATTR(turn_large),
                                             .bench = true}};

static const dj__attention_attr scaled = {.scale = 0.25f, .causal = true};
static const dj__sample attention_cached_samples[] = {
    {.label = "one token",
     .n_in = 4,
     .in = {DJ__F32(1, 1, 6, 16), DJ__F32(1, 2, 9, 16), DJ__F32(1, 2, 9, 16), DJ__I32(1)},
     .range = {[3] = {.lo = 0, .hi = 9}},
     DJ__ATTR(scaled)},
    {.label = "grouped, odd",
     .n_in = 4,
     .in = {DJ__F32(2, 5, 8, 7), DJ__F32(2, 2, 33, 7), DJ__F32(2, 2, 33, 7), DJ__I32(5)},
     .range = {[3] = {.lo = 0, .hi = 33}},
     DJ__ATTR(scaled)},
    {.label = "threads",
     .n_in = 4,
     .in = {DJ__F32(1, 70, 12, 64), DJ__F32(1, 4, 300, 64), DJ__F32(1, 4, 300, 64), DJ__I32(70)},
     .range = {[3] = {.lo = 0, .hi = 300}},
     DJ__ATTR(scaled)},
    {.label = "bench_1of1024x12x64",
     .n_in = 4,
     .in = {DJ__F32(1, 1, 36, 64), DJ__F32(1, 12, 1024, 64), DJ__F32(1, 12, 1024, 64), DJ__I32(1)},
     .range = {[3] = {.lo = 1023, .hi = 1024}},
     DJ__ATTR(scaled),
     .bench = true}};

DJ__DEFINE_OP(rotary, 2, 2, 1, DJ__FOLLOW | DJ__INPLACE, 1u, 0, rotary_infer, rotary_backward,
              rotary_cost, rotary_ref, rotary_samples);
DJ__DEFINE_OP(attention_cached, 4, 4, 1, DJ__EFFECT, 0, 1u << 1 | 1u << 2, attention_cached_infer,
              DJ__NO_GRAD, attention_cached_cost, attention_cached_ref, attention_cached_samples);

/* ---- public constructors ---- */

dj_val dj_rotary(dj_graph *g, dj_val x, dj_val position, int heads, float theta) {
  dj__rotary_attr a;
  memset(&a, 0, sizeof a);
  a.heads = heads;
  a.theta = theta;
  return dj__emit(g, DJ__OP_rotary, (dj_val[]){x, position}, 2, &a, sizeof a);
}

dj_val dj_attention_cached(dj_graph *g, dj_val qkv, dj_val keys, dj_val values, dj_val position,
                           float scale) {
  dj__attention_attr a;
  memset(&a, 0, sizeof a);
  a.causal = true;
  dj_shape s = dj_val_shape(g, keys);
  a.scale = scale > 0 || s.rank != 4 ? scale : 1 / sqrtf((float)s.dim[3]);
  return dj__emit(g, DJ__OP_attention_cached, (dj_val[]){qkv, keys, values, position}, 4, &a,
                  sizeof a);
}
