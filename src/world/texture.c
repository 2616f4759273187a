/*
 * Procedural textures, made on the processor once a renderer: DJ__N_TEX layers of 256 x 256 that
 * tile. Everything is a function of the seed. Bytes are square roots of linear light (gamma 2, near
 * enough to sRGB), which shaders square; signs are drawn with cairo.
 *
 * A layer's first row is v = 0: the lower edge of a facade.
 */
#include <cairo.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "world/mesh.h"

enum { N = DJ__TEX_SIZE };
typedef struct pixel {
  float r, g, b, a;
} pixel;
typedef struct layer {
  pixel p[N][N]; // [v][u]
  uint64_t seed;
} layer;

static uint32_t hash2(int x, int y, uint64_t seed) {
  uint32_t h =
      (uint32_t)x * 0x8da6b343u ^ (uint32_t)y * 0xd8163841u ^ (uint32_t)(seed ^ seed >> 32);
  h ^= h >> 15;
  h *= 0x2c1b3c6du;
  h ^= h >> 12;
  h *= 0x297a2d39u;
  return h ^ (h >> 15);
}
static float rand2(int x, int y, uint64_t seed) {
  return (float)(hash2(x, y, seed) >> 8) * 0x1p-24f;
}

/* Value noise that tiles over the layer, `cells` a side, 0..1. */
static float noise(float u, float v, int cells, uint64_t seed) {
  float x = u * (float)cells / N, y = v * (float)cells / N;
  int i = (int)floorf(x), j = (int)floorf(y);
  float a = x - (float)i, b = y - (float)j;
  a = a * a * (3 - 2 * a);
  b = b * b * (3 - 2 * b);
  int i0 = (i % cells + cells) % cells, j0 = (j % cells + cells) % cells;
  int i1 = (i0 + 1) % cells, j1 = (j0 + 1) % cells;
  float t = rand2(i0, j0, seed) * (1 - a) + rand2(i1, j0, seed) * a;
  float l = rand2(i0, j1, seed) * (1 - a) + rand2(i1, j1, seed) * a;
  return t * (1 - b) + l * b;
}
/* Several octaves, 0..1. */
static float fractal(float u, float v, int cells, int octaves, uint64_t seed) {
  float sum = 0, weight = 0, w = 1;
  for (int k = 0; k < octaves && cells <= N; k++) {
    sum += w * noise(u, v, cells, seed + (uint64_t)k * 977);
    weight += w;
    w *= 0.55f;
    cells *= 2;
  }
  return sum / weight;
}

static pixel mix(pixel a, pixel b, float t) {
  t = t < 0 ? 0 : t > 1 ? 1 : t;
  return (pixel){a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t,
                 a.a + (b.a - a.a) * t};
}
static pixel rgb(uint32_t c) {
  return (pixel){(float)(c >> 16 & 255) / 255, (float)(c >> 8 & 255) / 255, (float)(c & 255) / 255,
                 1};
}
static pixel scaled(pixel p, float k) {
  return (pixel){p.r * k, p.g * k, p.b * k, p.a};
}

typedef pixel shade_fn(const layer *l, int u, int v);

/* A rectangle, wrapping round; `soft` pixels of rim. */
static void rect(layer *l, int u0, int v0, int w, int h, pixel c) {
  for (int v = v0; v < v0 + h; v++)
    for (int u = u0; u < u0 + w; u++) l->p[(v % N + N) % N][(u % N + N) % N] = c;
}

static void crack(layer *l, int which, float dark) {
  uint64_t s = l->seed + (uint64_t)which * 31;
  float u = (float)N * rand2(which, 1, s), v = (float)N * rand2(which, 2, s),
        a = 6.28f * rand2(which, 3, s);
  int n = 60 + (int)(120 * rand2(which, 4, s));
  for (int k = 0; k < n; k++) {
    a += 0.9f * (rand2(which, 5 + k, s) - 0.5f);
    u += cosf(a);
    v += sinf(a);
    pixel *p = &l->p[(int)floorf(v) & (N - 1)][(int)floorf(u) & (N - 1)];
    *p = scaled(*p, dark);
  }
}

