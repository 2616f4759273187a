/*
 * What others do wrong in the suites' drives: staged events begin in every case that is made for
 * them, the others at their rates, and whoever is named does what the label says while it lasts.
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
#include "world/drive.h"
#include "world/traffic.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOW = 12 };
#else
enum { SLOW = 1 };
#endif

typedef struct tally { /* of events */
  int begun[DJ__N_EVENTS], ended[DJ__N_EVENTS], done[DJ__N_EVENTS];
  double hours;
} tally;

typedef struct drive { /* one case under way */
  dj__world *world;
  dj__driver driver;
  dj__command command;
  bool done[256]; /* by event: somebody did what it says */
} drive;

static bool on_ego_way(const dj__world *w, int lane) {
  const dj__mind *m = &w->traffic->mind[0];
  for (int k = 0; k < m->n_path; k++)
    if (m->path[k] == lane) return true;
  return false;
}

/* Is the agent of e doing now what it is named for? */
static bool does(const dj__world *w, const dj__event *e) {
  const dj__agents *a = &w->agents;
  const int i = e->agent;
  if (i < 0) return true;
  const int stop = a->lane[i] >= 0 ? w->map->lane[a->lane[i]].stop : -1;
  switch (e->kind) {
  case DJ__EVENT_CUT_IN:
    return on_ego_way(w, a->lane[i]) && fabsf(a->t[i]) < 1.2f;
  case DJ__EVENT_HARD_BRAKE:
    return (double)a->accel[i] < -0.5 * 9.81 * w->ego.friction;
  case DJ__EVENT_JAYWALKER:
    return a->flags[i] & DJ__AGENT_CROSSING;
  case DJ__EVENT_RED_RUNNER: /* its front is over the line */
    return stop >= 0 && dj__world_light(w, stop) == DJ__LIGHT_RED &&
           (double)(a->s[i] + 0.5f * a->length[i]) > w->map->stop[stop].s;
  case DJ__EVENT_ONCOMING:
    return a->t[i] > 1.2f;
  default:
    return a->speed[i] < 0.1f;
  }
}

static void start(drive *d, const dj__case *c, const dj__map *m) {
  *d = (drive){0};
  fx_ok(dj__case_world(c, m, &d->world));
  fx_ok(dj__driver_expert(&d->driver));
  fx_ok(d->driver.reset(d->driver.self, d->world));
}

static void step(drive *d) {
  dj__world *w = d->world;
  fx_ok(d->driver.drive(d->driver.self, NULL, w, &d->command));
  dj__world_step(w, &d->command);
  for (int e = 0; e < w->n_event && e < 256; e++)
    if (!w->event[e].end) d->done[e] |= does(w, &w->event[e]);
}

static void stop(drive *d, tally *t) {
  const dj__world *w = d->world;
  for (int e = 0; e < w->n_event && e < 256; e++) {
    const dj__event *v = &w->event[e];
    assert_true(v->start > 0 && (v->end == 0 || v->end > v->start));
    assert_true(e == 0 || v->start >= w->event[e - 1].start);
    assert_true(v->agent < w->agents.n && v->agent != 0);
    t->begun[v->kind]++;
    t->ended[v->kind] += v->end > 0;
    t->done[v->kind] += v->end > 0 && d->done[e];
  }
  t->hours += (double)w->step * DJ__WORLD_DT / 3600;
  dj__driver_destroy(&d->driver);
  dj__world_destroy(d->world);
}

/* ---- staged ---- */
/* Its event begins within 90 s, and happens; true also where the town has no place for it. */
static bool is_staged(const dj__case *c, const dj__map *m, tally *t) {
  drive d;
  start(&d, c, m);
  const int kind = d.world->config.staged.kind;
  bool place = dj__event_fits(m, &d.world->route, kind) > 0;
  for (int k = 0; k < 20 * 90 && !d.world->cast.staged; k++) step(&d);
  for (int k = 0; k < 10; k++) step(&d); /* lights that turn are seen when they are yellow */
  for (int k = 0; k < 20 * 12 && d.world->n_event && !d.world->event[d.world->n_event - 1].end; k++)
    step(&d);
  bool begun = false;
  for (int e = 0; e < d.world->n_event; e++) begun |= (int)d.world->event[e].kind == kind;
  begun &= d.world->cast.staged;
  if (place && !begun) print_error("%s: not begun\n", c->name);
  stop(&d, t);
  return begun || !place;
}

