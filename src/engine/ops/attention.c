/*
 * Scaled dot-product attention (Vaswani et al. 2017) with grouped heads (Ainslie et al. 2023):
 * o = softmax(scale * q k^T) v, one row of scores at a time. The log of the sum of exp of each row
 * is a second output, from which the gradient rebuilds the probabilities instead of storing them
 * (Dao et al. 2022).
 *
 * q, o (B, H, T, D); k, v (B, HK, S, D), H a multiple of HK: query head h reads head h / (H / HK).
 * Or all of them in one tensor, time before heads: qkv (B, T, H + 2 HK, D), o (B, T, H, D).
 * Causal: query t sees keys s <= t + S - T, which needs S >= T so that every query sees one.
 */
#include "dojo/ops.h"
#include "engine/attrs.h"
#include "engine/ops/common.h"

/* ---- shapes ---- */

/* q, k and v, from input `first` on */
static dj_status check_apart(const dj__infer *s, int first) {
  const dj__attention_attr *a = s->attr;
  for (int i = first; i < first + 3; i++) DJ_TRY(dj__want_float(s, i, 4));
  const int64_t *q = s->in[first].shape.dim, *k = s->in[first + 1].shape.dim;
  DJ_TRY(dj__want_shape(s, first + 2, &s->in[first + 1].shape));
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
  return DJ_OK;
}

/* Inputs from `first` on; shapes of the output and of the log-sums. */
static dj_status check(const dj__infer *s, int first, dj_shape *o, dj_shape *lse) {
  const dj__attention_attr *a = s->attr;
  const bool one = a->kv_heads > 0;
  if (s->n_in != first + (one ? 1 : 3))
    return dj__bad(s, "%d inputs; queries, keys and values are either one or three", s->n_in);
  if (!isfinite(a->scale)) return dj__bad(s, "scale is %g", (double)a->scale);
  const int64_t *x = s->in[first].shape.dim;
  int64_t heads;
  if (one) {
    DJ_TRY(dj__want_float(s, first, 4));
    DJ_TRY(dj__query_heads(s, x[2], a->kv_heads, &heads));
    *o = DJ_SHAPE(x[0], x[1], heads, x[3]);
    *lse = DJ_SHAPE(x[0], heads, x[1]);
  } else {
    DJ_TRY(check_apart(s, first));
    *o = s->in[first].shape;
    *lse = DJ_SHAPE(x[0], x[1], x[2]);
  }
  return DJ_OK;
}

static dj_status attention_infer(dj__infer *s) {
  dj_shape lse = {0};
  DJ_TRY(check(s, 0, &s->out[0].shape, &lse));
  dj__set_out(s, 1, DJ_F32, lse);
  return DJ_OK;
}

static dj_status attention_grad_infer(dj__infer *s) {
  dj_shape o = {0}, lse = {0};
  DJ_TRY(check(s, 3, &o, &lse));
  DJ_TRY(dj__want_shape(s, 0, &o));
  DJ_TRY(dj__want_f32(s, 1, &lse));
  DJ_TRY(dj__want_shape(s, 2, &o));
  s->n_out = s->n_in - 3;
  for (int i = 0; i < s->n_out; i++) dj__set_out(s, i, s->in[3 + i].dtype, s->in[3 + i].shape);
  return DJ_OK;
}

/* ---- gradient ---- */

static void attention_backward(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (dout[0] == DJ_NONE) return; /* the row sums alone pass nothing on */
  dj_val in[6] = {n->out[0], n->out[1], dout[0]};
  for (int i = 0; i < n->n_in; i++) in[3 + i] = n->in[i];
  dj_val first = dj__emit(g, DJ__OP_attention_grad, in, 3 + n->n_in, n->attr, n->attr_size);
  for (int i = 0; first != DJ_NONE && i < n->n_in; i++) din[i] = dj__sibling(g, first, i);
}

/* ---- cost ---- */

/* Two products forward, five backward, of the pairs (t, s) that are seen; 5 FLOPs for a softmax
 * entry. */
static void attention_cost(const dj__call *c, dj__cost *cost) {
  const dj__attention m = dj__attention_of(c);
  double t = (double)m.t, s = (double)m.s;
  double pairs = (double)m.b * (double)m.h * (m.causal ? t * (s - t) + t * (t + 1) / 2 : t * s);
  dj__cost_touch(c, cost);
  cost->flops = pairs * ((c->op == DJ__OP_attention ? 4.0 : 10.0) * (double)m.d + 5.0);
}

/* ---- reference kernels ---- */

static double dot(const float *a, const float *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
  return sum;
}

static float *row_of(const dj__heads *x, int64_t head, int64_t i) {
  return (float *)x->of->data + dj__head_row(x, head, i);
}

/* Head of keys that head u of queries, of (B, H), reads: of (B, HK). */
static int64_t kv_head(const dj__attention *m, int64_t u) {
  return u / (m->h / m->hk);
}

