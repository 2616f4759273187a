/* The op table: every op of oplist.h in one array. */
#include "engine/op.h"

static const dj__op_def *const table[DJ__N_OPS] = {
#define DJ__X(name) [DJ__OP_##name] = &dj__op_##name,
    DJ__OP_LIST(DJ__X)
#undef DJ__X
};

const dj__op_def *dj__op_get(dj__op op) {
  return table[op];
}
