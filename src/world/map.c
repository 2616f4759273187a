/*
 * A map's arrays: made by a builder, finished in a fixed order, freed together.
 */
#include "world/map.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "world/map_build.h"

#define DJ_ARRAYS(X)                                                                               \
  X(road)                                                                                          \
  X(geom)                                                                                          \
  X(elevation)                                                                                     \
  X(offset)                                                                                        \
  X(width)                                                                                         \
  X(section)                                                                                       \
  X(road_lane)                                                                                     \
  X(mark)                                                                                          \
  X(junction)                                                                                      \
  X(connection)                                                                                    \
  X(lane_link)                                                                                     \
  X(signal)                                                                                        \
  X(controller)                                                                                    \
  X(lane) X(point) X(graph) X(conflict) X(stop) X(crossing) X(crossing_lane) X(outline)

dj_status dj__build_start(dj__build *b, const char *name, uint64_t seed) {
  *b = (dj__build){.m = calloc(1, sizeof *b->m)};
  if (!b->m) return dj_error(DJ_E_NOMEM, "no memory for a map");
  dj__map *m = b->m; /* no array is NULL: there is always one to point into */
#define DJ_X(what)                                                                                 \
  if (!(m->what = calloc(1, sizeof *m->what))) b->failed = true;
  DJ_ARRAYS(DJ_X)
#undef DJ_X
  if (b->failed) {
    dj__build_drop(b);
    return dj_error(DJ_E_NOMEM, "no memory for a map");
  }
  size_t n = strlen(name);
  if (n >= sizeof b->m->name) n = sizeof b->m->name - 1;
  memcpy(b->m->name, name, n);
  b->m->seed = seed;
  return DJ_OK;
}

void *dj__build_push(dj__build *b, void *array, int *n, size_t size) {
  void *at = NULL;
  memcpy(&at, array, sizeof at);
  if (!b->failed && (*n & (*n - 1)) == 0) {
    void *grown = *n < 1 << 29 ? realloc(at, (*n ? 2 * (size_t)*n : 1) * size) : NULL;
    if (grown)
      memcpy(array, &grown, sizeof grown);
    else
      b->failed = true;
    at = grown;
  }
  if (b->failed) return memset(b->scratch, 0, sizeof b->scratch);
  return memset((char *)at + (size_t)(*n)++ * size, 0, size);
}

void dj__build_drop(dj__build *b) {
  dj__map_destroy(b->m);
  b->m = NULL;
}

/* The pieces that make the network, without padding or pointers. */
static uint64_t digest_of(const dj__map *m) {
  uint64_t h = 0;
  for (int i = 0; i < m->n_point; i++) {
    const dj__lane_point *p = &m->point[i];
    double v[4] = {p->x, p->y, p->z, p->width};
    h = dj__hash64(v, sizeof v, h);
  }
  for (int i = 0; i < m->n_lane; i++) {
    const dj__lane *l = &m->lane[i];
    int v[9] = {l->road, l->id,    (int)l->type, l->n_point, l->n_succ,
                l->left, l->right, l->junction,  l->stop};
    h = dj__hash64(v, sizeof v, h);
    h = dj__hash64(&l->speed_limit, sizeof l->speed_limit, h);
  }
  h = dj__hash64(m->graph, (size_t)m->n_graph * sizeof *m->graph, h);
  for (int i = 0; i < m->n_stop; i++) {
    const dj__stop_line *p = &m->stop[i];
    double v[6] = {p->lane, p->s, p->control, p->green0, p->green1, p->yellow};
    h = dj__hash64(v, sizeof v, h);
  }
  return h;
}

dj_status dj__build_finish(dj__build *b, dj__map **out) {
  *out = NULL;
  dj_status s = DJ_OK;
  DJ_TRY_GOTO(s, dj__map_sample_lanes(b));
  DJ_TRY_GOTO(s, dj__map_make_index(b->m));
  DJ_TRY_GOTO(s, dj__map_link_lanes(b));
  DJ_TRY_GOTO(s, dj__map_place_stops(b));
  DJ_TRY_GOTO(s, dj__map_find_outlines(b));
  DJ_TRY_GOTO(s, dj__map_find_conflicts(b));
  if (b->failed) {
    s = dj_error(DJ_E_NOMEM, "%s: no memory for a map of %d roads", b->m->name, b->m->n_road);
    goto fail;
  }
  DJ_TRY_GOTO(s, dj__map_make_terrain(b->m));
  b->m->digest = digest_of(b->m);
  *out = b->m;
  b->m = NULL;
  return DJ_OK;
fail:
  dj__build_drop(b);
  return s;
}

void dj__map_destroy(dj__map *m) {
  if (!m) return;
#define DJ_X(what) free(m->what);
  DJ_ARRAYS(DJ_X)
#undef DJ_X
  dj__map_free_index(m->index);
  dj__map_free_terrain(m->terrain);
  free(m);
}

dj__light dj__map_light(const dj__map *m, int stop, double t) {
  if (stop < 0 || stop >= m->n_stop) return DJ__LIGHT_OFF;
  const dj__stop_line *p = &m->stop[stop];
  double cycle = p->control == DJ__CONTROL_LIGHTS ? m->junction[p->junction].cycle : 0;
  if (!(cycle > 0)) return DJ__LIGHT_OFF;
  double at = t - cycle * (double)(int64_t)(t / cycle);
  if (at < 0) at += cycle;
  if (at >= p->green0 && at < p->green1) return DJ__LIGHT_GREEN;
  if (at >= p->green1 && at < p->green1 + p->yellow) return DJ__LIGHT_YELLOW;
  double until = p->green0 - at;
  if (until <= 0) until += cycle;
  return until <= 1 ? DJ__LIGHT_RED_YELLOW : DJ__LIGHT_RED;
}
