/*
 * Sources: inputs, variables and constants. They have no kernel and no inputs; their values are
 * made by dj_input, dj_param, dj_state and dj_const_* (graph.c) and filled by the program. The
 * entries are here so that every node of a graph has one in the table.
 */
#include "engine/ops/basic.h"

static dj_status infer_source(dj__infer *s) {
  return dj__bad(s, "a source is not made by inference; use dj_input, dj_param or dj_const_f32");
}

static dj_status ref_source(const dj__call *c) {
  return dj_error(DJ_E_STATE, "%s: a source has no kernel; the program fills it",
                  dj__op_get(c->op)->name);
}

static void cost_source(const dj__call *c, dj__cost *cost) {
  (void)c;
  *cost = (dj__cost){0};
}

static const dj__sample samples_none[] = {};

DJ__DEFINE_OP(input, 0, 0, 1, DJ__SOURCE, 0, 0, infer_source, DJ__NO_GRAD, cost_source, ref_source,
              samples_none);
DJ__DEFINE_OP(variable, 0, 0, 1, DJ__SOURCE, 0, 0, infer_source, DJ__NO_GRAD, cost_source,
              ref_source, samples_none);
DJ__DEFINE_OP(constant, 0, 0, 1, DJ__SOURCE, 0, 0, infer_source, DJ__NO_GRAD, cost_source,
              ref_source, samples_none);
