/*
 * Roads as they are built: asphalt, kerbs, pavements and medians in strips along the reference
 * line, junctions as fans over their outline, paint as strips of its own just above the asphalt,
 * and the ground round about.
 *
 * Reads the OpenDRIVE side of the map (surfaces, marks) and the lane graph (stop lines, arrows).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "world/map_build.h"
#include "world/mesh.h"

#define LIFT       0.012 /* m of paint above the road; the depth test adds a little */
#define TILE       7.0   /* m that the asphalt's texture covers */
#define KERB_STONE 0.16  /* m, width of the stone */

typedef struct station {     /* a place along a road */
  double s, x, y, z, dx, dy; /* dx, dy: to the left */
} station;
enum { MAX_STATIONS = 4096 };

static station station_at(const dj__map *m, int road, double s) {
  dj__pose p;
  dj__road_at(m, road, s, &p);
  return (station){s, p.x, p.y, dj__road_z(m, road, s, NULL), -sin(p.hdg), cos(p.hdg)};
}

/* Steps that keep chords within a few centimetres of the curve, in plan and in height. */
static int stations(const dj__map *m, int road, double s0, double s1, bool far, station *o) {
  int n = 0;
  double s = s0;
  while (n < MAX_STATIONS - 1) {
    o[n++] = station_at(m, road, s);
    if (s >= s1 - 1e-6) break;
    dj__pose p;
    double slope0, slope1;
    dj__road_at(m, road, s, &p);
    (void)dj__road_z(m, road, s, &slope0);
    (void)dj__road_z(m, road, fmin(s1, s + 4), &slope1); // over some metres
    double bend = fmax(fabs(p.curv), 2.0 * fabs(slope1 - slope0) / 4);
    bool small = m->road[road].zone == DJ__ZONE_TRACK;
    double sag = small ? 0.008 : far ? 2.5 : 0.24, most = small ? 0.5 : far ? 30 : 8;
    double least = small ? 0.05 : 1, step = sqrt(sag / fmax(bend, 1e-4));
    step = step < least ? least : step > most ? most : step;
    double left = s1 - s;
    s += left < 1.5 * step ? (left <= step ? left : 0.5 * left) : step;
    if (s > s1) s = s1;
  }
  return n;
}

static void at(const station *q, double t, double dz, double p[3]) {
  p[0] = q->x + q->dx * t;
  p[1] = q->y + q->dy * t;
  p[2] = q->z + dz;
}

typedef struct edge { /* of a strip at every station: offset and height */
  double t[MAX_STATIONS], dz;
} edge;

/* A strip between two edges; left is the one with larger t. Its normal points up, or sideways where
 * heights differ. */
static void strip(dj__world_mesh *w, dj__list list, const dj__vertex *look, const station *q, int n,
                  const edge *left, const edge *right, double u0, double u1, double tile) {
  for (int k = 0; k + 1 < n; k++) {
    if (left->t[k] - right->t[k] < 1e-3 && left->t[k + 1] - right->t[k + 1] < 1e-3 &&
        left->dz == right->dz)
      continue;
    dj__mesh *m = dj__world_list(w, list, q[k].x, q[k].y);
    m->look = *look;
    double p[4][3], uv[4][2];
    at(&q[k], right->t[k], right->dz, p[0]);
    at(&q[k + 1], right->t[k + 1], right->dz, p[1]);
    at(&q[k + 1], left->t[k + 1], left->dz, p[2]);
    at(&q[k], left->t[k], left->dz, p[3]);
    for (int i = 0; i < 4; i++) {
      const edge *e = i < 2 ? right : left;
      int j = i == 1 || i == 2 ? k + 1 : k;
      uv[i][0] = isnan(u0) ? e->t[j] / tile : i < 2 ? u0 : u1;
      uv[i][1] = q[j].s / tile;
    }
    dj__mesh_quad(m, p, uv);
  }
}

static dj__vertex look_of(dj__tex tex, dj__class cls, uint32_t rgb, int gloss) {
  dj__mesh m = {0};
  dj__look(&m, tex, cls, rgb);
  m.look.n[3] = (int8_t)gloss;
  return m.look;
}

