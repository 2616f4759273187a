/*
 * Whole networks for comparison with PyTorch: builds a network through the public API, writes its
 * initial weights and a few batches of made-up inputs as safetensors, trains it and prints the loss
 * of every step as JSON. bench/parity_pytorch.py runs this program and trains the same network from
 * the same file.
 *
 *     parity pilotnet|resnet|transformer adamw|sgd OUT.safetensors [STEPS [BACKEND]]
 *
 * File: weights under their names, convolutions as (O, KH, KW, I); "batch/NAME" with a leading axis
 * of batches, taken in turn. Metadata: learning rate and the optimiser's constants.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "dojo/graph.h"
#include "dojo/ops.h"
#include "dojo/safetensors.h"
#include "dojo/train.h"

enum { BATCHES = 4, MAX_INPUTS = 2, CLASSES = 10 };

typedef struct net_input {
  const char *name;
  int64_t below; /* i32 in 0..below-1; 0: f32, standard normal */
} net_input;

typedef struct net {
  const char *name;
  dj_val (*build)(dj_graph *g); /* returns the loss */
  net_input in[MAX_INPUTS];
  double lr_adamw, lr_sgd;
} net;

/* ---- networks ---- */

static dj_val dense(dj_graph *g, const char *name, dj_val x, int64_t out) {
  dj_shape s = dj_val_shape(g, x);
  int64_t in = s.dim[s.rank - 1];
  dj_graph_push(g, "%s", name);
  dj_val w = dj_param(g, "w", DJ_SHAPE(out, in), dj_init_normal(1 / sqrtf((float)in)));
  dj_val y = dj_linear(g, x, w, dj_param(g, "b", DJ_SHAPE(out), dj_init_normal(0.05f)));
  dj_graph_pop(g);
  return y;
}

static dj_val conv(dj_graph *g, const char *name, dj_val x, int64_t out, int kernel,
                   dj_conv2d_args a, bool bias) {
  int64_t in = dj_val_shape(g, x).dim[3];
  dj_graph_push(g, "%s", name);
  dj_val w = dj_param(g, "w", DJ_SHAPE(out, kernel, kernel, in), dj_init_he(in * kernel * kernel));
  dj_val b = bias ? dj_param(g, "b", DJ_SHAPE(out), dj_init_normal(0.05f)) : DJ_NONE;
  dj_val y = dj_conv2d(g, x, w, b, &a);
  dj_graph_pop(g);
  return y;
}

/* Bojarski et al. 2016, with ELU: at this size of batch, ReLU's kinks amplify rounding from step to
 * step until it hides everything else (with ReLU and AdamW at 1e-4, PyTorch's own f32 and f64 runs
 * are 1.3e-2 apart after 50 steps). */
static dj_val pilotnet(dj_graph *g) {
  dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(8, 66, 200, 3));
  dj_val target = dj_input(g, "y", DJ_F32, DJ_SHAPE(8, 1));
  static const int channels[] = {24, 36, 48, 64, 64};
  for (int i = 0; i < 5; i++) {
    char name[16];
    (void)snprintf(name, sizeof name, "conv%d", i);
    int stride = i < 3 ? 2 : 1;
    dj_conv2d_args a = {.stride_h = stride, .stride_w = stride};
    x = dj_elu(g, conv(g, name, x, channels[i], i < 3 ? 5 : 3, a, true));
  }
  x = dj_reshape(g, x, DJ_SHAPE(8, -1));
  static const int widths[] = {100, 50, 10, 1};
  for (int i = 0; i < 4; i++) {
    char name[16];
    (void)snprintf(name, sizeof name, "dense%d", i);
    x = dense(g, name, x, widths[i]);
    if (i < 3) x = dj_elu(g, x);
  }
  return dj_mean(g, dj_l2(g, x, target), DJ_ALL_AXES);
}

static dj_val norm(dj_graph *g, const char *name, dj_val x) {
  int64_t c = dj_val_shape(g, x).dim[3];
  dj_graph_push(g, "%s", name);
  dj_val scale = dj_param(g, "scale", DJ_SHAPE(c), dj_init_const(1));
  dj_val shift = dj_param(g, "shift", DJ_SHAPE(c), dj_init_const(0));
  dj_val mean = dj_state(g, "mean", DJ_SHAPE(c), dj_init_const(0));
  dj_val var = dj_state(g, "var", DJ_SHAPE(c), dj_init_const(1));
  dj_val y = dj_batch_norm(g, x, scale, shift, mean, var, true, 0.1f, 1e-5f);
  dj_graph_pop(g);
  return y;
}

/* Two 3x3 convolutions and a shortcut (He et al. 2016), projected where the shape changes. */
static dj_val residual(dj_graph *g, const char *name, dj_val x, int64_t out, int stride) {
  dj_graph_push(g, "%s", name);
  dj_val y = conv(g, "conv0", x, out, 3, dj_conv2d_same(3, stride), false);
  y = dj_relu(g, norm(g, "norm0", y));
  y = norm(g, "norm1", conv(g, "conv1", y, out, 3, dj_conv2d_same(3, 1), false));
  if (stride > 1)
    x = norm(g, "norm2", conv(g, "conv2", x, out, 1, dj_conv2d_same(1, stride), false));
  dj_graph_pop(g);
  return dj_relu(g, dj_add(g, y, x));
}

