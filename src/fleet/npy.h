/*
 * NumPy array files (.npy, format versions 1-3), numbers only, as doubles.
 *
 *     dj__npy a;
 *     DJ_TRY(dj__npy_open("frame_times", &a));
 *     // a.data: (shape[0], ..., shape[ndim-1]) f64, row-major
 *     dj__npy_free(&a);
 */
#ifndef DOJO_FLEET_NPY_H
#define DOJO_FLEET_NPY_H

#include <stddef.h>

#include "dojo/status.h"

enum { DJ__NPY_MAX_DIMS = 4, DJ__NPY_MAX_FILE = 64 << 20 };

typedef struct dj__npy {
  int ndim; // 0 (one number) .. 4
  size_t shape[DJ__NPY_MAX_DIMS];
  size_t n;     // product of the shape
  double *data; // (n) row-major, whatever the file's order was
} dj__npy;

/* Errors: DJ_E_FORMAT (what is wrong, with the file's name), DJ_E_UNSUPPORTED (objects, strings,
 * complex numbers, more than 4 dimensions), DJ_E_LIMIT. Exactly the bytes of the array must follow
 * the header. Pickled objects are never read. */
dj_status dj__npy_open(const char *path, dj__npy *a);
dj_status dj__npy_parse(const char *name, const void *data, size_t size, dj__npy *a);
void dj__npy_free(dj__npy *a);

#endif
