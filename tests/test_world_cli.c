/*
 * `dojo world` as a user meets it: a suite is listed and recorded; the logs hold what happened, the
 * same bytes on every run; agents lie on their pixels; the logs go into a store and are trained on;
 * towns are shown; mistakes say what to do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <time.h>

#include "cli_fixture.h"
#include "dojo/drivelog.h"
#include "fleet/importers/matrix.h"
#include "world/render.h"

enum { W = 96, H = 64 };
static const char SUITE[] = "name: small\n"
                            "seconds: 3\n"
                            "length: 1000\n"
                            "rig: rig.yaml\n"
                            "weather: [clear, night-rain]\n"
                            "traffic: [{name: a, vehicles: 40, cyclists: 8, pedestrians: 40,\n"
                            "           parked: 60, unruly: 1}]\n"
                            "towns:\n"
                            "  - {style: grid, seeds: [3], routes: 2}\n"
                            "recovery: {offset: 1}\n";
static const char RIG[] =
    "name: pair\n"
    "rate: 10\n"
    "cameras:\n"
    "  - {name: front, width: 96, height: 64, fov: 80, position: [1.5, 0, 1.4]}\n"
    "  - {name: left, width: 96, height: 64, fov: 90, position: [1, 0.6, 1.4], yaw: 60}\n";

static int make_root(void **state) {
  (void)state;
  if (!mkdtemp(root)) return -1;
  put("s.yaml", SUITE);
  put("rig.yaml", RIG);
  put("path.yaml", "name: path\n"
                   "data: {width: 32, height: 16, frames: 2, labels: [control, path]}\n"
                   "network: {name: dojo4d, channels: 8, stages: 2, hidden: 16}\n"
                   "train: {steps: 4, batch: 2}\n");
  return RUN("world", "record", "--suite", "s.yaml", "--out", "logs", "--layers",
             "depth,semantic,instance", "--perturb", "0.5", "--json");
}

static dj_drive *open_log(const char *folder, const char *name) {
  char *path = dj__strf("%s/%s/%s.mcap", root, folder, name);
  dj_drive *d;
  OK(dj_drive_open(path, &d));
  free(path);
  return d;
}

static char *bytes_of(const char *folder, const char *name, size_t *n) {
  char *path = dj__strf("%s/%s/%s.mcap", root, folder, name), *data;
  OK(dj__read_file(path, 1 << 28, &data, n));
  free(path);
  return data;
}

// The names of a folder's logs: weathers go round with the seed, so they are looked up, not
// guessed.
static char **logs(size_t *n) {
  char *path = dj__join(root, "logs"), **names;
  OK(dj__list_dir(path, &names, n));
  free(path);
  for (size_t i = 0; i < *n; i++) names[i][strlen(names[i]) - 5] = 0;
  return names;
}

// ---- suites ------------------------------------------------------------------------------------

static void suites_are_listed(void **state) {
  (void)state;
  EXPECT(0, "world", "suite", "s.yaml", "--json");
  json_t *j = report(), *cases = json_object_get(j, "cases");
  assert_int_equal(json_array_size(cases), 3);
  assert_string_equal(json_string_value(json_object_get(json_array_get(cases, 2), "kind")),
                      "offset");
  json_decref(j);
  EXPECT(0, "world", "suite", "s.yaml");
  assert_has("out.txt", "3 drives in 1 towns");
  EXPECT(6, "world", "suite", "none.yaml");
  assert_has("err.txt", "none.yaml");
  put("bad.yaml", "towns:\n  - {style: gird, seeds: [1]}\n");
  EXPECT(5, "world", "suite", "bad.yaml");
  assert_has("err.txt", "dojo world: bad.yaml:2: 'towns[0].style' cannot be 'gird'; did you mean");
}

static void events_are_counted(void **state) {
  (void)state;
  EXPECT(0, "world", "events", "--suite", "s.yaml", "--json", "--threads", "2");
  char *first = text_of("out.txt");
  json_t *j = report(), *cut_in = json_object_get(json_object_get(j, "events"), "cut-in");
  assert_int_equal(json_integer_value(json_object_get(j, "drives")), 3);
  assert_true(json_number_value(json_object_get(j, "vehicle_hours")) > 0.03);
  assert_true(json_is_integer(json_object_get(cut_in, "by_themselves")));
  assert_true(json_is_object(json_object_get(cut_in, "per_hour")));
  assert_true(json_is_object(json_object_get(json_object_get(j, "by_style"), "grid")));
  assert_true(json_is_object(json_object_get(json_object_get(j, "by_unruly"), "1")));
  json_decref(j);
  EXPECT(0, "world", "events", "--suite", "s.yaml", "--json", "--threads", "1");
  char *again = text_of("out.txt");
  assert_string_equal(first, again);
  free(first);
  free(again);
  EXPECT(0, "world", "events", "--suite", "s.yaml", "--limit", "1");
  assert_has("out.txt", "1 drives");
  assert_has("out.txt", "red-runner");
  assert_has("out.txt", "contacts among others");
  assert_has("err.txt", "driving");
  EXPECT(2, "world", "events");
  assert_has("err.txt", "needs --suite FILE");
  EXPECT(2, "world", "events", "--suite", "s.yaml", "--threads", "-1");
  assert_has("err.txt", "--threads is 0 to 1024");
  EXPECT(6, "world", "events", "--suite", "none.yaml");
  EXPECT(0, "world", "events", "--help");
  assert_has("out.txt", "Examples:");
}

// ---- what is in the logs -----------------------------------------------------------------------

static void logs_hold_what_happened(void **state) {
  (void)state;
  size_t n_logs;
  char **names = logs(&n_logs);
  assert_int_equal(n_logs, 3);
  for (size_t k = 0; k < n_logs; k++) {
    dj_drive *d = open_log("logs", names[k]);
    const dj_drive_info *info = dj_drive_get_info(d);
    assert_string_equal(info->name, names[k]);
    assert_string_equal(info->format, "world");
    assert_int_equal(info->labels, (1u << DJ_N_LABELS) - 1);
    assert_int_equal(info->n_cameras, 2);
    assert_true(info->cameras[1].calibrated);
    const uint64_t *t, *lt;
    const dj_pose *pose;
    size_t n, nl, np;
    OK(dj_drive_frame_times(d, 0, &t, &n));
    assert_int_equal(n, 31);
    OK(dj_drive_label_times(d, DJ_LABEL_OCCUPANCY, &lt, &nl));
    assert_int_equal(nl, 31);
    OK(dj_drive_poses(d, &pose, &np));
    assert_int_equal(np, 61);
    for (size_t i = 0; i < n; i++) {
      assert_int_equal(lt[i], t[i]);
      assert_int_equal(t[i] - t[0], i * 100000000u);
      // The path is where the poses go, as far as the log goes.
      dj_path path;
      OK(dj_drive_read_path(d, i, &path));
      assert_int_equal(path.n, 31);
      const dj_pose *p = &pose[2 * i];
      double R[9];
      dj__quat_to_mat(p->rotation, R);
      for (size_t s = 0; 2 * i + 4 * s < np && s < 31; s++) {
        const dj_path_point *q = &path.points[s];
        const dj_pose *later = &pose[2 * i + 4 * s];
        double v[3] = {q->x, q->y, q->z}, w[3];
        dj__mat_vec(R, v, w);
        for (int c = 0; c < 3; c++)
          if (fabs(w[c] + p->position[c] - later->position[c]) > 2e-3)
            fail_msg("%s, frame %zu: path and pose %g s later differ", names[k], i, (double)q->t);
      }
      uint8_t rgb[W * H * 3];
      OK(dj_drive_read_frame(d, 1, i, rgb));
    }
    dj_drive_close(d);
  }
  dj__free_names(names, n_logs);
}

static int class_of(dj_agent_kind k) {
  switch (k) {
  case DJ_AGENT_CAR:
  case DJ_AGENT_RC_CAR:
    return DJ__CLASS_CAR;
  case DJ_AGENT_VAN:
  case DJ_AGENT_LORRY:
    return DJ__CLASS_TRUCK;
  case DJ_AGENT_BUS:
    return DJ__CLASS_BUS;
  case DJ_AGENT_MOTORCYCLE:
  case DJ_AGENT_CYCLIST:
    return DJ__CLASS_TWO_WHEELER;
  case DJ_AGENT_PEDESTRIAN:
    return DJ__CLASS_PERSON;
  default:
    return DJ__CLASS_BARRIER;
  }
}

/* Box of an agent in a picture, pixels; false where part of it is behind the camera. */
static bool project(const dj_camera *c, const dj_agent *g, double box[4]) {
  double R[9], back[9];
  dj__quat_to_mat(c->rotation, R);
  dj__mat_transpose(R, back);
  box[0] = box[1] = 1e9;
  box[2] = box[3] = -1e9;
  for (int i = 0; i < 8; i++) {
    double u = (i & 1 ? 0.5 : -0.5) * g->length, v = (i & 2 ? 0.5 : -0.5) * g->width;
    double p[3] = {g->x + u * cos(g->yaw) - v * sin(g->yaw) - c->position[0],
                   g->y + u * sin(g->yaw) + v * cos(g->yaw) - c->position[1],
                   g->z + (i & 4 ? g->height : 0) - c->position[2]};
    double o[3];
    dj__mat_vec(back, p, o);
    if (o[2] < 0.5) return false;
    double x = c->K[0] * o[0] / o[2] + c->K[2], y = c->K[4] * o[1] / o[2] + c->K[5];
    box[0] = fmin(box[0], x);
    box[1] = fmin(box[1], y);
    box[2] = fmax(box[2], x);
    box[3] = fmax(box[3], y);
  }
  return true;
}

