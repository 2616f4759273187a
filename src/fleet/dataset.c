/*
 * Datasets: the clips of a split over all drives that fit, behind one index. Immutable once open,
 * so that any number of threads may read it.
 */
#include "fleet/dataset.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/fs.h"
#include "dojo/log.h"
#include "drive/labels.h"
#include "fleet/split.h"

enum { MAX_FRAMES = 1024, MAX_STRIDE = 100000 };

// ---- choosing drives
// ------------------------------------------------------------------------------

static bool named(const dj_data_spec *spec, const char *name) {
  if (!spec->drives) return true;
  for (int i = 0; i < spec->n_drives; i++)
    if (!strcmp(spec->drives[i], name)) return true;
  return false;
}

static bool has_cameras(const dj_data_spec *spec, const dj_store_drive *d) {
  for (int i = 0; spec->cameras && i < spec->n_cameras; i++) {
    int k = 0;
    while (k < d->n_cameras && strcmp(d->cameras[k].name, spec->cameras[i]) != 0) k++;
    if (k == d->n_cameras) return false;
  }
  return true;
}

static dj_status no_camera(const dj_data_spec *spec, const dj_store_drive *d) {
  return dj_error(DJ_E_NOT_FOUND,
                  "%s: drive '%s' has no camera: it was imported without its video, and a network "
                  "needs pictures; put the video beside the source, 'dojo store rm' the drive and "
                  "import it again",
                  spec->store, d->name);
}

/* A drive asked for by name must be there and fit; silence would train on less than was asked for.
 */
static dj_status check_named(const dj_data_spec *spec, const dj_store_drive *drives, size_t n) {
  for (int i = 0; spec->drives && i < spec->n_drives; i++) {
    size_t k = 0;
    while (k < n && strcmp(drives[k].name, spec->drives[i]) != 0) k++;
    if (k == n)
      return dj_error(DJ_E_NOT_FOUND, "%s: no drive '%.64s' in the store (see dojo store ls)",
                      spec->store, spec->drives[i]);
    if ((drives[k].labels & spec->labels) != spec->labels) {
      char have[128], want[128];
      (void)dj_label_list(drives[k].labels, " ", have, sizeof have);
      (void)dj_label_list(spec->labels, " ", want, sizeof want);
      return dj_error(DJ_E_NOT_FOUND, "%s: drive '%s' holds the labels %s; asked for are %s",
                      spec->store, drives[k].name, have, want);
    }
    if (!drives[k].n_cameras) return no_camera(spec, &drives[k]);
    if (!has_cameras(spec, &drives[k]))
      return dj_error(DJ_E_NOT_FOUND,
                      "%s: drive '%s' lacks a camera that was asked for; its first is '%s'",
                      spec->store, drives[k].name, drives[k].cameras[0].name);
  }
  return DJ_OK;
}

static dj_status nothing_fits(const dj_data_spec *spec, const dj_store_drive *drives, size_t n) {
  uint32_t all = 0;
  size_t blind = 0;
  for (size_t i = 0; i < n; i++) {
    all |= drives[i].labels;
    blind += drives[i].n_cameras == 0;
  }
  if (n && blind == n) return no_camera(spec, &drives[0]);
  char have[128], want[128];
  (void)dj_label_list(all, " ", have, sizeof have);
  (void)dj_label_list(spec->labels, " ", want, sizeof want);
  return dj_error(DJ_E_NOT_FOUND,
                  "%s: no drive with the labels %s has frames in split '%s' for the cameras asked "
                  "for; the store holds %zu drives with the labels %s (see dojo store ls)",
                  spec->store, want, spec->split ? spec->split : "(all)", n, have);
}

// ---- building
// ---------------------------------------------------------------------------------------

static dj_status add_clip(dj_dataset *ds, int drive, int index, uint64_t first, uint64_t n) {
  const dj__dataset_drive *d = &ds->drives[drive];
  dj_clip_ref *r = &ds->refs[ds->n_clips];
  if (n == 0) return DJ_OK;
  if (first > d->shards.n_frames || n > d->shards.n_frames - first)
    return dj_error(DJ_E_FORMAT,
                    "drive '%s': a clip of frames %" PRIu64 " + %" PRIu64
                    " in a drive of %zu: run 'dojo store rebuild'",
                    d->name, first, n, d->shards.n_frames);
  ds->clips[ds->n_clips++] =
      (dj__dataset_clip){.drive = drive, .first = first, .n = n, .sample = ds->size};
  ds->size += n;
  memcpy(r->drive, d->name, sizeof r->drive);
  memcpy(r->drive_digest, d->digest, sizeof r->drive_digest);
  r->clip = index;
  r->first_frame = first;
  r->n_frames = n;
  return DJ_OK;
}

