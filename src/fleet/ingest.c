/*
 * Importing: finds the drives in a source, names them, runs their importer, enters the logs in the
 * store. A drive's digest over its source makes an import idempotent; the log is written under a
 * temporary name, so that an interrupted import leaves nothing that counts and is simply run again.
 */
#include "dojo/ingest.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/text.h"
#include "dojo/log.h"
#include "dojo/store.h"
#include "dojo/synth.h"
#include "fleet/importers/importer.h"

enum { MAX_DEPTH = 6, MAX_DRIVES = 100000 };

static const dj__importer *const importers[] = {&dj__import_donkeycar, &dj__import_udacity,
                                                &dj__import_kitti,     &dj__import_comma2k19,
                                                &dj__import_video_csv, &dj__import_dojo};
enum { N_IMPORTERS = sizeof importers / sizeof *importers };

const char *dj_ingest_format(int i, const char **summary) {
  if (i < 0 || i >= N_IMPORTERS) return NULL;
  if (summary) *summary = importers[i]->summary;
  return importers[i]->name;
}

const dj__importer *dj__importer_by_name(const char *name) {
  for (int i = 0; i < N_IMPORTERS; i++)
    if (!strcmp(importers[i]->name, name)) return importers[i];
  return NULL;
}

void dj_ingest_report_free(dj_ingest_report *r) {
  free(r->drives);
  *r = (dj_ingest_report){0};
}

/* ---- finding drives ---- */
typedef struct found {
  char *path;
  const dj__importer *importer;
} found;
typedef struct found_list {
  found *items;
  size_t n, cap;
} found_list;

static void found_free(found_list *l) {
  for (size_t i = 0; i < l->n; i++) free(l->items[i].path);
  free(l->items);
}

static const dj__importer *probe(const char *path, const dj__importer *only) {
  const dj__importer *best = NULL;
  int score = 0;
  for (int i = 0; i < N_IMPORTERS; i++) {
    if (only && importers[i] != only) continue;
    int s = importers[i]->probe(path);
    if (s > score) {
      score = s;
      best = importers[i];
    }
  }
  return best;
}

static dj_status found_add(found_list *l, const char *path, const dj__importer *importer) {
  if (l->n == l->cap) {
    size_t cap = l->cap ? l->cap * 2 : 16;
    found *grown = cap <= MAX_DRIVES * 2 ? realloc(l->items, cap * sizeof *grown) : NULL;
    if (!grown) return dj_error(DJ_E_LIMIT, "%s: more than %zu drives in one source", path, l->n);
    l->items = grown;
    l->cap = cap;
  }
  l->items[l->n++] = (found){dj__strf("%s", path), importer};
  return DJ_OK;
}

/* A folder that is a drive is not searched further. */
static dj_status find_drives(const char *path, const dj__importer *only, int depth, found_list *l) {
  const dj__importer *importer = probe(path, only);
  if (importer) return found_add(l, path, importer);
  if (!dj__is_dir(path) || depth >= MAX_DEPTH) return DJ_OK;
  char **names;
  size_t n;
  DJ_TRY(dj__list_dir(path, &names, &n));
  dj_status s = DJ_OK;
  for (size_t i = 0; i < n && !s; i++) {
    if (names[i][0] == '.') continue;
    char *child = dj__join(path, names[i]);
    struct stat st;
    // Links are not followed: they could lead round in circles.
    if (lstat(child, &st) == 0 && (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode)))
      s = find_drives(child, only, depth + 1, l);
    free(child);
  }
  dj__free_names(names, n);
  return s;
}

