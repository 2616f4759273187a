/*
 * Writer of drives: foxglove.* and dojo.* protobuf messages in an MCAP log.
 *
 * A channel begins with its first message, so a log holds exactly the channels it has data for, and
 * the reader tells labels by them. Calibration and mounting are written with the first message of
 * the log, at its time. The same calls in the same order give the same bytes.
 *
 * Left to others: the container (dojo/mcap.h), whether the pictures decode (importers look).
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/fs.h"
#include "dojo/mcap.h"
#include "fleet/drivelog.h"
#include "fleet/foxglove_descriptors.h"

#include "dojo/VehicleControl.pb-c.h"
#include "dojo/VehicleSpeed.pb-c.h"
#include "foxglove/CameraCalibration.pb-c.h"
#include "foxglove/CompressedImage.pb-c.h"
#include "foxglove/CompressedVideo.pb-c.h"
#include "foxglove/FrameTransform.pb-c.h"
#include "foxglove/PoseInFrame.pb-c.h"

typedef struct channel {
  bool open;
  uint16_t id;
  uint32_t sequence;
  uint64_t last_ns;
} channel;

struct dj_drive_writer {
  dj_mcap_writer *mcap;
  dj_drive_info info;
  dj__buf buf; // one serialized message
  bool begun;  // calibrations are written
  channel camera[DJ_MAX_CAMERAS], calibration[DJ_MAX_CAMERAS], tf, pose, control, speed;
  channel label[DJ__N_LABEL_CHANNELS], layer[DJ_MAX_CAMERAS][DJ_N_LAYERS];
  bool video[DJ_MAX_CAMERAS]; // the camera's channel holds video
};

static dj_status check_unit(dj_status status, const char *what, const double q[4]) {
  double n = sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
  if (!(fabs(n - 1) < 1e-3))
    return dj_error(status, "%s: quaternion (%g, %g, %g, %g) has length %g, not 1", what, q[0],
                    q[1], q[2], q[3], n);
  return DJ_OK;
}

static dj_status check_finite(dj_status status, const char *what, const double *v, int n) {
  for (int i = 0; i < n; i++)
    if (!isfinite(v[i])) return dj_error(status, "%s: value %d is %g", what, i, v[i]);
  return DJ_OK;
}

dj_status dj__check_camera(dj_status status, const dj_camera *c) {
  if (!dj__drive_name_ok(c->name))
    return dj_error(status, "camera name '%.70s' is not of [a-z0-9_-], 1..63 bytes", c->name);
  if (c->width < 1 || c->height < 1 || c->width > 65535 || c->height > 65535)
    return dj_error(status, "camera %s: %d x %d pixels", c->name, c->width, c->height);
  if (c->n_distortion < 0 || c->n_distortion > 8)
    return dj_error(status, "camera %s: %d distortion coefficients, at most 8", c->name,
                    c->n_distortion);
  DJ_TRY(check_finite(status, "camera matrix", c->K, 9));
  DJ_TRY(check_finite(status, "camera distortion", c->D, c->n_distortion));
  DJ_TRY(check_finite(status, "camera position", c->position, 3));
  return check_unit(status, "camera mounting", c->rotation);
}

// NaN is "unknown" and fine.
static dj_status check_range(dj_status status, const char *what, double v, double lo, double hi) {
  if (isnan(v) || (v >= lo && v <= hi)) return DJ_OK;
  return dj_error(status, "%s is %g, outside %g..%g", what, v, lo, hi);
}

dj_status dj__check_control(dj_status status, const dj_control *c) {
  DJ_TRY(check_range(status, "steering", c->steering, -1, 1));
  DJ_TRY(check_range(status, "throttle", c->throttle, -1, 1));
  DJ_TRY(check_range(status, "brake", c->brake, 0, 1));
  return check_range(status, "steering angle (rad)", c->steering_angle, -100, 100);
}

dj_status dj__check_speed(dj_status status, const dj_speed *s) {
  return check_range(status, "speed (m/s)", s->speed, -1000, 1000);
}

dj_status dj__check_pose(dj_status status, const dj_pose *p) {
  DJ_TRY(check_finite(status, "position", p->position, 3));
  return check_unit(status, "orientation", p->rotation);
}

static dj_status check_info(const dj_drive_info *info) {
  if (!dj__drive_name_ok(info->name))
    return dj_error(DJ_E_INVALID, "drive name '%.70s' is not of [a-z0-9_-], 1..63 bytes",
                    info->name);
  if (info->n_cameras < 0 || info->n_cameras > DJ_MAX_CAMERAS)
    return dj_error(DJ_E_INVALID, "drive %s: %d cameras, at most %d", info->name, info->n_cameras,
                    DJ_MAX_CAMERAS);
  for (int i = 0; i < info->n_cameras; i++) {
    dj_status s = dj__check_camera(DJ_E_INVALID, &info->cameras[i]);
    if (s) return dj_error_context(s, "drive %s", info->name);
    for (int j = 0; j < i; j++)
      if (!strcmp(info->cameras[i].name, info->cameras[j].name))
        return dj_error(DJ_E_INVALID, "drive %s: two cameras are called %s", info->name,
                        info->cameras[i].name);
  }
  return DJ_OK;
}

static dj_status write_drive_metadata(dj_drive_writer *w) {
  char cameras[DJ_MAX_CAMERAS * DJ_NAME_BYTES] = "",
                                calibrated[DJ_MAX_CAMERAS * DJ_NAME_BYTES] = "";
  for (int i = 0; i < w->info.n_cameras; i++) {
    const dj_camera *c = &w->info.cameras[i];
    size_t n = strlen(cameras), m = strlen(calibrated);
    (void)snprintf(cameras + n, sizeof cameras - n, "%s%s", n ? "," : "", c->name);
    if (c->calibrated)
      (void)snprintf(calibrated + m, sizeof calibrated - m, "%s%s", m ? "," : "", c->name);
  }
  dj_mcap_pair pairs[] = {{"name", w->info.name},
                          {"format", w->info.format},
                          {"source_digest", w->info.source_digest},
                          {"source", w->info.source},
                          {"cameras", cameras},
                          {"calibrated", calibrated}};
  return dj_mcap_write_metadata(w->mcap, DJ__META_DRIVE, pairs, sizeof pairs / sizeof *pairs);
}

dj_status dj_drive_writer_open(const char *path, const dj_drive_info *info, dj_drive_writer **out) {
  *out = NULL;
  DJ_TRY(check_info(info));
  dj_drive_writer *w = calloc(1, sizeof *w);
  if (!w) return dj_error(DJ_E_NOMEM, "no memory for the writer of %s", path);
  w->info = *info;
  dj_mcap_options o = {.profile = "", .library = "libdojo", .compression = DJ_MCAP_ZSTD};
  dj_status s = dj_mcap_writer_open(path, &o, &w->mcap);
  if (!s) s = write_drive_metadata(w);
  if (s) {
    dj_drive_writer_abort(w);
    return s;
  }
  *out = w;
  return DJ_OK;
}

static dj_status open_channel(dj_drive_writer *w, channel *c, const char *topic,
                              const char *schema) {
  for (int i = 0; i < dj__n_foxglove_descriptors; i++) {
    const dj__descriptor *d = &dj__foxglove_descriptors[i];
    if (strcmp(d->name, schema) != 0) continue;
    uint16_t id;
    DJ_TRY(dj_mcap_add_schema(w->mcap, d->name, "protobuf", d->data, d->size, &id));
    DJ_TRY(dj_mcap_add_channel(w->mcap, id, topic, "protobuf", NULL, 0, &c->id));
    c->open = true;
    return DJ_OK;
  }
  return dj_error(DJ_E_STATE, "no descriptor of %s is built in", schema);
}

static dj_status put(dj_drive_writer *w, channel *c, const char *topic, const char *schema,
                     uint64_t t_ns, const ProtobufCMessage *message) {
  if (c->open && t_ns < c->last_ns)
    return dj_error(DJ_E_INVALID,
                    "drive %s: time runs backwards on %s: %" PRIu64 " ns after %" PRIu64 " ns",
                    w->info.name, topic, t_ns, c->last_ns);
  if (!c->open) DJ_TRY(open_channel(w, c, topic, schema));
  w->buf.size = 0;
  size_t size = protobuf_c_message_get_packed_size(message);
  unsigned char *at = dj__buf_extend(&w->buf, size + 1);
  if (!at)
    return dj_error(DJ_E_NOMEM, "drive %s: no memory for a message of %zu bytes", w->info.name,
                    size);
  (void)protobuf_c_message_pack(message, at);
  c->last_ns = t_ns;
  return dj_mcap_write(w->mcap, &(dj_mcap_message){.channel_id = c->id,
                                                   .sequence = c->sequence++,
                                                   .log_time = t_ns,
                                                   .publish_time = t_ns,
                                                   .data = at,
                                                   .size = size});
}

static Google__Protobuf__Timestamp stamp(uint64_t t_ns) {
  Google__Protobuf__Timestamp t = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
  t.seconds = (int64_t)(t_ns / 1000000000u);
  t.nanos = (int32_t)(t_ns % 1000000000u);
  return t;
}

static Foxglove__Vector3 vector(const double v[3]) {
  Foxglove__Vector3 m = FOXGLOVE__VECTOR3__INIT;
  m.x = v[0];
  m.y = v[1];
  m.z = v[2];
  return m;
}

static Foxglove__Quaternion quaternion(const double q[4]) {
  Foxglove__Quaternion m = FOXGLOVE__QUATERNION__INIT;
  m.x = q[0];
  m.y = q[1];
  m.z = q[2];
  m.w = q[3];
  return m;
}

enum { TEXT = DJ_NAME_BYTES + 32 };

// Poses may begin before the log's first message, whose time the mountings have; they keep their
// order on their own channel.
static dj_status write_transform(dj_drive_writer *w, char *parent, char *child, uint64_t t_ns,
                                 const double at[3], const double q[4]) {
  Google__Protobuf__Timestamp t = stamp(t_ns);
  Foxglove__Vector3 position = vector(at);
  Foxglove__Quaternion rotation = quaternion(q);
  Foxglove__FrameTransform tf = FOXGLOVE__FRAME_TRANSFORM__INIT;
  tf.timestamp = &t;
  tf.parent_frame_id = parent;
  tf.child_frame_id = child;
  tf.translation = &position;
  tf.rotation = &rotation;
  w->tf.last_ns = 0;
  return put(w, &w->tf, DJ__TOPIC_TF, "foxglove.FrameTransform", t_ns, &tf.base);
}

static dj_status write_camera(dj_drive_writer *w, int i, uint64_t t_ns) {
  dj_camera *c = &w->info.cameras[i];
  char frame[TEXT], topic[TEXT];
  (void)snprintf(frame, sizeof frame, "camera/%s", c->name);
  (void)snprintf(topic, sizeof topic, "/camera/%s/calibration", c->name);
  Google__Protobuf__Timestamp t = stamp(t_ns);
  double R[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
  double P[12] = {c->K[0], c->K[1], c->K[2], 0,       c->K[3], c->K[4],
                  c->K[5], 0,       c->K[6], c->K[7], c->K[8], 0};
  Foxglove__CameraCalibration k = FOXGLOVE__CAMERA_CALIBRATION__INIT;
  k.timestamp = &t;
  k.frame_id = frame;
  k.width = (uint32_t)c->width;
  k.height = (uint32_t)c->height;
  k.distortion_model = c->distortion_model;
  k.d = c->D;
  k.n_d = (size_t)c->n_distortion;
  k.k = c->K;
  k.n_k = 9;
  k.r = R;
  k.n_r = 9;
  k.p = P;
  k.n_p = 12;
  DJ_TRY(put(w, &w->calibration[i], topic, "foxglove.CameraCalibration", t_ns, &k.base));

  return write_transform(w, "vehicle", frame, t_ns, c->position, c->rotation);
}

static dj_status begin(dj_drive_writer *w, uint64_t t_ns) {
  if (w->begun) return DJ_OK;
  w->begun = true;
  for (int i = 0; i < w->info.n_cameras; i++) DJ_TRY(write_camera(w, i, t_ns));
  return DJ_OK;
}

static dj_status check_frame(dj_drive_writer *w, int camera, bool video, const void *data,
                             size_t size) {
  if (camera < 0 || camera >= w->info.n_cameras)
    return dj_error(DJ_E_INVALID, "drive %s: camera %d of %d", w->info.name, camera,
                    w->info.n_cameras);
  if (!data || !size)
    return dj_error(DJ_E_INVALID, "drive %s: empty frame of camera %s", w->info.name,
                    w->info.cameras[camera].name);
  if (w->camera[camera].open && w->video[camera] != video)
    return dj_error(DJ_E_INVALID, "drive %s: camera %s has both images and video", w->info.name,
                    w->info.cameras[camera].name);
  return DJ_OK;
}

dj_status dj_drive_write_image(dj_drive_writer *w, int camera, uint64_t t_ns, const char *format,
                               const void *data, size_t size) {
  DJ_TRY(check_frame(w, camera, false, data, size));
  if (strcmp(format, "jpeg") != 0 && strcmp(format, "png") != 0)
    return dj_error(DJ_E_INVALID, "drive %s: image format '%s' is not jpeg or png", w->info.name,
                    format);
  DJ_TRY(begin(w, t_ns));
  char frame[TEXT], topic[TEXT];
  (void)snprintf(frame, sizeof frame, "camera/%s", w->info.cameras[camera].name);
  (void)snprintf(topic, sizeof topic, "/camera/%s/image", w->info.cameras[camera].name);
  Google__Protobuf__Timestamp t = stamp(t_ns);
  Foxglove__CompressedImage m = FOXGLOVE__COMPRESSED_IMAGE__INIT;
  m.timestamp = &t;
  m.frame_id = frame;
  m.data.data = (uint8_t *)data; // not written to
  m.data.len = size;
  m.format = (char *)format;
  return put(w, &w->camera[camera], topic, "foxglove.CompressedImage", t_ns, &m.base);
}

dj_status dj_drive_write_video(dj_drive_writer *w, int camera, uint64_t t_ns, const char *format,
                               const void *data, size_t size) {
  DJ_TRY(check_frame(w, camera, true, data, size));
  if (strcmp(format, "h264") != 0 && strcmp(format, "h265") != 0)
    return dj_error(DJ_E_INVALID, "drive %s: video format '%s' is not h264 or h265", w->info.name,
                    format);
  DJ_TRY(begin(w, t_ns));
  w->video[camera] = true;
  char frame[TEXT], topic[TEXT];
  (void)snprintf(frame, sizeof frame, "camera/%s", w->info.cameras[camera].name);
  (void)snprintf(topic, sizeof topic, "/camera/%s/video", w->info.cameras[camera].name);
  Google__Protobuf__Timestamp t = stamp(t_ns);
  Foxglove__CompressedVideo m = FOXGLOVE__COMPRESSED_VIDEO__INIT;
  m.timestamp = &t;
  m.frame_id = frame;
  m.data.data = (uint8_t *)data;
  m.data.len = size;
  m.format = (char *)format;
  return put(w, &w->camera[camera], topic, "foxglove.CompressedVideo", t_ns, &m.base);
}

dj_status dj_drive_write_control(dj_drive_writer *w, const dj_control *c) {
  dj_status s = dj__check_control(DJ_E_INVALID, c);
  if (s) return dj_error_context(s, "drive %s", w->info.name);
  DJ_TRY(begin(w, c->t_ns));
  Google__Protobuf__Timestamp t = stamp(c->t_ns);
  Dojo__VehicleControl m = DOJO__VEHICLE_CONTROL__INIT;
  m.timestamp = &t;
  m.steering = c->steering;
  m.throttle = c->throttle;
  m.brake = c->brake;
  m.steering_angle = c->steering_angle;
  return put(w, &w->control, DJ__TOPIC_CONTROL, "dojo.VehicleControl", c->t_ns, &m.base);
}

dj_status dj_drive_write_speed(dj_drive_writer *w, const dj_speed *v) {
  dj_status s = dj__check_speed(DJ_E_INVALID, v);
  if (s) return dj_error_context(s, "drive %s", w->info.name);
  DJ_TRY(begin(w, v->t_ns));
  Google__Protobuf__Timestamp t = stamp(v->t_ns);
  Dojo__VehicleSpeed m = DOJO__VEHICLE_SPEED__INIT;
  m.timestamp = &t;
  m.speed = v->speed;
  return put(w, &w->speed, DJ__TOPIC_SPEED, "dojo.VehicleSpeed", v->t_ns, &m.base);
}

dj_status dj_drive_write_pose(dj_drive_writer *w, const dj_pose *p) {
  dj_status s = dj__check_pose(DJ_E_INVALID, p);
  if (s) return dj_error_context(s, "drive %s", w->info.name);
  DJ_TRY(begin(w, p->t_ns));
  Google__Protobuf__Timestamp t = stamp(p->t_ns);
  Foxglove__Vector3 position = vector(p->position);
  Foxglove__Quaternion rotation = quaternion(p->rotation);
  Foxglove__Pose pose = FOXGLOVE__POSE__INIT;
  pose.position = &position;
  pose.orientation = &rotation;
  Foxglove__PoseInFrame m = FOXGLOVE__POSE_IN_FRAME__INIT;
  m.timestamp = &t;
  m.frame_id = "world";
  m.pose = &pose;
  DJ_TRY(put(w, &w->pose, DJ__TOPIC_POSE, "foxglove.PoseInFrame", p->t_ns, &m.base));
  return write_transform(w, "world", "vehicle", p->t_ns, p->position, p->rotation);
}

// ---- labels -------------------------------------------------------------------------------------

dj_status dj__drive_put_label(dj_drive_writer *w, dj__label_channel c, uint64_t t_ns,
                              const ProtobufCMessage *m) {
  DJ_TRY(begin(w, t_ns));
  return put(w, &w->label[c], dj__label_topics[c].topic, dj__label_topics[c].schema, t_ns, m);
}

const char *dj__drive_writer_name(const dj_drive_writer *w) {
  return w->info.name;
}

dj_status dj_drive_write_layer(dj_drive_writer *w, int camera, dj_layer layer, uint64_t t_ns,
                               const void *data, size_t size) {
  if (camera < 0 || camera >= w->info.n_cameras || (unsigned)layer >= DJ_N_LAYERS || !data || !size)
    return dj_error(DJ_E_INVALID, "drive %s: layer %d of camera %d, %zu bytes", w->info.name,
                    (int)layer, camera, size);
  DJ_TRY(begin(w, t_ns));
  char frame[TEXT], topic[TEXT];
  (void)snprintf(frame, sizeof frame, "camera/%s", w->info.cameras[camera].name);
  (void)snprintf(topic, sizeof topic, "/camera/%s/%s", w->info.cameras[camera].name,
                 dj_layer_name(layer));
  Google__Protobuf__Timestamp t = stamp(t_ns);
  Foxglove__CompressedImage m = FOXGLOVE__COMPRESSED_IMAGE__INIT;
  m.timestamp = &t;
  m.frame_id = frame;
  m.data.data = (uint8_t *)data; // not written to
  m.data.len = size;
  m.format = "png";
  return put(w, &w->layer[camera][layer], topic, "foxglove.CompressedImage", t_ns, &m.base);
}

/* Channel ids of another log, as they are called in ours. */
typedef struct copied {
  bool known;
  uint16_t id;
} copied;

