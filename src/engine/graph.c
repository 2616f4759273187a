/*
 * The graph: nodes, values, labels, sources, outputs, sticky errors. A node is made by dj__emit:
 * its inputs' shapes go through the op's shape rule at once, so that a mistake is reported where it
 * is made. Nodes live in the graph's arena and never move; values are an array, addressed by
 * number.
 *
 * Invariants: a node's inputs were made before it, so the order of creation is a topological order.
 * Differentiation is in autodiff.c, everything about running in program.c and passes/.
 */
#include "engine/graph.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dojo/ops.h"

size_t dj_dtype_size(dj_dtype t) {
  switch (t) {
#define DJ_X(name, bytes, text)                                                                    \
  case DJ_##name:                                                                                  \
    return bytes;
    DJ_DTYPE_LIST(DJ_X)
#undef DJ_X
  case DJ_N_DTYPES:
    break;
  }
  return 0;
}

const char *dj_dtype_name(dj_dtype t) {
  switch (t) {
#define DJ_X(name, bytes, text)                                                                    \
  case DJ_##name:                                                                                  \
    return text;
    DJ_DTYPE_LIST(DJ_X)
#undef DJ_X
  case DJ_N_DTYPES:
    break;
  }
  return "?";
}

char *dj_shape_text(const dj_shape *s, char *buf, size_t size) {
  size_t n = (size_t)snprintf(buf, size, "(");
  for (int i = 0; i < s->rank && n < size; i++)
    n += (size_t)snprintf(buf + n, size - n, i ? ", %lld" : "%lld", (long long)s->dim[i]);
  if (n < size) (void)snprintf(buf + n, size - n, ")");
  return buf;
}

dj_graph *dj_graph_create(void) {
  dj_graph *g = calloc(1, sizeof *g);
  if (!g) dj_error(DJ_E_NOMEM, "graph: out of memory");
  return g;
}

void dj_graph_destroy(dj_graph *g) {
  if (!g) return;
  free(g->nodes);
  free(g->values);
  free(g->params);
  free(g->outputs);
  free(g->message);
  dj__arena_free(&g->arena);
  free(g);
}

dj_status dj_graph_status(const dj_graph *g) {
  return g->status ? dj_error(g->status, "%s", g->message ? g->message : "graph: out of memory")
                   : DJ_OK;
}

dj_val dj__graph_fail(dj_graph *g, dj_status s) {
  if (!g->status) {
    g->status = s;
    g->message = strdup(dj_error_message());
  }
  return DJ_NONE;
}

void dj_graph_push(dj_graph *g, const char *fmt, ...) {
  size_t n = strlen(g->label), room = sizeof g->label - n;
  if (g->depth < DJ__LABEL_DEPTH)
    g->label_at[g->depth] = (unsigned char)n;
  else
    dj__graph_fail(g, dj_error(DJ_E_LIMIT, "graph: labels below '%s' nest deeper than %d", g->label,
                               DJ__LABEL_DEPTH));
  g->depth++;
  va_list ap;
  va_start(ap, fmt);
  int k = n ? snprintf(g->label + n, room, "/") : 0;
  int m = vsnprintf(g->label + n + k, room - (size_t)k, fmt, ap);
  va_end(ap);
  if (m < 0 || (size_t)(m + k) >= room) {
    g->label[n] = 0;
    dj__graph_fail(g, dj_error(DJ_E_LIMIT, "graph: label path '%s/...' is longer than %zu bytes",
                               g->label, sizeof g->label - 1));
  }
}

void dj_graph_pop(dj_graph *g) {
  if (g->depth == 0) return;
  if (--g->depth < DJ__LABEL_DEPTH) g->label[g->label_at[g->depth]] = 0;
}

/* Makes room for one more element of an array; records the failure. */
static bool grow(dj_graph *g, void **array, int n, int *cap, size_t element) {
  if (n < *cap) return true;
  int want = *cap ? *cap * 2 : 256;
  void *p = realloc(*array, (size_t)want * element);
  if (!p) {
    dj__graph_fail(g, dj_error(DJ_E_NOMEM, "graph: no memory for %d elements", want));
    return false;
  }
  *array = p;
  *cap = want;
  return true;
}

