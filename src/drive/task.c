/*
 * The driving task: a recipe's network and losses on a store's drives.
 *
 * Losses are means over what is labelled: every term is masked by the batch's masks, so a clip
 * without a label adds nothing to that head. Control: Laplacian NLL (or L1, L2, Huber) of steering
 * and throttle. Path: of K hypotheses the best one is trained (winner takes all), and the choice
 * among them by cross-entropy on which one that was (as openpilot's plan head does).
 */
#include "drive/task.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "dojo/data.h"
#include "drive/overlay.h"

typedef struct drive_task {
  dj_task base;
  const dj_recipe *recipe;
  const dj__network *network;
  dj_dataset *train, *validation; // validation: NULL where the store has none
  dj_loader *loader, *validation_loader;
  int cameras;
} drive_task;

dj_data_spec dj__drive_spec(const dj_recipe *r, const char *store, const char *split) {
  const dj_recipe_data *d = &r->data;
  return (dj_data_spec){.store = store,
                        .split = split,
                        .drives = (const char *const *)d->drives,
                        .n_drives = (int)d->n_drives,
                        .cameras = (const char *const *)d->cameras,
                        .n_cameras = (int)d->n_cameras,
                        .width = d->width,
                        .height = d->height,
                        .crop_left = d->crop[0],
                        .crop_top = d->crop[1],
                        .crop_right = d->crop[2],
                        .crop_bottom = d->crop[3],
                        .frames = d->frames,
                        .stride = d->stride,
                        .labels = d->labels,
                        .margin_x = d->margin_x,
                        .lead = d->lead};
}

/* ---- graph ---- */
typedef struct labels {
  dj_val control, control_mask; // (B, T, 3)
  dj_val path, path_mask;       // (B, T, 33, 3), (B, T, 33)
} labels;

static dj__net_in make_inputs(const dj_recipe *r, int cameras, dj_graph *g) {
  dj__net_in in = {r->train.batch, r->data.frames, cameras, r->data.height, r->data.width, 0, 0, 0};
  in.image = dj_input(g, "image", DJ_U8, DJ_SHAPE(in.b, in.t, cameras, in.h, in.w, 3));
  in.velocity = dj_input(g, "velocity", DJ_F32, DJ_SHAPE(in.b, in.t, 2));
  in.command = r->network.command_input
                   ? dj_input(g, "command", DJ_F32, DJ_SHAPE(in.b, in.t, DJ_N_ROUTE_COMMANDS))
                   : DJ_NONE;
  return in;
}

/* The last `t` frames of a label (B, T, ...). */
static dj_val last_frames(dj_graph *g, dj_val v, int all, int t) {
  return t == all ? v : dj_slice(g, v, 1, all - t, t);
}

/* sum(x * mask) / max(sum(mask), 1); x and mask have equal shapes */
static dj_val masked_mean(dj_graph *g, dj_val x, dj_val mask) {
  dj_val n = dj_max2(g, dj_sum(g, mask, DJ_ALL_AXES), dj_scalar(g, 1));
  return dj_div(g, dj_sum(g, dj_mul(g, x, mask), DJ_ALL_AXES), n);
}

static dj_val error_of(dj_graph *g, dj_loss_kind kind, dj_val x, dj_val lb, dj_val target) {
  switch (kind) {
  case DJ_LOSS_LAPLACE:
    return dj_laplace_nll(g, x, lb, target);
  case DJ_LOSS_L1:
    return dj_l1(g, x, target);
  case DJ_LOSS_L2:
    return dj_l2(g, x, target);
  case DJ_LOSS_HUBER:
    return dj_huber(g, x, target, 0.1f);
  }
  return DJ_NONE;
}

