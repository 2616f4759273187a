/*
 * Suites: what is written is what is driven, cases do not depend on their neighbours, the towns of
 * training, validation and test are disjoint, and mistakes are told with file and line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "world/drive.h"

static void must(dj_status s, int line) {
  if (s) fail_msg("line %d: %s", line, dj_error_message());
}
#define OK(e) must(e, __LINE__)

static dj__suite parse(const char *text, int64_t seed0, int limit) {
  dj__suite s;
  OK(dj__suite_parse(text, strlen(text), "s.yaml", seed0, limit, &s));
  return s;
}

static void refuse(const char *text, dj_status want, const char *part) {
  dj__suite s;
  dj_status got = dj__suite_parse(text, strlen(text), "s.yaml", -1, 0, &s);
  if (got != want)
    fail_msg("status %d, not %d, for\n%s%s", got, want, text, got ? dj_error_message() : "");
  if (!strstr(dj_error_message(), part)) fail_msg("'%s' is not in '%s'", part, dj_error_message());
  assert_null(s.cases);
}

static const char SMALL[] =
    "name: small\n"
    "seconds: 20\n"
    "slowest: 0.3\n"
    "routes: 2\n"
    "weather: [clear, rain, night]\n"
    "vehicles: [car, van]\n"
    "traffic:\n"
    "  - {name: a, vehicles: 1, unruly: 0.5}\n"
    "  - {name: b, vehicles: 2, cyclists: 3, pedestrians: 4, parked: 5}\n"
    "towns:\n"
    "  - {style: grid, seeds: [3, 10..12], size: 700}\n"
    "  - {style: rural, seeds: [3], routes: 1, length: 900, hills: 0.5, slowest: 0,\n"
    "     weather: [fog], vehicles: [lorry], traffic: [b], rig: ring6}\n"
    "recovery: {offset: 3, red-light: 5}\n";

static void expands(void **state) {
  (void)state;
  dj__suite s = parse(SMALL, -1, 0);
  assert_string_equal(s.name, "small");
  assert_int_equal(s.n, 4 * 2 + 1 + 3 + 5);
  const dj__case *c = &s.cases[0];
  assert_string_equal(c->name, "grid-3/clear/route-0"); // 3 towns of 2 routes before
  assert_int_equal(c->kind, DJ__CASE_ROUTE);
  assert_int_equal(c->town.style, DJ__TOWN_GRID);
  assert_int_equal(c->town.seed, 3);
  assert_true(c->town.size == 700 && c->town.hills < 0 && c->seconds == 20 && c->length == 400);
  assert_true(c->slowest == 0.3);
  assert_int_equal(c->n_vehicle, 1); // 6 + 6 / 3 is even
  assert_true(c->unruly == 0.5);
  assert_string_equal(c->rig, "mono");
  c = &s.cases[1];
  assert_string_equal(c->name, "grid-3/rain/route-1");
  assert_int_equal(c->n_vehicle, 2);
  assert_int_equal(c->n_parked, 5);
  assert_string_equal(c->vehicle, "car");
  int lights = 0, offsets = 0, rural = 0;
  for (int i = 0; i < s.n; i++) {
    c = &s.cases[i];
    lights += c->kind == DJ__CASE_RED_LIGHT;
    offsets += c->kind == DJ__CASE_OFFSET;
    for (int k = 0; k < i; k++) {
      assert_string_not_equal(c->name, s.cases[k].name);
      assert_true(c->seed != s.cases[k].seed);
      // Cases of a town lie together.
      if (dj__case_same_map(c, &s.cases[k])) assert_true(dj__case_same_map(c, c - 1));
    }
    if (c->town.style != DJ__TOWN_RURAL) continue;
    rural++;
    assert_int_not_equal(c->kind, DJ__CASE_RED_LIGHT);
    assert_string_equal(c->weather, "fog");
    assert_string_equal(c->vehicle, "lorry");
    assert_string_equal(c->rig, "ring6");
    assert_int_equal(c->n_vehicle, 2);
    assert_true(c->length == 900 && c->town.hills == 0.5 && c->seconds == 20 && c->slowest == 0);
  }
  assert_int_equal(lights, 5);
  assert_int_equal(offsets, 3);
  assert_true(rural >= 1);
  dj__suite_free(&s);
}

/* The same text gives the same cases; a case stays the same when others are left out. */
static void cases_stand_alone(void **state) {
  (void)state;
  dj__suite a = parse(SMALL, -1, 0), b = parse(SMALL, -1, 0), few = parse(SMALL, -1, 4);
  assert_int_equal(a.n, b.n);
  for (int i = 0; i < a.n; i++) assert_memory_equal(&a.cases[i], &b.cases[i], sizeof *a.cases);
  assert_int_equal(few.n, 4);
  int found = 0;
  for (int i = 0; i < few.n; i++)
    for (int k = 0; k < a.n; k++) found += !memcmp(&few.cases[i], &a.cases[k], sizeof *a.cases);
  assert_int_equal(found, 4);
  dj__suite other = parse("routes: 1\ntowns: [{style: grid, seeds: [10]}]\n", -1, 0);
  assert_int_equal(other.n, 1);
  for (int k = 0; k < a.n; k++)
    if (a.cases[k].town.seed == 10 && a.cases[k].kind == DJ__CASE_ROUTE) {
      assert_true(other.cases[0].seed == a.cases[k].seed);
      break;
    }
  assert_string_equal(other.name, "s");
  dj__suite moved = parse(SMALL, 500, 0);
  assert_int_equal(moved.n, a.n);
  for (int i = 0; i < moved.n; i++)
    assert_true(moved.cases[i].town.seed >= 500 && moved.cases[i].town.seed < 505);
  dj__suite_free(&a);
  dj__suite_free(&b);
  dj__suite_free(&few);
  dj__suite_free(&other);
  dj__suite_free(&moved);
}

