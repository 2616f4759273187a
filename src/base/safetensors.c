/*
 * safetensors reader and writer (include/dojo/safetensors.h). Format:
 * https://huggingface.co/docs/safetensors (u64 header size, JSON, data).
 *
 * The reader takes files from strangers. After a successful open these hold: every tensor lies
 * inside the file, shape x element size is its length (no overflow on the way), tensors neither
 * overlap nor leave holes, and names are unique. Memory is bounded by the header's size (at most
 * DJ_ST_MAX_HEADER) times a small factor, since the data is mapped and not read.
 */
#include "dojo/safetensors.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/fs.h"

enum { DATA_ALIGN = 64 };

static const struct {
  const char *name;
  size_t size;
} dtypes[DJ_ST_N_DTYPES] = {
#define DJ_X(name, bytes) {#name, bytes},
    DJ_ST_DTYPES(DJ_X)
#undef DJ_X
};

const char *dj_st_dtype_name(dj_st_dtype t) {
  return (unsigned)t < DJ_ST_N_DTYPES ? dtypes[t].name : "?";
}
size_t dj_st_dtype_size(dj_st_dtype t) {
  return (unsigned)t < DJ_ST_N_DTYPES ? dtypes[t].size : 0;
}

struct dj_safetensors {
  char *what;
  dj__file_map map; // empty when opened from memory
  dj__arena arena;
  size_t n, n_meta;
  dj_st_tensor *tensors; // in order of place in the file
  size_t *by_name;       // indices into tensors, sorted by name
  dj_st_meta *meta;      // sorted by key
};

/* Bytes of a tensor; false when the product passes 2^63. */
static bool tensor_bytes(const dj_st_tensor *t, uint64_t *bytes) {
  uint64_t n = dtypes[t->dtype].size;
  bool zero = false;
  for (int i = 0; i < t->rank; i++) zero |= t->shape[i] == 0;
  for (int i = 0; i < t->rank; i++) {
    if (t->shape[i] > INT64_MAX || (!zero && __builtin_mul_overflow(n, t->shape[i], &n)) ||
        n > INT64_MAX)
      return false;
  }
  *bytes = zero ? 0 : n;
  return true;
}

// ---- reading ------------------------------------------------------------------------------------

/* A non-negative JSON integer. */
static bool get_u64(const json_t *j, uint64_t *v) {
  if (!json_is_integer(j) || json_integer_value(j) < 0) return false;
  *v = (uint64_t)json_integer_value(j);
  return true;
}

static dj_status bad(const dj_safetensors *f, const char *name, const char *problem) {
  return dj_error(DJ_E_FORMAT, "%s: tensor '%.200s': %s", f->what, name, problem);
}

static dj_status parse_dtype(const dj_safetensors *f, const char *name, const json_t *j,
                             dj_st_dtype *out) {
  const char *text = json_string_value(j);
  if (!text) return bad(f, name, "\"dtype\" is missing or no string");
  for (int i = 0; i < DJ_ST_N_DTYPES; i++) {
    if (strcmp(text, dtypes[i].name) != 0) continue;
    *out = (dj_st_dtype)i;
    return DJ_OK;
  }
  return dj_error(DJ_E_UNSUPPORTED, "%s: tensor '%.200s': dtype '%.32s' is not supported", f->what,
                  name, text);
}

