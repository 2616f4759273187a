/*
 * The static graph: values made by operations (ops.h), their gradients, and programs compiled from
 * them. Build, differentiate, compile, run:
 *
 *     dj_graph *g = dj_graph_create();
 *     dj_val x = dj_input(g, "x", DJ_F32, DJ_SHAPE(32, 10));         // (B, I)
 *     dj_val w = dj_param(g, "w", DJ_SHAPE(1, 10), dj_init_normal(0.1f));
 *     dj_val y = dj_input(g, "y", DJ_F32, DJ_SHAPE(32, 1));
 *     dj_val loss = dj_mean(g, dj_l2(g, dj_linear(g, x, w, DJ_NONE), y), DJ_ALL_AXES);
 *     dj_output(g, "loss", loss);
 *     dj_optimizer_apply(g, loss, &(dj_optimizer){.kind = DJ_ADAMW});   // train.h: gradients +
 * update DJ_TRY(dj_graph_status(g));                                    // the first error, if any
 *     dj_vars *vars = dj_vars_create(seed);
 *     DJ_TRY(dj_program_compile(g, &(dj_compile_options){.precision = DJ_PRECISION_BF16}, vars,
 * &p)); memcpy(dj_program_input(p, "x")->data, ...); DJ_TRY(dj_program_run(p, step)); float l =
 * *(float *)dj_program_output(p, "loss")->data;
 *
 * Errors while building are sticky: an op given a bad shape records an error that names the op, the
 * shapes and the caller's label, and returns DJ_NONE; ops given DJ_NONE return DJ_NONE. Check
 * dj_graph_status once.
 *
 * A graph is used from one thread. Everything is deterministic: same seed, step, inputs, machine
 * and thread count give the same bits.
 */
#ifndef DOJO_GRAPH_H
#define DOJO_GRAPH_H

#include "dojo/status.h"
#include "dojo/tensor.h"

typedef struct dj_graph dj_graph;
typedef int32_t dj_val; /* a value in a graph */
#define DJ_NONE (-1)

dj_graph *dj_graph_create(void); /* NULL when memory is out */
void dj_graph_destroy(dj_graph *g);
dj_status dj_graph_status(const dj_graph *g); /* re-raises the first error with its message */

/* Labels name nodes in errors, reports and variable names: "backbone/stage1/conv". Nested with '/'.
 */
