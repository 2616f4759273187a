/*
 * Attributes of the basic op families (cast, reductions, shape, index), and what their files share:
 * broadcasting, walking over broadcast operands, and evaluation of one elementwise op. Backends
 * read the attributes; everything else is for ops/.
 *
 * Attributes are compared and hashed as bytes by the simplify pass: fill them from a zeroed struct.
 */
#ifndef DOJO_ENGINE_OPS_BASIC_H
#define DOJO_ENGINE_OPS_BASIC_H

#include "engine/ewise.h"
#include "engine/op.h"
#include "engine/ops/common.h"

/* cast */
typedef struct dj__cast_attr {
  dj_dtype to;
} dj__cast_attr;

/* sum (x) -> scale * sum; reduce_max (x); reduce_max_grad (x, dy) -> dx. Bits of `axes` are below
 * x's rank; no bit set is allowed and reduces nothing. */
typedef struct dj__reduce_attr {
  uint32_t axes;
  bool keep;   /* reduced axes stay, with size 1 */
  float scale; /* sum only */
} dj__reduce_attr;

/* argmax (x) -> i32 without the axis */
typedef struct dj__axis_attr {
  int axis; /* argmax, concat */
} dj__axis_attr;

/* broadcast (x), reshape (x): the output's shape, all dimensions known */
typedef struct dj__shape_attr {
  dj_shape shape;
} dj__shape_attr;

/* transpose (x): output axis i is input axis perm[i] */
typedef struct dj__transpose_attr {
  int perm[DJ_MAX_RANK];
} dj__transpose_attr;

/* slice (x): elements start .. start + length - 1 of the axis */
typedef struct dj__slice_attr {
  int axis;
  int64_t start, length;
} dj__slice_attr;

/* pad (x) */
typedef struct dj__pad_attr {
  int axis;
  int64_t before, after;
  float value;
} dj__pad_attr;

/* scatter_add ([table], x (..., D), index (...)) -> (rows, D); gather has no attribute */
typedef struct dj__scatter_attr {
  int64_t rows;
} dj__scatter_attr;

/* ---- shared by the op files ---- */

/* NumPy's rule: shapes are aligned at the last axis, sizes agree or one of them is 1. */
bool dj__broadcast_shape(const dj_shape *a, const dj_shape *b, dj_shape *out);

/* Steps, in elements, through a tensor of shape `in` read as if it had shape `out`; 0 along the
 * axes in which it is repeated. */
void dj__broadcast_strides(const dj_shape *in, const dj_shape *out, int64_t stride[DJ_MAX_RANK]);

/* One element of an op of ewise.h, in double with libm. */
double dj__ewise_eval(dj__op op, double a, double b, double c, double p, double q);

/* Records "OP: <text>" as the error of the graph; returns DJ_NONE. For constructors. */
dj_val dj__op_error(dj_graph *g, const char *op, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Position of an index vector; dj__walk_next goes to the next in row-major order. */
typedef struct dj__walk {
  int rank;
  int64_t dim[DJ_MAX_RANK], at[DJ_MAX_RANK];
} dj__walk;

static inline dj__walk dj__walk_over(const dj_shape *s) {
  dj__walk w = {.rank = s->rank};
  for (int i = 0; i < s->rank; i++) w.dim[i] = s->dim[i];
  return w;
}
static inline int64_t dj__walk_offset(const dj__walk *w, const int64_t *stride) {
  int64_t o = 0;
  for (int i = 0; i < w->rank; i++) o += w->at[i] * stride[i];
  return o;
}
static inline void dj__walk_next(dj__walk *w) {
  for (int i = w->rank - 1; i >= 0; i--) {
    if (++w->at[i] < w->dim[i]) return;
    w->at[i] = 0;
  }
}

/* Product of dimensions first .. last - 1. */
static inline int64_t dj__dims_product(const dj_shape *s, int first, int last) {
  int64_t n = 1;
  for (int i = first; i < last; i++) n *= s->dim[i];
  return n;
}

/* Samples: an attribute written in place. (Shapes and named attributes: common.h.) */
#define DJ__ATTR_OF(type, ...) .attr = &(const type){__VA_ARGS__}, .attr_size = sizeof(type)

#endif
