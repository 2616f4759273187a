/*
 * Importer of KITTI odometry sequences: calib.txt, poses.txt (or ../../poses/NN.txt), times.txt,
 * and one folder of numbered pictures a camera: image_0 .. image_3, or image_l and image_r.
 *
 * A pose is the left grey camera (rectified) in the frame it had at the sequence's start, 3x4
 * row-major, axes right, down, forward. Ours is the vehicle in a world whose axes are forward,
 * left, up: both are turned by the camera's mounting, and the vehicle's origin is put on the ground
 * below the camera, 1.65 m down (Geiger et al., "Vision meets robotics: the KITTI dataset", IJRR
 * 2013, figure 3).
 */
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "dojo/log.h"
#include "fleet/csv.h"
#include "fleet/importers/importer.h"
#include "fleet/importers/matrix.h"

#define CAMERA_HEIGHT 1.65 // m
#define DEFAULT_HZ    10.0
enum { N_SLOTS = 6, MAX_TEXT = 256 << 20 };

// Folders that may hold a camera: the projection matrix it uses, and what it is called here.
static const struct {
  const char *folder;
  int matrix;
  const char *name;
} slots[N_SLOTS] = {{"image_0", 0, "grey_left"},   {"image_l", 0, "grey_left"},
                    {"image_2", 2, "colour_left"}, {"image_1", 1, "grey_right"},
                    {"image_r", 1, "grey_right"},  {"image_3", 3, "colour_right"}};

#define NO_TIME UINT64_MAX // of a frame whose line was skipped

typedef struct sequence {
  dj__import *im;
  const char *path;
  double P[4][12];
  bool have_P[4];
  double *poses; // (n_poses, 12); NaN where the line was skipped
  size_t n_poses;
  uint64_t *times; // (n_times) ns
  size_t n_times;
  uint64_t last_time;
  char *poses_path;
  int slot[DJ_MAX_CAMERAS]; // of each camera
  size_t n_frames;
  double M[9]; // camera axes to vehicle axes
} sequence;

static int probe(const char *path) {
  int score = 0;
  char *calib = dj__join(path, "calib.txt");
  for (int i = 0; i < N_SLOTS; i++) {
    char *folder = dj__join(path, slots[i].folder);
    if (dj__is_dir(folder)) score = 30;
    free(folder);
  }
  if (score && dj__file_size(calib) > 0) score = 80;
  free(calib);
  return score;
}

static char *find_poses(const char *path) {
  char *own = dj__join(path, "poses.txt");
  if (dj__exists(own)) return own;
  free(own);
  char *whole = realpath(path, NULL);
  const char *base = whole ? strrchr(whole, '/') : NULL;
  char *shared = base ? dj__strf("%s/../../poses/%s.txt", whole, base + 1) : NULL;
  free(whole);
  if (shared && dj__exists(shared)) return shared;
  free(shared);
  return NULL;
}

static dj_status files(const char *path, dj__source_files *f) {
  char *poses = find_poses(path);
  dj_status s = poses ? dj__source_add(f, poses, "poses.txt") : DJ_OK;
  free(poses);
  return s ? s : dj__source_add_tree(f, path, "sequence");
}

static void drive_name(const char *path, char *out, size_t size) {
  char *whole = realpath(path, NULL);
  const char *base = whole ? strrchr(whole, '/') : NULL;
  base = base ? base + 1 : "sequence";
  bool number = strspn(base, "0123456789") == strlen(base);
  (void)snprintf(out, size, "%s%s", number ? "kitti-" : "", base);
  free(whole);
}

// ---- text files of numbers
// -------------------------------------------------------------------------------

// Calls `take` with the numbers of each line (a "P0:" in front aside: its text is `tag`).
typedef dj_status take_fn(void *user, size_t line, const char *tag, const double *v, int n);

