/*
 * The store: a folder of drive logs and the catalogue over it (dojo/store.h).
 *
 * The files are the truth, the catalogue an index. Every change is made so that a crash at any
 * point leaves either the old or the new state, or one that `rebuild` mends: logs and store.json
 * are written under a temporary name and renamed, catalogue changes are one SQLite transaction.
 *
 * Reading the log itself is drivelog's business; what trained on it is in store_runs.c.
 */
#include "dojo/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/fs.h"
#include "dojo/log.h"
#include "fleet/catalogue.h"
#include "fleet/split.h"
#include "fleet/store_config.h"

bool dj__drive_name_ok(const char *name) {
  if (!name) return false;
  size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-");
  return n > 0 && n < DJ_NAME_BYTES && !name[n];
}

// ---- paths --------------------------------------------------------------------------------------

static char *inside(const char *store, const char *folder, const char *name, const char *suffix) {
  return dj__strf("%s/%s/%s%s", store, folder, name, suffix);
}

const char *dj_store_path(const dj_store *s) {
  return s->path;
}

char *dj_store_log_path(const dj_store *s, const char *name) {
  if (dj__drive_name_ok(name)) return inside(s->path, "logs", name, ".mcap");
  dj_error(DJ_E_INVALID, "drive name '%.80s': only a-z, 0-9, '_' and '-', 1 to %d characters",
           name ? name : "(NULL)", DJ_NAME_BYTES - 1);
  return NULL;
}

char *dj_store_shard_path(const dj_store *s, const char *name) {
  return inside(s->path, "shards", name, "");
}

static char *config_path(const dj_store *s) {
  return dj__join(s->path, "store.json");
}

// ---- reading a log into a catalogue entry
// -----------------------------------------------------------

/* A drive without pictures has no frames to cut into clips; its records still count. */
static dj_status count_records(dj_drive *log, dj_store_drive *d) {
  const dj_control *controls;
  const dj_speed *speeds;
  const dj_pose *poses;
  size_t n_controls, n_speeds, n_poses;
  DJ_TRY(dj_drive_controls(log, &controls, &n_controls));
  DJ_TRY(dj_drive_speeds(log, &speeds, &n_speeds));
  DJ_TRY(dj_drive_poses(log, &poses, &n_poses));
  d->n_controls = n_controls;
  d->n_speeds = n_speeds;
  d->n_poses = n_poses;
  const dj_drive_info *info = dj_drive_get_info(log);
  d->start_ns = info->start_ns;
  d->end_ns = info->end_ns;
  if (d->end_ns > INT64_MAX)
    return dj_error(DJ_E_FORMAT, "drive '%s': time %" PRIu64 " ns is beyond 2^63", d->name,
                    d->end_ns);
  return DJ_OK;
}

/* True when an array of records (t_ns first) has at least `need` of them within [from, to]. */
static bool any_within(const void *records, size_t n, size_t stride, uint64_t from, uint64_t to,
                       size_t need) {
  const unsigned char *r = records;
  size_t lo = 0, hi = n;
  uint64_t t;
  while (lo < hi) { // first at or after `from`
    size_t mid = lo + (hi - lo) / 2;
    memcpy(&t, r + mid * stride, sizeof t);
    if (t < from)
      lo = mid + 1;
    else
      hi = mid;
  }
  if (n - lo < need) return false;
  memcpy(&t, r + (lo + need - 1) * stride, sizeof t);
  return t <= to;
}

/* Labels of the world's drives that have a message within the clip. */
static dj_status mark_labels(dj_drive *log, dj_store_clip *c) {
  const uint32_t all = dj_drive_get_info(log)->labels;
  for (uint32_t bit = DJ_LABEL_LANES; bit < 1u << DJ_N_LABELS; bit <<= 1) {
    const uint64_t *t;
    size_t n;
    if (!(all & bit)) continue;
    DJ_TRY(dj_drive_label_times(log, (dj_label)bit, &t, &n));
    if (any_within(t, n, sizeof *t, c->start_ns, c->end_ns, 1)) c->labels |= bit;
  }
  return DJ_OK;
}

