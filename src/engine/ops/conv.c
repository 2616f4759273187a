/*
 * Convolution of images, closed under differentiation: conv2d (x, w) -> y, and its two adjoints
 * conv2d_data (dy, w) -> x and conv2d_weight (x, dy) -> w, which are each other's gradients.
 * conv2d_data is also the public transposed convolution.
 *
 * x (N, H, W, C), w (O, KH, KW, C/groups), y (N, OH, OW, O), OH = (H + pads - dilation * (KH - 1) -
 * 1) / stride + 1. A bias is a separate add here; the fusion pass may fold it, and an activation,
 * into attr.post of conv2d and conv2d_data.
 */
#include "dojo/ops.h"
#include "engine/ewise.h"
#include "engine/graph.h"
#include "engine/ops/common.h"

enum { CONV_LIMIT = 1 << 20 }; /* of kernel size, stride, padding, dilation */
#define CONV_SIDE_LIMIT ((int64_t)1 << 31)

/* ---- shapes ---- */

static dj_status check_attr(const dj__infer *s, const dj__conv_attr *a) {
  for (int i = 0; i < 2; i++) {
    if (a->stride[i] < 1 || a->stride[i] > CONV_LIMIT)
      return dj__bad(s, "stride %d is not in 1..%d", a->stride[i], CONV_LIMIT);
    if (a->dilation[i] < 1 || a->dilation[i] > CONV_LIMIT)
      return dj__bad(s, "dilation %d is not in 1..%d", a->dilation[i], CONV_LIMIT);
  }
  for (int i = 0; i < 4; i++)
    if (a->pad[i] < 0 || a->pad[i] > CONV_LIMIT)
      return dj__bad(s, "padding %d is not in 0..%d", a->pad[i], CONV_LIMIT);
  if (a->groups < 1) return dj__bad(s, "groups is %d, must be at least 1", a->groups);
  return DJ_OK;
}

/* Output size along axis 0 (height) or 1 (width). */
static dj_status out_size(const dj__infer *s, const dj__conv_attr *a, int axis, int64_t in,
                          int64_t kernel, int64_t *out) {
  if (kernel < 1 || kernel > CONV_LIMIT || in < 1 || in > CONV_SIDE_LIMIT)
    return dj__bad(s, "kernel size %lld on input size %lld is out of range", (long long)kernel,
                   (long long)in);
  int64_t padded = in + a->pad[axis] + a->pad[axis + 2];
  int64_t room = padded - a->dilation[axis] * (kernel - 1) - 1;
  if (room < 0)
    return dj__bad(s, "kernel of %s %lld with dilation %d is larger than the padded input (%lld)",
                   axis ? "width" : "height", (long long)kernel, a->dilation[axis],
                   (long long)padded);
  *out = room / a->stride[axis] + 1;
  return DJ_OK;
}

static dj_status check_groups(const dj__infer *s, const dj__conv_attr *a, int64_t c, int64_t o,
                              int64_t c_per_group) {
  if (c % a->groups || c / a->groups != c_per_group || o % a->groups)
    return dj__bad(s,
                   "%lld input channels, %lld output channels, %lld channels in the weights: with "
                   "%d groups the channels must divide by the groups and the weights have "
                   "channels / groups",
                   (long long)c, (long long)o, (long long)c_per_group, a->groups);
  return DJ_OK;
}

static dj_status check_bias(const dj__infer *s, const dj__conv_attr *a, int64_t channels) {
  if (s->n_in != (a->post.bias ? 3 : 2))
    return dj__bad(s, "has %d inputs, its epilogue wants %d", s->n_in, a->post.bias ? 3 : 2);
  return a->post.bias ? dj__want_f32(s, 2, &DJ_SHAPE(channels)) : DJ_OK;
}

static dj_status conv2d_infer(dj__infer *s) {
  const dj__conv_attr *a = s->attr;
  DJ_TRY(dj__want_float(s, 0, 4));
  DJ_TRY(dj__want_float(s, 1, 4));
  DJ_TRY(check_attr(s, a));
  const int64_t *x = s->in[0].shape.dim, *w = s->in[1].shape.dim;
  int64_t oh = 0, ow = 0;
  DJ_TRY(check_groups(s, a, x[3], w[0], w[3]));
  DJ_TRY(check_bias(s, a, w[0]));
  DJ_TRY(out_size(s, a, 0, x[1], w[1], &oh));
  DJ_TRY(out_size(s, a, 1, x[2], w[2], &ow));
  s->out[0].shape = DJ_SHAPE(x[0], oh, ow, w[0]);
  return DJ_OK;
}

