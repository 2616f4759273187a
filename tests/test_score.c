/* Scores of hand-made drives: each component, faults, infractions, and figures over many drives. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "world/score.h"
#include "world/world.h"

/* A drive straight along x at `speed` for `seconds`, at 20 Hz, nobody near. */
static dj__history straight(double speed, double seconds) {
  dj__history h = {.length = 4.5,
                   .width = 1.8,
                   .route_length = speed * seconds,
                   .par = NAN,
                   .passengers = true,
                   .end = DJ__END_ARRIVED};
  for (int i = 0; i <= lround(seconds / DJ__WORLD_DT); i++) {
    double t = i * DJ__WORLD_DT;
    dj__history_step s = {
        .time = t, .x = speed * t, .speed = speed, .route_s = speed * t, .limit = 14};
    assert_int_equal(dj__history_add(&h, &s, NULL, 0), DJ_OK);
  }
  return h;
}

/* Adds somebody to every step: at (x, y) at the start, moving with (speed, yaw). */
static void add_agent(dj__history *h, dj__kind kind, double x, double y, double yaw, double speed) {
  dj__history with = *h;
  with.step = NULL, with.agent = NULL;
  with.n_step = with.cap_step = with.n_agent = with.cap_agent = 0;
  for (size_t i = 0; i < h->n_step; i++) {
    dj__history_agent all[8];
    int n = h->step[i].n_agent;
    for (int k = 0; k < n; k++) all[k] = h->agent[h->step[i].agent0 + k];
    double d = speed * h->step[i].time;
    all[n] = (dj__history_agent){.id = (uint32_t)(10 + n),
                                 .kind = (uint8_t)kind,
                                 .x = (float)(x + d * cos(yaw)),
                                 .y = (float)(y + d * sin(yaw)),
                                 .yaw = (float)yaw,
                                 .speed = (float)speed,
                                 .length = kind == DJ__PEDESTRIAN ? 0.5f : 4.5f,
                                 .width = kind == DJ__PEDESTRIAN ? 0.5f : 1.8f};
    assert_int_equal(dj__history_add(&with, &h->step[i], all, n + 1), DJ_OK);
  }
  dj__history_free(h);
  *h = with;
}

static dj__drive_score score(dj__history *h) {
  dj__drive_score s;
  assert_int_equal(dj__score_drive(h, &s), DJ_OK);
  dj__history_free(h);
  return s;
}

#define NEAR(a, b) assert_true(fabs((a) - (b)) < 1e-9)

static void test_faultless(void **state) {
  (void)state;
  dj__history h = straight(10, 20);
  add_agent(&h, DJ__CAR, 30, 3.5, 0, 10); // beside, at the same speed
  add_agent(&h, DJ__CAR, 300, 3.5, M_PI, 10);
  dj__drive_score s = score(&h);
  NEAR(s.pdms, 1);
  NEAR(s.driving_score, 100);
  NEAR(s.completion, 100);
  NEAR(s.km, 0.2005);
  assert_true(s.arrived && !s.failed && isnan(s.first_failure));
  for (int i = 0; i < DJ__N_INFRACTIONS; i++) assert_int_equal(s.infraction[i], 0);
}

static void test_collisions(void **state) {
  (void)state;
  dj__history h = straight(10, 20);
  add_agent(&h, DJ__CAR, 100, 0, 0, 0); // stands in the way: driven through, counts once
  dj__drive_score s = score(&h);
  assert_int_equal(s.infraction[DJ__HIT_VEHICLE], 1);
  NEAR(s.nc, 0);
  NEAR(s.ttc, 0);
  NEAR(s.pdms, 0);
  NEAR(s.driving_score, 60);
  assert_true(s.failed && s.first_failure > 9.4 && s.first_failure < 9.7);

  h = straight(10, 20);
  add_agent(&h, DJ__CONE, 100, 0, 0, 0);
  s = score(&h);
  assert_int_equal(s.infraction[DJ__HIT_THING], 1);
  NEAR(s.nc, 0.5);
  NEAR(s.pdms, 0.5 * 7 / 12);
  NEAR(s.driving_score, 65);

  h = straight(10, 20);
  add_agent(&h, DJ__PEDESTRIAN, 100, -8.2, M_PI / 2, 0.8); // walks into its way
  s = score(&h);
  assert_int_equal(s.infraction[DJ__HIT_PERSON], 1);
  NEAR(s.driving_score, 50);
}

