/*
 * What the own kernels share: names per instruction set, loads and stores with conversion, sizes of
 * work. Every file here is compiled once per instruction set with DJ_ISA defined; all that has
 * external linkage must be named with DJ__I(), or the sets would mix.
 *
 * Work is split over threads by static schedules over units (rows, blocks of elements, channels)
 * whose arithmetic does not depend on the split; where partial sums are needed, their number is a
 * function of the shape. So results do not depend on the number of threads.
 */
#ifndef DOJO_ISA_H
#define DOJO_ISA_H

#include <omp.h>

#include "backend/cpu/cpu.h"

#define DJ__CAT2(a, b) a##_##b
#define DJ__CAT(a, b)  DJ__CAT2(a, b)
#define DJ__I(name)    DJ__CAT(dj__##name, DJ_ISA)
#define DJ__STR2(a)    #a
#define DJ__STR(a)     DJ__STR2(a)

#define DJ__INLINE static inline __attribute__((always_inline, unused))
#define DJ__SIMD   _Pragma("omp simd")

/* One float element of a tensor of dtype t as f32. Called with a constant t, the branch is folded
 * and loops over it vectorise. */
DJ__INLINE float ld(const void *p, dj_dtype t, int64_t i) {
  if (t == DJ_F32) return ((const float *)p)[i];
  if (t == DJ_BF16) {
    union {
      uint32_t u;
      float f;
    } x = {.u = (uint32_t)((const uint16_t *)p)[i] << 16};
    return x.f;
  }
  if (t == DJ_I32) return (float)((const int32_t *)p)[i];
  return (float)((const uint8_t *)p)[i];
}
DJ__INLINE uint16_t to_bf16(float f) {
  union {
    float f;
    uint32_t u;
  } x = {.f = f};
  uint32_t rounded = (x.u + 0x7fffu + ((x.u >> 16) & 1u)) >> 16;
  return (uint16_t)((x.u & 0x7fffffffu) > 0x7f800000u ? (x.u >> 16) | 0x40u : rounded);
}
DJ__INLINE void st(void *p, dj_dtype t, int64_t i, float v) {
  if (t == DJ_F32)
    ((float *)p)[i] = v;
  else
    ((uint16_t *)p)[i] = to_bf16(v);
}

/* Bytes from the start of a tensor of dtype t to element i. */
DJ__INLINE const void *at(const void *p, dj_dtype t, int64_t i) {
  return (const char *)p + (size_t)i * dj_dtype_size(t);
}
DJ__INLINE void *at_w(void *p, dj_dtype t, int64_t i) {
  return (char *)p + (size_t)i * dj_dtype_size(t);
}

DJ__INLINE bool is_float(const dj_tensor *t) {
  return t->dtype == DJ_F32 || t->dtype == DJ_BF16;
}
DJ__INLINE bool present(const dj__call *c, int i) {
  return i < c->n_in && c->in[i].shape.rank >= 0;
}

/* Calls fn(..., xt) with constant xt so that the inlined body is specialised. */
#define DJ__WITH_DTYPE(t, T, call)                                                                 \
  do {                                                                                             \
    if ((t) == DJ_F32) {                                                                           \
      const dj_dtype T = DJ_F32;                                                                   \
      call;                                                                                        \
    } else {                                                                                       \
      const dj_dtype T = DJ_BF16;                                                                  \
      call;                                                                                        \
    }                                                                                              \
  } while (0)

/* Threads for `work` elements touched: all or one. */
DJ__INLINE int threads_for(const dj__call *c, int64_t work) {
  return work < dj__worth_threads || c->threads < 1 ? 1 : c->threads;
}

/* n units split in `parts`: part i is [from, to). */
DJ__INLINE int64_t part_from(int64_t n, int64_t parts, int64_t i) {
  return n / parts * i + (i < n % parts ? i : n % parts);
}

/* Contiguous conversion of one block (no threads): src and dst do not overlap. */
void DJ__I(load_block)(float *dst, const void *src, dj_dtype t, int64_t n);
void DJ__I(store_block)(void *dst, dj_dtype t, const float *src, int64_t n);

/* ewise.c */
void DJ__I(convert)(void *dst, dj_dtype dt, const void *src, dj_dtype stype, int64_t n,
                    int threads);
dj_status DJ__I(cast_run)(const dj__call *c, void *self);
bool DJ__I(ewise_supports)(const dj__call *c);
size_t DJ__I(ewise_workspace)(const dj__call *c);
dj_status DJ__I(ewise_run)(const dj__call *c, void *self);
/* pack.c: dj__backend.pack */
void DJ__I(pack)(const dj__layout *l, void *copy, const float *w, int64_t from, int64_t to);
void DJ__I(post)(void *y, dj_dtype yt, int64_t rows, int64_t n, const void *bias, dj_dtype bt,
                 int act, int threads);

#endif
