/*
 * Programs: a graph after the passes, with a kernel for every node, one arena for all values and
 * the variables bound. Running is a loop over prepared calls: no allocation, no decision.
 *
 * Owns: the rewritten graph, kernels, arena, workspace, buffers of inputs. Variables belong to
 * dj_vars. Kernels that a backend lacks run as reference kernels where memory is the host's; what
 * no kernel can run is found here, when compiling.
 */
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "dojo/log.h"
#include "base/memory.h"
#include "engine/backend.h"
#include "engine/packed.h"
#include "engine/passes/passes.h"

typedef struct step {
  const dj__node *node;
  dj__call call;
  dj__kernel kernel;
  double seconds;
  bool once;               // depends on frozen variables alone
  const dj__copy *packed;  // of input 1, that the kernel reads
  const dj__copy **copies; // of inputs, that the kernel writes
} step;

typedef struct binding {
  const char *name;
  dj_tensor tensor;
} binding;

struct dj_program {
  dj_graph *graph; // after the passes
  const dj__backend *backend;
  dj__backend_options options;
  step *steps;
  int n_steps;
  dj_tensor *tensors; // of all calls
  binding *inputs, *outputs;
  int n_inputs, n_outputs;
  unsigned char *arena, *workspace, *sources;
  dj_vars *vars;
  dj__packed packed;
  dj_memory_report memory;
  size_t workspace_bytes, sources_bytes;
  uint64_t runs;
  bool profile, warm; // warm: steps that run once have run
  bool writes, packs; // variables; and packs all that it writes
};

static int available_threads(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  int n = CPU_COUNT(&set);
  return n > 0 ? n : 1;
}

/* ---- compiling ---- */
/* What a pass made of *g takes its place. */
static dj_status take(dj_status s, dj_graph *const *next, dj_graph **g) {
  if (s) return s;
  dj_graph_destroy(*g);
  *g = *next;
  return DJ_OK;
}

static dj_status copy_graph(const dj_graph *g, dj_graph **out) {
  dj__rewrite r;
  DJ_TRY(dj__rewrite_begin(&r, g));
  for (int i = 0; i < g->n_nodes; i++)
    if (!dj__rewrite_keep(&r, g->nodes[i])) {
      dj__rewrite_abort(&r);
      return dj_error(DJ_E_NOMEM, "compile: out of memory");
    }
  return dj__rewrite_end(&r, out);
}

static dj_status run_passes(const dj_graph *g, const dj_compile_options *o, dj__again what,
                            dj_graph **out) {
  DJ_TRY(copy_graph(g, out));
  uint32_t off = o->passes_off;
  dj_status s = DJ_OK;
  dj_graph *next;
  if (!(off & DJ_PASS_SIMPLIFY)) s = take(dj__pass_simplify(*out, &next), &next, out);
  if (!s && o->precision == DJ_PRECISION_BF16)
    s = take(dj__pass_precision(*out, &next), &next, out);
  if (!s && !(off & DJ_PASS_ROUND) && !(o->frozen && off & DJ_PASS_PACK))
    s = take(dj__pass_round(*out, o->frozen, &next), &next, out);
  if (!s && !(off & DJ_PASS_RECOMPUTE)) s = take(dj__pass_recompute(*out, what, &next), &next, out);
  if (!s && !(off & DJ_PASS_FUSION)) s = take(dj__pass_fusion(*out, &next), &next, out);
  if (s) {
    dj_graph_destroy(*out);
    *out = NULL;
  }
  return s;
}

static size_t padded(size_t n) {
  return (n + 63) & ~(size_t)63;
}

