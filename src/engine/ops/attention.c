/*
 * Scaled dot-product attention (Vaswani et al. 2017) with grouped heads (Ainslie et al. 2023):
 * o = softmax(scale * q k^T) v, one row of scores at a time. The log of the sum of exp of each row
 * is a second output, from which the gradient rebuilds the probabilities instead of storing them
 * (Dao et al. 2022).
 *
 * q, o (B, H, T, D); k, v (B, HK, S, D), H a multiple of HK: query head h reads head h / (H / HK).
 * Causal: query t sees keys s <= t + S - T, which needs S >= T so that every query sees one.
 */
#include "dojo/ops.h"
#include "engine/attrs.h"
#include "engine/ops/common.h"

/* ---- shapes ---- */

static dj_status check(const dj__infer *s) {
  const dj__attention_attr *a = s->attr;
  for (int i = 0; i < 3; i++) DJ_TRY(dj__want_float(s, i, 4));
  const int64_t *q = s->in[0].shape.dim, *k = s->in[1].shape.dim;
  DJ_TRY(dj__want_shape(s, 2, &s->in[1].shape));
  if (q[0] != k[0] || q[3] != k[3])
    return dj__bad(s, "queries have batch %lld and width %lld, keys %lld and %lld; they must agree",
                   (long long)q[0], (long long)q[3], (long long)k[0], (long long)k[3]);
  if (q[1] % k[1])
    return dj__bad(s, "%lld query heads are not a multiple of %lld key heads", (long long)q[1],
                   (long long)k[1]);
  if (a->causal && k[2] < q[2])
    return dj__bad(s,
                   "causal attention of %lld queries needs at least as many keys, there are %lld",
                   (long long)q[2], (long long)k[2]);
  if (!isfinite(a->scale)) return dj__bad(s, "scale is %g", (double)a->scale);
  return DJ_OK;
}

static dj_shape lse_shape(const dj__infer *s) {
  const int64_t *q = s->in[0].shape.dim;
  return DJ_SHAPE(q[0], q[1], q[2]);
}

static dj_status attention_infer(dj__infer *s) {
  DJ_TRY(check(s));
  s->out[0].shape = s->in[0].shape;
  dj__set_out(s, 1, DJ_F32, lse_shape(s));
  return DJ_OK;
}

static dj_status attention_grad_infer(dj__infer *s) {
  dj_shape lse;
  DJ_TRY(check(s));
  lse = lse_shape(s);
  DJ_TRY(dj__want_shape(s, 3, &s->in[0].shape));
  DJ_TRY(dj__want_f32(s, 4, &lse));
  DJ_TRY(dj__want_shape(s, 5, &s->in[0].shape));
  for (int i = 0; i < 3; i++) dj__set_out(s, i, s->in[i].dtype, s->in[i].shape);
  return DJ_OK;
}

/* ---- gradient ---- */

static void attention_backward(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (dout[0] == DJ_NONE) return; /* the row sums alone pass nothing on */
  dj_val in[] = {n->in[0], n->in[1], n->in[2], n->out[0], n->out[1], dout[0]};
  dj_val dq = dj__emit(g, DJ__OP_attention_grad, in, 6, n->attr, n->attr_size);
  if (dq == DJ_NONE) return;
  din[0] = dq;
  din[1] = dj__sibling(g, dq, 1);
  din[2] = dj__sibling(g, dq, 2);
}

/* ---- cost ---- */

/* Two products forward, five backward, of the pairs (t, s) that are seen; 5 FLOPs for a softmax
 * entry. */
static void attention_cost(const dj__call *c, dj__cost *cost) {
  const dj__attention_attr *a = c->attr;
  const int64_t *q = c->in[0].shape.dim, *k = c->in[1].shape.dim;
  double t = (double)q[2], s = (double)k[2];
  double pairs = (double)q[0] * (double)q[1] * (a->causal ? t * (s - t) + t * (t + 1) / 2 : t * s);
  dj__cost_touch(c, cost);
  cost->flops = pairs * ((c->op == DJ__OP_attention ? 4.0 : 10.0) * (double)q[3] + 5.0);
}

/* ---- reference kernels ---- */

typedef struct dims {
  int64_t b, h, t, d, hk, s;
  double scale;
  bool causal;
} dims;

static dims dims_of(const dj__call *c) {
  const int64_t *q = c->in[0].shape.dim, *k = c->in[1].shape.dim;
  const dj__attention_attr *a = c->attr;
  return (dims){q[0], q[1], q[2], q[3], k[1], k[2], (double)a->scale, a->causal != 0};
}

static double dot(const float *a, const float *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
  return sum;
}

/* Keys that query t sees: 0 .. result - 1. */
static int64_t seen(const dims *m, int64_t t) {
  return m->causal ? t + m->s - m->t + 1 : m->s;
}

