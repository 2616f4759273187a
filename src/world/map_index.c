/*
 * Where on the map is this point? A grid of cells over all lane points, each cell's points side by
 * side with what a search needs of them (place, direction, lane): one search reads a few hundred
 * bytes in a row. Cells are as large as two lanes are wide, larger where a map is so vast that
 * there would be too many of them.
 */
#include <math.h>
#include <stdlib.h>

#include "world/map_build.h"

typedef struct entry {
  float x, y, tx, ty; /* from the index' origin; direction */
  float half;         /* of the step between points */
  int lane, point;
} entry;

struct dj__map_index {
  double x0, y0, cell;
  int nx, ny;
  int *start; /* (nx ny + 1) */
  entry *e;
  uint8_t *type; /* of lanes */
};

enum { MAX_CELLS = 1 << 21 };

void dj__map_free_index(struct dj__map_index *i) {
  if (!i) return;
  free(i->start);
  free(i->e);
  free(i->type);
  free(i);
}

static int cell_of(const struct dj__map_index *k, double x, double y) {
  int i = (int)((x - k->x0) / k->cell), j = (int)((y - k->y0) / k->cell);
  i = i < 0 ? 0 : i >= k->nx ? k->nx - 1 : i;
  j = j < 0 ? 0 : j >= k->ny ? k->ny - 1 : j;
  return j * k->nx + i;
}

static void fill(const dj__map *m, struct dj__map_index *k) {
  int n_cell = k->nx * k->ny;
  for (int i = 0; i < m->n_point; i++) k->start[cell_of(k, m->point[i].x, m->point[i].y) + 1]++;
  for (int i = 0; i < n_cell; i++) k->start[i + 1] += k->start[i];
  for (int l = 0; l < m->n_lane; l++) {
    const dj__lane *lane = &m->lane[l];
    k->type[l] = (uint8_t)lane->type;
    for (int i = lane->point0; i < lane->point0 + lane->n_point; i++) {
      const dj__lane_point *p = &m->point[i];
      bool last = i + 1 == lane->point0 + lane->n_point;
      double step = last ? p->s - p[-1].s : p[1].s - p->s;
      if (!last && i > lane->point0) step = fmax(step, p->s - p[-1].s);
      k->e[k->start[cell_of(k, p->x, p->y)]++] = (entry){.x = (float)(p->x - k->x0),
                                                         .y = (float)(p->y - k->y0),
                                                         .tx = (float)cos(p->yaw),
                                                         .ty = (float)sin(p->yaw),
                                                         .half = (float)(0.5 * step),
                                                         .lane = l,
                                                         .point = i};
    }
  }
  for (int i = n_cell; i > 0; i--) k->start[i] = k->start[i - 1]; /* fill moved them on by one */
  k->start[0] = 0;
}

dj_status dj__map_make_index(dj__map *m) {
  struct dj__map_index *k = calloc(1, sizeof *k);
  if (!k) return dj_error(DJ_E_NOMEM, "%s: no memory for an index", m->name);
  m->index = k;
  double w = m->x1 - m->x0, h = m->y1 - m->y0, side = fmax(w, h);
  k->cell = fmin(4, fmax(side / 64, 0.25));
  while ((w / k->cell + 2) * (h / k->cell + 2) > MAX_CELLS) k->cell *= 1.5;
  k->x0 = m->x0;
  k->y0 = m->y0;
  k->nx = 1 + (int)(w / k->cell);
  k->ny = 1 + (int)(h / k->cell);
  k->start = calloc((size_t)k->nx * (size_t)k->ny + 2, sizeof *k->start);
  k->e = calloc((size_t)m->n_point + 1, sizeof *k->e);
  k->type = calloc((size_t)m->n_lane + 1, 1);
  if (!k->start || !k->e || !k->type)
    return dj_error(DJ_E_NOMEM, "%s: no memory for an index of %d points", m->name, m->n_point);
  fill(m, k);
  return DJ_OK;
}

typedef struct search {
  const struct dj__map_index *k;
  float x, y, cx, cy; /* direction asked for; 0, 0: any */
  uint32_t types;
  float best; /* score: m, and a price for another direction */
  float reach;
  const entry *found;
} search;

/* Distance to the short stretch of lane that an entry stands for, and twice the share that its
 * direction is off. */
