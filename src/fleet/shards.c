#include "fleet/shards.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/fs.h"
#include "dojo/log.h"
#include "drive/labels.h"
#include "fleet/resample.h"

/* Raise when what a shard holds changes: pixels, labels or layout. */
static const char shard_version[] = "dojo shard 2";
/* Another camera's picture further away in time than this is no picture of the same moment. */
static const double max_camera_skew_s = 0.25;
enum { MAX_SIDE = 8192 };

dj_status dj__shard_spec_from(const dj_data_spec *spec, dj__shard_spec *out) {
  if (spec->width < 1 || spec->width > MAX_SIDE || spec->height < 1 || spec->height > MAX_SIDE)
    return dj_error(DJ_E_INVALID, "dataset: frames of %dx%d; each side must be 1 to %d",
                    spec->width, spec->height, MAX_SIDE);
  const float crop[4] = {spec->crop_left, spec->crop_top, spec->crop_right, spec->crop_bottom};
  for (int i = 0; i < 4; i++)
    if (!(crop[i] >= 0 && crop[i] <= 0.9f))
      return dj_error(DJ_E_INVALID, "dataset: crop of %g; it must be from 0 to 0.9",
                      (double)crop[i]);
  if (!(crop[0] + crop[2] < 0.95f && crop[1] + crop[3] < 0.95f))
    return dj_error(DJ_E_INVALID, "dataset: the crop leaves less than 5 %% of the picture");
  if (!(spec->margin_x >= 0 && spec->margin_x <= 0.5f))
    return dj_error(DJ_E_INVALID, "dataset: margin_x is %g; it must be from 0 to 0.5",
                    (double)spec->margin_x);
  if (spec->n_cameras < 0 || spec->n_cameras > DJ_MAX_CAMERAS)
    return dj_error(DJ_E_INVALID, "dataset: %d cameras; at most %d", spec->n_cameras,
                    DJ_MAX_CAMERAS);
  if (!(spec->lead >= 0 && spec->lead <= 10))
    return dj_error(DJ_E_INVALID, "dataset: a lead of %g s; it must be 0 to 10",
                    (double)spec->lead);
  const double share = 1.0 - crop[0] - crop[2], pixel = share / spec->width;
  const int want = (int)lround((double)spec->margin_x * spec->width);
  const int has_left = (int)floor(crop[0] / pixel + 1e-6),
            has_right = (int)floor(crop[2] / pixel + 1e-6);
  const int left = want < has_left ? want : has_left, right = want < has_right ? want : has_right;
  *out = (dj__shard_spec){.width = spec->width + left + right,
                          .height = spec->height,
                          .margin_left = left,
                          .margin_right = right,
                          .left = crop[0] - left * pixel,
                          .right = crop[2] - right * pixel,
                          .top = crop[1],
                          .bottom = crop[3],
                          .n_cameras = spec->cameras && spec->n_cameras ? spec->n_cameras : 1,
                          .cameras = spec->n_cameras ? spec->cameras : NULL,
                          .lead = (double)spec->lead};
  return DJ_OK;
}

// ---- names and layout ---------------------------------------------------------------------------

static bool has_command(const dj_store_drive *d) {
  return (d->labels & DJ_LABEL_COMMAND) != 0;
}

static dj_status shard_digest(const dj_store_drive *d, const dj__shard_spec *spec, char hex[65]) {
  dj__digest g;
  dj__digest_init(&g);
  dj__digest_text(&g, shard_version);
  dj__digest_text(&g, d->digest);
  dj__digest_u64(&g, DJ__SHARD_FRAMES);
  const double numbers[] = {spec->width, spec->height, spec->left,
                            spec->top,   spec->right,  spec->bottom};
  dj__digest_bytes(&g, numbers, sizeof numbers);
  dj__digest_u64(&g, (uint64_t)spec->n_cameras);
  for (int i = 0; i < spec->n_cameras; i++)
    dj__digest_text(&g, spec->cameras ? spec->cameras[i] : "");
  if (has_command(d)) dj__digest_text(&g, "command");
  if (spec->lead > 0) dj__digest_bytes(&g, &spec->lead, sizeof spec->lead);
  return dj__digest_hex(&g, hex);
}

static char *shard_path(dj_store *store, const char *digest, size_t index) {
  char *name = dj__strf("%.32s-%05zu.safetensors", digest, index);
  char *path = dj_store_shard_path(store, name);
  free(name);
  return path;
}

enum { MAX_FIELDS = 12 };
typedef struct field {
  const char *name;
  dj_st_dtype dtype;
  int rank;
  uint64_t shape[5];
} field;

