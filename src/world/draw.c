/*
 * Drawing: what is to be seen of the static world is gathered chunk by chunk (frustum, distance,
 * near chunks first) into one list of indices, so that a view takes a handful of draw calls;
 * moving things are instances of their models. Depth, classes, instances and flow are a second
 * colour target of the same pass.
 *
 * Order: moving things, buildings, markings, ground, leaves, sky: what hides much comes first,
 * since every fragment costs on a processor.
 */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "world/attitude.h"
#include "world/render_internal.h"
#include "world/shaders.h"

enum { INSTANCE_FLOATS = 40, SHADOW_SIZE = 1536 };
#define SHADOW_REACH 90.0 /* m round the camera */
#define SHADOW_CELL                                                                                \
  30.0 /* m: the map is drawn anew when the camera leaves a square of this size                    \
        */

static const char *const attributes[] = {"a_p",  "a_n",  "a_c",    "a_uv",     "a_m",    "i_r0",
                                         "i_r1", "i_r2", "i_body", "i_second", "i_more", "i_id",
                                         "n_r0", "n_r1", "n_r2",   "n_pose",   NULL};

static const char *const uniform_names[DJ__N_UNIFORM] = {
    "u_clip",       "u_next_clip",   "u_sun",         "u_fog",          "u_zenith",
    "u_sun_colour", "u_sky",         "u_ground",      "u_lamp",         "u_air",
    "u_offset",     "u_next_offset", "u_shadow_from", "u_axle",         "u_joint",
    "u_head",       "u_pixel",       "u_tex",         "u_window",       "u_shadow",
    "u_beam",       "u_glow",        "u_cloud",       "u_cloud_colour", "u_haze"};

dj_status dj__draw_program(dj__renderer *r, dj__program_kind kind, int variant, dj__program **out) {
  static const struct {
    const char *name, *vertex, *fragment;
  } sources[DJ__N_PROGRAMS] = {
      {"scene", dj__shader_scene_vertex, dj__shader_scene_fragment},
      {"sky", dj__shader_sky_vertex, dj__shader_sky_fragment},
      {"depth", dj__shader_depth_vertex, dj__shader_depth_fragment},
      {"glow", dj__shader_glow_vertex, dj__shader_glow_fragment},
  };
  static const char *const words[] = {"#define ACTOR\n", "#define HOLES\n",  "#define SHADOW\n",
                                      "#define NIGHT\n", "#define LABELS\n", "#define FLOW\n"};
  dj__program *p = &r->program[kind][variant];
  *out = p;
  if (p->id) {
    glUseProgram(p->id);
    return DJ_OK;
  }
  char defines[128] = "";
  for (int k = 0; k < 6; k++)
    if (variant >> k & 1) (void)strcat(defines, words[k]);
  DJ_TRY(dj__gl_program(sources[kind].name, defines, sources[kind].vertex, sources[kind].fragment,
                        attributes, &p->id));
  glUseProgram(p->id);
  for (int k = 0; k < DJ__N_UNIFORM; k++) p->at[k] = glGetUniformLocation(p->id, uniform_names[k]);
  glUniform1i(p->at[DJ__U_TEX], 0);
  glUniform1i(p->at[DJ__U_SHADOW], 1);
  return DJ_OK;
}

// ---- setting up --------------------------------------------------------------------------------

static void vertex_pointers(size_t stride) {
  glVertexAttribPointer(0, 3, GL_FLOAT, GL_FALSE, (GLsizei)stride, (void *)offsetof(dj__vertex, p));
  glVertexAttribPointer(1, 4, GL_BYTE, GL_TRUE, (GLsizei)stride, (void *)offsetof(dj__vertex, n));
  glVertexAttribPointer(2, 4, GL_UNSIGNED_BYTE, GL_TRUE, (GLsizei)stride,
                        (void *)offsetof(dj__vertex, c));
  glVertexAttribPointer(3, 2, GL_FLOAT, GL_FALSE, (GLsizei)stride,
                        (void *)offsetof(dj__vertex, uv));
  glVertexAttribPointer(4, 4, GL_UNSIGNED_BYTE, GL_FALSE, (GLsizei)stride,
                        (void *)offsetof(dj__vertex, tex));
  for (GLuint k = 0; k < 5; k++) glEnableVertexAttribArray(k);
}

static dj_status setup_textures(dj__renderer *r) {
  uint8_t *rgba;
  DJ_TRY(dj__textures_make(1, &rgba)); // the same in all towns
  glGenTextures(1, &r->textures);
  glBindTexture(GL_TEXTURE_2D_ARRAY, r->textures);
  glTexStorage3D(GL_TEXTURE_2D_ARRAY, 9, GL_RGBA8, DJ__TEX_SIZE, DJ__TEX_SIZE, DJ__N_TEX);
  glTexSubImage3D(GL_TEXTURE_2D_ARRAY, 0, 0, 0, 0, DJ__TEX_SIZE, DJ__TEX_SIZE, DJ__N_TEX, GL_RGBA,
                  GL_UNSIGNED_BYTE, rgba);
  free(rgba);
  glGenerateMipmap(GL_TEXTURE_2D_ARRAY);
  glTexParameteri(GL_TEXTURE_2D_ARRAY, GL_TEXTURE_MIN_FILTER,
                  r->gl.software ? GL_LINEAR_MIPMAP_NEAREST : GL_LINEAR_MIPMAP_LINEAR);
  glTexParameteri(GL_TEXTURE_2D_ARRAY, GL_TEXTURE_MAG_FILTER, GL_LINEAR);
  return dj__gl_check("textures");
}

