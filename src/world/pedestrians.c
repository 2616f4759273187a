/*
 * People on foot: along pavements, round corners, over crossings; and how vehicles see them, and
 * everything else that does not keep to lanes. Who waits at a crossing steps out when those who
 * come can stop comfortably (or their lights are red long enough); who drives stops for people on
 * a crossing, and where there are no lights also for those who wait at the kerb.
 */
#include <math.h>

#include "world/traffic.h"

#define CROSS_CHANCE 0.35f /* of those who pass a crossing */
#define STUCK_S      6.0f  /* s in the middle of the road before one turns back */
#define STEP_OUT     0.9   /* m of clearance to vehicles */

static float draw(dj__traffic *t, int i) {
  dj__mind *m = &t->mind[i];
  return dj__u01(
      dj__philox(t->seed, ((uint64_t)t->agents.id[i] << 32) | m->drawn++, DJ__RNG_WALK).v[0]);
}

static void walk_pose(dj__traffic *t, int i) {
  dj__agents *a = &t->agents;
  double x, y, f;
  const dj__lane_point *p = dj__lane_at(t->map, a->lane[i], (double)a->s[i], &f);
  dj__lane_xy(t->map, a->lane[i], (double)a->s[i], (double)a->t[i], &x, &y);
  a->x[i] = x;
  a->y[i] = y;
  a->z[i] = (float)(p[0].z + f * (p[1].z - p[0].z));
  a->yaw[i] = (float)atan2(p[1].y - p[0].y, p[1].x - p[0].x);
  if (t->mind[i].dir < 0) a->yaw[i] += a->yaw[i] > 0 ? -3.14159265f : 3.14159265f;
}

void dj__pedestrian_put(dj__traffic *t, int i, int lane, double s, int dir) {
  dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  float half = 0.5f * dj__width_at(t->map, lane, s) - 0.45f;
  a->lane[i] = lane;
  a->s[i] = (float)s;
  a->speed[i] = m->v_factor;
  m->dir = dir;
  m->gait = DJ__GAIT_WALK;
  /* everyone keeps to his right */
  m->t_rest = a->t[i] = half > 0 ? -(float)dir * half * (0.15f + 0.8f * draw(t, i)) : 0;
  walk_pose(t, i);
}

/* Straight from where it is to x, y; what then is up to `want`: 0 to wait at the kerb, 1 to go on
 * along the pavement that the link leads to. */
static void head_for(dj__traffic *t, int i, double x, double y, int gait) {
  dj__mind *m = &t->mind[i];
  m->x0 = (float)t->agents.x[i];
  m->y0 = (float)t->agents.y[i];
  m->x1 = (float)x;
  m->y1 = (float)y;
  m->way = 0;
  m->gait = gait;
}

static void pavement_point(const dj__traffic *t, int i, double *x, double *y) {
  dj__lane_xy(t->map, t->mind[i].to, (double)t->mind[i].to_s, 0, x, y);
}

/* Where on the crossing's width this one walks, -1..1. */
static double side_of(const dj__traffic *t, int i) {
  return ((double)(t->agents.id[i] * 2654435761u >> 8) / 8388608.0 - 1) * 0.7;
}

static void kerb(const dj__traffic *t, int i, bool far, double *x, double *y) {
  const dj__walk_link *l = &t->net->walk_link[t->mind[i].link];
  const dj__crossing *c = &t->map->crossing[l->crossing];
  double dx = c->x1 - c->x0, dy = c->y1 - c->y0, d = hypot(dx, dy) + 1e-9;
  double side = 0.5 * c->width * side_of(t, i), back = far == (bool)l->from_first ? 0.4 : -0.4;
  bool second = far == (bool)l->from_first;
  *x = (second ? c->x1 : c->x0) + back * dx / d - side * dy / d;
  *y = (second ? c->y1 : c->y0) + back * dy / d + side * dx / d;
}

static void set_off(dj__traffic *t, int i, int link) {
  dj__mind *m = &t->mind[i];
  const dj__walk_link *l = &t->net->walk_link[link];
  double x, y;
  m->link = link;
  m->to = l->to;
  m->to_s = l->to_s;
  m->want = l->crossing >= 0 ? 0 : 1;
  if (l->crossing >= 0)
    kerb(t, i, false, &x, &y);
  else
    pavement_point(t, i, &x, &y);
  head_for(t, i, x, y, DJ__GAIT_CORNER);
}

