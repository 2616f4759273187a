/*
 * Importer of a video file with a CSV beside it: NAME.mp4 (or any file libavformat reads) and
 * NAME.csv, or a folder that holds one of each. The CSV has a header line; columns, in any order
 * and letter case: time (or t, timestamp; seconds from the first frame), steering (or
 * steering_angle_norm, angle; -1..1, positive to the left), speed (m/s), and optionally throttle,
 * brake. steering or speed may be left out, not both. Frames are copied as they are where a log can
 * hold them (see video.h).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "dojo/log.h"
#include "fleet/csv.h"
#include "fleet/drivelog.h"
#include "fleet/importers/importer.h"
#include "fleet/video.h"

static bool has_suffix(const char *name, const char *const *list) {
  const char *dot = strrchr(name, '.');
  for (; dot && *list; list++)
    if (!strcasecmp(dot, *list)) return true;
  return false;
}

static bool is_video(const char *name) {
  static const char *const list[] = {".mp4", ".mkv",  ".avi",  ".mov", ".webm", ".ts",
                                     ".m4v", ".h264", ".hevc", ".mpg", NULL};
  return has_suffix(name, list);
}

static bool is_csv(const char *name) {
  static const char *const list[] = {".csv", NULL};
  return has_suffix(name, list);
}

/* The one video and the one CSV of a source; NULL where there is none or more than one. */
static void find_pair(const char *path, char **video, char **csv) {
  *video = *csv = NULL;
  if (!dj__is_dir(path)) {
    if (!is_video(path)) return;
    const char *dot = strrchr(path, '.');
    *video = dj__strf("%s", path);
    *csv = dj__strf("%.*s.csv", (int)(dot - path), path);
    return;
  }
  char **names;
  size_t n, n_video = 0, n_csv = 0;
  if (dj__list_dir(path, &names, &n)) return;
  for (size_t i = 0; i < n; i++) {
    char **slot = is_video(names[i]) ? video : is_csv(names[i]) ? csv : NULL;
    if (!slot) continue;
    (*(slot == video ? &n_video : &n_csv))++;
    free(*slot);
    *slot = dj__join(path, names[i]);
  }
  dj__free_names(names, n);
  if (n_video > 1) free(*video), *video = NULL;
  if (n_csv > 1) free(*csv), *csv = NULL;
}

static int probe(const char *path) {
  char *video, *csv;
  find_pair(path, &video, &csv);
  int score = video && csv && dj__file_size(csv) > 0 ? 60 : 0;
  free(video);
  free(csv);
  return score;
}

static dj_status files(const char *path, dj__source_files *f) {
  char *video, *csv;
  find_pair(path, &video, &csv);
  dj_status s = DJ_OK;
  if (!video || !csv)
    s = dj_error(DJ_E_NOT_FOUND,
                 "%s: there must be one video and one CSV of the same name beside it "
                 "(or one of each in the folder)",
                 path);
  if (!s) s = dj__source_add(f, video, "video");
  if (!s) s = dj__source_add(f, csv, "csv");
  free(video);
  free(csv);
  return s;
}

static void drive_name(const char *path, char *out, size_t size) {
  const char *base = strrchr(path, '/'), *dot = strrchr(path, '.');
  base = base ? base + 1 : path;
  int n = dot && dot > base ? (int)(dot - base) : (int)strlen(base);
  (void)snprintf(out, size, "%.*s", n, base);
}

typedef struct columns {
  int time, steering, speed, throttle, brake;
} columns;

static int any_column(const dj__csv *c, const char *a, const char *b, const char *d) {
  int k = dj__csv_column(c, a);
  if (k < 0 && b) k = dj__csv_column(c, b);
  if (k < 0 && d) k = dj__csv_column(c, d);
  return k;
}

static dj_status read_header(dj__csv *c, columns *k) {
  dj_status s = dj__csv_next(c);
  if (s == DJ_E_END) return dj_error(DJ_E_FORMAT, "%s: the file is empty", c->name);
  if (s) return s;
  k->time = any_column(c, "time", "t", "timestamp");
  k->steering = any_column(c, "steering", "steering_angle_norm", "angle");
  k->speed = any_column(c, "speed", "velocity", NULL);
  k->throttle = any_column(c, "throttle", NULL, NULL);
  k->brake = any_column(c, "brake", NULL, NULL);
  bool labels = k->steering >= 0 || k->speed >= 0;
  if (k->time >= 0 && labels) return DJ_OK;
  const char *near = dj__csv_nearest(c, k->time < 0 ? "time" : "steering");
  if (!near && k->time >= 0) near = dj__csv_nearest(c, "speed");
  return dj_error(DJ_E_FORMAT, "%s:%zu: %s in the header%s%.40s%s", c->name, c->line,
                  k->time < 0 ? "no column 'time' (seconds from the first frame)"
                              : "neither a column 'steering' nor 'speed'",
                  near ? "; is it '" : "", near ? near : "", near ? "'?" : "");
}

