/*
 * The closed loop: the same drive every time and at any number of threads, commands that come late,
 * ends and facts of drives, logs as drivers, what a navigator says; a suite's figures to the digit.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "drive_fixture.h"
#include "world/loop.h"
#include "world/pupil.h"

static const char SUITE[] =
    "name: small\n"
    "rig: mono\n"
    "seconds: 25\n"
    "length: 150\n"
    "routes: 2\n"
    "weather: [clear, rain]\n"
    "vehicles: [car]\n"
    "traffic:\n"
    "  - {name: light, vehicles: 10, cyclists: 2, pedestrians: 8, parked: 10}\n"
    "towns:\n"
    "  - {style: grid, seeds: [41, 42]}\n"
    "  - style: track\n"
    "    seeds: [43]\n"
    "    length: 15\n"
    "    vehicles: [rc-car]\n";

static dj__suite read_suite(void) {
  dj__suite s;
  fx_ok(dj__suite_parse(SUITE, sizeof SUITE - 1, "small.yaml", -1, 0, &s));
  assert_true(s.n >= 5);
  return s;
}

static dj_status make_expert(void *user, dj__driver *d) {
  (void)user;
  return dj__driver_expert(d);
}
static dj_status make_constant(void *user, dj__driver *d) {
  (void)user;
  return dj__driver_constant(d);
}

static void same_figures(void **state) {
  (void)state;
  dj__suite s = read_suite();
  dj__suite_drive a, b;
  for (int k = 0; k < 2; k++) {
    dj__suite_drive_options o = {.make = k ? make_constant : make_expert, .is_expert = !k};
    o.threads = 1;
    fx_ok(dj__drive_suite(&s, &o, &a));
    o.threads = 3;
    fx_ok(dj__drive_suite(&s, &o, &b));
    assert_int_equal(a.n, s.n);
    assert_memory_equal(a.score, b.score, (size_t)a.n * sizeof *a.score);
    assert_memory_equal(&a.total, &b.total, sizeof a.total);
    assert_memory_equal(a.kind, b.kind, sizeof a.kind);
    assert_memory_equal(a.par, b.par, (size_t)a.n * sizeof *a.par);
    if (k) assert_true(a.total.pdms.value < 60); /* it does not steer */
    dj__suite_drive_free(&a);
    dj__suite_drive_free(&b);
  }
  dj__suite_free(&s);
}

/* ---- a driver of our own ---- */
typedef struct probe {
  double latency, first_steer; /* s at which the wheels first turned */
  int asked;
  bool privileged_world;
  double last_time;
} probe;

static dj_status probe_drive(void *self, const dj__sense *in, const dj__world *w,
                             dj__command *out) {
  probe *p = self;
  p->asked++;
  p->privileged_world |= w != NULL;
  assert_true(in->time >= p->last_time);
  p->last_time = in->time;
  *out = (dj__command){.steering = 0.2f, .throttle = 0.3f};
  return DJ_OK;
}

static dj_status probe_see(void *self, const dj__world *w, const dj__observer *o,
                           const dj__sense *in) {
  (void)o;
  (void)in;
  probe *p = self;
  if (isnan(p->first_steer) && w->ego.command.steering > 0.1f)
    p->first_steer = (double)(w->step - 1) * DJ__WORLD_DT;
  return DJ_OK;
}

static void late_commands(void **state) {
  (void)state;
  dj__suite s = read_suite();
  dj__map *m;
  fx_ok(dj__case_map(&s.cases[0], &m));
  const double latencies[] = {0, 0.1, 0.35};
  for (int k = 0; k < 3; k++) {
    probe p = {.first_steer = NAN};
    dj__driver d = {
        .name = "probe", .period = 0.1, .latency = latencies[k], .drive = probe_drive, .self = &p};
    dj__history h;
    fx_ok(dj__drive_case(&s.cases[0], m, &d, NULL, &(dj__watcher){probe_see, &p}, &h));
    fx_near(p.first_steer, latencies[k], 1e-9);
    assert_false(p.privileged_world);                         /* it sees no state */
    assert_true(abs(p.asked - (int)(h.n_step + 1) / 2) <= 1); /* at its own rate */
    assert_true(h.end != DJ__END_ARRIVED);
    dj__history_free(&h);
  }
  dj__map_destroy(m);
  dj__suite_free(&s);
}

/* ---- a network that learns from the expert beside it ---- */
static dj_status bad_pupil(void *self, const dj__sense *in, const dj__world *w, dj__command *out) {
  (void)self;
  assert_null(w);
  assert_int_equal(in->n_picture, 1);
  *out = (dj__command){.steering = 0.05f, .throttle = in->speed < 7 ? 0.3f : 0.1f};
  return DJ_OK;
}

static void expert_keeps_the_lane(void **state) {
  (void)state;
  dj__suite s = read_suite();
  dj__map *m;
  dj__world *w;
  fx_ok(dj__case_map(&s.cases[0], &m));
  fx_ok(dj__case_world(&s.cases[0], m, &w));
  dj__driver network = {.name = "bad", .period = 0.1, .latency = 0.1, .drive = bad_pupil}, expert;
  dj__picture picture = {0};
  dj__pupil p;
  fx_ok(dj__driver_expert(&expert));
  fx_ok(expert.reset(expert.self, w));
  fx_ok(dj__pupil_start(&p, &network, w));
  double most = 0;
  for (int i = 0; i < 300; i++) { /* 15 s */
    dj__command wish, done;
    fx_ok(expert.drive(expert.self, &(dj__sense){.speed = w->ego.vx}, w, &wish));
    if (i % 2 == 0) fx_ok(dj__pupil_see(&p, &picture, 1, w));
    done = dj__pupil_step(&p, w, &wish);
    if (i < 2) assert_true(done.steering == 0); /* its first word comes after 0.1 s */
    dj__world_step(w, &done);
    double d = HUGE_VAL, at, t;
    for (int k = w->route_at > 0 ? w->route_at - 1 : 0; k < w->route.n && k <= w->route_at + 1; k++)
      d = fmin(d,
               dj__map_project(m, w->route.lane[k], w->agents.x[0], w->agents.y[0], -1, &at, &t));
    most = fmax(most, d);
  }
  assert_int_equal(p.steps, 300);
  assert_true(p.own > 20 && p.own < 280); /* each of the two drove */
  assert_true(most > 0.5 && most < 2.5);  /* it erred, and was brought back */
  dj__driver_destroy(&expert);
  dj__world_destroy(w);
  dj__map_destroy(m);
  dj__suite_free(&s);
}

