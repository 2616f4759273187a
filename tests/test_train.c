/* Optimisers, schedules and the training loop, on a small network. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <ftw.h>
#include <unistd.h>
#include <cmocka.h>

#include "root_fixture.h"
#include "tiny_task.h"
#include "train/events.h"
#include "train/run.h"

static void assert_message(const char *part) {
  if (!strstr(dj_error_message(), part))
    fail_msg("message '%s' lacks '%s'", dj_error_message(), part);
}

static char *folder(const char *name) {
  return dj__join(root, name);
}

// Trains a fresh run; the last checkpoint's bytes come back.
static char *train_fresh(const char *name, const char *train, const tiny_task *task,
                         dj_train_result *result, size_t *size) {
  char *dir = folder(name), *path, *bytes;
  dj_recipe *r = tiny_recipe(train);
  dj_run *run;
  tiny_task t = *task;
  OK(dj_run_create(dir, r, &(dj_run_options){.threads = 1, .backend = "ref"}, &run));
  OK(dj_run_train(run, &t.base, NULL, result));
  dj_run_close(run);
  OK(dj_checkpoint_find(dir, DJ_CHECKPOINT_LAST, &path));
  OK(dj__read_file(path, 1 << 24, &bytes, size));
  dj_recipe_free(r);
  free(path);
  free(dir);
  return bytes;
}

static void assert_same(const char *a, size_t na, const char *b, size_t nb) {
  assert_int_equal(na, nb);
  assert_memory_equal(a, b, na);
}

// ---- schedules ---------------------------------------------------------------------------------

static void assert_near(double a, double b, double tolerance) {
  if (!(fabs(a - b) <= tolerance)) fail_msg("%.9g is not %.9g", a, b);
}

static void schedules(void **state) {
  (void)state;
  dj_schedule s = {.kind = DJ_SCHEDULE_COSINE, .lr = 2, .warmup = 3, .steps = 103, .final = 0.1};
  assert_near(dj_schedule_lr(&s, 0), 0.5, 1e-12);
  assert_near(dj_schedule_lr(&s, 2), 1.5, 1e-12);
  assert_near(dj_schedule_lr(&s, 3), 2, 1e-12);
  assert_near(dj_schedule_lr(&s, 53), 1.1, 1e-12);
  assert_near(dj_schedule_lr(&s, 103), 0.2, 1e-12);
  assert_near(dj_schedule_lr(&s, 1000), 0.2, 1e-12);
  for (uint64_t k = 4; k < 103; k++) assert_true(dj_schedule_lr(&s, k) < dj_schedule_lr(&s, k - 1));
  s = (dj_schedule){.kind = DJ_SCHEDULE_STEP, .lr = 1, .warmup = 2, .every = 10, .gamma = 0.5};
  assert_near(dj_schedule_lr(&s, 11), 1, 1e-12);
  assert_near(dj_schedule_lr(&s, 12), 0.5, 1e-12);
  assert_near(dj_schedule_lr(&s, 22), 0.25, 1e-12);
  s = (dj_schedule){.kind = DJ_SCHEDULE_CONSTANT, .lr = 0.3};
  assert_near(dj_schedule_lr(&s, 0), 0.3, 1e-12);
  assert_near(dj_schedule_lr(&s, 99), 0.3, 1e-12);
}

// ---- optimisers against a few lines of arithmetic
// ------------------------------------------------

// loss = mean((w - target)^2) over 2x2 and a bias of 2: gradients are known in closed form.
typedef struct toy {
  dj_vars *vars;
  dj_program *p;
} toy;

static toy make_toy(const dj_optimizer *o) {
  toy t = {.vars = dj_vars_create(3)};
  dj_graph *g = dj_graph_create();
  dj_val w = dj_param(g, "w", DJ_SHAPE(2, 2), dj_init_const(1));
  dj_val b = dj_param(g, "b", DJ_SHAPE(2), dj_init_const(1));
  dj_val y = dj_input(g, "y", DJ_F32, DJ_SHAPE(2, 2));
  dj_val loss = dj_add(g, dj_sum(g, dj_mul(g, w, y), DJ_ALL_AXES), dj_sum(g, b, DJ_ALL_AXES));
  OK(dj_optimizer_apply(g, loss, o));
  OK(dj_program_compile(g, &(dj_compile_options){.backend = "ref"}, t.vars, &t.p));
  OK(dj_optimizer_start(t.vars));
  dj_graph_destroy(g);
  return t;
}
static float *var(const toy *t, const char *name) {
  dj_var *v = dj_vars_find(t->vars, name);
  if (!v) fail_msg("no variable '%s'", name);
  return v->tensor.data;
}
static void step_toy(const toy *t, const dj_optimizer *o, uint64_t step, const float y[4]) {
  memcpy(dj_program_input(t->p, "y")->data, y, 16);
  OK(dj_optimizer_fill(t->p, o, step, 0.1));
  OK(dj_program_run(t->p, step));
}
static void free_toy(toy *t) {
  dj_program_destroy(t->p);
  dj_vars_destroy(t->vars);
}

static void adamw_steps(void **state) {
  (void)state;
  dj_optimizer o = {.kind = DJ_ADAMW, .weight_decay = 0.1f, .ema = 0.9f};
  toy t = make_toy(&o);
  double w = 1, m = 0, v = 0, ema = 1;
  for (int k = 0; k < 5; k++) {
    float y[4] = {0.5f + (float)k, 1, 2, 3};
    step_toy(&t, &o, (uint64_t)k, y);
    double g = (double)y[0];
    m = 0.9 * m + 0.1 * g;
    v = 0.999 * v + 0.001 * g * g;
    double c1 = 1 - pow(0.9, k + 1), c2 = 1 - pow(0.999, k + 1);
    w -= 0.1 * (m / c1 / (sqrt(v / c2) + 1e-8) + 0.1 * w);
    double decay = fmin(0.9, (1.0 + k) / (10.0 + k));
    ema += (1 - decay) * (w - ema);
    assert_near((double)var(&t, "w")[0], w, 2e-5);
    assert_near((double)var(&t, "optimizer/ema/w")[0], ema, 2e-5);
  }
  // The bias has a gradient of 1 and no weight decay: Adam goes down by lr each step.
  assert_near((double)var(&t, "b")[0], 1 - 5 * 0.1, 1e-4);
  free_toy(&t);
}

static void sgd_with_momentum(void **state) {
  (void)state;
  dj_optimizer o = {.kind = DJ_SGD, .beta1 = 0.8f, .weight_decay = 0.5f};
  toy t = make_toy(&o);
  double w = 1, m = 0;
  for (int k = 0; k < 4; k++) {
    float y[4] = {2, 0, -1, 0};
    step_toy(&t, &o, (uint64_t)k, y);
    m = 0.8 * m + (2 + 0.5 * w);
    w -= 0.1 * m;
    assert_near((double)var(&t, "w")[0], w, 1e-5);
  }
  assert_null(dj_vars_find(t.vars, "optimizer/ema/w"));
  assert_null(dj_vars_find(t.vars, "optimizer/v/w"));
  free_toy(&t);
}

static void clipping(void **state) {
  (void)state;
  dj_optimizer o = {.kind = DJ_SGD, .max_norm = 1};
  toy t = make_toy(&o);
  float big[4] = {3, 4, 12, 0}; // and a bias gradient of (1, 1): norm sqrt(171)
  step_toy(&t, &o, 0, big);
  double norm = sqrt(9 + 16 + 144 + 2);
  assert_near((double)*(const float *)dj_program_output(t.p, "grad_norm")->data, norm, 1e-4);
  assert_near((double)var(&t, "w")[2], 1 - 0.1 * 12 / norm, 1e-5);
  float w = var(&t, "w")[0];
  float small[4] = {0.1f, 0, 0, 0}, b = var(&t, "b")[0];
  o.max_norm = 10;
  step_toy(&t, &o, 1, small);
  assert_near((double)var(&t, "w")[0], (double)w - 0.01, 1e-5);
  assert_near((double)var(&t, "b")[0], (double)b - 0.1, 1e-5);
  // A gradient that is not finite writes nothing.
  float before = var(&t, "w")[0], bad[4] = {NAN, 0, 0, 0};
  step_toy(&t, &o, 2, bad);
  assert_true(var(&t, "w")[0] == before);
  free_toy(&t);
}

static void bad_optimizers(void **state) {
  (void)state;
  dj_graph *g = dj_graph_create();
  dj_val x = dj_input(g, "x", DJ_F32, DJ_SCALAR);
  assert_int_equal(dj_optimizer_apply(g, x, &(dj_optimizer){0}), DJ_E_INVALID);
  assert_message("no trainable variable");
  assert_int_equal(dj_optimizer_apply(g, x, &(dj_optimizer){.ema = 1}), DJ_E_INVALID);
  assert_int_equal(dj_optimizer_apply(g, x, &(dj_optimizer){.eps = NAN}), DJ_E_INVALID);
  dj_graph_destroy(g);
}

// ---- the loop ----------------------------------------------------------------------------------

#define COMMON "precision: f32, optimizer: {lr: 0.01}, "

static void it_learns(void **state) {
  (void)state;
  tiny_task t = tiny_make(16);
  dj_train_result r;
  size_t n;
  free(train_fresh("learns", COMMON "steps: 300, batch: 16, ema: 0.98, validate_every: 50", &t, &r,
                   &n));
  assert_int_equal(r.step, 300);
  assert_string_equal(r.best_name, "error");
  assert_true(r.best < 0.1);
  assert_true(r.best_step > 0 && r.samples_per_second > 0);
}

static void two_runs_are_equal(void **state) {
  (void)state;
  tiny_task t = tiny_make(8);
  t.dropout = 0.2f;
  size_t na, nb, nc;
  const char *recipe = COMMON "epochs: 2.5, batch: 8, ema: 0.9, clip: 1";
  dj_train_result r;
  char *a = train_fresh("same-a", recipe, &t, &r, &na);
  char *b = train_fresh("same-b", recipe, &t, NULL, &nb);
  assert_int_equal(r.step, 25);
  assert_same(a, na, b, nb);
  char *c = train_fresh("same-c", COMMON "epochs: 2.5, batch: 8, ema: 0.9, clip: 1, seed: 2", &t,
                        NULL, &nc);
  assert_false(na == nc && !memcmp(a, c, na));
  free(a);
  free(b);
  free(c);
}

// What is too large to have twice is written while the loop waits: the same bytes.
static void checkpoints_without_a_copy(void **state) {
  (void)state;
  const size_t usual = dj__checkpoint_most_copied;
  tiny_task t = tiny_make(8);
  const char *recipe = COMMON "steps: 12, batch: 8, ema: 0.9, checkpoint_every: 3";
  size_t na, nb;
  char *a = train_fresh("copied", recipe, &t, NULL, &na);
  dj__checkpoint_most_copied = 0;
  char *b = train_fresh("not-copied", recipe, &t, NULL, &nb);
  dj__checkpoint_most_copied = usual;
  assert_same(a, na, b, nb);
  free(a);
  free(b);
}

// Stopped after every step, in turn, and taken up again: the same bytes.
static void resume_at_any_step(void **state) {
  (void)state;
  tiny_task t = tiny_make(4);
  t.dropout = 0.3f;
  const char *recipe = COMMON "steps: 12, batch: 4, ema: 0.9, validate_every: 5, accumulate: 2";
  size_t n, m;
  char *want = train_fresh("whole", recipe, &t, NULL, &n);
  for (uint64_t at = 1; at < 12; at++) {
    char name[32], *path, *bytes;
    (void)snprintf(name, sizeof name, "resume-%d", (int)at);
    char *dir = folder(name);
    dj_recipe *r = tiny_recipe(recipe);
    dj_run *run;
    dj_train_result result;
    OK(dj_run_create(dir, r, &(dj_run_options){.threads = 1, .backend = "ref"}, &run));
    assert_int_equal(dj_run_train(run, &t.base, &(dj_train_options){.stop_at = at}, &result),
                     DJ_E_INTERRUPTED);
    assert_message("dojo train --resume");
    assert_int_equal(result.step, at);
    dj_run_close(run);
    OK(dj_run_resume(dir, &run));
    t.fills = 0;
    OK(dj_run_train(run, &t.base, NULL, &result));
    assert_int_equal(t.fills, 2 * (12 - at));
    dj_run_close(run);
    OK(dj_checkpoint_find(dir, DJ_CHECKPOINT_LAST, &path));
    OK(dj__read_file(path, 1 << 24, &bytes, &m));
    assert_same(want, n, bytes, m);
    free(bytes);
    free(path);
    free(dir);
    dj_recipe_free(r);
  }
  free(want);
}

// The backend people train with, in both precisions, on two threads, stopped in the middle.
/* A run that begins with another's weights begins as that one ended, moving averages and all. */
static void begins_with_the_weights_of_a_run(void **state) {
  (void)state;
  tiny_task t = tiny_make(8);
  size_t n;
  dj_train_result first, next;
  free(train_fresh("from-a", COMMON "steps: 200, batch: 8, ema: 0.9, validate_every: 50", &t,
                   &first, &n));
  char *a = folder("from-a"), *b = folder("from-b");
  dj_recipe *r =
      tiny_recipe("precision: f32, optimizer: {lr: 1.0e-9}, steps: 1, batch: 8, ema: 0.9");
  dj_run *run;
  const dj_run_options o = {.from = a, .threads = 1, .backend = "ref"};
  OK(dj_run_create(b, r, &o, &run));
  OK(dj_run_train(run, &t.base, NULL, &next));
  dj_run_close(run);
  assert_near(next.best, first.best, 1e-6);
  dj_run_info info;
  OK(dj_run_read(b, &info));
  dj_run_info_free(&info);
  free(b);

  b = folder("from-c");
  OK(dj_run_create(b, r, &(dj_run_options){.from = b, .threads = 1, .backend = "ref"}, &run));
  assert_int_equal(dj_run_train(run, &t.base, NULL, NULL), DJ_E_NOT_FOUND);
  assert_message("cannot begin with the weights");
  dj_run_discard(run);
  dj_recipe_free(r);
  free(a);
  free(b);
}