/* Every pixel of an instance lies in the agent's projected box and has its class and about its
 * depth. */
static void agents_lie_on_their_pixels(void **state) {
  (void)state;
  size_t n_logs;
  char **names = logs(&n_logs);
  int pixels = 0, right = 0, seen = 0, kinds[DJ_N_AGENT_KINDS] = {0};
  for (size_t k = 0; k < n_logs; k++) {
    dj_drive *d = open_log("logs", names[k]);
    static uint32_t id[W * H];
    static uint8_t class[W * H];
    static float depth[W * H];
    for (size_t i = 0; i < 31; i += 3)
      for (int camera = 0; camera < 2; camera++) {
        const dj_camera *c = &dj_drive_get_info(d)->cameras[camera];
        dj_agents a;
        OK(dj_drive_read_agents(d, i, &a));
        OK(dj_drive_read_layer(d, camera, DJ_LAYER_INSTANCE, i, id));
        OK(dj_drive_read_layer(d, camera, DJ_LAYER_SEMANTIC, i, class));
        OK(dj_drive_read_layer(d, camera, DJ_LAYER_DEPTH, i, depth));
        for (int g = 0; g < a.n; g++) {
          const dj_agent *agent = &a.agents[g];
          double box[4], far = hypotf(agent->x, agent->y);
          if (!project(c, agent, box)) continue;
          int own = 0;
          for (int p = 0; p < W * H; p++) {
            if (id[p] != agent->id) continue;
            double x = p % W + 0.5, y = p / W + 0.5, margin = 1.5;
            bool in = x > box[0] - margin && x < box[2] + margin && y > box[1] - margin &&
                      y < box[3] + margin;
            bool deep = depth[p] < far + 3 + agent->length && depth[p] > 0.4 * far - 6;
            own++;
            pixels++;
            right += in && deep && class[p] == class_of(agent->kind);
          }
          seen += own > 0;
          kinds[agent->kind] += own > 0;
        }
      }
    dj_drive_close(d);
  }
  dj__free_names(names, n_logs);
  if (seen < 20 || !kinds[DJ_AGENT_CAR]) fail_msg("only %d agents in the pictures", seen);
  if (right < 0.98 * pixels) fail_msg("%d of %d pixels of agents are right", right, pixels);
}

