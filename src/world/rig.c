/*
 * Rigs: YAML to cameras. Presets are the files in rigs/, embedded when the library is built, and
 * read by the same code as anybody's own.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/text.h"
#include "base/yaml.h"
#include "world/render.h"
#include "world/rig_files.h"

enum { MAX_BYTES = 1 << 18, PRESETS = 32 };

typedef struct camera_file {
  char *name;
  int width, height, distortion;
  double fov, fx, fy, cx, cy;
  double position[3], yaw, pitch, roll;
  double *coefficients;
  unsigned n_coefficients;
  double noise, motion_blur, rolling_shutter, exposure;
} camera_file;
typedef struct rig_file {
  char *name, *about;
  double rate;
  camera_file *cameras;
  unsigned n_cameras;
} rig_file;

#define N_OF(a)     ((uint32_t)(sizeof(a) / sizeof *(a)))
#define OPTIONAL    CYAML_FLAG_OPTIONAL
#define NUMBER(key) CYAML_FIELD_FLOAT(#key, OPTIONAL, camera_file, key)

enum { PINHOLE, PLUMB_BOB, KANNALA_BRANDT };
static const cyaml_strval_t models[] = {
    {"none", PINHOLE}, {"plumb_bob", PLUMB_BOB}, {"kannala_brandt", KANNALA_BRANDT}};
static const cyaml_schema_value_t number = {CYAML_VALUE_FLOAT(CYAML_FLAG_DEFAULT, double)};

static const cyaml_schema_field_t camera_fields[] = {
    CYAML_FIELD_STRING_PTR("name", OPTIONAL, camera_file, name, 1, DJ_NAME_BYTES - 1),
    CYAML_FIELD_INT("width", OPTIONAL, camera_file, width),
    CYAML_FIELD_INT("height", OPTIONAL, camera_file, height),
    NUMBER(fov),
    NUMBER(fx),
    NUMBER(fy),
    NUMBER(cx),
    NUMBER(cy),
    CYAML_FIELD_SEQUENCE_FIXED("position", OPTIONAL, camera_file, position, &number, 3),
    NUMBER(yaw),
    NUMBER(pitch),
    NUMBER(roll),
    CYAML_FIELD_ENUM("distortion", OPTIONAL | CYAML_FLAG_STRICT, camera_file, distortion, models,
                     N_OF(models)),
    CYAML_FIELD_SEQUENCE_COUNT("coefficients", OPTIONAL | CYAML_FLAG_POINTER, camera_file,
                               coefficients, n_coefficients, &number, 1, 5),
    NUMBER(noise),
    NUMBER(motion_blur),
    NUMBER(rolling_shutter),
    NUMBER(exposure),
    CYAML_FIELD_END};
static const cyaml_schema_value_t camera_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, camera_file, camera_fields)};
static const cyaml_schema_field_t top_fields[] = {
    CYAML_FIELD_STRING_PTR("name", OPTIONAL, rig_file, name, 1, 63),
    CYAML_FIELD_STRING_PTR("about", OPTIONAL, rig_file, about, 0, 255),
    CYAML_FIELD_FLOAT("rate", OPTIONAL, rig_file, rate),
    CYAML_FIELD_SEQUENCE_COUNT("cameras", OPTIONAL | CYAML_FLAG_POINTER, rig_file, cameras,
                               n_cameras, &camera_entry, 1, DJ__RIG_CAMERAS),
    CYAML_FIELD_END};
static const cyaml_schema_value_t top = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, rig_file, top_fields)};

static const struct {
  const char *path;
  double lo, hi;
} ranges[] = {{"rate", 0.1, 1000},
              {"cameras.width", 8, 4000},
              {"cameras.height", 8, 4000},
              {"cameras.fov", 1, 150},
              {"cameras.fx", 1, 1e6},
              {"cameras.fy", 1, 1e6},
              {"cameras.cx", -1e5, 1e5},
              {"cameras.cy", -1e5, 1e5},
              {"cameras.position", -50, 50},
              {"cameras.yaw", -360, 360},
              {"cameras.pitch", -90, 90},
              {"cameras.roll", -180, 180},
              {"cameras.coefficients", -100, 100},
              {"cameras.noise", 0, 1},
              {"cameras.motion_blur", 0, 1},
              {"cameras.rolling_shutter", 0, 1},
              {"cameras.exposure", -10, 10}};
static bool range_of(const char *path, double *lo, double *hi) {
  for (size_t i = 0; i < N_OF(ranges); i++)
    if (!strcmp(path, ranges[i].path)) {
      *lo = ranges[i].lo;
      *hi = ranges[i].hi;
      return true;
    }
  return false;
}

static const dj__yaml_kind kind = {"rig", &top, range_of, MAX_BYTES};

typedef struct reading {
  const char *file;
  const dj__yaml_lines *lines;
} reading;

static int line_of(const reading *r, int camera, const char *key) {
  char path[DJ__YAML_PATH];
  (void)snprintf(path, sizeof path, "cameras[%d]%s%s", camera, *key ? "." : "", key);
  return dj__yaml_line_of(r->lines, path);
}

static dj_status need(const reading *r, int camera, const char *key) {
  if (line_of(r, camera, key)) return DJ_OK;
  char path[DJ__YAML_PATH];
  (void)snprintf(path, sizeof path, "cameras[%d].%s", camera, key);
  return dj__yaml_missing(r->file, r->lines, path);
}

/* Optical frame (x right, y down, z ahead) to vehicle frame: first the axes, then roll, pitch
 * (downwards positive), yaw (to the left positive). */
