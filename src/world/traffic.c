/*
 * The frame of a step of traffic: lists of who is where, what everyone plans, motion along lanes.
 * The models are in traffic_idm.c, traffic_lanes.c and traffic_junctions.c.
 *
 * Positions on lanes are of the box's middle. A box that juts out of its lane, to the side or
 * behind, is entered in those lanes, too. Agents decide in the order of their slots and see the
 * state at the step's start, but for rights to pass junctions, which are given one by one: that is
 * what keeps two from taking the same place.
 */
#include <math.h>
#include <string.h>

#include "world/traffic.h"

#define SWING_M 4.5f /* m more than usual behind what stands: room to swing out */
#define MEET_M  6.0f /* ... before who comes towards it in its lane: room to swing back */

/* ---- lists ---- */
static void touch(dj__traffic *t, int lane) {
  if (t->lane_head[lane] < 0 && t->intent_head[lane] < 0) t->touched[t->n_touched++] = lane;
}

static void enter(dj__traffic *t, int i, int lane, double s, double lateral, float speed) {
  if (t->n_entry >= t->max_entry || lane < 0) return;
  touch(t, lane);
  const dj__agents *a = &t->agents;
  float half = 0.5f * a->length[i], side = 0.5f * a->width[i];
  float slant = fabsf(t->mind[i].t_rate) / fmaxf(a->speed[i], 2 * t->mind[i].scale);
  side += half * fminf(slant, 0.4f); /* stands askew */
  int k = t->n_entry++, *at = &t->lane_head[lane];
  dj__entry *e = &t->entry[k];
  *e = (dj__entry){.agent = i,
                   .s = (float)s,
                   .rear = (float)s - half,
                   .front = (float)s + half,
                   .lo = (float)lateral - side,
                   .hi = (float)lateral + side,
                   .speed = speed};
  while (*at >= 0 && t->entry[*at].s < e->s) at = &t->entry[*at].next;
  e->next = *at;
  *at = k;
}

static void intend(dj__traffic *t, int i, int lane, double dist) {
  if (t->n_intent >= t->max_entry) return;
  touch(t, lane);
  const dj__mind *m = &t->mind[i];
  int order = 0;
  for (int h = 0; h < DJ__HOLD; h++)
    if (m->hold[h] == lane) order = m->hold_order[h];
  int k = t->n_intent++;
  t->intent[k] =
      (dj__intent){.agent = i, .next = t->intent_head[lane], .dist = (float)dist, .order = order};
  t->intent_head[lane] = k;
}

/* Lanes beside the one it is on that its box reaches into. */
static void enter_sides(dj__traffic *t, int i, int lane, double s) {
  const dj__map *m = t->map;
  const dj__lane *l = &m->lane[lane];
  double lateral = (double)t->agents.t[i], side = 0.5 * (double)t->agents.width[i];
  double half = 0.5 * (double)dj__width_at(m, lane, s);
  float v = t->agents.speed[i];
  for (int left = 0; left < 2; left++) {
    double over = (left ? lateral : -lateral) + side - half;
    if (over < 0.05) continue;
    int other = left ? l->left : l->right;
    bool oncoming = left && other < 0 && l->opposite >= 0;
    if (oncoming) other = l->opposite;
    if (other < 0) continue;
    double share = s / l->length, so = m->lane[other].length * (oncoming ? 1 - share : share);
    double apart = half + 0.5 * (double)dj__width_at(m, other, so);
    double to = left ? lateral - apart : lateral + apart;
    enter(t, i, other, so, oncoming ? -to : to, oncoming ? -v : v);
  }
}

/* How far ahead junctions are announced. */
static double announce(const dj__traffic *t, int i) {
  double v = (double)t->agents.speed[i];
  return 30 * (double)t->mind[i].scale + 5 * v + v * v / 4;
}

