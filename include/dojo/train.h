/*
 * Training: recipes, optimisers, schedules, and runs that survive anything.
 *
 *     dj_recipe *r;  dj_run *run;  dj_task *task;
 *     DJ_TRY(dj_recipe_load("recipes/donkey.yaml", &r));
 *     DJ_TRY(dj_run_create("R", r, &(dj_run_options){.store = "S"}, &run));  // or dj_run_resume
 *     DJ_TRY(dj_task_create_drive(dj_run_recipe(run), dj_run_store(run), &task));  // drive.h
 *     dj_status s = dj_run_train(run, task, &(dj_train_options){0}, NULL);
 *     dj_task_destroy(task);
 *     dj_run_close(run);
 *     dj_recipe_free(r);
 *
 * A run's folder:
 *     R/recipe.yaml       copy of the recipe: resuming needs nothing else
 *     R/run.json          the options it was started with (store, threads, backend, ...)
 *     R/checkpoints/step-00001000.safetensors   all variables, and the state of the run as metadata
 *     R/checkpoints/best.safetensors            the same file (a link) of the best validation score
 *     R/events.out.tfevents.*                   curves and pictures for TensorBoard
 *     R/lock              held while a trainer works in the folder
 *
 * Everything that enters the weights is a function of (recipe, options, data, step): a run that was
 * stopped or killed and resumed ends in the same bytes as one that was not. A run is used from one
 * thread.
 */
#ifndef DOJO_TRAIN_H
#define DOJO_TRAIN_H

#include <signal.h>

#include "dojo/data.h"
#include "dojo/graph.h"
#include "dojo/ops.h"
#include "dojo/status.h"

/* ---- optimiser ---- */
typedef enum dj_optimizer_kind { DJ_ADAMW, DJ_SGD } dj_optimizer_kind;

typedef struct dj_optimizer {
  dj_optimizer_kind kind;
  float beta1;        /* AdamW: 0 counts as 0.9. SGD: momentum, 0..1 */
  float beta2;        /* AdamW: 0 counts as 0.999 */
  float eps;          /* AdamW: 0 counts as 1e-8 */
  float weight_decay; /* not applied to variables of rank 0 and 1 (biases, normalisation) */
  float max_norm;     /* the gradient is scaled down to this global norm; 0: not */
  float ema;          /* decay of the moving average of the weights, 0.99..0.9999; 0: none. Warmed
                         up: decay at step t is min(ema, (1 + t) / (10 + t)) */
} dj_optimizer;

/*
 * Differentiates `loss` (f32 scalar) and adds the update of every trainable variable. Makes the
 * input "optimizer/hyper" f32 (8) (dj_optimizer_fill), the outputs "loss" and "grad_norm" (f32
 * scalars; norm before clipping), and the states "optimizer/m/NAME", "optimizer/v/NAME" (AdamW)
 * and "optimizer/ema/NAME" for each variable NAME. Nothing is updated in a step whose loss or norm
 * is not finite.
 */
dj_status dj_optimizer_apply(dj_graph *g, dj_val loss, const dj_optimizer *o);
/* The same in two programs over the same variables, for batches larger than one run can take.
 * First: differentiates and adds gradient / n to the states "optimizer/grad/NAME" and loss / n to
 * "optimizer/loss". */
dj_status dj_optimizer_accumulate(dj_graph *g, dj_val loss, int n);
/* Second: an update of the variables of `from` (a graph given to dj_optimizer_accumulate) by the
 * accumulated gradients, which it sets back to zero. `g` is an empty graph. Inputs, outputs and
 * states as dj_optimizer_apply. */
dj_status dj_optimizer_apply_accumulated(dj_graph *g, const dj_graph *from, const dj_optimizer *o);
/* Fills "optimizer/hyper" for the update number `step` (from 0) at learning rate `lr`. */
dj_status dj_optimizer_fill(dj_program *p, const dj_optimizer *o, uint64_t step, double lr);
/* Sets the moving averages to the weights: once, before the first step. */
dj_status dj_optimizer_start(dj_vars *v);
/* The values to evaluate with: copies every variable of `from` that is not the optimiser's own into
 * `to` (made where missing), taking the moving average of a weight where there is one. */
