/*
 * Matrix products. One op: a (..., M, K) x b (..., K, N), either operand optionally stored
 * transposed, b of rank 2 for any a or with equal leading axes, and an epilogue act(x + bias) that
 * the fusion pass sets. A product of a tall stack of rows with one matrix is made as a plain
 * matrix product of rank 2, the form that kernels do best.
 */
#include "engine/ops/basic.h"

#include "dojo/ops.h"

/* Sizes of a call or an inference: batch (leading axes of a), M, N, K. */
typedef struct dj__mm {
  int64_t batch, m, n, k;
  bool shared_b; /* b has rank 2 and serves the whole batch */
} dj__mm;

static dj__mm mm_of(const dj_shape *a, const dj_shape *b, const dj__matmul_attr *attr) {
  int ra = a->rank, rb = b->rank;
  return (dj__mm){.batch = dj__dims_product(a, 0, ra - 2),
                  .m = a->dim[attr->ta ? ra - 1 : ra - 2],
                  .k = a->dim[attr->ta ? ra - 2 : ra - 1],
                  .n = b->dim[attr->tb ? rb - 2 : rb - 1],
                  .shared_b = rb == 2};
}

static dj_status infer_matmul(dj__infer *s) { // (a, b [, bias])
  const dj__matmul_attr *attr = s->attr;
  DJ_TRY(dj__want_float(s, 0, -1));
  DJ_TRY(dj__want_float(s, 1, -1));
  const dj_shape *a = &s->in[0].shape, *b = &s->in[1].shape;
  if (a->rank < 2 || b->rank < 2) return dj__bad(s, "both operands need rank 2 or more");
  dj__mm d = mm_of(a, b, attr);
  int64_t kb = b->dim[attr->tb ? b->rank - 1 : b->rank - 2];
  if (d.k != kb)
    return dj__bad(s, "inner sizes differ: K is %lld in a%s and %lld in b%s", (long long)d.k,
                   attr->ta ? " (transposed)" : "", (long long)kb, attr->tb ? " (transposed)" : "");
  if (!d.shared_b) {
    bool same = a->rank == b->rank;
    for (int i = 0; same && i < a->rank - 2; i++) same = a->dim[i] == b->dim[i];
    if (!same) return dj__bad(s, "b must have rank 2 or the leading axes of a");
  }
  if (attr->post.bias != (s->n_in == 3))
    return dj__bad(s, "the epilogue's bias is the third input, %d are given", s->n_in);
  if (attr->post.bias) {
    dj_shape bias = {.rank = 1, .dim = {d.n}};
    DJ_TRY(dj__want_f32(s, 2, &bias));
  }
  dj_shape y = *a;
  y.dim[y.rank - 2] = d.m;
  y.dim[y.rank - 1] = d.n;
  s->out[0].shape = y;
  return DJ_OK;
}

static void cost_matmul(const dj__call *c, dj__cost *cost) {
  dj__cost_touch(c, cost);
  dj__mm d = mm_of(&c->in[0].shape, &c->in[1].shape, c->attr);
  cost->flops = 2.0 * (double)d.batch * (double)d.m * (double)d.n * (double)d.k;
}

