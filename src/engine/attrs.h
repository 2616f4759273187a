/*
 * Attributes of the network ops (pooling, normalisation, attention, sampling, recurrence, dropout,
 * updates), their inputs and outputs, and the few formulas that every kernel of an op must share
 * to agree to the bit or to the pixel: source coordinates and random numbers. Convolution and
 * matmul attributes are in op.h.
 *
 * Attributes are compared and hashed as bytes: structs with padding are cleared with memset.
 */
#ifndef DOJO_ENGINE_ATTRS_H
#define DOJO_ENGINE_ATTRS_H

#include <math.h>

#include "base/rng.h"
#include "dojo/ops.h"
#include "engine/op.h"

/* max_pool (x) -> y, place; max_pool_grad (place, dy) -> dx of size in_h, in_w: dy goes to the
 * first maximum of its window in row-major order. `place` (like y; u8 where a window has at most
 * 256 pixels, else i32) is that pixel's row * kernel width + column in the window. avg_pool (x) ->
 * y; avg_pool_grad (dy) -> dx of size in_h, in_w; each is the other's gradient. Every window
 * touches at least one pixel that is not padding. */
typedef struct dj__pool_attr {
  int kernel[2], stride[2], pad[4]; /* top, left, bottom, right */
  int64_t in_h, in_w;               /* gradients */
} dj__pool_attr;

/* resize (x) -> y of size h, w; resize_grad (dy) -> dx of size h, w; each is the other's gradient.
 */
typedef struct dj__resize_attr {
  int64_t h, w;
  int64_t mode; /* dj_resize_mode */
} dj__resize_attr;

/* Nearest: the input pixel that holds the centre of output pixel i. */
static inline int64_t dj__resize_nearest(int64_t i, int64_t in, int64_t out) {
  return (2 * i + 1) * in / (2 * out);
}

typedef struct dj__lerp {
  int64_t i0, i1; /* neighbours; equal at a border */
  float w1;       /* weight of i1; that of i0 is 1 - w1 */
} dj__lerp;

/* Bilinear: pixel centres at +0.5, borders repeated. */
static inline dj__lerp dj__resize_linear(int64_t i, int64_t in, int64_t out) {
  double x = ((double)i + 0.5) * (double)in / (double)out - 0.5;
  if (x < 0) x = 0;
  int64_t i0 = (int64_t)x;
  if (i0 > in - 1) i0 = in - 1;
  int64_t i1 = i0 + 1 < in ? i0 + 1 : in - 1;
  return (dj__lerp){i0, i1, i1 == i0 ? 0.0f : (float)(x - (double)i0)};
}

/*
 * batch_norm (x, scale, shift) -> y, mean (C), inv_std (C): batch statistics over all axes but the
 * last; inv_std = 1 / sqrt(biased variance + eps). layer_norm (x, scale, shift) -> y, mean, inv_std
 * (x's shape without the last axis). rms_norm (x, scale) -> y, inv_rms (likewise). group_norm (x,
 * scale, shift) -> y, mean, inv_std (N, groups).
 *   batch_norm_grad, layer_norm_grad, group_norm_grad (x, scale, mean, inv_std, dy)
 *     -> dx, dscale, dshift;  rms_norm_grad (x, scale, inv_rms, dy) -> dx, dscale
 * x, y, dx, dy follow the precision; everything else is f32. Statistics pass no gradient on by
 * themselves: their effect on y is in dx.
 *
 * What fusion makes of batch norm: batch_norm (x, scale, shift, residual) gives y + residual, and
 * either form with `relu` its positive part; batch_norm_grad (x, scale, mean, inv_std, dy, shift)
 * with `relu` is the gradient of the form without a residual: dy counts where y, which it makes
 * again, is positive.
 */
typedef struct dj__norm_attr {
  float eps;
  int groups; /* group_norm; else 0 */
  int relu;   /* batch_norm; 0 or 1 */
} dj__norm_attr;

/* Batch norm's factor of x - mean: by one formula in both directions, so that both see the same
 * sign of y. */
static inline float dj__norm_factor(float inv_std, float scale) {
  return inv_std * scale;
}

/* running_update (running_mean, running_var, mean, inv_std), all (C): writes the first two.
 * r += momentum * (s - r), with the batch variance (1 / inv_std^2 - eps) * unbias. */
typedef struct dj__running_attr {
  float momentum, eps;
  float unbias; /* count / (count - 1); 1 for a count of 1 */
} dj__running_attr;

