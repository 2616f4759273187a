/*
 * What stands beside roads: lamps, signs, traffic lights, guard rails, marker posts. Places follow
 * from the map alone.
 */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "world/map_build.h"
#include "world/mesh.h"

typedef struct frame2 { /* of something upright: x along its face's normal */
  double x, y, z, c, s;
} frame2;
static frame2 frame_at(double x, double y, double z, double yaw) {
  return (frame2){x, y, z, cos(yaw), sin(yaw)};
}
static void place(const frame2 *f, double a, double b, double h, double p[3]) {
  p[0] = f->x + f->c * a - f->s * b;
  p[1] = f->y + f->s * a + f->c * b;
  p[2] = f->z + h;
}

/* A plate of w x h round (0, 0, up), facing along the frame's x (back: against it). */
static void face(dj__mesh *m, const frame2 *f, double a, double up, double w, double h,
                 const double uv[4], bool back) {
  double p[4][3], s = back ? -0.5 : 0.5;
  place(f, a, -s * w, up - 0.5 * h, p[0]);
  place(f, a, s * w, up - 0.5 * h, p[1]);
  place(f, a, s * w, up + 0.5 * h, p[2]);
  place(f, a, -s * w, up + 0.5 * h, p[3]);
  const double q[4][2] = {{uv[0], uv[1]}, {uv[2], uv[1]}, {uv[2], uv[3]}, {uv[0], uv[3]}};
  dj__mesh_quad(m, p, q);
}

static void cell_uv(int cell, double uv[4]) { // row 0 of the texture is its lower edge
  double u = cell % 4 * 0.25, v = 1 - (cell / 4 + 1) * 0.25, e = 0.002;
  uv[0] = u + e;
  uv[1] = v + e;
  uv[2] = u + 0.25 - e;
  uv[3] = v + 0.25 - e;
}

static int sign_cell(const dj__signal *g) {
  switch (g->kind) {
  case DJ__SIGNAL_STOP:
    return DJ__SIGN_STOP;
  case DJ__SIGNAL_GIVE_WAY:
    return DJ__SIGN_GIVE_WAY;
  case DJ__SIGNAL_PRIORITY:
    return DJ__SIGN_PRIORITY;
  case DJ__SIGNAL_CROSSING:
    return DJ__SIGN_CROSSING;
  case DJ__SIGNAL_ROUNDABOUT:
    return DJ__SIGN_ROUNDABOUT;
  case DJ__SIGNAL_SPEED: {
    int best = 0;
    for (int k = 1; k < 10; k++)
      if (fabs(dj__sign_limits[k] - 3.6 * g->value) < fabs(dj__sign_limits[best] - 3.6 * g->value))
        best = k;
    return DJ__SIGN_LIMIT0 + best;
  }
  default:
    return DJ__SIGN_BLANK;
  }
}

static void sign(dj__world_mesh *w, const dj__signal *g) {
  dj__mesh *m = dj__world_list(w, DJ__LIST_DETAIL, g->x, g->y);
  double z = dj__map_height(w->map, g->x, g->y);
  frame2 f = frame_at(g->x, g->y, z, g->yaw);
  dj__look(m, DJ__TEX_METAL, DJ__CLASS_POLE, 0xc8c8c8);
  dj__mesh_pole(m, g->x, g->y, z - 0.2, z + 2.55, 0.035, 0.035, 5);
  double uv[4], size = g->kind == DJ__SIGNAL_SPEED || g->kind == DJ__SIGNAL_STOP ? 0.72 : 0.68;
  bool big = w->map->road[g->road].zone == DJ__ZONE_MOTORWAY;
  if (big) size *= 1.5;
  cell_uv(sign_cell(g), uv);
  dj__mesh *holes = dj__world_list(w, DJ__LIST_LEAF, g->x, g->y); // cut out by alpha
  dj__world_list(w, DJ__LIST_LEAF_FAR, g->x, g->y)->look = holes->look;
  for (int far = 0; far < 2; far++) {
    dj__mesh *o = far ? dj__world_list(w, DJ__LIST_LEAF_FAR, g->x, g->y) : holes;
    dj__look(o, DJ__TEX_SIGNS, DJ__CLASS_SIGN, 0xffffff);
    o->look.lamp = 40;
    face(o, &f, 0.045, 2.25, size, size, uv, false);
    dj__look(o, DJ__TEX_SIGNS, DJ__CLASS_SIGN, 0x686868);
    face(o, &f, 0.040, 2.25, size, size, uv, true);
  }
}

