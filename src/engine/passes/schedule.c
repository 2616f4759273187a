/*
 * Order of execution. Any order runs a node after its inputs' makers and an update of a variable
 * after every reader of the old value; within that, memory-aware order takes a ready node that
 * frees more than it allocates at once (the one that frees most), otherwise the earliest created.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/passes/passes.h"

typedef struct sched {
  const dj_graph *g;
  int *waiting;     // (n_nodes) predecessors not done
  int *uses;        // (n_values) readers not done (outputs count: never freed)
  int *next, *head; // edges: head[node] -> edge -> next; to[edge]
  int *to, n_edges;
  int *ready, n_ready;
} sched;

static void add_edge(sched *s, int from, int to) {
  s->to[s->n_edges] = to;
  s->next[s->n_edges] = s->head[from];
  s->head[from] = s->n_edges++;
  s->waiting[to]++;
}

/* The value whose memory v is: follows views back. */
static dj_val memory_of(const dj_graph *g, dj_val v) {
  for (const dj__node *n;
       n = g->nodes[g->values[v].node], dj__op_get(n->op)->flags & DJ__VIEW && n->n_in;)
    v = n->in[0];
  return v;
}

/* Reads of variables by other nodes come before the node that writes the variable. */
static void add_write_edges(sched *s, int w, dj_val var) {
  const dj_graph *g = s->g;
  for (int i = 0; i < g->n_nodes; i++) {
    const dj__node *n = g->nodes[i];
    if (i == w) continue;
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k] >= 0 && memory_of(g, n->in[k]) == var) {
        // Two writers of one variable run in order of creation.
        bool writes = dj__node_writes(n, k);
        if (!writes || i < w) add_edge(s, i, w);
        break;
      }
  }
}

static int64_t value_bytes(const dj_graph *g, dj_val v) {
  const dj__value *x = &g->values[v];
  return dj_shape_count(&x->shape) * (int64_t)dj_dtype_size(x->dtype);
}

/* Bytes that running node i would add (negative: frees). */
static int64_t delta(const sched *s, int i) {
  const dj_graph *g = s->g;
  const dj__node *n = g->nodes[i];
  int64_t d = 0;
  if (!(dj__op_get(n->op)->flags & DJ__VIEW))
    for (int k = 0; k < n->n_out; k++) d += value_bytes(g, n->out[k]);
  for (int k = 0; k < n->n_in; k++) {
    dj_val v = n->in[k];
    if (v < 0 || dj__is_source(g->nodes[g->values[v].node])) continue;
    int here = 0, first = 1;
    for (int j = 0; j < n->n_in; j++) {
      here += n->in[j] == v;
      if (j < k && n->in[j] == v) first = 0;
    }
    if (first && s->uses[v] == here) d -= value_bytes(g, v);
  }
  return d;
}

static int pick(const sched *s, bool memory_aware) {
  int best = 0;
  int64_t best_delta = 0;
  for (int i = 0; i < s->n_ready; i++) {
    if (memory_aware) {
      int64_t d = delta(s, s->ready[i]);
      if (d < best_delta || (d == best_delta && best_delta < 0 && s->ready[i] < s->ready[best])) {
        best = i;
        best_delta = d;
      }
    }
    if (best_delta == 0 && s->ready[i] < s->ready[best]) best = i;
  }
  return best;
}

/* Node i has run: what waited for it alone is ready. Gives 1. */
static int finish(sched *s, int i) {
  const dj__node *n = s->g->nodes[i];
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] >= 0) s->uses[n->in[k]]--;
  for (int e = s->head[i]; e >= 0; e = s->next[e])
    if (--s->waiting[s->to[e]] == 0) s->ready[s->n_ready++] = s->to[e];
  return 1;
}

/* Most edges there can be: one an input, and one a node for each written variable. */
static size_t count_edges(const dj_graph *g) {
  size_t n = 1;
  for (int i = 0; i < g->n_nodes; i++)
    for (int k = 0; k < g->nodes[i]->n_in; k++)
      n += 1 + (dj__node_writes(g->nodes[i], k) ? (size_t)g->n_nodes : 0);
  return n;
}

dj_status dj__pass_schedule(const dj_graph *g, bool memory_aware, int **order, int *n) {
  sched s = {.g = g};
  size_t edges = count_edges(g);
  size_t nodes = (size_t)g->n_nodes + 1;
  *order = malloc(nodes * sizeof **order);
  s.waiting = calloc(nodes, sizeof *s.waiting);
  s.head = malloc(nodes * sizeof *s.head);
  s.ready = malloc(nodes * sizeof *s.ready);
  s.to = malloc(edges * sizeof *s.to);
  s.next = malloc(edges * sizeof *s.next);
  s.uses = dj__count_uses(g);
  dj_status st = DJ_OK;
  *n = 0;
  if (!*order || !s.waiting || !s.head || !s.ready || !s.to || !s.next || !s.uses) {
    st = dj_error(DJ_E_NOMEM, "compile: out of memory");
    goto fail;
  }
  memset(s.head, 0xff, nodes * sizeof *s.head);
  for (int i = 0; i < g->n_nodes; i++)
    for (int k = 0; k < g->nodes[i]->n_in; k++) {
      dj_val v = g->nodes[i]->in[k];
      if (v < 0) continue;
      add_edge(&s, g->values[v].node, i);
      if (dj__node_writes(g->nodes[i], k)) add_write_edges(&s, i, v);
    }
  int done = 0;
  for (int i = 0; i < g->n_nodes; i++) { // sources are there from the start
    if (dj__is_source(g->nodes[i]))
      done += finish(&s, i);
    else if (g->nodes[i]->n_in == 0)
      s.ready[s.n_ready++] = i;
  }
  while (s.n_ready) {
    int at = pick(&s, memory_aware), i = s.ready[at];
    s.ready[at] = s.ready[--s.n_ready];
    (*order)[(*n)++] = i;
    done += finish(&s, i);
  }
  if (done < g->n_nodes)
    st = dj_error(DJ_E_INVALID,
                  "compile: %d nodes wait for each other: a value computed from an "
                  "updated variable is needed for the update itself",
                  g->n_nodes - done);
fail:
  free(s.waiting);
  free(s.head);
  free(s.ready);
  free(s.to);
  free(s.next);
  free(s.uses);
  if (st) {
    free(*order);
    *order = NULL;
  }
  return st;
}
