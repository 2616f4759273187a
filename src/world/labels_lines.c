/*
 * Lines between lanes, and edges of what may be driven on, made once a map from its lanes and
 * thinned (Douglas and Peucker 1973) to a few centimetres; then cut to the area around the vehicle
 * for each label.
 *
 * A line between two lanes of one direction is taken from the right border of the left one, the
 * line between the directions from the lane with the lower index, so that each is there once.
 * Inside junctions the areas of lanes overlap: only painted lines are taken there, and an edge only
 * where nothing that may be driven on lies beyond it.
 */
#include "world/labels_lines.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct stored {
  dj_line_kind kind;
  dj_line_mark mark;
  bool yellow;
  size_t point0;
  int n;
  double x0, y0, x1, y1; // bounds
} stored;

struct dj__lines {
  const dj__map *map;
  double tolerance, beyond; // m: of thinning; outside of an edge where nothing may be driven on
  stored *line;
  size_t n, cap;
  double (*point)[3];
  size_t n_point, cap_point;
  double (*run)[3]; // the polyline being made
  bool *keep;
  size_t n_run, cap_run;
  dj_line *out; // handed out
  float (*out_point)[3];
  size_t cap_out, n_out, cap_out_point, n_out_point;
};

static bool grow(void *array, size_t *cap, size_t need, size_t size) {
  if (need <= *cap) return true;
  size_t n = *cap ? *cap : 64;
  while (n < need) n *= 2;
  void *p;
  memcpy(&p, array, sizeof p);
  p = realloc(p, n * size);
  if (!p) return false;
  memcpy(array, &p, sizeof p);
  *cap = n;
  return true;
}

static dj_status no_memory(void) {
  return dj_error(DJ_E_NOMEM, "labels: no memory for the lines of the road");
}

// ---- making ------------------------------------------------------------------------------------

static dj_status add_point(dj__lines *l, const double p[3]) {
  if (!grow(&l->run, &l->cap_run, l->n_run + 1, sizeof *l->run)) return no_memory();
  memcpy(l->run[l->n_run++], p, 3 * sizeof *p);
  return DJ_OK;
}

static double distance_to(const double p[3], const double a[3], const double b[3]) {
  double d[3] = {b[0] - a[0], b[1] - a[1], b[2] - a[2]},
         e[3] = {p[0] - a[0], p[1] - a[1], p[2] - a[2]};
  double dd = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
  double t = dd > 0 ? (d[0] * e[0] + d[1] * e[1] + d[2] * e[2]) / dd : 0;
  t = fmin(fmax(t, 0), 1);
  for (int k = 0; k < 3; k++) e[k] -= t * d[k];
  return sqrt(e[0] * e[0] + e[1] * e[1] + e[2] * e[2]);
}

/* Marks the points that are needed between two that are kept. The stack is the array of marks: a
 * span is finished from its left end, and its right end is the next kept point. */
static void thin_out(dj__lines *l) {
  size_t n = l->n_run;
  memset(l->keep, 0, n * sizeof *l->keep);
  l->keep[0] = l->keep[n - 1] = true;
  for (size_t a = 0; a + 1 < n;) {
    size_t b = a + 1, far = 0;
    while (!l->keep[b]) b++;
    double most = l->tolerance;
    for (size_t i = a + 1; i < b; i++) {
      double d = distance_to(l->run[i], l->run[a], l->run[b]);
      if (d <= most) continue;
      most = d;
      far = i;
    }
    if (far)
      l->keep[far] = true;
    else
      a = b;
  }
}

