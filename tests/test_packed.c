/*
 * Copies of weights in their kernels' layouts: written right by every instruction set, used by
 * every convolution, and never old, whoever has written the variables. Wherever a program with
 * copies is compared to one without, results are equal to the bit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/rng.h"
#include "dojo/ops.h"
#include "dojo/train.h"
#include "engine/packed.h"
#include "program_fixture.h"
#include "root_fixture.h"

/* ---- the kernel ---- */

typedef enum form { PLAIN, TURNED, PAIRS, STRANGE, N_FORMS } form;

/* Blocks of 32 (or 16) rows and columns with padding, as oneDNN's; or something else. */
static dj__layout *layout(form f, int64_t rows, int64_t taps, int64_t cols, dj_dtype t) {
  dj__layout *l = malloc(sizeof *l + (size_t)(rows + taps + cols) * sizeof l->place[0]);
  assert_non_null(l);
  const int32_t r32 = (int32_t)(rows + 31) / 32, c32 = (int32_t)(cols + 31) / 32;
  *l = (dj__layout){.rows = rows,
                    .taps = taps,
                    .cols = cols,
                    .count = (int64_t)r32 * c32 * 1024 * taps,
                    .dtype = t};
  const int32_t word = t == DJ_BF16 ? 2 : 1, block = c32 * 1024, n = (int32_t)cols;
  int32_t *place = l->place;
  for (int32_t r = 0; r < rows; r++)
    *place++ = f == PLAIN    ? r * (int32_t)taps * n
               : f == TURNED ? r / 32 * block * (int32_t)taps + r % 32 * word
               : f == PAIRS  ? r / 32 * block * (int32_t)taps + r % 32 / word * 32 * word + r % word
                             : (r ^ 1) * c32 * 32 * (int32_t)taps;
  for (int32_t k = 0; k < taps; k++)
    *place++ = f == PLAIN ? k * n : k * (f == STRANGE ? c32 * 32 : block);
  for (int32_t c = 0; c < cols; c++)
    *place++ = f == PLAIN    ? c
               : f == TURNED ? c / 32 * 1024 + c % 32 / word * 32 * word + c % word
               : f == PAIRS  ? c / 32 * 1024 + c % 32 * word
                             : c * 7 % n;
  dj__layout_finish(l);
  return l;
}

static void check_layout(const dj__kernels *k, const dj__layout *l) {
  const int64_t row = l->taps * l->cols, n = l->rows * row;
  const size_t bytes = dj__layout_bytes(l);
  float *w = malloc((size_t)n * sizeof *w);
  unsigned char *want = aligned_alloc(64, bytes), *got = aligned_alloc(64, bytes);
  assert_true(w && want && got);
  memset(want, 0xa5, bytes); // what is nobody's place stays as it was
  memset(got, 0xa5, bytes);
  dj__rng r = {.key = (uint64_t)n};
  static const float odd[] = {INFINITY, -NAN, 1e-40f, -0.0f, 3.4e38f, 1.00390625f};
  for (int64_t i = 0; i < n; i++) w[i] = i % 11 ? dj__rng_normal(&r) : odd[i / 11 % 6];
  for (int64_t i = 0; i < n; i++) {
    const int64_t at = l->place[i / row] + l->place[l->rows + i % row / l->cols] +
                       l->place[l->rows + l->taps + i % l->cols];
    if (l->dtype == DJ_F32)
      ((float *)want)[at] = w[i];
    else
      ((uint16_t *)want)[at] = dj_f32_to_bf16(w[i]);
  }
  for (int64_t from = 0, to; from < l->rows; from = to) { // in parts
    to = from + (from ? 2 : 1) * l->unit;
    to = to < l->rows ? to : l->rows;
    k->pack(l, got, w, from, to);
  }
  if (memcmp(want, got, bytes) != 0)
    fail_msg("%s: (%lld, %lld, %lld) as %s is packed wrongly", k->isa, (long long)l->rows,
             (long long)l->taps, (long long)l->cols, dj_dtype_name(l->dtype));
  free(w);
  free(want);
  free(got);
}

