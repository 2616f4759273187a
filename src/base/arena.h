/*
 * Arena: many small objects with one lifetime, freed together. Memory is zeroed. Pointers stay
 * valid until the arena is freed (blocks are never moved).
 *
 *     dj__arena a = {0};
 *     node *n = dj__arena_alloc(&a, sizeof *n);   // NULL and an error when memory is out
 *     dj__arena_free(&a);
 */
#ifndef DOJO_BASE_ARENA_H
#define DOJO_BASE_ARENA_H

#include <stddef.h>

typedef struct dj__arena {
  struct dj__arena_block *head;
  size_t used; // bytes handed out in all blocks
} dj__arena;

void *dj__arena_alloc(dj__arena *a, size_t bytes); // aligned to 16
void *dj__arena_copy(dj__arena *a, const void *data, size_t bytes);
char *dj__arena_strdup(dj__arena *a, const char *s);
char *dj__arena_printf(dj__arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void dj__arena_free(dj__arena *a);

#endif
