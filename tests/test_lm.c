/*
 * Language models: files of tokens, training, the cache against whole passes, sampling, and other
 * people's files.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <cmocka.h>

#include "dojo/ops.h"
#include "dojo/safetensors.h"
#include "dojo/text.h"
#include <math.h>

#include "drive_fixture.h"

enum { VOCABULARY = 11, LENGTH = 3000, CONTEXT = 96 };

/* A walk through the tokens that a model can learn: next = 3 * this + 1, but for some jumps. */
static void make_tokens(const char *path) {
  static int32_t ids[LENGTH];
  for (int i = 1; i < LENGTH; i++)
    ids[i] = i % 13 == 0 ? i / 13 % VOCABULARY : (3 * ids[i - 1] + 1) % VOCABULARY;
  dj_tokenizer *t;
  fx_ok(dj_tokenizer_open_characters("abcdefghij\xc3\xa4", VOCABULARY + 1, "test", &t));
  assert_int_equal(dj_tokenizer_size(t), VOCABULARY);
  fx_ok(dj_tokens_save(path, t, ids, LENGTH));
  dj_tokenizer_close(t);
}

#define GPT2                                                                                       \
  "task: text\ndata: {context: 96, windows: 4}\n"                                                  \
  "network: {name: decoder, layers: 2, heads: 2, width: 16}\n"
#define LLAMA                                                                                      \
  "task: text\ndata: {context: 96, windows: 4}\n"                                                  \
  "network: {name: decoder, layers: 2, heads: 4, kv_heads: 2, width: 16, mlp_width: 24, norm: "    \
  "rms, "                                                                                          \
  "positions: rotary, mlp: swiglu, tied: false, bias: false, dropout: 0.1}\n"
#define TRAIN                                                                                      \
  "train: {steps: 60, batch: 4, precision: f32, optimizer: {lr: 0.01}, clip: 1, validate_every: "  \
  "30}\n"

static dj_recipe *recipe(const char *text) {
  dj_recipe *r;
  fx_ok(dj_recipe_parse(text, strlen(text), "r.yaml", &r));
  return r;
}

/* Trains in DIR/name; the loss of the last step and the best validation. */
static void train(const char *dir, const char *name, const char *text, dj_train_result *result) {
  char *tokens = dj__join(dir, "t.safetensors"), *out = dj__join(dir, name);
  make_tokens(tokens);
  dj_recipe *r = recipe(text);
  dj_task *task;
  dj_run *run;
  fx_ok(dj_task_create_text(r, tokens, &task));
  fx_ok(dj_run_create(out, r, &(dj_run_options){.store = tokens, .threads = 1}, &run));
  fx_ok(dj_run_train(run, task, NULL, result));
  dj_task_destroy(task);
  dj_run_close(run);
  dj_recipe_free(r);
  free(tokens);
  free(out);
}

