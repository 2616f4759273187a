/* Importers: what goes into a log is what was recorded, in our units and axes; what is broken is
 * told of with file and line, and with keep_going counted and skipped. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "drive_fixture.h"

// ---- Donkeycar ----------------------------------------------------------------------------------

static void tub(void **state) {
  const char *src = fx_path(*state, "tub"), *store = fx_path(*state, "S");
  fx_tub(src, 40);
  dj_ingest_drive r = fx_import(src, store);
  assert_string_equal(r.name, "tub");
  assert_string_equal(r.format, "donkeycar");
  assert_int_equal(r.n_frames, 40);
  assert_int_equal(r.labels, DJ_LABEL_CONTROL);
  fx_near(r.duration_s, 39 * 0.05, 1e-9);
  dj_drive *d = fx_open(store, "tub");
  const dj_drive_info *info = dj_drive_get_info(d);
  assert_int_equal(info->n_cameras, 1);
  assert_int_equal(info->cameras[0].width, FX_W);
  assert_int_equal(info->cameras[0].height, FX_H);
  assert_false(info->cameras[0].calibrated);
  const uint64_t *t;
  const dj_control *c;
  size_t n, n_c;
  fx_ok(dj_drive_frame_times(d, 0, &t, &n));
  fx_ok(dj_drive_controls(d, &c, &n_c));
  assert_int_equal(n, 40);
  assert_int_equal(n_c, 40);
  for (int i = 0; i < 40; i++) {
    uint8_t rgb[FX_W * FX_H * 3];
    assert_int_equal(t[i], 1600000000000000000ull + 50000000ull * (unsigned)i);
    assert_int_equal(c[i].t_ns, t[i]);
    fx_near(c[i].steering, -fx_angle(i), 0); // ours is positive to the left
    fx_near(c[i].throttle, 0.25, 0);
    assert_true(isnan(c[i].brake));
    fx_ok(dj_drive_read_frame(d, 0, (size_t)i, rgb));
    fx_check_picture(rgb, FX_W, FX_H, i, 6);
  }
  dj_drive_close(d);
}

/* The same source again, under its own name or another, changes nothing. */
static void again(void **state) {
  const char *src = fx_path(*state, "tub"), *store = fx_path(*state, "S");
  fx_tub(src, 20);
  (void)fx_import(src, store);
  char *before = fx_dump(store);
  const char *moved = fx_path(*state, "another-name");
  for (int k = 0; k < 2; k++) {
    dj_ingest_report r;
    fx_ok(fx_ingest(k ? moved : src, store, false, &r));
    assert_int_equal(r.n_already_there, 1);
    assert_int_equal(r.n_imported, 0);
    assert_string_equal(r.drives[0].name, "tub");
    assert_int_equal(r.drives[0].n_frames, 20);
    dj_ingest_report_free(&r);
    char *after = fx_dump(store);
    assert_string_equal(before, after);
    free(after);
    if (!k) assert_int_equal(rename(src, moved), 0);
  }
  free(before);
  // A change of one byte of a picture makes another drive, under a name of its own.
  fx_jpeg(fx_tub_image(moved, 3), 77, FX_W, FX_H);
  assert_string_equal(fx_import(moved, store).name, "another-name");
  assert_int_equal(rename(moved, src), 0);
  fx_jpeg(fx_tub_image(src, 3), 78, FX_W, FX_H);
  assert_string_equal(fx_import(src, store).name, "tub-2");
  assert_int_equal(fx_count_drives(store), 3);
}

/* Breaks a tub, wants the error, and that nothing is left in the store; then with keep_going wants
 * `skipped` records counted and the others imported. */
static void broken_tub(const char *dir, void (*spoil)(const char *src), dj_status want,
                       const char *where, const char *what, int skipped) {
  const char *src = fx_path(dir, "tub"), *store = fx_path(dir, "S");
  fx_remove(src);
  fx_remove(store);
  fx_tub(src, 24);
  spoil(src);
  dj_ingest_report r;
  FX_ERROR(fx_ingest(src, store, false, &r), want, where, what);
  assert_int_equal(r.n_failed, 1);
  assert_int_equal(r.drives[0].outcome, DJ_INGEST_FAILED);
  assert_string_equal(r.drives[0].error, dj_error_message());
  dj_ingest_report_free(&r);
  assert_int_equal(fx_count_drives(store), 0);
  char **names;
  size_t n;
  fx_ok(dj__list_dir(fx_path(store, "logs"), &names, &n));
  assert_int_equal(n, 0);
  dj__free_names(names, n);
  if (skipped < 0) return; // nothing to go on with
  fx_ok(fx_ingest(src, store, true, &r));
  assert_int_equal(r.drives[0].n_skipped, skipped);
  assert_int_equal(r.drives[0].n_frames, 24 - skipped);
  dj_ingest_report_free(&r);
  dj_drive *d = fx_open(store, "tub");
  assert_int_equal(dj_drive_get_info(d)->n_skipped, skipped);
  dj_drive_close(d);
}

