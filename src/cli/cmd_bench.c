/*
 * `dojo bench`: times what can be timed without data. `dojo bench ops` runs the samples of the op
 * table that are marked for it and sets each beside the machine's own peaks, measured in the same
 * run: a slower machine, or a busy neighbour, lowers both. `dojo bench steps` runs whole training
 * steps of recipes, `dojo bench world` the driving world.
 */
#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "cli/bench_ops.h"
#include "cli/bench_steps.h"
#include "cli/bench_world.h"
#include "cli/cli.h"

static const char HELP[] =
    "Usage: dojo bench\n"
    "       dojo bench ops [--json] [--op NAME] [--sample NAME] [--dtype f32|bf16] [OP...]\n"
    "       dojo bench steps [--json] [--precision f32|bf16] [--batch N] [--context N]\n"
    "                       [--profile] [--alone] [--save FILE] RECIPE...\n"
    "       dojo bench world [--json] [--threads N] [--seconds S] [ROW]\n"
    "\n"
    "Alone: lists what can be timed. `ops` times every kernel on the large samples of the op\n"
    "table: milliseconds (median), GFLOP/s, GB/s, and the share of the roofline: the least time\n"
    "that the machine's peaks allow (FLOPs / peak, bytes / peak, whichever is more) over the time\n"
    "taken. Peaks are measured first: multiply-adds in registers and matrix products, and "
    "reading,\n"
    "copying and adding arrays of 128 MiB. A share above 100 % means that the tensors fit into a\n"
    "cache. Ops without a kernel run on the reference, once, and say so. Use a quiet machine.\n"
    "\n"
    "`steps` times whole training steps of recipes on made-up frames: forward, backward, update.\n"
    "`world` times the driving world: many worlds at once (64 agents each, with collisions, 8\n"
    "neighbours and observations), one world with its traffic, and cameras (frames of 256 x 128 "
    "and "
    "of\n"
    "six cameras of 400 x 224).\n"
    "\n"
    "Example: dojo bench ops --op conv2d --dtype bf16\n"
    "         dojo bench ops batch_norm layer_norm --json > norms.json\n"
    "         dojo bench steps recipes/donkey.yaml --profile\n";

typedef struct args {
  bool json, no_peaks;
  const char *sample, *dtype;
  int n_ops;
  char **ops;
  const char *op;
} args;

static bool wanted(const args *a, const char *op) {
  if (a->op && !strcmp(a->op, op)) return true;
  for (int i = 0; i < a->n_ops; i++)
    if (!strcmp(a->ops[i], op)) return true;
  return !a->op && a->n_ops == 0;
}

static dj_status check_name(const char *name) {
  const char *near = NULL;
  int best = 1 << 20;
  for (int op = 0; op < DJ__N_OPS; op++) {
    const char *known = dj__op_get((dj__op)op)->name;
    int d = dj__edit_distance(name, known);
    if (d == 0) return DJ_OK;
    if (d < best) best = d, near = known;
  }
  return dj_error(DJ_E_NOT_FOUND, "there is no op '%s'; the nearest name is '%s'", name, near);
}

static dj_status check_args(const args *a) {
  if (a->op) DJ_TRY(check_name(a->op));
  for (int i = 0; i < a->n_ops; i++) DJ_TRY(check_name(a->ops[i]));
  if (a->dtype && strcmp(a->dtype, "f32") != 0 && strcmp(a->dtype, "bf16") != 0)
    return dj_error(DJ_E_INVALID, "--dtype %s: f32 or bf16 (nothing for both)", a->dtype);
  return DJ_OK;
}

static void print_row(const dj__op_def *def, const dj__sample *s, const char *dtype,
                      const dj__timing *t) {
  char share[16] = "-";
  if (t->share > 0) (void)snprintf(share, sizeof share, "%.0f %%", 100 * t->share);
  (void)printf("%-18s %-26s %-5s %-26.26s %9.3f %9.1f %8.1f %8s\n", def->name, s->label, dtype,
               t->kernel, t->ms, t->cost.flops / t->ms * 1e-6,
               (t->cost.bytes_read + t->cost.bytes_written) / t->ms * 1e-6, share);
  (void)fflush(stdout);
}

/* Shapes of the inputs, null for one that is absent. */
static json_t *shapes(const dj__sample *s) {
  json_t *all = json_array();
  for (int i = 0; i < s->n_in; i++) {
    const dj_shape *shape = &s->in[i].shape;
    json_t *one = shape->rank < 0 ? json_null() : json_array();
    for (int d = 0; d < shape->rank; d++)
      (void)json_array_append_new(one, json_integer(shape->dim[d]));
    (void)json_array_append_new(all, one);
  }
  return all;
}

static json_t *json_row(const dj__op_def *def, const dj__sample *s, const char *dtype,
                        const dj__timing *t) {
  double bytes = t->cost.bytes_read + t->cost.bytes_written;
  return json_pack("{s:s, s:s, s:o, s:s, s:s, s:f, s:f, s:i, s:f, s:f, s:f, s:f, s:f}", "op",
                   def->name, "sample", s->label, "inputs", shapes(s), "dtype", dtype, "kernel",
                   t->kernel, "ms", t->ms, "fastest_ms", t->fastest_ms, "runs", t->runs, "flops",
                   t->cost.flops, "bytes", bytes, "gflops", t->cost.flops / t->ms * 1e-6, "gbytes",
                   bytes / t->ms * 1e-6, "roofline", t->share);
}

