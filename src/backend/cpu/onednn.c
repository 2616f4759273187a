/*
 * Every oneDNN call: matmul, conv2d, conv2d_data and conv2d_weight, for the C API of 2.x and 3.x.
 *
 * A kernel makes its primitives when the program is compiled and only executes them in run; scratch
 * comes from dj__call.workspace. Activations stay channels-last. Convolution weights, (O, KH, KW,
 * C/groups) in memory, may be wanted in a blocked layout: where the program keeps a copy of them
 * the kernel asks for that layout; elsewhere they are reordered into workspace in every run.
 *
 * oneDNN fixes the instruction set for the whole process, so dj__backend_options.isa does not reach
 * these kernels. What it has only a reference implementation for ("ref", "simple") on this CPU is
 * tried in f32 with conversion of bf16 tensors through workspace; if that is a reference too, we
 * say so by supports() and another kernel takes over.
 */
#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/cpu/cpu.h"

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t md_ref;
#else
typedef const dnnl_memory_desc_t *md_ref;
#endif

/* A memory description of ours. */
typedef struct md {
  dnnl_memory_desc_t d;
  bool made;
} md;

static md_ref ref(const md *m) {
#if DNNL_VERSION_MAJOR >= 3
  return m->made ? m->d : NULL;
#else
  return m->made ? &m->d : NULL;
#endif
}
static void md_free(md *m) {
#if DNNL_VERSION_MAJOR >= 3
  if (m->made) dnnl_memory_desc_destroy(m->d);
#endif
  m->made = false;
}