static dj_status cut_clips(dj_drive *log, const uint64_t *t_ns, size_t n, const dj_split_options *o,
                           dj_store_drive *d) {
  const dj_control *controls;
  const dj_speed *speeds;
  const dj_pose *poses;
  size_t n_controls, n_speeds, n_poses;
  DJ_TRY(dj_drive_controls(log, &controls, &n_controls));
  DJ_TRY(dj_drive_speeds(log, &speeds, &n_speeds));
  DJ_TRY(dj_drive_poses(log, &poses, &n_poses));
  dj__block blocks[DJ__N_SPLITS];
  d->n_clips = dj__split_cut(t_ns, n, o, blocks);
  d->clips = calloc(DJ__N_SPLITS, sizeof *d->clips);
  if (!d->clips) return dj_error(DJ_E_NOMEM, "store: no memory for clips");
  for (int i = 0; i < d->n_clips; i++) {
    dj_store_clip *c = &d->clips[i];
    *c = (dj_store_clip){.index = i,
                         .first_frame = blocks[i].first,
                         .n_frames = blocks[i].n,
                         .start_ns = t_ns[blocks[i].first],
                         .end_ns = t_ns[blocks[i].first + blocks[i].n - 1]};
    (void)snprintf(c->split, sizeof c->split, "%s", dj__split_names[blocks[i].split]);
    if (any_within(controls, n_controls, sizeof *controls, c->start_ns, c->end_ns, 1))
      c->labels |= DJ_LABEL_CONTROL;
    if (any_within(speeds, n_speeds, sizeof *speeds, c->start_ns, c->end_ns, 1))
      c->labels |= DJ_LABEL_SPEED;
    if (any_within(poses, n_poses, sizeof *poses, c->start_ns, c->end_ns, 2))
      c->labels |= DJ_LABEL_PATH;
    DJ_TRY(mark_labels(log, c));
  }
  return DJ_OK;
}

static dj_status fill_entry(dj_drive *log, const char *path, const dj_split_options *o,
                            dj_store_drive *d) {
  const dj_drive_info *info = dj_drive_get_info(log);
  if (!dj__drive_name_ok(info->name))
    return dj_error(DJ_E_FORMAT, "%s: the log's drive name '%.64s' is not allowed", path,
                    info->name);
  memcpy(d->name, info->name, sizeof d->name);
  memcpy(d->format, info->format, sizeof d->format);
  memcpy(d->source_digest, info->source_digest, sizeof d->source_digest);
  memcpy(d->source, info->source, sizeof d->source);
  d->labels = info->labels;
  d->n_skipped = info->n_skipped;
  d->n_cameras = info->n_cameras;
  DJ_TRY(count_records(log, d));
  for (int i = info->n_cameras - 1; i >= 0; i--) { // the first camera last: its times are kept
    const uint64_t *t_ns;
    size_t n;
    DJ_TRY(dj_drive_frame_times(log, i, &t_ns, &n));
    memcpy(d->cameras[i].name, info->cameras[i].name, sizeof d->cameras[i].name);
    d->cameras[i].width = info->cameras[i].width;
    d->cameras[i].height = info->cameras[i].height;
    d->cameras[i].n_frames = n;
    if (i > 0) continue;
    d->n_frames = n;
    if (n && t_ns[n - 1] > INT64_MAX)
      return dj_error(DJ_E_FORMAT, "%s: frame time %" PRIu64 " ns is beyond 2^63", path,
                      t_ns[n - 1]);
    for (size_t k = 1; k < n; k++)
      if (t_ns[k] < t_ns[k - 1])
        return dj_error(DJ_E_FORMAT, "%s: the time of frame %zu runs backwards", path, k);
    if (!n) continue;
    d->start_ns = t_ns[0];
    d->end_ns = t_ns[n - 1];
    DJ_TRY(cut_clips(log, t_ns, n, o, d));
  }
  return DJ_OK;
}

