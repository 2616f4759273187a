/* Shared by the writer and the reader of drive logs: names of channels and schemas, value checks.
 */
#ifndef DOJO_FLEET_DRIVELOG_H
#define DOJO_FLEET_DRIVELOG_H

#include "dojo/drivelog.h"

#define DJ__TOPIC_TF      "/tf"
#define DJ__TOPIC_POSE    "/pose"
#define DJ__TOPIC_CONTROL "/vehicle/control"
#define DJ__TOPIC_SPEED   "/vehicle/speed"
#define DJ__META_DRIVE                                                                             \
  "dojo.drive" /* written first: name, format, source_digest, source, cameras */
#define DJ__META_END "dojo.drive.end" /* written last: n_skipped */

/* [a-z0-9_-]+, shorter than DJ_NAME_BYTES (store.c). */
bool dj__drive_name_ok(const char *name);

/* Values in range? Errors are `status` and name the quantity and its value. */
dj_status dj__check_camera(dj_status status, const dj_camera *c);
dj_status dj__check_control(dj_status status, const dj_control *c);
dj_status dj__check_speed(dj_status status, const dj_speed *s);
dj_status dj__check_pose(dj_status status, const dj_pose *p);

#endif
