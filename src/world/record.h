/*
 * Recording drives of the world as MCAP logs: a driver drives the cases of a suite, its cameras are
 * drawn and encoded meanwhile, and exact labels are written with every frame.
 *
 *     dj__record_options o = {.suite = "suites/train.yaml", .out = "logs", .limit = 10};
 *     dj__record_report r;
 *     dj_status s = dj__record(&o, &r);
 *     dj__record_report_free(&r);
 *
 * A log appears under its name when it is whole. What is there already, and was recorded with the
 * same options, is left as it is, so an interrupted recording is simply started again.
 */
#ifndef DOJO_WORLD_RECORD_H
#define DOJO_WORLD_RECORD_H

#include "world/drive.h"

typedef struct dj__record_options {
  const char *suite, *out;
  int64_t seed0;      /* -1: the suite's towns; else towns of these seeds (dj__suite_read) */
  int limit;          /* drives, 0: all */
  const char *rig;    /* NULL: as the suite says */
  double rate;        /* Hz of frames, one of 1, 2, 4, 5, 10, 20; 0: the rig's, or the next below */
  bool video;         /* H.264 instead of JPEG */
  int quality;        /* of JPEG, 1..100; 0: 90 */
  uint32_t layers;    /* 1 << dj_layer */
  const char *driver; /* "expert", "constant", or a run's folder; NULL: "expert". A run's network
                         drives with the expert beside it (pupil.h), whose wishes are recorded */
  double perturb;     /* strength of pushes at the wheel, 0..1; 0: none */
  int threads;        /* that encode; 0: as many as there are cores */
  double seconds;     /* of a drive at most; 0: as the suite says */
} dj__record_options;

typedef enum dj__record_outcome {
  DJ__RECORDED,
  DJ__RECORD_THERE, /* was there already */
  DJ__RECORD_EMPTY  /* ended (in a collision) before a frame could be kept */
} dj__record_outcome;
const char *dj__record_outcome_name(dj__record_outcome o);

typedef enum dj__record_end { DJ__END_TIME, DJ__END_ROUTE, DJ__END_COLLISION } dj__record_end;
const char *dj__record_end_name(dj__record_end e);

typedef struct dj__record_drive {
  char name[DJ_NAME_BYTES], which[96]; /* of the log, of the case */
  char path[512];
  dj__record_outcome outcome;
  dj__record_end end;
  int n_cameras;
  uint64_t n_frames;      /* of each camera */
  double seconds, metres; /* that the log covers */
  double wall;            /* s that it took */
  int64_t bytes;
  int n_events;
  double own; /* share of the time that a run's network drove by itself, 0..1 */
} dj__record_drive;
typedef struct dj__record_report {
  dj__record_drive *drives;
  int n, n_recorded, n_there, n_empty;
} dj__record_report;

/* Errors name the suite's line, the rig, or the case; the report holds what was done before. */
dj_status dj__record(const dj__record_options *o, dj__record_report *report);
void dj__record_report_free(dj__record_report *r);

/* ---- one drive ---- */
typedef struct dj__record_job {
  const dj__record_options *o;
  const dj__case *c;
  const dj__map *map;
  dj__renderer *renderer;
  const dj__rig *rig;
  double rate;
  dj__driver *pupil;                            /* a network that drives; NULL: none */
  dj_drive_info info;                           /* name, source, digest, cameras */
  void (*progress)(void *user, double seconds); /* of the drive so far; NULL: none */
  void *user;
} dj__record_job;
dj_status dj__record_case(const dj__record_job *j, dj__record_drive *d);

/* A driver by its name ("expert", "constant"). */
dj_status dj__driver_find(const char *name, dj__driver *d);
/* A push at the steering wheel at a step of the world: 0 most of the time, now and then a triangle
 * of about a second. A function of (seed, step, strength, speed): see record_drive.c. */
double dj__perturbation(uint64_t seed, uint64_t step, double strength, double speed,
                        const dj__vehicle_model *v);

#endif
