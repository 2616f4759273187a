/* Any bytes as a table: rows in order of their lines, every field NUL-terminated and readable, the
 * end reached in at most a row a byte, numbers finite. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fleet/csv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  dj__csv c;
  if (dj__csv_open_memory("fuzz", data, size, &c)) return 0;
  size_t rows = 0, bytes = 0, line = 0;
  dj_status s;
  while ((s = dj__csv_next(&c)) != DJ_E_END) {
    if (++rows > size + 1 || c.line <= line) abort();
    line = c.line;
    if (s) {
      if (s != DJ_E_FORMAT || !strstr(dj_error_message(), "fuzz:")) abort();
      continue;
    }
    if (c.n_fields < 1 || c.n_fields > DJ__CSV_MAX_FIELDS) abort();
    for (int i = 0; i < c.n_fields; i++) {
      double v;
      bytes += strlen(c.fields[i]) + 1;
      if (!dj__csv_number(&c, i, "field", &v) && !isfinite(v)) abort();
    }
    if (dj__csv_column(&c, "time") >= c.n_fields) abort();
  }
  if (bytes > size + 1) abort(); // fields do not overlap: each takes its bytes and a separator
  dj__csv_close(&c);
  return 0;
}