/* What the catalogue should say of a log, from the log and store.json alone. Digest is worked out
 * here too. */
static dj_status scan_log(const dj_store *s, const char *path, dj_store_drive *d) {
  *d = (dj_store_drive){0};
  DJ_TRY(dj__digest_file(path, d->digest, &d->log_bytes));
  dj_drive *log;
  DJ_TRY(dj_drive_open(path, &log));
  dj_split_options o;
  char *config = config_path(s);
  dj_status st = dj__config_split(config, dj_drive_get_info(log)->name, &o);
  free(config);
  if (!st) st = fill_entry(log, path, &o, d);
  dj_drive_close(log);
  if (st) {
    free(d->clips);
    *d = (dj_store_drive){0};
  }
  return st;
}

/* The file name of a log in S/logs must be the drive's name: it is how logs are found. */
static dj_status check_file_name(const char *path, const dj_store_drive *d) {
  const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
  char want[DJ_NAME_BYTES + 8];
  (void)snprintf(want, sizeof want, "%s.mcap", d->name);
  if (!strcmp(base, want)) return DJ_OK;
  return dj_error(DJ_E_FORMAT, "%s: the log says its drive is '%s': rename the file to %s", path,
                  d->name, want);
}

// ---- opening
// --------------------------------------------------------------------------------------

static dj_status make_folders(const char *path) {
  static const char *const folders[] = {"logs", "runs", "shards"};
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
    char *p = dj__join(path, folders[i]);
    dj_status st = dj__mkdirs(p);
    free(p);
    if (st) return st;
  }
  return DJ_OK;
}

static bool is_store(const char *path) {
  char *logs = dj__join(path, "logs");
  bool is = dj__is_dir(logs);
  free(logs);
  return is;
}

static dj_status rebuild_into(dj_store *s, bool keep_going, size_t *n_bad, bool *damaged);

static dj_status open_store(const char *path, dj_store **out, bool *fresh) {
  dj_store *s = calloc(1, sizeof *s);
  if (!s) return dj_error(DJ_E_NOMEM, "store: no memory");
  s->path = dj__strf("%s", path);
  char *file = dj__join(path, "catalogue.sqlite");
  dj_status st = dj__catalogue_open(file, &s->db, fresh);
  free(file);
  if (st) {
    dj_store_close(s);
    return st;
  }
  *out = s;
  return DJ_OK;
}

dj_status dj_store_open(const char *path, dj_store_mode mode, dj_store **out) {
  *out = NULL;
  if (!path || !*path) return dj_error(DJ_E_INVALID, "store: no folder given (--store DIR)");
  if (mode == DJ_STORE_EXISTING && !is_store(path))
    return dj_error(DJ_E_NOT_FOUND, "%s: no store there; 'dojo ingest SOURCE --store %s' makes one",
                    path, path);
  DJ_TRY(make_folders(path));
  bool fresh;
  DJ_TRY(open_store(path, out, &fresh));
  if (!fresh) return DJ_OK;
  bool damaged;
  dj_status st = rebuild_into(*out, false, NULL, &damaged); // nothing to do in a new store
  if (st) {
    dj_store_close(*out);
    *out = NULL;
  }
  return st;
}

void dj_store_close(dj_store *s) {
  if (!s) return;
  sqlite3_close(s->db);
  free(s->path);
  free(s);
}

// ---- adding and removing
// ------------------------------------------------------------------------------