dj_val dj__new_value(dj_graph *g, dj_shape s, dj_dtype t, int node, int out) {
  if (!grow(g, (void **)&g->values, g->n_values, &g->cap_values, sizeof *g->values)) return DJ_NONE;
  g->values[g->n_values] =
      (dj__value){.shape = s, .dtype = t, .node = node, .out = out, .grad = DJ_NONE};
  return g->n_values++;
}

dj_shape dj_val_shape(const dj_graph *g, dj_val v) {
  return v < 0 || v >= g->n_values ? DJ_SCALAR : g->values[v].shape;
}

dj_dtype dj_val_dtype(const dj_graph *g, dj_val v) {
  return v < 0 || v >= g->n_values ? DJ_F32 : g->values[v].dtype;
}

/* Shapes of a call's inputs, for messages: "(3, 4) f32, none, (2) i32". */
static void inputs_text(const dj__infer *s, char *buf, size_t size) {
  size_t n = 0;
  buf[0] = 0;
  for (int i = 0; i < s->n_in && i < 8 && n < size; i++) {
    char t[DJ_SHAPE_TEXT] = "none";
    if (s->in[i].shape.rank >= 0) dj_shape_text(&s->in[i].shape, t, sizeof t);
    n += (size_t)snprintf(buf + n, size - n, "%s%s %s", i ? ", " : "", t,
                          s->in[i].shape.rank >= 0 ? dj_dtype_name(s->in[i].dtype) : "");
  }
  if (s->n_in > 8 && n < size) (void)snprintf(buf + n, size - n, ", and %d more", s->n_in - 8);
}

dj_status dj__bad(const dj__infer *s, const char *fmt, ...) {
  char text[512], shapes[640];
  va_list ap;
  va_start(ap, fmt);
  (void)vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  inputs_text(s, shapes, sizeof shapes);
  return dj_error(DJ_E_INVALID, "%s: %s; inputs: %s", s->op_name, text, shapes);
}

/* A shape of positive dimensions whose element count and bytes stay below 2^46. */
static bool sane_shape(const dj_shape *s) {
  if (s->rank < 0 || s->rank > DJ_MAX_RANK) return false;
  int64_t n = 1;
  for (int i = 0; i < s->rank; i++) {
    if (s->dim[i] < 1 || s->dim[i] > ((int64_t)1 << 44) / n) return false;
    n *= s->dim[i];
  }
  return true;
}

/* A node that is not yet in the list of nodes. */
static dj__node *new_node(dj_graph *g, dj__op op, const dj_val *in, int n_in, const void *attr,
                          size_t attr_size) {
  if (!grow(g, (void **)&g->nodes, g->n_nodes, &g->cap_nodes, sizeof *g->nodes)) return NULL;
  dj__node *n = dj__arena_alloc(&g->arena, sizeof *n);
  dj_val *copy = n_in ? dj__arena_copy(&g->arena, in, (size_t)n_in * sizeof *in) : NULL;
  void *a = attr_size ? dj__arena_copy(&g->arena, attr, attr_size) : NULL;
  char *label = dj__arena_strdup(&g->arena, g->label);
  if (!n || (n_in && !copy) || (attr_size && !a) || !label) {
    dj__graph_fail(g, DJ_E_NOMEM);
    return NULL;
  }
  *n = (dj__node){.op = op,
                  .n_in = n_in,
                  .in = copy,
                  .attr = a,
                  .attr_size = attr_size,
                  .label = label,
                  .backward = g->in_backward,
                  .segment = g->segment};
  return n;
}

void dj_recompute_begin(dj_graph *g) {
  g->segment = ++g->n_segments;
}
void dj_recompute_end(dj_graph *g) {
  g->segment = 0;
}

dj__node *dj__append_node(dj_graph *g, dj__op op, const dj_val *in, int n_in, const void *attr,
                          size_t attr_size, const char *label) {
  dj__node *n = new_node(g, op, in, n_in, attr, attr_size);
  if (!n) return NULL;
  n->label = dj__arena_strdup(&g->arena, label);
  g->nodes[g->n_nodes++] = n;
  return n->label ? n : NULL;
}

