/*
 * Drops every node that no output and no update of a variable depends on, and merges nodes that
 * compute the same: same op, inputs and attribute. Random ops merge only when they read the same
 * stream, which is then the same number. Inputs stay even when unused, so that the caller can fill
 * them without asking.
 */
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "engine/passes/passes.h"

static void mark_live(const dj_graph *g, bool *live) {
  for (int i = 0; i < g->n_outputs; i++) live[g->values[g->outputs[i].val].node] = true;
  for (int i = g->n_nodes - 1; i >= 0; i--) {
    const dj__node *n = g->nodes[i];
    if (dj__op_get(n->op)->flags & DJ__EFFECT || n->op == DJ__OP_input) live[i] = true;
    if (!live[i]) continue;
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k] >= 0) live[g->values[n->in[k]].node] = true;
  }
}

static uint64_t node_hash(const dj__rewrite *r, const dj__node *n) {
  uint64_t h = dj__hash64(&n->op, sizeof n->op, 0);
  for (int k = 0; k < n->n_in; k++) {
    dj_val v = n->in[k] < 0 ? DJ_NONE : r->map[n->in[k]];
    h = dj__hash64(&v, sizeof v, h);
  }
  return dj__hash64(n->attr, n->attr_size, h);
}

static bool same(const dj__rewrite *r, const dj__node *n, const dj__node *made) {
  if (n->op != made->op || n->n_in != made->n_in || n->n_out != made->n_out ||
      n->attr_size != made->attr_size ||
      (n->attr_size && memcmp(n->attr, made->attr, n->attr_size) != 0))
    return false;
  for (int k = 0; k < n->n_in; k++)
    if ((n->in[k] < 0 ? DJ_NONE : r->map[n->in[k]]) != made->in[k]) return false;
  for (int k = 0; k < n->n_out; k++) // shapes can depend on nothing else, dtypes neither
    if (r->src->values[n->out[k]].dtype != r->dst->values[made->out[k]].dtype) return false;
  return true;
}

dj_status dj__pass_simplify(const dj_graph *g, dj_graph **out) {
  dj__rewrite r;
  DJ_TRY(dj__rewrite_begin(&r, g));
  size_t slots = 64;
  while (slots < (size_t)g->n_nodes * 2) slots *= 2;
  dj__node **table = calloc(slots, sizeof(dj__node *));
  bool *live = calloc((size_t)g->n_nodes + 1, sizeof *live);
  bool ok = table && live;
  if (ok) mark_live(g, live);
  for (int i = 0; ok && i < g->n_nodes; i++) {
    const dj__node *n = g->nodes[i];
    if (!live[i]) continue;
    if (dj__op_get(n->op)->flags & (DJ__EFFECT | DJ__SOURCE)) {
      ok = dj__rewrite_keep(&r, n) != NULL;
      continue;
    }
    size_t at = node_hash(&r, n) & (slots - 1);
    while (table[at] && !same(&r, n, table[at])) at = (at + 1) & (slots - 1);
    if (!table[at]) {
      table[at] = dj__rewrite_keep(&r, n);
      ok = table[at] != NULL;
    } else {
      for (int k = 0; k < n->n_out; k++) r.map[n->out[k]] = table[at]->out[k];
    }
  }
  free(table);
  free(live);
  if (!ok) {
    dj__rewrite_abort(&r);
    return dj_error(DJ_E_NOMEM, "compile: out of memory");
  }
  return dj__rewrite_end(&r, out);
}