/* One entry of the header: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}. */
static dj_status parse_tensor(dj_safetensors *f, const char *name, const json_t *j,
                              const unsigned char *data, uint64_t data_size, dj_st_tensor *t) {
  if (!json_is_object(j)) return bad(f, name, "its entry is no JSON object");
  if (!*name) return bad(f, name, "empty name");
  const char *key;
  const json_t *value;
  json_object_foreach((json_t *)j, key, value) {
    if (strcmp(key, "dtype") != 0 && strcmp(key, "shape") != 0 && strcmp(key, "data_offsets") != 0)
      return dj_error(DJ_E_FORMAT, "%s: tensor '%.200s': unknown field '%.64s'", f->what, name,
                      key);
  }
  DJ_TRY(parse_dtype(f, name, json_object_get(j, "dtype"), &t->dtype));
  const json_t *shape = json_object_get(j, "shape"), *span = json_object_get(j, "data_offsets");
  if (!json_is_array(shape)) return bad(f, name, "\"shape\" is missing or no list");
  if (json_array_size(shape) > DJ_ST_MAX_RANK)
    return dj_error(DJ_E_UNSUPPORTED, "%s: tensor '%.200s': %zu dimensions, at most %d are read",
                    f->what, name, json_array_size(shape), DJ_ST_MAX_RANK);
  t->rank = (int)json_array_size(shape);
  for (int i = 0; i < t->rank; i++)
    if (!get_u64(json_array_get(shape, (size_t)i), &t->shape[i]))
      return bad(f, name, "a dimension is no whole number from 0 to 2^63 - 1");
  uint64_t begin, end, bytes;
  if (!json_is_array(span) || json_array_size(span) != 2 ||
      !get_u64(json_array_get(span, 0), &begin) || !get_u64(json_array_get(span, 1), &end))
    return bad(f, name, "\"data_offsets\" is missing or not two whole numbers");
  if (begin > end || end > data_size)
    return dj_error(DJ_E_FORMAT,
                    "%s: tensor '%.200s': offsets %" PRIu64 "..%" PRIu64 " lie outside the %" PRIu64
                    " bytes of data (file cut short?)",
                    f->what, name, begin, end, data_size);
  if (!tensor_bytes(t, &bytes)) return bad(f, name, "shape x element size overflows");
  if (bytes != end - begin)
    return dj_error(DJ_E_FORMAT,
                    "%s: tensor '%.200s': shape and dtype need %" PRIu64
                    " bytes, the offsets hold %" PRIu64,
                    f->what, name, bytes, end - begin);
  t->size = bytes;
  t->data = data + begin;
  t->name = dj__arena_strdup(&f->arena, name);
  return t->name ? DJ_OK : DJ_E_NOMEM;
}

static dj_status parse_metadata(dj_safetensors *f, const json_t *j) {
  if (!json_is_object(j)) return dj_error(DJ_E_FORMAT, "%s: __metadata__ is no object", f->what);
  size_t n = json_object_size(j);
  f->meta = dj__arena_alloc(&f->arena, n * sizeof *f->meta);
  if (!f->meta) return DJ_E_NOMEM;
  const char *key;
  const json_t *value;
  json_object_foreach((json_t *)j, key, value) {
    if (!json_is_string(value))
      return dj_error(DJ_E_FORMAT, "%s: __metadata__ '%.64s' is no string", f->what, key);
    dj_st_meta *m = &f->meta[f->n_meta++];
    m->key = dj__arena_strdup(&f->arena, key);
    m->value = dj__arena_strdup(&f->arena, json_string_value(value));
    if (!m->key || !m->value) return DJ_E_NOMEM;
  }
  return DJ_OK;
}

static int by_place(const void *a, const void *b) {
  const dj_st_tensor *x = a, *y = b;
  if (x->data != y->data) return (const char *)x->data < (const char *)y->data ? -1 : 1;
  if (x->size != y->size) return x->size < y->size ? -1 : 1; // empty ones first
  return strcmp(x->name, y->name);
}
static int by_key(const void *a, const void *b) {
  return strcmp(((const dj_st_meta *)a)->key, ((const dj_st_meta *)b)->key);
}
static int by_name(const void *a, const void *b, void *user) {
  const dj_st_tensor *t = user;
  return strcmp(t[*(const size_t *)a].name, t[*(const size_t *)b].name);
}

