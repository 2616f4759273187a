/*
 * Inside of junctions: the outline of their asphalt, which lanes get in each other's way there, and
 * who of two waits.
 *
 * The outline is what can be seen of the lanes' outer edges from the junction's middle, ray by ray.
 * Two lanes are in conflict where their middles come nearer than 0.72 of the mean of their widths;
 * lanes side by side do not, lanes that cross, merge or part do.
 *
 * Who waits, as in the Vienna Convention on Road Traffic (1968), articles 16 and 18: who has stop
 * or give way for who has not; of two at lights that are green together, and of two of the same
 * rank that come from opposite sides, who turns left; otherwise who has the other on his right (on
 * his left in left-hand traffic).
 */
#include <math.h>
#include <stdlib.h>

#include "dojo/log.h"
#include "world/map_build.h"

enum { RAYS = 96, MAX_RAYS = 320 };
#define NEAR     0.72
#define MAX_WORK 4e7 /* comparisons a junction: beyond it, points are skipped over */

typedef struct members { /* lanes of each junction */
  int *start, *list;
} members;

static bool in_conflict_type(dj__lane_type t) {
  return t == DJ__LANE_DRIVING || t == DJ__LANE_BIKING;
}

static bool sort_members(const dj__map *m, members *o) {
  o->start = calloc((size_t)m->n_junction + 3, sizeof *o->start);
  o->list = calloc((size_t)m->n_lane + 1, sizeof *o->list);
  if (!o->start || !o->list) return false;
  for (int pass = 0; pass < 2; pass++) {
    for (int i = 0; i < m->n_lane; i++) {
      const dj__lane *l = &m->lane[i];
      if (l->junction < 0 || !in_conflict_type(l->type)) continue;
      if (pass == 0)
        o->start[l->junction + 2]++;
      else
        o->list[o->start[l->junction + 1]++] = i;
    }
    for (int j = 0; pass == 0 && j < m->n_junction; j++) o->start[j + 2] += o->start[j + 1];
  }
  return true;
}

/* ---- outlines ---- */
static void edge_point(const dj__lane_point *p, int side, double o[2]) {
  double t = (side ? -0.5 : 0.5) * p->width;
  o[0] = p->x - t * sin(p->yaw);
  o[1] = p->y + t * cos(p->yaw);
}