static void register_one(dj__traffic *t, int i) {
  const dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  int lane = a->lane[i];
  if (lane < 0) return;
  double s = (double)a->s[i], half = 0.5 * (double)a->length[i];
  const dj__map *map = t->map;
  enter(t, i, lane, s, (double)a->t[i], a->speed[i]);
  if (m->role == DJ__ROLE_ONCOMING && t->n_entry > 0) /* its place in its own lane is kept */
    t->entry[t->n_entry - 1].lo = fminf(t->entry[t->n_entry - 1].lo, -1);
  if (m->merges && a->speed[i] < 2.5f && t->n_entry > 0) { /* cyclists are let in */
    dj__entry *e = &t->entry[t->n_entry - 1];
    e->lo = fminf(e->lo, -0.3f);
    e->hi = fmaxf(e->hi, 0.3f);
  }
  enter_sides(t, i, lane, s);
  if (!dj__is_rider(a, i)) return;
  if (m->behind >= 0 && s - half < 0) {
    double before = map->lane[m->behind].length + s;
    enter(t, i, m->behind, before, (double)a->t[i], a->speed[i]);
    if (map->lane[m->behind].n_conflict) intend(t, i, m->behind, -before);
  }
  double base = -s, far = announce(t, i);
  for (int k = 0; k < m->n_path && base < far; k++) {
    const dj__lane *l = &map->lane[m->path[k]];
    if (k == 1 && base < half) enter(t, i, m->path[k], -base, (double)a->t[i], a->speed[i]);
    if (l->n_conflict) intend(t, i, m->path[k], base);
    base += l->length;
  }
}

void dj__traffic_register(dj__traffic *t) {
  for (int k = 0; k < t->n_touched; k++)
    t->lane_head[t->touched[k]] = t->intent_head[t->touched[k]] = -1;
  t->n_touched = t->n_entry = t->n_intent = t->n_odd = 0;
  const dj__agents *a = &t->agents;
  for (int i = 0; i < a->n; i++) {
    if (!(a->flags[i] & DJ__AGENT_LIVE)) continue;
    if (a->kind[i] != DJ__PEDESTRIAN) register_one(t, i);
    if (dj__is_external(t, i) || (a->flags[i] & DJ__AGENT_CROSSING) ||
        t->mind[i].role == DJ__ROLE_ONCOMING ||
        (a->kind[i] == DJ__PEDESTRIAN && t->mind[i].gait == DJ__GAIT_WAIT))
      t->odd[t->n_odd++] = i;
  }
}

/* ---- the way ahead ---- */
/* Chooses one of the lanes that follow: straight on and turns alike, back only if there is no other
 * way, never one that ends at once where another does not. */
static int choose_next(dj__traffic *t, int i, int lane) {
  const dj__map *map = t->map;
  const dj__lane *l = &map->lane[lane];
  int found[16], n = 0, kind = t->agents.kind[i];
  bool heavy = kind == DJ__BUS || kind == DJ__LORRY;
  for (int pass = 0; pass < 2 && n == 0; pass++)
    for (int k = 0; k < l->n_succ && n < 16; k++) {
      int next = dj__succ(map, lane, k);
      const dj__lane *x = &map->lane[next];
      if (x->type != DJ__LANE_DRIVING) continue;
      if (pass == 0 && (x->turn == DJ__TURN_BACK || x->n_succ == 0)) continue;
      if (pass == 0 && heavy && t->net->tight[next]) continue;
      if (pass == 0 && kind == DJ__CYCLIST && t->net->fast[next]) continue;
      found[n++] = next;
    }
  if (n == 0) return -1;
  for (int k = 1; k < n && heavy && t->net->bend[found[0]] > 1 / 14.0f; k++)
    if (t->net->bend[found[k]] < t->net->bend[found[0]]) found[0] = found[k]; /* the widest */
  if (n == 1 || (heavy && t->net->tight[found[0]])) return found[0];
  dj__mind *m = &t->mind[i];
  uint32_t r =
      dj__philox(t->seed, ((uint64_t)t->agents.id[i] << 32) | m->drawn++, DJ__RNG_TURN).v[0];
  return found[r % (uint32_t)n];
}

void dj__agent_extend(dj__traffic *t, int i) {
  dj__mind *m = &t->mind[i];
  while (m->n_path > 0 && m->n_path < DJ__PATH) {
    int next = choose_next(t, i, m->path[m->n_path - 1]);
    if (next < 0) return;
    m->path[m->n_path++] = next;
  }
}

