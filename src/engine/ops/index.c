/*
 * Rows by index: gather (embedding) and its adjoint scatter_add. Every index is checked when the
 * kernel runs: one out of range is an error that names the op, the index and its position, and
 * nothing beyond the table is touched. scatter_add adds rows in the order of the indices, so the
 * result does not depend on threads; it adds them to a table that may be given (in its place where
 * nobody else needs that), else to zeros.
 */
#include "engine/ops/basic.h"

#include "dojo/ops.h"

static dj_status want_index(const dj__infer *s, int i) {
  if (s->in[i].dtype != DJ_I32)
    return dj__bad(s, "indices must be i32, they are %s", dj_dtype_name(s->in[i].dtype));
  return DJ_OK;
}

static dj_status infer_gather(dj__infer *s) { // (table (V, D), index (...)) -> (..., D)
  DJ_TRY(dj__want_float(s, 0, 2));
  DJ_TRY(want_index(s, 1));
  dj_shape y = s->in[1].shape;
  if (y.rank == DJ_MAX_RANK) return dj__bad(s, "indices may have rank %d at most", DJ_MAX_RANK - 1);
  y.dim[y.rank++] = s->in[0].shape.dim[1];
  s->out[0].shape = y;
  return DJ_OK;
}

/* ([table (rows, D)], x (..., D), index (...)) -> (rows, D) */
static dj_status infer_scatter_add(dj__infer *s) {
  const dj__scatter_attr *attr = s->attr;
  DJ_TRY(dj__want_float(s, 1, -1));
  DJ_TRY(want_index(s, 2));
  dj_shape rows = s->in[1].shape;
  if (rows.rank < 1) return dj__bad(s, "x needs shape (..., D)");
  rows.rank--;
  if (!dj_shape_equal(&rows, &s->in[2].shape))
    return dj__bad(s, "indices must have the shape of x without its last axis");
  if (attr->rows < 1) return dj__bad(s, "needs at least one row, got %lld", (long long)attr->rows);
  dj_shape y = {.rank = 2, .dim = {attr->rows, s->in[1].shape.dim[rows.rank]}};
  if (s->in[0].shape.rank >= 0 && !dj_shape_equal(&s->in[0].shape, &y))
    return dj__bad(s, "the table must have %lld rows as wide as those of x", (long long)attr->rows);
  dj__set_out(s, 0, DJ_F32, y);
  return DJ_OK;
}

static void cost_gather(const dj__call *c, dj__cost *cost) {
  dj__cost_touch(c, cost);
  cost->bytes_read = (double)dj_tensor_bytes(&c->in[1]) + (double)dj_tensor_bytes(&c->out[0]);
  cost->flops = 0;
}

static void cost_scatter_add(const dj__call *c, dj__cost *cost) {
  dj__cost_touch(c, cost);
  cost->flops = (double)dj_shape_count(&c->in[1].shape);
  cost->bytes_read += (double)dj_tensor_bytes(&c->in[1]);
  cost->bytes_written += (double)dj_tensor_bytes(&c->in[1]);
}

static dj_status check_index(const dj__call *c, int64_t position, int32_t index, int64_t rows) {
  if (index >= 0 && index < rows) return DJ_OK;
  return dj_error(DJ_E_INVALID, "%s: index %d at position %lld is outside 0..%lld",
                  dj__op_get(c->op)->name, index, (long long)position, (long long)rows - 1);
}

static dj_status ref_gather(const dj__call *c) {
  int64_t v = c->in[0].shape.dim[0], d = c->in[0].shape.dim[1];
  const float *table = c->in[0].data;   // (V, D) f32
  const int32_t *index = c->in[1].data; // (...) i32
  float *y = c->out[0].data;            // (..., D) f32
  for (int64_t i = 0, n = dj_shape_count(&c->in[1].shape); i < n; i++) {
    DJ_TRY(check_index(c, i, index[i], v));
    memcpy(y + i * d, table + index[i] * d, (size_t)d * sizeof *y);
  }
  return DJ_OK;
}

static dj_status ref_scatter_add(const dj__call *c) {
  int64_t v = c->out[0].shape.dim[0], d = c->out[0].shape.dim[1];
  const float *table = c->in[0].data;   // (V, D) f32, or absent
  const float *x = c->in[1].data;       // (..., D) f32
  const int32_t *index = c->in[2].data; // (...) i32
  float *y = c->out[0].data;            // (V, D) f32, may be the table
  if (c->in[0].shape.rank < 0)
    memset(y, 0, dj_tensor_bytes(&c->out[0]));
  else
    memmove(y, table, dj_tensor_bytes(&c->out[0]));
  for (int64_t i = 0, n = dj_shape_count(&c->in[2].shape); i < n; i++) {
    DJ_TRY(check_index(c, i, index[i], v));
    for (int64_t k = 0; k < d; k++) y[index[i] * d + k] += x[i * d + k];
  }
  return DJ_OK;
}

