/*
 * A run's network on frames that are seen right now, one after the other: the same windows, crops
 * and inputs that training, `dojo eval` and `dojo predict` give it from recorded drives
 * (playback.h), so that it says the same.
 *
 *     dj__live l;
 *     DJ_TRY(dj__live_open(&l, "R", DJ_CHECKPOINT_BEST, 1));
 *     DJ_TRY(dj__live_cameras(&l, cameras, n));            // sizes of the pictures to come
 *     dj__live_restart(&l);                                // a new drive
 *     DJ_TRY(dj__live_step(&l, pictures, speed, yaw_rate, command, &said));
 *     dj__live_close(&l);                                  // also after a failed open
 */
#ifndef DOJO_DRIVE_LIVE_H
#define DOJO_DRIVE_LIVE_H

#include "dojo/drive.h"
#include "drive/task.h"
#include "fleet/resample.h"
#include "fleet/shards.h"

typedef struct dj__live_source { /* the drives that the run was trained on */
  dj_camera camera[DJ_MAX_CAMERAS];
  int n_camera;
  double rate; /* frames a second */
} dj__live_source;

typedef struct dj__live {
  dj_run_info run;
  dj_recipe one; // the run's recipe with batches of one; shares its memory
  uint64_t step; // of the checkpoint
  int n_camera;
  // Below: its own.
  dj_vars *vars;
  dj_graph *graph;
  dj_program *program;
  dj__shard_spec shard;
  dj__resample *resample[DJ_MAX_CAMERAS];
  int source_w[DJ_MAX_CAMERAS], source_h[DJ_MAX_CAMERAS];
  uint8_t *wide;             // (h, w with margins, 3)
  int n_kept;                // frames of history: (frames - 1) * stride + 1
  uint64_t n;                // frames seen in this drive
  uint8_t *image;            // ring: (n_kept, cameras, H, W, 3)
  float *velocity, *command; // ring: (n_kept, 2), (n_kept)
  dj_batch batch;            // of one window
  void *memory;              // of the batch
} dj__live;

/* `threads` 0: all cores. Errors: those of reading a run and a checkpoint. */
dj_status dj__live_open(dj__live *l, const char *run_dir, dj_checkpoint_which which, int threads);
void dj__live_close(dj__live *l);
/* Cameras and rate of the first training drive. DJ_E_NOT_FOUND where the store is gone. */
dj_status dj__live_find_source(const dj__live *l, dj__live_source *s);
/* Errors: DJ_E_INVALID (another number of cameras than the run has). */
dj_status dj__live_cameras(dj__live *l, const dj_camera *cameras, int n);
void dj__live_restart(dj__live *l);
/* `rgb`: a picture (h, w, 3) a camera. speed m/s, yaw_rate rad/s (NaN: unknown), command:
 * dj_route_command. *said holds until the next step. */
dj_status dj__live_step(dj__live *l, const uint8_t *const *rgb, double speed, double yaw_rate,
                        int command, dj__prediction *said);

#endif
