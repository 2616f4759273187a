/*
 * The training loop.
 *
 * One step: the task fills the inputs, one program runs forward, backward and update, two numbers
 * are looked at (loss and norm of the gradient). Everything else is rare: a point on the curves, a
 * validation, a checkpoint (the loop pays for the copy, see checkpoint.c).
 *
 * Invariants: what enters the variables depends on the step alone, never on time, on what was
 * validated or where the run was stopped; a validation precedes the checkpoint of its step, so that
 * the best score in a checkpoint's metadata depends on the step alone, too.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/fs.h"
#include "dojo/log.h"
#include "train/events.h"
#include "train/run.h"

enum { MAX_PICTURES = 4, MAX_SCALARS = 32 };

typedef struct loop {
  dj_run *run;
  dj_task *task;
  const dj_train_options *o;
  dj_optimizer optimizer;
  dj_schedule schedule;
  uint64_t total, validate_every, log_every;
  int accumulate;
  char *description; // of the task

  dj_vars *vars, *eval_vars;
  dj_program *step_program;  // whole step, or one accumulating run of it
  dj_program *apply_program; // NULL unless gradients are accumulated
  dj_program *eval_program;  // NULL without validation
  const float *loss, *norm;  // outputs, () f32
  const float *scalars[MAX_SCALARS];
  int n_scalars;

  dj__checkpointer *checkpoints;
  dj__events *events;
  dj__run_state state; // step: updates done
  uint64_t first_step; // where this process began
  uint64_t pictured;   // eighths of the run that sample pictures were drawn for

  // Time, in seconds of the monotonic clock:
  double began, last_checkpoint, last_progress, last_flush;
  double paused;                 // in validation and waiting for checkpoints, since `began`
  uint64_t samples;              // since `began`
  double rate_from, rate_paused; // window of the rate on the curves
  uint64_t rate_samples;
  double rate;                          // samples/s over the last window
  double profile_seconds, profile_data; // sums over the steps that are profiled
} loop;

static double wall_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// ---- setting up --------------------------------------------------------------------------------

dj_optimizer dj__recipe_optimizer(const dj_recipe_train *t) {
  bool sgd = t->optimizer.name == DJ_SGD;
  return (dj_optimizer){.kind = t->optimizer.name,
                        .beta1 = sgd ? t->optimizer.momentum : t->optimizer.beta1,
                        .beta2 = t->optimizer.beta2,
                        .eps = t->optimizer.eps,
                        .weight_decay = t->optimizer.weight_decay,
                        .max_norm = t->clip,
                        .ema = t->ema};
}

static dj_status plan(loop *l) {
  const dj_recipe_train *t = &l->run->recipe->train;
  uint64_t batches = l->task->ops->steps_per_epoch(l->task);
  if (!batches) return dj_error(DJ_E_INVALID, "%s: the task has no data", l->run->dir);
  uint64_t epoch = (batches + (uint64_t)t->accumulate - 1) / (uint64_t)t->accumulate;
  double total = ceil(t->epochs * (double)batches / t->accumulate);
  if (total > 1e15) return dj_error(DJ_E_LIMIT, "%s: %g steps in all", l->run->dir, total);
  l->total = l->run->steps ? l->run->steps : t->steps ? t->steps : (uint64_t)total;
  l->accumulate = t->accumulate;
  l->validate_every = t->validate_every ? t->validate_every : epoch;
  l->log_every = l->total / 1000;
  if (l->log_every < 1) l->log_every = 1;
  if (l->log_every > 50) l->log_every = 50;
  l->optimizer = dj__recipe_optimizer(t);
  l->schedule = (dj_schedule){.kind = t->schedule.name,
                              .lr = (double)t->optimizer.lr,
                              .warmup = t->schedule.warmup,
                              .steps = l->total,
                              .final = (double)t->schedule.final,
                              .every = t->schedule.every,
                              .gamma = (double)t->schedule.gamma};
  return DJ_OK;
}

static dj_status compile(const loop *l, dj_graph *g, dj_vars *vars, dj_program **p) {
  return dj_program_compile(g,
                            &(dj_compile_options){.backend = l->run->backend,
                                                  .precision = l->run->precision,
                                                  .threads = l->run->threads,
                                                  .seed = l->run->recipe->train.seed},
                            vars, p);
}

static dj_status build_training(loop *l) {
  dj_graph *g = dj_graph_create(), *apply = NULL;
  if (!g) return dj_error(DJ_E_NOMEM, "train: no memory for the graph");
  dj_val loss = DJ_NONE;
  dj_status s;
  DJ_TRY_GOTO(s, l->task->ops->build(l->task, g, true, &loss));
  DJ_TRY_GOTO(s, dj_graph_status(g));
  if (l->accumulate == 1) {
    DJ_TRY_GOTO(s, dj_optimizer_apply(g, loss, &l->optimizer));
    DJ_TRY_GOTO(s, compile(l, g, l->vars, &l->step_program));
  } else {
    DJ_TRY_GOTO(s, dj_optimizer_accumulate(g, loss, l->accumulate));
    DJ_TRY_GOTO(s, compile(l, g, l->vars, &l->step_program));
    if (!(apply = dj_graph_create())) {
      s = dj_error(DJ_E_NOMEM, "train: no memory for the graph");
      goto fail;
    }
    DJ_TRY_GOTO(s, dj_optimizer_apply_accumulated(apply, g, &l->optimizer));
    DJ_TRY_GOTO(s, compile(l, apply, l->vars, &l->apply_program));
  }
fail:
  dj_graph_destroy(apply);
  dj_graph_destroy(g);
  return s;
}

static dj_status build_evaluation(loop *l) {
  if (!l->task->ops->validate) return DJ_OK;
  dj_graph *g = dj_graph_create();
  if (!g) return dj_error(DJ_E_NOMEM, "train: no memory for the graph");
  dj_val loss = DJ_NONE;
  dj_status s;
  DJ_TRY_GOTO(s, l->task->ops->build(l->task, g, false, &loss));
  DJ_TRY_GOTO(s, dj_graph_status(g));
  DJ_TRY_GOTO(s, compile(l, g, l->eval_vars, &l->eval_program));
fail:
  dj_graph_destroy(g);
  return s;
}

static dj_status find_outputs(loop *l) {
  dj_program *last = l->apply_program ? l->apply_program : l->step_program;
  const dj_tensor *loss = dj_program_output(last, "loss");
  const dj_tensor *norm = dj_program_output(last, "grad_norm");
  if (!loss || !norm) return dj_error(DJ_E_INVALID, "train: the program gives no loss");
  l->loss = loss->data;
  l->norm = norm->data;
  const char *const *names = l->task->ops->scalars;
  for (; names && names[l->n_scalars] && l->n_scalars < MAX_SCALARS; l->n_scalars++) {
    const dj_tensor *t = dj_program_output(l->step_program, names[l->n_scalars]);
    bool fits = t && t->dtype == DJ_F32 && dj_shape_count(&t->shape) == 1;
    l->scalars[l->n_scalars] = fits ? t->data : NULL; // not every recipe has every part
  }
  return DJ_OK;
}

/* The weights of another run of the same network, as they drive or write: its moving averages. */
static dj_status take_weights(loop *l, const char *from) {
  dj_vars *w = dj_vars_create(0);
  if (!w) return dj_error(DJ_E_NOMEM, "train: no memory for weights");
  dj_status s = dj_checkpoint_load_run(from, DJ_CHECKPOINT_BEST, w, NULL);
  int n = dj_vars_count(l->vars);
  for (int i = 0; i < n && !s; i++) {
    const char *name = dj_vars_get(l->vars, i)->name;
    if (strncmp(name, "optimizer/", 10) != 0 && !dj_vars_find(w, name))
      s = dj_error(DJ_E_INVALID, "holds no variable '%s'", name);
  }
  if (!s) s = dj_vars_copy_for_eval(w, l->vars);
  if (!s && dj_vars_count(l->vars) > n)
    s = dj_error(DJ_E_INVALID, "holds variables that the recipe's network lacks, like '%s'",
                 dj_vars_get(l->vars, n)->name);
  dj_vars_destroy(w);
  return s ? dj_error_context(s, "%s: cannot begin with the weights of this run", from) : DJ_OK;
}