static dj_status nn_error(dnnl_status_t s, const char *what) {
  return dj_error(s == dnnl_out_of_memory ? DJ_E_NOMEM : DJ_E_UNSUPPORTED,
                  "oneDNN: %s failed with status %d", what, (int)s);
}
#define NN_TRY(expr)                                                                               \
  do {                                                                                             \
    dnnl_status_t nn_status_ = (expr);                                                             \
    if (nn_status_ != dnnl_success) return nn_error(nn_status_, #expr);                            \
  } while (0)

/* strides NULL: the library chooses the layout. */
static dj_status md_make(md *m, int rank, const dnnl_dims_t dims, dnnl_data_type_t t,
                         const dnnl_dims_t strides) {
#if DNNL_VERSION_MAJOR >= 3
  if (strides)
    NN_TRY(dnnl_memory_desc_create_with_strides(&m->d, rank, dims, t, strides));
  else
    NN_TRY(dnnl_memory_desc_create_with_tag(&m->d, rank, dims, t, dnnl_format_tag_any));
#else
  if (strides)
    NN_TRY(dnnl_memory_desc_init_by_strides(&m->d, rank, dims, t, strides));
  else
    NN_TRY(dnnl_memory_desc_init_by_tag(&m->d, rank, dims, t, dnnl_format_tag_any));
#endif
  m->made = true;
  return DJ_OK;
}

/* How a blocked layout is made: strides of the blocks, and the blocks from the outermost on. */
typedef struct blocking {
  int n;
  const int64_t *strides, *blocks, *axes;
} blocking;

#if DNNL_VERSION_MAJOR >= 3
static bool blocking_of(md_ref m, blocking *b) {
  dnnl_format_kind_t kind;
  const dnnl_dims_t *strides, *blocks, *axes;
  if (dnnl_memory_desc_query(m, dnnl_query_format_kind, &kind) != dnnl_success ||
      kind != dnnl_blocked ||
      dnnl_memory_desc_query(m, dnnl_query_inner_nblks_s32, &b->n) != dnnl_success ||
      dnnl_memory_desc_query(m, dnnl_query_strides, &strides) != dnnl_success ||
      dnnl_memory_desc_query(m, dnnl_query_inner_blks, &blocks) != dnnl_success ||
      dnnl_memory_desc_query(m, dnnl_query_inner_idxs, &axes) != dnnl_success)
    return false;
  b->strides = *strides, b->blocks = *blocks, b->axes = *axes;
  return true;
}
#else
static bool blocking_of(md_ref m, blocking *b) {
  const dnnl_blocking_desc_t *d = &m->format_desc.blocking;
  *b = (blocking){d->inner_nblks, d->strides, d->inner_blks, d->inner_idxs};
  return m->format_kind == dnnl_blocked && m->extra.flags == dnnl_memory_extra_flag_none &&
         m->offset0 == 0;
}
#endif

/* Elements from that with index 0 to that with index i along an axis. */
static int64_t place_along(const blocking *b, int axis, int64_t i) {
  int64_t place = 0, size = 1;
  for (int k = b->n - 1; k >= 0; size *= b->blocks[k], k--) {
    if (b->axes[k] != axis) continue;
    place += i % b->blocks[k] * size;
    i /= b->blocks[k];
  }
  return place + i * b->strides[axis];
}

/* The layout `wanted` of weights w (O, KH, KW, C/groups); NULL: not to be had. */
static dj__layout *layout_of(md_ref wanted, const dj_tensor *w, int64_t groups) {
  blocking b;
  const int64_t *d = w->shape.dim, each = d[0] / groups;
  const size_t bytes = dnnl_memory_desc_get_size(wanted);
  if (!blocking_of(wanted, &b) || bytes / dj_dtype_size(w->dtype) > INT32_MAX) return NULL;
  dj__layout *l = malloc(sizeof *l + (size_t)(d[0] + d[1] * d[2] + d[3]) * sizeof l->place[0]);
  if (!l) return NULL;
  *l = (dj__layout){.rows = d[0],
                    .taps = d[1] * d[2],
                    .cols = d[3],
                    .count = (int64_t)(bytes / dj_dtype_size(w->dtype)),
                    .dtype = w->dtype};
  const int out = groups > 1; /* axes: (group,) output, input, height, width */
  int32_t *place = l->place;
  for (int64_t o = 0; o < d[0]; o++)
    *place++ =
        (int32_t)(place_along(&b, out, o % each) + (groups > 1 ? place_along(&b, 0, o / each) : 0));
  for (int64_t h = 0; h < d[1]; h++)
    for (int64_t x = 0; x < d[2]; x++)
      *place++ = (int32_t)(place_along(&b, out + 2, h) + place_along(&b, out + 3, x));
  for (int64_t c = 0; c < d[3]; c++) *place++ = (int32_t)place_along(&b, out + 1, c);
  dj__layout_finish(l);
  return l;
}

static dnnl_engine_t engine(void) {
  static dnnl_engine_t e; /* lives as long as the process */
  static bool ok;
#pragma omp critical(dj__onednn_engine)
  if (!ok) ok = dnnl_engine_create(&e, dnnl_cpu, 0) == dnnl_success;
  return ok ? e : NULL;
}

/* ---- what a call means to oneDNN: descriptions of its tensors, in oneDNN's order of axes ---- */
enum { A, B, C, BIAS, N_TENSORS }; /* A, B: the inputs in order; C: the output */

typedef struct problem {
  dj__op op;
  md user[N_TENSORS]; /* as the caller lays them out, with the dtype of the primitive */
  md weights_any;     /* convolutions: weights in the layout the library likes */
  dnnl_dims_t strides, dilates, pad_l, pad_r;
  bool as_f32; /* bf16 tensors are converted */
  bool post;   /* bias and activation by our own kernel after the primitive */
} problem;

static void problem_free(problem *p) {
  for (int i = 0; i < N_TENSORS; i++) md_free(&p->user[i]);
  md_free(&p->weights_any);
}

static dnnl_data_type_t nn_type(dj_dtype t, bool as_f32) {
  return t == DJ_BF16 && !as_f32 ? dnnl_bf16 : dnnl_f32;
}

/* Inputs that are f32 and to be rounded to bf16: this file goes on with a call in which they are
 * bf16, whose data run() makes in workspace. */
typedef struct rounded_call {
  dj__call call;
  dj_tensor in[3];
  bool rounded[3];
} rounded_call;
static void round_inputs(const dj__call *c, rounded_call *r) {
  const unsigned rounds = c->op == DJ__OP_matmul ? ((const dj__matmul_attr *)c->attr)->rounds
                                                 : ((const dj__conv_attr *)c->attr)->rounds;
  *r = (rounded_call){.call = *c};
  for (int i = 0; i < c->n_in && i < 3; i++) {
    r->in[i] = c->in[i];
    r->rounded[i] = c->in[i].dtype == DJ_F32 && (rounds >> i & 1u);
    if (r->rounded[i]) r->in[i].dtype = DJ_BF16;
  }
  r->call.in = r->in;
}

static const dj__post *post_of(const dj__call *c) {
  if (c->op == DJ__OP_matmul) return &((const dj__matmul_attr *)c->attr)->post;
  return &((const dj__conv_attr *)c->attr)->post;
}

/* a (..., M, K) b (..., K, N) or (K, N): leading axes are joined into one batch axis, and into M
 * where b is one matrix. */
static dj_status describe_matmul(const dj__call *c, problem *p) {
  const dj__matmul_attr *at = c->attr;
  const dj_shape *a = &c->in[0].shape, *b = &c->in[1].shape;
  int64_t batch = 1, m = a->dim[a->rank - (at->ta ? 1 : 2)], k = a->dim[a->rank - (at->ta ? 2 : 1)];
  int64_t n = b->dim[b->rank - (at->tb ? 2 : 1)], lda = a->dim[a->rank - 1],
          ldb = b->dim[b->rank - 1], sa = m * k, sb = k * n;
  for (int i = 0; i < a->rank - 2; i++) batch *= a->dim[i];
  if (b->rank == 2) sb = 0;
  if (sb == 0 && !at->ta) m *= batch, batch = 1;
  bool one = batch == 1;
  dnnl_dims_t da = {batch, m, k}, db = {sb ? batch : 1, k, n}, dc = {batch, m, n},
              dbias = {1, 1, n};
  dnnl_dims_t ta = {sa, at->ta ? 1 : lda, at->ta ? lda : 1},
              tb = {k * n, at->tb ? 1 : ldb, at->tb ? ldb : 1}, tc = {m * n, n, 1},
              tbias = {n, n, 1};
  int skip = one ? 1 : 0, rank = 3 - skip; /* plain matrices have the best kernels */
  DJ_TRY(md_make(&p->user[A], rank, da + skip, nn_type(c->in[0].dtype, p->as_f32), ta + skip));
  DJ_TRY(md_make(&p->user[B], rank, db + skip, nn_type(c->in[1].dtype, p->as_f32), tb + skip));
  DJ_TRY(md_make(&p->user[C], rank, dc + skip, nn_type(c->out[0].dtype, p->as_f32), tc + skip));
  if (at->post.bias)
    DJ_TRY(md_make(&p->user[BIAS], rank, dbias + skip, nn_type(c->in[2].dtype, p->as_f32),
                   tbias + skip));
  return DJ_OK;
}

static dj_status describe_image(md *m, const dj_tensor *t, bool as_f32) {
  const int64_t *d = t->shape.dim; /* N, H, W, C */
  dnnl_dims_t dims = {d[0], d[3], d[1], d[2]};
  dnnl_dims_t strides = {d[1] * d[2] * d[3], 1, d[2] * d[3], d[3]};
  return md_make(m, 4, dims, nn_type(t->dtype, as_f32), strides);
}

static dj_status describe_weights(md *m, md *any, const dj_tensor *t, int64_t g, bool as_f32) {
  const int64_t *d = t->shape.dim; /* O, KH, KW, C/groups */
  int64_t o = d[0], kh = d[1], kw = d[2], cg = d[3];
  dnnl_data_type_t type = nn_type(t->dtype, as_f32);
  dnnl_dims_t dims = {g, o / g, cg, kh, kw};
  dnnl_dims_t strides = {o / g * kh * kw * cg, kh * kw * cg, 1, kw * cg, cg};
  int skip = g == 1 ? 1 : 0;
  DJ_TRY(md_make(m, 5 - skip, dims + skip, type, strides + skip));
  return md_make(any, 5 - skip, dims + skip, type, NULL);
}

static dj_status describe_conv(const dj__call *c, problem *p) {
  const dj__conv_attr *at = c->attr;
  const dj_tensor *x = c->op == DJ__OP_conv2d_data ? &c->out[0] : &c->in[0];
  const dj_tensor *y = c->op == DJ__OP_conv2d        ? &c->out[0]
                       : c->op == DJ__OP_conv2d_data ? &c->in[0]
                                                     : &c->in[1];
  const dj_tensor *w = c->op == DJ__OP_conv2d_weight ? &c->out[0] : &c->in[1];
  int ix = c->op == DJ__OP_conv2d_data ? C : A;
  int iy = c->op == DJ__OP_conv2d ? C : c->op == DJ__OP_conv2d_data ? A : B;
  int iw = c->op == DJ__OP_conv2d_weight ? C : B;
  DJ_TRY(describe_image(&p->user[ix], x, p->as_f32));
  DJ_TRY(describe_image(&p->user[iy], y, p->as_f32));
  DJ_TRY(describe_weights(&p->user[iw], &p->weights_any, w, at->groups > 0 ? at->groups : 1,
                          p->as_f32));
  if (at->post.bias) {
    dnnl_dims_t dims = {c->in[2].shape.dim[0]}, strides = {1};
    DJ_TRY(md_make(&p->user[BIAS], 1, dims, nn_type(c->in[2].dtype, p->as_f32), strides));
  }
  for (int i = 0; i < 2; i++) {
    int64_t in = x->shape.dim[1 + i], out = y->shape.dim[1 + i], k = w->shape.dim[1 + i];
    p->strides[i] = at->stride[i];
    p->dilates[i] = at->dilation[i] - 1;
    p->pad_l[i] = at->pad[i];
    /* Rows that no window reaches make the padding at the end smaller than asked for. */
    p->pad_r[i] = (out - 1) * at->stride[i] + (k - 1) * at->dilation[i] + 1 - in - at->pad[i];
  }
  return DJ_OK;
}

static dnnl_alg_kind_t nn_act(int act, float *alpha) {
  *alpha = act == DJ__OP_elu || act == DJ__OP_silu ? 1.0f : 0.0f;
  switch (act) {
  case DJ__OP_relu:
    return dnnl_eltwise_relu;
  case DJ__OP_sigmoid:
    return dnnl_eltwise_logistic;
  case DJ__OP_tanh:
    return dnnl_eltwise_tanh;
  case DJ__OP_elu:
    return dnnl_eltwise_elu;
  case DJ__OP_silu:
    return dnnl_eltwise_swish;
  case DJ__OP_gelu:
    return dnnl_eltwise_gelu_tanh;
  default:
    return dnnl_alg_kind_undef;
  }
}

static dnnl_primitive_attr_t make_attr(int act) {
  dnnl_primitive_attr_t attr = NULL;
  dnnl_post_ops_t ops = NULL;
  float alpha;
  dnnl_alg_kind_t alg = nn_act(act, &alpha);
  if (dnnl_primitive_attr_create(&attr) != dnnl_success) return NULL;
  if (dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) != dnnl_success)
    goto fail;
  if (act) {
    if (dnnl_post_ops_create(&ops) != dnnl_success) goto fail;
#if DNNL_VERSION_MAJOR >= 3
    dnnl_status_t s = dnnl_post_ops_append_eltwise(ops, alg, alpha, 0.0f);
#else
    dnnl_status_t s = dnnl_post_ops_append_eltwise(ops, 1.0f, alg, alpha, 0.0f);
#endif
    if (s == dnnl_success) s = dnnl_primitive_attr_set_post_ops(attr, ops);
    dnnl_post_ops_destroy(ops);
    if (s != dnnl_success) goto fail;
  }
  return attr;
fail:
  dnnl_primitive_attr_destroy(attr);
  return NULL;
}

