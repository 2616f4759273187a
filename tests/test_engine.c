/*
 * The engine as a whole: errors while building, passes on and off, memory plan, determinism, bf16
 * beside f32, the search for non-finite values, variables shared by programs, and no allocation
 * while running. One small network exercises most op families; random graphs do the rest.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "dojo/ops.h"
#include "dojo/train.h"
#include "engine/passes/passes.h"
#include "op_fixture.h"
#include "program_fixture.h"

static void assert_message(const char *part) {
  if (!strstr(dj_error_message(), part))
    fail_msg("message '%s' lacks '%s'", dj_error_message(), part);
}

/* ---- allocations of the whole process, libraries included ---- */

static volatile int64_t allocations, large_allocations, frees;
enum { LARGE = 4096 };
static void count_one(size_t n) {
  __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
  if (n >= LARGE) __atomic_add_fetch(&large_allocations, 1, __ATOMIC_RELAXED);
}
static void count_free(const void *p) {
  if (p) __atomic_add_fetch(&frees, 1, __ATOMIC_RELAXED);
}
#ifdef __SANITIZE_ADDRESS__
int __sanitizer_install_malloc_and_free_hooks(void (*m)(const volatile void *, size_t),
                                              void (*f)(const volatile void *));
static void on_malloc(const volatile void *p, size_t n) {
  (void)p;
  count_one(n);
}
static void on_free(const volatile void *p) {
  count_free((const void *)p);
}
static void count_allocations(void) {
  static bool installed;
  if (!installed) (void)__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
  installed = true;
}
#else
extern void *__libc_malloc(size_t n), *__libc_calloc(size_t n, size_t size),
    *__libc_realloc(void *p, size_t n), *__libc_memalign(size_t align, size_t n);
extern void __libc_free(void *p);
void *malloc(size_t n) {
  count_one(n);
  return __libc_malloc(n);
}
void *calloc(size_t n, size_t size) {
  count_one(n * size);
  return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n) {
  count_one(n);
  count_free(p);
  return __libc_realloc(p, n);
}
void free(void *p) {
  count_free(p);
  __libc_free(p);
}
void *aligned_alloc(size_t align, size_t n) {
  count_one(n);
  return __libc_memalign(align, n);
}
void *memalign(size_t align, size_t n) {
  count_one(n);
  return __libc_memalign(align, n);
}
int posix_memalign(void **p, size_t align, size_t n) {
  count_one(n);
  *p = __libc_memalign(align, n);
  return *p ? 0 : ENOMEM;
}
static void count_allocations(void) {}
#endif

/* ---- a small network with most op families in it ---- */

enum { BATCH = 6, SIDE = 12, CLASSES = 5, WORDS = 11 };

static dj_val conv_block(dj_graph *g, const char *name, dj_val x, int channels, int stride,
                         bool training) {
  dj_graph_push(g, "%s", name);
  int64_t in = dj_val_shape(g, x).dim[3];
  dj_val w = dj_param(g, "weight", DJ_SHAPE(channels, 3, 3, in), dj_init_he(9 * in));
  dj_conv2d_args args = dj_conv2d_same(3, stride);
  dj_val y = dj_conv2d(g, x, w, DJ_NONE, &args);
  y = dj_batch_norm(g, y, dj_param(g, "scale", DJ_SHAPE(channels), dj_init_const(1)),
                    dj_param(g, "shift", DJ_SHAPE(channels), dj_init_const(0)),
                    dj_state(g, "mean", DJ_SHAPE(channels), dj_init_const(0)),
                    dj_state(g, "var", DJ_SHAPE(channels), dj_init_const(1)), training, 0.1f,
                    1e-5f);
  y = dj_silu(g, y);
  dj_graph_pop(g);
  return y;
}

static dj_val dense(dj_graph *g, const char *name, dj_val x, int outputs) {
  dj_shape s = dj_val_shape(g, x);
  int64_t in = s.dim[s.rank - 1];
  dj_graph_push(g, "%s", name);
  dj_val w = dj_param(g, "weight", DJ_SHAPE(outputs, in), dj_init_he(in));
  dj_val y = dj_linear(g, x, w, dj_param(g, "bias", DJ_SHAPE(outputs), dj_init_uniform(0.1f)));
  dj_graph_pop(g);
  return y;
}

/* Rows of an embedding and of image features, mixed by attention over the batch. */
static dj_val mixed(dj_graph *g, dj_val features) {
  dj_graph_push(g, "mix");
  dj_val words = dj_input(g, "words", DJ_I32, DJ_SHAPE(BATCH));
  dj_val table = dj_param(g, "table", DJ_SHAPE(WORDS, 16), dj_init_normal(0.5f));
  dj_val x = dj_concat(g, (dj_val[]){features, dj_gather(g, table, words)}, 2, 1); // (B, 32)
  x = dj_layer_norm(g, x, dj_param(g, "scale", DJ_SHAPE(32), dj_init_const(1)),
                    dj_param(g, "shift", DJ_SHAPE(32), dj_init_const(0)), 1e-5f);
  dj_val q[3];
  static const char *const names[] = {"q", "k", "v"};
  for (int i = 0; i < 3; i++) // (1, 2, B, 16)
    q[i] = dj_transpose(g, dj_reshape(g, dense(g, names[i], x, 32), DJ_SHAPE(1, BATCH, 2, 16)),
                        (int[]){0, 2, 1, 3});
  dj_val y = dj_attention(g, q[0], q[1], q[2], true, 0);
  y = dj_reshape(g, dj_transpose(g, y, (int[]){0, 2, 1, 3}), DJ_SHAPE(BATCH, 32));
  dj_graph_pop(g);
  return dj_add(g, x, dj_dropout(g, y, 0.1f));
}

/* Loss of the network; outputs "loss", "logits", "pose". */
static dj_val network(dj_graph *g, bool training) {
  dj_val image = dj_input(g, "image", DJ_U8, DJ_SHAPE(BATCH, SIDE, SIDE, 3));
  dj_val x = dj_affine(g, dj_cast(g, image, DJ_F32), 1.0f / 128, -1);
  x = conv_block(g, "stem", dj_space_to_depth(g, x, 2), 8, 1, training);
  x = conv_block(g, "down", x, 16, 2, training);
  dj_val skip = x;
  x = dj_add(g, conv_block(g, "block", x, 16, 1, training), skip);
  dj_val f = mixed(g, dj_global_avg_pool(g, x)); // (B, 32)
  f = dj_gelu(g, dense(g, "hidden", f, 24));
  dj_graph_push(g, "heads");
  dj_val logits = dense(g, "class", f, CLASSES), pose = dense(g, "pose", f, 4);
  dj_val labels = dj_input(g, "labels", DJ_I32, DJ_SHAPE(BATCH));
  dj_val target = dj_input(g, "target", DJ_F32, DJ_SHAPE(BATCH, 2));
  dj_val mu = dj_tanh(g, dj_slice(g, pose, 1, 0, 2));
  dj_val log_b = dj_clamp(g, dj_slice(g, pose, 1, 2, 2), -4, 4);
  dj_val nll = dj_mean(g, dj_laplace_nll(g, mu, log_b, target), DJ_ALL_AXES);
  dj_val loss = dj_add(g, dj_mean(g, dj_cross_entropy(g, logits, labels), DJ_ALL_AXES), nll);
  dj_graph_pop(g);
  dj_output(g, "logits", logits);
  dj_output(g, "pose", pose);
  return loss;
}

