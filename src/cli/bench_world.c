/*
 * `dojo bench world`: how fast the world runs. Every row is one function; each runs in pieces of
 * about a tenth of its time, and reports the median piece and the fastest one.
 */
#include "cli/bench_world.h"

#include <jansson.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/bench_cameras.h"
#include "cli/bench_median.h"
#include "cli/cli.h"
#include "world/world.h"

enum { PIECES = 10, WORLDS = 64, AGENTS = 64, NEAR = 8 };

dj_status dj__bench_pieces(double seconds, double each, dj_status (*step)(void *data), void *data,
                           dj__bench_world_result *r) {
  double rate[PIECES];
  for (int k = 0; k < PIECES; k++) {
    double start = dj__now(), end;
    int n = 0;
    do {
      DJ_TRY(step(data));
      n++;
      end = dj__now();
    } while (end - start < seconds / PIECES);
    rate[k] = n * each / (end - start);
  }
  r->value = dj__median(rate, PIECES);
  r->fastest = rate[PIECES - 1];
  return DJ_OK;
}

static dj_status town(dj__map **m) {
  return dj__map_generate(&(dj__town_config){.seed = 7, .style = DJ__TOWN_GRID, .hills = -1}, m);
}

/* ---- many worlds at once ---- */
typedef struct vector {
  dj__worlds *w;
  float *action, *observation;
  uint8_t *collision;
} vector;

static dj_status vector_step(void *data) {
  vector *v = data;
  dj__worlds_step(v->w, v->action, v->observation, v->collision);
  return DJ_OK;
}

static dj_status time_vector(const dj__bench_world_options *o, bool actions,
                             dj__bench_world_result *r) {
  dj__map *m = NULL;
  vector v = {0};
  size_t n = (size_t)WORLDS * AGENTS;
  dj_status s = town(&m);
  int threads = o->threads ? o->threads : omp_get_num_procs();
  dj__worlds_config c = {.map = m,
                         .n_world = WORLDS,
                         .n_agent = AGENTS,
                         .n_near = NEAR,
                         .seed = 1,
                         .threads = threads};
  if (!s) s = dj__worlds_create(&c, &v.w);
  if (!s) {
    v.observation = malloc(n * (8 + 7 * NEAR) * sizeof *v.observation);
    v.collision = malloc(n);
    if (actions) v.action = calloc(n * 2, sizeof *v.action);
    if (!v.observation || !v.collision || (actions && !v.action))
      s = dj_error(DJ_E_NOMEM, "no memory for observations");
  }
  if (!s) {
    for (int k = 0; k < 20; k++) (void)vector_step(&v); /* spread out, caches warm */
    s = dj__bench_pieces(o->seconds, (double)n, vector_step, &v, r);
    (void)snprintf(r->detail, sizeof r->detail,
                   "%d worlds x %d agents %s, collisions, %d neighbours, observations, %d thread%s",
                   WORLDS, AGENTS, actions ? "with given actions" : "driven by the models", NEAR,
                   threads, threads == 1 ? "" : "s");
  }
  dj__worlds_destroy(v.w);
  free(v.action);
  free(v.observation);
  free(v.collision);
  dj__map_destroy(m);
  return s;
}

static dj_status vector_models(const dj__bench_world_options *o, dj__bench_world_result *r) {
  return time_vector(o, false, r);
}
static dj_status vector_actions(const dj__bench_world_options *o, dj__bench_world_result *r) {
  return time_vector(o, true, r);
}

/* ---- one world ---- */
static dj_status world_step(void *data) {
  dj__world_step(data, &(dj__command){.throttle = 0.1f});
  return DJ_OK;
}

static dj_status single(const dj__bench_world_options *o, dj__bench_world_result *r) {
  dj__map *m = NULL;
  dj__world *w = NULL;
  dj_status s = town(&m);
  if (!s) {
    dj__world_config c = dj__world_config_default(m, 1);
    s = dj__world_create(&c, &w);
  }
  if (!s) {
    s = dj__bench_pieces(o->seconds, 1, world_step, w, r);
    const dj__world_config *c = &w->config;
    (void)snprintf(
        r->detail, sizeof r->detail,
        "one world: ego, %d vehicles, %d cyclists, %d pedestrians, %d parked; %.0f times "
        "real time on one thread",
        c->n_vehicle, c->n_cyclist, c->n_pedestrian, c->n_parked, r->value * DJ__WORLD_DT);
  }
  dj__world_destroy(w);
  dj__map_destroy(m);
  return s;
}

/* ---- the table ---- */
static const struct {
  const char *name, *unit;
  dj__bench_world_row time;
} ROWS[] = {
    {"vector", "agent-steps/s", vector_models},
    {"vector-actions", "agent-steps/s", vector_actions},
    {"world", "steps/s", single},
    {"camera", "frames/s", dj__bench_camera},
    {"camera-labels", "frames/s", dj__bench_camera_labels},
    {"camera-all", "frames/s", dj__bench_camera_all},
    {"camera-ring6", "frames/s", dj__bench_camera_ring},
};
enum { N_ROWS = sizeof ROWS / sizeof *ROWS };

int dj__bench_world(const dj__bench_world_options *o) {
  json_t *rows = o->json ? json_array() : NULL;
  int n = 0;
  for (int k = 0; k < N_ROWS; k++) {
    if (o->only && strncmp(ROWS[k].name, o->only, strlen(o->only)) != 0) continue;
    dj__bench_world_result r = {0};
    dj_status s = ROWS[k].time(o, &r);
    if (s) {
      json_decref(rows);
      return dj__fail("bench", s);
    }
    n++;
    if (o->json)
      (void)json_array_append_new(rows, json_pack("{s:s, s:s, s:f, s:f, s:s}", "name", ROWS[k].name,
                                                  "unit", ROWS[k].unit, "median", r.value,
                                                  "fastest", r.fastest, "detail", r.detail));
    else
      (void)printf("%-16s %12.0f %-14s (fastest %.0f)  %s\n", ROWS[k].name, r.value, ROWS[k].unit,
                   r.fastest, r.detail);
    (void)fflush(stdout);
  }
  if (n == 0) {
    json_decref(rows);
    return dj__fail("bench", dj_error(DJ_E_NOT_FOUND,
                                      "no row of `dojo bench world` begins with '%s'", o->only));
  }
  if (o->json) {
    (void)json_dumpf(rows, stdout, JSON_INDENT(1));
    (void)putchar('\n');
    json_decref(rows);
  }
  return 0;
}