/* ---- primitive descriptions ---- */
#if DNNL_VERSION_MAJOR >= 3
static dnnl_status_t pd_matmul(dnnl_primitive_desc_t *pd, const problem *p, md_ref bias,
                               dnnl_primitive_attr_t attr) {
  return dnnl_matmul_primitive_desc_create(pd, engine(), ref(&p->user[A]), ref(&p->user[B]), bias,
                                           ref(&p->user[C]), attr);
}
static dnnl_status_t pd_forward(dnnl_primitive_desc_t *pd, const problem *p, md_ref x, md_ref w,
                                md_ref bias, md_ref y, dnnl_prop_kind_t prop,
                                dnnl_primitive_attr_t attr) {
  return dnnl_convolution_forward_primitive_desc_create(pd, engine(), prop, dnnl_convolution_direct,
                                                        x, w, bias, y, p->strides, p->dilates,
                                                        p->pad_l, p->pad_r, attr);
}
static dnnl_status_t pd_data(dnnl_primitive_desc_t *pd, const problem *p, md_ref dx, md_ref w,
                             md_ref dy, dnnl_primitive_desc_t hint, dnnl_primitive_attr_t attr) {
  return dnnl_convolution_backward_data_primitive_desc_create(pd, engine(), dnnl_convolution_direct,
                                                              dx, w, dy, p->strides, p->dilates,
                                                              p->pad_l, p->pad_r, hint, attr);
}
static dnnl_status_t pd_weights(dnnl_primitive_desc_t *pd, const problem *p, md_ref x, md_ref dw,
                                md_ref dy, dnnl_primitive_desc_t hint, dnnl_primitive_attr_t attr) {
  return dnnl_convolution_backward_weights_primitive_desc_create(
      pd, engine(), dnnl_convolution_direct, x, dw, NULL, dy, p->strides, p->dilates, p->pad_l,
      p->pad_r, hint, attr);
}
#else
static dnnl_status_t pd_matmul(dnnl_primitive_desc_t *pd, const problem *p, md_ref bias,
                               dnnl_primitive_attr_t attr) {
  dnnl_matmul_desc_t d;
  dnnl_status_t s =
      dnnl_matmul_desc_init(&d, ref(&p->user[A]), ref(&p->user[B]), bias, ref(&p->user[C]));
  return s != dnnl_success ? s : dnnl_primitive_desc_create(pd, &d, attr, engine(), NULL);
}
static dnnl_status_t pd_forward(dnnl_primitive_desc_t *pd, const problem *p, md_ref x, md_ref w,
                                md_ref bias, md_ref y, dnnl_prop_kind_t prop,
                                dnnl_primitive_attr_t attr) {
  dnnl_convolution_desc_t d;
  dnnl_status_t s = dnnl_dilated_convolution_forward_desc_init(
      &d, prop, dnnl_convolution_direct, x, w, bias, y, p->strides, p->dilates, p->pad_l, p->pad_r);
  return s != dnnl_success ? s : dnnl_primitive_desc_create(pd, &d, attr, engine(), NULL);
}
static dnnl_status_t pd_data(dnnl_primitive_desc_t *pd, const problem *p, md_ref dx, md_ref w,
                             md_ref dy, dnnl_primitive_desc_t hint, dnnl_primitive_attr_t attr) {
  dnnl_convolution_desc_t d;
  dnnl_status_t s = dnnl_dilated_convolution_backward_data_desc_init(
      &d, dnnl_convolution_direct, dx, w, dy, p->strides, p->dilates, p->pad_l, p->pad_r);
  return s != dnnl_success ? s : dnnl_primitive_desc_create(pd, &d, attr, engine(), hint);
}
static dnnl_status_t pd_weights(dnnl_primitive_desc_t *pd, const problem *p, md_ref x, md_ref dw,
                                md_ref dy, dnnl_primitive_desc_t hint, dnnl_primitive_attr_t attr) {
  dnnl_convolution_desc_t d;
  dnnl_status_t s = dnnl_dilated_convolution_backward_weights_desc_init(
      &d, dnnl_convolution_direct, x, dw, NULL, dy, p->strides, p->dilates, p->pad_l, p->pad_r);
  return s != dnnl_success ? s : dnnl_primitive_desc_create(pd, &d, attr, engine(), hint);
}
#endif

