/*
 * Normalisation (formulas: engine/ops/norm.c). Two families:
 *
 *   by columns: batch and group norm. x is (outer, inner, C); batch norm has outer = 1 and one
 *     group a channel. Every chunk of rows gives moments of its channels (two passes, the second in
 *     first-level cache), which are merged in double by Chan's rule; a second sweep over memory
 *     applies them. So x is read twice and variances do not cancel. The second sweep goes
 *     backwards: it finds in cache what the first one read last. A residual and ReLU are taken
 *     along (batch norm).
 *   by rows: layer and RMS norm. A row stays in cache from its moments to its result; gradients of
 *     the parameters are summed over chunks of rows, then over chunks.
 *
 * Chunks depend on the shape alone. Statistics and parameters are f32.
 */
#include <math.h>

#include "backend/cpu/isa/nn.h"

enum { CHUNK = 8192, MIN_ROWS = 32, COLUMNS = 64 };

/* ---- by columns ---- */
typedef struct geometry {
  int64_t outer, inner, c, groups;
  int64_t rows, chunks; /* rows of a chunk, chunks of one outer index */
} geometry;

static geometry geometry_of(const dj__call *call) {
  const dj_shape *x = &call->in[0].shape;
  int64_t c = x->dim[x->rank - 1], all = 1;
  for (int i = 0; i < x->rank - 1; i++) all *= x->dim[i];
  bool group = call->op == DJ__OP_group_norm || call->op == DJ__OP_group_norm_grad;
  geometry m = {.outer = group ? x->dim[0] : 1, .inner = group ? all / x->dim[0] : all, .c = c};
  m.groups = group ? ((const dj__norm_attr *)call->attr)->groups : c;
  m.rows = CHUNK / c > MIN_ROWS ? CHUNK / c : MIN_ROWS;
  m.chunks = (m.inner + m.rows - 1) / m.rows;
  return m;
}

/* Workspace: two sums a channel of every chunk (f32) and of every outer index (f64), then three
 * factors, the mean and the forward factor a channel of every outer index (f32). */
typedef struct space {
  float *part;                   // (outer, chunks, 2, C)
  double *sum;                   // (outer, 2, C)
  float *factor, *mean, *before; // (outer, 3, C), (outer, C), (outer, C)
} space;

size_t DJ__I(norm_workspace)(const dj__call *c) {
  geometry m = geometry_of(c);
  size_t n = (size_t)(m.outer * m.c);
  return n * (2 * sizeof(double) + 5 * sizeof(float)) + n * (size_t)m.chunks * 2 * sizeof(float);
}

static space space_of(const geometry *m, const dj__call *c) {
  space s = {.sum = c->workspace};
  s.factor = (float *)(s.sum + m->outer * 2 * m->c);
  s.mean = s.factor + m->outer * 3 * m->c;
  s.before = s.mean + m->outer * m->c;
  s.part = s.before + m->outer * m->c;
  return s;
}

/* Rows of unit u = (outer, chunk); *first is its first row in x as (outer * inner, C). */
static int64_t unit_rows(const geometry *m, int64_t u, int64_t *first) {
  int64_t from = u % m->chunks * m->rows;
  *first = u / m->chunks * m->inner + from;
  return m->inner - from < m->rows ? m->inner - from : m->rows;
}

/* Mean and sum of squared deviations of nv vectors of columns. x (rows, c) */
DJ__INLINE void moments(const void *x, dj_dtype t, int64_t rows, int64_t c, int nv, float *mean,
                        float *m2) {
  vf s[4], q[4];
  for (int v = 0; v < nv; v++) s[v] = q[v] = v_all(0);
  for (int64_t r = 0; r < rows; r++)
    for (int v = 0; v < nv; v++) s[v] += v_load(x, t, r * c + v * VW);
  for (int v = 0; v < nv; v++) s[v] /= (float)rows;
  for (int64_t r = 0; r < rows; r++)
    for (int v = 0; v < nv; v++) {
      vf d = v_load(x, t, r * c + v * VW) - s[v];
      q[v] += d * d;
    }
  for (int v = 0; v < nv; v++) {
    v_store(mean, DJ_F32, v * VW, s[v]);
    v_store(m2, DJ_F32, v * VW, q[v]);
  }
}

