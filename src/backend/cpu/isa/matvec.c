/*
 * Products of few rows with a matrix that lies row by row, y (M, N) = x (M, K) w (N, K)^T + bias:
 * writing text token by token is nothing else, and is as fast as the weights come from memory. A
 * unit of work is a block of rows of w, each read once for all rows of x.
 */
#include "backend/cpu/isa/nn.h"

enum { MAX_ROWS = 4, BLOCK = 32 };

bool DJ__I(matvec_supports)(const dj__call *c) {
  const dj__matmul_attr *a = c->attr;
  const dj_shape *x = &c->in[0].shape, *w = &c->in[1].shape;
  if (!DJ__I(all_float)(c) || a->ta || !a->tb || a->rounds || w->rank != 2) return false;
  return dj_shape_count(x) <= MAX_ROWS * x->dim[x->rank - 1];
}

size_t DJ__I(matvec_workspace)(const dj__call *c) {
  return ((size_t)dj_shape_count(&c->in[0].shape) + (size_t)dj_shape_count(&c->out[0].shape)) *
         sizeof(float);
}

/* Rows n0 .. n1 of w against m rows of x (m is a constant where it is inlined). */
DJ__INLINE void rows(const int m, const float *x, const void *w, const dj_dtype t, int64_t k,
                     int64_t n, int64_t n0, int64_t n1, float *y) {
  for (int64_t j = n0; j < n1; j++) {
    vf acc[MAX_ROWS][2] = {{v_all(0)}};
    const int64_t row = j * k;
    int64_t i = 0;
    for (; i + 2 * VW <= k; i += 2 * VW) {
      vf a = v_load(w, t, row + i), b = v_load(w, t, row + i + VW);
#pragma GCC unroll 4
      for (int r = 0; r < m; r++) {
        acc[r][0] += a * v_load(x, DJ_F32, r * k + i);
        acc[r][1] += b * v_load(x, DJ_F32, r * k + i + VW);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < m; r++) {
      vf both = acc[r][0] + acc[r][1];
      float sum = 0;
      for (int l = 0; l < VW; l++) sum += both[l];
      for (int64_t e = i; e < k; e++) sum += ld(w, t, row + e) * x[r * k + e];
      y[r * n + j] = sum;
    }
  }
}

DJ__INLINE void block(int64_t m, const float *x, const void *w, const dj_dtype t, int64_t k,
                      int64_t n, int64_t n0, int64_t n1, float *y) {
  if (m == 1)
    rows(1, x, w, t, k, n, n0, n1, y);
  else if (m == 2)
    rows(2, x, w, t, k, n, n0, n1, y);
  else if (m == 3)
    rows(3, x, w, t, k, n, n0, n1, y);
  else
    rows(4, x, w, t, k, n, n0, n1, y);
}

dj_status DJ__I(matvec_run)(const dj__call *c, void *self) {
  (void)self;
  const dj__matmul_attr *a = c->attr;
  const int64_t n = c->in[1].shape.dim[0], k = c->in[1].shape.dim[1];
  const int64_t count = dj_shape_count(&c->in[0].shape), m = k ? count / k : 0;
  float *x = c->workspace, *made = x + count; // (M, K), (M, N) f32
  const bool plain = c->out[0].dtype == DJ_F32;
  float *y = plain ? c->out[0].data : made;
  DJ__I(load_block)(x, c->in[0].data, c->in[0].dtype, count);
  const void *w = c->in[1].data; // (N, K)
  const int64_t blocks = (n + BLOCK - 1) / BLOCK;
  const int threads = threads_for(c, n * k);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t u = 0; u < blocks; u++) {
    int64_t n0 = u * BLOCK, n1 = n0 + BLOCK < n ? n0 + BLOCK : n;
    DJ__WITH_DTYPE(c->in[1].dtype, T, block(m, x, w, T, k, n, n0, n1, y));
  }
  if (a->post.bias || a->post.act) DJ__I(post)
  (y, DJ_F32, m, n, a->post.bias ? c->in[2].data : NULL, a->post.bias ? c->in[2].dtype : DJ_F32,
   a->post.act, 1);
  if (!plain) DJ__I(store_block)(c->out[0].data, c->out[0].dtype, y, m * n);
  return DJ_OK;
}