static dnnl_status_t make_backward(dnnl_primitive_desc_t *pd, const problem *p, const dj__call *c,
                                   dnnl_primitive_attr_t attr) {
  bool data = c->op == DJ__OP_conv2d_data;
  md_ref x = ref(&p->user[data ? C : A]), y = ref(&p->user[data ? A : B]);
  md_ref w = ref(&p->weights_any), hint_w = w;
  md hw = {0}, hx = {0}, hy = {0};
  dnnl_primitive_desc_t hint = NULL;
  dnnl_status_t s = dnnl_out_of_memory;
  /* The hint is a forward convolution of one dtype; outputs of ours may be f32 beside bf16. */
  const dj_tensor *tw = data ? &c->in[1] : &c->out[0];
  dj_tensor ww = *tw, wx = data ? c->out[0] : c->in[0], wy = data ? c->in[0] : c->in[1];
  int64_t g = ((const dj__conv_attr *)c->attr)->groups;
  ww.dtype = wx.dtype = wy.dtype = c->in[0].dtype;
  md plain = {0};
  if (describe_weights(&plain, &hw, &ww, g > 0 ? g : 1, p->as_f32) ||
      describe_image(&hx, &wx, p->as_f32) || describe_image(&hy, &wy, p->as_f32))
    goto done;
  hint_w = ref(&hw);
  s = pd_forward(&hint, p, ref(&hx), hint_w, NULL, ref(&hy), dnnl_forward_training, NULL);
  if (s != dnnl_success) goto done;
  s = data ? pd_data(pd, p, x, w, y, hint, attr) : pd_weights(pd, p, x, w, y, hint, attr);
done:
  if (hint) dnnl_primitive_desc_destroy(hint);
  md_free(&hw), md_free(&hx), md_free(&hy), md_free(&plain);
  return s;
}