/* Gives sources their memory: variables from vars, inputs and constants in one block. */
static dj_status bind_sources(dj_program *p, dj_vars *vars, void **data) {
  dj_graph *g = p->graph;
  size_t bytes = 0;
  for (int i = 0; i < g->n_nodes; i++) {
    const dj__node *n = g->nodes[i];
    if (!dj__is_source(n)) continue;
    const dj__value *v = &g->values[n->out[0]];
    const dj__source_attr *a = n->attr;
    if (n->op == DJ__OP_variable) {
      dj_var *var;
      if (!vars)
        return dj_error(DJ_E_INVALID, "compile: variable '%s' but no dj_vars given", a->name);
      DJ_TRY(dj_vars_add(vars, a->name, a->kind, v->shape, a->init, &var));
      data[n->out[0]] = var->tensor.data;
      p->memory.variables += dj_tensor_bytes(&var->tensor);
    } else {
      bytes += padded((size_t)dj_shape_count(&v->shape) * dj_dtype_size(v->dtype));
      p->n_inputs += n->op == DJ__OP_input;
    }
  }
  p->sources_bytes = bytes;
  p->memory.inputs = bytes;
  p->sources = p->backend->alloc(bytes ? bytes : 64);
  p->inputs = calloc((size_t)p->n_inputs + 1, sizeof *p->inputs);
  if (!p->sources || !p->inputs)
    return dj_error(DJ_E_NOMEM, "compile: no memory for %zu bytes of inputs", bytes);
  size_t at = 0;
  p->n_inputs = 0;
  for (int i = 0; i < g->n_nodes; i++) {
    const dj__node *n = g->nodes[i];
    if (!dj__is_source(n) || n->op == DJ__OP_variable) continue;
    const dj__value *v = &g->values[n->out[0]];
    const dj__source_attr *a = n->attr;
    size_t size = (size_t)dj_shape_count(&v->shape) * dj_dtype_size(v->dtype);
    data[n->out[0]] = p->sources + at;
    if (n->op == DJ__OP_input)
      p->inputs[p->n_inputs++] = (binding){a->name, {p->sources + at, v->dtype, v->shape}};
    else
      memcpy(p->sources + at, a->data, size);
    at += padded(size);
  }
  return DJ_OK;
}

static dj_status make_kernel(dj_program *p, step *s) {
  const dj__backend *b = p->backend;
  if (b->supports(&s->call, &p->options)) return b->create(&s->call, &p->options, &s->kernel);
  if (b->host_memory) return dj__ref_kernel(&s->call, &s->kernel);
  return dj_error(DJ_E_UNSUPPORTED,
                  "%s at '%s': backend '%s' has no kernel for these shapes and "
                  "types",
                  dj__op_get(s->node->op)->name, s->node->label, b->name);
}

/* Fills the calls; data pointers as far as they are known (NULL where the kernel is to be made). */
static void fill_call(dj_program *p, step *s, dj_tensor **next, void *const *data) {
  const dj_graph *g = p->graph;
  const dj__node *n = s->node;
  dj_tensor *in = *next, *out = in + n->n_in;
  *next = out + n->n_out;
  for (int k = 0; k < n->n_in; k++) {
    dj_val v = n->in[k];
    in[k] = (dj_tensor){.shape.rank = -1};
    if (v >= 0) in[k] = (dj_tensor){data ? data[v] : NULL, g->values[v].dtype, g->values[v].shape};
  }
  for (int k = 0; k < n->n_out; k++) {
    dj_val v = n->out[k];
    out[k] = (dj_tensor){data ? data[v] : NULL, g->values[v].dtype, g->values[v].shape};
  }
  s->call = (dj__call){.op = n->op,
                       .n_in = n->n_in,
                       .n_out = n->n_out,
                       .in = in,
                       .out = out,
                       .attr = n->attr,
                       .seed = s->call.seed,
                       .threads = p->options.threads,
                       .keeps = s->call.keeps,
                       .packed = s->packed ? s->packed->data : NULL,
                       .copies = s->copies};
}

static dj_status make_steps(dj_program *p, const int *order, int n, const bool *frozen,
                            uint64_t seed) {
  size_t tensors = 0;
  for (int i = 0; i < n; i++)
    tensors += (size_t)(p->graph->nodes[order[i]]->n_in + p->graph->nodes[order[i]]->n_out);
  p->steps = calloc((size_t)n + 1, sizeof *p->steps);
  p->tensors = calloc(tensors + 1, sizeof *p->tensors);
  if (!p->steps || !p->tensors) return dj_error(DJ_E_NOMEM, "compile: out of memory");
  p->workspace_bytes = 0;
  dj_tensor *next = p->tensors;
  for (int i = 0; i < n; i++) {
    const dj__node *node = p->graph->nodes[order[i]];
    if (dj__op_get(node->op)->flags & DJ__VIEW) continue;
    step *s = &p->steps[p->n_steps++];
    s->node = node;
    s->once = frozen && node->n_out && frozen[node->out[0]];
    s->call.seed = seed;
    fill_call(p, s, &next, NULL);
    s->call.keeps = node->n_in > 1 && dj__packed_may(&p->packed, node);
    dj_status st = make_kernel(p, s);
    if (st)
      return dj_error_context(st, "compile: %s at '%s'", dj__op_get(node->op)->name, node->label);
    if (s->kernel.workspace > p->workspace_bytes) p->workspace_bytes = s->kernel.workspace;
    s->call.keeps = s->kernel.layout != NULL;
    if (s->kernel.layout) s->packed = dj__packed_want(&p->packed, node->in[1], s->kernel.layout, i);
    if (s->kernel.packs) dj__packed_written(&p->packed, node, i);
  }
  p->memory.workspace = p->workspace_bytes;
  return DJ_OK;
}