/* Speed that the lanes ahead allow: limits by temperament, bends by sideways acceleration. */
static float free_speed(const dj__traffic *t, int i, float reach) {
  const dj__mind *m = &t->mind[i];
  const dj__map *map = t->map;
  double base = -(double)t->agents.s[i];
  float best = 1e9f, b2 = 2 * 1.2f * m->scale;
  for (int k = 0; k < m->n_path; k++) {
    const dj__lane *l = &map->lane[m->path[k]];
    float ahead = base > 0 ? (float)base : 0, limit = (float)l->speed_limit * m->v_factor;
    if (ahead > reach) break;
    double f;
    const dj__lane_point *p = dj__lane_at(map, m->path[k], k ? 0 : (double)t->agents.s[i], &f);
    float bend = t->net->curve_speed[p - map->point] * m->curve;
    float v = sqrtf((bend < limit ? bend : limit) * (bend < limit ? bend : limit) + b2 * ahead);
    if (v < best) best = v;
    base += l->length;
  }
  best *= (float)t->wary;
  if (t->agents.kind[i] == DJ__CYCLIST) {
    float own = 5.0f * m->v_factor; /* 18 km/h: Parkin, Rotheram, Transport Policy 17, 2010 */
    if (best > own) best = own;
  }
  float heavy = t->agents.kind[i] == DJ__LORRY || t->agents.kind[i] == DJ__BUS ? 24.0f : 1e9f;
  return best < heavy ? best : heavy;
}

/* Someone on lane `k` of the path who is in the way; dist (m) from i's middle to the lane's start.
 */
static void look_at_lane(const dj__traffic *t, int i, int lane, double base, float lo, float hi,
                         float most, float *gap, float *speed, int *who) {
  const dj__agents *a = &t->agents;
  float front = 0.5f * a->length[i];
  float from = base <= 0 ? a->s[i] : -1e9f;
  for (int k = t->lane_head[lane]; k >= 0; k = t->entry[k].next) {
    const dj__entry *e = &t->entry[k];
    if (e->agent == i || e->s < from || (e->s == from && e->agent < i)) continue;
    if ((float)base + e->rear > most + 20) break;
    if (e->lo > hi || e->hi < lo) continue;
    float g = (float)base + e->rear - front;
    if (g < *gap) *gap = g, *speed = e->speed, *who = e->agent;
  }
}

/* While its box still lies (or already lies) on a lane beside, who is ahead there counts, too. */
static void look_aside(const dj__traffic *t, int i, bool left, float lo, float hi, float most,
                       float *gap, float *speed, int *who) {
  const dj__map *map = t->map;
  const dj__agents *a = &t->agents;
  const dj__lane *l = &map->lane[a->lane[i]];
  int other = left ? l->left : l->right;
  bool oncoming = left && other < 0 && l->opposite >= 0;
  if (oncoming) other = l->opposite;
  if (other < 0) return;
  float share = a->s[i] / (float)l->length, front = 0.5f * a->length[i];
  float at = (float)map->lane[other].length * (oncoming ? 1 - share : share);
  float apart = 0.5f * (dj__width_at(map, a->lane[i], (double)a->s[i]) +
                        dj__width_at(map, other, (double)at));
  for (int k = t->lane_head[other]; k >= 0; k = t->entry[k].next) {
    const dj__entry *e = &t->entry[k];
    if (e->agent == i) continue;
    float elo = oncoming ? apart - e->hi : e->lo + (left ? apart : -apart);
    float ehi = oncoming ? apart - e->lo : e->hi + (left ? apart : -apart);
    float ahead = oncoming ? at - e->s : e->s - at;
    if (ahead <= 0 || ahead > most || elo > hi || ehi < lo) continue;
    float g = (oncoming ? at - e->front : e->rear - at) - front;
    if (g < *gap) *gap = g, *speed = oncoming ? -e->speed : e->speed, *who = e->agent;
  }
}

/* Lanes that part from the same one as `lane` share their beginning with it. */
static void look_at_parting(const dj__traffic *t, int i, int lane, double base, float *gap,
                            float *speed, int *who) {
  const dj__lane *l = &t->map->lane[lane];
  const dj__agents *a = &t->agents;
  float front = 0.5f * a->length[i];
  for (int c = l->conflict0; c < l->conflict0 + l->n_conflict; c++) {
    if (!t->net->parting[c]) continue;
    const dj__conflict *x = &t->map->conflict[c];
    for (int k = t->lane_head[x->lane]; k >= 0; k = t->entry[k].next) {
      const dj__entry *e = &t->entry[k];
      if (e->agent == i || (double)e->rear > x->other_to + 1.5) continue;
      if ((float)base + e->s <= 0) continue; /* beside or behind */
      float g = (float)base + e->rear - front;
      if (g < *gap) *gap = g, *speed = e->speed, *who = e->agent;
    }
  }
}