static void cut_frame(const char *src) {
  fx_cut(fx_tub_image(src, 7), 400);
}
static void no_frame(const char *src) {
  assert_int_equal(unlink(fx_tub_image(src, 7)), 0);
}
static void empty_frame(const char *src) {
  fx_cut(fx_tub_image(src, 7), 0);
}
static void other_size(const char *src) {
  fx_jpeg(fx_tub_image(src, 7), 1, FX_W * 2, FX_H);
}
static void text_frame(const char *src) {
  fx_write(fx_tub_image(src, 7), "this is not a picture at all");
}
static void huge_frame(const char *src) { // a header that says 60000 x 60000
  char *data;
  size_t n;
  data = fx_read(fx_tub_image(src, 7), &n);
  for (size_t i = 0; i + 9 < n; i++)
    if ((unsigned char)data[i] == 0xff && (unsigned char)data[i + 1] == 0xc0)
      memcpy(data + i + 5, "\xea\x60\xea\x60", 4);
  fx_write_bytes(fx_tub_image(src, 7), data, n);
  free(data);
}
static void pipe_frame(const char *src) { // must not hang
  no_frame(src);
  assert_int_equal(mkfifo(fx_tub_image(src, 7), 0600), 0);
}
static void link_to_itself(const char *src) {
  no_frame(src);
  assert_int_equal(symlink("7_cam_image_array_.jpg", fx_tub_image(src, 7)), 0);
}

static void broken_frames(void **state) {
  const char *dir = *state, *at = "catalog_0.catalog:8: ", *file = "images/7_cam_image_array_.jpg";
  broken_tub(dir, cut_frame, DJ_E_FORMAT, at, file, 1);
  broken_tub(dir, no_frame, DJ_E_NOT_FOUND, at, file, 1);
  broken_tub(dir, empty_frame, DJ_E_FORMAT, at, file, 1);
  broken_tub(dir, other_size, DJ_E_FORMAT, at, "64 x 24 pixels where 32 x 24 were expected", 1);
  broken_tub(dir, text_frame, DJ_E_FORMAT, at, "neither JPEG nor PNG", 1);
  broken_tub(dir, huge_frame, DJ_E_LIMIT, at, "60000 x 60000 pixels", 1);
  broken_tub(dir, pipe_frame, DJ_E_INVALID, at, "not a regular file", 1);
  broken_tub(dir, link_to_itself, DJ_E_NOT_FOUND, at, file, 1);
}

/* A name of the record with index 7 that leads elsewhere is refused before anything is opened. */
static const char *spoilt_from, *spoilt_to;
static void spoil_record(const char *src) {
  fx_replace(fx_path(src, "catalog_0.catalog"), spoilt_from, spoilt_to);
}

