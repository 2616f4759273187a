/*
 * A generated drive: a lane with white edges and a dashed yellow middle winds over a textured
 * floor; a bicycle model with a pure-pursuit driver follows it and is pushed aside now and then, so
 * that the pictures also show how to come back. Each pixel is the floor (or wall) its ray meets;
 * light and wall change slowly along the way. Everything is a function of the seed.
 */
#include "dojo/synth.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>

#include "base/fs.h"
#include "base/rng.h"
#include "dojo/log.h"

enum { W = 160, H = 120, AHEAD = 160 };
#define STEP_M     0.05 /* between points of the centre line */
#define SPEED      1.3  /* m/s */
#define DT         0.05 /* s */
#define WHEELBASE  0.26 /* m */
#define MAX_STEER  0.44 /* rad at full lock */
#define LOOK_AHEAD 0.9  /* m */
#define CAMERA_H   0.16 /* m */
#define PITCH      0.26 /* rad, downwards */
#define FOCAL      (0.5 * W / 0.93)
#define HALF_LANE  0.42 /* m */

typedef struct world {
  uint64_t seed;
  double s;                                 // m along the centre line
  double offset, yaw;                       // of the car against it: m to the left, rad
  double x[AHEAD], y[AHEAD], yaw_at[AHEAD]; // centre line ahead in the car's frame
} world;

/* Smooth noise in -1..1 with knots every unit. */
static double noise1(uint64_t seed, uint64_t stream, double x) {
  double f = floor(x), t = x - f;
  uint64_t k = (uint64_t)(int64_t)f;
  double a = 2.0 * dj__u01(dj__philox(seed, k, stream).v[0]) - 1;
  double b = 2.0 * dj__u01(dj__philox(seed, k + 1, stream).v[0]) - 1;
  t = t * t * (3 - 2 * t);
  return a + (b - a) * t;
}

static double curvature(const world *w, double s) {
  double k = 0.75 * noise1(w->seed, 1, s / 2.1) + 0.35 * noise1(w->seed, 2, s / 0.9);
  return k * (0.35 + 0.65 * fabs(noise1(w->seed, 3, s / 9.0)));
}

static void centre_line(world *w) {
  double yaw = -w->yaw, x = -w->offset * sin(w->yaw), y = -w->offset * cos(w->yaw);
  for (int i = 0; i < AHEAD; i++) {
    w->x[i] = x;
    w->y[i] = y;
    w->yaw_at[i] = yaw;
    yaw += STEP_M * curvature(w, w->s + i * STEP_M);
    x += STEP_M * cos(yaw);
    y += STEP_M * sin(yaw);
  }
}

/* Full lock to the left is 1. */
static double steer(const world *w) {
  int i = (int)(LOOK_AHEAD / STEP_M);
  double l2 = w->x[i] * w->x[i] + w->y[i] * w->y[i];
  double a = atan(WHEELBASE * 2 * w->y[i] / l2) / MAX_STEER;
  return fmax(-1, fmin(1, a));
}

static void drive(world *w, double steering) {
  double k = curvature(w, w->s), ds = SPEED * DT;
  w->yaw += ds * (tan(steering * MAX_STEER) / WHEELBASE - k);
  w->offset += ds * sin(w->yaw);
  w->s += ds * cos(w->yaw) / (1 - k * w->offset);
}

static uint32_t hash2(int x, int y, uint64_t seed) {
  uint32_t h = (uint32_t)x * 0x8da6b343u ^ (uint32_t)y * 0xd8163841u ^ (uint32_t)seed;
  h ^= h >> 15;
  h *= 0x2c1b3c6du;
  h ^= h >> 12;
  h *= 0x297a2d39u;
  return h ^ (h >> 15);
}

/* Value noise on a grid of `cell` metres, 0..1. */
static double grain(double x, double y, double cell, uint64_t seed) {
  double u = x / cell, v = y / cell, fu = floor(u), fv = floor(v), a = u - fu, b = v - fv;
  int i = (int)fu, j = (int)fv;
  double n00 = hash2(i, j, seed) & 255, n10 = hash2(i + 1, j, seed) & 255;
  double n01 = hash2(i, j + 1, seed) & 255, n11 = hash2(i + 1, j + 1, seed) & 255;
  double top = n00 + (n10 - n00) * a, low = n01 + (n11 - n01) * a;
  return (top + (low - top) * b) / 255;
}

