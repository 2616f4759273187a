/*
 * The table of recipe keys, shared by the YAML schema, the checks, the defaults and the reference
 * page. A new key is a member of a dj_recipe_* struct (train.h) and one line here.
 *
 * X(KIND, section path, key, struct, member, lowest, highest, default, text). KIND is libcyaml's
 * INT, UINT, FLOAT or BOOL. REQUIRED as the default: a recipe must give it.
 */
#ifndef DOJO_TRAIN_RECIPE_H
#define DOJO_TRAIN_RECIPE_H

#include "dojo/train.h"

#define REQUIRED NAN
#define DJ__BIG  1e15 /* whole numbers up to here are exact in a double */

#define DJ__DATA_KEYS(X, P, S)                                                                     \
  X(INT, P, width, S, width, 8, 4096, 0, "of the network's input, pixels; driving needs it")       \
  X(INT, P, height, S, height, 8, 4096, 0, "of the network's input, pixels; driving needs it")     \
  X(INT, P, frames, S, frames, 1, 64, 1, "frames in the window, the present one last")             \
  X(INT, P, stride, S, stride, 1, 1000, 1, "recorded frames between two frames of the window")     \
  X(INT, P, hop, S, hop, 1, 64, 1,                                                                 \
    "recorded frames from one training window to the next; their start is drawn every epoch")      \
  X(FLOAT, P, lead, S, lead, 0, 10, 0,                                                             \
    "s by which the control that is learned lies ahead of the picture: what a driver says takes "  \
    "effect later")                                                                                \
  X(FLOAT, P, margin_x, S, margin_x, 0, 0.5, 0,                                                    \
    "extra width on each side for viewpoint augmentation, share of the width")                     \
  X(INT, P, context, S, context, 1, 1048576, 256, "text: tokens that are seen at once")            \
  X(FLOAT, P, validation, S, validation, 0, 0.9, 0.1,                                              \
    "text: share of the tokens, the last ones, that only validate")                                \
  X(INT, P, windows, S, windows, 1, 1000000, 400,                                                  \
    "text: windows to validate with at most, spread evenly over that share")

#define DJ__AUGMENT_KEYS(X, P, S)                                                                  \
  X(FLOAT, P, mirror, S, mirror, 0, 1, 0, "probability of a left-right flip")                      \
  X(FLOAT, P, brightness, S, brightness, 0, 1, 0, "+- share")                                      \
  X(FLOAT, P, contrast, S, contrast, 0, 1, 0, "+- share")                                          \
  X(FLOAT, P, noise, S, noise, 0, 1, 0, "standard deviation, share of full scale")                 \
  X(FLOAT, P, yaw, S, yaw, 0, 0.5, 0, "camera turned by up to this, rad")                          \
  X(FLOAT, P, shift, S, shift, 0, 5, 0, "camera moved sideways by up to this, m")                  \
  X(FLOAT, P, steer_per_yaw, S, steer_per_yaw, 0, 100, 0,                                          \
    "steering correction, share of full lock per rad")                                             \
  X(FLOAT, P, steer_per_shift, S, steer_per_shift, 0, 100, 0,                                      \
    "steering correction, share of full lock per m")

#define DJ__NETWORK_KEYS(X, P, S)                                                                  \
  X(INT, P, channels, S, channels, 1, 4096, 32, "of the first stage")                              \
  X(FLOAT, P, growth, S, growth, 1, 4, 2, "of the channels from stage to stage, up to the fourth") \
  X(INT, P, depth, S, depth, 0, 64, 1, "residual blocks in a stage")                               \
  X(INT, P, stack, S, stack, 1, 8, 1,                                                              \
    "frames the backbone sees at once: the present one and its differences to those before")       \
  X(INT, P, matching, S, matching, 0, 32, 0,                                                       \
    "pixels to either side in which each part of a frame is looked for in the one before, which "  \
    "shows how the vehicle turns; 0: not")                                                         \
  X(INT, P, stages, S, stages, 1, 8, 4, "resolutions of the backbone")                             \
  X(INT, P, hidden, S, hidden, 1, 65536, 128, "width of the recurrent state and of the heads")     \
  X(INT, P, hypotheses, S, hypotheses, 1, 64, 3, "of the ego path")                                \
  X(FLOAT, P, dropout, S, dropout, 0, 0.95, 0,                                                     \
    "probability, in the heads; decoder: behind embedding, attention and MLP")                     \
  X(BOOL, P, recurrent, S, recurrent, 0, 1, 1, "fuse the window; false: last frame alone")         \
  X(BOOL, P, speed_input, S, speed_input, 0, 1, 0, "give the vehicle's speed to the heads")        \
  X(BOOL, P, turn_input, S, turn_input, 0, 1, 1,                                                   \
    "dojo4d: with speed_input, give the yaw rate as well; false: a driver that is to steer "       \
    "closed "                                                                                      \
    "loop must look where it goes, and cannot repeat how it turns")                                \
  X(BOOL, P, command_input, S, command_input, 0, 1, 0,                                             \
    "dojo4d: give the route command (follow, left, ...) to the heads")                             \
  X(INT, P, layers, S, layers, 1, 1000, 12, "decoder: blocks of attention and MLP")                \
  X(INT, P, heads, S, heads, 1, 1024, 12, "decoder: heads of attention")                           \
  X(INT, P, kv_heads, S, kv_heads, 0, 1024, 0, "decoder: heads of keys and values; 0: as heads")   \
  X(INT, P, width, S, width, 1, 65536, 768, "decoder: of the embedding")                           \
  X(INT, P, mlp_width, S, mlp_width, 0, 1048576, 0, "decoder: inside an MLP; 0: four times width") \
  X(INT, P, vocabulary, S, vocabulary, 0, 16777216, 0,                                             \
    "decoder: tokens; 0: as many as the tokeniser has")                                            \
  X(FLOAT, P, rope_theta, S, rope_theta, 1, 1e9, 10000, "decoder: base of the rotary periods")     \
  X(FLOAT, P, norm_eps, S, norm_eps, 1e-12, 1, 1e-5, "decoder: added to the variance in norms")    \
  X(BOOL, P, tied, S, tied, 0, 1, 1, "decoder: the embedding is the output layer, too")            \
  X(BOOL, P, bias, S, bias, 0, 1, 1, "decoder: linear layers and layer norms have biases")

