/*
 * A run's network over a split of a store, frame by frame in order of time: what `dojo eval` scores
 * and `dojo predict` draws. Each frame is predicted from the window that ends at it.
 *
 *     dj__playback p;
 *     dj_status s = dj__playback_open(&p, "R", NULL, "test", DJ_CHECKPOINT_BEST, 0);
 *     dj__played f;
 *     while (!s && !(s = dj__playback_next(&p, &f))) ...      // DJ_E_END behind the last
 *     dj__playback_close(&p);                                  // also after a failed open
 */
#ifndef DOJO_DRIVE_PLAYBACK_H
#define DOJO_DRIVE_PLAYBACK_H

#include "dojo/drive.h"
#include "drive/task.h"

typedef struct dj__playback {
  dj_run_info run;
  const char *store; // the one asked for, or the run's own
  uint64_t step;     // of the checkpoint
  dj_dataset *data;
  double training_mean; // steering over the training split; 0 where there is none
  // Below: its own.
  dj_vars *vars;
  dj_graph *graph;
  dj_program *program;
  dj_loader *loader;
  dj_batch batch;
  bool held; // `batch` is the loader's
  int at;    // next window of the batch
  uint64_t next_step, done;
} dj__playback;

/* `store` may be NULL: the run's own. `threads` 0: all cores. Errors: those of reading a run, a
 * checkpoint and a dataset. */
dj_status dj__playback_open(dj__playback *p, const char *run_dir, const char *store,
                            const char *split, dj_checkpoint_which which, int threads);
void dj__playback_close(dj__playback *p);

/* A frame with what was recorded and what the network says. Pointers live until the next call. */
typedef struct dj__played {
  uint64_t sample; // dataset index
  dj_frame_ref ref;
  const uint8_t *image;   // (cameras, H, W, 3) as the network sees it
  const float *path;      // (33, 3) driven, m
  const float *path_mask; // (33)
  double speed, yaw_rate; // m/s, rad/s of the moment, from the poses before; NaN where unknown
  double previous;        // steering of the clip's frame before; NaN at its start, where unknown
  dj__prediction said;
} dj__played;
dj_status dj__playback_next(dj__playback *p, dj__played *out);

#endif
