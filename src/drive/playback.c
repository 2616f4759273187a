/*
 * Playback: opens run, weights and split, and walks through the frames batch by batch. Windows of a
 * batch are independent, so a frame's prediction depends on neither batch size nor order.
 */
#include "drive/playback.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fleet/dataset.h"

static dj_status find_training_mean(dj__playback *p) {
  dj_data_spec spec = dj__drive_spec(p->run.recipe, p->store, "train");
  dj_dataset *ds;
  dj_status s = dj_dataset_open(&spec, &ds);
  if (s == DJ_E_NOT_FOUND) return DJ_OK; // a store of test drives alone
  if (s) return s;
  double sum = 0;
  uint64_t n = 0, size = dj_dataset_size(ds);
  for (uint64_t i = 0; i < size; i++) {
    double v = dj_dataset_frame(ds, i).steering;
    if (isnan(v)) continue;
    sum += v;
    n++;
  }
  dj_dataset_close(ds);
  p->training_mean = n ? sum / (double)n : 0;
  return DJ_OK;
}

dj_status dj__playback_open(dj__playback *p, const char *run_dir, const char *store,
                            const char *split, dj_checkpoint_which which, int threads) {
  *p = (dj__playback){0};
  DJ_TRY(dj_run_read(run_dir, &p->run));
  if (p->run.recipe->task != DJ_TASK_DRIVE)
    return dj_error(DJ_E_INVALID,
                    "%s: the run drives nothing, it is a language model; see dojo text", run_dir);
  p->store = store ? store : p->run.store;
  if (!p->store)
    return dj_error(DJ_E_INVALID, "%s: the run names no store; give one with --store", run_dir);
  const dj_recipe *r = p->run.recipe;
  p->vars = dj_vars_create(0);
  p->graph = dj_graph_create();
  if (!p->vars || !p->graph) return dj_error(DJ_E_NOMEM, "playback: no memory for a network");
  DJ_TRY(dj_checkpoint_load_run(run_dir, which, p->vars, &p->step));
  dj_data_spec spec = dj__drive_spec(r, p->store, split);
  DJ_TRY(dj_dataset_open(&spec, &p->data));
  DJ_TRY(find_training_mean(p));
  DJ_TRY(dj_loader_open(p->data, &(dj_loader_options){.batch = r->train.batch, .threads = 1},
                        &p->loader));
  int cameras = r->data.n_cameras ? (int)r->data.n_cameras : 1;
  DJ_TRY(dj__drive_build_eval(r, cameras, p->graph, NULL));
  return dj_program_compile(
      p->graph,
      &(dj_compile_options){.precision = r->train.precision, .threads = threads, .frozen = true},
      p->vars, &p->program);
}

void dj__playback_close(dj__playback *p) {
  if (p->held) dj_loader_release(p->loader, &p->batch);
  dj_program_destroy(p->program);
  dj_graph_destroy(p->graph);
  dj_vars_destroy(p->vars);
  dj_loader_close(p->loader);
  dj_dataset_close(p->data);
  dj_run_info_free(&p->run);
  *p = (dj__playback){0};
}

static dj_status next_batch(dj__playback *p) {
  if (p->held) dj_loader_release(p->loader, &p->batch);
  p->held = false;
  DJ_TRY(dj_loader_next(p->loader, p->next_step++, &p->batch));
  p->held = true;
  p->at = 0;
  dj__drive_fill(p->program, &p->batch);
  return dj_program_run(p->program, 0);
}

/* From the drive's poses of this frame and the one before, of whatever split: what the vehicle
 * knows of itself. */
static void find_motion(const dj__playback *p, dj__played *out) {
  const dj__dataset_clip *c = dj__dataset_clip_of(p->data, out->sample);
  double velocity[2];
  dj__frame_velocity(&p->data->drives[c->drive].shards, out->ref.frame, velocity);
  out->speed = velocity[0];
  out->yaw_rate = velocity[1];
}

static double previous_steering(const dj__playback *p, const dj_frame_ref *now, uint64_t sample) {
  if (sample == 0) return NAN;
  dj_frame_ref before = dj_dataset_frame(p->data, sample - 1);
  return before.clip == now->clip ? before.steering : NAN;
}

dj_status dj__playback_next(dj__playback *p, dj__played *out) {
  if (p->done >= dj_dataset_size(p->data)) return DJ_E_END;
  if (!p->held || p->at >= p->batch.b) DJ_TRY(next_batch(p));
  const dj_batch *b = &p->batch;
  int i = p->at++;
  int64_t last = (int64_t)(i + 1) * b->t - 1, frame = (int64_t)b->cameras * b->h * b->w * 3;
  *out = (dj__played){.sample = p->done++,
                      .image = b->image + last * frame,
                      .path = b->path + last * DJ_PATH_POINTS * 3,
                      .path_mask = b->path_mask + last * DJ_PATH_POINTS};
  out->ref = dj_dataset_frame(p->data, out->sample);
  out->previous = previous_steering(p, &out->ref, out->sample);
  find_motion(p, out);
  dj__drive_read(p->program, p->run.recipe, i, &out->said);
  return DJ_OK;
}
