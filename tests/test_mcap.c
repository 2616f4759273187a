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

/* ---- checking ---- */
typedef struct found { // what the checker told
  const char *words;   // looked for
  int n;
  uint64_t offset; // of the first one with these words, or of the first
  char text[512];
  char all[4096];
} found;

static void note_problem(void *user, uint64_t offset, const char *text) {
  found *f = user;
  bool first = !f->n++, hit = f->words && strstr(text, f->words);
  if (hit) f->words = NULL;
  if (first || hit) {
    f->offset = offset;
    (void)snprintf(f->text, sizeof f->text, "%s", text);
  }
  size_t used = strlen(f->all);
  (void)snprintf(f->all + used, sizeof f->all - used, "%s\n", text);
}

static uint64_t problems(const bytes *b, found *f) {
  dj_mcap_check_report report;
  *f = (found){.words = f->words};
  OK(dj_mcap_check_memory(b->data, b->size, NULL, note_problem, f, &report));
  assert_int_equal(report.bytes, b->size);
  assert_int_equal(report.problems, f->n);
  return report.problems;
}

static void whole_files_check_clean(void **state) {
  (void)state;
  for (int v = 0; v < N_VARIANTS; v++) {
    bytes b = sample_log(&variants[v]);
    found f = {0};
    dj_mcap_check_report r;
    OK(dj_mcap_check_memory(b.data, b.size, NULL, note_problem, &f, &r));
    if (r.problems) fail_msg("variant %d: byte %llu: %s", v, (unsigned long long)f.offset, f.text);
    assert_int_equal(r.messages, N);
    assert_int_equal(r.attachments, 1);
    assert_int_equal(r.metadata, 2);
    if (variants[v].omit & DJ_MCAP_OMIT_CHUNKS)
      assert_int_equal(r.chunks, 0);
    else
      assert_true(r.chunks >= 2);
    free(b.data);
  }
}

// With CRCs on, no single flipped bit goes unseen, wherever it is.
static void every_flipped_bit_is_found(void **state) {
  (void)state;
  const int with_crc[] = {0, 1, 2, 4, 6, 9};
  for (size_t v = 0; v < sizeof with_crc / sizeof *with_crc; v++) {
    bytes b = sample_log(&variants[with_crc[v]]);
    for (size_t i = 0; i < b.size; i++) {
      found f = {0};
      unsigned char bit = (unsigned char)(1u << (i % 8));
      b.data[i] ^= bit;
      if (!problems(&b, &f)) fail_msg("variant %d: byte %zu of %zu", with_crc[v], i, b.size);
      b.data[i] ^= bit;
    }
    free(b.data);
  }
}

static void every_cut_is_found(void **state) {
  (void)state;
  bytes b = sample_log(&variants[1]);
  for (size_t n = 0; n < b.size; n++) {
    found f = {0};
    if (!problems(&(bytes){b.data, n}, &f)) fail_msg("cut to %zu of %zu bytes", n, b.size);
    dj_mcap *m;
    assert_int_equal(dj_mcap_open_memory("cut", b.data, n, NULL, &m), DJ_E_FORMAT);
    assert_null(m);
  }
  free(b.data);
}

// ---- files made of records, right but for one thing ----

enum {
  HEADER,
  SCHEMA,
  CHANNEL,
  CHUNK,
  INDEX,
  ATTACHMENT,
  METADATA,
  DATA_END,
  SUMMARY_SCHEMA,
  SUMMARY_CHANNEL,
  STATISTICS,
  CHUNK_INDEX,
  ATTACHMENT_INDEX,
  METADATA_INDEX,
  SUMMARY_OFFSET,
  FOOTER,
  RECORDS
};

typedef struct parts { // a small file in its records, and what is to be changed in it
  dj_mcap_record r[RECORDS];
  uint64_t at[RECORDS];
  dj_mcap_index_entry entries[2];
  dj_mcap_channel_number offsets[1], counts[1];
  dj__buf inside, file;
  bool skip[RECORDS];
} parts;

