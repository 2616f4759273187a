/* base: errors, arena, random numbers, files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/fs.h"
#include "base/rng.h"
#include "cli/cli.h"
#include "dojo/status.h"

static void errors_carry_context(void **state) {
  (void)state;
  assert_int_equal(dj_error(DJ_E_FORMAT, "line %d: bad", 7), DJ_E_FORMAT);
  assert_int_equal(dj_error_context(DJ_E_FORMAT, "file %s", "a.csv"), DJ_E_FORMAT);
  assert_string_equal(dj_error_message(), "file a.csv: line 7: bad");
  dj_error(DJ_E_IO, "again: %s", dj_error_message());
  assert_string_equal(dj_error_message(), "again: file a.csv: line 7: bad");
}

static void arena_is_zeroed_and_aligned(void **state) {
  (void)state;
  dj__arena a = {0};
  for (int i = 0; i < 1000; i++) {
    unsigned char *p = dj__arena_alloc(&a, (size_t)i * 7 + 1);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 16, 0);
    for (int k = 0; k < i * 7 + 1; k++) assert_int_equal(p[k], 0);
    memset(p, 0xff, (size_t)i * 7 + 1);
  }
  assert_null(dj__arena_alloc(&a, SIZE_MAX - 4));
  dj__arena_free(&a);
}

/* Known-answer vectors of the authors' Random123 1.09 (kat_vectors, philox4x32 10 rounds). */
static void philox_known_answers(void **state) {
  (void)state;
  dj__u32x4 r = dj__philox(0, 0, 0);
  assert_int_equal(r.v[0], 0x6627e8d5);
  assert_int_equal(r.v[1], 0xe169c58d);
  assert_int_equal(r.v[2], 0xbc57ac4c);
  assert_int_equal(r.v[3], 0x9b00dbd8);
  r = dj__philox(~0ull, ~0ull, ~0ull);
  assert_int_equal(r.v[0], 0x408f276d);
  assert_int_equal(r.v[1], 0x41c83b0e);
  assert_int_equal(r.v[2], 0xa20bc7c6);
  assert_int_equal(r.v[3], 0x6d5451fd);
}

static void atomic_write_replaces_or_leaves(void **state) {
  (void)state;
  char dir[] = "/tmp/dojo-test-XXXXXX";
  assert_non_null(mkdtemp(dir));
  char *path = dj__join(dir, "f");
  assert_int_equal(dj__write_file_atomic(path, "one", 3), DJ_OK);
  dj__atomic a;
  assert_int_equal(dj__atomic_open(&a, path), DJ_OK);
  assert_int_equal(fwrite("half", 1, 4, a.file), 4);
  dj__atomic_abort(&a);
  char *data;
  size_t size;
  assert_int_equal(dj__read_file(path, 100, &data, &size), DJ_OK);
  assert_string_equal(data, "one");
  free(data);
  assert_int_equal(dj__read_file(path, 2, &data, &size), DJ_E_LIMIT);
  char **names;
  size_t n;
  assert_int_equal(dj__list_dir(dir, &names, &n), DJ_OK);
  assert_int_equal(n, 1);
  dj__free_names(names, n);
  unlink(path);
  rmdir(dir);
  free(path);
}

static void hostile_paths_are_refused(void **state) {
  (void)state;
  assert_true(dj__safe_relative("a/b.jpg"));
  assert_true(dj__safe_relative("a..b/c"));
  assert_false(dj__safe_relative("/etc/passwd"));
  assert_false(dj__safe_relative("a/../../b"));
  assert_false(dj__safe_relative(".."));
  assert_false(dj__safe_relative(""));
}

static void edit_distance(void **state) {
  (void)state;
  assert_int_equal(dj__edit_distance("kitten", "sitting"), 3);
  assert_int_equal(dj__edit_distance("", "abc"), 3);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(errors_carry_context),
      cmocka_unit_test(arena_is_zeroed_and_aligned),
      cmocka_unit_test(philox_known_answers),
      cmocka_unit_test(atomic_write_replaces_or_leaves),
      cmocka_unit_test(hostile_paths_are_refused),
      cmocka_unit_test(edit_distance),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
