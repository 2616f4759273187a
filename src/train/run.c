/*
 * A run's folder: making, taking up, locking and looking at it. train.h says what lies in it.
 *
 * run.json is what makes a folder a run: it is written last, so a start that was killed half-way
 * leaves a folder that can be started in again. The lock is an open-file-description lock: it goes
 * with the process, however that ends, and others can ask about it without taking it.
 */
#include "train/run.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "train/events.h"

enum { MAX_RUN_JSON = 1 << 16 };

// ---- lock --------------------------------------------------------------------------------------

static dj_status take_lock(dj_run *r) {
  char *path = dj__join(r->dir, "lock");
  dj_status s = DJ_OK;
  struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  r->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (r->lock < 0)
    s = dj_error_errno("%s: cannot open", path);
  else if (fcntl(r->lock, F_OFD_SETLK, &all) != 0 && (errno == EAGAIN || errno == EACCES))
    s = dj_error(DJ_E_STATE,
                 "%s: another trainer works in this folder; wait for it, or choose another",
                 r->dir);
  free(path);
  return s;
}

static bool is_locked(const char *dir) {
  char *path = dj__join(dir, "lock");
  int fd = open(path, O_RDWR | O_CLOEXEC);
  free(path);
  if (fd < 0) return false;
  struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  bool locked = fcntl(fd, F_OFD_GETLK, &all) == 0 && all.l_type != F_UNLCK;
  close(fd);
  return locked;
}

// ---- run.json ----------------------------------------------------------------------------------

static const char *precision_text(dj_precision p) {
  return p == DJ_PRECISION_F32 ? "f32" : "bf16";
}

dj_status dj__run_write(const dj_run *r) {
  json_t *j = json_pack("{s:i, s:s, s:s?, s:s?, s:s, s:s, s:i, s:I, s:I, s:s, s:I}", "version", 1,
                        "name", r->recipe->name, "store", r->store, "from", r->from, "backend",
                        r->backend, "precision", precision_text(r->precision), "threads",
                        r->threads, "steps", (json_int_t)r->steps, "total", (json_int_t)r->total,
                        "recipe", r->recipe->digest, "created", (json_int_t)r->created_s);
  char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
  json_decref(j);
  if (!text)
    return dj_error(DJ_E_INVALID, "%s: cannot describe the run (is the store's path UTF-8?)",
                    r->dir);
  char *path = dj__join(r->dir, "run.json");
  dj_status s = dj__write_file_atomic(path, text, strlen(text));
  free(path);
  free(text);
  return s;
}

static dj_status bad_run_json(const char *path, const char *what) {
  return dj_error(DJ_E_FORMAT, "%s: %s; the folder cannot be taken up", path, what);
}

static dj_status parse_precision(const char *text, dj_precision *p) {
  if (!strcmp(text, "f32")) {
    *p = DJ_PRECISION_F32;
  } else if (!strcmp(text, "bf16")) {
    *p = DJ_PRECISION_BF16;
  } else {
    return dj_error(DJ_E_INVALID, "precision '%.40s': known are f32 and bf16", text);
  }
  return DJ_OK;
}

static dj_status from_json(dj_run *r, const char *path, json_t *j) {
  const char *backend = "", *precision = "";
  int version = 0, threads = 0;
  json_int_t steps = 0, total = 0, created = 0;
  json_error_t e;
  if (json_unpack_ex(j, &e, 0, "{s:i, s:s, s:s, s:i, s:I, s:I, s:I}", "version", &version,
                     "backend", &backend, "precision", &precision, "threads", &threads, "steps",
                     &steps, "total", &total, "created", &created) != 0)
    return bad_run_json(path, e.text);
  const char *store = json_string_value(json_object_get(j, "store")); // null: none
  if (version != 1) return bad_run_json(path, "written by another version");
  if (threads < 1 || threads > 4096 || steps < 0 || total < 0 ||
      strlen(backend) >= sizeof r->backend || parse_precision(precision, &r->precision))
    return bad_run_json(path, "a value is out of range");
  r->store = store ? dj__strf("%s", store) : NULL;
  const char *from = json_string_value(json_object_get(j, "from"));
  r->from = from ? dj__strf("%s", from) : NULL;
  const char *name = json_string_value(json_object_get(j, "name"));
  r->name = name ? dj__strf("%s", name) : NULL;
  (void)snprintf(r->backend, sizeof r->backend, "%s", backend);
  r->threads = threads;
  r->steps = (uint64_t)steps;
  r->total = (uint64_t)total;
  r->created_s = created;
  return DJ_OK;
}