/* One sample in one precision; a row is appended to rows, or printed where that is NULL. */
static dj_status bench_one(const dj__bench_options *o, const dj__peaks *peaks, dj__op op,
                           const dj__sample *s, bool bf16, json_t *rows) {
  dj__timing t;
  const dj__op_def *def = dj__op_get(op);
  dj_status status = dj__bench_sample(o, op, s, bf16, peaks, &t);
  if (status) return dj_error_context(status, "%s, sample '%s'", def->name, s->label);
  const char *dtype = bf16 ? "bf16" : "f32";
  if (!rows)
    print_row(def, s, dtype, &t);
  else if (json_array_append_new(rows, json_row(def, s, dtype, &t)))
    return dj_error(DJ_E_NOMEM, "no memory for the report");
  return DJ_OK;
}

static dj_status bench_all(const dj__bench_options *o, const dj__peaks *peaks, const args *a,
                           json_t *rows, int *n) {
  for (int op = 0; op < DJ__N_OPS; op++) {
    const dj__op_def *def = dj__op_get((dj__op)op);
    bool has_bf16 = def->flags & (DJ__FOLLOW | DJ__COMPUTE);
    if (!wanted(a, def->name)) continue;
    for (int i = 0; i < def->n_samples; i++) {
      const dj__sample *s = &def->samples[i];
      if (!s->bench || (a->sample && strcmp(a->sample, s->label) != 0)) continue;
      for (int bf16 = 0; bf16 < 1 + has_bf16; bf16++) {
        if (a->dtype && strcmp(a->dtype, bf16 ? "bf16" : "f32") != 0) continue;
        DJ_TRY(bench_one(o, peaks, (dj__op)op, s, bf16, rows));
        (*n)++;
      }
    }
  }
  return DJ_OK;
}

static int finish(const dj__bench_options *o, const dj__peaks *peaks, json_t *rows) {
  json_t *report =
      json_pack("{s:s, s:i, s:{s:f, s:f, s:f}, s:o}", "backend", o->backend->name, "threads",
                o->kernel.threads, "peaks", "f32_gflops", peaks->f32 * 1e-9, "bf16_gflops",
                peaks->bf16 * 1e-9, "gbytes", peaks->bandwidth * 1e-9, "ops", rows);
  if (!report) return dj__fail("bench", dj_error(DJ_E_NOMEM, "no memory for the report"));
  (void)json_dumpf(report, stdout, JSON_INDENT(1) | JSON_SORT_KEYS);
  (void)putchar('\n');
  json_decref(report);
  return 0;
}

static int bench_ops(const args *a, const dj__bench_options *o) {
  dj__peaks peaks = {0};
  dj_status s = check_args(a);
  if (!s && !a->no_peaks) s = dj__bench_peaks(o, &peaks);
  if (s) return dj__fail("bench", s);
  json_t *rows = a->json ? json_array() : NULL;
  if (!a->json) {
    if (!a->no_peaks)
      (void)printf("peaks of %d threads: f32 %.0f GFLOP/s, bf16 %.0f GFLOP/s, memory %.1f GB/s\n",
                   o->kernel.threads, peaks.f32 * 1e-9, peaks.bf16 * 1e-9, peaks.bandwidth * 1e-9);
    (void)printf("%-18s %-26s %-5s %-26s %9s %9s %8s %8s\n", "op", "sample", "dtype", "kernel",
                 "ms", "GFLOP/s", "GB/s", "roofline");
  }
  int n = 0;
  s = bench_all(o, a->no_peaks ? NULL : &peaks, a, rows, &n);
  if (!s && !n)
    s = dj_error(DJ_E_NOT_FOUND, "no large sample of that op, name and dtype; `dojo ops --json` "
                                 "counts them, `dojo bench ops --op NAME` names them");
  if (s) {
    json_decref(rows);
    return dj__fail("bench", s);
  }
  return a->json ? finish(o, &peaks, rows) : 0;
}

static int list(void) {
  int samples = 0, ops = 0;
  for (int op = 0; op < DJ__N_OPS; op++) {
    const dj__op_def *def = dj__op_get((dj__op)op);
    int n = 0;
    for (int i = 0; i < def->n_samples; i++) n += def->samples[i].bench;
    samples += n;
    ops += n > 0;
  }
  (void)printf("dojo bench ops    kernels of %d ops on %d large samples, beside the machine's "
               "peaks\n"
               "dojo bench steps  whole training steps of recipes\n"
               "dojo bench world  the driving world: agent-steps, steps, camera frames\n"
               "dojo bench --help says more; bench/run also compares with peers\n",
               ops, samples);
  return 0;
}

/* What is asked for beyond `args`. */
typedef struct limits {
  int64_t threads, batch, context, losses;
  double seconds;
} limits;

