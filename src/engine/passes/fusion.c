/*
 * Fusion, in three rounds. The first, around batch norm, is in fusion_norm.c.
 *
 * Epilogues: conv2d/conv2d_data/matmul -> add of a per-channel value -> activation become one node
 * where each value in between has a single reader. Activations whose gradient needs their input
 * (SiLU, GELU) have two readers when training and so stay apart by themselves.
 *
 * Chains: elementwise nodes of one output shape are gathered into groups; each group is one `fused`
 * node that reads its inputs once and writes only values somebody outside needs. A node may join
 * its producer's group unless one of its other inputs depends on the group (that would be a cycle),
 * or the group would outgrow the fused attribute. A sum over all axes but the last of a member's
 * value (the gradient of a bias) joins too, one a group, so that the value is not read again.
 * Results differ from the unfused ones only by bf16 roundings that are not made, and sums by their
 * order of addition.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/ewise.h"
#include "engine/ops/basic.h"
#include "engine/passes/passes.h"

/* ---- epilogues ---- */
static bool takes_post(const dj__node *n) {
  return n->op == DJ__OP_conv2d || n->op == DJ__OP_conv2d_data || n->op == DJ__OP_matmul;
}

static dj__post *post_of(const dj__node *n) {
  return n->op == DJ__OP_matmul ? &((dj__matmul_attr *)n->attr)->post
                                : &((dj__conv_attr *)n->attr)->post;
}

static bool is_activation(dj__op op) {
  return op == DJ__OP_relu || op == DJ__OP_sigmoid || op == DJ__OP_tanh || op == DJ__OP_elu ||
         op == DJ__OP_silu || op == DJ__OP_gelu;
}

/* True if v holds one value a channel of `like`: shape (C) or (1, .., 1, C), f32. */
static bool per_channel(const dj_graph *g, dj_val v, dj_val like) {
  const dj_shape *s = &g->values[v].shape, *l = &g->values[like].shape;
  return g->values[v].dtype == DJ_F32 && s->rank >= 1 && l->rank >= 1 &&
         dj_shape_count(s) == s->dim[s->rank - 1] && s->dim[s->rank - 1] == l->dim[l->rank - 1];
}

typedef struct epilogue {
  int head; // node that gets the epilogue (by its index), -1: none
  dj_val bias;
  unsigned char act;
} epilogue;

/* Follows the chain after node i; marks absorbed nodes with the index of the last one. */
static void find_epilogue(const dj_graph *g, const int *reader, int i, epilogue *at_last,
                          bool *absorbed) {
  const dj__node *n = g->nodes[i];
  if (!takes_post(n) || post_of(n)->bias || post_of(n)->act) return;
  epilogue e = {.head = i, .bias = DJ_NONE};
  int last = i, next = reader[n->out[0]];
  if (next >= 0 && g->nodes[next]->op == DJ__OP_add) {
    const dj__node *add = g->nodes[next];
    dj_val bias = add->in[0] == n->out[0] ? add->in[1] : add->in[0];
    if (bias != n->out[0] && per_channel(g, bias, n->out[0]) &&
        dj_shape_equal(&g->values[add->out[0]].shape, &g->values[n->out[0]].shape)) {
      e.bias = bias;
      last = next;
      next = reader[add->out[0]];
    }
  }
  if (next >= 0 && is_activation(g->nodes[next]->op)) {
    e.act = (unsigned char)g->nodes[next]->op;
    last = next;
  }
  if (last == i) return;
  at_last[last] = e;
  for (int k = i; k != last; k = reader[g->nodes[k]->out[0]]) absorbed[k] = true;
}

static bool emit_epilogue(dj__rewrite *r, const epilogue *e, const dj__node *last) {
  const dj_graph *g = r->src;
  const dj__node *head = g->nodes[e->head];
  dj_val in[3] = {r->map[head->in[0]], r->map[head->in[1]], DJ_NONE};
  int n_in = 2;
  if (e->bias >= 0) in[n_in++] = r->map[e->bias];
  dj__node *c =
      dj__append_node(r->dst, head->op, in, n_in, head->attr, head->attr_size, head->label);
  if (!c) return false;
  c->backward = head->backward;
  *post_of(c) = (dj__post){.bias = e->bias >= 0, .act = e->act};
  const dj__value *v = &g->values[last->out[0]];
  c->n_out = 1;
  c->out[0] = dj__new_value(r->dst, v->shape, v->dtype, r->dst->n_nodes - 1, 0);
  r->map[last->out[0]] = c->out[0];
  return c->out[0] >= 0;
}