static dj_status conv2d_data_infer(dj__infer *s) {
  const dj__conv_attr *a = s->attr;
  DJ_TRY(dj__want_float(s, 0, 4));
  DJ_TRY(dj__want_float(s, 1, 4));
  DJ_TRY(check_attr(s, a));
  const int64_t *dy = s->in[0].shape.dim, *w = s->in[1].shape.dim;
  int64_t oh = 0, ow = 0, c;
  if (dy[3] != w[0])
    return dj__bad(s, "has %lld channels, the weights take %lld", (long long)dy[3],
                   (long long)w[0]);
  if (__builtin_mul_overflow(w[3], (int64_t)a->groups, &c))
    return dj__bad(s, "too many channels: %d groups of %lld", a->groups, (long long)w[3]);
  DJ_TRY(check_groups(s, a, c, w[0], w[3]));
  DJ_TRY(check_bias(s, a, c));
  DJ_TRY(out_size(s, a, 0, a->in_h, w[1], &oh));
  DJ_TRY(out_size(s, a, 1, a->in_w, w[2], &ow));
  if (oh != dy[1] || ow != dy[2])
    return dj__bad(s,
                   "an output of %lld x %lld would be convolved to %lld x %lld, not to the "
                   "input's %lld x %lld; choose another output size or padding",
                   (long long)a->in_h, (long long)a->in_w, (long long)oh, (long long)ow,
                   (long long)dy[1], (long long)dy[2]);
  s->out[0].shape = DJ_SHAPE(dy[0], a->in_h, a->in_w, c);
  return DJ_OK;
}

static dj_status conv2d_weight_infer(dj__infer *s) {
  const dj__conv_attr *a = s->attr;
  DJ_TRY(dj__want_float(s, 0, 4));
  DJ_TRY(dj__want_float(s, 1, 4));
  DJ_TRY(check_attr(s, a));
  const int64_t *x = s->in[0].shape.dim, *dy = s->in[1].shape.dim;
  int64_t oh = 0, ow = 0;
  DJ_TRY(check_groups(s, a, x[3], dy[3], x[3] / a->groups));
  DJ_TRY(out_size(s, a, 0, x[1], a->kh, &oh));
  DJ_TRY(out_size(s, a, 1, x[2], a->kw, &ow));
  if (x[0] != dy[0] || oh != dy[1] || ow != dy[2])
    return dj__bad(s, "an input of %lld x %lld is convolved to %lld x %lld, not to %lld x %lld",
                   (long long)x[1], (long long)x[2], (long long)oh, (long long)ow, (long long)dy[1],
                   (long long)dy[2]);
  dj__set_out(s, 0, DJ_F32, DJ_SHAPE(dy[3], a->kh, a->kw, x[3] / a->groups));
  return DJ_OK;
}

/* ---- gradients ---- */

static dj_val emit_data(dj_graph *g, dj_val dy, dj_val w, dj__conv_attr a, dj_val like) {
  dj_shape s = dj_val_shape(g, like);
  a.in_h = s.dim[1];
  a.in_w = s.dim[2];
  a.kh = a.kw = 0;
  return dj__emit(g, DJ__OP_conv2d_data, (dj_val[]){dy, w}, 2, &a, sizeof a);
}

static dj_val emit_weight(dj_graph *g, dj_val x, dj_val dy, dj__conv_attr a, dj_val like) {
  dj_shape s = dj_val_shape(g, like);
  a.in_h = a.in_w = 0;
  a.kh = (int)s.dim[1];
  a.kw = (int)s.dim[2];
  return dj__emit(g, DJ__OP_conv2d_weight, (dj_val[]){x, dy}, 2, &a, sizeof a);
}

static dj_val emit_conv(dj_graph *g, dj_val x, dj_val w, dj__conv_attr a) {
  a.in_h = a.in_w = 0;
  a.kh = a.kw = 0;
  return dj__emit(g, DJ__OP_conv2d, (dj_val[]){x, w}, 2, &a, sizeof a);
}

/* The attribute without its epilogue. */
static dj__conv_attr bare(const dj__conv_attr *a) {
  dj__conv_attr b;
  memcpy(&b, a, sizeof b);
  memset(&b.post, 0, sizeof b.post);
  return b;
}