static dj_status cut_line(const char *path, size_t line, char *text, take_fn *take, void *user) {
  enum { MAX = 32 };
  double v[MAX];
  int n = 0;
  char tag[16] = "", *save = NULL;
  for (char *word = strtok_r(text, " \t\r", &save); word; word = strtok_r(NULL, " \t\r", &save)) {
    size_t length = strlen(word);
    if (!n && !tag[0] && word[length - 1] == ':' && length < sizeof tag) {
      memcpy(tag, word, length - 1);
      tag[length - 1] = 0;
      continue;
    }
    if (n == MAX || !dj__parse_number(word, &v[n]))
      return dj_error(DJ_E_FORMAT, "%s:%zu: '%.40s' is not a finite number, or one too many", path,
                      line, word);
    n++;
  }
  dj_status s = n || tag[0] ? take(user, line, tag, v, n) : DJ_OK;
  return s ? dj_error_context(s, "%s:%zu", path, line) : DJ_OK;
}

// `skip` (may be NULL) puts a placeholder where a broken line was passed over: a line is a frame's.
static dj_status read_lines(const char *path, take_fn *take, dj_status (*skip)(sequence *),
                            sequence *q) {
  char *data;
  size_t size;
  DJ_TRY(dj__read_file(path, MAX_TEXT, &data, &size));
  dj_status s = DJ_OK;
  if (memchr(data, 0, size)) s = dj_error(DJ_E_FORMAT, "%s: NUL byte in a text file", path);
  size_t line = 1;
  for (char *p = data; p && *p && !s; line++) {
    char *lf = strchr(p, '\n');
    if (lf) *lf = 0;
    s = cut_line(path, line, p, take, q);
    if (s && skip) {
      s = dj__import_bad(q->im, s);
      if (!s) s = skip(q);
    }
    p = lf ? lf + 1 : NULL;
  }
  free(data);
  return s;
}

static dj_status take_calib(void *user, size_t line, const char *tag, const double *v, int n) {
  sequence *q = user;
  if (tag[0] && tag[0] != 'P') return DJ_OK;     // Tr: the laser scanner
  int k = tag[0] ? tag[1] - '0' : (int)line - 1; // without tags: P0, P1, ... by line
  if (k < 0 || k > 3 || (tag[0] && tag[2]))
    return dj_error(DJ_E_FORMAT, "'%s' is no camera of P0..P3", tag[0] ? tag : "another line");
  if (n != 12) return dj_error(DJ_E_FORMAT, "%d numbers where a 3x4 matrix has 12", n);
  if (!(v[0] > 0 && v[5] > 0))
    return dj_error(DJ_E_FORMAT, "focal lengths %g and %g must be above 0", v[0], v[5]);
  memcpy(q->P[k], v, sizeof q->P[k]);
  q->have_P[k] = true;
  return DJ_OK;
}

static dj_status grow(void *array, size_t n, size_t size) {
  if (n & (n - 1)) return DJ_OK; // full only at powers of two
  void *p;
  memcpy(&p, array, sizeof p);
  p = realloc(p, (n ? 2 * n : 1) * size);
  if (!p) return dj_error(DJ_E_NOMEM, "no memory for %zu lines", n);
  memcpy(array, &p, sizeof p);
  return DJ_OK;
}

static dj_status take_pose(void *user, size_t line, const char *tag, const double *v, int n) {
  sequence *q = user;
  (void)line;
  if (n != 12 || tag[0]) return dj_error(DJ_E_FORMAT, "%d numbers where a 3x4 pose has 12", n);
  double R[9] = {v[0], v[1], v[2], v[4], v[5], v[6], v[8], v[9], v[10]};
  if (!(dj__mat_error(R) < 1e-2))
    return dj_error(DJ_E_FORMAT, "the pose's 3x3 part is no rotation");
  DJ_TRY(grow(&q->poses, q->n_poses, 12 * sizeof *q->poses));
  memcpy(q->poses + 12 * q->n_poses++, v, 12 * sizeof *v);
  return DJ_OK;
}