/* Keys that query t sees: 0 .. result - 1. */
static int64_t seen(const dj__attention *m, int64_t t) {
  return m->causal ? t + m->s - m->t + 1 : m->s;
}

/* Scaled score of query t of head u and key s. */
static double score(const dj__attention *m, int64_t u, int64_t t, int64_t s) {
  return (double)m->scale * dot(row_of(&m->q, u, t), row_of(&m->k, kv_head(m, u), s), m->d);
}

static double row_lse(const dj__attention *m, int64_t u, int64_t t) {
  double top = -INFINITY, sum = 0;
  for (int64_t s = 0; s < seen(m, t); s++) {
    double x = score(m, u, t, s);
    if (x > top) {
      sum = sum * exp(top - x) + 1;
      top = x;
    } else {
      sum += exp(x - top);
    }
  }
  return top + log(sum);
}

static dj_status attention_ref(const dj__call *call) {
  const dj__attention m = dj__attention_of(call);
  float *lse = call->out[1].data; // (B, H, T) f32
  for (int64_t i = 0; i < m.b * m.h * m.t; i++) {
    int64_t u = i / m.t, t = i % m.t;
    double z = row_lse(&m, u, t);
    lse[i] = (float)z;
    for (int64_t d0 = 0; d0 < m.d; d0 += DJ__TILE) {
      double acc[DJ__TILE] = {0};
      int tile = dj__tile(m.d - d0);
      for (int64_t s = 0; s < seen(&m, t); s++) {
        const float *v = row_of(&m.v, kv_head(&m, u), s) + d0;
        double p = exp(score(&m, u, t, s) - z);
        for (int d = 0; d < tile; d++) acc[d] += p * (double)v[d];
      }
      float *o = row_of(&m.o, u, t) + d0;
      for (int d = 0; d < tile; d++) o[d] = (float)acc[d];
    }
  }
  return DJ_OK;
}

/* Of query t of head u and key s: the probability and the gradient of the scaled score. */
typedef struct pair {
  double p, ds;
} pair;

static pair pair_of(const dj__attention *m, const dj__call *c, int64_t u, int64_t t, int64_t s) {
  const float *lse = c->in[1].data; // (B, H, T) f32
  const float *dy = row_of(&m->dy, u, t);
  double p = exp(score(m, u, t, s) - (double)lse[u * m->t + t]);
  double dp = dot(dy, row_of(&m->v, kv_head(m, u), s), m->d);
  double delta = dot(dy, row_of(&m->o, u, t), m->d);
  return (pair){p, p * (dp - delta) * (double)m->scale};
}

static void dq_row(const dj__attention *m, const dj__call *c, int64_t u, int64_t t) {
  for (int64_t d0 = 0; d0 < m->d; d0 += DJ__TILE) {
    double acc[DJ__TILE] = {0};
    int tile = dj__tile(m->d - d0);
    for (int64_t s = 0; s < seen(m, t); s++) {
      const float *k = row_of(&m->k, kv_head(m, u), s) + d0;
      pair r = pair_of(m, c, u, t, s);
      for (int d = 0; d < tile; d++) acc[d] += r.ds * (double)k[d];
    }
    float *dq = row_of(&m->dq, u, t) + d0;
    for (int d = 0; d < tile; d++) dq[d] = (float)acc[d];
  }
}

/* dk and dv of key s of a head of (B, HK): sums over the queries of all its heads that see it. */
static void dkv_row(const dj__attention *m, const dj__call *c, int64_t head, int64_t s) {
  const int64_t per = m->h / m->hk;
  for (int64_t d0 = 0; d0 < m->d; d0 += DJ__TILE) {
    double ak[DJ__TILE] = {0}, av[DJ__TILE] = {0};
    int tile = dj__tile(m->d - d0);
    for (int64_t u = head * per; u < (head + 1) * per; u++)
      for (int64_t t = 0; t < m->t; t++) {
        if (s >= seen(m, t)) continue;
        const float *q = row_of(&m->q, u, t) + d0, *dy = row_of(&m->dy, u, t) + d0;
        pair r = pair_of(m, c, u, t, s);
        for (int d = 0; d < tile; d++) {
          ak[d] += r.ds * (double)q[d];
          av[d] += r.p * (double)dy[d];
        }
      }
    float *dk = row_of(&m->dk, head, s) + d0, *dv = row_of(&m->dv, head, s) + d0;
    for (int d = 0; d < tile; d++) {
      dk[d] = (float)ak[d];
      dv[d] = (float)av[d];
    }
  }
}

