/*
 * dojo4d: space and time. Every frame of the window goes through one convolutional backbone; its
 * features, with speed and yaw rate where known, enter a feature queue that a GRU fuses over
 * time; heads predict control and ego path, each with its uncertainty, at every frame of the window
 * (so a window of T frames gives T training signals for T backbone passes).
 *
 * Several cameras are folded into the batch for the backbone; a learned embedding tells them apart
 * and their features are summed. One camera is the same network with another rig.
 *
 * The backbone has no batch statistics: convolutions carry bias and ReLU in their epilogue, and the
 * second convolution of a residual block starts small, so that a block starts near the identity
 * (Zhang, Dauphin & Ma 2019, "Fixup initialization").
 */
#include <math.h>

#include "drive/network.h"

enum { MAX_WINDOW = 64, MAX_MATCHING = 32 };

/* Frames with predictions: those with all frames of a stack before them. */
static int predicted_frames(const dj_recipe *r) {
  return r->data.frames - r->network.stack + 1;
}

static dj_status check(const dj_recipe *r) {
  int shrink = 1 << r->network.stages;
  if (r->data.height / shrink < 2 || r->data.width / shrink < 2)
    return dj_error(DJ_E_INVALID,
                    "%s:%d: %d stages halve %dx%d pixels to nothing; use fewer stages or larger "
                    "frames",
                    r->file, dj_recipe_line(r, "network.stages"), r->network.stages, r->data.width,
                    r->data.height);
  if (predicted_frames(r) < 1)
    return dj_error(DJ_E_INVALID,
                    "%s:%d: a stack of %d frames in a window of %d; give data.frames at least as "
                    "many",
                    r->file, dj_recipe_line(r, "network.stack"), r->network.stack, r->data.frames);
  if (r->network.matching && (r->network.stack < 2 || r->data.width < 8 * r->network.matching))
    return dj_error(DJ_E_INVALID,
                    "%s:%d: matching within %d pixels needs network.stack of 2 or more and frames "
                    "at least %d pixels wide",
                    r->file, dj_recipe_line(r, "network.matching"), r->network.matching,
                    8 * r->network.matching);
  if (r->data.frames > MAX_WINDOW)
    return dj_error(DJ_E_LIMIT, "%s:%d: a window of %d frames; dojo4d takes up to %d", r->file,
                    dj_recipe_line(r, "data.frames"), r->data.frames, MAX_WINDOW);
  return DJ_OK;
}

/* Rounded to whole vectors of 8 channels where there are that many. */
static int stage_channels(const dj_recipe *r, int stage) {
  double c = r->network.channels;
  for (int i = 0; i < stage && i < 3; i++) c *= (double)r->network.growth;
  return c < 8 || stage == 0 ? (int)lround(c) : (int)lround(c / 8) * 8;
}

/* x (N, H, W, 3 * stack) -> (N, H / 2^stages, W / 2^stages, C') */
static dj_val backbone(dj_graph *g, const dj_recipe *r, dj_val x) {
  dj_graph_push(g, "backbone");
  for (int i = 0; i < r->network.stages; i++) {
    int c = stage_channels(r, i);
    dj_graph_push(g, "stage%d", i);
    if ((float)i < r->train.recompute * (float)r->network.stages) dj_recompute_begin(g);
    x = dj__layer_conv(g, "down", x, c, i ? 3 : 5, 2, true, 1);
    for (int k = 0; i > 0 && k < r->network.depth; k++) {
      dj_graph_push(g, "block%d", k);
      dj_val y = dj__layer_conv(g, "conv1", x, c, 3, 1, true, 1);
      y = dj__layer_conv(g, "conv2", y, c, 3, 1, false, 0.1f);
      x = dj_relu(g, dj_add(g, x, y));
      dj_graph_pop(g);
    }
    dj_recompute_end(g);
    dj_graph_pop(g);
  }
  dj_graph_pop(g);
  return x;
}

/*
 * What the backbone sees at each frame with predictions: the frame itself and its differences to
 * the stack - 1 frames before, which show how the car turns: (B, T, C, H, W, 3) u8 -> (B*T'*C, H,
 * W, 3 * stack)
 */
