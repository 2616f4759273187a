/*
 * Writing labels: structs to protobuf messages. Lists of numbers go through one array of floats a
 * call, made and freed here; labels are written a few times a second, not a million.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fleet/drivelog.h"

#include "dojo/Agents.pb-c.h"
#include "dojo/EgoPath.pb-c.h"
#include "dojo/Events.pb-c.h"
#include "dojo/Lanes.pb-c.h"
#include "dojo/Occupancy.pb-c.h"
#include "dojo/Route.pb-c.h"
#include "dojo/SceneText.pb-c.h"
#include "dojo/TrafficLight.pb-c.h"

// The enums of the messages and those of dojo/drivelog.h count alike.
_Static_assert((int)DOJO__AGENT__KIND__RC_CAR == (int)DJ_AGENT_RC_CAR, "kinds of agents");
_Static_assert((int)DOJO__POLYLINE__MARK__CURB == (int)DJ_MARK_CURB, "marks");
_Static_assert((int)DOJO__TRAFFIC_LIGHT__STATE__YELLOW == (int)DJ_LIGHT_YELLOW, "lights");
_Static_assert((int)DOJO__ROUTE__COMMAND__CHANGE_RIGHT == (int)DJ_COMMAND_CHANGE_RIGHT, "commands");
_Static_assert((int)DOJO__EVENT__KIND__LIGHT_TURNS == (int)DJ_EVENT_LIGHT_TURNS, "events");

static Google__Protobuf__Timestamp stamp(uint64_t t_ns) {
  Google__Protobuf__Timestamp t = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
  t.seconds = (int64_t)(t_ns / 1000000000u);
  t.nanos = (int32_t)(t_ns % 1000000000u);
  return t;
}

static dj_status refused(const dj_drive_writer *w, dj_status s, const char *what) {
  return s ? dj_error_context(s, "drive %s: %s", dj__drive_writer_name(w), what) : DJ_OK;
}

static dj_status no_memory(const dj_drive_writer *w, const char *what) {
  return dj_error(DJ_E_NOMEM, "drive %s: no memory for %s", dj__drive_writer_name(w), what);
}

dj_status dj_drive_write_path(dj_drive_writer *w, const dj_path *p) {
  DJ_TRY(refused(w, dj__check_path(DJ_E_INVALID, p), "path"));
  size_t n = (size_t)p->n;
  float *v = malloc(6 * n * sizeof *v);
  if (!v) return no_memory(w, "a path");
  for (size_t i = 0; i < n; i++) {
    const dj_path_point *q = &p->points[i];
    const float all[6] = {q->t, q->x, q->y, q->z, q->yaw, q->speed};
    for (size_t k = 0; k < 6; k++) v[k * n + i] = all[k];
  }
  Google__Protobuf__Timestamp t = stamp(p->t_ns);
  Dojo__EgoPath m = DOJO__EGO_PATH__INIT;
  m.timestamp = &t;
  m.n_t = m.n_x = m.n_y = m.n_z = m.n_yaw = m.n_speed = n;
  m.t = v;
  m.x = v + n;
  m.y = v + 2 * n;
  m.z = v + 3 * n;
  m.yaw = v + 4 * n;
  m.speed = v + 5 * n;
  dj_status s = dj__drive_put_label(w, DJ__LABEL_PATH, p->t_ns, &m.base);
  free(v);
  return s;
}

// Points as three lists behind each other.
static void split_points(const float (*point)[3], size_t n, float *v) {
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; k < 3; k++) v[k * n + i] = point[i][k];
}

dj_status dj_drive_write_lanes(dj_drive_writer *w, const dj_lanes *l) {
  DJ_TRY(refused(w, dj__check_lanes(DJ_E_INVALID, l), "lanes"));
  size_t total = 0, n = (size_t)l->n;
  for (size_t i = 0; i < n; i++) total += (size_t)l->lines[i].n;
  float *v = malloc((3 * total + 1) * sizeof *v), *at = v;
  Dojo__Polyline *line = malloc((n + 1) * sizeof *line), **lines = malloc((n + 1) * sizeof *lines);
  dj_status s = v && line && lines ? DJ_OK : no_memory(w, "lanes");
  for (size_t i = 0; i < n && !s; i++) {
    const dj_line *from = &l->lines[i];
    Dojo__Polyline *m = lines[i] = &line[i];
    size_t k = (size_t)from->n;
    dojo__polyline__init(m);
    split_points(from->point, k, at);
    m->kind = (Dojo__Polyline__Kind)from->kind;
    m->mark = (Dojo__Polyline__Mark)from->mark;
    m->yellow = from->yellow;
    m->n_x = m->n_y = m->n_z = k;
    m->x = at;
    m->y = at + k;
    m->z = at + 2 * k;
    at += 3 * k;
  }
  if (!s) {
    Google__Protobuf__Timestamp t = stamp(l->t_ns);
    Dojo__Lanes m = DOJO__LANES__INIT;
    m.timestamp = &t;
    m.n_lines = n;
    m.lines = lines;
    s = dj__drive_put_label(w, DJ__LABEL_LANES, l->t_ns, &m.base);
  }
  free(v);
  free(line);
  free(lines);
  return s;
}

static void set_agent(Dojo__Agent *m, const dj_agent *g) {
  dojo__agent__init(m);
  m->id = g->id;
  m->kind = (Dojo__Agent__Kind)g->kind;
  m->x = g->x;
  m->y = g->y;
  m->z = g->z;
  m->yaw = g->yaw;
  m->length = g->length;
  m->width = g->width;
  m->height = g->height;
  m->vx = g->vx;
  m->vy = g->vy;
  m->yaw_rate = g->yaw_rate;
  m->parked = g->parked;
  m->fixed = g->fixed;
  m->crossing = g->crossing;
}

dj_status dj_drive_write_agents(dj_drive_writer *w, const dj_agents *a) {
  DJ_TRY(refused(w, dj__check_agents(DJ_E_INVALID, a), "agents"));
  size_t n = (size_t)a->n;
  Dojo__Agent *agent = malloc((n + 1) * sizeof *agent), **agents = malloc((n + 1) * sizeof *agents);
  dj_status s = agent && agents ? DJ_OK : no_memory(w, "agents");
  if (!s) {
    for (size_t i = 0; i < n; i++) set_agent(agents[i] = &agent[i], &a->agents[i]);
    Google__Protobuf__Timestamp t = stamp(a->t_ns);
    Dojo__Agents m = DOJO__AGENTS__INIT;
    m.timestamp = &t;
    m.n_agents = n;
    m.agents = agents;
    s = dj__drive_put_label(w, DJ__LABEL_AGENTS, a->t_ns, &m.base);
  }
  free(agent);
  free(agents);
  return s;
}

/* One grid as bits; returns how many cells are taken. */
static size_t pack_bits(const uint8_t *cells, size_t n, uint8_t *bits) {
  size_t taken = 0;
  memset(bits, 0, (n + 7) / 8);
  for (size_t i = 0; i < n; i++) {
    if (!cells[i]) continue;
    bits[i / 8] |= (uint8_t)(1u << i % 8);
    taken++;
  }
  return taken;
}

