/*
 * Towns from above, with cairo. Lanes are drawn as strips of their points; marks from the OpenDRIVE
 * side; junctions as their outlines. Layers in order: ground shaded by its slope, pavements,
 * asphalt, paint, signals, route, agents.
 */
#include "world/map_draw.h"

#include <cairo.h>
#include <math.h>
#include <stdlib.h>

#include "world/map_build.h"

typedef struct canvas {
  cairo_t *c;
  double scale, x0, y1; /* px a metre; what lies at the top left */
  const dj__map *m;
} canvas;

static void go(const canvas *k, double x, double y, bool first) {
  (first ? cairo_move_to : cairo_line_to)(k->c, (x - k->x0) * k->scale, (k->y1 - y) * k->scale);
}

/* ---- ground ---- */
static double relief(const canvas *k, double x, double y, double step) {
  return dj__map_ground(k->m, x + step, y) - dj__map_ground(k->m, x, y) -
         (dj__map_ground(k->m, x, y + step) - dj__map_ground(k->m, x, y));
}

static void draw_ground(const canvas *k, int w, int h) {
  bool indoors = k->m->n_road > 0 && k->m->road[0].zone == DJ__ZONE_TRACK;
  if (indoors)
    cairo_set_source_rgb(k->c, 0.52, 0.46, 0.40);
  else
    cairo_set_source_rgb(k->c, 0.56, 0.66, 0.46);
  cairo_paint(k->c);
  if (indoors) return;
  int px = 6;
  for (int j = 0; j < h; j += px)
    for (int i = 0; i < w; i += px) {
      double x = k->x0 + (i + 0.5 * px) / k->scale, y = k->y1 - (j + 0.5 * px) / k->scale;
      double shade = 1.6 * relief(k, x, y, 6) / 6;
      if (fabs(shade) < 0.008) continue;
      cairo_set_source_rgba(k->c, shade > 0 ? 1 : 0, shade > 0 ? 1 : 0, shade > 0 ? 0.8 : 0.1,
                            fmin(fabs(shade), 0.35));
      cairo_rectangle(k->c, i, j, px, px);
      cairo_fill(k->c);
    }
}

/* ---- surfaces ---- */
static void strip_path(const canvas *k, const dj__lane *l) {
  const dj__lane_point *p = k->m->point + l->point0;
  for (int side = 0; side < 2; side++)
    for (int i = 0; i < l->n_point; i++) {
      const dj__lane_point *q = &p[side ? l->n_point - 1 - i : i];
      double t = (side ? -0.5 : 0.5) * q->width;
      go(k, q->x - t * sin(q->yaw), q->y + t * cos(q->yaw), side == 0 && i == 0);
    }
  cairo_close_path(k->c);
}

static void fill_lanes(const canvas *k, uint32_t types, double grey, double r, double g, double b) {
  for (int i = 0; i < k->m->n_lane; i++) {
    if (!(types >> k->m->lane[i].type & 1)) continue;
    strip_path(k, &k->m->lane[i]);
    cairo_set_source_rgb(k->c, r * grey, g * grey, b * grey);
    cairo_fill_preserve(k->c); /* a hair wider: no seams between strips */
    cairo_set_line_width(k->c, 0.6);
    cairo_stroke(k->c);
  }
}

static void fill_road_lane(const canvas *k, int road, int section, int lane) {
  double s0 = k->m->section[section].s, s1 = dj__section_end(k->m, road, section);
  int n = 2 + (int)((s1 - s0) / 2);
  for (int side = 0; side < 2; side++)
    for (int i = 0; i <= n; i++) {
      double s = s0 + (s1 - s0) * (side ? n - i : i) / n, in, out;
      dj__pose p;
      dj__road_at(k->m, road, s, &p);
      dj__lane_edges(k->m, road, section, lane, s, &in, &out);
      double t = side ? out : in;
      go(k, p.x - t * sin(p.hdg), p.y + t * cos(p.hdg), side == 0 && i == 0);
    }
  cairo_close_path(k->c);
  cairo_fill(k->c);
}