static void drop_steps(dj_program *p) {
  for (int i = 0; i < p->n_steps; i++) {
    if (p->steps[i].kernel.destroy) p->steps[i].kernel.destroy(p->steps[i].kernel.self);
    free(p->steps[i].copies);
  }
  free(p->steps);
  free(p->tensors);
  p->steps = NULL;
  p->tensors = NULL;
  p->n_steps = 0;
}

/* Where packed weights are, and who writes them. */
static dj_status bind_packed(dj_program *p, void *const *data, const dj__lasting *lasting) {
  dj__packed_bind(&p->packed, data, lasting, p->arena);
  p->packs = true;
  for (int i = 0; i < p->n_steps; i++) {
    step *s = &p->steps[i];
    if (!(dj__op_get(s->node->op)->flags & DJ__EFFECT)) continue;
    p->writes = true;
    s->copies = dj__packed_updated(&p->packed, s->node);
    if (!s->copies) return dj_error(DJ_E_NOMEM, "compile: out of memory");
    for (int k = 0; k < s->node->n_in; k++) p->packs &= s->kernel.packs || !s->copies[k];
  }
  return DJ_OK;
}

/* Is there room for what is about to be allocated? */
static dj_status check_memory(const dj_program *p, const dj_vars *vars, const dj__plan *plan,
                              uint64_t limit) {
  const double gib = 1024.0 * 1024 * 1024;
  double sources = 0, variables = 0, values = (double)plan->arena;
  for (int i = 0; i < p->graph->n_nodes; i++) {
    const dj__node *n = p->graph->nodes[i];
    if (!dj__is_source(n)) continue;
    const dj__value *v = &p->graph->values[n->out[0]];
    double bytes = (double)dj_shape_count(&v->shape) * (double)dj_dtype_size(v->dtype);
    const dj__source_attr *a = n->attr;
    if (n->op != DJ__OP_variable)
      sources += bytes;
    else if (!vars || !dj_vars_find((dj_vars *)vars, a->name))
      variables += bytes;
  }
  if (!limit) limit = dj__memory_available();
  double kernels = (double)p->memory.workspace;
  double all = sources + variables + values + kernels;
  if (all <= (double)limit) return DJ_OK;
  return dj_error(DJ_E_NOMEM,
                  "compile: needs %.2f GiB (values %.2f, which no plan brings under %.2f; inputs "
                  "%.2f; new variables %.2f; scratch %.2f) where %.2f GiB can be had; use a "
                  "smaller batch, a shorter window, smaller frames or a smaller "
                  "network",
                  all / gib, values / gib, (double)plan->lower_bound / gib, sources / gib,
                  variables / gib, kernels / gib, (double)limit / gib);
}

/* Gives every value its address and finishes the calls. */
static dj_status bind_values(dj_program *p, const dj__plan *plan, const dj__lasting *lasting,
                             void **data) {
  dj_graph *g = p->graph;
  p->memory.arena = plan->arena;
  p->memory.lower_bound = plan->lower_bound;
  p->arena = p->backend->alloc(plan->arena ? plan->arena : 64);
  p->workspace = p->backend->alloc(p->workspace_bytes ? p->workspace_bytes : 64);
  p->outputs = calloc((size_t)g->n_outputs + 1, sizeof *p->outputs);
  if (!p->arena || !p->workspace || !p->outputs)
    return dj_error(DJ_E_NOMEM, "compile: no memory for %zu bytes of values, %zu of scratch",
                    plan->arena, p->workspace_bytes);
  for (int v = 0; v < g->n_values; v++) {
    if (plan->place[v] == DJ__PLACE_ARENA) data[v] = p->arena + plan->offset[v];
    if (plan->place[v] == DJ__PLACE_SOURCE) data[v] = data[plan->source[v]];
  }
  DJ_TRY(bind_packed(p, data, lasting));
  dj_tensor *next = p->tensors;
  for (int i = 0; i < p->n_steps; i++) {
    fill_call(p, &p->steps[i], &next, data);
    p->steps[i].call.workspace = p->workspace;
  }
  for (int i = 0; i < g->n_outputs; i++) {
    dj_val v = g->outputs[i].val;
    p->outputs[p->n_outputs++] =
        (binding){g->outputs[i].name, {data[v], g->values[v].dtype, g->values[v].shape}};
  }
  return DJ_OK;
}

