/*
 * `dojo predict`: plays a run's network over a split and draws each moment into a video, and nine
 * of them into a contact sheet. Pictures come from the logs, at the size they were recorded in; a
 * small one shows what the network is given. One pass: a frame is decoded, drawn, encoded and
 * forgotten; only the traces over time are kept (44 bytes a frame).
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/fs.h"
#include "dojo/log.h"
#include "drive/overlay.h"
#include "drive/playback.h"
#include "fleet/dataset.h"
#include "fleet/video_write.h"

enum { W = 1280, H = 720, TILES = 9, COLUMNS = 3, TILE_W = 416, MARGIN = 16, TRACE_H = 130 };
static const double BEHIND_S = 8, AHEAD_S = 4; // of the moment, in the video's plot
enum { LATERAL_POINT = 14 };                   // 1.91 s: openpilot's last point within 2 s

/* The recorded pictures of the drive that is being played. */
typedef struct source {
  dj_store *store;
  dj_drive *drive;
  char name[DJ_NAME_BYTES];
  int camera;
  const uint64_t *t_ns;
  size_t n;
  uint8_t *rgb;
} source;

typedef struct predict {
  dj__playback play;
  const dj_drive_predict_options *o;
  const char *split;
  source source;
  uint64_t size; // frames to draw
  double fps;
  double *t;  // (size) s since the split's first frame, pauses between clips left out
  int *piece; // (size) clip
  dj__trace steering, lateral;
  bool has_control; // the network says how to steer
  double ahead;     // m, that the map shows
  double sum_error;
  uint64_t n_error;
  cairo_surface_t *canvas, *sheet;
  dj__video_writer *video;
  double tile_h; // of a picture in the sheet
} predict;

/* ---- recorded pictures ---- */

static dj_status find_camera(const predict *p, const dj_drive_info *info, int *camera) {
  const dj_recipe *r = p->play.run.recipe;
  *camera = 0;
  if (!r->data.n_cameras) return DJ_OK;
  for (int i = 0; i < info->n_cameras; i++)
    if (!strcmp(info->cameras[i].name, r->data.cameras[0])) {
      *camera = i;
      return DJ_OK;
    }
  return dj_error(DJ_E_NOT_FOUND, "drive %s has no camera '%s'", info->name, r->data.cameras[0]);
}

static dj_status open_drive(predict *p, const char *name) {
  source *s = &p->source;
  if (s->drive && !strcmp(s->name, name)) return DJ_OK;
  dj_drive_close(s->drive);
  s->drive = NULL;
  if (!s->store) DJ_TRY(dj_store_open(p->play.store, DJ_STORE_EXISTING, &s->store));
  char *path = dj_store_log_path(s->store, name);
  dj_status st = path ? dj_drive_open(path, &s->drive)
                      : dj_error(DJ_E_INVALID, "'%s' is no name of a drive", name);
  free(path);
  if (st) return st;
  (void)snprintf(s->name, sizeof s->name, "%s", name);
  const dj_drive_info *info = dj_drive_get_info(s->drive);
  DJ_TRY(find_camera(p, info, &s->camera));
  DJ_TRY(dj_drive_frame_times(s->drive, s->camera, &s->t_ns, &s->n));
  const dj_camera *c = &info->cameras[s->camera];
  free(s->rgb);
  s->rgb = malloc((size_t)c->width * (size_t)c->height * 3);
  return s->rgb ? DJ_OK
                : dj_error(DJ_E_NOMEM, "%s: no memory for a frame of %d x %d", name, c->width,
                           c->height);
}

/* The camera's frame nearest to the moment, into source.rgb. */
static dj_status read_picture(predict *p, const dj__played *f) {
  DJ_TRY(open_drive(p, f->ref.drive));
  const source *s = &p->source;
  size_t lo = 0, hi = s->n;
  while (lo < hi) {
    size_t mid = lo + (hi - lo) / 2;
    if (s->t_ns[mid] < f->ref.t_ns)
      lo = mid + 1;
    else
      hi = mid;
  }
  if (lo == s->n || (lo && f->ref.t_ns - s->t_ns[lo - 1] < s->t_ns[lo] - f->ref.t_ns)) lo--;
  return dj_drive_read_frame(s->drive, s->camera, lo, s->rgb);
}

