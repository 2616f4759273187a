/*
 * Crops and resizes a picture once, when a shard is made. Separable triangle filter as wide as one
 * output pixel (area-weighted when shrinking, bilinear when growing) in integer arithmetic: the
 * same bytes on every machine. Tables are made once for many pictures of one size.
 */
#ifndef DOJO_FLEET_RESAMPLE_H
#define DOJO_FLEET_RESAMPLE_H

#include <stdint.h>

#include "dojo/status.h"

typedef struct dj__resample dj__resample;

/* From pictures (src_h, src_w, 3), the part from (x0, y0) to (x1, y1) in pixels (edges, may be
 * fractions), to (out_h, out_w, 3). Outside the picture its edge is repeated. */
dj_status dj__resample_new(int src_w, int src_h, double x0, double y0, double x1, double y1,
                           int out_w, int out_h, dj__resample **r);
void dj__resample_run(dj__resample *r, const uint8_t *src, uint8_t *out);
void dj__resample_free(dj__resample *r);

#endif