static void test_every_layout(void **state) {
  (void)state;
  static const char *const isas[] = {"generic", "avx2", "avx512"};
  static const int64_t shapes[][3] = {{32, 9, 32}, {48, 1, 96}, {16, 2, 16}, {1, 1, 1},
                                      {33, 2, 31}, {24, 4, 6},  {70, 1, 45}, {17, 3, 34}};
  for (int i = 0; i < 3; i++) {
    const dj__kernels *k = dj__kernels_find(isas[i]);
    for (size_t s = 0; k && s < sizeof shapes / sizeof *shapes; s++)
      for (int f = 0; f < 2 * N_FORMS; f++) {
        const int64_t *d = shapes[s];
        if (f / 2 == STRANGE && (d[0] % 2 || d[2] % 7 == 0)) continue; // no two in one place
        dj__layout *l = layout(f / 2, d[0], d[1], d[2], f % 2 ? DJ_F32 : DJ_BF16);
        check_layout(k, l);
        free(l);
      }
  }
}

/* ---- programs ---- */

static const dj_optimizer adamw = {
    .kind = DJ_ADAMW, .weight_decay = 0.02f, .max_norm = 5, .ema = 0.9f};
static const dj_optimizer sgd = {.kind = DJ_SGD, .beta1 = 0.9f};

static dj_val conv(dj_graph *g, const char *name, dj_val x, int64_t out, int kernel,
                   dj_conv2d_args a) {
  const int64_t groups = a.groups ? a.groups : 1, in = dj_val_shape(g, x).dim[3] / groups;
  dj_val w = dj_param(g, name, DJ_SHAPE(out, kernel, kernel, in),
                      dj_init_he((int64_t)kernel * kernel * in));
  return dj_relu(g, dj_conv2d(g, x, w, DJ_NONE, &a));
}

/* Convolutions whose sizes fill blocks and do not, with strides, groups, a transposed one, one
 * weight read by two; matrices. */
static dj_val network(dj_graph *g) {
  dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(3, 18, 20, 3));
  x = conv(g, "stem", x, 32, 5, dj_conv2d_same(5, 2));
  x = conv(g, "wide", x, 64, 3, dj_conv2d_same(3, 1));
  x = conv(g, "down", x, 64, 3, dj_conv2d_same(3, 2));
  dj_val flat = dj_reshape(g, x, DJ_SHAPE(3, 1600)),
         matrix[] = {
             dj_param(g, "matrix", DJ_SHAPE(704, 1600), dj_init_he(1600)), // large: another kernel
             dj_param(g, "small", DJ_SHAPE(8, 704), dj_init_he(704))};
  flat = dj_linear(g, dj_relu(g, dj_linear(g, flat, matrix[0], DJ_NONE)), matrix[1], DJ_NONE);
  x = conv(g, "odd", x, 72, 3, dj_conv2d_same(3, 1));
  x = conv(g, "narrow", x, 40, 3, dj_conv2d_same(3, 1));
  dj_conv2d_args grouped = dj_conv2d_same(3, 1);
  grouped.groups = 2;
  x = conv(g, "groups", x, 32, 3, grouped);
  dj_val w = dj_param(g, "twice", DJ_SHAPE(32, 3, 3, 32), dj_init_he(288));
  const dj_conv2d_args same = dj_conv2d_same(3, 1);
  x = dj_relu(g, dj_conv2d(g, x, w, DJ_NONE, &same));
  x = dj_conv2d(g, x, w, DJ_NONE, &same);
  dj_val up = dj_param(g, "up", DJ_SHAPE(32, 2, 2, 16), dj_init_he(128));
  x = dj_conv_transpose2d(g, x, up, DJ_NONE, &(dj_conv2d_args){.stride_h = 2, .stride_w = 2}, 10,
                          10);
  x = conv(g, "last", x, 5, 1, (dj_conv2d_args){0});
  dj_val loss = dj_add(g, dj_mean(g, dj_square(g, x), DJ_ALL_AXES),
                       dj_mean(g, dj_square(g, flat), DJ_ALL_AXES));
  dj_output(g, "out", loss);
  return loss;
}

