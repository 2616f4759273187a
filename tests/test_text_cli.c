/*
 * Language models as a user meets them: text to tokens, a small model, the same text from the same
 * seed, out to Hugging Face's files and in again, and mistakes that say what to do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>

#include "cli_fixture.h"

enum { TIMES = 120 };
static const char verse[] = "the wheels on the bus go round and round, all through the town.\n";

static int make_root(void **state) {
  (void)state;
  if (!mkdtemp(root)) return -1;
  char *text = calloc(TIMES, sizeof verse);
  for (int i = 0; text && i < TIMES; i++) strcat(text, verse);
  if (!text) return -1;
  put("bus.txt", text);
  free(text);
  put("bus.yaml", "name: bus\n"
                  "task: text\n"
                  "data: {context: 64, windows: 8}\n"
                  "network: {name: decoder, layers: 2, heads: 2, width: 32}\n"
                  "train: {steps: 200, batch: 8, optimizer: {lr: 0.005}, clip: 1}\n");
  put("drive.yaml", "data: {width: 32, height: 16}\n"
                    "network: {name: pilotnet}\ntrain: {steps: 1, batch: 1}\n");
  return RUN("text", "pack", "bus.txt", "--characters", "--out", "bus.safetensors") ||
                 RUN("train", "bus.yaml", "--tokens", "bus.safetensors", "--out", "R")
             ? -1
             : 0;
}

static void it_writes_what_it_learned(void **state) {
  (void)state;
  EXPECT(0, "text", "generate", "R", "--prompt", "the wheels", "--n", "20", "--temperature", "0");
  char *out = text_of("out.txt");
  assert_string_equal(out, " on the bus go round\n");
  free(out);
  EXPECT(0, "text", "generate", "R", "--n", "40", "--seed", "7", "--json");
  json_t *a = report();
  EXPECT(0, "text", "generate", "R", "--n", "40", "--seed", "7", "--json", "--threads", "1");
  json_t *b = report();
  assert_true(json_equal(json_object_get(a, "ids"), json_object_get(b, "ids")));
  assert_int_equal(json_array_size(json_object_get(a, "ids")), 40);
  assert_int_equal(json_string_length(json_object_get(a, "text")), 40);
  json_decref(a);
  json_decref(b);
}

static double loss_of(const char *run, const char *file) {
  EXPECT(0, "text", "score", run, file, "--json", "--precision", "f32");
  json_t *j = report();
  double loss = json_number_value(json_object_get(j, "loss"));
  assert_true(fabs(exp(loss) - json_number_value(json_object_get(j, "perplexity"))) < 1e-6);
  json_decref(j);
  return loss;
}

static void scores_and_files(void **state) {
  (void)state;
  put("other.txt", "town the through all, round and round the bus on go wheels\n");
  double known = loss_of("R", "bus.txt"), other = loss_of("R", "other.txt");
  assert_true(known < 0.3 && other > 1);
  EXPECT(0, "text", "export", "R", "--out", "hf");
  EXPECT(0, "text", "import", "hf", "--out", "I");
  put("ids.txt", "1 5 9 2 3");
  EXPECT(0, "text", "score", "R", "ids.txt", "--ids", "--json", "--precision", "f32");
  json_t *a = report();
  EXPECT(0, "text", "score", "I", "ids.txt", "--ids", "--json", "--precision", "f32");
  json_t *b = report();
  assert_true(json_equal(a, b));
  json_decref(a);
  json_decref(b);
}

static void resuming_needs_nothing_else(void **state) {
  (void)state;
  EXPECT(0, "train", "bus.yaml", "--tokens", "bus.safetensors", "--out", "Q", "--steps", "10");
  EXPECT(0, "train", "--resume", "Q", "--memory");
  assert_has("out.txt", "10 of 10 steps");
  assert_has("out.txt", "optimiser");
}

static void mistakes_say_what_to_do(void **state) {
  (void)state;
  EXPECT(DJ_E_INVALID, "train", "bus.yaml", "--store", "S", "--out", "N");
  assert_has("err.txt", "--tokens T");
  EXPECT(DJ_E_INVALID, "train", "drive.yaml", "--tokens", "bus.safetensors", "--out", "N");
  assert_has("err.txt", "--store S");
  EXPECT(DJ_E_INVALID, "train", "bus.yaml", "--tokens", "b", "--store", "S", "--out", "N");
  EXPECT(DJ_E_NOT_FOUND, "train", "bus.yaml", "--tokens", "none.safetensors", "--out", "N");
  EXPECT(DJ_E_LIMIT, "train", "bus.yaml", "--tokens", "bus.txt", "--out", "N");
  EXPECT(DJ_E_INVALID, "text", "generate", "R", "--prompt", "ZEBRA");
  assert_has("err.txt", "'Z' (U+005A)");
  EXPECT(DJ_E_INVALID, "text", "generate", "R", "--temperature", "-1");
  EXPECT(DJ_E_INVALID, "text", "generate", "R", "--prompt", "");
  EXPECT(DJ_E_INVALID, "text", "generate");
  EXPECT(DJ_E_NOT_FOUND, "text", "generate", "nowhere");
  EXPECT(DJ_E_INVALID, "text", "generate", "R", "--ids", "--prompt", "1 99");
  assert_has("err.txt", "token 1 is 99");
  EXPECT(DJ_E_INVALID, "text", "score", "R", "ids.txt", "--ids", "--precision", "f16");
  EXPECT(DJ_E_INVALID, "eval", "R");
  assert_has("err.txt", "see dojo text");
  EXPECT(DJ_E_INVALID, "text", "generat", "R");
  assert_has("err.txt", "did you mean 'generate'");
  EXPECT(DJ_E_INVALID, "text", "encode", "bus.txt", "--characters");
  EXPECT(DJ_E_INVALID, "text", "pack", "bus.txt");
  EXPECT(DJ_E_NOT_FOUND, "text", "import", "nowhere", "--out", "N");
  EXPECT(DJ_E_NOT_FOUND, "text", "generate", "I", "--prompt", "x"); // imported without a tokeniser
  assert_has("err.txt", "--merges");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(it_writes_what_it_learned), cmocka_unit_test(scores_and_files),
      cmocka_unit_test(resuming_needs_nothing_else), cmocka_unit_test(mistakes_say_what_to_do)};
  return cmocka_run_group_tests(tests, make_root, remove_root);
}
