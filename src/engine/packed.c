/* Copies of weights in their kernels' layouts. See packed.h. */
#include "engine/packed.h"

#include <stdlib.h>
#include <string.h>

#include "engine/attrs.h"

size_t dj__few_copies = 64 << 20;

static bool updates(const dj__node *n, int i) {
  return (n->op == DJ__OP_adamw || n->op == DJ__OP_sgd) && i >= DJ__UPDATE_FIRST &&
         (i - DJ__UPDATE_FIRST) % DJ__UPDATE_PER_VAR == 0;
}

dj_status dj__packed_begin(dj__packed *p, const dj_graph *g, const dj__backend *b,
                           dj__packing what) {
  const size_t values = (size_t)g->n_values + 1;
  *p = (dj__packed){.backend = b, .matrices = what == DJ__PACK_ALL};
  p->kept = calloc((size_t)g->n_nodes + 1, sizeof *p->kept); // addresses stay
  p->of = calloc(values, sizeof(void *));
  p->may = calloc(values, sizeof *p->may);
  p->written = malloc(values * sizeof *p->written);
  if (!p->kept || !p->of || !p->may || !p->written)
    return dj_error(DJ_E_NOMEM, "compile: out of memory");
  for (int i = 0; i < g->n_nodes; i++)
    if (g->nodes[i]->op == DJ__OP_variable) p->may[g->nodes[i]->out[0]] = b->pack && what;
  for (int i = 0; i < g->n_nodes; i++)
    for (int k = 0; k < g->nodes[i]->n_in; k++)
      if (dj__node_writes(g->nodes[i], k) && !updates(g->nodes[i], k))
        p->may[g->nodes[i]->in[k]] = false;
  for (int v = 0; v < g->n_values; v++) p->written[v] = -1;
  return DJ_OK;
}

bool dj__packed_may(const dj__packed *p, const dj__node *n) {
  return n->in[1] >= 0 && p->may[n->in[1]] && (n->op != DJ__OP_matmul || p->matrices);
}

static bool same_layout(const dj__layout *a, const dj__layout *b) {
  return a->rows == b->rows && a->taps == b->taps && a->cols == b->cols && a->count == b->count &&
         a->dtype == b->dtype &&
         !memcmp(a->place, b->place, (size_t)(a->rows + a->taps + a->cols) * sizeof *a->place);
}

const dj__copy *dj__packed_want(dj__packed *p, dj_val variable, const dj__layout *l, int at) {
  for (int i = 0; i < p->n; i++) {
    dj__kept *k = &p->kept[i];
    if (k->variable != variable || !same_layout(k->copy.layout, l)) continue;
    k->read = at;
    return &k->copy;
  }
  dj__kept *k = &p->kept[p->n++];
  *k = (dj__kept){.copy = {.layout = l, .next = p->of[variable]}, .variable = variable, .read = at};
  p->of[variable] = &k->copy;
  return &k->copy;
}

void dj__packed_written(dj__packed *p, const dj__node *n, int at) {
  for (int i = 0; i < n->n_in; i++)
    if (updates(n, i)) p->written[n->in[i]] = at;
}

/* What is not written as a whole keeps its memory, which was zero in the beginning. */
void dj__packed_lasting(const dj__packed *p, bool always, dj__lasting *lasting) {
  for (int i = 0; i < p->n; i++) {
    const dj__kept *k = &p->kept[i];
    const dj__layout *l = k->copy.layout;
    const int at = l->whole && !always ? p->written[k->variable] : -1;
    lasting[i] =
        (dj__lasting){.bytes = dj__layout_bytes(l), .made = at < 0 ? 0 : at, .read = k->read};
  }
}

void dj__packed_bind(dj__packed *p, void *const *data, const dj__lasting *lasting,
                     unsigned char *arena) {
  for (int i = 0; i < p->n; i++) {
    p->kept[i].from = data[p->kept[i].variable];
    p->kept[i].copy.data = arena + lasting[i].offset;
  }
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
  free(p->kept);
  free(p->of);
  free(p->may);
  free(p->written);
  *p = (dj__packed){0};
}