/* Moments of all columns; mean, m2 (c). */
DJ__INLINE void unit_moments(const void *x, dj_dtype t, int64_t rows, int64_t c, float *mean,
                             float *m2) {
  int64_t k = 0;
  for (; k + 4 * VW <= c; k += 4 * VW) moments(at(x, t, k), t, rows, c, 4, mean + k, m2 + k);
  for (; k + VW <= c; k += VW) moments(at(x, t, k), t, rows, c, 1, mean + k, m2 + k);
  for (; k < c; k++) {
    float s = 0, q = 0;
    for (int64_t r = 0; r < rows; r++) s += ld(x, t, r * c + k);
    s /= (float)rows;
    for (int64_t r = 0; r < rows; r++) {
      float d = ld(x, t, r * c + k) - s;
      q += d * d;
    }
    mean[k] = s;
    m2[k] = q;
  }
}

/* Mean (in sum[0]) and squared deviations (sum[1]) of every channel of every outer index. */
static void merge_moments(const geometry *m, const space *s, const dj__call *c) {
  int64_t blocks = (m->c + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for schedule(static) num_threads(threads_for(c, m->outer * m->chunks * m->c))
  for (int64_t u = 0; u < m->outer * blocks; u++) {
    int64_t o = u / blocks, k = u % blocks * COLUMNS;
    int64_t n = m->c - k < COLUMNS ? m->c - k : COLUMNS;
    const float *part = s->part + o * m->chunks * 2 * m->c + k;
    double *mean = s->sum + o * 2 * m->c + k, *m2 = mean + m->c;
    for (int64_t i = 0; i < n; i++) mean[i] = m2[i] = 0;
    for (int64_t h = 0; h < m->chunks; h++) {
      double rows = (double)(m->inner - h * m->rows < m->rows ? m->inner - h * m->rows : m->rows);
      const float *a = part + h * 2 * m->c;
      DJ__SIMD for (int64_t i = 0; i < n; i++) mean[i] += rows * (double)a[i];
    }
    for (int64_t i = 0; i < n; i++) mean[i] /= (double)m->inner;
    for (int64_t h = 0; h < m->chunks; h++) {
      double rows = (double)(m->inner - h * m->rows < m->rows ? m->inner - h * m->rows : m->rows);
      const float *a = part + h * 2 * m->c, *b = a + m->c;
      DJ__SIMD for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - mean[i];
        m2[i] += (double)b[i] + rows * d * d;
      }
    }
  }
}

/* Statistics of every group, and mean, inv_std * scale and shift of every channel. */
static void factors(const geometry *m, const space *s, const dj__call *c) {
  const float eps = ((const dj__norm_attr *)c->attr)->eps;
  const float *scale = c->in[1].data, *shift = c->in[2].data; // (C) f32
  float *mean = c->out[1].data, *inv_std = c->out[2].data;    // (outer, groups) f32
  const int64_t gc = m->c / m->groups;
  for (int64_t o = 0; o < m->outer; o++) {
    const double *mu = s->sum + o * 2 * m->c, *m2 = mu + m->c;
    float *f = s->factor + o * 3 * m->c;
    for (int64_t g = 0; g < m->groups; g++) {
      double avg = 0, dev = 0;
      for (int64_t k = g * gc; k < (g + 1) * gc; k++) avg += mu[k];
      avg /= (double)gc;
      for (int64_t k = g * gc; k < (g + 1) * gc; k++)
        dev += m2[k] + (double)m->inner * (mu[k] - avg) * (mu[k] - avg);
      double inv = 1 / sqrt(dev / (double)(m->inner * gc) + (double)eps);
      mean[o * m->groups + g] = (float)avg;
      inv_std[o * m->groups + g] = (float)inv;
      for (int64_t k = g * gc; k < (g + 1) * gc; k++) {
        f[k] = (float)avg;
        f[m->c + k] = dj__norm_factor((float)inv, scale[k]);
        f[2 * m->c + k] = shift[k];
      }
    }
  }
}

