#include "fleet/augment.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"

dj_status dj__augment_check(const dj_augment *a, int n_cameras) {
  const struct {
    const char *name;
    float value, most;
  } f[] = {{"mirror", a->mirror, 1},
           {"brightness", a->brightness, 1},
           {"contrast", a->contrast, 1},
           {"noise", a->noise, 1},
           {"yaw", a->yaw, 0.5f},
           {"shift", a->shift, 5},
           {"steer_per_yaw", a->steer_per_yaw, 100},
           {"steer_per_shift", a->steer_per_shift, 100}};
  for (size_t i = 0; i < sizeof f / sizeof *f; i++)
    if (!(f[i].value >= 0 && f[i].value <= f[i].most))
      return dj_error(DJ_E_INVALID, "augmentation: %s is %g; it must be from 0 to %g", f[i].name,
                      (double)f[i].value, (double)f[i].most);
  if (a->mirror > 0 && n_cameras > 1)
    return dj_error(DJ_E_UNSUPPORTED,
                    "augmentation: mirror with %d cameras would show each camera's picture in "
                    "another's place; set mirror to 0",
                    n_cameras);
  return DJ_OK;
}

dj__draw dj__augment_draw(const dj_augment *a, uint64_t seed, uint64_t step, uint64_t index) {
  static const char name[] = "augment";
  // Every value is drawn, also those that are off: one strength never changes another's numbers.
  dj__rng r = {.key = seed ^ dj__hash64(name, sizeof name - 1, 0), .stream = step << 24 ^ index};
  dj__draw d;
  d.mirror = dj__rng_uniform(&r, 0, 1) < a->mirror;
  d.brightness = a->brightness * dj__rng_uniform(&r, -1, 1);
  d.contrast = 1 + a->contrast * dj__rng_uniform(&r, -1, 1);
  d.noise = a->noise;
  d.yaw = a->yaw * dj__rng_uniform(&r, -1, 1);
  d.shift = a->shift * dj__rng_uniform(&r, -1, 1);
  d.noise_seed = dj__rng_u32(&r);
  return d;
}

void dj__noise_table(uint64_t seed, int16_t table[DJ__NOISE_TABLE]) {
  static const char name[] = "noise";
  dj__rng r = {.key = seed, .stream = dj__hash64(name, sizeof name - 1, 0)};
  for (int i = 0; i < DJ__NOISE_TABLE; i++) {
    float v = dj__rng_normal(&r);
    v = v < -8 ? -8 : v > 8 ? 8 : v;
    table[i] = (int16_t)lrintf(v * 1024);
  }
}

// ---- viewpoint ----------------------------------------------------------------------------------

static void multiply(const double a[9], const double b[9], double out[9]) {
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++)
      out[i * 3 + j] = a[i * 3] * b[j] + a[i * 3 + 1] * b[3 + j] + a[i * 3 + 2] * b[6 + j];
}

/* Inverse of an intrinsic matrix (upper triangular, last row 0 0 1). */
static void invert_K(const double K[9], double out[9]) {
  const double fx = K[0], s = K[1], cx = K[2], fy = K[4], cy = K[5];
  const double r[9] = {
      1 / fx, -s / (fx * fy), (s * cy - cx * fy) / (fx * fy), 0, 1 / fy, -cy / fy, 0, 0, 1};
  memcpy(out, r, sizeof r);
}

/*
 * A pixel u of the moved camera is the ray d = Rz(yaw) R K^-1 u, seen from the recorded vehicle
 * frame (R: camera to vehicle). It meets the ground, h below the camera, at d / w with w = -d_z / h
 * > 0; a ray that does not meets nothing (w = 0: infinity). From the recorded camera that point is
 * seen in direction d + w delta, delta being how far the moved camera is from the recorded one.
 * Projected: u' = K R^T (d + w delta), with w linear in u up to the max.
 */