/* ---- traces ---- */

static dj_status make_trace(predict *p, const char *title, dj__trace *s) {
  *s = (dj__trace){.title = title, .n = p->size, .t = p->t, .piece = p->piece, .range = 0};
  double **const columns[] = {&s->driver, &s->network, &s->scale};
  for (int k = 0; k < 3; k++) {
    double *v = *columns[k] = malloc(p->size * sizeof *v);
    if (!v) return dj_error(DJ_E_NOMEM, "predict: no memory for %zu frames", (size_t)p->size);
    for (uint64_t i = 0; i < p->size; i++) v[i] = NAN;
  }
  return DJ_OK;
}

static void free_trace(dj__trace *s) {
  free(s->driver);
  free(s->network);
  free(s->scale);
}

/* Time without the pauses between clips, the driver's steering, and the rate of the video. */
static dj_status make_traces(predict *p) {
  p->t = malloc(p->size * sizeof *p->t);
  p->piece = malloc(p->size * sizeof *p->piece);
  if (!p->t || !p->piece)
    return dj_error(DJ_E_NOMEM, "predict: no memory for %zu frames", (size_t)p->size);
  DJ_TRY(make_trace(p, "steering, share of full lock, left is up", &p->steering));
  DJ_TRY(make_trace(p, "2 s ahead: metres to the left", &p->lateral));
  double sum = 0, largest = 0;
  uint64_t n = 0, last_ns = 0;
  for (uint64_t i = 0; i < p->size; i++) { // pieces by drive and clip
    dj_frame_ref f = dj_dataset_frame(p->play.data, i);
    const dj__dataset_clip *c = dj__dataset_clip_of(p->play.data, i);
    p->piece[i] = (int)(c - p->play.data->clips);
    bool joined = i && p->piece[i] == p->piece[i - 1];
    p->t[i] = joined ? (double)(f.t_ns - last_ns) * 1e-9 : 0;
    if (joined) sum += p->t[i], n++;
    last_ns = f.t_ns;
    p->steering.driver[i] = f.steering;
    if (fabs(f.steering) > largest) largest = fabs(f.steering);
  }
  p->fps = n && sum > 0 ? fmin(120, fmax(1, (double)n / sum)) : 10;
  for (uint64_t i = 1; i < p->size; i++)
    p->t[i] = p->t[i - 1] + (p->piece[i] == p->piece[i - 1] ? p->t[i] : 1 / p->fps);
  p->steering.range = fmin(1, dj__round_up(largest));
  return DJ_OK;
}

static void note(predict *p, const dj__moment *m, uint64_t i) {
  p->steering.network[i] = m->network;
  p->steering.scale[i] = m->scale;
  if (!isnan(m->network) && !isnan(m->driver)) {
    p->sum_error += fabs(m->network - m->driver);
    p->n_error++;
  }
  if (!m->network_path) return;
  dj__trace *s = &p->lateral;
  s->network[i] = (double)m->network_path[2 * LATERAL_POINT + 1];
  s->scale[i] = exp((double)m->network_lb[2 * LATERAL_POINT + 1]);
  if (m->driver_mask[LATERAL_POINT] > 0) {
    s->driver[i] = (double)m->driver_path[3 * LATERAL_POINT + 1];
    s->range = fmax(s->range, dj__round_up(fabs(s->driver[i])));
  }
  s->range = fmax(s->range, dj__round_up(fabs(s->network[i])));
  double reach = (double)m->network_path[2 * (DJ_PATH_POINTS - 1)];
  for (int j = 0; j < DJ_PATH_POINTS && m->driver_mask[j] > 0; j++)
    reach = fmax(reach, (double)m->driver_path[3 * j]);
  p->ahead = fmax(p->ahead, dj__round_up(fmin(reach, 400)));
}