static void test_no_fault(void **state) {
  (void)state;
  dj__history h = straight(5, 20);
  add_agent(&h, DJ__CAR, -40, 0, 0, 9); // runs into the ego from behind
  dj__drive_score s = score(&h);
  assert_int_equal(s.hit_by_others, 1);
  assert_int_equal(s.infraction[DJ__HIT_VEHICLE], 0);
  NEAR(s.nc, 1);

  h = straight(0, 20);
  h.route_length = 100;
  add_agent(&h, DJ__CAR, 40, 0, M_PI, 5); // hits the standing ego's front
  s = score(&h);
  assert_int_equal(s.hit_by_others, 1);
  NEAR(s.nc, 1);
  NEAR(s.ttc, 1);

  h = straight(5, 20); // from the side: its fault only if the ego lies in two lanes
  add_agent(&h, DJ__CAR, 46, -40, M_PI / 2, 4);
  s = score(&h);
  assert_int_equal(s.hit_by_others, 1);
  h = straight(5, 20);
  add_agent(&h, DJ__CAR, 46, -40, M_PI / 2, 4);
  for (size_t i = 0; i < h.n_step; i++) h.step[i].facts = DJ__FACT_MANY_LANES;
  s = score(&h);
  assert_int_equal(s.hit_by_others, 0);
  assert_int_equal(s.infraction[DJ__HIT_VEHICLE], 1);
}

static void test_time_to_collision(void **state) {
  (void)state;
  dj__history h = straight(10, 5); // ends 0.5 s before it would hit the one that stands ahead
  add_agent(&h, DJ__CAR, 50 + 4.5 + 5, 0, 0, 0);
  dj__drive_score s = score(&h);
  NEAR(s.nc, 1);
  NEAR(s.ttc, 0);
  NEAR(s.pdms, 7.0 / 12);
  h = straight(10, 5); // ... 1 s before
  add_agent(&h, DJ__CAR, 50 + 4.5 + 10, 0, 0, 0);
  s = score(&h);
  NEAR(s.ttc, 1);
}

static void test_comfort(void **state) {
  (void)state;
  const struct {
    double ax, ay, yaw_rate, comfort;
  } cases[] = {{2.3, 0, 0, 1}, {2.6, 0, 0, 0},  {-3.9, 0, 0, 1}, {-4.3, 0, 0, 0},
               {0, 4.7, 0, 1}, {0, -5.1, 0, 0}, {0, 0, 0.9, 1},  {0, 0, 1, 0}};
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    dj__history h = straight(10, 10);
    for (size_t i = 0; i < h.n_step; i++) {
      h.step[i].ax = cases[k].ax;
      h.step[i].ay = cases[k].ay;
      h.step[i].yaw_rate = cases[k].yaw_rate;
    }
    NEAR(score(&h).comfort, cases[k].comfort);
  }
  for (int k = 0; k < 2; k++) { // jerk: from 2 to -3.9 m/s^2 at 3.5 and 6 m/s^3
    dj__history h = straight(10, 10);
    for (size_t i = 0; i < 80; i++) h.step[i].ax = 2;
    for (size_t i = 80; i < h.n_step; i++)
      h.step[i].ax = fmax(-3.9, 2 - (k ? 6.0 : 3.5) * (h.step[i].time - 4));
    NEAR(score(&h).comfort, k ? 0 : 1);
  }
  dj__history h = straight(10, 10);
  h.passengers = false;
  for (size_t i = 0; i < h.n_step; i++) h.step[i].ax = 5;
  NEAR(score(&h).comfort, 1);
}

static void test_progress(void **state) {
  (void)state;
  dj__history h = straight(10, 20);
  h.par = 10; // the expert took half the time
  h.route_length = 200;
  dj__drive_score s = score(&h);
  NEAR(s.ep, 0.5);
  NEAR(s.pdms, (5 + 2 + 2.5) / 12);
  NEAR(s.completion, 100);

  h = straight(10, 20);
  h.route_length = 400;
  h.end = DJ__END_TIME;
  s = score(&h);
  NEAR(s.completion, 50);
  NEAR(s.ep, 0.5);
  assert_false(s.arrived);
  assert_false(s.failed); // slow is not a failure

  h = straight(10, 20);
  h.route_length = 400;
  h.end = DJ__END_BLOCKED;
  s = score(&h);
  assert_true(s.failed);
  assert_int_equal(s.infraction[DJ__BLOCKED], 1);
}

