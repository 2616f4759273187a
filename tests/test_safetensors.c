/* safetensors: round trips, what the reference library writes, hostile files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fs.h"
#include "dojo/safetensors.h"

static char *temp_dir(void) {
  char *dir = dj__strf("/tmp/dojo-st-XXXXXX");
  assert_non_null(mkdtemp(dir));
  return dir;
}

static void round_trip_all_dtypes(void **state) {
  (void)state;
  char *dir = temp_dir(), *path = dj__join(dir, "t.safetensors");
  unsigned char bytes[8 * 6];
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(i * 37 + 1);
  dj_st_tensor t[DJ_ST_N_DTYPES + 2];
  char names[DJ_ST_N_DTYPES][16];
  for (int i = 0; i < DJ_ST_N_DTYPES; i++) {
    (void)snprintf(names[i], sizeof names[i], "w.%d", i);
    t[i] = (dj_st_tensor){
        .name = names[i], .dtype = (dj_st_dtype)i, .rank = 2, .shape = {2, 3}, .data = bytes};
  }
  t[DJ_ST_N_DTYPES] =
      (dj_st_tensor){.name = "scalar \"\\\n\x01 \xc3\xa9", .dtype = DJ_ST_F32, .data = bytes};
  t[DJ_ST_N_DTYPES + 1] =
      (dj_st_tensor){.name = "empty", .dtype = DJ_ST_I64, .rank = 3, .shape = {4, 0, 1ull << 40}};
  dj_st_meta meta[] = {{"z", "last"}, {"a", "first \"quoted\"\t"}};
  assert_int_equal(dj_safetensors_save(path, t, DJ_ST_N_DTYPES + 2, meta, 2), DJ_OK);

  dj_safetensors *f;
  assert_int_equal(dj_safetensors_open(path, &f), DJ_OK);
  assert_int_equal(dj_safetensors_count(f), DJ_ST_N_DTYPES + 2);
  for (int i = 0; i < DJ_ST_N_DTYPES + 2; i++) {
    const dj_st_tensor *r = dj_safetensors_find(f, t[i].name);
    assert_non_null(r);
    assert_int_equal(r->dtype, t[i].dtype);
    assert_int_equal(r->rank, t[i].rank);
    assert_memory_equal(r->shape, t[i].shape, (size_t)r->rank * 8);
    if (r->size) assert_memory_equal(r->data, bytes, r->size);
    assert_int_equal((uintptr_t)r->data % dj_st_dtype_size(r->dtype), 0);
  }
  assert_int_equal(dj_safetensors_get(f, 0)->size, 48);
  assert_null(dj_safetensors_get(f, 99));
  assert_null(dj_safetensors_find(f, "nothing"));
  assert_int_equal(dj_safetensors_metadata_count(f), 2);
  assert_string_equal(dj_safetensors_metadata_get(f, 0).key, "a");
  assert_string_equal(dj_safetensors_metadata(f, "a"), "first \"quoted\"\t");
  assert_null(dj_safetensors_metadata(f, "b"));
  const dj_st_tensor *r;
  assert_int_equal(dj_safetensors_expect(f, "w.1", DJ_ST_F32, 2, (uint64_t[]){2, 3}, &r), DJ_OK);
  assert_int_equal(dj_safetensors_expect(f, "w.1", DJ_ST_F32, 2, (uint64_t[]){3, 2}, &r),
                   DJ_E_FORMAT);
  assert_non_null(strstr(dj_error_message(), "F32 [2, 3], expected F32 [3, 2]"));
  assert_int_equal(dj_safetensors_expect(f, "w", DJ_ST_F32, 0, NULL, &r), DJ_E_NOT_FOUND);
  dj_safetensors_close(f);
  unlink(path);
  rmdir(dir);
  free(path);
  free(dir);
}

/* Opens a file made of a header text and `data` bytes. */
static dj_status open_text(const char *header, size_t data, dj_safetensors **f) {
  static unsigned char file[4096];
  memset(file, 0, sizeof file);
  size_t n = strlen(header);
  file[0] = (unsigned char)n;
  file[1] = (unsigned char)(n >> 8);
  memcpy(file + 8, header, n);
  return dj_safetensors_open_memory(file, 8 + n + data, "test", f);
}

static void reads_what_others_write(void **state) {
  (void)state;
  dj_safetensors *f;
  // Not in order of place, spaces behind, metadata in the middle: all allowed.
  assert_int_equal(
      open_text("{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]},"
                "\"__metadata__\":{\"format\":\"pt\"},"
                "\"a\":{\"shape\":[1,1],\"data_offsets\":[0,2],\"dtype\":\"BF16\"}}   ",
                6, &f),
      DJ_OK);
  assert_string_equal(dj_safetensors_get(f, 0)->name, "a");
  assert_string_equal(dj_safetensors_metadata(f, "format"), "pt");
  dj_safetensors_close(f);
  assert_int_equal(open_text("{}", 0, &f), DJ_OK);
  assert_int_equal(dj_safetensors_count(f), 0);
  dj_safetensors_close(f);
}