static const char *impl_name(dnnl_primitive_desc_t pd) {
  const char *name = "";
  dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
  return name;
}

static dnnl_status_t make_pd(dnnl_primitive_desc_t *pd, const problem *p, const dj__call *c) {
  const dj__post *post = post_of(c);
  dnnl_primitive_attr_t attr = make_attr(p->post ? 0 : post->act);
  if (!attr) return dnnl_out_of_memory;
  md_ref bias = p->post || !post->bias ? NULL : ref(&p->user[BIAS]);
  dnnl_status_t s;
  if (c->op == DJ__OP_matmul)
    s = pd_matmul(pd, p, bias, attr);
  else if (c->op == DJ__OP_conv2d)
    s = pd_forward(pd, p, ref(&p->user[A]), ref(&p->weights_any), bias, ref(&p->user[C]),
                   dnnl_forward_inference, attr);
  else
    s = make_backward(pd, p, c, attr);
  dnnl_primitive_attr_destroy(attr);
  if (s != dnnl_success) return s;
  const char *name = impl_name(*pd);
  if (strncmp(name, "ref", 3) != 0 && strncmp(name, "simple", 6) != 0) return dnnl_success;
  dnnl_primitive_desc_destroy(*pd);
  *pd = NULL;
  return dnnl_unimplemented;
}

static dj_status describe(const dj__call *c, problem *p) {
  memset(p->user, 0, sizeof p->user);
  memset(&p->weights_any, 0, sizeof p->weights_any);
  dj_status s = c->op == DJ__OP_matmul ? describe_matmul(c, p) : describe_conv(c, p);
  if (s) problem_free(p);
  return s;
}

/* Threads worth waking for the call: one where it takes some 25 microseconds anyway. */
static int worth_threads(const dj__call *c, int threads) {
  dj__cost cost = {0};
  dj__op_get(c->op)->cost(c, &cost);
  double rate = c->in[0].dtype == DJ_BF16 ? 200e9 : 100e9; /* of one core, about */
  double seconds = cost.flops / rate + (cost.bytes_read + cost.bytes_written) / 20e9;
  return seconds < 0.2e-9 * (double)dj__worth_threads ? 1 : threads;
}