void dj_graph_push(dj_graph *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void dj_graph_pop(dj_graph *g);

/* What is made between these is a segment: of its values only those that other parts of the forward
 * pass read are kept for the backward pass, the others are computed again there. Trades a second
 * forward pass of the segment for its memory. Not nested. */
void dj_recompute_begin(dj_graph *g);
void dj_recompute_end(dj_graph *g);

dj_shape dj_val_shape(const dj_graph *g, dj_val v); /* rank 0 for DJ_NONE */
dj_dtype dj_val_dtype(const dj_graph *g, dj_val v);

/* ---- sources ---- */
typedef enum dj_init_kind {
  DJ_INIT_CONST,
  DJ_INIT_NORMAL,
  DJ_INIT_UNIFORM,
  DJ_INIT_LATE
} dj_init_kind;
typedef struct dj_init {
  dj_init_kind kind;
  float a; /* value, standard deviation, or half width */
} dj_init;
static inline dj_init dj_init_const(float v) {
  return (dj_init){DJ_INIT_CONST, v};
}
static inline dj_init dj_init_normal(float std) {
  return (dj_init){DJ_INIT_NORMAL, std};
}
static inline dj_init dj_init_uniform(float a) {
  return (dj_init){DJ_INIT_UNIFORM, a};
}
/* Zero, in memory that is not fetched from the system before it is used. */
static inline dj_init dj_init_late(void) {
  return (dj_init){DJ_INIT_LATE, 0};
}
/* He et al. 2015, for ReLU-like networks: normal with std = sqrt(2 / fan_in). */
dj_init dj_init_he(int64_t fan_in);

/* Filled by the caller before each run. Names are unique in a graph. */
dj_val dj_input(dj_graph *g, const char *name, dj_dtype t, dj_shape s);
/* Trainable variable, f32 master. The full name is the label path + name. Values are a function of
 * (vars' seed, full name). */
dj_val dj_param(dj_graph *g, const char *name, dj_shape s, dj_init init);
/* Persistent, not trainable (running statistics, moments). */
dj_val dj_state(dj_graph *g, const char *name, dj_shape s, dj_init init);
/* Constants: copied. */
dj_val dj_const_f32(dj_graph *g, const float *data, dj_shape s);
dj_val dj_const_i32(dj_graph *g, const int32_t *data, dj_shape s);
dj_val dj_scalar(dj_graph *g, float v);

/* Makes a value readable after each run under `name`. */
void dj_output(dj_graph *g, const char *name, dj_val v);

/* ---- differentiation ---- */
/* Adds nodes that compute d(loss)/d(v) for every value that needs one. `loss` is an f32 scalar. */
dj_status dj_graph_backward(dj_graph *g, dj_val loss);
/* Gradient of the last dj_graph_backward; DJ_NONE where the loss does not depend on v. */
dj_val dj_grad(const dj_graph *g, dj_val v);
/* Asks for gradients with respect to an input (for tests and adversaries). Before the first op that
 * reads it. */
void dj_require_grad(dj_graph *g, dj_val v);
/* Trainable variables in order of creation. */
int dj_graph_n_params(const dj_graph *g);
dj_val dj_graph_param(const dj_graph *g, int i);
const char *dj_graph_param_name(const dj_graph *g, int i);

/* ---- persistent variables: shared by all programs of a network (training, evaluation) ---- */
typedef enum dj_var_kind { DJ_VAR_PARAM, DJ_VAR_STATE } dj_var_kind;
typedef struct dj_var {
  const char *name;
  dj_var_kind kind;
  dj_tensor tensor; /* f32 */
} dj_var;
typedef struct dj_vars dj_vars;
dj_vars *dj_vars_create(uint64_t seed); /* NULL when memory is out */
void dj_vars_destroy(dj_vars *v);       /* after the programs that use it */
/* Large moments of AdamW are written only when a second update or one of dj_vars_get, _find and
 * _add asks for them: a tensor got before a run may not hold them behind it. Programs keep copies
 * of weights as their kernels like them, and make them anew after one of the functions below gave
 * out a variable. Who writes to it later than before the next run says so. */
void dj_vars_changed(dj_vars *v);
int dj_vars_count(const dj_vars *v);
dj_var *dj_vars_get(dj_vars *v, int i); /* in order of creation */
dj_var *dj_vars_find(dj_vars *v, const char *name);
/* Finds or makes and initialises. Another shape under the same name is DJ_E_INVALID. */
dj_status dj_vars_add(dj_vars *v, const char *name, dj_var_kind kind, dj_shape s, dj_init init,
                      dj_var **out);

/* ---- compiling and running ---- */
typedef enum dj_precision { DJ_PRECISION_F32, DJ_PRECISION_BF16 } dj_precision;
/* Passes; each can be switched off, and the result stays the same (to rounding). */
typedef enum dj_pass {
  DJ_PASS_SIMPLIFY = 1 << 0,  /* dead code, common subexpressions */
  DJ_PASS_FUSION = 1 << 1,    /* into batch norm, matmul and conv; elementwise chains */
  DJ_PASS_MEMORY = 1 << 2,    /* reuse of dead values' memory; off: every value has its own */
  DJ_PASS_SCHEDULE = 1 << 3,  /* memory-aware order; off: order of creation */
  DJ_PASS_RECOMPUTE = 1 << 4, /* values of segments are made again; off: kept */
  DJ_PASS_ROUND = 1 << 5,     /* products round weights themselves; off: they read bf16 copies */
  DJ_PASS_PACK = 1 << 6 /* copies of weights as kernels like them are kept; off: made in each run */
} dj_pass;

typedef struct dj_compile_options {
  const char *backend;    /* "cpu" (NULL), "ref" */
  dj_precision precision; /* of compute; masters, reductions and losses are always f32 */
  uint32_t passes_off;    /* dj_pass bits */
  int threads;            /* 0: all cores this process may use */
  uint64_t seed;          /* dropout and the like */
  const char *isa; /* CPU kernels: NULL (best), "generic", "avx2", "avx512", "amx", "onednn" (its
                      own wherever it has one). With AMX the best make f32 products of bf16 limbs,
                      as accurate; "avx512" keeps to f32 arithmetic */
  bool frozen;     /* no variable changes between runs, except those that the program itself
                      writes: what depends on the others alone (bf16 copies of weights) is
                      computed in the first run and kept */
  uint64_t memory; /* bytes it may take; 0: what this machine has left. DJ_E_NOMEM, before
                      anything is allocated, for a program that needs more */
} dj_compile_options;

typedef struct dj_program dj_program;
dj_status dj_program_compile(dj_graph *g, const dj_compile_options *o, dj_vars *vars,
                             dj_program **p);
void dj_program_destroy(dj_program *p); /* the graph may go before or after */
/* Buffers of inputs and outputs by name, valid as long as the program; NULL where there is none. */
dj_tensor *dj_program_input(dj_program *p, const char *name);
const dj_tensor *dj_program_output(dj_program *p, const char *name);
/* Runs everything once: forward, backward, update. `step` selects the random numbers. No
 * allocation. */
dj_status dj_program_run(dj_program *p, uint64_t step);
/* Runs once more with the same inputs, updating nothing, and looks for the first node whose output
 * is not finite. DJ_E_NONFINITE with its op, label and shape; DJ_OK if all are finite. */
dj_status dj_program_find_nonfinite(dj_program *p, uint64_t step);

typedef struct dj_memory_report {
  size_t variables;   /* bytes of persistent variables */
  size_t inputs;      /* inputs and constants */
  size_t arena;       /* planned memory for all other values, and copies of weights */
  size_t packed;      /* these copies, in their kernels' layouts */
  size_t lower_bound; /* most bytes of values alive at once: no plan can need less */
  size_t workspace;   /* kernels' scratch */
} dj_memory_report;
void dj_program_memory(const dj_program *p, dj_memory_report *r);

/* One line a node: op, label, shape, dtype, kernel; with seconds per node if profiled. */
typedef struct dj_node_report {
  const char *op, *label, *kernel;
  dj_dtype dtype;
  dj_shape shape;
  double flops, bytes; /* from the cost table */
  double seconds;      /* mean of profiled runs; 0 if none */
} dj_node_report;
int dj_program_n_nodes(const dj_program *p);
void dj_program_node(const dj_program *p, int i, dj_node_report *r);
void dj_program_profile(dj_program *p, bool on);
/* Mean seconds of node i's work alone: again and again, for about `seconds`, where its tensors lie.
 * isa: whose kernels, as in dj_compile_options; NULL: the one that the program runs. Spoils the
 * program's values. */
dj_status dj_program_time_alone(dj_program *p, int i, const char *isa, double seconds,
                                double *mean);

#endif
