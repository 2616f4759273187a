/*
 * Labels of one moment: path, agents, occupancy and flow, light, route, events. Lines of the road
 * are labels_lines.c, the sentence labels_text.c.
 *
 * Occupancy and flow are those of the boxes, rasterised in the vehicle frame of now: a cell is
 * taken where its middle lies in a box, and its flow is where that point of the box is at the next
 * time, so that now-occupancy moved by flow lies on later occupancy by construction (the definition
 * of Mahjourian et al., "Occupancy Flow Fields", RA-L 2022, forwards in time). Boxes thinner than a
 * cell's diagonal are widened to it, so that a pedestrian never falls between the middles of cells.
 */
#include "world/labels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "world/attitude.h"
#include "world/labels_lines.h"

enum { CELLS = DJ__GRID_X * DJ__GRID_Y, PATH_STEP = 4 /* world steps: 0.2 s */ };
enum { PATH_POINTS = DJ__AHEAD_STEPS / PATH_STEP + 1, STEPS_A_SECOND = 20 };

struct dj__truth {
  const dj__map *map;
  double scale;
  dj__lines *lines;
  dj_path_point path[PATH_POINTS];
  dj_agent agents[DJ_MAX_AGENTS];
  dj_event events[DJ__MOMENT_EVENTS];
  float route[DJ__MOMENT_ROUTE][3];
  char text[DJ_MAX_TEXT];
  uint8_t occupied[DJ__GRID_TIMES * CELLS];
  int16_t flow[(DJ__GRID_TIMES - 1) * CELLS * 2];
};

// ---- frames ------------------------------------------------------------------------------------

void dj__frame_of(const dj__moment *m, dj__frame *f) {
  *f = (dj__frame){.o = {m->x, m->y, m->z}};
  dj__attitude(m->yaw, m->pitch, m->roll, f->R);
}

void dj__frame_to_vehicle(const dj__frame *f, const double p[3], float out[3]) {
  double d[3] = {p[0] - f->o[0], p[1] - f->o[1], p[2] - f->o[2]};
  for (int i = 0; i < 3; i++)
    out[i] = (float)(f->R[i] * d[0] + f->R[3 + i] * d[1] + f->R[6 + i] * d[2]);
}

void dj__frame_to_world(const dj__frame *f, const float v[3], double out[3]) {
  for (int i = 0; i < 3; i++)
    out[i] = f->o[i] + f->R[3 * i] * v[0] + f->R[3 * i + 1] * v[1] + f->R[3 * i + 2] * v[2];
}

static double wrap(double a) {
  return remainder(a, 2 * M_PI);
}

// ---- path --------------------------------------------------------------------------------------

static void make_path(dj__truth *l, uint64_t t_ns, const dj__moment *const *m, int n,
                      const dj__frame *f, dj_path *out) {
  int k = 0;
  for (int i = 0; i < n && k < PATH_POINTS; i += PATH_STEP, k++) {
    float v[3];
    dj__frame_to_vehicle(f, (double[3]){m[i]->x, m[i]->y, m[i]->z}, v);
    l->path[k] = (dj_path_point){
        (float)(i * DJ__WORLD_DT), v[0], v[1], v[2], (float)wrap(m[i]->yaw - m[0]->yaw),
        (float)m[i]->speed};
  }
  *out = (dj_path){t_ns, k, l->path};
}

// ---- agents ------------------------------------------------------------------------------------

static void make_agents(dj__truth *l, uint64_t t_ns, const dj__moment *m, const dj__frame *f,
                        dj_agents *out) {
  int n = 0;
  double reach = DJ__LABEL_REACH * l->scale;
  for (int i = 0; i < m->n_body && n < DJ_MAX_AGENTS; i++) {
    const dj__body *b = &m->body[i];
    if (hypot(b->x - m->x, b->y - m->y) > reach) continue;
    float v[3];
    double yaw = wrap(b->yaw - m->yaw);
    dj__frame_to_vehicle(f, (double[3]){b->x, b->y, b->z}, v);
    l->agents[n++] = (dj_agent){.id = b->id,
                                .kind = (dj_agent_kind)b->kind,
                                .parked = (b->flags & DJ__AGENT_PARKED) != 0,
                                .fixed = (b->flags & DJ__AGENT_STATIC) != 0,
                                .crossing = (b->flags & DJ__AGENT_CROSSING) != 0,
                                .x = v[0],
                                .y = v[1],
                                .z = v[2],
                                .yaw = (float)yaw,
                                .length = b->length,
                                .width = b->width,
                                .height = b->height,
                                .vx = (float)(b->speed * cos(yaw)),
                                .vy = (float)(b->speed * sin(yaw)),
                                .yaw_rate = b->yaw_rate};
  }
  *out = (dj_agents){t_ns, n, l->agents};
}