static dj_status begin(loop *l) {
  if (l->run->from) DJ_TRY(take_weights(l, l->run->from));
  return dj_optimizer_start(l->vars);
}

static dj_status restore(loop *l) {
  l->state = (dj__run_state){.seed = l->run->recipe->train.seed,
                             .best = NAN,
                             .recipe_digest = l->run->recipe->digest,
                             .task = l->description};
  dj_checkpoint_info c = {0};
  dj_status s =
      l->run->resumed ? dj__checkpoint_load_last(l->run->dir, l->vars, &c) : DJ_E_NOT_FOUND;
  if (s == DJ_E_NOT_FOUND) return begin(l);
  if (s) return s;
  if (strcmp(c.task, l->description) != 0)
    s = dj_error(DJ_E_STATE,
                 "%s: the data or the task have changed since the run began; the checkpoint has "
                 "%.300s, now it is %.300s; bring back the old data, or begin a new run",
                 l->run->dir, c.task, l->description);
  else if (strcmp(c.recipe_digest, l->run->recipe->digest) != 0)
    s = dj_error(DJ_E_STATE, "%s: recipe.yaml was changed after the run began; begin a new run",
                 l->run->dir);
  if (!s && !c.step) s = dj_optimizer_start(l->vars); // imported weights come without it
  l->state.step = c.step;
  l->state.best = c.best;
  l->state.best_step = c.best_step;
  memcpy(l->state.best_name, c.best_name, sizeof l->state.best_name);
  dj_checkpoint_info_free(&c);
  // The trainer may have been killed between writing this checkpoint and naming it the best.
  if (!s && !isnan(l->state.best) && l->state.best_step == l->state.step)
    s = dj__checkpoint_make_best(l->run->dir, l->state.step);
  return s;
}

