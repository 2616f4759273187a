/*
 * The ground around the roads. A coarse grid: where roads run it has their height; between them a
 * membrane is stretched (Laplace's equation, coarse to fine), and smooth noise is laid on it that
 * grows with the distance from the nearest road. Close to a road the grid is blended to its edge.
 * A function of the lane points and the seed alone, so a map that is written and read again stands
 * on the same ground.
 */
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "world/map_build.h"

enum { MAX_SIDE = 512 };
#define FULL_NOISE 160.0 /* m from a road where the ground is free to be hilly */
#define VERGE      0.06  /* m that the ground lies below a road's edge */
#define BLEND      14.0  /* m from edge to free ground */

struct dj__terrain {
  double x0, y0, cell;
  int nx, ny;
  float *h;
};

void dj__map_free_terrain(struct dj__terrain *t) {
  if (!t) return;
  free(t->h);
  free(t);
}

static double knot(uint64_t seed, int i, int j) {
  return 2.0 * dj__u01(dj__philox(seed, (uint64_t)(uint32_t)i << 32 | (uint32_t)j, 77).v[0]) - 1;
}

double dj__noise2(uint64_t seed, double x, double y) {
  double fx = floor(x), fy = floor(y), u = x - fx, v = y - fy;
  int i = (int)fx, j = (int)fy;
  u = u * u * u * (u * (6 * u - 15) + 10);
  v = v * v * v * (v * (6 * v - 15) + 10);
  double a = knot(seed, i, j), b = knot(seed, i + 1, j), c = knot(seed, i, j + 1),
         d = knot(seed, i + 1, j + 1);
  return a + (b - a) * u + (c - a) * v + (a - b - c + d) * u * v;
}

static double smooth(double x) {
  x = x < 0 ? 0 : x > 1 ? 1 : x;
  return x * x * (3 - 2 * x);
}

/* Mean height of the road points near each knot; count 0 where there are none. */
static void pin(const dj__map *m, const struct dj__terrain *t, float *h, float *count) {
  for (int i = 0; i < m->n_point; i++) {
    const dj__lane_point *p = &m->point[i];
    int a = (int)((p->x - t->x0) / t->cell + 0.5), b = (int)((p->y - t->y0) / t->cell + 0.5);
    if (a < 0 || b < 0 || a >= t->nx || b >= t->ny) continue;
    int k = b * t->nx + a;
    count[k]++;
    h[k] += ((float)p->z - h[k]) / count[k];
  }
}

/* Membrane over the knots without a road: first the mean of ever larger squares, then relaxation.
 */
static void stretch(int nx, int ny, float *h, const float *count) {
  if (nx > 3 && ny > 3) {
    int cx = (nx + 1) / 2, cy = (ny + 1) / 2;
    float *hc = calloc((size_t)cx * (size_t)cy, sizeof *hc),
          *cc = calloc((size_t)cx * (size_t)cy, sizeof *cc);
    if (hc && cc) {
      for (int j = 0; j < ny; j++)
        for (int i = 0; i < nx; i++) {
          int k = (j / 2) * cx + i / 2;
          if (count[j * nx + i] <= 0) continue;
          cc[k]++;
          hc[k] += (h[j * nx + i] - hc[k]) / cc[k];
        }
      stretch(cx, cy, hc, cc);
      for (int j = 0; j < ny; j++)
        for (int i = 0; i < nx; i++)
          if (count[j * nx + i] <= 0) h[j * nx + i] = hc[(j / 2) * cx + i / 2];
    }
    free(hc);
    free(cc);
  }
  for (int sweep = 0; sweep < 40; sweep++)
    for (int j = 0; j < ny; j++)
      for (int i = 0; i < nx; i++) {
        if (count[j * nx + i] > 0) continue;
        float l = h[j * nx + (i > 0 ? i - 1 : i)], r = h[j * nx + (i + 1 < nx ? i + 1 : i)];
        float d = h[(j > 0 ? j - 1 : j) * nx + i], u = h[(j + 1 < ny ? j + 1 : j) * nx + i];
        h[j * nx + i] = 0.25f * (l + r + d + u);
      }
}

/* Chamfer distance to the nearest knot with a road, m (Borgefors 1986: steps 1 and sqrt 2). */
static void distances(int nx, int ny, double cell, const float *count, float *far) {
  const float side = (float)cell, diagonal = (float)(cell * M_SQRT2);
  for (int k = 0; k < nx * ny; k++) far[k] = count[k] > 0 ? 0 : 1e9f;
  for (int pass = 0; pass < 2; pass++)
    for (int n = 0; n < nx * ny; n++) {
      int k = pass ? nx * ny - 1 - n : n, i = k % nx, j = k / nx, d = pass ? 1 : -1;
      bool di = i + d >= 0 && i + d < nx, dj = j + d >= 0 && j + d < ny,
           ei = i - d >= 0 && i - d < nx;
      if (di) far[k] = fminf(far[k], far[k + d] + side);
      if (dj) far[k] = fminf(far[k], far[k + d * nx] + side);
      if (di && dj) far[k] = fminf(far[k], far[k + d * nx + d] + diagonal);
      if (ei && dj) far[k] = fminf(far[k], far[k + d * nx - d] + diagonal);
    }
}

