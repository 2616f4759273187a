/* The expert as a driver: its state, and following the path that was planned. */
#include "world/expert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "world/pilot.h"

#define CAR_LENGTH 4.7
#define RISE       2.4 /* m/s^3: how fast the wanted acceleration rises and falls, for comfort */
#define FALL       2.6
#define JERK       3.9    /* m/s^3: somewhat below nuPlan's limit */
#define WARY       (-1.6) /* m/s^2, while somebody comes towards it in its lane, far off */
enum { ALARM_STEPS = 2 }; /* for which an emergency has to last before all is done */

/* ---- where it is ---- */
static void find_itself(dj__expert *e, const dj__world *w) {
  const dj__ego *g = &w->ego;
  const dj__vehicle_model *m = g->model;
  double back = m->wheelbase - m->cg_front; /* from the centre of gravity to the rear axle */
  double x = g->x - back * cos(g->yaw), y = g->y - back * sin(g->yaw);
  double window = e->started ? (4 + e->v) * e->scale + 1 : 30 * e->scale + 5;
  (void)dj__guide_project(&e->guide, x, y, e->started ? e->s : 0, window, window, &e->s, &e->d);
  double mid, d;
  (void)dj__guide_project(&e->guide, w->agents.x[0], w->agents.y[0], e->s, 0, 2 * m->length, &mid,
                          &d);
  e->mid = mid;
  e->v = fmax(0, g->vx);
  e->direction = remainder(g->yaw - dj__guide_at(&e->guide, e->s).yaw, 2 * M_PI);
}

/* A way from where the vehicle is, in the direction it has, back to `to`. */
static void restart_way(dj__expert *e, double to) {
  double length = fmax(9 * e->scale, 2.4 * e->v * (e->scale < 1 ? 0.4 : 1));
  double slope = tan(fmax(-0.6, fmin(0.6, e->direction)));
  dj__swerve_make(&e->way, e->s, e->d, slope, to, length, e->model);
}

/* ---- following ---- */
/* Mean curvature of the guide, and of the swerve (added), over the way on which the wheels can be
 * turned by most of a bend's angle. */
static double curvature_ahead(const dj__expert *e, double s, double *swerve) {
  enum { SAMPLES = 6 };
  double way = e->v * 0.22 / e->model->steer_rate, sum = 0;
  for (int i = 0; i < SAMPLES; i++) {
    double at = s + way * i / (SAMPLES - 1), bend;
    (void)dj__swerve_at(&e->way, at, NULL, &bend);
    sum += dj__guide_at(&e->guide, at).curvature;
    *swerve += bend / SAMPLES;
  }
  return sum / SAMPLES;
}

/* How far to the inside of a bend the rear axle runs, so that what the box sweeps lies evenly about
 * the line: the inside is swept beside the rear axle, the outside by the front corner. */
static double swept_shift(const dj__vehicle_model *m, double curvature) {
  double front = m->wheelbase + m->front, half = 0.5 * m->wheelbase;
  double shift = curvature * (0.5 * half * half + 0.25 * (front * front - 2 * half * half));
  double most = 0.25 * m->width + 0.25 * half;
  return fmax(-most, fmin(most, shift));
}

static double steer(const dj__expert *e, const dj__world *w) {
  const dj__ego *g = &w->ego;
  const dj__vehicle_model *m = e->model;
  double delay = m->steer_delay + 0.5 * DJ__WORLD_DT;
  /* where the rear axle is once a command takes effect */
  double back = m->wheelbase - m->cg_front, turned = g->yaw_rate * delay;
  double yaw = g->yaw + turned, run = e->v * delay;
  double x = g->x - back * cos(g->yaw) + run * cos(g->yaw + 0.5 * turned);
  double y = g->y - back * sin(g->yaw) + run * sin(g->yaw + 0.5 * turned), s, d;
  (void)dj__guide_project(&e->guide, x, y, e->s + run, 3, 3, &s, &d);
  dj__guide_point p = dj__guide_at(&e->guide, s);
  double slope, bend = 0, to = dj__swerve_at(&e->way, s, &slope, NULL);
  double line = curvature_ahead(e, s, &bend);
  to += swept_shift(m, line) * fmax(0, 1 - 2 * fabs(to) / e->scale); /* not beside others */
  double direction = remainder(yaw - p.yaw - atan(slope / fmax(0.3, 1 - line * d)), 2 * M_PI);
  double reach = dj__pilot_reach(m, e->v);
  return dj__pilot_curvature(line + bend, d - to, direction, reach);
}

/* The least acceleration that, held from now on, no line fitted to 1.55 s of accelerations falls
 * faster than nuPlan's limit of jerk (4.13 m/s^3) with. */
static double least_accel(const dj__expert *e) {
  const double most = JERK / DJ__WORLD_DT * (2480 * DJ__WORLD_DT * DJ__WORLD_DT);
  double least = -HUGE_VAL;
  for (int k = 1; k <= DJ__RECENT; k++) { /* k of the 31 are still to come */
    double past = 0, weight = 0.5 * k * (31 - k);
    for (int i = 0; i <= 30 - k; i++)
      past += (15 - k - i) * (double)e->recent[(e->at + DJ__RECENT - 1 - (unsigned)i) % DJ__RECENT];
    least = fmax(least, (-most - past) / weight);
  }
  return least;
}

