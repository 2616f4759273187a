/*
 * Reading labels: protobuf messages to structs, checked. The arrays of the message read last are
 * kept a channel. Sizes are bounded before anything is allocated: by protobuf-c against the bytes
 * that are there, and by the limits of dojo/drivelog.h.
 */
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

void dj__label_reader_free(dj__label_reader *r) {
  for (int i = 0; i < 3; i++) free(r->data[i]);
  free(r->times);
  *r = (dj__label_reader){0};
}

// ---- times -------------------------------------------------------------------------------------

static dj_status know(dj_drive *d, dj__label_reader *r, const char *topic, const char *schema) {
  if (r->known) return DJ_OK;
  dj_status s = dj__drive_find(d, topic, schema, &r->entries, &r->n);
  if (s) return dj_error_context(s, "%s", dj__drive_path(d));
  r->times = malloc((r->n + 1) * sizeof *r->times);
  if (!r->times)
    return dj_error(DJ_E_NOMEM, "%s: no memory for %zu times", dj__drive_path(d), r->n);
  for (size_t i = 0; i < r->n; i++) r->times[i] = r->entries[i].log_time;
  r->known = true;
  return DJ_OK;
}

static dj_status channel_times(dj_drive *d, dj__label_channel c, const uint64_t **t_ns, size_t *n) {
  dj__label_reader *r = dj__drive_label(d, c);
  DJ_TRY(know(d, r, dj__label_topics[c].topic, dj__label_topics[c].schema));
  *t_ns = r->times;
  *n = r->n;
  return DJ_OK;
}

/* Times of records whose first member is t_ns, kept with a channel that has no use of its own. */
static dj_status record_times(dj_drive *d, dj__label_reader *r, const void *records, size_t n,
                              size_t stride, const uint64_t **t_ns) {
  free(r->data[0]);
  uint64_t *t = r->data[0] = malloc((n + 1) * sizeof *t);
  if (!t) return dj_error(DJ_E_NOMEM, "%s: no memory for %zu times", dj__drive_path(d), n);
  for (size_t i = 0; i < n; i++) memcpy(&t[i], (const char *)records + i * stride, sizeof *t);
  *t_ns = t;
  return DJ_OK;
}

dj_status dj_drive_label_times(dj_drive *d, dj_label label, const uint64_t **t_ns, size_t *n) {
  for (int i = 0; i < DJ__N_LABEL_CHANNELS; i++)
    if (dj__label_topics[i].bit == (uint32_t)label)
      return channel_times(d, (dj__label_channel)i, t_ns, n);
  dj__label_reader *spare = dj__drive_label(d, DJ__LABEL_SCENE);
  const dj_control *c;
  const dj_speed *v;
  const dj_pose *p;
  switch (label) {
  case DJ_LABEL_CONTROL:
    DJ_TRY(dj_drive_controls(d, &c, n));
    return record_times(d, spare, c, *n, sizeof *c, t_ns);
  case DJ_LABEL_SPEED:
    DJ_TRY(dj_drive_speeds(d, &v, n));
    return record_times(d, spare, v, *n, sizeof *v, t_ns);
  case DJ_LABEL_PATH:
    DJ_TRY(dj_drive_poses(d, &p, n));
    return record_times(d, spare, p, *n, sizeof *p, t_ns);
  default:
    return dj_error(DJ_E_INVALID, "%s: 0x%x is not one label", dj__drive_path(d), (unsigned)label);
  }
}

dj_status dj_drive_ego_path_times(dj_drive *d, const uint64_t **t_ns, size_t *n) {
  return channel_times(d, DJ__LABEL_PATH, t_ns, n);
}

// ---- messages ----------------------------------------------------------------------------------

typedef struct reading {
  dj_drive *d;
  dj__label_reader *r;
  ProtobufCMessage *m;
  dj__label_channel channel;
  uint64_t t_ns;
} reading;

static dj_status start(dj_drive *d, dj__label_channel c, const ProtobufCMessageDescriptor *type,
                       size_t index, reading *r) {
  *r = (reading){.d = d, .r = dj__drive_label(d, c), .channel = c};
  const uint64_t *t;
  size_t n;
  DJ_TRY(channel_times(d, c, &t, &n));
  if (index >= n)
    return dj_error(DJ_E_INVALID, "%s: message %zu of %s, which has %zu", dj__drive_path(d), index,
                    dj__label_topics[c].topic, n);
  r->t_ns = t[index];
  dj_status s = dj__drive_unpack(d, &r->r->entries[index], type, &r->m);
  return s ? dj_error_context(s, "%s: %s", dj__drive_path(d), dj__label_topics[c].topic) : DJ_OK;
}

