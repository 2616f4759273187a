/*
 * JSON out of logs. Lines are put together by hand and not through jansson: log times are unsigned
 * 64 bits, which it does not hold, and a log's strings may be anything. Protobuf messages are
 * walked through the descriptors that protobuf-c generates, so a new message type needs no code
 * here.
 */
#include "cli/log_json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

// ---- reports ----

json_t *dj__json_text(const char *s) {
  json_t *j = json_string(s);
  if (j) return j;
  size_t n = strlen(s);
  char *copy = malloc(n + 1);
  if (!copy) return NULL;
  for (size_t i = 0; i <= n; i++) copy[i] = (unsigned char)s[i] < 0x80 ? s[i] : '?';
  j = json_string(copy);
  free(copy);
  return j;
}

json_t *dj__json_u64(uint64_t v) {
  return v <= INT64_MAX ? json_integer((json_int_t)v) : json_real((double)v);
}

const char *dj__printable(char *to, size_t size, const char *s) {
  size_t n = 0;
  for (; *s && n + 1 < size; s++) to[n++] = (unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s;
  to[n] = 0;
  return to;
}

// ---- lines ----

static void put_text(dj__buf *b, const char *s) {
  dj__buf_put(b, s, strlen(s));
}

static void put_format(dj__buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put_format(dj__buf *b, const char *fmt, ...) {
  char text[64];
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (n > 0) dj__buf_put(b, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

void dj__json_put_u64(dj__buf *b, uint64_t v) {
  put_format(b, "%" PRIu64, v);
}

// The shortest of the two precisions that gives the number back.
static void put_double(dj__buf *b, double v, int few, int all, bool is_float) {
  if (!isfinite(v)) {
    put_text(b, "null");
    return;
  }
  char text[40];
  (void)snprintf(text, sizeof text, "%.*g", few, v);
  double back = strtod(text, NULL);
  if (is_float ? (float)back != (float)v : back != v)
    (void)snprintf(text, sizeof text, "%.*g", all, v);
  put_text(b, text);
}

// Bytes of the UTF-8 character that begins at s; 0 when it is none.
static size_t utf8_length(const unsigned char *s, size_t left) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  size_t n = s[0] < 0x80             ? 1
             : (s[0] & 0xe0) == 0xc0 ? 2
             : (s[0] & 0xf0) == 0xe0 ? 3
             : (s[0] & 0xf8) == 0xf0 ? 4
                                     : 0;
  if (n <= 1) return n;
  if (n > left) return 0;
  uint32_t code = s[0] & (0xffu >> (n + 1));
  for (size_t i = 1; i < n; i++) {
    if ((s[i] & 0xc0) != 0x80) return 0;
    code = code << 6 | (s[i] & 0x3f);
  }
  bool surrogate = code >= 0xd800 && code < 0xe000;
  return code < least[n] || code > 0x10ffff || surrogate ? 0 : n;
}

void dj__json_put_string(dj__buf *b, const void *text, size_t n) {
  const unsigned char *s = text;
  put_text(b, "\"");
  for (size_t i = 0; i < n;) {
    size_t k = utf8_length(s + i, n - i);
    if (s[i] == '"' || s[i] == '\\')
      put_format(b, "\\%c", s[i]);
    else if (s[i] < 0x20 || s[i] == 0x7f)
      put_format(b, "\\u%04x", s[i]);
    else if (!k)
      put_text(b, "\\ufffd");
    else
      dj__buf_put(b, s + i, k);
    i += k ? k : 1;
  }
  put_text(b, "\"");
}

void dj__json_put_bytes(dj__buf *b, const void *data, size_t n, bool whole) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (!whole) {
    put_format(b, "{\"bytes\":%zu}", n);
    return;
  }
  const unsigned char *p = data;
  put_text(b, "\"");
  unsigned char *to = n ? dj__buf_extend(b, (n + 2) / 3 * 4) : NULL;
  for (size_t i = 0; to && i < n; i += 3, to += 4) {
    size_t k = n - i < 3 ? n - i : 3;
    uint32_t v = (uint32_t)p[i] << 16 | (uint32_t)(k > 1 ? p[i + 1] : 0) << 8 |
                 (uint32_t)(k > 2 ? p[i + 2] : 0);
    to[0] = (unsigned char)digits[v >> 18];
    to[1] = (unsigned char)digits[v >> 12 & 63];
    to[2] = k > 1 ? (unsigned char)digits[v >> 6 & 63] : '=';
    to[3] = k > 2 ? (unsigned char)digits[v & 63] : '=';
  }
  put_text(b, "\"");
}

// ---- protobuf ----

static size_t size_of(ProtobufCType t) {
  switch (t) {
  case PROTOBUF_C_TYPE_INT64:
  case PROTOBUF_C_TYPE_SINT64:
  case PROTOBUF_C_TYPE_SFIXED64:
  case PROTOBUF_C_TYPE_UINT64:
  case PROTOBUF_C_TYPE_FIXED64:
  case PROTOBUF_C_TYPE_DOUBLE:
    return 8;
  case PROTOBUF_C_TYPE_BOOL:
    return sizeof(protobuf_c_boolean);
  case PROTOBUF_C_TYPE_STRING:
  case PROTOBUF_C_TYPE_MESSAGE:
    return sizeof(void *);
  case PROTOBUF_C_TYPE_BYTES:
    return sizeof(ProtobufCBinaryData);
  default:
    return 4;
  }
}

static void put_enum(dj__buf *b, const ProtobufCEnumDescriptor *type, int32_t v) {
  const ProtobufCEnumValue *e = protobuf_c_enum_descriptor_get_value(type, v);
  if (e)
    dj__json_put_string(b, e->name, strlen(e->name));
  else
    put_format(b, "%" PRId32, v);
}

// One value of a field, at `at`. Values are copied out: a repeated field's array is only bytes
// here.
static void put_value(dj__buf *b, const ProtobufCFieldDescriptor *f, const void *at, bool whole) {
  union {
    int32_t i32;
    uint32_t u32;
    int64_t i64;
    uint64_t u64;
    float f32;
    double f64;
    protobuf_c_boolean truth;
    const char *text;
    const ProtobufCMessage *message;
    ProtobufCBinaryData bytes;
  } v;
  memcpy(&v, at, size_of(f->type));
  switch (f->type) {
  case PROTOBUF_C_TYPE_INT32:
  case PROTOBUF_C_TYPE_SINT32:
  case PROTOBUF_C_TYPE_SFIXED32:
    put_format(b, "%" PRId32, v.i32);
    break;
  case PROTOBUF_C_TYPE_UINT32:
  case PROTOBUF_C_TYPE_FIXED32:
    put_format(b, "%" PRIu32, v.u32);
    break;
  case PROTOBUF_C_TYPE_INT64:
  case PROTOBUF_C_TYPE_SINT64:
  case PROTOBUF_C_TYPE_SFIXED64:
    put_format(b, "%" PRId64, v.i64);
    break;
  case PROTOBUF_C_TYPE_UINT64:
  case PROTOBUF_C_TYPE_FIXED64:
    dj__json_put_u64(b, v.u64);
    break;
  case PROTOBUF_C_TYPE_FLOAT:
    put_double(b, (double)v.f32, 6, 9, true);
    break;
  case PROTOBUF_C_TYPE_DOUBLE:
    put_double(b, v.f64, 15, 17, false);
    break;
  case PROTOBUF_C_TYPE_BOOL:
    put_text(b, v.truth ? "true" : "false");
    break;
  case PROTOBUF_C_TYPE_ENUM:
    put_enum(b, f->descriptor, v.i32);
    break;
  case PROTOBUF_C_TYPE_STRING:
    dj__json_put_string(b, v.text ? v.text : "", v.text ? strlen(v.text) : 0);
    break;
  case PROTOBUF_C_TYPE_BYTES:
    dj__json_put_bytes(b, v.bytes.data, v.bytes.len, whole);
    break;
  case PROTOBUF_C_TYPE_MESSAGE:
    if (v.message)
      dj__json_put_protobuf(b, v.message, whole);
    else
      put_text(b, "null");
    break;
  }
}

static void put_repeated(dj__buf *b, const ProtobufCFieldDescriptor *f, size_t n, const void *at,
                         bool whole) {
  const char *items;
  memcpy(&items, at, sizeof items);
  put_text(b, "[");
  for (size_t i = 0; i < n; i++) {
    if (i) put_text(b, ",");
    put_value(b, f, items + i * size_of(f->type), whole);
  }
  put_text(b, "]");
}

// Is there anything to show of a field that is not repeated?
static bool is_set(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f) {
  const char *base = (const char *)m;
  if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
    uint32_t which;
    memcpy(&which, base + f->quantifier_offset, sizeof which);
    return which == f->id;
  }
  if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
    const void *p;
    memcpy(&p, base + f->offset, sizeof p);
    return p != NULL;
  }
  if (f->label != PROTOBUF_C_LABEL_OPTIONAL || f->type == PROTOBUF_C_TYPE_STRING) return true;
  protobuf_c_boolean has;
  memcpy(&has, base + f->quantifier_offset, sizeof has);
  return has != 0;
}

void dj__json_put_protobuf(dj__buf *b, const ProtobufCMessage *m, bool whole_bytes) {
  const char *base = (const char *)m;
  bool first = true;
  put_text(b, "{");
  for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
    const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
    bool repeated = f->label == PROTOBUF_C_LABEL_REPEATED;
    if (!repeated && !is_set(m, f)) continue;
    if (!first) put_text(b, ",");
    first = false;
    dj__json_put_string(b, f->name, strlen(f->name));
    put_text(b, ":");
    if (repeated) {
      size_t n;
      memcpy(&n, base + f->quantifier_offset, sizeof n);
      put_repeated(b, f, n, base + f->offset, whole_bytes);
    } else {
      put_value(b, f, base + f->offset, whole_bytes);
    }
  }
  put_text(b, "}");
}
