/*
 * Moments of large variables, which AdamW writes only when somebody needs them: whoever looks, and
 * whenever, finds the same as if they had been written at once.
 */
#define _DEFAULT_SOURCE // mincore
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "dojo/ops.h"
#include "dojo/train.h"
#include "program_fixture.h"

static const dj_optimizer adamw = {
    .kind = DJ_ADAMW, .beta2 = 0.99f, .weight_decay = 0.02f, .max_norm = 0.01f, .ema = 0.9f};
#define LARGE   "optimizer/m/large"
#define LARGE_V "optimizer/v/large"

/* One weight of 3.4 MB, and small ones. */
static dj_graph *graph(void) {
  dj_graph *g = dj_graph_create();
  dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(5, 1210));
  dj_val w = dj_param(g, "large", DJ_SHAPE(701, 1210), dj_init_he(1210)),
         small = dj_param(g, "small", DJ_SHAPE(3, 701), dj_init_he(701));
  dj_val y = dj_linear(g, dj_tanh(g, dj_linear(g, x, w, DJ_NONE)), small, DJ_NONE);
  OK(dj_optimizer_apply(g, dj_mean(g, dj_mul(g, y, y), DJ_ALL_AXES), &adamw));
  return g;
}

static dj_program *program(const dj_compile_options *o, dj_vars *vars) {
  dj_graph *g = graph();
  dj_program *p;
  OK(dj_program_compile(g, o, vars, &p));
  dj_graph_destroy(g);
  return p;
}

static void step(dj_program *p, uint64_t number) {
  fill_noise(p, number + 1);
  OK(dj_optimizer_fill(p, &adamw, number, 0.01));
  OK(dj_program_run(p, number));
}

static const float *values(dj_vars *vars, const char *name) {
  const dj_var *v = dj_vars_find(vars, name);
  assert_non_null(v);
  return v->tensor.data;
}

/* Pages of n floats that the system has given. */
static int64_t pages(const float *x, int64_t n) {
  static unsigned char there[1 << 12];
  const size_t page = 4096, bytes = (size_t)n * sizeof *x;
  assert_true((uintptr_t)x % page == 0 && bytes <= page * sizeof there);
  assert_int_equal(mincore((void *)x, bytes, there), 0);
  int64_t sum = 0;
  for (size_t i = 0; i < (bytes + page - 1) / page; i++) sum += there[i] & 1;
  return sum;
}

enum { N = 701 * 1210, STEPS = 4 };

/* Moments as one update makes them of zero; sum of the gradient's squares. */
static double first_squares(const float *m, const float *v) {
  double sum = 0;
  for (int i = 0; i < N; i++) {
    const double gradient = (double)m[i] / (1 - 0.9), square = (double)v[i] / (1 - 0.99);
    if (!(fabs(gradient * gradient - square) <= 1e-5 * square + 1e-30))
      fail_msg("element %d: gradient %g, square %g", i, gradient, square);
    sum += square;
  }
  return sum;
}

static void test_first_moments(void **state) {
  (void)state;
  for (int precision = DJ_PRECISION_F32; precision <= DJ_PRECISION_BF16; precision++) {
    dj_vars *vars = dj_vars_create(1);
    dj_program *p = program(&(dj_compile_options){.precision = (dj_precision)precision}, vars);
    const float *m = values(vars, LARGE), *v = values(vars, LARGE_V);
    step(p, 0);
    assert_int_equal(pages(m, N) + pages(v, N), 0); // not even memory
    assert_ptr_equal(values(vars, LARGE), m);       // somebody looks
    const double squares = first_squares(m, v);
    assert_true(sqrt(squares) < 0.01 && sqrt(squares) > 0.005); // clipped, as `small` is with it
    step(p, 1);
    dj_program_destroy(p);
    dj_vars_destroy(vars);
  }
}

/* Who looks when: nobody; at every step; a program ends behind the first step and another goes on;
 * two go by turns. */
enum { NOBODY, EVERY_STEP, ANOTHER, TURNS, N_WAYS };

static dj_vars *trained(int way, const dj_compile_options *o) {
  dj_vars *vars = dj_vars_create(1);
  dj_program *p = program(o, vars), *other = way == TURNS ? program(o, vars) : NULL;
  OK(dj_optimizer_start(vars));
  for (uint64_t s = 0; s < STEPS; s++) {
    step(other && s % 2 ? other : p, s);
    if (way == EVERY_STEP) (void)dj_vars_get(vars, 0);
    if (way == ANOTHER && s == 0) {
      dj_program_destroy(p);
      p = program(o, vars);
    }
  }
  dj_program_destroy(other);
  dj_program_destroy(p);
  return vars;
}

static void test_whoever_looks(void **state) {
  (void)state;
  for (int precision = DJ_PRECISION_F32; precision <= DJ_PRECISION_BF16; precision++) {
    const dj_compile_options o = {.precision = (dj_precision)precision};
    dj_vars *want = trained(NOBODY, &o);
    for (int way = EVERY_STEP; way < N_WAYS; way++) {
      dj_vars *got = trained(way, &o);
      assert_true(variables_apart(got, want, false) == 0);
      dj_vars_destroy(got);
    }
    dj_vars_destroy(want);
  }
}

static void test_as_the_reference(void **state) {
  (void)state;
  dj_vars *want = trained(NOBODY, &(dj_compile_options){.backend = "ref"}),
          *got = trained(NOBODY, &(dj_compile_options){.backend = "cpu"});
  assert_true(variables_apart(got, want, false) < 1e-3);
  dj_vars_destroy(want);
  dj_vars_destroy(got);
}

/* A first step without a finite loss updates nothing; the next is as if it had been. */
static void test_skipped_first_step(void **state) {
  (void)state;
  dj_vars *vars = dj_vars_create(1);
  dj_program *p = program(NULL, vars);
  fill_noise(p, 1);
  ((float *)dj_program_input(p, "x")->data)[7] = INFINITY;
  OK(dj_optimizer_fill(p, &adamw, 0, 0.01));
  OK(dj_program_run(p, 0));
  step(p, 1);
  const float *m = values(vars, LARGE), *v = values(vars, LARGE_V);
  (void)first_squares(m, v);
  dj_program_destroy(p);
  dj_vars_destroy(vars);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_first_moments),
      cmocka_unit_test(test_whoever_looks),
      cmocka_unit_test(test_as_the_reference),
      cmocka_unit_test(test_skipped_first_step),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
