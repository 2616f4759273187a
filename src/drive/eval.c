/*
 * Scoring a run on a split: every frame of the split is predicted from the window that ends at it,
 * in order of time, and compared with what the driver did; the baselines are scored on the same
 * frames.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/fs.h"
#include "dojo/data.h"
#include "dojo/log.h"
#include "drive/metrics.h"
#include "drive/task.h"

const char *dj_predictor_name(dj_predictor p) {
  static const char *const names[DJ_N_PREDICTORS] = {"network", "mean", "previous",
                                                     "constant_velocity", "constant_turn_rate"};
  return p >= 0 && p < DJ_N_PREDICTORS ? names[p] : "?";
}

typedef struct eval {
  dj_run_info run;
  dj_vars *vars;
  dj_graph *graph;
  dj_program *program;
  dj_dataset *data;
  dj_loader *loader;
  uint64_t step;
  double mean; // steering over the training split
  // Scored frames, in order:
  double *truth, *predicted[DJ_N_PREDICTORS]; // steering
  size_t n;
  double *ade[DJ_N_PREDICTORS][DJ_N_HORIZONS], *fde[DJ_N_PREDICTORS][DJ_N_HORIZONS]; // path, m
  size_t n_path[DJ_N_HORIZONS];
} eval;

static void close_eval(eval *e) {
  dj_program_destroy(e->program);
  dj_graph_destroy(e->graph);
  dj_vars_destroy(e->vars);
  dj_loader_close(e->loader);
  dj_dataset_close(e->data);
  dj_run_info_free(&e->run);
  free(e->truth);
  for (int p = 0; p < DJ_N_PREDICTORS; p++) {
    free(e->predicted[p]);
    for (int h = 0; h < DJ_N_HORIZONS; h++) {
      free(e->ade[p][h]);
      free(e->fde[p][h]);
    }
  }
}

static dj_status training_mean(eval *e, const char *store) {
  dj_data_spec spec = dj__drive_spec(e->run.recipe, store, "train");
  dj_dataset *ds;
  DJ_TRY(dj_dataset_open(&spec, &ds));
  double sum = 0;
  uint64_t n = 0, size = dj_dataset_size(ds);
  for (uint64_t i = 0; i < size; i++) {
    double s = dj_dataset_frame(ds, i).steering;
    if (isnan(s)) continue;
    sum += s;
    n++;
  }
  dj_dataset_close(ds);
  e->mean = n ? sum / (double)n : 0;
  return DJ_OK;
}

static dj_status open_eval(eval *e, const char *dir, const char *store, const char *split,
                           const dj_drive_eval_options *o) {
  DJ_TRY(dj_run_read(dir, &e->run));
  if (!store) store = e->run.store;
  if (!store)
    return dj_error(DJ_E_INVALID, "%s: the run names no store; give one with --store", dir);
  const dj_recipe *r = e->run.recipe;
  char *path;
  dj_checkpoint_info info = {0};
  e->vars = dj_vars_create(0);
  e->graph = dj_graph_create();
  if (!e->vars || !e->graph) return DJ_E_NOMEM;
  DJ_TRY(dj_checkpoint_find(dir, o->checkpoint, &path));
  dj_status s = dj_checkpoint_load_for_eval(path, e->vars, &info);
  e->step = info.step;
  dj_checkpoint_info_free(&info);
  free(path);
  if (s) return s;
  DJ_TRY(training_mean(e, store));
  dj_data_spec spec = dj__drive_spec(r, store, split);
  DJ_TRY(dj_dataset_open(&spec, &e->data));
  DJ_TRY(dj_loader_open(e->data, &(dj_loader_options){.batch = r->train.batch, .threads = 1},
                        &e->loader));
  DJ_TRY(dj__drive_build_eval(r, r->data.n_cameras ? (int)r->data.n_cameras : 1, e->graph, NULL));
  return dj_program_compile(
      e->graph, &(dj_compile_options){.precision = r->train.precision, .threads = o->threads},
      e->vars, &e->program);
}

static dj_status make_arrays(eval *e) {
  size_t n = (size_t)dj_dataset_size(e->data) + 1;
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

/* xy (33, 2) against the driven path of one frame, up to each horizon it reaches. */
static void score_path(eval *e, int predictor, const double xy[DJ_PATH_POINTS][2],
                       const float *truth, const float *mask, const size_t at[DJ_N_HORIZONS]) {
  for (int h = 0; h < DJ_N_HORIZONS; h++) {
    double sum = 0, end = 0;
    int points = 0;
    for (int i = 0; i < DJ_PATH_POINTS && dj_path_time(i) <= h + 1; i++) {
      if (mask[i] <= 0) break;
      end = hypot(xy[i][0] - (double)truth[3 * i], xy[i][1] - (double)truth[3 * i + 1]);
      sum += end;
      points++;
    }
    bool reached = points > 0 && points < DJ_PATH_POINTS && dj_path_time(points) > h + 1;
    if (!reached) continue;
    e->ade[predictor][h][at[h]] = sum / points;
    e->fde[predictor][h][at[h]] = end;
  }
}