/* y = act((x - f0) * f1 + f2 + more), over rows of one outer index; more (like y) or NULL. */
DJ__INLINE void apply(const void *x, dj_dtype tx, void *y, dj_dtype ty, const void *more, bool relu,
                      const float *f, int64_t rows, int64_t c) {
  const float *f1 = f + c, *f2 = f1 + c;
  for (int64_t r = 0; r < rows; r++) {
    int64_t base = r * c, k = 0;
    for (; k + VW <= c; k += VW) {
      vf v = (v_load(x, tx, base + k) - v_load(f, DJ_F32, k)) * v_load(f1, DJ_F32, k) +
             v_load(f2, DJ_F32, k);
      if (more) v += v_load(more, ty, base + k);
      if (relu) v = (vf)((vu)v & ~(vu)(v <= 0)); /* NaN stays */
      v_store(y, ty, base + k, v);
    }
    for (; k < c; k++) {
      float v = (ld(x, tx, base + k) - f[k]) * f1[k] + f2[k];
      if (more) v += ld(more, ty, base + k);
      st(y, ty, base + k, relu && v <= 0 ? 0 : v);
    }
  }
}

/* The same with the activation and the presence of a residual as constants. */
DJ__INLINE void apply_any(const void *x, dj_dtype tx, void *y, dj_dtype ty, const void *more,
                          bool relu, const float *f, int64_t rows, int64_t c) {
  if (more && relu)
    apply(x, tx, y, ty, more, true, f, rows, c);
  else if (more)
    apply(x, tx, y, ty, more, false, f, rows, c);
  else if (relu)
    apply(x, tx, y, ty, NULL, true, f, rows, c);
  else
    apply(x, tx, y, ty, NULL, false, f, rows, c);
}

/* x, y and dy of what is fused into batch norm are of one dtype. */
bool DJ__I(norm_supports)(const dj__call *c) {
  return DJ__I(all_float)(c) && (c->n_in < 4 || c->in[3].dtype == c->out[0].dtype);
}

dj_status DJ__I(norm)(const dj__call *c, void *self) {
  (void)self;
  geometry m = geometry_of(c);
  space s = space_of(&m, c);
  const dj_tensor *x = &c->in[0], *y = &c->out[0]; // (outer, inner, C)
  const void *more = c->n_in > 3 ? c->in[3].data : NULL;
  const bool relu = ((const dj__norm_attr *)c->attr)->relu != 0;
  const int64_t units = m.outer * m.chunks;
  int nt = threads_for(c, m.outer * m.inner * m.c);
#pragma omp parallel for schedule(static) num_threads(nt)
  for (int64_t u = 0; u < units; u++) {
    int64_t first, rows = unit_rows(&m, u, &first);
    float *part = s.part + u * 2 * m.c;
    DJ__WITH_DTYPE(x->dtype, T,
                   unit_moments(at(x->data, T, first * m.c), T, rows, m.c, part, part + m.c));
  }
  merge_moments(&m, &s, c);
  factors(&m, &s, c);
#pragma omp parallel num_threads(nt)
  {
    const int id = omp_get_thread_num(), team = omp_get_num_threads();
    const int64_t from = part_from(units, team, id);
    for (int64_t u = part_from(units, team, id + 1) - 1; u >= from; u--) {
      int64_t first, rows = unit_rows(&m, u, &first);
      const float *f = s.factor + u / m.chunks * 3 * m.c;
      DJ__WITH_DTYPE(
          x->dtype, TX,
          DJ__WITH_DTYPE(y->dtype, TY,
                         apply_any(at(x->data, TX, first * m.c), TX, at_w(y->data, TY, first * m.c),
                                   TY, more ? at(more, TY, first * m.c) : NULL, relu, f, rows,
                                   m.c)));
    }
  }
  return DJ_OK;
}

/* What of dy counts: with `relu`, where the value before it, (x - mean) * before + shift, is
 * positive. Each (C) of one outer index; before and shift are NULL without it. */
typedef struct channels {
  const float *mean, *before, *shift;
} channels;

static channels channels_of(const geometry *m, const space *s, const dj__call *c, bool relu,
                            int64_t o) {
  if (!relu) return (channels){s->mean + o * m->c, NULL, NULL};
  return (channels){s->mean + o * m->c, s->before + o * m->c, c->in[5].data};
}

static channels channels_from(const channels *h, int64_t k) {
  if (!h->before) return (channels){h->mean + k, NULL, NULL};
  return (channels){h->mean + k, h->before + k, h->shift + k};
}

