/*
 * YAML in two passes over one schema. The first walks libyaml's events beside the schema and
 * judges: it knows the line of everything, so unknown keys, wrong types, values out of range, NaN,
 * aliases (and with them YAML bombs) and deep nesting are found here, with file and line. Then
 * libcyaml, which only ever sees documents that passed, fills the struct.
 *
 * Assumes files are small and read once. Lists hold single values or mappings, not lists.
 */
#include "base/yaml.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/text.h"

typedef struct walk {
  const dj__yaml_kind *kind;
  const char *file;
  yaml_parser_t parser;
  yaml_event_t event;
  bool have_event;
  dj__yaml_lines *keys;
} walk;

static dj_status add_line(dj__yaml_lines *k, const char *path, int line) {
  if (k->n == k->cap) {
    size_t cap = k->cap ? 2 * k->cap : 64;
    dj__yaml_line *v = realloc(k->v, cap * sizeof *v);
    if (!v) return dj_error(DJ_E_NOMEM, "no memory for %zu keys", cap);
    k->v = v;
    k->cap = cap;
  }
  (void)snprintf(k->v[k->n].path, DJ__YAML_PATH, "%s", path);
  k->v[k->n++].line = line;
  return DJ_OK;
}

int dj__yaml_line_of(const dj__yaml_lines *k, const char *path) {
  for (size_t i = 0; i < k->n; i++)
    if (!strcmp(k->v[i].path, path)) return k->v[i].line;
  return 0;
}

void dj__yaml_lines_free(dj__yaml_lines *k) {
  free(k->v);
  *k = (dj__yaml_lines){0};
}

static int line_of(const walk *w) {
  return (int)w->event.start_mark.line + 1;
}

static dj_status next_event(walk *w) {
  if (w->have_event) yaml_event_delete(&w->event);
  w->have_event = false;
  if (!yaml_parser_parse(&w->parser, &w->event)) {
    const yaml_parser_t *p = &w->parser;
    if (p->error == YAML_MEMORY_ERROR) return dj_error(DJ_E_NOMEM, "%s: no memory", w->file);
    return dj_error(DJ_E_FORMAT, "%s:%d: not YAML: %s%s%s", w->file, (int)p->problem_mark.line + 1,
                    p->problem ? p->problem : "unreadable", p->context ? ", " : "",
                    p->context ? p->context : "");
  }
  w->have_event = true;
  const yaml_event_t *e = &w->event;
  const yaml_char_t *anchor = NULL, *tag = NULL;
  if (e->type == YAML_ALIAS_EVENT) anchor = e->data.alias.anchor;
  if (e->type == YAML_SCALAR_EVENT) anchor = e->data.scalar.anchor, tag = e->data.scalar.tag;
  if (e->type == YAML_SEQUENCE_START_EVENT)
    anchor = e->data.sequence_start.anchor, tag = e->data.sequence_start.tag;
  if (e->type == YAML_MAPPING_START_EVENT)
    anchor = e->data.mapping_start.anchor, tag = e->data.mapping_start.tag;
  if (anchor)
    return dj_error(DJ_E_FORMAT,
                    "%s:%d: anchors and aliases ('%.40s') are not taken in %ss: write the "
                    "value out",
                    w->file, line_of(w), (const char *)anchor, w->kind->noun);
  if (tag)
    return dj_error(DJ_E_FORMAT, "%s:%d: tags ('%.40s') are not taken in %ss", w->file, line_of(w),
                    (const char *)tag, w->kind->noun);
  return DJ_OK;
}

static const char *event_name(yaml_event_type_t t) {
  return t == YAML_SCALAR_EVENT           ? "a single value"
         : t == YAML_SEQUENCE_START_EVENT ? "a list"
         : t == YAML_MAPPING_START_EVENT  ? "a mapping"
                                          : "nothing";
}

static dj_status expect_event(walk *w, yaml_event_type_t t, const char *path) {
  if (w->event.type == t) return DJ_OK;
  bool empty = w->event.type == YAML_SCALAR_EVENT && w->event.data.scalar.length == 0;
  return dj_error(DJ_E_FORMAT, "%s:%d: '%s' should be %s, not %s", w->file, line_of(w), path,
                  event_name(t), empty ? "empty" : event_name(w->event.type));
}

