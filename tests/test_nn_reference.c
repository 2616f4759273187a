/*
 * Network ops against answers found in another way: worked out by hand, from an identity that must
 * hold (adjoints), or from a composition of simpler ops. The generated gradient and parity checks
 * cannot see a mistake that an op and its gradient share; these can. Every case runs on both
 * backends.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "dojo/ops.h"
#include "engine/attrs.h"
#include "engine/op.h"

/* ---- a graph, its variables and its program ---- */

typedef struct bench {
  dj_graph *g;
  dj_vars *vars;
  dj_program *p;
} bench;

static bench begin(void) {
  bench b = {dj_graph_create(), dj_vars_create(7), NULL};
  assert_non_null(b.g);
  assert_non_null(b.vars);
  return b;
}

static void ok(dj_status s) {
  if (s) fail_msg("%s: %s", dj_status_text(s), dj_error_message());
}

static void compile(bench *b, void **backend) {
  ok(dj_graph_status(b->g));
  ok(dj_program_compile(b->g, &(dj_compile_options){.backend = *backend, .threads = 2, .seed = 11},
                        b->vars, &b->p));
}

static void end(bench *b) {
  dj_program_destroy(b->p);
  dj_vars_destroy(b->vars);
  dj_graph_destroy(b->g);
}

static float *in(bench *b, const char *name) {
  dj_tensor *t = dj_program_input(b->p, name);
  assert_non_null(t);
  return t->data;
}

/* Uniform in -1..1. */
static void fill(bench *b, const char *name, uint64_t stream) {
  dj_tensor *t = dj_program_input(b->p, name);
  assert_non_null(t);
  dj__rng r = {5, stream, 0};
  for (int64_t i = 0; i < dj_shape_count(&t->shape); i++)
    ((float *)t->data)[i] = dj__rng_uniform(&r, -1, 1);
}

static const float *out(bench *b, const char *name) {
  const dj_tensor *t = dj_program_output(b->p, name);
  assert_non_null(t);
  assert_int_equal(t->dtype, DJ_F32);
  return t->data;
}

static int64_t out_count(bench *b, const char *name) {
  return dj_shape_count(&dj_program_output(b->p, name)->shape);
}

static void near(double have, double want, double tolerance) {
  if (!(fabs(have - want) <= tolerance)) fail_msg("have %.9g, want %.9g", have, want);
}

static void all_near(const float *have, const float *want, int64_t n, double tolerance) {
  for (int64_t i = 0; i < n; i++)
    if (!(fabs((double)have[i] - (double)want[i]) <= tolerance))
      fail_msg("element %lld: have %.9g, want %.9g", (long long)i, (double)have[i],
               (double)want[i]);
}

static dj_val input(bench *b, const char *name, dj_shape s) {
  return dj_input(b->g, name, DJ_F32, s);
}

/* ---- convolution ---- */

static void conv_by_hand(void **backend) {
  bench b = begin();
  dj_val x = dj_const_f32(b.g, (float[]){1, 2, 3, 4, 5, 6, 7, 8, 9}, DJ_SHAPE(1, 3, 3, 1));
  dj_val w = dj_const_f32(b.g, (float[]){1, 10, 100, 1000}, DJ_SHAPE(1, 2, 2, 1));
  dj_val bias = dj_const_f32(b.g, (float[]){0.5f}, DJ_SHAPE(1));
  dj_output(b.g, "plain", dj_conv2d(b.g, x, w, bias, NULL));
  dj_output(
      b.g, "stride",
      dj_conv2d(b.g, x, w, DJ_NONE,
                &(dj_conv2d_args){.stride_h = 2, .stride_w = 2, .pad_top = 1, .pad_left = 1}));
  dj_output(b.g, "dilated",
            dj_conv2d(b.g, x, w, DJ_NONE, &(dj_conv2d_args){.dilation_h = 2, .dilation_w = 2}));
  dj_output(b.g, "up",
            dj_conv_transpose2d(b.g, x, w, DJ_NONE, &(dj_conv2d_args){.stride_h = 2, .stride_w = 2},
                                6, 6));
  compile(&b, backend);
  ok(dj_program_run(b.p, 0));
  /* A cross-correlation: the top left pixel meets the first weight. */
  all_near(out(&b, "plain"), (float[]){5421.5f, 6532.5f, 8754.5f, 9865.5f}, 4, 1e-3);
  all_near(out(&b, "stride"), (float[]){1000, 3200, 7040, 9865}, 4, 1e-3);
  all_near(out(&b, "dilated"), (float[]){1 + 30 + 700 + 9000}, 1, 1e-3);
  const float *up = out(&b, "up"); /* stride 2, kernel 2: every pixel becomes its own block */
  for (int i = 0; i < 36; i++) {
    float pixel = (float)(1 + i / 12 * 3 + i % 6 / 2);
    float weight[] = {1, 10, 100, 1000};
    near((double)up[i], (double)(pixel * weight[i / 6 % 2 * 2 + i % 2]), 1e-3);
  }
  end(&b);
}

