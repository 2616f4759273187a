/*
 * What a network should say for each frame of a drive: control and speed at the frame's time, and
 * the path the vehicle went on to take, from its poses.
 *
 * Rules. A value is interpolated linearly between the two records around the frame where these are
 * at most DJ__LABEL_MAX_GAP_S apart; otherwise the nearest record counts if it lies within half of
 * that; otherwise the label is masked. Records with NaN in a field do not count for that field.
 * Poses are never held or extrapolated: a frame has a pose only between two poses that are at most
 * the gap apart, and its path ends (mask 0 from there on) at the end of the drive, at the first
 * such gap, and at a jump faster than DJ__LABEL_MAX_SPEED (a receiver that found itself again).
 * Without poses there is no path, even where speed and steering are known: integrating them would
 * be a model's guess, not a label.
 */
#ifndef DOJO_DRIVE_LABELS_H
#define DOJO_DRIVE_LABELS_H

#include <stddef.h>
#include <stdint.h>

#include "dojo/data.h"

#define DJ__LABEL_MAX_GAP_S 0.5
#define DJ__LABEL_MAX_SPEED 120.0 /* m/s */

typedef struct dj__label_source { // records in order of time; NULL where n is 0
  double lead;                    // s: a frame's control is that of so long after it
  const dj_control *controls;
  size_t n_controls;
  const dj_speed *speeds;
  size_t n_speeds;
  const dj_pose *poses;
  size_t n_poses;
} dj__label_source;

typedef struct dj__labels { // N frames
  size_t n;
  float *control;      // (N, 3) steering, throttle, brake
  float *control_mask; // (N, 3)
  float *speed;        // (N) m/s
  float *speed_mask;   // (N)
  float *path;         // (N, 33, 3) m, vehicle frame of the frame
  float *path_mask;    // (N, 33)
  double *pose;        // (N, 7) position, quaternion x y z w: vehicle in the world
  float *pose_mask;    // (N)
} dj__labels;

/* t_ns (n): frame times, not falling. Masked labels are 0. Free with dj__labels_free. */
dj_status dj__labels_make(const dj__label_source *src, const uint64_t *t_ns, size_t n,
                          dj__labels *out);
void dj__labels_free(dj__labels *l);

/* Motion from pose a to pose b, in a's vehicle frame: dx, dy (m), dyaw (rad). */
void dj__labels_motion(const double a[7], const double b[7], float out[3]);

#endif