static dj_status copy_channel(dj_drive_writer *w, dj_mcap *from, uint16_t id, copied *c) {
  const dj_mcap_channel *from_channel = dj_mcap_channel_by_id(from, id);
  if (!from_channel)
    return dj_error(DJ_E_FORMAT, "a message of channel %u, which is not there", id);
  const dj_mcap_schema *schema = dj_mcap_schema_by_id(from, from_channel->schema_id);
  uint16_t schema_id = 0;
  if (schema)
    DJ_TRY(dj_mcap_add_schema(w->mcap, schema->name, schema->encoding, schema->data, schema->size,
                              &schema_id));
  DJ_TRY(dj_mcap_add_channel(w->mcap, schema_id, from_channel->topic,
                             from_channel->message_encoding, from_channel->metadata,
                             from_channel->n_metadata, &c->id));
  c->known = true;
  return DJ_OK;
}

static dj_status copy_messages(dj_drive_writer *w, dj_mcap *from, dj_mcap_iter *it, copied *map) {
  dj_mcap_message m;
  for (bool more = true;;) {
    DJ_TRY(dj_mcap_iter_next(it, &m, &more));
    if (!more) return DJ_OK;
    copied *c = &map[m.channel_id];
    if (!c->known) DJ_TRY(copy_channel(w, from, m.channel_id, c));
    m.channel_id = c->id;
    DJ_TRY(dj_mcap_write(w->mcap, &m));
  }
}

