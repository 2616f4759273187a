/* Maps: towns of every style from many seeds are roads one can drive on: every lane goes on, begins
 * where the one before ends, and can be reached; and questions to them give right answers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "dojo/log.h"
#include "world/map.h"

static const dj__town_style styles[] = {DJ__TOWN_GRID,     DJ__TOWN_ORGANIC, DJ__TOWN_RURAL,
                                        DJ__TOWN_MOTORWAY, DJ__TOWN_MIXED,   DJ__TOWN_TRACK};
enum { N_STYLES = sizeof styles / sizeof *styles, N_SEEDS = 4 };

static dj__map *town(dj__town_style style, uint64_t seed) {
  dj__map *m = NULL;
  dj__town_config c = {.seed = seed, .style = style, .hills = -1};
  if (dj__map_generate(&c, &m))
    fail_msg("%s seed %d: %s", dj__town_style_name(style), (int)seed, dj_error_message());
  return m;
}

/* Every link that a town declares holds, so making one gives no message: none may come. */
static int n_message;
static char last_message[256];

static void keep_message(void *user, dj_log_level level, const char *text) {
  (void)user;
  (void)level;
  n_message++;
  (void)strncpy(last_message, text, sizeof last_message - 1);
}

static dj__map *made[N_STYLES][N_SEEDS]; /* once for all tests */

static int make_towns(void **state) {
  (void)state;
  dj_log_set_sink(keep_message, NULL);
  for (int i = 0; i < N_STYLES; i++)
    for (int k = 0; k < N_SEEDS; k++) made[i][k] = town(styles[i], (uint64_t)k + 1);
  return 0;
}

static int drop_towns(void **state) {
  (void)state;
  for (int i = 0; i < N_STYLES; i++)
    for (int k = 0; k < N_SEEDS; k++) dj__map_destroy(made[i][k]);
  return 0;
}

static void each_town(void (*check)(const dj__map *)) {
  for (int i = 0; i < N_STYLES; i++)
    for (int k = 0; k < N_SEEDS; k++) check(made[i][k]);
}

/* A successor begins where its predecessor ends, in the same direction, at the same height. */
static void check_joints(const dj__map *m) {
  for (int i = 0; i < m->n_lane; i++) {
    const dj__lane *l = &m->lane[i];
    assert_true(l->n_point >= 2);
    const dj__lane_point *e = &m->point[l->point0 + l->n_point - 1];
    for (int k = 0; k < l->n_succ; k++) {
      const dj__lane *n = &m->lane[m->graph[l->succ0 + k]];
      const dj__lane_point *f = &m->point[n->point0];
      double gap = hypot(e->x - f->x, e->y - f->y), turn = remainder(e->yaw - f->yaw, 2 * M_PI);
      if (gap > 0.05 || fabs(e->z - f->z) > 0.05 || fabs(turn) > 0.06)
        fail_msg("%s: lane %d to %d: gap %g m, %g m high, %g rad", m->name, i,
                 m->graph[l->succ0 + k], gap, e->z - f->z, turn);
      bool back = false;
      for (int q = 0; q < n->n_pred; q++) back |= m->graph[n->pred0 + q] == i;
      assert_true(back);
    }
  }
}

static void joints_are_tight(void **state) {
  (void)state;
  each_town(check_joints);
}

/* Lanes that a connection links are there, and the one goes on in the other. */
static void check_links(const dj__map *m) {
  for (int i = 0; i < m->n_connection; i++) {
    const dj__connection *c = &m->connection[i];
    const dj__road *in = &m->road[c->incoming], *on = &m->road[c->connecting];
    bool at_end = in->succ.kind == DJ__LINK_JUNCTION && in->succ.index == on->junction;
    const dj__section *s = &m->section[at_end ? in->section0 + in->n_section - 1 : in->section0];
    for (int k = c->link0; k < c->link0 + c->n_link; k++) {
      int from = -1, to = -1;
      for (int q = s->lane0; q < s->lane0 + s->n_lane; q++)
        if (m->road_lane[q].id == m->lane_link[k][0]) from = m->road_lane[q].lane;
      const dj__section *first = &m->section[on->section0];
      for (int q = first->lane0; q < first->lane0 + first->n_lane; q++)
        if (m->road_lane[q].id == m->lane_link[k][1]) to = m->road_lane[q].lane;
      assert_true(from >= 0 && to >= 0);
      bool linked = false;
      for (int q = 0; q < m->lane[from].n_succ; q++)
        linked |= m->graph[m->lane[from].succ0 + q] == to;
      if (!linked)
        fail_msg("%s: road %s, lane %d is not linked to road %s, lane %d", m->name, in->id,
                 m->lane_link[k][0], on->id, m->lane_link[k][1]);
    }
  }
}

