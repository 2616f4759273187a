/*
 * The ego's physics on its own: a single-track model with tyre limits behind actuators that are
 * late and slow. World calls it; tests hold it against closed forms.
 */
#ifndef DOJO_WORLD_EGO_H
#define DOJO_WORLD_EGO_H

#include "world/world.h"

#define DJ__EGO_DT 0.0025 /* s of a substep */

/* At rest at the origin, wheels straight, pedals up, friction 0.9. */
void dj__ego_init(dj__ego *e, const dj__vehicle_model *m);
/* Puts the middle of its box at x, y; the command queue and pedals are kept. */
void dj__ego_place(dj__ego *e, double x, double y, double yaw, double speed);
/* One world step (DJ__WORLD_DT). slope: dz/ds of the road along the vehicle. */
void dj__ego_step(dj__ego *e, const dj__command *c, double slope);
/* The middle of its box. */
void dj__ego_middle(const dj__ego *e, double *x, double *y);
/* m from the centre of gravity forward to the box's middle. */
double dj__ego_middle_ahead(const dj__vehicle_model *m);

double dj__road_friction(const dj__weather *w); /* 0.6 wet .. 0.9 dry */

#endif
