/*
 * What is laid over a view: shadows of moving things on the ground, glows of lamps at night, rain.
 * All are soft triangles, worked out on the processor for what is near.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "world/render_internal.h"

static void corner(dj__renderer *r, const double p[3], const uint8_t c[4], double u, double v) {
  if (r->n_stream == r->cap_stream) {
    int cap = r->cap_stream ? 2 * r->cap_stream : 4096;
    dj__stream_vertex *q = realloc(r->stream, (size_t)cap * sizeof *q);
    if (!q) return; // a glow less
    r->stream = q;
    r->cap_stream = cap;
  }
  dj__stream_vertex *o = &r->stream[r->n_stream++];
  for (int k = 0; k < 3; k++) o->p[k] = (float)p[k];
  memcpy(o->c, c, 4);
  o->uv[0] = (float)u;
  o->uv[1] = (float)v;
}

static double cross2(const double o[2], const double a[2], const double b[2]) {
  return (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0]);
}
static int by_x(const void *a, const void *b) {
  const double *p = a, *q = b;
  return p[0] < q[0] ? -1 : p[0] > q[0] ? 1 : p[1] < q[1] ? -1 : p[1] > q[1];
}
/* Convex hull (Andrew's monotone chain), counter-clockwise. out has room for 2 n. */
static int hull(double (*p)[2], int n, double (*out)[2]) {
  qsort(p, (size_t)n, sizeof *p, by_x);
  int k = 0;
  for (int i = 0; i < n; i++) {
    while (k >= 2 && cross2(out[k - 2], out[k - 1], p[i]) <= 0) k--;
    memcpy(out[k++], p[i], sizeof *out);
  }
  for (int i = n - 2, low = k + 1; i >= 0; i--) {
    while (k >= low && cross2(out[k - 2], out[k - 1], p[i]) <= 0) k--;
    memcpy(out[k++], p[i], sizeof *out);
  }
  return k - 1;
}

/* A polygon on the ground round (0, 0) of the actor, with a soft rim of `soft` m where that can be
 * seen. */
static void blot(dj__renderer *r, const dj__view *v, const dj__actor *a, double (*h)[2], int n,
                 double soft, uint8_t dark) {
  const uint8_t c[4] = {0, 0, 0, dark};
  double slope = tan(a->pitch), cy = cos(a->yaw), sy = sin(a->yaw), mx = 0, my = 0;
  bool rim = soft * v->fy > 0.75 * hypot(a->x - v->pose.p[0], a->y - v->pose.p[1]);
  if (!rim) soft = 0;
  for (int k = 0; k < n; k++) mx += h[k][0] / n, my += h[k][1] / n;
  double in[16][3], out[16][3];
  for (int k = 0; k < n && k < 16; k++) {
    double dx = h[k][0] - mx, dy = h[k][1] - my, l = hypot(dx, dy) + 1e-9;
    double grow[2] = {fmax(0.3, 1 - soft / l), 1 + soft / l};
    for (int j = 0; j < (rim ? 2 : 1); j++) {
      double *o = j ? out[k] : in[k];
      double x = mx + dx * grow[j], y = my + dy * grow[j];
      o[0] = a->x + x - v->pose.p[0];
      o[1] = a->y + y - v->pose.p[1];
      o[2] = a->z + 0.02 - slope * (x * cy + y * sy) - v->pose.p[2];
    }
  }
  for (int k = 1; k + 1 < n; k++) {
    corner(r, in[0], c, 0, 0);
    corner(r, in[k], c, 0, 0);
    corner(r, in[k + 1], c, 0, 0);
  }
  for (int k = 0; k < n && rim; k++) {
    int j = (k + 1) % n;
    corner(r, in[k], c, 0, 0);
    corner(r, out[k], c, 0, 1);
    corner(r, out[j], c, 0, 1);
    corner(r, in[k], c, 0, 0);
    corner(r, out[j], c, 0, 1);
    corner(r, in[j], c, 0, 0);
  }
}

static void actor_shadow(dj__renderer *r, const dj__view *v, const dj__sky *k, const dj__actor *a,
                         bool own) {
  double c = cos(a->yaw), s = sin(a->yaw);
  double lift = a->kind == DJ__PEDESTRIAN || a->height < 0.4 ? 0 : 0.15;
  double p[8][2], h[20][2], base[4][2];
  for (int i = 0; i < 8; i++) {
    double top = i & 4 ? 1 : 0, z = top * a->height + (1 - top) * lift;
    double narrow = i & 4 ? (a->kind <= DJ__CAR ? 0.62 : 0.92) : 0.98; // roofs are smaller
    double x = (i & 1 ? 0.5 : -0.5) * a->length * narrow,
           y = (i & 2 ? 0.5 : -0.5) * a->width * 0.96;
    p[i][0] = c * x - s * y - k->sun[0] / k->sun[2] * z;
    p[i][1] = s * x + c * y - k->sun[1] / k->sun[2] * z;
    if (i < 4) {
      base[i][0] = c * x - s * y;
      base[i][1] = s * x + c * y;
    }
  }
  double contact = fmin(0.55, 0.25 + 0.3 * (1 - k->shadow)); // what the sky does not reach
  int n = hull(base, 4, h);
  if (!own) blot(r, v, a, h, n, fmin(0.45, 0.35 * a->width), (uint8_t)(255 * contact));
  if (k->shadow < 0.05f) return;
  n = hull(p, 8, h);
  double dark = 1 - sqrt(1 - 0.92 * k->shadow); // pictures are square roots of light
  blot(r, v, a, h, n, 0.07, (uint8_t)(255 * dark));
}

