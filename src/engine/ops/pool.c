/*
 * Pooling and resizing of images (N, H, W, C). Max pooling sends its gradient to the first maximum
 * of a window, whose place it keeps; average pooling and resizing are linear, so that each and its
 * gradient op are each other's gradients. Padding never takes part: it is neither a candidate for
 * the maximum nor counted in an average. Global pooling is a mean over both image axes.
 */
#include "dojo/ops.h"
#include "engine/attrs.h"
#include "engine/ops/common.h"

enum { POOL_LIMIT = 1 << 20 }; /* of kernel size and stride */
#define SIDE_LIMIT ((int64_t)1 << 31)

/* ---- shapes ---- */

/* Output size of a (h, w) image; every window must touch a pixel that is not padding. */
static dj_status pool_size(const dj__infer *s, const dj__pool_attr *a, int64_t h, int64_t w,
                           int64_t out[2]) {
  const int64_t in[2] = {h, w};
  for (int i = 0; i < 2; i++) {
    int k = a->kernel[i], p0 = a->pad[i], p1 = a->pad[i + 2];
    if (k < 1 || k > POOL_LIMIT || a->stride[i] < 1 || a->stride[i] > POOL_LIMIT)
      return dj__bad(s, "kernel size %d and stride %d must be in 1..%d", k, a->stride[i],
                     POOL_LIMIT);
    if (p0 < 0 || p1 < 0 || p0 >= k || p1 >= k)
      return dj__bad(s, "padding %d and %d must be at least 0 and less than the kernel size %d", p0,
                     p1, k);
    if (in[i] < 1 || in[i] > SIDE_LIMIT)
      return dj__bad(s, "input size %lld is out of range", (long long)in[i]);
    int64_t padded = in[i] + p0 + p1;
    if (padded < k)
      return dj__bad(s, "kernel size %d is larger than the padded input (%lld)", k,
                     (long long)padded);
    out[i] = (padded - k) / a->stride[i] + 1;
  }
  return DJ_OK;
}

static dj_status pool_infer(dj__infer *s) {
  int64_t out[2] = {0};
  DJ_TRY(dj__want_float(s, 0, 4));
  const int64_t *x = s->in[0].shape.dim;
  DJ_TRY(pool_size(s, s->attr, x[1], x[2], out));
  s->out[0].shape = DJ_SHAPE(x[0], out[0], out[1], x[3]);
  return DJ_OK;
}

static dj_dtype index_dtype(const dj__pool_attr *a) {
  return (int64_t)a->kernel[0] * a->kernel[1] <= 256 ? DJ_U8 : DJ_I32;
}

static dj_status max_pool_infer(dj__infer *s) {
  const dj__pool_attr *a = s->attr;
  DJ_TRY(pool_infer(s));
  if ((int64_t)a->kernel[0] * a->kernel[1] > INT32_MAX)
    return dj__bad(s, "windows of more than %d pixels", INT32_MAX);
  dj__set_out(s, 1, index_dtype(a), s->out[0].shape);
  return DJ_OK;
}

/* Of both gradients: input i is dy; dx has the size in_h, in_w. */
static dj_status grad_infer(dj__infer *s, int i) {
  const dj__pool_attr *a = s->attr;
  int64_t out[2] = {0};
  DJ_TRY(dj__want_float(s, i, 4));
  const int64_t *dy = s->in[i].shape.dim;
  DJ_TRY(pool_size(s, a, a->in_h, a->in_w, out));
  if (out[0] != dy[1] || out[1] != dy[2])
    return dj__bad(s, "an image of %lld x %lld is pooled to %lld x %lld, not to %lld x %lld",
                   (long long)a->in_h, (long long)a->in_w, (long long)out[0], (long long)out[1],
                   (long long)dy[1], (long long)dy[2]);
  dj__set_out(s, 0, s->in[i].dtype, DJ_SHAPE(dy[0], a->in_h, a->in_w, dy[3]));
  return DJ_OK;
}

