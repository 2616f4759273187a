/*
 * The reference backend: every op's plain C kernel from the op table, on f32. bf16 tensors are
 * converted through workspace, so that a program of any precision runs here: it is slow, and it is
 * the truth that the other backends are tested against.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/backend.h"

enum { ALIGN = 64 };
static size_t padded(size_t n) {
  return (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

/* f32 bytes of a bf16 tensor; 0 for others. */
static size_t scratch_bytes(const dj_tensor *t) {
  if (t->shape.rank < 0 || t->dtype != DJ_BF16) return 0;
  return padded((size_t)dj_shape_count(&t->shape) * sizeof(float));
}

static dj_status run_ref(const dj__call *c, void *self) {
  dj_tensor *in = self, *out = in + c->n_in; // made by dj__ref_kernel: room for all tensors
  unsigned char *scratch = c->workspace;
  for (int i = 0; i < c->n_in; i++) {
    in[i] = c->in[i];
    size_t bytes = scratch_bytes(&in[i]);
    if (!bytes) continue;
    const uint16_t *from = c->in[i].data;
    float *to = (float *)scratch;
    int64_t n = dj_shape_count(&in[i].shape);
    for (int64_t k = 0; k < n; k++) to[k] = dj_bf16_to_f32(from[k]);
    in[i].data = to;
    in[i].dtype = DJ_F32;
    scratch += bytes;
  }
  for (int i = 0; i < c->n_out; i++) {
    out[i] = c->out[i];
    size_t bytes = scratch_bytes(&out[i]);
    if (!bytes) continue;
    out[i].data = scratch;
    out[i].dtype = DJ_F32;
    scratch += bytes;
  }
  dj__call f32 = *c;
  f32.in = in;
  f32.out = out;
  f32.workspace = NULL;
  DJ_TRY(dj__op_get(c->op)->ref(&f32));
  for (int i = 0; i < c->n_out; i++) {
    if (!scratch_bytes(&c->out[i])) continue;
    const float *from = out[i].data;
    uint16_t *to = c->out[i].data;
    int64_t n = dj_shape_count(&out[i].shape);
    for (int64_t k = 0; k < n; k++) to[k] = dj_f32_to_bf16(from[k]);
  }
  return DJ_OK;
}

dj_status dj__ref_kernel(const dj__call *c, dj__kernel *k) {
  if (!dj__op_get(c->op)->ref)
    return dj_error(DJ_E_UNSUPPORTED, "%s: no kernel", dj__op_get(c->op)->name);
  dj_tensor *tensors = calloc((size_t)(c->n_in + c->n_out) + 1, sizeof *tensors);
  if (!tensors) return dj_error(DJ_E_NOMEM, "%s: no memory for a kernel", dj__op_get(c->op)->name);
  *k = (dj__kernel){.run = run_ref, .destroy = free, .self = tensors, .name = "reference"};
  for (int i = 0; i < c->n_in; i++) k->workspace += scratch_bytes(&c->in[i]);
  for (int i = 0; i < c->n_out; i++) k->workspace += scratch_bytes(&c->out[i]);
  return DJ_OK;
}

static bool supports(const dj__call *c, const dj__backend_options *o) {
  (void)o;
  return dj__op_get(c->op)->ref != NULL;
}

static dj_status create(const dj__call *c, const dj__backend_options *o, dj__kernel *k) {
  (void)o;
  return dj__ref_kernel(c, k);
}

static void *ref_alloc(size_t bytes) {
  void *p = aligned_alloc(ALIGN, padded(bytes ? bytes : 1));
  if (p) memset(p, 0, padded(bytes ? bytes : 1));
  return p;
}

static void ref_free(void *p, size_t bytes) {
  (void)bytes;
  free(p);
}

const dj__backend dj__backend_ref = {.version = DJ__BACKEND_VERSION,
                                     .name = "ref",
                                     .host_memory = true,
                                     .supports = supports,
                                     .create = create,
                                     .alloc = ref_alloc,
                                     .free = ref_free};
