/*
 * dojo report as a user meets it: a run, scores, pictures on one page that needs nothing else, and
 * mistakes that say what to do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cli_fixture.h"

static const char SCORES[] =
    "{\"driver\": \"a <b> driver\", \"suite\": \"s\", \"drives\": 2,\n"
    " \"pdms\": {\"value\": 87.5, \"ci95\": [80, 95.25]}, \"nc\": {\"value\": 100, \"ci95\": [100, "
    "100]},\n"
    " \"km_between_failures\": {\"value\": null, \"ci95\": [0.5, null]},\n"
    " \"kinds\": {\"route\": {\"pdms\": {\"value\": 91.5, \"ci95\": [1, 2]}},\n"
    "             \"offset\": {\"pdms\": {\"value\": 71.5, \"ci95\": [1, 2]}}}}\n";
/* The smallest PNG: one grey pixel. */
static const unsigned char DOT[] = {0x89, 'P', 'N',  'G',  '\r', '\n', 0x1a, '\n', 0,    0, 0, 13,
                                    'I',  'H', 'D',  'R',  0,    0,    0,    1,    0,    0, 0, 1,
                                    8,    0,   0,    0,    0,    0x3a, 0x7e, 0x9b, 0x55, 0, 0, 0,
                                    10,   'I', 'D',  'A',  'T',  0x78, 0x9c, 0x63, 0x68, 0, 0, 0,
                                    0x82, 0,   0x81, 0x77, 0xcd, 0x72, 0xb6, 0,    0,    0, 0, 'I',
                                    'E',  'N', 'D',  0xae, 0x42, 0x60, 0x82};

static int make_root(void **state) {
  (void)state;
  if (!mkdtemp(root)) return -1;
  put("scores.json", SCORES);
  put("other.json", "{\"a\": 1}\n");
  put("broken.json", "{\"a\": \n\n");
  put("notes.txt", "?\n");
  char *path = dj__join(root, "dot.png");
  dj_status s = dj__write_file_atomic(path, DOT, sizeof DOT);
  free(path);
  put("t.txt",
      "the wheels on the bus go round and round, all through the town. the wheels on the bus\n");
  put("t.yaml", "name: tiny\ntask: text\ndata: {context: 8, windows: 4}\n"
                "network: {name: decoder, layers: 1, heads: 1, width: 16}\n"
                "train: {steps: 6, batch: 2, validate_every: 2}\n");
  return s || RUN("text", "pack", "t.txt", "--out", "t.safetensors") ||
                 RUN("train", "t.yaml", "--tokens", "t.safetensors", "--out", "R")
             ? -1
             : 0;
}

static void a_page_holds_everything(void **state) {
  (void)state;
  EXPECT(0, "report", "R", "scores.json", "dot.png=The <town>", "--title", "A & B", "--out",
         "page.html");
  assert_has("page.html", "<title>A &amp; B</title>");
  assert_has("page.html", "<td>a &lt;b&gt; driver</td>"); // escaped
  assert_has("page.html", ">87.5 ");
  assert_has("page.html", "80.0-95.2");
  assert_has("page.html", "<td>91.5</td>"); // by kind
  assert_has("page.html", "<td>-</td>");    // never failed: no figure
  assert_has("page.html", "data:image/png;base64,iVBORw0KGgo");
  assert_has("page.html", "<figcaption>The &lt;town&gt;</figcaption>");
  assert_has("page.html", "Training: tiny");
  assert_has("page.html", "train/loss</text>");
  assert_has("page.html", "<polyline points=\"");
  char *page = text_of("page.html");
  assert_null(strstr(page, "http")); // nothing is fetched
  assert_null(strstr(page, "<script"));
  free(page);
}

static void captions_and_folders(void **state) {
  (void)state;
  EXPECT(0, "report", "scores.json=Me", "--out", "named.html");
  assert_has("named.html", "<td>Me</td>");
  char *dir = dj__join(root, "media"), *to = dj__join(root, "media/first_drive.png");
  assert_int_equal(dj__mkdirs(dir), DJ_OK);
  assert_int_equal(dj__write_file_atomic(to, DOT, sizeof DOT), DJ_OK);
  EXPECT(0, "report", "media", "--out", "folder.html");
  assert_has("folder.html", "<figcaption>first_drive</figcaption>");
  free(dir);
  free(to);
}

static void mistakes_say_what_to_do(void **state) {
  (void)state;
  EXPECT(2, "report", "R");
  assert_has("err.txt", "--out");
  EXPECT(6, "report", "nowhere.png", "--out", "x.html");
  assert_has("err.txt", "nowhere.png: no such");
  EXPECT(2, "report", "notes.txt", "--out", "x.html");
  assert_has("err.txt", "notes.txt: neither");
  EXPECT(5, "report", "other.json", "--out", "x.html");
  assert_has("err.txt", "other.json: not a report of dojo drive --json");
  EXPECT(5, "report", "broken.json", "--out", "x.html");
  assert_has("err.txt", "broken.json: line");
  char *path = dj__join(root, "x.html");
  assert_false(dj__exists(path)); // nothing half made
  free(path);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_page_holds_everything),
      cmocka_unit_test(captions_and_folders),
      cmocka_unit_test(mistakes_say_what_to_do),
  };
  return cmocka_run_group_tests(tests, make_root, remove_root);
}
