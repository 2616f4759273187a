/* Labels against trajectories whose truth is known in closed form. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "drive/labels.h"

#define NS(s) ((uint64_t)llround((s)*1e9))
enum { N = 400 }; // 20 s at 20 Hz
static const uint64_t t0 = 1700000000000000000ull;

static void near(double a, double b, double eps) {
  if (!(fabs(a - b) <= eps)) fail_msg("%.9g is not %.9g (to %g)", a, b, eps);
}

static void yaw_quaternion(double yaw, double q[4]) {
  q[0] = q[1] = 0;
  q[2] = sin(yaw / 2);
  q[3] = cos(yaw / 2);
}

static void make_times(uint64_t *t) {
  for (int i = 0; i < N; i++) t[i] = t0 + NS(0.05 * i);
}

/* Straight ahead at 8 m/s along a line 0.7 rad from the world's x axis. */
static void straight_line(void **state) {
  (void)state;
  static dj_pose poses[N];
  static uint64_t t[N];
  make_times(t);
  for (int i = 0; i < N; i++) {
    double s = 8 * 0.05 * i;
    poses[i] = (dj_pose){.t_ns = t[i], .position = {5 + s * cos(0.7), -3 + s * sin(0.7), 1}};
    yaw_quaternion(0.7, poses[i].rotation);
  }
  dj__label_source src = {.poses = poses, .n_poses = N};
  dj__labels l;
  assert_int_equal(dj__labels_make(&src, t, N, &l), DJ_OK);
  for (int i = 0; i < N; i += 37) {
    for (int k = 0; k < DJ_PATH_POINTS; k++) {
      bool there = 0.05 * i + dj_path_time(k) <= 0.05 * (N - 1) + 1e-9;
      assert_int_equal((int)l.path_mask[i * 33 + k], there);
      near(l.path[(i * 33 + k) * 3 + 0], there ? 8 * dj_path_time(k) : 0, 1e-4);
      near(l.path[(i * 33 + k) * 3 + 1], 0, 1e-4);
      near(l.path[(i * 33 + k) * 3 + 2], 0, 1e-4);
    }
  }
  assert_int_equal((int)l.path_mask[(N - 1) * 33], 1); // the last frame knows where it is
  assert_int_equal((int)l.path_mask[(N - 1) * 33 + 1], 0);
  assert_int_equal((int)l.control_mask[0], 0);
  assert_int_equal((int)l.speed_mask[0], 0);
  float m[3];
  dj__labels_motion(l.pose + 7 * 10, l.pose + 7 * 13, m);
  near(m[0], 8 * 0.15, 1e-5);
  near(m[1], 0, 1e-5);
  near(m[2], 0, 1e-5);
  dj__labels_free(&l);
}

/* A circle to the left, radius 20 m at 6 m/s, poses at another rate than the frames. */
static void circle(void **state) {
  (void)state;
  enum { P = 2100 };
  static dj_pose poses[P];
  static uint64_t t[N];
  make_times(t);
  const double r = 20, w = 6 / r;
  for (int i = 0; i < P; i++) {
    double at = 0.01 * i, a = w * at;
    poses[i] = (dj_pose){.t_ns = t0 + NS(at), .position = {r * sin(a), r - r * cos(a), 0}};
    yaw_quaternion(a, poses[i].rotation);
    if (i % 2)                                                // the same rotation, other sign
      for (int k = 0; k < 4; k++) poses[i].rotation[k] *= -3; // and not of unit length
  }
  dj__label_source src = {.poses = poses, .n_poses = P};
  dj__labels l;
  assert_int_equal(dj__labels_make(&src, t, N, &l), DJ_OK);
  for (int i = 0; i < N; i += 13)
    for (int k = 0; k < DJ_PATH_POINTS; k++) {
      if (0.05 * i + dj_path_time(k) > 0.01 * (P - 1)) {
        assert_int_equal((int)l.path_mask[i * 33 + k], 0);
        continue;
      }
      double a = w * dj_path_time(k);
      near(l.path[(i * 33 + k) * 3 + 0], r * sin(a), 2e-3);
      near(l.path[(i * 33 + k) * 3 + 1], r - r * cos(a), 2e-3);
    }
  float m[3];
  dj__labels_motion(l.pose + 7 * 5, l.pose + 7 * 9, m);
  near(m[0], r * sin(w * 0.2), 1e-4);
  near(m[1], r - r * cos(w * 0.2), 1e-4);
  near(m[2], w * 0.2, 1e-5);
  dj__labels_free(&l);
}

/* Uphill: the path lies in the vehicle's own plane. */
static void pitched_up(void **state) {
  (void)state;
  static dj_pose poses[N];
  static uint64_t t[N];
  make_times(t);
  const double pitch = -0.2; // nose up: turned about y (left) by a negative angle
  for (int i = 0; i < N; i++) {
    double s = 5 * 0.05 * i;
    poses[i] = (dj_pose){.t_ns = t[i],
                         .position = {s * cos(pitch), 0, -s * sin(pitch)},
                         .rotation = {0, sin(pitch / 2), 0, cos(pitch / 2)}};
  }
  dj__label_source src = {.poses = poses, .n_poses = N};
  dj__labels l;
  assert_int_equal(dj__labels_make(&src, t, N, &l), DJ_OK);
  near(l.path[20 * 3 + 0], 5 * dj_path_time(20), 1e-4);
  near(l.path[20 * 3 + 2], 0, 1e-4);
  dj__labels_free(&l);
}