typedef enum surface {
  SURFACE_NONE,
  SURFACE_ASPHALT,
  SURFACE_BIKE,
  SURFACE_WALK,
  SURFACE_GREEN
} surface;
static surface surface_of(dj__lane_type t) {
  switch (t) {
  case DJ__LANE_DRIVING:
  case DJ__LANE_SHOULDER:
  case DJ__LANE_PARKING:
  case DJ__LANE_RESTRICTED:
    return SURFACE_ASPHALT;
  case DJ__LANE_BIKING:
    return SURFACE_BIKE;
  case DJ__LANE_SIDEWALK:
  case DJ__LANE_CURB:
    return SURFACE_WALK;
  case DJ__LANE_MEDIAN:
  case DJ__LANE_BORDER:
    return SURFACE_GREEN;
  default:
    return SURFACE_NONE;
  }
}

static dj__vertex asphalt_look(const dj__world_mesh *w, int road) {
  const dj__road *r = &w->map->road[road];
  dj__u32x4 x = dj__philox(w->seed, (uint64_t)(r->junction >= 0 ? -1 - r->junction : road), 501);
  bool old = r->zone != DJ__ZONE_MOTORWAY && dj__u01(x.v[0]) < 0.55f;
  unsigned g = 205 + x.v[1] % 44;
  if (r->zone == DJ__ZONE_TRACK) return look_of(DJ__TEX_HALL_FLOOR, DJ__CLASS_ROAD, 0xffffff, 20);
  return look_of(old ? DJ__TEX_ASPHALT_OLD : DJ__TEX_ASPHALT, DJ__CLASS_ROAD,
                 g << 16 | g << 8 | (g - 2), -127);
}

typedef struct span { /* lanes of one surface side by side */
  surface kind;
  int lane0, lane1;           /* in map.road_lane: leftmost, rightmost */
  bool open_left, open_right; /* asphalt lies there */
} span;

/* Offsets of a lane's left (side 1) or right edge at all stations. */
static void lane_edge(const dj__map *m, int road, int section, int lane, int side, const station *q,
                      int n, edge *e) {
  bool left_of_line = m->road_lane[lane].id > 0;
  for (int k = 0; k < n; k++) {
    double inner, outer;
    dj__lane_edges(m, road, section, lane, q[k].s, &inner, &outer);
    e->t[k] = left_of_line == (side == 1) ? outer : inner;
  }
  e->dz = 0;
}

static void shifted(const edge *e, double by, double dz, int n, edge *o) {
  for (int k = 0; k < n; k++) o->t[k] = e->t[k] + by;
  o->dz = dz;
}

typedef struct work { /* one section being built */
  dj__world_mesh *w;
  int road, section, n;
  bool far; /* for the list of few triangles */
  station q[MAX_STATIONS];
  edge a, b, c, d;
} work;

static void raised(work *k, const span *s) {
  bool walk = s->kind == SURFACE_WALK;
  dj__vertex top = walk ? look_of(DJ__TEX_PAVING, DJ__CLASS_SIDEWALK, 0xf4f2ee, -60)
                        : look_of(DJ__TEX_GRASS, DJ__CLASS_TERRAIN, 0xffffff, 0);
  dj__vertex stone = look_of(DJ__TEX_KERB, DJ__CLASS_SIDEWALK, 0xffffff, -50);
  dj__vertex face = stone;
  face.c[3] = 170;
  const double z = DJ__KERB;
  edge *left = &k->a, *right = &k->b;
  left->dz = right->dz = z;
  if (k->far) {
    strip(k->w, DJ__LIST_GROUND_FAR, &top, k->q, k->n, left, right, NAN, NAN, walk ? 2.4 : 6);
    return;
  }
  if (s->open_left) {
    shifted(left, 0, -0.02, k->n, &k->c); // face
    strip(k->w, DJ__LIST_DETAIL, &face, k->q, k->n, &k->c, left, 0, 0.1, 1.6);
    shifted(left, -KERB_STONE, z, k->n, &k->c);
    strip(k->w, DJ__LIST_GROUND, &stone, k->q, k->n, left, &k->c, 0, 0.1, 1.6);
    memcpy(left->t, k->c.t, sizeof *left->t * (size_t)k->n);
  }
  if (s->open_right) {
    shifted(right, 0, -0.02, k->n, &k->d);
    strip(k->w, DJ__LIST_DETAIL, &face, k->q, k->n, right, &k->d, 0, 0.1, 1.6);
    shifted(right, KERB_STONE, z, k->n, &k->d);
    strip(k->w, DJ__LIST_GROUND, &stone, k->q, k->n, &k->d, right, 0, 0.1, 1.6);
    memcpy(right->t, k->d.t, sizeof *right->t * (size_t)k->n);
  }
  strip(k->w, DJ__LIST_GROUND, &top, k->q, k->n, left, right, NAN, NAN, walk ? 2.4 : 6);
}

