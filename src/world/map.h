/*
 * Road networks: ASAM OpenDRIVE's model (roads along a reference line, lane sections, junctions,
 * signals) and the lane graph that is made from it: directed lanes as sampled lines, which is what
 * traffic, labels, planners and cameras read.
 *
 *     dj__map *m;
 *     DJ_TRY(dj__map_generate(&(dj__town_config){.seed = 7}, &m));       // or dj__map_read_xodr
 *     dj__place p;
 *     dj__map_at(m, lane, 12.5, 0, &p);                                  // 12.5 m along the lane
 *     dj__map_destroy(m);
 *
 * Frame: x east, y north, z up, metres; angles in radians, counter-clockwise from east; curvature
 * in 1/m, positive to the left. s runs along a road or lane, t to its left. A map never changes
 * once made, so any number of worlds and threads share one. All arrays belong to the map.
 */
#ifndef DOJO_WORLD_MAP_H
#define DOJO_WORLD_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dojo/status.h"

#define DJ__KERB                                                                                   \
  0.12 /* m that pavements (SIDEWALK lanes) stand above the road; z is the road's                  \
        */

/* ---- OpenDRIVE's side ---- */
typedef enum dj__lane_type {
  DJ__LANE_NONE,
  DJ__LANE_DRIVING,
  DJ__LANE_SHOULDER,
  DJ__LANE_BIKING,
  DJ__LANE_SIDEWALK,
  DJ__LANE_PARKING,
  DJ__LANE_CURB,
  DJ__LANE_MEDIAN,
  DJ__LANE_BORDER,
  DJ__LANE_RESTRICTED,
  DJ__N_LANE_TYPES
} dj__lane_type;

typedef enum dj__mark_type {
  DJ__MARK_NONE,
  DJ__MARK_SOLID,
  DJ__MARK_BROKEN,
  DJ__MARK_SOLID_SOLID,
  DJ__MARK_SOLID_BROKEN, /* solid on the inner side (towards the road's centre) */
  DJ__MARK_BROKEN_SOLID,
  DJ__MARK_CURB,
  DJ__N_MARK_TYPES
} dj__mark_type;

typedef enum dj__zone {
  DJ__ZONE_TOWN,
  DJ__ZONE_SUBURB,
  DJ__ZONE_RURAL,
  DJ__ZONE_MOTORWAY,
  DJ__ZONE_TRACK
} dj__zone;

typedef enum dj__geom_kind {
  DJ__GEOM_LINE,
  DJ__GEOM_ARC,
  DJ__GEOM_SPIRAL,
  DJ__GEOM_PARAM_POLY3 /* poly3 is read as this */
} dj__geom_kind;

typedef struct dj__geom { /* a piece of a reference line */
  dj__geom_kind kind;
  double s, x, y, hdg, length; /* where it starts */
  double curv0, curv1;         /* arc: curv0 = curv1; spiral: linear from one to the other */
  double u[4], v[4];           /* paramPoly3: local x, y as cubics of p */
  bool normalized;             /* p in 0..1 instead of 0..length */
} dj__geom;

typedef struct dj__poly3 { /* a + b d + c d^2 + d d^3, d = s - this.s; holds until the next one */
  double s, a, b, c, d;
} dj__poly3;

typedef struct dj__road_mark {
  double s; /* from the section's start */
  dj__mark_type type;
  bool yellow;
  double width; /* m */
} dj__road_mark;

typedef struct dj__road_lane { /* of one lane section */
  int id;                      /* left > 0, centre 0, right < 0 */
  dj__lane_type type;
  int pred, succ;      /* lane ids on the linked road or section; 0: none */
  int width0, n_width; /* in map.width, s from the section's start */
  int mark0, n_mark;   /* outer edge, in map.mark */
  double speed;        /* m/s; 0: as the road */
  int lane;            /* in map.lane, or -1 */
} dj__road_lane;

typedef struct dj__section {
  double s;          /* start on the road */
  int lane0, n_lane; /* in map.road_lane, from the leftmost (highest id) to the rightmost */
} dj__section;

typedef enum dj__link_kind { DJ__LINK_NONE, DJ__LINK_ROAD, DJ__LINK_JUNCTION } dj__link_kind;
typedef struct dj__link {
  dj__link_kind kind;
  int index;     /* of the road or junction */
  bool at_start; /* touches the linked road's start (contactPoint) */
} dj__link;

typedef struct dj__road {
  char id[32], name[64];
  double length, speed; /* m, m/s */
  dj__zone zone;
  int junction;   /* that this is a connecting road of, or -1 */
  bool left_hand; /* rule="LHT" */
  dj__link pred, succ;
  int geom0, n_geom;           /* map.geom */
  int elevation0, n_elevation; /* map.elevation, s on the road */
  int offset0, n_offset;       /* laneOffset, map.offset */
  int section0, n_section;     /* map.section */
} dj__road;