/* Sorts the tables; the data must be covered by tensors from end to end, each byte once. */
static dj_status index_tensors(dj_safetensors *f, const unsigned char *data, uint64_t data_size) {
  if (f->n) qsort(f->tensors, f->n, sizeof *f->tensors, by_place);
  if (f->n_meta) qsort(f->meta, f->n_meta, sizeof *f->meta, by_key);
  uint64_t at = 0;
  for (size_t i = 0; i < f->n; i++) {
    uint64_t begin = (uint64_t)((const unsigned char *)f->tensors[i].data - data);
    if (begin != at)
      return dj_error(
          DJ_E_FORMAT, "%s: tensor '%.200s' begins at byte %" PRIu64 " of the data, %s %" PRIu64,
          f->what, f->tensors[i].name, begin,
          begin < at ? "inside another that ends at" : "after a hole that begins at", at);
    at += f->tensors[i].size;
  }
  if (at != data_size)
    return dj_error(DJ_E_FORMAT, "%s: %" PRIu64 " bytes of data, the header describes %" PRIu64,
                    f->what, data_size, at);
  f->by_name = dj__arena_alloc(&f->arena, f->n * sizeof *f->by_name);
  if (!f->by_name) return DJ_E_NOMEM;
  for (size_t i = 0; i < f->n; i++) f->by_name[i] = i;
  if (f->n) qsort_r(f->by_name, f->n, sizeof *f->by_name, by_name, f->tensors);
  return DJ_OK;
}

static dj_status parse_header(dj_safetensors *f, const json_t *root, const unsigned char *data,
                              uint64_t data_size) {
  f->tensors = dj__arena_alloc(&f->arena, json_object_size(root) * sizeof *f->tensors);
  if (!f->tensors) return DJ_E_NOMEM;
  const char *key;
  const json_t *value;
  json_object_foreach((json_t *)root, key, value) {
    if (!strcmp(key, "__metadata__")) {
      DJ_TRY(parse_metadata(f, value));
      continue;
    }
    DJ_TRY(parse_tensor(f, key, value, data, data_size, &f->tensors[f->n]));
    f->n++;
  }
  return index_tensors(f, data, data_size);
}

static dj_status parse(dj_safetensors *f, const unsigned char *bytes, size_t size) {
  if (size < 8)
    return dj_error(DJ_E_FORMAT, "%s: %zu bytes are no safetensors file (8 are the least)", f->what,
                    size);
  uint64_t header = 0;
  for (int i = 0; i < 8; i++) header |= (uint64_t)bytes[i] << (8 * i);
  if (header > DJ_ST_MAX_HEADER)
    return dj_error(DJ_E_LIMIT,
                    "%s: header of %" PRIu64
                    " bytes, at most %u are read (not a safetensors file?)",
                    f->what, header, DJ_ST_MAX_HEADER);
  if (header > size - 8)
    return dj_error(DJ_E_FORMAT, "%s: header of %" PRIu64 " bytes in a file of %zu (cut short?)",
                    f->what, header, size);
  if (header == 0 || bytes[8] != '{')
    return dj_error(DJ_E_FORMAT, "%s: the header does not begin with '{'", f->what);
  json_error_t e;
  json_t *root = json_loadb((const char *)bytes + 8, header, JSON_REJECT_DUPLICATES, &e);
  if (!root) return dj_error(DJ_E_FORMAT, "%s: header, byte %d: %s", f->what, e.position, e.text);
  dj_status s = json_is_object(root)
                    ? parse_header(f, root, bytes + 8 + header, (uint64_t)size - 8 - header)
                    : dj_error(DJ_E_FORMAT, "%s: the header is no JSON object", f->what);
  json_decref(root);
  return s;
}

static dj_status new_reader(const char *what, dj_safetensors **f) {
  *f = calloc(1, sizeof **f);
  if (!*f) return dj_error(DJ_E_NOMEM, "%s: no memory", what);
  (*f)->what = dj__strf("%s", what);
  return DJ_OK;
}