static dj_val control_loss(dj_graph *g, const dj_recipe *r, const dj__net_out *out,
                           const labels *l) {
  int n = dj__net_controls(r);
  dj_val e =
      error_of(g, r->loss.kind, out->control, out->control_lb, dj_slice(g, l->control, 2, 0, n));
  dj_val mask = dj_slice(g, l->control_mask, 2, 0, n), total = DJ_NONE;
  const float weight[3] = {r->loss.steering, r->loss.throttle, r->loss.brake};
  static const char *const name[3] = {"loss/steering", "loss/throttle", "loss/brake"};
  for (int k = 0; k < n; k++) {
    if (weight[k] == 0) continue;
    dj_val m = masked_mean(g, dj_slice(g, e, 2, k, 1), dj_slice(g, mask, 2, k, 1));
    dj_output(g, name[k], m);
    m = dj_affine(g, m, weight[k], 0);
    total = total < 0 ? m : dj_add(g, total, m);
  }
  return total;
}

static dj_val path_loss(dj_graph *g, const dj_recipe *r, const dj__net_in *in,
                        const dj__net_out *out, const labels *l) {
  int b = in->b, t = out->t, k = r->network.hypotheses, n = DJ_PATH_POINTS;
  dj_val target = dj_reshape(g, dj_slice(g, l->path, 3, 0, 2), DJ_SHAPE(b, t, 1, n, 2));
  dj_val mask = dj_reshape(g, l->path_mask, DJ_SHAPE(b, t, 1, n, 1));
  dj_shape full = DJ_SHAPE(b, t, k, n, 2);
  dj_val e = dj_laplace_nll(g, out->path, out->path_lb, dj_broadcast(g, target, full));
  e = dj_sum(g, dj_mul(g, e, mask), 1u << 3 | 1u << 4);                 // (B, T, K)
  dj_val points = dj_affine(g, dj_sum(g, l->path_mask, 1u << 2), 2, 0); // (B, T)
  dj_val any = dj_greater(g, points, dj_scalar(g, 0));
  dj_val per_point = dj_reshape(g, dj_max2(g, points, dj_scalar(g, 1)), DJ_SHAPE(b, t, 1));
  e = dj_div(g, e, per_point);
  dj_val best = masked_mean(g, dj_reduce_min(g, e, 1u << 2), any);
  dj_output(g, "loss/path", best);
  dj_val winner = dj_reshape(g, dj_argmin(g, dj_stop_gradient(g, e), 2), DJ_SHAPE(b * t));
  dj_val ce = dj_cross_entropy(g, dj_reshape(g, out->choice, DJ_SHAPE(b * t, k)), winner); // (B*T)
  dj_val choice = masked_mean(g, dj_reshape(g, ce, DJ_SHAPE(b, t)), any);
  return dj_add(g, dj_affine(g, best, r->loss.path, 0), dj_affine(g, choice, r->loss.choice, 0));
}

dj_status dj__drive_build_train(const dj_recipe *r, int cameras, dj_graph *g, dj_val *loss) {
  const dj__network *network = dj__network_find(r);
  if (!network) return DJ_E_NOT_FOUND;
  DJ_TRY(network->check(r));
  dj__net_in in = make_inputs(r, cameras, g);
  labels l = {.control = dj_input(g, "label/control", DJ_F32, DJ_SHAPE(in.b, in.t, 3)),
              .control_mask = dj_input(g, "label/control_mask", DJ_F32, DJ_SHAPE(in.b, in.t, 3)),
              .path = dj_input(g, "label/path", DJ_F32, DJ_SHAPE(in.b, in.t, DJ_PATH_POINTS, 3)),
              .path_mask =
                  dj_input(g, "label/path_mask", DJ_F32, DJ_SHAPE(in.b, in.t, DJ_PATH_POINTS))};
  dj__net_out out;
  network->build(g, r, &in, true, &out);
  l.control = last_frames(g, l.control, in.t, out.t);
  l.control_mask = last_frames(g, l.control_mask, in.t, out.t);
  l.path = last_frames(g, l.path, in.t, out.t);
  l.path_mask = last_frames(g, l.path_mask, in.t, out.t);
  dj_graph_push(g, "loss");
  dj_val total = DJ_NONE;
  if (r->data.labels & DJ_LABEL_CONTROL) total = control_loss(g, r, &out, &l);
  if (out.path >= 0 && r->loss.path > 0) {
    dj_val p = path_loss(g, r, &in, &out, &l);
    total = total < 0 ? p : dj_add(g, total, p);
  }
  dj_graph_pop(g);
  DJ_TRY(dj_graph_status(g));
  if (total < 0)
    return dj_error(DJ_E_INVALID,
                    "%s: no head is trained: data.labels, the loss weights and network '%s' "
                    "leave nothing",
                    r->file, r->network.name);
  *loss = total;
  return DJ_OK;
}

