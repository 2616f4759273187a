/*
 * Kernels of rotary positions and of attention over a cache (definitions: engine/ops/rotary.c).
 *
 * Rotary: sines and cosines of each position once, then rows. Cached attention is for few new
 * tokens: it reads every key and value once, a unit of work is one head of one token.
 */
#include "backend/cpu/isa/nn.h"
#include "backend/cpu/isa/vmath.h"

/* ---- rotary ---- */

size_t DJ__I(rotary_workspace)(const dj__call *c) {
  return (size_t)c->in[0].shape.dim[1] * (size_t)c->in[0].shape.dim[3] * sizeof(float);
}

bool DJ__I(rotary_supports)(const dj__call *c) {
  return is_float(&c->in[0]) && is_float(&c->out[0]);
}

/* Row x of D numbers, turned by cos and sin (D/2 each). x and y may be the same. */
DJ__INLINE void turn(const void *x, const dj_dtype xt, void *y, const dj_dtype yt, int64_t row,
                     const float *cosine, const float *sine, int64_t half) {
  DJ__SIMD for (int64_t i = 0; i < half; i++) {
    float u = ld(x, xt, row + i), v = ld(x, xt, row + half + i);
    st(y, yt, row + i, u * cosine[i] - v * sine[i]);
    st(y, yt, row + half + i, v * cosine[i] + u * sine[i]);
  }
}

DJ__INLINE void turn_rows(const dj__call *c, const dj_dtype xt, const dj_dtype yt,
                          const float *table, int threads) {
  const dj__rotary_attr *a = c->attr;
  const int64_t *d = c->in[0].shape.dim, half = d[3] / 2;
  const void *x = c->in[0].data;
  void *y = c->out[0].data;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t u = 0; u < d[0] * d[1]; u++) {
    const float *cosine = table + u % d[1] * d[3];
    for (int64_t h = 0; h < a->heads; h++)
      turn(x, xt, y, yt, (u * d[2] + h) * d[3], cosine, cosine + half, half);
    int64_t from = (u * d[2] + a->heads) * d[3], to = (u + 1) * d[2] * d[3];
    if (x != y) DJ__SIMD for (int64_t i = from; i < to; i++) st(y, yt, i, ld(x, xt, i));
  }
}

dj_status DJ__I(rotary_run)(const dj__call *c, void *self) {
  (void)self;
  const dj__rotary_attr *a = c->attr;
  const int64_t *d = c->in[0].shape.dim, half = d[3] / 2;
  const int32_t *position = c->in[1].data; // (T) i32
  float *table = c->workspace;             // (T, 2, D/2) cosines, sines
  int threads = threads_for(c, d[0] * d[1] * d[2] * d[3]);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t t = 0; t < d[1]; t++)
    for (int64_t i = 0; i < half; i++) {
      double angle = dj__rotary_angle(a, position[t], i, d[3]);
      table[t * d[3] + i] = (float)cos(angle);
      table[t * d[3] + half + i] = (float)sin(angle);
    }
  dj_dtype to = c->out[0].dtype;
  if (to == DJ_F32)
    DJ__WITH_DTYPE(c->in[0].dtype, T, turn_rows(c, T, DJ_F32, table, threads));
  else
    DJ__WITH_DTYPE(c->in[0].dtype, T, turn_rows(c, T, DJ_BF16, table, threads));
  return DJ_OK;
}

/* ---- attention over a cache ---- */

bool DJ__I(attention_cached_supports)(const dj__call *c) {
  for (int i = 0; i < 3; i++)
    if (c->in[i].dtype != DJ_F32) return false;
  return c->out[0].dtype == DJ_F32;
}

size_t DJ__I(attention_cached_workspace)(const dj__call *c) {
  size_t threads = (size_t)(c->threads > 1 ? c->threads : 1);
  return threads * (size_t)c->in[1].shape.dim[2] * sizeof(float);
}

/* q (D), keys and values (n, D) -> o (D); p: room for n */
static void attend(const float *q, const float *keys, const float *values, int64_t n, int64_t d,
                   float scale, float *p, float *o) {
  float max = -__builtin_inff(), sum = 0;
  for (int64_t s = 0; s < n; s++) {
    const float *k = keys + s * d;
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < d; i++) dot += q[i] * k[i];
    p[s] = dot * scale;
    max = p[s] > max ? p[s] : max;
  }
#pragma omp simd reduction(+ : sum)
  for (int64_t s = 0; s < n; s++) {
    float e = vm_exp(p[s] - max);
    p[s] = e;
    sum += e;
  }
  memset(o, 0, (size_t)d * sizeof *o);
  for (int64_t s = 0; s < n; s++) {
    const float *v = values + s * d, e = p[s];
    DJ__SIMD for (int64_t i = 0; i < d; i++) o[i] += e * v[i];
  }
  const float inv = 1 / sum;
  DJ__SIMD for (int64_t i = 0; i < d; i++) o[i] *= inv;
}

static void write_cache(const dj__call *c) {
  const int64_t *x = c->in[0].shape.dim, *k = c->in[1].shape.dim, heads = x[2] - 2 * k[1];
  const float *in = c->in[0].data;                      // (B, T, N, D) f32
  float *keys = c->in[1].data, *values = c->in[2].data; // (B, HK, S, D) f32
  const int32_t *position = c->in[3].data;              // (T) i32
  for (int64_t u = 0; u < x[0] * x[1]; u++)
    for (int64_t h = 0; h < k[1]; h++) {
      int64_t to = ((u / x[1] * k[1] + h) * k[2] + position[u % x[1]]) * x[3];
      const float *from = in + (u * x[2] + heads + h) * x[3];
      memcpy(keys + to, from, (size_t)x[3] * sizeof *keys);
      memcpy(values + to, from + k[1] * x[3], (size_t)x[3] * sizeof *values);
    }
}

dj_status DJ__I(attention_cached_run)(const dj__call *c, void *self) {
  (void)self;
  const dj__attention_attr *a = c->attr;
  const int64_t *x = c->in[0].shape.dim, *k = c->in[1].shape.dim, d = x[3];
  const int64_t heads = x[2] - 2 * k[1], group = heads / k[1];
  const float *in = c->in[0].data, *keys = c->in[1].data, *values = c->in[2].data;
  const int32_t *position = c->in[3].data;
  float *out = c->out[0].data; // (B, T, H, D) f32
  DJ_TRY(dj__check_positions(position, x[1], k[2]));
  write_cache(c);
  int64_t seen = 0;
  for (int64_t t = 0; t < x[1]; t++) seen += position[t] + 1;
#pragma omp parallel for schedule(static, 1) num_threads(threads_for(c, x[0] * seen * heads * d))
  for (int64_t u = 0; u < x[0] * x[1] * heads; u++) {
    int64_t row = u / heads, h = u % heads, cache = (row / x[1] * k[1] + h / group) * k[2] * d;
    float *p = (float *)c->workspace + omp_get_thread_num() * k[2];
    attend(in + (row * x[2] + h) * d, keys + cache, values + cache, position[row % x[1]] + 1, d,
           a->scale, p, out + u * d);
  }
  return DJ_OK;
}
