/*
 * Buildings, gardens, trees, and the hall of indoor tracks: a function of map and seed. Places are
 * looked for along the roads; a raster of what is taken (roads, pavements, houses, trees) keeps
 * everything apart.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "world/map_build.h"
#include "world/mesh.h"

enum { FREE, ROAD, HOUSE, PLANT };
typedef struct site {
  dj__world_mesh *w;
  uint8_t *taken; /* (ny, nx) cells */
  int nx, ny;
  double x0, y0, cell;
  dj__rng rng;
} site;

// ---- what is taken -----------------------------------------------------------------------------

static uint8_t *cell_at(site *t, double x, double y) {
  int i = (int)((x - t->x0) / t->cell), j = (int)((y - t->y0) / t->cell);
  if (i < 0 || j < 0 || i >= t->nx || j >= t->ny) return NULL;
  return &t->taken[(size_t)j * (size_t)t->nx + (size_t)i];
}

static void take_disc(site *t, double x, double y, double r, uint8_t what) {
  int n = (int)ceil(r / t->cell);
  for (int j = -n; j <= n; j++)
    for (int i = -n; i <= n; i++) {
      double dx = i * t->cell, dy = j * t->cell;
      uint8_t *c = dx * dx + dy * dy <= r * r ? cell_at(t, x + dx, y + dy) : NULL;
      if (c) *c = what;
    }
}

/* A rectangle with its middle at (x, y); true if nothing is there (take: then it is taken). */
static bool rectangle(site *t, double x, double y, double length, double width, double yaw,
                      uint8_t take) {
  double c = cos(yaw), s = sin(yaw), step = t->cell * 0.7;
  int n = (int)ceil(length / step), m = (int)ceil(width / step);
  for (int j = 0; j <= m; j++)
    for (int i = 0; i <= n; i++) {
      double a = (i / (double)n - 0.5) * length, b = (j / (double)m - 0.5) * width;
      uint8_t *q = cell_at(t, x + c * a - s * b, y + s * a + c * b);
      if (!q) return false;
      if (take)
        *q = take;
      else if (*q)
        return false;
    }
  return true;
}

static bool make_site(site *t, dj__world_mesh *w) {
  const dj__map *m = w->map;
  *t = (site){.w = w, .x0 = w->x0, .y0 = w->y0, .cell = 1, .rng = {w->seed, 503, 0}};
  double wide = w->nx * DJ__CHUNK, high = w->ny * DJ__CHUNK;
  while (wide * high / (t->cell * t->cell) > 3e7) t->cell *= 1.5;
  t->nx = (int)(wide / t->cell);
  t->ny = (int)(high / t->cell);
  t->taken = calloc((size_t)t->nx * (size_t)t->ny, 1);
  if (!t->taken) return false;
  for (int k = 0; k < m->n_point; k++)
    take_disc(t, m->point[k].x, m->point[k].y, 0.5 * m->point[k].width, ROAD);
  return true;
}

static double uniform(site *t, double lo, double hi) {
  return lo + (hi - lo) * (double)dj__rng_uniform(&t->rng, 0, 1);
}
static uint32_t pick(site *t, const uint32_t *from, int n) {
  return from[dj__rng_below(&t->rng, (uint64_t)n)];
}

// ---- walls and roofs ---------------------------------------------------------------------------

typedef struct block { /* a building's box in its own frame: x along the front, y backwards */
  double x, y, yaw, length, depth, base, ground;
} block;

static void to_world(const block *b, double u, double v, double z, double p[3]) {
  double c = cos(b->yaw), s = sin(b->yaw);
  p[0] = b->x + c * u - s * v;
  p[1] = b->y + s * u + c * v;
  p[2] = z;
}

static void wall_quad(dj__mesh *m, const block *b, const double uv2[2][2], double z0, double z1,
                      const double tex[4], int dark) {
  double p[4][3], n[3];
  for (int k = 0; k < 4; k++) {
    const double *q = uv2[k == 1 || k == 2];
    to_world(b, q[0], q[1], k < 2 ? z0 : z1, p[k]);
  }
  double dx = p[1][0] - p[0][0], dy = p[1][1] - p[0][1], l = hypot(dx, dy) + 1e-9;
  n[0] = dy / l;
  n[1] = -dx / l;
  n[2] = 0;
  uint32_t i[4];
  for (int k = 0; k < 4; k++) {
    m->look.c[3] = (uint8_t)(k < 2 ? dark : 255);
    i[k] = dj__mesh_vertex(m, p[k], n, k == 1 || k == 2 ? tex[2] : tex[0], k < 2 ? tex[1] : tex[3]);
  }
  dj__mesh_triangle(m, i[0], i[1], i[2]);
  dj__mesh_triangle(m, i[0], i[2], i[3]);
}