static dj_status setup_static(dj__renderer *r, const dj__world_mesh *w) {
  dj__mesh all = {0};
  r->n_block = w->nx * w->ny;
  r->block = calloc((size_t)r->n_block, sizeof *r->block);
  if (!r->block) return dj_error(DJ_E_NOMEM, "cameras: no memory for %d chunks", r->n_block);
  for (int k = 0; k < r->n_block; k++) {
    dj__block *b = &r->block[k];
    for (int i = 0; i < 3; i++) b->low[i] = 1e9f, b->high[i] = -1e9f;
    for (int l = 0; l < DJ__N_LISTS; l++) {
      const dj__mesh *m = &w->chunk[k].list[l];
      b->list[l] = (dj__range){all.n_i, m->n_i};
      for (int v = 0; v < m->n_v; v++)
        for (int i = 0; i < 3; i++) {
          b->low[i] = fminf(b->low[i], m->v[v].p[i]);
          b->high[i] = fmaxf(b->high[i], m->v[v].p[i]);
        }
      dj__mesh_append(&all, m);
    }
  }
  if (all.failed) {
    dj__mesh_free(&all);
    return dj_error(DJ_E_NOMEM, "cameras: no memory for the map's triangles");
  }
  glGenBuffers(1, &r->static_vertices);
  glBindBuffer(GL_ARRAY_BUFFER, r->static_vertices);
  glBufferData(GL_ARRAY_BUFFER, (GLsizeiptr)((size_t)all.n_v * sizeof *all.v), all.v,
               GL_STATIC_DRAW);
  glGenVertexArrays(1, &r->static_array);
  glBindVertexArray(r->static_array);
  vertex_pointers(sizeof(dj__vertex));
  glGenBuffers(1, &r->stream_indices);
  glBindBuffer(GL_ELEMENT_ARRAY_BUFFER, r->stream_indices);
  r->index = all.i;
  r->n_index = all.n_i;
  free(all.v);
  return dj__gl_check("the map's triangles");
}

static dj_status setup_models(dj__renderer *r) {
  DJ_TRY(dj__models_make(r->model));
  dj__mesh all = {0};
  for (int k = 0; k < DJ__MODELS; k++)
    for (int l = 0; l < DJ__ACTOR_LODS; l++) {
      r->model_range[k][l] = (dj__range){all.n_i, r->model[k].lod[l].n_i};
      dj__mesh_append(&all, &r->model[k].lod[l]);
      dj__mesh_free(&r->model[k].lod[l]);
    }
  if (all.failed) {
    dj__mesh_free(&all);
    return dj_error(DJ_E_NOMEM, "cameras: no memory for models");
  }
  glGenVertexArrays(1, &r->actor_array);
  glBindVertexArray(r->actor_array);
  glGenBuffers(1, &r->actor_vertices);
  glBindBuffer(GL_ARRAY_BUFFER, r->actor_vertices);
  glBufferData(GL_ARRAY_BUFFER, (GLsizeiptr)((size_t)all.n_v * sizeof *all.v), all.v,
               GL_STATIC_DRAW);
  vertex_pointers(sizeof(dj__vertex));
  glGenBuffers(1, &r->actor_indices);
  glBindBuffer(GL_ELEMENT_ARRAY_BUFFER, r->actor_indices);
  glBufferData(GL_ELEMENT_ARRAY_BUFFER, (GLsizeiptr)((size_t)all.n_i * sizeof *all.i), all.i,
               GL_STATIC_DRAW);
  glGenBuffers(1, &r->instances);
  for (GLuint k = 5; k < 16; k++) {
    glEnableVertexAttribArray(k);
    glVertexAttribDivisor(k, 1);
  }
  dj__mesh_free(&all);
  return dj__gl_check("models");
}

/* A dome of unit directions from straight down to straight up. */
static dj_status setup_sky(dj__renderer *r) {
  enum { RINGS = 10, SIDES = 24 };
  static const float ring[RINGS] = {-90, -12, 0, 4, 9, 16, 26, 40, 60, 90};
  float v[RINGS * (SIDES + 1)][3];
  uint16_t i[RINGS * SIDES * 6];
  int n = 0;
  for (int a = 0; a < RINGS; a++)
    for (int b = 0; b <= SIDES; b++) {
      double up = ring[a] * M_PI / 180, round = 2 * M_PI * b / SIDES;
      float *p = v[a * (SIDES + 1) + b];
      p[0] = (float)(cos(up) * cos(round));
      p[1] = (float)(cos(up) * sin(round));
      p[2] = (float)sin(up);
      if (a == 0 || b == SIDES) continue;
      uint16_t q = (uint16_t)((a - 1) * (SIDES + 1) + b), h = (uint16_t)(q + SIDES + 1);
      uint16_t f[6] = {q, h, (uint16_t)(q + 1), (uint16_t)(q + 1), h, (uint16_t)(h + 1)};
      memcpy(i + n, f, sizeof f);
      n += 6;
    }
  glGenVertexArrays(1, &r->sky_array);
  glBindVertexArray(r->sky_array);
  glGenBuffers(1, &r->sky_vertices);
  glBindBuffer(GL_ARRAY_BUFFER, r->sky_vertices);
  glBufferData(GL_ARRAY_BUFFER, sizeof v, v, GL_STATIC_DRAW);
  glVertexAttribPointer(0, 3, GL_FLOAT, GL_FALSE, 12, NULL);
  glEnableVertexAttribArray(0);
  glGenBuffers(1, &r->sky_indices);
  glBindBuffer(GL_ELEMENT_ARRAY_BUFFER, r->sky_indices);
  glBufferData(GL_ELEMENT_ARRAY_BUFFER, (GLsizeiptr)((size_t)n * sizeof *i), i, GL_STATIC_DRAW);
  r->sky_count = n;
  return dj__gl_check("the sky");
}

static dj_status setup_effects(dj__renderer *r) {
  glGenVertexArrays(1, &r->stream_array);
  glBindVertexArray(r->stream_array);
  glGenBuffers(1, &r->stream_vertices);
  glBindBuffer(GL_ARRAY_BUFFER, r->stream_vertices);
  GLsizei stride = sizeof(dj__stream_vertex);
  glVertexAttribPointer(0, 3, GL_FLOAT, GL_FALSE, stride, NULL);
  glVertexAttribPointer(2, 4, GL_UNSIGNED_BYTE, GL_TRUE, stride,
                        (void *)offsetof(dj__stream_vertex, c));
  glVertexAttribPointer(3, 2, GL_FLOAT, GL_FALSE, stride, (void *)offsetof(dj__stream_vertex, uv));
  glEnableVertexAttribArray(0);
  glEnableVertexAttribArray(2);
  glEnableVertexAttribArray(3);
  if (r->options.no_shadows) return DJ_OK;
  glActiveTexture(GL_TEXTURE1);
  glGenTextures(1, &r->shadow.texture);
  glBindTexture(GL_TEXTURE_2D, r->shadow.texture);
  glTexStorage2D(GL_TEXTURE_2D, 1, GL_DEPTH_COMPONENT24, SHADOW_SIZE, SHADOW_SIZE);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_COMPARE_MODE, GL_COMPARE_REF_TO_TEXTURE);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_COMPARE_FUNC, GL_LEQUAL);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_LINEAR);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_LINEAR);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_WRAP_S, GL_CLAMP_TO_EDGE);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_WRAP_T, GL_CLAMP_TO_EDGE);
  glActiveTexture(GL_TEXTURE0);
  glGenFramebuffers(1, &r->shadow.frame);
  glBindFramebuffer(GL_FRAMEBUFFER, r->shadow.frame);
  glFramebufferTexture2D(GL_FRAMEBUFFER, GL_DEPTH_ATTACHMENT, GL_TEXTURE_2D, r->shadow.texture, 0);
  if (glCheckFramebufferStatus(GL_FRAMEBUFFER) != GL_FRAMEBUFFER_COMPLETE)
    return dj_error(DJ_E_UNSUPPORTED, "cameras: '%s' draws no shadow maps", r->gl.name);
  return dj__gl_check("effects");
}