/* Adam divides by the gradient's size: where that is zero in theory (a bias before a softmax) it
 * makes steps of rounding noise. What is compared to rounding is trained with SGD. */
static const dj_optimizer sgd = {.kind = DJ_SGD, .beta1 = 0.9f, .max_norm = 1};
static const dj_optimizer adamw = {
    .kind = DJ_ADAMW, .weight_decay = 0.01f, .max_norm = 1, .ema = 0.99f};

static dj_graph *training_graph_with(const dj_optimizer *o) {
  dj_graph *g = dj_graph_create();
  OK(dj_optimizer_apply(g, network(g, true), o));
  OK(dj_graph_status(g));
  return g;
}
static dj_graph *training_graph(void) {
  return training_graph_with(&adamw);
}

static void fill_inputs(dj_program *p, uint64_t step) {
  dj__rng r = {.key = 3, .stream = step};
  dj_tensor *image = dj_program_input(p, "image"), *words = dj_program_input(p, "words"),
            *labels = dj_program_input(p, "labels"), *target = dj_program_input(p, "target");
  for (int i = 0; i < BATCH; i++) {
    int class = (int)dj__rng_below(&r, CLASSES);
    ((int32_t *)labels->data)[i] = i == 2 ? -1 : class; // one row has no label
    ((int32_t *)words->data)[i] = class + (int)dj__rng_below(&r, WORDS - CLASSES);
    for (int k = 0; k < SIDE * SIDE * 3; k++)
      ((uint8_t *)image->data)[i * SIDE * SIDE * 3 + k] =
          (uint8_t)(class * 40 + (int)dj__rng_below(&r, 40));
    for (int k = 0; k < 2; k++) ((float *)target->data)[i * 2 + k] = (float)class * 0.2f - 0.5f;
  }
}

typedef struct trace {
  dj_vars *vars;
  float loss[40];
  dj_memory_report memory;
} trace;

static void train_with(dj_program *p, const dj_optimizer *o, int from, int to, float *loss) {
  for (int s = from; s < to; s++) {
    fill_inputs(p, (uint64_t)s);
    OK(dj_optimizer_fill(p, o, (uint64_t)s, o->kind == DJ_SGD ? 0.02 : 5e-3));
    OK(dj_program_run(p, (uint64_t)s));
    if (loss) loss[s] = *(const float *)dj_program_output(p, "loss")->data;
  }
}

static void train(dj_program *p, int from, int to, float *loss) {
  train_with(p, &adamw, from, to, loss);
}

/* Trains `steps` steps from the same start under the given options. */
static trace trained_with(const dj_optimizer *optimizer, const dj_compile_options *o, int steps) {
  trace t = {.vars = dj_vars_create(1)};
  dj_graph *g = training_graph_with(optimizer);
  dj_program *p;
  OK(dj_program_compile(g, o, t.vars, &p));
  dj_graph_destroy(g); // the program lives on without it
  OK(dj_optimizer_start(t.vars));
  train_with(p, optimizer, 0, steps, t.loss);
  dj_program_memory(p, &t.memory);
  dj_program_destroy(p);
  return t;
}
static trace trained(const dj_compile_options *o, int steps) {
  return trained_with(&adamw, o, steps);
}

/* ---- errors while building ---- */

static void test_errors_name_the_place(void **state) {
  (void)state;
  dj_graph *g = dj_graph_create();
  dj_val a = dj_input(g, "a", DJ_F32, DJ_SHAPE(3, 4)), b = dj_input(g, "b", DJ_F32, DJ_SHAPE(5, 6));
  dj_graph_push(g, "head");
  dj_graph_push(g, "fc%d", 7);
  assert_int_equal(dj_matmul(g, a, b, false, false), DJ_NONE);
  dj_graph_pop(g);
  dj_graph_pop(g);
  assert_int_equal(dj_graph_status(g), DJ_E_INVALID);
  assert_message("matmul");
  assert_message("(3, 4)");
  assert_message("(5, 6)");
  assert_message("head/fc7");
  assert_message("K is 4 in a and 5 in b");
  // the first error stays, and nothing is made after it
  assert_int_equal(dj_add(g, a, a), DJ_NONE);
  assert_int_equal(dj_reshape(g, a, DJ_SHAPE(7)), DJ_NONE);
  (void)dj_error(DJ_E_IO, "something else in between");
  assert_int_equal(dj_graph_status(g), DJ_E_INVALID);
  assert_message("head/fc7");
  dj_program *p;
  assert_int_equal(dj_program_compile(g, NULL, NULL, &p), DJ_E_INVALID);
  assert_null(p);
  dj_graph_destroy(g);
}

typedef dj_val mistake(dj_graph *g, dj_val x); // x (3, 4) f32
static dj_val bad_broadcast(dj_graph *g, dj_val x) {
  return dj_add(g, x, dj_input(g, "y", DJ_F32, DJ_SHAPE(3)));
}
static dj_val bad_dtype(dj_graph *g, dj_val x) {
  return dj_mul(g, x, dj_input(g, "y", DJ_I32, DJ_SHAPE(4)));
}
static dj_val bad_loss(dj_graph *g, dj_val x) {
  return dj_l1(g, x, dj_input(g, "y", DJ_F32, DJ_SHAPE(4)));
}
static dj_val bad_reshape(dj_graph *g, dj_val x) {
  return dj_reshape(g, x, DJ_SHAPE(5, -1));
}
static dj_val bad_reshape_huge(dj_graph *g, dj_val x) {
  return dj_reshape(g, x, DJ_SHAPE(INT64_MAX, INT64_MAX, 12));
}
static dj_val bad_broadcast_huge(dj_graph *g, dj_val x) {
  return dj_broadcast(g, x, DJ_SHAPE((int64_t)1 << 62, 3, 4));
}
static dj_val bad_outer(dj_graph *g, dj_val x) { // 2^80 elements by broadcasting
  dj_val a = dj_broadcast(g, dj_sum(g, x, DJ_ALL_AXES), DJ_SHAPE((int64_t)1 << 40, 1));
  return dj_add(g, a, dj_broadcast(g, dj_sum(g, x, DJ_ALL_AXES), DJ_SHAPE((int64_t)1 << 40)));
}
static dj_val bad_slice(dj_graph *g, dj_val x) {
  return dj_slice(g, x, 1, 3, INT64_MAX);
}
static dj_val bad_axis(dj_graph *g, dj_val x) {
  return dj_sum(g, x, 1u << 2);
}
static dj_val bad_perm(dj_graph *g, dj_val x) {
  return dj_transpose(g, x, (int[]){0, 0});
}
static dj_val bad_pad(dj_graph *g, dj_val x) {
  return dj_pad(g, x, 0, INT64_MAX, INT64_MAX, 0);
}
static dj_val bad_concat(dj_graph *g, dj_val x) {
  return dj_concat(g, (dj_val[]){x, dj_input(g, "y", DJ_F32, DJ_SHAPE(3, 4, 1))}, 2, 0);
}
static dj_val bad_index(dj_graph *g, dj_val x) {
  return dj_gather(g, x, dj_input(g, "y", DJ_F32, DJ_SHAPE(3)));
}
static dj_val bad_bias(dj_graph *g, dj_val x) {
  return dj_linear(g, x, dj_input(g, "w", DJ_F32, DJ_SHAPE(5, 4)),
                   dj_input(g, "b", DJ_F32, DJ_SHAPE(4)));
}
static dj_val bad_clamp(dj_graph *g, dj_val x) {
  return dj_clamp(g, x, 1, 0);
}
static dj_val bad_name(dj_graph *g, dj_val x) {
  (void)x;
  return dj_input(g, "x", DJ_F32, DJ_SHAPE(1));
}
static dj_val bad_dimension(dj_graph *g, dj_val x) {
  (void)x;
  return dj_input(g, "y", DJ_F32, DJ_SHAPE(3, 0));
}
static dj_val bad_labels(dj_graph *g, dj_val x) {
  return dj_cross_entropy(g, x, dj_input(g, "y", DJ_I32, DJ_SHAPE(4)));
}

