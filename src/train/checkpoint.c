/*
 * Checkpoints: safetensors files with every variable, the run's state as metadata.
 *
 * The training loop only pays for a copy of the variables in memory; a thread writes the copy to a
 * temporary name, syncs, renames, links the best and removes what is not kept (what is too large to
 * have twice is written while the loop waits). Order matters:
 * nothing old is removed before the new file is whole and on disk, so a full disk, a kill or a
 * power cut at any point leaves at least the checkpoint before.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "dojo/log.h"
#include "dojo/safetensors.h"
#include "train/run.h"

#define FOLDER "checkpoints"
#define BEST   "best.safetensors"

static char *step_path(const char *run_dir, uint64_t step) {
  return dj__strf("%s/" FOLDER "/step-%08" PRIu64 ".safetensors", run_dir, step);
}

// The step of "step-00000100.safetensors"; false for any other name.
static bool step_of(const char *name, uint64_t *step) {
  if (strncmp(name, "step-", 5) != 0 || name[5] < '0' || name[5] > '9') return false;
  char *end;
  errno = 0;
  *step = strtoull(name + 5, &end, 10);
  return !errno && !strcmp(end, ".safetensors");
}

static int newest_first(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? 1 : x > y ? -1 : 0;
}

// Steps of a run's checkpoints, newest first; free() them.
static dj_status list_steps(const char *run_dir, uint64_t **out, size_t *n) {
  *out = NULL;
  *n = 0;
  char *dir = dj__join(run_dir, FOLDER), **names = NULL;
  size_t n_names = 0;
  dj_status s = dj__is_dir(dir) ? dj__list_dir(dir, &names, &n_names) : DJ_OK;
  free(dir);
  if (s) return s;
  uint64_t *steps = calloc(n_names + 1, sizeof *steps);
  for (size_t i = 0; steps && i < n_names; i++)
    if (step_of(names[i], &steps[*n])) (*n)++;
  dj__free_names(names, n_names);
  if (!steps) return dj_error(DJ_E_NOMEM, "%s: no memory for %zu names", run_dir, n_names);
  qsort(steps, *n, sizeof *steps, newest_first);
  *out = steps;
  return DJ_OK;
}

// ---- writing -----------------------------------------------------------------------------------

struct dj__checkpointer {
  char *run_dir;
  int keep;
  dj_vars *vars;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  // Under the lock:
  bool busy, quit;
  dj_status status; // of a write that failed, until it is reported
  char *message;
  // The writer's while busy, the loop's otherwise:
  dj__run_state state;
  bool is_best;
  dj_st_tensor *tensors;
  char *params; // JSON list of the trainable variables' names
  float *copy;  // NULL: too large to have twice; written from the variables while the loop waits
  size_t n;
};

size_t dj__checkpoint_most_copied = 512 << 20;

static dj_status save(const dj__checkpointer *c, const char *path) {
  const dj__run_state *s = &c->state;
  char step[24], seed[24], best[40], best_step[24];
  (void)snprintf(step, sizeof step, "%" PRIu64, s->step);
  (void)snprintf(seed, sizeof seed, "%" PRIu64, s->seed);
  (void)snprintf(best, sizeof best, "%.17g", s->best);
  (void)snprintf(best_step, sizeof best_step, "%" PRIu64, s->best_step);
  const dj_st_meta meta[] = {
      {"format", "dojo-checkpoint-1"},      {"step", step},           {"seed", seed},
      {"best", isnan(s->best) ? "" : best}, {"best_step", best_step}, {"best_name", s->best_name},
      {"recipe_digest", s->recipe_digest},  {"task", s->task},        {"params", c->params}};
  return dj_safetensors_save(path, c->tensors, c->n, meta, sizeof meta / sizeof *meta);
}

// best.safetensors becomes another name of `path`, at once.
static dj_status link_best(const char *run_dir, const char *path) {
  char *best = dj__join(run_dir, FOLDER "/" BEST);
  char *tmp = dj__strf("%s.tmp", best);
  dj_status s = DJ_OK;
  (void)unlink(tmp);
  if (link(path, tmp) != 0 || rename(tmp, best) != 0)
    s = dj_error_errno("%s: cannot link to %s", best, path);
  // rename() of two names of one file does nothing and leaves both.
  (void)unlink(tmp);
  free(tmp);
  free(best);
  return s;
}

dj_status dj__checkpoint_make_best(const char *run_dir, uint64_t step) {
  char *path = step_path(run_dir, step), *dir = dj__join(run_dir, FOLDER);
  dj_status s = link_best(run_dir, path);
  if (!s) s = dj__sync_dir(dir);
  free(dir);
  free(path);
  return s;
}

static dj_status prune(const char *run_dir, int keep) {
  uint64_t *steps;
  size_t n;
  DJ_TRY(list_steps(run_dir, &steps, &n));
  for (size_t i = (size_t)keep; i < n; i++) {
    char *path = step_path(run_dir, steps[i]);
    if (unlink(path) != 0 && errno != ENOENT)
      dj_message(DJ_LOG_WARN, "%s: cannot remove an old checkpoint", path);
    free(path);
  }
  free(steps);
  return DJ_OK;
}

static dj_status write_checkpoint(const dj__checkpointer *c) {
  char *path = step_path(c->run_dir, c->state.step);
  dj_status s = save(c, path);
  if (!s && c->is_best) s = dj__checkpoint_make_best(c->run_dir, c->state.step);
  if (!s) s = prune(c->run_dir, c->keep);
  free(path);
  return s;
}

static void *writer(void *arg) {
  dj__checkpointer *c = arg;
  pthread_mutex_lock(&c->lock);
  for (;;) {
    while (!c->busy && !c->quit) pthread_cond_wait(&c->changed, &c->lock);
    if (!c->busy) break;
    pthread_mutex_unlock(&c->lock);
    dj_status s = write_checkpoint(c);
    char *message = s ? dj__strf("%s", dj_error_message()) : NULL;
    pthread_mutex_lock(&c->lock);
    if (s) {
      free(c->message);
      c->status = s;
      c->message = message;
    }
    c->busy = false;
    pthread_cond_broadcast(&c->changed);
  }
  pthread_mutex_unlock(&c->lock);
  return NULL;
}

static void remove_leftovers(const char *dir) {
  char **names;
  size_t n;
  if (dj__list_dir(dir, &names, &n)) return;
  for (size_t i = 0; i < n; i++) {
    size_t length = strlen(names[i]);
    if (length < 4 || strcmp(names[i] + length - 4, ".tmp") != 0) continue;
    char *path = dj__join(dir, names[i]);
    (void)unlink(path);
    free(path);
  }
  dj__free_names(names, n);
}

dj_status dj__checkpointer_open(const char *run_dir, int keep, dj_vars *vars,
                                dj__checkpointer **out) {
  *out = NULL;
  char *dir = dj__join(run_dir, FOLDER);
  dj_status s = dj__mkdirs(dir);
  if (!s) remove_leftovers(dir);
  free(dir);
  if (s) return s;
  dj__checkpointer *c = calloc(1, sizeof *c);
  if (!c) return dj_error(DJ_E_NOMEM, "checkpoint: no memory");
  c->run_dir = dj__strf("%s", run_dir);
  c->keep = keep;
  c->vars = vars;
  pthread_mutex_init(&c->lock, NULL);
  pthread_cond_init(&c->changed, NULL);
  int e = pthread_create(&c->thread, NULL, writer, c);
  if (e) {
    errno = e;
    s = dj_error_errno("checkpoint: cannot start the writer");
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->changed);
    free(c->run_dir);
    free(c);
    return s;
  }
  *out = c;
  return DJ_OK;
}

// Memory for the copy: once, at the first checkpoint.
static dj_status make_copy(dj__checkpointer *c) {
  size_t n = (size_t)dj_vars_count(c->vars), floats = 0;
  for (size_t i = 0; i < n; i++)
    floats += (size_t)dj_shape_count(&dj_vars_get(c->vars, (int)i)->tensor.shape);
  free(c->copy); // of a try that failed
  free(c->tensors);
  bool twice = floats * sizeof *c->copy <= dj__checkpoint_most_copied;
  c->copy = twice ? malloc((floats + 1) * sizeof *c->copy) : NULL;
  c->tensors = calloc(n + 1, sizeof *c->tensors);
  if ((twice && !c->copy) || !c->tensors)
    return dj_error(DJ_E_NOMEM, "checkpoint: no memory for a copy of %zu variables (%zu bytes)", n,
                    floats * sizeof *c->copy);
  json_t *params = json_array();
  dj_status s = DJ_OK;
  float *at = c->copy;
  for (size_t i = 0; i < n && !s; i++) {
    const dj_var *v = dj_vars_get(c->vars, (int)i);
    dj_st_tensor *t = &c->tensors[i];
    *t = (dj_st_tensor){
        .name = v->name, .dtype = DJ_ST_F32, .rank = v->tensor.shape.rank, .data = v->tensor.data};
    for (int k = 0; k < t->rank; k++) t->shape[k] = (uint64_t)v->tensor.shape.dim[k];
    if (twice) t->data = at, at += dj_shape_count(&v->tensor.shape);
    if (v->kind == DJ_VAR_PARAM && json_array_append_new(params, json_string(v->name)) != 0)
      s = dj_error(DJ_E_INVALID, "checkpoint: the name '%s' is not UTF-8", v->name);
  }
  if (!s) {
    c->params = json_dumps(params, JSON_COMPACT);
    if (!c->params) s = dj_error(DJ_E_NOMEM, "checkpoint: no memory");
  }
  json_decref(params);
  c->n = n;
  return s;
}

// With the lock held: waits for the writer and gives its failure, once.
static dj_status wait_idle(dj__checkpointer *c) {
  while (c->busy) pthread_cond_wait(&c->changed, &c->lock);
  dj_status s = c->status;
  if (s) dj_error(s, "%s", c->message);
  c->status = DJ_OK;
  return s;
}

dj_status dj__checkpointer_wait(dj__checkpointer *c) {
  pthread_mutex_lock(&c->lock);
  dj_status s = wait_idle(c);
  pthread_mutex_unlock(&c->lock);
  return s;
}

dj_status dj__checkpointer_submit(dj__checkpointer *c, const dj__run_state *state, bool is_best) {
  DJ_TRY(dj__checkpointer_wait(c));
  if (!c->params) DJ_TRY(make_copy(c));
  if (c->n != (size_t)dj_vars_count(c->vars))
    return dj_error(DJ_E_STATE, "checkpoint: there were %zu variables, now there are %d", c->n,
                    dj_vars_count(c->vars));
  if (!c->copy) {
    c->state = *state;
    c->is_best = is_best;
    return write_checkpoint(c);
  }
  float *at = c->copy;
  for (int i = 0; at && i < dj_vars_count(c->vars); i++) {
    const dj_tensor *t = &dj_vars_get(c->vars, i)->tensor;
    memcpy(at, t->data, dj_tensor_bytes(t));
    at += dj_shape_count(&t->shape);
  }
  pthread_mutex_lock(&c->lock);
  c->state = *state;
  c->is_best = is_best;
  c->busy = true;
  pthread_cond_broadcast(&c->changed);
  pthread_mutex_unlock(&c->lock);
  return DJ_OK;
}

dj_status dj__checkpointer_close(dj__checkpointer *c) {
  if (!c) return DJ_OK;
  pthread_mutex_lock(&c->lock);
  dj_status s = wait_idle(c);
  c->quit = true;
  pthread_cond_broadcast(&c->changed);
  pthread_mutex_unlock(&c->lock);
  pthread_join(c->thread, NULL);
  pthread_mutex_destroy(&c->lock);
  pthread_cond_destroy(&c->changed);
  free(c->message);
  free(c->tensors);
  free(c->params);
  free(c->copy);
  free(c->run_dir);
  free(c);
  return s;
}

// ---- reading -----------------------------------------------------------------------------------

void dj_checkpoint_info_free(dj_checkpoint_info *i) {
  if (!i) return;
  free(i->task);
  i->task = NULL;
}

static dj_status read_number(const dj_safetensors *f, const char *path, const char *key,
                             uint64_t *v) {
  const char *text = dj_safetensors_metadata(f, key);
  char *end = NULL;
  errno = 0;
  *v = text && *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 0;
  if (end && !*end && !errno) return DJ_OK;
  return dj_error(DJ_E_FORMAT, "%s: not a checkpoint: metadata '%s' is '%.40s'", path, key,
                  text ? text : "missing");
}

static dj_status read_info(const dj_safetensors *f, const char *path, dj_checkpoint_info *i) {
  *i = (dj_checkpoint_info){.best = NAN};
  DJ_TRY(read_number(f, path, "step", &i->step));
  DJ_TRY(read_number(f, path, "best_step", &i->best_step));
  const char *best = dj_safetensors_metadata(f, "best");
  if (best && *best) {
    char *end;
    i->best = strtod(best, &end);
    if (*end || !isfinite(i->best))
      return dj_error(DJ_E_FORMAT, "%s: metadata 'best' is '%.40s'", path, best);
  }
  const char *name = dj_safetensors_metadata(f, "best_name");
  const char *digest = dj_safetensors_metadata(f, "recipe_digest");
  const char *task = dj_safetensors_metadata(f, "task");
  (void)snprintf(i->best_name, sizeof i->best_name, "%s", name ? name : "");
  (void)snprintf(i->recipe_digest, sizeof i->recipe_digest, "%s", digest ? digest : "");
  i->task = dj__strf("%s", task ? task : "");
  return DJ_OK;
}

static bool is_param(const json_t *params, const char *name) {
  size_t i;
  json_t *v;
  json_array_foreach(params, i, v) {
    const char *s = json_string_value(v);
    if (s && !strcmp(s, name)) return true;
  }
  return false;
}

static dj_status load_tensor(const dj_st_tensor *t, const char *path, const json_t *params,
                             dj_vars *v) {
  if (t->dtype != DJ_ST_F32 || t->rank > DJ_MAX_RANK)
    return dj_error(DJ_E_FORMAT, "%s: '%s' is %s of rank %d; variables are F32 of rank 0 to %d",
                    path, t->name, dj_st_dtype_name(t->dtype), t->rank, DJ_MAX_RANK);
  dj_shape s = {.rank = t->rank};
  for (int k = 0; k < t->rank; k++) s.dim[k] = (int64_t)t->shape[k];
  dj_var_kind kind = is_param(params, t->name) ? DJ_VAR_PARAM : DJ_VAR_STATE;
  dj_var *var;
  DJ_TRY(dj_vars_add(v, t->name, kind, s, dj_init_const(0), &var));
  if (t->size) memcpy(var->tensor.data, t->data, t->size);
  return DJ_OK;
}

// A variable that the file lacks would silently keep its initial value.
/* At step 0 (weights from elsewhere) nothing of the optimiser need be there. */
static dj_status check_complete(const dj_safetensors *f, const char *path, dj_vars *v, int n,
                                uint64_t step) {
  for (int i = 0; i < n; i++) {
    const char *name = dj_vars_get(v, i)->name;
    if (!step && !strncmp(name, "optimizer/", 10)) continue;
    if (!dj_safetensors_find(f, name))
      return dj_error(DJ_E_INVALID, "%s: holds no variable '%s': it was written by another network",
                      path, name);
  }
  return DJ_OK;
}