/* Sums of dy and of dy * (x - mean), nv vectors of columns. */
DJ__INLINE void dy_sums(const void *x, const void *dy, dj_dtype t, channels h, bool relu,
                        int64_t rows, int64_t c, int nv, float *sdy, float *sdyx) {
  vf a[4], b[4], m[4], f[4], s[4];
  for (int v = 0; v < nv; v++) {
    a[v] = b[v] = v_all(0);
    m[v] = v_load(h.mean, DJ_F32, v * VW);
    f[v] = relu ? v_load(h.before, DJ_F32, v * VW) : v_all(0);
    s[v] = relu ? v_load(h.shift, DJ_F32, v * VW) : v_all(0);
  }
  for (int64_t r = 0; r < rows; r++)
    for (int v = 0; v < nv; v++) {
      vf g = v_load(dy, t, r * c + v * VW), d = v_load(x, t, r * c + v * VW) - m[v];
      if (relu) g = (vf)((vu)g & (vu)(d * f[v] + s[v] > 0));
      a[v] += g;
      b[v] += g * d;
    }
  for (int v = 0; v < nv; v++) {
    v_store(sdy, DJ_F32, v * VW, a[v]);
    v_store(sdyx, DJ_F32, v * VW, b[v]);
  }
}

DJ__INLINE void unit_dy_sums(const void *x, const void *dy, dj_dtype t, const channels *h,
                             int64_t rows, int64_t c, float *sdy, float *sdyx) {
  int64_t k = 0;
  const bool relu = h->before != NULL;
  for (; k + VW <= c;) {
    const int nv = k + 4 * VW <= c ? 4 : 1;
    const channels p = channels_from(h, k);
    if (nv == 4 && relu)
      dy_sums(at(x, t, k), at(dy, t, k), t, p, true, rows, c, 4, sdy + k, sdyx + k);
    else if (nv == 4)
      dy_sums(at(x, t, k), at(dy, t, k), t, p, false, rows, c, 4, sdy + k, sdyx + k);
    else if (relu)
      dy_sums(at(x, t, k), at(dy, t, k), t, p, true, rows, c, 1, sdy + k, sdyx + k);
    else
      dy_sums(at(x, t, k), at(dy, t, k), t, p, false, rows, c, 1, sdy + k, sdyx + k);
    k += nv * VW;
  }
  for (; k < c; k++) {
    float a = 0, b = 0;
    for (int64_t r = 0; r < rows; r++) {
      float g = ld(dy, t, r * c + k), d = ld(x, t, r * c + k) - h->mean[k];
      if (relu && !(d * h->before[k] + h->shift[k] > 0)) g = 0;
      a += g;
      b += g * d;
    }
    sdy[k] = a;
    sdyx[k] = b;
  }
}

static void merge_sums(const geometry *m, const space *s, const dj__call *c) {
  int64_t blocks = (m->c + COLUMNS - 1) / COLUMNS;
#pragma omp parallel for schedule(static) num_threads(threads_for(c, m->outer * m->chunks * m->c))
  for (int64_t u = 0; u < m->outer * blocks; u++) {
    int64_t o = u / blocks, k = u % blocks * COLUMNS;
    int64_t n = m->c - k < COLUMNS ? m->c - k : COLUMNS;
    for (int part = 0; part < 2; part++) {
      double *sum = s->sum + (o * 2 + part) * m->c + k;
      for (int64_t i = 0; i < n; i++) sum[i] = 0;
      for (int64_t h = 0; h < m->chunks; h++) {
        const float *a = s->part + ((o * m->chunks + h) * 2 + part) * m->c + k;
        DJ__SIMD for (int64_t i = 0; i < n; i++) sum[i] += (double)a[i];
      }
    }
  }
}

