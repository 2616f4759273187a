/* A clock that only goes forward. */
#ifndef DOJO_BASE_CLOCK_H
#define DOJO_BASE_CLOCK_H

#include <time.h>

/* Seconds since some moment in the past; differences count. */
static inline double dj__now(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
