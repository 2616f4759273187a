/*
 * The world's state: determinism, copies, no allocation; traffic that keeps to rules and to itself;
 * events and their labels.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "world/traffic.h"
#include "world/world.h"

#ifdef __SANITIZE_ADDRESS__
enum { SLOW = 12 };
#else
enum { SLOW = 1 };
#endif

/* ---- allocations of the whole process ---- */
static volatile int64_t allocations;
static void count_one(void) {
  __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
}
#ifdef __SANITIZE_ADDRESS__
int __sanitizer_install_malloc_and_free_hooks(void (*m)(const volatile void *, size_t),
                                              void (*f)(const volatile void *));
static void on_malloc(const volatile void *p, size_t n) {
  (void)p, (void)n;
  count_one();
}
static void on_free(const volatile void *p) {
  (void)p;
}
static void count_allocations(void) {
  static bool installed;
  if (!installed) (void)__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
  installed = true;
}
#else
extern void *__libc_malloc(size_t n), *__libc_calloc(size_t n, size_t size),
    *__libc_realloc(void *p, size_t n);
void *malloc(size_t n) {
  count_one();
  return __libc_malloc(n);
}
void *calloc(size_t n, size_t size) {
  count_one();
  return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n) {
  count_one();
  return __libc_realloc(p, n);
}
static void count_allocations(void) {}
#endif

/* ---- towns ---- */
static dj__map *grid, *organic;

static int make_maps(void **state) {
  (void)state;
  dj_status s =
      dj__map_generate(&(dj__town_config){.seed = 2, .style = DJ__TOWN_GRID, .hills = 1}, &grid);
  if (!s)
    s = dj__map_generate(&(dj__town_config){.seed = 1, .style = DJ__TOWN_ORGANIC, .hills = 1},
                         &organic);
  return s;
}
static int drop_maps(void **state) {
  (void)state;
  dj__map_destroy(grid);
  dj__map_destroy(organic);
  return 0;
}

static dj__world *make(const dj__world_config *c) {
  dj__world *w = NULL;
  if (dj__world_create(c, &w)) fail_msg("%s", dj_error_message());
  return w;
}

/* Keeps to the middle of its route at a gentle speed, and behind whoever is ahead. */
static dj__command follow_route(const dj__world *w) {
  const dj__agents *a = &w->agents;
  double ahead = 5 + 0.6 * w->ego.vx, at = w->route_s + ahead, x = 0, y = 0;
  int lane = w->route.lane[w->route.n - 1];
  double s = w->map->lane[lane].length;
  for (int k = w->route_at; k < w->route.n; k++)
    if (at - w->route_from[k] <= w->map->lane[w->route.lane[k]].length &&
        (k + 1 == w->route.n || w->route_from[k + 1] > at)) {
      lane = w->route.lane[k];
      s = at - w->route_from[k];
      break;
    }
  dj__place p;
  dj__map_at(w->map, lane, s, 0, &p);
  x = (p.x - a->x[0]) * cos(w->ego.yaw) + (p.y - a->y[0]) * sin(w->ego.yaw);
  y = (p.y - a->y[0]) * cos(w->ego.yaw) - (p.x - a->x[0]) * sin(w->ego.yaw);
  double steer = atan(w->ego.model->wheelbase * 2 * y / (x * x + y * y + 1e-3));
  double want = fmin(8, p.speed_limit), room = 1e9;
  int near[64], n = dj__world_near(w, a->x[0], a->y[0], 40, near, 64);
  for (int k = 0; k < n; k++) {
    double dx = a->x[near[k]] - a->x[0], dy = a->y[near[k]] - a->y[0];
    double along = dx * cos(w->ego.yaw) + dy * sin(w->ego.yaw);
    double side = fabs(dy * cos(w->ego.yaw) - dx * sin(w->ego.yaw));
    if (near[k] && along > 0 && side < 2) room = fmin(room, along - 7);
  }
  want = fmin(want, sqrt(2 * 2.0 * fmax(room, 0)));
  double push = want - w->ego.vx;
  return (dj__command){(float)(steer / w->ego.model->max_steer), (float)fmax(0, 0.3 * push),
                       (float)fmax(0, -0.3 * push)};
}

