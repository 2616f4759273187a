/*
 * Networks that are asked to drive: a live network says what playback says of the same frames; the
 * route command reaches the batches and the network; the control head learns to brake.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include "drive/live.h"
#include "drive/playback.h"
#include "drive_fixture.h"

enum { FRAMES = 120, STEP_NS = 100000000 };

static int command_at(int i) { // changes every 12 frames
  return i / 12 % DJ_N_ROUTE_COMMANDS;
}

/* A drive whose steering follows the command. */
static void make_drive(const char *store, bool commands) {
  dj_store *s;
  fx_ok(dj_store_open(store, DJ_STORE_CREATE, &s));
  char *log = dj_store_log_path(s, "told");
  dj_drive_info info = {.name = "told", .format = "test", .n_cameras = 1};
  (void)snprintf(info.source_digest, sizeof info.source_digest, "%064d", 1);
  info.cameras[0] = (dj_camera){.name = "front", .width = FX_W, .height = FX_H, .calibrated = true};
  const double K[9] = {30, 0, 16, 0, 30, 12, 0, 0, 1};
  memcpy(info.cameras[0].K, K, sizeof K);
  info.cameras[0].rotation[3] = 1;
  dj_drive_writer *w;
  fx_ok(dj_drive_writer_open(log, &info, &w));
  for (int i = 0; i < FRAMES; i++) {
    uint64_t t = 1000000000ull + (uint64_t)i * STEP_NS;
    const char *path = fx_path(store, "frame.png");
    char *data;
    size_t size;
    fx_png(path, i, FX_W, FX_H);
    fx_ok(dj__read_file(path, 1 << 20, &data, &size));
    fx_ok(dj_drive_write_image(w, 0, t, "png", data, size));
    free(data);
    int c = commands ? command_at(i) : 0;
    double steering = c == DJ_COMMAND_LEFT ? 0.5 : c == DJ_COMMAND_RIGHT ? -0.5 : 0;
    fx_ok(dj_drive_write_control(w, &(dj_control){t, steering, 0.25, 0.5, NAN}));
    fx_ok(dj_drive_write_speed(w, &(dj_speed){t, 2 + 0.01 * i}));
    double a = 0.01 * i;
    fx_ok(dj_drive_write_pose(w, &(dj_pose){t, {0.2 * i, 0, 0}, {0, 0, sin(a / 2), cos(a / 2)}}));
    if (commands)
      fx_ok(dj_drive_write_route(w, &(dj_route){.t_ns = t, .command = (dj_route_command)c}));
  }
  fx_ok(dj_drive_writer_close(w, 0));
  fx_ok(dj_store_add_log(s, log));
  dj_store_close(s);
  free(log);
}

static void train(const char *recipe_text, const char *store, const char *run) {
  dj_recipe *r;
  dj_run *k;
  dj_task *task;
  fx_ok(dj_recipe_parse(recipe_text, strlen(recipe_text), "told.yaml", &r));
  fx_ok(dj_run_create(run, r, &(dj_run_options){.store = store}, &k));
  fx_ok(dj_task_create_drive(dj_run_recipe(k), dj_run_store(k), &task));
  fx_ok(dj_run_train(k, task, &(dj_train_options){0}, NULL));
  dj_task_destroy(task);
  dj_run_close(k);
  dj_recipe_free(r);
}

static const char TOLD[] =
    "data: {width: 24, height: 16, crop: [0.1, 0.2, 0.1, 0], frames: 3, stride: 2, margin_x: 0.1,"
    " labels: [control]}\n"
    "network: {name: dojo4d, channels: 8, stages: 2, hidden: 16, stack: 2, speed_input: true,"
    " command_input: true}\n"
    "loss: {throttle: 1, brake: 1, kind: l1}\n"
    "train: {steps: 300, batch: 8, precision: f32, optimizer: {lr: 0.01}}\n";