static dj__moment moment_of(const predict *p, const dj__played *f) {
  const dj_recipe *r = p->play.run.recipe;
  const dj_camera *c = &dj_drive_get_info(p->source.drive)->cameras[p->source.camera];
  dj__moment m = {.picture = p->source.rgb,
                  .w = c->width,
                  .h = c->height,
                  .camera = c,
                  .input = f->image,
                  .input_w = p->play.data->width,
                  .input_h = p->play.data->height,
                  .driver = f->ref.steering,
                  .network = p->has_control ? (double)f->said.steering : NAN,
                  .scale = p->has_control ? (double)f->said.steering_scale : NAN,
                  .driver_path = f->path,
                  .driver_mask = f->path_mask,
                  .network_path = f->said.path,
                  .network_lb = f->said.path_lb,
                  .speed = f->speed};
  memcpy(m.crop, r->data.crop, sizeof m.crop);
  return m;
}

/* ---- video ---- */

static void draw_video_frame(predict *p, const dj__played *f, const dj__moment *m) {
  cairo_t *c = cairo_create(p->canvas);
  char text[256];
  dj__draw_background(c, W, H);
  (void)snprintf(text, sizeof text, "%s   %s   frame %llu   %.1f s", f->ref.drive, p->split,
                 (unsigned long long)f->ref.frame, p->t[f->sample]);
  dj__draw_text(c, MARGIN, 28, 16, text);
  dj__draw_legend(c, W - MARGIN, 28, 16);
  dj__draw_scene(c, m, (dj__rect){MARGIN, 44, 840, 448});
  const double x = 872, w = W - MARGIN - x;
  dj__draw_text(c, x, 58, 12, "what the network is given");
  dj__draw_input(c, m, (dj__rect){x, 64, w, 190});
  double y = 64 + 190 + 12, h = 492 - y;
  bool wheels = !isnan(m->driver) || !isnan(m->network);
  if (m->network_path && wheels) {
    dj__draw_map(c, m, p->ahead, (dj__rect){x, y, w / 2 - 6, h});
    dj__draw_wheels(c, m, (dj__rect){x + w / 2 + 6, y, w / 2 - 6, h});
  } else if (m->network_path) {
    dj__draw_map(c, m, p->ahead, (dj__rect){x, y, w, h});
  } else {
    dj__draw_wheels(c, m, (dj__rect){x, y, w, h});
  }
  const dj__trace *traces[2];
  int n = 0;
  if (wheels) traces[n++] = &p->steering;
  if (m->network_path) traces[n++] = &p->lateral;
  double now = p->t[f->sample], top = 506, each = (H - MARGIN - top - 8.0 * (n - 1)) / n;
  for (int i = 0; i < n; i++)
    dj__draw_trace(c, traces[i], now - BEHIND_S, now + AHEAD_S, now,
                   (dj__rect){MARGIN, top + i * (each + 8), W - 2 * MARGIN, each});
  cairo_destroy(c);
}

static dj_status put_video(predict *p, const dj__played *f, const dj__moment *m) {
  if (!p->video) {
    p->canvas = cairo_image_surface_create(CAIRO_FORMAT_RGB24, W, H);
    if (cairo_surface_status(p->canvas) != CAIRO_STATUS_SUCCESS)
      return dj_error(DJ_E_NOMEM, "predict: no memory for pictures of %d x %d", W, H);
    DJ_TRY(dj__video_writer_open(p->o->video, W, H, p->fps, &p->video));
  }
  draw_video_frame(p, f, m);
  cairo_surface_flush(p->canvas);
  return dj__video_writer_put(p->video, cairo_image_surface_get_data(p->canvas),
                              cairo_image_surface_get_stride(p->canvas));
}

/* ---- contact sheet ---- */

static const double HEAD = 76, CAPTION = 22, BAR = 14;

static double tile_height(const predict *p) {
  return CAPTION + p->tile_h + 4 + BAR + MARGIN;
}

static int n_traces(const predict *p) {
  return (p->steering.range > 0 && p->has_control) +
         (p->play.run.recipe->data.labels & DJ_LABEL_PATH ? 1 : 0);
}

