/*
 * {"version": 1, "split": {"train": 0.7, "validation": 0.1, "test": 0.2, "gap_s": 1.0},
 *  "drives": {"tub-1": {"split": {...}}}}
 *
 * Users may edit the file, so it is read strictly: an unknown key or a wrong type is an error that
 * names it, never silently the default.
 */
#include "fleet/store_config.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "fleet/split.h"

enum { MAX_BYTES = 16 << 20 };

/* The file as a JSON object; a new one where there is no file. */
static dj_status load(const char *file, json_t **root) {
  *root = NULL;
  if (!dj__exists(file)) {
    *root = json_pack("{s:i}", "version", 1);
    return *root ? DJ_OK : dj_error(DJ_E_NOMEM, "%s: no memory", file);
  }
  char *text;
  size_t size;
  DJ_TRY(dj__read_file(file, MAX_BYTES, &text, &size));
  json_error_t e;
  *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &e);
  free(text);
  if (!*root) return dj_error(DJ_E_FORMAT, "%s:%d: %s", file, e.line, e.text);
  const json_t *version = json_object_get(*root, "version");
  dj_status s = DJ_OK;
  const char *key;
  json_t *value;
  if (!json_is_object(*root) || !json_is_integer(version) || json_integer_value(version) != 1)
    s = dj_error(DJ_E_FORMAT, "%s: no \"version\": 1", file);
  json_object_foreach(*root, key, value) {
    if (s) break;
    if (strcmp(key, "version") != 0 && strcmp(key, "split") != 0 && strcmp(key, "drives") != 0)
      s = dj_error(DJ_E_FORMAT, "%s: unknown key '%.64s' (known: version, split, drives)", file,
                   key);
  }
  if (s) {
    json_decref(*root);
    *root = NULL;
  }
  return s;
}

static dj_status parse_split(const char *file, const json_t *j, dj_split_options *o) {
  if (!json_is_object(j)) return dj_error(DJ_E_FORMAT, "%s: \"split\" is no object", file);
  const struct {
    const char *key;
    double *to;
  } fields[] = {{"train", &o->train},
                {"validation", &o->validation},
                {"test", &o->test},
                {"gap_s", &o->gap_s}};
  enum { N = sizeof fields / sizeof *fields };
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)j, key, value) {
    int i = 0;
    while (i < N && strcmp(key, fields[i].key) != 0) i++;
    if (i == N)
      return dj_error(DJ_E_FORMAT,
                      "%s: unknown key '%.64s' (known: train, validation, test, gap_s)", file, key);
    if (!json_is_number(value))
      return dj_error(DJ_E_FORMAT, "%s: split: '%s' is no number", file, key);
    *fields[i].to = json_number_value(value);
  }
  dj_status s = dj__split_check(o);
  return s ? dj_error_context(DJ_E_FORMAT, "%s", file) : DJ_OK;
}

dj_status dj__config_split(const char *file, const char *drive, dj_split_options *o) {
  *o = dj_split_default;
  json_t *root;
  DJ_TRY(load(file, &root));
  const json_t *common = json_object_get(root, "split"), *drives = json_object_get(root, "drives");
  dj_status s = common ? parse_split(file, common, o) : DJ_OK;
  if (!s && drives && !json_is_object(drives))
    s = dj_error(DJ_E_FORMAT, "%s: \"drives\" is no object", file);
  const json_t *own = drive && drives ? json_object_get(drives, drive) : NULL;
  if (!s && own) {
    const json_t *split = json_object_get(own, "split");
    if (!json_is_object(own) || json_object_size(own) != (split != NULL))
      s = dj_error(DJ_E_FORMAT, "%s: drive '%s': an object with only \"split\" is expected", file,
                   drive);
    if (!s && split) s = parse_split(file, split, o);
  }
  json_decref(root);
  return s;
}

static dj_status save(const char *file, json_t *root) {
  char *text = json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(15));
  if (!text) return dj_error(DJ_E_NOMEM, "%s: no memory", file);
  dj_status s = dj__write_file_atomic(file, text, strlen(text));
  free(text);
  return s;
}

dj_status dj__config_set_split(const char *file, const char *drive, const dj_split_options *o) {
  DJ_TRY(dj__split_check(o));
  json_t *root;
  DJ_TRY(load(file, &root));
  json_t *split = json_pack("{s:f,s:f,s:f,s:f}", "train", o->train, "validation", o->validation,
                            "test", o->test, "gap_s", o->gap_s);
  json_t *at = root;
  if (drive) {
    json_t *drives = json_object_get(root, "drives");
    if (!drives) json_object_set_new(root, "drives", drives = json_object());
    at = json_object_get(drives, drive);
    if (!at) json_object_set_new(drives, drive, at = json_object());
  }
  dj_status s = json_object_set_new(at, "split", split) == 0
                    ? save(file, root)
                    : dj_error(DJ_E_FORMAT, "%s: \"drives\" is no object of objects", file);
  json_decref(root);
  return s;
}

dj_status dj__config_forget(const char *file, const char *drive) {
  json_t *root;
  DJ_TRY(load(file, &root));
  dj_status s = DJ_OK;
  if (json_object_del(json_object_get(root, "drives"), drive) == 0) s = save(file, root);
  json_decref(root);
  return s;
}