static void every_declared_link_holds(void **state) {
  (void)state;
  each_town(check_links);
  static const int seeds[] = {101, 120, 151, 160, 161, 170, 171, 201, 202, 203};
  for (int i = 0; i < N_STYLES; i++)
    for (size_t k = 0; k < sizeof seeds / sizeof *seeds; k++) {
      dj__map *m = town(styles[i], (uint64_t)seeds[k]);
      check_links(m);
      check_joints(m);
      dj__map_destroy(m);
    }
  if (n_message) fail_msg("%d messages, the last one: %s", n_message, last_message);
}

/* From one driving lane every other one can be reached, forwards and backwards: one component. */
static int reach(const dj__map *m, bool back) {
  int *stack = malloc(((size_t)m->n_lane + 1) * sizeof *stack), n = 0, count = 0;
  bool *seen = calloc((size_t)m->n_lane + 1, sizeof *seen);
  assert_true(stack && seen);
  for (int i = 0; i < m->n_lane && n == 0; i++)
    if (m->lane[i].type == DJ__LANE_DRIVING) {
      stack[n++] = i;
      seen[i] = true;
    }
  while (n > 0) {
    int at = stack[--n];
    count++;
    const dj__lane *l = &m->lane[at];
    int next[64], k = 0;
    for (int i = 0; i < (back ? l->n_pred : l->n_succ) && k < 60; i++)
      next[k++] = m->graph[(back ? l->pred0 : l->succ0) + i];
    if (!back && l->change_left) next[k++] = l->left;
    if (!back && l->change_right) next[k++] = l->right;
    if (back && l->left >= 0 && m->lane[l->left].change_right) next[k++] = l->left;
    if (back && l->right >= 0 && m->lane[l->right].change_left) next[k++] = l->right;
    for (int i = 0; i < k; i++)
      if (!seen[next[i]]) {
        seen[next[i]] = true;
        stack[n++] = next[i];
      }
  }
  free(stack);
  free(seen);
  return count;
}

static void check_reach(const dj__map *m) {
  int driving = 0;
  for (int i = 0; i < m->n_lane; i++) {
    if (m->lane[i].type != DJ__LANE_DRIVING) continue;
    driving++;
    if (m->lane[i].n_succ == 0 || m->lane[i].n_pred == 0)
      fail_msg("%s: lane %d (road %s) is a dead end", m->name, i, m->road[m->lane[i].road].id);
  }
  assert_true(driving > 0);
  if (reach(m, false) != driving || reach(m, true) != driving)
    fail_msg("%s: of %d driving lanes %d can be reached, %d lead back", m->name, driving,
             reach(m, false), reach(m, true));
}

static void every_lane_can_be_reached(void **state) {
  (void)state;
  each_town(check_reach);
}

/* A point put beside a lane is found on it again. */
static void check_questions(const dj__map *m) {
  dj__rng g = {m->seed, 5, 0};
  for (int n = 0; n < 500; n++) {
    int lane = (int)dj__rng_below(&g, (uint64_t)m->n_lane);
    const dj__lane *l = &m->lane[lane];
    if (l->type != DJ__LANE_DRIVING) continue;
    dj__place p;
    double s = l->length * dj__rng_uniform(&g, 0.05f, 0.95f), found_s, found_t;
    double t = 0;
    dj__map_at(m, lane, s, 0, &p);
    t = 0.3 * p.width * dj__rng_uniform(&g, -1, 1);
    dj__map_at(m, lane, s, t, &p);
    double d = dj__map_project(m, lane, p.x, p.y, s, &found_s, &found_t);
    assert_true(fabs(d - fabs(t)) < 0.05 && fabs(found_s - s) < 0.3 && fabs(found_t - t) < 0.05);
    int near = dj__map_nearest(m, p.x, p.y, p.yaw, 1u << DJ__LANE_DRIVING, 5, &found_s, &found_t);
    assert_true(near >= 0);
    assert_true(fabs(found_t) <= fabs(t) + 0.1);
    if (!dj__map_drivable(m, p.x, p.y, false))
      fail_msg("%s: lane %d at %g, %g (%g, %g) is not drivable", m->name, lane, s, t, p.x, p.y);
    assert_true(fabs(dj__map_height(m, p.x, p.y) - p.z) < 0.3);
    assert_true(dj__map_ground(m, p.x, p.y) < p.z - 0.1);
  }
  assert_int_equal(dj__map_nearest(m, m->x1 + 500, m->y1, NAN, ~0u, 50, NULL, NULL), -1);
  assert_false(dj__map_drivable(m, m->x1 + 500, m->y1, true));
}

