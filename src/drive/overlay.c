/* Drawings of moments and traces. Every function leaves the cairo state as it found it. */
#include "drive/overlay.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dojo/data.h"

typedef struct colour {
  double r, g, b;
} colour;
static const colour BACK = {0.075, 0.086, 0.106}, PANEL = {0.118, 0.137, 0.169},
                    LINE = {0.27, 0.31, 0.37}, INK = {0.86, 0.88, 0.91}, DIM = {0.55, 0.59, 0.65},
                    NETWORK = {0.31, 0.69, 1.0}, DRIVER = {1.0, 0.70, 0.13};

static void ink(cairo_t *c, colour k, double alpha) {
  cairo_set_source_rgba(c, k.r, k.g, k.b, alpha);
}

double dj__round_up(double v) {
  if (!(v > 0) || !isfinite(v)) return 1;
  double step = pow(10, floor(log10(v)));
  static const double stops[] = {1, 2, 5, 10};
  for (int i = 0; i < 4; i++)
    if (stops[i] * step >= v * (1 - 1e-9)) return stops[i] * step;
  return 10 * step;
}

void dj__draw_background(cairo_t *c, double w, double h) {
  ink(c, BACK, 1);
  cairo_rectangle(c, 0, 0, w, h);
  cairo_fill(c);
}