static void same_as_playback(void **state) {
  const char *store = fx_path(*state, "S"), *run = fx_path(*state, "R");
  make_drive(store, true);
  train(TOLD, store, run);
  dj__playback p;
  dj__live l;
  dj__live_source source;
  fx_ok(dj__playback_open(&p, run, NULL, "train", DJ_CHECKPOINT_BEST, 1));
  fx_ok(dj__live_open(&l, run, DJ_CHECKPOINT_BEST, 1));
  fx_ok(dj__live_find_source(&l, &source));
  assert_int_equal(source.n_camera, 1);
  assert_int_equal(source.camera[0].width, FX_W);
  fx_near(source.rate, 10, 1e-6);
  fx_ok(dj__live_cameras(&l, source.camera, 1));
  dj_drive *d = fx_open(store, "told");
  uint8_t *rgb = malloc((size_t)FX_W * FX_H * 3);
  const uint8_t *pictures[1] = {rgb};
  dj__played f;
  dj_status s;
  double error = 0;
  int n = 0;
  while (!(s = dj__playback_next(&p, &f))) {
    dj__prediction said;
    if (f.ref.frame == 0) dj__live_restart(&l);
    fx_ok(dj_drive_read_frame(d, 0, f.ref.frame, rgb));
    fx_ok(dj__live_step(&l, pictures, f.speed, f.yaw_rate, command_at((int)f.ref.frame), &said));
    fx_near((double)said.steering, (double)f.said.steering, 1e-4);
    fx_near((double)said.throttle, (double)f.said.throttle, 1e-4);
    fx_near((double)said.brake, (double)f.said.brake, 1e-4);
    error += fabs((double)said.steering - f.ref.steering);
    n++;
  }
  assert_int_equal(s, DJ_E_END);
  assert_true(error / n < 0.1); // it hears the command: the pictures say nothing of it
  free(rgb);
  dj_drive_close(d);
  dj__live_close(&l);
  dj__playback_close(&p);
}

static void learns_to_brake(void **state) {
  const char *store = fx_path(*state, "S"), *run = fx_path(*state, "R");
  make_drive(store, false);
  train(TOLD, store, run);
  dj__playback p;
  dj__played f;
  fx_ok(dj__playback_open(&p, run, NULL, "train", DJ_CHECKPOINT_BEST, 1));
  double sum = 0;
  for (int i = 0; i < 40; i++) {
    fx_ok(dj__playback_next(&p, &f));
    sum += (double)f.said.brake;
  }
  fx_near(sum / 40, 0.5, 0.1);
  dj__playback_close(&p);
}

static void without_brake(void **state) {
  const char *store = fx_path(*state, "S"), *run = fx_path(*state, "R");
  make_drive(store, false);
  train("data: {width: 24, height: 16, labels: [control]}\n"
        "network: {name: dojo4d, channels: 8, stages: 2, hidden: 16}\n"
        "train: {steps: 5, batch: 8}\n",
        store, run);
  dj__playback p;
  dj__played f;
  fx_ok(dj__playback_open(&p, run, NULL, "train", DJ_CHECKPOINT_BEST, 1));
  fx_ok(dj__playback_next(&p, &f));
  assert_true(isnan(f.said.brake) && isfinite(f.said.steering));
  dj__playback_close(&p);
}

/* Left and right change places with the picture. */
static void mirrored(void **state) {
  static const int other[] = {0, 2, 1, 3, 5, 4};
  const char *store = fx_path(*state, "S");
  make_drive(store, true);
  dj_data_spec spec = {.store = store,
                       .width = 16,
                       .height = 12,
                       .frames = 2,
                       .stride = 1,
                       .labels = DJ_LABEL_CONTROL};
  dj_dataset *ds;
  dj_loader *ld;
  fx_ok(dj_dataset_open(&spec, &ds));
  fx_ok(
      dj_loader_open(ds, &(dj_loader_options){.batch = FRAMES, .augment = {.mirror = 0.5f}}, &ld));
  dj_batch b;
  fx_ok(dj_loader_next(ld, 0, &b));
  int turned = 0;
  for (int i = 0; i < b.b; i++) {
    int frame = (int)dj_dataset_frame(ds, b.sample[i]).frame, c = command_at(frame);
    float said = b.command[2 * i + 1], steering = b.control[(2 * i + 1) * 3];
    if (c != DJ_COMMAND_LEFT && c != DJ_COMMAND_RIGHT) {
      assert_true((int)said == c || (int)said == other[c]);
      continue;
    }
    assert_true(((int)said == DJ_COMMAND_LEFT) == (steering > 0));
    turned += (int)said != c;
  }
  assert_true(turned > 0);
  dj_loader_release(ld, &b);
  dj_loader_close(ld);
  dj_dataset_close(ds);
}

int main(void) {
  const struct CMUnitTest tests[] = {FX_TEST(same_as_playback), FX_TEST(learns_to_brake),
                                     FX_TEST(without_brake), FX_TEST(mirrored)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