static bool reaches(const float *mask, int horizon) {
  for (int i = 0; i < DJ_PATH_POINTS && dj_path_time(i) <= horizon; i++)
    if (mask[i] <= 0) return false;
  return true;
}

/* Straight on, and round the present turn, at the present speed. */
static void extrapolate(double speed, double yaw_rate, double xy[DJ_PATH_POINTS][2]) {
  for (int i = 0; i < DJ_PATH_POINTS; i++) {
    double t = dj_path_time(i), a = yaw_rate * t;
    xy[i][0] = fabs(a) > 1e-6 ? speed / yaw_rate * sin(a) : speed * t;
    xy[i][1] = fabs(a) > 1e-6 ? speed / yaw_rate * (1 - cos(a)) : 0;
  }
}

static void score_paths(eval *e, const dj_batch *b, int i, int64_t at, uint64_t sample) {
  int64_t last = (int64_t)(i + 1) * b->t - 1;
  const float *truth = b->path + last * DJ_PATH_POINTS * 3,
              *mask = b->path_mask + last * DJ_PATH_POINTS;
  if (!reaches(mask, 1)) return;
  const dj_tensor *path = dj_program_output(e->program, "path"),
                  *choice = dj_program_output(e->program, "choice");
  int64_t k = path->shape.dim[2], best = 0;
  const float *logit = (float *)choice->data + at * k;
  for (int64_t j = 1; j < k; j++)
    if (logit[j] > logit[best]) best = j;
  const float *own = (float *)path->data + (at * k + best) * DJ_PATH_POINTS * 2;
  double xy[DJ_PATH_POINTS][2];
  for (int j = 0; j < DJ_PATH_POINTS; j++) {
    xy[j][0] = (double)own[2 * j];
    xy[j][1] = (double)own[2 * j + 1];
  }
  score_path(e, DJ_PREDICT_NETWORK, xy, truth, mask, e->n_path);
  // Speed and turn rate from the frame before, by the window or by the dataset.
  double speed = b->speed_mask[last] > 0 ? (double)b->speed[last] : 0, yaw_rate = 0;
  const float *motion = b->motion + last * 3;
  if (b->motion_mask[last] > 0 && b->t > 1 && sample > 0) {
    double dt = (double)(dj_dataset_frame(e->data, sample).t_ns -
                         dj_dataset_frame(e->data, sample - 1).t_ns) *
                1e-9 * e->run.recipe->data.stride;
    if (dt > 0 && dt < 10) {
      yaw_rate = (double)motion[2] / dt;
      if (b->speed_mask[last] <= 0) speed = (double)motion[0] / dt;
    }
  }
  extrapolate(speed, 0, xy);
  score_path(e, DJ_PREDICT_VELOCITY, xy, truth, mask, e->n_path);
  extrapolate(speed, yaw_rate, xy);
  score_path(e, DJ_PREDICT_TURN, xy, truth, mask, e->n_path);
  for (int h = 0; h < DJ_N_HORIZONS; h++) e->n_path[h] += reaches(mask, h + 1);
}

