/* One ego and its traffic: creation, the order of a step, digest, copies. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "world/ego.h"
#include "world/events.h"
#include "world/traffic.h"

enum { MAX_AGENTS = 20000, SPARE = 48 };

const char *dj__kind_name(dj__kind k) {
  static const char *const names[DJ__N_KINDS] = {"car",        "van",     "lorry",      "bus",
                                                 "motorcycle", "cyclist", "pedestrian", "cone",
                                                 "barrier",    "rc-car"};
  return k >= 0 && k < DJ__N_KINDS ? names[k] : "?";
}

dj__world_config dj__world_config_default(const dj__map *m, uint64_t seed) {
  dj__world_config c = {.map = m,
                        .seed = seed,
                        .vehicle = "car",
                        .n_vehicle = 40,
                        .n_cyclist = 6,
                        .n_pedestrian = 20,
                        .n_parked = 30,
                        .radius = 250,
                        .unruly = 1,
                        .roadworks = 0.1,
                        .start = {.speed = -1},
                        .staged = {.kind = -1}};
  (void)dj__weather_find("clear", &c.weather);
  if (m->n_lane > 0 && m->lane[0].zone == DJ__ZONE_TRACK) {
    c.vehicle = "rc-car";
    c.n_vehicle = c.n_cyclist = c.n_pedestrian = c.n_parked = 0;
    c.radius = c.roadworks = 0;
  }
  return c;
}

double dj__world_time(const dj__world *w) {
  return w->config.start_time + (double)w->step * DJ__WORLD_DT;
}

dj__light dj__world_light(const dj__world *w, int stop) {
  return dj__traffic_light(w->traffic, stop);
}

/* ---- creation ---- */
static dj_status check(const dj__world_config *c) {
  if (!c->map || c->map->n_lane < 1)
    return dj_error(DJ_E_INVALID, "a world needs a map with lanes");
  const int counts[] = {c->n_vehicle, c->n_cyclist, c->n_pedestrian, c->n_parked};
  static const char *const names[] = {"vehicles", "cyclists", "pedestrians", "parked cars"};
  for (int k = 0; k < 4; k++)
    if (counts[k] < 0 || counts[k] > MAX_AGENTS)
      return dj_error(DJ_E_INVALID, "%d %s: 0 to %d", counts[k], names[k], MAX_AGENTS);
  if (!(c->radius >= 0) || !(c->unruly >= 0) || !(c->roadworks >= 0))
    return dj_error(DJ_E_INVALID, "radius %g m, unruly %g, roadworks %g per km: 0 or more each",
                    c->radius, c->unruly, c->roadworks);
  if (c->staged.kind < -1 || c->staged.kind >= DJ__N_EVENTS)
    return dj_error(DJ_E_INVALID, "staged event %d: -1 for none, 0 to %d", c->staged.kind,
                    DJ__N_EVENTS - 1);
  return DJ_OK;
}

static dj_status copy_route(dj__route *to, const dj__route *from) {
  *to = *from;
  to->lane = malloc((size_t)from->n * sizeof *to->lane);
  if (!to->lane) return dj_error(DJ_E_NOMEM, "no memory for a route of %d lanes", from->n);
  memcpy(to->lane, from->lane, (size_t)from->n * sizeof *to->lane);
  return DJ_OK;
}

static dj_status take_route(dj__world *w) {
  const dj__world_config *c = &w->config;
  if (!c->route) { /* shorter where the map is small */
    const double length = w->traffic->toy ? 30 : 500;
    const int halvings = w->traffic->toy ? 0 : 4;
    dj_status s = DJ_E_NOT_FOUND;
    for (int k = 0; k <= halvings && s == DJ_E_NOT_FOUND; k++)
      s = dj__map_random_route(c->map, c->seed, ldexp(length, -k), &w->route);
    return s;
  }
  if (c->route->n < 1) return dj_error(DJ_E_INVALID, "a route has at least one lane");
  for (int k = 0; k < c->route->n; k++)
    if (c->route->lane[k] < 0 || c->route->lane[k] >= c->map->n_lane)
      return dj_error(DJ_E_INVALID, "lane %d of the route is %d, the map has %d", k,
                      c->route->lane[k], c->map->n_lane);
  return copy_route(&w->route, c->route);
}

static bool follows(const dj__map *m, int a, int b) {
  for (int k = 0; k < m->lane[a].n_succ; k++)
    if (dj__succ(m, a, k) == b) return true;
  return false;
}

/* Distance along the route where each lane begins. Lanes beside share it. */
static dj_status measure_route(dj__world *w) {
  w->route_from = malloc((size_t)w->route.n * sizeof *w->route_from);
  if (!w->route_from) return dj_error(DJ_E_NOMEM, "no memory for a route of %d lanes", w->route.n);
  w->route_from[0] = -w->route.start;
  for (int k = 1; k < w->route.n; k++) {
    int before = w->route.lane[k - 1];
    w->route_from[k] =
        w->route_from[k - 1] +
        (follows(w->map, before, w->route.lane[k]) ? w->map->lane[before].length : 0);
  }
  return DJ_OK;
}