/* The four walls between two heights. `u`: textures' widths a metre; v0, v1 of the texture. */
static void walls(dj__mesh *m, const block *b, double z0, double z1, double unit, double v0,
                  double v1, int shift, int dark) {
  double x = 0.5 * b->length, y = 0.5 * b->depth;
  const double corner[5][2] = {{-x, -y}, {x, -y}, {x, y}, {-x, y}, {-x, -y}};
  for (int k = 0; k < 4; k++) {
    double wide = k % 2 ? b->depth : b->length;
    double n = fmax(1, rint(wide / unit));
    double u0 = 0.25 * (shift + 3 * k), tex[4] = {u0, v0, u0 + 0.25 * n, v1};
    const double ends[2][2] = {{corner[k][0], corner[k][1]}, {corner[k + 1][0], corner[k + 1][1]}};
    wall_quad(m, b, ends, z0, z1, tex, dark);
  }
}

static void quad4(dj__mesh *m, const block *b, const double c[4][3], double tile) {
  double p[4][3], uv[4][2];
  for (int k = 0; k < 4; k++) {
    to_world(b, c[k][0], c[k][1], c[k][2], p[k]);
    uv[k][0] = c[k][0] / tile;
    uv[k][1] = (c[k][1] + c[k][2]) / tile;
  }
  dj__mesh_quad(m, p, (const double(*)[2])uv);
}

static void flat_roof(dj__world_mesh *w, const block *b, double z, uint32_t tint) {
  dj__mesh *m = dj__world_list(w, DJ__LIST_SOLID, b->x, b->y);
  double x = 0.5 * b->length, y = 0.5 * b->depth, h = 0.6;
  dj__look(m, DJ__TEX_GRAVEL, DJ__CLASS_BUILDING, 0xffffff);
  const double top[4][3] = {{-x, -y, z}, {x, -y, z}, {x, y, z}, {-x, y, z}};
  quad4(m, b, top, 5);
  m = dj__world_list(w, DJ__LIST_DETAIL, b->x, b->y);
  dj__look(m, DJ__TEX_WALL, DJ__CLASS_BUILDING, tint);
  walls(m, b, z, z + h, 3, 0, 0.06, 0, 255);
  block in = *b; // the parapet's inner side
  in.length -= 0.5;
  in.depth -= 0.5;
  double ix = 0.5 * in.length, iy = 0.5 * in.depth;
  const double rim[5][2] = {{-1, -1}, {1, -1}, {1, 1}, {-1, 1}, {-1, -1}};
  for (int k = 0; k < 4; k++) {
    const double *a = rim[k], *c = rim[k + 1];
    const double lid[4][3] = {{a[0] * x, a[1] * y, z + h},
                              {c[0] * x, c[1] * y, z + h},
                              {c[0] * ix, c[1] * iy, z + h},
                              {a[0] * ix, a[1] * iy, z + h}};
    quad4(m, b, lid, 4);
    const double ends[2][2] = {{c[0] * ix, c[1] * iy}, {a[0] * ix, a[1] * iy}};
    const double tex[4] = {0, 0, 1, 0.06};
    wall_quad(m, &in, ends, z, z + h, tex, 200);
  }
}

/* A gable roof, its ridge along the front. */
static void gable(dj__world_mesh *w, const block *b, double z, double rise, double over,
                  uint32_t tiles, uint32_t wall) {
  dj__mesh *m = dj__world_list(w, DJ__LIST_SOLID, b->x, b->y),
           *d = dj__world_list(w, DJ__LIST_DETAIL, b->x, b->y);
  double x = 0.5 * b->length, y = 0.5 * b->depth, ox = x + over, oy = y + over;
  double low = z - rise * over / y;
  dj__look(m, DJ__TEX_TILES, DJ__CLASS_BUILDING, tiles);
  const double front[4][3] = {
      {-ox, -oy, low}, {ox, -oy, low}, {ox, 0, z + rise}, {-ox, 0, z + rise}};
  const double back[4][3] = {{ox, oy, low}, {-ox, oy, low}, {-ox, 0, z + rise}, {ox, 0, z + rise}};
  quad4(m, b, front, 3.2);
  quad4(m, b, back, 3.2);
  dj__look(d, DJ__TEX_WALL, DJ__CLASS_BUILDING, wall); // undersides of the eaves
  d->look.c[3] = 90;
  const double f2[4][3] = {{ox, -oy, low - 0.05}, {-ox, -oy, low - 0.05}, {-x, -y, z}, {x, -y, z}};
  const double b2[4][3] = {{-ox, oy, low - 0.05}, {ox, oy, low - 0.05}, {x, y, z}, {-x, y, z}};
  quad4(d, b, f2, 3);
  quad4(d, b, b2, 3);
  dj__look(m, DJ__TEX_WALL, DJ__CLASS_BUILDING, wall);
  for (int side = -1; side <= 1; side += 2) {
    double p[3][3];
    to_world(b, side * x, -y * side, z, p[0]);
    to_world(b, side * x, y * side, z, p[1]);
    to_world(b, side * x, 0, z + rise, p[2]);
    const double uv[3][2] = {{0, 0}, {1, 0}, {0.5, 0.5}};
    dj__mesh_tri(m, p, uv);
  }
}

