/*
 * Shape: reshape (a view), transpose, slice, concat, pad, and space to depth made of them. They
 * move bytes and compute nothing; reshape, transpose, slice and concat take every dtype.
 */
#include "engine/ops/basic.h"

#include "dojo/ops.h"

/* ---- shapes ---- */

static dj_status check_axis(const dj__infer *s, int axis) {
  if (axis >= 0 && axis < s->in[0].shape.rank) return DJ_OK;
  return dj__bad(s, "axis %d of a tensor of rank %d", axis, s->in[0].shape.rank);
}

static dj_status infer_reshape(dj__infer *s) {
  const dj__shape_attr *attr = s->attr;
  char text[DJ_SHAPE_TEXT];
  if (dj_shape_count(&attr->shape) != dj_shape_count(&s->in[0].shape))
    return dj__bad(s, "%lld elements cannot take shape %s",
                   (long long)dj_shape_count(&s->in[0].shape),
                   dj_shape_text(&attr->shape, text, sizeof text));
  s->out[0].shape = attr->shape;
  return DJ_OK;
}

static dj_status infer_transpose(dj__infer *s) {
  const dj__transpose_attr *attr = s->attr;
  const dj_shape *x = &s->in[0].shape;
  uint32_t seen = 0;
  dj_shape y = {.rank = x->rank};
  for (int i = 0; i < x->rank; i++) {
    int p = attr->perm[i];
    if (p < 0 || p >= x->rank || seen >> p & 1u)
      return dj__bad(s, "entry %d of the permutation is %d; it must hold each of 0..%d once", i, p,
                     x->rank - 1);
    seen |= 1u << p;
    y.dim[i] = x->dim[p];
  }
  s->out[0].shape = y;
  return DJ_OK;
}

static dj_status infer_slice(dj__infer *s) {
  const dj__slice_attr *attr = s->attr;
  DJ_TRY(check_axis(s, attr->axis));
  dj_shape y = s->in[0].shape;
  int64_t size = y.dim[attr->axis];
  if (attr->start < 0 || attr->length < 1 || attr->start > size ||
      attr->length > size - attr->start)
    return dj__bad(s, "%lld elements from %lld on of axis %d, which has %lld",
                   (long long)attr->length, (long long)attr->start, attr->axis, (long long)size);
  y.dim[attr->axis] = attr->length;
  s->out[0].shape = y;
  return DJ_OK;
}

static dj_status infer_concat(dj__infer *s) {
  int axis = ((const dj__axis_attr *)s->attr)->axis;
  DJ_TRY(check_axis(s, axis));
  dj_shape y = s->in[0].shape;
  for (int i = 1; i < s->n_in; i++) {
    dj_shape x = s->in[i].shape;
    bool fits = x.rank == y.rank && s->in[i].dtype == s->in[0].dtype;
    for (int k = 0; fits && k < x.rank; k++) fits = k == axis || x.dim[k] == y.dim[k];
    if (!fits)
      return dj__bad(s, "input %d does not fit input 0: dtype and all axes but %d must agree", i,
                     axis);
    if (x.dim[axis] > INT64_MAX - y.dim[axis]) return dj__bad(s, "the result is too large");
    y.dim[axis] += x.dim[axis];
  }
  s->out[0].shape = y;
  return DJ_OK;
}

static dj_status infer_pad(dj__infer *s) {
  const dj__pad_attr *attr = s->attr;
  DJ_TRY(dj__want_float(s, 0, -1));
  DJ_TRY(check_axis(s, attr->axis));
  const int64_t most = (int64_t)1 << 40;
  if (attr->before < 0 || attr->after < 0 || attr->before > most || attr->after > most)
    return dj__bad(s, "padding of %lld before and %lld after; negative or absurd",
                   (long long)attr->before, (long long)attr->after);
  s->out[0].shape = s->in[0].shape;
  s->out[0].shape.dim[attr->axis] += attr->before + attr->after;
  return DJ_OK;
}

static void cost_move(const dj__call *c, dj__cost *cost) {
  dj__cost_touch(c, cost);
  cost->flops = 0;
  cost->bytes_read = cost->bytes_written; // a slice does not read all of its input
}

static void cost_view(const dj__call *c, dj__cost *cost) {
  (void)c;
  *cost = (dj__cost){0};
}

/* ---- references ---- */

