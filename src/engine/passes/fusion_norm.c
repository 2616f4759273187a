/*
 * Fusion around batch norm, where every pass over activations costs more than the arithmetic.
 *
 * Forward: batch_norm -> add of a residual -> relu become one batch_norm where each value in
 * between has a single reader. Backward: relu_grad -> batch_norm_grad become one node if the
 * former's y is relu of the norm's result: that is made again from x, so that y is not read, and
 * often need not be kept. With a residual the gradient behind relu has a second reader, and stays
 * apart by itself.
 *
 * Nodes are emitted by what they depend on: a residual may be made after the norm that takes it in.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/attrs.h"
#include "engine/passes/passes.h"

/* What becomes of a node: `head` is the batch_norm(_grad) it is emitted with, -1 for itself alone.
 */
typedef struct part {
  int head;
  bool done;
  int mark; // last search that saw the node
} part;

typedef struct group {
  int last; // forward: the node whose result is the result; -1: not fused
  dj_val residual;
  bool relu;
  int norm; // backward: the batch_norm whose relu is taken in; -1: not fused
} group;

typedef struct state {
  dj__rewrite r;
  part *part;   // (n_nodes)
  group *group; // (n_nodes), of heads
  int *reader;  // (n_values)
  int search;
  bool failed;
} state;

/* True if node i needs the result of node `head`, as the groups are now. */
static bool depends(state *s, int i, int head) {
  const dj_graph *g = s->r.src;
  if (i == head || s->part[i].head == head) return true;
  if (s->part[i].mark == s->search) return false;
  s->part[i].mark = s->search;
  const int h = s->part[i].head;
  if (h >= 0 && h != i && depends(s, h, head)) return true;
  if (s->group[i].last >= 0 && s->group[i].residual >= 0 &&
      depends(s, g->values[s->group[i].residual].node, head))
    return true;
  const dj__node *n = g->nodes[i];
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] >= 0 && depends(s, g->values[n->in[k]].node, head)) return true;
  return false;
}

static bool alike(const dj_graph *g, dj_val a, dj_val b) {
  return g->values[a].dtype == g->values[b].dtype &&
         dj_shape_equal(&g->values[a].shape, &g->values[b].shape);
}

static bool unfused(const dj__node *n, dj__op op, int n_in) {
  return n->op == op && n->n_in == n_in && !((const dj__norm_attr *)n->attr)->relu;
}

/* Looks for what follows batch_norm node i. */
static void find_forward(state *s, int i) {
  const dj_graph *g = s->r.src;
  const dj_val y = g->nodes[i]->out[0];
  group found = {.last = -1, .residual = DJ_NONE, .norm = -1};
  int next = s->reader[y], sum = i;
  if (!unfused(g->nodes[i], DJ__OP_batch_norm, 3)) return;
  if (next >= 0 && g->nodes[next]->op == DJ__OP_add) {
    const dj__node *add = g->nodes[next];
    const dj_val other = add->in[0] == y ? add->in[1] : add->in[0];
    s->search++;
    if (s->part[next].head >= 0 || !alike(g, other, y) || !alike(g, add->out[0], y) ||
        depends(s, g->values[other].node, i))
      return;
    found.residual = other;
    found.last = sum = next;
    next = s->reader[add->out[0]];
  }
  if (next >= 0 && g->nodes[next]->op == DJ__OP_relu && alike(g, g->nodes[next]->out[0], y)) {
    found.relu = true;
    found.last = next;
  }
  if (found.last < 0) return;
  s->part[sum].head = s->part[found.last].head = i;
  s->part[i].head = i;
  s->group[i] = found;
}

/* Takes relu_grad node i into the batch_norm_grad that reads it. */
static void find_backward(state *s, int i) {
  const dj_graph *g = s->r.src;
  const dj__node *n = g->nodes[i], *relu = g->nodes[g->values[n->in[0]].node];
  const int next = s->reader[n->out[0]];
  if (relu->op != DJ__OP_relu || next < 0) return;
  const int norm = g->values[relu->in[0]].node;
  const dj__node *to = g->nodes[next], *f = g->nodes[norm];
  if (!unfused(to, DJ__OP_batch_norm_grad, 5) || !unfused(f, DJ__OP_batch_norm, 3)) return;
  if (relu->in[0] != f->out[0] || to->in[4] != n->out[0] || to->in[0] != f->in[0] ||
      to->in[1] != f->in[1] || to->in[2] != f->out[1] || to->in[3] != f->out[2] ||
      !alike(g, n->in[1], n->out[0]))
    return;
  s->part[i].head = s->part[next].head = next;
  s->group[next].norm = norm;
}

