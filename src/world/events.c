/*
 * What other people do wrong near the ego. About every 20 s (config.unruly) one is due; it begins
 * as soon as someone is in a position to do it such that a driver who pays attention can still
 * avoid a crash: with REACTION s and 0.6 of what friction gives, the ego must be able to stop, or
 * there must be room. Whatever has to be put there (a broken-down car) is put where the ego cannot
 * see it yet. Every event is labelled from when it can be seen until it is over.
 */
#include "world/events.h"

#include <math.h>

#define REACTION 1.0  /* s */
#define STANDS_S 32.0 /* s for which a lane stays blocked */
#define APART_S  90.0 /* s from the end of one that stands in the way to the next one */
#define SELDOM_S 60.0 /* s from one that is seldom possible to the next one, at unruly = 1 */
#define WAIT     11.0 /* s from an event until one is due, and */
#define PATIENCE 2.0  /* s that each kind is given: together one in about 20 s at unruly = 1 */

const char *dj__event_name(dj__event_kind k) {
  static const char *const names[DJ__N_EVENTS] = {"cut-in",        "hard-brake", "jaywalker",
                                                  "wrong-parking", "red-runner", "oncoming",
                                                  "blocked",       "light-turns"};
  return k >= 0 && k < DJ__N_EVENTS ? names[k] : "?";
}

float dj__event_draw(dj__world *w) {
  return dj__u01(dj__philox(w->config.seed, (uint64_t)w->cast.drawn++, DJ__RNG_EVENT).v[0]);
}

double dj__ego_stopping(const dj__world *w, double v) {
  return REACTION * v + v * v / (2 * 0.6 * 9.81 * w->ego.friction);
}

int dj__event_begin(dj__world *w, dj__event_kind kind, int agent, dj__role role) {
  dj__agents *a = &w->agents;
  int at = agent < 0 ? 0 : agent, n = w->n_event++;
  w->event[n] = (dj__event){.kind = kind,
                            .start = w->step + 1,
                            .agent = agent,
                            .x = a->x[at],
                            .y = a->y[at],
                            .z = (double)a->z[at]};
  if (agent >= 0) {
    dj__mind *m = &w->traffic->mind[agent];
    m->event = n;
    m->role = role;
    m->role_time = 0;
  }
  return n;
}

/* ---- the ego's way ---- */
bool dj__way_ahead(const dj__world *w, double dist, int *lane, double *s) {
  double at = w->route_s + dist;
  for (int k = w->route_at; k < w->route.n; k++) {
    double in = at - w->route_from[k];
    bool last = k + 1 == w->route.n || w->route_from[k + 1] > at;
    if (last && in <= w->map->lane[w->route.lane[k]].length) {
      *lane = w->route.lane[k];
      *s = in < 0 ? 0 : in;
      return true;
    }
  }
  return false;
}

bool dj__way_plain(const dj__world *w, int lane, double s, double before, double after) {
  const dj__lane *l = &w->map->lane[lane];
  return l->type == DJ__LANE_DRIVING && l->junction < 0 && !l->n_conflict && s > before &&
         s < l->length - after;
}

double dj__ego_leader(const dj__world *w, int *who) {
  const dj__traffic *t = w->traffic;
  int lane = w->agents.lane[0];
  *who = -1;
  if (lane < 0) return 1e9;
  double base = 0, s = (double)w->agents.s[0], half = 0.5 * (double)w->agents.length[0];
  const dj__mind *m = &t->mind[0];
  for (int k = 0; k < m->n_path && base < s + 150; k++) {
    for (int e = t->lane_head[m->path[k]]; e >= 0; e = t->entry[e].next) {
      const dj__entry *x = &t->entry[e];
      double gap = base + (double)x->rear - s - half;
      if (x->agent == 0 || base + (double)x->s <= s || x->lo > 1 || x->hi < -1) continue;
      *who = x->agent;
      return gap;
    }
    base += w->map->lane[m->path[k]].length;
  }
  return 1e9;
}

bool dj__is_free_rider(const dj__world *w, int i) {
  return i > 0 && dj__is_rider(&w->agents, i) && dj__is_motor(w->agents.kind[i]) &&
         w->traffic->mind[i].event < 0 && w->traffic->mind[i].role == DJ__ROLE_NONE;
}

/* ---- casting ---- */
double dj__plain_ahead(const dj__world *w, int lane, double s, bool through) {
  const dj__map *m = w->map;
  double left = -s;
  for (int k = 0; k < 8; k++) {
    const dj__lane *l = &m->lane[lane];
    bool ends = l->n_conflict || l->type != DJ__LANE_DRIVING;
    if (ends || (l->junction >= 0 && (!through || w->traffic->net->bend[lane] > 0.02f))) break;
    left += l->length;
    if (l->n_succ != 1) break;
    lane = dj__succ(m, lane, 0);
  }
  return left;
}