/* A track is for small cars, and empty, unless the town says otherwise. */
static void tracks(void **state) {
  (void)state;
  dj__suite s = parse("vehicles: [van]\ntraffic: [{name: a, vehicles: 9}]\n"
                      "towns: [{style: track, seeds: [1]}, {style: grid, seeds: [1]},\n"
                      "        {style: track, seeds: [2], traffic: [a]}]\n",
                      -1, 0);
  assert_int_equal(s.n, 3);
  assert_string_equal(s.cases[0].vehicle, "rc-car");
  assert_string_equal(s.cases[0].rig, "donkeycar");
  assert_int_equal(s.cases[0].n_vehicle + s.cases[0].n_parked, 0);
  assert_string_equal(s.cases[1].vehicle, "van");
  assert_string_equal(s.cases[1].rig, "mono");
  assert_int_equal(s.cases[1].n_vehicle, 9);
  assert_int_equal(s.cases[2].n_vehicle, 9);
  dj__suite_free(&s);
}

static void maps_of_other_tools(void **state) {
  (void)state;
  const char *text = "towns: [{xodr: maps/one.xodr}, {xodr: /abs/two.xodr, seeds: [4]}]\n";
  dj__suite s;
  OK(dj__suite_parse(text, strlen(text), "somewhere/s.yaml", -1, 0, &s));
  assert_int_equal(s.n, 2);
  assert_string_equal(s.cases[0].xodr, "somewhere/maps/one.xodr");
  assert_string_equal(s.cases[0].name, "one-0/clear/route-0");
  assert_string_equal(s.cases[1].xodr, "/abs/two.xodr");
  assert_string_equal(s.cases[1].name, "two-4/clear/route-0");
  assert_false(dj__case_same_map(&s.cases[0], &s.cases[1]));
  dj__suite_free(&s);
}

