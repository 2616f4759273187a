/*
 * Computing again instead of keeping. What the backward pass needs of the forward pass is alive
 * from one to the other; here some of it is made a second time, just before its first reader in the
 * backward pass (Chen et al. 2016):
 *
 *   - values of segments (dj_recompute_begin, _end), from what went into the segment. What other
 *     parts of the forward pass read is kept: those are the segments' ends;
 *   - large bf16 copies of variables: a pass over the weights is cheap beside the product they are
 *     for;
 *   - where the caller asks for it, large results whose operands the backward pass reads anyway: of
 *     norms over rows, which cost little beside the product that reads them; and of elementwise
 *     ops, such as an activation, whose gradient needs its operand. Under bf16 a norm is made again
 *     from the rounded copy of its operand that its gradient reads.
 *
 * Random ops draw the same numbers again, so results do not change, but for rounding: of such a
 * copy, and where what is no longer kept is fused. What is made again is created where it is
 * needed, and the schedule goes by order of creation.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/passes/passes.h"

enum { LARGE = 1 << 20 }; // bytes of a value that is worth it

typedef struct state {
  dj__rewrite r;
  bool *kept;    // (n_values) read in the forward pass outside its segment, or an output
  bool *cheap;   // (n_values) results of norms and elementwise ops that are made again
  dj_val *copy;  // (n_values) bf16 copy that the backward pass reads; DJ_NONE: none
  dj_val *again; // (n_values) the value made a second time; DJ_NONE: not made
  bool failed;
} state;

static bool is_variable_copy(const dj_graph *g, const dj__node *n) {
  if (n->op != DJ__OP_cast || n->in[0] < 0) return false;
  const dj__value *v = &g->values[n->out[0]];
  return g->nodes[g->values[n->in[0]].node]->op == DJ__OP_variable && v->dtype == DJ_BF16 &&
         dj_shape_count(&v->shape) * 2 >= LARGE;
}

static bool is_norm(const dj__node *n) {
  return n->op == DJ__OP_layer_norm || n->op == DJ__OP_rms_norm;
}

/* Is result v of n made again? */
static bool repeatable(const state *s, const dj__node *n, dj_val v) {
  const dj_graph *g = s->r.src;
  if (n->backward || dj__is_source(n) || dj__op_get(n->op)->flags & DJ__EFFECT) return false;
  if (is_variable_copy(g, n) || s->cheap[v]) return true;
  if (!n->segment) return false;
  for (int k = 0; k < n->n_out; k++)
    if (s->kept[n->out[k]]) return false;
  return true;
}

/* Of a norm that is made again: what its gradient reads. The copy's cast may be made before its
 * turn.
 */
static dj_val operand(state *s, dj_val v) {
  const dj_graph *g = s->r.src;
  const dj_val copy = s->copy[v];
  if (copy < 0) return s->r.map[v];
  if (s->r.map[copy] < 0) s->failed |= !dj__rewrite_keep(&s->r, g->nodes[g->values[copy].node]);
  return s->r.map[copy];
}

/* Value v as a backward node reads it. Recursion is as deep as a segment. */
static dj_val late(state *s, dj_val v) {
  const dj_graph *g = s->r.src;
  if (v < 0) return DJ_NONE;
  const dj__node *n = g->nodes[g->values[v].node];
  if (!repeatable(s, n, v)) return s->r.map[v];
  if (s->again[v] >= 0) return s->again[v];
  dj_val in[32], before[DJ__MAX_OUT];
  if (n->n_in > 32) return s->r.map[v];
  for (int i = 0; i < n->n_in; i++) in[i] = late(s, n->in[i]);
  if (s->cheap[v] && is_norm(n)) in[0] = operand(s, n->in[0]);
  for (int k = 0; k < n->n_out; k++) before[k] = s->r.map[n->out[k]];
  dj__node *c = dj__rewrite_copy(&s->r, n, in, NULL);
  if (!c) {
    s->failed = true;
    return DJ_NONE;
  }
  c->backward = true;
  c->segment = 0;
  for (int k = 0; k < n->n_out; k++) {
    s->again[n->out[k]] = s->r.map[n->out[k]];
    s->r.map[n->out[k]] = before[k];
  }
  return s->again[v];
}

