/* The memory of traffic: one block, carved into arrays, so that a copy is one memcpy; digests. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "world/traffic.h"

typedef struct carver {
  char *base; /* NULL: only counting */
  size_t used;
} carver;

static void *carve(carver *c, size_t n, size_t size) {
  void *p = c->base ? c->base + c->used : NULL;
  c->used += (n * size + 63) & ~(size_t)63;
  return p;
}

/* Places every array; with base NULL only the size is worked out. */
static size_t lay_out(dj__traffic *t, void *base) {
  carver c = {base, 0};
  dj__agents *a = &t->agents;
  size_t n = (size_t)a->capacity, lanes = (size_t)t->map->n_lane;
#define ARRAY(p, count) (p) = carve(&c, (count), sizeof *(p))
  ARRAY(a->kind, n);
  ARRAY(a->flags, n);
  ARRAY(a->lamps, n);
  ARRAY(a->variant, n);
  ARRAY(a->id, n);
  ARRAY(a->x, n);
  ARRAY(a->y, n);
  ARRAY(a->z, n);
  ARRAY(a->yaw, n);
  ARRAY(a->pitch, n);
  ARRAY(a->roll, n);
  ARRAY(a->speed, n);
  ARRAY(a->accel, n);
  ARRAY(a->yaw_rate, n);
  ARRAY(a->steer, n);
  ARRAY(a->length, n);
  ARRAY(a->width, n);
  ARRAY(a->height, n);
  ARRAY(a->lane, n);
  ARRAY(a->s, n);
  ARRAY(a->t, n);
  ARRAY(t->mind, n);
  ARRAY(t->plan, n);
  ARRAY(t->odd, n);
  ARRAY(t->lane_head, lanes);
  ARRAY(t->intent_head, lanes);
  ARRAY(t->entry, (size_t)t->max_entry);
  ARRAY(t->intent, (size_t)t->max_entry);
  ARRAY(t->touched, (size_t)t->max_entry * 2);
  ARRAY(t->hash.start, (size_t)t->hash.n_bucket + 1);
  ARRAY(t->hash.item, n);
  ARRAY(t->hash.bucket, n);
  ARRAY(t->hash.cell, n);
#undef ARRAY
  return c.used;
}

dj_status dj__traffic_create(dj__net *net, uint64_t seed, const dj__population *p,
                             dj__traffic **out) {
  *out = NULL;
  dj__traffic *t = calloc(1, sizeof *t);
  if (!t) return dj_error(DJ_E_NOMEM, "no memory for traffic");
  t->net = dj__net_share(net);
  t->map = net->map;
  t->seed = seed;
  t->next_id = 1;
  t->next_order = 1;
  t->friction = 0.9;
  t->wary = 1;
  t->n_external = p->n_external;
  t->n_people = p->n_vehicle + p->n_cyclist + p->n_pedestrian;
  t->first_spare = p->n_external + t->n_people + p->n_parked;
  t->agents.n =
      p->n_external + p->n_vehicle + p->n_cyclist + p->n_pedestrian + p->n_parked + p->n_spare;
  t->agents.capacity = (t->agents.n + 15) & ~15;
  t->max_entry = 6 * t->agents.capacity;
  t->hash.n_bucket = 64;
  while (t->hash.n_bucket < 2 * t->agents.capacity) t->hash.n_bucket *= 2;
  for (int l = 0; l < t->map->n_lane && !t->toy; l++)
    t->toy = t->map->lane[l].zone == DJ__ZONE_TRACK;
  t->block_size = lay_out(t, NULL);
  t->block = aligned_alloc(64, t->block_size);
  if (!t->block) {
    dj_status s =
        dj_error(DJ_E_NOMEM, "no memory for %d agents (%zu bytes)", t->agents.n, t->block_size);
    dj__traffic_destroy(t);
    return s;
  }
  memset(t->block, 0, t->block_size);
  (void)lay_out(t, t->block);
  for (int l = 0; l < t->map->n_lane; l++) t->lane_head[l] = t->intent_head[l] = -1;
  for (int i = 0; i < t->agents.n; i++) dj__agent_clear(t, i);
  *out = t;
  return DJ_OK;
}

void dj__traffic_destroy(dj__traffic *t) {
  if (!t) return;
  dj__net_release(t->net);
  free(t->block);
  free(t);
}

dj_status dj__traffic_clone(const dj__traffic *t, dj__traffic **copy) {
  *copy = NULL;
  dj__traffic *c = malloc(sizeof *c);
  void *block = aligned_alloc(64, t->block_size);
  if (!c || !block) {
    free(c);
    free(block);
    return dj_error(DJ_E_NOMEM, "no memory for a copy of traffic");
  }
  *c = *t;
  c->net = dj__net_share(t->net);
  c->block = block;
  memcpy(block, t->block, t->block_size);
  (void)lay_out(c, block);
  *copy = c;
  return DJ_OK;
}

/* Lists and hashes are made anew from the rest in every step; they need no place in a digest. */
uint64_t dj__traffic_digest(const dj__traffic *t, uint64_t h) {
  const dj__agents *a = &t->agents;
  uint64_t n = (uint64_t)a->n;
#define HASH(p) h = dj__hash64((p), n * sizeof *(p), h)
  HASH(a->kind);
  HASH(a->flags);
  HASH(a->lamps);
  HASH(a->variant);
  HASH(a->id);
  HASH(a->x);
  HASH(a->y);
  HASH(a->z);
  HASH(a->yaw);
  HASH(a->pitch);
  HASH(a->roll);
  HASH(a->speed);
  HASH(a->accel);
  HASH(a->yaw_rate);
  HASH(a->steer);
  HASH(a->length);
  HASH(a->width);
  HASH(a->height);
  HASH(a->lane);
  HASH(a->s);
  HASH(a->t);
  HASH(t->mind);
#undef HASH
  double more[] = {(double)t->step, t->time,   (double)t->next_id, (double)t->next_order,
                   t->home_x,       t->home_y, t->radius};
  return dj__hash64(more, sizeof more, h);
}
