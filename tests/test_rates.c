/*
 * How often others do what they should not: events and contacts are counted once, by whom they
 * belong to; rates are sums over sums; the same at any number of threads.
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
#include "world/rates.h"
#include "world/traffic.h"

static dj__world *small_world(dj__map **m) {
  dj__world *w;
  fx_ok(dj__map_generate(&(dj__town_config){.seed = 5, .style = DJ__TOWN_GRID}, m));
  dj__world_config c = dj__world_config_default(*m, 5);
  c.n_vehicle = 6;
  c.n_cyclist = c.n_pedestrian = c.n_parked = 0;
  c.unruly = c.roadworks = 0;
  fx_ok(dj__world_create(&c, &w));
  for (int i = 0; i < 6; i++) assert_true(dj__is_rider(&w->agents, i));
  return w;
}

static void end(dj__event_watch *s, dj__world *w, dj__map *m) {
  dj__event_watch_destroy(s);
  dj__world_destroy(w);
  dj__map_destroy(m);
}

/* Agent i is put `dx` m beside j, and goes at `v` as j does at 2 m/s. */
static void put(dj__world *w, int i, int j, double dx, float v) {
  dj__agents *a = &w->agents;
  a->x[i] = a->x[j] + dx;
  a->y[i] = a->y[j];
  a->yaw[i] = a->yaw[j];
  a->speed[i] = v;
  a->speed[j] = 2;
  dj__traffic_hash(w->traffic);
}

static void touch(dj__event_watch *s, dj__world *w, int i, int j, float v) {
  put(w, i, j, 0.5, v);
  fx_ok(dj__event_watch_step(s, w));
  fx_ok(dj__event_watch_step(s, w)); /* it goes on */
  put(w, i, j, 60, v);
  fx_ok(dj__event_watch_step(s, w));
}

static void contacts_are_counted_once(void **state) {
  (void)state;
  dj__map *m;
  dj__world *w = small_world(&m);
  dj__event_tally t;
  dj__event_watch *s;
  fx_ok(dj__event_watch_create(&t, &s));
  fx_ok(dj__event_watch_step(s, w));
  assert_int_equal(t.drives, 1);
  fx_near(t.hours, 0.05 / 3600, 1e-12);
  fx_near(t.vehicle_hours, 6 * 0.05 / 3600, 1e-12); /* without the ego */
  const int before = t.contacts[DJ__TOUCHED_VEHICLE];
  assert_int_equal(before, 0);
  touch(s, w, 1, 2, 9);
  touch(s, w, 1, 2, 5);
  assert_int_equal(t.contacts[DJ__TOUCHED_VEHICLE], 2);
  fx_near(t.fastest[DJ__TOUCHED_VEHICLE], 7, 1e-5);
  w->agents.flags[3] |= DJ__AGENT_PARKED;
  touch(s, w, 1, 3, 4);
  w->agents.kind[3] = DJ__PEDESTRIAN;
  w->agents.flags[3] = DJ__AGENT_LIVE;
  touch(s, w, 1, 3, 4);
  assert_int_equal(t.contacts[DJ__TOUCHED_THING], 1);
  assert_int_equal(t.contacts[DJ__TOUCHED_PERSON], 1);
  assert_int_equal(t.ego_contacts, 0);
  touch(s, w, 4, 0, 4);
  assert_int_equal(t.ego_contacts, 1);
  assert_int_equal(t.contacts[DJ__TOUCHED_VEHICLE], 2);
  end(s, w, m);
}

static void events_lead_to_contacts(void **state) {
  (void)state;
  dj__map *m;
  dj__world *w = small_world(&m);
  dj__event_tally t;
  dj__event_watch *s;
  fx_ok(dj__event_watch_create(&t, &s));
  w->config.staged.kind = DJ__EVENT_HARD_BRAKE;
  w->config.staged.after = 1;
  w->step = 10;
  w->event[w->n_event++] = (dj__event){.kind = DJ__EVENT_HARD_BRAKE, .start = 10, .agent = 1};
  fx_ok(dj__event_watch_step(s, w));
  w->step = 30;
  w->event[w->n_event++] = (dj__event){.kind = DJ__EVENT_HARD_BRAKE, .start = 30, .agent = 2};
  w->cast.staged = true;
  touch(s, w, 3, 4, 9); /* nobody of either */
  assert_int_equal(t.struck[DJ__EVENT_HARD_BRAKE], 0);
  touch(s, w, 1, 4, 9);
  touch(s, w, 1, 3, 9);
  assert_int_equal(t.struck[DJ__EVENT_HARD_BRAKE], 1);
  w->event[1].end = 40;
  w->step = 40 + (uint64_t)(DJ__AFTERMATH_S / DJ__WORLD_DT) + 1;
  touch(s, w, 2, 3, 9); /* too late */
  assert_int_equal(t.struck[DJ__EVENT_HARD_BRAKE], 1);
  w->step -= 2;
  touch(s, w, 0, 3, 9); /* whom it happened to */
  assert_int_equal(t.struck[DJ__EVENT_HARD_BRAKE], 2);
  assert_int_equal(t.asked[DJ__EVENT_HARD_BRAKE], 1);
  assert_int_equal(t.staged[DJ__EVENT_HARD_BRAKE], 1);
  assert_int_equal(t.by_itself[DJ__EVENT_HARD_BRAKE], 1);
  end(s, w, m);
}

