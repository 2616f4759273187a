/*
 * The common subset of ASAM OpenDRIVE 1.4 to 1.7, as CARLA, RoadRunner and esmini write it: lines,
 * arcs, clothoids, (param)poly3, heights, lane offsets, lane sections with widths, marks and
 * speeds, junctions, signals and their controllers, crosswalks. Read event by event (expat);
 * references are resolved at the end, when all roads are known. Superelevation, crossfall and lane
 * borders are read over and named in one message.
 *
 * Files come from anywhere: every number is checked to be finite and of a sane size, counts and
 * lengths are limited, document types are refused. Errors name the file, the line, and what was
 * expected.
 */
#include <errno.h>
#include <expat.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "dojo/log.h"
#include "world/map_build.h"
#include "world/xodr.h"

enum {
  DEPTH = 32,
  MAX_LANES = 60,
  MAX_THINGS = 400000,
  MAX_SIGNALS = 50000,
  MAX_CONTROLLERS = 20000
};
#define MAX_VALUE 1e7
#define MAX_ROAD  1e5  /* m */
#define MAX_TOTAL 1e6  /* m */
#define MAX_TURN  20.0 /* rad within one piece */
#define MAX_FILE  ((size_t)256 << 20)
#define MAX_SLACK 0.5 /* m by which a road's length may differ from its pieces' */

#define ELEMENTS(X)                                                                                \
  X(OpenDRIVE)                                                                                     \
  X(header)                                                                                        \
  X(userData)                                                                                      \
  X(road)                                                                                          \
  X(link)                                                                                          \
  X(predecessor)                                                                                   \
  X(successor)                                                                                     \
  X(type)                                                                                          \
  X(speed)                                                                                         \
  X(planView)                                                                                      \
  X(geometry)                                                                                      \
  X(line)                                                                                          \
  X(arc)                                                                                           \
  X(spiral)                                                                                        \
  X(poly3)                                                                                         \
  X(paramPoly3)                                                                                    \
  X(elevationProfile)                                                                              \
  X(elevation)                                                                                     \
  X(lateralProfile)                                                                                \
  X(superelevation)                                                                                \
  X(crossfall)                                                                                     \
  X(shape)                                                                                         \
  X(lanes)                                                                                         \
  X(laneOffset)                                                                                    \
  X(laneSection)                                                                                   \
  X(left)                                                                                          \
  X(center)                                                                                        \
  X(right)                                                                                         \
  X(lane)                                                                                          \
  X(width)                                                                                         \
  X(border)                                                                                        \
  X(roadMark)                                                                                      \
  X(objects)                                                                                       \
  X(object)                                                                                        \
  X(outlines)                                                                                      \
  X(outline)                                                                                       \
  X(cornerLocal)                                                                                   \
  X(signals)                                                                                       \
  X(signal)                                                                                        \
  X(signalReference) X(validity) X(controller) X(control) X(junction) X(connection) X(laneLink)
typedef enum element {
  E_NONE,
#define X(name) E_##name,
  ELEMENTS(X)
#undef X
} element;

typedef struct raw_road { /* what its names refer to */
  char pred[32], succ[32], junction[32];
  int line;
} raw_road;
typedef struct raw_connection {
  char incoming[32], connecting[32];
  int junction, line;
} raw_connection;
typedef struct raw_control { /* signal of a controller */
  char signal[32];
  int controller;
} raw_control;
typedef struct raw_phase { /* controller of a junction */
  char controller[32];
  int junction, sequence;
} raw_phase;
typedef struct named {
  char id[32];
  int index;
} named;

typedef struct reader {
  dj__build b;
  const char *name;
  XML_Parser p;
  dj_status status;
  int depth, skipped; /* skipped: superelevation and the like */
  element stack[DEPTH];
  raw_road *road;
  raw_connection *connection;
  raw_control *control;
  raw_phase *phase;
  int n_road, n_connection, n_control, n_phase;
  dj__lane_renames renames;
  double total;
  bool typed, crosswalk, has_corner;
  double hdg, corner[4]; /* of the present crosswalk: least and most along s, along t */
  double object_s, object_t, object_length, object_width;
} reader;