static dj_status finish(reading *r, dj_status s) {
  protobuf_c_message_free_unpacked(r->m, NULL);
  if (!s) return DJ_OK;
  return dj_error_context(s, "%s: %s at %.3f s", dj__drive_path(r->d),
                          dj__label_topics[r->channel].topic, (double)r->t_ns * 1e-9);
}

// A fresh array of the channel's, `which` 0..2; at least one element, zeroed.
static void *take(reading *r, int which, size_t n, size_t size) {
  free(r->r->data[which]);
  return r->r->data[which] = calloc(n + 1, size);
}

static dj_status no_memory(size_t n) {
  return dj_error(DJ_E_NOMEM, "no memory for %zu numbers", n);
}

static dj_status check_lengths(const char *what, size_t n, const size_t *others, int k,
                               size_t most) {
  for (int i = 0; i < k; i++)
    if (others[i] != n)
      return dj_error(DJ_E_FORMAT, "%s: lists of %zu and %zu numbers", what, n, others[i]);
  if (n <= most) return DJ_OK;
  return dj_error(DJ_E_FORMAT, "%s: %zu entries; at most %zu are read", what, n, most);
}

static dj_status take_path(reading *r, dj_path *p) {
  const Dojo__EgoPath *m = (const Dojo__EgoPath *)r->m;
  const size_t n[5] = {m->n_x, m->n_y, m->n_z, m->n_yaw, m->n_speed};
  DJ_TRY(check_lengths("path", m->n_t, n, 5, DJ_MAX_PATH));
  dj_path_point *q = take(r, 0, m->n_t, sizeof *q);
  if (!q) return no_memory(m->n_t);
  for (size_t i = 0; i < m->n_t; i++)
    q[i] = (dj_path_point){m->t[i], m->x[i], m->y[i], m->z[i], m->yaw[i], m->speed[i]};
  *p = (dj_path){r->t_ns, (int)m->n_t, q};
  return dj__check_path(DJ_E_FORMAT, p);
}

dj_status dj_drive_read_path(dj_drive *d, size_t index, dj_path *p) {
  reading r;
  *p = (dj_path){0};
  DJ_TRY(start(d, DJ__LABEL_PATH, &dojo__ego_path__descriptor, index, &r));
  return finish(&r, take_path(&r, p));
}

static void join_points(const float *x, const float *y, const float *z, size_t n, float (*p)[3]) {
  for (size_t i = 0; i < n; i++) {
    p[i][0] = x[i];
    p[i][1] = y[i];
    p[i][2] = z[i];
  }
}

static dj_status take_lanes(reading *r, dj_lanes *l) {
  const Dojo__Lanes *m = (const Dojo__Lanes *)r->m;
  DJ_TRY(check_lengths("lines", m->n_lines, NULL, 0, DJ_MAX_LINES));
  size_t total = 0;
  for (size_t i = 0; i < m->n_lines; i++) {
    const Dojo__Polyline *p = m->lines[i];
    const size_t n[2] = {p->n_y, p->n_z};
    DJ_TRY(check_lengths("points of a line", p->n_x, n, 2, DJ_MAX_POINTS));
    total += p->n_x;
  }
  DJ_TRY(check_lengths("points of lines", total, NULL, 0, DJ_MAX_POINTS));
  dj_line *lines = take(r, 0, m->n_lines, sizeof *lines);
  float(*points)[3] = take(r, 1, total, sizeof *points);
  if (!lines || !points) return no_memory(total);
  for (size_t i = 0; i < m->n_lines; i++) {
    const Dojo__Polyline *p = m->lines[i];
    join_points(p->x, p->y, p->z, p->n_x, points);
    lines[i] = (dj_line){(dj_line_kind)p->kind, (dj_line_mark)p->mark, p->yellow != 0, (int)p->n_x,
                         (const float(*)[3])points};
    points += p->n_x;
  }
  *l = (dj_lanes){r->t_ns, (int)m->n_lines, lines};
  return dj__check_lanes(DJ_E_FORMAT, l);
}

dj_status dj_drive_read_lanes(dj_drive *d, size_t index, dj_lanes *l) {
  reading r;
  *l = (dj_lanes){0};
  DJ_TRY(start(d, DJ__LABEL_LANES, &dojo__lanes__descriptor, index, &r));
  return finish(&r, take_lanes(&r, l));
}

