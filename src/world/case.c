/*
 * From a case of a suite to its map and its world: the route, how the ego starts, and what is
 * staged, all drawn from the case's seed.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "dojo/log.h"
#include "world/drive.h"

enum { TRIES = 256, STREAM = 0xca5e };

dj_status dj__case_map(const dj__case *c, dj__map **m) {
  *m = NULL;
  dj_status s = c->xodr[0] ? dj__map_read_xodr(c->xodr, m) : dj__map_generate(&c->town, m);
  return s ? dj_error_context(s, "case %s", c->name) : DJ_OK;
}

static int staged_event(dj__case_kind k) {
  switch (k) {
  case DJ__CASE_BLOCKED:
    return DJ__EVENT_BLOCKED;
  case DJ__CASE_CUT_IN:
    return DJ__EVENT_CUT_IN;
  case DJ__CASE_ONCOMING:
    return DJ__EVENT_ONCOMING;
  case DJ__CASE_RED_LIGHT:
    return DJ__EVENT_LIGHT_TURNS;
  case DJ__CASE_PEDESTRIAN:
    return DJ__EVENT_JAYWALKER;
  default:
    return -1;
  }
}

/* A route that has what the case's event needs, if one can be found; any other one otherwise: the
 * case is a plain route then, which is said. */
static dj_status find_route(const dj__case *c, const dj__map *m, dj__route *r) {
  const int event = staged_event(c->kind);
  int best = -1;
  for (uint64_t i = 0; i < TRIES && best < 2; i++) {
    dj__route next = {0};
    dj_status s = dj__map_random_route(m, c->seed + i, c->length, &next);
    int fits = s || event < 0 ? 2 : dj__event_fits(m, &next, event);
    if (!s && fits > best) {
      free(r->lane);
      *r = next;
      best = fits;
    } else {
      free(next.lane);
    }
    if (s && s != DJ_E_NOT_FOUND) return s;
  }
  if (best < 0) return dj_error(DJ_E_NOT_FOUND, "no route of %g m in %d tries", c->length, TRIES);
  if (best == 0)
    dj_message(DJ_LOG_WARN, "case %s: no route of %g m there has a place for '%s': driven without",
               c->name, c->length, dj__case_name(c->kind));
  return DJ_OK;
}

static double side(dj__rng *g) {
  return dj__rng_u32(g) & 1 ? 1 : -1;
}

static void start_of(const dj__case *c, const dj__map *m, const dj__route *r, dj__rng *g,
                     dj__world_config *w) {
  dj__place p;
  dj__map_at(m, r->lane[0], r->start, 0, &p);
  if (c->kind == DJ__CASE_OFFSET)
    w->start.offset = side(g) * dj__rng_uniform(g, 0.4f, 1.0f) * fmin(1, p.width / 3.5);
  if (c->kind == DJ__CASE_TURNED) w->start.yaw = side(g) * dj__rng_uniform(g, 4, 15) * (M_PI / 180);
  if (c->kind == DJ__CASE_SPEED) {
    bool fast = dj__rng_u32(g) & 1;
    w->start.speed =
        p.speed_limit * (fast ? dj__rng_uniform(g, 1.25f, 1.45f) : dj__rng_uniform(g, 0, 0.4f));
  }
}

dj_status dj__case_world(const dj__case *c, const dj__map *m, dj__world **w) {
  *w = NULL;
  dj__route route = {0};
  dj__rng g = {c->seed, STREAM, 0};
  dj__world_config o = dj__world_config_default(m, c->seed);
  dj_status s = dj__weather_find(c->weather, &o.weather);
  if (!s) s = find_route(c, m, &route);
  if (!s) {
    o.vehicle = c->vehicle;
    o.route = &route;
    o.n_vehicle = c->n_vehicle;
    o.n_cyclist = c->n_cyclist;
    o.n_pedestrian = c->n_pedestrian;
    o.n_parked = c->n_parked;
    o.unruly = c->unruly;
    o.roadworks = c->roadworks;
    o.start_time = dj__rng_uniform(&g, 0, 120);
    o.start.speed = -1;
    start_of(c, m, &route, &g, &o);
    o.staged.kind = staged_event(c->kind);
    o.staged.after = dj__rng_uniform(&g, 2, 6);
    s = dj__world_create(&o, w);
  }
  free(route.lane);
  return s ? dj_error_context(s, "case %s", c->name) : DJ_OK;
}
