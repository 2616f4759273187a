/*
 * Reference lines: lines, arcs, clothoids and cubics, evaluated and made.
 *
 * Clothoids (spirals whose curvature grows linearly) have no closed form; positions are integrals
 * of cos and sin of a quadratic, taken by Gauss-Legendre quadrature with 8 points on pieces that
 * turn by at most a quarter of a radian: exact to rounding. Nothing here allocates but the pushes.
 */
#include <math.h>

#include "world/map_build.h"

double dj__wrap(double a) {
  a = fmod(a + M_PI, 2 * M_PI);
  return a < 0 ? a + M_PI : a - M_PI;
}

/* Abramowitz and Stegun, Handbook of Mathematical Functions, table 25.4, n = 8. */
static const double gl_x[4] = {0.1834346424956498, 0.5255324099163290, 0.7966664774136267,
                               0.9602898564975363};
static const double gl_w[4] = {0.3626837833783620, 0.3137066458778873, 0.2223810344533745,
                               0.1012285362903763};

/* End of a spiral of curvature k0 + dk u that starts at the origin along x. */
static void spiral_end(double k0, double dk, double length, double *x, double *y) {
  double turn = fabs(k0) * length + 0.5 * fabs(dk) * length * length;
  int n = turn > 250 ? 1000 : 1 + (int)(turn / 0.25);
  double h = length / n;
  *x = *y = 0;
  for (int i = 0; i < n; i++) {
    double mid = (i + 0.5) * h, sx = 0, sy = 0;
    for (int j = 0; j < 4; j++)
      for (int side = -1; side <= 1; side += 2) {
        double u = mid + side * 0.5 * h * gl_x[j], a = u * (k0 + 0.5 * dk * u);
        sx += gl_w[j] * cos(a);
        sy += gl_w[j] * sin(a);
      }
    *x += 0.5 * h * sx;
    *y += 0.5 * h * sy;
  }
}

static double cubic(const double c[4], double p) {
  return c[0] + p * (c[1] + p * (c[2] + p * c[3]));
}
static double cubic1(const double c[4], double p) {
  return c[1] + p * (2 * c[2] + p * 3 * c[3]);
}
static double cubic2(const double c[4], double p) {
  return 2 * c[2] + p * 6 * c[3];
}

void dj__geom_at(const dj__geom *g, double ds, dj__pose *o) {
  ds = ds < 0 ? 0 : ds > g->length ? g->length : ds;
  double x = ds, y = 0, turn = 0;
  o->curv = 0;
  if (g->kind == DJ__GEOM_ARC || g->kind == DJ__GEOM_SPIRAL) {
    double dk = g->length > 0 ? (g->curv1 - g->curv0) / g->length : 0;
    turn = ds * (g->curv0 + 0.5 * dk * ds);
    o->curv = g->curv0 + dk * ds;
    if (g->kind == DJ__GEOM_ARC && fabs(turn) > 1e-5) {
      x = sin(turn) / g->curv0;
      y = (1 - cos(turn)) / g->curv0;
    } else {
      spiral_end(g->curv0, dk, ds, &x, &y);
    }
  } else if (g->kind == DJ__GEOM_PARAM_POLY3) {
    double p = g->normalized && g->length > 0 ? ds / g->length : ds;
    double x1 = cubic1(g->u, p), y1 = cubic1(g->v, p), v2 = x1 * x1 + y1 * y1;
    x = cubic(g->u, p);
    y = cubic(g->v, p);
    turn = v2 > 0 ? atan2(y1, x1) : 0;
    o->curv = v2 > 1e-18 ? (x1 * cubic2(g->v, p) - y1 * cubic2(g->u, p)) / (v2 * sqrt(v2)) : 0;
  }
  double c = cos(g->hdg), s = sin(g->hdg);
  o->x = g->x + c * x - s * y;
  o->y = g->y + s * x + c * y;
  o->hdg = dj__wrap(g->hdg + turn);
}

