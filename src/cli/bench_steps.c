/*
 * Timing of whole training steps. The program is the one that `dojo train` runs; frames are random
 * bytes (text: random tokens, of 65 where the recipe leaves that open) and every label is there.
 * What a loader adds is measured by `dojo train --profile`.
 *
 * The report names the parameters with their shapes: with the sizes of the batch they say what the
 * network is, and bench/steps_pytorch.py builds its peer from them.
 */
#include "cli/bench_steps.h"

#include <assert.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/bench_median.h"
#include "base/rng.h"
#include "cli/cli.h"
#include "cli/profile.h"
#include "dojo/drive.h"
#include "dojo/safetensors.h"
#include "drive/task.h"
#include "text/task.h"
#include "train/run.h"

enum { MIN_STEPS = 5, MAX_STEPS = 2000, MAX_LOSSES = 1000 };

typedef struct bench {
  const dj__steps_options *o;
  dj_recipe *recipe;
  dj_optimizer optimizer;
  dj_vars *vars;
  dj_graph *graph;
  dj_program *program;
  dj_safetensors *batches; // NULL: made-up inputs, the same in each step
  int cameras, steps;
  dj__decoder decoder;                   // of a text recipe
  float loss[MAX_LOSSES];                // of the first steps
  double ms, fastest_ms, first_s, flops; // first_s: from the program's start to its first step
} bench;

static const char *const inputs[] = {
    "image",           "velocity", "label/control", "label/path", "label/control_mask",
    "label/path_mask", "token",    "label"};
enum { N_INPUTS = sizeof inputs / sizeof *inputs };

/* Seconds since this process began. */
static double since_start(void) {
  char line[1024] = "";
  FILE *f = fopen("/proc/self/stat", "r");
  if (f && !fgets(line, sizeof line, f)) line[0] = 0;
  if (f) (void)fclose(f);
  const char *at = strrchr(line, ')'); // behind the name, which may hold anything: fields 3, 4, ...
  for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
  const unsigned long long ticks = at ? strtoull(at, NULL, 10) : 0; // since boot
  struct timespec t;
  clock_gettime(CLOCK_BOOTTIME, &t);
  double up = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
  return ticks ? up - (double)ticks / (double)sysconf(_SC_CLK_TCK) : NAN;
}

static double peak_mib(void) {
  struct rusage u;
  return getrusage(RUSAGE_SELF, &u) == 0 ? (double)u.ru_maxrss / 1024 : NAN;
}

static const dj_st_dtype st_types[] = {
    [DJ_F32] = DJ_ST_F32, [DJ_BF16] = DJ_ST_BF16, [DJ_I32] = DJ_ST_I32, [DJ_U8] = DJ_ST_U8};

/* Weights as they begin, and the batch: for peers that are to compute the same. */
static dj_status save(bench *b, const char *path) {
  int n = 0, all = dj_vars_count(b->vars);
  dj_st_tensor *t = calloc((size_t)(all + N_INPUTS), sizeof *t);
  if (!t) return dj_error(DJ_E_NOMEM, "bench: out of memory");
  for (int i = 0; i < all + N_INPUTS; i++) {
    const dj_var *v = i < all ? dj_vars_get(b->vars, i) : NULL;
    const dj_tensor *x = v ? &v->tensor : dj_program_input(b->program, inputs[i - all]);
    if (!x || (v && !strncmp(v->name, "optimizer/", 10))) continue;
    t[n] = (dj_st_tensor){.name = v ? v->name : inputs[i - all],
                          .dtype = st_types[x->dtype],
                          .rank = x->shape.rank,
                          .data = x->data};
    for (int d = 0; d < x->shape.rank; d++) t[n].shape[d] = (uint64_t)x->shape.dim[d];
    n++;
  }
  dj_status s = dj_safetensors_save(path, t, (size_t)n, NULL, 0);
  free(t);
  return s;
}

