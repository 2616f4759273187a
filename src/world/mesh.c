/*
 * Mesh builder: vertices take on the look that was set last, lists grow by doubling, out of memory
 * is sticky. Chunks are squares of the map with one list for each way of drawing.
 */
#include "world/mesh.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void dj__mesh_free(dj__mesh *m) {
  free(m->v);
  free(m->i);
  *m = (dj__mesh){0};
}

void dj__look(dj__mesh *m, dj__tex tex, dj__class cls, uint32_t rgb) {
  m->look = (dj__vertex){.c = {(uint8_t)(rgb >> 16), (uint8_t)(rgb >> 8), (uint8_t)rgb, 255},
                         .tex = (uint8_t)tex,
                         .cls = (uint8_t)cls};
}

static bool grow(void **p, int *cap, int need, size_t size) {
  if (need <= *cap) return true;
  int n = *cap ? *cap : 64;
  while (n < need) n *= 2;
  void *q = realloc(*p, (size_t)n * size);
  if (!q) return false;
  *p = q;
  *cap = n;
  return true;
}

uint32_t dj__mesh_vertex(dj__mesh *m, const double p[3], const double n[3], double u, double v) {
  if (m->failed || !grow((void **)&m->v, &m->cap_v, m->n_v + 1, sizeof *m->v)) {
    m->failed = true;
    return 0;
  }
  dj__vertex *o = &m->v[m->n_v];
  *o = m->look;
  for (int k = 0; k < 3; k++) {
    o->p[k] = (float)(p[k] - m->origin[k]);
    o->n[k] = (int8_t)lrint(127 * fmax(-1, fmin(1, n[k])));
  }
  o->uv[0] = (float)u;
  o->uv[1] = (float)v;
  return (uint32_t)m->n_v++;
}

void dj__mesh_triangle(dj__mesh *m, uint32_t a, uint32_t b, uint32_t c) {
  if (m->failed || !grow((void **)&m->i, &m->cap_i, m->n_i + 3, sizeof *m->i)) {
    m->failed = true;
    return;
  }
  m->i[m->n_i++] = a;
  m->i[m->n_i++] = b;
  m->i[m->n_i++] = c;
}

static void face_normal(const double a[3], const double b[3], const double c[3], double n[3]) {
  double u[3], v[3];
  for (int k = 0; k < 3; k++) {
    u[k] = b[k] - a[k];
    v[k] = c[k] - a[k];
  }
  n[0] = u[1] * v[2] - u[2] * v[1];
  n[1] = u[2] * v[0] - u[0] * v[2];
  n[2] = u[0] * v[1] - u[1] * v[0];
  double l = sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]);
  if (l < 1e-12) l = 1;
  for (int k = 0; k < 3; k++) n[k] /= l;
}

void dj__mesh_quad(dj__mesh *m, const double p[4][3], const double uv[4][2]) {
  double n[3];
  face_normal(p[0], p[1], p[2], n);
  if (n[0] * n[0] + n[1] * n[1] + n[2] * n[2] < 0.5) face_normal(p[0], p[2], p[3], n);
  uint32_t k[4];
  for (int i = 0; i < 4; i++) k[i] = dj__mesh_vertex(m, p[i], n, uv[i][0], uv[i][1]);
  dj__mesh_triangle(m, k[0], k[1], k[2]);
  dj__mesh_triangle(m, k[0], k[2], k[3]);
}

void dj__mesh_tri(dj__mesh *m, const double p[3][3], const double uv[3][2]) {
  double n[3];
  face_normal(p[0], p[1], p[2], n);
  uint32_t k[3];
  for (int i = 0; i < 3; i++) k[i] = dj__mesh_vertex(m, p[i], n, uv[i][0], uv[i][1]);
  dj__mesh_triangle(m, k[0], k[1], k[2]);
}