/* The acceleration that whoever is ahead allows. */
static float follow(dj__traffic *t, int i, float reach, float until) {
  const dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  float gap = reach, speed = 0, side = 0.5f * a->width[i] + 0.25f * m->scale;
  int who = -1;
  double base = -(double)a->s[i];
  for (int k = 0; k < m->n_path && base < (double)reach && base < (double)until + 2; k++) {
    int lane = m->path[k];
    float at = k ? 0 : a->t[i], goal = k ? 0 : m->t_goal;
    float lo = fminf(fminf(at, goal), k ? m->t_rest : at) - side;
    float hi = fmaxf(fmaxf(at, goal), k ? m->t_rest : at) + side;
    look_at_lane(t, i, lane, base, lo, hi, reach, &gap, &speed, &who);
    float half = k ? 1e9f : 0.5f * dj__width_at(t->map, lane, -base);
    float margin = 0.15f * m->scale; /* of `side` */
    if (lo + margin < -half) look_aside(t, i, false, lo, hi, reach, &gap, &speed, &who);
    if (hi - margin > half) look_aside(t, i, true, lo, hi, reach, &gap, &speed, &who);
    if (t->map->lane[lane].n_conflict) look_at_parting(t, i, lane, base, &gap, &speed, &who);
    if (who >= 0) break;
    base += t->map->lane[lane].length;
  }
  m->leader = who;
  m->leader_gap = gap;
  if (who < 0) return 1e9f;
  /* Behind what will not move on by itself one stops where one can still swing out. */
  bool stands = a->flags[who] & (DJ__AGENT_PARKED | DJ__AGENT_STATIC);
  bool bike = !dj__is_motor(a->kind[i]), stays = fabsf(m->t_goal - a->t[i]) < 0.3f * m->scale;
  bool waits = stands && (bike ? t->map->lane[a->lane[i]].left >= 0 : stays);
  bool meets = !stands && stays && fabsf(a->t[i] - m->t_rest) < 0.4f * m->scale &&
               cosf(a->yaw[who] - a->yaw[i]) < -0.5f;
  float more = (waits ? SWING_M : meets ? MEET_M : 0) * m->scale;
  return dj__idm_follow(m, a->speed[i], gap, speed, m->gap + more);
}

/* The last lane of the path has no other after it. */
static float lane_end(const dj__traffic *t, int i) {
  const dj__mind *m = &t->mind[i];
  if (m->n_path == DJ__PATH) return 1e9f;
  double left = -(double)t->agents.s[i];
  for (int k = 0; k < m->n_path; k++) left += t->map->lane[m->path[k]].length;
  return dj__idm_follow(m, t->agents.speed[i], (float)left - 0.5f * t->agents.length[i], 0, m->gap);
}

static void decide(dj__traffic *t, int i) {
  dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  if (m->n_path < DJ__PATH) dj__agent_extend(t, i);
  float v = a->speed[i], reach = v * v / (2 * m->brake) + 3 * v + 30 * m->scale, until;
  m->v_free = free_speed(t, i, reach);
  m->stop_reason = DJ__REASON_NONE;
  float acc = dj__idm_free(m, v, m->v_free);
  float junction = dj__junctions_decide(t, i, reach, &until);
  float leader = follow(t, i, reach, until), person = dj__people_decide(t, i, reach);
  float end = lane_end(t, i), bump = dj__bumper(t, i), merge = dj__merge_decide(t, i);
  if (junction < acc) acc = junction;
  if (leader < acc) acc = leader, m->stop_reason = DJ__REASON_LEADER;
  if (merge < acc) acc = merge, m->stop_reason = DJ__REASON_LEADER;
  if (person < acc) acc = person, m->stop_reason = DJ__REASON_PERSON;
  if (end < acc) acc = end, m->stop_reason = DJ__REASON_END;
  m->bumped = bump < 0 ? m->bumped + (float)DJ__WORLD_DT : fmaxf(m->bumped - 0.01f, 0);
  if (bump < acc) acc = bump, m->stop_reason = DJ__REASON_LEADER;
  if (m->role == DJ__ROLE_BRAKE || m->role == DJ__ROLE_STAND) acc = fminf(acc, m->role_value);
  float hardest = -0.9f * 9.81f * (float)t->friction;
  t->plan[i] = dj__clampf(acc, hardest, m->accel);
}