/* m for which i still has a lane on that side. */
static double beside_ahead(const dj__world *w, int i, bool left_side) {
  const dj__mind *m = &w->traffic->mind[i];
  double left = -(double)w->agents.s[i];
  for (int k = 0; k < m->n_path && left < 100; k++) {
    const dj__lane *l = &w->map->lane[m->path[k]];
    if (l->n_conflict || (left_side ? l->left : l->right) < 0) break;
    left += l->length;
  }
  return left;
}

/* m that a driver at speed v keeps to whoever is ahead of him, if he is in a hurry. */
static double close_up(double v) {
  return fmax(5, 0.75 * v);
}

double dj__cut_in_gap(double v, double speed) {
  double slower = fmax(v - speed, 0);
  return fmax(3, 0.35 * v) + slower * REACTION + slower * slower / (2 * 4);
}

/* May i, whose rear is `gap` m ahead of the ego's front on a lane beside, come over at once? */
static bool may_cut_in(const dj__world *w, int i, double gap, bool to_left, double room) {
  const dj__agents *a = &w->agents;
  double v = w->ego.vx, speed = (double)a->speed[i], least = dj__cut_in_gap(v, speed);
  if (!dj__is_free_rider(w, i) || v - speed > 9 || speed < 2) return false;
  if (gap < least || gap > least + 18 + 0.5 * v) return false;
  if (room < gap + (double)a->length[i] + close_up(v)) return false;
  return beside_ahead(w, i, to_left) > 4 + 1.5 * speed &&
         dj__plain_ahead(w, a->lane[i], (double)a->s[i], true) > 12 + 3.5 * speed;
}

/* Calls f of everyone on the lanes beside the ego's way, until it returns true: agent, m from the
 * ego's front to its rear, whether the ego's lane is on its left. */
typedef bool (*beside_fn)(dj__world *w, int i, double gap, bool to_left, void *user);
static bool each_beside(dj__world *w, beside_fn f, void *user) {
  const dj__agents *a = &w->agents;
  const dj__mind *m = &w->traffic->mind[0];
  double base = -(double)a->s[0], half = 0.5 * (double)a->length[0];
  if (a->lane[0] < 0) return false;
  for (int k = 0; k < m->n_path && base < 70; k++) {
    const dj__lane *l = &w->map->lane[m->path[k]];
    if (l->n_conflict) return false;
    for (int side = 0; side < 2; side++) {
      int other = side ? l->left : l->right;
      if (other < 0 || w->map->lane[other].n_conflict) continue;
      double share = l->length / w->map->lane[other].length;
      for (int e = w->traffic->lane_head[other]; e >= 0; e = w->traffic->entry[e].next) {
        const dj__entry *x = &w->traffic->entry[e];
        if (a->lane[x->agent] != other) continue;
        double gap = base + (double)x->s * share - 0.5 * (double)a->length[x->agent] - half;
        if (f(w, x->agent, gap, !side, user)) return true;
      }
    }
    base += l->length;
  }
  return false;
}

static bool cut_in(dj__world *w, int i, double gap, bool to_left, void *user) {
  if (!may_cut_in(w, i, gap, to_left, *(const double *)user)) return false;
  (void)dj__event_begin(w, DJ__EVENT_CUT_IN, i, DJ__ROLE_CUT_IN);
  w->traffic->mind[i].want = to_left ? 1 : -1;
  w->traffic->mind[i].want_time = 0;
  return true;
}

/* Someone beside the ego, or a little ahead on the lane beside, changes in front of it. */
static bool cast_beside(dj__world *w) {
  int lead;
  double room = dj__ego_leader(w, &lead);
  return w->ego.vx >= 3 && each_beside(w, cut_in, &room);
}

static bool choose_actor(dj__world *w, int i, double gap, bool to_left, void *user) {
  (void)to_left;
  (void)user;
  double plain = dj__plain_ahead(w, w->agents.lane[i], (double)w->agents.s[i], true);
  if (!dj__is_free_rider(w, i) || gap < -15 || gap > 60 || plain < 12 + 8 * w->ego.vx) return false;
  w->cast.actor = i;
  return true;
}

bool dj__cut_in_actor(dj__world *w) {
  return w->ego.vx >= 3 && each_beside(w, choose_actor, NULL);
}

/* Nobody is where the parked car i would drive to, or stands in its way there. */
static bool may_pull_out(const dj__world *w, int i, int lane, double s) {
  const dj__agents *a = &w->agents;
  double c = cos((double)a->yaw[i]), n = sin((double)a->yaw[i]);
  double half = 0.5 * (double)a->length[i];
  for (int e = w->traffic->lane_head[lane]; e >= 0; e = w->traffic->entry[e].next) {
    const dj__entry *x = &w->traffic->entry[e];
    if (x->agent != i && (double)x->front > s - half - 4 && (double)x->rear < s + half + 20)
      return false;
  }
  int near[64], count = dj__world_near(w, a->x[i], a->y[i], 20, near, 64);
  for (int k = 0; k < count; k++) {
    double dx = a->x[near[k]] - a->x[i], dy = a->y[near[k]] - a->y[i];
    double along = dx * c + dy * n, aside = dy * c - dx * n;
    double reach = half + 0.5 * (double)a->length[near[k]];
    if (near[k] == i || along < -reach || along > reach + 11) continue;
    if (fabs(aside) < 2 || (aside > 0 && aside < 4.5)) return false;
  }
  return true;
}