dj_status dj__draw_setup(dj__renderer *r, const dj__world_mesh *w) {
  DJ_TRY(setup_textures(r));
  DJ_TRY(setup_static(r, w));
  DJ_TRY(setup_models(r));
  DJ_TRY(setup_sky(r));
  return setup_effects(r);
}

void dj__draw_teardown(dj__renderer *r) {
  for (int k = 0; k < DJ__N_PROGRAMS; k++)
    for (int v = 0; v < DJ__P_VARIANTS; v++)
      if (r->program[k][v].id) glDeleteProgram(r->program[k][v].id);
  GLuint buffers[] = {r->static_vertices, r->stream_indices, r->actor_vertices, r->actor_indices,
                      r->instances,       r->sky_vertices,   r->sky_indices,    r->stream_vertices};
  GLuint arrays[] = {r->static_array, r->actor_array, r->sky_array, r->stream_array};
  GLuint textures[] = {r->textures, r->shadow.texture};
  glDeleteBuffers((GLsizei)(sizeof buffers / sizeof *buffers), buffers);
  glDeleteVertexArrays((GLsizei)(sizeof arrays / sizeof *arrays), arrays);
  glDeleteTextures(2, textures);
  glDeleteFramebuffers(1, &r->shadow.frame);
}

// ---- what is to be seen
// --------------------------------------------------------------------------

typedef struct frustum {
  double plane[5][4]; // inside: n . p + d >= 0, p relative to the camera
} frustum;

static void make_frustum(const dj__view *v, double far, frustum *f) {
  const double *R = v->pose.R;
  double left = -(v->cx + 1) / v->fx, right = (v->w - v->cx) / v->fx, top = -(v->cy + 1) / v->fy,
         bottom = (v->h - v->cy) / v->fy;
  double side[4][3] = {{1, 0, -left}, {-1, 0, right}, {0, 1, -top}, {0, -1, bottom}};
  for (int k = 0; k < 5; k++) {
    double n[3] = {0, 0, -1}, length;
    if (k < 4) memcpy(n, side[k], sizeof n);
    length = sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]);
    for (int i = 0; i < 3; i++)
      f->plane[k][i] = (R[i] * n[0] + R[3 + i] * n[1] + R[6 + i] * n[2]) / length;
    f->plane[k][3] = k < 4 ? 0 : far;
  }
}

static bool box_inside(const frustum *f, const double low[3], const double high[3]) {
  for (int k = 0; k < 5; k++) {
    const double *p = f->plane[k];
    double d = p[3];
    for (int i = 0; i < 3; i++) d += p[i] * (p[i] > 0 ? high[i] : low[i]);
    if (d < 0) return false;
  }
  return true;
}
static bool ball_inside(const frustum *f, const double c[3], double radius) {
  for (int k = 0; k < 5; k++) {
    const double *p = f->plane[k];
    if (p[0] * c[0] + p[1] * c[1] + p[2] * c[2] + p[3] < -radius) return false;
  }
  return true;
}

typedef struct seen {
  float d;
  int block;
} seen;
static int nearer(const void *a, const void *b) {
  const seen *x = a, *y = b;
  return x->d < y->d ? -1 : x->d > y->d ? 1 : x->block - y->block;
}

dj_status dj__draw_reserve(dj__renderer *r, int n) {
  if (n <= r->cap_gather) return DJ_OK;
  uint32_t *p = realloc(r->gather, (size_t)n * sizeof *p);
  if (!p) return dj_error(DJ_E_NOMEM, "cameras: no memory for %d indices", n);
  r->gather = p;
  r->cap_gather = n;
  return DJ_OK;
}

static int take(dj__renderer *r, int n, const seen *s, int n_seen, dj__list l, float from,
                float to) {
  for (int k = 0; k < n_seen; k++) {
    if (s[k].d < from || s[k].d >= to) continue;
    dj__range g = r->block[s[k].block].list[l];
    memcpy(r->gather + n, r->index + g.first, (size_t)g.count * sizeof *r->gather);
    n += g.count;
  }
  return n;
}

/* Chunks in the frustum, near ones first. */
static int find_seen(const dj__renderer *r, const dj__view *v, double far, seen *s) {
  frustum f;
  make_frustum(v, far, &f);
  int n = 0;
  for (int k = 0; k < r->n_block; k++) {
    const dj__block *b = &r->block[k];
    if (b->low[0] > b->high[0]) continue;
    double low[3], high[3], d2 = 0;
    for (int i = 0; i < 3; i++) {
      double o = r->origin[i] - v->pose.p[i];
      low[i] = b->low[i] + o;
      high[i] = b->high[i] + o;
      double out = low[i] > 0 ? low[i] : high[i] < 0 ? -high[i] : 0;
      d2 += out * out;
    }
    if (d2 > far * far || !box_inside(&f, low, high)) continue;
    s[n++] = (seen){(float)sqrt(d2), k};
  }
  qsort(s, (size_t)n, sizeof *s, nearer);
  return n;
}

typedef enum part { PART_SOLID, PART_PAINT, PART_GROUND, PART_LEAF, N_PARTS } part;

