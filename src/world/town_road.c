/*
 * Streets into roads: geometry, lane sections, marks, heights, speed limit signs.
 *
 * A road has up to three sections: near both junctions parking lanes give way to wider pavements
 * and lines between lanes are solid for who drives up to the junction; between them is the street
 * proper.
 */
#include <math.h>
#include <stdio.h>

#include "world/town.h"

#define APPROACH 22.0  /* m of a section at a junction */
#define TAPER    4.0   /* m over which parking lanes begin and end */
#define KNOT     24.0  /* m between knots of the height profile */
#define FLAT     10.0  /* m at junctions without a slope */
#define GRADE    0.038 /* between knots; the cubic between them reaches 1.5 times it */

dj__road *dj__push_road(dj__build *b, const char *prefix) {
  int index = b->m->n_road;
  dj__road *r = DJ__PUSH(b, road);
  (void)snprintf(r->id, sizeof r->id, "%d", index);
  (void)snprintf(r->name, sizeof r->name, "%s %d", prefix, index);
  r->junction = -1;
  r->geom0 = b->m->n_geom;
  r->elevation0 = b->m->n_elevation;
  r->offset0 = b->m->n_offset;
  r->section0 = b->m->n_section;
  return r;
}

dj__section *dj__push_section(dj__build *b, double s) {
  dj__section *k = DJ__PUSH(b, section);
  k->s = s;
  k->lane0 = b->m->n_road_lane;
  return k;
}

static void push_width(dj__build *b, double s, double w0, double w1, double length) {
  double d = w1 - w0;
  dj__poly3 *p = DJ__PUSH(b, width);
  *p = (dj__poly3){.s = s, .a = w0};
  if (d != 0) {
    p->c = 3 * d / (length * length);
    p->d = -2 * d / (length * length * length);
  }
}

dj__road_lane *dj__push_lane(dj__build *b, int id, dj__lane_type type, double w0, double w1,
                             double length, dj__mark_type mark, bool yellow) {
  dj__map *m = b->m;
  int width0 = m->n_width, mark0 = m->n_mark;
  if (id != 0) push_width(b, 0, w0, w1, length);
  if (mark != DJ__MARK_NONE)
    *DJ__PUSH(b, mark) = (dj__road_mark){.type = mark, .yellow = yellow, .width = 0.14};
  dj__road_lane *l = DJ__PUSH(b, road_lane);
  *l = (dj__road_lane){.id = id,
                       .type = type,
                       .width0 = width0,
                       .n_width = m->n_width - width0,
                       .mark0 = mark0,
                       .n_mark = m->n_mark - mark0,
                       .lane = -1};
  if (!b->failed && m->n_section > 0) m->section[m->n_section - 1].n_lane++;
  return l;
}

/* ---- sections ---- */
typedef struct strip { /* a lane of one side, from the middle outwards */
  dj__lane_type type;
  double width;
  dj__mark_type mark; /* outer edge */
} strip;

static int strips(const dj__street *s, int side, bool parking, bool solid, strip *o) {
  int n = 0, lanes = s->lanes[side];
  if (s->median > 0 && lanes) o[n++] = (strip){DJ__LANE_MEDIAN, 0.5 * s->median, DJ__MARK_SOLID};
  for (int i = 0; i < lanes; i++)
    o[n++] = (strip){DJ__LANE_DRIVING, s->lane, solid ? DJ__MARK_SOLID : DJ__MARK_BROKEN};
  bool town = s->sidewalk > 0, used = lanes > 0;
  if (used && s->bike > 0) o[n++] = (strip){DJ__LANE_BIKING, s->bike, DJ__MARK_SOLID};
  if (lanes) { /* the edge of what is driven on */
    strip *edge = &o[n - 1];
    bool more = parking && s->parking > 0;
    if (edge->type == DJ__LANE_DRIVING) edge->mark = town && !more ? DJ__MARK_CURB : DJ__MARK_SOLID;
    if (edge->type == DJ__LANE_BIKING && town && !more) edge->mark = DJ__MARK_CURB;
    if (edge->type == DJ__LANE_BIKING && o[n - 2].type == DJ__LANE_DRIVING)
      o[n - 2].mark = DJ__MARK_SOLID;
  }
  if (parking && s->parking > 0)
    o[n++] = (strip){DJ__LANE_PARKING, s->parking, town ? DJ__MARK_CURB : DJ__MARK_NONE};
  if (s->shoulder > 0)
    o[n++] = (strip){DJ__LANE_SHOULDER, used ? s->shoulder : fmin(s->shoulder, 0.6), DJ__MARK_NONE};
  if (town) o[n++] = (strip){DJ__LANE_SIDEWALK, s->sidewalk, DJ__MARK_NONE};
  return n;
}

/* The lane of another section that a strip goes on in: of the same type and rank of its type. */
static int same_strip(const strip *from, int i, const strip *to, int n) {
  int rank = 0;
  for (int k = 0; k < i; k++) rank += from[k].type == from[i].type;
  for (int k = 0; k < n; k++)
    if (to[k].type == from[i].type && rank-- == 0) return k + 1;
  return 0;
}