static dj_status ref_matmul(const dj__call *c) {
  const dj__matmul_attr *attr = c->attr;
  dj__mm d = mm_of(&c->in[0].shape, &c->in[1].shape, attr);
  const float *bias = attr->post.bias ? c->in[2].data : NULL; // (N) f32
  int64_t am = attr->ta ? 1 : d.k, ak = attr->ta ? d.m : 1;   // strides in a along M and K
  int64_t bk = attr->tb ? 1 : d.n, bn = attr->tb ? d.k : 1;   // strides in b along K and N
  for (int64_t i = 0; i < d.batch; i++) {
    const float *a = (const float *)c->in[0].data + i * d.m * d.k;                    // (M, K)
    const float *b = (const float *)c->in[1].data + (d.shared_b ? 0 : i * d.k * d.n); // (K, N)
    float *y = (float *)c->out[0].data + i * d.m * d.n;                               // (M, N)
    for (int64_t m = 0; m < d.m; m++)
      for (int64_t n0 = 0; n0 < d.n; n0 += DJ__TILE) {
        double sum[DJ__TILE] = {0};
        int tile = dj__tile(d.n - n0);
        for (int64_t k = 0; k < d.k; k++) {
          double v = dj__as_read(a[m * am + k * ak], attr->rounds, 0);
          for (int t = 0; t < tile; t++)
            sum[t] += v * dj__as_read(b[k * bk + (n0 + t) * bn], attr->rounds, 1);
        }
        for (int t = 0; t < tile; t++)
          y[m * d.n + n0 + t] =
              (float)dj__post_act(attr->post.act, sum[t] + (bias ? bias[n0 + t] : 0));
      }
  }
  return DJ_OK;
}

/* ---- making nodes ---- */

static dj_val emit_matmul(dj_graph *g, dj_val a, dj_val b, bool ta, bool tb) {
  dj_val in[] = {a, b};
  dj__matmul_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.ta = ta;
  attr.tb = tb;
  return dj__emit(g, DJ__OP_matmul, in, 2, &attr, sizeof attr);
}

dj_val dj_matmul(dj_graph *g, dj_val a, dj_val b, bool transpose_a, bool transpose_b) {
  if (a == DJ_NONE || b == DJ_NONE) return DJ_NONE;
  dj_shape sa = dj_val_shape(g, a), sb = dj_val_shape(g, b);
  bool rows_agree = sb.rank == 2 && sa.rank > 2 && !transpose_a &&
                    sa.dim[sa.rank - 1] == sb.dim[transpose_b ? 1 : 0];
  if (!rows_agree) return emit_matmul(g, a, b, transpose_a, transpose_b);
  // all leading axes of a are rows of one product
  dj_shape flat = DJ_SHAPE(dj__dims_product(&sa, 0, sa.rank - 1), sa.dim[sa.rank - 1]);
  dj_val y = emit_matmul(g, dj_reshape(g, a, flat), b, false, transpose_b);
  sa.dim[sa.rank - 1] = sb.dim[transpose_b ? 0 : 1];
  return dj_reshape(g, y, sa);
}

dj_val dj_linear(dj_graph *g, dj_val x, dj_val w, dj_val bias) {
  if (x == DJ_NONE || w == DJ_NONE) return DJ_NONE;
  dj_shape s = dj_val_shape(g, x);
  if (s.rank == 0) return dj__op_error(g, "linear", "x is a scalar, it needs shape (..., I)");
  // a vector is a matrix of one row while it is multiplied; bias is added to the flat product, so
  // that the fusion pass finds it there
  dj_shape flat = DJ_SHAPE(dj__dims_product(&s, 0, s.rank - 1), s.dim[s.rank - 1]);
  dj_val y = emit_matmul(g, s.rank == 2 ? x : dj_reshape(g, x, flat), w, false, true);
  if (y == DJ_NONE) return DJ_NONE;
  int64_t outputs = dj_val_shape(g, y).dim[1];
  if (bias != DJ_NONE) {
    dj_shape want = DJ_SHAPE(outputs), have = dj_val_shape(g, bias);
    char text[DJ_SHAPE_TEXT];
    if (!dj_shape_equal(&want, &have))
      return dj__op_error(g, "linear", "bias must have shape (%lld), it has %s", (long long)outputs,
                          dj_shape_text(&have, text, sizeof text));
    y = dj_add(g, y, bias);
  }
  s.dim[s.rank - 1] = outputs;
  return s.rank == 2 ? y : dj_reshape(g, y, s);
}

/* ---- gradient ---- */

