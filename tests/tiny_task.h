/*
 * A small task for the tests of training: an MLP that learns a fixed function of random points.
 * Batches are a function of the step alone. Included by one file of a program.
 */
#ifndef DOJO_TESTS_TINY_TASK_H
#define DOJO_TESTS_TINY_TASK_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/rng.h"
#include "dojo/train.h"

enum { TINY_IN = 6, TINY_HIDDEN = 16 };

typedef struct tiny_task {
  dj_task base;
  int batch;
  float dropout;
  uint64_t poison_at; // batch number with a NaN in it; 0: none
  int sum_of;         // > 1: batch number n holds the rows of batches n * sum_of ...
  const char *data;   // digest
  int validations, fills;
} tiny_task;

static inline dj_status tiny_build(dj_task *t, dj_graph *g, bool training, dj_val *loss) {
  const tiny_task *s = (const tiny_task *)t;
  int64_t b = s->batch;
  dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(b, TINY_IN)); // (B, I)
  dj_val y = dj_input(g, "y", DJ_F32, DJ_SHAPE(b, 1));       // (B, 1)
  dj_graph_push(g, "mlp");
  dj_val w1 = dj_param(g, "w1", DJ_SHAPE(TINY_HIDDEN, TINY_IN), dj_init_he(TINY_IN));
  dj_val b1 = dj_param(g, "b1", DJ_SHAPE(TINY_HIDDEN), dj_init_const(0.1f));
  dj_val w2 = dj_param(g, "w2", DJ_SHAPE(1, TINY_HIDDEN), dj_init_normal(0.2f));
  dj_val b2 = dj_param(g, "b2", DJ_SHAPE(1), dj_init_const(0));
  dj_val h = dj_tanh(g, dj_linear(g, x, w1, b1)); // (B, H)
  if (training && s->dropout > 0) h = dj_dropout(g, h, s->dropout);
  dj_val p = dj_linear(g, h, w2, b2); // (B, 1)
  dj_graph_pop(g);
  *loss = dj_mean(g, dj_l2(g, p, y), DJ_ALL_AXES);
  dj_output(g, "error", *loss);
  return dj_graph_status(g);
}

static inline void tiny_rows(float *x, float *y, int rows, uint64_t stream) {
  dj__rng r = {99, stream, 0};
  for (int i = 0; i < rows; i++) {
    float sum = 0;
    for (int k = 0; k < TINY_IN; k++) {
      float v = x[i * TINY_IN + k] = dj__rng_uniform(&r, -1, 1);
      sum += (k % 2 ? -0.5f : 0.75f) * v;
    }
    y[i] = sinf(2 * sum);
  }
}

static inline dj_status tiny_fill(dj_task *t, dj_program *p, uint64_t step, uint64_t *samples) {
  tiny_task *s = (tiny_task *)t;
  float *x = dj_program_input(p, "x")->data, *y = dj_program_input(p, "y")->data;
  int parts = s->sum_of > 1 ? s->sum_of : 1, rows = s->batch / parts;
  for (int k = 0; k < parts; k++)
    tiny_rows(x + (ptrdiff_t)k * rows * TINY_IN, y + (ptrdiff_t)k * rows, rows,
              step * (uint64_t)parts + (uint64_t)k);
  if (s->poison_at && step == s->poison_at) x[3] = NAN;
  s->fills++;
  *samples = (uint64_t)s->batch;
  return DJ_OK;
}

static inline dj_status tiny_validate(dj_task *t, dj_program *eval, dj_scores *scores) {
  tiny_task *s = (tiny_task *)t;
  double sum = 0;
  for (uint64_t k = 0; k < 4; k++) {
    tiny_rows(dj_program_input(eval, "x")->data, dj_program_input(eval, "y")->data, s->batch,
              1000000 + k);
    DJ_TRY(dj_program_run(eval, k));
    sum += (double)*(const float *)dj_program_output(eval, "error")->data;
  }
  dj_scores_add(scores, "error", sum / 4);
  scores->best = 0;
  s->validations++;
  return DJ_OK;
}

static inline dj_status tiny_describe(dj_task *t, char **json) {
  const tiny_task *s = (const tiny_task *)t;
  *json = dj__strf("{\"data\": \"%s\"}", s->data ? s->data : "tiny");
  return DJ_OK;
}

static inline dj_status tiny_pictures(dj_task *t, dj_program *eval, dj_picture *out, int max,
                                      int *n) {
  (void)t;
  (void)eval;
  *n = 0;
  if (max < 1) return DJ_OK;
  uint8_t *rgb = malloc(4 * 3 * 3);
  if (!rgb) return dj_error(DJ_E_NOMEM, "no memory for a picture");
  for (int i = 0; i < 4 * 3 * 3; i++) rgb[i] = (uint8_t)(7 * i);
  out[0] = (dj_picture){.name = "sample", .width = 4, .height = 3, .rgb = rgb};
  *n = 1;
  return DJ_OK;
}

static inline uint64_t tiny_epoch(dj_task *t) {
  (void)t;
  return 10;
}
static inline void tiny_destroy(dj_task *t) {
  (void)t; // lives on the test's stack
}

static inline tiny_task tiny_make(int batch) {
  static const char *const scalars[] = {"error", NULL};
  static const dj_task_ops ops = {.name = "tiny",
                                  .build = tiny_build,
                                  .fill = tiny_fill,
                                  .validate = tiny_validate,
                                  .describe = tiny_describe,
                                  .pictures = tiny_pictures,
                                  .steps_per_epoch = tiny_epoch,
                                  .scalars = scalars,
                                  .destroy = tiny_destroy};
  return (tiny_task){.base = {&ops}, .batch = batch};
}

// A recipe with these lines in its section train (flow style, without braces).
static inline dj_recipe *tiny_recipe(const char *train) {
  char *text =
      dj__strf("data: {width: 32, height: 32}\nnetwork: {name: tiny}\ntrain: {%s}\n", train);
  dj_recipe *r = NULL;
  if (dj_recipe_parse(text, strlen(text), "tiny.yaml", &r)) {
    (void)fprintf(stderr, "%s\n", dj_error_message());
    abort();
  }
  free(text);
  return r;
}

#endif