/* ---- determinism ---- */
static void same_bytes_after_an_hour(void **state) {
  (void)state;
  uint64_t digest[2] = {0};
  for (int k = 0; k < 2; k++) {
    dj__world_config c = dj__world_config_default(grid, 5);
    c.roadworks = 0.5;
    dj__world *w = make(&c);
    for (int i = 0; i < 72000 / SLOW; i++) {
      dj__command u = follow_route(w);
      dj__world_step(w, &u);
    }
    digest[k] = dj__world_digest(w);
    assert_true(w->n_event > 0);
    dj__world_destroy(w);
  }
  assert_true(digest[0] == digest[1]);
  dj__world_config c = dj__world_config_default(grid, 5);
  dj__world *w = make(&c), *v;
  c.seed = 6;
  v = make(&c);
  assert_true(dj__world_digest(w) != dj__world_digest(v));
  dj__world_destroy(w);
  dj__world_destroy(v);
}

static void a_copy_goes_on_the_same(void **state) {
  (void)state;
  dj__world_config c = dj__world_config_default(organic, 3);
  dj__world *w = make(&c), *copy = NULL;
  for (int i = 0; i < 400; i++) dj__world_step(w, &(dj__command){0.02f, 0.2f, 0});
  assert_int_equal(dj__world_clone(w, &copy), DJ_OK);
  assert_true(dj__world_digest(w) == dj__world_digest(copy));
  for (int i = 0; i < 600; i++) dj__world_step(w, &(dj__command){0, 0.1f, 0});
  uint64_t digest = dj__world_digest(w);
  dj__world_destroy(w); /* the copy stands on its own */
  for (int i = 0; i < 600; i++) dj__world_step(copy, &(dj__command){0, 0.1f, 0});
  assert_true(dj__world_digest(copy) == digest);
  dj__world_destroy(copy);
}

static void steps_allocate_nothing(void **state) {
  (void)state;
  count_allocations();
  dj__world_config c = dj__world_config_default(grid, 4);
  c.unruly = 4;
  dj__world *w = make(&c);
  int64_t before = allocations;
  for (int i = 0; i < 1200 / SLOW; i++) dj__world_step(w, &(dj__command){0, 0.15f, 0});
  assert_int_equal(allocations - before, 0);
  dj__world_destroy(w);
}

/* ---- traffic on its own ---- */
typedef struct seen {
  int hits, ran_red;
  double mean, stuck, fastest; /* m/s, s, share of the limit */
} seen;

/* Nobody who is not on foot touches anyone. */
static int touches(const dj__traffic *t) {
  const dj__agents *a = &t->agents;
  int near[64], hits = 0;
  for (int i = 0; i < a->n; i++) {
    if (!dj__is_rider(a, i)) continue;
    int n = dj__hash_near(t, a->x[i], a->y[i], 16, near, 64);
    for (int k = 0; k < n; k++) hits += near[k] != i && dj__agents_touch(a, i, near[k], 0);
  }
  return hits;
}

