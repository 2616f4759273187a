/*
 * kill -9 at random moments: the run, taken up as often as it takes, ends in the same bytes as one
 * that was never stopped. The trainer is a child process; each is killed after a random time, which
 * falls into steps, validations, checkpoint writing, renaming and start-up alike.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <ftw.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "root_fixture.h"
#include "tiny_task.h"

enum { KILLS = 24, STEPS = 400 };
static const char recipe[] = "precision: f32, steps: 400, batch: 8, ema: 0.99, clip: 1, keep: 2, "
                             "checkpoint_every: 7, validate_every: 25, optimizer: {lr: 0.01}";

// A task that takes its time, so that a run lasts long enough to be hit.
static dj_status slow_fill(dj_task *t, dj_program *p, uint64_t step, uint64_t *samples) {
  nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
  return tiny_fill(t, p, step, samples);
}

// What a child does: begins the run or takes it up, trains, ends with its status.
static int trainer(const char *dir) {
  tiny_task t = tiny_make(8);
  dj_task_ops ops = *t.base.ops;
  ops.fill = slow_fill;
  t.base.ops = &ops;
  t.dropout = 0.2f;
  dj_run *run;
  char *mark = dj__join(dir, "run.json");
  dj_status s;
  if (dj__exists(mark)) {
    s = dj_run_resume(dir, &run);
  } else {
    dj_recipe *r = tiny_recipe(recipe);
    s = dj_run_create(dir, r, &(dj_run_options){.threads = 1, .backend = "ref"}, &run);
    dj_recipe_free(r);
  }
  free(mark);
  if (!s) {
    s = dj_run_train(run, &t.base, NULL, NULL);
    dj_run_close(run);
  }
  if (s) (void)fprintf(stderr, "trainer: %s\n", dj_error_message());
  return (int)s;
}

// Runs a trainer in a child; kills it after `us` microseconds (0: never). True if it was killed.
static bool run_child(const char *dir, long us) {
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) _exit(trainer(dir));
  if (us) {
    nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000}, NULL);
    kill(pid, SIGKILL);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) fail_msg("the trainer failed");
  return WIFSIGNALED(status);
}

static uint64_t last_step(const char *dir) {
  char *path;
  if (dj_checkpoint_find(dir, DJ_CHECKPOINT_LAST, &path)) return 0;
  dj_vars *v = dj_vars_create(0);
  dj_checkpoint_info info;
  // What is under its final name is whole, at any moment.
  if (dj_checkpoint_load(path, v, &info)) fail_msg("%s", dj_error_message());
  uint64_t step = info.step;
  dj_checkpoint_info_free(&info);
  dj_vars_destroy(v);
  free(path);
  return step;
}

static void read_final(const char *dir, dj_checkpoint_which which, char **bytes, size_t *n) {
  char *path;
  if (dj_checkpoint_find(dir, which, &path)) fail_msg("%s", dj_error_message());
  if (dj__read_file(path, 1 << 24, bytes, n)) fail_msg("%s", dj_error_message());
  free(path);
}

static void killed_runs_end_in_the_same_bytes(void **state) {
  (void)state;
  char *whole = dj__join(root, "whole");
  assert_false(run_child(whole, 0));
  dj__rng r = {.key = (uint64_t)time(NULL) ^ (uint64_t)getpid()};
  print_message("seed of the random moments: %llu\n", (unsigned long long)r.key);
  int kills = 0, runs = 0;
  char *dir = NULL;
  // When a run gets through, another begins, until there were enough kills.
  for (uint64_t before = 0; kills < KILLS || dir;) {
    if (!dir) {
      char name[16];
      (void)snprintf(name, sizeof name, "run-%d", runs++);
      dir = dj__join(root, name);
      before = 0;
    }
    // Short lives now and then: start-up is a moment like any other.
    bool brief = dj__rng_below(&r, 4) == 0;
    long us = kills < KILLS ? 1000 + (long)dj__rng_below(&r, brief ? 8000 : 120000) : 0;
    bool killed = run_child(dir, us);
    uint64_t now = last_step(dir);
    assert_true(now >= before); // no checkpoint is ever lost
    before = now;
    kills += killed;
    if (killed) continue;
    assert_int_equal(now, STEPS);
    const dj_checkpoint_which both[] = {DJ_CHECKPOINT_LAST, DJ_CHECKPOINT_BEST};
    for (int i = 0; i < 2; i++) {
      char *a, *b;
      size_t na, nb;
      read_final(whole, both[i], &a, &na);
      read_final(dir, both[i], &b, &nb);
      assert_int_equal(na, nb);
      assert_memory_equal(a, b, na);
      free(a);
      free(b);
    }
    free(dir);
    dir = NULL;
  }
  assert_true(kills >= 20);
  print_message("%d kills over %d runs\n", kills, runs);
  free(whole);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(killed_runs_end_in_the_same_bytes)};
  return cmocka_run_group_tests(tests, create_root, remove_root);
}
