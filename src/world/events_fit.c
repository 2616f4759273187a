/*
 * Whether a route has what an event needs, where the ego will be when it is due: a stretch of road
 * of some kind that is long enough, not before the ego can be there and not too near the end.
 */
#include <math.h>

#include "world/events.h"

#define LATEST_S 6.0 /* s after the start until which a staged event is held back */

static bool has_lane_beside(const dj__map *m, const dj__lane *l) {
  return (l->left >= 0 && m->lane[l->left].type == DJ__LANE_DRIVING) ||
         (l->right >= 0 && m->lane[l->right].type == DJ__LANE_DRIVING);
}

static bool is_fast(const dj__lane *l) {
  return l->zone == DJ__ZONE_MOTORWAY;
}

/* Is this a lane where it may happen? `edge`: from the road's edge (cut-ins). */
static bool lane_fits(const dj__map *m, const dj__lane *l, int kind, bool edge) {
  bool right = l->right >= 0 && m->lane[l->right].type == DJ__LANE_DRIVING;
  if (kind == DJ__EVENT_CUT_IN && !edge) /* on motorways lanes go on through where ramps part */
    return !l->n_conflict && (has_lane_beside(m, l) || l->junction >= 0);
  if (l->junction >= 0 || l->n_conflict) return false;
  switch (kind) {
  case DJ__EVENT_CUT_IN:
    return !right && !is_fast(l);
  case DJ__EVENT_JAYWALKER:
    return !is_fast(l);
  case DJ__EVENT_ONCOMING:
    return !is_fast(l) && l->opposite >= 0 && m->lane[l->opposite].left < 0;
  case DJ__EVENT_BLOCKED:
  case DJ__EVENT_WRONG_PARKING:
    return has_lane_beside(m, l) || l->opposite >= 0;
  default:
    return true;
  }
}

/* m of the stretch that are needed. */
static double needed(const dj__lane *l, int kind, bool edge) {
  double v = l->speed_limit;
  switch (kind) {
  case DJ__EVENT_CUT_IN:
    return edge ? 42 : 40 + LATEST_S * v + 5 * v;
  case DJ__EVENT_ONCOMING: /* it is put there, swings out and back */
    return fmax(90, 5 * (v + 5.2) + 5) - 40;
  case DJ__EVENT_BLOCKED:
  case DJ__EVENT_WRONG_PARKING:
    return 80;
  default:
    return 20;
  }
}

/* m along the route before which it is too early. */
static double earliest(const dj__lane *l, int kind, bool edge) {
  double v = l->speed_limit, stop = v + v * v / 10;
  switch (kind) {
  case DJ__EVENT_CUT_IN:
    return edge ? LATEST_S * v + stop + 10 : 0;
  case DJ__EVENT_ONCOMING:
    return LATEST_S * v + 44;
  default:
    return 90;
  }
}

static bool stretch_fits(const dj__route *r, const dj__lane *l, int kind, bool edge, double from,
                         double to) {
  double first = fmax(from, earliest(l, kind, edge));
  double last = kind == DJ__EVENT_ONCOMING ? fmin(to, r->length + 60) : fmin(to, r->length - 10);
  return last - first >= needed(l, kind, edge);
}

static bool goes_on(const dj__map *m, int a, int b) {
  for (int k = 0; k < m->lane[a].n_succ; k++)
    if (dj__succ(m, a, k) == b) return true;
  return false;
}

/* 1, or 2 if nobody can come in between before it. */
static int has_stretch(const dj__map *m, const dj__route *r, int kind, bool edge) {
  double along = -r->start, from = 0;
  bool open = false; /* a stretch goes on; of the other kinds it is one lane's */
  int found = 2;
  const bool joined = kind == DJ__EVENT_ONCOMING || (kind == DJ__EVENT_CUT_IN && !edge);
  for (int k = 0; k < r->n; k++) {
    const dj__lane *l = &m->lane[r->lane[k]];
    bool fits = lane_fits(m, l, kind, edge);
    if (fits && !(open && joined)) from = fmax(along, 0);
    open = fits;
    bool on = k + 1 == r->n || goes_on(m, r->lane[k], r->lane[k + 1]);
    if (fits && stretch_fits(r, l, kind, edge, from, along + l->length)) return found;
    if (l->n_conflict) found = 1;
    if (on)
      along += l->length;
    else
      open = false, found = 1;
  }
  return 0;
}

/* The route's first lights are so far ahead that they can turn red in time; 2: no crossing before.
 */
static int meets_lights(const dj__map *m, const dj__route *r) {
  double along = -r->start;
  int found = 2;
  for (int k = 0; k < r->n; k++) {
    const dj__lane *l = &m->lane[r->lane[k]];
    double at = l->stop >= 0 ? along + m->stop[l->stop].s : -1;
    if (at > 0 && m->stop[l->stop].control == DJ__CONTROL_LIGHTS) {
      bool in_time = at > fmax(60, LATEST_S * l->speed_limit + 25) && at < r->length - 5;
      return in_time ? found : 0;
    }
    if (l->n_conflict) found = 1;
    if (k + 1 == r->n || goes_on(m, r->lane[k], r->lane[k + 1])) along += l->length;
  }
  return 0;
}

int dj__event_fits(const dj__map *m, const dj__route *r, int kind) {
  if (kind == DJ__EVENT_LIGHT_TURNS || kind == DJ__EVENT_RED_RUNNER) return meets_lights(m, r);
  int beside = has_stretch(m, r, kind, false);
  int edge = kind == DJ__EVENT_CUT_IN ? has_stretch(m, r, kind, true) : 0;
  return beside > edge ? beside : edge;
}