static void copy(state *s, const dj__node *n) {
  if (!n->backward) {
    if (n->op == DJ__OP_cast && s->r.map[n->out[0]] >= 0) return; // made before
    s->failed |= !dj__rewrite_keep(&s->r, n);
    return;
  }
  dj_val few[32], *in = n->n_in <= 32 ? few : malloc((size_t)n->n_in * sizeof *in);
  for (int i = 0; in && i < n->n_in; i++) in[i] = late(s, n->in[i]);
  s->failed |= !in || !dj__rewrite_copy(&s->r, n, in, NULL);
  if (in != few) free(in);
}

static void find_kept(state *s) {
  const dj_graph *g = s->r.src;
  for (int i = 0; i < g->n_nodes; i++) {
    const dj__node *n = g->nodes[i];
    for (int k = 0; k < n->n_in && !n->backward; k++)
      if (n->in[k] >= 0 && g->nodes[g->values[n->in[k]].node]->segment != n->segment)
        s->kept[n->in[k]] = true;
  }
  for (int i = 0; i < g->n_outputs; i++) s->kept[g->outputs[i].val] = true;
}

static bool is_view(const dj__node *n) {
  return dj__op_get(n->op)->flags & DJ__VIEW && n->n_in > 0 && n->in[0] >= 0;
}

/* late (n_values): values that backward nodes read, themselves or through views. */
static void find_late(const dj_graph *g, bool *late) {
  for (int i = g->n_nodes - 1; i >= 0; i--) {
    const dj__node *n = g->nodes[i];
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k] >= 0 && n->backward) late[n->in[k]] = true;
    if (is_view(n) && late[n->out[0]]) late[n->in[0]] = true;
  }
}

/* All operands are there in the backward pass without being kept for this node alone. */
static bool is_cheap(const state *s, const dj__node *n, dj__again what, const bool *late) {
  const dj_graph *g = s->r.src;
  const bool ewise = what == DJ__AGAIN_ELEMENTWISE && dj__op_get(n->op)->flags & DJ__EWISE;
  if ((!ewise && !is_norm(n)) || n->segment) return false;
  const dj__value *v = &g->values[n->out[0]];
  if (dj_shape_count(&v->shape) * (int64_t)dj_dtype_size(v->dtype) < LARGE) return false;
  for (int k = 0; k < n->n_in; k++) {
    const dj_val in = n->in[k];
    if (in < 0 || late[in] || dj__is_source(g->nodes[g->values[in].node])) continue;
    if (!is_norm(n) || s->copy[in] < 0) return false;
  }
  return late[n->out[0]];
}

/* What is a view of something made again is made again, too. */
static void find_cheap(state *s, dj__again what) {
  const dj_graph *g = s->r.src;
  bool *late = calloc((size_t)g->n_values + 1, sizeof *late);
  s->failed |= !late;
  if (late) find_late(g, late);
  for (int i = 0; late && i < g->n_nodes; i++) {
    const dj__node *n = g->nodes[i];
    if (n->op == DJ__OP_cast && late[n->out[0]] && !late[n->in[0]]) s->copy[n->in[0]] = n->out[0];
  }
  for (int i = 0; late && i < g->n_nodes; i++) {
    const dj__node *n = g->nodes[i];
    if (n->n_out == 0 || n->backward) continue;
    s->cheap[n->out[0]] = is_view(n) ? s->cheap[n->in[0]] : is_cheap(s, n, what, late);
  }
  for (int i = 0; i < g->n_outputs; i++) s->cheap[g->outputs[i].val] = false;
  free(late);
}

dj_status dj__pass_recompute(const dj_graph *g, dj__again what, dj_graph **out) {
  state s = {0};
  DJ_TRY(dj__rewrite_begin(&s.r, g));
  size_t n = (size_t)g->n_values + 1;
  s.kept = calloc(n, sizeof *s.kept);
  s.cheap = calloc(n, sizeof *s.cheap);
  s.again = malloc(n * sizeof *s.again);
  s.copy = malloc(n * sizeof *s.copy);
  s.failed = !s.kept || !s.cheap || !s.again || !s.copy;
  for (size_t i = 0; !s.failed && i < n; i++) s.again[i] = s.copy[i] = DJ_NONE;
  if (!s.failed) find_kept(&s);
  if (!s.failed && what) find_cheap(&s, what);
  for (int i = 0; i < g->n_nodes && !s.failed; i++) copy(&s, g->nodes[i]);
  free(s.kept);
  free(s.cheap);
  free(s.again);
  free(s.copy);
  if (s.failed) {
    dj__rewrite_abort(&s.r);
    return dj_error(DJ_E_NOMEM, "compile: out of memory");
  }
  return dj__rewrite_end(&s.r, out);
}