/* Tensors of a shard, in the order of the file: 8-byte ones first, so that all are aligned. Returns
 * how many there are. */
static int shard_fields(const dj__shard_spec *spec, bool command, size_t frames,
                        field out[MAX_FIELDS]) {
  const uint64_t n = frames, c = (uint64_t)spec->n_cameras, h = (uint64_t)spec->height,
                 w = (uint64_t)spec->width;
  const field f[MAX_FIELDS] = {
      {"t_ns", DJ_ST_I64, 1, {n}},
      {"pose", DJ_ST_F64, 2, {n, 7}},
      {"camera", DJ_ST_F64, 2, {c, DJ__VIEW_DOUBLES}},
      {"pose_mask", DJ_ST_F32, 1, {n}},
      {"control", DJ_ST_F32, 2, {n, 3}},
      {"control_mask", DJ_ST_F32, 2, {n, 3}},
      {"speed", DJ_ST_F32, 1, {n}},
      {"speed_mask", DJ_ST_F32, 1, {n}},
      {"path", DJ_ST_F32, 3, {n, DJ_PATH_POINTS, 3}},
      {"path_mask", DJ_ST_F32, 2, {n, DJ_PATH_POINTS}},
      {"image", DJ_ST_U8, 5, {n, c, h, w, 3}},
      {"command", DJ_ST_F32, 1, {n}},
  };
  memcpy(out, f, sizeof f);
  if (!command) return MAX_FIELDS - 1;
  out[MAX_FIELDS - 2] = f[MAX_FIELDS - 1]; // the image stays the last one
  out[MAX_FIELDS - 1] = f[MAX_FIELDS - 2];
  return MAX_FIELDS;
}

// ---- reading ------------------------------------------------------------------------------------

static dj_status map_shard(const char *path, const char *digest, const dj__shard_spec *spec,
                           bool command, size_t frames, dj__shard *out) {
  *out = (dj__shard){.n = frames};
  DJ_TRY(dj_safetensors_open(path, &out->file));
  const char *have = dj_safetensors_metadata(out->file, "digest");
  dj_status s = have && !strcmp(have, digest)
                    ? DJ_OK
                    : dj_error(DJ_E_FORMAT, "%s: made from other inputs", path);
  field f[MAX_FIELDS];
  const dj_st_tensor *t[MAX_FIELDS] = {0};
  int n = shard_fields(spec, command, frames, f);
  for (int i = 0; i < n && !s; i++)
    s = dj_safetensors_expect(out->file, f[i].name, f[i].dtype, f[i].rank, f[i].shape, &t[i]);
  if (s) {
    dj_safetensors_close(out->file);
    *out = (dj__shard){0};
    return s;
  }
  out->t_ns = t[0]->data;
  out->pose = t[1]->data;
  out->pose_mask = t[3]->data;
  out->control = t[4]->data;
  out->control_mask = t[5]->data;
  out->speed = t[6]->data;
  out->speed_mask = t[7]->data;
  out->path = t[8]->data;
  out->path_mask = t[9]->data;
  out->command = command ? t[10]->data : NULL;
  out->image = t[n - 1]->data;
  return DJ_OK;
}

// ---- making -------------------------------------------------------------------------------------

typedef struct builder { // one drive; the log is opened when the first shard is found missing
  const dj_store_drive *drive;
  const dj__shard_spec *spec;
  const char *digest;
  char *log_path;
  dj_drive *log;
  int camera[DJ_MAX_CAMERAS];
  const uint64_t *t_ns[DJ_MAX_CAMERAS]; // frame times of each camera asked for
  size_t n[DJ_MAX_CAMERAS];
  const uint64_t *frame_ns; // of the drive's first camera: the frames that clips count
  size_t n_frames;
  dj__view view[DJ_MAX_CAMERAS];
  dj__resample *resample[DJ_MAX_CAMERAS];
  uint8_t *source[DJ_MAX_CAMERAS]; // decoded frame
  uint8_t *picture;                // (H, W, 3)
  dj__labels labels;
  float *command; // (n_frames) dj_route_command; NULL: the drive holds none
} builder;

static void close_builder(builder *b) {
  dj__labels_free(&b->labels);
  free(b->command);
  for (int i = 0; i < DJ_MAX_CAMERAS; i++) {
    dj__resample_free(b->resample[i]);
    free(b->source[i]);
  }
  free(b->picture);
  dj_drive_close(b->log);
  free(b->log_path);
}

