/* Guides: from a route's lanes to a line. Assumes that a route's next lane is a successor of the
 * one before or lies beside it. */
#include "world/guide.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BEYOND = 64 };

/* ---- rows ---- */
static bool is_beside(const dj__map *m, int lane, int other) {
  return other >= 0 && (m->lane[lane].left == other || m->lane[lane].right == other);
}

static bool is_succ(const dj__map *m, int lane, int other) {
  const dj__lane *l = &m->lane[lane];
  for (int i = 0; i < l->n_succ; i++)
    if (m->graph[l->succ0 + i] == other) return true;
  return false;
}

/* Number of lanes to the left (> 0) or right (< 0) from `lane` to `other`, 0: not in one section.
 */
static int lanes_aside(const dj__map *m, int lane, int other) {
  for (int side = 1; side >= -1; side -= 2) {
    int at = lane;
    for (int k = 1; k < 8; k++) {
      at = side > 0 ? m->lane[at].left : m->lane[at].right;
      if (at < 0) break;
      if (at == other) return side * k;
    }
  }
  return 0;
}

/* The successor that turns least. */
static int straightest(const dj__map *m, int lane) {
  const dj__lane *l = &m->lane[lane];
  int best = -1;
  double least = HUGE_VAL;
  for (int i = 0; i < l->n_succ; i++) {
    int to = m->graph[l->succ0 + i];
    const dj__lane *t = &m->lane[to];
    double turn = fabs(remainder((double)m->point[t->point0 + t->n_point - 1].yaw -
                                     (double)m->point[t->point0].yaw,
                                 2 * M_PI));
    if (turn < least) least = turn, best = to;
  }
  return best;
}

static double add_row(dj__guide *g, int a, int b, double from, double to, double s) {
  if (to < from + 0.01) to = from + 0.01;
  g->row[g->n_row++] = (dj__guide_row){.a = a, .b = b, .from = from, .s0 = s, .s1 = s + to - from};
  return s + to - from;
}

static void make_rows(dj__guide *g, const dj__route *r, double beyond) {
  const dj__map *m = g->map;
  double s = 0;
  for (int i = 0; i < r->n; i++) {
    int a = r->lane[i], b = -1;
    bool first = i == 0;
    while (i + 1 < r->n && is_beside(m, r->lane[i], r->lane[i + 1])) b = r->lane[++i];
    bool last = i == r->n - 1;
    s = add_row(g, a, b, first ? r->start : 0, last ? r->end : m->lane[a].length, s);
  }
  g->end = s;
  int at = r->lane[r->n - 1];
  if (r->end < m->lane[at].length - 0.01) s = add_row(g, at, -1, r->end, m->lane[at].length, s);
  for (int k = 0; k < MAX_BEYOND && s < g->end + beyond; k++) {
    at = straightest(m, at);
    if (at < 0) break;
    s = add_row(g, at, -1, 0, m->lane[at].length, s);
  }
}

/* Lets a change begin in the rows before, as far as the lane beside goes back. */
static void extend_change(dj__guide *g, int row, int aside) {
  const dj__map *m = g->map;
  int b = g->row[row].b;
  for (int k = row - 1; k >= 0 && g->row[row].s0 - g->row[k].s0 < 200; k--) {
    dj__guide_row *w = &g->row[k];
    if (w->b >= 0 || m->lane[w->a].junction >= 0 || m->lane[g->row[k + 1].a].junction >= 0) return;
    int at = w->a;
    for (int n = abs(aside); n > 0 && at >= 0; n--)
      at = aside > 0 ? (m->lane[at].change_left ? m->lane[at].left : -1)
                     : (m->lane[at].change_right ? m->lane[at].right : -1);
    if (at < 0 || !is_succ(m, at, b)) return;
    w->b = b = at;
  }
}

static dj_status make_changes(dj__guide *g) {
  const dj__map *m = g->map;
  g->change = calloc((size_t)g->n_row + 1, sizeof *g->change);
  if (!g->change) return dj_error(DJ_E_NOMEM, "guide: no memory");
  for (int i = 0; i < g->n_row; i++) {
    int aside = g->row[i].b >= 0 ? lanes_aside(m, g->row[i].a, g->row[i].b) : 0;
    if (!aside) continue;
    extend_change(g, i, aside);
    int first = i;
    while (first > 0 && g->row[first - 1].b >= 0 &&
           is_succ(m, g->row[first - 1].b, g->row[first].b))
      first--;
    dj__guide_change *c = &g->change[g->n_change++];
    c->s0 = g->row[first].s0;
    c->s1 = g->row[i].s1;
    c->side = aside > 0 ? 1 : -1;
    double v = m->lane[g->row[i].a].speed_limit, scale = g->step < 0.5 ? 0.12 : 1;
    double wanted = fmax(20 * scale, 3.5 * v) * sqrt(abs(aside)), room = c->s1 - c->s0;
    c->length = fmin(wanted, fmax(0.5 * room, fmin(room, 12 * scale)));
    c->start = c->s0 + fmin(4 * scale, fmax(0, room - c->length));
  }
  return DJ_OK;
}