typedef enum kind { TRAIN, EVAL, ACCUMULATE } kind;
static dj_program *program(kind k, const dj_optimizer *o, const dj_compile_options *c,
                           dj_vars *vars) {
  dj_graph *g = dj_graph_create();
  dj_val loss = network(g);
  if (k == TRAIN) OK(dj_optimizer_apply(g, loss, o));
  if (k == ACCUMULATE) OK(dj_optimizer_accumulate(g, loss, 2));
  dj_program *p;
  OK(dj_program_compile(g, c, vars, &p));
  dj_graph_destroy(g);
  return p;
}

static float run(dj_program *p, const dj_optimizer *o, uint64_t step) {
  fill_noise(p, step);
  if (o) OK(dj_optimizer_fill(p, o, step, 0.002));
  OK(dj_program_run(p, step));
  return *(const float *)dj_program_output(p, "out")->data;
}

static void assert_same_variables(dj_vars *a, dj_vars *b) {
  assert_int_equal(dj_vars_count(a), dj_vars_count(b));
  for (int i = 0; i < dj_vars_count(a); i++) {
    const dj_var *x = dj_vars_get(a, i), *y = dj_vars_get(b, i);
    if (memcmp(x->tensor.data, y->tensor.data, dj_tensor_bytes(&x->tensor)) != 0)
      fail_msg("'%s' differs", x->name);
  }
}

/* No product lays out weights in a run, and none is rounded by itself. */
static void assert_nothing_laid_out(const dj_program *p) {
  for (int i = 0; i < dj_program_n_nodes(p); i++) {
    dj_node_report r;
    dj_program_node(p, i, &r);
    if (strstr(r.kernel, "through f32")) return; // this processor's oneDNN has no bf16
    if (strncmp(r.op, "conv2d", 6) == 0 && strcmp(r.op, "conv2d_weight") != 0 &&
        strstr(r.kernel, "reorder"))
      fail_msg("%s %s: %s", r.op, r.label, r.kernel);
    if (!strcmp(r.op, "cast") && r.dtype == DJ_BF16) assert_int_equal(r.shape.dim[0], 3); // x
  }
  dj_memory_report m;
  dj_program_memory(p, &m);
  assert_true(m.packed > 0);
}

static void check_training(dj_precision precision, const dj_optimizer *o, const char *isa) {
  enum { STEPS = 5 };
  float loss[2][STEPS];
  dj_vars *vars[2];
  for (int off = 0; off < 2; off++) {
    dj_compile_options c = {
        .precision = precision, .threads = 2, .isa = isa, .passes_off = off ? DJ_PASS_PACK : 0};
    vars[off] = dj_vars_create(3);
    dj_program *p = program(TRAIN, o, &c, vars[off]);
    OK(dj_optimizer_start(vars[off]));
    for (uint64_t s = 0; s < STEPS; s++) loss[off][s] = run(p, o, s);
    if (!off && isa) assert_nothing_laid_out(p); // where all are oneDNN's
    dj_memory_report m;
    dj_program_memory(p, &m);
    if (off) assert_int_equal(m.packed, 0);
    dj_program_destroy(p);
  }
  assert_true(loss[0][STEPS - 1] != loss[0][0]);
  assert_memory_equal(loss[0], loss[1], sizeof loss[0]);
  assert_same_variables(vars[0], vars[1]);
  dj_vars_destroy(vars[0]);
  dj_vars_destroy(vars[1]);
}

static void test_training_is_the_same(void **state) {
  (void)state;
  const char *const best = __builtin_cpu_supports("avx512f") ? "avx512" : NULL;
  for (int i = 0; i < 2; i++) {
    check_training(DJ_PRECISION_BF16, &adamw, i ? NULL : best);
    check_training(DJ_PRECISION_BF16, &sgd, i ? NULL : best);
    check_training(DJ_PRECISION_F32, &adamw, i ? NULL : best);
  }
}

