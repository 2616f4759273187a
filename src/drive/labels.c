#include "drive/labels.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Seconds from `from` to `to`. Times may be any u64: the difference is taken before rounding. */
static double seconds_between(uint64_t from, uint64_t to) {
  return to >= from ? (double)(to - from) * 1e-9 : -(double)(from - to) * 1e-9;
}

// ---- scalars ------------------------------------------------------------------------------------

typedef struct series { // finite values of one field in order of time
  double *t, *v;
  size_t n;
} series;

/* Value of a series at time t; false where no record is near enough. *at: a hint, moves forward. */
static bool sample_series(const series *s, double t, size_t *at, float *out) {
  if (s->n == 0) return false;
  while (*at + 1 < s->n && s->t[*at + 1] <= t) ++*at;
  const size_t i = *at;
  double v;
  if (i + 1 < s->n && s->t[i] <= t && s->t[i + 1] - s->t[i] <= DJ__LABEL_MAX_GAP_S) {
    double f = (t - s->t[i]) / (s->t[i + 1] - s->t[i]);
    v = s->v[i] + f * (s->v[i + 1] - s->v[i]);
  } else {
    size_t near = i;
    if (i + 1 < s->n && fabs(s->t[i + 1] - t) < fabs(s->t[i] - t)) near = i + 1;
    if (fabs(s->t[near] - t) > 0.5 * DJ__LABEL_MAX_GAP_S) return false;
    v = s->v[near];
  }
  *out = (float)v;
  return isfinite(*out);
}

static void add_record(series *s, double t, double v) {
  if (!isfinite(v)) return;
  if (s->n && s->t[s->n - 1] >= t) { // two records of one time: the later one counts
    s->v[s->n - 1] = v;
    return;
  }
  s->t[s->n] = t;
  s->v[s->n++] = v;
}

static void sample_all(const series *s, const uint64_t *t_ns, size_t n, size_t stride, float *out,
                       float *mask) {
  size_t at = 0;
  for (size_t i = 0; i < n; i++) {
    float v;
    if (!sample_series(s, seconds_between(t_ns[0], t_ns[i]), &at, &v)) continue;
    out[i * stride] = v;
    mask[i * stride] = 1;
  }
}

static dj_status make_scalars(const dj__label_source *src, const uint64_t *t_ns, size_t n,
                              dj__labels *out) {
  size_t most = src->n_controls > src->n_speeds ? src->n_controls : src->n_speeds;
  if (most == 0 || n == 0) return DJ_OK;
  series s = {.t = malloc(most * sizeof *s.t), .v = malloc(most * sizeof *s.v)};
  if (!s.t || !s.v) {
    free(s.t);
    free(s.v);
    return dj_error(DJ_E_NOMEM, "labels: no memory for %zu records", most);
  }
  for (int field = 0; field < 3; field++) {
    s.n = 0;
    for (size_t i = 0; i < src->n_controls; i++) {
      const dj_control *c = &src->controls[i];
      const double value[3] = {c->steering, c->throttle, c->brake};
      add_record(&s, seconds_between(t_ns[0], c->t_ns) - src->lead, value[field]);
    }
    sample_all(&s, t_ns, n, 3, out->control + field, out->control_mask + field);
  }
  s.n = 0;
  for (size_t i = 0; i < src->n_speeds; i++)
    add_record(&s, seconds_between(t_ns[0], src->speeds[i].t_ns), src->speeds[i].speed);
  sample_all(&s, t_ns, n, 1, out->speed, out->speed_mask);
  free(s.t);
  free(s.v);
  return DJ_OK;
}

// ---- poses --------------------------------------------------------------------------------------

/* v turned by the unit quaternion q (x y z w), or by its inverse. */
static void rotate(const double q[4], bool inverse, const double v[3], double out[3]) {
  const double s = inverse ? -1 : 1, x = s * q[0], y = s * q[1], z = s * q[2], w = q[3];
  const double tx = 2 * (y * v[2] - z * v[1]), ty = 2 * (z * v[0] - x * v[2]),
               tz = 2 * (x * v[1] - y * v[0]);
  out[0] = v[0] + w * tx + y * tz - z * ty;
  out[1] = v[1] + w * ty + z * tx - x * tz;
  out[2] = v[2] + w * tz + x * ty - y * tx;
}

