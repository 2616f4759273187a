/*
 * TensorBoard event files: see events.h. A run appends a few hundred bytes a second and a few
 * pictures an epoch; nothing is synced (checkpoints are what has to last, curves may lose their
 * last second). A reader meets files whose writer was killed: a cut tail is no error.
 */
#include "train/events.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <png.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fs.h"

enum { MAX_TAG = 512, FLUSH_BYTES = 1 << 16 };
#define NAME_START "events.out.tfevents."

// Field numbers of the messages.
enum { EVENT_WALL_TIME = 1, EVENT_STEP = 2, EVENT_VERSION = 3, EVENT_SUMMARY = 5, EVENT_LOG = 7 };
enum { SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_SIMPLE = 2, VALUE_IMAGE = 4 };
enum { IMAGE_HEIGHT = 1, IMAGE_WIDTH = 2, IMAGE_COLOURS = 3, IMAGE_BYTES = 4 };
enum { LOG_STATUS = 1, LOG_START = 1 };
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

// ---- CRC-32C (Castagnoli), reflected, polynomial 0x82F63B78; events are small: one table --------

uint32_t dj__crc32c(const void *data, size_t size) {
  static const uint32_t nibble[16] = {0x00000000u, 0x105EC76Fu, 0x20BD8EDEu, 0x30E349B1u,
                                      0x417B1DBCu, 0x5125DAD3u, 0x61C69362u, 0x7198540Du,
                                      0x82F63B78u, 0x92A8FC17u, 0xA24BB5A6u, 0xB21572C9u,
                                      0xC38D26C4u, 0xD3D3E1ABu, 0xE330A81Au, 0xF36E6F75u};
  const unsigned char *p = data;
  uint32_t c = ~0u;
  for (size_t i = 0; i < size; i++) {
    c ^= p[i];
    c = nibble[c & 15] ^ (c >> 4);
    c = nibble[c & 15] ^ (c >> 4);
  }
  return ~c;
}

// The record format masks CRCs so that a CRC over data that holds CRCs stays good.
static uint32_t masked(const void *data, size_t size) {
  uint32_t c = dj__crc32c(data, size);
  return ((c >> 15) | (c << 17)) + 0xa282ead8u;
}

// ---- protobuf, written -------------------------------------------------------------------------

static void put_varint(dj__buf *b, uint64_t v) {
  unsigned char t[10];
  size_t n = 0;
  while (v >= 0x80) {
    t[n++] = (unsigned char)(v | 0x80);
    v >>= 7;
  }
  t[n++] = (unsigned char)v;
  dj__buf_put(b, t, n);
}
static void put_key(dj__buf *b, int field, int wire) {
  put_varint(b, (uint64_t)field << 3 | (uint64_t)wire);
}
static void put_number(dj__buf *b, int field, uint64_t v) {
  put_key(b, field, WIRE_VARINT);
  put_varint(b, v);
}
static void put_bytes(dj__buf *b, int field, const void *data, size_t n) {
  put_key(b, field, WIRE_BYTES);
  put_varint(b, n);
  dj__buf_put(b, data, n);
}

// ---- writer ------------------------------------------------------------------------------------

struct dj__events {
  int fd;
  char *path;
  dj__buf pending;
  dj_status status; // the first failure, with its message
  char *message;
};

static void keep_failure(dj__events *e, dj_status s) {
  if (!s || e->status) return;
  e->status = s;
  e->message = dj__strf("%s", dj_error_message());
}

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void put_record(dj__events *e, const dj__buf *event) {
  if (e->status) return;
  if (event->failed || !event->data) {
    keep_failure(e, dj_error(DJ_E_NOMEM, "%s: no memory for an event", e->path));
    return;
  }
  uint64_t size = event->size;
  uint32_t a = masked(&size, 8), b = masked(event->data, event->size);
  dj__buf_put(&e->pending, &size, 8);
  dj__buf_put(&e->pending, &a, 4);
  dj__buf_put(&e->pending, event->data, event->size);
  dj__buf_put(&e->pending, &b, 4);
  if (e->pending.failed)
    keep_failure(e, dj_error(DJ_E_NOMEM, "%s: no memory for an event", e->path));
  else if (e->pending.size > FLUSH_BYTES)
    (void)dj__events_flush(e);
}