dj__warp dj__augment_warp(const dj__draw *d, const dj__view *view, int margin_left) {
  dj__warp out = {.identity = true};
  const double h = view->position[2], c = cos((double)d->yaw), s = sin((double)d->yaw);
  if (d->yaw == 0 && d->shift == 0) return out;
  const double *R = view->rotation, *p = view->position;
  const double Rz[9] = {c, -s, 0, s, c, 0, 0, 0, 1};
  const double Rt[9] = {R[0], R[3], R[6], R[1], R[4], R[7], R[2], R[5], R[8]};
  double K_inverse[9], ray[9], turned[9], back[9], M[9];
  invert_K(view->K, K_inverse);
  multiply(R, K_inverse, ray); // pixel -> vehicle-frame ray of the moved vehicle
  multiply(Rz, ray, turned);   // -> as the recorded vehicle sees it
  multiply(view->K, Rt, back); // direction -> pixel of the recorded camera
  multiply(back, turned, M);
  // The camera goes round the vehicle's origin and then sideways.
  const double delta[3] = {c * p[0] - s * p[1] - p[0],
                           s * p[0] + c * p[1] - p[1] + (double)d->shift, 0};
  for (int i = 0; i < 3; i++) {
    // Output columns are counted from margin_left on.
    out.M[i * 3] = (float)M[i * 3];
    out.M[i * 3 + 1] = (float)M[i * 3 + 1];
    out.M[i * 3 + 2] = (float)(M[i * 3 + 2] + M[i * 3] * margin_left);
    out.v[i] = (float)(back[i * 3] * delta[0] + back[i * 3 + 1] * delta[1]);
  }
  if (h > 0) {
    out.n[0] = (float)(-turned[6] / h);
    out.n[1] = (float)(-turned[7] / h);
    out.n[2] = (float)(-(turned[8] + turned[6] * margin_left) / h);
  }
  out.identity = false;
  return out;
}

/* Bilinear, weights in 1/256; beyond the picture its edge is repeated. */
static inline void sample_pixel(const uint8_t *src, int src_w, int h, float u, float v,
                                uint8_t *out) {
  const float lim_u = (float)(src_w - 1), lim_v = (float)(h - 1);
  u = u > 0 ? (u < lim_u ? u : lim_u) : 0; // also for NaN: 0
  v = v > 0 ? (v < lim_v ? v : lim_v) : 0;
  const int qu = (int)(u * 256 + 0.5f), qv = (int)(v * 256 + 0.5f);
  const int x = qu >> 8, y = qv >> 8, fx = qu & 255, fy = qv & 255;
  const int dx = x + 1 < src_w ? 3 : 0;
  const uint8_t *a = src + ((size_t)y * (size_t)src_w + (size_t)x) * 3;
  const uint8_t *b = y + 1 < h ? a + (size_t)src_w * 3 : a;
  const int w11 = fx * fy, w10 = (fy << 8) - w11, w01 = (fx << 8) - w11,
            w00 = 65536 - (fx << 8) - (fy << 8) + w11;
  for (int c = 0; c < 3; c++)
    out[c] = (uint8_t)((w00 * a[c] + w01 * a[dx + c] + w10 * b[c] + w11 * b[dx + c] + 32768) >> 16);
}

static void warp_row(const dj__warp *warp, const uint8_t *src, int src_w, int w, int h, int y,
                     bool mirror, uint8_t *out) {
  const float *M = warp->M, *n = warp->n, *t = warp->v, fy = (float)y;
  const float au = M[1] * fy + M[2], av = M[4] * fy + M[5], aw = M[7] * fy + M[8],
              an = n[1] * fy + n[2];
  for (int x = 0; x < w; x++) {
    const float fx = (float)x;
    float q = n[0] * fx + an;
    q = q > 0 ? q : 0;
    const float z = M[6] * fx + aw + q * t[2];
    const float inverse = z > 1e-6f ? 1 / z : 1e6f;
    sample_pixel(src, src_w, h, (M[0] * fx + au + q * t[0]) * inverse,
                 (M[3] * fx + av + q * t[1]) * inverse, out + (mirror ? w - 1 - x : x) * 3);
  }
}

static void copy_row(const uint8_t *src, int w, bool mirror, uint8_t *out) {
  if (!mirror) {
    memcpy(out, src, (size_t)w * 3);
    return;
  }
  for (int x = 0; x < w; x++)
    for (int c = 0; c < 3; c++) out[x * 3 + c] = src[(w - 1 - x) * 3 + c];
}

/* v -> v * gain + offset (both x 256, rounding within the offset) + noise; whole numbers, so that a
 * compiler's vectors give the same bytes. */
static void tone_row(uint8_t *row, int n, int gain, int offset, const int16_t *noise,
                     int amplitude) {
  for (int i = 0; i < n; i++) {
    int v = (row[i] * gain + offset + ((noise[i] * amplitude) >> 10)) >> 8;
    v = v < 0 ? 0 : v;
    row[i] = (uint8_t)(v > 255 ? 255 : v);
  }
}

