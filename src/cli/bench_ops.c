/*
 * Timing of single kernels. Inputs hold the values that the sample asks for, so that no kernel
 * meets denormals or indices that it would not meet in a network. A kernel runs once unseen (page
 * faults, caches, clocks), then until its share of time is spent; the median counts. Updates change
 * their own inputs from run to run, which costs them nothing.
 */
#include "cli/bench_ops.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/bench_median.h"
#include "backend/cpu/cpu.h"
#include "base/rng.h"

enum { MIN_RUNS = 3, MAX_RUNS = 201 };

/* A call with memory from the backend. */
typedef struct bench {
  const dj__backend *backend;
  dj__call call;
  dj_tensor in[DJ__SAMPLE_IN], out[DJ__MAX_OUT];
  dj__kernel kernel;
  size_t workspace;
} bench;

static void bench_free(bench *b) {
  for (int i = 0; i < DJ__SAMPLE_IN; i++)
    if (b->in[i].data) b->backend->free(b->in[i].data, dj_tensor_bytes(&b->in[i]));
  for (int k = 0; k < DJ__MAX_OUT; k++)
    if (b->out[k].data) b->backend->free(b->out[k].data, dj_tensor_bytes(&b->out[k]));
  if (b->call.workspace) b->backend->free(b->call.workspace, b->workspace);
  if (b->kernel.destroy) b->kernel.destroy(b->kernel.self);
  *b = (bench){0};
}

static dj_status give_memory(const bench *b, dj_tensor *t) {
  t->data = b->backend->alloc(dj_tensor_bytes(t));
  if (t->data) return DJ_OK;
  return dj_error(DJ_E_NOMEM, "%s: no memory for a tensor of %zu bytes",
                  dj__op_get(b->call.op)->name, dj_tensor_bytes(t));
}

/* Values of a period of random numbers, as the sample wants them. */
static void fill(dj_tensor *t, const dj__sample *s, int k) {
  enum { PERIOD = 65521 };
  float lo = s->range[k].lo, hi = s->range[k].hi, away = s->range[k].away;
  bool is_float = t->dtype == DJ_F32 || t->dtype == DJ_BF16;
  if (lo == 0 && hi == 0) {
    lo = is_float ? -1 : 0;
    hi = t->dtype == DJ_U8 ? 256 : 1;
  }
  dj__rng r = {.key = 17, .stream = (uint64_t)k};
  size_t size = dj_dtype_size(t->dtype);
  int64_t n = dj_shape_count(&t->shape);
  for (int64_t i = 0; i < n && i < PERIOD; i++) {
    float v = dj__rng_uniform(&r, lo, hi);
    for (int tries = 0; fabsf(v) < away && tries < 100; tries++) v = dj__rng_uniform(&r, lo, hi);
    if (!is_float) v = floorf(v < hi ? v : lo);
    if (t->dtype == DJ_F32)
      ((float *)t->data)[i] = v;
    else if (t->dtype == DJ_BF16)
      ((uint16_t *)t->data)[i] = dj_f32_to_bf16(v);
    else if (t->dtype == DJ_I32)
      ((int32_t *)t->data)[i] = (int32_t)v;
    else
      ((uint8_t *)t->data)[i] = (uint8_t)v;
  }
  for (int64_t i = PERIOD; i < n; i += PERIOD)
    memcpy((char *)t->data + (size_t)i * size, t->data,
           (size_t)(n - i < PERIOD ? n - i : PERIOD) * size);
}

static dj_status infer(bench *b, dj__op op, const dj__sample *s, bool bf16) {
  const dj__op_def *def = dj__op_get(op);
  for (int i = 0; i < s->n_in; i++) {
    b->in[i] = s->in[i];
    if (bf16 && s->in[i].shape.rank >= 0 && s->in[i].dtype == DJ_F32 && def->follow >> i & 1u)
      b->in[i].dtype = DJ_BF16;
  }
  dj__infer shape = {
      .op_name = def->name, .n_in = s->n_in, .in = b->in, .attr = s->attr, .n_out = def->n_out};
  for (int k = 0; k < def->n_out; k++) shape.out[k].dtype = b->in[0].dtype;
  DJ_TRY(def->infer(&shape));
  memcpy(b->out, shape.out, sizeof b->out);
  b->call.n_out = shape.n_out;
  return DJ_OK;
}

static dj_status bench_make(bench *b, const dj__bench_options *o, dj__op op, const dj__sample *s,
                            bool bf16) {
  *b = (bench){.backend = o->backend};
  b->call = (dj__call){.op = op,
                       .n_in = s->n_in,
                       .in = b->in,
                       .out = b->out,
                       .attr = s->attr,
                       .seed = 7,
                       .step = 3,
                       .threads = o->kernel.threads};
  DJ_TRY(infer(b, op, s, bf16));
  if (o->backend->supports(&b->call, &o->kernel))
    DJ_TRY(o->backend->create(&b->call, &o->kernel, &b->kernel));
  else
    DJ_TRY(dj__ref_kernel(&b->call, &b->kernel));
  for (int i = 0; i < s->n_in; i++) {
    if (b->in[i].shape.rank < 0) continue;
    DJ_TRY(give_memory(b, &b->in[i]));
    fill(&b->in[i], s, i);
  }
  for (int k = 0; k < b->call.n_out; k++) DJ_TRY(give_memory(b, &b->out[k]));
  b->workspace = b->kernel.workspace + 64;
  b->call.workspace = o->backend->alloc(b->workspace);
  if (!b->call.workspace) return dj_error(DJ_E_NOMEM, "no memory for %zu bytes", b->workspace);
  return DJ_OK;
}