dj_status dj__drive_build_eval(const dj_recipe *r, int cameras, dj_graph *g, int *frames_out) {
  const dj__network *network = dj__network_find(r);
  if (!network) return DJ_E_NOT_FOUND;
  dj__net_in in = make_inputs(r, cameras, g);
  dj__net_out out;
  network->build(g, r, &in, false, &out);
  dj_output(g, "control", out.control);
  dj_output(g, "control_lb", out.control_lb);
  dj_output(g, "path", out.path);
  dj_output(g, "path_lb", out.path_lb);
  dj_output(g, "choice", out.choice);
  if (frames_out) *frames_out = out.t;
  return dj_graph_status(g);
}

static dj_status build(dj_task *base, dj_graph *g, bool training, dj_val *loss) {
  drive_task *t = (drive_task *)base;
  *loss = DJ_NONE;
  return training ? dj__drive_build_train(t->recipe, t->cameras, g, loss)
                  : dj__drive_build_eval(t->recipe, t->cameras, g, NULL);
}

/* ---- batches ---- */
static void put(dj_program *p, const char *name, const void *data) {
  dj_tensor *t = dj_program_input(p, name);
  if (t) memcpy(t->data, data, dj_tensor_bytes(t));
}

static void put_commands(dj_program *p, const dj_batch *b) {
  dj_tensor *t = dj_program_input(p, "command"); // (B, T, 6)
  if (!t) return;
  float *one = (float *)t->data;
  memset(one, 0, dj_tensor_bytes(t));
  for (int64_t i = 0; i < (int64_t)b->b * b->t; i++)
    one[i * DJ_N_ROUTE_COMMANDS + (int64_t)b->command[i]] = 1;
}

void dj__drive_fill(dj_program *p, const dj_batch *b) {
  put(p, "image", b->image);
  put(p, "velocity", b->velocity);
  put_commands(p, b);
  put(p, "label/control", b->control);
  put(p, "label/control_mask", b->control_mask);
  put(p, "label/path", b->path);
  put(p, "label/path_mask", b->path_mask);
}

void dj__drive_read(dj_program *p, const dj_recipe *r, int i, dj__prediction *out) {
  const dj_tensor *control = dj_program_output(p, "control"), // (B, T', N)
      *control_lb = dj_program_output(p, "control_lb"),       // (B, T', N)
          *path = dj_program_output(p, "path"),               // (B, T', K, 33, 2)
              *path_lb = dj_program_output(p, "path_lb"),     // (B, T', K, 33, 2)
                  *choice = dj_program_output(p, "choice");   // (B, T', K)
  int64_t at = (i + 1) * control->shape.dim[1] - 1, n = control->shape.dim[2];
  const float *c = (const float *)control->data + at * n,
              *lb = (const float *)control_lb->data + at * n;
  bool scaled = r->loss.kind == DJ_LOSS_LAPLACE;
  *out = (dj__prediction){.steering = c[0],
                          .throttle = c[1],
                          .brake = n > 2 ? c[2] : NAN,
                          .steering_scale = scaled ? expf(lb[0]) : NAN,
                          .throttle_scale = scaled ? expf(lb[1]) : NAN};
  if (!path) return;
  int64_t k = path->shape.dim[2], best = 0;
  const float *logit = (const float *)choice->data + at * k;
  for (int64_t j = 1; j < k; j++)
    if (logit[j] > logit[best]) best = j;
  float sum = 0;
  for (int64_t j = 0; j < k; j++) sum += expf(logit[j] - logit[best]);
  out->share = 1 / sum;
  out->path = (const float *)path->data + (at * k + best) * DJ_PATH_POINTS * 2;
  out->path_lb = (const float *)path_lb->data + (at * k + best) * DJ_PATH_POINTS * 2;
}