// ---- recording ---------------------------------------------------------------------------------

static void again_and_elsewhere(void **state) {
  (void)state;
  EXPECT(0, "world", "record", "--suite", "s.yaml", "--out", "logs", "--layers",
         "depth,semantic,instance", "--perturb", "0.5", "--json");
  json_t *j = report();
  assert_int_equal(json_integer_value(json_object_get(j, "already_there")), 3);
  assert_int_equal(json_integer_value(json_object_get(j, "recorded")), 0);
  json_decref(j);
  // Other options are another recording.
  EXPECT(13, "world", "record", "--suite", "s.yaml", "--out", "logs");
  assert_has("err.txt", "recorded with other options");
  // The same bytes, whatever encodes.
  EXPECT(0, "world", "record", "--suite", "s.yaml", "--out", "other", "--layers",
         "depth,semantic,instance", "--perturb", "0.5", "--threads", "1", "--limit", "1");
  size_t n, a, b;
  char **names = logs(&n), *path = dj__join(root, "other"), **others;
  OK(dj__list_dir(path, &others, &n));
  assert_int_equal(n, 1);
  others[0][strlen(others[0]) - 5] = 0;
  char *first = bytes_of("logs", others[0], &a), *second = bytes_of("other", others[0], &b);
  assert_int_equal(a, b);
  assert_memory_equal(first, second, a);
  free(first);
  free(second);
  dj__free_names(others, n);
  dj__free_names(names, 3);
  free(path);
}