static dj_status avg_pool_grad_infer(dj__infer *s) {
  return grad_infer(s, 0);
}

static dj_status max_pool_grad_infer(dj__infer *s) {
  DJ_TRY(grad_infer(s, 1));
  if (s->in[0].dtype != index_dtype(s->attr) || !dj_shape_equal(&s->in[0].shape, &s->in[1].shape))
    return dj__bad(s, "input 0 must be the places that max_pool gives, %s and of dy's shape",
                   dj_dtype_name(index_dtype(s->attr)));
  return DJ_OK;
}

static dj_status resize_infer(dj__infer *s) {
  const dj__resize_attr *a = s->attr;
  DJ_TRY(dj__want_float(s, 0, 4));
  const int64_t *x = s->in[0].shape.dim;
  for (int i = 1; i < 3; i++)
    if (x[i] > SIDE_LIMIT / 4) return dj__bad(s, "side of %lld is too long", (long long)x[i]);
  if (a->h < 1 || a->w < 1 || a->h > SIDE_LIMIT / 4 || a->w > SIDE_LIMIT / 4)
    return dj__bad(s, "output size %lld x %lld is out of range", (long long)a->h, (long long)a->w);
  if (a->mode != DJ_NEAREST && a->mode != DJ_BILINEAR)
    return dj__bad(s, "unknown mode %lld; use DJ_NEAREST or DJ_BILINEAR", (long long)a->mode);
  s->out[0].shape = DJ_SHAPE(x[0], a->h, a->w, x[3]);
  return DJ_OK;
}

/* ---- gradients ---- */

/* Attribute of a gradient: with the size of x. */
static dj__pool_attr with_size(dj_graph *g, const dj__node *n) {
  dj__pool_attr a = *(const dj__pool_attr *)n->attr;
  dj_shape x = dj_val_shape(g, n->in[0]);
  a.in_h = x.dim[1];
  a.in_w = x.dim[2];
  return a;
}

static void max_pool_backward(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  dj__pool_attr a = with_size(g, n);
  din[0] = dj__emit(g, DJ__OP_max_pool_grad, (dj_val[]){n->out[1], dout[0]}, 2, &a, sizeof a);
}

static void avg_pool_backward(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  dj__pool_attr a = with_size(g, n);
  din[0] = dj__emit(g, DJ__OP_avg_pool_grad, dout, 1, &a, sizeof a);
}

static void avg_pool_grad_backward(dj_graph *g, const dj__node *n, const dj_val *dout,
                                   dj_val *din) {
  dj__pool_attr a = *(const dj__pool_attr *)n->attr;
  a.in_h = a.in_w = 0;
  din[0] = dj__emit(g, DJ__OP_avg_pool, dout, 1, &a, sizeof a);
}

static void resize_either_backward(dj_graph *g, const dj__node *n, const dj_val *dout,
                                   dj_val *din) {
  dj__resize_attr a = *(const dj__resize_attr *)n->attr;
  dj_shape x = dj_val_shape(g, n->in[0]);
  a.h = x.dim[1];
  a.w = x.dim[2];
  dj__op op = n->op == DJ__OP_resize ? DJ__OP_resize_grad : DJ__OP_resize;
  din[0] = dj__emit(g, op, dout, 1, &a, sizeof a);
}

/* ---- cost ---- */

/* One FLOP for each pixel of each window. */
static void pool_cost(const dj__call *c, dj__cost *cost) {
  const dj__pool_attr *a = c->attr;
  const dj_tensor *y = c->op == DJ__OP_max_pool || c->op == DJ__OP_avg_pool ? &c->out[0]
                       : c->op == DJ__OP_max_pool_grad                      ? &c->in[1]
                                                                            : &c->in[0];
  dj__cost_touch(c, cost);
  cost->flops = (double)dj_shape_count(&y->shape) * a->kernel[0] * a->kernel[1];
}

