/*
 * A loop of nothing but multiply-adds in registers: what this instruction set can do at best, for
 * the roofline of `dojo bench ops`. Enough independent sums to hide the latency of each.
 */
#include "backend/cpu/isa/nn.h"

enum { SUMS = VW == 16 ? 24 : 12 };

float DJ__I(fma_loop)(int64_t rounds, double *flops) {
  vf sum[SUMS], a = v_all(0.999999f), b = v_all(1e-7f), all = v_all(0);
#pragma GCC unroll 24
  for (int i = 0; i < SUMS; i++) sum[i] = v_all((float)i);
  for (int64_t k = 0; k < rounds; k++)
#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * a + b;
#pragma GCC unroll 24
  for (int i = 0; i < SUMS; i++) all += sum[i];
  *flops = 2.0 * VW * SUMS * (double)rounds;
  return v_sum(all);
}
