/*
 * Shared by the op files: checks for shape inference, shorthand for sample tables, and the scalar
 * form of the fused epilogue for reference kernels.
 */
#ifndef DOJO_ENGINE_OPS_COMMON_H
#define DOJO_ENGINE_OPS_COMMON_H

#include <math.h>

#include "engine/op.h"

/* ---- shape inference ---- */
static inline bool dj__is_float(dj_dtype t) {
  return t == DJ_F32 || t == DJ_BF16;
}

/* Input i is there, is f32 or bf16 and has this rank (any rank if negative). */
static inline dj_status dj__want_float(const dj__infer *s, int i, int rank) {
  const dj_tensor *t = &s->in[i];
  if (t->shape.rank < 0) return dj__bad(s, "input %d is missing", i);
  if (!dj__is_float(t->dtype))
    return dj__bad(s, "input %d must be f32 or bf16, it is %s; use dj_cast", i,
                   dj_dtype_name(t->dtype));
  if (rank >= 0 && t->shape.rank != rank)
    return dj__bad(s, "input %d must have rank %d, it has rank %d", i, rank, t->shape.rank);
  return DJ_OK;
}

/* Input i is an f32 tensor of exactly this shape. */
static inline dj_status dj__want_f32(const dj__infer *s, int i, const dj_shape *shape) {
  char want[DJ_SHAPE_TEXT], have[DJ_SHAPE_TEXT];
  const dj_tensor *t = &s->in[i];
  if (t->shape.rank < 0) return dj__bad(s, "input %d is missing", i);
  if (t->dtype != DJ_F32)
    return dj__bad(s, "input %d must be f32, it is %s", i, dj_dtype_name(t->dtype));
  if (!dj_shape_equal(&t->shape, shape))
    return dj__bad(s, "input %d must have shape %s, it has %s", i,
                   dj_shape_text(shape, want, sizeof want),
                   dj_shape_text(&t->shape, have, sizeof have));
  return DJ_OK;
}

/* Input i is f32 or bf16 and has exactly this shape. */
static inline dj_status dj__want_shape(const dj__infer *s, int i, const dj_shape *shape) {
  char want[DJ_SHAPE_TEXT], have[DJ_SHAPE_TEXT];
  DJ_TRY(dj__want_float(s, i, -1));
  if (!dj_shape_equal(&s->in[i].shape, shape))
    return dj__bad(s, "input %d must have shape %s, it has %s", i,
                   dj_shape_text(shape, want, sizeof want),
                   dj_shape_text(&s->in[i].shape, have, sizeof have));
  return DJ_OK;
}

/* Of (B, T, H + 2 HK, D) with `all` heads, HK of them keys: heads of queries, a multiple of HK. */
static inline dj_status dj__query_heads(const dj__infer *s, int64_t all, int64_t keys,
                                        int64_t *heads) {
  *heads = all - 2 * keys;
  if (*heads < 1 || *heads % keys)
    return dj__bad(s, "%lld heads with %lld of keys leave %lld of queries, no multiple",
                   (long long)all, (long long)keys, (long long)*heads);
  return DJ_OK;
}

static inline void dj__set_out(dj__infer *s, int k, dj_dtype t, dj_shape shape) {
  s->out[k].dtype = t;
  s->out[k].shape = shape;
}

/* ---- samples: static initialisers of dj_tensor ---- */
#define DJ__DIMS(...)                                                                              \
  {                                                                                                \
    .rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .dim = { __VA_ARGS__ }      \
  }
#define DJ__F32(...)                                                                               \
  { .dtype = DJ_F32, .shape = DJ__DIMS(__VA_ARGS__) }
#define DJ__I32(...)                                                                               \
  { .dtype = DJ_I32, .shape = DJ__DIMS(__VA_ARGS__) }
#define DJ__U8(...)                                                                                \
  { .dtype = DJ_U8, .shape = DJ__DIMS(__VA_ARGS__) }
#define DJ__ABSENT                                                                                 \
  {                                                                                                \
    .shape = {.rank = -1 }                                                                         \
  }
#define DJ__ATTR(a) .attr = &(a), .attr_size = sizeof(a)

/* ---- the epilogue act(x + bias) ---- */
static inline double dj__post_act(int act, double x) {
  switch (act) {
  case DJ__OP_relu:
    return x > 0 ? x : 0;
  case DJ__OP_elu:
    return x > 0 ? x : exp(x) - 1;
  case DJ__OP_sigmoid:
    return 1 / (1 + exp(-x));
  case DJ__OP_tanh:
    return tanh(x);
  case DJ__OP_silu:
    return x / (1 + exp(-x));
  case DJ__OP_gelu:
    return 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
  default:
    return x;
  }
}

/* An f32 input element as a product reads it: rounded to bf16 if bit i of `rounds` says so. */
static inline double dj__as_read(float v, unsigned rounds, int i) {
  return (double)(rounds >> i & 1u ? dj_bf16_to_f32(dj_f32_to_bf16(v)) : v);
}

/* Accumulators of the reference kernels: channels are taken this many at a time. */
enum { DJ__TILE = 64 };

static inline int dj__tile(int64_t left) {
  return left < DJ__TILE ? (int)left : DJ__TILE;
}

#endif