/* attention (q, k, v), or (qkv) -> o, lse (B, H, T) f32: log of the sum of exp of scaled scores.
 * attention_grad (o, lse, do, q, k, v) -> dq, dk, dv; or (o, lse, do, qkv) -> dqkv. Apart, q and o
 * are (B, H, T, D), k and v (B, HK, S, D). Together, as a projection leaves them and the next one
 * wants them, qkv is (B, T, H + 2 HK, D), heads of queries, of keys, of values, and o (B, T, H, D).
 */
typedef struct dj__attention_attr {
  float scale;
  int causal;   /* query t sees keys s <= t + S - T; S >= T */
  int kv_heads; /* HK of qkv; 0: q, k and v are apart */
} dj__attention_attr;

/* Heads in a tensor: row i of head u of (B, n) begins at element dj__head_row(u, i). */
typedef struct dj__heads {
  const dj_tensor *of;
  int64_t n, first, batch, head, row; /* elements: before all, and from one to the next */
} dj__heads;
static inline int64_t dj__head_row(const dj__heads *x, int64_t u, int64_t i) {
  return x->first + u / x->n * x->batch + u % x->n * x->head + i * x->row;
}

/* Of the tensor's heads those from `from` on, n of them. */
static inline dj__heads dj__heads_of(const dj_tensor *t, int64_t from, int64_t n, bool time_first) {
  const int64_t *x = t->shape.dim, d = x[3];
  if (time_first) return (dj__heads){t, n, from * d, x[1] * x[2] * d, d, x[2] * d};
  return (dj__heads){t, n, from * x[2] * d, x[1] * x[2] * d, x[2] * d, d};
}

/* Sizes of an attention or its gradient, and where its heads lie. */
typedef struct dj__attention {
  int64_t b, h, hk, t, s, d;
  float scale;
  bool causal;
  dj__heads q, k, v, o;
  dj__heads dy, dq, dk, dv; /* gradient */
} dj__attention;

static inline dj__attention dj__attention_of(const dj__call *c) {
  const dj__attention_attr *a = c->attr;
  const bool grad = c->op == DJ__OP_attention_grad, one = a->kv_heads > 0;
  const int apart = one ? 0 : 1;
  const dj_tensor *q = c->in + (grad ? 3 : 0), *o = grad ? c->in : c->out;
  const int64_t *x = q->shape.dim, *y = q[apart].shape.dim, hk = one ? a->kv_heads : y[1];
  const int64_t h = one ? x[2] - 2 * hk : x[1], k = one ? h : 0, v = one ? h + hk : 0;
  dj__attention r = {.b = x[0], .h = h, .hk = hk, .d = x[3], .scale = a->scale};
  r.t = x[one ? 1 : 2];
  r.s = y[one ? 1 : 2];
  r.causal = a->causal;
  r.q = dj__heads_of(q, 0, h, one);
  r.k = dj__heads_of(q + apart, k, hk, one);
  r.v = dj__heads_of(q + 2 * apart, v, hk, one);
  r.o = dj__heads_of(o, 0, h, one);
  r.dy = r.o, r.dq = r.q, r.dk = r.k, r.dv = r.v; /* gradients lie alike */
  if (grad) {
    r.dy.of = c->in + 2;
    r.dq.of = c->out;
    r.dk.of = c->out + apart;
    r.dv.of = c->out + 2 * apart;
  }
  return r;
}

/* rotary (x (B, T, N, D), position (T) i32): turns the first `heads` of N, or back; the others
 * stay. attention_cached (qkv (B, T, H + 2 HK, D), keys, values (B, HK, S, D), position (T) i32) ->
 * o (B, T, H, D): writes the tokens' keys and values to rows `position` of the cache, then attends
 * to rows 0 .. position. Its attribute is dj__attention_attr. */
typedef struct dj__rotary_attr {
  int heads, back;
  float theta;
} dj__rotary_attr;

/* Of the pair i, i + D/2 of a head of D numbers. */
static inline double dj__rotary_angle(const dj__rotary_attr *a, int32_t position, int64_t i,
                                      int64_t d) {
  double angle = position * pow((double)a->theta, -2.0 * (double)i / (double)d);
  return a->back ? -angle : angle;
}

