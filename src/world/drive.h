/*
 * Closed loop: suites of routes, drivers, and how drives are scored.
 */
#ifndef DOJO_WORLD_DRIVE_H
#define DOJO_WORLD_DRIVE_H

#include "world/render.h"
#include "world/world.h"

/* ---- suites: what is driven. One YAML file, expanded into cases ---- */
typedef enum dj__case_kind { /* what a drive asks for */
                             DJ__CASE_ROUTE,
                             DJ__CASE_OFFSET,  /* put 0.4 to 1 m off centre (in a lane of 3.5 m) */
                             DJ__CASE_TURNED,  /* turned by 4 to 15 degrees */
                             DJ__CASE_SPEED,   /* at 0 to 0.4, or up to 1.25 to 1.45 of the limit */
                             DJ__CASE_BLOCKED, /* and the others: one event staged after 2 to 6 s */
                             DJ__CASE_CUT_IN,
                             DJ__CASE_ONCOMING,
                             DJ__CASE_RED_LIGHT, /* on a route with lights */
                             DJ__CASE_PEDESTRIAN,
                             DJ__N_CASES
} dj__case_kind;
const char *dj__case_name(dj__case_kind k); /* "route", "offset", ... as in suites */

typedef struct dj__case { /* one drive */
  char name[96];          /* unique in the suite: "grid-12/rain/route-3" */
  dj__case_kind kind;
  dj__town_config town;
  char xodr[256]; /* a map of another tool's instead; "" : none */
  uint64_t seed;  /* of traffic, route, and of how a recovery case starts */
  char weather[32], vehicle[32], rig[256];
  double seconds, length; /* time limit, of the route (m) */
  double slowest; /* share of the speed limits: as slow as that a drive may be, if that takes
                     longer than `seconds`; 0: no longer */
  int n_vehicle, n_cyclist, n_pedestrian, n_parked;
  double unruly, roadworks;
} dj__case;
typedef struct dj__suite {
  char name[64];
  dj__case *cases; /* those of a town lie together, so that its map is made once */
  int n;
} dj__suite;
/* Reads and expands. Errors name file and line. `towns` of other seeds: seed0 >= 0 replaces the
 * suite's town seeds by seed0, seed0 + 1, ... ; limit > 0: only so many cases, spread evenly. The
 * same file and options give the same cases; a case does not depend on those around it. */
dj_status dj__suite_read(const char *path, int64_t seed0, int limit, dj__suite *s);
dj_status dj__suite_parse(const char *text, size_t size, const char *file, int64_t seed0, int limit,
                          dj__suite *s);
void dj__suite_free(dj__suite *s);
/* The map of a case is the caller's; the next case drives on the same one if dj__case_same_map. */
dj_status dj__case_map(const dj__case *c, dj__map **m);
bool dj__case_same_map(const dj__case *a, const dj__case *b);
/* Errors name the case. */
dj_status dj__case_world(const dj__case *c, const dj__map *m, dj__world **w);

/* ---- drivers ---- */
typedef enum dj__route_command { /* as dj_route_command of logs */
                                 DJ__FOLLOW,
                                 DJ__TURN_AHEAD_LEFT,
                                 DJ__TURN_AHEAD_RIGHT,
                                 DJ__TURN_AHEAD_STRAIGHT,
                                 DJ__CHANGE_LEFT,
                                 DJ__CHANGE_RIGHT
} dj__route_command;
dj__route_command dj__world_route_command(const dj__world *w); /* what a navigator would say now */

typedef struct dj__sense { /* what a driver without privileges sees */
  double time, speed;      /* s, m/s forward */
  double yaw_rate;         /* rad/s, mean since the sense before; 0 at the first */
  dj__route_command command;
  int n_picture; /* 0: the driver asked for no camera */
  const dj__picture *picture;
} dj__sense;

typedef struct dj__driver {
  const char *name;
  double period, latency; /* s between decisions; from the picture to the command's effect */
  const dj__rig *rig;     /* cameras it needs, or NULL */
  bool privileged;        /* drive() is given the world */
  dj_status (*reset)(void *self, const dj__world *w);
  dj_status (*drive)(void *self, const dj__sense *in,
                     const dj__world *w /* NULL unless privileged */, dj__command *out);
  void (*destroy)(void *self);
  void *self;
} dj__driver;
dj_status dj__driver_expert(dj__driver *d);   /* sees the state */
dj_status dj__driver_constant(dj__driver *d); /* keeps speed and wheel as at the start */
/* A run of dojo train: cameras, its own motion and the route command only. `latency` s (< 0: 0.1).
 * `rig` NULL: the cameras and the rate of the drives it was trained on. */
dj_status dj__driver_network(const char *run, double latency, const dj__rig *rig, dj__driver *d);
dj_status dj__driver_recorded(const char *log,
                              dj__driver *d); /* replays a log's controls by time */
void dj__driver_destroy(dj__driver *d);

#endif
