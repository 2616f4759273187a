/*
 * Cameras: depth, classes, instances and flow are where geometry says they are, with and without
 * lens distortion; the same scene gives the same bytes; weather, lights and effects do what they
 * are for. Skipped, saying so, where nothing can draw.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/fs.h"
#include "world/render_internal.h"

// Fontconfig, which draws the signs' letters through cairo, keeps what it knows until the end.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
  return "leak:libfontconfig";
}

static dj__map *town;
static dj__renderer *shared; // all layers, of the flat town
static dj__scene *scene, *later;
static int road_lane; // a long straight lane of the town
static double road_s;

#define OK(call)                                                                                   \
  do {                                                                                             \
    if (call) fail_msg("%s: %s", #call, dj_error_message());                                       \
  } while (0)
#define NEED_GL()                                                                                  \
  do {                                                                                             \
    if (!shared) skip();                                                                           \
  } while (0)

static void straight_lane(void) {
  double best = 0;
  for (int k = 0; k < town->n_lane; k++) {
    const dj__lane *l = &town->lane[k];
    if (l->type != DJ__LANE_DRIVING || l->junction >= 0 || l->length < 60) continue;
    double bend = 0;
    for (int i = 0; i < l->n_point; i++)
      bend = fmax(bend, fabs((double)town->point[l->point0 + i].curvature));
    if (l->length - 4e4 * bend > best) {
      best = l->length - 4e4 * bend;
      road_lane = k;
    }
  }
  assert_true(best > 0);
  road_s = 8;
}

/* The vehicle on the lane, `ahead` m further, nobody else about. */
static void stand(dj__scene *s, double ahead, double turned) {
  dj__place p;
  dj__map_at(town, road_lane, road_s + ahead, 0, &p);
  *s = (dj__scene){.x = p.x, .y = p.y, .z = (float)p.z, .yaw = (float)(p.yaw + turned)};
  OK(dj__weather_find("noon", &s->weather));
}
static void put(dj__scene *s, dj__kind kind, uint32_t id, double ahead, double left, float l,
                float w, float h) {
  dj__place p;
  dj__map_at(town, road_lane, road_s + ahead, left, &p);
  s->actor[s->n_actor++] = (dj__actor){.id = id,
                                       .kind = (uint8_t)kind,
                                       .x = p.x,
                                       .y = p.y,
                                       .z = (float)p.z,
                                       .yaw = (float)p.yaw,
                                       .length = l,
                                       .width = w,
                                       .height = h};
}

static int set_up(void **state) {
  (void)state;
  scene = calloc(1, sizeof *scene);
  later = calloc(1, sizeof *later);
  if (!scene || !later) return -1;
  if (dj__map_generate(
          &(dj__town_config){.seed = 3, .style = DJ__TOWN_GRID, .hills = 0, .size = 500}, &town))
    return -1;
  straight_lane();
  dj_status s = dj__renderer_create(town, &(dj__render_options){.layers = 15}, &shared);
  if (s == DJ_E_UNSUPPORTED) {
    print_message("no cameras here, tests of them are skipped: %s\n", dj_error_message());
    return 0;
  }
  if (s) print_message("%s\n", dj_error_message());
  return s ? -1 : 0;
}
static int tear_down(void **state) {
  (void)state;
  dj__renderer_destroy(shared);
  dj__map_destroy(town);
  free(scene);
  free(later);
  return 0;
}

static void mono(dj__rig *rig) {
  OK(dj__rig_find("mono", rig));
}
static void distorted(dj__rig *rig, bool fisheye) {
  mono(rig);
  dj_camera *c = &rig->camera[0].camera;
  static const double plumb[5] = {-0.24, 0.06, 0.001, -0.002, 0.0},
                      kannala[4] = {0.05, -0.02, 0.004, 0};
  c->n_distortion = fisheye ? 4 : 5;
  memcpy(c->D, fisheye ? kannala : plumb, (size_t)c->n_distortion * sizeof(double));
  (void)snprintf(c->distortion_model, sizeof c->distortion_model, "%s",
                 fisheye ? "kannala_brandt" : "plumb_bob");
}

// ---- geometry by hand
// ----------------------------------------------------------------------------