static dj_status find_camera(const builder *b, const dj_drive_info *info, int i, int *index) {
  *index = 0;
  if (!b->spec->cameras) return DJ_OK;
  for (int k = 0; k < info->n_cameras; k++) {
    if (strcmp(info->cameras[k].name, b->spec->cameras[i]) != 0) continue;
    *index = k;
    return DJ_OK;
  }
  return dj_error(DJ_E_NOT_FOUND, "drive '%s': no camera '%s'", b->drive->name,
                  b->spec->cameras[i]);
}

static void quaternion_matrix(const double q_in[4], double m[9]) {
  double n2 = 0, q[4];
  for (int i = 0; i < 4; i++) n2 += q_in[i] * q_in[i];
  for (int i = 0; i < 4; i++) q[i] = q_in[i] / sqrt(n2);
  const double x = q[0], y = q[1], z = q[2], w = q[3];
  const double r[9] = {1 - 2 * (y * y + z * z), 2 * (x * y - z * w),     2 * (x * z + y * w),
                       2 * (x * y + z * w),     1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
                       2 * (x * z - y * w),     2 * (y * z + x * w),     1 - 2 * (x * x + y * y)};
  memcpy(m, r, sizeof r);
}

/* The camera as seen through crop and resize. Pixel centres lie at whole numbers before and after.
 */
static void make_view(const dj_camera *c, const double box[4], int out_w, int out_h, dj__view *v) {
  const double sx = out_w / (box[2] - box[0]), sy = out_h / (box[3] - box[1]);
  memcpy(v->K, c->K, sizeof v->K);
  v->K[0] *= sx;
  v->K[1] *= sx;
  v->K[2] = (c->K[2] + 0.5 - box[0]) * sx - 0.5;
  v->K[4] *= sy;
  v->K[5] = (c->K[5] + 0.5 - box[1]) * sy - 0.5;
  quaternion_matrix(c->rotation, v->rotation);
  memcpy(v->position, c->position, sizeof v->position);
  v->calibrated = c->calibrated ? 1 : 0;
}

static dj_status open_camera(builder *b, const dj_drive_info *info, int i) {
  DJ_TRY(find_camera(b, info, i, &b->camera[i]));
  const dj_camera *c = &info->cameras[b->camera[i]];
  DJ_TRY(dj_drive_frame_times(b->log, b->camera[i], &b->t_ns[i], &b->n[i]));
  const double w = c->width, h = c->height;
  const double box[4] = {b->spec->left * w, b->spec->top * h, w - b->spec->right * w,
                         h - b->spec->bottom * h};
  make_view(c, box, b->spec->width, b->spec->height, &b->view[i]);
  DJ_TRY(dj__resample_new(c->width, c->height, box[0], box[1], box[2], box[3], b->spec->width,
                          b->spec->height, &b->resample[i]));
  b->source[i] = malloc((size_t)c->width * (size_t)c->height * 3);
  return b->source[i] ? DJ_OK
                      : dj_error(DJ_E_NOMEM, "%s: no memory for a frame of %dx%d", b->log_path,
                                 c->width, c->height);
}

/* The command in force at each frame: the last one said, "follow" before the first. */
static dj_status open_commands(builder *b) {
  const uint64_t *t_ns;
  size_t n, next = 0;
  DJ_TRY(dj_drive_label_times(b->log, DJ_LABEL_COMMAND, &t_ns, &n));
  b->command = calloc(b->n_frames + 1, sizeof *b->command);
  if (!b->command) return dj_error(DJ_E_NOMEM, "%s: no memory for commands", b->log_path);
  float now = DJ_COMMAND_FOLLOW;
  for (size_t i = 0; i < b->n_frames; i++) {
    for (; next < n && t_ns[next] <= b->frame_ns[i]; next++) {
      dj_route r;
      DJ_TRY(dj_drive_read_route(b->log, next, &r));
      now = (float)r.command;
    }
    b->command[i] = now;
  }
  return DJ_OK;
}

static dj_status open_labels(builder *b) {
  dj__label_source src = {.lead = b->spec->lead};
  DJ_TRY(dj_drive_controls(b->log, &src.controls, &src.n_controls));
  DJ_TRY(dj_drive_speeds(b->log, &src.speeds, &src.n_speeds));
  DJ_TRY(dj_drive_poses(b->log, &src.poses, &src.n_poses));
  DJ_TRY(dj__labels_make(&src, b->frame_ns, b->n_frames, &b->labels));
  return has_command(b->drive) ? open_commands(b) : DJ_OK;
}