static dj_val stack_frames(dj_graph *g, const dj_recipe *r, const dj__net_in *in) {
  int stack = r->network.stack, t = predicted_frames(r);
  dj_val x = dj_affine(g, dj_cast(g, in->image, DJ_F32), 2 / 255.0f, -1);
  dj_shape one = DJ_SHAPE((int64_t)in->b * t * in->cameras, in->h, in->w, 3);
  dj_val parts[8];
  dj_val now = stack > 1 ? dj_slice(g, x, 1, stack - 1, t) : x;
  parts[0] = dj_reshape(g, now, one);
  for (int k = 1; k < stack; k++)
    parts[k] = dj_reshape(g, dj_sub(g, now, dj_slice(g, x, 1, stack - 1 - k, t)), one);
  return stack > 1 ? dj_concat(g, parts, stack, 3) : parts[0];
}

/*
 * How the picture moved since the frame before, which is how the vehicle turned: mean absolute
 * difference to that frame displaced sideways by -D..D pixels, in each half of the height
 * and each quarter of the width, relative to the mean over displacements (a cost volume, as in
 * stereo and optical flow). No weight lies before it, so nothing flows back and little can be
 * overfitted. (B*T', 32)
 */
static dj_val matching(dj_graph *g, const dj_recipe *r, const dj__net_in *in) {
  enum { ROWS = 2, COLUMNS = 4, WIDTH = 32 };
  int d = r->network.matching, t = predicted_frames(r), n_d = 2 * d + 1;
  int64_t n = (int64_t)in->b * t * in->cameras, w = in->w - 2 * d;
  dj_val grey = dj_cast(g, dj_slice(g, in->image, 5, 1, 1), DJ_F32); // green: most of brightness
  dj_shape s = DJ_SHAPE(n, in->h, in->w, 1);
  dj_val now = dj_reshape(g, dj_slice(g, grey, 1, in->t - t, t), s);
  dj_val before = dj_reshape(g, dj_slice(g, grey, 1, in->t - t - 1, t), s);
  dj_pool_args block = {.kernel_h = in->h / ROWS, .kernel_w = (int)w / COLUMNS};
  block.stride_h = block.kernel_h;
  block.stride_w = block.kernel_w;
  now = dj_slice(g, now, 2, d, w);
  dj_val cost[2 * MAX_MATCHING + 1];
  for (int k = 0; k < n_d; k++)
    cost[k] = dj_avg_pool(g, dj_l1(g, now, dj_slice(g, before, 2, k, w)), &block);
  dj_val c = dj_concat(g, cost, n_d, 3); // (B*T'*C, 2, 4, 2D + 1)
  dj_val mean = dj_mean_keep(g, c, 1u << 3);
  c = dj_div(g, dj_sub(g, mean, c), dj_affine(g, mean, 0.5f, 1)); // about 1 where it matches well
  dj_shape got = dj_val_shape(g, c);
  if (got.rank != 4) return DJ_NONE;
  c = dj_reshape(g, c, DJ_SHAPE((int64_t)in->b * t, in->cameras * got.dim[1] * got.dim[2] * n_d));
  return dj_relu(g, dj__layer_linear(g, "matching", c, WIDTH, 1.4f));
}

/* Features of each frame: (B*T', hidden) */
static dj_val frames(dj_graph *g, const dj_recipe *r, const dj__net_in *in, bool training) {
  int64_t n = (int64_t)in->b * predicted_frames(r);
  dj_val x = backbone(g, r, stack_frames(g, r, in));
  dj_shape s = dj_val_shape(g, x);
  if (s.rank != 4) return DJ_NONE;
  x = dj_reshape(g, x, DJ_SHAPE(n * in->cameras, s.dim[1] * s.dim[2] * s.dim[3]));
  x = dj_dropout(g, x, training ? r->network.dropout : 0);
  x = dj__layer_linear(g, "feature", x, r->network.hidden, 1.4f);
  if (in->cameras > 1) {
    x = dj_reshape(g, x, DJ_SHAPE(n, in->cameras, r->network.hidden));
    x = dj_add(
        g, x,
        dj_param(g, "camera", DJ_SHAPE(in->cameras, r->network.hidden), dj_init_normal(0.1f)));
    x = dj_sum(g, x, 1u << 1);
  }
  return dj_relu(g, x);
}