static dj_status read_run_json(dj_run *r) {
  char *path = dj__join(r->dir, "run.json"), *text = NULL;
  size_t size = 0;
  dj_status s = dj__exists(path)
                    ? dj__read_file(path, MAX_RUN_JSON, &text, &size)
                    : dj_error(DJ_E_NOT_FOUND, "%s: holds no run (no run.json)", r->dir);
  if (!s) {
    json_error_t e;
    json_t *j = json_loadb(text, size, JSON_REJECT_DUPLICATES, &e);
    s = j ? from_json(r, path, j) : bad_run_json(path, e.text);
    json_decref(j);
  }
  free(text);
  free(path);
  return s;
}

static dj_status read_recipe(dj_run *r) {
  char *path = dj__join(r->dir, "recipe.yaml");
  dj_status s = dj_recipe_load(path, &r->recipe);
  if (!s && r->name && !dj_recipe_line(r->recipe, "name")) { // the copy's file name says nothing
    free(r->recipe->name);
    r->recipe->name = r->name;
    r->name = NULL;
  }
  free(path);
  return s;
}

// ---- making and taking up ----------------------------------------------------------------------

static int usable_cores(void) {
  cpu_set_t set;
  int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return n > 0 ? n : 1;
}

/* Resuming may happen from another folder. NULL stays NULL. */
static char *full_path(const char *path) {
  char *full = path ? realpath(path, NULL) : NULL;
  return full || !path ? full : dj__strf("%s", path);
}

static dj_status settle_options(dj_run *r, const dj_run_options *o) {
  const dj_recipe_train *t = &r->recipe->train;
  r->precision = t->precision;
  if (o->precision) DJ_TRY(parse_precision(o->precision, &r->precision));
  const char *backend = o->backend ? o->backend : "cpu";
  if (strlen(backend) >= sizeof r->backend)
    return dj_error(DJ_E_INVALID, "backend '%.40s...': no such backend", backend);
  (void)snprintf(r->backend, sizeof r->backend, "%s", backend);
  if (o->threads < 0 || o->threads > 4096)
    return dj_error(DJ_E_INVALID, "threads: %d; 0 (all cores) to 4096", o->threads);
  r->threads = o->threads ? o->threads : t->threads ? t->threads : usable_cores();
  r->steps = o->steps;
  r->created_s = (int64_t)time(NULL);
  r->store = full_path(o->store);
  r->from = full_path(o->from);
  return DJ_OK;
}

static dj_status already_there(const dj_run *r) {
  dj_run old = {.dir = r->dir, .lock = -1};
  if (read_run_json(&old) || read_recipe(&old)) {
    free(old.store);
    free(old.from);
    free(old.name);
    return dj_error(DJ_E_EXISTS,
                    "%s: holds a run whose recipe cannot be read; choose another "
                    "folder",
                    r->dir);
  }
  bool same = !strcmp(old.recipe->digest, r->recipe->digest);
  dj_status s =
      same
          ? dj_error(DJ_E_EXISTS,
                     "%s: holds a run of this recipe already; go on with 'dojo train --resume "
                     "%s', or choose another folder",
                     r->dir, r->dir)
          : dj_error(DJ_E_EXISTS, "%s: holds a run of another recipe ('%s'); choose another folder",
                     r->dir, old.recipe->name);
  dj_recipe_free(old.recipe);
  free(old.store);
  free(old.from);
  free(old.name);
  return s;
}

static dj_status fill_folder(dj_run *r) {
  char *run = dj__join(r->dir, "run.json");
  char *recipe = dj__join(r->dir, "recipe.yaml");
  dj_status s = dj__exists(run) ? already_there(r) : DJ_OK;
  if (!s) s = dj__write_file_atomic(recipe, r->recipe->text, strlen(r->recipe->text));
  if (!s) s = dj__run_write(r);
  free(run);
  free(recipe);
  return s;
}

static dj_run *new_run(const char *dir) {
  dj_run *r = calloc(1, sizeof *r);
  if (!r) return NULL;
  r->lock = -1;
  r->dir = dj__strf("%s", dir);
  size_t n = strlen(r->dir);
  while (n > 1 && r->dir[n - 1] == '/') r->dir[--n] = 0;
  return r;
}

dj_status dj_run_create(const char *dir, const dj_recipe *recipe, const dj_run_options *o,
                        dj_run **out) {
  *out = NULL;
  dj_run *r = new_run(dir);
  if (!r) return dj_error(DJ_E_NOMEM, "%s: no memory", dir);
  // A copy of its own: the caller's may go before the run.
  dj_status s = dj_recipe_parse(recipe->text, strlen(recipe->text), recipe->file, &r->recipe);
  if (!s) s = settle_options(r, o);
  if (!s) s = dj__mkdirs(r->dir);
  if (!s) s = take_lock(r);
  if (!s) s = fill_folder(r);
  if (s) {
    dj_run_close(r);
    return s;
  }
  *out = r;
  return DJ_OK;
}

