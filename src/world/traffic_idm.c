/*
 * Longitudinal models. The Intelligent Driver Model (Treiber, Hennecke, Helbing, "Congested traffic
 * states in empirical observations and microscopic simulations", Phys. Rev. E 62, 2000), its free
 * and its following term joined by the minimum as Schakel, Knoop, van Arem, "Effects of cooperative
 * adaptive cruise control on traffic flow stability", ITSC 2010 (IDM+), so that any number of
 * things ahead join in the same way; above the wanted speed it slows down with the comfortable
 * deceleration (Treiber, Kesting, "Traffic flow dynamics", 2013, section 11.3.7).
 */
#include <math.h>

#include "world/traffic.h"

float dj__idm_free(const dj__mind *m, float v, float v0) {
  if (v0 < 0.1f) v0 = 0.1f;
  float q = v / v0;
  if (q <= 1) return m->accel * (1 - q * q * q * q);
  float a = -m->brake * (1 - powf(1 / q, 4 * m->accel / m->brake)) - 0.5f * (v - v0);
  return a < -m->brake ? -m->brake : a;
}

float dj__idm_follow(const dj__mind *m, float v, float gap, float lead_speed, float s0) {
  float closing = v - lead_speed;
  float wanted = v * m->gap_time + v * closing / (2 * sqrtf(m->accel * m->brake));
  float s = s0 + (wanted > 0 ? wanted : 0);
  if (gap < 0.05f) gap = 0.05f;
  float q = s / gap;
  return m->accel * (1 - q * q);
}

/* Least time for `dist` m, from speed v with this acceleration up to v_max. */
float dj__travel_time(float dist, float v, float accel, float v_max) {
  if (dist <= 0) return 0;
  if (v >= v_max) return dist / (v > 0.1f ? v : 0.1f);
  float to_max = (v_max * v_max - v * v) / (2 * accel);
  if (dist <= to_max) return 2 * dist / (v + sqrtf(v * v + 2 * accel * dist));
  return (v_max - v) / accel + (dist - to_max) / v_max;
}
