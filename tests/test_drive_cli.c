/*
 * `dojo eval` and `dojo predict` as a user meets them: a generated drive, a small network, scores
 * that say the same as each other and as the catalogue of frames, a video and a sheet that other
 * programs can read, and mistakes that say what to do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>

#include "cli_fixture.h"
#include "dojo/train.h"
#include "drive_fixture.h"
#include "fleet/video.h"
#include "train/events.h"

enum { FRAMES = 200, TEST_FRAMES = 40 }; // the last 20 %

static int make_root(void **state) {
  (void)state;
  if (!mkdtemp(root)) return -1;
  put("small.yaml",
      "name: small\n"
      "data: {width: 48, height: 32, crop: [0, 0.3, 0, 0], frames: 3, labels: [control]}\n"
      "network: {name: dojo4d, channels: 8, stages: 3, hidden: 16, stack: 2, matching: 2}\n"
      "loss: {kind: laplace}\n"
      "train: {steps: 40, batch: 4, checkpoint_every: 20, validate_every: 20}\n");
  put("path.yaml",
      "name: path\n"
      "data: {width: 32, height: 16, frames: 2, labels: [path]}\n"
      "network: {name: dojo4d, channels: 8, stages: 2, hidden: 16, speed_input: true}\n"
      "train: {steps: 20, batch: 4}\n");
  char *kitti = dj__join(root, "kitti-1");
  fx_kitti(kitti, 80, true);
  free(kitti);
  return RUN("ingest", "synth:3:200", "--store", "S") ||
                 RUN("train", "small.yaml", "--store", "S", "--out", "R") ||
                 RUN("ingest", "kitti-1", "--store", "K") ||
                 RUN("train", "path.yaml", "--store", "K", "--out", "P")
             ? -1
             : 0;
}

/* Number at a path of keys; fails where there is none. */
static double number(const json_t *j, const char *keys) {
  char *path = dj__strf("%s", keys), *save = NULL;
  for (char *k = strtok_r(path, ".", &save); k && j; k = strtok_r(NULL, ".", &save))
    j = json_object_get(j, k);
  if (!json_is_number(j)) fail_msg("%s is no number", keys);
  free(path);
  return json_number_value(j);
}

static void check_interval(const json_t *o, const char *figure, const char *ci) {
  const json_t *pair = json_object_get(o, ci);
  double v = number(o, figure);
  assert_int_equal(json_array_size(pair), 2);
  assert_true(json_number_value(json_array_get(pair, 0)) <= v + 1e-12);
  assert_true(v <= json_number_value(json_array_get(pair, 1)) + 1e-12);
}

static void steering_scores(void **state) {
  (void)state;
  EXPECT(0, "eval", "R", "--json");
  json_t *j = report();
  assert_true(number(j, "frames") == TEST_FRAMES);
  assert_true(number(j, "steering.frames") == TEST_FRAMES);
  assert_string_equal(json_string_value(json_object_get(j, "network")), "dojo4d");
  assert_string_equal(json_string_value(json_object_get(j, "split")), "test");
  assert_int_equal(strlen(json_string_value(json_object_get(j, "data"))), 64);
  const json_t *s = json_object_get(j, "steering");
  check_interval(s, "mae", "ci95");
  check_interval(s, "rmse", "rmse_ci95");
  check_interval(s, "r2", "r2_ci95");
  assert_true(number(s, "rmse") >= number(s, "mae"));
  assert_true(number(j, "baseline.mean.steering.mae") > 0);
  // The generated driver steers smoothly: what it did a frame ago is near.
  assert_true(number(j, "baseline.previous.steering.mae") <
              0.5 * number(j, "baseline.mean.steering.mae"));
  assert_null(json_object_get(j, "path"));
  double best = number(j, "steering.mae");
  json_decref(j);

  EXPECT(0, "eval", "R"); // the same figure for people
  char *want = dj__strf("mae %.4f [", best);
  assert_has("out.txt", want);
  assert_has("out.txt", "steering  previous");
  free(want);
  EXPECT(0, "eval", "R", "--json", "--threads", "1"); // and with another number of threads
  j = report();
  assert_true(number(j, "steering.mae") == best);
  json_decref(j);
  EXPECT(0, "eval", "R", "--json", "--split", "train", "--checkpoint", "last");
  j = report();
  assert_true(number(j, "step") == 40);
  assert_true(number(j, "frames") > 2 * TEST_FRAMES);
  json_decref(j);
}

