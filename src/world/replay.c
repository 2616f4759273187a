#include "world/replay.h"

#include <cairo.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "dojo/log.h"
#include "drive/overlay.h"
#include "fleet/video_write.h"
#include "world/traffic.h"

enum {
  W = 1280,
  H = 640,
  CAM_W = 832,
  CAM_H = 468,
  MARGIN = 16,
  EVERY = 2,
  TRACE = 400,
  TRAIL = 600
};
static const double BEFORE_S = 12, AFTER_S = 2, SPAN_S = 12, WHOLE_S = 60;

typedef struct sample {
  double t, speed, limit, steering, pedal;
} sample;

typedef struct replay {
  const dj__case *c;
  const dj__map *m;
  const char *path, *title;
  double from, to;
  dj__rig rig;
  dj__renderer *renderer;
  dj__scene *scene;
  dj__video_writer *video;
  cairo_surface_t *canvas;
  sample sample[TRACE];
  int n_sample;
  double trail[TRAIL][2];
  int n_trail;
  double scale; /* of lengths */
} replay;

/* ---- the view ---- */

/* A camera at the driver's place, 75 degrees wide. */
static void make_rig(const dj__vehicle_model *v, dj__rig *rig) {
  dj_camera *k;
  *rig = (dj__rig){.rate = 10, .n_camera = 1};
  (void)snprintf(rig->name, sizeof rig->name, "replay");
  k = &rig->camera[0].camera;
  (void)snprintf(k->name, sizeof k->name, "front");
  k->width = CAM_W;
  k->height = CAM_H;
  k->calibrated = true;
  double f = 0.5 * CAM_W / tan(0.5 * 75 * M_PI / 180);
  const double K[9] = {f, 0, 0.5 * (CAM_W - 1), 0, f, 0.5 * (CAM_H - 1), 0, 0, 1};
  memcpy(k->K, K, sizeof K);
  k->position[0] = 0.6 * v->wheelbase;
  k->position[2] = fmax(0.15, 0.92 * v->height);
  const double tilt = 0.04,
               h = 0.5; /* optical frame: x right, y down, z ahead, a little downwards */
  double a = cos(0.5 * tilt), b = sin(0.5 * tilt);
  const double q[4] = {-h * (a + b), h * (a + b), -h * (a - b), h * (a - b)};
  memcpy(k->rotation, q, sizeof q);
}

/* ---- from above ---- */
typedef struct plan {
  cairo_t *c;
  double x, y, s, co, scale, ox, oy;
} plan;

static void to_plan(const plan *p, double x, double y, double *u, double *v) {
  double dx = x - p->x, dy = y - p->y;
  double ahead = p->co * dx + p->s * dy, left = p->co * dy - p->s * dx;
  *u = p->ox - p->scale * left;
  *v = p->oy - p->scale * ahead;
}

static void box(const plan *p, double x, double y, double yaw, double l, double w, double r,
                double g, double b) {
  double u, v, c = 0.5 * cos(yaw), s = 0.5 * sin(yaw);
  const double k[4][2] = {{1, 1}, {1, -1}, {-1, -1}, {-1, 1}};
  for (int i = 0; i < 4; i++) {
    to_plan(p, x + c * l * k[i][0] - s * w * k[i][1], y + s * l * k[i][0] + c * w * k[i][1], &u,
            &v);
    (i ? cairo_line_to : cairo_move_to)(p->c, u, v);
  }
  cairo_close_path(p->c);
  cairo_set_source_rgb(p->c, r, g, b);
  cairo_fill(p->c);
}

static void lane_shape(const plan *p, const dj__map *m, const dj__lane *l) {
  double u, v;
  for (int side = 1; side >= -1; side -= 2)
    for (int i = 0; i < l->n_point; i++) {
      const dj__lane_point *q = &m->point[l->point0 + (side > 0 ? i : l->n_point - 1 - i)];
      double t = side * 0.5 * (double)q->width;
      to_plan(p, q->x - t * sin((double)q->yaw), q->y + t * cos((double)q->yaw), &u, &v);
      (side > 0 && i == 0 ? cairo_move_to : cairo_line_to)(p->c, u, v);
    }
  cairo_close_path(p->c);
}

