/* Importers of drives with video: comma2k19 (with and without its HEVC) and any video with a CSV.
 * Pictures are compared with what was encoded; encoders that this build of libavcodec lacks are
 * passed over with a line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "drive_fixture.h"
#include "dojo/data.h"

enum { VW = 64, VH = 48 };

/* The encoder that makes the test's HEVC never frees some of its own. */
const char *__lsan_default_suppressions(void) {
  return "leak:libx265";
}

static bool make_video(const char *path, const char *encoder, int n, int b_frames) {
  if (fx_video(path, encoder, n, VW, VH, b_frames)) return true;
  print_message("skipped: libavcodec has no encoder %s here\n", encoder);
  return false;
}

static void check_frames(dj_drive *d, int n) {
  uint8_t rgb[VW * VH * 3];
  for (int i = 0; i < n; i++) { // forward, then jumps
    fx_ok(dj_drive_read_frame(d, 0, (size_t)i, rgb));
    fx_check_picture(rgb, VW, VH, i, 10);
  }
  for (int i = 0; i < n; i++) {
    int k = i * 13 % n;
    fx_ok(dj_drive_read_frame(d, 0, (size_t)k, rgb));
    fx_check_picture(rgb, VW, VH, k, 10);
  }
}

// ---- comma2k19 ----------------------------------------------------------------------------------

static void check_comma_labels(dj_drive *d, int n_rows) {
  const dj_pose *p;
  const dj_speed *v;
  const dj_control *c;
  size_t n;
  fx_ok(dj_drive_poses(d, &p, &n));
  assert_int_equal(n, n_rows);
  fx_ok(dj_drive_speeds(d, &v, &n));
  assert_int_equal(n, n_rows);
  fx_ok(dj_drive_controls(d, &c, &n));
  assert_int_equal(n, n_rows);
  for (int i = 0; i < n_rows; i++) {
    double a = 0.01 * i;
    assert_int_equal(p[i].t_ns, 1000000000000ull + 50000000ull * (unsigned)i);
    fx_near(p[i].position[0], 50 * sin(a), 1e-6); // east
    fx_near(p[i].position[1], 50 * (1 - cos(a)), 1e-6);
    fx_near(p[i].position[2], -1.22, 1e-6); // the road below the first camera
    fx_near(p[i].rotation[0], 0, 1e-9);
    fx_near(p[i].rotation[1], 0, 1e-9);
    fx_near(p[i].rotation[2], sin(a / 2), 1e-9); // turning left
    fx_near(p[i].rotation[3], cos(a / 2), 1e-9);
    fx_near(v[i].speed, 10, 0);
    fx_near(c[i].steering_angle, (-54.0 + i) * M_PI / 180, 1e-12);
    fx_near(c[i].steering, (-54.0 + i) / 540, 1e-12);
    assert_true(isnan(c[i].throttle));
  }
}

/* Without its video a segment is a drive without cameras: the store holds it, training refuses it.
 */
