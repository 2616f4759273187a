/*
 * A network as a driver: what it says is turned into a command. With a control head that has a
 * brake, or a throttle that training drives hold, it is the command; steering and speed come from
 * the path where there is only a path head: pure pursuit (Coulter 1992) of the point that the
 * vehicle reaches in about a second, at the speed that the path's spacing says.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dojo/log.h"
#include "drive/live.h"
#include "world/drive.h"
#include "world/pilot.h"

typedef struct network {
  dj__live live;
  dj__rig rig;
  const dj__vehicle_model *model;
  char name[64];
  bool has_control;
} network;

static dj_status reset(void *self, const dj__world *w) {
  network *n = self;
  n->model = w->ego.model;
  dj__live_restart(&n->live);
  return DJ_OK;
}

/* The path's point nearest to `t` seconds ahead, with its time. */
static double point_at(const float *path, double t, double xy[2]) {
  int i = 1;
  while (i + 1 < DJ_PATH_POINTS && dj_path_time(i) < t) i++;
  double t0 = dj_path_time(i - 1), f = fmin(1, fmax(0, (t - t0) / (dj_path_time(i) - t0)));
  for (int k = 0; k < 2; k++)
    xy[k] = (double)path[2 * (i - 1) + k] +
            f * ((double)path[2 * i + k] - (double)path[2 * (i - 1) + k]);
  return t0 + f * (dj_path_time(i) - t0);
}

static void follow_path(const network *n, const float *path, double v, dj__command *out) {
  double ahead[2], near[2], far[2];
  (void)point_at(path, fmax(1.0, 1.6 * n->model->wheelbase / fmax(v, 1)), ahead);
  double d2 = ahead[0] * ahead[0] + ahead[1] * ahead[1];
  double least = 1.2 * n->model->wheelbase;
  double k = d2 > least * least ? 2 * ahead[1] / d2 : 0;
  out->steering = dj__pilot_steering(n->model, k, v);
  double t0 = point_at(path, 0.5, near), t1 = point_at(path, 1.5, far);
  double wanted = hypot(far[0] - near[0], far[1] - near[1]) / fmax(t1 - t0, 0.1);
  if (far[0] < near[0]) wanted = 0;
  dj__pilot_pedals(n->model, fmax(-6, fmin(2.5, 1.2 * (wanted - v))), v, 0, out);
}

static dj_status drive(void *self, const dj__sense *in, const dj__world *w, dj__command *out) {
  (void)w;
  network *n = self;
  const uint8_t *rgb[DJ_MAX_CAMERAS];
  for (int i = 0; i < in->n_picture; i++) rgb[i] = in->picture[i].rgb;
  dj__prediction said;
  DJ_TRY(dj__live_step(&n->live, rgb, in->speed, in->yaw_rate, (int)in->command, &said));
  *out = (dj__command){0};
  bool pedals = n->live.one.loss.throttle > 0;
  if (said.path && !(n->has_control && pedals)) follow_path(n, said.path, in->speed, out);
  if (!n->has_control) return DJ_OK;
  out->steering = fmaxf(-1, fminf(1, said.steering));
  if (!pedals) return DJ_OK;
  out->throttle = fmaxf(0, fminf(1, said.throttle));
  out->brake =
      isnan(said.brake) ? fmaxf(0, fminf(1, -said.throttle)) : fmaxf(0, fminf(1, said.brake));
  if (out->brake > 0.03f && out->brake > out->throttle)
    out->throttle = 0; /* one foot */
  else
    out->brake = 0;
  return DJ_OK;
}

static void destroy(void *self) {
  network *n = self;
  dj__live_close(&n->live);
  free(n);
}

static dj_status choose_rig(network *n, const dj__rig *rig) {
  if (rig) {
    n->rig = *rig;
    return DJ_OK;
  }
  dj__live_source s;
  dj_status st = dj__live_find_source(&n->live, &s);
  if (st == DJ_E_NOT_FOUND)
    return dj_error_context(st, "cameras of %s (choose one with --rig)", n->live.run.dir);
  if (st) return st;
  if (s.n_camera > DJ__RIG_CAMERAS)
    return dj_error(DJ_E_LIMIT, "%s sees %d cameras; a rig has up to %d", n->live.run.dir,
                    s.n_camera, DJ__RIG_CAMERAS);
  n->rig = (dj__rig){.rate = s.rate, .n_camera = s.n_camera};
  (void)snprintf(n->rig.name, sizeof n->rig.name, "recorded");
  for (int i = 0; i < s.n_camera; i++) {
    n->rig.camera[i].camera = s.camera[i];
    if (!s.camera[i].calibrated)
      dj_message(DJ_LOG_WARN,
                 "camera %s of the training drives is not calibrated: its view in the "
                 "world is a guess; choose a rig with --rig",
                 s.camera[i].name);
  }
  return DJ_OK;
}

dj_status dj__driver_network(const char *run, double latency, const dj__rig *rig, dj__driver *d) {
  *d = (dj__driver){0};
  network *n = calloc(1, sizeof *n);
  if (!n) return dj_error(DJ_E_NOMEM, "network driver: no memory");
  dj_status s = dj__live_open(&n->live, run, DJ_CHECKPOINT_BEST, 1);
  if (!s) s = choose_rig(n, rig);
  dj_camera cameras[DJ__RIG_CAMERAS];
  for (int i = 0; i < n->rig.n_camera && !s; i++) cameras[i] = n->rig.camera[i].camera;
  if (!s) s = dj__live_cameras(&n->live, cameras, n->rig.n_camera);
  n->has_control = (n->live.one.data.labels & DJ_LABEL_CONTROL) && n->live.one.loss.steering > 0;
  if (s) {
    destroy(n);
    return s;
  }
  (void)snprintf(n->name, sizeof n->name, "%s", n->live.one.network.name);
  *d = (dj__driver){.name = n->name,
                    .period = 1 / fmax(n->rig.rate, 0.1),
                    .latency = latency < 0 ? 0.1 : latency,
                    .rig = &n->rig,
                    .reset = reset,
                    .drive = drive,
                    .destroy = destroy,
                    .self = n};
  return DJ_OK;
}