static void test_every_mistake_is_told(void **state) {
  (void)state;
  const struct {
    mistake *make;
    const char *says;
  } cases[] = {{bad_broadcast, "add: shapes do not broadcast"},
               {bad_dtype, "mul: input 1 must be f32 or bf16, it is i32; use dj_cast"},
               {bad_loss, "l1: operands must have equal shapes, got (3, 4) and (4)"},
               {bad_reshape, "reshape"},
               {bad_reshape_huge, "reshape"},
               {bad_broadcast_huge, "broadcast"},
               {bad_outer, "add"},
               {bad_slice, "slice"},
               {bad_axis, "sum: axis mask 0x4"},
               {bad_perm, "transpose: entry 1 of the permutation is 0"},
               {bad_pad, "pad"},
               {bad_concat, "concat: input 1 does not fit"},
               {bad_index, "gather: indices must be i32"},
               {bad_bias, "linear: bias must have shape (5)"},
               {bad_clamp, "clamp: needs lo <= hi"},
               {bad_name, "input 'x' is there already"},
               {bad_dimension, "dimensions must be positive"},
               {bad_labels, "cross_entropy: labels must be i32 of shape (3)"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    dj_graph *g = dj_graph_create();
    dj_val v = cases[i].make(g, dj_input(g, "x", DJ_F32, DJ_SHAPE(3, 4)));
    assert_int_equal(v, DJ_NONE);
    assert_int_equal(dj_graph_status(g), DJ_E_INVALID);
    assert_message(cases[i].says);
    dj_graph_destroy(g);
  }
}

static void test_labels_nest(void **state) {
  (void)state;
  dj_graph *g = dj_graph_create();
  dj_graph_push(g, "a/b");
  dj_graph_push(g, "c");
  dj_graph_pop(g);
  dj_graph_pop(g); // takes away what its push put there
  (void)dj_param(g, "w", DJ_SHAPE(1), dj_init_const(0));
  assert_string_equal(dj_graph_param_name(g, 0), "w");
  dj_graph_destroy(g);
}

/* A cast to bf16 in the caller's graph passes its gradient on. */
static void test_gradient_through_bf16(void **state) {
  (void)state;
  dj_graph *g = dj_graph_create();
  dj_val w = dj_param(g, "w", DJ_SHAPE(5), dj_init_normal(1));
  dj_val y = dj_cast(g, dj_square(g, dj_cast(g, w, DJ_BF16)), DJ_F32);
  OK(dj_graph_backward(g, dj_sum(g, y, DJ_ALL_AXES)));
  dj_output(g, "dw", dj_grad(g, w));
  dj_vars *vars = dj_vars_create(4);
  dj_program *p;
  OK(dj_program_compile(g, &(dj_compile_options){.backend = "ref"}, vars, &p));
  OK(dj_program_run(p, 0));
  const float *dw = dj_program_output(p, "dw")->data, *v = dj_vars_get(vars, 0)->tensor.data;
  for (int i = 0; i < 5; i++) assert_true(fabsf(dw[i] - 2 * v[i]) <= 0.02f * fabsf(v[i]));
  dj_program_destroy(p);
  dj_vars_destroy(vars);
  dj_graph_destroy(g);
}

static void test_compile_errors(void **state) {
  (void)state;
  dj_graph *g = dj_graph_create();
  dj_output(g, "y", dj_neg(g, dj_param(g, "w", DJ_SHAPE(2), dj_init_const(1))));
  dj_program *p;
  dj_vars *vars = dj_vars_create(0);
  assert_int_equal(dj_program_compile(g, NULL, NULL, &p), DJ_E_INVALID);
  assert_message("variable 'w'");
  assert_int_equal(dj_program_compile(g, &(dj_compile_options){.backend = "abacus"}, vars, &p),
                   DJ_E_NOT_FOUND);
  assert_message("abacus");
  dj_var *var;
  OK(dj_vars_add(vars, "w", DJ_VAR_PARAM, DJ_SHAPE(3), dj_init_const(0), &var));
  assert_int_equal(dj_program_compile(g, NULL, vars, &p), DJ_E_INVALID);
  assert_message("'w' has shape (3), not (2)");
  assert_null(p);
  dj_vars_destroy(vars);
  dj_graph_destroy(g);
}

/* ---- passes, memory, determinism ---- */

/* A deep chain whose backward pass needs every layer's values; with segments or without. */
static dj_graph *chain(bool segments) {
  enum { N = 64, D = 32, LAYERS = 8 };
  dj_graph *g = dj_graph_create();
  dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(N, D));
  for (int i = 0; i < LAYERS; i++) {
    dj_graph_push(g, "layer%d", i);
    if (segments) dj_recompute_begin(g);
    dj_val w = dj_param(g, "w", DJ_SHAPE(4 * D, D), dj_init_normal(0.2f));
    dj_val v = dj_param(g, "v", DJ_SHAPE(D, 4 * D), dj_init_normal(0.1f));
    dj_val h = dj_dropout(g, dj_gelu(g, dj_linear(g, x, w, DJ_NONE)), 0.2f);
    x = dj_add(g, x, dj_linear(g, h, v, DJ_NONE));
    dj_recompute_end(g);
    dj_graph_pop(g);
  }
  dj_val loss = dj_mean(g, dj_square(g, x), DJ_ALL_AXES);
  assert_int_equal(dj_optimizer_apply(g, loss, &(dj_optimizer){.kind = DJ_SGD}), DJ_OK);
  return g;
}

static void test_recompute_changes_nothing_but_memory(void **state) {
  (void)state;
  for (int precision = 0; precision < 2; precision++) {
    float loss[3][3];
    size_t arena[3];
    for (int k = 0; k < 3; k++) { // kept; computed again; segments with the pass off
      dj_graph *g = chain(k > 0);
      dj_vars *vars = dj_vars_create(4);
      dj_program *p;
      dj_compile_options o = {.precision = precision ? DJ_PRECISION_BF16 : DJ_PRECISION_F32,
                              .seed = 3,
                              .passes_off = DJ_PASS_FUSION | (k == 2 ? DJ_PASS_RECOMPUTE : 0)};
      assert_int_equal(dj_program_compile(g, &o, vars, &p), DJ_OK);
      dj_tensor *x = dj_program_input(p, "x");
      for (int64_t i = 0; i < dj_shape_count(&x->shape); i++)
        ((float *)x->data)[i] = (float)(i % 17) / 17 - 0.5f;
      for (uint64_t step = 0; step < 3; step++) {
        assert_int_equal(dj_optimizer_fill(p, &(dj_optimizer){.kind = DJ_SGD}, step, 0.05), DJ_OK);
        assert_int_equal(dj_program_run(p, 7), DJ_OK); // the same dropout in every step
        loss[k][step] = *(float *)dj_program_output(p, "loss")->data;
      }
      dj_memory_report r;
      dj_program_memory(p, &r);
      arena[k] = r.arena;
      dj_program_destroy(p);
      dj_vars_destroy(vars);
      dj_graph_destroy(g);
    }
    if (!(loss[0][2] < loss[0][0])) fail_msg("loss %g, then %g", loss[0][0], loss[0][2]);
    assert_memory_equal(loss[0], loss[1], sizeof loss[0]);
    assert_memory_equal(loss[0], loss[2], sizeof loss[0]);
    assert_int_equal(arena[0], arena[2]);
    assert_true(arena[1] < arena[0]);
  }
}