static bool same_file(const char *a, const char *b) {
  struct stat x, y;
  return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static dj_status copy_file(const char *from, const char *to) {
  enum { PIECE = 1 << 20 };
  FILE *in = fopen(from, "rbe");
  if (!in) return dj_error_errno("%s: cannot open", from);
  dj__atomic a;
  unsigned char *buf = malloc(PIECE);
  dj_status st = buf ? dj__atomic_open(&a, to) : dj_error(DJ_E_NOMEM, "%s: no memory", from);
  if (!st) {
    for (size_t n; !st && (n = fread(buf, 1, PIECE, in)) > 0;)
      if (fwrite(buf, 1, n, a.file) != n) st = dj_error_errno("%s: cannot write", to);
    if (!st && ferror(in)) st = dj_error_errno("%s: cannot read", from);
    if (st)
      dj__atomic_abort(&a);
    else
      st = dj__atomic_commit(&a);
  }
  free(buf);
  fclose(in);
  return st;
}

static bool lies_in(const char *path, const char *folder) {
  const char *slash = strrchr(path, '/');
  char *own = slash ? dj__strf("%.*s", (int)(slash - path + 1), path) : dj__strf(".");
  bool in = same_file(own, folder);
  free(own);
  return in;
}

/* Brings a log from elsewhere to its place, `home`; *known: it is there already. */
static dj_status bring_home(dj_store *s, const char *path, const char *home,
                            const dj_store_drive *d, bool *known) {
  *known = false;
  char *logs = dj__join(s->path, "logs");
  bool here = lies_in(path, logs);
  free(logs);
  if (here) return check_file_name(path, d);
  if (!dj__exists(home)) return copy_file(path, home);
  char digest[65];
  DJ_TRY(dj__digest_file(home, digest, NULL));
  if (strcmp(digest, d->digest) != 0)
    return dj_error(DJ_E_EXISTS,
                    "%s: the store %s has another drive named '%s': remove it first, or import "
                    "this one under another name",
                    path, s->path, d->name);
  *known = true;
  return DJ_OK;
}

static dj_status put_scanned(dj_store *s, const dj_store_drive *d) {
  DJ_TRY(dj__sql_begin(s->db));
  return dj__sql_end(s->db, dj__catalogue_put_drive(s->db, d));
}

dj_status dj_store_add_log(dj_store *s, const char *path) {
  dj_store_drive d;
  DJ_TRY(scan_log(s, path, &d));
  char *home = dj_store_log_path(s, d.name);
  dj_store_drive *old = NULL;
  size_t n = 0;
  bool known = false;
  dj_status st = bring_home(s, path, home, &d, &known);
  if (!st) st = dj__catalogue_drives(s->db, d.digest, &old, &n);
  if (!st && !(n == 1 && !strcmp(old->name, d.name) && !strcmp(old->digest, d.digest)))
    st = put_scanned(s, &d);
  dj_store_drives_free(old, n);
  free(home);
  free(d.clips);
  return st;
}

dj_status dj_store_remove(dj_store *s, const char *drive) {
  dj_store_drive *d;
  DJ_TRY(dj_store_find(s, drive, &d));
  char *log = dj_store_log_path(s, d->name), *config = config_path(s);
  dj_status st = dj__sql_begin(s->db);
  if (!st) {
    st = dj__catalogue_delete_drive(s->db, d->name);
    if (!st && unlink(log) != 0 && errno != ENOENT) st = dj_error_errno("%s: cannot remove", log);
    if (!st) st = dj__config_forget(config, d->name);
    st = dj__sql_end(s->db, st);
  }
  free(log);
  free(config);
  dj_store_drives_free(d, 1);
  return st;
}

dj_status dj_store_drives(dj_store *s, dj_store_drive **drives, size_t *n) {
  return dj__catalogue_drives(s->db, NULL, drives, n);
}

dj_status dj_store_find(dj_store *s, const char *key, dj_store_drive **d) {
  *d = NULL;
  if (!key || !*key) return dj_error(DJ_E_INVALID, "store: no drive named");
  size_t n;
  DJ_TRY(dj__catalogue_drives(s->db, key, d, &n));
  if (n == 0) return dj_error(DJ_E_NOT_FOUND, "%s: no drive '%.80s' in the store", s->path, key);
  // A source may have been imported under several names: the first by name stands for all.
  for (size_t i = 1; i < n; i++) free((*d)[i].clips);
  return DJ_OK;
}

// ---- splits
// -------------------------------------------------------------------------------------------

dj_status dj_store_get_split(dj_store *s, const char *drive, dj_split_options *o) {
  char *config = config_path(s);
  dj_status st = dj__config_split(config, drive, o);
  free(config);
  return st;
}

/* Cuts a drive anew after its options changed. The log must still be the one in the catalogue. */
static dj_status recut(dj_store *s, const dj_store_drive *old) {
  char *log = dj_store_log_path(s, old->name);
  if (!log) return DJ_E_INVALID;
  dj_store_drive d;
  dj_status st = scan_log(s, log, &d);
  free(log);
  if (st) return st;
  if (strcmp(d.digest, old->digest) != 0)
    dj_message(DJ_LOG_WARN, "%s: the log of '%s' has changed since it was added", s->path,
               old->name);
  st = dj__catalogue_put_drive(s->db, &d);
  free(d.clips);
  return st;
}

static dj_status recut_all(dj_store *s, const char *drive) {
  dj_store_drive *drives;
  size_t n;
  DJ_TRY(dj__catalogue_drives(s->db, drive, &drives, &n));
  dj_status st = DJ_OK;
  for (size_t i = 0; i < n && !st; i++) st = recut(s, &drives[i]);
  dj_store_drives_free(drives, n);
  return st;
}

/* store.json as it was, to go back to when a change cannot be carried through. */
static dj_status restore_config(const char *config, const char *text, size_t size) {
  if (text) return dj__write_file_atomic(config, text, size);
  return unlink(config) == 0 ? DJ_OK : dj_error_errno("%s: cannot remove", config);
}

static dj_status set_split(dj_store *s, const char *config, const char *drive,
                           const dj_split_options *o) {
  char *before = NULL;
  size_t size = 0;
  if (dj__exists(config)) DJ_TRY(dj__read_file(config, 64 << 20, &before, &size));
  dj_status st = dj__config_set_split(config, drive, o);
  if (!st) {
    st = recut_all(s, drive);
    if (st) { // the first error is the one to tell
      char *why = dj__strf("%s", dj_error_message());
      (void)restore_config(config, before, size);
      (void)dj_error(st, "%s", why);
      free(why);
    }
  }
  free(before);
  return st;
}

dj_status dj_store_set_split(dj_store *s, const char *drive, const dj_split_options *o) {
  DJ_TRY(dj__split_check(o));
  if (drive) {
    dj_store_drive *d;
    DJ_TRY(dj_store_find(s, drive, &d));
    bool by_name = !strcmp(d->name, drive);
    dj_store_drives_free(d, 1);
    if (!by_name) return dj_error(DJ_E_NOT_FOUND, "%s: no drive named '%.80s'", s->path, drive);
  }
  char *config = config_path(s);
  dj_status st = dj__sql_begin(s->db);
  if (!st) st = dj__sql_end(s->db, set_split(s, config, drive, o));
  free(config);
  return st;
}

// ---- rebuilding
// ---------------------------------------------------------------------------------------

static bool has_suffix(const char *name, const char *suffix) {
  size_t n = strlen(name), k = strlen(suffix);
  return n > k && !strcmp(name + n - k, suffix);
}

static dj_status rebuild_log(dj_store *s, const char *path) {
  dj_store_drive d;
  DJ_TRY(scan_log(s, path, &d));
  dj_status st = check_file_name(path, &d);
  if (!st) st = dj__catalogue_put_drive(s->db, &d);
  free(d.clips);
  return st;
}

/* Calls `take` for every file of S/folder that ends in `suffix`. */
static dj_status each_file(dj_store *s, const char *folder, const char *suffix, bool keep_going,
                           size_t *n_bad, dj_status (*take)(dj_store *, const char *)) {
  char *dir = dj__join(s->path, folder), **names;
  size_t n;
  dj_status st = dj__list_dir(dir, &names, &n);
  if (st) {
    free(dir);
    return st;
  }
  for (size_t i = 0; i < n && !st; i++) {
    if (!has_suffix(names[i], suffix)) continue;
    char *path = dj__join(dir, names[i]);
    st = dj__is_dir(path) ? dj_error(DJ_E_FORMAT, "%s: a folder where a file should be", path)
                          : take(s, path);
    if (st && keep_going && (st == DJ_E_FORMAT || st == DJ_E_EXISTS || st == DJ_E_UNSUPPORTED)) {
      dj_message(DJ_LOG_WARN, "left out: %s", dj_error_message());
      ++*n_bad;
      st = DJ_OK;
    }
    free(path);
    dj_progress("rebuilding the catalogue", i + 1, n, folder, NULL);
  }
  dj__free_names(names, n);
  free(dir);
  return st;
}

static dj_status rebuild_rows(dj_store *s, bool keep_going, size_t *n_bad) {
  DJ_TRY(dj__sql_run(s->db, "DELETE FROM drives", ""));
  DJ_TRY(dj__sql_run(s->db, "DELETE FROM runs", ""));
  DJ_TRY(each_file(s, "logs", ".mcap", keep_going, n_bad, rebuild_log));
  return each_file(s, "runs", ".json", keep_going, n_bad, dj__store_load_run);
}

static dj_status rebuild_into(dj_store *s, bool keep_going, size_t *n_bad, bool *damaged) {
  size_t bad = 0;
  dj_status st = dj__sql_begin(s->db);
  if (!st) st = rebuild_rows(s, keep_going, &bad);
  // SQLite's own complaint, as long as it is the last thing it said; a broken log is none.
  int code = st ? sqlite3_errcode(s->db) & 0xff : SQLITE_OK;
  st = dj__sql_end(s->db, st);
  if (st && code == SQLITE_OK) code = sqlite3_errcode(s->db) & 0xff;
  *damaged = st && (code == SQLITE_CORRUPT || code == SQLITE_NOTADB);
  if (n_bad) *n_bad = bad;
  return st;
}

/* Damage that only shows when the damaged part is read: not to build on. */
static bool is_sound(dj_store *s) {
  sqlite3_stmt *q;
  bool row;
  char text[8] = "";
  if (dj__sql_query(s->db, &q, "PRAGMA integrity_check(1)", "") || dj__sql_next(&q, &row))
    return false;
  if (row) dj__sql_text(q, 0, text, sizeof text);
  sqlite3_finalize(q);
  return !strcmp(text, "ok");
}

/* A damaged catalogue is taken away, with what SQLite keeps beside it. */
static dj_status drop_catalogue(const char *path) {
  static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
  for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
    char *file = dj__strf("%s/catalogue.sqlite%s", path, suffixes[i]);
    int failed = unlink(file) != 0 && errno != ENOENT;
    dj_status st = failed ? dj_error_errno("%s: cannot remove the damaged catalogue", file) : DJ_OK;
    free(file);
    if (st) return st;
  }
  return DJ_OK;
}

