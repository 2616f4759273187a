#include "fleet/catalogue.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "fleet/split.h"

enum { SCHEMA_VERSION = 1, APPLICATION_ID = 0x446f6a6f, BUSY_MS = 10000 }; // "Dojo"

static const char schema[] =
    "CREATE TABLE drives("
    " id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, format TEXT NOT NULL,"
    " digest TEXT NOT NULL UNIQUE, source_digest TEXT NOT NULL, source TEXT NOT NULL,"
    " log_bytes INTEGER NOT NULL, n_frames INTEGER NOT NULL, start_ns INTEGER NOT NULL,"
    " end_ns INTEGER NOT NULL, n_controls INTEGER NOT NULL, n_speeds INTEGER NOT NULL,"
    " n_poses INTEGER NOT NULL, n_skipped INTEGER NOT NULL, labels INTEGER NOT NULL);"
    "CREATE INDEX drives_source ON drives(source_digest);"
    "CREATE TABLE cameras("
    " drive INTEGER NOT NULL REFERENCES drives(id) ON DELETE CASCADE, idx INTEGER NOT NULL,"
    " name TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,"
    " n_frames INTEGER NOT NULL, PRIMARY KEY(drive, idx)) WITHOUT ROWID;"
    "CREATE TABLE clips("
    " drive INTEGER NOT NULL REFERENCES drives(id) ON DELETE CASCADE, idx INTEGER NOT NULL,"
    " split TEXT NOT NULL, first_frame INTEGER NOT NULL, n_frames INTEGER NOT NULL,"
    " start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, labels INTEGER NOT NULL,"
    " PRIMARY KEY(drive, idx)) WITHOUT ROWID;"
    "CREATE TABLE runs("
    " name TEXT PRIMARY KEY, path TEXT NOT NULL, recipe TEXT NOT NULL, dataset TEXT NOT NULL,"
    " created_s INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE run_clips("
    " run TEXT NOT NULL REFERENCES runs(name) ON DELETE CASCADE, drive TEXT NOT NULL,"
    " digest TEXT NOT NULL, clip INTEGER NOT NULL, first_frame INTEGER NOT NULL,"
    " n_frames INTEGER NOT NULL, PRIMARY KEY(run, drive, digest, clip, first_frame)) WITHOUT ROWID;"
    "CREATE TABLE models("
    " run TEXT NOT NULL REFERENCES runs(name) ON DELETE CASCADE, digest TEXT NOT NULL,"
    " step INTEGER NOT NULL, path TEXT NOT NULL, PRIMARY KEY(run, digest)) WITHOUT ROWID;"
    "CREATE TABLE scores("
    " run TEXT NOT NULL REFERENCES runs(name) ON DELETE CASCADE, digest TEXT NOT NULL,"
    " split TEXT NOT NULL, metric TEXT NOT NULL, value REAL, low REAL, high REAL,"
    " PRIMARY KEY(run, digest, split, metric)) WITHOUT ROWID;";

// ---- SQL ----------------------------------------------------------------------------------------

static dj_status sql_error(sqlite3 *db, const char *sql) {
  int code = sqlite3_extended_errcode(db), base = code & 0xff;
  const char *file = sqlite3_db_filename(db, "main");
  dj_status s = DJ_E_IO;
  const char *advice = "";
  if (base == SQLITE_FULL) s = DJ_E_NO_SPACE;
  if (base == SQLITE_NOMEM) s = DJ_E_NOMEM;
  if (base == SQLITE_CONSTRAINT) s = DJ_E_EXISTS;
  if (base == SQLITE_BUSY || base == SQLITE_LOCKED) {
    s = DJ_E_STATE;
    advice = "; another process is writing to the store: try again";
  }
  if (base == SQLITE_CORRUPT || base == SQLITE_NOTADB || base == SQLITE_ERROR ||
      base == SQLITE_MISMATCH) {
    s = DJ_E_FORMAT;
    advice = "; the catalogue is damaged: make it anew with 'dojo store rebuild'";
  }
  return dj_error(s, "%s: %s%s%s%.60s%s", file ? file : "catalogue", sqlite3_errmsg(db),
                  sql ? " (in: " : "", sql ? sql : "", sql ? "...)" : "", advice);
}