static double lowest(const site *t, const block *b) {
  double z = 1e9;
  for (int k = 0; k < 4; k++) {
    double p[3];
    to_world(b, (k & 1 ? 0.5 : -0.5) * b->length, (k & 2 ? 0.5 : -0.5) * b->depth, 0, p);
    z = fmin(z, dj__map_height(t->w->map, p[0], p[1]));
  }
  return z;
}

/* ---- kinds of buildings ---- */

static void town_block(site *t, block *b, bool shops) {
  static const uint32_t bricks[6] = {0xb87860, 0xa86a58, 0xc89070, 0xd0b090, 0x9c6c60, 0xc4a088};
  static const uint32_t plasters[8] = {0xe8dcc0, 0xe0d0b4, 0xd8c8c0, 0xd0d4cc,
                                       0xe4c8a4, 0xc8ccd4, 0xf0e8d8, 0xd8b8a0};
  static const uint32_t offices[4] = {0xffffff, 0xd8e4e8, 0xe8e0d0, 0xc8d4dc};
  static const uint32_t roofs[4] = {0x8e5040, 0x70483c, 0x5c5a5a, 0x9a5c44};
  double storey = 3.1;
  int floors = 3 + (int)dj__rng_below(&t->rng, 4), kind = (int)dj__rng_below(&t->rng, 10);
  dj__tex tex = kind < 4 ? DJ__TEX_BRICK : kind < 8 ? DJ__TEX_PLASTER : DJ__TEX_OFFICE;
  if (tex == DJ__TEX_OFFICE) floors += 2 + (int)dj__rng_below(&t->rng, 5);
  uint32_t tint = tex == DJ__TEX_BRICK     ? pick(t, bricks, 6)
                  : tex == DJ__TEX_PLASTER ? pick(t, plasters, 8)
                                           : pick(t, offices, 4);
  dj__mesh *m = dj__world_list(t->w, DJ__LIST_SOLID, b->x, b->y);
  double z = b->ground, first = shops ? 4.2 : 0;
  dj__mesh *low = dj__world_list(t->w, DJ__LIST_DETAIL, b->x, b->y);
  dj__look(low, DJ__TEX_WALL, DJ__CLASS_BUILDING, tint);
  walls(low, b, b->base, z + (shops ? 0 : 0.6), 3, 0, 0.1, 0, 130);
  if (shops) {
    dj__look(m, DJ__TEX_SHOP, DJ__CLASS_BUILDING, 0xffffff);
    m->look.glow = 230;
    walls(m, b, z, z + first, 4.6, 0, 0.92, (int)dj__rng_below(&t->rng, 4), 150);
  } else {
    first = 0.6;
  }
  double top = z + first + floors * storey;
  dj__look(m, tex, DJ__CLASS_BUILDING, tint);
  m->look.glow = 200;
  int shift = (int)dj__rng_below(&t->rng, 4), row = (int)dj__rng_below(&t->rng, 4);
  walls(m, b, z + first, top, tex == DJ__TEX_OFFICE ? 1.6 * 2 : 3.0, 0.25 * row,
        0.25 * (row + floors), shift, shops ? 235 : 150);
  bool pitched = tex != DJ__TEX_OFFICE && floors < 6 && dj__rng_below(&t->rng, 3) > 0;
  if (pitched) {
    gable(t->w, b, top, uniform(t, 2.2, 3.6), 0.35, pick(t, roofs, 4), tint);
    return;
  }
  flat_roof(t->w, b, top, tint);
  dj__mesh *d = dj__world_list(t->w, DJ__LIST_DETAIL, b->x, b->y);
  dj__look(d, DJ__TEX_METAL, DJ__CLASS_BUILDING, 0xc0c0c0);
  double p[3];
  to_world(b, uniform(t, -0.25, 0.25) * b->length, uniform(t, -0.2, 0.2) * b->depth, 0, p);
  dj__mesh_box(d, p[0], p[1], top, top + 1.9, 3, 2.4, b->yaw, 2, false);
}

