/* Timing of the world for `dojo bench world`: a table with a row for each thing that is timed. */
#ifndef DOJO_CLI_BENCH_WORLD_H
#define DOJO_CLI_BENCH_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "dojo/status.h"

typedef struct dj__bench_world_options {
  int threads;      /* 0: all cores */
  double seconds;   /* of measuring for each row */
  const char *only; /* rows whose name begins with it; NULL: all */
  bool json;
} dj__bench_world_options;

/* What a row measured. A row's function fills `value` (in `unit`) and `detail`, and runs for about
 * o->seconds. To time something else, write one and add it to ROWS in bench_world.c. */
typedef struct dj__bench_world_result {
  double value;     /* per second */
  double fastest;   /* of the best of several shorter pieces; 0: not measured */
  char detail[160]; /* what was run, in words */
} dj__bench_world_result;
typedef dj_status (*dj__bench_world_row)(const dj__bench_world_options *o,
                                         dj__bench_world_result *r);

/* Calls step(data) for `seconds`, in pieces; `each` things a call. Fills in value and fastest. */
dj_status dj__bench_pieces(double seconds, double each, dj_status (*step)(void *data), void *data,
                           dj__bench_world_result *r);

/* Times all rows and prints a table, or a JSON array; the command's exit code. */
int dj__bench_world(const dj__bench_world_options *o);

#endif