/* A graph after the passes, its order, and where its values live. */
typedef struct prepared {
  dj_graph *graph;
  int *order, n;
  bool *frozen; // (n_values), or NULL
  dj__plan plan;
  dj__lasting *lasting; // copies of weights
} prepared;

static void prepared_free(prepared *r) {
  dj_graph_destroy(r->graph);
  dj__plan_free(&r->plan);
  free(r->frozen);
  free(r->order);
  free(r->lasting);
  *r = (prepared){0};
}

static dj_status prepare(const dj_graph *g, const dj_compile_options *o, dj__again what,
                         prepared *r) {
  *r = (prepared){0};
  dj_status s = run_passes(g, o, what, &r->graph);
  if (!s) s = dj__pass_schedule(r->graph, !(o->passes_off & DJ_PASS_SCHEDULE), &r->order, &r->n);
  if (!s && o->frozen && !(r->frozen = dj__frozen_values(r->graph, r->order, r->n)))
    s = dj_error(DJ_E_NOMEM, "compile: out of memory");
  if (!s)
    s = dj__pass_memory(r->graph, r->order, r->n, !(o->passes_off & DJ_PASS_MEMORY), r->frozen,
                        NULL, 0, &r->plan);
  if (s) prepared_free(r);
  return s;
}

/* Where values take many bytes, some are made again instead of kept: results of norms if that saves
 * a share at all; elementwise ones if it is a tenth, and in f32 only: in bf16 half as much is
 * saved, and beside the faster products it takes 2 % of a step. */
static dj_status prepare_best(const dj_graph *g, const dj_compile_options *o, prepared *r) {
  enum { MANY = 256 << 20 };
  static const int share[] = {[DJ__AGAIN_NORMS] = 64, [DJ__AGAIN_ELEMENTWISE] = 10};
  const dj__again most =
      o->precision == DJ_PRECISION_BF16 ? DJ__AGAIN_NORMS : DJ__AGAIN_ELEMENTWISE;
  DJ_TRY(prepare(g, o, DJ__AGAIN_SEGMENTS, r));
  if (o->frozen || o->passes_off & DJ_PASS_RECOMPUTE || r->plan.arena < MANY) return DJ_OK;
  for (dj__again what = DJ__AGAIN_NORMS; what <= most; what++) {
    prepared other;
    dj_status s = prepare(g, o, what, &other);
    if (s) {
      prepared_free(r);
      return s;
    }
    if (other.plan.arena < r->plan.arena - r->plan.arena / (size_t)share[what]) {
      prepared rest = *r;
      *r = other;
      other = rest;
    }
    prepared_free(&other);
  }
  return DJ_OK;
}

/* Kernels, with copies of these weights. */
static dj_status make_kernels(dj_program *p, const dj_compile_options *o, dj__packing what,
                              prepared *r) {
  DJ_TRY(dj__packed_begin(&p->packed, p->graph, p->backend, what));
  DJ_TRY(make_steps(p, r->order, r->n, r->frozen, o->seed));
  free(r->lasting);
  r->lasting = calloc((size_t)p->packed.n + 1, sizeof *r->lasting);
  return r->lasting ? DJ_OK : dj_error(DJ_E_NOMEM, "compile: out of memory");
}

/* The plan with room for copies, as long as they are in use or (always) in a place of their own;
 * *more: bytes for them. */