/* A program with copies and one without, of the same variables: both compute the same now. */
typedef struct twins {
  dj_vars *vars;
  dj_program *kept, *plain;
  uint64_t step;
} twins;
static twins twins_of(dj_vars *vars, bool frozen) {
  dj_compile_options c = {.precision = DJ_PRECISION_BF16, .threads = 2, .frozen = frozen};
  twins t = {.vars = vars, .kept = program(EVAL, NULL, &c, vars)};
  c.passes_off = DJ_PASS_PACK;
  c.frozen = false;
  t.plain = program(EVAL, NULL, &c, vars);
  return t;
}
/* The values differ from call to call, unless weights are old. */
static float assert_fresh(twins *t) {
  const float kept = run(t->kept, NULL, 7), plain = run(t->plain, NULL, 7);
  assert_true(kept == plain);
  return kept;
}
static void twins_free(twins *t) {
  dj_program_destroy(t->kept);
  dj_program_destroy(t->plain);
}

static void scale(dj_vars *vars, const char *name, float by) {
  dj_tensor *t = &dj_vars_find(vars, name)->tensor;
  for (int64_t i = 0; i < dj_shape_count(&t->shape); i++) ((float *)t->data)[i] *= by;
}

static void test_writes_from_outside(void **state) {
  (void)state;
  dj_vars *vars = dj_vars_create(1);
  for (int frozen = 0; frozen < 2; frozen++) {
    twins t = twins_of(vars, frozen);
    float before = assert_fresh(&t);
    scale(vars, "wide", 1.5f); // found, then written
    float now = assert_fresh(&t);
    assert_true(now != before);
    float *kept = dj_vars_find(vars, "down")->tensor.data;
    assert_fresh(&t);
    kept[5] += 3; // written later through a pointer that was kept
    dj_vars_changed(vars);
    assert_true(assert_fresh(&t) != now);
    twins_free(&t);
  }
  dj_vars_destroy(vars);
}

static void test_loaded_and_averaged_weights(void **state) {
  (void)state;
  dj_compile_options c = {.precision = DJ_PRECISION_BF16, .threads = 2};
  dj_vars *vars = dj_vars_create(1), *eval = dj_vars_create(2), *loaded = dj_vars_create(3);
  dj_program *p = program(TRAIN, &adamw, &c, vars);
  OK(dj_optimizer_start(vars));
  twins averaged = twins_of(eval, false), resumed = twins_of(loaded, false);
  float last[2] = {assert_fresh(&averaged), assert_fresh(&resumed)};
  for (uint64_t s = 0; s < 4; s++) {
    run(p, &adamw, s);
    OK(dj_vars_copy_for_eval(vars, eval)); // the moving average goes in
    float now = assert_fresh(&averaged);
    assert_true(now != last[0]);
    last[0] = now;
  }
  for (int i = 0; i < dj_vars_count(vars); i++) { // as loading a checkpoint does
    const dj_var *v = dj_vars_get(vars, i);
    dj_var *to;
    OK(dj_vars_add(loaded, v->name, v->kind, v->tensor.shape, dj_init_const(0), &to));
    memcpy(to->tensor.data, v->tensor.data, dj_tensor_bytes(&v->tensor));
  }
  assert_true(assert_fresh(&resumed) != last[1]);
  twins_free(&averaged);
  twins_free(&resumed);
  dj_program_destroy(p);
  dj_vars_destroy(vars);
  dj_vars_destroy(eval);
  dj_vars_destroy(loaded);
}

/* Programs that share variables see what the others' optimisers write. */
static void test_optimisers_of_other_programs(void **state) {
  (void)state;
  dj_compile_options c = {.precision = DJ_PRECISION_BF16, .threads = 2};
  dj_vars *vars = dj_vars_create(1);
  dj_program *a = program(TRAIN, &adamw, &c, vars), *b = program(TRAIN, &adamw, &c, vars);
  OK(dj_optimizer_start(vars));
  twins t = twins_of(vars, false);
  float last = assert_fresh(&t);
  for (uint64_t s = 0; s < 6; s++) { // by turns: each one's copies are old when it runs
    const float want = run(t.plain, NULL, s), got = run(s % 3 ? a : b, &adamw, s);
    assert_true(want == got);
    float now = assert_fresh(&t);
    assert_true(now != last);
    last = now;
  }
  twins_free(&t);
  dj_program_destroy(a);
  dj_program_destroy(b);
  dj_vars_destroy(vars);
}