static void fill_medians(const canvas *k) {
  const dj__map *m = k->m;
  for (int r = 0; r < m->n_road; r++)
    for (int j = m->road[r].section0; j < m->road[r].section0 + m->road[r].n_section; j++)
      for (int i = m->section[j].lane0; i < m->section[j].lane0 + m->section[j].n_lane; i++) {
        dj__lane_type t = m->road_lane[i].type;
        if (t != DJ__LANE_MEDIAN && t != DJ__LANE_BORDER && t != DJ__LANE_RESTRICTED) continue;
        cairo_set_source_rgb(k->c, 0.50, 0.60, 0.42);
        fill_road_lane(k, r, j, i);
      }
}

static void fill_junctions(const canvas *k) {
  for (int j = 0; j < k->m->n_junction; j++) {
    const dj__junction *o = &k->m->junction[j];
    for (int i = 0; i < o->n_outline; i++)
      go(k, k->m->outline[o->outline0 + i][0], k->m->outline[o->outline0 + i][1], i == 0);
    cairo_set_source_rgb(k->c, 0.34, 0.34, 0.36);
    cairo_fill(k->c);
  }
}

/* ---- paint ---- */
static void stroke_mark(const canvas *k, int road, double s0, double s1, int section, int lane,
                        double shift) {
  int n = 2 + (int)fmax((s1 - s0) / 1.5, fmin((s1 - s0) * k->scale / 8, 400));
  for (int i = 0; i <= n; i++) {
    double s = s0 + (s1 - s0) * i / n, in, out;
    dj__pose p;
    dj__road_at(k->m, road, s, &p);
    dj__lane_edges(k->m, road, section, lane, s, &in, &out);
    double t = out + shift;
    go(k, p.x - t * sin(p.hdg), p.y + t * cos(p.hdg), i == 0);
  }
  cairo_stroke(k->c);
}

static void draw_mark(const canvas *k, int road, int section, int lane, const dj__road_mark *a,
                      double s0, double s1) {
  dj__zone zone = k->m->road[road].zone;
  double on = zone == DJ__ZONE_MOTORWAY ? 6 : zone == DJ__ZONE_RURAL ? 4 : 3, off = 2 * on;
  if (zone == DJ__ZONE_TRACK) on = off = 0.25;
  double dash[2] = {on * k->scale, off * k->scale};
  int id = k->m->road_lane[lane].id;
  bool two = a->type == DJ__MARK_SOLID_SOLID || a->type == DJ__MARK_SOLID_BROKEN ||
             a->type == DJ__MARK_BROKEN_SOLID;
  if (a->type == DJ__MARK_CURB)
    cairo_set_source_rgb(k->c, 0.80, 0.80, 0.78);
  else if (a->yellow)
    cairo_set_source_rgb(k->c, 0.93, 0.76, 0.22);
  else
    cairo_set_source_rgb(k->c, 0.95, 0.95, 0.93);
  double width = a->type == DJ__MARK_CURB ? 0.2 : a->width > 0 ? a->width : 0.12;
  cairo_set_line_width(k->c, fmax(width * k->scale, zone == DJ__ZONE_TRACK ? 1 : 0.5));
  for (int line = 0; line < 1 + two; line++) { /* line 0 is the outer one */
    bool broken = a->type == DJ__MARK_BROKEN || (a->type == DJ__MARK_SOLID_BROKEN && line == 0) ||
                  (a->type == DJ__MARK_BROKEN_SOLID && line == 1);
    cairo_set_dash(k->c, dash, broken ? 2 : 0, 0);
    double side = id > 0 ? 1 : -1;
    stroke_mark(k, road, s0, s1, section, lane, two ? side * (line ? -width : width) : 0);
  }
  cairo_set_dash(k->c, dash, 0, 0);
}

