/*
 * Labels of simulated drives are what happened: occupancy is the boxes, flow moves it onto what
 * comes later, the path is the later poses, lines lie on the map, lights and route are ahead, and
 * the sentence is one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "world/drive.h"
#include "world/labels.h"
#include "world/labels_lines.h"
#include "world/record.h"

enum { N = DJ__AHEAD_STEPS + 1, CELLS = DJ__GRID_X * DJ__GRID_Y };

static void must(dj_status s, int line) {
  if (s) fail_msg("line %d: %s", line, dj_error_message());
}
#define OK(e) must(e, __LINE__)

static void near_to(double a, double b, double eps, const char *what) {
  if (!(fabs(a - b) <= eps)) fail_msg("%s: %.6g is not %.6g (to %g)", what, a, b, eps);
}

// ---- a drive in a generated town ---------------------------------------------------------------

typedef struct drive {
  dj__map *map;
  dj__world *w;
  dj__moment *m; // (n)
  int n;
} drive;

static drive d;

static int make_drive(void **state) {
  (void)state;
  dj__town_config c = {.seed = 3, .style = DJ__TOWN_GRID, .hills = 1};
  OK(dj__map_generate(&c, &d.map));
  dj__world_config o = dj__world_config_default(d.map, 5);
  o.n_vehicle = 40;
  o.n_cyclist = 6;
  o.n_pedestrian = 20;
  o.n_parked = 30;
  o.unruly = 3;
  OK(dj__world_create(&o, &d.w));
  d.n = N + 200;
  d.m = calloc((size_t)d.n, sizeof *d.m);
  dj__driver driver;
  dj__command command = {0};
  OK(dj__driver_expert(&driver));
  OK(driver.reset(driver.self, d.w));
  for (int i = 0; i < d.n; i++) {
    dj__sense in = {.time = i * DJ__WORLD_DT, .speed = d.w->ego.vx};
    if (i % 2 == 0) OK(driver.drive(driver.self, &in, d.w, &command));
    OK(dj__moment_take(d.w, &d.m[i]));
    d.m[i].command = (dj_route_command)dj__world_route_command(d.w);
    dj__world_step(d.w, &command);
  }
  dj__driver_destroy(&driver);
  return 0;
}

static int free_drive(void **state) {
  (void)state;
  for (int i = 0; i < d.n; i++) dj__moment_free(&d.m[i]);
  free(d.m);
  dj__world_destroy(d.w);
  dj__map_destroy(d.map);
  return 0;
}

static void labels_of(dj__truth *t, int at, dj__label_set *l) {
  const dj__moment *ahead[N];
  for (int i = 0; i < N; i++) ahead[i] = &d.m[at + i];
  OK(dj__truth_make(t, 1000, ahead, N, l));
}

// ---- tests -------------------------------------------------------------------------------------

static void frames_are_right_handed(void **state) {
  (void)state;
  dj__moment m = {.x = 3, .y = -2, .z = 1, .yaw = 0.5, .pitch = 0.1, .roll = -0.05};
  dj__frame f;
  dj__frame_of(&m, &f);
  float v[3] = {4, 5, 6}, back[3];
  double p[3], ahead[3], up[3], left[3];
  dj__frame_to_world(&f, v, p);
  dj__frame_to_vehicle(&f, p, back);
  for (int k = 0; k < 3; k++) near_to(back[k], v[k], 1e-5, "there and back");
  dj__frame_to_world(&f, (float[3]){1, 0, 0}, ahead);
  dj__frame_to_world(&f, (float[3]){0, 1, 0}, left);
  dj__frame_to_world(&f, (float[3]){0, 0, 1}, up);
  near_to(atan2(ahead[1] - m.y, ahead[0] - m.x), 0.5, 1e-6, "yaw");
  assert_true(ahead[2] < m.z); // nose down
  assert_true(left[2] < m.z);  // left side down: roll is positive with the right side down
  assert_true(up[2] > m.z + 0.9);
}

/* Every cell, the slow way: taken where its middle lies in a box (widened to a cell's diagonal). */
static void occupancy_is_the_boxes(void **state) {
  (void)state;
  dj__truth *t;
  dj__label_set l;
  OK(dj__truth_create(d.map, 1, &t));
  int boxes = 0, cells = 0;
  for (int at = 0; at < 200; at += 67) {
    labels_of(t, at, &l);
    const dj_occupancy *o = &l.occupancy;
    assert_int_equal(o->n_times, 7);
    dj__frame f;
    dj__frame_of(&d.m[at], &f);
    for (int k = 0; k < o->n_times; k += 3) {
      uint8_t *want = calloc(CELLS, 1);
      const dj__moment *m = &d.m[at + 20 * k];
      for (int b = 0; b < m->n_body; b++) {
        const dj__body *g = &m->body[b];
        float v[3];
        dj__frame_to_vehicle(&f, (double[3]){g->x, g->y, g->z}, v);
        double yaw = g->yaw - d.m[at].yaw, thin = 0.25 * M_SQRT2 * 1.001;
        double a = fmax(0.5 * g->length, thin), w = fmax(0.5 * g->width, thin);
        int before = cells;
        for (int i = 0; i < DJ__GRID_X; i++)
          for (int j = 0; j < DJ__GRID_Y; j++) {
            double x = -20 + (i + 0.5) * 0.5 - v[0], y = -40 + (j + 0.5) * 0.5 - v[1];
            if (fabs(x * cos(yaw) + y * sin(yaw)) > a || fabs(y * cos(yaw) - x * sin(yaw)) > w)
              continue;
            want[i * DJ__GRID_Y + j] = 1;
            cells++;
          }
        boxes += cells > before;
      }
      assert_memory_equal(want, o->occupied + (size_t)k * CELLS, CELLS);
      free(want);
    }
  }
  assert_true(boxes > 20);
  dj__truth_destroy(t);
}

