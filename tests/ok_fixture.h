/* OK(call): the test fails with the error's message where a call does. After cmocka's headers. */
#ifndef DOJO_TESTS_OK_FIXTURE_H
#define DOJO_TESTS_OK_FIXTURE_H

#include "dojo/status.h"

#define OK(expr)                                                                                   \
  do {                                                                                             \
    dj_status ok_ = (expr);                                                                        \
    if (ok_) fail_msg("%s: %s", #expr, dj_error_message());                                        \
  } while (0)

#endif
