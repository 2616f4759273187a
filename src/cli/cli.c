/* Option parsing, progress line and errors: what all commands share. */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "dojo/log.h"

int dj__fail(const char *command, dj_status s) {
  dj__cli_progress_end();
  const char *m = dj_error_message();
  (void)fprintf(stderr, "dojo %s: %s\n", command, *m ? m : dj_status_text(s));
  return dj_exit_code(s);
}

static void print_help(const dj__option *options, const char *help) {
  (void)fputs(help, stdout);
  (void)puts("\nOptions:");
  for (const dj__option *o = options; o->name; o++) {
    char left[64];
    char letter[8] = "";
    if (o->letter) (void)snprintf(letter, sizeof letter, "-%c, ", o->letter);
    (void)snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, o->value ? " " : "",
                   o->value ? o->value : "");
    (void)printf("  %-28s %s\n", left, o->help);
  }
  (void)printf("  %-28s %s\n", "-h, --help", "this text");
}

static const dj__option *find_option(const dj__option *options, const char *name, size_t n) {
  for (const dj__option *o = options; o->name; o++)
    if (strlen(o->name) == n && !memcmp(o->name, name, n)) return o;
  return NULL;
}

static int bad_use(const char *command, const char *fmt, const char *a, const char *b) {
  (void)fprintf(stderr, "dojo %s: ", command);
  (void)fprintf(stderr, fmt, a, b);
  (void)fprintf(stderr, "; see dojo %s --help\n", command);
  return dj_exit_code(DJ_E_INVALID);
}

static int set_value(const char *command, const dj__option *o, const char *value) {
  char *end;
  errno = 0;
  switch (o->type) {
  case DJ_OPT_FLAG:
    *(bool *)o->target = true;
    return -1;
  case DJ_OPT_STRING:
    *(const char **)o->target = value;
    return -1;
  case DJ_OPT_INT: {
    long long v = strtoll(value, &end, 10);
    if (errno || end == value || *end)
      return bad_use(command, "--%s needs a whole number, got '%s'", o->name, value);
    *(int64_t *)o->target = v;
    return -1;
  }
  case DJ_OPT_DOUBLE: {
    double v = strtod(value, &end);
    if (errno || end == value || *end)
      return bad_use(command, "--%s needs a number, got '%s'", o->name, value);
    *(double *)o->target = v;
    return -1;
  }
  }
  return -1;
}

static int unknown_option(const char *command, const dj__option *options, const char *name,
                          size_t n) {
  char given[64];
  (void)snprintf(given, sizeof given, "%.*s", (int)(n < 60 ? n : 60), name);
  const char *near = NULL;
  int best = 4;
  for (const dj__option *o = options; o->name; o++) {
    int d = dj__edit_distance(given, o->name);
    if (d < best) {
      best = d;
      near = o->name;
    }
  }
  return near ? bad_use(command, "unknown option --%s; did you mean --%s?", given, near)
              : bad_use(command, "unknown option --%s%s", given, "");
}

int dj__parse_options(int argc, char **argv, const dj__option *options, const char *help, int *npos,
                      char ***pos) {
  const char *command = argv[0];
  int n = 0; // positional arguments are moved to the front of argv
  bool only_positional = false;
  for (int i = 1; i < argc; i++) {
    char *arg = argv[i];
    if (only_positional || arg[0] != '-' || !arg[1]) {
      argv[n++] = arg;
      continue;
    }
    if (!strcmp(arg, "--")) {
      only_positional = true;
      continue;
    }
    if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) {
      print_help(options, help);
      return 0;
    }
    const dj__option *o = NULL;
    const char *value = NULL;
    if (arg[1] == '-') {
      const char *name = arg + 2, *eq = strchr(name, '=');
      size_t len = eq ? (size_t)(eq - name) : strlen(name);
      o = find_option(options, name, len);
      if (!o) return unknown_option(command, options, name, len);
      value = eq ? eq + 1 : NULL;
      if (value && o->type == DJ_OPT_FLAG)
        return bad_use(command, "--%s takes no value%s", o->name, "");
    } else {
      for (const dj__option *c = options; c->name; c++)
        if (c->letter && c->letter == arg[1]) o = c;
      if (!o) return unknown_option(command, options, arg + 1, strlen(arg + 1));
      if (arg[2]) value = arg + 2;
    }
    if (o->type != DJ_OPT_FLAG && !value) {
      if (i + 1 == argc) return bad_use(command, "--%s needs a value: %s", o->name, o->value);
      value = argv[++i];
    }
    int rc = set_value(command, o, value);
    if (rc >= 0) return rc;
  }
  *npos = n;
  *pos = argv;
  return -1;
}

// Progress: one line rewritten at most 10 times a second on a terminal, a plain line every 5 s
// elsewhere. Jobs of less than a second leave no line behind: a command may do hundreds of them.
static struct {
  bool terminal, open;
  double begun, last; // of this job; its last line, or another job's
  char what[128];
} progress;

void dj__cli_progress_end(void) {
  if (progress.open && progress.terminal)
    (void)fputs(dj__now() - progress.begun < 1 ? "\r\033[K" : "\n", stderr);
  progress.open = false;
}

static void show_progress(void *user, const char *what, uint64_t done, uint64_t total,
                          const char *unit, const char *note) {
  (void)user;
  double t = dj__now();
  bool last = total && done >= total;
  if (strncmp(what, progress.what, sizeof progress.what - 1) != 0) {
    dj__cli_progress_end();
    progress.begun = t;
    (void)snprintf(progress.what, sizeof progress.what, "%s", what);
  }
  bool due = t - progress.last >= (progress.terminal ? 0.1 : 5.0);
  if (due || (last && (progress.open || t - progress.begun >= 1))) {
    char line[512];
    int n = snprintf(line, sizeof line, "%s  %" PRIu64, what, done);
    if (total) n += snprintf(line + n, sizeof line - (size_t)n, "/%" PRIu64, total);
    if (n < (int)sizeof line - 1)
      (void)snprintf(line + n, sizeof line - (size_t)n, " %s%s%s", unit, note ? "  " : "",
                     note ? note : "");
    (void)fprintf(stderr, progress.terminal ? "\r\033[K%s" : "%s\n", line);
    (void)fflush(stderr);
    progress.last = t;
    progress.open = true;
  }
  if (last) {
    dj__cli_progress_end();
    progress.what[0] = 0;
  }
}

static void show_log(void *user, dj_log_level level, const char *text) {
  (void)user;
  if (level == DJ_LOG_DEBUG) return;
  dj__cli_progress_end();
  (void)fprintf(stderr, "%s%s\n", level == DJ_LOG_WARN ? "warning: " : "", text);
}

void dj__cli_init(void) {
  progress.terminal = isatty(STDERR_FILENO) == 1;
  dj_log_set_sink(show_log, NULL);
  dj_progress_set_sink(show_progress, NULL);
}

dj_status dj__cli_split_and_checkpoint(const char *split, const char *checkpoint,
                                       dj_checkpoint_which *which) {
  bool last = !strcmp(checkpoint, "last");
  if (!last && strcmp(checkpoint, "best") != 0)
    return dj_error(DJ_E_INVALID, "--checkpoint is best or last, not '%s'", checkpoint);
  if (strcmp(split, "train") != 0 && strcmp(split, "validation") != 0 && strcmp(split, "test") != 0)
    return dj_error(DJ_E_INVALID, "--split is train, validation or test, not '%s'", split);
  *which = last ? DJ_CHECKPOINT_LAST : DJ_CHECKPOINT_BEST;
  return DJ_OK;
}
