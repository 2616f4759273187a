/*
 * Max and average pooling of (N, H, W, C), forward and backward (definitions: engine/ops/pool.c).
 * Channels are the vectors. All tensors of a call have one dtype; sums are f32.
 *
 * The backward passes gather: a thread owns rows of dx and looks for the windows that touch them,
 * in the order of the windows, so that overlapping windows need no locks and the sum does not
 * depend on who owns what.
 */
#include "backend/cpu/isa/nn.h"

enum { BAND = 32768 }; /* elements of dx in a band: they stay in second-level cache */

typedef struct geometry {
  int64_t n, h, w, c, oh, ow;
  int64_t kh, kw, sh, sw, pt, pl;
  int64_t band, bands; /* rows of dx in a band of max_pool_grad, bands of an image */
} geometry;

static geometry geometry_of(const dj__call *call) {
  const dj__pool_attr *a = call->attr;
  bool grad = call->op == DJ__OP_max_pool_grad || call->op == DJ__OP_avg_pool_grad;
  const dj_tensor *small = call->op == DJ__OP_max_pool_grad   ? &call->in[2]
                           : call->op == DJ__OP_avg_pool_grad ? &call->in[0]
                                                              : &call->out[0];
  const int64_t *x = grad ? call->out[0].shape.dim : call->in[0].shape.dim, *y = small->shape.dim;
  geometry m = {.n = x[0], .h = x[1], .w = x[2], .c = x[3], .oh = y[1], .ow = y[2]};
  m.kh = a->kernel[0], m.kw = a->kernel[1];
  m.sh = a->stride[0], m.sw = a->stride[1];
  m.pt = a->pad[0], m.pl = a->pad[1];
  int64_t strides = BAND / (m.sh * m.w * m.c);
  m.band = m.sh * (strides > 1 ? strides : 1);
  if (m.band > m.h) m.band = m.h;
  m.bands = (m.h + m.band - 1) / m.band;
  return m;
}

bool DJ__I(one_float)(const dj__call *c) {
  for (int i = 1; i < c->n_in; i++)
    if (c->in[i].dtype != c->in[0].dtype) return false;
  for (int k = 0; k < c->n_out; k++)
    if (c->out[k].dtype != c->in[0].dtype) return false;
  return is_float(&c->in[0]);
}

typedef struct window {
  int64_t h0, h1, w0, w1; /* pixels inside the image, end exclusive */
} window;

static window window_at(const geometry *m, int64_t oh, int64_t ow) {
  int64_t h0 = oh * m->sh - m->pt, w0 = ow * m->sw - m->pl;
  int64_t h1 = h0 + m->kh, w1 = w0 + m->kw;
  return (window){h0 > 0 ? h0 : 0, h1 < m->h ? h1 : m->h, w0 > 0 ? w0 : 0, w1 < m->w ? w1 : m->w};
}

/* ---- max pooling ---- */
DJ__INLINE void max_window(const geometry *m, const window *p, const void *x, dj_dtype t, void *y) {
  int64_t k = 0;
  for (; k + VW <= m->c; k += VW) {
    vf best = v_load(x, t, (p->h0 * m->w + p->w0) * m->c + k);
    for (int64_t i = p->h0; i < p->h1; i++)
      for (int64_t j = p->w0; j < p->w1; j++)
        best = v_max(best, v_load(x, t, (i * m->w + j) * m->c + k));
    v_store(y, t, k, best);
  }
  for (; k < m->c; k++) {
    float best = ld(x, t, (p->h0 * m->w + p->w0) * m->c + k);
    for (int64_t i = p->h0; i < p->h1; i++)
      for (int64_t j = p->w0; j < p->w1; j++) {
        float v = ld(x, t, (i * m->w + j) * m->c + k);
        best = v > best || v != v ? v : best;
      }
    st(y, t, k, best);
  }
}

dj_status DJ__I(max_pool)(const dj__call *c, void *self) {
  (void)self;
  geometry m = geometry_of(c);
  const dj_dtype t = c->in[0].dtype;
#pragma omp parallel for schedule(static) num_threads(threads_for(c, m.n *m.h *m.w *m.c * 4))
  for (int64_t u = 0; u < m.n * m.oh; u++) {
    const void *x = at(c->in[0].data, t, u / m.oh * m.h * m.w * m.c); // (H, W, C)
    void *y = at_w(c->out[0].data, t, u * m.ow * m.c);                // (OW, C)
    for (int64_t j = 0; j < m.ow; j++) {
      window p = window_at(&m, u % m.oh, j);
      DJ__WITH_DTYPE(t, T, max_window(&m, &p, x, T, at_w(y, T, j * m.c)));
    }
  }
  return DJ_OK;
}

