/* Drive logs: what was written comes back, bad input is refused on both sides, and a damaged or
 * hostile log gives an error and never a wrong picture. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "dojo/mcap.h"
#include "drive_fixture.h"
#include "foxglove/FrameTransform.pb-c.h"

enum { N = 30 };
static const uint64_t t0 = 1700000000000000000ull;

static dj_camera make_camera(const char *name) {
  dj_camera c = {.width = FX_W,
                 .height = FX_H,
                 .calibrated = true,
                 .K = {30, 0, 15.5, 0, 31, 11.5, 0, 0, 1},
                 .D = {0.1, -0.02, 0.003},
                 .n_distortion = 3,
                 .distortion_model = "plumb_bob",
                 .position = {1.5, -0.25, 1.2},
                 .rotation = {-0.5, 0.5, -0.5, 0.5}};
  (void)snprintf(c.name, sizeof c.name, "%s", name);
  return c;
}

static dj_drive_info make_info(void) {
  dj_drive_info i = {.name = "drive-1",
                     .format = "test",
                     .source_digest =
                         "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
                     .source = "/a folder/with ünicode",
                     .n_cameras = 2};
  i.cameras[0] = make_camera("front");
  i.cameras[1] = make_camera("rear_2");
  i.cameras[1].calibrated = false;
  i.cameras[1].n_distortion = 0;
  i.cameras[1].distortion_model[0] = 0;
  return i;
}

static void jpeg_of(int i, uint8_t **data, size_t *size) {
  uint8_t rgb[FX_W * FX_H * 3];
  fx_fill(i, FX_W, FX_H, rgb);
  fx_ok(dj__jpeg_encode(rgb, FX_W, FX_H, 95, data, size));
}

static dj_control control_at(int i) {
  return (dj_control){t0 + 50000000ull * (unsigned)i, sin(i), i % 3 ? 0.5 : (double)NAN,
                      (i % 4) / 4.0, i % 5 ? (double)NAN : 2.0 * i};
}

/* Controls run at the frames' times, speeds before them, poses behind them. */
static void write_log(const char *path, int n) {
  dj_drive_info info = make_info();
  dj_drive_writer *w;
  fx_ok(dj_drive_writer_open(path, &info, &w));
  for (int i = 0; i < n; i++) {
    uint64_t t = t0 + 50000000ull * (unsigned)i;
    uint8_t *jpeg;
    size_t size;
    fx_ok(dj_drive_write_speed(w, &(dj_speed){t - 1000000, 0.5 * i}));
    jpeg_of(i, &jpeg, &size);
    fx_ok(dj_drive_write_image(w, 0, t, "jpeg", jpeg, size));
    free(jpeg);
    if (i % 2 == 0) { // the rear camera is half as fast
      jpeg_of(i + 3, &jpeg, &size);
      fx_ok(dj_drive_write_image(w, 1, t + 7, "jpeg", jpeg, size));
      free(jpeg);
    }
    dj_control c = control_at(i);
    fx_ok(dj_drive_write_control(w, &c));
    fx_ok(dj_drive_write_pose(
        w, &(dj_pose){t + 2000000, {i, -i, 0.1 * i}, {0, 0, sin(0.05 * i), cos(0.05 * i)}}));
  }
  fx_ok(dj_drive_writer_close(w, 4));
}

static void same_camera(const dj_camera *a, const dj_camera *b) {
  assert_string_equal(a->name, b->name);
  assert_int_equal(a->width, b->width);
  assert_int_equal(a->height, b->height);
  assert_int_equal(a->calibrated, b->calibrated);
  assert_memory_equal(a->K, b->K, sizeof a->K);
  assert_int_equal(a->n_distortion, b->n_distortion);
  assert_memory_equal(a->D, b->D, sizeof *a->D * (size_t)a->n_distortion);
  assert_string_equal(a->distortion_model, b->distortion_model);
  assert_memory_equal(a->position, b->position, sizeof a->position);
  assert_memory_equal(a->rotation, b->rotation, sizeof a->rotation);
}

static void same_double(double a, double b) {
  if (isnan(a) != isnan(b) || (!isnan(a) && a != b)) fail_msg("%.17g is not %.17g", a, b);
}