static int poly3_find(const dj__poly3 *p, int n, double s) { /* last piece with p.s <= s, or -1 */
  int lo = -1, hi = n;
  while (hi - lo > 1) {
    int mid = (lo + hi) / 2;
    if (p[mid].s <= s)
      lo = mid;
    else
      hi = mid;
  }
  return lo;
}

double dj__poly3_at(const dj__poly3 *p, int n, double s) {
  int i = poly3_find(p, n, s);
  if (i < 0) return n > 0 ? p[0].a : 0;
  double d = s - p[i].s;
  return p[i].a + d * (p[i].b + d * (p[i].c + d * p[i].d));
}

double dj__poly3_slope(const dj__poly3 *p, int n, double s) {
  int i = poly3_find(p, n, s);
  if (i < 0) return 0;
  double d = s - p[i].s;
  return p[i].b + d * (2 * p[i].c + d * 3 * p[i].d);
}

void dj__road_at(const dj__map *m, int road, double s, dj__pose *p) {
  const dj__road *r = &m->road[road];
  int lo = 0, hi = r->n_geom;
  while (hi - lo > 1) {
    int mid = (lo + hi) / 2;
    if (m->geom[r->geom0 + mid].s <= s)
      lo = mid;
    else
      hi = mid;
  }
  const dj__geom *g = &m->geom[r->geom0 + lo];
  dj__geom_at(g, s - g->s, p);
}

double dj__road_z(const dj__map *m, int road, double s, double *slope) {
  const dj__road *r = &m->road[road];
  const dj__poly3 *e = m->elevation + r->elevation0;
  if (slope) *slope = dj__poly3_slope(e, r->n_elevation, s);
  return dj__poly3_at(e, r->n_elevation, s);
}

int dj__road_section(const dj__map *m, int road, double s) {
  const dj__road *r = &m->road[road];
  int k = r->section0;
  while (k + 1 < r->section0 + r->n_section && m->section[k + 1].s <= s) k++;
  return k;
}

double dj__section_end(const dj__map *m, int road, int section) {
  const dj__road *r = &m->road[road];
  return section + 1 < r->section0 + r->n_section ? m->section[section + 1].s : r->length;
}

int dj__section_lane(const dj__map *m, int section, int id) {
  const dj__section *k = &m->section[section];
  for (int i = k->lane0; i < k->lane0 + k->n_lane; i++)
    if (m->road_lane[i].id == id) return i;
  return -1;
}

double dj__lane_width(const dj__map *m, int section, int road_lane, double s) {
  const dj__road_lane *l = &m->road_lane[road_lane];
  double w = dj__poly3_at(m->width + l->width0, l->n_width, s - m->section[section].s);
  return w > 0 ? w : 0;
}

double dj__lane_offset(const dj__map *m, int road, int section, double s, double *slope) {
  const dj__road *r = &m->road[road];
  const double end = dj__section_end(m, road, section), inside = fmin(s, end - 1e-6);
  const int i = poly3_find(m->offset + r->offset0, r->n_offset, inside);
  const dj__poly3 *p = m->offset + r->offset0 + (i < 0 ? 0 : i);
  const int n = r->n_offset > 0; /* that piece alone */
  *slope = dj__poly3_slope(p, n, s);
  return dj__poly3_at(p, n, s);
}

void dj__lane_edges(const dj__map *m, int road, int section, int road_lane, double s, double *inner,
                    double *outer) {
  const dj__section *k = &m->section[section];
  double slope, t = dj__lane_offset(m, road, section, s, &slope);
  int id = m->road_lane[road_lane].id, step = id > 0 ? -1 : 1, centre = -1;
  for (int i = k->lane0; i < k->lane0 + k->n_lane; i++)
    if (m->road_lane[i].id == 0) centre = i;
  *inner = *outer = t;
  if (centre < 0 || id == 0) return;
  for (int i = centre + step; i >= k->lane0 && i < k->lane0 + k->n_lane; i += step) {
    *inner = t;
    t -= step * dj__lane_width(m, section, i, s);
    *outer = t;
    if (i == road_lane) return;
  }
}

