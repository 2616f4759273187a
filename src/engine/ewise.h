/*
 * Elementwise ops, each written once: the reference kernel, the fused CPU kernels and the op table
 * all come from this list. An op reads up to three operands a, b, c (f32) and two parameters p, q
 * from its attribute. Functions in capitals are given by the includer: the reference takes libm in
 * double, the kernels take vectorisable approximations (below 2 ulp in f32 unless noted there).
 *
 * X(name, operands, expression, FLOPs per element)
 */
#ifndef DOJO_ENGINE_EWISE_H
#define DOJO_ENGINE_EWISE_H

#include <stdbool.h>

#define DJ__EWISE_LIST(X)                                                                          \
  X(add, 2, a + b, 1)                                                                              \
  X(sub, 2, a - b, 1)                                                                              \
  X(mul, 2, a *b, 1)                                                                               \
  X(div, 2, a / b, 1)                                                                              \
  X(max2, 2, a > b ? a : b, 1)                                                                     \
  X(min2, 2, a < b ? a : b, 1)                                                                     \
  X(affine, 1, p *a + q, 2)                                                                        \
  X(clamp, 1, a < p ? p : (a > q ? q : a), 2)                                                      \
  X(clamp_grad, 2, (a >= p && a <= q) ? b : 0, 2) /* a: x, b: dy */                                \
  X(neg, 1, -a, 1)                                                                                 \
  X(abs, 1, a < 0 ? -a : a, 1)                                                                     \
  X(sign, 1, a > 0 ? 1 : (a < 0 ? -1 : 0), 1)                                                      \
  X(exp, 1, EXP(a), 10)                                                                            \
  X(log, 1, LOG(a), 10)                                                                            \
  X(sqrt, 1, SQRT(a), 4)                                                                           \
  X(square, 1, a *a, 1)                                                                            \
  X(relu, 1, a > 0 ? a : 0, 1)                                                                     \
  X(relu_grad, 2, a > 0 ? b : 0, 1) /* a: y, b: dy */                                              \
  X(elu, 1, a > 0 ? a : EXP(a) - 1, 11)                                                            \
  X(elu_grad, 2, a > 0 ? b : b * (a + 1), 2) /* a: y, b: dy */                                     \
  X(silu, 1, a *SIGMOID(a), 12)                                                                    \
  X(silu_grad, 2, b *SIGMOID(a) * (1 + a * (1 - SIGMOID(a))), 16) /* a: x, b: dy */                \
  X(gelu, 1, GELU(a), 16)                                                                          \
  X(gelu_grad, 2, b *GELU_D(a), 24) /* a: x, b: dy */                                              \
  X(sigmoid, 1, SIGMOID(a), 11)                                                                    \
  X(sigmoid_grad, 2, b *a *(1 - a), 3) /* a: y, b: dy */                                           \
  X(tanh, 1, TANH(a), 12)                                                                          \
  X(tanh_grad, 2, b *(1 - a * a), 3) /* a: y, b: dy */                                             \
  X(softplus, 1, SOFTPLUS(a), 22)                                                                  \
  X(sin, 1, SIN(a), 14)                                                                            \
  X(cos, 1, COS(a), 14)                                                                            \
  X(greater, 2, a > b ? 1 : 0, 1)                                                                  \
  X(select, 3, a != 0 ? b : c, 1)                                                                  \
  X(stop_gradient, 1, a, 0)                                                                        \
  X(huber, 2, HUBER(a - b, p), 5)                                                                  \
  X(huber_grad, 3, c *((a - b) > p ? p : ((a - b) < -p ? -p : (a - b))), 5) /* c: dy */            \
  X(bce_logits, 2, SOFTPLUS(a) - a * b, 24)

/* Attribute of every elementwise op: the two parameters. */
typedef struct dj__ewise_attr {
  float p, q;
} dj__ewise_attr;

/*
 * Attribute of `fused`: a straight-line program over registers, run for every element of the output
 * shape. Registers 0..n_in-1 hold the node's inputs (broadcast to the output shape, converted to
 * f32); instruction i writes register n_in + i. Output k is register out[k], converted to the
 * output's dtype; all outputs have the same shape. With `sum` the last output is instead the sums
 * of its register over all axes but the last: one f32 a column, of at most DJ__FUSED_COLUMNS.
 */
enum { DJ__FUSED_INSTR = 24, DJ__FUSED_IN = 12, DJ__FUSED_OUT = 4, DJ__FUSED_COLUMNS = 1024 };
typedef struct dj__fused_instr {
  unsigned char op;      /* dj__op of the list above, or DJ__OP_cast (rounds to bf16 when p == 1) */
  unsigned char a, b, c; /* registers; unused ones are 0 */
  float p, q;
} dj__fused_instr;
typedef struct dj__fused_attr {
  int n_instr;
  dj__fused_instr instr[DJ__FUSED_INSTR];
  int n_out;
  unsigned char out[DJ__FUSED_OUT];
  bool sum;
} dj__fused_attr;

#endif