/* Where on the ego's way a car is parked beside: m along the route, lane, place on it. */
static bool parked_beside(const dj__world *w, int i, double *along, int *lane, double *s,
                          double *lateral) {
  const dj__agents *a = &w->agents;
  const dj__map *m = w->map;
  for (int k = w->route_at; k < w->route.n && w->route_from[k] < w->route_s + 110; k++) {
    int l = w->route.lane[k], right = m->lane[l].right;
    if (right >= 0 && m->lane[right].type == DJ__LANE_DRIVING) continue;
    double d = dj__map_project(m, l, a->x[i], a->y[i], -1, s, lateral), f;
    if (d > 5 || *lateral > -1.5 || !dj__way_plain(w, l, *s, 8, 30)) continue;
    if (cos((double)(a->yaw[i] - dj__lane_at(m, l, *s, &f)->yaw)) < 0.97) continue;
    *along = w->route_from[k] + *s - w->route_s;
    *lane = l;
    return true;
  }
  return false;
}

/* Out of its parking place, on to the lane. */
static void leave_place(dj__world *w, int i, int lane, double s, double lateral) {
  dj__agents *a = &w->agents;
  dj__mind *m = &w->traffic->mind[i];
  a->flags[i] &= (uint8_t)~DJ__AGENT_PARKED;
  a->lane[i] = lane;
  a->s[i] = (float)s;
  a->t[i] = (float)lateral;
  m->path[0] = lane;
  m->n_path = 1;
  m->behind = w->map->lane[lane].n_pred > 0 ? dj__pred(w->map, lane, 0) : -1;
  m->t_goal = m->t_rest;
  m->want = 1;
  m->want_time = -1;
  dj__agent_extend(w->traffic, i);
}

/* A parked car pulls out in front of the ego, which could stop behind where it stood. */
static bool cast_pull_out(dj__world *w) {
  const dj__agents *a = &w->agents;
  int near[256], lane, lead;
  double v = w->ego.vx, s, lateral, along;
  if (v < 3 || w->traffic->toy) return false;
  double room = dj__ego_leader(w, &lead), least = dj__ego_stopping(w, v) + 4;
  int n = dj__world_near(w, a->x[0], a->y[0], least + 35, near, 256);
  for (int k = 0; k < n; k++) {
    int i = near[k];
    const dj__mind *m = &w->traffic->mind[i];
    if (!(a->flags[i] & DJ__AGENT_PARKED) || a->kind[i] > DJ__VAN) continue;
    if (m->event >= 0 || m->role != DJ__ROLE_NONE) continue;
    if (!parked_beside(w, i, &along, &lane, &s, &lateral)) continue;
    double gap = along - 0.5 * (double)(a->length[0] + a->length[i]);
    if (gap < least || gap > least + 22) continue;
    if (room < gap + (double)a->length[i] + close_up(v)) continue;
    if (!may_pull_out(w, i, lane, s)) continue;
    leave_place(w, i, lane, s, lateral);
    (void)dj__event_begin(w, DJ__EVENT_CUT_IN, i, DJ__ROLE_CUT_IN);
    return true;
  }
  return false;
}

static bool cast_cut_in(dj__world *w) {
  return cast_beside(w) || cast_pull_out(w);
}

static bool cast_hard_brake(dj__world *w) {
  int lead;
  double gap = dj__ego_leader(w, &lead), v = w->ego.vx;
  if (lead < 0 || !dj__is_free_rider(w, lead) || v < 4) return false;
  double vl = (double)w->agents.speed[lead], hard = 0.65 * 9.81 * w->ego.friction;
  if (vl < 5 || gap > 45 || gap + vl * vl / (2 * hard) < dj__ego_stopping(w, v) + 1) return false;
  (void)dj__event_begin(w, DJ__EVENT_HARD_BRAKE, lead, DJ__ROLE_BRAKE);
  w->traffic->mind[lead].role_value = (float)-hard;
  return true;
}

