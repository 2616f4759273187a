/*
 * Small YAML files (recipes, suites, rigs) by a libcyaml schema, with errors that name file, line
 * and what was expected.
 *
 *     static const dj__yaml_kind kind = {"rig", &top, range, 1 << 20};
 *     dj__yaml_lines lines;
 *     rig_file *r = NULL;
 *     dj_status s = dj__yaml_check(&kind, text, size, file, &lines);
 *     if (!s && !dj__yaml_line_of(&lines, "cameras")) s = dj__yaml_missing(file, &lines,
 * "cameras"); if (!s) s = dj__yaml_fill(&kind, text, size, file, &r);   // r is cyaml's
 *     ...
 *     dj__yaml_free(&kind, r);
 *     dj__yaml_lines_free(&lines);
 *
 * Paths of keys: "train.batch"; in lists of mappings "towns[3].size". Keys that are optional in the
 * schema and not in the document are left zero; dj__yaml_line_of tells which were given.
 */
#ifndef DOJO_BASE_YAML_H
#define DOJO_BASE_YAML_H

#include <cyaml/cyaml.h>
#include <stdbool.h>
#include <stddef.h>

#include "dojo/status.h"

enum { DJ__YAML_PATH = 128 };

typedef struct dj__yaml_kind {
  const char *noun;                // for messages: "recipe"
  const cyaml_schema_value_t *top; // a mapping, by pointer
  /* Range of a number by its path without list indexes ("towns.size"); false: any. NULL: all any.
   */
  bool (*range)(const char *path, double *lo, double *hi);
  size_t max_bytes;
} dj__yaml_kind;

typedef struct dj__yaml_line {
  char path[DJ__YAML_PATH];
  int line;
} dj__yaml_line;
typedef struct dj__yaml_lines {
  dj__yaml_line *v;
  size_t n, cap;
} dj__yaml_lines;

/* Judges a document. `lines` is filled in any case: free it. Errors: DJ_E_FORMAT, DJ_E_INVALID
 * (values), DJ_E_LIMIT (size), DJ_E_NOMEM; `file` stands for the document in messages. */
dj_status dj__yaml_check(const dj__yaml_kind *kind, const char *text, size_t size, const char *file,
                         dj__yaml_lines *lines);
/* Fills what the schema describes into *out (a pointer to the struct's pointer) from a document
 * that passed. */
dj_status dj__yaml_fill(const dj__yaml_kind *kind, const char *text, size_t size, const char *file,
                        void *out);
void dj__yaml_free(const dj__yaml_kind *kind, void *data); /* NULL is fine */

/* Line of a key, 0: not given. */
int dj__yaml_line_of(const dj__yaml_lines *lines, const char *path);
void dj__yaml_lines_free(dj__yaml_lines *lines);
/* The error of a key that has to be there. */
dj_status dj__yaml_missing(const char *file, const dj__yaml_lines *lines, const char *path);

#endif
