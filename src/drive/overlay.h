/*
 * Drawings of what a network saw, what it would do and what the driver did, with cairo. Blue is the
 * network, amber the driver. Rectangles are x, y, width, height in pixels of the drawing.
 *
 * What is geometry: the paths, which are laid on a flat ground at the vehicle's wheels and seen
 * through the recorded camera (lens distortion left out), and the map. What is a sign: the pointer
 * of a drive without paths; nothing says how far a wheel's share of full lock turns the vehicle.
 */
#ifndef DOJO_DRIVE_OVERLAY_H
#define DOJO_DRIVE_OVERLAY_H

#include <cairo.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dojo/drivelog.h"
#include "dojo/status.h"

/* One moment. NaN and NULL: not known. */
typedef struct dj__moment {
  const uint8_t *picture; // (h, w, 3) RGB as recorded
  int w, h;
  const dj_camera *camera; // of the picture; NULL: none, no path is drawn in the picture
  float crop[4];           // share of it that the network does not see: left, top, right, bottom
  const uint8_t *input;    // (input_h, input_w, 3) RGB as the network sees it
  int input_w, input_h;
  double driver, network, scale; // steering, share of full lock, positive left; Laplacian's scale
  const float *driver_path;      // (33, 3) m, vehicle frame
  const float *driver_mask;      // (33)
  const float *network_path;     // (33, 2) m
  const float *network_lb;       // (33, 2) log of the Laplacian's scale
  double speed;                  // m/s
} dj__moment;

/* A value over time: the driver's, and the network's with its scale. */
typedef struct dj__trace {
  const char *title;
  size_t n;
  const double *t;                  // (n) s, not falling
  const int *piece;                 // (n) lines are not drawn from one piece to the next
  double *driver, *network, *scale; // (n) NaN: none
  double range;                     // the plot shows -range..range
} dj__trace;

typedef struct dj__rect {
  double x, y, w, h;
} dj__rect;

/* Next of 1, 2, 5, 10, ... times a power of ten that is not below v. */
double dj__round_up(double v);

void dj__draw_background(cairo_t *c, double w, double h);
void dj__draw_text(cairo_t *c, double x, double y, double size, const char *text);
/* The words "network" and "driver" in their colours; y is the base line, x the right end. */
void dj__draw_legend(cairo_t *c, double x, double y, double size);
/* The picture, as large as the rectangle takes it, with paths or pointers; returns
 * where it lies. */
dj__rect dj__draw_scene(cairo_t *c, const dj__moment *m, dj__rect r);
/* The network's input, pixel by pixel. */
void dj__draw_input(cairo_t *c, const dj__moment *m, dj__rect r);
/* Seen from above: `ahead` metres from bottom to top. */
void dj__draw_map(cairo_t *c, const dj__moment *m, double ahead, dj__rect r);
/* Two steering wheels with their figures. */
void dj__draw_wheels(cairo_t *c, const dj__moment *m, dj__rect r);
/* A bar from full left to full right with a mark each. */
void dj__draw_bar(cairo_t *c, const dj__moment *m, dj__rect r);
/* A small picture of one moment for TensorBoard: the picture with pointers, the bar where there is
 * steering, the map where there is a path. *rgb (h, w, 3) is malloc'ed. */
dj_status dj__draw_sample(const dj__moment *m, uint8_t **rgb, int *w, int *h);
/* The trace from t0 to t1; a line at `now` (NaN: none), behind which the network is not drawn. */
void dj__draw_trace(cairo_t *c, const dj__trace *s, double t0, double t1, double now, dj__rect r);

#endif