static void inside_message(parts *p, uint16_t channel, uint64_t time, int k) {
  p->entries[k] = (dj_mcap_index_entry){time, p->inside.size};
  dj_mcap_record m = {.opcode = DJ_MCAP_MESSAGE};
  m.u.message = (dj_mcap_message){.channel_id = channel, .log_time = time, .data = "xy", .size = 2};
  dj__mcap_encode(&p->inside, &m, 0, true);
}

static void put(parts *p, int i) {
  p->at[i] = p->file.size;
  if (!p->skip[i]) dj__mcap_encode(&p->file, &p->r[i], 0, true);
}

static uint64_t length_of(const parts *p, int i) {
  return p->at[i + 1] - p->at[i];
}

static void fill_data(parts *p) {
  static const uint8_t opcodes[RECORDS] = {
      DJ_MCAP_HEADER,           DJ_MCAP_SCHEMA,         DJ_MCAP_CHANNEL,        DJ_MCAP_CHUNK,
      DJ_MCAP_MESSAGE_INDEX,    DJ_MCAP_ATTACHMENT,     DJ_MCAP_METADATA,       DJ_MCAP_DATA_END,
      DJ_MCAP_SCHEMA,           DJ_MCAP_CHANNEL,        DJ_MCAP_STATISTICS,     DJ_MCAP_CHUNK_INDEX,
      DJ_MCAP_ATTACHMENT_INDEX, DJ_MCAP_METADATA_INDEX, DJ_MCAP_SUMMARY_OFFSET, DJ_MCAP_FOOTER};
  for (int i = 0; i < RECORDS; i++) p->r[i].opcode = opcodes[i];
  p->r[HEADER].u.header = (dj_mcap_header){"", "test"};
  p->r[SCHEMA].u.schema = p->r[SUMMARY_SCHEMA].u.schema =
      (dj_mcap_schema){.id = 1, .name = "Thing", .encoding = "", .data = "", .size = 0};
  p->r[CHANNEL].u.channel = p->r[SUMMARY_CHANNEL].u.channel =
      (dj_mcap_channel){.id = 3, .schema_id = 1, .topic = "/t", .message_encoding = "raw"};
  inside_message(p, 3, 20, 0);
  inside_message(p, 3, 10, 1);
  p->r[CHUNK].u.chunk =
      (dj_mcap_chunk){10, 20, p->inside.size, 0, "", p->inside.data, p->inside.size};
  p->r[INDEX].u.message_index = (dj_mcap_message_index){3, p->entries, 2};
  p->r[ATTACHMENT].u.attachment = (dj_mcap_attachment){5, 6, "a", "text/plain", "data", 4, 0};
  p->r[METADATA].u.metadata = (dj_mcap_metadata){"m", NULL, 0};
}

static void fill_summary(parts *p) {
  p->offsets[0] = p->counts[0] = (dj_mcap_channel_number){3, p->at[INDEX]};
  p->counts[0].value = 2;
  p->r[STATISTICS].u.statistics = (dj_mcap_statistics){2, 1, 1, 1, 1, 1, 10, 20, p->counts, 1};
  p->r[CHUNK_INDEX].u.chunk_index = (dj_mcap_chunk_index){10,
                                                          20,
                                                          p->at[CHUNK],
                                                          length_of(p, CHUNK),
                                                          p->offsets,
                                                          1,
                                                          length_of(p, INDEX),
                                                          "",
                                                          p->inside.size,
                                                          p->inside.size};
  p->r[ATTACHMENT_INDEX].u.attachment_index = (dj_mcap_attachment_index){
      p->at[ATTACHMENT], length_of(p, ATTACHMENT), 5, 6, 4, "a", "text/plain"};
  p->r[METADATA_INDEX].u.metadata_index =
      (dj_mcap_metadata_index){p->at[METADATA], length_of(p, METADATA), "m"};
}

typedef struct fault { // how a file is spoilt, where that has to be told and in which words
  const char *name;
  void (*data)(parts *p);    // before the data section is written
  void (*summary)(parts *p); // before the summary is written
  int where;
  const char *words;
} fault;