static dj_status set_up(loop *l) {
  DJ_TRY(l->task->ops->describe(l->task, &l->description));
  DJ_TRY(plan(l));
  l->vars = dj_vars_create(l->run->recipe->train.seed);
  // Without moving averages the weights themselves are evaluated.
  bool average = l->optimizer.ema > 0;
  l->eval_vars = average ? dj_vars_create(l->run->recipe->train.seed) : l->vars;
  if (!l->vars || !l->eval_vars) return dj_error(DJ_E_NOMEM, "train: no memory for variables");
  DJ_TRY(build_training(l));
  DJ_TRY(build_evaluation(l));
  DJ_TRY(find_outputs(l));
  DJ_TRY(restore(l));
  if (l->run->total != l->total) {
    l->run->total = l->total;
    DJ_TRY(dj__run_write(l->run));
  }
  DJ_TRY(dj__checkpointer_open(l->run->dir, l->run->recipe->train.keep, l->vars, &l->checkpoints));
  DJ_TRY(dj__events_create(l->run->dir, wall_s(), l->run->resumed ? l->state.step + 1 : 0,
                           &l->events));
  l->first_step = l->state.step;
  l->began = l->last_checkpoint = l->rate_from = dj__now();
  return DJ_OK;
}

static void add_program(const dj_program *p, dj_train_memory *m) {
  if (!p) return;
  dj_memory_report r;
  dj_program_memory(p, &r);
  m->packed += r.packed;
  m->inputs += r.inputs;
  m->values += r.arena;
  m->lower_bound += r.lower_bound;
  m->workspace += r.workspace;
}

static uint64_t bytes_of(dj_vars *vars, bool optimizer) {
  uint64_t bytes = 0;
  for (int i = 0; i < dj_vars_count(vars); i++) {
    const dj_var *v = dj_vars_get(vars, i);
    if (!strncmp(v->name, "optimizer/", 10) == optimizer) bytes += dj_tensor_bytes(&v->tensor);
  }
  return bytes;
}

static void tell_memory(const loop *l) {
  if (!l->o || !l->o->planned) return;
  dj_train_memory m = {.weights = bytes_of(l->vars, false), .optimizer = bytes_of(l->vars, true)},
                  eval = {0};
  add_program(l->step_program, &m);
  add_program(l->apply_program, &m);
  add_program(l->eval_program, &eval);
  m.evaluation = eval.inputs + eval.values + eval.workspace;
  if (l->eval_vars != l->vars) m.evaluation += bytes_of(l->eval_vars, false);
  l->o->planned(&m, l->o->user);
}

