/*
 * Layouts beyond the town's edge: winding country roads round a village, a motorway with ramps past
 * a small town, and all of it together with a ring road.
 *
 * A motorway is one road with a median. An exit is a stretch with a third lane, then a junction of
 * a few metres in which that lane goes its own way; an entry is the same backwards, and the third
 * lane ends in a merge. These junctions (ports) are given with all their moves, the rest of the
 * network is made as in towns. Motorways end in a roundabout, so that who misses an exit can turn
 * there.
 */
#include <math.h>

#include "world/town.h"

#define MEDIAN        4.0
#define MOTORWAY_LANE 3.6

/* ---- winding roads ---- */
typedef struct way { /* where a road leaves a node, and to where */
  int node;
  double dx, dy; /* direction away from it */
} way;

static way way_at(int node, double angle) {
  return (way){node, cos(angle), sin(angle)};
}

/* A road that leaves a and b in the given directions and winds between them. */
static int wind(dj__town *t, way a, way b, const dj__street *s, double bends) {
  int e = dj__town_edge(t, a.node, b.node, s);
  if (t->failed) return e;
  const double out = 62; /* m straight from a node */
  const dj__node *na = &t->node[a.node], *nb = &t->node[b.node];
  double p[4][2] = {
      {na->x + out * a.dx, na->y + out * a.dy}, {0}, {0}, {nb->x + out * b.dx, nb->y + out * b.dy}};
  double d = hypot(p[3][0] - p[0][0], p[3][1] - p[0][1]), h = 0.38 * d;
  p[1][0] = p[0][0] + h * a.dx;
  p[1][1] = p[0][1] + h * a.dy;
  p[2][0] = p[3][0] + h * b.dx;
  p[2][1] = p[3][1] + h * b.dy;
  int pieces = (int)fmin(TOWN_VIA - 4, fmax(2, round(1.1 * d / 75)));
  uint64_t noise = t->seed + 300 + (uint64_t)e;
  for (int i = 0; i <= pieces; i++) {
    double f = (double)i / pieces, g = 1 - f, x = 0, y = 0;
    double w[4] = {g * g * g, 3 * g * g * f, 3 * g * f * f, f * f * f};
    for (int k = 0; k < 4; k++) {
      x += w[k] * p[k][0];
      y += w[k] * p[k][1];
    }
    double fade = sin(M_PI * f), amount = bends * fade;
    dj__town_via(t, e, x + amount * dj__noise2(noise, 1.1 * i, 0.5),
                 y + amount * dj__noise2(noise + 77, 1.1 * i, 0.5));
  }
  return e;
}

static int extreme(const dj__town *t, int node0, int n, double dx, double dy) {
  int best = node0;
  for (int i = node0; i < node0 + n; i++) {
    if (dj__town_degree(t, i) < 2) continue;
    const dj__node *a = &t->node[i], *b = &t->node[best];
    if (a->x * dx + a->y * dy > b->x * dx + b->y * dy) best = i;
  }
  return best;
}

typedef struct village { /* a patch of town with ways out to the east, north, west, south */
  way port[4];
} village;

static village patch(dj__town *t, double x, double y, double size, bool organic) {
  int node0 = t->n_node;
  if (organic)
    dj__town_organic(t, x, y, size);
  else
    dj__town_grid(t, x, y, size, 0.12);
  village v;
  for (int k = 0; k < 4; k++) {
    double angle = k * M_PI_2;
    v.port[k] = way_at(extreme(t, node0, t->n_node - node0, cos(angle), sin(angle)), angle);
  }
  return v;
}

static int outpost(dj__town *t, double x, double y, double roundabout) {
  int n = dj__town_node(t, x, y);
  if (!t->failed && dj__town_chance(t, roundabout)) t->node[n].kind = NODE_ROUNDABOUT;
  return n;
}

