/* Datasets, shards and the loader: every sample is the frames and labels it says it is, the same
 * bytes with any number of threads, after any jump; shards are a cache that may be lost or damaged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "dojo/data.h"
#include "drive_fixture.h"

static const uint64_t t0 = 1600000000000000000ull;
enum { STEP_NS = 50000000, W = FX_W, H = FX_H };

static double steering_at(int i) {
  return (i % 200 - 100) / 100.0;
}

static void put_picture(dj_drive_writer *w, int camera, uint64_t t, int i, bool halves) {
  uint8_t rgb[W * H * 3], *jpeg;
  size_t size;
  fx_fill(i, W, H, rgb);
  if (halves) // the right half in the colour of the frame after
    for (int y = 0; y < H; y++) {
      uint8_t c[3];
      fx_colour(i + 1, c);
      for (int x = W / 2; x < W; x++) memcpy(rgb + (y * W + x) * 3, c, 3);
    }
  fx_ok(dj__jpeg_encode(rgb, W, H, 95, &jpeg, &size));
  fx_ok(dj_drive_write_image(w, camera, t, "jpeg", jpeg, size));
  free(jpeg);
}

/* A drive of n frames along a left curve of 0.01 rad and 0.2 m a frame; with two cameras the second
 * is half as fast. Returns its log's path (free()). */
static char *make_drive(const char *store, const char *name, int n, int cameras, bool halves) {
  dj_store *s;
  fx_ok(dj_store_open(store, DJ_STORE_CREATE, &s));
  dj_drive_info info = {.format = "test", .n_cameras = cameras};
  (void)snprintf(info.name, sizeof info.name, "%s", name);
  for (int k = 0; k < cameras; k++) {
    info.cameras[k] = (dj_camera){.width = W,
                                  .height = H,
                                  .calibrated = true,
                                  .K = {20, 0, 15.5, 0, 20, 11.5, 0, 0, 1},
                                  .position = {0, 0, 1},
                                  .rotation = {-0.5, 0.5, -0.5, 0.5}};
    (void)snprintf(info.cameras[k].name, DJ_NAME_BYTES, k ? "rear" : "front");
  }
  char *log = dj_store_log_path(s, name);
  dj_drive_writer *w;
  fx_ok(dj_drive_writer_open(log, &info, &w));
  double x = 0, y = 0;
  for (int i = 0; i < n; i++) {
    uint64_t t = t0 + (uint64_t)i * STEP_NS;
    double a = 0.01 * i;
    put_picture(w, 0, t, i, halves);
    if (cameras > 1 && i % 2 == 0) put_picture(w, 1, t, i + 50, false);
    fx_ok(dj_drive_write_control(w, &(dj_control){t, steering_at(i), NAN, 0.25, NAN}));
    fx_ok(dj_drive_write_speed(w, &(dj_speed){t, 4}));
    fx_ok(dj_drive_write_pose(w, &(dj_pose){t, {x, y, 0}, {0, 0, sin(a / 2), cos(a / 2)}}));
    x += 0.2 * cos(a);
    y += 0.2 * sin(a);
  }
  fx_ok(dj_drive_writer_close(w, 0));
  fx_ok(dj_store_add_log(s, log));
  dj_store_close(s);
  return log;
}

static dj_data_spec make_spec(const char *store) {
  return (dj_data_spec){.store = store,
                        .width = 16,
                        .height = 12,
                        .frames = 3,
                        .stride = 2,
                        .labels = DJ_LABEL_CONTROL};
}

static dj_dataset *open_data(const dj_data_spec *spec) {
  dj_dataset *ds;
  fx_ok(dj_dataset_open(spec, &ds));
  return ds;
}

static dj_loader *open_loader(dj_dataset *ds, const dj_loader_options *o) {
  dj_loader *ld;
  fx_ok(dj_loader_open(ds, o, &ld));
  return ld;
}

// ---- what a sample holds
// --------------------------------------------------------------------------

