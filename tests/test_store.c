/* The store: its catalogue says what the logs hold and can always be made anew from them; splits
 * are contiguous blocks with gaps; damage, crashes and other processes are met with an error or the
 * truth. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "drive_fixture.h"
#include "fleet/split.h"
#include <sqlite3.h>

static const uint64_t t0 = 1600000000000000000ull;
enum { STEP_NS = 50000000 };

/* A log of n frames at 20 Hz with the labels asked for; controls end at frame n_controls. */
static void write_log(const char *path, const char *name, int n, uint32_t labels, int n_controls) {
  dj_drive_info info = {.format = "test", .source = "made by a test", .n_cameras = 1};
  (void)snprintf(info.name, sizeof info.name, "%s", name);
  (void)snprintf(info.source_digest, sizeof info.source_digest, "source-of-%s", name);
  info.cameras[0] = (dj_camera){.name = "front",
                                .width = FX_W,
                                .height = FX_H,
                                .K = {20, 0, 16, 0, 20, 12, 0, 0, 1},
                                .rotation = {0, 0, 0, 1}};
  dj_drive_writer *w;
  fx_ok(dj_drive_writer_open(path, &info, &w));
  uint8_t rgb[FX_W * FX_H * 3], *jpeg;
  size_t size;
  for (int i = 0; i < n; i++) {
    uint64_t t = t0 + (uint64_t)i * STEP_NS;
    fx_fill(i, FX_W, FX_H, rgb);
    fx_ok(dj__jpeg_encode(rgb, FX_W, FX_H, 80, &jpeg, &size));
    fx_ok(dj_drive_write_image(w, 0, t, "jpeg", jpeg, size));
    free(jpeg);
    if (labels & DJ_LABEL_CONTROL && i < n_controls)
      fx_ok(dj_drive_write_control(w, &(dj_control){t, 0.1, 0.2, NAN, NAN}));
    if (labels & DJ_LABEL_SPEED) fx_ok(dj_drive_write_speed(w, &(dj_speed){t, 3}));
    if (labels & DJ_LABEL_PATH)
      fx_ok(dj_drive_write_pose(w, &(dj_pose){t, {0.15 * i, 0, 0}, {0, 0, 0, 1}}));
  }
  fx_ok(dj_drive_writer_close(w, 2));
}

static dj_store *open_new(const char *path) {
  dj_store *s;
  fx_ok(dj_store_open(path, DJ_STORE_CREATE, &s));
  return s;
}

static void add(dj_store *s, const char *name, int n, uint32_t labels) {
  char *log = dj_store_log_path(s, name);
  assert_non_null(log);
  write_log(log, name, n, labels, n);
  fx_ok(dj_store_add_log(s, log));
  free(log);
}

static char *dump(dj_store *s) {
  char *text;
  fx_ok(dj_store_dump(s, &text));
  return text;
}

// ---- splits -------------------------------------------------------------------------------------