static dj_status open_log(builder *b) {
  if (b->log) return DJ_OK;
  char now[65];
  DJ_TRY(dj__digest_file(b->log_path, now, NULL));
  if (strcmp(now, b->drive->digest) != 0)
    return dj_error(DJ_E_STATE,
                    "%s: the log has changed since it was added; run 'dojo store rebuild'",
                    b->log_path);
  DJ_TRY(dj_drive_open(b->log_path, &b->log));
  const dj_drive_info *info = dj_drive_get_info(b->log);
  DJ_TRY(dj_drive_frame_times(b->log, 0, &b->frame_ns, &b->n_frames));
  for (int i = 0; i < b->spec->n_cameras; i++) DJ_TRY(open_camera(b, info, i));
  b->picture = malloc((size_t)b->spec->width * (size_t)b->spec->height * 3);
  if (!b->picture) return dj_error(DJ_E_NOMEM, "%s: no memory for a frame", b->log_path);
  return open_labels(b);
}

/* The frame of camera i nearest to time t. */
static dj_status nearest_frame(const builder *b, int i, uint64_t t, size_t *index) {
  size_t lo = 0, hi = b->n[i];
  while (lo < hi) { // first at or after t
    size_t mid = lo + (hi - lo) / 2;
    if (b->t_ns[i][mid] < t)
      lo = mid + 1;
    else
      hi = mid;
  }
  double best = INFINITY;
  for (size_t k = lo ? lo - 1 : 0; k < b->n[i] && k <= lo; k++) {
    double d = fabs((double)(int64_t)(b->t_ns[i][k] - t)) * 1e-9;
    if (d >= best) continue;
    best = d;
    *index = k;
  }
  if (best <= max_camera_skew_s) return DJ_OK;
  return dj_error(DJ_E_FORMAT,
                  "%s: camera %s has no picture within %g s of %.3f s (the first camera has one)",
                  b->log_path, dj_drive_get_info(b->log)->cameras[b->camera[i]].name,
                  max_camera_skew_s, (double)t * 1e-9);
}

static dj_status write_images(builder *b, FILE *out, size_t first, size_t n) {
  const size_t bytes = (size_t)b->spec->width * (size_t)b->spec->height * 3;
  char *what = dj__strf("making shards of %s", b->drive->name);
  dj_status s = DJ_OK;
  for (size_t k = first; k < first + n && !s; k++) {
    for (int i = 0; i < b->spec->n_cameras && !s; i++) {
      size_t index = k;
      if (b->camera[i] > 0) s = nearest_frame(b, i, b->frame_ns[k], &index);
      if (!s) s = dj_drive_read_frame(b->log, b->camera[i], index, b->source[i]);
      if (s) break;
      dj__resample_run(b->resample[i], b->source[i], b->picture);
      if (fwrite(b->picture, 1, bytes, out) != bytes)
        s = dj_error_errno("cannot write frame %zu", k);
    }
    dj_progress(what, k + 1, b->n_frames, "frames", NULL);
  }
  free(what);
  return s;
}

static dj_status write_small(const builder *b, FILE *out, const field *f, int n_fields,
                             size_t first, size_t n) {
  const dj__labels *l = &b->labels;
  const struct {
    const char *name;
    const void *data;
  } columns[] = {{"t_ns", b->frame_ns + first},
                 {"pose", l->pose + first * 7},
                 {"camera", b->view},
                 {"pose_mask", l->pose_mask + first},
                 {"control", l->control + first * 3},
                 {"control_mask", l->control_mask + first * 3},
                 {"speed", l->speed + first},
                 {"speed_mask", l->speed_mask + first},
                 {"path", l->path + first * DJ_PATH_POINTS * 3},
                 {"path_mask", l->path_mask + first * DJ_PATH_POINTS},
                 {"command", b->command ? b->command + first : NULL}};
  _Static_assert(sizeof columns / sizeof *columns == MAX_FIELDS - 1, "all but the image");
  for (int i = 0; i < n_fields - 1; i++) {
    size_t bytes = dj_st_dtype_size(f[i].dtype);
    for (int k = 0; k < f[i].rank; k++) bytes *= f[i].shape[k];
    if (bytes && fwrite(columns[i].data, 1, bytes, out) != bytes)
      return dj_error_errno("cannot write %s of %zu frames", columns[i].name, n);
  }
  return DJ_OK;
}

