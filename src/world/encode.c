/* Encoding threads: a ring of frames, each thread walking it on its own for the cameras it has. */
#include "world/encode.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fleet/image.h"
#include "fleet/video_write.h"

enum { MAX_THREADS = DJ__RIG_CAMERAS, MAX_MESSAGE = 512 };

typedef struct slot { // one frame under way
  uint8_t *pixels[DJ__RIG_CAMERAS][1 + DJ_N_LAYERS];
  dj__encoded out;
  int left; // cameras not done
  dj_status status;
  char message[MAX_MESSAGE];
} slot;

typedef struct worker {
  struct dj__encoders *e;
  int index;
  pthread_t thread;
} worker;

struct dj__encoders {
  dj__encode_options o;
  dj__rig rig;
  dj__video_encoder *video[DJ__RIG_CAMERAS];
  slot slots[DJ__ENCODE_DEPTH];
  worker workers[MAX_THREADS];
  int n_workers;
  pthread_mutex_t lock; // of what follows, and of left and status in slots
  pthread_cond_t pushed_one, done_one;
  uint64_t pushed, taken; // frames
  bool stop;
};

static size_t pixel_bytes(int part) {
  static const size_t bytes[1 + DJ_N_LAYERS] = {3, sizeof(float), 1, sizeof(uint32_t)};
  return bytes[part];
}

static bool wanted(const dj__encoders *e, int part) {
  return part == 0 || (e->o.layers & 1u << (part - 1)) != 0;
}

static dj_status copy(const uint8_t *data, size_t size, uint8_t **out, size_t *out_size) {
  *out = malloc(size ? size : 1);
  if (!*out) return dj_error(DJ_E_NOMEM, "no memory for a picture of %zu bytes", size);
  memcpy(*out, data, size);
  *out_size = size;
  return DJ_OK;
}

static dj_status encode_colour(dj__encoders *e, int camera, const uint8_t *rgb, uint8_t **data,
                               size_t *size) {
  const dj_camera *c = &e->rig.camera[camera].camera;
  if (!e->o.video) return dj__jpeg_encode(rgb, c->width, c->height, e->o.quality, data, size);
  const uint8_t *unit;
  size_t n;
  if (!e->video[camera])
    DJ_TRY(dj__video_encoder_open(c->width, c->height, e->o.rate, &e->video[camera]));
  DJ_TRY(dj__video_encode(e->video[camera], rgb, &unit, &n));
  return copy(unit, n, data, size);
}

static dj_status encode_camera(dj__encoders *e, slot *s, int camera) {
  const dj_camera *c = &e->rig.camera[camera].camera;
  DJ_TRY(encode_colour(e, camera, s->pixels[camera][0], &s->out.part[camera][0].data,
                       &s->out.part[camera][0].size));
  for (int part = 1; part <= DJ_N_LAYERS; part++)
    if (wanted(e, part))
      DJ_TRY(dj_layer_encode((dj_layer)(part - 1), s->pixels[camera][part], c->width, c->height,
                             &s->out.part[camera][part].data, &s->out.part[camera][part].size));
  return DJ_OK;
}

static void *work(void *user) {
  worker *w = user;
  dj__encoders *e = w->e;
  for (uint64_t frame = 0;; frame++) {
    (void)pthread_mutex_lock(&e->lock);
    while (e->pushed <= frame && !e->stop) (void)pthread_cond_wait(&e->pushed_one, &e->lock);
    bool stop = e->stop;
    (void)pthread_mutex_unlock(&e->lock);
    if (stop) return NULL;
    slot *s = &e->slots[frame % DJ__ENCODE_DEPTH];
    int n = 0;
    dj_status status = DJ_OK;
    for (int c = w->index; c < e->rig.n_camera; c += e->n_workers, n++) {
      dj_status st = encode_camera(e, s, c);
      if (st && !status) status = st;
    }
    (void)pthread_mutex_lock(&e->lock);
    s->left -= n;
    if (status && !s->status) {
      s->status = status;
      (void)snprintf(s->message, sizeof s->message, "%s", dj_error_message());
    }
    if (!s->left) (void)pthread_cond_broadcast(&e->done_one);
    (void)pthread_mutex_unlock(&e->lock);
  }
}

static dj_status make_slots(dj__encoders *e) {
  for (int i = 0; i < DJ__ENCODE_DEPTH; i++)
    for (int c = 0; c < e->rig.n_camera; c++)
      for (int part = 0; part <= DJ_N_LAYERS; part++) {
        const dj_camera *k = &e->rig.camera[c].camera;
        size_t n = (size_t)k->width * (size_t)k->height * pixel_bytes(part);
        if (!wanted(e, part)) continue;
        if (!(e->slots[i].pixels[c][part] = malloc(n)))
          return dj_error(DJ_E_NOMEM, "no memory for pictures of %d x %d pixels", k->width,
                          k->height);
      }
  return DJ_OK;
}

