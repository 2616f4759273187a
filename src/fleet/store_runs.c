/*
 * What was trained on a store: runs, the clips they learned from, their weights, their scores.
 *
 * None of this can be made again from the logs, so the truth is one file a run, S/runs/NAME.json,
 * written whole (temporary name, rename) inside the transaction that changes the rows. The tables
 * only make it searchable; `rebuild` reads the files back.
 */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "dojo/store.h"
#include "fleet/catalogue.h"

enum { MAX_RUN_FILE = 64 << 20 };

/* A run's name becomes a file name. */
static dj_status check_run_name(const char *name) {
  size_t n = strnlen(name, DJ_RUN_NAME_BYTES);
  bool ok = n > 0 && n < DJ_RUN_NAME_BYTES && name[0] != '.';
  for (size_t i = 0; i < n && ok; i++)
    ok = (unsigned char)name[i] > 0x20 && name[i] != 0x7f && name[i] != '/';
  if (ok) return DJ_OK;
  return dj_error(DJ_E_INVALID,
                  "run name '%.128s': 1 to %d characters without spaces, control characters and "
                  "'/', not beginning with '.'",
                  name, DJ_RUN_NAME_BYTES - 1);
}

static char *run_file(const dj_store *s, const char *run) {
  return dj__strf("%s/runs/%s.json", s->path, run);
}

// ---- lists
// ------------------------------------------------------------------------------------------

/* Collects a query's rows into an array; `read` fills one row. */
static dj_status collect(dj_store *s, const char *sql, const char *run, size_t bytes,
                         void (*read)(sqlite3_stmt *, void *), void **rows, size_t *n) {
  *rows = NULL;
  *n = 0;
  sqlite3_stmt *q;
  DJ_TRY(dj__sql_query(s->db, &q, sql, "t", run));
  size_t cap = 0;
  for (bool row;;) {
    dj_status st = dj__sql_next(&q, &row);
    if (!st && !row) return DJ_OK;
    if (!st && *n == cap) {
      cap = cap ? 2 * cap : 16;
      void *grown = realloc(*rows, cap * bytes);
      if (grown)
        *rows = grown;
      else
        st = dj_error(DJ_E_NOMEM, "catalogue: no memory for %zu rows", cap);
    }
    if (st) {
      sqlite3_finalize(q);
      free(*rows);
      *rows = NULL;
      *n = 0;
      return st;
    }
    void *at = (char *)*rows + (*n)++ * bytes;
    memset(at, 0, bytes);
    read(q, at);
  }
}

static void read_run(sqlite3_stmt *q, void *out) {
  dj_store_run *r = out;
  dj__sql_text(q, 0, r->name, sizeof r->name);
  dj__sql_text(q, 1, r->path, sizeof r->path);
  dj__sql_text(q, 2, r->recipe, sizeof r->recipe);
  dj__sql_text(q, 3, r->dataset, sizeof r->dataset);
  r->created_s = sqlite3_column_int64(q, 4);
}
static void read_model(sqlite3_stmt *q, void *out) {
  dj_store_model *m = out;
  dj__sql_text(q, 0, m->run, sizeof m->run);
  dj__sql_text(q, 1, m->digest, sizeof m->digest);
  m->step = dj__sql_u64(q, 2);
  dj__sql_text(q, 3, m->path, sizeof m->path);
}
static void read_score(sqlite3_stmt *q, void *out) {
  dj_store_score *c = out;
  dj__sql_text(q, 0, c->run, sizeof c->run);
  dj__sql_text(q, 1, c->digest, sizeof c->digest);
  dj__sql_text(q, 2, c->split, sizeof c->split);
  dj__sql_text(q, 3, c->metric, sizeof c->metric);
  c->value = dj__sql_double(q, 4);
  c->low = dj__sql_double(q, 5);
  c->high = dj__sql_double(q, 6);
}
static void read_clip(sqlite3_stmt *q, void *out) {
  dj_clip_ref *c = out;
  dj__sql_text(q, 0, c->drive, sizeof c->drive);
  dj__sql_text(q, 1, c->drive_digest, sizeof c->drive_digest);
  c->clip = sqlite3_column_int(q, 2);
  c->first_frame = dj__sql_u64(q, 3);
  c->n_frames = dj__sql_u64(q, 4);
}

