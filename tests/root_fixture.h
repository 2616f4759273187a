/* A folder of the test program's own, `root`: made before its tests, removed behind them. Included
 * by one file of a program, after cmocka's headers. */
#ifndef DOJO_TESTS_ROOT_FIXTURE_H
#define DOJO_TESTS_ROOT_FIXTURE_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "ok_fixture.h"

static char root[] = "/tmp/dojo-test-XXXXXX";

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *f) {
  (void)st;
  (void)type;
  (void)f;
  return remove(path);
}
static inline int create_root(void **state) {
  (void)state;
  return mkdtemp(root) ? 0 : -1;
}
static inline int remove_root(void **state) {
  (void)state;
  return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