// ---- grounds -----------------------------------------------------------------------------------

static pixel asphalt(const layer *l, int u, int v) {
  float fine = rand2(u, v, l->seed) - 0.5f,
        blotch = fractal((float)u, (float)v, 6, 4, l->seed + 1) - 0.5f,
        stone = noise((float)u, (float)v, 100, l->seed + 2) - 0.5f;
  float k = 1 + 0.16f * fine + 0.22f * blotch + 0.13f * stone;
  return scaled((pixel){0.50f, 0.50f, 0.515f, 1}, k);
}
static void asphalt_old(layer *l) { // patches and cracks
  for (int k = 0; k < 5; k++) {
    int u0 = (int)(N * rand2(k, 1, l->seed)), v0 = (int)(N * rand2(k, 2, l->seed)),
        w = 20 + (int)(50 * rand2(k, 3, l->seed)), h = 30 + (int)(80 * rand2(k, 4, l->seed));
    float tone = 0.82f + 0.28f * rand2(k, 5, l->seed);
    for (int v = v0; v < v0 + h; v++)
      for (int u = u0; u < u0 + w; u++) {
        bool rim = u - u0 < 2 || v - v0 < 2 || u0 + w - u < 3 || v0 + h - v < 3;
        pixel *p = &l->p[v & (N - 1)][u & (N - 1)];
        *p = scaled(*p, rim ? 0.72f : tone);
      }
  }
  for (int k = 0; k < 16; k++) crack(l, k, 0.66f);
}
static pixel paving(const layer *l, int u, int v) { // slabs of 32 x 64, offset by half
  int row = v / 32, col = (u + (row % 2) * 32) / 64;
  bool joint = v % 32 < 2 || (u + (row % 2) * 32) % 64 < 2;
  float tone = 0.94f + 0.12f * rand2(col % 4, row, l->seed) +
               0.10f * (rand2(u, v, l->seed + 1) - 0.5f) +
               0.14f * (fractal((float)u, (float)v, 8, 3, l->seed + 2) - 0.5f);
  return scaled((pixel){0.665f, 0.645f, 0.615f, 1}, joint ? 0.74f * tone : tone);
}
static pixel kerb(const layer *l, int u, int v) {
  float tone = 1 + 0.14f * (rand2(u, v, l->seed) - 0.5f) +
               0.16f * (fractal((float)u, (float)v, 8, 3, l->seed + 2) - 0.5f);
  if (u % 128 < 3) tone *= 0.7f; // joints
  return scaled((pixel){0.70f, 0.69f, 0.66f, 1}, tone);
}
static pixel grass(const layer *l, int u, int v) {
  float blade = noise((float)u * 1.0f, (float)v, 128, l->seed) - 0.5f,
        patch = fractal((float)u, (float)v, 9, 4, l->seed + 1),
        fine = rand2(u, v, l->seed + 3) - 0.5f;
  pixel c = mix(rgb(0x5a6e38), rgb(0x87895a), patch * 1.1f - 0.05f);
  return scaled(c, 1 + 0.38f * blade + 0.20f * fine);
}
static pixel field(const layer *l, int u, int v) {
  float furrow = 0.5f + 0.5f * sinf(6.2832f * (float)u / 16),
        clump = fractal((float)u, (float)v, 16, 4, l->seed) - 0.5f;
  pixel c = mix(rgb(0x9a8a52), rgb(0x7f7d3c), furrow);
  return scaled(c, 1 + 0.5f * clump);
}
static pixel paint(const layer *l, int u, int v) { // worn away in places
  float wear = fractal((float)u, (float)v, 12, 4, l->seed), fine = rand2(u, v, l->seed + 4);
  float gone = (wear - 0.60f) * 7 + (fine > 0.93f ? 0.5f : 0);
  return mix(scaled(rgb(0xf4f3ee), 0.95f + 0.08f * fine), rgb(0x8c8c8c), gone);
}
static pixel gravel(const layer *l, int u, int v) {
  float k = 1 + 0.35f * (rand2(u, v, l->seed) - 0.5f) +
            0.3f * (fractal((float)u, (float)v, 8, 3, l->seed) - 0.5f);
  return scaled(rgb(0x8f8b84), k);
}
static pixel hall_floor(const layer *l, int u, int v) {
  float k = 1 + 0.05f * (rand2(u, v, l->seed) - 0.5f) +
            0.22f * (fractal((float)u, (float)v, 4, 5, l->seed) - 0.5f);
  if (u % 128 < 1 || v % 128 < 1) k *= 0.80f;
  return scaled(rgb(0x8b8a86), k);
}
static pixel hall_wall(const layer *l, int u, int v) {
  float k = 1 + 0.03f * (rand2(u, v, l->seed) - 0.5f);
  if (v < 26) return scaled(rgb(0x55595f), k);
  if (v < 30) return scaled(rgb(0x2f3236), k);
  int panel = u / 64;
  k *= 0.96f + 0.06f * rand2(panel, 0, l->seed);
  if (u % 64 < 2) k *= 0.8f;
  return scaled(rgb(0xc9ccc8), k);
}