static dj_status begin_sheet(predict *p, const dj__moment *m) {
  p->tile_h = fmin(312, TILE_W * (double)m->h / m->w);
  int rows = (int)((p->size < TILES ? p->size : TILES) + COLUMNS - 1) / COLUMNS;
  int w = MARGIN + COLUMNS * (TILE_W + MARGIN);
  int h = (int)(HEAD + rows * tile_height(p) + n_traces(p) * (TRACE_H + MARGIN));
  p->sheet = cairo_image_surface_create(CAIRO_FORMAT_RGB24, w, h);
  if (cairo_surface_status(p->sheet) != CAIRO_STATUS_SUCCESS)
    return dj_error(DJ_E_NOMEM, "predict: no memory for a sheet of %d x %d", w, h);
  cairo_t *c = cairo_create(p->sheet);
  dj__draw_background(c, w, h);
  cairo_destroy(c);
  return DJ_OK;
}

/* The tile that a sample goes to, -1: none. Tiles lie in the middle of equal parts. */
static int tile_of(const predict *p, uint64_t sample) {
  uint64_t n = p->size < TILES ? p->size : TILES;
  uint64_t k = sample * n / p->size;
  return (2 * k + 1) * p->size / (2 * n) == sample ? (int)k : -1;
}

static dj_status put_sheet(predict *p, const dj__played *f, const dj__moment *m) {
  int k = tile_of(p, f->sample);
  if (k < 0) return DJ_OK;
  if (!p->sheet) DJ_TRY(begin_sheet(p, m));
  double x = MARGIN + (k % COLUMNS) * (TILE_W + MARGIN);
  double y = HEAD + (k / COLUMNS) * tile_height(p);
  cairo_t *c = cairo_create(p->sheet);
  char text[256];
  (void)snprintf(text, sizeof text, "%.1f s   %s, frame %llu", p->t[f->sample], f->ref.drive,
                 (unsigned long long)f->ref.frame);
  dj__draw_text(c, x, y + 15, 13, text);
  dj__rect at = dj__draw_scene(c, m, (dj__rect){x, y + CAPTION, TILE_W, p->tile_h});
  if (!isnan(m->driver) || !isnan(m->network))
    dj__draw_bar(c, m, (dj__rect){at.x, y + CAPTION + p->tile_h + 4, at.w, BAR});
  cairo_destroy(c);
  return DJ_OK;
}

static cairo_status_t write_png(void *user, const unsigned char *data, unsigned n) {
  return fwrite(data, 1, n, (FILE *)user) == n ? CAIRO_STATUS_SUCCESS : CAIRO_STATUS_WRITE_ERROR;
}

static dj_status end_sheet(predict *p) {
  int w = cairo_image_surface_get_width(p->sheet), h = cairo_image_surface_get_height(p->sheet);
  const dj_recipe *r = p->play.run.recipe;
  cairo_t *c = cairo_create(p->sheet);
  char text[256], error[64] = "";
  if (p->n_error)
    (void)snprintf(error, sizeof error, "   steering MAE %.3f", p->sum_error / (double)p->n_error);
  (void)snprintf(text, sizeof text, "%s (%s), step %llu", r->name, r->network.name,
                 (unsigned long long)p->play.step);
  dj__draw_text(c, MARGIN, 32, 20, text);
  (void)snprintf(text, sizeof text, "%s: %llu frames that it has %s seen in training%s", p->split,
                 (unsigned long long)p->size, strcmp(p->split, "train") ? "never" : "often", error);
  dj__draw_text(c, MARGIN, 58, 14, text);
  dj__draw_legend(c, w - MARGIN, 32, 16);
  double y = h - n_traces(p) * (TRACE_H + MARGIN);
  const dj__trace *traces[2] = {&p->steering, &p->lateral};
  for (int i = 0; i < 2; i++) {
    bool shown =
        i ? (r->data.labels & DJ_LABEL_PATH) != 0 : p->steering.range > 0 && p->has_control;
    if (!shown) continue;
    dj__draw_trace(c, traces[i], p->t[0], p->t[p->size - 1], NAN,
                   (dj__rect){MARGIN, y, w - 2 * MARGIN, TRACE_H});
    y += TRACE_H + MARGIN;
  }
  cairo_destroy(c);
  dj__atomic a;
  DJ_TRY(dj__atomic_open(&a, p->o->sheet));
  errno = 0;
  cairo_status_t code = cairo_surface_write_to_png_stream(p->sheet, write_png, a.file);
  if (code == CAIRO_STATUS_SUCCESS) return dj__atomic_commit(&a);
  dj_status s =
      code == CAIRO_STATUS_WRITE_ERROR && errno
          ? dj_error_errno("%s: cannot write", p->o->sheet)
          : dj_error(DJ_E_IO, "%s: cannot write: %s", p->o->sheet, cairo_status_to_string(code));
  dj__atomic_abort(&a);
  return s;
}

