/* Who is near, and where everybody will be for the next 8 s, in the guide's frame. */
#include <math.h>

#include "world/expert.h"
#include "world/traffic.h"

#define RETURN_S 1.3 /* s for which an oncoming vehicle is expected to stay in the ego's lane */

enum { NEAR = 160 };

/* ---- forecasts ---- */
typedef struct walker { /* goes along the lanes of a vehicle's path */
  const dj__world *w;
  const dj__mind *mind;
  int i, at;   /* index in the path */
  double s, t; /* on the lane */
  double stop; /* m that it may go until it has to wait */
} walker;

static bool red_for(const dj__world *w, const dj__mind *m, int lane) {
  int stop = w->map->lane[lane].stop;
  if (stop < 0 || w->map->stop[stop].control != DJ__CONTROL_LIGHTS) return false;
  dj__light l = dj__world_light(w, stop);
  return (l == DJ__LIGHT_RED || l == DJ__LIGHT_RED_YELLOW) && m->role != DJ__ROLE_RUN_RED;
}

/* How far somebody may go: to the first junction that it has no right to enter, if it can still
 * stop before it. */
static double free_way(const dj__world *w, int i, const dj__mind *m) {
  const dj__map *map = w->map;
  double v = fabs((double)w->agents.speed[i]), half = 0.5 * (double)w->agents.length[i];
  double way = map->lane[m->path[0]].length - (double)w->agents.s[i];
  for (int k = 0; k + 1 < m->n_path && way < 80; k++) {
    int lane = m->path[k], next = m->path[k + 1];
    double room = way - half - 0.5;
    if (map->lane[lane].stop >= 0)
      room -= fmax(0, map->lane[lane].length - map->stop[map->lane[lane].stop].s);
    bool barred = map->lane[lane].junction < 0 && map->lane[next].junction >= 0 &&
                  (red_for(w, m, lane) || (map->lane[next].n_conflict && !dj__holds(m, next)));
    if (m->role == DJ__ROLE_RUN_RED) barred = false;
    if (barred && room > -0.5 && v * v < 2 * 6 * fmax(room, 0.05)) return fmax(0, room);
    way += map->lane[next].length;
  }
  return HUGE_VAL;
}

static void walk(walker *k, double way, double *x, double *y, double *yaw) {
  const dj__map *m = k->w->map;
  k->s += way;
  while (k->s > m->lane[k->mind->path[k->at]].length && k->at + 1 < k->mind->n_path) {
    k->s -= m->lane[k->mind->path[k->at]].length;
    k->at++;
  }
  int lane = k->mind->path[k->at];
  double f;
  const dj__lane_point *p = dj__lane_at(m, lane, k->s, &f);
  dj__lane_xy(m, lane, k->s, k->t, x, y);
  *yaw = atan2(p[1].y - p[0].y, p[1].x - p[0].x);
}

/* Box on the guide of somebody at (x, y, yaw); *s: where it was found before. */
static void place(const dj__expert *e, dj__seen *o, int j, double x, double y, double yaw, double v,
                  double length, double width, double *s) {
  double at, d, back = j ? 12 * e->scale + 0.5 * v : 60 * e->scale + 10,
                ahead = j ? back : 190 * e->scale + 10;
  (void)dj__guide_project(&e->guide, x, y, j ? *s : e->mid, back, ahead, &at, &d);
  *s = at;
  dj__guide_point p = dj__guide_at(&e->guide, at);
  double r = yaw - p.yaw, c = fabs(cos(r)), n = fabs(sin(r));
  double lon = 0.5 * (length * c + width * n), lat = 0.5 * (length * n + width * c);
  double stretch = 1 - p.curvature * d; /* the line is shorter or longer than the way beside it */
  lon /= fmax(0.3, fmin(3, stretch));
  o->at[j] =
      (dj__box){(float)(at - lon),   (float)(at + lon),  (float)(d - lat),   (float)(d + lat),
                (float)(v * cos(r)), (float)(x - e->ox), (float)(y - e->oy), (float)yaw};
}

static bool is_near(const dj__expert *e, const dj__box *b) {
  float wide = (float)(12 * e->scale);
  return b->right < wide && b->left > -wide && b->hi > (float)(e->mid - 60 * e->scale) &&
         b->lo < (float)(e->mid + 200 * e->scale);
}