dj_status dj_vars_copy_for_eval(dj_vars *from, dj_vars *to);

/* ---- learning rate ---- */
typedef enum dj_schedule_kind {
  DJ_SCHEDULE_CONSTANT,
  DJ_SCHEDULE_COSINE, /* from lr to lr * final over the steps after the warm-up */
  DJ_SCHEDULE_STEP    /* times gamma after every `every` steps */
} dj_schedule_kind;

typedef struct dj_schedule {
  dj_schedule_kind kind;
  double lr;       /* > 0 */
  uint64_t warmup; /* steps of linear rise: lr (step + 1) / (warmup + 1) */
  uint64_t steps;  /* length of the run, for the cosine */
  double final;    /* share of lr at the end of the cosine, 0..1 */
  uint64_t every;  /* steps, for DJ_SCHEDULE_STEP; 0: never */
  double gamma;
} dj_schedule;
double dj_schedule_lr(const dj_schedule *s, uint64_t step); /* step from 0 */

/* ---- recipes: what recipes/NAME.yaml hold. docs/training.md has the table of keys, units and
 * defaults. ---- */
typedef enum dj_loss_kind { DJ_LOSS_LAPLACE, DJ_LOSS_L1, DJ_LOSS_L2, DJ_LOSS_HUBER } dj_loss_kind;

typedef enum dj_task_kind { DJ_TASK_DRIVE, DJ_TASK_TEXT } dj_task_kind;
typedef enum dj_norm_kind { DJ_NORM_LAYER, DJ_NORM_RMS } dj_norm_kind;
typedef enum dj_positions_kind { DJ_POSITIONS_LEARNED, DJ_POSITIONS_ROTARY } dj_positions_kind;
typedef enum dj_mlp_kind { DJ_MLP_GELU, DJ_MLP_SWIGLU } dj_mlp_kind;

typedef struct dj_recipe_data {
  int width, height;  /* pixels */
  float crop[4];      /* share cut off: left, top, right, bottom; 0..0.9 */
  int frames, stride; /* window of the feature queue */
  int hop;            /* recorded frames from one training window to the next */
  float lead;         /* s from a picture to the control that is learned with it */
  uint32_t labels;    /* dj_label bits */
  float margin_x;     /* extra width for viewpoint augmentation, share of width */
  char **cameras;     /* NULL: each drive's first */
  unsigned n_cameras;
  char **drives; /* NULL: all that hold the labels */
  unsigned n_drives;
  int context;      /* text: tokens that are seen at once */
  float validation; /* text: share of the tokens, the last ones, that only validate */
  int windows;      /* text: windows of `context` tokens to validate with at most */
} dj_recipe_data;

typedef struct dj_recipe_network {
  char *name;     /* "dojo4d", "pilotnet", ...: drive.h knows which there are; "decoder" for text */
  int channels;   /* of the first stage */
  float growth;   /* of the channels from stage to stage, up to the fourth */
  int depth;      /* blocks in a stage */
  int stages;     /* resolutions of the backbone */
  int stack;      /* frames the backbone sees at once: the present one, differences to others */
  int matching;   /* pixels to either side in which a frame is looked for in the one before */
  int hidden;     /* width of the recurrent state and of the heads */
  int hypotheses; /* of the ego path */
  float dropout;  /* probability, in the heads */
  bool recurrent; /* feature queue over the window; false: the last frame alone */
  bool speed_input;   /* the vehicle's speed is given to the heads where known */
  bool turn_input;    /* with it, the rate at which the vehicle turns */
  bool command_input; /* so is the route command */
  /* Of decoders (text.h): */
  int layers, heads, kv_heads, width, mlp_width, vocabulary; /* 0: see docs/training.md */
  dj_norm_kind norm;
  dj_positions_kind positions;
  dj_mlp_kind mlp;
  float rope_theta, norm_eps;
  bool tied, bias;
} dj_recipe_network;

