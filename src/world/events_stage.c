/*
 * Whoever is missing for an event is put where the ego does not see it, and comes; for staged
 * events also before the world begins, when nothing has been seen yet. The lights of a staged light
 * event are held at the end of their green while the ego comes near.
 */
#include <math.h>

#include "world/events.h"

#define HELD_S 60.0 /* s at most that lights are held */

enum { ACTOR_STEPS = 800, AGAIN = 160 }; /* that one may try to cut in; until the next one comes */

static void enter_now(dj__world *w, int i) {
  w->traffic->mind[i].still = 0;
  dj__traffic_hash(w->traffic);
}

/* ---- cut-in ---- */
static bool on_route(const dj__world *w, int lane) {
  for (int k = 0; k < w->route.n; k++)
    if (w->route.lane[k] == lane) return true;
  return false;
}

/* Someone on the lane beside, `ahead` m from the ego, at the ego's speed less `slower`, with
 * `after` m of road on which he may cut in. */
static bool put_beside(dj__world *w, double ahead, double slower, double after) {
  int lane;
  double s, v = w->ego.vx;
  if (!dj__way_ahead(w, ahead, &lane, &s)) return false;
  const dj__lane *l = &w->map->lane[lane];
  for (int side = 0; side < 2; side++) {
    int other = side ? l->right : l->left;
    if (other < 0 || w->map->lane[other].type != DJ__LANE_DRIVING || on_route(w, other)) continue;
    double so = s / l->length * w->map->lane[other].length;
    if (dj__plain_ahead(w, other, so, true) < after || !dj__is_unseen(w, other, so)) continue;
    int i = dj__event_vehicle(w, other, so, 0, fmax(v - slower, 0.6 * v));
    if (i < 0) continue;
    w->cast.actor = i;
    w->traffic->mind[i].calm = 1;
    enter_now(w, i);
    return true;
  }
  return false;
}

static bool on_ego_way(const dj__world *w, int i) {
  const dj__mind *m = &w->traffic->mind[0];
  for (int k = 0; k < m->n_path; k++)
    if (m->path[k] == w->agents.lane[i]) return true;
  return false;
}

/* Keeps a little ahead of the ego until there is a chance. */
static void accompany(dj__world *w) {
  int i = w->cast.actor, lead;
  if (i < 0) return;
  const dj__agents *a = &w->agents;
  dj__mind *m = &w->traffic->mind[i];
  double dx = a->x[i] - a->x[0], dy = a->y[i] - a->y[0], v = w->ego.vx;
  double gap =
      dx * cos(w->ego.yaw) + dy * sin(w->ego.yaw) - 0.5 * (double)(a->length[0] + a->length[i]);
  bool over = w->step > w->cast.actor_until || gap < -20 || gap > 130 || on_ego_way(w, i);
  if (!dj__is_free_rider(w, i) || over) { /* done, or not where it was */
    w->cast.actor = -1;
    m->v_factor = dj__clampf(m->v_factor, 0.85f, 1.15f);
    return;
  }
  double least = dj__cut_in_gap(v, (double)a->speed[i]), room = dj__ego_leader(w, &lead);
  double best = fmax(least + 2, fmin(least + 8, room - 10 - 0.75 * v));
  double want = v + 0.25 * (best - gap);
  want = fmin(fmax(want, v - fmin(5, 0.45 * v)), v + 4);
  want += 1.5 * fmax(want - (double)a->speed[i], 0); /* the model nears what it wants slowly */
  m->calm = 1;                                       /* stays in its lane */
  m->accel = fmaxf(m->accel, 1.8f);
  double limit = w->map->lane[a->lane[i]].speed_limit;
  m->v_factor = dj__clampf((float)(fmax(want, 2) / limit), 0.2f, 1.3f);
}

/* Where a car could stand at the right edge of a lane, on its parking lane where there is one. */
static double edge_of(const dj__world *w, int lane, double s) {
  const dj__map *m = w->map;
  double x, y, f, to_s, to_t, lateral = -(0.5 * (double)dj__width_at(m, lane, s) + 0.6);
  dj__lane_xy(m, lane, s, lateral - 0.5, &x, &y);
  int park = dj__map_nearest(m, x, y, (double)dj__lane_at(m, lane, s, &f)->yaw,
                             1u << DJ__LANE_PARKING, 2.5, &to_s, &to_t);
  if (park < 0) return lateral;
  dj__lane_xy(m, park, to_s, 0, &x, &y);
  (void)dj__map_project(m, lane, x, y, s, &to_s, &lateral);
  return lateral;
}