/* A speed with which the ego can begin: that of the bends on the next metres of its route (`firm`
 * m/s^2 sideways, and to brake with), and one from which it can stop before a line where it may
 * have to. */
static double start_speed(const dj__world *w, const dj__vehicle_model *model, double firm) {
  const dj__map *m = w->map;
  double way = 0, s = w->route.start, v2 = HUGE_VAL;
  for (int k = 0; k < w->route.n && way < 120; k++) {
    const dj__lane *l = &m->lane[w->route.lane[k]];
    bool aside =
        k + 1 < w->route.n && (w->route.lane[k + 1] == l->left || w->route.lane[k + 1] == l->right);
    for (int i = 0; i < l->n_point; i++) {
      const dj__lane_point *p = &m->point[l->point0 + i];
      double d = way + (double)p->s - s;
      if (d >= 0) v2 = fmin(v2, firm / (fabs((double)p->curvature) + 1e-4) + 2 * firm * d);
    }
    double line = l->stop >= 0 ? way + m->stop[l->stop].s - s - model->length : 0;
    if (l->stop >= 0 && line > -model->length) v2 = fmin(v2, 2 * firm * fmax(0, line));
    if (aside) continue;
    way += l->length - s;
    s = 0;
  }
  return sqrt(v2);
}

/* Turned by `yaw`: the speed at which it is straight again, 0.5 s from now and with 3 m/s^2
 * sideways, before a front corner leaves the road or gets 1 m into the lane beside. */
static double turned_speed(const dj__world *w, const dj__vehicle_model *model, double yaw) {
  if (yaw == 0) return HUGE_VAL;
  const dj__lane *l = &w->map->lane[w->route.lane[0]];
  double f, s = w->route.start;
  const dj__lane_point *p = dj__lane_at(w->map, w->route.lane[0], s, &f);
  double edge = yaw > 0 ? (double)p->left : (double)p->right, half = 0.5 * (double)p->width;
  if ((yaw > 0 ? l->left : l->right) >= 0 || (yaw > 0 && l->opposite >= 0))
    edge = fmin(edge, half + 1);
  double room = edge - 0.5 * model->width - 0.5 * model->length * fabs(sin(yaw));
  double aside = sqrt(1.5 * 1.5 + 6 * fmax(room, 0)) - 1.5; /* m/s: 0.5 v + v^2 / 6 = room */
  return fmax(aside / fabs(sin(yaw)), 1);
}

static void start_ego(dj__world *w, const dj__vehicle_model *model) {
  const dj__world_config *c = &w->config;
  dj__agents *a = &w->agents;
  dj__rng r = {c->seed, DJ__RNG_SPAWN, 0};
  dj__agent_dress(w->traffic, 0, model->kind, &r);
  a->length[0] = (float)model->length;
  a->width[0] = (float)model->width;
  a->height[0] = (float)model->height;
  w->traffic->mind[0].v_free = 10;
  dj__place p;
  dj__map_at(w->map, w->route.lane[0], w->route.start, c->start.offset, &p);
  double usual =
      fmin(fmin(0.8 * p.speed_limit, 0.9 * model->max_speed), start_speed(w, model, 1.5));
  double v = c->start.speed < 0 ? usual : fmin(c->start.speed, start_speed(w, model, 3));
  if (model->kind != DJ__RC_CAR) v = fmin(v, turned_speed(w, model, c->start.yaw));
  dj__ego_init(&w->ego, model);
  w->ego.friction = dj__road_friction(&c->weather);
  dj__ego_place(&w->ego, p.x, p.y, p.yaw + c->start.yaw, v);
}

/* What everyone sees of the ego. */
static void show_ego(dj__world *w) {
  dj__agents *a = &w->agents;
  const dj__ego *e = &w->ego;
  double height = w->map->point ? (double)a->z[0] : 0, slope = 0, s, t, f;
  dj__ego_middle(e, &a->x[0], &a->y[0]);
  a->yaw[0] = (float)e->yaw;
  a->speed[0] = (float)e->vx;
  a->accel[0] = (float)e->ax;
  a->yaw_rate[0] = (float)e->yaw_rate;
  a->steer[0] = (float)e->steer;
  int from = w->route_at > 0 ? w->route_at - 1 : 0, n = w->route.n - from;
  dj__external_lane(w->traffic, 0, w->route.lane + from, n > 5 ? 5 : n);
  if (a->lane[0] >= 0) {
    const dj__lane_point *p = dj__lane_at(w->map, a->lane[0], (double)a->s[0], &f);
    height = p[0].z + f * (p[1].z - p[0].z);
    slope = (double)p->slope * cos(e->yaw - (double)p->yaw);
  }
  (void)s, (void)t;
  a->z[0] = (float)height;
  a->pitch[0] = (float)(-atan(slope) - 0.004 * e->ax);
  a->roll[0] = (float)(0.006 * e->ay);
  w->slope = slope;
  uint8_t lamps = 0;
  if (e->brake > 0.02 || e->vx < 0.05) lamps |= DJ__LAMP_BRAKE;
  lamps |= a->lamps[0] & DJ__LAMP_HEAD;
  a->lamps[0] = lamps;
}