/* Speed and, with turn_input, yaw rate of the frames with predictions, about -1..1; who is given
 * the yaw rate predicts steering from it and not from the road (causal confusion: de Haan et al.
 * 2019, "Causal confusion in imitation learning"): (B*T', 2) */
static dj_val vehicle(dj_graph *g, const dj_recipe *r, const dj__net_in *in) {
  const float scale[2] = {0.05f, r->network.turn_input ? 2 : 0};
  int t = predicted_frames(r);
  dj_val v =
      dj_reshape(g, dj_slice(g, in->velocity, 1, in->t - t, t), DJ_SHAPE((int64_t)in->b * t, 2));
  return dj_mul(g, v, dj_const_f32(g, scale, DJ_SHAPE(2)));
}

/* The route command of the frames with predictions (conditional imitation: Codevilla et al. 2018,
 * "End-to-end driving via conditional imitation learning"): (B*T', 6) */
static dj_val command(dj_graph *g, const dj_recipe *r, const dj__net_in *in) {
  int t = predicted_frames(r);
  return dj_reshape(g, dj_slice(g, in->command, 1, in->t - t, t),
                    DJ_SHAPE((int64_t)in->b * t, DJ_N_ROUTE_COMMANDS));
}

/*
 * Features in the light of the command: each is scaled by what the command makes of it (FiLM: Perez
 * et al. 2018, "FiLM: Visual reasoning with a general conditioning layer"), since the same junction
 * is steered left or right; it begins as they are. x (B*T', hidden)
 */
static dj_val commanded(dj_graph *g, const dj_recipe *r, const dj__net_in *in, dj_val x) {
  dj_val scale = dj__layer_linear(g, "command", command(g, r, in), r->network.hidden, 0.3f);
  return dj_mul(g, x, dj_affine(g, scale, 1, 1));
}

/*
 * Where the vehicle would go at its present speed v and turn rate w (without turn_input: straight
 * on): what the path head corrects.
 * Along a circle, x = v t (1 - a^2 / 6), y = v t a / 2 to third order in the angle a = w t, which
 * is held within one radian: nobody turns at one rate for long. (B*T', 1, 33, 2)
 */
static dj_val extrapolate(dj_graph *g, const dj_recipe *r, const dj__net_in *in) {
  int t = predicted_frames(r);
  int64_t n = (int64_t)in->b * t;
  float times[DJ_PATH_POINTS];
  for (int i = 0; i < DJ_PATH_POINTS; i++) times[i] = (float)dj_path_time(i);
  dj_val at = dj_const_f32(g, times, DJ_SHAPE(1, DJ_PATH_POINTS));
  dj_val v = dj_reshape(g, dj_slice(g, in->velocity, 1, in->t - t, t), DJ_SHAPE(n, 2));
  dj_val d = dj_mul(g, dj_slice(g, v, 1, 0, 1), at); // (B*T', 33) m
  dj_val w = dj_affine(g, dj_slice(g, v, 1, 1, 1), r->network.turn_input ? 1 : 0, 0);
  dj_val a = dj_clamp(g, dj_mul(g, w, at), -1, 1);
  dj_val xy[2] = {dj_mul(g, d, dj_affine(g, dj_mul(g, a, a), -1 / 6.0f, 1)),
                  dj_mul(g, d, dj_affine(g, a, 0.5f, 0))};
  for (int i = 0; i < 2; i++) xy[i] = dj_reshape(g, xy[i], DJ_SHAPE(n, 1, DJ_PATH_POINTS, 1));
  return dj_concat(g, xy, 2, 3);
}