/* Nobody parks within `reach` m. */
static bool edge_free(const dj__world *w, int lane, double s, double lateral, double reach) {
  double x, y;
  dj__lane_xy(w->map, lane, s, lateral, &x, &y);
  int near[32], n = dj__world_near(w, x, y, reach, near, 32);
  for (int k = 0; k < n; k++)
    if (w->agents.flags[near[k]] & (DJ__AGENT_PARKED | DJ__AGENT_STATIC)) return false;
  return true;
}

/* A car at the edge of the ego's road, `first` m ahead or more, that pulls out when the ego comes;
 * `aside`: only where nobody has to go round it. */
static bool put_at_edge(dj__world *w, double first, bool aside) {
  int lane;
  double s;
  for (int k = 0; k < 20 && dj__way_ahead(w, first + 6 * k, &lane, &s); k++) {
    const dj__lane *l = &w->map->lane[lane];
    if (!dj__way_plain(w, lane, s, 9, 31) || l->zone >= DJ__ZONE_MOTORWAY) continue;
    if (l->right >= 0 && w->map->lane[l->right].type == DJ__LANE_DRIVING) continue;
    double lateral = edge_of(w, lane, s);
    if (aside && lateral > -(0.5 * (double)dj__width_at(w->map, lane, s) + 0.95)) continue;
    if (!dj__is_unseen(w, lane, s) || !edge_free(w, lane, s, lateral, 16)) continue;
    int i = dj__event_vehicle(w, lane, s, lateral, 0);
    if (i < 0) continue;
    w->agents.flags[i] |= DJ__AGENT_PARKED;
    enter_now(w, i);
    return true;
  }
  return false;
}

static bool bring_cut_in(dj__world *w) {
  double v = w->ego.vx, ahead = DJ__UNSEEN + 1 + 25 * (double)dj__event_draw(w);
  if (w->cast.actor >= 0) return false;
  w->cast.actor_until = w->step + ACTOR_STEPS;
  return dj__cut_in_actor(w) || put_beside(w, ahead, 5, 60 + 8 * v) ||
         put_at_edge(w, fmax(DJ__UNSEEN, dj__ego_stopping(w, v) + 20),
                     w->config.staged.kind != DJ__EVENT_CUT_IN || w->cast.staged);
}

/* ---- ahead ---- */
/* Drives ahead of the ego, slower. */
static bool bring_leader(dj__world *w) {
  int lane;
  double s;
  if (!dj__way_ahead(w, DJ__UNSEEN + 5, &lane, &s) || !dj__way_plain(w, lane, s, 6, 6))
    return false;
  if (!dj__is_unseen(w, lane, s)) return false;
  double limit = w->map->lane[lane].speed_limit, v = fmin(w->ego.vx, limit);
  int i = dj__event_vehicle(w, lane, s, 0, 0.8 * v);
  if (i < 0) return false;
  w->traffic->mind[i].v_factor = (float)fmax(0.8 * v / limit, 0.5);
  enter_now(w, i);
  return true;
}

/* Nobody on the lane between s and the place `ahead` m on. */
static bool lane_free(const dj__world *w, int lane, double s, double ahead) {
  for (int e = w->traffic->lane_head[lane]; e >= 0; e = w->traffic->entry[e].next) {
    const dj__entry *x = &w->traffic->entry[e];
    if ((double)x->front > s - 12 && (double)x->rear < s + ahead) return false;
  }
  return true;
}

/* Comes towards the ego on a stretch that is long enough to swing out and back, and does so: as
 * fast as it has to be for that to begin 6 s before they would meet. */
static bool bring_oncoming(dj__world *w) {
  int lane, lead;
  double s, v = w->ego.vx, room = dj__ego_leader(w, &lead);
  if (v < 4 || w->traffic->toy) return false;
  for (int k = 0; DJ__UNSEEN + 5 * k < 165 && dj__way_ahead(w, DJ__UNSEEN + 5 * k, &lane, &s);
       k++) {
    const double d = DJ__UNSEEN + 5 * k, gap = d - 5;
    const dj__lane *l = &w->map->lane[lane];
    if (room < gap + 12 || l->opposite < 0 || !dj__way_plain(w, lane, s, 0, 2)) continue;
    const dj__lane *o = &w->map->lane[l->opposite];
    double so = o->length * (1 - s / l->length);
    double fast = fmin(fmax(gap / 6 - v, 5.2), 0.95 * o->speed_limit), closing = v + fast;
    if (o->left >= 0 || so < 2 || dj__plain_ahead(w, l->opposite, so, false) < 12 + 5.5 * fast)
      continue;
    if (gap < 5 * closing || gap > 8.5 * closing) continue;
    if (!dj__is_unseen(w, l->opposite, so) || !lane_free(w, l->opposite, so, 35)) continue;
    int i = dj__event_vehicle(w, l->opposite, so, 0, fast);
    if (i < 0) continue;
    w->traffic->mind[i].v_factor = (float)(fast / o->speed_limit);
    enter_now(w, i);
    (void)dj__event_begin(w, DJ__EVENT_ONCOMING, i, DJ__ROLE_ONCOMING);
    return true;
  }
  return false;
}

