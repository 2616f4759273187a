/* Shared by the files of a run: folder (run.c), checkpoints (checkpoint.c), loop (loop.c). */
#ifndef DOJO_TRAIN_RUN_H
#define DOJO_TRAIN_RUN_H

#include "dojo/train.h"

struct dj_run {
  char *dir, *store; /* store: NULL if none */
  char *from;        /* folder of the run whose best weights it begins with; NULL: none */
  dj_recipe *recipe;
  char *name; /* of the recipe when the run was made, from run.json; NULL once it is in `recipe` */
  char backend[32];
  dj_precision precision;
  int threads;       /* settled when the run was made, so that a resumed run has the same */
  uint64_t steps;    /* asked for with the options; 0: the recipe's */
  uint64_t total;    /* of the loop, once it is known; 0 before */
  int64_t created_s; /* Unix time */
  int lock;          /* descriptor that holds the lock; -1: none */
  bool resumed;
};

/* Writes run.json anew, whole or not at all. */
dj_status dj__run_write(const dj_run *r);

/* ---- checkpoints, written by a thread of their own from a copy of the variables ---- */
typedef struct dj__run_state { /* what a checkpoint holds beside the variables; no time, no names of
                                  machines: equal runs have equal files */
  uint64_t step, seed;
  double best; /* NaN: none */
  uint64_t best_step;
  char best_name[DJ_SCORE_NAME];
  const char *recipe_digest, *task; /* outlive the checkpointer */
} dj__run_state;

typedef struct dj__checkpointer dj__checkpointer;
/* `vars` must have all its variables by the first submit. Removes temporary files that a killed
 * writer left. */
dj_status dj__checkpointer_open(const char *run_dir, int keep, dj_vars *vars, dj__checkpointer **c);
/* Waits until the writer is idle, copies all variables and hands them over. Returns the failure of
 * the write before, if it failed. */
extern size_t dj__checkpoint_most_copied; /* bytes; more is written without a copy, in submit */
dj_status dj__checkpointer_submit(dj__checkpointer *c, const dj__run_state *state, bool is_best);
/* Waits until everything is on disk. */
dj_status dj__checkpointer_wait(dj__checkpointer *c);
dj_status dj__checkpointer_close(dj__checkpointer *c); /* waits; NULL is fine */

/* Makes best.safetensors another name of the checkpoint of `step`. */
dj_status dj__checkpoint_make_best(const char *run_dir, uint64_t step);

/* Loads the newest checkpoint that can be read; broken ones are warned of and passed over.
 * DJ_E_NOT_FOUND where there is none. */
dj_status dj__checkpoint_load_last(const char *run_dir, dj_vars *v, dj_checkpoint_info *info);

/* The optimizer that a recipe asks for. */
dj_optimizer dj__recipe_optimizer(const dj_recipe_train *t);

#endif