static void broken_records(void **state) {
  static const struct {
    const char *from, *to, *what;
  } cases[] = {
      {"\"7_cam_image_array_.jpg\"", "\"../../etc/passwd\"", "not a plain file name"},
      {"\"7_cam_image_array_.jpg\"", "\"/etc/passwd\"", "not a plain file name"},
      {"\"7_cam_image_array_.jpg\"", "\"..\\\\..\\\\x\"", "not a plain file name"},
      {"\"7_cam_image_array_.jpg\"", "\"a\\nb.jpg\"", "not a plain file name"},
      {"\"7_cam_image_array_.jpg\"", "\"a\\u0000b.jpg\"", "broken JSON"},
      {"\"7_cam_image_array_.jpg\"", "\".hidden\"", "not a plain file name"},
      {"\"7_cam_image_array_.jpg\"", "7", "column cam/image_array is missing"},
      {"\"user/angle\": 0.631603", "\"user/angel\": 0.6", "column user/angle is missing"},
      {"\"user/angle\": 0.631603", "\"user/angle\": \"left\"", "user/angle is no number"},
      {"\"user/angle\": 0.631603", "\"user/angle\": NaN", "broken JSON"},
      {"\"user/angle\": 0.631603", "\"user/angle\": 1e999", "broken JSON"},
      {"\"user/angle\": 0.631603", "\"user/angle\": 1.5", "outside -1..1"},
      {"\"_index\": 7,", "\"_index\": 3,", "_index runs backwards: 3 after 6"},
      {"\"_index\": 7,", "\"_index\": 9223372036854775807,", "_index is 9223372036854775807"},
      {"\"_index\": 7,", "\"_index\": 9223372036854775808,", "broken JSON"},
      {"{\"_index\": 7,", "[[[[[[", "broken JSON"},
      {"\"_timestamp_ms\": 1600000000350", "\"_timestamp_ms\": 1600000000050",
       "time runs backwards: _timestamp_ms 1600000000050 after 1600000000300"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    spoilt_from = cases[i].from;
    spoilt_to = cases[i].to;
    broken_tub(*state, spoil_record, DJ_E_FORMAT, "tub/catalog_0.catalog:8: ", cases[i].what, 1);
  }
}

static void spoil_manifest(const char *src) {
  fx_replace(fx_path(src, "manifest.json"), spoilt_from, spoilt_to);
}
static void no_catalog(const char *src) {
  assert_int_equal(unlink(fx_path(src, "catalog_0.catalog")), 0);
}
static void empty_catalog(const char *src) {
  fx_cut(fx_path(src, "catalog_0.catalog"), 0);
}

static void broken_manifests(void **state) {
  spoilt_from = "catalog_0.catalog";
  spoilt_to = "../catalog_0.catalog";
  broken_tub(*state, spoil_manifest, DJ_E_FORMAT, "manifest.json:5", "not a plain file name", -1);
  spoilt_from = "\"deleted_indexes\": []}";
  spoilt_to = "";
  broken_tub(*state, spoil_manifest, DJ_E_FORMAT, "manifest.json:5", "broken JSON", -1);
  broken_tub(*state, no_catalog, DJ_E_NOT_FOUND, "tub/catalog_0.catalog", "cannot open", -1);
  broken_tub(*state, empty_catalog, DJ_E_FORMAT, "tub", "holds no records", -1);
}

/* Deleted records stay out; times that no camera keeps are laid at 20 Hz by index. */
static void tub_deleted_and_times(void **state) {
  const char *src = fx_path(*state, "tub"), *store = fx_path(*state, "S");
  fx_tub(src, 20);
  fx_replace(fx_path(src, "manifest.json"), "\"deleted_indexes\": []",
             "\"deleted_indexes\": [4, 5, 19]");
  char *text = fx_read(fx_path(src, "catalog_0.catalog"), NULL), *save = text;
  FILE *f = fopen(fx_path(src, "catalog_0.catalog"), "w");
  for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
    char *t = strstr(line, "16000000");
    memcpy(t, "1600000000000", 13);
    (void)fprintf(f, "%s\n", line);
  }
  (void)fclose(f);
  free(text);
  assert_int_equal(fx_import(src, store).n_frames, 17);
  dj_drive *d = fx_open(store, "tub");
  const uint64_t *t;
  size_t n;
  fx_ok(dj_drive_frame_times(d, 0, &t, &n));
  assert_int_equal(t[3] - t[0], 150000000);
  assert_int_equal(t[4] - t[0], 300000000); // record 6
  dj_drive_close(d);
}

// ---- sources that are folders of folders, links, and nothing
// ----------------------------------------

static void several_drives(void **state) {
  const char *dir = *state, *all = fx_path(dir, "all"), *store = fx_path(dir, "S");
  fx_tub(fx_path(all, "a/one"), 12);
  fx_udacity(fx_path(all, "two"), 12, true, false);
  fx_tub(fx_path(all, "three"), 9);
  fx_cut(fx_tub_image(fx_path(all, "three"), 2), 100);
  assert_int_equal(symlink("..", fx_path(all, "a/round")), 0); // not followed
  fx_write(fx_path(all, "notes.txt"), "nothing");
  dj_ingest_report r;
  FX_ERROR(fx_ingest(all, store, false, &r), DJ_E_FORMAT, "three/catalog_0.catalog:3: ");
  assert_int_equal(r.n_imported, 1); // what came before stays
  dj_ingest_report_free(&r);
  fx_write(fx_path(all, "three/manifest.json"), "{");
  fx_ok(fx_ingest(all, store, true, &r));
  assert_int_equal(r.n_drives, 3);
  assert_int_equal(r.n_already_there, 1);
  assert_int_equal(r.n_imported, 1);
  assert_int_equal(r.n_failed, 1);
  assert_non_null(strstr(r.drives[1].error, "three/manifest.json:1"));
  dj_ingest_report_free(&r);
  assert_int_equal(fx_count_drives(store), 2);
}