dj_val dj_gather(dj_graph *g, dj_val table, dj_val index) {
  dj_val in[] = {table, index};
  return dj__emit(g, DJ__OP_gather, in, 2, NULL, 0);
}

dj_val dj_scatter_add(dj_graph *g, dj_val table, dj_val x, dj_val index, int64_t v) {
  dj_val in[] = {table, x, index};
  dj__scatter_attr attr = {v};
  return dj__emit(g, DJ__OP_scatter_add, in, 3, &attr, sizeof attr);
}

static void grad_gather(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (dj__needs_grad(g, n->in[0]))
    din[0] = dj_scatter_add(g, DJ_NONE, dout[0], n->in[1], dj_val_shape(g, n->in[0]).dim[0]);
}

static void grad_scatter_add(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (n->in[0] >= 0 && dj__needs_grad(g, n->in[0])) din[0] = dout[0];
  if (dj__needs_grad(g, n->in[1])) din[1] = dj_gather(g, dout[0], n->in[2]);
}

#define INDEX(v) .range = {{-1, 1, 0}, {0, v, 0}}
static const dj__sample samples_gather[] = {
    {"one row", 2, {DJ__F32(1, 5), DJ__I32(1)}, INDEX(1)},
    {"scalar index", 2, {DJ__F32(7, 5), DJ__I32()}, INDEX(7)},
    {"repeated", 2, {DJ__F32(3, 17), DJ__I32(11)}, INDEX(3)},
    {"width one", 2, {DJ__F32(13, 1), DJ__I32(5, 3)}, INDEX(13)},
    {"rank 4", 2, {DJ__F32(31, 6), DJ__I32(2, 1, 3, 5)}, INDEX(31)},
    {"threads", 2, {DJ__F32(31, 67), DJ__I32(7, 101)}, INDEX(31)},
    {"embedding", 2, {DJ__F32(32000, 512), DJ__I32(16, 512)}, INDEX(32000), .bench = true},
};
#define SCATTER(v) .range = {[2] = {0, v, 0}}, DJ__ATTR_OF(dj__scatter_attr, v)
static const dj__sample samples_scatter_add[] = {
    {"one row", 3, {DJ__ABSENT, DJ__F32(1, 5), DJ__I32(1)}, SCATTER(1)},
    {"scalar index", 3, {DJ__ABSENT, DJ__F32(5), DJ__I32()}, SCATTER(7)},
    {"repeated", 3, {DJ__ABSENT, DJ__F32(23, 17), DJ__I32(23)}, SCATTER(3)},
    {"width one", 3, {DJ__ABSENT, DJ__F32(5, 3, 1), DJ__I32(5, 3)}, SCATTER(13)},
    {"rank 5", 3, {DJ__ABSENT, DJ__F32(2, 1, 3, 5, 6), DJ__I32(2, 1, 3, 5)}, SCATTER(31)},
    {"threads, columns", 3, {DJ__ABSENT, DJ__F32(211, 163), DJ__I32(211)}, SCATTER(37)},
    {"threads, rows", 3, {DJ__ABSENT, DJ__F32(4001, 9), DJ__I32(4001)}, SCATTER(101)},
    {"table", 3, {DJ__F32(3, 17), DJ__F32(23, 17), DJ__I32(23)}, SCATTER(3)},
    {"table, threads", 3, {DJ__F32(37, 163), DJ__F32(211, 163), DJ__I32(211)}, SCATTER(37)},
    {"embedding",
     3,
     {DJ__ABSENT, DJ__F32(16, 512, 512), DJ__I32(16, 512)},
     SCATTER(32000),
     .bench = true},
    {"embedding, table",
     3,
     {DJ__F32(32000, 512), DJ__F32(16, 512, 512), DJ__I32(16, 512)},
     SCATTER(32000),
     .bench = true},
};
DJ__DEFINE_OP(gather, 2, 2, 1, DJ__FOLLOW, 1, 0, infer_gather, grad_gather, cost_gather, ref_gather,
              samples_gather);
DJ__DEFINE_OP(scatter_add, 3, 3, 1, DJ__FOLLOW | DJ__INPLACE, 3u, 0, infer_scatter_add,
              grad_scatter_add, cost_scatter_add, ref_scatter_add, samples_scatter_add);