#define DJ__LOSS_KEYS(X, P, S)                                                                     \
  X(FLOAT, P, steering, S, steering, 0, 1e6, 1, "weight; 0: not trained")                          \
  X(FLOAT, P, throttle, S, throttle, 0, 1e6, 0.1, "weight; 0: not trained")                        \
  X(FLOAT, P, brake, S, brake, 0, 1e6, 0, "weight; 0: the control head has no brake")              \
  X(FLOAT, P, path, S, path, 0, 1e6, 1, "weight; 0: not trained")                                  \
  X(FLOAT, P, choice, S, choice, 0, 1e6, 0.1, "weight of choosing among the path's hypotheses")

#define DJ__OPTIMIZER_KEYS(X, P, S)                                                                \
  X(FLOAT, P, lr, S, optimizer.lr, 1e-12, 1e3, 1e-3, "learning rate")                              \
  X(FLOAT, P, beta1, S, optimizer.beta1, 0, 0.99999, 0.9, "adamw: decay of the first moment")      \
  X(FLOAT, P, beta2, S, optimizer.beta2, 0, 0.999999, 0.999, "adamw: decay of the second moment")  \
  X(FLOAT, P, eps, S, optimizer.eps, 1e-20, 1, 1e-8, "adamw: added to the root")                   \
  X(FLOAT, P, weight_decay, S, optimizer.weight_decay, 0, 10, 0.01, "not on biases and the like")  \
  X(FLOAT, P, momentum, S, optimizer.momentum, 0, 0.99999, 0.9, "sgd: momentum")

#define DJ__SCHEDULE_KEYS(X, P, S)                                                                 \
  X(UINT, P, warmup, S, schedule.warmup, 0, DJ__BIG, 0, "steps of linear rise")                    \
  X(FLOAT, P, final, S, schedule.final, 0, 1, 0, "cosine: share of lr at the end")                 \
  X(UINT, P, every, S, schedule.every, 0, DJ__BIG, 0, "step: steps between two drops")             \
  X(FLOAT, P, gamma, S, schedule.gamma, 0, 1, 0.1, "step: factor of a drop")

#define DJ__TRAIN_KEYS(X, P, S)                                                                    \
  X(FLOAT, P, epochs, S, epochs, 0, 1e9, 0, "passes over the data; either this or steps")          \
  X(UINT, P, steps, S, steps, 0, DJ__BIG, 0, "updates of the weights")                             \
  X(INT, P, batch, S, batch, 1, 65536, REQUIRED, "samples in one run of the program")              \
  X(INT, P, accumulate, S, accumulate, 1, 65536, 1, "runs for one update")                         \
  X(FLOAT, P, recompute, S, recompute, 0, 1, 0,                                                    \
    "share of the layers (or stages) whose values are computed again in the backward pass "        \
    "instead of kept: less memory, more time")                                                     \
  X(FLOAT, P, ema, S, ema, 0, 0.999999, 0, "decay of the weights' moving average; 0: none")        \
  X(FLOAT, P, clip, S, clip, 0, 1e9, 0, "largest global norm of the gradient; 0: any")             \
  X(FLOAT, P, best_after, S, best_after, 0, 1, 0,                                                  \
    "share of the run before which no weights count as the best")                                  \
  X(UINT, P, seed, S, seed, 0, DJ__BIG, 1, "of weights, batches, dropout")                         \
  X(UINT, P, validate_every, S, validate_every, 0, DJ__BIG, 0, "steps; 0: once an epoch")          \
  X(UINT, P, checkpoint_every, S, checkpoint_every, 0, DJ__BIG, 0, "steps; 0: by time alone")      \
  X(FLOAT, P, checkpoint_seconds, S, checkpoint_seconds, 0, 1e9, 60,                               \
    "at least this often; 0: by steps alone")                                                      \
  X(INT, P, keep, S, keep, 1, 100000, 2, "last checkpoints kept, besides the best")                \
  X(INT, P, threads, S, threads, 0, 4096, 0, "that compute; 0: all cores")                         \
  X(INT, P, loader_threads, S, loader_threads, 1, 256, 1, "that make batches")

/* Reference of all keys as a Markdown table. free() it. */
char *dj__recipe_reference(void);

#endif