static bool project(const dj__scene *s, const dj_camera *c, const double p[3], double uv[2]) {
  dj__pose3 q;
  dj__camera_pose(s, c, &q);
  double o[3];
  for (int k = 0; k < 3; k++)
    o[k] = q.R[3 * k] * (p[0] - q.p[0]) + q.R[3 * k + 1] * (p[1] - q.p[1]) +
           q.R[3 * k + 2] * (p[2] - q.p[2]);
  if (o[2] < 0.1) return false;
  dj__camera_distort(c, o[0] / o[2], o[1] / o[2], &uv[0], &uv[1]);
  return true;
}
/* The point of the world at a pixel. */
static bool lift(const dj__scene *s, const dj_camera *c, int u, int v, double depth, double p[3]) {
  double x, y;
  if (!dj__camera_undistort(c, u, v, &x, &y)) return false;
  dj__pose3 q;
  dj__camera_pose(s, c, &q);
  for (int k = 0; k < 3; k++) p[k] = q.p[k] + depth * (x * q.R[k] + y * q.R[3 + k] + q.R[6 + k]);
  return true;
}

static void depth_is_that_of_the_plane(void **state) {
  (void)state;
  NEED_GL();
  dj__rig rig;
  dj__picture p;
  mono(&rig);
  rig.camera[0].camera.position[2] = 1.5;
  stand(scene, 0, 0);
  OK(dj__render(shared, scene, NULL, &rig, &p));
  const double *K = rig.camera[0].camera.K;
  int seen = 0;
  for (int v = 0; v < p.height; v++)
    for (int u = 0; u < p.width; u++) {
      int i = v * p.width + u;
      if (p.semantic[i] == DJ__CLASS_SKY) {
        assert_true(isinf(p.depth[i]));
        continue;
      }
      assert_true(p.depth[i] > 0.1f && p.depth[i] < 2000);
      double want = 1.5 * K[4] / (v - K[5]);
      if (p.semantic[i] != DJ__CLASS_ROAD || v < K[5] + 4 || want > 30) continue;
      if (fabs(p.depth[i] - want) > 0.0005 * want)
        fail_msg("pixel (%d, %d): depth %g, the plane is at %g", u, v, (double)p.depth[i], want);
      seen++;
    }
  assert_true(seen > p.width * p.height / 10);
}

static void classes_are_where_things_are(void **state) {
  (void)state;
  NEED_GL();
  dj__rig rig;
  dj__picture p;
  mono(&rig);
  const dj_camera *c = &rig.camera[0].camera;
  stand(scene, 0, 0);
  put(scene, DJ__CAR, 71, 18, 0, 4.5f, 1.82f, 1.45f);
  put(scene, DJ__PEDESTRIAN, 72, 14, -3.2, 0.5f, 0.5f, 1.75f);
  put(scene, DJ__BUS, 73, 40, 3.5, 12, 2.5f, 3.05f);
  OK(dj__render(shared, scene, NULL, &rig, &p));
  static const uint8_t classes[3] = {DJ__CLASS_CAR, DJ__CLASS_PERSON, DJ__CLASS_BUS};
  for (int k = 0; k < 3; k++) {
    const dj__actor *a = &scene->actor[k];
    double low[2] = {1e9, 1e9}, high[2] = {-1e9, -1e9}, uv[2];
    for (int i = 0; i < 8; i++) {
      double x = (i & 1 ? 0.5 : -0.5) * a->length, y = (i & 2 ? 0.5 : -0.5) * a->width;
      double q[3] = {a->x + x * cos(a->yaw) - y * sin(a->yaw),
                     a->y + x * sin(a->yaw) + y * cos(a->yaw), a->z + (i & 4 ? a->height : 0)};
      assert_true(project(scene, c, q, uv));
      for (int j = 0; j < 2; j++) low[j] = fmin(low[j], uv[j]), high[j] = fmax(high[j], uv[j]);
    }
    int u0 = p.width, u1 = -1, v0 = p.height, v1 = -1;
    for (int i = 0; i < p.width * p.height; i++) {
      if (p.instance[i] != a->id) continue;
      assert_int_equal(p.semantic[i], classes[k]);
      u0 = i % p.width < u0 ? i % p.width : u0;
      u1 = i % p.width > u1 ? i % p.width : u1;
      v0 = i / p.width < v0 ? i / p.width : v0;
      v1 = i / p.width > v1 ? i / p.width : v1;
    }
    assert_true(u1 >= u0);
    assert_true(u0 >= low[0] - 1.5 && u1 <= high[0] + 1.5 && v0 >= low[1] - 1.5 &&
                v1 <= high[1] + 1.5);
    if (k == 2) continue; // partly hidden
    double share_u = (u1 - u0 + 1) / (high[0] - low[0]),
           share_v = (v1 - v0 + 1) / (high[1] - low[1]);
    if (share_u < 0.7 || share_v < 0.8)
      fail_msg("actor %d fills %.2f x %.2f of its box", k, share_u, share_v);
  }
  assert_int_equal(p.semantic[(p.height - 2) * p.width + p.width / 2], DJ__CLASS_ROAD);
  int count[DJ__N_CLASSES] = {0};
  for (int i = 0; i < p.width * p.height; i++) {
    assert_true(p.semantic[i] < DJ__N_CLASSES);
    count[p.semantic[i]]++;
  }
  assert_true(count[DJ__CLASS_MARKING] > 20 && count[DJ__CLASS_SIDEWALK] > 50);
  assert_true(count[DJ__CLASS_BUILDING] > 200 && count[DJ__CLASS_SKY] > 200);
}