static dj_status fuse_epilogues(const dj_graph *g, dj_graph **out) {
  dj__rewrite r;
  DJ_TRY(dj__rewrite_begin(&r, g));
  size_t n = (size_t)g->n_nodes + 1;
  int *uses = dj__count_uses(g), *reader = uses ? dj__single_readers(g, uses) : NULL;
  epilogue *at_last = malloc(n * sizeof *at_last);
  bool *absorbed = calloc(n, sizeof *absorbed);
  bool ok = reader && at_last && absorbed;
  for (int i = 0; ok && i < g->n_nodes; i++) at_last[i].head = -1;
  for (int i = 0; ok && i < g->n_nodes; i++) find_epilogue(g, reader, i, at_last, absorbed);
  for (int i = 0; ok && i < g->n_nodes; i++) {
    if (absorbed[i]) continue;
    ok = at_last[i].head >= 0 ? emit_epilogue(&r, &at_last[i], g->nodes[i])
                              : dj__rewrite_keep(&r, g->nodes[i]) != NULL;
  }
  free(uses);
  free(reader);
  free(at_last);
  free(absorbed);
  if (!ok) {
    dj__rewrite_abort(&r);
    return dj_error(DJ_E_NOMEM, "compile: out of memory");
  }
  return dj__rewrite_end(&r, out);
}

/* ---- chains ---- */
typedef struct group {
  int *member; // node indices, ascending
  int n, cap;
  bool emitted;
  bool sum; // one member is column sums
} group;

typedef struct chains {
  dj__rewrite r;
  int *of;    // (n_nodes) group of a node, -1: none
  int *uses;  // (n_values)
  bool *done; // (n_nodes) emitted
  int *mark;  // (n_nodes) last search that saw the node
  int search;
  group *groups;
  int n_groups, cap_groups;
  bool failed;
} chains;

static bool fusable(const dj_graph *g, const dj__node *n) {
  if (n->op == DJ__OP_cast) {
    dj_dtype t = g->values[n->out[0]].dtype;
    return t == DJ_F32 || t == DJ_BF16;
  }
  dj_dtype t = n->n_out == 1 ? g->values[n->out[0]].dtype : DJ_I32;
  return dj__op_get(n->op)->flags & DJ__EWISE && n->op != DJ__OP_fused &&
         (t == DJ_F32 || t == DJ_BF16);
}

/* A sum over all axes but the last of a value that has other readers. */
static bool sums_columns(const chains *c, const dj__node *n) {
  if (n->op != DJ__OP_sum) return false;
  const dj__reduce_attr *a = n->attr;
  const dj_shape *s = &c->r.src->values[n->in[0]].shape;
  return s->rank > 1 && a->axes == (1u << (s->rank - 1)) - 1 && !a->keep && a->scale == 1 &&
         s->dim[s->rank - 1] <= DJ__FUSED_COLUMNS && c->uses[n->in[0]] > 1;
}

/* True if node i is, or depends on, a member of group k. Indices say nothing here: a node waits for
 * all members of a group that one of its inputs is in. */
static bool depends(chains *c, int i, int k) {
  if (c->mark[i] == c->search) return false;
  c->mark[i] = c->search;
  if (c->of[i] == k) return true;
  const dj_graph *g = c->r.src;
  // A node of another group is emitted with all of its group: the group's inputs count.
  int other = c->of[i];
  int n = other >= 0 ? c->groups[other].n : 1;
  for (int m = 0; m < n; m++) {
    int at = other >= 0 ? c->groups[other].member[m] : i;
    const dj__node *node = g->nodes[at];
    c->mark[at] = c->search;
    for (int j = 0; j < node->n_in; j++)
      if (node->in[j] >= 0 && depends(c, g->values[node->in[j]].node, k)) return true;
  }
  return false;
}