dj_status dj_safetensors_open_memory(const void *data, size_t size, const char *what,
                                     dj_safetensors **f) {
  DJ_TRY(new_reader(what, f));
  dj_status s = parse(*f, data, size);
  if (s) {
    dj_safetensors_close(*f);
    *f = NULL;
  }
  return s;
}

dj_status dj_safetensors_open(const char *path, dj_safetensors **f) {
  DJ_TRY(new_reader(path, f));
  dj_status s = dj__file_map_open(path, &(*f)->map);
  if (!s) s = parse(*f, (*f)->map.data, (*f)->map.size);
  if (s) {
    dj_safetensors_close(*f);
    *f = NULL;
  }
  return s;
}

void dj_safetensors_close(dj_safetensors *f) {
  if (!f) return;
  dj__file_map_close(&f->map);
  dj__arena_free(&f->arena);
  free(f->what);
  free(f);
}

size_t dj_safetensors_count(const dj_safetensors *f) {
  return f->n;
}

const dj_st_tensor *dj_safetensors_get(const dj_safetensors *f, size_t i) {
  return i < f->n ? &f->tensors[i] : NULL;
}

const dj_st_tensor *dj_safetensors_find(const dj_safetensors *f, const char *name) {
  size_t lo = 0, hi = f->n;
  while (lo < hi) {
    size_t mid = lo + (hi - lo) / 2;
    int c = strcmp(name, f->tensors[f->by_name[mid]].name);
    if (c == 0) return &f->tensors[f->by_name[mid]];
    if (c < 0)
      hi = mid;
    else
      lo = mid + 1;
  }
  return NULL;
}

static void shape_text(char *out, size_t cap, dj_st_dtype dtype, int rank, const uint64_t *shape) {
  size_t at = (size_t)snprintf(out, cap, "%s [", dj_st_dtype_name(dtype));
  for (int i = 0; i < rank && at < cap; i++)
    at += (size_t)snprintf(out + at, cap - at, "%s%" PRIu64, i ? ", " : "", shape[i]);
  if (at < cap) (void)snprintf(out + at, cap - at, "]");
}

dj_status dj_safetensors_expect(const dj_safetensors *f, const char *name, dj_st_dtype dtype,
                                int rank, const uint64_t *shape, const dj_st_tensor **t) {
  *t = dj_safetensors_find(f, name);
  if (!*t) return dj_error(DJ_E_NOT_FOUND, "%s: no tensor '%s'", f->what, name);
  if ((*t)->dtype == dtype && (*t)->rank == rank &&
      (rank == 0 || !memcmp((*t)->shape, shape, (size_t)rank * sizeof *shape)))
    return DJ_OK;
  char want[256], have[256];
  shape_text(want, sizeof want, dtype, rank, shape);
  shape_text(have, sizeof have, (*t)->dtype, (*t)->rank, (*t)->shape);
  *t = NULL;
  return dj_error(DJ_E_FORMAT, "%s: tensor '%s' is %s, expected %s", f->what, name, have, want);
}

const char *dj_safetensors_metadata(const dj_safetensors *f, const char *key) {
  for (size_t i = 0; i < f->n_meta; i++)
    if (!strcmp(f->meta[i].key, key)) return f->meta[i].value;
  return NULL;
}
size_t dj_safetensors_metadata_count(const dj_safetensors *f) {
  return f->n_meta;
}
dj_st_meta dj_safetensors_metadata_get(const dj_safetensors *f, size_t i) {
  return i < f->n_meta ? f->meta[i] : (dj_st_meta){0};
}

// ---- writing ------------------------------------------------------------------------------------

static void put_text(dj__buf *b, const char *s) {
  dj__buf_put(b, s, strlen(s));
}

