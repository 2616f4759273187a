/*
 * Roadworks: a lane of a road with several in that direction is closed for some 30 m by barriers
 * behind a taper of cones, after RSA 21 and MUTCD part 6: the taper begins 2 to 3 m before the lane
 * is lost a metre in towns, longer where traffic is faster.
 */
#include <math.h>

#include "world/traffic.h"

enum { CONES = 12, BARRIERS = 3, EACH = CONES + BARRIERS, MOST = 60 };

static double kilometres(const dj__net *n) {
  double m = 0;
  for (int l = 0; l < n->map->n_lane; l++)
    if (n->map->lane[l].type == DJ__LANE_DRIVING) m += n->map->lane[l].length;
  return m / 1000;
}

static int wanted(const dj__net *n, double per_km) {
  int k = (int)ceil(kilometres(n) * per_km);
  return k > MOST ? MOST : k;
}

int dj__roadworks_slots(const dj__net *n, double per_km) {
  return wanted(n, per_km) * EACH;
}

static bool suits(const dj__net *n, int lane, double s) {
  const dj__lane *l = &n->map->lane[lane];
  if (l->type != DJ__LANE_DRIVING || l->junction >= 0 || l->n_conflict) return false;
  if (l->zone == DJ__ZONE_TRACK || l->right >= 0 || l->left < 0 || !l->change_left) return false;
  return s > 70 && s + 75 < l->length;
}

static void put(dj__traffic *t, dj__kind kind, int lane, double s, double lateral, dj__rng *r) {
  int i = dj__agent_spare(t);
  if (i < 0) return;
  dj__agents *a = &t->agents;
  dj__agent_dress(t, i, kind, r);
  a->flags[i] |= DJ__AGENT_STATIC;
  dj__agent_put(t, i, lane, s, lateral, 0);
  t->mind[i].n_path = 0;
}

static void close_lane(dj__traffic *t, int lane, double s, dj__rng *r) {
  double w = (double)dj__width_at(t->map, lane, s), fast = t->map->lane[lane].speed_limit > 20;
  double taper = fast ? 36 : 18, edge = 0.5 * w - 0.3;
  int slanted = CONES - 5;
  for (int k = 0; k < slanted; k++) {
    double f = (double)k / (slanted - 1);
    put(t, DJ__CONE, lane, s + f * taper, -edge + f * 2 * edge, r);
  }
  for (int k = 1; k <= 5; k++) put(t, DJ__CONE, lane, s + taper + 6.0 * k, edge, r);
  for (int k = 0; k < BARRIERS; k++)
    put(t, DJ__BARRIER, lane, s + taper + 5 + 11.0 * k, -0.1 * w, r);
}

void dj__roadworks(dj__traffic *t, double per_km, const int *avoid, int n_avoid) {
  dj__rng r = {t->seed, DJ__RNG_ROADWORKS, 0};
  const dj__net *n = t->net;
  int sites = wanted(n, per_km);
  for (int k = 0; k < sites && n->n_drive > 0; k++)
    for (int attempt = 0; attempt < 40; attempt++) {
      const dj__spot *p = &n->drive[dj__rng_below(&r, (uint64_t)n->n_drive)];
      bool ok = suits(n, p->lane, (double)p->s);
      for (int q = 0; q < n_avoid && ok; q++) ok = avoid[q] != p->lane;
      for (int j = 0; j < t->agents.n && ok; j++)
        ok = !(t->agents.flags[j] & DJ__AGENT_STATIC) ||
             hypot(t->agents.x[j] - (double)p->x, t->agents.y[j] - (double)p->y) > 150;
      if (!ok) continue;
      close_lane(t, p->lane, (double)p->s, &r);
      break;
    }
}