static dj_val resnet(dj_graph *g) {
  dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(8, 48, 48, 3));
  dj_val label = dj_input(g, "y", DJ_I32, DJ_SHAPE(8));
  x = dj_relu(g, norm(g, "norm", conv(g, "stem", x, 16, 7, dj_conv2d_same(7, 2), false)));
  x = dj_max_pool(g, x, &(dj_pool_args){3, 3, 2, 2, 1, 1, 1, 1});
  x = residual(g, "block0", x, 16, 1);
  x = residual(g, "block1", x, 32, 2);
  x = residual(g, "block2", x, 64, 2);
  x = dense(g, "head", dj_global_avg_pool(g, x), CLASSES);
  return dj_mean(g, dj_cross_entropy(g, x, label), DJ_ALL_AXES);
}

enum { B = 8, T = 32, E = 64, HEADS = 4, VOCABULARY = 64 };

static dj_val layer_norm(dj_graph *g, const char *name, dj_val x) {
  dj_graph_push(g, "%s", name);
  dj_val scale = dj_param(g, "scale", DJ_SHAPE(E), dj_init_const(1));
  dj_val y = dj_layer_norm(g, x, scale, dj_param(g, "shift", DJ_SHAPE(E), dj_init_const(0)), 1e-5f);
  dj_graph_pop(g);
  return y;
}

/* (B, T, E) -> (B, HEADS, T, E / HEADS) */
static dj_val heads(dj_graph *g, dj_val x) {
  return dj_transpose(g, dj_reshape(g, x, DJ_SHAPE(B, T, HEADS, E / HEADS)), (int[]){0, 2, 1, 3});
}

static dj_val decoder_layer(dj_graph *g, int i, dj_val x) {
  dj_graph_push(g, "layer%d", i);
  dj_val h = layer_norm(g, "norm0", x);
  dj_val q = heads(g, dense(g, "q", h, E)), k = heads(g, dense(g, "k", h, E));
  dj_val o = dj_attention(g, q, k, heads(g, dense(g, "v", h, E)), true, 0);
  o = dj_reshape(g, dj_transpose(g, o, (int[]){0, 2, 1, 3}), DJ_SHAPE(B, T, E));
  x = dj_add(g, x, dense(g, "out", o, E));
  h = dj_gelu(g, dense(g, "up", layer_norm(g, "norm1", x), (int64_t)4 * E));
  x = dj_add(g, x, dense(g, "down", h, E));
  dj_graph_pop(g);
  return x;
}

static dj_val transformer(dj_graph *g) {
  dj_val token = dj_input(g, "x", DJ_I32, DJ_SHAPE(B, T));
  dj_val label = dj_input(g, "y", DJ_I32, DJ_SHAPE(B, T));
  dj_val table = dj_param(g, "token", DJ_SHAPE(VOCABULARY, E), dj_init_normal(0.5f));
  dj_val place = dj_param(g, "place", DJ_SHAPE(T, E), dj_init_normal(0.1f));
  dj_val x = dj_add(g, dj_gather(g, table, token), place);
  for (int i = 0; i < 2; i++) x = decoder_layer(g, i, x);
  x = dense(g, "head", layer_norm(g, "norm", x), VOCABULARY);
  dj_val losses = dj_cross_entropy(g, dj_reshape(g, x, DJ_SHAPE(B * T, VOCABULARY)),
                                   dj_reshape(g, label, DJ_SHAPE(B * T)));
  return dj_mean(g, losses, DJ_ALL_AXES);
}

static const net nets[] = {
    {"pilotnet", pilotnet, {{"x", 0}, {"y", 0}}, 5e-5, 1e-3},
    {"resnet", resnet, {{"x", 0}, {"y", CLASSES}}, 1e-3, 5e-3},
    {"transformer", transformer, {{"x", VOCABULARY}, {"y", VOCABULARY}}, 1e-3, 5e-2},
};

/* ---- inputs and the file ---- */

/* Batches of input i, one after the other, in memory of their own; NULL when memory is out. */
static void *make_batches(const net_input *in, uint64_t stream, const dj_tensor *t) {
  int64_t n = BATCHES * dj_shape_count(&t->shape);
  dj__rng r = {1, stream, 0};
  void *data = malloc((size_t)n * 4);
  for (int64_t i = 0; data && i < n; i++) {
    if (in->below)
      ((int32_t *)data)[i] = (int32_t)dj__rng_below(&r, (uint64_t)in->below);
    else
      ((float *)data)[i] = dj__rng_normal(&r);
  }
  return data;
}

static dj_st_tensor st_tensor(const char *name, const dj_tensor *t, int64_t batches) {
  dj_st_tensor s = {.name = name, .dtype = t->dtype == DJ_I32 ? DJ_ST_I32 : DJ_ST_F32};
  s.data = t->data;
  if (batches) s.shape[s.rank++] = (uint64_t)batches;
  for (int i = 0; i < t->shape.rank; i++) s.shape[s.rank++] = (uint64_t)t->shape.dim[i];
  return s;
}