static seen watch(const dj__map *m, uint64_t seed, int n_vehicle, double seconds) {
  dj__net *net = NULL;
  dj__traffic *t = NULL;
  dj__population p = {0, n_vehicle, n_vehicle / 8, 30, 25, 4};
  assert_int_equal(dj__net_create(m, &net), DJ_OK);
  assert_int_equal(dj__traffic_create(net, seed, &p, &t), DJ_OK);
  dj__net_release(net);
  dj__traffic_populate(t, &p);
  dj__traffic_hash(t);
  seen r = {0};
  const dj__agents *a = &t->agents;
  int *before = calloc((size_t)a->n, sizeof *before), count = 0;
  for (int step = 0; step * DJ__WORLD_DT < seconds; step++) {
    for (int i = 0; i < a->n; i++) before[i] = a->lane[i];
    dj__traffic_register(t);
    dj__traffic_decide(t);
    dj__traffic_move(t);
    dj__pedestrians_move(t);
    for (int i = 0; i < a->n; i++) {
      if (!dj__is_rider(a, i)) continue;
      const dj__mind *mind = &t->mind[i];
      r.mean += (double)a->speed[i];
      count++;
      r.stuck = fmax(r.stuck, (double)mind->still);
      const dj__lane *l = &m->lane[a->lane[i]];
      if (l->junction < 0 && step > 200)
        r.fastest = fmax(r.fastest, (double)a->speed[i] / l->speed_limit);
      int stop = before[i] >= 0 && before[i] != a->lane[i] ? m->lane[before[i]].stop : -1;
      if (stop >= 0 && l->junction >= 0 && before[i] == mind->behind)
        /* its middle leaves the lane some metres behind the line: red for longer than that takes */
        r.ran_red += dj__traffic_light(t, stop) == DJ__LIGHT_RED && a->speed[i] > 4 &&
                     dj__map_light(m, stop, t->time - 2.5) == DJ__LIGHT_RED;
    }
    t->step++;
    t->time = (double)t->step * DJ__WORLD_DT;
    dj__traffic_respawn(t);
    dj__traffic_hash(t);
    if (step % 4 == 0) r.hits += touches(t);
  }
  r.mean /= count;
  free(before);
  dj__traffic_destroy(t);
  return r;
}

static void nobody_collides_and_all_move(void **state) {
  (void)state;
  for (int town = 0; town < 2; town++) {
    seen r = watch(town ? organic : grid, 21, 60, 600.0 / SLOW);
    if (r.hits) fail_msg("town %d: %d touching boxes", town, r.hits);
    assert_true(r.mean > 3);
    assert_true(r.stuck < 150);
    assert_true(r.fastest < 1.35); /* temperament, and lower limits just entered */
    assert_int_equal(r.ran_red, 0);
  }
}

/* A motorway with a lane closed every two kilometres: whoever stands before the cones is let in,
 * and lanes that become one empty by turns. Share of the time that someone stands for over a
 * minute. */
typedef struct stand { /* where somebody was a step ago */
  double x, y;
  uint32_t id;
} stand;

/* How many moved further in a step than they drive, a lane change in a bend included. */
static int64_t jumps(const dj__agents *a, stand *before) {
  int64_t n = 0;
  for (int i = 0; i < a->n; i++) {
    stand *b = &before[i];
    double d = hypot(a->x[i] - b->x, a->y[i] - b->y);
    n += b->id == a->id[i] && d > 1.2 * (double)a->speed[i] * DJ__WORLD_DT + 0.4;
    *b = (stand){a->x[i], a->y[i], a->id[i]};
  }
  return n;
}

static void queues_at_closed_lanes_flow(void **state) {
  (void)state;
  dj__map *m = NULL;
  assert_int_equal(
      dj__map_generate(&(dj__town_config){.seed = 3, .style = DJ__TOWN_MOTORWAY, .hills = 1}, &m),
      DJ_OK);
  dj__net *net = NULL;
  dj__traffic *t = NULL;
  assert_int_equal(dj__net_create(m, &net), DJ_OK);
  dj__population p = {0, 100, 12, 0, 0, dj__roadworks_slots(net, 0.5)};
  assert_int_equal(dj__traffic_create(net, 3, &p, &t), DJ_OK);
  dj__net_release(net);
  dj__roadworks(t, 0.5, NULL, 0);
  dj__traffic_populate(t, &p);
  dj__traffic_hash(t);
  int64_t stands = 0, all = 0, hits = 0, jumped = 0;
  stand *before = calloc((size_t)t->agents.n + 1, sizeof *before);
  assert_non_null(before);
  for (int step = 0; step < 12000 / SLOW; step++) {
    (void)jumps(&t->agents, before);
    dj__traffic_register(t);
    dj__traffic_decide(t);
    dj__traffic_move(t);
    jumped += jumps(&t->agents, before);
    t->step++;
    t->time = (double)t->step * DJ__WORLD_DT;
    dj__traffic_respawn(t);
    dj__traffic_hash(t);
    for (int i = 0; i < t->agents.n; i++) {
      if (!dj__is_rider(&t->agents, i)) continue;
      all++;
      stands += t->mind[i].still > 60;
    }
    if (step % 4 == 0) hits += touches(t);
  }
  free(before);
  assert_int_equal(hits, 0);
  assert_int_equal(jumped, 0);
  if (stands * 200 > all) fail_msg("%g %% stand", 100.0 * (double)stands / (double)all);
  dj__traffic_destroy(t);
  dj__map_destroy(m);
}

