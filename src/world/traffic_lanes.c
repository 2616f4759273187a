/*
 * Lane changes by MOBIL (Kesting, Treiber, Helbing, "General lane-changing model MOBIL for
 * car-following models", Transportation Research Record 1999, 2007): safe for the one behind, and
 * worth it, with politeness and a leaning to the right; and places within a lane: round cyclists,
 * parked cars and cones where there is room, over the middle line where nobody comes.
 */
#include <math.h>

#include "world/traffic.h"

#define B_SAFE    2.0f  /* m/s^2 asked of the one behind; 4 where the lane ends (Kesting: 4) */
#define THRESHOLD 0.2f  /* m/s^2 (Kesting: 0.1) */
#define BIAS      0.25f /* m/s^2 to the right (Kesting: 0.3) */

typedef struct beside { /* on the other lane */
  int ahead, behind;
  float gap_ahead, v_ahead, gap_behind;
} beside;

static void scan(const dj__traffic *t, int i, int lane, float s, float base, beside *b) {
  float half = 0.5f * t->agents.length[i], w = 0.5f * dj__width_at(t->map, lane, (double)s);
  for (int k = t->lane_head[lane]; k >= 0; k = t->entry[k].next) {
    const dj__entry *e = &t->entry[k];
    if (e->agent == i || e->lo > w || e->hi < -w) continue;
    float at = base + e->s - s;
    if (at >= 0) {
      float gap = base + e->rear - s - half;
      if (gap < b->gap_ahead) b->gap_ahead = gap, b->v_ahead = e->speed, b->ahead = e->agent;
    } else {
      float gap = s - half - base - e->front;
      if (gap < b->gap_behind) b->gap_behind = gap, b->behind = e->agent;
    }
  }
}

static beside look_beside(const dj__traffic *t, int i, int lane, float s) {
  const dj__map *m = t->map;
  const dj__lane *l = &m->lane[lane];
  beside b = {-1, -1, 200, 0, 200};
  scan(t, i, lane, s, 0, &b);
  float ahead = (float)l->length, behind = 0;
  for (int n = lane, k = 0; k < 2 && m->lane[n].n_succ > 0; k++) {
    n = dj__succ(m, n, 0);
    scan(t, i, n, s, ahead, &b);
    ahead += (float)m->lane[n].length;
  }
  for (int p = 0; p < l->n_pred && p < 4; p++) {
    int n = dj__pred(m, lane, p);
    behind = -(float)m->lane[n].length;
    scan(t, i, n, s, behind, &b);
    if (m->lane[n].n_pred > 0) {
      int nn = dj__pred(m, n, 0);
      scan(t, i, nn, s, behind - (float)m->lane[nn].length, &b);
    }
  }
  return b;
}

static float follower_accel(const dj__traffic *t, int f, float gap, float v_lead) {
  const dj__agents *a = &t->agents;
  const dj__mind *m = &t->mind[f];
  float free = dj__idm_free(m, a->speed[f], fmaxf(m->v_free, 1));
  return fminf(free, dj__idm_follow(m, a->speed[f], gap, v_lead, m->gap));
}

static bool is_safe(const dj__traffic *t, int i, const beside *b, float b_safe) {
  const dj__mind *m = &t->mind[i];
  float v = t->agents.speed[i], least = m->gap * 0.5f + 0.3f * m->scale;
  if (b->gap_ahead < least || b->gap_behind < least) return false;
  if (b->ahead >= 0 && dj__idm_follow(m, v, b->gap_ahead, b->v_ahead, m->gap) < -b_safe)
    return false;
  if (b->behind < 0) return true;
  const dj__mind *f = &t->mind[b->behind];
  dj__mind model = *f;
  if (dj__is_external(t, b->behind)) model.accel = 1.5f, model.brake = 2, model.gap_time = 1.5f;
  float back = dj__idm_follow(&model, t->agents.speed[b->behind], b->gap_behind, v, 1.5f);
  return back > -b_safe;
}

