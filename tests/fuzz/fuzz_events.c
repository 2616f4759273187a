/* Any bytes as an event file, with CRCs mended so that the messages behind them are reached. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "train/events.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void see(void *user, const dj__event *e) {
  size_t *n = user;
  if (e->tag) *n += strlen(e->tag);
  for (size_t i = 0; i < e->png_size; i++) *n += e->png[i];
}

static void put_masked(uint8_t *at, const void *data, size_t size) {
  uint32_t c = dj__crc32c(data, size);
  c = ((c >> 15) | (c << 17)) + 0xa282ead8u;
  memcpy(at, &c, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  size_t n = 0;
  (void)dj__events_parse(data, size, "fuzz", see, &n);
  uint8_t *record = malloc(size + 16);
  if (!record) return 0;
  uint64_t length = size;
  memcpy(record, &length, 8);
  put_masked(record + 8, record, 8);
  if (size) memcpy(record + 12, data, size);
  put_masked(record + 12 + size, record + 12, size);
  (void)dj__events_parse(record, size + 16, "fuzz", see, &n);
  free(record);
  volatile size_t keep = n;
  (void)keep;
  return 0;
}