static dj_status ref_reshape(const dj__call *c) {
  if (c->out[0].data != c->in[0].data) // a view has nothing to do
    memmove(c->out[0].data, c->in[0].data, dj_tensor_bytes(&c->in[0]));
  return DJ_OK;
}

static dj_status ref_transpose(const dj__call *c) {
  const dj__transpose_attr *attr = c->attr;
  const char *x = c->in[0].data;
  char *y = c->out[0].data;
  size_t size = dj_dtype_size(c->in[0].dtype);
  int64_t in_stride[DJ_MAX_RANK], stride[DJ_MAX_RANK];
  dj__broadcast_strides(&c->in[0].shape, &c->in[0].shape, in_stride);
  for (int i = 0; i < c->in[0].shape.rank; i++) stride[i] = in_stride[attr->perm[i]];
  dj__walk w = dj__walk_over(&c->out[0].shape);
  for (int64_t i = 0, n = dj_shape_count(&c->out[0].shape); i < n; i++, dj__walk_next(&w))
    memcpy(y + (size_t)i * size, x + (size_t)dj__walk_offset(&w, stride) * size, size);
  return DJ_OK;
}

/* A tensor around one axis: `outer` blocks of `run` bytes each. */
typedef struct dj__around {
  int64_t outer;
  size_t inner; /* bytes of one step along the axis */
} dj__around;

static dj__around around(const dj_tensor *x, int axis) {
  return (dj__around){dj__dims_product(&x->shape, 0, axis),
                      (size_t)dj__dims_product(&x->shape, axis + 1, x->shape.rank) *
                          dj_dtype_size(x->dtype)};
}

static dj_status ref_slice(const dj__call *c) {
  const dj__slice_attr *attr = c->attr;
  dj__around a = around(&c->in[0], attr->axis);
  const char *x = c->in[0].data; // (outer, size, inner)
  char *y = c->out[0].data;      // (outer, length, inner)
  size_t from = (size_t)c->in[0].shape.dim[attr->axis] * a.inner,
         to = (size_t)attr->length * a.inner;
  for (int64_t i = 0; i < a.outer; i++)
    memcpy(y + (size_t)i * to, x + (size_t)i * from + (size_t)attr->start * a.inner, to);
  return DJ_OK;
}

static dj_status ref_concat(const dj__call *c) {
  int axis = ((const dj__axis_attr *)c->attr)->axis;
  dj__around a = around(&c->out[0], axis);
  char *y = c->out[0].data; // (outer, total, inner)
  size_t to = (size_t)c->out[0].shape.dim[axis] * a.inner, at = 0;
  for (int k = 0; k < c->n_in; k++) {
    const char *x = c->in[k].data; // (outer, size, inner)
    size_t from = (size_t)c->in[k].shape.dim[axis] * a.inner;
    for (int64_t i = 0; i < a.outer; i++)
      memcpy(y + (size_t)i * to + at, x + (size_t)i * from, from);
    at += from;
  }
  return DJ_OK;
}

static dj_status ref_pad(const dj__call *c) {
  const dj__pad_attr *attr = c->attr;
  dj__around a = around(&c->in[0], attr->axis);
  const char *x = c->in[0].data; // (outer, size, inner) f32
  float *y = c->out[0].data;     // (outer, before + size + after, inner) f32
  size_t from = (size_t)c->in[0].shape.dim[attr->axis] * a.inner,
         to = (size_t)c->out[0].shape.dim[attr->axis] * a.inner;
  for (int64_t i = 0, n = dj_shape_count(&c->out[0].shape); i < n; i++) y[i] = attr->value;
  for (int64_t i = 0; i < a.outer; i++)
    memcpy((char *)y + (size_t)i * to + (size_t)attr->before * a.inner, x + (size_t)i * from, from);
  return DJ_OK;
}

/* ---- making nodes ---- */