const dj__road_mark *dj__lane_mark(const dj__map *m, int section, int road_lane, double s) {
  static const dj__road_mark none = {0};
  const dj__road_lane *l = &m->road_lane[road_lane];
  const dj__road_mark *found = &none;
  for (int i = l->mark0; i < l->mark0 + l->n_mark; i++)
    if (m->mark[i].s <= s - m->section[section].s + 1e-9) found = &m->mark[i];
  return found;
}

/* ---- making ---- */
double dj__push_line(dj__build *b, double s, double x, double y, double hdg, double length) {
  dj__geom *g = DJ__PUSH(b, geom);
  *g = (dj__geom){.kind = DJ__GEOM_LINE, .s = s, .x = x, .y = y, .hdg = hdg, .length = length};
  return s + length;
}

double dj__push_arc(dj__build *b, double s, double x, double y, double hdg, double length,
                    double curv) {
  dj__geom *g = DJ__PUSH(b, geom);
  *g = (dj__geom){.kind = DJ__GEOM_ARC,
                  .s = s,
                  .x = x,
                  .y = y,
                  .hdg = hdg,
                  .length = length,
                  .curv0 = curv,
                  .curv1 = curv};
  return s + length;
}

/* Pushes a piece from a pose on, and moves the pose to its end. */
static double push_bend(dj__build *b, double s, dj__pose *at, double length, double k0, double k1) {
  if (length < 1e-9) return s;
  dj__geom *g = DJ__PUSH(b, geom);
  *g = (dj__geom){.kind = k0 == k1 ? DJ__GEOM_ARC : DJ__GEOM_SPIRAL,
                  .s = s,
                  .x = at->x,
                  .y = at->y,
                  .hdg = at->hdg,
                  .length = length,
                  .curv0 = k0,
                  .curv1 = k1};
  dj__geom_at(g, length, at);
  return s + length;
}

/* Tangent length of a corner of radius 1 that turns by `turn` > 0: from the corner to where the
 * curve begins (Schofield and Breach, Engineering Surveying, "transition curves"). */
static double tangent_length(double turn, double share) {
  double tau = share * turn, x = 0, y = 0;
  if (tau > 0) spiral_end(0, 1 / (2 * tau), 2 * tau, &x, &y);
  double shift = y - (1 - cos(tau)), k = x - sin(tau);
  return (1 + shift) * tan(0.5 * turn) + k;
}

static double push_corner(dj__build *b, double s, dj__pose *at, double turn, double radius,
                          double share) {
  double a = fabs(turn), k = (turn > 0 ? 1 : -1) / radius, ls = 2 * share * a * radius;
  s = push_bend(b, s, at, ls, 0, k);
  s = push_bend(b, s, at, (1 - 2 * share) * a * radius, k, k);
  return push_bend(b, s, at, ls, k, 0);
}

double dj__push_polyline(dj__build *b, const double (*p)[2], const double *radius, int n,
                         double share, double straight0, double straight1, double *min_radius) {
  double s = 0, smallest = 1e9, used = straight0; /* of the present segment, from its start */
  for (int i = 0; i + 1 < n; i++) {
    double dx = p[i + 1][0] - p[i][0], dy = p[i + 1][1] - p[i][1], length = hypot(dx, dy);
    double hdg = atan2(dy, dx), from = i ? used : 0, to = length;
    double turn = 0, r = 0, t = 0;
    if (i + 2 < n) {
      double ex = p[i + 2][0] - p[i + 1][0], ey = p[i + 2][1] - p[i + 1][1];
      turn = dj__wrap(atan2(ey, ex) - hdg);
      if (fabs(turn) > 1e-6) {
        double unit = tangent_length(fabs(turn), share), next = hypot(ex, ey);
        double room = length - used < 0.5 * length || i == 0 ? length - used : 0.5 * length;
        double room2 = i + 3 < n ? 0.5 * next : next - straight1;
        if (room2 < room) room = room2;
        r = fmin(radius[i + 1], fmax(room, 0.05) / unit);
        t = r * unit;
        to = length - t;
        if (r < smallest) smallest = r;
      }
    }
    if (to - from > 1e-9)
      s = dj__push_line(b, s, p[i][0] + from * cos(hdg), p[i][1] + from * sin(hdg), hdg, to - from);
    if (t > 0) {
      dj__pose at = {p[i + 1][0] - t * cos(hdg), p[i + 1][1] - t * sin(hdg), hdg, 0};
      s = push_corner(b, s, &at, turn, r, share);
    }
    used = t;
  }
  if (min_radius) *min_radius = smallest;
  return s;
}