void dj__town_rural(dj__town *t, double size) {
  enum { MOST = 6 };
  village v = patch(t, 0, 0, dj__town_uniform(t, 230, 330), dj__town_chance(t, 0.4));
  int k = 4 + (int)dj__rng_below(&t->rng, 2), node[MOST];
  double angle[MOST], turn = dj__town_uniform(t, -0.2, 0.2);
  dj__street main = dj__street_of(t, 2, DJ__ZONE_RURAL),
             minor = dj__street_of(t, 1, DJ__ZONE_RURAL);
  for (int i = 0; i < k; i++) {
    angle[i] = turn + 2 * M_PI * i / k + dj__town_uniform(t, -0.12, 0.12);
    double r = 0.5 * size * dj__town_uniform(t, 0.75, 1.05);
    node[i] = outpost(t, r * cos(angle[i]), r * sin(angle[i]), 0.35);
  }
  for (int i = 0; i < k; i++) {
    int n = (i + 1) % k;
    int e = wind(t, way_at(node[i], angle[i] + M_PI_2), way_at(node[n], angle[n] - M_PI_2),
                 dj__town_chance(t, 0.6) ? &main : &minor, dj__town_uniform(t, 18, 42));
    if (!t->failed) t->edge[e].keep = true;
  }
  for (int i = 0; i < k; i++) { /* to the village, from wherever one of its ways out is near */
    int port = (int)lround(dj__wrap(angle[i]) / M_PI_2 + 4) % 4;
    bool taken = false;
    for (int n = 0; n < i; n++) taken |= (int)lround(dj__wrap(angle[n]) / M_PI_2 + 4) % 4 == port;
    if (taken) continue;
    wind(t, v.port[port], way_at(node[i], angle[i] + M_PI),
         dj__town_chance(t, 0.5) ? &main : &minor, dj__town_uniform(t, 10, 26));
  }
}

/* ---- motorways ---- */
static dj__street motorway_street(int right, int left) {
  return (dj__street){.lanes = {right, left},
                      .lane = MOTORWAY_LANE,
                      .shoulder = 2.5,
                      .median = MEDIAN,
                      .zone = DJ__ZONE_MOTORWAY,
                      .speed = 120 * KMH,
                      .radius = 700,
                      .rank = 3};
}

typedef struct frame { /* along a motorway: origin and direction */
  double x, y, ux, uy;
} frame;

static int port_node(dj__town *t, const frame *f, double s, double right) {
  int n = dj__town_node(t, f->x + s * f->ux + right * f->uy, f->y + s * f->uy - right * f->ux);
  if (!t->failed) t->node[n].kind = NODE_PORT;
  return n;
}

static dj__port_arm arm(int edge, bool at_end) {
  return (dj__port_arm){edge, at_end};
}

static void through(dj__port *p, int from, int from0, int to, int to0, int n) {
  for (int i = 0; i < n; i++) dj__port_move(p, from, from0 + i, to, to0 + i);
}

/* Exit and entry on one or both sides of a straight stretch of 660 m around the frame's origin, to
 * junctions that lie beside it. The motorway goes on at its first and last edge. */
typedef struct interchange {
  int edge0, edge_last;
  int lanes[2]; /* of these edges, along the frame and against it */
} interchange;

typedef struct ramps {
  int leave, join; /* edges, or -1 */
} ramps;

/* The ramps of one side (0: right of the frame) from and to a junction beside the motorway. */
static ramps push_ramps(dj__town *t, const frame *f, int side, int junction) {
  dj__street ramp = {.lanes = {1, 0},
                     .lane = 3.8,
                     .shoulder = 1.2,
                     .zone = DJ__ZONE_MOTORWAY,
                     .speed = 60 * KMH,
                     .radius = 60,
                     .rank = 1};
  double dir = side ? -1 : 1; /* seen along the traffic of this side */
  frame g = {f->x, f->y, dir * f->ux, dir * f->uy};
  double beside = 0.5 * MEDIAN + 2 * MOTORWAY_LANE; /* a ramp's line is its lane's left edge */
  int out = port_node(t, &g, -200, beside), in = port_node(t, &g, 200, beside);
  if (t->failed) return (ramps){-1, -1};
  double jx = t->node[junction].x, jy = t->node[junction].y;
  double away = (jx - g.x) * g.uy - (jy - g.y) * g.ux; /* m to the right */
  ramps r = {.leave = dj__town_edge(t, out, junction, &ramp)};
  r.join = dj__town_edge(t, junction, in, &ramp);
  const double bend[2][2] = {{-152, beside}, {-70, away}}; /* s, m to the right */
  for (int i = 0; i < 2 && !t->failed; i++) {
    double s = bend[i][0], b = bend[i][1];
    dj__town_via(t, r.leave, g.x + s * g.ux + b * g.uy, g.y + s * g.uy - b * g.ux);
    s = -bend[1 - i][0];
    b = bend[1 - i][1];
    dj__town_via(t, r.join, g.x + s * g.ux + b * g.uy, g.y + s * g.uy - b * g.ux);
  }
  if (!t->failed) t->edge[r.leave].keep = t->edge[r.join].keep = true;
  return r;
}

