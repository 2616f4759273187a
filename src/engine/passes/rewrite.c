/* What the passes share: copying nodes from one graph into the next. */
#include <stdlib.h>
#include <string.h>

#include "engine/passes/passes.h"

dj_status dj__rewrite_begin(dj__rewrite *r, const dj_graph *src) {
  *r = (dj__rewrite){.src = src, .dst = dj_graph_create()};
  size_t n = (size_t)(src->n_values ? src->n_values : 1);
  r->map = malloc(n * sizeof *r->map);
  if (!r->dst || !r->map) {
    dj__rewrite_abort(r);
    return dj_error(DJ_E_NOMEM, "compile: no memory for a graph of %d nodes", src->n_nodes);
  }
  for (size_t i = 0; i < n; i++) r->map[i] = DJ_NONE;
  r->dst->next_stream = src->next_stream;
  return DJ_OK;
}

void dj__rewrite_abort(dj__rewrite *r) {
  dj_graph_destroy(r->dst);
  free(r->map);
  *r = (dj__rewrite){0};
}

/* A source's attribute points to its name and data in the arena of the old graph, which may go
 * before the program does. */
static bool own_source(dj__rewrite *r, const dj__node *old, dj__node *copy) {
  dj__source_attr *a = copy->attr;
  if (a->name && !(a->name = dj__arena_strdup(&r->dst->arena, a->name))) return false;
  if (!a->data) return true;
  const dj__value *v = &r->src->values[old->out[0]];
  a->data = dj__arena_copy(&r->dst->arena, a->data,
                           (size_t)dj_shape_count(&v->shape) * dj_dtype_size(v->dtype));
  return a->data != NULL;
}

dj__node *dj__rewrite_copy(dj__rewrite *r, const dj__node *n, const dj_val *in,
                           const dj_dtype *out_dtypes) {
  dj_graph *g = r->dst;
  dj__node *c = dj__append_node(g, n->op, in, n->n_in, n->attr, n->attr_size, n->label);
  if (!c) return NULL;
  if (dj__is_source(n) && !own_source(r, n, c)) return NULL;
  c->backward = n->backward;
  c->segment = n->segment;
  c->n_out = n->n_out;
  for (int k = 0; k < n->n_out; k++) {
    const dj__value *v = &r->src->values[n->out[k]];
    c->out[k] =
        dj__new_value(g, v->shape, out_dtypes ? out_dtypes[k] : v->dtype, g->n_nodes - 1, k);
    if (c->out[k] < 0) return NULL;
    r->map[n->out[k]] = c->out[k];
  }
  return c;
}

dj__node *dj__rewrite_keep(dj__rewrite *r, const dj__node *n) {
  dj_val few[32] = {0}, *in = n->n_in <= 32 ? few : malloc((size_t)n->n_in * sizeof *in);
  if (!in) return NULL;
  for (int i = 0; i < n->n_in; i++) in[i] = n->in[i] < 0 ? DJ_NONE : r->map[n->in[i]];
  dj__node *c = dj__rewrite_copy(r, n, in, NULL);
  if (in != few) free(in);
  return c;
}

dj_status dj__rewrite_end(dj__rewrite *r, dj_graph **out) {
  dj_graph *g = r->dst;
  for (int i = 0; i < r->src->n_outputs; i++)
    dj_output(g, r->src->outputs[i].name, r->map[r->src->outputs[i].val]);
  dj_status s = dj_graph_status(g);
  if (s) {
    dj__rewrite_abort(r);
    return s;
  }
  free(r->map);
  *out = g;
  return DJ_OK;
}

bool dj__node_writes(const dj__node *n, int i) {
  uint32_t w = dj__op_get(n->op)->writes;
  // Bit 31: the layout of optimiser updates (hyper, guard, then param, grad, m, v, ema by turns).
  if (w & 0x80000000u) return i >= 2 && (i - 2) % 5 != 1 && n->in[i] >= 0;
  return i < 31 && (w >> i & 1);
}

int *dj__count_uses(const dj_graph *g) {
  int *uses = calloc((size_t)g->n_values + 1, sizeof *uses);
  if (!uses) {
    dj_error(DJ_E_NOMEM, "compile: out of memory");
    return NULL;
  }
  for (int i = 0; i < g->n_nodes; i++)
    for (int k = 0; k < g->nodes[i]->n_in; k++)
      if (g->nodes[i]->in[k] >= 0) uses[g->nodes[i]->in[k]]++;
  for (int i = 0; i < g->n_outputs; i++) uses[g->outputs[i].val]++;
  return uses;
}

int *dj__single_readers(const dj_graph *g, const int *uses) {
  int *reader = malloc(((size_t)g->n_values + 1) * sizeof *reader);
  if (!reader) return NULL;
  for (int i = 0; i < g->n_values; i++) reader[i] = -1;
  for (int i = 0; i < g->n_nodes; i++)
    for (int k = 0; k < g->nodes[i]->n_in; k++) {
      dj_val v = g->nodes[i]->in[k];
      if (v >= 0 && uses[v] == 1) reader[v] = i;
    }
  return reader;
}
