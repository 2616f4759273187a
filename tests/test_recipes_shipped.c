/* Every recipe in recipes/ loads and names a network that exists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/fs.h"
#include "dojo/drive.h"
#include "drive/network.h"
#include "text/decoder.h"

static void shipped_recipes_load(void **state) {
  (void)state;
  char **names;
  size_t n, seen = 0;
  assert_int_equal(dj__list_dir(DOJO_SOURCE_DIR "/recipes", &names, &n), DJ_OK);
  for (size_t i = 0; i < n; i++) {
    char *path = dj__join(DOJO_SOURCE_DIR "/recipes", names[i]);
    dj_recipe *r = NULL;
    dj_status s = dj_recipe_load(path, &r);
    if (s) print_error("%s\n", dj_error_message());
    assert_int_equal(s, DJ_OK);
    dj__decoder d;
    if (r->task == DJ_TASK_TEXT)
      assert_int_equal(dj__decoder_of(r, 65, &d), DJ_OK);
    else
      assert_non_null(dj__network_find(r));
    dj_recipe_free(r);
    free(path);
    seen++;
  }
  assert_true(seen >= 8);
  dj__free_names(names, n);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(shipped_recipes_load)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
