/*
 * Operations. Each makes one node (or a few) and returns its value; shapes are inferred at once.
 * Shapes are written (N, H, W, C). Float values are f32 when building; the precision pass may
 * compute them in bf16. Errors: see graph.h (sticky).
 */
#ifndef DOJO_OPS_H
#define DOJO_OPS_H

#include "dojo/graph.h"

/* ---- elementwise; two operands broadcast as in NumPy ---- */
dj_val dj_add(dj_graph *g, dj_val a, dj_val b);
dj_val dj_sub(dj_graph *g, dj_val a, dj_val b);
dj_val dj_mul(dj_graph *g, dj_val a, dj_val b);
dj_val dj_div(dj_graph *g, dj_val a, dj_val b);
dj_val dj_max2(dj_graph *g, dj_val a, dj_val b);
dj_val dj_min2(dj_graph *g, dj_val a, dj_val b);
dj_val dj_affine(dj_graph *g, dj_val x, float scale, float shift); /* scale * x + shift */
dj_val dj_clamp(dj_graph *g, dj_val x, float lo, float hi);        /* gradient 0 outside */
dj_val dj_neg(dj_graph *g, dj_val x);
dj_val dj_abs(dj_graph *g, dj_val x);
dj_val dj_exp(dj_graph *g, dj_val x);
dj_val dj_log(dj_graph *g, dj_val x);
dj_val dj_sqrt(dj_graph *g, dj_val x);
dj_val dj_square(dj_graph *g, dj_val x);
dj_val dj_relu(dj_graph *g, dj_val x);
dj_val dj_elu(dj_graph *g, dj_val x); /* alpha 1 */
dj_val dj_silu(dj_graph *g, dj_val x);
dj_val dj_gelu(dj_graph *g, dj_val x); /* tanh approximation (Hendrycks & Gimpel 2016) */
dj_val dj_sigmoid(dj_graph *g, dj_val x);
dj_val dj_tanh(dj_graph *g, dj_val x);
dj_val dj_softplus(dj_graph *g, dj_val x);
dj_val dj_sin(dj_graph *g, dj_val x);
dj_val dj_cos(dj_graph *g, dj_val x);
dj_val dj_greater(dj_graph *g, dj_val a, dj_val b);          /* 1 where a > b else 0; no gradient */
dj_val dj_select(dj_graph *g, dj_val c, dj_val a, dj_val b); /* a where c != 0 else b */
dj_val dj_cast(dj_graph *g, dj_val x, dj_dtype t);           /* u8/i32 -> float too */
dj_val dj_stop_gradient(dj_graph *g, dj_val x);

/* ---- losses, elementwise, not reduced; operands have equal shapes ---- */
dj_val dj_l1(dj_graph *g, dj_val x, dj_val target);
dj_val dj_l2(dj_graph *g, dj_val x, dj_val target); /* squared difference */
dj_val dj_huber(dj_graph *g, dj_val x, dj_val target, float delta);
dj_val dj_bce_logits(dj_graph *g, dj_val logit, dj_val target);
/* |x - target| / b + log(2 b), b = exp(log_b); gradients to x and log_b. */
dj_val dj_laplace_nll(dj_graph *g, dj_val x, dj_val log_b, dj_val target);
/* logits (N, C) f32, labels (N) i32 in 0..C-1, or negative: loss and gradient 0. Returns (N). */
dj_val dj_cross_entropy(dj_graph *g, dj_val logits, dj_val labels);

/* ---- reductions; axes is a bit mask; reduced axes are dropped unless keep ---- */
#define DJ_ALL_AXES 0xffffffffu
dj_val dj_sum(dj_graph *g, dj_val x, uint32_t axes);
dj_val dj_mean(dj_graph *g, dj_val x, uint32_t axes);
dj_val dj_reduce_max(dj_graph *g, dj_val x, uint32_t axes); /* gradient to the first maximum */
dj_val dj_reduce_min(dj_graph *g, dj_val x, uint32_t axes);
dj_val dj_sum_keep(dj_graph *g, dj_val x, uint32_t axes);
dj_val dj_mean_keep(dj_graph *g, dj_val x, uint32_t axes);
dj_val dj_argmax(dj_graph *g, dj_val x, int axis); /* i32, first maximum; no gradient */
dj_val dj_argmin(dj_graph *g, dj_val x, int axis);

