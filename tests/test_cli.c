/* What holds for every command: help with an example, mistakes that name the nearest word, exit
 * codes, output that goes where it belongs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cli/cli.h"
#include "cli_fixture.h"

#define DJ_X(name, id, text) {name, text},
static const struct { const char *name, *summary; } commands[] = {DJ_COMMANDS(DJ_X)};
#undef DJ_X
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void assert_silent(const char *file) {
  char *text = text_of(file);
  if (text[0]) fail_msg("%s should be empty: %s", file, text);
  free(text);
}

static void every_command_has_help(void **state) {
  (void)state;
  EXPECT(0, "--help");
  for (int i = 0; i < N_COMMANDS; i++) {
    assert_has("out.txt", commands[i].name);
    assert_has("out.txt", commands[i].summary);
  }
  for (int i = 0; i < N_COMMANDS; i++) {
    EXPECT(0, commands[i].name, "--help");
    assert_has("out.txt", "Usage: dojo ");
    assert_has("out.txt", commands[i].name);
    assert_has("out.txt", "Example");
    assert_silent("err.txt");
  }
  EXPECT(0, "--version");
  assert_has("out.txt", "dojo 0.");
}

static void unknown_words(void **state) {
  (void)state;
  EXPECT(DJ_E_INVALID, "trian");
  assert_has("err.txt", "train");
  assert_silent("out.txt");
  EXPECT(DJ_E_INVALID, "eval", "R", "--josn");
  assert_has("err.txt", "--json");
  EXPECT(DJ_E_INVALID, "eval", "R", "--split"); // a value is missing
  assert_has("err.txt", "--split");
  EXPECT(DJ_E_INVALID, "eval", "R", "--threads", "many");
  assert_has("err.txt", "many");
  EXPECT(DJ_E_INVALID, "eval", "R", "--json=yes"); // a flag takes none
  EXPECT(DJ_E_INVALID, "store", "lst", "--store", "S");
  assert_has("err.txt", "ls");
  assert_silent("out.txt");
}

static void no_command(void **state) {
  (void)state;
  assert_int_not_equal(RUN(NULL), 0);
  char *out = text_of("out.txt"), *err = text_of("err.txt");
  assert_true(strstr(out, "Usage: dojo") || strstr(err, "Usage: dojo"));
  free(out);
  free(err);
}

static void commands_that_need_something_say_what(void **state) {
  (void)state;
  static const char *const needy[] = {"ingest", "store", "train", "eval", "predict", "log"};
  for (size_t i = 0; i < sizeof needy / sizeof *needy; i++) {
    EXPECT(DJ_E_INVALID, needy[i]);
    char *err = text_of("err.txt");
    if (strlen(err) < 20) fail_msg("dojo %s says too little: %s", needy[i], err);
    free(err);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_command_has_help),
                                     cmocka_unit_test(unknown_words), cmocka_unit_test(no_command),
                                     cmocka_unit_test(commands_that_need_something_say_what)};
  return cmocka_run_group_tests(tests, create_root, remove_root);
}