/* A row longer than the table can give takes it in pieces. */
static void tone(const dj__draw *d, const int16_t *noise, uint32_t frame, int w, int h,
                 uint8_t *out) {
  const int gain = (int)lrintf(d->contrast * 256), amplitude = (int)lrintf(d->noise * 255 * 256);
  const int offset = (int)lrintf((128 * (1 - d->contrast) + 255 * d->brightness) * 256) + 128;
  if (gain == 256 && offset == 128 && amplitude == 0) return;
  enum { PIECE = 4096 };
  for (int y = 0; y < h; y++) {
    uint8_t *row = out + (size_t)y * (size_t)w * 3;
    for (int at = 0; at < w * 3; at += PIECE) {
      const int n = w * 3 - at < PIECE ? w * 3 - at : PIECE;
      const uint32_t r = dj__philox(d->noise_seed, (uint64_t)y << 32 | (uint32_t)at, frame).v[0];
      tone_row(row + at, n, gain, offset, noise + r % (DJ__NOISE_TABLE - PIECE), amplitude);
    }
  }
}

void dj__augment_image(const dj__draw *d, const dj__warp *warp, const int16_t *noise,
                       uint32_t frame, const uint8_t *src, int src_w, int margin_left, int w, int h,
                       uint8_t *out) {
  for (int y = 0; y < h; y++) {
    uint8_t *row = out + (size_t)y * (size_t)w * 3;
    if (warp->identity)
      copy_row(src + ((size_t)y * (size_t)src_w + (size_t)margin_left) * 3, w, d->mirror, row);
    else
      warp_row(warp, src, src_w, w, h, y, d->mirror, row);
  }
  tone(d, noise, frame, w, h, out);
}

// ---- labels
// ---------------------------------------------------------------------------------------

/* Speed along the recorded path, m/s: over the first part of it that is long enough to measure. */
static float path_speed(const float *path, const float *mask) {
  for (int i = 5; i < DJ_PATH_POINTS; i++) {
    if (mask[i] <= 0) return 0;
    if (dj_path_time(i) >= 0.2)
      return sqrtf(path[i * 3] * path[i * 3] + path[i * 3 + 1] * path[i * 3 + 1]) /
             (float)dj_path_time(i);
  }
  return 0;
}

/*
 * p -> Rz(-yaw) (p - (0, shift)), plus what takes the path through the moved vehicle: a cubic in
 * u = t / recovery that cancels offset and direction at u = 0 and is gone, with its slope, at u
 * = 1.
 */
static void move_path(const dj__draw *d, float *path, const float *mask) {
  const float c = cosf(d->yaw), s = sinf(d->yaw), v = path_speed(path, mask),
              T = (float)DJ__RECOVERY_S;
  const float x0 = s * d->shift, y0 = c * d->shift; // minus the image of the origin
  const float dx = v * (1 - c) * T, dy = v * s * T; // minus the change of direction
  for (int i = 0; i < DJ_PATH_POINTS; i++) {
    if (mask[i] <= 0) continue;
    float *p = path + i * 3;
    const float x = p[0], y = p[1] - d->shift, u = (float)dj_path_time(i) / T;
    p[0] = c * x + s * y;
    p[1] = c * y - s * x;
    if (u >= 1) continue;
    const float hold = 1 - u * u * (3 - 2 * u), slope = u * (1 - u) * (1 - u);
    p[0] += x0 * hold + dx * slope;
    p[1] += y0 * hold + dy * slope;
  }
}

/* Moved frames X apart from the recorded ones: X^-1 M X. */
static void move_motion(const dj__draw *d, float *m) {
  const float c = cosf(d->yaw), s = sinf(d->yaw), cm = cosf(m[2]), sm = sinf(m[2]);
  const float x = m[0] - sm * d->shift, y = m[1] + cm * d->shift - d->shift;
  m[0] = c * x + s * y;
  m[1] = c * y - s * x;
}

static void mirror_labels(float *control, float *path, float *motion) {
  control[0] = -control[0];
  for (int i = 0; i < DJ_PATH_POINTS; i++) path[i * 3 + 1] = -path[i * 3 + 1];
  motion[1] = -motion[1];
  motion[2] = -motion[2];
}

void dj__augment_labels(const dj__draw *d, const dj_augment *a, float *control,
                        const float *control_mask, float *path, const float *path_mask,
                        float *motion, const float *motion_mask) {
  if (d->yaw != 0 || d->shift != 0) {
    if (control_mask[0] > 0) {
      const float v = control[0] - a->steer_per_yaw * d->yaw - a->steer_per_shift * d->shift;
      control[0] = v < -1 ? -1 : v > 1 ? 1 : v;
    }
    move_path(d, path, path_mask);
    if (motion_mask[0] > 0) move_motion(d, motion);
  }
  if (d->mirror) mirror_labels(control, path, motion);
}