/* Inputs, instructions and outputs that a group would have with node `extra` in it. */
static bool fits(const chains *c, const group *p, int k, int extra) {
  const dj_graph *g = c->r.src;
  dj_val in[DJ__FUSED_IN];
  int n_in = 0, n_out = 0, n_instr = 0, n = p->n + 1;
  if (n > DJ__FUSED_INSTR * 2) return false;
  for (int m = 0; m < n; m++) {
    int at = m < p->n ? p->member[m] : extra;
    const dj__node *node = g->nodes[at];
    n_instr += node->op != DJ__OP_cast && node->op != DJ__OP_sum;
    for (int j = 0; j < node->n_in; j++) {
      dj_val v = node->in[j];
      int maker = g->values[v].node;
      if (c->of[maker] == k || maker == extra) continue;
      int x = 0;
      while (x < n_in && in[x] != v) x++;
      if (x < n_in) continue;
      if (n_in == DJ__FUSED_IN) return false;
      in[n_in++] = v;
    }
    int inside = 0; // readers inside
    dj_val v = node->out[0];
    for (int q = 0; q < n; q++) {
      const dj__node *reader = g->nodes[q < p->n ? p->member[q] : extra];
      for (int j = 0; j < reader->n_in; j++) inside += reader->in[j] == v;
    }
    n_out += c->uses[v] > inside;
  }
  return n_instr <= DJ__FUSED_INSTR && n_out <= DJ__FUSED_OUT;
}

static void join(chains *c, group *p, int k, int i) {
  if (p->n == p->cap) {
    int cap = p->cap ? p->cap * 2 : 4;
    int *m = realloc(p->member, (size_t)cap * sizeof *m);
    if (!m) {
      c->failed = true;
      return;
    }
    p->member = m;
    p->cap = cap;
  }
  p->member[p->n++] = i;
  c->of[i] = k;
}

/* Puts node i, which sums columns, into the group of what it sums. */
static void place_sum(chains *c, int i) {
  const int k = c->of[c->r.src->values[c->r.src->nodes[i]->in[0]].node];
  if (k < 0 || c->groups[k].sum || !fits(c, &c->groups[k], k, i)) return;
  c->groups[k].sum = true;
  join(c, &c->groups[k], k, i);
}

/* Puts node i into the group of one of its producers, or into a new one. */
static void place(chains *c, int i) {
  const dj_graph *g = c->r.src;
  const dj__node *n = g->nodes[i];
  for (int j = 0; j < n->n_in; j++) {
    int maker = g->values[n->in[j]].node, k = c->of[maker];
    if (k < 0 || g->nodes[maker]->op == DJ__OP_sum ||
        !dj_shape_equal(&g->values[n->in[j]].shape, &g->values[n->out[0]].shape))
      continue;
    group *p = &c->groups[k];
    bool cycle = false;
    c->search++;
    for (int x = 0; x < n->n_in && !cycle; x++) {
      int m = g->values[n->in[x]].node;
      if (c->of[m] != k || g->nodes[m]->op == DJ__OP_sum) cycle = depends(c, m, k);
    }
    if (cycle || !fits(c, p, k, i)) continue;
    join(c, p, k, i);
    return;
  }
  if (c->n_groups == c->cap_groups) {
    int cap = c->cap_groups ? c->cap_groups * 2 : 64;
    group *grown = realloc(c->groups, (size_t)cap * sizeof *grown);
    if (!grown) {
      c->failed = true;
      return;
    }
    c->groups = grown;
    c->cap_groups = cap;
  }
  c->groups[c->n_groups] = (group){0};
  join(c, &c->groups[c->n_groups], c->n_groups, i);
  c->n_groups++;
}

