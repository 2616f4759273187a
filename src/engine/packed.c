/* Copies of weights in their kernels' layouts. See packed.h. */
#include "engine/packed.h"

#include <stdlib.h>
#include <string.h>

#include "engine/attrs.h"
#include "engine/passes/passes.h"

/* Of copies in all, for a matrix to get one: large networks need the memory more than the time. */
static const size_t MOST_BYTES = 64 << 20;

static bool updates(const dj__node *n, int i) {
  return (n->op == DJ__OP_adamw || n->op == DJ__OP_sgd) && i >= DJ__UPDATE_FIRST &&
         (i - DJ__UPDATE_FIRST) % DJ__UPDATE_PER_VAR == 0;
}

dj_status dj__packed_begin(dj__packed *p, const dj_graph *g, const dj__backend *b, bool off) {
  const size_t values = (size_t)g->n_values + 1;
  p->backend = b;
  p->kept = calloc((size_t)g->n_nodes + 1, sizeof *p->kept); // addresses stay
  p->of = calloc(values, sizeof(void *));
  p->may = calloc(values, sizeof *p->may);
  if (!p->kept || !p->of || !p->may) return dj_error(DJ_E_NOMEM, "compile: out of memory");
  for (int i = 0; i < g->n_nodes; i++)
    if (g->nodes[i]->op == DJ__OP_variable) p->may[g->nodes[i]->out[0]] = b->pack && !off;
  for (int i = 0; i < g->n_nodes; i++)
    for (int k = 0; k < g->nodes[i]->n_in; k++)
      if (dj__node_writes(g->nodes[i], k) && !updates(g->nodes[i], k))
        p->may[g->nodes[i]->in[k]] = false;
  return DJ_OK;
}

bool dj__packed_may(const dj__packed *p, const dj__node *n, const dj_shape *s) {
  if (n->in[1] < 0 || !p->may[n->in[1]]) return false;
  const size_t bytes = (size_t)dj_shape_count(s) * dj_dtype_size(DJ_BF16);
  return n->op != DJ__OP_matmul || p->bytes + bytes <= MOST_BYTES;
}

static bool same_layout(const dj__layout *a, const dj__layout *b) {
  return a->rows == b->rows && a->taps == b->taps && a->cols == b->cols && a->count == b->count &&
         a->dtype == b->dtype &&
         !memcmp(a->place, b->place, (size_t)(a->rows + a->taps + a->cols) * sizeof *a->place);
}

const dj__copy *dj__packed_want(dj__packed *p, dj_val variable, const dj__layout *l) {
  for (const dj__copy *c = p->of[variable]; c; c = c->next)
    if (same_layout(c->layout, l)) return c;
  dj__kept *k = &p->kept[p->n++];
  *k = (dj__kept){.copy = {.layout = l, .next = p->of[variable]}, .variable = variable};
  p->bytes += dj__layout_bytes(l);
  p->of[variable] = &k->copy;
  return &k->copy;
}

dj_status dj__packed_alloc(dj__packed *p, void *const *data) {
  if (!p->bytes) return DJ_OK;
  p->memory = p->backend->alloc(p->bytes);
  if (!p->memory)
    return dj_error(DJ_E_NOMEM, "compile: no memory for %zu bytes of packed weights", p->bytes);
  size_t at = 0;
  for (int i = 0; i < p->n; i++) {
    dj__kept *k = &p->kept[i];
    k->from = data[k->variable];
    k->copy.data = p->memory + at;
    at += dj__layout_bytes(k->copy.layout);
  }
  return DJ_OK;
}

const dj__copy **dj__packed_updated(const dj__packed *p, const dj__node *n) {
  const dj__copy **copies = calloc((size_t)n->n_in + 1, sizeof(void *));
  for (int i = 0; copies && i < n->n_in; i++)
    if (updates(n, i)) copies[i] = p->of[n->in[i]];
  return copies;
}

void dj__packed_refresh(dj__packed *p, uint64_t version) {
  if (!p->n || p->version == version) return;
  for (int i = 0; i < p->n; i++) {
    const dj__kept *k = &p->kept[i];
    p->backend->pack(k->copy.layout, k->copy.data, k->from, 0, k->copy.layout->rows);
  }
  p->version = version;
}

void dj__packed_free(dj__packed *p) {
  if (p->memory) p->backend->free(p->memory, p->bytes);
  free(p->kept);
  free(p->of);
  free(p->may);
  *p = (dj__packed){0};
}
