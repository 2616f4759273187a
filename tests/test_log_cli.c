/*
 * `dojo log` as a user meets it: a log with pictures, JSON and unknown messages is told, printed
 * and filtered; damage is found with its place and a code of its own; a rescue never touches its
 * source, and the new log holds what could be read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

#include "base/fs.h"
#include "dojo/mcap.h"
#include "root_fixture.h"

// Runs the program in `root`, its input from `in` (or nothing), its output in out.txt and err.txt.
static int run_with(const char *in, const char *const *args) {
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (!pid) {
    const char *argv[16] = {DOJO_BINARY, "log"};
    for (int i = 0; args[i] && i < 13; i++) argv[i + 2] = args[i];
    int from = -1, out = -1, err = -1;
    if (chdir(root) == 0) {
      from = open(in ? in : "/dev/null", O_RDONLY);
      out = open("out.txt", O_WRONLY | O_CREAT | O_TRUNC, 0666);
      err = open("err.txt", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    }
    if (from >= 0 && out >= 0 && err >= 0 && dup2(from, 0) == 0 && dup2(out, 1) >= 0 &&
        dup2(err, 2) >= 0)
      execv(DOJO_BINARY, (char *const *)argv);
    _exit(127);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static char *bytes_of(const char *name, size_t *n) {
  char *path = dj__join(root, name), *data;
  OK(dj__read_file(path, 64 << 20, &data, n));
  free(path);
  return data;
}

static char *text_of(const char *name) {
  size_t n;
  return bytes_of(name, &n);
}

#define EXPECT_IN(in, code, ...)                                                                   \
  do {                                                                                             \
    int got_ = run_with(in, (const char *const[]){__VA_ARGS__, NULL});                             \
    if (got_ != (code)) fail_msg("exit code %d, wanted %d:\n%s", got_, code, text_of("err.txt"));  \
  } while (0)
#define EXPECT(code, ...) EXPECT_IN(NULL, code, __VA_ARGS__)

static void assert_has(const char *file, const char *part) {
  char *text = text_of(file);
  if (!strstr(text, part)) fail_msg("%s lacks '%s':\n%s", file, part, text);
  free(text);
}

static void assert_lines(int want) {
  char *text = text_of("out.txt");
  int n = 0;
  for (const char *p = text; *p; p++) n += *p == '\n';
  if (n != want) fail_msg("%d lines, wanted %d:\n%s", n, want, text);
  free(text);
}

// The whole output, or its k-th line, as JSON.
static json_t *json_of(int line) {
  char *text = text_of("out.txt"), *p = text;
  for (int i = 0; i < line; i++) p = strchr(p, '\n') + 1;
  if (line >= 0) p[strcspn(p, "\n")] = 0;
  json_error_t e;
  json_t *j = json_loads(p, 0, &e);
  if (!j) fail_msg("no JSON: %s:\n%s", e.text, p);
  free(text);
  return j;
}

static json_int_t integer_at(json_t *j, const char *key) {
  json_t *v = json_object_get(j, key);
  assert_true(json_is_integer(v));
  return json_integer_value(v);
}

// ---- the sample: 40 pictures at 20 Hz with one left out, 40 speeds, JSON, bytes ----

static const uint64_t T0 = UINT64_C(1600000000000000000), STEP = 50000000;

// Protobuf by hand, so that the program is not held against its own encoder. Lengths below 128.
static size_t put_text(uint8_t *to, int field, const char *text) {
  size_t n = strlen(text);
  to[0] = (uint8_t)(field << 3 | 2);
  to[1] = (uint8_t)n;
  memcpy(to + 2, text, n);
  return n + 2;
}

static void write_message(dj_mcap_writer *w, uint16_t channel, int k, const void *data, size_t n) {
  OK(dj_mcap_write(w, &(dj_mcap_message){.channel_id = channel,
                                         .sequence = (uint32_t)k,
                                         .log_time = T0 + (uint64_t)k * STEP,
                                         .publish_time = T0,
                                         .data = data,
                                         .size = n}));
}

static void write_image(dj_mcap_writer *w, uint16_t channel, int k) {
  // timestamp (1): seconds (1) = 1600000000; data (2): 700 bytes; format (3); frame_id (4)
  uint8_t m[800] = {0x0a, 6, 0x08, 0x80, 0xa0, 0xf8, 0xfa, 0x05, 0x12, 0xbc, 0x05};
  size_t n = 11;
  for (size_t i = 0; i < 700; i++) m[n++] = (uint8_t)(i * i + (size_t)k * 31);
  n += put_text(m + n, 3, "jpeg");
  n += put_text(m + n, 4, "camera \"1\"");
  write_message(w, channel, k, m, n);
}

static void write_speed(dj_mcap_writer *w, uint16_t channel, int k) {
  uint8_t m[9] = {2 << 3 | 1}; // speed (2), little-endian double
  double speed = 0.5 * k;
  memcpy(m + 1, &speed, sizeof speed);
  write_message(w, channel, k, m, sizeof m);
}

static void write_sample(const char *name) {
  char *path = dj__join(root, name);
  const dj_mcap_options o = {.profile = "test", .chunk_size = 4096, .compression = DJ_MCAP_ZSTD};
  dj_mcap_writer *w;
  uint16_t image, speed, schema, c_image, c_speed, c_json, c_raw;
  OK(dj_mcap_writer_open(path, &o, &w));
  OK(dj_mcap_add_schema(w, "foxglove.CompressedImage", "protobuf", "", 0, &image));
  OK(dj_mcap_add_schema(w, "dojo.VehicleSpeed", "protobuf", "", 0, &speed));
  OK(dj_mcap_add_schema(w, "Note", "jsonschema", "{}", 2, &schema));
  OK(dj_mcap_add_channel(w, image, "/camera/image", "protobuf", NULL, 0, &c_image));
  OK(dj_mcap_add_channel(w, speed, "/speed", "protobuf", NULL, 0, &c_speed));
  OK(dj_mcap_add_channel(w, schema, "/note", "json", NULL, 0, &c_json));
  OK(dj_mcap_add_channel(w, 0, "/raw\x1b[2J", "cdr", NULL, 0, &c_raw));
  for (int k = 0; k < 41; k++) {
    if (k != 20) write_image(w, c_image, k);
    write_speed(w, c_speed, k);
  }
  static const char note[] = "{\"big\": 18446744073709551615,\n \"text\": \"a\\nb\"}";
  OK(dj_mcap_write(w, &(dj_mcap_message){c_json, 0, T0, 0, "{\"small\":\n1}", 12}));
  OK(dj_mcap_write(w, &(dj_mcap_message){c_json, 1, T0, 0, note, sizeof note - 1}));
  OK(dj_mcap_write(w, &(dj_mcap_message){c_raw, 0, UINT64_MAX, 0, "\xff\x01\x02", 3}));
  OK(dj_mcap_write_attachment(
      w, &(dj_mcap_attachment){T0, T0, "route.gpx", "text/xml", "<x/>", 4, 0}));
  OK(dj_mcap_write_metadata(w, "drive", &(dj_mcap_pair){"driver", "Ada"}, 1));
  OK(dj_mcap_writer_close(w));
  free(path);
}

static int make_root(void **state) {
  (void)state;
  if (!mkdtemp(root)) return -1;
  write_sample("a.mcap");
  return 0;
}

// Writes `n` bytes of the sample with byte `at` flipped (none: SIZE_MAX) under another name.
static void damage(const char *name, size_t keep, size_t at) {
  size_t n;
  char *data = bytes_of("a.mcap", &n), *path = dj__join(root, name);
  if (at < n) data[at] ^= 0x10;
  OK(dj__write_file_atomic(path, data, keep < n ? keep : n));
  free(path);
  free(data);
}

// ---- info ----

static void info_tells_channels_rates_and_gaps(void **state) {
  (void)state;
  EXPECT(0, "info", "a.mcap");
  assert_has("out.txt", "profile:      test");
  assert_has("out.txt", "messages:     84");
  assert_has("out.txt", "2020-09-13 12:26:40.000000 UTC");
  assert_has("out.txt", "foxglove.CompressedImage (protobuf)");
  assert_has("out.txt", "route.gpx");
  assert_has("out.txt", "Ada");
  assert_has("out.txt", "/raw?[2J"); // no control character reaches a terminal
  EXPECT(0, "info", "--json", "a.mcap");
  json_t *j = json_of(-1), *channels = json_object_get(j, "channels"), *c;
  assert_int_equal(integer_at(j, "messages"), 84);
  assert_int_equal(integer_at(j, "start_ns"), T0);
  assert_int_equal(json_array_size(channels), 4);
  c = json_array_get(channels, 0);
  assert_string_equal(json_string_value(json_object_get(c, "topic")), "/camera/image");
  assert_int_equal(integer_at(c, "messages"), 40);
  assert_float_equal(json_number_value(json_object_get(c, "rate_hz")), 39 / 2.0, 1e-9);
  assert_float_equal(json_number_value(json_object_get(c, "longest_gap_s")), 0.1, 1e-9);
  c = json_array_get(channels, 1);
  assert_float_equal(json_number_value(json_object_get(c, "rate_hz")), 20, 1e-9);
  assert_float_equal(json_number_value(json_object_get(c, "longest_gap_s")), 0.05, 1e-9);
  c = json_array_get(json_object_get(j, "chunks"), 0);
  assert_string_equal(json_string_value(json_object_get(c, "compression")), "zstd");
  double ratio = json_number_value(json_object_get(c, "uncompressed_bytes")) /
                 json_number_value(json_object_get(c, "compressed_bytes"));
  assert_float_equal(json_number_value(json_object_get(c, "ratio")), ratio, 1e-9);
  assert_true(ratio > 1);
  c = json_array_get(json_object_get(j, "metadata"), 0);
  assert_string_equal(json_string_value(json_object_get(json_object_get(c, "values"), "driver")),
                      "Ada");
  json_decref(j);
}

// ---- cat ----

static void cat_decodes_what_it_knows(void **state) {
  (void)state;
  EXPECT(0, "cat", "a.mcap");
  assert_lines(84);
  json_t *j = json_of(0), *data = json_object_get(j, "data");
  assert_string_equal(json_string_value(json_object_get(j, "topic")), "/camera/image");
  assert_int_equal(integer_at(j, "log_time"), T0);
  assert_string_equal(json_string_value(json_object_get(data, "frame_id")), "camera \"1\"");
  assert_int_equal(integer_at(json_object_get(data, "data"), "bytes"), 700);
  assert_int_equal(integer_at(json_object_get(data, "timestamp"), "seconds"), 1600000000);
  json_decref(j);
  EXPECT(0, "cat", "a.mcap", "--topics", "/speed", "--limit", "4");
  assert_lines(4);
  j = json_of(3);
  assert_float_equal(json_number_value(json_object_get(json_object_get(j, "data"), "speed")), 1.5,
                     0);
  json_decref(j);
  EXPECT(0, "cat", "a.mcap", "--topics=/note");
  assert_lines(2);
  assert_has("out.txt", "{\"small\": 1}");
  EXPECT(0, "cat", "a.mcap", "--topics", "/raw\x1b[2J", "--bytes");
  assert_has("out.txt", "\"log_time\":18446744073709551615,"); // to the last digit
  assert_has("out.txt", "\"/raw\\u001b[2J\"");
  assert_has("out.txt", "\"data\":\"/wEC\"");
}

static void cat_filters_by_time(void **state) {
  (void)state;
  EXPECT(0, "cat", "a.mcap", "--topics", "/speed", "--start", "0.5", "--end", "1");
  assert_lines(10);
  json_t *first = json_of(0), *last = json_of(9);
  assert_int_equal(integer_at(first, "log_time"), T0 + 10 * STEP);
  assert_int_equal(integer_at(last, "log_time"), T0 + 19 * STEP);
  json_decref(first);
  json_decref(last);
  EXPECT(0, "cat", "a.mcap", "--topics", "/speed", "--start", "1600000001900000000ns", "--end",
         "1600000002000000001ns");
  assert_lines(3);
  // As a pipe: the same lines, without the index.
  char *want = text_of("out.txt");
  EXPECT_IN("a.mcap", 0, "cat", "-", "--topics", "/speed", "--start", "1.9", "--end",
            "1600000002000000001ns");
  char *got = text_of("out.txt");
  assert_string_equal(want, got);
  free(want);
  free(got);
  EXPECT(0, "cat", "a.mcap", "--by-time", "--topics", "/speed,/note");
  assert_lines(43);
  json_t *j = json_of(1); // the notes lie last in the file and belong to the first instant
  assert_int_equal(integer_at(j, "log_time"), T0);
  json_decref(j);
}

static void cat_says_what_is_wrong(void **state) {
  (void)state;
  EXPECT(DJ_E_NOT_FOUND, "cat", "a.mcap", "--topics", "/spead");
  assert_has("err.txt", "no topic '/spead'; the nearest is '/speed'");
  EXPECT(DJ_E_INVALID, "cat", "a.mcap", "--start", "yesterday");
  assert_has("err.txt", "--start needs seconds or nanoseconds with ns, got 'yesterday'");
  EXPECT(DJ_E_INVALID, "cat", "-", "--by-time");
  EXPECT(DJ_E_NOT_FOUND, "cat", "none.mcap");
  assert_has("err.txt", "none.mcap");
  size_t n;
  free(bytes_of("a.mcap", &n));
  damage("cut.mcap", n / 2, SIZE_MAX);
  EXPECT(DJ_E_FORMAT, "cat", "cut.mcap");
  assert_has("err.txt", "cut.mcap: byte ");
  assert_has("err.txt", "dojo log recover");
  char *text = text_of("out.txt");
  assert_true(strlen(text) > 1000); // what is before the damage
  free(text);
  EXPECT(DJ_E_FORMAT, "info", "cut.mcap");
  assert_has("err.txt", "dojo log recover");
}

// Messages of a known name whose bytes are not of that type are counted and do not end the output.
static void cat_goes_on_behind_a_message_that_lies(void **state) {
  (void)state;
  char *path = dj__join(root, "lies.mcap");
  dj_mcap_writer *w;
  uint16_t schema, channel;
  OK(dj_mcap_writer_open(path, NULL, &w));
  OK(dj_mcap_add_schema(w, "dojo.VehicleSpeed", "protobuf", "", 0, &schema));
  OK(dj_mcap_add_channel(w, schema, "/speed", "protobuf", NULL, 0, &channel));
  OK(dj_mcap_write(w, &(dj_mcap_message){channel, 0, 1, 1, "\x0a\xff\xff\xff\xff\x0f", 6}));
  write_speed(w, channel, 2);
  OK(dj_mcap_writer_close(w));
  EXPECT(DJ_E_FORMAT, "cat", "lies.mcap");
  assert_lines(2);
  assert_has("out.txt", "\"error\":\"the message does not decode\"");
  assert_has("out.txt", "\"speed\":1");
  assert_has("err.txt", "1 messages do not decode");
  free(path);
}

// ---- check ----

static void check_tells_the_place(void **state) {
  (void)state;
  EXPECT(0, "check", "a.mcap");
  assert_has("out.txt", "a.mcap: whole, 0 problems");
  size_t n;
  free(bytes_of("a.mcap", &n));
  dj_mcap *m;
  char *path = dj__join(root, "a.mcap");
  OK(dj_mcap_open(path, NULL, &m));
  size_t chunks;
  uint64_t at = dj_mcap_chunks(m, &chunks)[1].chunk_offset;
  assert_true(chunks > 3);
  dj_mcap_close(m);
  free(path);
  damage("flip.mcap", n, (size_t)at + 200);
  EXPECT(DJ_E_FORMAT, "check", "a.mcap", "flip.mcap", "a.mcap");
  char place[64];
  (void)snprintf(place, sizeof place, "flip.mcap: byte %llu: ", (unsigned long long)at);
  assert_has("out.txt", place);
  assert_has("out.txt", "flip.mcap: damaged");
  EXPECT(DJ_E_FORMAT, "check", "--json", "flip.mcap");
  json_t *j = json_of(-1);
  assert_true(json_is_false(json_object_get(j, "ok")));
  assert_true(integer_at(j, "problem_count") >= 1);
  json_t *first = json_array_get(json_object_get(j, "problems"), 0);
  assert_int_equal(integer_at(first, "offset"), at);
  json_decref(j);
  EXPECT(DJ_E_FORMAT, "check", "err.txt"); // empty
  EXPECT(DJ_E_NOT_FOUND, "check", "none.mcap");
}

// ---- recover ----

static void recover_never_touches_its_source(void **state) {
  (void)state;
  size_t n, after;
  free(bytes_of("a.mcap", &n));
  damage("half.mcap", n / 2, SIZE_MAX);
  char *before = bytes_of("half.mcap", &n);
  EXPECT(0, "recover", "half.mcap");
  assert_has("out.txt", "rescued from a damaged log");
  assert_has("err.txt", "half.mcap: byte ");
  EXPECT(0, "check", "half.recovered.mcap");
  EXPECT(DJ_E_EXISTS, "recover", "half.mcap");
  assert_has("err.txt", "--force");
  EXPECT(0, "recover", "half.mcap", "--force", "--json");
  json_t *j = json_of(-1);
  assert_true(json_is_false(json_object_get(j, "complete")));
  assert_true(integer_at(j, "messages_saved") > 20);
  assert_true(integer_at(j, "bytes_lost") > 0);
  assert_true(json_array_size(json_object_get(j, "problems")) > 0);
  json_decref(j);
  // Its own name, and another way to its own name.
  EXPECT(DJ_E_INVALID, "recover", "half.mcap", "--out", "half.mcap", "--force");
  EXPECT(DJ_E_INVALID, "recover", "half.mcap", "--out", "./half.mcap", "--force");
  char *from = dj__join(root, "half.mcap"), *link = dj__join(root, "link.mcap");
  assert_int_equal(symlink(from, link), 0);
  EXPECT(DJ_E_INVALID, "recover", "half.mcap", "--out", "link.mcap", "--force");
  free(from);
  free(link);
  char *now = bytes_of("half.mcap", &after);
  assert_int_equal(after, n);
  assert_memory_equal(now, before, n);
  free(now);
  free(before);
}

// ---- use ----

static void every_verb_has_help_with_an_example(void **state) {
  (void)state;
  const char *verbs[] = {"info", "check", "cat", "recover"};
  for (int i = 0; i < 4; i++) {
    EXPECT(0, verbs[i], "--help");
    assert_has("out.txt", "Example:\n  dojo log ");
    EXPECT(DJ_E_INVALID, verbs[i]);
    assert_has("err.txt", "which log?");
    EXPECT(DJ_E_INVALID, verbs[i], "a.mcap", "--jsn");
    assert_has("err.txt", "unknown option --jsn");
  }
  EXPECT(0, "--help");
  assert_has("out.txt", "Example:");
  EXPECT(DJ_E_INVALID, "chek", "a.mcap");
  assert_has("err.txt", "did you mean 'check'?");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(info_tells_channels_rates_and_gaps),
      cmocka_unit_test(cat_decodes_what_it_knows),
      cmocka_unit_test(cat_filters_by_time),
      cmocka_unit_test(cat_says_what_is_wrong),
      cmocka_unit_test(cat_goes_on_behind_a_message_that_lies),
      cmocka_unit_test(check_tells_the_place),
      cmocka_unit_test(recover_never_touches_its_source),
      cmocka_unit_test(every_verb_has_help_with_an_example),
  };
  return cmocka_run_group_tests(tests, make_root, remove_root);
}
