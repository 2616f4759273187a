/*
 * Letting in. Whoever has to leave its lane, since it ends or is closed ahead, signals; one car of
 * the lane beside makes room by braking no harder than is comfortable, and only if it can (gap
 * creation of Schakel, Knoop, van Arem, "Integrated lane change model with relaxation and
 * synchronization", Transportation Research Record 2316, 2012; cooperative changes of Hidas,
 * "Modelling vehicle interactions in microscopic simulation of merging and weaving", Transportation
 * Research Part C 13, 2005). Having let one in it lets in no other before it has gone on: so a
 * queue at a closed lane merges by turns, at the place where it ends (McCoy, Pesti, "Dynamic late
 * merge control concept for work zones on rural interstate highways", TRR 1745, 2001).
 */
#include <math.h>

#include "world/traffic.h"

#define HARDEST 2.0f  /* m/s^2 that making room may take to begin with */
#define ROOM    14.0f /* m from one whom it has let in to the next one */
#define PATIENT 12.0f /* s that it waits for somebody who does not come */

typedef struct guest { /* who wants in */
  int agent;
  float gap, speed;
} guest;

/* Somebody moved by others says nothing: it stands, or nearly, before what closes its lane. */
static bool held_up(const dj__traffic *t, int i) {
  const dj__agents *a = &t->agents;
  const float scale = t->mind[i].scale, side = 0.5f * a->width[i];
  if (a->speed[i] > 4 * scale) return false;
  for (int k = t->lane_head[a->lane[i]]; k >= 0; k = t->entry[k].next) {
    const dj__entry *e = &t->entry[k];
    if (e->s < a->s[i] || !(a->flags[e->agent] & (DJ__AGENT_PARKED | DJ__AGENT_STATIC))) continue;
    if (e->lo < a->t[i] + side && e->hi > a->t[i] - side) return e->rear < a->s[i] + 40 * scale;
  }
  return false;
}

static bool wants_in(const dj__traffic *t, int i, int dir) {
  const dj__mind *m = &t->mind[i];
  if (dj__is_external(t, i)) return held_up(t, i);
  return m->urgent && m->want == dir && m->want_time >= 0;
}

/* The nearest one ahead on lane `other` who has to come over; dir: where to, as dj__mind.want. */
static guest find_guest(const dj__traffic *t, int i, int other, int dir, float most) {
  const dj__agents *a = &t->agents;
  const dj__map *map = t->map;
  const dj__mind *m = &t->mind[i];
  guest g = {-1, most, 0};
  float share = (float)(map->lane[a->lane[i]].length / map->lane[other].length);
  float front = a->s[i] + 0.5f * a->length[i];
  for (int k = t->lane_head[other]; k >= 0; k = t->entry[k].next) {
    const dj__entry *e = &t->entry[k];
    if (e->agent == i || a->lane[e->agent] != other || !wants_in(t, e->agent, dir)) continue;
    if (m->let_room > 0 && m->let != e->agent) continue;
    float gap = e->s * share - 0.5f * a->length[e->agent] - front;
    if (gap > 0 && gap < g.gap) g = (guest){e->agent, gap, e->speed};
  }
  return g;
}

float dj__merge_decide(dj__traffic *t, int i) {
  const dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  const dj__lane *l = &t->map->lane[a->lane[i]];
  const float dt = (float)DJ__WORLD_DT, v = a->speed[i];
  m->urgent = dj__must_leave(t, i);
  m->let_room = fmaxf(0, m->let_room - v * dt);
  if (m->urgent || l->n_conflict) return HUGE_VALF;
  guest best = {-1, 20 * m->scale + v * v / (2 * HARDEST), 0};
  for (int left = 0; left < 2; left++) {
    int other = left ? l->left : l->right;
    if (other < 0 || t->lane_head[other] < 0) continue;
    guest g = find_guest(t, i, other, left ? -1 : 1, best.gap);
    if (g.agent >= 0) best = g;
  }
  if (best.agent < 0) {
    m->let_time = 0;
    return HUGE_VALF;
  }
  float acc = dj__idm_follow(m, v, best.gap, best.speed, m->gap);
  if (m->let != best.agent && acc < -HARDEST) return HUGE_VALF; /* too late for this one */
  m->let_time += dt;
  m->let = best.agent;
  m->let_room = ROOM * m->scale;
  if (m->let_time > PATIENT) { /* it does not come */
    m->let_time = 0;
    m->let = -1;
  }
  return fmaxf(acc, -m->brake);
}