/* Each taken cell of now, moved by its flow, is taken a second later. */
static void flow_leads_to_later_occupancy(void **state) {
  (void)state;
  dj__truth *t;
  dj__label_set l;
  OK(dj__truth_create(d.map, 1, &t));
  int moved = 0, far = 0, lost = 0;
  for (int at = 0; at < 200; at += 50) {
    labels_of(t, at, &l);
    const dj_occupancy *o = &l.occupancy;
    for (int k = 0; k + 1 < o->n_times; k++)
      for (int c = 0; c < CELLS; c++) {
        const int16_t *flow = &o->flow[2 * ((size_t)k * CELLS + (size_t)c)];
        if (!o->occupied[(size_t)k * CELLS + (size_t)c]) {
          assert_true(flow[0] == 0 && flow[1] == 0);
          continue;
        }
        if (flow[0] == DJ_FLOW_UNKNOWN) {
          lost++;
          continue;
        }
        double x = c / DJ__GRID_Y + 0.5 + flow[0] / 50.0, y = c % DJ__GRID_Y + 0.5 + flow[1] / 50.0;
        // A point of a box lies in a taken cell, or beside one: cells are taken by their middles.
        bool found = false;
        bool inside = x > 1 && y > 1 && x < DJ__GRID_X - 1 && y < DJ__GRID_Y - 1;
        for (int i = (int)floor(x) - 1; i <= (int)floor(x) + 1; i++)
          for (int j = (int)floor(y) - 1; j <= (int)floor(y) + 1; j++) {
            if (i < 0 || j < 0 || i >= DJ__GRID_X || j >= DJ__GRID_Y) continue;
            found |= o->occupied[(size_t)(k + 1) * CELLS + (size_t)(i * DJ__GRID_Y + j)];
          }
        if (inside && !found) fail_msg("time %d, cell %d goes to %g, %g: free there", k, c, x, y);
        moved++;
        far += abs(flow[0]) + abs(flow[1]) > 100;
      }
  }
  assert_true(moved > 1000 && far > 100);
  assert_true(lost < moved / 4);
  dj__truth_destroy(t);
}

static void path_is_later_poses(void **state) {
  (void)state;
  dj__truth *t;
  dj__label_set l;
  OK(dj__truth_create(d.map, 1, &t));
  labels_of(t, 40, &l);
  dj__frame f;
  dj__frame_of(&d.m[40], &f);
  assert_int_equal(l.path.n, 31);
  for (int i = 0; i < l.path.n; i++) {
    const dj_path_point *p = &l.path.points[i];
    const dj__moment *m = &d.m[40 + 4 * i];
    double w[3];
    near_to(p->t, 0.2 * i, 1e-6, "time");
    dj__frame_to_world(&f, (float[3]){p->x, p->y, p->z}, w);
    near_to(w[0], m->x, 1e-3, "x");
    near_to(w[1], m->y, 1e-3, "y");
    near_to(w[2], m->z, 1e-3, "z");
    near_to(remainder(p->yaw + d.m[40].yaw - m->yaw, 2 * M_PI), 0, 1e-5, "yaw");
    near_to(p->speed, m->speed, 1e-5, "speed");
  }
  // Where the future ends, so do path and grids.
  const dj__moment *few[26];
  for (int i = 0; i < 26; i++) few[i] = &d.m[i];
  OK(dj__truth_make(t, 0, few, 26, &l));
  assert_int_equal(l.path.n, 7);
  assert_int_equal(l.occupancy.n_times, 2);
  OK(dj__truth_make(t, 0, few, 1, &l));
  assert_int_equal(l.path.n, 1);
  assert_int_equal(l.occupancy.n_times, 1);
  dj__truth_destroy(t);
}