static void cpu_backend_resumes_to_the_same_bytes(void **state) {
  (void)state;
  const char *const precisions[] = {"f32", "bf16"};
  for (int k = 0; k < 2; k++) {
    tiny_task t = tiny_make(32);
    t.dropout = 0.1f;
    char *bytes[2],
        *text = dj__strf("precision: %s, steps: 40, batch: 32, ema: 0.9", precisions[k]);
    size_t size[2];
    dj_recipe *r = tiny_recipe(text);
    for (int stopped = 0; stopped < 2; stopped++) {
      char *name = dj__strf("cpu-%s-%d", precisions[k], stopped), *dir = folder(name), *path;
      dj_run *run;
      OK(dj_run_create(dir, r, &(dj_run_options){.threads = 2}, &run));
      if (stopped) {
        assert_int_equal(dj_run_train(run, &t.base, &(dj_train_options){.stop_at = 17}, NULL),
                         DJ_E_INTERRUPTED);
        dj_run_close(run);
        OK(dj_run_resume(dir, &run));
      }
      OK(dj_run_train(run, &t.base, NULL, NULL));
      dj_run_close(run);
      OK(dj_checkpoint_find(dir, DJ_CHECKPOINT_LAST, &path));
      OK(dj__read_file(path, 1 << 24, &bytes[stopped], &size[stopped]));
      free(path);
      free(dir);
      free(name);
    }
    assert_same(bytes[0], size[0], bytes[1], size[1]);
    free(bytes[0]);
    free(bytes[1]);
    dj_recipe_free(r);
    free(text);
  }
}

