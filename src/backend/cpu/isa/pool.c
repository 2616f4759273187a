/*
 * Max and average pooling of (N, H, W, C), forward and backward (definitions: engine/ops/pool.c).
 * Channels are the vectors, or, where images have one channel, columns. All float tensors of a call
 * have one dtype; sums are f32.
 *
 * The backward passes gather: every pixel of dx sums over the windows that hold it, in their order,
 * so that overlapping windows need no locks and nothing is written twice.
 */
#include "backend/cpu/isa/nn.h"

enum { FEW = 4 }; /* windows over a pixel that are listed */

typedef struct geometry {
  int64_t n, h, w, c, oh, ow;
  int64_t kh, kw, sh, sw, pt, pl;
} geometry;

static geometry geometry_of(const dj__call *call) {
  const dj__pool_attr *a = call->attr;
  bool grad = call->op == DJ__OP_max_pool_grad || call->op == DJ__OP_avg_pool_grad;
  const dj_tensor *small = call->op == DJ__OP_max_pool_grad   ? &call->in[1]
                           : call->op == DJ__OP_avg_pool_grad ? &call->in[0]
                                                              : &call->out[0];
  const int64_t *x = grad ? call->out[0].shape.dim : call->in[0].shape.dim, *y = small->shape.dim;
  geometry m = {.n = x[0], .h = x[1], .w = x[2], .c = x[3], .oh = y[1], .ow = y[2]};
  m.kh = a->kernel[0], m.kw = a->kernel[1];
  m.sh = a->stride[0], m.sw = a->stride[1];
  m.pt = a->pad[0], m.pl = a->pad[1];
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

/* Windows along one axis that hold pixel i: [from, to). */
typedef struct span {
  int64_t from, to;
} span;

static span windows_over(int64_t i, int64_t kernel, int64_t stride, int64_t pad, int64_t n_out) {
  int64_t first = i + pad - kernel + 1, last = (i + pad) / stride;
  return (span){first > 0 ? (first + stride - 1) / stride : 0, last < n_out ? last + 1 : n_out};
}

/* ---- max pooling ---- */
typedef uint8_t vb __attribute__((vector_size(VW), aligned(1), may_alias));

bool DJ__I(max_pool_supports)(const dj__call *c) {
  return is_float(&c->in[0]) && c->out[0].dtype == c->in[0].dtype;
}
bool DJ__I(max_pool_grad_supports)(const dj__call *c) {
  return is_float(&c->in[1]) && c->out[0].dtype == c->in[1].dtype;
}

DJ__INLINE vu places(const void *p, dj_dtype t, int64_t i) {
#if defined DJ_ISA_avx512
  if (t == DJ_U8)
    return (vu)_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)((const uint8_t *)p + i)));
#elif defined DJ_ISA_avx2
  if (t == DJ_U8)
    return (vu)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)((const uint8_t *)p + i)));
#else
  if (t == DJ_U8) return __builtin_convertvector(*(const vb *)((const uint8_t *)p + i), vu);
#endif
  return *(const vu *)((const int32_t *)p + i);
}
/* sum + v in lanes where the place is `code`. */
DJ__INLINE vf add_claim(vf sum, vf v, vu place, uint32_t code) {
#if defined DJ_ISA_avx512
  const __mmask16 here = _mm512_cmpeq_epi32_mask((__m512i)place, _mm512_set1_epi32((int32_t)code));
  return (vf)_mm512_mask_add_ps((__m512)sum, here, (__m512)sum, (__m512)v);
#else
  return sum + (vf)((vu)v & (vu)(place == code));
#endif
}
/* Takes v, from place `code`, where it is larger than the best so far, or the first NaN. */
DJ__INLINE void take_larger(vf *best, vu *where, vf v, uint32_t code) {
#if defined DJ_ISA_avx512
  const __m512 b = (__m512)*best;
  const __mmask16 wins =
      _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(b, b, _CMP_ORD_Q), (__m512)v, b, _CMP_NLE_UQ);
  *best = (vf)_mm512_mask_mov_ps(b, wins, (__m512)v);
  *where = (vu)_mm512_mask_set1_epi32((__m512i)*where, wins, (int32_t)code);
#else
  const vu wins = (vu)(v > *best) | ((vu)(v != v) & (vu)(*best == *best));
  *best = v_pick(wins, v, *best);
  *where = (wins & code) | (~wins & *where);
