/* What tests of compiled programs share. */
#ifndef DOJO_TESTS_PROGRAM_FIXTURE_H
#define DOJO_TESTS_PROGRAM_FIXTURE_H

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "dojo/graph.h"
#include "ok_fixture.h"

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

/* Largest difference of all variables, relative to the largest magnitude in each. */
static inline double variables_apart(dj_vars *a, dj_vars *b, bool params_only) {
  double worst = 0;
  assert_int_equal(dj_vars_count(a), dj_vars_count(b));
  for (int i = 0; i < dj_vars_count(a); i++) {
    const dj_var *var = dj_vars_get(a, i);
    if (params_only && var->kind != DJ_VAR_PARAM) continue;
    const float *x = var->tensor.data, *y = dj_vars_find(b, var->name)->tensor.data;
    double most = 1e-30, difference = 0;
    for (int64_t k = 0, n = dj_shape_count(&var->tensor.shape); k < n; k++) {
      most = fmax(most, fabs((double)x[k]));
      difference = fmax(difference, fabs((double)x[k] - (double)y[k]));
    }
    worst = fmax(worst, difference / most);
  }
  return worst;
}

#endif