static void build_span(work *k, const span *s, bool in_junction) {
  const dj__map *m = k->w->map;
  if (s->kind == SURFACE_NONE) return;
  bool outline = in_junction && m->junction[m->road[k->road].junction].n_outline > 2;
  bool under = outline && s->kind != SURFACE_WALK; // the junction's fan lies over it, mostly
  if (under && k->far) return;
  lane_edge(m, k->road, k->section, s->lane0, 1, k->q, k->n, &k->a);
  lane_edge(m, k->road, k->section, s->lane1, 0, k->q, k->n, &k->b);
  if (s->kind == SURFACE_WALK || s->kind == SURFACE_GREEN) {
    raised(k, s);
    return;
  }
  k->a.dz = k->b.dz = under ? -0.006 : 0;
  dj__vertex look = asphalt_look(k->w, k->road);
  if (s->kind == SURFACE_BIKE) look = look_of(DJ__TEX_ASPHALT, DJ__CLASS_ROAD, 0xd08c78, -100);
  strip(k->w, k->far ? DJ__LIST_GROUND_FAR : DJ__LIST_GROUND, &look, k->q, k->n, &k->a, &k->b, NAN,
        NAN, TILE);
}

static void build_section(work *k) {
  const dj__map *m = k->w->map;
  const dj__section *sec = &m->section[k->section];
  span spans[64];
  int n = 0;
  for (int i = 0; i < sec->n_lane && n < 64; i++) {
    int lane = sec->lane0 + i;
    const dj__road_lane *l = &m->road_lane[lane];
    if (l->id == 0) continue;
    surface kind = surface_of(l->type);
    if (n && spans[n - 1].kind == kind)
      spans[n - 1].lane1 = lane;
    else
      spans[n++] = (span){kind, lane, lane, false, false};
  }
  for (int i = 0; i < n; i++) {
    surface l = i ? spans[i - 1].kind : SURFACE_NONE,
            r = i + 1 < n ? spans[i + 1].kind : SURFACE_NONE;
    spans[i].open_left = l == SURFACE_ASPHALT || l == SURFACE_BIKE;
    spans[i].open_right = r == SURFACE_ASPHALT || r == SURFACE_BIKE;
    build_span(k, &spans[i], m->road[k->road].junction >= 0);
  }
}

// ---- paint -------------------------------------------------------------------------------------

#define WHITE  0xffffff
#define YELLOW 0xf0b428

static dj__vertex paint_look(const dj__world_mesh *w, int road, bool yellow) {
  bool track = w->map->road[road].zone == DJ__ZONE_TRACK;
  return look_of(track ? DJ__TEX_PLAIN : DJ__TEX_PAINT, DJ__CLASS_MARKING,
                 yellow  ? YELLOW
                 : track ? 0xf4f4f0
                         : WHITE,
                 -90);
}

/* A line from s0 to s1 at `shift` from a lane's outer edge. */
static void line(work *k, int lane, double s0, double s1, double shift, double width,
                 const dj__vertex *look) {
  const dj__map *m = k->w->map;
  static _Thread_local station q[MAX_STATIONS];
  int n = 0;
  q[n++] = station_at(m, k->road, s0);
  for (int i = 0; i < k->n && n < MAX_STATIONS - 1; i++)
    if (k->q[i].s > s0 + 0.05 && k->q[i].s < s1 - 0.05) q[n++] = k->q[i];
  q[n++] = station_at(m, k->road, s1);
  for (int i = 0; i < n; i++) {
    double inner, outer;
    dj__lane_edges(m, k->road, k->section, lane, q[i].s, &inner, &outer);
    k->a.t[i] = outer + shift + 0.5 * width;
    k->b.t[i] = outer + shift - 0.5 * width;
  }
  k->a.dz = k->b.dz = LIFT;
  strip(k->w, DJ__LIST_PAINT, look, q, n, &k->a, &k->b, 0.1, 0.1 + width / 2, 2);
}