/* Blocks in order, contiguous within, a gap between that no training window reaches over. */
static void split_rules(void **state) {
  (void)state;
  static uint64_t t[5000];
  static const dj_split_options kinds[] = {{0.7, 0.1, 0.2, 1.0}, {0.8, 0, 0.2, 0.5},
                                           {0, 0, 1, 1},         {1, 0, 0, 1},
                                           {0.5, 0.5, 0, 0},     {0.34, 0.33, 0.33, 1e6}};
  static const size_t sizes[] = {0, 1, 29, 30, 31, 100, 999, 5000};
  for (size_t a = 0; a < sizeof kinds / sizeof *kinds; a++)
    for (size_t b = 0; b < sizeof sizes / sizeof *sizes; b++) {
      const dj_split_options *o = &kinds[a];
      size_t n = sizes[b], total = 0;
      for (size_t i = 0; i < n; i++) t[i] = t0 + i * STEP_NS + (i * 7919 % 13) * 1000;
      dj__block blocks[DJ__N_SPLITS];
      int k = dj__split_cut(t, n, o, blocks);
      if (n == 0) assert_int_equal(k, 0);
      if (n > 0 && n < 30) assert_int_equal(k, 1);
      double gap = fmin(o->gap_s, n ? 0.02 * (double)(t[n - 1] - t[0]) * 1e-9 : 0);
      for (int i = 0; i < k; i++) {
        assert_true(blocks[i].n > 0 && blocks[i].first + blocks[i].n <= n);
        total += blocks[i].n;
        if (!i) continue;
        assert_true(blocks[i].split > blocks[i - 1].split);
        uint64_t end = blocks[i - 1].first + blocks[i - 1].n - 1, next = blocks[i].first;
        assert_true(next > end);
        double apart = (double)(t[next] - t[end]) * 1e-9;
        assert_true(apart >= gap - 1e-9);
        assert_true(apart < gap + 0.11); // and not much more than it has to be
      }
      assert_true(total <= n);
      if (n < 30) continue;
      size_t want_test = (size_t)llround(o->test * (double)n);
      if (want_test) {
        assert_int_equal(blocks[k - 1].split, 2);
        assert_int_equal(blocks[k - 1].n, want_test); // the test block is never shortened
        assert_int_equal(blocks[k - 1].first + blocks[k - 1].n, n);
      }
    }
  // Frames that all have one time: no gap can be cut, nothing loops or divides by zero.
  for (size_t i = 0; i < 100; i++) t[i] = t0;
  dj__block blocks[DJ__N_SPLITS];
  assert_int_equal(dj__split_cut(t, 100, &dj_split_default, blocks), 3);
  static const dj_split_options bad[] = {{0.7, 0.1, 0.1, 1},   {1.5, -0.5, 0, 1},
                                         {NAN, 0, 1, 1},       {0.7, 0.1, 0.2, -1},
                                         {0.7, 0.1, 0.2, NAN}, {0.7, 0.1, 0.2, INFINITY}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    FX_ERROR(dj__split_check(&bad[i]), DJ_E_INVALID, "split: ");
}

static void clips(void **state) {
  dj_store *s = open_new(fx_path(*state, "S"));
  char *log = dj_store_log_path(s, "half");
  write_log(log, "half", 200, DJ_LABEL_CONTROL | DJ_LABEL_SPEED, 100); // steering breaks off
  fx_ok(dj_store_add_log(s, log));
  free(log);
  dj_store_drive *d;
  fx_ok(dj_store_find(s, "half", &d));
  assert_int_equal(d->n_frames, 200);
  assert_int_equal(d->n_controls, 100);
  assert_int_equal(d->n_skipped, 2);
  assert_int_equal(d->labels, DJ_LABEL_CONTROL | DJ_LABEL_SPEED);
  assert_int_equal(d->n_clips, 3);
  assert_string_equal(d->clips[0].split, "train");
  assert_int_equal(d->clips[0].labels, DJ_LABEL_CONTROL | DJ_LABEL_SPEED);
  assert_string_equal(d->clips[2].split, "test");
  assert_int_equal(d->clips[2].labels, DJ_LABEL_SPEED);
  assert_int_equal(d->clips[2].first_frame, 160);
  assert_int_equal(d->clips[2].n_frames, 40);
  assert_int_equal(d->clips[2].start_ns, t0 + 160ull * STEP_NS);
  assert_int_equal(d->clips[2].end_ns, t0 + 199ull * STEP_NS);
  char digest[65];
  memcpy(digest, d->digest, sizeof digest);
  dj_store_drives_free(d, 1);
  fx_ok(dj_store_find(s, digest, &d)); // also by the log's digest, and by its source's
  dj_store_drives_free(d, 1);
  fx_ok(dj_store_find(s, "source-of-half", &d));
  dj_store_drives_free(d, 1);
  FX_ERROR(dj_store_find(s, "nobody", &d), DJ_E_NOT_FOUND, "no drive 'nobody'");
  dj_store_close(s);
}

static void choosing_splits(void **state) {
  const char *path = fx_path(*state, "S");
  dj_store *s = open_new(path);
  add(s, "a", 100, DJ_LABEL_CONTROL);
  add(s, "b", 100, DJ_LABEL_CONTROL);
  fx_ok(dj_store_set_split(s, "a", &(dj_split_options){0, 0, 1, 1}));
  dj_store_drive *d;
  size_t n;
  fx_ok(dj_store_drives(s, &d, &n));
  assert_int_equal(n, 2);
  assert_int_equal(d[0].n_clips, 1);
  assert_string_equal(d[0].clips[0].split, "test");
  assert_int_equal(d[0].clips[0].n_frames, 100);
  assert_int_equal(d[1].n_clips, 3);
  dj_store_drives_free(d, n);
  fx_ok(dj_store_set_split(s, NULL, &(dj_split_options){0.5, 0, 0.5, 0})); // 'a' keeps its own
  fx_ok(dj_store_drives(s, &d, &n));
  assert_int_equal(d[0].n_clips, 1);
  assert_int_equal(d[1].n_clips, 2);
  assert_int_equal(d[1].clips[0].n_frames, 50);
  dj_store_drives_free(d, n);
  char *before = dump(s), *config = fx_read(fx_path(path, "store.json"), NULL);
  FX_ERROR(dj_store_set_split(s, NULL, &(dj_split_options){0.5, 0, 0.6, 0}), DJ_E_INVALID,
           "sum to 1.1");
  FX_ERROR(dj_store_set_split(s, "c", &dj_split_default), DJ_E_NOT_FOUND, "'c'");
  // A log that is gone: the change is taken back, in the catalogue and in store.json.
  assert_int_equal(rename(fx_path(path, "logs/b.mcap"), fx_path(path, "b")), 0);
  FX_ERROR(dj_store_set_split(s, NULL, &dj_split_default), DJ_E_NOT_FOUND, "b.mcap");
  char *after = dump(s), *config_after = fx_read(fx_path(path, "store.json"), NULL);
  assert_string_equal(before, after);
  assert_string_equal(config, config_after);
  free(before);
  free(after);
  free(config);
  free(config_after);
  dj_store_close(s);
}

static void broken_config(void **state) {
  static const struct {
    const char *text, *what;
  } cases[] = {{"", "store.json"},
               {"[]", "store.json: no \"version\": 1"},
               {"{\"version\": 2}", "no \"version\": 1"},
               {"{\"version\": 1, \"splits\": {}}", "unknown key 'splits'"},
               {"{\"version\": 1, \"split\": {\"train\": \"x\"}}", "'train' is no number"},
               {"{\"version\": 1, \"split\": {\"trian\": 1}}", "unknown key 'trian'"},
               {"{\"version\": 1, \"split\": {\"train\": 2}}", "the share of train is 2"},
               {"{\"version\": 1, \"drives\": []}", "\"drives\" is no object"},
               {"{\"version\": 1, \"drives\": {\"a\": 3}}", "drive 'a'"},
               {"{\"version\": 1,\n\n\"version\": 1}", "store.json:3: "}};
  const char *path = fx_path(*state, "S");
  dj_store *s = open_new(path);
  add(s, "a", 40, DJ_LABEL_CONTROL);
  char *log = dj_store_log_path(s, "a");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    fx_write(fx_path(path, "store.json"), cases[i].text);
    FX_ERROR(dj_store_add_log(s, log), DJ_E_FORMAT, cases[i].what);
  }
  free(log);
  dj_store_close(s);
}