static float *weights_of(const char *name, dj_vars *v) {
  char *dir = folder(name), *path;
  OK(dj_checkpoint_find(dir, DJ_CHECKPOINT_LAST, &path));
  OK(dj_checkpoint_load(path, v, NULL));
  free(path);
  free(dir);
  return dj_vars_find(v, "mlp/w1")->tensor.data;
}

static void accumulation_is_a_big_batch(void **state) {
  (void)state;
  tiny_task small = tiny_make(8), big = tiny_make(32);
  big.sum_of = 4;
  size_t n;
  dj_train_result a, b;
  const char *rest = "steps: 20, ema: 0.9, clip: 0.5, optimizer: {name: sgd, lr: 0.1}";
  char *one = dj__strf("precision: f32, batch: 32, %s", rest);
  char *four = dj__strf("precision: f32, batch: 8, accumulate: 4, %s", rest);
  free(train_fresh("big", one, &big, &a, &n));
  free(train_fresh("accumulated", four, &small, &b, &n));
  assert_near(a.loss, b.loss, 1e-5);
  dj_vars *va = dj_vars_create(0), *vb = dj_vars_create(0);
  const float *wa = weights_of("big", va), *wb = weights_of("accumulated", vb);
  for (int i = 0; i < TINY_HIDDEN * TINY_IN; i++) assert_near((double)wa[i], (double)wb[i], 1e-5);
  dj_vars_destroy(va);
  dj_vars_destroy(vb);
  free(one);
  free(four);
}

