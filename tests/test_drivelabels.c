/*
 * Label channels of drive logs: what was written comes back, what is wrong is refused on both
 * sides, and the store counts such logs' labels and takes them in as they are.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "dojo/mcap.h"
#include "drive_fixture.h"
#include "fleet/drivelog.h"

#include "dojo/Agents.pb-c.h"
#include "dojo/Occupancy.pb-c.h"

enum { N = 40, NX = 7, NY = 5, TIMES = 3, CELLS = NX * NY };
static const uint64_t t0 = 1700000000000000000ull;
static const uint32_t ALL = (1u << DJ_N_LABELS) - 1;

static dj_drive_info make_info(void) {
  dj_drive_info i = {.name = "w-1", .format = "world", .source_digest = "00", .n_cameras = 1};
  i.cameras[0] = (dj_camera){.name = "front",
                             .width = FX_W,
                             .height = FX_H,
                             .calibrated = true,
                             .K = {30, 0, 15.5, 0, 30, 11.5, 0, 0, 1},
                             .rotation = {-0.5, 0.5, -0.5, 0.5}};
  return i;
}

// ---- labels of moment i ----

typedef struct moment {
  dj_path_point path[4];
  dj_agent agents[3];
  float points[5][3];
  dj_line lines[2];
  uint8_t occupied[TIMES * CELLS];
  int16_t flow[(TIMES - 1) * CELLS * 2];
  dj_event events[1];
  char text[64];
  dj_path p;
  dj_agents a;
  dj_lanes l;
  dj_occupancy o;
  dj_light light;
  dj_route r;
  dj_events e;
  dj_text x;
} moment;

static void make_moment(moment *m, int i) {
  uint64_t t = t0 + 100000000ull * (unsigned)i;
  *m = (moment){0};
  for (int k = 0; k < 4; k++)
    m->path[k] = (dj_path_point){0.5f * (float)k, (float)k, 0.1f * (float)i, 0, 0.01f, 9};
  m->p = (dj_path){t, 4, m->path};
  for (int k = 0; k < 3; k++)
    m->agents[k] = (dj_agent){.id = (uint32_t)(100 * k + i),
                              .kind = (dj_agent_kind)((i + k) % DJ_N_AGENT_KINDS),
                              .parked = k == 1,
                              .crossing = k == 2,
                              .x = (float)(k + i),
                              .y = -1.5f,
                              .length = 4.5f,
                              .width = 1.8f,
                              .height = 1.5f,
                              .vx = 3,
                              .yaw_rate = -0.1f};
  m->a = (dj_agents){t, i % 4, m->agents};
  for (int k = 0; k < 5; k++) m->points[k][0] = (float)(k * i);
  m->lines[0] = (dj_line){DJ_LINE_MARKING, DJ_MARK_BROKEN, true, 3, (const float(*)[3])m->points};
  m->lines[1] =
      (dj_line){DJ_LINE_ROAD_EDGE, DJ_MARK_CURB, false, 2, (const float(*)[3])m->points + 3};
  m->l = (dj_lanes){t, 2, m->lines};
  for (int k = 0; k < TIMES * CELLS; k++) m->occupied[k] = (k * 7 + i) % 5 == 0;
  for (int k = 0; k < (TIMES - 1) * CELLS; k++)
    for (int c = 0; c < 2 && m->occupied[k]; c++)
      m->flow[2 * k + c] = k % 11 ? (int16_t)(k * (c ? -3 : 2)) : DJ_FLOW_UNKNOWN;
  m->o = (dj_occupancy){t, -2, -1.25f, 0.5f, NX, NY, TIMES, {0, 1, 2}, m->occupied, m->flow};
  m->light = i % 2 ? (dj_light){t, DJ_LIGHT_NONE, NAN, 0, 0, 0}
                   : (dj_light){t, DJ_LIGHT_YELLOW, 31.5f, 30, 1, 0};
  m->r =
      (dj_route){t, (dj_route_command)(i % DJ_N_ROUTE_COMMANDS), 5, (const float(*)[3])m->points};
  m->events[0] = (dj_event){DJ_EVENT_CUT_IN, 7, 0.5f, 1, 2, 3};
  m->e = (dj_events){t, i % 2, m->events};
  (void)snprintf(m->text, sizeof m->text, "The car drives at %d km/h.", i);
  m->x = (dj_text){t, m->text};
}

static void write_layers(dj_drive_writer *w, int i, uint64_t t) {
  static float depth[FX_W * FX_H];
  static uint8_t class[FX_W * FX_H];
  static uint32_t id[FX_W * FX_H];
  for (int k = 0; k < FX_W * FX_H; k++) {
    depth[k] = k % 9 ? 0.37f * (float)(k + i) : INFINITY;
    class[k] = (uint8_t)(k % 17);
    id[k] = (uint32_t)(k * 7919 + i) & 0xffffff;
  }
  const void *const pixels[DJ_N_LAYERS] = {depth, class, id};
  for (int layer = 0; layer < DJ_N_LAYERS; layer++) {
    uint8_t *png;
    size_t size;
    fx_ok(dj_layer_encode((dj_layer)layer, pixels[layer], FX_W, FX_H, &png, &size));
    fx_ok(dj_drive_write_layer(w, 0, (dj_layer)layer, t, png, size));
    free(png);
  }
}

static void write_log(const char *path) {
  dj_drive_info info = make_info();
  dj_drive_writer *w;
  fx_ok(dj_drive_writer_open(path, &info, &w));
  moment *m = malloc(sizeof *m);
  for (int i = 0; i < N; i++) {
    make_moment(m, i);
    uint64_t t = m->p.t_ns;
    uint8_t rgb[FX_W * FX_H * 3], *jpeg;
    size_t size;
    fx_fill(i, FX_W, FX_H, rgb);
    fx_ok(dj__jpeg_encode(rgb, FX_W, FX_H, 90, &jpeg, &size));
    fx_ok(dj_drive_write_image(w, 0, t, "jpeg", jpeg, size));
    free(jpeg);
    fx_ok(dj_drive_write_speed(w, &(dj_speed){t, 3}));
    fx_ok(dj_drive_write_control(w, &(dj_control){t, 0.1, 0.2, 0, 0}));
    fx_ok(dj_drive_write_pose(w, &(dj_pose){t, {i, 0, 0}, {0, 0, 0, 1}}));
    write_layers(w, i, t);
    fx_ok(dj_drive_write_path(w, &m->p));
    fx_ok(dj_drive_write_lanes(w, &m->l));
    fx_ok(dj_drive_write_agents(w, &m->a));
    fx_ok(dj_drive_write_occupancy(w, &m->o));
    fx_ok(dj_drive_write_light(w, &m->light));
    fx_ok(dj_drive_write_route(w, &m->r));
    fx_ok(dj_drive_write_events(w, &m->e));
    fx_ok(dj_drive_write_text(w, &m->x));
    fx_ok(dj_drive_write_scene(w, t, &m->a, &m->l, &m->p, &m->r));
  }
  free(m);
  fx_ok(dj_drive_writer_close(w, 0));
}

static void check_moment(dj_drive *d, int i) {
  moment *m = malloc(sizeof *m);
  make_moment(m, i);
  size_t k = (size_t)i;
  dj_path p;
  dj_agents a;
  dj_lanes l;
  dj_occupancy o;
  dj_light light;
  dj_route r;
  dj_events e;
  dj_text x;
  fx_ok(dj_drive_read_path(d, k, &p));
  assert_int_equal(p.t_ns, m->p.t_ns);
  assert_int_equal(p.n, 4);
  assert_memory_equal(p.points, m->path, sizeof m->path);
  fx_ok(dj_drive_read_agents(d, k, &a));
  assert_int_equal(a.n, i % 4);
  for (int g = 0; g < a.n; g++) {
    assert_int_equal(a.agents[g].id, m->agents[g].id);
    assert_int_equal(a.agents[g].kind, m->agents[g].kind);
    assert_int_equal(a.agents[g].parked, m->agents[g].parked);
    assert_int_equal(a.agents[g].crossing, m->agents[g].crossing);
    assert_memory_equal(&a.agents[g].x, &m->agents[g].x, 10 * sizeof(float));
  }
  fx_ok(dj_drive_read_lanes(d, k, &l));
  assert_int_equal(l.n, 2);
  for (int g = 0; g < 2; g++) {
    assert_int_equal(l.lines[g].kind, m->lines[g].kind);
    assert_int_equal(l.lines[g].mark, m->lines[g].mark);
    assert_int_equal(l.lines[g].yellow, m->lines[g].yellow);
    assert_int_equal(l.lines[g].n, m->lines[g].n);
    assert_memory_equal(l.lines[g].point, m->lines[g].point, 12u * (unsigned)l.lines[g].n);
  }
  fx_ok(dj_drive_read_occupancy(d, k, &o));
  assert_int_equal(o.nx, NX);
  assert_int_equal(o.ny, NY);
  assert_int_equal(o.n_times, TIMES);
  assert_memory_equal(o.occupied, m->occupied, sizeof m->occupied);
  assert_memory_equal(o.flow, m->flow, sizeof m->flow);
  fx_ok(dj_drive_read_light(d, k, &light));
  assert_int_equal(light.state, m->light.state);
  assert_int_equal(isnan(light.distance), i % 2);
  fx_ok(dj_drive_read_route(d, k, &r));
  assert_int_equal(r.command, m->r.command);
  assert_int_equal(r.n, 5);
  assert_memory_equal(r.point, m->points, sizeof m->points);
  fx_ok(dj_drive_read_events(d, k, &e));
  assert_int_equal(e.n, i % 2);
  if (e.n) assert_memory_equal(e.events, m->events, sizeof m->events);
  fx_ok(dj_drive_read_text(d, k, &x));
  assert_string_equal(x.text, m->text);
  free(m);
}

static void check_layers(dj_drive *d, int i) {
  static float depth[FX_W * FX_H];
  static uint8_t class[FX_W * FX_H];
  static uint32_t id[FX_W * FX_H];
  fx_ok(dj_drive_read_layer(d, 0, DJ_LAYER_DEPTH, (size_t)i, depth));
  fx_ok(dj_drive_read_layer(d, 0, DJ_LAYER_SEMANTIC, (size_t)i, class));
  fx_ok(dj_drive_read_layer(d, 0, DJ_LAYER_INSTANCE, (size_t)i, id));
  for (int k = 0; k < FX_W * FX_H; k++) {
    if (k % 9)
      fx_near(depth[k], 0.37 * (k + i), 0.00501 + (k + i ? 0 : 0.01));
    else
      assert_true(isinf(depth[k]));
    assert_int_equal(class[k], k % 17);
    assert_int_equal(id[k], (uint32_t)(k * 7919 + i) & 0xffffff);
  }
}

static void round_trip(void **state) {
  const char *path = fx_path(*state, "w-1.mcap");
  write_log(path);
  dj_drive *d;
  fx_ok(dj_drive_open(path, &d));
  assert_int_equal(dj_drive_get_info(d)->labels, ALL);
  for (int i = 0; i < DJ_N_LABELS; i++) {
    const uint64_t *t;
    size_t n;
    fx_ok(dj_drive_label_times(d, (dj_label)(1 << i), &t, &n));
    assert_int_equal(n, N);
    assert_int_equal(t[3], t0 + 300000000ull);
  }
  for (int i = N - 1; i >= 0; i -= 3) check_moment(d, i);
  check_layers(d, 0);
  check_layers(d, N - 1);
  dj_text x;
  FX_ERROR(dj_drive_read_text(d, N, &x), DJ_E_INVALID, "w-1.mcap", "/label/text");
  FX_ERROR(dj_drive_label_times(d, (dj_label)3, &(const uint64_t *){0}, &(size_t){0}), DJ_E_INVALID,
           "not one label");
  dj_drive_close(d);
}

static void names(void **state) {
  (void)state;
  char text[128];
  assert_string_equal(dj_label_list(0, ",", text, sizeof text), "none");
  assert_string_equal(dj_label_list(DJ_LABEL_PATH | DJ_LABEL_TEXT, ", ", text, sizeof text),
                      "path, text");
  assert_string_equal(dj_label_list(ALL, ",", text, 12), "control,spe"); // cut, never overrun
  assert_null(dj_label_name(DJ_N_LABELS));
}

/* The writer refuses what a reader would refuse. */
static void writer_refuses(void **state) {
  const char *path = fx_path(*state, "w.mcap");
  dj_drive_info info = make_info();
  dj_drive_writer *w;
  fx_ok(dj_drive_writer_open(path, &info, &w));
  moment *m = malloc(sizeof *m);
  make_moment(m, 3);
  m->path[2].t = 0.2f;
  FX_ERROR(dj_drive_write_path(w, &m->p), DJ_E_INVALID, "drive w-1", "path", "rise from 0");
  m->agents[1].width = 0;
  FX_ERROR(dj_drive_write_agents(w, &m->a), DJ_E_INVALID, "agent 1", "a box of");
  m->agents[1].width = NAN;
  FX_ERROR(dj_drive_write_agents(w, &m->a), DJ_E_INVALID, "agent 1");
  m->points[1][2] = INFINITY;
  FX_ERROR(dj_drive_write_lanes(w, &m->l), DJ_E_INVALID, "line 0", "inf");
  FX_ERROR(dj_drive_write_route(w, &m->r), DJ_E_INVALID, "route 1");
  m->lines[1].mark = 9;
  m->points[1][2] = 0;
  FX_ERROR(dj_drive_write_lanes(w, &m->l), DJ_E_INVALID, "mark of a line is 9");
  m->o.nx = 1 << 15;
  m->o.ny = 1 << 15;
  FX_ERROR(dj_drive_write_occupancy(w, &m->o), DJ_E_INVALID, "32768 x 32768 cells");
  m->events[0].age = -1;
  FX_ERROR(dj_drive_write_events(w, &m->e), DJ_E_INVALID, "age is -1");
  m->light.state = DJ_LIGHT_RED; // without a distance
  FX_ERROR(dj_drive_write_light(w, &m->light), DJ_E_INVALID, "light");
  FX_ERROR(dj_drive_write_text(w, &(dj_text){t0, "two\nlines"}), DJ_E_INVALID, "control character");
  FX_ERROR(dj_drive_write_text(w, &(dj_text){t0, ""}), DJ_E_INVALID, "0 bytes");
  free(m);
  dj_drive_writer_abort(w);
}