/* Runs oneDNN with our number of threads: it takes OpenMP's setting of the calling thread. */
static int set_threads(int threads) {
  int before = omp_get_max_threads();
  if (threads > 0 && threads != before) omp_set_num_threads(threads);
  return before;
}

/* Tries, in order: as asked, bias and activation by ourselves, all in f32. On success *pd and *p
 * are the caller's. */
static dj_status choose(const dj__call *c, int threads, problem *p, dnnl_primitive_desc_t *pd) {
  bool any_bf16 = false;
  for (int i = 0; i < c->n_in; i++) any_bf16 |= c->in[i].dtype == DJ_BF16;
  const dj__post *post = post_of(c);
  bool has_post = post->bias || post->act, own_post = c->op == DJ__OP_conv2d_data && has_post;
  int before = set_threads(threads);
  dj_status result = DJ_E_UNSUPPORTED;
  for (int way = 0; way < 4 && result; way++) {
    *p = (problem){.op = c->op, .as_f32 = way >= 2, .post = own_post || (way & 1)};
    if ((p->as_f32 && !any_bf16) || ((way & 1) && (own_post || !has_post))) continue;
    if (describe(c, p)) continue;
    if (make_pd(pd, p, c) == dnnl_success)
      result = DJ_OK;
    else
      problem_free(p);
  }
  set_threads(before);
  return result ? dj_error(DJ_E_UNSUPPORTED, "oneDNN has no fast kernel for this call") : DJ_OK;
}

static bool eligible(const dj__call *c) {
  if (c->op != DJ__OP_matmul && c->op != DJ__OP_conv2d && c->op != DJ__OP_conv2d_data &&
      c->op != DJ__OP_conv2d_weight)
    return false;
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i].shape.rank < 0 || (c->in[i].dtype != DJ_F32 && c->in[i].dtype != DJ_BF16) ||
        dj_shape_count(&c->in[i].shape) == 0)
      return false;
  return dj_shape_count(&c->out[0].shape) > 0 && engine() != NULL;
}

bool dj__onednn_supports(const dj__call *call, int threads) {
  problem p;
  dnnl_primitive_desc_t pd;
  if (!eligible(call)) return false;
  rounded_call r;
  round_inputs(call, &r);
  const dj__call *c = &r.call;
  if (choose(c, worth_threads(c, threads), &p, &pd)) return false;
  dnnl_primitive_desc_destroy(pd);
  problem_free(&p);
  return true;
}

/* ---- kernels ---- */
typedef struct kernel {
  const dj__kernels *own;
  int threads;
  dnnl_stream_t stream;
  dnnl_primitive_t prim, reorder; /* reorder: of weights, before or after; NULL if not needed */
  bool reorder_after;             /* conv2d_weight: from the library's layout to ours */
  int reorder_threads;
  dnnl_memory_t mem[N_TENSORS], scratch, blocked;
  void *set[N_TENSORS], *scratch_set, *blocked_set; /* handles the memory objects hold now */
  dnnl_exec_arg_t arg[N_TENSORS + 1], reorder_arg[2];
  int n_arg;
  size_t scratch_at, blocked_at, f32_at[N_TENSORS]; /* offsets in workspace */
  bool convert[N_TENSORS];                          /* this tensor goes through f32 in workspace */
  bool rounded[3];                                  /* this input is made bf16 in workspace first */
  size_t rounded_at[3];
  dj__layout *layout; /* of weights that are kept packed; NULL: they are not */
  bool own_post;
  char name[96];
} kernel;

static void kernel_destroy(void *self) {
  kernel *k = self;
  if (k->prim) dnnl_primitive_destroy(k->prim);
  if (k->reorder) dnnl_primitive_destroy(k->reorder);
  for (int i = 0; i < N_TENSORS; i++)
    if (k->mem[i]) dnnl_memory_destroy(k->mem[i]);
  if (k->scratch) dnnl_memory_destroy(k->scratch);
  if (k->blocked) dnnl_memory_destroy(k->blocked);
  if (k->stream) dnnl_stream_destroy(k->stream);
  free(k->layout);
  free(k);
}

/* Setting a handle may write the padding of blocked layouts: only do it when it changes. */
static dj_status set_handle(dnnl_memory_t m, void **present, void *data) {
  if (!m || *present == data) return DJ_OK;
  NN_TRY(dnnl_memory_set_data_handle(m, data));
  *present = data;
  return DJ_OK;
}

/* The tensor's memory for this call: the caller's, or its f32 copy in workspace. */
static void *data_of(const kernel *k, const dj__call *c, int i) {
  if (k->convert[i]) return (char *)c->workspace + k->f32_at[i];
  if (k->layout && i == B) return (void *)c->packed; /* never written through */
  return i == C ? c->out[0].data : c->in[i == BIAS ? 2 : i].data;
}

