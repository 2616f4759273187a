/*
 * Element types and shapes. Tensors are dense and row-major; images are (N, H, W, C), "channels
 * last".
 */
#ifndef DOJO_TENSOR_H
#define DOJO_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* X(name, bytes, text) */
#define DJ_DTYPE_LIST(X) X(F32, 4, "f32") X(BF16, 2, "bf16") X(I32, 4, "i32") X(U8, 1, "u8")

typedef enum dj_dtype {
#define DJ_X(name, bytes, text) DJ_##name,
  DJ_DTYPE_LIST(DJ_X)
#undef DJ_X
      DJ_N_DTYPES
} dj_dtype;

size_t dj_dtype_size(dj_dtype t);
const char *dj_dtype_name(dj_dtype t);

enum { DJ_MAX_RANK = 6 };

typedef struct dj_shape {
  int rank; /* 0 (a scalar) .. DJ_MAX_RANK */
  int64_t dim[DJ_MAX_RANK];
} dj_shape;

/* DJ_SHAPE(4, 3, 2): rank 3. DJ_SCALAR: rank 0. */
#define DJ_SHAPE(...)                                                                              \
  ((dj_shape){.rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                   \
              .dim = {__VA_ARGS__}})
#define DJ_SCALAR ((dj_shape){0})

static inline int64_t dj_shape_count(const dj_shape *s) {
  int64_t n = 1;
  for (int i = 0; i < s->rank; i++) n *= s->dim[i];
  return n;
}
static inline bool dj_shape_equal(const dj_shape *a, const dj_shape *b) {
  if (a->rank != b->rank) return false;
  for (int i = 0; i < a->rank; i++)
    if (a->dim[i] != b->dim[i]) return false;
  return true;
}
/* "(4, 3, 2)" into buf; returns buf. */
char *dj_shape_text(const dj_shape *s, char *buf, size_t size);
enum { DJ_SHAPE_TEXT = 96 };

/* bf16 is the upper half of an f32; round to nearest even, NaN stays NaN. */
static inline float dj_bf16_to_f32(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
static inline uint16_t dj_f32_to_bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded);
}

/* A tensor in host memory; a view unless said otherwise. */
typedef struct dj_tensor {
  void *data;
  dj_dtype dtype;
  dj_shape shape;
} dj_tensor;

static inline size_t dj_tensor_bytes(const dj_tensor *t) {
  return (size_t)dj_shape_count(&t->shape) * dj_dtype_size(t->dtype);
}

#endif