static double row_lse(const dims *m, const float *q, const float *k, int64_t n) {
  double top = -INFINITY, sum = 0;
  for (int64_t s = 0; s < n; s++) {
    double v = m->scale * dot(q, k + s * m->d, m->d);
    if (v > top) {
      sum = sum * exp(top - v) + 1;
      top = v;
    } else {
      sum += exp(v - top);
    }
  }
  return top + log(sum);
}

static dj_status attention_ref(const dj__call *call) {
  dims m = dims_of(call);
  const float *k = call->in[1].data; // (B, HK, S, D) f32
  const float *v = call->in[2].data; // (B, HK, S, D) f32
  float *lse = call->out[1].data;    // (B, H, T) f32
  for (int64_t i = 0; i < m.b * m.h * m.t; i++) {
    int64_t t = i % m.t, h = i / m.t % m.h, b = i / m.t / m.h, n = seen(&m, t);
    int64_t head = (b * m.hk + h / (m.h / m.hk)) * m.s * m.d;
    const float *q = (const float *)call->in[0].data + i * m.d;
    float *o = (float *)call->out[0].data + i * m.d;
    double z = row_lse(&m, q, k + head, n);
    lse[i] = (float)z;
    for (int64_t d0 = 0; d0 < m.d; d0 += DJ__TILE) {
      double acc[DJ__TILE] = {0};
      int tile = dj__tile(m.d - d0);
      for (int64_t s = 0; s < n; s++) {
        double p = exp(m.scale * dot(q, k + head + s * m.d, m.d) - z);
        for (int d = 0; d < tile; d++) acc[d] += p * (double)v[head + s * m.d + d0 + d];
      }
      for (int d = 0; d < tile; d++) o[d0 + d] = (float)acc[d];
    }
  }
  return DJ_OK;
}

/* Of one pair (query row i, key row j): the probability and the gradient of the scaled score. */
typedef struct pair {
  double p, ds;
} pair;

static pair pair_of(const dims *m, const dj__call *c, int64_t i, int64_t j) {
  const float *q = c->in[0].data, *k = c->in[1].data, *v = c->in[2].data;
  const float *o = c->in[3].data, *lse = c->in[4].data, *dy = c->in[5].data;
  double p = exp(m->scale * dot(q + i * m->d, k + j * m->d, m->d) - (double)lse[i]);
  double dp = dot(dy + i * m->d, v + j * m->d, m->d);
  double delta = dot(dy + i * m->d, o + i * m->d, m->d);
  return (pair){p, p * (dp - delta) * m->scale};
}

static void dq_row(const dims *m, const dj__call *c, int64_t i) {
  int64_t h = i / m->t % m->h, b = i / m->t / m->h, n = seen(m, i % m->t);
  int64_t first = (b * m->hk + h / (m->h / m->hk)) * m->s;
  const float *k = c->in[1].data;
  float *dq = (float *)c->out[0].data + i * m->d;
  for (int64_t d0 = 0; d0 < m->d; d0 += DJ__TILE) {
    double acc[DJ__TILE] = {0};
    int tile = dj__tile(m->d - d0);
    for (int64_t s = 0; s < n; s++) {
      pair r = pair_of(m, c, i, first + s);
      for (int d = 0; d < tile; d++) acc[d] += r.ds * (double)k[(first + s) * m->d + d0 + d];
    }
    for (int d = 0; d < tile; d++) dq[d0 + d] = (float)acc[d];
  }
}

/* dk and dv of key row j = (b, hk, s): sums over the queries of all its heads that see it. */
static void dkv_row(const dims *m, const dj__call *c, int64_t j) {
  int64_t s = j % m->s, hk = j / m->s % m->hk, b = j / m->s / m->hk, per = m->h / m->hk;
  const float *q = c->in[0].data, *dy = c->in[5].data;
  float *dk = (float *)c->out[1].data + j * m->d, *dv = (float *)c->out[2].data + j * m->d;
  for (int64_t d0 = 0; d0 < m->d; d0 += DJ__TILE) {
    double ak[DJ__TILE] = {0}, av[DJ__TILE] = {0};
    int tile = dj__tile(m->d - d0);
    for (int64_t h = hk * per; h < (hk + 1) * per; h++)
      for (int64_t t = 0; t < m->t; t++) {
        if (s >= seen(m, t)) continue;
        int64_t i = (b * m->h + h) * m->t + t;
        pair r = pair_of(m, c, i, j);
        for (int d = 0; d < tile; d++) {
          ak[d] += r.ds * (double)q[i * m->d + d0 + d];
          av[d] += r.p * (double)dy[i * m->d + d0 + d];
        }
      }
    for (int d = 0; d < tile; d++) {
      dk[d0 + d] = (float)ak[d];
      dv[d0 + d] = (float)av[d];
    }
  }
}