static void logs_drive(void **state) {
  const char *path = fx_path(*state, "log.mcap");
  dj_drive_info info = {.name = "log", .format = "test"};
  (void)snprintf(info.source_digest, sizeof info.source_digest, "%064d", 1);
  dj_drive_writer *w;
  fx_ok(dj_drive_writer_open(path, &info, &w));
  for (int i = 0; i < 40; i++) {
    uint64_t t = 5000000000ull + (uint64_t)i * 100000000ull;
    fx_ok(dj_drive_write_control(
        w, &(dj_control){t, i < 10 ? 0.25 : -0.5, 0.4, i < 20 ? NAN : 1, NAN}));
  }
  fx_ok(dj_drive_writer_close(w, 0));
  dj__driver d;
  fx_ok(dj__driver_recorded(path, &d));
  dj__sense in = {.time = 0};
  dj__command c;
  fx_ok(d.reset(d.self, NULL));
  fx_ok(d.drive(d.self, &in, NULL, &c));
  fx_near((double)c.steering, 0.25, 1e-6);
  fx_near((double)c.brake, 0, 0);
  in.time = 2.05;
  fx_ok(d.drive(d.self, &in, NULL, &c));
  fx_near((double)c.steering, -0.5, 1e-6);
  fx_near((double)c.brake, 1, 0);
  fx_ok(d.reset(d.self, NULL)); /* from the start again */
  in.time = 0.2;
  fx_ok(d.drive(d.self, &in, NULL, &c));
  fx_near((double)c.steering, 0.25, 1e-6);
  dj__driver_destroy(&d);
  FX_ERROR(dj__driver_recorded(fx_path(*state, "none.mcap"), &d), DJ_E_NOT_FOUND, "none.mcap");
}

/* Off the road: a driver that goes straight on leaves it, and the drive ends soon after. */
static void ends(void **state) {
  (void)state;
  dj__suite s = read_suite();
  dj__map *m;
  int left = 0, other = 0;
  for (int i = 0; i < s.n; i++) {
    dj__driver d;
    dj__history h;
    fx_ok(dj__case_map(&s.cases[i], &m));
    fx_ok(dj__driver_constant(&d));
    fx_ok(dj__drive_case(&s.cases[i], m, &d, NULL, NULL, &h));
    dj__drive_score k;
    fx_ok(dj__score_drive(&h, &k));
    if (h.end == DJ__END_OFF_ROAD) {
      left++;
      assert_true(k.infraction[DJ__LEFT_ROAD] >= 1 && k.dac == 0 && k.failed);
      assert_true(k.first_failure <= h.step[h.n_step - 1].time);
    } else {
      other++;
    }
    assert_true(h.n_step > 0 && h.step[h.n_step - 1].time <= s.cases[i].seconds + 1e-9);
    for (size_t j = 1; j < h.n_step; j++) fx_near(h.step[j].time - h.step[j - 1].time, 0.05, 1e-9);
    dj__history_free(&h);
    dj__driver_destroy(&d);
    dj__map_destroy(m);
  }
  assert_true(left >= 1);
  dj__suite_free(&s);
}

/* Along a drive with turns the navigator says them before they come. */
static dj_status note_commands(void *self, const dj__world *w, const dj__observer *o,
                               const dj__sense *in) {
  (void)o;
  int *seen = self;
  seen[in->command]++;
  int lane = w->route.lane[w->route_at < w->route.n ? w->route_at : w->route.n - 1];
  const dj__lane *l = &w->map->lane[lane];
  if (l->junction >= 0 && l->turn == DJ__TURN_LEFT)
    assert_int_equal(dj__world_route_command(w), DJ__TURN_AHEAD_LEFT);
  if (l->junction >= 0 && l->turn == DJ__TURN_RIGHT)
    assert_int_equal(dj__world_route_command(w), DJ__TURN_AHEAD_RIGHT);
  return DJ_OK;
}

static void navigator(void **state) {
  (void)state;
  dj__suite s = read_suite();
  int seen[8] = {0};
  for (int i = 0; i < 4; i++) {
    dj__map *m;
    dj__driver d;
    dj__history h;
    fx_ok(dj__case_map(&s.cases[i], &m));
    fx_ok(dj__driver_expert(&d));
    fx_ok(dj__drive_case(&s.cases[i], m, &d, NULL, &(dj__watcher){note_commands, seen}, &h));
    dj__history_free(&h);
    dj__driver_destroy(&d);
    dj__map_destroy(m);
  }
  assert_true(seen[DJ__FOLLOW] > 0);
  assert_true(seen[DJ__TURN_AHEAD_LEFT] + seen[DJ__TURN_AHEAD_RIGHT] > 0);
  dj__suite_free(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      FX_TEST(same_figures), FX_TEST(late_commands), FX_TEST(expert_keeps_the_lane),
      FX_TEST(logs_drive),   FX_TEST(ends),          FX_TEST(navigator)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
