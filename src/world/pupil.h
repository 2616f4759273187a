/*
 * A network that drives while a drive is recorded, and the expert beside it, who says at each step
 * what it would do: the network is shown what its own errors lead to (DAgger: Ross, Gordon and
 * Bagnell 2011, "A reduction of imitation learning and structured prediction to no-regret online
 * learning"). Where the two part, the expert takes the wheel until the vehicle is in its lane again
 * (as in HG-DAgger: Kelly et al. 2019), so that a drive does not end at the first mistake.
 *
 *     dj__pupil p;
 *     DJ_TRY(dj__pupil_start(&p, &network, world));
 *     DJ_TRY(dj__pupil_see(&p, pictures, n, world));      // at each frame
 *     command = dj__pupil_step(&p, world, &expert_says);  // at each step: what is done
 */
#ifndef DOJO_WORLD_PUPIL_H
#define DOJO_WORLD_PUPIL_H

#include "world/seat.h"

typedef struct dj__pupil {
  dj__driver *network; /* the caller's */
  dj__seat seat;       /* the network's */
  double apart;        /* s for which the two have not agreed */
  double taken;        /* s for which the expert goes on driving */
  uint64_t steps, own; /* driven, and by the network */
} dj__pupil;

dj_status dj__pupil_start(dj__pupil *p, dj__driver *network, const dj__world *w);
/* The network looks and decides. `pictures` (n) of its rig, of the world as it is now. */
dj_status dj__pupil_see(dj__pupil *p, const dj__picture *pictures, int n, const dj__world *w);
/* Who drives this step, and what they do. */
dj__command dj__pupil_step(dj__pupil *p, const dj__world *w, const dj__command *expert);

#endif