static dj_status attention_grad_ref(const dj__call *call) {
  dims m = dims_of(call);
  for (int64_t i = 0; i < m.b * m.h * m.t; i++) dq_row(&m, call, i);
  for (int64_t j = 0; j < m.b * m.hk * m.s; j++) dkv_row(&m, call, j);
  return DJ_OK;
}

/* ---- samples ---- */

/* X(label, B, H, HK, T, S, D, scale, causal, bench) */
#define ATTENTION_SAMPLES(X)                                                                       \
  X(full, 2, 2, 2, 4, 4, 8, 0.35f, 0, false)                                                       \
  X(causal, 1, 2, 2, 7, 7, 16, 0.25f, 1, false)                                                    \
  X(grouped, 2, 4, 2, 5, 6, 8, 0.5f, 0, false)                                                     \
  X(grouped_causal_offset, 1, 6, 2, 3, 8, 12, 0.3f, 1, false)                                      \
  X(one_query, 3, 2, 1, 1, 9, 16, 0.25f, 1, false)                                                 \
  X(odd_wide, 1, 1, 1, 3, 17, 70, 0.12f, 0, false)                                                 \
  X(one_key, 1, 2, 2, 5, 1, 3, 1.0f, 0, false)                                                     \
  X(long_rows, 1, 1, 1, 70, 70, 8, 2.0f, 1, false)                                                 \
  X(threads_causal, 2, 3, 3, 110, 150, 24, 0.2f, 1, false)                                         \
  X(threads_grouped, 1, 4, 2, 101, 130, 37, 0.2f, 0, false)                                        \
  X(bench_8x8x256x64, 8, 8, 8, 256, 256, 64, 0.125f, 1, true)                                      \
  X(bench_4x8x1024x64, 4, 8, 8, 1024, 1024, 64, 0.125f, 1, true)
#define ATTENTION_ATTR(nm, B, H, HK, T, S, D, sc, cs, b)                                           \
  static const dj__attention_attr nm##_attr = {.scale = sc, .causal = cs};
ATTENTION_SAMPLES(ATTENTION_ATTR)
#define ATTENTION_SAMPLE(nm, B, H, HK, T, S, D, sc, cs, b)                                         \
  {.label = #nm,                                                                                   \
   .n_in = 3,                                                                                      \
   .in = {DJ__F32(B, H, T, D), DJ__F32(B, HK, S, D), DJ__F32(B, HK, S, D)},                        \
   DJ__ATTR(nm##_attr),                                                                            \
   .bench = b},
/* Row sums large enough that the rebuilt "probabilities" stay near 0..1. */
#define ATTENTION_GRAD_SAMPLE(nm, B, H, HK, T, S, D, sc, cs, b)                                    \
  {.label = #nm,                                                                                   \
   .n_in = 6,                                                                                      \
   .in = {DJ__F32(B, H, T, D), DJ__F32(B, HK, S, D), DJ__F32(B, HK, S, D), DJ__F32(B, H, T, D),    \
          DJ__F32(B, H, T), DJ__F32(B, H, T, D)},                                                  \
   .range = {[4] = {.lo = 2.0f, .hi = 4.0f}},                                                      \
   DJ__ATTR(nm##_attr),                                                                            \
   .bench = b},
static const dj__sample attention_samples[] = {ATTENTION_SAMPLES(ATTENTION_SAMPLE)};
static const dj__sample attention_grad_samples[] = {ATTENTION_SAMPLES(ATTENTION_GRAD_SAMPLE)};

enum { FOLLOW_QKV = 7u, FOLLOW_GRAD = 7u | 1u << 3 | 1u << 5 };

DJ__DEFINE_OP(attention, 3, 3, 2, DJ__COMPUTE, FOLLOW_QKV, 0, attention_infer, attention_backward,
              attention_cost, attention_ref, attention_samples);
DJ__DEFINE_OP(attention_grad, 6, 6, 3, DJ__COMPUTE, FOLLOW_GRAD, 0, attention_grad_infer,
              DJ__NO_GRAD, attention_cost, attention_grad_ref, attention_grad_samples);

/* ---- public constructor ---- */

dj_val dj_attention(dj_graph *g, dj_val q, dj_val k, dj_val v, bool causal, float scale) {
  dj_shape s = dj_val_shape(g, q);
  if (scale == 0.0f && s.rank == 4 && s.dim[3] > 0) scale = 1.0f / sqrtf((float)s.dim[3]);
  dj__attention_attr a = {.scale = scale, .causal = causal};
  return dj__emit(g, DJ__OP_attention, (dj_val[]){q, k, v}, 3, &a, sizeof a);
}
