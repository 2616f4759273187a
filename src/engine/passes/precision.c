/*
 * bf16 compute with f32 masters. Decides the dtype of every float value and puts in casts:
 *
 *   compute ops (matmul, convolution, attention) read bf16 and accumulate in f32; what they make is
 *     bf16, or f32 where every reader wants f32 (weight gradients that are accumulated); optimisers
 *     and the norm of gradients take either;
 *   elementwise ops take what comes: the result is bf16 if every full-size operand that is not a
 *     variable is bf16, else f32 (so a loss, which mixes predictions with f32 targets, stays f32);
 *   other followers (norms, pooling, concat, ...) are bf16 if any input that follows is; those that
 *     only move elements also where nobody needs their result in f32: rounding before is rounding
 *     after, and half of the bytes are moved; norms over rows round such a result themselves;
 *   sums, cross-entropies and scatter-adds (gradients of embeddings) are f32, but for those that
 * add a few rows to a bf16 gradient on its way to an optimiser; everything marked F32_ONLY, updates
 *     and named outputs are f32.
 *
 * A value exists in both dtypes only where readers differ; the cast is made once.
 */
#include <stdlib.h>
#include <string.h>

#include "dojo/ops.h"
#include "engine/attrs.h"
#include "engine/passes/passes.h"

typedef struct state {
  dj__rewrite r;
  dj_val
      *other;   // (n_values of src) the value in the other dtype, made by a cast; DJ_NONE: not made
  int *wants32; // (n_values) readers that need f32
  int *uses;    // (n_values) readers in all
  int *rounds;  // (n_values) readers that take bf16, or move elements for such readers alone
  bool failed;
} state;

static bool is_float(dj_dtype t) {
  return t == DJ_F32 || t == DJ_BF16;
}
static dj_dtype native(const state *s, dj_val v) {
  return s->r.dst->values[s->r.map[v]].dtype;
}

/* Value v of src in dtype t (a cast if need be); as it is if not a float. */
static dj_val get(state *s, dj_val v, dj_dtype t) {
  if (v < 0) return DJ_NONE;
  dj_val d = s->r.map[v];
  if (!is_float(native(s, v)) || native(s, v) == t) return d;
  if (s->other[v] >= 0) return s->other[v];
  dj_graph *g = s->r.dst;
  strcpy(g->label, g->nodes[g->values[d].node]->label); // both of one size
  g->segment = g->nodes[g->values[d].node]->segment;
  dj_val c = dj_cast(g, d, t);
  g->segment = 0;
  g->label[0] = 0;
  if (c < 0) s->failed = true;
  s->other[v] = c;
  return c;
}

/* Is input i of n a gradient on its way to an optimiser? Those are read in either dtype. */
static bool takes_gradient(const dj__node *n, int i) {
  if (n->op == DJ__OP_global_norm) return true;
  return (n->op == DJ__OP_adamw || n->op == DJ__OP_sgd) && i >= DJ__UPDATE_FIRST &&
         (i - DJ__UPDATE_FIRST) % DJ__UPDATE_PER_VAR == 1;
}

static bool reader_wants_f32(const dj__node *n, int i) {
  const dj__op_def *d = dj__op_get(n->op);
  if (takes_gradient(n, i)) return false;
  if (i > 31) i = 31;
  if (d->flags & (DJ__F32_ONLY | DJ__EFFECT)) return true;
  if (d->flags & (DJ__COMPUTE | DJ__FOLLOW)) return !(d->follow >> i & 1);
  return true;
}

static void count_readers(state *s) {
  const dj_graph *g = s->r.src;
  for (int i = 0; i < g->n_nodes; i++)
    for (int k = 0; k < g->nodes[i]->n_in; k++) {
      dj_val v = g->nodes[i]->in[k];
      if (v < 0) continue;
      s->uses[v]++;
      s->wants32[v] += reader_wants_f32(g->nodes[i], k);
    }
  for (int i = 0; i < g->n_outputs; i++) {
    s->uses[g->outputs[i].val]++;
    s->wants32[g->outputs[i].val]++;
  }
}

static bool moves(dj__op op) {
  return op == DJ__OP_reshape || op == DJ__OP_slice || op == DJ__OP_concat ||
         op == DJ__OP_transpose || op == DJ__OP_pad;
}

/* Readers come after what they read: backwards. */
static void count_rounding(state *s) {
  const dj_graph *g = s->r.src;
  for (int i = g->n_nodes - 1; i >= 0; i--) {
    const dj__node *n = g->nodes[i];
    const dj__op_def *d = dj__op_get(n->op);
    const bool moved = moves(n->op) && n->n_out && s->rounds[n->out[0]] == s->uses[n->out[0]];
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k] >= 0)
        s->rounds[n->in[k]] +=
            moved || (d->flags & DJ__COMPUTE && d->follow >> (k < 31 ? k : 31) & 1);
  }
}

static bool is_variable(const dj_graph *g, dj_val v) {
  const dj__node *n = g->nodes[g->values[v].node];
  return n->op == DJ__OP_variable || n->op == DJ__OP_constant;
}

/* dtype in which the following inputs are read: bf16 or f32; for elementwise ops also of the
 * result. */