static void mounting(const camera_file *c, double q[4]) {
  double h = 0.5 * M_PI / 180, y = c->yaw * h, p = c->pitch * h, r = c->roll * h;
  double a[4] = {sin(r) * cos(p) * cos(y) - cos(r) * sin(p) * sin(y),
                 cos(r) * sin(p) * cos(y) + sin(r) * cos(p) * sin(y),
                 cos(r) * cos(p) * sin(y) - sin(r) * sin(p) * cos(y),
                 cos(r) * cos(p) * cos(y) + sin(r) * sin(p) * sin(y)};
  const double b[4] = {-0.5, 0.5, -0.5, 0.5}; // x ahead, y left, z up from the optical axes
  q[0] = a[3] * b[0] + a[0] * b[3] + a[1] * b[2] - a[2] * b[1];
  q[1] = a[3] * b[1] - a[0] * b[2] + a[1] * b[3] + a[2] * b[0];
  q[2] = a[3] * b[2] + a[0] * b[1] - a[1] * b[0] + a[2] * b[3];
  q[3] = a[3] * b[3] - a[0] * b[0] - a[1] * b[1] - a[2] * b[2];
}

static dj_status intrinsics(const reading *r, int i, const camera_file *f, dj_camera *c) {
  bool fov = line_of(r, i, "fov"), fx = line_of(r, i, "fx");
  if (fov == fx)
    return dj_error(DJ_E_INVALID, "%s:%d: cameras[%d] needs either fov (degrees) or fx (pixels)%s",
                    r->file, line_of(r, i, fov ? "fov" : "width"), i,
                    fov ? "; both are there" : "");
  if (fov && f->distortion == KANNALA_BRANDT)
    return dj_error(DJ_E_INVALID,
                    "%s:%d: cameras[%d].fov is that of a pinhole; give a fisheye's fx and fy",
                    r->file, line_of(r, i, "fov"), i);
  double x = fov ? 0.5 * f->width / tan(f->fov * M_PI / 360) : f->fx;
  double K[9] = {x,
                 0,
                 line_of(r, i, "cx") ? f->cx : 0.5 * (f->width - 1),
                 0,
                 line_of(r, i, "fy") ? f->fy : x,
                 line_of(r, i, "cy") ? f->cy : 0.5 * (f->height - 1),
                 0,
                 0,
                 1};
  memcpy(c->K, K, sizeof K);
  return DJ_OK;
}

static dj_status lens(const reading *r, int i, const camera_file *f, dj_camera *c) {
  static const char *const names[] = {"", "plumb_bob", "kannala_brandt"};
  (void)snprintf(c->distortion_model, sizeof c->distortion_model, "%s", names[f->distortion]);
  unsigned want = f->distortion == PLUMB_BOB ? 5 : f->distortion == KANNALA_BRANDT ? 4 : 0;
  if (f->n_coefficients != want)
    return dj_error(DJ_E_INVALID,
                    "%s:%d: cameras[%d] has %u coefficients; '%s' takes %u (plumb_bob: k1 k2 p1 p2 "
                    "k3, kannala_brandt: k1 k2 k3 k4)",
                    r->file, line_of(r, i, f->n_coefficients ? "coefficients" : "distortion"), i,
                    f->n_coefficients, want ? names[f->distortion] : "none", want);
  c->n_distortion = (int)want;
  for (unsigned k = 0; k < want; k++) c->D[k] = f->coefficients[k];
  return DJ_OK;
}