/* Appends the fused node of a group; its external inputs are emitted already. */
static void emit_fused(chains *c, const group *p, int k) {
  const dj_graph *g = c->r.src;
  dj_val in[DJ__FUSED_IN], values[DJ__FUSED_INSTR * 2 + DJ__FUSED_IN]; // made value of each entry
  unsigned char regs[DJ__FUSED_INSTR * 2 + DJ__FUSED_IN];
  int n_in = 0, n_known = 0;
  for (int m = 0; m < p->n; m++)
    for (int j = 0; j < g->nodes[p->member[m]]->n_in; j++) {
      dj_val v = g->nodes[p->member[m]]->in[j];
      int x = 0;
      while (x < n_known && values[x] != v) x++;
      if (x < n_known || c->of[g->values[v].node] == k) continue;
      values[n_known] = v;
      regs[n_known++] = (unsigned char)n_in;
      in[n_in++] = c->r.map[v];
    }
  dj__fused_attr a;
  memset(&a, 0, sizeof a);
  dj_val out[DJ__FUSED_OUT];
  const dj__node *sum = NULL;
  for (int m = 0; m < p->n; m++) {
    const dj__node *node = g->nodes[p->member[m]];
    if (node->op == DJ__OP_sum) {
      sum = node;
      continue;
    }
    unsigned char r[3] = {0, 0, 0};
    for (int j = 0; j < node->n_in; j++) {
      int x = 0;
      while (values[x] != node->in[j]) x++;
      r[j] = regs[x];
    }
    values[n_known] = node->out[0];
    if (node->op == DJ__OP_cast) {
      regs[n_known++] = r[0];
    } else {
      const dj__ewise_attr *e = node->attr;
      regs[n_known++] = (unsigned char)(n_in + a.n_instr);
      a.instr[a.n_instr++] =
          (dj__fused_instr){(unsigned char)node->op, r[0], r[1], r[2], e ? e->p : 0, e ? e->q : 0};
    }
    int inside = 0;
    for (int q = 0; q < p->n; q++)
      for (int j = 0; j < g->nodes[p->member[q]]->n_in; j++)
        inside += g->nodes[p->member[q]]->in[j] == node->out[0];
    if (c->uses[node->out[0]] > inside) {
      out[a.n_out] = node->out[0];
      a.out[a.n_out++] = regs[n_known - 1];
    }
  }
  if (sum) {
    int x = 0;
    while (values[x] != sum->in[0]) x++;
    out[a.n_out] = sum->out[0];
    a.out[a.n_out++] = regs[x];
    a.sum = true;
  }
  const dj__node *last = g->nodes[p->member[p->n - 1]];
  dj__node *f = dj__append_node(c->r.dst, DJ__OP_fused, in, n_in, &a, sizeof a, last->label);
  if (!f) {
    c->failed = true;
    return;
  }
  f->backward = last->backward;
  f->n_out = a.n_out;
  for (int o = 0; o < a.n_out; o++) {
    const dj__value *v = &g->values[out[o]];
    f->out[o] = dj__new_value(c->r.dst, v->shape, v->dtype, c->r.dst->n_nodes - 1, o);
    c->r.map[out[o]] = f->out[o];
    c->failed |= f->out[o] < 0;
  }
}

/* Emits node i after what it depends on. Groups come whole. */
static void emit(chains *c, int i) {
  const dj_graph *g = c->r.src;
  if (c->done[i] || c->failed) return;
  int k = c->of[i];
  bool fused = k >= 0 && c->groups[k].n > 1;
  int n = fused ? c->groups[k].n : 1;
  for (int m = 0; m < n; m++) c->done[fused ? c->groups[k].member[m] : i] = true;
  for (int m = 0; m < n; m++) {
    const dj__node *node = g->nodes[fused ? c->groups[k].member[m] : i];
    for (int j = 0; j < node->n_in; j++)
      if (node->in[j] >= 0) emit(c, g->values[node->in[j]].node);
  }
  if (fused)
    emit_fused(c, &c->groups[k], k);
  else if (!dj__rewrite_keep(&c->r, g->nodes[i]))
    c->failed = true;
}

static dj_status fuse_chains(const dj_graph *g, dj_graph **out) {
  chains c = {0};
  DJ_TRY(dj__rewrite_begin(&c.r, g));
  size_t n = (size_t)g->n_nodes + 1;
  c.of = malloc(n * sizeof *c.of);
  c.done = calloc(n, sizeof *c.done);
  c.mark = calloc(n, sizeof *c.mark);
  c.uses = dj__count_uses(g);
  c.failed = !c.of || !c.done || !c.mark || !c.uses;
  for (int i = 0; i < g->n_nodes && !c.failed; i++) c.of[i] = -1;
  for (int i = 0; i < g->n_nodes && !c.failed; i++)
    if (sums_columns(&c, g->nodes[i]))
      place_sum(&c, i);
    else if (fusable(g, g->nodes[i]))
      place(&c, i);
  for (int i = 0; i < g->n_nodes && !c.failed; i++) emit(&c, i);
  for (int k = 0; k < c.n_groups; k++) free(c.groups[k].member);
  free(c.groups);
  free(c.of);
  free(c.done);
  free(c.mark);
  free(c.uses);
  if (c.failed) {
    dj__rewrite_abort(&c.r);
    return dj_error(DJ_E_NOMEM, "compile: out of memory");
  }
  return dj__rewrite_end(&c.r, out);
}

dj_status dj__pass_fusion(const dj_graph *g, dj_graph **out) {
  dj_graph *norms, *middle;
  DJ_TRY(dj__fuse_norms(g, &norms));
  dj_status s = fuse_epilogues(norms, &middle);
  dj_graph_destroy(norms);
  if (s) return s;
  s = fuse_chains(middle, out);
  dj_graph_destroy(middle);
  return s;
}
