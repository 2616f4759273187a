/*
 * What a backend is: a table of functions with a version. It says which ops it has kernels for and
 * makes them at compile time; a program then only calls `run`. Ops without a kernel fall back to
 * the reference (with conversion from and to bf16) where the backend's memory is host memory;
 * otherwise they are an error when compiling.
 */
#ifndef DOJO_ENGINE_BACKEND_H
#define DOJO_ENGINE_BACKEND_H

#include "engine/op.h"

enum { DJ__BACKEND_VERSION = 4, DJ__LATE_BYTES = 2 << 20 };

typedef struct dj__kernel {
  dj_status (*run)(const dj__call *c, void *self);
  void (*destroy)(void *self); /* NULL: nothing to free */
  void *self;
  size_t workspace;         /* bytes of scratch wanted in dj__call.workspace */
  const char *name;         /* implementation, for reports: static or owned by self */
  const dj__layout *layout; /* of dj__call.packed, which it reads instead of input 1; NULL: none.
                             * Only where the call `keeps`. Owned by self */
  bool packs;               /* an optimiser that writes dj__call.copies */
  /* Does what the last run has put off; before others read what it should have written, and before
   * destroy. NULL: nothing ever is. */
  void (*settle)(const dj__call *c, void *self);
} dj__kernel;

typedef struct dj__backend_options {
  int threads;
  const char *isa; /* NULL: the best there is */
} dj__backend_options;

typedef struct dj__backend {
  uint32_t version;
  const char *name;
  bool host_memory;
  /* True if `create` would make a kernel for this op, attribute, shapes and dtypes (data are NULL).
   */
  bool (*supports)(const dj__call *c, const dj__backend_options *o);
  dj_status (*create)(const dj__call *c, const dj__backend_options *o, dj__kernel *k);
  /* Rows [from, to) of weight w into a copy of this layout: whole units, or to the end. NULL where
   * no kernel has a layout. */
  void (*pack)(const dj__layout *l, void *copy, const float *w, int64_t from, int64_t to);
  /* Memory of the device; 64-byte aligned, zeroed. */
  void *(*alloc)(size_t bytes);
  /* The same, of host memory, at least DJ__LATE_BYTES, which the system gives when it is used. */
  void *(*reserve)(size_t bytes);
  void (*free)(void *p, size_t bytes);
  /* x (n) normal with this deviation, the numbers of dj__rng {key, stream}. Of host memory only. */
  void (*fill_normal)(float *x, int64_t n, float std, uint64_t key, uint64_t stream);
} dj__backend;

/* NULL with an error if there is none of that name. "ref", "cpu". */
const dj__backend *dj__backend_find(const char *name);
extern const dj__backend dj__backend_ref, dj__backend_cpu;

/* Wraps an op's reference kernel, converting bf16 tensors through workspace. */
dj_status dj__ref_kernel(const dj__call *c, dj__kernel *k);

#endif
