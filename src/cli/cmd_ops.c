/*
 * `dojo ops`: the op table as people and scripts want to see it. Support is not written down
 * anywhere: each backend is asked, sample by sample, whether it has a kernel.
 */
#include "cli/cli.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "engine/backend.h"

static const char HELP[] =
    "Usage: dojo ops [--json] [--isa NAME] [OP...]\n"
    "\n"
    "The operations of the engine: inputs, gradient, how the precision pass treats them, and "
    "which\n"
    "kernels the cpu backend has of its own: samples with a kernel / samples in all, for f32 and\n"
    "bf16 inputs. Ops and shapes without one run on the reference kernel, which is slow. Costs "
    "and\n"
    "gradients come from the same table; every kernel and gradient is tested on its samples.\n"
    "\n"
    "Example: dojo ops conv2d matmul --json\n";

typedef struct dj__support {
  int f32, bf16; // samples that the backend has a kernel for
} dj__support;

/* Does the backend have a kernel for the sample, floats that follow the precision in `t`? */
static bool supported(const dj__backend *b, const dj__backend_options *o, dj__op op,
                      const dj__sample *s, bool bf16) {
  const dj__op_def *def = dj__op_get(op);
  dj_tensor in[DJ__SAMPLE_IN];
  for (int i = 0; i < s->n_in; i++) {
    in[i] = s->in[i];
    if (bf16 && in[i].shape.rank >= 0 && in[i].dtype == DJ_F32 && def->follow >> i & 1u)
      in[i].dtype = DJ_BF16;
  }
  dj__infer infer = {
      .op_name = def->name, .n_in = s->n_in, .in = in, .attr = s->attr, .n_out = def->n_out};
  for (int k = 0; k < def->n_out; k++) infer.out[k].dtype = in[0].dtype;
  if (def->infer(&infer)) return false;
  dj__call call = {.op = op,
                   .n_in = s->n_in,
                   .n_out = infer.n_out,
                   .in = in,
                   .out = infer.out,
                   .attr = s->attr,
                   .threads = o->threads};
  return b->supports(&call, o);
}

static dj__support support_of(const dj__backend *b, const dj__backend_options *o, dj__op op) {
  const dj__op_def *def = dj__op_get(op);
  bool has_bf16 = def->flags & (DJ__FOLLOW | DJ__COMPUTE);
  dj__support r = {0};
  for (int i = 0; i < def->n_samples; i++) {
    r.f32 += supported(b, o, op, &def->samples[i], false);
    r.bf16 += has_bf16 && supported(b, o, op, &def->samples[i], true);
  }
  return r;
}

static const struct {
  uint32_t flag;
  const char *name;
} flag_names[] = {{DJ__COMPUTE, "compute"}, {DJ__FOLLOW, "follow"},   {DJ__F32_ONLY, "f32"},
                  {DJ__EWISE, "ewise"},     {DJ__VIEW, "view"},       {DJ__EFFECT, "effect"},
                  {DJ__RANDOM, "random"},   {DJ__INPLACE, "inplace"}, {DJ__SOURCE, "source"}};
enum { N_FLAGS = sizeof flag_names / sizeof *flag_names };

static char *flags_text(uint32_t flags, char *buf, size_t size) {
  size_t n = 0;
  buf[0] = 0;
  for (int i = 0; i < N_FLAGS; i++)
    if (flags & flag_names[i].flag && n < size)
      n += (size_t)snprintf(buf + n, size - n, "%s%s", n ? "," : "", flag_names[i].name);
  return buf;
}

static int n_bench(const dj__op_def *def) {
  int n = 0;
  for (int i = 0; i < def->n_samples; i++) n += def->samples[i].bench;
  return n;
}

static bool wanted(const char *name, int n, char **names) {
  for (int i = 0; i < n; i++)
    if (!strcmp(names[i], name)) return true;
  return n == 0;
}

