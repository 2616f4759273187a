/*
 * Augmentation against geometry that is known in closed form: a flat ground with a smooth pattern,
 * seen by a pinhole camera from the recorded place and from the moved one; paths and motions as
 * rigid transforms say.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fleet/augment.h"

enum { W = 96, H = 64, MARGIN = 12, SRC_W = W + 2 * MARGIN };

static void near(double a, double b, double eps) {
  if (!(fabs(a - b) <= eps)) fail_msg("%.9g is not %.9g (to %g)", a, b, eps);
}

// ---- pictures
// -------------------------------------------------------------------------------------

/* A camera 1.2 m high, 0.5 m ahead of the vehicle's origin and a little to the left, looking down
 * by `pitch`; K is that of the shard's picture, margins included. */
static dj__view make_view(double pitch) {
  const double c = cos(pitch), s = sin(pitch);
  // Columns: the camera's right, down and forward axes in the vehicle frame (forward, left, up).
  dj__view v = {.K = {70, 0, SRC_W / 2 - 0.5, 0, 72, H / 2 - 0.5, 0, 0, 1},
                .rotation = {0, -s, c, -1, 0, 0, 0, -c, -s},
                .position = {0.5, 0.1, 1.2},
                .calibrated = 1};
  return v;
}

/* Ray of a pixel in the vehicle frame. */
static void ray_of(const dj__view *v, double x, double y, double d[3]) {
  const double u[3] = {(x - v->K[2]) / v->K[0], (y - v->K[5]) / v->K[4], 1};
  for (int i = 0; i < 3; i++)
    d[i] =
        v->rotation[i * 3] * u[0] + v->rotation[i * 3 + 1] * u[1] + v->rotation[i * 3 + 2] * u[2];
}

/* Red and green tell where on the ground one looks, in metres of the recorded vehicle's frame. */
static bool ground_colour(const dj__view *v, double yaw, double shift, double x, double y,
                          double c[3]) {
  double d[3], far;
  ray_of(v, x, y, d);
  if (d[2] >= -1e-9) return false;
  far = v->position[2] / -d[2];
  if (far > 12) return false;
  const double px = v->position[0] + far * d[0], py = v->position[1] + far * d[1];
  const double gx = cos(yaw) * px - sin(yaw) * py, gy = sin(yaw) * px + cos(yaw) * py + shift;
  c[0] = 128 + 80 * sin(gx * 0.9);
  c[1] = 128 + 80 * sin(gy * 0.9);
  c[2] = 100;
  return true;
}

static void render(const dj__view *v, double yaw, double shift, int first, int w, uint8_t *out) {
  for (int y = 0; y < H; y++)
    for (int x = 0; x < w; x++) {
      double c[3] = {30, 30, 200};
      (void)ground_colour(v, yaw, shift, x + first, y, c);
      for (int k = 0; k < 3; k++) out[(y * w + x) * 3 + k] = (uint8_t)lround(c[k]);
    }
}

/* The picture made from the recorded one is what the moved camera would have taken. */
static void viewpoint(void **state) {
  (void)state;
  static const double moves[][2] = {{0.05, 0}, {-0.05, 0},   {0, 0.3},
                                    {0, -0.3}, {0.04, -0.2}, {-0.03, 0.25}};
  static uint8_t src[H * SRC_W * 3], out[H * W * 3], want[H * W * 3], still[H * W * 3];
  static int16_t noise[DJ__NOISE_TABLE];
  for (int pitch = 0; pitch < 2; pitch++)
    for (size_t m = 0; m < sizeof moves / sizeof *moves; m++) {
      const double yaw = moves[m][0], shift = moves[m][1];
      dj__view v = make_view(pitch * 0.15);
      dj__draw d = {.contrast = 1, .yaw = (float)yaw, .shift = (float)shift};
      dj__warp warp = dj__augment_warp(&d, &v, MARGIN);
      assert_false(warp.identity);
      render(&v, 0, 0, 0, SRC_W, src);
      render(&v, yaw, shift, MARGIN, W, want);
      render(&v, 0, 0, MARGIN, W, still);
      dj__augment_image(&d, &warp, noise, 0, src, SRC_W, MARGIN, W, H, out);
      double error = 0, unmoved = 0;
      int n = 0;
      for (int y = 2; y < H - 2; y++)
        for (int x = 2; x < W - 2; x++) {
          double c[3], edge[3];
          // Away from the far end of the pattern, and where the recorded picture reaches.
          if (!ground_colour(&v, yaw, shift, x + MARGIN, y - 4, c)) continue;
          bool inside = true;
          for (int k = -1; k <= 1; k += 2)
            inside &= ground_colour(&v, yaw, shift, x + MARGIN + 10 * k, y - 3, edge);
          if (!inside || (fabs(yaw) > 0 && (x < 6 || x > W - 7)) || x < 20 || x > W - 21) continue;
          for (int k = 0; k < 2; k++) {
            error += abs(out[(y * W + x) * 3 + k] - want[(y * W + x) * 3 + k]);
            unmoved += abs(still[(y * W + x) * 3 + k] - want[(y * W + x) * 3 + k]);
            n++;
          }
        }
      assert_true(n > 1000);
      assert_true(unmoved / n > 1); // the move can be seen
      assert_true(error / n < 0.5); // and is right to half a grey level
      assert_true(error < 0.15 * unmoved);
    }
}

