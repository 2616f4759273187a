/* What tests of compiled programs share. */
#ifndef DOJO_TESTS_PROGRAM_FIXTURE_H
#define DOJO_TESTS_PROGRAM_FIXTURE_H

#include <string.h>

#include "base/rng.h"
#include "dojo/graph.h"

/* Nodes of this op. */
static inline int count(const dj_program *p, const char *op) {
  int n = 0;
  for (int i = 0; i < dj_program_n_nodes(p); i++) {
    dj_node_report r;
    dj_program_node(p, i, &r);
    n += strcmp(r.op, op) == 0;
  }
  return n;
}

/* Normal numbers of this stream to input "x", f32. */
static inline void fill_noise(dj_program *p, uint64_t key) {
  dj_tensor *x = dj_program_input(p, "x");
  dj__rng r = {.key = key};
  for (int64_t i = 0; i < dj_shape_count(&x->shape); i++)
    ((float *)x->data)[i] = dj__rng_normal(&r);
}

#endif