static void round_trip(void **state) {
  const char *path = fx_path(*state, "drive-1.mcap");
  write_log(path, N);
  dj_drive *d;
  fx_ok(dj_drive_open(path, &d));
  const dj_drive_info *got = dj_drive_get_info(d);
  dj_drive_info want = make_info();
  assert_string_equal(got->name, want.name);
  assert_string_equal(got->format, want.format);
  assert_string_equal(got->source, want.source);
  assert_string_equal(got->source_digest, want.source_digest);
  assert_int_equal(got->n_skipped, 4);
  assert_int_equal(got->labels, DJ_LABEL_CONTROL | DJ_LABEL_SPEED | DJ_LABEL_PATH);
  assert_int_equal(got->start_ns, t0 - 1000000);
  assert_int_equal(got->end_ns, t0 + 50000000ull * (N - 1) + 2000000);
  assert_int_equal(got->n_cameras, 2);
  for (int k = 0; k < 2; k++) same_camera(&got->cameras[k], &want.cameras[k]);
  const uint64_t *t;
  const dj_control *c;
  const dj_speed *v;
  const dj_pose *p;
  size_t n;
  fx_ok(dj_drive_controls(d, &c, &n));
  assert_int_equal(n, N);
  fx_ok(dj_drive_speeds(d, &v, &n));
  assert_int_equal(n, N);
  fx_ok(dj_drive_poses(d, &p, &n));
  assert_int_equal(n, N);
  for (int i = 0; i < N; i++) {
    dj_control u = control_at(i);
    assert_int_equal(c[i].t_ns, u.t_ns);
    same_double(c[i].steering, u.steering);
    same_double(c[i].throttle, u.throttle);
    same_double(c[i].brake, u.brake);
    same_double(c[i].steering_angle, u.steering_angle);
    same_double(v[i].speed, 0.5 * i);
    same_double(p[i].position[1], -i);
    same_double(p[i].rotation[2], sin(0.05 * i));
  }
  uint8_t rgb[FX_W * FX_H * 3];
  for (int k = 0; k < 2; k++) {
    fx_ok(dj_drive_frame_times(d, k, &t, &n));
    assert_int_equal(n, k ? N / 2 : N);
    for (size_t i = n; i-- > 0;) { // backwards: any order must do
      assert_int_equal(t[i], t0 + 50000000ull * (k ? 2 * i : i) + (k ? 7 : 0));
      fx_ok(dj_drive_read_frame(d, k, i, rgb));
      fx_check_picture(rgb, FX_W, FX_H, k ? 2 * (int)i + 3 : (int)i, 5);
    }
    FX_ERROR(dj_drive_read_frame(d, k, n, rgb), DJ_E_INVALID, "drive-1.mcap", "which has");
  }
  FX_ERROR(dj_drive_frame_times(d, 2, &t, &n), DJ_E_INVALID, "camera 2 of 2");
  FX_ERROR(dj_drive_frame_times(d, -1, &t, &n), DJ_E_INVALID, "camera -1 of 2");
  dj_drive_close(d);
  // The same calls give the same bytes.
  const char *second = fx_path(*state, "again.mcap");
  write_log(second, N);
  size_t a, b;
  char *x = fx_read(path, &a), *y = fx_read(second, &b);
  assert_int_equal(a, b);
  assert_memory_equal(x, y, a);
  free(x);
  free(y);
}

static void whole_or_not_at_all(void **state) {
  const char *path = fx_path(*state, "x.mcap");
  dj_drive_info info = make_info();
  dj_drive_writer *w;
  fx_ok(dj_drive_writer_open(path, &info, &w));
  fx_ok(dj_drive_write_speed(w, &(dj_speed){t0, 1}));
  assert_false(dj__exists(path));
  dj_drive_writer_abort(w);
  char **names;
  size_t n;
  fx_ok(dj__list_dir(*state, &names, &n));
  assert_int_equal(n, 0);
  dj__free_names(names, n);
  // An aborted writer leaves an earlier log alone.
  write_log(path, 3);
  fx_ok(dj_drive_writer_open(path, &info, &w));
  dj_drive_writer_abort(w);
  dj_drive *d;
  fx_ok(dj_drive_open(path, &d));
  dj_drive_close(d);
  FX_ERROR(dj_drive_writer_open(fx_path(*state, "no/folder/x.mcap"), &info, &w), DJ_E_NOT_FOUND,
           "no/folder");
}