static bytes assemble(parts *p, const fault *f) {
  *p = (parts){0};
  fill_data(p);
  if (f->data) f->data(p);
  dj__buf_put(&p->file, dj__mcap_magic, DJ__MCAP_MAGIC);
  for (int i = HEADER; i <= DATA_END; i++) put(p, i);
  p->at[SUMMARY_SCHEMA] = p->file.size;
  fill_summary(p);
  p->r[FOOTER].u.footer.summary_start = p->file.size;
  if (f->summary) f->summary(p);
  for (int i = SUMMARY_SCHEMA; i <= METADATA_INDEX; i++) put(p, i);
  p->at[SUMMARY_OFFSET] = p->file.size;
  if (!p->r[SUMMARY_OFFSET].u.summary_offset.group_opcode)
    p->r[SUMMARY_OFFSET].u.summary_offset =
        (dj_mcap_summary_offset){DJ_MCAP_STATISTICS, p->at[STATISTICS], length_of(p, STATISTICS)};
  p->r[FOOTER].u.footer.summary_offset_start += p->file.size;
  put(p, SUMMARY_OFFSET);
  put(p, FOOTER);
  dj__buf_put(&p->file, dj__mcap_magic, DJ__MCAP_MAGIC);
  assert_false(p->file.failed || p->inside.failed);
  return (bytes){p->file.data, p->file.size};
}

#define SPOIL(name, ...)                                                                           \
  static void name(parts *p) {                                                                     \
    __VA_ARGS__;                                                                                   \
  }
SPOIL(no_schema, p->skip[SCHEMA] = true)
SPOIL(other_schema, p->r[SUMMARY_SCHEMA].u.schema.name = "Other")
SPOIL(no_channel, p->skip[CHANNEL] = true)
SPOIL(other_channel, p->r[SUMMARY_CHANNEL].u.channel.topic = "/other")
SPOIL(chunk_crc, p->r[CHUNK].u.chunk.uncompressed_crc = 77)
SPOIL(chunk_size, p->r[CHUNK].u.chunk.uncompressed_size++)
SPOIL(chunk_huge, p->r[CHUNK].u.chunk.uncompressed_size = UINT64_MAX)
SPOIL(chunk_end, p->r[CHUNK].u.chunk.end_time = 21)
SPOIL(chunk_lz4, p->r[CHUNK].u.chunk.compression = "lz4")
SPOIL(chunk_brotli, p->r[CHUNK].u.chunk.compression = "br")
SPOIL(inside_broken, p->inside.data[1] = 0xff)
SPOIL(inside_footer, p->inside.data[0] = DJ_MCAP_METADATA_INDEX)
SPOIL(index_time, p->entries[1].log_time = 11)
SPOIL(index_offset, p->entries[0].offset = UINT64_MAX)
SPOIL(index_short, p->r[INDEX].u.message_index.n = 1)
SPOIL(index_channel, p->r[INDEX].u.message_index.channel_id = 4)
SPOIL(index_alone, p->skip[CHUNK] = true)
SPOIL(data_crc, p->r[DATA_END].u.data_end.data_section_crc = 5)
SPOIL(no_data_end, p->skip[DATA_END] = true)
SPOIL(no_header, p->skip[HEADER] = true)
SPOIL(stat_messages, p->r[STATISTICS].u.statistics.message_count = 3)
SPOIL(stat_count, p->counts[0].value = 1)
SPOIL(stat_start, p->r[STATISTICS].u.statistics.start_time = 9)
SPOIL(stat_chunks, p->r[STATISTICS].u.statistics.chunk_count = 0)
SPOIL(ci_offset, p->r[CHUNK_INDEX].u.chunk_index.chunk_offset++)
SPOIL(ci_length, p->r[CHUNK_INDEX].u.chunk_index.chunk_length = UINT64_MAX)
SPOIL(ci_index, p->offsets[0].value = UINT64_MAX / 2)
SPOIL(ci_compression, p->r[CHUNK_INDEX].u.chunk_index.compression = "zstd")
SPOIL(ci_twice, p->r[ATTACHMENT_INDEX] = p->r[CHUNK_INDEX])
SPOIL(ai_offset, p->r[ATTACHMENT_INDEX].u.attachment_index.offset = p->at[METADATA])
SPOIL(ai_name, p->r[ATTACHMENT_INDEX].u.attachment_index.name = "b")
SPOIL(ai_size, p->r[ATTACHMENT_INDEX].u.attachment_index.data_size = 5)
SPOIL(mi_length, p->r[METADATA_INDEX].u.metadata_index.length = 1)
SPOIL(mi_name, p->r[METADATA_INDEX].u.metadata_index.name = "n")
SPOIL(group_start,
      p->r[SUMMARY_OFFSET].u.summary_offset = ((dj_mcap_summary_offset){DJ_MCAP_STATISTICS, 1, 2}))
