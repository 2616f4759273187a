/*
 * Pictures of towns and drives. The cameras of a rig are laid out in rows of up to three (four from
 * seven on), each scaled to the same height of picture.
 */
#include "world/view.h"

#include <libswscale/swscale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dojo/log.h"
#include "fleet/importers/matrix.h"
#include "fleet/video_write.h"
#include "world/map_draw.h"

enum { MAX_BOXES = 4096 };

double dj__view_lane_metres(const dj__map *m) {
  double sum = 0;
  for (int i = 0; i < m->n_lane; i++)
    if (m->lane[i].type == DJ__LANE_DRIVING) sum += m->lane[i].length;
  return sum;
}

int dj__view_lights(const dj__map *m) {
  int n = 0;
  for (int i = 0; i < m->n_signal; i++) n += m->signal[i].kind == DJ__SIGNAL_LIGHT;
  return n;
}

// ---- from above --------------------------------------------------------------------------------

static void colour_of(int kind, bool parked, double c[3]) {
  static const double people[3] = {0.86, 0.15, 0.15}, cars[3] = {0.10, 0.32, 0.75},
                      two[3] = {0.90, 0.55, 0.05}, things[3] = {0.95, 0.40, 0.05};
  const double *from = kind == DJ__PEDESTRIAN                          ? people
                       : kind == DJ__CYCLIST || kind == DJ__MOTORCYCLE ? two
                       : kind == DJ__CONE || kind == DJ__BARRIER       ? things
                                                                       : cars;
  for (int k = 0; k < 3; k++) c[k] = parked ? 0.5 * from[k] + 0.25 : from[k];
}

static int boxes_of(const dj__world *w, dj__map_box *box) {
  const dj__agents *a = &w->agents;
  int n = 0;
  for (int i = a->n - 1; i >= 0 && n < MAX_BOXES; i--) { // the ego on top
    if (!(a->flags[i] & DJ__AGENT_LIVE)) continue;
    dj__map_box *b = &box[n++];
    *b = (dj__map_box){a->x[i], a->y[i], a->yaw[i], a->length[i], a->width[i], {0.05, 0.75, 0.25}};
    if (i) colour_of(a->kind[i], (a->flags[i] & DJ__AGENT_PARKED) != 0, b->rgb);
  }
  return n;
}

dj_status dj__view_map(const dj__map *m, const dj__world *w, int width, const char *png) {
  dj__map_box *box = w ? malloc(MAX_BOXES * sizeof *box) : NULL;
  if (w && !box) return dj_error(DJ_E_NOMEM, "%s: no memory for agents", png);
  dj__map_draw_options o = {0};
  if (w) {
    o.box = box;
    o.n_box = boxes_of(w, box);
    o.route = &w->route;
    o.time = dj__world_time(w);
  }
  dj_status s = dj__map_draw(m, width, png, &o);
  free(box);
  return s;
}

// ---- from the air ------------------------------------------------------------------------------

/* Optical axes (right, down, ahead) of a camera that looks along `yaw`, `down` below the horizon.
 */
static void look(double yaw, double down, double q[4]) {
  double cy = cos(yaw), sy = sin(yaw), cd = cos(down), sd = sin(down);
  double R[9] = {sy, -cy * sd, cy * cd, -cy, -sy * sd, sy * cd, 0, -cd, -sd};
  dj__mat_to_quat(R, q);
}

dj_status dj__view_bird(const dj__world *w, int width, const char *png) {
  const dj__map *m = w->map;
  if (width < 64 || width > 8192)
    return dj_error(DJ_E_INVALID, "%s: %d pixels across; 64 to 8192 work", png, width);
  dj__renderer *r;
  dj__scene *scene = calloc(1, sizeof *scene);
  if (!scene) return dj_error(DJ_E_NOMEM, "%s: no memory for a scene", png);
  double wide = m->x1 - m->x0, deep = m->y1 - m->y0, size = fmax(wide, deep);
  dj_status s = dj__renderer_create(m, &(dj__render_options){.view = 12 * size}, &r);
  if (!s) {
    double x = 0.5 * (m->x0 + m->x1), y = m->y0 - 0.28 * size, down = 0.95, q[4];
    double at[3] = {x, y, dj__map_height(m, x, m->y0) + size};
    dj__picture p;
    dj__scene_of(w, 2 * size, scene);
    scene->ego_id = 0; // it is drawn, too
    look(M_PI / 2, down, q);
    s = dj__render_view(r, scene, at, q, 0.75, width, width * 3 / 4, &p);
    if (!s) s = dj__picture_write_png(&p, png);
    dj__renderer_destroy(r);
  }
  free(scene);
  return s;
}

// ---- a drive -----------------------------------------------------------------------------------

typedef struct mosaic {
  int columns, rows, cell_w, cell_h, width, height;
  uint8_t *bgrx; // (height, width, 4)
  struct SwsContext *sws[DJ__RIG_CAMERAS];
} mosaic;