/* Whoever cuts in asks less: the one behind can brake with 5 m/s^2 after 0.7 s. */
static bool is_bold(const dj__traffic *t, int i, const beside *b) {
  const dj__mind *m = &t->mind[i];
  float v = t->agents.speed[i], least = m->gap * 0.5f + 0.3f * m->scale;
  if (b->gap_ahead < least || b->gap_behind < least) return false;
  if (b->ahead >= 0 && dj__idm_follow(m, v, b->gap_ahead, b->v_ahead, m->gap) < -5) return false;
  if (b->behind < 0) return true;
  float back = t->agents.speed[b->behind], closing = fmaxf(back - v, 0);
  return b->gap_behind > 0.25f * back + 0.7f * closing + closing * closing / (2 * 5);
}

/* MOBIL's incentive (equation 8 of the paper). */
static float incentive(const dj__traffic *t, int i, int lane, const beside *b) {
  const dj__mind *m = &t->mind[i];
  const dj__agents *a = &t->agents;
  float v = a->speed[i], limit = (float)t->map->lane[lane].speed_limit * m->v_factor;
  float now = dj__idm_free(m, v, m->v_free),
        then = dj__idm_free(m, v, fminf(m->v_free * 1.2f, limit));
  if (m->leader >= 0)
    now = fminf(now, dj__idm_follow(m, v, m->leader_gap, a->speed[m->leader], m->gap));
  if (b->ahead >= 0) then = fminf(then, dj__idm_follow(m, v, b->gap_ahead, b->v_ahead, m->gap));
  float others = 0;
  if (b->behind >= 0) {
    float gap = b->gap_behind + b->gap_ahead + a->length[i];
    float had = b->ahead >= 0 ? follower_accel(t, b->behind, gap, b->v_ahead)
                              : follower_accel(t, b->behind, 200, 30);
    others = follower_accel(t, b->behind, b->gap_behind, v) - had;
  }
  return then - now + m->polite * others;
}

static float share_s(const dj__traffic *t, int i, int lane) {
  const dj__map *m = t->map;
  return (float)((double)t->agents.s[i] * m->lane[lane].length / m->lane[t->agents.lane[i]].length);
}

static bool goes_on(const dj__map *m, int lane) {
  for (int k = 0; k < m->lane[lane].n_succ; k++)
    if (m->lane[dj__succ(m, lane, k)].type == DJ__LANE_DRIVING) return true;
  return false;
}

static void change(dj__traffic *t, int i, int dir) {
  dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  const dj__map *map = t->map;
  int from = a->lane[i], to = dir > 0 ? map->lane[from].left : map->lane[from].right;
  double s, lateral; /* it stays where it is: in bends lanes do not run evenly beside each other */
  (void)dj__map_project(map, to, a->x[i], a->y[i], (double)share_s(t, i, to), &s, &lateral);
  a->lane[i] = to;
  a->s[i] = dj__clampf((float)s, 0, (float)map->lane[to].length);
  a->t[i] = (float)lateral;
  m->t_goal = m->t_rest;
  m->path[0] = to;
  m->n_path = 1;
  m->behind = map->lane[to].n_pred > 0 ? dj__pred(map, to, 0) : -1;
  dj__agent_extend(t, i);
  m->want_time = -1; /* under way */
}

/* The lane is left before it ends, or before the way it leads to. */
static float left_of_lane(const dj__traffic *t, int i) {
  return (float)t->map->lane[t->agents.lane[i]].length - t->agents.s[i];
}

/* Whoever is ahead will not move. */
static bool blocked(const dj__traffic *t, int i) {
  int j = t->mind[i].leader;
  const uint8_t still = DJ__AGENT_STATIC | DJ__AGENT_PARKED;
  return j >= 0 && (t->agents.flags[j] & still) != 0;
}

bool dj__must_leave(const dj__traffic *t, int i) {
  return !goes_on(t->map, t->agents.lane[i]) || blocked(t, i);
}

