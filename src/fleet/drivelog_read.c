/*
 * Reader of drives. Opening reads the log's summary, its metadata, calibrations and mountings;
 * frames are read one by one through the message index, and the small channels (control, speed,
 * pose) whole when they are first asked for.
 *
 * A log may be hostile: sizes are checked by the container and by protobuf-c against the bytes that
 * are there, values by the same rules that the writer keeps, and pictures must have the size that
 * the camera's calibration states. One object is for one thread.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dojo/mcap.h"
#include "fleet/drivelog.h"
#include "fleet/image.h"
#include "fleet/video.h"

#include "dojo/VehicleControl.pb-c.h"
#include "dojo/VehicleSpeed.pb-c.h"
#include "foxglove/CameraCalibration.pb-c.h"
#include "foxglove/CompressedImage.pb-c.h"
#include "foxglove/CompressedVideo.pb-c.h"
#include "foxglove/FrameTransform.pb-c.h"
#include "foxglove/PoseInFrame.pb-c.h"

typedef struct camera {
  const dj_mcap_channel *channel; // NULL: the camera has no frames
  bool video;
  const dj_mcap_entry *entries; // (n), the log's
  uint64_t *times;              // (n)
  size_t n;
  dj__video_decoder *decoder;
  struct dj_drive *drive;
  Foxglove__CompressedVideo *unit; // what the decoder was given last
} camera;

struct dj_drive {
  char *path;
  dj_mcap *mcap;
  dj_drive_info info;
  camera cameras[DJ_MAX_CAMERAS];
  dj_control *controls;
  dj_speed *speeds;
  dj_pose *poses;
  size_t n_controls, n_speeds, n_poses;
  bool have_controls, have_speeds, have_poses;
  dj__label_reader labels[DJ__N_LABEL_CHANNELS], layers[DJ_MAX_CAMERAS][DJ_N_LAYERS];
};

static double seconds(uint64_t t_ns) {
  return (double)t_ns * 1e-9;
}

// ---- channels
// ------------------------------------------------------------------------------------

static dj_status find_channel(dj_drive *d, const char *topic, const char *schema,
                              const dj_mcap_channel **out, const dj_mcap_entry **entries,
                              size_t *n) {
  *out = dj_mcap_channel_by_topic(d->mcap, topic);
  *entries = NULL;
  *n = 0;
  if (!*out) return DJ_OK;
  const dj_mcap_schema *s = dj_mcap_schema_by_id(d->mcap, (*out)->schema_id);
  if (!s || strcmp(s->name, schema) != 0 || strcmp((*out)->message_encoding, "protobuf") != 0)
    return dj_error(DJ_E_FORMAT, "channel %s holds %s in %s, not %s in protobuf", topic,
                    s ? s->name : "no schema", (*out)->message_encoding, schema);
  return dj_mcap_channel_entries(d->mcap, (*out)->id, entries, n);
}

// Reads and unpacks one message; free with protobuf_c_message_free_unpacked.
static dj_status unpack(dj_drive *d, const dj_mcap_entry *e, const ProtobufCMessageDescriptor *type,
                        ProtobufCMessage **out) {
  dj_mcap_message m;
  DJ_TRY(dj_mcap_read_message(d->mcap, e, &m));
  *out = protobuf_c_message_unpack(type, NULL, m.size, m.data);
  if (!*out)
    return dj_error(DJ_E_FORMAT, "message of %zu bytes at %.3f s is no %s", m.size,
                    seconds(e->log_time), type->name);
  return DJ_OK;
}

// The same for the readers of labels.
dj_status dj__drive_find(dj_drive *d, const char *topic, const char *schema,
                         const dj_mcap_entry **entries, size_t *n) {
  const dj_mcap_channel *channel;
  return find_channel(d, topic, schema, &channel, entries, n);
}

dj_status dj__drive_unpack(dj_drive *d, const dj_mcap_entry *e,
                           const ProtobufCMessageDescriptor *type, ProtobufCMessage **out) {
  return unpack(d, e, type, out);
}

dj__label_reader *dj__drive_label(dj_drive *d, dj__label_channel c) {
  return &d->labels[c];
}

dj__label_reader *dj__drive_layer(dj_drive *d, int i, dj_layer layer) {
  return &d->layers[i][layer];
}

const char *dj__drive_path(const dj_drive *d) {
  return d->path;
}

static void drop(void *message) {
  if (message) protobuf_c_message_free_unpacked(message, NULL);
}

static void get_vector(const Foxglove__Vector3 *v, double out[3]) {
  out[0] = v ? v->x : 0;
  out[1] = v ? v->y : 0;
  out[2] = v ? v->z : 0;
}

static void get_quaternion(const Foxglove__Quaternion *q, double out[4]) {
  out[0] = q ? q->x : 0;
  out[1] = q ? q->y : 0;
  out[2] = q ? q->z : 0;
  out[3] = q ? q->w : 1;
}

// ---- opening
// -------------------------------------------------------------------------------------

static bool copy_text(char *to, size_t size, const char *from) {
  size_t n = from ? strlen(from) : size;
  if (n >= size) return false;
  memcpy(to, from, n + 1);
  return true;
}

static bool in_list(const char *list, const char *name) {
  size_t n = strlen(name);
  for (const char *p = list; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
    if (!strncmp(p, name, n) && (p[n] == ',' || !p[n])) return true;
  return false;
}

static dj_status split_cameras(dj_drive_info *info, const char *list, const char *calibrated) {
  for (const char *p = list; p && *p;) {
    const char *end = strchr(p, ',');
    size_t n = end ? (size_t)(end - p) : strlen(p);
    if (info->n_cameras == DJ_MAX_CAMERAS)
      return dj_error(DJ_E_FORMAT, "more than %d cameras", DJ_MAX_CAMERAS);
    dj_camera *c = &info->cameras[info->n_cameras++];
    if (n >= sizeof c->name) return dj_error(DJ_E_FORMAT, "camera name of %zu bytes", n);
    memcpy(c->name, p, n);
    c->name[n] = 0;
    for (const dj_camera *other = info->cameras; other < c; other++)
      if (!strcmp(other->name, c->name))
        return dj_error(DJ_E_FORMAT, "two cameras are called %s", c->name);
    c->rotation[3] = 1;
    c->calibrated = in_list(calibrated, c->name);
    p = end ? end + 1 : NULL;
  }
  return DJ_OK;
}

static dj_status read_metadata(dj_drive *d) {
  dj_mcap_metadata m;
  dj_status s = dj_mcap_find_metadata(d->mcap, DJ__META_DRIVE, &m);
  if (s == DJ_E_NOT_FOUND)
    return dj_error(DJ_E_FORMAT, "an MCAP log, but not a drive: no metadata record '%s'",
                    DJ__META_DRIVE);
  if (s) return s;
  dj_drive_info *i = &d->info;
  if (!copy_text(i->name, sizeof i->name, dj_mcap_pair_value(m.pairs, m.n, "name")) ||
      !copy_text(i->format, sizeof i->format, dj_mcap_pair_value(m.pairs, m.n, "format")) ||
      !copy_text(i->source_digest, sizeof i->source_digest,
                 dj_mcap_pair_value(m.pairs, m.n, "source_digest")) ||
      !copy_text(i->source, sizeof i->source, dj_mcap_pair_value(m.pairs, m.n, "source")))
    return dj_error(DJ_E_FORMAT, "metadata record '%s' lacks a field, or one is too long",
                    DJ__META_DRIVE);
  if (!dj__drive_name_ok(i->name))
    return dj_error(DJ_E_FORMAT, "drive name '%s' is not of [a-z0-9_-]", i->name);
  DJ_TRY(split_cameras(i, dj_mcap_pair_value(m.pairs, m.n, "cameras"),
                       dj_mcap_pair_value(m.pairs, m.n, "calibrated")));
  s = dj_mcap_find_metadata(d->mcap, DJ__META_END, &m);
  if (s == DJ_E_NOT_FOUND) return DJ_OK; // a rescued log may have lost it
  if (s) return s;
  const char *skipped = dj_mcap_pair_value(m.pairs, m.n, "n_skipped");
  i->n_skipped = skipped ? strtoull(skipped, NULL, 10) : 0;
  return DJ_OK;
}

static dj_status take_calibration(dj_camera *c, const Foxglove__CameraCalibration *k) {
  if (k->width > 65535 || k->height > 65535)
    return dj_error(DJ_E_FORMAT, "camera %s: %" PRIu32 " x %" PRIu32 " pixels", c->name, k->width,
                    k->height);
  if (k->n_k != 9 || k->n_d > 8)
    return dj_error(DJ_E_FORMAT, "camera %s: K has %zu numbers, D %zu; 9 and at most 8 are read",
                    c->name, k->n_k, k->n_d);
  c->width = (int)k->width;
  c->height = (int)k->height;
  memcpy(c->K, k->k, sizeof c->K);
  c->n_distortion = (int)k->n_d;
  if (k->n_d) memcpy(c->D, k->d, k->n_d * sizeof *c->D);
  if (!copy_text(c->distortion_model, sizeof c->distortion_model, k->distortion_model))
    return dj_error(DJ_E_FORMAT, "camera %s: name of the distortion model is too long", c->name);
  return DJ_OK;
}

static dj_status read_calibration(dj_drive *d, dj_camera *c) {
  char topic[DJ_NAME_BYTES + 32];
  (void)snprintf(topic, sizeof topic, "/camera/%s/calibration", c->name);
  const dj_mcap_channel *channel;
  const dj_mcap_entry *e;
  size_t n;
  DJ_TRY(find_channel(d, topic, "foxglove.CameraCalibration", &channel, &e, &n));
  if (!n) return dj_error(DJ_E_FORMAT, "camera %s has no calibration on %s", c->name, topic);
  ProtobufCMessage *m;
  DJ_TRY(unpack(d, &e[0], &foxglove__camera_calibration__descriptor, &m));
  dj_status s = take_calibration(c, (const Foxglove__CameraCalibration *)m);
  drop(m);
  return s;
}

// The camera that a transform mounts; -1: the vehicle in the world, or what others wrote.
static int mounted_camera(const dj_drive_info *info, const Foxglove__FrameTransform *tf) {
  if (strcmp(tf->parent_frame_id, "vehicle") != 0) return -1;
  if (strncmp(tf->child_frame_id, "camera/", 7) != 0) return -1;
  for (int k = 0; k < info->n_cameras; k++)
    if (!strcmp(tf->child_frame_id + 7, info->cameras[k].name)) return k;
  return -1;
}

// Mountings lie at the log's beginning; the vehicle's transforms, which follow, are as many as its
// poses and are not read.
static dj_status read_mountings(dj_drive *d) {
  const dj_mcap_channel *channel;
  const dj_mcap_entry *e;
  size_t n;
  bool mounted[DJ_MAX_CAMERAS] = {false};
  int left = d->info.n_cameras;
  DJ_TRY(find_channel(d, DJ__TOPIC_TF, "foxglove.FrameTransform", &channel, &e, &n));
  for (size_t i = 0; i < n && left > 0; i++) {
    ProtobufCMessage *m;
    DJ_TRY(unpack(d, &e[i], &foxglove__frame_transform__descriptor, &m));
    const Foxglove__FrameTransform *tf = (const Foxglove__FrameTransform *)m;
    int k = mounted_camera(&d->info, tf);
    if (k >= 0 && !mounted[k]) {
      get_vector(tf->translation, d->info.cameras[k].position);
      get_quaternion(tf->rotation, d->info.cameras[k].rotation);
      mounted[k] = true;
      left--;
    }
    drop(m);
  }
  return DJ_OK;
}

static void widen(dj_drive *d, const dj_mcap_entry *e, size_t n) {
  if (!n) return;
  if (e[0].log_time < d->info.start_ns) d->info.start_ns = e[0].log_time;
  if (e[n - 1].log_time > d->info.end_ns) d->info.end_ns = e[n - 1].log_time;
}

static dj_status open_camera(dj_drive *d, int i) {
  dj_camera *info = &d->info.cameras[i];
  camera *c = &d->cameras[i];
  c->drive = d;
  DJ_TRY(read_calibration(d, info));
  char topic[DJ_NAME_BYTES + 32];
  (void)snprintf(topic, sizeof topic, "/camera/%s/image", info->name);
  DJ_TRY(find_channel(d, topic, "foxglove.CompressedImage", &c->channel, &c->entries, &c->n));
  if (!c->channel) {
    (void)snprintf(topic, sizeof topic, "/camera/%s/video", info->name);
    DJ_TRY(find_channel(d, topic, "foxglove.CompressedVideo", &c->channel, &c->entries, &c->n));
    c->video = c->channel != NULL;
  }
  c->times = malloc((c->n + 1) * sizeof *c->times);
  if (!c->times) return dj_error(DJ_E_NOMEM, "no memory for %zu frame times", c->n);
  for (size_t k = 0; k < c->n; k++) c->times[k] = c->entries[k].log_time;
  widen(d, c->entries, c->n);
  return DJ_OK;
}

static dj_status note_label(dj_drive *d, const char *topic, const char *schema, uint32_t label,
                            size_t at_least) {
  const dj_mcap_channel *channel;
  const dj_mcap_entry *e;
  size_t n;
  DJ_TRY(find_channel(d, topic, schema, &channel, &e, &n));
  widen(d, e, n);
  if (n >= at_least) d->info.labels |= label;
  return DJ_OK;
}

static dj_status open_all(dj_drive *d) {
  DJ_TRY(dj_mcap_open(d->path, NULL, &d->mcap));
  DJ_TRY(read_metadata(d));
  d->info.start_ns = UINT64_MAX;
  for (int i = 0; i < d->info.n_cameras; i++) DJ_TRY(open_camera(d, i));
  DJ_TRY(read_mountings(d));
  for (int i = 0; i < d->info.n_cameras; i++)
    DJ_TRY(dj__check_camera(DJ_E_FORMAT, &d->info.cameras[i]));
  DJ_TRY(note_label(d, DJ__TOPIC_CONTROL, "dojo.VehicleControl", DJ_LABEL_CONTROL, 1));
  DJ_TRY(note_label(d, DJ__TOPIC_SPEED, "dojo.VehicleSpeed", DJ_LABEL_SPEED, 1));
  DJ_TRY(note_label(d, DJ__TOPIC_POSE, "foxglove.PoseInFrame", DJ_LABEL_PATH, 2));
  for (int i = 0; i < DJ__N_LABEL_CHANNELS; i++) {
    const dj__label_topic *t = &dj__label_topics[i];
    if (t->bit) DJ_TRY(note_label(d, t->topic, t->schema, t->bit, 1));
  }
  if (d->info.start_ns == UINT64_MAX) d->info.start_ns = 0;
  return DJ_OK;
}

dj_status dj_drive_open(const char *path, dj_drive **out) {
  *out = NULL;
  dj_drive *d = calloc(1, sizeof *d);
  char *copy = strdup(path);
  if (!d || !copy) {
    free(d);
    free(copy);
    return dj_error(DJ_E_NOMEM, "%s: no memory to open a drive", path);
  }
  d->path = copy;
  dj_status s = open_all(d);
  if (s) {
    dj_drive_close(d);
    return dj_error_context(s, "%s", path);
  }
  *out = d;
  return DJ_OK;
}

void dj_drive_close(dj_drive *d) {
  if (!d) return;
  for (int i = 0; i < DJ_MAX_CAMERAS; i++) {
    dj__video_decoder_close(d->cameras[i].decoder);
    drop(d->cameras[i].unit);
    free(d->cameras[i].times);
    for (int k = 0; k < DJ_N_LAYERS; k++) dj__label_reader_free(&d->layers[i][k]);
  }
  for (int i = 0; i < DJ__N_LABEL_CHANNELS; i++) dj__label_reader_free(&d->labels[i]);
  dj_mcap_close(d->mcap);
  free(d->controls);
  free(d->speeds);
  free(d->poses);
  free(d->path);
  free(d);
}

const dj_drive_info *dj_drive_get_info(const dj_drive *d) {
  return &d->info;
}

// ---- frames
// --------------------------------------------------------------------------------------

static dj_status get_camera(dj_drive *d, int i, camera **c) {
  *c = &d->cameras[0];
  if (i < 0 || i >= d->info.n_cameras)
    return dj_error(DJ_E_INVALID, "%s: camera %d of %d", d->path, i, d->info.n_cameras);
  *c = &d->cameras[i];
  return DJ_OK;
}

dj_status dj_drive_frame_times(dj_drive *d, int i, const uint64_t **t_ns, size_t *n) {
  camera *c;
  DJ_TRY(get_camera(d, i, &c));
  *t_ns = c->times;
  *n = c->n;
  return DJ_OK;
}

static dj_status read_image(dj_drive *d, camera *c, const dj_camera *info, size_t index,
                            uint8_t *rgb) {
  ProtobufCMessage *m;
  DJ_TRY(unpack(d, &c->entries[index], &foxglove__compressed_image__descriptor, &m));
  const Foxglove__CompressedImage *image = (const Foxglove__CompressedImage *)m;
  dj_status s =
      dj__image_decode_into(image->data.data, image->data.len, info->width, info->height, rgb);
  drop(m);
  return s;
}

static dj_status read_unit(void *user, size_t index, const uint8_t **data, size_t *size) {
  camera *c = user;
  ProtobufCMessage *m;
  DJ_TRY(unpack(c->drive, &c->entries[index], &foxglove__compressed_video__descriptor, &m));
  drop(c->unit);
  c->unit = (Foxglove__CompressedVideo *)m;
  *data = c->unit->data.data;
  *size = c->unit->data.len;
  return DJ_OK;
}

static dj_status read_video(dj_drive *d, camera *c, const dj_camera *info, size_t index,
                            uint8_t *rgb) {
  (void)d;
  if (!c->decoder) {
    const uint8_t *data;
    size_t size;
    DJ_TRY(read_unit(c, 0, &data, &size));
    dj__codec codec = dj__codec_by_name(c->unit->format);
    if (!codec) return dj_error(DJ_E_UNSUPPORTED, "video format '%.32s'", c->unit->format);
    DJ_TRY(dj__video_decoder_open(codec, c->n, read_unit, c, &c->decoder));
  }
  return dj__video_decode(c->decoder, index, info->width, info->height, rgb);
}

dj_status dj_drive_read_frame(dj_drive *d, int i, size_t index, uint8_t *rgb) {
  camera *c;
  DJ_TRY(get_camera(d, i, &c));
  const dj_camera *info = &d->info.cameras[i];
  if (index >= c->n)
    return dj_error(DJ_E_INVALID, "%s: frame %zu of camera %s, which has %zu", d->path, index,
                    info->name, c->n);
  dj_status s = c->video ? read_video(d, c, info, index, rgb) : read_image(d, c, info, index, rgb);
  if (s)
    return dj_error_context(s, "%s: camera %s, frame %zu at %.3f s", d->path, info->name, index,
                            seconds(c->times[index]));
  return DJ_OK;
}

// ---- small channels
// ------------------------------------------------------------------------------

static dj_status take_control(void *out, uint64_t t, const ProtobufCMessage *m) {
  const Dojo__VehicleControl *v = (const Dojo__VehicleControl *)m;
  dj_control *c = out;
  *c = (dj_control){t, v->steering, v->throttle, v->brake, v->steering_angle};
  return dj__check_control(DJ_E_FORMAT, c);
}

static dj_status take_speed(void *out, uint64_t t, const ProtobufCMessage *m) {
  dj_speed *s = out;
  *s = (dj_speed){t, ((const Dojo__VehicleSpeed *)m)->speed};
  return dj__check_speed(DJ_E_FORMAT, s);
}

static dj_status take_pose(void *out, uint64_t t, const ProtobufCMessage *m) {
  const Foxglove__PoseInFrame *v = (const Foxglove__PoseInFrame *)m;
  dj_pose *p = out;
  if (!v->pose) return dj_error(DJ_E_FORMAT, "pose message without a pose");
  *p = (dj_pose){.t_ns = t};
  get_vector(v->pose->position, p->position);
  get_quaternion(v->pose->orientation, p->rotation);
  return dj__check_pose(DJ_E_FORMAT, p);
}

// All messages of a channel into a malloc'ed array of `size`-byte items.
static dj_status load(dj_drive *d, const char *topic, const char *schema,
                      const ProtobufCMessageDescriptor *type, size_t size,
                      dj_status (*take)(void *, uint64_t, const ProtobufCMessage *), void *array,
                      size_t *count) {
  const dj_mcap_channel *channel;
  const dj_mcap_entry *e;
  size_t n;
  DJ_TRY(find_channel(d, topic, schema, &channel, &e, &n));
  char *items = calloc(n + 1, size);
  if (!items)
    return dj_error(DJ_E_NOMEM, "%s: no memory for %zu messages of %s", d->path, n, topic);
  for (size_t i = 0; i < n; i++) {
    ProtobufCMessage *m = NULL;
    dj_status s = unpack(d, &e[i], type, &m);
    if (!s) s = take(items + i * size, e[i].log_time, m);
    drop(m);
    if (s) {
      free(items);
      return dj_error_context(s, "%s: %s, message %zu at %.3f s", d->path, topic, i,
                              seconds(e[i].log_time));
    }
  }
  memcpy(array, &items, sizeof items);
  *count = n;
  return DJ_OK;
}

dj_status dj_drive_controls(dj_drive *d, const dj_control **c, size_t *n) {
  if (!d->have_controls)
    DJ_TRY(load(d, DJ__TOPIC_CONTROL, "dojo.VehicleControl", &dojo__vehicle_control__descriptor,
                sizeof **c, take_control, &d->controls, &d->n_controls));
  d->have_controls = true;
  *c = d->controls;
  *n = d->n_controls;
  return DJ_OK;
}

dj_status dj_drive_speeds(dj_drive *d, const dj_speed **s, size_t *n) {
  if (!d->have_speeds)
    DJ_TRY(load(d, DJ__TOPIC_SPEED, "dojo.VehicleSpeed", &dojo__vehicle_speed__descriptor,
                sizeof **s, take_speed, &d->speeds, &d->n_speeds));
  d->have_speeds = true;
  *s = d->speeds;
  *n = d->n_speeds;
  return DJ_OK;
}

dj_status dj_drive_poses(dj_drive *d, const dj_pose **p, size_t *n) {
  if (!d->have_poses)
    DJ_TRY(load(d, DJ__TOPIC_POSE, "foxglove.PoseInFrame", &foxglove__pose_in_frame__descriptor,
                sizeof **p, take_pose, &d->poses, &d->n_poses));
  d->have_poses = true;
  *p = d->poses;
  *n = d->n_poses;
  return DJ_OK;
}
