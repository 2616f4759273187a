/*
 * The loader: threads that fill batches ahead of the training step.
 *
 * A batch is a pure function of (dataset, options, step): order and augmentation come from
 * counter-based random numbers, so neither the number of threads nor jumps nor a resume change a
 * byte. A ring of slots is allocated once; in the steady state nothing is.
 *
 * Slots go EMPTY -> FILLING (a worker has it) -> READY -> IN_USE (the caller has it) -> EMPTY.
 * Workers take the lowest step in [next, next + prefetch) that no slot holds. After a jump, slots
 * outside that window are dropped: READY at once, FILLING when their worker is done.
 */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "drive/labels.h"
#include "fleet/augment.h"
#include "fleet/dataset.h"

enum { MAX_THREADS = 64, MAX_PREFETCH = 64, MAX_HOP = 1 << 20, ALIGN = 64 };
static const uint64_t max_slot_bytes = 1ull << 34;

typedef enum slot_state { EMPTY, FILLING, READY, IN_USE } slot_state;

typedef struct slot {
  slot_state state;
  uint64_t step;
  dj_batch batch;
  unsigned char *memory; // all its arrays
} slot;

struct dj_loader {
  dj_dataset *ds;
  dj_loader_options o;
  uint64_t epoch_steps;
  int16_t *noise; // (DJ__NOISE_TABLE)
  int n_slots;
  slot *slots;
  pthread_mutex_t lock;
  pthread_cond_t work, ready; // for workers; for the caller
  uint64_t next;              // first step not yet given out
  bool started, stop;
  int n_threads;
  pthread_t threads[MAX_THREADS];
};

// ---- which samples
// -----------------------------------------------------------------------------------

/*
 * Permutation of [0, n) without a table: a Feistel network on the smallest even number of bits that
 * holds n, walked until it lands inside (Black and Rogaway, "Ciphers with arbitrary finite
 * domains", CT-RSA 2002). Under four steps on average.
 */
static uint64_t permute(uint64_t i, uint64_t n, uint64_t seed, uint64_t epoch) {
  enum { ROUNDS = 6 };
  static const char name[] = "shuffle";
  const uint64_t key = seed ^ dj__hash64(name, sizeof name - 1, 0);
  int half = 1;
  while (half < 31 && (uint64_t)1 << (2 * half) < n) half++;
  const uint64_t mask = ((uint64_t)1 << half) - 1;
  do {
    uint64_t l = i >> half, r = i & mask;
    for (int k = 0; k < ROUNDS; k++) {
      const uint64_t f = dj__philox(key, epoch, (uint64_t)k << 32 | r).v[0];
      const uint64_t t = (l ^ f) & mask;
      l = r;
      r = t;
    }
    i = l << half | r;
  } while (i >= n);
  return i;
}

/* Windows of one epoch. */
static uint64_t epoch_windows(const dj_dataset *ds, const dj_loader_options *o) {
  return (ds->size + (uint64_t)o->hop - 1) / (uint64_t)o->hop;
}

static uint64_t sample_of(const dj_loader *ld, uint64_t step, int index) {
  static const char name[] = "hop";
  const uint64_t n = epoch_windows(ld->ds, &ld->o), epoch = step / ld->epoch_steps,
                 hop = (uint64_t)ld->o.hop;
  const uint64_t at = ((step % ld->epoch_steps) * (uint64_t)ld->o.batch + (uint64_t)index) % n;
  if (!ld->o.shuffle) return at * hop;
  const uint64_t key = ld->o.seed ^ dj__hash64(name, sizeof name - 1, 0);
  const uint64_t end =
      permute(at, n, ld->o.seed, epoch) * hop + dj__philox(key, epoch, 0).v[0] % hop;
  return end < ld->ds->size ? end : ld->ds->size - 1;
}

// ---- filling
// -------------------------------------------------------------------------------------------

