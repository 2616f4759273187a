/* What all importers share: source files and their digest, checked frames, counting, camera
 * guesses. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "dojo/log.h"
#include "fleet/image.h"
#include "fleet/importers/importer.h"

enum {
  MAX_DEPTH = 16,
  MAX_FOLDERS = 4096,
  MAX_FILES = 4 * 1000 * 1000,

  TELL = 10
};

// ---- source files and digest
// -------------------------------------------------------------------------

dj_status dj__source_add(dj__source_files *f, const char *path, const char *name) {
  if (f->n == f->cap) {
    size_t cap = f->cap ? f->cap * 2 : 256;
    dj__source_file *grown = cap <= MAX_FILES ? realloc(f->items, cap * sizeof *grown) : NULL;
    if (!grown) return dj_error(DJ_E_LIMIT, "%s: more than %zu files in one source", path, f->n);
    f->items = grown;
    f->cap = cap;
  }
  f->items[f->n++] = (dj__source_file){dj__strf("%s", path), dj__strf("%s", name)};
  return DJ_OK;
}

// Folders that a walk has been in. Links are followed, so the same folder may be met again, or lead
// round in a circle: it counts once, under the first of its names.
typedef struct visited {
  struct {
    dev_t dev;
    ino_t ino;
  } folders[MAX_FOLDERS];
  size_t n;
} visited;

static dj_status visit(visited *v, const char *folder, bool *again) {
  struct stat st;
  *again = false;
  if (stat(folder, &st) != 0) return dj_error_errno("%s: cannot look at it", folder);
  for (size_t i = 0; i < v->n && !*again; i++)
    *again = v->folders[i].dev == st.st_dev && v->folders[i].ino == st.st_ino;
  if (*again) return DJ_OK;
  if (v->n == MAX_FOLDERS)
    return dj_error(DJ_E_LIMIT, "%s: more than %d folders in one source", folder, MAX_FOLDERS);
  v->folders[v->n].dev = st.st_dev;
  v->folders[v->n++].ino = st.st_ino;
  return DJ_OK;
}

static dj_status add_tree(dj__source_files *f, visited *v, const char *folder, const char *prefix,
                          int depth) {
  bool again;
  if (depth > MAX_DEPTH)
    return dj_error(DJ_E_LIMIT, "%s: folders lie more than %d deep", folder, MAX_DEPTH);
  DJ_TRY(visit(v, folder, &again));
  if (again) return DJ_OK;
  char **names;
  size_t n;
  DJ_TRY(dj__list_dir(folder, &names, &n));
  dj_status s = DJ_OK;
  for (size_t i = 0; i < n && !s; i++) {
    if (names[i][0] == '.') continue;
    char *path = dj__join(folder, names[i]);
    char *name = *prefix ? dj__join(prefix, names[i]) : dj__strf("%s", names[i]);
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
      s = add_tree(f, v, path, name, depth + 1);
    else if (dj__file_size(path) >= 0)
      s = dj__source_add(f, path, name);
    free(path);
    free(name);
  }
  dj__free_names(names, n);
  return s;
}

dj_status dj__source_add_tree(dj__source_files *f, const char *folder, const char *prefix) {
  visited *v = calloc(1, sizeof *v);
  if (!v) return dj_error(DJ_E_NOMEM, "%s: no memory to walk it", folder);
  dj_status s = add_tree(f, v, folder, prefix, 0);
  free(v);
  return s;
}

void dj__source_free(dj__source_files *f) {
  for (size_t i = 0; i < f->n; i++) {
    free(f->items[i].path);
    free(f->items[i].name);
  }
  free(f->items);
  *f = (dj__source_files){0};
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const dj__source_file *)a)->name, ((const dj__source_file *)b)->name);
}

static dj_status add_file(dj__digest *d, const dj__source_file *f) {
  dj__file_map map;
  DJ_TRY(dj__file_map_open(f->path, &map));
  dj__digest_text(d, f->name);
  dj__digest_u64(d, map.size);
  dj__digest_bytes(d, map.data, map.size);
  dj__file_map_close(&map);
  return DJ_OK;
}

dj_status dj__source_digest(const dj__importer *importer, const char *path, char hex[65]) {
  dj__source_files f = {0};
  dj__digest d;
  dj__digest_init(&d);
  dj_status s = importer->files ? importer->files(path, &f) : dj__source_add_tree(&f, path, "");
  if (f.n) qsort(f.items, f.n, sizeof *f.items, by_name);
  dj__digest_text(&d, importer->name);
  dj__digest_u64(&d, (uint64_t)importer->version);
  for (size_t i = 0; i < f.n && !s; i++) {
    s = add_file(&d, &f.items[i]);
    if (f.n > 1) dj_progress("looking at the source", i + 1, f.n, "files", NULL);
  }
  dj__source_free(&f);
  dj_status end = dj__digest_hex(&d, hex);
  return s ? s : end;
}

// ---- import
// --------------------------------------------------------------------------------------------

dj_status dj__import_begin(dj__import *im) {
  im->report->n_cameras = im->info.n_cameras;
  return dj_drive_writer_open(im->log_path, &im->info, &im->w);
}

// The record's fault, not the machine's: these may be skipped.
static bool is_record_fault(dj_status s) {
  return s == DJ_E_FORMAT || s == DJ_E_NOT_FOUND || s == DJ_E_LIMIT || s == DJ_E_INVALID ||
         s == DJ_E_UNSUPPORTED;
}

dj_status dj__import_bad(dj__import *im, dj_status s) {
  if (!s || !im->keep_going || !is_record_fault(s)) return s;
  im->report->n_skipped++;
  if (im->n_warned++ < TELL)
    dj_message(DJ_LOG_WARN, "skipped: %s", dj_error_message());
  else if (im->n_warned == TELL + 1)
    dj_message(DJ_LOG_WARN, "further skipped records are only counted");
  return DJ_OK;
}

dj_status dj__import_image_size(char *const *paths, size_t n, int *w, int *h) {
  dj_status first = DJ_OK;
  char text[1024] = "";
  *w = *h = 0;
  for (size_t i = 0; i < n; i++) {
    dj__file_map map;
    dj_status s = dj__file_map_open(paths[i], &map);
    if (!s) {
      s = dj__image_size(map.data, map.size, w, h);
      if (s) s = dj_error_context(s, "%s", paths[i]);
      dj__file_map_close(&map);
      if (!s) return DJ_OK;
    }
    if (!first) (void)strncpy(text, dj_error_message(), sizeof text - 1);
    if (!first) first = s;
  }
  return first ? dj_error(first, "%s", text) : dj_error(DJ_E_NOT_FOUND, "there are no pictures");
}

static void note_time(dj__import *im, uint64_t t_ns) {
  if (!im->any || t_ns < im->first_ns) im->first_ns = t_ns;
  if (!im->any || t_ns > im->end_ns) im->end_ns = t_ns;
  im->any = true;
}

dj_status dj__import_image(dj__import *im, int camera, uint64_t t_ns, const char *format,
                           const void *data, size_t size) {
  DJ_TRY(dj_drive_write_image(im->w, camera, t_ns, format, data, size));
  note_time(im, t_ns);
  im->last_ns[camera] = t_ns;
  im->report->n_frames++;
  return DJ_OK;
}

dj_status dj__import_video(dj__import *im, int camera, uint64_t t_ns, const char *format,
                           const void *data, size_t size) {
  DJ_TRY(dj_drive_write_video(im->w, camera, t_ns, format, data, size));
  note_time(im, t_ns);
  im->last_ns[camera] = t_ns;
  im->report->n_frames++;
  return DJ_OK;
}

dj_status dj__import_control(dj__import *im, const dj_control *c) {
  DJ_TRY(dj_drive_write_control(im->w, c));
  note_time(im, c->t_ns);
  im->report->n_controls++;
  return DJ_OK;
}

dj_status dj__import_speed(dj__import *im, const dj_speed *v) {
  DJ_TRY(dj_drive_write_speed(im->w, v));
  note_time(im, v->t_ns);
  im->report->n_speeds++;
  return DJ_OK;
}

dj_status dj__import_pose(dj__import *im, const dj_pose *p) {
  DJ_TRY(dj_drive_write_pose(im->w, p));
  note_time(im, p->t_ns);
  im->report->n_poses++;
  return DJ_OK;
}

dj_status dj__import_drive(const dj__importer *importer, const char *path, const char *name,
                           const char *digest, const char *log_path, bool keep_going,
                           dj_ingest_drive *report) {
  dj__import im = {.path = path, .log_path = log_path, .keep_going = keep_going, .report = report};
  (void)snprintf(im.info.name, sizeof im.info.name, "%s", name);
  (void)snprintf(im.info.format, sizeof im.info.format, "%s", importer->name);
  (void)snprintf(im.info.source_digest, sizeof im.info.source_digest, "%s", digest);
  (void)snprintf(im.info.source, sizeof im.info.source, "%s", report->source);
  dj_status s = importer->run(&im);
  if (!s && !im.any) s = dj_error(DJ_E_FORMAT, "%s: nothing in it could be imported", path);
  if (!s) {
    s = dj_drive_writer_close(im.w, report->n_skipped);
    im.w = NULL;
  }
  dj_drive_writer_abort(im.w);
  report->duration_s = im.any ? (double)(im.end_ns - im.first_ns) * 1e-9 : 0;
  report->labels = im.labels | (report->n_controls ? DJ_LABEL_CONTROL : 0u) |
                   (report->n_speeds ? DJ_LABEL_SPEED : 0u) |
                   (report->n_poses > 1 ? DJ_LABEL_PATH : 0u);
  return s;
}

// ---- geometry and times
// ------------------------------------------------------------------------------

void dj__camera_guess(dj_camera *c, const char *name, int w, int h, double view_deg, double x,
                      double y, double z, double pitch_down_deg) {
  *c = (dj_camera){.width = w, .height = h, .position = {x, y, z}};
  (void)strncpy(c->name, name, sizeof c->name - 1);
  double f = 0.5 * w / tan(0.5 * view_deg * M_PI / 180);
  double K[9] = {f, 0, 0.5 * w, 0, f, 0.5 * h, 0, 0, 1};
  memcpy(c->K, K, sizeof K);
  // Optical axes (right, down, forward) in the vehicle frame (forward, left, up) are the quaternion
  // (-1/2, 1/2, -1/2, 1/2); looking down is then a negative turn about the optical x axis.
  double a = -0.5 * pitch_down_deg * M_PI / 180, s = sin(a), k = cos(a);
  double q[4] = {-0.5, 0.5, -0.5, 0.5};
  c->rotation[0] = q[3] * s + q[0] * k;
  c->rotation[1] = q[1] * k + q[2] * s;
  c->rotation[2] = q[2] * k - q[1] * s;
  c->rotation[3] = q[3] * k - q[0] * s;
}

bool dj__seconds_to_ns(double s, uint64_t *t_ns) {
  if (!(s >= 0 && s < 8589934592.0)) return false;
  double whole = floor(s);
  *t_ns = (uint64_t)whole * 1000000000u + (uint64_t)llround((s - whole) * 1e9);
  return true;
}