static dj_status plan_copies(dj_program *p, const dj_compile_options *o, bool always, prepared *r,
                             size_t values, size_t *more) {
  dj__packed_lasting(&p->packed, always, r->lasting);
  dj__plan_free(&r->plan);
  DJ_TRY(dj__pass_memory(p->graph, r->order, r->n, !(o->passes_off & DJ_PASS_MEMORY), r->frozen,
                         r->lasting, p->packed.n, &r->plan));
  *more = r->plan.arena > values ? r->plan.arena - values : 0;
  return DJ_OK;
}

/* A few copies have places of their own, more of them share memory with values. Matrices have some
 * as long as the program is not much larger for it: networks of large ones need the memory more
 * than the time. */
static dj_status make_best_kernels(dj_program *p, const dj_compile_options *o, prepared *r) {
  enum { SHARE = 6 };
  const size_t values = r->plan.arena;
  size_t all = values, more;
  for (int i = 0; i < p->graph->n_nodes; i++) {
    const dj__node *n = p->graph->nodes[i];
    if (n->op == DJ__OP_variable)
      all += (size_t)dj_shape_count(&p->graph->values[n->out[0]].shape) * sizeof(float);
  }
  DJ_TRY(make_kernels(p, o, o->passes_off & DJ_PASS_PACK ? DJ__PACK_NOTHING : DJ__PACK_ALL, r));
  DJ_TRY(plan_copies(p, o, true, r, values, &more));
  if (more > dj__few_copies) DJ_TRY(plan_copies(p, o, false, r, values, &more));
  if (more > dj__few_copies && more > all / SHARE) {
    drop_steps(p);
    dj__packed_free(&p->packed);
    DJ_TRY(make_kernels(p, o, DJ__PACK_CONVOLUTIONS, r));
    DJ_TRY(plan_copies(p, o, true, r, values, &more));
  }
  for (int i = 0; i < p->packed.n; i++) p->memory.packed += r->lasting[i].bytes;
  return DJ_OK;
}

dj_status dj_program_compile(dj_graph *g, const dj_compile_options *options, dj_vars *vars,
                             dj_program **out) {
  dj_compile_options o = options ? *options : (dj_compile_options){0};
  *out = NULL;
  DJ_TRY(dj_graph_status(g));
  const dj__backend *backend = dj__backend_find(o.backend);
  if (!backend) return DJ_E_NOT_FOUND;
  if (backend->version != DJ__BACKEND_VERSION)
    return dj_error(DJ_E_UNSUPPORTED, "backend '%s' has interface version %u, this engine %d",
                    backend->name, backend->version, DJ__BACKEND_VERSION);
  dj_program *p = calloc(1, sizeof *p);
  if (!p) return dj_error(DJ_E_NOMEM, "compile: out of memory");
  p->backend = backend;
  p->options = (dj__backend_options){o.threads > 0 ? o.threads : available_threads(), o.isa};
  void **data = NULL;
  prepared r = {0};
  dj_status s;
  DJ_TRY_GOTO(s, prepare_best(g, &o, &r));
  p->graph = r.graph;
  p->vars = vars;
  r.graph = NULL;
  DJ_TRY_GOTO(s, make_best_kernels(p, &o, &r));
  DJ_TRY_GOTO(s, check_memory(p, vars, &r.plan, o.memory));
  data = calloc((size_t)p->graph->n_values + 1, sizeof *data);
  if (!data) {
    s = dj_error(DJ_E_NOMEM, "compile: out of memory");
    goto fail;
  }
  DJ_TRY_GOTO(s, bind_sources(p, vars, data));
  DJ_TRY_GOTO(s, bind_values(p, &r.plan, r.lasting, data));
  *out = p;
  p = NULL;
fail:
  dj_program_destroy(p);
  prepared_free(&r);
  free(data);
  return s;
}

void dj_program_destroy(dj_program *p) {
  if (!p) return;
  if (p->vars) dj__vars_settle(p->vars);
  dj__packed_free(&p->packed);
  drop_steps(p);
  if (p->arena) p->backend->free(p->arena, p->memory.arena ? p->memory.arena : 64);
  if (p->workspace) p->backend->free(p->workspace, p->workspace_bytes ? p->workspace_bytes : 64);
  if (p->sources) p->backend->free(p->sources, p->sources_bytes ? p->sources_bytes : 64);
  free(p->inputs);
  free(p->outputs);
  dj_graph_destroy(p->graph);
  free(p);
}