SPOIL(group_none,
      p->r[SUMMARY_OFFSET].u.summary_offset = ((dj_mcap_summary_offset){DJ_MCAP_METADATA, 1, 2}))
SPOIL(footer_start, p->r[FOOTER].u.footer.summary_start--)
SPOIL(footer_offsets, p->r[FOOTER].u.footer.summary_offset_start = 1)
SPOIL(footer_crc, p->r[FOOTER].u.footer.summary_crc = 9)
SPOIL(apart, p->r[METADATA_INDEX] = p->r[SUMMARY_SCHEMA])

static const fault faults[] = {
    {"schema missing", no_schema, NULL, CHANNEL, "uses schema 1, which is not defined"},
    {"schema differs", NULL, other_schema, SUMMARY_SCHEMA, "defined before with another content"},
    {"channel missing", no_channel, NULL, CHUNK, "channel 3, which is not defined"},
    {"channel differs", NULL, other_channel, SUMMARY_CHANNEL, "with another content"},
    {"chunk CRC", chunk_crc, NULL, CHUNK, "the chunk's CRC is 0000004d"},
    {"chunk size", chunk_size, NULL, CHUNK, "an uncompressed chunk says"},
    {"huge chunk", chunk_huge, NULL, CHUNK, "over the limit"},
    {"chunk time", chunk_end, NULL, CHUNK, "they are from 10 to 20"},
    {"not lz4", chunk_lz4, NULL, CHUNK, "lz4 chunk of"},
    {"unknown compression", chunk_brotli, NULL, CHUNK, "compression \"br\""},
    {"record in a chunk", inside_broken, NULL, CHUNK, "record at byte 0 of the chunk: Message"},
    {"index in a chunk", inside_footer, NULL, CHUNK, "MetadataIndex"},
    {"index time", index_time, NULL, INDEX, "and 11 ns, it is at byte 33 and 10 ns"},
    {"index offset", index_offset, NULL, INDEX, "MessageIndex of channel 3 says"},
    {"index is short", index_short, NULL, INDEX, "lists 1 messages, the chunk has 2"},
    {"index of another", index_channel, NULL, INDEX, "channel 4 lists 2 messages"},
    {"index alone", index_alone, NULL, INDEX, "does not follow a chunk"},
    {"data CRC", data_crc, NULL, DATA_END, "CRC of the data section is 00000005"},
    {"no DataEnd", no_data_end, NULL, STATISTICS, "a Statistics before the end of the data"},
    {"no Header", no_header, NULL, SCHEMA, "a Header should be here, it is a Schema"},
    {"message count", NULL, stat_messages, STATISTICS, "message_count is 3, it should be 2"},
    {"channel count", NULL, stat_count, STATISTICS, "channel 3 has 1 messages, it should be 2"},
    {"start time", NULL, stat_start, STATISTICS, "message_start_time is 9, it should be 10"},
    {"chunk count", NULL, stat_chunks, STATISTICS, "chunk_count is 0, it should be 1"},
    {"chunk index place", NULL, ci_offset, CHUNK_INDEX, "where no chunk is"},
    {"chunk length", NULL, ci_length, CHUNK_INDEX, "chunk_length is 18446744073709551615"},
    {"message index place", NULL, ci_index, CHUNK_INDEX, "message index offsets"},
    {"compression", NULL, ci_compression, CHUNK_INDEX, "compression is \"zstd\""},
    {"chunk index twice", NULL, ci_twice, ATTACHMENT_INDEX, "a second ChunkIndex"},
    {"attachment place", NULL, ai_offset, ATTACHMENT_INDEX, "where no such record is"},
    {"attachment name", NULL, ai_name, ATTACHMENT_INDEX, "(\"b\", \"text/plain\")"},
    {"attachment size", NULL, ai_size, ATTACHMENT_INDEX, "data_size is 5, it should be 4"},
    {"metadata length", NULL, mi_length, METADATA_INDEX, "length is 1, it should be"},
    {"metadata name", NULL, mi_name, METADATA_INDEX, "name \"n\" is not the record's"},
    {"group place", NULL, group_start, SUMMARY_OFFSET, "group_start is 1, it should be"},
    {"group of none", NULL, group_none, SUMMARY_OFFSET, "of which the summary has none"},
    {"summary start", NULL, footer_start, FOOTER, "summary_start"},
    {"summary offsets", NULL, footer_offsets, FOOTER, "summary_offset_start"},
    {"summary CRC", NULL, footer_crc, FOOTER, "the CRC of the summary is 00000009"},
    {"groups apart", NULL, apart, METADATA_INDEX, "records of the summary are not together"},
};

