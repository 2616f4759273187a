/*
 * The closed loop: drives cases of a suite with a driver, and records what happened.
 *
 *     dj__suite_drive_options o = {.driver = "expert"};
 *     dj__suite_drive r;
 *     DJ_TRY(dj__drive_suite(&suite, &o, &r));        // r.score[i] of suite.cases[i], r.total
 *     dj__suite_drive_free(&r);
 *
 * Time goes in steps of 50 ms. At its own rate a driver is given what it may see, and says a
 * command, which takes effect `latency` later. A case's drive is a function of the case and the
 * driver: threads take whole cases, so their number changes nothing.
 */
#ifndef DOJO_WORLD_LOOP_H
#define DOJO_WORLD_LOOP_H

#include "world/drive.h"
#include "world/guide.h"
#include "world/score.h"

/* ---- facts ---- */
typedef struct dj__observer { /* finds the facts of each step */
  dj__guide guide;
  double scale;                  /* of lengths: 1, less for toy cars */
  double s, d;                   /* of the box's middle on the guide */
  double front;                  /* station of the front at the step before */
  double slowest;                /* m/s, within 4 m before the stop sign ahead */
  int stop_line;                 /* that one, or -1 */
  bool inside;                   /* has been wholly on the road */
  double off_since, stood_since; /* s; NaN: not */
} dj__observer;
dj_status dj__observer_start(dj__observer *o, const dj__world *w);
void dj__observer_end(dj__observer *o);
/* After a step of the world: appends to the history; *end is set and true returned where the drive
 * is over. */
dj_status dj__observer_step(dj__observer *o, const dj__world *w, double limit_s, dj__history *h,
                            bool *over);

/* ---- one drive ---- */
typedef struct dj__watcher { /* sees every step, for replays; NULL members are fine */
  dj_status (*step)(void *self, const dj__world *w, const dj__observer *o, const dj__sense *in);
  void *self;
} dj__watcher;

/* `renderer` draws the driver's rig, NULL where it needs no camera. The history is the caller's. */
dj_status dj__drive_case(const dj__case *c, const dj__map *m, dj__driver *d, dj__renderer *renderer,
                         const dj__watcher *watcher, dj__history *h);

/* ---- a suite ---- */
typedef dj_status dj__make_driver(void *user, dj__driver *d);

typedef struct dj__suite_drive_options {
  dj__make_driver *make; /* called once a thread */
  void *user;
  bool is_expert;              /* no expert drives beside it */
  int threads;                 /* 0: all cores */
  const dj__watcher *watchers; /* (n) of the suite's cases, or NULL */
} dj__suite_drive_options;

typedef struct dj__suite_drive {
  int n;
  dj__drive_score *score; /* (n) of the suite's cases */
  double *par;            /* (n) s that the expert took, or NaN */
  dj__suite_score total, kind[DJ__N_CASES];
  double seconds; /* it took */
  char driver[64];
} dj__suite_drive;
/* Errors: those of the first case that failed. Says its progress. */
dj_status dj__drive_suite(const dj__suite *s, const dj__suite_drive_options *o, dj__suite_drive *r);
void dj__suite_drive_free(dj__suite_drive *r);

#endif