/* Median and fastest of several runs, in ms; fewer where one run takes long. */
static dj_status measure(bench *b, double seconds, dj__timing *t) {
  double ms[MAX_RUNS];
  double begin = dj__now();
  DJ_TRY(b->kernel.run(&b->call, b->kernel.self));
  double first = dj__now() - begin;
  int n = 0;
  begin = dj__now();
  while (n < MAX_RUNS && (n < (first > seconds ? 1 : MIN_RUNS) || dj__now() - begin < seconds)) {
    double start = dj__now();
    DJ_TRY(b->kernel.run(&b->call, b->kernel.self));
    ms[n++] = 1e3 * (dj__now() - start);
  }
  t->runs = n;
  t->ms = dj__median(ms, n);
  t->fastest_ms = ms[0];
  return DJ_OK;
}

dj_status dj__bench_sample(const dj__bench_options *o, dj__op op, const dj__sample *s, bool bf16,
                           const dj__peaks *peaks, dj__timing *t) {
  bench b;
  *t = (dj__timing){0};
  dj_status status = bench_make(&b, o, op, s, bf16);
  if (!status) {
    (void)snprintf(t->kernel, sizeof t->kernel, "%s", b.kernel.name ? b.kernel.name : "?");
    dj__op_get(op)->cost(&b.call, &t->cost);
    status = measure(&b, o->seconds, t);
  }
  if (!status && peaks && t->ms > 0) {
    bool compute = dj__op_get(op)->flags & DJ__COMPUTE;
    double flops = t->cost.flops / (bf16 && compute ? peaks->bf16 : peaks->f32);
    double bytes = (t->cost.bytes_read + t->cost.bytes_written) / peaks->bandwidth;
    t->share = 1e3 * (flops > bytes ? flops : bytes) / t->ms;
  }
  bench_free(&b);
  return status;
}

/* ---- peaks ---- */
/* Multiply-adds of all threads at once, per second: the best of a few tries. */
static double peak_of_registers(const dj__bench_options *o) {
  const dj__kernels *k = dj__kernels_find(o->kernel.isa);
  double best = 0;
  for (int i = 0; k && i < 5; i++) {
    double flops = 0, begin = dj__now();
    volatile float keep = 0;
#pragma omp parallel num_threads(o->kernel.threads) reduction(+ : flops)
    {
      double f = 0;
      float x = k->fma_loop(1 << 20, &f);
      flops += f;
      if (omp_get_thread_num() == 0) keep = x;
    }
    (void)keep;
    best = fmax(best, flops / (dj__now() - begin));
  }
  return best;
}

static double peak_of_matmul(const dj__bench_options *o, bool bf16) {
  static const dj__matmul_attr attr = {.tb = true};
  const dj__sample s = {.label = "peak",
                        .n_in = 2,
                        .in = {{.dtype = DJ_F32, .shape = DJ_SHAPE(1536, 1536)},
                               {.dtype = DJ_F32, .shape = DJ_SHAPE(1536, 1536)}},
                        .attr = &attr,
                        .attr_size = sizeof attr};
  dj__bench_options few = *o;
  few.seconds = 0.2;
  dj__timing t;
  if (dj__bench_sample(&few, DJ__OP_matmul, &s, bf16, NULL, &t)) return 0;
  return strcmp(t.kernel, "reference") ? 1e3 * t.cost.flops / t.fastest_ms : 0;
}

/* Bytes per second of reading, copying and adding arrays far larger than the caches (after
 * McCalpin's STREAM): the best of the three, which are counted as the op table counts. */
static double peak_of_memory(const dj__bench_options *o, float *a, const float *b, const float *c,
                             int64_t n) {
  double best = 0;
  for (int i = 0; i < 12; i++) {
    double begin = dj__now(), bytes = 0;
    float sum = 0;
#pragma omp parallel for simd schedule(static) num_threads(o->kernel.threads) reduction(+ : sum)
    for (int64_t k = 0; k < n; k++) sum += b[k];
    bytes = (double)n * sizeof *a;
    best = fmax(best, bytes / (dj__now() - begin));
    begin = dj__now();
#pragma omp parallel for simd schedule(static) num_threads(o->kernel.threads)
    for (int64_t k = 0; k < n; k++) a[k] = b[k];
    best = fmax(best, 2 * bytes / (dj__now() - begin));
    begin = dj__now();
#pragma omp parallel for simd schedule(static) num_threads(o->kernel.threads)
    for (int64_t k = 0; k < n; k++) a[k] = b[k] + 3.0f * c[k];
    best = fmax(best, 3 * bytes / (dj__now() - begin));
    if (!isfinite(sum)) return 0;
  }
  return best;
}

dj_status dj__bench_peaks(const dj__bench_options *o, dj__peaks *p) {
  enum { N = 1 << 25 };
  const size_t bytes = N * sizeof(float);
  float *a = o->backend->alloc(bytes), *b = o->backend->alloc(bytes), *c = o->backend->alloc(bytes);
  *p = (dj__peaks){0};
  if (a && b && c) p->bandwidth = peak_of_memory(o, a, b, c, N);
  o->backend->free(a, bytes);
  o->backend->free(b, bytes);
  o->backend->free(c, bytes);
  if (!(p->bandwidth > 0))
    return dj_error(DJ_E_NOMEM, "no memory to measure the peaks with (%zu bytes)", 3 * bytes);
  p->f32 = fmax(peak_of_registers(o), peak_of_matmul(o, false));
  p->bf16 = fmax(p->f32, peak_of_matmul(o, true));
  return DJ_OK;
}