static dj_status tear_down(loop *l, dj_status s) {
  char *message = s ? dj__strf("%s", dj_error_message()) : NULL;
  dj_status c = dj__checkpointer_close(l->checkpoints);
  dj_status e = dj__events_close(l->events);
  if (s) dj_error(s, "%s", message); // the first failure is the one to tell
  free(message);
  dj_program_destroy(l->step_program);
  dj_program_destroy(l->apply_program);
  dj_program_destroy(l->eval_program);
  if (l->eval_vars != l->vars) dj_vars_destroy(l->eval_vars);
  dj_vars_destroy(l->vars);
  free(l->description);
  return s ? s : c ? c : e;
}

// ---- rare things -------------------------------------------------------------------------------

static dj_status checkpoint(loop *l, bool is_best, bool wait) {
  double from = dj__now();
  dj_status s = dj__checkpointer_submit(l->checkpoints, &l->state, is_best);
  if (!s && wait) s = dj__checkpointer_wait(l->checkpoints);
  l->last_checkpoint = dj__now();
  l->paused += l->last_checkpoint - from;
  return s ? dj_error_context(s,
                              "checkpoint of step %" PRIu64 " not written, those before are whole",
                              l->state.step)
           : DJ_OK;
}

/* Eight times a run: more would be looked at by nobody, and small networks train faster than
 * pictures are drawn. */
static dj_status log_pictures(loop *l) {
  uint64_t part = l->state.step * 8 / l->total;
  if (!l->task->ops->pictures || part <= l->pictured) return DJ_OK;
  l->pictured = part;
  dj_picture p[MAX_PICTURES] = {0};
  int n = 0;
  dj_status s = l->task->ops->pictures(l->task, l->eval_program, p, MAX_PICTURES, &n);
  for (int i = 0; i < n; i++) {
    if (!s) {
      char tag[DJ_SCORE_NAME + 16];
      (void)snprintf(tag, sizeof tag, "validation/%s", p[i].name);
      dj__events_image(l->events, l->state.step, tag, p[i].width, p[i].height, p[i].rgb);
    }
    free(p[i].rgb);
  }
  return s;
}

static bool is_better(const loop *l, double v, bool higher) {
  if (!isfinite(v)) return false;
  double from = (double)l->run->recipe->train.best_after * (double)l->total;
  if ((double)l->state.step < from) return false;
  return isnan(l->state.best) || (higher ? v > l->state.best : v < l->state.best);
}

static dj_status validate(loop *l, bool *is_best) {
  double from = dj__now();
  dj_scores scores = {.best = -1};
  if (l->eval_vars != l->vars) DJ_TRY(dj_vars_copy_for_eval(l->vars, l->eval_vars));
  DJ_TRY(l->task->ops->validate(l->task, l->eval_program, &scores));
  for (int i = 0; i < scores.n; i++) {
    char tag[DJ_SCORE_NAME + 16];
    (void)snprintf(tag, sizeof tag, "validation/%s", scores.score[i].name);
    dj__events_scalar(l->events, l->state.step, tag, scores.score[i].value);
  }
  if (scores.best >= 0 && scores.best < scores.n &&
      is_better(l, scores.score[scores.best].value, scores.higher_is_better)) {
    *is_best = true;
    l->state.best = scores.score[scores.best].value;
    l->state.best_step = l->state.step;
    memcpy(l->state.best_name, scores.score[scores.best].name, sizeof l->state.best_name);
  }
  DJ_TRY(log_pictures(l));
  l->paused += dj__now() - from;
  return dj__events_flush(l->events);
}