/* One input of step `number` from --batches; those that the file lacks stay as they are. */
static dj_status load(const bench *b, const char *name, dj_tensor *in, uint64_t number) {
  const dj_st_tensor *t = dj_safetensors_find(b->batches, name);
  if (!t) return DJ_OK;
  uint64_t shape[DJ_ST_MAX_RANK] = {t->rank > 0 ? t->shape[0] : 0};
  for (int i = 0; i < in->shape.rank; i++) shape[1 + i] = (uint64_t)in->shape.dim[i];
  DJ_TRY(
      dj_safetensors_expect(b->batches, name, st_types[in->dtype], in->shape.rank + 1, shape, &t));
  if (shape[0] == 0) return dj_error(DJ_E_INVALID, "--batches: %s has no batch", name);
  memcpy(in->data, (const char *)t->data + number % shape[0] * dj_tensor_bytes(in),
         dj_tensor_bytes(in));
  return DJ_OK;
}

/* Random bytes or numbers of -1..1; masks are 1; tokens below `limit`. */
static void fill(dj_tensor *t, const char *name, uint64_t key, int limit) {
  int64_t n = dj_shape_count(&t->shape);
  size_t length = strlen(name);
  bool mask = length > 5 && !strcmp(name + length - 5, "_mask");
  for (int64_t i = 0; i < n; i++) {
    uint32_t r = dj__philox(key, 0, (uint64_t)i).v[0];
    if (t->dtype == DJ_U8)
      ((uint8_t *)t->data)[i] = (uint8_t)(r >> 24);
    else if (t->dtype == DJ_I32)
      ((int32_t *)t->data)[i] = (int32_t)(r % (uint32_t)limit);
    else
      ((float *)t->data)[i] = mask ? 1.0f : (float)r / 2147483648.0f - 1.0f;
  }
}

static dj_status build(bench *b) {
  assert(b->recipe);
  const dj_recipe_train *t = &b->recipe->train;
  dj_val loss = DJ_NONE;
  b->graph = dj_graph_create();
  b->vars = dj_vars_create(t->seed);
  if (!b->graph || !b->vars) return dj_error(DJ_E_NOMEM, "bench: no memory for the graph");
  DJ_TRY(b->recipe->task == DJ_TASK_TEXT
             ? dj__text_build_train(b->recipe, &b->decoder, b->graph, &loss)
             : dj__drive_build_train(b->recipe, b->cameras, b->graph, &loss));
  DJ_TRY(dj_optimizer_apply(b->graph, loss, &b->optimizer));
  int threads = b->o->threads > 0 ? b->o->threads : t->threads;
  const dj_compile_options how = {.backend = b->o->backend,
                                  .precision = t->precision,
                                  .threads = threads,
                                  .seed = t->seed,
                                  .isa = b->o->isa};
  DJ_TRY(dj_program_compile(b->graph, &how, b->vars, &b->program));
  DJ_TRY(dj_optimizer_start(b->vars));
  for (size_t i = 0; i < N_INPUTS; i++) {
    dj_tensor *in = dj_program_input(b->program, inputs[i]);
    if (in) fill(in, inputs[i], i + 1, b->decoder.vocabulary);
  }
  for (int i = 0; i < dj_program_n_nodes(b->program); i++) {
    dj_node_report r;
    dj_program_node(b->program, i, &r);
    b->flops += r.flops;
  }
  return DJ_OK;
}

static dj_status step(bench *b, uint64_t number) {
  for (size_t i = 0; b->batches && i < N_INPUTS; i++) {
    dj_tensor *in = dj_program_input(b->program, inputs[i]);
    if (in) DJ_TRY(load(b, inputs[i], in, number));
  }
  DJ_TRY(dj_optimizer_fill(b->program, &b->optimizer, number, b->o->lr));
  return dj_program_run(b->program, number);
}

static dj_status measure(bench *b) {
  static double ms[MAX_STEPS];
  int n = 0;
  uint64_t number = 0;
  for (; number < (uint64_t)b->o->losses; number++) {
    DJ_TRY(step(b, number));
    b->loss[number] = *(const float *)dj_program_output(b->program, "loss")->data;
    if (!number) b->first_s = since_start();
  }
  dj_program_profile(b->program, b->o->profile || b->o->alone);
  for (double end = dj__now() + b->o->seconds; n < MAX_STEPS && (n < MIN_STEPS || dj__now() < end);
       n++) {
    double begin = dj__now();
    DJ_TRY(step(b, number++));
    ms[n] = 1e3 * (dj__now() - begin);
  }
  b->steps = n;
  b->ms = dj__median(ms, n);
  b->fastest_ms = ms[0];
  return DJ_OK;
}