typedef struct track { // usable poses, normalised, times in seconds since the first frame
  double *t;
  double (*pose)[7];
  size_t *end; // last pose of the unbroken piece that pose i is in
  size_t n;
} track;

static void free_track(track *k) {
  free(k->t);
  free(k->pose);
  free(k->end);
  *k = (track){0};
}

/* A pose into (position, unit quaternion); false where it is not finite or no rotation. */
static bool normalise(const dj_pose *p, double out[7]) {
  double q2 = 0;
  for (int i = 0; i < 4; i++) q2 += p->rotation[i] * p->rotation[i];
  if (!isfinite(q2) || q2 < 1e-12) return false;
  for (int i = 0; i < 3; i++) {
    if (!isfinite(p->position[i])) return false;
    out[i] = p->position[i];
  }
  for (int i = 0; i < 4; i++) out[3 + i] = p->rotation[i] / sqrt(q2);
  return true;
}

static double distance(const double a[7], const double b[7]) {
  return sqrt((a[0] - b[0]) * (a[0] - b[0]) + (a[1] - b[1]) * (a[1] - b[1]) +
              (a[2] - b[2]) * (a[2] - b[2]));
}

static dj_status make_track(const dj__label_source *src, uint64_t t0, track *k) {
  size_t n = src->n_poses;
  *k = (track){.t = malloc(n * sizeof *k->t),
               .pose = malloc(n * sizeof *k->pose),
               .end = malloc(n * sizeof *k->end)};
  if (!k->t || !k->pose || !k->end) {
    free_track(k);
    dj_error(DJ_E_NOMEM, "labels: no memory for %zu poses", n);
    return DJ_E_NOMEM;
  }
  for (size_t i = 0; i < n; i++) {
    double t = seconds_between(t0, src->poses[i].t_ns);
    if (k->n && t <= k->t[k->n - 1]) continue; // a second pose of one time
    if (!normalise(&src->poses[i], k->pose[k->n])) continue;
    k->t[k->n++] = t;
  }
  for (size_t i = k->n; i-- > 0;) {
    k->end[i] = i;
    if (i + 1 == k->n) continue;
    double dt = k->t[i + 1] - k->t[i];
    if (dt <= DJ__LABEL_MAX_GAP_S &&
        distance(k->pose[i], k->pose[i + 1]) <= DJ__LABEL_MAX_SPEED * dt)
      k->end[i] = k->end[i + 1];
  }
  return DJ_OK;
}

/* Index i with t[i] <= t < t[i+1]; false when t lies outside, or between two pieces. A time on the
 * last pose (to 1 µs: frame times are rounded) counts as inside. */
static bool locate(const track *k, double t, size_t *at, double *f) {
  const double eps = 1e-6;
  if (k->n < 2 || t < k->t[0] - eps || t > k->t[k->n - 1] + eps) return false;
  size_t lo = 0, hi = k->n - 1; // t[lo] <= t < t[hi] while searching
  while (hi - lo > 1) {
    size_t mid = lo + (hi - lo) / 2;
    if (k->t[mid] <= t)
      lo = mid;
    else
      hi = mid;
  }
  if (k->end[lo] == lo) { // no way on from here: only the pose itself, or the next one
    if (t - k->t[lo] <= eps && lo > 0 && k->end[lo - 1] == k->end[lo])
      lo--;
    else if (k->t[hi] - t <= eps && k->end[hi] != hi)
      lo = hi;
    else
      return false;
  }
  *at = lo;
  *f = fmin(1, fmax(0, (t - k->t[lo]) / (k->t[lo + 1] - k->t[lo])));
  return true;
}

/* Pose between two: position linear, rotation by normalised linear interpolation on the short way
 * (the angle between two poses is small at the gaps allowed). */
static void between(const double a[7], const double b[7], double f, double out[7]) {
  for (int i = 0; i < 3; i++) out[i] = a[i] + f * (b[i] - a[i]);
  double dot = 0, n2 = 0;
  for (int i = 3; i < 7; i++) dot += a[i] * b[i];
  const double s = dot < 0 ? -1 : 1;
  for (int i = 3; i < 7; i++) {
    out[i] = a[i] + f * (s * b[i] - a[i]);
    n2 += out[i] * out[i];
  }
  for (int i = 3; i < 7; i++) out[i] /= sqrt(n2); // n2 >= 1/2: the two lie within 90 degrees
}