static void log_point(loop *l, double lr) {
  uint64_t step = l->state.step;
  double now = dj__now(), seconds = now - l->rate_from - (l->paused - l->rate_paused);
  if (seconds > 0) l->rate = (double)(l->samples - l->rate_samples) / seconds;
  l->rate_from = now;
  l->rate_paused = l->paused;
  l->rate_samples = l->samples;
  dj__events_scalar(l->events, step, "train/loss", (double)*l->loss);
  dj__events_scalar(l->events, step, "train/grad_norm", (double)*l->norm);
  dj__events_scalar(l->events, step, "train/learning_rate", lr);
  dj__events_scalar(l->events, step, "train/samples_per_second", l->rate);
  for (int i = 0; i < l->n_scalars; i++) {
    if (!l->scalars[i]) continue;
    char tag[128];
    (void)snprintf(tag, sizeof tag, "train/%s", l->task->ops->scalars[i]);
    dj__events_scalar(l->events, step, tag, (double)*l->scalars[i]);
  }
  if (now - l->last_flush > 1) {
    l->last_flush = now;
    (void)dj__events_flush(l->events); // a failure stays and ends the run at its end
  }
}

static int format_time(char *text, size_t size, double seconds) {
  long t = (long)(seconds + 0.5);
  if (t >= 3600) return snprintf(text, size, "%ld h %02ld min left", t / 3600, t / 60 % 60);
  if (t >= 60) return snprintf(text, size, "%ld min %02ld s left", t / 60, t % 60);
  return snprintf(text, size, "%ld s left", t);
}

static void progress(loop *l, bool at_once) {
  double now = dj__now();
  if (!at_once && now - l->last_progress < 0.1) return;
  l->last_progress = now;
  char note[200];
  double seconds = now - l->began - l->paused;
  double rate = seconds > 0 ? (double)l->samples / seconds : 0;
  uint64_t done = l->state.step - l->first_step;
  double left = done ? (now - l->began) / (double)done * (double)(l->total - l->state.step) : 0;
  int n = snprintf(note, sizeof note, "loss %.4g  %.4g samples/s  ", (double)*l->loss,
                   l->rate > 0 ? l->rate : rate);
  n += format_time(note + n, sizeof note - (size_t)n, left);
  if (!isnan(l->state.best))
    (void)snprintf(note + n, sizeof note - (size_t)n, "  best %s %.4g", l->state.best_name,
                   l->state.best);
  dj_progress("training", l->state.step, l->total, "steps", note);
}

// ---- steps -------------------------------------------------------------------------------------

// The step number that random numbers and batches go by: counts runs of the program.
static uint64_t batch_number(const loop *l, int k) {
  return l->state.step * (uint64_t)l->accumulate + (uint64_t)k;
}

static dj_status run_step(loop *l, double lr) {
  for (int k = 0; k < l->accumulate; k++) {
    uint64_t number = batch_number(l, k), samples = 0;
    double before = dj__now();
    DJ_TRY(l->task->ops->fill(l->task, l->step_program, number, &samples));
    l->profile_data += dj__now() - before;
    if (!l->apply_program)
      DJ_TRY(dj_optimizer_fill(l->step_program, &l->optimizer, l->state.step, lr));
    DJ_TRY(dj_program_run(l->step_program, number));
    l->samples += samples;
  }
  if (!l->apply_program) return DJ_OK;
  DJ_TRY(dj_optimizer_fill(l->apply_program, &l->optimizer, l->state.step, lr));
  return dj_program_run(l->apply_program, l->state.step);
}

enum { PROFILE_AFTER = 2 }; // steps that warm caches up and are left out

// Steps to profile in this process: as asked, or what the run has left.
static uint64_t profiled_steps(const loop *l) {
  uint64_t asked = l->o && l->o->profile_steps > 0 ? (uint64_t)l->o->profile_steps : 0;
  uint64_t left = l->total - l->first_step;
  left = left > PROFILE_AFTER ? left - PROFILE_AFTER : 0;
  return asked < left ? asked : left;
}

// A step that is measured where a profile is asked for.
static dj_status run_watched_step(loop *l, double lr) {
  uint64_t done = l->state.step - l->first_step, steps = profiled_steps(l);
  if (!steps || done < PROFILE_AFTER || done >= PROFILE_AFTER + steps) return run_step(l, lr);
  if (done == PROFILE_AFTER) {
    dj_program_profile(l->step_program, true);
    l->profile_seconds = l->profile_data = 0;
  }
  double before = dj__now();
  DJ_TRY(run_step(l, lr));
  l->profile_seconds += dj__now() - before;
  if (done + 1 < PROFILE_AFTER + steps) return DJ_OK;
  double n = (double)steps;
  const dj_train_profile p = {l->step_program, (int)steps, l->profile_seconds / n,
                              l->profile_data / n};
  if (l->o->profiled) l->o->profiled(&p, l->o->user);
  dj_program_profile(l->step_program, false);
  return DJ_OK;
}