static void bad_names(void **state) {
  static const char *const names[] = {"",  "..",  "../x", "/x",   "a/b",
                                      "A", "a b", "a.b",  "a\nb", "ä"};
  dj_drive_writer *w;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    dj_drive_info info = make_info();
    (void)snprintf(info.name, sizeof info.name, "%s", names[i]);
    FX_ERROR(dj_drive_writer_open(fx_path(*state, "x"), &info, &w), DJ_E_INVALID, "drive name");
    info = make_info();
    (void)snprintf(info.cameras[1].name, DJ_NAME_BYTES, "%s", names[i]);
    FX_ERROR(dj_drive_writer_open(fx_path(*state, "x"), &info, &w), DJ_E_INVALID, "camera name");
  }
  dj_drive_info info = make_info();
  info.cameras[1] = make_camera("front");
  FX_ERROR(dj_drive_writer_open(fx_path(*state, "x"), &info, &w), DJ_E_INVALID,
           "two cameras are called front");
  info = make_info();
  info.n_cameras = DJ_MAX_CAMERAS + 1;
  FX_ERROR(dj_drive_writer_open(fx_path(*state, "x"), &info, &w), DJ_E_INVALID, "17 cameras");
  info = make_info();
  info.cameras[0].K[2] = NAN;
  FX_ERROR(dj_drive_writer_open(fx_path(*state, "x"), &info, &w), DJ_E_INVALID, "camera matrix");
  info = make_info();
  info.cameras[0].rotation[0] = 3;
  FX_ERROR(dj_drive_writer_open(fx_path(*state, "x"), &info, &w), DJ_E_INVALID, "quaternion");
  info = make_info();
  info.cameras[0].width = 0;
  FX_ERROR(dj_drive_writer_open(fx_path(*state, "x"), &info, &w), DJ_E_INVALID, "0 x 24 pixels");
  info.cameras[0].width = 1 << 20;
  FX_ERROR(dj_drive_writer_open(fx_path(*state, "x"), &info, &w), DJ_E_INVALID, "1048576 x 24");
}

static void bad_values(void **state) {
  dj_drive_info info = make_info();
  dj_drive_writer *w;
  fx_ok(dj_drive_writer_open(fx_path(*state, "x.mcap"), &info, &w));
  const double nan = NAN, inf = INFINITY;
  FX_ERROR(dj_drive_write_control(w, &(dj_control){t0, 1.01, nan, nan, nan}), DJ_E_INVALID,
           "steering is 1.01");
  FX_ERROR(dj_drive_write_control(w, &(dj_control){t0, nan, -inf, nan, nan}), DJ_E_INVALID,
           "throttle is -inf");
  FX_ERROR(dj_drive_write_control(w, &(dj_control){t0, nan, nan, -0.1, nan}), DJ_E_INVALID,
           "brake is -0.1");
  FX_ERROR(dj_drive_write_speed(w, &(dj_speed){t0, 1e5}), DJ_E_INVALID, "speed (m/s) is 100000");
  FX_ERROR(dj_drive_write_pose(w, &(dj_pose){t0, {nan, 0, 0}, {0, 0, 0, 1}}), DJ_E_INVALID,
           "position");
  FX_ERROR(dj_drive_write_pose(w, &(dj_pose){t0, {0, 0, 0}, {0, 0, 0, 0}}), DJ_E_INVALID,
           "orientation");
  FX_ERROR(dj_drive_write_image(w, 2, t0, "jpeg", "x", 1), DJ_E_INVALID, "camera 2 of 2");
  FX_ERROR(dj_drive_write_image(w, 0, t0, "jpeg", "", 0), DJ_E_INVALID, "empty frame");
  FX_ERROR(dj_drive_write_image(w, 0, t0, "webp", "x", 1), DJ_E_INVALID, "'webp'");
  FX_ERROR(dj_drive_write_video(w, 0, t0, "av1", "x", 1), DJ_E_INVALID, "'av1'");
  fx_ok(dj_drive_write_speed(w, &(dj_speed){t0, 1}));
  FX_ERROR(dj_drive_write_speed(w, &(dj_speed){t0 - 1, 1}), DJ_E_INVALID, "time runs backwards");
  fx_ok(dj_drive_write_speed(w, &(dj_speed){t0, 1})); // the writer goes on
  fx_ok(dj_drive_write_image(w, 0, t0, "jpeg", "x", 1));
  FX_ERROR(dj_drive_write_video(w, 0, t0, "h264", "x", 1), DJ_E_INVALID, "both images and video");
  dj_drive_writer_abort(w);
}

// ---- damaged and hostile logs -------------------------------------------------------------------

/* Reads all that a drive holds. A frame that is given out must be the one that was written at its
 * time. */