/* At one end of the stretch's middle part (its wide edge and the middle one meet here): on each
 * side that has ramps the third lane leaves or comes. */
static void part_lanes(dj__town *t, dj__port_arm wide, dj__port_arm middle, bool start,
                       const ramps r[2]) {
  dj__port *p = dj__town_port(t, 2);
  p->arm[0] = wide;
  p->arm[1] = middle;
  for (int side = 0; side < 2; side++) {
    bool exits = (side == 0) == start; /* here this side's third lane leaves */
    int ramp = exits ? r[side].leave : r[side].join, third = ramp >= 0;
    if (third) {
      p->arm[p->n_arm] = arm(ramp, !exits);
      if (exits)
        dj__port_move(p, 0, 0, p->n_arm, 0);
      else
        dj__port_move(p, p->n_arm, 0, 0, 0);
      p->n_arm++;
    }
    if (exits)
      through(p, 0, third, 1, 0, 2);
    else
      through(p, 1, 0, 0, third, 2);
  }
}

/* junction[side]: where the ramps of the right (0) and left side lead, or -1. */
static interchange exit_and_entry(dj__town *t, const frame *f, const int junction[2]) {
  interchange o = {.lanes = {2 + (junction[0] >= 0), 2 + (junction[1] >= 0)}};
  dj__street wide = motorway_street(o.lanes[0], o.lanes[1]), two = motorway_street(2, 2);
  int n[6] = {port_node(t, f, -330, 0), port_node(t, f, -214, 0), port_node(t, f, -200, 0),
              port_node(t, f, 200, 0),  port_node(t, f, 214, 0),  port_node(t, f, 330, 0)};
  int e[3] = {dj__town_edge(t, n[0], n[1], &wide), dj__town_edge(t, n[2], n[3], &two),
              dj__town_edge(t, n[4], n[5], &wide)};
  o.edge0 = e[0];
  o.edge_last = e[2];
  ramps r[2] = {{-1, -1}, {-1, -1}};
  for (int side = 0; side < 2; side++)
    if (junction[side] >= 0) r[side] = push_ramps(t, f, side, junction[side]);
  if (t->failed) return o;
  for (int i = 0; i < 3; i++) t->edge[e[i]].keep = true;
  part_lanes(t, arm(e[0], true), arm(e[1], false), true, r);
  part_lanes(t, arm(e[2], false), arm(e[1], true), false, r);
  return o;
}

/* Where the motorway's two lanes each way meet a stretch with a third one on one side or both: it
 * begins for who drives into the stretch, and ends for who comes out of it. lanes: of the stretch,
 * in and out. */
static void widen(dj__town *t, dj__port_arm narrow, dj__port_arm wide, const int lanes[2]) {
  dj__port *p = dj__town_port(t, 2);
  p->arm[0] = narrow;
  p->arm[1] = wide;
  int in = lanes[0] - 2, out = lanes[1] - 2;
  if (in) dj__port_move(p, 0, 0, 1, 0);
  through(p, 0, 0, 1, in, 2);
  through(p, 1, out, 0, 0, 2);
  if (out) dj__port_move(p, 1, 0, 0, 0);
}

/* From a roundabout to the motorway's first (or last) node: a road of one lane each way, a port in
 * which lanes begin and end, and a motorway that bends gently. */