static void begin_event(dj__buf *b, double wall_time_s, uint64_t step) {
  put_key(b, EVENT_WALL_TIME, WIRE_64);
  dj__buf_put(b, &wall_time_s, 8);
  if (step) put_number(b, EVENT_STEP, step);
}

// `value` is a Summary.Value.
static void put_summary(dj__events *e, uint64_t step, const dj__buf *value) {
  dj__buf event = {0}, summary = {0};
  put_bytes(&summary, SUMMARY_VALUE, value->data, value->size);
  begin_event(&event, now_s(), step);
  put_bytes(&event, EVENT_SUMMARY, summary.data, summary.size);
  event.failed |= summary.failed | value->failed;
  put_record(e, &event);
  dj__buf_free(&summary);
  dj__buf_free(&event);
}

void dj__events_scalar(dj__events *e, uint64_t step, const char *tag, double value) {
  if (e->status) return;
  dj__buf v = {0};
  float f = (float)value;
  put_bytes(&v, VALUE_TAG, tag, strlen(tag));
  put_key(&v, VALUE_SIMPLE, WIRE_32);
  dj__buf_put(&v, &f, 4);
  put_summary(e, step, &v);
  dj__buf_free(&v);
}

static dj_status encode_png(int width, int height, const uint8_t *rgb, dj__buf *out) {
  png_image image = {.version = PNG_IMAGE_VERSION,
                     .width = (png_uint_32)width,
                     .height = (png_uint_32)height,
                     .format = PNG_FORMAT_RGB};
  png_alloc_size_t bytes = 0;
  if (!png_image_write_to_memory(&image, NULL, &bytes, 0, rgb, 0, NULL))
    return dj_error(DJ_E_INVALID, "events: a picture of %dx%d: %s", width, height, image.message);
  unsigned char *p = dj__buf_extend(out, bytes);
  if (!p || !png_image_write_to_memory(&image, p, &bytes, 0, rgb, 0, NULL))
    return dj_error(DJ_E_NOMEM, "events: a picture of %dx%d: %s", width, height, image.message);
  out->size = bytes;
  return DJ_OK;
}

void dj__events_image(dj__events *e, uint64_t step, const char *tag, int width, int height,
                      const uint8_t *rgb) {
  if (e->status) return;
  dj__buf png = {0}, image = {0}, v = {0};
  dj_status s = encode_png(width, height, rgb, &png);
  keep_failure(e, s);
  if (!s) {
    put_number(&image, IMAGE_HEIGHT, (uint64_t)height);
    put_number(&image, IMAGE_WIDTH, (uint64_t)width);
    put_number(&image, IMAGE_COLOURS, 3);
    put_bytes(&image, IMAGE_BYTES, png.data, png.size);
    put_bytes(&v, VALUE_TAG, tag, strlen(tag));
    put_bytes(&v, VALUE_IMAGE, image.data, image.size);
    v.failed |= image.failed | png.failed;
    put_summary(e, step, &v);
  }
  dj__buf_free(&png);
  dj__buf_free(&image);
  dj__buf_free(&v);
}

dj_status dj__events_flush(dj__events *e) {
  size_t at = 0;
  while (!e->status && at < e->pending.size) {
    ssize_t n = write(e->fd, e->pending.data + at, e->pending.size - at);
    if (n >= 0) {
      at += (size_t)n;
    } else if (errno != EINTR) {
      keep_failure(e, dj_error_errno("%s: cannot write", e->path));
    }
  }
  e->pending.size = 0;
  return e->status ? dj_error(e->status, "%s", e->message) : DJ_OK;
}

