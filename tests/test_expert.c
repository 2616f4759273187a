/*
 * The expert on empty roads and in light traffic: it arrives, keeps to its lane and to the comfort
 * limits, stops at lights, comes back from offsets and turns, with every vehicle; guides and
 * swerves that it is made of.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "drive_fixture.h"
#include "world/expert.h"
#include "world/loop.h"
#include "world/pilot.h"

static dj__case make_case(dj__town_style style, uint64_t seed, const char *vehicle, double length) {
  dj__case c = {.town = {.seed = seed, .style = style, .hills = -1},
                .seed = seed,
                .seconds = style == DJ__TOWN_TRACK ? 40 : 120,
                .length = length};
  (void)snprintf(c.name, sizeof c.name, "%s-%d", vehicle, (int)seed);
  (void)snprintf(c.weather, sizeof c.weather, "clear");
  (void)snprintf(c.vehicle, sizeof c.vehicle, "%s", vehicle);
  return c;
}

static dj__drive_score drive(const dj__case *c, dj__history *h) {
  dj__map *m;
  dj__driver d;
  dj__drive_score s;
  fx_ok(dj__case_map(c, &m));
  fx_ok(dj__driver_expert(&d));
  fx_ok(dj__drive_case(c, m, &d, NULL, NULL, h));
  fx_ok(dj__score_drive(h, &s));
  dj__driver_destroy(&d);
  dj__map_destroy(m);
  return s;
}

static void empty_roads(void **state) {
  (void)state;
  static const struct {
    dj__town_style style;
    const char *vehicle;
    double length;
  } all[] = {{DJ__TOWN_GRID, "car", 200},    {DJ__TOWN_GRID, "city-car", 200},
             {DJ__TOWN_ORGANIC, "car", 200}, {DJ__TOWN_ORGANIC, "van", 200},
             {DJ__TOWN_RURAL, "car", 300},   {DJ__TOWN_MIXED, "city-car", 200},
             {DJ__TOWN_TRACK, "rc-car", 25}};
  for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
    dj__case c = make_case(all[k].style, 61 + k, all[k].vehicle, all[k].length);
    dj__history h;
    dj__drive_score s = drive(&c, &h);
    if (!s.arrived || s.failed || s.dac < 1 || s.comfort < 1)
      fail_msg("%s in a %s: %s after %.1f s, dac %g, comfort %g", c.name,
               dj__town_style_name(all[k].style), dj__end_name(s.end), s.seconds, s.dac, s.comfort);
    for (int i = 0; i < DJ__N_INFRACTIONS; i++) assert_int_equal(s.infraction[i], 0);
    double worst = 0;
    for (size_t i = 60; i < h.n_step; i++) worst = fmax(worst, fabs(h.step[i].offset));
    assert_true(worst < (all[k].style == DJ__TOWN_TRACK ? 0.1 : 0.8));
    dj__history_free(&h);
  }
}

static void a_lorry(void **state) {
  (void)state;
  dj__case c = make_case(DJ__TOWN_RURAL, 71, "lorry", 250);
  dj__history h;
  dj__drive_score s = drive(&c, &h);
  assert_int_equal(s.end, DJ__END_ARRIVED);
  assert_int_equal(s.infraction[DJ__LEFT_ROAD], 0);
  dj__history_free(&h);
}

/* Put aside and turned: it is back in its lane within a few seconds. */
static void recovers(void **state) {
  (void)state;
  for (int k = 0; k < 6; k++) {
    dj__case c = make_case(k % 2 ? DJ__TOWN_GRID : DJ__TOWN_ORGANIC, 81 + (uint64_t)k, "car", 150);
    c.kind = k < 3 ? DJ__CASE_OFFSET : DJ__CASE_TURNED;
    dj__history h;
    dj__drive_score s = drive(&c, &h);
    assert_false(s.failed);
    double early = 0;
    for (size_t i = 0; i < 40; i++) early = fmax(early, fabs(h.step[i].offset));
    if (k < 3) assert_true(early > 0.3);
    if (h.n_step > 160) assert_true(fabs(h.step[160].offset) < 0.6);
    dj__history_free(&h);
  }
}

/* However a narrow road's case puts it, there is a way to drive on without a corner off it. */
static void starts_can_be_mastered(void **state) {
  (void)state;
  static const dj__case_kind kinds[] = {DJ__CASE_TURNED, DJ__CASE_SPEED};
  for (int k = 0; k < 12; k++) {
    dj__case c = make_case(DJ__TOWN_RURAL, 131 + (uint64_t)k / 2, "car", 100);
    c.kind = kinds[k % 2];
    dj__history h;
    dj__drive_score s = drive(&c, &h);
    if (s.failed || s.dac < 1)
      fail_msg("%s, %s: %s", c.name, dj__case_name(c.kind), dj__end_name(s.end));
    dj__history_free(&h);
  }
}

static void red_lights(void **state) {
  (void)state;
  int stood = 0;
  for (int k = 0; k < 3; k++) {
    dj__case c = make_case(DJ__TOWN_GRID, 93 + (uint64_t)k, "car", 200);
    c.kind = DJ__CASE_RED_LIGHT;
    dj__history h;
    dj__drive_score s = drive(&c, &h);
    assert_int_equal(s.infraction[DJ__RAN_RED], 0);
    for (size_t i = 0; i < h.n_step; i++) stood += h.step[i].speed < 0.1;
    dj__history_free(&h);
  }
  assert_true(stood > 40); /* it did wait */
}