dj_status dj_store_rebuild(const char *path, bool keep_going, size_t *n_bad) {
  if (n_bad) *n_bad = 0;
  if (!path || !is_store(path))
    return dj_error(DJ_E_NOT_FOUND, "%s: no store there (no folder logs/)", path ? path : "(NULL)");
  DJ_TRY(make_folders(path));
  dj_store *s = NULL;
  bool fresh;
  dj_status st = open_store(path, &s, &fresh);
  if (!st) {
    bool damaged = !is_sound(s);
    if (!damaged) st = rebuild_into(s, keep_going, n_bad, &damaged);
    dj_store_close(s);
    if (!damaged) return st;
  } else if (st != DJ_E_FORMAT) {
    return st;
  }
  DJ_TRY(drop_catalogue(path));
  DJ_TRY(open_store(path, &s, &fresh));
  bool damaged;
  st = rebuild_into(s, keep_going, n_bad, &damaged);
  dj_store_close(s);
  return st;
}

// ---- text dump
// ----------------------------------------------------------------------------------------

static void dump_drive(FILE *out, const dj_store_drive *d) {
  (void)fprintf(out,
                "drive %s format=%s digest=%s source_digest=%s source=%s bytes=%" PRIu64
                " frames=%" PRIu64 " start=%" PRIu64 " end=%" PRIu64 " controls=%" PRIu64
                " speeds=%" PRIu64 " poses=%" PRIu64 " skipped=%" PRIu64 " labels=%u\n",
                d->name, d->format, d->digest, d->source_digest, d->source, d->log_bytes,
                d->n_frames, d->start_ns, d->end_ns, d->n_controls, d->n_speeds, d->n_poses,
                d->n_skipped, d->labels);
  for (int i = 0; i < d->n_cameras; i++)
    (void)fprintf(out, "camera %s %d %s %dx%d frames=%" PRIu64 "\n", d->name, i, d->cameras[i].name,
                  d->cameras[i].width, d->cameras[i].height, d->cameras[i].n_frames);
  for (int i = 0; i < d->n_clips; i++)
    (void)fprintf(out,
                  "clip %s %d %s first=%" PRIu64 " n=%" PRIu64 " start=%" PRIu64 " end=%" PRIu64
                  " labels=%u\n",
                  d->name, d->clips[i].index, d->clips[i].split, d->clips[i].first_frame,
                  d->clips[i].n_frames, d->clips[i].start_ns, d->clips[i].end_ns,
                  d->clips[i].labels);
}