static void check_sample(const dj_batch *b, int i, const dj_frame_ref *r, int clip_start) {
  const int t = b->t;
  for (int k = 0; k < t; k++) {
    size_t at = (size_t)(i * t + k);
    int frame = (int)r->frame - (t - 1 - k) * 2; // stride 2
    if (frame < clip_start) frame = clip_start;  // before the clip its first frame stands
    fx_check_picture(b->image + at * (size_t)(b->h * b->w) * 3, b->w, b->h, frame, 5);
    fx_near((double)b->control[at * 3], steering_at(frame), 1e-6);
    fx_near((double)b->control_mask[at * 3], 1, 0);
    fx_near((double)b->control_mask[at * 3 + 1], 0, 0); // there is no throttle
    fx_near((double)b->control[at * 3 + 1], 0, 0);
    fx_near((double)b->control[at * 3 + 2], 0.25, 0);
    fx_near((double)b->speed[at], 4, 0);
    fx_near((double)b->velocity[at * 2], 4, 0); // as recorded
    fx_near((double)b->velocity_mask[at * 2 + 1], frame > 0, 0);
    fx_near((double)b->velocity[at * 2 + 1], frame > 0 ? 0.01e9 / (double)STEP_NS : 0, 1e-4);
    int before = (int)r->frame - (t - k) * 2; // the window's frame before
    if (before < clip_start) before = clip_start;
    fx_near((double)b->motion_mask[at], k > 0, 0);
    fx_near((double)b->motion[at * 3 + 2], k ? 0.01 * (frame - before) : 0, 1e-5);
    // The vehicle goes 0.2 m a frame: the next path point lies ahead and to the left.
    if (b->path_mask[at * 33 + 10] > 0) {
      assert_true(b->path[(at * 33 + 10) * 3] > 0);
      assert_true(b->path[(at * 33 + 10) * 3 + 1] > 0);
    }
  }
}

static void windows(void **state) {
  const char *store = fx_path(*state, "S");
  free(make_drive(store, "a", 140, 1, false));
  free(make_drive(store, "b", 90, 1, false));
  static const char *const splits[] = {"train", "validation", "test", NULL};
  static const int starts[2][4] = {{0, 98, 112, 0}, {0, 63, 72, 0}};
  for (int k = 0; k < 4; k++) {
    dj_data_spec spec = make_spec(store);
    spec.split = splits[k];
    dj_dataset *ds = open_data(&spec);
    uint64_t n = dj_dataset_size(ds);
    if (k == 2) assert_int_equal(n, 28 + 18);
    if (k == 3) assert_int_equal(n, 140 + 90);
    dj_loader *ld = open_loader(ds, &(dj_loader_options){.batch = 7});
    assert_int_equal(dj_loader_epoch_steps(ld), (n + 6) / 7);
    uint64_t seen = 0;
    for (uint64_t step = 0; step < dj_loader_epoch_steps(ld); step++) {
      dj_batch b;
      fx_ok(dj_loader_next(ld, step, &b));
      assert_int_equal(b.step, step);
      assert_true(b.t == 3 && b.w == 16 && b.h == 12 && b.cameras == 1);
      for (int i = 0; i < 7; i++, seen++) {
        assert_int_equal(b.sample[i], seen % n); // in order; the last batch wraps round
        dj_frame_ref r = dj_dataset_frame(ds, b.sample[i]);
        fx_near(r.steering, steering_at((int)r.frame), 1e-6);
        assert_int_equal(r.t_ns, t0 + r.frame * STEP_NS);
        assert_true(isnan(r.throttle));
        check_sample(&b, i, &r, starts[r.drive[0] - 'a'][k]);
      }
      dj_loader_release(ld, &b);
    }
    dj_loader_close(ld);
    dj_dataset_close(ds);
  }
}

static void cropping(void **state) {
  const char *store = fx_path(*state, "S");
  free(make_drive(store, "a", 40, 1, true));
  for (int right = 0; right < 2; right++) {
    dj_data_spec spec = make_spec(store);
    spec.frames = 1;
    *(right ? &spec.crop_left : &spec.crop_right) = 0.6f;
    dj_dataset *ds = open_data(&spec);
    dj_loader *ld = open_loader(ds, &(dj_loader_options){.batch = 8});
    dj_batch b;
    fx_ok(dj_loader_next(ld, 0, &b));
    for (int i = 0; i < 8; i++)
      fx_check_picture(b.image + (size_t)i * 16 * 12 * 3, 16, 12, i + right, 6);
    dj_loader_release(ld, &b);
    dj_loader_close(ld);
    dj_dataset_close(ds);
  }
}