static void draw_marks(const canvas *k) {
  const dj__map *m = k->m;
  for (int r = 0; r < m->n_road; r++)
    for (int j = m->road[r].section0; j < m->road[r].section0 + m->road[r].n_section; j++) {
      double end = dj__section_end(m, r, j);
      for (int i = m->section[j].lane0; i < m->section[j].lane0 + m->section[j].n_lane; i++)
        for (int a = 0; a < m->road_lane[i].n_mark; a++) {
          const dj__road_mark *v = &m->mark[m->road_lane[i].mark0 + a];
          double s0 = m->section[j].s + v->s,
                 s1 = a + 1 < m->road_lane[i].n_mark ? m->section[j].s + v[1].s : end;
          if (v->type != DJ__MARK_NONE && s1 > s0) draw_mark(k, r, j, i, v, s0, s1);
        }
      if (m->road[r].zone == DJ__ZONE_TRACK) { /* in the middle of the lane */
        const dj__road_mark middle = {.type = DJ__MARK_BROKEN, .yellow = true, .width = 0.04};
        double half = 0.5 * dj__lane_width(m, j, m->section[j].lane0 + m->section[j].n_lane - 1,
                                           m->section[j].s);
        double dash[2] = {0.28 * k->scale, 0.22 * k->scale};
        cairo_set_source_rgb(k->c, 0.93, 0.76, 0.22);
        cairo_set_line_width(k->c, fmax(middle.width * k->scale, 1));
        cairo_set_dash(k->c, dash, 2, 0);
        stroke_mark(k, r, m->section[j].s, end, j, m->section[j].lane0 + m->section[j].n_lane - 1,
                    half);
        cairo_set_dash(k->c, dash, 0, 0);
      }
    }
}

static void draw_stops(const canvas *k) {
  for (int i = 0; i < k->m->n_stop; i++) {
    const dj__stop_line *p = &k->m->stop[i];
    if (p->control == DJ__CONTROL_NONE || p->control == DJ__CONTROL_PRIORITY) continue;
    dj__place a;
    dj__map_at(k->m, p->lane, p->s, 0, &a);
    double w = 0.5 * a.width;
    go(k, a.x - w * sin(a.yaw), a.y + w * cos(a.yaw), true);
    go(k, a.x + w * sin(a.yaw), a.y - w * cos(a.yaw), false);
    cairo_set_source_rgb(k->c, 0.95, 0.95, 0.93);
    double dash[2] = {0.5 * k->scale, 0.3 * k->scale};
    cairo_set_dash(k->c, dash, p->control == DJ__CONTROL_GIVE_WAY ? 2 : 0, 0);
    cairo_set_line_width(k->c, fmax(0.4 * k->scale, 0.6));
    cairo_stroke(k->c);
    cairo_set_dash(k->c, dash, 0, 0);
  }
}

static void draw_crossings(const canvas *k) {
  for (int i = 0; i < k->m->n_crossing; i++) {
    const dj__crossing *c = &k->m->crossing[i];
    double dx = c->x1 - c->x0, dy = c->y1 - c->y0, length = hypot(dx, dy);
    if (length < 0.5) continue;
    dx /= length;
    dy /= length;
    cairo_set_source_rgb(k->c, 0.95, 0.95, 0.93);
    cairo_set_line_width(k->c, 0.5 * k->scale);
    for (int k0 = 0; k0 + 0.5 < length; k0++) {
      double s = k0 + 0.5, x = c->x0 + s * dx, y = c->y0 + s * dy, w = 0.5 * c->width;
      go(k, x - w * dy, y + w * dx, true);
      go(k, x + w * dy, y - w * dx, false);
      cairo_stroke(k->c);
    }
  }
}