/* Labels of frame k of window b, and where they lie in the batch. */
static void fill_labels(const dj_loader *ld, const dj__draw *draw, dj_batch *b, size_t at,
                        const dj__shard *s, size_t i, const dj__shard *before, size_t before_i) {
  float *control = b->control + at * 3, *motion = b->motion + at * 3;
  float *path = b->path + at * DJ_PATH_POINTS * 3, *path_mask = b->path_mask + at * DJ_PATH_POINTS;
  memcpy(control, s->control + i * 3, 3 * sizeof *control);
  memcpy(b->control_mask + at * 3, s->control_mask + i * 3, 3 * sizeof *control);
  b->speed[at] = s->speed[i];
  b->speed_mask[at] = s->speed_mask[i];
  memcpy(path, s->path + i * DJ_PATH_POINTS * 3, DJ_PATH_POINTS * 3 * sizeof *path);
  memcpy(path_mask, s->path_mask + i * DJ_PATH_POINTS, DJ_PATH_POINTS * sizeof *path);
  memset(motion, 0, 3 * sizeof *motion);
  b->motion_mask[at] = before && s->pose_mask[i] > 0 && before->pose_mask[before_i] > 0;
  if (before && b->motion_mask[at] > 0)
    dj__labels_motion(before->pose + before_i * 7, s->pose + i * 7, motion);
  dj__augment_labels(draw, &ld->o.augment, control, b->control_mask + at * 3, path, path_mask,
                     motion, b->motion_mask + at);
}

/* The route command; left and right change places in a mirror. */
static float command_of(const dj__shard *s, size_t i, bool mirror) {
  static const float mirrored[DJ_N_ROUTE_COMMANDS] = {
      [DJ_COMMAND_FOLLOW] = DJ_COMMAND_FOLLOW,
      [DJ_COMMAND_LEFT] = DJ_COMMAND_RIGHT,
      [DJ_COMMAND_RIGHT] = DJ_COMMAND_LEFT,
      [DJ_COMMAND_STRAIGHT] = DJ_COMMAND_STRAIGHT,
      [DJ_COMMAND_CHANGE_LEFT] = DJ_COMMAND_CHANGE_RIGHT,
      [DJ_COMMAND_CHANGE_RIGHT] = DJ_COMMAND_CHANGE_LEFT};
  float c = s->command ? s->command[i] : DJ_COMMAND_FOLLOW;
  if (!(c >= 0 && c < DJ_N_ROUTE_COMMANDS)) return DJ_COMMAND_FOLLOW; // a damaged cache
  return mirror ? mirrored[(int)c] : c;
}

static void fill_velocity(dj_batch *b, size_t at, bool mirror, const dj__shard_set *set,
                          size_t frame) {
  double v[2];
  dj__frame_velocity(set, frame, v);
  if (mirror) v[1] = -v[1];
  for (size_t k = 0; k < 2; k++) {
    bool known = isfinite(v[k]);
    b->velocity[2 * at + k] = known ? (float)v[k] : 0;
    b->velocity_mask[2 * at + k] = known ? 1 : 0;
  }
}

/* One window: T frames that end at the sample's frame; before the clip's start its first is
 * repeated. */
