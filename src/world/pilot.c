#include "world/pilot.h"

#include <math.h>

#define G 9.81

float dj__pilot_steering(const dj__vehicle_model *m, double curvature, double v) {
  double lf = m->cg_front, lr = m->wheelbase - lf;
  double understeer =
      m->mass / m->wheelbase * (lr / m->cornering_front - lf / m->cornering_rear); /* s^2/m */
  double steer = atan(m->wheelbase * curvature) + understeer * v * v * curvature;
  return (float)fmax(-1, fmin(1, steer / m->max_steer));
}

void dj__pilot_pedals(const dj__vehicle_model *m, double accel, double v, double slope,
                      dj__command *out) {
  double resist = m->drag * v * v / m->mass + (v > 0.01 ? m->rolling * G : 0);
  double need = accel + resist + G * slope / hypot(1, slope);
  out->throttle = out->brake = 0;
  if (need >= 0) {
    double most = fmin(m->max_accel, m->max_power / (m->mass * fmax(v, 0.1)));
    out->throttle = (float)fmin(1, fmin(need, most) / m->max_accel);
  } else {
    out->brake = (float)fmin(1, -need / m->max_brake);
  }
}

double dj__pilot_curvature(double line_curvature, double distance, double direction, double reach) {
  double k = line_curvature / fmax(0.2, 1 - line_curvature * distance);
  double e = fmax(-0.7 * reach, fmin(0.7 * reach, distance));
  return k * cos(direction) - e / (reach * reach) - 2 * sin(direction) / reach;
}

double dj__pilot_reach(const dj__vehicle_model *m, double v) {
  return fmax(1.8 * m->wheelbase, 0.9 * v);
}
