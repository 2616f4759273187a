/*
 * Fusion around batch norm: a residual network computes the same with passes off and on, on both
 * backends and with values made again; what is fused is really gone; and a residual that depends on
 * the norm's own statistics is left alone.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "dojo/ops.h"
#include "dojo/train.h"
#include "engine/backend.h"
#include "engine/graph.h"
#include "program_fixture.h"

enum { BATCH = 3, SIDE = 10, CHANNELS = 20, STEPS = 3 };

static dj_val conv_norm(dj_graph *g, const char *name, dj_val x, int kernel, int stride) {
  int64_t in = dj_val_shape(g, x).dim[3];
  dj_graph_push(g, "%s", name);
  dj_val w = dj_param(g, "weight", DJ_SHAPE(CHANNELS, kernel, kernel, in), dj_init_he(9 * in));
  dj_conv2d_args a = dj_conv2d_same(kernel, stride);
  dj_val y = dj_conv2d(g, x, w, DJ_NONE, &a);
  y = dj_batch_norm(g, y, dj_param(g, "scale", DJ_SHAPE(CHANNELS), dj_init_uniform(1)),
                    dj_param(g, "shift", DJ_SHAPE(CHANNELS), dj_init_uniform(1)),
                    dj_state(g, "mean", DJ_SHAPE(CHANNELS), dj_init_const(0)),
                    dj_state(g, "var", DJ_SHAPE(CHANNELS), dj_init_const(1)), true, 0.1f, 1e-5f);
  dj_graph_pop(g);
  return y;
}

/* A residual block; its shortcut is made before the norm that takes it in, or after. */
static dj_val block(dj_graph *g, const char *name, dj_val x, int stride, bool shortcut_first) {
  dj_graph_push(g, "%s", name);
  dj_val s = x;
  if (stride > 1 && shortcut_first) s = conv_norm(g, "shortcut", x, 1, stride);
  dj_val y = dj_relu(g, conv_norm(g, "conv1", x, 3, stride));
  y = conv_norm(g, "conv2", y, 3, 1);
  if (stride > 1 && !shortcut_first) s = conv_norm(g, "shortcut", x, 1, stride);
  dj_graph_pop(g);
  return dj_relu(g, shortcut_first ? dj_add(g, s, y) : dj_add(g, y, s));
}

static dj_program *network(uint32_t off, const char *backend, bool again, dj_precision precision,
                           dj_vars **vars) {
  static const dj_optimizer sgd = {.kind = DJ_SGD, .beta1 = 0.9f};
  dj_graph *g = dj_graph_create();
  dj_program *p = NULL;
  dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(BATCH, SIDE, SIDE, 3));
  if (again) dj_recompute_begin(g);
  x = dj_relu(g, conv_norm(g, "stem", x, 3, 1));
  x = dj_max_pool(g, x, &(dj_pool_args){3, 3, 2, 2, 1, 1, 1, 1});
  if (again) dj_recompute_end(g);
  x = block(g, "a", x, 1, false);
  x = block(g, "b", x, 2, false);
  x = block(g, "c", x, 2, true);
  dj_val loss = dj_mean(g, dj_mul(g, x, x), DJ_ALL_AXES);
  OK(dj_optimizer_apply(g, loss, &sgd));
  *vars = dj_vars_create(5);
  const dj_compile_options o = {
      .backend = backend, .passes_off = off, .precision = precision, .threads = 2, .seed = 1};
  OK(dj_program_compile(g, &o, *vars, &p));
  dj_graph_destroy(g);
  return p;
}

