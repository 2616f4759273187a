/*
 * Elementary functions in f32 that compilers vectorise: no branches, no tables, no calls. Errors
 * measured against libm in double (tests/test_cpu_kernels.c): exp, log 1 ulp; tanh, sigmoid,
 * softplus, silu below 4 ulp; gelu, in its tanh form, 5 ulp, and of 0.1 where it is smaller, as it
 * falls to zero; sin, cos 2 ulp up to |x| = 1e7, of 0.01 near zero. Infinities and NaN as in libm.
 * Minimax coefficients: exp, log, tanh, sin and cos after Moshier's Cephes library, 1989 (figures
 * only).
 */
#ifndef DOJO_VMATH_H
#define DOJO_VMATH_H

#include <stdint.h>

#include "backend/cpu/isa/isa.h"

DJ__INLINE float vm_bits(uint32_t u) {
  union {
    uint32_t u;
    float f;
  } x = {.u = u};
  return x.f;
}
DJ__INLINE uint32_t vm_word(float f) {
  union {
    float f;
    uint32_t u;
  } x = {.f = f};
  return x.u;
}
#if defined __FMA__ || defined __ARM_FEATURE_FMA
#define VM_HAS_FMA
#endif
/* a * b + c, with one rounding where there is such an instruction. Elsewhere compilers choose which
 * product to fuse; where a sum has two, that would change results. */
DJ__INLINE float vm_fma(float a, float b, float c) {
#if defined VM_HAS_FMA
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
#define VM_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer held in the low bits */

DJ__INLINE float vm_exp(float x) {
  x = x < -104.0f ? -104.0f : x; /* rounds to 0 */
  x = x > 89.0f ? 89.0f : x;     /* overflows to infinity */
  float m = x * 1.44269504088896341f + VM_MAGIC;
  int32_t k = (int32_t)(vm_word(m) - vm_word(VM_MAGIC));
  float n = m - VM_MAGIC;
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * (r * r) + r + 1.0f;
  int32_t k1 = k >> 1, k2 = k - k1; /* in two steps: denormal results and overflow come out right */
  return y * vm_bits((uint32_t)(k1 + 127) << 23) * vm_bits((uint32_t)(k2 + 127) << 23);
}

/* log(x) for finite x > 0 and not denormal. */
DJ__INLINE float vm_log_core(float x, float bias) {
  uint32_t u = vm_word(x) + (0x3f800000u - 0x3f3504f3u); /* mantissa to [sqrt(1/2), sqrt(2)) */
  float e = (float)((int32_t)(u >> 23) - 127) + bias;
  float f = vm_bits((u & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
  float z = f * f;
  float y = 7.0376836292e-2f;
  y = y * f - 1.1514610310e-1f;
  y = y * f + 1.1676998740e-1f;
  y = y * f - 1.2420140846e-1f;
  y = y * f + 1.4249322787e-1f;
  y = y * f - 1.6668057665e-1f;
  y = y * f + 2.0000714765e-1f;
  y = y * f - 2.4999993993e-1f;
  y = y * f + 3.3333331174e-1f;
  y = vm_fma(e, -2.12194440e-4f, y * f * z);
  y = y - 0.5f * z;
  return f + y + e * 0.693359375f;
}
DJ__INLINE float vm_log(float x) {
  bool tiny = x < 0x1p-126f;
  float y = vm_log_core(tiny ? x * 0x1p23f : x, tiny ? -23.0f : 0.0f);
  y = x > 0x1.fffffep127f ? x : y;
  y = x == 0.0f ? -__builtin_inff() : y;
  return x >= 0.0f ? y : __builtin_nanf("");
}

/* log(1 + x) for x in [0, 1]. */
DJ__INLINE float vm_log1p01(float x) {
  float w = 1.0f + x;
  return vm_log_core(w, 0.0f) + (x - (w - 1.0f)) / w;
}

DJ__INLINE float vm_sigmoid(float x) {
  return 1.0f / (1.0f + vm_exp(-x));
}
DJ__INLINE float vm_tanh(float x) {
  float a = x < 0 ? -x : x;
  float big = 1.0f - 2.0f / (vm_exp(2.0f * a) + 1.0f);
  big = x < 0 ? -big : big;
  float z = x * x;
  float y = -5.70498872745e-3f;
  y = y * z + 2.06390887954e-2f;
  y = y * z - 5.37397155531e-2f;
  y = y * z + 1.33314422036e-1f;
  y = y * z - 3.33332819422e-1f;
  y = y * z * x + x;
  return a < 0.625f ? y : big;
}
DJ__INLINE float vm_softplus(float x) {
  float a = x < 0 ? x : -x;
  return (x > 0 ? x : 0.0f) + vm_log1p01(vm_exp(a));
}
/* x/2 (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3) */
DJ__INLINE float vm_gelu(float x) {
  return x * vm_sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x));
}
DJ__INLINE float vm_gelu_d(float x) {
  float s = vm_sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x));
  return s + x * s * (1.0f - s) * (1.5957691216057308f * (1.0f + 0.134145f * x * x));
}
DJ__INLINE float vm_huber(float d, float delta) {
  float a = d < 0 ? -d : d;
  return a <= delta ? 0.5f * d * d : delta * (a - 0.5f * delta);
}

/* sin(r + q * pi/2) for r in [-pi/4, pi/4] */
DJ__INLINE float vm_sincos_core(float r, uint32_t q) {
  float z = r * r;
  float s = -1.9515295891e-4f;
  s = s * z + 8.3321608736e-3f;
  s = s * z - 1.6666654611e-1f;
  s = s * z * r + r;
  float c = 2.443315711809948e-5f;
  c = c * z - 1.388731625493765e-3f;
  c = c * z + 4.166664568298827e-2f;
  c = vm_fma(c * z, z, -0.5f * z) + 1.0f;
  float y = (q & 1u) ? c : s;
  return (q & 2u) ? -y : y;
}
/* sin(x + quarter * pi/2). The range is reduced in double: exact enough up to 1e7, bounded beyond.
 */
DJ__INLINE float vm_sincos(float x, int quarter) {
  double d = (double)x;
  double m = d * 0.63661977236758134308 + 6755399441055744.0; /* rounds to an integer */
  union {
    double d;
    uint64_t u;
  } bits = {.d = m};
  uint32_t q = (uint32_t)bits.u + (uint32_t)quarter;
  float r = (float)(d - (m - 6755399441055744.0) * 1.57079632679489661923);
  r = r > 0.7854f ? 0.7854f : r;
  r = r < -0.7854f ? -0.7854f : r;
  return vm_sincos_core(r, q);
}
DJ__INLINE float vm_sin(float x) {
  return vm_sincos(x, 0);
}
DJ__INLINE float vm_cos(float x) {
  return vm_sincos(x, 1);
}

/* The functions ewise.h asks its includer for. */
#define EXP(x)      vm_exp(x)
#define LOG(x)      vm_log(x)
#define SQRT(x)     __builtin_sqrtf(x)
#define SIGMOID(x)  vm_sigmoid(x)
#define TANH(x)     vm_tanh(x)
#define SOFTPLUS(x) vm_softplus(x)
#define GELU(x)     vm_gelu(x)
#define GELU_D(x)   vm_gelu_d(x)
#define SIN(x)      vm_sin(x)
#define COS(x)      vm_cos(x)
#define HUBER(d, p) vm_huber(d, p)

#endif