static void look(search *q, int i, int j) {
  const struct dj__map_index *k = q->k;
  if (i < 0 || j < 0 || i >= k->nx || j >= k->ny) return;
  int c = j * k->nx + i;
  for (const entry *e = k->e + k->start[c], *end = k->e + k->start[c + 1]; e < end; e++) {
    float dx = q->x - e->x, dy = q->y - e->y;
    float along = fabsf(dx * e->tx + dy * e->ty) - e->half, across = dx * e->ty - dy * e->tx;
    if (along < 0) along = 0;
    float d2 = along * along + across * across;
    if (d2 > q->reach * q->reach || d2 >= q->best * q->best) continue;
    if (!(q->types >> k->type[e->lane] & 1)) continue;
    float score = sqrtf(d2);
    if (q->cx != 0 || q->cy != 0) {
      float c1 = q->cx * e->tx + q->cy * e->ty;
      if (c1 <= 0) continue;
      score += 2 * (1 - c1);
    }
    if (score < q->best) {
      q->best = score;
      q->found = e;
    }
  }
}

static const entry *search_near(const dj__map *m, double x, double y, double yaw, uint32_t types,
                                double reach) {
  const struct dj__map_index *k = m->index;
  search q = {.k = k,
              .x = (float)(x - k->x0),
              .y = (float)(y - k->y0),
              .types = types,
              .best = INFINITY,
              .reach = (float)reach};
  if (!isnan(yaw)) {
    q.cx = (float)cos(yaw);
    q.cy = (float)sin(yaw);
  }
  double fx = (x - k->x0) / k->cell, fy = (y - k->y0) / k->cell;
  if (!(fabs(fx) < 1e9) || !(fabs(fy) < 1e9)) return NULL;
  int i = (int)floor(fx), j = (int)floor(fy), far_i = i < 0 ? -i : i - k->nx + 1,
      far_j = j < 0 ? -j : j - k->ny + 1, ring0 = far_i > far_j ? far_i : far_j;
  if (ring0 < 0) ring0 = 0;
  int most = (int)fmin(reach / k->cell + 2, k->nx + k->ny + ring0 + 2);
  for (int ring = ring0; ring <= most; ring++) {
    double nearest = (ring - 1) * k->cell + /* what the ring's points are at least away */
                     fmin(fmin(fx - i, i + 1 - fx), fmin(fy - j, j + 1 - fy)) * k->cell;
    if (ring > 0 && (nearest - 0.5 > q.best || nearest - 0.5 > reach)) break;
    for (int dj = -ring; dj <= ring; dj++)
      for (int di = -ring; di <= ring; di += dj == -ring || dj == ring ? 1 : 2 * ring)
        look(&q, i + di, j + dj);
  }
  return q.found;
}

int dj__map_nearest_point(const dj__map *m, double x, double y, uint32_t types, double reach,
                          int *lane) {
  const entry *e = search_near(m, x, y, NAN, types, reach);
  if (!e) return -1;
  if (lane) *lane = e->lane;
  return e->point;
}

int dj__map_nearest(const dj__map *m, double x, double y, double yaw, uint32_t types, double reach,
                    double *s, double *t) {
  const entry *e = search_near(m, x, y, yaw, types, reach);
  if (!e) return -1;
  dj__map_project(m, e->lane, x, y, m->point[e->point].s, s, t);
  return e->lane;
}

/* ---- along one lane ---- */
static int point_before(const dj__map *m, const dj__lane *l, double s) { /* last with .s <= s */
  const dj__lane_point *p = m->point + l->point0;
  int n = l->n_point, i = l->length > 0 ? (int)(s / l->length * (n - 1)) : 0;
  i = i < 0 ? 0 : i > n - 2 ? n - 2 : i;
  while (i > 0 && p[i].s > s) i--;
  while (i < n - 2 && p[i + 1].s <= s) i++;
  return i;
}

void dj__map_at(const dj__map *m, int lane, double s, double t, dj__place *o) {
  const dj__lane *l = &m->lane[lane];
  s = s > 0 ? s < l->length ? s : l->length : 0;
  const dj__lane_point *p = m->point + l->point0 + point_before(m, l, s), *q = p + 1;
  double ds = q->s - p->s, f = ds > 0 ? (s - p->s) / ds : 0;
  f = f > 1 ? 1 : f;
  o->yaw = dj__wrap(p->yaw + f * dj__wrap((double)q->yaw - p->yaw));
  o->x = p->x + f * (q->x - p->x) - t * sin(o->yaw);
  o->y = p->y + f * (q->y - p->y) + t * cos(o->yaw);
  o->z = p->z + f * (q->z - p->z);
  o->curvature = p->curvature + f * (q->curvature - p->curvature);
  o->slope = p->slope + f * (q->slope - p->slope);
  o->width = p->width + f * (q->width - p->width);
  o->speed_limit = l->speed_limit;
}