static dj_status take_time(void *user, size_t line, const char *tag, const double *v, int n) {
  sequence *q = user;
  uint64_t t;
  (void)line;
  if (n != 1 || tag[0] || !dj__seconds_to_ns(v[0], &t))
    return dj_error(DJ_E_FORMAT, "a time in seconds was expected");
  if (t < q->last_time)
    return dj_error(DJ_E_FORMAT, "time runs backwards: %g s after %g s", v[0],
                    (double)q->last_time * 1e-9);
  q->last_time = t;
  DJ_TRY(grow(&q->times, q->n_times, sizeof *q->times));
  q->times[q->n_times++] = t;
  return DJ_OK;
}

static dj_status skip_pose(sequence *q) {
  DJ_TRY(grow(&q->poses, q->n_poses, 12 * sizeof *q->poses));
  q->poses[12 * q->n_poses++] = NAN;
  return DJ_OK;
}

static dj_status skip_time(sequence *q) {
  DJ_TRY(grow(&q->times, q->n_times, sizeof *q->times));
  q->times[q->n_times++] = NO_TIME;
  return DJ_OK;
}

static dj_status read_texts(sequence *q) {
  char *calib = dj__join(q->path, "calib.txt"), *times = dj__join(q->path, "times.txt");
  q->poses_path = find_poses(q->path);
  dj_status s = read_lines(calib, take_calib, NULL, q);
  if (!s && q->poses_path) s = read_lines(q->poses_path, take_pose, skip_pose, q);
  if (!s && dj__exists(times)) s = read_lines(times, take_time, skip_time, q);
  if (!s && !q->poses_path)
    dj_message(DJ_LOG_WARN, "%s: no poses.txt: frames are imported without the path label",
               q->path);
  if (!s && !q->times)
    dj_message(DJ_LOG_INFO, "%s: no times.txt: frames are laid at KITTI's 10 Hz", q->path);
  free(calib);
  free(times);
  return s;
}

// ---- pictures
// --------------------------------------------------------------------------------------------

static bool is_picture(const char *name) {
  const char *dot = strrchr(name, '.');
  return name[0] != '.' && dot && (!strcmp(dot, ".png") || !strcmp(dot, ".jpg"));
}

// Paths of a camera's pictures by name; NULL-terminated.
static dj_status list_pictures(const sequence *q, int slot, char ***paths, size_t *n) {
  char *folder = dj__join(q->path, slots[slot].folder), **names;
  size_t total;
  *paths = NULL;
  *n = 0;
  dj_status s = dj__list_dir(folder, &names, &total);
  if (!s) {
    *paths = calloc(total + 1, sizeof **paths);
    if (!*paths) s = dj_error(DJ_E_NOMEM, "%s: no memory for %zu names", folder, total);
    for (size_t i = 0; i < total && !s; i++)
      if (is_picture(names[i])) (*paths)[(*n)++] = dj__join(folder, names[i]);
    dj__free_names(names, total);
  }
  free(folder);
  return s;
}

static dj_status add_camera(dj__import *im, sequence *q, int slot, char **paths, size_t n) {
  int w, h;
  DJ_TRY(dj__import_image_size(paths, n < 32 ? n : 32, &w, &h));
  dj_camera *c = &im->info.cameras[im->info.n_cameras];
  const double *P = q->P[slots[slot].matrix];
  // P = K (1 | t): the camera sits at -t in the frame of camera 0 (rectified, so axes agree).
  double t[3] = {P[3] / P[0], P[7] / P[5], P[11]},
         at[3] = {-t[0] + P[11] * P[2] / P[0], -t[1] + P[11] * P[6] / P[5], -t[2]};
  dj__camera_guess(c, slots[slot].name, w, h, 90, 0, 0, CAMERA_HEIGHT, 0);
  c->calibrated = true;
  double K[9] = {P[0], P[1], P[2], P[4], P[5], P[6], P[8], P[9], P[10]};
  memcpy(c->K, K, sizeof K);
  double turned[3];
  dj__mat_vec(q->M, at, turned);
  for (int i = 0; i < 3; i++) c->position[i] += turned[i];
  q->slot[im->info.n_cameras++] = slot;
  return DJ_OK;
}