static dj_status write_shard(builder *b, const char *path, size_t first, size_t n) {
  dj__atomic a;
  DJ_TRY(dj__atomic_open(&a, path));
  field f[MAX_FIELDS];
  dj_st_tensor t[MAX_FIELDS];
  int n_fields = shard_fields(b->spec, has_command(b->drive), n, f);
  for (int i = 0; i < n_fields; i++) {
    t[i] = (dj_st_tensor){.name = f[i].name, .dtype = f[i].dtype, .rank = f[i].rank};
    memcpy(t[i].shape, f[i].shape, (size_t)f[i].rank * sizeof *f[i].shape);
  }
  char at[32];
  (void)snprintf(at, sizeof at, "%zu", first);
  const dj_st_meta meta[] = {{"digest", b->digest},
                             {"drive", b->drive->name},
                             {"first_frame", at},
                             {"version", shard_version}};
  dj_status s = dj_safetensors_write_header(a.file, t, n_fields, meta, 4);
  if (!s) s = write_small(b, a.file, f, n_fields, first, n);
  if (!s) s = write_images(b, a.file, first, n);
  if (!s) return dj__atomic_commit(&a);
  dj__atomic_abort(&a);
  return dj_error_context(s, "while making a shard of drive '%s'", b->drive->name);
}

/* One process makes shards at a time; the others wait and then find them. Returns the lock's fd. */
static dj_status lock_shards(dj_store *store, int *fd) {
  char *path = dj_store_shard_path(store, ".lock");
  *fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0666);
  dj_status s = *fd < 0 ? dj_error_errno("%s: cannot create", path) : DJ_OK;
  while (!s && flock(*fd, LOCK_EX) != 0)
    if (errno != EINTR) s = dj_error_errno("%s: cannot lock", path);
  if (s && *fd >= 0) close(*fd);
  free(path);
  return s;
}

static dj_status make_shard(dj_store *store, builder *b, const char *path, size_t first, size_t n,
                            dj__shard *out) {
  const bool command = has_command(b->drive);
  int lock;
  DJ_TRY(lock_shards(store, &lock));
  dj_status s =
      map_shard(path, b->digest, b->spec, command, n, out); // made by another in the meantime?
  if (s) {
    if (s != DJ_E_NOT_FOUND) dj_message(DJ_LOG_WARN, "made again: %s", dj_error_message());
    s = open_log(b);
    if (!s && b->n_frames < first + n)
      s = dj_error(DJ_E_STATE,
                   "%s: %zu frames, the catalogue says %" PRIu64 "; run 'dojo store rebuild'",
                   b->log_path, b->n_frames, b->drive->n_frames);
    if (!s) s = write_shard(b, path, first, n);
    if (!s) s = map_shard(path, b->digest, b->spec, command, n, out);
  }
  close(lock);
  return s;
}

// ---- all shards of a drive
// ------------------------------------------------------------------------

static dj_status open_all(dj_store *store, builder *b, dj__shard_set *set) {
  for (size_t i = 0; i < set->n_shards; i++) {
    const size_t first = i * DJ__SHARD_FRAMES, left = set->n_frames - first;
    const size_t n = left < DJ__SHARD_FRAMES ? left : DJ__SHARD_FRAMES;
    char *path = shard_path(store, b->digest, i);
    dj_status s = map_shard(path, b->digest, b->spec, has_command(b->drive), n, &set->shards[i]);
    if (s) s = make_shard(store, b, path, first, n, &set->shards[i]);
    free(path);
    if (s) return s;
  }
  memcpy(set->views, dj_safetensors_find(set->shards[0].file, "camera")->data,
         (size_t)set->n_cameras * sizeof *set->views);
  return DJ_OK;
}

dj_status dj__shard_set_open(dj_store *store, const dj_store_drive *drive,
                             const dj__shard_spec *spec, dj__shard_set *out) {
  *out = (dj__shard_set){.n_frames = drive->n_frames,
                         .n_shards = (drive->n_frames + DJ__SHARD_FRAMES - 1) / DJ__SHARD_FRAMES,
                         .n_cameras = spec->n_cameras};
  if (drive->n_frames == 0)
    return dj_error(DJ_E_NOT_FOUND, "drive '%s' has no frames", drive->name);
  char digest[65];
  DJ_TRY(shard_digest(drive, spec, digest));
  out->shards = calloc(out->n_shards, sizeof *out->shards);
  out->views = calloc((size_t)spec->n_cameras, sizeof *out->views);
  builder b = {.drive = drive,
               .spec = spec,
               .digest = digest,
               .log_path = dj_store_log_path(store, drive->name)};
  dj_status s = out->shards && out->views && b.log_path
                    ? open_all(store, &b, out)
                    : dj_error(DJ_E_NOMEM, "drive '%s': no memory for %zu shards", drive->name,
                               out->n_shards);
  close_builder(&b);
  if (s) dj__shard_set_close(out);
  return s;
}

void dj__shard_set_close(dj__shard_set *s) {
  for (size_t i = 0; s->shards && i < s->n_shards; i++) dj_safetensors_close(s->shards[i].file);
  free(s->shards);
  free(s->views);
  *s = (dj__shard_set){0};
}