/* ---- running ---- */
dj_tensor *dj_program_input(dj_program *p, const char *name) {
  for (int i = 0; i < p->n_inputs; i++)
    if (!strcmp(p->inputs[i].name, name)) return &p->inputs[i].tensor;
  return NULL;
}

const dj_tensor *dj_program_output(dj_program *p, const char *name) {
  for (int i = 0; i < p->n_outputs; i++)
    if (!strcmp(p->outputs[i].name, name)) return &p->outputs[i].tensor;
  return NULL;
}

static dj_status run_step(step *s, uint64_t number) {
  s->call.step = number;
  dj_status st = s->kernel.run(&s->call, s->kernel.self);
  return st ? dj_error_context(st, "%s at '%s'", dj__op_get(s->node->op)->name, s->node->label)
            : DJ_OK;
}

/* What updates of this program have put off. */
static void settle(void *program) {
  dj_program *p = program;
  for (int i = 0; i < p->n_steps; i++)
    if (p->steps[i].kernel.settle)
      p->steps[i].kernel.settle(&p->steps[i].call, p->steps[i].kernel.self);
}

static void refresh(dj_program *p) {
  if (p->vars) dj__packed_refresh(&p->packed, dj__vars_version(p->vars));
}
/* For steps that run without those that make copies for the next run. */
static void refresh_once(dj_program *p) {
  refresh(p);
  p->packed.version = 0;
}

static dj_status run_steps(dj_program *p, bool warm, uint64_t number) {
  if (!p->profile) {
    for (int i = 0; i < p->n_steps; i++)
      if (!(warm && p->steps[i].once)) DJ_TRY(run_step(&p->steps[i], number));
    return DJ_OK;
  }
  for (int i = 0; i < p->n_steps; i++) {
    if (warm && p->steps[i].once) continue;
    double t = dj__now();
    DJ_TRY(run_step(&p->steps[i], number));
    p->steps[i].seconds += dj__now() - t;
  }
  p->runs++;
  return DJ_OK;
}

dj_status dj_program_run(dj_program *p, uint64_t number) {
  bool warm = p->warm;
  p->warm = true;
  if (p->vars) dj__vars_settle(p->vars);
  refresh(p);
  uint64_t version = p->packed.version; // of our copies behind this run
  if (p->writes) { // copies of other programs are old then; ours are not, if the optimiser packs
    dj_vars_changed(p->vars);
    version = p->packs ? dj__vars_version(p->vars) : 0;
    dj__vars_put_off(p->vars, settle, p);
  }
  p->packed.version = 0; // until it has succeeded
  DJ_TRY(run_steps(p, warm, number));
  p->packed.version = version;
  return DJ_OK;
}

/* Index of the first element that is not finite, or -1. */
static int64_t first_nonfinite(const dj_tensor *t) {
  int64_t n = dj_shape_count(&t->shape);
  if (t->dtype == DJ_F32) {
    const float *x = t->data;
    for (int64_t i = 0; i < n; i++)
      if (!isfinite(x[i])) return i;
  } else if (t->dtype == DJ_BF16) {
    const uint16_t *x = t->data;
    for (int64_t i = 0; i < n; i++)
      if ((x[i] & 0x7f80u) == 0x7f80u) return i;
  }
  return -1;
}

static dj_status nonfinite(const char *what, const char *op, const char *label, const dj_tensor *t,
                           int64_t at) {
  char shape[DJ_SHAPE_TEXT];
  double v = t->dtype == DJ_F32 ? (double)((float *)t->data)[at]
                                : (double)dj_bf16_to_f32(((uint16_t *)t->data)[at]);
  return dj_error(DJ_E_NONFINITE, "%s %s '%s' %s %s holds %f at element %lld", what, op, label,
                  dj_dtype_name(t->dtype), dj_shape_text(&t->shape, shape, sizeof shape), v,
                  (long long)at);
}