static void no_drive(void **state) {
  const char *dir = *state, *store = fx_path(dir, "S"), *src = fx_path(dir, "my-tub");
  dj_ingest_report r;
  fx_tub(src, 3);
  dj_ingest_options o = {.store = store, .format = "donkycar"};
  FX_ERROR(fx_ingest(fx_path(dir, "my-tup"), store, false, &r), DJ_E_NOT_FOUND,
           "my-tup: no such file or folder", "did you mean 'my-tub'?");
  dj_ingest_report_free(&r);
  FX_ERROR(dj_ingest(src, &o, &r), DJ_E_INVALID, "unknown format 'donkycar'",
           "did you mean 'donkeycar'?", "kitti");
  dj_ingest_report_free(&r);
  o.format = "zzzz";
  FX_ERROR(dj_ingest(src, &o, &r), DJ_E_INVALID, "unknown format 'zzzz'; there are donkeycar");
  dj_ingest_report_free(&r);
  fx_ok(dj__mkdirs(fx_path(dir, "nothing/in/it")));
  FX_ERROR(fx_ingest(fx_path(dir, "nothing"), store, false, &r), DJ_E_NOT_FOUND, "no drive found",
           "driving_log.csv", "--format");
  dj_ingest_report_free(&r);
  assert_false(dj__exists(store)); // none of these made a store
  o = (dj_ingest_options){.store = store, .name = "Bad Name"};
  FX_ERROR(dj_ingest(src, &o, &r), DJ_E_INVALID, "'Bad Name'", "a-z, 0-9");
  dj_ingest_report_free(&r);
  o.name = "mine";
  fx_ok(dj_ingest(src, &o, &r));
  assert_string_equal(r.drives[0].name, "mine");
  dj_ingest_report_free(&r);
  fx_jpeg(fx_tub_image(src, 0), 9, FX_W, FX_H);
  FX_ERROR(dj_ingest(src, &o, &r), DJ_E_EXISTS, "'mine' is in the store already");
  dj_ingest_report_free(&r);
  FX_ERROR(fx_ingest("synth:x", store, false, &r), DJ_E_INVALID, "'synth:x'", "synth:SEED");
  dj_ingest_report_free(&r);
}

/* --format overrules what looking at the source says. */
static void format_overrules(void **state) {
  const char *src = fx_path(*state, "both"), *store = fx_path(*state, "S");
  fx_tub(src, 10);
  fx_kitti(src, 6, true);
  dj_ingest_report r;
  static const char *const formats[] = {NULL, "kitti", "udacity"};
  static const char *const found[] = {"donkeycar", "kitti"};
  for (int i = 0; i < 2; i++) {
    fx_ok(dj_ingest(src, &(dj_ingest_options){.store = store, .format = formats[i]}, &r));
    assert_int_equal(r.n_imported, 1);
    assert_string_equal(r.drives[0].format, found[i]);
    dj_ingest_report_free(&r);
  }
  FX_ERROR(dj_ingest(src, &(dj_ingest_options){.store = store, .format = formats[2]}, &r),
           DJ_E_NOT_FOUND, "both/driving_log.csv");
  dj_ingest_report_free(&r);
}

