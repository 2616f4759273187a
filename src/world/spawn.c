/*
 * Who there is: sizes, looks and temperaments; where agents are put at the start, and again when
 * the ego has left them behind. Temperaments are spread around published values:
 *   - desired speed: normal, 1.02 +- 0.08 of the limit in free flow (FHWA speed surveys lie between
 *     0.9 and 1.15), desired time gap 1.0 to 2.0 s, a 1 to 2 m/s^2, b 1.5 to 2.5 m/s^2 (Treiber,
 *     Kesting, "Traffic flow dynamics", 2013, tables 11.2 and 11.3), politeness 0 to 0.5 (Kesting
 *     et al. 2007);
 *   - sideways acceleration in bends 1.5 to 3 m/s^2 (Reymond et al., Human Factors 43, 2001);
 *   - cyclists 5.0 +- 0.9 m/s, 0.8 m/s^2 (Parkin, Rotheram, Transport Policy 17, 2010);
 *   - pedestrians 1.34 +- 0.26 m/s (Weidmann, "Transporttechnik der Fussgaenger", 1993).
 */
#include <math.h>
#include <string.h>

#include "world/traffic.h"

typedef struct size {
  float length, width, height, spread; /* m; share that one differs from the other */
} size;

static const size SIZES[DJ__N_KINDS] = {
    [DJ__CAR] = {4.4f, 1.80f, 1.48f, 0.08f},         [DJ__VAN] = {5.6f, 1.98f, 2.30f, 0.08f},
    [DJ__LORRY] = {8.5f, 2.50f, 3.40f, 0.10f},       [DJ__BUS] = {11.9f, 2.55f, 3.10f, 0.02f},
    [DJ__MOTORCYCLE] = {2.1f, 0.80f, 1.60f, 0.05f},  [DJ__CYCLIST] = {1.75f, 0.60f, 1.72f, 0.04f},
    [DJ__PEDESTRIAN] = {0.45f, 0.55f, 1.72f, 0.06f}, [DJ__CONE] = {0.36f, 0.36f, 0.75f, 0},
    [DJ__BARRIER] = {0.35f, 2.00f, 1.05f, 0},        [DJ__RC_CAR] = {0.55f, 0.30f, 0.18f, 0.05f},
};

static float spread(dj__rng *r, float mean, float sd, float lo, float hi) {
  return dj__clampf(mean + sd * dj__rng_normal(r), lo, hi);
}

static void give_temperament(dj__mind *m, dj__kind kind, dj__rng *r) {
  bool heavy = kind == DJ__LORRY || kind == DJ__BUS;
  m->scale = kind == DJ__RC_CAR ? 0.12f : 1;
  m->v_factor = spread(r, heavy ? 0.95f : 1.0f, 0.08f, 0.8f, 1.2f);
  m->gap_time = spread(r, heavy ? 1.7f : 1.4f, 0.3f, 0.9f, 2.2f);
  m->gap = (kind == DJ__CYCLIST ? 1.2f : dj__rng_uniform(r, 1.6f, 2.6f)) * m->scale;
  m->accel = spread(r, heavy ? 0.8f : 1.5f, heavy ? 0.1f : 0.3f, heavy ? 0.6f : 0.9f, 2.2f);
  m->brake = spread(r, heavy ? 1.6f : 2.0f, 0.25f, 1.3f, 2.6f);
  m->polite = dj__rng_uniform(r, 0, 0.5f);
  m->curve = sqrtf(spread(r, heavy ? 1.5f : 2.1f, 0.35f, 1.2f, 3.0f));
  if (kind == DJ__CYCLIST) {
    m->v_factor = spread(r, 1, 0.18f, 0.6f, 1.5f);
    m->accel = 0.8f;
    m->brake = 1.8f;
    m->gap_time = 1.0f;
  }
  if (kind == DJ__RC_CAR) m->gap_time = spread(r, 0.8f, 0.15f, 0.5f, 1.2f);
  if (kind == DJ__PEDESTRIAN) m->v_factor = spread(r, 1.34f, 0.26f, 0.7f, 2.0f);
  if (kind == DJ__MOTORCYCLE)
    m->t_rest = dj__rng_uniform(r, -0.5f, 0.5f);
  else if (kind <= DJ__BUS)
    m->t_rest = heavy ? -0.1f : dj__rng_uniform(r, -0.2f, 0.08f);
  m->calm = dj__rng_uniform(r, 0, 1);
}