#endif
}
DJ__INLINE void set_places(void *p, dj_dtype t, int64_t i, vu v) {
  if (t == DJ_U8)
    *(vb *)((uint8_t *)p + i) = __builtin_convertvector(v, vb);
  else
    *(vu *)((int32_t *)p + i) = v;
}

/* y and place (C) of the window whose first pixel, padding included, is (top, left). x (H, W, C) */
DJ__INLINE void max_window(const geometry *m, const window *p, int64_t top, int64_t left,
                           const void *x, dj_dtype t, void *y, void *place, dj_dtype tp) {
  int64_t k = 0;
  const uint32_t first = (uint32_t)((p->h0 - top) * m->kw + p->w0 - left);
  for (; k + VW <= m->c; k += VW) {
    vf best = v_load(x, t, (p->h0 * m->w + p->w0) * m->c + k);
    vu where = (vu){0} + first;
    for (int64_t i = p->h0; i < p->h1; i++)
      for (int64_t j = p->w0; j < p->w1; j++) {
        const vf v = v_load(x, t, (i * m->w + j) * m->c + k);
        take_larger(&best, &where, v, (uint32_t)((i - top) * m->kw + j - left));
      }
    v_store(y, t, k, best);
    set_places(place, tp, k, where);
  }
  for (; k < m->c; k++) {
    float best = ld(x, t, (p->h0 * m->w + p->w0) * m->c + k);
    int64_t where = first;
    for (int64_t i = p->h0; i < p->h1; i++)
      for (int64_t j = p->w0; j < p->w1; j++) {
        float v = ld(x, t, (i * m->w + j) * m->c + k);
        if (v > best || (v != v && best == best)) best = v, where = (i - top) * m->kw + j - left;
      }
    st(y, t, k, best);
    if (tp == DJ_U8)
      ((uint8_t *)place)[k] = (uint8_t)where;
    else
      ((int32_t *)place)[k] = (int32_t)where;
  }
}

dj_status DJ__I(max_pool)(const dj__call *c, void *self) {
  (void)self;
  geometry m = geometry_of(c);
  const dj_dtype t = c->in[0].dtype, tp = c->out[1].dtype;
#pragma omp parallel for schedule(static) num_threads(threads_for(c, m.n *m.h *m.w *m.c * 4))
  for (int64_t u = 0; u < m.n * m.oh; u++) {
    const void *x = at(c->in[0].data, t, u / m.oh * m.h * m.w * m.c); // (H, W, C)
    void *y = at_w(c->out[0].data, t, u * m.ow * m.c);                // (OW, C)
    void *place = at_w(c->out[1].data, tp, u * m.ow * m.c);           // (OW, C)
    const int64_t top = u % m.oh * m.sh - m.pt;
    for (int64_t j = 0; j < m.ow; j++) {
      window p = window_at(&m, u % m.oh, j);
      const int64_t left = j * m.sw - m.pl, to = j * m.c;
      if (tp == DJ_U8)
        DJ__WITH_DTYPE(
            t, T,
            max_window(&m, &p, top, left, x, T, at_w(y, T, to), at_w(place, DJ_U8, to), DJ_U8));
      else
        DJ__WITH_DTYPE(
            t, T,
            max_window(&m, &p, top, left, x, T, at_w(y, T, to), at_w(place, DJ_I32, to), DJ_I32));
    }
  }
  return DJ_OK;
}

/* A window over a pixel: its dy and places (C), and the pixel's place in it. */
typedef struct claim {
  const void *dy, *place;
  uint32_t code;
} claim;

/* dx (C) of a pixel from n claims on it (a constant where it is inlined). */
DJ__INLINE void pixel_grad(const claim *w, const int n, int64_t c, dj_dtype t, dj_dtype tp,
                           void *dx) {
  int64_t k = 0;
  for (; k + VW <= c; k += VW) {
    vf sum = v_all(0);
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
      sum = add_claim(sum, v_load(w[i].dy, t, k), places(w[i].place, tp, k), w[i].code);
    v_store(dx, t, k, sum);
  }
  for (; k < c; k++) {
    float sum = 0;
    for (int i = 0; i < n; i++) {
      const int64_t got =
          tp == DJ_U8 ? ((const uint8_t *)w[i].place)[k] : ((const int32_t *)w[i].place)[k];
      sum += got == (int64_t)w[i].code ? ld(w[i].dy, t, k) : 0;
    }
    st(dx, t, k, sum);
  }
}