static dj_status list_runs(dj_store *s, const char *run, dj_store_run **runs, size_t *n) {
  return collect(s,
                 "SELECT name, path, recipe, dataset, created_s FROM runs"
                 " WHERE ?1 IS NULL OR name = ?1 ORDER BY name",
                 run, sizeof **runs, read_run, (void **)runs, n);
}
dj_status dj_store_runs(dj_store *s, dj_store_run **runs, size_t *n) {
  return list_runs(s, NULL, runs, n);
}
dj_status dj_store_models(dj_store *s, const char *run, dj_store_model **models, size_t *n) {
  return collect(s,
                 "SELECT run, digest, step, path FROM models WHERE ?1 IS NULL OR run = ?1"
                 " ORDER BY run, step, digest",
                 run, sizeof **models, read_model, (void **)models, n);
}
dj_status dj_store_scores(dj_store *s, const char *run, dj_store_score **scores, size_t *n) {
  return collect(s,
                 "SELECT run, digest, split, metric, value, low, high FROM scores"
                 " WHERE ?1 IS NULL OR run = ?1 ORDER BY run, digest, split, metric",
                 run, sizeof **scores, read_score, (void **)scores, n);
}
dj_status dj_store_run_clips(dj_store *s, const char *run, dj_clip_ref **clips, size_t *n) {
  return collect(s,
                 "SELECT drive, digest, clip, first_frame, n_frames FROM run_clips"
                 " WHERE run = ?1 ORDER BY drive, digest, clip, first_frame",
                 run, sizeof **clips, read_clip, (void **)clips, n);
}

// ---- the run's file
// -----------------------------------------------------------------------------------

static json_t *number(double v) {
  return isfinite(v) ? json_real(v) : json_null();
}

/* json_pack gives NULL for text that is not UTF-8, and the entry would be missing. */
static dj_status all_there(const json_t *list, size_t n) {
  if (json_array_size(list) == n) return DJ_OK;
  return dj_error(DJ_E_INVALID, "store: a text to record is not UTF-8, or no memory");
}

static dj_status clips_json(dj_store *s, const char *run, json_t *to) {
  dj_clip_ref *c;
  size_t n;
  DJ_TRY(dj_store_run_clips(s, run, &c, &n));
  for (size_t i = 0; i < n; i++)
    json_array_append_new(to, json_pack("{s:s,s:s,s:i,s:I,s:I}", "drive", c[i].drive, "digest",
                                        c[i].drive_digest, "clip", c[i].clip, "first_frame",
                                        (json_int_t)c[i].first_frame, "n_frames",
                                        (json_int_t)c[i].n_frames));
  free(c);
  return all_there(to, n);
}

static dj_status models_json(dj_store *s, const char *run, json_t *to) {
  dj_store_model *m;
  size_t n;
  DJ_TRY(dj_store_models(s, run, &m, &n));
  for (size_t i = 0; i < n; i++)
    json_array_append_new(to, json_pack("{s:s,s:I,s:s}", "digest", m[i].digest, "step",
                                        (json_int_t)m[i].step, "path", m[i].path));
  free(m);
  return all_there(to, n);
}

static dj_status scores_json(dj_store *s, const char *run, json_t *to) {
  dj_store_score *c;
  size_t n;
  DJ_TRY(dj_store_scores(s, run, &c, &n));
  for (size_t i = 0; i < n; i++)
    json_array_append_new(to,
                          json_pack("{s:s,s:s,s:s,s:o,s:o,s:o}", "digest", c[i].digest, "split",
                                    c[i].split, "metric", c[i].metric, "value", number(c[i].value),
                                    "low", number(c[i].low), "high", number(c[i].high)));
  free(c);
  return all_there(to, n);
}

