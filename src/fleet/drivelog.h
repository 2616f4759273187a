/* Shared by the writer and the reader of drive logs: names of channels and schemas, value checks.
 */
#ifndef DOJO_FLEET_DRIVELOG_H
#define DOJO_FLEET_DRIVELOG_H

#include <protobuf-c/protobuf-c.h>

#include "dojo/drivelog.h"
#include "dojo/mcap.h"

#define DJ__TOPIC_TF      "/tf"
#define DJ__TOPIC_POSE    "/pose"
#define DJ__TOPIC_CONTROL "/vehicle/control"
#define DJ__TOPIC_SPEED   "/vehicle/speed"
#define DJ__META_DRIVE                                                                             \
  "dojo.drive" /* written first: name, format, source_digest, source, cameras */
#define DJ__META_END "dojo.drive.end" /* written last: n_skipped */

/* Label channels of the world's drives. */
typedef enum dj__label_channel {
  DJ__LABEL_PATH,
  DJ__LABEL_LANES,
  DJ__LABEL_AGENTS,
  DJ__LABEL_OCCUPANCY,
  DJ__LABEL_LIGHT,
  DJ__LABEL_ROUTE,
  DJ__LABEL_EVENTS,
  DJ__LABEL_TEXT,
  DJ__LABEL_SCENE,
  DJ__N_LABEL_CHANNELS
} dj__label_channel;
typedef struct dj__label_topic {
  const char *topic, *schema;
  uint32_t bit; /* dj_label that a message of it means, 0: none */
} dj__label_topic;
extern const dj__label_topic dj__label_topics[DJ__N_LABEL_CHANNELS];

/* [a-z0-9_-]+, shorter than DJ_NAME_BYTES (store.c). */
bool dj__drive_name_ok(const char *name);

/* Values in range? Errors are `status` and name the quantity and its value. */
dj_status dj__check_camera(dj_status status, const dj_camera *c);
dj_status dj__check_control(dj_status status, const dj_control *c);
dj_status dj__check_speed(dj_status status, const dj_speed *s);
dj_status dj__check_pose(dj_status status, const dj_pose *p);
dj_status dj__check_path(dj_status status, const dj_path *p);
dj_status dj__check_lanes(dj_status status, const dj_lanes *l);
dj_status dj__check_agents(dj_status status, const dj_agents *a);
dj_status dj__check_occupancy(dj_status status, const dj_occupancy *o); /* all but the cells */
dj_status dj__check_light(dj_status status, const dj_light *l);
dj_status dj__check_route(dj_status status, const dj_route *r);
dj_status dj__check_events(dj_status status, const dj_events *e);
dj_status dj__check_text(dj_status status, const dj_text *t);

/* ---- the writer's and the reader's parts that drivelog_labels_*.c builds on ---- */
/* Writes a message on a label's channel, or a layer's. */
dj_status dj__drive_put_label(dj_drive_writer *w, dj__label_channel c, uint64_t t_ns,
                              const ProtobufCMessage *m);
/* Copies all messages of another log as they are; nothing else may have been written. */
dj_status dj__drive_copy(dj_drive_writer *w, dj_mcap *from);
const char *dj__drive_writer_name(const dj_drive_writer *w);

typedef struct dj__label_reader { /* one channel's, or one layer's */
  bool known;                     /* entries and times are there */
  const dj_mcap_entry *entries;   /* (n), the log's */
  uint64_t *times;                /* (n) */
  size_t n;
  void *data[3]; /* arrays handed out last */
} dj__label_reader;
void dj__label_reader_free(dj__label_reader *r);
dj__label_reader *dj__drive_label(dj_drive *d, dj__label_channel c);
dj__label_reader *dj__drive_layer(dj_drive *d, int camera, dj_layer layer); /* valid indexes */
const char *dj__drive_path(const dj_drive *d);
/* A layer's message into (height, width) of f32, u8 or u32. */
dj_status dj__drive_read_layer(dj_drive *d, const dj_mcap_entry *e, dj_layer layer, int w, int h,
                               void *pixels);
dj_status dj__layer_decode(dj_layer layer, const void *data, size_t size, int w, int h,
                           void *pixels);
/* Entries of a topic, none where there is no such channel; another schema is an error. */
dj_status dj__drive_find(dj_drive *d, const char *topic, const char *schema,
                         const dj_mcap_entry **entries, size_t *n);
/* Reads and unpacks one message; free with protobuf_c_message_free_unpacked. */
dj_status dj__drive_unpack(dj_drive *d, const dj_mcap_entry *e,
                           const ProtobufCMessageDescriptor *type, ProtobufCMessage **out);

#endif