/* A table that rows are taken from and that is multiplied with: its gradient is a product with rows
 * added in its place, with passes and without. `twice`: the product's own gradient is read, too. */
static void test_gradient_of_a_tied_table(void **state) {
  (void)state;
  enum { V = 37, D = 24, N = 50 };
  for (int twice = 0; twice < 2; twice++) {
    float dw[2][V * D];
    for (int k = 0; k < 2; k++) {
      dj_graph *g = dj_graph_create();
      dj_val w = dj_param(g, "w", DJ_SHAPE(V, D), dj_init_normal(0.5f));
      dj_val at = dj_input(g, "at", DJ_I32, DJ_SHAPE(N)), x = dj_gather(g, w, at);
      dj_val table = twice ? dj_neg(g, w) : w;
      dj_val y = dj_linear(g, x, table, DJ_NONE);
      OK(dj_graph_backward(g, dj_mean(g, dj_square(g, y), DJ_ALL_AXES)));
      dj_output(g, "dw", dj_grad(g, w));
      if (twice) dj_output(g, "dt", dj_grad(g, table));
      dj_vars *vars = dj_vars_create(4);
      dj_program *p;
      OK(dj_program_compile(
          g, &(dj_compile_options){.backend = k ? "cpu" : "ref", .passes_off = k ? 0 : ~0u}, vars,
          &p));
      for (int i = 0; i < N; i++) ((int32_t *)dj_program_input(p, "at")->data)[i] = i * i % V;
      OK(dj_program_run(p, 0));
      memcpy(dw[k], dj_program_output(p, "dw")->data, sizeof dw[k]);
      assert_int_equal(count(p, "add"), 0);
      dj_program_destroy(p);
      dj_vars_destroy(vars);
      dj_graph_destroy(g);
    }
    for (int i = 0; i < V * D; i++)
      if (fabsf(dw[0][i] - dw[1][i]) > 1e-5f) fail_msg("%d: %g, %g", i, dw[0][i], dw[1][i]);
  }
}

/* What attention makes is bf16 where matrix products read it, forward and backward; its logarithms
 * stay f32. */
static void test_gradients_of_attention_are_bf16(void **state) {
  (void)state;
  enum { T = 8, D = 16 };
  dj_graph *g = dj_graph_create(), *narrow;
  dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(2, T, D)), y[3];
  for (int i = 0; i < 3; i++) {
    const char *const names[] = {"q", "k", "v"};
    dj_val w = dj_param(g, names[i], DJ_SHAPE(D, D), dj_init_normal(0.3f));
    y[i] = dj_reshape(g, dj_linear(g, x, w, DJ_NONE), DJ_SHAPE(2, 1, T, D));
  }
  dj_val o = dj_param(g, "o", DJ_SHAPE(D, D), dj_init_normal(0.3f));
  x = dj_linear(g, dj_attention(g, y[0], y[1], y[2], true, 0.25f), o, DJ_NONE);
  OK(dj_graph_backward(g, dj_mean(g, dj_square(g, x), DJ_ALL_AXES)));
  for (int i = 0; i < dj_graph_n_params(g); i++)
    dj_output(g, dj_graph_param_name(g, i), dj_grad(g, dj_graph_param(g, i)));
  OK(dj__pass_precision(g, &narrow));
  int seen = 0;
  for (int i = 0; i < narrow->n_nodes; i++) {
    const dj__node *n = narrow->nodes[i];
    const bool forward = n->op == DJ__OP_attention;
    if (!forward && n->op != DJ__OP_attention_grad) continue;
    seen++;
    for (int k = 0; k < n->n_out; k++)
      assert_int_equal(narrow->values[n->out[k]].dtype, forward && k ? DJ_F32 : DJ_BF16);
  }
  assert_int_equal(seen, 2);
  dj_graph_destroy(narrow);
  dj_graph_destroy(g);
}

/* Losses of three steps, and the arena. Takes g. */
static size_t train_chain(dj_graph *g, float loss[3]) {
  dj_vars *vars = dj_vars_create(4);
  dj_program *p;
  dj_compile_options o = {.passes_off = DJ_PASS_SIMPLIFY}; // which would merge what is made again
  OK(dj_program_compile(g, &o, vars, &p));
  dj_tensor *x = dj_program_input(p, "x");
  for (int64_t i = 0; i < dj_shape_count(&x->shape); i++)
    ((float *)x->data)[i] = (float)(i % 17) / 17 - 0.5f;
  for (uint64_t step = 0; step < 3; step++) {
    OK(dj_optimizer_fill(p, &(dj_optimizer){.kind = DJ_SGD}, step, 0.05));
    OK(dj_program_run(p, step));
    loss[step] = *(float *)dj_program_output(p, "loss")->data;
  }
  dj_memory_report r;
  dj_program_memory(p, &r);
  dj_program_destroy(p);
  dj_vars_destroy(vars);
  dj_graph_destroy(g);
  return r.arena;
}

/* Activations whose operand is kept anyway are made again, through views, to the same bits. */
static void test_cheap_values_are_made_again(void **state) {
  (void)state;
  enum { N = 256, D = 32, WIDE = 1024, LAYERS = 6 }; // N x WIDE is large enough
  dj_graph *g = dj_graph_create(), *cheap;
  dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(2, N / 2, D));
  for (int i = 0; i < LAYERS; i++) {
    dj_graph_push(g, "layer%d", i);
    dj_val w = dj_param(g, "w", DJ_SHAPE(WIDE, D), dj_init_normal(0.2f));
    dj_val v = dj_param(g, "v", DJ_SHAPE(D, WIDE), dj_init_normal(0.1f));
    x = dj_add(g, x, dj_linear(g, dj_gelu(g, dj_linear(g, x, w, DJ_NONE)), v, DJ_NONE));
    dj_graph_pop(g);
  }
  dj_val loss = dj_mean(g, dj_square(g, x), DJ_ALL_AXES);
  OK(dj_optimizer_apply(g, loss, &(dj_optimizer){.kind = DJ_SGD}));
  OK(dj__pass_recompute(g, DJ__AGAIN_ELEMENTWISE, &cheap));
  int gelus[2] = {0};
  for (int i = 0; i < g->n_nodes; i++) gelus[0] += g->nodes[i]->op == DJ__OP_gelu;
  for (int i = 0; i < cheap->n_nodes; i++) gelus[1] += cheap->nodes[i]->op == DJ__OP_gelu;
  assert_int_equal(gelus[0], LAYERS);
  assert_int_equal(gelus[1], 2 * LAYERS);
  float kept[3], again[3];
  size_t before = train_chain(g, kept), after = train_chain(cheap, again);
  assert_memory_equal(kept, again, sizeof kept);
  assert_true(after < before - before / 4);
}