static dj_status reorder(const kernel *k) {
  int before = set_threads(k->reorder_threads);
  dnnl_status_t s = dnnl_primitive_execute(k->reorder, k->stream, 2, k->reorder_arg);
  set_threads(before);
  NN_TRY(s);
  return DJ_OK;
}

static dj_status execute(kernel *k, const dj__call *c) {
  char *ws = c->workspace;
  for (int i = 0; i < N_TENSORS; i++)
    if (k->mem[i]) DJ_TRY(set_handle(k->mem[i], &k->set[i], data_of(k, c, i)));
  if (k->scratch) DJ_TRY(set_handle(k->scratch, &k->scratch_set, ws + k->scratch_at));
  if (k->blocked) DJ_TRY(set_handle(k->blocked, &k->blocked_set, ws + k->blocked_at));
  if (k->reorder && !k->reorder_after) DJ_TRY(reorder(k));
  NN_TRY(dnnl_primitive_execute(k->prim, k->stream, k->n_arg, k->arg));
  if (k->reorder && k->reorder_after) DJ_TRY(reorder(k));
  NN_TRY(dnnl_stream_wait(k->stream));
  return DJ_OK;
}

static dj_status kernel_run(const dj__call *call, void *self) {
  kernel *k = self;
  rounded_call r = {.call = *call};
  for (int i = 0; i < call->n_in && i < 3; i++) {
    r.in[i] = call->in[i];
    if (!k->rounded[i]) continue;
    r.in[i] = (dj_tensor){(char *)call->workspace + k->rounded_at[i], DJ_BF16, call->in[i].shape};
    k->own->convert(r.in[i].data, DJ_BF16, call->in[i].data, DJ_F32, dj_shape_count(&r.in[i].shape),
                    k->threads);
  }
  r.call.in = r.in;
  const dj__call *c = &r.call;
  const dj_tensor *y = &c->out[0];
  int64_t count = dj_shape_count(&y->shape);
  for (int i = 0; i < c->n_in; i++) {
    int at = i == 2 ? BIAS : i;
    if (k->convert[at])
      k->own->convert(data_of(k, c, at), DJ_F32, c->in[i].data, c->in[i].dtype,
                      dj_shape_count(&c->in[i].shape), k->threads);
  }
  int before = set_threads(k->threads);
  dj_status s = execute(k, c);
  set_threads(before);
  if (s) return s;
  if (k->own_post) {
    const dj__post *post = post_of(c);
    int64_t n = y->shape.dim[y->shape.rank - 1];
    k->own->post(data_of(k, c, C), k->convert[C] ? DJ_F32 : y->dtype, count / n, n,
                 post->bias ? c->in[2].data : NULL, post->bias ? c->in[2].dtype : DJ_F32, post->act,
                 k->threads);
  }
  if (k->convert[C])
    k->own->convert(y->data, y->dtype, data_of(k, c, C), DJ_F32, count, k->threads);
  return DJ_OK;
}

static size_t take(size_t *total, size_t bytes) {
  size_t at = *total;
  *total += (bytes + 63) / 64 * 64;
  return at;
}

static void add_arg(kernel *k, int arg, dnnl_memory_t m) {
  k->arg[k->n_arg].arg = arg;
  k->arg[k->n_arg++].memory = m;
}

static dj_status make_reorder(kernel *k, const problem *p, int weights, md_ref wanted) {
  dnnl_primitive_desc_t pd;
  md_ref ours = ref(&p->user[weights]);
  bool after = p->op == DJ__OP_conv2d_weight;
  NN_TRY(dnnl_memory_create(&k->blocked, wanted, engine(), DNNL_MEMORY_NONE));
  NN_TRY(dnnl_reorder_primitive_desc_create(&pd, after ? wanted : ours, engine(),
                                            after ? ours : wanted, engine(), NULL));
  dnnl_status_t s = dnnl_primitive_create(&k->reorder, pd);
  dnnl_primitive_desc_destroy(pd);
  NN_TRY(s);
  k->reorder_after = after;
  k->reorder_arg[0] = (dnnl_exec_arg_t){DNNL_ARG_FROM, after ? k->blocked : k->mem[weights]};
  k->reorder_arg[1] = (dnnl_exec_arg_t){DNNL_ARG_TO, after ? k->mem[weights] : k->blocked};
  return DJ_OK;
}

/* Layout of weights of which a copy is kept, if it differs from them. */
static dj__layout *kept_layout(const dj__call *c, const problem *p, md_ref wanted, bool rounded) {
  if (!c->keeps || p->op == DJ__OP_conv2d_weight || (p->as_f32 && c->in[B].dtype == DJ_BF16))
    return NULL;
  if (!rounded && dnnl_memory_desc_equal(wanted, ref(&p->user[B]))) return NULL;
  if (p->op == DJ__OP_matmul) return dj__layout_of_rows(&c->in[B].shape);
  const int64_t groups = ((const dj__conv_attr *)c->attr)->groups;
  return layout_of(wanted, &c->in[B], groups > 1 ? groups : 1);
}

