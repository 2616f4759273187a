/*
 * Casts of variables to bf16 are taken into the products that read them as weights: the product
 * rounds each weight as it lays it out for its kernel, which is mostly done once (packed.h), or in
 * each run; no copy is written, kept and read in between. Where nothing changes between runs
 * (frozen), matrix products keep their copies.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/passes/passes.h"

enum { LARGE = 1 << 19 }; // elements of a matrix that is worth it

static bool is_conv(const dj__node *n) {
  return n->op == DJ__OP_conv2d || n->op == DJ__OP_conv2d_data;
}

/* The variable that value v is a bf16 copy of, or DJ_NONE. */
static dj_val copied_variable(const dj_graph *g, dj_val v) {
  if (v < 0) return DJ_NONE;
  const dj__node *n = g->nodes[g->values[v].node];
  if (n->op != DJ__OP_cast || g->values[v].dtype != DJ_BF16) return DJ_NONE;
  const dj__value *from = &g->values[n->in[0]];
  if (g->nodes[from->node]->op != DJ__OP_variable || from->dtype != DJ_F32) return DJ_NONE;
  return n->in[0];
}

/* The variable that node n is to read instead of input i; DJ_NONE: it keeps that. The first input
 * of a matrix product is not kept packed: only where it is large. */
static dj_val rounded_input(const dj_graph *g, const dj__node *n, int i, bool convolutions) {
  const bool product = !convolutions && n->op == DJ__OP_matmul && i < 2;
  dj_val v = product || (is_conv(n) && i == 1) ? copied_variable(g, n->in[i]) : DJ_NONE;
  return v >= 0 && i == 0 && dj_shape_count(&g->values[v].shape) < LARGE ? DJ_NONE : v;
}

static unsigned char *rounds_of(dj__node *n) {
  return n->op == DJ__OP_matmul ? &((dj__matmul_attr *)n->attr)->rounds
                                : &((dj__conv_attr *)n->attr)->rounds;
}

/* Copies n; where it may, it reads variables instead of their copies. */
static bool copy(dj__rewrite *r, const dj__node *n, bool convolutions) {
  dj_val in[3];
  unsigned rounds = 0;
  if (n->n_in > 3 || !(is_conv(n) || n->op == DJ__OP_matmul)) return dj__rewrite_keep(r, n) != NULL;
  for (int i = 0; i < n->n_in; i++) {
    dj_val v = rounded_input(r->src, n, i, convolutions);
    if (v >= 0) rounds |= 1u << i;
    in[i] = n->in[i] < 0 ? DJ_NONE : r->map[v >= 0 ? v : n->in[i]];
  }
  dj__node *c = dj__rewrite_copy(r, n, in, NULL);
  if (c && rounds) *rounds_of(c) |= (unsigned char)rounds;
  return c != NULL;
}

dj_status dj__pass_round(const dj_graph *g, bool convolutions, dj_graph **out) {
  dj__rewrite r;
  DJ_TRY(dj__rewrite_begin(&r, g));
  int *uses = dj__count_uses(g); // of casts, by those that go on reading them
  bool ok = uses != NULL;
  for (int i = 0; ok && i < g->n_nodes; i++)
    for (int k = 0; k < g->nodes[i]->n_in; k++)
      if (rounded_input(g, g->nodes[i], k, convolutions) >= 0) uses[g->nodes[i]->in[k]]--;
  for (int i = 0; ok && i < g->n_nodes; i++) {
    const dj__node *n = g->nodes[i];
    if (n->n_out == 1 && copied_variable(g, n->out[0]) >= 0 && uses[n->out[0]] == 0) continue;
    ok = copy(&r, n, convolutions);
  }
  free(uses);
  if (!ok) {
    dj__rewrite_abort(&r);
    return dj_error(DJ_E_NOMEM, "compile: out of memory");
  }
  return dj__rewrite_end(&r, out);
}
