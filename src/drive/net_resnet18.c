/*
 * ResNet-18 (He et al. 2016) on the present frame of the first camera: the backbone that most
 * driving papers start from, with batch norm, and a linear head for steering and throttle with
 * their uncertainty. `network.channels` is the width of the first stage, 64 in the paper.
 */
#include "drive/network.h"

static dj_status check(const dj_recipe *r) {
  if (r->data.height >= 32 && r->data.width >= 32) return DJ_OK;
  return dj_error(DJ_E_INVALID, "%s:%d: resnet18 needs frames of at least 32x32 pixels, not %dx%d",
                  r->file, dj_recipe_line(r, "data.width"), r->data.width, r->data.height);
}

/* Convolution without bias, batch norm, ReLU if asked for. */
static dj_val conv(dj_graph *g, const char *name, dj_val x, int out, int kernel, int stride,
                   bool training, bool relu) {
  int64_t c = dj_val_shape(g, x).dim[3];
  dj_conv2d_args a = dj_conv2d_same(kernel, stride);
  a.pad_top = a.pad_left = a.pad_bottom = a.pad_right = kernel / 2; // as torchvision has it
  dj_graph_push(g, "%s", name);
  dj_val w =
      dj_param(g, "weight", DJ_SHAPE(out, kernel, kernel, c), dj_init_he(c * kernel * kernel));
  dj_val y = dj_conv2d(g, x, w, DJ_NONE, &a);
  dj_graph_push(g, "norm");
  dj_val scale = dj_param(g, "weight", DJ_SHAPE(out), dj_init_const(1));
  dj_val shift = dj_param(g, "bias", DJ_SHAPE(out), dj_init_const(0));
  dj_val mean = dj_state(g, "mean", DJ_SHAPE(out), dj_init_const(0));
  dj_val var = dj_state(g, "var", DJ_SHAPE(out), dj_init_const(1));
  y = dj_batch_norm(g, y, scale, shift, mean, var, training, 0.1f, 1e-5f);
  dj_graph_pop(g);
  dj_graph_pop(g);
  return relu ? dj_relu(g, y) : y;
}

static dj_val block(dj_graph *g, const char *name, dj_val x, int out, int stride, bool training) {
  dj_graph_push(g, "%s", name);
  dj_val y = conv(g, "conv1", x, out, 3, stride, training, true);
  y = conv(g, "conv2", y, out, 3, 1, training, false);
  if (stride > 1) x = conv(g, "shortcut", x, out, 1, stride, training, false);
  dj_graph_pop(g);
  return dj_relu(g, dj_add(g, y, x));
}

static void build(dj_graph *g, const dj_recipe *r, const dj__net_in *in, bool training,
                  dj__net_out *out) {
  dj_val x = dj_slice(g, dj_slice(g, in->image, 1, in->t - 1, 1), 2, 0, 1);
  x = dj_reshape(g, x, DJ_SHAPE(in->b, in->h, in->w, 3));
  x = dj_affine(g, dj_cast(g, x, DJ_F32), 2 / 255.0f, -1); // (B, H, W, 3)
  int width = r->network.channels;
  x = conv(g, "stem", x, width, 7, 2, training, true);
  x = dj_max_pool(g, x, &(dj_pool_args){3, 3, 2, 2, 1, 1, 1, 1});
  for (int i = 0; i < 4; i++, width *= 2) {
    dj_graph_push(g, "stage%d", i);
    if ((float)i < r->train.recompute * 4) dj_recompute_begin(g);
    x = block(g, "block0", x, width, i ? 2 : 1, training);
    x = block(g, "block1", x, width, 1, training);
    dj_recompute_end(g);
    dj_graph_pop(g);
  }
  x = dj_dropout(g, dj_global_avg_pool(g, x), training ? r->network.dropout : 0); // (B, C)
  *out = (dj__net_out){.t = 1, .path = DJ_NONE, .path_lb = DJ_NONE, .choice = DJ_NONE};
  dj__net_control_head(g, r, "control", x, in->b, out);
}

const dj__network dj__net_resnet18 = {"resnet18", check, build};
