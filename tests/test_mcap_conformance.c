/*
 * The conformance suite of the MCAP project: 416 files, each described in JSON by its records and
 * by the parts of the format it uses. Our writer makes each file from its content records and the
 * options that its features name; the bytes must have the SHA-256 of the suite's own file. Then the
 * bytes are read again, streamed and through the index, and every field of every record must be
 * what the description says, the offsets, lengths and checksums of the summary among them.
 *
 * The suite is not part of the project: DOJO_DATA or ../shared/data holds it, or the test skips.
 * With DOJO_CONFORMANCE_OUT=DIR the files are left in DIR for other readers (bench/check_mcap.py).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "base/digest.h"
#include "base/fs.h"
#include "dojo/mcap.h"

enum { CASES = 416 };

static void must(dj_status s, const char *what, int line) {
  if (s) fail_msg("line %d: %s: %s", line, what, dj_error_message());
}
#define OK(e) must(e, #e, __LINE__)

// ---- a description ----

static json_t *field(const json_t *record, const char *name) {
  json_t *fields = json_object_get(record, "fields"), *pair;
  size_t i;
  json_array_foreach(fields, i, pair) {
    if (!strcmp(json_string_value(json_array_get(pair, 0)), name)) return json_array_get(pair, 1);
  }
  fail_msg("no field %s", name);
  return NULL;
}

static uint64_t number(const json_t *record, const char *name) {
  return strtoull(json_string_value(field(record, name)), NULL, 10);
}

static const char *text(const json_t *record, const char *name) {
  return json_string_value(field(record, name));
}

// Bytes as a list of decimal strings; free().
static unsigned char *bytes(const json_t *record, const char *name, size_t *n) {
  json_t *list = field(record, name);
  *n = json_array_size(list);
  unsigned char *b = malloc(*n + 1);
  assert_non_null(b);
  for (size_t i = 0; i < *n; i++)
    b[i] = (unsigned char)strtoul(json_string_value(json_array_get(list, i)), NULL, 10);
  return b;
}

enum { MAX_PAIRS = 8 };
static size_t pairs(const json_t *record, dj_mcap_pair to[MAX_PAIRS]) {
  json_t *map = field(record, "metadata"), *value;
  const char *key;
  size_t n = 0;
  json_object_foreach(map, key, value) {
    assert_true(n < MAX_PAIRS);
    to[n++] = (dj_mcap_pair){key, json_string_value(value)};
  }
  return n;
}

// ---- writing ----

static dj_mcap_options options(const json_t *features) {
  static const struct {
    const char *name;
    uint32_t omit; // when the feature is absent
  } known[] = {{"ch", DJ_MCAP_OMIT_CHUNKS},
               {"mx", DJ_MCAP_OMIT_MESSAGE_INDEX},
               {"chx", DJ_MCAP_OMIT_CHUNK_INDEX},
               {"st", DJ_MCAP_OMIT_STATISTICS},
               {"rsh", DJ_MCAP_OMIT_REPEATED_SCHEMAS},
               {"rch", DJ_MCAP_OMIT_REPEATED_CHANNELS},
               {"ax", DJ_MCAP_OMIT_ATTACHMENT_INDEX},
               {"mdx", DJ_MCAP_OMIT_METADATA_INDEX},
               {"sum", DJ_MCAP_OMIT_SUMMARY_OFFSETS}};
  dj_mcap_options o = {.library = ""};
  for (size_t k = 0; k < sizeof known / sizeof *known; k++) o.omit |= known[k].omit;
  size_t i;
  json_t *f;
  json_array_foreach(features, i, f) {
    if (!strcmp(json_string_value(f), "pad")) o.padding = 3;
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
      if (!strcmp(json_string_value(f), known[k].name)) o.omit &= ~known[k].omit;
  }
  return o;
}

static void write_record(dj_mcap_writer *w, const json_t *r, const char *type) {
  size_t n = 0;
  uint16_t id = 0;
  dj_mcap_pair map[MAX_PAIRS];
  if (!strcmp(type, "Schema")) {
    unsigned char *data = bytes(r, "data", &n);
    OK(dj_mcap_add_schema(w, text(r, "name"), text(r, "encoding"), data, n, &id));
    assert_int_equal(id, number(r, "id"));
    free(data);
  } else if (!strcmp(type, "Channel")) {
    n = pairs(r, map);
    OK(dj_mcap_add_channel(w, (uint16_t)number(r, "schema_id"), text(r, "topic"),
                           text(r, "message_encoding"), map, n, &id));
    assert_int_equal(id, number(r, "id"));
  } else if (!strcmp(type, "Message")) {
    unsigned char *data = bytes(r, "data", &n);
    OK(dj_mcap_write(w, &(dj_mcap_message){.channel_id = (uint16_t)number(r, "channel_id"),
                                           .sequence = (uint32_t)number(r, "sequence"),
                                           .log_time = number(r, "log_time"),
                                           .publish_time = number(r, "publish_time"),
                                           .data = data,
                                           .size = n}));
    free(data);
  } else if (!strcmp(type, "Attachment")) {
    unsigned char *data = bytes(r, "data", &n);
    OK(dj_mcap_write_attachment(w, &(dj_mcap_attachment){.log_time = number(r, "log_time"),
                                                         .create_time = number(r, "create_time"),
                                                         .name = text(r, "name"),
                                                         .media_type = text(r, "media_type"),
                                                         .data = data,
                                                         .size = n}));
    free(data);
  } else if (!strcmp(type, "Metadata")) {
    n = pairs(r, map);
    OK(dj_mcap_write_metadata(w, text(r, "name"), map, n));
  }
}

static void *write_case(const json_t *description, size_t *size) {
  const json_t *variant = json_object_get(json_object_get(description, "meta"), "variant");
  const dj_mcap_options o = options(json_object_get(variant, "features"));
  dj_mcap_writer *w;
  OK(dj_mcap_writer_open_memory(&o, &w));
  size_t i;
  json_t *r;
  json_array_foreach(json_object_get(description, "records"), i, r) {
    const char *type = json_string_value(json_object_get(r, "type"));
    if (!strcmp(type, "DataEnd")) break; // what is behind it, the writer makes by itself
    write_record(w, r, type);
  }
  void *data;
  OK(dj_mcap_writer_close_memory(w, &data, size));
  return data;
}

// ---- reading: records in the suite's own JSON ----

static void add(json_t *fields, const char *name, json_t *value) {
  assert_int_equal(json_array_append_new(fields, json_pack("[s,o]", name, value)), 0);
}

static json_t *number_json(uint64_t v) {
  return json_sprintf("%" PRIu64, v);
}

static void add_number(json_t *fields, const char *name, uint64_t v) {
  add(fields, name, number_json(v));
}

static void add_text(json_t *fields, const char *name, const char *v) {
  add(fields, name, json_string(v));
}

static void add_bytes(json_t *fields, const char *name, const void *data, size_t n) {
  json_t *list = json_array();
  for (size_t i = 0; i < n; i++)
    (void)json_array_append_new(list, number_json(((const unsigned char *)data)[i]));
  add(fields, name, list);
}

static void add_pairs(json_t *fields, const dj_mcap_pair *p, size_t n) {
  json_t *map = json_object();
  for (size_t i = 0; i < n; i++) (void)json_object_set_new(map, p[i].key, json_string(p[i].value));
  add(fields, "metadata", map);
}

static void add_numbers(json_t *fields, const char *name, const dj_mcap_channel_number *v,
                        size_t n) {
  json_t *map = json_object();
  for (size_t i = 0; i < n; i++) {
    char key[8];
    (void)snprintf(key, sizeof key, "%u", v[i].channel_id);
    (void)json_object_set_new(map, key, number_json(v[i].value));
  }
  add(fields, name, map);
}

static void content_fields(json_t *f, const dj_mcap_record *r) {
  switch (r->opcode) {
  case DJ_MCAP_HEADER:
    add_text(f, "library", r->u.header.library);
    add_text(f, "profile", r->u.header.profile);
    break;
  case DJ_MCAP_SCHEMA:
    add_bytes(f, "data", r->u.schema.data, r->u.schema.size);
    add_text(f, "encoding", r->u.schema.encoding);
    add_number(f, "id", r->u.schema.id);
    add_text(f, "name", r->u.schema.name);
    break;
  case DJ_MCAP_CHANNEL:
    add_number(f, "id", r->u.channel.id);
    add_text(f, "message_encoding", r->u.channel.message_encoding);
    add_pairs(f, r->u.channel.metadata, r->u.channel.n_metadata);
    add_number(f, "schema_id", r->u.channel.schema_id);
    add_text(f, "topic", r->u.channel.topic);
    break;
  case DJ_MCAP_MESSAGE:
    add_number(f, "channel_id", r->u.message.channel_id);
    add_bytes(f, "data", r->u.message.data, r->u.message.size);
    add_number(f, "log_time", r->u.message.log_time);
    add_number(f, "publish_time", r->u.message.publish_time);
    add_number(f, "sequence", r->u.message.sequence);
    break;
  case DJ_MCAP_ATTACHMENT:
    add_number(f, "create_time", r->u.attachment.create_time);
    add_bytes(f, "data", r->u.attachment.data, r->u.attachment.size);
    add_number(f, "log_time", r->u.attachment.log_time);
    add_text(f, "media_type", r->u.attachment.media_type);
    add_text(f, "name", r->u.attachment.name);
    break;
  case DJ_MCAP_METADATA:
    add_pairs(f, r->u.metadata.pairs, r->u.metadata.n);
    add_text(f, "name", r->u.metadata.name);
    break;
  case DJ_MCAP_DATA_END:
    add_number(f, "data_section_crc", r->u.data_end.data_section_crc);
    break;
  default:
    break;
  }
}

static void chunk_index_fields(json_t *f, const dj_mcap_chunk_index *c) {
  add_number(f, "chunk_length", c->chunk_length);
  add_number(f, "chunk_start_offset", c->chunk_offset);
  add_number(f, "compressed_size", c->compressed_size);
  add_text(f, "compression", c->compression);
  add_number(f, "message_end_time", c->end_time);
  add_number(f, "message_index_length", c->message_index_length);
  add_numbers(f, "message_index_offsets", c->offsets, c->n_offsets);
  add_number(f, "message_start_time", c->start_time);
  add_number(f, "uncompressed_size", c->uncompressed_size);
}

static void summary_fields(json_t *f, const dj_mcap_record *r) {
  const dj_mcap_statistics *s = &r->u.statistics;
  const dj_mcap_attachment_index *a = &r->u.attachment_index;
  switch (r->opcode) {
  case DJ_MCAP_CHUNK_INDEX:
    chunk_index_fields(f, &r->u.chunk_index);
    break;
  case DJ_MCAP_ATTACHMENT_INDEX:
    add_number(f, "create_time", a->create_time);
    add_number(f, "data_size", a->data_size);
    add_number(f, "length", a->length);
    add_number(f, "log_time", a->log_time);
    add_text(f, "media_type", a->media_type);
    add_text(f, "name", a->name);
    add_number(f, "offset", a->offset);
    break;
  case DJ_MCAP_STATISTICS:
    add_number(f, "attachment_count", s->attachment_count);
    add_number(f, "channel_count", s->channel_count);
    add_numbers(f, "channel_message_counts", s->channel_counts, s->n_channel_counts);
    add_number(f, "chunk_count", s->chunk_count);
    add_number(f, "message_count", s->message_count);
    add_number(f, "message_end_time", s->end_time);
    add_number(f, "message_start_time", s->start_time);
    add_number(f, "metadata_count", s->metadata_count);
    add_number(f, "schema_count", s->schema_count);
    break;
  case DJ_MCAP_METADATA_INDEX:
    add_number(f, "length", r->u.metadata_index.length);
    add_text(f, "name", r->u.metadata_index.name);
    add_number(f, "offset", r->u.metadata_index.offset);
    break;
  case DJ_MCAP_SUMMARY_OFFSET:
    add_number(f, "group_length", r->u.summary_offset.group_length);
    add_number(f, "group_opcode", r->u.summary_offset.group_opcode);
    add_number(f, "group_start", r->u.summary_offset.group_start);
    break;
  case DJ_MCAP_FOOTER:
    add_number(f, "summary_crc", r->u.footer.summary_crc);
    add_number(f, "summary_offset_start", r->u.footer.summary_offset_start);
    add_number(f, "summary_start", r->u.footer.summary_start);
    break;
  default:
    break;
  }
}

static json_t *record_json(const dj_mcap_record *r) {
  json_t *fields = json_array();
  content_fields(fields, r);
  summary_fields(fields, r);
  return json_pack("{s:s,s:o}", "type", dj_mcap_op_name(r->opcode), "fields", fields);
}

// All records of the file, streamed; the suite leaves out Chunk and MessageIndex.
static json_t *read_streamed(const void *data, size_t size) {
  json_t *records = json_array();
  dj_mcap_stream *s;
  dj_mcap_record r;
  bool more;
  OK(dj_mcap_stream_open_memory(data, size, NULL, false, &s));
  for (OK(dj_mcap_stream_next(s, &r, &more)); more; OK(dj_mcap_stream_next(s, &r, &more)))
    if (r.opcode != DJ_MCAP_MESSAGE_INDEX) (void)json_array_append_new(records, record_json(&r));
  dj_mcap_stream_close(s);
  return records;
}

static int by_log_time(const void *x, const void *y) {
  uint64_t a = number(*(json_t *const *)x, "log_time"), b = number(*(json_t *const *)y, "log_time");
  if (a != b) return a < b ? -1 : 1;
  a = number(*(json_t *const *)x, "sequence"), b = number(*(json_t *const *)y, "sequence");
  return (a > b) - (a < b);
}

// Through the index: all messages by log time, and the lists of what else there is.
static bool indexed_agrees(const char *name, const void *data, size_t size, const json_t *records) {
  json_t *want[32], *r;
  size_t n = 0, i, attachments = 0, metadata = 0, have;
  json_array_foreach(records, i, r) {
    const char *type = json_string_value(json_object_get(r, "type"));
    if (!strcmp(type, "Message")) {
      assert_true(n < 32);
      want[n++] = r;
    }
    attachments += !strcmp(type, "Attachment");
    metadata += !strcmp(type, "Metadata");
  }
  qsort(want, n, sizeof *want, by_log_time);
  dj_mcap *m;
  dj_mcap_iter *it;
  OK(dj_mcap_open_memory(name, data, size, NULL, &m));
  bool good = ((void)dj_mcap_attachments(m, &have), have == attachments);
  good = ((void)dj_mcap_metadata_list(m, &have), have == metadata) && good;
  OK(dj_mcap_iter_open(m, NULL, &it));
  bool more = true;
  for (i = 0; more; i++) {
    dj_mcap_record got = {.opcode = DJ_MCAP_MESSAGE};
    OK(dj_mcap_iter_next(it, &got.u.message, &more));
    if (!more) break;
    json_t *j = record_json(&got);
    good = i < n && json_equal(j, want[i]) && good;
    json_decref(j);
  }
  dj_mcap_iter_close(it);
  dj_mcap_close(m);
  return good && i == n;
}

// ---- the suite ----

static void tell(void *user, uint64_t offset, const char *problem) {
  (void)printf("%s: byte %" PRIu64 ": %s\n", (const char *)user, offset, problem);
}

// The pointer file beside a description: "oid sha256:<hex>" and "size <bytes>".
static void read_pointer(const char *path, char sha256[65], size_t *size) {
  char *data;
  size_t n;
  OK(dj__read_file(path, 4096, &data, &n));
  const char *oid = strstr(data, "oid sha256:"), *bytes_at = strstr(data, "\nsize ");
  assert_non_null(oid);
  assert_non_null(bytes_at);
  (void)snprintf(sha256, 65, "%.64s", oid + strlen("oid sha256:"));
  *size = strtoull(bytes_at + strlen("\nsize "), NULL, 10);
  free(data);
}

static void keep_file(const char *name, const void *data, size_t size) {
  const char *dir = getenv("DOJO_CONFORMANCE_OUT");
  if (!dir) return;
  char *path = dj__join(dir, name);
  (void)strcpy(strrchr(path, '.'), ".mcap");
  OK(dj__write_file_atomic(path, data, size));
  free(path);
}

static bool run_case(const char *dir, const char *name) {
  char *path = dj__join(dir, name), sha256[65], ours[65];
  json_error_t e;
  json_t *description = json_load_file(path, 0, &e);
  if (!description) fail_msg("%s: line %d: %s", path, e.line, e.text);
  size_t size, want_size;
  (void)strcpy(strrchr(path, '.'), ".mcap"); // as long as ".json"
  read_pointer(path, sha256, &want_size);
  void *data = write_case(description, &size);
  keep_file(name, data, size);
  dj__digest digest;
  dj__digest_init(&digest);
  dj__digest_bytes(&digest, data, size);
  OK(dj__digest_hex(&digest, ours));
  bool same_bytes = size == want_size && !strcmp(sha256, ours);
  const json_t *records = json_object_get(description, "records");
  json_t *read = read_streamed(data, size);
  bool same_records = json_equal(read, records);
  bool same_index = indexed_agrees(name, data, size, records);
  dj_mcap_check_report report;
  OK(dj_mcap_check_memory(data, size, NULL, tell, path, &report));
  bool good = same_bytes && same_records && same_index && !report.problems;
  if (!good)
    (void)printf("%s: %zu bytes (%zu); bytes %d, records %d, index %d, problems %d\n", name, size,
                 want_size, same_bytes, same_records, same_index, (int)report.problems);
  json_decref(read);
  json_decref(description);
  free(data);
  free(path);
  return good;
}

static void conformance(void **state) {
  (void)state;
  const char *data = getenv("DOJO_DATA");
  char *root = dj__join(data ? data : DOJO_SOURCE_DIR "/../shared/data",
                        "mcap-conformance/tests/conformance/data");
  if (!dj__is_dir(root)) {
    (void)printf("skipped: %s is missing (DOJO_DATA names the folder of recorded data)\n", root);
    free(root);
    skip();
  }
  char **folders, **names;
  size_t n_folders, n, passed = 0, cases = 0;
  OK(dj__list_dir(root, &folders, &n_folders));
  for (size_t i = 0; i < n_folders; i++) {
    char *dir = dj__join(root, folders[i]);
    OK(dj__list_dir(dir, &names, &n));
    for (size_t k = 0; k < n; k++) {
      const char *dot = strrchr(names[k], '.');
      if (!dot || strcmp(dot, ".json") != 0) continue;
      cases++;
      passed += run_case(dir, names[k]);
    }
    dj__free_names(names, n);
    free(dir);
  }
  dj__free_names(folders, n_folders);
  free(root);
  (void)printf("MCAP conformance: %zu of %zu cases pass\n", passed, cases);
  assert_int_equal(cases, CASES);
  assert_int_equal(passed, CASES);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(conformance)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