/* ---- helpers ---- */
static void fail(reader *r, dj_status s, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void fail(reader *r, dj_status s, const char *fmt, ...) {
  if (r->status) return;
  char what[512];
  va_list a;
  va_start(a, fmt);
  (void)vsnprintf(what, sizeof what, fmt, a);
  va_end(a);
  r->status =
      dj_error(s, "%s:%lu: %s", r->name, (unsigned long)XML_GetCurrentLineNumber(r->p), what);
  (void)XML_StopParser(r->p, XML_FALSE);
}

static void *push(reader *r, void *array, int *n, size_t size) {
  return dj__build_push(&r->b, array, n, size);
}
#define PUSH(r, what)                                                                              \
  ((__typeof__((r)->what))push((r), &(r)->what, &(r)->n_##what, sizeof *(r)->what))

static const char *find(const char **at, const char *name) {
  for (; at[0]; at += 2)
    if (strcmp(at[0], name) == 0) return at[1];
  return NULL;
}

static const char *text(reader *r, const char **at, const char *name) { /* that must be there */
  const char *v = find(at, name);
  if (!v) fail(r, DJ_E_FORMAT, "expected an attribute '%s'", name);
  return v ? v : "";
}

static void copy_id(reader *r, const char **at, const char *name, char out[32]) {
  const char *v = text(r, at, name);
  if (strlen(v) > 31) fail(r, DJ_E_LIMIT, "%s=\"%.40s...\": ids have at most 31 letters", name, v);
  (void)snprintf(out, 32, "%s", v);
}

static double parse(reader *r, const char *name, const char *v) {
  char *end;
  double x = strtod(v, &end);
  while (*end == ' ') end++;
  if (end == v || *end) {
    fail(r, DJ_E_FORMAT, "%s=\"%.40s\": expected a number", name, v);
    return 0;
  }
  if (!(fabs(x) <= MAX_VALUE)) {
    fail(r, DJ_E_FORMAT, "%s=\"%.40s\": expected a number between -%g and %g", name, v, MAX_VALUE,
         MAX_VALUE);
    return 0;
  }
  return x;
}

static double number(reader *r, const char **at, const char *name) {
  return parse(r, name, text(r, at, name));
}

static double number_or(reader *r, const char **at, const char *name, double otherwise) {
  const char *v = find(at, name);
  return v && *v ? parse(r, name, v) : otherwise;
}

static int whole(reader *r, const char **at, const char *name) {
  double v = number(r, at, name);
  if (v != floor(v) || fabs(v) > 1e6) {
    fail(r, DJ_E_FORMAT, "%s=\"%s\": expected a whole number", name, find(at, name));
    return 0;
  }
  return (int)v;
}

static double speed_of(reader *r, const char *value, const char *unit, double otherwise) {
  if (!value || strcmp(value, "no limit") == 0 || strcmp(value, "undefined") == 0) return otherwise;
  double v = parse(r, "max", value);
  if (unit && strcmp(unit, "km/h") == 0) v /= 3.6;
  if (unit && strcmp(unit, "mph") == 0) v *= 0.44704;
  return v > 0 ? fmin(v, 100) : otherwise;
}

static bool within(const reader *r, int up, element e) { /* 1: parent, 2: its parent, ... */
  return r->depth - up >= 0 && r->stack[r->depth - up] == e;
}

static dj__road *this_road(reader *r) {
  return r->b.m->n_road ? &r->b.m->road[r->b.m->n_road - 1] : (dj__road *)(void *)r->b.scratch;
}

static dj__road_lane *this_lane(reader *r) {
  return &r->b.m->road_lane[r->b.m->n_road_lane - 1];
}

static void cubic(reader *r, const char **at, const char *where, dj__poly3 *p) {
  *p = (dj__poly3){.s = number(r, at, where),
                   .a = number(r, at, "a"),
                   .b = number(r, at, "b"),
                   .c = number(r, at, "c"),
                   .d = number(r, at, "d")};
}

static void in_order(reader *r, const char *what, const dj__poly3 *p, int n) {
  if (n > 1 && !(p[n - 1].s >= p[n - 2].s))
    fail(r, DJ_E_FORMAT, "%s at s=%g behind one at s=%g: expected them in order", what, p[n - 1].s,
         p[n - 2].s);
}

/* ---- roads ---- */
static void start_road(reader *r, const char **at) {
  dj__map *m = r->b.m;
  if (m->n_road >= MAX_THINGS) fail(r, DJ_E_LIMIT, "more than %d roads", MAX_THINGS);
  dj__road *o = DJ__PUSH(&r->b, road);
  copy_id(r, at, "id", o->id);
  const char *name = find(at, "name"), *rule = find(at, "rule");
  (void)snprintf(o->name, sizeof o->name, "%.63s", name ? name : "");
  o->length = number(r, at, "length");
  if (!(o->length > 0 && o->length <= MAX_ROAD))
    fail(r, DJ_E_FORMAT, "road %s: length=%g: expected above 0 and at most %g m", o->id, o->length,
         MAX_ROAD);
  r->total += o->length;
  if (r->total > MAX_TOTAL)
    fail(r, DJ_E_LIMIT, "roads of more than %g km in all", MAX_TOTAL / 1000);
  o->left_hand = rule && strcmp(rule, "LHT") == 0;
  o->junction = -1;
  o->geom0 = m->n_geom;
  o->elevation0 = m->n_elevation;
  o->offset0 = m->n_offset;
  o->section0 = m->n_section;
  r->typed = false;
  raw_road *w = PUSH(r, road);
  w->line = (int)XML_GetCurrentLineNumber(r->p);
  if (find(at, "junction")) copy_id(r, at, "junction", w->junction);
}

static void road_link(reader *r, const char **at, bool succ) {
  dj__road *o = this_road(r);
  dj__link *l = succ ? &o->succ : &o->pred;
  const char *kind = text(r, at, "elementType"), *touch = find(at, "contactPoint");
  l->kind = strcmp(kind, "road") == 0       ? DJ__LINK_ROAD
            : strcmp(kind, "junction") == 0 ? DJ__LINK_JUNCTION
                                            : DJ__LINK_NONE;
  if (l->kind == DJ__LINK_NONE)
    fail(r, DJ_E_FORMAT, "elementType=\"%.40s\": expected \"road\" or \"junction\"", kind);
  l->at_start = touch ? strcmp(touch, "start") == 0 : succ;
  if (r->n_road)
    copy_id(r, at, "elementId", succ ? r->road[r->n_road - 1].succ : r->road[r->n_road - 1].pred);
}

static void start_geometry(reader *r, const char **at) {
  dj__road *o = this_road(r);
  dj__geom *g = DJ__PUSH(&r->b, geom);
  *g = (dj__geom){.s = number(r, at, "s"),
                  .x = number(r, at, "x"),
                  .y = number(r, at, "y"),
                  .hdg = number(r, at, "hdg"),
                  .length = number(r, at, "length")};
  if (r->b.failed) return;
  if (!(g->length >= 0 && g->length <= MAX_ROAD))
    fail(r, DJ_E_FORMAT, "geometry: length=%g: expected 0 to %g m", g->length, MAX_ROAD);
  double behind = o->n_geom ? g[-1].s + g[-1].length : 0;
  if (fabs(g->s - behind) > MAX_SLACK)
    fail(r, DJ_E_FORMAT, "geometry: s=%g: expected %g, where the one before ends", g->s, behind);
  o->n_geom++;
}

/* v(u) over u, as long as the piece: as a cubic of 0..1. */
static void poly3_shape(dj__geom *g, const double v[4]) {
  double lo = 0, hi = g->length;
  for (int step = 0; step < 50; step++) {
    double mid = 0.5 * (lo + hi), length = 0;
    for (int i = 0; i < 64; i++) {
      double u = mid * (i + 0.5) / 64, slope = v[1] + u * (2 * v[2] + 3 * u * v[3]);
      length += mid / 64 * sqrt(1 + slope * slope);
    }
    if (length > g->length)
      hi = mid;
    else
      lo = mid;
  }
  g->kind = DJ__GEOM_PARAM_POLY3;
  g->normalized = true;
  g->u[1] = hi;
  for (int i = 0; i < 4; i++) g->v[i] = v[i] * pow(hi, i);
}

static void shape(reader *r, element e, const char **at) {
  if (r->b.m->n_geom == 0) return;
  dj__geom *g = &r->b.m->geom[r->b.m->n_geom - 1];
  if (e == E_line) {
    g->kind = DJ__GEOM_LINE;
  } else if (e == E_arc) {
    g->kind = DJ__GEOM_ARC;
    g->curv0 = g->curv1 = number(r, at, "curvature");
  } else if (e == E_spiral) {
    g->kind = DJ__GEOM_SPIRAL;
    g->curv0 = number(r, at, "curvStart");
    g->curv1 = number(r, at, "curvEnd");
  } else if (e == E_poly3) {
    double v[4] = {number(r, at, "a"), number(r, at, "b"), number(r, at, "c"), number(r, at, "d")};
    poly3_shape(g, v);
  } else {
    static const char *const u[] = {"aU", "bU", "cU", "dU"}, *const v[] = {"aV", "bV", "cV", "dV"};
    const char *range = find(at, "pRange");
    g->kind = DJ__GEOM_PARAM_POLY3;
    g->normalized = !range || strcmp(range, "normalized") == 0;
    for (int i = 0; i < 4; i++) {
      g->u[i] = number(r, at, u[i]);
      g->v[i] = number(r, at, v[i]);
    }
  }
  if (0.5 * (fabs(g->curv0) + fabs(g->curv1)) * g->length > MAX_TURN)
    fail(r, DJ_E_FORMAT,
         "a curve of %g m with curvature %g to %g: expected at most %g rad in one piece", g->length,
         g->curv0, g->curv1, MAX_TURN);
}

static void road_profile(reader *r, element e, const char **at) {
  dj__map *m = r->b.m;
  dj__road *o = this_road(r);
  if (e == E_elevation) {
    cubic(r, at, "s", DJ__PUSH(&r->b, elevation));
    if (!r->b.failed) in_order(r, "elevation", m->elevation + o->elevation0, ++o->n_elevation);
  } else {
    cubic(r, at, "s", DJ__PUSH(&r->b, offset));
    if (!r->b.failed) in_order(r, "laneOffset", m->offset + o->offset0, ++o->n_offset);
  }
}

/* ---- lanes ---- */
static void start_section(reader *r, const char **at) {
  dj__map *m = r->b.m;
  dj__road *o = this_road(r);
  dj__section *k = DJ__PUSH(&r->b, section);
  k->s = number(r, at, "s");
  k->lane0 = m->n_road_lane;
  if (r->b.failed) return;
  double before = o->n_section ? k[-1].s : 0;
  if (!(k->s >= before && (o->n_section > 0 || k->s < 1e-3)) || k->s > o->length)
    fail(r, DJ_E_FORMAT, "laneSection: s=%g: expected %s and at most the road's length %g", k->s,
         o->n_section ? "them in order" : "0 for the first one", o->length);
  if (o->n_section == 0) k->s = 0;
  o->n_section++;
}

static void start_lane(reader *r, const char **at) {
  dj__map *m = r->b.m;
  if (m->n_section == 0) return;
  dj__section *k = &m->section[m->n_section - 1];
  if (k->n_lane >= MAX_LANES) fail(r, DJ_E_LIMIT, "more than %d lanes in a section", MAX_LANES);
  dj__road_lane *l = DJ__PUSH(&r->b, road_lane);
  *l = (dj__road_lane){.id = whole(r, at, "id"),
                       .type = dj__xodr_find_lane_type(text(r, at, "type")),
                       .width0 = m->n_width,
                       .mark0 = m->n_mark,
                       .lane = -1};
  int side = within(r, 1, E_left) ? 1 : within(r, 1, E_right) ? -1 : 0;
  if ((l->id > 0) - (l->id < 0) != side)
    fail(r, DJ_E_FORMAT, "lane id=%d: expected %s", l->id,
         side > 0   ? "above 0 on the left"
         : side < 0 ? "below 0 on the right"
                    : "0 in the middle");
  if (l->id == 0) l->type = DJ__LANE_NONE;
  if (!r->b.failed) k->n_lane++;
}

static void lane_part(reader *r, element e, const char **at) {
  dj__map *m = r->b.m;
  if (m->n_road_lane == 0) return;
  dj__road_lane *l = this_lane(r);
  if (e == E_width) {
    if (l->id == 0) return;
    cubic(r, at, "sOffset", DJ__PUSH(&r->b, width));
    if (r->b.failed) return;
    const dj__poly3 *p = m->width + l->width0;
    in_order(r, "width", p, ++l->n_width);
    if (!(p[l->n_width - 1].a > -0.01 && p[l->n_width - 1].a < 100))
      fail(r, DJ_E_FORMAT, "width: a=%g: expected 0 to 100 m", p[l->n_width - 1].a);
  } else if (e == E_roadMark) {
    const char *colour = find(at, "color"), *type = find(at, "type");
    dj__road_mark *k = DJ__PUSH(&r->b, mark);
    k->s = number_or(r, at, "sOffset", 0);
    k->type = dj__xodr_find_mark_type(type ? type : "none");
    k->yellow = colour && strcmp(colour, "yellow") == 0;
    k->width = fmin(fmax(number_or(r, at, "width", 0.12), 0), 1);
    if (!r->b.failed) l->n_mark++;
  } else if (e == E_speed) {
    double v = speed_of(r, find(at, "max"), find(at, "unit"), 0);
    if (l->speed == 0) l->speed = v;
  } else if (e == E_border) {
    r->skipped++;
  }
}

static int by_id(const void *a, const void *b) { /* from the leftmost */
  const dj__road_lane *p = a, *q = b;
  return p->id > q->id ? -1 : p->id < q->id;
}

static void end_section(reader *r) {
  dj__map *m = r->b.m;
  if (m->n_section == 0 || r->status) return;
  dj__section *k = &m->section[m->n_section - 1];
  bool centre = false;
  for (int i = 0; i < k->n_lane; i++) centre |= m->road_lane[k->lane0 + i].id == 0;
  if (!centre) {
    *DJ__PUSH(&r->b, road_lane) = (dj__road_lane){.lane = -1};
    if (r->b.failed) return;
    k->n_lane++;
  }
  dj__road_lane *l = m->road_lane + k->lane0;
  qsort(l, (size_t)k->n_lane, sizeof *l, by_id);
  for (int i = 1; i < k->n_lane; i++)
    if (l[i].id != l[i - 1].id - 1)
      fail(r, DJ_E_FORMAT, "lane section at s=%g: lane %d next to %d: expected ids without gaps",
           k->s, l[i].id, l[i - 1].id);
}

static void end_road(reader *r) {
  dj__road *o = this_road(r);
  dj__map *m = r->b.m;
  if (r->b.failed || r->status) return;
  if (o->n_geom == 0) {
    fail(r, DJ_E_FORMAT, "road %s: expected a planView with a geometry", o->id);
    return;
  }
  if (o->n_section == 0) {
    fail(r, DJ_E_FORMAT, "road %s: expected lanes with a laneSection", o->id);
    return;
  }
  const dj__geom *last = &m->geom[o->geom0 + o->n_geom - 1];
  if (fabs(last->s + last->length - o->length) > MAX_SLACK)
    fail(r, DJ_E_FORMAT, "road %s: length=%g, but its geometry is %g m long", o->id, o->length,
         last->s + last->length);
  static const double usual[] = {50 / 3.6, 60 / 3.6, 80 / 3.6, 120 / 3.6, 2.5};
  if (!(o->speed > 0)) o->speed = usual[o->zone];
  dj__xodr_drop_slivers(&r->b, m->n_road - 1, &r->renames);
}

/* ---- objects and signals ---- */
static void start_object(reader *r, const char **at) {
  const char *type = find(at, "type");
  r->crosswalk = type && strcmp(type, "crosswalk") == 0;
  if (!r->crosswalk) return;
  r->object_s = number(r, at, "s");
  r->object_t = number(r, at, "t");
  r->hdg = number_or(r, at, "hdg", 0);
  r->object_length = number_or(r, at, "length", 0);
  r->object_width = number_or(r, at, "width", 0);
  r->has_corner = false;
}

static void corner(reader *r, double u, double v) {
  double s = u * cos(r->hdg) - v * sin(r->hdg), t = u * sin(r->hdg) + v * cos(r->hdg);
  double *c = r->corner;
  c[0] = r->has_corner ? fmin(c[0], s) : s;
  c[1] = r->has_corner ? fmax(c[1], s) : s;
  c[2] = r->has_corner ? fmin(c[2], t) : t;
  c[3] = r->has_corner ? fmax(c[3], t) : t;
  r->has_corner = true;
}

static void end_object(reader *r) {
  if (!r->crosswalk || r->b.m->n_road == 0) return;
  r->crosswalk = false;
  if (!r->has_corner)
    for (int k = 0; k < 4; k++)
      corner(r, (k & 1 ? 0.5 : -0.5) * r->object_length, (k & 2 ? 0.5 : -0.5) * r->object_width);
  dj__crossing *c = DJ__PUSH(&r->b, crossing);
  const double *v = r->corner;
  *c = (dj__crossing){.road = r->b.m->n_road - 1,
                      .s = fmin(fmax(r->object_s + 0.5 * (v[0] + v[1]), 0), this_road(r)->length),
                      .t0 = r->object_t + v[2],
                      .t1 = r->object_t + v[3],
                      .width = fmax(v[1] - v[0], 1),
                      .junction = -1};
  if (!(c->t1 - c->t0 < 200 && c->width < 100))
    fail(r, DJ_E_FORMAT,
         "crosswalk of %g m across and %g m along the road: expected at most 200 and 100",
         c->t1 - c->t0, c->width);
  if (r->b.m->n_crossing > MAX_SIGNALS) fail(r, DJ_E_LIMIT, "more than %d crosswalks", MAX_SIGNALS);
}

static double sign_speed(reader *r, const char **at, const char *type) {
  const char *unit = find(at, "unit"), *sub = find(at, "subtype");
  double v = number_or(r, at, "value", 0);
  if (!unit || !*unit) unit = type[0] == 'R' ? "mph" : "km/h";
  if (!(v > 0) && sub) v = strtod(sub, NULL);
  v *= strcmp(unit, "km/h") == 0 ? 1 / 3.6 : strcmp(unit, "mph") == 0 ? 0.44704 : 1;
  return v > 0 && v < 100 ? v : 0;
}

static void start_signal(reader *r, const char **at, bool reference) {
  if (r->b.m->n_signal >= MAX_SIGNALS) fail(r, DJ_E_LIMIT, "more than %d signals", MAX_SIGNALS);
  dj__signal *g = DJ__PUSH(&r->b, signal);
  *g = (dj__signal){.kind = DJ__SIGNAL_OTHER,
                    .road = r->b.m->n_road - 1,
                    .s = fmin(fmax(number(r, at, "s"), 0), this_road(r)->length),
                    .t = number(r, at, "t"),
                    .z_offset = number_or(r, at, "zOffset", 0),
                    .reference = reference,
                    .controller = -1,
                    .stop = -1};
  copy_id(r, at, "id", g->id);
  const char *side = find(at, "orientation");
  g->forward = !side || strcmp(side, "-") != 0;
  if (reference) return;
  const char *type = text(r, at, "type"), *dynamic = find(at, "dynamic");
  g->kind = dj__xodr_find_signal_kind(type);
  if (g->kind == DJ__SIGNAL_OTHER && dynamic && strcmp(dynamic, "yes") == 0 &&
      strncmp(type, "10000", 5) == 0 && strcmp(type, "1000002") != 0)
    g->kind = DJ__SIGNAL_LIGHT;
  if (g->kind == DJ__SIGNAL_SPEED) g->value = sign_speed(r, at, type);
}

static void signal_validity(reader *r, const char **at) {
  if (r->b.m->n_signal == 0) return;
  dj__signal *g = &r->b.m->signal[r->b.m->n_signal - 1];
  g->from_lane = whole(r, at, "fromLane");
  g->to_lane = whole(r, at, "toLane");
}

/* ---- junctions and controllers ---- */
static void start_junction(reader *r, const char **at) {
  if (r->b.m->n_junction >= MAX_THINGS) fail(r, DJ_E_LIMIT, "more than %d junctions", MAX_THINGS);
  dj__junction *j = DJ__PUSH(&r->b, junction);
  copy_id(r, at, "id", j->id);
  const char *name = find(at, "name");
  (void)snprintf(j->name, sizeof j->name, "%.63s", name ? name : "");
  const char *type = find(at, "type");
  j->direct = type && strcmp(type, "direct") == 0;
  j->connection0 = r->b.m->n_connection;
}

static void start_connection(reader *r, const char **at) {
  if (r->b.m->n_junction == 0) return;
  const char *touch = find(at, "contactPoint");
  dj__connection *c = DJ__PUSH(&r->b, connection);
  c->at_start = !touch || strcmp(touch, "start") == 0;
  c->link0 = r->b.m->n_lane_link;
  raw_connection *w = PUSH(r, connection);
  w->line = (int)XML_GetCurrentLineNumber(r->p);
  w->junction = r->b.m->n_junction - 1;
  copy_id(r, at, "incomingRoad", w->incoming);
  if (r->b.failed) return;
  dj__junction *j = &r->b.m->junction[w->junction];
  copy_id(r, at, dj__xodr_second_road(j), w->connecting);
  j->n_connection++;
}

static void lane_link(reader *r, const char **at) {
  if (r->b.m->n_connection == 0) return;
  int(*l)[2] = DJ__PUSH(&r->b, lane_link);
  (*l)[0] = whole(r, at, "from");
  (*l)[1] = whole(r, at, "to");
  if (!r->b.failed) r->b.m->connection[r->b.m->n_connection - 1].n_link++;
}

static void start_controller(reader *r, const char **at) {
  if (r->b.m->n_controller >= MAX_CONTROLLERS)
    fail(r, DJ_E_LIMIT, "more than %d controllers", MAX_CONTROLLERS);
  dj__controller *c = DJ__PUSH(&r->b, controller);
  *c = (dj__controller){.junction = -1, .green = 15, .yellow = 3, .all_red = 2};
  copy_id(r, at, "id", c->id);
  c->sequence = find(at, "sequence") ? whole(r, at, "sequence") : r->b.m->n_controller;
}

static void control(reader *r, const char **at) {
  raw_control *c = PUSH(r, control);
  copy_id(r, at, "signalId", c->signal);
  c->controller = r->b.m->n_controller - 1;
}

static void junction_controller(reader *r, const char **at) {
  raw_phase *c = PUSH(r, phase);
  copy_id(r, at, "id", c->controller);
  c->junction = r->b.m->n_junction - 1;
  c->sequence = find(at, "sequence") ? whole(r, at, "sequence") : -1;
}

static void user_data(reader *r, const char **at) {
  dj__map *m = r->b.m;
  const char *code = find(at, "code"), *value = find(at, "value");
  if (!code || !value || strncmp(code, "dojo.", 5) != 0) return;
  if (strcmp(code, "dojo.seed") == 0 && within(r, 1, E_header)) m->seed = strtoull(value, NULL, 10);
  if (strcmp(code, "dojo.zone") == 0 && within(r, 1, E_road) && strcmp(value, "track") == 0)
    this_road(r)->zone = DJ__ZONE_TRACK;
  if (strcmp(code, "dojo.roundabout") == 0 && within(r, 1, E_junction) && m->n_junction)
    m->junction[m->n_junction - 1].roundabout = true;
  double v[3];
  if (strcmp(code, "dojo.phase") == 0 && within(r, 1, E_controller) && m->n_controller) {
    bool fine = sscanf(value, "%lf %lf %lf", &v[0], &v[1], &v[2]) == 3;
    for (int i = 0; i < 3 && fine; i++) fine = v[i] >= 0 && v[i] <= 600;
    if (!fine || !(v[0] > 0)) {
      fail(r, DJ_E_FORMAT, "dojo.phase \"%.60s\": expected seconds of green, yellow and red",
           value);
      return;
    }
    dj__controller *c = &m->controller[m->n_controller - 1];
    c->green = v[0];
    c->yellow = v[1];
    c->all_red = v[2];
  }
  if (strcmp(code, "dojo.t") == 0 && within(r, 1, E_object) && r->crosswalk &&
      sscanf(value, "%lf %lf", &v[0], &v[1]) == 2 && fabs(v[0]) < 1e3 && fabs(v[1]) < 1e3) {
    r->corner[0] = -0.5 * r->object_length;
    r->corner[1] = 0.5 * r->object_length;
    r->corner[2] = v[0]; /* exact: not through its middle */
    r->corner[3] = v[1];
    r->object_t = 0;
    r->has_corner = true;
  }
}

/* ---- events ---- */
static element element_of(const char *name) {
#define X(e)                                                                                       \
  if (strcmp(name, #e) == 0) return E_##e;
  ELEMENTS(X)
#undef X
  return E_NONE;
}

static void road_child(reader *r, element e, const char **at) {
  if (e == E_type && !r->typed) {
    const char *type = find(at, "type");
    if (this_road(r)->zone != DJ__ZONE_TRACK)
      this_road(r)->zone = dj__xodr_find_zone(type ? type : "");
  }
}

static void descend(reader *r, element e, const char **at) {
  element up = r->depth ? r->stack[r->depth - 1] : E_NONE;
  if (e == E_userData) {
    user_data(r, at);
    return;
  }
  switch (up) {
  case E_OpenDRIVE:
    if (e == E_header && number(r, at, "revMajor") != 1)
      fail(r, DJ_E_UNSUPPORTED, "OpenDRIVE %s: expected revMajor 1", find(at, "revMajor"));
    if (e == E_road) start_road(r, at);
    if (e == E_junction) start_junction(r, at);
    if (e == E_controller) start_controller(r, at);
    break;
  case E_road:
    road_child(r, e, at);
    break;
  case E_type:
    if (e == E_speed && within(r, 2, E_road) && !r->typed) {
      this_road(r)->speed = speed_of(r, find(at, "max"), find(at, "unit"), 0);
      r->typed = true;
    }
    break;
  case E_link:
    if ((e == E_predecessor || e == E_successor) && within(r, 2, E_road))
      road_link(r, at, e == E_successor);
    if ((e == E_predecessor || e == E_successor) && within(r, 2, E_lane) && r->b.m->n_road_lane)
      *(e == E_successor ? &this_lane(r)->succ : &this_lane(r)->pred) = whole(r, at, "id");
    break;
  case E_planView:
    if (e == E_geometry && within(r, 2, E_road)) start_geometry(r, at);
    break;
  case E_geometry:
    if (e >= E_line && e <= E_paramPoly3) shape(r, e, at);
    break;
  case E_elevationProfile:
    if (e == E_elevation && within(r, 2, E_road)) road_profile(r, e, at);
    break;
  case E_lateralProfile:
    if (e == E_superelevation || e == E_crossfall || e == E_shape)
      for (int i = 0; at[i]; i += 2)
        if (strlen(at[i]) == 1 && strchr("abcd", at[i][0]) && strtod(at[i + 1], NULL) != 0) {
          r->skipped++;
          break;
        }
    break;
  case E_lanes:
    if (e == E_laneOffset && within(r, 2, E_road)) road_profile(r, e, at);
    if (e == E_laneSection && within(r, 2, E_road)) start_section(r, at);
    break;
  case E_left:
  case E_center:
  case E_right:
    if (e == E_lane && within(r, 2, E_laneSection)) start_lane(r, at);
    break;
  case E_lane:
    lane_part(r, e, at);
    break;
  case E_objects:
    if (e == E_object && within(r, 2, E_road)) start_object(r, at);
    break;
  case E_outline:
    if (e == E_cornerLocal && r->crosswalk) corner(r, number(r, at, "u"), number(r, at, "v"));
    break;
  case E_signals:
    if ((e == E_signal || e == E_signalReference) && within(r, 2, E_road))
      start_signal(r, at, e == E_signalReference);
    break;
  case E_signal:
  case E_signalReference:
    if (e == E_validity) signal_validity(r, at);
    break;
  case E_controller:
    if (e == E_control && within(r, 2, E_OpenDRIVE)) control(r, at);
    break;
  case E_junction:
    if (e == E_connection) start_connection(r, at);
    if (e == E_controller) junction_controller(r, at);
    break;
  case E_connection:
    if (e == E_laneLink) lane_link(r, at);
    break;
  default:
    break;
  }
}

static void XMLCALL on_start(void *user, const char *name, const char **at) {
  reader *r = user;
  if (r->status) return;
  element e = element_of(name);
  if (r->depth == 0 && e != E_OpenDRIVE) {
    fail(r, DJ_E_FORMAT, "<%.40s>: expected <OpenDRIVE>", name);
    return;
  }
  if (r->depth == DEPTH) {
    fail(r, DJ_E_LIMIT, "elements nested more than %d deep", DEPTH);
    return;
  }
  descend(r, e, at);
  r->stack[r->depth++] = e;
  if (r->b.failed) fail(r, DJ_E_NOMEM, "no memory for a map");
}

static void XMLCALL on_end(void *user, const char *name) {
  reader *r = user;
  (void)name;
  if (r->status || r->depth == 0) return;
  element e = r->stack[--r->depth];
  if (e == E_laneSection && within(r, 1, E_lanes) && within(r, 2, E_road)) end_section(r);
  if (e == E_road && within(r, 1, E_OpenDRIVE)) end_road(r);
  if (e == E_object && within(r, 1, E_objects)) end_object(r);
}

static void XMLCALL on_doctype(void *user, const char *name, const char *sysid, const char *pubid,
                               int internal) {
  (void)name;
  (void)sysid;
  (void)pubid;
  (void)internal;
  fail(user, DJ_E_FORMAT, "a document type: expected plain OpenDRIVE without one");
}

/* ---- references ---- */
static int by_name(const void *a, const void *b) {
  return strcmp(((const named *)a)->id, ((const named *)b)->id);
}

static int look_up(const named *v, int n, const char *id) {
  named key = {.index = -1};
  (void)snprintf(key.id, sizeof key.id, "%s", id);
  const named *f = n ? bsearch(&key, v, (size_t)n, sizeof *v, by_name) : NULL;
  while (f && f > v && strcmp(f[-1].id, id) == 0) f--; /* signals come before references to them */
  return f ? f->index : -1;
}

static dj_status missing(const reader *r, int line, const char *what, const char *id) {
  return dj_error(DJ_E_FORMAT, "%s:%d: %s \"%s\" is not in the file", r->name, line, what, id);
}

#define INDEX(r, what, out)                                                                        \
  do {                                                                                             \
    int n_ = (r)->b.m->n_##what;                                                                   \
    (out) = calloc((size_t)n_ + 1, sizeof *(out));                                                 \
    for (int i_ = 0; (out) && i_ < n_; i_++) {                                                     \
      memcpy((out)[i_].id, (r)->b.m->what[i_].id, 32);                                             \
      (out)[i_].index = i_;                                                                        \
    }                                                                                              \
    if ((out) && n_) qsort((out), (size_t)n_, sizeof *(out), by_name);                             \
  } while (0)

static dj_status resolve_link(reader *r, dj__link *l, const char *id, int line, const named *roads,
                              const named *junctions) {
  if (l->kind == DJ__LINK_NONE) return DJ_OK;
  bool road = l->kind == DJ__LINK_ROAD;
  l->index = look_up(road ? roads : junctions, road ? r->b.m->n_road : r->b.m->n_junction, id);
  return l->index < 0 ? missing(r, line, road ? "linked road" : "linked junction", id) : DJ_OK;
}

static dj_status resolve_roads(reader *r, const named *roads, const named *junctions) {
  dj__map *m = r->b.m;
  for (int i = 1; i < m->n_road; i++)
    if (strcmp(roads[i].id, roads[i - 1].id) == 0)
      return dj_error(DJ_E_FORMAT, "%s:%d: road \"%s\" is there twice", r->name,
                      r->road[roads[i].index].line, roads[i].id);
  for (int i = 0; i < m->n_road; i++) {
    dj__road *o = &m->road[i];
    const raw_road *w = &r->road[i];
    DJ_TRY(resolve_link(r, &o->pred, w->pred, w->line, roads, junctions));
    DJ_TRY(resolve_link(r, &o->succ, w->succ, w->line, roads, junctions));
    if (!w->junction[0] || strcmp(w->junction, "-1") == 0) continue;
    o->junction = look_up(junctions, m->n_junction, w->junction);
    if (o->junction < 0) return missing(r, w->line, "junction", w->junction);
  }
  for (int i = 0; i < m->n_connection; i++) {
    const raw_connection *w = &r->connection[i];
    dj__connection *c = &m->connection[i];
    c->incoming = look_up(roads, m->n_road, w->incoming);
    c->connecting = look_up(roads, m->n_road, w->connecting);
    if (c->incoming < 0) return missing(r, w->line, "incomingRoad", w->incoming);
    if (c->connecting < 0)
      return missing(r, w->line, dj__xodr_second_road(&m->junction[w->junction]), w->connecting);
  }
  return DJ_OK;
}

/* Controllers know their signals, junctions know controllers; references take on their signal. */
static void resolve_signals(reader *r, const named *signals, const named *controllers) {
  dj__map *m = r->b.m;
  for (int i = 0; i < r->n_control; i++) {
    int g = look_up(signals, m->n_signal, r->control[i].signal);
    if (g >= 0) m->signal[g].controller = r->control[i].controller;
  }
  for (int i = 0; i < r->n_phase; i++) {
    int c = look_up(controllers, m->n_controller, r->phase[i].controller);
    if (c < 0) continue;
    m->controller[c].junction = r->phase[i].junction;
    if (r->phase[i].sequence >= 0) m->controller[c].sequence = r->phase[i].sequence;
  }
}

static int by_name_then_own(const void *a, const void *b, void *user) {
  const named *p = a, *q = b;
  const dj__map *m = user;
  int c = strcmp(p->id, q->id);
  if (c) return c;
  int x = m->signal[p->index].reference, y = m->signal[q->index].reference;
  return x != y ? x - y : p->index - q->index;
}

static void resolve_references(reader *r, named *signals) {
  dj__map *m = r->b.m;
  if (m->n_signal == 0) return;
  qsort_r(signals, (size_t)m->n_signal, sizeof *signals, by_name_then_own, m);
  int own = -1;
  for (int i = 0; i < m->n_signal; i++) {
    dj__signal *g = &m->signal[signals[i].index];
    if (!g->reference) {
      own = signals[i].index;
    } else if (own >= 0 && strcmp(m->signal[own].id, g->id) == 0) {
      g->kind = m->signal[own].kind;
      g->value = m->signal[own].value;
      g->controller = m->signal[own].controller;
    }
  }
}

static dj_status resolve(reader *r) {
  named *roads = NULL, *junctions = NULL, *signals = NULL, *controllers = NULL;
  INDEX(r, road, roads);
  INDEX(r, junction, junctions);
  INDEX(r, signal, signals);
  INDEX(r, controller, controllers);
  dj_status s = roads && junctions && signals && controllers
                    ? resolve_roads(r, roads, junctions)
                    : dj_error(DJ_E_NOMEM, "%s: no memory for a map", r->name);
  if (!s) {
    dj__xodr_rename_lanes(r->b.m, &r->renames);
    if (r->b.m->n_signal)
      qsort_r(signals, (size_t)r->b.m->n_signal, sizeof *signals, by_name_then_own, r->b.m);
    resolve_signals(r, signals, controllers);
    resolve_references(r, signals);
  }
  free(roads);
  free(junctions);
  free(signals);
  free(controllers);
  return s;
}

/* ---- the whole ---- */
static dj_status read_all(reader *r, const char *data, size_t size) {
  r->p = XML_ParserCreate(NULL);
  if (!r->p) return dj_error(DJ_E_NOMEM, "%s: no memory for a parser", r->name);
  XML_SetUserData(r->p, r);
  XML_SetElementHandler(r->p, on_start, on_end);
  XML_SetStartDoctypeDeclHandler(r->p, on_doctype);
  (void)XML_SetHashSalt(r->p, 0x646f6a6f); /* the same on every run */
  if (XML_Parse(r->p, data, (int)size, 1) == XML_STATUS_ERROR && !r->status)
    fail(r, DJ_E_FORMAT, "%s", XML_ErrorString(XML_GetErrorCode(r->p)));
  XML_ParserFree(r->p);
  DJ_TRY(r->status);
  if (r->b.m->n_road == 0) return dj_error(DJ_E_FORMAT, "%s: expected at least one road", r->name);
  return resolve(r);
}

dj_status dj__map_parse_xodr(const char *name, const char *data, size_t size, dj__map **m) {
  *m = NULL;
  if (size > MAX_FILE)
    return dj_error(DJ_E_LIMIT, "%s: %zu bytes: at most %zu are read", name, size, MAX_FILE);
  reader r = {.name = name};
  const char *base = strrchr(name, '/');
  DJ_TRY(dj__build_start(&r.b, base ? base + 1 : name, 0));
  dj_status s = read_all(&r, data, size);
  free(r.road);
  free(r.connection);
  free(r.control);
  free(r.phase);
  free(r.renames.of);
  if (s) {
    dj__build_drop(&r.b);
    return s;
  }
  if (r.skipped)
    dj_message(DJ_LOG_WARN,
               "%s: superelevation, crossfall and lane borders are not read: %d ignored", name,
               r.skipped);
  return dj__build_finish(&r.b, m);
}

dj_status dj__map_read_xodr(const char *path, dj__map **m) {
  *m = NULL;
  char *data;
  size_t size;
  DJ_TRY(dj__read_file(path, MAX_FILE, &data, &size));
  dj_status s = dj__map_parse_xodr(path, data, size, m);
  free(data);
  return s;
}