static void evaluation_takes_the_average(void **state) {
  (void)state;
  tiny_task t = tiny_make(8);
  size_t n;
  free(train_fresh("average", COMMON "steps: 20, batch: 8, ema: 0.9", &t, NULL, &n));
  char *dir = folder("average"), *path;
  dj_vars *all = dj_vars_create(0), *eval = dj_vars_create(0);
  dj_checkpoint_info info;
  OK(dj_checkpoint_find(dir, DJ_CHECKPOINT_LAST, &path));
  OK(dj_checkpoint_load(path, all, &info));
  OK(dj_checkpoint_load_for_eval(path, eval, NULL));
  assert_int_equal(info.step, 20);
  assert_string_equal(info.task, "{\"data\": \"tiny\"}");
  const float *raw = dj_vars_find(all, "mlp/w1")->tensor.data;
  const float *ema = dj_vars_find(all, "optimizer/ema/mlp/w1")->tensor.data;
  const float *got = dj_vars_find(eval, "mlp/w1")->tensor.data;
  assert_true(got[0] == ema[0] && got[0] != raw[0]);
  assert_int_equal(dj_vars_count(eval), 4);
  dj_checkpoint_info_free(&info);
  dj_vars_destroy(all);
  dj_vars_destroy(eval);
  free(path);
  free(dir);
}

