/*
 * Scoring a run on a split: every frame of the split is predicted from the window that ends at it,
 * in order of time, and compared with what the driver did; the baselines are scored on the same
 * frames.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "dojo/log.h"
#include "drive/metrics.h"
#include "drive/playback.h"

const char *dj_predictor_name(dj_predictor p) {
  static const char *const names[DJ_N_PREDICTORS] = {"network", "mean", "previous",
                                                     "constant_velocity", "constant_turn_rate"};
  return p >= 0 && p < DJ_N_PREDICTORS ? names[p] : "?";
}

typedef struct eval {
  dj__playback play;
  // Scored frames, in order:
  double *truth, *predicted[DJ_N_PREDICTORS]; // steering
  size_t n;
  double *ade[DJ_N_PREDICTORS][DJ_N_HORIZONS], *fde[DJ_N_PREDICTORS][DJ_N_HORIZONS]; // path, m
  size_t n_path[DJ_N_HORIZONS];
  double longest; // s that a recorded path reaches
} eval;

static void close_eval(eval *e) {
  dj__playback_close(&e->play);
  free(e->truth);
  for (int p = 0; p < DJ_N_PREDICTORS; p++) {
    free(e->predicted[p]);
    for (int h = 0; h < DJ_N_HORIZONS; h++) {
      free(e->ade[p][h]);
      free(e->fde[p][h]);
    }
  }
}

static dj_status make_arrays(eval *e) {
  size_t n = (size_t)dj_dataset_size(e->play.data) + 1;
  bool ok = (e->truth = malloc(n * sizeof(double))) != NULL;
  for (int p = 0; p < DJ_N_PREDICTORS; p++) {
    ok &= (e->predicted[p] = malloc(n * sizeof(double))) != NULL;
    for (int h = 0; h < DJ_N_HORIZONS; h++) {
      ok &= (e->ade[p][h] = malloc(n * sizeof(double))) != NULL;
      ok &= (e->fde[p][h] = malloc(n * sizeof(double))) != NULL;
    }
  }
  return ok ? DJ_OK : dj_error(DJ_E_NOMEM, "eval: no memory for %zu frames", n);
}

/* Points of the recorded path up to the horizon; 0 where it ends before. */
static int points_within(const float *mask, int horizon) {
  int i = 0;
  for (; i < DJ_PATH_POINTS && dj_path_time(i) <= horizon; i++)
    if (mask[i] <= 0) return 0;
  return i;
}

/* xy (33, 2) against the driven path of one frame, up to each horizon it reaches. */
static void score_path(eval *e, int predictor, const double xy[DJ_PATH_POINTS][2],
                       const dj__played *f) {
  for (int h = 0; h < DJ_N_HORIZONS; h++) {
    int points = points_within(f->path_mask, h + 1);
    if (!points) continue;
    double sum = 0, end = 0;
    for (int i = 0; i < points; i++) {
      end = hypot(xy[i][0] - (double)f->path[3 * i], xy[i][1] - (double)f->path[3 * i + 1]);
      sum += end;
    }
    e->ade[predictor][h][e->n_path[h]] = sum / points;
    e->fde[predictor][h][e->n_path[h]] = end;
  }
}

/* Straight on, and round the present turn, at the present speed. */
static void extrapolate(double speed, double yaw_rate, double xy[DJ_PATH_POINTS][2]) {
  for (int i = 0; i < DJ_PATH_POINTS; i++) {
    double t = dj_path_time(i), a = yaw_rate * t;
    xy[i][0] = fabs(a) > 1e-6 ? speed / yaw_rate * sin(a) : speed * t;
    xy[i][1] = fabs(a) > 1e-6 ? speed / yaw_rate * (1 - cos(a)) : 0;
  }
}