static void pack_flow(const uint8_t *cells, const int16_t *flow, size_t n, uint8_t *out) {
  for (size_t i = 0; i < n; i++) {
    if (!cells[i]) continue;
    for (size_t k = 0; k < 2; k++) {
      uint16_t v = (uint16_t)flow[2 * i + k];
      *out++ = (uint8_t)v;
      *out++ = (uint8_t)(v >> 8);
    }
  }
}

dj_status dj_drive_write_occupancy(dj_drive_writer *w, const dj_occupancy *o) {
  DJ_TRY(refused(w, dj__check_occupancy(DJ_E_INVALID, o), "occupancy"));
  size_t cells = (size_t)o->nx * (size_t)o->ny, bytes = (cells + 7) / 8, n = (size_t)o->n_times;
  ProtobufCBinaryData occupied[DJ_MAX_TIMES], flow[DJ_MAX_TIMES] = {{0}};
  float times[DJ_MAX_TIMES];
  memcpy(times, o->times, sizeof times);
  uint8_t *bits = malloc(n * bytes);
  dj_status s = bits ? DJ_OK : no_memory(w, "occupancy");
  for (size_t i = 0; i < n && !s; i++) {
    occupied[i] = (ProtobufCBinaryData){bytes, bits + i * bytes};
    size_t taken = pack_bits(o->occupied + i * cells, cells, occupied[i].data);
    if (i + 1 == n) break;
    flow[i] = (ProtobufCBinaryData){4 * taken, malloc(4 * taken + 1)};
    if (!flow[i].data) s = no_memory(w, "occupancy flow");
    if (!s) pack_flow(o->occupied + i * cells, o->flow + i * 2 * cells, cells, flow[i].data);
  }
  if (!s) {
    Google__Protobuf__Timestamp t = stamp(o->t_ns);
    Dojo__Occupancy m = DOJO__OCCUPANCY__INIT;
    m.timestamp = &t;
    m.x0 = o->x0;
    m.y0 = o->y0;
    m.cell = o->cell;
    m.nx = (uint32_t)o->nx;
    m.ny = (uint32_t)o->ny;
    m.n_times = m.n_occupied = n;
    m.times = times;
    m.occupied = occupied;
    m.n_flow = n - 1;
    m.flow = flow;
    s = dj__drive_put_label(w, DJ__LABEL_OCCUPANCY, o->t_ns, &m.base);
  }
  for (size_t i = 0; i < DJ_MAX_TIMES; i++) free(flow[i].data);
  free(bits);
  return s;
}

