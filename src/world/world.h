/*
 * The world's state: one ego vehicle and its traffic on a map, in steps of 50 ms.
 *
 *     dj__world *w;
 *     DJ_TRY(dj__world_create(&(dj__world_config){.map = m, .seed = 1, .n_vehicle = 40}, &w));
 *     for (int i = 0; i < 600; i++) dj__world_step(w, &(dj__command){.throttle = 0.2f});
 *     dj__world_destroy(w);
 *
 * Structures of arrays, agent 0 is the ego. Everything is a function of the configuration and the
 * commands; a step allocates nothing, and gives the same bytes at any number of threads. The ego is
 * a dynamic bicycle with tyre limits, actuator delay and rate limits, integrated at 100 Hz or more
 * inside of a step.
 */
#ifndef DOJO_WORLD_WORLD_H
#define DOJO_WORLD_WORLD_H

#include "world/map.h"

#define DJ__WORLD_DT 0.05 /* s */

typedef enum dj__kind {
  DJ__CAR,
  DJ__VAN,
  DJ__LORRY,
  DJ__BUS,
  DJ__MOTORCYCLE,
  DJ__CYCLIST,
  DJ__PEDESTRIAN,
  DJ__CONE,    /* roadworks */
  DJ__BARRIER, /* roadworks */
  DJ__RC_CAR,
  DJ__N_KINDS
} dj__kind;
const char *dj__kind_name(dj__kind k); /* "car", ... */

enum { /* dj__agents.lamps */
       DJ__LAMP_BRAKE = 1,
       DJ__LAMP_LEFT = 2,
       DJ__LAMP_RIGHT = 4,
       DJ__LAMP_HEAD = 8,
       DJ__LAMP_REVERSE = 16
};
enum { /* dj__agents.flags */
       DJ__AGENT_LIVE = 1,
       DJ__AGENT_PARKED = 2,
       DJ__AGENT_STATIC = 4,  /* cones, barriers */
       DJ__AGENT_CROSSING = 8 /* a pedestrian on or stepping onto the road */
};

/* What other people do wrong (or what the suite puts in the way), labelled where it happens. */
typedef enum dj__event_kind {
  DJ__EVENT_CUT_IN,
  DJ__EVENT_HARD_BRAKE,
  DJ__EVENT_JAYWALKER,
  DJ__EVENT_WRONG_PARKING,
  DJ__EVENT_RED_RUNNER,
  DJ__EVENT_ONCOMING,    /* an oncoming vehicle in the ego's lane */
  DJ__EVENT_BLOCKED,     /* the ego's lane is blocked: roadworks or a broken-down vehicle */
  DJ__EVENT_LIGHT_TURNS, /* the light ahead turns red as the ego comes near */
  DJ__N_EVENTS
} dj__event_kind;
const char *dj__event_name(dj__event_kind k); /* "cut-in", ... */

typedef struct dj__event {
  dj__event_kind kind;
  uint64_t start, end; /* steps; end 0: it goes on */
  int agent;           /* who does it, or -1 */
  double x, y, z;
} dj__event;

/* n slots, each array of length `capacity`, 64-byte aligned. Positions are of the box's middle on
 * the ground. */
typedef struct dj__agents {
  int n, capacity;
  uint8_t *kind, *flags, *lamps, *variant; /* variant: looks (model and colour) */
  uint32_t *id;                            /* identity for labels: never used twice in a world */
  double *x, *y;
  float *z, *yaw, *pitch, *roll; /* m, rad; right-handed about z up, y left, x ahead: pitch > 0 nose
                                    down (braking, downhill), roll > 0 right side down */
  float *speed, *accel, *yaw_rate,
      *steer; /* m/s along yaw, m/s^2, rad/s, rad of the front wheels */
  float *length, *width, *height;
  int *lane;    /* the lane it follows, or -1 */
  float *s, *t; /* on it */
} dj__agents;

