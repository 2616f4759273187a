#include "drive/live.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fleet/dataset.h"

static size_t frame_bytes(const dj__live *l) {
  return (size_t)l->n_camera * (size_t)l->one.data.height * (size_t)l->one.data.width * 3;
}

static dj_status make_memory(dj__live *l) {
  const dj_recipe_data *d = &l->one.data;
  size_t t = (size_t)d->frames, bytes = frame_bytes(l);
  l->n_kept = (d->frames - 1) * d->stride + 1;
  size_t kept = (size_t)l->n_kept;
  l->image = malloc(kept * bytes);
  l->velocity = calloc(kept * 2, sizeof *l->velocity);
  l->command = calloc(kept, sizeof *l->command);
  l->wide = malloc((size_t)l->shard.width * (size_t)l->shard.height * 3);
  float *f = calloc(t * (3 + 3 + 2 + 1 + DJ_PATH_POINTS * 4), sizeof *f); // labels stay zero
  l->memory = f;
  l->batch =
      (dj_batch){.b = 1, .t = d->frames, .cameras = l->n_camera, .h = d->height, .w = d->width};
  l->batch.image = malloc(t * bytes);
  if (!l->image || !l->velocity || !l->command || !l->wide || !f || !l->batch.image)
    return dj_error(DJ_E_NOMEM, "no memory for %d frames of %d x %d", l->n_kept, d->width,
                    d->height);
  l->batch.velocity = f;
  l->batch.command = f + 2 * t;
  l->batch.control = f + 3 * t;
  l->batch.control_mask = f + 6 * t;
  l->batch.path = f + 9 * t;
  l->batch.path_mask = f + (9 + DJ_PATH_POINTS * 3) * t;
  return DJ_OK;
}

dj_status dj__live_open(dj__live *l, const char *run_dir, dj_checkpoint_which which, int threads) {
  *l = (dj__live){0};
  DJ_TRY(dj_run_read(run_dir, &l->run));
  const dj_recipe *r = l->run.recipe;
  if (r->task != DJ_TASK_DRIVE)
    return dj_error(DJ_E_INVALID,
                    "%s: the run drives nothing, it is a language model; see dojo text", run_dir);
  l->one = *r;
  l->one.train.batch = 1;
  l->n_camera = r->data.n_cameras ? (int)r->data.n_cameras : 1;
  dj_data_spec spec = dj__drive_spec(r, NULL, NULL);
  DJ_TRY(dj__shard_spec_from(&spec, &l->shard));
  l->vars = dj_vars_create(0);
  l->graph = dj_graph_create();
  if (!l->vars || !l->graph) return dj_error(DJ_E_NOMEM, "no memory for a network");
  DJ_TRY(dj_checkpoint_load_run(run_dir, which, l->vars, &l->step));
  DJ_TRY(make_memory(l));
  DJ_TRY(dj__drive_build_eval(&l->one, l->n_camera, l->graph, NULL));
  return dj_program_compile(
      l->graph,
      &(dj_compile_options){.precision = r->train.precision, .threads = threads, .frozen = true},
      l->vars, &l->program);
}

void dj__live_close(dj__live *l) {
  dj_program_destroy(l->program);
  dj_graph_destroy(l->graph);
  dj_vars_destroy(l->vars);
  for (int i = 0; i < DJ_MAX_CAMERAS; i++) dj__resample_free(l->resample[i]);
  free(l->wide);
  free(l->image);
  free(l->velocity);
  free(l->command);
  free(l->batch.image);
  free(l->memory);
  dj_run_info_free(&l->run);
  *l = (dj__live){0};
}

/* ---- what it was trained on ---- */
static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Frames a second by the median step. */
static dj_status rate_of(dj_drive *d, int camera, double *rate) {
  const uint64_t *t;
  size_t n;
  DJ_TRY(dj_drive_frame_times(d, camera, &t, &n));
  *rate = 10;
  if (n < 2) return DJ_OK;
  double *step = malloc((n - 1) * sizeof *step);
  if (!step) return dj_error(DJ_E_NOMEM, "no memory for %zu frame times", n);
  for (size_t i = 1; i < n; i++) step[i - 1] = 1e-9 * (double)(t[i] - t[i - 1]);
  qsort(step, n - 1, sizeof *step, by_value);
  double median = step[(n - 1) / 2];
  free(step);
  if (median > 0) *rate = 1 / median;
  return DJ_OK;
}