static void each_fault_is_named_with_its_place(void **state) {
  (void)state;
  parts p;
  found f = {0};
  bytes b = assemble(&p, &(fault){.name = "none"});
  if (problems(&b, &f))
    fail_msg("the right file: byte %llu: %s", (unsigned long long)f.offset, f.text);
  dj__buf_free(&p.file);
  dj__buf_free(&p.inside);
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
    b = assemble(&p, &faults[i]);
    f.words = faults[i].words;
    (void)problems(&b, &f);
    if (f.words) fail_msg("%s: '%s' is not in:\n%s", faults[i].name, faults[i].words, f.all);
    uint64_t place = p.at[faults[i].where];
    if (f.offset != place)
      fail_msg("%s: told at byte %llu, it is at %llu:\n%s", faults[i].name,
               (unsigned long long)f.offset, (unsigned long long)place, f.all);
    dj__buf_free(&p.file);
    dj__buf_free(&p.inside);
  }
}

/* ---- rescue ---- */

// Rescues and checks what came out: well-formed, and of messages only what was in the sample.
static int rescued(const bytes *b, bool seen[N], dj_mcap_recover_report *report) {
  bytes out;
  void *data;
  dj_status s = dj_mcap_recover_memory("sample", b->data, b->size, NULL, NULL, NULL, report, &data,
                                       &out.size);
  memset(seen, 0, N * sizeof *seen);
  if (s == DJ_E_FORMAT) return -1;
  OK(s);
  out.data = data;
  found f = {0};
  if (problems(&out, &f))
    fail_msg("the rescued file, byte %llu: %s", (unsigned long long)f.offset, f.text);
  dj_mcap *m;
  dj_mcap_iter *it;
  dj_mcap_message msg;
  bool more;
  int n = 0;
  OK(dj_mcap_open_memory("rescued", out.data, out.size, NULL, &m));
  OK(dj_mcap_iter_open(m, &(dj_mcap_query){.file_order = true}, &it));
  for (OK(dj_mcap_iter_next(it, &msg, &more)); more; OK(dj_mcap_iter_next(it, &msg, &more)), n++) {
    assert_in_range(msg.sequence, 0, N - 1);
    assert_false(seen[msg.sequence]);
    seen[msg.sequence] = true;
    same_message(&msg, (int)msg.sequence);
    const dj_mcap_channel *c = dj_mcap_channel_by_id(m, msg.channel_id);
    if (strncmp(c->topic, "recovered/", 10) != 0)
      assert_string_equal(c->topic, msg.sequence % 2 ? "/two" : "/one");
  }
  assert_int_equal(report->messages_saved, n);
  dj_mcap_iter_close(it);
  dj_mcap_close(m);
  free(data);
  return n;
}