// ---- walls -------------------------------------------------------------------------------------

static pixel wall(const layer *l, int u, int v) {
  float k = 1 + 0.06f * (rand2(u, v, l->seed) - 0.5f) +
            0.16f * (fractal((float)u, (float)v, 5, 4, l->seed) - 0.5f);
  return scaled(rgb(0xe8e4dc), k);
}
static pixel brick(const layer *l, int u, int v) { // bricks of 12 x 5 pixels
  int row = v / 5, uu = u + (row % 2) * 6;
  bool joint = v % 5 == 0 || uu % 12 == 0;
  float k = 0.86f + 0.28f * rand2(uu / 12, row, l->seed) + 0.1f * (rand2(u, v, l->seed) - 0.5f);
  return joint ? scaled(rgb(0xd6cfc6), 0.92f) : scaled(rgb(0xdcb8a6), k);
}
static pixel tiles(const layer *l, int u, int v) { // courses of 16 pixels, tiles 16 wide
  int row = v / 16, uu = u + (row % 2) * 8;
  float down = (float)(v % 16) / 16, across = (float)(uu % 16) / 16;
  float k = (0.80f + 0.25f * rand2(uu / 16 % 16, row, l->seed)) * (0.72f + 0.4f * down) *
            (0.85f + 0.3f * sinf(3.1416f * across));
  return scaled(rgb(0xd9d2cc), k + 0.06f * (rand2(u, v, l->seed) - 0.5f));
}
static pixel wood(const layer *l, int u, int v) {
  float grain = noise((float)u * 4, (float)v * 0.25f, 64, l->seed) - 0.5f;
  float k = (u % 32 < 3 ? 0.45f : 0.92f + 0.2f * rand2(u / 32, 0, l->seed)) * (1 + 0.35f * grain);
  return scaled(rgb(0x9b7f5e), k);
}
static pixel metal(const layer *l, int u, int v) {
  float k = 1 + 0.05f * (rand2(u, v, l->seed) - 0.5f) + 0.25f * sinf(6.2832f * (float)v / 128);
  return scaled(rgb(0xb4b8ba), k);
}
static pixel bark(const layer *l, int u, int v) {
  float k = 0.9f + 0.7f * (fractal((float)u * 1.0f, (float)v * 0.25f, 24, 3, l->seed) - 0.5f);
  return scaled(rgb(0x6b5a48), k);
}

/* One window with frame and sill; dark glass that mirrors the sky; alpha 1 where it is lit at
 * night. */