/* x (B*T', I) -> states of all times (B*T', hidden) */
static dj_val fuse(dj_graph *g, const dj_recipe *r, const dj__net_in *in, dj_val x) {
  int hidden = r->network.hidden, t_max = predicted_frames(r);
  dj_val states[MAX_WINDOW] = {DJ_NONE};
  dj_graph_push(g, "queue");
  dj_val gx = dj_reshape(g, dj__layer_linear(g, "input", x, 3 * hidden, 1),
                         DJ_SHAPE(in->b, t_max, 3 * hidden));
  dj_graph_push(g, "state");
  dj_val u = dj_param(g, "weight", DJ_SHAPE(3 * hidden, hidden),
                      dj_init_normal(dj_init_he(hidden).a * 0.5f));
  dj_val c = dj_param(g, "bias", DJ_SHAPE(3 * hidden), dj_init_const(0));
  dj_graph_pop(g);
  dj_val h = dj_broadcast(g, dj_scalar(g, 0), DJ_SHAPE(in->b, hidden));
  for (int t = 0; t < t_max; t++) {
    dj_val gxt = dj_reshape(g, dj_slice(g, gx, 1, t, 1), DJ_SHAPE(in->b, 3 * hidden));
    h = dj_gru_cell(g, gxt, dj_linear(g, h, u, c), h);
    states[t] = dj_reshape(g, h, DJ_SHAPE(in->b, 1, hidden));
  }
  dj_graph_pop(g);
  dj_val all = t_max > 1 ? dj_concat(g, states, t_max, 1) : states[0]; // (B, T, hidden)
  return dj_reshape(g, all, DJ_SHAPE((int64_t)in->b * t_max, hidden));
}

/* x (B*T', I) */
static void path_head(dj_graph *g, const dj_recipe *r, const dj__net_in *in, dj_val x,
                      dj__net_out *out) {
  int k = r->network.hypotheses;
  int64_t n = (int64_t)k * DJ_PATH_POINTS * 2;
  dj_graph_push(g, "path");
  dj_val h = dj_relu(g, dj__layer_linear(g, "hidden", x, r->network.hidden, 1.4f));
  dj_val y = dj__layer_linear(g, "points", h, (int)n, 0.01f);
  dj_val lb = dj__layer_linear(g, "scale", h, (int)n, 0.1f);
  dj_val choice = dj__layer_linear(g, "choice", h, k, 0.5f);
  dj_graph_pop(g);
  // A unit of the output is a metre now and eleven in ten seconds: what errors look like at either
  // end.
  float scale[DJ_PATH_POINTS * 2];
  for (int i = 0; i < DJ_PATH_POINTS; i++)
    scale[2 * i] = scale[2 * i + 1] = 1 + (float)dj_path_time(i);
  dj_shape s = DJ_SHAPE(in->b, out->t, k, DJ_PATH_POINTS, 2);
  out->path = dj_mul(g, dj_reshape(g, y, s), dj_const_f32(g, scale, DJ_SHAPE(DJ_PATH_POINTS, 2)));
  if (r->network.speed_input)
    out->path =
        dj_add(g, out->path,
               dj_reshape(g, extrapolate(g, r, in), DJ_SHAPE(in->b, out->t, 1, DJ_PATH_POINTS, 2)));
  out->path_lb = dj_clamp(g, dj_reshape(g, lb, s), -5, 5);
  out->choice = dj_reshape(g, choice, DJ_SHAPE(in->b, out->t, k));
}

static void build(dj_graph *g, const dj_recipe *r, const dj__net_in *in, bool training,
                  dj__net_out *out) {
  dj_val x = frames(g, r, in, training); // (B*T', hidden)
  if (r->network.command_input) x = commanded(g, r, in, x);
  if (r->network.matching) x = dj_concat(g, (dj_val[]){x, matching(g, r, in)}, 2, 1);
  dj_val seen = x;
  if (r->network.speed_input) x = dj_concat(g, (dj_val[]){x, vehicle(g, r, in)}, 2, 1);
  if (r->network.command_input) x = dj_concat(g, (dj_val[]){x, command(g, r, in)}, 2, 1);
  if (r->network.recurrent) x = dj_concat(g, (dj_val[]){fuse(g, r, in, x), seen}, 2, 1);
  *out = (dj__net_out){
      .t = predicted_frames(r), .path = DJ_NONE, .path_lb = DJ_NONE, .choice = DJ_NONE};
  dj_graph_push(g, "control");
  dj_val c = dj_relu(g, dj__layer_linear(g, "hidden", x, r->network.hidden, 1.4f));
  c = dj_dropout(g, c, training ? r->network.dropout : 0);
  dj__net_control_head(g, r, "out", c, in->b, out);
  dj_graph_pop(g);
  if (r->data.labels & DJ_LABEL_PATH) path_head(g, r, in, x, out);
}

const dj__network dj__net_dojo4d = {"dojo4d", check, build};