// ---- adding and removing
// --------------------------------------------------------------------------

static void adding(void **state) {
  const char *path = fx_path(*state, "S"), *elsewhere = fx_path(*state, "elsewhere.mcap");
  dj_store *s = open_new(path);
  write_log(elsewhere, "one", 40, DJ_LABEL_SPEED, 0);
  fx_ok(dj_store_add_log(s, elsewhere)); // is copied to where it belongs
  assert_true(dj__exists(fx_path(path, "logs/one.mcap")));
  char *before = dump(s);
  fx_ok(dj_store_add_log(s, elsewhere));
  fx_ok(dj_store_add_log(s, fx_path(path, "logs/one.mcap")));
  char *after = dump(s);
  assert_string_equal(before, after);
  free(before);
  free(after);
  write_log(elsewhere, "one", 41, DJ_LABEL_SPEED, 0); // another drive of that name
  FX_ERROR(dj_store_add_log(s, elsewhere), DJ_E_EXISTS, "another drive named 'one'");
  write_log(fx_path(path, "logs/wrong.mcap"), "right", 5, 0, 0);
  FX_ERROR(dj_store_add_log(s, fx_path(path, "logs/wrong.mcap")), DJ_E_FORMAT,
           "rename the file to right.mcap");
  fx_write(elsewhere, "no log");
  FX_ERROR(dj_store_add_log(s, elsewhere), DJ_E_FORMAT, "elsewhere.mcap");
  FX_ERROR(dj_store_add_log(s, fx_path(*state, "none")), DJ_E_NOT_FOUND, "none");
  // A log in its place that was rewritten replaces its entry.
  write_log(fx_path(path, "logs/one.mcap"), "one", 50, DJ_LABEL_SPEED, 0);
  fx_ok(dj_store_add_log(s, fx_path(path, "logs/one.mcap")));
  dj_store_drive *d;
  fx_ok(dj_store_find(s, "one", &d));
  assert_int_equal(d->n_frames, 50);
  dj_store_drives_free(d, 1);
  static const char *const names[] = {"../x", "", "A", "a/b", "x.mcap", NULL};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    assert_null(dj_store_log_path(s, names[i]));
    FX_ERROR(dj_store_remove(s, names[i]), names[i] && *names[i] ? DJ_E_NOT_FOUND : DJ_E_INVALID,
             "no drive");
  }
  fx_ok(dj_store_set_split(s, "one", &(dj_split_options){1, 0, 0, 0}));
  fx_ok(dj_store_remove(s, "one"));
  assert_false(dj__exists(fx_path(path, "logs/one.mcap")));
  dj_split_options o;
  fx_ok(dj_store_get_split(s, "one", &o));
  fx_near(o.train, dj_split_default.train, 0); // its options went with it
  FX_ERROR(dj_store_remove(s, "one"), DJ_E_NOT_FOUND, "'one'");
  dj_store_close(s);
}