size_t DJ__I(max_pool_grad_workspace)(const dj__call *c) {
  geometry m = geometry_of(c);
  if (c->out[0].dtype == DJ_F32) return 0;
  return (size_t)(c->threads > 1 ? c->threads : 1) * (size_t)(m.band * m.w * m.c) * sizeof(float);
}

/* Adds dy (C) of one window to the first maximum of each channel, in rows from .. to of the image.
 * dx (to - from, W, C) f32 */
DJ__INLINE void max_window_grad(const geometry *m, const window *p, const void *x, const void *dy,
                                dj_dtype t, float *dx, int64_t from, int64_t to) {
  const int64_t h0 = p->h0 > from ? p->h0 : from, h1 = p->h1 < to ? p->h1 : to;
  int64_t k = 0;
  for (; k + VW <= m->c; k += VW) {
    vf best = v_load(x, t, (p->h0 * m->w + p->w0) * m->c + k), g = v_load(dy, t, k);
    vu place = {0}; /* of the maximum: row * kernel width + column, within the window */
    for (int64_t i = p->h0; i < p->h1; i++)
      for (int64_t j = p->w0; j < p->w1; j++) {
        vf v = v_load(x, t, (i * m->w + j) * m->c + k);
        vu wins = (vu)(v > best) | ((vu)(v != v) & (vu)(best == best));
        vu here = (vu){0} + (uint32_t)((i - p->h0) * m->kw + j - p->w0);
        best = v_pick(wins, v, best);
        place = (wins & here) | (~wins & place);
      }
    for (int64_t i = h0; i < h1; i++)
      for (int64_t j = p->w0; j < p->w1; j++) {
        vu here = (vu){0} + (uint32_t)((i - p->h0) * m->kw + j - p->w0);
        float *d = dx + ((i - from) * m->w + j) * m->c + k;
        v_store(d, DJ_F32, 0, v_load(d, DJ_F32, 0) + (vf)((vu)g & (vu)(place == here)));
      }
  }
  for (; k < m->c; k++) {
    int64_t best_i = p->h0, best_j = p->w0;
    float best = ld(x, t, (p->h0 * m->w + p->w0) * m->c + k);
    for (int64_t i = p->h0; i < p->h1; i++)
      for (int64_t j = p->w0; j < p->w1; j++) {
        float v = ld(x, t, (i * m->w + j) * m->c + k);
        if (v > best || (v != v && best == best)) best = v, best_i = i, best_j = j;
      }
    if (best_i >= from && best_i < to)
      dx[((best_i - from) * m->w + best_j) * m->c + k] += ld(dy, t, k);
  }
}

/* Rows from .. to of dx of one image. x (H, W, C), dy (OH, OW, C), dx (to - from, W, C) f32 */
DJ__INLINE void max_band_grad(const geometry *m, const void *x, const void *dy, dj_dtype t,
                              float *dx, int64_t from, int64_t to) {
  memset(dx, 0, (size_t)((to - from) * m->w * m->c) * sizeof *dx);
  int64_t first = from + m->pt - m->kh + 1; /* windows that end behind row `from` */
  first = first > 0 ? (first + m->sh - 1) / m->sh : 0;
  for (int64_t i = first; i < m->oh && i * m->sh - m->pt < to; i++)
    for (int64_t j = 0; j < m->ow; j++) {
      window p = window_at(m, i, j);
      max_window_grad(m, &p, x, at(dy, t, (i * m->ow + j) * m->c), t, dx, from, to);
    }
}

dj_status DJ__I(max_pool_grad)(const dj__call *c, void *self) {
  (void)self;
  geometry m = geometry_of(c);
  const dj_dtype t = c->in[0].dtype;
#pragma omp parallel for schedule(static) num_threads(threads_for(c, m.n *m.h *m.w *m.c * 4))
  for (int64_t u = 0; u < m.n * m.bands; u++) {
    int64_t n = u / m.bands, from = u % m.bands * m.band;
    int64_t to = from + m.band < m.h ? from + m.band : m.h, len = (to - from) * m.w * m.c;
    void *out = at_w(c->out[0].data, t, (n * m.h + from) * m.w * m.c);
    float *dx =
        t == DJ_F32 ? out : (float *)c->workspace + omp_get_thread_num() * m.band * m.w * m.c;
    DJ__WITH_DTYPE(t, T,
                   max_band_grad(&m, at(c->in[0].data, T, n * m.h * m.w * m.c),
                                 at(c->in[2].data, T, n * m.oh * m.ow * m.c), T, dx, from, to));
    if (t == DJ_BF16) DJ__I(store_block)(out, t, dx, len);
  }
  return DJ_OK;
}

