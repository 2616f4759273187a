/*
 * The ego's physics. A single-track ("bicycle") model with three degrees of freedom (Rajamani 2012,
 * ch. 2; Kong et al., "Kinematic and dynamic vehicle models for autonomous driving control design",
 * IV 2015), load transfer between the axles, and Fiala's brush tyre (Fiala 1954; Pacejka, "Tire and
 * vehicle dynamics", 3rd ed. 2012, ch. 3), whose side force is limited by what the friction circle
 * leaves beside the longitudinal force. Slip angles lose their meaning at standstill, so below
 * walking pace the lateral states are those of the kinematic bicycle, with a smooth passage.
 *
 * Integrated by semi-implicit Euler at 400 Hz: the stiffest mode of the vehicles here is about 200
 * /s at the speed where the dynamic model begins to count. There is no reverse gear, and brakes (or
 * a hill holder) keep a standing vehicle standing.
 */
#include "world/ego.h"

#include <math.h>
#include <string.h>

#define G 9.81

static double clampd(double x, double lo, double hi) {
  return x < lo ? lo : x > hi ? hi : x;
}

double dj__ego_middle_ahead(const dj__vehicle_model *m) {
  return m->cg_front + m->front - 0.5 * m->length;
}

void dj__ego_init(dj__ego *e, const dj__vehicle_model *m) {
  memset(e, 0, sizeof *e);
  e->model = m;
  e->friction = 0.9;
}

void dj__ego_place(dj__ego *e, double x, double y, double yaw, double speed) {
  double d = dj__ego_middle_ahead(e->model);
  e->x = x - d * cos(yaw);
  e->y = y - d * sin(yaw);
  e->yaw = yaw;
  e->vx = speed;
  e->vy = e->yaw_rate = e->ax = e->ay = 0;
}

void dj__ego_middle(const dj__ego *e, double *x, double *y) {
  double d = dj__ego_middle_ahead(e->model);
  *x = e->x + d * cos(e->yaw);
  *y = e->y + d * sin(e->yaw);
}

/* The command that was given `delay` s before the substep `k` of the present step; before the first
 * one everything is zero. */
static const dj__command *delayed(const dj__ego *e, int k, double delay) {
  int sub = (int)lrint(DJ__WORLD_DT / DJ__EGO_DT);
  int late = (int)lrint(delay / DJ__EGO_DT) - k; /* substeps before this step's start */
  int steps = late > 0 ? (late + sub - 1) / sub : 0;
  if (steps > DJ__EGO_QUEUE - 1) steps = DJ__EGO_QUEUE - 1;
  return &e->queue[(e->at + DJ__EGO_QUEUE - steps) % DJ__EGO_QUEUE];
}

static double towards(double x, double target, double most) {
  return x + clampd(target - x, -most, most);
}

static void actuate(dj__ego *e, int k) {
  const dj__vehicle_model *m = e->model;
  const dj__command *s = delayed(e, k, m->steer_delay), *p = delayed(e, k, m->pedal_delay);
  e->steer = towards(e->steer, clampd((double)s->steering, -1, 1) * m->max_steer,
                     m->steer_rate * DJ__EGO_DT);
  e->throttle = towards(e->throttle, clampd((double)p->throttle, 0, 1), m->pedal_rate * DJ__EGO_DT);
  e->brake = towards(e->brake, clampd((double)p->brake, 0, 1), m->pedal_rate * DJ__EGO_DT);
}

/* Fiala's brush model: N to the left for a slip angle (positive: the wheel slides to the left). */
static double side_force(double stiffness, double slip, double most) {
  if (most <= 0) return 0;
  double t = tan(slip), limit = 3 * most / stiffness;
  if (fabs(t) >= limit) return t > 0 ? -most : most;
  double r = stiffness * t / (3 * most);
  return -most * 3 * r * (1 - fabs(r) + r * r / 3);
}

/* Longitudinal force wanted at the tyres: motor limited by power and top speed, brakes. */
static double pedal_force(const dj__ego *e) {
  const dj__vehicle_model *m = e->model;
  double v = e->vx, drive = e->throttle * m->max_accel * m->mass;
  double power = m->max_power / fmax(v, 0.1);
  if (drive > power) drive = power;
  drive *= clampd((m->max_speed - v) / (0.02 * m->max_speed), 0, 1); /* speed limiter */
  return drive - e->brake * m->max_brake * m->mass;
}