/* A lane of the motorway that ends, beside one that goes on. */
static int ending_lane(const dj__net *n, int *through) {
  const dj__map *m = n->map;
  for (int l = 0; l < m->n_lane; l++)
    for (int c = m->lane[l].conflict0; c < m->lane[l].conflict0 + m->lane[l].n_conflict; c++) {
      if (!n->zip[c] || !m->conflict[c].yield || m->lane[l].zone != DJ__ZONE_MOTORWAY) continue;
      *through = m->conflict[c].lane;
      if (m->lane[dj__pred(m, dj__pred(m, l, 0), 0)].length > 120) return l;
    }
  fail_msg("no lane ends");
  return -1;
}

/* Two come at `speed`, the one on the lane that ends 8 m before the other. Who is through first: 0,
 * that one, or 1? */
static int first_through(dj__net *n, double speed) {
  const dj__map *m = n->map;
  dj__traffic *t = NULL;
  const dj__population p = {0, 2, 0, 0, 0, 0};
  int through = -1, ends = ending_lane(n, &through);
  assert_int_equal(dj__traffic_create(n, 1, &p, &t), DJ_OK);
  dj__rng r = {1, 2, 0};
  for (int i = 0; i < 2; i++) {
    const int to = i ? through : ends, before = dj__pred(m, to, 0), from = dj__pred(m, before, 0);
    dj__mind *q = &t->mind[i];
    dj__agent_dress(t, i, DJ__CAR, &r);
    t->agents.id[i] = (uint32_t)i + 1;
    q->v_factor = (float)(speed / m->lane[from].speed_limit);
    dj__agent_put(t, i, from, m->lane[from].length - 70 - 8 * i, 0, speed);
    q->n_path = 1;
    q->path[q->n_path++] = before;
    q->path[q->n_path++] = to;
    dj__agent_extend(t, i);
  }
  dj__traffic_hash(t);
  int first = -1;
  const int after = m->graph[m->lane[ends].succ0];
  for (int step = 0; step < 1600 && first < 0; step++) {
    for (int i = 0; i < 2; i++) t->mind[i].calm = 1; /* stay in their lanes */
    dj__traffic_register(t);
    dj__traffic_decide(t);
    dj__traffic_move(t);
    t->step++;
    dj__traffic_hash(t);
    for (int i = 0; i < 2 && first < 0; i++)
      if (t->agents.lane[i] == after) first = i;
  }
  dj__traffic_destroy(t);
  return first;
}

/* Who is on the lane that ends gives way; in a jam it is by turns. */
static void lanes_that_end_give_way(void **state) {
  (void)state;
  dj__map *m = NULL;
  dj__net *n = NULL;
  assert_int_equal(
      dj__map_generate(&(dj__town_config){.seed = 3, .style = DJ__TOWN_MOTORWAY, .hills = 1}, &m),
      DJ_OK);
  assert_int_equal(dj__net_create(m, &n), DJ_OK);
  assert_int_equal(first_through(n, 22), 1);
  assert_int_equal(first_through(n, 4), 0);
  dj__net_release(n);
  dj__map_destroy(m);
}

