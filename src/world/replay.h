/*
 * A video of a drive: the front camera beside a plan from above, with speed, limit, pedals and
 * steering over time, and what is said and happens. The case is driven again, which gives the same
 * drive, to the bit.
 */
#ifndef DOJO_WORLD_REPLAY_H
#define DOJO_WORLD_REPLAY_H

#include "world/loop.h"

/* Drives the case and writes what happens between `from` and `to` (s) to `path` (*.mp4) at 10
 * frames a second. Errors: those of the drive, DJ_E_UNSUPPORTED (no EGL, no video encoder),
 * DJ_E_IO. */
dj_status dj__replay(const dj__case *c, const dj__map *m, dj__driver *d, const char *path,
                     double from, double to, const char *title);
/* Films drives of a suite that was driven: DIR/<case>.mp4, made with `make`'s driver; *n: how many.
 * `which`, separated by commas: "failures" (every drive that failed or did not arrive), "best",
 * "worst" (by PDMS; a word said twice is the two best), or a case's name. A failure is shown from
 * some seconds before it, other drives for a minute. Says its progress. DJ_E_NOT_FOUND: no such
 * drive. */
dj_status dj__replay_suite(const dj__suite *s, const dj__suite_drive *r, dj__make_driver *make,
                           void *user, const char *which, const char *dir, int *n);

#endif