static void emit(state *s, int i);

static void emit_maker(state *s, dj_val v) {
  if (v >= 0) emit(s, s->r.src->values[v].node);
}

/* Copies head i with inputs `in` (of src) and ReLU as given; its result stands for value y. */
static void emit_head(state *s, int i, const dj_val *in, int n_in, bool relu, dj_val y) {
  const dj_graph *g = s->r.src;
  const dj__node *head = g->nodes[i];
  dj_val mapped[6];
  for (int k = 0; k < n_in; k++) {
    emit_maker(s, in[k]);
    if (s->failed) return;
    mapped[k] = s->r.map[in[k]];
  }
  dj__norm_attr a = *(const dj__norm_attr *)head->attr;
  a.relu = relu;
  dj__node *c = dj__append_node(s->r.dst, head->op, mapped, n_in, &a, sizeof a, head->label);
  s->failed = !c;
  if (!c) return;
  c->backward = head->backward;
  c->segment = head->segment;
  c->n_out = head->n_out;
  for (int k = 0; k < head->n_out; k++) {
    const dj__value *v = &g->values[head->out[k]];
    c->out[k] = dj__new_value(s->r.dst, v->shape, v->dtype, s->r.dst->n_nodes - 1, k);
    s->failed |= c->out[k] < 0;
    s->r.map[k ? head->out[k] : y] = c->out[k];
  }
}

/* Emits node i, or what it is part of, after what it depends on. */
static void emit(state *s, int i) {
  const dj_graph *g = s->r.src;
  const int head = s->part[i].head < 0 ? i : s->part[i].head;
  const group *p = &s->group[head];
  const dj__node *n = g->nodes[head];
  if (s->part[head].done || s->failed) return;
  s->part[head].done = true;
  if (p->last >= 0) {
    const dj_val in[] = {n->in[0], n->in[1], n->in[2], p->residual};
    emit_head(s, head, in, p->residual < 0 ? 3 : 4, p->relu, g->nodes[p->last]->out[0]);
  } else if (p->norm >= 0) {
    const dj_val dy = g->nodes[g->values[n->in[4]].node]->in[1];
    const dj_val in[] = {n->in[0], n->in[1], n->in[2], n->in[3], dy, g->nodes[p->norm]->in[2]};
    emit_head(s, head, in, 6, true, n->out[0]);
  } else {
    for (int k = 0; k < n->n_in; k++) emit_maker(s, n->in[k]);
    if (!s->failed && !dj__rewrite_keep(&s->r, n)) s->failed = true;
  }
}

dj_status dj__fuse_norms(const dj_graph *g, dj_graph **out) {
  state s = {0};
  DJ_TRY(dj__rewrite_begin(&s.r, g));
  const size_t n = (size_t)g->n_nodes + 1;
  int *uses = dj__count_uses(g);
  s.reader = uses ? dj__single_readers(g, uses) : NULL;
  s.part = calloc(n, sizeof *s.part);
  s.group = calloc(n, sizeof *s.group);
  s.failed = !s.reader || !s.part || !s.group;
  for (int i = 0; i < g->n_nodes && !s.failed; i++) {
    s.part[i].head = -1;
    s.group[i] = (group){.last = -1, .residual = DJ_NONE, .norm = -1};
  }
  for (int i = 0; i < g->n_nodes && !s.failed; i++) {
    if (g->nodes[i]->op == DJ__OP_batch_norm) find_forward(&s, i);
    if (g->nodes[i]->op == DJ__OP_relu_grad) find_backward(&s, i);
  }
  for (int i = 0; i < g->n_nodes && !s.failed; i++)
    if (g->nodes[i]->op != DJ__OP_relu_grad || s.part[i].head < 0) emit(&s, i);
  free(uses);
  free(s.reader);
  free(s.part);
  free(s.group);
  if (s.failed) {
    dj__rewrite_abort(&s.r);
    return dj_error(DJ_E_NOMEM, "compile: out of memory");
  }
  return dj__rewrite_end(&s.r, out);
}