static void in_traffic(void **state) {
  (void)state;
  for (int k = 0; k < 4; k++) {
    dj__case c = make_case(k % 2 ? DJ__TOWN_ORGANIC : DJ__TOWN_GRID, 101 + (uint64_t)k, "car", 200);
    c.n_vehicle = 20, c.n_cyclist = 4, c.n_pedestrian = 15, c.n_parked = 20;
    dj__history h;
    dj__drive_score s = drive(&c, &h);
    for (int i = DJ__HIT_VEHICLE; i <= DJ__LEFT_ROAD; i++)
      if (s.infraction[i]) fail_msg("%s: %s", c.name, dj__infraction_name((dj__infraction)i));
    dj__history_free(&h);
  }
}

/* A step of driving takes less than a millisecond: reported, not asserted. */
static void speed(void **state) {
  (void)state;
  dj__case c = make_case(DJ__TOWN_GRID, 111, "car", 200);
  c.n_vehicle = 40, c.n_pedestrian = 20, c.n_parked = 30;
  dj__map *m;
  dj__world *w;
  dj__driver d;
  fx_ok(dj__case_map(&c, &m));
  fx_ok(dj__case_world(&c, m, &w));
  fx_ok(dj__driver_expert(&d));
  fx_ok(d.reset(d.self, w));
  double sum = 0;
  enum { STEPS = 200 };
  for (int i = 0; i < STEPS; i++) {
    struct timespec a, b;
    dj__command out;
    clock_gettime(CLOCK_MONOTONIC, &a);
    fx_ok(d.drive(d.self, &(dj__sense){0}, w, &out));
    clock_gettime(CLOCK_MONOTONIC, &b);
    sum += (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) * 1e-6;
    assert_true(fabsf(out.steering) <= 1 && out.throttle >= 0 && out.throttle <= 1 &&
                out.brake >= 0 && out.brake <= 1);
    dj__world_step(w, &out);
  }
  print_message("a step of the expert: %.3f ms\n", sum / STEPS);
  dj__driver_destroy(&d);
  dj__world_destroy(w);
  dj__map_destroy(m);
}

/* ---- parts ---- */
static void swerves(void **state) {
  (void)state;
  const dj__vehicle_model *m = dj__vehicle_find("car");
  dj__swerve w;
  dj__swerve_make(&w, 10, 0.5, 0.1, 2, 20, m);
  double slope, bend, h = 1e-4;
  fx_near(dj__swerve_at(&w, 10, &slope, &bend), 0.5, 1e-9);
  fx_near(slope, 0.1, 1e-9);
  fx_near(bend, 0, 1e-9);
  fx_near(dj__swerve_at(&w, 30, &slope, NULL), 2, 1e-9);
  fx_near(slope, 0, 1e-9);
  fx_near(dj__swerve_at(&w, 99, NULL, NULL), 2, 1e-9);
  for (double s = 11; s < 30; s += 1.7) {
    double a = dj__swerve_at(&w, s - h, NULL, NULL), b = dj__swerve_at(&w, s + h, NULL, NULL);
    double at = dj__swerve_at(&w, s, &slope, &bend);
    fx_near(slope, (b - a) / (2 * h), 1e-5);
    fx_near(bend, (a + b - 2 * at) / (h * h), 1e-3);
  }
  dj__swerve tight;
  dj__swerve_make(&tight, 10, 0, 0, 2, 8, m);
  assert_true(tight.speed < w.speed); /* the shorter, the slower */
}

static void guides(void **state) {
  (void)state;
  dj__map *m;
  dj__route r;
  dj__guide g;
  fx_ok(dj__map_generate(&(dj__town_config){.seed = 5, .style = DJ__TOWN_GRID}, &m));
  fx_ok(dj__map_random_route(m, 3, 300, &r));
  fx_ok(dj__guide_make(&g, m, &r, 1, 50));
  assert_true(g.end > 250 && g.n > 300);
  for (int i = 1; i < g.n; i++) { /* no jumps, and never far from even */
    double d = hypot(g.point[i].x - g.point[i - 1].x, g.point[i].y - g.point[i - 1].y);
    if (d > 2.2) fail_msg("a step of %.2f m at %d of %d", d, i, g.n);
  }
  for (double s = 5; s < g.end; s += 7.3) {
    dj__guide_point p = dj__guide_at(&g, s);
    double at, d;
    (void)dj__guide_project(&g, p.x - 1.2 * sin(p.yaw), p.y + 1.2 * cos(p.yaw), s, 10, 10, &at, &d);
    fx_near(d, 1.2, 0.15);
    fx_near(at, s, 1.2);
  }
  dj__guide_free(&g);
  free(r.lane);
  dj__map_destroy(m);
}

static void pedals(void **state) {
  (void)state;
  for (int k = 0; k < dj__n_vehicle_models; k++) {
    const dj__vehicle_model *m = &dj__vehicle_models[k];
    dj__command c;
    dj__pilot_pedals(m, 0.5, 0.3 * m->max_speed, 0, &c);
    assert_true(c.throttle > 0 && c.brake == 0);
    dj__pilot_pedals(m, -3, 0.3 * m->max_speed, 0, &c);
    assert_true(c.throttle == 0 && c.brake > 0 && c.brake < 1);
    dj__pilot_pedals(m, 0, 0, -0.2, &c);
    assert_true(c.brake > 0); /* holds on a hill */
    assert_true(dj__pilot_steering(m, 0.01, 5) > 0 && dj__pilot_steering(m, -0.01, 5) < 0);
    fx_near((double)dj__pilot_steering(m, 100, 1), 1, 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(swerves),    cmocka_unit_test(guides),
      cmocka_unit_test(pedals),     cmocka_unit_test(recovers),
      cmocka_unit_test(red_lights), cmocka_unit_test(empty_roads),
      cmocka_unit_test(a_lorry),    cmocka_unit_test(in_traffic),
      cmocka_unit_test(speed),      cmocka_unit_test(starts_can_be_mastered)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