void dj__mesh_box(dj__mesh *m, double x, double y, double z0, double z1, double length,
                  double width, double yaw, double repeat, bool bottom) {
  double c = cos(yaw), s = sin(yaw), hx = 0.5 * length, hy = 0.5 * width;
  static const int sign[4][2] = {{-1, -1}, {1, -1}, {1, 1}, {-1, 1}};
  double low[4][3], high[4][3];
  for (int k = 0; k < 4; k++) {
    double dx = sign[k][0] * hx, dy = sign[k][1] * hy;
    low[k][0] = high[k][0] = x + c * dx - s * dy;
    low[k][1] = high[k][1] = y + s * dx + c * dy;
    low[k][2] = z0;
    high[k][2] = z1;
  }
  double along = 0;
  for (int k = 0; k < 4; k++) {
    int j = (k + 1) % 4;
    double q[4][3], w = k % 2 ? width : length,
                    uv[4][2] = {{along, z0}, {along + w, z0}, {along + w, z1}, {along, z1}};
    memcpy(q[0], low[k], sizeof q[0]);
    memcpy(q[1], low[j], sizeof q[0]);
    memcpy(q[2], high[j], sizeof q[0]);
    memcpy(q[3], high[k], sizeof q[0]);
    for (int i = 0; i < 4; i++) {
      uv[i][0] /= repeat;
      uv[i][1] = (uv[i][1] - z0) / repeat;
    }
    dj__mesh_quad(m, q, uv);
    along += w;
  }
  double top[4][2];
  for (int k = 0; k < 4; k++) {
    top[k][0] = (sign[k][0] * hx) / repeat;
    top[k][1] = (sign[k][1] * hy) / repeat;
  }
  dj__mesh_quad(m, high, top);
  if (!bottom) return;
  double q[4][3];
  for (int k = 0; k < 4; k++) memcpy(q[k], low[3 - k], sizeof q[k]);
  dj__mesh_quad(m, q, top);
}

void dj__mesh_pole(dj__mesh *m, double x, double y, double z0, double z1, double r0, double r1,
                   int sides) {
  uint32_t ring[2][33], lid = 0;
  if (sides > 32) sides = 32;
  for (int k = 0; k <= sides; k++) {
    double a = 2 * M_PI * k / sides, n[3] = {cos(a), sin(a), 0};
    double p0[3] = {x + r0 * n[0], y + r0 * n[1], z0}, p1[3] = {x + r1 * n[0], y + r1 * n[1], z1};
    ring[0][k] = dj__mesh_vertex(m, p0, n, (double)k / sides, 0);
    ring[1][k] = dj__mesh_vertex(m, p1, n, (double)k / sides, z1 - z0);
  }
  for (int k = 0; k < sides; k++) {
    dj__mesh_triangle(m, ring[0][k], ring[0][k + 1], ring[1][k + 1]);
    dj__mesh_triangle(m, ring[0][k], ring[1][k + 1], ring[1][k]);
  }
  const double up[3] = {0, 0, 1};
  for (int k = 0; k < sides; k++) {
    double a = 2 * M_PI * k / sides, p[3] = {x + r1 * cos(a), y + r1 * sin(a), z1};
    uint32_t i = dj__mesh_vertex(m, p, up, 0, 0);
    if (k == 0) lid = i;
    if (k > 1) dj__mesh_triangle(m, lid, i - 1, i);
  }
}

void dj__mesh_beam(dj__mesh *m, const double a[3], const double b[3], double ra, double rb,
                   double flat, int sides) {
  double d[3] = {b[0] - a[0], b[1] - a[1], b[2] - a[2]},
         l = sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
  if (l < 1e-9) return;
  for (int k = 0; k < 3; k++) d[k] /= l;
  bool along_y = fabs(d[1]) > 0.9;
  double u[3] = {along_y ? 1 : 0, along_y ? 0 : 1, 0}, v[3]; // across: y unless the beam lies so
  double dot = u[0] * d[0] + u[1] * d[1] + u[2] * d[2], lu = 0;
  for (int k = 0; k < 3; k++) u[k] -= dot * d[k], lu += u[k] * u[k];
  for (int k = 0; k < 3; k++) u[k] /= sqrt(lu);
  v[0] = d[1] * u[2] - d[2] * u[1];
  v[1] = d[2] * u[0] - d[0] * u[2];
  v[2] = d[0] * u[1] - d[1] * u[0];
  uint32_t ring[2][17], lid[2][16];
  sides = sides > 16 ? 16 : sides;
  for (int k = 0; k <= sides; k++) {
    double t = 2 * M_PI * (k + 0.5) / sides, n[3], p[2][3];
    for (int i = 0; i < 3; i++) {
      n[i] = cos(t) * u[i] + sin(t) * v[i];
      p[0][i] = a[i] + ra * (cos(t) * u[i] + flat * sin(t) * v[i]);
      p[1][i] = b[i] + rb * (cos(t) * u[i] + flat * sin(t) * v[i]);
    }
    const double down[3] = {-d[0], -d[1], -d[2]};
    for (int e = 0; e < 2; e++) {
      ring[e][k] = dj__mesh_vertex(m, p[e], n, (double)k / sides, e);
      if (k < sides) lid[e][k] = dj__mesh_vertex(m, p[e], e ? d : down, 0, 0);
    }
  }
  for (int k = 0; k < sides; k++) {
    dj__mesh_triangle(m, ring[0][k], ring[0][k + 1], ring[1][k + 1]);
    dj__mesh_triangle(m, ring[0][k], ring[1][k + 1], ring[1][k]);
    if (k < 2) continue;
    dj__mesh_triangle(m, lid[0][0], lid[0][k], lid[0][k - 1]);
    dj__mesh_triangle(m, lid[1][0], lid[1][k - 1], lid[1][k]);
  }
}

