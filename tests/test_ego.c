/* The ego's physics against closed forms. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "world/ego.h"

#define G 9.81

static dj__ego at_speed(const char *name, double v) {
  const dj__vehicle_model *m = dj__vehicle_find(name);
  assert_non_null(m);
  dj__ego e;
  dj__ego_init(&e, m);
  dj__ego_place(&e, 0, 0, 0, v);
  return e;
}

static void assert_near(double a, double b, double tolerance) {
  if (!(fabs(a - b) <= tolerance)) fail_msg("%g is not within %g of %g", a, tolerance, b);
}

/* Steady circle: steer = L / R + K v^2 / R with the understeer gradient K = m / L (b / Cf - a / Cr)
 * (Rajamani 2012, eq. 3.15); speed is held by the throttle of a small controller. */
static void steady_circle(void **state) {
  (void)state;
  static const char *const names[] = {"car", "van", "lorry", "city-car"};
  for (int k = 0; k < 4; k++) {
    dj__ego e = at_speed(names[k], 12);
    const dj__vehicle_model *m = e.model;
    double a = m->cg_front, b = m->wheelbase - a;
    double under = m->mass / m->wheelbase * (b / m->cornering_front - a / m->cornering_rear);
    double steer = 0.03;
    for (int i = 0; i < 800; i++) {
      double push = 0.5 * (12 - e.vx) + 0.05;
      dj__command c = {(float)(steer / m->max_steer), (float)fmax(push, 0), 0};
      dj__ego_step(&e, &c, 0);
    }
    double v = hypot(e.vx, e.vy), radius = v / e.yaw_rate;
    double expected = (m->wheelbase + under * v * v) / e.steer;
    assert_near(e.steer, steer, 1e-6);
    assert_near(radius / expected, 1, 0.04);
    assert_near(e.ay, v * v / radius, 0.1);
  }
}

/* At a walking pace there is no slip: R = L / tan(steer). */
static void slow_circle(void **state) {
  (void)state;
  dj__ego e = at_speed("car", 0.9);
  dj__command c = {1, 0.02f, 0};
  for (int i = 0; i < 200; i++) {
    c.throttle = e.vx < 0.9 ? 0.1f : 0;
    dj__ego_step(&e, &c, 0);
  }
  assert_near(e.vx / e.yaw_rate, e.model->wheelbase / tan(e.model->max_steer), 0.02);
}

/* Brakes beyond the tyres' limit: v^2 / (2 mu g), after the pedal's delay and rise. */
static void braking_distance(void **state) {
  (void)state;
  for (int wet = 0; wet < 2; wet++) {
    dj__ego e = at_speed("car", 0);
    e.friction = wet ? 0.6 : 0.9;
    dj__command c = {0, 0, 1};
    for (int i = 0; i < 20; i++) dj__ego_step(&e, &c, 0); /* the pedal is down */
    dj__ego_place(&e, 0, 0, 0, 25);
    double x0 = e.x;
    for (int i = 0; i < 200 && e.vx > 0; i++) dj__ego_step(&e, &c, 0);
    assert_near(e.vx, 0, 1e-9);
    assert_near((e.x - x0) / (25 * 25 / (2 * e.friction * G)), 1, 0.04); /* drag helps */
    double x1 = e.x, yaw = e.yaw;
    for (int i = 0; i < 100; i++) dj__ego_step(&e, &c, 0);
    assert_true(e.x == x1 && e.yaw == yaw && e.vx == 0);
  }
}

/* Where power meets drag and rolling, or at the limiter. */
static void top_speed(void **state) {
  (void)state;
  for (int k = 0; k < dj__n_vehicle_models; k++) {
    const dj__vehicle_model *m = &dj__vehicle_models[k];
    dj__ego e = at_speed(m->name, 0);
    dj__command c = {0, 1, 0};
    for (int i = 0; i < 6000; i++) dj__ego_step(&e, &c, 0);
    double lo = 0, hi = 200; /* P = (drag v^2 + rolling m g) v */
    for (int i = 0; i < 60; i++) {
      double v = 0.5 * (lo + hi);
      bool less = (m->drag * v * v + m->rolling * m->mass * G) * v < m->max_power;
      *(less ? &lo : &hi) = v;
    }
    double expected = fmin(lo, m->max_speed);
    assert_near(e.vx / expected, 1, 0.02);
  }
}

static void first_acceleration(void **state) {
  (void)state;
  dj__ego e = at_speed("car", 0);
  dj__command c = {0, 1, 0};
  for (int i = 0; i < 30; i++) dj__ego_step(&e, &c, 0);
  assert_near(e.ax, e.model->max_accel - e.model->rolling * G, 0.05);
}

