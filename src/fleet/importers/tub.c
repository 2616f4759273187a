/*
 * Donkeycar tub v2, the text files. A manifest is JSON lines: inputs, types, metadata, creation,
 * and last the catalogue list with the deleted indexes. A catalogue has one JSON record a line.
 *
 * Everything in them may be hostile: names must be plain file names, numbers finite and in range,
 * lines short; the memory taken is proportional to the bytes read.
 */
#include "fleet/importers/tub.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/text.h"

enum { MAX_LINE = 64 << 10, MAX_MANIFEST_LINE = 16 << 20 };

// Cuts the next line; false at the end.
static bool next_line(const char **p, const char *end, const char **line, size_t *n) {
  if (*p >= end) return false;
  const char *lf = memchr(*p, '\n', (size_t)(end - *p));
  *line = *p;
  *n = (size_t)((lf ? lf : end) - *p);
  *p = lf ? lf + 1 : end;
  if (*n && (*line)[*n - 1] == '\r') --*n;
  return true;
}

static json_t *parse_line(const char *name, size_t line, const char *text, size_t n, size_t limit) {
  if (n > limit) {
    (void)dj_error(DJ_E_FORMAT, "%s:%zu: line of %zu bytes, at most %zu are read", name, line, n,
                   limit);
    return NULL;
  }
  json_error_t e;
  json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
  if (!j) (void)dj_error(DJ_E_FORMAT, "%s:%zu: broken JSON: %s", name, line, e.text);
  return j;
}

static int by_value(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? -1 : x > y;
}

static dj_status take_deleted(const char *name, size_t line, const json_t *list, dj__tub *tub) {
  if (!list) return DJ_OK;
  if (!json_is_array(list))
    return dj_error(DJ_E_FORMAT, "%s:%zu: deleted_indexes is no list", name, line);
  size_t n = json_array_size(list);
  free(tub->deleted);
  tub->n_deleted = 0;
  tub->deleted = malloc((n + 1) * sizeof *tub->deleted);
  if (!tub->deleted) return dj_error(DJ_E_NOMEM, "%s: no memory for %zu deleted indexes", name, n);
  for (size_t i = 0; i < n; i++) {
    const json_t *v = json_array_get(list, i);
    if (!json_is_integer(v))
      return dj_error(DJ_E_FORMAT, "%s:%zu: deleted_indexes[%zu] is no whole number", name, line,
                      i);
    tub->deleted[tub->n_deleted++] = json_integer_value(v);
  }
  if (n) qsort(tub->deleted, n, sizeof *tub->deleted, by_value);
  return DJ_OK;
}

static dj_status take_paths(const char *name, size_t line, const json_t *paths, dj__tub *tub) {
  size_t n = json_array_size(paths);
  if (tub->catalogs)
    return dj_error(DJ_E_FORMAT, "%s:%zu: a second list of catalogues", name, line);
  tub->catalogs = calloc(n + 1, sizeof *tub->catalogs);
  if (!tub->catalogs) return dj_error(DJ_E_NOMEM, "%s: no memory for %zu catalogues", name, n);
  for (size_t i = 0; i < n; i++) {
    const char *path = json_string_value(json_array_get(paths, i));
    if (!path || !dj__plain_name(path))
      return dj_error(DJ_E_FORMAT, "%s:%zu: catalogue %zu '%.60s' is not a plain file name", name,
                      line, i, path ? path : "(no string)");
    tub->catalogs[tub->n_catalogs++] = dj__strf("%s", path);
  }
  return DJ_OK;
}

dj_status dj__tub_parse_manifest(const char *name, const void *data, size_t size, dj__tub *tub) {
  const char *p = data, *end = p + size, *text;
  size_t n, line = 0;
  while (next_line(&p, end, &text, &n)) {
    line++;
    if (!n) continue;
    json_t *j = parse_line(name, line, text, n, MAX_MANIFEST_LINE);
    if (!j) return DJ_E_FORMAT;
    dj_status s = DJ_OK;
    const json_t *paths = json_object_get(j, "paths");
    if (json_is_array(paths)) {
      s = take_paths(name, line, paths, tub);
      if (!s) s = take_deleted(name, line, json_object_get(j, "deleted_indexes"), tub);
    }
    json_decref(j);
    if (s) return s;
  }
  if (!tub->catalogs)
    return dj_error(DJ_E_FORMAT,
                    "%s: no line lists the catalogues (\"paths\"): not a tub v2 manifest", name);
  return DJ_OK;
}