static dj_status unknown_format(const char *format) {
  const char *names[N_IMPORTERS];
  for (int i = 0; i < N_IMPORTERS; i++) names[i] = importers[i]->name;
  const char *near = dj__nearest(format, names, N_IMPORTERS);
  return dj_error(DJ_E_INVALID,
                  "unknown format '%.40s'%s%s%s; there are donkeycar, udacity, kitti, comma2k19, "
                  "video-csv, dojo",
                  format, near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
}

/* Names the nearest file or folder beside a source that is not there. */
static dj_status no_source(const char *source) {
  size_t end = strlen(source);
  while (end > 1 && source[end - 1] == '/') end--;
  size_t start = end;
  while (start && source[start - 1] != '/') start--;
  char *folder = start ? dj__strf("%.*s", (int)start, source) : dj__strf(".");
  char *base = dj__strf("%.*s", (int)(end - start), source + start), **names;
  size_t n;
  dj_status s = DJ_E_NOT_FOUND;
  if (dj__list_dir(folder, &names, &n)) {
    s = dj_error(s, "%s: no such file or folder", source);
  } else {
    const char *near = dj__nearest(base, (const char *const *)names, n);
    s = dj_error(s, "%s: no such file or folder%s%.80s%s", source, near ? "; did you mean '" : "",
                 near ? near : "", near ? "'?" : "");
    dj__free_names(names, n);
  }
  free(folder);
  free(base);
  return s;
}

static dj_status find_all(const char *source, const char *format, found_list *l) {
  const dj__importer *only = NULL;
  if (format && !(only = dj__importer_by_name(format))) return unknown_format(format);
  if (!dj__exists(source)) return no_source(source);
  DJ_TRY(find_drives(source, only, 0, l));
  if (l->n) return DJ_OK;
  if (only) return found_add(l, source, only); // told to: the importer will say what is missing
  return dj_error(
      DJ_E_NOT_FOUND,
      "%s: no drive found. Looked for: a Donkeycar tub (manifest.json and "
      "images/), Udacity's driving_log.csv, a KITTI sequence (calib.txt and image_*), a "
      "comma2k19 segment (global_pose/), a video with a CSV beside it, a drive log of Dojo's own "
      "(.mcap). Name the format with --format if it is one of these",
      source);
}

/* ---- names ---- */
/* [a-z0-9_-]+, at most `size - 1` bytes: other characters become '-', runs of '-' one. */
static void fit_name(const char *text, char *out, size_t size) {
  size_t n = 0;
  for (; *text && n + 1 < size; text++) {
    char c = (char)tolower((unsigned char)*text);
    bool ok = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    if (!ok) c = '-';
    if (c == '-' && (n == 0 || out[n - 1] == '-')) continue;
    out[n++] = c;
  }
  while (n && out[n - 1] == '-') n--;
  out[n] = 0;
  if (!n) (void)snprintf(out, size, "drive");
}

static bool name_is_taken(dj_store *store, const char *name) {
  dj_store_drive *d;
  if (dj_store_find(store, name, &d)) return false;
  dj_store_drives_free(d, 1);
  return true;
}

static dj_status choose_name(dj_store *store, const found *f, const dj_ingest_options *o, size_t i,
                             size_t n, char name[DJ_NAME_BYTES]) {
  char base[DJ_NAME_BYTES - 8], raw[512];
  if (o->name) {
    fit_name(o->name, base, sizeof base);
    if (strcmp(base, o->name) != 0)
      return dj_error(DJ_E_INVALID,
                      "the name '%s' may hold a-z, 0-9, _ and - only, at most %zu of them", o->name,
                      sizeof base - 1);
    (void)snprintf(name, DJ_NAME_BYTES, n > 1 ? "%s-%zu" : "%s", base, i + 1);
    return name_is_taken(store, name)
               ? dj_error(DJ_E_EXISTS,
                          "a drive named '%s' is in the store already, from another source; "
                          "choose another --name",
                          name)
               : DJ_OK;
  }
  if (f->importer->drive_name) {
    f->importer->drive_name(f->path, raw, sizeof raw);
  } else {
    size_t end = strlen(f->path), start;
    while (end > 1 && f->path[end - 1] == '/') end--;
    for (start = end; start && f->path[start - 1] != '/'; start--) {
    }
    (void)snprintf(raw, sizeof raw, "%.*s", (int)(end - start), f->path + start);
  }
  fit_name(raw, base, sizeof base);
  (void)snprintf(name, DJ_NAME_BYTES, "%s", base);
  for (int k = 2; name_is_taken(store, name); k++)
    (void)snprintf(name, DJ_NAME_BYTES, "%s-%d", base, k);
  return DJ_OK;
}

/* ---- importing ---- */
static void tell_what_is_there(dj_ingest_drive *d, const dj_store_drive *there) {
  d->outcome = DJ_INGEST_ALREADY_THERE;
  d->n_cameras = there->n_cameras;
  for (int k = 0; k < there->n_cameras; k++) d->n_frames += there->cameras[k].n_frames;
  d->n_controls = there->n_controls;
  d->n_speeds = there->n_speeds;
  d->n_poses = there->n_poses;
  d->n_skipped = there->n_skipped;
  d->labels = there->labels;
  d->duration_s = (double)(there->end_ns - there->start_ns) * 1e-9;
}

/* A drive whose log somebody took away is imported again, under the name it had. */
static dj_status import_one(dj_store *store, const found *f, const dj_ingest_options *o, size_t i,
                            size_t n, dj_ingest_drive *d) {
  (void)snprintf(d->source, sizeof d->source, "%s", f->path);
  (void)snprintf(d->format, sizeof d->format, "%s", f->importer->name);
  DJ_TRY(dj__source_digest(f->importer, f->path, d->digest));
  dj_store_drive *there = NULL;
  bool known = !dj_store_find(store, d->digest, &there);
  if (known) {
    (void)snprintf(d->name, sizeof d->name, "%s", there->name);
  } else {
    DJ_TRY(choose_name(store, f, o, i, n, d->name));
  }
  char *log = dj_store_log_path(store, d->name);
  bool whole = known && log && dj__exists(log);
  if (whole) tell_what_is_there(d, there);
  if (known) dj_store_drives_free(there, 1);
  dj_status s = DJ_OK;
  if (!log) s = dj_error(DJ_E_INVALID, "'%s' is no drive name", d->name);
  if (!s && !whole) {
    if (known) dj_message(DJ_LOG_WARN, "%s was missing from the store: importing anew", log);
    s = dj__import_drive(f->importer, f->path, d->name, d->digest, log, o->keep_going, d);
    if (!s) s = dj_store_add_log(store, log);
  }
  free(log);
  return s;
}

static dj_status import_all(dj_store *store, const found_list *l, const dj_ingest_options *o,
                            dj_ingest_report *r) {
  r->drives = calloc(l->n + 1, sizeof *r->drives);
  if (!r->drives) return dj_error(DJ_E_NOMEM, "ingest: no memory for %zu drives", l->n);
  for (size_t i = 0; i < l->n; i++) {
    dj_ingest_drive *d = &r->drives[r->n_drives++];
    if (l->n > 1) dj_progress("importing", i, l->n, "drives", l->items[i].path);
    dj_status s = import_one(store, &l->items[i], o, i, l->n, d);
    if (s) {
      d->outcome = DJ_INGEST_FAILED;
      (void)snprintf(d->error, sizeof d->error, "%s", dj_error_message());
      r->n_failed++;
      // Out of memory or disk concerns all drives; a broken drive only itself.
      if (!o->keep_going || l->n == 1 || s == DJ_E_NOMEM || s == DJ_E_NO_SPACE) return s;
      dj_message(DJ_LOG_WARN, "%s: not imported: %s", l->items[i].path, d->error);
      continue;
    }
    *(d->outcome == DJ_INGEST_IMPORTED ? &r->n_imported : &r->n_already_there) += 1;
  }
  if (l->n > 1) dj_progress("importing", l->n, l->n, "drives", NULL);
  return r->n_failed == l->n
             ? dj_error(DJ_E_FORMAT, "none of the %zu drives could be imported; the last said: %s",
                        l->n, r->drives[r->n_drives - 1].error)
             : DJ_OK;
}

/* ---- generated drives ---- */
static dj_status parse_synth(const char *source, uint64_t *seed, uint64_t *frames) {
  char *end;
  *frames = 2000;
  *seed = strtoull(source + 6, &end, 10);
  bool ok = isdigit((unsigned char)source[6]) != 0;
  if (ok && *end == ':') {
    ok = isdigit((unsigned char)end[1]) != 0;
    *frames = strtoull(end + 1, &end, 10);
  }
  if (!ok || *end || *frames < 1 || *frames > 1000000)
    return dj_error(DJ_E_INVALID,
                    "'%s': a generated drive is synth:SEED or synth:SEED:FRAMES, with whole "
                    "numbers and 1 to 1000000 frames",
                    source);
  return DJ_OK;
}

static void remove_tub(const char *folder) {
  char *images = dj__join(folder, "images");
  const char *folders[2] = {images, folder};
  for (int k = 0; k < 2; k++) {
    char **names;
    size_t n;
    if (dj__list_dir(folders[k], &names, &n)) continue;
    for (size_t i = 0; i < n; i++) {
      char *p = dj__join(folders[k], names[i]);
      (void)unlink(p);
      free(p);
    }
    dj__free_names(names, n);
    (void)rmdir(folders[k]);
  }
  free(images);
}

/* The tub is made in a folder of the store and imported through the same path as a recorded one. */
static dj_status ingest_synth(dj_store *store, const char *source, const dj_ingest_options *o,
                              dj_ingest_report *r) {
  uint64_t seed, frames;
  DJ_TRY(parse_synth(source, &seed, &frames));
  char *folder = dj__strf("%s/synth-%" PRIu64, dj_store_path(store), seed);
  remove_tub(folder); // an interrupted one
  dj_status s = dj_synth_tub(folder, seed, frames);
  if (!s) s = import_all(store, &(found_list){&(found){folder, &dj__import_donkeycar}, 1, 1}, o, r);
  remove_tub(folder);
  free(folder);
  return s;
}

/* One process imports into a store at a time, so that a source is not taken twice and a name not
 * given twice; others wait. The lock ends with the process. */
static dj_status lock_store(const dj_store *store, int *fd) {
  char *path = dj__join(dj_store_path(store), "ingest.lock");
  *fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0666);
  dj_status s = *fd < 0 ? dj_error_errno("%s: cannot create", path) : DJ_OK;
  if (!s && flock(*fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK)
      dj_message(DJ_LOG_INFO, "%s: another process is importing: waiting for it", path);
    while (!s && flock(*fd, LOCK_EX) != 0)
      if (errno != EINTR) s = dj_error_errno("%s: cannot lock", path);
  }
  free(path);
  return s;
}

dj_status dj_ingest(const char *source, const dj_ingest_options *o, dj_ingest_report *report) {
  *report = (dj_ingest_report){0};
  if (!o || !o->store) return dj_error(DJ_E_INVALID, "ingest: no store given");
  found_list l = {0};
  dj_store *store = NULL;
  bool synth = !strncmp(source, "synth:", 6);
  dj_status s = synth ? DJ_OK : find_all(source, o->format, &l);
  if (!s) s = dj_store_open(o->store, DJ_STORE_CREATE, &store);
  int lock = -1;
  if (!s) s = lock_store(store, &lock);
  if (!s) s = synth ? ingest_synth(store, source, o, report) : import_all(store, &l, o, report);
  if (lock >= 0) close(lock);
  dj_store_close(store);
  found_free(&l);
  return s;
}