static void resize_cost(const dj__call *c, dj__cost *cost) {
  const dj__resize_attr *a = c->attr;
  const dj_tensor *large = c->op == DJ__OP_resize ? &c->out[0] : &c->in[0];
  dj__cost_touch(c, cost);
  cost->flops = a->mode == DJ_BILINEAR ? 8.0 * (double)dj_shape_count(&large->shape) : 0;
}

/* ---- reference kernels: pooling ---- */

typedef struct window {
  int64_t h0, h1, w0, w1; /* pixels inside the image, end exclusive */
} window;

static window window_at(const dj__pool_attr *a, int64_t h, int64_t w, int64_t oh, int64_t ow) {
  int64_t h0 = oh * a->stride[0] - a->pad[0], w0 = ow * a->stride[1] - a->pad[1];
  int64_t h1 = h0 + a->kernel[0], w1 = w0 + a->kernel[1];
  return (window){h0 > 0 ? h0 : 0, h1 < h ? h1 : h, w0 > 0 ? w0 : 0, w1 < w ? w1 : w};
}

static dj_status max_pool_ref(const dj__call *call) {
  const dj__pool_attr *a = call->attr;
  const int64_t *xd = call->in[0].shape.dim, *yd = call->out[0].shape.dim;
  const int64_t image = xd[1] * xd[2] * xd[3];
  const float *x = call->in[0].data; // (N, H, W, C) f32
  float *y = call->out[0].data;      // (N, OH, OW, C) f32
  void *place = call->out[1].data;   // (N, OH, OW, C) u8 or i32
  for (int64_t u = 0, count = dj_shape_count(&call->out[0].shape); u < count; u++) {
    const int64_t c = u % yd[3], j = u / yd[3] % yd[2], i = u / yd[3] / yd[2] % yd[1];
    const float *from = x + u / yd[3] / yd[2] / yd[1] * image + c;
    const window p = window_at(a, xd[1], xd[2], i, j);
    int64_t best = p.h0 * xd[2] + p.w0; // pixel of the first maximum; NaN counts as one
    for (int64_t h = p.h0; h < p.h1; h++)
      for (int64_t w = p.w0; w < p.w1; w++) {
        const float v = from[(h * xd[2] + w) * xd[3]], b = from[best * xd[3]];
        if (v > b || (v != v && b == b)) best = h * xd[2] + w;
      }
    y[u] = from[best * xd[3]];
    const int64_t code = (best / xd[2] - i * a->stride[0] + a->pad[0]) * a->kernel[1] +
                         best % xd[2] - j * a->stride[1] + a->pad[1];
    if (call->out[1].dtype == DJ_U8)
      ((uint8_t *)place)[u] = (uint8_t)code;
    else
      ((int32_t *)place)[u] = (int32_t)code;
  }
  return DJ_OK;
}

static dj_status max_pool_grad_ref(const dj__call *call) {
  const dj__pool_attr *a = call->attr;
  const int64_t *xd = call->out[0].shape.dim, *yd = call->in[1].shape.dim;
  const void *place = call->in[0].data; // (N, OH, OW, C) u8 or i32
  const float *dy = call->in[1].data;   // (N, OH, OW, C) f32
  float *dx = call->out[0].data;        // (N, H, W, C) f32
  memset(dx, 0, dj_tensor_bytes(&call->out[0]));
  for (int64_t u = 0, count = dj_shape_count(&call->in[1].shape); u < count; u++) {
    const int64_t c = u % yd[3], j = u / yd[3] % yd[2], i = u / yd[3] / yd[2] % yd[1];
    const int64_t code =
        call->in[0].dtype == DJ_U8 ? ((const uint8_t *)place)[u] : ((const int32_t *)place)[u];
    const int64_t h = i * a->stride[0] - a->pad[0] + code / a->kernel[1];
    const int64_t w = j * a->stride[1] - a->pad[1] + code % a->kernel[1];
    const int64_t n = u / yd[3] / yd[2] / yd[1];
    if (code >= (int64_t)a->kernel[0] * a->kernel[1] || h < 0 || h >= xd[1] || w < 0 || w >= xd[2])
      continue; // no place that max_pool gives
    dx[((n * xd[1] + h) * xd[2] + w) * xd[3] + c] += dy[u];
  }
  return DJ_OK;
}