/* The same from the windows (r, q) over pixel (h, x), however many: dy and places (OH, OW, C). */
DJ__INLINE void many_grad(const geometry *m, int64_t h, int64_t x, span r, span q,
                          const void *place, dj_dtype tp, const void *dy, dj_dtype t, void *dx) {
  for (int64_t k = 0; k < m->c; k++) {
    float sum = 0;
    for (int64_t i = r.from; i < r.to; i++)
      for (int64_t j = q.from; j < q.to; j++) {
        const int64_t o = (i * m->ow + j) * m->c + k;
        const int64_t code = (h - i * m->sh + m->pt) * m->kw + x - j * m->sw + m->pl;
        const int64_t got = tp == DJ_U8 ? ((const uint8_t *)place)[o] : ((const int32_t *)place)[o];
        sum += got == code ? ld(dy, t, o) : 0;
      }
    st(dx, t, k, sum);
  }
}

/* Row h of dx (W, C) of an image from its dy and places (OH, OW, C). */
DJ__INLINE void max_row_grad(const geometry *m, int64_t h, const void *place, dj_dtype tp,
                             const void *dy, dj_dtype t, void *dx) {
  const span r = windows_over(h, m->kh, m->sh, m->pt, m->oh);
  for (int64_t x = 0; x < m->w; x++) {
    const span q = windows_over(x, m->kw, m->sw, m->pl, m->ow);
    claim all[FEW];
    int n = 0;
    const int64_t count = r.to > r.from && q.to > q.from ? (r.to - r.from) * (q.to - q.from) : 0;
    void *to = at_w(dx, t, x * m->c);
    if (count > FEW) {
      many_grad(m, h, x, r, q, place, tp, dy, t, to);
      continue;
    }
    for (int64_t i = r.from; i < r.to; i++)
      for (int64_t j = q.from; j < q.to; j++) {
        const int64_t o = (i * m->ow + j) * m->c;
        const int64_t code = (h - i * m->sh + m->pt) * m->kw + x - j * m->sw + m->pl;
        all[n++] = (claim){at(dy, t, o), at(place, tp, o), (uint32_t)code};
      }
    if (n == 1)
      pixel_grad(all, 1, m->c, t, tp, to);
    else if (n == 2)
      pixel_grad(all, 2, m->c, t, tp, to);
    else if (n == 4)
      pixel_grad(all, 4, m->c, t, tp, to);
    else
      pixel_grad(all, n, m->c, t, tp, to);
  }
}

dj_status DJ__I(max_pool_grad)(const dj__call *c, void *self) {
  (void)self;
  geometry m = geometry_of(c);
  const dj_dtype t = c->in[1].dtype, tp = c->in[0].dtype;
#pragma omp parallel for schedule(static) num_threads(threads_for(c, m.n *m.h *m.w *m.c * 4))
  for (int64_t u = 0; u < m.n * m.h; u++) {
    const void *place = at(c->in[0].data, tp, u / m.h * m.oh * m.ow * m.c); // (OH, OW, C)
    const void *dy = at(c->in[1].data, t, u / m.h * m.oh * m.ow * m.c);     // (OH, OW, C)
    void *dx = at_w(c->out[0].data, t, u * m.w * m.c);                      // (W, C)
    if (tp == DJ_U8)
      DJ__WITH_DTYPE(t, T, max_row_grad(&m, u % m.h, place, DJ_U8, dy, T, dx));
    else
      DJ__WITH_DTYPE(t, T, max_row_grad(&m, u % m.h, place, DJ_I32, dy, T, dx));
  }
  return DJ_OK;
}

/* ---- average pooling ---- */
/* Sum of a window of an image of one channel, (H, W). */
DJ__INLINE float sum_window(const geometry *m, const window *p, const void *x, dj_dtype t) {
  vf sum = v_all(0);
  float rest = 0;
  for (int64_t i = p->h0; i < p->h1; i++) {
    int64_t j = i * m->w + p->w0, end = i * m->w + p->w1;
    for (; j + VW <= end; j += VW) sum += v_load(x, t, j);
    for (; j < end; j++) rest += ld(x, t, j);
  }
  return v_sum(sum) + rest;
}

DJ__INLINE void avg_window(const geometry *m, const window *p, const void *x, dj_dtype t, void *y) {
  const float share = 1.0f / (float)((p->h1 - p->h0) * (p->w1 - p->w0));
  int64_t k = 0;
  if (m->c == 1) {
    st(y, t, 0, sum_window(m, p, x, t) * share);
    return;
  }
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
