/*
 * Products in which one side has few rows and the other is a large matrix W (N, K), as in a linear
 * layer behind a backbone with a small batch: what counts is that W comes from memory once, in long
 * runs. Three forms, with M <= 32 rows:
 *
 *   forward  y (M, N) = x (M, K) W^T, then bias and activation
 *   data     y (M, K) = x (M, N) W
 *   weight   W (N, K) = x (M, N)^T z (M, K)
 *
 * Sums are f32, of rows of W that are converted (and rounded, where the attribute says so) into
 * first-level cache. A unit of work is a block of rows (forward) or of columns of W, whose
 * arithmetic does not depend on the split over threads. M <= 4 forward is matvec's.
 */
#include "backend/cpu/isa/nn.h"

enum {
  MAX_M = 32,
  GROUP = 8,         /* rows of the small side that are summed together */
  ROWS = 8,          /* of W in a unit (forward) */
  DEPTH = 256,       /* of K at a time (forward) */
  COLUMNS = 512,     /* of W in a unit (data, weight) */
  AHEAD = 8,         /* rows of W asked for ahead of their use (data) */
  DEEP = 16,         /* rows of W at a time (data) */
  LEAST_W = 1 << 20, /* elements of W: less stays in cache, where others are as good */
  STREAM = 1 << 20   /* bytes of a result that does not stay in cache anyway */
};

typedef enum form { NONE, FORWARD, DATA, WEIGHT } form;

typedef struct plan {
  form form;
  int64_t m, n, k;
  int64_t rows; /* m in whole groups */
} plan;

static plan plan_of(const dj__call *c) {
  const dj__matmul_attr *a = c->attr;
  const dj_shape *x = &c->in[0].shape, *w = &c->in[1].shape;
  plan p = {NONE, 0, 0, 0, 0};
  if (w->rank != 2 || x->rank < 2) return p;
  const int64_t last = x->dim[x->rank - 1], before = last ? dj_shape_count(x) / last : 0;
  if (!a->ta && a->tb)
    p = (plan){FORWARD, before, w->dim[0], w->dim[1], 0};
  else if (!a->ta && !a->post.bias && !a->post.act)
    p = (plan){DATA, before, w->dim[0], w->dim[1], 0};
  else if (a->ta && !a->tb && x->rank == 2 && !a->post.bias && !a->post.act)
    p = (plan){WEIGHT, before, last, w->dim[1], 0};
  p.rows = (p.m + GROUP - 1) / GROUP * GROUP;
  const bool large = p.n * p.k >= LEAST_W || dj__worth_threads == 0; /* 0: a test */
  if (!large || p.m < 1 || p.m > MAX_M || p.n < 1 || p.k < 16 || p.k % 16) p.form = NONE;
  return p;
}

bool DJ__I(few_rows_supports)(const dj__call *c) {
  return DJ__I(matvec_supports)(c) || (DJ__I(all_float)(c) && plan_of(c).form != NONE);
}

/* k in whole pieces of depth. */
static int64_t whole(int64_t k) {
  return (k + DEPTH - 1) / DEPTH * DEPTH;
}

size_t DJ__I(few_rows_workspace)(const dj__call *c) {
  if (DJ__I(matvec_supports)(c)) return DJ__I(matvec_workspace)(c);
  const plan p = plan_of(c);
  const int64_t x = p.rows * (p.form == FORWARD ? whole(p.k) : p.n);
  return (size_t)(x + (p.form == FORWARD ? p.m * p.n : 0)) * sizeof(float);
}

/* To the nearest bf16, kept as f32; NaN stays NaN. */
DJ__INLINE vf v_round(vf v) {
  const vu u = (vu)v, r = (u + 0x7fffu + ((u >> 16) & 1u)) & 0xffff0000u;
  return v_pick((vu)(v == v), (vf)r, v);
}

