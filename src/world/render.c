/*
 * The renderer's life and its frames: cameras to views, views into one atlas, frames under way in a
 * ring of three, so that on a processor one frame is drawn by Mesa's threads while the next one is
 * being put together. Motion blur and rolling shutter draw a frame several times at moments of its
 * exposure.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dojo/log.h"
#include "world/render_internal.h"

enum { BANDS = 16, BLUR = 8 }; // of a rolling shutter; moments of an exposure

dj_status dj__renderer_create(const dj__map *m, const dj__render_options *o, dj__renderer **out) {
  *out = NULL;
  if (o->samples != 0 && o->samples != 1 && o->samples != 4)
    return dj_error(DJ_E_INVALID, "cameras: %d samples of antialiasing; 1 and 4 are known",
                    o->samples);
  dj__renderer *r = calloc(1, sizeof *r);
  if (!r) return dj_error(DJ_E_NOMEM, "cameras: no memory for a renderer");
  r->options = *o;
  r->map = m;
  r->scale = o->samples == 1 ? 1 : 2;
  for (int k = 0; k < m->n_road; k++) r->indoor |= m->road[k].zone == DJ__ZONE_TRACK;
  r->near = r->indoor ? 0.03f : 0.2f;
  r->far = (float)(o->view > 0 ? o->view : r->indoor ? 100 : 600);
  dj__world_mesh w = {0};
  dj_status s = dj__gl_open(&r->gl);
  if (!s) s = dj__world_mesh_make(m, o->seed ? o->seed : m->seed, &w);
  if (!s) {
    memcpy(r->origin, w.origin, sizeof r->origin);
    r->lens = w.lens;
    r->lamp = w.lamp;
    r->n_lens = w.n_lens;
    r->n_lamp = w.n_lamp;
    w.lens = NULL;
    w.lamp = NULL;
    s = dj__draw_setup(r, &w);
  }
  dj__world_mesh_free(&w);
  if (s) {
    dj__renderer_destroy(r);
    return s;
  }
  *out = r;
  return DJ_OK;
}

static void drop_slot(dj__slot *s) {
  glDeleteFramebuffers(1, &s->frame);
  glDeleteRenderbuffers(1, &s->colour);
  glDeleteRenderbuffers(1, &s->label);
  glDeleteRenderbuffers(1, &s->depth);
  glDeleteBuffers(2, s->pack);
  s->frame = s->colour = s->label = s->depth = s->pack[0] = s->pack[1] = 0;
  s->width = s->height = 0;
}

void dj__renderer_destroy(dj__renderer *r) {
  if (!r) return;
  if (r->gl.context != EGL_NO_CONTEXT && !dj__gl_use(&r->gl)) {
    for (int k = 0; k < DJ__RING; k++) drop_slot(&r->slot[k]);
    dj__draw_teardown(r);
  }
  for (int k = 0; k < DJ__RING; k++) free(r->slot[k].out);
  for (int k = 0; k < DJ__VIEWS; k++) free(r->warp[k].at);
  dj__models_free(r->model);
  free(r->index);
  free(r->block);
  free(r->lens);
  free(r->lamp);
  free(r->gather);
  free(r->instance_data);
  free(r->pixels);
  free(r->stream);
  dj__gl_close(&r->gl);
  free(r);
}

const char *dj__renderer_name(const dj__renderer *r) {
  return r->gl.name;
}

// ---- frames ------------------------------------------------------------------------------------

static dj_status make_slot(dj__renderer *r, dj__slot *s, int w, int h) {
  GLint most = 0;
  glGetIntegerv(GL_MAX_RENDERBUFFER_SIZE, &most);
  if (w > most || h > most)
    return dj_error(DJ_E_LIMIT,
                    "cameras: the rig's pictures need %d x %d samples together; '%s' draws up to "
                    "%d: fewer pixels or cameras, or samples = 1",
                    w, h, r->gl.name, most);
  drop_slot(s);
  glGenFramebuffers(1, &s->frame);
  glBindFramebuffer(GL_FRAMEBUFFER, s->frame);
  GLuint *buffer[3] = {&s->colour, &s->depth, &s->label};
  const GLenum format[3] = {GL_RGBA8, GL_DEPTH_COMPONENT24,
                            r->options.layers & DJ__LAYER_FLOW ? GL_RGBA32UI : GL_RG32UI},
               place[3] = {GL_COLOR_ATTACHMENT0, GL_DEPTH_ATTACHMENT, GL_COLOR_ATTACHMENT1};
  for (int k = 0; k < (r->options.layers ? 3 : 2); k++) {
    glGenRenderbuffers(1, buffer[k]);
    glBindRenderbuffer(GL_RENDERBUFFER, *buffer[k]);
    glRenderbufferStorage(GL_RENDERBUFFER, format[k], w, h);
    glFramebufferRenderbuffer(GL_FRAMEBUFFER, place[k], GL_RENDERBUFFER, *buffer[k]);
  }
  if (glCheckFramebufferStatus(GL_FRAMEBUFFER) != GL_FRAMEBUFFER_COMPLETE)
    return dj_error(DJ_E_UNSUPPORTED, "cameras: '%s' cannot draw into %d x %d samples", r->gl.name,
                    w, h);
  if (!r->gl.software) {
    glGenBuffers(2, s->pack);
    for (int k = 0; k < 2; k++) {
      glBindBuffer(GL_PIXEL_PACK_BUFFER, s->pack[k]);
      glBufferData(GL_PIXEL_PACK_BUFFER, (GLsizeiptr)w * h * (k ? 16 : 4), NULL, GL_STREAM_READ);
    }
    glBindBuffer(GL_PIXEL_PACK_BUFFER, 0);
  }
  s->width = w;
  s->height = h;
  return dj__gl_check("frame buffers");
}

/* Shelves: views side by side until a row is some 4096 samples wide. */
static dj_status lay_out(dj__renderer *r, dj__slot *s) {
  int x = 0, y = 0, row = 0, w = 0;
  for (int k = 0; k < s->n_view; k++) {
    dj__view *v = &s->view[k];
    v->vw = r->scale == 2 ? 2 * v->w + 1 : v->w;
    v->vh = r->scale == 2 ? 2 * v->h + 1 : v->h;
    if (x && x + v->vw > 4096) {
      y += row;
      x = row = 0;
    }
    v->x = x;
    v->y = y;
    x += v->vw;
    row = v->vh > row ? v->vh : row;
    w = x > w ? x : w;
  }
  s->used_w = w;
  s->used_h = y + row;
  if (s->used_w <= s->width && s->used_h <= s->height) return DJ_OK;
  return make_slot(r, s, s->used_w > s->width ? s->used_w : s->width,
                   s->used_h > s->height ? s->used_h : s->height);
}

