/*
 * Max pooling and its gradient on values that differ, tie and are NaN: results and places equal the
 * reference's to the bit. Each instruction set, one and two threads, f32 and bf16, overlapping and
 * skipping windows.
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

static void compare(const dj_tensor *got, const dj_tensor *truth, const char *what, const char *isa,
                    int threads) {
  for (int64_t i = 0, n = dj_shape_count(&truth->shape); i < n; i++) {
    double a = fixture_get(got, i), b = fixture_get(truth, i);
    double allowed = 2e-6 + (got->dtype == DJ_BF16 ? fabs(b) * 0x1p-8 : 0);
    if (!(fabs(a - b) <= allowed) && !(isnan(a) && isnan(b)))
      fail_msg("%s, %s, %d threads, element %lld: %.9g, reference %.9g", what, isa, threads,
               (long long)i, a, b);
  }
}

/* Runs f's call on every instruction set against the reference; returns how often. */
static int check_call(fixture *f) {
  const dj__op_def *def = dj__op_get(f->call.op);
  const dj__backend *cpu = dj__backend_find("cpu");
  fixture truth;
  int n = 0;
  fixture_widen(&truth, f);
  assert_int_equal(def->ref(&truth.call), DJ_OK);
  for (int k = 0; k < 3; k++)
    for (int threads = 1; threads <= 2; threads++) {
      dj__backend_options o = {.threads = threads, .isa = instruction_sets[k]};
      f->call.threads = threads;
      if (!cpu->supports(&f->call, &o)) continue; // not on this processor
      dj__kernel kernel = {0};
      assert_int_equal(cpu->create(&f->call, &o, &kernel), DJ_OK);
      f->call.workspace = fixture_alloc(kernel.workspace);
      for (int i = 0; i < f->call.n_out; i++)
        memset(f->out[i].data, 0xff, dj_tensor_bytes(&f->out[i]));
      assert_int_equal(kernel.run(&f->call, kernel.self), DJ_OK);
      for (int i = 0; i < f->call.n_out; i++)
        compare(&f->out[i], &truth.out[i], def->name, instruction_sets[k], threads);
      assert_true(fixture_guard_whole(f->call.workspace, kernel.workspace));
      free(f->call.workspace);
      if (kernel.destroy) kernel.destroy(kernel.self);
      n++;
    }
  fixture_free(&truth);
  return n;
}

static int check_sample(const dj__sample *s, const dj__sample *grad, bool bf16) {
  fixture f, b;
  assert_int_equal(fixture_shape(&f, DJ__OP_max_pool, s, bf16 ? 1u : 0), DJ_OK);
  fixture_make(&f, dj__op_get(DJ__OP_max_pool), s);
  fill_x(&f.in[0]);
  int n = check_call(&f);
  assert_int_equal(fixture_shape(&b, DJ__OP_max_pool_grad, grad, bf16 ? 2u : 0), DJ_OK);
  fixture_make(&b, dj__op_get(DJ__OP_max_pool_grad), grad);
  memcpy(b.in[0].data, f.out[1].data, dj_tensor_bytes(&f.out[1])); // places of these maxima
  n += check_call(&b);
  fixture_free(&f);
  fixture_free(&b);
  return n;
}

static void test_max_pool(void **state) {
  (void)state;
  const dj__op_def *def = dj__op_get(DJ__OP_max_pool), *grad = dj__op_get(DJ__OP_max_pool_grad);
  int n = 0;
  for (int i = 0; i < def->n_samples; i++)
    for (int bf16 = 0; bf16 < 2 && !def->samples[i].bench; bf16++)
      n += check_sample(&def->samples[i], &grad->samples[i], bf16);
  assert_true(n >= 2 * 2 * 2 * 6); // at least the generic set ran, on every sample
}

int main(void) {
  dj__worth_threads = 0; // the samples are small: share them out all the same
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_max_pool)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
