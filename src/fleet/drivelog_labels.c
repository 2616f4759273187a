/*
 * Labels of the world's drives: what their channels are called, and which values they may have. The
 * writer and the reader keep the same rules, so that what was written can be read.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fleet/drivelog.h"

const dj__label_topic dj__label_topics[DJ__N_LABEL_CHANNELS] = {
    [DJ__LABEL_PATH] = {"/label/path", "dojo.EgoPath", 0}, // the label comes from poses
    [DJ__LABEL_LANES] = {"/label/lanes", "dojo.Lanes", DJ_LABEL_LANES},
    [DJ__LABEL_AGENTS] = {"/label/agents", "dojo.Agents", DJ_LABEL_AGENTS},
    [DJ__LABEL_OCCUPANCY] = {"/label/occupancy", "dojo.Occupancy", DJ_LABEL_OCCUPANCY},
    [DJ__LABEL_LIGHT] = {"/label/light", "dojo.TrafficLight", DJ_LABEL_LIGHTS},
    [DJ__LABEL_ROUTE] = {"/label/route", "dojo.Route", DJ_LABEL_COMMAND},
    [DJ__LABEL_EVENTS] = {"/label/events", "dojo.Events", DJ_LABEL_EVENTS},
    [DJ__LABEL_TEXT] = {"/label/text", "dojo.SceneText", DJ_LABEL_TEXT},
    [DJ__LABEL_SCENE] = {"/label/scene", "foxglove.SceneUpdate", 0},
};

const char *dj_label_name(int i) {
  static const char *const names[DJ_N_LABELS] = {"control", "speed",     "path",   "lanes",
                                                 "agents",  "occupancy", "lights", "command",
                                                 "events",  "text"};
  return i >= 0 && i < DJ_N_LABELS ? names[i] : NULL;
}

const char *dj_label_list(uint32_t labels, const char *separator, char *out, size_t size) {
  size_t n = 0;
  if (size) out[0] = 0;
  for (int i = 0; i < DJ_N_LABELS && n < size; i++)
    if (labels & 1u << i)
      n += (size_t)snprintf(out + n, size - n, "%s%s", n ? separator : "", dj_label_name(i));
  if (!n) (void)snprintf(out, size, "none");
  return out;
}

const char *dj_layer_name(int layer) {
  static const char *const names[DJ_N_LAYERS] = {"depth", "semantic", "instance"};
  return layer >= 0 && layer < DJ_N_LAYERS ? names[layer] : NULL;
}

// ---- values ------------------------------------------------------------------------------------

#define MAX_METRES 1e6f

static dj_status check_count(dj_status status, const char *what, int n, int least, int most) {
  if (n >= least && n <= most) return DJ_OK;
  return dj_error(status, "%d %s; %d to %d are taken", n, what, least, most);
}

static dj_status check_kind(dj_status status, const char *what, int v, int n) {
  if (v >= 0 && v < n) return DJ_OK;
  return dj_error(status, "%s is %d; 0 to %d are known", what, v, n - 1);
}

static dj_status check_metres(dj_status status, const char *what, int index, const float *v,
                              int n) {
  for (int i = 0; i < n; i++)
    if (!(fabsf(v[i]) <= MAX_METRES))
      return dj_error(status, "%s %d: number %d is %g", what, index, i, (double)v[i]);
  return DJ_OK;
}

static dj_status check_times(dj_status status, const char *what, int i, float before, float t) {
  if (i ? t > before && t <= 1e4f : t == 0) return DJ_OK;
  return dj_error(status, "%s: time %d is %g s after %g s; times rise from 0", what, i, (double)t,
                  (double)before);
}

dj_status dj__check_path(dj_status status, const dj_path *p) {
  DJ_TRY(check_count(status, "points of a path", p->n, 1, DJ_MAX_PATH));
  for (int i = 0; i < p->n; i++) {
    const dj_path_point *q = &p->points[i];
    DJ_TRY(check_times(status, "path", i, i ? q[-1].t : 0, q->t));
    float v[5] = {q->x, q->y, q->z, q->yaw, q->speed};
    DJ_TRY(check_metres(status, "point", i, v, 5));
  }
  return DJ_OK;
}

dj_status dj__check_lanes(dj_status status, const dj_lanes *l) {
  DJ_TRY(check_count(status, "lines", l->n, 0, DJ_MAX_LINES));
  int64_t total = 0;
  for (int i = 0; i < l->n; i++) {
    const dj_line *line = &l->lines[i];
    DJ_TRY(check_kind(status, "kind of a line", (int)line->kind, DJ_N_LINE_KINDS));
    DJ_TRY(check_kind(status, "mark of a line", (int)line->mark, DJ_N_LINE_MARKS));
    DJ_TRY(check_count(status, "points of a line", line->n, 2, DJ_MAX_POINTS));
    total += line->n;
    for (int k = 0; k < line->n; k++) DJ_TRY(check_metres(status, "line", i, line->point[k], 3));
  }
  if (total <= DJ_MAX_POINTS) return DJ_OK;
  return dj_error(status, "%lld points of lines; at most %d are taken", (long long)total,
                  DJ_MAX_POINTS);
}

dj_status dj__check_agents(dj_status status, const dj_agents *a) {
  DJ_TRY(check_count(status, "agents", a->n, 0, DJ_MAX_AGENTS));
  for (int i = 0; i < a->n; i++) {
    const dj_agent *g = &a->agents[i];
    DJ_TRY(check_kind(status, "kind of an agent", (int)g->kind, DJ_N_AGENT_KINDS));
    float v[10] = {g->x,     g->y,      g->z,  g->yaw, g->length,
                   g->width, g->height, g->vx, g->vy,  g->yaw_rate};
    DJ_TRY(check_metres(status, "agent", i, v, 10));
    if (!(g->length > 0 && g->width > 0 && g->height > 0))
      return dj_error(status, "agent %d: a box of %g x %g x %g m", i, (double)g->length,
                      (double)g->width, (double)g->height);
  }
  return DJ_OK;
}

dj_status dj__check_occupancy(dj_status status, const dj_occupancy *o) {
  DJ_TRY(check_count(status, "cells ahead", o->nx, 1, DJ_MAX_CELLS));
  DJ_TRY(check_count(status, "cells to the left", o->ny, 1, DJ_MAX_CELLS));
  if ((int64_t)o->nx * o->ny > DJ_MAX_CELLS)
    return dj_error(status, "a grid of %d x %d cells; at most %d cells are taken", o->nx, o->ny,
                    DJ_MAX_CELLS);
  float v[3] = {o->x0, o->y0, o->cell};
  DJ_TRY(check_metres(status, "grid", 0, v, 3));
  if (!(o->cell > 0)) return dj_error(status, "cells of %g m", (double)o->cell);
  DJ_TRY(check_count(status, "grids", o->n_times, 1, DJ_MAX_TIMES));
  for (int i = 0; i < o->n_times; i++)
    DJ_TRY(check_times(status, "occupancy", i, i ? o->times[i - 1] : 0, o->times[i]));
  return DJ_OK;
}

dj_status dj__check_light(dj_status status, const dj_light *l) {
  DJ_TRY(check_kind(status, "state of a light", (int)l->state, DJ_N_LIGHT_STATES));
  float v[4] = {l->distance, l->x, l->y, l->z};
  if (l->state == DJ_LIGHT_NONE && isnan(l->distance)) v[0] = 0;
  return check_metres(status, "light", 0, v, 4);
}

dj_status dj__check_route(dj_status status, const dj_route *r) {
  DJ_TRY(check_kind(status, "route command", (int)r->command, DJ_N_ROUTE_COMMANDS));
  DJ_TRY(check_count(status, "points of a route", r->n, 0, DJ_MAX_POINTS));
  for (int i = 0; i < r->n; i++) DJ_TRY(check_metres(status, "route", i, r->point[i], 3));
  return DJ_OK;
}

dj_status dj__check_events(dj_status status, const dj_events *e) {
  DJ_TRY(check_count(status, "events", e->n, 0, DJ_MAX_EVENTS));
  for (int i = 0; i < e->n; i++) {
    const dj_event *v = &e->events[i];
    DJ_TRY(check_kind(status, "kind of an event", (int)v->kind, DJ_N_EVENT_KINDS));
    float n[4] = {v->age, v->x, v->y, v->z};
    DJ_TRY(check_metres(status, "event", i, n, 4));
    if (v->age < 0) return dj_error(status, "event %d: its age is %g s", i, (double)v->age);
  }
  return DJ_OK;
}

dj_status dj__check_text(dj_status status, const dj_text *t) {
  size_t n = t->text ? strlen(t->text) : 0;
  if (n == 0 || n >= DJ_MAX_TEXT)
    return dj_error(status, "a text of %zu bytes; 1 to %d are taken", n, DJ_MAX_TEXT - 1);
  for (size_t i = 0; i < n; i++)
    if ((unsigned char)t->text[i] < ' ')
      return dj_error(status, "a text with the control character 0x%02x",
                      (unsigned char)t->text[i]);
  return DJ_OK;
}