static void think(dj__traffic *t, int i) {
  dj__mind *m = &t->mind[i];
  const dj__agents *a = &t->agents;
  const dj__map *map = t->map;
  const dj__lane *l = &map->lane[a->lane[i]];
  float v = a->speed[i], best = THRESHOLD, left = left_of_lane(t, i);
  bool ends = dj__must_leave(t, i), bike = a->kind[i] == DJ__CYCLIST;
  bool junction = m->n_path > 1 && map->lane[m->path[1]].n_conflict;
  if (!ends && left < (junction ? 25 * m->scale + 3 * v : 10 * m->scale + 2 * v)) return;
  for (int dir = -1; dir <= 1; dir += 2) {
    int lane = dir > 0 ? l->left : l->right;
    if (lane < 0 || !(dir > 0 ? l->change_left : l->change_right)) continue;
    if (map->lane[lane].type != DJ__LANE_DRIVING) continue;
    if (!goes_on(map, lane) || (bike && dir > 0 && !ends)) continue;
    beside b = look_beside(t, i, lane, share_s(t, i, lane));
    bool safe = is_safe(t, i, &b, ends ? 4.0f : B_SAFE);
    if (!safe && !ends) continue;
    float gain = incentive(t, i, lane, &b) - (float)dir * BIAS + (ends ? 10 : 0);
    if (!safe) gain = best + 1e-3f; /* signals, and waits to be let in, if there is no other way */
    if (gain > best) best = safe ? gain : best, m->want = dir, m->want_time = 0;
  }
}

static void pursue(dj__traffic *t, int i) {
  dj__mind *m = &t->mind[i];
  const dj__map *map = t->map;
  const dj__lane *l = &map->lane[t->agents.lane[i]];
  int lane = m->want > 0 ? l->left : l->right;
  bool rude = m->role == DJ__ROLE_CUT_IN;
  bool ends = dj__must_leave(t, i);
  m->want_time += (float)DJ__WORLD_DT;
  if (lane < 0 || l->n_conflict || m->want_time > (ends ? 30 : 8)) {
    m->want = 0;
    m->calm = 1;
    return;
  }
  if (m->want_time < (rude ? 0.3f : 1.2f)) return;
  beside b = look_beside(t, i, lane, share_s(t, i, lane));
  if (rude ? is_bold(t, i, &b) : is_safe(t, i, &b, ends ? 4 : B_SAFE)) change(t, i, m->want);
}

/* ---- places within the lane ---- */
/* Nobody comes on the oncoming lane `lane` for `time` s; `near`, `far`: the stretch of it that is
 * needed, s of this lane's own direction. */
static bool oncoming_free(const dj__traffic *t, int i, int lane, float near, float far, float time,
                          int depth) {
  const dj__map *map = t->map;
  for (int k = t->lane_head[lane]; k >= 0; k = t->entry[k].next) {
    const dj__entry *e = &t->entry[k];
    if (e->agent == i || e->rear > far + 3) continue;
    if (e->front + (fmaxf(e->speed, 0) + 1.5f) * time > near - 5) return false;
  }
  float reach = near - 25 * time;
  if (reach > 0 || depth > 3) return true;
  for (int p = 0; p < map->lane[lane].n_pred; p++) {
    int before = dj__pred(map, lane, p);
    float length = (float)map->lane[before].length;
    if (!oncoming_free(t, i, before, near + length, far + length, time, depth + 1)) return false;
  }
  return true;
}

typedef struct obstacle {
  float lo, hi, rear, front, speed;
  bool alive;
} obstacle;

