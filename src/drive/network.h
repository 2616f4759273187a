/*
 * What a driving network is: one function that adds it to a graph. One file a network; the registry
 * is in network.c. A network reads the batch's inputs and gives what its heads predict; losses,
 * masks and scores are the task's.
 */
#ifndef DOJO_DRIVE_NETWORK_H
#define DOJO_DRIVE_NETWORK_H

#include "dojo/train.h"

/* B samples, T frames a window, C cameras. */
typedef struct dj__net_in {
  int b, t, cameras, h, w;
  dj_val image;    /* (B, T, C, H, W, 3) u8 */
  dj_val velocity; /* (B, T, 2) forward speed m/s, yaw rate rad/s; 0 where unknown */
  dj_val command;  /* (B, T, 6) 1 at the route command; DJ_NONE without network.command_input */
} dj__net_in;

/* T' = frames with predictions, the last ones of the window: T or 1. DJ_NONE: no such head. */
typedef struct dj__net_out {
  int t;
  dj_val control;    /* (B, T', N) steering, throttle, and brake where loss.brake trains it */
  dj_val control_lb; /* (B, T', N) log of the Laplacian's scale */
  dj_val path;       /* (B, T', K, 33, 2) x forward, y left, m */
  dj_val path_lb;    /* (B, T', K, 33, 2) */
  dj_val choice;     /* (B, T', K) logits */
} dj__net_out;

typedef struct dj__network {
  const char *name;
  /* Checks what shape inference cannot (sizes, windows). */
  dj_status (*check)(const dj_recipe *r);
  void (*build)(dj_graph *g, const dj_recipe *r, const dj__net_in *in, bool training,
                dj__net_out *out);
} dj__network;

extern const dj__network dj__net_dojo4d, dj__net_pilotnet, dj__net_resnet18;
/* By name; NULL with an error that lists the names. */
const dj__network *dj__network_find(const dj_recipe *r);

/* ---- layers that networks share; all make their variables under the present label ---- */
/* Square convolution, "same" padding, bias, ReLU if asked for. x (N, H, W, C) -> (N, H', W', out)
 */
dj_val dj__layer_conv(dj_graph *g, const char *name, dj_val x, int out, int kernel, int stride,
                      bool relu, float gain);
/* x (..., I) -> (..., out) */
dj_val dj__layer_linear(dj_graph *g, const char *name, dj_val x, int out, float gain);

/* Values of the control head: 2, or 3 with a brake. */
int dj__net_controls(const dj_recipe *r);
/* x (B*T', I) -> out->control and control_lb by a linear layer "label" at the present place;
 * out->t is set. */
void dj__net_control_head(dj_graph *g, const dj_recipe *r, const char *label, dj_val x, int b,
                          dj__net_out *out);

#endif
