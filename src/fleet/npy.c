/*
 * Reader of .npy files (NumPy Enhancement Proposal 1 describes the format). The header is a Python
 * dictionary literal; exactly the one NumPy writes is understood: the keys descr, fortran_order and
 * shape, each once, in any order.
 */
#include "fleet/npy.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"

typedef struct header {
  char kind; // 'f', 'i', 'u', 'b'
  int bytes; // of an element
  bool swap; // big-endian
  bool fortran;
  int seen; // bit a key
} header;

typedef struct cursor {
  const char *p, *end;
} cursor;

static void skip_spaces(cursor *c) {
  while (c->p < c->end && (*c->p == ' ' || *c->p == '\n')) c->p++;
}

static bool eat(cursor *c, const char *token) {
  skip_spaces(c);
  size_t n = strlen(token);
  if ((size_t)(c->end - c->p) < n || memcmp(c->p, token, n) != 0) return false;
  c->p += n;
  return true;
}

// 'text' or "text" without escapes.
static bool eat_string(cursor *c, char *out, size_t cap) {
  skip_spaces(c);
  if (c->p == c->end || (*c->p != '\'' && *c->p != '"')) return false;
  char quote = *c->p++;
  size_t n = 0;
  while (c->p < c->end && *c->p != quote) {
    if (*c->p == '\\' || n + 1 >= cap) return false;
    out[n++] = *c->p++;
  }
  if (c->p == c->end) return false;
  c->p++;
  out[n] = 0;
  return true;
}

static bool eat_shape(cursor *c, dj__npy *a) {
  if (!eat(c, "(")) return false;
  while (!eat(c, ")")) {
    skip_spaces(c);
    size_t v = 0;
    const char *start = c->p;
    for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++)
      if (__builtin_mul_overflow(v, (size_t)10, &v) ||
          __builtin_add_overflow(v, (size_t)(*c->p - '0'), &v))
        return false;
    if (c->p == start || a->ndim == DJ__NPY_MAX_DIMS) return false;
    a->shape[a->ndim++] = v;
    if (!eat(c, ",")) return eat(c, ")");
  }
  return true;
}

static dj_status parse_descr(const char *name, const char *text, header *h) {
  bool order = text[0] == '<' || text[0] == '>' || text[0] == '|' || text[0] == '=';
  h->kind = order ? text[1] : 0;
  h->bytes = order && text[1] && text[2] >= '1' && text[2] <= '8' && !text[3] ? text[2] - '0' : 0;
  h->swap = text[0] == '>' && h->bytes > 1;
  bool ok = false;
  switch (h->kind) {
  case 'f':
    ok = h->bytes == 4 || h->bytes == 8;
    break;
  case 'i':
  case 'u':
    ok = h->bytes == 1 || h->bytes == 2 || h->bytes == 4 || h->bytes == 8;
    break;
  case 'b':
    ok = h->bytes == 1;
    break;
  default:
    break;
  }
  return ok ? DJ_OK
            : dj_error(DJ_E_UNSUPPORTED,
                       "%s: elements of type '%.20s'; plain real numbers are read", name, text);
}

static dj_status parse_dict(const char *name, cursor *c, dj__npy *a, header *h) {
  char key[32], text[32];
  if (!eat(c, "{")) goto broken;
  while (!eat(c, "}")) {
    if (!eat_string(c, key, sizeof key) || !eat(c, ":")) goto broken;
    int bit;
    if (!strcmp(key, "descr")) {
      bit = 1;
      if (!eat_string(c, text, sizeof text))
        return dj_error(DJ_E_UNSUPPORTED, "%s: structured elements; plain real numbers are read",
                        name);
      DJ_TRY(parse_descr(name, text, h));
    } else if (!strcmp(key, "fortran_order")) {
      bit = 2;
      h->fortran = eat(c, "True");
      if (!h->fortran && !eat(c, "False")) goto broken;
    } else if (!strcmp(key, "shape")) {
      bit = 4;
      a->ndim = 0;
      if (!eat_shape(c, a)) goto broken;
    } else {
      goto broken;
    }
    if (h->seen & bit) goto broken;
    h->seen |= bit;
    if (!eat(c, ",")) {
      if (!eat(c, "}")) goto broken;
      break;
    }
  }
  skip_spaces(c);
  if (c->p == c->end && h->seen == 7) return DJ_OK;
broken:
  return dj_error(DJ_E_FORMAT, "%s: broken .npy header (at most %d dimensions are read)", name,
                  DJ__NPY_MAX_DIMS);
}