dj_val dj__emit(dj_graph *g, dj__op op, const dj_val *in, int n_in, const void *attr,
                size_t attr_size) {
  if (g->status) return DJ_NONE;
  const dj__op_def *def = dj__op_get(op);
  if (n_in < def->min_in || n_in > def->max_in)
    return dj__graph_fail(g, dj_error(DJ_E_INVALID, "%s at '%s': %d inputs, takes %d to %d",
                                      def->name, g->label, n_in, def->min_in, def->max_in));
  dj__node *n = new_node(g, op, in, n_in, attr, attr_size);
  dj_tensor *t = n ? dj__arena_alloc(&g->arena, (size_t)(n_in ? n_in : 1) * sizeof *t) : NULL;
  if (!t) return dj__graph_fail(g, DJ_E_NOMEM);
  bool needs_grad = false;
  for (int i = 0; i < n_in; i++) {
    if (in[i] >= g->n_values) // DJ_NONE is an absent optional input: the shape rule decides
      return dj__graph_fail(g,
                            dj_error(DJ_E_INVALID, "%s at '%s': input %d is no value of this graph",
                                     def->name, g->label, i));
    t[i].shape.rank = -1;
    if (in[i] < 0) continue;
    const dj__value *v = &g->values[in[i]];
    t[i] = (dj_tensor){NULL, v->dtype, v->shape};
    needs_grad |= v->needs_grad && (v->dtype == DJ_F32 || v->dtype == DJ_BF16);
  }
  dj__infer s = {.op_name = def->name, .n_in = n_in, .in = t, .attr = n->attr, .n_out = def->n_out};
  for (int k = 0; k < def->n_out; k++)
    s.out[k].dtype = n_in && t[0].shape.rank >= 0 ? t[0].dtype : DJ_F32;
  dj_status st = def->infer(&s);
  for (int k = 0; !st && k < s.n_out; k++)
    if (!sane_shape(&s.out[k].shape)) {
      char text[DJ_SHAPE_TEXT];
      st = dj__bad(&s,
                   "output %d would have shape %s: dimensions must be positive and the size "
                   "within bounds",
                   k, dj_shape_text(&s.out[k].shape, text, sizeof text));
    }
  if (st) {
    if (g->label[0]) st = dj_error_context(st, "at '%s'", g->label);
    return dj__graph_fail(g, st);
  }
  n->n_out = s.n_out;
  for (int k = 0; k < s.n_out; k++) {
    n->out[k] = dj__new_value(g, s.out[k].shape, s.out[k].dtype, g->n_nodes, k);
    if (n->out[k] < 0) return DJ_NONE;
    g->values[n->out[k]].needs_grad = needs_grad && def->grad != DJ__NO_GRAD;
  }
  g->nodes[g->n_nodes++] = n;
  return n->n_out ? n->out[0] : DJ_NONE;
}

dj_val dj__sibling(const dj_graph *g, dj_val v, int k) {
  if (v < 0) return DJ_NONE;
  const dj__node *n = g->nodes[g->values[v].node];
  return k < n->n_out ? n->out[k] : DJ_NONE;
}

bool dj__needs_grad(const dj_graph *g, dj_val v) {
  return v >= 0 && g->values[v].needs_grad;
}

uint64_t dj__graph_stream(dj_graph *g) {
  return g->next_stream++;
}

void dj__cost_touch(const dj__call *c, dj__cost *cost) {
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i].shape.rank >= 0) cost->bytes_read += (double)dj_tensor_bytes(&c->in[i]);
  for (int k = 0; k < c->n_out; k++) cost->bytes_written += (double)dj_tensor_bytes(&c->out[k]);
}

/* ---- sources ---- */
dj_init dj_init_he(int64_t fan_in) {
  return dj_init_normal(sqrtf(2.0f / (float)(fan_in > 0 ? fan_in : 1)));
}

/* A node without inputs and kernel; its one value has the given shape and type. */
static dj_val source(dj_graph *g, dj__op op, const dj__source_attr *a, dj_dtype t, dj_shape s) {
  if (g->status) return DJ_NONE;
  if (!sane_shape(&s)) {
    char text[DJ_SHAPE_TEXT];
    return dj__graph_fail(g, dj_error(DJ_E_INVALID,
                                      "%s '%s': shape %s: dimensions must be positive "
                                      "and the size within bounds",
                                      dj__op_get(op)->name, a->name ? a->name : "",
                                      dj_shape_text(&s, text, sizeof text)));
  }
  dj__node *n = new_node(g, op, NULL, 0, a, sizeof *a);
  if (!n) return DJ_NONE;
  n->n_out = 1;
  n->out[0] = dj__new_value(g, s, t, g->n_nodes, 0);
  if (n->out[0] < 0) return DJ_NONE;
  g->nodes[g->n_nodes++] = n;
  return n->out[0];
}