/* x + linear(norm(x)), a few times: the product's own gradient reads the norm's result. */
static dj_graph *normed_chain(void) {
  enum { N = 1024, D = 512, LAYERS = 4 }; // N x D is large enough, in bf16, too
  dj_graph *g = dj_graph_create();
  dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(2, N / 2, D));
  for (int i = 0; i < LAYERS; i++) {
    dj_graph_push(g, "layer%d", i);
    dj_val scale = dj_param(g, "scale", DJ_SHAPE(D), dj_init_const(1)),
           shift = dj_param(g, "shift", DJ_SHAPE(D), dj_init_const(0)),
           w = dj_param(g, "w", DJ_SHAPE(D, D), dj_init_normal(0.02f));
    dj_val y = i % 2 ? dj_rms_norm(g, x, scale, 1e-5f) : dj_layer_norm(g, x, scale, shift, 1e-5f);
    x = dj_add(g, x, dj_linear(g, y, w, DJ_NONE));
    dj_graph_pop(g);
  }
  dj_val loss = dj_mean(g, dj_square(g, x), DJ_ALL_AXES);
  OK(dj_optimizer_apply(g, loss, &(dj_optimizer){.kind = DJ_SGD}));
  return g;
}

static int count_norms(const dj_graph *g, dj_dtype t) {
  int n = 0;
  for (int i = 0; i < g->n_nodes; i++) {
    const dj__node *node = g->nodes[i];
    const bool norm = node->op == DJ__OP_layer_norm || node->op == DJ__OP_rms_norm;
    n += norm && g->values[node->out[0]].dtype == t;
  }
  return n;
}

/* Norms are made again, in f32 to the same bits; under bf16 from the copy their gradient reads, and
 * round their results themselves. */
static void test_norms_are_made_again(void **state) {
  (void)state;
  dj_graph *g = normed_chain(), *narrow, *again;
  OK(dj__pass_precision(g, &narrow));
  assert_int_equal(count_norms(narrow, DJ_BF16), 4);
  for (int bf16 = 0; bf16 < 2; bf16++) {
    dj_graph *from = bf16 ? narrow : g;
    OK(dj__pass_recompute(from, DJ__AGAIN_NORMS, &again));
    assert_int_equal(count_norms(from, bf16 ? DJ_BF16 : DJ_F32), 4);
    assert_int_equal(count_norms(again, bf16 ? DJ_BF16 : DJ_F32), 8);
    float kept[3], anew[3];
    size_t before = train_chain(from, kept), after = train_chain(again, anew);
    for (int i = 0; i < 3; i++)
      assert_true(fabsf(anew[i] - kept[i]) <= (bf16 ? 1e-4f : 0) * kept[i]);
    assert_true(after < before - before / 8);
  }
}

/* Products that round large weights themselves compute what they compute from bf16 copies, in less
 * memory. */
static void check_rounding(const char *backend) {
  static const uint32_t passes_off[] = {0, DJ_PASS_ROUND, DJ_PASS_PACK};
  float loss[3][3];
  size_t arena[3];
  for (int off = 0; off < 3; off++) {
    dj_graph *g = dj_graph_create();
    dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(64, 512));
    dj_val w = dj_param(g, "w", DJ_SHAPE(1024, 512), dj_init_normal(0.05f)); // large enough
    dj_val y = dj_linear(g, dj_tanh(g, dj_linear(g, x, w, DJ_NONE)),
                         dj_param(g, "v", DJ_SHAPE(512, 1024), dj_init_normal(0.05f)), DJ_NONE);
    dj_val loss_ = dj_mean(g, dj_square(g, y), DJ_ALL_AXES);
    assert_int_equal(dj_optimizer_apply(g, loss_, &(dj_optimizer){.kind = DJ_SGD}), DJ_OK);
    dj_vars *vars = dj_vars_create(4);
    dj_program *p;
    dj_compile_options o = {
        .backend = backend, .precision = DJ_PRECISION_BF16, .passes_off = passes_off[off]};
    assert_int_equal(dj_program_compile(g, &o, vars, &p), DJ_OK);
    dj_tensor *in = dj_program_input(p, "x");
    for (int64_t i = 0; i < dj_shape_count(&in->shape); i++)
      ((float *)in->data)[i] = (float)(i % 17) / 17 - 0.5f;
    for (uint64_t step = 0; step < 3; step++) {
      assert_int_equal(dj_optimizer_fill(p, &(dj_optimizer){.kind = DJ_SGD}, step, 0.5), DJ_OK);
      assert_int_equal(dj_program_run(p, step), DJ_OK);
      loss[off][step] = *(float *)dj_program_output(p, "loss")->data;
    }
    int casts = 0;
    for (int i = 0; i < dj_program_n_nodes(p); i++) {
      dj_node_report r;
      dj_program_node(p, i, &r);
      casts += !strcmp(r.op, "cast") && dj_shape_count(&r.shape) == 1024 * 512;
    }
    if (off == 1)
      assert_true(casts >= 2);
    else
      assert_int_equal(casts, 0);
    dj_memory_report r;
    dj_program_memory(p, &r);
    arena[off] = r.arena;
    dj_program_destroy(p);
    dj_vars_destroy(vars);
    dj_graph_destroy(g);
  }
  assert_true(loss[0][2] < loss[0][0]);
  assert_memory_equal(loss[0], loss[1], sizeof loss[0]);
  assert_memory_equal(loss[2], loss[1], sizeof loss[2]);
  assert_true(arena[2] <= arena[1]); // beside copies of weights
}
static void test_rounded_weights(void **state) {
  (void)state;
  check_rounding("ref");
  check_rounding("cpu");
}

/* What depends on weights alone is computed once, and the results are the same. */
static void test_frozen_programs(void **state) {
  (void)state;
  dj_vars *vars = dj_vars_create(4);
  float y[2][3];
  for (int frozen = 0; frozen < 2; frozen++) {
    dj_graph *g = dj_graph_create();
    dj_val w = dj_param(g, "w", DJ_SHAPE(8, 8), dj_init_normal(1));
    dj_val counter = dj_state(g, "counter", DJ_SHAPE(1), dj_init_const(0)); // written: not frozen
    dj_val x = dj_linear(g, dj_input(g, "x", DJ_F32, DJ_SHAPE(1, 8)), dj_exp(g, w), DJ_NONE);
    dj_output(g, "y", dj_sum(g, dj_mul(g, x, dj_exp(g, counter)), DJ_ALL_AXES));
    dj_accumulate(g, counter, dj_const_f32(g, (float[]){0.5f}, DJ_SHAPE(1)), 1);
    dj_program *p;
    assert_int_equal(dj_program_compile(g, &(dj_compile_options){.frozen = frozen != 0}, vars, &p),
                     DJ_OK);
    *(float *)dj_vars_find(vars, "counter")->tensor.data = 0;
    for (int i = 0; i < 8; i++) ((float *)dj_program_input(p, "x")->data)[i] = (float)i;
    float first = *(float *)dj_vars_find(vars, "w")->tensor.data;
    for (int step = 0; step < 3; step++) {
      assert_int_equal(dj_program_run(p, 0), DJ_OK);
      y[frozen][step] = *(float *)dj_program_output(p, "y")->data;
    }
    // A frozen program does not see a weight that changes against the promise: it kept exp(w).
    *(float *)dj_vars_find(vars, "counter")->tensor.data = 0;
    *(float *)dj_vars_find(vars, "w")->tensor.data = first + 100;
    ((float *)dj_program_input(p, "x")->data)[0] = 1;
    assert_int_equal(dj_program_run(p, 0), DJ_OK);
    assert_int_equal(isinf(*(float *)dj_program_output(p, "y")->data) != 0, !frozen);
    *(float *)dj_vars_find(vars, "w")->tensor.data = first;
    dj_program_destroy(p);
    dj_graph_destroy(g);
  }
  assert_memory_equal(y[0], y[1], sizeof y[0]);
  assert_true(y[0][1] > y[0][0] * 1.6f && y[0][1] < y[0][0] * 1.7f); // exp(0.5)
  dj_vars_destroy(vars);
}