/* ---- all of it ---- */

static bool ends_in(const char *name, const char *ending) {
  size_t n = strlen(name), m = strlen(ending);
  return n > m && !strcasecmp(name + n - m, ending);
}

static dj_status check(const dj_drive_predict_options *o) {
  if (!o->video && !o->sheet)
    return dj_error(DJ_E_INVALID, "nothing to write: give a video (--out FILE.mp4), a contact "
                                  "sheet (--png FILE.png), or both");
  if (o->video && !ends_in(o->video, ".mp4"))
    return dj_error(DJ_E_INVALID, "%s: videos are written as MP4; give a name that ends in .mp4",
                    o->video);
  if (o->sheet && !ends_in(o->sheet, ".png"))
    return dj_error(DJ_E_INVALID,
                    "%s: contact sheets are written as PNG; give a name that ends "
                    "in .png",
                    o->sheet);
  return DJ_OK;
}

static dj_status play(predict *p) {
  dj__played f;
  dj_status s = DJ_OK;
  while (p->play.done < p->size && !(s = dj__playback_next(&p->play, &f))) {
    int tile = p->o->sheet ? tile_of(p, f.sample) : -1;
    DJ_TRY(p->o->video || tile >= 0 ? read_picture(p, &f) : open_drive(p, f.ref.drive));
    dj__moment m = moment_of(p, &f);
    note(p, &m, f.sample);
    if (p->o->video) DJ_TRY(put_video(p, &f, &m));
    if (tile >= 0) DJ_TRY(put_sheet(p, &f, &m));
    dj_progress("drawing", f.sample + 1, p->size, "frames", NULL);
  }
  return s;
}

static dj_status finish(predict *p) {
  if (p->o->sheet) DJ_TRY(end_sheet(p));
  dj__video_writer *w = p->video;
  p->video = NULL;
  return w ? dj__video_writer_close(w) : DJ_OK;
}

static void close_predict(predict *p) {
  dj__video_writer_abort(p->video);
  if (p->canvas) cairo_surface_destroy(p->canvas);
  if (p->sheet) cairo_surface_destroy(p->sheet);
  free_trace(&p->steering);
  free_trace(&p->lateral);
  free(p->t);
  free(p->piece);
  free(p->source.rgb);
  dj_drive_close(p->source.drive);
  dj_store_close(p->source.store);
  dj__playback_close(&p->play);
}

dj_status dj_drive_predict(const char *run_dir, const char *store, const char *split,
                           const dj_drive_predict_options *o, dj_drive_predict_report *report) {
  *report = (dj_drive_predict_report){.steering_mae = NAN};
  DJ_TRY(check(o));
  const double start = dj__now();
  predict p = {.o = o, .split = split, .ahead = 5};
  dj_status s = dj__playback_open(&p.play, run_dir, store, split, o->checkpoint, o->threads);
  if (!s) {
    p.size = dj_dataset_size(p.play.data);
    if (o->limit && o->limit < p.size) p.size = o->limit;
    p.has_control = (p.play.run.recipe->data.labels & DJ_LABEL_CONTROL) != 0;
    s = make_traces(&p);
  }
  if (!s) s = play(&p);
  if (!s) s = finish(&p);
  report->frames = p.size;
  report->step = p.play.step;
  report->fps = p.fps;
  if (p.n_error) report->steering_mae = p.sum_error / (double)p.n_error;
  report->seconds = dj__now() - start;
  close_predict(&p);
  return s;
}
