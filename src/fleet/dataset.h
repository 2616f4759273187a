/* A dataset's insides, shared by dataset.c and loader.c. */
#ifndef DOJO_FLEET_DATASET_H
#define DOJO_FLEET_DATASET_H

#include "dojo/data.h"
#include "dojo/store.h"
#include "fleet/shards.h"

typedef struct dj__dataset_drive {
  char name[DJ_NAME_BYTES];
  char digest[65];
  bool grounded; // every camera stands above the ground plane: the viewpoint can be moved sideways
  dj__shard_set shards;
} dj__dataset_drive;

typedef struct dj__dataset_clip {
  int drive; // index into drives
  uint64_t first, n;
  uint64_t sample; // index of its first sample
} dj__dataset_clip;

struct dj_dataset {
  dj__shard_spec shard;
  int width, height, frames, stride, n_cameras;
  int n_drives, n_clips;
  dj__dataset_drive *drives;
  dj__dataset_clip *clips;
  dj_clip_ref *refs; // (n_clips)
  uint64_t size;
  char digest[65];
};

/* Forward speed (m/s) and yaw rate (rad/s, positive left) at a frame of a drive: what the vehicle
 * knows of itself at that moment. Speed is the recorded one, else from the poses of this frame and
 * the one before; yaw rate is from the poses. NaN where unknown. */
void dj__frame_velocity(const dj__shard_set *set, size_t frame, double velocity[2]);

/* The clip a sample belongs to; sample < size. */
const dj__dataset_clip *dj__dataset_clip_of(const dj_dataset *ds, uint64_t sample);

#endif