/* Straight across the ego's road, from where someone stands beside it. */
static bool step_out(dj__world *w, int i) {
  const dj__agents *a = &w->agents;
  double s, lateral;
  int lane =
      dj__map_nearest(w->map, a->x[i], a->y[i], NAN, 1u << DJ__LANE_DRIVING, 12, &s, &lateral);
  if (lane < 0) return false;
  dj__place p;
  dj__map_at(w->map, lane, s, 0, &p);
  /* beyond the road's other side: mirrored at the ego's lane, then out until off the road */
  double nx = p.x - a->x[i], ny = p.y - a->y[i], d = hypot(nx, ny) + 1e-9, out = 2 * d;
  nx /= d;
  ny /= d;
  while (out < 30 && dj__map_drivable(w->map, a->x[i] + out * nx, a->y[i] + out * ny, true))
    out += 0.5;
  if (out >= 30) return false;
  out += 0.5;
  double x = a->x[i] + out * nx, y = a->y[i] + out * ny;
  double to_s = 0, to_t;
  int walk = dj__map_nearest(w->map, x, y, NAN, 1u << DJ__LANE_SIDEWALK, 5, &to_s, &to_t);
  dj__pedestrian_jaywalk(w->traffic, i, x, y, walk, to_s);
  return true;
}

/* Distance along the route of someone beside it, and m to its left. */
static bool beside_route(const dj__world *w, int i, double *ahead, double *lateral) {
  const dj__agents *a = &w->agents;
  double best = 15, s, t;
  bool found = false;
  for (int k = w->route_at; k < w->route.n && w->route_from[k] < w->route_s + 100; k++) {
    if (w->map->lane[w->route.lane[k]].n_conflict) continue;
    double d = dj__map_project(w->map, w->route.lane[k], a->x[i], a->y[i], -1, &s, &t);
    if (d > best || s < 3 || s > w->map->lane[w->route.lane[k]].length - 3) continue;
    best = d;
    *ahead = w->route_from[k] + s - w->route_s;
    *lateral = t;
    found = true;
  }
  return found;
}

static bool cast_jaywalker(dj__world *w) {
  const dj__agents *a = &w->agents;
  double v = w->ego.vx, least = dj__ego_stopping(w, v) + 6, ahead, lateral;
  if (v < 3) return false;
  for (int i = 1; i < a->n; i++) {
    const dj__mind *m = &w->traffic->mind[i];
    if (a->kind[i] != DJ__PEDESTRIAN || !(a->flags[i] & DJ__AGENT_LIVE) || m->event >= 0) continue;
    if (m->gait != DJ__GAIT_WALK && m->gait != DJ__GAIT_STAND) continue;
    double dx = a->x[i] - a->x[0], dy = a->y[i] - a->y[0];
    if (dx * dx + dy * dy > 90 * 90 || !beside_route(w, i, &ahead, &lateral)) continue;
    if (ahead < least || ahead > least + 15 || fabs(lateral) > 11) continue;
    if (!step_out(w, i)) continue;
    (void)dj__event_begin(w, DJ__EVENT_JAYWALKER, i, DJ__ROLE_NONE);
    return true;
  }
  return false;
}

bool dj__is_unseen(const dj__world *w, int lane, double s) {
  double x, y;
  dj__lane_xy(w->map, lane, s, 0, &x, &y);
  return w->traffic->toy || w->step == 0 ||
         hypot(x - w->agents.x[0], y - w->agents.y[0]) > DJ__UNSEEN - 4;
}

/* A place that the ego cannot see yet, on a plain stretch of its way, wide enough to get by. */
static bool place_unseen(dj__world *w, int *lane, double *s) {
  double far = DJ__UNSEEN + 50 * (double)dj__event_draw(w);
  if (w->traffic->toy) far = 3 + 2 * (double)dj__event_draw(w);
  double clear = w->traffic->toy ? 0.8 : 30;
  if (!dj__way_ahead(w, far, lane, s) || !dj__way_plain(w, *lane, *s, clear, clear)) return false;
  if (!dj__is_unseen(w, *lane, *s)) return false;
  const dj__lane *l = &w->map->lane[*lane];
  return l->left >= 0 || l->right >= 0 || l->opposite >= 0;
}

/* Room for agent i there at `speed`: whoever follows whom can slow down to the other's speed. */
static bool has_room(const dj__world *w, int i, int lane, double s, double lateral, double speed) {
  const dj__agents *a = &w->agents;
  double x, y, f, scale = (double)w->traffic->mind[i].scale;
  dj__lane_xy(w->map, lane, s, lateral, &x, &y);
  const dj__lane_point *p = dj__lane_at(w->map, lane, s, &f);
  double yaw = (double)p->yaw, c = cos(yaw), n = sin(yaw);
  int near[256], count = dj__world_near(w, x, y, 120 * scale, near, 256);
  for (int k = 0; k < count; k++) {
    int j = near[k];
    double dx = a->x[j] - x, dy = a->y[j] - y, along = dx * c + dy * n, aside = dy * c - dx * n;
    double gap = fabs(along) - 0.5 * (double)(a->length[i] + a->length[j]);
    bool beside = fabs(aside) > 0.5 * (double)(a->width[i] + a->width[j]) + 0.5 * scale;
    if (j == i || beside || fabs((double)a->z[j] - (double)p->z) > 3) continue;
    double v = (double)a->speed[j] * cos((double)a->yaw[j] - yaw);
    double follower = along < 0 ? v : speed, closing = along < 0 ? v - speed : speed - v;
    if (follower < 0) follower = 0;
    if (closing < 0) closing = 0;
    if (gap < 4 * scale + 0.8 * follower + closing * closing / 5) return false;
  }
  return true;
}