static dj_status drive_text(const dj_store_drive *d, char **text) {
  size_t size;
  FILE *out = open_memstream(text, &size);
  if (!out) return dj_error_errno("store: cannot write to memory");
  dump_drive(out, d);
  return fclose(out) == 0 ? DJ_OK : dj_error_errno("store: cannot write to memory");
}

dj_status dj_store_dump(dj_store *s, char **text) {
  *text = NULL;
  dj_store_drive *drives;
  size_t n, size;
  DJ_TRY(dj_store_drives(s, &drives, &n));
  FILE *out = open_memstream(text, &size);
  dj_status st = out ? DJ_OK : dj_error_errno("store: cannot write to memory");
  for (size_t i = 0; i < n && !st; i++) dump_drive(out, &drives[i]);
  if (!st) st = dj__store_dump_runs(s, out);
  if (out && fclose(out) != 0 && !st) st = dj_error_errno("store: cannot write to memory");
  dj_store_drives_free(drives, n);
  if (st) {
    free(*text);
    *text = NULL;
  }
  return st;
}

// ---- checking
// -----------------------------------------------------------------------------------------

typedef struct checker {
  dj_store *store;
  bool decode;
  dj_store_problem *report;
  void *user;
  size_t problems;
} checker;

static void problem(checker *c, const char *what, const char *text) {
  c->problems++;
  if (c->report) c->report(c->user, what, text);
}