static void questions_are_answered(void **state) {
  (void)state;
  each_town(check_questions);
}

/* Of two lanes in conflict at most one waits, and each knows of the other. */
static void check_conflicts(const dj__map *m) {
  for (int i = 0; i < m->n_lane; i++)
    for (int k = 0; k < m->lane[i].n_conflict; k++) {
      const dj__conflict *c = &m->conflict[m->lane[i].conflict0 + k], *back = NULL;
      const dj__lane *o = &m->lane[c->lane];
      for (int q = 0; q < o->n_conflict; q++)
        if (m->conflict[o->conflict0 + q].lane == i) back = &m->conflict[o->conflict0 + q];
      assert_non_null(back);
      assert_false(c->yield && back->yield);
      assert_true(c->from == back->other_from && c->to == back->other_to &&
                  c->merge == back->merge);
      assert_true(c->from >= 0 && c->to <= m->lane[i].length + 1e-3 && c->from <= c->to);
    }
}

static void conflicts_are_mutual(void **state) {
  (void)state;
  each_town(check_conflicts);
}

/* Two phases of a junction that cross are never green together. */
static void check_lights(const dj__map *m) {
  for (int i = 0; i < m->n_lane; i++) {
    const dj__lane *l = &m->lane[i];
    if (l->junction < 0 || l->n_pred == 0) continue;
    int stop = m->lane[m->graph[l->pred0]].stop;
    for (int k = 0; stop >= 0 && k < l->n_conflict; k++) {
      const dj__conflict *c = &m->conflict[l->conflict0 + k];
      const dj__lane *o = &m->lane[c->lane];
      int other = o->n_pred ? m->lane[m->graph[o->pred0]].stop : -1;
      if (other < 0 || c->yield || m->stop[stop].control != DJ__CONTROL_LIGHTS) continue;
      bool waits = false; /* the other one does */
      for (int q = 0; q < o->n_conflict; q++)
        if (m->conflict[o->conflict0 + q].lane == i) waits = m->conflict[o->conflict0 + q].yield;
      if (waits || m->stop[stop].lane == m->stop[other].lane) continue;
      for (double t = 0; t < m->junction[l->junction].cycle; t += 0.5)
        assert_false(dj__map_light(m, stop, t) == DJ__LIGHT_GREEN &&
                     dj__map_light(m, other, t) == DJ__LIGHT_GREEN);
    }
  }
}

static void lights_keep_apart(void **state) {
  (void)state;
  each_town(check_lights);
}

static void check_routes(const dj__map *m) {
  for (uint64_t seed = 0; seed < 20; seed++) {
    dj__route r, again, way;
    assert_int_equal(dj__map_random_route(m, seed, 400, &r), DJ_OK);
    assert_int_equal(dj__map_random_route(m, seed, 400, &again), DJ_OK);
    assert_true(r.n == again.n && r.length == again.length && r.length >= 399);
    for (int i = 0; i + 1 < r.n; i++) {
      const dj__lane *l = &m->lane[r.lane[i]];
      bool on = (l->left == r.lane[i + 1] && l->change_left) ||
                (l->right == r.lane[i + 1] && l->change_right);
      for (int k = 0; k < l->n_succ; k++) on |= m->graph[l->succ0 + k] == r.lane[i + 1];
      assert_true(on);
    }
    assert_int_equal(dj__map_route(m, r.lane[0], r.start, r.lane[r.n - 1], r.end, &way), DJ_OK);
    assert_int_equal(way.lane[0], r.lane[0]);
    assert_int_equal(way.lane[way.n - 1], r.lane[r.n - 1]);
    free(r.lane);
    free(again.lane);
    free(way.lane);
  }
}