void dj__traffic_decide(dj__traffic *t) {
  for (int i = t->n_external; i < t->agents.n; i++)
    if (dj__is_rider(&t->agents, i) && !t->mind[i].given) {
      if (!dj__back_decide(t, i)) decide(t, i);
      dj__lanes_decide(t, i);
    }
}

/* ---- motion ---- */
/* Axles on the lane's line: the box's yaw is the direction between them, so that it turns in
 * smoothly where lanes meet. */
void dj__agent_pose(dj__traffic *t, int i) {
  dj__agents *a = &t->agents;
  const dj__mind *m = &t->mind[i];
  const dj__map *map = t->map;
  int lane = a->lane[i];
  double s = (double)a->s[i], d = 0.3 * (double)a->length[i], lateral = (double)a->t[i];
  double length = map->lane[lane].length, xf, yf, xr, yr, f;
  if (s + d > length && m->n_path > 1)
    dj__lane_xy(map, m->path[1], s + d - length, lateral, &xf, &yf);
  else
    dj__lane_xy(map, lane, s + d, lateral, &xf, &yf);
  if (s - d < 0 && m->behind >= 0)
    dj__lane_xy(map, m->behind, map->lane[m->behind].length + s - d, lateral, &xr, &yr);
  else
    dj__lane_xy(map, lane, s - d, lateral, &xr, &yr);
  const dj__lane_point *p = dj__lane_at(map, lane, s, &f);
  float yaw = (float)atan2(yf - yr, xf - xr), before = a->yaw[i];
  float v = fabsf(a->speed[i]), drift = atanf(m->t_rate / fmaxf(v, 0.1f));
  drift *= fminf(v / (2 * m->scale), 1); /* no turning on the spot */
  if (a->speed[i] < 0) drift = -drift;
  a->x[i] = 0.5 * (xf + xr);
  a->y[i] = 0.5 * (yf + yr);
  a->z[i] = (float)(p[0].z + f * (p[1].z - p[0].z));
  a->yaw[i] = yaw + drift;
  float turn = a->yaw[i] - before;
  turn -= 6.2831853f * roundf(turn / 6.2831853f);
  a->yaw_rate[i] = turn / (float)DJ__WORLD_DT;
  a->pitch[i] = -atanf(p->slope) - 0.004f * a->accel[i];
  a->roll[i] = (a->kind[i] <= DJ__BUS ? 0.006f : -0.08f) * a->speed[i] * a->yaw_rate[i];
  float k = a->speed[i] > 0.5f ? a->yaw_rate[i] / a->speed[i] : p->curvature;
  a->steer[i] = dj__clampf(atanf(0.6f * a->length[i] * k), -0.6f, 0.6f);
}

static void light_lamps(dj__traffic *t, int i) {
  dj__agents *a = &t->agents;
  const dj__mind *m = &t->mind[i];
  int lamps = m->blinks;
  if (a->accel[i] < -0.6f || (a->speed[i] < 0.1f && m->stop_reason)) lamps |= DJ__LAMP_BRAKE;
  if (m->want) lamps = (lamps & DJ__LAMP_BRAKE) | (m->want > 0 ? DJ__LAMP_LEFT : DJ__LAMP_RIGHT);
  if (a->speed[i] < -0.05f) lamps |= DJ__LAMP_REVERSE;
  lamps |= a->lamps[i] & DJ__LAMP_HEAD;
  a->lamps[i] = (uint8_t)lamps;
}

/* Goes on to the lane that comes next. */
static void pass_on(dj__traffic *t, int i) {
  dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  while (m->n_path > 1 && (double)a->s[i] > t->map->lane[m->path[0]].length) {
    a->s[i] -= (float)t->map->lane[m->path[0]].length;
    m->behind = m->path[0];
    m->n_path--;
    memmove(m->path, m->path + 1, (size_t)m->n_path * sizeof *m->path);
    a->lane[i] = m->path[0];
  }
}

/* s for which it has stood. */
static void stand(dj__traffic *t, int i) {
  dj__mind *m = &t->mind[i];
  m->still = fabsf(t->agents.speed[i]) < 0.1f ? m->still + (float)DJ__WORLD_DT : 0;
}