/* Far away nothing shifts sideways, and a turn moves all by the same angle. */
static void horizon(void **state) {
  (void)state;
  dj__view v = make_view(0);
  dj__draw d = {.contrast = 1, .shift = 0.5f};
  dj__warp w = dj__augment_warp(&d, &v, MARGIN);
  const double x = 40, y = v.K[5] - 3; // above the horizon
  double q = w.n[0] * x + w.n[1] * y + w.n[2];
  assert_true(q < 0); // meets no ground
  double z = w.M[6] * x + w.M[7] * y + w.M[8];
  near((w.M[0] * x + w.M[1] * y + w.M[2]) / z, x + MARGIN, 1e-4);
  near((w.M[3] * x + w.M[4] * y + w.M[5]) / z, y, 1e-4);
  d = (dj__draw){.contrast = 1, .yaw = 0.1f};
  w = dj__augment_warp(&d, &v, MARGIN);
  const double cx = v.K[2] - MARGIN, cy = v.K[5]; // the middle looks straight ahead
  z = w.M[6] * cx + w.M[7] * cy + w.M[8];
  // Turned to the left by 0.1 rad it sees what was to the left of the middle.
  near((w.M[0] * cx + w.M[1] * cy + w.M[2]) / z, v.K[2] - v.K[0] * tan(0.1), 1e-3);
}

static void mirror_picture(void **state) {
  (void)state;
  static uint8_t src[H * SRC_W * 3], plain[H * W * 3], flipped[H * W * 3];
  static int16_t noise[DJ__NOISE_TABLE];
  for (size_t i = 0; i < sizeof src; i++) src[i] = (uint8_t)(i * 2654435761u >> 24);
  for (int warped = 0; warped < 2; warped++) {
    dj__view v = make_view(0.1);
    dj__draw d = {.contrast = 1, .yaw = warped ? 0.03f : 0, .shift = warped ? 0.1f : 0};
    dj__warp w = dj__augment_warp(&d, &v, MARGIN);
    assert_int_equal(w.identity, !warped);
    dj__augment_image(&d, &w, noise, 0, src, SRC_W, MARGIN, W, H, plain);
    d.mirror = true;
    dj__augment_image(&d, &w, noise, 0, src, SRC_W, MARGIN, W, H, flipped);
    for (int y = 0; y < H; y++)
      for (int x = 0; x < W; x++) {
        assert_memory_equal(flipped + (y * W + x) * 3, plain + (y * W + W - 1 - x) * 3, 3);
        if (!warped)
          assert_memory_equal(plain + (y * W + x) * 3, src + (y * SRC_W + x + MARGIN) * 3, 3);
      }
  }
}

static void tone(void **state) {
  (void)state;
  static uint8_t src[H * W * 3], out[H * W * 3], again[H * W * 3];
  static int16_t noise[DJ__NOISE_TABLE];
  dj__noise_table(5, noise);
  for (size_t i = 0; i < sizeof src; i++) src[i] = (uint8_t)(i % 256);
  static const float kinds[][2] = {{0, 1}, {0.1f, 1}, {-0.2f, 1}, {0, 1.3f}, {0.05f, 0.7f}};
  const dj__warp identity = {.identity = true};
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    dj__draw d = {.brightness = kinds[k][0], .contrast = kinds[k][1]};
    dj__augment_image(&d, &identity, noise, 0, src, W, 0, W, H, out);
    for (size_t i = 0; i < sizeof src; i++) {
      double v = (src[i] - 128.0) * (double)d.contrast + 128 + 255 * (double)d.brightness;
      near(out[i], fmin(255, fmax(0, v)), 1.01);
    }
  }
  // Noise: of the strength asked for, another in each frame, the same on every run.
  memset(src, 128, sizeof src);
  dj__draw d = {.contrast = 1, .noise = 0.05f, .noise_seed = 77};
  dj__augment_image(&d, &identity, noise, 3, src, W, 0, W, H, out);
  dj__augment_image(&d, &identity, noise, 3, src, W, 0, W, H, again);
  assert_memory_equal(out, again, sizeof out);
  dj__augment_image(&d, &identity, noise, 4, src, W, 0, W, H, again);
  assert_memory_not_equal(out, again, sizeof out);
  double sum = 0, square = 0;
  for (size_t i = 0; i < sizeof out; i++) {
    sum += out[i] - 128.0;
    square += (out[i] - 128.0) * (out[i] - 128.0);
  }
  near(sum / sizeof out, 0, 0.8);
  near(sqrt(square / sizeof out), 0.05 * 255, 0.6);
}

