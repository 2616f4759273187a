/*
 * Own CPU kernels in cases that the samples of the op table cannot hold: updates of many variables
 * in one call, NaN and ties in maxima, long sums, errors that must leave outputs alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "backend/cpu/cpu.h"
#include "engine/attrs.h"
#include "engine/backend.h"
#include "engine/ops/basic.h"
#include "op_fixture.h"

static const char *const instruction_sets[] = {"generic", "avx2", "avx512"};
enum { N_SETS = 3 };

/* Runs the kernel of an instruction set; false if the processor lacks the set. */
static bool run_on(dj__call *c, const char *isa, int threads, dj_status expect) {
  const dj__backend *cpu = dj__backend_find("cpu");
  dj__backend_options o = {.threads = threads, .isa = isa};
  dj__kernel k = {0};
  c->threads = threads;
  if (!cpu->supports(c, &o)) return false;
  assert_int_equal(cpu->create(c, &o, &k), DJ_OK);
  assert_string_equal(k.name, isa);
  c->workspace = fixture_alloc(k.workspace);
  memset(c->workspace, 0xff, k.workspace);
  assert_int_equal(k.run(c, k.self), expect);
  assert_true(fixture_guard_whole(c->workspace, k.workspace));
  free(c->workspace);
  if (k.destroy) k.destroy(k.self);
  return true;
}

static dj_tensor new_tensor(dj_dtype t, dj_shape s) {
  dj_tensor x = {.dtype = t, .shape = s};
  x.data = fixture_alloc(dj_tensor_bytes(&x));
  return x;
}

/* ---- updates ---- */
enum { VARS = 6, INPUTS = DJ__UPDATE_FIRST + DJ__UPDATE_PER_VAR * VARS };
static const int64_t sizes[VARS] = {1, 4096, 4097, 50000, 7, 8191};

typedef struct update {
  dj_tensor in[INPUTS];
  struct {
    int n;
    dj__update_var var[VARS];
  } attr;
} update;

static void make_update(update *u, dj__op op) {
  *u = (update){.attr.n = VARS};
  dj__rng r = {.key = 5};
  u->in[0] = new_tensor(DJ_F32, DJ_SHAPE(DJ__N_HYPER));
  const float hyper[] = {0.01f, 0.9f, 0.99f, 1e-8f, 0.271f, 0.0297f, 2.0f, 0.995f};
  memcpy(u->in[0].data, hyper, sizeof hyper);
  u->in[1] = new_tensor(DJ_F32, DJ_SHAPE(2));
  memcpy(u->in[1].data, (float[]){0.5f, 3.0f}, 2 * sizeof(float));
  for (int i = DJ__UPDATE_FIRST; i < INPUTS; i++) {
    int v = (i - DJ__UPDATE_FIRST) / DJ__UPDATE_PER_VAR, what = (i - DJ__UPDATE_FIRST) % 5;
    bool absent = (what == 4 && v % 2) || (what == 3 && op == DJ__OP_sgd);
    u->attr.var[v] = (dj__update_var){v % 3 ? 0.05f : 0.0f, v == 2 ? 0.1f : 1.0f};
    u->in[i].shape.rank = -1;
    if (absent) continue;
    u->in[i] = new_tensor(DJ_F32, DJ_SHAPE(sizes[v]));
    for (int64_t k = 0; k < sizes[v]; k++)
      ((float *)u->in[i].data)[k] = dj__rng_uniform(&r, what == 3 ? 0.01f : -1, 1);
  }
}

static void free_update(update *u) {
  for (int i = 0; i < INPUTS; i++) free(u->in[i].data);
}

static dj__call update_call(update *u, dj__op op) {
  return (dj__call){.op = op, .n_in = INPUTS, .in = u->in, .attr = &u->attr};
}

static uint64_t update_digest(const update *u) {
  uint64_t h = 0;
  for (int i = 0; i < INPUTS; i++)
    if (u->in[i].data) h = dj__hash64(u->in[i].data, dj_tensor_bytes(&u->in[i]), h);
  return h;
}