/* Messages that another program may have written, put on the channels as they are. */
static void reader_refuses(void **state) {
  const char *path = fx_path(*state, "w.mcap");
  dj_drive_info info = make_info();
  dj_drive_writer *w;
  fx_ok(dj_drive_writer_open(path, &info, &w));
  Dojo__Occupancy o = DOJO__OCCUPANCY__INIT;
  uint8_t bits[2] = {3, 0}, flow[8] = {0};
  ProtobufCBinaryData occupied[2] = {{2, bits}, {2, bits}}, moved = {8, flow};
  float times[2] = {0, 1};
  o.cell = 0.5f;
  o.nx = 4;
  o.ny = 4;
  o.n_times = o.n_occupied = 2;
  o.times = times;
  o.occupied = occupied;
  o.n_flow = 1;
  o.flow = &moved;
  uint64_t t = t0;
#define PUT(channel, m) fx_ok(dj__drive_put_label(w, channel, t++, &(m).base))
  PUT(DJ__LABEL_OCCUPANCY, o); // 0: right
  occupied[1].len = 1;
  PUT(DJ__LABEL_OCCUPANCY, o); // 1: too few bits
  occupied[1].len = 2;
  moved.len = 7;
  PUT(DJ__LABEL_OCCUPANCY, o); // 2: too little flow
  moved.len = 8;
  o.nx = UINT32_MAX;
  PUT(DJ__LABEL_OCCUPANCY, o); // 3: a grid of billions of cells
  o.nx = 4;
  times[1] = -1;
  PUT(DJ__LABEL_OCCUPANCY, o); // 4: time runs backwards
  times[1] = 1;
  o.n_flow = 0;
  PUT(DJ__LABEL_OCCUPANCY, o); // 5: no flow
  Dojo__Agent agent = DOJO__AGENT__INIT, *list = &agent;
  Dojo__Agents a = DOJO__AGENTS__INIT;
  a.n_agents = 1;
  a.agents = &list;
  agent.length = agent.width = agent.height = 1;
  agent.kind = 77;
  PUT(DJ__LABEL_AGENTS, a);
  fx_ok(dj_drive_write_layer(w, 0, DJ_LAYER_DEPTH, t, "\x89PNG\r\n\x1a\nabc", 11));
  fx_ok(dj_drive_writer_close(w, 0));

  dj_drive *d;
  fx_ok(dj_drive_open(path, &d));
  dj_occupancy got;
  fx_ok(dj_drive_read_occupancy(d, 0, &got));
  assert_int_equal(got.occupied[1], 1);
  FX_ERROR(dj_drive_read_occupancy(d, 1, &got), DJ_E_FORMAT, "w.mcap: /label/occupancy at",
           "a grid of 1 bytes for 16 cells");
  FX_ERROR(dj_drive_read_occupancy(d, 2, &got), DJ_E_FORMAT, "flow of 7 bytes for 2 taken cells");
  FX_ERROR(dj_drive_read_occupancy(d, 3, &got), DJ_E_FORMAT, "4294967295 x 4 cells");
  FX_ERROR(dj_drive_read_occupancy(d, 4, &got), DJ_E_FORMAT, "times rise from 0");
  FX_ERROR(dj_drive_read_occupancy(d, 5, &got), DJ_E_FORMAT, "0 grids of flow for 2 times");
  dj_agents agents;
  FX_ERROR(dj_drive_read_agents(d, 0, &agents), DJ_E_FORMAT, "kind of an agent is 77");
  float depth[FX_W * FX_H];
  FX_ERROR(dj_drive_read_layer(d, 0, DJ_LAYER_DEPTH, 0, depth), DJ_E_FORMAT,
           "depth of camera front", "broken PNG of 11 bytes");
  dj_drive_close(d);
}