/* Stands beside the road ahead. */
static bool bring_person(dj__world *w) {
  int lane;
  double s, scale = w->traffic->toy ? 0.05 : 1;
  if (!dj__way_ahead(w, DJ__UNSEEN * scale, &lane, &s) || !dj__way_plain(w, lane, s, 4, 4))
    return false;
  int i = dj__agent_spare(w->traffic);
  if (i < 0 || w->traffic->toy || !dj__is_unseen(w, lane, s)) return false;
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

/* ---- lights ---- */
/* Comes to the ego's next lights from the side, to be there when the ego is, and does not stop. */
static bool bring_runner(dj__world *w) {
  const dj__map *m = w->map;
  double dist, v = w->ego.vx;
  int stop = dj__next_light(w, 0, &dist), own = -1;
  if (stop < 0 || v < 5 || dist < dj__ego_stopping(w, v) + 10 || dist > 75) return false;
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
    if (s < 3 || s > m->lane[lane].length - 3 || !dj__is_unseen(w, lane, s)) continue;
    int last = dj__pred(m, c->lane, 0); /* nobody stands before the line */
    if (!lane_free(w, lane, s, m->lane[lane].length) ||
        (lane != last && !lane_free(w, last, 0, m->lane[last].length)))
      continue;
    int i = dj__event_vehicle(w, lane, s, 0, fast);
    if (i < 0) continue;
    dj__mind *mind = &w->traffic->mind[i];
    mind->n_path = 1; /* towards the crossing lane */
    if (lane != last) mind->path[mind->n_path++] = last;
    mind->path[mind->n_path++] = c->lane;
    dj__agent_extend(w->traffic, i);
    mind->v_factor = (float)(fast / cross->speed_limit);
    (void)dj__event_begin(w, DJ__EVENT_RED_RUNNER, i, DJ__ROLE_RUN_RED);
    return true;
  }
  return false;
}

/* Sets the lights' clock to where the green of a stop line is about to end. */
static void set_clock(dj__world *w, int stop) {
  double now = (double)w->step * DJ__WORLD_DT;
  double cycle = w->map->junction[w->map->stop[stop].junction].cycle;
  for (int k = 0; k * DJ__WORLD_DT < cycle; k++) {
    const double t = k * DJ__WORLD_DT;
    if (dj__map_light(w->map, stop, t) == DJ__LIGHT_GREEN &&
        dj__map_light(w->map, stop, t + 0.3) != DJ__LIGHT_GREEN) {
      w->config.start_time = t - now;
      while (w->config.start_time < HELD_S) w->config.start_time += cycle;
      w->traffic->time = dj__world_time(w);
      return;
    }
  }
}

/* While the ego comes near, its next light stays green as a demand-actuated one does; it turns when
 * the ego can just stop comfortably (1.2 s, 3 m/s^2). */
static bool turn_light(dj__world *w) {
  double dist, v = w->ego.vx, time = dj__world_time(w);
  int stop = dj__next_light(w, 0, &dist);
  if (stop < 0) return false;
  if (dj__map_light(w->map, stop, time) != DJ__LIGHT_GREEN) {
    if (dist > DJ__UNSEEN + 10) set_clock(w, stop);
    return false;
  }
  if (dj__map_light(w->map, stop, time + 0.3) == DJ__LIGHT_GREEN) return false;
  bool near = v > 2.5 && dist < 1.2 * v + v * v / 6 + 1 && dist > 0.8 * v + v * v / 9;
  if (near && time - w->config.start_time >= w->config.staged.after) return true;
  if (w->cast.held * DJ__WORLD_DT < HELD_S) {
    w->cast.held++;
    w->config.start_time -= DJ__WORLD_DT;
  }
  return false;
}

