/*
 * Own kernels of the network ops: their list (declared here, registered in table.c), and reading
 * and writing of short runs of a tensor as f32, for kernels whose arithmetic outweighs a conversion
 * through first-level cache. Kernels that only move data take the dtypes as constants instead
 * (DJ__WITH_DTYPE).
 */
#ifndef DOJO_NN_H
#define DOJO_NN_H

#if defined DJ_ISA_avx2 || defined DJ_ISA_avx512
#include <immintrin.h>
#endif

#include "backend/cpu/isa/isa.h"
#include "engine/attrs.h"

/* X(op, run, supports, workspace) */
#define DJ__NN_KERNELS(X)                                                                          \
  X(gru_cell, DJ__I(gru_cell), DJ__I(all_float), NULL)                                             \
  X(gru_cell_grad, DJ__I(gru_cell_grad), DJ__I(all_float), NULL)                                   \
  X(batch_norm, DJ__I(norm), DJ__I(norm_supports), DJ__I(norm_workspace))                          \
  X(batch_norm_grad, DJ__I(norm_grad), DJ__I(norm_grad_supports), DJ__I(norm_workspace))           \
  X(group_norm, DJ__I(norm), DJ__I(all_float), DJ__I(norm_workspace))                              \
  X(group_norm_grad, DJ__I(norm_grad), DJ__I(norm_grad_supports), DJ__I(norm_workspace))           \
  X(layer_norm, DJ__I(row_norm), DJ__I(all_float), DJ__I(row_norm_workspace))                      \
  X(layer_norm_grad, DJ__I(row_norm_grad), DJ__I(all_float), DJ__I(row_norm_workspace))            \
  X(rms_norm, DJ__I(row_norm), DJ__I(all_float), DJ__I(row_norm_workspace))                        \
  X(rms_norm_grad, DJ__I(row_norm_grad), DJ__I(all_float), DJ__I(row_norm_workspace))              \
  X(softmax, DJ__I(softmax), DJ__I(all_f32), NULL)                                                 \
  X(softmax_grad, DJ__I(softmax_grad), DJ__I(all_f32), NULL)                                       \
  X(log_softmax, DJ__I(log_softmax), DJ__I(all_f32), NULL)                                         \
  X(log_softmax_grad, DJ__I(log_softmax_grad), DJ__I(all_f32), NULL)                               \
  X(cross_entropy, DJ__I(cross_entropy), DJ__I(cross_entropy_supports), NULL)                      \
  X(cross_entropy_grad, DJ__I(cross_entropy_grad), DJ__I(cross_entropy_supports), NULL)            \
  X(max_pool, DJ__I(max_pool), DJ__I(max_pool_supports), NULL)                                     \
  X(max_pool_grad, DJ__I(max_pool_grad), DJ__I(max_pool_grad_supports), NULL)                      \
  X(avg_pool, DJ__I(avg_pool), DJ__I(one_float), NULL)                                             \
  X(avg_pool_grad, DJ__I(avg_pool_grad), DJ__I(one_float), NULL)                                   \
  X(resize, DJ__I(resize), DJ__I(one_float), DJ__I(resize_workspace))                              \
  X(resize_grad, DJ__I(resize_grad), DJ__I(one_float), DJ__I(resize_workspace))                    \
  X(grid_sample, DJ__I(grid_sample), DJ__I(grid_supports), NULL)                                   \
  X(grid_sample_grad, DJ__I(grid_sample_grad), DJ__I(grid_supports), DJ__I(grid_grad_workspace))   \
  X(attention, DJ__I(attention), DJ__I(all_float), DJ__I(attention_workspace))                     \
  X(attention_grad, DJ__I(attention_grad), DJ__I(all_float), DJ__I(attention_grad_workspace))      \
  X(matmul, DJ__I(few_rows_run), DJ__I(few_rows_supports), DJ__I(few_rows_workspace))              \
  X(rotary, DJ__I(rotary_run), DJ__I(rotary_supports), DJ__I(rotary_workspace))                    \
  X(attention_cached, DJ__I(attention_cached_run), DJ__I(attention_cached_supports),               \
    DJ__I(attention_cached_workspace))

