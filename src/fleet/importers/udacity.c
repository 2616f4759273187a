/*
 * Importer of the Udacity simulator's behavioural-cloning recordings: driving_log.csv with the
 * columns center, left, right, steering, throttle, brake, speed, with or without a header row, and
 * pictures in IMG/ or beside the table.
 *
 * The table names pictures by their path on the recording machine (often a Windows path): only the
 * base name counts. It holds the time of recording, ..._2018_07_16_17_11_43_382.jpg, read as UTC.
 * Steering is a share of the simulator's lock and positive to the right; ours is positive to the
 * left. Speed is in miles an hour. The side cameras are taken when their pictures are there.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/fs.h"
#include "base/text.h"
#include "dojo/log.h"
#include "fleet/csv.h"
#include "fleet/drivelog.h"
#include "fleet/importers/importer.h"

#define MPH 0.44704 // m/s

enum { CENTER, LEFT, RIGHT, STEERING, THROTTLE, BRAKE, SPEED, N_COLUMNS };
static const char *const column_names[N_COLUMNS] = {"center",   "left",  "right", "steering",
                                                    "throttle", "brake", "speed"};

typedef struct row {
  size_t line;
  char *image[3];                          // base names; NULL: none
  double steering, throttle, brake, speed; // as in the table
  uint64_t t_ns;
} row;

typedef struct table {
  char *path, *folder;
  row *rows;
  size_t n, cap;
  int columns[N_COLUMNS];
  bool side[3]; // the camera's pictures are there
} table;

static char *csv_path(const char *path) {
  return dj__is_dir(path) ? dj__join(path, "driving_log.csv") : dj__strf("%s", path);
}

static int probe(const char *path) {
  const char *base = strrchr(path, '/');
  if (!dj__is_dir(path) && strcmp(base ? base + 1 : path, "driving_log.csv") != 0) return 0;
  char *csv = csv_path(path);
  int score = dj__file_size(csv) > 0 ? 90 : 0;
  free(csv);
  return score;
}

static char *folder_of(const char *csv) {
  const char *slash = strrchr(csv, '/');
  return slash ? dj__strf("%.*s", (int)(slash - csv), csv) : dj__strf(".");
}

static dj_status files(const char *path, dj__source_files *f) {
  char *csv = csv_path(path), *folder = folder_of(csv);
  dj_status s = dj__source_add_tree(f, folder, "");
  free(csv);
  free(folder);
  return s;
}

static void drive_name(const char *path, char *out, size_t size) {
  char *csv = csv_path(path), *folder = folder_of(csv);
  char *whole = realpath(folder, NULL);
  const char *slash = whole ? strrchr(whole, '/') : NULL;
  (void)snprintf(out, size, "%s", slash ? slash + 1 : "udacity");
  free(whole);
  free(folder);
  free(csv);
}

// Last part of a Unix or Windows path, spaces around aside; NULL when that is no plain file name.
static char *base_name(const char *path) {
  const char *start = path;
  for (const char *p = path; *p; p++)
    if (*p == '/' || *p == '\\') start = p + 1;
  while (*start == ' ') start++;
  size_t n = strlen(start);
  while (n && start[n - 1] == ' ') n--;
  char *name = dj__strf("%.*s", n < 512 ? (int)n : 512, start);
  if (dj__plain_name(name)) return name;
  free(name);
  return NULL;
}

// Whole days from 1970-01-01 to a day of the Gregorian calendar.
static int64_t days_since_1970(int y, int m, int d) {
  struct tm t = {.tm_year = y - 1900, .tm_mon = m - 1, .tm_mday = d};
  return (int64_t)timegm(&t) / 86400;
}

// center_2018_07_16_17_11_43_382.jpg -> ns since 1970.
static bool time_of_name(const char *name, uint64_t *t_ns) {
  const char *p = strchr(name, '_');
  int y, mo, d, h, mi, s, ms, end = 0;
  if (!p || sscanf(p, "_%4d_%2d_%2d_%2d_%2d_%2d_%3d%n", &y, &mo, &d, &h, &mi, &s, &ms, &end) != 7 ||
      p[end] != '.')
    return false;
  if (y < 1970 || y > 2200 || mo < 1 || mo > 12 || d < 1 || d > 31 || h < 0 || h > 23 || mi < 0 ||
      mi > 59 || s < 0 || s > 60 || ms < 0)
    return false;
  int64_t seconds = days_since_1970(y, mo, d) * 86400 + h * 3600 + mi * 60 + s;
  *t_ns = (uint64_t)seconds * 1000000000u + (uint64_t)ms * 1000000u;
  return true;
}

static dj_status take_header(const dj__csv *c, table *t) {
  for (int k = 0; k < N_COLUMNS; k++) {
    t->columns[k] = dj__csv_column(c, column_names[k]);
    if (t->columns[k] >= 0 || k == LEFT || k == RIGHT) continue;
    const char *near = dj__csv_nearest(c, column_names[k]);
    return dj_error(DJ_E_FORMAT, "%s:%zu: column %s is missing%s%.40s%s", c->name, c->line,
                    column_names[k], near ? "; is it '" : "", near ? near : "", near ? "'?" : "");
  }
  return DJ_OK;
}

static dj_status take_fields(const dj__csv *c, const table *t, row *r) {
  double *numbers[] = {&r->steering, &r->throttle, &r->brake, &r->speed};
  for (int k = STEERING; k <= SPEED; k++)
    DJ_TRY(dj__csv_number(c, t->columns[k], column_names[k], numbers[k - STEERING]));
  if (fabs(r->steering) > 1 || fabs(r->throttle) > 1 || r->brake < 0 || r->brake > 1)
    return dj_error(DJ_E_FORMAT,
                    "%s:%zu: steering %g and throttle %g must lie in -1..1, brake %g in 0..1",
                    c->name, c->line, r->steering, r->throttle, r->brake);
  dj_status s = dj__check_speed(DJ_E_FORMAT, &(dj_speed){0, r->speed * MPH});
  if (s) return dj_error_context(s, "%s:%zu", c->name, c->line);
  for (int k = CENTER; k <= RIGHT; k++) {
    int column = t->columns[k];
    r->image[k] = column >= 0 && column < c->n_fields ? base_name(c->fields[column]) : NULL;
  }
  if (!r->image[CENTER])
    return dj_error(DJ_E_FORMAT, "%s:%zu: column center names no picture file", c->name, c->line);
  if (!time_of_name(r->image[CENTER], &r->t_ns))
    return dj_error(
        DJ_E_FORMAT,
        "%s:%zu: picture name '%.60s' holds no time (expected ..._YYYY_MM_DD_hh_mm_ss_mmm.jpg)",
        c->name, c->line, r->image[CENTER]);
  if (t->n && r->t_ns < t->rows[t->n - 1].t_ns)
    return dj_error(DJ_E_FORMAT, "%s:%zu: time runs backwards: %.60s after %.60s", c->name, c->line,
                    r->image[CENTER], t->rows[t->n - 1].image[CENTER]);
  return DJ_OK;
}

static void free_row(row *r) {
  for (int k = 0; k < 3; k++) free(r->image[k]);
}

static dj_status take_row(const dj__csv *c, table *t) {
  row r = {.line = c->line};
  dj_status s = take_fields(c, t, &r);
  if (!s && t->n == t->cap) {
    size_t cap = t->cap ? t->cap * 2 : 1024;
    row *grown = realloc(t->rows, cap * sizeof *grown);
    if (grown) {
      t->rows = grown;
      t->cap = cap;
    } else {
      s = dj_error(DJ_E_NOMEM, "%s: no memory for %zu rows", c->name, cap);
    }
  }
  if (s) {
    free_row(&r);
    return s;
  }
  t->rows[t->n++] = r;
  return DJ_OK;
}

static dj_status read_table(dj__import *im, table *t) {
  dj__csv c;
  DJ_TRY(dj__csv_open(t->path, &c));
  for (int k = 0; k < N_COLUMNS; k++) t->columns[k] = k;
  dj_status s;
  bool first = true;
  while ((s = dj__csv_next(&c)) != DJ_E_END) {
    double v;
    // A header has a word where a row has its steering.
    if (!s && first && dj__csv_column(&c, "steering") >= 0)
      s = take_header(&c, t);
    else if (!s && first && (c.n_fields <= STEERING || !dj__parse_number(c.fields[STEERING], &v)))
      s = dj_error(DJ_E_FORMAT,
                   "%s:%zu: neither a header with a column steering nor a row with one", c.name,
                   c.line);
    else if (!s)
      s = dj__import_bad(im, take_row(&c, t));
    else
      s = dj__import_bad(im, s);
    first = false;
    if (s) break;
  }
  dj__csv_close(&c);
  if (s != DJ_E_END) return s;
  return t->n ? DJ_OK : dj_error(DJ_E_FORMAT, "%s: the table has no rows", t->path);
}

static char *picture_path(const table *t, const char *name) {
  char *img = dj__join(t->folder, "IMG"), *path = dj__join(img, name);
  free(img);
  if (dj__exists(path)) return path;
  char *beside = dj__join(t->folder, name);
  if (dj__exists(beside)) {
    free(path);
    return beside;
  }
  free(beside);
  return path; // not there: the error names the usual place
}

static void find_side_cameras(table *t) {
  for (int k = LEFT; k <= RIGHT; k++) {
    for (size_t i = 0; i < t->n && !t->side[k]; i++) {
      if (!t->rows[i].image[k]) continue;
      char *path = picture_path(t, t->rows[i].image[k]);
      t->side[k] = dj__exists(path);
      free(path);
    }
    if (!t->side[k] && t->rows[0].image[k])
      dj_message(DJ_LOG_INFO,
                 "%s: the %s camera's pictures are not here; only those that are get imported",
                 t->path, column_names[k]);
  }
}

static dj_status begin(dj__import *im, table *t) {
  static const double across[3] = {0, 0.8, -0.8}; // m to the left, about half a car's width
  enum { LOOK = 32 };
  char *paths[LOOK];
  size_t n = t->n < LOOK ? t->n : LOOK;
  for (size_t i = 0; i < n; i++) paths[i] = picture_path(t, t->rows[i].image[CENTER]);
  int w, h;
  dj_status s = dj__import_image_size(paths, n, &w, &h);
  for (size_t i = 0; i < n; i++) free(paths[i]);
  if (s) return dj_error_context(s, "%s:%zu", t->path, t->rows[0].line);
  find_side_cameras(t);
  // Unity's 60 degrees of view from top to bottom are 98 across a picture of 2:1.
  double view = 2 * atan(tan(M_PI / 6) * w / h) * 180 / M_PI;
  im->info.n_cameras = 0;
  for (int k = CENTER; k <= RIGHT; k++)
    if (k == CENTER || t->side[k])
      dj__camera_guess(&im->info.cameras[im->info.n_cameras++], column_names[k], w, h, view, 1,
                       across[k], 1.2, 5);
  return dj__import_begin(im);
}

// Picture i is camera i % 3 of row i / 3, in the table's order of cameras.
static char *picture_of(const void *user, size_t index, int *camera) {
  const table *t = user;
  const int k = (int)(index % 3);
  const char *name = t->rows[index / 3].image[k];
  *camera = 0;
  for (int j = CENTER; j < k; j++) *camera += j == CENTER || t->side[j];
  return name && (k == CENTER || t->side[k]) ? picture_path(t, name) : NULL;
}

// All pictures of a row are read and checked before any of it is written: a row is taken or skipped
// whole.
static dj_status import_row(dj__import *im, const table *t, size_t i, dj__pictures *pictures) {
  const row *r = &t->rows[i];
  uint8_t *data[3] = {NULL};
  size_t size[3];
  const char *format[3];
  dj_status s = DJ_OK;
  int n = 0;
  for (int k = CENTER; k <= RIGHT && !s; k++) {
    if (k != CENTER && !t->side[k]) continue;
    if (!r->image[k]) {
      s = dj_error(DJ_E_FORMAT, "column %s names no picture file", column_names[k]);
      break;
    }
    s = dj__pictures_take(pictures, 3 * i + (size_t)k, &data[n], &size[n], &format[n]);
    if (!s) n++;
  }
  if (s) {
    s = dj__import_bad(im, dj_error_context(s, "%s:%zu", t->path, r->line));
    for (int k = 0; k < 3; k++) free(data[k]);
    return s;
  }
  for (int k = 0; k < n && !s; k++)
    s = dj__import_image(im, k, r->t_ns, format[k], data[k], size[k]);
  for (int k = 0; k < 3; k++) free(data[k]);
  if (s) return s;
  DJ_TRY(dj__import_control(im, &(dj_control){.t_ns = r->t_ns,
                                              .steering = 0.0 - r->steering,
                                              .throttle = r->throttle,
                                              .brake = r->brake,
                                              .steering_angle = NAN}));
  return dj__import_speed(im, &(dj_speed){r->t_ns, r->speed * MPH});
}

static dj_status run(dj__import *im) {
  table t = {.path = csv_path(im->path)};
  t.folder = folder_of(t.path);
  dj_status s = read_table(im, &t);
  dj__pictures *pictures = NULL;
  if (!s) s = begin(im, &t);
  if (!s) s = dj__pictures_open(im, 3 * t.n, picture_of, &t, &pictures);
  for (size_t i = 0; i < t.n && !s; i++) {
    s = import_row(im, &t, i, pictures);
    dj_progress(im->info.name, i + 1, t.n, "rows", NULL);
  }
  dj__pictures_close(pictures);
  for (size_t i = 0; i < t.n; i++) free_row(&t.rows[i]);
  free(t.rows);
  free(t.folder);
  free(t.path);
  return s;
}

const dj__importer dj__import_udacity = {
    .name = "udacity",
    .summary = "Udacity simulator, behavioural cloning: driving_log.csv, IMG/",
    .probe = probe,
    .files = files,
    .drive_name = drive_name,
    .run = run,
    .version = 1,
};
