/*
 * What the parts of traffic share: the state beside dj__agents, and the steps that the world and
 * the vector simulation are both made of. Nothing here allocates after dj__traffic_create.
 *
 * A vehicle follows lanes: `path[0]` is the one it is on, at s and t; the rest is drawn from the
 * seed as it goes. Every step
 *   1. everyone is entered in the lists of the lanes that its box lies on, and in the lists of
 *      the junction lanes that it is going to take (dj__traffic_register),
 *   2. in the order of slots, everyone looks ahead and decides: acceleration, right to pass a
 *      junction, lane, place within the lane (dj__traffic_decide),
 *   3. everyone moves (dj__traffic_move), and is hashed by place (dj__traffic_hash).
 * Others (the ego, agents with given actions) are `external`: entered like everyone, moved by
 * someone else.
 */
#ifndef DOJO_WORLD_TRAFFIC_H
#define DOJO_WORLD_TRAFFIC_H

#include "base/rng.h"
#include "world/world.h"

enum { DJ__PATH = 8, DJ__HOLD = 6 };
#define DJ__JAM 6.0f /* m/s: slower ones let others in by turns where lanes become one */

/* Streams of random numbers. */
enum {
  DJ__RNG_SPAWN = 0x7101,
  DJ__RNG_MIND,
  DJ__RNG_TURN,
  DJ__RNG_CHANGE,
  DJ__RNG_WALK,
  DJ__RNG_EVENT,
  DJ__RNG_ROADWORKS
};

/* ---- what is worked out from a map once, shared by all worlds on it, never changed ---- */
typedef struct dj__lane_crossing { /* a crossing on a lane */
  int crossing;
  float s, at,
      half; /* on the lane; share of the way from x0 to x1; half the lane's width, as share */
} dj__lane_crossing;
typedef struct dj__spot { /* a place on a lane, every few metres */
  int lane;
  float s, x, y;
} dj__spot;
typedef struct dj__walk_link { /* from an end of a sidewalk to another one, or over a crossing */
  int to;                      /* sidewalk lane */
  float s, to_s;               /* where on this one, on the other one */
  int crossing, next;          /* or -1: a straight way round a corner; next in the lane's list */
  int8_t from_first, pad[3];   /* over a crossing: from its x0 end */
} dj__walk_link;

typedef struct dj__net {
  int references;
  const dj__map *map;
  float *curve_speed; /* (n_point) m/s that 1 m/s^2 sideways allows, braking ahead in mind */
  uint8_t *parting;   /* (n_conflict) both come from the same lane */
  uint8_t *zip;       /* (n_conflict) lanes side by side become one: in jams by turns */
  float *bend;        /* (n_lane) largest curvature, 1/m */
  uint8_t *tight;     /* (n_lane) a bend too narrow for lorries and buses */
  uint8_t *fast;      /* (n_lane) a motorway, or all of its ways lead to one: not for cyclists */
  float *bike_t;      /* (n_lane) where a cyclist rides: m left of the lane's middle */
  int *crossing0;     /* (n_lane + 1) into lane_crossing */
  dj__lane_crossing *lane_crossing;
  dj__spot *drive, *park, *walk; /* driving, parking lanes, sidewalks */
  int n_drive, n_park, n_walk;
  int *walk_head; /* (n_lane) into walk_link, or -1 */
  dj__walk_link *walk_link;
  int n_walk_link;
} dj__net;
dj_status dj__net_create(const dj__map *m, dj__net **net);
dj__net *dj__net_share(dj__net *net);
void dj__net_release(dj__net *net);

