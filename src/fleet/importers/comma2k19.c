/*
 * Importer of comma2k19 segments (Schafer et al. 2018): a folder with global_pose/, processed_log/
 * and video.hevc, one minute each. The arrays are NumPy files without a suffix.
 *
 * Poses are the camera's, in earth-centred coordinates (ECEF), with quaternions (w, x, y, z) that
 * turn the camera body's axes (forward, right, down) into ECEF; ours are the vehicle's in a local
 * east, north, up frame at the first position. The video is copied as it is, one access unit a
 * frame. Where it is missing everything else is imported, and said.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "dojo/log.h"
#include "fleet/drivelog.h"
#include "fleet/importers/importer.h"
#include "fleet/importers/matrix.h"
#include "fleet/npy.h"
#include "fleet/video.h"

#define CAMERA_HEIGHT 1.22  /* m: comma's mounting in both cars */
#define FOCAL         910.0 /* px at 1164x874: the EON's camera */
#define FULL_LOCK_RAD                                                                              \
  (540 * M_PI / 180) /* steering wheel: one and a half turns count as full lock */

static int probe(const char *path) {
  char *pose = dj__join(path, "global_pose/frame_times"),
       *can = dj__join(path, "processed_log/CAN");
  int score = (dj__file_size(pose) > 0 ? 50 : 0) + (dj__is_dir(can) ? 45 : 0);
  free(pose);
  free(can);
  return score;
}

/* "<dongle>|<date>/<n>" -> "<date>-<n>" is unique and short; the two last path components. */
static void drive_name(const char *path, char *out, size_t size) {
  size_t n = strlen(path);
  while (n && path[n - 1] == '/') n--;
  size_t start = n;
  for (int slashes = 0; start > 0; start--)
    if (path[start - 1] == '/' && ++slashes == 2) break;
  (void)snprintf(out, size, "%.*s", (int)(n - start), path + start);
}

/* Opens an array of a segment: (rows) or (rows, columns); columns 0: any one column. */
static dj_status open_array(const dj__import *im, const char *name, size_t columns, dj__npy *a) {
  char *path = dj__join(im->path, name);
  dj_status s = dj__npy_open(path, a);
  size_t per_row = !s && a->ndim >= 1 && a->shape[0] ? a->n / a->shape[0] : 0;
  if (!s && per_row != (columns ? columns : 1)) {
    s = dj_error(DJ_E_FORMAT, "%s: %zu numbers a row, there should be %zu", path, per_row,
                 columns ? columns : 1);
    dj__npy_free(a);
  }
  free(path);
  return s;
}

typedef struct series {
  dj__npy t, v;
} series;

/* A pair of t and value; *there is false where the folder is missing. */
static dj_status open_series(const dj__import *im, const char *folder, series *out, bool *there) {
  char *path = dj__join(im->path, folder), *t = dj__join(folder, "t"),
       *v = dj__join(folder, "value");
  *there = dj__is_dir(path);
  *out = (series){0};
  dj_status s = DJ_OK;
  if (*there) s = open_array(im, t, 0, &out->t);
  if (*there && !s) s = open_array(im, v, 0, &out->v);
  if (*there && !s && out->t.n != out->v.n)
    s = dj_error(DJ_E_FORMAT, "%s: %zu times for %zu values", path, out->t.n, out->v.n);
  if (s) {
    dj__npy_free(&out->t);
    dj__npy_free(&out->v);
  }
  free(path);
  free(t);
  free(v);
  return s;
}

/* Row i of a times array; a time that runs backwards is the record's fault. */
static dj_status row_time(const dj__npy *t, const char *folder, const char *file, size_t i,
                          uint64_t last, uint64_t *ns) {
  if (!dj__seconds_to_ns(t->data[i], ns))
    return dj_error(DJ_E_FORMAT, "%s/%s, row %zu: %g is no time in seconds", folder, file, i,
                    t->data[i]);
  if (i && *ns < last)
    return dj_error(DJ_E_FORMAT, "%s/%s, row %zu: time runs backwards: %.6f s after %.6f s", folder,
                    file, i, t->data[i], (double)last * 1e-9);
  return DJ_OK;
}

static dj_status put_speed(dj__import *im, uint64_t t, double v) {
  dj_speed r = {t, v};
  if (!isfinite(v)) return dj_error(DJ_E_FORMAT, "not a number");
  DJ_TRY(dj__check_speed(DJ_E_FORMAT, &r));
  return dj__import_speed(im, &r);
}

