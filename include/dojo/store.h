/*
 * A store: a folder of drives, with a catalogue of what is in it.
 *
 *     S/logs/NAME.mcap      the drives: the truth
 *     S/store.json          options a user chose: splits
 *     S/runs/NAME.json      what was trained and scored on this store, one file a run
 *     S/catalogue.sqlite    index over the above; dj_store_rebuild makes it anew, to the same
 * content S/shards/             decoded frames and labels; a cache, may be deleted at any time
 *
 *     dj_store *s;
 *     DJ_TRY(dj_store_open("S", DJ_STORE_CREATE, &s));
 *     char *log = dj_store_log_path(s, "tub-1");      // write the drive there, then:
 *     DJ_TRY(dj_store_add_log(s, log));
 *     dj_store_drive *drives; size_t n;
 *     DJ_TRY(dj_store_drives(s, &drives, &n));
 *     ...
 *     dj_store_drives_free(drives, n);
 *     dj_store_close(s);
 *
 * A store handle is for one thread; several processes may have the same store open.
 */
#ifndef DOJO_STORE_H
#define DOJO_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dojo/drivelog.h"
#include "dojo/status.h"

typedef struct dj_store dj_store;

typedef enum dj_store_mode {
  DJ_STORE_EXISTING, /* DJ_E_NOT_FOUND where there is no store */
  DJ_STORE_CREATE    /* made when missing */
} dj_store_mode;

/* Errors: DJ_E_NOT_FOUND, DJ_E_FORMAT (the catalogue is damaged or from another version: says to
 * rebuild), DJ_E_IO, DJ_E_NO_SPACE. A store whose catalogue is missing is rebuilt on the spot. */
dj_status dj_store_open(const char *path, dj_store_mode mode, dj_store **s);
void dj_store_close(dj_store *s); /* NULL is fine */
const char *dj_store_path(const dj_store *s);
/* S/logs/NAME.mcap; free() it. `name` must be a drive name ([a-z0-9_-]+, under 64 bytes), else
 * NULL. */
char *dj_store_log_path(const dj_store *s, const char *name);
/* S/shards/NAME; free() it. */
char *dj_store_shard_path(const dj_store *s, const char *name);

/* ---- splits ---- */
/*
 * A drive is cut by time into contiguous blocks: first train, then validation, last test. The test
 * block is the last round(test * n) of its n frames, the validation block the round(validation * n)
 * before it, train what is left. Between two blocks lies a gap of min(gap_s, 2 % of the drive's
 * duration), taken off the end of the earlier block, so that no training window reaches into the
 * next block. Frames in a gap belong to no clip. Drives under 30 frames are not cut: they go whole
 * to the largest share (train, unless told otherwise).
 */
typedef struct dj_split_options {
  double train, validation, test; /* shares, each 0..1, sum 1 */
  double gap_s;                   /* seconds, >= 0 */
} dj_split_options;
static const dj_split_options dj_split_default = {0.7, 0.1, 0.2, 1.0};

/* Sets the split of one drive, or with drive = NULL of all drives that have none of their own, and
 * writes it to store.json. Errors: DJ_E_INVALID (shares), DJ_E_NOT_FOUND (drive). */
dj_status dj_store_set_split(dj_store *s, const char *drive, const dj_split_options *o);
/* The split options in force for a drive (NULL: the store's). */
dj_status dj_store_get_split(dj_store *s, const char *drive, dj_split_options *o);

/* ---- drives and clips ---- */
typedef struct dj_store_clip {
  int index;                      /* within the drive, in order of time */
  char split[16];                 /* "train", "validation", "test" */
  uint64_t first_frame, n_frames; /* of the drive's first camera */
  uint64_t start_ns, end_ns;      /* times of its first and last frame */
  uint32_t labels;                /* dj_label bits this clip holds */
} dj_store_clip;

typedef struct dj_store_drive {
  char name[DJ_NAME_BYTES];
  char format[32];
  char digest[65];        /* sha256 of the log file, hex */
  char source_digest[65]; /* sha256 of what it was imported from */
  char source[512];
  uint64_t log_bytes;
  uint64_t n_frames;         /* of the first camera */
  uint64_t start_ns, end_ns; /* first and last frame; without a camera, first and last record */
  uint64_t n_controls, n_speeds, n_poses, n_skipped;
  uint32_t labels; /* dj_label bits */
  int n_cameras;   /* 0: a drive without pictures; it has no clips and is not trained on */
  struct {
    char name[DJ_NAME_BYTES];
    int width, height;
    uint64_t n_frames;
  } cameras[DJ_MAX_CAMERAS];
  int n_clips;
  dj_store_clip *clips;
} dj_store_drive;