/* Ends the polyline being made. */
static dj_status end_run(dj__lines *l, dj_line_kind kind, dj_line_mark mark, bool yellow) {
  size_t n = l->n_run;
  l->n_run = 0;
  if (n < 2) return DJ_OK;
  bool *keep = realloc(l->keep, n * sizeof *keep);
  if (!keep) return no_memory();
  l->keep = keep;
  l->n_run = n;
  thin_out(l);
  l->n_run = 0;
  if (!grow(&l->line, &l->cap, l->n + 1, sizeof *l->line) ||
      !grow(&l->point, &l->cap_point, l->n_point + n, sizeof *l->point))
    return no_memory();
  stored *s = &l->line[l->n++];
  *s = (stored){kind, mark, yellow, l->n_point, 0, INFINITY, INFINITY, -INFINITY, -INFINITY};
  for (size_t i = 0; i < n; i++) {
    if (!keep[i]) continue;
    const double *p = l->run[i];
    memcpy(l->point[l->n_point++], p, 3 * sizeof *p);
    s->n++;
    s->x0 = fmin(s->x0, p[0]);
    s->y0 = fmin(s->y0, p[1]);
    s->x1 = fmax(s->x1, p[0]);
    s->y1 = fmax(s->y1, p[1]);
  }
  return DJ_OK;
}

static void beside(const dj__lane_point *p, double t, double out[3]) {
  out[0] = p->x - t * sin(p->yaw);
  out[1] = p->y + t * cos(p->yaw);
  out[2] = p->z;
}

static dj_status add_line(dj__lines *l, const dj__lane *lane, double side) {
  dj__mark_type mark = side > 0 ? lane->mark_left : lane->mark_right;
  if (mark == DJ__MARK_NONE || mark == DJ__MARK_CURB) return DJ_OK;
  for (int i = 0; i < lane->n_point; i++) {
    const dj__lane_point *p = &l->map->point[lane->point0 + i];
    double v[3];
    beside(p, side * 0.5 * p->width, v);
    DJ_TRY(add_point(l, v));
  }
  return end_run(l, DJ_LINE_MARKING, (dj_line_mark)mark, false);
}

static dj_status add_edge(dj__lines *l, const dj__lane *lane, double side) {
  dj__mark_type mark = side > 0 ? lane->mark_left : lane->mark_right;
  dj_line_mark as = mark == DJ__MARK_CURB ? DJ_MARK_CURB : DJ_MARK_NONE;
  for (int i = 0; i < lane->n_point; i++) {
    const dj__lane_point *p = &l->map->point[lane->point0 + i];
    double t = side > 0 ? p->left : p->right, v[3], outside[3];
    beside(p, side * t, v);
    beside(p, side * (t + l->beyond), outside);
    if (dj__map_drivable(l->map, outside[0], outside[1], true))
      DJ_TRY(end_run(l, DJ_LINE_ROAD_EDGE, as, false));
    else
      DJ_TRY(add_point(l, v));
  }
  return end_run(l, DJ_LINE_ROAD_EDGE, as, false);
}

static bool driving(const dj__map *m, int lane) {
  return lane >= 0 && m->lane[lane].type == DJ__LANE_DRIVING;
}

static dj_status make_lines(dj__lines *l) {
  const dj__map *m = l->map;
  for (int i = 0; i < m->n_lane; i++) {
    const dj__lane *lane = &m->lane[i];
    if (lane->type != DJ__LANE_DRIVING) continue;
    bool outermost = !driving(m, lane->right), inner = !driving(m, lane->left);
    DJ_TRY(add_line(l, lane, -1));
    if (inner && (lane->opposite < 0 || i < lane->opposite)) DJ_TRY(add_line(l, lane, 1));
    if (outermost) DJ_TRY(add_edge(l, lane, -1));
    if (inner && lane->opposite < 0) DJ_TRY(add_edge(l, lane, 1));
  }
  return DJ_OK;
}

dj_status dj__lines_create(const dj__map *m, double scale, dj__lines **out) {
  *out = NULL;
  dj__lines *l = calloc(1, sizeof *l);
  if (!l) return no_memory();
  l->map = m;
  l->tolerance = 0.03 * scale;
  l->beyond = 0.4 * scale;
  dj_status s = make_lines(l);
  if (s) {
    dj__lines_destroy(l);
    return s;
  }
  *out = l;
  return DJ_OK;
}