static dj_val activation(dj_graph *g, int act, dj_val v) {
  switch (act) {
  case DJ__OP_relu:
    return dj_relu(g, v);
  case DJ__OP_elu:
    return dj_elu(g, v);
  case DJ__OP_sigmoid:
    return dj_sigmoid(g, v);
  case DJ__OP_tanh:
    return dj_tanh(g, v);
  case DJ__OP_silu:
    return dj_silu(g, v);
  case DJ__OP_gelu:
    return dj_gelu(g, v);
  default:
    return v;
  }
}

/* Epilogues are normally made after differentiation. For a node that has one already, the value
 * before the activation is computed again. Returns the gradient of that value; sets the bias's. */
static dj_val grad_through_post(dj_graph *g, const dj__node *n, const dj__conv_attr *a, dj_val dout,
                                dj_val *dbias) {
  dj_val d = dout;
  if (a->post.act) {
    dj__conv_attr b = bare(a);
    dj_val y = dj__emit(g, n->op, n->in, 2, &b, sizeof b);
    if (a->post.bias) y = dj_add(g, y, n->in[2]);
    static const dj__op grad_of[][3] = {
        /* activation, its gradient op, 1 if that takes y and 0 if x */
        {DJ__OP_relu, DJ__OP_relu_grad, 1},       {DJ__OP_elu, DJ__OP_elu_grad, 1},
        {DJ__OP_sigmoid, DJ__OP_sigmoid_grad, 1}, {DJ__OP_tanh, DJ__OP_tanh_grad, 1},
        {DJ__OP_silu, DJ__OP_silu_grad, 0},       {DJ__OP_gelu, DJ__OP_gelu_grad, 0}};
    for (size_t i = 0; i < sizeof grad_of / sizeof grad_of[0]; i++)
      if (grad_of[i][0] == a->post.act) {
        dj_val from = grad_of[i][2] ? activation(g, a->post.act, y) : y;
        d = dj__emit(g, grad_of[i][1], (dj_val[]){from, dout}, 2, &(dj__ewise_attr){0, 0},
                     sizeof(dj__ewise_attr));
      }
  }
  if (a->post.bias) *dbias = dj__sum_to(g, d, n->in[2]);
  return d;
}

static void conv2d_grad(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  const dj__conv_attr *attr = n->attr;
  dj__conv_attr a = bare(attr);
  dj_val d = grad_through_post(g, n, attr, dout[0], &din[2]);
  if (dj__needs_grad(g, n->in[0])) din[0] = emit_data(g, d, n->in[1], a, n->in[0]);
  if (dj__needs_grad(g, n->in[1])) din[1] = emit_weight(g, n->in[0], d, a, n->in[1]);
}

static void conv2d_data_grad(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  const dj__conv_attr *attr = n->attr;
  dj__conv_attr a = bare(attr);
  dj_val d = grad_through_post(g, n, attr, dout[0], &din[2]);
  if (dj__needs_grad(g, n->in[0])) din[0] = emit_conv(g, d, n->in[1], a);
  if (dj__needs_grad(g, n->in[1])) din[1] = emit_weight(g, d, n->in[0], a, n->in[1]);
}

static void conv2d_weight_grad(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  dj__conv_attr a = bare(n->attr);
  if (dj__needs_grad(g, n->in[0])) din[0] = emit_data(g, n->in[1], dout[0], a, n->in[0]);
  if (dj__needs_grad(g, n->in[1])) din[1] = emit_conv(g, n->in[0], dout[0], a);
}

/* ---- cost ---- */

/* 2 FLOPs for each product: the y tensor's size times kernel size times channels of a group. */
static void conv_cost(const dj__call *c, dj__cost *cost) {
  const dj_tensor *y = c->op == DJ__OP_conv2d          ? &c->out[0]
                       : c->op == DJ__OP_conv2d_weight ? &c->in[1]
                                                       : &c->in[0];
  const int64_t *w = c->op == DJ__OP_conv2d_weight ? c->out[0].shape.dim : c->in[1].shape.dim;
  dj__cost_touch(c, cost);
  cost->flops =
      2.0 * (double)dj_shape_count(&y->shape) * (double)w[1] * (double)w[2] * (double)w[3];
}

/* ---- reference kernels ---- */

/* The geometry of one call, for whichever of the three ops. */
typedef struct conv_dims {
  const dj__conv_attr *a;
  int64_t n, h, w, c, oh, ow, o, kh, kw, cg, og; /* cg, og: channels of a group */
} conv_dims;