static void house(site *t, block *b) {
  static const uint32_t wall_tints[8] = {0xf4ecd8, 0xe8d8c0, 0xd8c0a8, 0xf0f0ec,
                                         0xc89878, 0xe4e0c8, 0xd0d8d8, 0xb88468};
  static const uint32_t roofs[5] = {0xa04c38, 0x8a4434, 0x5a4c48, 0x6a6664, 0xb06048};
  dj__mesh *m = dj__world_list(t->w, DJ__LIST_SOLID, b->x, b->y);
  uint32_t tint = pick(t, wall_tints, 8);
  int floors = 1 + (int)dj__rng_below(&t->rng, 2);
  double z = b->ground, top = z + 0.35 + 2.9 * floors;
  dj__mesh *low = dj__world_list(t->w, DJ__LIST_DETAIL, b->x, b->y);
  dj__look(low, DJ__TEX_WALL, DJ__CLASS_BUILDING, 0x9a948c);
  walls(low, b, b->base, z + 0.35, 3, 0, 0.1, 0, 130);
  dj__look(m, DJ__TEX_HOUSE, DJ__CLASS_BUILDING, tint);
  m->look.glow = 200;
  double row = 0.5 * (double)dj__rng_below(&t->rng, 2);
  walls(m, b, z + 0.35, top, 2.3, row, row + 0.5 * floors, (int)dj__rng_below(&t->rng, 4), 170);
  gable(t->w, b, top, uniform(t, 2.4, 3.8), 0.5, pick(t, roofs, 5), tint);
  dj__mesh *d = dj__world_list(t->w, DJ__LIST_DETAIL, b->x, b->y);
  static const uint32_t doors[4] = {0x5a2a20, 0x274a38, 0x2c3c58, 0x6a5a40};
  double p[3];
  to_world(b, uniform(t, -0.3, 0.3) * b->length, -0.5 * b->depth - 0.03, 0, p);
  dj__look(d, DJ__TEX_WOOD, DJ__CLASS_BUILDING, pick(t, doors, 4));
  dj__mesh_box(d, p[0], p[1], z, z + 2.35, 1.1, 0.12, b->yaw, 1.5, false);
  dj__look(d, DJ__TEX_BRICK, DJ__CLASS_BUILDING, 0xb07058);
  d->look.tex = DJ__TEX_WALL;
  to_world(b, 0.28 * b->length, 0.1 * b->depth, 0, p);
  dj__mesh_box(d, p[0], p[1], top, top + 4.2, 0.7, 0.7, b->yaw, 2, false);
}

// ---- trees -------------------------------------------------------------------------------------

static void card(dj__mesh *m, double x, double y, double z0, double z1, double half, double yaw,
                 double tilt) {
  double c = cos(yaw), s = sin(yaw), out[3] = {-s, c, 0};
  const int side[4] = {-1, 1, 1, -1};
  uint32_t i[4];
  for (int k = 0; k < 4; k++) {
    double up = k < 2 ? 0 : 1, a = side[k] * half;
    double p[3] = {x + c * a, y + s * a, up > 0 ? z1 : z0};
    double n[3] = {0.30 * side[k] * c + tilt * out[0], 0.30 * side[k] * s + tilt * out[1],
                   0.35 + 0.55 * up};
    double l = sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]);
    for (int q = 0; q < 3; q++) n[q] /= l;
    m->look.c[3] = (uint8_t)(up > 0 ? 255 : 150);
    i[k] = dj__mesh_vertex(m, p, n, 0.5 + 0.49 * side[k], up > 0 ? 0.995 : 0.005);
  }
  dj__mesh_triangle(m, i[0], i[1], i[2]);
  dj__mesh_triangle(m, i[0], i[2], i[3]);
}