#define DJ__X(op, run, supports, workspace) dj_status run(const dj__call *c, void *self);
DJ__NN_KERNELS(DJ__X)
#undef DJ__X
bool DJ__I(max_pool_supports)(const dj__call *c);
bool DJ__I(max_pool_grad_supports)(const dj__call *c);
float DJ__I(fma_loop)(int64_t rounds, double *flops); /* peak.c */
void DJ__I(fill_normal)(float *x, int64_t n, float std, uint64_t key, uint64_t stream, int threads);
size_t DJ__I(attention_workspace)(const dj__call *c);
size_t DJ__I(attention_grad_workspace)(const dj__call *c);
dj_status DJ__I(matvec_run)(const dj__call *c, void *self);
size_t DJ__I(few_rows_workspace)(const dj__call *c);
bool DJ__I(few_rows_supports)(const dj__call *c);
size_t DJ__I(matvec_workspace)(const dj__call *c);
bool DJ__I(matvec_supports)(const dj__call *c);
size_t DJ__I(rotary_workspace)(const dj__call *c);
bool DJ__I(rotary_supports)(const dj__call *c);
size_t DJ__I(attention_cached_workspace)(const dj__call *c);
bool DJ__I(attention_cached_supports)(const dj__call *c);
size_t DJ__I(resize_workspace)(const dj__call *c);
size_t DJ__I(grid_grad_workspace)(const dj__call *c);
bool DJ__I(norm_supports)(const dj__call *c);
bool DJ__I(norm_grad_supports)(const dj__call *c);
bool DJ__I(grid_supports)(const dj__call *c);
bool DJ__I(cross_entropy_supports)(const dj__call *c);
size_t DJ__I(norm_workspace)(const dj__call *c);
size_t DJ__I(row_norm_workspace)(const dj__call *c);

/* Every tensor is f32 or bf16: in any mix; all alike. Every tensor is f32. */
bool DJ__I(all_float)(const dj__call *c);
bool DJ__I(one_float)(const dj__call *c);
bool DJ__I(all_f32)(const dj__call *c);

/* ---- explicit vectors, where accumulators must stay in registers ---- */
#if defined DJ_ISA_avx512
enum { VW = 16 };
#elif defined DJ_ISA_avx2
enum { VW = 8 };
#else
enum { VW = 4 };
#endif
/* In memory they lie anywhere. */
typedef float vf __attribute__((vector_size(VW * 4), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(VW * 4), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(VW * 2), aligned(2), may_alias));

/* Elements i .. i + VW of a tensor of dtype t (a constant). */
DJ__INLINE vf v_load(const void *p, dj_dtype t, int64_t i) {
  if (t == DJ_F32) return *(const vf *)((const float *)p + i);
  vu u = __builtin_convertvector(*(const vh *)((const uint16_t *)p + i), vu) << 16;
  return (vf)u;
}
DJ__INLINE void v_store(void *p, dj_dtype t, int64_t i, vf v) {
  if (t == DJ_F32) {
    *(vf *)((float *)p + i) = v;
    return;
  }
  vu u = (vu)v, rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, quiet = (u >> 16) | 0x40u;
  vu nan = (vu)((u & 0x7fffffffu) > 0x7f800000u); /* all ones where NaN */
  *(vh *)((uint16_t *)p + i) = __builtin_convertvector((nan & quiet) | (~nan & rounded), vh);
}
DJ__INLINE vf v_all(float f) {
  return f - (vf){0};
}
/* Lanes of a where mask is all ones, of b where it is 0. */
DJ__INLINE vf v_pick(vu mask, vf a, vf b) {
  return (vf)((mask & (vu)a) | (~mask & (vu)b));
}
/* The larger of each lane; NaN if either is. */
DJ__INLINE vf v_max(vf a, vf b) {
#if defined DJ_ISA_avx512
  return (vf)_mm512_mask_mov_ps(_mm512_max_ps((__m512)a, (__m512)b),
                                _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_UNORD_Q), (__m512)a);
#elif defined DJ_ISA_avx2
  return (vf)_mm256_blendv_ps(_mm256_max_ps((__m256)a, (__m256)b), (__m256)a,
                              _mm256_cmp_ps((__m256)a, (__m256)a, _CMP_UNORD_Q));
#else
  return v_pick((vu)(b > a) | (vu)(b != b), b, a);
#endif
}
DJ__INLINE float v_sum(vf v) {
  float s = 0;
  for (int i = 0; i < VW; i++) s += v[i];
  return s;
}

/* Elements i .. i + n of t as f32: where they lie, or converted into buf (n). */
DJ__INLINE const float *rd(const dj_tensor *t, int64_t i, int64_t n, float *buf) {
  if (t->dtype == DJ_F32) return (const float *)t->data + i;
  const uint16_t *src = (const uint16_t *)t->data + i;
  DJ__SIMD for (int64_t k = 0; k < n; k++) buf[k] = ld(src, DJ_BF16, k);
  return buf;
}

/* Where to put results for elements from i on: into t itself, or into buf, to be followed by wr().
 */
DJ__INLINE float *wr_at(const dj_tensor *t, int64_t i, float *buf) {
  return t->dtype == DJ_F32 ? (float *)t->data + i : buf;
}
DJ__INLINE void wr(const dj_tensor *t, int64_t i, int64_t n, const float *buf) {
  if (t->dtype == DJ_F32) return; /* already there */
  uint16_t *dst = (uint16_t *)t->data + i;
  DJ__SIMD for (int64_t k = 0; k < n; k++) dst[k] = to_bf16(buf[k]);
}

#endif