static inline dj_status dj__check_positions(const int32_t *position, int64_t t, int64_t rows) {
  for (int64_t i = 0; i < t; i++)
    if (position[i] < 0 || position[i] >= rows)
      return dj_error(DJ_E_INVALID,
                      "attention_cached: position %d of token %lld is outside 0..%lld", position[i],
                      (long long)i, (long long)rows - 1);
  return DJ_OK;
}

/* grid_sample (x, grid) -> y; grid_sample_grad (x, grid, dy) -> dx, dgrid. grid, dgrid are f32. */
typedef struct dj__grid_attr {
  int border; /* dj_border */
} dj__grid_attr;

typedef struct dj__grid_axis {
  int64_t i0, i1; /* pixels; may lie outside under DJ_BORDER_ZERO */
  float w1;       /* weight of i1 */
  float slope;    /* d(pixel coordinate) / d(grid coordinate) */
} dj__grid_axis;

/* Pixels and weights of grid coordinate u (-1..1 over `size` pixels' outer edges). NaN gives NaN
 * weights and pixels in range; far outside is clipped so that indices stay small. */
static inline dj__grid_axis dj__grid_coord(float u, int64_t size, int border) {
  float last = (float)(size - 1), x = ((u + 1.0f) * (float)size - 1.0f) * 0.5f;
  dj__grid_axis a = {0, 0, x, 0.5f * (float)size};
  if (x != x) return a;
  if (border == DJ_BORDER_CLAMP && !(x > 0.0f && x < last)) {
    a.i0 = a.i1 = x > 0.0f ? size - 1 : 0;
    a.w1 = a.slope = 0.0f;
    return a;
  }
  if (x < -2.0f) x = -2.0f;
  if (x > last + 2.0f) x = last + 2.0f;
  float f = floorf(x);
  a.i0 = (int64_t)f;
  a.i1 = a.i0 + 1;
  a.w1 = x - f;
  return a;
}

/* dropout (x) -> y. The gradient is the same op with the same stream on dy. */
typedef struct dj__dropout_attr {
  uint64_t stream;
  float p;
  uint32_t threshold; /* an element stays where its random number is >= threshold: p * 2^32 */
} dj__dropout_attr;

/* Random numbers of elements 4 * block .. 4 * block + 3. */
static inline dj__u32x4 dj__dropout_block(uint64_t seed, uint64_t step, uint64_t stream,
                                          uint64_t block) {
  return dj__philox(seed, step, (stream << 40) ^ block);
}

/*
 * Updates. adamw, sgd (hyper (8), guard (2), then param, grad, m, v, ema for each variable): write
 * param, m, v and ema where they are present. accumulate (state, x), assign (state, x): write
 * state.
 */
enum { DJ__UPDATE_PER_VAR = 5, DJ__UPDATE_FIRST = 2 };
enum {
  DJ__HYPER_LR,
  DJ__HYPER_BETA1,
  DJ__HYPER_BETA2,
  DJ__HYPER_EPS,
  DJ__HYPER_CORRECT1, /* 1 - beta1^t */
  DJ__HYPER_CORRECT2, /* 1 - beta2^t */
  DJ__HYPER_MAX_NORM,
  DJ__HYPER_EMA,
  DJ__N_HYPER
};
typedef struct dj__update_var {
  float weight_decay, lr_scale;
} dj__update_var;
typedef struct dj__update_attr {
  int n;
  dj__update_var var[];
} dj__update_attr;

/* Factor of the gradient, min(1, max_norm / norm); false where nothing may be written. */
static inline bool dj__update_clip(const float *hyper, const float *guard, float *clip) {
  float max_norm = hyper[DJ__HYPER_MAX_NORM], norm = guard[1];
  *clip = max_norm > 0 && norm > max_norm ? max_norm / norm : 1.0f;
  return isfinite(guard[0]) && isfinite(norm);
}

/* The first update of all (t = 1): moments are zero before it. */
static inline bool dj__update_is_first(const float *hyper) {
  const double beta1 = (double)hyper[DJ__HYPER_BETA1], beta2 = (double)hyper[DJ__HYPER_BETA2];
  return hyper[DJ__HYPER_CORRECT1] == (float)(1 - beta1) &&
         hyper[DJ__HYPER_CORRECT2] == (float)(1 - beta2);
}

typedef struct dj__accumulate_attr {
  float scale;
} dj__accumulate_attr;

/* global_norm: squares are summed in double over blocks of this many elements (restarting with
 * every input), then the blocks' sums are added in order: one result for any thread count. */
enum { DJ__NORM_BLOCK = 4096 };

#endif