void dj__mesh_tree(dj__world_mesh *w, double x, double y, double z, int kind, double height,
                   dj__rng *rng) {
  static const uint32_t tints[6] = {0xffffff, 0xe0f0d0, 0xfff0c0, 0xd0e4c8, 0xf4f4d8, 0xe8dca8};
  uint32_t tint = tints[dj__rng_below(rng, 6)];
  double yaw = (double)dj__rng_uniform(rng, 0, 3.14f);
  dj__tex tex = kind == 0 ? DJ__TEX_LEAVES : kind == 1 ? DJ__TEX_CONIFER : DJ__TEX_BUSH;
  double low = kind == 0 ? 0.24 * height : kind == 1 ? 0.06 * height : -0.05;
  double half = kind == 0 ? 0.40 * height : kind == 1 ? 0.24 * height : 0.75 * height;
  if (kind != 2) {
    dj__mesh *d = dj__world_list(w, DJ__LIST_DETAIL, x, y);
    dj__look(d, DJ__TEX_BARK, DJ__CLASS_VEGETATION, 0xffffff);
    dj__mesh_pole(d, x, y, z - 0.3, z + (kind == 0 ? 0.55 : 0.3) * height, 0.028 * height,
                  0.012 * height, 5);
  }
  for (int far = 0; far < 2; far++) {
    dj__mesh *m = dj__world_list(w, far ? DJ__LIST_LEAF_FAR : DJ__LIST_LEAF, x, y);
    dj__look(m, tex, DJ__CLASS_VEGETATION, tint);
    int n = far ? 2 : 3;
    for (int k = 0; k < n; k++) card(m, x, y, z + low, z + height, half, yaw + M_PI * k / n, 0);
    if (far || kind != 0) continue;
    // a level card through the crown
    double c = cos(yaw), s = sin(yaw), h = 0.85 * half, up = z + 0.62 * height;
    double p[4][3] = {{x - h * c, y - h * s, up},
                      {x + h * s, y - h * c, up},
                      {x + h * c, y + h * s, up},
                      {x - h * s, y + h * c, up}};
    const double uv[4][2] = {{0, 0}, {1, 0}, {1, 1}, {0, 1}};
    m->look.c[3] = 190;
    dj__mesh_quad(m, p, uv);
  }
}

static bool plant(site *t, double x, double y, int kind, double height, double room) {
  uint8_t *c = cell_at(t, x, y);
  if (!c || *c || !rectangle(t, x, y, room, room, 0, FREE)) return false;
  take_disc(t, x, y, 0.5 * room, PLANT);
  dj__mesh_tree(t->w, x, y, dj__map_height(t->w->map, x, y), kind, height, &t->rng);
  return true;
}

// ---- along a road ------------------------------------------------------------------------------

static double outermost(const dj__map *m, int road, double s, int left) {
  int section = dj__road_section(m, road, s);
  double most = 0;
  for (int i = 0; i < m->section[section].n_lane; i++) {
    int lane = m->section[section].lane0 + i;
    if (m->road_lane[lane].id == 0 || (m->road_lane[lane].id > 0) != left) continue;
    double inner, outer;
    dj__lane_edges(m, road, section, lane, s, &inner, &outer);
    most = fmax(most, fabs(outer));
  }
  return most;
}

/* A frame at the road's side: x along the front (so that y points away from the road). */
static void lot(const dj__map *m, int road, double s, int left, double away, block *b) {
  dj__pose p;
  dj__road_at(m, road, s, &p);
  double t = (outermost(m, road, s, left) + away) * (left ? 1 : -1);
  b->x = p.x - t * sin(p.hdg);
  b->y = p.y + t * cos(p.hdg);
  b->yaw = p.hdg + (left ? 0 : M_PI);
}

static void fence(site *t, const block *b, double from, double to, double at_y) {
  double p[3], q[3], z;
  to_world(b, from, at_y, 0, p);
  to_world(b, to, at_y, 0, q);
  double mx = 0.5 * (p[0] + q[0]), my = 0.5 * (p[1] + q[1]);
  uint8_t *c = cell_at(t, mx, my);
  if (!c || *c == ROAD) return;
  z = dj__map_height(t->w->map, mx, my);
  dj__mesh *m = dj__world_list(t->w, DJ__LIST_DETAIL, mx, my);
  dj__look(m, DJ__TEX_WOOD, DJ__CLASS_BARRIER, dj__rng_below(&t->rng, 2) ? 0xffffff : 0xe8d0b0);
  double z0 = dj__map_height(t->w->map, p[0], p[1]), z1 = dj__map_height(t->w->map, q[0], q[1]);
  (void)z;
  for (int back = 0; back < 2; back++) {
    const double *a = back ? q : p, *e = back ? p : q;
    double za = back ? z1 : z0, ze = back ? z0 : z1, l = (to - from) / 2;
    const double r[4][3] = {{a[0], a[1], za - 0.1},
                            {e[0], e[1], ze - 0.1},
                            {e[0], e[1], ze + 0.95},
                            {a[0], a[1], za + 0.95}};
    const double uv[4][2] = {{0, 0}, {l, 0}, {l, 0.5}, {0, 0.5}};
    dj__mesh_quad(m, r, uv);
  }
}

