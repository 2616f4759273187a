/*
 * What the tests generated from the op table share: tensors filled as a sample asks for, and calls
 * made from a sample with chosen dtypes. Values are a function of the op, the sample and the input,
 * so a failure can be repeated.
 */
#ifndef DOJO_TESTS_OP_FIXTURE_H
#define DOJO_TESTS_OP_FIXTURE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "engine/op.h"

enum { FIXTURE_GUARD = 64 }; // bytes behind every tensor that nobody may touch

static inline size_t fixture_padded(size_t n) {
  return (n + 63) / 64 * 64;
}

/* Zeroed, 64-byte aligned, with a guard of 0xa5 behind `bytes`. Exits when memory is out. */
static inline void *fixture_alloc(size_t bytes) {
  unsigned char *p = aligned_alloc(64, fixture_padded(bytes + FIXTURE_GUARD));
  if (!p) abort();
  memset(p, 0, bytes);
  memset(p + bytes, 0xa5, FIXTURE_GUARD);
  return p;
}

static inline bool fixture_guard_whole(const void *data, size_t bytes) {
  const unsigned char *p = (const unsigned char *)data + bytes;
  for (int i = 0; i < FIXTURE_GUARD; i++)
    if (p[i] != 0xa5) return false;
  return true;
}

static inline double fixture_get(const dj_tensor *t, int64_t i) {
  switch (t->dtype) {
  case DJ_F32:
    return ((const float *)t->data)[i];
  case DJ_BF16:
    return dj_bf16_to_f32(((const uint16_t *)t->data)[i]);
  case DJ_I32:
    return ((const int32_t *)t->data)[i];
  default:
    return ((const uint8_t *)t->data)[i];
  }
}

static inline void fixture_set(dj_tensor *t, int64_t i, double v) {
  switch (t->dtype) {
  case DJ_F32:
    ((float *)t->data)[i] = (float)v;
    break;
  case DJ_BF16:
    ((uint16_t *)t->data)[i] = dj_f32_to_bf16((float)v);
    break;
  case DJ_I32:
    ((int32_t *)t->data)[i] = (int32_t)v;
    break;
  default:
    ((uint8_t *)t->data)[i] = (uint8_t)v;
    break;
  }
}

/* Fills t with the values that the sample wants for its input k; other salt, other values. */
static inline void fixture_fill(dj_tensor *t, const dj__op_def *def, const dj__sample *s, int k,
                                uint64_t salt) {
  float lo = s->range[k].lo, hi = s->range[k].hi, away = s->range[k].away;
  if (lo == 0 && hi == 0) {
    lo = t->dtype == DJ_F32 || t->dtype == DJ_BF16 ? -1 : 0;
    hi = t->dtype == DJ_U8 ? 256 : 1;
  }
  dj__rng r = {.key = dj__hash64(def->name, strlen(def->name), (uint64_t)(s - def->samples)),
               .stream = (uint64_t)k + 64 * salt};
  for (int64_t i = 0, n = dj_shape_count(&t->shape); i < n; i++) {
    float v = dj__rng_uniform(&r, lo, hi);
    if (t->dtype == DJ_I32 || t->dtype == DJ_U8) v = floorf(v < hi ? v : lo);
    for (int tries = 0; fabsf(v) < away && tries < 1000; tries++) v = dj__rng_uniform(&r, lo, hi);
    fixture_set(t, i, v);
  }
}

/* A call with its own memory. */
typedef struct fixture {
  dj__call call;
  dj_tensor in[DJ__SAMPLE_IN], out[DJ__MAX_OUT];
} fixture;

/* Input shapes and dtypes from the sample, float inputs in the `bf16` mask as bf16; outputs by the
 * op's shape rule. No data yet. */
static inline dj_status fixture_shape(fixture *f, dj__op op, const dj__sample *s, uint32_t bf16) {
  const dj__op_def *def = dj__op_get(op);
  *f = (fixture){0};
  for (int i = 0; i < s->n_in; i++) {
    f->in[i] = s->in[i];
    if (s->in[i].shape.rank >= 0 && s->in[i].dtype == DJ_F32 && bf16 >> i & 1u)
      f->in[i].dtype = DJ_BF16;
  }
  dj__infer infer = {
      .op_name = def->name, .n_in = s->n_in, .in = f->in, .attr = s->attr, .n_out = def->n_out};
  for (int k = 0; k < def->n_out; k++) infer.out[k].dtype = f->in[0].dtype;
  DJ_TRY(def->infer(&infer));
  memcpy(f->out, infer.out, sizeof f->out);
  f->call = (dj__call){.op = op,
                       .n_in = s->n_in,
                       .n_out = infer.n_out,
                       .in = f->in,
                       .out = f->out,
                       .attr = s->attr,
                       .seed = 7,
                       .step = 3,
                       .threads = 1};
  return DJ_OK;
}

static inline void fixture_make(fixture *f, const dj__op_def *def, const dj__sample *s) {
  for (int i = 0; i < f->call.n_in; i++) {
    if (f->in[i].shape.rank < 0) continue;
    f->in[i].data = fixture_alloc(dj_tensor_bytes(&f->in[i]));
    fixture_fill(&f->in[i], def, s, i, 0);
  }
  for (int k = 0; k < f->call.n_out; k++)
    f->out[k].data = fixture_alloc(dj_tensor_bytes(&f->out[k]));
}

static inline void fixture_free(fixture *f) {
  for (int i = 0; i < DJ__SAMPLE_IN; i++) free(f->in[i].data);
  for (int k = 0; k < DJ__MAX_OUT; k++) free(f->out[k].data);
  *f = (fixture){0};
}

/* The same tensors as f32 (floats) with the same values, outputs empty: what the reference reads.
 */
static inline void fixture_widen(fixture *to, const fixture *from) {
  *to = *from;
  to->call.in = to->in;
  to->call.out = to->out;
  for (int i = 0; i < from->call.n_in; i++) {
    if (from->in[i].shape.rank < 0) continue;
    bool cast = from->call.op == DJ__OP_cast; // its input's dtype is the point
    if (to->in[i].dtype == DJ_BF16 && !cast) to->in[i].dtype = DJ_F32;
    to->in[i].data = fixture_alloc(dj_tensor_bytes(&to->in[i]));
    for (int64_t j = 0, n = dj_shape_count(&to->in[i].shape); j < n; j++)
      fixture_set(&to->in[i], j, fixture_get(&from->in[i], j));
  }
  for (int k = 0; k < from->call.n_out; k++) {
    if (to->out[k].dtype == DJ_BF16 && from->call.op != DJ__OP_cast) to->out[k].dtype = DJ_F32;
    to->out[k].data = fixture_alloc(dj_tensor_bytes(&to->out[k]));
  }
}

#endif