static void nothing_there(void **state) {
  dj_store *s;
  FX_ERROR(dj_store_open(fx_path(*state, "none"), DJ_STORE_EXISTING, &s), DJ_E_NOT_FOUND,
           "no store there", "dojo ingest");
  assert_false(dj__exists(fx_path(*state, "none")));
  FX_ERROR(dj_store_open("", DJ_STORE_CREATE, &s), DJ_E_INVALID, "--store");
  FX_ERROR(dj_store_rebuild(fx_path(*state, "none"), false, NULL), DJ_E_NOT_FOUND,
           "no store there");
  fx_write(fx_path(*state, "file"), "x");
  assert_true(dj_store_open(fx_path(*state, "file"), DJ_STORE_CREATE, &s) != DJ_OK);
}

// ---- rebuilding
// -----------------------------------------------------------------------------------

/* A store with drives, splits, runs, models and scores. */
static dj_store *make_store(const char *path) {
  dj_store *s = open_new(path);
  add(s, "a", 100, DJ_LABEL_CONTROL | DJ_LABEL_SPEED);
  add(s, "b", 60, DJ_LABEL_PATH);
  add(s, "short", 12, DJ_LABEL_CONTROL);
  fx_ok(dj_store_set_split(s, "b", &(dj_split_options){0.5, 0.25, 0.25, 0.1}));
  dj_store_run run = {.name = "run-1",
                      .path = "/runs/ä 1",
                      .recipe = "donkey",
                      .dataset = "d1",
                      .created_s = 1234567890123};
  dj_clip_ref refs[2] = {
      {.drive = "a", .drive_digest = "xx", .clip = 0, .n_frames = 60},
      {.drive = "b", .drive_digest = "yy", .clip = 1, .first_frame = 30, .n_frames = 14}};
  fx_ok(dj_store_record_run(s, &run, refs, 2));
  dj_store_model model = {
      .run = "run-1", .digest = "w1", .step = 500, .path = "weights.safetensors"};
  fx_ok(dj_store_record_model(s, &model));
  dj_store_score scores[2] = {{.run = "run-1",
                               .digest = "w1",
                               .split = "test",
                               .metric = "steering.mae",
                               .value = 0.1 / 3,
                               .low = 0.01,
                               .high = NAN},
                              {.run = "run-1",
                               .digest = "w1",
                               .split = "test",
                               .metric = "path.ade",
                               .value = NAN,
                               .low = NAN,
                               .high = NAN}};
  fx_ok(dj_store_record_score(s, scores, 2));
  return s;
}

