/*
 * Errors. Every function that can fail returns a dj_status; the text of the last failure of the
 * calling thread says what went wrong, where and with which values, and what to do about it.
 *
 *     dj_status s = dj_mcap_open(path, &log);
 *     if (s) { fprintf(stderr, "dojo: %s\n", dj_error_message()); return dj_exit_code(s); }
 *
 * Nothing in the library prints, exits or reads the environment.
 */
#ifndef DOJO_STATUS_H
#define DOJO_STATUS_H

#include <stdarg.h>

/* X(name, value, short text). Values are stable: they are also the program's exit codes. */
#define DJ_STATUS_LIST(X)                                                                          \
  X(OK, 0, "success")                                                                              \
  X(E_INVALID, 2, "invalid argument")                                                              \
  X(E_NOMEM, 3, "out of memory")                                                                   \
  X(E_IO, 4, "input/output error")                                                                 \
  X(E_FORMAT, 5, "malformed data")                                                                 \
  X(E_NOT_FOUND, 6, "not found")                                                                   \
  X(E_UNSUPPORTED, 7, "not supported")                                                             \
  X(E_NONFINITE, 8, "non-finite value")                                                            \
  X(E_NO_SPACE, 9, "no space left")                                                                \
  X(E_LIMIT, 10, "limit exceeded")                                                                 \
  X(E_STATE, 11, "wrong state")                                                                    \
  X(E_INTERRUPTED, 12, "interrupted")                                                              \
  X(E_EXISTS, 13, "already exists")                                                                \
  X(E_END, 14, "end of data") /* an iterator is done: not a failure, carries no message */

typedef enum dj_status {
#define DJ_X(name, value, text) DJ_##name = value,
  DJ_STATUS_LIST(DJ_X)
#undef DJ_X
} dj_status;

/* Short name of a status, for example "malformed data". Never NULL. */
const char *dj_status_text(dj_status s);

/* Message of the last failure in this thread; "" if there was none. Valid until the next failure.
 */
const char *dj_error_message(void);

/* Records a failure in this thread and returns `s`. The message: what, where, values, what to do.
 */
dj_status dj_error(dj_status s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts context in front of the present message ("while reading F: ...") and returns `s`. Context
 * that the message begins with already is not said twice. */
dj_status dj_error_context(dj_status s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Records a failure from errno: "<fmt>: <strerror>". ENOSPC and EDQUOT give DJ_E_NO_SPACE, ENOENT,
 * ENOTDIR and ELOOP DJ_E_NOT_FOUND, ENOMEM DJ_E_NOMEM, others DJ_E_IO. */
dj_status dj_error_errno(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#ifdef __clang_analyzer__ /* which does not see that these never return DJ_OK */
#define dj_error(s, ...)         ((void)(dj_error)((s), __VA_ARGS__), (s))
#define dj_error_context(s, ...) ((void)(dj_error_context)((s), __VA_ARGS__), (s))
#define dj_error_errno(...)      ((void)(dj_error_errno)(__VA_ARGS__), DJ_E_IO)
#endif

/* Exit code of a program that ends with `s`. */
static inline int dj_exit_code(dj_status s) {
  return (int)s;
}

/* Returns from the calling function if `expr` fails. */
#define DJ_TRY(expr)                                                                               \
  do {                                                                                             \
    dj_status dj_try_status_ = (expr);                                                             \
    if (dj_try_status_) return dj_try_status_;                                                     \
  } while (0)

/* Goes to `fail` with `s` set if `expr` fails. */
#define DJ_TRY_GOTO(s, expr)                                                                       \
  do {                                                                                             \
    if (((s) = (expr))) goto fail;                                                                 \
  } while (0)

#endif