/* Path of one frame; the caller has found its pose, in the piece that ends at `end`. */
static void make_path(const track *k, double t0, const double pose[7], size_t end, float *path,
                      float *mask) {
  for (int i = 0; i < DJ_PATH_POINTS; i++) {
    size_t at;
    double f, p[7], d[3], out[3];
    if (!locate(k, t0 + dj_path_time(i), &at, &f) || k->end[at] != end) break;
    between(k->pose[at], k->pose[at + 1], f, p);
    for (int c = 0; c < 3; c++) d[c] = p[c] - pose[c];
    rotate(pose + 3, true, d, out);
    for (int c = 0; c < 3; c++) path[i * 3 + c] = (float)out[c];
    mask[i] = 1;
  }
}

static dj_status make_paths(const dj__label_source *src, const uint64_t *t_ns, size_t n,
                            dj__labels *out) {
  if (src->n_poses < 2 || n == 0) return DJ_OK;
  track k;
  DJ_TRY(make_track(src, t_ns[0], &k));
  for (size_t i = 0; i < n; i++) {
    double t = seconds_between(t_ns[0], t_ns[i]), f;
    size_t at;
    if (!locate(&k, t, &at, &f)) continue;
    double *pose = out->pose + i * 7;
    between(k.pose[at], k.pose[at + 1], f, pose);
    out->pose_mask[i] = 1;
    make_path(&k, t, pose, k.end[at], out->path + i * DJ_PATH_POINTS * 3,
              out->path_mask + i * DJ_PATH_POINTS);
  }
  free_track(&k);
  return DJ_OK;
}

void dj__labels_motion(const double a[7], const double b[7], float out[3]) {
  double d[3] = {b[0] - a[0], b[1] - a[1], b[2] - a[2]}, m[3], heading[3], ahead[3];
  rotate(a + 3, true, d, m);
  const double x[3] = {1, 0, 0};
  rotate(b + 3, false, x, heading);
  rotate(a + 3, true, heading, ahead); // b's forward direction as a sees it
  out[0] = (float)m[0];
  out[1] = (float)m[1];
  out[2] = (float)atan2(ahead[1], ahead[0]);
}

// ---- all
// ------------------------------------------------------------------------------------------

static dj_status alloc_labels(size_t n, dj__labels *l) {
  *l = (dj__labels){.n = n};
  if (n > SIZE_MAX / 4096) return dj_error(DJ_E_LIMIT, "labels: %zu frames", n);
  l->control = calloc(n * 3 + 1, sizeof(float));
  l->control_mask = calloc(n * 3 + 1, sizeof(float));
  l->speed = calloc(n + 1, sizeof(float));
  l->speed_mask = calloc(n + 1, sizeof(float));
  l->path = calloc(n * DJ_PATH_POINTS * 3 + 1, sizeof(float));
  l->path_mask = calloc(n * DJ_PATH_POINTS + 1, sizeof(float));
  l->pose = calloc(n * 7 + 1, sizeof(double));
  l->pose_mask = calloc(n + 1, sizeof(float));
  if (l->control && l->control_mask && l->speed && l->speed_mask && l->path && l->path_mask &&
      l->pose && l->pose_mask)
    return DJ_OK;
  dj__labels_free(l);
  return dj_error(DJ_E_NOMEM, "labels: no memory for %zu frames", n);
}

void dj__labels_free(dj__labels *l) {
  free(l->control);
  free(l->control_mask);
  free(l->speed);
  free(l->speed_mask);
  free(l->path);
  free(l->path_mask);
  free(l->pose);
  free(l->pose_mask);
  *l = (dj__labels){0};
}

dj_status dj__labels_make(const dj__label_source *src, const uint64_t *t_ns, size_t n,
                          dj__labels *out) {
  DJ_TRY(alloc_labels(n, out));
  dj_status s = make_scalars(src, t_ns, n, out);
  if (!s) s = make_paths(src, t_ns, n, out);
  if (s) dj__labels_free(out);
  return s;
}
