/*
 * Triangles of the world: vertices as the shaders read them, and lists that grow.
 *
 *     dj__mesh m = {0};
 *     dj__look(&m, DJ__TEX_BRICK, DJ__CLASS_BUILDING, 0xb06040);
 *     dj__mesh_box(&m, low, high, 3.0);
 *     if (m.failed) ...                       // out of memory is sticky
 *     dj__mesh_free(&m);
 */
#ifndef DOJO_WORLD_MESH_H
#define DOJO_WORLD_MESH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"
#include "world/map.h"
#include "world/render.h"

/* ---- textures: layers of one array (texture.c) ---- */
typedef enum dj__tex {
  DJ__TEX_PLAIN,
  DJ__TEX_ASPHALT,
  DJ__TEX_ASPHALT_OLD,
  DJ__TEX_PAVING,
  DJ__TEX_KERB,
  DJ__TEX_GRASS,
  DJ__TEX_FIELD,
  DJ__TEX_PAINT,
  DJ__TEX_BRICK,   /* 4 x 4 windows in brick; alpha: which are lit at night */
  DJ__TEX_PLASTER, /* 4 x 4 windows in plaster */
  DJ__TEX_OFFICE,  /* bands of glass */
  DJ__TEX_SHOP,    /* a ground floor of four shop windows */
  DJ__TEX_HOUSE,   /* 4 x 2 windows of a house */
  DJ__TEX_WALL,    /* plaster without windows */
  DJ__TEX_TILES,   /* roof */
  DJ__TEX_GRAVEL,  /* flat roof */
  DJ__TEX_BARK,
  DJ__TEX_LEAVES,  /* alpha: holes */
  DJ__TEX_CONIFER, /* alpha: holes */
  DJ__TEX_BUSH,    /* alpha: holes */
  DJ__TEX_WOOD,
  DJ__TEX_METAL,
  DJ__TEX_SIGNS, /* 4 x 4 signs, alpha: outside of them (dj__sign_cell) */
  DJ__TEX_HALL_FLOOR,
  DJ__TEX_HALL_WALL,
  DJ__TEX_CLOUDS,  /* alpha: cover */
  DJ__TEX_VEHICLE, /* grille, plates, tyre: dj__vehicle_cell */
  DJ__N_TEX
} dj__tex;
enum { DJ__TEX_SIZE = 256 };
/* All layers, (DJ__N_TEX, 256, 256, 4) u8, colour as square roots of linear light; malloc'ed.
 * `seed` varies details. */
dj_status dj__textures_make(uint64_t seed, uint8_t **rgba);
/* Cells of DJ__TEX_SIGNS */
typedef enum dj__sign_cell {
  DJ__SIGN_STOP,
  DJ__SIGN_GIVE_WAY,
  DJ__SIGN_PRIORITY,
  DJ__SIGN_CROSSING,
  DJ__SIGN_ROUNDABOUT,
  DJ__SIGN_BLANK,
  DJ__SIGN_LIMIT0, /* 10 limits from here: 20, 30, 40, 50, 60, 70, 80, 100, 120, 130 km/h */
  DJ__SIGN_CELLS = DJ__SIGN_LIMIT0 + 10
} dj__sign_cell;
extern const int dj__sign_limits[10]; /* km/h */

/* ---- vertices: 32 bytes ---- */
typedef struct dj__vertex {
  float p[3];
  int8_t n[4];  /* normal; [3] gloss 0..127: reflects the sky (asphalt: when wet, negative) */
  uint8_t c[4]; /* tint; [3] how much sky is seen from here, 255 all */
  float uv[2];
  uint8_t tex, cls;
  uint8_t lamp; /* lamp light at night; actors: the part (dj__part) */
  uint8_t glow; /* light of its own */
} dj__vertex;

typedef struct dj__mesh {
  dj__vertex *v;
  uint32_t *i;
  int n_v, n_i, cap_v, cap_i;
  bool failed;
  double origin[3]; /* taken off all positions */
  dj__vertex look;  /* what new vertices take on: tint, texture, class, ... */
} dj__mesh;

void dj__mesh_free(dj__mesh *m);
/* Sets tint (0xrrggbb, gamma), texture and class of what comes; the rest of the look to defaults.
 */
void dj__look(dj__mesh *m, dj__tex tex, dj__class cls, uint32_t rgb);
/* Returns the index of a new vertex. n: unit normal. */
uint32_t dj__mesh_vertex(dj__mesh *m, const double p[3], const double n[3], double u, double v);
void dj__mesh_triangle(dj__mesh *m, uint32_t a, uint32_t b, uint32_t c);
/* Corners counter-clockwise seen from outside; flat normal; uv of corners. */
void dj__mesh_quad(dj__mesh *m, const double p[4][3], const double uv[4][2]);
void dj__mesh_tri(dj__mesh *m, const double p[3][3], const double uv[3][2]);
/* A box turned by yaw about its middle (x, y): from z0 to z1, texture repeating every `repeat` m;
 * `bottom`: with its lower side. */
void dj__mesh_box(dj__mesh *m, double x, double y, double z0, double z1, double length,
                  double width, double yaw, double repeat, bool bottom);
/* A cylinder or cone between two heights, `sides` faces, with a lid. */
void dj__mesh_pole(dj__mesh *m, double x, double y, double z0, double z1, double r0, double r1,
                   int sides);