// Decimal only: 0x10 and 010 mean different things to different readers.
static bool is_whole(const char *s) {
  if (*s == '-' || *s == '+') s++;
  if (!*s || (s[0] == '0' && s[1])) return false;
  for (; *s; s++)
    if (*s < '0' || *s > '9') return false;
  return true;
}

static bool is_number(const char *s) {
  return *s && strspn(s, "+-.0123456789eE") == strlen(s);
}

// "towns[3].size" to "towns.size".
static void without_indexes(const char *path, char key[DJ__YAML_PATH]) {
  size_t n = 0;
  for (; *path; path++) {
    if (*path == '[') {
      path += strcspn(path, "]");
      if (!*path) break;
      continue;
    }
    key[n++] = *path;
  }
  key[n] = 0;
}

static dj_status check_number(const walk *w, const char *path, const char *text, bool whole) {
  char *end;
  errno = 0;
  double v = strtod(text, &end);
  if (*end || (whole ? !is_whole(text) : !is_number(text)))
    return dj_error(DJ_E_INVALID, "%s:%d: '%s' should be a %s, not '%.40s'", w->file, line_of(w),
                    path, whole ? "whole number" : "finite decimal number", text);
  char key[DJ__YAML_PATH];
  double lo, hi;
  without_indexes(path, key);
  if (w->kind->range && w->kind->range(key, &lo, &hi) && !(v >= lo && v <= hi))
    return dj_error(DJ_E_INVALID, "%s:%d: '%s' is %.40s, out of range: %g to %g", w->file,
                    line_of(w), path, text, lo, hi);
  return DJ_OK;
}

static const char *nearest(const char *name, const char *(*at)(const void *, size_t),
                           const void *list) {
  const char *best = NULL, *s;
  int least = 1 + (int)strlen(name) / 2; // farther away is no help
  if (least > 5) least = 5;
  for (size_t i = 0; (s = at(list, i)); i++) {
    int d = dj__edit_distance(name, s);
    if (d < least) {
      least = d;
      best = s;
    }
  }
  return best;
}

static const char *field_at(const void *list, size_t i) {
  return ((const cyaml_schema_field_t *)list)[i].key;
}
static const char *word_at(const void *list, size_t i) {
  const cyaml_schema_value_t *v = list;
  return i < v->enumeration.count ? v->enumeration.strings[i].str : NULL;
}

static dj_status check_word(const walk *w, const cyaml_schema_value_t *v, const char *path,
                            const char *text) {
  char all[256] = "";
  size_t at = 0;
  for (uint32_t i = 0; i < v->enumeration.count; i++) {
    if (!strcmp(text, v->enumeration.strings[i].str)) return DJ_OK;
    at += (size_t)snprintf(all + at, sizeof all - at, "%s%s", i ? ", " : "",
                           v->enumeration.strings[i].str);
  }
  const char *near = nearest(text, word_at, v);
  return dj_error(DJ_E_FORMAT, "%s:%d: '%s' cannot be '%.40s'%s%s%s; known: %s", w->file,
                  line_of(w), path, text, near ? "; did you mean '" : "", near ? near : "",
                  near ? "'?" : "", all);
}

static dj_status check_scalar(walk *w, const cyaml_schema_value_t *v, const char *path) {
  DJ_TRY(expect_event(w, YAML_SCALAR_EVENT, path));
  const char *text = (const char *)w->event.data.scalar.value;
  size_t length = w->event.data.scalar.length;
  switch (v->type) {
  case CYAML_INT:
  case CYAML_UINT:
    return check_number(w, path, text, true);
  case CYAML_FLOAT:
    return check_number(w, path, text, false);
  case CYAML_BOOL:
    if (!strcmp(text, "true") || !strcmp(text, "false")) return DJ_OK;
    return dj_error(DJ_E_FORMAT, "%s:%d: '%s' should be true or false, not '%.40s'", w->file,
                    line_of(w), path, text);
  case CYAML_ENUM:
  case CYAML_FLAGS:
    return check_word(w, v, path, text);
  default:
    if (length >= v->string.min && length <= v->string.max) return DJ_OK;
    return dj_error(DJ_E_INVALID, "%s:%d: '%s' is a text of %zu bytes; %u to %u are taken", w->file,
                    line_of(w), path, length, v->string.min, v->string.max);
  }
}