static void nonfinite_stops(void **state) {
  (void)state;
  for (int accumulate = 1; accumulate <= 2; accumulate++) {
    tiny_task t = tiny_make(4);
    t.poison_at = (uint64_t)(7 * accumulate);
    char *dir = folder(accumulate == 1 ? "nan" : "nan-accumulated"), *path;
    char *recipe =
        dj__strf(COMMON "steps: 20, batch: 4, checkpoint_every: 3, accumulate: %d", accumulate);
    dj_recipe *r = tiny_recipe(recipe);
    dj_run *run;
    dj_train_result result;
    OK(dj_run_create(dir, r, &(dj_run_options){.threads = 1, .backend = "ref"}, &run));
    assert_int_equal(dj_run_train(run, &t.base, NULL, &result), DJ_E_NONFINITE);
    assert_message("step 8");
    assert_message("input 'x'"); // the first that is not finite
    assert_int_equal(result.step, 7);
    dj_run_close(run);
    OK(dj_checkpoint_find(dir, DJ_CHECKPOINT_LAST, &path));
    assert_non_null(strstr(path, "step-00000006"));
    // The data mended, the run goes on.
    t.poison_at = 0;
    OK(dj_run_resume(dir, &run));
    OK(dj_run_train(run, &t.base, NULL, &result));
    assert_int_equal(result.step, 20);
    assert_true(isfinite(result.loss));
    dj_run_close(run);
    dj_recipe_free(r);
    free(recipe);
    free(path);
    free(dir);
  }
}

static void one_run_one_folder(void **state) {
  (void)state;
  char *dir = folder("locked");
  dj_recipe *r = tiny_recipe("steps: 5, batch: 4"), *other = tiny_recipe("steps: 6, batch: 4");
  dj_run *a, *b = NULL;
  dj_run_options o = {.backend = "ref"};
  OK(dj_run_create(dir, r, &o, &a));
  assert_int_equal(dj_run_create(dir, r, &o, &b), DJ_E_STATE);
  assert_message("another trainer");
  assert_int_equal(dj_run_resume(dir, &b), DJ_E_STATE);
  dj_run_info info;
  OK(dj_run_read(dir, &info));
  assert_true(info.running && info.step == 0 && info.steps == 5);
  dj_run_info_free(&info);
  dj_run_close(a);
  assert_int_equal(dj_run_create(dir, r, &o, &b), DJ_E_EXISTS);
  assert_message("--resume");
  assert_int_equal(dj_run_create(dir, other, &o, &b), DJ_E_EXISTS);
  assert_message("another recipe");
  assert_null(b);
  OK(dj_run_read(dir, &info));
  assert_false(info.running);
  dj_run_info_free(&info);
  char *nothing = folder("nothing");
  assert_int_equal(dj_run_resume(nothing, &b), DJ_E_NOT_FOUND);
  assert_int_equal(dj_run_read(nothing, &info), DJ_E_NOT_FOUND);
  free(nothing);
  dj_recipe_free(r);
  dj_recipe_free(other);
  free(dir);
}

