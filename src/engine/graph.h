/* Inside of dj_graph, for the engine's own files (graph, autodiff, passes, program). */
#ifndef DOJO_ENGINE_GRAPH_INTERNAL_H
#define DOJO_ENGINE_GRAPH_INTERNAL_H

#include "base/arena.h"
#include "engine/op.h"

typedef struct dj__value {
  dj_shape shape;
  dj_dtype dtype;
  int node; /* index of the node that makes it */
  int out;  /* which of its outputs */
  bool needs_grad;
  dj_val grad;
} dj__value;

typedef struct dj__named {
  const char *name;
  dj_val val;
} dj__named;

/* attr of source nodes */
typedef struct dj__source_attr {
  const char *name; /* input, variable: full name */
  dj_var_kind kind; /* variable */
  dj_init init;     /* variable */
  const void *data; /* constant */
} dj__source_attr;

enum { DJ__LABEL_DEPTH = 32 };

struct dj_graph {
  dj__arena arena;
  dj__node **nodes;
  int n_nodes, cap_nodes;
  dj__value *values;
  int n_values, cap_values;
  dj_val *params; /* trainable variables in order */
  int n_params, cap_params;
  dj__named *outputs;
  int n_outputs, cap_outputs;
  char label[256];
  unsigned char label_at[DJ__LABEL_DEPTH]; /* length of `label` before each push */
  int depth;
  bool in_backward;
  int segment, n_segments; /* the one that nodes are made in (0: none), and how many there were */
  uint64_t next_stream;
  dj_status status;
  char *message;
};

/* Differs from before if a variable may have been written since. Never 0. */
uint64_t dj__vars_version(const dj_vars *v);
/* The owner has put off writing variables: it is to settle that before somebody reads them. */
void dj__vars_put_off(dj_vars *v, void (*settle)(void *owner), void *owner);
void dj__vars_settle(dj_vars *v);

/* Records the thread's present error as the graph's first one. Returns DJ_NONE. */
dj_val dj__graph_fail(dj_graph *g, dj_status s);
dj_val dj__new_value(dj_graph *g, dj_shape s, dj_dtype t, int node, int out);

/* Appends a node as it is: no shape inference; the caller makes its output values. For passes. */
dj__node *dj__append_node(dj_graph *g, dj__op op, const dj_val *in, int n_in, const void *attr,
                          size_t attr_size, const char *label);

#endif
