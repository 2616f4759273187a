/*
 * Reading picture files ahead of an import. Decoding each picture once, to know that it is whole,
 * is most of what an import costs; threads do it while the import writes the log.
 *
 * A ring of AHEAD slots; slot i % AHEAD is for picture i. Workers take pictures in order of their
 * index, at most AHEAD beyond the one that is taken next, and start none while BUDGET bytes lie
 * ready. So memory is bounded, and what comes out is a matter of the index alone: a log does not
 * depend on the number of threads.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "fleet/image.h"
#include "fleet/importers/importer.h"

enum { AHEAD = 32, MAX_THREADS = 8, MAX_IMAGE = 64 << 20, BUDGET = 64 << 20 };

typedef enum slot_state { EMPTY, LOADING, READY } slot_state;

typedef struct slot {
  slot_state state;
  uint8_t *data;
  size_t size;
  const char *format;
  dj_status status;
  char *message; // of a failure
} slot;

struct dj__pictures {
  const dj_camera *cameras;
  size_t n;
  dj__picture_path_fn *path;
  const void *user;
  slot slots[AHEAD];
  size_t first; // lowest index that may still be taken
  size_t next;  // lowest index that no worker has begun
  size_t bytes; // in slots that are ready
  bool stop;
  pthread_mutex_t lock;
  pthread_cond_t work, ready;
  int n_threads;
  pthread_t threads[MAX_THREADS];
};

/* One picture: read, and decoded into the worker's scratch, which grows as needed. */
static dj_status load(const dj__pictures *p, size_t index, uint8_t **scratch, size_t *scratch_size,
                      slot *s) {
  int camera = 0;
  char *path = p->path(p->user, index, &camera), *bytes = NULL;
  if (!path) return dj_error(DJ_E_FORMAT, "no picture file is named");
  const dj_camera *c = &p->cameras[camera];
  size_t want = (size_t)c->width * (size_t)c->height * 3;
  dj_status st = DJ_OK;
  if (*scratch_size < want) {
    free(*scratch);
    *scratch = malloc(want);
    *scratch_size = *scratch ? want : 0;
    if (!*scratch) st = dj_error(DJ_E_NOMEM, "no memory for a picture of %zu bytes", want);
  }
  if (!st) st = dj__read_file(path, MAX_IMAGE, &bytes, &s->size);
  if (!st) {
    s->format = dj__image_format(bytes, s->size);
    st = dj__image_decode_into(bytes, s->size, c->width, c->height, *scratch);
    if (st) st = dj_error_context(st, "%s", path);
  }
  free(path);
  if (st)
    free(bytes);
  else
    s->data = (uint8_t *)bytes;
  return st;
}

static bool may_start(const dj__pictures *p) {
  return p->next < p->n && p->next < p->first + AHEAD && p->bytes < BUDGET;
}

static void *worker(void *user) {
  dj__pictures *p = user;
  uint8_t *scratch = NULL;
  size_t scratch_size = 0;
  pthread_mutex_lock(&p->lock);
  while (!p->stop) {
    if (!may_start(p)) {
      pthread_cond_wait(&p->work, &p->lock);
      continue;
    }
    const size_t index = p->next++;
    slot *s = &p->slots[index % AHEAD], done = {.state = READY};
    s->state = LOADING;
    pthread_mutex_unlock(&p->lock);
    done.status = load(p, index, &scratch, &scratch_size, &done);
    if (done.status) {
      done.message = dj__strf("%s", dj_error_message());
      done.size = 0;
    }
    pthread_mutex_lock(&p->lock);
    *s = done;
    p->bytes += done.size;
    pthread_cond_broadcast(&p->ready);
  }
  pthread_mutex_unlock(&p->lock);
  free(scratch);
  return NULL;
}

/* Waits for the picture of p->first and empties its slot. With p->lock held. */
static slot wait_first(dj__pictures *p) {
  slot *s = &p->slots[p->first % AHEAD];
  while (s->state != READY) pthread_cond_wait(&p->ready, &p->lock);
  slot out = *s;
  *s = (slot){0};
  p->bytes -= out.size;
  p->first++;
  pthread_cond_broadcast(&p->work);
  return out;
}

dj_status dj__pictures_take(dj__pictures *p, size_t index, uint8_t **data, size_t *size,
                            const char **format) {
  *data = NULL;
  pthread_mutex_lock(&p->lock);
  if (index < p->first || index >= p->n) {
    pthread_mutex_unlock(&p->lock);
    return dj_error(DJ_E_INVALID, "picture %zu of %zu asked for after %zu", index, p->n, p->first);
  }
  while (p->first < index) { // passed over by the importer
    slot unused = wait_first(p);
    free(unused.data);
    free(unused.message);
  }
  slot s = wait_first(p);
  pthread_mutex_unlock(&p->lock);
  if (s.status) {
    (void)dj_error(s.status, "%s", s.message);
    free(s.message);
    return s.status;
  }
  *data = s.data;
  *size = s.size;
  *format = s.format;
  return DJ_OK;
}

dj_status dj__pictures_open(const dj__import *im, size_t n, dj__picture_path_fn *path,
                            const void *user, dj__pictures **out) {
  *out = NULL;
  dj__pictures *p = calloc(1, sizeof *p);
  if (!p) return dj_error(DJ_E_NOMEM, "no memory to read pictures");
  *p = (dj__pictures){.cameras = im->info.cameras, .n = n, .path = path, .user = user};
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->work, NULL);
  pthread_cond_init(&p->ready, NULL);
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  int want = cores < 1 ? 1 : cores > MAX_THREADS ? MAX_THREADS : (int)cores;
  for (int i = 0; i < want; i++) {
    int e = pthread_create(&p->threads[i], NULL, worker, p);
    if (e && i == 0) {
      dj__pictures_close(p);
      return dj_error(DJ_E_NOMEM, "cannot start a thread to read pictures: %s", strerror(e));
    }
    if (e) break;
    pthread_setname_np(p->threads[i], "dojo-pictures");
    p->n_threads++;
  }
  *out = p;
  return DJ_OK;
}

void dj__pictures_close(dj__pictures *p) {
  if (!p) return;
  pthread_mutex_lock(&p->lock);
  p->stop = true;
  pthread_cond_broadcast(&p->work);
  pthread_mutex_unlock(&p->lock);
  for (int i = 0; i < p->n_threads; i++) pthread_join(p->threads[i], NULL);
  pthread_cond_destroy(&p->ready);
  pthread_cond_destroy(&p->work);
  pthread_mutex_destroy(&p->lock);
  for (int i = 0; i < AHEAD; i++) {
    free(p->slots[i].data);
    free(p->slots[i].message);
  }
  free(p);
}