static dj_status gather(dj__renderer *r, const dj__view *v, dj__range out[N_PARTS]) {
  DJ_TRY(dj__draw_reserve(r, r->n_index));
  seen *s = malloc((size_t)r->n_block * sizeof *s);
  if (!s) return dj_error(DJ_E_NOMEM, "cameras: no memory for %d chunks", r->n_block);
  int n_seen = find_seen(r, v, r->far, s), n = 0;
  float m = (float)(v->fy * r->scale / 360); // distances are for a small picture
  m = m < 0.6f ? 0.6f : m;
  out[PART_SOLID].first = 0;
  n = take(r, n, s, n_seen, DJ__LIST_SOLID, 0, 1e9f);
  n = take(r, n, s, n_seen, DJ__LIST_DETAIL, 0, 100 * m);
  out[PART_PAINT].first = out[PART_SOLID].count = n;
  n = take(r, n, s, n_seen, DJ__LIST_PAINT, 0, 150 * m);
  out[PART_PAINT].count = n - out[PART_PAINT].first;
  out[PART_GROUND].first = n;
  n = take(r, n, s, n_seen, DJ__LIST_GROUND, 0, 70 * m);
  n = take(r, n, s, n_seen, DJ__LIST_GROUND_FAR, 70 * m, 1e9f);
  n = take(r, n, s, n_seen, DJ__LIST_TERRAIN, 0, 35 * m);
  n = take(r, n, s, n_seen, DJ__LIST_TERRAIN_FAR, 35 * m, 1e9f);
  out[PART_GROUND].count = n - out[PART_GROUND].first;
  out[PART_LEAF].first = n;
  n = take(r, n, s, n_seen, DJ__LIST_LEAF, 0, 40 * m);
  n = take(r, n, s, n_seen, DJ__LIST_LEAF_FAR, 40 * m, 1e9f);
  out[PART_LEAF].count = n - out[PART_LEAF].first;
  free(s);
  dj__draw_indices(r, n);
  return DJ_OK;
}

void dj__draw_indices(dj__renderer *r, int n) {
  glBindVertexArray(r->static_array);
  glBufferData(GL_ELEMENT_ARRAY_BUFFER, (GLsizeiptr)((size_t)n * sizeof *r->gather), r->gather,
               GL_STREAM_DRAW);
}

static void draw_range(dj__range g) {
  if (g.count)
    glDrawElements(GL_TRIANGLES, g.count, GL_UNSIGNED_INT,
                   (void *)((size_t)g.first * sizeof(uint32_t)));
}

// ---- matrices ----------------------------------------------------------------------------------

/* Rows to OpenGL's columns. */
static void columns(const double m[4][4], float out[16]) {
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) out[4 * j + i] = (float)m[i][j];
}

static double first_sample(const dj__renderer *r) { // viewport coordinate of pixel 0's centre
  return r->scale == 1 ? 0.5 : 1.5;
}

static void clip_matrix(const dj__renderer *r, const dj__view *v, float out[16]) {
  double m[4][4] = {{0}}, a = r->scale, b = first_sample(r), n = r->near, f = r->far * 1.5;
  const double *R = v->pose.R;
  for (int i = 0; i < 3; i++) {
    double X = R[i], Y = R[3 + i], Z = R[6 + i];
    m[0][i] = 2 / (double)v->vw * (a * (v->fx * X + v->cx * Z) + b * Z) - Z;
    m[1][i] = 2 / (double)v->vh * (a * (v->fy * Y + v->cy * Z) + b * Z) - Z;
    m[2][i] = (f + n) / (f - n) * Z;
    m[3][i] = Z;
  }
  m[2][3] = -2 * f * n / (f - n);
  columns(m, out);
}

static void next_matrix(const dj__view *v, float out[16]) {
  double m[4][4] = {{0}};
  const double *R = v->next.R;
  for (int i = 0; i < 3; i++) {
    double X = R[i], Y = R[3 + i], Z = R[6 + i];
    m[0][i] = v->fx * X + v->cx * Z;
    m[1][i] = v->fy * Y + v->cy * Z;
    m[3][i] = Z;
  }
  columns(m, out);
}

// ---- one view ----------------------------------------------------------------------------------

typedef struct frame { // what all programs of a view are given
  dj__renderer *r;
  const dj__scene *s, *next;
  const dj__view *v;
  dj__sky sky;
  float clip[16], next_clip[16], shadow_from[16], head[16];
  float offset[3], next_offset[3], pixel[4];
  int variant; // SHADOW, NIGHT, LABELS, FLOW
} frame;

static void head_matrix(const dj__scene *s, const dj__view *v, float out[16]) {
  double c = cos(s->yaw), q = sin(s->yaw), t = tan(s->pitch);
  double lamp[3] = {s->x + 3.2 * c, s->y + 3.2 * q, s->z + 0.7};
  double m[4][4] = {{c, q, 0, 0}, {-q, c, 0, 0}, {t * c, t * q, 1, 0}, {0, 0, 0, 1}};
  for (int k = 0; k < 3; k++)
    for (int i = 0; i < 3; i++) m[k][3] += m[k][i] * (v->pose.p[i] - lamp[i]);
  columns(m, out);
}

static void start_frame(frame *f) {
  dj__renderer *r = f->r;
  const dj__view *v = f->v;
  clip_matrix(r, v, f->clip);
  if (f->variant & DJ__P_FLOW) next_matrix(v, f->next_clip);
  for (int k = 0; k < 3; k++) {
    f->offset[k] = (float)(r->origin[k] - v->pose.p[k]);
    f->next_offset[k] = (float)(r->origin[k] - v->next.p[k]);
  }
  float b = (float)first_sample(r), a = (float)r->scale;
  float pixel[4] = {1 / a, 0, -((float)v->x + b) / a, -((float)v->y + b) / a};
  memcpy(f->pixel, pixel, sizeof pixel);
  if (f->variant & DJ__P_SHADOW) {
    const float *m = r->shadow.matrix;
    memcpy(f->shadow_from, m, sizeof f->shadow_from);
    for (int i = 0; i < 3; i++)
      for (int k = 0; k < 3; k++)
        f->shadow_from[12 + i] += m[4 * k + i] * (float)(v->pose.p[k] - r->shadow.centre[k]);
  }
  if (f->variant & DJ__P_NIGHT) head_matrix(f->s, v, f->head);
}