static void comma_without_video(void **state) {
  const char *src = fx_path(*state, "dongle/2018/3"), *store = fx_path(*state, "S");
  fx_comma(src, 40);
  dj_ingest_drive r = fx_import(src, store);
  assert_string_equal(r.format, "comma2k19");
  assert_string_equal(r.name, "2018-3");
  assert_int_equal(r.n_cameras, 0);
  assert_int_equal(r.n_frames, 0);
  assert_int_equal(r.labels, DJ_LABEL_CONTROL | DJ_LABEL_SPEED | DJ_LABEL_PATH);
  dj_drive *d = fx_open(store, r.name);
  check_comma_labels(d, 40);
  const uint64_t *t;
  size_t n;
  FX_ERROR(dj_drive_frame_times(d, 0, &t, &n), DJ_E_INVALID, "camera 0 of 0");
  dj_drive_close(d);

  dj_store *s;
  dj_store_drive *drive;
  fx_ok(dj_store_open(store, DJ_STORE_EXISTING, &s));
  fx_ok(dj_store_find(s, r.name, &drive));
  assert_int_equal(drive->n_cameras, 0);
  assert_int_equal(drive->n_clips, 0);
  assert_int_equal(drive->n_poses, 40);
  assert_int_equal(drive->start_ns, 1000000000000ull);
  assert_int_equal(drive->end_ns, 1000000000000ull + 39 * 50000000ull);
  dj_store_drives_free(drive, 1);
  dj_store_close(s);

  dj_dataset *ds;
  dj_data_spec spec = {.store = store,
                       .split = "train",
                       .width = 16,
                       .height = 16,
                       .frames = 1,
                       .stride = 1,
                       .labels = DJ_LABEL_PATH};
  FX_ERROR(dj_dataset_open(&spec, &ds), DJ_E_NOT_FOUND, "'2018-3' has no camera",
           "import it again");
  const char *const names[] = {"2018-3"};
  spec.drives = names;
  spec.n_drives = 1;
  FX_ERROR(dj_dataset_open(&spec, &ds), DJ_E_NOT_FOUND, "'2018-3' has no camera");
  // Beside a drive with pictures it is passed over.
  fx_kitti(fx_path(*state, "kitti"), 40, true);
  (void)fx_import(fx_path(*state, "kitti"), store);
  spec.drives = NULL;
  spec.n_drives = 0;
  fx_ok(dj_dataset_open(&spec, &ds));
  for (uint64_t i = 0; i < dj_dataset_size(ds); i++)
    assert_string_equal(dj_dataset_frame(ds, i).drive, "kitti");
  dj_dataset_close(ds);
}

static void comma_with_video(void **state) {
  const char *src = fx_path(*state, "dongle/2018/4"), *store = fx_path(*state, "S");
  fx_comma(src, 30);
  if (!make_video(fx_path(src, "video.hevc"), "libx265", 30, 0)) skip();
  dj_ingest_drive r = fx_import(src, store);
  assert_int_equal(r.n_frames, 30);
  assert_int_equal(r.n_cameras, 1);
  dj_drive *d = fx_open(store, r.name);
  const dj_camera *c = &dj_drive_get_info(d)->cameras[0];
  assert_int_equal(c->width, VW);
  assert_int_equal(c->height, VH);
  assert_true(c->calibrated);
  fx_near(c->K[0], 910.0 * VW / 1164, 1e-9);
  check_comma_labels(d, 30);
  const uint64_t *t;
  size_t n;
  fx_ok(dj_drive_frame_times(d, 0, &t, &n));
  assert_int_equal(n, 30);
  for (size_t i = 0; i < n; i++) assert_int_equal(t[i], 1000000000000ull + 50000000ull * i);
  check_frames(d, 30);
  dj_drive_close(d);
  // And it can be trained on: the shards hold the decoded pictures.
  dj_dataset *ds;
  fx_ok(dj_dataset_open(&(dj_data_spec){.store = store,
                                        .width = 32,
                                        .height = 24,
                                        .frames = 2,
                                        .stride = 1,
                                        .labels = DJ_LABEL_PATH},
                        &ds));
  assert_int_equal(dj_dataset_size(ds), 30);
  dj_loader *ld;
  dj_batch b;
  fx_ok(dj_loader_open(ds, &(dj_loader_options){.batch = 30}, &ld));
  fx_ok(dj_loader_next(ld, 0, &b));
  for (int i = 0; i < 30; i++)
    fx_check_picture(b.image + (size_t)(i * 2 + 1) * 32 * 24 * 3, 32, 24, i, 10);
  dj_loader_release(ld, &b);
  dj_loader_close(ld);
  dj_dataset_close(ds);
}

/* The video's frames and the pose's times must be as many; a cut video is told of. */
static void comma_with_other_video(void **state) {
  static const struct {
    int frames, skipped, kept;
    const char *what;
  } cases[] = {{26, 1, 26, "video.hevc: 26 frames for 30 times"},
               {33, 1, 30, "video.hevc: more frames than the 30 times"}};
  for (int i = 0; i < 2; i++) {
    char name[8];
    (void)snprintf(name, sizeof name, "%d", i);
    const char *src = fx_path(*state, name), *store = fx_path(*state, "S");
    fx_comma(src, 30);
    if (!make_video(fx_path(src, "video.hevc"), "libx265", cases[i].frames, 0)) skip();
    dj_ingest_report r;
    FX_ERROR(fx_ingest(src, store, false, &r), DJ_E_FORMAT, cases[i].what);
    dj_ingest_report_free(&r);
    fx_ok(fx_ingest(src, store, true, &r));
    assert_int_equal(r.drives[0].n_frames, cases[i].kept);
    assert_int_equal(r.drives[0].n_skipped, cases[i].skipped);
    dj_ingest_report_free(&r);
  }
}

