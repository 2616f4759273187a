/*
 * Pictures of a world: rigs of cameras, drawn through EGL and OpenGL ES 3 without a display.
 * Colour, depth, semantic classes, instances and optical flow come from the same pass.
 *
 *     dj__rig rig;
 *     DJ_TRY(dj__rig_find("ring6", &rig));                  // preset or a YAML file
 *     DJ_TRY(dj__renderer_create(map, &(dj__render_options){0}, &r));
 *     dj__scene_of(world, &scene);                          // what is to be seen now
 *     DJ_TRY(dj__render(r, &scene, &rig, &pictures));       // all cameras in one submission
 *
 * A renderer belongs to the thread that made it. It keeps its own copy of what it needs of the map
 * (roads, markings, signs, buildings, trees: a function of map and seed) on the GPU.
 */
#ifndef DOJO_WORLD_RENDER_H
#define DOJO_WORLD_RENDER_H

#include "dojo/drivelog.h"
#include "world/world.h"

/* ---- rigs ---- */
enum { DJ__RIG_CAMERAS = 8 };
typedef struct dj__rig_camera {
  dj_camera camera; /* name, size, K, D ("plumb_bob" or "kannala_brandt"), mounting on the vehicle;
                       vehicle frame: ISO 8855 on the ground under the middle of the rear axle */
  /* optional effects, 0: off */
  float noise;           /* standard deviation of the sensor, share of full scale */
  float motion_blur;     /* s of exposure */
  float rolling_shutter; /* s from the first to the last row */
  float exposure;        /* stops, on top of automatic exposure */
} dj__rig_camera;
typedef struct dj__rig {
  char name[64];
  double rate; /* Hz */
  int n_camera;
  dj__rig_camera camera[DJ__RIG_CAMERAS];
} dj__rig;
/* Presets: "mono" (one front camera 256x128), "wide" (the same, 100 degrees across), "donkeycar"
 * (160x120), "openpilot" (wide and narrow),
 * "three", "ring6" (nuScenes-like). Anything with a '/' or ending in .yaml is a file. */
dj_status dj__rig_find(const char *name_or_path, dj__rig *rig);
dj_status dj__rig_read(const char *path, dj__rig *rig); /* errors with file and line */
/* `file` stands for the text in messages. */
dj_status dj__rig_parse(const char *text, size_t size, const char *file, dj__rig *rig);
const char *const *dj__rig_names(int *n);

/* ---- a scene: what is drawn, a copy of what cameras need of the world's state ---- */
typedef struct dj__actor {
  uint32_t id;
  uint8_t kind, flags, lamps, variant; /* as in dj__agents */
  double x, y;
  float z, yaw, pitch, roll, length, width, height, speed, steer;
} dj__actor;
enum { DJ__SCENE_ACTORS = 1024 };
typedef struct dj__scene {
  double time; /* s: lights, indicators, walking, rain */
  double x, y; /* the rig's vehicle: the middle of its rear axle on the ground */
  float z, yaw, pitch, roll, yaw_rate, speed;
  uint32_t ego_id; /* actor that is not drawn: the rig sits on it */
  dj__weather weather;
  int n_actor;
  dj__actor actor[DJ__SCENE_ACTORS];
} dj__scene;
/* Live agents within `reach` m of the ego (0: 250), the ego first. */
void dj__scene_of(const dj__world *w, double reach, dj__scene *s);

/* Semantic classes (after Cityscapes' names). */
typedef enum dj__class {
  DJ__CLASS_SKY,
  DJ__CLASS_ROAD,
  DJ__CLASS_MARKING,
  DJ__CLASS_SIDEWALK,
  DJ__CLASS_TERRAIN,
  DJ__CLASS_BUILDING,
  DJ__CLASS_VEGETATION,
  DJ__CLASS_POLE,
  DJ__CLASS_SIGN,
  DJ__CLASS_LIGHT,
  DJ__CLASS_CAR,
  DJ__CLASS_TRUCK, /* vans and lorries */
  DJ__CLASS_BUS,
  DJ__CLASS_TWO_WHEELER, /* motorcycle or bicycle */
  DJ__CLASS_PERSON,
  DJ__CLASS_BARRIER, /* walls, barriers, cones */
  DJ__CLASS_WATER,
  DJ__N_CLASSES
} dj__class;
const char *dj__class_name(dj__class c);

