/*
 * The guide: a route as one line that can be driven, sampled evenly, with what a planner needs to
 * know along it. Lane changes of the route are blended into the line over a stretch that can be put
 * off while the lane beside is taken.
 *
 *     dj__guide g = {0};
 *     DJ_TRY(dj__guide_make(&g, map, &route, step, 150));
 *     double s, d;
 *     dj__guide_project(&g, x, y, s_before, &s, &d);     // m along it and to its left
 *     dj__guide_point p = dj__guide_at(&g, s);
 *     dj__guide_free(&g);
 *
 * Stations (s) run from the route's start and go on behind its end, along the straightest lanes.
 */
#ifndef DOJO_WORLD_GUIDE_H
#define DOJO_WORLD_GUIDE_H

#include "world/map.h"

typedef struct dj__guide_point {
  double x, y, yaw, curvature;  /* of the line */
  double limit;                 /* m/s */
  double left, right;           /* m from the line to the edge of what may be driven on */
  double own_left, own_right;   /* ... to the edge of the lane */
  double same_left, same_right; /* ... to the edge of the lanes of this direction */
  double slope, shift; /* dz/ds; m that the line lies to the left of the first lane's middle */
  int row;
} dj__guide_point;

/* A stretch between two ends of lanes: the lane driven on, and the one changed to. */
typedef struct dj__guide_row {
  int a, b;      /* lanes; b -1: no change in this row */
  double from;   /* s of the row's start on lane a */
  double s0, s1; /* stations */
} dj__guide_row;

typedef struct dj__guide_change { /* a lane change of the route */
  double s0, s1;                  /* stations between which it may be done */
  double start, length;           /* where it is done */
  int side;                       /* +1 left, -1 right */
  bool begun;
} dj__guide_change;

typedef struct dj__guide_line { /* a stop line of the route */
  double s;
  int stop, row;
} dj__guide_line;

enum { DJ__GUIDE_LINES = 256 };
typedef struct dj__guide {
  const dj__map *map;
  double step; /* m between points */
  double end;  /* station of the route's end */
  int n;       /* points */
  dj__guide_point *point;
  double (*a)[2], (*b)[2]; /* (n) middles of the two lanes */
  int n_row;
  dj__guide_row *row;
  int n_change;
  dj__guide_change *change;
  int n_line;
  dj__guide_line *line;
} dj__guide;

/* `step` m between points, `beyond` m behind the route's end. Errors: DJ_E_INVALID (an empty
 * route), DJ_E_NOMEM. */
dj_status dj__guide_make(dj__guide *g, const dj__map *m, const dj__route *r, double step,
                         double beyond);
void dj__guide_free(dj__guide *g);
/* Works the line out anew after changes were moved. */
void dj__guide_blend(dj__guide *g);
/* Interpolated; s is clamped. */
dj__guide_point dj__guide_at(const dj__guide *g, double s);
/* Nearest place within `back` and `ahead` m of s0 along the line; distance to it. */
double dj__guide_project(const dj__guide *g, double x, double y, double s0, double back,
                         double ahead, double *s, double *d);
/* The row at a station. */
int dj__guide_row_at(const dj__guide *g, double s);
/* The lane of a row that is driven on at its end. */
int dj__guide_row_lane(const dj__guide *g, int row);
/* The lane that the line follows at a station. */
int dj__guide_lane(const dj__guide *g, double s);

#endif