/* n elements (whole vectors) of src from i on into dst, rounded if asked for. */
DJ__INLINE void fetch(float *dst, const void *src, dj_dtype t, int64_t i, int64_t n, bool round) {
  for (int64_t k = 0; k < n; k += VW) {
    vf v = v_load(src, t, i + k);
    v_store(dst, DJ_F32, k, round && t == DJ_F32 ? v_round(v) : v);
  }
}
/* Asks for n elements from i on, ahead of their use. */
DJ__INLINE void ask(const dj_tensor *t, int64_t i, int64_t n) {
  const char *p = at(t->data, t->dtype, i);
  for (int64_t b = 0; b < n * (int64_t)dj_dtype_size(t->dtype); b += 64) __builtin_prefetch(p + b);
}
static void fetch_any(float *dst, const dj_tensor *src, int64_t i, int64_t n, bool round) {
  if (src->dtype == DJ_BF16)
    fetch(dst, src->data, DJ_BF16, i, n, false);
  else if (round)
    fetch(dst, src->data, DJ_F32, i, n, true);
  else
    fetch(dst, src->data, DJ_F32, i, n, false);
}

/* The small input as f32 (rows, n), with zeros in rows beyond m. */
static void widen(const dj__call *c, const plan *p, float *x) {
  const bool round = ((const dj__matmul_attr *)c->attr)->rounds & 1u;
  DJ__I(load_block)(x, c->in[0].data, c->in[0].dtype, p->m * p->n);
  for (int64_t i = 0; round && c->in[0].dtype == DJ_F32 && i < p->m * p->n; i++)
    x[i] = dj_bf16_to_f32(to_bf16(x[i]));
  memset(x + p->m * p->n, 0, (size_t)((p->rows - p->m) * p->n) * sizeof *x);
}

/* ---- forward ---- */
/* acc[a][r] += rows a, a + 1 of w times rows r .. r + 8 of x, both (., DEPTH), n of depth. */
DJ__INLINE void dots(const float *w, const float *x, int64_t n, vf acc[2][MAX_M]) {
  vf s[2][GROUP];
  for (int r = 0; r < GROUP; r++) s[0][r] = acc[0][r], s[1][r] = acc[1][r];
  for (int64_t i = 0; i < n; i += VW) {
    const vf a = v_load(w, DJ_F32, i), b = v_load(w, DJ_F32, DEPTH + i);
#pragma GCC unroll 8
    for (int r = 0; r < GROUP; r++) {
      const vf v = v_load(x, DJ_F32, r * DEPTH + i);
      s[0][r] += a * v;
      s[1][r] += b * v;
    }
  }
  for (int r = 0; r < GROUP; r++) acc[0][r] = s[0][r], acc[1][r] = s[1][r];
}

/* x (rows, k) as pieces of depth, (pieces, rows, DEPTH): rows a power of two apart would share few
 * sets of the cache. */
static void cut(const dj__call *c, const plan *p, float *x, int threads) {
  const bool round = ((const dj__matmul_attr *)c->attr)->rounds & 1u;
  const int64_t pieces = (p->k + DEPTH - 1) / DEPTH;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t q = 0; q < pieces; q++) {
    const int64_t k0 = q * DEPTH, len = p->k - k0 < DEPTH ? p->k - k0 : DEPTH;
    for (int64_t r = 0; r < p->rows; r++) {
      float *to = x + (q * p->rows + r) * DEPTH;
      if (r < p->m)
        fetch_any(to, &c->in[0], r * p->k + k0, len, round);
      else
        memset(to, 0, DEPTH * sizeof *to);
    }
  }
}

/* Rows n0 .. n1 of W; y (m, n). */
static void forward_unit(const dj__call *c, const plan *p, const float *x, int64_t n0, int64_t n1,
                         float *y) {
  const bool round = ((const dj__matmul_attr *)c->attr)->rounds >> 1 & 1u;
  float w[ROWS * DEPTH];
  vf acc[ROWS][MAX_M];
  const vf none = v_all(0);
  for (int j = 0; j < ROWS; j++)
    for (int64_t r = 0; r < p->rows; r++) acc[j][r] = none;
  memset(w, 0, sizeof w); /* rows beyond n1 */
  for (int64_t k0 = 0; k0 < p->k; k0 += DEPTH) {
    const int64_t len = p->k - k0 < DEPTH ? p->k - k0 : DEPTH;
    for (int64_t j = n0; j < n1; j++) {
      if (k0 + 2 * DEPTH <= p->k) ask(&c->in[1], j * p->k + k0 + DEPTH, DEPTH);
      fetch_any(w + (j - n0) * DEPTH, &c->in[1], j * p->k + k0, len, round);
    }
    for (int64_t j = 0; j < n1 - n0; j += 2)
      for (int64_t r = 0; r < p->rows; r += GROUP)
        dots(w + j * DEPTH, x + (k0 / DEPTH * p->rows + r) * DEPTH, len,
             (vf(*)[MAX_M]) & acc[j][r]);
  }
  for (int64_t j = n0; j < n1; j++)
    for (int64_t r = 0; r < p->m; r++) y[r * p->n + j] = v_sum(acc[j - n0][r]);
}