static dj_status check_limits(const limits *l) {
  if (l->threads >= 0 && l->threads <= 4096 && l->batch >= 0 && l->batch <= 65536 &&
      l->context >= 0 && l->context <= 1 << 20 && l->losses >= 3 && l->losses <= 1000 &&
      l->seconds >= 0 && l->seconds <= 3600)
    return DJ_OK;
  return dj_error(DJ_E_INVALID,
                  "--threads %lld --batch %lld --seconds %g: 0 to 4096 threads, 0 to 65536 samples,"
                  " 0 to 3600 seconds; --losses 3 to 1000",
                  (long long)l->threads, (long long)l->batch, l->seconds);
}

int dj__cmd_bench(int argc, char **argv) {
  args a = {0};
  limits l = {.seconds = NAN, .losses = 3};
  dj__steps_options steps = {.backend = "cpu", .lr = 1e-6};
  const dj__option options[] = {
      {"json", 0, DJ_OPT_FLAG, &a.json, NULL, "machine-readable report on stdout"},
      {"op", 0, DJ_OPT_STRING, &a.op, "NAME", "ops: only this one"},
      {"sample", 0, DJ_OPT_STRING, &a.sample, "NAME", "ops: only samples of this name"},
      {"dtype", 0, DJ_OPT_STRING, &a.dtype, "TYPE", "ops: f32 or bf16 (both)"},
      {"no-peaks", 0, DJ_OPT_FLAG, &a.no_peaks, NULL, "ops: do not measure peaks: no roofline"},
      {"precision", 0, DJ_OPT_STRING, &steps.precision, "P", "steps: f32 or bf16 (the recipe's)"},
      {"batch", 0, DJ_OPT_INT, &l.batch, "N", "steps: samples (the recipe's)"},
      {"context", 0, DJ_OPT_INT, &l.context, "N", "steps: tokens of a text recipe (the recipe's)"},
      {"save", 0, DJ_OPT_STRING, &steps.save, "FILE", "steps: write first weights and batch there"},
      {"batches", 0, DJ_OPT_STRING, &steps.batches, "FILE",
       "steps: inputs from a safetensors file, (N, ...): step k takes k modulo N"},
      {"losses", 0, DJ_OPT_INT, &l.losses, "N", "steps: first losses in the JSON report (3)"},
      {"lr", 0, DJ_OPT_DOUBLE, &steps.lr, "LR", "steps: learning rate (1e-6)"},
      {"no-dropout", 0, DJ_OPT_FLAG, &steps.no_dropout, NULL, "steps: dropout 0"},
      {"profile", 0, DJ_OPT_FLAG, &steps.profile, NULL, "steps: print the time of each node"},
      {"alone", 0, DJ_OPT_FLAG, &steps.alone, NULL,
       "steps: time products alone as well, beside oneDNN's"},
      {"backend", 0, DJ_OPT_STRING, &steps.backend, "NAME", "cpu or ref (cpu)"},
      {"isa", 0, DJ_OPT_STRING, &steps.isa, "NAME",
       "kernels: generic, avx2, avx512, amx, onednn (best)"},
      {"threads", 0, DJ_OPT_INT, &l.threads, "N", "threads (all cores this process may use)"},
      {"seconds", 0, DJ_OPT_DOUBLE, &l.seconds, "S", "for each kernel (0.3), recipe or row (3)"},
      {0}};
  int n;
  char **pos;
  int rc = dj__parse_options(argc, argv, options, HELP, &n, &pos);
  if (rc >= 0) return rc;
  if (n == 0) return list();
  bool whole = !strcmp(pos[0], "steps"), world = !strcmp(pos[0], "world");
  if (!whole && !world && strcmp(pos[0], "ops") != 0)
    return dj__fail("bench", dj_error(DJ_E_INVALID,
                                      "'%s' cannot be timed; `dojo bench` lists what "
                                      "can",
                                      pos[0]));
  if (isnan(l.seconds)) l.seconds = whole || world ? 3 : 0.3;
  if (check_limits(&l)) return dj__fail("bench", DJ_E_INVALID);
  if (world)
    return dj__bench_world(&(dj__bench_world_options){.threads = (int)l.threads,
                                                      .seconds = l.seconds,
                                                      .only = n > 1 ? pos[1] : NULL,
                                                      .json = a.json});
  dj__bench_options o = {.backend = dj__backend_find(steps.backend), .seconds = l.seconds};
  if (!o.backend) return dj__fail("bench", DJ_E_NOT_FOUND);
  if (!dj__kernels_find(steps.isa)) return dj__fail("bench", DJ_E_UNSUPPORTED);
  if (whole) {
    steps.json = a.json;
    steps.threads = (int)l.threads;
    steps.batch = (int)l.batch;
    steps.context = (int)l.context;
    steps.losses = (int)l.losses;
    steps.seconds = l.seconds;
    return dj__bench_steps(&steps, n - 1, pos + 1);
  }
  a.n_ops = n - 1;
  a.ops = pos + 1;
  o.kernel = (dj__backend_options){l.threads ? (int)l.threads : omp_get_num_procs(), steps.isa};
  return bench_ops(&a, &o);
}