static void garden(site *t, const block *b, double front, double wide) {
  bool hedge = dj__rng_below(&t->rng, 3) == 0;
  double y = -0.5 * b->depth - front + 0.7;
  if (!hedge) {
    fence(t, b, -0.5 * wide, -0.8, y);
    fence(t, b, 0.8, 0.5 * wide, y);
  } else {
    for (int k = 0; k < (int)(wide / 1.5); k++) {
      double p[3], x = -0.5 * wide + 1.5 * k;
      if (fabs(x) < 1.2) continue;
      to_world(b, x, y, 0, p);
      (void)plant(t, p[0], p[1], 2, 1.2, 0.6);
    }
  }
  for (int k = 0; k < 3; k++) {
    double p[3];
    to_world(b, uniform(t, -0.5, 0.5) * wide, y + uniform(t, 1.2, fmax(1.3, front - 2)), 0, p);
    int kind = (int)dj__rng_below(&t->rng, 3);
    (void)plant(t, p[0], p[1], kind, kind == 2 ? uniform(t, 0.8, 1.5) : uniform(t, 4, 7.5),
                kind == 2 ? 1.2 : 2.4);
  }
  double p[3];
  to_world(b, uniform(t, -0.4, 0.4) * wide, 0.5 * b->depth + uniform(t, 3, 7), 0, p);
  (void)plant(t, p[0], p[1], 0, uniform(t, 7, 12), 3);
}

static bool put_building(site *t, int road, double s, int left, block *b, double front,
                         double room) {
  lot(t->w->map, road, s, left, front + 0.5 * b->depth, b);
  if (!rectangle(t, b->x, b->y, b->length + room, b->depth + room, b->yaw, FREE)) return false;
  (void)rectangle(t, b->x, b->y, b->length - 0.8, b->depth - 0.8, b->yaw, HOUSE);
  double f[3];
  to_world(b, 0, -0.5 * b->depth, 0, f);
  b->ground = dj__map_height(t->w->map, f[0], f[1]);
  b->base = fmin(lowest(t, b), b->ground) - 0.6;
  return true;
}

/* Paving between a pavement and the houses' fronts. */
static void apron(site *t, const block *b, double front) {
  dj__world_mesh *w = t->w;
  double y1 = -0.5 * b->depth + 0.2, y0 = -0.5 * b->depth - front - 0.1, x = 0.5 * b->length + 0.4;
  const double c[4][2] = {{-x, y0}, {x, y0}, {x, y1}, {-x, y1}};
  double p[4][3], uv[4][2];
  for (int k = 0; k < 4; k++) {
    to_world(b, c[k][0], c[k][1], 0, p[k]);
    double q[3];
    to_world(b, c[k][0], y0 - 0.3, 0, q); // on the pavement
    p[k][2] = dj__map_height(w->map, q[0], q[1]) - 0.01;
    uv[k][0] = c[k][0] / 2.4;
    uv[k][1] = c[k][1] / 2.4;
  }
  for (int far = 0; far < 2; far++) {
    dj__mesh *m = dj__world_list(w, far ? DJ__LIST_GROUND_FAR : DJ__LIST_GROUND, b->x, b->y);
    dj__look(m, DJ__TEX_PAVING, DJ__CLASS_SIDEWALK, 0xe8e6e2);
    m->look.n[3] = -60;
    m->look.c[3] = 215;
    dj__mesh_quad(m, p, (const double(*)[2])uv);
  }
}

static void along_town(site *t, int road, int left) {
  const dj__road *r = &t->w->map->road[road];
  bool shops = dj__rng_below(&t->rng, 2);
  for (double s = uniform(t, 2, 8); s < r->length - 4;) {
    block b = {.length = 3 * floor(uniform(t, 4, 9)), .depth = uniform(t, 11, 15)};
    bool put = false;
    while (b.length >= 9) {
      put = put_building(t, road, s + 0.5 * b.length, left, &b, 1.6, 0.3);
      if (put) break;
      b.length -= 3;
    }
    if (!put) {
      s += 5;
      continue;
    }
    apron(t, &b, 1.6);
    town_block(t, &b, shops || dj__rng_below(&t->rng, 5) == 0);
    s += b.length + (dj__rng_below(&t->rng, 4) ? 0.05 : uniform(t, 3, 9));
  }
}