static void score_paths(eval *e, const dj__played *f) {
  for (int i = 0; i < DJ_PATH_POINTS && f->path_mask[i] > 0; i++)
    e->longest = fmax(e->longest, dj_path_time(i));
  if (isnan(f->speed)) return; // no baseline: the drive's first frame, or one behind a gap
  double xy[DJ_PATH_POINTS][2];
  for (int j = 0; j < DJ_PATH_POINTS; j++)
    for (int k = 0; k < 2; k++) xy[j][k] = (double)f->said.path[2 * j + k];
  score_path(e, DJ_PREDICT_NETWORK, xy, f);
  extrapolate(f->speed, 0, xy);
  score_path(e, DJ_PREDICT_VELOCITY, xy, f);
  extrapolate(f->speed, isnan(f->yaw_rate) ? 0 : f->yaw_rate, xy);
  score_path(e, DJ_PREDICT_TURN, xy, f);
  for (int h = 0; h < DJ_N_HORIZONS; h++) e->n_path[h] += points_within(f->path_mask, h + 1) > 0;
}

static void score_steering(eval *e, const dj__played *f) {
  if (isnan(f->ref.steering)) return;
  e->truth[e->n] = f->ref.steering;
  e->predicted[DJ_PREDICT_NETWORK][e->n] = (double)f->said.steering;
  e->predicted[DJ_PREDICT_MEAN][e->n] = e->play.training_mean;
  e->predicted[DJ_PREDICT_PREVIOUS][e->n] = isnan(f->previous) ? 0 : f->previous;
  e->n++;
}

static dj_status run_eval(eval *e) {
  uint64_t size = dj_dataset_size(e->play.data);
  bool control = (e->play.run.recipe->data.labels & DJ_LABEL_CONTROL) != 0;
  dj__played f;
  dj_status s;
  while (!(s = dj__playback_next(&e->play, &f))) {
    if (control) score_steering(e, &f);
    if (f.said.path) score_paths(e, &f);
    dj_progress("scoring", f.sample + 1, size, "frames", NULL);
  }
  return s == DJ_E_END ? DJ_OK : s;
}

/* Frames in two seconds. */
static size_t block_length(const eval *e) {
  const dj_dataset *ds = e->play.data;
  if (dj_dataset_size(ds) < 2) return 1;
  double span = (double)(dj_dataset_frame(ds, 1).t_ns - dj_dataset_frame(ds, 0).t_ns) * 1e-9;
  return span > 0 && span < 10 ? (size_t)ceil(2 / span) : 20;
}

static void fill_scores(const eval *e, const char *split, dj_drive_scores *s) {
  const dj_recipe *r = e->play.run.recipe;
  (void)snprintf(s->network, sizeof s->network, "%s", r->network.name);
  (void)snprintf(s->split, sizeof s->split, "%s", split);
  (void)snprintf(s->data, sizeof s->data, "%s", dj_dataset_digest(e->play.data));
  s->step = e->play.step;
  s->frames = dj_dataset_size(e->play.data);
  s->has_path = (r->data.labels & DJ_LABEL_PATH) != 0;
  s->longest_path = e->longest;
  size_t block = block_length(e);
  for (int p = 0; p <= DJ_PREDICT_PREVIOUS; p++)
    dj__score_steering(e->predicted[p], e->truth, e->n, block, &s->steering[p]);
  for (int p = 0; p < DJ_N_PREDICTORS; p++)
    for (int h = 0; h < DJ_N_HORIZONS; h++) {
      if (p == DJ_PREDICT_MEAN || p == DJ_PREDICT_PREVIOUS) continue;
      s->path[p].n[h] = e->n_path[h];
      s->path[p].ade[h] = dj__mean_with_interval(e->ade[p][h], e->n_path[h], block);
      s->path[p].fde[h] = dj__mean_with_interval(e->fde[p][h], e->n_path[h], block);
    }
}

dj_status dj_drive_eval(const char *run_dir, const char *store, const char *split,
                        const dj_drive_eval_options *o, dj_drive_scores *s) {
  eval e = {0};
  *s = (dj_drive_scores){0};
  const double start = dj__now();
  dj_status st = dj__playback_open(&e.play, run_dir, store, split, o->checkpoint, o->threads);
  if (!st) st = make_arrays(&e);
  if (!st) st = run_eval(&e);
  if (!st) fill_scores(&e, split, s);
  s->seconds = dj__now() - start;
  close_eval(&e);
  return st;
}