static dj_status attention_grad_ref(const dj__call *call) {
  const dj__attention m = dj__attention_of(call);
  for (int64_t i = 0; i < m.b * m.h * m.t; i++) dq_row(&m, call, i / m.t, i % m.t);
  for (int64_t j = 0; j < m.b * m.hk * m.s; j++) dkv_row(&m, call, j / m.s, j % m.s);
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
   .in = {DJ__F32(B, H, T, D), DJ__F32(B, H, T), DJ__F32(B, H, T, D), DJ__F32(B, H, T, D),         \
          DJ__F32(B, HK, S, D), DJ__F32(B, HK, S, D)},                                             \
   .range = {[1] = {.lo = 2.0f, .hi = 4.0f}},                                                      \
   DJ__ATTR(nm##_attr),                                                                            \
   .bench = b},

/* All in one tensor: X(label, B, H, HK, T, D, scale, causal, bench) */
#define TOGETHER_SAMPLES(X)                                                                        \
  X(together, 2, 2, 2, 4, 8, 0.35f, 0, false)                                                      \
  X(together_causal, 2, 3, 3, 7, 16, 0.25f, 1, false)                                              \
  X(together_grouped, 2, 4, 2, 6, 5, 0.5f, 1, false)                                               \
  X(together_one, 2, 6, 1, 1, 3, 1.0f, 1, false)                                                   \
  X(together_odd_wide, 1, 2, 1, 9, 70, 0.12f, 0, false)                                            \
  X(together_threads, 2, 6, 2, 110, 24, 0.2f, 1, false)                                            \
  X(together_threads_whole, 1, 3, 3, 70, 64, 0.2f, 0, false)                                       \
  X(bench_together_8x8x256x64, 8, 8, 8, 256, 64, 0.125f, 1, true)                                  \
  X(bench_together_4x8x1024x64, 4, 8, 8, 1024, 64, 0.125f, 1, true)
#define TOGETHER_ATTR(nm, B, H, HK, T, D, sc, cs, b)                                               \
  static const dj__attention_attr nm##_attr = {.scale = sc, .causal = cs, .kv_heads = HK};
TOGETHER_SAMPLES(TOGETHER_ATTR)
#define TOGETHER_SAMPLE(nm, B, H, HK, T, D, sc, cs, b)                                             \
  {.label = #nm, .n_in = 1, .in = {DJ__F32(B, T, H + 2 * HK, D)}, DJ__ATTR(nm##_attr), .bench = b},
#define TOGETHER_GRAD_SAMPLE(nm, B, H, HK, T, D, sc, cs, b)                                        \
  {.label = #nm,                                                                                   \
   .n_in = 4,                                                                                      \
   .in = {DJ__F32(B, T, H, D), DJ__F32(B, H, T), DJ__F32(B, T, H, D),                              \
          DJ__F32(B, T, H + 2 * HK, D)},                                                           \
   .range = {[1] = {.lo = 2.0f, .hi = 4.0f}},                                                      \
   DJ__ATTR(nm##_attr),                                                                            \
   .bench = b},

static const dj__sample attention_samples[] = {ATTENTION_SAMPLES(ATTENTION_SAMPLE)
                                                   TOGETHER_SAMPLES(TOGETHER_SAMPLE)};
static const dj__sample attention_grad_samples[] = {ATTENTION_SAMPLES(ATTENTION_GRAD_SAMPLE)
                                                        TOGETHER_SAMPLES(TOGETHER_GRAD_SAMPLE)};

enum { FOLLOW_QKV = 7u, FOLLOW_GRAD = 1u | 1u << 2 | FOLLOW_QKV << 3 };

DJ__DEFINE_OP(attention, 1, 3, 2, DJ__COMPUTE, FOLLOW_QKV, 0, attention_infer, attention_backward,
              attention_cost, attention_ref, attention_samples);
DJ__DEFINE_OP(attention_grad, 4, 6, 3, DJ__COMPUTE, FOLLOW_GRAD, 0, attention_grad_infer,
              DJ__NO_GRAD, attention_cost, attention_grad_ref, attention_grad_samples);

/* ---- public constructors ---- */

/* q, k, v (or qkv) with heads of width D; scale 0: 1/sqrt(D) */
static dj_val emit(dj_graph *g, const dj_val *in, int n_in, dj__attention_attr a) {
  dj_shape s = dj_val_shape(g, in[0]);
  if (a.scale == 0.0f && s.rank == 4 && s.dim[3] > 0) a.scale = 1.0f / sqrtf((float)s.dim[3]);
  return dj__emit(g, DJ__OP_attention, in, n_in, &a, sizeof a);
}

dj_val dj_attention(dj_graph *g, dj_val q, dj_val k, dj_val v, bool causal, float scale) {
  return emit(g, (dj_val[]){q, k, v}, 3, (dj__attention_attr){scale, causal, 0});
}

dj_val dj_self_attention(dj_graph *g, dj_val qkv, int kv_heads, bool causal, float scale) {
  return emit(g, &qkv, 1, (dj__attention_attr){scale, causal, kv_heads});
}
