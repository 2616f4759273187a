/* Many worlds at once: the same bytes at any number of threads, actions, observations, collisions.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "world/world.h"

#ifdef __SANITIZE_ADDRESS__
enum { STEPS = 80 };
#else
enum { STEPS = 400 };
#endif
enum { WORLDS = 5, AGENTS = 64, NEAR = 8, WIDTH = 8 + 7 * NEAR };

static dj__map *map;

static int make_map(void **state) {
  (void)state;
  return dj__map_generate(&(dj__town_config){.seed = 3, .style = DJ__TOWN_GRID, .hills = 1}, &map);
}
static int drop_map(void **state) {
  (void)state;
  dj__map_destroy(map);
  return 0;
}

static dj__worlds *make(int threads, int n_agent) {
  dj__worlds *w = NULL;
  dj__worlds_config c = {.map = map,
                         .n_world = WORLDS,
                         .n_agent = n_agent,
                         .n_near = NEAR,
                         .seed = 11,
                         .threads = threads};
  if (dj__worlds_create(&c, &w)) fail_msg("%s", dj_error_message());
  return w;
}

static void same_at_any_number_of_threads(void **state) {
  (void)state;
  uint64_t digest[3];
  size_t n = (size_t)WORLDS * AGENTS;
  float *seen[3];
  for (int k = 0; k < 3; k++) {
    dj__worlds *w = make(k + 1, AGENTS);
    seen[k] = calloc(n * WIDTH, sizeof **seen);
    uint8_t *hit = calloc(n, 1);
    for (int i = 0; i < STEPS; i++) dj__worlds_step(w, NULL, seen[k], hit);
    digest[k] = dj__worlds_digest(w);
    free(hit);
    dj__worlds_destroy(w);
  }
  assert_true(digest[0] == digest[1] && digest[0] == digest[2]);
  assert_memory_equal(seen[0], seen[1], n * WIDTH * sizeof **seen);
  assert_memory_equal(seen[0], seen[2], n * WIDTH * sizeof **seen);
  for (int k = 0; k < 3; k++) free(seen[k]);
}

/* Traffic left to the models moves and does not collide; worlds differ from each other. */
static void traffic_flows(void **state) {
  (void)state;
  dj__worlds *w = make(2, AGENTS);
  uint8_t hit[WORLDS * AGENTS];
  int hits = 0, live = 0;
  double sum = 0;
  for (int i = 0; i < STEPS; i++) {
    dj__worlds_step(w, NULL, NULL, hit);
    for (int k = 0; k < WORLDS * AGENTS; k++) hits += hit[k];
  }
  for (int k = 0; k < WORLDS; k++) {
    const dj__agents *a = dj__worlds_agents(w, k);
    assert_int_equal(a->n, AGENTS);
    for (int i = 0; i < a->n; i++)
      if (a->flags[i] & DJ__AGENT_LIVE) sum += (double)a->speed[i], live++;
  }
  assert_int_equal(hits, 0);
  assert_true(live > WORLDS * AGENTS * 9 / 10);
  assert_true(sum / live > 2.5);
  assert_true(dj__worlds_agents(w, 0)->x[0] != dj__worlds_agents(w, 1)->x[0]);
  dj__worlds_destroy(w);
}

/* Actions are obeyed by whom they are given to; NaN leaves an agent to the models. */
static void actions(void **state) {
  (void)state;
  dj__worlds *w = make(1, AGENTS);
  float action[WORLDS * AGENTS][2];
  for (int k = 0; k < WORLDS * AGENTS; k++) action[k][0] = action[k][1] = NAN;
  const dj__agents *a = dj__worlds_agents(w, 2);
  int who = 0;
  while (!(a->flags[who] & DJ__AGENT_LIVE)) who++;
  float *mine = action[2 * AGENTS + who];
  float v0 = a->speed[who];
  double x0 = a->x[who], y0 = a->y[who];
  float yaw0 = a->yaw[who];
  mine[0] = 1;
  mine[1] = 0.1f;
  for (int i = 0; i < 40; i++) dj__worlds_step(w, action[0], NULL, NULL);
  assert_true(fabsf(a->speed[who] - v0 - 2) < 1e-3f);
  /* a kinematic bicycle: yaw = integral of v sin(slip) / l_r */
  float slip = atanf(0.5f * tanf(0.1f)), wheelbase = 0.6f * a->length[who];
  float way = v0 * 2 + 0.5f * 4, turned = a->yaw[who] - yaw0;
  turned -= 6.2831853f * roundf(turned / 6.2831853f);
  float expected = way * 2 * sinf(slip) / wheelbase;
  expected -= 6.2831853f * roundf(expected / 6.2831853f);
  assert_true(fabsf(turned - expected) < 0.02f);
  assert_true(hypot(a->x[who] - x0, a->y[who] - y0) <= (double)way + 1e-3);
  mine[0] = -100; /* clamped; it stops and stays */
  for (int i = 0; i < 60; i++) dj__worlds_step(w, action[0], NULL, NULL);
  assert_true(a->speed[who] == 0);
  mine[0] = NAN;
  mine[1] = NAN;
  for (int i = 0; i < 20; i++) dj__worlds_step(w, action[0], NULL, NULL);
  assert_true(isfinite(a->x[who]) && isfinite(a->speed[who]));
  dj__worlds_destroy(w);
}