static double push_cubic(dj__build *b, const dj__pose *from, const dj__pose *to) {
  double dx = to->x - from->x, dy = to->y - from->y, c = cos(from->hdg), s = sin(from->hdg);
  double x = c * dx + s * dy, y = -s * dx + c * dy, turn = dj__wrap(to->hdg - from->hdg);
  double h = hypot(x, y); /* length of the tangents for a cubic in 0..1 */
  dj__geom *g = DJ__PUSH(b, geom);
  *g = (dj__geom){.kind = DJ__GEOM_PARAM_POLY3,
                  .x = from->x,
                  .y = from->y,
                  .hdg = from->hdg,
                  .normalized = true};
  double tx = h * cos(turn), ty = h * sin(turn);
  double u[4] = {0, h, 3 * x - 2 * h - tx, -2 * x + h + tx};
  double v[4] = {0, 0, 3 * y - ty, -2 * y + ty};
  for (int i = 0; i < 4; i++) {
    g->u[i] = u[i];
    g->v[i] = v[i];
  }
  for (int i = 0; i < 16; i++) /* 16 x 8 points: its length */
    for (int j = 0; j < 8; j++) {
      double p = (i + 0.5 + (j < 4 ? 0.5 : -0.5) * gl_x[j % 4]) / 16;
      g->length += gl_w[j % 4] / 32 * hypot(cubic1(u, p), cubic1(v, p));
    }
  return g->length;
}

double dj__push_connection(dj__build *b, const dj__pose *from, const dj__pose *to, bool arc) {
  double dx = to->x - from->x, dy = to->y - from->y, turn = dj__wrap(to->hdg - from->hdg);
  double c0 = cos(from->hdg), s0 = sin(from->hdg), c1 = cos(to->hdg), s1 = sin(to->hdg);
  double cross = c0 * s1 - s0 * c1;
  if (fabs(turn) < 1e-7 && fabs(dy * c0 - dx * s0) < 1e-7)
    return dj__push_line(b, 0, from->x, from->y, from->hdg, hypot(dx, dy));
  if (fabs(turn) > 0.05 && fabs(turn) < 2.6) {
    double a = (dx * s1 - dy * c1) / cross; /* to the corner */
    double corner[2] = {from->x + a * c0, from->y + a * s0};
    double end_gap = (to->x - corner[0]) * c1 + (to->y - corner[1]) * s1;
    if (a > 0.3 && end_gap > 0.3) {
      double t = fmin(a, end_gap), share = arc ? 0 : 0.15;
      double r = t / tangent_length(fabs(turn), share), s = 0;
      if (a - t > 1e-6) s = dj__push_line(b, 0, from->x, from->y, from->hdg, a - t);
      dj__pose at = {corner[0] - t * c0, corner[1] - t * s0, from->hdg, 0};
      s = push_corner(b, s, &at, turn, r, share);
      if (end_gap - t > 1e-6) s = dj__push_line(b, s, at.x, at.y, to->hdg, end_gap - t);
      return s;
    }
  }
  return push_cubic(b, from, to);
}