dj_val dj_reshape(dj_graph *g, dj_val x, dj_shape s) {
  if (x == DJ_NONE) return DJ_NONE;
  dj_shape from = dj_val_shape(g, x);
  dj__shape_attr attr;
  memset(&attr, 0, sizeof attr);
  if (s.rank < 0 || s.rank > DJ_MAX_RANK)
    return dj__op_error(g, "reshape", "rank %d; 0..%d are possible", s.rank, DJ_MAX_RANK);
  attr.shape.rank = s.rank;
  int free_axis = -1;
  int64_t known = 1, count = dj_shape_count(&from);
  for (int i = 0; i < s.rank; i++) {
    attr.shape.dim[i] = s.dim[i];
    bool wild = s.dim[i] == -1 && free_axis < 0;
    if (wild) free_axis = i;
    if (!wild && (s.dim[i] < 1 || s.dim[i] > count || known > count / s.dim[i])) {
      char a[DJ_SHAPE_TEXT], b[DJ_SHAPE_TEXT];
      return dj__op_error(g, "reshape", "%s cannot take shape %s",
                          dj_shape_text(&from, a, sizeof a), dj_shape_text(&s, b, sizeof b));
    }
    if (!wild) known *= s.dim[i];
  }
  if (free_axis >= 0) attr.shape.dim[free_axis] = count / known;
  return dj__emit(g, DJ__OP_reshape, &x, 1, &attr, sizeof attr);
}

dj_val dj_transpose(dj_graph *g, dj_val x, const int *perm) {
  if (x == DJ_NONE) return DJ_NONE;
  dj__transpose_attr attr = {{0}};
  int rank = dj_val_shape(g, x).rank;
  for (int i = 0; i < rank; i++) attr.perm[i] = perm[i];
  return dj__emit(g, DJ__OP_transpose, &x, 1, &attr, sizeof attr);
}

dj_val dj_slice(dj_graph *g, dj_val x, int axis, int64_t start, int64_t length) {
  dj__slice_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.axis = axis;
  attr.start = start;
  attr.length = length;
  return dj__emit(g, DJ__OP_slice, &x, 1, &attr, sizeof attr);
}

enum { CONCAT_MOST = 32 }; // `follow` has a bit for each

dj_val dj_concat(dj_graph *g, const dj_val *x, int n, int axis) {
  if (n < 1 || n > CONCAT_MOST)
    return dj__op_error(g, "concat", "%d inputs; 1..%d are possible", n, CONCAT_MOST);
  dj__axis_attr attr = {axis};
  return dj__emit(g, DJ__OP_concat, x, n, &attr, sizeof attr);
}

dj_val dj_pad(dj_graph *g, dj_val x, int axis, int64_t before, int64_t after, float value) {
  dj__pad_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.axis = axis;
  attr.before = before;
  attr.after = after;
  attr.value = value;
  return dj__emit(g, DJ__OP_pad, &x, 1, &attr, sizeof attr);
}

dj_val dj_space_to_depth(dj_graph *g, dj_val x, int block) {
  if (x == DJ_NONE) return DJ_NONE;
  dj_shape s = dj_val_shape(g, x);
  char text[DJ_SHAPE_TEXT];
  if (s.rank != 4 || block < 1 || s.dim[1] % block || s.dim[2] % block)
    return dj__op_error(g, "space_to_depth",
                        "needs (N, H, W, C) with H and W multiples of the block %d, got %s", block,
                        dj_shape_text(&s, text, sizeof text));
  int64_t n = s.dim[0], h = s.dim[1] / block, w = s.dim[2] / block, c = s.dim[3];
  static const int perm[6] = {0, 1, 3, 2, 4, 5}; // (N, h, row, w, column, C): row before w
  dj_val split = dj_reshape(g, x, DJ_SHAPE(n, h, block, w, block, c));
  return dj_reshape(g, dj_transpose(g, split, perm), DJ_SHAPE(n, h, w, block * block * c));
}

/* ---- gradients: each moves the bytes back ---- */

static void grad_reshape(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (dj__needs_grad(g, n->in[0])) din[0] = dj_reshape(g, dout[0], dj_val_shape(g, n->in[0]));
}

static void grad_transpose(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (!dj__needs_grad(g, n->in[0])) return;
  const dj__transpose_attr *attr = n->attr;
  int inverse[DJ_MAX_RANK] = {0};
  for (int i = 0; i < dj_val_shape(g, n->in[0]).rank; i++) inverse[attr->perm[i]] = i;
  din[0] = dj_transpose(g, dout[0], inverse);
}

static void grad_slice(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (!dj__needs_grad(g, n->in[0])) return;
  const dj__slice_attr *attr = n->attr;
  int64_t size = dj_val_shape(g, n->in[0]).dim[attr->axis];
  din[0] = dj_pad(g, dout[0], attr->axis, attr->start, size - attr->start - attr->length, 0);
}