void dj__lines_destroy(dj__lines *l) {
  if (!l) return;
  free(l->line);
  free(l->point);
  free(l->run);
  free(l->keep);
  free(l->out);
  free(l->out_point);
  free(l);
}

int dj__lines_count(const dj__lines *l) {
  return (int)l->n;
}

const double (*dj__lines_get(const dj__lines *l, int i, int *n, dj_line_kind *kind))[3] {
  const stored *s = &l->line[i];
  *n = s->n;
  *kind = s->kind;
  return (const double(*)[3])(l->point + s->point0);
}

// ---- near a vehicle ----------------------------------------------------------------------------

/* Shares t0..t1 of segment a-b within the area (Liang and Barsky 1984); false: none. */
static bool clip(const float a[3], const float b[3], const double area[4], double *t0, double *t1) {
  *t0 = 0;
  *t1 = 1;
  for (int k = 0; k < 2; k++) {
    double d = (double)b[k] - a[k];
    const double gap[2] = {area[k] - a[k], area[2 + k] - a[k]}; // to the low and the high border
    if (d == 0) {
      if (gap[0] > 0 || gap[1] < 0) return false;
      continue;
    }
    double in = gap[d < 0] / d, out = gap[d > 0] / d;
    *t0 = fmax(*t0, in);
    *t1 = fmin(*t1, out);
  }
  return *t0 < *t1;
}

static void between(const float a[3], const float b[3], double t, float out[3]) {
  for (int k = 0; k < 3; k++) out[k] = (float)(a[k] + t * ((double)b[k] - a[k]));
}

/* The pieces of one line that lie within; point arrays are set by the caller, as they may move. */
static dj_status cut_line(dj__lines *l, const stored *s, const dj__frame *f, const double area[4]) {
  float a[3], b[3];
  dj_line *now = NULL;
  if (!grow(&l->out_point, &l->cap_out_point, l->n_out_point + 2 * (size_t)s->n,
            sizeof *l->out_point))
    return no_memory();
  dj__frame_to_vehicle(f, l->point[s->point0], a);
  for (int i = 1; i < s->n; i++, memcpy(a, b, sizeof a)) {
    double t0, t1;
    dj__frame_to_vehicle(f, l->point[s->point0 + (size_t)i], b);
    if (!clip(a, b, area, &t0, &t1)) {
      now = NULL;
      continue;
    }
    if (!now || t0 > 0) {
      if (!grow(&l->out, &l->cap_out, l->n_out + 1, sizeof *l->out)) return no_memory();
      now = &l->out[l->n_out++];
      *now = (dj_line){s->kind, s->mark, s->yellow, 1, NULL};
      between(a, b, t0, l->out_point[l->n_out_point++]);
    }
    between(a, b, t1, l->out_point[l->n_out_point++]);
    now->n++;
    if (t1 < 1) now = NULL;
  }
  return DJ_OK;
}

dj_status dj__lines_near(dj__lines *l, uint64_t t_ns, const dj__frame *f, const double area[4],
                         dj_lanes *out) {
  // The circle around the area's corners, in the world.
  double rx = fmax(fabs(area[0]), fabs(area[2])), ry = fmax(fabs(area[1]), fabs(area[3]));
  double reach = hypot(rx, ry), x = f->o[0], y = f->o[1];
  l->n_out = l->n_out_point = 0;
  for (size_t i = 0; i < l->n; i++) {
    const stored *s = &l->line[i];
    if (s->x0 > x + reach || s->x1 < x - reach || s->y0 > y + reach || s->y1 < y - reach) continue;
    DJ_TRY(cut_line(l, s, f, area));
  }
  const float(*p)[3] = (const float(*)[3])l->out_point;
  for (size_t i = 0; i < l->n_out; p += l->out[i++].n) l->out[i].point = p;
  int n = l->n_out < DJ_MAX_LINES ? (int)l->n_out : DJ_MAX_LINES;
  *out = (dj_lanes){t_ns, n, l->out};
  return DJ_OK;
}
