/*
 * `dojo train` and `dojo runs` as a user meets them: a generated drive, a small network on the
 * backend people use, stopped by a signal and by kill -9, resumed to the same bytes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <time.h>
#include <cmocka.h>
#include <jansson.h>

#include "cli_fixture.h"
#include "dojo/train.h"

static const char recipe[] =
    "name: small\n"
    "data: {width: 48, height: 32, crop: [0, 0.3, 0, 0], frames: 2, labels: [control]}\n"
    "augment: {mirror: 0.5, brightness: 0.2}\n"
    "network: {name: dojo4d, channels: 8, stages: 3, hidden: 16, dropout: 0.1}\n"
    "train:\n"
    "  steps: 30\n"
    "  batch: 4\n"
    "  ema: 0.9\n"
    "  checkpoint_every: 4\n"
    "  validate_every: 15\n";

static int make_root(void **state) {
  (void)state;
  if (!mkdtemp(root)) return -1;
  put("small.yaml", recipe);
  return RUN("ingest", "synth:3:160", "--store", "S") ? -1 : 0;
}

static char *final_bytes(const char *run, size_t *n) {
  char *dir = dj__join(root, run), *path, *bytes;
  if (dj_checkpoint_find(dir, DJ_CHECKPOINT_LAST, &path)) fail_msg("%s", dj_error_message());
  assert_non_null(strstr(path, "step-00000030"));
  if (dj__read_file(path, 1 << 26, &bytes, n)) fail_msg("%s", dj_error_message());
  free(path);
  free(dir);
  return bytes;
}

// Waits until the run has a checkpoint (or is over).
static void wait_for_checkpoint(const char *run, pid_t pid) {
  char *dir = dj__join(root, run);
  for (int i = 0; i < 6000; i++) {
    char *path;
    bool there = dj_checkpoint_find(dir, DJ_CHECKPOINT_LAST, &path) == DJ_OK;
    if (there) free(path);
    if (there || kill(pid, 0) != 0) break;
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
  }
  free(dir);
}

static void stopped_runs_end_in_the_same_bytes(void **state) {
  (void)state;
  EXPECT(0, "train", "small.yaml", "--store", "S", "--out", "whole", "--threads", "2", "--json");
  char *out = text_of("out.txt");
  json_error_t e;
  json_t *j = json_loads(out, 0, &e);
  assert_int_equal(json_integer_value(json_object_get(j, "step")), 30);
  assert_true(json_is_number(json_object_get(j, "loss")));
  assert_string_equal(json_string_value(json_object_get(j, "best_name")), "steering/mae");
  json_decref(j);
  free(out);

  const int signals[] = {SIGINT, SIGTERM, SIGKILL};
  size_t n, m;
  char *want = final_bytes("whole", &n);
  for (int i = 0; i < 3; i++) {
    char *name = dj__strf("run-%d", i);
    pid_t pid = start((const char *const[]){"train", "small.yaml", "--store", "S", "--out", name,
                                            "--threads", "2", NULL});
    wait_for_checkpoint(name, pid);
    kill(pid, signals[i]);
    int code = finish(pid);
    // A fast machine may be through before the signal comes; then there is nothing to resume.
    if (code != 0 && signals[i] != SIGKILL) {
      assert_int_equal(code, DJ_E_INTERRUPTED);
      assert_has("err.txt", "go on with 'dojo train --resume run-");
    }
    EXPECT(0, "train", "--resume", name);
    char *got = final_bytes(name, &m);
    assert_int_equal(n, m);
    assert_memory_equal(want, got, n);
    free(got);
    free(name);
  }
  free(want);

  EXPECT(0, "runs", "whole", "run-0", "--json");
  out = text_of("out.txt");
  j = json_loads(out, 0, &e);
  assert_int_equal(json_array_size(j), 2);
  for (size_t i = 0; i < 2; i++) {
    json_t *r = json_array_get(j, i);
    assert_int_equal(json_integer_value(json_object_get(r, "step")), 30);
    assert_string_equal(json_string_value(json_object_get(r, "recipe")), "small");
    assert_false(json_boolean_value(json_object_get(r, "running")));
  }
  json_decref(j);
  free(out);
  EXPECT(0, "runs");
  assert_has("out.txt", "run-2");
  assert_has("out.txt", "30/30");
  assert_has("out.txt", "The recipes are equal.");
}

static void a_profile_is_printed_and_changes_nothing(void **state) {
  (void)state;
  EXPECT(0, "train", "small.yaml", "--store", "S", "--out", "profiled", "--threads", "2",
         "--profile", "--memory");
  assert_has("out.txt", "memory, MiB\n");
  assert_has("out.txt", "times the bytes alive at once");
  assert_has("out.txt", "Mean of 20 steps: ");
  assert_has("out.txt", " conv2d_weight\n"); // a total
  assert_has("out.txt", " backbone/stage0"); // a node
  assert_has("out.txt", "30 of 30 steps");
  size_t n, m;
  char *want = final_bytes("whole", &n), *got = final_bytes("profiled", &m);
  assert_int_equal(n, m);
  assert_memory_equal(want, got, n);
  free(want);
  free(got);
}

static void mistakes_say_what_to_do(void **state) {
  (void)state;
  EXPECT(DJ_E_INVALID, "train", "small.yaml", "--out", "x");
  assert_has("err.txt", "--store");
  EXPECT(DJ_E_INVALID, "train", "small.yaml", "--store", "S");
  assert_has("err.txt", "--out");
  EXPECT(DJ_E_INVALID, "train", "--resume", "whole", "--steps", "3");
  EXPECT(DJ_E_NOT_FOUND, "train", "--resume", "nothing");
  EXPECT(DJ_E_NOT_FOUND, "train", "missing.yaml", "--store", "S", "--out", "x");
  EXPECT(DJ_E_NOT_FOUND, "train", "small.yaml", "--store", "none", "--out", "x");
  EXPECT(DJ_E_INVALID, "train", "small.yaml", "--store", "S", "--out", "x", "--precision", "f16");
  EXPECT(DJ_E_EXISTS, "train", "small.yaml", "--store", "S", "--out", "whole");
  assert_has("err.txt", "dojo train --resume whole");
  put("bad.yaml", "data:\n  widht: 3\n");
  EXPECT(DJ_E_FORMAT, "train", "bad.yaml", "--store", "S", "--out", "x");
  assert_has("err.txt", "bad.yaml:2: unknown key 'widht' in 'data'; did you mean 'width'?");
  put("bad.yaml", "data: {width: 48, height: 32}\nnetwork:\n  name: dojo5d\n"
                  "train: {steps: 1, batch: 1}\n");
  EXPECT(DJ_E_NOT_FOUND, "train", "bad.yaml", "--store", "S", "--out", "x");
  assert_has("err.txt", "dojo4d");
  put("bad.yaml", "data: {width: 48, height: 32, frames: 2, labels: [control]}\n"
                  "network: {name: dojo4d, channels: 4096, stages: 3, growth: 4, hidden: 65536}\n"
                  "train: {steps: 1, batch: 1024}\n");
  EXPECT(DJ_E_NOMEM, "train", "bad.yaml", "--store", "S", "--out", "x");
  assert_has("err.txt", "use a smaller batch");
  char *path = dj__join(root, "x");
  assert_false(dj__exists(path)); // none of these left a folder
  free(path);
  EXPECT(DJ_E_NOT_FOUND, "runs", "S");
  EXPECT(0, "train", "--keys");
  assert_has("out.txt", "`train.optimizer.lr`");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(stopped_runs_end_in_the_same_bytes),
                                     cmocka_unit_test(a_profile_is_printed_and_changes_nothing),
                                     cmocka_unit_test(mistakes_say_what_to_do)};
  return cmocka_run_group_tests(tests, make_root, remove_root);
}
