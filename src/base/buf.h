/* Growing byte buffer. Out of memory is sticky: check buf.failed once at the end. */
#ifndef DOJO_BASE_BUF_H
#define DOJO_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct dj__buf {
  unsigned char *data;
  size_t size, cap;
  bool failed;
} dj__buf;

static inline unsigned char *dj__buf_extend(dj__buf *b, size_t n) {
  if (b->failed || n > (size_t)1 << 62) {
    b->failed = true;
    return NULL;
  }
  if (b->cap - b->size < n) {
    size_t cap = b->cap ? b->cap : 256;
    while (cap - b->size < n) cap *= 2;
    unsigned char *p = (unsigned char *)realloc(b->data, cap);
    if (!p) {
      b->failed = true;
      return NULL;
    }
    b->data = p;
    b->cap = cap;
  }
  unsigned char *at = b->data + b->size;
  b->size += n;
  return at;
}

static inline void dj__buf_put(dj__buf *b, const void *data, size_t n) {
  unsigned char *p = n ? dj__buf_extend(b, n) : NULL;
  if (p) memcpy(p, data, n);
}

static inline void dj__buf_free(dj__buf *b) {
  free(b->data);
  *b = (dj__buf){0};
}

#endif
