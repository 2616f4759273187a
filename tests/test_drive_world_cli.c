/* `dojo drive` as a user meets it: tables, JSON that says the same twice, replays, mistakes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>

#include "cli_fixture.h"

static int make_root(void **state) {
  (void)state;
  if (!mkdtemp(root)) return -1;
  put("small.yaml", "name: small\n"
                    "rig: mono\n"
                    "seconds: 20\n"
                    "length: 100\n"
                    "routes: 2\n"
                    "weather: [clear]\n"
                    "vehicles: [car]\n"
                    "traffic: [{name: empty}]\n"
                    "towns: [{style: grid, seeds: [51, 52]}]\n"
                    "recovery: {offset: 1}\n");
  put("bad.yaml", "name: bad\nrig: mono\nsecond: 20\n");
  return 0;
}

static double value(const json_t *j, const char *key) {
  return json_number_value(json_object_get(json_object_get(j, key), "value"));
}

static void tables(void **state) {
  (void)state;
  EXPECT(0, "drive", "expert", "--suite", "small.yaml");
  assert_has("out.txt", "PDMS");
  assert_has("out.txt", "offset");
  assert_has("err.txt", "driving");
  EXPECT(0, "drive", "--help");
  assert_has("out.txt", "PDMS = NC DAC (5 TTC + 2 C + 5 EP) / 12");
  assert_has("out.txt", "NAVSIM");
  assert_has("out.txt", "CARLA");
}

static void the_same_twice(void **state) {
  (void)state;
  EXPECT(0, "drive", "constant", "--suite", "small.yaml", "--json", "--threads", "1");
  json_t *a = report();
  EXPECT(0, "drive", "constant", "--suite", "small.yaml", "--json", "--threads", "3");
  json_t *b = report();
  json_object_del(a, "seconds");
  json_object_del(b, "seconds");
  assert_true(json_equal(a, b));
  assert_int_equal(json_array_size(json_object_get(a, "cases")), 5);
  assert_true(value(a, "pdms") < 80);
  json_decref(b);
  EXPECT(0, "drive", "expert", "--suite", "small.yaml", "--json", "--limit", "2");
  b = report();
  assert_int_equal(json_array_size(json_object_get(b, "cases")), 2);
  assert_true(value(b, "pdms") > value(a, "pdms"));
  json_decref(a);
  json_decref(b);
}

static void replays(void **state) {
  (void)state;
  int code =
      RUN("drive", "constant", "--suite", "small.yaml", "--limit", "1", "--replay", "videos");
  if (code == 7) { /* no EGL here */
    assert_has("err.txt", "EGL");
    print_message("skipped: no EGL\n");
    return;
  }
  assert_int_equal(code, 0);
  char *dir = dj__join(root, "videos"), **names;
  size_t n;
  assert_int_equal(dj__list_dir(dir, &names, &n), DJ_OK);
  assert_int_equal(n, 1);
  assert_non_null(strstr(names[0], ".mp4"));
  char *file = dj__join(dir, names[0]);
  assert_true(dj__file_size(file) > 10000);
  free(file);
  dj__free_names(names, n);
  free(dir);
}

static void mistakes(void **state) {
  (void)state;
  EXPECT(2, "drive", "--suite", "small.yaml");
  assert_has("err.txt", "needs one driver");
  EXPECT(2, "drive", "expert");
  assert_has("err.txt", "--suite");
  EXPECT(6, "drive", "nobody", "--suite", "small.yaml");
  assert_has("err.txt", "no such driver");
  EXPECT(6, "drive", "expert", "--suite", "none.yaml");
  assert_has("err.txt", "none.yaml");
  EXPECT(5, "drive", "expert", "--suite", "bad.yaml");
  assert_has("err.txt", "bad.yaml:3");
  EXPECT(6, "drive", root, "--suite", "small.yaml"); /* a folder that is no run */
  EXPECT(2, "drive", "expert", "--suite", "small.yaml", "--threads", "-3");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(tables), cmocka_unit_test(the_same_twice),
                                     cmocka_unit_test(replays), cmocka_unit_test(mistakes)};
  return cmocka_run_group_tests(tests, make_root, remove_root);
}