typedef enum dj__layer {                         /* what to read back besides colour */
                         DJ__LAYER_DEPTH = 1,    /* f32 m along the optical axis, +inf: sky */
                         DJ__LAYER_SEMANTIC = 2, /* u8 dj__class */
                         DJ__LAYER_INSTANCE = 4, /* u32 actor id, 0: none */
                         DJ__LAYER_FLOW = 8 /* f32 x 2, pixels from this picture to the next one
                                               shown by `next` */
} dj__layer;

typedef struct dj__picture { /* one camera's; arrays belong to the renderer until the next render */
  int width, height;
  const uint8_t *rgb; /* (height, width, 3) */
  const float *depth; /* (height, width); NULL where not asked for, as below */
  const uint8_t *semantic;
  const uint32_t *instance;
  const float *flow; /* (height, width, 2) */
} dj__picture;

typedef struct dj__render_options {
  uint32_t layers; /* dj__layer bits */
  int samples;     /* of antialiasing: 0 the default (4), 1 none */
  bool no_shadows;
  uint64_t seed; /* of scenery; 0: the map's */
  double view;   /* m of sight, 0: 600 */
} dj__render_options;

typedef struct dj__renderer dj__renderer;
/* Errors: DJ_E_UNSUPPORTED (no EGL or OpenGL ES 3: says which package is missing), DJ_E_NOMEM. */
dj_status dj__renderer_create(const dj__map *m, const dj__render_options *o, dj__renderer **r);
void dj__renderer_destroy(dj__renderer *r);
const char *dj__renderer_name(const dj__renderer *r); /* GL_RENDERER */
/* Draws all cameras of the rig. `next`: the scene one frame later, for flow; NULL: no flow. */
dj_status dj__render(dj__renderer *r, const dj__scene *s, const dj__scene *next, const dj__rig *rig,
                     dj__picture *out);
/* Any pinhole view instead of a rig's: position, and rotation optical frame to world (quaternion x
 * y z w). For pictures of towns. */
dj_status dj__render_view(dj__renderer *r, const dj__scene *s, const double position[3],
                          const double rotation[4], double fov_y, int width, int height,
                          dj__picture *out);
/* The whole map from above and the south, as large as it fits. `weather` NULL: clear. */
dj_status dj__render_above(dj__renderer *r, const dj__weather *weather, int width, int height,
                           dj__picture *out);
/* Starts reading the pictures back but does not wait: dj__render_begin then dj__render_end lets the
 * caller simulate and encode meanwhile. dj__render is both. */
dj_status dj__render_begin(dj__renderer *r, const dj__scene *s, const dj__scene *next,
                           const dj__rig *rig);
dj_status dj__render_end(dj__renderer *r, dj__picture *out);

/* ---- pictures for people ---- */
/* Writes a picture's colours, atomically. Errors: DJ_E_IO, DJ_E_NOMEM, DJ_E_NO_SPACE. */
dj_status dj__picture_write_png(const dj__picture *p, const char *path);
/* Colours of a layer for looking at: depth from near (bright) to far, classes in Cityscapes'
 * colours, instances in colours of their own, flow by direction and speed. rgb (height, width, 3).
 * Errors: DJ_E_INVALID if the picture has no such layer. `layer` 0: the colours themselves. */
dj_status dj__picture_colour(const dj__picture *p, uint32_t layer, uint8_t *rgb);
/* One PNG of several pictures: a row each, columns for colour and every layer in `layers` that it
 * has, 4 pixels apart. */
dj_status dj__pictures_write_png(const dj__picture *p, int n, uint32_t layers, const char *path);

#endif
