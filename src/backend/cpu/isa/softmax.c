/*
 * Softmax, its logarithm and cross-entropy over rows (formulas: engine/ops/softmax.c). A row is
 * read for its maximum and once or twice more from cache. All tensors are f32; exponents are at
 * most 0, so sums in f32 lose nothing that the result could show. Rows with an infinite maximum
 * come out as NaN, as the reference says.
 */
#include "backend/cpu/isa/nn.h"
#include "backend/cpu/isa/vmath.h"

typedef struct rows {
  int64_t count, width;
  int threads;
} rows;

static rows rows_of(const dj__call *c) {
  const dj_shape *s = &c->in[0].shape;
  int64_t width = s->dim[s->rank - 1], n = 1;
  for (int i = 0; i < s->rank - 1; i++) n *= s->dim[i];
  return (rows){n, width, threads_for(c, n * width * 4)};
}

DJ__INLINE float row_max(const float *x, int64_t n) {
  float m = x[0];
#pragma omp simd reduction(max : m)
  for (int64_t k = 0; k < n; k++) m = x[k] > m ? x[k] : m;
  return m;
}

/* sum(exp(x - max)); the exponentials are kept in e unless it is NULL. */
DJ__INLINE float exp_sum(const float *x, float max, int64_t n, float *e) {
  float sum = 0;
  if (e) {
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < n; k++) {
      float v = vm_exp(x[k] - max);
      e[k] = v;
      sum += v;
    }
  } else {
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < n; k++) sum += vm_exp(x[k] - max);
  }
  return sum;
}

dj_status DJ__I(softmax)(const dj__call *c, void *self) {
  (void)self;
  rows r = rows_of(c);
#pragma omp parallel for schedule(static) num_threads(r.threads)
  for (int64_t i = 0; i < r.count; i++) {
    const float *x = (const float *)c->in[0].data + i * r.width; // (C)
    float *y = (float *)c->out[0].data + i * r.width;            // (C)
    float inv = 1.0f / exp_sum(x, row_max(x, r.width), r.width, y);
    DJ__SIMD for (int64_t k = 0; k < r.width; k++) y[k] *= inv;
  }
  return DJ_OK;
}

dj_status DJ__I(log_softmax)(const dj__call *c, void *self) {
  (void)self;
  rows r = rows_of(c);
#pragma omp parallel for schedule(static) num_threads(r.threads)
  for (int64_t i = 0; i < r.count; i++) {
    const float *x = (const float *)c->in[0].data + i * r.width; // (C)
    float *y = (float *)c->out[0].data + i * r.width;            // (C)
    float max = row_max(x, r.width), log_sum = vm_log(exp_sum(x, max, r.width, NULL));
    DJ__SIMD for (int64_t k = 0; k < r.width; k++) y[k] = (x[k] - max) - log_sum;
  }
  return DJ_OK;
}

/* dx = y (dy - sum(y dy)) */
dj_status DJ__I(softmax_grad)(const dj__call *c, void *self) {
  (void)self;
  rows r = rows_of(c);
#pragma omp parallel for schedule(static) num_threads(r.threads)
  for (int64_t i = 0; i < r.count; i++) {
    const float *y = (const float *)c->in[0].data + i * r.width;  // (C)
    const float *dy = (const float *)c->in[1].data + i * r.width; // (C)
    float *dx = (float *)c->out[0].data + i * r.width;            // (C)
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t k = 0; k < r.width; k++) dot += y[k] * dy[k];
    DJ__SIMD for (int64_t k = 0; k < r.width; k++) dx[k] = y[k] * (dy[k] - dot);
  }
  return DJ_OK;
}

/* dx = dy - exp(y) sum(dy) */
dj_status DJ__I(log_softmax_grad)(const dj__call *c, void *self) {
  (void)self;
  rows r = rows_of(c);
#pragma omp parallel for schedule(static) num_threads(r.threads)
  for (int64_t i = 0; i < r.count; i++) {
    const float *y = (const float *)c->in[0].data + i * r.width;  // (C)
    const float *dy = (const float *)c->in[1].data + i * r.width; // (C)
    float *dx = (float *)c->out[0].data + i * r.width;            // (C)
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < r.width; k++) sum += dy[k];
    DJ__SIMD for (int64_t k = 0; k < r.width; k++) dx[k] = dy[k] - vm_exp(y[k]) * sum;
  }
  return DJ_OK;
}