static dj_status use(frame *f, dj__program_kind kind, int extra, dj__program **out) {
  dj__program *p;
  DJ_TRY(dj__draw_program(f->r, kind, f->variant | extra, &p));
  *out = p;
  const dj__sky *k = &f->sky;
  glUniformMatrix4fv(p->at[DJ__U_CLIP], 1, GL_FALSE, f->clip);
  glUniformMatrix4fv(p->at[DJ__U_NEXT_CLIP], 1, GL_FALSE, f->next_clip);
  glUniform3fv(p->at[DJ__U_SUN], 1, k->sun);
  glUniform3fv(p->at[DJ__U_FOG], 1, k->fog);
  glUniform3fv(p->at[DJ__U_ZENITH], 1, k->zenith);
  glUniform4fv(p->at[DJ__U_PIXEL], 1, f->pixel);
  if (kind == DJ__PROGRAM_SKY) {
    glUniform3fv(p->at[DJ__U_GLOW], 1, k->glow);
    glUniform4f(p->at[DJ__U_CLOUD], k->cloud[0], k->cloud[1], (float)fmod(f->s->time * 0.0006, 1),
                (float)fmod(f->s->time * 0.0002, 1));
    glUniform3fv(p->at[DJ__U_CLOUD_COLOUR], 1, k->cloud_colour);
    glUniform1f(p->at[DJ__U_HAZE], k->haze);
    return DJ_OK;
  }
  glUniform3fv(p->at[DJ__U_SUN_COLOUR], 1, k->sun_colour);
  glUniform3fv(p->at[DJ__U_SKY], 1, k->sky);
  glUniform3fv(p->at[DJ__U_GROUND], 1, k->ground);
  glUniform3f(p->at[DJ__U_LAMP], k->lamp * 0.0100f, k->lamp * 0.0078f, k->lamp * 0.0048f);
  glUniform4f(p->at[DJ__U_AIR], k->density, k->wet, k->night / 255, 0);
  glUniform3fv(p->at[DJ__U_OFFSET], 1, f->offset);
  glUniform3fv(p->at[DJ__U_NEXT_OFFSET], 1, f->next_offset);
  glUniformMatrix4fv(p->at[DJ__U_SHADOW_FROM], 1, GL_FALSE, f->shadow_from);
  glUniformMatrix4fv(p->at[DJ__U_HEAD], 1, GL_FALSE, f->head);
  glUniform3f(p->at[DJ__U_WINDOW], 0.55f, 0.37f, 0.18f);
  glUniform1f(p->at[DJ__U_BEAM], 1.3f * k->night);
  return DJ_OK;
}

static dj_status draw_static(frame *f, const dj__range g[N_PARTS]) {
  dj__program *p;
  DJ_TRY(use(f, DJ__PROGRAM_SCENE, 0, &p));
  glBindVertexArray(f->r->static_array);
  draw_range(g[PART_SOLID]);
  glEnable(GL_POLYGON_OFFSET_FILL);
  glPolygonOffset(-1.0f, -2.0f);
  draw_range(g[PART_PAINT]);
  glDisable(GL_POLYGON_OFFSET_FILL);
  draw_range(g[PART_GROUND]);
  if (!g[PART_LEAF].count) return DJ_OK;
  DJ_TRY(use(f, DJ__PROGRAM_SCENE, DJ__P_HOLES, &p));
  glDisable(GL_CULL_FACE);
  draw_range(g[PART_LEAF]);
  glEnable(GL_CULL_FACE);
  return DJ_OK;
}

static dj_status draw_sky(frame *f) {
  dj__program *p;
  int keep = f->variant;
  f->variant &= DJ__P_LABELS | DJ__P_FLOW;
  dj_status s = use(f, DJ__PROGRAM_SKY, 0, &p);
  f->variant = keep;
  if (s) return s;
  glBindVertexArray(f->r->sky_array);
  glDisable(GL_CULL_FACE);
  glDepthMask(GL_FALSE);
  glDrawElements(GL_TRIANGLES, f->r->sky_count, GL_UNSIGNED_SHORT, NULL);
  glDepthMask(GL_TRUE);
  glEnable(GL_CULL_FACE);
  return DJ_OK;
}

// ---- moving things -----------------------------------------------------------------------------

static dj__class class_of(dj__kind k) {
  static const uint8_t classes[DJ__N_KINDS] = {[DJ__CAR] = DJ__CLASS_CAR,
                                               [DJ__VAN] = DJ__CLASS_TRUCK,
                                               [DJ__LORRY] = DJ__CLASS_TRUCK,
                                               [DJ__BUS] = DJ__CLASS_BUS,
                                               [DJ__MOTORCYCLE] = DJ__CLASS_TWO_WHEELER,
                                               [DJ__CYCLIST] = DJ__CLASS_TWO_WHEELER,
                                               [DJ__PEDESTRIAN] = DJ__CLASS_PERSON,
                                               [DJ__CONE] = DJ__CLASS_BARRIER,
                                               [DJ__BARRIER] = DJ__CLASS_BARRIER,
                                               [DJ__RC_CAR] = DJ__CLASS_CAR};
  return k < DJ__N_KINDS ? (dj__class)classes[k] : DJ__CLASS_CAR;
}

/* Rows of the affine map from a model to positions relative to `camera`. */
static void actor_rows(const dj__actor *a, const dj__model *m, const double camera[3],
                       float out[12]) {
  double k[3] = {a->length > 0 ? a->length / m->length : 1, a->width > 0 ? a->width / m->width : 1,
                 a->height > 0 ? a->height / m->height : 1};
  double R[9];
  dj__attitude(a->yaw, a->pitch, a->roll, R);
  double t[3] = {a->x - camera[0], a->y - camera[1], a->z - camera[2]};
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++) out[4 * i + j] = (float)(R[3 * i + j] * k[j]);
    out[4 * i + 3] = (float)t[i];
  }
}

/* Angle of wheels, or of a walker's step, from where it is: feet and tyres do not slip. */
static float phase_of(const dj__actor *a, const dj__model *m) {
  double along = a->x * cos(a->yaw) + a->y * sin(a->yaw);
  double per = m->hip > 0 && a->kind == DJ__PEDESTRIAN ? 1.45 / (2 * M_PI)
               : a->kind == DJ__CYCLIST                ? 0.9
               : m->wheel_r > 0                        ? m->wheel_r
                                                       : 1;
  return (float)fmod(along / per + 0.7 * (double)(a->id % 9), 2 * M_PI);
}

static void colour_of(uint32_t rgb, float out[3]) {
  for (int k = 0; k < 3; k++) out[k] = (float)(rgb >> (16 - 8 * k) & 255) / 255;
}