/* Writes S/runs/RUN.json from the rows (within the caller's transaction). */
static dj_status save_run(dj_store *s, const char *run) {
  dj_store_run *r;
  size_t n;
  DJ_TRY(list_runs(s, run, &r, &n));
  if (n == 0)
    return dj_error(DJ_E_NOT_FOUND, "%s: no run '%s'; record the run first", s->path, run);
  json_t *clips = json_array(), *models = json_array(), *scores = json_array();
  dj_status st = clips_json(s, run, clips);
  if (!st) st = models_json(s, run, models);
  if (!st) st = scores_json(s, run, scores);
  json_t *root =
      json_pack("{s:i,s:s,s:s,s:s,s:s,s:I,s:o,s:o,s:o}", "version", 1, "name", r->name, "path",
                r->path, "recipe", r->recipe, "dataset", r->dataset, "created_s",
                (json_int_t)r->created_s, "clips", clips, "models", models, "scores", scores);
  char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
  char *file = run_file(s, run);
  if (!st)
    st = text ? dj__write_file_atomic(file, text, strlen(text))
              : dj_error(DJ_E_INVALID, "%s: run '%s': a text is not UTF-8, or no memory", s->path,
                         run);
  free(text);
  free(file);
  json_decref(root);
  free(r);
  return st;
}

// ---- recording
// ------------------------------------------------------------------------------------------

static dj_status put_run(dj_store *s, const dj_store_run *r) {
  return dj__sql_run(s->db,
                     "INSERT INTO runs VALUES(?,?,?,?,?) ON CONFLICT(name) DO UPDATE SET"
                     " path = excluded.path, recipe = excluded.recipe, dataset = excluded.dataset,"
                     " created_s = excluded.created_s",
                     "tttti", r->name, r->path, r->recipe, r->dataset, r->created_s);
}
static dj_status put_clip(dj_store *s, const char *run, const dj_clip_ref *c) {
  return dj__sql_run(s->db, "INSERT OR REPLACE INTO run_clips VALUES(?,?,?,?,?,?)", "tttiuu", run,
                     c->drive, c->drive_digest, (int64_t)c->clip, c->first_frame, c->n_frames);
}
static dj_status put_model(dj_store *s, const dj_store_model *m) {
  return dj__sql_run(s->db, "INSERT OR REPLACE INTO models VALUES(?,?,?,?)", "ttut", m->run,
                     m->digest, m->step, m->path);
}
static dj_status put_score(dj_store *s, const dj_store_score *c) {
  return dj__sql_run(s->db, "INSERT OR REPLACE INTO scores VALUES(?,?,?,?,?,?,?)", "ttttddd",
                     c->run, c->digest, c->split, c->metric, c->value, c->low, c->high);
}

/* The run must be there before its models and scores: a plain error instead of SQL's. */
static dj_status need_run(dj_store *s, const char *run) {
  dj_store_run *r;
  size_t n;
  DJ_TRY(list_runs(s, run, &r, &n));
  free(r);
  if (n) return DJ_OK;
  return dj_error(DJ_E_NOT_FOUND, "%s: no run '%.128s' in the catalogue; record the run first",
                  s->path, run);
}

dj_status dj_store_record_run(dj_store *s, const dj_store_run *run, const dj_clip_ref *clips,
                              size_t n_clips) {
  DJ_TRY(check_run_name(run->name));
  DJ_TRY(dj__sql_begin(s->db));
  dj_status st = put_run(s, run);
  if (!st) st = dj__sql_run(s->db, "DELETE FROM run_clips WHERE run = ?", "t", run->name);
  for (size_t i = 0; i < n_clips && !st; i++) st = put_clip(s, run->name, &clips[i]);
  if (!st) st = save_run(s, run->name);
  return dj__sql_end(s->db, st);
}

dj_status dj_store_record_model(dj_store *s, const dj_store_model *m) {
  DJ_TRY(dj__sql_begin(s->db));
  dj_status st = need_run(s, m->run);
  if (!st) st = put_model(s, m);
  if (!st) st = save_run(s, m->run);
  return dj__sql_end(s->db, st);
}

