/*
 * Exact labels of a simulated drive, from moments: copies of what the world was at each step. The
 * future in a label is what really happened afterwards, so labels of a moment are made when the
 * moments of the following seconds are there.
 *
 *     dj__truth *l;
 *     DJ_TRY(dj__truth_create(map, 1, &l));
 *     for each step: dj__moment_take(world, &ring[i % n]), world step ...
 *     DJ_TRY(dj__truth_make(l, t_ns, moments, n, &set));   // moments[0] is now, moments[k] k
 * later dj__truth_destroy(l);
 *
 * Vehicle frame: ISO 8855 on the ground under the middle of the rear axle, as the cameras' rig.
 */
#ifndef DOJO_WORLD_LABELS_H
#define DOJO_WORLD_LABELS_H

#include "dojo/drivelog.h"
#include "world/world.h"

enum {
  DJ__AHEAD_STEPS = 120,  /* 6 s of world steps that labels look ahead */
  DJ__MOMENT_EVENTS = 32, /* going on at once */
  DJ__MOMENT_ROUTE = 64,  /* points of the route ahead */
  DJ__GRID_X = 200,       /* cells ahead */
  DJ__GRID_Y = 160,       /* cells to the left */
  DJ__GRID_TIMES = 7      /* 0, 1, ... 6 s */
};
#define DJ__GRID_CELL   0.5f   /* m */
#define DJ__GRID_BEHIND 20.0f  /* m of the grid behind the vehicle; 80 m lie ahead, 40 m aside */
#define DJ__LABEL_REACH 120.0f /* m: agents within are labelled */
#define DJ__ROUTE_AHEAD 100.0f /* m of the route in a label */

typedef struct dj__body { /* an agent at one step, in the world */
  uint32_t id;
  uint8_t kind, flags, lamps;
  double x, y; /* middle of its box */
  float z, yaw, speed, yaw_rate, length, width, height;
} dj__body;

typedef struct dj__moment { /* of one step */
  double time;              /* s of the world */
  double x, y, z;           /* origin of the vehicle frame in the world */
  double yaw, pitch, roll;  /* rad; pitch and roll as in dj__agents */
  double speed, accel, yaw_rate;
  float length, front; /* m: of the ego; from the origin to its front bumper */
  dj__kind kind;       /* of the ego */
  dj__weather weather;
  int lane;                 /* of the route that it is on, or -1 */
  dj_route_command command; /* a navigator's */
  dj_control control;       /* what the driver wanted; t_ns is not used */
  dj_light_state light;     /* next one on the route */
  double light_distance;    /* m along the route from the front bumper */
  double light_at[3];       /* its stop line in the world */
  int n_route;              /* points of the route ahead, in the world */
  double route[DJ__MOMENT_ROUTE][3];
  int n_event;
  struct {
    dj__event_kind kind;
    uint32_t agent; /* id, 0: nobody */
    double age, x, y, z;
  } event[DJ__MOMENT_EVENTS];
  int n_body, cap;
  dj__body *body; /* all that live, the ego left out */
} dj__moment;

/* Copies the state; keeps m's memory from call to call. `control` and `command` are the caller's to
 * fill. */
dj_status dj__moment_take(const dj__world *w, dj__moment *m);
void dj__moment_free(dj__moment *m);

typedef struct dj__label_set { /* of one moment; arrays belong to the dj__truth until the next */
  dj_path path;
  dj_agents agents;
  dj_lanes lanes;
  dj_occupancy occupancy;
  dj_light light;
  dj_route route;
  dj_events events;
  dj_text text;
} dj__label_set;

typedef struct dj__truth dj__truth;
/* `scale`: of the grid and of the reach of labels, 1 for a road, 0.1 for a small RC car's track. */
dj_status dj__truth_create(const dj__map *m, double scale, dj__truth **l);
void dj__truth_destroy(dj__truth *l);
/* Labels of moments[0]. `n`: how many moments there are, 1..DJ__AHEAD_STEPS + 1, a world step
 * apart; the path and the grids end where they do. */
dj_status dj__truth_make(dj__truth *l, uint64_t t_ns, const dj__moment *const *moments, int n,
                         dj__label_set *out);

/* ---- parts, for tests and for the vector pictures of views ---- */
typedef struct dj__frame { /* vehicle frame in the world: v = R^T (p - o) */
  double o[3], R[9];
} dj__frame;
void dj__frame_of(const dj__moment *m, dj__frame *f);
void dj__frame_to_vehicle(const dj__frame *f, const double world[3], float out[3]);
void dj__frame_to_world(const dj__frame *f, const float v[3], double out[3]);

/* One sentence into out. `path` and `agents` are those of the moment's labels. */
void dj__label_sentence(const dj__map *map, const dj__moment *m, const dj_path *path,
                        const dj_agents *agents, char *out, size_t size);

#endif