/* Brake lamps with braking, indicators before turns, nobody dark at night. */
static void lamps(void **state) {
  (void)state;
  dj__world_config c = dj__world_config_default(grid, 8);
  c.unruly = 0;
  assert_int_equal(dj__weather_find("night", &c.weather), DJ_OK);
  dj__world *w = make(&c);
  int braking = 0, turning = 0;
  for (int i = 0; i < 1200 / (SLOW > 1 ? 2 : 1); i++) {
    dj__world_step(w, &(dj__command){0, 0, 1});
    const dj__agents *a = &w->agents;
    for (int k = 1; k < a->n; k++) {
      if (!dj__is_rider(a, k)) continue;
      assert_true(a->lamps[k] & DJ__LAMP_HEAD);
      if (a->accel[k] < -1) {
        assert_true(a->lamps[k] & DJ__LAMP_BRAKE);
        braking++;
      }
      const dj__lane *l = &grid->lane[a->lane[k]];
      if (l->turn == DJ__TURN_LEFT && !w->traffic->mind[k].want && l->junction >= 0) {
        assert_true(a->lamps[k] & DJ__LAMP_LEFT);
        turning++;
      }
    }
  }
  assert_true(braking > 0 && turning > 0);
  dj__world_destroy(w);
}

/* They live near the ego, and nobody appears before its eyes. */
static void population_follows_the_ego(void **state) {
  (void)state;
  dj__world_config c = dj__world_config_default(grid, 9);
  c.radius = 150;
  dj__world *w = make(&c);
  uint32_t *id = calloc((size_t)w->agents.n, sizeof *id);
  memcpy(id, w->agents.id, (size_t)w->agents.n * sizeof *id);
  int came = 0;
  for (int i = 0; i < 2400 / SLOW; i++) {
    dj__command u = follow_route(w);
    dj__world_step(w, &u);
    const dj__agents *a = &w->agents;
    for (int k = 1; k < a->n; k++) {
      if (!(a->flags[k] & DJ__AGENT_LIVE) || a->id[k] == id[k]) continue;
      id[k] = a->id[k];
      came++;
      double dx = a->x[k] - a->x[0], dy = a->y[k] - a->y[0];
      bool front = dx * cos(w->ego.yaw) + dy * sin(w->ego.yaw) > 0;
      assert_true(hypot(dx, dy) > (front ? 79 : 55));
    }
    int live = 0;
    for (int k = 1; k < a->n; k++)
      if (dj__is_rider(a, k) && w->traffic->mind[k].event < 0) {
        live++;
        assert_true(hypot(a->x[k] - a->x[0], a->y[k] - a->y[0]) < c.radius + 5 ||
                    k >= w->traffic->first_spare);
      }
    assert_true(live > 10);
  }
  assert_true(came > 0);
  free(id);
  dj__world_destroy(w);
}

/* ---- events ---- */
static void events_are_labelled(void **state) {
  (void)state;
  dj__world_config c = dj__world_config_default(grid, 12);
  c.unruly = 3;
  c.events = 1u << DJ__EVENT_JAYWALKER | 1u << DJ__EVENT_HARD_BRAKE;
  dj__world *w = make(&c);
  for (int i = 0; i < 4800; i++) {
    dj__command u = follow_route(w);
    dj__world_step(w, &u);
  }
  assert_true(w->n_event >= 2);
  for (int k = 0; k < w->n_event; k++) {
    const dj__event *e = &w->event[k];
    if (e->kind == DJ__EVENT_LIGHT_TURNS) continue; /* lights always turn */
    assert_true(e->kind == DJ__EVENT_JAYWALKER || e->kind == DJ__EVENT_HARD_BRAKE);
    assert_true(e->start > 0 && (e->end == 0 || e->end > e->start));
    assert_true(k == 0 || e->start >= w->event[k - 1].start);
    assert_true(e->agent > 0 && e->agent < w->agents.n);
  }
  dj__world_destroy(w);
  c.unruly = 0;
  w = make(&c);
  for (int i = 0; i < 1200; i++) dj__world_step(w, &(dj__command){0, 0.1f, 0});
  assert_int_equal(w->n_event, 0);
  dj__world_destroy(w);
}

/* Nothing but one event, and that staged. */
static dj__world_config staged(const dj__map *m, uint64_t seed, const dj__route *r, int kind,
                               double after) {
  dj__world_config c = dj__world_config_default(m, seed);
  c.route = r;
  c.unruly = 0;
  c.staged.kind = kind;
  c.staged.after = after;
  return c;
}