typedef struct dj_recipe_loss {
  dj_loss_kind kind;                             /* of the control head */
  float steering, throttle, brake, path, choice; /* weights; 0: head not trained */
} dj_recipe_loss;

typedef struct dj_recipe_train {
  double epochs;  /* either epochs or steps is given; the other is 0 */
  uint64_t steps; /* updates of the weights */
  int batch;      /* samples in one run of the program */
  int accumulate; /* runs for one update: the effective batch is batch * accumulate */
  dj_precision precision;
  struct {
    dj_optimizer_kind name;
    float lr, beta1, beta2, eps, weight_decay, momentum;
  } optimizer;
  struct {
    dj_schedule_kind name;
    uint64_t warmup; /* steps */
    float final, gamma;
    uint64_t every; /* steps */
  } schedule;
  float recompute; /* share of the layers or stages, 0..1 */
  float ema, clip;
  float
      best_after; /* share of the run before which no weights count as the best: on little
                     validation data an early score is luck, and the weights are not yet annealed */
  uint64_t seed;
  uint64_t validate_every;   /* steps; 0: once an epoch */
  uint64_t checkpoint_every; /* steps; 0: by time alone */
  double checkpoint_seconds; /* a checkpoint at least this often; 0: by steps alone */
  int keep;                  /* last checkpoints kept, besides the best */
  int threads;               /* 0: all cores */
  int loader_threads;        /* threads that make batches */
} dj_recipe_train;

typedef struct dj_recipe {
  char *name; /* of the recipe; the file's name without folder and .yaml if the file gives none */
  char *about;
  dj_task_kind task;
  dj_recipe_data data;
  dj_augment augment;
  dj_recipe_network network;
  dj_recipe_loss loss;
  dj_recipe_train train;
  char *text;      /* the source, as read */
  char *file;      /* for messages */
  char digest[65]; /* sha256 of the text, hex */
  void *internal;  /* lines of the keys */
} dj_recipe;

/* Errors name file, line, key and value, and what would be right: DJ_E_FORMAT (not YAML, unknown
 * key: suggests the nearest; wrong type; a required key is missing; aliases, tags and documents
 * beyond the first are refused), DJ_E_INVALID (out of range, not a number), DJ_E_LIMIT (over 1 MB,
 * nested too deep). */
dj_status dj_recipe_load(const char *path, dj_recipe **r);
dj_status dj_recipe_parse(const char *text, size_t size, const char *file, dj_recipe **r);
void dj_recipe_free(dj_recipe *r);
/* Line of a key, "network.channels", for errors found by others; 0 if the recipe does not give it.
 */
int dj_recipe_line(const dj_recipe *r, const char *key);

/* ---- what is trained ---- */
enum { DJ_MAX_SCORES = 32, DJ_SCORE_NAME = 64 };
typedef struct dj_scores {
  int n;
  struct {
    char name[DJ_SCORE_NAME]; /* "steering/mae" */
    double value;
  } score[DJ_MAX_SCORES];
  int best;              /* index of the score that decides which weights are best; -1: none */
  bool higher_is_better; /* of that score */
} dj_scores;
/* Appends; quietly drops beyond DJ_MAX_SCORES. */
void dj_scores_add(dj_scores *s, const char *name, double value);

typedef struct dj_picture {
  char name[DJ_SCORE_NAME];
  int width, height;
  uint8_t *rgb; /* (height, width, 3); malloc'd by the task, freed by the caller */
} dj_picture;

