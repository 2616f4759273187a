/*
 * dojo train: begins a run from a recipe, or takes one up. The work is the library's (train.h,
 * drive.h); here are options, signals, the record in the store, and the report.
 */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/digest.h"
#include "base/fs.h"
#include "cli/cli.h"
#include "cli/profile.h"
#include "dojo/drive.h"
#include "dojo/store.h"
#include "dojo/text.h"
#include "dojo/train.h"
#include "train/recipe.h"

static const char HELP[] =
    "Usage: dojo train RECIPE --store S --out R [options]\n"
    "       dojo train RECIPE --tokens T --out R [options]\n"
    "       dojo train --resume R\n\n"
    "Trains a network on the drives of a store, or a language model on a file of tokens (`dojo "
    "text\n"
    "pack`), as a recipe says (docs/training.md; --keys lists what it can say). The run's folder R "
    "gets checkpoints, and curves for TensorBoard. With --from R it goes on learning from where "
    "run R\n"
    "ended, on other data or by another recipe for the same network.\n"
    "Ctrl-C finishes the step and writes a checkpoint; after that, a crash or kill -9, --resume\n"
    "goes on, to the same weights as a run that was never stopped.\n\n"
    "Examples:\n"
    "  dojo train recipes/donkey.yaml --store S --out runs/donkey-1\n"
    "  dojo train recipes/shakespeare.yaml --tokens t.safetensors --out runs/shakespeare-1\n"
    "  dojo train recipes/world.yaml --store S --from runs/world-1 --out runs/world-2\n"
    "  dojo train --resume runs/donkey-1\n\n"
    "Exit codes: 0 done, 8 the loss was not finite, 9 the disk is full, 12 stopped by a signal.\n";

static volatile sig_atomic_t stop;

static void on_signal(int number) {
  (void)number;
  stop = 1;
}

static void watch_signals(void) {
  struct sigaction a = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
  sigemptyset(&a.sa_mask); // a second signal ends the program at once
  sigaction(SIGINT, &a, NULL);
  sigaction(SIGTERM, &a, NULL);
  signal(SIGXFSZ, SIG_IGN); // a file size limit is an error of write(), like a full disk
}

typedef struct options {
  const char *store, *tokens, *out, *from, *resume, *precision, *backend;
  int64_t steps, threads;
  bool json, keys, profile, memory;
} options;

// ---- the store's memory of what was trained on it ----------------------------------------------

static bool wants_drive(const dj_recipe *r, const dj_store_drive *d) {
  if ((d->labels & r->data.labels) != r->data.labels) return false;
  for (unsigned i = 0; i < r->data.n_drives; i++)
    if (!strcmp(r->data.drives[i], d->name)) return true;
  return r->data.n_drives == 0;
}

static dj_status training_clips(dj_store *s, const dj_recipe *r, dj_clip_ref **clips, size_t *n) {
  dj_store_drive *drives;
  size_t n_drives, most = 0;
  *clips = NULL;
  *n = 0;
  DJ_TRY(dj_store_drives(s, &drives, &n_drives));
  for (size_t i = 0; i < n_drives; i++) most += (size_t)drives[i].n_clips;
  *clips = calloc(most + 1, sizeof **clips);
  for (size_t i = 0; *clips && i < n_drives; i++) {
    const dj_store_drive *d = &drives[i];
    for (int k = 0; wants_drive(r, d) && k < d->n_clips; k++) {
      if (strcmp(d->clips[k].split, "train") != 0) continue;
      dj_clip_ref *c = &(*clips)[(*n)++];
      memcpy(c->drive, d->name, sizeof c->drive);
      memcpy(c->drive_digest, d->digest, sizeof c->drive_digest);
      c->clip = d->clips[k].index;
      c->first_frame = d->clips[k].first_frame;
      c->n_frames = d->clips[k].n_frames;
    }
  }
  dj_store_drives_free(drives, n_drives);
  return *clips ? DJ_OK : dj_error(DJ_E_NOMEM, "train: no memory for %zu clips", most);
}