/* ---- matrix products ---- */
/* a (..., M, K) x b (..., K, N) -> (..., M, N); transpose_* take the last two axes swapped. b may
 * be of rank 2 for any a; otherwise leading axes are equal. */
dj_val dj_matmul(dj_graph *g, dj_val a, dj_val b, bool transpose_a, bool transpose_b);
/* x (..., I), w (O, I), bias (O) or DJ_NONE -> (..., O) */
dj_val dj_linear(dj_graph *g, dj_val x, dj_val w, dj_val bias);

/* ---- convolution; x (N, H, W, C), w (O, KH, KW, C/groups) ---- */
typedef struct dj_conv2d_args {
  int stride_h, stride_w; /* 0 counts as 1 */
  int pad_top, pad_left, pad_bottom, pad_right;
  int dilation_h, dilation_w; /* 0 counts as 1 */
  int groups;                 /* 0 counts as 1; C for depthwise */
} dj_conv2d_args;
dj_val dj_conv2d(dj_graph *g, dj_val x, dj_val w, dj_val bias, const dj_conv2d_args *a);
/* Square stride, "same" padding for odd kernels: out = ceil(in / stride). */
dj_conv2d_args dj_conv2d_same(int kernel, int stride);
/* x (N, H, W, O), w (O, KH, KW, C/groups) -> (N, out_h, out_w, C): the adjoint of dj_conv2d with
 * the same arguments; out_h, out_w is an input size that conv2d would map to H, W. */
dj_val dj_conv_transpose2d(dj_graph *g, dj_val x, dj_val w, dj_val bias, const dj_conv2d_args *a,
                           int64_t out_h, int64_t out_w);

/* ---- resizing and pooling; x (N, H, W, C) ---- */
typedef enum dj_resize_mode { DJ_NEAREST, DJ_BILINEAR } dj_resize_mode;
/* Pixel centres at +0.5 (align_corners = false); nearest takes floor. */
dj_val dj_resize(dj_graph *g, dj_val x, int64_t out_h, int64_t out_w, dj_resize_mode mode);
typedef struct dj_pool_args {
  int kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, pad_bottom, pad_right;
} dj_pool_args;
dj_val dj_max_pool(dj_graph *g, dj_val x, const dj_pool_args *a);
dj_val dj_avg_pool(dj_graph *g, dj_val x, const dj_pool_args *a); /* padding is not counted */
dj_val dj_global_avg_pool(dj_graph *g, dj_val x);                 /* (N, C) */

/* ---- normalisation ---- */
/* Over all axes but the last. scale, shift (C). Training: batch statistics (biased variance) and
 * running_* updated as r += momentum * (s - r), the running variance with the unbiased estimate;
 * otherwise running statistics are used. */
dj_val dj_batch_norm(dj_graph *g, dj_val x, dj_val scale, dj_val shift, dj_val running_mean,
                     dj_val running_var, bool training, float momentum, float eps);
dj_val dj_layer_norm(dj_graph *g, dj_val x, dj_val scale, dj_val shift, float eps); /* last axis */
dj_val dj_rms_norm(dj_graph *g, dj_val x, dj_val scale, float eps);                 /* last axis */
/* x (N, ..., C), C in `groups` groups; over a group's channels and all middle axes. */
dj_val dj_group_norm(dj_graph *g, dj_val x, dj_val scale, dj_val shift, int groups, float eps);
dj_val dj_softmax(dj_graph *g, dj_val x);     /* last axis */
dj_val dj_log_softmax(dj_graph *g, dj_val x); /* last axis */

/* ---- shape and indices ---- */
dj_val dj_reshape(dj_graph *g, dj_val x, dj_shape s);        /* one dimension may be -1 */
dj_val dj_transpose(dj_graph *g, dj_val x, const int *perm); /* perm has rank entries */
dj_val dj_slice(dj_graph *g, dj_val x, int axis, int64_t start, int64_t length);
dj_val dj_concat(dj_graph *g, const dj_val *x, int n, int axis);
dj_val dj_pad(dj_graph *g, dj_val x, int axis, int64_t before, int64_t after, float value);
dj_val dj_broadcast(dj_graph *g, dj_val x, dj_shape s);
/* (N, H, W, C) -> (N, H/b, W/b, b*b*C), channel order (row in block, column in block, channel). */
dj_val dj_space_to_depth(dj_graph *g, dj_val x, int block);
/* table (V, D), index i32 (...) in 0..V-1 -> (..., D). Out of range is an error at run time. */
dj_val dj_gather(dj_graph *g, dj_val table, dj_val index);
/* Rows of x (..., D) added at index (...) to the table (V, D), or to zeros (table DJ_NONE). */
dj_val dj_scatter_add(dj_graph *g, dj_val table, dj_val x, dj_val index, int64_t v);