/* Indicators blink at 1.5 Hz, each vehicle in its own time. */
static int lamps_now(const dj__actor *a, const dj__scene *s) {
  bool on = fmod(s->time * 1.5 + 0.37 * (double)(a->id % 64), 1) < 0.5;
  int lamps = a->lamps;
  if (!on) lamps &= ~(DJ__LAMP_LEFT | DJ__LAMP_RIGHT);
  return lamps;
}

static const dj__actor *find_next(const dj__scene *next, const dj__actor *a, int guess) {
  if (!next) return a;
  if (guess < next->n_actor && next->actor[guess].id == a->id) return &next->actor[guess];
  for (int k = 0; k < next->n_actor; k++)
    if (next->actor[k].id == a->id) return &next->actor[k];
  return a;
}

static void fill_instance(const frame *f, const dj__actor *a, const dj__actor *b,
                          const dj__model *m, float *o) {
  uint32_t rgb[2];
  dj__actor_colours((dj__kind)a->kind, a->variant, rgb);
  actor_rows(a, m, f->v->pose.p, o);
  colour_of(rgb[0], o + 12);
  o[15] = a->steer;
  colour_of(rgb[1], o + 16);
  o[19] = phase_of(a, m);
  o[20] = (float)lamps_now(a, f->s);
  o[21] = (float)class_of((dj__kind)a->kind);
  o[22] = a->kind == DJ__PEDESTRIAN ? 0.48f * fminf(1, a->speed / 1.2f) : 0.45f;
  o[23] = 0;
  uint32_t id = a->id & 0xffffff;
  memcpy(o + 24, &id, 4);
  o[25] = 0;
  if (!(f->variant & DJ__P_FLOW)) return;
  actor_rows(b, m, f->v->next.p, o + 26);
  o[38] = b->steer;
  o[39] = phase_of(b, m);
}

typedef struct batch_item {
  int key; // model * LODS + lod
  float d;
  int actor; // < 0: lens ~actor
} batch_item;
static int by_batch(const void *a, const void *b) {
  const batch_item *x = a, *y = b;
  if (x->key != y->key) return x->key - y->key;
  return x->d < y->d ? -1 : x->d > y->d ? 1 : x->actor - y->actor;
}

static int list_actors(const frame *f, batch_item *items) {
  frustum fr;
  make_frustum(f->v, f->r->far, &fr);
  int n = 0;
  float m = (float)(f->v->fy * f->r->scale / 360);
  for (int k = 0; k < f->s->n_actor; k++) {
    const dj__actor *a = &f->s->actor[k];
    if (a->id == f->s->ego_id || a->kind >= DJ__N_KINDS) continue;
    double c[3] = {a->x - f->v->pose.p[0], a->y - f->v->pose.p[1],
                   a->z + 0.5 * a->height - f->v->pose.p[2]};
    double radius = 0.5 * sqrt((double)a->length * a->length + (double)a->width * a->width +
                               (double)a->height * a->height);
    if (!ball_inside(&fr, c, radius + 0.2)) continue;
    float d = (float)sqrt(c[0] * c[0] + c[1] * c[1] + c[2] * c[2]);
    float size = fmaxf(d - (float)radius, 0) / m / fmaxf(0.6f, fminf(1.6f, a->height / 1.5f));
    int lod = size < 9 ? 0 : size < 32 ? 1 : 2;
    items[n++] =
        (batch_item){dj__model_of((dj__kind)a->kind, a->variant) * DJ__ACTOR_LODS + lod, d, k};
  }
  for (int k = 0; k < f->r->n_lens; k++) {
    const dj__lens *l = &f->r->lens[k];
    dj__light now = dj__map_light(f->r->map, l->stop, f->s->time);
    bool lit = now == l->when || (now == DJ__LIGHT_RED_YELLOW &&
                                  (l->when == DJ__LIGHT_RED || l->when == DJ__LIGHT_YELLOW));
    if (!lit) continue;
    double c[3] = {l->p[0] - f->v->pose.p[0], l->p[1] - f->v->pose.p[1], l->p[2] - f->v->pose.p[2]};
    if (c[0] * l->normal[0] + c[1] * l->normal[1] > 0 || !ball_inside(&fr, c, 0.3)) continue;
    float d = (float)sqrt(c[0] * c[0] + c[1] * c[1] + c[2] * c[2]);
    if (d > 250) continue;
    items[n++] = (batch_item){DJ__MODEL_LENS * DJ__ACTOR_LODS + (d / m < 40 ? 0 : 2), d, ~k};
  }
  qsort(items, (size_t)n, sizeof *items, by_batch);
  return n;
}

static void fill_lens(const frame *f, const dj__lens *l, float *o) {
  static const float colours[3][3] = {{1, 0.10f, 0.06f}, {0.15f, 1, 0.45f}, {1, 0.72f, 0.05f}};
  memset(o, 0, INSTANCE_FLOATS * sizeof *o);
  double x = l->normal[0], y = l->normal[1], r = l->radius;
  double m[3][3] = {{x, -y * r, 0}, {y, x * r, 0}, {0, 0, r}};
  for (int side = 0; side < 2; side++)
    for (int i = 0; i < 3; i++) {
      float *row = o + (side ? 26 : 0) + 4 * i;
      const double *from = side ? f->v->next.p : f->v->pose.p;
      for (int j = 0; j < 3; j++) row[j] = (float)m[i][j];
      row[3] = (float)(l->p[i] - from[i]);
    }
  memcpy(o + 12, colours[l->when == DJ__LIGHT_RED ? 0 : l->when == DJ__LIGHT_GREEN ? 1 : 2], 12);
  o[21] = DJ__CLASS_LIGHT;
}

static void instance_pointers(size_t first, bool flow) {
  const GLsizei stride = INSTANCE_FLOATS * 4;
  size_t at = first * INSTANCE_FLOATS * 4;
  for (GLuint k = 0; k < 6; k++)
    glVertexAttribPointer(5 + k, 4, GL_FLOAT, GL_FALSE, stride, (void *)(at + 16 * (size_t)k));
  glVertexAttribIPointer(11, 1, GL_UNSIGNED_INT, stride, (void *)(at + 96));
  for (GLuint k = 12; k < 16; k++) {
    if (flow)
      glEnableVertexAttribArray(k);
    else
      glDisableVertexAttribArray(k);
  }
  if (!flow) return;
  for (GLuint k = 0; k < 3; k++)
    glVertexAttribPointer(12 + k, 4, GL_FLOAT, GL_FALSE, stride,
                          (void *)(at + 104 + 16 * (size_t)k));
  glVertexAttribPointer(15, 2, GL_FLOAT, GL_FALSE, stride, (void *)(at + 152));
}