static void staged_events_begin(void **state) {
  (void)state;
  static const int64_t seeds[] = {-1, 20000, 30000, 50000};
  int runs[DJ__N_CASES] = {0}, begun[DJ__N_CASES] = {0};
  tally t = {0};
  for (size_t k = 0; k < (SLOW > 1 ? 1 : sizeof seeds / sizeof *seeds); k++) {
    dj__suite s;
    dj__map *m = NULL;
    fx_ok(dj__suite_read(DOJO_SOURCE_DIR "/suites/test.yaml", seeds[k], 0, &s));
    for (int i = 0; i < s.n; i++) {
      const dj__case *c = &s.cases[i];
      if (c->kind < DJ__CASE_BLOCKED) continue;
      if (SLOW > 1 && i % 3) continue;
      fx_ok(dj__case_map(c, &m));
      runs[c->kind]++;
      begun[c->kind] += is_staged(c, m, &t);
      dj__map_destroy(m);
    }
    dj__suite_free(&s);
  }
  for (int k = DJ__CASE_BLOCKED; k < DJ__N_CASES; k++) {
    if (SLOW == 1) assert_true(runs[k] >= (k == DJ__CASE_ONCOMING ? 15 : 30));
    if (begun[k] < runs[k])
      fail_msg("%s began in %d of %d runs", dj__case_name(k), begun[k], runs[k]);
  }
  for (int k = 0; k < DJ__N_EVENTS; k++) {
    if (10 * t.done[k] < 9 * t.ended[k])
      fail_msg("%s: %d of %d did nothing of the kind", dj__event_name(k), t.ended[k] - t.done[k],
               t.ended[k]);
  }
}

/* ---- by themselves ---- */
/* Routes of a busy suite: every kind happens within an hour, and is what its label says. */
static void events_happen_by_themselves(void **state) {
  (void)state;
  static const char text[] =
      "name: busy\nseconds: 90\nlength: 400\nroutes: 3\n"
      "weather: [clear, rain, night]\n"
      "traffic:\n  - {name: busy, vehicles: 45, cyclists: 6, pedestrians: 30, parked: 50, unruly: "
      "1}\n"
      "towns:\n  - {style: grid, seeds: [9600..9603]}\n  - {style: organic, seeds: [9610..9612]}\n"
      "  - {style: motorway, seeds: [9620, 9621]}\n  - {style: mixed, seeds: [9630..9632]}\n";
  dj__suite s;
  dj__map *m = NULL;
  tally t = {0};
  fx_ok(dj__suite_parse(text, strlen(text), "busy.yaml", -1, SLOW > 1 ? 3 : 0, &s));
  for (int i = 0; i < s.n; i++) {
    drive d;
    if (i == 0 || !dj__case_same_map(&s.cases[i - 1], &s.cases[i])) {
      dj__map_destroy(m);
      fx_ok(dj__case_map(&s.cases[i], &m));
    }
    start(&d, &s.cases[i], m);
    while ((double)d.world->step * DJ__WORLD_DT < s.cases[i].seconds &&
           d.world->route_s < d.world->route.length - 20)
      step(&d);
    stop(&d, &t);
  }
  dj__map_destroy(m);
  dj__suite_free(&s);
  assert_true(t.hours < 1);
  for (int k = 0; k < DJ__N_EVENTS; k++) {
    if (SLOW == 1 && k != DJ__EVENT_LIGHT_TURNS && t.begun[k] < 1)
      fail_msg("%s: %d in %.2f h", dj__event_name(k), t.begun[k], t.hours);
    if (10 * t.done[k] < 8 * t.ended[k])
      fail_msg("%s: %d of %d did nothing of the kind", dj__event_name(k), t.ended[k] - t.done[k],
               t.ended[k]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(staged_events_begin),
      cmocka_unit_test(events_happen_by_themselves),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