static void changed_data_are_noticed(void **state) {
  (void)state;
  char *dir = folder("changed");
  dj_recipe *r = tiny_recipe(COMMON "steps: 9, batch: 4");
  dj_run *run;
  tiny_task t = tiny_make(4);
  OK(dj_run_create(dir, r, &(dj_run_options){.backend = "ref"}, &run));
  assert_int_equal(dj_run_train(run, &t.base, &(dj_train_options){.stop_at = 3}, NULL),
                   DJ_E_INTERRUPTED);
  t.data = "other";
  assert_int_equal(dj_run_train(run, &t.base, NULL, NULL), DJ_E_STATE);
  assert_message("have changed");
  volatile sig_atomic_t stop = 1;
  t.data = NULL;
  assert_int_equal(dj_run_train(run, &t.base, &(dj_train_options){.stop = &stop}, NULL),
                   DJ_E_INTERRUPTED);
  OK(dj_run_train(run, &t.base, NULL, NULL));
  dj_run_close(run);
  dj_recipe_free(r);
  free(dir);
}

// ---- curves ------------------------------------------------------------------------------------

typedef struct seen {
  uint64_t at[64];
  int n, pictures, validations;
} seen;

static void see(void *user, const dj__event *e) {
  seen *s = user;
  if (e->is_start) {
    while (s->n && s->at[s->n - 1] >= e->step) s->n--;
  } else if (e->png) {
    s->pictures++;
  } else if (!strcmp(e->tag, "validation/error")) {
    s->validations++;
  } else if (!strcmp(e->tag, "train/loss") && s->n < 64) {
    s->at[s->n++] = e->step;
  }
}

static void curves_do_not_double(void **state) {
  (void)state;
  char *dir = folder("curves");
  dj_recipe *r = tiny_recipe(COMMON "steps: 20, batch: 4, validate_every: 5");
  dj_run *run;
  tiny_task t = tiny_make(4);
  OK(dj_run_create(dir, r, &(dj_run_options){.backend = "ref"}, &run));
  for (uint64_t at = 6; at < 20; at += 6)
    assert_int_equal(dj_run_train(run, &t.base, &(dj_train_options){.stop_at = at}, NULL),
                     DJ_E_INTERRUPTED);
  OK(dj_run_train(run, &t.base, NULL, NULL));
  dj_run_close(run);
  seen s = {0};
  OK(dj__events_read_dir(dir, see, &s));
  assert_int_equal(s.n, 20);
  for (int i = 0; i < 20; i++) assert_int_equal(s.at[i], i + 1);
  assert_int_equal(s.validations, 4);
  assert_int_equal(s.pictures, 4);
  dj_run_info info;
  OK(dj_run_read(dir, &info));
  assert_int_equal(info.step, 20);
  assert_true(isfinite(info.loss) && isfinite(info.best) && info.best_step > 0);
  dj_run_info_free(&info);
  dj_recipe_free(r);
  free(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(schedules),
      cmocka_unit_test(adamw_steps),
      cmocka_unit_test(sgd_with_momentum),
      cmocka_unit_test(clipping),
      cmocka_unit_test(bad_optimizers),
      cmocka_unit_test(it_learns),
      cmocka_unit_test(two_runs_are_equal),
      cmocka_unit_test(checkpoints_without_a_copy),
      cmocka_unit_test(resume_at_any_step),
      cmocka_unit_test(begins_with_the_weights_of_a_run),
      cmocka_unit_test(cpu_backend_resumes_to_the_same_bytes),
      cmocka_unit_test(accumulation_is_a_big_batch),
      cmocka_unit_test(evaluation_takes_the_average),
      cmocka_unit_test(nonfinite_stops),
      cmocka_unit_test(one_run_one_folder),
      cmocka_unit_test(changed_data_are_noticed),
      cmocka_unit_test(curves_do_not_double),
  };
  return cmocka_run_group_tests(tests, create_root, remove_root);
}
