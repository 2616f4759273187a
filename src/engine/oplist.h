/*
 * The list of operations: one line an op, grouped by family file under src/engine/ops/. Order is
 * the order of `dojo ops`. Adding an op: a line here and a definition `dj__op_NAME` in its family's
 * file.
 */
#ifndef DOJO_ENGINE_OPLIST_H
#define DOJO_ENGINE_OPLIST_H

// clang-format off
/* X(name). Sources have no kernel. */
#define DJ__OP_LIST(X)                                                                             \
  /* source.c */                                                                                   \
  X(input)                                                                                         \
  X(variable)                                                                                      \
  X(constant) /* ewise.c: arithmetic, from ewise.h */                                              \
      X(add) X(sub) X(mul) X(div) X(max2) X(min2) X(affine) X(clamp) X(clamp_grad) X(neg) X(abs)   \
          X(sign) X(exp) X(log) X(sqrt) X(square) X(relu) X(relu_grad) X(elu) X(elu_grad) X(silu)  \
              X(silu_grad) X(gelu) X(gelu_grad) X(sigmoid) X(sigmoid_grad) X(tanh) X(tanh_grad)    \
                  X(softplus) X(sin) X(cos) X(greater) X(select) X(stop_gradient) X(huber)         \
                      X(huber_grad) X(bce_logits) X(cast) X(fused)   /* reduce.c */                \
      X(sum) X(reduce_max) X(reduce_max_grad) X(argmax) X(broadcast) /* matmul.c */                \
      X(matmul)                                                      /* conv.c */                  \
      X(conv2d) X(conv2d_data) X(conv2d_weight)                      /* pool.c */                  \
      X(max_pool) X(max_pool_grad) X(avg_pool) X(avg_pool_grad) X(resize)                          \
          X(resize_grad) /* norm.c */                                                              \
      X(batch_norm) X(batch_norm_grad) X(layer_norm) X(layer_norm_grad) X(rms_norm)                \
          X(rms_norm_grad) X(group_norm) X(group_norm_grad) /* softmax.c */                        \
      X(softmax) X(softmax_grad) X(log_softmax) X(log_softmax_grad) X(cross_entropy)               \
          X(cross_entropy_grad)                         /* shape.c */                              \
      X(reshape) X(transpose) X(slice) X(concat) X(pad) /* index.c */                              \
      X(gather) X(scatter_add)                          /* attention.c */                          \
      X(attention) X(attention_grad)                    /* rotary.c */                             \
      X(rotary) X(attention_cached)                     /* sample.c */                             \
      X(grid_sample) X(grid_sample_grad)                /* recurrent.c */                          \
      X(gru_cell) X(gru_cell_grad)                      /* random.c */                             \
      X(dropout)                                        /* update.c */                             \
      X(global_norm) X(adamw) X(sgd) X(accumulate) X(assign) X(running_update)
// clang-format on

typedef enum dj__op {
#define DJ__X(name) DJ__OP_##name,
  DJ__OP_LIST(DJ__X)
#undef DJ__X
      DJ__N_OPS
} dj__op;

#endif
