/* Commands on their way from a driver to the vehicle: each holds from a step of the world on. */
#ifndef DOJO_WORLD_DELAY_H
#define DOJO_WORLD_DELAY_H

#include "world/world.h"

enum { DJ__DELAY_MOST = 64 };
typedef struct dj__delay { /* {0}: none yet, all pedals up */
  struct {
    uint64_t step; /* from which on it holds */
    dj__command command;
  } pending[DJ__DELAY_MOST];
  int n;
  dj__command now;
} dj__delay;

/* A command that holds from `step` on; steps do not fall. Of more than DJ__DELAY_MOST that wait the
 * oldest is dropped. */
void dj__delay_push(dj__delay *d, uint64_t step, const dj__command *c);
/* The command that holds at `step`, which does not fall from call to call. */
const dj__command *dj__delay_at(dj__delay *d, uint64_t step);

#endif