/* A world in which the ego has followed its route until something happened, or for `steps`. */
static dj__world *until_event(const dj__world_config *c, int steps) {
  dj__world *w = make(c);
  for (int i = 0; i < steps && w->n_event == 0; i++) {
    dj__command u = follow_route(w);
    dj__world_step(w, &u);
  }
  return w;
}

static void staged_events_happen(void **state) {
  (void)state;
  static const int kinds[] = {DJ__EVENT_JAYWALKER, DJ__EVENT_BLOCKED, DJ__EVENT_WRONG_PARKING};
  for (int k = 0; k < 3; k++) {
    dj__route route;
    assert_int_equal(dj__map_random_route(organic, 4, 900, &route), DJ_OK);
    dj__world_config c = staged(organic, 4, &route, kinds[k], 1);
    c.n_vehicle = 10;
    dj__world *w = until_event(&c, 1600);
    assert_int_equal(w->n_event, 1);
    assert_int_equal(w->event[0].kind, kinds[k]);
    double d = hypot(w->event[0].x - w->agents.x[0], w->event[0].y - w->agents.y[0]);
    assert_true(d > w->ego.vx * w->ego.vx / (2 * 0.6 * 9.81 * 0.9)); /* it can stop */
    dj__world_destroy(w);
    free(route.lane);
  }
}

/* Every kind begins on routes that have what it needs. */
static void staged_events_begin(void **state) {
  (void)state;
  static const int kinds[] = {DJ__EVENT_CUT_IN, DJ__EVENT_ONCOMING, DJ__EVENT_LIGHT_TURNS,
                              DJ__EVENT_JAYWALKER, DJ__EVENT_BLOCKED};
  for (int k = 0; k < 5; k++) {
    int runs = 0, begun = 0;
    for (uint64_t seed = 1; seed < 200 && runs < (SLOW > 1 ? 4 : 10); seed++) {
      const dj__map *m = seed & 1 ? grid : organic;
      dj__route route;
      if (dj__map_random_route(m, seed, 300, &route)) continue;
      if (dj__event_fits(m, &route, kinds[k]) == 2) {
        dj__world_config c = staged(m, seed, &route, kinds[k], 2);
        c.n_vehicle = 15;
        dj__world *w = until_event(&c, 1200);
        runs++;
        begun += w->n_event > 0 && (int)w->event[0].kind == kinds[k];
        dj__world_destroy(w);
      }
      free(route.lane);
    }
    if (3 * begun < 2 * runs) /* by a plain driver, who stands a lot */
      fail_msg("%s began in %d of %d runs", dj__event_name((dj__event_kind)kinds[k]), begun, runs);
  }
}

static void events_of_several_kinds(void **state) {
  (void)state;
  bool seen_kind[DJ__N_EVENTS] = {false};
  int kinds = 0;
  for (uint64_t seed = 1; seed <= 4; seed++) {
    dj__world_config c = dj__world_config_default(seed & 1 ? grid : organic, seed);
    dj__world *w = make(&c);
    for (int i = 0; i < 2400; i++) {
      dj__command u = follow_route(w);
      dj__world_step(w, &u);
    }
    for (int e = 0; e < w->n_event; e++) seen_kind[w->event[e].kind] = true;
    dj__world_destroy(w);
  }
  for (int k = 0; k < DJ__N_EVENTS; k++) kinds += seen_kind[k];
  if (kinds < 4) fail_msg("events of %d kinds only", kinds);
}