static void mix(double c[3], const double to[3], double share) {
  for (int k = 0; k < 3; k++) c[k] += (to[k] - c[k]) * share;
}

/* Coverage of a stripe of half width `half` at distance d, blurred over `pixel` metres. */
static double stripe(double d, double half, double pixel) {
  double t = (half + 0.5 * pixel - fabs(d)) / pixel;
  return t < 0 ? 0 : t > 1 ? 1 : t;
}

static void floor_colour(const world *w, double x, double y, double pixel, double c[3]) {
  static const double white[3] = {232, 232, 226}, yellow[3] = {226, 182, 48};
  int i = 0;
  while (i < AHEAD - 1 && w->x[i] < x) i++;
  double yaw = w->yaw_at[i];
  double d = (y - w->y[i]) * cos(yaw) - (x - w->x[i]) * sin(yaw);
  double along = w->s + i * STEP_M + (x - w->x[i]) * cos(yaw) + (y - w->y[i]) * sin(yaw);
  bool lane = fabs(d) < HALF_LANE + 0.05;
  double base[3] = {118, 104, 88}, tarmac[3] = {70, 70, 74};
  memcpy(c, lane ? tarmac : base, sizeof base);
  double fade = 1 / (1 + 6 * pixel);
  double g = (grain(along, d, 0.11, w->seed) - 0.5) * 34 +
             (grain(along, d, 0.03, w->seed + 1) - 0.5) * 26 * fade;
  for (int k = 0; k < 3; k++) c[k] += g;
  double wear = 0.75 + 0.25 * grain(along, d, 0.07, w->seed + 2);
  mix(c, white, wear * stripe(fabs(d) - HALF_LANE, 0.024, pixel));
  bool dash = fmod(along, 0.5) < 0.28;
  if (dash) mix(c, yellow, wear * stripe(d, 0.018, pixel));
}

static void wall_colour(const world *w, double bearing, double elevation, double c[3]) {
  double heading = w->yaw + bearing + 0.35 * w->s; // the room turns with the track
  double panel = grain(heading * 3, 0, 0.6, w->seed + 5), up = elevation * 4;
  double base[3] = {150 + 50 * panel, 158 + 34 * panel, 168 + 20 * panel};
  double sky[3] = {206, 214, 224}, skirting[3] = {88, 80, 76};
  memcpy(c, base, sizeof base);
  mix(c, sky, up < 0 ? 0 : up > 1 ? 1 : up);
  if (elevation < 0.03) mix(c, skirting, 0.8);
}

static void render(const world *w, uint64_t frame, uint8_t *rgb) { // (H, W, 3)
  double light = 0.86 + 0.2 * noise1(w->seed, 7, w->s / 6.0),
         warm = 0.05 * noise1(w->seed, 8, w->s / 11.0);
  for (int v = 0; v < H; v++)
    for (int u = 0; u < W; u++) {
      double px = (u + 0.5 - 0.5 * W) / FOCAL, py = (v + 0.5 - 0.5 * H) / FOCAL;
      double down = py * cos(PITCH) + sin(PITCH), fwd = cos(PITCH) - py * sin(PITCH);
      double c[3];
      double x = down > 1e-3 ? CAMERA_H * fwd / down : 1e9;
      if (x < 6) {
        double y = -px * CAMERA_H / down;
        floor_colour(w, x, y, fmax(0.004, CAMERA_H / (down * down * FOCAL)), c);
      } else {
        wall_colour(w, -atan2(px, fwd), atan2(-down, fwd), c);
      }
      double r = hypot(px, py), vignette = 1 - 0.16 * r * r;
      dj__u32x4 n = dj__philox(w->seed, (uint64_t)v * W + (uint64_t)u, frame + 1000);
      for (int k = 0; k < 3; k++) {
        double value = c[k] * light * vignette * (1 + (k == 0 ? warm : k == 2 ? -warm : 0));
        value += 7 * (dj__u01(n.v[k]) + dj__u01(n.v[3] << (8 * k)) - 1);
        rgb[(v * W + u) * 3 + k] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
      }
    }
}