static void window(layer *l, int u0, int v0, int w, int h, pixel frame, bool lit, int bars) {
  frame.a = 0;
  rect(l, u0 - 3, v0 - 4, w + 6, 4, scaled(frame, 0.80f)); // sill
  rect(l, u0 - 2, v0, w + 4, h + 2, frame);
  for (int v = 0; v < h; v++)
    for (int u = 0; u < w; u++) {
      float up = (float)v / (float)h;
      float curtain = u < w / 5 || u >= w - w / 5 ? 0.5f : 0;
      pixel glass = mix(rgb(0x2b333b), rgb(0x6d7f8e), 0.15f + 0.55f * up * up);
      glass = mix(glass, rgb(0xb9b2a4), curtain * (0.4f + 0.4f * rand2(u0, v0, l->seed)));
      glass.a = lit ? 0.85f + 0.15f * up : 0;
      bool bar = (bars > 1 && u % (w / bars) == 0 && u) || v == h * 2 / 3;
      if (bar) {
        glass = frame;
        glass.a = 0;
      }
      l->p[(v0 + v) & (N - 1)][(u0 + u) & (N - 1)] = glass;
    }
  for (int u = -2; u < w + 2; u++) { // shade under the lintel
    pixel *p = &l->p[(v0 + h - 1) & (N - 1)][(u0 + u) & (N - 1)];
    *p = scaled(*p, 0.5f);
  }
}
static void windows(layer *l, int columns, int rows, float share_w, float share_h, pixel frame,
                    int bars) {
  int cw = N / columns, ch = N / rows;
  for (int j = 0; j < rows; j++)
    for (int i = 0; i < columns; i++) {
      int w = (int)((float)cw * share_w), h = (int)((float)ch * share_h);
      bool lit = rand2(i, j, l->seed + 11) < 0.42f;
      window(l, i * cw + (cw - w) / 2, j * ch + (int)(0.26f * (float)ch), w, h, frame, lit, bars);
    }
}
static void office(layer *l) {
  for (int v = 0; v < N; v++)
    for (int u = 0; u < N; u++) {
      int row = v / 64, col = u / 32;
      bool band = v % 64 < 18, mullion = u % 32 < 2 || v % 64 < 20;
      float up = (float)(v % 64 - 18) / 46;
      float tone = 0.85f + 0.3f * rand2(col, row, l->seed);
      pixel glass = scaled(mix(rgb(0x2f4453), rgb(0x7f98a6), 0.2f + 0.6f * up), tone);
      glass.a = rand2(col / 2, row, l->seed + 5) < 0.5f ? 0.8f : 0;
      pixel frame = scaled(rgb(0xb9bcbc), 0.96f + 0.06f * rand2(u, v, l->seed));
      frame.a = 0;
      l->p[v][u] = band ? frame : mullion ? scaled(frame, 0.6f) : glass;
    }
}
static void shop(layer *l) {
  static const uint32_t fascia[4] = {0xa03028, 0x2c5a8a, 0x2f6b42, 0xc48a2a};
  for (int v = 0; v < N; v++)
    for (int u = 0; u < N; u++) {
      int unit = u / 64, x = u % 64;
      pixel c = scaled(rgb(0xcfc9bf), 0.96f + 0.06f * rand2(u, v, l->seed));
      c.a = 0;
      if (x >= 4 && x < 60 && v >= 34 && v < 176) {
        float goods = fractal((float)u, (float)v, 20, 3, l->seed + (uint64_t)unit);
        c = mix(rgb(0x39424a), rgb(0xb8a88c), v < 110 ? goods * 1.2f - 0.3f : 0.1f);
        c.a = 1;
        if (x == 4 || x == 59 || v == 34 || x == 31) c = (pixel){0.2f, 0.2f, 0.22f, 0};
      } else if (v >= 184 && v < 232) {
        c = rgb(fascia[unit]);
        bool letter = v > 196 && v < 220 && x > 8 && x < 56 &&
                      rand2(x / 4, (v - 196) / 5, l->seed + (uint64_t)unit * 7) > 0.45f &&
                      (x / 4) % 3 != 2;
        if (letter) c = rgb(0xf6f1e4);
        c.a = letter ? 1.0f : 0.35f;
      } else if (v < 30) {
        c = scaled(c, 0.6f);
      }
      if (x < 4 || x >= 60) c = scaled(c, 0.85f);
      l->p[v][u] = c;
    }
}