static void compare_updates(const update *got, const update *want) {
  for (int i = 0; i < INPUTS; i++) {
    if (!want->in[i].data) continue;
    assert_true(fixture_guard_whole(got->in[i].data, dj_tensor_bytes(&got->in[i])));
    for (int64_t k = 0, n = dj_shape_count(&want->in[i].shape); k < n; k++) {
      double a = fixture_get(&got->in[i], k), b = fixture_get(&want->in[i], k);
      if (fabs(a - b) > 2e-6)
        fail_msg("input %d element %lld is %.9g, want %.9g", i, (long long)k, a, b);
    }
  }
}

static void check_updates(dj__op op) {
  update want;
  make_update(&want, op);
  dj__call c = update_call(&want, op);
  uint64_t before = update_digest(&want);
  assert_int_equal(dj__op_get(op)->ref(&c), DJ_OK);
  for (int i = 0; i < N_SETS; i++) {
    uint64_t first = 0;
    for (int threads = 1; threads <= 3; threads++) {
      update u;
      make_update(&u, op);
      c = update_call(&u, op);
      bool ran = run_on(&c, instruction_sets[i], threads, DJ_OK);
      if (ran) compare_updates(&u, &want);
      if (ran && threads == 1) first = update_digest(&u);
      if (ran) assert_true(update_digest(&u) == first);
      free_update(&u);
      make_update(&u, op); // nothing is written where the norm is not finite
      ((float *)u.in[1].data)[1] = INFINITY;
      uint64_t guarded = update_digest(&u);
      assert_true(guarded != before);
      c = update_call(&u, op);
      if (run_on(&c, instruction_sets[i], threads, DJ_OK))
        assert_true(update_digest(&u) == guarded);
      free_update(&u);
    }
  }
  free_update(&want);
}

static void updates_of_many_variables(void **state) {
  (void)state;
  check_updates(DJ__OP_adamw);
  check_updates(DJ__OP_sgd);
}

/* ---- maxima ---- */
/* Few values, so that there are ties everywhere, with NaN and infinities among them. */
static void fill_with_ties(dj_tensor *t, uint64_t seed) {
  static const float values[] = {0, 1, 1, 2, 2, -1, -INFINITY, INFINITY, NAN};
  dj__rng r = {.key = seed};
  int64_t n = dj_shape_count(&t->shape);
  for (int64_t i = 0; i < n; i++) {
    uint64_t most = i % 7 < 4 ? 6 : 9; // some rows without the extremes
    ((float *)t->data)[i] = values[dj__rng_below(&r, i < n / 3 ? 6 : most)];
  }
}

static void check_maximum(dj__op op, dj_shape s, uint32_t axes, const void *attr, uint64_t seed) {
  dj_tensor in[2] = {new_tensor(DJ_F32, s)};
  fill_with_ties(&in[0], seed);
  dj__infer infer = {.op_name = "test", .n_in = 1, .in = in, .attr = attr, .n_out = 1};
  infer.out[0].dtype = DJ_F32;
  dj__op forward = op == DJ__OP_reduce_max_grad ? DJ__OP_reduce_max : op;
  assert_int_equal(dj__op_get(forward)->infer(&infer), DJ_OK);
  in[1] = new_tensor(DJ_F32, infer.out[0].shape); // dy
  for (int64_t i = 0; i < dj_shape_count(&in[1].shape); i++)
    ((float *)in[1].data)[i] = (float)(i + 1);
  bool gradient = op == DJ__OP_reduce_max_grad;
  dj_shape y = gradient ? s : infer.out[0].shape;
  dj_tensor want = new_tensor(infer.out[0].dtype, y), got = new_tensor(infer.out[0].dtype, y);
  dj__call c = {.op = op, .n_in = gradient ? 2 : 1, .n_out = 1, .in = in, .attr = attr};
  c.out = &want;
  assert_int_equal(dj__op_get(op)->ref(&c), DJ_OK);
  c.out = &got;
  for (int i = 0; i < N_SETS; i++) {
    memset(got.data, 0xff, dj_tensor_bytes(&got));
    if (!run_on(&c, instruction_sets[i], 2, DJ_OK)) continue;
    for (int64_t k = 0; k < dj_shape_count(&y); k++) {
      double a = fixture_get(&got, k), b = fixture_get(&want, k);
      if (!(a == b || (isnan(a) && isnan(b))))
        fail_msg("%s on %s, axes %x, element %lld is %g, want %g", dj__op_get(op)->name,
                 instruction_sets[i], axes, (long long)k, a, b);
    }
  }
  free(in[0].data);
  free(in[1].data);
  free(want.data);
  free(got.data);
}