static void draw_lanes(const plan *p, const dj__map *m, double reach) {
  static const struct {
    dj__lane_type type;
    double grey;
  } shades[] = {{DJ__LANE_SIDEWALK, 0.20},
                {DJ__LANE_SHOULDER, 0.25},
                {DJ__LANE_PARKING, 0.25},
                {DJ__LANE_BIKING, 0.28},
                {DJ__LANE_DRIVING, 0.32}};
  for (size_t k = 0; k < sizeof shades / sizeof *shades; k++)
    for (int i = 0; i < m->n_lane; i++) {
      const dj__lane *l = &m->lane[i];
      if (l->type != shades[k].type) continue;
      const dj__lane_point *q = &m->point[l->point0 + l->n_point / 2];
      if (hypot(q->x - p->x, q->y - p->y) > reach + 0.5 * l->length) continue;
      lane_shape(p, m, l);
      cairo_set_source_rgb(p->c, shades[k].grey, shades[k].grey, shades[k].grey * 1.05);
      cairo_fill_preserve(p->c);
      cairo_set_source_rgba(p->c, 0.8, 0.8, 0.8, l->junction >= 0 ? 0.05 : 0.3);
      cairo_set_line_width(p->c, 1);
      cairo_stroke(p->c);
    }
}

static void draw_stops(const plan *p, const dj__world *w, const dj__observer *o) {
  const dj__map *m = w->map;
  for (int i = 0; i < o->guide.n_line; i++) {
    const dj__guide_line *l = &o->guide.line[i];
    if (fabs(l->s - o->s) > 90) continue;
    dj__place q;
    dj__map_at(m, m->stop[l->stop].lane, m->stop[l->stop].s, 0, &q);
    dj__light k = m->stop[l->stop].control == DJ__CONTROL_LIGHTS ? dj__world_light(w, l->stop)
                                                                 : DJ__LIGHT_OFF;
    if (k == DJ__LIGHT_GREEN)
      cairo_set_source_rgb(p->c, 0.2, 0.9, 0.4);
    else if (k == DJ__LIGHT_YELLOW)
      cairo_set_source_rgb(p->c, 1, 0.8, 0.1);
    else if (k == DJ__LIGHT_OFF)
      cairo_set_source_rgb(p->c, 0.9, 0.9, 0.9);
    else
      cairo_set_source_rgb(p->c, 1, 0.2, 0.2);
    double u, v;
    for (int side = -1; side <= 1; side += 2) {
      double t = side * 0.5 * q.width;
      to_plan(p, q.x - t * sin(q.yaw), q.y + t * cos(q.yaw), &u, &v);
      (side < 0 ? cairo_move_to : cairo_line_to)(p->c, u, v);
    }
    cairo_set_line_width(p->c, 3);
    cairo_stroke(p->c);
  }
}

static void draw_way(const plan *p, const replay *r, const dj__observer *o) {
  double u, v;
  int i0 = (int)(o->s / o->guide.step), n = (int)(80 * r->scale / o->guide.step);
  for (int i = i0, first = 1; i < i0 + n && i < o->guide.n; i++, first = 0) {
    if (i < 0) continue;
    to_plan(p, o->guide.point[i].x, o->guide.point[i].y, &u, &v);
    (first ? cairo_move_to : cairo_line_to)(p->c, u, v);
  }
  cairo_set_source_rgba(p->c, 1, 0.7, 0.13, 0.6);
  cairo_set_line_width(p->c, 2);
  cairo_stroke(p->c);
  for (int i = 0; i < r->n_trail; i++) {
    to_plan(p, r->trail[i][0], r->trail[i][1], &u, &v);
    (i ? cairo_line_to : cairo_move_to)(p->c, u, v);
  }
  cairo_set_source_rgba(p->c, 0.31, 0.69, 1, 0.9);
  cairo_stroke(p->c);
}

static void draw_agents(const plan *p, const dj__world *w, double reach) {
  const dj__agents *a = &w->agents;
  for (int i = a->n - 1; i >= 0; i--) {
    if (!(a->flags[i] & DJ__AGENT_LIVE) || hypot(a->x[i] - p->x, a->y[i] - p->y) > reach) continue;
    bool person = a->kind[i] == DJ__PEDESTRIAN,
         still = a->flags[i] & (DJ__AGENT_PARKED | DJ__AGENT_STATIC);
    double grow = person ? 1.6 : 1;
    if (i == 0)
      box(p, a->x[i], a->y[i], (double)a->yaw[i], w->ego.model->length, w->ego.model->width, 0.31,
          0.69, 1);
    else
      box(p, a->x[i], a->y[i], (double)a->yaw[i], grow * (double)a->length[i],
          grow * (double)a->width[i],
          person  ? 1
          : still ? 0.5
                  : 0.85,
          person  ? 0.5
          : still ? 0.5
                  : 0.85,
          person  ? 0.6
          : still ? 0.55
                  : 0.8);
  }
}