static void killed_and_resumed(void **state) {
  (void)state;
  pid_t pid =
      start((const char *const[]){"world", "record", "--suite", "s.yaml", "--out", "killed", NULL});
  char *path = dj__join(root, "killed"), **names;
  size_t n = 0;
  for (int i = 0; i < 6000 && !n; i++) { // until the first log is there
    (void)nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    if (!dj__is_dir(path)) continue;
    size_t all;
    OK(dj__list_dir(path, &names, &all));
    for (size_t k = 0; k < all; k++) {
      size_t len = strlen(names[k]);
      n += len > 5 && !strcmp(names[k] + len - 5, ".mcap");
    }
    dj__free_names(names, all);
  }
  (void)kill(pid, SIGKILL);
  (void)finish(pid);
  assert_true(n > 0);
  EXPECT(0, "world", "record", "--suite", "s.yaml", "--out", "killed", "--json");
  json_t *j = report();
  assert_true(json_integer_value(json_object_get(j, "already_there")) >= 1);
  assert_int_equal(json_integer_value(json_object_get(j, "already_there")) +
                       json_integer_value(json_object_get(j, "recorded")),
                   3);
  json_decref(j);
  free(path);
}

static void as_video(void **state) {
  (void)state;
  EXPECT(0, "world", "record", "--suite", "s.yaml", "--out", "video", "--video", "--limit", "1",
         "--seconds", "1", "--rate", "5", "--json");
  json_t *j = report(), *drive = json_array_get(json_object_get(j, "drives"), 0);
  dj_drive *d = open_log("video", json_string_value(json_object_get(drive, "name")));
  const uint64_t *t;
  size_t n;
  OK(dj_drive_frame_times(d, 1, &t, &n));
  assert_int_equal(n, 6);
  assert_int_equal(t[1] - t[0], 200000000);
  uint8_t rgb[W * H * 3];
  for (size_t i = 0; i < n; i++) OK(dj_drive_read_frame(d, 1, n - 1 - i, rgb));
  dj_drive_close(d);
  json_decref(j);
}

