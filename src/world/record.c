/*
 * Recording a suite: names, digests, what is there already, maps and renderers shared by the cases
 * of a town, progress.
 */
#include "world/record.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/digest.h"
#include "base/fs.h"
#include "base/rng.h"
#include "base/text.h"
#include "dojo/log.h"
#include "dojo/train.h"

enum { VERSION = 1, NAME_MOST = 55 }; // raise VERSION when the same case gives another log

const char *dj__record_outcome_name(dj__record_outcome o) {
  return o == DJ__RECORDED ? "recorded" : o == DJ__RECORD_THERE ? "already there" : "empty";
}

const char *dj__record_end_name(dj__record_end e) {
  return e == DJ__END_TIME ? "time" : e == DJ__END_ROUTE ? "end of route" : "collision";
}

dj_status dj__driver_find(const char *name, dj__driver *d) {
  static const char *const names[] = {"expert", "constant"};
  *d = (dj__driver){0};
  if (!strcmp(name, "expert")) return dj__driver_expert(d);
  if (!strcmp(name, "constant")) return dj__driver_constant(d);
  const char *near = dj__nearest(name, names, 2);
  return dj_error(DJ_E_INVALID, "unknown driver '%.40s'%s%s%s; there are expert, constant and runs",
                  name, near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
}

void dj__record_report_free(dj__record_report *r) {
  free(r->drives);
  *r = (dj__record_report){0};
}

// ---- what a drive is called --------------------------------------------------------------------

/* "train-grid-1000-rain-route-0": of [a-z0-9_-]; long ones are cut, with a hash of the whole. */
static void name_drive(const dj__suite *s, const dj__case *c, char name[DJ_NAME_BYTES]) {
  char whole[sizeof s->name + sizeof c->name + 2];
  (void)snprintf(whole, sizeof whole, "%s-%s", s->name, c->name);
  size_t n = 0;
  for (const char *p = whole; *p; p++) {
    char k = (char)tolower((unsigned char)*p);
    bool fine = (k >= 'a' && k <= 'z') || (k >= '0' && k <= '9') || k == '_' || k == '-';
    whole[n++] = fine ? k : '-';
  }
  if (n <= NAME_MOST) {
    (void)snprintf(name, DJ_NAME_BYTES, "%s", whole);
    return;
  }
  uint32_t h = (uint32_t)dj__hash64(whole, n, 0);
  (void)snprintf(name, DJ_NAME_BYTES, "%.*s-%08" PRIx32, NAME_MOST - 9, whole, h);
}

static void digest_rig(dj__digest *d, const dj__rig *rig) {
  for (int i = 0; i < rig->n_camera; i++) {
    const dj__rig_camera *k = &rig->camera[i];
    const dj_camera *c = &k->camera;
    dj__digest_text(d, c->name);
    dj__digest_u64(d, (uint64_t)c->width << 32 | (unsigned)c->height);
    dj__digest_bytes(d, c->K, sizeof c->K);
    dj__digest_text(d, c->distortion_model);
    dj__digest_bytes(d, c->D, (size_t)c->n_distortion * sizeof *c->D);
    dj__digest_bytes(d, c->position, sizeof c->position);
    dj__digest_bytes(d, c->rotation, sizeof c->rotation);
    dj__digest_bytes(d, (float[4]){k->noise, k->motion_blur, k->rolling_shutter, k->exposure},
                     4 * sizeof(float));
  }
}

static dj_status digest_case(const dj__record_options *o, const dj__case *c, const dj__map *map,
                             const dj__rig *rig, double rate, const char *driver, char hex[65]) {
  dj__digest d;
  dj__digest_init(&d);
  dj__digest_u64(&d, VERSION);
  dj__digest_u64(&d, map->digest);
  dj__digest_text(&d, c->name);
  dj__digest_text(&d, c->weather);
  dj__digest_text(&d, c->vehicle);
  const double numbers[] = {(double)c->kind, (double)c->seed,
                            c->seconds,      o->seconds,
                            c->length,       c->n_vehicle,
                            c->n_cyclist,    c->n_pedestrian,
                            c->n_parked,     c->unruly,
                            c->roadworks,    rate,
                            o->video,        o->video ? 0 : o->quality,
                            o->layers,       o->perturb};
  dj__digest_bytes(&d, numbers, sizeof numbers);
  dj__digest_text(&d, driver);
  digest_rig(&d, rig);
  return dj__digest_hex(&d, hex);
}

// ---- the suite ---------------------------------------------------------------------------------

typedef struct session {
  const dj__record_options *o;
  dj__suite suite;
  dj__record_report *report;
  dj__map *map; // of the case before
  const dj__case *map_of;
  dj__renderer *renderer; // of the map
  dj__rig rig;
  char rig_name[256];
  char driver[80]; // its name, or the digest of a run's weights
  bool is_run;
  dj__driver pupil;                   // a run's network, for the rig
  double total, done, recorded, wall; // s: of all drives, behind us, recorded of those, taken
  double started;
} session;

static void show(void *user, double seconds) {
  session *s = user;
  char note[128];
  double taken = s->wall + dj__now() - s->started, made = s->recorded + seconds;
  int at = s->report->n - 1;
  (void)snprintf(note, sizeof note, "%d/%d %s  %.1fx real time", at + 1, s->suite.n,
                 s->suite.cases[at].name, taken > 0 ? made / taken : 0);
  dj_progress("recording", (uint64_t)(s->done + seconds), (uint64_t)s->total + 1, "s", note);
}

/* Frames lie on steps of the world: the rate is 20 Hz divided by a whole number. */
static dj_status choose_rate(const dj__record_options *o, const dj__rig *rig, double *rate) {
  static const double rates[] = {20, 10, 5, 4, 2, 1};
  for (size_t i = 0; i < sizeof rates / sizeof *rates; i++)
    if (o->rate > 0 ? o->rate == rates[i] : rates[i] <= rig->rate + 1e-9) {
      *rate = rates[i];
      return DJ_OK;
    }
  if (o->rate > 0)
    return dj_error(DJ_E_INVALID, "a rate of %g Hz: frames come at 1, 2, 4, 5, 10 or 20 Hz",
                    o->rate);
  *rate = 1;
  return DJ_OK;
}

static dj_status prepare_map(session *s, const dj__case *c) {
  if (s->map && dj__case_same_map(s->map_of, c)) return DJ_OK;
  dj__renderer_destroy(s->renderer);
  s->renderer = NULL;
  dj__map_destroy(s->map);
  s->map = NULL;
  DJ_TRY(dj__case_map(c, &s->map));
  s->map_of = c;
  return DJ_OK;
}

static dj_status prepare_renderer(session *s) {
  if (s->renderer) return DJ_OK;
  static const uint32_t bits[DJ_N_LAYERS] = {DJ__LAYER_DEPTH, DJ__LAYER_SEMANTIC,
                                             DJ__LAYER_INSTANCE};
  dj__render_options o = {0};
  for (int i = 0; i < DJ_N_LAYERS; i++)
    if (s->o->layers & 1u << i) o.layers |= bits[i];
  return dj__renderer_create(s->map, &o, &s->renderer);
}

static dj_status prepare_rig(session *s, const dj__case *c) {
  const char *name = s->o->rig ? s->o->rig : c->rig;
  if (!strcmp(name, s->rig_name)) return DJ_OK;
  DJ_TRY(dj__rig_find(name, &s->rig));
  (void)snprintf(s->rig_name, sizeof s->rig_name, "%s", name);
  dj__driver_destroy(&s->pupil);
  return s->is_run ? dj__driver_network(s->o->driver, -1, &s->rig, &s->pupil) : DJ_OK;
}

static void fill_info(const session *s, const dj__case *c, dj_drive_info *info) {
  (void)snprintf(info->format, sizeof info->format, "world");
  (void)snprintf(info->source, sizeof info->source,
                 "suite %s, case %s; town %s, seed %" PRIu64 "; weather %s, vehicle %s, driver %s",
                 s->suite.name, c->name, c->xodr[0] ? c->xodr : dj__town_style_name(c->town.style),
                 c->seed, c->weather, c->vehicle, s->is_run ? s->pupil.name : s->driver);
  info->n_cameras = s->rig.n_camera;
  for (int i = 0; i < s->rig.n_camera; i++) {
    info->cameras[i] = s->rig.camera[i].camera;
    info->cameras[i].calibrated = true;
  }
}

/* Is the whole log there? One of other options is not overwritten. */
static dj_status look(const dj__record_job *j, dj__record_drive *d, bool *there) {
  *there = false;
  if (!dj__exists(d->path)) return DJ_OK;
  dj_drive *log;
  if (dj_drive_open(d->path, &log)) {
    dj_message(DJ_LOG_WARN, "%s: recorded anew: %s", d->path, dj_error_message());
    return DJ_OK;
  }
  const dj_drive_info *info = dj_drive_get_info(log);
  *there = !strcmp(info->source_digest, j->info.source_digest);
  const uint64_t *t;
  size_t n = 0;
  dj_status s = dj_drive_frame_times(log, 0, &t, &n);
  d->outcome = DJ__RECORD_THERE;
  d->n_cameras = info->n_cameras;
  d->n_frames = n;
  d->seconds = (double)(info->end_ns - info->start_ns) * 1e-9;
  d->bytes = dj__file_size(d->path);
  dj_drive_close(log);
  if (s || *there) return s;
  return dj_error(DJ_E_EXISTS,
                  "%s: is there, recorded with other options; choose another --out, or remove it",
                  d->path);
}

static dj_status record_one(session *s, const dj__case *c) {
  dj__record_drive *d = &s->report->drives[s->report->n++];
  dj__record_job j = {.o = s->o, .c = c, .progress = show, .user = s};
  DJ_TRY(prepare_rig(s, c));
  DJ_TRY(choose_rate(s->o, &s->rig, &j.rate));
  DJ_TRY(prepare_map(s, c));
  j.map = s->map;
  j.rig = &s->rig;
  if (s->is_run) j.pupil = &s->pupil;
  fill_info(s, c, &j.info);
  name_drive(&s->suite, c, j.info.name);
  DJ_TRY(digest_case(s->o, c, s->map, &s->rig, j.rate, s->driver, j.info.source_digest));
  memcpy(d->name, j.info.name, sizeof d->name);
  (void)snprintf(d->which, sizeof d->which, "%s", c->name);
  if (snprintf(d->path, sizeof d->path, "%s/%s.mcap", s->o->out, d->name) >= (int)sizeof d->path)
    return dj_error(DJ_E_LIMIT, "%s: the folder's name is too long", s->o->out);
  bool there;
  DJ_TRY(look(&j, d, &there));
  if (!there) {
    s->started = dj__now();
    DJ_TRY(prepare_renderer(s));
    j.renderer = s->renderer;
    DJ_TRY(dj__record_case(&j, d));
    d->wall = dj__now() - s->started;
    s->wall += d->wall;
    s->recorded += d->seconds;
  }
  *(d->outcome == DJ__RECORDED       ? &s->report->n_recorded
    : d->outcome == DJ__RECORD_THERE ? &s->report->n_there
                                     : &s->report->n_empty) += 1;
  s->started = dj__now();
  s->done += s->o->seconds > 0 ? fmin(c->seconds, s->o->seconds) : c->seconds;
  return DJ_OK;
}

static dj_status check_options(const dj__record_options *o) {
  if (!o->suite || !o->out) return dj_error(DJ_E_INVALID, "record: needs a suite and a folder");
  if (o->quality < 0 || o->quality > 100)
    return dj_error(DJ_E_INVALID, "a JPEG quality of %d; 1 to 100 work", o->quality);
  if (!(o->perturb >= 0 && o->perturb <= 1))
    return dj_error(DJ_E_INVALID, "pushes of strength %g; 0 to 1 work", o->perturb);
  if (!(o->seconds >= 0 && o->seconds <= 36000))
    return dj_error(DJ_E_INVALID, "drives of %g s; up to 36000 work", o->seconds);
  if (!(o->rate >= 0 && o->rate <= 20)) return choose_rate(o, NULL, &(double){0});
  return dj__mkdirs(o->out);
}

/* What drives: one that has a name, or a run, which is known by its weights. */
static dj_status choose_driver(session *s) {
  const char *name = s->o->driver ? s->o->driver : "expert";
  (void)snprintf(s->driver, sizeof s->driver, "%.79s", name);
  s->is_run = dj__is_dir(name);
  if (!s->is_run) {
    dj__driver d;
    DJ_TRY(dj__driver_find(name, &d));
    dj__driver_destroy(&d);
    return DJ_OK;
  }
  char *path, hex[65];
  DJ_TRY(dj_checkpoint_find(name, DJ_CHECKPOINT_BEST, &path));
  dj_status st = dj__digest_file(path, hex, NULL);
  free(path);
  if (!st) (void)snprintf(s->driver, sizeof s->driver, "run %s", hex);
  return st;
}

dj_status dj__record(const dj__record_options *options, dj__record_report *report) {
  *report = (dj__record_report){0};
  dj__record_options o = *options;
  if (!o.threads) o.threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
  if (!o.quality) o.quality = 90;
  DJ_TRY(check_options(&o));
  session *s = calloc(1, sizeof *s);
  if (!s) return dj_error(DJ_E_NOMEM, "record: no memory");
  s->o = &o;
  s->report = report;
  dj_status st = choose_driver(s);
  if (!st) st = dj__suite_read(o.suite, o.seed0, o.limit, &s->suite);
  if (!st) {
    report->drives = calloc((size_t)s->suite.n, sizeof *report->drives);
    if (!report->drives) st = dj_error(DJ_E_NOMEM, "record: no memory for %d drives", s->suite.n);
  }
  for (int i = 0; i < s->suite.n && !st; i++)
    s->total +=
        o.seconds > 0 ? fmin(s->suite.cases[i].seconds, o.seconds) : s->suite.cases[i].seconds;
  s->started = dj__now();
  for (int i = 0; i < s->suite.n && !st; i++) st = record_one(s, &s->suite.cases[i]);
  if (!st) dj_progress("recording", (uint64_t)s->total + 1, (uint64_t)s->total + 1, "s", NULL);
  dj__renderer_destroy(s->renderer);
  dj__map_destroy(s->map);
  dj__driver_destroy(&s->pupil);
  dj__suite_free(&s->suite);
  free(s);
  return st;
}