static void cameras(void **state) {
  const char *store = fx_path(*state, "S");
  static const char *const both[] = {"rear", "front"}, *const none[] = {"side"};
  free(make_drive(store, "a", 40, 2, false));
  dj_data_spec spec = make_spec(store);
  spec.cameras = both;
  spec.n_cameras = 2;
  spec.frames = 1;
  dj_dataset *ds = open_data(&spec);
  assert_int_equal(dj_dataset_size(ds), 40); // the front camera's; the rear's nearest in time
  dj_loader *ld = open_loader(ds, &(dj_loader_options){.batch = 40});
  dj_batch b;
  fx_ok(dj_loader_next(ld, 0, &b));
  assert_int_equal(b.cameras, 2);
  const size_t bytes = 16 * 12 * 3;
  for (int i = 0; i < 40; i += 2) { // the rear one has a picture at every other frame
    fx_check_picture(b.image + (size_t)i * 2 * bytes, 16, 12, i + 50, 6);
    fx_check_picture(b.image + ((size_t)i * 2 + 1) * bytes, 16, 12, i, 6);
    fx_check_picture(b.image + ((size_t)i * 2 + 3) * bytes, 16, 12, i + 1, 6);
  }
  dj_loader_release(ld, &b);
  dj_loader_close(ld);
  dj_dataset_close(ds);
  spec.cameras = none;
  spec.n_cameras = 1;
  FX_ERROR(dj_dataset_open(&spec, &ds), DJ_E_NOT_FOUND, "for the cameras asked for");
}

static void choosing(void **state) {
  const char *store = fx_path(*state, "S");
  free(make_drive(store, "a", 40, 1, false));
  free(make_drive(store, "b", 50, 1, false));
  dj_data_spec spec = make_spec(store), other;
  dj_dataset *ds = open_data(&spec), *again = open_data(&spec);
  size_t n;
  const dj_clip_ref *clips = dj_dataset_clips(ds, &n);
  assert_int_equal(n, 2);
  assert_string_equal(clips[1].drive, "b");
  assert_int_equal(clips[1].n_frames, 50);
  assert_string_equal(dj_dataset_digest(ds), dj_dataset_digest(again));
  dj_dataset_close(again);
  static const char *const only[] = {"b"}, *const nobody[] = {"c"};
  for (int k = 0; k < 5; k++) { // whatever goes into a sample changes the digest
    other = spec;
    if (k == 0) other.width = 20;
    if (k == 1) other.crop_top = 0.25f;
    if (k == 2) other.stride = 1;
    if (k == 3) other.split = "train";
    if (k == 4) other.drives = only, other.n_drives = 1;
    again = open_data(&other);
    assert_string_not_equal(dj_dataset_digest(ds), dj_dataset_digest(again));
    if (k == 4) assert_int_equal(dj_dataset_size(again), 50);
    dj_dataset_close(again);
  }
  dj_dataset_close(ds);
  other = spec;
  other.drives = nobody;
  other.n_drives = 1;
  FX_ERROR(dj_dataset_open(&other, &ds), DJ_E_NOT_FOUND, "no drive 'c'");
  other = spec;
  other.labels = 1u << 7;
  FX_ERROR(dj_dataset_open(&other, &ds), DJ_E_NOT_FOUND, "the store holds 2 drives",
           "control speed path");
  other = spec;
  other.split = "tset";
  FX_ERROR(dj_dataset_open(&other, &ds), DJ_E_INVALID, "no split 'tset'");
  FX_ERROR(
      dj_dataset_open(
          &(dj_data_spec){
              .store = fx_path(*state, "none"), .width = 8, .height = 8, .frames = 1, .stride = 1},
          &ds),
      DJ_E_NOT_FOUND, "no store there");
}