static void test_passes_change_nothing(void **state) {
  (void)state;
  static const char *const backends[] = {"ref", "cpu"};
  enum { ALL = DJ_PASS_SIMPLIFY | DJ_PASS_FUSION | DJ_PASS_MEMORY | DJ_PASS_SCHEDULE };
  static const uint32_t off[] = {DJ_PASS_SIMPLIFY, DJ_PASS_FUSION, DJ_PASS_MEMORY, DJ_PASS_SCHEDULE,
                                 ALL};
  for (int b = 0; b < 2; b++) {
    dj_compile_options o = {.backend = backends[b], .threads = 1, .seed = 9};
    trace on = trained_with(&sgd, &o, 3);
    for (int i = 0; i < 5; i++) {
      o.passes_off = off[i];
      trace without = trained_with(&sgd, &o, 3);
      bool rounds = (off[i] & DJ_PASS_FUSION) != 0; // fewer roundings in between
      double d = variables_apart(on.vars, without.vars, rounds);
      if (rounds ? d > 2e-4 : d != 0)
        fail_msg("%s, passes off 0x%x: variables differ by %g", backends[b], off[i], d);
      if (off[i] == DJ_PASS_MEMORY) {
        assert_true(without.memory.arena >= on.memory.arena);
        assert_true(on.memory.arena >= on.memory.lower_bound);
        print_message("%s: arena %zu bytes, lower bound %zu, without the plan %zu\n", backends[b],
                      on.memory.arena, on.memory.lower_bound, without.memory.arena);
      }
      dj_vars_destroy(without.vars);
    }
    dj_vars_destroy(on.vars);
  }
}

static void test_same_bits_every_time(void **state) {
  (void)state;
  for (int precision = DJ_PRECISION_F32; precision <= DJ_PRECISION_BF16; precision++)
    for (int threads = 1; threads <= 2; threads++) {
      dj_compile_options o = {.threads = threads, .precision = (dj_precision)precision, .seed = 9};
      trace a = trained(&o, 6), b = trained(&o, 6);
      assert_true(variables_apart(a.vars, b.vars, false) == 0);
      dj_vars_destroy(a.vars);
      dj_vars_destroy(b.vars);
    }
}

static void test_ref_and_cpu_agree(void **state) {
  (void)state;
  trace ref = trained(&(dj_compile_options){.backend = "ref", .threads = 1, .seed = 9}, 4);
  static const char *const isas[] = {"generic", "avx2", NULL};
  for (int i = 0; i < 3; i++) {
    if (i == 1 && !__builtin_cpu_supports("avx2")) continue;
    trace cpu = trained(&(dj_compile_options){.threads = 2, .seed = 9, .isa = isas[i]}, 4);
    for (int s = 0; s < 4; s++)
      if (fabsf(ref.loss[s] - cpu.loss[s]) > 2e-4f * fabsf(ref.loss[s]))
        fail_msg("step %d: loss %.9g on ref, %.9g on cpu", s, ref.loss[s], cpu.loss[s]);
    dj_vars_destroy(cpu.vars);
  }
  dj_vars_destroy(ref.vars);
}

static void test_bf16_follows_f32(void **state) {
  (void)state;
  enum { STEPS = 40 };
  trace a = trained(&(dj_compile_options){.seed = 9}, STEPS);
  trace b = trained(&(dj_compile_options){.seed = 9, .precision = DJ_PRECISION_BF16}, STEPS);
  double last32 = 0, last16 = 0;
  for (int s = 0; s < STEPS; s++)
    if (s >= STEPS - 10) {
      last32 += a.loss[s] / 10.0;
      last16 += b.loss[s] / 10.0;
    }
  print_message("loss from %.4f to %.4f in f32, from %.4f to %.4f in bf16\n", a.loss[0], last32,
                b.loss[0], last16);
  assert_true(fabs(a.loss[0] - b.loss[0]) < 0.02 * fabs(a.loss[0]));
  assert_true(last32 < 0.6 * a.loss[0]); // it learns
  assert_true(fabs(last16 - last32) < 0.15 * a.loss[0]);
  dj_vars_destroy(a.vars);
  dj_vars_destroy(b.vars);
}

/* ---- running ---- */

static void test_training_and_evaluation_share_variables(void **state) {
  (void)state;
  dj_vars *vars = dj_vars_create(1);
  dj_graph *gt = training_graph(), *ge = dj_graph_create();
  dj_output(ge, "loss", network(ge, false));
  dj_program *train_p, *eval_p;
  OK(dj_program_compile(gt, &(dj_compile_options){.seed = 9}, vars, &train_p));
  int n = dj_vars_count(vars);
  OK(dj_program_compile(ge, &(dj_compile_options){.seed = 9}, vars, &eval_p));
  assert_int_equal(dj_vars_count(vars), n); // evaluation brings no variables of its own
  dj_graph_destroy(gt);
  dj_graph_destroy(ge);
  OK(dj_optimizer_start(vars));
  fill_inputs(eval_p, 1000);
  OK(dj_program_run(eval_p, 0));
  float before = *(const float *)dj_program_output(eval_p, "loss")->data;
  OK(dj_program_run(eval_p, 0)); // evaluating changes nothing
  assert_true(before == *(const float *)dj_program_output(eval_p, "loss")->data);
  train(train_p, 0, 30, NULL);
  OK(dj_program_run(eval_p, 0));
  assert_true(*(const float *)dj_program_output(eval_p, "loss")->data < before);
  dj_program_destroy(train_p);
  dj_program_destroy(eval_p);
  dj_vars_destroy(vars);
}

/* A step of ours allocates nothing. Two libraries below make small objects for the length of a
 * call: oneDNN's dnnl_primitive_execute, and OpenMP's runtime a team of threads, also of one, where
 * their number changes from one kernel to the next. Of those nothing is large and nothing is kept.
 */
static void check_allocations(dj_graph *g, const dj_compile_options *o, bool libraries) {
  dj_vars *vars = dj_vars_create(1);
  dj_program *p;
  OK(dj_program_compile(g, o, vars, &p));
  OK(dj_program_run(p, 0));
  int64_t before = allocations, large = large_allocations, kept = allocations - frees;
  assert_true(before > 100); // the counter counts
  for (int s = 1; s < 6; s++) OK(dj_program_run(p, (uint64_t)s));
  int64_t made = allocations - before;
  assert_int_equal(allocations - frees, kept);
  if (!getenv("ONEDNN_MAX_CPU_ISA")) // its products for AVX2 make their buffers anew
    assert_int_equal(large_allocations, large);
  if (!libraries && made) fail_msg("%lld allocations in 5 steps", (long long)made);
  dj_program_destroy(p);
  dj_graph_destroy(g);
  dj_vars_destroy(vars);
}

