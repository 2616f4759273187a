/*
 * How a drive is scored: the history of what happened, step by step, and figures from it.
 *
 *     dj__history h = {0};
 *     ... dj__history_add(&h, &step, agents, n) every 50 ms ...
 *     dj__drive_score s;
 *     dj__score_drive(&r, &s);                       // a pure function of the history
 *     dj__score_suite(scores, n, &total);            // means with 95 % intervals over drives
 *
 * Definitions (also printed by `dojo drive --help`, and in docs/drive.md).
 *
 * PDMS = NC * DAC * (5 TTC + 2 C + 5 EP) / 12: NAVSIM's predictive driver model score (Dauner et
 * al., "NAVSIM: Data-driven non-reactive autonomous vehicle simulation and benchmarking", NeurIPS
 * 2024), here over the whole drive and with traffic that reacts:
 *
 * - NC: 1 without a collision at fault, 1/2 after one with a thing (cone, barrier), 0 after one
 * with anyone else. As in nuPlan (Caesar et al. 2021; Karnchanachari et al. 2024) the ego is at
 * fault when it runs into what stands, when its front hits something, or when it is hit at its side
 *   while it occupies several lanes or is off the road; not when it stands or is hit from behind.
 *
 * - DAC: 1 if all four corners always stay on what may be driven on, else 0.
 *
 * - TTC: 0 if at any step the ego, going straight on at its speed for 0, 0.3, 0.6 or 0.9 s, would
 * hit somebody (where they really are by then) ahead, or beside it while it occupies several lanes
 * or is off the road; else 1. Steps at which it stands do not count.
 *
 * - EP: share of the route that was done when the expert had done the same route (or when the time
 *   was up), 0..1. NAVSIM: progress over that of its privileged planner.
 *
 * - C: 1 if at every step longitudinal acceleration is within -4.05..2.40 m/s^2, lateral
 * within 4.89 m/s^2, jerk within 8.37 and longitudinal jerk within 4.13 m/s^3, yaw rate within 0.95
 * rad/s and yaw acceleration within 1.93 rad/s^2 (nuPlan's limits, smoothed as there by local
 * polynomials); else 0. Always 1 where nobody sits in the vehicle (rc-car).
 *
 * Driving score after CARLA's leaderboard (https://leaderboard.carla.ai): route completion in per
 * cent times 0.50 for every collision with a person, 0.60 with a vehicle, 0.65 with a thing, 0.70
 * for every red light and 0.80 for every stop sign passed; metres off the road do not count as
 * done. Only collisions at fault count.
 *
 * Infractions are episodes: what goes on without a break of a second counts once.
 */
#ifndef DOJO_WORLD_SCORE_H
#define DOJO_WORLD_SCORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dojo/drive.h"
#include "dojo/status.h"

/* ---- what happened ---- */
enum { /* facts of a step that need the map: found while driving (loop.c) */
       DJ__FACT_CORNER_OFF = 1, /* a corner is outside of what may be driven on */
       DJ__FACT_OFF_ROAD = 2,   /* so is the middle */
       DJ__FACT_MANY_LANES = 4, /* the box lies in more than one lane */
       DJ__FACT_ONCOMING = 8,   /* the middle is in a lane of the other direction */
       DJ__FACT_PASSING =
           16, /* ... with something standing or slow in the own lane beside or ahead */
       DJ__FACT_RED_LIGHT = 32, /* in this step the front passed a stop line at red */
       DJ__FACT_STOP_SIGN = 64, /* ... at a stop sign without having stood before it */
       DJ__FACT_DEVIATED = 128  /* further than 30 m from the route */
};

typedef struct dj__history_agent { /* somebody near, at one step */
  uint32_t id;
  uint8_t kind, flags;
  float x, y, yaw, speed, length, width;
} dj__history_agent;

typedef struct dj__history_step {
  double time, x, y, yaw;          /* s; middle of the ego's box, m, rad */
  double speed, ax, ay, yaw_rate;  /* m/s forward, m/s^2 in the vehicle's frame, rad/s */
  double route_s, offset;          /* m along the route, m to the left of its lane's middle */
  double limit;                    /* m/s */
  float steering, throttle, brake; /* commands */
  uint16_t facts;
  int agent0, n_agent; /* in history.agent */
} dj__history_step;