static void grad_concat(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  int axis = ((const dj__axis_attr *)n->attr)->axis;
  int64_t at = 0;
  for (int i = 0; i < n->n_in; i++) {
    int64_t size = dj_val_shape(g, n->in[i]).dim[axis];
    if (dj__needs_grad(g, n->in[i])) din[i] = dj_slice(g, dout[0], axis, at, size);
    at += size;
  }
}

static void grad_pad(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (!dj__needs_grad(g, n->in[0])) return;
  const dj__pad_attr *attr = n->attr;
  int64_t size = dj_val_shape(g, n->in[0]).dim[attr->axis];
  din[0] = dj_slice(g, dout[0], attr->axis, attr->before, size);
}

/* ---- samples and table ---- */

#define TO(...)                                                                                    \
  .attr = &(const dj__shape_attr){DJ__DIMS(__VA_ARGS__)}, .attr_size = sizeof(dj__shape_attr)
static const dj__sample samples_reshape[] = {
    {"scalar to vector", 1, {DJ__F32()}, TO(1)},
    {"flatten", 1, {DJ__F32(3, 5, 7)}, TO(105)},
    {"split", 1, {DJ__F32(6, 35)}, TO(2, 3, 1, 5, 7)},
};
#define PERM(...) DJ__ATTR_OF(dj__transpose_attr, {__VA_ARGS__})
static const dj__sample samples_transpose[] = {
    {"scalar", 1, {DJ__F32()}, PERM(0)},
    {"vector", 1, {DJ__F32(7)}, PERM(0)},
    {"matrix", 1, {DJ__F32(37, 19)}, PERM(1, 0)},
    {"identity", 1, {DJ__F32(3, 5, 2)}, PERM(0, 1, 2)},
    {"heads", 1, {DJ__F32(2, 7, 3, 5)}, PERM(0, 2, 1, 3)},
    {"channels first", 1, {DJ__F32(2, 5, 7, 3)}, PERM(0, 3, 1, 2)},
    {"reversed, rank 5", 1, {DJ__F32(2, 3, 1, 4, 5)}, PERM(4, 3, 2, 1, 0)},
    {"space to depth", 1, {DJ__F32(2, 3, 2, 5, 2, 3)}, PERM(0, 1, 3, 2, 4, 5)},
    {"threads, matrix", 1, {DJ__F32(131, 301)}, PERM(1, 0)},
    {"threads, heads", 1, {DJ__F32(2, 40, 8, 64)}, PERM(0, 2, 1, 3)},
    {"threads, channels first", 1, {DJ__F32(3, 67, 71, 5)}, PERM(0, 3, 1, 2)},
    {"threads, camera stem", 1, {DJ__F32(2, 20, 4, 24, 4, 3)}, PERM(0, 1, 3, 2, 4, 5)},
    {"threads, swapped ends", 1, {DJ__F32(35, 33, 34)}, PERM(2, 1, 0)},
    {"bytes", 1, {DJ__U8(2, 67, 35, 3)}, PERM(0, 3, 2, 1)},
    {"bytes, stem", 1, {DJ__U8(2, 3, 4, 5, 4, 3)}, PERM(0, 1, 3, 2, 4, 5)},
    {"integers", 1, {DJ__I32(33, 70)}, PERM(1, 0)},
    {"heads", 1, {DJ__F32(16, 256, 8, 64)}, PERM(0, 2, 1, 3), .bench = true},
    {"camera stem", 1, {DJ__F32(32, 30, 4, 40, 4, 3)}, PERM(0, 1, 3, 2, 4, 5), .bench = true},
};
#define SLICE(axis, start, length) DJ__ATTR_OF(dj__slice_attr, axis, start, length)
static const dj__sample samples_slice[] = {
    {"vector", 1, {DJ__F32(7)}, SLICE(0, 2, 3)},
    {"whole", 1, {DJ__F32(5)}, SLICE(0, 0, 5)},
    {"first row", 1, {DJ__F32(3, 17)}, SLICE(0, 0, 1)},
    {"last column", 1, {DJ__F32(3, 17)}, SLICE(1, 16, 1)},
    {"middle axis", 1, {DJ__F32(2, 11, 3)}, SLICE(1, 4, 5)},
    {"rank 5", 1, {DJ__F32(2, 3, 5, 1, 7)}, SLICE(2, 1, 3)},
    {"threads, channels", 1, {DJ__F32(9, 20, 21, 23)}, SLICE(3, 2, 19)},
    {"threads, one channel", 1, {DJ__F32(200, 211, 3)}, SLICE(2, 1, 1)},
    {"threads, long rows", 1, {DJ__F32(2, 30007)}, SLICE(1, 3, 30001)},
    {"bytes", 1, {DJ__U8(7, 11, 3)}, SLICE(2, 1, 2)},
    {"integers", 1, {DJ__I32(7, 11)}, SLICE(1, 1, 9)},
    {"channels", 1, {DJ__F32(32, 60, 80, 64)}, SLICE(3, 32, 32), .bench = true},
};
#define AXIS(a) DJ__ATTR_OF(dj__axis_attr, a)
static const dj__sample samples_concat[] = {
    {"one", 1, {DJ__F32(7)}, AXIS(0)},
    {"vectors", 3, {DJ__F32(7), DJ__F32(1), DJ__F32(4)}, AXIS(0)},
    {"columns", 2, {DJ__F32(5, 3), DJ__F32(5, 14)}, AXIS(1)},
    {"channels", 2, {DJ__F32(2, 3, 5, 7), DJ__F32(2, 3, 5, 2)}, AXIS(3)},
    {"rank 5, four",
     4,
     {DJ__F32(2, 1, 3, 2, 2), DJ__F32(2, 4, 3, 2, 2), DJ__F32(2, 1, 3, 2, 2),
      DJ__F32(2, 2, 3, 2, 2)},
     AXIS(1)},
    {"threads, channels", 2, {DJ__F32(30, 41, 33), DJ__F32(30, 41, 7)}, AXIS(2)},
    {"threads, images", 2, {DJ__F32(1, 40, 30, 40), DJ__F32(1, 1, 30, 40)}, AXIS(1)},
    {"bytes", 3, {DJ__U8(7, 11, 3), DJ__U8(7, 11, 1), DJ__U8(7, 11, 5)}, AXIS(2)},
    {"integers", 2, {DJ__I32(7, 11), DJ__I32(2, 11)}, AXIS(0)},
    {"skip connection",
     2,
     {DJ__F32(32, 30, 40, 64), DJ__F32(32, 30, 40, 64)},
     AXIS(3),
     .bench = true},
};
#define PAD(axis, before, after, value) DJ__ATTR_OF(dj__pad_attr, axis, before, after, value)
static const dj__sample samples_pad[] = {
    {"vector", 1, {DJ__F32(7)}, PAD(0, 2, 3, 0)},
    {"nothing", 1, {DJ__F32(7)}, PAD(0, 0, 0, 0)},
    {"rows before", 1, {DJ__F32(3, 5)}, PAD(0, 2, 0, -1.5f)},
    {"columns after", 1, {DJ__F32(3, 5)}, PAD(1, 0, 3, 2)},
    {"middle axis", 1, {DJ__F32(2, 1, 3)}, PAD(1, 4, 5, 0)},
    {"rank 5", 1, {DJ__F32(2, 3, 5, 1, 7)}, PAD(3, 1, 1, 0.25f)},
    {"threads, width", 1, {DJ__F32(2, 25, 31, 29)}, PAD(2, 1, 2, -0.5f)},
    {"threads, one row", 1, {DJ__F32(1, 41003)}, PAD(1, 3, 5, 2)},
    {"image width", 1, {DJ__F32(32, 60, 80, 32)}, PAD(2, 1, 1, 0), .bench = true},
};

DJ__DEFINE_OP(reshape, 1, 1, 1, DJ__FOLLOW | DJ__VIEW, 1, 0, infer_reshape, grad_reshape, cost_view,
              ref_reshape, samples_reshape);
DJ__DEFINE_OP(transpose, 1, 1, 1, DJ__FOLLOW, 1, 0, infer_transpose, grad_transpose, cost_move,
              ref_transpose, samples_transpose);
DJ__DEFINE_OP(slice, 1, 1, 1, DJ__FOLLOW, 1, 0, infer_slice, grad_slice, cost_move, ref_slice,
              samples_slice);
DJ__DEFINE_OP(concat, 1, CONCAT_MOST, 1, DJ__FOLLOW, 0xffffffffu, 0, infer_concat, grad_concat,
              cost_move, ref_concat, samples_concat);
DJ__DEFINE_OP(pad, 1, 1, 1, DJ__FOLLOW, 1, 0, infer_pad, grad_pad, cost_move, ref_pad, samples_pad);
