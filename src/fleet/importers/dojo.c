/*
 * Drive logs that are Dojo's already: recorded in the world, or taken from another store. Messages
 * are copied as they are, with every checksum verified on the way; name and source become those of
 * the store. The pictures within are decoded when they are first used, or by `dojo store check
 * --decode`.
 */
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "fleet/drivelog.h"
#include "fleet/importers/importer.h"

static int probe(const char *path) {
  size_t n = strlen(path);
  if (n < 5 || strcmp(path + n - 5, ".mcap") != 0 || dj__is_dir(path)) return 0;
  dj_mcap *m;
  if (dj_mcap_open(path, NULL, &m)) return 0;
  dj_mcap_metadata meta;
  int sure = dj_mcap_find_metadata(m, DJ__META_DRIVE, &meta) ? 0 : 100;
  dj_mcap_close(m);
  return sure;
}

static dj_status files(const char *path, dj__source_files *f) {
  return dj__source_add(f, path, "log.mcap"); // a log is its contents, whatever it is called
}

static void drive_name(const char *path, char *out, size_t size) {
  const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
  size_t n = strlen(base);
  if (n > 5 && !strcmp(base + n - 5, ".mcap")) n -= 5;
  (void)snprintf(out, size, "%.*s", (int)n, base);
}

static dj_status count(dj_drive *d, dj__import *im) {
  const dj_drive_info *info = dj_drive_get_info(d);
  const dj_control *c;
  const dj_speed *v;
  const dj_pose *p;
  size_t n;
  DJ_TRY(dj_drive_controls(d, &c, &n));
  im->report->n_controls = n;
  DJ_TRY(dj_drive_speeds(d, &v, &n));
  im->report->n_speeds = n;
  DJ_TRY(dj_drive_poses(d, &p, &n));
  im->report->n_poses = n;
  for (int i = 0; i < info->n_cameras; i++) {
    const uint64_t *t;
    DJ_TRY(dj_drive_frame_times(d, i, &t, &n));
    im->report->n_frames += n;
  }
  im->report->n_skipped = info->n_skipped;
  im->labels = info->labels;
  im->first_ns = info->start_ns;
  im->end_ns = info->end_ns;
  im->any = info->end_ns > 0;
  return DJ_OK;
}

static dj_status run(dj__import *im) {
  dj_drive *d;
  DJ_TRY(dj_drive_open(im->path, &d));
  const dj_drive_info *info = dj_drive_get_info(d);
  memcpy(im->info.format, info->format, sizeof im->info.format);
  im->info.n_cameras = info->n_cameras;
  memcpy(im->info.cameras, info->cameras, sizeof im->info.cameras);
  dj_status s = count(d, im);
  dj_drive_close(d);
  dj_mcap *m = NULL;
  if (!s) s = dj__import_begin(im);
  if (!s) s = dj_mcap_open(im->path, NULL, &m);
  if (!s) s = dj__drive_copy(im->w, m);
  dj_mcap_close(m);
  return s ? dj_error_context(s, "%s", im->path) : DJ_OK;
}

const dj__importer dj__import_dojo = {
    .name = "dojo",
    .summary = "a drive log of Dojo's own: of dojo world record, or another store's (.mcap)",
    .probe = probe,
    .files = files,
    .drive_name = drive_name,
    .run = run,
    .version = 1};