static void forecast(const dj__expert *e, const dj__world *w, int i, dj__seen *o) {
  const dj__agents *a = &w->agents;
  double x = a->x[i], y = a->y[i], yaw = (double)a->yaw[i], v = (double)a->speed[i], s = e->mid;
  double length = (double)a->length[i], width = (double)a->width[i];
  const dj__mind *m = &w->traffic->mind[i];
  bool rider = dj__is_rider(a, i) && a->lane[i] >= 0 && m->n_path > 0 && m->path[0] == a->lane[i] &&
               m->role != DJ__ROLE_STAND;
  walker k = {w, m, i, 0, (double)a->s[i], (double)a->t[i], HUGE_VAL};
  if (rider) k.stop = free_way(w, i, m);
  double turn = o->person ? 0 : (double)a->yaw_rate[i], accel = (double)a->accel[i];
  double way = 0;
  o->from = DJ__AHEAD + 1, o->to = -1;
  for (int j = 0; j <= DJ__AHEAD; j++) {
    place(e, o, j, x, y, yaw, v, length, width, &s);
    if (is_near(e, &o->at[j])) {
      if (o->from > j) o->from = j;
      o->to = j;
    }
    double t = j * DJ__AHEAD_DT;
    if (!o->person && t < 1.2) v = fmax(0, v + accel * DJ__AHEAD_DT * (accel < 0 ? 1 : 0.5));
    double step = fmin(v * DJ__AHEAD_DT, k.stop - way);
    if (step < v * DJ__AHEAD_DT) v = 0;
    way += step;
    if (rider) {
      walk(&k, step, &x, &y, &yaw);
      /* lane changes and places within a lane; who has swung out comes back before they meet */
      double to =
          m->role == DJ__ROLE_ONCOMING && t > RETURN_S ? (double)m->t_rest : (double)m->t_goal;
      k.t += (to - k.t) * 0.3;
    } else {
      yaw += turn * DJ__AHEAD_DT * (t < 2 ? 1 : 0);
      x += step * cos(yaw);
      y += step * sin(yaw);
    }
  }
}

/* Who walks along the road stays beside it, whatever way a bend or a corner makes him look. */
static void keep_beside(dj__seen *o) {
  for (int j = 1; j <= DJ__AHEAD; j++) {
    dj__box *b = &o->at[j];
    const dj__box *now = &o->at[0];
    float in = now->left < 0 ? fmaxf(b->left - now->left, 0) : fminf(b->right - now->right, 0);
    b->left -= in;
    b->right -= in;
  }
}

/* May one go round it? What stands for good, and what is slow by nature. */
static bool is_passable(const dj__world *w, int i, int depth) {
  const dj__agents *a = &w->agents;
  const dj__mind *m = &w->traffic->mind[i];
  if (a->flags[i] & (DJ__AGENT_PARKED | DJ__AGENT_STATIC)) return true;
  if (m->role == DJ__ROLE_STAND || m->role == DJ__ROLE_ONCOMING) return true;
  if (a->kind[i] == DJ__PEDESTRIAN) return !(a->flags[i] & DJ__AGENT_CROSSING);
  if (a->kind[i] == DJ__CYCLIST) return a->speed[i] > 0.5f || m->stop_reason == DJ__REASON_NONE;
  if (m->still > 20 && m->stop_reason == DJ__REASON_NONE) return true;
  /* stuck behind such a one */
  return depth < 4 && m->still > 1.5f && m->stop_reason == DJ__REASON_LEADER && m->leader > 0 &&
         a->kind[m->leader] != DJ__PEDESTRIAN && a->speed[m->leader] < 0.1f &&
         is_passable(w, m->leader, depth + 1);
}

static float margin_of(const dj__expert *e, const dj__agents *a, int i) {
  float m = 0.35f;
  if (a->kind[i] == DJ__PEDESTRIAN)
    m = 0.7f;
  else if (a->kind[i] == DJ__CYCLIST || a->kind[i] == DJ__MOTORCYCLE)
    m = 0.6f;
  else if (a->flags[i] & (DJ__AGENT_PARKED | DJ__AGENT_STATIC))
    m = 0.4f;
  bool stands = fabsf(a->speed[i]) < 0.1f && a->kind[i] != DJ__PEDESTRIAN;
  if (stands && e->waited > 3) m *= 0.28f; /* squeezes by, slowly */
  return m * (float)e->scale;
}

void dj__expert_see(dj__expert *e, const dj__world *w) {
  int near[NEAR];
  const dj__agents *a = &w->agents;
  double reach = (130 + 5 * e->v) * e->scale + 10;
  int n = dj__world_near(w, a->x[0], a->y[0], reach, near, NEAR);
  double half = 0.5 * e->model->length, lane = 0.5 * e->model->width;
  e->n_seen = 0;
  for (int k = 0; k < n && e->n_seen < DJ__SEEN; k++) {
    int i = near[k];
    if (i == 0 || !(a->flags[i] & DJ__AGENT_LIVE)) continue;
    dj__seen *o = &e->seen[e->n_seen];
    *o = (dj__seen){.agent = i,
                    .kind = a->kind[i],
                    .person = a->kind[i] == DJ__PEDESTRIAN,
                    .passable = is_passable(w, i, 0),
                    .v = (double)a->speed[i],
                    .length = a->length[i],
                    .width = a->width[i],
                    .margin = margin_of(e, a, i)};
    forecast(e, w, i, o);
    if (o->person && !(a->flags[i] & DJ__AGENT_CROSSING)) keep_beside(o);
    if (o->to < o->from) continue;
    const dj__box *b = &o->at[0];
    double way = dj__guide_at(&e->guide, 0.5 * (double)(b->lo + b->hi)).yaw;
    o->oncoming = !o->person && cos((double)a->yaw[i] - way) < -0.5;
    double d = dj__swerve_at(&e->way, e->mid, NULL, NULL);
    o->behind = b->hi < (float)(e->mid + half * 0.5) && b->lo < (float)(e->mid - half) &&
                b->left > (float)(d - lane) && b->right < (float)(d + lane);
    e->n_seen++;
  }
}