static dj_status decode_all(const char *path) {
  dj_drive *log;
  DJ_TRY(dj_drive_open(path, &log));
  const dj_drive_info *info = dj_drive_get_info(log);
  dj_status st = DJ_OK;
  for (int i = 0; i < info->n_cameras && !st; i++) {
    const uint64_t *t_ns;
    size_t n;
    st = dj_drive_frame_times(log, i, &t_ns, &n);
    uint8_t *rgb =
        st ? NULL : malloc((size_t)info->cameras[i].width * (size_t)info->cameras[i].height * 3);
    if (!st && !rgb) st = dj_error(DJ_E_NOMEM, "%s: no memory for a frame", path);
    for (size_t k = 0; k < n && !st; k++) {
      st = dj_drive_read_frame(log, i, k, rgb);
      dj_progress(path, k + 1, n, "frames decoded", NULL);
    }
    free(rgb);
  }
  dj_drive_close(log);
  return st;
}

/* One log against its row: readable, the same digest, and the row is what the log gives. */
static dj_status check_drive(checker *c, const dj_store_drive *d) {
  char *path = dj_store_log_path(c->store, d->name), *have = NULL, *want = NULL;
  dj_store_drive now = {0};
  dj_status st = DJ_OK;
  if (!path) return DJ_E_INVALID;
  if (!dj__exists(path)) {
    problem(c, d->name, "its log is missing");
  } else if (scan_log(c->store, path, &now)) {
    problem(c, d->name, dj_error_message());
  } else if (strcmp(now.digest, d->digest) != 0) {
    problem(c, d->name,
            "its log has changed since it was added: 'dojo store rebuild' takes it as it is");
  } else {
    st = drive_text(d, &have);
    if (!st) st = drive_text(&now, &want);
    if (!st && strcmp(have, want) != 0)
      problem(c, d->name, "the catalogue does not say what the log holds: 'dojo store rebuild'");
    if (!st && c->decode && decode_all(path)) problem(c, d->name, dj_error_message());
  }
  free(have);
  free(want);
  free(now.clips);
  free(path);
  return st;
}