/* Initial weights (parameters only), batches and constants. */
static dj_status save(const char *path, dj_vars *vars, const net *n, const dj_tensor *in,
                      const dj_optimizer *o, double lr) {
  char names[MAX_INPUTS][32], text[5][32];
  int count = dj_vars_count(vars), k = 0;
  dj_st_tensor *t = calloc((size_t)count + MAX_INPUTS, sizeof *t);
  if (!t) return dj_error(DJ_E_NOMEM, "parity: out of memory");
  for (int i = 0; i < count; i++) {
    const dj_var *v = dj_vars_get(vars, i);
    if (v->kind == DJ_VAR_PARAM) t[k++] = st_tensor(v->name, &v->tensor, 0);
  }
  for (int i = 0; i < MAX_INPUTS; i++) {
    (void)snprintf(names[i], sizeof names[i], "batch/%s", n->in[i].name);
    t[k++] = st_tensor(names[i], &in[i], BATCHES);
  }
  const double values[] = {lr, (double)o->beta1, (double)o->weight_decay, (double)o->max_norm,
                           BATCHES};
  static const char *const keys[] = {"lr", "beta1", "weight_decay", "max_norm", "batches"};
  dj_st_meta meta[5];
  for (int i = 0; i < 5; i++) {
    (void)snprintf(text[i], sizeof text[i], "%.9g", values[i]);
    meta[i] = (dj_st_meta){keys[i], text[i]};
  }
  dj_status s = dj_safetensors_save(path, t, (size_t)k, meta, 5);
  free(t);
  return s;
}

/* ---- the run ---- */

static dj_status train(dj_program *p, const net *n, const dj_tensor *batches, const dj_optimizer *o,
                       double lr, int steps) {
  printf("{\"network\": \"%s\", \"loss\": [", n->name);
  for (int step = 0; step < steps; step++) {
    for (int i = 0; i < MAX_INPUTS; i++) {
      dj_tensor *t = dj_program_input(p, n->in[i].name);
      size_t bytes = dj_tensor_bytes(t);
      memcpy(t->data, (char *)batches[i].data + (size_t)(step % BATCHES) * bytes, bytes);
    }
    DJ_TRY(dj_optimizer_fill(p, o, (uint64_t)step, lr));
    DJ_TRY(dj_program_run(p, (uint64_t)step));
    printf("%s%.9g", step ? ", " : "", (double)*(float *)dj_program_output(p, "loss")->data);
  }
  printf("]}\n");
  return DJ_OK;
}

static dj_status compare(const net *n, dj_optimizer_kind kind, const char *path, int steps,
                         const char *backend) {
  dj_optimizer o = {.kind = kind, .beta1 = 0.9f, .weight_decay = 0.01f, .max_norm = 5};
  double lr = kind == DJ_ADAMW ? n->lr_adamw : n->lr_sgd;
  dj_graph *g = dj_graph_create();
  dj_vars *vars = dj_vars_create(3);
  dj_program *p = NULL;
  dj_tensor in[MAX_INPUTS] = {0};
  dj_status s = g && vars ? DJ_OK : dj_error(DJ_E_NOMEM, "parity: out of memory");
  if (!s) s = dj_optimizer_apply(g, n->build(g), &o);
  if (!s) s = dj_program_compile(g, &(dj_compile_options){.backend = backend}, vars, &p);
  for (uint64_t i = 0; !s && i < MAX_INPUTS; i++) {
    in[i] = *dj_program_input(p, n->in[i].name);
    in[i].data = make_batches(&n->in[i], i, &in[i]);
    if (!in[i].data) s = dj_error(DJ_E_NOMEM, "parity: out of memory");
  }
  if (!s) s = save(path, vars, n, in, &o, lr);
  if (!s) s = train(p, n, in, &o, lr, steps);
  for (int i = 0; i < MAX_INPUTS; i++) free(in[i].data);
  dj_program_destroy(p);
  dj_vars_destroy(vars);
  dj_graph_destroy(g);
  return s;
}

int main(int argc, char **argv) {
  const net *n = NULL;
  for (size_t i = 0; argc >= 4 && i < sizeof nets / sizeof nets[0]; i++)
    if (!strcmp(argv[1], nets[i].name)) n = &nets[i];
  int steps = argc > 4 ? atoi(argv[4]) : 50;
  if (!n || (strcmp(argv[2], "adamw") && strcmp(argv[2], "sgd")) || steps < 1) {
    (void)fprintf(stderr, "usage: parity pilotnet|resnet|transformer adamw|sgd OUT.safetensors "
                          "[STEPS [BACKEND]]\n");
    return 2;
  }
  dj_status s = compare(n, strcmp(argv[2], "sgd") ? DJ_ADAMW : DJ_SGD, argv[3], steps,
                        argc > 5 ? argv[5] : NULL);
  if (s) (void)fprintf(stderr, "parity: %s\n", dj_error_message());
  return dj_exit_code(s);
}