static dj_status check_value(walk *w, const cyaml_schema_value_t *v, const char *path);

// Entries that are mappings have paths of their own: "towns[3]".
static dj_status check_entry(walk *w, const cyaml_schema_value_t *v, const char *path, uint32_t i) {
  if (v->type == CYAML_FLAGS) return check_scalar(w, v, path);
  v = v->sequence.entry;
  if (v->type != CYAML_MAPPING) return check_scalar(w, v, path);
  char full[DJ__YAML_PATH];
  (void)snprintf(full, sizeof full, "%s[%u]", path, i);
  DJ_TRY(add_line(w->keys, full, line_of(w)));
  return check_value(w, v, full);
}

static dj_status check_list(walk *w, const cyaml_schema_value_t *v, const char *path) {
  DJ_TRY(expect_event(w, YAML_SEQUENCE_START_EVENT, path));
  bool flags = v->type == CYAML_FLAGS;
  uint32_t n = 0, min = flags ? 1 : v->sequence.min, max = flags ? 64 : v->sequence.max;
  int line = line_of(w);
  for (;;) {
    DJ_TRY(next_event(w));
    if (w->event.type == YAML_SEQUENCE_END_EVENT) break;
    if (n < max) DJ_TRY(check_entry(w, v, path, n));
    if (++n > max) break;
  }
  if (n >= min && n <= max) return DJ_OK;
  return dj_error(DJ_E_FORMAT, "%s:%d: '%s' has %s%u entries; %u to %u are taken", w->file, line,
                  path, n > max ? "over " : "", n > max ? max : n, min, max);
}

static dj_status check_mapping(walk *w, const cyaml_schema_field_t *fields, const char *path);

static dj_status check_value(walk *w, const cyaml_schema_value_t *v, const char *path) {
  switch (v->type) {
  case CYAML_MAPPING:
    return check_mapping(w, v->mapping.fields, path);
  case CYAML_SEQUENCE:
  case CYAML_SEQUENCE_FIXED:
  case CYAML_FLAGS:
    return check_list(w, v, path);
  default:
    return check_scalar(w, v, path);
  }
}

static dj_status unknown_key(const walk *w, const cyaml_schema_field_t *fields, const char *path,
                             const char *key) {
  const char *near = nearest(key, field_at, fields);
  char whole[64];
  (void)snprintf(whole, sizeof whole, "the %s", w->kind->noun);
  if (near)
    return dj_error(DJ_E_FORMAT, "%s:%d: unknown key '%.60s' in '%s'; did you mean '%s'?", w->file,
                    line_of(w), key, *path ? path : whole, near);
  char all[512] = "";
  size_t at = 0;
  for (size_t i = 0; fields[i].key && at < sizeof all; i++)
    at += (size_t)snprintf(all + at, sizeof all - at, "%s%s", i ? ", " : "", fields[i].key);
  return dj_error(DJ_E_FORMAT, "%s:%d: unknown key '%.60s' in '%s'; known: %s", w->file, line_of(w),
                  key, *path ? path : whole, all);
}

// Recursion is as deep as the schema, whatever the document does.
static dj_status check_mapping(walk *w, const cyaml_schema_field_t *fields, const char *path) {
  char whole[64];
  (void)snprintf(whole, sizeof whole, "a %s", w->kind->noun);
  DJ_TRY(expect_event(w, YAML_MAPPING_START_EVENT, *path ? path : whole));
  for (;;) {
    DJ_TRY(next_event(w));
    if (w->event.type == YAML_MAPPING_END_EVENT) return DJ_OK;
    DJ_TRY(expect_event(w, YAML_SCALAR_EVENT, "a key"));
    const char *key = (const char *)w->event.data.scalar.value;
    const cyaml_schema_field_t *f = fields;
    while (f->key && strcmp(f->key, key) != 0) f++;
    if (!f->key) return unknown_key(w, fields, path, key);
    char full[DJ__YAML_PATH];
    (void)snprintf(full, sizeof full, "%s%s%s", path, *path ? "." : "", f->key);
    int before = dj__yaml_line_of(w->keys, full);
    if (before)
      return dj_error(DJ_E_FORMAT, "%s:%d: '%s' is given twice; first in line %d", w->file,
                      line_of(w), full, before);
    DJ_TRY(add_line(w->keys, full, line_of(w)));
    DJ_TRY(next_event(w));
    DJ_TRY(check_value(w, &f->value, full));
  }
}