/* ---- the ego among them ---- */
static void ego_and_questions(void **state) {
  (void)state;
  dj__world_config c = dj__world_config_default(organic, 1);
  c.start.offset = 0.4;
  c.start.yaw = 0.1;
  c.start.speed = 3;
  dj__world *w = make(&c);
  assert_true(fabs(w->ego.vx - 3) < 1e-9 && w->agents.lane[0] == w->route.lane[0]);
  assert_true(fabs((double)w->agents.t[0] - 0.4) < 0.05);
  assert_true(dj__world_ego_collision(w) < 0);
  int parked = -1;
  for (int i = 1; i < w->agents.n && parked < 0; i++)
    if (w->agents.flags[i] & DJ__AGENT_PARKED) parked = i;
  assert_true(parked > 0);
  dj__world_place_ego(w, w->agents.x[parked] + 0.5, w->agents.y[parked], 0, 0);
  assert_int_equal(dj__world_ego_collision(w), parked);
  assert_true(dj__agents_touch(&w->agents, 0, parked, 0));
  int near[8], n = dj__world_near(w, w->agents.x[parked], w->agents.y[parked], 3, near, 8);
  bool found = false;
  for (int k = 0; k < n; k++) found |= near[k] == parked;
  assert_true(found);
  dj__world_destroy(w);
}

/* Whoever comes up behind a standing ego stops. */
static void traffic_waits_for_the_ego(void **state) {
  (void)state;
  dj__world_config c = dj__world_config_default(grid, 14);
  c.unruly = 0;
  c.n_vehicle = 60;
  c.radius = 200;
  c.start.speed = 0;
  dj__world *w = make(&c);
  for (int i = 0; i < 2400 / SLOW; i++) {
    dj__world_step(w, &(dj__command){0, 0, 1});
    int hit = dj__world_ego_collision(w);
    if (hit >= 0) fail_msg("a %s drove into the ego", dj__kind_name(w->agents.kind[hit]));
  }
  dj__world_destroy(w);
}

static void roadworks_close_lanes(void **state) {
  (void)state;
  dj__world_config c = dj__world_config_default(grid, 3);
  c.roadworks = 1;
  dj__world *w = make(&c);
  int cones = 0;
  for (int i = 0; i < w->agents.n; i++) {
    if (!(w->agents.flags[i] & DJ__AGENT_STATIC)) continue;
    cones += w->agents.kind[i] == DJ__CONE;
    assert_true(w->agents.kind[i] == DJ__CONE || w->agents.kind[i] == DJ__BARRIER);
  }
  assert_true(cones > 0);
  dj__world_destroy(w);
}

static void bad_configurations(void **state) {
  (void)state;
  dj__world *w;
  dj__world_config c = dj__world_config_default(grid, 1);
  c.vehicle = "tank";
  assert_int_equal(dj__world_create(&c, &w), DJ_E_INVALID);
  assert_non_null(strstr(dj_error_message(), "tank"));
  c = dj__world_config_default(grid, 1);
  c.n_vehicle = -1;
  assert_int_equal(dj__world_create(&c, &w), DJ_E_INVALID);
  c = dj__world_config_default(grid, 1);
  c.route = &(dj__route){.lane = (int[]){1 << 20}, .n = 1, .length = 1};
  assert_int_equal(dj__world_create(&c, &w), DJ_E_INVALID);
  c = dj__world_config_default(grid, 1);
  c.staged.kind = 99;
  assert_int_equal(dj__world_create(&c, &w), DJ_E_INVALID);
  assert_null(w);
  dj__weather weather;
  assert_int_equal(dj__weather_find("snow", &weather), DJ_E_NOT_FOUND);
  dj__world_destroy(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(same_bytes_after_an_hour),
      cmocka_unit_test(a_copy_goes_on_the_same),
      cmocka_unit_test(steps_allocate_nothing),
      cmocka_unit_test(nobody_collides_and_all_move),
      cmocka_unit_test(queues_at_closed_lanes_flow),
      cmocka_unit_test(lanes_that_end_give_way),
      cmocka_unit_test(lamps),
      cmocka_unit_test(population_follows_the_ego),
      cmocka_unit_test(events_are_labelled),
      cmocka_unit_test(staged_events_happen),
      cmocka_unit_test(staged_events_begin),
      cmocka_unit_test(events_of_several_kinds),
      cmocka_unit_test(ego_and_questions),
      cmocka_unit_test(traffic_waits_for_the_ego),
      cmocka_unit_test(roadworks_close_lanes),
      cmocka_unit_test(bad_configurations),
  };
  return cmocka_run_group_tests(tests, make_maps, drop_maps);
}