static void agents_are_those_near(void **state) {
  (void)state;
  dj__truth *t;
  dj__label_set l;
  OK(dj__truth_create(d.map, 1, &t));
  labels_of(t, 10, &l);
  dj__frame f;
  const dj__moment *m = &d.m[10];
  dj__frame_of(m, &f);
  int n = 0;
  for (int b = 0; b < m->n_body; b++)
    n += hypot(m->body[b].x - m->x, m->body[b].y - m->y) <= DJ__LABEL_REACH;
  assert_int_equal(l.agents.n, n);
  assert_true(n > 5);
  for (int i = 0; i < n; i++) {
    const dj_agent *g = &l.agents.agents[i];
    double w[3];
    dj__frame_to_world(&f, (float[3]){g->x, g->y, g->z}, w);
    int found = 0;
    for (int b = 0; b < m->n_body; b++)
      if (m->body[b].id == g->id) {
        found++;
        near_to(w[0], m->body[b].x, 1e-3, "x");
        near_to(w[1], m->body[b].y, 1e-3, "y");
        near_to(hypot(g->vx, g->vy), fabsf(m->body[b].speed), 1e-4, "speed");
      }
    assert_int_equal(found, 1);
    assert_int_not_equal(g->id, d.w->agents.id[0]);
  }
  dj__truth_destroy(t);
}

/* Painted lines lie half a lane's width from the middle of a driving lane; edges where one side may
 * be driven on and the other not. */
static void lines_lie_on_the_map(void **state) {
  (void)state;
  dj__lines *lines;
  OK(dj__lines_create(d.map, 1, &lines));
  int n_lines = dj__lines_count(lines), marks = 0, edges = 0, right = 0;
  assert_true(n_lines > 50);
  for (int i = 0; i < n_lines; i++) {
    int n;
    dj_line_kind kind;
    const double(*p)[3] = dj__lines_get(lines, i, &n, &kind);
    assert_true(n >= 2);
    for (int k = 1; k < n; k++) {
      // Also between its points: thinning may not lead it away.
      double x = 0.5 * (p[k - 1][0] + p[k][0]), y = 0.5 * (p[k - 1][1] + p[k][1]);
      if (kind == DJ_LINE_ROAD_EDGE) {
        double yaw = atan2(p[k][1] - p[k - 1][1], p[k][0] - p[k - 1][0]);
        bool left = dj__map_drivable(d.map, x - 0.5 * sin(yaw), y + 0.5 * cos(yaw), true);
        bool far = dj__map_drivable(d.map, x + 0.5 * sin(yaw), y - 0.5 * cos(yaw), true);
        edges++;
        right += left != far;
        continue;
      }
      double best = 1e9;
      for (int lane = 0; lane < d.map->n_lane; lane++) {
        const dj__lane *from = &d.map->lane[lane];
        if (from->type != DJ__LANE_DRIVING) continue;
        const dj__lane_point *q = &d.map->point[from->point0 + from->n_point / 2];
        if (hypot(q->x - x, q->y - y) > from->length + 20) continue;
        double s, off;
        dj__place place;
        (void)dj__map_project(d.map, lane, x, y, -1, &s, &off);
        dj__map_at(d.map, lane, s, 0, &place);
        if (hypot(place.x - x, place.y - y) > 10) continue;
        best = fmin(best, fabs(fabs(off) - 0.5 * place.width));
      }
      if (best > 0.12) fail_msg("line %d: %g m off any lane's border at %g, %g", i, best, x, y);
      marks++;
    }
  }
  assert_true(marks > 50 && edges > 50);
  if (right < 0.97 * edges) fail_msg("%d of %d pieces of edges are edges", right, edges);
  dj__lines_destroy(lines);
}

static void lines_near_are_cut(void **state) {
  (void)state;
  dj__truth *t;
  dj__label_set l;
  OK(dj__truth_create(d.map, 1, &t));
  int total = 0, marks = 0;
  for (int at = 0; at < 200; at += 40) {
    labels_of(t, at, &l);
    assert_true(l.lanes.n > 2);
    for (int i = 0; i < l.lanes.n; i++) {
      const dj_line *line = &l.lanes.lines[i];
      assert_true(line->n >= 2);
      marks += line->kind == DJ_LINE_MARKING;
      for (int k = 0; k < line->n; k++, total++) {
        assert_true(line->point[k][0] > -20.01f && line->point[k][0] < 80.01f);
        assert_true(line->point[k][1] > -40.01f && line->point[k][1] < 40.01f);
      }
    }
  }
  assert_true(total > 40 && marks > 5);
  dj__truth_destroy(t);
}