/* Passes a crossing, or comes to the pavement's end: what next? */
static void choose(dj__traffic *t, int i, float s0, float s1, bool end) {
  const dj__net *n = t->net;
  int found[24], k = 0;
  for (int l = n->walk_head[t->agents.lane[i]]; l >= 0; l = n->walk_link[l].next) {
    const dj__walk_link *x = &n->walk_link[l];
    bool passed = (x->s - s0) * (x->s - s1) <= 0;
    if (x->crossing >= 0 && passed && draw(t, i) < CROSS_CHANCE) {
      set_off(t, i, l);
      return;
    }
    if (x->crossing < 0 && end && fabsf(x->s - s1) < 1 && k < 24) found[k++] = l;
  }
  if (!end) return;
  if (k > 0) {
    set_off(t, i, found[(int)(draw(t, i) * (float)k) % k]);
    return;
  }
  t->mind[i].dir = -t->mind[i].dir;
  t->mind[i].t_rest = -t->mind[i].t_rest;
}

/* Someone on foot close ahead in the same direction, or anything on wheels: how far one may go. */
static bool way_is_free(const dj__traffic *t, int i, double yaw, bool road) {
  const dj__agents *a = &t->agents;
  int near[24], n = dj__hash_near(t, a->x[i], a->y[i], road ? 9 : 1.4, near, 24);
  double c = cos(yaw), s = sin(yaw);
  for (int k = 0; k < n; k++) {
    int j = near[k];
    if (j == i) continue;
    double dx = a->x[j] - a->x[i], dy = a->y[j] - a->y[i];
    double ahead = dx * c + dy * s, side = fabs(dy * c - dx * s);
    if (a->kind[j] == DJ__PEDESTRIAN) {
      bool same = cos((double)a->yaw[j] - yaw) > 0;
      if (same && ahead > 0.05 && ahead < 0.9 && side < 0.45 && (ahead > 0.1 || j < i))
        return false;
      continue;
    }
    if (!road) continue;
    double cj = cos((double)a->yaw[j]), sj = sin((double)a->yaw[j]);
    /* a point 0.8 m ahead, in the box's frame */
    double px = 0.8 * c - dx, py = 0.8 * s - dy, u = px * cj + py * sj, v = py * cj - px * sj;
    double front = 0.5 * (double)a->length[j], half = 0.5 * (double)a->width[j] + 0.5;
    double coming = 0.6 * fmax((double)a->speed[j], 0);
    if (u > -front - 0.5 && u < front + 0.6 + coming && fabs(v) < half) {
      /* unless it stands in it already and walks out */
      double u0 = -dx * cj - dy * sj, v0 = -dy * cj + dx * sj;
      if (!(fabs(u0) < front + 0.5 && fabs(v0) < half && fabs(v) > fabs(v0))) return false;
    }
  }
  return true;
}

/* ---- crossings ---- */
static bool lights_allow(const dj__traffic *t, const dj__crossing *c, double seconds) {
  for (int k = 0; k < c->n_lane; k++) {
    const dj__crossing_lane *cl = &t->map->crossing_lane[c->lane0 + k];
    int stop = t->map->lane[cl->lane].stop;
    if (stop < 0 || t->map->stop[stop].control != DJ__CONTROL_LIGHTS) continue;
    for (int q = 0; q <= 4; q++)
      if (dj__map_light(t->map, stop, t->time + seconds * q / 4) != DJ__LIGHT_RED) return false;
  }
  return true;
}

/* Everyone on the lane (and up to two lanes before) has passed, stands, or can stop. */
static bool lane_lets(const dj__traffic *t, int lane, double s, double base, int depth) {
  const dj__map *map = t->map;
  for (int k = t->lane_head[lane]; k >= 0; k = t->entry[k].next) {
    const dj__entry *e = &t->entry[k];
    if (t->agents.flags[e->agent] & (DJ__AGENT_PARKED | DJ__AGENT_STATIC)) continue;
    double rear = s - base - (double)e->rear, front = s - base - (double)e->front;
    if (rear < -2) continue; /* past */
    if (front < STEP_OUT + 0.6) {
      if (rear > -1.5) return false; /* stands on it */
      continue;
    }
    double v = fabs((double)e->speed);
    if (v < 0.4) continue;
    if (front < v * 1.0 + v * v / (2 * 1.8) + 1.5) return false;
  }
  if (depth >= 2 || s - base > 45) return true;
  for (int p = 0; p < map->lane[lane].n_pred; p++) {
    int before = dj__pred(map, lane, p);
    if (!lane_lets(t, before, s, base - map->lane[before].length, depth + 1)) return false;
  }
  return true;
}