static void draw_plan(cairo_t *c, const replay *r, const dj__world *w, const dj__observer *o,
                      dj__rect at) {
  double reach = 75 * r->scale, yaw = (double)w->agents.yaw[0];
  plan p = {c,        w->agents.x[0],         w->agents.y[0],    sin(yaw),
            cos(yaw), at.h / (85 * r->scale), at.x + 0.5 * at.w, at.y + 0.76 * at.h};
  cairo_save(c);
  cairo_rectangle(c, at.x, at.y, at.w, at.h);
  cairo_clip(c);
  cairo_set_source_rgb(c, 0.12, 0.15, 0.13);
  cairo_paint(c);
  draw_lanes(&p, r->m, reach);
  draw_stops(&p, w, o);
  draw_way(&p, r, o);
  draw_agents(&p, w, reach);
  cairo_restore(c);
}

/* ---- over time ---- */
static void curve(cairo_t *c, const replay *r, dj__rect at, double lo, double hi, int what,
                  double red, double green, double blue) {
  double now = r->sample[r->n_sample - 1].t;
  for (int i = 0, first = 1; i < r->n_sample; i++) {
    const sample *s = &r->sample[i];
    if (s->t < now - SPAN_S) continue;
    const double v[4] = {s->speed, s->limit, s->steering, s->pedal};
    double u = at.x + at.w * (s->t - now + SPAN_S) / SPAN_S;
    double y = at.y + at.h * (1 - (fmin(hi, fmax(lo, v[what])) - lo) / (hi - lo));
    (first ? cairo_move_to : cairo_line_to)(c, u, y);
    first = 0;
  }
  cairo_set_source_rgb(c, red, green, blue);
  cairo_set_line_width(c, 1.6);
  cairo_stroke(c);
}

static void draw_curves(cairo_t *c, const replay *r) {
  const sample *s = &r->sample[r->n_sample - 1];
  double w = (W - 4 * MARGIN) / 3.0, y = 44 + CAM_H + 34, h = H - MARGIN - y, top = 1;
  for (int i = 0; i < r->n_sample; i++)
    top = fmax(top, fmax(r->sample[i].speed, r->sample[i].limit));
  char text[3][96];
  (void)snprintf(text[0], sizeof text[0], "speed %.1f m/s, limit %.1f (amber)", s->speed, s->limit);
  (void)snprintf(text[1], sizeof text[1], "steering %+.2f, left is up", s->steering);
  (void)snprintf(text[2], sizeof text[2], "throttle (up) and brake (down) %+.2f", s->pedal);
  for (int k = 0; k < 3; k++) {
    dj__rect at = {MARGIN + k * (w + MARGIN), y, w, h};
    dj__draw_text(c, at.x, y - 6, 13, text[k]);
    cairo_set_source_rgb(c, 0.118, 0.137, 0.169);
    cairo_rectangle(c, at.x, at.y, at.w, at.h);
    cairo_fill(c);
    if (k == 0) {
      curve(c, r, at, 0, 1.1 * top, 1, 1, 0.7, 0.13);
      curve(c, r, at, 0, 1.1 * top, 0, 0.31, 0.69, 1);
      continue;
    }
    cairo_set_source_rgb(c, 0.27, 0.31, 0.37);
    cairo_move_to(c, at.x, at.y + 0.5 * at.h);
    cairo_line_to(c, at.x + at.w, at.y + 0.5 * at.h);
    cairo_set_line_width(c, 1);
    cairo_stroke(c);
    curve(c, r, at, -1, 1, k + 1, 0.31, 0.69, 1);
  }
}

/* ---- a frame ---- */
static const char *command_name(dj__route_command k) {
  static const char *const names[] = {"follow",   "turn left",   "turn right",
                                      "straight", "change left", "change right"};
  return names[k];
}

static void headline(cairo_t *c, const replay *r, const dj__world *w, const dj__sense *in) {
  char text[512];
  double now = (double)w->step * DJ__WORLD_DT;
  int n = snprintf(text, sizeof text, "%s   %s   %.1f s   %s", r->c->name, r->title, now,
                   command_name(in->command));
  for (int i = 0; i < w->n_event && n < (int)sizeof text - 40; i++) {
    const dj__event *e = &w->event[i];
    bool on = e->start <= w->step && (!e->end || e->end + 40 > w->step);
    if (on && hypot(e->x - w->agents.x[0], e->y - w->agents.y[0]) < 80)
      n += snprintf(text + n, sizeof text - (size_t)n, "   [%s]", dj__event_name(e->kind));
  }
  dj__draw_text(c, MARGIN, 28, 15, text);
}