static void check_flow(const dj__rig *rig, double most, double share) {
  const dj_camera *c = &rig->camera[0].camera;
  dj__picture p;
  stand(scene, 0, 0);
  stand(later, 1.1, 0.03);
  put(scene, DJ__VAN, 9, 16, 0.3, 5.3f, 1.98f, 2.24f);
  put(later, DJ__VAN, 9, 16.8, 0.2, 5.3f, 1.98f, 2.24f);
  const dj__actor *a = &scene->actor[0], *b = &later->actor[0];
  OK(dj__render(shared, scene, later, rig, &p));
  int n = 0, good = 0, moving = 0, moving_good = 0;
  for (int i = 0; i < p.width * p.height; i++) {
    int u = i % p.width, v = i / p.width;
    double q[3], to[2], d = isinf(p.depth[i]) ? 1e7 : p.depth[i];
    if (!lift(scene, c, u, v, d, q)) continue;
    bool actor = p.instance[i] == 9;
    if (actor) {
      double x = q[0] - a->x, y = q[1] - a->y, z = q[2] - a->z;
      double f = x * cos(a->yaw) + y * sin(a->yaw), l = y * cos(a->yaw) - x * sin(a->yaw);
      if (z < 0.75) continue; // wheels turn
      q[0] = b->x + f * cos(b->yaw) - l * sin(b->yaw);
      q[1] = b->y + f * sin(b->yaw) + l * cos(b->yaw);
      q[2] = b->z + z;
    }
    if (!project(later, c, q, to)) continue;
    double error = hypot(to[0] - u - (double)p.flow[2 * i], to[1] - v - (double)p.flow[2 * i + 1]);
    n += !actor;
    good += !actor && error < most;
    moving += actor;
    moving_good += actor && error < most;
  }
  assert_true(n > 1000 && moving > 50);
  if (good < share * n || moving_good < share * moving)
    fail_msg("flow within %g px: %d of %d, moving %d of %d", most, good, n, moving_good, moving);
}
static void flow_is_reprojection(void **state) {
  (void)state;
  NEED_GL();
  dj__rig rig;
  mono(&rig);
  check_flow(&rig, 0.1, 0.9999);
}
static void flow_holds_through_lenses(void **state) {
  (void)state;
  NEED_GL();
  for (int fisheye = 0; fisheye < 2; fisheye++) {
    dj__rig rig;
    distorted(&rig, fisheye);
    check_flow(&rig, 0.3, 0.97); // labels are from the sample next to the pixel, a quarter away
  }
}