// ---- labels
// ---------------------------------------------------------------------------------------

typedef struct labels {
  float control[3], control_mask[3], path[DJ_PATH_POINTS * 3], path_mask[DJ_PATH_POINTS], motion[3],
      motion_mask[1];
} labels;

/* A left curve of radius 40 m at 8 m/s; the last frame was a tenth of a second ago. */
static labels make_labels(int n_points) {
  labels l = {.control = {0.3f, 0.5f, 0}, .control_mask = {1, 1, 0}, .motion_mask = {1}};
  const double r = 40, w = 8 / r;
  for (int i = 0; i < n_points; i++) {
    const double a = w * dj_path_time(i);
    l.path[i * 3] = (float)(r * sin(a));
    l.path[i * 3 + 1] = (float)(r - r * cos(a));
    l.path[i * 3 + 2] = 0.01f * (float)i;
    l.path_mask[i] = 1;
  }
  l.motion[0] = (float)(r * sin(w * 0.1));
  l.motion[1] = (float)(r - r * cos(w * 0.1));
  l.motion[2] = (float)(w * 0.1);
  return l;
}

static void apply(const dj__draw *d, const dj_augment *a, labels *l) {
  dj__augment_labels(d, a, l->control, l->control_mask, l->path, l->path_mask, l->motion,
                     l->motion_mask);
}

static void mirror_labels(void **state) {
  (void)state;
  const labels was = make_labels(DJ_PATH_POINTS);
  labels l = was;
  const dj_augment a = {0};
  apply(&(dj__draw){.contrast = 1, .mirror = true}, &a, &l);
  near(l.control[0], -was.control[0], 0);
  near(l.control[1], was.control[1], 0);
  for (int i = 0; i < DJ_PATH_POINTS; i++) {
    near(l.path[i * 3], was.path[i * 3], 0);
    near(l.path[i * 3 + 1], -was.path[i * 3 + 1], 0);
    near(l.path[i * 3 + 2], was.path[i * 3 + 2], 0);
  }
  near(l.motion[0], was.motion[0], 0);
  near(l.motion[1], -was.motion[1], 0);
  near(l.motion[2], -was.motion[2], 0);
  apply(&(dj__draw){.contrast = 1, .mirror = true}, &a, &l); // twice is nothing
  assert_memory_equal(&l, &was, sizeof l);
}

/* From the recovery time on the path is the recorded drive seen from the moved vehicle; it leaves
 * the vehicle where it is, straight ahead, and bends smoothly. */
static void moved_path(void **state) {
  (void)state;
  static const double moves[][2] = {{0.05, 0}, {-0.04, 0}, {0, 0.4}, {0, -0.3}, {0.05, -0.3}};
  const labels was = make_labels(DJ_PATH_POINTS);
  const dj_augment a = {.steer_per_yaw = 1.5f, .steer_per_shift = 0.2f};
  for (size_t m = 0; m < sizeof moves / sizeof *moves; m++) {
    const double yaw = moves[m][0], shift = moves[m][1], c = cos(yaw), s = sin(yaw);
    labels l = was;
    apply(&(dj__draw){.contrast = 1, .yaw = (float)yaw, .shift = (float)shift}, &a, &l);
    // Turned or moved to the left, it has to steer to the right to come back.
    near(l.control[0], 0.3 - 1.5 * yaw - 0.2 * shift, 1e-6);
    near(l.control[1], 0.5, 0);
    near(l.path[0], 0, 1e-6);
    near(l.path[1], 0, 1e-6);
    near(atan2(l.path[3 * 3 + 1], l.path[3 * 3]), 0, 0.03); // 0.09 s on: still straight ahead
    double worst = 0;
    for (int i = 0; i < DJ_PATH_POINTS; i++) {
      const double x = was.path[i * 3], y = was.path[i * 3 + 1] - shift;
      const double wx = c * x + s * y, wy = c * y - s * x;
      near(l.path[i * 3 + 2], was.path[i * 3 + 2], 0);
      if (dj_path_time(i) >= DJ__RECOVERY_S) {
        near(l.path[i * 3], wx, 1e-4);
        near(l.path[i * 3 + 1], wy, 1e-4);
      }
      worst = fmax(worst, hypot(l.path[i * 3] - wx, l.path[i * 3 + 1] - wy));
    }
    assert_true(worst <
                fabs(shift) + 8 * fabs(yaw) * 0.5 + 0.05); // never far from the recorded one
    // Motion between two frames that are both moved: X^-1 M X.
    const double th = was.motion[2], cm = cos(th), sm = sin(th);
    const double x = was.motion[0] + cm * 0 - sm * shift, y = was.motion[1] + cm * shift - shift;
    near(l.motion[0], c * x + s * y, 1e-5);
    near(l.motion[1], c * y - s * x, 1e-5);
    near(l.motion[2], th, 1e-7);
  }
}