static void along_suburb(site *t, int road, int left) {
  const dj__road *r = &t->w->map->road[road];
  for (double s = uniform(t, 6, 14); s < r->length - 6;) {
    block b = {.length = uniform(t, 9, 13), .depth = uniform(t, 8, 10)};
    double front = uniform(t, 5, 9), wide = b.length + uniform(t, 5, 9);
    if (!put_building(t, road, s + 0.5 * wide, left, &b, front, 1.5)) {
      s += 6;
      continue;
    }
    house(t, &b);
    garden(t, &b, front, wide);
    s += wide;
  }
}

static void along_country(site *t, int road, int left) {
  const dj__road *r = &t->w->map->road[road];
  bool motorway = r->zone == DJ__ZONE_MOTORWAY, avenue = dj__rng_below(&t->rng, 3) == 0;
  for (double s = uniform(t, 5, 40); s < r->length - 5;) {
    block b = {.length = uniform(t, 10, 18), .depth = uniform(t, 9, 12)};
    if (!motorway && dj__rng_below(&t->rng, 14) == 0 &&
        put_building(t, road, s, left, &b, uniform(t, 10, 30), 3)) {
      house(t, &b);
      s += 40;
      continue;
    }
    double away = motorway ? uniform(t, 7, 25) : avenue ? 3.5 : uniform(t, 3, 18);
    lot(t->w->map, road, s, left, away, &b);
    int kind = (int)dj__rng_below(&t->rng, avenue ? 1 : 3);
    (void)plant(t, b.x, b.y, kind, kind == 2 ? uniform(t, 1, 2.4) : uniform(t, 6, 13),
                kind == 2 ? 1.4 : 3);
    s += avenue ? 14 : uniform(t, 6, 26);
  }
}

static void woods(site *t) {
  dj__world_mesh *w = t->w;
  double gap = 13;
  int nx = (int)(w->nx * DJ__CHUNK / gap), ny = (int)(w->ny * DJ__CHUNK / gap);
  for (int j = 0; j < ny; j++)
    for (int i = 0; i < nx; i++) {
      dj__u32x4 x = dj__philox(w->seed, (uint64_t)j << 32 | (uint64_t)i, 504);
      double px = w->x0 + (i + (double)dj__u01(x.v[0])) * gap,
             py = w->y0 + (j + (double)dj__u01(x.v[1])) * gap;
      double f = sin(px / 71 + (double)(w->seed % 17)) + sin(py / 63 + (double)(w->seed % 13)) +
                 0.8 * sin((px + py) / 37);
      bool wood = f > 1.05;
      if (!wood && x.v[2] % 14) continue;
      double s, q;
      int lane = dj__map_nearest(w->map, px, py, NAN, 1u << DJ__LANE_DRIVING, 12, &s, &q);
      if (lane >= 0) continue;
      int kind = x.v[3] % 8 == 0 ? 2 : f > 1.5 ? 1 : 0;
      double tall = kind == 2 ? 1.5 : 7 + 8 * (double)dj__u01(x.v[3]);
      (void)plant(t, px, py, kind, tall, kind == 2 ? 1.5 : 3);
    }
}

void dj__mesh_buildings(dj__world_mesh *w) {
  site t;
  if (!make_site(&t, w)) {
    w->failed = true;
    return;
  }
  const dj__map *m = w->map;
  for (int road = 0; road < m->n_road; road++) {
    if (m->road[road].junction >= 0) continue;
    for (int left = 0; left < 2; left++) {
      t.rng = (dj__rng){w->seed, 505 + 2 * (uint64_t)road + (uint64_t)left, 0};
      if (m->road[road].zone == DJ__ZONE_TOWN)
        along_town(&t, road, left);
      else if (m->road[road].zone == DJ__ZONE_SUBURB)
        along_suburb(&t, road, left);
      else
        along_country(&t, road, left);
    }
  }
  woods(&t);
  free(t.taken);
}

// ---- the hall ----------------------------------------------------------------------------------

static void hall_box(dj__world_mesh *w, double x, double y, double size, double tall, double yaw,
                     dj__tex tex, uint32_t rgb) {
  dj__mesh *m = dj__world_list(w, DJ__LIST_SOLID, x, y);
  dj__look(m, tex, DJ__CLASS_BARRIER, rgb);
  dj__mesh_box(m, x, y, 0, tall, size, size * 0.8, yaw, 1, false);
}

