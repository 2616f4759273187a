/*
 * An indoor loop for small cars: one lane with white edges and a dashed yellow line in its middle,
 * as Donkeycar tracks have it. Corners of a random star-shaped polygon, rounded with 0.8 to 2 m.
 *
 * The road's reference line is the middle of the lane (laneOffset moves the lane over it), and in
 * the zone TRACK that is where the dashed line is painted. Four sections, so that the loop is four
 * lanes after one another.
 */
#include <math.h>
#include <stdio.h>

#include "world/town.h"

enum { MAX_CORNERS = 10 };

typedef struct loop {
  int n;
  double p[MAX_CORNERS + 2][2], radius[MAX_CORNERS + 2];
} loop;

static double turn_at(const loop *o, int i) {
  const double *a = o->p[(i + o->n - 1) % o->n], *b = o->p[i], *c = o->p[(i + 1) % o->n];
  return dj__wrap(atan2(c[1] - b[1], c[0] - b[0]) - atan2(b[1] - a[1], b[0] - a[0]));
}

static double side_length(const loop *o, int i) {
  const double *a = o->p[i], *b = o->p[(i + 1) % o->n];
  return hypot(b[0] - a[0], b[1] - a[1]);
}

/* Room for every corner's radius, and between sides that are not neighbours. */
static bool fits(const loop *o, double width) {
  double room[MAX_CORNERS];
  for (int i = 0; i < o->n; i++) {
    double turn = fabs(turn_at(o, i));
    if (turn > 2.1) return false;
    room[i] = 1.15 * o->radius[i] * tan(0.5 * turn) + 0.35 * o->radius[i] * turn;
  }
  for (int i = 0; i < o->n; i++)
    if (room[i] + room[(i + 1) % o->n] > 0.96 * side_length(o, i)) return false;
  for (int i = 0; i < o->n; i++)
    for (int k = i + 2; k < o->n; k++) {
      if (i == 0 && k == o->n - 1) continue;
      for (int u = 0; u <= 20; u++)
        for (int v = 0; v <= 20; v++) {
          double f = 0.05 * u, g = 0.05 * v;
          const double *a = o->p[i], *b = o->p[i + 1], *c = o->p[k], *d = o->p[(k + 1) % o->n];
          double x = a[0] + f * (b[0] - a[0]) - c[0] - g * (d[0] - c[0]);
          double y = a[1] + f * (b[1] - a[1]) - c[1] - g * (d[1] - c[1]);
          if (hypot(x, y) < width + 0.7) return false;
        }
    }
  return true;
}

static void draw(dj__town *t, double size, loop *o) {
  o->n = 7 + (int)dj__rng_below(&t->rng, 4);
  double squash = dj__town_uniform(t, 0.6, 1);
  for (int i = 0; i < o->n; i++) {
    double a = 2 * M_PI * (i + dj__town_uniform(t, -0.25, 0.25)) / o->n;
    double r = 0.5 * size * dj__town_uniform(t, 0.4, 1);
    o->p[i][0] = r * cos(a);
    o->p[i][1] = squash * r * sin(a);
    o->radius[i] = dj__town_uniform(t, 0.8, 2);
  }
}

static void push_loop(dj__town *t, loop *o, double width) {
  dj__build *b = &t->b;
  double line[MAX_CORNERS + 2][2], radius[MAX_CORNERS + 2];
  for (int k = 0; k < 2; k++) /* begins in the middle of its first side */
    line[0][k] = line[o->n + 1][k] = 0.5 * (o->p[0][k] + o->p[1][k]);
  for (int i = 0; i < o->n; i++) {
    line[i + 1][0] = o->p[(i + 1) % o->n][0];
    line[i + 1][1] = o->p[(i + 1) % o->n][1];
    radius[i + 1] = o->radius[(i + 1) % o->n];
  }
  dj__road *r = dj__push_road(b, "track");
  double length = dj__push_polyline(b, line, radius, o->n + 2, 0.2, 0, 0, NULL);
  if (b->failed) return;
  r->length = length;
  r->speed = 2.5;
  r->zone = DJ__ZONE_TRACK;
  r->n_geom = b->m->n_geom - r->geom0;
  r->pred = (dj__link){DJ__LINK_ROAD, 0, false};
  r->succ = (dj__link){DJ__LINK_ROAD, 0, true};
  *DJ__PUSH(b, elevation) = (dj__poly3){0};
  *DJ__PUSH(b, offset) = (dj__poly3){.a = 0.5 * width};
  r->n_elevation = r->n_offset = 1;
  r->n_section = 4;
  for (int k = 0; k < 4; k++) {
    dj__push_section(b, 0.25 * k * length);
    dj__push_lane(b, 0, DJ__LANE_NONE, 0, 0, 1, DJ__MARK_SOLID, false);
    dj__road_lane *l =
        dj__push_lane(b, -1, DJ__LANE_DRIVING, width, width, 1, DJ__MARK_SOLID, false);
    l->pred = l->succ = -1;
  }
  for (int i = 0; i < b->m->n_mark; i++) b->m->mark[i].width = 0.05;
}

dj_status dj__town_track(dj__town *t, double size) {
  if (size > 0 && size < 5)
    return dj_error(DJ_E_INVALID, "a track of %g m: must be 5 m or more", size);
  if (size == 0) size = dj__town_uniform(t, 9, 13);
  double width = dj__town_uniform(t, 0.6, 0.8);
  loop o = {0};
  for (int attempt = 0; attempt < 4000; attempt++) {
    draw(t, size, &o);
    if (!fits(&o, width)) continue;
    push_loop(t, &o, width);
    return DJ_OK;
  }
  return dj_error(DJ_E_INVALID, "no track of %g m was found that fits: try a larger one", size);
}