/* Losses and gradient norms of a few steps. */
static void train(dj_program *p, double out[2 * STEPS]) {
  const dj_optimizer sgd = {.kind = DJ_SGD, .beta1 = 0.9f};
  dj_tensor *x = dj_program_input(p, "x");
  for (int s = 0; s < STEPS; s++) {
    dj__rng r = {.key = 9, .stream = (uint64_t)s};
    for (int64_t i = 0; i < dj_shape_count(&x->shape); i++)
      ((float *)x->data)[i] = dj__rng_normal(&r);
    OK(dj_optimizer_fill(p, &sgd, (uint64_t)s, 0.05));
    OK(dj_program_run(p, (uint64_t)s));
    out[2 * s] = (double)*(const float *)dj_program_output(p, "loss")->data;
    out[2 * s + 1] = (double)*(const float *)dj_program_output(p, "grad_norm")->data;
  }
}

static void test_results_stay(void **state) {
  (void)state;
  double truth[2 * STEPS];
  dj_vars *vars;
  dj_program *p = network(~0u, "ref", false, DJ_PRECISION_F32, &vars);
  train(p, truth);
  dj_program_destroy(p);
  dj_vars_destroy(vars);
  for (int again = 0; again < 2; again++)
    for (int b = 0; b < 4; b++) {
      double got[2 * STEPS];
      const bool bf16 = b > 1;
      p = network(0, b % 2 ? "cpu" : "ref", again, bf16 ? DJ_PRECISION_BF16 : DJ_PRECISION_F32,
                  &vars);
      train(p, got);
      for (int i = 0; i < 2 * STEPS; i++)
        if (fabs(got[i] - truth[i]) > (bf16 ? 5e-2 : 1e-4) * fabs(truth[i]))
          fail_msg("backend %d, again %d, number %d: %.9g, expected %.9g", b, again, i, got[i],
                   truth[i]);
      dj_program_destroy(p);
      dj_vars_destroy(vars);
    }
}

static void test_fused_away(void **state) {
  (void)state;
  dj_vars *vars;
  dj_program *p = network(0, "cpu", false, DJ_PRECISION_BF16, &vars);
  assert_int_equal(count(p, "relu"), 0);
  assert_int_equal(count(p, "relu_grad"), 0); // those behind a residual are in chains
  assert_int_equal(count(p, "batch_norm"), 9);
  assert_int_equal(count(p, "batch_norm_grad"), 9);
  dj_program_destroy(p);
  dj_vars_destroy(vars);
}

/* y + mean(x) * ones: the residual needs the norm itself. */
static void test_residual_of_own_statistics(void **state) {
  (void)state;
  const dj_shape s = DJ_SHAPE(6, 4);
  float y[2][24];
  for (int k = 0; k < 2; k++) {
    dj_graph *g = dj_graph_create();
    dj_vars *vars = dj_vars_create(1);
    dj_program *p = NULL;
    dj_val x = dj_input(g, "x", DJ_F32, s);
    dj_val one = dj_param(g, "scale", DJ_SHAPE(4), dj_init_const(1));
    dj_val zero = dj_param(g, "shift", DJ_SHAPE(4), dj_init_const(0));
    dj_val n = dj_batch_norm(g, x, one, zero, DJ_NONE, DJ_NONE, true, 0, 1e-5f);
    dj_val more = dj_broadcast(g, dj__sibling(g, n, 1), s);
    dj_output(g, "y", dj_relu(g, dj_add(g, n, more)));
    const dj_compile_options o = {.passes_off = k ? 0 : ~0u, .threads = 1};
    OK(dj_program_compile(g, &o, vars, &p));
    float *in = dj_program_input(p, "x")->data;
    for (int i = 0; i < 24; i++) in[i] = (float)(i * i % 7);
    OK(dj_program_run(p, 0));
    memcpy(y[k], dj_program_output(p, "y")->data, sizeof y[k]);
    dj_program_destroy(p);
    dj_vars_destroy(vars);
    dj_graph_destroy(g);
  }
  for (int i = 0; i < 24; i++) assert_float_equal(y[0][i], y[1][i], 1e-5);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_results_stay),
                                     cmocka_unit_test(test_fused_away),
                                     cmocka_unit_test(test_residual_of_own_statistics)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