static void rebuild(void **state) {
  const char *path = fx_path(*state, "S");
  dj_store *s = make_store(path);
  char *want = dump(s);
  dj_store_close(s);
  assert_non_null(strstr(want, "run_clip run-1 b yy 1 first=30 n=14"));
  assert_non_null(strstr(want, "score run-1 w1 test steering.mae 0.03333333333333333"));
  static const char *const harm[] = {"none", "gone", "emptied", "cut", "garbage", "bytes", "other"};
  for (size_t i = 0; i < sizeof harm / sizeof *harm; i++) {
    const char *db = fx_path(path, "catalogue.sqlite");
    size_t n;
    char *data = fx_read(db, &n);
    switch (i) {
    case 1:
      assert_int_equal(unlink(db), 0);
      break;
    case 2:
      fx_write(db, "");
      break;
    case 3:
      fx_cut(db, (off_t)(n / 2));
      break;
    case 4:
      fx_write(db, "this is no database, but long enough to be taken for one by its size");
      break;
    case 5:
      for (size_t k = 4096; k < n; k += 97) data[k] = (char)~data[k];
      fx_write_bytes(db, data, n);
      break;
    case 6: { // a database, but somebody else's
      sqlite3 *other;
      assert_int_equal(unlink(db), 0);
      assert_int_equal(sqlite3_open(db, &other), SQLITE_OK);
      assert_int_equal(sqlite3_exec(other, "CREATE TABLE t(x)", NULL, NULL, NULL), SQLITE_OK);
      sqlite3_close(other);
      // It is not touched, only refused.
      FX_ERROR(dj_store_open(path, DJ_STORE_EXISTING, &s), DJ_E_FORMAT, "not a catalogue",
               "dojo store rebuild");
      break;
    }
    default:
      break;
    }
    free(data);
    size_t bad = 9;
    fx_ok(dj_store_rebuild(path, false, &bad));
    assert_int_equal(bad, 0);
    fx_ok(dj_store_open(path, DJ_STORE_EXISTING, &s));
    char *have = dump(s);
    if (strcmp(have, want) != 0) fail_msg("after '%s': %s\nwanted: %s", harm[i], have, want);
    free(have);
    size_t problems;
    fx_ok(dj_store_check(s, true, NULL, NULL, &problems));
    assert_int_equal(problems, 0);
    dj_store_close(s);
  }
  // Without a catalogue a store is rebuilt on the spot.
  assert_int_equal(unlink(fx_path(path, "catalogue.sqlite")), 0);
  fx_ok(dj_store_open(path, DJ_STORE_EXISTING, &s));
  char *have = dump(s);
  assert_string_equal(have, want);
  free(have);
  dj_store_close(s);
  free(want);
}

/* A damaged catalogue is an error when it is read, never a wrong answer or a crash. */
static void corrupted(void **state) {
  const char *path = fx_path(*state, "S"), *db = fx_path(path, "catalogue.sqlite");
  dj_store *s = make_store(path);
  char *want = dump(s);
  dj_store_close(s);
  size_t n, errors = 0, wrong = 0, tried = 0;
  char *data = fx_read(db, &n);
  for (size_t at = 0; at < n; at += 1 + n / 120) {
    char *copy = malloc(n), *have = NULL;
    memcpy(copy, data, n);
    for (size_t k = at; k < at + 16 && k < n; k++) copy[k] = (char)~copy[k];
    fx_write_bytes(db, copy, n);
    free(copy);
    (void)unlink(fx_path(path, "catalogue.sqlite-wal"));
    (void)unlink(fx_path(path, "catalogue.sqlite-shm"));
    tried++;
    dj_status st = dj_store_open(path, DJ_STORE_EXISTING, &s);
    if (!st) {
      st = dj_store_dump(s, &have);
      // What SQLite cannot see, the check can: it compares with the logs.
      if (!st && strcmp(have, want) != 0) {
        size_t problems = 0;
        st = dj_store_check(s, false, NULL, NULL, &problems);
        wrong += !st && problems == 0;
      }
      free(have);
      dj_store_close(s);
    }
    if (st) {
      errors++;
      assert_true(*dj_error_message());
    }
  }
  print_message("%zu damages: %zu errors, %zu in what only runs' files know\n", tried, errors,
                wrong);
  assert_true(errors > 0);
  free(data);
  fx_ok(dj_store_rebuild(path, false, NULL));
  fx_ok(dj_store_open(path, DJ_STORE_EXISTING, &s));
  char *have = dump(s);
  assert_string_equal(have, want);
  free(have);
  free(want);
  dj_store_close(s);
}