static void fill_window(const dj_loader *ld, dj_batch *b, int index) {
  const dj_dataset *ds = ld->ds;
  const uint64_t sample = b->sample[index];
  const dj__dataset_clip *clip = dj__dataset_clip_of(ds, sample);
  const dj__dataset_drive *drive = &ds->drives[clip->drive];
  dj__draw draw = dj__augment_draw(&ld->o.augment, ld->o.seed, b->step, (uint64_t)index);
  if (!drive->grounded) draw.shift = 0; // height unknown: how far the ground would move is too
  dj__warp warp[DJ_MAX_CAMERAS];
  for (int c = 0; c < ds->n_cameras; c++)
    warp[c] = dj__augment_warp(&draw, &drive->shards.views[c], ds->shard.margin_left);
  const uint64_t end = sample - clip->sample;
  const size_t src_bytes = (size_t)ds->shard.width * (size_t)ds->height * 3,
               out_bytes = (size_t)ds->width * (size_t)ds->height * 3;
  const dj__shard *before = NULL;
  size_t before_i = 0;
  for (int k = 0; k < ds->frames; k++) {
    const uint64_t back = (uint64_t)(ds->frames - 1 - k) * (uint64_t)ds->stride;
    const uint64_t frame = clip->first + (end > back ? end - back : 0);
    size_t i;
    const dj__shard *s = dj__shard_at(&drive->shards, frame, &i);
    const size_t at = (size_t)index * (size_t)ds->frames + (size_t)k;
    for (int c = 0; c < ds->n_cameras; c++) {
      const size_t cam = (size_t)c, cams = (size_t)ds->n_cameras;
      dj__augment_image(&draw, &warp[c], ld->noise, (uint32_t)(k * ds->n_cameras + c),
                        s->image + (i * cams + cam) * src_bytes, ds->shard.width,
                        ds->shard.margin_left, ds->width, ds->height,
                        b->image + (at * cams + cam) * out_bytes);
    }
    fill_labels(ld, &draw, b, at, s, i, before, before_i);
    fill_velocity(b, at, draw.mirror, &drive->shards, frame);
    b->command[at] = command_of(s, i, draw.mirror);
    before = s;
    before_i = i;
  }
}

static void fill_batch(const dj_loader *ld, dj_batch *b, uint64_t step) {
  b->step = step;
  for (int i = 0; i < b->b; i++) {
    b->sample[i] = sample_of(ld, step, i);
    fill_window(ld, b, i);
  }
}

// ---- workers (all under ld->lock unless said otherwise)
// ---------------------------------------------------

static bool wanted(const dj_loader *ld, uint64_t step) {
  return step >= ld->next && step - ld->next < (uint64_t)ld->o.prefetch;
}

/* A free slot and the lowest step that is wanted and nobody makes; NULL where there is none. */
static slot *take_work(dj_loader *ld, uint64_t *step) {
  slot *free_slot = NULL;
  for (int i = 0; i < ld->n_slots; i++) {
    slot *s = &ld->slots[i];
    if (s->state == READY && !wanted(ld, s->step)) s->state = EMPTY;
    if (s->state == EMPTY) free_slot = s;
  }
  if (!free_slot || !ld->started) return NULL;
  for (uint64_t k = ld->next; wanted(ld, k); k++) {
    bool made = false;
    for (int i = 0; i < ld->n_slots; i++)
      made |=
          (ld->slots[i].state == READY || ld->slots[i].state == FILLING) && ld->slots[i].step == k;
    if (made) continue;
    *step = k;
    return free_slot;
  }
  return NULL;
}

static void *worker(void *user) {
  dj_loader *ld = user;
  pthread_mutex_lock(&ld->lock);
  while (!ld->stop) {
    uint64_t step;
    slot *s = take_work(ld, &step);
    if (!s) {
      pthread_cond_wait(&ld->work, &ld->lock);
      continue;
    }
    s->state = FILLING;
    s->step = step;
    pthread_mutex_unlock(&ld->lock);
    fill_batch(ld, &s->batch, step);
    pthread_mutex_lock(&ld->lock);
    s->state = wanted(ld, step) ? READY : EMPTY;
    pthread_cond_broadcast(&ld->ready);
  }
  pthread_mutex_unlock(&ld->lock);
  return NULL;
}

// ---- the caller's side
// ----------------------------------------------------------------------------------------

static slot *find_slot(dj_loader *ld, uint64_t step, slot_state state) {
  for (int i = 0; i < ld->n_slots; i++)
    if (ld->slots[i].state == state && ld->slots[i].step == step) return &ld->slots[i];
  return NULL;
}