/* Where a car far away is, by the pixels that change when its paint does. */
static void painted_centre(const dj__rig *rig, double left, double out[2]) {
  static uint8_t first[4000 * 400];
  dj__picture p;
  double sum[3] = {0};
  for (int k = 0; k < 2; k++) {
    stand(scene, 0, 0);
    put(scene, DJ__CAR, 5, 26, left, 4.5f, 1.82f, 1.45f);
    scene->actor[0].variant = k ? 36 : 6; // red, dark grey; the same model
    OK(dj__render(shared, scene, NULL, rig, &p));
    if (!k) memcpy(first, p.rgb, (size_t)p.width * (size_t)p.height * 3);
  }
  for (int i = 0; i < p.width * p.height; i++) {
    double w = abs(p.rgb[3 * i] - first[3 * i]);
    sum[0] += w;
    sum[1] += w * (i % p.width);
    sum[2] += w * (double)(i / p.width);
  }
  assert_true(sum[0] > 500);
  out[0] = sum[1] / sum[0];
  out[1] = sum[2] / sum[0];
}
static void colours_go_through_lenses(void **state) {
  (void)state;
  NEED_GL();
  for (int fisheye = 0; fisheye < 2; fisheye++)
    for (int k = -1; k <= 1; k++) {
      dj__rig plain, lens;
      double straight[2], bent[2], want[2];
      mono(&plain);
      distorted(&lens, fisheye);
      painted_centre(&plain, 4.5 * k, straight);
      painted_centre(&lens, 4.5 * k, bent);
      const dj_camera *c = &plain.camera[0].camera;
      dj__camera_distort(&lens.camera[0].camera, (straight[0] - c->K[2]) / c->K[0],
                         (straight[1] - c->K[5]) / c->K[4], &want[0], &want[1]);
      if (hypot(want[0] - bent[0], want[1] - bent[1]) > 0.35)
        fail_msg("a car at (%.2f, %.2f) should be at (%.2f, %.2f), is at (%.2f, %.2f)", straight[0],
                 straight[1], want[0], want[1], bent[0], bent[1]);
    }
}

static void the_same_scene_gives_the_same_bytes(void **state) {
  (void)state;
  NEED_GL();
  dj__rig rig;
  OK(dj__rig_find("three", &rig));
  rig.camera[1].noise = 0.02f;
  dj__picture a[DJ__RIG_CAMERAS], b[DJ__RIG_CAMERAS];
  dj__renderer *other;
  OK(dj__renderer_create(town, &(dj__render_options){.layers = 15}, &other));
  stand(scene, 0, 0);
  stand(later, 1, 0);
  put(scene, DJ__CYCLIST, 8, 12, 0, 1.75f, 0.6f, 1.75f);
  OK(dj__render(other, scene, later, &rig, a));
  stand(later, 30, 1); // something else in between
  OK(dj__render(shared, later, NULL, &rig, b));
  stand(later, 1, 0);
  OK(dj__render_begin(shared, later, NULL, &rig)); // and under way at the same time
  OK(dj__render_begin(shared, scene, later, &rig));
  OK(dj__render_end(shared, b));
  OK(dj__render_end(shared, b));
  for (int k = 0; k < 3; k++) {
    size_t n = (size_t)a[k].width * (size_t)a[k].height;
    assert_memory_equal(a[k].rgb, b[k].rgb, 3 * n);
    assert_memory_equal(a[k].depth, b[k].depth, 4 * n);
    assert_memory_equal(a[k].semantic, b[k].semantic, n);
    assert_memory_equal(a[k].instance, b[k].instance, 4 * n);
    assert_memory_equal(a[k].flow, b[k].flow, 8 * n);
  }
  dj__renderer_destroy(other);
}

static double brightness(const dj__picture *p, bool sky) {
  double sum = 0;
  int n = 0;
  for (int i = 0; i < p->width * p->height; i++) {
    if (sky && p->semantic[i] != DJ__CLASS_SKY) continue;
    for (int c = 0; c < 3; c++) sum += p->rgb[3 * i + c];
    n += 3;
  }
  return sum / n;
}

static void weather_shows(void **state) {
  (void)state;
  NEED_GL();
  dj__rig rig;
  dj__picture p;
  mono(&rig);
  double noon = 0, noon_sky = 0;
  int n;
  const char *const *names = dj__weather_names(&n);
  for (int k = 0; k < n; k++) {
    stand(scene, 0, 0);
    OK(dj__weather_find(names[k], &scene->weather));
    OK(dj__render(shared, scene, NULL, &rig, &p));
    double b = brightness(&p, false), sky = brightness(&p, true);
    assert_true(b > 12 && b < 235);
    if (!strcmp(names[k], "noon")) noon = b, noon_sky = sky;
    if (!strcmp(names[k], "night") && !(b < noon && sky < 0.6 * noon_sky))
      fail_msg("a night of %g under %g, a noon of %g under %g", b, sky, noon, noon_sky);
  }
  rig.camera[0].exposure = 1;
  stand(scene, 0, 0);
  OK(dj__render(shared, scene, NULL, &rig, &p));
  assert_true(brightness(&p, false) > 1.15 * noon);
}

