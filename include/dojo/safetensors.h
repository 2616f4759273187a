/*
 * safetensors files: named tensors in one flat file, as Hugging Face's library reads and writes
 * them. Layout: u64 little-endian header size, JSON header, tensor bytes without gaps.
 *
 *     dj_safetensors *f;
 *     DJ_TRY(dj_safetensors_open("weights.safetensors", &f));     // memory-mapped
 *     const dj_st_tensor *w = dj_safetensors_find(f, "stem.weight");
 *     if (w && w->dtype == DJ_ST_F32) use((const float *)w->data, w->shape, w->rank);
 *     dj_safetensors_close(f);
 *
 *     dj_st_tensor t[] = {{.name = "x", .dtype = DJ_ST_F32, .rank = 2, .shape = {2, 3}, .data =
 * x}}; dj_st_meta meta[] = {{"step", "100"}}; DJ_TRY(dj_safetensors_save("x.safetensors", t, 1,
 * meta, 1)); // atomic, synced
 *
 * Numbers are little-endian, arrays row-major. The reader trusts nothing: every offset, size and
 * shape is checked before a pointer is given out. Host must be little-endian.
 */
#ifndef DOJO_SAFETENSORS_H
#define DOJO_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "dojo/status.h"

/* X(name, bytes per element). The names are the format's own. */
#define DJ_ST_DTYPES(X)                                                                            \
  X(F64, 8)                                                                                        \
  X(F32, 4)                                                                                        \
  X(F16, 2)                                                                                        \
  X(BF16, 2)                                                                                       \
  X(I64, 8)                                                                                        \
  X(I32, 4)                                                                                        \
  X(I16, 2)                                                                                        \
  X(I8, 1)                                                                                         \
  X(U8, 1)                                                                                         \
  X(BOOL, 1)

typedef enum dj_st_dtype {
#define DJ_X(name, bytes) DJ_ST_##name,
  DJ_ST_DTYPES(DJ_X)
#undef DJ_X
      DJ_ST_N_DTYPES
} dj_st_dtype;

const char *dj_st_dtype_name(dj_st_dtype t); /* "F32"; "?" out of range */
size_t dj_st_dtype_size(dj_st_dtype t);      /* bytes per element; 0 out of range */

enum { DJ_ST_MAX_RANK = 8 };
/* Cap on the JSON header, the same as the reference library's. */
#define DJ_ST_MAX_HEADER 100000000u

typedef struct dj_st_tensor {
  const char *name; /* UTF-8, not empty, not "__metadata__" */
  dj_st_dtype dtype;
  int rank; /* 0 (one number) .. DJ_ST_MAX_RANK */
  uint64_t shape[DJ_ST_MAX_RANK];
  const void *data;
  uint64_t size; /* bytes; filled by the reader; the writer works it out from dtype and shape */
} dj_st_tensor;

typedef struct dj_st_meta {
  const char *key, *value; /* UTF-8 */
} dj_st_meta;

/* ---- reading ---- */
typedef struct dj_safetensors dj_safetensors;

/* Maps a file. Errors: DJ_E_NOT_FOUND, DJ_E_IO, DJ_E_FORMAT (what is wrong, with the file's name),
 * DJ_E_LIMIT (header over 100 MB), DJ_E_UNSUPPORTED (a dtype not in the list above). */
dj_status dj_safetensors_open(const char *path, dj_safetensors **f);
/* The same from memory, which must outlive `f`; `what` names it in errors. */
dj_status dj_safetensors_open_memory(const void *data, size_t size, const char *what,
                                     dj_safetensors **f);
void dj_safetensors_close(dj_safetensors *f); /* NULL is fine */

size_t dj_safetensors_count(const dj_safetensors *f);
/* Tensor i in order of its place in the file; NULL out of range. Lives as long as `f`. */
const dj_st_tensor *dj_safetensors_get(const dj_safetensors *f, size_t i);
/* By name; NULL where there is none. O(log n). */
const dj_st_tensor *dj_safetensors_find(const dj_safetensors *f, const char *name);
/* By name, and of this dtype and shape; otherwise an error that names file, tensor, and both. */
dj_status dj_safetensors_expect(const dj_safetensors *f, const char *name, dj_st_dtype dtype,
                                int rank, const uint64_t *shape, const dj_st_tensor **t);
/* Metadata value; NULL where there is none. */
const char *dj_safetensors_metadata(const dj_safetensors *f, const char *key);
size_t dj_safetensors_metadata_count(const dj_safetensors *f);
dj_st_meta dj_safetensors_metadata_get(const dj_safetensors *f, size_t i); /* sorted by key */

/* ---- writing ---- */
/* Writes header and data to an open stream (at its present place, which should be the start of the
 * file). Tensors are laid out by falling element size, then in the order given, so that each is
 * aligned to its elements; the data starts at a multiple of 64 bytes. The same input gives the same
 * bytes. Errors: DJ_E_INVALID (name empty, twice; rank, size overflow), DJ_E_NO_SPACE, DJ_E_IO. */
dj_status dj_safetensors_write(FILE *out, const dj_st_tensor *tensors, size_t n,
                               const dj_st_meta *meta, size_t n_meta);
/* Only the header, tensors laid out in the order given: the caller then writes exactly the bytes of
 * each tensor in that order (`data` is not looked at). For files larger than memory. */
dj_status dj_safetensors_write_header(FILE *out, const dj_st_tensor *tensors, size_t n,
                                      const dj_st_meta *meta, size_t n_meta);
/* To a file: temporary name, fsync, rename. */
dj_status dj_safetensors_save(const char *path, const dj_st_tensor *tensors, size_t n,
                              const dj_st_meta *meta, size_t n_meta);

#endif