static void path_scores(void **state) {
  (void)state;
  EXPECT(0, "eval", "P", "--split", "train", "--json");
  json_t *j = report();
  assert_null(json_object_get(j, "steering"));
  for (int h = 1; h <= 3; h++) {
    char key[64];
    (void)snprintf(key, sizeof key, "path.%ds.ade", h);
    double ade = number(j, key);
    assert_true(isfinite(ade) && ade >= 0);
    (void)snprintf(key, sizeof key, "path.%ds.frames", h);
    double n = number(j, key);
    (void)snprintf(key, sizeof key, "baseline.constant_velocity.path.%ds.frames", h);
    assert_true(n > 0 && number(j, key) == n); // all on the same frames
  }
  assert_null(json_object_get(json_object_get(j, "baseline"), "mean"));
  json_decref(j);
  EXPECT(0, "eval", "P"); // 16 frames at 10 Hz: no path reaches 2 s
  assert_has("out.txt", "path 2 s  not scored: none of 16 frames has a recorded path");
}

static void check_video(const char *name, int frames) {
  char *path = dj__join(root, name);
  dj__video_source *v;
  fx_ok(dj__video_source_open(path, &v));
  const dj__video_info *info = dj__video_source_info(v);
  assert_int_equal(info->width, 1280);
  assert_int_equal(info->height, 720);
  int n = 0;
  dj__video_frame f;
  dj_status s;
  while (!(s = dj__video_source_next(v, &f))) n++; // each is known to decode
  assert_int_equal(s, DJ_E_END);
  assert_int_equal(n, frames);
  dj__video_source_close(v);
  free(path);
}

/* Pixels of a colour near to (r, g, b). */
static int count_colour(const uint8_t *rgb, int n, int r, int g, int b) {
  int found = 0;
  for (int i = 0; i < n; i++)
    found +=
        abs(rgb[3 * i] - r) < 12 && abs(rgb[3 * i + 1] - g) < 12 && abs(rgb[3 * i + 2] - b) < 12;
  return found;
}

static void check_sheet(const char *name, int amber) {
  char *path = dj__join(root, name), *data;
  size_t size;
  uint8_t *rgb;
  int w, h;
  fx_ok(dj__read_file(path, 1 << 26, &data, &size));
  fx_ok(dj_image_decode(data, size, 1 << 26, &rgb, &w, &h));
  assert_true(w > 600 && h > 400);
  assert_true(count_colour(rgb, w * h, 79, 176, 255) > 500);    // the network's blue
  assert_true(count_colour(rgb, w * h, 255, 178, 33) >= amber); // the driver's
  free(rgb);
  free(data);
  free(path);
}

static void pictures(void **state) {
  (void)state;
  EXPECT(0, "eval", "R", "--json");
  json_t *j = report();
  double mae = number(j, "steering.mae");
  json_decref(j);
  EXPECT(0, "predict", "R", "--out", "o.mp4", "--png", "o.png", "--json");
  j = report();
  assert_true(number(j, "frames") == TEST_FRAMES);
  fx_near(number(j, "fps"), 20, 1e-6);
  fx_near(number(j, "steering_mae"), mae, 1e-12); // what is drawn is what is scored
  json_decref(j);
  check_video("o.mp4", TEST_FRAMES);
  check_sheet("o.png", 500);
  // Again, over the files that are there: the same bytes.
  size_t n, m;
  char *path = dj__join(root, "o.png"), *first = fx_read(path, &n);
  EXPECT(0, "predict", "R", "--png", "o.png");
  char *second = fx_read(path, &m);
  assert_int_equal(n, m);
  assert_memory_equal(first, second, n);
  free(first);
  free(second);
  free(path);
  EXPECT(0, "predict", "R", "--out", "short.mp4", "--limit", "7");
  check_video("short.mp4", 7);
  EXPECT(0, "predict", "P", "--split", "train", "--out", "p.mp4", "--png", "p.png");
  check_sheet("p.png", 20); // it lies under the network's, mostly
}