/* Every lens that can be walked up to shows its colour when it is lit, and not otherwise. */
static void traffic_lights_can_be_read(void **state) {
  (void)state;
  NEED_GL();
  dj__picture p;
  int looked = 0;
  for (int k = 0; k < shared->n_lens && looked < 9; k++) {
    const dj__lens *l = &shared->lens[k];
    if (l->when == DJ__LIGHT_YELLOW) continue;
    double at[3] = {l->p[0] + 3 * l->normal[0], l->p[1] + 3 * l->normal[1], l->p[2]};
    double yaw = atan2(-l->normal[1], -l->normal[0]);
    // optical frame looking along yaw: z ahead, x right, y down
    double h = 0.5 * yaw, a[4] = {0, 0, sin(h), cos(h)}, q[4];
    const double b[4] = {-0.5, 0.5, -0.5, 0.5};
    q[0] = a[3] * b[0] + a[1] * b[2] - a[2] * b[1];
    q[1] = a[3] * b[1] - a[0] * b[2] + a[2] * b[0];
    q[2] = a[3] * b[2] + a[0] * b[1] + a[2] * b[3];
    q[3] = a[3] * b[3] - a[2] * b[2];
    bool seen[2] = {false, false};
    for (double t = 0; t < 120 && (!seen[0] || !seen[1]); t += 1) {
      bool lit = dj__map_light(town, l->stop, t) == l->when;
      if (seen[lit] || dj__map_light(town, l->stop, t) == DJ__LIGHT_RED_YELLOW) continue;
      stand(scene, 0, 0);
      scene->time = t;
      OK(dj__render_view(shared, scene, at, q, 0.2, 64, 64, &p));
      const uint8_t *c = p.rgb + 3 * (32 * 64 + 32);
      if (p.semantic[32 * 64 + 32] != DJ__CLASS_LIGHT) break; // something stands in front
      int red = c[0] - c[1], want = l->when == DJ__LIGHT_RED ? red : -red;
      if (lit ? want < 60 : want > 45)
        fail_msg("lens %d of %s is %s, its colour is %d %d %d", k,
                 l->when == DJ__LIGHT_RED ? "red" : "green", lit ? "lit" : "dark", c[0], c[1],
                 c[2]);
      seen[lit] = true;
    }
    looked += seen[0] && seen[1];
  }
  assert_true(looked >= 4);
}

static void effects_do_what_they_say(void **state) {
  (void)state;
  NEED_GL();
  dj__rig rig;
  dj__picture p;
  mono(&rig);
  size_t n = 256 * 128 * 3;
  uint8_t *plain = malloc(n);
  assert_non_null(plain);
  stand(scene, 0, 0);
  OK(dj__render(shared, scene, NULL, &rig, &p));
  memcpy(plain, p.rgb, n);
  rig.camera[0].noise = 0.03f;
  OK(dj__render(shared, scene, NULL, &rig, &p));
  double sum = 0, square = 0;
  int count = 0;
  for (size_t i = 0; i < n; i++) {
    if (plain[i] < 40 || plain[i] > 215) continue;
    double d = p.rgb[i] - plain[i];
    sum += d;
    square += d * d;
    count++;
  }
  assert_true(fabs(sum / count) < 0.3);
  assert_true(fabs(sqrt(square / count) / 255 - 0.03) < 0.003);
  rig.camera[0].noise = 0;
  rig.camera[0].motion_blur = 0.02f;
  OK(dj__render(shared, scene, NULL, &rig, &p)); // standing still: nothing blurs
  for (size_t i = 0; i < n; i++) assert_true(abs(p.rgb[i] - plain[i]) <= 1);
  rig.camera[0].motion_blur = 0;
  rig.camera[0].rolling_shutter = 0.05f;
  scene->yaw_rate = 1; // the middle row is taken at the scene's time, the first one earlier
  OK(dj__render(shared, scene, NULL, &rig, &p));
  int middle = 0, foot = 0;
  for (int u = 0; u < 256 * 3; u++) {
    middle += abs(p.rgb[63 * 768 + u] - plain[63 * 768 + u]);
    foot += abs(p.rgb[5 * 768 + u] - plain[5 * 768 + u]) +
            abs(p.rgb[100 * 768 + u] - plain[100 * 768 + u]);
  }
  assert_true(foot > middle);
  free(plain);
}

