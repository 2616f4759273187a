/* What the files of the renderer share: render.c (life, frames), draw.c (GL calls), scene.c (light,
 * motion), readback.c (pixels to pictures), lens.c (projection and distortion). */
#ifndef DOJO_WORLD_RENDER_INTERNAL_H
#define DOJO_WORLD_RENDER_INTERNAL_H

#include "world/gl.h"
#include "world/mesh.h"
#include "world/render.h"

/* ---- light: linear, after exposure ---- */
typedef struct dj__sky {
  float sun[3], sun_colour[3];     /* direction to it (or to the moon), light of it */
  float sky[3], ground[3];         /* light from above and below */
  float zenith[3], fog[3];         /* colours of the sky above and at the horizon */
  float glow[3];                   /* round the sun */
  float cloud[2], cloud_colour[3]; /* threshold, steepness */
  float density, haze;             /* of fog: 1/m; how much it hides the sky */
  float wet, night, lamp;          /* 0..1; lamp: light of street lamps */
  float shadow;                    /* how dark the sun's shadows are, 0: none */
} dj__sky;
void dj__sky_of(const dj__weather *w, float exposure_stops, dj__sky *k);
/* The scene dt s later or earlier, everything moving on at its speed. */
void dj__scene_at(const dj__scene *s, double dt, dj__scene *out);

/* ---- views: pinhole cameras ---- */
typedef struct dj__pose3 {
  double p[3], R[9]; /* optical frame: rows of R are its axes in the world */
} dj__pose3;
typedef struct dj__view {
  dj__pose3 pose, next;
  double fx, fy, cx, cy; /* pixels, centre of the first pixel at 0 */
  int w, h;
  int x, y, vw, vh; /* in the atlas */
  float exposure;   /* stops */
} dj__view;
/* Pose of a camera on the scene's vehicle. */
void dj__camera_pose(const dj__scene *s, const dj_camera *c, dj__pose3 *p);
bool dj__camera_is_pinhole(const dj_camera *c);
/* Distorts a point (x / z, y / z) of the optical frame to pixels. */
void dj__camera_distort(const dj_camera *c, double x, double y, double *u, double *v);
/* The other way round, by Newton's method; false where no ray meets the pixel. */
bool dj__camera_undistort(const dj_camera *c, double u, double v, double *x, double *y);
/* The pinhole that holds everything a camera sees. Errors: DJ_E_UNSUPPORTED over 150 degrees. */
dj_status dj__camera_source(const dj_camera *c, dj__view *v);

/* ---- renderer ---- */
enum { DJ__RING = 3, DJ__VIEWS = DJ__RIG_CAMERAS };

enum { /* programs' variants */
       DJ__P_ACTOR = 1,
       DJ__P_HOLES = 2,
       DJ__P_SHADOW = 4,
       DJ__P_NIGHT = 8,
       DJ__P_LABELS = 16,
       DJ__P_FLOW = 32,
       DJ__P_VARIANTS = 64
};
typedef enum dj__program_kind {
  DJ__PROGRAM_SCENE,
  DJ__PROGRAM_SKY,
  DJ__PROGRAM_DEPTH,
  DJ__PROGRAM_GLOW,
  DJ__N_PROGRAMS
} dj__program_kind;
enum { DJ__N_UNIFORMS = 34 };
typedef struct dj__program {
  GLuint id;
  GLint at[DJ__N_UNIFORMS];
} dj__program;

typedef struct dj__range {
  int first, count; /* indices */
} dj__range;
typedef struct dj__block { /* a chunk on the GPU */
  float low[3], high[3];
  dj__range list[DJ__N_LISTS];
} dj__block;

typedef struct dj__warp { /* a distorted camera's pixels in its source view */
  dj_camera camera;
  float *at; /* (height, width, 2) pixels of the source, NaN: outside */
} dj__warp;

typedef struct dj__slot {             /* a frame under way */
  GLuint frame, colour, label, depth; /* framebuffer, renderbuffers */
  GLuint pack[2];                     /* pixel buffers for reading back */
  int width, height, flow;            /* allocated */
  int used_w, used_h;
  int n_view;
  dj__view view[DJ__VIEWS];
  dj__rig rig;
  double time;
  bool done;    /* pictures are made already (blur, rolling shutter) */
  uint8_t *out; /* pictures' memory */
  size_t out_size;
  dj__picture picture[DJ__VIEWS];
} dj__slot;

