/*
 * MCAP: what is written is read again (indexed and streamed, every compression, chunked or not), in
 * the order asked for; damage is found by the checker, refused by the readers, and survived by the
 * rescuer; hostile sizes cost neither memory nor a crash.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/crc32.h"
#include "base/fs.h"
#include "dojo/mcap.h"
#include "fleet/mcap_wire.h"

static void must(dj_status s, const char *what, int line) {
  if (s) fail_msg("line %d: %s: %s", line, what, dj_error_message());
}
#define OK(e) must(e, #e, __LINE__)

typedef struct bytes {
  unsigned char *data;
  size_t size;
} bytes;

enum { N = 60 }; // messages of a sample log

/* Message k goes to channel k % 2, is logged at a time that runs back and forth, and is of a size
 * and content that k gives. */
static uint64_t time_of(int k) {
  return 1000 + (uint64_t)(k ^ 3) * 10;
}
static size_t payload(int k, unsigned char *to) {
  size_t n = (size_t)(k * 7) % 90;
  for (size_t i = 0; i < n; i++) to[i] = (unsigned char)(k + (int)(i / 8));
  return n;
}

static bytes sample_log(const dj_mcap_options *o) {
  dj_mcap_writer *w;
  uint16_t schema, channel[2];
  OK(dj_mcap_writer_open_memory(o, &w));
  const dj_mcap_pair pairs[] = {{"a", "b"}, {"key", "value of \xc3\xa9"}};
  OK(dj_mcap_write_metadata(w, "first", pairs, 2));
  OK(dj_mcap_add_schema(w, "example.Thing", "jsonschema", "{\"type\":1}", 10, &schema));
  OK(dj_mcap_add_channel(w, schema, "/one", "json", pairs, 1, &channel[0]));
  OK(dj_mcap_add_channel(w, 0, "/two", "raw", NULL, 0, &channel[1]));
  for (int k = 0; k < N; k++) {
    unsigned char data[96];
    size_t n = payload(k, data);
    OK(dj_mcap_write(w, &(dj_mcap_message){.channel_id = channel[k % 2],
                                           .sequence = (uint32_t)k,
                                           .log_time = time_of(k),
                                           .publish_time = time_of(k) - 5,
                                           .data = data,
                                           .size = n}));
    if (k == N / 2)
      OK(dj_mcap_write_attachment(w, &(dj_mcap_attachment){.log_time = 7,
                                                           .create_time = 6,
                                                           .name = "calibration.json",
                                                           .media_type = "application/json",
                                                           .data = "{\"f\": 900}",
                                                           .size = 10}));
  }
  OK(dj_mcap_write_metadata(w, "last", NULL, 0));
  bytes b;
  void *data;
  OK(dj_mcap_writer_close_memory(w, &data, &b.size));
  b.data = data;
  return b;
}

static void same_message(const dj_mcap_message *m, int k) {
  unsigned char data[96];
  size_t n = payload(k, data);
  assert_int_equal(m->sequence, k);
  assert_int_equal(m->log_time, time_of(k));
  assert_int_equal(m->publish_time, time_of(k) - 5);
  assert_int_equal(m->size, n);
  if (n) assert_memory_equal(m->data, data, n);
}

static const dj_mcap_options variants[] = {
    {.chunk_size = 512},
    {.chunk_size = 512, .compression = DJ_MCAP_ZSTD},
    {.chunk_size = 700, .compression = DJ_MCAP_LZ4, .level = 9},
    {.compression = DJ_MCAP_ZSTD, .level = 19},
    {.omit = DJ_MCAP_OMIT_CHUNKS},
    {.chunk_size = 300, .compression = DJ_MCAP_LZ4, .omit = DJ_MCAP_OMIT_MESSAGE_INDEX},
    {.chunk_size = 300, .compression = DJ_MCAP_ZSTD, .omit = DJ_MCAP_OMIT_CHUNK_INDEX},
    {.chunk_size = 300, .omit = DJ_MCAP_OMIT_STATISTICS | DJ_MCAP_OMIT_SUMMARY_OFFSETS},
    {.chunk_size = 300,
     .omit = DJ_MCAP_OMIT_REPEATED_SCHEMAS | DJ_MCAP_OMIT_REPEATED_CHANNELS | DJ_MCAP_OMIT_CRC},
    {.chunk_size = 300, .padding = 13, .compression = DJ_MCAP_ZSTD},
    {.omit = 0x3ff}, // nothing but the data section
};
enum { N_VARIANTS = sizeof variants / sizeof *variants };