static void clear(dj__renderer *r, const dj__slot *s) {
  glBindFramebuffer(GL_FRAMEBUFFER, s->frame);
  glEnable(GL_DEPTH_TEST);
  glDepthFunc(GL_LESS);
  glEnable(GL_CULL_FACE);
  glFrontFace(GL_CW); // pictures are drawn upside down
  glPixelStorei(GL_PACK_ALIGNMENT, 1);
  const GLenum all[2] = {GL_COLOR_ATTACHMENT0, GL_COLOR_ATTACHMENT1}; // as they are drawn into
  glDrawBuffers(r->options.layers ? 2 : 1, all);
  glViewport(0, 0, s->used_w, s->used_h);
  glEnable(GL_SCISSOR_TEST);
  glScissor(0, 0, s->used_w, s->used_h);
  glClear(GL_DEPTH_BUFFER_BIT); // the sky covers what nothing else does
  glDisable(GL_SCISSOR_TEST);
}

static void view_poses(dj__slot *s, int k, const dj__scene *now, const dj__scene *next) {
  dj__camera_pose(now, &s->rig.camera[k].camera, &s->view[k].pose);
  dj__camera_pose(next ? next : now, &s->rig.camera[k].camera, &s->view[k].next);
}

static bool swept(const dj__rig *rig) {
  for (int k = 0; k < rig->n_camera; k++)
    if (rig->camera[k].motion_blur > 0 || rig->camera[k].rolling_shutter > 0) return true;
  return false;
}

static dj_status start_slot(dj__renderer *r, dj__slot *s, const dj__rig *rig, bool flow) {
  if (rig->n_camera < 1 || rig->n_camera > DJ__RIG_CAMERAS)
    return dj_error(DJ_E_INVALID, "cameras: the rig '%s' has %d cameras; 1 to %d are drawn",
                    rig->name, rig->n_camera, DJ__RIG_CAMERAS);
  s->rig = *rig;
  s->n_view = rig->n_camera;
  s->done = false;
  s->flow = flow;
  for (int k = 0; k < s->n_view; k++) {
    s->view[k] = (dj__view){.exposure = rig->camera[k].exposure};
    DJ_TRY(dj__camera_source(&rig->camera[k].camera, &s->view[k]));
  }
  DJ_TRY(lay_out(r, s));
  return dj__slot_pictures(r, s);
}

