/*
 * Runs the program as a user does, in a folder of the test program's own (`root`), and looks at its
 * exit code and at what it printed. Included by one file of a program, after cmocka's headers.
 */
#ifndef DOJO_TESTS_CLI_FIXTURE_H
#define DOJO_TESTS_CLI_FIXTURE_H

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"
#include "root_fixture.h"

// Starts the program in `root`, its output in files out.txt and err.txt.
static inline pid_t start(const char *const *args) {
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid) return pid;
  const char *argv[32] = {DOJO_BINARY};
  for (int i = 0; args[i] && i < 30; i++) argv[i + 1] = args[i];
  int out = -1, err = -1;
  if (chdir(root) == 0) {
    out = open("out.txt", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    err = open("err.txt", O_WRONLY | O_CREAT | O_TRUNC, 0666);
  }
  if (out >= 0 && err >= 0 && dup2(out, 1) >= 0 && dup2(err, 2) >= 0)
    execv(DOJO_BINARY, (char *const *)argv);
  _exit(127);
}

static inline int finish(pid_t pid) {
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static inline char *text_of(const char *name) {
  char *path = dj__join(root, name), *text;
  size_t n;
  if (dj__read_file(path, 1 << 20, &text, &n)) fail_msg("%s", dj_error_message());
  free(path);
  return text;
}

static inline void assert_has(const char *file, const char *part) {
  char *text = text_of(file);
  if (!strstr(text, part)) fail_msg("%s lacks '%s':\n%s", file, part, text);
  free(text);
}

// What `--json` printed.
static inline json_t *report(void) {
  char *out = text_of("out.txt");
  json_error_t e;
  json_t *j = json_loads(out, 0, &e);
  if (!j) fail_msg("no JSON (%s): %s", e.text, out);
  free(out);
  return j;
}

#define RUN(...) finish(start((const char *const[]){__VA_ARGS__, NULL}))
#define EXPECT(code, ...)                                                                          \
  do {                                                                                             \
    int got_ = RUN(__VA_ARGS__);                                                                   \
    if (got_ != (code)) {                                                                          \
      char *err_ = text_of("err.txt");                                                             \
      fail_msg("exit code %d, wanted %d:\n%s", got_, code, err_);                                  \
    }                                                                                              \
  } while (0)

// A text file in `root`.
static inline void put(const char *name, const char *text) {
  char *path = dj__join(root, name);
  if (dj__write_file_atomic(path, text, strlen(text))) fail_msg("%s", dj_error_message());
  free(path);
}

#endif