/* A gap and a jump end the path; frames inside the gap have none. */
static void gaps_and_jumps(void **state) {
  (void)state;
  static dj_pose poses[N];
  static uint64_t t[N];
  make_times(t);
  int n = 0;
  for (int i = 0; i < N; i++) {
    if (i > 100 && i < 120) continue; // no pose for a second
    dj_pose p = {.t_ns = t[i],
                 .position = {0.05 * i + (i >= 250 ? 1000 : 0), 0, 0},
                 .rotation = {0, 0, 0, 1}};
    if (i == 60) p.position[0] = NAN; // one bad pose: bridged
    if (i == 61) memset(p.rotation, 0, sizeof p.rotation);
    poses[n++] = p;
  }
  dj__label_source src = {.poses = poses, .n_poses = (size_t)n};
  dj__labels l;
  assert_int_equal(dj__labels_make(&src, t, N, &l), DJ_OK);
  assert_int_equal((int)l.pose_mask[60], 1);
  near(l.pose[60 * 7], 3.0, 1e-9);
  assert_int_equal((int)l.pose_mask[100], 1);
  assert_int_equal((int)l.path_mask[100 * 33], 1);
  assert_int_equal((int)l.path_mask[100 * 33 + 1], 0);
  assert_int_equal((int)l.pose_mask[110], 0);
  assert_int_equal((int)l.path_mask[110 * 33], 0);
  assert_int_equal((int)l.pose_mask[120], 1);
  // From frame 90 (4.5 s) the gap begins at 5.0 s; after it nothing more is given.
  for (int k = 0; k < 33; k++)
    assert_int_equal((int)l.path_mask[90 * 33 + k], dj_path_time(k) <= 0.5);
  // From frame 240 the jump at frame 250 ends the path at frame 249.
  for (int k = 0; k < 33; k++)
    assert_int_equal((int)l.path_mask[240 * 33 + k], dj_path_time(k) <= 0.45);
  dj__labels_free(&l);
}

static void control_and_speed(void **state) {
  (void)state;
  static uint64_t t[N];
  make_times(t);
  enum { C = 200 };
  dj_control c[C];
  dj_speed s[3] = {{t0 + NS(1.0), 2}, {t0 + NS(1.4), 6}, {t0 + NS(3.0), 9}};
  for (int i = 0; i < C; i++) { // every 0.07 s, up to 13.93 s
    double at = 0.07 * i;
    c[i] = (dj_control){.t_ns = t0 + NS(at),
                        .steering = 0.1 * at - 0.5,
                        .throttle = NAN,
                        .brake = i % 2 ? NAN : 0.25,
                        .steering_angle = NAN};
  }
  dj__label_source src = {.controls = c, .n_controls = C, .speeds = s, .n_speeds = 3};
  dj__labels l;
  assert_int_equal(dj__labels_make(&src, t, N, &l), DJ_OK);
  for (int i = 0; i < N; i++) {
    double at = 0.05 * i;
    bool inside = at <= 0.07 * (C - 1), held = at <= 0.07 * (C - 1) + 0.25;
    assert_int_equal((int)l.control_mask[i * 3], held);
    if (inside) near(l.control[i * 3], 0.1 * at - 0.5, 1e-6);
    if (!held) near(l.control[i * 3], 0, 0);
    assert_int_equal((int)l.control_mask[i * 3 + 1], 0); // throttle is nowhere
    if (inside) assert_int_equal((int)l.control_mask[i * 3 + 2], 1);
    if (inside) near(l.control[i * 3 + 2], 0.25, 1e-6);
    assert_int_equal((int)l.path_mask[i * 33], 0);
  }
  assert_int_equal((int)l.speed_mask[14], 0); // 0.70 s: too far before the first
  assert_int_equal((int)l.speed_mask[16], 1); // 0.80 s: held
  near(l.speed[24], 4, 1e-5);                 // 1.20 s: between
  near(l.speed[31], 6, 1e-6);                 // 1.55 s: held over the wide gap
  assert_int_equal((int)l.speed_mask[40], 0); // 2.00 s: inside the wide gap
  near(l.speed[58], 9, 1e-6);                 // 2.90 s
  dj__labels_free(&l);
}

static void hostile_times(void **state) {
  (void)state;
  uint64_t t[3] = {0, 1, UINT64_MAX};
  dj_control c[2] = {{.t_ns = 0, .steering = 1e308, .throttle = 0, .brake = 0},
                     {.t_ns = UINT64_MAX, .steering = -1e308}};
  dj_pose p[2] = {{.t_ns = 0, .position = {1e300, 0, 0}, .rotation = {0, 0, 0, 1}},
                  {.t_ns = 1, .position = {-1e300, 0, 0}, .rotation = {1e200, 0, 0, 1}}};
  dj__label_source src = {.controls = c, .n_controls = 2, .poses = p, .n_poses = 2};
  dj__labels l;
  assert_int_equal(dj__labels_make(&src, t, 3, &l), DJ_OK);
  assert_int_equal((int)l.pose_mask[0], 0);
  dj__labels_free(&l);
  assert_int_equal(dj__labels_make(&src, t, 0, &l), DJ_OK);
  dj__labels_free(&l);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(straight_line),     cmocka_unit_test(circle),
      cmocka_unit_test(pitched_up),        cmocka_unit_test(gaps_and_jumps),
      cmocka_unit_test(control_and_speed), cmocka_unit_test(hostile_times),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
