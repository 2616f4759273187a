/*
 * Changes a sample's pictures and its labels together, so that the label stays true.
 *
 * The vehicle is imagined turned by `yaw` (to the left) and moved sideways by `shift` (to the left)
 * from where it was. Pictures: what its camera would have seen, exact for the ground plane and for
 * things far away (a ray that meets the ground is followed there, others go to infinity; where both
 * meet, at the horizon, they agree). Things that stand on the ground are sheared, which at the
 * strengths used is small. Path: the recorded drive as seen from the moved vehicle from
 * DJ__RECOVERY_S on; before that a cubic that leaves the moved vehicle straight ahead and joins the
 * recorded drive in place and direction. Steering: linear in yaw and shift by the user's factors.
 * Motion between frames: that of a vehicle which stays moved. All frames of a window share one
 * draw.
 *
 * The mirror is applied last, after the viewpoint.
 */
#ifndef DOJO_FLEET_AUGMENT_H
#define DOJO_FLEET_AUGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "dojo/data.h"
#include "fleet/shards.h"

#define DJ__RECOVERY_S 2.0

/* Strengths in range? DJ_E_INVALID names the one that is not. */
dj_status dj__augment_check(const dj_augment *a, int n_cameras);

typedef struct dj__draw { // what was drawn for one sample
  bool mirror;
  float brightness, contrast; // v -> (v - 128) * contrast + 128 + 255 * brightness
  float noise;                // standard deviation, share of full scale
  float yaw, shift;           // rad, m; to the left
  uint32_t noise_seed;
} dj__draw;

/* A pure function of (seed, step, index of the sample within the batch). */
dj__draw dj__augment_draw(const dj_augment *a, uint64_t seed, uint64_t step, uint64_t index);

/* Gaussian noise is taken from a table, row by row at random places. */
enum { DJ__NOISE_TABLE = 1 << 16 };
void dj__noise_table(uint64_t seed, int16_t table[DJ__NOISE_TABLE]); // standard normal x 1024

/* Where an output pixel comes from: (x, y, 1) -> M (x, y, 1) + max(0, n . (x, y, 1)) v, homogeneous
 * pixels of the shard's picture. Made once a sample and camera. */
typedef struct dj__warp {
  bool identity;
  float M[9], n[3], v[3];
} dj__warp;
dj__warp dj__augment_warp(const dj__draw *d, const dj__view *view, int margin_left);

/* src: (h, src_w, 3), the output's left edge at column margin_left. out: (h, w, 3). `frame` makes
 * the noise of the frames of a window differ. */
void dj__augment_image(const dj__draw *d, const dj__warp *warp, const int16_t *noise,
                       uint32_t frame, const uint8_t *src, int src_w, int margin_left, int w, int h,
                       uint8_t *out);

/* Labels of one frame, in place: control (3), path (33, 3), motion (3) and their masks. */
void dj__augment_labels(const dj__draw *d, const dj_augment *a, float *control,
                        const float *control_mask, float *path, const float *path_mask,
                        float *motion, const float *motion_mask);

#endif