/* A beam from a to b with elliptic ends: half widths ra, rb across and `flat` times that in depth.
 */
void dj__mesh_beam(dj__mesh *m, const double a[3], const double b[3], double ra, double rb,
                   double flat, int sides);
/* A ball, stretched by `tall` in height. */
void dj__mesh_ball(dj__mesh *m, const double c[3], double r, double tall, int sides, int rings);
void dj__mesh_append(dj__mesh *m, const dj__mesh *other);

/* ---- chunks: the static world by squares ---- */
typedef enum dj__list {
  DJ__LIST_SOLID,      /* buildings, walls */
  DJ__LIST_DETAIL,     /* lamps, signs, fences, kerbs' small parts: near only */
  DJ__LIST_GROUND,     /* roads, pavements */
  DJ__LIST_GROUND_FAR, /* the same with fewer triangles */
  DJ__LIST_TERRAIN,    /* near */
  DJ__LIST_TERRAIN_FAR,
  DJ__LIST_PAINT,
  DJ__LIST_LEAF, /* with holes: near trees */
  DJ__LIST_LEAF_FAR,
  DJ__N_LISTS
} dj__list;
#define DJ__CHUNK 50.0 /* m */

typedef struct dj__chunk {
  dj__mesh list[DJ__N_LISTS];
} dj__chunk;
typedef struct dj__lens { /* of a traffic light: lit by its state */
  double p[3], normal[2];
  float radius;
  int stop;
  dj__light when; /* DJ__LIGHT_RED, _YELLOW, _GREEN */
} dj__lens;
typedef struct dj__lamp { /* street lamp: the light's place */
  double x, y, z;
} dj__lamp;
typedef struct dj__world_mesh {
  const dj__map *map;
  uint64_t seed;
  double x0, y0;    /* of chunk 0 */
  double origin[3]; /* vertices are relative to it */
  int nx, ny;
  dj__chunk *chunk; /* (ny, nx) */
  dj__lens *lens;
  dj__lamp *lamp;
  int n_lens, cap_lens, n_lamp, cap_lamp;
  bool failed;
} dj__world_mesh;
/* Everything static of a map. Errors: DJ_E_NOMEM. */
dj_status dj__world_mesh_make(const dj__map *m, uint64_t seed, dj__world_mesh *w);
void dj__world_mesh_free(dj__world_mesh *w);
/* The list that something at (x, y) goes to. */
dj__mesh *dj__world_list(dj__world_mesh *w, dj__list l, double x, double y);
void dj__world_add_lens(dj__world_mesh *w, const dj__lens *l);
void dj__world_add_lamp(dj__world_mesh *w, const dj__lamp *l);
/* Parts (mesh_road.c, mesh_scenery.c, mesh_building.c, mesh_street.c). */
void dj__mesh_roads(dj__world_mesh *w);
void dj__mesh_terrain(dj__world_mesh *w);
void dj__mesh_street(dj__world_mesh *w); /* lamps, signs, traffic lights, guard rails */
void dj__mesh_buildings(dj__world_mesh *w);
void dj__mesh_hall(dj__world_mesh *w);
/* A tree or bush standing at (x, y, z) of the world. kind: 0 broad-leaved, 1 conifer, 2 bush. */
void dj__mesh_tree(dj__world_mesh *w, double x, double y, double z, int kind, double height,
                   dj__rng *rng);

/* ---- actors ---- */
typedef enum dj__part {
  DJ__PART_BODY, /* takes the actor's colour */
  DJ__PART_FIXED,
  DJ__PART_FRONT_WHEEL, /* steers and turns */
  DJ__PART_REAR_WHEEL,
  DJ__PART_LEG_LEFT,
  DJ__PART_LEG_RIGHT,
  DJ__PART_ARM_LEFT,
  DJ__PART_ARM_RIGHT,
  DJ__PART_SECOND, /* takes the actor's second colour: trousers */
  DJ__PART_HEAD,   /* head lamp */
  DJ__PART_TAIL,   /* rear lamp, brighter when braking */
  DJ__PART_LEFT,   /* indicators */
  DJ__PART_RIGHT,
  DJ__PART_REVERSE,
  DJ__PART_LENS, /* of a traffic light: shines in the body's colour */
  DJ__N_PARTS
} dj__part;
enum { DJ__ACTOR_LODS = 3 };
typedef struct dj__model {
  dj__mesh lod[DJ__ACTOR_LODS];
  float length, width, height;     /* m, of the mesh; scaled to the actor's */
  float axle[2], wheel_y, wheel_r; /* front and rear axle's x, wheels' |y|, radius */
  float hip, shoulder;             /* z where legs and arms turn */
} dj__model;
enum { DJ__MODELS = 20, DJ__MODEL_LENS = DJ__MODELS - 1 };
/* Index of the model of an actor. */
int dj__model_of(dj__kind kind, uint8_t variant);
dj_status dj__models_make(dj__model model[DJ__MODELS]);
void dj__models_free(dj__model model[DJ__MODELS]);
void dj__model_vehicle(dj__model *m, int index); /* mesh_vehicle.c */
void dj__model_person(dj__model *m, int index);  /* mesh_people.c */
/* Colours of an actor: body, second, 0xrrggbb. */
void dj__actor_colours(dj__kind kind, uint8_t variant, uint32_t rgb[2]);

#endif