static void lights_and_route_are_ahead(void **state) {
  (void)state;
  dj__truth *t;
  dj__label_set l;
  OK(dj__truth_create(d.map, 1, &t));
  for (int at = 0; at < 200; at += 10) {
    labels_of(t, at, &l);
    const dj__moment *m = &d.m[at];
    if (l.light.state != DJ_LIGHT_NONE) {
      assert_true(l.light.distance > -2 && l.light.distance <= 150);
      // The stop line is no farther away than along the route.
      assert_true(hypotf(l.light.x, l.light.y) < l.light.distance + m->front + 8);
    }
    assert_true(l.route.n > 10);
    near_to(hypotf(l.route.point[0][0], l.route.point[0][1]), m->front, 3.5, "start of the route");
    for (int k = 1; k < l.route.n; k++) {
      double step = hypot(l.route.point[k][0] - l.route.point[k - 1][0],
                          l.route.point[k][1] - l.route.point[k - 1][1]);
      if (step > 4.5 || step < 0.5) fail_msg("at %d: step %d of the route is %g m", at, k, step);
    }
  }
  dj__truth_destroy(t);
}

static void check_sentence(const char *s) {
  size_t n = strlen(s);
  assert_true(n > 30 && n < 400);
  assert_true(isupper((unsigned char)s[0]));
  assert_int_equal(s[n - 1], '.');
  assert_true(strchr(s, '.') == s + n - 1);
  assert_null(strstr(s, "  "));
  assert_null(strstr(s, " ,"));
  assert_null(strstr(s, "(null)"));
}

static void sentences(void **state) {
  (void)state;
  dj__truth *t;
  dj__label_set l;
  OK(dj__truth_create(d.map, 1, &t));
  for (int at = 0; at < 200; at += 5) {
    labels_of(t, at, &l);
    check_sentence(l.text.text);
  }
  // Known states.
  dj__moment m = d.m[0];
  m.n_event = 0;
  m.n_body = 0;
  m.speed = 10;
  m.accel = 0;
  m.light = DJ_LIGHT_NONE;
  m.command = DJ_COMMAND_FOLLOW;
  const dj__moment *one = &m;
  OK(dj__weather_find("night-rain", &m.weather));
  OK(dj__truth_make(t, 0, &one, 1, &l));
  check_sentence(l.text.text);
  assert_non_null(strstr(l.text.text, "At night in steady rain, on a wet street in "));
  assert_non_null(strstr(l.text.text, "with no other traffic, the car "));
  assert_non_null(strstr(l.text.text, "36 km/h."));
  OK(dj__weather_find("clear", &m.weather));
  m.speed = 0;
  m.light = DJ_LIGHT_RED;
  m.light_distance = 2;
  OK(dj__truth_make(t, 0, &one, 1, &l));
  assert_non_null(strstr(l.text.text, "By day under a clear sky"));
  assert_non_null(strstr(l.text.text, "the car waits at a red light."));
  dj__truth_destroy(t);
}

/* Pushes at the wheel are rare, short, as strong as asked for, and the same again. */
static void pushes(void **state) {
  (void)state;
  const dj__vehicle_model *v = dj__vehicle_find("car");
  int pushed = 0, begun = 0, left = 0, right = 0;
  double before = 0;
  for (uint64_t step = 0; step < 40000; step++) {
    double p = dj__perturbation(9, step, 1, 12, v), side = p * v->max_steer * 144 / v->wheelbase;
    assert_true(p == dj__perturbation(9, step, 1, 12, v));
    assert_true(dj__perturbation(9, step, 0, 12, v) == 0);
    assert_true(fabs(dj__perturbation(9, step, 0.5, 12, v) - 0.5 * p) < 1e-9);
    if (fabs(side) > 2.001) fail_msg("%g m/s^2 to the side", side);
    if (step < 160) assert_true(p == 0); // not right at the start
    pushed += p != 0;
    begun += p != 0 && before == 0;
    left += p > 0;
    right += p < 0;
    before = p;
  }
  assert_true(begun > 200 && begun <= 250);
  assert_true(pushed < 40000 / 5 && left > pushed / 3 && right > pushed / 3);
  assert_true(dj__perturbation(9, 400, 1, 0.1, v) == 0); // nor when standing
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(frames_are_right_handed),
                                     cmocka_unit_test(occupancy_is_the_boxes),
                                     cmocka_unit_test(flow_leads_to_later_occupancy),
                                     cmocka_unit_test(path_is_later_poses),
                                     cmocka_unit_test(agents_are_those_near),
                                     cmocka_unit_test(lines_lie_on_the_map),
                                     cmocka_unit_test(lines_near_are_cut),
                                     cmocka_unit_test(lights_and_route_are_ahead),
                                     cmocka_unit_test(sentences),
                                     cmocka_unit_test(pushes)};
  return cmocka_run_group_tests(tests, make_drive, free_drive);
}