static void whole_files_are_rescued_whole(void **state) {
  (void)state;
  for (int v = 0; v < N_VARIANTS; v++) {
    bytes b = sample_log(&variants[v]), out;
    dj_mcap_recover_report report;
    found f = {0};
    void *data;
    OK(dj_mcap_recover_memory("sample", b.data, b.size, NULL, note_problem, &f, &report, &data,
                              &out.size));
    assert_true(report.complete);
    assert_int_equal(f.n, 0);
    assert_int_equal(report.messages_saved, N);
    assert_int_equal(report.bytes_lost, 0);
    out.data = data;
    read_indexed(&out);
    free(data);
    free(b.data);
  }
}

typedef struct extent { // of a chunk with the indexes behind it, and the messages in it
  uint64_t begin, end, behind;
  int messages;
} extent;

static size_t extents(const bytes *b, extent *to, size_t cap) {
  dj_mcap_stream *s;
  dj_mcap_record r;
  bool more;
  size_t n = 0;
  OK(dj_mcap_stream_open_memory(b->data, b->size, NULL, true, &s));
  for (OK(dj_mcap_stream_next(s, &r, &more)); more; OK(dj_mcap_stream_next(s, &r, &more))) {
    if (r.opcode == DJ_MCAP_CHUNK) {
      assert_true(n < cap);
      to[n++] = (extent){r.offset, r.offset + r.length, r.offset + r.length, 0};
    } else if (r.opcode == DJ_MCAP_MESSAGE_INDEX) {
      to[n - 1].messages += (int)r.u.message_index.n;
      to[n - 1].behind = r.offset + r.length;
    }
  }
  dj_mcap_stream_close(s);
  return n;
}

// Every chunk before the cut is saved, wherever that is.
static void every_cut_is_survived(void **state) {
  (void)state;
  const int chunked[] = {1, 2, 9};
  for (size_t v = 0; v < sizeof chunked / sizeof *chunked; v++) {
    bytes b = sample_log(&variants[chunked[v]]);
    extent e[64];
    bool seen[N];
    size_t n = extents(&b, e, 64);
    for (size_t keep = 0; keep <= b.size; keep++) {
      dj_mcap_recover_report report;
      int got = rescued(&(bytes){b.data, keep}, seen, &report), want = 0;
      for (size_t i = 0; i < n; i++) want += e[i].end <= keep ? e[i].messages : 0;
      if (keep < DJ__MCAP_MAGIC)
        assert_int_equal(got, -1);
      else if (got < want)
        fail_msg("variant %d cut to %zu: %d messages, wanted %d", chunked[v], keep, got, want);
    }
    free(b.data);
  }
}

// A flipped bit costs at most the messages of the chunk it is in, and is never taken for good.
static void every_flipped_bit_is_survived(void **state) {
  (void)state;
  const int chunked[] = {0, 1, 2};
  for (size_t v = 0; v < sizeof chunked / sizeof *chunked; v++) {
    bytes b = sample_log(&variants[chunked[v]]);
    extent e[64];
    bool seen[N];
    size_t n = extents(&b, e, 64), hit = 0;
    for (size_t i = 0; i < b.size; i++) {
      while (hit < n && i >= e[hit].behind) hit++;
      bool inside = hit < n && i >= e[hit].begin && i < e[hit].end;
      dj_mcap_recover_report report;
      int bit = i % 2 ? 0 : 7;
      b.data[i] ^= (unsigned char)(1u << bit);
      int got = rescued(&b, seen, &report), want = N - (inside ? e[hit].messages : 0);
      if (got < want)
        fail_msg("variant %d, bit %d of byte %zu: %d messages, wanted %d", chunked[v], bit, i, got,
                 want);
      if (got < N) assert_false(report.complete);
      b.data[i] ^= (unsigned char)(1u << bit);
    }
    free(b.data);
  }
}

static void what_a_lost_chunk_held_is_counted(void **state) {
  (void)state;
  bytes b = sample_log(&variants[0]);
  extent e[64];
  size_t n = extents(&b, e, 64);
  assert_true(n > 3);
  b.data[e[2].end - 3] ^= 1;
  dj_mcap_recover_report report;
  bool seen[N];
  assert_int_equal(rescued(&b, seen, &report), N - e[2].messages);
  assert_int_equal(report.messages_lost, e[2].messages);
  assert_int_equal(report.chunks_lost, 1);
  assert_int_equal(report.chunks_saved, n - 1);
  assert_int_equal(report.bytes_lost, e[2].end - e[2].begin);
  // Without its summary and its first chunk, which defines all: channels get names, messages stay.
  b.data[e[0].begin + 60] ^= 1;
  assert_int_equal(rescued(&(bytes){b.data, e[n - 1].end}, seen, &report),
                   N - e[0].messages - e[2].messages);
  free(b.data);
}