static dj_status bind_all(sqlite3 *db, sqlite3_stmt *q, const char *sql, const char *types,
                          va_list ap) {
  int rc = SQLITE_OK;
  for (int i = 0; types[i] && rc == SQLITE_OK; i++) {
    switch (types[i]) {
    case 't':
      rc = sqlite3_bind_text(q, i + 1, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
      break;
    case 'i':
      rc = sqlite3_bind_int64(q, i + 1, va_arg(ap, int64_t));
      break;
    case 'd':
      rc = sqlite3_bind_double(q, i + 1, va_arg(ap, double));
      break;
    default: {
      uint64_t v = va_arg(ap, uint64_t);
      if (v > INT64_MAX)
        return dj_error(DJ_E_LIMIT, "catalogue: %" PRIu64 " does not fit (at most 2^63 - 1)", v);
      rc = sqlite3_bind_int64(q, i + 1, (int64_t)v);
    }
    }
  }
  return rc == SQLITE_OK ? DJ_OK : sql_error(db, sql);
}

static dj_status prepare(sqlite3 *db, sqlite3_stmt **q, const char *sql, const char *types,
                         va_list ap) {
  *q = NULL;
  if (sqlite3_prepare_v2(db, sql, -1, q, NULL) != SQLITE_OK) return sql_error(db, sql);
  dj_status s = bind_all(db, *q, sql, types, ap);
  if (s) {
    sqlite3_finalize(*q);
    *q = NULL;
  }
  return s;
}

dj_status dj__sql_query(sqlite3 *db, sqlite3_stmt **q, const char *sql, const char *types, ...) {
  va_list ap;
  va_start(ap, types);
  dj_status s = prepare(db, q, sql, types, ap);
  va_end(ap);
  return s;
}

dj_status dj__sql_next(sqlite3_stmt **q, bool *row) {
  int rc = sqlite3_step(*q);
  *row = rc == SQLITE_ROW;
  if (*row) return DJ_OK;
  dj_status s = rc == SQLITE_DONE ? DJ_OK : sql_error(sqlite3_db_handle(*q), sqlite3_sql(*q));
  sqlite3_finalize(*q);
  *q = NULL;
  return s;
}

dj_status dj__sql_run(sqlite3 *db, const char *sql, const char *types, ...) {
  sqlite3_stmt *q;
  va_list ap;
  va_start(ap, types);
  dj_status s = prepare(db, &q, sql, types, ap);
  va_end(ap);
  bool row = true;
  while (!s && row) s = dj__sql_next(&q, &row);
  return s;
}

void dj__sql_text(sqlite3_stmt *q, int column, char *out, size_t cap) {
  const char *t = (const char *)sqlite3_column_text(q, column);
  (void)snprintf(out, cap, "%s", t ? t : "");
}
uint64_t dj__sql_u64(sqlite3_stmt *q, int column) {
  sqlite3_int64 v = sqlite3_column_int64(q, column);
  return v < 0 ? 0 : (uint64_t)v;
}
double dj__sql_double(sqlite3_stmt *q, int column) {
  return sqlite3_column_type(q, column) == SQLITE_NULL ? (double)NAN
                                                       : sqlite3_column_double(q, column);
}

dj_status dj__sql_begin(sqlite3 *db) {
  return dj__sql_run(db, "BEGIN IMMEDIATE", "");
}

dj_status dj__sql_end(sqlite3 *db, dj_status s) {
  if (!s) s = dj__sql_run(db, "COMMIT", "");
  if (s && !sqlite3_get_autocommit(db)) sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
  return s;
}

// ---- opening ------------------------------------------------------------------------------------

static dj_status pragma_int(sqlite3 *db, const char *sql, int64_t *v) {
  sqlite3_stmt *q;
  bool row;
  DJ_TRY(dj__sql_query(db, &q, sql, ""));
  DJ_TRY(dj__sql_next(&q, &row));
  *v = row ? sqlite3_column_int64(q, 0) : 0;
  sqlite3_finalize(q);
  return DJ_OK;
}

static dj_status make_tables(sqlite3 *db, bool *fresh) {
  int64_t version = 0, id = 0;
  DJ_TRY(pragma_int(db, "PRAGMA user_version", &version));
  DJ_TRY(pragma_int(db, "PRAGMA application_id", &id));
  if (version == SCHEMA_VERSION && id == APPLICATION_ID) return DJ_OK;
  int64_t tables = 0;
  DJ_TRY(pragma_int(db, "SELECT count(*) FROM sqlite_master", &tables));
  if (version != 0 || id != 0 || tables != 0)
    return dj_error(DJ_E_FORMAT,
                    "%s: not a catalogue of this version of Dojo (version %" PRId64
                    ", %d is ours): make it anew with 'dojo store rebuild'",
                    sqlite3_db_filename(db, "main"), version, SCHEMA_VERSION);
  if (sqlite3_exec(db, schema, NULL, NULL, NULL) != SQLITE_OK) return sql_error(db, "schema");
  char sql[96];
  (void)snprintf(sql, sizeof sql, "PRAGMA user_version = %d", SCHEMA_VERSION);
  DJ_TRY(dj__sql_run(db, sql, ""));
  (void)snprintf(sql, sizeof sql, "PRAGMA application_id = %d", APPLICATION_ID);
  DJ_TRY(dj__sql_run(db, sql, ""));
  *fresh = true;
  return DJ_OK;
}

/* Several processes may open a new catalogue at once. SQLite's own waiting leaves out the switch to
 * write-ahead logging, which needs the file for a moment to itself: so wait here. */
static dj_status use_wal(sqlite3 *db) {
  enum { WAIT_MS = 5 };
  for (int waited = 0;; waited += WAIT_MS) {
    int rc = sqlite3_exec(db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL);
    if (rc == SQLITE_OK) return DJ_OK;
    if ((rc & 0xff) != SQLITE_BUSY || waited >= BUSY_MS)
      return sql_error(db, "PRAGMA journal_mode = WAL");
    sqlite3_sleep(WAIT_MS);
  }
}

dj_status dj__catalogue_open(const char *file, sqlite3 **db, bool *fresh) {
  *fresh = false;
  *db = NULL;
  int rc = sqlite3_open_v2(file, db,
                           SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
  if (rc != SQLITE_OK) {
    dj_status s = dj_error(DJ_E_IO, "%s: cannot open the catalogue: %s", file,
                           *db ? sqlite3_errmsg(*db) : "out of memory");
    sqlite3_close(*db);
    *db = NULL;
    return s;
  }
  sqlite3_extended_result_codes(*db, 1);
  sqlite3_busy_timeout(*db, BUSY_MS);
  static const char *const settings[] = {
      "PRAGMA synchronous = NORMAL", "PRAGMA foreign_keys = ON",
      "PRAGMA trusted_schema = OFF", // the file may come from somebody else
      "PRAGMA cell_size_check = ON"};
  dj_status s = use_wal(*db);
  for (size_t i = 0; i < sizeof settings / sizeof *settings && !s; i++)
    s = dj__sql_run(*db, settings[i], "");
  if (!s) {
    s = dj__sql_begin(*db);
    if (!s) s = dj__sql_end(*db, make_tables(*db, fresh));
  }
  if (s) {
    sqlite3_close(*db);
    *db = NULL;
  }
  return s;
}

// ---- drives -------------------------------------------------------------------------------------

dj_status dj__catalogue_delete_drive(sqlite3 *db, const char *name) {
  return dj__sql_run(db, "DELETE FROM drives WHERE name = ?", "t", name);
}

dj_status dj__catalogue_put_drive(sqlite3 *db, const dj_store_drive *d) {
  DJ_TRY(dj__catalogue_delete_drive(db, d->name));
  DJ_TRY(
      dj__sql_run(db,
                  "INSERT INTO drives(name, format, digest, source_digest, source, log_bytes,"
                  " n_frames, start_ns, end_ns, n_controls, n_speeds, n_poses, n_skipped, labels)"
                  " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                  "tttttuuuuuuuui", d->name, d->format, d->digest, d->source_digest, d->source,
                  d->log_bytes, d->n_frames, d->start_ns, d->end_ns, d->n_controls, d->n_speeds,
                  d->n_poses, d->n_skipped, (int64_t)d->labels));
  const int64_t id = sqlite3_last_insert_rowid(db);
  for (int i = 0; i < d->n_cameras; i++)
    DJ_TRY(dj__sql_run(db, "INSERT INTO cameras VALUES(?,?,?,?,?,?)", "iitiiu", id, (int64_t)i,
                       d->cameras[i].name, (int64_t)d->cameras[i].width,
                       (int64_t)d->cameras[i].height, d->cameras[i].n_frames));
  for (int i = 0; i < d->n_clips; i++) {
    const dj_store_clip *c = &d->clips[i];
    DJ_TRY(dj__sql_run(db, "INSERT INTO clips VALUES(?,?,?,?,?,?,?,?)", "iituuuui", id, (int64_t)i,
                       c->split, c->first_frame, c->n_frames, c->start_ns, c->end_ns,
                       (int64_t)c->labels));
  }
  return DJ_OK;
}

static dj_status read_cameras(sqlite3 *db, int64_t id, dj_store_drive *d) {
  sqlite3_stmt *q;
  bool row;
  DJ_TRY(dj__sql_query(db, &q,
                       "SELECT name, width, height, n_frames FROM cameras WHERE drive = ?"
                       " ORDER BY idx LIMIT 16",
                       "i", id));
  for (;;) {
    DJ_TRY(dj__sql_next(&q, &row));
    if (!row) return DJ_OK;
    int i = d->n_cameras++;
    dj__sql_text(q, 0, d->cameras[i].name, sizeof d->cameras[i].name);
    d->cameras[i].width = sqlite3_column_int(q, 1);
    d->cameras[i].height = sqlite3_column_int(q, 2);
    d->cameras[i].n_frames = dj__sql_u64(q, 3);
  }
}

static dj_status read_clips(sqlite3 *db, int64_t id, dj_store_drive *d) {
  sqlite3_stmt *q;
  bool row;
  // A drive is cut into three blocks at the most; the catalogue is not believed beyond that.
  d->clips = calloc(DJ__N_SPLITS, sizeof *d->clips);
  if (!d->clips) return dj_error(DJ_E_NOMEM, "catalogue: no memory for clips");
  DJ_TRY(dj__sql_query(db, &q,
                       "SELECT idx, split, first_frame, n_frames, start_ns, end_ns, labels"
                       " FROM clips WHERE drive = ? ORDER BY idx LIMIT 3",
                       "i", id));
  for (;;) {
    DJ_TRY(dj__sql_next(&q, &row));
    if (!row) return DJ_OK;
    dj_store_clip *c = &d->clips[d->n_clips++];
    c->index = sqlite3_column_int(q, 0);
    dj__sql_text(q, 1, c->split, sizeof c->split);
    c->first_frame = dj__sql_u64(q, 2);
    c->n_frames = dj__sql_u64(q, 3);
    c->start_ns = dj__sql_u64(q, 4);
    c->end_ns = dj__sql_u64(q, 5);
    c->labels = (uint32_t)dj__sql_u64(q, 6);
  }
}

static dj_status read_drive(sqlite3 *db, sqlite3_stmt *q, dj_store_drive *d) {
  const int64_t id = sqlite3_column_int64(q, 0);
  dj__sql_text(q, 1, d->name, sizeof d->name);
  dj__sql_text(q, 2, d->format, sizeof d->format);
  dj__sql_text(q, 3, d->digest, sizeof d->digest);
  dj__sql_text(q, 4, d->source_digest, sizeof d->source_digest);
  dj__sql_text(q, 5, d->source, sizeof d->source);
  d->log_bytes = dj__sql_u64(q, 6);
  d->n_frames = dj__sql_u64(q, 7);
  d->start_ns = dj__sql_u64(q, 8);
  d->end_ns = dj__sql_u64(q, 9);
  d->n_controls = dj__sql_u64(q, 10);
  d->n_speeds = dj__sql_u64(q, 11);
  d->n_poses = dj__sql_u64(q, 12);
  d->n_skipped = dj__sql_u64(q, 13);
  d->labels = (uint32_t)dj__sql_u64(q, 14);
  // Names become file names: one that could not have been written by us is not followed.
  if (!dj__drive_name_ok(d->name))
    return dj_error(DJ_E_FORMAT,
                    "%s: bad drive name '%.70s': make the catalogue anew with 'dojo store rebuild'",
                    sqlite3_db_filename(db, "main"), d->name);
  DJ_TRY(read_cameras(db, id, d));
  return read_clips(db, id, d);
}

dj_status dj__catalogue_drives(sqlite3 *db, const char *key, dj_store_drive **drives, size_t *n) {
  *drives = NULL;
  *n = 0;
  sqlite3_stmt *q;
  DJ_TRY(dj__sql_query(db, &q,
                       "SELECT id, name, format, digest, source_digest, source, log_bytes,"
                       " n_frames, start_ns, end_ns, n_controls, n_speeds, n_poses, n_skipped,"
                       " labels FROM drives WHERE ?1 IS NULL OR name = ?1 OR digest = ?1"
                       " OR source_digest = ?1 ORDER BY name",
                       "t", key));
  size_t cap = 0;
  dj_status s = DJ_OK;
  for (bool row;;) {
    s = dj__sql_next(&q, &row);
    if (s || !row) break;
    if (*n == cap) {
      cap = cap ? 2 * cap : 16;
      dj_store_drive *grown = realloc(*drives, cap * sizeof *grown);
      if (!grown) {
        s = dj_error(DJ_E_NOMEM, "catalogue: no memory for %zu drives", cap);
        break;
      }
      *drives = grown;
    }
    dj_store_drive *d = &(*drives)[(*n)++];
    *d = (dj_store_drive){0};
    s = read_drive(db, q, d);
    if (s) break;
  }
  if (!s) return DJ_OK;
  sqlite3_finalize(q);
  dj_store_drives_free(*drives, *n);
  *drives = NULL;
  *n = 0;
  return s;
}

void dj_store_drives_free(dj_store_drive *drives, size_t n) {
  for (size_t i = 0; i < n; i++) free(drives[i].clips);
  free(drives);
}