/* Node of a named source (input or variable), or NULL. */
static const dj__node *find_source(const dj_graph *g, dj__op op, const char *name) {
  for (int i = 0; i < g->n_nodes; i++)
    if (g->nodes[i]->op == op && !strcmp(((dj__source_attr *)g->nodes[i]->attr)->name, name))
      return g->nodes[i];
  return NULL;
}

dj_val dj_input(dj_graph *g, const char *name, dj_dtype t, dj_shape s) {
  if (g->status) return DJ_NONE;
  if (find_source(g, DJ__OP_input, name))
    return dj__graph_fail(g, dj_error(DJ_E_INVALID, "input '%s' is there already", name));
  dj__source_attr a = {.name = dj__arena_strdup(&g->arena, name)};
  return source(g, DJ__OP_input, &a, t, s);
}

static dj_val variable(dj_graph *g, const char *name, dj_var_kind kind, dj_shape s, dj_init init) {
  if (g->status) return DJ_NONE;
  char *full = g->label[0] ? dj__arena_printf(&g->arena, "%s/%s", g->label, name)
                           : dj__arena_strdup(&g->arena, name);
  if (!full) return dj__graph_fail(g, DJ_E_NOMEM);
  if (find_source(g, DJ__OP_variable, full))
    return dj__graph_fail(g, dj_error(DJ_E_INVALID, "variable '%s' is there already", full));
  dj__source_attr a = {.name = full, .kind = kind, .init = init};
  return source(g, DJ__OP_variable, &a, DJ_F32, s);
}

dj_val dj_param(dj_graph *g, const char *name, dj_shape s, dj_init init) {
  dj_val v = variable(g, name, DJ_VAR_PARAM, s, init);
  if (v < 0 || !grow(g, (void **)&g->params, g->n_params, &g->cap_params, sizeof *g->params))
    return DJ_NONE;
  g->values[v].needs_grad = true;
  g->params[g->n_params++] = v;
  return v;
}

dj_val dj_state(dj_graph *g, const char *name, dj_shape s, dj_init init) {
  return variable(g, name, DJ_VAR_STATE, s, init);
}

static dj_val constant(dj_graph *g, const void *data, dj_dtype t, dj_shape s) {
  if (g->status) return DJ_NONE;
  dj_val v = source(g, DJ__OP_constant, &(dj__source_attr){0}, t, s);
  if (v < 0) return DJ_NONE;
  void *copy = dj__arena_copy(&g->arena, data, (size_t)dj_shape_count(&s) * dj_dtype_size(t));
  if (!copy) return dj__graph_fail(g, DJ_E_NOMEM);
  ((dj__source_attr *)g->nodes[g->values[v].node]->attr)->data = copy;
  return v;
}

dj_val dj_const_f32(dj_graph *g, const float *data, dj_shape s) {
  return constant(g, data, DJ_F32, s);
}
dj_val dj_const_i32(dj_graph *g, const int32_t *data, dj_shape s) {
  return constant(g, data, DJ_I32, s);
}
dj_val dj_scalar(dj_graph *g, float v) {
  return constant(g, &v, DJ_F32, DJ_SCALAR);
}

void dj_output(dj_graph *g, const char *name, dj_val v) {
  if (g->status || v < 0) return;
  for (int i = 0; i < g->n_outputs; i++)
    if (!strcmp(g->outputs[i].name, name)) {
      dj__graph_fail(g, dj_error(DJ_E_INVALID, "output '%s' is there already", name));
      return;
    }
  if (!grow(g, (void **)&g->outputs, g->n_outputs, &g->cap_outputs, sizeof *g->outputs)) return;
  char *copy = dj__arena_strdup(&g->arena, name);
  if (copy)
    g->outputs[g->n_outputs++] = (dj__named){copy, v};
  else
    dj__graph_fail(g, DJ_E_NOMEM);
}

void dj_require_grad(dj_graph *g, dj_val v) {
  if (v >= 0) g->values[v].needs_grad = true;
}

int dj_graph_n_params(const dj_graph *g) {
  return g->n_params;
}
dj_val dj_graph_param(const dj_graph *g, int i) {
  return g->params[i];
}
const char *dj_graph_param_name(const dj_graph *g, int i) {
  return ((dj__source_attr *)g->nodes[g->values[g->params[i]].node]->attr)->name;
}