/* Links that lead in circles: the source is digested and imported, each folder once. */
static void circles(void **state) {
  const char *src = fx_path(*state, "tub"), *store = fx_path(*state, "S");
  fx_tub(src, 8);
  for (int i = 0; i < 3; i++) {
    char name[32];
    (void)snprintf(name, sizeof name, "round%d", i);
    assert_int_equal(symlink(".", fx_path(src, name)), 0);
    (void)snprintf(name, sizeof name, "images/up%d", i);
    assert_int_equal(symlink("..", fx_path(src, name)), 0);
  }
  assert_int_equal(fx_import(src, store).n_frames, 8);
  // Pictures that lie elsewhere are fine.
  const char *linked = fx_path(*state, "linked");
  fx_tub(linked, 8);
  assert_int_equal(rename(fx_path(linked, "images"), fx_path(*state, "elsewhere")), 0);
  assert_int_equal(symlink("../elsewhere", fx_path(linked, "images")), 0);
  dj_ingest_report r;
  fx_ok(fx_ingest(linked, store, false, &r));
  assert_int_equal(r.drives[0].n_frames, 8);
  dj_ingest_report_free(&r);
}

static void generated(void **state) {
  const char *store = fx_path(*state, "S");
  dj_ingest_report r;
  for (int k = 0; k < 2; k++) {
    fx_ok(fx_ingest("synth:11:35", store, false, &r));
    assert_int_equal(k ? r.n_already_there : r.n_imported, 1);
    assert_string_equal(r.drives[0].name, "synth-11");
    assert_int_equal(r.drives[0].n_frames, 35);
    dj_ingest_report_free(&r);
  }
  assert_false(dj__exists(fx_path(store, "synth-11"))); // the tub it was made from is gone
}

// ---- Udacity ------------------------------------------------------------------------------------

static void udacity(void **state) {
  for (int sides = 0; sides < 2; sides++) {
    const char *src = fx_path(*state, sides ? "three" : "one"), *store = fx_path(*state, "S");
    fx_udacity(src, 30, sides, sides);
    dj_ingest_drive r = fx_import(src, store);
    assert_string_equal(r.format, "udacity");
    assert_int_equal(r.n_frames, sides ? 90 : 30);
    assert_int_equal(r.labels, DJ_LABEL_CONTROL | DJ_LABEL_SPEED);
    dj_drive *d = fx_open(store, r.name);
    const dj_drive_info *info = dj_drive_get_info(d);
    assert_int_equal(info->n_cameras, sides ? 3 : 1);
    assert_string_equal(info->cameras[0].name, "center");
    if (sides) assert_true(info->cameras[1].position[1] > 0 && info->cameras[2].position[1] < 0);
    const dj_control *c;
    const dj_speed *v;
    const uint64_t *t;
    size_t n;
    fx_ok(dj_drive_controls(d, &c, &n));
    assert_int_equal(n, 30);
    fx_ok(dj_drive_speeds(d, &v, &n));
    assert_int_equal(n, 30);
    for (int k = 0; k < info->n_cameras; k++) {
      fx_ok(dj_drive_frame_times(d, k, &t, &n));
      assert_int_equal(n, 30);
      for (int i = 0; i < 30; i += 7) {
        uint8_t rgb[FX_W * FX_H * 3];
        // 2018-07-16 17:00:00 UTC is 1531760400.
        assert_int_equal(t[i], 1531760400000000000ull + 100000000ull * (unsigned)i);
        fx_near(c[i].steering, -fx_angle(i), 1e-12);
        fx_near(c[i].throttle, 0.5, 0);
        fx_near(c[i].brake, 0, 0);
        fx_near(v[i].speed, (10.0 + i) * 0.44704, 1e-9);
        fx_ok(dj_drive_read_frame(d, k, (size_t)i, rgb));
        fx_check_picture(rgb, FX_W, FX_H, i + 7 * k, 6);
      }
    }
    dj_drive_close(d);
  }
}