static bool labels_in_range(const dj__call *c, const rows *r) {
  const int32_t *label = c->in[1].data; // (N) i32
  for (int64_t i = 0; i < r->count; i++)
    if (label[i] >= r->width) return false;
  return true;
}

static dj_status bad_label(const dj__call *c, const rows *r) {
  const int32_t *label = c->in[1].data;
  int64_t i = 0;
  while (label[i] < r->width) i++;
  return dj_error(DJ_E_INVALID, "%s: label %d of row %lld is outside 0..%lld",
                  dj__op_get(c->op)->name, label[i], (long long)i, (long long)r->width - 1);
}

/* Largest of row x (n) that begins at element `from`, and the sum of exp(x - max). */
DJ__INLINE void row_sum(const void *x, const dj_dtype t, int64_t from, int64_t n, float *max,
                        float *sum) {
  float m = ld(x, t, from), s = 0;
#pragma omp simd reduction(max : m)
  for (int64_t k = 0; k < n; k++) m = ld(x, t, from + k) > m ? ld(x, t, from + k) : m;
#pragma omp simd reduction(+ : s)
  for (int64_t k = 0; k < n; k++) s += vm_exp(ld(x, t, from + k) - m);
  *max = m;
  *sum = s;
}

dj_status DJ__I(cross_entropy)(const dj__call *c, void *self) {
  (void)self;
  rows r = rows_of(c);
  if (!labels_in_range(c, &r)) return bad_label(c, &r);
  const dj_dtype type = c->in[0].dtype;
  const void *x = c->in[0].data;        // (N, C)
  const int32_t *label = c->in[1].data; // (N) i32, negative: none
  float *y = c->out[0].data;            // (N)
#pragma omp parallel for schedule(static) num_threads(r.threads)
  for (int64_t i = 0; i < r.count; i++) {
    y[i] = 0;
    if (label[i] < 0) continue;
    float max, sum;
    DJ__WITH_DTYPE(type, T, row_sum(x, T, i * r.width, r.width, &max, &sum));
    y[i] = vm_log(sum) - (ld(x, type, i * r.width + label[i]) - max);
  }
  return DJ_OK;
}

/* y (n) may be x. */
DJ__INLINE void row_grad(const void *x, void *y, const dj_dtype t, int64_t from, int64_t n,
                         int64_t label, float dy) {
  float max, sum;
  row_sum(x, t, from, n, &max, &sum);
  const float scale = dy / sum, at_label = vm_exp(ld(x, t, from + label) - max) / sum;
  DJ__SIMD for (int64_t k = 0; k < n; k++)
      st(y, t, from + k, vm_exp(ld(x, t, from + k) - max) * scale);
  st(y, t, from + label, dy * (at_label - 1.0f));
}

/* dx = dy (softmax(x) - one_hot(label)) */
dj_status DJ__I(cross_entropy_grad)(const dj__call *c, void *self) {
  (void)self;
  rows r = rows_of(c);
  if (!labels_in_range(c, &r)) return bad_label(c, &r);
  const dj_dtype type = c->in[0].dtype;
  const int32_t *label = c->in[1].data; // (N) i32, negative: none
  const float *dy = c->in[2].data;      // (N)
#pragma omp parallel for schedule(static) num_threads(r.threads)
  for (int64_t i = 0; i < r.count; i++) {
    if (label[i] < 0)
      memset(at_w(c->out[0].data, type, i * r.width), 0, (size_t)r.width * dj_dtype_size(type));
    else
      DJ__WITH_DTYPE(
          type, T,
          row_grad(c->in[0].data, c->out[0].data, T, i * r.width, r.width, label[i], dy[i]));
  }
  return DJ_OK;
}

bool DJ__I(cross_entropy_supports)(const dj__call *c) {
  if (c->n_in < 3) return is_float(&c->in[0]) && c->out[0].dtype == DJ_F32;
  return is_float(&c->in[0]) && c->in[2].dtype == DJ_F32 && c->out[0].dtype == c->in[0].dtype;
}
