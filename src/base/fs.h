/*
 * Files: whole-file reads with a size limit, atomic replacement (temporary name, fsync, rename,
 * fsync of the folder), read-only memory maps, directory listing in name order.
 */
#ifndef DOJO_BASE_FS_H
#define DOJO_BASE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "dojo/status.h"

/* Reads a whole regular file; a NUL byte is put behind it. Over `limit` bytes: DJ_E_LIMIT. free()
 * it. */
dj_status dj__read_file(const char *path, size_t limit, char **data, size_t *size);

/* A read-only map of a file. An empty file gives data = NULL, size = 0. */
typedef struct dj__file_map {
  const unsigned char *data;
  size_t size;
} dj__file_map;
dj_status dj__file_map_open(const char *path, dj__file_map *m);
void dj__file_map_close(dj__file_map *m);

/* Atomic replacement. Write to a->file; commit makes it visible under the final name, whole and on
 * disk, or leaves what was there before. abort (or a crash) leaves only a temporary file behind. */
typedef struct dj__atomic {
  FILE *file;
  char *path, *tmp; // owned
} dj__atomic;
dj_status dj__atomic_open(dj__atomic *a, const char *path);
dj_status dj__atomic_commit(dj__atomic *a); // closes in any case
void dj__atomic_abort(dj__atomic *a);       // no-op after commit
/* Whole content in one call. */
dj_status dj__write_file_atomic(const char *path, const void *data, size_t size);

dj_status dj__mkdirs(const char *path); // like mkdir -p
dj_status dj__sync_dir(const char *path);
bool dj__exists(const char *path);
bool dj__is_dir(const char *path);
int64_t dj__file_size(const char *path); // -1 where there is none

/* "a/b" from "a" and "b"; never NULL (aborts the process only when memory for a path is out).
 * free(). */
char *dj__join(const char *dir, const char *name);
/* Newly allocated printf; same promise. */
char *dj__strf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Names in a folder except . and .., sorted by bytes. */
dj_status dj__list_dir(const char *path, char ***names, size_t *n);
void dj__free_names(char **names, size_t n);

/* True for a relative path that stays inside its folder: no leading '/', no "..", no NUL, not
 * empty. */
bool dj__safe_relative(const char *path);

#endif