static dj_status get_number(const json_t *j, const char *key, double lo, double hi, double *v) {
  const json_t *x = json_object_get(j, key);
  if (!x) return dj_error(DJ_E_FORMAT, "column %s is missing", key);
  if (!json_is_number(x)) return dj_error(DJ_E_FORMAT, "%s is no number", key);
  *v = json_number_value(x);
  if (!(*v >= lo && *v <= hi))
    return dj_error(DJ_E_FORMAT, "%s is %g, outside %g..%g", key, *v, lo, hi);
  return DJ_OK;
}

static dj_status take_record(const json_t *j, dj__tub_record *r) {
  if (!json_is_object(j)) return dj_error(DJ_E_FORMAT, "not a record");
  const json_t *index = json_object_get(j, "_index"), *t = json_object_get(j, "_timestamp_ms");
  if (!json_is_integer(index) || json_integer_value(index) < 0)
    return dj_error(DJ_E_FORMAT, "column _index is missing or no whole number >= 0");
  r->index = json_integer_value(index);
  if (r->index > (int64_t)1 << 32) return dj_error(DJ_E_FORMAT, "_index is %" PRId64, r->index);
  r->t_ms = -1;
  if (t) {
    if (!json_is_integer(t) || json_integer_value(t) < 0 ||
        json_integer_value(t) > (int64_t)1 << 43)
      return dj_error(DJ_E_FORMAT, "_timestamp_ms is no number of milliseconds since 1970");
    r->t_ms = json_integer_value(t);
  }
  DJ_TRY(get_number(j, "user/angle", -1, 1, &r->angle));
  DJ_TRY(get_number(j, "user/throttle", -1, 1, &r->throttle));
  const char *mode = json_string_value(json_object_get(j, "user/mode"));
  r->pilot = mode && strcmp(mode, "user") != 0;
  const char *image = json_string_value(json_object_get(j, "cam/image_array"));
  if (!image) return dj_error(DJ_E_FORMAT, "column cam/image_array is missing");
  if (!dj__plain_name(image))
    return dj_error(DJ_E_FORMAT, "cam/image_array '%.60s' is not a plain file name", image);
  r->image = dj__strf("%s", image);
  return DJ_OK;
}

static bool is_deleted(const dj__tub *tub, int64_t index) {
  return tub->n_deleted &&
         bsearch(&index, tub->deleted, tub->n_deleted, sizeof *tub->deleted, by_value) != NULL;
}

static dj_status append(dj__tub *tub, const dj__tub_record *r) {
  if (tub->n_records == tub->cap) {
    size_t cap = tub->cap ? tub->cap * 2 : 1024;
    dj__tub_record *grown = realloc(tub->records, cap * sizeof *grown);
    if (!grown) return dj_error(DJ_E_NOMEM, "%s: no memory for %zu records", r->catalog, cap);
    tub->records = grown;
    tub->cap = cap;
  }
  tub->records[tub->n_records++] = *r;
  return DJ_OK;
}

static dj_status parse_record(const char *catalog, size_t line, const char *text, size_t n,
                              dj__tub *tub) {
  json_t *j = parse_line(catalog, line, text, n, MAX_LINE);
  if (!j) return DJ_E_FORMAT;
  dj__tub_record r = {.catalog = catalog, .line = line};
  dj_status s = take_record(j, &r);
  json_decref(j);
  if (!s && tub->n_records && r.index <= tub->records[tub->n_records - 1].index)
    s = dj_error(DJ_E_FORMAT, "_index runs backwards: %" PRId64 " after %" PRId64, r.index,
                 tub->records[tub->n_records - 1].index);
  if (s) s = dj_error_context(s, "%s:%zu", catalog, line);
  if (!s && !is_deleted(tub, r.index)) {
    s = append(tub, &r);
    if (!s) return DJ_OK;
  }
  free(r.image);
  return s;
}

dj_status dj__tub_parse_catalog(const char *catalog, const void *data, size_t size,
                                dj__tub_bad_fn *bad, void *user, dj__tub *tub) {
  const char *p = data, *end = p + size, *text;
  size_t n, line = 0;
  while (next_line(&p, end, &text, &n)) {
    line++;
    if (!n) continue;
    dj_status s = parse_record(catalog, line, text, n, tub);
    if (s) s = bad(user, s);
    if (s) return s;
  }
  return DJ_OK;
}

void dj__tub_free(dj__tub *tub) {
  for (size_t i = 0; i < tub->n_catalogs; i++) free(tub->catalogs[i]);
  free(tub->catalogs);
  free(tub->deleted);
  for (size_t i = 0; i < tub->n_records; i++) free(tub->records[i].image);
  free(tub->records);
  *tub = (dj__tub){0};
}