typedef struct lateral {
  double vy, yaw_rate;
} lateral;

/* What the kinematic bicycle has at this speed: no slip at either axle. */
static lateral kinematic(const dj__vehicle_model *m, double v, double steer) {
  double r = v * tan(steer) / m->wheelbase;
  return (lateral){r * (m->wheelbase - m->cg_front), r};
}

static void substep(dj__ego *e, double slope) {
  const dj__vehicle_model *m = e->model;
  const double h = DJ__EGO_DT, lf = m->cg_front, lr = m->wheelbase - lf;
  double cs = cos(e->steer), sn = sin(e->steer), v = e->vx;
  double load = m->mass * G, shift = clampd(e->ax, -G, G) * m->cg_height / G;
  double fzf = load * clampd((lr - shift) / m->wheelbase, 0.05, 0.95), fzr = load - fzf;
  double fx = clampd(pedal_force(e), -e->friction * load, e->friction * load);
  double fxf = fx * fzf / load, fxr = fx * fzr / load;
  double mf = e->friction * fzf, mr = e->friction * fzr;
  /* dynamic model */
  double vs = fmax(v, 0.1);
  double fyf = side_force(m->cornering_front, atan2(e->vy + lf * e->yaw_rate, vs) - e->steer,
                          sqrt(fmax(mf * mf - fxf * fxf, 0)));
  double fyr = side_force(m->cornering_rear, atan2(e->vy - lr * e->yaw_rate, vs),
                          sqrt(fmax(mr * mr - fxr * fxr, 0)));
  double low = 0.6 * sqrt(m->wheelbase), high = 3 * low;
  double t = clampd((hypot(v, e->vy) - low) / (high - low), 0, 1), dynamic = t * t * (3 - 2 * t);
  double resist = m->drag * v * v + (v > 0 ? m->rolling * load : 0);
  double along = fxf * cs + fxr - dynamic * fyf * sn - resist - load * slope / hypot(1, slope);
  double ax = along / m->mass; /* felt: without the rotation of the frame */
  double vx1 = v + h * (ax + dynamic * e->yaw_rate * e->vy);
  if (vx1 < 0) vx1 = 0;
  double ay = (fyf * cs + fxf * sn + fyr) / m->mass;
  lateral d = {e->vy + h * (ay - e->yaw_rate * v),
               e->yaw_rate + h * (lf * (fyf * cs + fxf * sn) - lr * fyr) / m->yaw_inertia};
  lateral k = kinematic(m, vx1, e->steer);
  e->ax = v == 0 && vx1 == 0 ? 0 : ax;
  e->ay = dynamic * ay + (1 - dynamic) * k.yaw_rate * vx1;
  e->vx = vx1;
  e->vy = dynamic > 0 ? dynamic * d.vy + (1 - dynamic) * k.vy : k.vy;
  e->yaw_rate = dynamic > 0 ? dynamic * d.yaw_rate + (1 - dynamic) * k.yaw_rate : k.yaw_rate;
  double yaw = e->yaw + 0.5 * h * e->yaw_rate; /* midpoint: circles close */
  e->x += h * (e->vx * cos(yaw) - e->vy * sin(yaw));
  e->y += h * (e->vx * sin(yaw) + e->vy * cos(yaw));
  e->yaw += h * e->yaw_rate;
}

static float number(float x) {
  return isfinite(x) ? x : 0; /* what is no number moves nothing */
}

void dj__ego_step(dj__ego *e, const dj__command *c, double slope) {
  e->command = (dj__command){number(c->steering), number(c->throttle), number(c->brake)};
  e->at = (e->at + 1) % DJ__EGO_QUEUE;
  e->queue[e->at] = e->command;
  int sub = (int)lrint(DJ__WORLD_DT / DJ__EGO_DT);
  for (int k = 0; k < sub; k++) {
    actuate(e, k);
    substep(e, slope);
  }
  if (e->yaw > M_PI) e->yaw -= 2 * M_PI;
  if (e->yaw <= -M_PI) e->yaw += 2 * M_PI;
}