static dj_status check_document(walk *w) {
  DJ_TRY(next_event(w)); // stream start
  DJ_TRY(next_event(w));
  if (w->event.type == YAML_STREAM_END_EVENT)
    return dj_error(DJ_E_FORMAT, "%s: the %s is empty", w->file, w->kind->noun);
  DJ_TRY(next_event(w));
  DJ_TRY(check_mapping(w, w->kind->top->mapping.fields, ""));
  DJ_TRY(next_event(w)); // document end
  DJ_TRY(next_event(w));
  if (w->event.type != YAML_STREAM_END_EVENT)
    return dj_error(DJ_E_FORMAT, "%s:%d: a second document; a %s is one", w->file, line_of(w),
                    w->kind->noun);
  return DJ_OK;
}

dj_status dj__yaml_missing(const char *file, const dj__yaml_lines *k, const char *path) {
  char section[DJ__YAML_PATH];
  (void)snprintf(section, sizeof section, "%s", path);
  char *dot = strrchr(section, '.');
  if (dot) *dot = 0;
  int line = dj__yaml_line_of(k, section);
  return dj_error(DJ_E_FORMAT, "%s:%d: the key '%s' is missing and has no default", file,
                  line ? line : 1, path);
}

dj_status dj__yaml_check(const dj__yaml_kind *kind, const char *text, size_t size, const char *file,
                         dj__yaml_lines *keys) {
  *keys = (dj__yaml_lines){0};
  walk w = {.kind = kind, .file = file, .keys = keys};
  if (size > kind->max_bytes)
    return dj_error(DJ_E_LIMIT, "%s: %zu bytes; a %s has at most %zu", file, size, kind->noun,
                    kind->max_bytes);
  if (!yaml_parser_initialize(&w.parser)) return dj_error(DJ_E_NOMEM, "%s: no memory", file);
  yaml_parser_set_encoding(&w.parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&w.parser, (const unsigned char *)text, size);
  dj_status s = check_document(&w);
  if (w.have_event) yaml_event_delete(&w.event);
  yaml_parser_delete(&w.parser);
  return s;
}

// ---- second pass: fill -------------------------------------------------------------------------

static void cyaml_message(cyaml_log_t level, void *ctx, const char *fmt, va_list ap) {
  (void)level;
  char *text = ctx;
  if (!*text) (void)vsnprintf(text, 256, fmt, ap);
  text[strcspn(text, "\n")] = 0;
}

static cyaml_config_t config(char message[256]) {
  return (cyaml_config_t){.log_fn = cyaml_message,
                          .log_ctx = message,
                          .log_level = CYAML_LOG_ERROR,
                          .mem_fn = cyaml_mem,
                          .flags = CYAML_CFG_NO_ALIAS};
}

dj_status dj__yaml_fill(const dj__yaml_kind *kind, const char *text, size_t size, const char *file,
                        void *out) {
  char message[256] = "";
  cyaml_config_t c = config(message);
  cyaml_err_t e = cyaml_load_data((const uint8_t *)text, size, &c, kind->top, out, 0);
  if (e == CYAML_OK) return DJ_OK;
  return dj_error(e == CYAML_ERR_OOM ? DJ_E_NOMEM : DJ_E_FORMAT, "%s: %s: %s", file,
                  cyaml_strerror(e), message);
}

void dj__yaml_free(const dj__yaml_kind *kind, void *data) {
  char message[256] = "";
  cyaml_config_t c = config(message);
  (void)cyaml_free(&c, kind->top, data, 0);
}