static dj_status read_all(const char *path) {
  dj_drive *d;
  DJ_TRY(dj_drive_open(path, &d));
  const dj_drive_info *info = dj_drive_get_info(d);
  const dj_control *c;
  const dj_speed *v;
  const dj_pose *p;
  size_t n;
  dj_status s = dj_drive_controls(d, &c, &n);
  if (!s) s = dj_drive_speeds(d, &v, &n);
  if (!s) s = dj_drive_poses(d, &p, &n);
  for (int k = 0; k < info->n_cameras && !s; k++) {
    const uint64_t *t;
    s = dj_drive_frame_times(d, k, &t, &n);
    uint8_t *rgb = malloc((size_t)info->cameras[k].width * (size_t)info->cameras[k].height * 3);
    assert_non_null(rgb);
    for (size_t i = 0; i < n && !s; i++) {
      s = dj_drive_read_frame(d, k, i, rgb);
      if (s) break;
      int at = (int)((t[i] - t0) / 50000000);
      assert_int_equal(t[i], t0 + 50000000ull * (unsigned)at + (k ? 7 : 0));
      fx_check_picture(rgb, FX_W, FX_H, k ? at + 3 : at, 5);
    }
    free(rgb);
  }
  dj_drive_close(d);
  return s;
}

/* /tf says where the cameras are, and with each pose where the vehicle is: also where poses begin
 * before the message that the log begins with. Mountings are found among them. */
static void transforms(void **state) {
  const char *path = fx_path(*state, "tf.mcap");
  dj_drive_info info = make_info();
  dj_drive_writer *w;
  fx_ok(dj_drive_writer_open(path, &info, &w));
  fx_ok(dj_drive_write_speed(w, &(dj_speed){t0, 1}));
  for (int i = 0; i < N; i++)
    fx_ok(dj_drive_write_pose(w, &(dj_pose){t0 + (uint64_t)(50000000ll * (i - 3)),
                                            {i, -i, 0.1 * i},
                                            {0, 0, sin(0.05 * i), cos(0.05 * i)}}));
  fx_ok(dj_drive_writer_close(w, 0));
  dj_drive *d;
  fx_ok(dj_drive_open(path, &d));
  for (int k = 0; k < 2; k++) same_camera(&dj_drive_get_info(d)->cameras[k], &info.cameras[k]);
  const dj_pose *pose;
  size_t n, vehicle = 0, cameras = 0;
  fx_ok(dj_drive_poses(d, &pose, &n));
  dj_mcap *m;
  dj_mcap_iter *it;
  dj_mcap_message msg;
  fx_ok(dj_mcap_open(path, NULL, &m));
  fx_ok(dj_mcap_iter_open(m, NULL, &it));
  for (bool more;;) {
    fx_ok(dj_mcap_iter_next(it, &msg, &more));
    if (!more) break;
    if (strcmp(dj_mcap_channel_by_id(m, msg.channel_id)->topic, "/tf") != 0) continue;
    Foxglove__FrameTransform *tf =
        foxglove__frame_transform__unpack(NULL, msg.size, (const uint8_t *)msg.data);
    assert_non_null(tf);
    if (strcmp(tf->child_frame_id, "vehicle") != 0) {
      cameras++;
    } else {
      assert_true(vehicle < n);
      const dj_pose *p = &pose[vehicle++];
      assert_string_equal(tf->parent_frame_id, "world");
      assert_int_equal(msg.log_time, p->t_ns);
      same_double(tf->translation->y, p->position[1]);
      same_double(tf->rotation->z, p->rotation[2]);
      same_double(tf->rotation->w, p->rotation[3]);
    }
    foxglove__frame_transform__free_unpacked(tf, NULL);
  }
  assert_int_equal(vehicle, N);
  assert_int_equal(cameras, 2);
  dj_mcap_iter_close(it);
  dj_mcap_close(m);
  dj_drive_close(d);
}

/* Every cut is an error; a changed byte is an error, or one that changes nothing that is read. */
static void damaged(void **state) {
  const char *path = fx_path(*state, "d.mcap"), *bad = fx_path(*state, "bad.mcap");
  write_log(path, 6);
  fx_ok(read_all(path));
  size_t n;
  char *data = fx_read(path, &n);
  for (size_t cut = 0; cut < n; cut += 1 + n / 150) {
    fx_write_bytes(bad, data, cut);
    FX_ERROR(read_all(bad), DJ_E_FORMAT, "bad.mcap");
  }
  size_t errors = 0, tried = 0;
  for (size_t i = 0; i < n; i += 1 + n / 400) {
    char old = data[i];
    data[i] = (char)(old ^ (1 << i % 8));
    fx_write_bytes(bad, data, n);
    dj_status s = read_all(bad);
    tried++;
    errors += s != DJ_OK;
    if (s) assert_non_null(strstr(dj_error_message(), "bad.mcap"));
    data[i] = old;
  }
  assert_true(errors * 10 > tried * 8); // checksums: nearly every change is noticed
  free(data);
}