int dj__event_vehicle(dj__world *w, int lane, double s, double lateral, double speed) {
  int i = dj__agent_spare(w->traffic);
  if (i < 0) return -1;
  dj__rng r = {w->config.seed, ((uint64_t)DJ__RNG_EVENT << 32) | w->step, 0};
  dj__agent_dress(w->traffic, i, w->traffic->toy ? DJ__RC_CAR : DJ__CAR, &r);
  if (!has_room(w, i, lane, s, lateral, speed)) {
    w->traffic->next_id--;
    dj__agent_clear(w->traffic, i);
    return -1;
  }
  dj__agent_put(w->traffic, i, lane, s, lateral, speed);
  return i;
}

static bool cast_blocked(dj__world *w) {
  int lane;
  double s;
  if (!place_unseen(w, &lane, &s)) return false;
  int i = dj__event_vehicle(w, lane, s, -0.2 * (double)w->traffic->mind[0].scale, 0);
  if (i < 0) return false;
  (void)dj__event_begin(w, DJ__EVENT_BLOCKED, i, DJ__ROLE_STAND);
  w->traffic->mind[i].role_value = -1;
  w->agents.flags[i] |= DJ__AGENT_PARKED;
  w->agents.lamps[i] = DJ__LAMP_LEFT | DJ__LAMP_RIGHT; /* hazard lamps */
  return true;
}

static bool cast_wrong_parking(dj__world *w) {
  int lane;
  double s;
  if (!place_unseen(w, &lane, &s)) return false;
  int rightmost = lane;
  for (int k = 0; k < 6 && w->map->lane[rightmost].right >= 0; k++)
    rightmost = w->map->lane[rightmost].right;
  if (rightmost != lane) return false; /* would not be in the ego's way */
  double width = (double)dj__width_at(w->map, lane, s);
  double lateral = -(0.5 * width - 0.15 * width); /* two thirds of it on the road */
  int i = dj__event_vehicle(w, lane, s, lateral, 0);
  if (i < 0) return false;
  (void)dj__event_begin(w, DJ__EVENT_WRONG_PARKING, i, DJ__ROLE_STAND);
  w->traffic->mind[i].role_value = -1;
  w->agents.flags[i] |= DJ__AGENT_PARKED;
  return true;
}

/* The junction lane of the ego's way that conflicts with `lane`: m from the ego's front to it. */
static double meeting(const dj__world *w, int lane) {
  const dj__lane *l = &w->map->lane[lane];
  double half = 0.5 * (double)w->agents.length[0];
  for (int k = w->route_at; k < w->route.n && w->route_from[k] < w->route_s + 80; k++)
    for (int c = l->conflict0; c < l->conflict0 + l->n_conflict; c++)
      if (w->map->conflict[c].lane == w->route.lane[k] && !w->traffic->net->parting[c])
        return w->route_from[k] + w->map->conflict[c].other_from - w->route_s - half;
  return -1;
}

static bool cast_red_runner(dj__world *w) {
  const dj__agents *a = &w->agents;
  const dj__map *map = w->map;
  double v = w->ego.vx;
  if (v < 4) return false;
  for (int i = 1; i < a->n; i++) {
    const dj__mind *m = &w->traffic->mind[i];
    if (!dj__is_free_rider(w, i) || m->n_path < 2 || (double)a->speed[i] < 4) continue;
    int stop = map->lane[m->path[0]].stop;
    if (stop < 0 || dj__world_light(w, stop) != DJ__LIGHT_RED) continue;
    double to_line = map->stop[stop].s - (double)a->s[i] - 0.5 * (double)a->length[i];
    bool held = m->leader >= 0 && (double)m->leader_gap < to_line + 3; /* stands there already */
    if (to_line < 5 || to_line > 60 || held) continue;
    double to_meet = meeting(w, m->path[1]);
    if (to_meet < dj__ego_stopping(w, v) || to_meet > 90) continue;
    double mine = to_meet / v, its = (to_line + 8) / (double)a->speed[i];
    if (its < mine - 4 || its > mine + 2) continue;
    (void)dj__event_begin(w, DJ__EVENT_RED_RUNNER, i, DJ__ROLE_RUN_RED);
    return true;
  }
  return false;
}