typedef enum dj__drive_end {
  DJ__END_ARRIVED,
  DJ__END_TIME,      /* the time was up */
  DJ__END_COLLISION, /* at fault */
  DJ__END_OFF_ROAD,  /* for 3 s */
  DJ__END_DEVIATED,
  DJ__END_BLOCKED, /* stood for 60 s, not before a red light */
  DJ__N_ENDS
} dj__drive_end;
const char *dj__end_name(dj__drive_end e); /* "arrived", "time", ... */

typedef struct dj__history {
  dj__history_step *step;
  dj__history_agent *agent;
  size_t n_step, cap_step, n_agent, cap_agent;
  double length, width; /* of the ego's box */
  double route_length;  /* m */
  double par;           /* s the expert took for it; NaN: it is the expert, or did not arrive */
  bool passengers;      /* comfort matters */
  dj__drive_end end;
} dj__history;
/* Appends a step with its agents; step.agent0 and n_agent are set. DJ_E_NOMEM. */
dj_status dj__history_add(dj__history *h, const dj__history_step *s,
                          const dj__history_agent *agents, int n);
void dj__history_free(dj__history *h);

/* ---- figures of one drive ---- */
typedef enum dj__infraction {
  DJ__HIT_VEHICLE, /* motor vehicles and cyclists */
  DJ__HIT_PERSON,
  DJ__HIT_THING,
  DJ__RAN_RED,
  DJ__RAN_STOP,
  DJ__LEFT_ROAD,
  DJ__WRONG_LANE, /* more than 2 m driven in an oncoming lane without anything to pass */
  DJ__SPEEDING,   /* more than 2.23 m/s over the limit (nuPlan) for a second */
  DJ__DEVIATED,
  DJ__BLOCKED,
  DJ__N_INFRACTIONS
} dj__infraction;
const char *dj__infraction_name(dj__infraction i); /* "collision_vehicle", ... */

typedef struct dj__drive_score {
  double pdms, nc, dac, ttc, ep, comfort; /* 0..1 */
  double driving_score, completion;       /* per cent */
  int infraction[DJ__N_INFRACTIONS];
  int hit_by_others; /* collisions without fault */
  double km, seconds;
  bool arrived, failed; /* failed: a collision at fault, off the road, deviated or blocked, or a red
                           light */
  dj__drive_end end;
  double first_failure; /* s, or NaN */
} dj__drive_score;
dj_status dj__score_drive(const dj__history *h, dj__drive_score *s);

/* Whether the ego is at fault in hitting `a` at step s; the boxes touch. */
bool dj__at_fault(const dj__history *h, const dj__history_step *s, const dj__history_agent *a);

/* ---- of many ---- */
typedef struct dj__suite_score { /* means with intervals: bootstrap over drives, 1000 resamples,
                                    fixed seed */
  size_t n;
  dj_figure pdms, nc, dac, ttc, ep, comfort;    /* per cent */
  dj_figure driving_score, completion, arrived; /* per cent */
  dj_figure per_km[DJ__N_INFRACTIONS];
  dj_figure collisions_per_km;   /* at fault, of all kinds */
  dj_figure km_between_failures; /* distance over failures; value NaN where nothing failed: then
                                    `low` is all of the distance over 3 (rule of three) */
  int failures, hit_by_others;
  double km, hours;
} dj__suite_score;
dj_status dj__score_suite(const dj__drive_score *s, size_t n, dj__suite_score *out);
/* Sum of a over sum of b, with the percentile interval over drives drawn with replacement (Efron
 * 1979). Draws in which b adds up to nothing count as the whole. NaN if there is nothing of b. */
dj_figure dj__ratio_with_interval(const double *a, const double *b, size_t n);

/* Oriented boxes with middle, direction, length and width. */
bool dj__boxes_touch(double ax, double ay, double ayaw, double al, double aw, double bx, double by,
                     double byaw, double bl, double bw);

#endif
