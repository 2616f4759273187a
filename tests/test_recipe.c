/* Recipes: what they mean, and that every mistake is named with its line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/fs.h"
#include "dojo/train.h"
#include "train/recipe.h"

static const char full[] = "name: donkey\n"
                           "about: a line\n"
                           "data:\n"
                           "  width: 160\n"
                           "  height: 80\n"
                           "  crop: [0, 0.3, 0.0, 1e-1]\n"
                           "  frames: 4\n"
                           "  labels: [control, path]\n"
                           "  cameras: [front, left]\n"
                           "augment: {mirror: 0.5, yaw: 0.05}\n"
                           "network:\n"
                           "  name: dojo4d\n"
                           "  channels: 48\n"
                           "  recurrent: false\n"
                           "loss: {kind: huber, throttle: 0}\n"
                           "train:\n"
                           "  epochs: 2.5\n"
                           "  batch: 32\n"
                           "  precision: f32\n"
                           "  optimizer: {name: sgd, lr: 0.01}\n"
                           "  schedule: {name: step, every: 100, gamma: 0.5, warmup: 7}\n"
                           "  seed: 12345678901\n";

static dj_recipe *parse(const char *text) {
  dj_recipe *r = NULL;
  if (dj_recipe_parse(text, strlen(text), "r.yaml", &r)) fail_msg("%s", dj_error_message());
  return r;
}

// The document must be refused with this status and a message that holds `part`.
static void refuse(const char *text, dj_status want, const char *part) {
  dj_recipe *r = NULL;
  dj_status s = dj_recipe_parse(text, strlen(text), "r.yaml", &r);
  assert_null(r);
  if (s != want || !strstr(dj_error_message(), part))
    fail_msg("status %d, wanted %d; message '%s', wanted '%s'\n%s", s, want, dj_error_message(),
             part, text);
}

static void everything_is_read(void **state) {
  (void)state;
  dj_recipe *r = parse(full);
  assert_string_equal(r->name, "donkey");
  assert_int_equal(r->data.width, 160);
  assert_int_equal(r->data.frames, 4);
  assert_int_equal(r->data.stride, 1);
  assert_true(r->data.crop[1] == 0.3f && r->data.crop[3] == 0.1f);
  assert_int_equal(r->data.labels, DJ_LABEL_CONTROL | DJ_LABEL_PATH);
  assert_int_equal(r->data.n_cameras, 2);
  assert_string_equal(r->data.cameras[1], "left");
  assert_null(r->data.drives);
  assert_true(r->augment.mirror == 0.5f && r->augment.yaw == 0.05f && r->augment.noise == 0);
  assert_string_equal(r->network.name, "dojo4d");
  assert_int_equal(r->network.channels, 48);
  assert_int_equal(r->network.hypotheses, 3);
  assert_false(r->network.recurrent);
  assert_int_equal(r->loss.kind, DJ_LOSS_HUBER);
  assert_true(r->loss.throttle == 0 && r->loss.steering == 1);
  assert_true(r->train.epochs == 2.5 && r->train.steps == 0);
  assert_int_equal(r->train.precision, DJ_PRECISION_F32);
  assert_int_equal(r->train.optimizer.name, DJ_SGD);
  assert_true(r->train.optimizer.lr == 0.01f && r->train.optimizer.momentum == 0.9f);
  assert_int_equal(r->train.schedule.name, DJ_SCHEDULE_STEP);
  assert_int_equal(r->train.schedule.every, 100);
  assert_int_equal(r->train.schedule.warmup, 7);
  assert_true(r->train.seed == 12345678901ull);
  assert_int_equal(r->train.keep, 2);
  assert_int_equal(dj_recipe_line(r, "network.channels"), 13);
  assert_int_equal(dj_recipe_line(r, "train.schedule.gamma"), 21);
  assert_int_equal(dj_recipe_line(r, "train.keep"), 0);
  assert_string_equal(r->text, full);
  assert_int_equal(strlen(r->digest), 64);
  dj_recipe_free(r);
}

#define HEAD "data: {width: 32, height: 32}\nnetwork: {name: n}\n"
#define MIN  HEAD "train: {steps: 3, batch: 2}\n"

static void defaults(void **state) {
  (void)state;
  dj_recipe *r = parse(MIN);
  assert_string_equal(r->name, "r");
  assert_int_equal(r->data.labels, DJ_LABEL_CONTROL);
  assert_int_equal(r->train.precision, DJ_PRECISION_BF16);
  assert_int_equal(r->train.optimizer.name, DJ_ADAMW);
  assert_int_equal(r->train.schedule.name, DJ_SCHEDULE_COSINE);
  assert_true(r->network.recurrent);
  assert_true(r->train.checkpoint_seconds == 60);
  dj_recipe_free(r);
}

static void mistakes_are_named(void **state) {
  (void)state;
  refuse(MIN "augment:\n  miror: 1\n", DJ_E_FORMAT,
         "r.yaml:5: unknown key 'miror' in 'augment'; did you mean 'mirror'?");
  refuse(MIN "trian: {}\n", DJ_E_FORMAT, "r.yaml:4: unknown key 'trian'");
  refuse(MIN "zzzzzzzz: {}\n", DJ_E_FORMAT, "known: name, about, task, data");
  refuse(HEAD "train:\n  steps: 3\n  batch: 0\n", DJ_E_INVALID,
         "r.yaml:5: 'train.batch' is 0, out of range: 1 to 65536");
  refuse(HEAD "train:\n  steps: 3\n  batch: many\n", DJ_E_INVALID, "should be a whole number");
  refuse(HEAD "train: {steps: 3, batch: 1.5}", DJ_E_INVALID, "should be a whole number");
  refuse(HEAD "train: {steps: 3, batch: 0x10}", DJ_E_INVALID, "should be a whole number");
  refuse(HEAD "train: {steps: -3, batch: 1}", DJ_E_INVALID, "out of range");
  refuse(HEAD "train: {steps: 99999999999999999999, batch: 1}", DJ_E_INVALID, "out of range");
  refuse(HEAD "train: {steps: 3}\n", DJ_E_FORMAT, "r.yaml:3: the key 'train.batch' is missing");
  refuse("data: {width: 32, height: 32}\ntrain: {steps: 3, batch: 2}\n", DJ_E_FORMAT,
         "'network.name' is missing");
  refuse(HEAD "train: {batch: 3}\n", DJ_E_INVALID, "either train.epochs or train.steps");
  refuse(HEAD "train: {steps: 3, epochs: 1, batch: 3}\n", DJ_E_INVALID, "both are there");
  refuse(MIN "augment: {noise: .nan}\n", DJ_E_INVALID, "finite decimal number");
  refuse(MIN "augment: {noise: nan}\n", DJ_E_INVALID, "finite decimal number");
  refuse(MIN "augment: {noise: inf}\n", DJ_E_INVALID, "finite decimal number");
  refuse(MIN "augment: {noise: 1e999}\n", DJ_E_INVALID, "out of range");
  refuse(MIN "augment: {noise: [1]}\n", DJ_E_FORMAT, "should be a single value, not a list");
  refuse(MIN "augment: 3\n", DJ_E_FORMAT, "'augment' should be a mapping");
  refuse(MIN "augment:\n", DJ_E_FORMAT, "'augment' should be a mapping, not empty");
  refuse(MIN "augment: {noise: 0.1, noise: 0.2}\n", DJ_E_FORMAT, "given twice; first in line 4");
  refuse(MIN "loss: {kind: huba}\n", DJ_E_FORMAT, "did you mean 'huber'?");
  refuse("data: {width: 32, height: 32, labels: [contrl]}\n", DJ_E_FORMAT,
         "did you mean 'control'?");
  refuse("data: {width: 32, height: 32, labels: []}\n", DJ_E_FORMAT, "0 entries");
  refuse("data: {width: 32, height: 32, crop: [0, 0]}\n", DJ_E_FORMAT, "has 2 entries");
  refuse("data: {width: 32, height: 32, crop: [0,0,0,0,0]}\n", DJ_E_FORMAT, "over 4 entries");
  refuse("data: {width: 32, height: 32, crop: [.5,0,.5,0]}\nnetwork: {name: n}\n"
         "train: {steps: 3, batch: 2}\n",
         DJ_E_INVALID, "less than a tenth");
  refuse(MIN "network: {name: m}\n", DJ_E_FORMAT, "'network' is given twice");
  refuse("data: {width: 32, height: 32}\nnetwork: {name: n, recurrent: maybe}\n", DJ_E_FORMAT,
         "true or false");
  refuse(HEAD "train: {steps: 3, batch: 2, schedule: {name: step}}\n", DJ_E_INVALID,
         "needs train.schedule.every");
  refuse("", DJ_E_FORMAT, "empty");
  refuse("- 1\n- 2\n", DJ_E_FORMAT, "'a recipe' should be a mapping, not a list");
  refuse("a: [1\n", DJ_E_FORMAT, "r.yaml:");
  refuse(MIN "---\n" MIN, DJ_E_FORMAT, "a second document");
}

static void hostile_documents(void **state) {
  (void)state;
  refuse("a: &a [x]\nb: *a\n", DJ_E_FORMAT, "unknown key 'a'");
  refuse("name: &a n\nabout: *a\n", DJ_E_FORMAT, "anchors and aliases");
  refuse("data: &d {width: 32}\nnetwork: *d\n", DJ_E_FORMAT, "anchors and aliases");
  refuse("data: {<<: {width: 3}}\n", DJ_E_FORMAT, "unknown key '<<'");
  refuse("name: !!int 3\n", DJ_E_FORMAT, "tags");
  refuse("? [a, b]\n: c\n", DJ_E_FORMAT, "'a key' should be a single value");
  char *deep = calloc(1, 100001);
  memset(deep, '[', 100000);
  refuse(deep, DJ_E_FORMAT, "should be a mapping");
  for (int i = 0; i < 100000; i += 2) memcpy(deep + i, "{a", 2);
  refuse(deep, DJ_E_FORMAT, "r.yaml:1");
  free(deep);
  size_t big = (1u << 20) + 1;
  char *large = malloc(big);
  memset(large, '#', big);
  dj_recipe *r;
  assert_int_equal(dj_recipe_parse(large, big, "r.yaml", &r), DJ_E_LIMIT);
  free(large);
  assert_int_equal(dj_recipe_parse("name: a\0b", 9, "r.yaml", &r), DJ_E_FORMAT);
  assert_int_equal(dj_recipe_load("/nonexistent.yaml", &r), DJ_E_NOT_FOUND);
}

// Cutting a good recipe anywhere gives a recipe or an error, never anything else.
static void truncation(void **state) {
  (void)state;
  for (size_t n = 0; n < sizeof full - 1; n++) {
    dj_recipe *r = NULL;
    dj_status s = dj_recipe_parse(full, n, "r.yaml", &r);
    assert_true(s ? r == NULL && *dj_error_message() : r != NULL);
    dj_recipe_free(r);
  }
}

// Every key of the table is accepted by the reader and described on the user's page.
static void reference_is_complete(void **state) {
  (void)state;
  char *table = dj__recipe_reference();
  char *page;
  size_t size;
  if (dj__read_file(DOJO_SOURCE_DIR "/docs/training.md", 1 << 20, &page, &size))
    fail_msg("%s", dj_error_message());
  for (char *line = strtok(table, "\n"); line; line = strtok(NULL, "\n"))
    if (!strstr(page, line)) fail_msg("docs/training.md lacks the line\n%s", line);
  free(page);
  free(table);
}

// The recipes that come with the program are good.
static void shipped_recipes(void **state) {
  (void)state;
  char **names;
  size_t n;
  if (dj__list_dir(DOJO_SOURCE_DIR "/recipes", &names, &n)) {
    print_message("no recipes/ folder: skipped\n");
    skip();
  }
  for (size_t i = 0; i < n; i++) {
    char *path = dj__join(DOJO_SOURCE_DIR "/recipes", names[i]);
    dj_recipe *r = NULL;
    if (dj_recipe_load(path, &r)) fail_msg("%s", dj_error_message());
    dj_recipe_free(r);
    free(path);
  }
  dj__free_names(names, n);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(everything_is_read), cmocka_unit_test(defaults),
      cmocka_unit_test(mistakes_are_named), cmocka_unit_test(hostile_documents),
      cmocka_unit_test(truncation),         cmocka_unit_test(reference_is_complete),
      cmocka_unit_test(shipped_recipes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