/* Logs that no row knows, and files that an interrupted write left. */
static dj_status check_strays(checker *c, const dj_store_drive *drives, size_t n) {
  char *dir = dj__join(c->store->path, "logs"), **names;
  size_t n_names;
  dj_status st = dj__list_dir(dir, &names, &n_names);
  free(dir);
  if (st) return st;
  for (size_t i = 0; i < n_names; i++) {
    size_t k = 0;
    char want[DJ_NAME_BYTES + 8];
    for (; k < n; k++) {
      (void)snprintf(want, sizeof want, "%s.mcap", drives[k].name);
      if (!strcmp(names[i], want)) break;
    }
    if (k < n) continue;
    problem(c, names[i],
            has_suffix(names[i], ".mcap")
                ? "a log that is not in the catalogue: 'dojo store rebuild' takes it in"
                : "not a log; left by an interrupted import?");
  }
  dj__free_names(names, n_names);
  return DJ_OK;
}

static dj_status check_database(checker *c) {
  sqlite3_stmt *q;
  bool row;
  DJ_TRY(dj__sql_query(c->store->db, &q, "PRAGMA integrity_check(20)", ""));
  for (;;) {
    DJ_TRY(dj__sql_next(&q, &row));
    if (!row) break;
    char text[512];
    dj__sql_text(q, 0, text, sizeof text);
    if (strcmp(text, "ok") != 0) problem(c, "catalogue.sqlite", text);
  }
  DJ_TRY(dj__sql_query(c->store->db, &q, "PRAGMA foreign_key_check", ""));
  for (;;) {
    DJ_TRY(dj__sql_next(&q, &row));
    if (!row) return DJ_OK;
    problem(c, "catalogue.sqlite", "a row points to one that is not there: 'dojo store rebuild'");
  }
}

dj_status dj_store_check(dj_store *s, bool decode, dj_store_problem *report, void *user,
                         size_t *n_problems) {
  checker c = {.store = s, .decode = decode, .report = report, .user = user};
  dj_store_drive *drives = NULL;
  size_t n = 0;
  dj_status st = check_database(&c);
  if (!st) st = dj_store_drives(s, &drives, &n);
  for (size_t i = 0; i < n && !st; i++) {
    st = check_drive(&c, &drives[i]);
    dj_progress("checking the store", i + 1, n, "drives", NULL);
  }
  if (!st) st = check_strays(&c, drives, n);
  dj_store_drives_free(drives, n);
  if (n_problems) *n_problems = c.problems;
  return st;
}