dj_status dj__map_make_terrain(dj__map *m) {
  struct dj__terrain *t = calloc(1, sizeof *t);
  if (!t) return dj_error(DJ_E_NOMEM, "%s: no memory for its ground", m->name);
  m->terrain = t;
  double side = fmax(m->x1 - m->x0, m->y1 - m->y0);
  bool indoors = side < 60;
  double margin = indoors ? 5 : 400;
  t->cell = fmax(indoors ? 0.5 : 8, (side + 2 * margin) / (MAX_SIDE - 2));
  t->x0 = m->x0 - margin;
  t->y0 = m->y0 - margin;
  t->nx = 2 + (int)((m->x1 - m->x0 + 2 * margin) / t->cell);
  t->ny = 2 + (int)((m->y1 - m->y0 + 2 * margin) / t->cell);
  size_t n = (size_t)t->nx * (size_t)t->ny;
  t->h = calloc(n, sizeof *t->h);
  float *count = calloc(n, sizeof *count), *far = calloc(n, sizeof *far);
  if (t->h && count && far) {
    pin(m, t, t->h, count);
    stretch(t->nx, t->ny, t->h, count);
    distances(t->nx, t->ny, t->cell, count, far);
    double lo = 1e30, hi = -1e30;
    for (int i = 0; i < m->n_point; i++) {
      lo = fmin(lo, m->point[i].z);
      hi = fmax(hi, m->point[i].z);
    }
    double height = indoors ? 0 : fmin(3 + 0.5 * (hi > lo ? hi - lo : 0), 20);
    for (int j = 0; j < t->ny; j++)
      for (int i = 0; i < t->nx; i++) {
        size_t k = (size_t)j * (size_t)t->nx + (size_t)i;
        double x = i * t->cell, y = j * t->cell, a = smooth((far[k] - 15) / FULL_NOISE);
        double noise = dj__noise2(m->seed + 11, x / 260, y / 260) +
                       0.4 * dj__noise2(m->seed + 12, x / 90, y / 90) + 0.3;
        t->h[k] += (float)(height * a * noise);
      }
  }
  bool ok = t->h && count && far;
  free(count);
  free(far);
  return ok ? DJ_OK : dj_error(DJ_E_NOMEM, "%s: no memory for its ground", m->name);
}

static double raw(const struct dj__terrain *t, double x, double y) {
  double u = (x - t->x0) / t->cell, v = (y - t->y0) / t->cell;
  u = u > 0 ? fmin(u, t->nx - 1.001) : 0;
  v = v > 0 ? fmin(v, t->ny - 1.001) : 0;
  int i = (int)u, j = (int)v;
  const float *h = t->h + (size_t)j * (size_t)t->nx + i;
  u -= i;
  v -= j;
  return (h[0] * (1 - u) + h[1] * u) * (1 - v) + (h[t->nx] * (1 - u) + h[t->nx + 1] * u) * v;
}

/* The nearest paved way or pavement: height there, and distance from its edge (< 0: on it). */
static bool nearest_way(const dj__map *m, double x, double y, double reach, double *z, double *edge,
                        dj__lane_type *type) {
  int lane,
      i = dj__map_nearest_point(m, x, y, DJ__PAVED_TYPES | 1u << DJ__LANE_SIDEWALK, reach, &lane);
  if (i < 0) return false;
  const dj__lane_point *p = &m->point[i];
  double s, t, d = dj__map_project(m, lane, x, y, p->s, &s, &t);
  dj__place at;
  dj__map_at(m, lane, s, 0, &at);
  *z = at.z;
  *edge = d - 0.5 * at.width;
  *type = m->lane[lane].type;
  return true;
}

double dj__map_height(const dj__map *m, double x, double y) {
  double z, edge, ground = raw(m->terrain, x, y);
  dj__lane_type type;
  if (!nearest_way(m, x, y, BLEND + 4, &z, &edge, &type)) return ground;
  double kerb = type == DJ__LANE_SIDEWALK ? DJ__KERB : 0;
  if (edge <= 0) return z + kerb;
  double share = smooth(edge / BLEND);
  return (z + kerb - VERGE) * (1 - share) + ground * share;
}

double dj__map_ground(const dj__map *m, double x, double y) {
  const double flat = 6, below = 0.3; /* m beside the road that stay low, and how low */
  double z, edge, ground = raw(m->terrain, x, y);
  dj__lane_type type;
  if (!nearest_way(m, x, y, flat + BLEND + 4, &z, &edge, &type)) return ground;
  double share = smooth((edge - flat) / BLEND);
  return (z - below) * (1 - share) + ground * share;
}
