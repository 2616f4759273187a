/*
 * Importing recorded drives into a store.
 *
 *     dj_ingest_report r;
 *     dj_ingest_options o = {.store = "S"};
 *     dj_status s = dj_ingest("../shared/data/donkeycar-tub/tub", &o, &r);
 *     for (size_t i = 0; i < r.n_drives; i++) puts(r.drives[i].name);
 *     dj_ingest_report_free(&r);
 *
 * The source's format is found by looking at it; a folder that holds several drives gives them all.
 * An import is named by the digest of its source (file names and contents), so importing the same
 * source again changes nothing, whatever it is called. A drive appears in the store whole or not at
 * all: an import that was interrupted is simply run again.
 */
#ifndef DOJO_INGEST_H
#define DOJO_INGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dojo/drivelog.h"
#include "dojo/status.h"

typedef struct dj_ingest_options {
  const char *store;  /* folder of the store; made when missing */
  const char *format; /* donkeycar, udacity, kitti, comma2k19, video-csv, dojo; NULL: found by
                         looking */
  const char *name;   /* of the drive, [a-z0-9_-]+; with several drives NAME-1, NAME-2, ...; NULL:
                         from   the source */
  bool keep_going;    /* count and skip broken records (and drives that fail) instead of stopping */
} dj_ingest_options;

typedef enum dj_ingest_outcome {
  DJ_INGEST_IMPORTED,
  DJ_INGEST_ALREADY_THERE, /* the same source is in the store */
  DJ_INGEST_FAILED         /* with keep_going only */
} dj_ingest_outcome;

typedef struct dj_ingest_drive {
  char name[DJ_NAME_BYTES]; /* "" when it failed before it had one */
  char format[32];
  char source[512];
  char digest[65]; /* of the source; "" when it failed before */
  dj_ingest_outcome outcome;
  char error[512]; /* when it failed */
  int n_cameras;
  uint64_t n_frames; /* of all cameras */
  uint64_t n_controls, n_speeds, n_poses, n_skipped;
  double duration_s;
  uint32_t labels; /* dj_label bits */
} dj_ingest_drive;

typedef struct dj_ingest_report {
  dj_ingest_drive *drives;
  size_t n_drives;
  size_t n_imported, n_already_there, n_failed;
} dj_ingest_report;

/* Imports `source`: a folder or file, or "synth:SEED[:FRAMES]" for a generated drive
 * (dojo/synth.h). `report` is filled as far as it came, also on failure. Errors: DJ_E_NOT_FOUND (no
 * source, or no drive in it: says what was looked for), DJ_E_FORMAT (file and line of a broken
 * record, a missing column, a time that runs backwards), DJ_E_EXISTS (the name is another drive's),
 * DJ_E_IO, DJ_E_NO_SPACE. */
dj_status dj_ingest(const char *source, const dj_ingest_options *o, dj_ingest_report *report);
void dj_ingest_report_free(dj_ingest_report *r);

/* Known formats: name and one line of text; NULL past the last. */
const char *dj_ingest_format(int i, const char **summary);

#endif