static dj_dtype follow_dtype(const state *s, const dj__node *n, const dj__op_def *d) {
  const dj_graph *g = s->r.src;
  bool any16 = false, full32 = false;
  int64_t count = n->n_out ? dj_shape_count(&g->values[n->out[0]].shape) : 0;
  for (int i = 0; i < n->n_in; i++) {
    dj_val v = n->in[i];
    if (v < 0 || !(d->follow >> (i < 31 ? i : 31) & 1) || !is_float(g->values[v].dtype)) continue;
    if (native(s, v) == DJ_BF16)
      any16 = true;
    else if (!is_variable(g, v) && dj_shape_count(&g->values[v].shape) == count)
      full32 = true;
  }
  if (!any16) return DJ_F32;
  return d->flags & DJ__EWISE && full32 ? DJ_F32 : DJ_BF16;
}

static bool rounded_by_all(const state *s, dj_val v) {
  return s->uses[v] > 0 && s->rounds[v] == s->uses[v];
}

/* Adds n to a bf16 value, and nobody needs the sum in f32? */
static bool adds_to_bf16(const state *s, const dj__node *n) {
  return n->op == DJ__OP_scatter_add && n->in[0] >= 0 && native(s, n->in[0]) == DJ_BF16 &&
         s->wants32[n->out[0]] == 0;
}

/* Copies node n with inputs and outputs in the dtypes of its class. */
static void convert(state *s, const dj__node *n) {
  const dj_graph *g = s->r.src;
  const dj__op_def *d = dj__op_get(n->op);
  dj_dtype out[DJ__MAX_OUT] = {DJ_F32};
  for (int k = 0; k < n->n_out; k++) out[k] = g->values[n->out[k]].dtype;
  dj_dtype follow = DJ_F32;
  bool ewise = (d->flags & DJ__EWISE) != 0;
  if (d->flags & DJ__COMPUTE) {
    follow = DJ_BF16;
    for (int k = 0; k < n->n_out; k++)
      if (out[k] == DJ_F32 && s->wants32[n->out[k]] < s->uses[n->out[k]]) out[k] = DJ_BF16;
  } else if (d->flags & (DJ__FOLLOW | DJ__VIEW)) {
    follow = follow_dtype(s, n, d);
    if (moves(n->op) && out[0] == DJ_F32 && rounded_by_all(s, n->out[0]) &&
        !is_variable(g, n->in[0]))
      follow = DJ_BF16;
    bool sums = n->op == DJ__OP_sum || n->op == DJ__OP_scatter_add || n->op == DJ__OP_cross_entropy;
    if (!sums && n->op != DJ__OP_cast && n->n_out && out[0] == DJ_F32) out[0] = follow;
    const bool rows = n->op == DJ__OP_layer_norm || n->op == DJ__OP_rms_norm;
    if (adds_to_bf16(s, n) || (rows && rounded_by_all(s, n->out[0]))) out[0] = DJ_BF16;
  }
  dj_val few[32], *in = n->n_in <= 32 ? few : malloc((size_t)n->n_in * sizeof *in);
  if (!in) {
    s->failed = true;
    return;
  }
  for (int i = 0; i < n->n_in; i++) {
    bool follows =
        d->flags & (DJ__COMPUTE | DJ__FOLLOW | DJ__VIEW) && (d->follow >> (i < 31 ? i : 31) & 1);
    if (n->in[i] < 0)
      in[i] = DJ_NONE;
    else if (ewise || (d->flags & DJ__VIEW && follow == DJ_F32) ||
             (n->op == DJ__OP_scatter_add && i == 0) || takes_gradient(n, i)) // any mix
      in[i] = s->r.map[n->in[i]];
    else
      in[i] = get(s, n->in[i], follows ? follow : DJ_F32);
  }
  if (d->flags & DJ__VIEW && n->n_in > 0 && n->n_out) out[0] = s->r.dst->values[in[0]].dtype;
  if (!dj__rewrite_copy(&s->r, n, in, out)) s->failed = true;
  if (in != few) free(in);
}

dj_status dj__pass_precision(const dj_graph *g, dj_graph **out) {
  state s = {0};
  DJ_TRY(dj__rewrite_begin(&s.r, g));
  size_t n = (size_t)g->n_values + 1;
  s.other = malloc(n * sizeof *s.other);
  s.wants32 = calloc(n, sizeof *s.wants32);
  s.uses = calloc(n, sizeof *s.uses);
  s.rounds = calloc(n, sizeof *s.rounds);
  s.failed = !s.other || !s.wants32 || !s.uses || !s.rounds;
  for (size_t i = 0; s.other && i < n; i++) s.other[i] = DJ_NONE;
  if (!s.failed) {
    count_readers(&s);
    count_rounding(&s);
  }
  for (int i = 0; i < g->n_nodes && !s.failed; i++) convert(&s, g->nodes[i]);
  for (int i = 0; i < g->n_outputs && !s.failed; i++) { // named outputs are read by people: f32
    dj_val v = g->outputs[i].val, c = get(&s, v, DJ_F32);
    if (c >= 0 && c != s.r.map[v]) s.r.map[v] = c;
  }
  free(s.other);
  free(s.wants32);
  free(s.uses);
  free(s.rounds);
  if (s.failed) {
    dj__rewrite_abort(&s.r);
    return dj_error(DJ_E_NOMEM, "compile: out of memory");
  }
  return dj__rewrite_end(&s.r, out);
}