dj_status dj__encoders_create(const dj__encode_options *o, dj__encoders **out) {
  *out = NULL;
  dj__encoders *e = calloc(1, sizeof *e);
  if (!e) return dj_error(DJ_E_NOMEM, "no memory for encoders");
  e->o = *o;
  e->rig = *o->rig;
  (void)pthread_mutex_init(&e->lock, NULL);
  (void)pthread_cond_init(&e->pushed_one, NULL);
  (void)pthread_cond_init(&e->done_one, NULL);
  dj_status s = make_slots(e);
  int n = o->threads < 1 ? 1 : o->threads;
  if (n > e->rig.n_camera) n = e->rig.n_camera;
  e->n_workers = n;
  for (int i = 0; i < n && !s; i++) {
    e->workers[i] = (worker){.e = e, .index = i};
    if (pthread_create(&e->workers[i].thread, NULL, work, &e->workers[i])) {
      e->n_workers = i;
      s = dj_error(DJ_E_NOMEM, "cannot start a thread to encode pictures");
    }
  }
  if (s) {
    dj__encoders_destroy(e);
    return s;
  }
  *out = e;
  return DJ_OK;
}

void dj__encoded_free(dj__encoded *f) {
  for (int c = 0; c < DJ__RIG_CAMERAS; c++)
    for (int part = 0; part <= DJ_N_LAYERS; part++) free(f->part[c][part].data);
  *f = (dj__encoded){0};
}

void dj__encoders_destroy(dj__encoders *e) {
  if (!e) return;
  (void)pthread_mutex_lock(&e->lock);
  e->stop = true;
  (void)pthread_cond_broadcast(&e->pushed_one);
  (void)pthread_mutex_unlock(&e->lock);
  for (int i = 0; i < e->n_workers; i++)
    if (e->workers[i].e) (void)pthread_join(e->workers[i].thread, NULL);
  for (int i = 0; i < DJ__ENCODE_DEPTH; i++) {
    dj__encoded_free(&e->slots[i].out);
    for (int c = 0; c < DJ__RIG_CAMERAS; c++)
      for (int part = 0; part <= DJ_N_LAYERS; part++) free(e->slots[i].pixels[c][part]);
  }
  for (int c = 0; c < DJ__RIG_CAMERAS; c++) dj__video_encoder_close(e->video[c]);
  (void)pthread_mutex_destroy(&e->lock);
  (void)pthread_cond_destroy(&e->pushed_one);
  (void)pthread_cond_destroy(&e->done_one);
  free(e);
}

int dj__encoders_pending(const dj__encoders *e) {
  return (int)(e->pushed - e->taken);
}

dj_status dj__encoders_push(dj__encoders *e, const dj__picture *pictures) {
  if (dj__encoders_pending(e) == DJ__ENCODE_DEPTH)
    return dj_error(DJ_E_STATE, "%d frames are being encoded: take one first", DJ__ENCODE_DEPTH);
  slot *s = &e->slots[e->pushed % DJ__ENCODE_DEPTH];
  for (int c = 0; c < e->rig.n_camera; c++) {
    const dj__picture *p = &pictures[c];
    const void *const from[1 + DJ_N_LAYERS] = {p->rgb, p->depth, p->semantic, p->instance};
    for (int part = 0; part <= DJ_N_LAYERS; part++) {
      if (!wanted(e, part)) continue;
      if (!from[part])
        return dj_error(DJ_E_STATE, "camera %s was drawn without its %s",
                        e->rig.camera[c].camera.name, part ? dj_layer_name(part - 1) : "colour");
      memcpy(s->pixels[c][part], from[part],
             (size_t)p->width * (size_t)p->height * pixel_bytes(part));
    }
  }
  (void)pthread_mutex_lock(&e->lock);
  s->left = e->rig.n_camera;
  s->status = DJ_OK;
  e->pushed++;
  (void)pthread_cond_broadcast(&e->pushed_one);
  (void)pthread_mutex_unlock(&e->lock);
  return DJ_OK;
}

bool dj__encoders_ready(dj__encoders *e) {
  if (!dj__encoders_pending(e)) return false;
  (void)pthread_mutex_lock(&e->lock);
  bool ready = e->slots[e->taken % DJ__ENCODE_DEPTH].left == 0;
  (void)pthread_mutex_unlock(&e->lock);
  return ready;
}

dj_status dj__encoders_take(dj__encoders *e, dj__encoded *frame) {
  *frame = (dj__encoded){0};
  if (!dj__encoders_pending(e)) return dj_error(DJ_E_STATE, "no frame is being encoded");
  slot *s = &e->slots[e->taken % DJ__ENCODE_DEPTH];
  (void)pthread_mutex_lock(&e->lock);
  while (s->left) (void)pthread_cond_wait(&e->done_one, &e->lock);
  (void)pthread_mutex_unlock(&e->lock);
  *frame = s->out;
  s->out = (dj__encoded){0};
  e->taken++;
  return s->status ? dj_error(s->status, "%s", s->message) : DJ_OK;
}
