/*
 * Times writing and reading of an MCAP file by libdojo; bench/mcap_speed.py runs it in turn with
 * other libraries on the same messages. Prints "SECONDS MESSAGES BYTES" (of payload).
 *
 *     mcap_speed write|stream|index|random FILE none|lz4|zstd small|large MESSAGES
 *
 * Messages: `small` are 64 bytes that look like a vehicle's bus (slowly counting 64-bit words),
 * `large` 30000 bytes of noise, like pictures that are compressed already. Four channels in turn,
 * one message a microsecond.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dojo/mcap.h"

enum { SMALL = 64, LARGE = 30000, N_SMALL = 4096, N_LARGE = 256, CHANNELS = 4, RANDOM = 2000 };

static void must(dj_status s) {
  if (!s) return;
  (void)fprintf(stderr, "mcap_speed: %s\n", dj_error_message());
  exit(1);
}

static double now(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static unsigned char *make_payloads(bool large, size_t *size, size_t *n) {
  *size = large ? LARGE : SMALL;
  *n = large ? N_LARGE : N_SMALL;
  unsigned char *p = malloc(*size * *n);
  if (!p) exit(1);
  uint64_t x = 88172645463325252u;
  for (size_t i = 0; i < *size * *n / 8; i++) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    uint64_t word = large ? x : i / 8 * 1000 + (i % 8) * 77777 + x % 16;
    memcpy(p + i * 8, &word, 8);
  }
  return p;
}

static void write_file(const char *path, const char *compression, bool large, long n) {
  size_t size, kinds;
  unsigned char *payloads = make_payloads(large, &size, &kinds);
  const dj_mcap_options o = {.compression = !strcmp(compression, "zstd")  ? DJ_MCAP_ZSTD
                                            : !strcmp(compression, "lz4") ? DJ_MCAP_LZ4
                                                                          : DJ_MCAP_NONE};
  uint16_t schema, channels[CHANNELS];
  dj_mcap_writer *w;
  double start = now();
  must(dj_mcap_writer_open(path, &o, &w));
  must(dj_mcap_add_schema(w, "Thing", "raw", "", 0, &schema));
  for (int i = 0; i < CHANNELS; i++) {
    char topic[16];
    (void)snprintf(topic, sizeof topic, "/%d", i);
    must(dj_mcap_add_channel(w, schema, topic, "raw", NULL, 0, &channels[i]));
  }
  for (long k = 0; k < n; k++)
    must(dj_mcap_write(w, &(dj_mcap_message){.channel_id = channels[k % CHANNELS],
                                             .sequence = (uint32_t)k,
                                             .log_time = (uint64_t)k * 1000,
                                             .publish_time = (uint64_t)k * 1000,
                                             .data = payloads + (size_t)k % kinds * size,
                                             .size = size}));
  must(dj_mcap_writer_close(w));
  (void)printf("%.6f %ld %zu\n", now() - start, n, (size_t)n * size);
  free(payloads);
}

static dj_status from_file(void *user, void *buf, size_t n, size_t *got) {
  *got = fread(buf, 1, n, user);
  return DJ_OK;
}

static void read_stream(const char *path) {
  double start = now();
  FILE *f = fopen(path, "rb");
  if (!f) exit(1);
  dj_mcap_stream *s;
  dj_mcap_record r;
  bool more;
  long n = 0;
  size_t bytes = 0;
  must(dj_mcap_stream_open(from_file, f, NULL, false, &s));
  for (must(dj_mcap_stream_next(s, &r, &more)); more; must(dj_mcap_stream_next(s, &r, &more)))
    if (r.opcode == DJ_MCAP_MESSAGE) {
      n++;
      bytes += r.u.message.size;
    }
  dj_mcap_stream_close(s);
  (void)fclose(f);
  (void)printf("%.6f %ld %zu\n", now() - start, n, bytes);
}

static void read_index(const char *path) {
  double start = now();
  dj_mcap *m;
  dj_mcap_iter *it;
  dj_mcap_message msg;
  bool more;
  long n = 0;
  size_t bytes = 0;
  must(dj_mcap_open(path, NULL, &m));
  must(dj_mcap_iter_open(m, NULL, &it));
  for (must(dj_mcap_iter_next(it, &msg, &more)); more; must(dj_mcap_iter_next(it, &msg, &more))) {
    n++;
    bytes += msg.size;
  }
  dj_mcap_iter_close(it);
  dj_mcap_close(m);
  (void)printf("%.6f %ld %zu\n", now() - start, n, bytes);
}

// One message each at places that jump through the file, as a shuffled training set asks for them.
static void read_random(const char *path) {
  double start = now();
  dj_mcap *m;
  dj_mcap_message msg;
  const dj_mcap_entry *entries;
  size_t n, bytes = 0;
  must(dj_mcap_open(path, NULL, &m));
  must(dj_mcap_channel_entries(m, dj_mcap_channel_by_topic(m, "/1")->id, &entries, &n));
  for (size_t i = 0; i < RANDOM; i++) {
    must(dj_mcap_read_message(m, &entries[i * 2654435761u % n], &msg));
    bytes += msg.size;
  }
  dj_mcap_close(m);
  (void)printf("%.6f %d %zu\n", now() - start, (int)RANDOM, bytes);
}

int main(int argc, char **argv) {
  if (argc != 6) {
    (void)fprintf(stderr, "use: mcap_speed write|stream|index|random FILE none|lz4|zstd "
                          "small|large MESSAGES\n");
    return 2;
  }
  if (!strcmp(argv[1], "write"))
    write_file(argv[2], argv[3], !strcmp(argv[4], "large"), strtol(argv[5], NULL, 10));
  else if (!strcmp(argv[1], "stream"))
    read_stream(argv[2]);
  else if (!strcmp(argv[1], "index"))
    read_index(argv[2]);
  else
    read_random(argv[2]);
  return 0;
}
