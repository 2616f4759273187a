#include "cli/cli.h"

int dj__cmd_eval(int argc, char **argv) {
  (void)argc;
  return dj__fail(argv[0], dj_error(DJ_E_UNSUPPORTED, "in the making"));
}