/* ---- points ---- */
static double lane_room(const dj__map *m, int lane, double s, int side) {
  double sum = 0;
  int at = side > 0 ? m->lane[lane].left : m->lane[lane].right;
  double share = s / fmax(m->lane[lane].length, 0.01);
  for (int k = 0; k < 6 && at >= 0; k++) {
    dj__place p;
    dj__map_at(m, at, share * m->lane[at].length, 0, &p);
    sum += p.width;
    at = side > 0 ? m->lane[at].left : m->lane[at].right;
  }
  return sum;
}

/* Edges of the road beside a place of a lane: from the nearest point of the lane. */
static void edges(const dj__map *m, int lane, double s, double *left, double *right) {
  const dj__lane *l = &m->lane[lane];
  int k = (int)(s / fmax(l->length, 0.01) * (l->n_point - 1) + 0.5);
  k = k < 0 ? 0 : k > l->n_point - 1 ? l->n_point - 1 : k;
  const dj__lane_point *p = &m->point[l->point0 + k];
  *left = (double)p->left;
  *right = (double)p->right;
}

static void fill_point(dj__guide *g, int i, int row) {
  const dj__map *m = g->map;
  const dj__guide_row *w = &g->row[row];
  dj__guide_point *p = &g->point[i];
  double s = fmin(w->from + i * g->step - w->s0, m->lane[w->a].length);
  dj__place at;
  dj__map_at(m, w->a, s, 0, &at);
  g->a[i][0] = g->b[i][0] = at.x;
  g->a[i][1] = g->b[i][1] = at.y;
  *p = (dj__guide_point){.limit = m->lane[w->a].speed_limit, .slope = at.slope, .row = row};
  p->own_left = p->own_right = 0.5 * at.width;
  edges(m, w->a, s, &p->left, &p->right);
  p->same_left = p->own_left + lane_room(m, w->a, s, 1);
  p->same_right = p->own_right + lane_room(m, w->a, s, -1);
  p->yaw = at.yaw;
  if (w->b < 0) return;
  dj__map_at(m, w->b, s / fmax(m->lane[w->a].length, 0.01) * m->lane[w->b].length, 0, &at);
  g->b[i][0] = at.x;
  g->b[i][1] = at.y;
}

static double smooth(double t) {
  t = t < 0 ? 0 : t > 1 ? 1 : t;
  return t * t * t * (10 - 15 * t + 6 * t * t);
}

/* Share of the way to lane b at a station. */
static double weight(const dj__guide *g, double s) {
  for (int k = 0; k < g->n_change; k++) {
    const dj__guide_change *c = &g->change[k];
    if (s >= c->s0 && s <= c->s1) return smooth((s - c->start) / fmax(c->length, 0.01));
  }
  return 0;
}

/* Direction and curvature from the points, over about 2 m each way. */
static void derive(dj__guide *g) {
  int n = g->n;
  for (int i = 0; i < n; i++) {
    int lo = i > 0 ? i - 1 : 0, hi = i < n - 1 ? i + 1 : n - 1;
    double dx = g->point[hi].x - g->point[lo].x, dy = g->point[hi].y - g->point[lo].y;
    if (hypot(dx, dy) > 1e-9) g->point[i].yaw = atan2(dy, dx);
  }
  for (int i = 0; i < n; i++) {
    int lo = i > 1 ? i - 2 : 0, hi = i < n - 2 ? i + 2 : n - 1;
    double ds = hypot(g->point[hi].x - g->point[lo].x, g->point[hi].y - g->point[lo].y);
    g->point[i].curvature =
        ds > 1e-6 ? remainder(g->point[hi].yaw - g->point[lo].yaw, 2 * M_PI) / ds : 0;
  }
}

/* Room of points on the way to another lane: measured from the line instead of lane a. */
static void shift_room(dj__guide *g) {
  for (int i = 0; i < g->n; i++) {
    double w = weight(g, i * g->step);
    dj__guide_point *p = &g->point[i];
    double dx = g->b[i][0] - g->a[i][0], dy = g->b[i][1] - g->a[i][1];
    if (dx == 0 && dy == 0) continue;
    double d = w * (cos(p->yaw) * dy - sin(p->yaw) * dx);
    double more = d - p->shift;
    p->left -= more, p->right += more;
    p->same_left -= more, p->same_right += more;
    p->shift = d;
  }
}

void dj__guide_blend(dj__guide *g) {
  for (int i = 0; i < g->n; i++) {
    double w = weight(g, i * g->step);
    g->point[i].x = g->a[i][0] + w * (g->b[i][0] - g->a[i][0]);
    g->point[i].y = g->a[i][1] + w * (g->b[i][1] - g->a[i][1]);
  }
  derive(g);
  shift_room(g);
}

int dj__guide_row_lane(const dj__guide *g, int row) {
  return dj__guide_lane(g, g->row[row].s1 - 0.01);
}

