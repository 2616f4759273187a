/* What other people do wrong: choice, staging, labels. */
#ifndef DOJO_WORLD_EVENTS_H
#define DOJO_WORLD_EVENTS_H

#include "world/world.h"

/* Before anyone moves. */
void dj__events_prepare(dj__world *w);
/* Ends, goes on with and begins events; lists of the step are made already. */
void dj__events_step(dj__world *w);
uint64_t dj__events_digest(const dj__world *w, uint64_t h);

#endif