static dj_status draw_slot(dj__renderer *r, dj__slot *s, const dj__scene *now,
                           const dj__scene *next) {
  glActiveTexture(GL_TEXTURE0);
  glBindTexture(GL_TEXTURE_2D_ARRAY, r->textures);
  DJ_TRY(dj__draw_shadow_map(r, now));
  clear(r, s);
  s->time = now->time;
  for (int k = 0; k < s->n_view; k++) {
    view_poses(s, k, now, next);
    DJ_TRY(dj__draw_view(r, now, next, &s->view[k], r->options.layers != 0));
  }
  return DJ_OK;
}

static void request(dj__renderer *r, dj__slot *s) {
  if (r->gl.software) { // copying waits, so it is left to the end
    glFlush();
    return;
  }
  glBindFramebuffer(GL_READ_FRAMEBUFFER, s->frame);
  glReadBuffer(GL_COLOR_ATTACHMENT0);
  glBindBuffer(GL_PIXEL_PACK_BUFFER, s->pack[0]);
  glReadPixels(0, 0, s->used_w, s->used_h, GL_RGBA, GL_UNSIGNED_BYTE, NULL);
  if (r->options.layers) {
    glReadBuffer(GL_COLOR_ATTACHMENT1);
    glBindBuffer(GL_PIXEL_PACK_BUFFER, s->pack[1]);
    glReadPixels(0, 0, s->used_w, s->used_h, GL_RGBA_INTEGER, GL_UNSIGNED_INT, NULL);
  }
  glBindBuffer(GL_PIXEL_PACK_BUFFER, 0);
  glFlush();
}

// ---- blur and rolling shutter
// --------------------------------------------------------------------

static dj_status sweep_once(dj__renderer *r, dj__slot *s, const dj__scene *now, int band, int j,
                            uint32_t *sum) {
  clear(r, s);
  for (int k = 0; k < s->n_view; k++) {
    const dj__rig_camera *c = &s->rig.camera[k];
    double dt = c->rolling_shutter * ((band + 0.5) / BANDS - 0.5) +
                c->motion_blur * ((j + 0.5) / BLUR - 0.5);
    dj__scene_at(now, dt, &r->scratch[0]);
    view_poses(s, k, &r->scratch[0], NULL);
    DJ_TRY(dj__draw_view(r, &r->scratch[0], NULL, &s->view[k], r->options.layers != 0));
  }
  request(r, s);
  DJ_TRY(dj__read_slot(r, s));
  for (int k = 0; k < s->n_view; k++) {
    const dj__picture *p = &s->picture[k];
    int v0 = band * p->height / BANDS, v1 = (band + 1) * p->height / BANDS;
    for (int i = v0 * p->width * 3; i < v1 * p->width * 3; i++)
      sum[i] += (uint32_t)p->rgb[i] * p->rgb[i];
    sum += (size_t)p->width * (size_t)p->height * 3;
  }
  return DJ_OK;
}

/* Pictures as means of linear light over the exposure; labels are those of its middle. */
static dj_status sweep(dj__renderer *r, dj__slot *s, const dj__scene *now, const dj__scene *next) {
  size_t n = 0;
  bool blur = false;
  for (int k = 0; k < s->n_view; k++) {
    n += (size_t)s->picture[k].width * (size_t)s->picture[k].height * 3;
    blur |= s->rig.camera[k].motion_blur > 0;
  }

  uint32_t *sum = calloc(n, sizeof *sum);
  if (!sum) return dj_error(DJ_E_NOMEM, "cameras: no memory for motion blur");
  dj_status status = DJ_OK;
  glActiveTexture(GL_TEXTURE0);
  glBindTexture(GL_TEXTURE_2D_ARRAY, r->textures);
  status = dj__draw_shadow_map(r, now);
  for (int band = 0; band < BANDS && !status; band++)
    for (int j = 0; j < (blur ? BLUR : 1) && !status; j++)
      status = sweep_once(r, s, now, band, blur ? j : BLUR / 2, sum);
  if (!status) status = draw_slot(r, s, now, next);
  if (!status) {
    request(r, s);
    status = dj__read_slot(r, s);
  }
  size_t at = 0;
  for (int k = 0; k < s->n_view && !status; k++) {
    size_t m = (size_t)s->picture[k].width * (size_t)s->picture[k].height * 3;
    uint8_t *rgb = (uint8_t *)s->picture[k].rgb;
    for (size_t i = 0; i < m; i++)
      rgb[i] = (uint8_t)lrintf(sqrtf((float)sum[at + i] / (blur ? BLUR : 1)));
    at += m;
  }
  free(sum);
  s->done = true;
  return status;
}

// ---- the interface -----------------------------------------------------------------------------