dj_status dj_loader_next(dj_loader *ld, uint64_t step, dj_batch *out) {
  *out = (dj_batch){0};
  pthread_mutex_lock(&ld->lock);
  int held = 0;
  for (int i = 0; i < ld->n_slots; i++) held += ld->slots[i].state == IN_USE;
  if (held == ld->n_slots) {
    pthread_mutex_unlock(&ld->lock);
    return dj_error(DJ_E_STATE, "loader: all %d batches are in use; release one before the next",
                    held);
  }
  ld->next = step;
  ld->started = true;
  pthread_cond_broadcast(&ld->work);
  slot *s;
  while (!(s = find_slot(ld, step, READY))) pthread_cond_wait(&ld->ready, &ld->lock);
  s->state = IN_USE;
  ld->next = step + 1;
  pthread_cond_broadcast(&ld->work);
  pthread_mutex_unlock(&ld->lock);
  *out = s->batch;
  out->slot = s;
  return DJ_OK;
}

void dj_loader_release(dj_loader *ld, dj_batch *b) {
  slot *s = b->slot;
  if (!s) return;
  pthread_mutex_lock(&ld->lock);
  s->state = EMPTY;
  pthread_cond_broadcast(&ld->work);
  pthread_mutex_unlock(&ld->lock);
  *b = (dj_batch){0};
}

uint64_t dj_loader_epoch_steps(const dj_loader *ld) {
  return ld->epoch_steps;
}

// ---- opening and closing
// -------------------------------------------------------------------------------------