static void bad_specs(void **state) {
  const char *store = fx_path(*state, "S");
  free(make_drive(store, "a", 40, 1, false));
  dj_dataset *ds;
  for (int k = 0; k < 12; k++) {
    dj_data_spec s = make_spec(store);
    switch (k) {
    case 0:
      s.width = 0;
      break;
    case 1:
      s.height = -5;
      break;
    case 2:
      s.width = INT32_MAX;
      break;
    case 3:
      s.frames = 0;
      break;
    case 4:
      s.frames = INT32_MAX;
      break;
    case 5:
      s.stride = 0;
      break;
    case 6:
      s.stride = INT32_MAX;
      break;
    case 7:
      s.crop_top = NAN;
      break;
    case 8:
      s.crop_left = s.crop_right = 0.6f;
      break;
    case 9:
      s.crop_bottom = -0.1f;
      break;
    case 10:
      s.margin_x = INFINITY;
      break;
    default:
      s.n_cameras = 17;
      break;
    }
    FX_ERROR(dj_dataset_open(&s, &ds), DJ_E_INVALID, "dataset: ");
  }
  dj_data_spec spec = make_spec(store);
  ds = open_data(&spec);
  dj_loader *ld;
  static const dj_loader_options bad[] = {{.batch = 0},
                                          {.batch = -1},
                                          {.batch = INT32_MAX},
                                          {.batch = 1, .threads = 1000},
                                          {.batch = 1, .threads = -1},
                                          {.batch = 1, .prefetch = 1000},
                                          {.batch = 1, .augment = {.mirror = 1.5f}},
                                          {.batch = 1, .augment = {.noise = NAN}},
                                          {.batch = 1, .augment = {.yaw = -0.1f}}};
  for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
    FX_ERROR(dj_loader_open(ds, &bad[k], &ld), DJ_E_INVALID, k < 6 ? "loader: " : "augmentation: ");
  dj_dataset_close(ds);
  spec.width = spec.height = 128; // 144 GiB a batch: refused, not tried
  ds = open_data(&spec);
  FX_ERROR(dj_loader_open(ds, &(dj_loader_options){.batch = 1 << 20}, &ld), DJ_E_LIMIT, "GiB");
  dj_dataset_close(ds);
}

// ---- shards
// ---------------------------------------------------------------------------------------

static char *shard_file(const char *store, size_t k) {
  char **names, *path = NULL;
  size_t n, found = 0;
  fx_ok(dj__list_dir(fx_path(store, "shards"), &names, &n));
  for (size_t i = 0; i < n; i++)
    if (strstr(names[i], ".safetensors") && !strstr(names[i], ".tmp") && found++ == k)
      path = dj__strf("%s/shards/%s", store, names[i]);
  dj__free_names(names, n);
  return path;
}

/* Shards may be deleted, cut, or damaged in their header at any time: they are made again. */
static void shards(void **state) {
  const char *store = fx_path(*state, "S");
  free(make_drive(store, "a", 60, 1, false));
  dj_data_spec spec = make_spec(store);
  dj_dataset *ds = open_data(&spec);
  char digest[65];
  (void)snprintf(digest, sizeof digest, "%s", dj_dataset_digest(ds));
  dj_dataset_close(ds);
  char *file = shard_file(store, 0);
  assert_non_null(file);
  size_t n;
  char *want = fx_read(file, &n);
  for (int k = 0; k < 5; k++) {
    char *bad = malloc(n);
    memcpy(bad, want, n);
    if (k == 0) assert_int_equal(unlink(file), 0);
    if (k == 1) fx_cut(file, (off_t)n - 1);
    if (k == 2) fx_cut(file, 0);
    if (k == 3) memset(bad, 0x7f, 8), fx_write_bytes(file, bad, n); // a header of 2^63 bytes
    if (k == 4) memcpy(strstr(bad + 8, "digest") + 12, "000", 3), fx_write_bytes(file, bad, n);
    free(bad);
    ds = open_data(&spec);
    assert_string_equal(dj_dataset_digest(ds), digest);
    dj_dataset_close(ds);
    size_t size;
    char *have = fx_read(file, &size);
    assert_int_equal(size, n);
    assert_memory_equal(have, want, n);
    free(have);
  }
  free(want);
  free(file);
}

static void changed_log(void **state) {
  const char *store = fx_path(*state, "S");
  char *log = make_drive(store, "a", 60, 1, false);
  char *data;
  size_t n;
  data = fx_read(log, &n);
  data[n / 2] ^= 1;
  fx_write_bytes(log, data, n);
  free(data);
  dj_data_spec spec = make_spec(store);
  dj_dataset *ds;
  FX_ERROR(dj_dataset_open(&spec, &ds), DJ_E_STATE, "a.mcap", "dojo store rebuild");
  free(log);
}

/* A frame in a log that does not decode stops the making of shards; it never becomes a grey
 * picture. */