dj_status dj_run_resume(const char *dir, dj_run **out) {
  *out = NULL;
  dj_run *r = new_run(dir);
  if (!r) return dj_error(DJ_E_NOMEM, "%s: no memory", dir);
  r->resumed = true;
  dj_status s = read_run_json(r);
  if (!s) s = read_recipe(r);
  if (!s) s = take_lock(r);
  if (s) {
    dj_run_close(r);
    return s;
  }
  *out = r;
  return DJ_OK;
}

void dj_run_close(dj_run *r) {
  if (!r) return;
  if (r->lock >= 0) close(r->lock);
  dj_recipe_free(r->recipe);
  free(r->name);
  free(r->store);
  free(r->from);
  free(r->dir);
  free(r);
}

static void remove_in(const char *dir, const char *name) {
  char *path = dj__join(dir, name);
  (void)unlink(path);
  free(path);
}

void dj_run_discard(dj_run *r) {
  if (!r) return;
  char *path, **names = NULL;
  size_t n = 0;
  if (dj_checkpoint_find(r->dir, DJ_CHECKPOINT_LAST, &path) == DJ_OK) {
    free(path);
  } else {
    remove_in(r->dir, "run.json"); // first: without it the folder is no run
    remove_in(r->dir, "recipe.yaml");
    if (dj__list_dir(r->dir, &names, &n) == DJ_OK)
      for (size_t i = 0; i < n; i++)
        if (!strncmp(names[i], "events.out.tfevents.", 20)) remove_in(r->dir, names[i]);
    dj__free_names(names, n);
    remove_in(r->dir, "lock");
    path = dj__join(r->dir, "checkpoints");
    (void)rmdir(path); // what else lies in either folder is not ours
    (void)rmdir(r->dir);
    free(path);
  }
  dj_run_close(r);
}

const dj_recipe *dj_run_recipe(const dj_run *r) {
  return r->recipe;
}
const char *dj_run_store(const dj_run *r) {
  return r->store;
}
const char *dj_run_dir(const dj_run *r) {
  return r->dir;
}

// ---- looking -----------------------------------------------------------------------------------

static void see_event(void *user, const dj__event *e) {
  dj_run_info *i = user;
  if (e->is_start) { // what a killed trainer logged beyond its last checkpoint does not count
    if (e->step && i->step >= e->step) i->step = e->step - 1;
    return;
  }
  if (!e->tag || e->png) return;
  if (!strcmp(e->tag, "train/loss")) {
    i->loss = e->value;
    i->step = e->step;
  }
  if (!strcmp(e->tag, "train/learning_rate")) i->lr = e->value;
  if (!strcmp(e->tag, "train/samples_per_second")) i->samples_per_second = e->value;
}

static void see_checkpoint(dj_run_info *i) {
  char *path;
  if (dj_checkpoint_find(i->dir, DJ_CHECKPOINT_LAST, &path)) return;
  dj_vars *v = dj_vars_create(0);
  dj_checkpoint_info c = {0};
  if (v && !dj_checkpoint_load(path, v, &c)) {
    i->best = c.best;
    i->best_step = c.best_step;
    memcpy(i->best_name, c.best_name, sizeof i->best_name);
    if (c.step > i->step) i->step = c.step;
  }
  dj_checkpoint_info_free(&c);
  dj_vars_destroy(v);
  free(path);
}

dj_status dj_run_read(const char *dir, dj_run_info *info) {
  *info = (dj_run_info){.loss = NAN, .lr = NAN, .samples_per_second = NAN, .best = NAN};
  dj_run *r = new_run(dir);
  if (!r) return dj_error(DJ_E_NOMEM, "%s: no memory", dir);
  dj_status s = read_run_json(r);
  if (!s) s = read_recipe(r);
  if (s) {
    dj_run_close(r);
    return s;
  }
  info->dir = r->dir;
  info->store = r->store;
  info->recipe = r->recipe;
  memcpy(info->backend, r->backend, sizeof info->backend);
  (void)snprintf(info->precision, sizeof info->precision, "%s", precision_text(r->precision));
  info->threads = r->threads;
  info->steps = r->total ? r->total : r->steps ? r->steps : r->recipe->train.steps;
  info->running = is_locked(r->dir);
  free(r->name);
  free(r->from);
  free(r); // its other parts live on in info
  s = dj__events_read_dir(info->dir, see_event, info);
  if (s) {
    dj_run_info_free(info);
    return s;
  }
  see_checkpoint(info);
  return DJ_OK;
}

void dj_run_info_free(dj_run_info *i) {
  free(i->dir);
  free(i->store);
  dj_recipe_free(i->recipe);
  *i = (dj_run_info){0};
}