/* What is masked stays untouched; steering stays within full lock. */
static void masked_labels(void **state) {
  (void)state;
  const dj_augment a = {.steer_per_yaw = 50, .steer_per_shift = 1};
  const dj__draw d = {.contrast = 1, .yaw = -0.1f, .shift = 0.2f};
  labels l = make_labels(9);
  apply(&d, &a, &l);
  near(l.control[0], 1, 0); // 0.3 + 5 - 0.2, cut
  for (int i = 9; i < DJ_PATH_POINTS; i++)
    for (int k = 0; k < 3; k++) near(l.path[i * 3 + k], 0, 0);
  l = make_labels(0);
  l.control_mask[0] = 0;
  l.control[0] = 0;
  l.motion_mask[0] = 0;
  memset(l.motion, 0, sizeof l.motion);
  const labels was = l;
  apply(&d, &a, &l);
  assert_memory_equal(&l, &was, sizeof l);
}

// ---- draws
// ----------------------------------------------------------------------------------------

static void draws(void **state) {
  (void)state;
  const dj_augment a = {.mirror = 0.25f,
                        .brightness = 0.2f,
                        .contrast = 0.3f,
                        .noise = 0.01f,
                        .yaw = 0.05f,
                        .shift = 0.4f,
                        .steer_per_yaw = 1,
                        .steer_per_shift = 1};
  dj_augment only = {.yaw = 0.05f};
  enum { N = 4000 };
  double mean[4] = {0};
  int mirrored = 0;
  for (int i = 0; i < N; i++) {
    dj__draw d = dj__augment_draw(&a, 9, (uint64_t)i / 32, (uint64_t)i % 32);
    dj__draw again = dj__augment_draw(&a, 9, (uint64_t)i / 32, (uint64_t)i % 32);
    dj__draw alone = dj__augment_draw(&only, 9, (uint64_t)i / 32, (uint64_t)i % 32);
    near(d.yaw, again.yaw, 0);
    near(d.shift, again.shift, 0);
    near(d.yaw, alone.yaw, 0); // one strength never changes another's numbers
    near(alone.shift, 0, 0);
    assert_true(fabsf(d.brightness) <= 0.2f && fabsf(d.contrast - 1) <= 0.3001f);
    assert_true(fabsf(d.yaw) <= 0.05f && fabsf(d.shift) <= 0.4f);
    mirrored += d.mirror;
    mean[0] += (double)d.brightness;
    mean[1] += (double)d.contrast - 1;
    mean[2] += (double)d.yaw;
    mean[3] += (double)d.shift;
  }
  near((double)mirrored / N, 0.25, 0.03);
  near(mean[0] / N, 0, 0.2 * 0.04);
  near(mean[1] / N, 0, 0.3 * 0.04);
  near(mean[2] / N, 0, 0.05 * 0.04);
  near(mean[3] / N, 0, 0.4 * 0.04);
  assert_int_equal(dj__augment_check(&a, 1), DJ_OK);
  assert_int_equal(dj__augment_check(&a, 2), DJ_E_UNSUPPORTED); // mirror and several cameras
  only.yaw = 1;
  assert_int_equal(dj__augment_check(&only, 1), DJ_E_INVALID);
  assert_non_null(strstr(dj_error_message(), "yaw is 1"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(viewpoint),      cmocka_unit_test(horizon),
      cmocka_unit_test(mirror_picture), cmocka_unit_test(tone),
      cmocka_unit_test(mirror_labels),  cmocka_unit_test(moved_path),
      cmocka_unit_test(masked_labels),  cmocka_unit_test(draws),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