void dj__agent_clear(dj__traffic *t, int i) {
  dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  memset(m, 0, sizeof *m);
  for (int h = 0; h < DJ__HOLD; h++) m->hold[h] = -1;
  m->behind = m->leader = m->event = m->link = m->let = -1;
  m->scale = 1;
  a->flags[i] = a->lamps[i] = 0;
  a->lane[i] = -1;
  a->speed[i] = a->accel[i] = a->yaw_rate[i] = a->steer[i] = a->s[i] = a->t[i] = 0;
  a->pitch[i] = a->roll[i] = 0;
  t->plan[i] = 0;
}

void dj__agent_dress(dj__traffic *t, int i, dj__kind kind, dj__rng *r) {
  dj__agents *a = &t->agents;
  dj__agent_clear(t, i);
  const size *z = &SIZES[kind];
  float k = 1 + z->spread * dj__rng_uniform(r, -1, 1),
        k2 = 1 + 0.5f * z->spread * dj__rng_uniform(r, -1, 1);
  a->kind[i] = (uint8_t)kind;
  a->flags[i] = DJ__AGENT_LIVE;
  a->variant[i] = (uint8_t)dj__rng_below(r, 256);
  a->id[i] = t->next_id++;
  a->length[i] = z->length * k;
  a->width[i] = z->width * k2;
  a->height[i] = z->height * k;
  give_temperament(&t->mind[i], kind, r);
}

/* Mix of motor vehicles on town streets: cars 78, vans 9, lorries 5, buses 2, motorcycles 6 of a
 * hundred (DfT, "Road traffic estimates Great Britain 2019", rounded, two-wheelers doubled). */
static dj__kind draw_vehicle(const dj__traffic *t, dj__rng *r) {
  if (t->toy) return DJ__RC_CAR;
  uint64_t u = dj__rng_below(r, 100);
  return u < 78   ? DJ__CAR
         : u < 87 ? DJ__VAN
         : u < 92 ? DJ__LORRY
         : u < 94 ? DJ__BUS
                  : DJ__MOTORCYCLE;
}

void dj__agent_put(dj__traffic *t, int i, int lane, double s, double lateral, double speed) {
  dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  a->lane[i] = lane;
  a->s[i] = (float)s;
  a->t[i] = (float)lateral;
  a->speed[i] = (float)speed;
  m->t_goal = (float)lateral;
  m->path[0] = lane;
  m->n_path = 1;
  m->behind = t->map->lane[lane].n_pred > 0 ? dj__pred(t->map, lane, 0) : -1;
  double f;
  a->yaw[i] = dj__lane_at(t->map, lane, s, &f)->yaw;
  dj__agent_extend(t, i);
  dj__agent_pose(t, i);
  a->yaw_rate[i] = 0;
}

static double spot_speed(const dj__traffic *t, int i, const dj__spot *p) {
  double f;
  const dj__mind *m = &t->mind[i];
  const dj__lane_point *q = dj__lane_at(t->map, p->lane, (double)p->s, &f);
  double bend = (double)(t->net->curve_speed[q - t->map->point] * m->curve);
  double v = fmin(bend, t->map->lane[p->lane].speed_limit * (double)m->v_factor) * t->wary;
  if (t->agents.kind[i] == DJ__CYCLIST) v = fmin(v, 4.5);
  double left = t->map->lane[p->lane].length - (double)p->s;
  return 0.85 * fmin(v, sqrt(2 * fmax(left - 5 * (double)m->scale, 0)));
}