static double get(const unsigned char *p, const header *h) {
  unsigned char b[8];
  for (int i = 0; i < h->bytes; i++) b[i] = p[h->swap ? h->bytes - 1 - i : i];
  uint64_t u = 0;
  memcpy(&u, b, (size_t)h->bytes); // the host is little-endian
  if (h->kind == 'f') {
    float f;
    double d;
    memcpy(&f, b, sizeof f);
    if (h->bytes == 4) return (double)f;
    memcpy(&d, b, sizeof d);
    return d;
  }
  if (h->kind != 'i') return (double)u;
  int shift = 64 - 8 * h->bytes;
  return (double)((int64_t)(u << shift) >> shift);
}

// Element i of the row-major result lies at which place of a column-major file?
static size_t fortran_place(const dj__npy *a, size_t i) {
  size_t index[DJ__NPY_MAX_DIMS], place = 0;
  for (int k = a->ndim - 1; k >= 0; k--) {
    index[k] = i % a->shape[k];
    i /= a->shape[k];
  }
  for (int k = a->ndim - 1; k >= 0; k--) place = place * a->shape[k] + index[k];
  return place;
}

static dj_status take_data(const char *name, const unsigned char *p, size_t size, const header *h,
                           dj__npy *a) {
  size_t n = 1, bytes;
  bool over = false;
  for (int i = 0; i < a->ndim; i++) over |= __builtin_mul_overflow(n, a->shape[i], &n);
  over |= __builtin_mul_overflow(n, (size_t)h->bytes, &bytes);
  if (over || bytes != size)
    return dj_error(DJ_E_FORMAT, "%s: %zu bytes of data do not make an array of this shape", name,
                    size);
  a->n = n;
  a->data = malloc((n + 1) * sizeof *a->data);
  if (!a->data) return dj_error(DJ_E_NOMEM, "%s: no memory for %zu numbers", name, n);
  bool reorder = h->fortran && a->ndim > 1;
  for (size_t i = 0; i < n; i++)
    a->data[i] = get(p + (reorder ? fortran_place(a, i) : i) * (size_t)h->bytes, h);
  return DJ_OK;
}

dj_status dj__npy_parse(const char *name, const void *data, size_t size, dj__npy *a) {
  *a = (dj__npy){0};
  const unsigned char *p = data;
  if (size < 10 || memcmp(p, "\x93NUMPY", 6) != 0)
    return dj_error(DJ_E_FORMAT, "%s: not a NumPy array file", name);
  size_t start = p[6] == 1 ? 10 : 12, length = p[8] | (size_t)p[9] << 8;
  if (p[6] < 1 || p[6] > 3) return dj_error(DJ_E_UNSUPPORTED, "%s: .npy version %d", name, p[6]);
  if (start == 12 && size >= 12) length |= (size_t)p[10] << 16 | (size_t)p[11] << 24;
  if (size < start || length > size - start || length > 65536)
    return dj_error(DJ_E_FORMAT, "%s: .npy header of %zu bytes in a file of %zu", name, length,
                    size);
  cursor c = {(const char *)p + start, (const char *)p + start + length};
  header h = {0};
  DJ_TRY(parse_dict(name, &c, a, &h));
  return take_data(name, p + start + length, size - start - length, &h, a);
}

dj_status dj__npy_open(const char *path, dj__npy *a) {
  *a = (dj__npy){0};
  char *data;
  size_t size;
  DJ_TRY(dj__read_file(path, DJ__NPY_MAX_FILE, &data, &size));
  dj_status s = dj__npy_parse(path, data, size, a);
  free(data);
  return s;
}

void dj__npy_free(dj__npy *a) {
  free(a->data);
  *a = (dj__npy){0};
}