// ---- leaves ------------------------------------------------------------------------------------

/* Leaves as overlapping discs with light and shade; alpha 0 between them. `shape` gives how densely
 * a place is covered, 0..1. */
static void leaves(layer *l, int n, float size, uint32_t dark, uint32_t light,
                   float (*shape)(float x, float y)) {
  for (int v = 0; v < N; v++)
    for (int u = 0; u < N; u++) l->p[v][u] = scaled(rgb(dark), 0.8f), l->p[v][u].a = 0;
  for (int k = 0; k < n; k++) {
    float x = rand2(k, 1, l->seed), y = rand2(k, 2, l->seed);
    if (rand2(k, 3, l->seed) > shape(2 * x - 1, 2 * y - 1)) continue;
    float r = size * (0.6f + 0.8f * rand2(k, 4, l->seed)), a = 3.14f * rand2(k, 5, l->seed);
    float tone = 0.55f + 0.45f * (float)k / (float)n + 0.25f * (y - 0.5f);
    pixel c = mix(rgb(dark), rgb(light), tone * (0.6f + 0.5f * rand2(k, 6, l->seed)));
    int u0 = (int)(x * N), v0 = (int)(y * N), reach = (int)r + 1;
    for (int dv = -reach; dv <= reach; dv++)
      for (int du = -reach; du <= reach; du++) {
        float p = (float)du * cosf(a) + (float)dv * sinf(a),
              q = -(float)du * sinf(a) + (float)dv * cosf(a);
        if (p * p + q * q * 3.2f > r * r) continue;
        int u = u0 + du, v = v0 + dv;
        if (u < 0 || v < 0 || u >= N || v >= N) continue;
        l->p[v][u] = scaled(c, 0.88f + 0.2f * (p / r));
        l->p[v][u].a = 1;
      }
  }
}
static float crown(float x, float y) { // a lumpy ball
  float r = sqrtf(x * x + y * y) + 0.10f * sinf(7 * atan2f(y, x) + 1) + 0.05f * sinf(13 * x);
  return r < 0.80f ? 1 : r < 0.97f ? 0.35f : 0;
}
static float spruce(float x, float y) { // narrower to the top, in tiers
  float up = 0.5f * (y + 1), tier = up * 8 - floorf(up * 8);
  float half = (1 - up) * 0.9f * (1.05f - 0.38f * tier) + 0.03f;
  return fabsf(x) < half * 0.9f && up < 0.985f ? 1 : fabsf(x) < half ? 0.3f : 0;
}
static float shrub(float x, float y) {
  float top = 0.55f + 0.3f * sinf(3.1f * x + 1) * cosf(5 * x);
  float side = 1 - powf(fabsf(x), 6);
  return y < top * side && fabsf(x) < 0.97f ? 1 : 0;
}

static pixel clouds(const layer *l, int u, int v) {
  float f = fractal((float)u, (float)v, 4, 6, l->seed);
  float g = fractal((float)u + 5, (float)v + 9, 4, 6, l->seed); // lit from one side
  float k = 0.90f + 0.9f * (f - g);
  return (pixel){k, k, k, f};
}

// ---- signs, drawn with cairo -------------------------------------------------------------------

const int dj__sign_limits[10] = {20, 30, 40, 50, 60, 70, 80, 100, 120, 130};