static dj_status load_open(const dj_safetensors *f, const char *path, uint64_t step, dj_vars *v) {
  const char *list = dj_safetensors_metadata(f, "params");
  json_error_t e;
  json_t *params = list ? json_loads(list, 0, &e) : NULL;
  if (!json_is_array(params)) {
    json_decref(params);
    return dj_error(DJ_E_FORMAT, "%s: not a checkpoint: metadata 'params' is missing or broken",
                    path);
  }
  dj_status s = check_complete(f, path, v, dj_vars_count(v), step);
  for (size_t i = 0; i < dj_safetensors_count(f) && !s; i++)
    s = load_tensor(dj_safetensors_get(f, i), path, params, v);
  json_decref(params);
  return s;
}

dj_status dj_checkpoint_load(const char *path, dj_vars *v, dj_checkpoint_info *info) {
  dj_checkpoint_info local = {0};
  dj_safetensors *f;
  DJ_TRY(dj_safetensors_open(path, &f));
  dj_status s = read_info(f, path, &local);
  if (!s) s = load_open(f, path, local.step, v);
  dj_safetensors_close(f);
  if (s || !info)
    dj_checkpoint_info_free(&local);
  else
    *info = local;
  return s;
}

dj_status dj_checkpoint_load_for_eval(const char *path, dj_vars *v, dj_checkpoint_info *info) {
  dj_vars *all = dj_vars_create(0);
  if (!all) return dj_error(DJ_E_NOMEM, "%s: no memory", path);
  dj_checkpoint_info local = {0};
  int n = dj_vars_count(v);
  dj_status s = dj_checkpoint_load(path, all, &local);
  for (int i = 0; i < n && !s; i++) {
    const char *name = dj_vars_get(v, i)->name;
    if (!dj_vars_find(all, name))
      s = dj_error(DJ_E_INVALID, "%s: holds no variable '%s': it was written by another network",
                   path, name);
  }
  if (!s) s = dj_vars_copy_for_eval(all, v);
  if (s) s = dj_error_context(s, "%s", path);
  dj_vars_destroy(all);
  if (s || !info)
    dj_checkpoint_info_free(&local);
  else
    *info = local;
  return s;
}