static dj__mark_type centre_mark(const dj__street *s, bool solid) {
  if (s->lanes[0] == 0 || s->lanes[1] == 0 || s->median > 0)
    return s->median > 0 ? DJ__MARK_NONE : DJ__MARK_SOLID;
  if (s->unmarked) return DJ__MARK_NONE;
  if (s->lanes[0] > 1 || s->lanes[1] > 1) return DJ__MARK_SOLID_SOLID;
  return solid ? DJ__MARK_SOLID : DJ__MARK_BROKEN;
}

typedef struct part { /* a section: which strips it has on each side */
  double s, length;
  bool parking;
  bool solid[2];
} part;

static void push_strip(dj__town *t, const part *p, int id, const strip *s, int pred, int succ) {
  dj__build *b = &t->b;
  bool taper = s->type == DJ__LANE_PARKING;
  dj__road_lane *l =
      dj__push_lane(b, id, s->type, taper ? 0 : s->width, s->width, TAPER, s->mark, false);
  l->pred = pred;
  l->succ = succ;
  if (!taper) return;
  int index = b->m->n_road_lane - 1;
  push_width(b, TAPER, s->width, s->width, 1);
  push_width(b, p->length - TAPER, s->width, 0, TAPER);
  if (!b->failed) b->m->road_lane[index].n_width = 3;
}

static void push_part(dj__town *t, const dj__street *s, const part *before, const part *p,
                      const part *after) {
  dj__build *b = &t->b;
  strip own[16], last[16], next[16];
  dj__push_section(b, p->s);
  for (int side = 1; side >= 0; side--) {
    int n = strips(s, side, p->parking, p->solid[side], own), n_last = 0, n_next = 0;
    if (before) n_last = strips(s, side, before->parking, before->solid[side], last);
    if (after) n_next = strips(s, side, after->parking, after->solid[side], next);
    for (int k = 0; k < n; k++) {
      int i = side ? n - 1 - k : k, sign = side ? 1 : -1;
      push_strip(t, p, sign * (i + 1), &own[i], sign * same_strip(own, i, last, n_last),
                 sign * same_strip(own, i, next, n_next));
    }
    if (side == 1)
      dj__push_lane(b, 0, DJ__LANE_NONE, 0, 0, 1, centre_mark(s, p->solid[0] && p->solid[1]),
                    t->yellow && s->lanes[0] && s->lanes[1]);
  }
}

/* Lanes at the ends go on under the same id where two roads meet without a junction; in junctions
 * the connections say where. */
static void push_sections(dj__town *t, const dj__street *s, double length) {
  part p[3];
  int n = 0;
  double near = fmin(APPROACH, 0.3 * length);
  bool whole = length<45, parking = s->parking> 0 && length > 70;
  if (whole) {
    p[n++] = (part){0, length, false, {s->zone == DJ__ZONE_TOWN, s->zone == DJ__ZONE_TOWN}};
  } else {
    p[n++] = (part){0, near, false, {false, true}};
    p[n++] = (part){near, length - 2 * near, parking, {false, false}};
    p[n++] = (part){length - near, near, false, {true, false}};
  }
  if (s->lanes[0] == 1 && s->lanes[1] == 1 && !whole) /* the middle line is one for both */
    p[0].solid[0] = p[0].solid[1] = p[2].solid[0] = p[2].solid[1] = true;
  for (int i = 0; i < n; i++)
    push_part(t, s, i ? &p[i - 1] : NULL, &p[i], i + 1 < n ? &p[i + 1] : NULL);
}

/* ---- heights ---- */
double dj__town_ground(const dj__town *t, double x, double y) {
  return t->hills * (dj__noise2(t->seed + 101, x / t->rough, y / t->rough) +
                     0.35 * dj__noise2(t->seed + 102, 2.3 * x / t->rough, 2.3 * y / t->rough));
}