/* ---- an agent's own side; four-byte members only, so that it can be hashed as bytes ---- */
typedef enum dj__role {
  DJ__ROLE_NONE,     /* as everyone */
  DJ__ROLE_BRAKE,    /* brakes hard for no reason */
  DJ__ROLE_CUT_IN,   /* changes into the lane beside at once */
  DJ__ROLE_RUN_RED,  /* does not see the light */
  DJ__ROLE_ONCOMING, /* drives in the oncoming lane */
  DJ__ROLE_STAND     /* stands where it is */
} dj__role;
typedef enum dj__gait { /* of pedestrians */
                        DJ__GAIT_WALK,
                        DJ__GAIT_CORNER,
                        DJ__GAIT_WAIT,
                        DJ__GAIT_CROSS,
                        DJ__GAIT_JAY,
                        DJ__GAIT_STAND
} dj__gait;

typedef struct dj__mind {
  /* temperament */
  float v_factor;      /* of the speed limit */
  float gap_time, gap; /* IDM's T (s), s0 (m) */
  float accel, brake;  /* IDM's a, b (m/s^2) */
  float polite;        /* MOBIL's p */
  float curve;         /* square root of the sideways acceleration that it likes */
  float scale;         /* of lengths: 1 but for toy cars */
  /* where it goes */
  int path[DJ__PATH], n_path, behind; /* lanes; the lane it came from, or -1 */
  int hold[DJ__HOLD];                 /* junction lanes that it may pass, or -1 */
  int hold_order[DJ__HOLD];           /* who came first */
  uint32_t drawn;                     /* random numbers used */
  float t_rest, t_goal, t_rate;       /* m, m, m/s */
  float wait, still;                  /* s: before a junction, without moving at all */
  int merges;               /* a cyclist who wants into the lane's middle before a junction */
  int want;                 /* lane change: +1 left, -1 right */
  float want_time, calm;    /* s since it signals; until the next thought */
  int urgent;               /* its lane ends or is closed ahead, 0 or 1 */
  int let;                  /* whom it lets in, or let in last; or -1 */
  float let_room, let_time; /* m until it lets in the next one; s that it waits for this one */
  int leader;               /* whom it follows, or -1 */
  float leader_gap, v_free; /* m, m/s */
  int blinks;               /* lamps of turns ahead */
  float bumped, push;       /* s that it goes on although others are close */
  float back;               /* m that it still backs up */
  int back_out;             /* ... since it is out of its lane, 0 or 1 */
  int stop_reason;          /* dj__reason of what holds it back */
  /* events */
  int role, event; /* dj__role; index of its event, or -1 */
  float role_time, role_value;
  /* pedestrians */
  int given;               /* moved by an action in this step */
  int gait, dir, link, to; /* to: sidewalk lane that it makes for */
  float to_s, x0, y0, x1, y1, way, pause;
} dj__mind;

typedef enum dj__reason {
  DJ__REASON_NONE,
  DJ__REASON_LEADER,
  DJ__REASON_LIGHT,
  DJ__REASON_YIELD,
  DJ__REASON_EXIT, /* no room behind the junction */
  DJ__REASON_PERSON,
  DJ__REASON_END /* of the lane */
} dj__reason;

/* ---- lists of a step ---- */
typedef struct dj__entry { /* someone on a lane */
  int agent, next;
  float s, rear, front, lo, hi, speed; /* m on the lane; sideways from lo to hi; along the lane */
} dj__entry;
typedef struct dj__intent { /* someone who is going to take a junction lane, or is on it */
  int agent, next;
  float dist; /* m from its middle to the lane's start; negative: on it */
  int order;  /* of its right to pass, or 0 */
} dj__intent;

typedef struct dj__hash { /* counting sort of places into cells */
  int n_bucket;           /* power of two */
  int *start, *item;      /* (n_bucket + 1), (capacity) */
  uint32_t *bucket;       /* (capacity) of each agent */
  int (*cell)[2];         /* (capacity) of each agent */
} dj__hash;
#define DJ__HASH_CELL 16.0 /* m */