static void test_accumulation(void **state) {
  (void)state;
  dj_compile_options c = {.precision = DJ_PRECISION_BF16, .threads = 2};
  dj_vars *vars = dj_vars_create(1);
  dj_graph *from = dj_graph_create(), *g = dj_graph_create();
  OK(dj_optimizer_accumulate(from, network(from), 2));
  OK(dj_optimizer_apply_accumulated(g, from, &adamw));
  dj_program *sum = program(ACCUMULATE, NULL, &c, vars), *apply;
  OK(dj_program_compile(g, &c, vars, &apply));
  OK(dj_optimizer_start(vars));
  twins t = twins_of(vars, false);
  for (uint64_t s = 0; s < 6; s++) {
    const float want = run(t.plain, NULL, s), got = run(sum, NULL, s);
    assert_true(want == got);
    if (s % 2 == 0) continue;
    OK(dj_optimizer_fill(apply, &adamw, s / 2, 0.002));
    OK(dj_program_run(apply, s));
    assert_fresh(&t);
  }
  twins_free(&t);
  dj_program_destroy(sum);
  dj_program_destroy(apply);
  dj_graph_destroy(from);
  dj_graph_destroy(g);
  dj_vars_destroy(vars);
}

/* The guard skips an update; searching and timing run kernels out of turn. */
static void test_steps_out_of_turn(void **state) {
  (void)state;
  dj_compile_options c = {.precision = DJ_PRECISION_BF16, .threads = 2};
  dj_vars *vars = dj_vars_create(1);
  dj_program *p = program(TRAIN, &adamw, &c, vars);
  OK(dj_optimizer_start(vars));
  twins t = twins_of(vars, false);
  run(p, &adamw, 0);
  const float before = assert_fresh(&t);
  fill_noise(p, 1);
  ((float *)dj_program_input(p, "x")->data)[0] = INFINITY;
  OK(dj_optimizer_fill(p, &adamw, 1, 0.002));
  OK(dj_program_run(p, 1));
  assert_true(assert_fresh(&t) == before);
  scale(vars, "twice", -2);
  fill_noise(p, 2);
  OK(dj_program_find_nonfinite(p, 2));
  assert_true(*(const float *)dj_program_output(p, "out")->data == run(t.plain, NULL, 2));
  assert_fresh(&t);
  for (int i = 0; i < dj_program_n_nodes(p); i++) {
    dj_node_report r;
    double seconds;
    dj_program_node(p, i, &r);
    const char *isa = i % 2 ? "generic" : NULL;
    if (!strcmp(r.op, "adamw") || !strcmp(r.op, "conv2d"))
      OK(dj_program_time_alone(p, i, isa, 0, &seconds));
  }
  assert_fresh(&t);
  assert_true(run(t.plain, NULL, 3) == run(p, &adamw, 3));
  twins_free(&t);
  dj_program_destroy(p);
  dj_vars_destroy(vars);
}

/* Variables that others than optimisers write are laid out in each run. */
static void test_assigned_weights(void **state) {
  (void)state;
  float out[2][3];
  for (int off = 0; off < 2; off++) {
    dj_graph *g = dj_graph_create();
    dj_val loss = network(g);
    OK(dj_graph_backward(g, loss));
    for (int i = 0; i < dj_graph_n_params(g); i++)
      dj_accumulate(g, dj_graph_param(g, i), dj_grad(g, dj_graph_param(g, i)), -0.01f);
    dj_vars *vars = dj_vars_create(1);
    dj_program *p;
    dj_compile_options c = {.precision = DJ_PRECISION_BF16, .passes_off = off ? DJ_PASS_PACK : 0};
    OK(dj_program_compile(g, &c, vars, &p));
    for (uint64_t s = 0; s < 3; s++) out[off][s] = run(p, NULL, 0);
    dj_program_destroy(p);
    dj_graph_destroy(g);
    dj_vars_destroy(vars);
  }
  assert_true(out[0][0] != out[0][1] && out[0][1] != out[0][2]);
  assert_memory_equal(out[0], out[1], sizeof out[0]);
}