/* Distance from c along direction d to the piece a-b, or -1. */
static double ray_hit(const double c[2], const double d[2], const double a[2], const double e[2]) {
  double ex = e[0] - a[0], ey = e[1] - a[1], ax = a[0] - c[0], ay = a[1] - c[1];
  double det = d[0] * ey - d[1] * ex;
  if (fabs(det) < 1e-12) return -1;
  double r = (ax * ey - ay * ex) / det, f = (ax * d[1] - ay * d[0]) / det;
  return r > 0 && f >= -1e-9 && f <= 1 + 1e-9 ? r : -1;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static double farthest(const dj__map *m, const int *list, int n, const double c[2], double angle,
                       int stride) {
  double d[2] = {cos(angle), sin(angle)}, best = 0;
  for (int i = 0; i < n; i++) {
    const dj__lane *l = &m->lane[list[i]];
    const dj__lane_point *p = m->point + l->point0;
    for (int side = 0; side < 2; side++) {
      double a[2], e[2];
      edge_point(p, side, a);
      for (int k = 1; k < l->n_point; k++) {
        if (k % stride && k + 1 < l->n_point) continue;
        edge_point(p + k, side, e);
        best = fmax(best, ray_hit(c, d, a, e));
        a[0] = e[0];
        a[1] = e[1];
      }
    }
    for (int end = 0; end < 2; end++) { /* across its ends */
      double a[2], e[2];
      edge_point(p + (end ? l->n_point - 1 : 0), 0, a);
      edge_point(p + (end ? l->n_point - 1 : 0), 1, e);
      best = fmax(best, ray_hit(c, d, a, e));
    }
  }
  return best;
}

static void outline(dj__build *b, dj__junction *j, const int *list, int n) {
  dj__map *m = b->m;
  double angle[MAX_RAYS], c[2] = {0, 0}, z = 0, points = 0;
  for (int i = 0; i < n; i++) {
    const dj__lane *l = &m->lane[list[i]];
    const dj__lane_point *p = &m->point[l->point0], *q = p + l->n_point - 1;
    c[0] += 0.5 * (p->x + q->x) / n;
    c[1] += 0.5 * (p->y + q->y) / n;
    z += 0.5 * (p->z + q->z) / n;
    points += l->n_point;
  }
  int n_ray = 0;
  for (; n_ray < RAYS; n_ray++) angle[n_ray] = -M_PI + 2 * M_PI * n_ray / RAYS;
  for (int i = 0; i < n && n_ray + 4 <= MAX_RAYS; i++) /* corners at the lanes' ends */
    for (int k = 0; k < 4; k++) {
      const dj__lane *l = &m->lane[list[i]];
      double e[2];
      edge_point(&m->point[l->point0 + (k < 2 ? 0 : l->n_point - 1)], k & 1, e);
      angle[n_ray++] = atan2(e[1] - c[1], e[0] - c[0]);
    }
  qsort(angle, (size_t)n_ray, sizeof *angle, by_value);
  int stride = 1 + (int)(points * n_ray * 2 / MAX_WORK);
  j->x = c[0];
  j->y = c[1];
  j->z = z;
  j->radius = 0;
  j->outline0 = m->n_outline;
  j->n_outline = 0;
  for (int i = 0; i < n_ray; i++) {
    if (i && angle[i] - angle[i - 1] < 1e-6) continue;
    double r = farthest(m, list, n, c, angle[i], stride);
    if (r <= 0) continue;
    double(*o)[2] = DJ__PUSH(b, outline);
    (*o)[0] = c[0] + r * cos(angle[i]);
    (*o)[1] = c[1] + r * sin(angle[i]);
    if (b->failed) return;
    j->n_outline++;
    j->radius = fmax(j->radius, r);
  }
}

/* Inside of a junction the road ends where its asphalt does. */
static void widen(dj__map *m, const dj__junction *j, const dj__lane *l, int stride) {
  for (int i = 0; i < l->n_point; i += stride) {
    dj__lane_point *p = &m->point[l->point0 + i];
    double c[2] = {p->x, p->y};
    for (int side = 0; side < 2; side++) {
      double yaw = p->yaw + (side ? -M_PI_2 : M_PI_2), d[2] = {cos(yaw), sin(yaw)}, best = INFINITY;
      for (int k = 0; k < j->n_outline; k++) {
        double r = ray_hit(c, d, m->outline[j->outline0 + k],
                           m->outline[j->outline0 + (k + 1) % j->n_outline]);
        if (r > 0 && r < best) best = r;
      }
      float *edge = side ? &p->right : &p->left;
      if (best < 1e3 && best > *edge) *edge = (float)best;
    }
  }
}

static bool same_way(const dj__map *m, int a, int b) { /* or against it */
  return fabs(sin(m->point[m->lane[a].point0].yaw - m->point[m->lane[b].point0].yaw)) < 0.3;
}

dj_status dj__map_find_outlines(dj__build *b) {
  dj__map *m = b->m;
  members o = {0};
  bool ok = sort_members(m, &o);
  for (int j = 0; ok && j < m->n_junction; j++) {
    int n = o.start[j + 1] - o.start[j];
    if (n == 0) continue;
    const int *list = o.list + o.start[j];
    outline(b, &m->junction[j], list, n);
    ok = !b->failed;
    double points = 0;
    for (int i = 0; i < n; i++) points += m->lane[list[i]].n_point;
    int stride = 1 + (int)(points * 2 * m->junction[j].n_outline / MAX_WORK);
    bool straight = !m->junction[j].roundabout;
    for (int i = 0; i < n; i++)
      straight &= m->lane[list[i]].turn == DJ__TURN_STRAIGHT && same_way(m, list[0], list[i]);
    if (straight) m->junction[j].n_outline = 0; /* lanes side by side: nothing lies between them */
    for (int i = 0; ok && i < n && !straight; i++)
      widen(m, &m->junction[j], &m->lane[list[i]], stride);
  }
  free(o.start);
  free(o.list);
  return ok ? DJ_OK : dj_error(DJ_E_NOMEM, "%s: no memory for junctions", m->name);
}

/* ---- conflicts ---- */
typedef struct found {
  int lane;
  dj__conflict c;
} found;
typedef struct list {
  found *f;
  int n, cap;
  bool failed;
} list;

static void add(list *o, int lane, dj__conflict c) {
  if (o->n == o->cap) {
    int cap = o->cap ? 2 * o->cap : 512;
    found *f = realloc(o->f, (size_t)cap * sizeof *f);
    if (!f) {
      o->failed = true;
      return;
    }
    o->f = f;
    o->cap = cap;
  }
  o->f[o->n++] = (found){lane, c};
}

static double start_yaw(const dj__map *m, const dj__lane *l) {
  return m->point[l->point0].yaw;
}

static const dj__stop_line *stop_of(const dj__map *m, const dj__lane *l) {
  for (int i = 0; i < l->n_pred; i++) {
    int stop = m->lane[m->graph[l->pred0 + i]].stop;
    if (stop >= 0) return &m->stop[stop];
  }
  return NULL;
}

static int right_of_way(const dj__stop_line *p) {
  dj__control c = p ? p->control : DJ__CONTROL_NONE;
  return c == DJ__CONTROL_PRIORITY ? 2 : c == DJ__CONTROL_GIVE_WAY || c == DJ__CONTROL_STOP ? 0 : 1;
}

static int outer_of(const dj__map *m, const dj__lane *l) { /* lanes from the middle, before it */
  return l->n_pred ? abs(m->lane[m->graph[l->pred0]].id) : 0;
}

/* Does a wait for b? Never both. */
static bool waits(const dj__map *m, int a, int b) {
  const dj__lane *la = &m->lane[a], *lb = &m->lane[b];
  const dj__stop_line *pa = stop_of(m, la), *pb = stop_of(m, lb);
  if (pa && pb && pa->lane == pb->lane) return false; /* one behind the other */
  bool lights = pa && pb && pa->control == DJ__CONTROL_LIGHTS && pb->control == DJ__CONTROL_LIGHTS;
  if (lights && (pa->green0 >= pb->green1 + pb->yellow || pb->green0 >= pa->green1 + pa->yellow))
    return false; /* never green together */
  if (!lights && right_of_way(pa) != right_of_way(pb)) return right_of_way(pa) < right_of_way(pb);
  bool lht = m->road[la->road].left_hand;
  dj__turn across = lht ? DJ__TURN_RIGHT : DJ__TURN_LEFT;
  double d = dj__wrap(start_yaw(m, lb) - start_yaw(m, la)) * (lht ? -1 : 1);
  bool bike_a = la->type == DJ__LANE_BIKING, bike_b = lb->type == DJ__LANE_BIKING;
  if (fabs(d) < 0.79) { /* side by side: who turns waits for who goes on; cars for bicycles */
    bool turn_a = la->turn != DJ__TURN_STRAIGHT, turn_b = lb->turn != DJ__TURN_STRAIGHT;
    if (turn_a != turn_b) return turn_a;
    if (bike_a != bike_b) return bike_b;
    int outer_a = outer_of(m, la), outer_b = outer_of(m, lb);
    return outer_a != outer_b ? outer_a > outer_b : a > b; /* the lane that ends is the outer one */
  }
  if (fabs(d) > 2.36) { /* oncoming */
    bool left_a = la->turn == across || la->turn == DJ__TURN_BACK,
         left_b = lb->turn == across || lb->turn == DJ__TURN_BACK;
    if (left_a != left_b) return left_a;
    return a > b;
  }
  if (lights) { /* green together from the side: turning left waits */
    bool left_a = la->turn == across, left_b = lb->turn == across;
    if (left_a != left_b) return left_a;
  }
  return d > 0; /* b heads to the left: it comes from the right */
}

static bool shared_stretch(const dj__map *m, const dj__lane *la, const dj__lane *lb, int stride,
                           dj__conflict *c) {
  const dj__lane_point *p = m->point + la->point0, *q = m->point + lb->point0;
  *c = (dj__conflict){.from = INFINITY, .to = -1, .other_from = INFINITY, .other_to = -1};
  for (int i = 0; i < la->n_point; i += stride)
    for (int k = 0; k < lb->n_point; k += stride) {
      double dx = p[i].x - q[k].x, dy = p[i].y - q[k].y;
      double near = NEAR * 0.5 * (double)(p[i].width + q[k].width);
      if (dx * dx + dy * dy > near * near) continue;
      c->from = fmin(c->from, p[i].s);
      c->to = fmax(c->to, p[i].s);
      c->other_from = fmin(c->other_from, q[k].s);
      c->other_to = fmax(c->other_to, q[k].s);
    }
  return c->to >= 0;
}

static bool same_end(const dj__map *m, const dj__lane *a, const dj__lane *b) {
  for (int i = 0; i < a->n_succ; i++)
    for (int k = 0; k < b->n_succ; k++)
      if (m->graph[a->succ0 + i] == m->graph[b->succ0 + k]) return true;
  return false;
}

static void compare(const dj__map *m, int a, int b, int stride, list *o) {
  const dj__lane *la = &m->lane[a], *lb = &m->lane[b];
  dj__conflict c;
  if (!shared_stretch(m, la, lb, stride, &c)) return;
  c.lane = b;
  c.merge = same_end(m, la, lb);
  c.yield = waits(m, a, b);
  bool back = !c.yield && waits(m, b, a);
  add(o, a, c);
  add(o, b,
      (dj__conflict){.lane = a,
                     .from = c.other_from,
                     .to = c.other_to,
                     .other_from = c.from,
                     .other_to = c.to,
                     .yield = back,
                     .merge = c.merge});
}

static int by_lane(const void *a, const void *b) {
  const found *p = a, *q = b;
  if (p->lane != q->lane) return p->lane < q->lane ? -1 : 1;
  return p->c.lane < q->c.lane ? -1 : p->c.lane > q->c.lane;
}

dj_status dj__map_find_conflicts(dj__build *b) {
  dj__map *m = b->m;
  members o = {0};
  list found_all = {0};
  bool ok = sort_members(m, &o);
  for (int j = 0; ok && j < m->n_junction; j++) {
    const int *in = o.list + o.start[j];
    int n = o.start[j + 1] - o.start[j];
    double points = 0;
    for (int i = 0; i < n; i++) points += m->lane[in[i]].n_point;
    int stride = 1 + (int)sqrt(0.5 * points * points / MAX_WORK);
    if (n > 3000) {
      dj_message(DJ_LOG_WARN, "%s: junction %s has %d lanes: their conflicts are left out", m->name,
                 m->junction[j].id, n);
      continue;
    }
    for (int i = 0; i < n; i++)
      for (int k = i + 1; k < n; k++) compare(m, in[i], in[k], stride, &found_all);
  }
  ok = ok && !found_all.failed;
  if (ok && found_all.n) qsort(found_all.f, (size_t)found_all.n, sizeof *found_all.f, by_lane);
  for (int i = 0; ok && i < found_all.n; i++) {
    dj__lane *l = &m->lane[found_all.f[i].lane];
    if (l->n_conflict++ == 0) l->conflict0 = m->n_conflict;
    *DJ__PUSH(b, conflict) = found_all.f[i].c;
    ok = !b->failed;
  }
  free(found_all.f);
  free(o.start);
  free(o.list);
  return ok ? DJ_OK : dj_error(DJ_E_NOMEM, "%s: no memory for conflicts", m->name);
}
