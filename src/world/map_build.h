/*
 * How a map is made, for the parts that make one (town*.c, xodr_read.c) and the parts that finish
 * it. A maker fills the OpenDRIVE side of a dj__map through a builder, then dj__map_finish works
 * out the lane graph from it. A town that is written and read again is finished by the same code.
 *
 *     dj__build b;
 *     DJ_TRY(dj__build_start(&b, "town-7", 7));
 *     dj__road *r = DJ__PUSH(&b, road);          // and its geometry, sections, lanes, ...
 *     DJ_TRY(dj__build_finish(&b, &m));          // frees everything on failure
 *
 * Every array grows by doubling. Out of memory is sticky: pushes then give a scratch object, and
 * dj__build_finish reports it. A pointer from a push is good until the next push to that array.
 */
#ifndef DOJO_WORLD_MAP_BUILD_H
#define DOJO_WORLD_MAP_BUILD_H

#include "world/map.h"

typedef struct dj__build {
  dj__map *m;
  bool failed;
  _Alignas(16) char scratch[512];
} dj__build;

dj_status dj__build_start(dj__build *b, const char *name, uint64_t seed);
/* Sampled lanes, graph, index, stop lines, conflicts, terrain, digest. */
dj_status dj__build_finish(dj__build *b, dj__map **m);
void dj__build_drop(dj__build *b);
void *dj__build_push(dj__build *b, void *array, int *n, size_t size);
#define DJ__PUSH(b, what)                                                                          \
  ((__typeof__((b)->m->what))dj__build_push((b), &(b)->m->what, &(b)->m->n_##what,                 \
                                            sizeof *(b)->m->what))

/* ---- geometry (map_geometry.c) ---- */
typedef struct dj__pose {
  double x, y, hdg, curv;
} dj__pose;
/* ds m along a piece, clamped to it. */
void dj__geom_at(const dj__geom *g, double ds, dj__pose *p);
/* Value of piecewise cubics at s; 0 before the first. */
double dj__poly3_at(const dj__poly3 *p, int n, double s);
double dj__poly3_slope(const dj__poly3 *p, int n, double s);
/* Reference line of a road. */
void dj__road_at(const dj__map *m, int road, double s, dj__pose *p);
double dj__road_z(const dj__map *m, int road, double s, double *slope);
/* Section that holds s, and its end. */
int dj__road_section(const dj__map *m, int road, double s);
double dj__section_end(const dj__map *m, int road, int section);
/* Index in map.road_lane of a lane by its id, or -1. */
int dj__section_lane(const dj__map *m, int section, int id);
double dj__lane_width(const dj__map *m, int section, int road_lane, double s);
/* t of the centre lane: at a section's end by what holds within it, should it jump there. */
double dj__lane_offset(const dj__map *m, int road, int section, double s, double *slope);
/* t of a lane's inner and outer edge at s on the road. */
void dj__lane_edges(const dj__map *m, int road, int section, int road_lane, double s, double *inner,
                    double *outer);
/* Mark at a lane's outer edge. */
const dj__road_mark *dj__lane_mark(const dj__map *m, int section, int road_lane, double s);
/* Lanes with ids < 0 run along s in right-hand traffic. */
static inline bool dj__lane_forward(const dj__road *r, int id) {
  return (id < 0) != r->left_hand;
}
double dj__wrap(double angle); /* to -pi..pi */

/* A line through n >= 2 points whose corners are rounded by clothoid - arc - clothoid (radius[i];
 * the clothoids take `share` of the turn each, 0..0.5). Radii shrink where a corner has no room;
 * straight0 and straight1 m at the ends stay straight. Pushes pieces from s = 0 on; returns the
 * length, and the smallest radius used (may be NULL). Errors are left to the builder. */
double dj__push_polyline(dj__build *b, const double (*p)[2], const double *radius, int n,
                         double share, double straight0, double straight1, double *min_radius);
/* A smooth way from one pose to another: straight, clothoids and one arc where their tangents meet
 * ahead, otherwise a cubic. Returns its length. */
double dj__push_connection(dj__build *b, const dj__pose *from, const dj__pose *to, bool arc);
double dj__push_line(dj__build *b, double s, double x, double y, double hdg, double length);
double dj__push_arc(dj__build *b, double s, double x, double y, double hdg, double length,
                    double curv);

/* ---- parts of dj__build_finish ---- */
dj_status dj__map_sample_lanes(dj__build *b);   /* map_graph.c */
dj_status dj__map_link_lanes(dj__build *b);     /* map_graph.c */
dj_status dj__map_place_stops(dj__build *b);    /* map_control.c: signals, stop lines, crossings */
dj_status dj__map_find_outlines(dj__build *b);  /* map_conflict.c */
dj_status dj__map_find_conflicts(dj__build *b); /* map_conflict.c */
dj_status dj__map_make_index(dj__map *m);       /* map_index.c */
void dj__map_free_index(struct dj__map_index *i);
dj_status dj__map_make_terrain(dj__map *m); /* map_terrain.c */
/* Smooth noise in -1..1 with knots at whole numbers. */
double dj__noise2(uint64_t seed, double x, double y);
void dj__map_free_terrain(struct dj__terrain *t);
/* Index of the lane point nearest to (x, y) of lanes in `types`, within reach, or -1; and its lane.
 */
int dj__map_nearest_point(const dj__map *m, double x, double y, uint32_t types, double reach,
                          int *lane);

/* Whether it is a connection's incoming road's end, or its start, that lies in the junction. */
bool dj__incoming_at_end(const dj__map *m, int junction, const dj__connection *c);

/* True if every driving lane can be reached from every other one. */
bool dj__map_connected(const dj__map *m);

#define DJ__DRIVABLE_TYPES (1u << DJ__LANE_DRIVING)
#define DJ__PAVED_TYPES                                                                            \
  (1u << DJ__LANE_DRIVING | 1u << DJ__LANE_SHOULDER | 1u << DJ__LANE_BIKING |                      \
   1u << DJ__LANE_PARKING)

#endif
