/*
 * Driving: the task that a run trains (a network with its losses on a store's drives), and its
 * scores.
 *
 *     dj_task *task;
 *     DJ_TRY(dj_task_create_drive(recipe, "S", &task));
 *     ... dj_run_train(run, task, ...) ...
 *
 *     dj_drive_scores s;
 *     DJ_TRY(dj_drive_eval("R", "S", "test", &(dj_drive_eval_options){0}, &s));
 */
#ifndef DOJO_DRIVE_H
#define DOJO_DRIVE_H

#include "dojo/train.h"

/* Opens the recipe's data in the store (makes missing shards) and binds its network. Errors:
 * DJ_E_NOT_FOUND (no such network: lists those there are; no drive holds the labels), DJ_E_INVALID
 * (a size that the network cannot take). `r` must outlive the task. */
dj_status dj_task_create_drive(const dj_recipe *r, const char *store, dj_task **task);
/* Names of the networks; NULL past the last. */
const char *dj_network_name(int i);

/* A figure with its 95 % interval (circular block bootstrap over time, blocks of 2 s, 1000
 * resamples, fixed seed; Politis & Romano 1992). NaN where there is nothing to score. */
typedef struct dj_figure {
  double value, low, high;
} dj_figure;

typedef struct dj_steering_scores {
  uint64_t n;     /* frames scored */
  dj_figure mae;  /* mean of |prediction - driver|, share of full lock */
  dj_figure rmse; /* root of the mean squared difference */
  dj_figure r2;   /* 1 - sum of squares / sum of squares about the mean of the scored part */
} dj_steering_scores;

enum { DJ_N_HORIZONS = 3 }; /* 1, 2 and 3 s */
typedef struct dj_path_scores {
  uint64_t n[DJ_N_HORIZONS];    /* frames whose path reaches that far and whose motion is known */
  dj_figure ade[DJ_N_HORIZONS]; /* mean distance over the points up to the horizon, m */
  dj_figure fde[DJ_N_HORIZONS]; /* distance at the horizon, m */
} dj_path_scores;

/* Predictors: the network, then the baselines. */
typedef enum dj_predictor {
  DJ_PREDICT_NETWORK,
  DJ_PREDICT_MEAN,     /* steering: mean over the training split */
  DJ_PREDICT_PREVIOUS, /* steering: what the driver did one frame earlier (0 at a clip's start) */
  DJ_PREDICT_VELOCITY, /* path: straight on at the present speed */
  DJ_PREDICT_TURN,     /* path: present speed and present turn rate */
  DJ_N_PREDICTORS
} dj_predictor;
const char *dj_predictor_name(dj_predictor p);

typedef struct dj_drive_scores {
  char network[64], split[16], data[65]; /* data: digest of what was scored */
  uint64_t step;                         /* of the checkpoint */
  uint64_t frames;                       /* of the split */
  bool has_path;                         /* the network predicts the ego path */
  double longest_path;                   /* s that the longest recorded path of the split reaches */
  double seconds;
  dj_steering_scores steering[DJ_N_PREDICTORS]; /* n = 0: not scored */
  dj_path_scores path[DJ_N_PREDICTORS];
} dj_drive_scores;

typedef struct dj_drive_eval_options {
  dj_checkpoint_which checkpoint;
  int threads; /* 0: all cores */
} dj_drive_eval_options;
dj_status dj_drive_eval(const char *run_dir, const char *store, const char *split,
                        const dj_drive_eval_options *o, dj_drive_scores *s);

/* ---- pictures ---- */
typedef struct dj_drive_predict_options {
  const char *video; /* *.mp4: every frame; NULL: none */
  const char *sheet; /* *.png: nine moments and the whole split over time; NULL: none */
  dj_checkpoint_which checkpoint;
  uint64_t limit; /* the first so many frames of the split; 0: all */
  int threads;    /* 0: all cores */
} dj_drive_predict_options;

typedef struct dj_drive_predict_report {
  uint64_t frames;
  uint64_t step;       /* of the checkpoint */
  double fps;          /* of the video: the recorded rate, so it plays in real time */
  double steering_mae; /* over the frames drawn; NaN where there is no label or no head */
  double seconds;
} dj_drive_predict_report;

/* Draws what the network saw, what it would do and what the driver did. Files appear whole or not
 * at all. Errors: those of dj_drive_eval, DJ_E_INVALID (no file asked for, a name with another
 * ending), DJ_E_UNSUPPORTED (no video encoder), DJ_E_IO, DJ_E_NO_SPACE. */
dj_status dj_drive_predict(const char *run_dir, const char *store, const char *split,
                           const dj_drive_predict_options *o, dj_drive_predict_report *report);

#endif
