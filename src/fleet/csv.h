/*
 * Strict CSV (RFC 4180): commas, double quotes, LF or CRLF. Rows carry the line they begin on.
 *
 *     dj__csv c;
 *     DJ_TRY(dj__csv_open("driving_log.csv", &c));
 *     dj_status s;
 *     while (!(s = dj__csv_next(&c))) use(c.line, c.fields, c.n_fields);
 *     dj__csv_close(&c);
 *     if (s != DJ_E_END) return s;
 */
#ifndef DOJO_FLEET_CSV_H
#define DOJO_FLEET_CSV_H

#include <stdbool.h>
#include <stddef.h>

#include "dojo/status.h"

enum {
  DJ__CSV_MAX_FIELDS = 256,
  DJ__CSV_MAX_ROW = 64 << 10,   // bytes in one row
  DJ__CSV_MAX_FILE = 256 << 20, // bytes in a file
};

typedef struct dj__csv {
  char *name; // for messages
  char *data; // whole file; fields are cut out in place
  size_t size, at;
  size_t next_line;
  // The present row:
  size_t line;                      // 1 is the first
  char *fields[DJ__CSV_MAX_FIELDS]; // NUL-terminated, unquoted, spaces around them kept
  int n_fields;
} dj__csv;

/* Errors: DJ_E_NOT_FOUND, DJ_E_IO, DJ_E_LIMIT. A byte order mark is skipped. */
dj_status dj__csv_open(const char *path, dj__csv *c);
/* The same over a copy of bytes in memory. */
dj_status dj__csv_open_memory(const char *name, const void *data, size_t size, dj__csv *c);
/* Next row that is not empty; DJ_E_END behind the last. DJ_E_FORMAT with file and line: a NUL byte,
 * a quote within an unquoted field, text behind a closing quote, a quote that is never closed, a
 * lone CR; too many fields or bytes. After such an error the next call goes on with the line
 * behind. */
dj_status dj__csv_next(dj__csv *c);
void dj__csv_close(dj__csv *c);

/* Column of a name in the present row, letters' case and spaces around aside; -1 where there is
 * none. */
int dj__csv_column(const dj__csv *c, const char *name);
/* The field of the present row whose text is nearest to `name`, for "did you mean"; NULL where none
 * is near. */
const char *dj__csv_nearest(const dj__csv *c, const char *name);
/* Field `column` of the present row as a finite number. Errors (DJ_E_FORMAT) name file, line,
 * column. */
dj_status dj__csv_number(const dj__csv *c, int column, const char *what, double *v);

/* Whole text, spaces around aside, as a finite decimal number? */
bool dj__parse_number(const char *text, double *v);

#endif