static dj_val swap_last(dj_graph *g, dj_val x) {
  int rank = dj_val_shape(g, x).rank, perm[DJ_MAX_RANK];
  for (int i = 0; i < rank; i++) perm[i] = i;
  perm[rank - 2] = rank - 1;
  perm[rank - 1] = rank - 2;
  return dj_transpose(g, x, perm);
}

/* With A = a or its transpose and B alike, Y = A B: dA = dY B^T and dB = A^T dY; each is emitted in
 * the form that yields the gradient as the operand is stored. */
static dj_val matmul_da(dj_graph *g, const dj__matmul_attr *t, dj_val a, dj_val b, dj_val dy) {
  if (!t->ta) return dj_matmul(g, dy, b, false, !t->tb);
  if (dj_val_shape(g, a).rank == dj_val_shape(g, b).rank) return dj_matmul(g, b, dy, t->tb, true);
  return swap_last(g, dj_matmul(g, dy, b, false, !t->tb));
}

static dj_val matmul_db(dj_graph *g, const dj__matmul_attr *t, dj_val a, dj_val b, dj_val dy) {
  dj_shape sa = dj_val_shape(g, a), sy = dj_val_shape(g, dy);
  if (sa.rank > dj_val_shape(g, b).rank && !t->ta) { // rows of the whole batch in one product
    a = dj_reshape(g, a, DJ_SHAPE(-1, sa.dim[sa.rank - 1]));
    dy = dj_reshape(g, dy, DJ_SHAPE(-1, sy.dim[sy.rank - 1]));
  }
  dj_val d = t->tb ? dj_matmul(g, dy, a, true, t->ta) : dj_matmul(g, a, dy, !t->ta, false);
  return dj__sum_to(g, d, b); // over the batch where b was shared
}

static void grad_matmul(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  if (dj__needs_grad(g, n->in[0])) din[0] = matmul_da(g, n->attr, n->in[0], n->in[1], dout[0]);
  if (dj__needs_grad(g, n->in[1])) din[1] = matmul_db(g, n->attr, n->in[0], n->in[1], dout[0]);
}

/* ---- samples and table ---- */

