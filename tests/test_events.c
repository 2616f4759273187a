/* Event files: written ones are read back, CRCs are checked, cut and hostile files do no harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <ftw.h>
#include <math.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fs.h"
#include "root_fixture.h"
#include "train/events.h"

typedef struct seen {
  int n, starts, pictures;
  double sum;
  uint64_t last_step, start_step;
  char tag[64];
  uint8_t rgb[5 * 4 * 3];
} seen;

static void see(void *user, const dj__event *e) {
  seen *s = user;
  if (e->is_start) {
    s->starts++;
    s->start_step = e->step;
  } else if (e->png) {
    s->pictures++;
    png_image i = {.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_memory(&i, e->png, e->png_size));
    assert_true(i.width == 5 && i.height == 4);
    i.format = PNG_FORMAT_RGB;
    assert_true(png_image_finish_read(&i, NULL, s->rgb, 0, NULL));
  } else {
    s->n++;
    s->sum += e->value;
    s->last_step = e->step;
    (void)snprintf(s->tag, sizeof s->tag, "%s", e->tag);
  }
}

static void crc(void **state) {
  (void)state;
  assert_int_equal(dj__crc32c("123456789", 9), 0xe3069283u); // RFC 3720's check value
  uint8_t zeros[32] = {0};
  assert_int_equal(dj__crc32c(zeros, 32), 0x8a9136aau); // RFC 3720, B.4
  memset(zeros, 0xff, 32);
  assert_int_equal(dj__crc32c(zeros, 32), 0x62a8ab43u);
  assert_int_equal(dj__crc32c("", 0), 0);
}

static char *write_file(const char *name, uint64_t first_step, size_t *size) {
  char *dir = dj__join(root, name), **names, *bytes;
  size_t n;
  dj__events *e;
  uint8_t rgb[5 * 4 * 3];
  for (int i = 0; i < 60; i++) rgb[i] = (uint8_t)(4 * i);
  OK(dj__mkdirs(dir));
  OK(dj__events_create(dir, 1700000000.5, first_step, &e));
  for (uint64_t k = 1; k <= 300; k++) dj__events_scalar(e, k, "train/loss", 1.0 / (double)k);
  dj__events_image(e, 300, "validation/sample", 5, 4, rgb);
  dj__events_scalar(e, 1ull << 40, "validation/é", -2.5);
  OK(dj__events_close(e));
  OK(dj__list_dir(dir, &names, &n));
  assert_int_equal(n, 1);
  assert_non_null(strstr(names[0], "tfevents"));
  char *path = dj__join(dir, names[0]);
  OK(dj__read_file(path, 1 << 20, &bytes, size));
  dj__free_names(names, n);
  free(path);
  free(dir);
  return bytes;
}

static void written_is_read(void **state) {
  (void)state;
  size_t size;
  char *bytes = write_file("back", 42, &size);
  seen s = {0};
  OK(dj__events_parse(bytes, size, "memory", see, &s));
  assert_int_equal(s.n, 301);
  assert_int_equal(s.starts, 1);
  assert_int_equal(s.start_step, 42);
  assert_int_equal(s.pictures, 1);
  assert_int_equal(s.rgb[59], 236);
  assert_int_equal(s.last_step, 1ull << 40);
  assert_string_equal(s.tag, "validation/é");
  double sum = -2.5;
  for (int k = 1; k <= 300; k++) sum += (double)(float)(1.0 / k);
  assert_true(fabs(s.sum - sum) < 1e-9);
  char *dir = dj__join(root, "back");
  seen again = {0};
  OK(dj__events_read_dir(dir, see, &again));
  assert_int_equal(again.n, 301);
  free(dir);
  free(bytes);
}

static void cut_files_end_quietly(void **state) {
  (void)state;
  size_t size;
  char *bytes = write_file("cut", 0, &size);
  int before = 0;
  for (size_t n = 0; n < size; n += 7) {
    seen s = {0};
    OK(dj__events_parse(bytes, n, "memory", see, &s));
    assert_true(s.n >= before && s.starts == 0);
    before = s.n;
  }
  free(bytes);
}

static void damage_is_noticed(void **state) {
  (void)state;
  size_t size;
  char *bytes = write_file("damaged", 0, &size);
  for (size_t at = 0; at < 400; at += 3) {
    bytes[at] ^= 0x10;
    seen s = {0};
    assert_int_equal(dj__events_parse(bytes, size, "memory", see, &s), DJ_E_FORMAT);
    assert_non_null(strstr(dj_error_message(), "offset"));
    bytes[at] ^= 0x10;
  }
  free(bytes);
}

static void a_missing_folder_is_an_error(void **state) {
  (void)state;
  char *dir = dj__join(root, "none");
  dj__events *e;
  assert_int_equal(dj__events_create(dir, 1, 0, &e), DJ_E_NOT_FOUND);
  assert_null(e);
  free(dir);
}

static void names_do_not_collide(void **state) {
  (void)state;
  char *dir = dj__join(root, "twice");
  OK(dj__mkdirs(dir));
  dj__events *a, *b;
  OK(dj__events_create(dir, 5, 0, &a));
  OK(dj__events_create(dir, 5, 3, &b));
  dj__events_scalar(b, 3, "x", 1);
  dj__events_scalar(a, 1, "x", 2);
  OK(dj__events_close(a));
  OK(dj__events_close(b));
  seen s = {0};
  OK(dj__events_read_dir(dir, see, &s));
  assert_int_equal(s.n, 2);
  assert_int_equal(s.last_step, 3);
  free(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(crc),
      cmocka_unit_test(written_is_read),
      cmocka_unit_test(cut_files_end_quietly),
      cmocka_unit_test(damage_is_noticed),
      cmocka_unit_test(a_missing_folder_is_an_error),
      cmocka_unit_test(names_do_not_collide),
  };
  return cmocka_run_group_tests(tests, create_root, remove_root);
}