/* ---- blocks ---- */
/* q (B, H, T, D), k and v (B, HK, S, D), H a multiple of HK. scale 0: 1/sqrt(D). Causal: query t
 * sees keys s <= t + S - T. Returns (B, H, T, D). */
dj_val dj_attention(dj_graph *g, dj_val q, dj_val k, dj_val v, bool causal, float scale);
/* The same of heads as a projection leaves them: qkv (B, T, H + 2 HK, D) holds those of queries,
 * keys and values. Returns (B, T, H, D). Nothing is moved on the way. */
dj_val dj_self_attention(dj_graph *g, dj_val qkv, int kv_heads, bool causal, float scale);
/* Rotary positions (Su et al. 2021; the halves form): x (B, T, N, D), position (T) i32. Turns the
 * first `heads` of the N heads, leaves the others. theta: 10000 if in doubt. */
dj_val dj_rotary(dj_graph *g, dj_val x, dj_val position, int heads, float theta);
/* For writing text token by token: qkv (B, T, H + 2 HK, D) holds heads of queries, keys and values;
 * keys and values (B, HK, S, D) are states. Rows `position` (T) i32 in 0..S-1 of the states are
 * written, then query t attends to rows 0 .. position[t]. Returns (B, T, H, D). f32; no gradient.
 * scale 0: 1/sqrt(D). */
dj_val dj_attention_cached(dj_graph *g, dj_val qkv, dj_val keys, dj_val values, dj_val position,
                           float scale);
/* x (N, H, W, C), grid (N, HO, WO, 2) of (x, y) in -1..1 (align_corners = false); outside samples
 * take the border's value, or zero. */
typedef enum dj_border { DJ_BORDER_ZERO, DJ_BORDER_CLAMP } dj_border;
dj_val dj_grid_sample(dj_graph *g, dj_val x, dj_val grid, dj_border border);
/* GRU (Cho et al. 2014, the form of cuDNN and PyTorch). gx = W x + b (B, 3H), gh = U h + c (B, 3H),
 * in the order reset, update, new; h (B, H) -> (B, H). */
dj_val dj_gru_cell(dj_graph *g, dj_val gx, dj_val gh, dj_val h);
/* Zeroes with probability p and scales the rest by 1/(1-p). Identity when p == 0. */
dj_val dj_dropout(dj_graph *g, dj_val x, float p);

/* ---- updates of variables: run after every reader of the old value ---- */
/* hyper f32 (8): lr, beta1, beta2, eps, 1-beta1^t, 1-beta2^t, max_norm (0: no clipping), ema decay
 * (0: none). guard f32 (2): loss and global gradient norm; nothing is written where one is not
 * finite. The gradient is scaled by min(1, max_norm / norm). Decoupled weight decay (Loshchilov &
 * Hutter 2019). At t = 1 AdamW takes m and v for zero. */
typedef struct dj_update {
  dj_val param, grad, m, v, ema; /* ema, v (SGD): DJ_NONE if unused */
  float weight_decay, lr_scale;
} dj_update;
void dj_adamw(dj_graph *g, dj_val hyper, dj_val guard, const dj_update *u, int n);
/* Momentum (beta1): m = beta1 m + grad; p -= lr m. weight decay is added to the gradient. */
void dj_sgd(dj_graph *g, dj_val hyper, dj_val guard, const dj_update *u, int n);
/* sqrt of the sum of squares of all elements of all x. f32 scalar, fixed order of summation. */
dj_val dj_global_norm(dj_graph *g, const dj_val *x, int n);
/* state += scale * x (gradient accumulation); state = x (assign). */
void dj_accumulate(dj_graph *g, dj_val state, dj_val x, float scale);
void dj_assign(dj_graph *g, dj_val state, dj_val x);

#endif