// A name after all others in the folder: names sort as they were made.
static dj_status open_new(dj__events *e, const char *dir, double wall_time_s) {
  for (int k = 0; k < 1000; k++) {
    free(e->path);
    e->path = dj__strf("%s/" NAME_START "%010lld.%03d.dojo", dir, (long long)wall_time_s, k);
    e->fd = open(e->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
    if (e->fd >= 0) return DJ_OK;
    if (errno != EEXIST) break;
  }
  return dj_error_errno("%s: cannot create", e->path);
}

dj_status dj__events_create(const char *dir, double wall_time_s, uint64_t first_step,
                            dj__events **out) {
  *out = NULL;
  dj__events *e = calloc(1, sizeof *e);
  if (!e) return dj_error(DJ_E_NOMEM, "events: no memory");
  dj_status s = open_new(e, dir, wall_time_s);
  if (s) {
    free(e->path);
    free(e);
    return s;
  }
  dj__buf b = {0};
  begin_event(&b, wall_time_s, 0);
  put_bytes(&b, EVENT_VERSION, "brain.Event:2", 13);
  put_record(e, &b);
  b.size = 0;
  if (first_step) {
    const unsigned char start[] = {LOG_STATUS << 3 | WIRE_VARINT, LOG_START};
    begin_event(&b, wall_time_s, first_step);
    put_bytes(&b, EVENT_LOG, start, sizeof start);
    put_record(e, &b);
  }
  dj__buf_free(&b);
  *out = e;
  return DJ_OK;
}

dj_status dj__events_close(dj__events *e) {
  if (!e) return DJ_OK;
  dj_status s = dj__events_flush(e);
  if (close(e->fd) != 0 && !s) s = dj_error_errno("%s: cannot close", e->path);
  dj__buf_free(&e->pending);
  free(e->message);
  free(e->path);
  free(e);
  return s;
}

// ---- reader ------------------------------------------------------------------------------------

typedef struct cursor {
  const unsigned char *p, *end;
} cursor;

typedef struct field {
  int number, wire;
  uint64_t value; // numbers, bit patterns
  cursor bytes;
} field;

static bool get_varint(cursor *c, uint64_t *v) {
  *v = 0;
  for (int shift = 0; shift < 64 && c->p < c->end; shift += 7) {
    unsigned char b = *c->p++;
    *v |= (uint64_t)(b & 0x7f) << shift;
    if (!(b & 0x80)) return true;
  }
  return false;
}

static bool get_field(cursor *c, field *f) {
  uint64_t key, n;
  if (!get_varint(c, &key) || key >> 3 == 0 || key >> 3 > 0x1fffffff) return false;
  f->number = (int)(key >> 3);
  f->wire = (int)(key & 7);
  if (f->wire == WIRE_VARINT) return get_varint(c, &f->value);
  if (f->wire == WIRE_BYTES) {
    if (!get_varint(c, &n)) return false;
  } else if (f->wire == WIRE_64 || f->wire == WIRE_32) {
    n = f->wire == WIRE_64 ? 8 : 4;
  } else {
    return false;
  }
  if (n > (uint64_t)(c->end - c->p)) return false;
  f->bytes = (cursor){c->p, c->p + n};
  f->value = 0;
  if (f->wire != WIRE_BYTES) memcpy(&f->value, c->p, n);
  c->p += n;
  return true;
}

static bool get_image(cursor c, dj__event *e) {
  field f;
  while (c.p < c.end) {
    if (!get_field(&c, &f)) return false;
    if (f.number == IMAGE_BYTES && f.wire == WIRE_BYTES) {
      e->png = f.bytes.p;
      e->png_size = (size_t)(f.bytes.end - f.bytes.p);
    }
  }
  return true;
}

static bool get_value(cursor c, dj__event *e, dj__event_fn *fn, void *user) {
  char tag[MAX_TAG] = "";
  bool point = false;
  e->value = NAN;
  e->png = NULL;
  e->png_size = 0;
  field f;
  while (c.p < c.end) {
    if (!get_field(&c, &f)) return false;
    size_t n = (size_t)(f.bytes.end - f.bytes.p);
    if (f.number == VALUE_TAG && f.wire == WIRE_BYTES) {
      if (n >= sizeof tag || memchr(f.bytes.p, 0, n)) return false;
      memcpy(tag, f.bytes.p, n);
      tag[n] = 0;
    } else if (f.number == VALUE_SIMPLE && f.wire == WIRE_32) {
      uint32_t bits = (uint32_t)f.value;
      float v;
      memcpy(&v, &bits, 4);
      e->value = (double)v;
      point = true;
    } else if (f.number == VALUE_IMAGE && f.wire == WIRE_BYTES) {
      if (!get_image(f.bytes, e)) return false;
      point = true;
    }
  }
  e->tag = tag;
  if (point) fn(user, e);
  e->tag = NULL;
  return true;
}

static bool get_summary(cursor c, dj__event *e, dj__event_fn *fn, void *user) {
  field f;
  while (c.p < c.end) {
    if (!get_field(&c, &f)) return false;
    if (f.number == SUMMARY_VALUE && f.wire == WIRE_BYTES && !get_value(f.bytes, e, fn, user))
      return false;
  }
  return true;
}

static bool get_log(cursor c, dj__event *e, dj__event_fn *fn, void *user) {
  field f;
  while (c.p < c.end) {
    if (!get_field(&c, &f)) return false;
    if (f.number != LOG_STATUS || f.wire != WIRE_VARINT || f.value != LOG_START) continue;
    e->is_start = 1;
    fn(user, e);
    e->is_start = 0;
  }
  return true;
}

static bool get_event(cursor c, dj__event_fn *fn, void *user) {
  dj__event e = {.value = NAN};
  field f;
  for (cursor k = c; k.p < k.end;) { // time and step may come behind what they belong to
    if (!get_field(&k, &f)) return false;
    if (f.number == EVENT_WALL_TIME && f.wire == WIRE_64) memcpy(&e.wall_time_s, &f.value, 8);
    if (f.number == EVENT_STEP && f.wire == WIRE_VARINT) e.step = f.value;
  }
  while (c.p < c.end) {
    if (!get_field(&c, &f)) return false;
    if (f.wire != WIRE_BYTES) continue;
    if (f.number == EVENT_SUMMARY && !get_summary(f.bytes, &e, fn, user)) return false;
    if (f.number == EVENT_LOG && !get_log(f.bytes, &e, fn, user)) return false;
  }
  return true;
}

static uint32_t u32_at(const unsigned char *p) {
  uint32_t v;
  memcpy(&v, p, 4);
  return v;
}

dj_status dj__events_parse(const void *data, size_t size, const char *what, dj__event_fn *fn,
                           void *user) {
  const unsigned char *p = data;
  size_t at = 0;
  while (size - at >= 12) {
    uint64_t n;
    memcpy(&n, p + at, 8);
    if (masked(p + at, 8) != u32_at(p + at + 8))
      return dj_error(DJ_E_FORMAT, "%s: offset %zu: wrong CRC of a record's length", what, at);
    if (n > size - at - 12 || size - at - 12 - n < 4) break; // the writer was killed here
    const unsigned char *body = p + at + 12;
    if (masked(body, n) != u32_at(body + n))
      return dj_error(DJ_E_FORMAT, "%s: offset %zu: wrong CRC of a record", what, at);
    if (!get_event((cursor){body, body + n}, fn, user))
      return dj_error(DJ_E_FORMAT, "%s: offset %zu: not an Event message", what, at);
    at += 16 + n;
  }
  return DJ_OK;
}

dj_status dj__events_read(const char *path, dj__event_fn *fn, void *user) {
  dj__file_map m;
  DJ_TRY(dj__file_map_open(path, &m));
  dj_status s = dj__events_parse(m.data, m.size, path, fn, user);
  dj__file_map_close(&m);
  return s;
}

dj_status dj__events_read_dir(const char *dir, dj__event_fn *fn, void *user) {
  char **names;
  size_t n;
  DJ_TRY(dj__list_dir(dir, &names, &n));
  dj_status s = DJ_OK;
  for (size_t i = 0; i < n && !s; i++) {
    if (strncmp(names[i], NAME_START, strlen(NAME_START)) != 0) continue;
    char *path = dj__join(dir, names[i]);
    s = dj__events_read(path, fn, user);
    free(path);
  }
  dj__free_names(names, n);
  return s;
}