static void put_camera(cairo_t *c, const dj__picture *p) {
  cairo_surface_t *s = cairo_image_surface_create(CAIRO_FORMAT_RGB24, p->width, p->height);
  unsigned char *to = cairo_image_surface_get_data(s);
  int stride = cairo_image_surface_get_stride(s);
  for (int y = 0; to && y < p->height; y++) {
    uint32_t *row = (uint32_t *)(void *)(to + (size_t)y * (size_t)stride);
    const uint8_t *q = p->rgb + (size_t)y * (size_t)p->width * 3;
    for (int x = 0; x < p->width; x++)
      row[x] = (uint32_t)q[3 * x] << 16 | (uint32_t)q[3 * x + 1] << 8 | q[3 * x + 2];
  }
  cairo_surface_mark_dirty(s);
  cairo_set_source_surface(c, s, MARGIN, 44);
  cairo_paint(c);
  cairo_surface_destroy(s);
}

static dj_status open_video(replay *r, const dj__world *w) {
  make_rig(w->ego.model, &r->rig);
  r->scale = w->ego.model->kind == DJ__RC_CAR ? 0.12 : 1;
  DJ_TRY(dj__renderer_create(r->m, &(dj__render_options){0}, &r->renderer));
  r->canvas = cairo_image_surface_create(CAIRO_FORMAT_RGB24, W, H);
  r->scene = malloc(sizeof *r->scene);
  if (cairo_surface_status(r->canvas) != CAIRO_STATUS_SUCCESS || !r->scene)
    return dj_error(DJ_E_NOMEM, "no memory for pictures of %d x %d", W, H);
  return dj__video_writer_open(r->path, W, H, 1 / (EVERY * DJ__WORLD_DT), &r->video);
}

static void keep(replay *r, const dj__world *w, const dj__observer *o) {
  if (r->n_sample == TRACE) memmove(r->sample, r->sample + 1, --r->n_sample * sizeof *r->sample);
  if (r->n_trail == TRAIL) memmove(r->trail, r->trail + 1, --r->n_trail * sizeof *r->trail);
  r->sample[r->n_sample++] =
      (sample){(double)w->step * DJ__WORLD_DT, w->ego.vx, dj__guide_at(&o->guide, o->s).limit,
               (double)w->ego.command.steering,
               (double)w->ego.command.throttle - (double)w->ego.command.brake};
  r->trail[r->n_trail][0] = w->agents.x[0];
  r->trail[r->n_trail++][1] = w->agents.y[0];
}

static dj_status see(void *self, const dj__world *w, const dj__observer *o, const dj__sense *in) {
  replay *r = self;
  double t = (double)w->step * DJ__WORLD_DT;
  keep(r, w, o);
  if (w->step % EVERY || t < r->from || t > r->to) return DJ_OK;
  if (!r->video) DJ_TRY(open_video(r, w));
  dj__picture picture;
  dj__scene_of(w, 0, r->scene);
  DJ_TRY(dj__render(r->renderer, r->scene, NULL, &r->rig, &picture));
  cairo_t *c = cairo_create(r->canvas);
  dj__draw_background(c, W, H);
  headline(c, r, w, in);
  put_camera(c, &picture);
  double x = CAM_W + 2 * MARGIN;
  draw_plan(c, r, w, o, (dj__rect){x, 44, W - MARGIN - x, CAM_H});
  draw_curves(c, r);
  cairo_destroy(c);
  cairo_surface_flush(r->canvas);
  return dj__video_writer_put(r->video, cairo_image_surface_get_data(r->canvas),
                              cairo_image_surface_get_stride(r->canvas));
}

dj_status dj__replay(const dj__case *c, const dj__map *m, dj__driver *d, const char *path,
                     double from, double to, const char *title) {
  replay *r = calloc(1, sizeof *r);
  if (!r) return dj_error(DJ_E_NOMEM, "no memory for a replay");
  *r = (replay){.c = c, .m = m, .path = path, .title = title, .from = from, .to = to};
  dj__renderer *eyes = NULL;
  dj__history h = {0};
  dj_status s = d->rig ? dj__renderer_create(m, &(dj__render_options){0}, &eyes) : DJ_OK;
  if (!s) s = dj__drive_case(c, m, d, eyes, &(dj__watcher){see, r}, &h);
  dj__history_free(&h);
  dj__renderer_destroy(eyes);
  dj__renderer_destroy(r->renderer);
  if (s)
    dj__video_writer_abort(r->video);
  else if (r->video)
    s = dj__video_writer_close(r->video);
  if (r->canvas) cairo_surface_destroy(r->canvas);
  free(r->scene);
  free(r);
  return s;
}