void dj__mesh_ball(dj__mesh *m, const double c[3], double r, double tall, int sides, int rings) {
  uint32_t before[33] = {0};
  for (int j = 0; j <= rings; j++) {
    double up = M_PI * j / rings - M_PI / 2;
    uint32_t row[33] = {0};
    for (int k = 0; k <= sides && k < 33; k++) {
      double t = 2 * M_PI * k / sides, n[3] = {cos(up) * cos(t), cos(up) * sin(t), sin(up)};
      double p[3] = {c[0] + r * n[0], c[1] + r * n[1], c[2] + tall * r * n[2]};
      row[k] = dj__mesh_vertex(m, p, n, (double)k / sides, (double)j / rings);
      if (!j || !k) continue;
      dj__mesh_triangle(m, before[k - 1], before[k], row[k]);
      dj__mesh_triangle(m, before[k - 1], row[k], row[k - 1]);
    }
    memcpy(before, row, sizeof row);
  }
}

void dj__mesh_append(dj__mesh *m, const dj__mesh *other) {
  if (other->failed || m->failed ||
      !grow((void **)&m->v, &m->cap_v, m->n_v + other->n_v, sizeof *m->v) ||
      !grow((void **)&m->i, &m->cap_i, m->n_i + other->n_i, sizeof *m->i)) {
    m->failed = true;
    return;
  }
  if (other->n_v) memcpy(m->v + m->n_v, other->v, (size_t)other->n_v * sizeof *m->v);
  for (int k = 0; k < other->n_i; k++) m->i[m->n_i + k] = other->i[k] + (uint32_t)m->n_v;
  m->n_v += other->n_v;
  m->n_i += other->n_i;
}

// ---- chunks ------------------------------------------------------------------------------------

dj__mesh *dj__world_list(dj__world_mesh *w, dj__list l, double x, double y) {
  int i = (int)floor((x - w->x0) / DJ__CHUNK), j = (int)floor((y - w->y0) / DJ__CHUNK);
  i = i < 0 ? 0 : i >= w->nx ? w->nx - 1 : i;
  j = j < 0 ? 0 : j >= w->ny ? w->ny - 1 : j;
  dj__mesh *m = &w->chunk[j * w->nx + i].list[l];
  memcpy(m->origin, w->origin, sizeof m->origin);
  return m;
}

void dj__world_add_lens(dj__world_mesh *w, const dj__lens *l) {
  if (!grow((void **)&w->lens, &w->cap_lens, w->n_lens + 1, sizeof *w->lens))
    w->failed = true;
  else
    w->lens[w->n_lens++] = *l;
}

void dj__world_add_lamp(dj__world_mesh *w, const dj__lamp *l) {
  if (!grow((void **)&w->lamp, &w->cap_lamp, w->n_lamp + 1, sizeof *w->lamp))
    w->failed = true;
  else
    w->lamp[w->n_lamp++] = *l;
}

