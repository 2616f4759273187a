/*
 * Every CPU kernel against the reference, on every sample of the op table: each instruction set the
 * processor has, f32 and bf16, one to three threads. Outputs start as NaN, so that an element left
 * out shows; guards behind every tensor catch writes past the end; two runs must agree to the bit,
 * and our own kernels on any number of threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "backend/cpu/cpu.h"
#include "engine/backend.h"
#include "op_fixture.h"

static const char *const instruction_sets[] = {"generic", "avx2", "avx512", "amx"};

static struct { int compared, skipped, failed; } count;

/* Which float tensors are bf16. */
typedef struct variant {
  const char *name;
  uint32_t in;  // mask of inputs
  uint32_t out; // 0: as the shape rule says, 1: output 0 is f32, 2: it is bf16
} variant;

static const dj__backend *cpu;

static void clear_outputs(const fixture *f) {
  for (int k = 0; k < f->call.n_out; k++) // NaN in f32 and bf16, absurd in i32
    memset(f->out[k].data, 0xff, dj_tensor_bytes(&f->out[k]));
}

static double largest(const dj_tensor *t) {
  double m = 0;
  for (int64_t i = 0, n = dj_shape_count(&t->shape); i < n; i++)
    m = fmax(m, fabs(fixture_get(t, i)));
  return m;
}

/* Worst error of a against the truth b in units of what is allowed; its position in *at. */
static double worst_error(const dj_tensor *a, const dj_tensor *b, double tolerance, int64_t *at) {
  double worst = 0, scale = largest(b);
  for (int64_t i = 0, n = dj_shape_count(&b->shape); i < n; i++) {
    double x = fixture_get(a, i), y = fixture_get(b, i), allowed = tolerance * scale;
    if (a->dtype == DJ_BF16) allowed += fabs(y) * 0x1p-8; // a rounding, or one on each of two sides
    if (a->dtype == DJ_I32 || a->dtype == DJ_U8) allowed = 0;
    if (x == y || (isnan(x) && isnan(y))) continue;
    double e = fabs(x - y) <= allowed ? 0.5 : allowed > 0 ? fabs(x - y) / allowed : INFINITY;
    if (isnan(e)) e = INFINITY;
    if (e > worst) {
      worst = e;
      *at = i;
    }
  }
  return worst;
}

static void complain(const char *what, const fixture *f, const dj__sample *s, const char *setting,
                     const char *kernel) {
  count.failed++;
  print_message("%s, sample '%s', %s, kernel %s: %s\n", dj__op_get(f->call.op)->name, s->label,
                setting, kernel ? kernel : "?", what);
}

/* Compares tensors that the op writes. */
static void compare_tensors(const fixture *got, const char *what, const dj_tensor *a,
                            const dj_tensor *b, int n, const dj__sample *s, const char *setting,
                            const char *kernel) {
  for (int k = 0; k < n; k++) {
    if (a[k].shape.rank < 0) continue;
    int64_t at = 0;
    double tolerance = s->tolerance > 0 ? (double)s->tolerance : 1e-5;
    // an epilogue may run on the product as rounded to bf16, and its sum with the bias may cancel;
    // the probabilities of attention may be rounded, too
    const dj__op op = got->call.op;
    const bool attention = op == DJ__OP_attention || op == DJ__OP_attention_grad;
    if (dj__op_get(op)->flags & DJ__COMPUTE && a[k].dtype == DJ_BF16)
      tolerance += attention ? 0x1p-8 : 0x1p-9;
    double e = worst_error(&a[k], &b[k], tolerance, &at);
    if (e <= 1) continue;
    char text[160];
    (void)snprintf(text, sizeof text, "%s %d element %lld is %.9g, reference %.9g", what, k,
                   (long long)at, fixture_get(&a[k], at), fixture_get(&b[k], at));
    complain(text, got, s, setting, kernel);
  }
}

/* All of them: outputs, and for updates the inputs. */
static void compare(const fixture *got, const fixture *truth, const dj__sample *s,
                    const char *setting, const char *kernel) {
  if (dj__op_get(got->call.op)->flags & DJ__EFFECT)
    compare_tensors(got, "input", got->in, truth->in, got->call.n_in, s, setting, kernel);
  compare_tensors(got, "output", got->out, truth->out, got->call.n_out, s, setting, kernel);
}

static void check_guards(const fixture *f, const dj__sample *s, const char *setting,
                         const char *kernel) {
  for (int i = 0; i < f->call.n_in; i++)
    if (f->in[i].data && !fixture_guard_whole(f->in[i].data, dj_tensor_bytes(&f->in[i])))
      complain("writes behind an input", f, s, setting, kernel);
  for (int k = 0; k < f->call.n_out; k++)
    if (!fixture_guard_whole(f->out[k].data, dj_tensor_bytes(&f->out[k])))
      complain("writes behind an output", f, s, setting, kernel);
}