static void dashes(work *k, int lane, double s0, double s1, double shift, double width,
                   const dj__vertex *look) {
  dj__zone z = k->w->map->road[k->road].zone;
  double on = z == DJ__ZONE_MOTORWAY ? 6
              : z == DJ__ZONE_RURAL  ? 4
              : z == DJ__ZONE_TRACK  ? 0.25
                                     : 3,
         period = z == DJ__ZONE_TRACK ? 0.5 : 3 * on;
  int first = (int)ceil((s0 - on) / period), n = (int)ceil(s1 / period);
  for (int i = first; i < n; i++) {
    double s = i * period, a = fmax(s, s0), b = fmin(s + on, s1);
    if (b - a > 0.3 * on) line(k, lane, a, b, shift, width, look);
  }
}

static void mark(work *k, int lane, const dj__road_mark *r, double s0, double s1) {
  dj__zone z = k->w->map->road[k->road].zone;
  double width = r->width > 0 ? r->width : z == DJ__ZONE_TRACK ? 0.05 : 0.12;
  double apart = 0.5 * width + (z == DJ__ZONE_TRACK ? 0.02 : 0.09);
  bool left = k->w->map->road_lane[lane].id > 0;
  double in = left ? -apart : apart; // towards the road's centre
  dj__vertex look = paint_look(k->w, k->road, r->yellow);
  switch (r->type) {
  case DJ__MARK_SOLID:
    line(k, lane, s0, s1, 0, width, &look);
    break;
  case DJ__MARK_BROKEN:
    dashes(k, lane, s0, s1, 0, width, &look);
    break;
  case DJ__MARK_SOLID_SOLID:
    line(k, lane, s0, s1, apart, width, &look);
    line(k, lane, s0, s1, -apart, width, &look);
    break;
  case DJ__MARK_SOLID_BROKEN:
    line(k, lane, s0, s1, in, width, &look);
    dashes(k, lane, s0, s1, -in, width, &look);
    break;
  case DJ__MARK_BROKEN_SOLID:
    dashes(k, lane, s0, s1, in, width, &look);
    line(k, lane, s0, s1, -in, width, &look);
    break;
  default:
    break;
  }
}

static void build_marks(work *k, double s0, double s1) {
  const dj__map *m = k->w->map;
  const dj__section *sec = &m->section[k->section];
  for (int i = 0; i < sec->n_lane; i++) {
    const dj__road_lane *l = &m->road_lane[sec->lane0 + i];
    for (int j = 0; j < l->n_mark; j++) {
      double a = fmax(s0, sec->s + m->mark[l->mark0 + j].s);
      double b = j + 1 < l->n_mark ? fmin(s1, sec->s + m->mark[l->mark0 + j + 1].s) : s1;
      if (b - a > 0.05) mark(k, sec->lane0 + i, &m->mark[l->mark0 + j], a, b);
    }
  }
}

/* A polygon on a lane, in its own coordinates: x ahead of s, y to the left. */
static void on_lane(dj__world_mesh *w, int lane, double s, const double (*xy)[2], int n) {
  const dj__map *m = w->map;
  dj__place c;
  dj__map_at(m, lane, s, 0, &c);
  dj__mesh *o = dj__world_list(w, DJ__LIST_PAINT, c.x, c.y);
  o->look = paint_look(w, m->lane[lane].road, false);
  double up[3] = {-c.slope * cos(c.yaw), -c.slope * sin(c.yaw), 1};
  uint32_t first = 0, last = 0;
  for (int k = 0; k < n; k++) {
    double dx = xy[k][0], dy = xy[k][1];
    double p[3] = {c.x + dx * cos(c.yaw) - dy * sin(c.yaw), c.y + dx * sin(c.yaw) + dy * cos(c.yaw),
                   c.z + c.slope * dx + LIFT};
    uint32_t i = dj__mesh_vertex(o, p, up, p[0] / 2, p[1] / 2);
    if (k == 0) first = i;
    if (k > 1) dj__mesh_triangle(o, first, last, i);
    last = i;
  }
}

