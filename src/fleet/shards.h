/*
 * Shards: the frames of a drive cut out, resized and stored with their labels, as safetensors files
 * in S/shards that are memory-mapped while training. A cache: named by the digest of everything
 * that goes into them (log, cameras, geometry, code version), so a change makes new ones; what is
 * not there, or damaged, is made again.
 *
 * A shard holds up to DJ__SHARD_FRAMES consecutive frames of one drive, over all splits. A frame is
 * a frame of the drive's first camera, as clips count them; other cameras give their picture
 * nearest in time.
 */
#ifndef DOJO_FLEET_SHARDS_H
#define DOJO_FLEET_SHARDS_H

#include <stdbool.h>

#include "dojo/data.h"
#include "dojo/safetensors.h"
#include "dojo/store.h"

enum { DJ__SHARD_FRAMES = 1024 };

/* Geometry of the pictures in a shard. `width` counts the margins. */
typedef struct dj__shard_spec {
  int width, height, margin_left, margin_right;
  double left, top, right, bottom; // shares cut off the recorded picture, margins given back
  int n_cameras;
  const char *const *cameras; // NULL: the drive's first
  double lead;                // s from a picture to its control
} dj__shard_spec;

/* Checks a data spec and works out the geometry. Margins are cut to what the picture has beyond the
 * crop. */
dj_status dj__shard_spec_from(const dj_data_spec *spec, dj__shard_spec *out);

/* A camera as the shard's pictures show it. */
typedef struct dj__view {
  double K[9];        // row-major, pixels of the shard's picture, centre of the first pixel at 0
  double rotation[9]; // row-major, camera to vehicle
  double position[3]; // in the vehicle frame, m
  double calibrated;  // 0 or 1
} dj__view;
enum { DJ__VIEW_DOUBLES = 22 };
_Static_assert(sizeof(dj__view) == DJ__VIEW_DOUBLES * sizeof(double),
               "a view is stored as doubles");

typedef struct dj__shard { // n frames; pointers into the map
  dj_safetensors *file;
  size_t n;
  const int64_t *t_ns;       // (n)
  const double *pose;        // (n, 7) position, quaternion
  const float *pose_mask;    // (n)
  const float *control;      // (n, 3)
  const float *control_mask; // (n, 3)
  const float *speed;        // (n)
  const float *speed_mask;   // (n)
  const float *path;         // (n, 33, 3)
  const float *path_mask;    // (n, 33)
  const float *command;      // (n) dj_route_command; NULL where the drive holds none
  const uint8_t *image;      // (n, cameras, H, W with margins, 3)
} dj__shard;

typedef struct dj__shard_set { // all frames of a drive
  size_t n_frames, n_shards;
  dj__shard *shards;
  int n_cameras;
  dj__view *views; // (cameras)
} dj__shard_set;

/* Maps a drive's shards, making those that are missing, with progress. Errors: DJ_E_FORMAT for a
 * frame that cannot be decoded (log, time), DJ_E_NOT_FOUND for a camera, DJ_E_NO_SPACE. */
dj_status dj__shard_set_open(dj_store *store, const dj_store_drive *drive,
                             const dj__shard_spec *spec, dj__shard_set *out);
void dj__shard_set_close(dj__shard_set *s);

/* The frame's shard, and its index within it. */
static inline const dj__shard *dj__shard_at(const dj__shard_set *s, size_t frame, size_t *i) {
  *i = frame % DJ__SHARD_FRAMES;
  return &s->shards[frame / DJ__SHARD_FRAMES];
}

#endif
