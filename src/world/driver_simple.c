/* Drivers that need no cameras: constant, and a log's controls; what a navigator says. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dojo/drivelog.h"
#include "world/drive.h"
#include "world/pilot.h"

/* ---- the navigator ---- */
static bool beside(const dj__map *m, int lane, int other, int *side) {
  *side = m->lane[lane].left == other ? 1 : m->lane[lane].right == other ? -1 : 0;
  return *side != 0;
}

/* Command of a junction lane that is come to from `from`: a turn, or straight on where there is a
 * choice. */
static dj__route_command turn_of(const dj__map *m, int from, int lane) {
  switch (m->lane[lane].turn) {
  case DJ__TURN_LEFT:
  case DJ__TURN_BACK:
    return DJ__TURN_AHEAD_LEFT;
  case DJ__TURN_RIGHT:
    return DJ__TURN_AHEAD_RIGHT;
  default:
    return from >= 0 && m->lane[from].n_succ > 1 ? DJ__TURN_AHEAD_STRAIGHT : DJ__FOLLOW;
  }
}

dj__route_command dj__world_route_command(const dj__world *w) {
  const dj__map *m = w->map;
  const dj__route *r = &w->route;
  double scale = w->ego.model->kind == DJ__RC_CAR ? 0.12 : 1, s, t;
  double reach = fmax(30 * scale, 4 * w->ego.vx), way;
  int i = w->route_at < 0 ? 0 : w->route_at;
  if (i >= r->n) return DJ__FOLLOW;
  if (m->lane[r->lane[i]].junction >= 0) {
    dj__route_command c = turn_of(m, i ? r->lane[i - 1] : -1, r->lane[i]);
    if (c != DJ__FOLLOW) return c;
  }
  (void)dj__map_project(m, r->lane[i], w->agents.x[0], w->agents.y[0], -1, &s, &t);
  way = m->lane[r->lane[i]].length - s;
  for (; i + 1 < r->n; i++) {
    int side, next = r->lane[i + 1];
    if (beside(m, r->lane[i], next, &side)) /* somewhere along this lane */
      return side > 0 ? DJ__CHANGE_LEFT : DJ__CHANGE_RIGHT;
    if (way > reach) break;
    if (m->lane[next].junction >= 0) {
      dj__route_command c = turn_of(m, r->lane[i], next);
      if (c != DJ__FOLLOW) return c;
    }
    way += m->lane[next].length;
  }
  return DJ__FOLLOW;
}

/* ---- constant ---- */
typedef struct constant {
  const dj__vehicle_model *model;
  double speed; /* m/s; NaN: not yet known */
} constant;

static dj_status constant_reset(void *self, const dj__world *w) {
  *(constant *)self = (constant){w->ego.model, NAN};
  return DJ_OK;
}

static dj_status constant_drive(void *self, const dj__sense *in, const dj__world *w,
                                dj__command *out) {
  (void)w;
  constant *c = self;
  if (isnan(c->speed)) c->speed = in->speed;
  *out = (dj__command){0};
  dj__pilot_pedals(c->model, fmax(-2, fmin(2, c->speed - in->speed)), in->speed, 0, out);
  return DJ_OK;
}

dj_status dj__driver_constant(dj__driver *d) {
  constant *c = calloc(1, sizeof *c);
  if (!c) return dj_error(DJ_E_NOMEM, "constant driver: no memory");
  *d = (dj__driver){.name = "constant",
                    .period = DJ__WORLD_DT,
                    .reset = constant_reset,
                    .drive = constant_drive,
                    .destroy = free,
                    .self = c};
  return DJ_OK;
}

/* ---- recorded ---- */
typedef struct recorded {
  dj_drive *log;
  const dj_control *control;
  size_t n, at;
} recorded;

static dj_status recorded_reset(void *self, const dj__world *w) {
  (void)w;
  ((recorded *)self)->at = 0;
  return DJ_OK;
}

static float known(double v) {
  return isnan(v) ? 0 : (float)v;
}

/* The last control at or before the time, counted from the log's first one. */
static dj_status recorded_drive(void *self, const dj__sense *in, const dj__world *w,
                                dj__command *out) {
  (void)w;
  recorded *r = self;
  uint64_t t = r->control[0].t_ns + (uint64_t)llround(1e9 * in->time);
  while (r->at + 1 < r->n && r->control[r->at + 1].t_ns <= t) r->at++;
  const dj_control *c = &r->control[r->at];
  float throttle = known(c->throttle);
  *out = (dj__command){.steering = known(c->steering),
                       .throttle = fmaxf(0, throttle),
                       .brake = fmaxf(known(c->brake), fmaxf(0, -throttle))};
  return DJ_OK;
}

static void recorded_destroy(void *self) {
  dj_drive_close(((recorded *)self)->log);
  free(self);
}

dj_status dj__driver_recorded(const char *log, dj__driver *d) {
  *d = (dj__driver){0};
  recorded *r = calloc(1, sizeof *r);
  if (!r) return dj_error(DJ_E_NOMEM, "recorded driver: no memory");
  dj_status s = dj_drive_open(log, &r->log);
  if (!s) s = dj_drive_controls(r->log, &r->control, &r->n);
  if (!s && !r->n)
    s = dj_error(DJ_E_NOT_FOUND, "%s: no controls; a drive with /vehicle/control can be replayed",
                 log);
  if (s) {
    if (r->log) dj_drive_close(r->log);
    free(r);
    return s;
  }
  *d = (dj__driver){.name = "recorded",
                    .period = DJ__WORLD_DT,
                    .reset = recorded_reset,
                    .drive = recorded_drive,
                    .destroy = recorded_destroy,
                    .self = r};
  return DJ_OK;
}