dj_status dj__render_begin(dj__renderer *r, const dj__scene *s, const dj__scene *next,
                           const dj__rig *rig) {
  if (r->n_slot == DJ__RING)
    return dj_error(DJ_E_STATE, "cameras: %d frames are under way; end one first", r->n_slot);
  DJ_TRY(dj__gl_use(&r->gl));
  dj__slot *slot = &r->slot[(r->first + r->n_slot) % DJ__RING];
  DJ_TRY(start_slot(r, slot, rig, next && (r->options.layers & DJ__LAYER_FLOW)));
  if (swept(rig)) {
    DJ_TRY(sweep(r, slot, s, next));
  } else {
    DJ_TRY(draw_slot(r, slot, s, next));
    request(r, slot);
  }
  DJ_TRY(dj__gl_check("drawing"));
  r->n_slot++;
  return DJ_OK;
}

dj_status dj__render_end(dj__renderer *r, dj__picture *out) {
  if (!r->n_slot) return dj_error(DJ_E_STATE, "cameras: no frame is under way; begin one first");
  DJ_TRY(dj__gl_use(&r->gl));
  dj__slot *s = &r->slot[r->first];
  r->first = (r->first + 1) % DJ__RING;
  r->n_slot--;
  if (!s->done) DJ_TRY(dj__read_slot(r, s));
  for (int k = 0; k < s->n_view; k++) {
    const dj__picture *p = &s->picture[k];
    float noise = s->rig.camera[k].noise;
    if (noise > 0)
      dj__add_noise((uint8_t *)p->rgb, p->width * p->height, noise,
                    r->options.seed ? r->options.seed : r->map->seed,
                    (uint64_t)llround(s->time * 1e4) * DJ__RIG_CAMERAS + (uint64_t)k);
    out[k] = *p;
  }
  return DJ_OK;
}

dj_status dj__render(dj__renderer *r, const dj__scene *s, const dj__scene *next, const dj__rig *rig,
                     dj__picture *out) {
  DJ_TRY(dj__render_begin(r, s, next, rig));
  return dj__render_end(r, out);
}

dj_status dj__render_view(dj__renderer *r, const dj__scene *s, const double position[3],
                          const double rotation[4], double fov_y, int width, int height,
                          dj__picture *out) {
  if (width < 1 || height < 1 || width > 4000 || height > 4000 || !(fov_y > 0.01 && fov_y < 2.6))
    return dj_error(
        DJ_E_INVALID,
        "cameras: a view of %d x %d pixels and %g rad; 1 to 4000 pixels and 0.01 to 2.6 "
        "rad are drawn",
        width, height, fov_y);
  // A rig of one camera on a vehicle at the origin.
  dj__rig rig = {.name = "view", .n_camera = 1};
  dj_camera *c = &rig.camera[0].camera;
  double f = 0.5 * height / tan(0.5 * fov_y);
  double K[9] = {f, 0, 0.5 * (width - 1), 0, f, 0.5 * (height - 1), 0, 0, 1};
  memcpy(c->K, K, sizeof K);
  c->width = width;
  c->height = height;
  memcpy(c->rotation, rotation, sizeof c->rotation);
  dj__scene *at = &r->scratch[1];
  *at = *s;
  at->x = position[0];
  at->y = position[1];
  at->z = (float)position[2];
  at->yaw = at->pitch = at->roll = 0;
  at->ego_id = UINT32_MAX;
  float far = r->far;
  r->far = fmaxf(far, 5000); // towns from above
  r->aerial = true;
  dj_status status = dj__render(r, at, NULL, &rig, out);
  r->far = far;
  r->aerial = false;
  return status;
}

dj_status dj__render_above(dj__renderer *r, const dj__weather *weather, int width, int height,
                           dj__picture *out) {
  const dj__map *m = r->map;
  dj__scene *s = calloc(1, sizeof *s);
  if (!s) return dj_error(DJ_E_NOMEM, "cameras: no memory for a scene");
  if (weather)
    s->weather = *weather;
  else
    (void)dj__weather_find("clear", &s->weather);
  double x = 0.5 * (m->x0 + m->x1), y = 0.5 * (m->y0 + m->y1), fov = 0.7, down = 0.95;
  double wide = 0.5 * (m->x1 - m->x0) * 1.1 * height / fmax(width, 1),
         high = 0.5 * (m->y1 - m->y0) * 1.1 * sin(down);
  if (r->indoor) { // from below the ceiling, which is not drawn from above
    wide += 1;
    high += 1;
  }
  double away = fmax(wide, high) / tan(0.5 * fov) + 0.5 * (m->y1 - m->y0) * cos(down);
  double position[3] = {x, y - away * cos(down), dj__map_height(m, x, y) + away * sin(down)};
  double half = -0.5 * (0.5 * M_PI + down); // optical axes: ahead and down from the south
  double rotation[4] = {sin(half), 0, 0, cos(half)};
  dj_status status = dj__render_view(r, s, position, rotation, fov, width, height, out);
  free(s);
  return status;
}