/* A digest of everything the op may have written. */
static uint64_t digest(const fixture *f) {
  uint64_t h = 0;
  for (int i = 0; i < f->call.n_in; i++)
    if (f->in[i].data) h = dj__hash64(f->in[i].data, dj_tensor_bytes(&f->in[i]), h);
  for (int k = 0; k < f->call.n_out; k++)
    h = dj__hash64(f->out[k].data, dj_tensor_bytes(&f->out[k]), h);
  return h;
}

/* The inputs as they were made; updates write theirs. */
typedef struct pristine {
  unsigned char *data[DJ__SAMPLE_IN];
} pristine;

static pristine keep_inputs(const fixture *f) {
  pristine p = {{NULL}};
  for (int i = 0; i < f->call.n_in; i++) {
    size_t bytes = f->in[i].data ? dj_tensor_bytes(&f->in[i]) : 0;
    p.data[i] = fixture_alloc(bytes);
    if (bytes) memcpy(p.data[i], f->in[i].data, bytes);
  }
  return p;
}

static void refill(const fixture *f, const pristine *p) {
  for (int i = 0; i < f->call.n_in; i++)
    if (f->in[i].data) memcpy(f->in[i].data, p->data[i], dj_tensor_bytes(&f->in[i]));
  clear_outputs(f);
}

/* Runs one kernel in one setting, twice, and compares with the truth. A kernel of our own must give
 * the bytes *of_one that it gave on one thread. */
static void check_kernel(fixture *f, const pristine *inputs, const fixture *truth,
                         const dj__sample *s, const char *isa, int threads, const char *name,
                         uint64_t *of_one) {
  char setting[96];
  (void)snprintf(setting, sizeof setting, "%s, %s, %d threads", name, isa, threads);
  dj__backend_options o = {.threads = threads, .isa = isa};
  f->call.threads = threads;
  dj__call empty = f->call; // the question is asked without data
  dj_tensor in[DJ__SAMPLE_IN], out[DJ__MAX_OUT];
  memcpy(in, f->in, sizeof in);
  memcpy(out, f->out, sizeof out);
  for (int i = 0; i < DJ__SAMPLE_IN; i++) in[i].data = NULL;
  for (int k = 0; k < DJ__MAX_OUT; k++) out[k].data = NULL;
  empty.in = in;
  empty.out = out;
  if (!cpu->supports(&empty, &o)) {
    count.skipped++;
    return;
  }
  dj__kernel k = {0};
  if (cpu->create(&empty, &o, &k)) {
    complain(dj_error_message(), f, s, setting, NULL);
    return;
  }
  unsigned char *workspace = fixture_alloc(k.workspace);
  memset(workspace, 0xff, k.workspace);
  f->call.workspace = workspace;
  uint64_t first = 0;
  for (int run = 0; run < 2; run++) {
    refill(f, inputs);
    dj_status st = k.run(&f->call, k.self);
    if (st) {
      complain(dj_error_message(), f, s, setting, k.name);
      break;
    }
    if (run == 0) {
      first = digest(f);
      compare(f, truth, s, setting, k.name);
      if (threads == 1)
        *of_one = first;
      else if (!strcmp(k.name, isa) && first != *of_one)
        complain("depends on the number of threads", f, s, setting, k.name);
    } else if (digest(f) != first) {
      complain("two runs differ", f, s, setting, k.name);
    }
  }
  check_guards(f, s, setting, k.name);
  if (!fixture_guard_whole(workspace, k.workspace))
    complain("writes behind its workspace", f, s, setting, k.name);
  count.compared++;
  if (k.destroy) k.destroy(k.self);
  free(workspace);
}

static bool isa_here(const char *isa) {
  fixture f;
  const dj__op_def *def = dj__op_get(DJ__OP_add);
  if (fixture_shape(&f, DJ__OP_add, &def->samples[0], 0)) return false;
  return cpu->supports(&f.call, &(dj__backend_options){.threads = 1, .isa = isa});
}

