/*
 * A drive: what one vehicle recorded in one go, stored as an MCAP log with foxglove.* messages.
 * Importers and the world write it; labels, shards and `dojo predict` read it. Nothing else in Dojo
 * needs to know MCAP or protobuf.
 *
 *     dj_drive *d;
 *     DJ_TRY(dj_drive_open("S/logs/tub-1.mcap", &d));
 *     const dj_drive_info *info = dj_drive_get_info(d);
 *     uint8_t *rgb = malloc((size_t)info->cameras[0].width * info->cameras[0].height * 3);
 *     DJ_TRY(dj_drive_read_frame(d, 0, 17, rgb));        // camera 0, frame 17
 *     dj_drive_close(d);
 *
 * Frames: vehicle frame is ISO 8855: x forward, y left, z up, metres; yaw and steering are positive
 * to the left. Camera frame is the optical one: x right, y down, z forward. Times are nanoseconds;
 * they never run backwards within a channel.
 *
 * Channels of a log (N is the camera's name):
 *   /camera/N/image        foxglove.CompressedImage     jpeg or png
 *   /camera/N/video        foxglove.CompressedVideo     h264 or h265, one access unit a message
 *   /camera/N/calibration  foxglove.CameraCalibration   once
 *   /tf                    foxglove.FrameTransform      "vehicle" -> "camera/N", once a camera
 *   /pose                  foxglove.PoseInFrame         vehicle in "world"
 *   /vehicle/control       dojo.VehicleControl          steering, throttle, brake
 *   /vehicle/speed         dojo.VehicleSpeed            m/s
 * The metadata record "dojo.drive" holds name, source format, source digest, and import options.
 */
#ifndef DOJO_DRIVELOG_H
#define DOJO_DRIVELOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dojo/status.h"

/* Labels a drive (or clip) can hold; a bit mask. Losses are masked by it. */
typedef enum dj_label {
  DJ_LABEL_CONTROL = 1 << 0, /* steering, throttle, brake */
  DJ_LABEL_SPEED = 1 << 1,   /* m/s */
  DJ_LABEL_PATH = 1 << 2     /* future positions, from poses */
} dj_label;

enum { DJ_MAX_CAMERAS = 16, DJ_NAME_BYTES = 64 };

typedef struct dj_camera {
  char name[DJ_NAME_BYTES]; /* [a-z0-9_-]+ */
  int width, height;        /* pixels of the recorded frames */
  bool calibrated;          /* false: K, D, mounting are a guess from the image size */
  double K[9];              /* intrinsics, row-major 3x3, pixels */
  double D[8];              /* distortion coefficients */
  int n_distortion;
  char distortion_model[32]; /* "plumb_bob", "kannala_brandt", or "" */
  double position[3];        /* camera in the vehicle frame, m */
  double rotation[4];        /* unit quaternion x y z w: camera optical frame to vehicle frame */
} dj_camera;

typedef struct dj_drive_info {
  char name[DJ_NAME_BYTES]; /* unique in a store: [a-z0-9_-]+ */
  char format[32]; /* where it came from: donkeycar, udacity, kitti, comma2k19, video-csv, world */
  char source_digest[65]; /* sha256 (hex) over the source's files, for idempotent imports */
  char source[512];       /* where it was imported from, as given */
  int n_cameras;
  dj_camera cameras[DJ_MAX_CAMERAS];
  uint32_t labels;           /* dj_label bits; the reader fills it from the channels */
  uint64_t start_ns, end_ns; /* filled by the reader */
  uint64_t n_skipped;        /* records skipped on import under --keep-going */
} dj_drive_info;

/* Quantities of one instant. Unknown fields are NaN. */
typedef struct dj_control {
  uint64_t t_ns;
  double steering;       /* -1..1 of full lock, positive to the left */
  double throttle;       /* -1..1, negative is reverse */
  double brake;          /* 0..1 */
  double steering_angle; /* steering wheel or road wheel angle as recorded, rad, positive to the
                            left */
} dj_control;

typedef struct dj_speed {
  uint64_t t_ns;
  double speed; /* m/s, forward positive */
} dj_speed;

typedef struct dj_pose {
  uint64_t t_ns;
  double position[3]; /* vehicle in the world, m */
  double rotation[4]; /* unit quaternion x y z w: vehicle frame to world frame */
} dj_pose;

/* ---- writing ---- */
typedef struct dj_drive_writer dj_drive_writer;

/* Starts a log at `path` (written to a temporary name until close). `info`: name, format, digest,
 * source and cameras are used. Errors: DJ_E_INVALID (names), DJ_E_IO, DJ_E_NO_SPACE. */
dj_status dj_drive_writer_open(const char *path, const dj_drive_info *info, dj_drive_writer **w);
/* `format`: "jpeg" or "png"; the bytes are stored as they are. Times must not run backwards. */
dj_status dj_drive_write_image(dj_drive_writer *w, int camera, uint64_t t_ns, const char *format,
                               const void *data, size_t size);
/* `format`: "h264" or "h265", Annex B, one access unit a call in decode order without B-frame
 * delay. */
dj_status dj_drive_write_video(dj_drive_writer *w, int camera, uint64_t t_ns, const char *format,
                               const void *data, size_t size);
dj_status dj_drive_write_control(dj_drive_writer *w, const dj_control *c);
dj_status dj_drive_write_speed(dj_drive_writer *w, const dj_speed *s);
dj_status dj_drive_write_pose(dj_drive_writer *w, const dj_pose *p);
/* Makes the log visible under its name, whole and synced; frees `w` in any case. */
dj_status dj_drive_writer_close(dj_drive_writer *w, uint64_t n_skipped);
void dj_drive_writer_abort(dj_drive_writer *w); /* frees, leaves nothing behind; NULL is fine */

/* ---- reading ---- */
typedef struct dj_drive dj_drive;

dj_status dj_drive_open(const char *path, dj_drive **d);
void dj_drive_close(dj_drive *d);
const dj_drive_info *dj_drive_get_info(const dj_drive *d);
/* Frame times of a camera in order. The array belongs to `d`. */
dj_status dj_drive_frame_times(dj_drive *d, int camera, const uint64_t **t_ns, size_t *n);
/* Decodes frame `index` into (height, width, 3) u8 RGB. Going forward by one is the fast path for
 * video; jumps decode from the key frame before. A broken frame is DJ_E_FORMAT naming log and time.
 */
dj_status dj_drive_read_frame(dj_drive *d, int camera, size_t index, uint8_t *rgb);
dj_status dj_drive_controls(dj_drive *d, const dj_control **c, size_t *n);
dj_status dj_drive_speeds(dj_drive *d, const dj_speed **s, size_t *n);
dj_status dj_drive_poses(dj_drive *d, const dj_pose **p, size_t *n);

/* Decodes one JPEG or PNG image to (h, w, 3) u8 RGB (malloc'ed). At most `max_pixels` pixels. */
dj_status dj_image_decode(const void *data, size_t size, uint64_t max_pixels, uint8_t **rgb, int *w,
                          int *h);

#endif