/* ---- hostile files ---- */
SPOIL(twice, p->r[ATTACHMENT_INDEX] = p->r[CHUNK_INDEX];
      p->r[STATISTICS].u.statistics.chunk_count = 2;
      p->r[STATISTICS].u.statistics.attachment_count = 0)
SPOIL(index_list_twice, static dj_mcap_channel_number two[2]; two[0] = two[1] = p->offsets[0];
      p->r[CHUNK_INDEX].u.chunk_index.offsets = two; p->r[CHUNK_INDEX].u.chunk_index.n_offsets = 2)
SPOIL(itself, p->r[CHUNK_INDEX].u.chunk_index.chunk_offset = p->file.size;
      p->r[CHUNK_INDEX].u.chunk_index.n_offsets = 0)
SPOIL(far_away, p->r[CHUNK_INDEX].u.chunk_index.chunk_offset = UINT64_MAX / 2)
SPOIL(endless, p->r[CHUNK_INDEX].u.chunk_index.message_index_length = UINT64_MAX - 100)
SPOIL(huge_claim, p->r[CHUNK].u.chunk.compression = "zstd";
      p->r[CHUNK].u.chunk.uncompressed_size = UINT64_C(1) << 63)

static const fault hostile[] = {
    {"a chunk twice", NULL, twice, 0, "two chunks over each other"},
    {"a MessageIndex twice", NULL, index_list_twice, 0, "lists a MessageIndex twice"},
    {"an index of itself", NULL, itself, 0, "points to a "},
    {"beyond the end", NULL, far_away, 0, "outside of the file"},
    {"an endless index", NULL, endless, 0, "outside of the file"},
    {"an index in nowhere", NULL, ci_index, 0, "only 0 bytes are left"},
    {"an offset in nowhere", index_offset, NULL, 0, "only 0 bytes are left"},
    {"a wrong time", index_time, NULL, 0, "the index says channel 3 at 11 ns"},
    {"2^64 bytes", chunk_huge, NULL, 0, "at most 268435456 are read"},
    {"2^63 bytes of zstd", huge_claim, NULL, 0, "at most 268435456 are read"},
    {"not lz4", chunk_lz4, NULL, 0, "lz4 chunk of"},
    {"a summary outside", NULL, footer_offsets, -1, ""},
};

static dj_status read_all_messages(const bytes *b) {
  dj_mcap *m;
  dj_mcap_iter *it;
  dj_mcap_message msg;
  bool more = true;
  DJ_TRY(dj_mcap_open_memory("hostile", b->data, b->size, NULL, &m));
  dj_status s = dj_mcap_iter_open(m, NULL, &it);
  while (!s && more) s = dj_mcap_iter_next(it, &msg, &more);
  dj_mcap_iter_close(it);
  dj_mcap_close(m);
  return s;
}

static void hostile_indexes_are_refused(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
    parts p;
    bytes b = assemble(&p, &hostile[i]);
    dj_status s = read_all_messages(&b);
    if (hostile[i].where < 0)
      assert_int_equal(s, DJ_OK); // nothing that a reader needs
    else if (!s || !strstr(dj_error_message(), hostile[i].words))
      fail_msg("%s: '%s' is not in '%s'", hostile[i].name, hostile[i].words,
               s ? dj_error_message() : "success");
    dj__buf_free(&p.file);
    dj__buf_free(&p.inside);
  }
}