static void write_bad_array(const char *path, const char *header, const char *body) {
  unsigned char start[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)strlen(header), 0};
  char all[512];
  memcpy(all, start, 10);
  (void)snprintf(all + 10, sizeof all - 10, "%s%s", header, body);
  fx_write_bytes(path, all, 10 + strlen(header) + strlen(body));
}

static void broken_comma(void **state) {
  const char *src = fx_path(*state, "1"), *store = fx_path(*state, "S");
  const char *times = fx_path(src, "global_pose/frame_times");
  const char *speeds = fx_path(src, "processed_log/CAN/speed/value");
  dj_ingest_report r;
  static const struct {
    const char *header, *what;
  } headers[] = {
      {"{'descr': '<f8', 'fortran_order': False, 'shape': (9223372036854775808,), }\n",
       "do not make an array of this shape"},
      {"{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4), }\n",
       "do not make an array of this shape"},
      {"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", "elements of type '|O'"},
      {"{'descr': '<f8', 'shape': (1,), }\n", "broken .npy header"}};
  for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
    fx_comma(src, 20);
    write_bad_array(times, headers[i].header, "12345678");
    dj_status s = fx_ingest(src, store, false, &r);
    FX_ERROR(s, s == DJ_E_UNSUPPORTED ? s : DJ_E_FORMAT, "global_pose/frame_times",
             headers[i].what);
    dj_ingest_report_free(&r);
  }
  double t[20], v[20];
  for (int i = 0; i < 20; i++) {
    t[i] = 1000 + 0.05 * i;
    v[i] = 3;
  }
  fx_comma(src, 20);
  v[5] = NAN;
  v[6] = INFINITY;
  v[7] = 1e9;
  fx_npy(speeds, v, 20, 0);
  FX_ERROR(fx_ingest(src, store, false, &r), DJ_E_FORMAT,
           "processed_log/CAN/speed/value, row 5: not a number");
  dj_ingest_report_free(&r);
  t[9] = 1000;
  t[12] = NAN;
  fx_npy(times, t, 20, 0);
  fx_ok(fx_ingest(src, store, true, &r)); // three speeds and two poses are left out
  assert_int_equal(r.drives[0].n_skipped, 5);
  assert_int_equal(r.drives[0].n_speeds, 17);
  assert_int_equal(r.drives[0].n_poses, 18);
  dj_ingest_report_free(&r);
  v[5] = v[6] = v[7] = 3;
  fx_npy(speeds, v, 20, 0);
  FX_ERROR(fx_ingest(src, store, false, &r), DJ_E_FORMAT,
           "global_pose/frame_times, row 9: time runs backwards: 1000.000000 s after 1000.4");
  dj_ingest_report_free(&r);
  fx_npy(times, t, 19, 0);
  FX_ERROR(fx_ingest(src, store, false, &r), DJ_E_FORMAT,
           "19 times, 20 positions, 20 orientations");
  dj_ingest_report_free(&r);
}

static void write_table(const char *path, int n, const char *header) {
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  (void)fprintf(f, "%s\n", header);
  for (int i = 0; i < n; i++)
    (void)fprintf(f, "%.3f,%.4f,%.2f\n", 0.05 * i, fx_angle(i), 2 + 0.1 * i);
  assert_int_equal(fclose(f), 0);
}

// ---- broken frames ------------------------------------------------------------------------------

/* Overwrites the data of one frame, its container's framing aside. */
static void spoil_frame(const char *path, int index) {
  AVFormatContext *f = NULL;
  AVPacket *p = av_packet_alloc();
  assert_true(avformat_open_input(&f, path, NULL, NULL) >= 0);
  for (int i = 0; i <= index; i++) {
    av_packet_unref(p);
    assert_true(av_read_frame(f, p) >= 0);
  }
  int64_t at = p->pos;
  int size = p->size;
  av_packet_free(&p);
  avformat_close_input(&f);
  FILE *out = fopen(path, "r+b");
  assert_non_null(out);
  assert_true(at >= 0 && size > 12);
  assert_int_equal(fseek(out, (long)at + 7, SEEK_SET), 0);
  for (int i = 7; i < size; i++) (void)fputc(0xa5 ^ (i * 37 & 0x5a), out);
  assert_int_equal(fclose(out), 0);
}