static double farthest(const float *a, const float *b, size_t n) {
  double worst = 0;
  for (size_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
  return worst;
}

/* Logits with the cache, fed one by one and in prompts, are those of whole passes. */
static void check_cache(dj_lm *m) {
  static float want[CONTEXT * VOCABULARY];
  int32_t ids[CONTEXT + 20];
  for (int i = 0; i < CONTEXT + 20; i++) ids[i] = (5 * i + i / 7) % VOCABULARY;
  fx_ok(dj_lm_score(m, ids, CONTEXT, want));
  assert_null(dj_lm_logits(m));
  for (int i = 0; i < CONTEXT; i++) {
    fx_ok(dj_lm_feed(m, &ids[i], 1));
    fx_near(farthest(dj_lm_logits(m), want + i * VOCABULARY, VOCABULARY), 0, 2e-5);
  }
  static const int prompts[] = {1, 7, 8, 40, 64, 65, 80, CONTEXT};
  for (size_t k = 0; k < sizeof prompts / sizeof *prompts; k++) {
    dj_lm_forget(m);
    fx_ok(dj_lm_feed(m, ids, (size_t)prompts[k]));
    fx_near(farthest(dj_lm_logits(m), want + (prompts[k] - 1) * VOCABULARY, VOCABULARY), 0, 2e-5);
    if (prompts[k] == CONTEXT) break;
    fx_ok(dj_lm_feed(m, &ids[prompts[k]], 1)); // and on from there
    fx_near(farthest(dj_lm_logits(m), want + prompts[k] * VOCABULARY, VOCABULARY), 0, 2e-5);
  }
  // Beyond the context: from its last half on.
  fx_ok(dj_lm_feed(m, ids + CONTEXT, 20));
  fx_ok(dj_lm_score(m, ids + CONTEXT / 2, CONTEXT / 2 + 20, want));
  fx_near(farthest(dj_lm_logits(m), want + (CONTEXT / 2 + 19) * VOCABULARY, VOCABULARY), 0, 2e-5);
  dj_lm_forget(m);
  FX_ERROR(dj_lm_feed(m, (int32_t[]){3, VOCABULARY}, 2), DJ_E_INVALID, "token 1 is 11", "0 to 10");
  FX_ERROR(dj_lm_score(m, ids, CONTEXT + 1, want), DJ_E_INVALID, "97 tokens", "1 to 96");
}

static void check_sampling(dj_lm *m) {
  assert_int_equal(dj_lm_sample(m, &(dj_sampling){.temperature = 1}, 0), -1);
  fx_ok(dj_lm_feed(m, (int32_t[]){1, 4}, 2));
  const float *l = dj_lm_logits(m);
  double p[VOCABULARY], sum = 0;
  int best = 0, second;
  for (int i = 0; i < VOCABULARY; i++) {
    sum += p[i] = exp((double)l[i]);
    if (l[i] > l[best]) best = i;
  }
  second = best == 0;
  for (int i = 0; i < VOCABULARY; i++)
    if (i != best && l[i] > l[second]) second = i;
  int all[VOCABULARY] = {0}, two[VOCABULARY] = {0}, nucleus[VOCABULARY] = {0};
  const float top = (float)((p[best] + 0.5 * p[second]) / sum); // reaches into the second
  for (uint64_t i = 0; i < 20000; i++) {
    assert_int_equal(dj_lm_sample(m, &(dj_sampling){0}, i), best);
    assert_int_equal(dj_lm_sample(m, &(dj_sampling){.temperature = 1, .top_k = 1}, i), best);
    assert_int_equal(dj_lm_sample(m, &(dj_sampling){.temperature = 1, .top_p = 1e-6f}, i), best);
    all[dj_lm_sample(m, &(dj_sampling){.temperature = 2, .seed = 9}, i)]++;
    two[dj_lm_sample(m, &(dj_sampling){.temperature = 1, .top_k = 2}, i)]++;
    nucleus[dj_lm_sample(m, &(dj_sampling){.temperature = 1, .top_p = top}, i)]++;
  }
  double soft = 0;
  for (int i = 0; i < VOCABULARY; i++) soft += sqrt(p[i]);
  for (int i = 0; i < VOCABULARY; i++) { // shares of 20000 draws: 4 standard deviations
    double q = sqrt(p[i]) / soft, k = i == best || i == second ? p[i] / (p[best] + p[second]) : 0;
    fx_near(all[i] / 20000.0, q, 4 * sqrt(q * (1 - q) / 20000) + 1e-9);
    fx_near(two[i] / 20000.0, k, 4 * sqrt(k * (1 - k) / 20000) + 1e-9);
    fx_near(nucleus[i] / 20000.0, k, 4 * sqrt(k * (1 - k) / 20000) + 1e-9);
  }
  dj_lm_forget(m);
}

/* Out to transformers' files and in again: the same logits to the bit. */
static void check_files(const char *dir, const char *run, dj_lm *m, const char *their_name,
                        int rank0, int rank1) {
  char *out = dj__join(dir, "hf"), *back = dj__join(dir, "back"),
       *file = dj__join(out, "model.safetensors");
  float a[3 * VOCABULARY], b[3 * VOCABULARY];
  const int32_t ids[] = {4, 0, 10};
  fx_ok(dj_lm_export(run, out));
  dj_safetensors *f;
  fx_ok(dj_safetensors_open(file, &f));
  const dj_st_tensor *t;
  fx_ok(dj_safetensors_expect(f, their_name, DJ_ST_F32, 2,
                              (uint64_t[]){(uint64_t)rank0, (uint64_t)rank1}, &t));
  dj_safetensors_close(f);
  fx_ok(dj_lm_import(out, back, NULL));
  dj_lm *again;
  fx_ok(dj_lm_open(back, &(dj_lm_options){.precision = "f32"}, &again));
  fx_ok(dj_lm_score(m, ids, 3, a));
  fx_ok(dj_lm_score(again, ids, 3, b));
  assert_memory_equal(a, b, sizeof a);
  dj_lm_close(again);
  FX_ERROR(dj_lm_import(out, back, NULL), DJ_E_EXISTS, "back");
  fx_remove(out);
  fx_remove(back);
  free(file);
  free(out);
  free(back);
}

static void check_model(const char *dir, const char *text, const char *their_name, int rank0,
                        int rank1) {
  dj_train_result r;
  train(dir, "R", text, &r);
  assert_true(r.best < 1.2 && r.best > 0.05); // log 11 is 2.4; the jumps cannot be known
  assert_string_equal(r.best_name, "loss");
  char *run = dj__join(dir, "R");
  dj_lm *m;
  fx_ok(dj_lm_open(run, &(dj_lm_options){.precision = "f32", .threads = 2}, &m));
  check_cache(m);
  check_sampling(m);
  check_files(dir, run, m, their_name, rank0, rank1);
  dj_lm_close(m);
  fx_ok(dj_lm_open(run, &(dj_lm_options){.precision = "bf16"}, &m)); // frozen copies of weights
  float a[2 * VOCABULARY];
  const int32_t ids[] = {4, 0};
  fx_ok(dj_lm_score(m, ids, 2, a));
  fx_ok(dj_lm_feed(m, ids, 1));
  fx_ok(dj_lm_feed(m, ids + 1, 1));
  fx_near(farthest(a + VOCABULARY, dj_lm_logits(m), VOCABULARY), 0, 0.1);
  dj_lm_close(m);
  free(run);
}

static void gpt2_learns_and_writes(void **state) {
  check_model(*state, GPT2 TRAIN, "transformer.h.1.mlp.c_fc.weight", 16, 64);
}
static void llama_learns_and_writes(void **state) {
  check_model(*state, LLAMA TRAIN, "model.layers.1.self_attn.k_proj.weight", 8, 16);
}

/* An imported model goes on learning from its weights. */
static void imported_goes_on(void **state) {
  dj_train_result first, on;
  train(*state, "R", GPT2 TRAIN, &first);
  char *run = dj__join(*state, "R"), *hf = dj__join(*state, "hf"), *back = dj__join(*state, "B"),
       *tokens = dj__join(*state, "t.safetensors");
  fx_ok(dj_lm_export(run, hf));
  fx_ok(dj_lm_import(hf, back, tokens));
  dj_run *r;
  dj_task *task;
  fx_ok(dj_run_resume(back, &r));
  fx_ok(dj_task_create_text(dj_run_recipe(r), dj_run_store(r), &task));
  FX_ERROR(dj_run_train(r, task, &(dj_train_options){.stop_at = 1}, &on), DJ_E_INTERRUPTED,
           "stopped at step 1");
  fx_near(on.loss, first.best, 0.5);
  dj_task_destroy(task);
  dj_run_close(r);
  free(run);
  free(hf);
  free(back);
  free(tokens);
}

static void bad_configs_are_named(void **state) {
  const struct {
    const char *text;
    dj_status status;
    const char *part;
  } cases[] = {
      {"[]", DJ_E_FORMAT, "not a JSON object"},
      {"{\"model_type\": ", DJ_E_FORMAT, "config.json:1"},
      {"{}", DJ_E_FORMAT, "'model_type' is missing"},
      {"{\"model_type\": \"bert\"}", DJ_E_UNSUPPORTED, "known are gpt2 and llama"},
      {"{\"model_type\": \"gpt2\", \"n_embd\": -3}", DJ_E_FORMAT, "'n_embd'"},
      {"{\"model_type\": \"gpt2\", \"activation_function\": \"relu\"}", DJ_E_UNSUPPORTED,
       "'gelu_new'"},
      {"{\"model_type\": \"llama\"}", DJ_E_FORMAT, "'vocab_size'"},
      {"{\"model_type\": \"gpt2\", \"n_layer\": 1}", DJ_E_NOT_FOUND, "model*.safetensors"}};
  const char *dir = fx_path(*state, "in");
  assert_int_equal(dj__mkdirs(dir), DJ_OK);
  char *in = dj__strf("%s", dir), *out = dj__join(*state, "out"),
       *config = dj__join(in, "config.json");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    fx_write(config, cases[i].text);
    FX_ERROR(dj_lm_import(in, out, NULL), cases[i].status, cases[i].part);
    assert_false(dj__exists(out));
  }
  free(in);
  free(out);
  free(config);
}