/* A JSON string. UTF-8 goes through as it is; quotes, backslashes and control characters do not. */
static void put_string(dj__buf *b, const char *s) {
  put_text(b, "\"");
  for (; *s; s++) {
    unsigned char c = (unsigned char)*s;
    char esc[8];
    if (c == '"' || c == '\\') {
      esc[0] = '\\';
      esc[1] = (char)c;
      dj__buf_put(b, esc, 2);
    } else if (c < 0x20) {
      (void)snprintf(esc, sizeof esc, "\\u%04x", c);
      put_text(b, esc);
    } else {
      dj__buf_put(b, s, 1);
    }
  }
  put_text(b, "\"");
}

static bool is_utf8(const char *s) {
  json_t *j = json_string(s); // NULL for invalid UTF-8 (or no memory: as good a reason to stop)
  json_decref(j);
  return j != NULL;
}

static dj_status check_tensor(const dj_st_tensor *t, uint64_t *bytes) {
  if (!t->name || !*t->name || !strcmp(t->name, "__metadata__") || !is_utf8(t->name))
    return dj_error(DJ_E_INVALID, "safetensors: bad tensor name '%s'",
                    t->name ? t->name : "(NULL)");
  if ((unsigned)t->dtype >= DJ_ST_N_DTYPES || t->rank < 0 || t->rank > DJ_ST_MAX_RANK)
    return dj_error(DJ_E_INVALID, "safetensors: tensor '%s': dtype %d, rank %d", t->name,
                    (int)t->dtype, t->rank);
  if (!tensor_bytes(t, bytes))
    return dj_error(DJ_E_INVALID, "safetensors: tensor '%s': its size overflows", t->name);
  return DJ_OK;
}

