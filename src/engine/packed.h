/*
 * Copies of weights as kernels like them: in the layout that a convolution or a matrix product
 * wants, in bf16 where it rounds them. A program keeps them from run to run beside the f32
 * variables, so that no run rounds or lays out what has not changed. The optimiser writes them as
 * it updates a variable; after changes from elsewhere (dj_vars_changed) the next run makes them
 * anew.
 *
 * They lie in the arena among the values of a step. A copy is in use up to its last reader, and
 * again when the optimiser has written it: in between its memory serves others.
 */
#ifndef DOJO_ENGINE_PACKED_H
#define DOJO_ENGINE_PACKED_H

#include "engine/backend.h"
#include "engine/graph.h"
#include "engine/passes/passes.h"

typedef struct dj__kept {
  dj__copy copy;
  dj_val variable;
  int read; /* last step of the schedule that does */
  const float *from;
} dj__kept;

typedef struct dj__packed {
  const dj__backend *backend;
  dj__kept *kept;
  int n;
  const dj__copy **of; /* (n_values) first copy of each variable */
  bool *may;           /* (n_values) f32 variables that nothing but optimisers writes */
  int *written;        /* (n_values) step that writes copies of this variable; -1: none */
  bool matrices;       /* have copies, too */
  uint64_t version;    /* of the variables that the copies are of; 0: of none */
} dj__packed;

/* Bytes of copies up to which each has a place of its own in the arena; only a test changes it. */
extern size_t dj__few_copies;

typedef enum dj__packing { DJ__PACK_NOTHING, DJ__PACK_CONVOLUTIONS, DJ__PACK_ALL } dj__packing;

dj_status dj__packed_begin(dj__packed *p, const dj_graph *g, const dj__backend *b,
                           dj__packing what);
/* True if a copy of what node n reads as input 1 may be kept. */
bool dj__packed_may(const dj__packed *p, const dj__node *n);
/* The copy of a variable in this layout, read at this step; kernels that like the same share it. */
const dj__copy *dj__packed_want(dj__packed *p, dj_val variable, const dj__layout *l, int at);
/* Optimiser n writes the copies of what it updates, at this step. */
void dj__packed_written(dj__packed *p, const dj__node *n, int at);
/* How long each of the n copies is in use; or always. */
void dj__packed_lasting(const dj__packed *p, bool always, dj__lasting *lasting);
/* data (n_values): where variables are. */
void dj__packed_bind(dj__packed *p, void *const *data, const dj__lasting *lasting,
                     unsigned char *arena);
/* (n_in) copies of what optimiser n updates; calloc'ed. NULL when memory is out. */
const dj__copy **dj__packed_updated(const dj__packed *p, const dj__node *n);
/* Makes the copies anew if they are not of this version of the variables. */
void dj__packed_refresh(dj__packed *p, uint64_t version);
void dj__packed_free(dj__packed *p);

#endif