static void motorway_end(dj__town *t, int roundabout, const frame *f, double s_end,
                         dj__port_arm last, const int lanes[2]) {
  dj__street road = dj__street_of(t, 2, DJ__ZONE_RURAL), two = motorway_street(2, 2);
  double side = s_end < 0 ? -1 : 1;
  const dj__node *r = &t->node[roundabout];
  double rs = (r->x - f->x) * f->ux + (r->y - f->y) * f->uy,
         rr = (r->x - f->x) * f->uy - (r->y - f->y) * f->ux;
  int a = port_node(t, f, rs - side * 90, rr), b = port_node(t, f, rs - side * 140, rr);
  int c = port_node(t, f, s_end + side * 70, 0);
  if (t->failed) return;
  int link = dj__town_edge(t, roundabout, a, &road);
  int way_on = side < 0 ? dj__town_edge(t, b, c, &two) : dj__town_edge(t, c, b, &two);
  double sb = rs - side * 140, sc = s_end + side * 70;
  for (int i = 0; i < 2; i++) {
    int k = side < 0 ? i : 1 - i; /* 0: near the roundabout */
    double s = k == 0 ? sb - side * 0.3 * fabs(sb - sc) : sc + side * 0.3 * fabs(sb - sc);
    double right = k == 0 ? rr : 0;
    dj__town_via(t, way_on, f->x + s * f->ux + right * f->uy, f->y + s * f->uy - right * f->ux);
  }
  t->edge[link].keep = t->edge[way_on].keep = true;
  dj__port *p = dj__town_port(t, 2);
  p->arm[0] = arm(link, true);
  p->arm[1] = arm(way_on, side > 0);
  dj__port_move(p, 0, 0, 1, 0);
  dj__port_move(p, 0, 0, 1, 1);
  dj__port_move(p, 1, 1, 0, 0);
  dj__port_move(p, 1, 0, 0, 0);
  widen(t, arm(way_on, side < 0), last, lanes);
}

/* A motorway along the frame from roundabout w to roundabout e, with exits and entries to the
 * junctions on its right and left side (-1: none). */
static void motorway(dj__town *t, const frame *f, int w, int e, int right, int left) {
  const int junction[2] = {right, left};
  interchange x = exit_and_entry(t, f, junction);
  if (t->failed) return;
  const int back[2] = {x.lanes[1], x.lanes[0]};
  motorway_end(t, w, f, -330, arm(x.edge0, false), x.lanes);
  motorway_end(t, e, f, 330, arm(x.edge_last, true), back);
}

static int end_roundabout(dj__town *t, double x, double y) {
  int n = dj__town_node(t, x, y);
  if (!t->failed) t->node[n].kind = NODE_ROUNDABOUT;
  return n;
}

void dj__town_motorway(dj__town *t, double size) {
  village v =
      patch(t, dj__town_uniform(t, -60, 60), -0.30 * size, 0.32 * size, dj__town_chance(t, 0.5));
  double half = fmax(750, 0.56 * size), north = dj__town_uniform(t, 120, 180);
  frame f = {dj__town_uniform(t, -40, 40), north, 1, 0};
  int w = end_roundabout(t, -half, north + dj__town_uniform(t, -60, 10)),
      e = end_roundabout(t, half, north + dj__town_uniform(t, -60, 10));
  int link = dj__town_node(t, f.x, north - 108);
  bool both = dj__town_chance(t, 0.6); /* sides of the motorway have ramps */
  int beyond = both ? dj__town_node(t, f.x, north + 108) : -1;
  motorway(t, &f, w, e, link, beyond);
  dj__street main = dj__street_of(t, 2, DJ__ZONE_RURAL),
             minor = dj__street_of(t, 1, DJ__ZONE_RURAL);
  int spoke = wind(t, way_at(link, -M_PI_2), v.port[1], &main, 6);
  int west = wind(t, way_at(w, -M_PI_2), v.port[2], &main, dj__town_uniform(t, 10, 30));
  int east = wind(t, way_at(e, -M_PI_2), v.port[0], &main, dj__town_uniform(t, 10, 30));
  double far = dj__town_uniform(t, 230, 330);
  int over = dj__town_node(t, dj__town_uniform(t, -120, 120), north + (both ? far + 110 : far));
  int a = wind(t, way_at(w, M_PI_2), way_at(over, M_PI), &minor, dj__town_uniform(t, 15, 40));
  int b = wind(t, way_at(over, 0), way_at(e, M_PI_2), &minor, dj__town_uniform(t, 15, 40));
  if (t->failed) return;
  int all[6] = {spoke, west, east, a, b}, n = 5;
  if (both) all[n++] = wind(t, way_at(beyond, M_PI_2), way_at(over, -M_PI_2), &minor, 6);
  for (int i = 0; i < n && !t->failed; i++) t->edge[all[i]].keep = true;
}

