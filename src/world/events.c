/*
 * What other people do wrong near the ego. About every 20 s (config.unruly) one is due; it begins
 * as soon as someone is in a position to do it such that a driver who pays attention can still
 * avoid a crash: with REACTION s and 0.6 of what friction gives, the ego must be able to stop, or
 * there must be room. Whatever has to be put there (a broken-down car) is put where the ego cannot
 * see it yet. Every event is labelled from when it can be seen until it is over.
 */
#include "world/events.h"

#include <math.h>

#include "world/traffic.h"

enum { MAX_EVENTS = 4096 };
#define REACTION 1.0  /* s */
#define UNSEEN   85.0 /* m ahead where things may be put */
#define STANDS_S 32   /* s for which a lane stays blocked */
#define EVERY    20.0 /* s between events at unruly = 1 */

const char *dj__event_name(dj__event_kind k) {
  static const char *const names[DJ__N_EVENTS] = {"cut-in",        "hard-brake", "jaywalker",
                                                  "wrong-parking", "red-runner", "oncoming",
                                                  "blocked",       "light-turns"};
  return k >= 0 && k < DJ__N_EVENTS ? names[k] : "?";
}

static float draw(dj__world *w) {
  return dj__u01(dj__philox(w->config.seed, (uint64_t)w->cast.drawn++, DJ__RNG_EVENT).v[0]);
}

/* m that the ego needs to stop. */
static double stopping(const dj__world *w, double v) {
  return REACTION * v + v * v / (2 * 0.6 * 9.81 * w->ego.friction);
}