static void broken_files(void **state) {
  const char *path = fx_path(*state, "S");
  dj_store *s = make_store(path);
  char *want = dump(s);
  dj_store_close(s);
  size_t bad;
  const char *log = fx_path(path, "logs/a.mcap");
  fx_cut(log, (off_t)(dj__file_size(log) / 2));
  fx_write(fx_path(path, "runs/evil.json"), "{\"version\": 1, \"name\": \"../../x\"}");
  fx_write(fx_path(path, "runs/deep.json"), "[[[[[[[[");
  FX_ERROR(dj_store_rebuild(path, false, &bad), DJ_E_FORMAT, "a.mcap");
  fx_ok(dj_store_open(path, DJ_STORE_EXISTING, &s)); // the catalogue is as it was
  char *have = dump(s);
  assert_string_equal(have, want);
  free(have);
  dj_store_close(s);
  assert_int_equal(mkdir(fx_path(path, "logs/folder.mcap"), 0777), 0);
  fx_ok(dj_store_rebuild(path, true, &bad));
  assert_int_equal(bad, 4);
  assert_int_equal(fx_count_drives(path), 2);
  free(want);
}

static void note(void *user, const char *what, const char *problem) {
  char *all = user;
  (void)snprintf(all + strlen(all), 4000 - strlen(all), "%s: %s\n", what, problem);
}

static void checking(void **state) {
  const char *path = fx_path(*state, "S");
  dj_store *s = make_store(path);
  size_t n;
  char text[4000] = "";
  fx_write(fx_path(path, "logs/x.mcap.tmp"), "left by a crash");
  write_log(fx_path(path, "logs/stray.mcap"), "stray", 5, 0, 0);
  assert_int_equal(unlink(fx_path(path, "logs/short.mcap")), 0);
  write_log(fx_path(path, "logs/b.mcap"), "b", 61, 0, 0);
  fx_ok(dj_store_check(s, false, note, text, &n));
  assert_int_equal(n, 4);
  assert_non_null(strstr(text, "x.mcap.tmp: not a log"));
  assert_non_null(strstr(text, "stray.mcap: a log that is not in the catalogue"));
  assert_non_null(strstr(text, "short: its log is missing"));
  assert_non_null(strstr(text, "b: its log has changed"));
  dj_store_close(s);
}

// ---- runs
// -----------------------------------------------------------------------------------------

static void runs(void **state) {
  dj_store *s = make_store(fx_path(*state, "S"));
  static const char *const bad[] = {"", "../x", "a/b", ".x", "a b", "a\nb"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    dj_store_run r = {.path = "p", .recipe = "r", .dataset = "d"};
    (void)snprintf(r.name, sizeof r.name, "%s", bad[i]);
    FX_ERROR(dj_store_record_run(s, &r, NULL, 0), DJ_E_INVALID, "run name");
  }
  dj_store_model m = {.run = "nobody", .digest = "x"};
  FX_ERROR(dj_store_record_model(s, &m), DJ_E_NOT_FOUND, "no run 'nobody'");
  dj_store_score c[2] = {
      {.run = "run-1", .digest = "w1", .split = "test", .metric = "m", .value = 1},
      {.run = "nobody"}};
  FX_ERROR(dj_store_record_score(s, c, 2), DJ_E_NOT_FOUND, "no run 'nobody'");
  dj_store_score *scores;
  size_t n;
  fx_ok(dj_store_scores(s, "run-1", &scores, &n));
  assert_int_equal(n, 2); // all or none: the first of the two was taken back
  free(scores);
  dj_store_run again = {.name = "run-1", .path = "elsewhere", .recipe = "r", .dataset = "d2"};
  fx_ok(dj_store_record_run(s, &again, NULL, 0)); // replaces run and clips, keeps models and scores
  dj_clip_ref *clip;
  dj_store_model *models;
  fx_ok(dj_store_run_clips(s, "run-1", &clip, &n));
  assert_int_equal(n, 0);
  free(clip);
  fx_ok(dj_store_models(s, NULL, &models, &n));
  assert_int_equal(n, 1);
  assert_int_equal(models[0].step, 500);
  free(models);
  dj_store_close(s);
}