static json_t *parameters(bench *b) {
  json_t *all = json_array();
  for (int i = 0; i < dj_vars_count(b->vars); i++) {
    const dj_var *v = dj_vars_get(b->vars, i);
    if (v->kind != DJ_VAR_PARAM) continue;
    json_t *shape = json_array();
    for (int d = 0; d < v->tensor.shape.rank; d++)
      (void)json_array_append_new(shape, json_integer(v->tensor.shape.dim[d]));
    (void)json_array_append_new(all, json_pack("{s:s, s:o}", "name", v->name, "shape", shape));
  }
  return all;
}

static json_t *to_json(bench *b) {
  const dj_recipe *r = b->recipe;
  dj_memory_report m;
  dj_program_memory(b->program, &m);
  json_t *losses = json_array(), *decoder = json_null();
  for (int i = 0; i < b->o->losses; i++)
    (void)json_array_append_new(losses, json_real((double)b->loss[i]));
  const dj__decoder *d = &b->decoder;
  if (r->task == DJ_TASK_TEXT)
    decoder =
        json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:s, s:s, s:b, s:b, s:f, s:f}",
                  "vocabulary", d->vocabulary, "context", d->context, "layers", d->layers, "width",
                  d->width, "heads", d->heads, "kv_heads", d->kv_heads, "mlp_width", d->mlp_width,
                  "norm", d->norm == DJ_NORM_RMS ? "rms" : "layer", "positions",
                  d->positions == DJ_POSITIONS_ROTARY ? "rotary" : "learned", "mlp",
                  d->mlp == DJ_MLP_SWIGLU ? "swiglu" : "gelu", "tied", d->tied, "bias", d->bias,
                  "rope_theta", (double)d->rope_theta, "norm_eps", (double)d->norm_eps);
  static const char *const kinds[] = {[DJ_LOSS_LAPLACE] = "laplace",
                                      [DJ_LOSS_L1] = "l1",
                                      [DJ_LOSS_L2] = "l2",
                                      [DJ_LOSS_HUBER] = "huber"};
  const dj_recipe_loss *l = &r->loss;
  const bool control = (r->data.labels & DJ_LABEL_CONTROL) != 0;
  json_t *loss = json_pack("{s:s, s:f, s:f, s:f, s:f}", "kind", kinds[l->kind], "steering",
                           control ? (double)l->steering : 0.0, "throttle",
                           control ? (double)l->throttle : 0.0, "path", (double)l->path, "choice",
                           (double)l->choice);
  const dj_optimizer *opt = &b->optimizer;
  json_t *optimizer =
      json_pack("{s:f, s:f, s:f, s:f}", "beta1", (double)opt->beta1, "beta2", (double)opt->beta2,
                "eps", (double)opt->eps, "weight_decay", (double)opt->weight_decay);
  return json_pack(
      "{s:s, s:s, s:s, s:{s:i, s:i, s:i, s:i, s:i}, s:f, s:f, s:f, s:b, s:o, s:f, s:f, s:i, s:i,"
      " s:f, s:I, s:I, s:o, s:o, s:f, s:f, s:o, s:o}",
      "recipe", r->name, "network", r->network.name, "precision",
      r->train.precision == DJ_PRECISION_BF16 ? "bf16" : "f32", "input", "batch", r->train.batch,
      "frames", r->data.frames, "cameras", b->cameras, "height", r->data.height, "width",
      r->data.width, "dropout", (double)r->network.dropout, "clip", (double)r->train.clip, "ema",
      (double)r->train.ema, "recurrent", r->network.recurrent, "parameters", parameters(b), "ms",
      b->ms, "fastest_ms", b->fastest_ms, "steps", b->steps, "nodes",
      dj_program_n_nodes(b->program), "gflop", 1e-9 * b->flops, "arena_bytes", (json_int_t)m.arena,
      "lower_bound_bytes", (json_int_t)m.lower_bound, "first_losses", losses, "decoder", decoder,
      "first_step_s", b->first_s, "peak_mib", peak_mib(), "loss", loss, "optimizer", optimizer);
}