/* Copies a log with changes: `edit` may alter a message's topic, schema and bytes; a metadata value
 * whose key is `key` becomes `value` (NULL key: none; NULL value: the pair is left out). */
typedef struct change {
  const char *topic;              // messages of this topic
  const char *new_topic, *schema; // NULL: as they are
  const void *from, *to;          // bytes within the message, and what they become
  size_t size;
  const char *key, *value;
} change;

static void remake(const char *from, const char *to, const change *ch) {
  dj_mcap *m;
  dj_mcap_writer *w;
  dj_mcap_iter *it;
  fx_ok(dj_mcap_open(from, NULL, &m));
  fx_ok(dj_mcap_writer_open(to, NULL, &w));
  size_t n;
  (void)dj_mcap_metadata_list(m, &n);
  for (size_t i = 0; i < n; i++) {
    dj_mcap_metadata md;
    dj_mcap_pair pairs[16];
    size_t k = 0;
    fx_ok(dj_mcap_read_metadata(m, i, &md));
    for (size_t j = 0; j < md.n; j++) {
      bool hit = ch->key && !strcmp(md.pairs[j].key, ch->key);
      if (hit && !ch->value) continue;
      pairs[k++] = (dj_mcap_pair){md.pairs[j].key, hit ? ch->value : md.pairs[j].value};
    }
    fx_ok(dj_mcap_write_metadata(w, md.name, pairs, k));
  }
  fx_ok(dj_mcap_iter_open(m, &(dj_mcap_query){.file_order = true}, &it));
  dj_mcap_message msg;
  for (bool more;;) {
    fx_ok(dj_mcap_iter_next(it, &msg, &more));
    if (!more) break;
    const dj_mcap_channel *c = dj_mcap_channel_by_id(m, msg.channel_id);
    const dj_mcap_schema *sc = dj_mcap_schema_by_id(m, c->schema_id);
    bool hit = ch->topic && !strcmp(c->topic, ch->topic);
    uint16_t schema, id;
    fx_ok(dj_mcap_add_schema(w, hit && ch->schema ? ch->schema : sc->name, sc->encoding, sc->data,
                             sc->size, &schema));
    fx_ok(dj_mcap_add_channel(w, schema, hit && ch->new_topic ? ch->new_topic : c->topic,
                              c->message_encoding, NULL, 0, &id));
    char *copy = malloc(msg.size + 1), *at;
    memcpy(copy, msg.data, msg.size);
    if (hit && ch->from && memmem(copy, msg.size, ch->from, ch->size)) {
      at = memmem(copy, msg.size, ch->from, ch->size);
      assert_non_null(at);
      memcpy(at, ch->to, ch->size);
    }
    msg.channel_id = id;
    msg.data = copy;
    fx_ok(dj_mcap_write(w, &msg));
    free(copy);
  }
  dj_mcap_iter_close(it);
  fx_ok(dj_mcap_writer_close(w));
  dj_mcap_close(m);
}