static dj_status fill(dj_task *base, dj_program *p, uint64_t step, uint64_t *samples) {
  drive_task *t = (drive_task *)base;
  dj_batch b;
  DJ_TRY(dj_loader_next(t->loader, step, &b));
  dj__drive_fill(p, &b);
  *samples = (uint64_t)b.b;
  dj_loader_release(t->loader, &b);
  return DJ_OK;
}

static uint64_t steps_per_epoch(dj_task *base) {
  return dj_loader_epoch_steps(((drive_task *)base)->loader);
}

static dj_status validate(dj_task *base, dj_program *p, dj_scores *scores) {
  drive_task *t = (drive_task *)base;
  *scores = (dj_scores){.best = -1};
  if (!t->validation) return DJ_OK;
  uint64_t size = dj_dataset_size(t->validation), n = 0, n_path = 0;
  double sum = 0, sum_path = 0;
  bool steers = t->recipe->loss.steering > 0; // else no head's score must choose the best weights
  for (uint64_t step = 0, done = 0; done < size; step++) {
    dj_batch b;
    DJ_TRY(dj_loader_next(t->validation_loader, step, &b));
    dj__drive_fill(p, &b);
    dj_status s = dj_program_run(p, 0);
    for (int i = 0; i < b.b && done < size && !s; i++, done++) {
      int64_t last = (int64_t)(i + 1) * b.t - 1;
      dj__prediction said;
      dj__drive_read(p, t->recipe, i, &said);
      if (steers && b.control_mask[last * 3] > 0) {
        sum += fabs((double)said.steering - (double)b.control[last * 3]);
        n++;
      }
      if (!said.path) continue;
      for (int j = 0; j < DJ_PATH_POINTS; j++) {
        if (b.path_mask[last * DJ_PATH_POINTS + j] <= 0) continue;
        const float *truth = b.path + (last * DJ_PATH_POINTS + j) * 3;
        sum_path +=
            hypot((double)(said.path[2 * j] - truth[0]), (double)(said.path[2 * j + 1] - truth[1]));
        n_path++;
      }
    }
    dj_loader_release(t->validation_loader, &b);
    if (s) return s;
  }
  if (n) dj_scores_add(scores, "steering/mae", sum / (double)n);
  if (n_path) dj_scores_add(scores, "path/ade", sum_path / (double)n_path);
  scores->best = scores->n ? 0 : -1;
  return DJ_OK;
}

/* Validation window i of the batch, as the curves show it: the picture is the network's input. */
static dj_status draw(const drive_task *t, const dj_batch *b, dj_program *p, int i,
                      dj_picture *out) {
  int64_t last = (int64_t)(i + 1) * b->t - 1;
  dj__prediction said;
  dj__drive_read(p, t->recipe, i, &said);
  bool control = (t->recipe->data.labels & DJ_LABEL_CONTROL) != 0;
  dj__moment m = {.picture = b->image + last * b->cameras * b->h * b->w * 3,
                  .w = b->w,
                  .h = b->h,
                  .driver = b->control_mask[last * 3] > 0 ? (double)b->control[last * 3] : NAN,
                  .network = control ? (double)said.steering : NAN,
                  .scale = control ? (double)said.steering_scale : NAN,
                  .driver_path = b->path + last * DJ_PATH_POINTS * 3,
                  .driver_mask = b->path_mask + last * DJ_PATH_POINTS,
                  .network_path = said.path,
                  .network_lb = said.path_lb,
                  .speed = b->velocity_mask[last * 2] > 0 ? (double)b->velocity[last * 2] : NAN};
  return dj__draw_sample(&m, &out->rgb, &out->width, &out->height);
}