static void light(dj__world_mesh *w, const dj__signal *g) {
  dj__mesh *m = dj__world_list(w, DJ__LIST_DETAIL, g->x, g->y);
  double z = dj__map_height(w->map, g->x, g->y);
  frame2 f = frame_at(g->x, g->y, z, g->yaw);
  dj__look(m, DJ__TEX_PLAIN, DJ__CLASS_POLE, 0x50555a);
  dj__mesh_pole(m, g->x, g->y, z - 0.2, z + 3.6, 0.07, 0.06, 6);
  double c[3];
  place(&f, 0.20, 0, 0, c);
  dj__look(m, DJ__TEX_PLAIN, DJ__CLASS_LIGHT, 0x17191b);
  dj__mesh_box(m, c[0], c[1], z + 2.45, z + 3.5, 0.24, 0.36, g->yaw, 1, true);
  static const double none[4] = {0, 0, 0.01, 0.01};
  for (int k = 0; k < 3; k++) { // red on top
    static const uint32_t dark[3] = {0x3a0f0e, 0x3a2c0c, 0x0d2f1c};
    static const dj__light when[3] = {DJ__LIGHT_RED, DJ__LIGHT_YELLOW, DJ__LIGHT_GREEN};
    double up = 3.32 - 0.33 * k;
    dj__look(m, DJ__TEX_PLAIN, DJ__CLASS_LIGHT, dark[k]);
    face(m, &f, 0.322, up, 0.22, 0.22, none, false);
    dj__look(m, DJ__TEX_PLAIN, DJ__CLASS_LIGHT, 0x17191b); // hood
    double h[3];
    place(&f, 0.40, 0, 0, h);
    dj__mesh_box(m, h[0], h[1], z + up + 0.12, z + up + 0.135, 0.16, 0.26, g->yaw, 1, true);
    if (g->stop < 0) continue;
    dj__lens l = {.normal = {f.c, f.s}, .radius = 0.115f, .stop = g->stop, .when = when[k]};
    place(&f, 0.335, 0, up, l.p);
    dj__world_add_lens(w, &l);
  }
}

static void lamp(dj__world_mesh *w, double x, double y, double towards, double tall) {
  dj__mesh *m = dj__world_list(w, DJ__LIST_DETAIL, x, y);
  double z = dj__map_height(w->map, x, y), reach = 1.6;
  dj__look(m, DJ__TEX_METAL, DJ__CLASS_POLE, 0x9aa09c);
  dj__mesh_pole(m, x, y, z - 0.2, z + tall, 0.085, 0.05, 5);
  double c = cos(towards), s = sin(towards);
  const double a[3] = {x, y, z + tall - 0.1},
               b[3] = {x + reach * c, y + reach * s, z + tall + 0.12};
  dj__mesh_beam(m, a, b, 0.04, 0.035, 1, 4);
  dj__look(m, DJ__TEX_PLAIN, DJ__CLASS_POLE, 0xb8bab6);
  double hx = x + (reach + 0.25) * c, hy = y + (reach + 0.25) * s;
  dj__mesh_box(m, hx, hy, z + tall + 0.06, z + tall + 0.18, 0.7, 0.26, towards, 1, false);
  m->look.lamp = 255;
  m->look.c[0] = 255, m->look.c[1] = 240, m->look.c[2] = 200;
  double p[4][3];
  frame2 f = frame_at(hx, hy, z + tall + 0.055, towards);
  place(&f, -0.3, 0.1, 0, p[0]);
  place(&f, 0.3, 0.1, 0, p[1]);
  place(&f, 0.3, -0.1, 0, p[2]);
  place(&f, -0.3, -0.1, 0, p[3]);
  static const double uv[4][2] = {{0}};
  dj__mesh_quad(m, p, uv);
  dj__world_add_lamp(w, &(dj__lamp){hx, hy, z + tall});
}

// ---- along roads -------------------------------------------------------------------------------

typedef struct side {      /* one side of a road at s */
  double carriageway, all; /* offset of the asphalt's edge, of the outermost lane's edge */
  bool walk;
} side;

static side side_at(const dj__map *m, int road, double s, int left) {
  int section = dj__road_section(m, road, s);
  const dj__section *sec = &m->section[section];
  side o = {0};
  for (int i = 0; i < sec->n_lane; i++) {
    int lane = sec->lane0 + i;
    const dj__road_lane *l = &m->road_lane[lane];
    if (l->id == 0 || (l->id > 0) != left) continue;
    double inner, outer;
    dj__lane_edges(m, road, section, lane, s, &inner, &outer);
    double far = left ? outer : -outer, near = left ? inner : -inner;
    if (l->type == DJ__LANE_SIDEWALK) o.walk = true;
    if (l->type != DJ__LANE_SIDEWALK && l->type != DJ__LANE_NONE && l->type != DJ__LANE_BORDER)
      o.carriageway = fmax(o.carriageway, far);
    else
      o.carriageway = fmax(o.carriageway, near);
    o.all = fmax(o.all, far);
  }
  return o;
}

static void beside(const dj__map *m, int road, double s, double t, double p[3]) {
  dj__pose q;
  dj__road_at(m, road, s, &q);
  p[0] = q.x - t * sin(q.hdg);
  p[1] = q.y + t * cos(q.hdg);
  p[2] = dj__map_height(m, p[0], p[1]);
}