static void hostile(void **state) {
  const char *good = fx_path(*state, "good.mcap"), *bad = fx_path(*state, "bad.mcap");
  write_log(good, 4);
  const double focal = 31, huge = INFINITY, half = 0.5, nan = NAN, speed = 1.5, fast = 1e6;
  static const char front[] = "/camera/front/calibration";
  char many[17 * 3 + 1] = "";
  for (int i = 0; i < 17; i++)
    (void)snprintf(many + strlen(many), 4, "%sc%c", i ? "," : "", 'a' + i);
  const struct {
    change c;
    const char *what;
  } cases[] = {
      {{.key = "name", .value = "../../etc/x"}, "drive name '../../etc/x'"},
      {{.key = "name", .value = NULL}, "lacks a field"},
      {{.key = "name",
        .value = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"},
       "too long"},
      {{.key = "cameras", .value = many}, "more than 16 cameras"},
      {{.key = "cameras", .value = "front,front"}, "two cameras are called front"},
      {{.key = "cameras", .value = "front,side"}, "camera side has no calibration"},
      {{.key = "cameras", .value = ",front"}, "has no calibration"},
      // Field 2 is the width, 32 bits.
      {{.topic = front, .from = "\x15\x20\0\0\0", .to = "\x15\xff\xff\xff\x7f", .size = 5},
       "2147483647 x"},
      {{.topic = front, .from = &focal, .to = &huge, .size = 8}, "camera matrix"},
      {{.topic = "/tf", .from = &half, .to = &nan, .size = 8}, "quaternion"},
      {{.topic = "/vehicle/speed", .from = &speed, .to = &fast, .size = 8}, "speed (m/s) is 1e+06"},
      {{.topic = "/vehicle/speed", .schema = "dojo.VehicleControl"},
       "/vehicle/speed holds dojo.VehicleControl"},
      {{.topic = front, .new_topic = "/camera/other/calibration"},
       "camera front has no calibration"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    remake(good, bad, &cases[i].c);
    FX_ERROR(read_all(bad), DJ_E_FORMAT, "bad.mcap", cases[i].what);
  }
  // An MCAP log that is no drive, a file that is no log, an empty one, a folder, nothing.
  dj_mcap_writer *w;
  fx_ok(dj_mcap_writer_open(bad, NULL, &w));
  fx_ok(dj_mcap_writer_close(w));
  FX_ERROR(read_all(bad), DJ_E_FORMAT, "not a drive");
  fx_write(bad, "not an MCAP file at all, just text of some length");
  FX_ERROR(read_all(bad), DJ_E_FORMAT, "bad.mcap");
  fx_write(bad, "");
  FX_ERROR(read_all(bad), DJ_E_FORMAT, "bad.mcap");
  assert_true(read_all(*state) != DJ_OK);
  FX_ERROR(read_all(fx_path(*state, "nothing")), DJ_E_NOT_FOUND, "nothing");
}

/* A picture of another size than its camera's calibration, and one cut short: an error that names
 * log, camera and time. */
static void wrong_pictures(void **state) {
  const char *path = fx_path(*state, "p.mcap");
  for (int kind = 0; kind < 3; kind++) {
    dj_drive_info info = make_info();
    dj_drive_writer *w;
    uint8_t *jpeg, rgb[FX_W * FX_H * 3];
    size_t size;
    if (kind == 0) info.cameras[0].width = FX_W + 1;
    jpeg_of(1, &jpeg, &size);
    fx_ok(dj_drive_writer_open(path, &info, &w));
    fx_ok(dj_drive_write_image(w, 0, 1500000000, "jpeg", kind == 2 ? (void *)"hello" : jpeg,
                               kind == 0   ? size
                               : kind == 1 ? size / 2
                                           : 5));
    fx_ok(dj_drive_writer_close(w, 0));
    free(jpeg);
    dj_drive *d;
    fx_ok(dj_drive_open(path, &d));
    FX_ERROR(dj_drive_read_frame(d, 0, 0, rgb), DJ_E_FORMAT, "p.mcap", "camera front",
             "frame 0 at 1.500 s");
    dj_drive_close(d);
  }
}

static void images_hostile(void **state) {
  (void)state;
  uint8_t *rgb, *jpeg;
  size_t size;
  int w, h;
  jpeg_of(5, &jpeg, &size);
  fx_ok(dj_image_decode(jpeg, size, 1 << 20, &rgb, &w, &h));
  assert_int_equal(w, FX_W);
  assert_int_equal(h, FX_H);
  fx_check_picture(rgb, w, h, 5, 5);
  free(rgb);
  FX_ERROR(dj_image_decode(jpeg, size, FX_W * FX_H - 1, &rgb, &w, &h), DJ_E_LIMIT, "32 x 24");
  for (size_t cut = 0; cut < size; cut += 7) { // never a picture that is grey from the middle down
    assert_true(dj_image_decode(jpeg, cut, 1 << 20, &rgb, &w, &h) != DJ_OK);
    assert_null(rgb);
  }
  free(jpeg);
  // A PNG header that claims 2^31 - 1 pixels a side.
  static const unsigned char png[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff"
                                     "\x08\x02\0\0\0\0\0\0\0";
  assert_true(dj_image_decode(png, sizeof png - 1, UINT64_MAX, &rgb, &w, &h) != DJ_OK);
  assert_null(rgb);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      FX_TEST(round_trip),     FX_TEST(whole_or_not_at_all),
      FX_TEST(bad_names),      FX_TEST(bad_values),
      FX_TEST(damaged),        FX_TEST(hostile),
      FX_TEST(wrong_pictures), FX_TEST(images_hostile),
      FX_TEST(transforms),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