static void routes_lead_there(void **state) {
  (void)state;
  each_town(check_routes);
}

static void a_seed_is_a_town(void **state) {
  (void)state;
  for (int i = 0; i < N_STYLES; i++) {
    dj__map *a = town(styles[i], 3), *b = town(styles[i], 3), *c = town(styles[i], 4);
    assert_true(a->digest == b->digest && a->digest != c->digest);
    assert_memory_equal(a->point, b->point, (size_t)a->n_point * sizeof *a->point);
    dj__map_destroy(a);
    dj__map_destroy(b);
    dj__map_destroy(c);
  }
}

static void check_grades(const dj__map *m) {
  for (int i = 0; i < m->n_lane; i++)
    for (int k = 0; m->lane[i].type == DJ__LANE_DRIVING && k < m->lane[i].n_point; k++)
      if (fabsf(m->point[m->lane[i].point0 + k].slope) > 0.09f)
        fail_msg("%s: a grade of %g", m->name, m->point[m->lane[i].point0 + k].slope);
}

static void hills_can_be_climbed(void **state) {
  (void)state;
  each_town(check_grades);
}

/* ---- no road runs over another one ---- */
static int touches(const dj__map *m, int road, int end) { /* junction there, or -1 */
  const dj__road *r = &m->road[road];
  const dj__link *l = end ? &r->succ : &r->pred;
  if (r->junction >= 0) return r->junction;
  return l->kind == DJ__LINK_JUNCTION ? l->index : -1;
}

static bool meet(const dj__map *m, const dj__lane *a, const dj__lane *b, double x, double y) {
  if (a->road == b->road) return true;
  for (int e = 0; e < 2; e++)
    for (int f = 0; f < 2; f++) {
      int j = touches(m, a->road, e);
      if (j < 0 || j != touches(m, b->road, f)) continue;
      if (a->junction == j && b->junction == j) return true;
      if (hypot(x - m->junction[j].x, y - m->junction[j].y) < m->junction[j].radius + 12)
        return true;
    }
  return false;
}

typedef struct cells {
  int nx, ny, *first, *next;
  const dj__map *m;
} cells;

static int cell(const cells *c, double x, double y) {
  return (int)((y - c->m->y0) / 6) * c->nx + (int)((x - c->m->x0) / 6);
}

static void look_for_overlap(const cells *c, const int *lane_of, int i) {
  const dj__map *m = c->m;
  const dj__lane_point *p = &m->point[i];
  const dj__lane *a = &m->lane[lane_of[i]];
  for (int dy = -1; dy <= 1; dy++)
    for (int dx = -1; dx <= 1; dx++) {
      int x = (int)((p->x - m->x0) / 6) + dx, y = (int)((p->y - m->y0) / 6) + dy;
      if (x < 0 || y < 0 || x >= c->nx || y >= c->ny) continue;
      for (int k = c->first[y * c->nx + x]; k >= 0; k = c->next[k]) {
        const dj__lane_point *q = &m->point[k];
        double d = hypot(p->x - q->x, p->y - q->y);
        if (d > 0.5 * (p->width + q->width) - 0.4) continue;
        if (!meet(m, a, &m->lane[lane_of[k]], p->x, p->y))
          fail_msg("%s: roads %s and %s run over each other near (%.1f, %.1f)", m->name,
                   m->road[a->road].id, m->road[m->lane[lane_of[k]].road].id, p->x, p->y);
      }
    }
}

static void check_overlap(const dj__map *m) {
  cells c = {.nx = 2 + (int)((m->x1 - m->x0) / 6), .ny = 2 + (int)((m->y1 - m->y0) / 6), .m = m};
  int n = c.nx * c.ny, *lane_of = malloc((size_t)m->n_point * sizeof *lane_of);
  c.first = malloc((size_t)n * sizeof *c.first);
  c.next = malloc((size_t)m->n_point * sizeof *c.next);
  assert_true(c.first && c.next && lane_of);
  for (int i = 0; i < n; i++) c.first[i] = -1;
  for (int l = 0; l < m->n_lane; l++)
    for (int i = m->lane[l].point0; i < m->lane[l].point0 + m->lane[l].n_point; i++) {
      lane_of[i] = l;
      if (m->lane[l].type != DJ__LANE_DRIVING) continue;
      int k = cell(&c, m->point[i].x, m->point[i].y);
      c.next[i] = c.first[k];
      c.first[k] = i;
    }
  for (int l = 0; l < m->n_lane; l++)
    for (int i = 0; m->lane[l].type == DJ__LANE_DRIVING && i < m->lane[l].n_point; i += 3)
      look_for_overlap(&c, lane_of, m->lane[l].point0 + i);
  free(c.first);
  free(c.next);
  free(lane_of);
}

