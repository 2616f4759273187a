/*
 * The op table: what an operation is. One entry an op, in its family's file under ops/; from the
 * table come shape inference, differentiation, the reference kernel, gradient checks, parity tests,
 * `dojo ops` and the roofline report.
 */
#ifndef DOJO_ENGINE_OP_H
#define DOJO_ENGINE_OP_H

#include "dojo/graph.h"
#include "engine/oplist.h"

enum { DJ__MAX_OUT = 4 };

/* A node of the graph. Lives in the graph's arena: pointers stay valid while the graph grows. */
typedef struct dj__node {
  dj__op op;
  int n_in, n_out;
  dj_val *in; /* DJ_NONE is allowed where the op says an input is optional */
  dj_val out[DJ__MAX_OUT];
  void *attr; /* the op's attribute struct, or NULL */
  size_t attr_size;
  const char *label; /* caller's label path */
  bool backward;     /* made by dj_graph_backward */
  int segment;       /* whose values the backward pass computes again; 0: none */
} dj__node;

/* What shape inference sees and fills. */
typedef struct dj__infer {
  const char *op_name;
  int n_in;
  const dj_tensor *in; /* shapes and dtypes, no data; rank -1 for an absent optional input */
  const void *attr;
  int n_out;                  /* preset to the table's; may be lowered */
  dj_tensor out[DJ__MAX_OUT]; /* dtype preset to that of input 0 */
} dj__infer;

/* How a kernel likes a weight to lie: a copy beside the f32 tensor, which is seen as (rows, taps,
 * cols), rows being axis 0. Element (r, t, c) lies at place[r] + place[rows + t] + place[rows +
 * taps
 * + c]; elements of the copy that no other is at are 0, or do not matter. Lives as long as the
 * kernel. */
typedef struct dj__layout {
  int64_t rows, taps, cols;
  int64_t count; /* elements of the copy */
  int64_t unit;  /* rows that are packed at once */
  int form;      /* the backend's own */
  int gaps;      /* lines of 64 bytes with no element, at place[rows + taps + cols] and on */
  bool whole;    /* packing writes all that is read: elements, and gaps with the last rows */
  dj_dtype dtype;
  int32_t place[];
} dj__layout;
/* Of a copy, whole lines of cache. */
static inline size_t dj__layout_bytes(const dj__layout *l) {
  return ((size_t)l->count * dj_dtype_size(l->dtype) + 63) & ~(size_t)63;
}

/* A copy of a variable in such a layout; next: another of the same. */
typedef struct dj__copy {
  const dj__layout *layout;
  void *data;
  const struct dj__copy *next;
} dj__copy;

/* What a kernel is called with. At compile time the same struct, without data, asks for support. */
typedef struct dj__call {
  dj__op op;
  int n_in, n_out;
  const dj_tensor *in; /* absent optional input: data NULL, rank -1 */
  dj_tensor *out;
  const void *attr;
  uint64_t seed, step; /* random ops: Philox(seed, step, stream from attr and element index) */
  int threads;
  void *workspace; /* as asked for by the kernel, 64-byte aligned */
  bool keeps; /* a copy of input 1, a weight, would be kept in the layout that the kernel likes */
  const void *packed; /* that copy, if the kernel has a layout */
  const dj__copy *const
      *copies; /* optimisers: (n_in) copies to write as inputs are updated; or NULL */
} dj__call;

typedef struct dj__cost {
  double flops, bytes_read, bytes_written;
} dj__cost;

/* A case for tests and benchmarks: shapes, dtypes and value ranges of inputs, and the attribute. */
enum { DJ__SAMPLE_IN = 8 };
typedef struct dj__sample {
  const char *label;
  int n_in;
  dj_tensor in[DJ__SAMPLE_IN]; /* data unused; rank -1: absent */
  struct {
    float lo, hi; /* uniform values; 0,0 counts as -1,1. i32: integers in [lo, hi) */
    float away;   /* keep |value - kink| > away... of 0 (for kinks in gradient checks) */
  } range[DJ__SAMPLE_IN];
  const void *attr;
  size_t attr_size;
  float tolerance; /* parity f32, relative to the largest magnitude; 0: 1e-5 */
  bool bench;      /* for `dojo bench ops` only: too large for tests */
} dj__sample;

typedef enum dj__op_flags {
  DJ__EWISE = 1 << 0,   /* in ewise.h: fusable, may run in place */
  DJ__VIEW = 1 << 1,    /* output 0 is input 0's memory */
  DJ__EFFECT = 1 << 2,  /* updates variables among its inputs (writes mask); no outputs */
  DJ__COMPUTE = 1 << 3, /* precision: bf16 in and out, f32 accumulation; f32 out also possible */
  DJ__FOLLOW = 1 << 4, /* precision: takes bf16 as it comes on inputs in `follow`; output 0 alike */
  DJ__F32_ONLY = 1 << 5, /* precision: float inputs are cast to f32 */
  DJ__RANDOM = 1 << 6,   /* reads seed and step */
  DJ__SOURCE = 1 << 7,   /* no kernel */
  DJ__INPLACE = 1 << 8   /* output 0 may be input 0's memory (elementwise, fused: any input's) */
} dj__op_flags;