static dj_status draw_batches(frame *f, const batch_item *items, int n) {
  dj__renderer *r = f->r;
  dj__program *p;
  DJ_TRY(use(f, DJ__PROGRAM_SCENE, DJ__P_ACTOR, &p));
  glBindVertexArray(r->actor_array);
  glBindBuffer(GL_ARRAY_BUFFER, r->instances);
  glBufferData(GL_ARRAY_BUFFER, (GLsizeiptr)((size_t)n * INSTANCE_FLOATS * 4), r->instance_data,
               GL_STREAM_DRAW);
  for (int k = 0, end; k < n; k = end) {
    for (end = k + 1; end < n && items[end].key == items[k].key;) end++;
    int model = items[k].key / DJ__ACTOR_LODS, lod = items[k].key % DJ__ACTOR_LODS;
    const dj__model *m = &r->model[model];
    dj__range g = r->model_range[model][lod];
    if (!g.count) continue;
    instance_pointers((size_t)k, f->variant & DJ__P_FLOW);
    glUniform4f(p->at[DJ__U_AXLE], m->axle[0], m->axle[1], m->wheel_y, m->wheel_r);
    glUniform2f(p->at[DJ__U_JOINT], m->hip, m->shoulder);
    glDrawElementsInstanced(GL_TRIANGLES, g.count, GL_UNSIGNED_INT,
                            (void *)((size_t)g.first * sizeof(uint32_t)), end - k);
  }
  return DJ_OK;
}

static dj_status draw_actors(frame *f) {
  dj__renderer *r = f->r;
  size_t most = (size_t)f->s->n_actor + (size_t)r->n_lens;
  if (!most) return DJ_OK;
  batch_item *items = malloc(most * sizeof *items);
  float *data = realloc(r->instance_data, most * INSTANCE_FLOATS * sizeof *data);
  if (data) r->instance_data = data;
  if (!items || !data) {
    free(items);
    return dj_error(DJ_E_NOMEM, "cameras: no memory for %zu actors", most);
  }
  int n = list_actors(f, items);
  for (int k = 0; k < n; k++) {
    float *o = data + (size_t)k * INSTANCE_FLOATS;
    if (items[k].actor < 0) {
      fill_lens(f, &r->lens[~items[k].actor], o);
    } else {
      const dj__actor *a = &f->s->actor[items[k].actor];
      fill_instance(f, a, find_next(f->next, a, items[k].actor),
                    &r->model[items[k].key / DJ__ACTOR_LODS], o);
    }
  }
  dj_status s = n ? draw_batches(f, items, n) : DJ_OK;
  free(items);
  return s;
}

// ---- shadow map --------------------------------------------------------------------------------

/* The static world seen from the sun, in a square round the scene that moves in steps. */
dj_status dj__draw_shadow_map(dj__renderer *r, const dj__scene *s) {
  dj__sky k;
  dj__sky_of(&s->weather, 0, &k);
  if (r->options.no_shadows || r->indoor || k.shadow < 0.03f) return DJ_OK;
  int cell[2] = {(int)floor(s->x / SHADOW_CELL), (int)floor(s->y / SHADOW_CELL)};
  if (r->aerial) cell[0] = cell[1] = INT_MIN; // one map of everything
  if (r->shadow.valid && !memcmp(cell, r->shadow.cell, sizeof cell) &&
      k.sun[0] == r->shadow.sun[0] && k.sun[1] == r->shadow.sun[1] && k.sun[2] == r->shadow.sun[2])
    return DJ_OK;
  double c[3] = {(cell[0] + 0.5) * SHADOW_CELL, (cell[1] + 0.5) * SHADOW_CELL, 0};
  double half = SHADOW_REACH + SHADOW_CELL;
  if (r->aerial) {
    c[0] = r->origin[0];
    c[1] = r->origin[1];
    half = fmax(half, 0.55 * hypot(r->map->x1 - r->map->x0, r->map->y1 - r->map->y0));
  }
  c[2] = dj__map_height(r->map, c[0], c[1]);
  double l[3] = {k.sun[0], k.sun[1], k.sun[2]}, flat = hypot(l[0], l[1]);
  double right[3] = {-l[1] / flat, l[0] / flat, 0};
  double up[3] = {-l[2] * right[1], l[2] * right[0], l[0] * right[1] - l[1] * right[0]};
  double deep = half * 1.6;
  double m[4][4] = {{0}}, clip[4][4] = {{0}};
  for (int i = 0; i < 3; i++) {
    m[0][i] = 0.5 * right[i] / half;
    m[1][i] = 0.5 * up[i] / half;
    m[2][i] = -0.5 * l[i] / deep;
  }
  for (int k2 = 0; k2 < 3; k2++) m[k2][3] = 0.5;
  m[3][3] = clip[3][3] = 1;
  for (int a = 0; a < 3; a++)
    for (int b = 0; b < 4; b++) clip[a][b] = 2 * m[a][b] - (b == 3);
  columns(m, r->shadow.matrix);
  memcpy(r->shadow.centre, c, sizeof c);
  memcpy(r->shadow.cell, cell, sizeof cell);
  memcpy(r->shadow.sun, k.sun, sizeof k.sun);
  r->shadow.valid = true;
  DJ_TRY(dj__draw_reserve(r, r->n_index));
  int n[2] = {0, 0};
  for (int pass = 0; pass < 2; pass++) { // solid things, then leaves
    int at = pass ? n[0] : 0;
    for (int b = 0; b < r->n_block; b++) {
      const dj__block *q = &r->block[b];
      double dx = 0.5 * (q->low[0] + q->high[0]) + r->origin[0] - c[0],
             dy = 0.5 * (q->low[1] + q->high[1]) + r->origin[1] - c[1];
      if (!(hypot(dx, dy) < half * 1.45 + DJ__CHUNK)) continue;
      for (int j = 0; j < 2; j++) {
        if (pass && j) continue;
        dj__range g = q->list[pass ? DJ__LIST_LEAF : j ? DJ__LIST_DETAIL : DJ__LIST_SOLID];
        memcpy(r->gather + at, r->index + g.first, (size_t)g.count * sizeof *r->gather);
        at += g.count;
      }
    }
    n[pass] = at;
  }
  dj__draw_indices(r, n[1]);
  float clip_columns[16];
  columns(clip, clip_columns);
  glBindFramebuffer(GL_FRAMEBUFFER, r->shadow.frame);
  glViewport(0, 0, SHADOW_SIZE, SHADOW_SIZE);
  glEnable(GL_DEPTH_TEST);
  glDepthFunc(GL_LESS);
  glDepthMask(GL_TRUE);
  glDisable(GL_BLEND);
  glClear(GL_DEPTH_BUFFER_BIT);
  glEnable(GL_SCISSOR_TEST); // the rim stays empty: outside there is no shadow
  glScissor(2, 2, SHADOW_SIZE - 4, SHADOW_SIZE - 4);
  glDisable(GL_CULL_FACE);
  glEnable(GL_POLYGON_OFFSET_FILL);
  glPolygonOffset(1.5f, 3.0f);
  dj_status status = DJ_OK;
  for (int pass = 0; pass < 2 && !status; pass++) {
    dj__program *p;
    status = dj__draw_program(r, DJ__PROGRAM_DEPTH, pass ? DJ__P_HOLES : 0, &p);
    if (status) break;
    glUniformMatrix4fv(p->at[DJ__U_CLIP], 1, GL_FALSE, clip_columns);
    glUniform3f(p->at[DJ__U_OFFSET], (float)(r->origin[0] - c[0]), (float)(r->origin[1] - c[1]),
                (float)(r->origin[2] - c[2]));
    draw_range((dj__range){pass ? n[0] : 0, pass ? n[1] - n[0] : n[0]});
  }
  glDisable(GL_POLYGON_OFFSET_FILL);
  glEnable(GL_CULL_FACE);
  glDisable(GL_SCISSOR_TEST);
  return status;
}