// A run's name in the store: its folder's own name, with a digest of the whole path against
// doubles.
static dj_status run_name(const char *dir, dj_store_run *run) {
  char *full = realpath(dir, NULL);
  if (!full) return dj_error_errno("%s", dir);
  dj__digest d;
  char hex[65];
  dj__digest_init(&d);
  dj__digest_text(&d, full);
  dj_status s = dj__digest_hex(&d, hex);
  (void)snprintf(run->name, sizeof run->name, "%.80s-%.8s", strrchr(full, '/') + 1, hex);
  (void)snprintf(run->path, sizeof run->path, "%s", full);
  free(full);
  return s;
}

static dj_status record_run(dj_store *s, const dj_run *run, dj_task *task, dj_store_run *r) {
  const dj_recipe *recipe = dj_run_recipe(run);
  DJ_TRY(run_name(dj_run_dir(run), r));
  (void)snprintf(r->recipe, sizeof r->recipe, "%s", recipe->name);
  r->created_s = (int64_t)time(NULL);
  char *text;
  DJ_TRY(task->ops->describe(task, &text));
  json_error_t e;
  json_t *j = json_loads(text, 0, &e);
  const char *data = json_string_value(json_object_get(j, "data"));
  (void)snprintf(r->dataset, sizeof r->dataset, "%s", data ? data : "");
  json_decref(j);
  free(text);
  dj_clip_ref *clips;
  size_t n;
  dj_status st = training_clips(s, recipe, &clips, &n);
  if (!st) st = dj_store_record_run(s, r, clips, n);
  free(clips);
  return st;
}

static dj_status record_model(dj_store *s, const dj_run *run, const dj_store_run *r,
                              const dj_train_result *result) {
  char *path;
  DJ_TRY(dj_checkpoint_find(dj_run_dir(run), DJ_CHECKPOINT_BEST, &path));
  dj_store_model m = {.step = result->best_step ? result->best_step : result->step};
  memcpy(m.run, r->name, sizeof m.run);
  (void)snprintf(m.path, sizeof m.path, "%s", path);
  dj_status st = dj__digest_file(path, m.digest, NULL);
  if (!st) st = dj_store_record_model(s, &m);
  free(path);
  return st;
}

// ---- training ----------------------------------------------------------------------------------

typedef struct job {
  dj_recipe *recipe; // of a new run; outlives the task
  dj_task *task;
  dj_run *run;
} job;

static bool holds_run(const char *dir) {
  char *path = dj__join(dir, "run.json");
  bool yes = dj__exists(path);
  free(path);
  return yes;
}

static dj_status create_task(const dj_recipe *r, const char *data, dj_task **task) {
  return r->task == DJ_TASK_TEXT ? dj_task_create_text(r, data, task)
                                 : dj_task_create_drive(r, data, task);
}

// The folder comes last: a recipe or store that does not work out leaves none behind. A folder that
// is taken is refused before the data are made ready, which may take a while.
static dj_status begin(const options *o, const char *recipe_path, job *b) {
  if (o->threads < 0 || o->threads > 4096 || o->steps < 0)
    return dj_error(DJ_E_INVALID, "--threads goes from 0 (all cores) to 4096, --steps from 1");
  const dj_run_options run = {.store = o->tokens ? o->tokens : o->store,
                              .from = o->from,
                              .backend = o->backend,
                              .precision = o->precision,
                              .threads = (int)o->threads,
                              .steps = (uint64_t)o->steps};
  DJ_TRY(dj_recipe_load(recipe_path, &b->recipe));
  bool text = b->recipe->task == DJ_TASK_TEXT;
  if (text != (o->tokens != NULL))
    return dj_error(DJ_E_INVALID, "%s: a recipe for %s", recipe_path,
                    text ? "text: give a file of tokens (--tokens T), not a store"
                         : "driving: give a store (--store S), not tokens");
  if (!holds_run(o->out)) DJ_TRY(create_task(b->recipe, run.store, &b->task));
  return dj_run_create(o->out, b->recipe, &run, &b->run);
}