static void forward(const dj__call *c, const plan *p, float *x, int threads) {
  const dj__matmul_attr *a = c->attr;
  float *made = x + p->rows * whole(p->k), *y = c->out[0].dtype == DJ_F32 ? c->out[0].data : made;
  cut(c, p, x, threads);
  const int64_t units = (p->n + ROWS - 1) / ROWS;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t u = 0; u < units; u++)
    forward_unit(c, p, x, u * ROWS, u * ROWS + ROWS < p->n ? u * ROWS + ROWS : p->n, y);
  if (a->post.bias || a->post.act) DJ__I(post)
  (y, DJ_F32, p->m, p->n, a->post.bias ? c->in[2].data : NULL,
   a->post.bias ? c->in[2].dtype : DJ_F32, a->post.act, 1);
  if (y == made) DJ__I(store_block)(c->out[0].data, c->out[0].dtype, y, p->m * p->n);
}

/* ---- data ---- */
/* acc (8, COLUMNS) += x (8 rows, n of DEEP apart `width`) times w (n, COLUMNS), nv vectors of
 * columns. */
DJ__INLINE void mix(const float *w, const float *x, int64_t width, int64_t n, int nv, float *acc) {
  vf s[GROUP][2];
  for (int r = 0; r < GROUP; r++)
    for (int v = 0; v < nv; v++) s[r][v] = v_load(acc, DJ_F32, r * COLUMNS + v * VW);
  for (int64_t i = 0; i < n; i++) {
    vf a[2];
    for (int v = 0; v < nv; v++) a[v] = v_load(w, DJ_F32, i * COLUMNS + v * VW);
#pragma GCC unroll 8
    for (int r = 0; r < GROUP; r++)
      for (int v = 0; v < nv; v++) s[r][v] += a[v] * x[r * width + i];
  }
  for (int r = 0; r < GROUP; r++)
    for (int v = 0; v < nv; v++) v_store(acc, DJ_F32, r * COLUMNS + v * VW, s[r][v]);
}

/* Columns k0 .. k0 + cols of y (m, k). */
static void data_unit(const dj__call *c, const plan *p, const float *x, int64_t k0, int64_t cols) {
  const bool round = ((const dj__matmul_attr *)c->attr)->rounds >> 1 & 1u;
  float w[DEEP * COLUMNS], acc[MAX_M * COLUMNS];
  memset(acc, 0, (size_t)p->rows * COLUMNS * sizeof *acc);
  for (int64_t n0 = 0; n0 < p->n; n0 += DEEP) {
    const int64_t deep = p->n - n0 < DEEP ? p->n - n0 : DEEP;
    for (int64_t i = 0; i < deep; i++) {
      if (n0 + i + AHEAD < p->n) ask(&c->in[1], (n0 + i + AHEAD) * p->k + k0, cols);
      fetch_any(w + i * COLUMNS, &c->in[1], (n0 + i) * p->k + k0, cols, round);
    }
    for (int64_t r = 0; r < p->rows; r += GROUP) {
      int64_t k = 0;
      float *to = acc + r * COLUMNS;
      for (; k + 2 * VW <= cols; k += 2 * VW) mix(w + k, x + r * p->n + n0, p->n, deep, 2, to + k);
      for (; k < cols; k += VW) mix(w + k, x + r * p->n + n0, p->n, deep, 1, to + k);
    }
  }
  for (int64_t r = 0; r < p->m; r++)
    for (int64_t k = 0; k < cols; k += VW)
      DJ__WITH_DTYPE(
          c->out[0].dtype, T,
          v_store(c->out[0].data, T, r * p->k + k0 + k, v_load(acc, DJ_F32, r * COLUMNS + k)));
}