static conv_dims dims_of(const dj__call *call) {
  const dj_tensor *x, *y, *w;
  switch (call->op) {
  case DJ__OP_conv2d:
    x = &call->in[0], w = &call->in[1], y = &call->out[0];
    break;
  case DJ__OP_conv2d_data:
    y = &call->in[0], w = &call->in[1], x = &call->out[0];
    break;
  default:
    x = &call->in[0], y = &call->in[1], w = &call->out[0];
    break;
  }
  const int64_t *xd = x->shape.dim, *yd = y->shape.dim, *wd = w->shape.dim;
  const dj__conv_attr *a = call->attr;
  return (conv_dims){a,     xd[0], xd[1], xd[2], xd[3], yd[1],
                     yd[2], yd[3], wd[1], wd[2], wd[3], yd[3] / a->groups};
}

static int64_t input_row(const conv_dims *d, int64_t oh, int64_t kh) {
  return oh * d->a->stride[0] - d->a->pad[0] + kh * d->a->dilation[0];
}
static int64_t input_col(const conv_dims *d, int64_t ow, int64_t kw) {
  return ow * d->a->stride[1] - d->a->pad[1] + kw * d->a->dilation[1];
}
static const float *bias_of(const dj__call *c, const conv_dims *d) {
  return d->a->post.bias ? c->in[2].data : NULL;
}

/* One output of conv2d: x is image n's, w is output channel o's filter. */
static double conv_at(const conv_dims *d, const float *x, const float *w, int64_t oh, int64_t ow) {
  double sum = 0;
  for (int64_t kh = 0; kh < d->kh; kh++) {
    int64_t ih = input_row(d, oh, kh);
    if (ih < 0 || ih >= d->h) continue;
    for (int64_t kw = 0; kw < d->kw; kw++) {
      int64_t iw = input_col(d, ow, kw);
      if (iw < 0 || iw >= d->w) continue;
      const float *xp = x + (ih * d->w + iw) * d->c, *wp = w + (kh * d->kw + kw) * d->cg;
      for (int64_t c = 0; c < d->cg; c++)
        sum += (double)xp[c] * dj__as_read(wp[c], d->a->rounds, 1);
    }
  }
  return sum;
}

static dj_status conv2d_ref(const dj__call *call) {
  conv_dims d = dims_of(call);
  const float *x = call->in[0].data; // (N, H, W, C) f32
  const float *w = call->in[1].data; // (O, KH, KW, CG) f32
  const float *b = bias_of(call, &d);
  float *y = call->out[0].data; // (N, OH, OW, O) f32
  for (int64_t n = 0; n < d.n; n++)
    for (int64_t oh = 0; oh < d.oh; oh++)
      for (int64_t ow = 0; ow < d.ow; ow++)
        for (int64_t o = 0; o < d.o; o++) {
          double v = conv_at(&d, x + n * d.h * d.w * d.c + o / d.og * d.cg,
                             w + o * d.kh * d.kw * d.cg, oh, ow);
          y[((n * d.oh + oh) * d.ow + ow) * d.o + o] =
              (float)dj__post_act(d.a->post.act, v + (b ? (double)b[o] : 0));
        }
  return DJ_OK;
}

/* Output index whose tap k falls on input index i, or -1. */
static int64_t output_index(int64_t i, int pad, int64_t k, int dilation, int stride, int64_t out) {
  int64_t p = i + pad - k * dilation;
  return p < 0 || p % stride || p / stride >= out ? -1 : p / stride;
}

/* Adds to acc (tile) what pixel (ih, iw) of conv2d_data gets in channels c0.. of group grp. */
static void data_at(const conv_dims *d, const float *dy, const float *w, int64_t ih, int64_t iw,
                    int64_t grp, int64_t c0, int tile, double *acc) {
  for (int64_t kh = 0; kh < d->kh; kh++) {
    int64_t oh = output_index(ih, d->a->pad[0], kh, d->a->dilation[0], d->a->stride[0], d->oh);
    if (oh < 0) continue;
    for (int64_t kw = 0; kw < d->kw; kw++) {
      int64_t ow = output_index(iw, d->a->pad[1], kw, d->a->dilation[1], d->a->stride[1], d->ow);
      if (ow < 0) continue;
      const float *yp = dy + (oh * d->ow + ow) * d->o;
      for (int64_t o = grp * d->og; o < (grp + 1) * d->og; o++) {
        const float *wp = w + ((o * d->kh + kh) * d->kw + kw) * d->cg + c0;
        for (int c = 0; c < tile; c++)
          acc[c] += (double)yp[o] * dj__as_read(wp[c], d->a->rounds, 1);
      }
    }
  }
}