static void score_steering(eval *e, const dj_batch *b, int i, int64_t at, uint64_t sample) {
  int64_t last = (int64_t)(i + 1) * b->t - 1;
  if (b->control_mask[last * 3] <= 0) return;
  const float *control = dj_program_output(e->program, "control")->data;
  double previous = 0;
  if (sample > 0) {
    dj_frame_ref now = dj_dataset_frame(e->data, sample),
                 before = dj_dataset_frame(e->data, sample - 1);
    if (now.clip == before.clip && !strcmp(now.drive, before.drive) && !isnan(before.steering))
      previous = before.steering;
  }
  e->truth[e->n] = (double)b->control[last * 3];
  e->predicted[DJ_PREDICT_NETWORK][e->n] = (double)control[at * 2];
  e->predicted[DJ_PREDICT_MEAN][e->n] = e->mean;
  e->predicted[DJ_PREDICT_PREVIOUS][e->n] = previous;
  e->n++;
}

static dj_status run_eval(eval *e) {
  uint64_t size = dj_dataset_size(e->data);
  const dj_tensor *control = dj_program_output(e->program, "control");
  bool path = dj_program_output(e->program, "path") != NULL;
  for (uint64_t step = 0, done = 0; done < size; step++) {
    dj_batch b;
    DJ_TRY(dj_loader_next(e->loader, step, &b));
    dj__drive_fill(e->program, &b);
    dj_status s = dj_program_run(e->program, 0);
    for (int i = 0; !s && i < b.b && done < size; i++, done++) {
      int64_t at = (i + 1) * control->shape.dim[1] - 1;
      score_steering(e, &b, i, at, done);
      if (path) score_paths(e, &b, i, at, done);
    }
    dj_loader_release(e->loader, &b);
    if (s) return s;
    dj_progress("scoring", done, size, "frames", NULL);
  }
  return DJ_OK;
}

/* Frames in two seconds. */
static size_t block_length(const eval *e) {
  uint64_t n = dj_dataset_size(e->data);
  if (n < 2) return 1;
  double span =
      (double)(dj_dataset_frame(e->data, 1).t_ns - dj_dataset_frame(e->data, 0).t_ns) * 1e-9;
  return span > 0 && span < 10 ? (size_t)ceil(2 / span) : 20;
}

dj_status dj_drive_eval(const char *run_dir, const char *store, const char *split,
                        const dj_drive_eval_options *o, dj_drive_scores *s) {
  eval e = {0};
  *s = (dj_drive_scores){0};
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  dj_status st = open_eval(&e, run_dir, store, split, o);
  if (!st) st = make_arrays(&e);
  if (!st) st = run_eval(&e);
  if (!st) {
    (void)snprintf(s->network, sizeof s->network, "%s", e.run.recipe->network.name);
    (void)snprintf(s->split, sizeof s->split, "%s", split);
    (void)snprintf(s->data, sizeof s->data, "%s", dj_dataset_digest(e.data));
    s->step = e.step;
    size_t block = block_length(&e);
    for (int p = 0; p <= DJ_PREDICT_PREVIOUS; p++)
      dj__score_steering(e.predicted[p], e.truth, e.n, block, &s->steering[p]);
    for (int p = 0; p < DJ_N_PREDICTORS; p++)
      for (int h = 0; h < DJ_N_HORIZONS; h++) {
        if (p == DJ_PREDICT_MEAN || p == DJ_PREDICT_PREVIOUS) continue;
        s->path[p].n[h] = e.n_path[h];
        s->path[p].ade[h] = dj__mean_with_interval(e.ade[p][h], e.n_path[h], block);
        s->path[p].fde[h] = dj__mean_with_interval(e.fde[p][h], e.n_path[h], block);
      }
  }
  clock_gettime(CLOCK_MONOTONIC, &b);
  s->seconds = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
  close_eval(&e);
  return st;
}
