/*
 * A driver's seat: what is told to who sits in it, and what they command on its way to the vehicle.
 *
 *     dj__seat seat = {0};
 *     DJ_TRY(dj__seat_decide(&seat, driver, world, &in));            // at each decision
 *     dj__world_step(world, dj__seat_command(&seat, world->step));   // at each step
 */
#ifndef DOJO_WORLD_SEAT_H
#define DOJO_WORLD_SEAT_H

#include "world/drive.h"

enum { DJ__SEAT_PENDING = 64 };
typedef struct dj__seat { /* {0}: nothing sensed yet, all pedals up */
  struct {
    uint64_t step; /* from which on it holds */
    dj__command command;
  } pending[DJ__SEAT_PENDING];
  int n;
  dj__command now;
  bool sensed;      /* there was a decision: */
  double yaw, time; /* the vehicle's then; s */
} dj__seat;

/* The driver decides. `in` has its pictures, or none; everything else in it is filled in: time,
 * speed, turn since the decision before, route command. What it commands holds after the driver's
 * latency. Of more than DJ__SEAT_PENDING commands that wait the oldest is dropped. */
dj_status dj__seat_decide(dj__seat *s, dj__driver *d, const dj__world *w, dj__sense *in);
/* The command that holds at `step`, which does not fall from call to call. */
const dj__command *dj__seat_command(dj__seat *s, uint64_t step);

#endif