static void print(const bench *b) {
  const dj_recipe *r = b->recipe;
  const dj_recipe_data *d = &r->data;
  bool text = r->task == DJ_TASK_TEXT;
  (void)printf("%-16s %-10s %-5s %6d %4dx%-4d %9.2f %9.2f %9.1f %9.1f %7d\n", r->name,
               r->network.name, r->train.precision == DJ_PRECISION_BF16 ? "bf16" : "f32",
               r->train.batch * d->frames, text ? d->context : d->width, text ? 1 : d->height,
               b->ms, b->fastest_ms, 1e-6 * b->flops / b->ms, 1e3 * r->train.batch / b->ms,
               dj_program_n_nodes(b->program));
  (void)fflush(stdout);
}

static dj_status prepare(bench *b, const char *path) {
  const char *p = b->o->precision;
  if (p && strcmp(p, "f32") != 0 && strcmp(p, "bf16") != 0)
    return dj_error(DJ_E_INVALID, "--precision %s: f32 or bf16", p);
  DJ_TRY(dj_recipe_load(path, &b->recipe));
  if (p) b->recipe->train.precision = p[0] == 'b' ? DJ_PRECISION_BF16 : DJ_PRECISION_F32;
  if (b->o->batch > 0) b->recipe->train.batch = b->o->batch;
  b->cameras = b->recipe->data.n_cameras ? (int)b->recipe->data.n_cameras : 1;
  b->optimizer = dj__recipe_optimizer(&b->recipe->train);
  if (b->o->no_dropout) b->recipe->network.dropout = 0;
  if (b->o->batches) DJ_TRY(dj_safetensors_open(b->o->batches, &b->batches));
  if (b->o->context > 0) b->recipe->data.context = b->o->context;
  if (b->recipe->task == DJ_TASK_TEXT) return dj__decoder_of(b->recipe, 65, &b->decoder);
  return DJ_OK;
}

static dj_status bench_one(bench *b, const char *path, json_t *rows) {
  DJ_TRY(prepare(b, path));
  DJ_TRY(build(b));
  if (b->o->save) DJ_TRY(save(b, b->o->save));
  DJ_TRY(measure(b));
  if (!rows)
    print(b);
  else if (json_array_append_new(rows, to_json(b)))
    return dj_error(DJ_E_NOMEM, "no memory for the report");
  if (b->o->profile)
    dj__print_profile(rows ? stderr : stdout,
                      &(dj_train_profile){b->program, b->steps, 1e-3 * b->ms, 0});
  if (b->o->alone) DJ_TRY(dj__print_alone(rows ? stderr : stdout, b->program));
  return DJ_OK;
}

int dj__bench_steps(const dj__steps_options *o, int n, char **recipes) {
  if (n == 0)
    return dj__fail("bench", dj_error(DJ_E_INVALID, "give recipes: dojo bench steps RECIPE..."));
  json_t *rows = o->json ? json_array() : NULL;
  if (!rows)
    (void)printf("%-16s %-10s %-5s %6s %9s %9s %9s %9s %9s %7s\n", "recipe", "network", "dtype",
                 "frames", "size", "ms", "fastest", "GFLOP/s", "samples/s", "nodes");
  dj_status s = DJ_OK;
  for (int i = 0; i < n && !s; i++) {
    bench b = {.o = o};
    s = bench_one(&b, recipes[i], rows);
    dj_program_destroy(b.program);
    dj_graph_destroy(b.graph);
    dj_vars_destroy(b.vars);
    dj_safetensors_close(b.batches);
    dj_recipe_free(b.recipe);
  }
  if (rows && !s) {
    (void)json_dumpf(rows, stdout, JSON_INDENT(1) | JSON_SORT_KEYS);
    (void)putchar('\n');
  }
  json_decref(rows);
  return s ? dj__fail("bench", s) : 0;
}