// ---- occupancy and flow ------------------------------------------------------------------------

typedef struct box { // in the vehicle frame of now
  double x, y, c, s; // middle, cosine and sine of its yaw
  double a, b;       // half length and width, widened
} box;

static void box_of(const dj__frame *f, double yaw0, const dj__body *b, double cell, box *o) {
  float v[3];
  double yaw = b->yaw - yaw0, least = 0.5 * M_SQRT2 * cell * 1.001;
  dj__frame_to_vehicle(f, (double[3]){b->x, b->y, b->z}, v);
  *o = (box){
      v[0], v[1], cos(yaw), sin(yaw), fmax(0.5 * b->length, least), fmax(0.5 * b->width, least)};
}

static const dj__body *find_body(const dj__moment *m, uint32_t id, int guess) {
  if (guess < m->n_body && m->body[guess].id == id) return &m->body[guess];
  for (int i = 0; i < m->n_body; i++)
    if (m->body[i].id == id) return &m->body[i];
  return NULL;
}

typedef struct grid {
  double x0, y0, cell;
} grid;

static int16_t centimetres(double metres) {
  return (int16_t)lrint(fmin(fmax(metres * 100, -32767), 32767));
}

static int clamp(double v, int most) {
  return v < 0 ? 0 : v > most ? most : (int)v;
}

/* Fills one box; `to`: the same thing at the next time, NULL: gone, or no flow wanted. */
static void fill_box(const grid *g, const box *b, const box *to, uint8_t *occupied, int16_t *flow) {
  double ex = fabs(b->c) * b->a + fabs(b->s) * b->b, ey = fabs(b->s) * b->a + fabs(b->c) * b->b;
  int i0 = clamp(floor((b->x - ex - g->x0) / g->cell), DJ__GRID_X),
      i1 = clamp(ceil((b->x + ex - g->x0) / g->cell), DJ__GRID_X),
      j0 = clamp(floor((b->y - ey - g->y0) / g->cell), DJ__GRID_Y),
      j1 = clamp(ceil((b->y + ey - g->y0) / g->cell), DJ__GRID_Y);
  for (int i = i0; i < i1; i++)
    for (int j = j0; j < j1; j++) {
      double x = g->x0 + (i + 0.5) * g->cell - b->x, y = g->y0 + (j + 0.5) * g->cell - b->y;
      double u = b->c * x + b->s * y, v = b->c * y - b->s * x;
      if (fabs(u) > b->a || fabs(v) > b->b) continue;
      int k = i * DJ__GRID_Y + j;
      occupied[k] = 1;
      if (!flow) continue;
      flow[2 * k] =
          to ? centimetres(to->x + to->c * u - to->s * v - b->x - x) : (int16_t)DJ_FLOW_UNKNOWN;
      flow[2 * k + 1] =
          to ? centimetres(to->y + to->s * u + to->c * v - b->y - y) : (int16_t)DJ_FLOW_UNKNOWN;
    }
}

static void make_occupancy(dj__truth *l, uint64_t t_ns, const dj__moment *const *m, int n,
                           const dj__frame *f, dj_occupancy *out) {
  grid g = {-DJ__GRID_BEHIND * l->scale, -0.5 * DJ__GRID_Y * DJ__GRID_CELL * l->scale,
            DJ__GRID_CELL * l->scale};
  int times = (n - 1) / STEPS_A_SECOND + 1;
  if (times > DJ__GRID_TIMES) times = DJ__GRID_TIMES;
  memset(l->occupied, 0, sizeof l->occupied);
  memset(l->flow, 0, sizeof l->flow);
  *out = (dj_occupancy){.t_ns = t_ns,
                        .x0 = (float)g.x0,
                        .y0 = (float)g.y0,
                        .cell = (float)g.cell,
                        .nx = DJ__GRID_X,
                        .ny = DJ__GRID_Y,
                        .n_times = times,
                        .occupied = l->occupied,
                        .flow = l->flow};
  for (int k = 0; k < times; k++) {
    const dj__moment *at = m[k * STEPS_A_SECOND];
    const dj__moment *next = k + 1 < times ? m[(k + 1) * STEPS_A_SECOND] : NULL;
    out->times[k] = (float)k;
    for (int i = 0; i < at->n_body; i++) {
      box b, to;
      box_of(f, m[0]->yaw, &at->body[i], g.cell, &b);
      const dj__body *later = next ? find_body(next, at->body[i].id, i) : NULL;
      if (later) box_of(f, m[0]->yaw, later, g.cell, &to);
      fill_box(&g, &b, later ? &to : NULL, l->occupied + (size_t)k * CELLS,
               next ? l->flow + (size_t)k * CELLS * 2 : NULL);
    }
  }
}