static void broken_udacity(void **state) {
  static const struct {
    const char *from, *to, *what;
    int skipped; // -1: cannot go on
  } cases[] = {
      {"steering,throttle", "sterring,throttle", ":1: neither a header with a column steering", -1},
      {"brake,speed\n", "brake,sped\n", ":1: column speed is missing; is it 'sped'?", -1},
      {",-0.076000", ",nan", ":6: steering is 'nan', not a finite number", 1},
      {",0.5,0,14.000", ",0.5,0", ":6: column speed is missing: the row has 6 fields", 1},
      {",0.5,0,14.000", ",0.5,7,14", ":6: steering ", 1},
      {"center_2018_07_16_17_00_00_400", "center_2018_07_16_16_00_00_400",
       ":6: time runs backwards: center_2018_07_16_16_00_00_400.jpg after", 1},
      {"center_2018_07_16_17_00_00_400.jpg", "center.jpg",
       ":6: picture name 'center.jpg' holds no time", 1},
      {"center_2018_07_16_17_00_00_400.jpg", "..", ":6: column center names no picture", 1},
      {"center_2018_07_16_17_00_00_400.jpg", "center_2018_07_16_17_00_00_401.jpg",
       "center_2018_07_16_17_00_00_401.jpg: cannot open", 1},
      {"C:\\rec\\IMG\\center_2018_07_16_17_00_00_400.jpg", "\"x", ":6: a quote is opened", 1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *src = fx_path(*state, "drive"), *store = fx_path(*state, "S");
    fx_remove(src);
    fx_remove(store);
    fx_udacity(src, 20, true, false);
    char steering[32];
    (void)snprintf(steering, sizeof steering, ",%.6f,0.5,0,14", fx_angle(4));
    if (cases[i].from[1] == '-') // the steering of row 4
      fx_replace(fx_path(src, "driving_log.csv"), steering, ",nan,0.5,0,14");
    else
      fx_replace(fx_path(src, "driving_log.csv"), cases[i].from, cases[i].to);
    dj_ingest_report r;
    dj_status s = fx_ingest(src, store, false, &r);
    FX_ERROR(s, s == DJ_E_NOT_FOUND ? s : DJ_E_FORMAT, "driving_log.csv:", cases[i].what);
    dj_ingest_report_free(&r);
    if (cases[i].skipped < 0) continue;
    fx_ok(fx_ingest(src, store, true, &r));
    assert_int_equal(r.drives[0].n_skipped, cases[i].skipped);
    assert_int_equal(r.drives[0].n_frames, 20 - cases[i].skipped);
    assert_int_equal(r.drives[0].n_controls, 20 - cases[i].skipped);
    dj_ingest_report_free(&r);
  }
}

// ---- KITTI --------------------------------------------------------------------------------------

static void kitti(void **state) {
  for (int times = 0; times < 2; times++) {
    const char *src = fx_path(*state, times ? "07" : "sequence"), *store = fx_path(*state, "S");
    fx_kitti(src, 25, times);
    dj_ingest_drive r = fx_import(src, store);
    assert_string_equal(r.name, times ? "kitti-07" : "sequence");
    assert_int_equal(r.labels, DJ_LABEL_PATH);
    dj_drive *d = fx_open(store, r.name);
    const dj_drive_info *info = dj_drive_get_info(d);
    assert_int_equal(info->n_cameras, 1);
    assert_true(info->cameras[0].calibrated);
    fx_near(info->cameras[0].K[0], 30, 0);
    fx_near(info->cameras[0].position[2], 1.65, 1e-12);
    const dj_pose *p;
    const uint64_t *t;
    size_t n;
    fx_ok(dj_drive_frame_times(d, 0, &t, &n));
    fx_ok(dj_drive_poses(d, &p, &n));
    assert_int_equal(n, 25);
    double x = 0, y = 0;
    for (int i = 0; i < 25; i++) {
      double a = 0.02 * i;
      assert_int_equal(t[i], 100000000ull * (unsigned)i);
      fx_near(p[i].position[0], x, 1e-9); // forward
      fx_near(p[i].position[1], y, 1e-9); // left
      fx_near(p[i].position[2], 0, 1e-9);
      fx_near(p[i].rotation[2], sin(a / 2), 1e-9);
      fx_near(p[i].rotation[3], cos(a / 2), 1e-9);
      x += 0.5 * cos(a);
      y += 0.5 * sin(a);
    }
    dj_drive_close(d);
  }
}

static void broken_kitti(void **state) {
  static const struct {
    const char *file, *from, *to, *what;
    int skipped;
  } cases[] = {
      {"calib.txt", "P0:", "P2:", "no matrix P0", -1},
      {"calib.txt", "P0: 30", "P0: nan", "calib.txt:1: 'nan' is not a finite number", -1},
      {"calib.txt", "P0: 30", "P0: 0", "calib.txt:1: focal lengths 0 and 30 must be above 0", -1},
      {"poses.txt", "1 0 -0 0 0 1 0 0", "1 0 -0 0 0 1 0", "poses.txt:1: 11 numbers", 1},
      {"poses.txt", "1 0 -0 0 0 1 0 0", "5 0 -0 0 0 1 0 0", "poses.txt:1: ", 1},
      {"times.txt", "3.000000e-01", "1.000000e-02",
       "times.txt:4: time runs backwards: 0.01 s after 0.2", 1},
      {"times.txt", "1.100000e+00\n", "", "times.txt: 11 times for 12 frames", 1},
      {"times.txt", "3.000000e-01", "1e300", "times.txt:4: ", 1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *src = fx_path(*state, "seq"), *store = fx_path(*state, "S");
    fx_remove(src);
    fx_remove(store);
    fx_kitti(src, 12, true);
    fx_replace(fx_path(src, cases[i].file), cases[i].from, cases[i].to);
    dj_ingest_report r;
    FX_ERROR(fx_ingest(src, store, false, &r), DJ_E_FORMAT, cases[i].what);
    dj_ingest_report_free(&r);
    if (cases[i].skipped < 0) continue;
    fx_ok(fx_ingest(src, store, true, &r));
    assert_int_equal(r.drives[0].n_skipped, cases[i].skipped);
    bool poses = !strcmp(cases[i].file, "poses.txt"); // a frame without a pose is still a frame
    assert_int_equal(r.drives[0].n_frames, poses ? 12 : 11);
    assert_int_equal(r.drives[0].n_poses, 11);
    dj_ingest_report_free(&r);
  }
  const char *src = fx_path(*state, "seq"), *store = fx_path(*state, "S");
  fx_remove(src);
  fx_kitti(src, 12, true);
  fx_cut(fx_path(src, "image_0/000005.png"), 60);
  dj_ingest_report r;
  FX_ERROR(fx_ingest(src, store, false, &r), DJ_E_FORMAT, "image_0/000005.png");
  dj_ingest_report_free(&r);
  fx_ok(fx_ingest(src, store, true, &r));
  assert_int_equal(r.drives[0].n_frames, 11);
  assert_int_equal(r.drives[0].n_poses, 12); // the vehicle was there, though the picture is not
  assert_int_equal(r.drives[0].n_skipped, 1);
  dj_ingest_report_free(&r);
}

/* Pictures of two cameras are paired by name; a gap in one of them is no silent shift. */
static void kitti_two_cameras(void **state) {
  const char *src = fx_path(*state, "stereo"), *store = fx_path(*state, "S");
  fx_kitti(src, 12, true);
  fx_ok(dj__mkdirs(fx_path(src, "image_1")));
  for (int i = 0; i < 12; i++) {
    char name[32];
    (void)snprintf(name, sizeof name, "image_1/%06d.png", i);
    fx_png(fx_path(src, name), i, FX_W, FX_H);
  }
  assert_int_equal(unlink(fx_path(src, "image_1/000004.png")), 0);
  dj_ingest_report r;
  FX_ERROR(fx_ingest(src, store, true, &r), DJ_E_FORMAT, "image_1 holds 11 pictures, image_0 12");
  dj_ingest_report_free(&r);
  fx_png(fx_path(src, "image_1/000012.png"), 4, FX_W, FX_H);
  FX_ERROR(fx_ingest(src, store, false, &r), DJ_E_FORMAT, "frame 4 is ",
           "image_0/000004.png in one");
  dj_ingest_report_free(&r);
  assert_int_equal(rename(fx_path(src, "image_1/000012.png"), fx_path(src, "image_1/000004.png")),
                   0);
  dj_ingest_drive d = fx_import(src, store);
  assert_int_equal(d.n_frames, 24);
  dj_drive *log = fx_open(store, d.name);
  fx_near(dj_drive_get_info(log)->cameras[1].position[1], -0.5, 1e-12); // 15 / 30 m to the right
  dj_drive_close(log);
}

// ---- an import that is killed
// ---------------------------------------------------------------------

/* Killed at any moment, an import leaves the drive whole or not at all; run again it ends in the
 * same bytes as one that was never disturbed. */
static void killed(void **state) {
  enum { ROUNDS = 12 };
  const char *src = fx_path(*state, "tub"), *calm = fx_path(*state, "calm");
  fx_tub(src, 400);
  (void)fx_import(src, calm);
  char *want = fx_dump(calm);
  int whole = 0;
  for (int i = 0; i < ROUNDS; i++) {
    char name[16];
    (void)snprintf(name, sizeof name, "S%d", i);
    const char *store = fx_path(*state, name);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
      dj_ingest_report r;
      _exit(fx_ingest(src, store, false, &r) ? 1 : 0);
    }
    (void)usleep((useconds_t)(8000 * i + 500));
    (void)kill(pid, SIGKILL);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    size_t n = dj__is_dir(fx_path(store, "logs")) ? fx_count_drives(store) : 0;
    whole += n == 1;
    dj_ingest_report r;
    fx_ok(fx_ingest(src, store, false, &r));
    assert_int_equal(r.n_imported + r.n_already_there, 1);
    assert_int_equal(r.n_already_there, n);
    dj_ingest_report_free(&r);
    char *have = fx_dump(store);
    assert_string_equal(have, want); // digests of the log among it
    free(have);
    dj_store *s;
    size_t problems;
    fx_ok(dj_store_open(store, DJ_STORE_EXISTING, &s));
    fx_ok(dj_store_check(s, false, NULL, NULL, &problems));
    assert_int_equal(problems, 0); // nothing is left lying about
    dj_store_close(s);
  }
  print_message("killed %d imports, %d of them after their end\n", ROUNDS, whole);
  free(want);
}

/* Two processes import the same source, and one of the same name, into one store. */
static void two_importers(void **state) {
  const char *store = fx_path(*state, "S"), *a = fx_path(*state, "a/tub"),
             *b = fx_path(*state, "b/tub");
  fx_tub(a, 60);
  fx_tub(b, 61);
  const char *const sources[] = {a, a, b, b};
  pid_t pid[4];
  for (int i = 0; i < 4; i++) {
    pid[i] = fork();
    assert_true(pid[i] >= 0);
    if (pid[i] == 0) {
      dj_ingest_report r;
      if (!fx_ingest(sources[i], store, false, &r)) _exit(r.n_imported == 1 ? 10 : 20);
      (void)fprintf(stderr, "importer %d: %s\n", i, dj_error_message());
      _exit(1);
    }
  }
  int sum = 0;
  for (int i = 0; i < 4; i++) {
    int status;
    assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
    assert_true(WIFEXITED(status));
    sum += WEXITSTATUS(status);
  }
  assert_int_equal(sum, 60); // each source was imported once and found there once
  assert_int_equal(fx_count_drives(store), 2);
}

// ---- recorded drives
// ------------------------------------------------------------------------------

static void recorded(void **state) {
  static const struct {
    const char *folder, *format;
    uint64_t frames, poses;
    uint32_t labels;
    double seconds;
  } drives[] = {
      {"donkeycar-tub/tub", "donkeycar", 1000, 0, DJ_LABEL_CONTROL, 49.95},
      {"kitti-odometry-1", "kitti", 51, 51, DJ_LABEL_PATH, 5},
      {"comma2k19", "comma2k19", 0, 1200, DJ_LABEL_CONTROL | DJ_LABEL_SPEED | DJ_LABEL_PATH, 60.03},
      {"udacity-track", "udacity", 4053, 0, DJ_LABEL_CONTROL | DJ_LABEL_SPEED, 288.8}};
  const char *store = fx_path(*state, "S");
  for (size_t i = 0; i < sizeof drives / sizeof *drives; i++) {
    const char *src = fx_recorded(drives[i].folder);
    if (!src) continue;
    dj_ingest_drive r = fx_import(src, store);
    assert_string_equal(r.format, drives[i].format);
    assert_int_equal(r.n_frames, drives[i].frames);
    assert_int_equal(r.n_poses, drives[i].poses);
    assert_int_equal(r.labels, drives[i].labels);
    assert_int_equal(r.n_skipped, 0);
    fx_near(r.duration_s, drives[i].seconds, 0.05);
    dj_ingest_report again;
    fx_ok(fx_ingest(src, store, false, &again));
    assert_int_equal(again.n_already_there, 1);
    dj_ingest_report_free(&again);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      FX_TEST(tub),
      FX_TEST(again),
      FX_TEST(broken_frames),
      FX_TEST(broken_records),
      FX_TEST(broken_manifests),
      FX_TEST(tub_deleted_and_times),
      FX_TEST(several_drives),
      FX_TEST(no_drive),
      FX_TEST(format_overrules),
      FX_TEST(circles),
      FX_TEST(generated),
      FX_TEST(udacity),
      FX_TEST(broken_udacity),
      FX_TEST(kitti),
      FX_TEST(broken_kitti),
      FX_TEST(kitti_two_cameras),
      FX_TEST(killed),
      FX_TEST(two_importers),
      FX_TEST(recorded),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