/* A program that does not fit is refused before anything is allocated, and says what would help. */
static void test_too_little_memory(void **state) {
  (void)state;
  dj_graph *g = training_graph();
  dj_vars *vars = dj_vars_create(1);
  dj_program *p;
  dj_status s = dj_program_compile(g, &(dj_compile_options){.memory = 20000}, vars, &p);
  assert_int_equal(s, DJ_E_NOMEM);
  assert_null(p);
  assert_int_equal(dj_vars_count(vars), 0);
  assert_non_null(strstr(dj_error_message(), "use a smaller batch"));
  OK(dj_program_compile(g, &(dj_compile_options){.memory = 100 << 20}, vars, &p));
  dj_memory_report r;
  dj_program_memory(p, &r);
  assert_true(r.arena >= r.lower_bound && r.lower_bound > 0);
  dj_program_destroy(p);
  dj_graph_destroy(g);
  dj_vars_destroy(vars);
}

static dj_graph *graph_without_products(void) {
  dj_graph *g = dj_graph_create();
  dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(64, 33));
  dj_val w = dj_param(g, "w", DJ_SHAPE(33), dj_init_normal(1));
  dj_val y = dj_softmax(g, dj_silu(g, dj_layer_norm(g, dj_mul(g, x, w), w, w, 1e-5f)));
  y = dj_transpose(g, dj_dropout(g, y, 0.2f), (int[]){1, 0});
  OK(dj_optimizer_apply(g, dj_mean(g, dj_huber(g, y, dj_sin(g, y), 1), DJ_ALL_AXES), &adamw));
  return g;
}

static void test_no_allocation_while_running(void **state) {
  (void)state;
  count_allocations();
  for (int precision = DJ_PRECISION_F32; precision <= DJ_PRECISION_BF16; precision++) {
    dj_compile_options o = {.backend = "ref", .threads = 1, .precision = (dj_precision)precision};
    check_allocations(training_graph(), &o, false);
    o.backend = "cpu";
    o.threads = 2;
    check_allocations(training_graph(), &o, true);
    check_allocations(graph_without_products(), &o, true);
  }
}

/* x -> a/exp -> b/log(1 - y) -> c/sum: log of a negative number where x > 0. */
static void test_nonfinite_is_found(void **state) {
  (void)state;
  for (int fused = 0; fused < 2; fused++) {
    dj_graph *g = dj_graph_create();
    dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(7));
    dj_graph_push(g, "a");
    dj_val y = dj_exp(g, x);
    dj_graph_pop(g);
    dj_graph_push(g, "b");
    y = dj_log(g, dj_affine(g, y, -1, 1));
    dj_graph_pop(g);
    dj_graph_push(g, "c");
    dj_output(g, "y", dj_sum(g, y, DJ_ALL_AXES));
    dj_graph_pop(g);
    dj_program *p;
    OK(dj_program_compile(
        g, &(dj_compile_options){.passes_off = fused ? 0 : (uint32_t)DJ_PASS_FUSION}, NULL, &p));
    float *v = dj_program_input(p, "x")->data;
    for (int i = 0; i < 7; i++) v[i] = -1;
    OK(dj_program_find_nonfinite(p, 0));
    v[5] = 0.5f;
    assert_int_equal(dj_program_find_nonfinite(p, 0), DJ_E_NONFINITE);
    assert_message(fused ? "fused 'b'" : "log 'b'");
    assert_message("element 5");
    v[5] = NAN;
    assert_int_equal(dj_program_find_nonfinite(p, 0), DJ_E_NONFINITE);
    assert_message("input 'x'");
    dj_program_destroy(p);
    dj_graph_destroy(g);
  }
}

/* A step whose loss is not finite leaves every variable as it was. */
static void test_nonfinite_step_updates_nothing(void **state) {
  (void)state;
  dj_vars *vars = dj_vars_create(1);
  dj_graph *g = training_graph();
  dj_program *p;
  OK(dj_program_compile(g, &(dj_compile_options){.seed = 9}, vars, &p));
  train(p, 0, 2, NULL);
  float *before = malloc(1 << 20), *at = before;
  for (int i = 0; i < dj_vars_count(vars); i++) {
    const dj_var *v = dj_vars_get(vars, i);
    memcpy(at, v->tensor.data, dj_tensor_bytes(&v->tensor));
    at += dj_shape_count(&v->tensor.shape);
  }
  fill_inputs(p, 2);
  OK(dj_optimizer_fill(p, &adamw, 2, 5e-3));
  ((float *)dj_program_input(p, "target")->data)[3] = INFINITY;
  OK(dj_program_run(p, 2));
  assert_false(isfinite(*(const float *)dj_program_output(p, "loss")->data));
  at = before;
  for (int i = 0; i < dj_vars_count(vars); i++) {
    const dj_var *v = dj_vars_get(vars, i);
    bool statistics = strstr(v->name, "/mean") || strstr(v->name, "/var");
    if (!statistics && memcmp(at, v->tensor.data, dj_tensor_bytes(&v->tensor)) != 0)
      fail_msg("'%s' was updated in a step without a finite loss", v->name);
    at += dj_shape_count(&v->tensor.shape);
  }
  assert_int_equal(dj_program_find_nonfinite(p, 2), DJ_E_NONFINITE);
  assert_message("input 'target'");
  free(before);
  dj_program_destroy(p);
  dj_graph_destroy(g);
  dj_vars_destroy(vars);
}

/* ---- random graphs ---- */

enum { NODES = 24, POOL = 40 };

static dj_val pick(dj__rng *r, const dj_val *pool, int n) {
  return pool[dj__rng_below(r, (uint64_t)n)];
}

/* One more value from those there are; all are of shape (4, 6), (6), (4, 1) or (). */
static dj_val random_op(dj_graph *g, dj__rng *r, const dj_val *pool, int n) {
  dj_val a = pick(r, pool, n), b = pick(r, pool, n), c = pick(r, pool, n);
  dj_shape s = dj_val_shape(g, a);
  switch (dj__rng_below(r, 16)) {
  case 0:
    return dj_add(g, a, b);
  case 1:
    return dj_sub(g, a, b);
  case 2:
    return dj_mul(g, dj_tanh(g, a), b);
  case 3:
    return dj_max2(g, a, b);
  case 4:
    return dj_select(g, dj_greater(g, a, b), b, c);
  case 5:
    return dj_sigmoid(g, a);
  case 6:
    return dj_silu(g, dj_affine(g, a, 0.5f, 0.1f));
  case 7:
    return dj_square(g, dj_sin(g, a));
  case 8:
    return s.rank == 2 ? dj_mean(g, a, 1) : dj_relu(g, a);
  case 9:
    return s.rank == 2 ? dj_mean_keep(g, a, 2) : dj_neg(g, a);
  case 10:
    return dj_mean(g, a, DJ_ALL_AXES);
  case 11: // a view, used as if it were new
    return dj_reshape(g, dj_tanh(g, dj_reshape(g, a, DJ_SHAPE(-1))), s);
  case 12:
    return dj_stop_gradient(g, a);
  case 13:
    if (s.rank != 2) return dj_exp(g, dj_tanh(g, a));
    return dj_transpose(g, dj_softplus(g, dj_transpose(g, a, (int[]){1, 0})), (int[]){1, 0});
  case 14:
    if (s.rank != 2 || s.dim[1] != 6) return dj_cos(g, a);
    return dj_concat(g, (dj_val[]){dj_slice(g, a, 1, 2, 4), dj_slice(g, a, 1, 0, 2)}, 2, 1);
  default:
    if (s.rank != 2 || s.dim[1] != 6) return dj_abs(g, a);
    return dj_linear(g, a, dj_matmul(g, a, a, true, false), DJ_NONE);
  }
}

