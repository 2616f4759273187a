/*
 * Own kernels of the network ops: their list (declared here, registered in table.c), and reading
 * and writing of short runs of a tensor as f32, for kernels whose arithmetic outweighs a conversion
 * through first-level cache. Kernels that only move data take the dtypes as constants instead
 * (DJ__WITH_DTYPE).
 */
#ifndef DOJO_NN_H
#define DOJO_NN_H

#include "backend/cpu/isa/isa.h"
#include "engine/attrs.h"

/* X(op, run, supports, workspace) */
#define DJ__NN_KERNELS(X)                                                                          \
  X(gru_cell, DJ__I(gru_cell), DJ__I(all_float), NULL)                                             \
  X(gru_cell_grad, DJ__I(gru_cell_grad), DJ__I(all_float), NULL)

#define DJ__X(op, run, supports, workspace) dj_status run(const dj__call *c, void *self);
DJ__NN_KERNELS(DJ__X)
#undef DJ__X

/* Every tensor is f32 or bf16, in any mix; every tensor is f32. */
bool DJ__I(all_float)(const dj__call *c);
bool DJ__I(all_f32)(const dj__call *c);

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