static void push_heights(dj__town *t, int road, double za, double zb) {
  enum { MAX_KNOTS = 256 };
  dj__build *b = &t->b;
  if (b->failed) return;
  double length = b->m->road[road].length, z[MAX_KNOTS + 1];
  double flat = fmin(FLAT, 0.3 * length), run = length - 2 * flat;
  int n = (int)fmax(1, fmin(MAX_KNOTS, round(run / KNOT)));
  double step = run / n, first = 0, last = 0;
  for (int i = 0; i <= n; i++) {
    dj__pose p;
    dj__road_at(b->m, road, flat + i * step, &p);
    z[i] = dj__town_ground(t, p.x, p.y);
  }
  first = za - z[0];
  last = zb - z[n];
  for (int i = 0; i <= n; i++) z[i] += first + (last - first) * i / n;
  for (int sweep = 0; sweep < 400; sweep++) /* towards the chord until no stretch is too steep */
    for (int i = 1; i < n; i++) {
      double mid = 0.5 * (z[i - 1] + z[i + 1]);
      if (fabs(z[i] - z[i - 1]) > GRADE * step || fabs(z[i + 1] - z[i]) > GRADE * step) z[i] = mid;
    }
  *DJ__PUSH(b, elevation) = (dj__poly3){.s = 0, .a = za};
  for (int i = 0; i < n; i++) {
    double m0 = i > 0 ? (z[i + 1] - z[i - 1]) / (2 * step) : 0;
    double m1 = i + 2 <= n ? (z[i + 2] - z[i]) / (2 * step) : 0, d = (z[i + 1] - z[i]) / step;
    *DJ__PUSH(b, elevation) = (dj__poly3){.s = flat + i * step,
                                          .a = z[i],
                                          .b = m0,
                                          .c = (3 * d - 2 * m0 - m1) / step,
                                          .d = (m0 + m1 - 2 * d) / (step * step)};
  }
  *DJ__PUSH(b, elevation) = (dj__poly3){.s = length - flat, .a = zb};
}

/* ---- roads ---- */
/* The highest usual limit at which a bend is taken with no more than 3 m/s^2. */
static double limit_for(double wanted, double radius) {
  static const double kmh[] = {120, 100, 80, 70, 60, 50, 40, 30, 20};
  for (size_t i = 0; i < sizeof kmh / sizeof *kmh; i++)
    if (kmh[i] * KMH <= wanted + 0.01 && kmh[i] * KMH * kmh[i] * KMH <= 3 * radius)
      return kmh[i] * KMH;
  return 20 * KMH;
}

static void push_speed_signs(dj__town *t, const dj__edge *e) {
  dj__build *b = &t->b;
  if (b->failed) return;
  const dj__road *r = &b->m->road[e->road];
  if (r->length < 60) return;
  for (int side = 0; side < 2; side++) {
    if (e->street.lanes[side] == 0 || !dj__town_chance(t, 0.6)) continue;
    double half = dj__street_half(&e->street, side) + (e->street.parking > 0 ? 0.4 : 0.8);
    dj__signal *g = DJ__PUSH(b, signal);
    *g = (dj__signal){.kind = DJ__SIGNAL_SPEED,
                      .road = e->road,
                      .s = side ? r->length - 16 : 16,
                      .t = side ? half : -half,
                      .z_offset = 2.1,
                      .forward = side == 0,
                      .value = r->speed,
                      .controller = -1,
                      .stop = -1};
    (void)snprintf(g->id, sizeof g->id, "%d", b->m->n_signal - 1);
  }
}

void dj__town_road(dj__town *t, int edge) {
  dj__build *b = &t->b;
  dj__edge *e = &t->edge[edge];
  double p[TOWN_VIA + 2][2], radius[TOWN_VIA + 2];
  int n = e->n_via + 2, road = b->m->n_road;
  p[0][0] = t->node[e->a].x;
  p[0][1] = t->node[e->a].y;
  p[n - 1][0] = t->node[e->b].x;
  p[n - 1][1] = t->node[e->b].y;
  for (int i = 0; i < n; i++) radius[i] = e->street.radius;
  for (int i = 0; i < e->n_via; i++)
    for (int k = 0; k < 2; k++) p[i + 1][k] = e->via[i][k];
  double d0 = hypot(p[1][0] - p[0][0], p[1][1] - p[0][1]),
         d1 = hypot(p[n - 2][0] - p[n - 1][0], p[n - 2][1] - p[n - 1][1]);
  double f0 = e->cut[0] / d0, f1 = e->cut[1] / d1, first[2], last[2];
  for (int k = 0; k < 2; k++) {
    first[k] = p[0][k] + f0 * (p[1][k] - p[0][k]);
    last[k] = p[n - 1][k] + f1 * (p[n - 2][k] - p[n - 1][k]);
  }
  for (int k = 0; k < 2; k++) {
    p[0][k] = first[k];
    p[n - 1][k] = last[k];
  }
  static const char *const kind[] = {"Lane", "Street", "Avenue", "Main Road"};
  dj__road *r = dj__push_road(b, kind[e->street.rank]);
  r->zone = e->street.zone;
  double tightest;
  double length = dj__push_polyline(b, p, radius, n, 0.25, 8, 8, &tightest);
  if (b->failed) return;
  r = &b->m->road[road];
  r->length = length;
  r->n_geom = b->m->n_geom - r->geom0;
  double inner = 0.7 * fmax(dj__street_half(&e->street, 0), dj__street_half(&e->street, 1));
  r->speed = limit_for(e->street.speed, tightest - inner);
  t->tight |= tightest - inner < 10.5;
  e->road = road;
  push_heights(t, road, t->node[e->a].z, t->node[e->b].z);
  push_sections(t, &e->street, length);
  if (b->failed) return;
  r->n_elevation = b->m->n_elevation - r->elevation0;
  r->n_section = b->m->n_section - r->section0;
  push_speed_signs(t, e);
}