static dj_status avg_pool_ref(const dj__call *call) {
  const int64_t *xd = call->in[0].shape.dim, *yd = call->out[0].shape.dim;
  const float *x = call->in[0].data; // (N, H, W, C) f32
  float *y = call->out[0].data;      // (N, OH, OW, C) f32
  for (int64_t n = 0; n < yd[0]; n++, x += xd[1] * xd[2] * xd[3])
    for (int64_t i = 0; i < yd[1] * yd[2]; i++, y += yd[3]) {
      window p = window_at(call->attr, xd[1], xd[2], i / yd[2], i % yd[2]);
      for (int64_t c = 0; c < yd[3]; c++) {
        double sum = 0;
        for (int64_t h = p.h0; h < p.h1; h++)
          for (int64_t w = p.w0; w < p.w1; w++) sum += (double)x[(h * xd[2] + w) * xd[3] + c];
        y[c] = (float)(sum / (double)((p.h1 - p.h0) * (p.w1 - p.w0)));
      }
    }
  return DJ_OK;
}

static dj_status avg_pool_grad_ref(const dj__call *call) {
  const int64_t *xd = call->out[0].shape.dim, *yd = call->in[0].shape.dim;
  const float *dy = call->in[0].data; // (N, OH, OW, C) f32
  float *dx = call->out[0].data;      // (N, H, W, C) f32
  memset(dx, 0, dj_tensor_bytes(&call->out[0]));
  for (int64_t n = 0; n < yd[0]; n++, dx += xd[1] * xd[2] * xd[3])
    for (int64_t i = 0; i < yd[1] * yd[2]; i++, dy += yd[3]) {
      window p = window_at(call->attr, xd[1], xd[2], i / yd[2], i % yd[2]);
      float share = 1.0f / (float)((p.h1 - p.h0) * (p.w1 - p.w0));
      for (int64_t h = p.h0; h < p.h1; h++)
        for (int64_t w = p.w0; w < p.w1; w++)
          for (int64_t c = 0; c < yd[3]; c++) dx[(h * xd[2] + w) * xd[3] + c] += share * dy[c];
    }
  return DJ_OK;
}

/* ---- reference kernels: resizing ---- */

/* The up to four input pixels of output pixel (i, j) with their weights. */
typedef struct taps {
  int64_t at[4]; /* pixel index, row * W + column */
  double weight[4];
  int n;
} taps;

