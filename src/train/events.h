/*
 * TensorBoard event files: TFRecord framing (length, masked CRC-32C, bytes, masked CRC-32C) around
 * Event protobuf messages, encoded and read by hand: four messages, a handful of fields
 * (tensorflow/core/util/event.proto, framework/summary.proto).
 *
 *     dj__events *e;
 *     DJ_TRY(dj__events_create("R", wall_time_s, first_step, &e));
 *     dj__events_scalar(e, step, "train/loss", 0.5);
 *     dj__events_flush(e);
 *     DJ_TRY(dj__events_close(e));      // reports the first failure since create
 *
 * The first failure is kept, later calls do nothing: the training loop need not look at every
 * point.
 */
#ifndef DOJO_TRAIN_EVENTS_H
#define DOJO_TRAIN_EVENTS_H

#include <stddef.h>
#include <stdint.h>

#include "dojo/status.h"

typedef struct dj__events dj__events;
/* A new file in `dir`. With first_step > 0 its first event is a session start that makes readers
 * drop what earlier files hold from that step on. */
dj_status dj__events_create(const char *dir, double wall_time_s, uint64_t first_step,
                            dj__events **e);
void dj__events_scalar(dj__events *e, uint64_t step, const char *tag, double value);
/* rgb (height, width, 3) u8; kept as PNG. */
void dj__events_image(dj__events *e, uint64_t step, const char *tag, int width, int height,
                      const uint8_t *rgb);
dj_status dj__events_flush(dj__events *e);
dj_status dj__events_close(dj__events *e); /* NULL is fine */

/* ---- reading ---- */
typedef struct dj__event {
  double wall_time_s;
  uint64_t step;
  int is_start;       /* a session start: earlier points from `step` on do not count */
  const char *tag;    /* NUL-terminated, valid during the call; NULL for a start */
  double value;       /* scalar; NaN for an image */
  const uint8_t *png; /* NULL for a scalar */
  size_t png_size;
} dj__event;
typedef void dj__event_fn(void *user, const dj__event *e);
/* Calls `fn` once a point. A cut last record (the writer was killed) ends the file quietly; a wrong
 * CRC or a broken message is DJ_E_FORMAT with the offset. */
dj_status dj__events_read(const char *path, dj__event_fn *fn, void *user);
/* The same from memory; `what` names it in errors. */
dj_status dj__events_parse(const void *data, size_t size, const char *what, dj__event_fn *fn,
                           void *user);
/* All event files of a folder, oldest first. */
dj_status dj__events_read_dir(const char *dir, dj__event_fn *fn, void *user);

uint32_t dj__crc32c(const void *data, size_t size);

#endif