static dj_status take_camera(const reading *r, int i, const rig_file *f, dj__rig *rig) {
  const camera_file *from = &f->cameras[i];
  dj__rig_camera *o = &rig->camera[i];
  static const char *const needed[] = {"name", "width", "height", "position"};
  for (size_t k = 0; k < N_OF(needed); k++) DJ_TRY(need(r, i, needed[k]));
  if (from->name[strspn(from->name, "abcdefghijklmnopqrstuvwxyz0123456789_-")])
    return dj_error(DJ_E_INVALID,
                    "%s:%d: cameras[%d].name is '%.40s'; small letters, digits, _ and "
                    "- are taken",
                    r->file, line_of(r, i, "name"), i, from->name);
  for (int k = 0; k < i; k++)
    if (!strcmp(rig->camera[k].camera.name, from->name))
      return dj_error(DJ_E_INVALID, "%s:%d: two cameras are called '%s'", r->file,
                      line_of(r, i, "name"), from->name);
  *o = (dj__rig_camera){.noise = (float)from->noise,
                        .motion_blur = (float)from->motion_blur,
                        .rolling_shutter = (float)from->rolling_shutter,
                        .exposure = (float)from->exposure};
  dj_camera *c = &o->camera;
  (void)snprintf(c->name, sizeof c->name, "%s", from->name);
  c->width = from->width;
  c->height = from->height;
  c->calibrated = true;
  memcpy(c->position, from->position, sizeof c->position);
  mounting(from, c->rotation);
  DJ_TRY(intrinsics(r, i, from, c));
  return lens(r, i, from, c);
}

static dj_status take(const reading *r, const rig_file *f, dj__rig *rig) {
  *rig = (dj__rig){.rate = dj__yaml_line_of(r->lines, "rate") ? f->rate : 10,
                   .n_camera = (int)f->n_cameras};
  const char *name = f->name ? f->name : r->file, *slash = strrchr(name, '/');
  (void)snprintf(rig->name, sizeof rig->name, "%s", slash ? slash + 1 : name);
  for (int i = 0; i < rig->n_camera; i++) DJ_TRY(take_camera(r, i, f, rig));
  return DJ_OK;
}

dj_status dj__rig_parse(const char *text, size_t size, const char *file, dj__rig *rig) {
  dj__yaml_lines lines = {0};
  rig_file *f = NULL;
  dj_status s = dj__yaml_check(&kind, text, size, file, &lines);
  if (!s && !dj__yaml_line_of(&lines, "cameras")) s = dj__yaml_missing(file, &lines, "cameras");
  if (!s) s = dj__yaml_fill(&kind, text, size, file, &f);
  reading r = {file, &lines};
  if (!s) s = take(&r, f, rig);
  dj__yaml_free(&kind, f);
  dj__yaml_lines_free(&lines);
  return s;
}

dj_status dj__rig_read(const char *path, dj__rig *rig) {
  char *text = NULL;
  size_t size = 0;
  DJ_TRY(dj__read_file(path, MAX_BYTES, &text, &size));
  dj_status s = dj__rig_parse(text, size, path, rig);
  free(text);
  return s;
}

const char *const *dj__rig_names(int *n) {
  static const char *names[PRESETS];
  for (int i = 0; i < dj__rig_files_n && i < PRESETS; i++) names[i] = dj__rig_files[i].name;
  *n = dj__rig_files_n;
  return names;
}

dj_status dj__rig_find(const char *name, dj__rig *rig) {
  size_t l = strlen(name);
  if (strchr(name, '/') || (l > 5 && !strcmp(name + l - 5, ".yaml")))
    return dj__rig_read(name, rig);
  for (int i = 0; i < dj__rig_files_n; i++)
    if (!strcmp(dj__rig_files[i].name, name))
      return dj__rig_parse(dj__rig_files[i].text, strlen(dj__rig_files[i].text), name, rig);
  char all[256] = "";
  size_t at = 0;
  int n;
  const char *const *names = dj__rig_names(&n);
  for (int i = 0; i < n && at < sizeof all; i++)
    at += (size_t)snprintf(all + at, sizeof all - at, "%s%s", i ? ", " : "", names[i]);
  const char *near = dj__nearest(name, names, (size_t)n);
  return dj_error(DJ_E_NOT_FOUND,
                  "no rig is called '%.60s'%s%s%s; there are %s, or give a .yaml file", name,
                  near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "", all);
}
