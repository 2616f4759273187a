/*
 * A scene to look at: agents as boxes in the colour of their kind with their identity and speed,
 * lines of the road, the route and the path that the vehicle took, as one foxglove.SceneUpdate a
 * moment. Entities are replaced by those of the next moment, and live a second.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "fleet/drivelog.h"

#include "foxglove/SceneUpdate.pb-c.h"

enum { MAX_TEXT = 32 };

typedef struct scene {
  dj__arena arena; // everything below lives in it
  Google__Protobuf__Timestamp t;
  Google__Protobuf__Duration life;
  Foxglove__SceneEntity *entities[4];
  size_t n;
  bool failed;
} scene;

static void *take(scene *s, size_t n, size_t size) {
  void *p = dj__arena_alloc(&s->arena, (n + 1) * size);
  if (!p) s->failed = true;
  return p;
}

static Foxglove__Color *colour(scene *s, double r, double g, double b, double a) {
  Foxglove__Color *c = take(s, 1, sizeof *c);
  if (!c) return NULL;
  foxglove__color__init(c);
  c->r = r;
  c->g = g;
  c->b = b;
  c->a = a;
  return c;
}

static Foxglove__Pose *pose(scene *s, double x, double y, double z, double yaw) {
  Foxglove__Pose *p = take(s, 1, sizeof *p);
  Foxglove__Vector3 *v = take(s, 1, sizeof *v);
  Foxglove__Quaternion *q = take(s, 1, sizeof *q);
  if (s->failed) return NULL;
  foxglove__pose__init(p);
  foxglove__vector3__init(v);
  foxglove__quaternion__init(q);
  v->x = x;
  v->y = y;
  v->z = z;
  q->z = sin(0.5 * yaw);
  q->w = cos(0.5 * yaw);
  p->position = v;
  p->orientation = q;
  return p;
}

static Foxglove__SceneEntity *entity(scene *s, const char *id) {
  Foxglove__SceneEntity *e = take(s, 1, sizeof *e);
  if (!e) return NULL;
  foxglove__scene_entity__init(e);
  e->timestamp = &s->t;
  e->lifetime = &s->life;
  e->frame_id = "vehicle";
  e->id = (char *)id; // not written to
  e->frame_locked = 1;
  s->entities[s->n++] = e;
  return e;
}

static Foxglove__LinePrimitive *line(scene *s, const float (*point)[3], int n, double thickness,
                                     Foxglove__Color *c) {
  Foxglove__LinePrimitive *l = take(s, 1, sizeof *l);
  Foxglove__Point3 *p = take(s, (size_t)n, sizeof *p), **list = take(s, (size_t)n, sizeof *list);
  Foxglove__Pose *at = pose(s, 0, 0, 0, 0);
  if (s->failed) return NULL;
  foxglove__line_primitive__init(l);
  for (int i = 0; i < n; i++) {
    foxglove__point3__init(&p[i]);
    p[i].x = point[i][0];
    p[i].y = point[i][1];
    p[i].z = point[i][2];
    list[i] = &p[i];
  }
  l->pose = at;
  l->thickness = thickness;
  l->color = c;
  l->n_points = (size_t)n;
  l->points = list;
  return l;
}

static void kind_colour(const dj_agent *g, double c[3]) {
  static const double all[DJ_N_AGENT_KINDS][3] = {
      [DJ_AGENT_CAR] = {0.20, 0.55, 0.95},        [DJ_AGENT_VAN] = {0.15, 0.40, 0.85},
      [DJ_AGENT_LORRY] = {0.50, 0.35, 0.85},      [DJ_AGENT_BUS] = {0.75, 0.30, 0.80},
      [DJ_AGENT_MOTORCYCLE] = {0.95, 0.55, 0.15}, [DJ_AGENT_CYCLIST] = {0.95, 0.75, 0.10},
      [DJ_AGENT_PEDESTRIAN] = {0.95, 0.25, 0.25}, [DJ_AGENT_CONE] = {0.90, 0.45, 0.10},
      [DJ_AGENT_BARRIER] = {0.80, 0.30, 0.10},    [DJ_AGENT_RC_CAR] = {0.10, 0.75, 0.55}};
  for (int k = 0; k < 3; k++) c[k] = all[g->kind][k] * (g->parked ? 0.6 : 1);
}

static void put_agents(scene *s, const dj_agents *a) {
  Foxglove__SceneEntity *e = entity(s, "agents");
  size_t n = (size_t)a->n;
  Foxglove__CubePrimitive *cube = take(s, n, sizeof *cube), **cubes = take(s, n, sizeof *cubes);
  Foxglove__TextPrimitive *text = take(s, n, sizeof *text), **texts = take(s, n, sizeof *texts);
  Foxglove__Vector3 *size = take(s, n, sizeof *size);
  char(*words)[MAX_TEXT] = take(s, n, sizeof *words);
  if (s->failed) return;
  for (size_t i = 0; i < n; i++) {
    const dj_agent *g = &a->agents[i];
    double c[3];
    kind_colour(g, c);
    foxglove__vector3__init(&size[i]);
    size[i].x = g->length;
    size[i].y = g->width;
    size[i].z = g->height;
    foxglove__cube_primitive__init(cubes[i] = &cube[i]);
    cube[i].pose = pose(s, g->x, g->y, g->z + 0.5 * g->height, g->yaw);
    cube[i].size = &size[i];
    cube[i].color = colour(s, c[0], c[1], c[2], 0.6);
    if (g->parked || g->fixed) continue;
    Foxglove__TextPrimitive *x = texts[e->n_texts++] = &text[i];
    foxglove__text_primitive__init(x);
    (void)snprintf(words[i], sizeof words[i], "%u  %.0f km/h", g->id,
                   3.6 * hypot((double)g->vx, (double)g->vy));
    x->pose = pose(s, g->x, g->y, g->z + g->height + 0.5, 0);
    x->billboard = 1;
    x->font_size = 0.6;
    x->color = colour(s, 1, 1, 1, 0.9);
    x->text = words[i];
  }
  e->n_cubes = n;
  e->cubes = cubes;
  e->texts = texts;
}

static void put_lanes(scene *s, const dj_lanes *l) {
  Foxglove__SceneEntity *e = entity(s, "lanes");
  Foxglove__LinePrimitive **lines = take(s, (size_t)l->n, sizeof *lines);
  Foxglove__Color *white = colour(s, 0.95, 0.95, 0.95, 1), *yellow = colour(s, 0.95, 0.8, 0.1, 1),
                  *edge = colour(s, 0.55, 0.6, 0.65, 1);
  for (int i = 0; i < l->n && !s->failed; i++) {
    const dj_line *from = &l->lines[i];
    bool is_edge = from->kind == DJ_LINE_ROAD_EDGE;
    lines[i] = line(s, from->point, from->n, is_edge ? 0.08 : 0.14,
                    is_edge        ? edge
                    : from->yellow ? yellow
                                   : white);
  }
  if (s->failed) return;
  e->n_lines = (size_t)l->n;
  e->lines = lines;
}

static void put_path(scene *s, const char *id, const float (*point)[3], int n, double thickness,
                     Foxglove__Color *c) {
  Foxglove__SceneEntity *e = entity(s, id);
  Foxglove__LinePrimitive **lines = take(s, 1, sizeof *lines);
  if (s->failed) return;
  lines[0] = line(s, point, n, thickness, c);
  if (s->failed) return;
  e->n_lines = 1;
  e->lines = lines;
}

static void put_ego_path(scene *s, const dj_path *p) {
  float(*point)[3] = take(s, (size_t)p->n, sizeof *point);
  for (int i = 0; i < p->n && point; i++) {
    point[i][0] = p->points[i].x;
    point[i][1] = p->points[i].y;
    point[i][2] = p->points[i].z + 0.05f;
  }
  if (point)
    put_path(s, "path", (const float(*)[3])point, p->n, 0.5, colour(s, 0.1, 0.9, 0.4, 0.7));
}

dj_status dj_drive_write_scene(dj_drive_writer *w, uint64_t t_ns, const dj_agents *a,
                               const dj_lanes *l, const dj_path *p, const dj_route *r) {
  if (a) DJ_TRY(dj__check_agents(DJ_E_INVALID, a));
  if (l) DJ_TRY(dj__check_lanes(DJ_E_INVALID, l));
  if (p) DJ_TRY(dj__check_path(DJ_E_INVALID, p));
  if (r) DJ_TRY(dj__check_route(DJ_E_INVALID, r));
  scene s = {.t = GOOGLE__PROTOBUF__TIMESTAMP__INIT, .life = GOOGLE__PROTOBUF__DURATION__INIT};
  s.t.seconds = (int64_t)(t_ns / 1000000000u);
  s.t.nanos = (int32_t)(t_ns % 1000000000u);
  s.life.seconds = 1;
  if (l && !s.failed) put_lanes(&s, l);
  if (r && r->n && !s.failed)
    put_path(&s, "route", r->point, r->n, 0.25, colour(&s, 0.3, 0.5, 1, 0.5));
  if (p && !s.failed) put_ego_path(&s, p);
  if (a && !s.failed) put_agents(&s, a);
  dj_status st = DJ_OK;
  if (s.failed) {
    st = dj_error(DJ_E_NOMEM, "drive %s: no memory for a scene", dj__drive_writer_name(w));
  } else {
    Foxglove__SceneUpdate m = FOXGLOVE__SCENE_UPDATE__INIT;
    m.n_entities = s.n;
    m.entities = s.entities;
    st = dj__drive_put_label(w, DJ__LABEL_SCENE, t_ns, &m.base);
  }
  dj__arena_free(&s.arena);
  return st;
}