static dj_status write_frame(tjhandle tj, const char *images, uint64_t i, const uint8_t *rgb) {
  unsigned char *jpeg = NULL;
  unsigned long size = 0;
  if (tjCompress2(tj, rgb, W, 0, H, TJPF_RGB, &jpeg, &size, TJSAMP_420, 90, TJFLAG_ACCURATEDCT) !=
      0)
    return dj_error(DJ_E_STATE, "frame %llu: JPEG: %s", (unsigned long long)i, tjGetErrorStr2(tj));
  char *path = dj__strf("%s/%llu_cam_image_array_.jpg", images, (unsigned long long)i);
  FILE *f = fopen(path, "wbe");
  dj_status s = DJ_OK;
  if (!f || fwrite(jpeg, 1, size, f) != size) s = dj_error_errno("%s: cannot write", path);
  if (f && fclose(f) != 0 && !s) s = dj_error_errno("%s: cannot write", path);
  tjFree(jpeg);
  free(path);
  return s;
}

static dj_status write_drive(tjhandle tj, FILE *catalog, const char *images, uint64_t seed,
                             uint64_t n) {
  world w = {.seed = seed};
  static const uint64_t start_ms = 1600000000000u; // any fixed time
  uint8_t *rgb = malloc((size_t)W * H * 3);
  if (!rgb) return dj_error(DJ_E_NOMEM, "no memory for a frame");
  dj_status s = DJ_OK;
  for (uint64_t i = 0; i < n && !s; i++) {
    centre_line(&w);
    double steering = steer(&w);
    render(&w, i, rgb);
    s = write_frame(tj, images, i, rgb);
    if (!s &&
        fprintf(catalog,
                "{\"_index\": %llu, \"_timestamp_ms\": %llu, \"cam/image_array\": "
                "\"%llu_cam_image_array_.jpg\", \"user/angle\": %.6f, \"user/mode\": \"user\", "
                "\"user/throttle\": %.6f}\n",
                (unsigned long long)i, (unsigned long long)(start_ms + i * 50),
                (unsigned long long)i, -steering, 0.45 - 0.15 * fabs(steering)) < 0)
      s = dj_error_errno("catalog_0.catalog: cannot write");
    drive(&w, steering);
    if (i % 60 == 59) w.offset += 0.10 * noise1(seed, 20, (double)i * 0.77);
    if (i % 60 == 29) w.yaw += 0.16 * noise1(seed, 21, (double)i * 0.53);
    dj_progress("making a drive", i + 1, n, "frames", NULL);
  }
  free(rgb);
  return s;
}

dj_status dj_synth_tub(const char *folder, uint64_t seed, uint64_t frames) {
  if (dj__exists(folder)) return dj_error(DJ_E_EXISTS, "%s: is there already", folder);
  char *images = dj__join(folder, "images"), *manifest = dj__join(folder, "manifest.json");
  char *catalog = dj__join(folder, "catalog_0.catalog");
  static const char text[] =
      "[\"cam/image_array\", \"user/angle\", \"user/throttle\", \"user/mode\"]\n"
      "[\"image_array\", \"float\", \"float\", \"str\"]\n{}\n"
      "{\"created_at\": 1600000000.0, \"sessions\": {}}\n"
      "{\"paths\": [\"catalog_0.catalog\"], \"current_index\": 0, \"max_len\": 1000000, "
      "\"deleted_indexes\": []}\n";
  tjhandle tj = tjInitCompress();
  FILE *f = NULL;
  dj_status s = tj ? dj__mkdirs(images) : dj_error(DJ_E_NOMEM, "JPEG: cannot start");
  if (!s) s = dj__write_file_atomic(manifest, text, sizeof text - 1);
  if (!s && !(f = fopen(catalog, "we"))) s = dj_error_errno("%s: cannot create", catalog);
  if (!s) s = write_drive(tj, f, images, seed, frames);
  if (f && fclose(f) != 0 && !s) s = dj_error_errno("%s: cannot write", catalog);
  if (tj) tjDestroy(tj);
  free(images);
  free(manifest);
  free(catalog);
  return s;
}