/* Windows spread evenly over the validation split; the same ones every time. */
static dj_status pictures(dj_task *base, dj_program *p, dj_picture *out, int max, int *n) {
  drive_task *t = (drive_task *)base;
  *n = 0;
  uint64_t size = t->validation ? dj_dataset_size(t->validation) : 0;
  uint64_t count = size < (uint64_t)max ? size : (uint64_t)max;
  for (uint64_t k = 0; k < count; k++) {
    uint64_t sample = (2 * k + 1) * size / (2 * count), batch = (uint64_t)t->recipe->train.batch;
    dj_batch b;
    DJ_TRY(dj_loader_next(t->validation_loader, sample / batch, &b));
    dj__drive_fill(p, &b);
    dj_status s = dj_program_run(p, 0);
    if (!s) s = draw(t, &b, p, (int)(sample % batch), &out[*n]);
    (void)snprintf(out[*n].name, sizeof out[*n].name, "frame-%llu", (unsigned long long)sample);
    dj_loader_release(t->validation_loader, &b);
    DJ_TRY(s);
    ++*n;
  }
  return DJ_OK;
}

static dj_status describe(dj_task *base, char **json) {
  drive_task *t = (drive_task *)base;
  *json = dj__strf("{\"task\": \"drive\", \"network\": \"%s\", \"data\": \"%s\", \"cameras\": %d}",
                   t->network->name, dj_dataset_digest(t->train), t->cameras);
  return DJ_OK;
}

static void destroy(dj_task *base) {
  drive_task *t = (drive_task *)base;
  dj_loader_close(t->loader);
  dj_loader_close(t->validation_loader);
  dj_dataset_close(t->train);
  dj_dataset_close(t->validation);
  free(t);
}

static const char *const scalars[] = {"loss/steering", "loss/throttle", "loss/brake", "loss/path",
                                      NULL};
static const dj_task_ops ops = {.name = "drive",
                                .build = build,
                                .fill = fill,
                                .validate = validate,
                                .describe = describe,
                                .pictures = pictures,
                                .steps_per_epoch = steps_per_epoch,
                                .scalars = scalars,
                                .destroy = destroy};

static dj_status open_data(drive_task *t, const char *store) {
  const dj_recipe *r = t->recipe;
  dj_data_spec spec = dj__drive_spec(r, store, "train");
  DJ_TRY(dj_dataset_open(&spec, &t->train));
  dj_loader_options o = {.batch = r->train.batch,
                         .seed = r->train.seed,
                         .shuffle = true,
                         .hop = r->data.hop,
                         .augment = r->augment,
                         .threads = r->train.loader_threads};
  DJ_TRY(dj_loader_open(t->train, &o, &t->loader));
  spec.split = "validation";
  dj_status s = dj_dataset_open(&spec, &t->validation);
  if (s == DJ_E_NOT_FOUND) return DJ_OK; // short drives have no such part
  if (s) return s;
  return dj_loader_open(t->validation, &(dj_loader_options){.batch = r->train.batch, .threads = 1},
                        &t->validation_loader);
}

dj_status dj_task_create_drive(const dj_recipe *r, const char *store, dj_task **task) {
  *task = NULL;
  if (!store) return dj_error(DJ_E_INVALID, "%s: driving needs a store (--store)", r->file);
  const dj__network *network = dj__network_find(r);
  if (!network) return DJ_E_NOT_FOUND;
  DJ_TRY(network->check(r));
  drive_task *t = calloc(1, sizeof *t);
  if (!t) return dj_error(DJ_E_NOMEM, "driving task: out of memory");
  t->base.ops = &ops;
  t->recipe = r;
  t->network = network;
  t->cameras = r->data.n_cameras ? (int)r->data.n_cameras : 1;
  dj_status s = open_data(t, store);
  if (s) {
    destroy(&t->base);
    return s;
  }
  *task = &t->base;
  return DJ_OK;
}