/* What is left of a video with a broken frame is right, frame by frame. */
static void check_rest(const char *store, const char *name, int n, int64_t skipped) {
  dj_drive *d = fx_open(store, name);
  const uint64_t *t;
  uint8_t rgb[VW * VH * 3];
  size_t kept;
  fx_ok(dj_drive_frame_times(d, 0, &t, &kept));
  assert_int_equal((int64_t)kept, n - skipped);
  for (size_t i = 0; i < kept; i++) {
    fx_ok(dj_drive_read_frame(d, 0, i, rgb));
    fx_check_picture(rgb, VW, VH, (int)((t[i] - t[0] + 1000000) / 50000000), 10);
  }
  dj_drive_close(d);
}

/* A frame that does not decode is told of with its number and time; with keep_going it and those
 * that build on it are left out. */
static void broken_frames(void **state) {
  static const struct {
    const char *file, *encoder;
    int lost; // frames: 18 to 23 where key frames are 8 apart; MPEG-4 makes noise all key frames
  } kinds[] = {{"a.mp4", "libx264", 6}, {"b.mp4", "mpeg4", 1}, {"c.mp4", "libx265", 6}};
  const char *store = fx_path(*state, "S");
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    const char *src = fx_path(*state, kinds[i].file);
    if (!make_video(src, kinds[i].encoder, 40, 0)) continue;
    char *csv = dj__strf("%.*s.csv", (int)(strrchr(src, '.') - src), src);
    write_table(csv, 40, "time,steering,speed");
    free(csv);
    spoil_frame(src, 18);
    dj_ingest_report r;
    FX_ERROR(fx_ingest(src, store, false, &r), DJ_E_FORMAT, kinds[i].file, "frame 18 at 0.",
             "does not decode");
    dj_ingest_report_free(&r);
    fx_ok(fx_ingest(src, store, true, &r));
    assert_int_equal(r.drives[0].n_skipped, kinds[i].lost);
    check_rest(store, r.drives[0].name, 40, kinds[i].lost);
    dj_ingest_report_free(&r);
  }
}

// ---- video and CSV ------------------------------------------------------------------------------

static void video_csv(void **state) {
  static const struct {
    const char *file, *encoder, *header;
    int b_frames;
  } kinds[] = {{"plain.mp4", "mpeg4", "time,steering,speed", 0}, // decoded, goes in as JPEG
               {"h264.mp4", "libx264", "Timestamp, Angle , Velocity", 0}, // copied
               {"reordered.mkv", "libx264", "t,steering,speed", 2},       // decoded: reordered
               {"h265.mp4", "libx265", "time,steering,speed", 0}};
  const char *store = fx_path(*state, "S");
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    const char *src = fx_path(*state, kinds[i].file);
    if (!make_video(src, kinds[i].encoder, 25, kinds[i].b_frames)) continue;
    char *csv = dj__strf("%.*s.csv", (int)(strrchr(src, '.') - src), src);
    write_table(csv, 25, kinds[i].header);
    dj_ingest_drive r = fx_import(src, store);
    free(csv);
    assert_string_equal(r.format, "video-csv");
    assert_int_equal(r.n_frames, 25);
    assert_int_equal(r.labels, DJ_LABEL_CONTROL | DJ_LABEL_SPEED);
    dj_drive *d = fx_open(store, r.name);
    const uint64_t *t;
    const dj_control *c;
    size_t n;
    fx_ok(dj_drive_frame_times(d, 0, &t, &n));
    assert_int_equal(n, 25);
    for (size_t k = 0; k < n; k++) fx_near((double)t[k], 5e7 * (double)k, 1e6);
    fx_ok(dj_drive_controls(d, &c, &n));
    assert_int_equal(n, 25);
    fx_near(c[7].steering, round(fx_angle(7) * 1e4) / 1e4, 1e-12); // to the left, as in the table
    check_frames(d, 25);
    dj_drive_close(d);
  }
}