static dj_status resume(const options *o, job *b) {
  DJ_TRY(dj_run_resume(o->resume, &b->run));
  if (!dj_run_store(b->run))
    return dj_error(DJ_E_INVALID, "%s: the run has no data", dj_run_dir(b->run));
  return create_task(dj_run_recipe(b->run), dj_run_store(b->run), &b->task);
}

enum { PROFILE_STEPS = 20 };

static void print_profile(const dj_train_profile *p, void *user) {
  const options *o = user;
  dj__cli_progress_end();
  dj__print_profile(o->json ? stderr : stdout, p);
}

static void print_memory(const dj_train_memory *m, void *user) {
  const options *o = user;
  FILE *f = o->json ? stderr : stdout;
  const double mib = 1024.0 * 1024;
  const struct {
    const char *name;
    uint64_t bytes;
  } rows[] = {{"weights", m->weights},
              {"optimiser", m->optimizer},
              {"inputs", m->inputs},
              {"values of a step", m->values},
              {"kernels' scratch", m->workspace},
              {"validation", m->evaluation}};
  uint64_t all = 0;
  dj__cli_progress_end();
  (void)fprintf(f, "memory, MiB\n");
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    (void)fprintf(f, "  %-18s %10.2f", rows[i].name, (double)rows[i].bytes / mib);
    if (i == 3 && m->lower_bound)
      (void)fprintf(f, "   %.3f times the bytes alive at once, %.2f; packed weights %.2f",
                    (double)m->values / (double)m->lower_bound, (double)m->lower_bound / mib,
                    (double)m->packed / mib);
    (void)fprintf(f, "\n");
    all += rows[i].bytes;
  }
  (void)fprintf(f, "  %-18s %10.2f   and the batches made ahead\n", "in all", (double)all / mib);
  (void)fflush(f);
}

/* A text run needs nothing but its folder to write text. */
static dj_status keep_tokenizer(const dj_run *run) {
  dj_tokenizer *t;
  DJ_TRY(dj_tokenizer_load(dj_run_store(run), &t));
  char *path = dj__join(dj_run_dir(run), "tokenizer.safetensors");
  dj_status s = dj__exists(path) ? DJ_OK : dj_tokenizer_save(t, path);
  free(path);
  dj_tokenizer_close(t);
  return s;
}

static dj_status train(const options *o, const job *b, dj_train_result *result) {
  const bool text = dj_run_recipe(b->run)->task == DJ_TASK_TEXT;
  dj_store *store = NULL;
  dj_store_run record = {0};
  dj_status s;
  if (text) {
    s = keep_tokenizer(b->run);
  } else {
    DJ_TRY(dj_store_open(dj_run_store(b->run), DJ_STORE_EXISTING, &store));
    s = record_run(store, b->run, b->task, &record);
  }
  const dj_train_options how = {.stop = &stop,
                                .profile_steps = o->profile ? PROFILE_STEPS : 0,
                                .profiled = print_profile,
                                .planned = o->memory ? print_memory : NULL,
                                .user = (void *)o};
  if (!s) s = dj_run_train(b->run, b->task, &how, result);
  if (!s && store) s = record_model(store, b->run, &record, result);
  dj_store_close(store);
  return s;
}

static json_t *maybe(double v) {
  return isfinite(v) ? json_real(v) : json_null();
}

static void report(const options *o, const dj_run *run, const dj_train_result *r) {
  dj__cli_progress_end();
  if (!o->json) {
    (void)printf("%" PRIu64 " of %" PRIu64 " steps, %.1f s, %.4g samples/s, loss %.4g", r->step,
                 r->steps, r->seconds, r->samples_per_second, r->loss);
    if (isfinite(r->best))
      (void)printf(", best %s %.4g at step %" PRIu64, r->best_name, r->best, r->best_step);
    (void)printf("\nrun: %s\n", dj_run_dir(run));
    return;
  }
  json_t *j =
      json_pack("{s:s, s:I, s:I, s:o, s:o, s:I, s:s, s:o, s:o}", "run", dj_run_dir(run), "step",
                (json_int_t)r->step, "steps", (json_int_t)r->steps, "loss", maybe(r->loss), "best",
                maybe(r->best), "best_step", (json_int_t)r->best_step, "best_name", r->best_name,
                "samples_per_second", maybe(r->samples_per_second), "seconds", maybe(r->seconds));
  char *text = json_dumps(j, JSON_INDENT(2));
  (void)puts(text ? text : "{}");
  free(text);
  json_decref(j);
}