/* Whether a route has what an event needs (lights, a lane beside, an oncoming lane, ...) far
 * enough ahead of its start: routes for staged events are to be chosen by it. 0: no, 1: yes, 2:
 * even before others can come in between. */
int dj__event_fits(const dj__map *m, const dj__route *r, int kind);

/* ---- the ego ---- */
typedef struct dj__vehicle_model {
  const char *name; /* "rc-car", "city-car", "car", "van", "lorry" */
  dj__kind kind;
  double length, width, height, wheelbase, front; /* m; front: axle to bumper */
  double mass, yaw_inertia, cg_front, cg_height;  /* kg, kg m^2, m from the front axle, m */
  double cornering_front, cornering_rear;         /* N/rad */
  double max_steer, steer_rate, steer_delay;      /* rad of the wheels, rad/s, s */
  double max_accel, max_brake, max_power;         /* m/s^2, m/s^2, W */
  double pedal_delay, pedal_rate;                 /* s, share of full pedal a second */
  double drag, rolling;                           /* N s^2/m^2, share of weight */
  double max_speed;                               /* m/s */
} dj__vehicle_model;
const dj__vehicle_model *dj__vehicle_find(const char *name); /* NULL: unknown */
extern const dj__vehicle_model dj__vehicle_models[];
extern const int dj__n_vehicle_models;

typedef struct dj__command { /* like the log's control channel */
  float steering;            /* -1..1 of full lock, left positive */
  float throttle, brake;     /* 0..1 */
} dj__command;

enum { DJ__EGO_QUEUE = 32 }; /* commands on their way: delays up to 1.5 s */
typedef struct dj__ego {
  const dj__vehicle_model *model;
  double x, y, yaw;                 /* centre of gravity (agents.x/y: box middle) */
  double vx, vy, yaw_rate;          /* vehicle frame, at the centre of gravity */
  double ax, ay;                    /* m/s^2, vehicle frame, of the last step */
  double steer, throttle, brake;    /* what actuators have reached: rad, 0..1, 0..1 */
  double friction;                  /* of the road under it (rain) */
  dj__command command;              /* last one given */
  dj__command queue[DJ__EGO_QUEUE]; /* ring of those given, queue[at] the last one */
  int at;
} dj__ego;

/* ---- weather and light: read by physics (friction) and cameras ---- */
typedef struct dj__weather {
  float sun_azimuth, sun_elevation; /* rad; elevation < 0: night */
  float cloud, rain, wet, fog;      /* 0..1; fog 1: visibility of some 40 m */
  float wind;                       /* m/s */
} dj__weather;
/* "clear", "noon", "evening", "overcast", "rain", "wet", "fog", "night", "night-rain". */
dj_status dj__weather_find(const char *name, dj__weather *w);
const char *const *dj__weather_names(int *n);

/* ---- configuration ---- */
typedef struct dj__world_config {
  const dj__map *map;
  uint64_t seed;
  const char *vehicle;    /* of the ego; NULL: "car" */
  const dj__route *route; /* the ego's; copied. NULL: a random one of 500 m, or less on a small
                              map */
  int n_vehicle, n_cyclist, n_pedestrian, n_parked; /* moving motor vehicles, ... */
  double radius; /* m: agents live this near the ego, and are moved when left behind; 0: anywhere on
                    the map */
  double unruly; /* rate of events: 0 none, 1 usual (about one in 20 s near the ego) */
  uint32_t events;  /* 1 << dj__event_kind: only these; 0: all */
  double roadworks; /* per km of road */
  dj__weather weather;
  double start_time;           /* s into the lights' cycles; a staged LIGHT_TURNS moves it */
  struct {                     /* recovery cases: how the ego starts */
    double offset, yaw, speed; /* m left of the lane's middle, rad, m/s (< 0: the lane's usual) */
  } start;
  struct {        /* one event made to happen to the ego */
    int kind;     /* dj__event_kind, or -1 for none; note that 0 is CUT_IN: set it */
    double after; /* s */
  } staged;
} dj__world_config;
dj__world_config dj__world_config_default(const dj__map *m, uint64_t seed);

