/*
 * Reverse-mode differentiation on the graph: walks the nodes from the loss back, asks each op for
 * the gradients of its inputs, and adds up what several readers send. Gradients are ordinary nodes,
 * so the passes see the forward and backward pass as one program.
 *
 * Ops emit a gradient for every input that needs one; sums are emitted when a second contribution
 * arrives, in a fixed order (the reverse of creation), so that results do not depend on anything
 * else. Gradients of slices that lie side by side are concatenated.
 */
#include <stdlib.h>

#include "dojo/ops.h"
#include "engine/graph.h"
#include "engine/ops/basic.h"

void dj__no_grad(dj_graph *g, const dj__node *n, const dj_val *dout, dj_val *din) {
  (void)g;
  (void)n;
  (void)dout;
  (void)din;
}

static dj_status check_loss(dj_graph *g, dj_val loss) {
  DJ_TRY(dj_graph_status(g));
  if (loss < 0 || loss >= g->n_values)
    return dj_error(DJ_E_INVALID, "backward: the loss is no value of this graph");
  const dj__value *v = &g->values[loss];
  if (v->dtype != DJ_F32 || dj_shape_count(&v->shape) != 1) {
    char t[DJ_SHAPE_TEXT];
    return dj_error(DJ_E_INVALID, "backward: the loss must be one f32 number, this is %s %s",
                    dj_shape_text(&v->shape, t, sizeof t), dj_dtype_name(v->dtype));
  }
  if (!v->needs_grad)
    return dj_error(DJ_E_INVALID, "backward: the loss depends on no trainable variable");
  return DJ_OK;
}

/* The attribute if value v is zeros around a smaller one: the gradient of a slice. */
static const dj__pad_attr *zeros_around(const dj_graph *g, dj_val v) {
  const dj__node *n = g->nodes[g->values[v].node];
  const dj__pad_attr *a = n->attr;
  return n->op == DJ__OP_pad && a->value == 0 ? a : NULL;
}

/* What lies side by side is put side by side instead of added: slices that cut a value up (queries,
 * keys and values, gates) would otherwise each fill a whole one with zeros. Parts of a concat made
 * here before are taken over. DJ_NONE where a and b are not like that. */
static dj_val side_by_side(dj_graph *g, dj_val a, dj_val b) {
  enum { MOST = 16 };
  const dj__pad_attr *p = zeros_around(g, a), *q = zeros_around(g, b);
  if (!p || !q || p->axis != q->axis) return DJ_NONE;
  const int axis = p->axis;
  const int64_t size = g->values[a].shape.dim[axis];
  if (size - p->after != q->before) { // a is not just in front of b
    if (size - q->after != p->before) return DJ_NONE;
    const dj__pad_attr *other = p;
    p = q, q = other;
    dj_val first = b;
    b = a, a = first;
  }
  const int64_t before = p->before, after = q->after; // nodes may move: read first
  const dj_val pads[] = {a, b};
  dj_val parts[MOST];
  int n = 0;
  for (int i = 0; i < 2; i++) {
    dj_val x = g->nodes[g->values[pads[i]].node]->in[0];
    const dj__node *made = g->nodes[g->values[x].node];
    bool open = made->op == DJ__OP_concat && made->backward &&
                ((const dj__axis_attr *)made->attr)->axis == axis;
    if (n + (open ? made->n_in : 1) > MOST) return DJ_NONE;
    for (int k = 0; k < (open ? made->n_in : 1); k++) parts[n++] = open ? made->in[k] : x;
  }
  dj_val all = dj_concat(g, parts, n, axis);
  return before || after ? dj_pad(g, all, axis, before, after, 0) : all;
}

/* Rows of d that are added to zeros are added to `to` instead. DJ_NONE where d is not that. */
static dj_val rows_onto(dj_graph *g, dj_val to, dj_val d) {
  const dj__node *n = g->nodes[g->values[d].node];
  if (n->op != DJ__OP_scatter_add || n->in[0] >= 0) return DJ_NONE;
  return dj_scatter_add(g, to, n->in[1], n->in[2], ((const dj__scatter_attr *)n->attr)->rows);
}

/* a + b, both gradients of one value: without a pass over all of it where that can be. */
static dj_val sum_of(dj_graph *g, dj_val a, dj_val b) {
  dj_val sum = side_by_side(g, a, b);
  if (sum < 0) sum = rows_onto(g, a, b);
  if (sum < 0) sum = rows_onto(g, b, a);
  return sum >= 0 ? sum : dj_add(g, a, b);
}

/* Adds a contribution to the gradient of value v. */
static void contribute(dj_graph *g, dj_val v, dj_val d, const dj__node *from) {
  if (d < 0) return;
  if (!dj_shape_equal(&g->values[d].shape, &g->values[v].shape)) {
    char a[DJ_SHAPE_TEXT], b[DJ_SHAPE_TEXT];
    dj__graph_fail(g, dj_error(DJ_E_STATE,
                               "%s: gradient of shape %s for an input of shape %s: "
                               "the op's gradient rule is wrong",
                               dj__op_get(from->op)->name,
                               dj_shape_text(&g->values[d].shape, a, sizeof a),
                               dj_shape_text(&g->values[v].shape, b, sizeof b)));
    return;
  }
  dj_val before = g->values[v].grad;
  g->values[v].grad = before < 0 ? d : sum_of(g, before, d);
}

dj_status dj_graph_backward(dj_graph *g, dj_val loss) {
  dj_status s = check_loss(g, loss);
  if (s) {
    dj__graph_fail(g, s);
    return s;
  }
  for (int i = 0; i < g->n_values; i++) g->values[i].grad = DJ_NONE;
  char label[sizeof g->label];
  memcpy(label, g->label, sizeof label);
  g->in_backward = true;
  float one = 1;
  g->values[loss].grad = dj_const_f32(g, &one, g->values[loss].shape);
  int last = g->values[loss].node, max_in = 1;
  for (int i = 0; i <= last; i++)
    if (g->nodes[i]->n_in > max_in) max_in = g->nodes[i]->n_in;
  dj_val *din = malloc((size_t)max_in * sizeof *din);
  if (!din) dj__graph_fail(g, dj_error(DJ_E_NOMEM, "backward: out of memory"));
  for (int i = last; din && i >= 0 && !g->status; i--) {
    const dj__node *n = g->nodes[i];
    const dj__op_def *def = dj__op_get(n->op);
    dj_val dout[DJ__MAX_OUT];
    bool any = false, wanted = false;
    for (int k = 0; k < n->n_out; k++) {
      dout[k] = g->values[n->out[k]].grad;
      any |= dout[k] >= 0;
    }
    for (int k = 0; k < n->n_in; k++) {
      wanted |= dj__needs_grad(g, n->in[k]);
      din[k] = DJ_NONE;
    }
    if (!any || !wanted || def->grad == DJ__NO_GRAD) continue;
    strcpy(g->label, n->label); // both are of the same size
    def->grad(g, n, dout, din);
    for (int k = 0; k < n->n_in && !g->status; k++)
      if (dj__needs_grad(g, n->in[k])) contribute(g, n->in[k], din[k], n);
  }
  free(din);
  g->in_backward = false;
  memcpy(g->label, label, sizeof label);
  return dj_graph_status(g);
}

dj_val dj_grad(const dj_graph *g, dj_val v) {
  return v < 0 || v >= g->n_values ? DJ_NONE : g->values[v].grad;
}