/* May the box go so far to the left (goal: of its middle)? */
static bool left_allowed(dj__traffic *t, int i, float goal, const obstacle *o) {
  const dj__map *map = t->map;
  const dj__agents *a = &t->agents;
  const dj__mind *m = &t->mind[i];
  const dj__lane *l = &map->lane[a->lane[i]];
  float half = 0.5f * dj__width_at(map, a->lane[i], (double)a->s[i]);
  float over = goal + 0.5f * a->width[i] - half, v = fmaxf(a->speed[i], 4 * m->scale);
  if (over < 0.05f * m->scale) return true;
  if (l->left >= 0) { /* same direction: only beside nobody */
    beside b = look_beside(t, i, l->left, share_s(t, i, l->left));
    return is_safe(t, i, &b, B_SAFE);
  }
  if (l->opposite < 0 || over > half * 2) return false;
  bool already = a->t[i] > 0.5f * goal;
  float way = o->front - a->s[i] + a->length[i] + (already ? 4 : 12) * m->scale;
  float relative = fmaxf(v - fmaxf(o->speed, 0), 1.5f * m->scale);
  float time = dj__travel_time(way, fmaxf(a->speed[i] - o->speed, 0), 1, relative);
  float end = a->s[i] + a->length[i] + fmaxf(v, o->speed) * time;
  if (!already) time += 1.5f;
  if (end > (float)l->length - 5 * m->scale && !already) return false;
  float share = (float)(map->lane[l->opposite].length / l->length);
  float far = (float)(map->lane[l->opposite].length) - (a->s[i] - a->length[i]) * share;
  float near = (float)(map->lane[l->opposite].length) - end * share;
  if (already && a->s[i] + 0.5f * a->length[i] > o->rear - 0.5f) return true; /* beside it */
  return oncoming_free(t, i, l->opposite, near, far, time, 0);
}

/* m from its middle to the next junction lane on its way. */
static float junction_ahead(const dj__traffic *t, int i) {
  const dj__mind *m = &t->mind[i];
  const dj__map *map = t->map;
  float base = -t->agents.s[i];
  for (int k = 0; k < m->n_path && base < 100; k++) {
    if (map->lane[m->path[k]].n_conflict || map->lane[m->path[k]].junction >= 0) return base;
    base += (float)map->lane[m->path[k]].length;
  }
  return 1e9f;
}

/* Rides in the lane's middle through junctions, at the edge elsewhere. */
static float rest_place(const dj__traffic *t, int i) {
  int lane = t->agents.lane[i];
  if (t->agents.kind[i] != DJ__CYCLIST) return t->mind[i].t_rest;
  if (t->map->lane[lane].junction >= 0 || junction_ahead(t, i) < 25) return 0;
  return t->net->bike_t[lane];
}

static bool side_free_on(const dj__traffic *t, int i, int lane, float base, float lo, float hi) {
  const dj__agents *a = &t->agents;
  float half = 0.5f * a->length[i];
  for (int k = t->lane_head[lane]; k >= 0; k = t->entry[k].next) {
    const dj__entry *e = &t->entry[k];
    if (e->agent == i || e->lo > hi || e->hi < lo) continue;
    float closing = fmaxf(e->speed - a->speed[i], 0), s = base + e->s;
    float safe = 0.6f + closing * closing / 3 + closing;
    if (s < 0 && base + e->front + safe > -half) return false;
    if (s >= 0 && base + e->rear < half + 0.5f) return false;
  }
  return true;
}

/* Nobody beside or close behind within the sideways stretch that a shift would newly take. */
static bool side_free(const dj__traffic *t, int i, float goal) {
  const dj__agents *a = &t->agents;
  const dj__map *m = t->map;
  int lane = a->lane[i];
  float side = 0.5f * a->width[i] + 0.25f * t->mind[i].scale, at = a->s[i];
  float lo = fminf(goal, a->t[i]) - side, hi = fmaxf(goal, a->t[i]) + side;
  if (fabsf(goal - a->t[i]) < 0.1f) return true;
  if (!side_free_on(t, i, lane, -at, lo, hi)) return false;
  for (int p = 0; p < m->lane[lane].n_pred && at < 40; p++) {
    int before = dj__pred(m, lane, p);
    if (!side_free_on(t, i, before, -at - (float)m->lane[before].length, lo, hi)) return false;
  }
  return true;
}