/* Gradients of the parameters, and the factors of dx = dy * f0 - f1 - (x - mean) * f2. */
static void grad_factors(const geometry *m, const space *s, const dj__call *c) {
  const float *scale = c->in[1].data, *inv_std = c->in[3].data; // (C), (outer, groups) f32
  float *dscale = c->out[1].data, *dshift = c->out[2].data;     // (C) f32
  const int64_t gc = m->c / m->groups;
  for (int64_t k = 0; k < m->c; k++) {
    double a = 0, b = 0;
    for (int64_t o = 0; o < m->outer; o++) {
      a += s->sum[o * 2 * m->c + k];
      b += s->sum[(o * 2 + 1) * m->c + k] * (double)inv_std[o * m->groups + k / gc];
    }
    dshift[k] = (float)a;
    dscale[k] = (float)b;
  }
  for (int64_t o = 0; o < m->outer; o++) {
    const double *sdy = s->sum + o * 2 * m->c, *sdyx = sdy + m->c;
    float *f = s->factor + o * 3 * m->c;
    for (int64_t g = 0; g < m->groups; g++) {
      double inv = (double)inv_std[o * m->groups + g], n = (double)(m->inner * gc), t = 0, tx = 0;
      for (int64_t k = g * gc; k < (g + 1) * gc; k++) {
        t += sdy[k] * (double)scale[k];
        tx += sdyx[k] * (double)scale[k];
      }
      for (int64_t k = g * gc; k < (g + 1) * gc; k++) {
        f[k] = (float)(inv * (double)scale[k]);
        f[m->c + k] = (float)(inv * t / n);
        f[2 * m->c + k] = (float)(inv * inv * inv * tx / n);
      }
    }
  }
}

DJ__INLINE void apply_grad(const void *x, const void *dy, dj_dtype t, void *dx, dj_dtype td,
                           const channels *h, bool relu, const float *f, int64_t rows, int64_t c) {
  const float *f1 = f + c, *f2 = f1 + c, *mean = h->mean;
  for (int64_t r = 0; r < rows; r++) {
    int64_t base = r * c, k = 0;
    for (; k + VW <= c; k += VW) {
      vf g = v_load(dy, t, base + k), d = v_load(x, t, base + k) - v_load(mean, DJ_F32, k);
      if (relu)
        g = (vf)((vu)g & (vu)(d * v_load(h->before, DJ_F32, k) + v_load(h->shift, DJ_F32, k) > 0));
      v_store(dx, td, base + k,
              g * v_load(f, DJ_F32, k) - v_load(f1, DJ_F32, k) - d * v_load(f2, DJ_F32, k));
    }
    for (; k < c; k++) {
      float g = ld(dy, t, base + k), d = ld(x, t, base + k) - mean[k];
      if (relu && !(d * h->before[k] + h->shift[k] > 0)) g = 0;
      st(dx, td, base + k, g * f[k] - f1[k] - d * f2[k]);
    }
  }
}

DJ__INLINE void unit_grad(const void *x, const void *dy, dj_dtype t, void *dx, dj_dtype td,
                          const channels *h, const float *f, int64_t rows, int64_t c) {
  if (h->before)
    apply_grad(x, dy, t, dx, td, h, true, f, rows, c);
  else
    apply_grad(x, dy, t, dx, td, h, false, f, rows, c);
}

/* x and dy are of one dtype: both follow the precision. */
bool DJ__I(norm_grad_supports)(const dj__call *c) {
  return DJ__I(all_float)(c) && c->in[0].dtype == c->in[4].dtype;
}

/* The mean of every channel, and its forward factor if ReLU is fused. */
static void by_channel(const geometry *m, const space *s, const dj__call *c, bool relu) {
  const float *scale = c->in[1].data;                          // (C) f32
  const float *stat = c->in[2].data, *inv_std = c->in[3].data; // (outer, groups) f32
  for (int64_t i = 0; i < m->outer * m->c; i++) {
    const int64_t group = i / m->c * m->groups + i % m->c / (m->c / m->groups);
    s->mean[i] = stat[group];
    if (relu) s->before[i] = dj__norm_factor(inv_std[group], scale[i % m->c]);
  }
}