static void maxima_of_ties_and_nan(void **state) {
  (void)state;
  const dj_shape s = DJ_SHAPE(6, 11, 5, 9);
  for (uint32_t axes = 0; axes < 16; axes++) {
    dj__reduce_attr a;
    memset(&a, 0, sizeof a);
    a.axes = axes;
    check_maximum(DJ__OP_reduce_max, s, axes, &a, axes);
    check_maximum(DJ__OP_reduce_max_grad, s, axes, &a, axes);
  }
  for (int axis = 0; axis < 4; axis++)
    check_maximum(DJ__OP_argmax, s, 1u << axis, &(dj__axis_attr){axis}, (uint64_t)axis);
}

/* ---- sums ---- */
/* A million numbers near 1000: adding them one by one in f32 is off by 1e-3 and more. */
static void long_sums_are_exact_to_a_millionth(void **state) {
  (void)state;
  enum { N = 1 << 20 };
  dj_tensor x = new_tensor(DJ_F32, DJ_SHAPE(N));
  dj__rng r = {.key = 1};
  double want = 0;
  for (int i = 0; i < N; i++) {
    ((float *)x.data)[i] = 1000 + dj__rng_uniform(&r, 0, 1);
    want += (double)((float *)x.data)[i];
  }
  const dj_shape shapes[] = {DJ_SHAPE(N), DJ_SHAPE(N, 1), DJ_SHAPE(1024, 1024)};
  for (int k = 0; k < 3; k++) {
    dj__reduce_attr a;
    memset(&a, 0, sizeof a);
    a.axes = k == 0 ? 1 : 3;
    a.scale = 1;
    float sum = 0;
    x.shape = shapes[k];
    dj_tensor y = {.data = &sum, .dtype = DJ_F32, .shape = DJ_SCALAR};
    dj__call c = {.op = DJ__OP_sum, .n_in = 1, .n_out = 1, .in = &x, .out = &y, .attr = &a};
    for (int i = 0; i < N_SETS; i++)
      if (run_on(&c, instruction_sets[i], 2, DJ_OK))
        assert_true(fabs((double)sum - want) < 1e-6 * want);
  }
  free(x.data);
}

/* ---- initial weights ---- */
/* Also where a vector, or a block of two numbers, is not full, and for words of 64 bits. */
static void normal_numbers_are_those_of_the_stream(void **state) {
  (void)state;
  enum { MOST = 3000 };
  static const int64_t counts[] = {1, 2, 7, 16, 17, 1023, 1024, 1025, 2049, MOST};
  const uint64_t key = 0x123456789abcdefu, stream = 0xfedcba9876543210u;
  for (int i = 0; i < N_SETS; i++) {
    const dj__kernels *k = dj__kernels_find(instruction_sets[i]);
    for (size_t s = 0; k && s < sizeof counts / sizeof *counts; s++) {
      float x[MOST + 1];
      x[counts[s]] = 77;
      k->fill_normal(x, counts[s], 0.5f, key, stream, 2);
      dj__rng r = {key, stream, 0};
      for (int64_t j = 0; j < counts[s]; j++)
        assert_true(fabsf(x[j] - 0.5f * dj__rng_normal(&r)) < 2e-6f);
      assert_true(x[counts[s]] == 77);
    }
  }
}

/* ---- elementary functions ---- */
static double sigmoid(double x) {
  return 1 / (1 + exp(-x));
}
static double silu(double x) {
  return x * sigmoid(x);
}
static double gelu(double x) {
  return x * sigmoid(2 * sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x));
}
static double softplus(double x) {
  return log1p(exp(x));
}

