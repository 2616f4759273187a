/*
 * A drive: what one vehicle recorded in one go, stored as an MCAP log with foxglove.* messages.
 * Importers and the world write it; labels, shards and `dojo predict` read it. Nothing else in Dojo
 * needs to know MCAP or protobuf.
 *
 *     dj_drive *d;
 *     DJ_TRY(dj_drive_open("S/logs/tub-1.mcap", &d));
 *     const dj_drive_info *info = dj_drive_get_info(d);
 *     uint8_t *rgb = malloc((size_t)info->cameras[0].width * info->cameras[0].height * 3);
 *     DJ_TRY(dj_drive_read_frame(d, 0, 17, rgb));        // camera 0, frame 17
 *     dj_drive_close(d);
 *
 * Frames: vehicle frame is ISO 8855: x forward, y left, z up, metres; yaw and steering are positive
 * to the left. Camera frame is the optical one: x right, y down, z forward. Times are nanoseconds;
 * they never run backwards within a channel.
 *
 * Channels of a log (N is the camera's name):
 *   /camera/N/image        foxglove.CompressedImage     jpeg or png
 *   /camera/N/video        foxglove.CompressedVideo     h264 or h265, one access unit a message
 *   /camera/N/calibration  foxglove.CameraCalibration   once
 *   /tf                    foxglove.FrameTransform      "vehicle" -> "camera/N", once a camera;
 *                                                       "world" -> "vehicle" with each pose
 *   /pose                  foxglove.PoseInFrame         vehicle in "world"
 *   /vehicle/control       dojo.VehicleControl          steering, throttle, brake
 *   /vehicle/speed         dojo.VehicleSpeed            m/s
 * A drive of the world has these besides; their messages lie at the frames' times:
 *   /camera/N/depth        foxglove.CompressedImage     png, 16 bit: cm along the optical axis
 *   /camera/N/semantic     foxglove.CompressedImage     png, 8 bit: class
 *   /camera/N/instance     foxglove.CompressedImage     png, RGB: id = R + 256 G + 65536 B
 *   /label/path            dojo.EgoPath                 where the vehicle really went
 *   /label/lanes           dojo.Lanes                   lines and road edges
 *   /label/agents          dojo.Agents                  boxes with identity and velocity
 *   /label/occupancy       dojo.Occupancy               grids now and ahead, with flow
 *   /label/light           dojo.TrafficLight            the next one on the route
 *   /label/route           dojo.Route                   command and polyline
 *   /label/events          dojo.Events                  what others do wrong
 *   /label/text            dojo.SceneText               a sentence
 *   /label/scene           foxglove.SceneUpdate         boxes and lines to look at
 * The metadata record "dojo.drive" holds name, source format, source digest, and import options.
 */
#ifndef DOJO_DRIVELOG_H
#define DOJO_DRIVELOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dojo/status.h"

/* Labels a drive (or clip) can hold; a bit mask. Losses are masked by it. */
typedef enum dj_label {
  DJ_LABEL_CONTROL = 1 << 0, /* steering, throttle, brake */
  DJ_LABEL_SPEED = 1 << 1,   /* m/s */
  DJ_LABEL_PATH = 1 << 2,    /* future positions, from poses */
  DJ_LABEL_LANES = 1 << 3,
  DJ_LABEL_AGENTS = 1 << 4,
  DJ_LABEL_OCCUPANCY = 1 << 5, /* and flow */
  DJ_LABEL_LIGHTS = 1 << 6,
  DJ_LABEL_COMMAND = 1 << 7, /* route command and route */
  DJ_LABEL_EVENTS = 1 << 8,
  DJ_LABEL_TEXT = 1 << 9
} dj_label;
enum { DJ_N_LABELS = 10 };
/* Name of the label with bit 1 << i ("control", "speed", "path", "lanes", ...); NULL past the last.
 */
const char *dj_label_name(int i);
/* "control, path" from a mask, with any separator; "none" for 0. Returns `out`. */
const char *dj_label_list(uint32_t labels, const char *separator, char *out, size_t size);

enum { DJ_MAX_CAMERAS = 16, DJ_NAME_BYTES = 64 };

typedef struct dj_camera {
  char name[DJ_NAME_BYTES]; /* [a-z0-9_-]+ */
  int width, height;        /* pixels of the recorded frames */
  bool calibrated;          /* false: K, D, mounting are a guess from the image size */
  double K[9];              /* intrinsics, row-major 3x3, pixels */
  double D[8];              /* distortion coefficients */
  int n_distortion;
  char distortion_model[32]; /* "plumb_bob", "kannala_brandt", or "" */
  double position[3];        /* camera in the vehicle frame, m */
  double rotation[4];        /* unit quaternion x y z w: camera optical frame to vehicle frame */
} dj_camera;