// 200 MB of zeros in a few KB: what is taken is what the limit allows, however the size is stated.
static void bombs_do_not_go_off(void **state) {
  (void)state;
  enum { BIG = 200 << 20 };
  unsigned char *zeros = calloc(1, BIG);
  dj__mcap_codec codec = {0};
  dj__buf packed = {0};
  OK(dj__mcap_compress(&codec, DJ_MCAP_ZSTD, 1, zeros, BIG, &packed));
  free(zeros);
  assert_true(packed.size < 100000);
  parts p = {0};
  fill_data(&p);
  dj_mcap_chunk *c = &p.r[CHUNK].u.chunk;
  c->compression = "zstd";
  c->records = packed.data;
  c->records_size = packed.size;
  const uint64_t sizes[] = {1000, BIG, UINT64_C(1) << 40};
  for (int i = 0; i < 3; i++) {
    c->uncompressed_size = sizes[i];
    p.file.size = 0;
    dj__buf_put(&p.file, dj__mcap_magic, DJ__MCAP_MAGIC);
    for (int k = HEADER; k <= CHUNK; k++) put(&p, k);
    dj_mcap_stream *s;
    dj_mcap_record r;
    bool more;
    const dj_mcap_limits limits = {.max_chunk = 1 << 20};
    OK(dj_mcap_stream_open_memory(p.file.data, p.file.size, &limits, false, &s));
    for (int k = HEADER; k < CHUNK; k++) OK(dj_mcap_stream_next(s, &r, &more));
    dj_status st = dj_mcap_stream_next(s, &r, &more);
    assert_int_equal(st, i ? DJ_E_LIMIT : DJ_E_FORMAT);
    dj_mcap_stream_close(s);
  }
  dj__buf_free(&p.file);
  dj__buf_free(&p.inside);
  dj__buf_free(&packed);
  dj__mcap_codec_free(&codec);
}

// Many chunks of the same time, as writers make them that keep a chunk a topic.
static void chunks_that_overlap_in_time_are_read_in_order(void **state) {
  (void)state;
  enum { TOPICS = 40, EACH = 50 };
  const dj_mcap_options o = {.compression = DJ_MCAP_ZSTD};
  dj_mcap_writer *w;
  OK(dj_mcap_writer_open_memory(&o, &w));
  for (int t = 0; t < TOPICS; t++) {
    char topic[16];
    uint16_t id;
    (void)snprintf(topic, sizeof topic, "/%d", t);
    OK(dj_mcap_add_channel(w, 0, topic, "raw", NULL, 0, &id));
    for (int k = 0; k < EACH; k++)
      OK(dj_mcap_write(w, &(dj_mcap_message){.channel_id = id,
                                             .sequence = (uint32_t)k,
                                             .log_time = (uint64_t)(k * TOPICS + t),
                                             .data = topic,
                                             .size = strlen(topic)}));
    OK(dj_mcap_end_chunk(w));
  }
  void *data;
  size_t size;
  OK(dj_mcap_writer_close_memory(w, &data, &size));
  dj_mcap *m;
  dj_mcap_iter *it;
  dj_mcap_message msg;
  bool more;
  OK(dj_mcap_open_memory("overlap", data, size, NULL, &m));
  OK(dj_mcap_iter_open(m, NULL, &it));
  for (int i = 0; i < TOPICS * EACH; i++) {
    OK(dj_mcap_iter_next(it, &msg, &more));
    assert_true(more);
    assert_int_equal(msg.log_time, i);
    assert_int_equal(msg.sequence, i / TOPICS);
  }
  dj_mcap_iter_close(it);
  dj_mcap_close(m);
  free(data);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(round_trip),
      cmocka_unit_test(streamed),
      cmocka_unit_test(whole_files_check_clean),
      cmocka_unit_test(every_flipped_bit_is_found),
      cmocka_unit_test(every_cut_is_found),
      cmocka_unit_test(each_fault_is_named_with_its_place),
      cmocka_unit_test(whole_files_are_rescued_whole),
      cmocka_unit_test(every_cut_is_survived),
      cmocka_unit_test(every_flipped_bit_is_survived),
      cmocka_unit_test(what_a_lost_chunk_held_is_counted),
      cmocka_unit_test(hostile_indexes_are_refused),
      cmocka_unit_test(bombs_do_not_go_off),
      cmocka_unit_test(chunks_that_overlap_in_time_are_read_in_order),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