#define MM(ta, tb, ...) DJ__ATTR_OF(dj__matmul_attr, ta, tb, 0, {__VA_ARGS__})
static const dj__sample samples_matmul[] = {
    {"one by one", 2, {DJ__F32(1, 1), DJ__F32(1, 1)}, MM(0, 0, 0, 0)},
    {"plain", 2, {DJ__F32(5, 7), DJ__F32(7, 3)}, MM(0, 0, 0, 0)},
    {"a transposed", 2, {DJ__F32(7, 5), DJ__F32(7, 3)}, MM(1, 0, 0, 0)},
    {"b transposed", 2, {DJ__F32(5, 7), DJ__F32(3, 7)}, MM(0, 1, 0, 0)},
    {"both transposed", 2, {DJ__F32(7, 5), DJ__F32(3, 7)}, MM(1, 1, 0, 0)},
    {"row times matrix", 2, {DJ__F32(1, 37), DJ__F32(37, 19)}, MM(0, 0, 0, 0)},
    {"matrix times column", 2, {DJ__F32(19, 37), DJ__F32(37, 1)}, MM(0, 0, 0, 0)},
    {"outer product", 2, {DJ__F32(19, 1), DJ__F32(1, 23)}, MM(0, 0, 0, 0)},
    {"primes", 2, {DJ__F32(67, 41), DJ__F32(71, 41)}, MM(0, 1, 0, 0)},
    {"tiles", 2, {DJ__F32(83, 130), DJ__F32(130, 77)}, MM(0, 0, 0, 0)},
    {"tiles, a transposed", 2, {DJ__F32(130, 83), DJ__F32(130, 50)}, MM(1, 0, 0, 0)},
    {"tiles, b transposed", 2, {DJ__F32(70, 96), DJ__F32(45, 96)}, MM(0, 1, 0, 0)},
    {"tiles, both transposed", 2, {DJ__F32(160, 83), DJ__F32(77, 160)}, MM(1, 1, 0, 0)},
    {"tiles, deep", 2, {DJ__F32(40, 3300), DJ__F32(20, 3300)}, MM(0, 1, 0, 0), .tolerance = 6e-5f},
    {"tiles, batch", 2, {DJ__F32(3, 67, 64), DJ__F32(3, 37, 64)}, MM(0, 1, 0, 0)},
    {"tiles, bias, gelu",
     3,
     {DJ__F32(90, 64), DJ__F32(50, 64), DJ__F32(50)},
     MM(0, 1, true, DJ__OP_gelu)},
    {"rounded",
     2,
     {DJ__F32(70, 96), DJ__F32(45, 96)},
     DJ__ATTR_OF(dj__matmul_attr, 0, 1, 3, {0, 0})},
    {"long inner", 2, {DJ__F32(3, 997), DJ__F32(997, 5)}, MM(0, 0, 0, 0), .tolerance = 3e-5f},
    {"batch", 2, {DJ__F32(3, 5, 7), DJ__F32(3, 7, 4)}, MM(0, 0, 0, 0)},
    {"batch, both transposed", 2, {DJ__F32(3, 7, 5), DJ__F32(3, 4, 7)}, MM(1, 1, 0, 0)},
    {"batch, a transposed", 2, {DJ__F32(2, 7, 5), DJ__F32(2, 7, 4)}, MM(1, 0, 0, 0)},
    {"batch, b transposed", 2, {DJ__F32(2, 5, 7), DJ__F32(2, 4, 7)}, MM(0, 1, 0, 0)},
    {"shared b", 2, {DJ__F32(3, 5, 7), DJ__F32(7, 4)}, MM(0, 0, 0, 0)},
    {"shared b, both transposed", 2, {DJ__F32(3, 7, 5), DJ__F32(4, 7)}, MM(1, 1, 0, 0)},
    {"shared b, a transposed", 2, {DJ__F32(3, 7, 5), DJ__F32(7, 4)}, MM(1, 0, 0, 0)},
    {"rank 5", 2, {DJ__F32(2, 1, 3, 4, 5), DJ__F32(2, 1, 3, 6, 5)}, MM(0, 1, 0, 0)},
    {"bias", 3, {DJ__F32(5, 7), DJ__F32(3, 7), DJ__F32(3)}, MM(0, 1, true, 0)},
    {"bias, relu", 3, {DJ__F32(13, 17), DJ__F32(33, 17), DJ__F32(33)}, MM(0, 1, true, DJ__OP_relu)},
    {"bias, gelu", 3, {DJ__F32(13, 17), DJ__F32(33, 17), DJ__F32(33)}, MM(0, 1, true, DJ__OP_gelu)},
    {"bias, silu", 3, {DJ__F32(6, 16), DJ__F32(32, 16), DJ__F32(32)}, MM(0, 1, true, DJ__OP_silu)},
    {"bias, elu, shared b",
     3,
     {DJ__F32(2, 3, 17), DJ__F32(17, 9), DJ__F32(9)},
     MM(0, 0, true, DJ__OP_elu)},
    {"sigmoid", 2, {DJ__F32(5, 8), DJ__F32(8, 9)}, MM(0, 0, false, DJ__OP_sigmoid)},
    {"tanh", 2, {DJ__F32(5, 8), DJ__F32(8, 9)}, MM(0, 0, false, DJ__OP_tanh)},
    {"few rows", 3, {DJ__F32(9, 304), DJ__F32(21, 304), DJ__F32(21)}, MM(0, 1, true, DJ__OP_gelu)},
    {"few rows, rounded",
     2,
     {DJ__F32(2, 10, 48), DJ__F32(70, 48)},
     DJ__ATTR_OF(dj__matmul_attr, 0, 1, 3, {0, 0})},
    {"few rows, data", 2, {DJ__F32(9, 37), DJ__F32(37, 304)}, MM(0, 0, 0, 0)},
    {"few rows, data, rounded",
     2,
     {DJ__F32(3, 70), DJ__F32(70, 48)},
     DJ__ATTR_OF(dj__matmul_attr, 0, 0, 3, {0, 0})},
    {"few rows, weight", 2, {DJ__F32(9, 22), DJ__F32(9, 304)}, MM(1, 0, 0, 0)},
    {"few rows, weight, wide", 2, {DJ__F32(20, 129), DJ__F32(20, 2064)}, MM(1, 0, 0, 0)},
    {"few rows of a backbone",
     2,
     {DJ__F32(16, 16384), DJ__F32(128, 16384)},
     DJ__ATTR_OF(dj__matmul_attr, 0, 1, 2, {0, 0}),
     .bench = true},
    {"few rows of a backbone, data",
     2,
     {DJ__F32(16, 128), DJ__F32(128, 16384)},
     DJ__ATTR_OF(dj__matmul_attr, 0, 0, 2, {0, 0}),
     .bench = true},
    {"few rows of a backbone, weight",
     2,
     {DJ__F32(16, 128), DJ__F32(16, 16384)},
     MM(1, 0, 0, 0),
     .bench = true},
    {"linear, forward",
     2,
     {DJ__F32(512, 1024), DJ__F32(1024, 1024)},
     MM(0, 1, 0, 0),
     .bench = true},
    {"linear, weight gradient",
     2,
     {DJ__F32(512, 1024), DJ__F32(512, 1024)},
     MM(1, 0, 0, 0),
     .bench = true},
    {"GPT-2 MLP in", 2, {DJ__F32(1024, 768), DJ__F32(3072, 768)}, MM(0, 1, 0, 0), .bench = true},
    {"GPT-2 MLP out", 2, {DJ__F32(1024, 3072), DJ__F32(768, 3072)}, MM(0, 1, 0, 0), .bench = true},
    {"GPT-2 MLP in, dx",
     2,
     {DJ__F32(1024, 3072), DJ__F32(3072, 768)},
     MM(0, 0, 0, 0),
     .bench = true},
    {"GPT-2 MLP out, dx",
     2,
     {DJ__F32(1024, 768), DJ__F32(768, 3072)},
     MM(0, 0, 0, 0),
     .bench = true},
    {"GPT-2 MLP in, dw",
     2,
     {DJ__F32(1024, 3072), DJ__F32(1024, 768)},
     MM(1, 0, 0, 0),
     .bench = true},
    {"GPT-2 MLP out, dw",
     2,
     {DJ__F32(1024, 768), DJ__F32(1024, 3072)},
     MM(1, 0, 0, 0),
     .bench = true},
    {"GPT-2 attention out",
     2,
     {DJ__F32(1024, 768), DJ__F32(768, 768)},
     MM(0, 1, 0, 0),
     .bench = true},
    {"GPT-2 logits", 2, {DJ__F32(1024, 768), DJ__F32(50257, 768)}, MM(0, 1, 0, 0), .bench = true},
    {"GPT-2 logits, dx",
     2,
     {DJ__F32(1024, 50257), DJ__F32(50257, 768)},
     MM(0, 0, 0, 0),
     .bench = true},
    {"GPT-2 logits, dw",
     2,
     {DJ__F32(1024, 50257), DJ__F32(1024, 768)},
     MM(1, 0, 0, 0),
     .bench = true},
    {"attention scores",
     2,
     {DJ__F32(64, 128, 64), DJ__F32(64, 128, 64)},
     MM(0, 1, 0, 0),
     .bench = true},
};
DJ__DEFINE_OP(matmul, 2, 3, 1, DJ__COMPUTE, 3, 0, infer_matmul, grad_matmul, cost_matmul,
              ref_matmul, samples_matmul);