static void pictures_are_written(void **state) {
  (void)state;
  NEED_GL();
  dj__rig rig;
  dj__picture p[DJ__RIG_CAMERAS];
  OK(dj__rig_find("ring6", &rig));
  stand(scene, 0, 0);
  stand(later, 1, 0);
  OK(dj__render(shared, scene, later, &rig, p));
  const char *path = "test_render_sheet.png";
  OK(dj__pictures_write_png(p, rig.n_camera, 15, path));
  assert_true(dj__file_size(path) > 100000);
  OK(dj__render_above(shared, NULL, 300, 200, p));
  int built = 0, ground = 0;
  for (int i = 0; i < 300 * 200; i++) {
    built += p->semantic[i] == DJ__CLASS_ROAD || p->semantic[i] == DJ__CLASS_BUILDING;
    ground += p->semantic[i] == DJ__CLASS_TERRAIN;
  }
  assert_true(built > 6000 && ground > 6000); // the town fills the picture
  OK(dj__picture_write_png(p, path));
  assert_true(dj__file_size(path) > 10000);
  (void)remove(path);
}

static void misuse_is_told(void **state) {
  (void)state;
  dj__renderer *r;
  assert_int_equal(dj__renderer_create(town, &(dj__render_options){.samples = 3}, &r),
                   DJ_E_INVALID);
  assert_null(r);
  NEED_GL();
  dj__rig rig;
  dj__picture p;
  mono(&rig);
  stand(scene, 0, 0);
  assert_int_equal(dj__render_end(shared, &p), DJ_E_STATE);
  for (int k = 0; k < 3; k++) OK(dj__render_begin(shared, scene, NULL, &rig));
  assert_int_equal(dj__render_begin(shared, scene, NULL, &rig), DJ_E_STATE);
  for (int k = 0; k < 3; k++) OK(dj__render_end(shared, &p));
  distorted(&rig, false);
  rig.camera[0].camera.D[0] = -2.5; // folds over
  assert_int_equal(dj__render(shared, scene, NULL, &rig, &p), DJ_E_UNSUPPORTED);
  assert_non_null(strstr(dj_error_message(), "'front'"));
  rig.n_camera = 0;
  assert_int_equal(dj__render(shared, scene, NULL, &rig, &p), DJ_E_INVALID);
}

static void the_hall_is_drawn(void **state) {
  (void)state;
  NEED_GL();
  dj__map *m;
  dj__renderer *r;
  OK(dj__map_generate(&(dj__town_config){.seed = 2, .style = DJ__TOWN_TRACK}, &m));
  OK(dj__renderer_create(m, &(dj__render_options){.layers = DJ__LAYER_SEMANTIC | DJ__LAYER_DEPTH},
                         &r));
  dj__rig rig;
  OK(dj__rig_find("donkeycar", &rig));
  int lane = 0;
  while (m->lane[lane].type != DJ__LANE_DRIVING) lane++;
  dj__place at;
  dj__map_at(m, lane, 0.5, 0, &at);
  *scene = (dj__scene){.x = at.x, .y = at.y, .z = (float)at.z, .yaw = (float)at.yaw};
  dj__picture p;
  OK(dj__render(r, scene, NULL, &rig, &p));
  int road = 0, marks = 0, wall = 0, sky = 0;
  for (int i = 0; i < p.width * p.height; i++) {
    road += p.semantic[i] == DJ__CLASS_ROAD;
    marks += p.semantic[i] == DJ__CLASS_MARKING;
    wall += p.semantic[i] == DJ__CLASS_BUILDING;
    sky += p.semantic[i] == DJ__CLASS_SKY;
  }
  if (!(road > 1000 && marks > 50 && wall > 500))
    fail_msg("%d pixels of road, %d of markings, %d of walls", road, marks, wall);
  assert_int_equal(sky, 0);
  assert_null(p.flow);
  dj__renderer_destroy(r);
  dj__map_destroy(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(depth_is_that_of_the_plane),
      cmocka_unit_test(classes_are_where_things_are),
      cmocka_unit_test(flow_is_reprojection),
      cmocka_unit_test(flow_holds_through_lenses),
      cmocka_unit_test(colours_go_through_lenses),
      cmocka_unit_test(the_same_scene_gives_the_same_bytes),
      cmocka_unit_test(weather_shows),
      cmocka_unit_test(traffic_lights_can_be_read),
      cmocka_unit_test(effects_do_what_they_say),
      cmocka_unit_test(pictures_are_written),
      cmocka_unit_test(misuse_is_told),
      cmocka_unit_test(the_hall_is_drawn),
  };
  return cmocka_run_group_tests_name("render", tests, set_up, tear_down);
}