// ---- the rest ----------------------------------------------------------------------------------

static void make_light(const dj__moment *m, uint64_t t_ns, const dj__frame *f, dj_light *out) {
  *out = (dj_light){.t_ns = t_ns, .state = m->light, .distance = NAN};
  if (m->light == DJ_LIGHT_NONE) return;
  float v[3];
  dj__frame_to_vehicle(f, m->light_at, v);
  *out = (dj_light){t_ns, m->light, (float)m->light_distance, v[0], v[1], v[2]};
}

static void make_route(dj__truth *l, uint64_t t_ns, const dj__moment *m, const dj__frame *f,
                       dj_route *out) {
  for (int i = 0; i < m->n_route; i++) dj__frame_to_vehicle(f, m->route[i], l->route[i]);
  *out = (dj_route){t_ns, m->command, m->n_route, (const float(*)[3])l->route};
}

static void make_events(dj__truth *l, uint64_t t_ns, const dj__moment *m, const dj__frame *f,
                        dj_events *out) {
  for (int i = 0; i < m->n_event; i++) {
    float v[3];
    dj__frame_to_vehicle(f, (double[3]){m->event[i].x, m->event[i].y, m->event[i].z}, v);
    l->events[i] = (dj_event){(dj_event_kind)m->event[i].kind,
                              m->event[i].agent,
                              (float)m->event[i].age,
                              v[0],
                              v[1],
                              v[2]};
  }
  *out = (dj_events){t_ns, m->n_event, l->events};
}

dj_status dj__truth_make(dj__truth *l, uint64_t t_ns, const dj__moment *const *m, int n,
                         dj__label_set *out) {
  if (n < 1) return dj_error(DJ_E_INVALID, "labels: of no moment");
  if (n > DJ__AHEAD_STEPS + 1) n = DJ__AHEAD_STEPS + 1;
  dj__frame f;
  dj__frame_of(m[0], &f);
  make_path(l, t_ns, m, n, &f, &out->path);
  make_agents(l, t_ns, m[0], &f, &out->agents);
  make_occupancy(l, t_ns, m, n, &f, &out->occupancy);
  make_light(m[0], t_ns, &f, &out->light);
  make_route(l, t_ns, m[0], &f, &out->route);
  make_events(l, t_ns, m[0], &f, &out->events);
  double behind = DJ__GRID_BEHIND * l->scale, cell = DJ__GRID_CELL * l->scale;
  double area[4] = {-behind, -0.5 * DJ__GRID_Y * cell, DJ__GRID_X * cell - behind,
                    0.5 * DJ__GRID_Y * cell};
  DJ_TRY(dj__lines_near(l->lines, t_ns, &f, area, &out->lanes));
  dj__label_sentence(l->map, m[0], &out->path, &out->agents, l->text, sizeof l->text);
  out->text = (dj_text){t_ns, l->text};
  return DJ_OK;
}

dj_status dj__truth_create(const dj__map *m, double scale, dj__truth **out) {
  *out = NULL;
  dj__truth *l = calloc(1, sizeof *l);
  if (!l) return dj_error(DJ_E_NOMEM, "labels: no memory");
  l->map = m;
  l->scale = scale;
  dj_status s = dj__lines_create(m, scale, &l->lines);
  if (s) {
    dj__truth_destroy(l);
    return s;
  }
  *out = l;
  return DJ_OK;
}

void dj__truth_destroy(dj__truth *l) {
  if (!l) return;
  dj__lines_destroy(l->lines);
  free(l);
}

void dj__moment_free(dj__moment *m) {
  free(m->body);
  *m = (dj__moment){0};
}