typedef struct dj__traffic {
  dj__net *net;
  const dj__map *map;
  dj__agents agents;
  uint64_t seed, step;
  double time; /* s, with the configuration's start of lights */
  uint32_t next_id;
  int next_order;
  double friction;               /* of the road */
  double wary;                   /* share of usual speed, after weather */
  double home_x, home_y, radius; /* agents live near it; radius 0: anywhere */
  bool toy;                      /* a track for toy cars */
  int n_external;                /* the first slots are moved by others */
  int n_people;                  /* moving slots after them, kept populated */
  int first_spare;               /* slots for events and roadworks */
  /* in one block */
  void *block;
  size_t block_size;
  dj__mind *mind;               /* (capacity) */
  int *lane_head, *intent_head; /* (n_lane) */
  dj__entry *entry;
  dj__intent *intent;
  int *touched;
  int n_entry, n_intent, n_touched, max_entry;
  float *plan; /* (capacity) acceleration decided */
  int *odd;    /* (capacity) who is not bound to lanes and may be in the way */
  int n_odd;
  dj__hash hash;
} dj__traffic;

typedef struct dj__population {
  int n_external, n_vehicle, n_cyclist, n_pedestrian, n_parked, n_spare;
} dj__population;

/* Empty slots for so many; nobody lives yet. */
dj_status dj__traffic_create(dj__net *net, uint64_t seed, const dj__population *p, dj__traffic **t);
void dj__traffic_destroy(dj__traffic *t);
dj_status dj__traffic_clone(const dj__traffic *t, dj__traffic **copy);
uint64_t dj__traffic_digest(const dj__traffic *t, uint64_t h);

/* spawn.c */
void dj__agent_dress(dj__traffic *t, int i, dj__kind kind,
                     dj__rng *r); /* size, looks, temperament */
void dj__agent_put(dj__traffic *t, int i, int lane, double s, double lateral, double speed);
void dj__agent_clear(dj__traffic *t, int i);              /* the slot is free */
int dj__roadworks_slots(const dj__net *n, double per_km); /* that dj__roadworks may fill */
int dj__agent_spare(const dj__traffic *t);                /* a free slot for events, or -1 */
void dj__traffic_populate(dj__traffic *t, const dj__population *p); /* at the start */
void dj__agent_park(dj__traffic *t, int i); /* another parked car, out of sight, in the slot */
void dj__traffic_respawn(dj__traffic *t);   /* moves those left behind, by a few attempts a step */
bool dj__spot_free(const dj__traffic *t, int i, int lane, double s, double speed);
void dj__roadworks(dj__traffic *t, double per_km, const int *avoid, int n_avoid);

/* traffic.c */
void dj__traffic_register(dj__traffic *t);
void dj__traffic_decide(dj__traffic *t);
void dj__traffic_move(dj__traffic *t);
void dj__agent_extend(dj__traffic *t, int i); /* draws the lanes that come next */
void dj__agent_pose(dj__traffic *t, int i);   /* x, y, z, yaw, pitch from lane, s and t */
/* The same for someone who was followed in the last step, at little cost. */
void dj__external_track(dj__traffic *t, int i);
void dj__external_lane(dj__traffic *t, int i, const int *prefer, int n); /* lane, s, t from x, y */

/* traffic_idm.c: Treiber et al. 2000, joined by minimum (Schakel et al. 2010) */
float dj__idm_free(const dj__mind *m, float v, float v0);
float dj__idm_follow(const dj__mind *m, float v, float gap, float lead_speed, float s0);
float dj__travel_time(float dist, float v, float accel, float v_max);

/* traffic_lanes.c: MOBIL (Kesting et al. 2007), places within a lane */
void dj__lanes_decide(dj__traffic *t, int i);
void dj__lateral_move(dj__traffic *t, int i);
bool dj__must_leave(const dj__traffic *t, int i); /* its lane ends, or is closed ahead */

/* traffic_back.c: whoever meets somebody head on backs up. Decides for i, and returns whether it is
 * backing up. */
