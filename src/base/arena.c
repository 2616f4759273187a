#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dojo/status.h"

enum { BLOCK_BYTES = 64 * 1024 };

struct dj__arena_block {
  struct dj__arena_block *next;
  size_t size, used;
  _Alignas(16) unsigned char data[];
};

void *dj__arena_alloc(dj__arena *a, size_t bytes) {
  if (bytes > SIZE_MAX / 2) {
    dj_error(DJ_E_LIMIT, "arena: %zu bytes asked for", bytes);
    return NULL;
  }
  bytes = (bytes + 15) & ~(size_t)15;
  struct dj__arena_block *b = a->head;
  if (!b || b->size - b->used < bytes) {
    size_t size = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
    b = calloc(1, sizeof *b + size);
    if (!b) {
      dj_error(DJ_E_NOMEM, "arena: no memory for %zu bytes", size);
      return NULL;
    }
    b->size = size;
    b->next = a->head;
    a->head = b;
  }
  void *p = b->data + b->used;
  b->used += bytes;
  a->used += bytes;
  return p;
}

void *dj__arena_copy(dj__arena *a, const void *data, size_t bytes) {
  void *p = dj__arena_alloc(a, bytes);
  if (p && bytes) memcpy(p, data, bytes);
  return p;
}

char *dj__arena_strdup(dj__arena *a, const char *s) {
  return dj__arena_copy(a, s, strlen(s) + 1);
}

char *dj__arena_printf(dj__arena *a, const char *fmt, ...) {
  va_list ap, ap2;
  va_start(ap, fmt);
  va_copy(ap2, ap);
  int n = vsnprintf(NULL, 0, fmt, ap);
  va_end(ap);
  char *s = n < 0 ? NULL : dj__arena_alloc(a, (size_t)n + 1);
  if (s) (void)vsnprintf(s, (size_t)n + 1, fmt, ap2);
  va_end(ap2);
  return s;
}

void dj__arena_free(dj__arena *a) {
  for (struct dj__arena_block *b = a->head, *next; b; b = next) {
    next = b->next;
    free(b);
  }
  *a = (dj__arena){0};
}
