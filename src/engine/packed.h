/*
 * Copies of weights as kernels like them: in the layout that a convolution wants, in bf16 where it
 * rounds them. A program keeps them from run to run beside the f32 variables, so that no run rounds
 * or lays out what has not changed. The optimiser writes them as it updates a variable; after
 * changes from elsewhere (dj_vars_changed) the next run makes them anew.
 */
#ifndef DOJO_ENGINE_PACKED_H
#define DOJO_ENGINE_PACKED_H

#include "engine/backend.h"
#include "engine/graph.h"

typedef struct dj__kept {
  dj__copy copy;
  dj_val variable;
  const float *from;
} dj__kept;

typedef struct dj__packed {
  const dj__backend *backend;
  dj__kept *kept;
  int n;
  const dj__copy **of; /* (n_values) first copy of each variable */
  bool *may;           /* (n_values) f32 variables that nothing but optimisers writes */
  unsigned char *memory;
  size_t bytes;
  uint64_t version; /* of the variables that the copies are of; 0: of none */
} dj__packed;

/* off: no copies. */
dj_status dj__packed_begin(dj__packed *p, const dj_graph *g, const dj__backend *b, bool off);
/* True if a copy of what node n reads as input 1, of this shape, may be kept. */
bool dj__packed_may(const dj__packed *p, const dj__node *n, const dj_shape *s);
/* The copy of a variable in this layout; kernels that like the same share it. */
const dj__copy *dj__packed_want(dj__packed *p, dj_val variable, const dj__layout *l);
/* data (n_values): where variables are. */
dj_status dj__packed_alloc(dj__packed *p, void *const *data);
/* (n_in) copies of what optimiser n updates; calloc'ed. NULL when memory is out. */
const dj__copy **dj__packed_updated(const dj__packed *p, const dj__node *n);
/* Makes the copies anew if they are not of this version of the variables. */
void dj__packed_refresh(dj__packed *p, uint64_t version);
void dj__packed_free(dj__packed *p);

#endif
