/*
 * Sums over all axes but the last are taken along by the chain that makes what they sum: gradients
 * of biases behind ReLU are the same with the pass off and on, the nodes are really gone, and what
 * needs the sums does not get into the chain that makes them.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "dojo/ops.h"
#include "dojo/train.h"
#include "program_fixture.h"

enum { BATCH = 3, SIDE = 22, CHANNELS = 20, ROWS = 5 };

static const char *const biases[] = {"bias1", "bias2"};

static dj_val conv_relu(dj_graph *g, const char *weight, const char *bias, dj_val x) {
  int64_t in = dj_val_shape(g, x).dim[3];
  dj_val w = dj_param(g, weight, DJ_SHAPE(CHANNELS, 3, 3, in), dj_init_he(9 * in));
  dj_val b = dj_param(g, bias, DJ_SHAPE(CHANNELS), dj_init_uniform(1));
  dj_conv2d_args a = dj_conv2d_same(3, 1);
  return dj_relu(g, dj_conv2d(g, x, w, b, &a));
}

static void run_noise(dj_program *p) {
  fill_noise(p, 9);
  OK(dj_program_run(p, 0));
}

/* Gradients of both biases of conv -> relu -> conv -> relu. */
static void bias_gradients(const dj_compile_options *o, float out[2][CHANNELS]) {
  dj_graph *g = dj_graph_create();
  dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(BATCH, SIDE, SIDE, 3));
  x = conv_relu(g, "weight1", biases[0], x);
  x = conv_relu(g, "weight2", biases[1], x);
  OK(dj_graph_backward(g, dj_mean(g, dj_mul(g, x, x), DJ_ALL_AXES)));
  for (int i = 0; i < dj_graph_n_params(g); i++)
    dj_output(g, dj_graph_param_name(g, i), dj_grad(g, dj_graph_param(g, i)));
  dj_vars *vars = dj_vars_create(5);
  dj_program *p;
  OK(dj_program_compile(g, o, vars, &p));
  dj_graph_destroy(g);
  const bool fused = !o->passes_off;
  assert_int_equal(count(p, "sum"), fused ? 0 : 3); // off: also the loss, which nobody reads
  assert_int_equal(count(p, "relu_grad"), fused ? 0 : 2);
  run_noise(p);
  for (int k = 0; k < 2; k++) memcpy(out[k], dj_program_output(p, biases[k])->data, sizeof out[k]);
  dj_program_destroy(p);
  dj_vars_destroy(vars);
}

static void test_bias_gradients(void **state) {
  (void)state;
  float truth[2][CHANNELS], got[2][CHANNELS];
  bias_gradients(&(dj_compile_options){.backend = "ref", .passes_off = ~0u, .seed = 1}, truth);
  for (int b = 0; b < 4; b++) {
    const bool bf16 = b > 1;
    bias_gradients(&(dj_compile_options){.backend = b % 2 ? "cpu" : "ref",
                                         .precision = bf16 ? DJ_PRECISION_BF16 : DJ_PRECISION_F32,
                                         .threads = 2,
                                         .seed = 1},
                   got);
    for (int k = 0; k < 2; k++) {
      float most = 0;
      for (int i = 0; i < CHANNELS; i++) most = fmaxf(most, fabsf(truth[k][i]));
      for (int i = 0; i < CHANNELS; i++)
        if (fabsf(got[k][i] - truth[k][i]) > (bf16 ? 1e-2f : 1e-5f) * most)
          fail_msg("setting %d, %s, channel %d: %.9g, expected %.9g", b, biases[k], i,
                   (double)got[k][i], (double)truth[k][i]);
    }
  }
}

/* exp(x) - its sums: one chain makes exp(x) and the sums, the difference comes after it. */
static void test_reader_of_sums(void **state) {
  (void)state;
  float y[2][ROWS * CHANNELS];
  for (int k = 0; k < 2; k++) {
    dj_graph *g = dj_graph_create();
    dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(ROWS, CHANNELS)), e = dj_exp(g, x);
    dj_output(g, "y", dj_sub(g, e, dj_sum(g, e, 1)));
    dj_program *p;
    OK(dj_program_compile(
        g, &(dj_compile_options){.backend = "cpu", .passes_off = k ? 0 : ~0u, .threads = 1}, NULL,
        &p));
    dj_graph_destroy(g);
    assert_int_equal(count(p, "sum"), !k);
    assert_int_equal(count(p, "sub"), 1);
    run_noise(p);
    memcpy(y[k], dj_program_output(p, "y")->data, sizeof y[k]);
    dj_program_destroy(p);
  }
  for (int i = 0; i < ROWS * CHANNELS; i++)
    assert_float_equal(y[0][i], y[1][i], 1e-5f * (1 + fabsf(y[0][i])));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_bias_gradients),
                                     cmocka_unit_test(test_reader_of_sums)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
