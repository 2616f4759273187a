/*
 * Importer of Donkeycar tubs, version 2 (manifest.json, catalog_N.catalog, images/).
 *
 * Donkeycar's angle is positive to the right, -1..1 of full lock; ours is positive to the left.
 * Frame times are the records' _timestamp_ms. Tools that converted old tubs to version 2 wrote the
 * time of conversion there: when the median rate is not one a camera has, only the order is
 * believed and frames are laid at Donkeycar's default of 20 Hz.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "dojo/log.h"
#include "fleet/importers/importer.h"
#include "fleet/importers/tub.h"

#define MIN_HZ          5.0
#define MAX_HZ          100.0
#define DEFAULT_STEP_NS ((uint64_t)50000000)

static int probe(const char *path) {
  char *manifest = dj__join(path, "manifest.json"), *images = dj__join(path, "images");
  int score = dj__file_size(manifest) > 0 ? 40 : 0;
  if (score && dj__is_dir(images)) score = 90;
  free(manifest);
  free(images);
  return score;
}

static dj_status bad_line(void *user, dj_status s) {
  return dj__import_bad(user, s);
}

// The names of catalogue files end up in messages: they live as long as `paths`.
static dj_status read_tub(dj__import *im, dj__tub *tub, char ***paths) {
  char *manifest = dj__join(im->path, "manifest.json"), *data;
  size_t size;
  dj_status s = dj__read_file(manifest, (size_t)256 << 20, &data, &size);
  if (!s) {
    s = dj__tub_parse_manifest(manifest, data, size, tub);
    free(data);
  }
  free(manifest);
  if (s) return s;
  *paths = calloc(tub->n_catalogs + 1, sizeof **paths);
  if (!*paths)
    return dj_error(DJ_E_NOMEM, "%s: no memory for %zu catalogues", im->path, tub->n_catalogs);
  for (size_t i = 0; i < tub->n_catalogs; i++) {
    (*paths)[i] = dj__join(im->path, tub->catalogs[i]);
    dj__file_map map;
    DJ_TRY(dj__file_map_open((*paths)[i], &map));
    s = dj__tub_parse_catalog((*paths)[i], map.data, map.size, bad_line, im, tub);
    dj__file_map_close(&map);
    if (s) return s;
  }
  if (!tub->n_records) return dj_error(DJ_E_FORMAT, "%s: the tub holds no records", im->path);
  return DJ_OK;
}

static int by_value(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? -1 : x > y;
}

// Median time between consecutive records, ms; < 0 where records lack times.
static double median_step_ms(const dj__tub *tub) {
  size_t n = 0;
  int64_t *steps = malloc((tub->n_records + 1) * sizeof *steps);
  if (!steps) return -1;
  for (size_t i = 0; i < tub->n_records; i++) {
    if (tub->records[i].t_ms < 0) {
      free(steps);
      return -1;
    }
    if (i && tub->records[i].index == tub->records[i - 1].index + 1)
      steps[n++] = tub->records[i].t_ms - tub->records[i - 1].t_ms;
  }
  if (n) qsort(steps, n, sizeof *steps, by_value);
  double median = n ? (double)steps[n / 2] : 50; // a single record: nothing to doubt
  free(steps);
  return median;
}

static bool times_are_real(dj__import *im, const dj__tub *tub) {
  double step = median_step_ms(tub);
  if (step > 0 && 1000 / step >= MIN_HZ && 1000 / step <= MAX_HZ) return true;
  if (step < 0) {
    dj_message(DJ_LOG_WARN, "%s: records without a usable _timestamp_ms; frames are laid at 20 Hz",
               im->path);
  } else {
    dj_message(
        DJ_LOG_WARN,
        "%s: time stamps lie %g ms apart (median), which is no camera's rate; only the order is "
        "used and frames are laid at 20 Hz",
        im->path, step);
  }
  return false;
}

typedef struct picture_list {
  char *images; // folder
  const dj__tub *tub;
} picture_list;

static char *picture_path(const void *user, size_t index, int *camera) {
  const picture_list *l = user;
  *camera = 0;
  return dj__join(l->images, l->tub->records[index].image);
}

static dj_status import_record(dj__import *im, dj__pictures *pictures, size_t index,
                               const dj__tub_record *r, uint64_t t_ns) {
  uint8_t *data = NULL;
  size_t size;
  const char *format;
  dj_status s = DJ_OK;
  if (im->report->n_frames && t_ns < im->last_ns[0])
    s = dj_error(DJ_E_FORMAT, "time runs backwards: _timestamp_ms %" PRIu64 " after %" PRIu64,
                 t_ns / 1000000, im->last_ns[0] / 1000000);
  if (!s) s = dj__pictures_take(pictures, index, &data, &size, &format);
  if (s) s = dj__import_bad(im, dj_error_context(s, "%s:%zu", r->catalog, r->line));
  if (data) {
    s = dj__import_image(im, 0, t_ns, format, data, size);
    // 0 - x, not -x: a straight wheel is +0, whatever its sign was.
    if (!s)
      s = dj__import_control(im, &(dj_control){.t_ns = t_ns,
                                               .steering = 0.0 - r->angle,
                                               .throttle = r->throttle,
                                               .brake = NAN,
                                               .steering_angle = NAN});
  }
  free(data);
  return s;
}

static dj_status begin(dj__import *im, const dj__tub *tub) {
  enum { LOOK = 32 }; // frames whose header may be broken
  char *paths[LOOK];
  size_t n = tub->n_records < LOOK ? tub->n_records : LOOK;
  char *images = dj__join(im->path, "images");
  for (size_t i = 0; i < n; i++) paths[i] = dj__join(images, tub->records[i].image);
  int w, h;
  dj_status s = dj__import_image_size(paths, n, &w, &h);
  for (size_t i = 0; i < n; i++) free(paths[i]);
  free(images);
  if (s) return dj_error_context(s, "%s:%zu", tub->records[0].catalog, tub->records[0].line);
  // The usual build: a wide Raspberry Pi camera on a mast over the front axle, looking down a
  // little.
  im->info.n_cameras = 1;
  dj__camera_guess(&im->info.cameras[0], "front", w, h, 100, 0.05, 0, 0.15, 15);
  return dj__import_begin(im);
}

static dj_status import_records(dj__import *im, const dj__tub *tub, dj__pictures *pictures) {
  bool real = times_are_real(im, tub);
  uint64_t start = tub->records[0].t_ms > 0 ? (uint64_t)tub->records[0].t_ms * 1000000 : 0;
  uint64_t pilot = 0;
  for (size_t i = 0; i < tub->n_records; i++) {
    const dj__tub_record *r = &tub->records[i];
    uint64_t t = real ? (uint64_t)r->t_ms * 1000000
                      : start + (uint64_t)(r->index - tub->records[0].index) * DEFAULT_STEP_NS;
    DJ_TRY(import_record(im, pictures, i, r, t));
    pilot += r->pilot;
    dj_progress(im->info.name, i + 1, tub->n_records, "frames", NULL);
  }
  if (pilot)
    dj_message(DJ_LOG_WARN,
               "%s: in %" PRIu64
               " of %zu records a pilot drove; their labels are what the user did "
               "meanwhile",
               im->path, pilot, tub->n_records);
  return DJ_OK;
}

static dj_status import_tub(dj__import *im, const dj__tub *tub) {
  DJ_TRY(begin(im, tub));
  picture_list l = {dj__join(im->path, "images"), tub};
  dj__pictures *pictures;
  dj_status s = dj__pictures_open(im, tub->n_records, picture_path, &l, &pictures);
  if (!s) s = import_records(im, tub, pictures);
  dj__pictures_close(pictures);
  free(l.images);
  return s;
}

static dj_status run(dj__import *im) {
  dj__tub tub = {0};
  char **paths = NULL;
  dj_status s = read_tub(im, &tub, &paths);
  if (!s) s = import_tub(im, &tub);
  for (size_t i = 0; paths && paths[i]; i++) free(paths[i]);
  free(paths);
  dj__tub_free(&tub);
  return s;
}

static dj_status files(const char *path, dj__source_files *f) {
  return dj__source_add_tree(f, path, "");
}

const dj__importer dj__import_donkeycar = {
    .name = "donkeycar",
    .summary = "Donkeycar tub v2: manifest.json, catalog_N.catalog, images/",
    .probe = probe,
    .files = files,
    .run = run,
    .version = 1,
};