static void lay_out(const dj__rig *rig, mosaic *m) {
  int n = rig->n_camera, most = n > 6 ? 4 : 3;
  m->columns = n < most ? n : most;
  m->rows = (n + m->columns - 1) / m->columns;
  const dj_camera *first = &rig->camera[0].camera;
  double aspect = (double)first->width / first->height;
  for (int i = 1; i < n; i++)
    aspect = fmax(aspect, (double)rig->camera[i].camera.width / rig->camera[i].camera.height);
  int w = n == 1 ? 768 : n < 4 ? 512 : 448;
  m->cell_w = w;
  m->cell_h = (int)lrint(w / aspect / 2) * 2;
  m->width = m->columns * m->cell_w;
  m->height = m->rows * m->cell_h;
}

static dj_status put_camera(mosaic *m, int i, const dj__picture *p) {
  double scale = fmin((double)m->cell_w / p->width, (double)m->cell_h / p->height);
  int w = (int)lrint(p->width * scale), h = (int)lrint(p->height * scale);
  if (w > m->cell_w) w = m->cell_w;
  if (h > m->cell_h) h = m->cell_h;
  m->sws[i] =
      sws_getCachedContext(m->sws[i], p->width, p->height, AV_PIX_FMT_RGB24, w, h, AV_PIX_FMT_BGR0,
                           SWS_BICUBIC | SWS_ACCURATE_RND | SWS_BITEXACT, NULL, NULL, NULL);
  if (!m->sws[i]) return dj_error(DJ_E_UNSUPPORTED, "cannot scale pictures");
  int x = i % m->columns * m->cell_w + (m->cell_w - w) / 2;
  int y = i / m->columns * m->cell_h + (m->cell_h - h) / 2;
  const uint8_t *from[4] = {p->rgb};
  const int from_stride[4] = {3 * p->width}, stride[4] = {4 * m->width};
  uint8_t *to[4] = {m->bgrx + 4 * ((size_t)y * (size_t)m->width + (size_t)x)};
  (void)sws_scale(m->sws[i], from, from_stride, 0, p->height, to, stride);
  return DJ_OK;
}

typedef struct film {
  dj__world *w;
  dj__driver *d;
  const dj__rig *rig;
  dj__renderer *r;
  dj__scene *scene;
  mosaic m;
  dj__video_writer *out;
  dj__command command;
} film;

static dj_status shoot(film *f) {
  dj__picture pictures[DJ__RIG_CAMERAS];
  dj__scene_of(f->w, 0, f->scene);
  DJ_TRY(dj__render(f->r, f->scene, NULL, f->rig, pictures));
  for (int i = 0; i < f->rig->n_camera; i++) DJ_TRY(put_camera(&f->m, i, &pictures[i]));
  return dj__video_writer_put(f->out, f->m.bgrx, 4 * f->m.width);
}

static dj_status roll(film *f, double seconds, int stride) {
  uint64_t n = (uint64_t)llround(seconds / DJ__WORLD_DT);
  double next = 0;
  DJ_TRY(f->d->reset(f->d->self, f->w));
  for (uint64_t i = 0; i < n; i++) {
    double t = (double)i * DJ__WORLD_DT;
    if (i % (uint64_t)stride == 0) DJ_TRY(shoot(f));
    if (t + 1e-9 >= next) {
      dj__sense in = {.time = t, .speed = f->w->ego.vx, .command = dj__world_route_command(f->w)};
      DJ_TRY(f->d->drive(f->d->self, &in, f->d->privileged ? f->w : NULL, &f->command));
      next += f->d->period > 0 ? f->d->period : DJ__WORLD_DT;
    }
    dj__world_step(f->w, &f->command);
    if (i % 5 == 0) dj_progress("filming", (uint64_t)t, (uint64_t)seconds + 1, "s", NULL);
  }
  dj_progress("filming", (uint64_t)seconds + 1, (uint64_t)seconds + 1, "s", NULL);
  return DJ_OK;
}

dj_status dj__view_drive(dj__world *w, dj__driver *d, const dj__rig *rig, double seconds,
                         double rate, const char *mp4) {
  film f = {.w = w, .d = d, .rig = rig};
  if (rate <= 0) rate = rig->rate;
  int stride = (int)lrint(fmax(1, 1 / (rate * DJ__WORLD_DT)));
  lay_out(rig, &f.m);
  f.scene = calloc(1, sizeof *f.scene);
  f.m.bgrx = calloc((size_t)f.m.width * (size_t)f.m.height, 4);
  dj_status s = DJ_OK;
  if (!f.scene || !f.m.bgrx)
    s = dj_error(DJ_E_NOMEM, "%s: no memory for %d x %d pixels", mp4, f.m.width, f.m.height);
  if (!s)
    s = dj__video_writer_open(mp4, f.m.width, f.m.height, 1 / (stride * DJ__WORLD_DT), &f.out);
  if (!s) s = dj__renderer_create(w->map, &(dj__render_options){0}, &f.r);
  if (!s) s = roll(&f, seconds, stride);
  if (!s) {
    s = dj__video_writer_close(f.out);
    f.out = NULL;
  }
  dj__video_writer_abort(f.out);
  dj__renderer_destroy(f.r);
  for (int i = 0; i < DJ__RIG_CAMERAS; i++) sws_freeContext(f.m.sws[i]);
  free(f.m.bgrx);
  free(f.scene);
  return s;
}
