/* What of a drive needs the map: where the ego is on its route, whether it keeps to the road, its
 * lane, lights and signs; and when a drive is over. */
#include <math.h>

#include "world/loop.h"
#include "world/traffic.h"

#define DEVIATED_M 30.0 /* from the route (CARLA's leaderboard) */
#define OFF_ROAD_S 3.0
#define BLOCKED_S  60.0
#define QUEUE_M    30.0 /* before a red light, where standing is what one has to do */
#define STANDS     0.1  /* m/s */
#define STOOD      0.3  /* m/s: at a stop sign */
#define SIGN_M     4.0  /* m before its line */
enum { NEAR = 96, KEPT = 40 };

dj_status dj__observer_start(dj__observer *o, const dj__world *w) {
  *o = (dj__observer){.stop_line = -1, .off_since = NAN, .stood_since = NAN};
  o->scale = w->ego.model->kind == DJ__RC_CAR ? 0.12 : 1;
  DJ_TRY(dj__guide_make(&o->guide, w->map, &w->route, o->scale < 1 ? 0.1 : 1, 30 * o->scale));
  (void)dj__guide_project(&o->guide, w->agents.x[0], w->agents.y[0], 0, 5, 60 * o->scale, &o->s,
                          &o->d);
  o->front = o->s + 0.5 * w->ego.model->length;
  return DJ_OK;
}

void dj__observer_end(dj__observer *o) {
  dj__guide_free(&o->guide);
}

/* ---- road and lanes ---- */
static uint16_t road_facts(dj__observer *o, const dj__world *w) {
  const dj__agents *a = &w->agents;
  double c = cos((double)a->yaw[0]), s = sin((double)a->yaw[0]);
  double l = 0.5 * w->ego.model->length, b = 0.5 * w->ego.model->width;
  bool corner = false;
  for (int k = 0; k < 4; k++) {
    double u = k & 1 ? l : -l, v = k & 2 ? b : -b;
    corner |= !dj__map_drivable(w->map, a->x[0] + c * u - s * v, a->y[0] + s * u + c * v, true);
  }
  if (!corner || (double)w->step * DJ__WORLD_DT > 3) o->inside = true;
  uint16_t f = 0;
  if (corner && o->inside) f |= DJ__FACT_CORNER_OFF;
  if (!dj__map_drivable(w->map, a->x[0], a->y[0], true)) f |= DJ__FACT_OFF_ROAD;
  return f;
}

/* Is something standing or slow in the own lane, that one may have to go round? */
static bool is_passing(const dj__observer *o, const dj__world *w) {
  int near[NEAR];
  const dj__agents *a = &w->agents;
  int n = dj__world_near(w, a->x[0], a->y[0], 45 * o->scale, near, NEAR);
  for (int k = 0; k < n; k++) {
    int i = near[k];
    if (i == 0 || fabsf(a->speed[i]) > 5) continue;
    double s, d;
    (void)dj__guide_project(&o->guide, a->x[i], a->y[i], o->s, 60 * o->scale, 60 * o->scale, &s,
                            &d);
    if (s > o->s - 18 * o->scale && s < o->s + 42 * o->scale && fabs(d) < 2.6 * o->scale)
      return true;
  }
  return false;
}

static uint16_t lane_facts(const dj__observer *o, const dj__world *w) {
  const dj__agents *a = &w->agents;
  const dj__map *m = w->map;
  double x = a->x[0], y = a->y[0], yaw = (double)a->yaw[0], s, t;
  int own = dj__map_nearest(m, x, y, yaw, 1u << DJ__LANE_DRIVING, 6 * o->scale, &s, &t);
  dj__place p = {0};
  if (own >= 0) dj__map_at(m, own, s, 0, &p);
  double turned = remainder(yaw - p.yaw, 2 * M_PI);
  double reach =
      0.5 * (w->ego.model->width * fabs(cos(turned)) + w->ego.model->length * fabs(sin(turned)));
  uint16_t f = 0;
  bool in_own = own >= 0 && fabs(t) <= 0.5 * p.width;
  if (own >= 0 && m->lane[own].junction < 0 && fabs(t) + reach > 0.5 * p.width)
    f |= DJ__FACT_MANY_LANES;
  if (in_own) return f;
  int any = dj__map_nearest(m, x, y, NAN, 1u << DJ__LANE_DRIVING, 6 * o->scale, &s, &t);
  if (any < 0 || m->lane[any].junction >= 0) return f;
  dj__map_at(m, any, s, 0, &p);
  if (fabs(t) <= 0.5 * p.width && cos(yaw - p.yaw) < 0) {
    f |= DJ__FACT_ONCOMING;
    if (is_passing(o, w)) f |= DJ__FACT_PASSING;
  }
  return f;
}

/* ---- lights and signs ---- */
static uint16_t line_facts(dj__observer *o, const dj__world *w) {
  const dj__map *m = w->map;
  double front = o->s + 0.5 * w->ego.model->length, v = w->ego.vx;
  uint16_t f = 0;
  for (int k = 0; k < o->guide.n_line; k++) {
    const dj__guide_line *l = &o->guide.line[k];
    const dj__stop_line *stop = &m->stop[l->stop];
    bool before = o->front <= l->s, near = before && front > l->s - SIGN_M;
    if (stop->control == DJ__CONTROL_STOP && near) {
      if (o->stop_line != k) o->slowest = v;
      o->stop_line = k;
      o->slowest = fmin(o->slowest, v);
    }
    if (!before || front <= l->s || fabs(o->d) > 5) continue; /* not passed in this step */
    if (stop->control == DJ__CONTROL_STOP && (o->stop_line != k || o->slowest > STOOD))
      f |= DJ__FACT_STOP_SIGN;
    dj__light light =
        stop->control == DJ__CONTROL_LIGHTS ? dj__world_light(w, l->stop) : DJ__LIGHT_OFF;
    if (light == DJ__LIGHT_RED || light == DJ__LIGHT_RED_YELLOW) f |= DJ__FACT_RED_LIGHT;
  }
  o->front = fmax(front, o->front - 2);
  return f;
}