/* ---- weight ---- */
DJ__INLINE void put(void *out, dj_dtype t, int64_t i, vf v, bool past) {
#if defined DJ_ISA_avx512
  if (t == DJ_F32 && past) {
    _mm512_stream_ps((float *)out + i, (__m512)v);
    return;
  }
#else
  (void)past;
#endif
  v_store(out, t, i, v);
}

/* Rows n .. n + nn of W, nv vectors of columns from k on: x (m, n) and z (m, COLUMNS). */
DJ__INLINE void outer(const plan *p, const float *x, const float *z, int nn, int nv, void *out,
                      dj_dtype t, bool past) {
  vf s[4][4];
  for (int i = 0; i < nn; i++)
    for (int v = 0; v < nv; v++) s[i][v] = v_all(0);
  for (int64_t r = 0; r < p->m; r++) {
    vf a[4];
    for (int v = 0; v < nv; v++) a[v] = v_load(z, DJ_F32, r * COLUMNS + v * VW);
    for (int i = 0; i < nn; i++)
      for (int v = 0; v < nv; v++) s[i][v] += a[v] * x[r * p->n + i];
  }
  for (int i = 0; i < nn; i++)
    for (int v = 0; v < nv; v++) put(out, t, i * p->k + v * VW, s[i][v], past);
}

DJ__INLINE void weight_unit(const dj__call *c, const plan *p, const float *x, int64_t k0,
                            int64_t cols, dj_dtype t, bool past) {
  const bool round = ((const dj__matmul_attr *)c->attr)->rounds >> 1 & 1u;
  float z[MAX_M * COLUMNS];
  for (int64_t r = 0; r < p->m; r++)
    fetch_any(z + r * COLUMNS, &c->in[1], r * p->k + k0, cols, round);
  int64_t n = 0;
  for (; n + 4 <= p->n; n += 4) {
    void *row = at_w(c->out[0].data, t, n * p->k + k0);
    int64_t k = 0;
    for (; k + 4 * VW <= cols; k += 4 * VW) outer(p, x + n, z + k, 4, 4, at_w(row, t, k), t, past);
    for (; k < cols; k += VW) outer(p, x + n, z + k, 4, 1, at_w(row, t, k), t, past);
  }
  for (; n < p->n; n++)
    for (int64_t k = 0; k < cols; k += VW)
      outer(p, x + n, z + k, 1, 1, at_w(c->out[0].data, t, n * p->k + k0 + k), t, past);
}

dj_status DJ__I(few_rows_run)(const dj__call *c, void *self) {
  if (DJ__I(matvec_supports)(c)) return DJ__I(matvec_run)(c, self);
  const plan p = plan_of(c);
  float *x = c->workspace; // (rows, K) or (rows, N) f32
  const int threads = threads_for(c, p.n * p.k);
  if (p.form == FORWARD) {
    forward(c, &p, x, threads);
    return DJ_OK;
  }
  widen(c, &p, x);
  const dj_dtype t = c->out[0].dtype;
  const bool past = p.n * p.k * 4 >= STREAM && (uintptr_t)c->out[0].data % 64 == 0;
  const int64_t units = (p.k + COLUMNS - 1) / COLUMNS;
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (int64_t u = 0; u < units; u++) {
      const int64_t k0 = u * COLUMNS, cols = p.k - k0 < COLUMNS ? p.k - k0 : COLUMNS;
      if (p.form == DATA)
        data_unit(c, &p, x, k0, cols);
      else if (t == DJ_F32 && past)
        weight_unit(c, &p, x, k0, cols, DJ_F32, true);
      else
        DJ__WITH_DTYPE(t, T, weight_unit(c, &p, x, k0, cols, T, false));
    }
#if defined DJ_ISA_avx512
    _mm_sfence(); /* streamed results, before others read them */
#endif
  }
  return DJ_OK;
}