static bool wants_clip(const dj_data_spec *spec, const dj_store_clip *c) {
  return c->n_frames > 0 && !strcmp(c->split, spec->split);
}

static bool drive_fits(const dj_data_spec *spec, const dj_store_drive *d) {
  if (!named(spec, d->name) || (d->labels & spec->labels) != spec->labels || !has_cameras(spec, d))
    return false;
  if (!spec->split) return d->n_frames > 0;
  for (int i = 0; i < d->n_clips; i++)
    if (wants_clip(spec, &d->clips[i])) return true;
  return false;
}

static dj_status add_drive(dj_dataset *ds, const dj_data_spec *spec, dj_store *store,
                           const dj_store_drive *d) {
  dj__dataset_drive *to = &ds->drives[ds->n_drives];
  memcpy(to->name, d->name, sizeof to->name);
  memcpy(to->digest, d->digest, sizeof to->digest);
  DJ_TRY(dj__shard_set_open(store, d, &ds->shard, &to->shards));
  const int index = ds->n_drives++;
  to->grounded = true;
  for (int i = 0; i < ds->n_cameras; i++) to->grounded &= to->shards.views[i].position[2] > 0;
  if (!spec->split) return add_clip(ds, index, 0, 0, d->n_frames);
  for (int i = 0; i < d->n_clips; i++)
    if (wants_clip(spec, &d->clips[i]))
      DJ_TRY(add_clip(ds, index, d->clips[i].index, d->clips[i].first_frame, d->clips[i].n_frames));
  return DJ_OK;
}

static dj_status digest_dataset(dj_dataset *ds, const dj_data_spec *spec) {
  dj__digest g;
  dj__digest_init(&g);
  dj__digest_text(&g, "dojo dataset 1");
  const double numbers[] = {
      ds->shard.width, ds->shard.height, ds->shard.margin_left, ds->shard.margin_right,
      ds->shard.left,  ds->shard.top,    ds->shard.right,       ds->shard.bottom,
      ds->frames,      ds->stride,       ds->n_cameras};
  dj__digest_bytes(&g, numbers, sizeof numbers);
  for (int i = 0; i < ds->n_cameras; i++)
    dj__digest_text(&g, spec->cameras ? spec->cameras[i] : "");
  for (int i = 0; i < ds->n_clips; i++) {
    dj__digest_text(&g, ds->refs[i].drive_digest);
    dj__digest_u64(&g, ds->refs[i].first_frame);
    dj__digest_u64(&g, ds->refs[i].n_frames);
  }
  return dj__digest_hex(&g, ds->digest);
}

static dj_status fill_dataset(dj_dataset *ds, const dj_data_spec *spec, dj_store *store,
                              const dj_store_drive *drives, size_t n) {
  DJ_TRY(check_named(spec, drives, n));
  ds->drives = calloc(n + 1, sizeof *ds->drives);
  ds->clips = calloc(n * DJ__N_SPLITS + 1, sizeof *ds->clips);
  ds->refs = calloc(n * DJ__N_SPLITS + 1, sizeof *ds->refs);
  if (!ds->drives || !ds->clips || !ds->refs)
    return dj_error(DJ_E_NOMEM, "dataset: no memory for %zu drives", n);
  for (size_t i = 0; i < n; i++)
    if (drive_fits(spec, &drives[i])) DJ_TRY(add_drive(ds, spec, store, &drives[i]));
  if (ds->size == 0) return nothing_fits(spec, drives, n);
  return digest_dataset(ds, spec);
}

static dj_status check_spec(const dj_data_spec *spec) {
  if (!spec->store) return dj_error(DJ_E_INVALID, "dataset: no store given");
  if (spec->frames < 1 || spec->frames > MAX_FRAMES || spec->stride < 1 ||
      spec->stride > MAX_STRIDE)
    return dj_error(
        DJ_E_INVALID,
        "dataset: a window of %d frames, every %d; frames must be 1 to %d, stride 1 to %d",
        spec->frames, spec->stride, MAX_FRAMES, MAX_STRIDE);
  if (!spec->split) return DJ_OK;
  for (int i = 0; i < DJ__N_SPLITS; i++)
    if (!strcmp(spec->split, dj__split_names[i])) return DJ_OK;
  return dj_error(DJ_E_INVALID, "dataset: no split '%.32s'; there are train, validation and test",
                  spec->split);
}

