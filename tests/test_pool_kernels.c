/*
 * The backward kernels of max pooling on values that differ, tie and are NaN: its y must belong to
 * its x, which the samples of the op table cannot say but by one constant. Each instruction set,
 * one and two threads, f32 and bf16, overlapping and skipping windows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "backend/cpu/cpu.h"
#include "engine/attrs.h"
#include "engine/backend.h"
#include "op_fixture.h"

static const char *const instruction_sets[] = {"generic", "avx2", "avx512"};

/* Small integers, so that windows tie; every 97th is NaN. */
static void fill_x(dj_tensor *x) {
  dj__rng r = {.key = 11, .stream = 1};
  for (int64_t i = 0, n = dj_shape_count(&x->shape); i < n; i++)
    fixture_set(x, i, i % 97 == 96 ? NAN : floor(dj__rng_uniform(&r, -3, 3)));
}

static void run_ref(dj__op op, const dj__call *like, const dj_tensor *in, int n_in,
                    dj_tensor *out) {
  dj__call c = *like;
  c.op = op;
  c.in = in;
  c.n_in = n_in;
  c.out = out;
  c.n_out = 1;
  assert_int_equal(dj__op_get(op)->ref(&c), DJ_OK);
}

/* Sums of up to nine small gradients: exact to a few roundings of the dtype. */
static void compare(const dj_tensor *got, const dj_tensor *truth, const char *isa, int threads) {
  for (int64_t i = 0, n = dj_shape_count(&truth->shape); i < n; i++) {
    double a = fixture_get(got, i), b = fixture_get(truth, i);
    double allowed = 2e-6 + (got->dtype == DJ_BF16 ? fabs(b) * 0x1p-8 : 0);
    if (!(fabs(a - b) <= allowed))
      fail_msg("max_pool_grad, %s, %d threads, element %lld: %.9g, reference %.9g", isa, threads,
               (long long)i, a, b);
  }
}

static int check_sample(const dj__sample *s, bool bf16) {
  const dj__op_def *def = dj__op_get(DJ__OP_max_pool_grad);
  fixture f, truth;
  int n = 0;
  assert_int_equal(fixture_shape(&f, DJ__OP_max_pool_grad, s, bf16 ? 7u : 0), DJ_OK);
  fixture_make(&f, def, s);
  fill_x(&f.in[0]);
  fixture_widen(&truth, &f);
  run_ref(DJ__OP_max_pool, &truth.call, truth.in, 1, &truth.in[1]);
  for (int64_t i = 0, y = dj_shape_count(&f.in[1].shape); i < y; i++)
    fixture_set(&f.in[1], i, fixture_get(&truth.in[1], i));
  run_ref(DJ__OP_max_pool_grad, &truth.call, truth.in, 3, truth.out);
  const dj__backend *cpu = dj__backend_find("cpu");
  for (int k = 0; k < 3; k++)
    for (int threads = 1; threads <= 2; threads++) {
      dj__backend_options o = {.threads = threads, .isa = instruction_sets[k]};
      f.call.threads = threads;
      if (!cpu->supports(&f.call, &o)) continue; // not on this processor
      dj__kernel kernel = {0};
      assert_int_equal(cpu->create(&f.call, &o, &kernel), DJ_OK);
      f.call.workspace = fixture_alloc(kernel.workspace);
      memset(f.out[0].data, 0xff, dj_tensor_bytes(&f.out[0]));
      assert_int_equal(kernel.run(&f.call, kernel.self), DJ_OK);
      compare(&f.out[0], &truth.out[0], instruction_sets[k], threads);
      assert_true(fixture_guard_whole(f.call.workspace, kernel.workspace));
      free(f.call.workspace);
      if (kernel.destroy) kernel.destroy(kernel.self);
      n++;
    }
  fixture_free(&f);
  fixture_free(&truth);
  return n;
}

static void test_max_pool_grad(void **state) {
  (void)state;
  const dj__op_def *def = dj__op_get(DJ__OP_max_pool_grad);
  int n = 0;
  for (int i = 0; i < def->n_samples; i++)
    for (int bf16 = 0; bf16 < 2 && !def->samples[i].bench; bf16++)
      n += check_sample(&def->samples[i], bf16);
  assert_true(n >= 2 * 2 * 6); // at least the generic set ran, on every sample
}

int main(void) {
  dj__worth_threads = 0; // the samples are small: share them out all the same
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_max_pool_grad)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