static dj_status conv2d_data_ref(const dj__call *call) {
  conv_dims d = dims_of(call);
  const float *dy = call->in[0].data; // (N, OH, OW, O) f32
  const float *w = call->in[1].data;  // (O, KH, KW, CG) f32
  const float *b = bias_of(call, &d);
  float *x = call->out[0].data; // (N, H, W, C) f32
  for (int64_t n = 0; n < d.n; n++)
    for (int64_t i = 0; i < d.h * d.w; i++)
      for (int64_t grp = 0; grp < d.a->groups; grp++)
        for (int64_t c0 = 0; c0 < d.cg; c0 += DJ__TILE) {
          double acc[DJ__TILE] = {0};
          int tile = dj__tile(d.cg - c0);
          int64_t first = grp * d.cg + c0;
          data_at(&d, dy + n * d.oh * d.ow * d.o, w, i / d.w, i % d.w, grp, c0, tile, acc);
          float *xp = x + (n * d.h * d.w + i) * d.c + first;
          for (int c = 0; c < tile; c++)
            xp[c] = (float)dj__post_act(d.a->post.act, acc[c] + (b ? (double)b[first + c] : 0));
        }
  return DJ_OK;
}

/* Sum over images and positions for one tap of output channel o, input channels c0.. . */
static void weight_at(const conv_dims *d, const float *x, const float *dy, int64_t o, int64_t kh,
                      int64_t kw, int64_t c0, int tile, double *acc) {
  int64_t first = o / d->og * d->cg + c0;
  for (int64_t n = 0; n < d->n; n++)
    for (int64_t oh = 0; oh < d->oh; oh++) {
      int64_t ih = input_row(d, oh, kh);
      if (ih < 0 || ih >= d->h) continue;
      for (int64_t ow = 0; ow < d->ow; ow++) {
        int64_t iw = input_col(d, ow, kw);
        if (iw < 0 || iw >= d->w) continue;
        double v = (double)dy[((n * d->oh + oh) * d->ow + ow) * d->o + o];
        const float *xp = x + ((n * d->h + ih) * d->w + iw) * d->c + first;
        for (int c = 0; c < tile; c++) acc[c] += v * (double)xp[c];
      }
    }
}

static dj_status conv2d_weight_ref(const dj__call *call) {
  conv_dims d = dims_of(call);
  const float *x = call->in[0].data;  // (N, H, W, C) f32
  const float *dy = call->in[1].data; // (N, OH, OW, O) f32
  float *w = call->out[0].data;       // (O, KH, KW, CG) f32
  for (int64_t o = 0; o < d.o; o++)
    for (int64_t kh = 0; kh < d.kh; kh++)
      for (int64_t kw = 0; kw < d.kw; kw++)
        for (int64_t c0 = 0; c0 < d.cg; c0 += DJ__TILE) {
          double acc[DJ__TILE] = {0};
          int tile = dj__tile(d.cg - c0);
          weight_at(&d, x, dy, o, kh, kw, c0, tile, acc);
          float *wp = w + ((o * d.kh + kh) * d.kw + kw) * d.cg + c0;
          for (int c = 0; c < tile; c++) wp[c] = (float)acc[c];
        }
  return DJ_OK;
}

/* ---- samples ---- */

/* X(name, N, H, W, C, O, KH, KW, stride h, w, pad top, left, bottom, right, dilation h, w, groups,
 *   bench) */