static void track_route(dj__world *w) {
  double best = 1e9, s, t;
  int at = w->route_at, last = at + 4 < w->route.n ? at + 4 : w->route.n - 1;
  for (int k = at > 0 ? at - 1 : 0; k <= last; k++) {
    double d =
        dj__map_project(w->map, w->route.lane[k], w->agents.x[0], w->agents.y[0], -1, &s, &t);
    double along = w->route_from[k] + s;
    /* the same place on two lanes of a loop: stay with the one that is near along the route */
    d += 0.05 * fabs(along - w->route_s);
    if (d < best - 1e-9) best = d, w->route_at = k, w->route_s = along;
  }
}

/* Nobody close ahead, on its way or where it looks, needs more than 2.5 m/s^2 of braking at once.
 */
static void slow_start(dj__world *w) {
  const dj__agents *a = &w->agents;
  const dj__ego *e = &w->ego;
  double c = cos(e->yaw), n = sin(e->yaw), v = e->vx;
  int near[96], count = dj__world_near(w, a->x[0], a->y[0], 100, near, 96);
  for (int k = 0; k < count; k++) {
    int i = near[k];
    if (i == 0 || a->kind[i] == DJ__PEDESTRIAN) continue;
    double dx = a->x[i] - a->x[0], dy = a->y[i] - a->y[0], ahead = dx * c + dy * n;
    double aside = fabs(dy * c - dx * n), s, t, turn = (double)a->yaw[i] - e->yaw;
    for (int l = 0; l < w->route.n && w->route_from[l] < 100; l++)
      if (dj__map_project(w->map, w->route.lane[l], a->x[i], a->y[i], -1, &s, &t) < 4 &&
          fabs(t) < aside && w->route_from[l] + s > 0) {
        double f;
        ahead = w->route_from[l] + s;
        aside = fabs(t);
        turn = (double)(a->yaw[i] - dj__lane_at(w->map, w->route.lane[l], s, &f)->yaw);
      }
    double gap = ahead - 0.5 * (double)(a->length[0] + a->length[i]) - 3;
    if (ahead < 0 || aside > 0.5 * (double)(a->width[0] + a->width[i]) + 0.4) continue;
    double its = fmax(0, (double)a->speed[i] * cos(turn));
    v = fmin(v, sqrt(its * its + 2 * 2.5 * fmax(gap, 0)));
  }
  w->ego.vx = v;
  w->agents.speed[0] = (float)v;
}

static bool is_dark(const dj__weather *w) {
  return w->sun_elevation < 0.1f || w->fog > 0.2f || w->rain > 0.3f;
}

static void light_heads(dj__traffic *t, bool on) {
  for (int i = 0; i < t->agents.n && on; i++)
    if ((t->agents.flags[i] & (DJ__AGENT_LIVE | DJ__AGENT_PARKED)) == DJ__AGENT_LIVE &&
        t->agents.kind[i] <= DJ__CYCLIST)
      t->agents.lamps[i] |= DJ__LAMP_HEAD;
}

static void sync(dj__world *w) {
  w->traffic->step = w->step;
  w->traffic->time = dj__world_time(w);
  w->traffic->home_x = w->agents.x[0];
  w->traffic->home_y = w->agents.y[0];
}