static void roads_do_not_overlap(void **state) {
  (void)state;
  each_town(check_overlap);
}

/* Who keeps to the limit stays below 4 m/s^2 sideways (outside of junctions). */
static void check_bends(const dj__map *m) {
  for (int l = 0; l < m->n_lane; l++) {
    const dj__lane *o = &m->lane[l];
    if (o->type != DJ__LANE_DRIVING || o->junction >= 0 || o->zone == DJ__ZONE_TRACK) continue;
    for (int i = 1; i + 1 < o->n_point; i++) {
      double k = fabsf(m->point[o->point0 + i].curvature);
      if (k * o->speed_limit * o->speed_limit > 4.5)
        fail_msg("%s: road %s bends with %g m at %g km/h", m->name, m->road[o->road].id, 1 / k,
                 3.6 * o->speed_limit);
    }
  }
}

static void bends_fit_the_limits(void **state) {
  (void)state;
  each_town(check_bends);
}

/* A lane that only turns left at lights, and begins where another one parts. */
static bool is_pocket(const dj__map *m, const dj__lane *l) {
  if (l->stop < 0 || m->stop[l->stop].control != DJ__CONTROL_LIGHTS) return false;
  for (int k = 0; k < l->n_succ; k++)
    if (m->lane[m->graph[l->succ0 + k]].turn != DJ__TURN_LEFT) return false;
  for (int i = 0; l->n_pred == 1 && i < 3; i++) { /* back to where the pocket begins */
    l = &m->lane[m->graph[l->pred0]];
    if (l->n_succ > 1 && l->junction < 0) return true;
  }
  return false;
}

static void towns_have_pockets_and_zebras(void **state) {
  (void)state;
  int pockets = 0, zebras = 0;
  for (int i = 0; i < N_STYLES; i++)
    for (int k = 0; k < N_SEEDS; k++) {
      const dj__map *m = made[i][k];
      for (int l = 0; l < m->n_lane; l++)
        pockets += m->lane[l].type == DJ__LANE_DRIVING && is_pocket(m, &m->lane[l]);
      for (int c = 0; c < m->n_crossing; c++)
        zebras += m->crossing[c].junction < 0 && !m->crossing[c].lights;
    }
  assert_true(pockets > 0);
  assert_true(zebras > 0);
}

static void bad_configurations_are_refused(void **state) {
  (void)state;
  dj__map *m;
  dj__town_config c = {.style = 99};
  assert_int_equal(dj__map_generate(&c, &m), DJ_E_INVALID);
  c = (dj__town_config){.size = -1};
  assert_int_equal(dj__map_generate(&c, &m), DJ_E_INVALID);
  c = (dj__town_config){.size = NAN};
  assert_int_equal(dj__map_generate(&c, &m), DJ_E_INVALID);
  c = (dj__town_config){.hills = INFINITY};
  assert_int_equal(dj__map_generate(&c, &m), DJ_E_INVALID);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(joints_are_tight),
                                     cmocka_unit_test(every_declared_link_holds),
                                     cmocka_unit_test(every_lane_can_be_reached),
                                     cmocka_unit_test(questions_are_answered),
                                     cmocka_unit_test(conflicts_are_mutual),
                                     cmocka_unit_test(lights_keep_apart),
                                     cmocka_unit_test(routes_lead_there),
                                     cmocka_unit_test(a_seed_is_a_town),
                                     cmocka_unit_test(hills_can_be_climbed),
                                     cmocka_unit_test(roads_do_not_overlap),
                                     cmocka_unit_test(bends_fit_the_limits),
                                     cmocka_unit_test(towns_have_pockets_and_zebras),
                                     cmocka_unit_test(bad_configurations_are_refused)};
  return cmocka_run_group_tests(tests, make_towns, drop_towns);
}