/* ---- what the world calls ---- */
bool dj__event_bring(dj__world *w, dj__event_kind kind) {
  bool came = false;
  if (w->step < w->cast.next_actor) return false;
  if (kind == DJ__EVENT_CUT_IN) came = bring_cut_in(w);
  if (kind == DJ__EVENT_HARD_BRAKE) came = bring_leader(w);
  if (kind == DJ__EVENT_JAYWALKER) came = bring_person(w);
  if (kind == DJ__EVENT_RED_RUNNER) came = bring_runner(w);
  if (kind == DJ__EVENT_ONCOMING) came = bring_oncoming(w);
  w->cast.next_actor = w->step + (came ? AGAIN : 4);
  return came;
}

/* At the start nobody has been seen yet: who will cut in is there already, beside the ego, and at
 * the edge further on. */
static void put_cutters(dj__world *w) {
  const double v = w->ego.vx, limit = w->map->lane[w->route.lane[0]].speed_limit;
  w->cast.actor_until = w->step + ACTOR_STEPS;
  (void)put_beside(w, 26, 0, w->config.staged.after * v + 12 + 3.5 * v);
  (void)put_at_edge(w, w->config.staged.after * limit + dj__ego_stopping(w, limit) + 20, false);
}

void dj__events_stage_prepare(dj__world *w) {
  int kind = w->config.staged.kind;
  double dist;
  if (kind == DJ__EVENT_CUT_IN) put_cutters(w);
  if (kind != DJ__EVENT_LIGHT_TURNS) return;
  int stop = dj__next_light(w, 40, &dist);
  if (stop >= 0) set_clock(w, stop);
}

/* ---- the way is kept clear ---- */
/* Is rider i on the ego's way ahead, or about to come on to it? */
static bool comes_between(const dj__world *w, int i) {
  const dj__agents *a = &w->agents;
  const dj__mind *m = &w->traffic->mind[i];
  for (int k = w->route_at; k < w->route.n && w->route_from[k] < w->route_s + 220; k++) {
    int lane = w->route.lane[k];
    if (a->lane[i] == lane) return w->route_from[k] + (double)a->s[i] > w->route_s;
    for (int p = 1; p < m->n_path; p++)
      if (m->path[p] == lane && w->route_from[k] > w->route_s) return true;
  }
  return false;
}

/* Who parks within m of somebody put at the edge would be in his way. */
static bool beside_edge_car(const dj__world *w, int i) {
  const dj__agents *a = &w->agents;
  for (int j = w->traffic->first_spare; j < a->n; j++)
    if ((a->flags[j] & DJ__AGENT_PARKED) && hypot(a->x[i] - a->x[j], a->y[i] - a->y[j]) < 16)
      return true;
  return false;
}

void dj__events_clear(dj__world *w) {
  int kind = w->config.staged.kind;
  const dj__agents *a = &w->agents;
  if (kind != DJ__EVENT_ONCOMING && kind != DJ__EVENT_CUT_IN && kind != DJ__EVENT_LIGHT_TURNS)
    return;
  for (int i = 1; i < w->traffic->first_spare; i++) {
    if (!(a->flags[i] & DJ__AGENT_LIVE) || w->traffic->mind[i].event >= 0) continue;
    if (w->step > 0 && hypot(a->x[i] - a->x[0], a->y[i] - a->y[0]) < DJ__UNSEEN - 5) continue;
    bool parked = kind == DJ__EVENT_CUT_IN && (a->flags[i] & DJ__AGENT_PARKED);
    if (!(dj__is_rider(a, i) ? comes_between(w, i) : parked && beside_edge_car(w, i))) continue;
    uint8_t is = a->kind[i]; /* the slot is filled again, out of sight */
    dj__agent_clear(w->traffic, i);
    a->kind[i] = is;
  }
}

static bool has_begun(const dj__world *w, int kind) {
  for (int e = w->n_event - 1; e >= 0; e--)
    if ((int)w->event[e].kind == kind &&
        (double)w->event[e].start * DJ__WORLD_DT >= w->config.staged.after)
      return true;
  return false;
}

void dj__events_stage(dj__world *w) {
  int kind = w->config.staged.kind;
  accompany(w);
  if (kind < 0 || w->cast.staged || w->n_event >= DJ__MAX_EVENTS) return;
  double over = (double)w->step * DJ__WORLD_DT - w->config.staged.after;
  if (over < DJ__STAGE_S) dj__events_clear(w);
  if (kind == DJ__EVENT_LIGHT_TURNS) {
    w->cast.staged = turn_light(w) || has_begun(w, kind);
    return;
  }
  if (over < 0 || w->step % 2) return;
  if (!dj__event_cast(w, (dj__event_kind)kind) && w->cast.actors < 8)
    w->cast.actors += dj__event_bring(w, (dj__event_kind)kind);
  w->cast.staged = has_begun(w, kind);
}