static taps taps_of(int64_t mode, int64_t i, int64_t j, int64_t h, int64_t w, int64_t oh,
                    int64_t ow) {
  if (mode == DJ_NEAREST)
    return (taps){{dj__resize_nearest(i, h, oh) * w + dj__resize_nearest(j, w, ow)}, {1}, 1};
  dj__lerp v = dj__resize_linear(i, h, oh), u = dj__resize_linear(j, w, ow);
  double a = (double)v.w1, b = (double)u.w1;
  return (taps){{v.i0 * w + u.i0, v.i0 * w + u.i1, v.i1 * w + u.i0, v.i1 * w + u.i1},
                {(1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b},
                4};
}

static dj_status resize_ref(const dj__call *call) {
  const dj__resize_attr *a = call->attr;
  const int64_t *xd = call->in[0].shape.dim, *yd = call->out[0].shape.dim, ch = xd[3];
  const float *x = call->in[0].data; // (N, H, W, C) f32
  float *y = call->out[0].data;      // (N, OH, OW, C) f32
  for (int64_t n = 0; n < yd[0]; n++, x += xd[1] * xd[2] * ch)
    for (int64_t i = 0; i < yd[1] * yd[2]; i++, y += ch) {
      taps t = taps_of(a->mode, i / yd[2], i % yd[2], xd[1], xd[2], yd[1], yd[2]);
      for (int64_t c = 0; c < ch; c++) {
        double sum = 0;
        for (int k = 0; k < t.n; k++) sum += t.weight[k] * (double)x[t.at[k] * ch + c];
        y[c] = (float)sum;
      }
    }
  return DJ_OK;
}

static dj_status resize_grad_ref(const dj__call *call) {
  const dj__resize_attr *a = call->attr;
  const int64_t *yd = call->in[0].shape.dim, *xd = call->out[0].shape.dim, ch = xd[3];
  const float *dy = call->in[0].data; // (N, OH, OW, C) f32
  float *dx = call->out[0].data;      // (N, H, W, C) f32
  memset(dx, 0, dj_tensor_bytes(&call->out[0]));
  for (int64_t n = 0; n < yd[0]; n++, dx += xd[1] * xd[2] * ch)
    for (int64_t i = 0; i < yd[1] * yd[2]; i++, dy += ch) {
      taps t = taps_of(a->mode, i / yd[2], i % yd[2], xd[1], xd[2], yd[1], yd[2]);
      for (int k = 0; k < t.n; k++)
        for (int64_t c = 0; c < ch; c++) dx[t.at[k] * ch + c] += (float)t.weight[k] * dy[c];
    }
  return DJ_OK;
}

/* ---- samples ---- */

/* X(name, N, H, W, C, KH, KW, stride h, w, pad top, left, bottom, right, bench) */
#define POOL_SAMPLES(X)                                                                            \
  X(pool_2x2, 2, 6, 8, 16, 2, 2, 2, 2, 0, 0, 0, 0, false)                                          \
  X(pool_3x3_stride2_pad, 2, 7, 9, 5, 3, 3, 2, 2, 1, 1, 1, 1, false)                               \
  X(pool_overlap, 1, 5, 6, 3, 3, 2, 1, 1, 0, 0, 0, 0, false)                                       \
  X(pool_asymmetric, 1, 7, 5, 17, 3, 4, 2, 3, 2, 1, 0, 3, false)                                   \
  X(pool_skips_pixels, 1, 8, 8, 2, 1, 2, 3, 3, 0, 0, 0, 0, false)                                  \
  X(pool_whole_image, 3, 4, 5, 33, 4, 5, 4, 5, 0, 0, 0, 0, false)                                  \
  X(pool_many_windows, 1, 6, 7, 18, 3, 3, 1, 1, 1, 1, 1, 1, false)                                 \
  X(pool_one_channel, 2, 9, 47, 1, 4, 21, 5, 13, 0, 0, 0, 0, false)                                \
  X(pool_wide_windows, 1, 20, 21, 5, 17, 18, 2, 2, 1, 0, 0, 1, false)                              \
  X(pool_threads, 3, 41, 40, 37, 3, 3, 2, 2, 1, 1, 1, 1, false)                                    \
  X(bench_pool_2x2, 32, 64, 128, 32, 2, 2, 2, 2, 0, 0, 0, 0, true)                                 \
  X(bench_pool_3x3_s2, 32, 64, 128, 64, 3, 3, 2, 2, 1, 1, 1, 1, true)

#define POOL_OUT(in, k, s, p0, p1) (((in) + (p0) + (p1) - (k)) / (s) + 1)
#define POOL_ATTR(nm, N, H, W, C, KH, KW, sh, sw, pt, pl, pb, pr, b)                               \
  static const dj__pool_attr nm##_attr = {                                                         \
      .kernel = {KH, KW}, .stride = {sh, sw}, .pad = {pt, pl, pb, pr}, .in_h = H, .in_w = W};
POOL_SAMPLES(POOL_ATTR)
#define POOL_Y(N, H, W, C, KH, KW, sh, sw, pt, pl, pb, pr)                                         \
  DJ__F32(N, POOL_OUT(H, KH, sh, pt, pb), POOL_OUT(W, KW, sw, pl, pr), C)