static void stop_lines(dj__world_mesh *w) {
  const dj__map *m = w->map;
  for (int k = 0; k < m->n_stop; k++) {
    const dj__stop_line *l = &m->stop[k];
    dj__place p;
    dj__map_at(m, l->lane, l->s, 0, &p);
    double half = 0.5 * p.width - 0.1;
    if (m->lane[l->lane].zone == DJ__ZONE_TRACK) continue;
    if (l->control == DJ__CONTROL_STOP || l->control == DJ__CONTROL_LIGHTS) {
      const double bar[4][2] = {{-0.5, half}, {-0.5, -half}, {0, -half}, {0, half}};
      on_lane(w, l->lane, l->s, bar, 4);
    }
    if (l->control != DJ__CONTROL_GIVE_WAY) continue;
    int n = (int)(2 * half / 0.75);
    for (int i = 0; i < n; i++) { // teeth that point at who has to wait
      double y = -half + 2 * half * (i + 0.5) / n;
      const double tooth[3][2] = {{0, y + 0.25}, {-0.6, y}, {0, y - 0.25}};
      on_lane(w, l->lane, l->s, tooth, 3);
    }
  }
}

static void crossings(dj__world_mesh *w) {
  const dj__map *m = w->map;
  for (int k = 0; k < m->n_crossing; k++) {
    const dj__crossing *c = &m->crossing[k];
    double t0 = fmin(c->t0, c->t1) + 0.3, t1 = fmax(c->t0, c->t1) - 0.3, half = 0.5 * c->width;
    station a = station_at(m, c->road, c->s - half), b = station_at(m, c->road, c->s + half);
    dj__mesh *o = dj__world_list(w, DJ__LIST_PAINT, a.x, a.y);
    o->look = paint_look(w, c->road, false);
    int n = (int)floor((t1 - t0 + 0.5) / 1.0);
    for (int i = 0; i < n; i++) {
      double u = t0 + (t1 - t0 - (n - 0.5)) * 0.5 + i, v = u + 0.5;
      double q[4][3], uv[4][2] = {{u / 2, 0}, {u / 2, half}, {v / 2, half}, {v / 2, 0}};
      at(&a, u, LIFT, q[0]);
      at(&b, u, LIFT, q[1]);
      at(&b, v, LIFT, q[2]);
      at(&a, v, LIFT, q[3]);
      dj__mesh_quad(o, q, uv);
    }
  }
}

/* Arrows where lanes of one direction part. */
static void arrow(dj__world_mesh *w, int lane, double s, bool left, bool straight, bool right) {
  const double shaft[4][2] = {{0, 0.08}, {0, -0.08}, {3.0, -0.08}, {3.0, 0.08}};
  const double head[3][2] = {{3.0, 0.32}, {3.0, -0.32}, {4.4, 0}};
  on_lane(w, lane, s, shaft, 4);
  if (straight) on_lane(w, lane, s, head, 3);
  for (int side = -1; side <= 1; side += 2) {
    if (!(side > 0 ? left : right)) continue;
    double x = straight ? 1.1 : 2.84, y = side;
    const double arm[4][2] = {
        {x, 0.06 * y}, {x, 0.6 * y}, {x + 0.16, 0.6 * y}, {x + 0.16, 0.06 * y}};
    const double tip[3][2] = {{x - 0.30, 0.6 * y}, {x + 0.08, 1.15 * y}, {x + 0.46, 0.6 * y}};
    double a[4][2], t[3][2];
    for (int k = 0; k < 4; k++) memcpy(a[k], arm[side > 0 ? 3 - k : k], sizeof a[k]);
    for (int k = 0; k < 3; k++) memcpy(t[k], tip[side > 0 ? 2 - k : k], sizeof t[k]);
    on_lane(w, lane, s, (const double(*)[2])a, 4);
    on_lane(w, lane, s, (const double(*)[2])t, 3);
  }
}