static int by_text(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names and keys must be unique, or readers would see only one of them. */
static dj_status check_unique(const char **names, size_t n) {
  if (n) qsort(names, n, sizeof *names, by_text);
  for (size_t i = 1; i < n; i++)
    if (!strcmp(names[i - 1], names[i]))
      return dj_error(DJ_E_INVALID, "safetensors: the name '%s' is given twice", names[i]);
  return DJ_OK;
}

static dj_status check_names(const dj_st_tensor *t, size_t n, const dj_st_meta *meta,
                             size_t n_meta) {
  size_t most = n > n_meta ? n : n_meta;
  const char **names = malloc((most ? most : 1) * sizeof *names);
  if (!names) return dj_error(DJ_E_NOMEM, "safetensors: no memory for %zu names", most);
  for (size_t i = 0; i < n; i++) names[i] = t[i].name ? t[i].name : "";
  dj_status s = check_unique(names, n);
  for (size_t i = 0; i < n_meta && !s; i++) {
    names[i] = meta[i].key;
    if (!is_utf8(meta[i].key) || !is_utf8(meta[i].value))
      s = dj_error(DJ_E_INVALID, "safetensors: metadata '%s' is not UTF-8", meta[i].key);
  }
  if (!s) s = check_unique(names, n_meta);
  free(names);
  return s;
}

static void put_tensor(dj__buf *b, const dj_st_tensor *t, uint64_t begin, uint64_t end) {
  char num[64];
  put_string(b, t->name);
  put_text(b, ":{\"dtype\":\"");
  put_text(b, dtypes[t->dtype].name);
  put_text(b, "\",\"shape\":[");
  for (int i = 0; i < t->rank; i++) {
    (void)snprintf(num, sizeof num, "%s%" PRIu64, i ? "," : "", t->shape[i]);
    put_text(b, num);
  }
  (void)snprintf(num, sizeof num, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", begin, end);
  put_text(b, num);
}

static dj_status build_header(dj__buf *b, const dj_st_tensor *t, size_t n, const dj_st_meta *meta,
                              size_t n_meta) {
  DJ_TRY(check_names(t, n, meta, n_meta));
  unsigned char size[8] = {0};
  dj__buf_put(b, size, 8);
  put_text(b, "{");
  if (n_meta) {
    put_text(b, "\"__metadata__\":{");
    for (size_t i = 0; i < n_meta; i++) {
      if (i) put_text(b, ",");
      put_string(b, meta[i].key);
      put_text(b, ":");
      put_string(b, meta[i].value);
    }
    put_text(b, n ? "}," : "}");
  }
  uint64_t at = 0;
  for (size_t i = 0; i < n; i++) {
    uint64_t bytes, end;
    DJ_TRY(check_tensor(&t[i], &bytes));
    if (__builtin_add_overflow(at, bytes, &end) || end > INT64_MAX)
      return dj_error(DJ_E_INVALID, "safetensors: the sum of all sizes overflows at '%s'",
                      t[i].name);
    if (i) put_text(b, ",");
    put_tensor(b, &t[i], at, end);
    at = end;
  }
  put_text(b, "}");
  while (!b->failed && b->size % DATA_ALIGN) put_text(b, " ");
  if (b->failed) return dj_error(DJ_E_NOMEM, "safetensors: no memory for the header");
  uint64_t header = b->size - 8;
  if (header > DJ_ST_MAX_HEADER)
    return dj_error(DJ_E_LIMIT, "safetensors: the header would take %" PRIu64 " bytes, at most %u",
                    header, DJ_ST_MAX_HEADER);
  for (int i = 0; i < 8; i++) b->data[i] = (unsigned char)(header >> (8 * i));
  return DJ_OK;
}

static dj_status put_bytes(FILE *out, const void *data, uint64_t size) {
  if (size && fwrite(data, 1, size, out) != size)
    return dj_error_errno("safetensors: cannot write %" PRIu64 " bytes", size);
  return DJ_OK;
}

dj_status dj_safetensors_write_header(FILE *out, const dj_st_tensor *tensors, size_t n,
                                      const dj_st_meta *meta, size_t n_meta) {
  dj__buf b = {0};
  dj_status s = build_header(&b, tensors, n, meta, n_meta);
  if (!s) s = put_bytes(out, b.data, b.size);
  dj__buf_free(&b);
  return s;
}

/* The tensors by falling element size, keeping the order given among equals. */
static dj_st_tensor *lay_out(const dj_st_tensor *tensors, size_t n) {
  dj_st_tensor *order = malloc((n ? n : 1) * sizeof *order);
  size_t k = 0;
  for (size_t bytes = 8; order && bytes; bytes /= 2)
    for (size_t i = 0; i < n; i++)
      if (dj_st_dtype_size(tensors[i].dtype) == bytes) order[k++] = tensors[i];
  return order;
}

dj_status dj_safetensors_write(FILE *out, const dj_st_tensor *tensors, size_t n,
                               const dj_st_meta *meta, size_t n_meta) {
  uint64_t bytes;
  for (size_t i = 0; i < n; i++) {
    DJ_TRY(check_tensor(&tensors[i], &bytes));
    if (bytes && !tensors[i].data)
      return dj_error(DJ_E_INVALID, "safetensors: tensor '%s' has no data", tensors[i].name);
  }
  dj_st_tensor *order = lay_out(tensors, n);
  if (!order) return dj_error(DJ_E_NOMEM, "safetensors: no memory for %zu tensors", n);
  dj_status s = dj_safetensors_write_header(out, order, n, meta, n_meta);
  for (size_t i = 0; i < n && !s; i++) {
    s = check_tensor(&order[i], &bytes);
    if (!s) s = put_bytes(out, order[i].data, bytes);
  }
  free(order);
  return s;
}

dj_status dj_safetensors_save(const char *path, const dj_st_tensor *tensors, size_t n,
                              const dj_st_meta *meta, size_t n_meta) {
  dj__atomic a;
  DJ_TRY(dj__atomic_open(&a, path));
  dj_status s = dj_safetensors_write(a.file, tensors, n, meta, n_meta);
  if (s) {
    dj__atomic_abort(&a);
    return dj_error_context(s, "%s", path);
  }
  return dj__atomic_commit(&a);
}