static double distance2(const dj__lane_point *p, double x, double y) {
  return (x - p->x) * (x - p->x) + (y - p->y) * (y - p->y);
}

/* Foot of (x, y) on the piece p..p+1, as a share that may lie outside 0..1. */
static double foot(const dj__lane_point *p, double x, double y) {
  double ex = p[1].x - p->x, ey = p[1].y - p->y, e2 = ex * ex + ey * ey;
  return e2 > 0 ? ((x - p->x) * ex + (y - p->y) * ey) / e2 : 0;
}

double dj__map_project(const dj__map *m, int lane, double x, double y, double s_guess, double *s,
                       double *t) {
  const dj__lane *l = &m->lane[lane];
  const dj__lane_point *p = m->point + l->point0;
  int i = 0, n = l->n_point;
  if (s_guess >= 0) { /* downhill from the guess */
    i = point_before(m, l, s_guess);
    double d = distance2(p + i, x, y);
    for (int step = -1; step <= 1; step += 2)
      for (int k = i + step, miss = 0; k >= 0 && k < n && miss < 3; k += step) {
        double e = distance2(p + k, x, y);
        if (e < d) {
          d = e;
          i = k;
          miss = 0;
        } else {
          miss++;
        }
      }
  } else {
    for (int k = 1; k < n; k++)
      if (distance2(p + k, x, y) < distance2(p + i, x, y)) i = k;
  }
  double best = INFINITY;
  for (int k = i > 0 ? i - 1 : 0; k <= i && k < n - 1; k++) {
    double f = foot(p + k, x, y), c = f < 0 ? 0 : f > 1 ? 1 : f;
    double ex = p[k + 1].x - p[k].x, ey = p[k + 1].y - p[k].y;
    double dx = x - p[k].x - c * ex, dy = y - p[k].y - c * ey, d = hypot(dx, dy);
    if (d >= best) continue;
    best = d;
    double e = hypot(ex, ey);
    if (s) *s = p[k].s + c * (p[k + 1].s - p[k].s);
    if (t) *t = e > 0 ? (ex * dy - ey * dx) / e : 0;
  }
  return best;
}

/* ---- areas ---- */
static bool inside_outline(const dj__map *m, const dj__junction *j, double x, double y) {
  bool in = false;
  for (int i = 0, k = j->n_outline - 1; i < j->n_outline; k = i++) {
    const double *a = m->outline[j->outline0 + i], *b = m->outline[j->outline0 + k];
    if ((a[1] > y) != (b[1] > y) && x < (b[0] - a[0]) * (y - a[1]) / (b[1] - a[1]) + a[0]) in = !in;
  }
  return in;
}

/* m by which lanes beside each other overlap: they are chords of curves, at single precision, and
 * must leave no seam between them that belongs to neither. */
#define SEAM 0.02f

static bool on_lane(const dj__map *m, double x, double y, uint32_t types) {
  const struct dj__map_index *k = m->index;
  float px = (float)(x - k->x0), py = (float)(y - k->y0);
  int reach = (int)ceil(4 / k->cell);
  int i = (int)floor((x - k->x0) / k->cell), j = (int)floor((y - k->y0) / k->cell);
  for (int b = j - reach; b <= j + reach; b++)
    for (int a = i - reach; a <= i + reach; a++) {
      if (a < 0 || b < 0 || a >= k->nx || b >= k->ny) continue;
      int c = b * k->nx + a;
      for (const entry *e = k->e + k->start[c], *end = k->e + k->start[c + 1]; e < end; e++) {
        float dx = px - e->x, dy = py - e->y, along = dx * e->tx + dy * e->ty,
              across = dx * e->ty - dy * e->tx;
        if (fabsf(along) > e->half + 0.08f * fabsf(across) + 0.01f || fabsf(across) > 4) continue;
        if ((types >> k->type[e->lane] & 1) &&
            fabsf(across) <= 0.5f * m->point[e->point].width + SEAM)
          return true;
      }
    }
  return false;
}

bool dj__map_drivable(const dj__map *m, double x, double y, bool wide) {
  if (!(x > m->x0 - 8 && x < m->x1 + 8 && y > m->y0 - 8 && y < m->y1 + 8)) return false;
  if (on_lane(m, x, y, wide ? DJ__PAVED_TYPES : DJ__DRIVABLE_TYPES)) return true;
  for (int i = 0; i < m->n_junction; i++) {
    const dj__junction *j = &m->junction[i];
    double dx = x - j->x, dy = y - j->y;
    if (dx * dx + dy * dy <= j->radius * j->radius && inside_outline(m, j, x, y)) return true;
  }
  return false;
}