static dj_status fill_kernel(kernel *k, const dj__call *c, const problem *p,
                             dnnl_primitive_desc_t pd, bool rounded_weights, size_t *total) {
  static const int ARGS[3][3] = {
      {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
      {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC},
      {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS},
  };
  int kind = p->op == DJ__OP_conv2d_data ? 1 : p->op == DJ__OP_conv2d_weight ? 2 : 0;
  int weights = kind == 2 ? C : B;
  md_ref wanted = dnnl_primitive_desc_query_md(
      pd, kind == 2 ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
  md_ref scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
  NN_TRY(dnnl_stream_create(&k->stream, engine(), dnnl_stream_default_flags));
  NN_TRY(dnnl_primitive_create(&k->prim, pd));
  k->layout = kept_layout(c, p, wanted, rounded_weights);
  for (int i = 0; i < N_TENSORS; i++) {
    if (!p->user[i].made || (i == BIAS && p->post)) continue;
    md_ref lies = k->layout && i == B ? wanted : ref(&p->user[i]);
    NN_TRY(dnnl_memory_create(&k->mem[i], lies, engine(), DNNL_MEMORY_NONE));
    const dj_tensor *t = i == C ? &c->out[0] : &c->in[i == BIAS ? 2 : i];
    k->convert[i] = p->as_f32 && t->dtype == DJ_BF16;
    if (k->convert[i]) k->f32_at[i] = take(total, (size_t)dj_shape_count(&t->shape) * 4);
  }
  if (p->op != DJ__OP_matmul && !k->layout &&
      !dnnl_memory_desc_equal(wanted, ref(&p->user[weights]))) {
    const dj_tensor *w = weights == C ? &c->out[0] : &c->in[weights];
    k->reorder_threads = dj_shape_count(&w->shape) < dj__worth_threads ? 1 : k->threads;
    int before = set_threads(k->reorder_threads);
    dj_status s = make_reorder(k, p, weights, wanted);
    set_threads(before);
    DJ_TRY(s);
    k->blocked_at = take(total, dnnl_memory_desc_get_size(wanted));
  }
  for (int i = 0; i < 3; i++)
    add_arg(k, ARGS[kind][i], i == weights && k->blocked ? k->blocked : k->mem[i]);
  if (k->mem[BIAS]) add_arg(k, DNNL_ARG_BIAS, k->mem[BIAS]);
  size_t scratch_bytes = scratch ? dnnl_memory_desc_get_size(scratch) : 0;
  if (scratch_bytes) {
    NN_TRY(dnnl_memory_create(&k->scratch, scratch, engine(), DNNL_MEMORY_NONE));
    k->scratch_at = take(total, scratch_bytes);
    add_arg(k, DNNL_ARG_SCRATCHPAD, k->scratch);
  }
  k->own_post = p->post;
  snprintf(k->name, sizeof k->name, "onednn %s%s%s%s", impl_name(pd), k->reorder ? " +reorder" : "",
           p->post ? " +post" : "", p->as_f32 ? " through f32" : "");
  return DJ_OK;
}

dj_status dj__onednn_create(const dj__call *call, int threads, const dj__kernels *own,
                            dj__kernel *out) {
  problem p;
  dnnl_primitive_desc_t pd;
  if (!eligible(call)) return dj_error(DJ_E_UNSUPPORTED, "not an op for oneDNN");
  rounded_call r;
  round_inputs(call, &r);
  const dj__call *c = &r.call;
  threads = worth_threads(c, threads);
  DJ_TRY(choose(c, threads, &p, &pd));
  size_t total = 0;
  kernel *k = calloc(1, sizeof *k);
  dj_status s = k ? DJ_OK : dj_error(DJ_E_NOMEM, "out of memory for a oneDNN kernel");
  if (k) {
    k->own = own;
    k->threads = threads;
    int before = set_threads(threads);
    s = fill_kernel(k, c, &p, pd, r.rounded[B], &total);
    for (int i = 0; i < 3; i++) {
      k->rounded[i] = r.rounded[i] && !(i == B && k->layout);
      if (k->rounded[i])
        k->rounded_at[i] = take(&total, (size_t)dj_shape_count(&r.in[i].shape) * 2);
    }
    set_threads(before);
  }
  dnnl_primitive_desc_destroy(pd);
  problem_free(&p);
  if (s) {
    if (k) kernel_destroy(k);
    return s;
  }
  *out = (dj__kernel){.run = kernel_run,
                      .destroy = kernel_destroy,
                      .self = k,
                      .workspace = total,
                      .name = k->name,
                      .layout = k->layout};
  return DJ_OK;
}