#define POOL_PLACE(N, H, W, C, KH, KW, sh, sw, pt, pl, pb, pr)                                     \
  {                                                                                                \
    .dtype = (KH) * (KW) <= 256 ? DJ_U8 : DJ_I32,                                                  \
    .shape = DJ__DIMS(N, POOL_OUT(H, KH, sh, pt, pb), POOL_OUT(W, KW, sw, pl, pr), C)              \
  }
/* Values lie far apart, so that a gradient check's step changes no maximum. */
#define POOL_X_SAMPLE(nm, N, H, W, C, KH, KW, sh, sw, pt, pl, pb, pr, b)                           \
  {.label = #nm,                                                                                   \
   .n_in = 1,                                                                                      \
   .in = {DJ__F32(N, H, W, C)},                                                                    \
   .range = {{.lo = -100.0f, .hi = 100.0f}},                                                       \
   DJ__ATTR(nm##_attr),                                                                            \
   .bench = b},
#define POOL_DY_SAMPLE(nm, N, H, W, C, KH, KW, sh, sw, pt, pl, pb, pr, b)                          \
  {.label = #nm,                                                                                   \
   .n_in = 1,                                                                                      \
   .in = {POOL_Y(N, H, W, C, KH, KW, sh, sw, pt, pl, pb, pr)},                                     \
   DJ__ATTR(nm##_attr),                                                                            \
   .bench = b},

static const dj__sample pool_samples[] = {POOL_SAMPLES(POOL_X_SAMPLE)};
static const dj__sample avg_pool_grad_samples[] = {POOL_SAMPLES(POOL_DY_SAMPLE)};
/* Places anywhere in the window: also some that lie in padding, which no pixel has. */
#define POOL_PLACE_SAMPLE(nm, N, H, W, C, KH, KW, sh, sw, pt, pl, pb, pr, b)                       \
  {.label = #nm,                                                                                   \
   .n_in = 2,                                                                                      \
   .in = {POOL_PLACE(N, H, W, C, KH, KW, sh, sw, pt, pl, pb, pr),                                  \
          POOL_Y(N, H, W, C, KH, KW, sh, sw, pt, pl, pb, pr)},                                     \
   .range = {{.lo = 0, .hi = (KH) * (KW)}},                                                        \
   DJ__ATTR(nm##_attr),                                                                            \
   .bench = b},
static const dj__sample max_pool_grad_samples[] = {POOL_SAMPLES(POOL_PLACE_SAMPLE)};

/* X(name, N, H, W, C, OH, OW, mode, bench) */
#define RESIZE_SAMPLES(X)                                                                          \
  X(nearest_double, 2, 3, 4, 16, 6, 8, DJ_NEAREST, false)                                          \
  X(nearest_odd, 1, 5, 7, 3, 8, 3, DJ_NEAREST, false)                                              \
  X(bilinear_double, 2, 3, 4, 16, 6, 8, DJ_BILINEAR, false)                                        \
  X(bilinear_odd, 1, 5, 7, 3, 9, 4, DJ_BILINEAR, false)                                            \
  X(bilinear_from_one, 1, 1, 1, 5, 3, 2, DJ_BILINEAR, false)                                       \
  X(bilinear_same, 1, 3, 5, 2, 3, 5, DJ_BILINEAR, false)                                           \
  X(bilinear_threads, 3, 17, 15, 35, 31, 40, DJ_BILINEAR, false)                                   \
  X(nearest_threads, 3, 30, 31, 35, 17, 15, DJ_NEAREST, false)                                     \
  X(bench_nearest_double, 32, 16, 32, 64, 32, 64, DJ_NEAREST, true)                                \
  X(bench_bilinear_double, 32, 16, 32, 64, 32, 64, DJ_BILINEAR, true)

#define RESIZE_ATTR(nm, N, H, W, C, OH, OW, m, b)                                                  \
  static const dj__resize_attr nm##_attr = {.h = OH, .w = OW, .mode = m};                          \
  static const dj__resize_attr nm##_grad_attr = {.h = H, .w = W, .mode = m};
RESIZE_SAMPLES(RESIZE_ATTR)
#define RESIZE_X_SAMPLE(nm, N, H, W, C, OH, OW, m, b)                                              \
  {.label = #nm, .n_in = 1, .in = {DJ__F32(N, H, W, C)}, DJ__ATTR(nm##_attr), .bench = b},
#define RESIZE_DY_SAMPLE(nm, N, H, W, C, OH, OW, m, b)                                             \
  {.label = #nm, .n_in = 1, .in = {DJ__F32(N, OH, OW, C)}, DJ__ATTR(nm##_grad_attr), .bench = b},
static const dj__sample resize_samples[] = {RESIZE_SAMPLES(RESIZE_X_SAMPLE)};
static const dj__sample resize_grad_samples[] = {RESIZE_SAMPLES(RESIZE_DY_SAMPLE)};

DJ__DEFINE_OP(max_pool, 1, 1, 2, DJ__FOLLOW, 1u, 0, max_pool_infer, max_pool_backward, pool_cost,
              max_pool_ref, pool_samples);
DJ__DEFINE_OP(max_pool_grad, 2, 2, 1, DJ__FOLLOW, 2u, 0, max_pool_grad_infer, DJ__NO_GRAD,
              pool_cost, max_pool_grad_ref, max_pool_grad_samples);
DJ__DEFINE_OP(avg_pool, 1, 1, 1, DJ__FOLLOW, 1u, 0, pool_infer, avg_pool_backward, pool_cost,
              avg_pool_ref, pool_samples);
DJ__DEFINE_OP(avg_pool_grad, 1, 1, 1, DJ__FOLLOW, 1u, 0, avg_pool_grad_infer,
              avg_pool_grad_backward, pool_cost, avg_pool_grad_ref, avg_pool_grad_samples);
DJ__DEFINE_OP(resize, 1, 1, 1, DJ__FOLLOW, 1u, 0, resize_infer, resize_either_backward, resize_cost,
              resize_ref, resize_samples);
DJ__DEFINE_OP(resize_grad, 1, 1, 1, DJ__FOLLOW, 1u, 0, resize_infer, resize_either_backward,
              resize_cost, resize_grad_ref, resize_grad_samples);

/* ---- public constructors ---- */

static dj_val pool(dj_graph *g, dj__op op, dj_val x, const dj_pool_args *args) {
  static const dj_pool_args none = {0}; /* a kernel of 0: refused when shapes are inferred */
  const dj_pool_args *p = args ? args : &none;
  dj__pool_attr a;
  memset(&a, 0, sizeof a);
  a.kernel[0] = p->kernel_h;
  a.kernel[1] = p->kernel_w;
  a.stride[0] = p->stride_h ? p->stride_h : 1;
  a.stride[1] = p->stride_w ? p->stride_w : 1;
  a.pad[0] = p->pad_top;
  a.pad[1] = p->pad_left;
  a.pad[2] = p->pad_bottom;
  a.pad[3] = p->pad_right;
  return dj__emit(g, op, &x, 1, &a, sizeof a);
}

dj_val dj_max_pool(dj_graph *g, dj_val x, const dj_pool_args *a) {
  return pool(g, DJ__OP_max_pool, x, a);
}

dj_val dj_avg_pool(dj_graph *g, dj_val x, const dj_pool_args *a) {
  return pool(g, DJ__OP_avg_pool, x, a);
}

dj_val dj_global_avg_pool(dj_graph *g, dj_val x) {
  return dj_mean(g, x, 1u << 1 | 1u << 2);
}

dj_val dj_resize(dj_graph *g, dj_val x, int64_t out_h, int64_t out_w, dj_resize_mode mode) {
  dj__resize_attr a = {.h = out_h, .w = out_w, .mode = mode};
  return dj__emit(g, DJ__OP_resize, &x, 1, &a, sizeof a);
}
