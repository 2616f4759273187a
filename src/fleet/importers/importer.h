/*
 * What an importer is, and what it may use. An importer turns one recorded drive into calls of
 * dj__import_image, _control, _speed and _pose; everything around it (finding drives, digests,
 * names, the store, counting) is ingest.c's. docs/adding-a-log-format.md shows how to write one.
 */
#ifndef DOJO_FLEET_IMPORTER_H
#define DOJO_FLEET_IMPORTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "dojo/drivelog.h"
#include "dojo/ingest.h"
#include "dojo/status.h"

/* A file of a source: where it lies, and what it is called in the source. */
typedef struct dj__source_file {
  char *path, *name;
} dj__source_file;
typedef struct dj__source_files {
  dj__source_file *items;
  size_t n, cap;
} dj__source_files;
dj_status dj__source_add(dj__source_files *f, const char *path, const char *name);
/* All regular files below a folder, hidden ones aside; `prefix` goes in front of their names. */
dj_status dj__source_add_tree(dj__source_files *f, const char *folder, const char *prefix);
void dj__source_free(dj__source_files *f);

/* One import in progress. */
typedef struct dj__import {
  const char *path;     // the drive's folder or file
  const char *log_path; // where the log goes
  bool keep_going;
  dj_drive_info info; // the importer fills the cameras before dj__import_begin
  dj_drive_writer *w;
  dj_ingest_drive *report;
  uint32_t labels;   // dj_label bits beyond what the counts below tell
  uint64_t n_warned; // skipped records told one by one so far
  uint64_t last_ns[DJ_MAX_CAMERAS];
  uint64_t first_ns, end_ns;
  bool any; // something was written
} dj__import;

typedef struct dj__importer {
  const char *name;    // of the format
  const char *summary; // one line for --help
  /* 0: not mine; up to 100: how sure. Looks at names only, or at a file's first bytes. */
  int (*probe)(const char *path);
  /* The files that make the drive, for its digest. NULL: all files below the folder. */
  dj_status (*files)(const char *path, dj__source_files *f);
  /* A name for the drive (it is made fit afterwards). NULL: the folder's or file's name. */
  void (*drive_name)(const char *path, char *out, size_t size);
  dj_status (*run)(dj__import *im);
  int version; // part of the digest: raise it when the same source gives another log
} dj__importer;

extern const dj__importer dj__import_donkeycar, dj__import_udacity, dj__import_kitti,
    dj__import_comma2k19, dj__import_video_csv, dj__import_dojo;

/* ---- for importers ---- */

/* Opens the log; im->info.cameras must be filled. */
dj_status dj__import_begin(dj__import *im);

/* A record failed with `s` (its message names file and line). With keep_going it is counted and
 * told of, and DJ_OK returned; otherwise, and for failures that are not the record's (memory,
 * disk), `s`. */
dj_status dj__import_bad(dj__import *im, dj_status s);

/* JPEG and PNG files, read ahead by threads, which also check that all of a picture decodes and has
 * its camera's size. */
typedef struct dj__pictures dj__pictures;
/* Path of picture `index` (malloc'ed; NULL: there is none) and its camera. Called on several
 * threads at once, so `user` must not change meanwhile. */
typedef char *dj__picture_path_fn(const void *user, size_t index, int *camera);
/* `n` pictures of the import's cameras, which are known by now. */
dj_status dj__pictures_open(const dj__import *im, size_t n, dj__picture_path_fn *path,
                            const void *user, dj__pictures **p);
/* Gives picture `index`; indexes must rise, those left out are dropped. *data is malloc'ed,
 * `format` "jpeg" or "png". Errors are the picture's, and name its file. */
dj_status dj__pictures_take(dj__pictures *p, size_t index, uint8_t **data, size_t *size,
                            const char **format);
void dj__pictures_close(dj__pictures *p); // NULL is fine
/* Width and height of the first file among `n` that has a readable header. */
dj_status dj__import_image_size(char *const *paths, size_t n, int *w, int *h);

/* Write and count. Times must not run backwards. */
dj_status dj__import_image(dj__import *im, int camera, uint64_t t_ns, const char *format,
                           const void *data, size_t size);
dj_status dj__import_video(dj__import *im, int camera, uint64_t t_ns, const char *format,
                           const void *data, size_t size);
dj_status dj__import_control(dj__import *im, const dj_control *c);
dj_status dj__import_speed(dj__import *im, const dj_speed *s);
dj_status dj__import_pose(dj__import *im, const dj_pose *p);

/* Fills a camera whose optics nobody told: pinhole of this horizontal view, mounted so. */
void dj__camera_guess(dj_camera *c, const char *name, int w, int h, double view_deg, double x,
                      double y, double z, double pitch_down_deg);

/* Seconds (>= 0, finite, below 2^33) to nanoseconds. */
bool dj__seconds_to_ns(double s, uint64_t *t_ns);

/* ---- for ingest.c and tests ---- */

/* Runs one importer on one drive into a log at `log_path`. `digest` is the source's. */
dj_status dj__import_drive(const dj__importer *importer, const char *path, const char *name,
                           const char *digest, const char *log_path, bool keep_going,
                           dj_ingest_drive *report);
dj_status dj__source_digest(const dj__importer *importer, const char *path, char hex[65]);
const dj__importer *dj__importer_by_name(const char *name);

#endif