typedef struct dj_drive_info {
  char name[DJ_NAME_BYTES]; /* unique in a store: [a-z0-9_-]+ */
  char format[32]; /* where it came from: donkeycar, udacity, kitti, comma2k19, video-csv, world */
  char source_digest[65]; /* sha256 (hex) over the source's files, for idempotent imports */
  char source[512];       /* where it was imported from, as given */
  int n_cameras;
  dj_camera cameras[DJ_MAX_CAMERAS];
  uint32_t labels;           /* dj_label bits; the reader fills it from the channels */
  uint64_t start_ns, end_ns; /* filled by the reader */
  uint64_t n_skipped;        /* records skipped on import under --keep-going */
} dj_drive_info;

/* Quantities of one instant. Unknown fields are NaN. */
typedef struct dj_control {
  uint64_t t_ns;
  double steering;       /* -1..1 of full lock, positive to the left */
  double throttle;       /* -1..1, negative is reverse */
  double brake;          /* 0..1 */
  double steering_angle; /* steering wheel or road wheel angle as recorded, rad, positive to the
                            left */
} dj_control;

typedef struct dj_speed {
  uint64_t t_ns;
  double speed; /* m/s, forward positive */
} dj_speed;

typedef struct dj_pose {
  uint64_t t_ns;
  double position[3]; /* vehicle in the world, m */
  double rotation[4]; /* unit quaternion x y z w: vehicle frame to world frame */
} dj_pose;

/* ---- labels of the world's drives: each of one moment, in the vehicle frame of that moment ----
 * Arrays are the caller's when writing; when reading they belong to the drive until the same label
 * is read again. Numbers are finite unless it says otherwise. */
enum {
  DJ_MAX_PATH = 1024,
  DJ_MAX_AGENTS = 4096,
  DJ_MAX_LINES = 4096,
  DJ_MAX_POINTS = 1 << 20, /* of all lines together; of a route */
  DJ_MAX_EVENTS = 1024,
  DJ_MAX_CELLS = 1 << 20, /* of one grid */
  DJ_MAX_TIMES = 16,
  DJ_MAX_TEXT = 1024 /* bytes with the NUL */
};

typedef struct dj_path_point {
  float t, x, y, z, yaw, speed; /* s from now, m, rad, m/s */
} dj_path_point;
typedef struct dj_path {
  uint64_t t_ns;
  int n; /* 1..DJ_MAX_PATH; t rises from 0 */
  const dj_path_point *points;
} dj_path;

typedef enum dj_agent_kind {
  DJ_AGENT_CAR,
  DJ_AGENT_VAN,
  DJ_AGENT_LORRY,
  DJ_AGENT_BUS,
  DJ_AGENT_MOTORCYCLE,
  DJ_AGENT_CYCLIST,
  DJ_AGENT_PEDESTRIAN,
  DJ_AGENT_CONE,
  DJ_AGENT_BARRIER,
  DJ_AGENT_RC_CAR,
  DJ_N_AGENT_KINDS
} dj_agent_kind;
typedef struct dj_agent {
  uint32_t id;
  dj_agent_kind kind;
  bool parked, fixed, crossing;
  float x, y, z, yaw;          /* m, rad: middle of the box on the ground */
  float length, width, height; /* m, above 0 */
  float vx, vy, yaw_rate;      /* over the ground, along the vehicle's axes: m/s, rad/s */
} dj_agent;
typedef struct dj_agents {
  uint64_t t_ns;
  int n;
  const dj_agent *agents; /* the vehicle itself is left out */
} dj_agents;

typedef enum dj_line_kind { DJ_LINE_MARKING, DJ_LINE_ROAD_EDGE, DJ_N_LINE_KINDS } dj_line_kind;
typedef enum dj_line_mark {
  DJ_MARK_NONE,
  DJ_MARK_SOLID,
  DJ_MARK_BROKEN,
  DJ_MARK_SOLID_SOLID,
  DJ_MARK_SOLID_BROKEN,
  DJ_MARK_BROKEN_SOLID,
  DJ_MARK_CURB,
  DJ_N_LINE_MARKS
} dj_line_mark;
typedef struct dj_line {
  dj_line_kind kind;
  dj_line_mark mark;
  bool yellow;
  int n;                   /* 2 or more */
  const float (*point)[3]; /* (n, 3) m */
} dj_line;
typedef struct dj_lanes {
  uint64_t t_ns;
  int n;
  const dj_line *lines;
} dj_lanes;

