/*
 * `dojo bench` as a user meets it: the list, a report of one op with sane figures, errors that
 * help. Times themselves are not judged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

#include "dojo/safetensors.h"

static char text[1 << 16];

/* Runs the program with these arguments; its output, errors with it, is in text. Exit code. */
static int dojo(const char *arguments) {
  char command[512];
  (void)snprintf(command, sizeof command, "%s %s 2>&1", DOJO_BINARY, arguments);
  FILE *f = popen(command, "r");
  assert_non_null(f);
  size_t n = fread(text, 1, sizeof text - 1, f);
  text[n] = 0;
  int status = pclose(f);
  assert_true(WIFEXITED(status));
  return WEXITSTATUS(status);
}

static void test_list(void **state) {
  (void)state;
  assert_int_equal(dojo("bench"), 0);
  assert_non_null(strstr(text, "dojo bench ops"));
  assert_int_equal(dojo("bench --help"), 0);
  assert_non_null(strstr(text, "Example: dojo bench ops"));
}

static void test_world(void **state) {
  (void)state;
  assert_int_equal(dojo("bench world world --json --seconds 0.05"), 0);
  const char *json = strchr(text, '['); // after what the map says
  assert_non_null(json);
  json_t *rows = json_loads(json, 0, NULL);
  assert_int_equal(json_array_size(rows), 1);
  const json_t *row = json_array_get(rows, 0);
  assert_string_equal(json_string_value(json_object_get(row, "unit")), "steps/s");
  assert_true(json_real_value(json_object_get(row, "median")) > 0);
  json_decref(rows);
  assert_int_not_equal(dojo("bench world nothing"), 0);
  assert_non_null(strstr(text, "no row of `dojo bench world` begins with 'nothing'"));
}

static void test_steps(void **state) {
  (void)state;
  assert_int_equal(dojo("bench steps " DOJO_SOURCE_DIR
                        "/recipes/pilotnet.yaml --batch 2 --seconds 0"
                        " --threads 1 --precision f32 --json"),
                   0);
  json_t *report = json_loads(text, 0, NULL);
  assert_int_equal(json_array_size(report), 1);
  const json_t *row = json_array_get(report, 0);
  assert_string_equal(json_string_value(json_object_get(row, "precision")), "f32");
  assert_int_equal(json_integer_value(json_object_get(json_object_get(row, "input"), "batch")), 2);
  assert_true(json_real_value(json_object_get(row, "ms")) > 0);
  // forward, and twice that backward: 27 million multiply-adds a frame (Bojarski et al. 2016)
  double gflop = json_real_value(json_object_get(row, "gflop"));
  assert_true(gflop > 2 * 2 * 2.5 * 0.027 && gflop < 2 * 2 * 3.5 * 0.027);
  int64_t n = 0;
  const json_t *parameters = json_object_get(row, "parameters");
  for (size_t i = 0; i < json_array_size(parameters); i++) {
    const json_t *shape = json_object_get(json_array_get(parameters, i), "shape");
    int64_t count = 1;
    for (size_t d = 0; d < json_array_size(shape); d++)
      count *= json_integer_value(json_array_get(shape, d));
    n += count;
  }
  assert_int_equal(n, 252219 + 3 * 11); // the paper's about 250 thousand; four outputs, not one
  json_decref(report);
  assert_int_not_equal(dojo("bench steps"), 0);
  assert_non_null(strstr(text, "give recipes"));
  assert_int_not_equal(dojo("bench steps " DOJO_SOURCE_DIR "/recipes/demo.yaml --precision f16"),
                       0);
  assert_non_null(strstr(text, "f32 or bf16"));
}