typedef struct dj__connection {
  int incoming, connecting; /* roads; in a direct junction the second is the linked one */
  bool at_start;            /* of the second */
  int link0, n_link;        /* pairs (from, to) of lane ids in map.lane_link */
} dj__connection;

typedef enum dj__control {                       /* who may go */
                           DJ__CONTROL_NONE,     /* nothing here, or priority to the right */
                           DJ__CONTROL_PRIORITY, /* has right of way */
                           DJ__CONTROL_GIVE_WAY,
                           DJ__CONTROL_STOP,
                           DJ__CONTROL_LIGHTS
} dj__control;

typedef struct dj__junction {
  char id[32], name[64];
  int connection0, n_connection; /* map.connection */
  bool roundabout;               /* one of a roundabout's entries */
  bool direct;                   /* its roads meet without roads between them (splits, entries) */
  double x, y, z, radius;        /* of the area */
  double cycle;                  /* s, of its lights; 0: none */
  int outline0, n_outline; /* map.outline: its asphalt, counter-clockwise; 0: only its lanes' */
} dj__junction;

typedef struct dj__controller { /* a phase of a junction's lights */
  char id[32];
  int junction, sequence;        /* phases of the same sequence number go together */
  double green, yellow, all_red; /* s */
} dj__controller;

typedef enum dj__signal_kind {
  DJ__SIGNAL_LIGHT,
  DJ__SIGNAL_STOP,
  DJ__SIGNAL_GIVE_WAY,
  DJ__SIGNAL_PRIORITY,
  DJ__SIGNAL_SPEED,
  DJ__SIGNAL_CROSSING,
  DJ__SIGNAL_ROUNDABOUT,
  DJ__SIGNAL_OTHER
} dj__signal_kind;

typedef struct dj__signal {
  char id[32];
  dj__signal_kind kind;
  int road;
  double s, t, z_offset;
  bool forward;           /* for traffic along s (orientation "+") */
  double value;           /* speed limits: m/s */
  double x, y, z;         /* foot of the pole */
  double yaw;             /* direction its face looks to */
  int from_lane, to_lane; /* lane ids it holds for; 0, 0: all in its direction */
  int controller;         /* of lights: map.controller, or -1 */
  bool reference;         /* of a signal that stands elsewhere: holds here, is not seen here */
  int stop;               /* the (first) stop line it belongs to, or -1 */
} dj__signal;

/* ---- the lane graph ---- */
typedef struct dj__lane_point { /* every metre or less */
  double x, y, z;               /* middle of the lane */
  float s, yaw, curvature, slope /* dz/ds */, width;
  float left, right; /* m from the middle to the edge of what may be driven on (road edge) */
} dj__lane_point;

typedef enum dj__turn { DJ__TURN_STRAIGHT, DJ__TURN_LEFT, DJ__TURN_RIGHT, DJ__TURN_BACK } dj__turn;

typedef struct dj__lane { /* of one section, in driving direction */
  int road, section, id;  /* where it comes from */
  dj__lane_type type;     /* DRIVING, BIKING, SIDEWALK, SHOULDER, PARKING have lanes here */
  dj__zone zone;
  int point0, n_point; /* map.point, n_point >= 2 */
  double length, speed_limit;
  int succ0, n_succ, pred0, n_pred; /* map.graph */
  int left, right;                  /* neighbour in the same direction, or -1 */
  int opposite;                     /* first oncoming driving lane across the centre line, or -1 */
  bool change_left, change_right;   /* its marks allow it */
  dj__mark_type mark_left, mark_right;
  int junction;              /* inside of it, or -1 */
  dj__turn turn;             /* in junctions */
  int stop;                  /* stop line near its end, or -1 */
  int conflict0, n_conflict; /* map.conflict; lanes in junctions, merges */
} dj__lane;

/* Another lane whose area this one shares: crossing, merging or parting. */
typedef struct dj__conflict {
  int lane;
  double from, to;             /* on this lane, s of the shared part */
  double other_from, other_to; /* on the other one */
  bool yield;                  /* this lane waits for the other */
  bool merge;                  /* both end in the same lane */
} dj__conflict;

typedef struct dj__stop_line {
  int lane;
  double s;
  dj__control control;
  int junction;
  double green0, green1; /* s within the junction's cycle; lights only */
  double yellow;         /* s after green1 */
} dj__stop_line;

typedef enum dj__light {
  DJ__LIGHT_OFF,
  DJ__LIGHT_RED,
  DJ__LIGHT_RED_YELLOW,
  DJ__LIGHT_GREEN,
  DJ__LIGHT_YELLOW
} dj__light;

typedef struct dj__crossing { /* zebra or signalled, straight across a road */
  int road;
  double s, t0, t1;              /* on the road, from its right kerb to its left one */
  double x0, y0, z0, x1, y1, z1; /* kerb to kerb */
  double width;
  int lane0, n_lane; /* map.crossing_lane: lanes it crosses, and where */
  bool lights;       /* people wait for the junction's lights */
  int junction;
} dj__crossing;
typedef struct dj__crossing_lane {
  int lane;
  double s;
} dj__crossing_lane;