dj_status dj_store_record_score(dj_store *s, const dj_store_score *scores, size_t n) {
  DJ_TRY(dj__sql_begin(s->db));
  dj_status st = DJ_OK;
  for (size_t i = 0; i < n && !st; i++) {
    st = need_run(s, scores[i].run);
    if (!st) st = put_score(s, &scores[i]);
    // One file a run: written after the last score of that run in a row.
    if (!st && (i + 1 == n || strcmp(scores[i].run, scores[i + 1].run) != 0))
      st = save_run(s, scores[i].run);
  }
  return dj__sql_end(s->db, st);
}

// ---- reading the files back
// --------------------------------------------------------------------------

/* Text field of a JSON object into a fixed array; false where it is missing, no text or too long.
 */
static bool get_text(const json_t *j, const char *key, char *out, size_t cap) {
  const char *t = json_string_value(json_object_get(j, key));
  if (!t || strlen(t) >= cap) return false;
  memcpy(out, t, strlen(t) + 1);
  return true;
}
static bool get_count(const json_t *j, const char *key, uint64_t *v) {
  const json_t *x = json_object_get(j, key);
  if (!json_is_integer(x) || json_integer_value(x) < 0) return false;
  *v = (uint64_t)json_integer_value(x);
  return true;
}
static bool get_real(const json_t *j, const char *key, double *v) {
  const json_t *x = json_object_get(j, key);
  *v = json_is_number(x) ? json_number_value(x) : (double)NAN;
  return json_is_number(x) || json_is_null(x);
}

static dj_status bad_entry(const char *file, const char *list, size_t i) {
  return dj_error(DJ_E_FORMAT, "%s: %s[%zu]: a field is missing, of the wrong type or too long",
                  file, list, i);
}

static dj_status load_lists(dj_store *s, const char *file, const char *run, const json_t *root) {
  size_t i;
  const json_t *e;
  uint64_t clip;
  json_array_foreach(json_object_get(root, "clips"), i, e) {
    dj_clip_ref c = {0};
    if (!get_text(e, "drive", c.drive, sizeof c.drive) ||
        !get_text(e, "digest", c.drive_digest, sizeof c.drive_digest) ||
        !get_count(e, "clip", &clip) || clip > INT32_MAX ||
        !get_count(e, "first_frame", &c.first_frame) || !get_count(e, "n_frames", &c.n_frames))
      return bad_entry(file, "clips", i);
    c.clip = (int)clip;
    DJ_TRY(put_clip(s, run, &c));
  }
  json_array_foreach(json_object_get(root, "models"), i, e) {
    dj_store_model m = {0};
    (void)snprintf(m.run, sizeof m.run, "%s", run);
    if (!get_text(e, "digest", m.digest, sizeof m.digest) || !get_count(e, "step", &m.step) ||
        !get_text(e, "path", m.path, sizeof m.path))
      return bad_entry(file, "models", i);
    DJ_TRY(put_model(s, &m));
  }
  json_array_foreach(json_object_get(root, "scores"), i, e) {
    dj_store_score c = {0};
    (void)snprintf(c.run, sizeof c.run, "%s", run);
    if (!get_text(e, "digest", c.digest, sizeof c.digest) ||
        !get_text(e, "split", c.split, sizeof c.split) ||
        !get_text(e, "metric", c.metric, sizeof c.metric) || !get_real(e, "value", &c.value) ||
        !get_real(e, "low", &c.low) || !get_real(e, "high", &c.high))
      return bad_entry(file, "scores", i);
    DJ_TRY(put_score(s, &c));
  }
  return DJ_OK;
}

