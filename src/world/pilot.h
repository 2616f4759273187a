/*
 * From wishes to pedals: the curvature and the acceleration that a planner wants, as steering,
 * throttle and brake of a vehicle model. Used by the expert and by networks that say a path.
 */
#ifndef DOJO_WORLD_PILOT_H
#define DOJO_WORLD_PILOT_H

#include "world/world.h"

/* Share of full lock, -1..1, for a curvature (1/m, left positive) at speed v: the bicycle's
 * geometry, and its understeer v^2 K (Rajamani 2012, section 3.3). */
float dj__pilot_steering(const dj__vehicle_model *m, double curvature, double v);
/* Pedals for an acceleration (m/s^2) at speed v on a slope (dz/ds): the model's motor, brake and
 * resistances, turned round. */
void dj__pilot_pedals(const dj__vehicle_model *m, double accel, double v, double slope,
                      dj__command *out);
/* Curvature that leads back to a line: the line's own where the vehicle will be, corrected by its
 * distance (m, left of the line) and direction (rad against the line's), as a spatial second-order
 * system with critical damping over `reach` m. */
double dj__pilot_curvature(double line_curvature, double distance, double direction, double reach);
/* Length over which a vehicle comes back to its line at speed v, m. */
double dj__pilot_reach(const dj__vehicle_model *m, double v);

#endif
