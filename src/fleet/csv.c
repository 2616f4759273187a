/*
 * CSV reader. The file lies in memory whole (a drive's table is megabytes), rows are cut in place:
 * no allocation a row, and the cost of hostile input is bounded by its size.
 */
#include "fleet/csv.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/fs.h"
#include "base/text.h"

static void begin(dj__csv *c) {
  c->next_line = 1;
  if (c->size >= 3 && !memcmp(c->data, "\xef\xbb\xbf", 3)) c->at = 3;
}

dj_status dj__csv_open(const char *path, dj__csv *c) {
  *c = (dj__csv){0};
  DJ_TRY(dj__read_file(path, DJ__CSV_MAX_FILE, &c->data, &c->size));
  c->name = dj__strf("%s", path);
  begin(c);
  return DJ_OK;
}

dj_status dj__csv_open_memory(const char *name, const void *data, size_t size, dj__csv *c) {
  *c = (dj__csv){0};
  if (size > DJ__CSV_MAX_FILE)
    return dj_error(DJ_E_LIMIT, "%s: %zu bytes, at most %d are read", name, size, DJ__CSV_MAX_FILE);
  c->data = malloc(size + 1);
  if (!c->data) return dj_error(DJ_E_NOMEM, "%s: no memory for %zu bytes", name, size);
  if (size) memcpy(c->data, data, size);
  c->data[size] = 0;
  c->size = size;
  c->name = dj__strf("%s", name);
  begin(c);
  return DJ_OK;
}

void dj__csv_close(dj__csv *c) {
  free(c->name);
  free(c->data);
  *c = (dj__csv){0};
}

// Leaves the broken row: goes on behind the end of its line.
static dj_status broken(dj__csv *c, const char *what) {
  while (c->at < c->size && c->data[c->at] != '\n') c->at++;
  if (c->at < c->size) c->at++;
  c->next_line = c->line + 1;
  c->n_fields = 0;
  return dj_error(DJ_E_FORMAT, "%s:%zu: %s", c->name, c->line, what);
}

static bool at_end_of_field(const dj__csv *c, size_t i) {
  return i == c->size || c->data[i] == ',' || c->data[i] == '\n' ||
         (c->data[i] == '\r' && i + 1 < c->size && c->data[i + 1] == '\n');
}

// Cuts a quoted field that opens at c->at; c->at is behind the closing quote afterwards.
static const char *cut_quoted(dj__csv *c, size_t row_start, size_t *line_breaks) {
  char *out = c->data + c->at;
  size_t i = c->at + 1;
  c->fields[c->n_fields] = out;
  for (;; i++) {
    if (i == c->size) return "a quote is opened and never closed";
    if (i - row_start > DJ__CSV_MAX_ROW) return "row of more than 65536 bytes";
    char ch = c->data[i];
    if (!ch) return "NUL byte";
    if (ch == '\n') ++*line_breaks;
    if (ch != '"') {
      *out++ = ch;
    } else if (i + 1 < c->size && c->data[i + 1] == '"') {
      *out++ = '"';
      i++;
    } else {
      break;
    }
  }
  c->at = i + 1;
  if (!at_end_of_field(c, c->at)) return "text behind a closing quote";
  *out = 0; // at most the closing quote's place
  return NULL;
}

static const char *cut_plain(dj__csv *c, size_t row_start) {
  c->fields[c->n_fields] = c->data + c->at;
  while (!at_end_of_field(c, c->at)) {
    char ch = c->data[c->at];
    if (!ch) return "NUL byte";
    if (ch == '"') return "quote within a field that is not quoted";
    if (ch == '\r') return "carriage return without a line feed";
    if (c->at - row_start > DJ__CSV_MAX_ROW) return "row of more than 65536 bytes";
    c->at++;
  }
  return NULL;
}

static void skip_empty_lines(dj__csv *c) {
  for (;;) {
    size_t i = c->at;
    if (i < c->size && c->data[i] == '\r') i++;
    if (i == c->size || c->data[i] != '\n') return;
    c->at = i + 1;
    c->next_line++;
  }
}

dj_status dj__csv_next(dj__csv *c) {
  skip_empty_lines(c);
  c->n_fields = 0;
  c->line = c->next_line;
  if (c->at >= c->size) return DJ_E_END;
  size_t row_start = c->at, line_breaks = 0;
  for (;;) {
    if (c->n_fields == DJ__CSV_MAX_FIELDS) return broken(c, "more than 256 fields");
    size_t start = c->at;
    const char *wrong = c->at < c->size && c->data[c->at] == '"'
                            ? cut_quoted(c, row_start, &line_breaks)
                            : cut_plain(c, row_start);
    if (wrong) {
      if (c->at < start) c->at = start;
      return broken(c, wrong);
    }
    c->n_fields++;
    char end = c->at < c->size ? c->data[c->at] : '\n';
    c->data[c->at] = 0; // data[size] is a NUL of our own
    if (c->at < c->size) c->at++;
    if (end == ',') continue;
    if (end == '\r') c->at++; // the LF behind
    break;
  }
  c->next_line = c->line + line_breaks + 1;
  return DJ_OK;
}

static const char *trim(const char *s, size_t *n) {
  while (*s == ' ' || *s == '\t') s++;
  *n = strlen(s);
  while (*n && (s[*n - 1] == ' ' || s[*n - 1] == '\t')) --*n;
  return s;
}

int dj__csv_column(const dj__csv *c, const char *name) {
  for (int i = 0; i < c->n_fields; i++) {
    size_t n;
    const char *f = trim(c->fields[i], &n);
    if (n == strlen(name) && !strncasecmp(f, name, n)) return i;
  }
  return -1;
}

const char *dj__csv_nearest(const dj__csv *c, const char *name) {
  return dj__nearest(name, (const char *const *)c->fields, (size_t)c->n_fields);
}

bool dj__parse_number(const char *text, double *v) {
  size_t n;
  const char *s = trim(text, &n);
  if (!n || n > 64) return false;
  for (size_t i = 0; i < n; i++) // no hexadecimal, no "inf", no "nan"
    if (!isdigit((unsigned char)s[i]) && !strchr("+-.eE", s[i])) return false;
  char *end;
  *v = strtod(s, &end);
  return end == s + n && isfinite(*v);
}

dj_status dj__csv_number(const dj__csv *c, int column, const char *what, double *v) {
  if (column < 0 || column >= c->n_fields)
    return dj_error(DJ_E_FORMAT, "%s:%zu: column %s is missing: the row has %d fields", c->name,
                    c->line, what, c->n_fields);
  if (!dj__parse_number(c->fields[column], v))
    return dj_error(DJ_E_FORMAT, "%s:%zu: %s is '%.40s', not a finite number", c->name, c->line,
                    what, c->fields[column]);
  return DJ_OK;
}