static int begin(dj__world *w, dj__event_kind kind, int agent, dj__role role) {
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
/* The lane of the route `dist` m ahead of the ego's middle; false beyond its end. */
static bool way_ahead(const dj__world *w, double dist, int *lane, double *s) {
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

/* A plain stretch of road: no junction within `before` and `after` m. */
static bool plain(const dj__world *w, int lane, double s, double before, double after) {
  const dj__lane *l = &w->map->lane[lane];
  return l->type == DJ__LANE_DRIVING && l->junction < 0 && !l->n_conflict && s > before &&
         s < l->length - after;
}

/* m from the ego's front to the rear of whoever is next in its lane; 1e9: nobody near. */
static double leader_of_ego(const dj__world *w, int *who) {
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

static bool is_free_rider(const dj__world *w, int i) {
  return i > 0 && dj__is_rider(&w->agents, i) && dj__is_motor(w->agents.kind[i]) &&
         w->traffic->mind[i].event < 0 && w->traffic->mind[i].role == DJ__ROLE_NONE;
}

/* ---- casting ---- */
static bool cast_cut_in(dj__world *w) {
  const dj__agents *a = &w->agents;
  int lane = a->lane[0];
  if (lane < 0 || w->map->lane[lane].n_conflict) return false;
  const dj__lane *l = &w->map->lane[lane];
  double v = w->ego.vx, half = 0.5 * (double)a->length[0];
  int lead;
  double room = leader_of_ego(w, &lead);
  if (v < 3) return false;
  for (int side = 0; side < 2; side++) {
    int other = side ? l->left : l->right;
    if (other < 0 || w->map->lane[other].n_conflict) continue;
    for (int e = w->traffic->lane_head[other]; e >= 0; e = w->traffic->entry[e].next) {
      const dj__entry *x = &w->traffic->entry[e];
      if (!is_free_rider(w, x->agent) || a->lane[x->agent] != other) continue;
      double share = l->length / w->map->lane[other].length;
      double gap = (double)x->rear * share - (double)a->s[0] - half;
      double slower = fmax(v - (double)x->speed, 0);
      double least = fmax(3, 0.35 * v) + slower * REACTION + slower * slower / (2 * 4);
      double left = w->map->lane[other].length - (double)x->s;
      if (gap < least || gap > least + 18 || slower > 6 || left < 15 + 4 * (double)x->speed)
        continue;
      if (room < gap + (double)a->length[x->agent] + 8) continue;
      (void)begin(w, DJ__EVENT_CUT_IN, x->agent, DJ__ROLE_CUT_IN);
      w->traffic->mind[x->agent].want = side ? -1 : 1;
      w->traffic->mind[x->agent].want_time = 0;
      return true;
    }
  }
  return false;
}

static bool cast_hard_brake(dj__world *w) {
  int lead;
  double gap = leader_of_ego(w, &lead), v = w->ego.vx;
  if (lead < 0 || !is_free_rider(w, lead) || v < 4) return false;
  double vl = (double)w->agents.speed[lead], hard = 0.65 * 9.81 * w->ego.friction;
  if (vl < 5 || gap > 45 || gap + vl * vl / (2 * hard) < stopping(w, v) + 1) return false;
  (void)begin(w, DJ__EVENT_HARD_BRAKE, lead, DJ__ROLE_BRAKE);
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
  double v = w->ego.vx, least = stopping(w, v) + 6, ahead, lateral;
  if (v < 3) return false;
  for (int i = 1; i < a->n; i++) {
    const dj__mind *m = &w->traffic->mind[i];
    if (a->kind[i] != DJ__PEDESTRIAN || !(a->flags[i] & DJ__AGENT_LIVE) || m->event >= 0) continue;
    if (m->gait != DJ__GAIT_WALK && m->gait != DJ__GAIT_STAND) continue;
    double dx = a->x[i] - a->x[0], dy = a->y[i] - a->y[0];
    if (dx * dx + dy * dy > 90 * 90 || !beside_route(w, i, &ahead, &lateral)) continue;
    if (ahead < least || ahead > least + 15 || fabs(lateral) > 11) continue;
    if (!step_out(w, i)) continue;
    (void)begin(w, DJ__EVENT_JAYWALKER, i, DJ__ROLE_NONE);
    return true;
  }
  return false;
}

static bool is_unseen(const dj__world *w, int lane, double s) {
  double x, y;
  dj__lane_xy(w->map, lane, s, 0, &x, &y);
  return w->traffic->toy || hypot(x - w->agents.x[0], y - w->agents.y[0]) > UNSEEN - 4;
}

/* A place that the ego cannot see yet, on a plain stretch of its way, wide enough to get by. */
static bool place_unseen(dj__world *w, int *lane, double *s) {
  double far = UNSEEN + 50 * (double)draw(w);
  if (w->traffic->toy) far = 3 + 2 * (double)draw(w);
  double clear = w->traffic->toy ? 0.8 : 30;
  if (!way_ahead(w, far, lane, s) || !plain(w, *lane, *s, clear, clear)) return false;
  if (!is_unseen(w, *lane, *s)) return false;
  const dj__lane *l = &w->map->lane[*lane];
  return l->left >= 0 || l->right >= 0 || l->opposite >= 0;
}

static int put_vehicle(dj__world *w, int lane, double s, double lateral, dj__kind kind) {
  int i = dj__agent_spare(w->traffic);
  if (i < 0) return -1;
  dj__rng r = {w->config.seed, ((uint64_t)DJ__RNG_EVENT << 32) | w->step, 0};
  dj__agent_dress(w->traffic, i, w->traffic->toy ? DJ__RC_CAR : kind, &r);
  if (!dj__spot_free(w->traffic, i, lane, s, 0)) {
    dj__agent_clear(w->traffic, i);
    return -1;
  }
  dj__agent_put(w->traffic, i, lane, s, lateral, 0);
  return i;
}

static bool cast_blocked(dj__world *w) {
  int lane;
  double s;
  if (!place_unseen(w, &lane, &s)) return false;
  int i = put_vehicle(w, lane, s, -0.2 * (double)w->traffic->mind[0].scale, DJ__CAR);
  if (i < 0) return false;
  (void)begin(w, DJ__EVENT_BLOCKED, i, DJ__ROLE_STAND);
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
  int i = put_vehicle(w, lane, s, lateral, DJ__CAR);
  if (i < 0) return false;
  (void)begin(w, DJ__EVENT_WRONG_PARKING, i, DJ__ROLE_STAND);
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
    if (!is_free_rider(w, i) || m->n_path < 2 || (double)a->speed[i] < 4) continue;
    int stop = map->lane[m->path[0]].stop;
    if (stop < 0 || dj__world_light(w, stop) != DJ__LIGHT_RED) continue;
    double to_line = map->stop[stop].s - (double)a->s[i] - 0.5 * (double)a->length[i];
    if (to_line < 5 || to_line > 60) continue;
    double to_meet = meeting(w, m->path[1]);
    if (to_meet < stopping(w, v) || to_meet > 90) continue;
    double mine = to_meet / v, its = (to_line + 8) / (double)a->speed[i];
    if (its < mine - 4 || its > mine + 2) continue;
    (void)begin(w, DJ__EVENT_RED_RUNNER, i, DJ__ROLE_RUN_RED);
    return true;
  }
  return false;
}

/* Someone who comes towards the ego swings out into its lane and back. */
static bool swings_out(const dj__world *w, int i, int lane, double room) {
  const dj__agents *a = &w->agents;
  const dj__mind *m = &w->traffic->mind[i];
  double v = (double)a->speed[i], closing = w->ego.vx + v;
  if (!is_free_rider(w, i) || a->lane[i] != lane || v < 5) return false;
  double gap = hypot(a->x[i] - a->x[0], a->y[i] - a->y[0]) - 5;
  if (gap < 5 * closing || gap > 8 * closing || room < gap - 10) return false;
  if (m->leader >= 0 && (double)m->leader_gap < 25) return false;
  return w->map->lane[lane].length - (double)a->s[i] > 25 + 5 * v;
}

static bool cast_oncoming(dj__world *w) {
  int lead;
  if (w->ego.vx < 4) return false;
  double room = leader_of_ego(w, &lead);
  for (int k = w->route_at; k < w->route.n && w->route_from[k] < w->route_s + 200; k++) {
    int lane = w->map->lane[w->route.lane[k]].opposite;
    if (lane < 0 || w->map->lane[lane].left >= 0 || w->map->lane[lane].junction >= 0) continue;
    for (int e = w->traffic->lane_head[lane]; e >= 0; e = w->traffic->entry[e].next) {
      int i = w->traffic->entry[e].agent;
      if (!swings_out(w, i, lane, room)) continue;
      (void)begin(w, DJ__EVENT_ONCOMING, i, DJ__ROLE_ONCOMING);
      return true;
    }
  }
  return false;
}

/* The next light of the ego's way: its stop line and m from the ego's front to it. */
static int next_light(const dj__world *w, double *dist) {
  double half = 0.5 * (double)w->agents.length[0];
  for (int k = w->route_at; k < w->route.n; k++) {
    int stop = w->map->lane[w->route.lane[k]].stop;
    if (stop < 0 || w->map->stop[stop].control != DJ__CONTROL_LIGHTS) continue;
    *dist = w->route_from[k] + w->map->stop[stop].s - w->route_s - half;
    if (*dist > 0) return stop;
  }
  return -1;
}

/* Lights do not obey anyone; a light that turns while the ego comes near is only named. */
static void watch_light(dj__world *w) {
  double dist, v = w->ego.vx;
  int stop = next_light(w, &dist);
  if (stop < 0 || stop == w->cast.light || v < 3 || w->n_event >= MAX_EVENTS) return;
  if (dist > 4 * v || dj__world_light(w, stop) != DJ__LIGHT_YELLOW) return;
  if (dj__map_light(w->map, stop, dj__world_time(w) - DJ__WORLD_DT) != DJ__LIGHT_GREEN) return;
  w->cast.light = stop;
  int n = begin(w, DJ__EVENT_LIGHT_TURNS, -1, DJ__ROLE_NONE);
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
  bool back = gap < 3.8 * closing || m->role_time > 4 || l->opposite < 0 ||
              l->length - (double)a->s[i] < 25 + 3 * (double)a->speed[i];
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
  double dx = a->x[i] - a->x[0], dy = a->y[i] - a->y[0], d = hypot(dx, dy);
  bool behind = dx * cos(w->ego.yaw) + dy * sin(w->ego.yaw) < -0.5 * (double)a->length[0] - 3;
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
    if ((behind && d > 15) || d > 400) {
      end_event(w, n);
    } else if (m->role_time > STANDS_S) {
      drive_on(w, n);
    }
  }
}

/* Things put there for an event go when nobody sees them. */
static void tidy(dj__world *w) {
  const dj__agents *a = &w->agents;
  for (int i = w->traffic->first_spare; i < a->n; i++) {
    const dj__mind *m = &w->traffic->mind[i];
    if (!(a->flags[i] & DJ__AGENT_LIVE) || m->event >= 0) continue;
    if (a->kind[i] == DJ__CONE || a->kind[i] == DJ__BARRIER) continue;
    if (hypot(a->x[i] - a->x[0], a->y[i] - a->y[0]) > 160) dj__agent_clear(w->traffic, i);
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

static void due(dj__world *w) {
  if (w->config.unruly <= 0 || w->step < w->cast.next || w->n_event >= MAX_EVENTS) return;
  if (w->step % 4) return; /* five attempts a second are enough */
  int first = (int)(draw(w) * DJ__N_EVENTS);
  for (int k = 0; k < 3; k++) {
    int kind = (first + k) % DJ__N_EVENTS;
    if (!allowed(w, kind) || !CAST[kind](w)) continue;
    double wait = -log(1 - (double)draw(w)) * 0.7 * EVERY / w->config.unruly;
    w->cast.next = w->step + 40 + (uint64_t)(wait / DJ__WORLD_DT);
    return;
  }
}

/* ---- staged: whoever is missing is put where the ego does not see it, and comes ---- */
static void enter_now(dj__world *w, int i) {
  w->traffic->mind[i].still = 0;
  dj__traffic_hash(w->traffic);
}

/* Drives ahead on the lane beside, much slower, until the ego comes near. */
static bool bring_beside(dj__world *w) {
  int lane;
  double s, v = w->ego.vx;
  if (!way_ahead(w, UNSEEN, &lane, &s)) return false;
  const dj__lane *l = &w->map->lane[lane];
  int other = l->left >= 0 ? l->left : l->right;
  if (other < 0 || !plain(w, other, s, 6, 60) || !is_unseen(w, other, s)) return false;
  int i = put_vehicle(w, other, s, 0, DJ__CAR);
  if (i < 0) return false;
  w->agents.speed[i] = (float)(0.6 * v);
  w->traffic->mind[i].v_factor = (float)fmax(0.6 * v / l->speed_limit, 0.3);
  enter_now(w, i);
  return true;
}

/* Drives ahead of the ego, slower, or comes towards it. */
static bool bring_ahead(dj__world *w, bool oncoming) {
  int lane;
  double s;
  if (!way_ahead(w, UNSEEN + (oncoming ? 50 : 5), &lane, &s) || !plain(w, lane, s, 6, 6))
    return false;
  if (oncoming) {
    const dj__lane *l = &w->map->lane[lane];
    if (l->opposite < 0 || w->map->lane[l->opposite].left >= 0) return false;
    s = w->map->lane[l->opposite].length * (1 - s / l->length);
    lane = l->opposite;
  }
  if (!is_unseen(w, lane, s)) return false;
  double limit = w->map->lane[lane].speed_limit;
  int lead; /* nobody between, and way enough to swing out and back */
  if (oncoming && (leader_of_ego(w, &lead) < UNSEEN + 40 || w->ego.vx < 5 ||
                   w->map->lane[lane].length - s < 30 + 5.5 * 0.8 * limit))
    return false;
  int i = put_vehicle(w, lane, s, 0, DJ__CAR);
  if (i < 0) return false;
  double v = oncoming ? 0.8 * limit : fmin(w->ego.vx, limit);
  w->agents.speed[i] = (float)(oncoming ? v : 0.8 * v);
  if (!oncoming) w->traffic->mind[i].v_factor = (float)fmax(0.8 * v / limit, 0.5);
  enter_now(w, i);
  return true;
}

/* Stands beside the road ahead. */
static bool bring_person(dj__world *w) {
  int lane;
  double s, scale = w->traffic->toy ? 0.05 : 1;
  if (!way_ahead(w, UNSEEN * scale, &lane, &s) || !plain(w, lane, s, 4, 4)) return false;
  int i = dj__agent_spare(w->traffic);
  if (i < 0 || w->traffic->toy || !is_unseen(w, lane, s)) return false;
  double f;
  const dj__lane_point *p = dj__lane_at(w->map, lane, s, &f);
  dj__rng r = {w->config.seed, ((uint64_t)DJ__RNG_EVENT << 32) | w->step, 1};
  dj__agent_dress(w->traffic, i, DJ__PEDESTRIAN, &r);
  double out = -((double)p->right + 0.8);
  dj__lane_xy(w->map, lane, s, out, &w->agents.x[i], &w->agents.y[i]);
  w->agents.z[i] = (float)dj__map_height(w->map, w->agents.x[i], w->agents.y[i]);
  w->agents.yaw[i] = p->yaw + 1.5708f; /* looks across the road */
  w->traffic->mind[i].gait = DJ__GAIT_STAND;
  w->traffic->mind[i].v_factor = 1.5f;
  enter_now(w, i);
  return true;
}

/* Comes to the ego's next lights from the side, to be there when the ego is, and does not stop. */
static bool bring_runner(dj__world *w) {
  const dj__map *m = w->map;
  double dist, v = w->ego.vx;
  int stop = next_light(w, &dist), own = -1;
  if (stop < 0 || v < 5 || dist < stopping(w, v) + 10 || dist > 75) return false;
  for (int k = w->route_at; k + 1 < w->route.n; k++)
    if (w->route.lane[k] == m->stop[stop].lane) own = w->route.lane[k + 1];
  if (own < 0) return false;
  double time = dj__world_time(w);
  if (dj__map_light(m, stop, time + dist / v) != DJ__LIGHT_GREEN) return false;
  for (int n = m->lane[own].conflict0; n < m->lane[own].conflict0 + m->lane[own].n_conflict; n++) {
    const dj__conflict *c = &m->conflict[n];
    const dj__lane *cross = &m->lane[c->lane];
    if (c->merge || w->traffic->net->parting[n] || cross->n_pred < 1) continue;
    double fast = fmin(cross->speed_limit, 11), eta = (dist + 4 + c->from) / v;
    double before = fast * eta - c->other_from; /* m before the crossing lane's start */
    int lane = dj__pred(m, c->lane, 0), line = m->lane[lane].stop;
    if (line < 0 || dj__map_light(m, line, time + eta) != DJ__LIGHT_RED) continue;
    double s = m->lane[lane].length - before;
    if (s < 3 && m->lane[lane].n_pred > 0) {
      lane = dj__pred(m, lane, 0);
      s += m->lane[lane].length;
    }
    if (s < 3 || s > m->lane[lane].length - 3 || !is_unseen(w, lane, s)) continue;
    int i = put_vehicle(w, lane, s, 0, DJ__CAR);
    if (i < 0) continue;
    dj__mind *mind = &w->traffic->mind[i];
    mind->n_path = 1; /* towards the crossing lane */
    if (lane != dj__pred(m, c->lane, 0)) mind->path[mind->n_path++] = dj__pred(m, c->lane, 0);
    mind->path[mind->n_path++] = c->lane;
    dj__agent_extend(w->traffic, i);
    w->agents.speed[i] = (float)fast;
    mind->v_factor = (float)(fast / cross->speed_limit);
    (void)begin(w, DJ__EVENT_RED_RUNNER, i, DJ__ROLE_RUN_RED);
    return true;
  }
  return false;
}

/* The lights' clock is set once, while the ego is still far, so that they turn yellow when it can
 * just stop comfortably. */
static bool time_light(dj__world *w, double farthest) {
  double dist, v = fmax(w->ego.vx, 4);
  int stop = next_light(w, &dist);
  if (stop < 0 || dist > farthest) return false;
  const dj__stop_line *l = &w->map->stop[stop];
  double decide = 1.2 * v + v * v / (2 * 3.0), when = fmax((dist - decide) / v, 0.5);
  double cycle = w->map->junction[l->junction].cycle;
  w->config.start_time = l->green1 - when - (double)w->step * DJ__WORLD_DT;
  while (w->config.start_time < 0 && cycle > 0) w->config.start_time += cycle;
  w->traffic->time = dj__world_time(w);
  return true;
}

static bool stage(dj__world *w, dj__event_kind kind) {
  if (kind == DJ__EVENT_LIGHT_TURNS) return time_light(w, 100);
  if (CAST[kind](w)) return true;
  if (kind == DJ__EVENT_RED_RUNNER) return bring_runner(w);
  if (w->cast.actors >= 4 || w->step < w->cast.next_actor) return false;
  bool came = kind == DJ__EVENT_CUT_IN       ? bring_beside(w)
              : kind == DJ__EVENT_HARD_BRAKE ? bring_ahead(w, false)
              : kind == DJ__EVENT_ONCOMING   ? bring_ahead(w, true)
              : kind == DJ__EVENT_JAYWALKER  ? bring_person(w)
                                             : false;
  if (came) w->cast.actors++;
  w->cast.next_actor = w->step + (came ? 200 : 10);
  return false;
}

static void staged(dj__world *w) {
  int kind = w->config.staged.kind;
  if (kind < 0 || w->cast.staged || w->n_event >= MAX_EVENTS) return;
  if ((double)w->step * DJ__WORLD_DT < w->config.staged.after) return;
  if (w->step % 2 == 0) w->cast.staged = stage(w, (dj__event_kind)kind);
}

void dj__events_step(dj__world *w) {
  int first = w->n_event > 64 ? w->n_event - 64 : 0;
  for (int n = first; n < w->n_event; n++)
    if (!w->event[n].end) go_on(w, n);
  if (w->step % 20 == 0) tidy(w);
  if (w->config.unruly > 0 || w->config.staged.kind == DJ__EVENT_LIGHT_TURNS) watch_light(w);
  staged(w);
  due(w);
}

uint64_t dj__events_digest(const dj__world *w, uint64_t h) {
  double row[] = {(double)w->cast.next,  (double)w->cast.staged, (double)w->cast.drawn,
                  (double)w->cast.light, (double)w->cast.actors, (double)w->cast.next_actor,
                  (double)w->n_event};
  return dj__hash64(row, sizeof row, h);
}

void dj__events_prepare(dj__world *w) {
  w->cast.light = -1;
  w->cast.next = (uint64_t)(4 / DJ__WORLD_DT);
}

/* ---- may it happen on a route? ---- */
static bool lane_fits(const dj__map *m, int lane, int kind) {
  const dj__lane *l = &m->lane[lane];
  if (kind == DJ__EVENT_LIGHT_TURNS || kind == DJ__EVENT_RED_RUNNER)
    return l->stop >= 0 && m->stop[l->stop].control == DJ__CONTROL_LIGHTS;
  if (l->junction >= 0 || l->n_conflict) return false;
  switch (kind) {
  case DJ__EVENT_CUT_IN:
    return (l->left >= 0 || l->right >= 0) && l->length > 110;
  case DJ__EVENT_ONCOMING:
    return l->opposite >= 0 && m->lane[l->opposite].left < 0 && l->length > 140;
  case DJ__EVENT_BLOCKED:
  case DJ__EVENT_WRONG_PARKING:
    return l->length > 80 && (l->left >= 0 || l->right >= 0 || l->opposite >= 0);
  default:
    return l->length > 20;
  }
}

bool dj__event_fits(const dj__map *m, const dj__route *r, int kind) {
  double along = -r->start;
  for (int k = 0; k < r->n; k++) {
    const dj__lane *l = &m->lane[r->lane[k]];
    /* the part of the lane that lies 90 m or more ahead of the start */
    if (along + l->length > 150 && lane_fits(m, r->lane[k], kind)) return true;
    bool on = k + 1 == r->n;
    for (int j = 0; j < l->n_succ && k + 1 < r->n; j++)
      on |= dj__succ(m, r->lane[k], j) == r->lane[k + 1];
    if (on) along += l->length;
  }
  return false;
}