static void signal_colour(const canvas *k, const dj__signal *g, double time) {
  cairo_t *c = k->c;
  switch (g->kind) {
  case DJ__SIGNAL_STOP:
    cairo_set_source_rgb(c, 0.75, 0.05, 0.1);
    return;
  case DJ__SIGNAL_GIVE_WAY:
    cairo_set_source_rgb(c, 1, 0.5, 0.5);
    return;
  case DJ__SIGNAL_PRIORITY:
    cairo_set_source_rgb(c, 1, 0.85, 0.1);
    return;
  case DJ__SIGNAL_SPEED:
    cairo_set_source_rgb(c, 0.85, 0.3, 0.8);
    return;
  case DJ__SIGNAL_LIGHT:
    break;
  default:
    cairo_set_source_rgb(c, 0.2, 0.3, 0.9);
    return;
  }
  switch (dj__map_light(k->m, g->stop, time)) {
  case DJ__LIGHT_GREEN:
    cairo_set_source_rgb(c, 0.1, 0.85, 0.2);
    return;
  case DJ__LIGHT_YELLOW:
    cairo_set_source_rgb(c, 1, 0.8, 0);
    return;
  case DJ__LIGHT_RED_YELLOW:
    cairo_set_source_rgb(c, 1, 0.5, 0);
    return;
  case DJ__LIGHT_RED:
    cairo_set_source_rgb(c, 1, 0.1, 0.1);
    return;
  default:
    cairo_set_source_rgb(c, 0.1, 0.1, 0.1);
  }
}

static void draw_signals(const canvas *k, double time) {
  for (int i = 0; i < k->m->n_signal; i++) {
    const dj__signal *g = &k->m->signal[i];
    double r = fmax(0.9 * k->scale, 1.2);
    cairo_arc(k->c, (g->x - k->x0) * k->scale, (k->y1 - g->y) * k->scale, r, 0, 2 * M_PI);
    signal_colour(k, g, time);
    cairo_fill_preserve(k->c);
    cairo_set_source_rgb(k->c, 0.1, 0.1, 0.1);
    cairo_set_line_width(k->c, fmax(0.15 * k->scale, 0.3));
    cairo_stroke(k->c);
  }
}

/* ---- on top ---- */
static void draw_route(const canvas *k, const dj__route *r) {
  cairo_set_source_rgba(k->c, 0.15, 0.45, 1, 0.75);
  cairo_set_line_width(k->c, fmax(1.3 * k->scale, 2));
  cairo_set_line_join(k->c, CAIRO_LINE_JOIN_ROUND);
  bool first = true;
  for (int i = 0; i < r->n; i++) {
    const dj__lane *l = &k->m->lane[r->lane[i]];
    bool change = i + 1 < r->n && (r->lane[i + 1] == l->left || r->lane[i + 1] == l->right);
    double s0 = i == 0 ? r->start : 0, s1 = i + 1 == r->n ? r->end : l->length;
    if (change) s1 = fmin(s1, s0 + 0.4 * l->length);
    if (i > 0 && (k->m->lane[r->lane[i - 1]].left == r->lane[i] ||
                  k->m->lane[r->lane[i - 1]].right == r->lane[i]))
      s0 = 0.6 * l->length;
    for (int n = 0; n <= 20; n++) {
      dj__place p;
      dj__map_at(k->m, r->lane[i], s0 + (s1 - s0) * n / 20, 0, &p);
      go(k, p.x, p.y, first);
      first = false;
    }
  }
  cairo_stroke(k->c);
}

static void draw_boxes(const canvas *k, const dj__map_box *box, int n) {
  for (int i = 0; i < n; i++) {
    const dj__map_box *b = &box[i];
    double c = cos(b->yaw), s = sin(b->yaw);
    for (int q = 0; q < 5; q++) { /* with a pointed front */
      static const double shape[5][2] = {
          {-0.5, -0.5}, {0.38, -0.5}, {0.5, 0}, {0.38, 0.5}, {-0.5, 0.5}};
      double u = shape[q][0] * b->length, v = shape[q][1] * b->width;
      go(k, b->x + c * u - s * v, b->y + s * u + c * v, q == 0);
    }
    cairo_close_path(k->c);
    cairo_set_source_rgb(k->c, b->rgb[0], b->rgb[1], b->rgb[2]);
    cairo_fill_preserve(k->c);
    cairo_set_source_rgb(k->c, 0.08, 0.08, 0.1);
    cairo_set_line_width(k->c, fmax(0.12 * k->scale, 0.5));
    cairo_stroke(k->c);
  }
}