#define CONV_SAMPLES(X)                                                                            \
  X(conv_1x1, 2, 3, 5, 7, 6, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, false)                               \
  X(conv_1x1_stride2, 2, 5, 7, 16, 8, 1, 1, 2, 2, 0, 0, 0, 0, 1, 1, 1, false)                      \
  X(conv_3x3_same, 2, 6, 5, 16, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, false)                        \
  X(conv_3x3_valid_odd, 1, 7, 9, 3, 5, 3, 3, 1, 1, 0, 0, 0, 0, 1, 1, 1, false)                     \
  X(conv_3x3_stride2, 2, 8, 9, 4, 6, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1, false)                       \
  X(conv_5x5_stride2_rgb, 1, 11, 13, 3, 8, 5, 5, 2, 2, 0, 0, 0, 0, 1, 1, 1, false)                 \
  X(conv_7x7_stem, 1, 14, 13, 3, 16, 7, 7, 2, 2, 3, 3, 3, 3, 1, 1, 1, false)                       \
  X(conv_asymmetric, 1, 7, 6, 5, 4, 3, 2, 2, 1, 2, 0, 1, 3, 1, 1, 1, false)                        \
  X(conv_dilated, 1, 9, 11, 4, 3, 3, 3, 1, 2, 2, 1, 2, 3, 2, 3, 1, false)                          \
  X(conv_groups, 2, 5, 6, 6, 9, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 3, false)                            \
  X(conv_groups_stride2, 1, 7, 7, 8, 4, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 4, false)                    \
  X(conv_depthwise, 2, 6, 7, 16, 16, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 16, false)                      \
  X(conv_depthwise_stride2, 1, 7, 8, 5, 5, 5, 5, 2, 2, 2, 2, 2, 2, 1, 1, 5, false)                 \
  X(conv_depthwise_multiplier, 1, 5, 6, 3, 6, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 3, false)              \
  X(conv_kernel_is_image, 3, 4, 3, 5, 2, 4, 3, 1, 1, 0, 0, 0, 0, 1, 1, 1, false)                   \
  X(conv_skips_pixels, 1, 8, 7, 2, 3, 1, 2, 3, 3, 0, 0, 0, 0, 1, 1, 1, false)                      \
  X(conv_one_pixel, 1, 1, 1, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, false)                         \
  X(conv_threads, 5, 21, 35, 5, 70, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1, false)                        \
  X(conv_dilated_rows, 9, 10, 9, 24, 40, 2, 3, 1, 1, 1, 0, 1, 2, 2, 1, 1, false)                   \
  X(conv_tiles, 1, 5, 16, 64, 40, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, false)                          \
  X(conv_tiles_stride2, 1, 6, 9, 160, 36, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1, false)                  \
  X(conv_many_images, 20, 3, 4, 32, 40, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, false)                    \
  X(conv_rows_of_bands, 1, 70, 20, 11, 9, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, false)                  \
  X(conv_mixed_stride2, 5, 6, 16, 32, 32, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1, false)                  \
  X(conv_deep, 3, 3, 4, 512, 16, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, false)                           \
  X(conv_deep_data, 3, 3, 4, 32, 512, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, false)                      \
  X(conv_few_results, 3, 3, 4, 128, 128, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, false)                   \
  X(bench_stem_5x5_s2_rgb, 32, 128, 256, 3, 24, 5, 5, 2, 2, 2, 2, 2, 2, 1, 1, 1, true)             \
  X(bench_stem_7x7_s2_rgb, 16, 128, 256, 3, 64, 7, 7, 2, 2, 3, 3, 3, 3, 1, 1, 1, true)             \
  X(bench_3x3_32, 32, 64, 128, 32, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, true)                      \
  X(bench_3x3_64, 32, 32, 64, 64, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, true)                       \
  X(bench_3x3_128, 32, 16, 32, 128, 128, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, true)                    \
  X(bench_3x3_256, 32, 8, 16, 256, 256, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, true)                     \
  X(bench_3x3_512, 16, 4, 8, 512, 512, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, true)                      \
  X(bench_3x3_s2_64_128, 32, 32, 64, 64, 128, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1, true)               \
  X(bench_1x1_64_256, 32, 32, 64, 64, 256, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, true)                  \
  X(bench_1x1_256_64, 32, 32, 64, 256, 64, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, true)                  \
  X(bench_1x1_s2_64_128, 32, 32, 64, 64, 128, 1, 1, 2, 2, 0, 0, 0, 0, 1, 1, 1, true)               \
  X(bench_depthwise_3x3_128, 32, 32, 64, 128, 128, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 128, true)        \
  X(bench_depthwise_5x5_s2_96, 32, 32, 64, 96, 96, 5, 5, 2, 2, 2, 2, 2, 2, 1, 1, 96, true)

#define CONV_OUT(in, k, s, p0, p1, d) (((in) + (p0) + (p1) - (d) * ((k)-1) - 1) / (s) + 1)

/* One attribute serves all three ops: each reads only its own fields. */
#define CONV_ATTR(name, N, H, W, C, O, KH, KW, sh, sw, pt, pl, pb, pr, dh, dw, G, b)               \
  static const dj__conv_attr name##_attr = {.stride = {sh, sw},                                    \
                                            .pad = {pt, pl, pb, pr},                               \
                                            .dilation = {dh, dw},                                  \
                                            .groups = G,                                           \
                                            .in_h = H,                                             \
                                            .in_w = W,                                             \
                                            .kh = KH,                                              \
                                            .kw = KW};