static void arrows(dj__world_mesh *w) {
  const dj__map *m = w->map;
  for (int k = 0; k < m->n_lane; k++) {
    const dj__lane *l = &m->lane[k];
    if (l->type != DJ__LANE_DRIVING || l->junction >= 0 || l->stop < 0 || l->length < 25 ||
        (l->left < 0 && l->right < 0))
      continue;
    bool turn[4] = {false};
    for (int i = 0; i < l->n_succ; i++) turn[m->lane[m->graph[l->succ0 + i]].turn] = true;
    if (!turn[DJ__TURN_LEFT] && !turn[DJ__TURN_RIGHT] && !turn[DJ__TURN_STRAIGHT]) continue;
    double s = m->stop[l->stop].lane == k ? m->stop[l->stop].s : l->length;
    for (int i = 0; i < 2; i++)
      if (s - 9 - 16 * i > 3)
        arrow(w, k, s - 9 - 16 * i, turn[DJ__TURN_LEFT], turn[DJ__TURN_STRAIGHT],
              turn[DJ__TURN_RIGHT]);
  }
}

// ---- junctions ---------------------------------------------------------------------------------

static double road_height(const dj__map *m, double x, double y, double otherwise) {
  double s, t;
  int lane = dj__map_nearest(m, x, y, NAN, 1u << DJ__LANE_DRIVING, 12, &s, &t);
  if (lane < 0) return otherwise;
  dj__place p;
  dj__map_at(m, lane, s, 0, &p);
  return p.z;
}

/* A fan over the outline in three rings, so that it follows the lanes' heights. */
static void junction_fan(dj__world_mesh *w, const dj__junction *j, int road, bool far) {
  const dj__map *m = w->map;
  static const double near_rings[3] = {0.45, 0.8, 1.0}, far_rings[3] = {1, 1, 1};
  const double *ring = far ? far_rings : near_rings;
  int rings = far ? 1 : 3;
  dj__mesh *o = dj__world_list(w, far ? DJ__LIST_GROUND_FAR : DJ__LIST_GROUND, j->x, j->y);
  o->look = asphalt_look(w, road);
  double up[3] = {0, 0, 1}, c[3] = {j->x, j->y, road_height(m, j->x, j->y, j->z)};
  int all = j->n_outline, n = all < 24 || !far ? all : 24;
  uint32_t middle = dj__mesh_vertex(o, c, up, c[0] / TILE, c[1] / TILE), before[3] = {0},
           now[3] = {0};
  for (int k = 0; k <= n; k++) {
    const double *e = m->outline[j->outline0 + k % n * all / n];
    for (int i = 0; i < rings; i++) {
      double p[3] = {c[0] + (e[0] - c[0]) * ring[i], c[1] + (e[1] - c[1]) * ring[i], 0};
      p[2] = road_height(m, p[0], p[1], c[2]);
      now[i] = dj__mesh_vertex(o, p, up, p[0] / TILE, p[1] / TILE);
    }
    if (k) {
      dj__mesh_triangle(o, middle, before[0], now[0]);
      for (int i = 0; i + 1 < rings; i++) {
        dj__mesh_triangle(o, before[i], before[i + 1], now[i + 1]);
        dj__mesh_triangle(o, before[i], now[i + 1], now[i]);
      }
    }
    memcpy(before, now, sizeof now);
  }
}

void dj__mesh_roads(dj__world_mesh *w) {
  const dj__map *m = w->map;
  work *k = calloc(1, sizeof *k);
  if (!k) {
    w->failed = true;
    return;
  }
  k->w = w;
  for (int road = 0; road < m->n_road; road++) {
    const dj__road *r = &m->road[road];
    k->road = road;
    for (int i = 0; i < r->n_section; i++) {
      k->section = r->section0 + i;
      double s0 = m->section[k->section].s, s1 = dj__section_end(m, road, k->section);
      if (s1 - s0 < 1e-3) continue;
      for (int far = 1; far >= 0; far--) {
        k->far = far;
        k->n = stations(m, road, s0, s1, far, k->q);
        build_section(k);
      }
      build_marks(k, s0, s1);
    }
  }
  free(k);
  for (int j = 0; j < m->n_junction; j++) {
    const dj__junction *q = &m->junction[j];
    if (q->n_outline > 2 && q->n_connection > 0)
      for (int far = 0; far < 2; far++)
        junction_fan(w, q, m->connection[q->connection0].connecting, far);
  }
  stop_lines(w);
  crossings(w);
  arrows(w);
}