static dj_status optional(const dj__csv *c, int column, const char *what, double *v) {
  *v = NAN;
  return column < 0 ? DJ_OK : dj__csv_number(c, column, what, v);
}

static dj_status import_row(dj__import *im, const dj__csv *c, const columns *k, uint64_t *last) {
  double time, speed;
  uint64_t t;
  dj_control u = {.steering_angle = NAN};
  DJ_TRY(dj__csv_number(c, k->time, "time", &time));
  DJ_TRY(optional(c, k->steering, "steering", &u.steering));
  DJ_TRY(optional(c, k->speed, "speed", &speed));
  DJ_TRY(optional(c, k->throttle, "throttle", &u.throttle));
  DJ_TRY(optional(c, k->brake, "brake", &u.brake));
  if (!dj__seconds_to_ns(time, &t))
    return dj_error(DJ_E_FORMAT, "%s:%zu: %g is no time in seconds", c->name, c->line, time);
  if (im->any && t < *last)
    return dj_error(DJ_E_FORMAT, "%s:%zu: time runs backwards: %g s after %g s", c->name, c->line,
                    time, (double)*last * 1e-9);
  dj_speed v = {t, speed};
  u.t_ns = t;
  dj_status s = dj__check_control(DJ_E_FORMAT, &u); // before any of the row is written
  if (!s) s = dj__check_speed(DJ_E_FORMAT, &v);
  if (s) return dj_error_context(s, "%s:%zu", c->name, c->line);
  *last = t;
  if (k->steering >= 0) DJ_TRY(dj__import_control(im, &u));
  if (k->speed >= 0) DJ_TRY(dj__import_speed(im, &v));
  return DJ_OK;
}

static dj_status import_table(dj__import *im, const char *path) {
  dj__csv c;
  columns k = {-1, -1, -1, -1, -1};
  uint64_t last = 0;
  DJ_TRY(dj__csv_open(path, &c));
  dj_status s = read_header(&c, &k);
  while (!s) {
    s = dj__csv_next(&c);
    if (s == DJ_E_END) break;
    if (!s) s = import_row(im, &c, &k, &last);
    if (s) s = dj__import_bad(im, s);
  }
  dj__csv_close(&c);
  return s == DJ_E_END ? DJ_OK : s;
}

static dj_status import_frames(dj__import *im, dj__video_source *v) {
  const dj__video_info *info = dj__video_source_info(v);
  dj__video_frame f;
  dj_status s;
  while ((s = dj__video_source_next(v, &f)) != DJ_E_END) {
    if (s) {
      DJ_TRY(dj__import_bad(im, s));
      continue;
    }
    DJ_TRY(strcmp(info->format, "jpeg") == 0
               ? dj__import_image(im, 0, f.t_ns, "jpeg", f.data, f.size)
               : dj__import_video(im, 0, f.t_ns, info->format, f.data, f.size));
    dj_progress(im->info.name, f.index + 1, info->n_frames, "frames", NULL);
  }
  return DJ_OK;
}

static dj_status run(dj__import *im) {
  char *video, *csv;
  find_pair(im->path, &video, &csv);
  dj__video_source *v = NULL;
  dj_status s = video && csv
                    ? dj__video_source_open(video, &v)
                    : dj_error(DJ_E_NOT_FOUND, "%s: no video with a CSV beside it", im->path);
  if (!s) {
    const dj__video_info *info = dj__video_source_info(v);
    dj__camera_guess(&im->info.cameras[0], "front", info->width, info->height, 70, 0, 0, 1.3, 0);
    im->info.n_cameras = 1;
    s = dj__import_begin(im);
  }
  if (!s) s = import_table(im, csv);
  if (!s) s = import_frames(im, v);
  dj__video_source_close(v);
  free(video);
  free(csv);
  return s;
}

const dj__importer dj__import_video_csv = {
    .name = "video-csv",
    .summary = "any video with a CSV of time, steering, speed beside it",
    .probe = probe,
    .files = files,
    .drive_name = drive_name,
    .run = run,
    .version = 1,
};