// ---- everything --------------------------------------------------------------------------------

static dj_status draw_effects(frame *f) {
  dj__renderer *r = f->r;
  dj__range range[3] = {{0, 0}, {0, 0}, {0, 0}};
  dj__effects(r, f->s, f->v, &f->sky, range);
  if (!r->n_stream) return DJ_OK;
  dj__program *p;
  DJ_TRY(dj__draw_program(r, DJ__PROGRAM_GLOW, 0, &p));
  glUniformMatrix4fv(p->at[DJ__U_CLIP], 1, GL_FALSE, f->clip);
  glBindVertexArray(r->stream_array);
  glBindBuffer(GL_ARRAY_BUFFER, r->stream_vertices);
  glBufferData(GL_ARRAY_BUFFER, (GLsizeiptr)((size_t)r->n_stream * sizeof *r->stream), r->stream,
               GL_STREAM_DRAW);
  glEnable(GL_BLEND);
  glDepthMask(GL_FALSE);
  glDisable(GL_CULL_FACE);
  for (int k = 0; k < 3; k++) {
    if (!range[k].count) continue;
    glBlendFunc(GL_SRC_ALPHA, k == 0 || k == 2 ? GL_ONE_MINUS_SRC_ALPHA : GL_ONE);
    if (k < 2) { // what lies on the road
      glEnable(GL_POLYGON_OFFSET_FILL);
      glPolygonOffset(-2.0f, -6.0f);
    }
    glDrawArrays(GL_TRIANGLES, range[k].first, range[k].count);
    glDisable(GL_POLYGON_OFFSET_FILL);
  }
  glEnable(GL_CULL_FACE);
  glDepthMask(GL_TRUE);
  glDisable(GL_BLEND);
  return DJ_OK;
}

/* On a processor, small pictures are drawn with the nearest texel: nine samples go into a pixel
 * anyway. */
static void set_filters(const dj__renderer *r, const dj__view *v) {
  bool quick = r->gl.software && r->scale > 1 && (int64_t)v->w * v->h <= 100000;
  glActiveTexture(GL_TEXTURE1);
  if (r->shadow.texture) {
    GLint filter = quick ? GL_NEAREST : GL_LINEAR;
    glBindTexture(GL_TEXTURE_2D, r->shadow.texture);
    glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, filter);
    glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, filter);
  }
  glActiveTexture(GL_TEXTURE0);
  glTexParameteri(GL_TEXTURE_2D_ARRAY, GL_TEXTURE_MIN_FILTER,
                  quick            ? GL_NEAREST_MIPMAP_NEAREST
                  : r->gl.software ? GL_LINEAR_MIPMAP_NEAREST
                                   : GL_LINEAR_MIPMAP_LINEAR);
}

dj_status dj__draw_view(dj__renderer *r, const dj__scene *s, const dj__scene *next,
                        const dj__view *v, bool labels) {
  frame f = {.r = r, .s = s, .next = next, .v = v};
  dj__sky_of(&s->weather, v->exposure, &f.sky);
  if (r->indoor) { // a hall has its own light
    dj__weather hall = {.sun_elevation = 1.2f, .cloud = 1};
    dj__sky_of(&hall, v->exposure, &f.sky);
    f.sky.density = 0;
  }
  if (r->aerial) f.sky.density *= 0.2f;
  bool sun = !r->indoor && !r->options.no_shadows && f.sky.shadow >= 0.03f && r->shadow.valid;
  f.variant = (sun ? DJ__P_SHADOW : 0) | (f.sky.night > 0.02f && !r->indoor ? DJ__P_NIGHT : 0);
  if (labels) f.variant |= DJ__P_LABELS;
  if (labels && (r->options.layers & DJ__LAYER_FLOW) && next) f.variant |= DJ__P_FLOW;
  start_frame(&f);
  set_filters(r, v);
  glViewport(v->x, v->y, v->vw, v->vh);
  glEnable(GL_SCISSOR_TEST);
  glScissor(v->x, v->y, v->vw, v->vh);
  dj__range parts[N_PARTS] = {{0, 0}};
  dj_status status = gather(r, v, parts);
  const GLenum both[2] = {GL_COLOR_ATTACHMENT0, GL_COLOR_ATTACHMENT1},
               one[2] = {GL_COLOR_ATTACHMENT0, GL_NONE};
  if (labels) glDrawBuffers(2, both); // a change of buffers costs Mesa a pass of its own
  if (!status) status = draw_actors(&f);
  if (!status) status = draw_static(&f, parts);
  if (!status) status = draw_sky(&f);
  if (labels) glDrawBuffers(2, one);
  if (!status) status = draw_effects(&f);
  glDisable(GL_SCISSOR_TEST);
  return status;
}
