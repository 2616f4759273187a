/*
 * A picture of a map from above: ground, roads by type, marks, crossings, signals, and on top a
 * route and agents.
 */
#ifndef DOJO_WORLD_MAP_DRAW_H
#define DOJO_WORLD_MAP_DRAW_H

#include "world/map.h"

typedef struct dj__map_box { /* something on the road, seen from above */
  double x, y, yaw;          /* middle */
  double length, width;
  double rgb[3]; /* 0..1 */
} dj__map_box;

typedef struct dj__map_draw_options {
  const dj__route *route; /* or NULL */
  const dj__map_box *box;
  int n_box;
  double x0, y0, x1, y1; /* part to draw, m; all 0: the whole map */
  double time;           /* s: state of lights */
  bool lanes;            /* lane graph on top: middles, conflicts' stretches, stop lines */
} dj__map_draw_options;

/* Writes a PNG of `width_px` pixels across (64 to 8192), as high as the map's shape asks for, north
 * up. `o` may be NULL. Errors: DJ_E_INVALID, DJ_E_NOMEM, DJ_E_IO. */
dj_status dj__map_draw(const dj__map *m, int width_px, const char *png_path,
                       const dj__map_draw_options *o);

#endif