typedef struct curves {
  int pictures, errors, losses;
} curves;

static void take_event(void *user, const dj__event *e) {
  curves *c = user;
  if (!e->tag) return;
  c->errors += !strcmp(e->tag, "validation/steering/mae");
  c->losses += !strcmp(e->tag, "train/loss");
  if (!e->png) return;
  uint8_t *rgb;
  int w, h;
  fx_ok(dj_image_decode(e->png, e->png_size, 1 << 20, &rgb, &w, &h));
  assert_true(strstr(e->tag, "validation/frame-") == e->tag);
  assert_int_equal(w, 320);
  assert_true(count_colour(rgb, w * h, 79, 176, 255) > 20); // what the network says
  free(rgb);
  c->pictures++;
}

/* Pictures of the same validation frames after each validation. */
static void sample_pictures(void **state) {
  (void)state;
  curves c = {0};
  char *dir = dj__join(root, "R");
  fx_ok(dj__events_read_dir(dir, take_event, &c));
  free(dir);
  assert_int_equal(c.errors, 2);
  assert_int_equal(c.pictures, 2 * 4);
  assert_true(c.losses > 0);
}

static void mistakes_say_what_to_do(void **state) {
  (void)state;
  EXPECT(DJ_E_INVALID, "eval");
  EXPECT(DJ_E_INVALID, "eval", "R", "--split", "tests");
  assert_has("err.txt", "train, validation or test, not 'tests'");
  EXPECT(DJ_E_INVALID, "eval", "R", "--checkpoint", "newest");
  EXPECT(DJ_E_NOT_FOUND, "eval", "nothing");
  assert_has("err.txt", "nothing");
  EXPECT(DJ_E_NOT_FOUND, "eval", "R", "--store", "none");
  EXPECT(DJ_E_NOT_FOUND, "eval", "R", "--store", "K"); // no drive there has steering
  assert_has("err.txt", "control");
  EXPECT(DJ_E_INVALID, "predict", "R");
  assert_has("err.txt", "--out FILE.mp4");
  EXPECT(DJ_E_INVALID, "predict", "R", "--out", "video.avi");
  assert_has("err.txt", ".mp4");
  EXPECT(DJ_E_INVALID, "predict", "R", "--png", "sheet.jpg");
  EXPECT(DJ_E_INVALID, "predict", "R", "--out", "v.mp4", "--limit", "-3");
  EXPECT(DJ_E_NOT_FOUND, "predict", "R", "--out", "no/such/folder/v.mp4");
  assert_has("err.txt", "no/such/folder");
  EXPECT(DJ_E_NOT_FOUND, "predict", "R", "--png", "no/such/folder/v.png");
  char *path = dj__join(root, "v.mp4");
  assert_false(dj__exists(path)); // nothing half made is left
  free(path);
}

static void damaged_weights_are_refused(void **state) {
  (void)state;
  char *dir = dj__join(root, "R"), *path;
  fx_ok(dj_checkpoint_find(dir, DJ_CHECKPOINT_LAST, &path));
  size_t n;
  char *whole = fx_read(path, &n);
  fx_cut(path, (off_t)n / 2);
  EXPECT(DJ_E_FORMAT, "eval", "R", "--checkpoint", "last");
  assert_has("err.txt", "step-");
  fx_write_bytes(path, whole, n);
  EXPECT(0, "eval", "R", "--checkpoint", "last");
  free(whole);
  free(path);
  free(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(steering_scores),
      cmocka_unit_test(path_scores),
      cmocka_unit_test(pictures),
      cmocka_unit_test(sample_pictures),
      cmocka_unit_test(mistakes_say_what_to_do),
      cmocka_unit_test(damaged_weights_are_refused),
  };
  return cmocka_run_group_tests(tests, make_root, remove_root);
}
