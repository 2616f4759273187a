/*
 * Timing of whole training steps for `dojo bench steps`: a recipe's network, losses, gradients and
 * update as one program, on made-up frames, so that no store is needed.
 */
#ifndef DOJO_CLI_BENCH_STEPS_H
#define DOJO_CLI_BENCH_STEPS_H

#include <stdbool.h>

typedef struct dj__steps_options {
  const char *backend, *isa, *precision; /* NULL: the best; precision: the recipe's */
  int threads;                           /* 0: the recipe's, or all cores */
  int batch, context;                    /* 0: the recipe's */
  const char *save; /* file for the first recipe's initial weights and inputs; NULL: none */
  const char
      *batches;   /* safetensors: inputs by name with a leading axis, a batch a step; or NULL */
  double seconds; /* of measuring for each recipe, about */
  int losses;     /* how many of the first steps to report the loss of, 3 to 1000 */
  double lr;      /* of all steps */
  bool json, profile;
  bool alone;      /* beside each large product of the profile: its kernel and oneDNN's alone */
  bool no_dropout; /* so that a peer can compute the same */
} dj__steps_options;

/* Times the recipes and prints a table, or a JSON array; the command's exit code. */
int dj__bench_steps(const dj__steps_options *o, int n, char **recipes);

#endif