/* Light of street lamps on everything near them: 100 % right below. */
static void light_lamps(dj__world_mesh *w) {
  for (int k = 0; k < w->n_lamp; k++) {
    const dj__lamp *l = &w->lamp[k];
    double reach = 22;
    int i0 = (int)floor((l->x - reach - w->x0) / DJ__CHUNK),
        i1 = (int)floor((l->x + reach - w->x0) / DJ__CHUNK),
        j0 = (int)floor((l->y - reach - w->y0) / DJ__CHUNK),
        j1 = (int)floor((l->y + reach - w->y0) / DJ__CHUNK);
    for (int j = j0; j <= j1; j++)
      for (int i = i0; i <= i1; i++) {
        if (i < 0 || j < 0 || i >= w->nx || j >= w->ny) continue;
        for (int t = 0; t < DJ__N_LISTS; t++) {
          dj__mesh *m = &w->chunk[j * w->nx + i].list[t];
          for (int v = 0; v < m->n_v; v++) {
            dj__vertex *o = &m->v[v];
            double d[3] = {l->x - w->origin[0] - o->p[0], l->y - w->origin[1] - o->p[1],
                           l->z - w->origin[2] - o->p[2]};
            double d2 = d[0] * d[0] + d[1] * d[1] + d[2] * d[2], r = sqrt(d2);
            if (r > reach || d[2] < -1) continue;
            double cosine = (d[0] * o->n[0] + d[1] * o->n[1] + d[2] * o->n[2]) / (127 * r);
            double h2 = 49; // m^2: brightness is 1 at 7 m
            double e = fmax(0.15, cosine) * h2 / fmax(d2, 16) * (1 - d2 / (reach * reach));
            o->lamp = (uint8_t)fmin(255, o->lamp + 200 * e);
          }
        }
      }
  }
}

static dj_status make_chunks(dj__world_mesh *w) {
  const dj__map *m = w->map;
  double margin = 250;
  for (int k = 0; k < m->n_road && margin > 60; k++)
    if (m->road[k].zone == DJ__ZONE_TRACK) margin = 6;
  w->x0 = m->x0 - margin;
  w->y0 = m->y0 - margin;
  w->nx = (int)ceil((m->x1 + margin - w->x0) / DJ__CHUNK);
  w->ny = (int)ceil((m->y1 + margin - w->y0) / DJ__CHUNK);
  w->nx = w->nx < 1 ? 1 : w->nx;
  w->ny = w->ny < 1 ? 1 : w->ny;
  w->origin[0] = 0.5 * (m->x0 + m->x1);
  w->origin[1] = 0.5 * (m->y0 + m->y1);
  w->origin[2] = 0;
  if ((int64_t)w->nx * w->ny > 1 << 18)
    return dj_error(DJ_E_LIMIT,
                    "cameras: the map is %.0f x %.0f m; up to some 25 x 25 km can be drawn",
                    m->x1 - m->x0, m->y1 - m->y0);
  w->chunk = calloc((size_t)w->nx * (size_t)w->ny, sizeof *w->chunk);
  if (!w->chunk) return dj_error(DJ_E_NOMEM, "cameras: no memory for %d x %d chunks", w->nx, w->ny);
  return DJ_OK;
}

dj_status dj__world_mesh_make(const dj__map *m, uint64_t seed, dj__world_mesh *w) {
  *w = (dj__world_mesh){.map = m, .seed = seed};
  DJ_TRY(make_chunks(w));
  bool track = false;
  for (int k = 0; k < m->n_road; k++) track |= m->road[k].zone == DJ__ZONE_TRACK;
  dj__mesh_roads(w);
  if (track) {
    dj__mesh_hall(w);
  } else {
    dj__mesh_terrain(w);
    dj__mesh_street(w);
    dj__mesh_buildings(w);
  }
  light_lamps(w);
  bool failed = w->failed;
  for (int k = 0; k < w->nx * w->ny; k++)
    for (int l = 0; l < DJ__N_LISTS; l++) failed |= w->chunk[k].list[l].failed;
  if (!failed) return DJ_OK;
  dj__world_mesh_free(w);
  return dj_error(DJ_E_NOMEM, "cameras: no memory for the scenery of '%s'", m->name);
}

void dj__world_mesh_free(dj__world_mesh *w) {
  for (int k = 0; w->chunk && k < w->nx * w->ny; k++)
    for (int l = 0; l < DJ__N_LISTS; l++) dj__mesh_free(&w->chunk[k].list[l]);
  free(w->chunk);
  free(w->lens);
  free(w->lamp);
  *w = (dj__world_mesh){0};
}
