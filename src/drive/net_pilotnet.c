/*
 * PilotNet (Bojarski et al. 2016, "End to end learning for self-driving cars", arXiv:1604.07316):
 * one frame, five convolutions, three hidden layers. The paper's input is 66x200; other sizes work
 * if the convolutions leave at least one pixel. The head predicts steering and throttle with their
 * uncertainty; with `kind: l2` only the means are trained, as in the paper.
 */
#include "drive/network.h"

static dj_status check(const dj_recipe *r) {
  if (r->data.height >= 62 && r->data.width >= 62) return DJ_OK;
  return dj_error(DJ_E_INVALID, "%s:%d: pilotnet needs frames of at least 62x62 pixels, not %dx%d",
                  r->file, dj_recipe_line(r, "data.width"), r->data.width, r->data.height);
}

/* "valid" convolution with bias and ELU-free ReLU. */
static dj_val conv(dj_graph *g, const char *name, dj_val x, int out, int kernel, int stride) {
  int64_t c = dj_val_shape(g, x).dim[3];
  dj_graph_push(g, "%s", name);
  dj_val w =
      dj_param(g, "weight", DJ_SHAPE(out, kernel, kernel, c), dj_init_he(c * kernel * kernel));
  dj_val b = dj_param(g, "bias", DJ_SHAPE(out), dj_init_const(0));
  dj_val y =
      dj_relu(g, dj_conv2d(g, x, w, b, &(dj_conv2d_args){.stride_h = stride, .stride_w = stride}));
  dj_graph_pop(g);
  return y;
}

static void build(dj_graph *g, const dj_recipe *r, const dj__net_in *in, bool training,
                  dj__net_out *out) {
  dj_val x =
      dj_slice(g, dj_slice(g, in->image, 1, in->t - 1, 1), 2, 0, 1); // last frame, first camera
  x = dj_reshape(g, x, DJ_SHAPE(in->b, in->h, in->w, 3));
  x = dj_affine(g, dj_cast(g, x, DJ_F32), 2 / 255.0f, -1); // (B, H, W, 3)
  x = conv(g, "conv1", x, 24, 5, 2);
  x = conv(g, "conv2", x, 36, 5, 2);
  x = conv(g, "conv3", x, 48, 5, 2);
  x = conv(g, "conv4", x, 64, 3, 1);
  x = conv(g, "conv5", x, 64, 3, 1);
  dj_shape s = dj_val_shape(g, x);
  x = dj_reshape(g, x, DJ_SHAPE(in->b, s.dim[1] * s.dim[2] * s.dim[3]));
  x = dj_dropout(g, x, training ? r->network.dropout : 0);
  x = dj_relu(g, dj__layer_linear(g, "fc1", x, 100, 1.4f));
  x = dj_relu(g, dj__layer_linear(g, "fc2", x, 50, 1.4f));
  x = dj_relu(g, dj__layer_linear(g, "fc3", x, 10, 1.4f));
  *out = (dj__net_out){.t = 1, .path = DJ_NONE, .path_lb = DJ_NONE, .choice = DJ_NONE};
  dj__net_control_head(g, r, "control", x, in->b, out);
}

const dj__network dj__net_pilotnet = {"pilotnet", check, build};