// ---- ground ------------------------------------------------------------------------------------

static void ground_point(dj__world_mesh *w, dj__mesh *o, double x, double y, double sink,
                         double tile, uint32_t *out) {
  const dj__map *m = w->map;
  double h = dj__map_ground(m, x, y), e = 2.5;
  double gx = (dj__map_ground(m, x + e, y) - h) / e, gy = (dj__map_ground(m, x, y + e) - h) / e;
  double l = sqrt(1 + gx * gx + gy * gy), n[3] = {-gx / l, -gy / l, 1 / l}, p[3] = {x, y, h - sink};
  // patches of greener and drier growth, tens of metres wide
  double a =
      sin(x / 23 + 2 * sin(y / 61)) + sin(y / 29 + 2 * sin(x / 53)) + 0.7 * sin((x - y) / 11);
  const dj__vertex keep = o->look;
  o->look.c[0] = (uint8_t)fmin(255, keep.c[0] * (0.93 + 0.05 * a));
  o->look.c[1] = (uint8_t)fmin(255, keep.c[1] * (0.96 + 0.02 * a));
  o->look.c[2] = (uint8_t)fmin(255, keep.c[2] * (0.90 + 0.03 * a));
  *out = dj__mesh_vertex(o, p, n, x / tile, y / tile);
  o->look = keep;
}

/* What grows in a square: meadow, field, lawn; tints vary smoothly. */
static void ground_look(dj__world_mesh *w, dj__mesh *o, double x, double y, bool town) {
  dj__u32x4 r = dj__philox(
      w->seed, (uint64_t)(uint32_t)(int)floor(x / 150) << 32 | (uint32_t)(int)floor(y / 150), 502);
  static const uint32_t tints[4] = {0xffffff, 0xf0f4dc, 0xe4f0e0, 0xfff6d8};
  bool field = !town && r.v[0] % 3 == 0;
  dj__look(o, field ? DJ__TEX_FIELD : DJ__TEX_GRASS, DJ__CLASS_TERRAIN, tints[r.v[1] % 4]);
}

static void ground_grid(dj__world_mesh *w, dj__list list, double x0, double y0, int n, double sink,
                        bool town) {
  enum { MOST = 11 };
  dj__mesh *o = dj__world_list(w, list, x0 + 1, y0 + 1);
  ground_look(w, o, x0 + 1, y0 + 1, town);
  uint32_t v[MOST * MOST];
  double step = DJ__CHUNK / n;
  for (int j = 0; j <= n; j++)
    for (int i = 0; i <= n; i++) {
      double x = x0 + i * step, y = y0 + j * step;
      ground_point(w, o, x, y, sink, list == DJ__LIST_TERRAIN ? 6 : 17, &v[j * (n + 1) + i]);
    }
  for (int j = 0; j < n; j++)
    for (int i = 0; i < n; i++) {
      int k = j * (n + 1) + i;
      dj__mesh_triangle(o, v[k], v[k + 1], v[k + n + 2]);
      dj__mesh_triangle(o, v[k], v[k + n + 2], v[k + n + 1]);
    }
}

void dj__mesh_terrain(dj__world_mesh *w) {
  const dj__map *m = w->map;
  for (int j = 0; j < w->ny; j++)
    for (int i = 0; i < w->nx; i++) {
      double x0 = w->x0 + i * DJ__CHUNK, y0 = w->y0 + j * DJ__CHUNK, s, t;
      double xm = x0 + 0.5 * DJ__CHUNK, ym = y0 + 0.5 * DJ__CHUNK;
      int lane = dj__map_nearest(m, xm, ym, NAN, 1u << DJ__LANE_DRIVING, 70, &s, &t);
      bool town = lane >= 0 && m->lane[lane].zone <= DJ__ZONE_SUBURB;
      if (lane >= 0) {
        ground_grid(w, DJ__LIST_TERRAIN, x0, y0, 10, 0, town);
      } else {
        ground_grid(w, DJ__LIST_TERRAIN, x0, y0, 2, 0, false);
      }
      ground_grid(w, DJ__LIST_TERRAIN_FAR, x0, y0, 2, 0.4, town);
    }
}