static const char *bad_use(const options *o, int npos) {
  if (o->resume) {
    if (npos || o->store || o->tokens || o->out || o->from || o->steps || o->precision ||
        o->backend || o->threads)
      return "--resume takes everything from the run's folder: give nothing else but --json, "
             "--profile or --memory";
    return NULL;
  }
  if (npos != 1) return "give one recipe, or --resume R";
  if (!o->store && !o->tokens) return "give the store to train on: --store S (text: --tokens T)";
  if (o->store && o->tokens) return "--store is for driving, --tokens for text; give one";
  if (!o->out) return "give a folder for the run: --out R";
  return NULL;
}

static int print_keys(void) {
  char *text = dj__recipe_reference();
  if (!text) return dj__fail("train", dj_error(DJ_E_NOMEM, "no memory"));
  (void)fputs(text, stdout);
  free(text);
  return 0;
}

int dj__cmd_train(int argc, char **argv) {
  options o = {0};
  const dj__option list[] = {
      {"store", 'S', DJ_OPT_STRING, &o.store, "DIR", "the store of drives"},
      {"tokens", 'T', DJ_OPT_STRING, &o.tokens, "FILE", "text: the file of tokens"},
      {"out", 'o', DJ_OPT_STRING, &o.out, "DIR", "the run's folder; must hold no run yet"},
      {"from", 0, DJ_OPT_STRING, &o.from, "R", "begin with the best weights of run R"},
      {"resume", 'r', DJ_OPT_STRING, &o.resume, "DIR", "go on with the run in this folder"},
      {"steps", 0, DJ_OPT_INT, &o.steps, "N", "instead of the recipe's epochs or steps"},
      {"threads", 0, DJ_OPT_INT, &o.threads, "N", "that compute (default: the recipe's)"},
      {"backend", 0, DJ_OPT_STRING, &o.backend, "NAME", "cpu (default) or ref"},
      {"precision", 0, DJ_OPT_STRING, &o.precision, "P", "f32 or bf16 (default: the recipe's)"},
      {"profile", 0, DJ_OPT_FLAG, &o.profile, NULL, "print where the time of early steps goes"},
      {"memory", 0, DJ_OPT_FLAG, &o.memory, NULL, "print the memory plan before the first step"},
      {"keys", 0, DJ_OPT_FLAG, &o.keys, NULL, "print the table of recipe keys"},
      {"json", 0, DJ_OPT_FLAG, &o.json, NULL, "machine-readable report on stdout"},
      {0}};
  int npos;
  char **pos;
  int rc = dj__parse_options(argc, argv, list, HELP, &npos, &pos);
  if (rc >= 0) return rc;
  if (o.keys) return print_keys();
  const char *bad = bad_use(&o, npos);
  if (bad) return dj__fail("train", dj_error(DJ_E_INVALID, "%s; see dojo train --help", bad));
  watch_signals();
  job b = {0};
  dj_train_result result = {0};
  dj_status s = o.resume ? resume(&o, &b) : begin(&o, pos[0], &b);
  if (!s) {
    s = train(&o, &b, &result);
    if (!s || s == DJ_E_INTERRUPTED) report(&o, b.run, &result);
  }
  rc = s ? dj__fail("train", s) : 0;
  dj_task_destroy(b.task);
  if (s && s != DJ_E_INTERRUPTED && !result.step && !o.resume)
    dj_run_discard(b.run); // nothing was learned: the folder is free for the next try
  else
    dj_run_close(b.run);
  dj_recipe_free(b.recipe);
  return rc;
}