/* ---- average pooling ---- */
DJ__INLINE void avg_window(const geometry *m, const window *p, const void *x, dj_dtype t, void *y) {
  const float share = 1.0f / (float)((p->h1 - p->h0) * (p->w1 - p->w0));
  int64_t k = 0;
  for (; k + VW <= m->c; k += VW) {
    vf sum = v_all(0);
    for (int64_t i = p->h0; i < p->h1; i++)
      for (int64_t j = p->w0; j < p->w1; j++) sum += v_load(x, t, (i * m->w + j) * m->c + k);
    v_store(y, t, k, sum * share);
  }
  for (; k < m->c; k++) {
    float sum = 0;
    for (int64_t i = p->h0; i < p->h1; i++)
      for (int64_t j = p->w0; j < p->w1; j++) sum += ld(x, t, (i * m->w + j) * m->c + k);
    st(y, t, k, sum * share);
  }
}

dj_status DJ__I(avg_pool)(const dj__call *c, void *self) {
  (void)self;
  geometry m = geometry_of(c);
  const dj_dtype t = c->in[0].dtype;
#pragma omp parallel for schedule(static) num_threads(threads_for(c, m.n *m.h *m.w *m.c * 4))
  for (int64_t u = 0; u < m.n * m.oh; u++) {
    const void *x = at(c->in[0].data, t, u / m.oh * m.h * m.w * m.c); // (H, W, C)
    void *y = at_w(c->out[0].data, t, u * m.ow * m.c);                // (OW, C)
    for (int64_t j = 0; j < m.ow; j++) {
      window p = window_at(&m, u % m.oh, j);
      DJ__WITH_DTYPE(t, T, avg_window(&m, &p, x, T, at_w(y, T, j * m.c)));
    }
  }
  return DJ_OK;
}

/* Windows along one axis that hold pixel i: [from, to). */
typedef struct span {
  int64_t from, to;
} span;

static span windows_over(int64_t i, int64_t kernel, int64_t stride, int64_t pad, int64_t n_out) {
  int64_t first = i + pad - kernel + 1, last = (i + pad) / stride;
  return (span){first > 0 ? (first + stride - 1) / stride : 0, last < n_out ? last + 1 : n_out};
}

/* dx (C) of pixel (h, w) from dy (OH, OW, C) of its image */
DJ__INLINE void avg_pixel_grad(const geometry *m, span r, span q, const void *dy, dj_dtype t,
                               void *dx) {
  int64_t k = 0;
  for (; k + VW <= m->c; k += VW) {
    vf sum = v_all(0);
    for (int64_t i = r.from; i < r.to; i++)
      for (int64_t j = q.from; j < q.to; j++) {
        window p = window_at(m, i, j);
        float share = 1.0f / (float)((p.h1 - p.h0) * (p.w1 - p.w0));
        sum += share * v_load(dy, t, (i * m->ow + j) * m->c + k);
      }
    v_store(dx, t, k, sum);
  }
  for (; k < m->c; k++) {
    float sum = 0;
    for (int64_t i = r.from; i < r.to; i++)
      for (int64_t j = q.from; j < q.to; j++) {
        window p = window_at(m, i, j);
        sum += ld(dy, t, (i * m->ow + j) * m->c + k) / (float)((p.h1 - p.h0) * (p.w1 - p.w0));
      }
    st(dx, t, k, sum);
  }
}

dj_status DJ__I(avg_pool_grad)(const dj__call *c, void *self) {
  (void)self;
  geometry m = geometry_of(c);
  const dj_dtype t = c->in[0].dtype;
#pragma omp parallel for schedule(static) num_threads(threads_for(c, m.n *m.h *m.w *m.c * 4))
  for (int64_t u = 0; u < m.n * m.h; u++) {
    const void *dy = at(c->in[0].data, t, u / m.h * m.oh * m.ow * m.c); // (OH, OW, C)
    void *dx = at_w(c->out[0].data, t, u * m.w * m.c);                  // (W, C)
    span r = windows_over(u % m.h, m.kh, m.sh, m.pt, m.oh);
    for (int64_t w = 0; w < m.w; w++) {
      span q = windows_over(w, m.kw, m.sw, m.pl, m.ow);
      DJ__WITH_DTYPE(t, T, avg_pixel_grad(&m, r, q, dy, T, at_w(dx, T, w * m.c)));
    }
  }
  return DJ_OK;
}
