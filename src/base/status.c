/* Thread-local error text. One buffer a thread, overwritten by each failure; no allocation, so that
 * an out-of-memory failure can be reported too. */
#include "dojo/status.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

// For the analyzer these are macros around the functions.
#undef dj_error
#undef dj_error_context
#undef dj_error_errno

static _Thread_local char message[2048];

const char *dj_status_text(dj_status s) {
  switch (s) {
#define DJ_X(name, value, text)                                                                    \
  case DJ_##name:                                                                                  \
    return text;
    DJ_STATUS_LIST(DJ_X)
#undef DJ_X
  }
  return "unknown status";
}

const char *dj_error_message(void) {
  return message;
}

dj_status dj_error(dj_status s, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  char text[sizeof message]; // the arguments may point into `message` itself
  (void)vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  memcpy(message, text, sizeof message);
  return s;
}

dj_status dj_error_context(dj_status s, const char *fmt, ...) {
  char text[sizeof message];
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (n > 0 && (size_t)n < sizeof text && !strncmp(message, text, (size_t)n) && message[n] == ':')
    return s;
  if (n >= 0 && (size_t)n < sizeof text)
    (void)snprintf(text + n, sizeof text - (size_t)n, ": %s",
                   message[0] ? message : dj_status_text(s));
  memcpy(message, text, sizeof message);
  return s;
}

dj_status dj_error_errno(const char *fmt, ...) {
  int e = errno;
  char text[1024];
  va_list ap;
  va_start(ap, fmt);
  (void)vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  dj_status s = e == ENOSPC || e == EDQUOT                  ? DJ_E_NO_SPACE
                : e == ENOENT || e == ENOTDIR || e == ELOOP ? DJ_E_NOT_FOUND
                : e == ENOMEM                               ? DJ_E_NOMEM
                                                            : DJ_E_IO;
  return dj_error(s, "%s: %s", text, strerror(e));
}