#define DJ_FLOW_UNKNOWN INT16_MIN
typedef struct dj_occupancy {
  uint64_t t_ns;
  float x0, y0, cell;        /* m: corner of cell (0, 0), behind and to the right; side of a cell */
  int nx, ny;                /* cells ahead, cells to the left */
  int n_times;               /* 1..DJ_MAX_TIMES */
  float times[DJ_MAX_TIMES]; /* s from now, rising from 0 */
  const uint8_t *occupied;   /* (n_times, nx, ny) u8, 0 or 1 */
  const int16_t *flow; /* (n_times - 1, nx, ny, 2) cm ahead and left until the next time; 0 where
                          free, both DJ_FLOW_UNKNOWN where what is there is gone by then */
} dj_occupancy;

typedef enum dj_light_state {
  DJ_LIGHT_NONE,
  DJ_LIGHT_RED,
  DJ_LIGHT_RED_YELLOW,
  DJ_LIGHT_GREEN,
  DJ_LIGHT_YELLOW,
  DJ_N_LIGHT_STATES
} dj_light_state;
typedef struct dj_light {
  uint64_t t_ns;
  dj_light_state state;
  float distance; /* m along the route from the vehicle's front to the stop line; NaN: no light */
  float x, y, z;  /* m, of the stop line */
} dj_light;

typedef enum dj_route_command {
  DJ_COMMAND_FOLLOW,
  DJ_COMMAND_LEFT,
  DJ_COMMAND_RIGHT,
  DJ_COMMAND_STRAIGHT,
  DJ_COMMAND_CHANGE_LEFT,
  DJ_COMMAND_CHANGE_RIGHT,
  DJ_N_ROUTE_COMMANDS
} dj_route_command;
typedef struct dj_route {
  uint64_t t_ns;
  dj_route_command command;
  int n;                   /* 0 where no way is known */
  const float (*point)[3]; /* (n, 3) m */
} dj_route;

typedef enum dj_event_kind {
  DJ_EVENT_CUT_IN,
  DJ_EVENT_HARD_BRAKE,
  DJ_EVENT_JAYWALKER,
  DJ_EVENT_WRONG_PARKING,
  DJ_EVENT_RED_RUNNER,
  DJ_EVENT_ONCOMING,
  DJ_EVENT_BLOCKED,
  DJ_EVENT_LIGHT_TURNS,
  DJ_N_EVENT_KINDS
} dj_event_kind;
typedef struct dj_event {
  dj_event_kind kind;
  uint32_t agent; /* id, 0: nobody */
  float age;      /* s since it began, 0 or more */
  float x, y, z;  /* m, where it began */
} dj_event;
typedef struct dj_events {
  uint64_t t_ns;
  int n;
  const dj_event *events;
} dj_events;

typedef struct dj_text {
  uint64_t t_ns;
  const char *text; /* UTF-8, one line, shorter than DJ_MAX_TEXT */
} dj_text;

typedef enum dj_layer { /* pictures beside a camera's */
                        DJ_LAYER_DEPTH,
                        DJ_LAYER_SEMANTIC,
                        DJ_LAYER_INSTANCE,
                        DJ_N_LAYERS
} dj_layer;
const char *dj_layer_name(int layer); /* "depth", ...; NULL past the last */

/* ---- writing ---- */
typedef struct dj_drive_writer dj_drive_writer;

/* Starts a log at `path` (written to a temporary name until close). `info`: name, format, digest,
 * source and cameras are used. Errors: DJ_E_INVALID (names), DJ_E_IO, DJ_E_NO_SPACE. */
dj_status dj_drive_writer_open(const char *path, const dj_drive_info *info, dj_drive_writer **w);
/* `format`: "jpeg" or "png"; the bytes are stored as they are. Times must not run backwards. */
dj_status dj_drive_write_image(dj_drive_writer *w, int camera, uint64_t t_ns, const char *format,
                               const void *data, size_t size);
/* `format`: "h264" or "h265", Annex B, one access unit a call in decode order without B-frame
 * delay. */
dj_status dj_drive_write_video(dj_drive_writer *w, int camera, uint64_t t_ns, const char *format,
                               const void *data, size_t size);