/* ---- everything ---- */
static void ring_piece(dj__town *t, int a, int b, double from, double to, double r,
                       const dj__street *s) {
  int e = dj__town_edge(t, a, b, s);
  if (t->failed) return;
  t->edge[e].keep = true;
  double span = to - from;
  int n = (int)fmax(2, round(span * r / 62));
  double bulge = 1 / cos(0.5 * span / n); /* so that the rounded line is the circle */
  for (int i = 0; i < n; i++) {
    double angle = from + span * (i + 0.5) / n;
    dj__town_via(t, e, bulge * r * cos(angle), bulge * r * sin(angle));
  }
}

void dj__town_mixed(dj__town *t, double size) {
  double town = 0.36 * size, r = 0.62 * town + dj__town_uniform(t, 60, 85);
  village v = patch(t, 0, 0, town, dj__town_chance(t, 0.6));
  dj__street ring = dj__street_of(t, 2, DJ__ZONE_SUBURB),
             radial = dj__street_of(t, 2, DJ__ZONE_TOWN);
  dj__street main = dj__street_of(t, 2, DJ__ZONE_RURAL),
             minor = dj__street_of(t, 1, DJ__ZONE_RURAL);
  ring.speed = 70 * KMH;
  ring.radius = 0.85 * r;
  ring.parking = 0;
  radial.lanes[0] = radial.lanes[1] = 1;
  int node[4];
  for (int k = 0; k < 4; k++) {
    double a = k * M_PI_2;
    node[k] = dj__town_node(t, r * cos(a), r * sin(a));
    if (!t->failed && dj__town_chance(t, 0.5)) {
      t->node[node[k]].kind = NODE_ROUNDABOUT;
      ring.lanes[0] = ring.lanes[1] = 1;
    }
  }
  for (int k = 0; k < 4; k++)
    ring_piece(t, node[k], node[(k + 1) % 4], k * M_PI_2, (k + 1) * M_PI_2, r, &ring);
  for (int k = 0; k < 4 && !t->failed; k++) { /* straight spokes from the ring to the town */
    const dj__node *a = &t->node[v.port[k].node];
    double reach = hypot(a->x, a->y), angle = k * M_PI_2;
    int e = dj__town_edge(t, node[k], v.port[k].node, &radial);
    if (r - reach > 70) dj__town_via(t, e, (r - 60) * cos(angle), (r - 60) * sin(angle));
  }
  double half = fmax(760, 0.6 * size), north = r + dj__town_uniform(t, 215, 260);
  frame f = {dj__town_uniform(t, -30, 30), north, 1, 0};
  int w = end_roundabout(t, -half, north - dj__town_uniform(t, 40, 120)),
      e = end_roundabout(t, half, north - dj__town_uniform(t, 40, 120));
  int link = dj__town_node(t, f.x, north - 108);
  bool both = dj__town_chance(t, 0.4); /* then a country road leads round the motorway's far side */
  int beyond = both ? dj__town_node(t, f.x, north + 108) : -1;
  motorway(t, &f, w, e, link, beyond);
  if (both) {
    int over = dj__town_node(t, f.x + dj__town_uniform(t, -80, 80), north + 330);
    wind(t, way_at(beyond, M_PI_2), way_at(over, -M_PI_2), &minor, 6);
    wind(t, way_at(w, M_PI_2), way_at(over, M_PI), &minor, dj__town_uniform(t, 15, 30));
    wind(t, way_at(over, 0), way_at(e, M_PI_2), &minor, dj__town_uniform(t, 15, 30));
  }
  wind(t, way_at(link, -M_PI_2), way_at(node[1], M_PI_2), &main, 0);
  wind(t, way_at(w, -M_PI_2), way_at(node[2], M_PI), &main, dj__town_uniform(t, 15, 35));
  wind(t, way_at(e, -M_PI_2), way_at(node[0], 0), &main, dj__town_uniform(t, 15, 35));
  int south = outpost(t, dj__town_uniform(t, -150, 150), -r - dj__town_uniform(t, 260, 360), 0.5);
  wind(t, way_at(node[3], -M_PI_2), way_at(south, M_PI_2), &main, 10);
  wind(t, way_at(w, M_PI), way_at(south, M_PI), &minor, dj__town_uniform(t, 25, 45));
  wind(t, way_at(e, 0), way_at(south, 0), &minor, dj__town_uniform(t, 25, 45));
}