static void token_files_are_checked(void **state) {
  char *path = dj__join(*state, "t.safetensors");
  dj_tokenizer *t, *again;
  dj_tokens *f;
  size_t n;
  static const char text[] = "b\xc3\xa4"
                             "a b";
  fx_ok(dj_tokenizer_open_characters(text, sizeof text - 1, "test", &t));
  assert_int_equal(dj_tokenizer_size(t), 4); // space, a, b, a with dots
  fx_ok(dj_tokens_save(path, t, (int32_t[]){0, 3, 1}, 3));
  fx_ok(dj_tokens_open(path, &f));
  assert_int_equal(dj_tokens_vocabulary(f), 4);
  assert_int_equal(dj_tokens_data(f, &n)[1], 3);
  assert_int_equal(n, 3);
  dj_tokens_close(f);
  fx_ok(dj_tokenizer_load(path, &again));
  int32_t *ids;
  fx_ok(dj_tokenizer_encode(again, text, sizeof text - 1, &ids, &n));
  assert_int_equal(n, 5);
  assert_memory_equal(ids, ((int32_t[]){2, 3, 1, 0, 2}), 5 * sizeof *ids);
  free(ids);
  FX_ERROR(dj_tokenizer_encode(again, "ac", 2, &ids, &n), DJ_E_INVALID, "byte 1", "'c'");
  FX_ERROR(dj_tokenizer_encode(again, "\xff", 1, &ids, &n), DJ_E_FORMAT, "byte 0");
  dj_tokenizer_close(again);
  fx_ok(dj_tokens_save(path, t, (int32_t[]){0, 4}, 2));
  FX_ERROR(dj_tokens_open(path, &f), DJ_E_FORMAT, "token 1 is 4");
  fx_ok(dj_tokenizer_save(t, path));
  FX_ERROR(dj_tokens_open(path, &f), DJ_E_FORMAT, "'tokens'");
  dj_tokenizer_close(t);
  // A text that is too short, and networks that cannot be.
  make_tokens(path);
  const struct {
    const char *text, *part;
  } cases[] = {
      {"task: text\ndata: {context: 2999}\nnetwork: {name: decoder, heads: 1, width: 8}\n",
       "data.context in r.yaml is 2999"},
      {"task: text\nnetwork: {name: decoder, heads: 3, width: 8}\n", "r.yaml:2: network.width 8"},
      {"task: text\nnetwork: {name: decoder, heads: 4, kv_heads: 3, width: 8}\n", "kv_heads 3"},
      {"task: text\nnetwork: {name: decoder, heads: 2, width: 6, positions: rotary}\n",
       "even width"},
      {"task: text\nnetwork: {name: decoder, heads: 2, width: 6, vocabulary: 5}\n",
       "vocabulary is 5"},
      {"task: text\nnetwork: {name: dojo4d}\n", "'decoder'"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *all = dj__strf("%s%s", cases[i].text, TRAIN);
    dj_recipe *r = recipe(all);
    dj_task *task;
    dj_status s = dj_task_create_text(r, path, &task);
    assert_true(s == DJ_E_INVALID || s == DJ_E_NOT_FOUND);
    FX_ERROR(s, s, cases[i].part);
    dj_recipe_free(r);
    free(all);
  }
  free(path);
}

/* Turning by position keeps lengths, and products depend on the distance of positions alone. */
static void rotary_is_relative(void **state) {
  (void)state;
  enum { T = 4, D = 6 };
  dj_graph *g = dj_graph_create();
  dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(1, T, 1, D));
  dj_val at = dj_input(g, "at", DJ_I32, DJ_SHAPE(T));
  dj_output(g, "y", dj_rotary(g, x, at, 1, 50));
  dj_program *p;
  fx_ok(dj_program_compile(g, NULL, NULL, &p));
  float *in = dj_program_input(p, "x")->data;
  for (int i = 0; i < T * D; i++) in[i] = (float)((i % D * 7 + i / D % 2 * 3) % 5) - 1.5f;
  memcpy(dj_program_input(p, "at")->data, (int32_t[]){0, 3, 10, 13}, T * sizeof(int32_t));
  fx_ok(dj_program_run(p, 0));
  const float *y = dj_program_output(p, "y")->data;
  assert_memory_equal(y, in, D * sizeof *y); // position 0 turns nothing
  double here = 0, there = 0, before = 0, after = 0;
  for (int i = 0; i < D; i++) { // tokens 0 and 2, and 1 and 3, are the same
    here += (double)y[i] * (double)y[D + i];
    there += (double)y[2 * D + i] * (double)y[3 * D + i];
    before += (double)in[D + i] * (double)in[D + i];
    after += (double)y[D + i] * (double)y[D + i];
  }
  fx_near(here, there, 1e-4);
  fx_near(before, after, 1e-4);
  dj_program_destroy(p);
  dj_graph_destroy(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(gpt2_learns_and_writes, fx_setup, fx_teardown),
      cmocka_unit_test_setup_teardown(llama_learns_and_writes, fx_setup, fx_teardown),
      cmocka_unit_test_setup_teardown(imported_goes_on, fx_setup, fx_teardown),
      cmocka_unit_test_setup_teardown(bad_configs_are_named, fx_setup, fx_teardown),
      cmocka_unit_test_setup_teardown(token_files_are_checked, fx_setup, fx_teardown),
      cmocka_unit_test(rotary_is_relative)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
