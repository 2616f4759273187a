/* Program entry: finds the command and hands over. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static const struct {
  const char *name;
  int (*run)(int argc, char **argv);
  const char *summary;
} commands[] = {
#define DJ_X(name, id, text) {name, dj__cmd_##id, text},
    DJ_COMMANDS(DJ_X)
#undef DJ_X
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *out) {
  (void)fputs("dojo: train driving networks from drive logs\n\n"
              "Usage: dojo COMMAND [options]     dojo COMMAND --help shows an example\n\n",
              out);
  for (int i = 0; i < N_COMMANDS; i++)
    (void)fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
}

/*
 * OpenMP's threads wait for each other in a loop of about 10 ms, which steals the very core that
 * the one waited for needs when anything else runs on the machine: training then takes ten times as
 * long. Some ten microseconds are enough where the machine is quiet. The library reads this once,
 * before main; docs/performance.md has the figures.
 */
#define SPINS "GOMP_SPINCOUNT"

#ifndef __SANITIZE_ADDRESS__ // whose functions cannot be called yet
/* Before the libraries begin: the shell's note of which program it starts, which nobody reads,
 * makes room for the variable. */
static void calm_early(int argc, char **argv, char **env) {
  static char calm[] = SPINS "=2000", policy[] = "OMP_WAIT_POLICY=", spins[] = SPINS "=";
  char **note = NULL;
  (void)argc, (void)argv;
  for (char **e = env; *e; e++) {
    if (!strncmp(*e, policy, sizeof policy - 1) || !strncmp(*e, spins, sizeof spins - 1)) return;
    if ((*e)[0] == '_' && (*e)[1] == '=') note = e;
  }
  if (note) *note = calm;
}
typedef void start(int argc, char **argv, char **env);
__attribute__((section(".preinit_array"), used)) static start *const before_libraries = calm_early;
#endif

/* Where there was no such note the program begins again. */
static void calm_waiting(char **argv) {
  char self[PATH_MAX];
  if (getenv("OMP_WAIT_POLICY") || getenv(SPINS)) return; // the user has decided, or it is done
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  if (n <= 0 || setenv(SPINS, "2000", 1)) return;
  self[n] = 0;
  (void)execv(self, argv); // where that fails we go on as we are
}

#ifdef __SANITIZE_ADDRESS__
/* fontconfig keeps the fonts it found until the process ends. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
  return "leak:libfontconfig";
}
#endif

int main(int argc, char **argv) {
  calm_waiting(argv);
  dj__cli_init();
  if (argc < 2) {
    usage(stderr);
    return 2;
  }
  if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
    usage(stdout);
    return 0;
  }
  if (!strcmp(argv[1], "--version")) {
    (void)puts("dojo " DOJO_VERSION);
    return 0;
  }
  const char *near = NULL;
  int best = 4;
  for (int i = 0; i < N_COMMANDS; i++) {
    if (!strcmp(argv[1], commands[i].name)) {
      int rc = commands[i].run(argc - 1, argv + 1);
      if (fflush(stdout) != 0) {
        (void)fprintf(stderr, "dojo %s: cannot write to standard output\n", argv[1]);
        return 4;
      }
      return rc;
    }
    int d = dj__edit_distance(argv[1], commands[i].name);
    if (d < best) {
      best = d;
      near = commands[i].name;
    }
  }
  (void)fprintf(stderr, "dojo: unknown command '%s'", argv[1]);
  if (near) (void)fprintf(stderr, "; did you mean '%s'?", near);
  (void)fputs("\n", stderr);
  return 2;
}