void dj__mesh_hall(dj__world_mesh *w) {
  const dj__map *m = w->map;
  double x0 = m->x0 - 2.2, x1 = m->x1 + 2.2, y0 = m->y0 - 2.2, y1 = m->y1 + 2.2, tall = 3.2;
  dj__rng rng = {w->seed, 506, 0};
  dj__mesh *g = dj__world_list(w, DJ__LIST_TERRAIN, m->x0, m->y0);
  dj__look(g, DJ__TEX_HALL_FLOOR, DJ__CLASS_TERRAIN, 0xe8e4dc);
  g->look.n[3] = 24;
  double z = m->n_point ? m->point[0].z - 0.012 : 0;
  int n = (int)ceil((x1 - x0) / 1.5), k = (int)ceil((y1 - y0) / 1.5);
  for (int j = 0; j < k; j++)
    for (int i = 0; i < n; i++) {
      double a = x0 + (x1 - x0) * i / n, b = x0 + (x1 - x0) * (i + 1) / n;
      double c = y0 + (y1 - y0) * j / k, d = y0 + (y1 - y0) * (j + 1) / k;
      const double p[4][3] = {{a, c, z}, {b, c, z}, {b, d, z}, {a, d, z}};
      const double uv[4][2] = {{a / 3, c / 3}, {b / 3, c / 3}, {b / 3, d / 3}, {a / 3, d / 3}};
      dj__mesh_quad(g, p, uv);
    }
  // the far list draws the same floor: a hall is never far
  dj__mesh *f = dj__world_list(w, DJ__LIST_TERRAIN_FAR, m->x0, m->y0);
  dj__mesh_append(f, g);
  dj__mesh *s = dj__world_list(w, DJ__LIST_SOLID, m->x0, m->y0);
  const double c[5][2] = {{x0, y0}, {x0, y1}, {x1, y1}, {x1, y0}, {x0, y0}};
  for (int i = 0; i < 4; i++) {
    double l = hypot(c[i + 1][0] - c[i][0], c[i + 1][1] - c[i][1]) / tall;
    dj__look(s, DJ__TEX_HALL_WALL, DJ__CLASS_BUILDING, 0xffffff);
    const double p[4][3] = {{c[i][0], c[i][1], z},
                            {c[i + 1][0], c[i + 1][1], z},
                            {c[i + 1][0], c[i + 1][1], z + tall},
                            {c[i][0], c[i][1], z + tall}};
    const double uv[4][2] = {{0, 0}, {l, 0}, {l, 1}, {0, 1}};
    dj__mesh_quad(s, p, uv);
  }
  dj__look(s, DJ__TEX_WALL, DJ__CLASS_BUILDING, 0xd8d8d4);
  const double ceiling[4][3] = {
      {x0, y1, z + tall}, {x1, y1, z + tall}, {x1, y0, z + tall}, {x0, y0, z + tall}};
  const double cuv[4][2] = {{0, 0}, {4, 0}, {4, 4}, {0, 4}};
  dj__mesh_quad(s, ceiling, cuv);
  for (int i = 0; i < (int)((y1 - y0 - 2.2) / 2.4) + 1; i++) { // strip lights
    double y = y0 + 1.2 + 2.4 * i;
    dj__look(s, DJ__TEX_PLAIN, DJ__CLASS_BUILDING, 0xffffff);
    s->look.lamp = 255;
    const double p[4][3] = {{x0 + 1, y + 0.15, z + tall - 0.02},
                            {x1 - 1, y + 0.15, z + tall - 0.02},
                            {x1 - 1, y - 0.15, z + tall - 0.02},
                            {x0 + 1, y - 0.15, z + tall - 0.02}};
    dj__mesh_quad(s, p, cuv);
  }
  static const uint32_t colours[5] = {0xb48a5c, 0x9c7a50, 0x5a6a7c, 0x7c4a42, 0xa8a8a0};
  for (int i = 0; i < 14; i++) { // boxes along the walls
    double u = (double)dj__rng_uniform(&rng, 0.06f, 0.94f);
    int side = (int)dj__rng_below(&rng, 4);
    double x = side < 2 ? x0 + (x1 - x0) * u : side == 2 ? x0 + 0.5 : x1 - 0.5;
    double y = side >= 2 ? y0 + (y1 - y0) * u : side == 0 ? y0 + 0.5 : y1 - 0.5;
    hall_box(w, x, y, (double)dj__rng_uniform(&rng, 0.25f, 0.7f),
             z + (double)dj__rng_uniform(&rng, 0.25f, 0.8f), (double)dj__rng_uniform(&rng, 0, 3),
             i % 2 ? DJ__TEX_WOOD : DJ__TEX_WALL, colours[dj__rng_below(&rng, 5)]);
  }
}