/* Somebody comes towards it in its lane: it slows down, whatever he is expected to do. */
static bool is_opposed(const dj__expert *e) {
  double front = e->mid + 0.5 * e->model->length;
  if (e->v < 3 || fabs(e->d) > 0.8 || e->scale < 1) return false;
  for (int k = 0; k < e->n_seen; k++) {
    const dj__seen *o = &e->seen[k];
    double gap = (double)o->at[0].lo - front,
           aside = 0.5 * (double)(o->at[0].left + o->at[0].right);
    if (o->oncoming && o->v > 2 && gap > 0 && gap < 8 * (e->v + o->v) && aside < 1.7 && aside > -2)
      return true;
  }
  return false;
}

/* The wanted acceleration as passengers bear it; all of it in an emergency. */
static double smooth_accel(dj__expert *e, const dj__plan *p) {
  double dt = DJ__WORLD_DT, wanted = p->accel, a = wanted;
  e->alarm = wanted < DJ__FIRMEST && dj__expert_emergency(e, p) ? e->alarm + 1 : 0;
  if (e->alarm <= ALARM_STEPS) {
    bool ends = e->at < DJ__RECENT || e->guide.end - e->mid < 1.6 * e->v + 2 * e->scale;
    double fall = ends ? 0.65 * FALL : wanted < -2.5 ? 8 : FALL;
    if (ends) a = fmin(a, e->accel + 0.7 * RISE * dt);   /* the fit has but one side there */
    if (e->v < 2.5 * e->scale && wanted < -1) fall = 10; /* inches count */
    a = fmax(fmax(a, DJ__FIRMEST), e->accel - fall * dt);
    a = fmax(a, fmin(0, least_accel(e)));
  }
  a = fmin(a, e->accel + (e->accel < DJ__FIRMEST ? 20 : RISE) * dt);
  e->recent[e->at++ % DJ__RECENT] = (float)a;
  return a;
}

dj_status dj__expert_reset(dj__expert *e, const dj__world *w) {
  dj__expert_clear(e);
  e->map = w->map;
  e->model = w->ego.model;
  e->ox = w->map->x0;
  e->oy = w->map->y0;
  e->scale = fmin(1, fmax(0.1, e->model->kind == DJ__RC_CAR ? e->model->length / CAR_LENGTH : 1));
  e->speed_factor = fmin(1, w->ego.friction / 0.85);
  double step = e->scale < 1 ? 0.1 : 1;
  DJ_TRY(dj__guide_make(&e->guide, w->map, &w->route, step, e->scale < 1 ? 12 : 220));
  e->v_max = calloc((size_t)e->guide.n + 1, sizeof *e->v_max);
  if (!e->v_max) return dj_error(DJ_E_NOMEM, "expert: no memory");
  DJ_TRY(dj__expert_study(e));
  dj__expert_speeds(e);
  return DJ_OK;
}

void dj__expert_clear(dj__expert *e) {
  dj__guide_free(&e->guide);
  free(e->v_max);
  free(e->meet);
  free(e->zebra);
  *e = (dj__expert){0};
}

static dj_status reset(void *self, const dj__world *w) {
  return dj__expert_reset(self, w);
}

static dj_status drive(void *self, const dj__sense *in, const dj__world *w, dj__command *out) {
  (void)in;
  dj__expert *e = self;
  find_itself(e, w);
  double off = e->started ? e->d - dj__swerve_at(&e->way, e->s, NULL, NULL) : HUGE_VAL;
  if (fabs(off) > 0.9 * e->scale) restart_way(e, e->started ? e->way.to : 0);
  if (!e->started) e->accel = 0;
  e->started = true;
  e->waited = e->v < 0.3 ? e->waited + DJ__WORLD_DT : e->v > 2 ? 0 : e->waited;
  dj__expert_see(e, w);
  dj__expert_rules(e, w);
  dj__expert_caps(e);
  dj__plan plan;
  dj__expert_plan(e, &plan);
  plan.accel = fmin(plan.accel, dj__expert_bumper(e, w));
  if (is_opposed(e)) plan.accel = fmin(plan.accel, WARY);
  e->way = plan.way;
  e->back = plan.back;
  e->accel = smooth_accel(e, &plan);
  double a = e->accel;
  if (e->v < 0.3 && plan.accel < 0.02) a = e->accel = fmin(e->accel, -0.8); /* stands firmly */
  *out = (dj__command){.steering = dj__pilot_steering(e->model, steer(e, w), e->v)};
  dj__pilot_pedals(e->model, a, e->v, dj__guide_at(&e->guide, e->s).slope, out);
  return DJ_OK;
}

static void destroy(void *self) {
  dj__expert_clear(self);
  free(self);
}

dj_status dj__driver_expert(dj__driver *d) {
  dj__expert *e = calloc(1, sizeof *e);
  if (!e) return dj_error(DJ_E_NOMEM, "expert: no memory");
  *d = (dj__driver){.name = "expert",
                    .period = DJ__WORLD_DT,
                    .privileged = true,
                    .reset = reset,
                    .drive = drive,
                    .destroy = destroy,
                    .self = e};
  return DJ_OK;
}
