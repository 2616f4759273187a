/*
 * Backing up. Two who come face to face because one of them is out of its lane cannot go round each
 * other any more: the one who is out goes back behind what it wanted to pass, with whoever has
 * closed up behind it; where it cannot (or is moved by others), the other one makes room.
 */
#include <math.h>

#include "world/traffic.h"

#define SPEED    1.2f  /* m/s */
#define PATIENT  4.0f  /* s before it begins */
#define MODEST   10.0f /* s before the one in its own lane does */
#define FURTHEST 30.0f
#define ROOM     1.5 /* m kept to whoever is behind */

/* Nobody in the way behind it. */
static bool room_behind(const dj__traffic *t, int i) {
  const dj__agents *a = &t->agents;
  double scale = (double)t->mind[i].scale, c = cos((double)a->yaw[i]), s = sin((double)a->yaw[i]);
  double half = 0.5 * (double)a->length[i], side = 0.5 * (double)a->width[i];
  if ((double)a->s[i] < half + 1 * scale) return false; /* no further than its lane */
  int near[32], n = dj__hash_near(t, a->x[i], a->y[i], half + 12 * scale, near, 32);
  for (int k = 0; k < n; k++) {
    int j = near[k];
    double dx = a->x[j] - a->x[i], dy = a->y[j] - a->y[i];
    double along = -(dx * c + dy * s), aside = fabs(dy * c - dx * s);
    double lj = 0.5 * (double)a->length[j], wj = 0.5 * (double)a->width[j];
    if (j == i || along < 0 || fabsf(a->z[i] - a->z[j]) > 3) continue;
    double away = fmax(0, -(double)a->speed[j]) * 0.5; /* it backs up itself */
    if (along - half - lj + away < ROOM * scale && aside < side + wj + 0.3 * scale) return false;
  }
  return true;
}

static bool is_out(const dj__traffic *t, int i) {
  return t->agents.t[i] - t->mind[i].t_rest > 0.5f * t->mind[i].scale;
}

static bool wants_back(const dj__traffic *t, int i) {
  const dj__mind *m = &t->mind[i];
  const dj__agents *a = &t->agents;
  int j = m->leader;
  if (m->stop_reason != DJ__REASON_LEADER || j < 0 || m->leader_gap > 6 * m->scale) return false;
  float along = cosf(a->yaw[j] - a->yaw[i]);
  if (along > 0.5f) return t->mind[j].back > 0 && m->leader_gap < 3 * m->scale;
  if (along > -0.5f || a->kind[j] == DJ__PEDESTRIAN) return false;
  if (is_out(t, i)) return m->still > PATIENT;
  return m->still > MODEST && is_out(t, j);
}

bool dj__back_decide(dj__traffic *t, int i) {
  dj__mind *m = &t->mind[i];
  const dj__agents *a = &t->agents;
  if (!dj__is_motor(a->kind[i]) || m->role == DJ__ROLE_STAND) return false;
  if (m->back <= 0) {
    if (a->speed[i] > 0.05f || !wants_back(t, i) || !room_behind(t, i)) return false;
    m->back = (is_out(t, i) ? FURTHEST : 8) * m->scale;
    m->back_out = is_out(t, i);
  } else {
    m->back += fminf(a->speed[i], 0) * (float)DJ__WORLD_DT;
    bool home = m->back_out && !is_out(t, i);
    if (home || !room_behind(t, i)) m->back = 0;
  }
  float v = m->back > 0 ? -SPEED * m->scale : 0;
  t->plan[i] = dj__clampf((v - a->speed[i]) / 0.5f, -1, 2);
  m->stop_reason = DJ__REASON_LEADER;
  return m->back > 0 || a->speed[i] < -0.05f;
}