static void polygon(cairo_t *c, int n, double r, double turn) {
  for (int k = 0; k < n; k++)
    cairo_line_to(c, 32 + r * cos(turn + 2 * M_PI * k / n), 32 + r * sin(turn + 2 * M_PI * k / n));
  cairo_close_path(c);
}
static void fill(cairo_t *c, uint32_t rgb_) {
  cairo_set_source_rgb(c, (rgb_ >> 16 & 255) / 255.0, (rgb_ >> 8 & 255) / 255.0,
                       (rgb_ & 255) / 255.0);
  cairo_fill(c);
}
static void text(cairo_t *c, const char *s, double size, double y, uint32_t colour) {
  cairo_text_extents_t e;
  cairo_select_font_face(c, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_BOLD);
  cairo_set_font_size(c, size);
  cairo_text_extents(c, s, &e);
  cairo_move_to(c, 32 - e.x_bearing - e.width / 2, y - e.y_bearing - e.height / 2);
  cairo_text_path(c, s);
  fill(c, colour);
}
static void disc(cairo_t *c, double r, uint32_t colour) {
  cairo_arc(c, 32, 32, r, 0, 2 * M_PI);
  fill(c, colour);
}
static void draw_pedestrian(cairo_t *c) {
  cairo_rectangle(c, 2, 2, 60, 60);
  fill(c, 0x1f4fa0);
  cairo_move_to(c, 32, 7);
  cairo_line_to(c, 57, 53);
  cairo_line_to(c, 7, 53);
  cairo_close_path(c);
  fill(c, 0xffffff);
  cairo_arc(c, 33, 21, 3.6, 0, 2 * M_PI);
  fill(c, 0x101010);
  cairo_set_source_rgb(c, 0.06, 0.06, 0.06);
  cairo_set_line_width(c, 4);
  static const double limb[4][4] = {
      {33, 25, 32, 37}, {32, 37, 25, 49}, {32, 37, 39, 49}, {25, 31, 40, 31}};
  for (int k = 0; k < 4; k++) {
    cairo_move_to(c, limb[k][0], limb[k][1]);
    cairo_line_to(c, limb[k][2], limb[k][3]);
    cairo_stroke(c);
  }
}
static void draw_roundabout(cairo_t *c) {
  disc(c, 30, 0x1f4fa0);
  cairo_set_source_rgb(c, 1, 1, 1);
  cairo_set_line_width(c, 5);
  for (int k = 0; k < 3; k++) {
    double a = 2 * M_PI * k / 3;
    cairo_new_sub_path(c);
    cairo_arc(c, 32, 32, 16, a, a + 1.5);
    cairo_stroke(c);
    cairo_arc(c, 32 + 16 * cos(a), 32 + 16 * sin(a), 5, 0, 2 * M_PI);
    cairo_fill(c);
  }
}
static void draw_sign(cairo_t *c, int cell) {
  char number[8];
  switch (cell) {
  case DJ__SIGN_STOP:
    polygon(c, 8, 31, M_PI / 8), fill(c, 0xffffff);
    polygon(c, 8, 29, M_PI / 8), fill(c, 0xb5121b);
    text(c, "STOP", 17, 32, 0xffffff);
    break;
  case DJ__SIGN_GIVE_WAY:
    cairo_translate(c, 0, -7);
    polygon(c, 3, 36, M_PI / 2), fill(c, 0xb5121b);
    polygon(c, 3, 21, M_PI / 2), fill(c, 0xffffff);
    break;
  case DJ__SIGN_PRIORITY:
    polygon(c, 4, 31, 0), fill(c, 0xffffff);
    polygon(c, 4, 28, 0), fill(c, 0x202020);
    polygon(c, 4, 26.5, 0), fill(c, 0xffffff);
    polygon(c, 4, 20, 0), fill(c, 0xf2b90f);
    break;
  case DJ__SIGN_CROSSING:
    draw_pedestrian(c);
    break;
  case DJ__SIGN_ROUNDABOUT:
    draw_roundabout(c);
    break;
  case DJ__SIGN_BLANK:
    cairo_rectangle(c, 2, 12, 60, 40), fill(c, 0x1f4fa0);
    cairo_rectangle(c, 8, 22, 44, 4), fill(c, 0xffffff);
    cairo_rectangle(c, 8, 34, 30, 4), fill(c, 0xffffff);
    break;
  default:
    (void)snprintf(number, sizeof number, "%d", dj__sign_limits[cell - DJ__SIGN_LIMIT0]);
    disc(c, 31, 0xc4161c);
    disc(c, 23.5, 0xffffff);
    text(c, number, number[2] ? 23 : 31, 32, 0x101010);
  }
}
static dj_status signs(layer *l) {
  cairo_surface_t *s = cairo_image_surface_create(CAIRO_FORMAT_ARGB32, N, N);
  cairo_t *c = cairo_create(s);
  for (int cell = 0; cell < DJ__SIGN_CELLS; cell++) {
    cairo_save(c);
    cairo_translate(c, cell % 4 * 64, cell / 4 * 64);
    cairo_rectangle(c, 0, 0, 64, 64);
    cairo_clip(c);
    draw_sign(c, cell);
    cairo_restore(c);
  }
  cairo_surface_flush(s);
  cairo_status_t ok = cairo_status(c);
  const unsigned char *data = cairo_image_surface_get_data(s);
  int stride = cairo_image_surface_get_stride(s);
  for (int v = 0; v < N && !ok; v++)
    for (int u = 0; u < N; u++) { // premultiplied BGRA; grey where nothing is
      uint32_t q;
      memcpy(&q, data + (size_t)(N - 1 - v) * (size_t)stride + (size_t)u * 4, 4);
      pixel p = rgb(q & 0xffffff);
      p.a = (float)(q >> 24) / 255;
      if (p.a > 0) p = (pixel){p.r / p.a, p.g / p.a, p.b / p.a, p.a};
      l->p[v][u] = p;
    }
  cairo_destroy(c);
  cairo_surface_destroy(s);
  if (ok)
    return dj_error(DJ_E_NOMEM, "cameras: signs cannot be drawn: %s", cairo_status_to_string(ok));
  return DJ_OK;
}