static bool leads_to(const dj__map *m, int lane, int next) {
  for (int k = 0; lane >= 0 && k < m->lane[lane].n_succ; k++)
    if (dj__succ(m, lane, k) == next) return true;
  return false;
}

/* m from s on a lane to who is on it, or on one that follows it; HUGE_VAL: not there. */
static double ahead_of(const dj__traffic *t, int lane, double s, int j) {
  const int other = t->agents.lane[j];
  if (other == lane) return (double)t->agents.s[j] - s;
  return leads_to(t->map, lane, other) ? t->map->lane[lane].length - s + (double)t->agents.s[j]
                                       : HUGE_VAL;
}

/* Agent i at `speed` is so near to j that it could not stop gently: d2 is their distance squared.
 */
static bool runs_into(const dj__traffic *t, int i, int lane, double s, double speed, int j,
                      double d2) {
  const dj__agents *a = &t->agents;
  const double scale = (double)t->mind[i].scale, stop = speed + speed * speed / 4;
  const double room = 0.5 * (double)(a->length[i] + a->length[j]) + stop;
  if (a->kind[j] == DJ__PEDESTRIAN)
    return (a->flags[j] & DJ__AGENT_CROSSING) && d2 < (room + 2) * (room + 2);
  const double ahead = ahead_of(t, lane, s, j);
  return ahead > 0 && ahead < room + 10 * scale;
}

/* Room for agent i there: everyone near far enough for both speeds. */
bool dj__spot_free(const dj__traffic *t, int i, int lane, double s, double speed) {
  const dj__agents *a = &t->agents;
  double x, y, scale = (double)t->mind[i].scale;
  dj__lane_xy(t->map, lane, s, 0, &x, &y);
  double own = 0.5 * (double)a->length[i] + 4 * scale + speed * speed / 6;
  for (int j = 0; j < a->n; j++) {
    if (j == i || !(a->flags[j] & DJ__AGENT_LIVE)) continue;
    double dx = a->x[j] - x, dy = a->y[j] - y, d2 = dx * dx + dy * dy;
    bool still = a->flags[j] & (DJ__AGENT_PARKED | DJ__AGENT_STATIC);
    bool person = a->kind[j] == DJ__PEDESTRIAN;
    if ((still || person) && runs_into(t, i, lane, s, speed, j, d2)) return false;
    if (person) continue;
    double v = (double)a->speed[j];
    double room = 0.5 * (double)a->length[j] +
                  (still ? 0.5 * (double)a->length[i] + scale : own + v * v / 5 + v);
    if (still && a->lane[j] != lane && d2 > 9) continue;
    bool same = a->lane[j] == lane || leads_to(t->map, a->lane[j], lane);
    const bool swung = t->mind[j].role == DJ__ROLE_ONCOMING; /* needs its way back */
    if (!same && !still && !swung)
      room =
          fmin(room, 0.5 * (double)a->length[j] + 0.5 * (double)a->length[i] + 8 * scale + v * 0.7);
    if (swung) room += 4 * (speed + v);
    if (d2 < room * room) return false;
  }
  return true;
}

static bool spot_suits(const dj__traffic *t, int i, const dj__spot *p) {
  const dj__lane *l = &t->map->lane[p->lane];
  if (t->agents.kind[i] == DJ__CYCLIST)
    return l->right < 0 && !t->net->fast[p->lane] && l->speed_limit < 25;
  if (t->agents.kind[i] == DJ__BUS || t->agents.kind[i] == DJ__LORRY)
    if ((l->left >= 0 && l->right >= 0) || t->net->tight[p->lane]) return false;
  return l->n_succ > 0;
}

/* Out of sight: 80 m where the ego looks to, 60 m behind it, but never nearer than what the radius
 * leaves. */