static bool may_cross(const dj__traffic *t, int i) {
  const dj__walk_link *l = &t->net->walk_link[t->mind[i].link];
  const dj__crossing *c = &t->map->crossing[l->crossing];
  double length = hypot(c->x1 - c->x0, c->y1 - c->y0);
  if (c->lights && !lights_allow(t, c, length / (double)t->mind[i].v_factor)) return false;
  for (int k = 0; k < c->n_lane; k++) {
    const dj__crossing_lane *cl = &t->map->crossing_lane[c->lane0 + k];
    if (!lane_lets(t, cl->lane, cl->s, 0, 0)) return false;
  }
  return true;
}

/* ---- walking ---- */
static void along_pavement(dj__traffic *t, int i) {
  dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  const float dt = (float)DJ__WORLD_DT;
  float s0 = a->s[i], length = (float)t->map->lane[a->lane[i]].length;
  bool free = way_is_free(t, i, (double)a->yaw[i], false);
  a->speed[i] = dj__clampf(free ? m->v_factor : 0.4f * m->v_factor, 0, a->speed[i] + dt);
  float s1 = s0 + (float)m->dir * a->speed[i] * dt;
  bool end = s1 <= 0.2f || s1 >= length - 0.2f;
  s1 = dj__clampf(s1, 0, length);
  a->s[i] = s1;
  a->t[i] += dj__clampf(m->t_rest - a->t[i], -0.4f * dt, 0.4f * dt);
  choose(t, i, s0, s1, end);
  if (m->gait == DJ__GAIT_WALK) walk_pose(t, i);
}

static void arrive(dj__traffic *t, int i) {
  dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  double x, y;
  if (m->gait == DJ__GAIT_CROSS || m->gait == DJ__GAIT_JAY) {
    a->flags[i] &= (uint8_t)~DJ__AGENT_CROSSING;
    m->want = 1;
    if (m->to < 0) { /* no pavement over there */
      m->gait = DJ__GAIT_STAND;
      a->speed[i] = 0;
      return;
    }
    pavement_point(t, i, &x, &y);
    head_for(t, i, x, y, DJ__GAIT_CORNER);
  } else if (m->want == 0) {
    m->gait = DJ__GAIT_WAIT;
    m->pause = 0;
    a->speed[i] = 0;
  } else {
    float length = (float)t->map->lane[m->to].length;
    int dir = m->to_s < 1 ? 1 : m->to_s > length - 1 ? -1 : draw(t, i) < 0.5f ? 1 : -1;
    float half = 0.5f * dj__width_at(t->map, m->to, (double)m->to_s) - 0.45f;
    a->lane[i] = m->to;
    a->s[i] = dj__clampf(m->to_s, 0.25f, length - 0.25f);
    a->t[i] = 0;
    m->dir = dir;
    m->t_rest = half > 0 ? -(float)dir * half * (0.15f + 0.8f * draw(t, i)) : 0;
    m->gait = DJ__GAIT_WALK;
    m->link = -1;
  }
}

/* In the middle of the road, between two who wait for this one and each other: back again. */
static void turn_back(dj__traffic *t, int i) {
  double s = 0, lateral, x = (double)t->mind[i].x0, y = (double)t->mind[i].y0;
  int walk = dj__map_nearest(t->map, x, y, NAN, 1u << DJ__LANE_SIDEWALK, 5, &s, &lateral);
  dj__pedestrian_jaywalk(t, i, x, y, walk, s);
}

static void straight(dj__traffic *t, int i) {
  dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  const float dt = (float)DJ__WORLD_DT;
  double dx = (double)m->x1 - (double)m->x0, dy = (double)m->y1 - (double)m->y0;
  double d = hypot(dx, dy), yaw = d > 1e-3 ? atan2(dy, dx) : (double)a->yaw[i];
  bool road = m->gait == DJ__GAIT_CROSS || m->gait == DJ__GAIT_JAY;
  bool free = way_is_free(t, i, yaw, road);
  a->speed[i] = free ? fminf(m->v_factor, a->speed[i] + 1.5f * dt) : 0;
  m->pause = free || m->gait != DJ__GAIT_JAY ? 0 : m->pause + dt;
  if (m->pause > STUCK_S) {
    turn_back(t, i);
    return;
  }
  m->way += a->speed[i] * dt;
  double f = d > 1e-3 ? fmin((double)m->way / d, 1) : 1;
  a->x[i] = (double)m->x0 + f * dx;
  a->y[i] = (double)m->y0 + f * dy;
  a->yaw[i] = (float)yaw;
  a->z[i] = (float)dj__map_height(t->map, a->x[i], a->y[i]);
  if (f >= 1) arrive(t, i);
}