dj_status DJ__I(norm_grad)(const dj__call *c, void *self) {
  (void)self;
  const geometry m = geometry_of(c);
  const space s = space_of(&m, c);
  const dj_tensor *x = &c->in[0], *dy = &c->in[4], *dx = &c->out[0]; // (outer, inner, C)
  const bool relu = ((const dj__norm_attr *)c->attr)->relu != 0;
  const int64_t units = m.outer * m.chunks;
  by_channel(&m, &s, c, relu);
  int nt = threads_for(c, m.outer * m.inner * m.c);
#pragma omp parallel for schedule(static) num_threads(nt)
  for (int64_t u = 0; u < units; u++) {
    int64_t first, rows = unit_rows(&m, u, &first);
    float *part = s.part + u * 2 * m.c;
    const channels h = channels_of(&m, &s, c, relu, u / m.chunks);
    DJ__WITH_DTYPE(x->dtype, T,
                   unit_dy_sums(at(x->data, T, first * m.c), at(dy->data, T, first * m.c), T, &h,
                                rows, m.c, part, part + m.c));
  }
  merge_sums(&m, &s, c);
  grad_factors(&m, &s, c);
#pragma omp parallel num_threads(nt)
  {
    const int id = omp_get_thread_num(), team = omp_get_num_threads();
    const int64_t from = part_from(units, team, id);
    for (int64_t u = part_from(units, team, id + 1) - 1; u >= from; u--) {
      int64_t first, rows = unit_rows(&m, u, &first);
      const float *f = s.factor + u / m.chunks * 3 * m.c;
      const channels h = channels_of(&m, &s, c, relu, u / m.chunks);
      DJ__WITH_DTYPE(
          x->dtype, T,
          DJ__WITH_DTYPE(dx->dtype, TD,
                         unit_grad(at(x->data, T, first * m.c), at(dy->data, T, first * m.c), T,
                                   at_w(dx->data, TD, first * m.c), TD, &h, f, rows, m.c)));
    }
  }
  return DJ_OK;
}

/* ---- by rows ---- */
typedef struct row_geometry {
  int64_t rows, c, chunk, chunks; /* rows of a chunk, their number */
} row_geometry;

static row_geometry row_geometry_of(const dj__call *call) {
  const dj_shape *x = &call->in[0].shape;
  row_geometry m = {.rows = 1, .c = x->dim[x->rank - 1]};
  for (int i = 0; i < x->rank - 1; i++) m.rows *= x->dim[i];
  m.chunk = (m.rows + 127) / 128 > 16 ? (m.rows + 127) / 128 : 16;
  m.chunks = (m.rows + m.chunk - 1) / m.chunk;
  return m;
}

/* Three rows of every thread for conversion, then two sums a channel of every chunk. */
size_t DJ__I(row_norm_workspace)(const dj__call *c) {
  row_geometry m = row_geometry_of(c);
  size_t row = (size_t)m.c * sizeof(float);
  size_t threads = (size_t)(c->threads > 1 ? c->threads : 1);
  bool grad = c->op == DJ__OP_layer_norm_grad || c->op == DJ__OP_rms_norm_grad;
  return 3 * row * threads + (grad ? 2 * row * (size_t)m.chunks : 0);
}

/* sum(x - mean) or sum((x - mean)^2), in four accumulators. */
DJ__INLINE float row_sum(const float *x, int64_t n, float mean, bool square) {
  vf s[4] = {v_all(0), v_all(0), v_all(0), v_all(0)};
  int64_t k = 0;
  for (; k + 4 * VW <= n; k += 4 * VW)
    for (int v = 0; v < 4; v++) {
      vf d = v_load(x, DJ_F32, k + v * VW) - mean;
      if (square) d *= d;
      s[v] += d;
    }
  for (; k + VW <= n; k += VW) {
    vf d = v_load(x, DJ_F32, k) - mean;
    if (square) d *= d;
    s[0] += d;
  }
  float sum = 0;
  for (; k < n; k++) sum += square ? (x[k] - mean) * (x[k] - mean) : x[k] - mean;
  return sum + v_sum((s[0] + s[1]) + (s[2] + s[3]));
}

static void row_forward(const dj__call *c, const row_geometry *m, int64_t r, float *buf) {
  const bool rms = c->op == DJ__OP_rms_norm;
  const double eps = (double)((const dj__norm_attr *)c->attr)->eps;
  const float *scale = c->in[1].data, *shift = rms ? NULL : c->in[2].data; // (C) f32
  const float *x = rd(&c->in[0], r * m->c, m->c, buf);
  float *y = wr_at(&c->out[0], r * m->c, buf + m->c);
  float mean = rms ? 0 : row_sum(x, m->c, 0, false) / (float)m->c;
  double var = (double)row_sum(x, m->c, mean, true) / (double)m->c;
  float inv = (float)(1 / sqrt(var + eps));
  if (!rms) ((float *)c->out[1].data)[r] = mean;
  ((float *)c->out[rms ? 1 : 2].data)[r] = inv;
  if (rms) {
    DJ__SIMD for (int64_t k = 0; k < m->c; k++) y[k] = x[k] * inv * scale[k];
  } else {
    DJ__SIMD for (int64_t k = 0; k < m->c; k++) y[k] = (x[k] - mean) * inv * scale[k] + shift[k];
  }
  wr(&c->out[0], r * m->c, m->c, y);
}