/* Two batches by turns: at a learning rate of 0 the third loss is the first. */
static void test_batches(void **state) {
  (void)state;
  enum { N = 2, BATCH = 2, CONTEXT = 8 };
  char path[] = "/tmp/dojo-batches-XXXXXX", arguments[400];
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  close(fd);
  int32_t token[N * BATCH * CONTEXT];
  for (int i = 0; i < N * BATCH * CONTEXT; i++) token[i] = i * i % 65;
  dj_st_tensor t[] = {
      {"token", DJ_ST_I32, 3, {N, BATCH, CONTEXT}, token, 0},
      {"label", DJ_ST_I32, 3, {N, BATCH, CONTEXT}, token, 0},
  };
  assert_int_equal(dj_safetensors_save(path, t, 2, NULL, 0), DJ_OK);
  const char *const run = "bench steps " DOJO_SOURCE_DIR "/recipes/shakespeare.yaml --batch 2 "
                          "--context %d --precision f32 --no-dropout --lr 0 --seconds 0 "
                          "--batches %s --json";
  (void)snprintf(arguments, sizeof arguments, run, CONTEXT, path);
  assert_int_equal(dojo(arguments), 0);
  json_t *report = json_loads(text, 0, NULL);
  const json_t *losses = json_object_get(json_array_get(report, 0), "first_losses");
  double loss[3];
  for (size_t i = 0; i < 3; i++) loss[i] = json_real_value(json_array_get(losses, i));
  assert_true(loss[0] > 0 && loss[0] == loss[2] && loss[0] != loss[1]);
  json_decref(report);
  (void)snprintf(arguments, sizeof arguments, run, CONTEXT + 1, path);
  assert_int_not_equal(dojo(arguments), 0);
  assert_non_null(strstr(text, "token"));
  assert_non_null(strstr(text, path));
  unlink(path);
  assert_int_not_equal(dojo(arguments), 0); // gone
  assert_non_null(strstr(text, path));
}

static void test_json(void **state) {
  (void)state;
  assert_int_equal(dojo("bench ops --op gru_cell --seconds 0 --threads 2 --no-peaks --json"), 0);
  json_t *report = json_loads(text, 0, NULL);
  assert_non_null(report);
  assert_int_equal(json_integer_value(json_object_get(report, "threads")), 2);
  const json_t *rows = json_object_get(report, "ops");
  assert_int_equal(json_array_size(rows), 2); // one sample, f32 and bf16
  for (size_t i = 0; i < 2; i++) {
    const json_t *row = json_array_get(rows, i);
    assert_string_equal(json_string_value(json_object_get(row, "op")), "gru_cell");
    assert_string_equal(json_string_value(json_object_get(row, "dtype")), i ? "bf16" : "f32");
    assert_string_not_equal(json_string_value(json_object_get(row, "kernel")), "reference");
    double ms = json_real_value(json_object_get(row, "ms"));
    double bytes = json_real_value(json_object_get(row, "bytes"));
    assert_true(ms > 0 && json_integer_value(json_object_get(row, "runs")) >= 1);
    // x of two products (256, 768), state and result (256, 256)
    assert_true(bytes == (i ? 2.0 : 4.0) * 256 * 256 * 8);
    double rate = json_real_value(json_object_get(row, "gbytes"));
    assert_true(rate > 0.999 * bytes / ms * 1e-6 && rate < 1.001 * bytes / ms * 1e-6);
  }
  json_decref(report);
}

static void test_instruction_set(void **state) {
  (void)state;
  assert_int_equal(dojo("bench ops gru_cell --seconds 0 --isa generic --dtype f32 --no-peaks"), 0);
  assert_non_null(strstr(text, "generic"));
  assert_null(strstr(text, "bf16"));
}

static void test_errors(void **state) {
  (void)state;
  assert_int_equal(dojo("bench ops --op softmaxx"), 6);
  assert_non_null(strstr(text, "nearest name is 'softmax'"));
  assert_int_equal(dojo("bench networks"), 2);
  assert_int_equal(dojo("bench ops --dtype f16"), 2);
  assert_int_equal(dojo("bench ops --isa sse9"), 7);
  assert_non_null(strstr(text, "unknown instruction set"));
  assert_int_equal(dojo("bench ops --backend gpu"), 6);
  assert_int_equal(dojo("bench ops --threads -1"), 2);
  assert_int_equal(dojo("bench ops --op gru_cell --sample none --no-peaks"), 6);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_list),   cmocka_unit_test(test_world),
      cmocka_unit_test(test_steps),  cmocka_unit_test(test_batches),
      cmocka_unit_test(test_json),   cmocka_unit_test(test_instruction_set),
      cmocka_unit_test(test_errors),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