typedef struct dj__world {
  dj__world_config config;
  const dj__map *map;
  uint64_t step; /* steps done; time is step * DJ__WORLD_DT */
  dj__agents agents;
  dj__ego ego;
  dj__route route;
  int route_at;     /* index of the lane of the route that the ego is on */
  double route_s;   /* m along the route */
  dj__event *event; /* all so far, in order of start */
  int n_event;
  double *route_from; /* m along the route where each of its lanes begins */
  double slope;       /* dz/ds under the ego, along it */
  struct {            /* of events */
    uint64_t next;    /* step at which one is due */
    bool staged;      /* the staged one has begun */
    int drawn;        /* random numbers used */
    int actors;       /* brought for the staged event */
    uint64_t next_actor;
    int light;            /* stop line of the last light event, or -1 */
    int actor;            /* who keeps beside the ego until it may cut in, or -1 */
    uint64_t actor_until; /* step at which that one gives up */
    int held;             /* steps that the lights' clock has stood still */
  } cast;
  struct dj__traffic *traffic; /* what only traffic knows: temperaments, plans, hash */
} dj__world;

/* Errors: DJ_E_INVALID (counts, vehicle), DJ_E_NOT_FOUND (no route), DJ_E_NOMEM. */
dj_status dj__world_create(const dj__world_config *c, dj__world **w);
void dj__world_destroy(dj__world *w);
void dj__world_step(dj__world *w, const dj__command *ego);
/* s on the clock of the map's lights: what dj__map_light is to be asked with. */
double dj__world_time(const dj__world *w);
/* State of a stop line's lights now. */
dj__light dj__world_light(const dj__world *w, int stop);
/* Moves the ego along a recorded or planned trajectory instead: for tests and for the expert's
 * look-ahead. */
void dj__world_place_ego(dj__world *w, double x, double y, double yaw, double speed);
/* A hash of everything that the future depends on. */
uint64_t dj__world_digest(const dj__world *w);
/* A deep copy, to try things in. */
dj_status dj__world_clone(const dj__world *w, dj__world **copy);

/* Oriented boxes: agent i against agent j, each grown by `margin` m. */
bool dj__agents_touch(const dj__agents *a, int i, int j, double margin);
/* Agents whose middle lies within `reach`; at most `max` indices, nearest cells first. */
int dj__world_near(const dj__world *w, double x, double y, double reach, int *out, int max);
/* Index of an agent that the ego touches, or -1. */
int dj__world_ego_collision(const dj__world *w);

/* ---- many worlds at once, for reinforcement learning and speed ---- */
typedef struct dj__worlds dj__worlds;
typedef struct dj__worlds_config {
  const dj__map *map;
  int n_world, n_agent; /* agents a world, all driven by the models unless given actions */
  int n_near;           /* neighbours in an observation */
  uint64_t seed;
  int threads; /* 0: all cores */
} dj__worlds_config;
/* Observation of an agent, f32: 8 of its own (speed, accel, steer, offset t, heading error,
 * curvature ahead at 10 and 30 m, speed limit), then n_near x 7 (dx, dy in its frame, cos, sin of
 * relative yaw, relative speed vx, vy, kind / 10). */
dj_status dj__worlds_create(const dj__worlds_config *c, dj__worlds **w);
void dj__worlds_destroy(dj__worlds *w);
/* action (n_world, n_agent, 2) f32 acceleration m/s^2 and steering rad, NULL or NaN rows: the
 * models decide. observation (n_world, n_agent, 8 + 7 n_near) and collision (n_world, n_agent) u8
 * are filled; either may be NULL. */
void dj__worlds_step(dj__worlds *w, const float *action, float *observation, uint8_t *collision);
uint64_t dj__worlds_digest(const dj__worlds *w); /* as dj__world_digest, of all of them */
const dj__agents *dj__worlds_agents(const dj__worlds *w, int world); /* the state, to look at */

#endif