/* ---- indexed reading ---- */
static void read_indexed(const bytes *b) {
  dj_mcap *m;
  OK(dj_mcap_open_memory("sample", b->data, b->size, NULL, &m));
  size_t n;
  assert_string_equal(dj_mcap_get_header(m)->library, "libdojo");
  (void)dj_mcap_schemas(m, &n);
  assert_int_equal(n, 1);
  const dj_mcap_channel *one = dj_mcap_channel_by_topic(m, "/one");
  assert_non_null(one);
  assert_string_equal(dj_mcap_pair_value(one->metadata, one->n_metadata, "a"), "b");
  const dj_mcap_schema *s = dj_mcap_schema_by_id(m, one->schema_id);
  assert_string_equal(s->name, "example.Thing");
  assert_memory_equal(s->data, "{\"type\":1}", s->size);
  assert_int_equal(dj_mcap_channel_by_topic(m, "/two")->schema_id, 0);
  assert_null(dj_mcap_channel_by_topic(m, "/three"));
  // Everything by time.
  dj_mcap_iter *it;
  dj_mcap_message msg;
  bool more, seen[N] = {0};
  uint64_t last = 0;
  OK(dj_mcap_iter_open(m, NULL, &it));
  for (int i = 0; i < N; i++) {
    OK(dj_mcap_iter_next(it, &msg, &more));
    assert_true(more);
    assert_true(msg.log_time >= last);
    last = msg.log_time;
    assert_in_range(msg.sequence, 0, N - 1);
    assert_false(seen[msg.sequence]);
    seen[msg.sequence] = true;
    same_message(&msg, (int)msg.sequence);
  }
  OK(dj_mcap_iter_next(it, &msg, &more));
  assert_false(more);
  dj_mcap_iter_close(it);
  // As they lie.
  OK(dj_mcap_iter_open(m, &(dj_mcap_query){.file_order = true}, &it));
  for (int i = 0; i < N; i++) {
    OK(dj_mcap_iter_next(it, &msg, &more));
    assert_true(more);
    same_message(&msg, i);
  }
  dj_mcap_iter_close(it);
  // One topic between two times.
  const char *topics[] = {"/two", "/three"};
  const dj_mcap_query q = {.topics = topics, .n_topics = 2, .start = 1100, .end = 1200};
  int want = 0, got = 0;
  for (int k = 1; k < N; k += 2) want += time_of(k) >= q.start && time_of(k) < q.end;
  OK(dj_mcap_iter_open(m, &q, &it));
  for (OK(dj_mcap_iter_next(it, &msg, &more)); more; OK(dj_mcap_iter_next(it, &msg, &more))) {
    assert_int_equal(msg.sequence % 2, 1);
    assert_true(msg.log_time >= q.start && msg.log_time < q.end);
    got++;
  }
  assert_int_equal(got, want);
  assert_true(got > 3);
  dj_mcap_iter_close(it);
  // Message k of a channel.
  const dj_mcap_entry *entries;
  OK(dj_mcap_channel_entries(m, one->id, &entries, &n));
  assert_int_equal(n, N / 2);
  OK(dj_mcap_read_message(m, &entries[n - 1], &msg));
  assert_int_equal(msg.log_time, entries[n - 1].log_time);
  assert_int_equal(dj_mcap_channel_entries(m, 999, &entries, &n), DJ_E_NOT_FOUND);
  // Attachment and metadata.
  dj_mcap_attachment a;
  dj_mcap_metadata md;
  (void)dj_mcap_attachments(m, &n);
  assert_int_equal(n, 1);
  OK(dj_mcap_read_attachment(m, 0, &a));
  assert_string_equal(a.name, "calibration.json");
  assert_int_equal(a.create_time, 6);
  assert_int_equal(a.size, 10);
  assert_memory_equal(a.data, "{\"f\": 900}", 10);
  assert_int_equal(dj_mcap_read_attachment(m, 1, &a), DJ_E_NOT_FOUND);
  OK(dj_mcap_find_metadata(m, "first", &md));
  assert_int_equal(md.n, 2);
  assert_string_equal(dj_mcap_pair_value(md.pairs, md.n, "key"), "value of \xc3\xa9");
  assert_null(dj_mcap_pair_value(md.pairs, md.n, "other"));
  OK(dj_mcap_find_metadata(m, "last", &md));
  assert_int_equal(md.n, 0);
  assert_int_equal(dj_mcap_find_metadata(m, "middle", &md), DJ_E_NOT_FOUND);
  dj_mcap_close(m);
}