/* One piece of a slot's memory; false where the sum overflows. */
static bool reserve(uint64_t *total, uint64_t count, size_t element, uint64_t *offset) {
  uint64_t bytes;
  *offset = *total;
  if (__builtin_mul_overflow(count, element, &bytes) || bytes > max_slot_bytes) return false;
  *total += (bytes + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
  return *total <= max_slot_bytes;
}

static dj_status make_slot(const dj_loader *ld, slot *s) {
  const dj_dataset *ds = ld->ds;
  dj_batch *b = &s->batch;
  b->b = ld->o.batch;
  b->t = ds->frames;
  b->cameras = ds->n_cameras;
  b->h = ds->height;
  b->w = ds->width;
  const uint64_t bt = (uint64_t)b->b * (uint64_t)b->t;
  const uint64_t pixels = (uint64_t)b->h * (uint64_t)b->w * 3 * (uint64_t)b->cameras;
  uint64_t images, total = 0;
  if (__builtin_mul_overflow(bt, pixels, &images)) images = UINT64_MAX;
  float **const arrays[] = {&b->control,  &b->control_mask,  &b->speed,  &b->speed_mask,
                            &b->path,     &b->path_mask,     &b->motion, &b->motion_mask,
                            &b->velocity, &b->velocity_mask, &b->command};
  const uint64_t per_frame[] = {3, 3, 1, 1, DJ_PATH_POINTS * 3, DJ_PATH_POINTS, 3, 1, 2, 2, 1};
  enum { N = sizeof arrays / sizeof *arrays };
  uint64_t at[N], image_at, sample_at;
  bool ok = reserve(&total, images, 1, &image_at) &&
            reserve(&total, (uint64_t)b->b, sizeof *b->sample, &sample_at);
  for (int i = 0; i < N && ok; i++) ok = reserve(&total, bt * per_frame[i], sizeof(float), &at[i]);
  if (!ok)
    return dj_error(DJ_E_LIMIT,
                    "loader: a batch of %d x %d frames x %d cameras of %dx%d is over %llu GiB",
                    b->b, b->t, b->cameras, b->w, b->h, (unsigned long long)(max_slot_bytes >> 30));
  uint64_t left = dj__memory_available();
  if (s == ld->slots && total > left / 2 / (uint64_t)ld->n_slots)
    return dj_error(
        DJ_E_NOMEM,
        "loader: %d batches of %d x %d frames of %dx%d take %.2f GiB, more than half of "
        "the %.2f GiB that can be had; use a smaller batch, a shorter window or smaller "
        "frames",
        ld->n_slots, b->b, b->t, b->w, b->h, (double)total * ld->n_slots / (1024.0 * 1024 * 1024),
        (double)left / (1024.0 * 1024 * 1024));
  if (posix_memalign((void **)&s->memory, ALIGN, total) != 0) {
    s->memory = NULL;
    return dj_error(DJ_E_NOMEM, "loader: no memory for a batch of %llu bytes",
                    (unsigned long long)total);
  }
  memset(s->memory, 0, total); // touched now: no page faults while training
  b->image = s->memory + image_at;
  b->sample = (uint64_t *)(void *)(s->memory + sample_at);
  for (int i = 0; i < N; i++) *arrays[i] = (float *)(void *)(s->memory + at[i]);
  return DJ_OK;
}

static dj_status check_options(const dj_dataset *ds, dj_loader_options *o) {
  if (o->threads == 0) o->threads = 1;
  if (o->prefetch == 0) o->prefetch = 3;
  if (o->hop == 0) o->hop = 1;
  if (o->batch < 1 || o->batch > 1 << 20)
    return dj_error(DJ_E_INVALID, "loader: batch of %d; it must be 1 to %d", o->batch, 1 << 20);
  if (o->threads < 1 || o->threads > MAX_THREADS || o->prefetch < 1 || o->prefetch > MAX_PREFETCH)
    return dj_error(DJ_E_INVALID, "loader: %d threads, %d batches ahead; at most %d and %d",
                    o->threads, o->prefetch, MAX_THREADS, MAX_PREFETCH);
  if (o->hop < 1 || o->hop > MAX_HOP)
    return dj_error(DJ_E_INVALID, "loader: a hop of %d frames; it must be 1 to %d", o->hop,
                    MAX_HOP);
  return dj__augment_check(&o->augment, ds->n_cameras);
}

static dj_status start(dj_loader *ld) {
  ld->n_slots = ld->o.prefetch + 1; // one with the caller
  ld->slots = calloc((size_t)ld->n_slots, sizeof *ld->slots);
  ld->noise = malloc(DJ__NOISE_TABLE * sizeof *ld->noise);
  if (!ld->slots || !ld->noise) return dj_error(DJ_E_NOMEM, "loader: no memory");
  dj__noise_table(ld->o.seed, ld->noise);
  for (int i = 0; i < ld->n_slots; i++) DJ_TRY(make_slot(ld, &ld->slots[i]));
  for (int i = 0; i < ld->o.threads; i++) {
    int e = pthread_create(&ld->threads[i], NULL, worker, ld);
    if (e) return dj_error(DJ_E_NOMEM, "loader: cannot start thread %d: %s", i, strerror(e));
    pthread_setname_np(ld->threads[i], "dojo-loader");
    ld->n_threads++;
  }
  return DJ_OK;
}

dj_status dj_loader_open(dj_dataset *ds, const dj_loader_options *o, dj_loader **out) {
  *out = NULL;
  dj_loader_options options = *o;
  DJ_TRY(check_options(ds, &options));
  dj_loader *ld = calloc(1, sizeof *ld);
  if (!ld) return dj_error(DJ_E_NOMEM, "loader: no memory");
  ld->ds = ds;
  ld->o = options;
  const uint64_t batch = (uint64_t)options.batch;
  ld->epoch_steps = (epoch_windows(ds, &options) + batch - 1) / batch;
  pthread_mutex_init(&ld->lock, NULL);
  pthread_cond_init(&ld->work, NULL);
  pthread_cond_init(&ld->ready, NULL);
  dj_status s = start(ld);
  if (s) {
    dj_loader_close(ld);
    return s;
  }
  *out = ld;
  return DJ_OK;
}

void dj_loader_close(dj_loader *ld) {
  if (!ld) return;
  pthread_mutex_lock(&ld->lock);
  ld->stop = true;
  pthread_cond_broadcast(&ld->work);
  pthread_mutex_unlock(&ld->lock);
  for (int i = 0; i < ld->n_threads; i++) pthread_join(ld->threads[i], NULL);
  pthread_cond_destroy(&ld->ready);
  pthread_cond_destroy(&ld->work);
  pthread_mutex_destroy(&ld->lock);
  for (int i = 0; ld->slots && i < ld->n_slots; i++) free(ld->slots[i].memory);
  free(ld->slots);
  free(ld->noise);
  free(ld);
}