static dj_status take_agents(reading *r, dj_agents *a) {
  const Dojo__Agents *m = (const Dojo__Agents *)r->m;
  DJ_TRY(check_lengths("agents", m->n_agents, NULL, 0, DJ_MAX_AGENTS));
  dj_agent *g = take(r, 0, m->n_agents, sizeof *g);
  if (!g) return no_memory(m->n_agents);
  for (size_t i = 0; i < m->n_agents; i++) {
    const Dojo__Agent *v = m->agents[i];
    g[i] = (dj_agent){.id = v->id,
                      .kind = (dj_agent_kind)v->kind,
                      .parked = v->parked != 0,
                      .fixed = v->fixed != 0,
                      .crossing = v->crossing != 0,
                      .x = v->x,
                      .y = v->y,
                      .z = v->z,
                      .yaw = v->yaw,
                      .length = v->length,
                      .width = v->width,
                      .height = v->height,
                      .vx = v->vx,
                      .vy = v->vy,
                      .yaw_rate = v->yaw_rate};
  }
  *a = (dj_agents){r->t_ns, (int)m->n_agents, g};
  return dj__check_agents(DJ_E_FORMAT, a);
}

dj_status dj_drive_read_agents(dj_drive *d, size_t index, dj_agents *a) {
  reading r;
  *a = (dj_agents){0};
  DJ_TRY(start(d, DJ__LABEL_AGENTS, &dojo__agents__descriptor, index, &r));
  return finish(&r, take_agents(&r, a));
}

static dj_status unpack_grid(const ProtobufCBinaryData *bits, const ProtobufCBinaryData *flow,
                             size_t cells, uint8_t *occupied, int16_t *to) {
  if (bits->len != (cells + 7) / 8)
    return dj_error(DJ_E_FORMAT, "a grid of %zu bytes for %zu cells", bits->len, cells);
  size_t taken = 0;
  for (size_t i = 0; i < cells; i++) taken += occupied[i] = bits->data[i / 8] >> i % 8 & 1;
  if (!flow) return DJ_OK;
  if (flow->len != 4 * taken)
    return dj_error(DJ_E_FORMAT, "flow of %zu bytes for %zu taken cells", flow->len, taken);
  const uint8_t *p = flow->data;
  for (size_t i = 0; i < cells; i++)
    for (size_t k = 0; k < 2 && occupied[i]; k++, p += 2)
      to[2 * i + k] = (int16_t)(uint16_t)(p[0] | p[1] << 8);
  return DJ_OK;
}

static dj_status take_occupancy(reading *r, dj_occupancy *o) {
  const Dojo__Occupancy *m = (const Dojo__Occupancy *)r->m;
  if (m->nx > DJ_MAX_CELLS || m->ny > DJ_MAX_CELLS)
    return dj_error(DJ_E_FORMAT, "a grid of %u x %u cells", m->nx, m->ny);
  DJ_TRY(check_lengths("grids", m->n_times, &m->n_occupied, 1, DJ_MAX_TIMES));
  if (m->n_flow + 1 != m->n_times)
    return dj_error(DJ_E_FORMAT, "%zu grids of flow for %zu times", m->n_flow, m->n_times);
  *o = (dj_occupancy){.t_ns = r->t_ns,
                      .x0 = m->x0,
                      .y0 = m->y0,
                      .cell = m->cell,
                      .nx = (int)m->nx,
                      .ny = (int)m->ny,
                      .n_times = (int)m->n_times};
  for (size_t i = 0; i < m->n_times; i++) o->times[i] = m->times[i];
  DJ_TRY(dj__check_occupancy(DJ_E_FORMAT, o));
  size_t cells = (size_t)o->nx * (size_t)o->ny, n = m->n_times;
  uint8_t *occupied = take(r, 0, n * cells, 1);
  int16_t *flow = take(r, 1, (n - 1) * cells * 2, sizeof *flow);
  if (!occupied || !flow) return no_memory(n * cells * 5);
  for (size_t i = 0; i < n; i++)
    DJ_TRY(unpack_grid(&m->occupied[i], i + 1 < n ? &m->flow[i] : NULL, cells, occupied + i * cells,
                       flow + i * cells * 2));
  o->occupied = occupied;
  o->flow = flow;
  return DJ_OK;
}

dj_status dj_drive_read_occupancy(dj_drive *d, size_t index, dj_occupancy *o) {
  reading r;
  *o = (dj_occupancy){0};
  DJ_TRY(start(d, DJ__LABEL_OCCUPANCY, &dojo__occupancy__descriptor, index, &r));
  return finish(&r, take_occupancy(&r, o));
}

dj_status dj_drive_read_light(dj_drive *d, size_t index, dj_light *l) {
  reading r;
  *l = (dj_light){0};
  DJ_TRY(start(d, DJ__LABEL_LIGHT, &dojo__traffic_light__descriptor, index, &r));
  const Dojo__TrafficLight *m = (const Dojo__TrafficLight *)r.m;
  *l = (dj_light){r.t_ns, (dj_light_state)m->state, m->distance, m->x, m->y, m->z};
  return finish(&r, dj__check_light(DJ_E_FORMAT, l));
}

