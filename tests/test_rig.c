/* Rigs: presets are there and right; every mistake in a file is named with its line. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/fs.h"
#include "world/render_internal.h"

static void refuse(const char *text, dj_status want, const char *part) {
  dj__rig rig;
  dj_status s = dj__rig_parse(text, strlen(text), "r.yaml", &rig);
  if (s != want || !strstr(dj_error_message(), part))
    fail_msg("status %d, wanted %d; message '%s', wanted '%s'\n%s", s, want, dj_error_message(),
             part, text);
}

static void axis(const dj_camera *c, const double v[3], double out[3]) {
  const double *q = c->rotation;
  double t[3] = {2 * (q[1] * v[2] - q[2] * v[1]), 2 * (q[2] * v[0] - q[0] * v[2]),
                 2 * (q[0] * v[1] - q[1] * v[0])};
  out[0] = v[0] + q[3] * t[0] + q[1] * t[2] - q[2] * t[1];
  out[1] = v[1] + q[3] * t[1] + q[2] * t[0] - q[0] * t[2];
  out[2] = v[2] + q[3] * t[2] + q[0] * t[1] - q[1] * t[0];
}

static void presets_are_there(void **state) {
  (void)state;
  static const struct {
    const char *name;
    int cameras, width;
  } want[] = {{"mono", 1, 256},      {"wide", 1, 256},  {"donkeycar", 1, 160},
              {"openpilot", 2, 320}, {"three", 3, 256}, {"ring6", 6, 400}};
  int n;
  (void)dj__rig_names(&n);
  assert_int_equal(n, 6);
  for (int k = 0; k < 6; k++) {
    dj__rig rig, file;
    if (dj__rig_find(want[k].name, &rig)) fail_msg("%s", dj_error_message());
    assert_int_equal(rig.n_camera, want[k].cameras);
    assert_int_equal(rig.camera[0].camera.width, want[k].width);
    assert_string_equal(rig.name, want[k].name);
    char path[512];
    (void)snprintf(path, sizeof path, "%s/rigs/%s.yaml", DOJO_SOURCE_DIR, want[k].name);
    if (dj__rig_find(path, &file)) fail_msg("%s", dj_error_message());
    assert_memory_equal(&rig, &file, sizeof rig);
    for (int i = 0; i < rig.n_camera; i++) {
      dj__view v;
      if (dj__camera_source(&rig.camera[i].camera, &v)) fail_msg("%s", dj_error_message());
    }
  }
  dj__rig rig;
  assert_int_equal(dj__rig_find("ring5", &rig), DJ_E_NOT_FOUND);
  assert_non_null(strstr(dj_error_message(), "did you mean 'ring6'"));
}

static void mounting_turns_the_optical_axis(void **state) {
  (void)state;
  const char *text = "cameras:\n"
                     "- {name: a, width: 64, height: 32, fov: 90, position: [1, 0, 2], yaw: 90}\n"
                     "- {name: b, width: 64, height: 32, fov: 90, position: [1, 0, 2], pitch: 30}\n"
                     "- {name: c, width: 64, height: 32, fov: 90, position: [1, 0, 2], roll: 90}\n";
  dj__rig rig;
  if (dj__rig_parse(text, strlen(text), "r", &rig)) fail_msg("%s", dj_error_message());
  assert_int_equal(rig.n_camera, 3);
  const double ahead[3] = {0, 0, 1}, down[3] = {0, 1, 0};
  double v[3];
  axis(&rig.camera[0].camera, ahead, v); // to the left
  assert_true(fabs(v[0]) < 1e-9 && fabs(v[1] - 1) < 1e-9 && fabs(v[2]) < 1e-9);
  axis(&rig.camera[1].camera, ahead, v); // downwards
  assert_true(fabs(v[0] - cos(M_PI / 6)) < 1e-9 && fabs(v[2] + 0.5) < 1e-9);
  axis(&rig.camera[2].camera, down, v); // rolled to the right: the picture's foot looks left
  assert_true(fabs(v[1] - 1) < 1e-9);
  const double *K = rig.camera[0].camera.K;
  assert_true(fabs(K[0] - 32) < 1e-9 && fabs(K[4] - 32) < 1e-9);
  assert_true(K[2] == 31.5 && K[5] == 15.5);
}

#define CAMERA "- {name: a, width: 64, height: 32, position: [1, 0, 2], "
static void mistakes_are_named(void **state) {
  (void)state;
  refuse("rate: 10\n", DJ_E_FORMAT, "'cameras' is missing");
  refuse("cameras:\n" CAMERA "}\n", DJ_E_INVALID, "r.yaml:2");
  refuse("cameras:\n" CAMERA "fov: 90, fx: 50}\n", DJ_E_INVALID, "both are there");
  refuse("cameras:\n" CAMERA "fov: 90, coefficients: [1]}\n", DJ_E_INVALID, "r.yaml:2");
  refuse("cameras:\n" CAMERA "fov: 90, distortion: plum_bob}\n", DJ_E_FORMAT,
         "did you mean 'plumb_bob'");
  refuse("cameras:\n" CAMERA "fx: 90, distortion: plumb_bob, coefficients: [0, 1]}\n", DJ_E_INVALID,
         "takes 5");
  refuse("cameras:\n" CAMERA "fov: 170}\n", DJ_E_INVALID, "out of range: 1 to 150");
  refuse("cameras:\n" CAMERA "fov: 90, hight: 3}\n", DJ_E_FORMAT, "r.yaml:2");
  refuse("cameras:\n" CAMERA "fov: 90}\n" CAMERA "fov: 90}\n", DJ_E_INVALID, "r.yaml:3");
  refuse("cameras:\n- {name: A, width: 64, height: 32, position: [0, 0, 0], fov: 9}\n",
         DJ_E_INVALID, "small letters");
  refuse("cameras:\n- {name: a, height: 32, position: [0, 0, 0], fov: 9}\n", DJ_E_FORMAT, "width");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(presets_are_there),
      cmocka_unit_test(mounting_turns_the_optical_axis),
      cmocka_unit_test(mistakes_are_named),
  };
  return cmocka_run_group_tests_name("rig", tests, NULL, NULL);
}
