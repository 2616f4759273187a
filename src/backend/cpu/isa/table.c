/* The table of own kernels of one instruction set. */
#include "backend/cpu/isa/basic.h"
#include "backend/cpu/isa/nn.h"
#include "engine/ewise.h"

const dj__kernels DJ__I(kernels) = {
    .isa = DJ__STR(DJ_ISA),
    .convert = DJ__I(convert),
    .post = DJ__I(post),
    .pack = DJ__I(pack),
    .adamw_moments = DJ__I(adamw_moments),
    .fma_loop = DJ__I(fma_loop),
    .fill_normal = DJ__I(fill_normal),
    .op =
        {
#define DJ__X(name, operands, expression, flops)                                                   \
  [DJ__OP_##name] = {DJ__I(ewise_run), DJ__I(ewise_supports), DJ__I(ewise_workspace), NULL},
            DJ__EWISE_LIST(DJ__X)
#undef DJ__X
                [DJ__OP_fused] = {DJ__I(ewise_run), DJ__I(ewise_supports), DJ__I(ewise_workspace),
                                  NULL},
            [DJ__OP_cast] = {DJ__I(cast_run), NULL, NULL, NULL},
#define DJ__X(name, run, supports, workspace) [DJ__OP_##name] = {run, supports, workspace, NULL},
            DJ__NN_KERNELS(DJ__X) DJ__BASIC_KERNELS(DJ__X)
#undef DJ__X
        },
};