/* Everyone straight on at full throttle: some run into each other, and only touching ones say so.
 */
static void collisions_are_seen(void **state) {
  (void)state;
  dj__worlds *w = make(2, AGENTS);
  float *action = calloc((size_t)WORLDS * AGENTS * 2, sizeof *action);
  for (int k = 0; k < WORLDS * AGENTS; k++) action[2 * k] = 2;
  uint8_t hit[WORLDS * AGENTS];
  int hits = 0;
  for (int i = 0; i < 100; i++) {
    dj__worlds_step(w, action, NULL, hit);
    for (int k = 0; k < WORLDS * AGENTS; k++) {
      if (i % 25 != 0) continue;
      const dj__agents *a = dj__worlds_agents(w, k / AGENTS);
      bool any = false;
      int me = k % AGENTS;
      for (int j = 0; j < AGENTS && (a->flags[me] & DJ__AGENT_LIVE); j++)
        any |= j != me && (a->flags[j] & DJ__AGENT_LIVE) && dj__agents_touch(a, me, j, 0);
      assert_int_equal(any, hit[k]);
      hits += hit[k];
    }
  }
  assert_true(hits > 0);
  free(action);
  dj__worlds_destroy(w);
}

/* Rows hold what the header says, neighbours nearest first. */
static void observations(void **state) {
  (void)state;
  for (int n = AGENTS; n <= 160; n += 96) { /* few by looking at all, many by the hash */
    dj__worlds *w = make(2, n);
    float *seen = calloc((size_t)WORLDS * (size_t)n * WIDTH, sizeof *seen);
    for (int i = 0; i < 50; i++) dj__worlds_step(w, NULL, seen, NULL);
    for (int i = 0; i < n; i++) {
      const dj__agents *a = dj__worlds_agents(w, 1);
      const float *row = seen + ((size_t)n + (size_t)i) * WIDTH;
      if (!(a->flags[i] & DJ__AGENT_LIVE)) continue;
      assert_true(row[0] == a->speed[i] && row[1] == a->accel[i] && row[3] == a->t[i]);
      assert_true(row[7] == (float)map->lane[a->lane[i]].speed_limit);
      assert_true(fabsf(row[4]) < 1.2f);
      double before = 0;
      for (int k = 0; k < NEAR; k++) {
        const float *o = row + 8 + 7 * k;
        double d = hypot((double)o[0], (double)o[1]);
        if (d == 0) break; /* nobody else within sight */
        assert_true(d >= before - 1e-4);
        assert_true(fabsf(o[2] * o[2] + o[3] * o[3] - 1) < 1e-4f);
        before = d;
      }
      double nearest = 1e9;
      for (int j = 0; j < n; j++)
        if (j != i && (a->flags[j] & DJ__AGENT_LIVE))
          nearest = fmin(nearest, hypot(a->x[j] - a->x[i], a->y[j] - a->y[i]));
      if (nearest < 95) assert_true(fabs(hypot((double)row[8], (double)row[9]) - nearest) < 1e-2);
    }
    free(seen);
    dj__worlds_destroy(w);
  }
}

static void bad_configurations(void **state) {
  (void)state;
  dj__worlds *w;
  dj__worlds_config c = {.map = map, .n_world = 0, .n_agent = 4};
  assert_int_equal(dj__worlds_create(&c, &w), DJ_E_INVALID);
  assert_non_null(strstr(dj_error_message(), "0 worlds"));
  c = (dj__worlds_config){.map = map, .n_world = 1, .n_agent = 4, .n_near = 1000};
  assert_int_equal(dj__worlds_create(&c, &w), DJ_E_INVALID);
  c = (dj__worlds_config){.n_world = 1, .n_agent = 4};
  assert_int_equal(dj__worlds_create(&c, &w), DJ_E_INVALID);
  assert_null(w);
  dj__worlds_destroy(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(same_at_any_number_of_threads),
      cmocka_unit_test(traffic_flows),
      cmocka_unit_test(actions),
      cmocka_unit_test(collisions_are_seen),
      cmocka_unit_test(observations),
      cmocka_unit_test(bad_configurations),
  };
  return cmocka_run_group_tests(tests, make_map, drop_map);
}