typedef struct dj_task dj_task;
typedef struct dj_task_ops {
  const char *name;
  /* Adds network, loss (f32 scalar, mean over the batch) and named outputs to an empty graph.
   * With training = false `loss` may be set to DJ_NONE. Inputs have the size of one batch. */
  dj_status (*build)(dj_task *t, dj_graph *g, bool training, dj_val *loss);
  /* Puts the training batch number `step` into the program's inputs; a pure function of step.
   * *samples: how many samples it holds. */
  dj_status (*fill)(dj_task *t, dj_program *p, uint64_t step, uint64_t *samples);
  /* Runs `eval` (built with training = false, weights already in place) over the validation
   * split. NULL: no validation. */
  dj_status (*validate)(dj_task *t, dj_program *eval, dj_scores *scores);
  /* What defines the task beside the recipe, as a JSON object (malloc'd, the caller frees; for
   * example {"data": digest, "normalisation": ...}): goes into checkpoints, must be the same when a
   * run is resumed. */
  dj_status (*describe)(dj_task *t, char **json);
  /* Up to `max` sample pictures for the event log, after a validation; *n: how many. May be NULL.
   */
  dj_status (*pictures)(dj_task *t, dj_program *eval, dj_picture *out, int max, int *n);
  /* Batches in one epoch. */
  uint64_t (*steps_per_epoch)(dj_task *t);
  /* Names of further f32 scalar outputs of the training graph to put on curves; NULL-terminated,
   * may be NULL. */
  const char *const *scalars;
  void (*destroy)(dj_task *t);
} dj_task_ops;
/* A task embeds this as its first member. */
struct dj_task {
  const dj_task_ops *ops;
};
static inline void dj_task_destroy(dj_task *t) {
  if (t) t->ops->destroy(t);
}

/* ---- runs ---- */
typedef struct dj_run_options {
  const char *store;     /* remembered for resuming; NULL: none */
  const char *from;      /* folder of a run whose best weights it begins with; NULL: the recipe's */
  const char *backend;   /* NULL: "cpu" */
  const char *precision; /* "f32", "bf16"; NULL: the recipe's */
  int threads;           /* 0: the recipe's */
  uint64_t steps;        /* 0: the recipe's */
} dj_run_options;

typedef struct dj_run dj_run;
/* Makes the folder, copies the recipe into it and takes its lock. Errors: DJ_E_EXISTS (the folder
 * holds a run: says how to resume it, or that its recipe is another), DJ_E_STATE (another trainer
 * works in it). */
dj_status dj_run_create(const char *dir, const dj_recipe *r, const dj_run_options *o, dj_run **run);
/* Takes up a run where its last whole checkpoint was, or at the start if there is none. */
dj_status dj_run_resume(const char *dir, dj_run **run);
void dj_run_close(dj_run *run); /* NULL is fine */
/* Closes a run; if it has no checkpoint, also removes what makes the folder a run, so that a start
 * that failed is not in the way of the next. */
void dj_run_discard(dj_run *run);
const dj_recipe *dj_run_recipe(const dj_run *run);
const char *dj_run_store(const dj_run *run); /* NULL if none was given */
const char *dj_run_dir(const dj_run *run);

/* Where the time of a step went, as a mean over `steps` steps; dj_program_node has the nodes. */
typedef struct dj_train_profile {
  const dj_program *program; /* of a step, or of one run of it where gradients are accumulated */
  int steps;
  double seconds;      /* of a step, without validation and checkpoints */
  double data_seconds; /* of it: waiting for a batch and filling it in */
} dj_train_profile;

/* Memory of a run, in bytes, as planned before the first step. */
typedef struct dj_train_memory {
  uint64_t weights;     /* and other variables of the network */
  uint64_t optimizer;   /* moments, moving averages, accumulated gradients */
  uint64_t inputs;      /* a batch in the program, and constants */
  uint64_t values;      /* everything computed in a step: planned */
  uint64_t packed;      /* of it: copies of weights as kernels like them */
  uint64_t lower_bound; /* most bytes of these alive at once: no plan can need less */
  uint64_t workspace;   /* kernels' scratch */
  uint64_t evaluation;  /* the program that validates, with its copy of the weights */
} dj_train_memory;