static void draw_graph(const canvas *k) {
  for (int i = 0; i < k->m->n_lane; i++) {
    const dj__lane *l = &k->m->lane[i];
    if (l->type != DJ__LANE_DRIVING && l->type != DJ__LANE_BIKING) continue;
    const dj__lane_point *p = k->m->point + l->point0;
    for (int n = 0; n < l->n_point; n++) go(k, p[n].x, p[n].y, n == 0);
    if (l->type == DJ__LANE_BIKING)
      cairo_set_source_rgba(k->c, 0.2, 0.9, 0.4, 0.8);
    else if (l->n_succ == 0 || l->n_pred == 0)
      cairo_set_source_rgba(k->c, 1, 0, 0, 1);
    else
      cairo_set_source_rgba(k->c, 0.2, 0.8, 1, 0.8);
    cairo_set_line_width(k->c, fmax(0.15 * k->scale, 0.5));
    cairo_stroke(k->c);
  }
}

static void draw_all(const canvas *k, int w, int h, const dj__map_draw_options *o) {
  draw_ground(k, w, h);
  fill_lanes(k, 1u << DJ__LANE_SIDEWALK, 1, 0.70, 0.69, 0.66);
  fill_junctions(k);
  fill_lanes(k, 1u << DJ__LANE_SHOULDER, 1, 0.42, 0.41, 0.40);
  fill_lanes(k, 1u << DJ__LANE_PARKING, 1, 0.43, 0.43, 0.46);
  fill_lanes(k, 1u << DJ__LANE_BIKING, 1, 0.52, 0.33, 0.31);
  fill_lanes(k, 1u << DJ__LANE_DRIVING, 1, 0.34, 0.34, 0.36);
  fill_medians(k);
  draw_marks(k);
  draw_crossings(k);
  draw_stops(k);
  draw_signals(k, o->time);
  if (o->lanes) draw_graph(k);
  if (o->route) draw_route(k, o->route);
  draw_boxes(k, o->box, o->n_box);
}

dj_status dj__map_draw(const dj__map *m, int width_px, const char *png_path,
                       const dj__map_draw_options *o) {
  static const dj__map_draw_options none = {0};
  o = o ? o : &none;
  if (width_px < 64 || width_px > 8192)
    return dj_error(DJ_E_INVALID, "a picture of %d pixels across: must be 64 to 8192", width_px);
  double x0 = o->x0, y0 = o->y0, x1 = o->x1, y1 = o->y1;
  if (x0 == 0 && y0 == 0 && x1 == 0 && y1 == 0) {
    double edge = fmin(25, 0.08 * fmax(m->x1 - m->x0, m->y1 - m->y0)) + 0.5;
    x0 = m->x0 - edge;
    y0 = m->y0 - edge;
    x1 = m->x1 + edge;
    y1 = m->y1 + edge;
  }
  if (!(x1 > x0 && y1 > y0))
    return dj_error(DJ_E_INVALID, "part to draw %g..%g, %g..%g is empty", x0, x1, y0, y1);
  canvas k = {.scale = width_px / (x1 - x0), .x0 = x0, .y1 = y1, .m = m};
  int h = (int)fmax(1, fmin(16384, round((y1 - y0) * k.scale)));
  cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, width_px, h);
  k.c = cairo_create(surface);
  cairo_status_t bad = cairo_status(k.c);
  if (!bad) {
    draw_all(&k, width_px, h, o);
    bad = cairo_surface_write_to_png(surface, png_path);
  }
  cairo_destroy(k.c);
  cairo_surface_destroy(surface);
  if (bad == CAIRO_STATUS_NO_MEMORY)
    return dj_error(DJ_E_NOMEM, "no memory for a picture of %d x %d", width_px, h);
  return bad ? dj_error(DJ_E_IO, "%s: cannot write: %s", png_path, cairo_status_to_string(bad))
             : DJ_OK;
}