static dj_status load_parsed(dj_store *s, const char *file, const json_t *root) {
  dj_store_run r = {0};
  const json_t *version = json_object_get(root, "version"),
               *created = json_object_get(root, "created_s");
  if (!json_is_integer(version) || json_integer_value(version) != 1)
    return dj_error(DJ_E_FORMAT, "%s: no \"version\": 1", file);
  if (!get_text(root, "name", r.name, sizeof r.name) ||
      !get_text(root, "path", r.path, sizeof r.path) ||
      !get_text(root, "recipe", r.recipe, sizeof r.recipe) ||
      !get_text(root, "dataset", r.dataset, sizeof r.dataset) || !json_is_integer(created) ||
      !json_is_array(json_object_get(root, "clips")) ||
      !json_is_array(json_object_get(root, "models")) ||
      !json_is_array(json_object_get(root, "scores")))
    return dj_error(DJ_E_FORMAT,
                    "%s: one of name, path, recipe, dataset, created_s, clips, models, scores is "
                    "missing, of the wrong type or too long",
                    file);
  r.created_s = json_integer_value(created);
  if (check_run_name(r.name)) return dj_error_context(DJ_E_FORMAT, "%s", file);
  char *want = run_file(s, r.name);
  bool matches = !strcmp(want, file);
  free(want);
  if (!matches)
    return dj_error(DJ_E_FORMAT, "%s: the file says its run is '%s': rename it", file, r.name);
  DJ_TRY(put_run(s, &r));
  return load_lists(s, file, r.name, root);
}

dj_status dj__store_load_run(dj_store *s, const char *file) {
  char *text;
  size_t size;
  DJ_TRY(dj__read_file(file, MAX_RUN_FILE, &text, &size));
  json_error_t e;
  json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &e);
  free(text);
  if (!root) return dj_error(DJ_E_FORMAT, "%s:%d: %s", file, e.line, e.text);
  dj_status st = dj__sql_run(s->db, "SAVEPOINT run", ""); // a bad file leaves no half of itself
  if (!st) {
    st = load_parsed(s, file, root);
    char *why = st ? dj__strf("%s", dj_error_message()) : NULL;
    if (st) (void)dj__sql_run(s->db, "ROLLBACK TO run", "");
    dj_status released = dj__sql_run(s->db, "RELEASE run", "");
    st = st ? dj_error(st, "%s", why) : released;
    free(why);
  }
  json_decref(root);
  return st;
}

// ---- text dump
// -----------------------------------------------------------------------------------------

dj_status dj__store_dump_runs(dj_store *s, FILE *out) {
  dj_store_run *runs = NULL;
  dj_store_model *models = NULL;
  dj_store_score *scores = NULL;
  size_t n, k;
  DJ_TRY(dj_store_runs(s, &runs, &n));
  dj_status st = DJ_OK;
  for (size_t i = 0; i < n && !st; i++) {
    (void)fprintf(out, "run %s path=%s recipe=%s dataset=%s created=%" PRId64 "\n", runs[i].name,
                  runs[i].path, runs[i].recipe, runs[i].dataset, runs[i].created_s);
    dj_clip_ref *clips;
    st = dj_store_run_clips(s, runs[i].name, &clips, &k);
    for (size_t c = 0; c < k && !st; c++)
      (void)fprintf(out, "run_clip %s %s %s %d first=%" PRIu64 " n=%" PRIu64 "\n", runs[i].name,
                    clips[c].drive, clips[c].drive_digest, clips[c].clip, clips[c].first_frame,
                    clips[c].n_frames);
    if (!st) free(clips);
  }
  free(runs);
  if (!st) st = dj_store_models(s, NULL, &models, &n);
  for (size_t i = 0; i < n && !st; i++)
    (void)fprintf(out, "model %s %s step=%" PRIu64 " path=%s\n", models[i].run, models[i].digest,
                  models[i].step, models[i].path);
  free(models);
  if (!st) st = dj_store_scores(s, NULL, &scores, &n);
  for (size_t i = 0; i < n && !st; i++)
    (void)fprintf(out, "score %s %s %s %s %.17g %.17g %.17g\n", scores[i].run, scores[i].digest,
                  scores[i].split, scores[i].metric, scores[i].value, scores[i].low,
                  scores[i].high);
  free(scores);
  return st;
}
