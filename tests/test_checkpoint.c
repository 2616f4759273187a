/* Checkpoints: what is kept, what survives a full disk, and broken files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fs.h"
#include "dojo/safetensors.h"
#include "root_fixture.h"
#include "train/run.h"

static dj_vars *make_vars(float value) {
  dj_vars *v = dj_vars_create(1);
  dj_var *x;
  OK(dj_vars_add(v, "net/w", DJ_VAR_PARAM, DJ_SHAPE(3, 4), dj_init_const(value), &x));
  OK(dj_vars_add(v, "net/mean", DJ_VAR_STATE, DJ_SHAPE(4), dj_init_const(value + 1), &x));
  OK(dj_vars_add(v, "optimizer/ema/net/w", DJ_VAR_STATE, DJ_SHAPE(3, 4), dj_init_const(value + 2),
                 &x));
  OK(dj_vars_add(v, "optimizer/loss", DJ_VAR_STATE, DJ_SCALAR, dj_init_const(value + 3), &x));
  return v;
}

static dj__run_state at(uint64_t step) {
  return (dj__run_state){.step = step,
                         .seed = 5,
                         .best = 0.25,
                         .best_step = 20,
                         .best_name = "steering/mae",
                         .recipe_digest = "abc",
                         .task = "{\"data\":\"d\"}"};
}

static void set(dj_vars *v, float x) {
  float *w = dj_vars_find(v, "net/w")->tensor.data;
  for (int i = 0; i < 12; i++) w[i] = x;
}

static float loaded(const char *path, dj_checkpoint_info *info) {
  dj_vars *v = dj_vars_create(0);
  OK(dj_checkpoint_load(path, v, info));
  assert_int_equal(dj_vars_count(v), 4);
  assert_int_equal(dj_vars_find(v, "net/w")->kind, DJ_VAR_PARAM);
  assert_int_equal(dj_vars_find(v, "net/mean")->kind, DJ_VAR_STATE);
  float w = *(float *)dj_vars_find(v, "net/w")->tensor.data;
  dj_vars_destroy(v);
  return w;
}

static int count_files(const char *dir) {
  char **names;
  size_t n;
  OK(dj__list_dir(dir, &names, &n));
  dj__free_names(names, n);
  return (int)n;
}

static void last_and_best_are_kept(void **state) {
  (void)state;
  char *dir = dj__join(root, "keep"), *folder = dj__join(dir, "checkpoints"), *path;
  dj_vars *v = make_vars(1);
  dj__checkpointer *c;
  assert_int_equal(dj_checkpoint_find(dir, DJ_CHECKPOINT_BEST, &path), DJ_E_NOT_FOUND);
  OK(dj__checkpointer_open(dir, 2, v, &c));
  for (uint64_t step = 10; step <= 50; step += 10) {
    set(v, (float)step);
    dj__run_state s = at(step);
    OK(dj__checkpointer_submit(c, &s, step == 20));
    set(v, -1); // the copy is what is written
  }
  OK(dj__checkpointer_close(c));
  assert_int_equal(count_files(folder), 3);
  dj_checkpoint_info info;
  OK(dj_checkpoint_find(dir, DJ_CHECKPOINT_LAST, &path));
  assert_true(loaded(path, &info) == 50);
  assert_int_equal(info.step, 50);
  assert_true(info.best == 0.25 && info.best_step == 20);
  assert_string_equal(info.best_name, "steering/mae");
  assert_string_equal(info.recipe_digest, "abc");
  assert_string_equal(info.task, "{\"data\":\"d\"}");
  dj_checkpoint_info_free(&info);
  free(path);
  OK(dj_checkpoint_find(dir, DJ_CHECKPOINT_BEST, &path));
  assert_true(loaded(path, &info) == 20);
  assert_int_equal(info.step, 20);
  dj_checkpoint_info_free(&info);
  dj_vars *eval = dj_vars_create(0);
  OK(dj_checkpoint_load_for_eval(path, eval, NULL));
  assert_int_equal(dj_vars_count(eval), 2);
  assert_true(*(float *)dj_vars_find(eval, "net/w")->tensor.data == 3); // the average
  assert_true(*(float *)dj_vars_find(eval, "net/mean")->tensor.data == 2);
  dj_vars_destroy(eval);
  free(path);
  dj_vars_destroy(v);
  free(folder);
  free(dir);
}

static void a_full_disk_leaves_the_old(void **state) {
  (void)state;
  char *dir = dj__join(root, "full"), *path;
  dj_vars *v = make_vars(1);
  dj__checkpointer *c;
  OK(dj__checkpointer_open(dir, 1, v, &c));
  dj__run_state s = at(1);
  OK(dj__checkpointer_submit(c, &s, true));
  OK(dj__checkpointer_wait(c));
  // Writes to the temporary name of the next one meet a full device.
  char *next = dj__join(dir, "checkpoints/step-00000002.safetensors");
  char *tmp = dj__strf("%s.tmp", next);
  assert_int_equal(symlink("/dev/full", tmp), 0);
  s = at(2);
  set(v, 7);
  OK(dj__checkpointer_submit(c, &s, true));
  assert_int_equal(dj__checkpointer_wait(c), DJ_E_NO_SPACE);
  assert_non_null(strstr(dj_error_message(), next));
  assert_false(dj__exists(next));
  assert_false(dj__exists(tmp));
  const dj_checkpoint_which both[] = {DJ_CHECKPOINT_LAST, DJ_CHECKPOINT_BEST};
  for (int i = 0; i < 2; i++) {
    dj_checkpoint_info info;
    OK(dj_checkpoint_find(dir, both[i], &path));
    assert_true(loaded(path, &info) == 1);
    assert_int_equal(info.step, 1);
    dj_checkpoint_info_free(&info);
    free(path);
  }
  // Room again: it goes on.
  OK(dj__checkpointer_submit(c, &s, false));
  OK(dj__checkpointer_close(c));
  assert_true(dj__exists(next));
  free(next);
  free(tmp);
  dj_vars_destroy(v);
  free(dir);
}

static void leftovers_go(void **state) {
  (void)state;
  char *dir = dj__join(root, "left"), *folder = dj__join(dir, "checkpoints");
  OK(dj__mkdirs(folder));
  char *tmp = dj__join(folder, "step-00000003.safetensors.tmp");
  OK(dj__write_file_atomic(tmp, "half", 4));
  dj_vars *v = make_vars(1);
  dj__checkpointer *c;
  OK(dj__checkpointer_open(dir, 1, v, &c));
  OK(dj__checkpointer_close(c));
  assert_int_equal(count_files(folder), 0);
  dj_vars_destroy(v);
  free(tmp);
  free(folder);
  free(dir);
}

static void a_broken_last_falls_back(void **state) {
  (void)state;
  char *dir = dj__join(root, "broken");
  dj_vars *v = make_vars(1);
  dj__checkpointer *c;
  OK(dj__checkpointer_open(dir, 3, v, &c));
  dj__run_state s = at(1);
  OK(dj__checkpointer_submit(c, &s, false));
  OK(dj__checkpointer_close(c));
  char *path = dj__join(dir, "checkpoints/step-00000002.safetensors");
  OK(dj__write_file_atomic(path, "\x40\0\0\0\0\0\0\0{", 9));
  dj_checkpoint_info info;
  dj_vars *got = dj_vars_create(0);
  assert_int_equal(dj_checkpoint_load(path, got, NULL), DJ_E_FORMAT);
  OK(dj__checkpoint_load_last(dir, got, &info));
  assert_int_equal(info.step, 1);
  dj_checkpoint_info_free(&info);
  dj_vars_destroy(got);
  dj_vars_destroy(v);
  free(path);
  free(dir);
}

static dj_status load_with(const dj_st_tensor *t, size_t n, const dj_st_meta *m, size_t n_meta,
                           dj_vars *v) {
  char *path = dj__join(root, "one.safetensors");
  OK(dj_safetensors_save(path, t, n, m, n_meta));
  dj_status s = dj_checkpoint_load(path, v, NULL);
  free(path);
  return s;
}

static void other_networks_are_refused(void **state) {
  (void)state;
  float x[12] = {0};
  dj_st_tensor w = {.name = "w", .dtype = DJ_ST_F32, .rank = 2, .shape = {3, 4}, .data = x};
  dj_st_meta good[] = {{"step", "3"}, {"best_step", "0"}, {"params", "[\"w\"]"}};
  dj_vars *v = dj_vars_create(0);
  OK(load_with(&w, 1, good, 3, v));
  dj_var *other;
  OK(dj_vars_add(v, "more", DJ_VAR_PARAM, DJ_SHAPE(1), dj_init_const(0), &other));
  assert_int_equal(load_with(&w, 1, good, 3, v), DJ_E_INVALID); // lacks "more"
  assert_non_null(strstr(dj_error_message(), "'more'"));
  dj_vars_destroy(v);
  v = dj_vars_create(0);
  OK(dj_vars_add(v, "w", DJ_VAR_PARAM, DJ_SHAPE(4, 3), dj_init_const(0), &other));
  assert_int_equal(load_with(&w, 1, good, 3, v), DJ_E_INVALID); // another shape
  dj_vars_destroy(v);
  v = dj_vars_create(0);
  dj_st_meta bad_step[] = {{"step", "-3"}, {"best_step", "0"}, {"params", "[]"}};
  assert_int_equal(load_with(&w, 1, bad_step, 3, v), DJ_E_FORMAT);
  dj_st_meta bad_params[] = {{"step", "3"}, {"best_step", "0"}, {"params", "{"}};
  assert_int_equal(load_with(&w, 1, bad_params, 3, v), DJ_E_FORMAT);
  dj_st_meta bad_best[] = {{"step", "3"}, {"best_step", "0"}, {"params", "[]"}, {"best", "nan"}};
  assert_int_equal(load_with(&w, 1, bad_best, 4, v), DJ_E_FORMAT);
  assert_int_equal(load_with(&w, 1, NULL, 0, v), DJ_E_FORMAT); // some other safetensors file
  w.dtype = DJ_ST_I32;
  assert_int_equal(load_with(&w, 1, good, 3, v), DJ_E_FORMAT);
  w.dtype = DJ_ST_F32;
  w.rank = 8;
  uint64_t ones[8] = {1, 1, 1, 1, 1, 1, 3, 4};
  memcpy(w.shape, ones, sizeof ones);
  assert_int_equal(load_with(&w, 1, good, 3, v), DJ_E_FORMAT);
  assert_int_equal(dj_checkpoint_load("/nonexistent", v, NULL), DJ_E_NOT_FOUND);
  dj_vars_destroy(v);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(last_and_best_are_kept),
      cmocka_unit_test(a_full_disk_leaves_the_old),
      cmocka_unit_test(leftovers_go),
      cmocka_unit_test(a_broken_last_falls_back),
      cmocka_unit_test(other_networks_are_refused),
  };
  return cmocka_run_group_tests(tests, create_root, remove_root);
}