static void round_trip(void **state) {
  (void)state;
  for (int v = 0; v < N_VARIANTS; v++) {
    bytes b = sample_log(&variants[v]);
    read_indexed(&b);
    free(b.data);
  }
}

/* ---- streamed reading ---- */
typedef struct source { // gives at most 7 bytes at once
  const unsigned char *p;
  size_t left;
} source;

static dj_status read_little(void *user, void *buf, size_t n, size_t *got) {
  source *s = user;
  if (n > 7) n = 7;
  if (n > s->left) n = s->left;
  memcpy(buf, s->p, n);
  s->p += n;
  s->left -= n;
  *got = n;
  return DJ_OK;
}

static void streamed(void **state) {
  (void)state;
  for (int v = 0; v < N_VARIANTS; v++) {
    bytes b = sample_log(&variants[v]);
    source src = {b.data, b.size};
    dj_mcap_stream *s;
    OK(dj_mcap_stream_open(read_little, &src, NULL, false, &s));
    dj_mcap_record r;
    bool more;
    int messages = 0, attachments = 0, metadata = 0, footers = 0;
    for (OK(dj_mcap_stream_next(s, &r, &more)); more; OK(dj_mcap_stream_next(s, &r, &more))) {
      assert_int_not_equal(r.opcode, DJ_MCAP_CHUNK);
      if (r.opcode == DJ_MCAP_MESSAGE) same_message(&r.u.message, messages++);
      if (r.opcode == DJ_MCAP_ATTACHMENT) {
        assert_memory_equal(r.u.attachment.data, "{\"f\": 900}", 10);
        attachments++;
      }
      metadata += r.opcode == DJ_MCAP_METADATA;
      footers += r.opcode == DJ_MCAP_FOOTER;
      assert_int_equal(r.in_chunk && r.opcode == DJ_MCAP_MESSAGE,
                       r.opcode == DJ_MCAP_MESSAGE && !(variants[v].omit & DJ_MCAP_OMIT_CHUNKS));
    }
    assert_int_equal(messages, N);
    assert_int_equal(attachments, 1);
    assert_int_equal(metadata, 2);
    assert_int_equal(footers, 1);
    dj_mcap_stream_close(s);
    // Raw chunks, from memory: every byte of the file is in exactly one record.
    OK(dj_mcap_stream_open_memory(b.data, b.size, NULL, true, &s));
    uint64_t at = DJ__MCAP_MAGIC;
    for (OK(dj_mcap_stream_next(s, &r, &more)); more; OK(dj_mcap_stream_next(s, &r, &more))) {
      assert_int_equal(r.offset, at);
      at += r.length;
    }
    assert_int_equal(at + DJ__MCAP_MAGIC, b.size);
    dj_mcap_stream_close(s);
    free(b.data);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(round_trip),
      cmocka_unit_test(streamed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