static dj_status read_cameras(const dj__live *l, dj_drive *d, dj__live_source *s) {
  const dj_drive_info *info = dj_drive_get_info(d);
  const dj_recipe_data *data = &l->one.data;
  for (int i = 0; i < l->n_camera; i++) {
    int k = 0;
    while (data->n_cameras && k < info->n_cameras &&
           strcmp(info->cameras[k].name, data->cameras[i]))
      k++;
    if (k >= info->n_cameras)
      return dj_error(DJ_E_NOT_FOUND, "drive %s has no camera '%s'", info->name,
                      data->n_cameras ? data->cameras[i] : "any");
    s->camera[i] = info->cameras[k];
    if (i == 0) DJ_TRY(rate_of(d, k, &s->rate));
  }
  s->n_camera = l->n_camera;
  return DJ_OK;
}

dj_status dj__live_find_source(const dj__live *l, dj__live_source *s) {
  *s = (dj__live_source){0};
  if (!l->run.store)
    return dj_error(DJ_E_NOT_FOUND, "%s: the run names no store of drives", l->run.dir);
  dj_store *store = NULL;
  dj_dataset *ds = NULL;
  dj_drive *drive = NULL;
  char *path = NULL;
  dj_data_spec spec = dj__drive_spec(&l->one, l->run.store, "train");
  dj_status st = dj_dataset_open(&spec, &ds);
  if (!st) st = dj_store_open(l->run.store, DJ_STORE_EXISTING, &store);
  if (!st && !(path = dj_store_log_path(store, dj_dataset_frame(ds, 0).drive)))
    st = dj_error(DJ_E_NOT_FOUND, "%s: the log of a drive is not there", l->run.store);
  if (!st) st = dj_drive_open(path, &drive);
  if (!st) st = read_cameras(l, drive, s);
  if (drive) dj_drive_close(drive);
  free(path);
  if (store) dj_store_close(store);
  if (ds) dj_dataset_close(ds);
  return st;
}

/* ---- frames ---- */
dj_status dj__live_cameras(dj__live *l, const dj_camera *cameras, int n) {
  if (n != l->n_camera)
    return dj_error(DJ_E_INVALID, "%s sees %d camera%s, the rig has %d", l->run.dir, l->n_camera,
                    l->n_camera == 1 ? "" : "s", n);
  const dj__shard_spec *s = &l->shard;
  for (int i = 0; i < n; i++) {
    const double w = cameras[i].width, h = cameras[i].height;
    dj__resample_free(l->resample[i]);
    l->resample[i] = NULL;
    DJ_TRY(dj__resample_new(cameras[i].width, cameras[i].height, s->left * w, s->top * h,
                            w - s->right * w, h - s->bottom * h, s->width, s->height,
                            &l->resample[i]));
  }
  dj__live_restart(l);
  return DJ_OK;
}

void dj__live_restart(dj__live *l) {
  l->n = 0;
}

/* Into the ring: cut out and resized as when shards are made. */
static void keep_frame(dj__live *l, const uint8_t *const *rgb, double speed, double yaw_rate,
                       int command) {
  size_t at = (size_t)(l->n % (uint64_t)l->n_kept), w = (size_t)l->one.data.width;
  for (int c = 0; c < l->n_camera; c++) {
    dj__resample_run(l->resample[c], rgb[c], l->wide);
    uint8_t *out = l->image + at * frame_bytes(l) + (size_t)c * (size_t)l->one.data.height * w * 3;
    for (size_t y = 0; y < (size_t)l->one.data.height; y++)
      memcpy(out + y * w * 3,
             l->wide + (y * (size_t)l->shard.width + (size_t)l->shard.margin_left) * 3, w * 3);
  }
  l->velocity[2 * at] = isfinite(speed) ? (float)speed : 0;
  l->velocity[2 * at + 1] = isfinite(yaw_rate) ? (float)yaw_rate : 0;
  l->command[at] = (float)command;
  l->n++;
}

dj_status dj__live_step(dj__live *l, const uint8_t *const *rgb, double speed, double yaw_rate,
                        int command, dj__prediction *said) {
  keep_frame(l, rgb, speed, yaw_rate, command);
  size_t bytes = frame_bytes(l);
  for (int k = 0; k < l->batch.t; k++) { // what lies before the first frame is that frame
    uint64_t back = (uint64_t)(l->batch.t - 1 - k) * (uint64_t)l->one.data.stride;
    uint64_t frame = l->n - 1 > back ? l->n - 1 - back : 0;
    size_t at = (size_t)(frame % (uint64_t)l->n_kept);
    memcpy(l->batch.image + (size_t)k * bytes, l->image + at * bytes, bytes);
    memcpy(l->batch.velocity + 2 * k, l->velocity + 2 * at, 2 * sizeof(float));
    l->batch.command[k] = l->command[at];
  }
  dj__drive_fill(l->program, &l->batch);
  DJ_TRY(dj_program_run(l->program, 0));
  dj__drive_read(l->program, &l->one, 0, said);
  return DJ_OK;
}