static void check_variant(dj__op op, const dj__sample *s, const variant *v) {
  const dj__op_def *def = dj__op_get(op);
  fixture f, truth;
  if (fixture_shape(&f, op, s, v->in)) {
    if (!v->in) { // a sample must be valid as it is; mixes of dtypes need not
      f.call.op = op;
      complain(dj_error_message(), &f, s, "shape rule", NULL);
    }
    return;
  }
  if (v->out && f.call.n_out && (f.out[0].dtype == DJ_F32 || f.out[0].dtype == DJ_BF16))
    f.out[0].dtype = v->out == 2 ? DJ_BF16 : DJ_F32;
  fixture_make(&f, def, s);
  fixture_widen(&truth, &f);
  dj_status st = def->ref(&truth.call);
  if (st) complain(dj_error_message(), &f, s, "reference", NULL);
  pristine inputs = keep_inputs(&f);
  for (size_t i = 0; !st && i < sizeof instruction_sets / sizeof *instruction_sets; i++) {
    uint64_t of_one = 0;
    for (int threads = 1; threads <= 3 && isa_here(instruction_sets[i]); threads++)
      check_kernel(&f, &inputs, &truth, s, instruction_sets[i], threads, v->name, &of_one);
  }
  for (int i = 0; i < DJ__SAMPLE_IN; i++) free(inputs.data[i]);
  fixture_free(&f);
  fixture_free(&truth);
}

static void check_op(dj__op op) {
  const dj__op_def *def = dj__op_get(op);
  for (int i = 0; i < def->n_samples; i++) {
    const dj__sample *s = &def->samples[i];
    if (s->bench) continue;
    check_variant(op, s, &(variant){"f32", 0, 0});
    if (def->follow) check_variant(op, s, &(variant){"bf16", def->follow, 0});
    if (!(def->flags & (DJ__FOLLOW | DJ__COMPUTE))) continue;
    check_variant(op, s, &(variant){"bf16 in, f32 out", def->follow, 1});
    check_variant(op, s, &(variant){"bf16 in, bf16 out", def->follow, 2});
    if (!(def->flags & DJ__EWISE) && op != DJ__OP_fused) continue;
    check_variant(op, s, &(variant){"f32 in, bf16 out", 0, 2});
    check_variant(op, s, &(variant){"first input bf16", 1, 0});
    check_variant(op, s, &(variant){"all but the first bf16", ~1u, 2});
  }
}

static void test_every_kernel(void **state) {
  (void)state;
  cpu = dj__backend_find("cpu");
  assert_non_null(cpu);
  assert_true(isa_here("generic"));
  for (int op = 0; op < DJ__N_OPS; op++) {
    int before = count.compared;
    check_op((dj__op)op);
    if (count.compared == before && !(dj__op_get((dj__op)op)->flags & (DJ__SOURCE | DJ__VIEW)))
      print_message("%s: no kernel of its own, runs on the reference\n",
                    dj__op_get((dj__op)op)->name);
  }
  print_message("%d kernels compared with the reference, %d settings without a kernel, %d "
                "failures\n",
                count.compared, count.skipped, count.failed);
  assert_int_equal(count.failed, 0);
  assert_true(count.compared > 1000);
}

/* An index out of range is an error with the op, the index and its place, on every kernel. */
static void check_index_error(dj__op op, int input, int32_t bad, const char *expect) {
  const dj__op_def *def = dj__op_get(op);
  const dj__sample *s = &def->samples[def->n_samples > 2 ? 2 : 0];
  fixture f;
  assert_int_equal(fixture_shape(&f, op, s, 0), DJ_OK);
  fixture_make(&f, def, s);
  ((int32_t *)f.in[input].data)[2] = bad;
  assert_int_equal(def->ref(&f.call), DJ_E_INVALID);
  assert_non_null(strstr(dj_error_message(), expect));
  for (size_t i = 0; i < sizeof instruction_sets / sizeof *instruction_sets; i++) {
    dj__backend_options o = {.threads = 2, .isa = instruction_sets[i]};
    dj__kernel k = {0};
    f.call.threads = 2;
    if (!isa_here(o.isa) || !cpu->supports(&f.call, &o)) continue;
    assert_int_equal(cpu->create(&f.call, &o, &k), DJ_OK);
    f.call.workspace = fixture_alloc(k.workspace);
    assert_int_equal(k.run(&f.call, k.self), DJ_E_INVALID);
    assert_non_null(strstr(dj_error_message(), expect));
    free(f.call.workspace);
    if (k.destroy) k.destroy(k.self);
  }
  fixture_free(&f);
}

static void test_bad_indices(void **state) {
  (void)state;
  cpu = dj__backend_find("cpu");
  check_index_error(DJ__OP_gather, 1, 3, "gather: index 3 at position 2 is outside 0..2");
  check_index_error(DJ__OP_gather, 1, -1, "gather: index -1 at position 2");
  check_index_error(DJ__OP_scatter_add, 2, 1 << 30, "scatter_add: index 1073741824 at position 2");
  check_index_error(DJ__OP_cross_entropy, 1, 7, "cross_entropy: label 7 of row 2");
  check_index_error(DJ__OP_cross_entropy_grad, 1, 7, "cross_entropy_grad: label 7 of row 2");
}

int main(void) {
  dj__worth_threads = 0; // the samples are small: share them out all the same
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_kernel),
      cmocka_unit_test(test_bad_indices),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