static void mistakes(void **state) {
  (void)state;
  refuse("", DJ_E_FORMAT, "s.yaml: the suite is empty");
  refuse("name: x\n", DJ_E_FORMAT, "s.yaml:1: the key 'towns' is missing");
  refuse("towns:\n  - {style: grid}\n", DJ_E_FORMAT,
         "s.yaml:2: the key 'towns[0].seeds' is missing");
  refuse("towns:\n  - {style: gird, seeds: [1]}\n", DJ_E_FORMAT,
         "s.yaml:2: 'towns[0].style' cannot be 'gird'; did you mean 'grid'?");
  refuse("towns:\n  - {style: grid, seeds: [1]}\n  - {style: grid, seeds: [9..4]}\n", DJ_E_FORMAT,
         "s.yaml:3: '9..4' is no seed");
  refuse("towns:\n  - {style: grid, seeds: [-1]}\n", DJ_E_FORMAT, "'-1' is no seed");
  refuse("towns:\n  - {style: grid, seeds: [1, 0..3]}\n", DJ_E_FORMAT,
         "s.yaml:2: seed 1 of this town comes up twice");
  refuse("towns: [{style: grid, seeds: [0..9999999]}]\n", DJ_E_LIMIT, "more than");
  refuse("towns: [{style: grid, seeds: [1]}]\nweather: [clear, rainn]\n", DJ_E_FORMAT,
         "s.yaml:2: unknown weather 'rainn'; did you mean 'rain'?; known: clear");
  refuse("towns:\n  - style: grid\n    seeds: [1]\n    vehicles: [tank]\n", DJ_E_FORMAT,
         "s.yaml:4: unknown vehicle 'tank'; known: ");
  refuse("towns:\n  - {style: grid, seeds: [1], traffic: [a]}\n", DJ_E_FORMAT,
         "s.yaml:2: there is no 'a' in the suite's 'traffic'");
  refuse("traffic:\n  - {vehicles: 3}\ntowns: [{style: grid, seeds: [1]}]\n", DJ_E_FORMAT,
         "s.yaml:2: the key 'traffic[0].name' is missing");
  refuse("traffic: [{name: a}, {name: a}]\ntowns: [{style: grid, seeds: [1]}]\n", DJ_E_FORMAT,
         "called 'a'");
  refuse("traffic:\n  - {name: a, vehicles: 5000}\ntowns: [{style: grid, seeds: [1]}]\n",
         DJ_E_INVALID, "s.yaml:2: 'traffic[0].vehicles' is 5000, out of range: 0 to 2000");
  refuse("slowest: 1.5\n", DJ_E_INVALID, "slowest");
  refuse("seconds: nan\n", DJ_E_INVALID, "s.yaml:1: 'seconds' should be a finite decimal number");
  refuse("towns: [{style: rural, seeds: [1]}]\nrecovery: {red-light: 1}\n", DJ_E_INVALID,
         "s.yaml:2: no town of the suite is fit for 'red-light' cases");
  refuse("towns:\n  - {xodr: a.xodr, style: grid}\n", DJ_E_FORMAT, "either a 'style' or an 'xodr'");
  refuse("routes: 0\ntowns: [{style: grid, seeds: [1]}]\n", DJ_E_INVALID, "the suite has no cases");
  refuse("towns: &x [{style: grid, seeds: [1]}]\n", DJ_E_FORMAT, "anchors and aliases");
}

static dj__suite shipped(const char *name) {
  char path[512];
  dj__suite s;
  (void)snprintf(path, sizeof path, "%s/suites/%s.yaml", DOJO_SOURCE_DIR, name);
  OK(dj__suite_read(path, -1, 0, &s));
  return s;
}

static void towns_are_disjoint(void **state) {
  (void)state;
  static const char *const names[] = {"train", "validation", "test", "demo"};
  enum { N = sizeof names / sizeof *names };
  dj__suite s[N];
  for (int i = 0; i < N; i++) s[i] = shipped(names[i]);
  for (int i = 0; i < N; i++)
    for (int k = 0; k < i; k++)
      for (int a = 0; a < s[i].n; a++)
        for (int b = 0; b < s[k].n; b++)
          assert_true(s[i].cases[a].town.seed != s[k].cases[b].town.seed);
  for (int i = 0; i < N; i++) dj__suite_free(&s[i]);
}

/* The test suite: 200 routes and more, every style of town in every weather, every recovery case.
 */
static void test_suite_is_wide(void **state) {
  (void)state;
  dj__suite s = shipped("test");
  int routes = 0, kinds[DJ__N_CASES] = {0}, n_weather;
  static int seen[DJ__N_TOWN_STYLES][32];
  const char *const *weather = dj__weather_names(&n_weather);
  for (int i = 0; i < s.n; i++) {
    const dj__case *c = &s.cases[i];
    routes += c->kind == DJ__CASE_ROUTE;
    kinds[c->kind]++;
    for (int k = 0; k < n_weather && k < 32; k++)
      seen[c->town.style][k] += !strcmp(weather[k], c->weather);
  }
  assert_true(routes >= 200);
  for (int k = 0; k < DJ__N_CASES; k++) assert_true(kinds[k] > 0);
  for (int k = 0; k < n_weather && k < 32; k++)
    for (int t = DJ__TOWN_GRID; t <= DJ__TOWN_MIXED; t++)
      if (!seen[t][k]) fail_msg("style %d never has %s", t, weather[k]);
  assert_true(seen[DJ__TOWN_TRACK][0] > 0);
  dj__suite_free(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(expands),
                                     cmocka_unit_test(cases_stand_alone),
                                     cmocka_unit_test(tracks),
                                     cmocka_unit_test(maps_of_other_tools),
                                     cmocka_unit_test(mistakes),
                                     cmocka_unit_test(towns_are_disjoint),
                                     cmocka_unit_test(test_suite_is_wide)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