bool dj__back_decide(dj__traffic *t, int i);

/* traffic_merge.c: who lets whom in */
float dj__merge_decide(dj__traffic *t, int i); /* the acceleration that this allows */

/* traffic_junctions.c */
/* The acceleration that junctions on the way allow; *until: m from its middle where it has to
 * stop at the latest, HUGE_VALF if it may pass all. */
float dj__junctions_decide(dj__traffic *t, int i, float reach, float *until);
void dj__holds_release(dj__traffic *t, int i);
bool dj__holds(const dj__mind *m, int lane);
dj__light dj__traffic_light(const dj__traffic *t, int stop);

/* pedestrians.c */
/* Leaves the pavement and walks straight across to x, y, then on to the pavement `lane` at s. */
void dj__pedestrian_jaywalk(dj__traffic *t, int i, double x, double y, int lane, double s);
void dj__pedestrian_put(dj__traffic *t, int i, int lane, double s, int dir);
void dj__pedestrians_move(dj__traffic *t);
float dj__people_decide(dj__traffic *t, int i, float reach); /* who is on the way of vehicle i */

/* collision.c */
/* The last resort: brakes when i is about to run into whoever is ahead of it, lane or not. */
float dj__bumper(const dj__traffic *t, int i);
void dj__traffic_hash(dj__traffic *t);
int dj__hash_near(const dj__traffic *t, double x, double y, double reach, int *out, int max);

/* ---- small things ---- */
static inline float dj__clampf(float x, float lo, float hi) {
  return x < lo ? lo : x > hi ? hi : x;
}
static inline bool dj__is_motor(int kind) {
  return kind <= DJ__MOTORCYCLE || kind == DJ__RC_CAR;
}
/* Follows lanes by the models: alive, not parked, not static, on wheels. */
static inline bool dj__is_rider(const dj__agents *a, int i) {
  return (a->flags[i] & (DJ__AGENT_LIVE | DJ__AGENT_PARKED | DJ__AGENT_STATIC)) == DJ__AGENT_LIVE &&
         (a->kind[i] <= DJ__CYCLIST || a->kind[i] == DJ__RC_CAR);
}
static inline bool dj__is_external(const dj__traffic *t, int i) {
  return i < t->n_external || t->mind[i].given;
}
/* Point of a lane at or before s, and how far to the next one (0..1; beyond the ends: outside). */
static inline const dj__lane_point *dj__lane_at(const dj__map *m, int lane, double s, double *f) {
  const dj__lane *l = &m->lane[lane];
  const dj__lane_point *p = m->point + l->point0;
  int last = l->n_point - 2;
  int k = (int)(s / l->length * (l->n_point - 1));
  k = k < 0 ? 0 : k > last ? last : k;
  while (k > 0 && (double)p[k].s > s) k--;
  while (k < last && (double)p[k + 1].s <= s) k++;
  double ds = (double)p[k + 1].s - (double)p[k].s;
  *f = ds > 0 ? (s - (double)p[k].s) / ds : 0;
  return p + k;
}
static inline void dj__lane_xy(const dj__map *m, int lane, double s, double t, double *x,
                               double *y) {
  double f;
  const dj__lane_point *p = dj__lane_at(m, lane, s, &f);
  double dx = p[1].x - p[0].x, dy = p[1].y - p[0].y, n = t / (hypot(dx, dy) + 1e-9);
  *x = p[0].x + f * dx - n * dy;
  *y = p[0].y + f * dy + n * dx;
}
static inline float dj__width_at(const dj__map *m, int lane, double s) {
  double f;
  return dj__lane_at(m, lane, s, &f)->width;
}
static inline int dj__succ(const dj__map *m, int lane, int k) {
  return m->graph[m->lane[lane].succ0 + k];
}
static inline int dj__pred(const dj__map *m, int lane, int k) {
  return m->graph[m->lane[lane].pred0 + k];
}

#endif