dj_status dj__drive_copy(dj_drive_writer *w, dj_mcap *from) {
  w->begun = true; // calibrations are among the messages
  copied *map = calloc(UINT16_MAX + 1, sizeof *map);
  if (!map) return dj_error(DJ_E_NOMEM, "drive %s: no memory to copy a log", w->info.name);
  dj_mcap_iter *it = NULL;
  dj_status s = dj_mcap_iter_open(from, NULL, &it);
  if (!s) s = copy_messages(w, from, it, map);
  dj_mcap_iter_close(it);
  free(map);
  return s;
}

dj_status dj_drive_writer_close(dj_drive_writer *w, uint64_t n_skipped) {
  char text[32];
  (void)snprintf(text, sizeof text, "%" PRIu64, n_skipped);
  dj_mcap_pair pair = {"n_skipped", text};
  dj_status s = begin(w, 0);
  if (!s) s = dj_mcap_write_metadata(w->mcap, DJ__META_END, &pair, 1);
  if (!s) {
    s = dj_mcap_writer_close(w->mcap);
    w->mcap = NULL;
  }
  dj_drive_writer_abort(w);
  return s;
}

void dj_drive_writer_abort(dj_drive_writer *w) {
  if (!w) return;
  dj_mcap_writer_abort(w->mcap);
  dj__buf_free(&w->buf);
  free(w);
}