static bool out_of_sight(const dj__traffic *t, double x, double y) {
  double dx = x - t->home_x, dy = y - t->home_y, d = hypot(dx, dy);
  if (t->n_external == 0) return true;
  double yaw = (double)t->agents.yaw[0], ahead = dx * cos(yaw) + dy * sin(yaw);
  return d > (ahead > -0.3 * d ? 85 : 60) * (t->toy ? 0.0 : 1.0);
}

static bool try_spot(dj__traffic *t, int i, dj__rng *r, bool hidden) {
  const dj__net *n = t->net;
  bool rider = dj__is_rider(&t->agents, i), person = t->agents.kind[i] == DJ__PEDESTRIAN;
  const dj__spot *list = person ? n->walk : n->drive;
  int count = person ? n->n_walk : n->n_drive;
  if (count == 0) return false;
  const dj__spot *p = &list[dj__rng_below(r, (uint64_t)count)];
  double d = hypot((double)p->x - t->home_x, (double)p->y - t->home_y);
  if (t->radius > 0 && d > 0.97 * t->radius) return false;
  if (hidden && !out_of_sight(t, (double)p->x, (double)p->y)) return false;
  if (person) {
    dj__pedestrian_put(t, i, p->lane, (double)p->s, dj__rng_below(r, 2) ? 1 : -1);
    return true;
  }
  if (!rider || !spot_suits(t, i, p)) return false;
  double v = spot_speed(t, i, p);
  if (!dj__spot_free(t, i, p->lane, (double)p->s, v)) return false;
  double lateral =
      t->agents.kind[i] == DJ__CYCLIST ? (double)n->bike_t[p->lane] : (double)t->mind[i].t_rest;
  dj__agent_put(t, i, p->lane, (double)p->s, lateral, v);
  return true;
}

static dj__rng stream(const dj__traffic *t, int i, int kind) {
  return (dj__rng){t->seed, ((uint64_t)kind << 48) | ((uint64_t)t->step << 16) | (uint64_t)i, 0};
}

/* Draws another one for the slot and looks for a place; false: the slot stays empty. */
static bool bring(dj__traffic *t, int i, dj__kind kind, dj__rng *r, bool hidden, int tries) {
  dj__agent_dress(t, i, kind, r);
  for (int k = 0; k < tries; k++)
    if (try_spot(t, i, r, hidden)) return true;
  t->next_id--;
  dj__agent_clear(t, i);
  t->agents.kind[i] = (uint8_t)kind;
  return false;
}

static void park(dj__traffic *t, int i, dj__rng *r, bool hidden) {
  const dj__net *n = t->net;
  dj__agents *a = &t->agents;
  uint64_t u = dj__rng_below(r, 20);
  dj__agent_dress(t, i, t->toy ? DJ__RC_CAR : u < 17 ? DJ__CAR : DJ__VAN, r);
  for (int k = 0; k < 60; k++) {
    const dj__spot *p = &n->park[dj__rng_below(r, (uint64_t)n->n_park)];
    if (t->radius > 0 && hypot((double)p->x - t->home_x, (double)p->y - t->home_y) > 3 * t->radius)
      continue;
    double x, y;
    bool taken = false;
    dj__lane_xy(t->map, p->lane, (double)p->s, 0, &x, &y);
    if (hidden && !out_of_sight(t, x, y)) continue;
    for (int j = 0; j < a->n && !taken; j++)
      taken = j != i && (a->flags[j] & DJ__AGENT_LIVE) && fabs(a->x[j] - x) < 6.2 &&
              fabs(a->y[j] - y) < 6.2 && hypot(a->x[j] - x, a->y[j] - y) < 6.2;
    if (taken || (double)dj__width_at(t->map, p->lane, (double)p->s) < (double)a->width[i])
      continue;
    a->flags[i] |= DJ__AGENT_PARKED;
    double room = 0.5 * ((double)dj__width_at(t->map, p->lane, (double)p->s) - (double)a->width[i]);
    dj__agent_put(t, i, p->lane, (double)p->s, -room * (double)dj__rng_uniform(r, 0.5f, 1), 0);
    t->mind[i].n_path = 0;
    return;
  }
  t->next_id--;
  dj__agent_clear(t, i);
}