/* A soft ellipse in the plane of two half axes, about a point relative to the camera. */
static void ellipse(dj__renderer *r, const double middle[3], const double a[3], const double b[3],
                    const uint8_t c[4]) {
  static const int order[6][2] = {{-1, -1}, {1, -1}, {1, 1}, {-1, -1}, {1, 1}, {-1, 1}};
  for (int q = 0; q < 6; q++) {
    double p[3];
    for (int k = 0; k < 3; k++) p[k] = middle[k] + order[q][0] * a[k] + order[q][1] * b[k];
    corner(r, p, c, order[q][0], order[q][1]);
  }
}

/* A disc that faces the camera. */
static void disc(dj__renderer *r, const dj__view *v, const double at[3], double radius,
                 const uint8_t c[4]) {
  double middle[3], a[3], b[3];
  for (int k = 0; k < 3; k++) {
    middle[k] = at[k] - v->pose.p[k];
    a[k] = radius * v->pose.R[k];
    b[k] = radius * v->pose.R[3 + k];
  }
  ellipse(r, middle, a, b, c);
}

/* A point just above the ground, relative to the camera. */
static void on_road(const dj__renderer *r, const dj__view *v, double x, double y, double p[3]) {
  p[0] = x - v->pose.p[0];
  p[1] = y - v->pose.p[1];
  p[2] = dj__map_height(r->map, x, y) + 0.05 - v->pose.p[2];
}

/* A lamp's small bright core in a faint halo, and on wet roads its mirror image: a streak towards
 * the camera. What is next to the camera fades, rather than fill the picture. */
static void glow(dj__renderer *r, const dj__view *v, const dj__sky *k, const double at[3],
                 double radius, double ground, const uint8_t c[4]) {
  double dx = at[0] - v->pose.p[0], dy = at[1] - v->pose.p[1], d = hypot(dx, dy);
  if (d < 1 || d > 260) return;
  double light = c[3] * exp(-k->density * d) * fmin(1, 0.3 * (d - 1)),
         core = radius * (1 + 0.008 * d);
  uint8_t faded[4] = {c[0], c[1], c[2], (uint8_t)light};
  disc(r, v, at, core, faded);
  faded[3] = (uint8_t)(light * (0.16 + 0.10 * k->haze));
  disc(r, v, at, 3.2 * core, faded);
  double eye = v->pose.p[2] - ground, up = at[2] - ground, share = eye / fmax(eye + up, 0.1);
  if (k->wet < 0.2f || eye < 0.5) return;
  faded[3] = (uint8_t)(light * 0.45 * k->wet);
  double wide = 2 * core / d, along = fmin(0.35 * share, 5 / d), end[2][3];
  for (int i = 0; i < 2; i++) {
    double part = share + (i ? along : -along);
    on_road(r, v, v->pose.p[0] + part * dx, v->pose.p[1] + part * dy, end[i]);
  }
  double foot[3], half[3];
  for (int i = 0; i < 3; i++) {
    foot[i] = 0.5 * (end[1][i] + end[0][i]);
    half[i] = 0.5 * (end[1][i] - end[0][i]);
  }
  ellipse(r, foot, (double[3]){-dy * wide, dx * wide, 0}, half, faded);
}

/* The pool of light ahead of a vehicle: it grows wider, and fades to nothing on all sides. */
static void beam_on_road(dj__renderer *r, const dj__view *v, const dj__actor *a, double strength) {
  enum { STRIPS = 6 };
  double c = cos(a->yaw), s = sin(a->yaw), at[STRIPS + 1][3][3];
  uint8_t k[4] = {255, 244, 215, (uint8_t)(255 * strength)};
  for (int i = 0; i <= STRIPS; i++)
    for (int j = 0; j < 3; j++) {
      double far = (double)i / STRIPS, x = 0.5 * a->length + 22 * far * far;
      double y = (j - 1) * (1.1 + 4.2 * far);
      on_road(r, v, a->x + c * x - s * y, a->y + s * x + c * y, at[i][j]);
    }
  static const int order[6][2] = {{0, 0}, {0, 1}, {1, 1}, {0, 0}, {1, 1}, {1, 0}};
  for (int i = 0; i < STRIPS; i++)
    for (int side = 0; side < 2; side++)
      for (int q = 0; q < 6; q++) {
        int n = i + order[q][0], j = side + order[q][1];
        corner(r, at[n][j], k, j - 1, 2.0 * n / STRIPS - 1);
      }
}