static dj_graph *random_graph(uint64_t seed) {
  dj_graph *g = dj_graph_create();
  dj__rng r = {.key = seed};
  dj_val pool[POOL];
  int n = 0;
  pool[n++] = dj_input(g, "x", DJ_F32, DJ_SHAPE(4, 6));
  pool[n++] = dj_input(g, "row", DJ_F32, DJ_SHAPE(6));
  pool[n++] = dj_param(g, "w", DJ_SHAPE(4, 6), dj_init_normal(1));
  pool[n++] = dj_param(g, "column", DJ_SHAPE(4, 1), dj_init_normal(1));
  pool[n++] = dj_param(g, "scalar", DJ_SCALAR, dj_init_normal(1));
  for (int i = 0; i < NODES; i++) {
    pool[n] = random_op(g, &r, pool, n);
    n++;
  }
  dj_val loss = dj_mean(g, dj_mul(g, pool[2], pool[4]), DJ_ALL_AXES);
  for (int i = n - 4; i < n; i++) loss = dj_add(g, loss, dj_mean(g, pool[i], DJ_ALL_AXES));
  dj_output(g, "loss", loss);
  dj_output(g, "value", pool[n - 1]);
  OK(dj_graph_backward(g, loss));
  for (int i = 0; i < dj_graph_n_params(g); i++) {
    dj_val d = dj_grad(g, dj_graph_param(g, i));
    if (d != DJ_NONE) dj_output(g, dj_graph_param_name(g, i), d);
  }
  dj_val w = dj_graph_param(g, 0); // an update beside the readers of the old value
  if (dj_grad(g, w) != DJ_NONE) dj_accumulate(g, w, dj_grad(g, w), -0.01f);
  OK(dj_graph_status(g));
  return g;
}

static const char *const random_outputs[] = {"loss", "value", "w", "column", "scalar"};
enum { N_RANDOM = 5, MOST = 24 };

/* Two steps of graph `seed`; outputs and the updated variable come back. */
static void run_random(uint64_t seed, const dj_compile_options *o, float out[N_RANDOM + 1][MOST]) {
  dj_graph *g = random_graph(seed);
  dj_vars *vars = dj_vars_create(seed);
  dj_program *p;
  OK(dj_program_compile(g, o, vars, &p));
  dj_graph_destroy(g);
  memset(out, 0, sizeof(float[N_RANDOM + 1][MOST]));
  dj__rng r = {.key = seed, .stream = 1};
  for (int s = 0; s < 2; s++) {
    dj_tensor *x = dj_program_input(p, "x"), *row = dj_program_input(p, "row");
    for (int i = 0; i < 24; i++) ((float *)x->data)[i] = dj__rng_normal(&r);
    for (int i = 0; i < 6; i++) ((float *)row->data)[i] = dj__rng_normal(&r);
    OK(dj_program_run(p, (uint64_t)s));
  }
  for (int k = 0; k < N_RANDOM; k++) {
    const dj_tensor *t = dj_program_output(p, random_outputs[k]);
    if (t) memcpy(out[k], t->data, dj_tensor_bytes(t));
  }
  memcpy(out[N_RANDOM], dj_vars_find(vars, "w")->tensor.data, 24 * sizeof(float));
  dj_program_destroy(p);
  dj_vars_destroy(vars);
}

static void compare_random(uint64_t seed, const char *what, float a[N_RANDOM + 1][MOST],
                           float b[N_RANDOM + 1][MOST], double tolerance) {
  for (int k = 0; k <= N_RANDOM; k++) {
    double most = 1e-3;
    for (int i = 0; i < MOST; i++) most = fmax(most, fabs((double)b[k][i]));
    for (int i = 0; i < MOST; i++) {
      bool same = a[k][i] == b[k][i] || (isnan(a[k][i]) && isnan(b[k][i]));
      if (!same && !(fabs((double)a[k][i] - (double)b[k][i]) <= tolerance * most))
        fail_msg("graph %llu, %s, %s element %d: %.9g, expected %.9g", (unsigned long long)seed,
                 what, k < N_RANDOM ? random_outputs[k] : "updated w", i, a[k][i], b[k][i]);
    }
  }
}

static void test_random_graphs(void **state) {
  (void)state;
  enum {
    ALL = DJ_PASS_SIMPLIFY | DJ_PASS_FUSION | DJ_PASS_MEMORY | DJ_PASS_SCHEDULE,
    GRAPHS = 300
  };
  float plain[N_RANDOM + 1][MOST], unfused[N_RANDOM + 1][MOST], all[N_RANDOM + 1][MOST];
  for (uint64_t seed = 0; seed < GRAPHS; seed++) {
    dj_compile_options o = {.backend = "ref", .threads = 1, .passes_off = ALL};
    run_random(seed, &o, plain);
    o.passes_off = DJ_PASS_FUSION;
    run_random(seed, &o, unfused);
    compare_random(seed, "without fusion", unfused, plain, 0); // these passes move, and no more
    o.passes_off = 0;
    run_random(seed, &o, all);
    compare_random(seed, "with fusion", all, plain, 1e-3);
    o.backend = "cpu";
    o.threads = 2;
    run_random(seed, &o, all);
    compare_random(seed, "on cpu", all, plain, 1e-3);
    o.precision = DJ_PRECISION_BF16; // compiles, runs and stays finite where f32 does
    run_random(seed, &o, all);
    for (int i = 0; i < MOST; i++)
      if (isfinite(plain[1][i])) assert_true(isfinite(all[1][i]));
  }
  print_message("%d random graphs agree with all passes off, on, and on the cpu backend\n", GRAPHS);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_errors_name_the_place),
      cmocka_unit_test(test_every_mistake_is_told),
      cmocka_unit_test(test_labels_nest),
      cmocka_unit_test(test_gradient_through_bf16),
      cmocka_unit_test(test_compile_errors),
      cmocka_unit_test(test_recompute_changes_nothing_but_memory),
      cmocka_unit_test(test_cheap_values_are_made_again),
      cmocka_unit_test(test_norms_are_made_again),
      cmocka_unit_test(test_gradient_of_a_tied_table),
      cmocka_unit_test(test_gradients_of_attention_are_bf16),
      cmocka_unit_test(test_rounded_weights),
      cmocka_unit_test(test_frozen_programs),
      cmocka_unit_test(test_passes_change_nothing),
      cmocka_unit_test(test_same_bits_every_time),
      cmocka_unit_test(test_ref_and_cpu_agree),
      cmocka_unit_test(test_bf16_follows_f32),
      cmocka_unit_test(test_training_and_evaluation_share_variables),
      cmocka_unit_test(test_no_allocation_while_running),
      cmocka_unit_test(test_too_little_memory),
      cmocka_unit_test(test_nonfinite_is_found),
      cmocka_unit_test(test_nonfinite_step_updates_nothing),
      cmocka_unit_test(test_random_graphs),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