void dj__traffic_populate(dj__traffic *t, const dj__population *p) {
  int i = p->n_external;
  for (int k = 0; k < p->n_vehicle; k++, i++) {
    dj__rng r = stream(t, i, DJ__RNG_SPAWN);
    (void)bring(t, i, draw_vehicle(t, &r), &r, false, 400);
  }
  for (int k = 0; k < p->n_cyclist; k++, i++) {
    dj__rng r = stream(t, i, DJ__RNG_SPAWN);
    (void)bring(t, i, DJ__CYCLIST, &r, false, 400);
  }
  for (int k = 0; k < p->n_pedestrian; k++, i++) {
    dj__rng r = stream(t, i, DJ__RNG_SPAWN);
    (void)bring(t, i, DJ__PEDESTRIAN, &r, false, 400);
  }
  for (int k = 0; k < p->n_parked && t->net->n_park > 0; k++, i++) {
    dj__rng r = stream(t, i, DJ__RNG_SPAWN);
    park(t, i, &r, false);
  }
}

void dj__agent_park(dj__traffic *t, int i) {
  dj__rng r = stream(t, i, DJ__RNG_SPAWN);
  park(t, i, &r, true);
}

static bool left_behind(const dj__traffic *t, int i) {
  const dj__agents *a = &t->agents;
  const dj__mind *m = &t->mind[i];
  double d = hypot(a->x[i] - t->home_x, a->y[i] - t->home_y);
  if (m->event >= 0) return false;
  if (t->radius > 0 && d > t->radius) return true;
  bool hidden = out_of_sight(t, a->x[i], a->y[i]);
  /* too long for what comes next */
  bool heavy = a->kind[i] == DJ__BUS || a->kind[i] == DJ__LORRY;
  if (hidden && heavy && m->n_path > 1 && t->net->bend[m->path[1]] > 1 / 11.0f) return true;
  /* or for the ways out of a roundabout: it would go round it for ever */
  int junction = heavy && a->lane[i] >= 0 ? t->map->lane[a->lane[i]].junction : -1;
  if (hidden && junction >= 0 && t->map->junction[junction].roundabout) return true;
  /* the lane ends in nothing, or it stands for reasons that will not pass */
  return hidden && dj__is_rider(a, i) && m->still > 5 &&
         (m->stop_reason == DJ__REASON_END || m->still > 150);
}

void dj__traffic_respawn(dj__traffic *t) {
  dj__agents *a = &t->agents;
  for (int i = t->n_external; i < a->n; i++) {
    bool live = a->flags[i] & DJ__AGENT_LIVE;
    if (live && (a->flags[i] & (DJ__AGENT_PARKED | DJ__AGENT_STATIC))) continue;
    if (live && !left_behind(t, i)) continue;
    bool population = a->kind[i] < DJ__CONE || a->kind[i] == DJ__RC_CAR;
    if (!population || i >= t->n_external + t->n_people) continue;
    if (!live && (t->step + (uint64_t)i) % 4) continue;
    dj__kind kind = (dj__kind)a->kind[i];
    dj__rng r = stream(t, i, DJ__RNG_SPAWN);
    if (dj__is_motor(kind)) kind = draw_vehicle(t, &r);
    (void)bring(t, i, kind, &r, true, 12);
  }
}

int dj__agent_spare(const dj__traffic *t) {
  for (int i = t->agents.n - 1; i >= t->first_spare; i--)
    if (!(t->agents.flags[i] & DJ__AGENT_LIVE)) return i;
  return -1;
}