/* 2 x 2: tyre with rim, grille, number plate, headlight. */
static pixel vehicle(const layer *l, int u, int v) {
  int cell = u / 128 + 2 * (v / 128), x = u % 128, y = v % 128;
  float fine = rand2(u, v, l->seed) - 0.5f;
  if (cell == 0) { // wheel
    float dx = ((float)x - 63.5f) / 64, dy = ((float)y - 63.5f) / 64, r = sqrtf(dx * dx + dy * dy);
    float a = atan2f(dy, dx) / 6.2832f * 5, spoke = fabsf(a - roundf(a));
    if (r > 0.66f) return scaled(rgb(0x26262a), 1 + 0.2f * fine);
    if (r > 0.60f || r < 0.16f) return rgb(0xb8babd);
    return spoke < 0.20f ? rgb(0xa9acb0) : rgb(0x303236);
  }
  if (cell == 1) return y / 10 % 2 ? rgb(0x1c1d20) : scaled(rgb(0x45484d), 1 + 0.2f * fine);
  if (cell == 2) {
    bool letter = y > 30 && y < 98 && x > 14 && x < 116 && x / 13 % 4 != 3 &&
                  rand2(x / 4, y / 12, l->seed) > 0.42f;
    return letter ? rgb(0x18181a) : rgb(0xefece0);
  }
  return scaled(rgb(0xe6ecf0), 0.85f + 0.2f * (float)(x / 16 % 2));
}

// ---- all ---------------------------------------------------------------------------------------

static void shade(layer *l, shade_fn *f) {
  for (int v = 0; v < N; v++)
    for (int u = 0; u < N; u++) l->p[v][u] = f(l, u, v);
}

static void opaque_dark(layer *l) { // walls are not lit from inside
  for (int v = 0; v < N; v++)
    for (int u = 0; u < N; u++) l->p[v][u].a = 0;
}