static dj_status find_cameras(dj__import *im, sequence *q) {
  for (int i = 0; i < N_SLOTS; i++) {
    char *folder = dj__join(q->path, slots[i].folder);
    bool there = dj__is_dir(folder), twice = false;
    free(folder);
    for (int k = 0; k < im->info.n_cameras; k++)
      twice |= !strcmp(im->info.cameras[k].name, slots[i].name);
    if (!there || twice) continue;
    if (!q->have_P[slots[i].matrix])
      return dj_error(DJ_E_FORMAT, "%s/calib.txt: no matrix P%d for the camera in %s", q->path,
                      slots[i].matrix, slots[i].folder);
    char **paths;
    size_t n;
    dj_status s = list_pictures(q, i, &paths, &n);
    if (!s && n && q->n_frames && n != q->n_frames)
      s = dj_error(DJ_E_FORMAT,
                   "%s/%s holds %zu pictures, %s %zu: the cameras of a sequence have as many; put "
                   "the missing ones back, or take the folder away to leave that camera out",
                   q->path, slots[i].folder, n, slots[q->slot[0]].folder, q->n_frames);
    if (!s && n) s = add_camera(im, q, i, paths, n);
    if (n) q->n_frames = n;
    if (paths) dj__free_names(paths, n);
    if (s) return s;
  }
  if (!im->info.n_cameras)
    return dj_error(DJ_E_FORMAT, "%s: no pictures in image_0, image_2, image_l", q->path);
  return DJ_OK;
}

// ---- writing
// ---------------------------------------------------------------------------------------------

static dj_status check_counts(dj__import *im, sequence *q) {
  size_t n = q->n_frames;
  dj_status s = DJ_OK;
  if (q->times && q->n_times != n)
    s = dj_error(DJ_E_FORMAT, "%s/times.txt: %zu times for %zu frames", q->path, q->n_times, n);
  else if (q->poses_path && q->n_poses != n)
    s = dj_error(DJ_E_FORMAT, "%s: %zu poses for %zu frames", q->poses_path, q->n_poses, n);
  if (q->times && q->n_times < q->n_frames) q->n_frames = q->n_times; // with keep_going
  return dj__import_bad(im, s);
}

static dj_status write_pose(dj__import *im, const sequence *q, size_t i, uint64_t t_ns) {
  const double *v = q->poses + 12 * i;
  double R[9] = {v[0], v[1], v[2], v[4], v[5], v[6], v[8], v[9], v[10]}, T[3] = {v[3], v[7], v[11]};
  double Mt[9], tmp[9], Rv[9], p[3], down[3] = {0, 0, CAMERA_HEIGHT}, lever[3];
  dj__mat_transpose(q->M, Mt);
  dj__mat_mul(q->M, R, tmp);
  dj__mat_mul(tmp, Mt, Rv); // vehicle to world
  dj__mat_vec(q->M, T, p);
  dj__mat_vec(Rv, down, lever);
  dj_pose pose = {.t_ns = t_ns};
  for (int k = 0; k < 3; k++) pose.position[k] = p[k] + down[k] - lever[k];
  dj__mat_to_quat(Rv, pose.rotation);
  return dj__import_pose(im, &pose);
}

// Cameras' pictures of one moment have one name: a picture missing in the middle of a folder would
// otherwise pair what does not belong together.
static dj_status same_frame(const dj__import *im, char ***paths, size_t i) {
  if (!paths[0]) return DJ_OK; // no camera
  const char *first = strrchr(paths[0][i], '/');
  for (int k = 1; first && k < im->info.n_cameras; k++) {
    const char *own = strrchr(paths[k][i], '/');
    if (own && strcmp(own, first) != 0)
      return dj_error(DJ_E_FORMAT, "frame %zu is %s in one camera and %s in another", i,
                      paths[0][i], paths[k][i]);
  }
  return DJ_OK;
}