#define ENTRY(shape, offsets)                                                                      \
  "{\"a\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void refuses_bad_files(void **state) {
  (void)state;
  static const struct {
    const char *header;
    size_t data;
    dj_status want;
    const char *says;
  } cases[] = {
      {ENTRY("[2]", "[0,8]"), 8, DJ_OK, ""},
      {ENTRY("[2]", "[0,8]"), 7, DJ_E_FORMAT, "cut short"},
      {ENTRY("[2]", "[0,8]"), 9, DJ_E_FORMAT, "9 bytes of data"},
      {ENTRY("[3]", "[0,8]"), 8, DJ_E_FORMAT, "need 12"},
      {ENTRY("[2]", "[4,12]"), 12, DJ_E_FORMAT, "hole"},
      {ENTRY("[2]", "[8,0]"), 8, DJ_E_FORMAT, "outside"},
      {ENTRY("[-2]", "[0,8]"), 8, DJ_E_FORMAT, "dimension"},
      {ENTRY("[2.0]", "[0,8]"), 8, DJ_E_FORMAT, "dimension"},
      {ENTRY("[9223372036854775807,9223372036854775807]", "[0,8]"), 8, DJ_E_FORMAT, "overflow"},
      {ENTRY("[4611686018427387904,4]", "[0,0]"), 0, DJ_E_FORMAT, "overflow"},
      {ENTRY("[9223372036854775808]", "[0,0]"), 0, DJ_E_FORMAT, "header"},
      {ENTRY("[0,9223372036854775807,9223372036854775807]", "[0,0]"), 0, DJ_OK, ""},
      {ENTRY("[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, DJ_E_UNSUPPORTED, "9 dimensions"},
      {ENTRY("[2]", "[0]"), 8, DJ_E_FORMAT, "data_offsets"},
      {ENTRY("[2]", "null"), 8, DJ_E_FORMAT, "data_offsets"},
      {"{\"a\":{\"dtype\":\"F99\",\"shape\":[],\"data_offsets\":[0,0]}}", 0, DJ_E_UNSUPPORTED,
       "F99"},
      {"{\"a\":{\"shape\":[],\"data_offsets\":[0,0]}}", 0, DJ_E_FORMAT, "dtype"},
      {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0],\"x\":1}}", 0, DJ_E_FORMAT,
       "'x'"},
      {"{\"\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, DJ_E_FORMAT,
       "empty name"},
      {"{\"a\":[]}", 0, DJ_E_FORMAT, "object"},
      {"{\"__metadata__\":{\"a\":1}}", 0, DJ_E_FORMAT, "no string"},
      {"{\"__metadata__\":[]}", 0, DJ_E_FORMAT, "no object"},
      {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
       "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
       1, DJ_E_FORMAT, "duplicate"},
      {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
       "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
       3, DJ_E_FORMAT, "inside another"},
      {"[]", 0, DJ_E_FORMAT, "'{'"},
      {"{\"a\":", 0, DJ_E_FORMAT, "header"},
      {"{} x", 0, DJ_E_FORMAT, "header"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    dj_safetensors *f = NULL;
    dj_status s = open_text(cases[i].header, cases[i].data, &f);
    if (s != cases[i].want)
      print_message("case %zu: %s: %s\n", i, cases[i].header, dj_error_message());
    assert_int_equal(s, cases[i].want);
    if (s && !strstr(dj_error_message(), cases[i].says))
      fail_msg("case %zu: %s", i, dj_error_message());
    dj_safetensors_close(f);
  }
}

static void refuses_bad_sizes(void **state) {
  (void)state;
  dj_safetensors *f;
  unsigned char b[16] = {0};
  for (size_t n = 0; n < 8; n++)
    assert_int_equal(dj_safetensors_open_memory(b, n, "t", &f), DJ_E_FORMAT);
  assert_int_equal(dj_safetensors_open_memory(b, 8, "t", &f), DJ_E_FORMAT);
  memset(b, 0xff, 8);
  assert_int_equal(dj_safetensors_open_memory(b, 16, "t", &f), DJ_E_LIMIT);
  memset(b, 0, 8);
  b[0] = 9; // one more than there is
  assert_int_equal(dj_safetensors_open_memory(b, 16, "t", &f), DJ_E_FORMAT);
  assert_int_equal(dj_safetensors_open("/nonexistent/x", &f), DJ_E_NOT_FOUND);
  assert_null(f);
}

static void writer_refuses_nonsense(void **state) {
  (void)state;
  float x[2] = {1, 2};
  dj_st_tensor twice[] = {{.name = "a", .dtype = DJ_ST_F32, .rank = 1, .shape = {2}, .data = x},
                          {.name = "a", .dtype = DJ_ST_F32, .rank = 1, .shape = {2}, .data = x}};
  char *dir = temp_dir(), *path = dj__join(dir, "t");
  assert_int_equal(dj_safetensors_save(path, twice, 2, NULL, 0), DJ_E_INVALID);
  dj_st_tensor t = {.name = "", .dtype = DJ_ST_F32, .data = x};
  assert_int_equal(dj_safetensors_save(path, &t, 1, NULL, 0), DJ_E_INVALID);
  t.name = "\xff\xfe";
  assert_int_equal(dj_safetensors_save(path, &t, 1, NULL, 0), DJ_E_INVALID);
  t.name = "__metadata__";
  assert_int_equal(dj_safetensors_save(path, &t, 1, NULL, 0), DJ_E_INVALID);
  t = (dj_st_tensor){
      .name = "a", .dtype = DJ_ST_F32, .rank = 2, .shape = {1ull << 62, 4}, .data = x};
  assert_int_equal(dj_safetensors_save(path, &t, 1, NULL, 0), DJ_E_INVALID);
  t = (dj_st_tensor){.name = "a", .dtype = DJ_ST_F32};
  assert_int_equal(dj_safetensors_save(path, &t, 1, NULL, 0), DJ_E_INVALID);
  dj_st_meta meta[] = {{"k", "1"}, {"k", "2"}};
  assert_int_equal(dj_safetensors_save(path, NULL, 0, meta, 2), DJ_E_INVALID);
  char **names;
  size_t n;
  assert_int_equal(dj__list_dir(dir, &names, &n), DJ_OK);
  assert_int_equal(n, 0); // nothing left behind
  dj__free_names(names, n);
  rmdir(dir);
  free(path);
  free(dir);
}

/* A full disk is an error, not a short file. */
static void full_disk_is_an_error(void **state) {
  (void)state;
  FILE *full = fopen("/dev/full", "wb");
  if (!full) skip();
  setvbuf(full, NULL, _IONBF, 0);
  float x[2] = {1, 2};
  dj_st_tensor t = {.name = "a", .dtype = DJ_ST_F32, .rank = 1, .shape = {2}, .data = x};
  assert_int_equal(dj_safetensors_write(full, &t, 1, NULL, 0), DJ_E_NO_SPACE);
  fclose(full);
}

/* The reference library, where Python has it, reads our files and we read its. */
static void agrees_with_the_python_package(void **state) {
  (void)state;
  if (system("python3 -c 'import safetensors.numpy' 2>/dev/null") != 0) {
    print_message("skipped: Python's safetensors package is not installed\n");
    skip();
  }
  char *dir = temp_dir(), *ours = dj__join(dir, "ours"), *theirs = dj__join(dir, "theirs");
  float x[6] = {0, 1, 2, 3, 4, 5};
  uint8_t u[3] = {7, 8, 9};
  dj_st_tensor t[] = {{.name = "u", .dtype = DJ_ST_U8, .rank = 1, .shape = {3}, .data = u},
                      {.name = "x", .dtype = DJ_ST_F32, .rank = 2, .shape = {2, 3}, .data = x}};
  dj_st_meta meta[] = {{"step", "12"}};
  assert_int_equal(dj_safetensors_save(ours, t, 2, meta, 1), DJ_OK);
  char *cmd =
      dj__strf("python3 -c \"import numpy as np, safetensors as s, safetensors.numpy as n\n"
               "d = n.load_file('%s')\n"
               "assert d['x'].tolist() == [[0,1,2],[3,4,5]] and d['u'].tolist() == [7,8,9]\n"
               "assert s.safe_open('%s', 'np').metadata() == {'step': '12'}\n"
               "n.save_file({'a': np.arange(4, dtype=np.int64), 'b': d['x']}, '%s', {'k': 'v'})\"",
               ours, ours, theirs);
  assert_int_equal(system(cmd), 0);
  dj_safetensors *f;
  assert_int_equal(dj_safetensors_open(theirs, &f), DJ_OK);
  const dj_st_tensor *a = dj_safetensors_find(f, "a");
  assert_non_null(a);
  assert_int_equal(a->dtype, DJ_ST_I64);
  assert_int_equal(((const int64_t *)a->data)[3], 3);
  assert_string_equal(dj_safetensors_metadata(f, "k"), "v");
  dj_safetensors_close(f);
  unlink(ours);
  unlink(theirs);
  rmdir(dir);
  free(cmd);
  free(ours);
  free(theirs);
  free(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(round_trip_all_dtypes),
      cmocka_unit_test(reads_what_others_write),
      cmocka_unit_test(refuses_bad_files),
      cmocka_unit_test(refuses_bad_sizes),
      cmocka_unit_test(writer_refuses_nonsense),
      cmocka_unit_test(full_disk_is_an_error),
      cmocka_unit_test(agrees_with_the_python_package),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