/* Copies that share memory with values take less of it, matrices' copies among them. */
static void test_copies_share_memory(void **state) {
  (void)state;
  dj_compile_options c = {.precision = DJ_PRECISION_BF16, .threads = 2};
  dj_memory_report m[2];
  const size_t few = dj__few_copies;
  for (int i = 0; i < 2; i++) {
    dj__few_copies = i ? 0 : 64 << 20;
    dj_vars *vars = dj_vars_create(3);
    dj_program *p = program(TRAIN, &adamw, &c, vars);
    dj_program_memory(p, &m[i]);
    dj_program_destroy(p);
    dj_vars_destroy(vars);
  }
  dj__few_copies = few;
  assert_int_equal(m[1].packed, m[0].packed);
  assert_true(m[1].arena < m[0].arena);
}

/* A table of many words, read by a product and by the gradient of its inputs: both read copies. */
static void test_large_tables(void **state) {
  (void)state;
  enum { WORDS = 33000, WIDTH = 512, ROWS = 1024 };
  dj_graph *g = dj_graph_create();
  dj_val table = dj_param(g, "table", DJ_SHAPE(WORDS, WIDTH), dj_init_normal(0.02f)),
         first = dj_param(g, "first", DJ_SHAPE(WIDTH, WIDTH), dj_init_normal(0.02f));
  dj_val x = dj_linear(g, dj_input(g, "x", DJ_F32, DJ_SHAPE(ROWS, WIDTH)), first, DJ_NONE);
  dj_val y = dj_linear(g, dj_relu(g, x), table, DJ_NONE);
  OK(dj_optimizer_apply(g, dj_mean(g, dj_mul(g, y, y), DJ_ALL_AXES), &adamw));
  dj_vars *vars = dj_vars_create(1);
  dj_program *p;
  OK(dj_program_compile(g, &(dj_compile_options){.precision = DJ_PRECISION_BF16}, vars, &p));
  int readers = 0;
  for (int i = 0; i < dj_program_n_nodes(p); i++) {
    dj_node_report r;
    dj_program_node(p, i, &r);
    const bool reads = !strcmp(r.op, "matmul") && r.shape.dim[0] == ROWS; // not weights' gradients
    readers += reads && !strcmp(r.kernel, "amx");
  }
  dj_memory_report m;
  dj_program_memory(p, &m);
  if (readers == 3) assert_true(m.packed >= (2 * WORDS + WIDTH) * (size_t)WIDTH * 2);
  dj_program_destroy(p);
  dj_vars_destroy(vars);
  dj_graph_destroy(g);
  if (readers != 3) skip(); // no such kernels on this processor
}

static int sharing(void **state) {
  (void)state;
  dj__worth_threads = 1; // small updates are shared out, too
  dj__few_copies = 0;    // as in large networks
  return 0;
}
static int share_all(void **state) {
  (void)state;
  dj__worth_threads = 1; // small updates are shared out, too
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_layout),
      cmocka_unit_test(test_large_tables),
      cmocka_unit_test(test_training_is_the_same),
      cmocka_unit_test(test_writes_from_outside),
      cmocka_unit_test(test_loaded_and_averaged_weights),
      cmocka_unit_test(test_optimisers_of_other_programs),
      cmocka_unit_test(test_accumulation),
      cmocka_unit_test(test_steps_out_of_turn),
      cmocka_unit_test(test_assigned_weights),
      cmocka_unit_test(test_copies_share_memory),
  };
  int failed = cmocka_run_group_tests_name("copies apart", tests, share_all, NULL);
  return failed + cmocka_run_group_tests_name("copies that share memory", tests, sharing, NULL);
}