/* ---- failures ---- */
static char *file_of(const char *dir, const char *name) {
  char *path = dj__strf("%s/%s.mp4", dir, name);
  for (char *p = path + strlen(dir) + 1; *p; p++)
    if (*p == '/') *p = '_';
  return path;
}

static void describe(const dj__drive_score *s, char *out, size_t size) {
  int n = snprintf(out, size, "%s", dj__end_name(s->end));
  for (int k = 0; k < DJ__N_INFRACTIONS && n < (int)size - 32; k++)
    if (s->infraction[k])
      n += snprintf(out + n, size - (size_t)n, " %s", dj__infraction_name((dj__infraction)k));
}

/* Where to look in a drive that is to be filmed: around its failure, or its first minute. */
static void window(const dj__drive_score *k, double *from, double *to) {
  const bool bad = k->failed || !k->arrived;
  const double at = isnan(k->first_failure) ? k->seconds : k->first_failure;
  *from = bad ? at - BEFORE_S : 0;
  *to = bad ? at + AFTER_S : WHOLE_S;
}

/* The drive with the best (sign 1) or worst (-1) score that is not picked yet; -1: none. Of equals
 * the longer one. */
static int extreme(const dj__suite_drive *r, const bool *picked, double sign) {
  int best = -1;
  for (int i = 0; i < r->n; i++) {
    if (picked[i]) continue;
    const double a = sign * r->score[i].pdms, b = best < 0 ? 0 : sign * r->score[best].pdms;
    if (best < 0 || a > b || (a == b && r->score[i].km > r->score[best].km)) best = i;
  }
  return best;
}

static bool pick(const dj__suite *s, const dj__suite_drive *r, const char *word, size_t n,
                 bool *picked) {
  int one = -1;
  if (n == 8 && !strncmp(word, "failures", n)) {
    for (int i = 0; i < s->n; i++) picked[i] |= r->score[i].failed || !r->score[i].arrived;
    return true;
  }
  if (n == 4 && !strncmp(word, "best", n))
    one = extreme(r, picked, 1);
  else if (n == 5 && !strncmp(word, "worst", n))
    one = extreme(r, picked, -1);
  else
    for (int i = 0; i < s->n && one < 0; i++)
      if (strlen(s->cases[i].name) == n && !strncmp(word, s->cases[i].name, n)) one = i;
  if (one >= 0) picked[one] = true;
  return one >= 0;
}

/* Marks the drives that `which` asks for. */
static dj_status pick_all(const dj__suite *s, const dj__suite_drive *r, const char *which,
                          bool *picked) {
  for (const char *p = which; *p;) {
    size_t n = strcspn(p, ",");
    if (n && !pick(s, r, p, n, picked) && s->n > 0)
      return dj_error(
          DJ_E_NOT_FOUND,
          "replays of \"%.*s\": that is no drive of suite %s, nor failures, best or worst", (int)n,
          p, s->name);
    p += n + (p[n] == ',');
  }
  return DJ_OK;
}

static dj_status film(const dj__suite *s, const dj__suite_drive *r, const bool *picked,
                      dj__driver *d, const char *dir, int all, int *n) {
  dj__map *m = NULL;
  dj_status st = DJ_OK;
  for (int i = 0, on = -1; i < s->n && !st; i++) {
    if (!picked[i]) continue;
    if (on < 0 || !dj__case_same_map(&s->cases[on], &s->cases[i])) {
      dj__map_destroy(m);
      m = NULL;
      st = dj__case_map(&s->cases[i], &m);
      on = i;
    }
    char title[256];
    double from, to;
    describe(&r->score[i], title, sizeof title);
    window(&r->score[i], &from, &to);
    char *path = file_of(dir, s->cases[i].name);
    if (!st) st = dj__replay(&s->cases[i], m, d, path, from, to, title);
    free(path);
    dj_progress("writing replays", (uint64_t)++ * n, (uint64_t)all, "videos", s->cases[i].name);
  }
  dj__map_destroy(m);
  return st;
}

dj_status dj__replay_suite(const dj__suite *s, const dj__suite_drive *r, dj__make_driver *make,
                           void *user, const char *which, const char *dir, int *n) {
  *n = 0;
  int all = 0;
  dj__driver d = {0};
  bool *picked = calloc((size_t)s->n + 1, sizeof *picked);
  dj_status st =
      picked ? pick_all(s, r, which, picked) : dj_error(DJ_E_NOMEM, "no memory for replays");
  for (int i = 0; i < s->n && !st; i++) all += picked[i];
  if (!st) st = dj__mkdirs(dir);
  if (!st) st = make(user, &d);
  if (!st) st = film(s, r, picked, &d, dir, all, n);
  dj__driver_destroy(&d);
  free(picked);
  return st;
}