typedef struct dj_train_options {
  volatile const sig_atomic_t *stop; /* set non-zero (signal handler): finish the step, write a
                                        checkpoint, return DJ_E_INTERRUPTED; may be NULL */
  uint64_t stop_at;                  /* the same once this many steps are done; 0: never */
  int profile_steps; /* > 0: after two steps, measure this many and call `profiled` once */
  void (*profiled)(const dj_train_profile *p, void *user);
  void (*planned)(const dj_train_memory *m, void *user); /* once, before the first step; or NULL */
  void *user;
} dj_train_options;

typedef struct dj_train_result {
  uint64_t step, steps; /* done, and in all */
  double loss;          /* of the last step */
  double best;          /* best validation score; NaN if there is none */
  uint64_t best_step;
  char best_name[DJ_SCORE_NAME];
  double samples_per_second; /* of this process, without validation */
  double seconds;
} dj_train_result;

/* Trains to the end. `result` may be NULL; it is filled also when training stops early. Errors:
 * DJ_E_INTERRUPTED (stopped as asked; a checkpoint is there), DJ_E_NONFINITE (names the first node
 * that made a non-finite value; the last good checkpoint is kept), DJ_E_NO_SPACE (the old
 * checkpoints are whole), DJ_E_STATE (the task differs from the one the run began with). */
dj_status dj_run_train(dj_run *run, dj_task *task, const dj_train_options *o,
                       dj_train_result *result);

/* ---- checkpoints ---- */
typedef enum dj_checkpoint_which { DJ_CHECKPOINT_LAST, DJ_CHECKPOINT_BEST } dj_checkpoint_which;

typedef struct dj_checkpoint_info {
  uint64_t step;
  double best; /* NaN: none yet */
  uint64_t best_step;
  char best_name[DJ_SCORE_NAME];
  char recipe_digest[65];
  char *task; /* the task's description, JSON; owned */
} dj_checkpoint_info;
void dj_checkpoint_info_free(dj_checkpoint_info *i);

/* Path of a run's checkpoint. DJ_CHECKPOINT_BEST falls back to the last where there is no
 * validation. DJ_E_NOT_FOUND where there is none. free() it. */
dj_status dj_checkpoint_find(const char *run_dir, dj_checkpoint_which which, char **path);
/* Loads all variables (the optimiser's too). `v` is empty, or has variables of the same shapes.
 * `info` may be NULL. Errors: DJ_E_FORMAT, DJ_E_NOT_FOUND, DJ_E_INVALID (another shape). */
dj_status dj_checkpoint_load(const char *path, dj_vars *v, dj_checkpoint_info *info);
/* Loads what evaluation needs: weights (moving averages where there are) and running statistics.
 */
dj_status dj_checkpoint_load_for_eval(const char *path, dj_vars *v, dj_checkpoint_info *info);
/* The same from a run's folder. `step`: that of the checkpoint; may be NULL. */
dj_status dj_checkpoint_load_run(const char *run_dir, dj_checkpoint_which which, dj_vars *v,
                                 uint64_t *step);

/* ---- looking at runs without training ---- */
typedef struct dj_run_info {
  char *dir, *store; /* store: NULL if none */
  dj_recipe *recipe;
  char backend[32], precision[8];
  int threads;
  uint64_t step;                       /* of the last logged step */
  uint64_t steps;                      /* planned in all; 0 unknown */
  double loss, lr, samples_per_second; /* last logged; NaN unknown */
  double best;                         /* best validation score; NaN none */
  uint64_t best_step;
  char best_name[DJ_SCORE_NAME];
  bool running; /* a trainer holds the folder */
} dj_run_info;
/* DJ_E_NOT_FOUND where the folder holds no run. */
dj_status dj_run_read(const char *dir, dj_run_info *info);
void dj_run_info_free(dj_run_info *info);

#endif