/* Someone who comes towards the ego swings out into its lane and back. */
static bool swings_out(const dj__world *w, int i, int lane, double along, double room) {
  const dj__agents *a = &w->agents;
  const dj__mind *m = &w->traffic->mind[i];
  double v = (double)a->speed[i], closing = w->ego.vx + v;
  if (!dj__is_free_rider(w, i) || a->lane[i] != lane || v < 5) return false;
  double gap = hypot(a->x[i] - a->x[0], a->y[i] - a->y[0]) - 5;
  if (gap < 5 * closing || gap > 8.5 * closing || room < along + 7 || along > 145) return false;
  if (along < gap) return false; /* has passed the ego */
  if (m->leader >= 0 && (double)m->leader_gap < 25) return false;
  return dj__plain_ahead(w, lane, (double)a->s[i], false) > 12 + 5.5 * v;
}

static bool cast_oncoming(dj__world *w) {
  int lead;
  if (w->ego.vx < 4) return false;
  double room = dj__ego_leader(w, &lead);
  for (int k = w->route_at; k < w->route.n && w->route_from[k] < w->route_s + 200; k++) {
    int lane = w->map->lane[w->route.lane[k]].opposite;
    if (lane < 0 || w->map->lane[lane].left >= 0 || w->map->lane[lane].junction >= 0) continue;
    for (int e = w->traffic->lane_head[lane]; e >= 0; e = w->traffic->entry[e].next) {
      int i = w->traffic->entry[e].agent;
      double share = 1 - (double)w->traffic->entry[e].s / w->map->lane[lane].length;
      double along = w->route_from[k] + share * w->map->lane[w->route.lane[k]].length - w->route_s;
      if (!swings_out(w, i, lane, along, room)) continue;
      (void)dj__event_begin(w, DJ__EVENT_ONCOMING, i, DJ__ROLE_ONCOMING);
      return true;
    }
  }
  return false;
}

int dj__next_light(const dj__world *w, double least, double *dist) {
  double half = 0.5 * (double)w->agents.length[0];
  for (int k = w->route_at; k < w->route.n; k++) {
    int stop = w->map->lane[w->route.lane[k]].stop;
    if (stop < 0 || w->map->stop[stop].control != DJ__CONTROL_LIGHTS) continue;
    *dist = w->route_from[k] + w->map->stop[stop].s - w->route_s - half;
    if (*dist > least) return stop;
  }
  return -1;
}

/* Lights do not obey anyone; a light that turns while the ego comes near is only named. */
static void watch_light(dj__world *w) {
  double dist, v = w->ego.vx;
  int stop = dj__next_light(w, 0, &dist);
  if (stop < 0 || stop == w->cast.light || v < 2 || w->n_event >= DJ__MAX_EVENTS) return;
  if (dist > 4 * v || dj__world_light(w, stop) != DJ__LIGHT_YELLOW) return;
  if (dj__map_light(w->map, stop, dj__world_time(w) - DJ__WORLD_DT) != DJ__LIGHT_GREEN) return;
  w->cast.light = stop;
  int n = dj__event_begin(w, DJ__EVENT_LIGHT_TURNS, -1, DJ__ROLE_NONE);
  const dj__stop_line *l = &w->map->stop[stop];
  dj__place p;
  dj__map_at(w->map, l->lane, l->s, 0, &p);
  w->event[n].x = p.x;
  w->event[n].y = p.y;
  w->event[n].z = p.z;
}

/* ---- what becomes of them ---- */
static void end_event(dj__world *w, int n) {
  dj__event *e = &w->event[n];
  e->end = w->step + 1;
  if (e->agent < 0) return;
  dj__mind *m = &w->traffic->mind[e->agent];
  if (m->event != n) return;
  if (m->role != DJ__ROLE_STAND) m->role = DJ__ROLE_NONE;
  m->v_factor = fmaxf(m->v_factor, 0.85f); /* no reason any more to be slow */
  m->event = -1;
}

static void steer_oncoming(dj__world *w, int n) {
  dj__event *e = &w->event[n];
  dj__agents *a = &w->agents;
  int i = e->agent;
  dj__mind *m = &w->traffic->mind[i];
  const dj__lane *l = &w->map->lane[a->lane[i]];
  double closing = w->ego.vx + (double)a->speed[i];
  double gap = hypot(a->x[i] - a->x[0], a->y[i] - a->y[0]) - 5;
  const int j = m->leader; /* somebody else than the ego in the ego's lane */
  bool other = j > 0 && m->leader_gap < 6 + 2 * (a->speed[i] + a->speed[j]) &&
               cosf(a->yaw[j] - a->yaw[i]) < 0;
  bool back = gap < 3.8 * closing || m->role_time > 4 || l->opposite < 0 || other ||
              dj__plain_ahead(w, a->lane[i], (double)a->s[i], false) < 8 + 3 * (double)a->speed[i];
  float apart = dj__width_at(w->map, a->lane[i], (double)a->s[i]);
  m->t_goal = back ? m->t_rest : 0.85f * apart;
  if (back && fabsf(a->t[i]) < 0.4f) end_event(w, n);
}