/* Such a log goes into a store as it is: labels of the drive and of each clip, under another name,
 * and again without effect. */
static void into_a_store(void **state) {
  const char *from = fx_path(*state, "from"), *S = fx_path(*state, "S");
  fx_ok(dj__mkdirs(from));
  const char *log = fx_path(from, "Town 7_rain.mcap");
  write_log(log);
  dj_ingest_options o = {.store = S};
  dj_ingest_report r;
  fx_ok(dj_ingest(from, &o, &r));
  assert_int_equal(r.n_imported, 1);
  assert_string_equal(r.drives[0].name, "town-7_rain");
  assert_int_equal(r.drives[0].labels, ALL);
  assert_int_equal(r.drives[0].n_frames, N);
  assert_int_equal(r.drives[0].n_controls, N);
  dj_ingest_report_free(&r);
  fx_ok(dj_ingest(log, &o, &r));
  assert_int_equal(r.n_already_there, 1);
  dj_ingest_report_free(&r);
  dj_store *s;
  dj_store_drive *d;
  size_t n;
  fx_ok(dj_store_open(S, DJ_STORE_EXISTING, &s));
  fx_ok(dj_store_drives(s, &d, &n));
  assert_int_equal(n, 1);
  assert_int_equal(d->labels, ALL);
  assert_string_equal(d->format, "world");
  assert_true(d->n_clips > 0);
  for (int i = 0; i < d->n_clips; i++) assert_int_equal(d->clips[i].labels, ALL);
  dj_store_drives_free(d, n);
  dj_store_close(s);
  dj_drive *copy;
  fx_ok(dj_drive_open(fx_path(S, "logs/town-7_rain.mcap"), &copy));
  for (int i = 0; i < N; i += 7) check_moment(copy, i);
  check_layers(copy, 5);
  uint8_t rgb[FX_W * FX_H * 3];
  fx_ok(dj_drive_read_frame(copy, 0, 9, rgb));
  fx_check_picture(rgb, FX_W, FX_H, 9, 6);
  dj_drive_close(copy);
  // A cut log is no drive to be found.
  fx_cut(log, 20000);
  FX_ERROR(dj_ingest(log, &o, &r), DJ_E_NOT_FOUND, "no drive found");
  dj_ingest_report_free(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {FX_TEST(round_trip), FX_TEST(names), FX_TEST(writer_refuses),
                                     FX_TEST(reader_refuses), FX_TEST(into_a_store)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