typedef dj_status dj__infer_fn(dj__infer *s);
/* Emits gradient nodes. dout[k] is DJ_NONE where output k has no gradient. Sets din[i] for inputs
 * that need one (dj__needs_grad); others may stay DJ_NONE. */
typedef void dj__grad_fn(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din);
typedef void dj__cost_fn(const dj__call *c, dj__cost *cost);
/* Plain C, f32 tensors only (i32 and u8 as given). Sums in double where it is cheap: it is the
 * truth. */
typedef dj_status dj__ref_fn(const dj__call *c);

typedef struct dj__op_def {
  const char *name;
  int min_in, max_in, n_out;
  uint32_t flags;
  uint32_t follow; /* inputs that follow the precision (DJ__FOLLOW, DJ__COMPUTE); others stay */
  uint32_t writes; /* DJ__EFFECT: inputs that are updated; bit 31: decided by effect_writes */
  dj__infer_fn *infer;
  dj__grad_fn *grad; /* or DJ__NO_GRAD */
  dj__cost_fn *cost;
  dj__ref_fn *ref;
  const dj__sample *samples;
  int n_samples;
} dj__op_def;

/* Explicit: this op passes no gradient on. */
void dj__no_grad(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din);
#define DJ__NO_GRAD dj__no_grad

/* Every entry is written with this macro: leaving out the gradient (or anything) does not compile.
 */
#define DJ__DEFINE_OP(id, min_in_, max_in_, n_out_, flags_, follow_, writes_, infer_, grad_,       \
                      cost_, ref_, samples_)                                                       \
  const dj__op_def dj__op_##id = {#id,                                                             \
                                  min_in_,                                                         \
                                  max_in_,                                                         \
                                  n_out_,                                                          \
                                  flags_,                                                          \
                                  follow_,                                                         \
                                  writes_,                                                         \
                                  infer_,                                                          \
                                  grad_,                                                           \
                                  cost_,                                                           \
                                  ref_,                                                            \
                                  samples_,                                                        \
                                  (int)(sizeof(samples_) / sizeof((samples_)[0]))}

#define DJ__X(name) extern const dj__op_def dj__op_##name;
DJ__OP_LIST(DJ__X)
#undef DJ__X

const dj__op_def *dj__op_get(dj__op op);

/* ---- for op files: emitting nodes ---- */
/* Makes a node; infers shapes; returns output 0 (DJ_NONE on error; sticky). attr is copied. */
dj_val dj__emit(dj_graph *g, dj__op op, const dj_val *in, int n_in, const void *attr,
                size_t attr_size);
/* Output k of the node that made v. */
dj_val dj__sibling(const dj_graph *g, dj_val v, int k);
bool dj__needs_grad(const dj_graph *g, dj_val v);
/* Sums v down to the shape of `like` (undoes a broadcast); v itself if shapes agree. */
dj_val dj__sum_to(dj_graph *g, dj_val v, dj_val like);
/* Shape error of the op in hand: dj__bad(s, "needs rank 4, got %s", text). Adds op name and shapes.
 */
dj_status dj__bad(const dj__infer *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A fresh stream number for a random op (in its attribute). */
uint64_t dj__graph_stream(dj_graph *g);

/* Bytes read and written if each tensor is touched once: a start for cost functions. */
void dj__cost_touch(const dj__call *c, dj__cost *cost);

/* Fused epilogue of matmul and conv2d (set by the fusion pass): act(x + bias), bias is the last
 * input. */
typedef struct dj__post {
  bool bias;
  unsigned char act; /* 0, or a dj__op of relu, sigmoid, tanh, elu, silu, gelu */
} dj__post;

typedef struct dj__matmul_attr {
  bool ta, tb;
  unsigned char rounds; /* bit i: f32 input i is rounded to bf16 as it is read (a cast taken in) */
  dj__post post;
} dj__matmul_attr;

/* conv2d (x, w [, bias]); conv2d_data (dy, w [, bias]) -> x of size in_h, in_w; conv2d_weight (x,
 * dy)
 * -> w of size (O, kh, kw, C/groups), O and C from dy and x. */
typedef struct dj__conv_attr {
  int stride[2], pad[4] /* top, left, bottom, right */, dilation[2], groups;
  unsigned char rounds; /* as of matmul */
  int64_t in_h, in_w;   /* conv2d_data */
  int kh, kw;           /* conv2d_weight */
  dj__post post;
} dj__conv_attr;

#endif