dj_status dj_drive_write_control(dj_drive_writer *w, const dj_control *c);
dj_status dj_drive_write_speed(dj_drive_writer *w, const dj_speed *s);
dj_status dj_drive_write_pose(dj_drive_writer *w, const dj_pose *p);
/* Labels. Errors: DJ_E_INVALID for what a reader would refuse, with the value. */
dj_status dj_drive_write_path(dj_drive_writer *w, const dj_path *p);
dj_status dj_drive_write_lanes(dj_drive_writer *w, const dj_lanes *l);
dj_status dj_drive_write_agents(dj_drive_writer *w, const dj_agents *a);
dj_status dj_drive_write_occupancy(dj_drive_writer *w, const dj_occupancy *o);
dj_status dj_drive_write_light(dj_drive_writer *w, const dj_light *l);
dj_status dj_drive_write_route(dj_drive_writer *w, const dj_route *r);
dj_status dj_drive_write_events(dj_drive_writer *w, const dj_events *e);
dj_status dj_drive_write_text(dj_drive_writer *w, const dj_text *t);
/* A picture to look at in Foxglove, of labels of one moment; any of them may be NULL. */
dj_status dj_drive_write_scene(dj_drive_writer *w, uint64_t t_ns, const dj_agents *a,
                               const dj_lanes *l, const dj_path *p, const dj_route *r);
/* A layer of a camera as a PNG file's bytes (dj_layer_encode makes it). */
dj_status dj_drive_write_layer(dj_drive_writer *w, int camera, dj_layer layer, uint64_t t_ns,
                               const void *data, size_t size);
/* PNG of (height, width): depth f32 m (stored in cm; what is not finite or beyond 655.34 m becomes
 * 0, which is read as +inf), semantic u8, instance u32 (below 2^24). *out is malloc'ed. */
dj_status dj_layer_encode(dj_layer layer, const void *pixels, int width, int height, uint8_t **out,
                          size_t *size);
/* Makes the log visible under its name, whole and synced; frees `w` in any case. */
dj_status dj_drive_writer_close(dj_drive_writer *w, uint64_t n_skipped);
void dj_drive_writer_abort(dj_drive_writer *w); /* frees, leaves nothing behind; NULL is fine */

/* ---- reading ---- */
typedef struct dj_drive dj_drive;

dj_status dj_drive_open(const char *path, dj_drive **d);
void dj_drive_close(dj_drive *d);
const dj_drive_info *dj_drive_get_info(const dj_drive *d);
/* Frame times of a camera in order. The array belongs to `d`. */
dj_status dj_drive_frame_times(dj_drive *d, int camera, const uint64_t **t_ns, size_t *n);
/* Decodes frame `index` into (height, width, 3) u8 RGB. Going forward by one is the fast path for
 * video; jumps decode from the key frame before. A broken frame is DJ_E_FORMAT naming log and time.
 */
dj_status dj_drive_read_frame(dj_drive *d, int camera, size_t index, uint8_t *rgb);
dj_status dj_drive_controls(dj_drive *d, const dj_control **c, size_t *n);
dj_status dj_drive_speeds(dj_drive *d, const dj_speed **s, size_t *n);
dj_status dj_drive_poses(dj_drive *d, const dj_pose **p, size_t *n);

/* Times of a label's messages in order: lanes, agents, occupancy, lights, command, events, text;
 * control, speed and path give those of controls, speeds and poses. n 0 where the log has none. The
 * array belongs to `d`. */
dj_status dj_drive_label_times(dj_drive *d, dj_label label, const uint64_t **t_ns, size_t *n);
dj_status dj_drive_ego_path_times(dj_drive *d, const uint64_t **t_ns, size_t *n); /* /label/path */
/* Message `index` of a label. Everything is checked: DJ_E_FORMAT names log, time and value. */
dj_status dj_drive_read_path(dj_drive *d, size_t index, dj_path *p);
dj_status dj_drive_read_lanes(dj_drive *d, size_t index, dj_lanes *l);
dj_status dj_drive_read_agents(dj_drive *d, size_t index, dj_agents *a);
dj_status dj_drive_read_occupancy(dj_drive *d, size_t index, dj_occupancy *o);
dj_status dj_drive_read_light(dj_drive *d, size_t index, dj_light *l);
dj_status dj_drive_read_route(dj_drive *d, size_t index, dj_route *r);
dj_status dj_drive_read_events(dj_drive *d, size_t index, dj_events *e);
dj_status dj_drive_read_text(dj_drive *d, size_t index, dj_text *t);
/* Layers: times, and the picture as dj_layer_encode took it, (height, width) of f32, u8 or u32. */
dj_status dj_drive_layer_times(dj_drive *d, int camera, dj_layer layer, const uint64_t **t_ns,
                               size_t *n);
dj_status dj_drive_read_layer(dj_drive *d, int camera, dj_layer layer, size_t index, void *pixels);

/* Decodes one JPEG or PNG image to (h, w, 3) u8 RGB (malloc'ed). At most `max_pixels` pixels. */
dj_status dj_image_decode(const void *data, size_t size, uint64_t max_pixels, uint8_t **rgb, int *w,
                          int *h);

#endif
