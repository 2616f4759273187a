#include "dojo/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static dj_log_sink *log_sink;
static void *log_user;
static dj_progress_sink *progress_sink;
static void *progress_user;

void dj_log_set_sink(dj_log_sink *sink, void *user) {
  pthread_mutex_lock(&lock);
  log_sink = sink;
  log_user = user;
  pthread_mutex_unlock(&lock);
}

void dj_progress_set_sink(dj_progress_sink *sink, void *user) {
  pthread_mutex_lock(&lock);
  progress_sink = sink;
  progress_user = user;
  pthread_mutex_unlock(&lock);
}

void dj_message(dj_log_level level, const char *fmt, ...) {
  char text[2048];
  va_list ap;
  va_start(ap, fmt);
  (void)vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  pthread_mutex_lock(&lock);
  if (log_sink) log_sink(log_user, level, text);
  pthread_mutex_unlock(&lock);
}

void dj_progress(const char *what, uint64_t done, uint64_t total, const char *unit,
                 const char *note) {
  pthread_mutex_lock(&lock);
  if (progress_sink) progress_sink(progress_user, what, done, total, unit, note);
  pthread_mutex_unlock(&lock);
}