static void find_lines(dj__guide *g) {
  for (int row = 0; row < g->n_row && g->n_line < DJ__GUIDE_LINES; row++) {
    const dj__guide_row *w = &g->row[row];
    int stop = g->map->lane[dj__guide_row_lane(g, row)].stop;
    double s = stop >= 0 ? w->s0 - w->from + g->map->stop[stop].s : 0;
    if (stop >= 0 && s > w->s0 - 0.1 && s < w->s1 + 1)
      g->line[g->n_line++] = (dj__guide_line){s, stop, row};
  }
}

dj_status dj__guide_make(dj__guide *g, const dj__map *m, const dj__route *r, double step,
                         double beyond) {
  *g = (dj__guide){.map = m, .step = step};
  if (r->n < 1) return dj_error(DJ_E_INVALID, "guide: an empty route");
  g->row = calloc((size_t)r->n + MAX_BEYOND + 2, sizeof *g->row);
  if (!g->row) return dj_error(DJ_E_NOMEM, "guide: no memory");
  make_rows(g, r, beyond);
  dj_status s = make_changes(g);
  g->n = (int)(g->row[g->n_row - 1].s1 / step) + 1;
  g->point = calloc((size_t)g->n + 1, sizeof *g->point);
  g->a = calloc((size_t)g->n + 1, sizeof *g->a);
  g->b = calloc((size_t)g->n + 1, sizeof *g->b);
  g->line = calloc(DJ__GUIDE_LINES, sizeof *g->line);
  if (s || !g->point || !g->a || !g->b || !g->line) {
    dj__guide_free(g);
    return s ? s : dj_error(DJ_E_NOMEM, "guide: no memory");
  }
  for (int i = 0, row = 0; i < g->n; i++) {
    while (row + 1 < g->n_row && i * step >= g->row[row].s1) row++;
    fill_point(g, i, row);
  }
  dj__guide_blend(g);
  find_lines(g);
  return DJ_OK;
}

void dj__guide_free(dj__guide *g) {
  free(g->point);
  free(g->a);
  free(g->b);
  free(g->row);
  free(g->change);
  free(g->line);
  *g = (dj__guide){0};
}

/* ---- questions ---- */
dj__guide_point dj__guide_at(const dj__guide *g, double s) {
  double f = s / g->step;
  int i = f < 0 ? 0 : (int)f;
  if (i > g->n - 2) i = g->n > 1 ? g->n - 2 : 0;
  f = fmin(1, fmax(0, f - i));
  const dj__guide_point *p = &g->point[i], *q = g->n > 1 ? p + 1 : p;
  dj__guide_point o = f < 0.5 ? *p : *q;
  o.x = p->x + f * (q->x - p->x);
  o.y = p->y + f * (q->y - p->y);
  o.yaw = p->yaw + f * remainder(q->yaw - p->yaw, 2 * M_PI);
  o.curvature = p->curvature + f * (q->curvature - p->curvature);
  return o;
}

double dj__guide_project(const dj__guide *g, double x, double y, double s0, double back,
                         double ahead, double *s, double *d) {
  int lo = (int)((s0 - back) / g->step), hi = (int)((s0 + ahead) / g->step) + 1, best;
  lo = lo < 0 ? 0 : lo > g->n - 1 ? g->n - 1 : lo;
  hi = hi < lo ? lo : hi > g->n - 1 ? g->n - 1 : hi;
  best = lo;
  double least = HUGE_VAL;
  int stride = hi - lo > 24 ? 4 : 1;
  for (int pass = 0; pass < 2; pass++) {
    for (int i = lo; i <= hi; i += stride) {
      double dx = x - g->point[i].x, dy = y - g->point[i].y, q = dx * dx + dy * dy;
      if (q < least) least = q, best = i;
    }
    if (stride == 1) break;
    lo = best - stride > lo ? best - stride : lo;
    hi = best + stride < hi ? best + stride : hi;
    stride = 1;
  }
  const dj__guide_point *p = &g->point[best];
  double dx = x - p->x, dy = y - p->y, c = cos(p->yaw), n = sin(p->yaw);
  double along = dx * c + dy * n;
  if (best > 0 && best < g->n - 1) along = fmax(-g->step, fmin(g->step, along));
  dj__guide_point q = dj__guide_at(g, best * g->step + along);
  *s = best * g->step + along;
  *d = (y - q.y) * cos(q.yaw) - (x - q.x) * sin(q.yaw);
  return hypot(x - q.x, y - q.y);
}

int dj__guide_row_at(const dj__guide *g, double s) {
  int i = (int)(s / g->step);
  return g->point[i < 0 ? 0 : i > g->n - 1 ? g->n - 1 : i].row;
}

int dj__guide_lane(const dj__guide *g, double s) {
  const dj__guide_row *w = &g->row[dj__guide_row_at(g, s)];
  return w->b >= 0 && weight(g, s) > 0.5 ? w->b : w->a;
}