static void into_a_store_and_a_network(void **state) {
  (void)state;
  EXPECT(0, "ingest", "logs", "--store", "S", "--json");
  json_t *j = report();
  assert_int_equal(json_integer_value(json_object_get(j, "imported")), 3);
  json_decref(j);
  EXPECT(0, "store", "ls", "--store", "S");
  assert_has("out.txt", "control,speed,path,lanes,agents,occupancy,lights,command,events,text");
  assert_has("out.txt", "camera left            96x64, 31 frames");
  EXPECT(0, "store", "check", "--store", "S", "--decode");
  EXPECT(0, "train", "path.yaml", "--store", "S", "--out", "R");
  // The network drives, the expert beside it: a log like the others, and no other options' log.
  EXPECT(2, "world", "record", "--suite", "s.yaml", "--out", "own", "--driver", "R");
  assert_has("err.txt", "sees 1 camera, the rig has 2");
  for (int k = 0; k < 2; k++) {
    EXPECT(0, "world", "record", "--suite", "s.yaml", "--out", "own", "--driver", "R", "--rig",
           "mono", "--limit", "1", "--json");
    j = report();
    assert_int_equal(json_integer_value(json_object_get(j, k ? "already_there" : "recorded")), 1);
    json_t *own = json_object_get(json_array_get(json_object_get(j, "drives"), 0), "own");
    assert_true(k || (json_real_value(own) > 0 && json_real_value(own) <= 1));
    json_decref(j);
  }
  EXPECT(13, "world", "record", "--suite", "s.yaml", "--out", "own", "--rig", "mono", "--limit",
         "1");
  EXPECT(0, "ingest", "own", "--store", "S");
}

// ---- view and mistakes -------------------------------------------------------------------------

static void towns_are_shown(void **state) {
  (void)state;
  EXPECT(0, "world", "view", "--seed", "7", "--style", "track", "--out", "t.png", "--width", "320",
         "--mp4", "t.mp4", "--rig", "rig.yaml", "--seconds", "0.5", "--vehicle", "rc-car");
  assert_has("out.txt", "roads");
  const char *const files[] = {"t.png", "t.mp4"};
  const char *const starts[] = {"\x89PNG", "ftyp"};
  for (int i = 0; i < 2; i++) {
    char *path = dj__join(root, files[i]), *data;
    size_t n;
    OK(dj__read_file(path, 1 << 26, &data, &n));
    assert_true(n > 500);
    assert_memory_equal(data + (i ? 4 : 0), starts[i], 4);
    free(data);
    free(path);
  }
}

static void mistakes(void **state) {
  (void)state;
  EXPECT(2, "world", "recrod");
  assert_has("err.txt", "unknown command 'recrod' (did you mean 'record'?)");
  EXPECT(2, "world", "record", "--out", "x");
  assert_has("err.txt", "needs --suite and --out");
  EXPECT(2, "world", "record", "--suite", "s.yaml", "--out", "x", "--layers", "depth,deth");
  assert_has("err.txt", "not 'deth'");
  EXPECT(2, "world", "record", "--suite", "s.yaml", "--out", "x", "--rate", "7");
  assert_has("err.txt", "1, 2, 4, 5, 10 or 20 Hz");
  EXPECT(2, "world", "record", "--suite", "s.yaml", "--out", "x", "--driver", "exprt");
  assert_has("err.txt", "did you mean 'expert'?");
  EXPECT(2, "world", "record", "--suite", "s.yaml", "--out", "x", "--perturb", "2");
  assert_has("err.txt", "0 to 1");
  EXPECT(2, "world", "record", "--suite", "s.yaml", "--out", "x", "--quality", "0");
  EXPECT(2, "world", "view", "--seed", "1");
  assert_has("err.txt", "needs --out, --bird, --mp4 or --xodr-out");
  EXPECT(2, "world", "view", "--style", "gridd", "--out", "x.png");
  assert_has("err.txt", "did you mean 'grid'?");
  EXPECT(2, "world", "view", "--out", "x.png", "--width", "9");
  EXPECT(0, "world", "record", "--help");
  assert_has("out.txt", "Example:");
  EXPECT(0, "world", "--help");
  EXPECT(0, "world", "view", "--help");
  EXPECT(0, "world", "suite", "--help");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(suites_are_listed),
                                     cmocka_unit_test(events_are_counted),
                                     cmocka_unit_test(logs_hold_what_happened),
                                     cmocka_unit_test(agents_lie_on_their_pixels),
                                     cmocka_unit_test(again_and_elsewhere),
                                     cmocka_unit_test(killed_and_resumed),
                                     cmocka_unit_test(as_video),
                                     cmocka_unit_test(into_a_store_and_a_network),
                                     cmocka_unit_test(towns_are_shown),
                                     cmocka_unit_test(mistakes)};
  return cmocka_run_group_tests(tests, make_root, remove_root);
}