static const struct {
  dj__op op;
  double (*exact)(double x);
  double lo, hi, ulp; // arguments from lo to hi, errors up to so many units in the last place
  double least;       // smaller results are as wrong as this may be
} functions[] = {
    {DJ__OP_exp, exp, -87, 88, 1.1, 0},         {DJ__OP_log, log, 1e-37, 1e38, 1, 0},
    {DJ__OP_tanh, tanh, -20, 20, 4, 0},         {DJ__OP_sigmoid, sigmoid, -80, 80, 4, 0},
    {DJ__OP_softplus, softplus, -80, 80, 4, 0}, {DJ__OP_silu, silu, -80, 80, 4, 0},
    {DJ__OP_gelu, gelu, -8, 20, 5, 0.1},        {DJ__OP_sin, sin, -1e7, 1e7, 2, 0.01},
    {DJ__OP_cos, cos, -1e7, 1e7, 2, 0.01},
};

/* Of a result, in units of the last place of what it should be. */
static double error_of(float y, double exact, double least) {
  int exponent;
  (void)frexp(fmax(fabs(exact), least), &exponent);
  return fabs((double)y - exact) / ldexp(1, exponent - 24);
}

static void check_function(size_t f, const char *isa) {
  enum { N = 200000 };
  dj_tensor x = new_tensor(DJ_F32, DJ_SHAPE(N)), y = new_tensor(DJ_F32, DJ_SHAPE(N));
  dj__ewise_attr a = {0, 0};
  dj__call c = {.op = functions[f].op, .n_in = 1, .n_out = 1, .in = &x, .out = &y, .attr = &a};
  const double lo = functions[f].lo, hi = functions[f].hi;
  dj__rng r = {.key = f};
  for (int i = 0; i < N; i++) { // half of them evenly, half by size
    const float even = dj__rng_uniform(&r, 0, 1), size = dj__rng_uniform(&r, -30, 0);
    const double end = i % 4 < 2 ? hi : lo, v = i % 2 ? lo + even * (hi - lo) : end * exp2(size);
    ((float *)x.data)[i] = (float)(v < lo ? lo : v);
  }
  if (run_on(&c, isa, 2, DJ_OK))
    for (int i = 0; i < N; i++) {
      const float at = ((float *)x.data)[i], got = ((float *)y.data)[i];
      const double error = error_of(got, functions[f].exact((double)at), functions[f].least);
      if (!(error <= functions[f].ulp))
        fail_msg("%s, %s: %.9g -> %.9g, %g units off", dj__op_get(c.op)->name, isa, (double)at,
                 (double)got, error);
    }
  free(x.data);
  free(y.data);
}

static void elementary_functions(void **state) {
  (void)state;
  for (size_t f = 0; f < sizeof functions / sizeof *functions; f++)
    for (int i = 0; i < N_SETS; i++) check_function(f, instruction_sets[i]);
}

/* ---- errors ---- */
static void a_bad_index_writes_nothing(void **state) {
  (void)state;
  dj_tensor in[3] = {
      {.shape.rank = -1}, new_tensor(DJ_F32, DJ_SHAPE(900, 64)), new_tensor(DJ_I32, DJ_SHAPE(900))};
  dj_tensor out = new_tensor(DJ_F32, DJ_SHAPE(10, 64));
  for (int i = 0; i < 900; i++) ((int32_t *)in[2].data)[i] = i % 10;
  ((int32_t *)in[2].data)[899] = 10;
  dj__scatter_attr a = {10};
  dj__call c = {.op = DJ__OP_scatter_add, .n_in = 3, .n_out = 1, .in = in, .out = &out, .attr = &a};
  for (int i = 0; i < N_SETS; i++) {
    memset(out.data, 0x55, dj_tensor_bytes(&out));
    if (!run_on(&c, instruction_sets[i], 2, DJ_E_INVALID)) continue;
    assert_non_null(strstr(dj_error_message(), "index 10 at position 899 is outside 0..9"));
    for (size_t k = 0; k < dj_tensor_bytes(&out); k++)
      assert_int_equal(((unsigned char *)out.data)[k], 0x55);
  }
  free(in[1].data);
  free(in[2].data);
  free(out.data);
}

int main(void) {
  dj__worth_threads = 0; // the samples are small: share them out all the same
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(updates_of_many_variables),
      cmocka_unit_test(maxima_of_ties_and_nan),
      cmocka_unit_test(long_sums_are_exact_to_a_millionth),
      cmocka_unit_test(normal_numbers_are_those_of_the_stream),
      cmocka_unit_test(elementary_functions),
      cmocka_unit_test(a_bad_index_writes_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
