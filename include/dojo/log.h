/*
 * Messages and progress out of the library. The library itself never prints: it calls the sink.
 *
 *     dj_log_set_sink(my_log, NULL);
 *     dj_progress_set_sink(my_progress, NULL);
 *
 * A sink may be called from any thread; calls are serialised.
 */
#ifndef DOJO_LOG_H
#define DOJO_LOG_H

#include <stdint.h>

typedef enum dj_log_level { DJ_LOG_DEBUG, DJ_LOG_INFO, DJ_LOG_WARN } dj_log_level;

typedef void dj_log_sink(void *user, dj_log_level level, const char *text);
void dj_log_set_sink(dj_log_sink *sink, void *user);
void dj_message(dj_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* `what`: for example "importing donkeycar-tub"; done and total in units of `unit`; total 0 =
 * unknown. `note`: more to show on the line ("loss 0.0123  812 samples/s"), or NULL. */
typedef void dj_progress_sink(void *user, const char *what, uint64_t done, uint64_t total,
                              const char *unit, const char *note);
void dj_progress_set_sink(dj_progress_sink *sink, void *user);
void dj_progress(const char *what, uint64_t done, uint64_t total, const char *unit,
                 const char *note);

#endif