dj_status dj__world_create(const dj__world_config *c, dj__world **out) {
  *out = NULL;
  DJ_TRY(check(c));
  const char *name = c->vehicle ? c->vehicle : "car";
  const dj__vehicle_model *model = dj__vehicle_find(name);
  if (!model)
    return dj_error(DJ_E_INVALID,
                    "there is no vehicle '%s'; known are rc-car, city-car, car, van, "
                    "lorry",
                    name);
  dj__world *w = calloc(1, sizeof *w);
  if (!w) return dj_error(DJ_E_NOMEM, "no memory for a world");
  w->config = *c;
  w->config.vehicle = model->name;
  w->map = c->map;
  dj__net *net = NULL;
  dj__population p = {1, c->n_vehicle, c->n_cyclist, c->n_pedestrian, c->n_parked, SPARE};
  dj_status s;
  DJ_TRY_GOTO(s, dj__net_create(c->map, &net));
  p.n_spare += dj__roadworks_slots(net, c->roadworks);
  DJ_TRY_GOTO(s, dj__traffic_create(net, c->seed, &p, &w->traffic));
  dj__net_release(net);
  net = NULL;
  DJ_TRY_GOTO(s, take_route(w));
  DJ_TRY_GOTO(s, measure_route(w));
  w->config.route = &w->route;
  w->event = calloc(DJ__MAX_EVENTS, sizeof *w->event);
  if (!w->event) DJ_TRY_GOTO(s, dj_error(DJ_E_NOMEM, "no memory for events"));
  w->agents = w->traffic->agents;
  w->traffic->radius = c->radius;
  w->traffic->friction = dj__road_friction(&c->weather);
  /* heavy rain takes 5 to 10 % off free speeds (Hranac et al., "Empirical studies on traffic flow
   * in inclement weather", FHWA-HOP-07-073, 2006), fog more */
  w->traffic->wary = 1 - 0.08 * (double)c->weather.rain - 0.25 * (double)c->weather.fog;
  start_ego(w, model);
  show_ego(w);
  track_route(w);
  dj__events_prepare(w);
  sync(w);
  dj__traffic_register(w->traffic);
  dj__roadworks(w->traffic, c->roadworks, w->route.lane, w->route.n < 2 ? w->route.n : 2);
  dj__traffic_populate(w->traffic, &p);
  dj__events_clear(w);
  light_heads(w->traffic, is_dark(&c->weather));
  dj__traffic_hash(w->traffic);
  if (!w->traffic->toy) slow_start(w);
  *out = w;
  return DJ_OK;
fail:
  dj__net_release(net);
  dj__world_destroy(w);
  return s;
}

void dj__world_destroy(dj__world *w) {
  if (!w) return;
  dj__traffic_destroy(w->traffic);
  free(w->route.lane);
  free(w->route_from);
  free(w->event);
  free(w);
}

/* ---- steps ---- */
void dj__world_step(dj__world *w, const dj__command *ego) {
  dj__traffic *t = w->traffic;
  sync(w);
  dj__traffic_register(t);
  dj__events_step(w);
  dj__traffic_decide(t);
  dj__ego_step(&w->ego, ego, w->slope);
  dj__traffic_move(t);
  dj__pedestrians_move(t);
  show_ego(w);
  track_route(w);
  w->step++;
  sync(w);
  dj__traffic_respawn(t);
  light_heads(t, is_dark(&w->config.weather));
  dj__traffic_hash(t);
}

void dj__world_place_ego(dj__world *w, double x, double y, double yaw, double speed) {
  dj__ego_place(&w->ego, x, y, yaw, speed);
  show_ego(w);
  track_route(w);
  dj__traffic_hash(w->traffic);
}

uint64_t dj__world_digest(const dj__world *w) {
  const dj__ego *e = &w->ego;
  double state[] = {(double)w->step, e->x,     e->y,        e->yaw,
                    e->vx,           e->vy,    e->yaw_rate, e->ax,
                    e->ay,           e->steer, e->throttle, e->brake,
                    e->friction,     w->slope, w->route_s,  (double)w->route_at,
                    (double)e->at};
  uint64_t h = dj__hash64(state, sizeof state, 0);
  h = dj__hash64(e->queue, sizeof e->queue, h);
  for (int k = 0; k < w->n_event; k++) {
    const dj__event *v = &w->event[k];
    double row[] = {
        (double)v->kind, (double)v->start, (double)v->end, (double)v->agent, v->x, v->y};
    h = dj__hash64(row, sizeof row, h);
  }
  h = dj__events_digest(w, h);
  return dj__traffic_digest(w->traffic, h);
}

dj_status dj__world_clone(const dj__world *w, dj__world **copy) {
  *copy = NULL;
  dj__world *c = malloc(sizeof *c);
  if (!c) return dj_error(DJ_E_NOMEM, "no memory for a copy of a world");
  *c = *w;
  c->traffic = NULL;
  c->route.lane = NULL;
  c->route_from = NULL;
  c->event = NULL;
  dj_status s;
  DJ_TRY_GOTO(s, dj__traffic_clone(w->traffic, &c->traffic));
  DJ_TRY_GOTO(s, copy_route(&c->route, &w->route));
  DJ_TRY_GOTO(s, measure_route(c));
  c->event = malloc(DJ__MAX_EVENTS * sizeof *c->event);
  if (!c->event) DJ_TRY_GOTO(s, dj_error(DJ_E_NOMEM, "no memory for events"));
  memcpy(c->event, w->event, (size_t)w->n_event * sizeof *c->event);
  c->agents = c->traffic->agents;
  c->config.route = &c->route;
  *copy = c;
  return DJ_OK;
fail:
  dj__world_destroy(c);
  return s;
}