static void facts(dj__history *h, double from, double to, uint16_t bits) {
  for (size_t i = 0; i < h->n_step; i++)
    if (h->step[i].time >= from - 1e-9 && h->step[i].time < to - 1e-9) h->step[i].facts |= bits;
}

static void test_infractions(void **state) {
  (void)state;
  dj__history h = straight(10, 20);
  facts(&h, 2, 3, DJ__FACT_CORNER_OFF);
  dj__drive_score s = score(&h);
  NEAR(s.dac, 0);
  NEAR(s.pdms, 0);
  assert_int_equal(s.infraction[DJ__LEFT_ROAD], 0);

  h = straight(10, 20);
  facts(&h, 2, 3, DJ__FACT_OFF_ROAD);
  facts(&h, 3.5, 4, DJ__FACT_OFF_ROAD); // the same episode
  facts(&h, 10, 10.05, DJ__FACT_OFF_ROAD);
  s = score(&h);
  assert_int_equal(s.infraction[DJ__LEFT_ROAD], 2);
  assert_true(fabs(s.completion - 100 * (200 - 15.5) / 200) < 0.01);

  h = straight(10, 20);
  facts(&h, 2, 2.05, DJ__FACT_RED_LIGHT);
  facts(&h, 5, 5.05, DJ__FACT_STOP_SIGN);
  facts(&h, 8, 9, DJ__FACT_ONCOMING);
  facts(&h, 12, 12.1, DJ__FACT_ONCOMING); // 1 m: not yet
  facts(&h, 14, 16, DJ__FACT_ONCOMING | DJ__FACT_PASSING);
  s = score(&h);
  assert_int_equal(s.infraction[DJ__RAN_RED], 1);
  assert_int_equal(s.infraction[DJ__RAN_STOP], 1);
  assert_int_equal(s.infraction[DJ__WRONG_LANE], 1);
  NEAR(s.driving_score, 56);

  h = straight(16, 20);
  assert_int_equal(score(&h).infraction[DJ__SPEEDING], 0);
  h = straight(16.5, 20);
  assert_int_equal(score(&h).infraction[DJ__SPEEDING], 1);
}

static void test_suite(void **state) {
  (void)state;
  dj__drive_score s[20];
  for (int i = 0; i < 20; i++) {
    dj__history h = straight(10, 20);
    if (i % 5 == 0) add_agent(&h, DJ__CAR, 100, 0, 0, 0);
    s[i] = score(&h);
  }
  dj__suite_score a, b;
  assert_int_equal(dj__score_suite(s, 20, &a), DJ_OK);
  assert_int_equal(dj__score_suite(s, 20, &b), DJ_OK);
  assert_memory_equal(&a, &b, sizeof a);
  NEAR(a.pdms.value, 80);
  assert_true(a.pdms.low < 80 && a.pdms.low >= 50 && a.pdms.high > 80 && a.pdms.high <= 100);
  NEAR(a.arrived.value, 100);
  assert_int_equal(a.failures, 4);
  assert_true(fabs(a.km_between_failures.value - a.km / 4) < 1e-9);
  assert_true(a.km_between_failures.low < a.km_between_failures.value);
  assert_true(fabs(a.per_km[DJ__HIT_VEHICLE].value - 4 / a.km) < 1e-9);
  assert_int_equal(dj__score_suite(s + 1, 4, &a), DJ_OK); // nothing failed
  assert_true(isnan(a.km_between_failures.value));
  assert_true(fabs(a.km_between_failures.low - a.km / 3) < 1e-12);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_faultless),   cmocka_unit_test(test_collisions),
      cmocka_unit_test(test_no_fault),    cmocka_unit_test(test_time_to_collision),
      cmocka_unit_test(test_comfort),     cmocka_unit_test(test_progress),
      cmocka_unit_test(test_infractions), cmocka_unit_test(test_suite)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