// The step changed no weight (dj_adamw, dj_sgd look at the guard); find who made it.
static dj_status explain_nonfinite(loop *l) {
  float loss = *l->loss, norm = *l->norm;
  dj_status s = DJ_OK;
  for (int k = 0; k < l->accumulate && !s; k++) {
    uint64_t samples;
    if (l->accumulate > 1)
      DJ_TRY(l->task->ops->fill(l->task, l->step_program, batch_number(l, k), &samples));
    s = dj_program_find_nonfinite(l->step_program, batch_number(l, k));
  }
  if (s && s != DJ_E_NONFINITE) return s;
  if (!s) s = dj_error(DJ_E_NONFINITE, "every node alone is finite; their sum is not");
  return dj_error_context(s,
                          "step %" PRIu64 ": the loss is %g, the norm of the gradient %g; the "
                          "weights and the checkpoints before are as they were; a smaller "
                          "train.optimizer.lr or train.clip may help",
                          l->state.step + 1, (double)loss, (double)norm);
}

static bool is_due(uint64_t step, uint64_t every) {
  return every && step % every == 0;
}

static dj_status after_step(loop *l, double lr) {
  const dj_recipe_train *t = &l->run->recipe->train;
  bool is_best = false, last = l->state.step == l->total;
  if (last || is_due(l->state.step, l->log_every)) log_point(l, lr);
  if (l->eval_program && (last || is_due(l->state.step, l->validate_every)))
    DJ_TRY(validate(l, &is_best));
  bool late = t->checkpoint_seconds > 0 && dj__now() - l->last_checkpoint > t->checkpoint_seconds;
  if (last || is_best || late || is_due(l->state.step, t->checkpoint_every))
    DJ_TRY(checkpoint(l, is_best, last));
  progress(l, last);
  return DJ_OK;
}

static dj_status stop_early(loop *l) {
  DJ_TRY(checkpoint(l, false, true));
  return dj_error(DJ_E_INTERRUPTED,
                  "stopped at step %" PRIu64 " of %" PRIu64 "; go on with 'dojo train --resume %s'",
                  l->state.step, l->total, l->run->dir);
}

static dj_status run_steps(loop *l) {
  while (l->state.step < l->total) {
    bool asked =
        l->o && ((l->o->stop && *l->o->stop) || (l->o->stop_at && l->state.step >= l->o->stop_at));
    if (asked) return stop_early(l);
    double lr = dj_schedule_lr(&l->schedule, l->state.step);
    DJ_TRY(run_watched_step(l, lr));
    if (!isfinite(*l->loss) || !isfinite(*l->norm)) return explain_nonfinite(l);
    l->state.step++;
    DJ_TRY(after_step(l, lr));
  }
  return DJ_OK;
}

dj_status dj_run_train(dj_run *run, dj_task *task, const dj_train_options *o,
                       dj_train_result *result) {
  loop l = {.run = run, .task = task, .o = o};
  dj_status s = set_up(&l);
  if (!s) tell_memory(&l);
  if (!s) s = run_steps(&l);
  if (result) {
    double seconds = l.began > 0 ? dj__now() - l.began : 0;
    *result = (dj_train_result){.step = l.state.step,
                                .steps = l.total,
                                .loss = l.loss ? (double)*l.loss : NAN,
                                .best = l.checkpoints ? l.state.best : NAN,
                                .best_step = l.state.best_step,
                                .seconds = seconds};
    memcpy(result->best_name, l.state.best_name, sizeof result->best_name);
    if (seconds > l.paused) result->samples_per_second = (double)l.samples / (seconds - l.paused);
  }
  // A run taken up again in this process must know that it has begun.
  run->resumed = true;
  return tear_down(&l, s);
}

void dj_scores_add(dj_scores *s, const char *name, double value) {
  if (s->n >= DJ_MAX_SCORES) return;
  (void)snprintf(s->score[s->n].name, DJ_SCORE_NAME, "%s", name);
  s->score[s->n++].value = value;
}