void dj__pedestrian_jaywalk(dj__traffic *t, int i, double x, double y, int lane, double s) {
  dj__mind *m = &t->mind[i];
  m->link = -1;
  m->to = lane;
  m->to_s = (float)s;
  t->agents.flags[i] |= DJ__AGENT_CROSSING;
  head_for(t, i, x, y, DJ__GAIT_JAY);
}

static void wait_at_kerb(dj__traffic *t, int i) {
  dj__agents *a = &t->agents;
  dj__mind *m = &t->mind[i];
  double x, y;
  a->speed[i] = 0;
  m->pause += (float)DJ__WORLD_DT;
  if (m->pause < 0.6f) return;
  if ((t->step + (uint64_t)i) % 4 == 0 && may_cross(t, i)) {
    kerb(t, i, true, &x, &y);
    head_for(t, i, x, y, DJ__GAIT_CROSS);
    a->flags[i] |= DJ__AGENT_CROSSING;
  } else if (m->pause > 90) { /* gives up: back to where it came from */
    const dj__walk_link *l = &t->net->walk_link[m->link];
    for (int k = 0; k < t->net->n_walk_link; k++) {
      const dj__walk_link *b = &t->net->walk_link[k];
      if (b->crossing != l->crossing || b->from_first == l->from_first) continue;
      m->to = b->to;
      m->to_s = b->to_s;
    }
    m->link = -1;
    m->want = 1;
    pavement_point(t, i, &x, &y);
    head_for(t, i, x, y, DJ__GAIT_CORNER);
  }
}

void dj__pedestrians_move(dj__traffic *t) {
  const dj__agents *a = &t->agents;
  for (int i = t->n_external; i < a->n; i++) {
    if (a->kind[i] != DJ__PEDESTRIAN || !(a->flags[i] & DJ__AGENT_LIVE)) continue;
    dj__mind *m = &t->mind[i];
    if (m->gait == DJ__GAIT_WALK)
      along_pavement(t, i);
    else if (m->gait == DJ__GAIT_WAIT)
      wait_at_kerb(t, i);
    else if (m->gait != DJ__GAIT_STAND)
      straight(t, i);
  }
}

/* ---- what vehicles see ---- */
/* Where x, y lies along the path of i: m from its middle, and to the left of the way. */
static bool on_path(const dj__traffic *t, int i, double x, double y, double reach, double *along,
                    double *lateral) {
  const dj__map *map = t->map;
  const dj__mind *m = &t->mind[i];
  double base = -(double)t->agents.s[i], best = 1e18;
  for (int k = 0; k < m->n_path && base < reach; k++) {
    const dj__lane *l = &map->lane[m->path[k]];
    const dj__lane_point *p = map->point + l->point0;
    double step = l->length / (l->n_point - 1);
    int from = base < 0 ? (int)fmin(-base / step, l->n_point - 1) : 0,
        stride = step < 1 ? (int)(2 / step) : 2;
    for (int q = from; q < l->n_point; q += stride) {
      double dx = x - p[q].x, dy = y - p[q].y, d2 = dx * dx + dy * dy;
      if (d2 >= best) continue;
      double c = cos((double)p[q].yaw), s = sin((double)p[q].yaw);
      best = d2;
      *along = base + (double)p[q].s + dx * c + dy * s;
      *lateral = dy * c - dx * s;
    }
    base += l->length;
  }
  return best < 1e17;
}