// ---- several processes, kills
// ---------------------------------------------------------------------

/* Writers in several processes at once: every record of all of them arrives. */
static void two_processes(void **state) {
  enum { WRITERS = 3, EACH = 12 };
  const char *path = fx_path(*state, "S");
  dj_store_close(make_store(path));
  pid_t pid[WRITERS];
  for (int w = 0; w < WRITERS; w++) {
    pid[w] = fork();
    assert_true(pid[w] >= 0);
    if (pid[w]) continue;
    int bad = 0;
    for (int i = 0; i < EACH; i++) {
      dj_store *s;
      dj_store_score c = {.run = "run-1", .digest = "w1", .split = "test", .value = i};
      (void)snprintf(c.metric, sizeof c.metric, "m-%d-%d", w, i);
      bad += dj_store_open(path, DJ_STORE_EXISTING, &s) != DJ_OK;
      if (bad) _exit(1);
      bad += dj_store_record_score(s, &c, 1) != DJ_OK;
      dj_store_drive *d;
      size_t n;
      bad += dj_store_drives(s, &d, &n) != DJ_OK || n != 3;
      dj_store_drives_free(d, n);
      dj_store_close(s);
    }
    _exit(bad);
  }
  for (int w = 0; w < WRITERS; w++) {
    int status;
    assert_int_equal(waitpid(pid[w], &status, 0), pid[w]);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  dj_store *s;
  dj_store_score *scores;
  size_t n;
  fx_ok(dj_store_open(path, DJ_STORE_EXISTING, &s));
  fx_ok(dj_store_scores(s, "run-1", &scores, &n));
  assert_int_equal(n, 2 + WRITERS * EACH);
  free(scores);
  char *before = dump(s);
  dj_store_close(s);
  fx_ok(dj_store_rebuild(path, false, NULL)); // and the run's file has them all too
  char *after = fx_dump(path);
  assert_string_equal(before, after);
  free(before);
  free(after);
}

/* Killed while it records: each time the catalogue opens, and a rebuild gives what the files say.
 */
static void killed(void **state) {
  const char *path = fx_path(*state, "S");
  dj_store_close(make_store(path));
  for (int round = 0; round < 8; round++) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
      dj_store *s;
      if (dj_store_open(path, DJ_STORE_EXISTING, &s)) _exit(1);
      for (int i = 0;; i++) {
        dj_store_score c = {.run = "run-1", .digest = "w1", .split = "test", .value = i};
        (void)snprintf(c.metric, sizeof c.metric, "k-%d-%d", round, i % 5);
        if (dj_store_record_score(s, &c, 1)) _exit(1);
      }
    }
    (void)usleep((useconds_t)(4000 + 5000 * round));
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    char *left = fx_dump(path);
    free(left);
    fx_ok(dj_store_rebuild(path, false, NULL));
    char *a = fx_dump(path);
    fx_ok(dj_store_rebuild(path, false, NULL));
    char *b = fx_dump(path);
    assert_string_equal(a, b);
    free(a);
    free(b);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(split_rules),
      FX_TEST(clips),
      FX_TEST(choosing_splits),
      FX_TEST(broken_config),
      FX_TEST(adding),
      FX_TEST(nothing_there),
      FX_TEST(rebuild),
      FX_TEST(corrupted),
      FX_TEST(broken_files),
      FX_TEST(checking),
      FX_TEST(runs),
      FX_TEST(two_processes),
      FX_TEST(killed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