dj_status dj_program_find_nonfinite(dj_program *p, uint64_t number) {
  refresh_once(p);
  for (int i = 0; i < p->n_inputs; i++) {
    int64_t at = first_nonfinite(&p->inputs[i].tensor);
    if (at >= 0) return nonfinite("the", "input", p->inputs[i].name, &p->inputs[i].tensor, at);
  }
  for (int i = 0; i < p->n_steps; i++) {
    step *s = &p->steps[i];
    if (dj__op_get(s->node->op)->flags & DJ__EFFECT) continue;
    for (int k = 0; k < s->call.n_in; k++) { // variables are read, never made, by a node
      const dj_tensor *t = &s->call.in[k];
      dj_val v = s->node->in[k];
      const dj__node *maker = v < 0 ? NULL : p->graph->nodes[p->graph->values[v].node];
      int64_t at = maker && maker->op == DJ__OP_variable ? first_nonfinite(t) : -1;
      if (at >= 0)
        return nonfinite("the", "variable", ((dj__source_attr *)maker->attr)->name, t, at);
    }
    DJ_TRY(run_step(s, number));
    for (int k = 0; k < s->call.n_out; k++) {
      int64_t at = first_nonfinite(&s->call.out[k]);
      if (at >= 0)
        return nonfinite(s->node->backward ? "first non-finite value: the gradient node"
                                           : "first non-finite value: the node",
                         dj__op_get(s->node->op)->name, s->node->label, &s->call.out[k], at);
    }
  }
  return DJ_OK;
}

/* ---- reports ---- */
void dj_program_memory(const dj_program *p, dj_memory_report *r) {
  *r = p->memory;
}
int dj_program_n_nodes(const dj_program *p) {
  return p->n_steps;
}

void dj_program_node(const dj_program *p, int i, dj_node_report *r) {
  const step *s = &p->steps[i];
  dj__cost cost = {0};
  const dj__op_def *def = dj__op_get(s->node->op);
  if (def->cost) def->cost(&s->call, &cost);
  *r = (dj_node_report){.op = def->name,
                        .label = s->node->label,
                        .kernel = s->kernel.name,
                        .flops = cost.flops,
                        .bytes = cost.bytes_read + cost.bytes_written,
                        .seconds = p->runs ? s->seconds / (double)p->runs : 0};
  if (s->call.n_out) {
    r->dtype = s->call.out[0].dtype;
    r->shape = s->call.out[0].shape;
  }
}

void dj_program_profile(dj_program *p, bool on) {
  p->profile = on;
  p->runs = 0;
  for (int i = 0; i < p->n_steps; i++) p->steps[i].seconds = 0;
}

/* Scratch and packed weight for a kernel that is not the program's. False: memory is out. */
static bool lend(const dj__backend *b, const dj__kernel *k, dj__call *c) {
  c->workspace = k->workspace ? b->alloc(k->workspace) : NULL;
  void *packed = k->layout ? b->alloc(dj__layout_bytes(k->layout)) : NULL;
  if (packed) b->pack(k->layout, packed, c->in[1].data, 0, k->layout->rows);
  c->packed = packed;
  return (c->workspace || !k->workspace) && (packed || !k->layout);
}
static void take_back(const dj__backend *b, const dj__kernel *k, dj__call *c) {
  if (c->workspace) b->free(c->workspace, k->workspace);
  if (c->packed) b->free((void *)c->packed, dj__layout_bytes(k->layout));
}

static dj_status time_kernel(const dj__kernel *k, const dj__call *c, double seconds, double *mean) {
  DJ_TRY(k->run(c, k->self)); /* what it fetches and makes at first */
  int n = 0;
  double start = dj__now();
  do {
    DJ_TRY(k->run(c, k->self));
    n++;
  } while (dj__now() - start < seconds);
  *mean = (dj__now() - start) / n;
  return DJ_OK;
}

dj_status dj_program_time_alone(dj_program *p, int i, const char *isa, double seconds,
                                double *mean) {
  if (i < 0 || i >= p->n_steps)
    return dj_error(DJ_E_INVALID, "node %d of a program of %d", i, p->n_steps);
  const step *s = &p->steps[i];
  refresh_once(p);
  if (p->writes) dj_vars_changed(p->vars);
  if (!isa) return time_kernel(&s->kernel, &s->call, seconds, mean);
  dj__backend_options o = p->options;
  o.isa = isa;
  dj__kernel k;
  dj__call call = s->call;
  DJ_TRY(p->backend->create(&call, &o, &k));
  dj_status st = lend(p->backend, &k, &call)
                     ? time_kernel(&k, &call, seconds, mean)
                     : dj_error(DJ_E_NOMEM, "no memory for a kernel's scratch");
  take_back(p->backend, &k, &call);
  if (k.destroy) k.destroy(k.self);
  return st;
}
