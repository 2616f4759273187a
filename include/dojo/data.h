/*
 * From a store of drives to training batches: datasets (a split of a store at one resolution,
 * cached in memory-mapped shards) and loaders (threads that fill batches ahead of the training
 * step).
 *
 *     dj_data_spec spec = {.store = "S", .split = "train", .width = 160, .height = 80,
 *                          .crop_top = 0.3f, .frames = 4, .stride = 1, .labels = DJ_LABEL_CONTROL};
 *     dj_dataset *ds; dj_loader *ld; dj_batch b;
 *     DJ_TRY(dj_dataset_open(&spec, &ds));
 *     DJ_TRY(dj_loader_open(ds, &(dj_loader_options){.batch = 32, .seed = 1, .shuffle = true},
 * &ld)); for (uint64_t step = 0; step < n; step++) { DJ_TRY(dj_loader_next(ld, step, &b));   //
 * b.image: (B, T, cameras, H, W, 3) u8
 *       ...
 *       dj_loader_release(ld, &b);
 *     }
 *
 * A batch is a function of (dataset, options, step) alone: the same bytes on every run, thread
 * count and after any resume.
 */
#ifndef DOJO_DATA_H
#define DOJO_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dojo/drivelog.h"
#include "dojo/status.h"

/* openpilot's quadratic prediction times: t_i = 10 (i/32)^2 s, i = 0..32 (openpilot, modeldata.h).
 */
enum { DJ_PATH_POINTS = 33 };
static inline double dj_path_time(int i) {
  return 10.0 * (double)(i * i) / 1024.0;
}

/* ---- dataset ---- */
typedef struct dj_data_spec {
  const char *store;         /* folder of the store */
  const char *split;         /* "train", "validation" or "test"; NULL: all frames */
  const char *const *drives; /* only these drives (names); NULL: all that hold the labels */
  int n_drives;
  const char *const *cameras; /* cameras in the order of the rig; NULL: each drive's first one */
  int n_cameras;              /* 0 counts as 1 */
  int width, height;          /* of the frames given out, pixels */
  float crop_left, crop_top, crop_right, crop_bottom; /* share cut off before resizing, 0..0.9 */
  int frames;                                         /* T: frames in a sample's window, >= 1 */
  int stride;      /* recorded frames between two frames of a window, >= 1 */
  uint32_t labels; /* labels a drive must hold to be taken (dj_label bits) */
  float margin_x;  /* extra width kept on each side for viewpoint augmentation, share of width */
  float lead;      /* s, 0 to 10: control is that of so long after the picture */
} dj_data_spec;

typedef struct dj_dataset dj_dataset;
/* Opens a split; makes missing or outdated shards first (with progress). Errors: DJ_E_NOT_FOUND
 * when no drive fits (says which labels the store does hold), DJ_E_FORMAT for a broken frame (log,
 * time). */
dj_status dj_dataset_open(const dj_data_spec *spec, dj_dataset **ds);
void dj_dataset_close(dj_dataset *ds);
/* Number of windows. A window ends at every frame of a clip and never crosses a clip's start: where
 * history is missing, the clip's first frame is repeated. */
uint64_t dj_dataset_size(const dj_dataset *ds);

/* What one frame of the dataset is, for scores and pictures. */
typedef struct dj_frame_ref {
  const char *drive; /* drive name */
  int clip;          /* contiguous block; consecutive frames of a clip are consecutive samples */
  uint64_t frame;    /* frame index within the drive */
  uint64_t t_ns;
  double steering, throttle, brake, speed; /* NaN where the drive holds none */
} dj_frame_ref;
dj_frame_ref dj_dataset_frame(const dj_dataset *ds, uint64_t sample);
/* sha256 (hex, 64 characters) over the contents: goes into checkpoints and reports. */
const char *dj_dataset_digest(const dj_dataset *ds);
/* The clips it is made of, for dj_store_record_run (dojo/store.h). The array belongs to the
 * dataset. */
struct dj_clip_ref;
const struct dj_clip_ref *dj_dataset_clips(const dj_dataset *ds, size_t *n);

/* ---- augmentation: strengths; 0 is off. Labels change with the picture. ---- */
typedef struct dj_augment {
  float mirror;          /* probability of a left-right flip (steering, path y change sign) */
  float brightness;      /* +- share, e.g. 0.2 */
  float contrast;        /* +- share */
  float noise;           /* standard deviation, share of full scale */
  float yaw;             /* +- rad: camera turned, path and steering corrected */
  float shift;           /* +- m: camera moved sideways, path and steering corrected */
  float steer_per_yaw;   /* steering correction, share of full lock per rad */
  float steer_per_shift; /* steering correction, share of full lock per m */
} dj_augment;

/* ---- loader ---- */
typedef struct dj_loader_options {
  int batch; /* B >= 1 */
  uint64_t seed;
  bool shuffle; /* a new permutation each epoch; otherwise in order, the last batch wraps around */
  int hop; /* 0 and 1: an epoch has a window ending at every frame. H > 1: at every H-th, counted
              from a frame drawn for the epoch, so that windows of T = H frames show each frame
              about once an epoch */
  dj_augment augment;
  int threads;  /* 0: 1 */
  int prefetch; /* batches made ahead; 0: 3 */
} dj_loader_options;

/* Arrays belong to the loader. T is time, oldest first; masks are 1 where the label is there, else
 * 0 (and the label 0). Positions are metres in the vehicle frame of that frame. */
typedef struct dj_batch {
  uint64_t step;
  int b, t, cameras, h, w;
  uint8_t *image;      /* (B, T, cameras, H, W, 3) RGB */
  float *control;      /* (B, T, 3) steering, throttle, brake */
  float *control_mask; /* (B, T, 3) */
  float *speed;        /* (B, T) m/s */
  float *speed_mask;   /* (B, T) */
  float *path;         /* (B, T, 33, 3) x forward, y left, z up */
  float *path_mask;    /* (B, T, 33) */
  float *motion;      /* (B, T, 3) dx, dy, dyaw of the vehicle since the window's frame before; 0 if
                         unknown */
  float *motion_mask; /* (B, T) */
  float *velocity; /* (B, T, 2) of the moment: forward speed (m/s; recorded, else from the poses of
                      this and the recorded frame before) and yaw rate (rad/s, from the poses) */
  float *velocity_mask; /* (B, T, 2) */
  float *command;       /* (B, T) dj_route_command, 0 (follow) where the drive holds none */
  uint64_t *sample;     /* (B) dataset index */
  void *slot;           /* the loader's */
} dj_batch;

typedef struct dj_loader dj_loader;
dj_status dj_loader_open(dj_dataset *ds, const dj_loader_options *o, dj_loader **ld);
/* Blocks until the batch of `step` is ready. Consecutive steps are made ahead; any jump is correct.
 */
dj_status dj_loader_next(dj_loader *ld, uint64_t step, dj_batch *out);
void dj_loader_release(dj_loader *ld, dj_batch *b);
void dj_loader_close(dj_loader *ld);
/* Batches in one epoch: ceil(ceil(size / hop) / batch). */
uint64_t dj_loader_epoch_steps(const dj_loader *ld);

#endif
