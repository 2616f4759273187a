/*
 * Compile passes. A pass reads one graph and builds the next: nodes are copied in order, replaced
 * or left out. No pass changes what it reads, so each can be switched off and the results compared.
 *
 *   simplify   drops nodes nothing depends on, merges equal ones
 *   precision  decides bf16 or f32 for every value and puts in casts
 *   round      products round variables themselves instead of reading bf16 copies
 *   recompute  makes some values a second time for the backward pass instead of keeping them
 *   fusion     residual and ReLU into batch norm, both ways; bias and activation into matmul and
 *              conv2d; chains of elementwise ops, and sums of their columns, into one node
 *   schedule   order of execution
 *   memory     one buffer for all values, by their lifetimes
 */
#ifndef DOJO_ENGINE_PASSES_H
#define DOJO_ENGINE_PASSES_H

#include "engine/graph.h"

/* State of a rewrite from src to dst. */
typedef struct dj__rewrite {
  const dj_graph *src;
  dj_graph *dst;
  dj_val *map; /* src value -> dst value; DJ_NONE where not made yet */
} dj__rewrite;

dj_status dj__rewrite_begin(dj__rewrite *r, const dj_graph *src);
/* Appends a copy of node n with inputs `in` (dst values), attribute and output dtypes as given
 * (NULL: as in src). Maps its outputs. NULL on failure. */
dj__node *dj__rewrite_copy(dj__rewrite *r, const dj__node *n, const dj_val *in,
                           const dj_dtype *out_dtypes);
/* Copies node n with its inputs mapped. */
dj__node *dj__rewrite_keep(dj__rewrite *r, const dj__node *n);
/* Maps outputs and parameters; frees the state. The result is in *out, or an error. */
dj_status dj__rewrite_end(dj__rewrite *r, dj_graph **out);
void dj__rewrite_abort(dj__rewrite *r);

dj_status dj__pass_simplify(const dj_graph *g, dj_graph **out);
dj_status dj__pass_precision(const dj_graph *g, dj_graph **out); /* to bf16 */
/* convolutions: those alone, no matrix products */
dj_status dj__pass_round(const dj_graph *g, bool convolutions, dj_graph **out);
/* Beside segments: also what norms over rows, and what elementwise ops can make again from what is
 * kept anyway. */
typedef enum dj__again { DJ__AGAIN_SEGMENTS, DJ__AGAIN_NORMS, DJ__AGAIN_ELEMENTWISE } dj__again;
dj_status dj__pass_recompute(const dj_graph *g, dj__again what, dj_graph **out);
dj_status dj__pass_fusion(const dj_graph *g, dj_graph **out);
dj_status dj__fuse_norms(const dj_graph *g, dj_graph **out); /* part of fusion */

/* Order of execution: indices of nodes with kernels (sources are left out). */
dj_status dj__pass_schedule(const dj_graph *g, bool memory_aware, int **order, int *n);

/* Where each value lives. */
typedef enum dj__place { DJ__PLACE_NONE, DJ__PLACE_SOURCE, DJ__PLACE_ARENA } dj__place;
typedef struct dj__plan {
  dj__place *place; /* (n_values) */
  size_t *offset;   /* (n_values) into the arena */
  dj_val *source;   /* (n_values) views of a source: that source */
  size_t arena, lower_bound;
} dj__plan;
/* Something beside the values that a step makes for the next run: in use from `made` on, and up to
 * step `read` of that run. */
typedef struct dj__lasting {
  size_t bytes, offset; /* offset into the arena: a result */
  int made, read;
} dj__lasting;
/* frozen (n_values): values that are computed once and kept; may be NULL. */
dj_status dj__pass_memory(const dj_graph *g, const int *order, int n, bool reuse,
                          const bool *frozen, dj__lasting *lasting, int n_lasting, dj__plan *p);
/* Which values depend on constants and on variables that no node writes, and on nothing else;
 * free() it. NULL when memory is out. */
bool *dj__frozen_values(const dj_graph *g, const int *order, int n);
void dj__plan_free(dj__plan *p);

/* True if node n updates input i in place. */
bool dj__node_writes(const dj__node *n, int i);
/* Uses of each value by nodes, and by outputs (counted as one more). calloc'ed; NULL without
 * memory. */
int *dj__count_uses(const dj_graph *g);
/* Single reader (a node) of each value, or -1; free() it. NULL without memory. */
int *dj__single_readers(const dj_graph *g, const int *uses);
static inline bool dj__is_source(const dj__node *n) {
  return (dj__op_get(n->op)->flags & DJ__SOURCE) != 0;
}

#endif