/* ---- the record ---- */
static int gather(const dj__observer *o, const dj__world *w, dj__history_agent *out) {
  int near[NEAR], kept = 0;
  const dj__agents *a = &w->agents;
  double reach = fmax(3, (30 + 1.2 * w->ego.vx) * o->scale);
  int n = dj__world_near(w, a->x[0], a->y[0], reach, near, NEAR);
  for (int k = 0; k < n && kept < KEPT; k++) {
    int i = near[k];
    if (i == 0 || !(a->flags[i] & DJ__AGENT_LIVE)) continue;
    out[kept++] = (dj__history_agent){.id = a->id[i],
                                      .kind = a->kind[i],
                                      .flags = a->flags[i],
                                      .x = (float)a->x[i],
                                      .y = (float)a->y[i],
                                      .yaw = a->yaw[i],
                                      .speed = a->speed[i],
                                      .length = a->length[i],
                                      .width = a->width[i]};
  }
  return kept;
}

/* Whether the ego hits somebody by its own fault in the last step. */
static bool crashed(const dj__history *h) {
  const dj__history_step *s = &h->step[h->n_step - 1];
  for (int k = s->agent0; k < s->agent0 + s->n_agent; k++) {
    const dj__history_agent *a = &h->agent[k];
    if (dj__boxes_touch(s->x, s->y, s->yaw, h->length, h->width, (double)a->x, (double)a->y,
                        (double)a->yaw, (double)a->length, (double)a->width) &&
        dj__at_fault(h, s, a))
      return true;
  }
  return false;
}

static bool lasts(double *since, bool now, double t, double seconds) {
  if (!now)
    *since = NAN;
  else if (isnan(*since))
    *since = t;
  return now && t - *since >= seconds;
}

static bool before_red(const dj__observer *o, const dj__world *w) {
  for (int k = 0; k < o->guide.n_line; k++) {
    const dj__guide_line *l = &o->guide.line[k];
    if (l->s < o->front || l->s > o->front + QUEUE_M * o->scale) continue;
    if (w->map->stop[l->stop].control != DJ__CONTROL_LIGHTS) continue;
    if (dj__world_light(w, l->stop) == DJ__LIGHT_RED) return true;
  }
  return false;
}

static bool is_over(dj__observer *o, const dj__world *w, double limit_s, dj__history *h) {
  const dj__history_step *s = &h->step[h->n_step - 1];
  bool off = lasts(&o->off_since, s->facts & DJ__FACT_OFF_ROAD, s->time, OFF_ROAD_S);
  bool stuck = fabs(w->ego.vx) < STANDS && !before_red(o, w);
  bool blocked = lasts(&o->stood_since, stuck, s->time, BLOCKED_S);
  if (crashed(h))
    h->end = DJ__END_COLLISION;
  else if (s->facts & DJ__FACT_DEVIATED)
    h->end = DJ__END_DEVIATED;
  else if (off)
    h->end = DJ__END_OFF_ROAD;
  else if (o->s >= o->guide.end - 2 * o->scale && fabs(o->d) < 6)
    h->end = DJ__END_ARRIVED;
  else if (blocked)
    h->end = DJ__END_BLOCKED;
  else if (s->time >= limit_s - 1e-9)
    h->end = DJ__END_TIME;
  else
    return false;
  return true;
}

dj_status dj__observer_step(dj__observer *o, const dj__world *w, double limit_s, dj__history *h,
                            bool *over) {
  const dj__agents *a = &w->agents;
  double window = fmax(4 * o->scale, 3 * w->ego.vx * DJ__WORLD_DT + 2 * o->scale);
  double off = dj__guide_project(&o->guide, a->x[0], a->y[0], o->s, window, window, &o->s, &o->d);
  if (off > 4 * o->scale) /* lost: anywhere near */
    off = dj__guide_project(&o->guide, a->x[0], a->y[0], o->s, 40 * o->scale, 60 * o->scale, &o->s,
                            &o->d);
  dj__history_step s = {.time = (double)w->step * DJ__WORLD_DT,
                        .x = a->x[0],
                        .y = a->y[0],
                        .yaw = (double)a->yaw[0],
                        .speed = w->ego.vx,
                        .ax = w->ego.ax,
                        .ay = w->ego.ay,
                        .yaw_rate = w->ego.yaw_rate,
                        .route_s = fmax(0, o->s),
                        .offset = o->d,
                        .limit = dj__guide_at(&o->guide, o->s).limit,
                        .steering = w->ego.command.steering,
                        .throttle = w->ego.command.throttle,
                        .brake = w->ego.command.brake};
  s.facts = road_facts(o, w) | lane_facts(o, w) | line_facts(o, w);
  if (off > DEVIATED_M * o->scale) s.facts |= DJ__FACT_DEVIATED;
  dj__history_agent near[KEPT];
  DJ_TRY(dj__history_add(h, &s, near, gather(o, w, near)));
  *over = is_over(o, w, limit_s, h);
  return DJ_OK;
}