static void print_row(const dj__op_def *def, const dj__support *s) {
  char inputs[24], flags[96], f32[24] = "-", bf16[24] = "-";
  (void)snprintf(inputs, sizeof inputs, def->min_in == def->max_in ? "%d" : "%d-%d", def->min_in,
                 def->max_in);
  bool kernel = !(def->flags & (DJ__SOURCE | DJ__VIEW));
  if (kernel) (void)snprintf(f32, sizeof f32, "%d/%d", s->f32, def->n_samples);
  if (kernel && def->flags & (DJ__FOLLOW | DJ__COMPUTE))
    (void)snprintf(bf16, sizeof bf16, "%d/%d", s->bf16, def->n_samples);
  (void)printf("%-20s %-6s %-8s %7d %9s %9s  %s\n", def->name, inputs,
               def->grad == DJ__NO_GRAD ? "no" : "yes", def->n_samples, f32, bf16,
               flags_text(def->flags, flags, sizeof flags));
}

static json_t *json_row(const dj__op_def *def, const dj__support *s) {
  json_t *flags = json_array();
  for (int i = 0; i < N_FLAGS; i++)
    if (def->flags & flag_names[i].flag)
      (void)json_array_append_new(flags, json_string(flag_names[i].name));
  return json_pack("{s:s, s:i, s:i, s:i, s:b, s:o, s:i, s:i, s:{s:b}, s:{s:i, s:i}}", "name",
                   def->name, "min_inputs", def->min_in, "max_inputs", def->max_in, "outputs",
                   def->n_out, "gradient", def->grad != DJ__NO_GRAD, "flags", flags, "samples",
                   def->n_samples, "bench_samples", n_bench(def), "ref", "f32",
                   !(def->flags & DJ__SOURCE), "cpu", "f32", s->f32, "bf16", s->bf16);
}

static dj_status check_names(int n, char **names) {
  for (int i = 0; i < n; i++) {
    const char *near = NULL;
    int best = 64;
    for (int op = 0; op < DJ__N_OPS && best; op++) {
      int d = dj__edit_distance(names[i], dj__op_get((dj__op)op)->name);
      if (d < best) {
        best = d;
        near = dj__op_get((dj__op)op)->name;
      }
    }
    if (best)
      return dj_error(DJ_E_NOT_FOUND, "there is no op '%s'; the nearest name is '%s'", names[i],
                      near);
  }
  return DJ_OK;
}

int dj__cmd_ops(int argc, char **argv) {
  bool json = false;
  const char *isa = NULL;
  const dj__option options[] = {
      {"json", 0, DJ_OPT_FLAG, &json, NULL, "machine-readable table on stdout"},
      {"isa", 0, DJ_OPT_STRING, &isa, "NAME", "kernels: generic, avx2, avx512, amx, onednn (best)"},
      {0}};
  int n;
  char **names;
  int rc = dj__parse_options(argc, argv, options, HELP, &n, &names);
  if (rc >= 0) return rc;
  dj_status s = check_names(n, names);
  if (s) return dj__fail("ops", s);
  const dj__backend *cpu = dj__backend_find("cpu");
  if (!cpu) return dj__fail("ops", DJ_E_NOT_FOUND);
  dj__backend_options o = {.threads = 1, .isa = isa};
  if (isa && !supported(cpu, &o, DJ__OP_add, &dj__op_get(DJ__OP_add)->samples[0], false))
    return dj__fail("ops", DJ_E_UNSUPPORTED);
  json_t *rows = json_array();
  if (!json)
    (void)printf("%-20s %-6s %-8s %7s %9s %9s  %s\n", "op", "inputs", "gradient", "samples",
                 "cpu f32", "cpu bf16", "flags");
  for (int op = 0; op < DJ__N_OPS; op++) {
    const dj__op_def *def = dj__op_get((dj__op)op);
    if (!wanted(def->name, n, names)) continue;
    dj__support support = support_of(cpu, &o, (dj__op)op);
    if (json)
      (void)json_array_append_new(rows, json_row(def, &support));
    else
      print_row(def, &support);
  }
  if (json) {
    (void)json_dumpf(rows, stdout, JSON_INDENT(1) | JSON_SORT_KEYS);
    (void)putchar('\n');
  }
  json_decref(rows);
  return 0;
}