static void broken_frame(void **state) {
  const char *store = fx_path(*state, "S");
  dj_store *s;
  fx_ok(dj_store_open(store, DJ_STORE_CREATE, &s));
  dj_drive_info info = {.name = "a", .format = "test", .n_cameras = 1};
  info.cameras[0] = (dj_camera){.name = "front",
                                .width = W,
                                .height = H,
                                .K = {20, 0, 16, 0, 20, 12, 0, 0, 1},
                                .rotation = {0, 0, 0, 1}};
  char *log = dj_store_log_path(s, "a");
  dj_drive_writer *w;
  fx_ok(dj_drive_writer_open(log, &info, &w));
  for (int i = 0; i < 40; i++) {
    uint64_t t = (uint64_t)(i + 1) * STEP_NS;
    if (i == 29)
      fx_ok(dj_drive_write_image(w, 0, t, "jpeg", "\xff\xd8\xff broken", 10));
    else
      put_picture(w, 0, t, i, false);
    fx_ok(dj_drive_write_control(w, &(dj_control){t, 0, NAN, NAN, NAN}));
  }
  fx_ok(dj_drive_writer_close(w, 0));
  fx_ok(dj_store_add_log(s, log));
  dj_store_close(s);
  free(log);
  dj_data_spec spec = make_spec(store);
  dj_dataset *ds;
  FX_ERROR(dj_dataset_open(&spec, &ds), DJ_E_FORMAT, "a.mcap", "frame 29 at 1.500 s", "drive 'a'");
  assert_null(shard_file(store, 0));
}

/* Processes that want the same shards at once: one makes them, all get the same. */
static void two_processes(void **state) {
  const char *store = fx_path(*state, "S");
  free(make_drive(store, "a", 120, 1, false));
  dj_data_spec spec = make_spec(store);
  pid_t pid[3];
  for (int k = 0; k < 3; k++) {
    pid[k] = fork();
    assert_true(pid[k] >= 0);
    if (pid[k] == 0) {
      dj_dataset *ds;
      _exit(dj_dataset_open(&spec, &ds) || dj_dataset_size(ds) != 120);
    }
  }
  for (int k = 0; k < 3; k++) {
    int status;
    assert_int_equal(waitpid(pid[k], &status, 0), pid[k]);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  char *second = shard_file(store, 1);
  assert_null(second);
}

// ---- the loader
// -----------------------------------------------------------------------------------

static const dj_augment strong = {.mirror = 0.5f,
                                  .brightness = 0.3f,
                                  .contrast = 0.3f,
                                  .noise = 0.05f,
                                  .yaw = 0.05f,
                                  .shift = 0.3f,
                                  .steer_per_yaw = 2,
                                  .steer_per_shift = 0.4f};

static uint64_t hash_batch(const dj_batch *b) {
  const size_t bt = (size_t)(b->b * b->t);
  uint64_t h = 1469598103934665603ull;
  const struct {
    const void *data;
    size_t size;
  } parts[] = {{b->image, bt * (size_t)(b->cameras * b->h * b->w) * 3},
               {b->control, bt * 12},
               {b->control_mask, bt * 12},
               {b->speed, bt * 4},
               {b->speed_mask, bt * 4},
               {b->path, bt * 33 * 12},
               {b->path_mask, bt * 33 * 4},
               {b->motion, bt * 12},
               {b->motion_mask, bt * 4},
               {b->velocity, bt * 8},
               {b->velocity_mask, bt * 8},
               {b->sample, (size_t)b->b * 8}};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    for (size_t k = 0; k < parts[i].size; k++)
      h = (h ^ ((const unsigned char *)parts[i].data)[k]) * 1099511628211ull;
  return h;
}

static void determinism(void **state) {
  enum { STEPS = 24, SIZE = 100 };
  const char *store = fx_path(*state, "S");
  free(make_drive(store, "a", SIZE, 1, false));
  dj_data_spec spec = make_spec(store);
  spec.margin_x = 0.1f;
  dj_dataset *ds = open_data(&spec);
  uint64_t want[STEPS];
  dj_batch b;
  static const struct {
    int threads, prefetch;
  } kinds[] = {{1, 1}, {1, 3}, {2, 3}, {5, 2}, {3, 16}};
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    dj_loader *ld = open_loader(ds, &(dj_loader_options){.batch = 10,
                                                         .seed = 7,
                                                         .shuffle = true,
                                                         .augment = strong,
                                                         .threads = kinds[k].threads,
                                                         .prefetch = kinds[k].prefetch});
    for (uint64_t step = 0; step < STEPS; step++) {
      fx_ok(dj_loader_next(ld, step, &b));
      if (k == 0)
        want[step] = hash_batch(&b);
      else
        assert_true(hash_batch(&b) == want[step]);
      dj_loader_release(ld, &b);
    }
    for (uint64_t i = 0; i < STEPS; i++) { // any jump, and a resume from anywhere
      uint64_t step = i * 7 % STEPS;
      fx_ok(dj_loader_next(ld, step, &b));
      assert_true(hash_batch(&b) == want[step]);
      dj_loader_release(ld, &b);
    }
    dj_loader_close(ld);
  }
  // Another seed is another order; batches differ from each other.
  dj_loader *ld = open_loader(
      ds, &(dj_loader_options){.batch = 10, .seed = 8, .shuffle = true, .augment = strong});
  fx_ok(dj_loader_next(ld, 0, &b));
  assert_true(hash_batch(&b) != want[0]);
  assert_true(want[0] != want[1] && want[0] != want[SIZE / 10]);
  dj_loader_release(ld, &b);
  dj_loader_close(ld);
  dj_dataset_close(ds);
}