typedef struct dj__map {
  char name[64]; /* "town-7", or the file's name */
  uint64_t seed;
  uint64_t digest;       /* of the network's contents */
  double x0, y0, x1, y1; /* bounds of all lanes */
  dj__road *road;
  dj__geom *geom;
  dj__poly3 *elevation, *offset, *width;
  dj__section *section;
  dj__road_lane *road_lane;
  dj__road_mark *mark;
  dj__junction *junction;
  dj__connection *connection;
  int (*lane_link)[2];
  dj__signal *signal;
  dj__controller *controller;
  int n_road, n_geom, n_elevation, n_offset, n_width, n_section, n_road_lane, n_mark, n_junction,
      n_connection, n_lane_link, n_signal, n_controller;
  dj__lane *lane;
  dj__lane_point *point;
  int *graph; /* lists of lane indices */
  dj__conflict *conflict;
  dj__stop_line *stop;
  dj__crossing *crossing;
  dj__crossing_lane *crossing_lane;
  double (*outline)[2]; /* of junctions */
  int n_lane, n_point, n_graph, n_conflict, n_stop, n_crossing, n_crossing_lane, n_outline;
  struct dj__map_index *index; /* spatial hash over points (map_index.c) */
  struct dj__terrain *terrain; /* ground height (map_terrain.c) */
} dj__map;

typedef enum dj__town_style {
  DJ__TOWN_ANY, /* chosen by the seed */
  DJ__TOWN_GRID,
  DJ__TOWN_ORGANIC,
  DJ__TOWN_RURAL,
  DJ__TOWN_MOTORWAY, /* a motorway with ramps past a small town */
  DJ__TOWN_MIXED,    /* town, ring road, rural bends, motorway, roundabouts */
  DJ__TOWN_TRACK,    /* an indoor lane loop for small RC cars */
  DJ__N_TOWN_STYLES
} dj__town_style;

typedef struct dj__town_config {
  uint64_t seed;
  dj__town_style style;
  double size;  /* m across; 0: the style's own (TRACK some 8 m, others 500 to 1500 m) */
  double hills; /* height of hills, share of the usual; <0: the seed's choice */
} dj__town_config;

/* The same configuration gives the same map, to the bit. Errors: DJ_E_INVALID, DJ_E_NOMEM. */
dj_status dj__map_generate(const dj__town_config *c, dj__map **m);
const char *dj__town_style_name(dj__town_style s); /* "grid", ... */
/* Errors name the file, the line, and what was expected. `name` stands for a path in messages. */
dj_status dj__map_read_xodr(const char *path, dj__map **m);
dj_status dj__map_parse_xodr(const char *name, const char *data, size_t size, dj__map **m);
dj_status dj__map_write_xodr(const dj__map *m, const char *path); /* OpenDRIVE 1.7, atomically */
void dj__map_destroy(dj__map *m);

/* ---- questions ---- */
typedef struct dj__place {
  double x, y, z, yaw;
  double curvature, slope, width, speed_limit;
} dj__place;
/* s is clamped to the lane, t is to the left of its middle. */
void dj__map_at(const dj__map *m, int lane, double s, double t, dj__place *p);
/* The lane of this type mask (1 << dj__lane_type) nearest to a point, within `reach` m; with yaw
 * (NaN: any) only lanes that run within 90 degrees of it, nearer directions first. -1: none. *s,
 * *t: where on it. */
int dj__map_nearest(const dj__map *m, double x, double y, double yaw, uint32_t types, double reach,
                    double *s, double *t);
/* s, t on one lane, searched near s_guess (< 0: everywhere). Distance to it. */
double dj__map_project(const dj__map *m, int lane, double x, double y, double s_guess, double *s,
                       double *t);
/* True where a vehicle may be: driving lanes, junction areas, shoulders and parking with `wide`. */
bool dj__map_drivable(const dj__map *m, double x, double y, bool wide);
/* Height of road or ground: what a wheel or a foot stands on. */
double dj__map_height(const dj__map *m, double x, double y);
/* Height for the ground's mesh: as above beside the roads, but kept below the surface of roads and
 * near them, so that triangles of up to some 5 m do not come through it. */
double dj__map_ground(const dj__map *m, double x, double y);
/* State of a stop line's lights at a time of the world; OFF if it has none. */
dj__light dj__map_light(const dj__map *m, int stop, double t);

typedef struct dj__route {
  int *lane; /* n lanes, each a successor or a neighbour (lane change) of the one before */
  int n;
  double length;     /* m along it */
  double start, end; /* s on the first and last lane */
} dj__route;
/* Cheapest way by time, lane changes at a price; DJ_E_NOT_FOUND if there is none. free route->lane.
 */
dj_status dj__map_route(const dj__map *m, int from, double from_s, int to, double to_s,
                        dj__route *r);
/* A random route of at least `length` m (or round the loop) from a random start: a function of
 * (map, seed). */
dj_status dj__map_random_route(const dj__map *m, uint64_t seed, double length, dj__route *r);

#endif