/* Degrees, positive to the left. */
static dj_status put_steering(dj__import *im, uint64_t t, double v) {
  double rad = v * M_PI / 180;
  dj_control c = {.t_ns = t,
                  .steering = fmax(-1, fmin(1, rad / FULL_LOCK_RAD)),
                  .throttle = NAN,
                  .brake = NAN,
                  .steering_angle = rad};
  if (!isfinite(v)) return dj_error(DJ_E_FORMAT, "not a number");
  DJ_TRY(dj__check_control(DJ_E_FORMAT, &c));
  return dj__import_control(im, &c);
}

/* One kind of record from the vehicle's bus: each row is taken or told of. */
static dj_status import_series(dj__import *im, const char *folder,
                               dj_status (*put)(dj__import *, uint64_t, double)) {
  series v;
  bool there;
  DJ_TRY(open_series(im, folder, &v, &there));
  char *path = dj__join(im->path, folder);
  dj_status s = DJ_OK;
  uint64_t t = 0, last = 0;
  for (size_t i = 0; there && i < v.t.n && !s; i++) {
    s = row_time(&v.t, path, "t", i, last, &t);
    if (!s) {
      s = put(im, t, v.v.data[i]);
      if (s) s = dj_error_context(s, "%s/value, row %zu", path, i);
    }
    if (s)
      s = dj__import_bad(im, s);
    else
      last = t;
  }
  free(path);
  dj__npy_free(&v.t);
  dj__npy_free(&v.v);
  return s;
}

static dj_status import_can(dj__import *im) {
  DJ_TRY(import_series(im, "processed_log/CAN/speed", put_speed));
  return import_series(im, "processed_log/CAN/steering_angle", put_steering);
}

/* Rows: east, north, up in ECEF, on the WGS84 ellipsoid (Bowring's latitude, below a millimetre).
 */
static void enu_at(const double p[3], double E[9]) {
  const double a = 6378137.0, f = 1 / 298.257223563, b = a * (1 - f);
  double e2 = 1 - b * b / (a * a), ep2 = a * a / (b * b) - 1;
  double r = hypot(p[0], p[1]), u = atan2(p[2] * a, r * b);
  double lat = atan2(p[2] + ep2 * b * pow(sin(u), 3), r - e2 * a * pow(cos(u), 3));
  double lon = atan2(p[1], p[0]), sl = sin(lat), cl = cos(lat), so = sin(lon), co = cos(lon);
  double m[9] = {-so, co, 0, -sl * co, -sl * so, cl, cl * co, cl * so, sl};
  memcpy(E, m, sizeof m);
}

typedef struct poses {
  dj__npy t, position, orientation;
} poses;

static dj_status write_pose(dj__import *im, const poses *p, const double E[9], size_t i,
                            uint64_t t) {
  const double *q = p->orientation.data + 4 * i, *at = p->position.data + 3 * i;
  double norm = sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
  if (!(fabs(norm - 1) < 1e-3) || !isfinite(at[0] + at[1] + at[2]))
    return dj_error(DJ_E_FORMAT, "%s/global_pose, row %zu: no unit quaternion or no position",
                    im->path, i);
  double xyzw[4] = {q[1] / norm, q[2] / norm, q[3] / norm, q[0] / norm}, R[9], Rv[9], d[3], up[3];
  dj__quat_to_mat(xyzw, R); // ECEF from forward, right, down
  dj__mat_mul(E, R, Rv);
  for (int k = 0; k < 3; k++) { // forward, left, up
    Rv[k * 3 + 1] = -Rv[k * 3 + 1];
    Rv[k * 3 + 2] = -Rv[k * 3 + 2];
  }
  for (int k = 0; k < 3; k++) d[k] = at[k] - p->position.data[k];
  dj_pose pose = {.t_ns = t};
  dj__mat_vec(E, d, pose.position);
  dj__mat_vec(Rv, (const double[3]){0, 0, CAMERA_HEIGHT}, up);
  for (int k = 0; k < 3; k++) pose.position[k] -= up[k];
  dj__mat_to_quat(Rv, pose.rotation);
  return dj__import_pose(im, &pose);
}