static void rates_are_sums_over_sums(void **state) {
  (void)state;
  dj__event_tally t[3] = {{.drives = 1, .hours = 1, .vehicle_hours = 10},
                          {.drives = 1, .hours = 2, .vehicle_hours = 50},
                          {.drives = 1, .hours = 1, .vehicle_hours = 0}};
  dj__event_rates r;
  t[0].by_itself[DJ__EVENT_CUT_IN] = 6;
  t[1].by_itself[DJ__EVENT_CUT_IN] = 2;
  t[1].contacts[DJ__TOUCHED_THING] = 3;
  t[1].fastest[DJ__TOUCHED_THING] = 2.5;
  t[2].fastest[DJ__TOUCHED_THING] = 1.5;
  fx_ok(dj__event_rates_of(t, 3, &r));
  assert_int_equal(r.sum.drives, 3);
  fx_near(r.per_hour[DJ__EVENT_CUT_IN].value, 2, 1e-12);
  fx_near(r.per_vehicle_hour[DJ__EVENT_CUT_IN].value, 8 / 60.0, 1e-12);
  fx_near(r.contacts_per_vehicle_hour[DJ__TOUCHED_THING].value, 0.05, 1e-12);
  fx_near(r.sum.fastest[DJ__TOUCHED_THING], 2.5, 0);
  assert_true(r.per_hour[DJ__EVENT_CUT_IN].low < 2 && r.per_hour[DJ__EVENT_CUT_IN].high > 2);
  assert_true(r.per_hour[DJ__EVENT_ONCOMING].high == 0);
  fx_ok(dj__event_rates_of(t, 0, &r));
  assert_true(isnan(r.per_hour[DJ__EVENT_CUT_IN].value));
}

static void same_at_any_number_of_threads(void **state) {
  (void)state;
  static const char text[] =
      "name: busy\nseconds: 40\nlength: 300\nroutes: 2\n"
      "traffic:\n  - {name: busy, vehicles: 40, cyclists: 4, pedestrians: 20, parked: 30, unruly: "
      "1.5}\n"
      "towns:\n  - {style: grid, seeds: [9600]}\n  - {style: motorway, seeds: [9620]}\n"
      "recovery: {pedestrian: 1, blocked: 1}\n";
  dj__suite s;
  fx_ok(dj__suite_parse(text, strlen(text), "busy.yaml", -1, 0, &s));
  assert_int_equal(s.n, 6);
  dj__event_tally a[6], b[6];
  dj__event_rates r;
  fx_ok(dj__tally_suite(&s, 1, a));
  fx_ok(dj__tally_suite(&s, 3, b));
  for (int i = 0; i < s.n; i++) { /* members: between them lies padding */
    assert_true(a[i].hours == b[i].hours && a[i].vehicle_hours == b[i].vehicle_hours);
    assert_memory_equal(a[i].by_itself, b[i].by_itself, sizeof a[i].by_itself);
    assert_memory_equal(a[i].struck, b[i].struck, sizeof a[i].struck);
    assert_memory_equal(a[i].contacts, b[i].contacts, sizeof a[i].contacts);
    assert_memory_equal(a[i].fastest, b[i].fastest, sizeof a[i].fastest);
    assert_true(a[i].vehicle_hours > 10 * a[i].hours && a[i].vehicle_hours <= 50 * a[i].hours);
  }
  fx_ok(dj__event_rates_of(a, (size_t)s.n, &r));
  int all = 0;
  for (int k = 0; k < DJ__N_EVENTS; k++) all += r.sum.by_itself[k];
  assert_true(all > 3);
  assert_int_equal(r.sum.asked[DJ__EVENT_JAYWALKER], 1);
  assert_int_equal(r.sum.staged[DJ__EVENT_JAYWALKER], 1);
  assert_int_equal(r.sum.asked[DJ__EVENT_BLOCKED], 1);
  dj__suite_free(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(contacts_are_counted_once),
      cmocka_unit_test(events_lead_to_contacts),
      cmocka_unit_test(rates_are_sums_over_sums),
      cmocka_unit_test(same_at_any_number_of_threads),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