dj_status dj_checkpoint_find(const char *run_dir, dj_checkpoint_which which, char **path) {
  *path = NULL;
  if (which == DJ_CHECKPOINT_BEST) {
    char *best = dj__join(run_dir, FOLDER "/" BEST);
    if (dj__exists(best)) {
      *path = best;
      return DJ_OK;
    }
    free(best);
  }
  uint64_t *steps;
  size_t n;
  DJ_TRY(list_steps(run_dir, &steps, &n));
  if (n) *path = step_path(run_dir, steps[0]);
  free(steps);
  return n ? DJ_OK
           : dj_error(DJ_E_NOT_FOUND,
                      "%s: no checkpoint in this folder; give the folder of a run ('dojo train "
                      "--out')",
                      run_dir);
}

dj_status dj_checkpoint_load_run(const char *run_dir, dj_checkpoint_which which, dj_vars *v,
                                 uint64_t *step) {
  char *path;
  dj_checkpoint_info info = {0};
  DJ_TRY(dj_checkpoint_find(run_dir, which, &path));
  dj_status s = dj_checkpoint_load_for_eval(path, v, &info);
  if (!s && step) *step = info.step;
  dj_checkpoint_info_free(&info);
  free(path);
  return s;
}

dj_status dj__checkpoint_load_last(const char *run_dir, dj_vars *v, dj_checkpoint_info *info) {
  uint64_t *steps;
  size_t n;
  DJ_TRY(list_steps(run_dir, &steps, &n));
  dj_status s = DJ_E_NOT_FOUND;
  for (size_t i = 0; i < n; i++) {
    char *path = step_path(run_dir, steps[i]);
    s = dj_checkpoint_load(path, v, info);
    free(path);
    if (s != DJ_E_FORMAT) break;
    dj_message(DJ_LOG_WARN, "%s; trying the checkpoint before", dj_error_message());
  }
  free(steps);
  if (!n) dj_error(s, "%s: no checkpoint", run_dir);
  return s;
}
