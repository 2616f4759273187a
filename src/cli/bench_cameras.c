/*
 * Camera frames a second: vehicles that drive along a street of a town, a thread and a renderer
 * each, as `dojo drive` has them; 30 vehicles, cyclists and people in view of each, with two frames
 * under way while the next one is put together, as a recorder does it.
 */
#include "cli/bench_cameras.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "world/render.h"

enum { IN_VIEW = 30 };

typedef struct street { // of one thread
  const dj__map *map;
  dj__rig rig;
  dj__renderer *renderer;
  dj__scene *scene, *next;
  int lane, frame, under_way;
  bool flow;
  dj__picture picture[DJ__RIG_CAMERAS];
  dj__bench_world_result result;
  dj_status status;
  char message[140], name[64];
} street;

static int long_lane(const dj__map *m) {
  int best = -1;
  for (int k = 0; k < m->n_lane; k++)
    if (m->lane[k].type == DJ__LANE_DRIVING && m->lane[k].junction < 0 &&
        m->lane[k].zone == DJ__ZONE_TOWN && (best < 0 || m->lane[k].length > m->lane[best].length))
      best = k;
  return best;
}

static void put(const street *t, dj__scene *s, double at, double left, dj__kind kind, float length,
                float width, float height) {
  dj__place p;
  dj__map_at(t->map, t->lane, at, left, &p);
  uint32_t id = 2 + (uint32_t)s->n_actor;
  s->actor[s->n_actor++] = (dj__actor){.id = id,
                                       .kind = (uint8_t)kind,
                                       .variant = (uint8_t)(37 * id),
                                       .x = p.x,
                                       .y = p.y,
                                       .z = (float)p.z,
                                       .yaw = (float)(p.yaw + (left > 2 ? M_PI : 0)),
                                       .length = length,
                                       .width = width,
                                       .height = height,
                                       .speed = 1};
}

/* 30 m to drive, then back to the start. */
static void look(const street *t, int frame, dj__scene *s) {
  dj__place p;
  double at = 2 + 0.4 * (frame % 75);
  dj__map_at(t->map, t->lane, at, 0, &p);
  *s = (dj__scene){.time = frame * 0.1,
                   .x = p.x,
                   .y = p.y,
                   .z = (float)p.z,
                   .yaw = (float)p.yaw,
                   .speed = 4,
                   .ego_id = 1};
  (void)dj__weather_find("clear", &s->weather);
  for (int k = 0; k < IN_VIEW; k++) {
    double ahead = at + 10 + 2.4 * k;
    switch (k % 5) {
    case 0:
      put(t, s, ahead, 0, DJ__CAR, 4.4f, 1.82f, 1.48f);
      break;
    case 1:
      put(t, s, ahead, 3.4, k % 2 ? DJ__VAN : DJ__CAR, k % 2 ? 5.3f : 4.4f, 1.9f,
          k % 2 ? 2.2f : 1.5f);
      break;
    case 2:
      put(t, s, ahead, 1.6, DJ__CYCLIST, 1.75f, 0.6f, 1.75f);
      break;
    default:
      put(t, s, ahead, k % 2 ? -3.4 : 6.8, DJ__PEDESTRIAN, 0.5f, 0.5f, 1.75f);
    }
  }
}

static dj_status step(void *data) {
  street *t = data;
  if (t->under_way == 2) {
    DJ_TRY(dj__render_end(t->renderer, t->picture));
    t->under_way--;
  }
  look(t, t->frame, t->scene);
  if (t->flow) look(t, t->frame + 1, t->next);
  t->frame++;
  DJ_TRY(dj__render_begin(t->renderer, t->scene, t->flow ? t->next : NULL, &t->rig));
  t->under_way++;
  return DJ_OK;
}

static dj_status prepare(street *t, uint32_t layers) {
  t->scene = calloc(1, sizeof *t->scene);
  t->next = calloc(1, sizeof *t->next);
  if (!t->scene || !t->next) return dj_error(DJ_E_NOMEM, "no memory for a scene to be drawn");
  DJ_TRY(dj__renderer_create(t->map, &(dj__render_options){.layers = layers}, &t->renderer));
  (void)snprintf(t->name, sizeof t->name, "%s", dj__renderer_name(t->renderer));
  t->flow = layers & DJ__LAYER_FLOW;
  t->lane = long_lane(t->map);
  for (int k = 0; k < 80; k++) DJ_TRY(step(t)); // shaders compiled, all of the way seen once
  return DJ_OK;
}

/* n streets at once. What they say is in each of them. */
static void drive(street *streets, int n, uint32_t layers, double seconds) {
#pragma omp parallel num_threads(n)
  {
    street *t = &streets[omp_get_thread_num()];
    t->status = prepare(t, layers);
#pragma omp barrier
    if (!t->status) t->status = dj__bench_pieces(seconds, t->rig.n_camera, step, t, &t->result);
    if (t->status) (void)snprintf(t->message, sizeof t->message, "%s", dj_error_message());
    dj__renderer_destroy(t->renderer); // belongs to this thread
    free(t->scene);
    free(t->next);
  }
}

/* Frames of all streets together. */
static dj_status sum(const street *streets, int n, const char *what, dj__bench_world_result *r) {
  for (int k = 0; k < n; k++) {
    const street *t = &streets[k];
    if (t->status == DJ_E_UNSUPPORTED) {
      *r = (dj__bench_world_result){0};
      (void)snprintf(r->detail, sizeof r->detail, "not measured: %s", t->message);
      return DJ_OK;
    }
    if (t->status) return dj_error(t->status, "%s", t->message);
    r->value += t->result.value;
    r->fastest += t->result.fastest;
  }
  const dj_camera *c = &streets->rig.camera[0].camera;
  (void)snprintf(r->detail, sizeof r->detail, "%d drive%s, %d x %d, %s, %d agents in view, %s", n,
                 n == 1 ? "" : "s at once", c->width, c->height, what, IN_VIEW, streets->name);
  return DJ_OK;
}

static dj_status row(const dj__bench_world_options *o, const char *rig, uint32_t layers,
                     const char *what, dj__bench_world_result *r) {
  const int n = o->threads ? o->threads : omp_get_num_procs();
  street *streets = calloc((size_t)n, sizeof *streets);
  if (!streets) return dj_error(DJ_E_NOMEM, "no memory for %d drives", n);
  dj__map *map = NULL;
  dj_status s = dj__rig_find(rig, &streets->rig);
  if (!s)
    s = dj__map_generate(&(dj__town_config){.seed = 7, .style = DJ__TOWN_GRID, .hills = -1}, &map);
  if (!s) {
    for (int k = 0; k < n; k++) streets[k].map = map, streets[k].rig = streets->rig;
    drive(streets, n, layers, o->seconds);
    s = sum(streets, n, what, r);
  }
  dj__map_destroy(map);
  free(streets);
  return s;
}

dj_status dj__bench_camera(const dj__bench_world_options *o, dj__bench_world_result *r) {
  return row(o, "mono", 0, "colour", r);
}
dj_status dj__bench_camera_labels(const dj__bench_world_options *o, dj__bench_world_result *r) {
  return row(o, "mono", DJ__LAYER_DEPTH | DJ__LAYER_SEMANTIC, "colour, depth, classes", r);
}
dj_status dj__bench_camera_all(const dj__bench_world_options *o, dj__bench_world_result *r) {
  return row(o, "mono", 15, "colour, depth, classes, instances, flow", r);
}
dj_status dj__bench_camera_ring(const dj__bench_world_options *o, dj__bench_world_result *r) {
  return row(o, "ring6", 0, "six cameras, colour", r);
}