static void move(dj__traffic *t, int i) {
  dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  const float dt = (float)DJ__WORLD_DT;
  float v = a->speed[i], acc = t->plan[i], v1 = v + acc * dt;
  if (v1 < 0 && m->back <= 0) v1 = v < 0 ? fminf(v + 2 * dt, 0) : 0, acc = (v1 - v) / dt;
  a->s[i] += 0.5f * (v + v1) * dt;
  a->speed[i] = v1;
  a->accel[i] = acc;
  stand(t, i);
  m->push = m->push > 0 ? m->push - dt : 0;
  if (m->bumped > 8) m->push = 4, m->bumped = 0;
  pass_on(t, i);
  dj__lateral_move(t, i);
  dj__holds_release(t, i);
  dj__agent_pose(t, i);
  light_lamps(t, i);
}

void dj__traffic_move(dj__traffic *t) {
  for (int i = t->n_external; i < t->agents.n; i++)
    if (dj__is_rider(&t->agents, i) && !t->mind[i].given) move(t, i);
}

/* ---- those that others move ---- */
/* Fits the lane that the box's middle lies on, first among `prefer`, and the path from there on
 * along `prefer` as far as it goes. */
void dj__external_lane(dj__traffic *t, int i, const int *prefer, int n) {
  dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  const dj__map *map = t->map;
  double s, lateral, best = 1e9;
  int lane = -1, at = -1;
  for (int k = 0; k < n; k++) {
    double d = dj__map_project(map, prefer[k], a->x[i], a->y[i], -1, &s, &lateral);
    if (d < best - 0.3) best = d, at = k;
  }
  if (at >= 0 && best < 0.75 * 3.5) lane = prefer[at];
  if (lane < 0)
    lane = dj__map_nearest(map, a->x[i], a->y[i], (double)a->yaw[i], 1u << DJ__LANE_DRIVING, 8, &s,
                           &lateral);
  else
    (void)dj__map_project(map, lane, a->x[i], a->y[i], -1, &s, &lateral);
  int before = a->lane[i];
  a->lane[i] = lane;
  m->n_path = 0;
  stand(t, i);
  if (lane < 0) return;
  if (before >= 0 && before != lane) m->behind = before;
  if (m->behind >= 0) { /* only if it leads here */
    bool leads = false;
    for (int k = 0; k < map->lane[m->behind].n_succ; k++)
      leads |= dj__succ(map, m->behind, k) == lane;
    if (!leads) m->behind = -1;
  }
  a->s[i] = (float)s;
  a->t[i] = (float)lateral;
  m->path[m->n_path++] = lane;
  for (int k = at + 1; at >= 0 && lane == prefer[at] && k < n && m->n_path < DJ__PATH; k++) {
    bool follows = false;
    for (int j = 0; j < map->lane[m->path[m->n_path - 1]].n_succ; j++)
      follows |= dj__succ(map, m->path[m->n_path - 1], j) == prefer[k];
    if (!follows) break;
    m->path[m->n_path++] = prefer[k];
  }
  for (int k = m->n_path; k < DJ__PATH && map->lane[m->path[k - 1]].n_succ > 0; k++)
    m->path[m->n_path++] = dj__succ(map, m->path[k - 1], 0);
}

void dj__external_track(dj__traffic *t, int i) {
  dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  const dj__map *map = t->map;
  if (a->lane[i] < 0 || m->n_path < 1) {
    dj__external_lane(t, i, NULL, 0);
    return;
  }
  stand(t, i);
  const dj__lane *l = &map->lane[m->path[0]];
  double s, lateral, best = 1e9, best_s = 0, best_t = 0;
  int near[4] = {m->path[0], m->n_path > 1 ? m->path[1] : -1, l->left, l->right}, at = -1;
  for (int k = 0; k < 4; k++) {
    if (near[k] < 0) continue;
    double guess = k == 1 ? fmax((double)a->s[i] - l->length, 0) : (double)a->s[i];
    double d = dj__map_project(map, near[k], a->x[i], a->y[i], guess, &s, &lateral);
    if (d < best - 0.2) best = d, at = k, best_s = s, best_t = lateral;
  }
  if (best > 3.5) { /* it has left its lanes */
    dj__external_lane(t, i, NULL, 0);
    return;
  }
  if (at == 1) {
    m->behind = m->path[0];
    memmove(m->path, m->path + 1, (size_t)--m->n_path * sizeof *m->path);
  } else if (at > 1) {
    m->behind = -1;
    m->path[0] = near[at];
    m->n_path = 1;
  }
  a->lane[i] = m->path[0];
  a->s[i] = (float)best_s;
  a->t[i] = (float)best_t;
  dj__agent_extend(t, i);
}