static void lamps_along(dj__world_mesh *w, int road) {
  const dj__map *m = w->map;
  const dj__road *r = &m->road[road];
  double gap = r->zone == DJ__ZONE_TOWN ? 30 : 38;
  int n = (int)(r->length / gap);
  for (int k = 0; k <= n; k++) {
    double s = n ? (k + 0.5) * r->length / (n + 1) : 0.5 * r->length;
    int left = k % 2;
    side o = side_at(m, road, s, left);
    if (!o.walk) {
      left = !left;
      o = side_at(m, road, s, left);
      if (!o.walk) continue;
    }
    double t = (o.carriageway + 0.45) * (left ? 1 : -1), p[3];
    beside(m, road, s, t, p);
    if (dj__map_drivable(m, p[0], p[1], true)) continue;
    dj__pose q;
    dj__road_at(m, road, s, &q);
    lamp(w, p[0], p[1], q.hdg + (left ? -M_PI / 2 : M_PI / 2), r->zone == DJ__ZONE_TOWN ? 7.5 : 6);
  }
}

static void rail_along(dj__world_mesh *w, int road, int left) {
  const dj__map *m = w->map;
  const dj__road *r = &m->road[road];
  double sign_ = left ? 1 : -1, before[3] = {0}, step = 4;
  bool have = false;
  int n = (int)ceil(r->length / step);
  for (int k = 0; k <= n; k++) {
    double s = fmin(k * step, r->length), p[3];
    side o = side_at(m, road, s, left);
    beside(m, road, s, (o.all + 0.55) * sign_, p);
    bool free = !dj__map_drivable(m, p[0], p[1], true);
    if (free) {
      dj__mesh *d = dj__world_list(w, DJ__LIST_DETAIL, p[0], p[1]);
      dj__look(d, DJ__TEX_METAL, DJ__CLASS_BARRIER, 0xb0b4b4);
      dj__mesh_box(d, p[0], p[1], p[2] - 0.3, p[2] + 0.72, 0.08, 0.1, 0, 1, false);
    }
    if (free && have) {
      dj__mesh *d = dj__world_list(w, DJ__LIST_SOLID, p[0], p[1]);
      dj__look(d, DJ__TEX_METAL, DJ__CLASS_BARRIER, 0xd4d8d8);
      d->look.n[3] = 40;
      for (int back = 0; back < 2; back++) {
        const double *a = back == left ? before : p, *b = back == left ? p : before;
        const double q[4][3] = {{a[0], a[1], a[2] + 0.42},
                                {b[0], b[1], b[2] + 0.42},
                                {b[0], b[1], b[2] + 0.76},
                                {a[0], a[1], a[2] + 0.76}};
        const double uv[4][2] = {{0, 0}, {2, 0}, {2, 1}, {0, 1}};
        dj__mesh_quad(d, q, uv);
      }
    }
    have = free;
    memcpy(before, p, sizeof p);
  }
}

static void posts_along(dj__world_mesh *w, int road) {
  const dj__map *m = w->map;
  const dj__road *r = &m->road[road];
  for (int k = 0; k < (int)((r->length + 15) / 40); k++)
    for (int left = 0; left < 2; left++) {
      double s = 20 + 40 * k;
      side o = side_at(m, road, s, left);
      double p[3];
      beside(m, road, s, (o.all + 0.6) * (left ? 1 : -1), p);
      if (dj__map_drivable(m, p[0], p[1], true)) continue;
      dj__mesh *d = dj__world_list(w, DJ__LIST_DETAIL, p[0], p[1]);
      dj__look(d, DJ__TEX_PLAIN, DJ__CLASS_POLE, 0xeeeeea);
      dj__mesh_box(d, p[0], p[1], p[2] - 0.2, p[2] + 1.0, 0.10, 0.12, 0, 1, false);
      dj__look(d, DJ__TEX_PLAIN, DJ__CLASS_POLE, 0x202022);
      dj__mesh_box(d, p[0], p[1], p[2] + 0.70, p[2] + 0.88, 0.11, 0.13, 0, 1, false);
    }
}

void dj__mesh_street(dj__world_mesh *w) {
  const dj__map *m = w->map;
  for (int k = 0; k < m->n_signal; k++) {
    if (m->signal[k].kind == DJ__SIGNAL_LIGHT)
      light(w, &m->signal[k]);
    else
      sign(w, &m->signal[k]);
  }
  for (int road = 0; road < m->n_road; road++) {
    const dj__road *r = &m->road[road];
    if (r->junction >= 0) continue;
    switch (r->zone) {
    case DJ__ZONE_TOWN:
    case DJ__ZONE_SUBURB:
      lamps_along(w, road);
      break;
    case DJ__ZONE_RURAL:
      posts_along(w, road);
      break;
    case DJ__ZONE_MOTORWAY:
      rail_along(w, road, 0);
      rail_along(w, road, 1);
      break;
    default:
      break;
    }
  }
}