static void actor_glows(dj__renderer *r, const dj__view *v, const dj__sky *k, const dj__actor *a) {
  if (a->kind > DJ__CYCLIST) return;
  static const uint8_t white[4] = {255, 240, 205, 235}, red[4] = {255, 22, 12, 190};
  double c = cos(a->yaw), s = sin(a->yaw);
  bool narrow = a->kind == DJ__MOTORCYCLE || a->kind == DJ__CYCLIST;
  double ex = v->pose.p[0] - a->x, ey = v->pose.p[1] - a->y, front = ex * c + ey * s;
  for (int side = -1; side <= 1; side += 2) {
    if (narrow && side > 0) break;
    double y = narrow ? 0 : side * 0.38 * a->width, z = a->z + (narrow ? 0.9 : 0.62);
    double x = front > 0 ? 0.5 * a->length + 0.05 : -0.5 * a->length - 0.05;
    double at[3] = {a->x + c * x - s * y, a->y + s * x + c * y, z};
    if (front > 0 && a->lamps & DJ__LAMP_HEAD) glow(r, v, k, at, 0.2, a->z, white);
    if (front <= 0 && a->lamps & (DJ__LAMP_HEAD | DJ__LAMP_BRAKE))
      glow(r, v, k, at, a->lamps & DJ__LAMP_BRAKE ? 0.2 : 0.12, a->z, red);
  }
}

static void rain(dj__renderer *r, const dj__view *v, const dj__scene *s, float amount) {
  int n = (int)(900 * amount);
  double fall = 8.5, box = 14; // m/s, m a side
  uint8_t c[4] = {200, 208, 218, 62};
  double drift = 0.12 * s->weather.wind;
  for (int k = 0; k < n; k++) {
    dj__u32x4 x = dj__philox(77, (uint64_t)k, 0);
    double p[3];
    for (int i = 0; i < 3; i++) { // a box that wraps round the camera
      double base = dj__u01(x.v[i]) * box;
      double moved = i == 2 ? base - fall * s->time : base;
      double off = fmod(moved - v->pose.p[i], box);
      p[i] = (off < 0 ? off + box : off) - 0.5 * box;
    }
    const double *R = v->pose.R;
    double z = p[0] * R[6] + p[1] * R[7] + p[2] * R[8];
    if (z < 0.9) continue;
    double w = 0.0016 + 0.0011 * z, length = 0.26;
    double low[3] = {p[0] - drift * length, p[1], p[2] - length};
    for (int i = 0; i < 3; i++)
      low[i] -= 0.018 * s->speed * (i == 0 ? cos(s->yaw) : i == 1 ? sin(s->yaw) : 0);
    double a[3], b[3], d[3], e[3];
    for (int i = 0; i < 3; i++) {
      a[i] = p[i] - R[i] * w;
      b[i] = p[i] + R[i] * w;
      d[i] = low[i] - R[i] * w;
      e[i] = low[i] + R[i] * w;
    }
    corner(r, a, c, -1, 0);
    corner(r, b, c, 1, 0);
    corner(r, e, c, 1, 0);
    corner(r, a, c, -1, 0);
    corner(r, e, c, 1, 0);
    corner(r, d, c, -1, 0);
  }
}

static bool in_front(const dj__view *v, const double p[3], double margin) {
  double z = 0;
  for (int k = 0; k < 3; k++) z += v->pose.R[6 + k] * (p[k] - v->pose.p[k]);
  return z > -margin;
}

void dj__effects(dj__renderer *r, const dj__scene *s, const dj__view *v, const dj__sky *k,
                 dj__range range[3]) {
  r->n_stream = 0;
  for (int i = 0; i < s->n_actor; i++) {
    const dj__actor *a = &s->actor[i];
    double at[3] = {a->x, a->y, a->z}, d = hypot(a->x - v->pose.p[0], a->y - v->pose.p[1]);
    if (d > 90 || !in_front(v, at, 10)) continue;
    actor_shadow(r, v, k, a, a->id == s->ego_id);
  }
  range[0] = (dj__range){0, r->n_stream};
  if (k->night > 0.05f && !r->indoor) {
    for (int i = 0; i < s->n_actor; i++) {
      const dj__actor *a = &s->actor[i];
      double at[3] = {a->x, a->y, a->z};
      if (a->id == s->ego_id || a->flags & DJ__AGENT_PARKED || !in_front(v, at, 15)) continue;
      if (a->lamps & DJ__LAMP_HEAD && a->kind <= DJ__BUS &&
          hypot(a->x - v->pose.p[0], a->y - v->pose.p[1]) < 90)
        beam_on_road(r, v, a, 0.34 * k->night);
      actor_glows(r, v, k, a);
    }
    static const uint8_t lamp[4] = {255, 226, 175, 230};
    for (int i = 0; i < r->n_lamp; i++) {
      const dj__lamp *l = &r->lamp[i];
      double at[3] = {l->x, l->y, l->z};
      if (!in_front(v, at, 0)) continue;
      glow(r, v, k, at, 0.24, l->z - 6.5, lamp);
    }
  }
  range[1] = (dj__range){range[0].count, r->n_stream - range[0].count};
  int before = r->n_stream;
  if (s->weather.rain > 0.02f && !r->indoor) rain(r, v, s, s->weather.rain);
  range[2] = (dj__range){before, r->n_stream - before};
}