CONV_SAMPLES(CONV_ATTR)

#define CONV_Y(N, H, W, O, KH, KW, sh, sw, pt, pl, pb, pr, dh, dw)                                 \
  DJ__F32(N, CONV_OUT(H, KH, sh, pt, pb, dh), CONV_OUT(W, KW, sw, pl, pr, dw), O)
#define FORWARD(nm, N, H, W, C, O, KH, KW, sh, sw, pt, pl, pb, pr, dh, dw, G, b)                   \
  {.label = #nm,                                                                                   \
   .n_in = 2,                                                                                      \
   .in = {DJ__F32(N, H, W, C), DJ__F32(O, KH, KW, (C) / (G))},                                     \
   DJ__ATTR(nm##_attr),                                                                            \
   .bench = b},
#define DATA(nm, N, H, W, C, O, KH, KW, sh, sw, pt, pl, pb, pr, dh, dw, G, b)                      \
  {.label = #nm,                                                                                   \
   .n_in = 2,                                                                                      \
   .in = {CONV_Y(N, H, W, O, KH, KW, sh, sw, pt, pl, pb, pr, dh, dw),                              \
          DJ__F32(O, KH, KW, (C) / (G))},                                                          \
   DJ__ATTR(nm##_attr),                                                                            \
   .bench = b},
#define WEIGHT(nm, N, H, W, C, O, KH, KW, sh, sw, pt, pl, pb, pr, dh, dw, G, b)                    \
  {.label = #nm,                                                                                   \
   .n_in = 2,                                                                                      \
   .in = {DJ__F32(N, H, W, C), CONV_Y(N, H, W, O, KH, KW, sh, sw, pt, pl, pb, pr, dh, dw)},        \
   DJ__ATTR(nm##_attr),                                                                            \
   .bench = b},

/* Epilogues: y (2, 6, 5, 8) from x (2, 6, 5, 4), both ways. X(name, bias, activation, lowest value
 * of inputs and weights, largest bias). relu keeps clear of its kink for the gradient check: its
 * channels are on or off as a whole. */
#define POST_SAMPLES(X)                                                                            \
  X(bias, true, 0, -1.0f, 1.0f)                                                                    \
  X(relu, false, DJ__OP_relu, 0.1f, 200.0f)                                                        \
  X(bias_relu, true, DJ__OP_relu, 0.1f, 200.0f)                                                    \
  X(bias_elu, true, DJ__OP_elu, -1.0f, 1.0f)                                                       \
  X(bias_sigmoid, true, DJ__OP_sigmoid, -1.0f, 1.0f)                                               \
  X(bias_tanh, true, DJ__OP_tanh, -1.0f, 1.0f)                                                     \
  X(bias_silu, true, DJ__OP_silu, -1.0f, 1.0f)                                                     \
  X(bias_gelu, true, DJ__OP_gelu, -1.0f, 1.0f)
#define POST_ATTR(nm, b, op, low, high)                                                            \
  static const dj__conv_attr post_##nm = {.stride = {1, 1},                                        \
                                          .pad = {1, 1, 1, 1},                                     \
                                          .dilation = {1, 1},                                      \
                                          .groups = 1,                                             \
                                          .in_h = 6,                                               \
                                          .in_w = 5,                                               \
                                          .post = {b, op}};
POST_SAMPLES(POST_ATTR)
#define POST_FORWARD(nm, b, op, low, high)                                                         \
  {.label = "post_" #nm,                                                                           \
   .n_in = (b) ? 3 : 2,                                                                            \
   .in = {DJ__F32(2, 6, 5, 4), DJ__F32(8, 3, 3, 4), DJ__F32(8)},                                   \
   .range = {{.lo = low, .hi = 1}, {.lo = low, .hi = 1}, {.lo = -(high), .hi = high}},             \
   DJ__ATTR(post_##nm)},
#define POST_DATA(nm, b, op, low, high)                                                            \
  {.label = "post_" #nm,                                                                           \
   .n_in = (b) ? 3 : 2,                                                                            \
   .in = {DJ__F32(2, 6, 5, 8), DJ__F32(8, 3, 3, 4), DJ__F32(4)},                                   \
   .range = {{.lo = low, .hi = 1}, {.lo = low, .hi = 1}, {.lo = -(high), .hi = high}},             \
   DJ__ATTR(post_##nm)},

static const dj__conv_attr rounded_attr = {.stride = {1, 1},
                                           .pad = {1, 1, 1, 1},
                                           .dilation = {1, 1},
                                           .groups = 1,
                                           .in_h = 6,
                                           .in_w = 5,
                                           .rounds = 2};
#define ROUNDED(x_channels)                                                                        \
  {.label = "rounded",                                                                             \
   .n_in = 2,                                                                                      \
   .in = {DJ__F32(2, 6, 5, x_channels), DJ__F32(8, 3, 3, 4)},                                      \
   DJ__ATTR(rounded_attr)},

static const dj__sample conv2d_samples[] = {CONV_SAMPLES(FORWARD) POST_SAMPLES(POST_FORWARD)
                                                ROUNDED(4)};
static const dj__sample conv2d_data_samples[] = {CONV_SAMPLES(DATA) POST_SAMPLES(POST_DATA)
                                                     ROUNDED(8)};
static const dj__sample conv2d_weight_samples[] = {CONV_SAMPLES(WEIGHT)};

DJ__DEFINE_OP(conv2d, 2, 3, 1, DJ__COMPUTE, 3u, 0, conv2d_infer, conv2d_grad, conv_cost, conv2d_ref,
              conv2d_samples);
DJ__DEFINE_OP(conv2d_data, 2, 3, 1, DJ__COMPUTE, 3u, 0, conv2d_data_infer, conv2d_data_grad,
              conv_cost, conv2d_data_ref, conv2d_data_samples);
DJ__DEFINE_OP(conv2d_weight, 2, 2, 1, DJ__COMPUTE, 3u, 0, conv2d_weight_infer, conv2d_weight_grad,
              conv_cost, conv2d_weight_ref, conv2d_weight_samples);

/* ---- public constructors ---- */

static dj__conv_attr attr_of(const dj_conv2d_args *args) {
  static const dj_conv2d_args defaults = {0};
  const dj_conv2d_args *a = args ? args : &defaults;
  dj__conv_attr r;
  memset(&r, 0, sizeof r);
  r.stride[0] = a->stride_h ? a->stride_h : 1;
  r.stride[1] = a->stride_w ? a->stride_w : 1;
  r.pad[0] = a->pad_top;
  r.pad[1] = a->pad_left;
  r.pad[2] = a->pad_bottom;
  r.pad[3] = a->pad_right;
  r.dilation[0] = a->dilation_h ? a->dilation_h : 1;
  r.dilation[1] = a->dilation_w ? a->dilation_w : 1;
  r.groups = a->groups ? a->groups : 1;
  return r;
}

/* y + bias, where bias is (channels of y). */
static dj_val add_bias(dj_graph *g, dj_val y, dj_val bias, const char *op) {
  if (bias == DJ_NONE || y == DJ_NONE) return y;
  dj_shape s = dj_val_shape(g, bias), want = DJ_SHAPE(dj_val_shape(g, y).dim[3]);
  char have[DJ_SHAPE_TEXT];
  if (!dj_shape_equal(&s, &want))
    return dj__graph_fail(g, dj_error(DJ_E_INVALID, "%s at '%s': the bias must be (%lld), it is %s",
                                      op, g->label, (long long)want.dim[0],
                                      dj_shape_text(&s, have, sizeof have)));
  return dj_add(g, y, bias);
}

dj_val dj_conv2d(dj_graph *g, dj_val x, dj_val w, dj_val bias, const dj_conv2d_args *args) {
  dj__conv_attr a = attr_of(args);
  return add_bias(g, dj__emit(g, DJ__OP_conv2d, (dj_val[]){x, w}, 2, &a, sizeof a), bias, "conv2d");
}

dj_conv2d_args dj_conv2d_same(int kernel, int stride) {
  int p = kernel / 2;
  return (dj_conv2d_args){.stride_h = stride,
                          .stride_w = stride,
                          .pad_top = p,
                          .pad_left = p,
                          .pad_bottom = p,
                          .pad_right = p};
}

dj_val dj_conv_transpose2d(dj_graph *g, dj_val x, dj_val w, dj_val bias, const dj_conv2d_args *args,
                           int64_t out_h, int64_t out_w) {
  dj__conv_attr a = attr_of(args);
  a.in_h = out_h;
  a.in_w = out_w;
  return add_bias(g, dj__emit(g, DJ__OP_conv2d_data, (dj_val[]){x, w}, 2, &a, sizeof a), bias,
                  "conv_transpose2d");
}