static void place(dj__traffic *t, int i) {
  dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  const dj__lane *l = &t->map->lane[a->lane[i]];
  float goal = rest_place(t, i), side = 0.5f * a->width[i], v = fmaxf(a->speed[i], 0);
  float far = a->s[i] + fmaxf(20 * m->scale, 4 * v);
  float half_lane = 0.5f * dj__width_at(t->map, a->lane[i], (double)a->s[i]);
  float junction = junction_ahead(t, i);
  if (l->junction < 0 && m->want_time >= 0 && m->back <= 0)
    for (int k = t->lane_head[a->lane[i]]; k >= 0; k = t->entry[k].next) {
      const dj__entry *e = &t->entry[k];
      const uint8_t still = DJ__AGENT_STATIC | DJ__AGENT_PARKED;
      if (e->agent == i || e->front < a->s[i] - 0.5f * a->length[i] - 1.5f * m->scale) continue;
      if (e->rear > far) break;
      bool slow = (a->flags[e->agent] & still) || t->mind[e->agent].role == DJ__ROLE_STAND ||
                  (a->kind[e->agent] == DJ__CYCLIST && a->kind[i] != DJ__CYCLIST &&
                   e->speed < 0.7f * m->v_free && e->speed > 1.5f && junction > 60 &&
                   e->lo < -0.2f * half_lane);
      if (!slow) continue;
      float clear = (a->kind[e->agent] == DJ__CYCLIST ? 0.9f : 0.5f) * m->scale;
      if (e->lo > goal + side + clear || e->hi < goal - side - clear) continue;
      obstacle o = {e->lo, e->hi, e->rear, e->front, e->speed, true};
      float right = e->lo - side - clear, left = e->hi + side + clear;
      if (right > side - half_lane)
        goal = right;
      else if (left_allowed(t, i, left, &o))
        goal = left;
    }
  m->merges = a->kind[i] == DJ__CYCLIST && junction < 25 && fabsf(a->t[i]) > 0.6f;
  if (side_free(t, i, goal))
    m->t_goal = goal;
  else if (!side_free(t, i, m->t_goal))
    m->t_goal = a->t[i]; /* stays where it is until there is room */
}

void dj__lanes_decide(dj__traffic *t, int i) {
  dj__mind *m = &t->mind[i];
  if (m->role == DJ__ROLE_CUT_IN && m->want_time < 0) { /* waits for nobody */
    m->t_goal = m->t_rest;
    return;
  }
  if (m->role == DJ__ROLE_ONCOMING) return; /* its place is the event's */
  place(t, i);
  if (m->want_time < 0) return;
  if (m->want) {
    pursue(t, i);
    return;
  }
  m->calm -= (float)DJ__WORLD_DT;
  const dj__lane *l = &t->map->lane[t->agents.lane[i]];
  if (m->calm > 0 || (l->left < 0 && l->right < 0) || l->n_conflict) return;
  if (m->role == DJ__ROLE_STAND) return;
  m->calm = 0.8f;
  think(t, i);
}

void dj__lateral_move(dj__traffic *t, int i) {
  dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  const float dt = (float)DJ__WORLD_DT;
  float v = fabsf(a->speed[i]), most = fminf(1.3f * m->scale, 0.35f * v);
  if (a->kind[i] == DJ__CYCLIST) most = fmaxf(most, 0.4f); /* shuffles */
  float rate = dj__clampf(0.9f * (m->t_goal - a->t[i]), -most, most);
  float step = 1.6f * dt * m->scale;
  m->t_rate += dj__clampf(rate - m->t_rate, -step, step);
  if (v < 0.05f && a->kind[i] != DJ__CYCLIST) m->t_rate = 0;
  a->t[i] += m->t_rate * dt;
  if (m->want_time < 0 && fabsf(a->t[i] - m->t_goal) < 0.4f * m->scale) {
    m->want = 0;
    m->want_time = 0;
    m->calm = 3;
  }
}
