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

dj_status DJ__I(cross_entropy)(const dj__call *c, void *self) {
  (void)self;
  rows r = rows_of(c);
  if (!labels_in_range(c, &r)) return dj__op_get(c->op)->ref(c); /* it words the error */
  const int32_t *label = c->in[1].data;                          // (N) i32, negative: none
  float *y = c->out[0].data;                                     // (N)
#pragma omp parallel for schedule(static) num_threads(r.threads)
  for (int64_t i = 0; i < r.count; i++) {
    const float *x = (const float *)c->in[0].data + i * r.width; // (C)
    if (label[i] < 0) {
      y[i] = 0;
      continue;
    }
    float max = row_max(x, r.width);
    y[i] = vm_log(exp_sum(x, max, r.width, NULL)) - (x[label[i]] - max);
  }
  return DJ_OK;
}

/* dx = dy (softmax(x) - one_hot(label)) */
dj_status DJ__I(cross_entropy_grad)(const dj__call *c, void *self) {
  (void)self;
  rows r = rows_of(c);
  if (!labels_in_range(c, &r)) return dj__op_get(c->op)->ref(c); /* it words the error */
  const int32_t *label = c->in[1].data;                          // (N) i32, negative: none
  const float *dy = c->in[2].data;                               // (N)
#pragma omp parallel for schedule(static) num_threads(r.threads)
  for (int64_t i = 0; i < r.count; i++) {
    const float *x = (const float *)c->in[0].data + i * r.width; // (C)
    float *dx = (float *)c->out[0].data + i * r.width;           // (C)
    if (label[i] < 0) {
      memset(dx, 0, (size_t)r.width * sizeof *dx);
      continue;
    }
    float sum = exp_sum(x, row_max(x, r.width), r.width, dx), p = dx[label[i]] / sum;
    float scale = dy[i] / sum;
    DJ__SIMD for (int64_t k = 0; k < r.width; k++) dx[k] *= scale;
    dx[label[i]] = dy[i] * (p - 1.0f);
  }
  return DJ_OK;
}

bool DJ__I(all_f32_labels)(const dj__call *c) {
  return c->in[0].dtype == DJ_F32 && c->out[0].dtype == DJ_F32 &&
         (c->n_in < 3 || c->in[2].dtype == DJ_F32);
}