static dj_status make_layer(layer *l, dj__tex t) {
  static shade_fn *const simple[DJ__N_TEX] = {[DJ__TEX_ASPHALT] = asphalt,
                                              [DJ__TEX_ASPHALT_OLD] = asphalt,
                                              [DJ__TEX_PAVING] = paving,
                                              [DJ__TEX_KERB] = kerb,
                                              [DJ__TEX_GRASS] = grass,
                                              [DJ__TEX_FIELD] = field,
                                              [DJ__TEX_PAINT] = paint,
                                              [DJ__TEX_BRICK] = brick,
                                              [DJ__TEX_PLASTER] = wall,
                                              [DJ__TEX_HOUSE] = wall,
                                              [DJ__TEX_WALL] = wall,
                                              [DJ__TEX_TILES] = tiles,
                                              [DJ__TEX_GRAVEL] = gravel,
                                              [DJ__TEX_BARK] = bark,
                                              [DJ__TEX_WOOD] = wood,
                                              [DJ__TEX_METAL] = metal,
                                              [DJ__TEX_HALL_FLOOR] = hall_floor,
                                              [DJ__TEX_HALL_WALL] = hall_wall,
                                              [DJ__TEX_CLOUDS] = clouds,
                                              [DJ__TEX_VEHICLE] = vehicle};
  if (simple[t]) shade(l, simple[t]);
  switch (t) {
  case DJ__TEX_PLAIN:
    rect(l, 0, 0, N, N, rgb(0xffffff));
    break;
  case DJ__TEX_ASPHALT_OLD:
    asphalt_old(l);
    break;
  case DJ__TEX_BRICK:
    opaque_dark(l);
    windows(l, 4, 4, 0.42f, 0.50f, rgb(0xe9e4d8), 2);
    break;
  case DJ__TEX_PLASTER:
    opaque_dark(l);
    windows(l, 4, 4, 0.40f, 0.54f, rgb(0xd8d4cc), 1);
    break;
  case DJ__TEX_HOUSE:
    opaque_dark(l);
    windows(l, 3, 2, 0.44f, 0.40f, rgb(0xf4f2ec), 2);
    break;
  case DJ__TEX_WALL:
    opaque_dark(l);
    break;
  case DJ__TEX_OFFICE:
    office(l);
    break;
  case DJ__TEX_SHOP:
    shop(l);
    break;
  case DJ__TEX_LEAVES:
    leaves(l, 5200, 6.5f, 0x2c4018, 0x82a048, crown);
    break;
  case DJ__TEX_CONIFER:
    leaves(l, 9000, 4.5f, 0x1c3020, 0x4c6a40, spruce);
    break;
  case DJ__TEX_BUSH:
    leaves(l, 5200, 6.0f, 0x2e4520, 0x7c9850, shrub);
    break;
  case DJ__TEX_SIGNS:
    return signs(l);
  default:
    break;
  }
  return DJ_OK;
}

static uint8_t byte(float x) {
  return (uint8_t)(x <= 0 ? 0 : x >= 1 ? 255 : lrintf(255 * x));
}

dj_status dj__textures_make(uint64_t seed, uint8_t **rgba) {
  *rgba = malloc((size_t)DJ__N_TEX * N * N * 4);
  layer *l = malloc(sizeof *l);
  dj_status s = *rgba && l ? DJ_OK : dj_error(DJ_E_NOMEM, "cameras: no memory for textures");
  for (int t = 0; t < DJ__N_TEX && !s; t++) {
    l->seed = seed * 0x9e3779b97f4a7c15ull + (uint64_t)t * 7919;
    s = make_layer(l, (dj__tex)t);
    uint8_t *o = *rgba + (size_t)t * N * N * 4;
    for (int k = 0; k < N * N && !s; k++, o += 4) {
      const pixel *p = &l->p[k / N][k % N];
      o[0] = byte(p->r);
      o[1] = byte(p->g);
      o[2] = byte(p->b);
      o[3] = byte(p->a);
    }
  }
  free(l);
  if (s) {
    free(*rgba);
    *rgba = NULL;
  }
  return s;
}