dj_status DJ__I(row_norm)(const dj__call *c, void *self) {
  (void)self;
  row_geometry m = row_geometry_of(c);
#pragma omp parallel for schedule(static) num_threads(threads_for(c, m.rows *m.c))
  for (int64_t r = 0; r < m.rows; r++)
    row_forward(c, &m, r, (float *)c->workspace + omp_get_thread_num() * 3 * m.c);
  return DJ_OK;
}

/* dx of a row; adds to dscale (ds) and dshift (db). */
static void row_backward(const dj__call *c, const row_geometry *m, int64_t r, float *buf, float *ds,
                         float *db) {
  const bool rms = c->op == DJ__OP_rms_norm_grad;
  const int64_t n = m->c;
  const float *scale = c->in[1].data; // (C) f32
  const float *x = rd(&c->in[0], r * n, n, buf);
  const float *dy = rd(&c->in[rms ? 3 : 4], r * n, n, buf + n);
  float *dx = wr_at(&c->out[0], r * n, buf + 2 * n);
  const float mean = rms ? 0 : ((const float *)c->in[2].data)[r];
  const float inv = ((const float *)c->in[rms ? 2 : 3].data)[r];
  vf a = v_all(0), b = v_all(0);
  float st_ = 0, sth = 0;
  int64_t k = 0;
  for (; k + VW <= n; k += VW) {
    vf g = v_load(dy, DJ_F32, k), xh = (v_load(x, DJ_F32, k) - mean) * inv;
    vf t = g * v_load(scale, DJ_F32, k);
    a += t;
    b += t * xh;
    v_store(ds, DJ_F32, k, v_load(ds, DJ_F32, k) + g * xh);
    v_store(db, DJ_F32, k, v_load(db, DJ_F32, k) + g);
  }
  for (; k < n; k++) {
    float xh = (x[k] - mean) * inv, t = dy[k] * scale[k];
    st_ += t;
    sth += t * xh;
    ds[k] += dy[k] * xh;
    db[k] += dy[k];
  }
  st_ = rms ? 0 : (st_ + v_sum(a)) / (float)n;
  sth = (sth + v_sum(b)) / (float)n;
  DJ__SIMD for (int64_t i = 0; i < n; i++) dx[i] =
      inv * (dy[i] * scale[i] - st_ - (x[i] - mean) * inv * sth);
  wr(&c->out[0], r * n, n, dx);
}

dj_status DJ__I(row_norm_grad)(const dj__call *c, void *self) {
  (void)self;
  row_geometry m = row_geometry_of(c);
  int nt = threads_for(c, m.rows * m.c);
  float *part =
      (float *)c->workspace + (c->threads > 1 ? c->threads : 1) * 3 * m.c; // (chunks, 2, C)
#pragma omp parallel for schedule(static) num_threads(nt)
  for (int64_t u = 0; u < m.chunks; u++) {
    float *buf = (float *)c->workspace + omp_get_thread_num() * 3 * m.c, *sum = part + u * 2 * m.c;
    memset(sum, 0, (size_t)(2 * m.c) * sizeof *sum);
    int64_t to = (u + 1) * m.chunk < m.rows ? (u + 1) * m.chunk : m.rows;
    for (int64_t r = u * m.chunk; r < to; r++) row_backward(c, &m, r, buf, sum, sum + m.c);
  }
  float *dscale = c->out[1].data, *dshift = c->n_out > 2 ? c->out[2].data : NULL; // (C) f32
#pragma omp parallel for schedule(static) num_threads(threads_for(c, m.chunks *m.c))
  for (int64_t k = 0; k < m.c; k += COLUMNS) {
    double a[COLUMNS] = {0}, b[COLUMNS] = {0};
    int64_t n = m.c - k < COLUMNS ? m.c - k : COLUMNS;
    for (int64_t u = 0; u < m.chunks; u++) {
      const float *sum = part + u * 2 * m.c + k;
      for (int64_t i = 0; i < n; i++) a[i] += (double)sum[i], b[i] += (double)sum[m.c + i];
    }
    for (int64_t i = 0; i < n; i++) dscale[k + i] = (float)a[i];
    for (int64_t i = 0; i < n && dshift; i++) dshift[k + i] = (float)b[i];
  }
  return DJ_OK;
}
