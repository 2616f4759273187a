/* Inside of the driving task, for evaluation and pictures. */
#ifndef DOJO_DRIVE_TASK_H
#define DOJO_DRIVE_TASK_H

#include "dojo/drive.h"
#include "drive/network.h"

/* The data spec of a recipe on a split. */
dj_data_spec dj__drive_spec(const dj_recipe *r, const char *store, const char *split);
/* Graph for training: network and losses. Inputs "image", "velocity", "command" (with
 * network.command_input), "label/control", "label/control_mask", "label/path", "label/path_mask";
 * *loss is a scalar. */
dj_status dj__drive_build_train(const dj_recipe *r, int cameras, dj_graph *g, dj_val *loss);
/* Graph for evaluation: inputs as in training, outputs "control", "control_lb" (B, T', N) and, with
 * a path head, "path" (B, T', K, 33, 2), "path_lb", "choice" (B, T', K). */
dj_status dj__drive_build_eval(const dj_recipe *r, int cameras, dj_graph *g, int *frames_out);
/* Puts a batch into the program's inputs. */
void dj__drive_fill(dj_program *p, const dj_batch *b);

/* What the network says of one frame. Scales are those of the Laplacian, in the unit of the value;
 * NaN where the loss does not train them. Pointers are the program's, valid until it runs again. */
typedef struct dj__prediction {
  float steering, throttle; /* -1..1 */
  float brake;              /* 0..1; NaN: the head has none */
  float steering_scale, throttle_scale;
  const float *path;    /* (33, 2) x forward, y left, m: the likeliest hypothesis; NULL: no head */
  const float *path_lb; /* (33, 2) log of the scale, m */
  float share;          /* probability the network gives that hypothesis, 0..1 */
} dj__prediction;
/* Of the last frame of window `i` of the batch that the program (dj__drive_build_eval) ran on. */
void dj__drive_read(dj_program *p, const dj_recipe *r, int i, dj__prediction *out);

#endif