dj_status dj_drive_write_light(dj_drive_writer *w, const dj_light *l) {
  DJ_TRY(refused(w, dj__check_light(DJ_E_INVALID, l), "traffic light"));
  Google__Protobuf__Timestamp t = stamp(l->t_ns);
  Dojo__TrafficLight m = DOJO__TRAFFIC_LIGHT__INIT;
  m.timestamp = &t;
  m.state = (Dojo__TrafficLight__State)l->state;
  m.distance = l->distance;
  m.x = l->x;
  m.y = l->y;
  m.z = l->z;
  return dj__drive_put_label(w, DJ__LABEL_LIGHT, l->t_ns, &m.base);
}

dj_status dj_drive_write_route(dj_drive_writer *w, const dj_route *r) {
  DJ_TRY(refused(w, dj__check_route(DJ_E_INVALID, r), "route"));
  size_t n = (size_t)r->n;
  float *v = malloc((3 * n + 1) * sizeof *v);
  if (!v) return no_memory(w, "a route");
  split_points(r->point, n, v);
  Google__Protobuf__Timestamp t = stamp(r->t_ns);
  Dojo__Route m = DOJO__ROUTE__INIT;
  m.timestamp = &t;
  m.command = (Dojo__Route__Command)r->command;
  m.n_x = m.n_y = m.n_z = n;
  m.x = v;
  m.y = v + n;
  m.z = v + 2 * n;
  dj_status s = dj__drive_put_label(w, DJ__LABEL_ROUTE, r->t_ns, &m.base);
  free(v);
  return s;
}

dj_status dj_drive_write_events(dj_drive_writer *w, const dj_events *e) {
  DJ_TRY(refused(w, dj__check_events(DJ_E_INVALID, e), "events"));
  Dojo__Event event[DJ_MAX_EVENTS], *events[DJ_MAX_EVENTS];
  for (int i = 0; i < e->n; i++) {
    const dj_event *from = &e->events[i];
    Dojo__Event *m = events[i] = &event[i];
    dojo__event__init(m);
    m->kind = (Dojo__Event__Kind)from->kind;
    m->agent = from->agent;
    m->age = from->age;
    m->x = from->x;
    m->y = from->y;
    m->z = from->z;
  }
  Google__Protobuf__Timestamp t = stamp(e->t_ns);
  Dojo__Events m = DOJO__EVENTS__INIT;
  m.timestamp = &t;
  m.n_events = (size_t)e->n;
  m.events = events;
  return dj__drive_put_label(w, DJ__LABEL_EVENTS, e->t_ns, &m.base);
}

dj_status dj_drive_write_text(dj_drive_writer *w, const dj_text *x) {
  DJ_TRY(refused(w, dj__check_text(DJ_E_INVALID, x), "text"));
  Google__Protobuf__Timestamp t = stamp(x->t_ns);
  Dojo__SceneText m = DOJO__SCENE_TEXT__INIT;
  m.timestamp = &t;
  m.text = (char *)x->text; // not written to
  return dj__drive_put_label(w, DJ__LABEL_TEXT, x->t_ns, &m.base);
}