static dj_status open_poses(const dj__import *im, poses *p) {
  *p = (poses){0};
  DJ_TRY(open_array(im, "global_pose/frame_times", 0, &p->t));
  DJ_TRY(open_array(im, "global_pose/frame_positions", 3, &p->position));
  DJ_TRY(open_array(im, "global_pose/frame_orientations", 4, &p->orientation));
  if (p->position.shape[0] != p->t.n || p->orientation.shape[0] != p->t.n || !p->t.n)
    return dj_error(DJ_E_FORMAT, "%s/global_pose: %zu times, %zu positions, %zu orientations",
                    im->path, p->t.n, p->position.n / 3, p->orientation.n / 4);
  return DJ_OK;
}

static dj_status import_poses(dj__import *im, const poses *p) {
  double E[9];
  enu_at(p->position.data, E);
  uint64_t t = 0, last = 0;
  for (size_t i = 0; i < p->t.n; i++, last = t) {
    dj_status s = row_time(&p->t, im->path, "global_pose/frame_times", i, last, &t);
    if (!s) s = write_pose(im, p, E, i, t);
    if (s) {
      DJ_TRY(dj__import_bad(im, s));
      t = last;
    }
  }
  return DJ_OK;
}

static dj_status import_frames(dj__import *im, dj__video_source *v, const poses *p) {
  const dj__video_info *info = dj__video_source_info(v);
  dj__video_frame f;
  dj_status s;
  uint64_t last = 0, t;
  size_t n = 0; // frames in the file
  bool passed_over = false;
  while ((s = dj__video_source_next(v, &f)) != DJ_E_END) {
    n++;
    if (!s && f.index >= p->t.n) {
      s = dj_error(DJ_E_FORMAT,
                   "%s/video.hevc: more frames than the %zu times in "
                   "global_pose/frame_times",
                   im->path, p->t.n);
      return dj__import_bad(im, s);
    }
    if (!s && passed_over && !f.key)
      s = dj_error(DJ_E_FORMAT, "%s/video.hevc: frame %zu builds on one that was passed over",
                   im->path, (size_t)f.index);
    if (!s) s = row_time(&p->t, im->path, "global_pose/frame_times", f.index, last, &t);
    passed_over = s != DJ_OK;
    if (s) {
      DJ_TRY(dj__import_bad(im, s));
      continue;
    }
    DJ_TRY(strcmp(info->format, "jpeg") == 0
               ? dj__import_image(im, 0, t, "jpeg", f.data, f.size)
               : dj__import_video(im, 0, t, info->format, f.data, f.size));
    last = t;
    dj_progress(im->info.name, f.index + 1, p->t.n, "frames", NULL);
  }
  if (n >= p->t.n) return DJ_OK;
  return dj__import_bad(im, dj_error(DJ_E_FORMAT,
                                     "%s/video.hevc: %zu frames for %zu times in "
                                     "global_pose/frame_times",
                                     im->path, n, p->t.n));
}

static dj_status import_segment(dj__import *im, const poses *p) {
  char *path = dj__join(im->path, "video.hevc");
  dj__video_source *v = NULL;
  dj_status s = DJ_OK;
  if (dj__exists(path)) s = dj__video_source_open(path, &v);
  if (!s && !v)
    dj_message(DJ_LOG_WARN,
               "%s is missing: the drive is imported without pictures (speed, steering "
               "and poses only); to have them put the file there, take the drive out with "
               "'dojo store rm' and import again",
               path);
  free(path);
  if (!s && v) {
    const dj__video_info *info = dj__video_source_info(v);
    dj_camera *c = &im->info.cameras[0];
    dj__camera_guess(c, "front", info->width, info->height, 65, 0, 0, CAMERA_HEIGHT, 0);
    double f = FOCAL * info->width / 1164;
    c->K[0] = c->K[4] = f;
    c->calibrated = true;
    im->info.n_cameras = 1;
  }
  if (!s) s = dj__import_begin(im);
  if (!s) s = import_can(im);
  if (!s) s = import_poses(im, p);
  if (!s && v) s = import_frames(im, v, p);
  dj__video_source_close(v);
  return s;
}

static dj_status run(dj__import *im) {
  poses p;
  dj_status s = open_poses(im, &p);
  if (!s) s = import_segment(im, &p);
  dj__npy_free(&p.t);
  dj__npy_free(&p.position);
  dj__npy_free(&p.orientation);
  return s;
}

const dj__importer dj__import_comma2k19 = {
    .name = "comma2k19",
    .summary = "comma2k19 segment: global_pose/, processed_log/, video.hevc",
    .probe = probe,
    .drive_name = drive_name,
    .run = run,
    .version = 1,
};