/* An epoch shows every sample once, in an order of its own. */
static void permutation(void **state) {
  const char *store = fx_path(*state, "S");
  free(make_drive(store, "a", 96, 1, false));
  dj_data_spec spec = make_spec(store);
  spec.frames = 1;
  dj_dataset *ds = open_data(&spec);
  dj_loader *ld = open_loader(ds, &(dj_loader_options){.batch = 8, .seed = 3, .shuffle = true});
  uint64_t order[3][96], step = 0;
  for (int epoch = 0; epoch < 3; epoch++) {
    bool seen[96] = {false};
    for (int k = 0; k < 12; k++, step++) {
      dj_batch b;
      fx_ok(dj_loader_next(ld, step, &b));
      for (int i = 0; i < 8; i++) {
        assert_true(b.sample[i] < 96 && !seen[b.sample[i]]);
        seen[b.sample[i]] = true;
        order[epoch][k * 8 + i] = b.sample[i];
      }
      dj_loader_release(ld, &b);
    }
  }
  assert_memory_not_equal(order[0], order[1], sizeof order[0]);
  assert_memory_not_equal(order[1], order[2], sizeof order[0]);
  dj_loader_close(ld);
  dj_dataset_close(ds);
}

/* With a hop an epoch has every H-th window, counted from a frame drawn for the epoch. */
static void hops(void **state) {
  enum { SIZE = 98, HOP = 4, BATCH = 8, WINDOWS = 25, EPOCH = 4, EPOCHS = 12 };
  const char *store = fx_path(*state, "S");
  free(make_drive(store, "a", SIZE, 1, false));
  dj_data_spec spec = make_spec(store);
  dj_dataset *ds = open_data(&spec);
  dj_batch b;
  dj_loader *ld = open_loader(ds, &(dj_loader_options){.batch = BATCH, .hop = HOP});
  assert_int_equal(dj_loader_epoch_steps(ld), EPOCH); // ceil(ceil(98 / 4) / 8)
  for (uint64_t step = 0; step < EPOCH; step++) {     // unshuffled: 0, 4, 8, ..., and round
    fx_ok(dj_loader_next(ld, step, &b));
    for (int i = 0; i < BATCH; i++)
      assert_int_equal(b.sample[i], (step * BATCH + (uint64_t)i) % WINDOWS * HOP);
    dj_loader_release(ld, &b);
  }
  dj_loader_close(ld);

  int phases[HOP] = {0};
  ld = open_loader(ds, &(dj_loader_options){
                           .batch = BATCH, .hop = HOP, .seed = 5, .shuffle = true, .threads = 3});
  for (uint64_t epoch = 0; epoch < EPOCHS; epoch++) {
    int times[SIZE] = {0}, phase = HOP;
    for (uint64_t k = 0; k < EPOCH; k++) {
      fx_ok(dj_loader_next(ld, epoch * EPOCH + k, &b));
      for (int i = 0; i < BATCH; i++) {
        assert_true(b.sample[i] < SIZE);
        times[b.sample[i]]++;
      }
      dj_loader_release(ld, &b);
    }
    for (int i = 0; i < HOP; i++)
      if (times[i]) phase = i;
    assert_true(phase < HOP);
    phases[phase]++;
    for (int i = 0; i < SIZE - HOP; i++) { // every H-th, and no other; a few twice to fill up
      assert_true(i % HOP == phase ? times[i] >= 1 : times[i] == 0);
      assert_true(times[i] <= 2);
    }
  }
  int met = 0;
  for (int i = 0; i < HOP; i++) met += phases[i] > 0;
  assert_true(met >= 3); // of four, in twelve epochs
  dj_loader_close(ld);
  dj_dataset_close(ds);
}

