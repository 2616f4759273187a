/* Medians of what benches measure. */
#ifndef DOJO_CLI_BENCH_MEDIAN_H
#define DOJO_CLI_BENCH_MEDIAN_H

/* Sorts x (n > 0) upwards; its median. */
double dj__median(double *x, int n);

#endif