/* Someone on, or waiting at, a crossing of the path. */
static float crossings_ahead(const dj__traffic *t, int i, float reach) {
  const dj__mind *m = &t->mind[i];
  const dj__net *n = t->net;
  const dj__agents *a = &t->agents;
  float acc = 1e9f, base = -a->s[i], half = 0.5f * a->length[i], v = a->speed[i];
  for (int k = 0; k < m->n_path && base < reach; k++) {
    int lane = m->path[k];
    for (int c = n->crossing0[lane]; c < n->crossing0[lane + 1]; c++) {
      const dj__lane_crossing *lc = &n->lane_crossing[c];
      const dj__crossing *x = &t->map->crossing[lc->crossing];
      float gap = base + lc->s - 0.5f * (float)x->width - 1.0f - half;
      if (gap < -1.5f || gap > reach) continue;
      bool late = gap <= 0 || v * v > 2 * 3.5f * gap;
      for (int o = 0; o < t->n_odd; o++) {
        int p = t->odd[o];
        const dj__mind *u = &t->mind[p];
        if (a->kind[p] != DJ__PEDESTRIAN || u->link < 0) continue;
        const dj__walk_link *l = &n->walk_link[u->link];
        if (l->crossing != lc->crossing) continue;
        if (u->gait == DJ__GAIT_WAIT) {
          if (x->lights || late || u->pause < 0.3f || m->still > 12) continue;
        } else if (u->gait == DJ__GAIT_CROSS) {
          double dx = x->x1 - x->x0, dy = x->y1 - x->y0, d2 = dx * dx + dy * dy;
          float at = (float)(((a->x[p] - x->x0) * dx + (a->y[p] - x->y0) * dy) / d2);
          float beyond = (at - lc->at) * (l->from_first ? 1 : -1); /* share of the way */
          if (beyond > lc->half + 0.8f / (float)sqrt(d2)) continue;
          if (late && gap < 0.3f) continue; /* others see the person itself */
        } else {
          continue;
        }
        acc = fminf(acc, dj__idm_follow(m, v, gap, 0, 0.5f));
      }
    }
    base += (float)t->map->lane[lane].length;
  }
  return acc;
}

/* Those who do not keep to lanes, where they are or are about to be on the path. */
float dj__people_decide(dj__traffic *t, int i, float reach) {
  const dj__agents *a = &t->agents;
  const dj__mind *m = &t->mind[i];
  float acc = 1e9f, v = a->speed[i];
  if (t->n_odd == 0) return acc;
  float far = fminf(reach, 90 * m->scale + 10);
  double ci = cos((double)a->yaw[i]), si = sin((double)a->yaw[i]);
  for (int o = 0; o < t->n_odd; o++) {
    int j = t->odd[o];
    if (j == i || t->mind[j].gait == DJ__GAIT_WAIT) continue;
    double dx = a->x[j] - a->x[i], dy = a->y[j] - a->y[i];
    if (dx * dx + dy * dy > (double)(far * far)) continue;
    if (dx * ci + dy * si < -0.5 * (double)a->length[i]) continue;
    double along = 0, lateral = 0;
    if (!on_path(t, i, a->x[j], a->y[j], (double)far, &along, &lateral) || along <= 0) continue;
    /* its heading against the path's there: close enough to that of the line of sight's end */
    double x1, y1, base = -(double)a->s[i], yaw = (double)a->yaw[i], f;
    for (int k = 0; k < m->n_path; k++) {
      double length = t->map->lane[m->path[k]].length;
      if (along - base <= length || k == m->n_path - 1) {
        const dj__lane_point *p = dj__lane_at(t->map, m->path[k], along - base, &f);
        x1 = p[1].x - p[0].x, y1 = p[1].y - p[0].y;
        yaw = atan2(y1, x1);
        break;
      }
      base += length;
    }
    double turn = (double)a->yaw[j] - yaw, c = cos(turn), s = sin(turn);
    double ext = 0.5 * (fabs(c) * (double)a->length[j] + fabs(s) * (double)a->width[j]);
    double wide = 0.5 * (fabs(s) * (double)a->length[j] + fabs(c) * (double)a->width[j]);
    bool person = a->kind[j] == DJ__PEDESTRIAN;
    double eta = fmin(along / fmax((double)v, 1), person ? 2.5 : 0.4);
    double later = lateral + s * (double)a->speed[j] * eta;
    double mine = 0.5 * (double)a->width[i] + (person ? 0.6 : 0.3) * (double)m->scale;
    double near_t = along < (double)a->length[i] ? (double)a->t[i] : (double)m->t_goal;
    double lo = fmin(lateral, later) - wide, hi = fmax(lateral, later) + wide;
    if (lo > near_t + mine || hi < near_t - mine) continue;
    float gap = (float)(along - ext) - 0.5f * a->length[i];
    if (gap < -0.5f * a->length[i]) continue;
    float speed = (float)(c * (double)a->speed[j]);
    acc = fminf(acc, dj__idm_follow(m, v, gap, person ? fmaxf(speed, 0) * 0.5f : speed,
                                    (person ? 2.0f : 1.5f) * m->scale));
  }
  return fminf(acc, crossings_ahead(t, i, fminf(reach, 60)));
}