static void depthwise_by_hand(void **backend) {
  bench b = begin();
  dj_val x = dj_const_f32(b.g, (float[]){1, 10, 2, 20, 3, 30}, DJ_SHAPE(1, 1, 3, 2));
  dj_val w = dj_const_f32(b.g, (float[]){1, 2, 3, 5, 7, 11}, DJ_SHAPE(2, 1, 3, 1));
  dj_output(
      b.g, "y",
      dj_conv2d(b.g, x, w, DJ_NONE, &(dj_conv2d_args){.pad_left = 1, .pad_right = 1, .groups = 2}));
  compile(&b, backend);
  ok(dj_program_run(b.p, 0));
  all_near(out(&b, "y"), (float[]){8, 290, 14, 520, 8, 310}, 6, 1e-3);
  end(&b);
}

static double dot(const float *a, const float *c, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)c[i];
  return sum;
}

/* <conv(x, w), y> = <x, data(y, w)> = <w, weight(x, y)> */
static void conv_adjoints(void **backend) {
  static const struct {
    dj_shape x, w;
    dj_conv2d_args a;
  } cases[] = {
      {{4, {2, 7, 9, 3}}, {4, {5, 3, 3, 3}}, {.pad_top = 1, .pad_left = 1}},
      {{4, {2, 8, 8, 16}}, {4, {32, 3, 3, 16}}, {2, 2, 1, 1, 1, 1, 1, 1, 1}},
      {{4, {1, 9, 11, 4}}, {4, {6, 3, 2, 2}}, {2, 1, 0, 2, 1, 0, 2, 3, 2}},
      {{4, {2, 6, 7, 8}}, {4, {8, 5, 5, 1}}, {1, 2, 2, 2, 2, 2, 1, 1, 8}},
      {{4, {1, 10, 7, 6}}, {4, {4, 1, 2, 6}}, {3, 3, 0, 0, 0, 0, 1, 1, 1}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    bench b = begin();
    const dj_conv2d_args *a = &cases[i].a;
    dj_val x = input(&b, "x", cases[i].x), w = input(&b, "w", cases[i].w);
    dj_val conv = dj_conv2d(b.g, x, w, DJ_NONE, a);
    dj_val y = input(&b, "y", dj_val_shape(b.g, conv));
    dj_require_grad(b.g, w);
    dj_val loss = dj_sum(b.g, dj_mul(b.g, dj_conv2d(b.g, x, w, DJ_NONE, a), y), DJ_ALL_AXES);
    dj_output(b.g, "conv", conv);
    dj_output(b.g, "data",
              dj_conv_transpose2d(b.g, y, w, DJ_NONE, a, cases[i].x.dim[1], cases[i].x.dim[2]));
    dj_output(b.g, "loss", loss);
    ok(dj_graph_status(b.g));
    bench c = begin(); /* the weight gradient through differentiation */
    dj_val x2 = input(&c, "x", cases[i].x), w2 = input(&c, "w", cases[i].w);
    dj_require_grad(c.g, w2);
    dj_val conv2 = dj_conv2d(c.g, x2, w2, DJ_NONE, a);
    dj_val y2 = input(&c, "y", dj_val_shape(c.g, conv2));
    ok(dj_graph_backward(c.g, dj_sum(c.g, dj_mul(c.g, conv2, y2), DJ_ALL_AXES)));
    dj_output(c.g, "weight", dj_grad(c.g, w2));
    compile(&b, backend);
    compile(&c, backend);
    const char *names[] = {"x", "w", "y"};
    for (uint64_t k = 0; k < 3; k++) {
      fill(&b, names[k], k);
      fill(&c, names[k], k);
    }
    ok(dj_program_run(b.p, 0));
    ok(dj_program_run(c.p, 0));
    double p = dot(out(&b, "conv"), in(&b, "y"), out_count(&b, "conv"));
    near(dot(out(&b, "data"), in(&b, "x"), out_count(&b, "data")), p, 1e-3);
    near(dot(out(&c, "weight"), in(&c, "w"), out_count(&c, "weight")), p, 1e-3);
    near((double)out(&b, "loss")[0], p, 1e-3);
    end(&b);
    end(&c);
  }
}

static void conv_errors(void **state) {
  (void)state;
  static const struct {
    dj_shape x, w;
    dj_conv2d_args a;
    const char *says;
  } cases[] = {
      {{4, {1, 4, 4, 3}}, {4, {2, 3, 3, 4}}, {0}, "channels"},
      {{4, {1, 4, 4, 3}}, {4, {2, 5, 3, 3}}, {0}, "larger than the padded input"},
      {{4, {1, 4, 4, 4}}, {4, {3, 1, 1, 2}}, {.groups = 2}, "groups"},
      {{4, {1, 4, 4, 3}}, {4, {2, 3, 3, 3}}, {.stride_h = -1}, "stride -1"},
      {{4, {1, 4, 4, 3}}, {4, {2, 3, 3, 3}}, {.pad_left = -2}, "padding -2"},
      {{4, {1, 4, 4, 3}}, {4, {2, 3, 3, 3}}, {.dilation_w = 1 << 30}, "dilation"},
      {{3, {4, 4, 3}}, {4, {2, 3, 3, 3}}, {0}, "rank 4"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    bench b = begin();
    dj_graph_push(b.g, "stem");
    dj_val y = dj_conv2d(b.g, input(&b, "x", cases[i].x), input(&b, "w", cases[i].w), DJ_NONE,
                         &cases[i].a);
    assert_int_equal(y, DJ_NONE);
    assert_int_equal(dj_graph_status(b.g), DJ_E_INVALID);
    if (!strstr(dj_error_message(), cases[i].says) || !strstr(dj_error_message(), "stem"))
      fail_msg("message: %s", dj_error_message());
    end(&b);
  }
  bench b = begin();
  assert_int_equal(dj_conv_transpose2d(b.g, input(&b, "x", DJ_SHAPE(1, 4, 4, 2)),
                                       input(&b, "w", DJ_SHAPE(2, 3, 3, 5)), DJ_NONE,
                                       &(dj_conv2d_args){.stride_h = 2, .stride_w = 2}, 20, 9),
                   DJ_NONE);
  assert_non_null(strstr((dj_graph_status(b.g), dj_error_message()), "would be convolved"));
  end(&b);
}

/* ---- pooling and resizing ---- */

static void pooling_by_hand(void **backend) {
  bench b = begin();
  const float values[] = {1, 5, 2, 5, 4, 3, 7, 8, 7};
  dj_val x = input(&b, "x", DJ_SHAPE(1, 3, 3, 1));
  dj_require_grad(b.g, x);
  dj_pool_args two = {.kernel_h = 2, .kernel_w = 2};
  dj_pool_args padded = {3, 3, 2, 2, 1, 1, 1, 1};
  dj_val top = dj_max_pool(b.g, x, &two);
  dj_val k = dj_const_f32(b.g, (float[]){1, 10, 100, 1000}, DJ_SHAPE(1, 2, 2, 1));
  dj_output(b.g, "max", top);
  dj_output(b.g, "mean", dj_avg_pool(b.g, x, &padded));
  dj_output(b.g, "global", dj_global_avg_pool(b.g, x));
  ok(dj_graph_backward(b.g, dj_sum(b.g, dj_mul(b.g, top, k), DJ_ALL_AXES)));
  dj_output(b.g, "dx", dj_grad(b.g, x));
  compile(&b, backend);
  memcpy(in(&b, "x"), values, sizeof values);
  ok(dj_program_run(b.p, 0));
  all_near(out(&b, "max"), (float[]){5, 5, 8, 8}, 4, 0);
  /* The first window has 5 twice: its gradient goes to the first. */
  all_near(out(&b, "dx"), (float[]){0, 11, 0, 0, 0, 0, 0, 1100, 0}, 9, 0);
  /* Padding is not counted: every corner window has four pixels. */
  all_near(out(&b, "mean"), (float[]){15 / 4.0f, 14 / 4.0f, 24 / 4.0f, 22 / 4.0f}, 4, 1e-6);
  near((double)out(&b, "global")[0], 42 / 9.0, 1e-6);
  end(&b);
}

static void resizing_by_hand(void **backend) {
  bench b = begin();
  dj_val row = dj_const_f32(b.g, (float[]){0, 1}, DJ_SHAPE(1, 1, 2, 1));
  dj_val four = dj_const_f32(b.g, (float[]){0, 1, 2, 7}, DJ_SHAPE(1, 1, 4, 1));
  dj_val three = dj_const_f32(b.g, (float[]){10, 20, 30}, DJ_SHAPE(1, 3, 1, 1));
  dj_output(b.g, "up", dj_resize(b.g, row, 1, 4, DJ_BILINEAR));
  dj_output(b.g, "down", dj_resize(b.g, four, 1, 2, DJ_BILINEAR));
  dj_output(b.g, "five", dj_resize(b.g, three, 5, 1, DJ_BILINEAR));
  dj_output(b.g, "near", dj_resize(b.g, row, 2, 4, DJ_NEAREST));
  dj_output(b.g, "near_two", dj_resize(b.g, three, 2, 1, DJ_NEAREST));
  compile(&b, backend);
  ok(dj_program_run(b.p, 0));
  all_near(out(&b, "up"), (float[]){0, 0.25f, 0.75f, 1}, 4, 1e-6);
  all_near(out(&b, "down"), (float[]){0.5f, 4.5f}, 2, 1e-6);
  all_near(out(&b, "five"), (float[]){10, 14, 20, 26, 30}, 5, 1e-5);
  all_near(out(&b, "near"), (float[]){0, 0, 1, 1, 0, 0, 1, 1}, 8, 0);
  all_near(out(&b, "near_two"), (float[]){10, 30}, 2, 0); /* centres at 0.75 and 2.25 */
  end(&b);
}

/* ---- normalisation ---- */

/* (x - mean) / sqrt(var + eps) * scale + shift over the given axes, from simple ops. */
static dj_val plain_norm(dj_graph *g, dj_val x, dj_val scale, dj_val shift, uint32_t axes,
                         float eps) {
  dj_val d = dj_sub(g, x, dj_mean_keep(g, x, axes));
  dj_val var = dj_mean_keep(g, dj_square(g, d), axes);
  dj_val xh = dj_div(g, d, dj_sqrt(g, dj_affine(g, var, 1, eps)));
  return dj_add(g, dj_mul(g, xh, scale), shift);
}

enum norm_kind { BATCH, LAYER, GROUP, RMS };

/* A norm on x (3, 4, 5, 6), by the op or from simple ops; the gradients of a weighted sum. */
static void norm_case(bench *b, void **backend, enum norm_kind kind, bool op) {
  dj_graph *g = b->g;
  dj_val x = input(b, "x", DJ_SHAPE(3, 4, 5, 6)), k = input(b, "k", DJ_SHAPE(3, 4, 5, 6));
  dj_val scale = input(b, "scale", DJ_SHAPE(6)), shift = input(b, "shift", DJ_SHAPE(6));
  dj_require_grad(g, x);
  dj_require_grad(g, scale);
  dj_require_grad(g, shift);
  dj_val y = DJ_NONE;
  if (kind == BATCH) {
    y = op ? dj_batch_norm(g, x, scale, shift, DJ_NONE, DJ_NONE, true, 0, 1e-3f)
           : plain_norm(g, x, scale, shift, 7u, 1e-3f);
  } else if (kind == LAYER) {
    y = op ? dj_layer_norm(g, x, scale, shift, 1e-3f) : plain_norm(g, x, scale, shift, 8u, 1e-3f);
  } else if (kind == RMS) {
    dj_val ms = dj_affine(g, dj_mean_keep(g, dj_square(g, x), 8u), 1, 1e-3f);
    y = op ? dj_rms_norm(g, x, scale, 1e-3f) : dj_mul(g, dj_div(g, x, dj_sqrt(g, ms)), scale);
  } else if (op) {
    y = dj_group_norm(g, x, scale, shift, 2, 1e-3f);
  } else {
    dj_val x5 = dj_reshape(g, x, DJ_SHAPE(3, 20, 2, 3));
    dj_val s5 = dj_reshape(g, scale, DJ_SHAPE(2, 3)), t5 = dj_reshape(g, shift, DJ_SHAPE(2, 3));
    y = dj_reshape(g, plain_norm(g, x5, s5, t5, 1u << 1 | 1u << 3, 1e-3f), DJ_SHAPE(3, 4, 5, 6));
  }
  dj_output(g, "y", y);
  ok(dj_graph_backward(g, dj_sum(g, dj_mul(g, y, k), DJ_ALL_AXES)));
  dj_output(g, "dx", dj_grad(g, x));
  dj_output(g, "dscale", dj_grad(g, scale));
  if (kind != RMS) dj_output(g, "dshift", dj_grad(g, shift));
  compile(b, backend);
  fill(b, "x", 1);
  fill(b, "k", 2);
  fill(b, "scale", 3);
  if (kind != RMS) fill(b, "shift", 4);
  ok(dj_program_run(b->p, 0));
}

static void norms_equal_their_formula(void **backend) {
  for (int kind = BATCH; kind <= RMS; kind++) {
    bench a = begin(), b = begin();
    norm_case(&a, backend, (enum norm_kind)kind, true);
    norm_case(&b, backend, (enum norm_kind)kind, false);
    const char *names[] = {"y", "dx", "dscale", "dshift"};
    for (int i = 0; i < (kind == RMS ? 3 : 4); i++)
      all_near(out(&a, names[i]), out(&b, names[i]), out_count(&a, names[i]), 3e-5);
    end(&a);
    end(&b);
  }
}

static void running_statistics(void **backend) {
  bench b = begin();
  dj_val x = input(&b, "x", DJ_SHAPE(4, 1));
  dj_val one = dj_const_f32(b.g, (float[]){1}, DJ_SHAPE(1));
  dj_val zero = dj_const_f32(b.g, (float[]){0}, DJ_SHAPE(1));
  dj_val rm = dj_state(b.g, "mean", DJ_SHAPE(1), dj_init_const(0));
  dj_val rv = dj_state(b.g, "var", DJ_SHAPE(1), dj_init_const(1));
  dj_output(b.g, "y", dj_batch_norm(b.g, x, one, zero, rm, rv, true, 0.1f, 1e-5f));
  compile(&b, backend);
  const float first[] = {1, 2, 3, 6}, second[] = {-1, -1, 1, 1};
  memcpy(in(&b, "x"), first, sizeof first);
  ok(dj_program_run(b.p, 0));
  const float *mean = dj_vars_find(b.vars, "mean")->tensor.data;
  const float *var = dj_vars_find(b.vars, "var")->tensor.data;
  /* mean 3, biased variance 3.5, unbiased 14 / 3 */
  near((double)mean[0], 0.3, 1e-6);
  near((double)var[0], 0.9 + 0.1 * 14 / 3, 1e-5);
  near((double)out(&b, "y")[3], 3 / sqrt(3.5 + 1e-5), 1e-5);
  memcpy(in(&b, "x"), second, sizeof second);
  ok(dj_program_run(b.p, 1));
  near((double)mean[0], 0.27, 1e-6);
  near((double)var[0], 0.9 * (0.9 + 0.1 * 14 / 3) + 0.1 * 4 / 3, 1e-5);
  dj_graph *g = dj_graph_create(); /* evaluation shares the variables */
  x = dj_input(g, "x", DJ_F32, DJ_SHAPE(4, 1));
  dj_val y = dj_batch_norm(g, x, dj_const_f32(g, (float[]){2}, DJ_SHAPE(1)),
                           dj_const_f32(g, (float[]){5}, DJ_SHAPE(1)),
                           dj_state(g, "mean", DJ_SHAPE(1), dj_init_const(0)),
                           dj_state(g, "var", DJ_SHAPE(1), dj_init_const(1)), false, 0.1f, 1e-5f);
  dj_output(g, "y", y);
  bench e = {g, b.vars, NULL};
  compile(&e, backend);
  memcpy(in(&e, "x"), first, sizeof first);
  ok(dj_program_run(e.p, 0));
  near((double)out(&e, "y")[2], 2 * (3 - 0.27) / sqrt((double)var[0] + 1e-5) + 5, 1e-4);
  dj_program_destroy(e.p);
  dj_graph_destroy(g);
  end(&b);
}

/* ---- attention, recurrence ---- */

/* k (B, HK, S, D) with every head repeated H / HK times. */
static dj_val repeat_heads(dj_graph *g, dj_val k, int per) {
  dj_shape s = dj_val_shape(g, k);
  dj_val wide =
      dj_broadcast(g, dj_reshape(g, k, DJ_SHAPE(s.dim[0], s.dim[1], 1, s.dim[2], s.dim[3])),
                   DJ_SHAPE(s.dim[0], s.dim[1], per, s.dim[2], s.dim[3]));
  return dj_reshape(g, wide, DJ_SHAPE(s.dim[0], s.dim[1] * per, s.dim[2], s.dim[3]));
}

static void attention_case(bench *b, void **backend, bool causal, bool op) {
  enum { B = 2, H = 4, HK = 2, T = 5, S = 7, D = 8 };
  dj_graph *g = b->g;
  dj_val q = input(b, "q", DJ_SHAPE(B, H, T, D)), k = input(b, "k", DJ_SHAPE(B, HK, S, D));
  dj_val v = input(b, "v", DJ_SHAPE(B, HK, S, D)), d = input(b, "d", DJ_SHAPE(B, H, T, D));
  dj_require_grad(g, q);
  dj_require_grad(g, k);
  dj_require_grad(g, v);
  dj_val o;
  if (op) {
    o = dj_attention(g, q, k, v, causal, 0);
  } else {
    float mask[T * S];
    for (int i = 0; i < T * S; i++) mask[i] = causal && i % S > i / S + S - T ? -1e9f : 0;
    dj_val scores = dj_matmul(g, q, repeat_heads(g, k, H / HK), false, true);
    scores = dj_affine(g, scores, 1 / sqrtf(D), 0);
    scores = dj_add(g, scores, dj_const_f32(g, mask, DJ_SHAPE(T, S)));
    o = dj_matmul(g, dj_softmax(g, scores), repeat_heads(g, v, H / HK), false, false);
  }
  dj_output(g, "o", o);
  ok(dj_graph_backward(g, dj_sum(g, dj_mul(g, o, d), DJ_ALL_AXES)));
  dj_output(g, "dq", dj_grad(g, q));
  dj_output(g, "dk", dj_grad(g, k));
  dj_output(g, "dv", dj_grad(g, v));
  compile(b, backend);
  const char *names[] = {"q", "k", "v", "d"};
  for (uint64_t i = 0; i < 4; i++) fill(b, names[i], i);
  ok(dj_program_run(b->p, 0));
}

static void attention_equals_its_formula(void **backend) {
  for (int causal = 0; causal < 2; causal++) {
    bench a = begin(), b = begin();
    attention_case(&a, backend, causal, true);
    attention_case(&b, backend, causal, false);
    const char *names[] = {"o", "dq", "dk", "dv"};
    for (int i = 0; i < 4; i++)
      all_near(out(&a, names[i]), out(&b, names[i]), out_count(&a, names[i]), 1e-5);
    end(&a);
    end(&b);
  }
}

/* Heads first .. first + n of (B, T, N, D) as (B, n, T, D) */
static dj_val take_heads(dj_graph *g, dj_val x, int64_t first, int64_t n) {
  return dj_transpose(g, dj_slice(g, x, 2, first, n), (int[]){0, 2, 1, 3});
}

static void self_attention_case(bench *b, void **backend, bool causal, bool together) {
  enum { B = 2, H = 4, HK = 2, T = 6, D = 8 };
  dj_graph *g = b->g;
  dj_val qkv = input(b, "qkv", DJ_SHAPE(B, T, H + 2 * HK, D)), o;
  dj_val d = input(b, "d", DJ_SHAPE(B, T, H, D));
  dj_require_grad(g, qkv);
  if (together) {
    o = dj_self_attention(g, qkv, HK, causal, 0);
  } else {
    dj_val q = take_heads(g, qkv, 0, H), k = take_heads(g, qkv, H, HK);
    o = dj_attention(g, q, k, take_heads(g, qkv, H + HK, HK), causal, 0);
    o = dj_transpose(g, o, (int[]){0, 2, 1, 3});
  }
  dj_output(g, "o", o);
  ok(dj_graph_backward(g, dj_sum(g, dj_mul(g, o, d), DJ_ALL_AXES)));
  dj_output(g, "dqkv", dj_grad(g, qkv));
  compile(b, backend);
  fill(b, "qkv", 1);
  fill(b, "d", 2);
  ok(dj_program_run(b->p, 0));
}

static void self_attention_equals_attention(void **backend) {
  for (int causal = 0; causal < 2; causal++) {
    bench a = begin(), b = begin();
    self_attention_case(&a, backend, causal, true);
    self_attention_case(&b, backend, causal, false);
    all_near(out(&a, "o"), out(&b, "o"), out_count(&a, "o"), 1e-6);
    all_near(out(&a, "dqkv"), out(&b, "dqkv"), out_count(&a, "dqkv"), 1e-6);
    end(&a);
    end(&b);
  }
}

static dj_val gate(dj_graph *g, dj_val v, int k) {
  return dj_slice(g, v, 1, 6 * k, 6);
}

static void gru_case(bench *b, void **backend, bool op) {
  dj_graph *g = b->g;
  dj_val gx = input(b, "gx", DJ_SHAPE(3, 18)), gh = input(b, "gh", DJ_SHAPE(3, 18));
  dj_val h = input(b, "h", DJ_SHAPE(3, 6)), d = input(b, "d", DJ_SHAPE(3, 6));
  dj_require_grad(g, gx);
  dj_require_grad(g, gh);
  dj_require_grad(g, h);
  dj_val y;
  if (op) {
    y = dj_gru_cell(g, gx, gh, h);
  } else {
    dj_val r = dj_sigmoid(g, dj_add(g, gate(g, gx, 0), gate(g, gh, 0)));
    dj_val z = dj_sigmoid(g, dj_add(g, gate(g, gx, 1), gate(g, gh, 1)));
    dj_val n = dj_tanh(g, dj_add(g, gate(g, gx, 2), dj_mul(g, r, gate(g, gh, 2))));
    y = dj_add(g, dj_mul(g, dj_affine(g, z, -1, 1), n), dj_mul(g, z, h));
  }
  dj_output(g, "y", y);
  ok(dj_graph_backward(g, dj_sum(g, dj_mul(g, y, d), DJ_ALL_AXES)));
  dj_output(g, "dgx", dj_grad(g, gx));
  dj_output(g, "dgh", dj_grad(g, gh));
  dj_output(g, "dh", dj_grad(g, h));
  compile(b, backend);
  const char *names[] = {"gx", "gh", "h", "d"};
  for (uint64_t i = 0; i < 4; i++) fill(b, names[i], i);
  ok(dj_program_run(b->p, 0));
}

static void gru_equals_its_formula(void **backend) {
  bench a = begin(), b = begin();
  gru_case(&a, backend, true);
  gru_case(&b, backend, false);
  const char *names[] = {"y", "dgx", "dgh", "dh"};
  for (int i = 0; i < 4; i++)
    all_near(out(&a, names[i]), out(&b, names[i]), out_count(&a, names[i]), 1e-6);
  end(&a);
  end(&b);
}

/* ---- grid sampling ---- */

static void grid_sampling_by_hand(void **backend) {
  bench b = begin();
  /* 2 x 3 image; pixel centres in x at -2/3, 0, 2/3, in y at -1/2, 1/2 */
  dj_val x = dj_const_f32(b.g, (float[]){1, 2, 3, 10, 20, 30}, DJ_SHAPE(1, 2, 3, 1));
  dj_val grid = input(&b, "grid", DJ_SHAPE(1, 1, 6, 2));
  dj_output(b.g, "zero", dj_grid_sample(b.g, x, grid, DJ_BORDER_ZERO));
  dj_output(b.g, "clamp", dj_grid_sample(b.g, x, grid, DJ_BORDER_CLAMP));
  compile(&b, backend);
  const float places[] = {-2 / 3.0f, -0.5f,   /* first pixel */
                          0,         0,       /* between 2 and 20 */
                          1 / 3.0f,  0.5f,    /* between 20 and 30 */
                          -1,        -1,      /* the image's corner */
                          1,         0.5f,    /* right edge, lower row */
                          50,        -1e30f}; /* far outside */
  memcpy(in(&b, "grid"), places, sizeof places);
  ok(dj_program_run(b.p, 0));
  all_near(out(&b, "zero"), (float[]){1, 11, 25, 0.25f, 15, 0}, 6, 1e-4);
  all_near(out(&b, "clamp"), (float[]){1, 11, 25, 1, 30, 3}, 6, 1e-4);
  in(&b, "grid")[2] = NAN;
  ok(dj_program_run(b.p, 0));
  assert_true(isnan(out(&b, "zero")[1]));
  assert_true(isnan(out(&b, "clamp")[1]));
  near((double)out(&b, "zero")[0], 1, 1e-4);
  end(&b);
}

/* ---- dropout ---- */

static void dropout_keeps_its_rate_and_mask(void **backend) {
  enum { N = 40000 };
  bench b = begin();
  dj_val x = input(&b, "x", DJ_SHAPE(N));
  dj_require_grad(b.g, x);
  dj_val y = dj_dropout(b.g, x, 0.3f);
  dj_val other = dj_dropout(b.g, x, 0.3f);
  assert_int_equal(dj_dropout(b.g, x, 0), x);
  dj_output(b.g, "y", y);
  dj_output(b.g, "other", other);
  ok(dj_graph_backward(b.g, dj_sum(b.g, dj_mul(b.g, y, y), DJ_ALL_AXES)));
  dj_output(b.g, "dx", dj_grad(b.g, x));
  compile(&b, backend);
  for (int i = 0; i < N; i++) in(&b, "x")[i] = 7;
  ok(dj_program_run(b.p, 3));
  int kept = 0, differ = 0, moved = 0;
  float *before = malloc(N * sizeof *before);
  assert_non_null(before);
  memcpy(before, out(&b, "y"), N * sizeof *before);
  for (int i = 0; i < N; i++) {
    float v = before[i], d = out(&b, "dx")[i];
    kept += v != 0;
    differ += (v != 0) != (out(&b, "other")[i] != 0);
    near((double)v, v != 0 ? 10 : 0, 1e-5);
    near((double)d, v != 0 ? 20 / 0.7 : 0, 1e-4); /* the same mask, twice 10, scaled again */
  }
  near(kept / (double)N, 0.7, 0.01); /* over 4 standard deviations */
  near(differ / (double)N, 0.42, 0.01);
  ok(dj_program_run(b.p, 4));
  for (int i = 0; i < N; i++) moved += (before[i] != 0) != (out(&b, "y")[i] != 0);
  near(moved / (double)N, 0.42, 0.01);
  ok(dj_program_run(b.p, 3));
  assert_memory_equal(before, out(&b, "y"), N * sizeof *before);
  free(before);
  end(&b);
}

/* ---- updates ---- */

typedef struct updated {
  bench b;
  float *p, *m, *v, *ema, *grad, *hyper, *guard;
} updated;

/* One variable of one element, p = 1, by AdamW or SGD, weight decay 0.01. */
static updated update_begin(void **backend, bool adamw, float lr_scale) {
  updated u = {.b = begin()};
  dj_graph *g = u.b.g;
  dj_val p = dj_param(g, "p", DJ_SHAPE(1), dj_init_const(1));
  dj_val m = dj_state(g, "m", DJ_SHAPE(1), dj_init_const(0));
  dj_val v = adamw ? dj_state(g, "v", DJ_SHAPE(1), dj_init_const(0)) : DJ_NONE;
  dj_val ema = dj_state(g, "ema", DJ_SHAPE(1), dj_init_const(1));
  dj_val grad = input(&u.b, "grad", DJ_SHAPE(1));
  dj_update up = {p, grad, m, v, ema, 0.01f, lr_scale};
  (adamw ? dj_adamw : dj_sgd)(g, input(&u.b, "hyper", DJ_SHAPE(8)),
                              input(&u.b, "guard", DJ_SHAPE(2)), &up, 1);
  compile(&u.b, backend);
  u.p = dj_vars_find(u.b.vars, "p")->tensor.data;
  u.m = dj_vars_find(u.b.vars, "m")->tensor.data;
  u.v = adamw ? dj_vars_find(u.b.vars, "v")->tensor.data : NULL;
  u.ema = dj_vars_find(u.b.vars, "ema")->tensor.data;
  u.grad = in(&u.b, "grad");
  u.hyper = in(&u.b, "hyper");
  u.guard = in(&u.b, "guard");
  return u;
}

static void update_run(updated *u, float grad, const float hyper[8], float loss, float norm) {
  *u->grad = grad;
  memcpy(u->hyper, hyper, 8 * sizeof(float));
  u->guard[0] = loss;
  u->guard[1] = norm;
  ok(dj_program_run(u->b.p, 0));
}

static void adamw_by_hand(void **backend) {
  updated u = update_begin(backend, true, 1);
  update_run(&u, 0.5f, (float[8]){0.1f, 0.9f, 0.999f, 1e-8f, 0.1f, 0.001f, 0, 0.5f}, 1, 0.5f);
  near((double)*u.m, 0.05, 1e-7);
  near((double)*u.v, 0.00025, 1e-8);
  near((double)*u.p, 0.899, 1e-6); /* 1 - 0.1 * (0.5 / sqrt(0.25) + 0.01) */
  near((double)*u.ema, 0.9495, 1e-6);
  const float second[8] = {0.1f, 0.9f, 0.999f, 1e-8f, 0.19f, 0.001999f, 0, 0.5f};
  update_run(&u, -0.25f, second, 1, 0.25f);
  near((double)*u.m, 0.02, 1e-7);
  near((double)*u.v, 0.00031225, 1e-8);
  near((double)*u.p, 0.8714673, 1e-6);
  /* Nothing moves where the loss or the norm is not finite. */
  float before[] = {*u.p, *u.m, *u.v, *u.ema};
  update_run(&u, NAN, second, 1, NAN);
  update_run(&u, 0.5f, second, INFINITY, 0.5f);
  float after[] = {*u.p, *u.m, *u.v, *u.ema};
  assert_memory_equal(before, after, sizeof before);
  /* Clipping: a norm of 10 above 2.5 makes the gradient a quarter. */
  float m = *u.m;
  update_run(&u, 8, (float[8]){0, 0.9f, 0.999f, 1e-8f, 1, 1, 2.5f, 0}, 1, 10);
  near((double)*u.m, 0.9 * (double)m + 0.1 * 2, 1e-6);
  near((double)*u.p, (double)before[0], 1e-7);
  end(&u.b);
}

static void sgd_by_hand(void **backend) {
  updated u = update_begin(backend, false, 0.5f);
  const float hyper[8] = {0.2f, 0.9f, 0, 0, 0, 0, 0, 0};
  update_run(&u, 0.5f, hyper, 1, 0.5f);
  near((double)*u.m, 0.51, 1e-7);
  near((double)*u.p, 1 - 0.1 * 0.51, 1e-6);
  update_run(&u, 0.5f, hyper, 1, 0.5f);
  near((double)*u.m, 0.9 * 0.51 + 0.5 + 0.01 * 0.949, 1e-6);
  near((double)*u.p, 0.949 - 0.1 * (0.9 * 0.51 + 0.5 + 0.01 * 0.949), 1e-6);
  near((double)*u.ema, (double)*u.p, 0); /* a decay of 0 copies */
  end(&u.b);
}

static void norms_and_states(void **backend) {
  bench b = begin();
  dj_val x = input(&b, "x", DJ_SHAPE(5000)), y = input(&b, "y", DJ_SHAPE(3, 3));
  dj_val sum = dj_state(b.g, "sum", DJ_SHAPE(3, 3), dj_init_const(1));
  dj_val copy = dj_state(b.g, "copy", DJ_SHAPE(3, 3), dj_init_const(0));
  dj_output(b.g, "norm", dj_global_norm(b.g, (dj_val[]){x, y}, 2));
  dj_output(b.g, "old", dj_affine(b.g, copy, 2, 0));
  dj_accumulate(b.g, sum, y, 0.5f);
  dj_assign(b.g, copy, y);
  compile(&b, backend);
  for (int i = 0; i < 5000; i++) in(&b, "x")[i] = 3e18f; /* squares overflow f32 */
  for (int i = 0; i < 9; i++) in(&b, "y")[i] = (float)i;
  ok(dj_program_run(b.p, 0));
  ok(dj_program_run(b.p, 1));
  near((double)out(&b, "norm")[0] / (3e18 * sqrt(5000.0)), 1, 1e-6);
  const float *s = dj_vars_find(b.vars, "sum")->tensor.data;
  const float *c = dj_vars_find(b.vars, "copy")->tensor.data;
  for (int i = 0; i < 9; i++) {
    near((double)s[i], 1 + i, 1e-6);
    near((double)c[i], i, 0);
    near((double)out(&b, "old")[i], 2 * i, 0); /* read before the second assignment */
  }
  end(&b);
}

#define BOTH(f) cmocka_unit_test_prestate(f, "ref"), cmocka_unit_test_prestate(f, "cpu")

int main(void) {
  const struct CMUnitTest tests[] = {
      BOTH(conv_by_hand),
      BOTH(depthwise_by_hand),
      BOTH(conv_adjoints),
      cmocka_unit_test(conv_errors),
      BOTH(pooling_by_hand),
      BOTH(resizing_by_hand),
      BOTH(norms_equal_their_formula),
      BOTH(running_statistics),
      BOTH(attention_equals_its_formula),
      BOTH(self_attention_equals_attention),
      BOTH(gru_equals_its_formula),
      BOTH(grid_sampling_by_hand),
      BOTH(dropout_keeps_its_rate_and_mask),
      BOTH(adamw_by_hand),
      BOTH(sgd_by_hand),
      BOTH(norms_and_states),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