/* Who stood in the way drives on: queues behind it, and those on the other side who make room for
 * each other, would otherwise never come apart. */
static void drive_on(dj__world *w, int n) {
  int i = w->event[n].agent;
  end_event(w, n);
  w->traffic->mind[i].role = DJ__ROLE_NONE;
  w->traffic->mind[i].role_value = 0;
  w->agents.flags[i] &= (uint8_t)~DJ__AGENT_PARKED;
  w->agents.lamps[i] = 0;
}

/* Has the ego left i behind? Along its route, which may wind; by its own direction elsewhere. */
static bool left_behind(const dj__world *w, int i) {
  const dj__agents *a = &w->agents;
  double ahead = HUGE_VAL, dx = a->x[i] - a->x[0], dy = a->y[i] - a->y[0];
  for (int k = 0; k < w->route.n; k++) {
    double way = w->route_from[k] + (double)a->s[i] - w->route_s;
    if (w->route.lane[k] == a->lane[i] && fabs(way) < fabs(ahead)) ahead = way;
  }
  if (ahead > 1e9) ahead = dx * cos(w->ego.yaw) + dy * sin(w->ego.yaw);
  return ahead < -15;
}

/* Another second of event n. */
static void go_on(dj__world *w, int n) {
  dj__event *e = &w->event[n];
  dj__agents *a = &w->agents;
  int i = e->agent;
  if (i < 0) {
    if (w->cast.light >= 0 && dj__world_light(w, w->cast.light) == DJ__LIGHT_GREEN) end_event(w, n);
    return;
  }
  dj__mind *m = &w->traffic->mind[i];
  m->role_time += (float)DJ__WORLD_DT;
  switch (e->kind) {
  case DJ__EVENT_CUT_IN:
    if (m->role_time > 2 && m->want == 0) end_event(w, n);
    break;
  case DJ__EVENT_HARD_BRAKE:
    if (m->role_time > 2.5f || a->speed[i] < 1) end_event(w, n);
    break;
  case DJ__EVENT_JAYWALKER:
    if (!(a->flags[i] & DJ__AGENT_CROSSING)) end_event(w, n);
    break;
  case DJ__EVENT_RED_RUNNER:
    if (m->role_time > 12 || (m->n_path > 0 && w->map->lane[m->path[0]].stop < 0 &&
                              m->role_time > 4 && !w->map->lane[m->path[0]].n_conflict))
      end_event(w, n);
    break;
  case DJ__EVENT_ONCOMING:
    steer_oncoming(w, n);
    break;
  default:
    if (left_behind(w, i) || hypot(a->x[i] - a->x[0], a->y[i] - a->y[0]) > 400) {
      end_event(w, n);
    } else if (m->role_time > STANDS_S) {
      drive_on(w, n);
    }
  }
}

/* Things put there for an event go when nobody sees them; who has left its parking place parks. */
static void tidy(dj__world *w) {
  const dj__agents *a = &w->agents;
  const dj__traffic *t = w->traffic;
  double far = t->radius > 0 ? fmax(fmin(160, 0.95 * t->radius), 100) : 160;
  for (int i = t->n_external + t->n_people; i < a->n; i++) {
    if (!(a->flags[i] & DJ__AGENT_LIVE) || t->mind[i].event >= 0) continue;
    if (a->kind[i] == DJ__CONE || a->kind[i] == DJ__BARRIER) continue;
    if (i < t->first_spare && (a->flags[i] & DJ__AGENT_PARKED)) continue;
    if (hypot(a->x[i] - a->x[0], a->y[i] - a->y[0]) < far) continue;
    if (i < t->first_spare)
      dj__agent_park(w->traffic, i);
    else
      dj__agent_clear(w->traffic, i);
  }
}

typedef bool (*caster)(dj__world *w);
static const caster CAST[DJ__N_EVENTS] = {
    [DJ__EVENT_CUT_IN] = cast_cut_in,         [DJ__EVENT_HARD_BRAKE] = cast_hard_brake,
    [DJ__EVENT_JAYWALKER] = cast_jaywalker,   [DJ__EVENT_WRONG_PARKING] = cast_wrong_parking,
    [DJ__EVENT_RED_RUNNER] = cast_red_runner, [DJ__EVENT_ONCOMING] = cast_oncoming,
    [DJ__EVENT_BLOCKED] = cast_blocked};

static bool allowed(const dj__world *w, int kind) {
  return CAST[kind] && (w->config.events == 0 || (w->config.events >> kind & 1));
}

static bool stands(int kind) {
  return kind == DJ__EVENT_BLOCKED || kind == DJ__EVENT_WRONG_PARKING;
}

/* What needs others at the right place at the right time, and is seldom possible. */
static bool seldom(int kind) {
  return kind == DJ__EVENT_CUT_IN || kind == DJ__EVENT_RED_RUNNER;
}