/* The command acts after its delay, and no faster than the actuator moves. */
static void delay_and_rate(void **state) {
  (void)state;
  dj__ego e = at_speed("car", 10);
  const dj__vehicle_model *m = e.model;
  dj__command none = {0}, full = {1, 0, 0};
  for (int i = 0; i < 20; i++) dj__ego_step(&e, &none, 0);
  double time = 0;
  while (e.steer == 0) {
    dj__ego_step(&e, &full, 0);
    time += DJ__WORLD_DT;
    assert_true(time < 1);
  }
  assert_true(time > m->steer_delay && time < m->steer_delay + 2 * DJ__WORLD_DT);
  double before = e.steer;
  dj__ego_step(&e, &full, 0);
  assert_near((e.steer - before) / DJ__WORLD_DT, m->steer_rate, 1e-6);
}

/* Nothing moves a vehicle that stands with its brakes on, whatever the wheel does, on any slope. */
static void standstill(void **state) {
  (void)state;
  for (int k = 0; k < dj__n_vehicle_models; k++) {
    dj__ego e = at_speed(dj__vehicle_models[k].name, 0);
    double x = e.x, y = e.y;
    for (int i = 0; i < 400; i++) {
      dj__command c = {i % 40 < 20 ? 1.0f : -1.0f, 0, 1};
      dj__ego_step(&e, &c, 0.12);
    }
    assert_true(e.x == x && e.y == y && e.vx == 0 && e.yaw == 0);
  }
}

/* From rest through the passage between the two models to speed and back, with full lock: finite,
 * and no faster sideways than friction allows. */
static void stable_everywhere(void **state) {
  (void)state;
  for (int k = 0; k < dj__n_vehicle_models; k++) {
    dj__ego e = at_speed(dj__vehicle_models[k].name, 0);
    for (int i = 0; i < 2000; i++) {
      dj__command c = {(float)sin(0.013 * i), i % 600 < 400 ? 1.0f : 0, i % 600 < 400 ? 0 : 0.7f};
      dj__ego_step(&e, &c, 0.05 * sin(0.01 * i));
      assert_true(isfinite(e.x) && isfinite(e.yaw) && isfinite(e.vy));
      double v = hypot(e.vx, e.vy);
      if (!(v < e.model->max_speed + 1 && fabs(e.yaw_rate) < 2 + v / e.model->wheelbase))
        fail_msg("%s step %d: vx %g vy %g yaw rate %g", e.model->name, i, e.vx, e.vy, e.yaw_rate);
      if (e.vx > 4) assert_true(fabs(e.ay) < e.friction * G * 1.05);
    }
  }
}

static void mirrored(void **state) {
  (void)state;
  dj__ego l = at_speed("van", 15), r = l;
  for (int i = 0; i < 600; i++) {
    float s = (float)(0.2 * sin(0.05 * i) + 0.05), p = (float)(0.3 + 0.3 * sin(0.02 * i));
    dj__ego_step(&l, &(dj__command){s, p, 0}, 0);
    dj__ego_step(&r, &(dj__command){-s, p, 0}, 0);
    assert_true(l.x == r.x && l.y == -r.y && l.yaw == -r.yaw && l.vy == -r.vy);
  }
}

/* Without drive a slope takes g sin(angle) away. */
static void slope(void **state) {
  (void)state;
  dj__ego e = at_speed("car", 20);
  dj__ego_step(&e, &(dj__command){0}, 0.1);
  const dj__vehicle_model *m = e.model;
  double expected = -G * 0.1 / hypot(1, 0.1) - m->rolling * G - m->drag * 400 / m->mass;
  assert_near(e.ax, expected, 0.02);
}

static void bad_commands(void **state) {
  (void)state;
  dj__ego e = at_speed("car", 10);
  for (int i = 0; i < 40; i++) dj__ego_step(&e, &(dj__command){NAN, NAN, NAN}, 0);
  for (int i = 0; i < 40; i++) dj__ego_step(&e, &(dj__command){INFINITY, 5, -3}, 0);
  assert_true(isfinite(e.x) && isfinite(e.vx) && isfinite(e.yaw));
  assert_true(e.throttle <= 1 && e.brake >= 0 && e.steer <= e.model->max_steer);
  assert_null(dj__vehicle_find("hovercraft"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(steady_circle),      cmocka_unit_test(slow_circle),
      cmocka_unit_test(braking_distance),   cmocka_unit_test(top_speed),
      cmocka_unit_test(first_acceleration), cmocka_unit_test(delay_and_rate),
      cmocka_unit_test(standstill),         cmocka_unit_test(stable_everywhere),
      cmocka_unit_test(mirrored),           cmocka_unit_test(slope),
      cmocka_unit_test(bad_commands),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
