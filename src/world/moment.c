/*
 * A moment: what labels need of the world at one step, copied, so that labels can be made seconds
 * later, when the future is known. The route ahead is drawn from the middle of its lanes, with
 * changes of lane drawn out over 30 m.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "world/labels.h"

#define ROUTE_STEP    2.5  /* m between its points */
#define CHANGE_LENGTH 30.0 /* m of a change of lane */
#define LIGHT_AHEAD   150.0

static dj_status take_bodies(const dj__world *w, dj__moment *m) {
  const dj__agents *a = &w->agents;
  if (m->cap < a->n) {
    dj__body *grown = realloc(m->body, (size_t)a->n * sizeof *grown);
    if (!grown) return dj_error(DJ_E_NOMEM, "labels: no memory for %d agents", a->n);
    m->body = grown;
    m->cap = a->n;
  }
  m->n_body = 0;
  for (int i = 1; i < a->n; i++) {
    if (!(a->flags[i] & DJ__AGENT_LIVE)) continue;
    m->body[m->n_body++] = (dj__body){.id = a->id[i],
                                      .kind = a->kind[i],
                                      .flags = a->flags[i],
                                      .lamps = a->lamps[i],
                                      .x = a->x[i],
                                      .y = a->y[i],
                                      .z = a->z[i],
                                      .yaw = a->yaw[i],
                                      .speed = a->speed[i],
                                      .yaw_rate = a->yaw_rate[i],
                                      .length = a->length[i],
                                      .width = a->width[i],
                                      .height = a->height[i]};
  }
  return DJ_OK;
}

static void take_ego(const dj__world *w, dj__moment *m) {
  const dj__ego *e = &w->ego;
  const dj__agents *a = &w->agents;
  const dj__vehicle_model *v = e->model;
  double rear = v->wheelbase - v->cg_front; // from the centre of gravity backwards
  m->time = (double)w->step * DJ__WORLD_DT;
  m->yaw = e->yaw;
  m->pitch = a->pitch[0];
  m->roll = a->roll[0];
  // As dj__scene_of has it, so that labels and pictures agree.
  m->x = e->x - rear * cos(e->yaw);
  m->y = e->y - rear * sin(e->yaw);
  m->z = dj__map_height(w->map, m->x, m->y);
  m->speed = e->vx;
  m->accel = e->ax;
  m->yaw_rate = e->yaw_rate;
  m->length = (float)v->length;
  m->front = (float)(v->front + v->wheelbase);
  m->kind = v->kind;
  m->weather = w->config.weather;
  m->lane = w->route_at < w->route.n ? w->route.lane[w->route_at] : -1;
}

static void take_light(const dj__world *w, dj__moment *m) {
  static const dj_light_state states[] = {[DJ__LIGHT_OFF] = DJ_LIGHT_NONE,
                                          [DJ__LIGHT_RED] = DJ_LIGHT_RED,
                                          [DJ__LIGHT_RED_YELLOW] = DJ_LIGHT_RED_YELLOW,
                                          [DJ__LIGHT_GREEN] = DJ_LIGHT_GREEN,
                                          [DJ__LIGHT_YELLOW] = DJ_LIGHT_YELLOW};
  double half = 0.5 * m->length;
  m->light = DJ_LIGHT_NONE;
  for (int k = w->route_at; k < w->route.n; k++) {
    int stop = w->map->lane[w->route.lane[k]].stop;
    if (w->route_from[k] - w->route_s > LIGHT_AHEAD) return;
    if (stop < 0 || w->map->stop[stop].control != DJ__CONTROL_LIGHTS) continue;
    double d = w->route_from[k] + w->map->stop[stop].s - w->route_s - half;
    if (d < -1) continue; // crossed
    if (d > LIGHT_AHEAD) return;
    dj__place p;
    dj__map_at(w->map, w->route.lane[k], w->map->stop[stop].s, 0, &p);
    m->light = states[dj__world_light(w, stop)];
    m->light_distance = d;
    memcpy(m->light_at, (double[3]){p.x, p.y, p.z}, sizeof m->light_at);
    return;
  }
}

/* Point of the route `d` m ahead; false behind its end. */
static bool route_point(const dj__world *w, double d, double out[3]) {
  const dj__route *r = &w->route;
  double along = w->route_s + d;
  int k = w->route_at;
  while (k + 1 < r->n && w->route_from[k + 1] > w->route_from[k] && w->route_from[k + 1] <= along)
    k++;
  // Lanes beside each other begin at the same place: the first is entered, the last is left.
  int first = k, last = k;
  for (;;) {
    while (last + 1 < r->n && w->route_from[last + 1] == w->route_from[k]) last++;
    if (last + 1 >= r->n || w->route_from[last + 1] > along) break;
    first = k = ++last;
  }
  bool here = first <= w->route_at && w->route_at <= last;
  double s = along - w->route_from[k], since = here ? d : s;
  if (last == r->n - 1 && s > r->end + 0.5 && d > 0) return false;
  double share = first == last ? 1 : fmin(fmax(since / CHANGE_LENGTH, 0), 1);
  dj__place a, b;
  dj__map_at(w->map, r->lane[here ? w->route_at : first], s, 0, &a);
  dj__map_at(w->map, r->lane[last], s, 0, &b);
  share = share * share * (3 - 2 * share);
  out[0] = a.x + share * (b.x - a.x);
  out[1] = a.y + share * (b.y - a.y);
  out[2] = a.z + share * (b.z - a.z);
  return true;
}

static void take_route(const dj__world *w, dj__moment *m) {
  m->n_route = 0;
  for (int i = 0; i < DJ__MOMENT_ROUTE && i * ROUTE_STEP <= DJ__ROUTE_AHEAD; i++) {
    if (!route_point(w, i * ROUTE_STEP, m->route[m->n_route])) return;
    m->n_route++;
  }
}

static void take_events(const dj__world *w, dj__moment *m) {
  m->n_event = 0;
  for (int i = 0; i < w->n_event && m->n_event < DJ__MOMENT_EVENTS; i++) {
    const dj__event *e = &w->event[i];
    if (e->start > w->step || (e->end && e->end < w->step)) continue;
    bool known = e->agent >= 0 && e->agent < w->agents.n;
    m->event[m->n_event].kind = e->kind;
    m->event[m->n_event].agent = known ? w->agents.id[e->agent] : 0;
    m->event[m->n_event].age = (double)(w->step - e->start) * DJ__WORLD_DT;
    m->event[m->n_event].x = e->x;
    m->event[m->n_event].y = e->y;
    m->event[m->n_event++].z = e->z;
  }
}

dj_status dj__moment_take(const dj__world *w, dj__moment *m) {
  DJ_TRY(take_bodies(w, m));
  take_ego(w, m);
  take_light(w, m);
  take_route(w, m);
  take_events(w, m);
  return DJ_OK;
}