typedef struct dj__stream_vertex { /* of glows and shadows */
  float p[3];
  uint8_t c[4];
  float uv[2];
} dj__stream_vertex;

struct dj__renderer {
  dj__gl gl;
  dj__render_options options;
  int scale; /* samples a pixel and direction: 1 or 2 */
  float near, far;
  bool indoor, aerial; /* aerial: a view from above, with little haze */
  dj__program program[DJ__N_PROGRAMS][DJ__P_VARIANTS];
  GLuint textures, static_vertices, static_array, actor_vertices, actor_indices, actor_array,
      instances, stream_indices, sky_vertices, sky_indices, sky_array, stream_vertices,
      stream_array;
  int sky_count;
  uint32_t *index; /* all indices of the static world */
  int n_index;
  dj__block *block;
  int n_block;
  double origin[3];
  dj__lens *lens;
  dj__lamp *lamp;
  int n_lens, n_lamp;
  const dj__map *map;
  dj__model model[DJ__MODELS]; /* vertices freed; sizes stay */
  dj__range model_range[DJ__MODELS][DJ__ACTOR_LODS];
  struct {
    GLuint frame, texture;
    int cell[2];
    float sun[3];
    bool valid;
    float matrix[16]; /* world relative to `centre` to texture */
    double centre[3];
  } shadow;
  dj__slot slot[DJ__RING];
  int first, n_slot; /* under way, oldest first */
  dj__warp warp[DJ__VIEWS];
  /* scratch, grown once */
  uint32_t *gather;
  int cap_gather;
  float *instance_data;
  uint8_t *pixels;
  size_t pixels_size;
  dj__stream_vertex *stream;
  int n_stream, cap_stream;
  bool failed;
  dj__scene scratch[2];
};

/* draw.c */
dj_status dj__draw_setup(dj__renderer *r, const dj__world_mesh *w);
void dj__draw_teardown(dj__renderer *r);
/* Draws a view of a scene into the bound framebuffer. */
dj_status dj__draw_view(dj__renderer *r, const dj__scene *s, const dj__scene *next,
                        const dj__view *v, bool labels);
dj_status dj__draw_shadow_map(dj__renderer *r, const dj__scene *s);
/* The program of a variant, compiled when first used. */
dj_status dj__draw_program(dj__renderer *r, dj__program_kind kind, int variant, dj__program **out);
/* Uploads r->gather[0..n). */
void dj__draw_indices(dj__renderer *r, int n);
dj_status dj__draw_reserve(dj__renderer *r, int n); /* room in r->gather */
/* effects.c: fills r->stream with soft quads; ranges: shadows, glows, rain */
void dj__effects(dj__renderer *r, const dj__scene *s, const dj__view *v, const dj__sky *k,
                 dj__range range[3]);

/* readback.c */
/* Reads a slot's framebuffer and makes its pictures. */
dj_status dj__read_slot(dj__renderer *r, dj__slot *s);
/* Memory for the pictures of a slot's rig. */
dj_status dj__slot_pictures(dj__renderer *r, dj__slot *s);
void dj__add_noise(uint8_t *rgb, int n, float sigma, uint64_t key, uint64_t frame);

/* uniforms, in the order of dj__program.at */
typedef enum dj__uniform {
  DJ__U_CLIP,
  DJ__U_NEXT_CLIP,
  DJ__U_SUN,
  DJ__U_FOG,
  DJ__U_ZENITH,
  DJ__U_SUN_COLOUR,
  DJ__U_SKY,
  DJ__U_GROUND,
  DJ__U_LAMP,
  DJ__U_AIR,
  DJ__U_OFFSET,
  DJ__U_NEXT_OFFSET,
  DJ__U_SHADOW_FROM,
  DJ__U_AXLE,
  DJ__U_JOINT,
  DJ__U_HEAD,
  DJ__U_PIXEL,
  DJ__U_TEX,
  DJ__U_WINDOW,
  DJ__U_SHADOW,
  DJ__U_BEAM,
  DJ__U_GLOW,
  DJ__U_CLOUD,
  DJ__U_CLOUD_COLOUR,
  DJ__U_HAZE,
  DJ__N_UNIFORM
} dj__uniform;

#endif