static dj_status take_route(reading *r, dj_route *out) {
  const Dojo__Route *m = (const Dojo__Route *)r->m;
  const size_t n[2] = {m->n_y, m->n_z};
  DJ_TRY(check_lengths("route", m->n_x, n, 2, DJ_MAX_POINTS));
  float(*points)[3] = take(r, 0, m->n_x, sizeof *points);
  if (!points) return no_memory(m->n_x);
  join_points(m->x, m->y, m->z, m->n_x, points);
  *out = (dj_route){r->t_ns, (dj_route_command)m->command, (int)m->n_x, (const float(*)[3])points};
  return dj__check_route(DJ_E_FORMAT, out);
}

dj_status dj_drive_read_route(dj_drive *d, size_t index, dj_route *out) {
  reading r;
  *out = (dj_route){0};
  DJ_TRY(start(d, DJ__LABEL_ROUTE, &dojo__route__descriptor, index, &r));
  return finish(&r, take_route(&r, out));
}

static dj_status take_events(reading *r, dj_events *e) {
  const Dojo__Events *m = (const Dojo__Events *)r->m;
  DJ_TRY(check_lengths("events", m->n_events, NULL, 0, DJ_MAX_EVENTS));
  dj_event *v = take(r, 0, m->n_events, sizeof *v);
  if (!v) return no_memory(m->n_events);
  for (size_t i = 0; i < m->n_events; i++) {
    const Dojo__Event *x = m->events[i];
    v[i] = (dj_event){(dj_event_kind)x->kind, x->agent, x->age, x->x, x->y, x->z};
  }
  *e = (dj_events){r->t_ns, (int)m->n_events, v};
  return dj__check_events(DJ_E_FORMAT, e);
}

dj_status dj_drive_read_events(dj_drive *d, size_t index, dj_events *e) {
  reading r;
  *e = (dj_events){0};
  DJ_TRY(start(d, DJ__LABEL_EVENTS, &dojo__events__descriptor, index, &r));
  return finish(&r, take_events(&r, e));
}

static dj_status take_text(reading *r, dj_text *t) {
  const char *text = ((const Dojo__SceneText *)r->m)->text;
  DJ_TRY(dj__check_text(DJ_E_FORMAT, &(dj_text){r->t_ns, text}));
  char *copy = take(r, 0, strlen(text), 1);
  if (!copy) return no_memory(strlen(text));
  memcpy(copy, text, strlen(text) + 1);
  *t = (dj_text){r->t_ns, copy};
  return DJ_OK;
}

dj_status dj_drive_read_text(dj_drive *d, size_t index, dj_text *t) {
  reading r;
  *t = (dj_text){0};
  DJ_TRY(start(d, DJ__LABEL_TEXT, &dojo__scene_text__descriptor, index, &r));
  return finish(&r, take_text(&r, t));
}

// ---- layers ------------------------------------------------------------------------------------

static dj_status layer_reader(dj_drive *d, int camera, dj_layer layer, dj__label_reader **r) {
  const dj_drive_info *info = dj_drive_get_info(d);
  *r = NULL;
  if (camera < 0 || camera >= info->n_cameras || (unsigned)layer >= DJ_N_LAYERS)
    return dj_error(DJ_E_INVALID, "%s: layer %d of camera %d of %d", dj__drive_path(d), (int)layer,
                    camera, info->n_cameras);
  char topic[DJ_NAME_BYTES + 32];
  (void)snprintf(topic, sizeof topic, "/camera/%s/%s", info->cameras[camera].name,
                 dj_layer_name(layer));
  *r = dj__drive_layer(d, camera, layer);
  return know(d, *r, topic, "foxglove.CompressedImage");
}

dj_status dj_drive_layer_times(dj_drive *d, int camera, dj_layer layer, const uint64_t **t_ns,
                               size_t *n) {
  dj__label_reader *r;
  DJ_TRY(layer_reader(d, camera, layer, &r));
  *t_ns = r->times;
  *n = r->n;
  return DJ_OK;
}

dj_status dj_drive_read_layer(dj_drive *d, int camera, dj_layer layer, size_t index, void *pixels) {
  dj__label_reader *r;
  DJ_TRY(layer_reader(d, camera, layer, &r));
  const dj_camera *c = &dj_drive_get_info(d)->cameras[camera];
  if (index >= r->n)
    return dj_error(DJ_E_INVALID, "%s: %s %zu of camera %s, which has %zu", dj__drive_path(d),
                    dj_layer_name(layer), index, c->name, r->n);
  dj_status s = dj__drive_read_layer(d, &r->entries[index], layer, c->width, c->height, pixels);
  if (s)
    return dj_error_context(s, "%s: %s of camera %s at %.3f s", dj__drive_path(d),
                            dj_layer_name(layer), c->name, (double)r->times[index] * 1e-9);
  return DJ_OK;
}