dj_status dj_dataset_open(const dj_data_spec *spec, dj_dataset **out) {
  *out = NULL;
  dj__shard_spec shard;
  DJ_TRY(check_spec(spec));
  DJ_TRY(dj__shard_spec_from(spec, &shard));
  dj_store *store;
  DJ_TRY(dj_store_open(spec->store, DJ_STORE_EXISTING, &store));
  dj_store_drive *drives = NULL;
  size_t n = 0;
  dj_dataset *ds = calloc(1, sizeof *ds);
  dj_status s =
      ds ? dj_store_drives(store, &drives, &n) : dj_error(DJ_E_NOMEM, "dataset: no memory");
  if (!s) {
    ds->shard = shard;
    ds->width = spec->width;
    ds->height = spec->height;
    ds->frames = spec->frames;
    ds->stride = spec->stride;
    ds->n_cameras = shard.n_cameras;
    s = fill_dataset(ds, spec, store, drives, n);
    ds->shard.cameras = NULL; // the caller's, who may free them
  }
  dj_store_drives_free(drives, n);
  dj_store_close(store);
  if (s) {
    dj_dataset_close(ds);
    return s;
  }
  *out = ds;
  return DJ_OK;
}

void dj_dataset_close(dj_dataset *ds) {
  if (!ds) return;
  for (int i = 0; i < ds->n_drives; i++) dj__shard_set_close(&ds->drives[i].shards);
  free(ds->drives);
  free(ds->clips);
  free(ds->refs);
  free(ds);
}

// ---- looking in
// -----------------------------------------------------------------------------------

uint64_t dj_dataset_size(const dj_dataset *ds) {
  return ds->size;
}
const char *dj_dataset_digest(const dj_dataset *ds) {
  return ds->digest;
}

const struct dj_clip_ref *dj_dataset_clips(const dj_dataset *ds, size_t *n) {
  *n = (size_t)ds->n_clips;
  return ds->refs;
}

const dj__dataset_clip *dj__dataset_clip_of(const dj_dataset *ds, uint64_t sample) {
  int lo = 0, hi = ds->n_clips - 1; // clips[lo].sample <= sample
  while (lo < hi) {
    int mid = (lo + hi + 1) / 2;
    if (ds->clips[mid].sample <= sample)
      lo = mid;
    else
      hi = mid - 1;
  }
  return &ds->clips[lo];
}

dj_frame_ref dj_dataset_frame(const dj_dataset *ds, uint64_t sample) {
  dj_frame_ref r = {.steering = NAN, .throttle = NAN, .brake = NAN, .speed = NAN};
  if (sample >= ds->size) return r;
  const dj__dataset_clip *c = dj__dataset_clip_of(ds, sample);
  const dj__dataset_drive *d = &ds->drives[c->drive];
  size_t i;
  r.drive = d->name;
  r.clip = (int)(c - ds->clips);
  r.frame = c->first + (sample - c->sample);
  const dj__shard *s = dj__shard_at(&d->shards, r.frame, &i);
  r.t_ns = (uint64_t)s->t_ns[i];
  double *fields[3] = {&r.steering, &r.throttle, &r.brake};
  for (int k = 0; k < 3; k++)
    if (s->control_mask[i * 3 + (size_t)k] > 0) *fields[k] = (double)s->control[i * 3 + (size_t)k];
  if (s->speed_mask[i] > 0) r.speed = (double)s->speed[i];
  return r;
}

void dj__frame_velocity(const dj__shard_set *set, size_t frame, double velocity[2]) {
  size_t i, j;
  const dj__shard *now = dj__shard_at(set, frame, &i);
  velocity[0] = now->speed_mask[i] > 0 ? (double)now->speed[i] : NAN;
  velocity[1] = NAN;
  if (frame == 0) return;
  const dj__shard *before = dj__shard_at(set, frame - 1, &j);
  double dt = (double)(now->t_ns[i] - before->t_ns[j]) * 1e-9;
  if (now->pose_mask[i] <= 0 || before->pose_mask[j] <= 0 || dt <= 0 || dt > 1) return;
  float motion[3];
  dj__labels_motion(before->pose + 7 * j, now->pose + 7 * i, motion);
  velocity[1] = (double)motion[2] / dt;
  if (isnan(velocity[0])) velocity[0] = (double)motion[0] / dt;
}