/* Takes a log into the catalogue. A log that lies elsewhere is first copied to S/logs. Idempotent:
 * a log already there with the same digest changes nothing; a log in S/logs that was rewritten
 * replaces its old entry. Errors: DJ_E_FORMAT (not a drive log, or its drive's name does not match
 * the file's), DJ_E_EXISTS (another drive of that name, or the same content under another name). */
dj_status dj_store_add_log(dj_store *s, const char *path);
/* Removes a drive: its catalogue entry and its log file. DJ_E_NOT_FOUND where there is none. */
dj_status dj_store_remove(dj_store *s, const char *drive);

/* All drives, by name. Free with dj_store_drives_free. */
dj_status dj_store_drives(dj_store *s, dj_store_drive **drives, size_t *n);
void dj_store_drives_free(dj_store_drive *drives, size_t n);
/* One drive by name, by the log's digest or by its source's digest. DJ_E_NOT_FOUND where there is
 * none. Free with dj_store_drives_free(d, 1). */
dj_status dj_store_find(dj_store *s, const char *name_or_digest, dj_store_drive **d);

/* Makes the catalogue of the store at `path` anew from logs/, store.json and runs/. Works where the
 * catalogue is missing or damaged. A broken log is an error and leaves the catalogue as it was;
 * with keep_going it is warned of, counted in *n_bad (may be NULL) and left out. */
dj_status dj_store_rebuild(const char *path, bool keep_going, size_t *n_bad);

/* Compares the catalogue with the files: `report` is called once a problem. Every log is read and
 * its digest compared; with `decode`, every frame of every drive is decoded too. */
typedef void dj_store_problem(void *user, const char *drive_or_file, const char *problem);
dj_status dj_store_check(dj_store *s, bool decode, dj_store_problem *report, void *user,
                         size_t *n_problems);

/* The whole content as text, one line a row, in a fixed order: two stores of the same content give
 * the same text. free() it. */
dj_status dj_store_dump(dj_store *s, char **text);

/* ---- what was trained on it ---- */
enum { DJ_RUN_NAME_BYTES = 128 };

typedef struct dj_store_run {
  char name[DJ_RUN_NAME_BYTES]; /* unique; no '/', no leading '.', printable */
  char path[512];               /* the run's folder */
  char recipe[128];             /* name of the recipe */
  char dataset[65];             /* dj_dataset_digest */
  int64_t created_s;            /* Unix time */
} dj_store_run;

typedef struct dj_store_model { /* weights a run made */
  char run[DJ_RUN_NAME_BYTES];
  char digest[65]; /* sha256 of the weights file, hex */
  uint64_t step;
  char path[512];
} dj_store_model;

typedef struct dj_store_score {
  char run[DJ_RUN_NAME_BYTES];
  char digest[65]; /* of the weights that were scored; "" unknown */
  char split[16];
  char metric[64];         /* "steering.mae" */
  double value, low, high; /* figure and its 95 % interval; NaN where unknown */
} dj_store_score;

typedef struct dj_clip_ref {
  char drive[DJ_NAME_BYTES];
  char drive_digest[65]; /* of the log it was cut from */
  int clip;
  uint64_t first_frame, n_frames;
} dj_clip_ref;

/* Records a run and the clips it learned from; the same name again replaces run and clips, and
 * keeps models and scores. Each also goes to S/runs/NAME.json. */
dj_status dj_store_record_run(dj_store *s, const dj_store_run *run, const dj_clip_ref *clips,
                              size_t n_clips);
/* The same (run, digest), or (run, digest, split, metric), again replaces. The run must be there.
 */
dj_status dj_store_record_model(dj_store *s, const dj_store_model *m);
dj_status dj_store_record_score(dj_store *s, const dj_store_score *scores, size_t n);
/* Lists; run = NULL: of all runs. free() the array. */
dj_status dj_store_runs(dj_store *s, dj_store_run **runs, size_t *n);
dj_status dj_store_models(dj_store *s, const char *run, dj_store_model **models, size_t *n);
dj_status dj_store_scores(dj_store *s, const char *run, dj_store_score **scores, size_t *n);
/* Clips that made the weights of a run. */
dj_status dj_store_run_clips(dj_store *s, const char *run, dj_clip_ref **clips, size_t *n);

#endif
