/*
 * Inside of the expert, the planner that sees the whole state. Each step it
 *   1. finds itself and everybody near on its guide, and forecasts them for 8 s (expert_see.c):
 *      along the lanes that they are going to take, at the speed they have; what does not have the
 *      right to enter a junction stops before it;
 *   2. lists where it may have to stop: lights, stop signs, who has the right of way, people on
 *      crossings, lane changes that are not free (expert_rules.c);
 *   3. rolls itself forward along some paths (its lane, and ways past what stands in it) by the
 *      Intelligent Driver Model against the forecasts, and takes the one that costs least
 *      (expert_plan.c): rule-based proposals that are simulated and scored, as in PDM-Closed
 *      (Dauner et al., "Parting with misconceptions about learning-based vehicle motion planning",
 *      CoRL 2023), on paths in the guide's frame (Werling et al., "Optimal trajectory generation
 *      for dynamic street scenarios in a Frenet frame", ICRA 2010);
 *   4. follows the path (expert.c, pilot.h).
 * Everything is a function of the world's state and of its own few memories; no allocation.
 */
#ifndef DOJO_WORLD_EXPERT_H
#define DOJO_WORLD_EXPERT_H

#include "world/drive.h"
#include "world/guide.h"

enum {
  DJ__SEEN = 64,  /* agents taken into account */
  DJ__AHEAD = 22, /* forecast steps */
  DJ__STOPS = 48,
  DJ__ZEBRAS = 256,
  DJ__CAPS = 16,
  DJ__RECENT = 30,
  DJ__MEETS = 2048 /* conflicts on a guide */
};
#define DJ__AHEAD_DT 0.45   /* s */
#define DJ__FIRMEST  (-3.7) /* m/s^2: as it brakes unless somebody would be hit */

typedef struct dj__box { /* where somebody is on the guide */
  float lo, hi;          /* stations */
  float right, left;     /* m to the left of the line */
  float along;           /* m/s */
  float x, y, yaw;       /* in the world, from the map's corner: m, rad */
} dj__box;

typedef struct dj__seen {
  int agent;
  uint8_t kind;
  bool person, passable, oncoming,
      behind; /* passable: one may go round it; behind: follows the ego */
  double v;
  float length, width;
  float margin; /* m to keep aside */
  int from, to; /* forecast steps at which it is near the way; to < from: never */
  dj__box at[DJ__AHEAD + 1];
} dj__seen;

typedef struct dj__stop_at {
  double s, gap; /* station that the front must not pass, m to keep before it */
} dj__stop_at;

typedef struct dj__guide_meet { /* a conflict of the route */
  double from, to, gate;        /* stations; gate: where to wait */
  int conflict, line;           /* in map.conflict; its stop line, or -1 */
} dj__guide_meet;

typedef struct dj__guide_zebra {
  double s, half; /* station, half of its width */
  int crossing;
} dj__guide_zebra;

typedef struct dj__swerve { /* m to the left of the guide: quintic from s0 over length, then `to` */
  double s0, length, to, c[6];
  double speed; /* m/s, at which the wheels can be turned fast enough for it */
} dj__swerve;

typedef struct dj__plan { /* one path, rolled forward */
  dj__swerve way;
  double accel, lowest; /* m/s^2: now; lowest on the way */
  double back;          /* station from which on it may return to the lane */
  bool opposed;         /* somebody who comes towards it stops it */
  double progress, hit; /* m in 8 s; s until a collision, or HUGE_VAL */
  double cost, quick;   /* quick: share of the usual length */
  int blocker;          /* index in seen of what holds it back first, or -1 */
} dj__plan;

typedef struct dj__expert {
  const dj__map *map;
  const dj__vehicle_model *model;
  dj__guide guide;
  double *v_max;        /* (guide.n) m/s */
  double cap[DJ__CAPS]; /* m/s every 2 m ahead of the middle, for what comes into view */
  double cap_s;         /* station of the first */
  double scale;         /* of lengths: 1 for cars, less for toys */
  dj__guide_meet *meet;
  dj__guide_zebra *zebra;
  int n_meet, n_zebra;
  double ox, oy; /* the map's corner */
  /* this step */
  double s, d, direction; /* rear axle on the guide: station, m left, rad */
  double mid, v;          /* station of the box's middle, m/s */
  double speed_factor;    /* weather */
  dj__seen seen[DJ__SEEN];
  int n_seen;
  dj__stop_at stop[DJ__STOPS];
  int n_stop;
  /* memories */
  dj__swerve way;
  double back;              /* of the plan */
  double accel;             /* last one asked for */
  float recent[DJ__RECENT]; /* accelerations of the last 1.5 s */
  unsigned at;
  int alarm;     /* steps for which an emergency has lasted */
  double waited; /* s that it has stood */
  double calm;   /* s for which the way should not change */
  bool started;
  bool stood[DJ__GUIDE_LINES]; /* at stop signs: has stood before it */
} dj__expert;

dj_status dj__expert_reset(dj__expert *e, const dj__world *w);
void dj__expert_clear(dj__expert *e);

/* expert_see.c */
void dj__expert_see(dj__expert *e, const dj__world *w);

/* expert_rules.c */
dj_status dj__expert_study(dj__expert *e); /* once: conflicts and crossings of the route */
void dj__expert_rules(dj__expert *e, const dj__world *w);
void dj__expert_stop_at(dj__expert *e, double s, double gap);

/* expert_plan.c */
void dj__expert_speeds(dj__expert *e); /* v_max along the guide */
/* Speeds at which going straight on for a second hits nobody (cap). */
void dj__expert_caps(dj__expert *e);
/* The most acceleration with which the box, as it is now, does not run into somebody close by. */
double dj__expert_bumper(const dj__expert *e, const dj__world *w);
void dj__expert_plan(dj__expert *e, dj__plan *best);
/* Would braking as passengers bear it along this plan hit somebody, or come so near to somebody as
 * braking hard would not? */
bool dj__expert_emergency(const dj__expert *e, const dj__plan *p);
double dj__swerve_at(const dj__swerve *w, double s, double *slope, double *bend);
/* From d (m) with slope to `to` over length. */
void dj__swerve_make(dj__swerve *w, double s, double d, double slope, double to, double length,
                     const dj__vehicle_model *m);

#endif
