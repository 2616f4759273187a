/* Declarations of the own kernels of reductions, shape, index, dropout and update ops. */
#ifndef DOJO_ISA_BASIC_H
#define DOJO_ISA_BASIC_H

#include "backend/cpu/isa/isa.h"

#define DJ__KERNEL(name)    dj_status DJ__I(name##_run)(const dj__call *c, void *self)
#define DJ__SUPPORTS(name)  bool DJ__I(name##_supports)(const dj__call *c)
#define DJ__WORKSPACE(name) size_t DJ__I(name##_workspace)(const dj__call *c)

/* reduce.c */
DJ__SUPPORTS(sum);
DJ__WORKSPACE(sum);
DJ__KERNEL(sum);

DJ__SUPPORTS(maximum);
DJ__KERNEL(maximum); /* reduce_max, reduce_max_grad, argmax */

/* gather.c */
DJ__SUPPORTS(gather);
DJ__KERNEL(gather);
DJ__SUPPORTS(scatter_add);
DJ__WORKSPACE(scatter_add);
DJ__KERNEL(scatter_add);
DJ__KERNEL(dropout);

/* shape.c: any dtype, the same in and out */
DJ__SUPPORTS(move);
DJ__KERNEL(transpose);
DJ__KERNEL(slice);
DJ__KERNEL(concat);
DJ__KERNEL(pad);

/* update.c */
DJ__KERNEL(adamw);
void DJ__I(adamw_moments)(const dj__call *c, int number, const dj__late *late);
DJ__KERNEL(sgd);
DJ__WORKSPACE(global_norm);
DJ__KERNEL(global_norm);
DJ__KERNEL(accumulate);
DJ__KERNEL(assign);
DJ__KERNEL(running_update);

/* conv_weight.c */
DJ__SUPPORTS(conv2d_weight);
DJ__WORKSPACE(conv2d_weight);
DJ__KERNEL(conv2d_weight);

/* X(op, run, supports, workspace) */
#define DJ__BASIC_KERNELS(X)                                                                       \
  X(broadcast, DJ__I(ewise_run), DJ__I(ewise_supports), DJ__I(ewise_workspace))                    \
  X(sum, DJ__I(sum_run), DJ__I(sum_supports), DJ__I(sum_workspace))                                \
  X(conv2d_weight, DJ__I(conv2d_weight_run), DJ__I(conv2d_weight_supports),                        \
    DJ__I(conv2d_weight_workspace))                                                                \
  X(reduce_max, DJ__I(maximum_run), DJ__I(maximum_supports), NULL)                                 \
  X(reduce_max_grad, DJ__I(maximum_run), DJ__I(maximum_supports), NULL)                            \
  X(argmax, DJ__I(maximum_run), DJ__I(maximum_supports), NULL)                                     \
  X(gather, DJ__I(gather_run), DJ__I(gather_supports), NULL)                                       \
  X(scatter_add, DJ__I(scatter_add_run), DJ__I(scatter_add_supports),                              \
    DJ__I(scatter_add_workspace))                                                                  \
  X(dropout, DJ__I(dropout_run), DJ__I(gather_supports), NULL)                                     \
  X(transpose, DJ__I(transpose_run), DJ__I(move_supports), NULL)                                   \
  X(slice, DJ__I(slice_run), DJ__I(move_supports), NULL)                                           \
  X(concat, DJ__I(concat_run), DJ__I(move_supports), NULL)                                         \
  X(pad, DJ__I(pad_run), DJ__I(move_supports), NULL)                                               \
  X(adamw, DJ__I(adamw_run), NULL, NULL)                                                           \
  X(sgd, DJ__I(sgd_run), NULL, NULL)                                                               \
  X(global_norm, DJ__I(global_norm_run), NULL, DJ__I(global_norm_workspace))                       \
  X(accumulate, DJ__I(accumulate_run), NULL, NULL)                                                 \
  X(assign, DJ__I(assign_run), NULL, NULL)                                                         \
  X(running_update, DJ__I(running_update_run), NULL, NULL)

#endif