/* One car in the way at a time, and then none for a while: they can be put nearly anywhere, and
 * would otherwise be most of what happens. What is tried first is not the next thing again. */
static bool too_soon(const dj__world *w, int kind) {
  if (!stands(kind) && !seldom(kind)) return false;
  for (int n = 0; n < w->n_event && stands(kind); n++) /* who has swung out needs the way back */
    if (w->event[n].kind == DJ__EVENT_ONCOMING && !w->event[n].end) return true;
  for (int n = w->n_event - 1; n >= 0; n--) {
    const dj__event *e = &w->event[n];
    if (stands(kind) ? !stands((int)e->kind) : (int)e->kind != kind) continue;
    const double apart = stands(kind) ? APART_S : SELDOM_S / w->config.unruly;
    return !e->end || (double)(w->step - e->end) * DJ__WORLD_DT < apart;
  }
  return false;
}

bool dj__event_cast(dj__world *w, dj__event_kind kind) {
  return CAST[kind] && CAST[kind](w);
}

/* The kinds in the order in which they are tried: what is seldom possible, then those that happened
 * least, so that nothing is crowded out by what always is. *first: of the former. */
static int in_order(const dj__world *w, int *kinds, int *first) {
  float rank[DJ__N_EVENTS];
  int n = 0, count[DJ__N_EVENTS] = {0};
  for (int e = 0; e < w->n_event; e++) count[w->event[e].kind]++;
  *first = 0;
  for (int k = 0; k < DJ__N_EVENTS; k++) {
    if (!allowed(w, k) || too_soon(w, k)) continue;
    uint64_t at = (UINT64_C(1) << 32) + (uint64_t)w->n_event * DJ__N_EVENTS + (uint64_t)k;
    float r = (float)count[k] + 1.2f * dj__u01(dj__philox(w->config.seed, at, DJ__RNG_EVENT).v[0]);
    if (seldom(k)) r -= DJ__MAX_EVENTS + 2, ++*first;
    int i = n++;
    for (; i > 0 && rank[i - 1] > r; i--) rank[i] = rank[i - 1], kinds[i] = kinds[i - 1];
    rank[i] = r;
    kinds[i] = k;
  }
  return n;
}

/* It begins now, or somebody is brought for it. */
static bool begins(dj__world *w, dj__event_kind kind) {
  int before = w->n_event;
  if (!CAST[kind](w) && (seldom((int)kind) || kind == DJ__EVENT_ONCOMING))
    (void)dj__event_bring(w, kind);
  return w->n_event > before;
}

/* With every PATIENCE s that one is due, one more kind will do. */
static void due(dj__world *w) {
  if (w->config.unruly <= 0 || w->step < w->cast.next || w->n_event >= DJ__MAX_EVENTS) return;
  if (w->step % 4) return; /* five attempts a second are enough */
  if (w->config.staged.kind >= 0 && !w->cast.staged &&
      (double)w->step * DJ__WORLD_DT < w->config.staged.after + DJ__STAGE_S)
    return; /* the stage is kept free */
  int kinds[DJ__N_EVENTS], first, n = in_order(w, kinds, &first);
  double waited = (double)(w->step - w->cast.next) * DJ__WORLD_DT;
  int some = first + 1 + (int)(waited * w->config.unruly / PATIENCE);
  for (int k = 0; k < n && k < some; k++) {
    if (!begins(w, (dj__event_kind)kinds[k])) continue;
    double wait = -log(1 - (double)dj__event_draw(w)) * WAIT / w->config.unruly;
    w->cast.next = w->step + 40 + (uint64_t)(wait / DJ__WORLD_DT);
    return;
  }
}

void dj__events_step(dj__world *w) {
  int first = w->n_event > 64 ? w->n_event - 64 : 0;
  for (int n = first; n < w->n_event; n++)
    if (!w->event[n].end) go_on(w, n);
  if (w->step % 10 == 0) tidy(w);
  if (w->config.unruly > 0 || w->config.staged.kind == DJ__EVENT_LIGHT_TURNS) watch_light(w);
  dj__events_stage(w);
  due(w);
}

uint64_t dj__events_digest(const dj__world *w, uint64_t h) {
  double row[] = {(double)w->cast.next,       (double)w->cast.staged, (double)w->cast.drawn,
                  (double)w->cast.light,      (double)w->cast.actors, (double)w->cast.next_actor,
                  (double)w->cast.actor,      (double)w->cast.held,   (double)w->n_event,
                  (double)w->cast.actor_until};
  return dj__hash64(row, sizeof row, h);
}

void dj__events_prepare(dj__world *w) {
  w->cast.light = w->cast.actor = -1;
  w->cast.next = (uint64_t)(4 / DJ__WORLD_DT);
  dj__events_stage_prepare(w);
}