/* With a lead the control is that of later, between frames as well; what lies behind the drive's
 * end is unknown. */
static void leads(void **state) {
  enum { SIZE = 98, LEAD = 6, BATCH = 7 };
  const char *store = fx_path(*state, "S");
  free(make_drive(store, "a", SIZE, 1, false));
  dj_data_spec spec = make_spec(store);
  dj_dataset *plain = open_data(&spec);
  spec.lead = (float)((double)LEAD * 1e-9 *
                      (double)(dj_dataset_frame(plain, 1).t_ns - dj_dataset_frame(plain, 0).t_ns));
  dj_dataset *ahead = open_data(&spec);
  dj_batch now, later;
  dj_loader *one = open_loader(plain, &(dj_loader_options){.batch = BATCH});
  dj_loader *other = open_loader(ahead, &(dj_loader_options){.batch = BATCH});
  float steering[SIZE] = {0}, moved[SIZE] = {0}, known[SIZE] = {0};
  for (uint64_t step = 0; step < SIZE / BATCH; step++) {
    fx_ok(dj_loader_next(one, step, &now));
    fx_ok(dj_loader_next(other, step, &later));
    assert_memory_equal(now.image, later.image, (size_t)BATCH * now.t * now.h * now.w * 3);
    assert_memory_equal(now.path, later.path, (size_t)BATCH * now.t * DJ_PATH_POINTS * 3 * 4);
    for (int i = 0; i < BATCH; i++) {
      int last = (i + 1) * now.t - 1, at = (int)step * BATCH + i;
      steering[at] = now.control[3 * last];
      moved[at] = later.control[3 * last];
      known[at] = later.control_mask[3 * last];
    }
    dj_loader_release(one, &now);
    dj_loader_release(other, &later);
  }
  for (int i = 0; i + LEAD < SIZE; i++) {
    assert_true(known[i] == 1);
    assert_float_equal(moved[i], steering[i + LEAD], 1e-5);
  }
  assert_true(known[SIZE - 1] == 0);
  assert_true(steering[0] != steering[LEAD]);
  dj_loader_close(one);
  dj_loader_close(other);
  dj_dataset_close(plain);
  dj_dataset_close(ahead);
  spec.lead = -1;
  assert_int_equal(dj_dataset_open(&spec, &ahead), DJ_E_INVALID);
}

static void holding_batches(void **state) {
  const char *store = fx_path(*state, "S");
  free(make_drive(store, "a", 40, 1, false));
  dj_data_spec spec = make_spec(store);
  dj_dataset *ds = open_data(&spec);
  dj_loader *ld = open_loader(ds, &(dj_loader_options){.batch = 4, .prefetch = 2});
  dj_batch b[4];
  for (uint64_t k = 0; k < 3; k++) fx_ok(dj_loader_next(ld, k, &b[k]));
  FX_ERROR(dj_loader_next(ld, 3, &b[3]), DJ_E_STATE, "all 3 batches are in use");
  assert_int_equal(b[0].sample[0], 0); // what is held stays as it is
  assert_int_equal(b[2].sample[3], 11);
  dj_loader_release(ld, &b[1]);
  dj_loader_release(ld, &b[1]); // twice is harmless
  fx_ok(dj_loader_next(ld, 3, &b[3]));
  assert_int_equal(b[3].sample[0], 12);
  dj_loader_close(ld); // with batches still held
  dj_dataset_close(ds);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      FX_TEST(windows),       FX_TEST(cropping),        FX_TEST(cameras),     FX_TEST(choosing),
      FX_TEST(bad_specs),     FX_TEST(shards),          FX_TEST(changed_log), FX_TEST(broken_frame),
      FX_TEST(two_processes), FX_TEST(determinism),     FX_TEST(permutation), FX_TEST(hops),
      FX_TEST(leads),         FX_TEST(holding_batches),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