static double text_width(cairo_t *c, double size, const char *text) {
  cairo_text_extents_t e;
  cairo_select_font_face(c, "sans", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(c, size);
  cairo_text_extents(c, text, &e);
  return e.x_advance;
}

static void coloured_text(cairo_t *c, double x, double y, double size, colour k, const char *text) {
  cairo_select_font_face(c, "sans", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(c, size);
  ink(c, k, 1);
  cairo_move_to(c, x, y);
  cairo_show_text(c, text);
  cairo_new_path(c);
}

void dj__draw_text(cairo_t *c, double x, double y, double size, const char *text) {
  coloured_text(c, x, y, size, INK, text);
}

void dj__draw_legend(cairo_t *c, double x, double y, double size) {
  x -= text_width(c, size, "driver");
  coloured_text(c, x, y, size, DRIVER, "driver");
  x -= text_width(c, size, "network") + size;
  coloured_text(c, x, y, size, NETWORK, "network");
}

static void panel(cairo_t *c, dj__rect r) {
  ink(c, PANEL, 1);
  cairo_rectangle(c, r.x, r.y, r.w, r.h);
  cairo_fill(c);
}

/* The largest rectangle of w : h inside r, centred. */
static dj__rect fit(dj__rect r, double w, double h) {
  double k = fmin(r.w / w, r.h / h);
  return (dj__rect){r.x + (r.w - k * w) / 2, r.y + (r.h - k * h) / 2, k * w, k * h};
}

static void put_picture(cairo_t *c, const uint8_t *rgb, int w, int h, dj__rect r, bool smooth) {
  cairo_surface_t *s = cairo_image_surface_create(CAIRO_FORMAT_RGB24, w, h);
  unsigned char *to = cairo_image_surface_get_data(s);
  if (to) {
    int stride = cairo_image_surface_get_stride(s);
    cairo_surface_flush(s);
    for (int y = 0; y < h; y++) {
      uint32_t *row = (uint32_t *)(void *)(to + (size_t)y * (size_t)stride);
      const uint8_t *p = rgb + (size_t)y * (size_t)w * 3;
      for (int x = 0; x < w; x++)
        row[x] = (uint32_t)p[3 * x] << 16 | (uint32_t)p[3 * x + 1] << 8 | p[3 * x + 2];
    }
    cairo_surface_mark_dirty(s);
    cairo_save(c);
    cairo_translate(c, r.x, r.y);
    cairo_scale(c, r.w / w, r.h / h);
    cairo_set_source_surface(c, s, 0, 0);
    cairo_pattern_set_filter(cairo_get_source(c),
                             smooth ? CAIRO_FILTER_GOOD : CAIRO_FILTER_NEAREST);
    cairo_pattern_set_extend(cairo_get_source(c), CAIRO_EXTEND_PAD);
    cairo_rectangle(c, 0, 0, w, h);
    cairo_fill(c);
    cairo_restore(c);
  }
  cairo_surface_destroy(s);
}

/* ---- paths in the picture ---- */

typedef struct lens { // vehicle frame to pixels of the drawing
  const dj_camera *camera;
  double to_camera[9]; // row-major, vehicle to camera
  double scale, x, y;
} lens;

static lens make_lens(const dj__moment *m, dj__rect at) {
  lens l = {.camera = m->camera, .scale = at.w / m->w, .x = at.x, .y = at.y};
  const double *q = m->camera->rotation, x = q[0], y = q[1], z = q[2], w = q[3];
  const double r[9] = {1 - 2 * (y * y + z * z), 2 * (x * y - z * w),     2 * (x * z + y * w),
                       2 * (x * y + z * w),     1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
                       2 * (x * z - y * w),     2 * (y * z + x * w),     1 - 2 * (x * x + y * y)};
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++) l.to_camera[3 * i + j] = r[3 * j + i];
  return l;
}

/* False for a point too near to the camera's plane, or behind. */
static bool project(const lens *l, double x, double y, double *u, double *v) {
  const double d[3] = {x - l->camera->position[0], y - l->camera->position[1],
                       -l->camera->position[2]};
  double p[3];
  for (int i = 0; i < 3; i++)
    p[i] = l->to_camera[3 * i] * d[0] + l->to_camera[3 * i + 1] * d[1] +
           l->to_camera[3 * i + 2] * d[2];
  if (p[2] < 0.2) return false;
  *u = l->x + l->scale * (l->camera->K[0] * p[0] / p[2] + l->camera->K[2] + 0.5);
  *v = l->y + l->scale * (l->camera->K[4] * p[1] / p[2] + l->camera->K[5] + 0.5);
  return true;
}

/* xy: n points; every second value from stride on. A ribbon as wide as a vehicle, two half widths.
 */
static void ribbon(cairo_t *c, const lens *l, const float *xy, int stride, int n, colour k,
                   double alpha) {
  double half = fmin(0.8, fmax(0.05, 0.5 * l->camera->position[2]));
  double left[DJ_PATH_POINTS][2], right[DJ_PATH_POINTS][2];
  int m = 0;
  for (int i = 0; i < n; i++) {
    const float *a = xy + (i ? i - 1 : 0) * stride, *b = xy + (i + 1 < n ? i + 1 : i) * stride;
    double dx = (double)(b[0] - a[0]), dy = (double)(b[1] - a[1]), d = hypot(dx, dy);
    double nx = d > 1e-6 ? -dy / d : 0, ny = d > 1e-6 ? dx / d : 1;
    double x = (double)xy[i * stride], y = (double)xy[i * stride + 1];
    if (project(l, x + half * nx, y + half * ny, &left[m][0], &left[m][1]) &&
        project(l, x - half * nx, y - half * ny, &right[m][0], &right[m][1]))
      m++;
  }
  if (m < 2) return;
  cairo_new_path(c);
  for (int i = 0; i < m; i++) cairo_line_to(c, left[i][0], left[i][1]);
  for (int i = m - 1; i >= 0; i--) cairo_line_to(c, right[i][0], right[i][1]);
  cairo_close_path(c);
  ink(c, k, alpha);
  cairo_fill(c);
  ink(c, k, 0.9);
  cairo_set_line_width(c, 2);
  for (int i = 0; i < m; i++) cairo_line_to(c, left[i][0], left[i][1]);
  cairo_stroke(c);
  for (int i = 0; i < m; i++) cairo_line_to(c, right[i][0], right[i][1]);
  cairo_stroke(c);
}

static int known_points(const dj__moment *m) {
  int n = 0;
  if (m->driver_path && m->driver_mask)
    while (n < DJ_PATH_POINTS && m->driver_mask[n] > 0) n++;
  return n;
}

static void pointer(cairo_t *c, double steering, dj__rect at, colour k) {
  if (isnan(steering)) return;
  double a = fmax(-1, fmin(1, steering)) * 1.1, length = 0.42 * at.h;
  double x = at.x + at.w / 2, y = at.y + at.h;
  for (int pass = 0; pass < 2; pass++) { // a dark edge, for bright floors
    cairo_set_line_width(c, (pass ? 0.014 : 0.026) * at.h);
    cairo_set_line_cap(c, CAIRO_LINE_CAP_ROUND);
    cairo_move_to(c, x, y);
    cairo_curve_to(c, x, y - 0.4 * length, x - 0.35 * length * sin(a), y - 0.7 * length,
                   x - length * sin(a), y - length * cos(a));
    if (pass)
      ink(c, k, 0.95);
    else
      ink(c, BACK, 0.55);
    cairo_stroke(c);
  }
}

static void shade_unseen(cairo_t *c, const dj__moment *m, dj__rect at) {
  double l = at.x + (double)m->crop[0] * at.w, t = at.y + (double)m->crop[1] * at.h;
  double w = at.w * (1 - (double)(m->crop[0] + m->crop[2]));
  double h = at.h * (1 - (double)(m->crop[1] + m->crop[3]));
  cairo_save(c);
  cairo_set_fill_rule(c, CAIRO_FILL_RULE_EVEN_ODD);
  cairo_rectangle(c, at.x, at.y, at.w, at.h);
  cairo_rectangle(c, l, t, w, h);
  ink(c, BACK, 0.35);
  cairo_fill(c);
  cairo_restore(c);
}

dj__rect dj__draw_scene(cairo_t *c, const dj__moment *m, dj__rect r) {
  dj__rect at = fit(r, m->w, m->h);
  put_picture(c, m->picture, m->w, m->h, at, true);
  shade_unseen(c, m, at);
  cairo_save(c);
  cairo_rectangle(c, at.x, at.y, at.w, at.h);
  cairo_clip(c);
  bool paths = m->network_path || known_points(m) > 1;
  if (paths && m->camera && m->camera->position[2] > 0) {
    lens l = make_lens(m, at);
    ribbon(c, &l, m->driver_path, 3, known_points(m), DRIVER, 0.18);
    if (m->network_path) ribbon(c, &l, m->network_path, 2, DJ_PATH_POINTS, NETWORK, 0.28);
  } else {
    pointer(c, m->driver, at, DRIVER);
    pointer(c, m->network, at, NETWORK);
  }
  cairo_restore(c);
  return at;
}

void dj__draw_input(cairo_t *c, const dj__moment *m, dj__rect r) {
  put_picture(c, m->input, m->input_w, m->input_h, fit(r, m->input_w, m->input_h), false);
}

/* ---- map ---- */

void dj__draw_map(cairo_t *c, const dj__moment *m, double ahead, dj__rect r) {
  panel(c, r);
  double k = 0.88 * r.h / ahead, x0 = r.x + r.w / 2, y0 = r.y + 0.94 * r.h;
  cairo_save(c);
  cairo_rectangle(c, r.x, r.y, r.w, r.h);
  cairo_clip(c);
  cairo_set_line_width(c, 1);
  double step = dj__round_up(ahead / 6);
  for (int i = 1; i * step <= ahead * 1.05; i++) {
    char text[32];
    double d = i * step;
    (void)snprintf(text, sizeof text, "%g m", d);
    ink(c, LINE, 1);
    cairo_arc(c, x0, y0, d * k, -M_PI, 0);
    cairo_stroke(c);
    coloured_text(c, r.x + 6, fmax(r.y + 14, y0 - d * k + 4), 11, DIM, text);
  }
  if (m->network_path && m->network_lb) { // +- one scale to the side
    cairo_new_path(c);
    for (int i = 0; i < DJ_PATH_POINTS; i++) {
      double y = (double)m->network_path[2 * i + 1] + exp((double)m->network_lb[2 * i + 1]);
      cairo_line_to(c, x0 - y * k, y0 - (double)m->network_path[2 * i] * k);
    }
    for (int i = DJ_PATH_POINTS - 1; i >= 0; i--) {
      double y = (double)m->network_path[2 * i + 1] - exp((double)m->network_lb[2 * i + 1]);
      cairo_line_to(c, x0 - y * k, y0 - (double)m->network_path[2 * i] * k);
    }
    cairo_close_path(c);
    ink(c, NETWORK, 0.22);
    cairo_fill(c);
  }
  cairo_set_line_width(c, 3);
  ink(c, DRIVER, 1);
  for (int i = 0, n = known_points(m); i < n; i++)
    cairo_line_to(c, x0 - (double)m->driver_path[3 * i + 1] * k,
                  y0 - (double)m->driver_path[3 * i] * k);
  cairo_stroke(c);
  ink(c, NETWORK, 1);
  for (int i = 0; i < DJ_PATH_POINTS && m->network_path; i++)
    cairo_line_to(c, x0 - (double)m->network_path[2 * i + 1] * k,
                  y0 - (double)m->network_path[2 * i] * k);
  cairo_stroke(c);
  ink(c, INK, 1); // the vehicle
  cairo_move_to(c, x0, y0 - 8);
  cairo_line_to(c, x0 - 6, y0 + 7);
  cairo_line_to(c, x0 + 6, y0 + 7);
  cairo_close_path(c);
  cairo_fill(c);
  if (!isnan(m->speed)) {
    char text[48];
    (void)snprintf(text, sizeof text, "%.1f m/s", m->speed);
    coloured_text(c, r.x + r.w - 8 - text_width(c, 13, text), r.y + r.h - 10, 13, INK, text);
  }
  cairo_restore(c);
}

/* ---- steering ---- */

static void figure_text(char text[48], double v) {
  if (isnan(v))
    (void)snprintf(text, 48, "unknown");
  else
    (void)snprintf(text, 48, "%.2f %s", fabs(v),
                   v > 0.005    ? "left"
                   : v < -0.005 ? "right"
                                : "ahead");
}

static void wheel(cairo_t *c, double x, double y, double radius, double steering, colour k) {
  cairo_save(c);
  cairo_translate(c, x, y);
  cairo_rotate(c, isnan(steering) ? 0 : -fmax(-1, fmin(1, steering)) * 2.4);
  ink(c, k, isnan(steering) ? 0.25 : 1);
  cairo_set_line_width(c, 0.14 * radius);
  cairo_arc(c, 0, 0, 0.9 * radius, 0, 2 * M_PI);
  cairo_stroke(c);
  cairo_set_line_width(c, 0.12 * radius);
  for (int i = 0; i < 3; i++) { // spokes to left, right and down
    double a = i * M_PI / 2;
    cairo_move_to(c, 0, 0);
    cairo_line_to(c, 0.86 * radius * cos(a), 0.86 * radius * sin(a));
  }
  cairo_stroke(c);
  cairo_arc(c, 0, 0, 0.22 * radius, 0, 2 * M_PI);
  cairo_fill(c);
  ink(c, INK, 0.9); // the mark at the top
  cairo_rectangle(c, -0.05 * radius, -radius, 0.1 * radius, 0.2 * radius);
  cairo_fill(c);
  cairo_restore(c);
}

void dj__draw_wheels(cairo_t *c, const dj__moment *m, dj__rect r) {
  panel(c, r);
  double radius = fmin(r.w / 4 - 16, (r.h - 72) / 2), y = r.y + 36 + radius;
  const double v[2] = {m->network, m->driver};
  static const char *const names[2] = {"network", "driver"};
  const colour k[2] = {NETWORK, DRIVER};
  for (int i = 0; i < 2 && radius > 4; i++) {
    double x = r.x + r.w * (0.25 + 0.5 * i);
    char text[48];
    figure_text(text, v[i]);
    coloured_text(c, x - text_width(c, 14, names[i]) / 2, r.y + 22, 14, k[i], names[i]);
    wheel(c, x, y, radius, v[i], k[i]);
    coloured_text(c, x - text_width(c, 14, text) / 2, y + radius + 24, 14, INK, text);
  }
}

static void mark(cairo_t *c, dj__rect r, double v, colour k) {
  if (isnan(v)) return;
  double x = r.x + r.w * (0.5 - 0.5 * fmax(-1, fmin(1, v)));
  ink(c, k, 1);
  cairo_rectangle(c, x - 2.5, r.y, 5, r.h);
  cairo_fill(c);
}

void dj__draw_bar(cairo_t *c, const dj__moment *m, dj__rect r) {
  panel(c, r);
  if (!isnan(m->network) && !isnan(m->scale)) {
    double a = fmin(1, m->network + m->scale), b = fmax(-1, m->network - m->scale);
    ink(c, NETWORK, 0.3);
    cairo_rectangle(c, r.x + r.w * (0.5 - 0.5 * a), r.y, r.w * 0.5 * (a - b), r.h);
    cairo_fill(c);
  }
  ink(c, DIM, 1);
  cairo_rectangle(c, r.x + r.w / 2 - 0.5, r.y, 1, r.h);
  cairo_fill(c);
  mark(c, (dj__rect){r.x, r.y, r.w, r.h / 2}, m->network, NETWORK);
  mark(c, (dj__rect){r.x, r.y + r.h / 2, r.w, r.h / 2}, m->driver, DRIVER);
}

/* ---- traces ---- */

typedef struct axes {
  dj__rect r;
  double t0, t1, range;
} axes;

static double at_x(const axes *a, double t) {
  return a->r.x + a->r.w * (t - a->t0) / (a->t1 - a->t0);
}

static double at_y(const axes *a, double v) {
  return a->r.y + a->r.h * (0.5 - 0.5 * v / a->range);
}

static void grid(cairo_t *c, const axes *a, const char *title) {
  cairo_set_line_width(c, 1);
  for (int i = -1; i <= 1; i++) {
    double y = floor(at_y(a, 0.8 * i * a->range)) + 0.5;
    char text[32];
    ink(c, LINE, 1);
    cairo_move_to(c, a->r.x, y);
    cairo_line_to(c, a->r.x + a->r.w, y);
    cairo_stroke(c);
    (void)snprintf(text, sizeof text, "%g", 0.8 * i * a->range);
    coloured_text(c, a->r.x + 4, y - 3, 11, DIM, text);
  }
  double step = dj__round_up((a->t1 - a->t0) / 16);
  for (long i = (long)ceil(a->t0 / step); (double)i * step <= a->t1; i++) {
    char text[32];
    double t = (double)i * step;
    (void)snprintf(text, sizeof text, "%g s", t);
    if (t >= 0 && at_x(a, t) < a->r.x + a->r.w - 30)
      coloured_text(c, at_x(a, t) + 2, a->r.y + a->r.h - 4, 10, DIM, text);
  }
  coloured_text(c, a->r.x + 44, a->r.y + 14, 12, INK, title);
}

/* First sample at or after t. */
static size_t first_at(const dj__trace *s, double t) {
  size_t lo = 0, hi = s->n;
  while (lo < hi) {
    size_t mid = lo + (hi - lo) / 2;
    if (s->t[mid] < t)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

static void line(cairo_t *c, const axes *a, const dj__trace *s, const double *v, size_t from,
                 size_t to, colour k) {
  ink(c, k, 1);
  cairo_set_line_width(c, 2);
  cairo_set_line_join(c, CAIRO_LINE_JOIN_ROUND);
  for (size_t i = from; i < to; i++) {
    if (isnan(v[i]) || (i > from && s->piece[i] != s->piece[i - 1])) cairo_new_sub_path(c);
    if (!isnan(v[i])) cairo_line_to(c, at_x(a, s->t[i]), at_y(a, v[i]));
  }
  cairo_stroke(c);
}

static void band(cairo_t *c, const axes *a, const dj__trace *s, size_t from, size_t to) {
  for (size_t i = from; i < to;) {
    size_t j = i;
    while (j < to && !isnan(s->network[j]) && !isnan(s->scale[j]) && s->piece[j] == s->piece[i])
      j++;
    if (j > i + 1) {
      cairo_new_path(c);
      for (size_t q = i; q < j; q++)
        cairo_line_to(c, at_x(a, s->t[q]), at_y(a, s->network[q] + s->scale[q]));
      for (size_t q = j; q-- > i;)
        cairo_line_to(c, at_x(a, s->t[q]), at_y(a, s->network[q] - s->scale[q]));
      cairo_close_path(c);
      ink(c, NETWORK, 0.22);
      cairo_fill(c);
    }
    i = j > i ? j : i + 1;
  }
}

void dj__draw_trace(cairo_t *c, const dj__trace *s, double t0, double t1, double now, dj__rect r) {
  axes a = {r, t0, t1 > t0 ? t1 : t0 + 1, 1.25 * (s->range > 0 ? s->range : 1)};
  panel(c, r);
  cairo_save(c);
  cairo_rectangle(c, r.x, r.y, r.w, r.h);
  cairo_clip(c);
  grid(c, &a, s->title);
  size_t from = first_at(s, a.t0), to = first_at(s, a.t1);
  if (from) from--;
  if (to < s->n) to++;
  size_t said = isnan(now) ? to : first_at(s, nextafter(now, INFINITY));
  if (said > to) said = to;
  band(c, &a, s, from, said);
  line(c, &a, s, s->driver, from, to, DRIVER);
  line(c, &a, s, s->network, from, said, NETWORK);
  if (!isnan(now)) {
    ink(c, INK, 0.8);
    cairo_set_line_width(c, 1);
    cairo_move_to(c, floor(at_x(&a, now)) + 0.5, r.y);
    cairo_line_to(c, floor(at_x(&a, now)) + 0.5, r.y + r.h);
    cairo_stroke(c);
  }
  cairo_restore(c);
}

/* ---- samples ---- */

static dj_status take_pixels(cairo_surface_t *s, int w, int h, uint8_t **rgb) {
  cairo_surface_flush(s);
  const unsigned char *from = cairo_image_surface_get_data(s);
  uint8_t *to = from ? malloc((size_t)w * (size_t)h * 3) : NULL;
  if (!to) return dj_error(DJ_E_NOMEM, "no memory for a picture of %d x %d", w, h);
  size_t stride = (size_t)cairo_image_surface_get_stride(s);
  for (int y = 0; y < h; y++)
    for (int x = 0; x < w; x++) {
      uint32_t p;
      memcpy(&p, from + (size_t)y * stride + 4 * (size_t)x, sizeof p);
      uint8_t *out = to + ((size_t)y * (size_t)w + (size_t)x) * 3;
      out[0] = (uint8_t)(p >> 16);
      out[1] = (uint8_t)(p >> 8);
      out[2] = (uint8_t)p;
    }
  *rgb = to;
  return DJ_OK;
}

dj_status dj__draw_sample(const dj__moment *m, uint8_t **rgb, int *w, int *h) {
  enum { WIDTH = 320, BAR = 12, MAP = 200 };
  int scene = (int)lround(fmin(WIDTH, WIDTH * (double)m->h / m->w));
  bool steered = !isnan(m->driver) || !isnan(m->network);
  *rgb = NULL;
  *w = WIDTH;
  *h = scene + (steered ? BAR : 0) + (m->network_path ? MAP : 0);
  cairo_surface_t *s = cairo_image_surface_create(CAIRO_FORMAT_RGB24, *w, *h);
  cairo_t *c = cairo_create(s);
  dj__draw_background(c, *w, *h);
  dj__draw_scene(c, m, (dj__rect){0, 0, WIDTH, scene});
  if (steered) dj__draw_bar(c, m, (dj__rect){0, scene, WIDTH, BAR});
  double ahead = 5;
  for (int i = 0; i < DJ_PATH_POINTS && m->network_path; i++)
    ahead = fmax(ahead, fmin(400, (double)m->network_path[2 * i]));
  if (m->network_path) dj__draw_map(c, m, dj__round_up(ahead), (dj__rect){0, *h - MAP, WIDTH, MAP});
  cairo_destroy(c);
  dj_status st = take_pixels(s, *w, *h, rgb);
  cairo_surface_destroy(s);
  return st;
}
