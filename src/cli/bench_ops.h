/*
 * Timing of single kernels for `dojo bench ops`: a sample of the op table with memory of its own,
 * and what the machine can do at best in the same run.
 */
#ifndef DOJO_CLI_BENCH_OPS_H
#define DOJO_CLI_BENCH_OPS_H

#include "engine/backend.h"

/* How to measure. */
typedef struct dj__bench_options {
  const dj__backend *backend;
  dj__backend_options kernel; /* threads, instruction set */
  double seconds;             /* spent on one kernel, about; at least three runs are made */
} dj__bench_options;

/* The machine's peaks: floating-point operations a second in f32 and in bf16, bytes a second. */
typedef struct dj__peaks {
  double f32, bf16, bandwidth;
} dj__peaks;

/* One kernel on one sample. */
typedef struct dj__timing {
  char kernel[48]; /* implementation, "reference" where the backend has none */
  double ms, fastest_ms;
  int runs;
  dj__cost cost; /* FLOPs and bytes of one run */
  /* The least time that the peaks allow, over the time taken; 0 where there are no peaks. Above 1:
   * the tensors fit into a cache that is faster than memory. */
  double share;
} dj__timing;

/* Median over runs of op's sample; floats that follow the precision are bf16 if asked for. peaks
 * may be NULL. */
dj_status dj__bench_sample(const dj__bench_options *o, dj__op op, const dj__sample *s, bool bf16,
                           const dj__peaks *peaks, dj__timing *t);

/* Multiply-adds in registers, matrix products, and streams over memory; about a second. */
dj_status dj__bench_peaks(const dj__bench_options *o, dj__peaks *p);

#endif