typedef struct picture_list {
  int n_cameras;
  char ***paths; // of each camera, by frame
} picture_list;

// Picture i is camera i % n of frame i / n.
static char *picture_path(const void *user, size_t index, int *camera) {
  const picture_list *l = user;
  *camera = (int)(index % (size_t)l->n_cameras);
  return dj__strf("%s", l->paths[*camera][index / (size_t)l->n_cameras]);
}

static dj_status write_frame(dj__import *im, const sequence *q, char ***paths, size_t i,
                             dj__pictures *pictures) {
  uint64_t t = q->times ? q->times[i] : (uint64_t)llround((double)i * 1e9 / DEFAULT_HZ);
  uint8_t *data[DJ_MAX_CAMERAS] = {NULL};
  size_t size[DJ_MAX_CAMERAS] = {0};
  const char *format[DJ_MAX_CAMERAS] = {NULL};
  if (t == NO_TIME) return DJ_OK;
  dj_status s = same_frame(im, paths, i);
  if (s) return dj__import_bad(im, s);
  bool whole = true;
  const size_t first = i * (size_t)im->info.n_cameras;
  for (int k = 0; k < im->info.n_cameras && !s && whole; k++) {
    s = dj__pictures_take(pictures, first + (size_t)k, &data[k], &size[k], &format[k]);
    whole = !s;
    if (s) s = dj__import_bad(im, s);
  }
  if (!s && i < q->n_poses && !isnan(q->poses[12 * i])) s = write_pose(im, q, i, t);
  for (int k = 0; k < im->info.n_cameras && !s && whole; k++)
    s = dj__import_image(im, k, t, format[k], data[k], size[k]);
  for (int k = 0; k < im->info.n_cameras; k++) free(data[k]);
  return s;
}

static dj_status write_all(dj__import *im, sequence *q) {
  char **paths[DJ_MAX_CAMERAS] = {NULL};
  size_t n[DJ_MAX_CAMERAS] = {0};
  dj_status s = DJ_OK;
  for (int k = 0; k < im->info.n_cameras && !s; k++)
    s = list_pictures(q, q->slot[k], &paths[k], &n[k]);
  for (int k = 0; k < im->info.n_cameras && !s; k++)
    if (!paths[k] || n[k] < q->n_frames)
      s = dj_error(DJ_E_STATE, "%s: its pictures became fewer while it was read", q->path);
  const picture_list l = {im->info.n_cameras, paths};
  dj__pictures *pictures = NULL;
  if (!s) s = dj__import_begin(im);
  if (!s) s = dj__pictures_open(im, q->n_frames * (size_t)l.n_cameras, picture_path, &l, &pictures);
  for (size_t i = 0; i < q->n_frames && !s; i++) {
    s = write_frame(im, q, paths, i, pictures);
    dj_progress(im->info.name, i + 1, q->n_frames, "frames", NULL);
  }
  dj__pictures_close(pictures);
  for (int k = 0; k < im->info.n_cameras; k++)
    if (paths[k]) dj__free_names(paths[k], n[k]);
  return s;
}

static dj_status run(dj__import *im) {
  // Right, down, forward in terms of forward, left, up.
  sequence q = {.im = im, .path = im->path, .M = {0, 0, 1, -1, 0, 0, 0, -1, 0}};
  dj_status s = read_texts(&q);
  if (!s) s = find_cameras(im, &q);
  if (!s) s = check_counts(im, &q);
  if (!s) s = write_all(im, &q);
  free(q.poses);
  free(q.times);
  free(q.poses_path);
  return s;
}

const dj__importer dj__import_kitti = {
    .name = "kitti",
    .summary = "KITTI odometry sequence: calib.txt, poses.txt, times.txt, image_0 ...",
    .probe = probe,
    .files = files,
    .drive_name = drive_name,
    .run = run,
    .version = 1,
};