static void broken_video_csv(void **state) {
  const char *src = fx_path(*state, "v"), *store = fx_path(*state, "S");
  const char *video = fx_path(src, "drive.mp4"), *csv = fx_path(src, "drive.csv");
  static const struct {
    const char *from, *to, *what;
    int skipped;
  } cases[] = {
      {"time,", "tine,", "drive.csv:1: no column 'time'", -1},
      {"time,", "tine,", "is it 'tine'?", -1},
      {"steering,speed", "sterring,spd",
       "drive.csv:1: neither a column 'steering' nor 'speed' in the "
       "header; is it 'sterring'?",
       -1},
      {"0.200,", "0.100,", "drive.csv:6: time runs backwards: 0.1 s after 0.15 s", 1},
      {"0.200,", "-1,", "drive.csv:6: -1 is no time in seconds", 1},
      {"0.200,", "1e300,", "drive.csv:6: 1e+300 is no time in seconds", 1},
      {"0.200,", "0.2,nan,3\n0.2,", "drive.csv:6: steering is 'nan'", 1},
      {"0.200,", "0.2,1.5,3\n0.2,", "drive.csv:6: steering is 1.5, outside -1..1", 1},
      {"0.200,", "0.2\n0.2,", "drive.csv:6: column steering is missing: the row has 1 fields", 1}};
  fx_ok(dj__mkdirs(src));
  if (!make_video(video, "mpeg4", 12, 0)) skip();
  dj_ingest_report r;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    fx_remove(store);
    write_table(csv, 12, "time,steering,speed");
    fx_replace(csv, cases[i].from, cases[i].to);
    FX_ERROR(fx_ingest(src, store, false, &r), DJ_E_FORMAT, cases[i].what);
    dj_ingest_report_free(&r);
    if (cases[i].skipped < 0) continue;
    fx_ok(fx_ingest(src, store, true, &r));
    assert_int_equal(r.drives[0].n_skipped, cases[i].skipped);
    assert_int_equal(r.drives[0].n_frames, 12);
    dj_ingest_report_free(&r);
  }
  assert_int_equal(unlink(csv), 0);
  FX_ERROR(dj_ingest(src, &(dj_ingest_options){.store = store, .format = "video-csv"}, &r),
           DJ_E_NOT_FOUND, "one video and one CSV");
  dj_ingest_report_free(&r);
}

/* Files that call themselves videos: text, nothing, a playlist that names other files, a pipe. */
static void no_video(void **state) {
  const char *src = fx_path(*state, "v"), *store = fx_path(*state, "S");
  const char *video = fx_path(src, "drive.mp4"), *csv = fx_path(src, "drive.csv");
  static const char *const texts[] = {
      "", "this is not a video\n", "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
      "ffconcat version 1.0\nfile '/etc/passwd'\n", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\n"};
  fx_ok(dj__mkdirs(src));
  write_table(csv, 5, "time,steering,speed");
  dj_ingest_report r;
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    fx_write(video, texts[i]);
    FX_ERROR(fx_ingest(src, store, false, &r), DJ_E_FORMAT, "drive.mp4");
    dj_ingest_report_free(&r);
  }
  assert_int_equal(unlink(video), 0);
  assert_int_equal(mkfifo(video, 0600), 0);
  FX_ERROR(fx_ingest(src, store, false, &r), DJ_E_INVALID, "drive.mp4");
  dj_ingest_report_free(&r);
  // A whole video, cut in the middle.
  assert_int_equal(unlink(video), 0);
  const char *cut = fx_path(src, "drive.mkv");
  if (!make_video(cut, "mpeg4", 40, 0)) skip();
  fx_cut(cut, (off_t)(dj__file_size(cut) / 2));
  dj_status s = fx_ingest(src, store, false, &r);
  if (!s)
    assert_true(r.drives[0].n_frames < 40);
  else
    FX_ERROR(s, DJ_E_FORMAT, "drive.mkv");
  dj_ingest_report_free(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      FX_TEST(comma_without_video), FX_TEST(comma_with_video), FX_TEST(comma_with_other_video),
      FX_TEST(broken_comma),        FX_TEST(broken_frames),    FX_TEST(video_csv),
      FX_TEST(broken_video_csv),    FX_TEST(no_video),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
