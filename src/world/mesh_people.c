/*
 * People: walkers with legs and arms that swing, cyclists and motorcyclists on their machines, and
 * the table of all models and colours.
 */
#include <math.h>
#include <string.h>

#include "world/mesh.h"

static void part(dj__mesh *m, dj__part p, uint32_t rgb) {
  dj__look(m, DJ__TEX_PLAIN, DJ__CLASS_PERSON, rgb);
  m->look.lamp = (uint8_t)p;
}
static void limb(dj__mesh *m, double x0, double y0, double z0, double x1, double y1, double z1,
                 double r0, double r1, double flat, int sides) {
  const double a[3] = {x0, y0, z0}, b[3] = {x1, y1, z1};
  dj__mesh_beam(m, a, b, r0, r1, flat, sides);
}

#define SHOE 0x2a2622

/* side +1 left. Legs take the second colour, arms the first: see the shader. */
static void leg(dj__mesh *m, int side, double hip, int lod) {
  int n = lod == 0 ? 7 : 4;
  part(m, side > 0 ? DJ__PART_LEG_LEFT : DJ__PART_LEG_RIGHT, 0xffffff);
  double y = side * 0.095;
  limb(m, 0, y, 0.50, 0, y, hip + 0.05, 0.068, 0.095, 1.1, n);
  limb(m, -0.01, y, 0.07, 0, y, 0.50, 0.048, 0.066, 1.1, n);
  m->look.c[0] = m->look.c[1] = m->look.c[2] = 70;
  limb(m, -0.07, y, 0.045, 0.19, y, 0.035, 0.045, 0.04, 0.9, n);
}
static void arm(dj__mesh *m, int side, double shoulder, uint32_t skin, int lod) {
  int n = lod == 0 ? 6 : 4;
  part(m, side > 0 ? DJ__PART_ARM_LEFT : DJ__PART_ARM_RIGHT, 0xf0f0f0);
  double y = side * 0.225;
  limb(m, 0.0, y * 1.06, shoulder - 0.33, 0, y, shoulder, 0.046, 0.06, 1, n);
  limb(m, 0.06, y * 1.06, shoulder - 0.58, 0.0, y * 1.06, shoulder - 0.33, 0.036, 0.046, 1, n);
  if (lod) return;
  part(m, DJ__PART_FIXED, skin);
  const double hand[3] = {0.07, y * 1.06, shoulder - 0.63};
  dj__mesh_ball(m, hand, 0.045, 1.2, 5, 3);
}
static void head(dj__mesh *m, double x, double z, uint32_t skin, uint32_t hair, int lod) {
  part(m, DJ__PART_FIXED, skin);
  const double c[3] = {x, 0, z};
  dj__mesh_ball(m, c, 0.10, 1.25, lod ? 5 : 8, lod ? 3 : 5);
  part(m, DJ__PART_FIXED, hair);
  const double h[3] = {x - 0.022, 0, z + 0.035};
  dj__mesh_ball(m, h, 0.106, 1.05, lod ? 5 : 8, lod ? 3 : 4);
}

static void walker(dj__model *d, int kind) {
  static const uint32_t skin[3] = {0xd8a888, 0x8a5f46, 0xe2b89a},
                        hair[3] = {0x3a2c20, 0x161412, 0x9a7a4a};
  d->length = 0.5f;
  d->width = 0.5f;
  d->height = 1.76f;
  d->hip = 0.88f;
  d->shoulder = 1.42f;
  for (int lod = 0; lod < DJ__ACTOR_LODS; lod++) {
    dj__mesh *m = &d->lod[lod];
    int n = lod == 0 ? 8 : 5;
    for (int side = -1; side <= 1; side += 2) {
      leg(m, side, d->hip, lod);
      if (lod < 2) arm(m, side, d->shoulder, skin[kind], lod);
    }
    part(m, DJ__PART_BODY, 0xffffff);
    double skirt = kind == 2 ? 0.72 : 0.84; // a coat
    limb(m, 0, 0, skirt, 0, 0, 1.14, kind == 2 ? 0.20 : 0.165, 0.165, 0.68, n);
    limb(m, 0, 0, 1.14, 0, 0, 1.44, 0.165, 0.20, 0.62, n);
    limb(m, 0, 0, 1.44, 0, 0, 1.51, 0.20, 0.06, 0.62, n);
    part(m, DJ__PART_FIXED, skin[kind]);
    limb(m, 0, 0, 1.48, 0.01, 0, 1.56, 0.055, 0.05, 1, n);
    head(m, 0.015, 1.635, skin[kind], hair[kind], lod);
    if (kind == 1 && lod < 2) { // a rucksack
      part(m, DJ__PART_FIXED, 0x3c4a5a);
      dj__mesh_box(m, -0.17, 0, 1.05, 1.42, 0.14, 0.28, 0, 1, true);
    }
  }
}

static void thin_wheel(dj__mesh *m, double x, double r, double width, int sides, dj__part p,
                       bool spokes) {
  for (int k = 0; k < sides; k++) { // a ring of small beams
    double a = 2 * M_PI * k / sides, b = 2 * M_PI * (k + 1) / sides;
    part(m, p, 0x1c1c1e);
    limb(m, x + r * cos(a), 0, r + r * sin(a), x + r * cos(b), 0, r + r * sin(b), width, width, 1,
         4);
    if (!spokes || k % 2) continue;
    part(m, p, 0x8d9094);
    limb(m, x, 0, r, x + r * cos(a), 0, r + r * sin(a), 0.008, 0.008, 1, 3);
  }
}

static void rider(dj__mesh *m, double seat_x, double seat_z, double lean, double bar_x,
                  double bar_z, double pedal_x, double pedal_z, bool helmet, int lod) {
  int n = lod == 0 ? 7 : 4;
  double sx = seat_x + lean, sz = seat_z + 0.52;
  part(m, DJ__PART_BODY, 0xffffff);
  limb(m, seat_x, 0, seat_z, sx, 0, sz, 0.15, 0.19, 0.65, n);
  for (int side = -1; side <= 1; side += 2) {
    part(m, DJ__PART_BODY, 0xe8e8e8);
    limb(m, sx, side * 0.19, sz - 0.03, bar_x, side * 0.25, bar_z, 0.055, 0.04, 1, lod ? 4 : 5);
    part(m, DJ__PART_SECOND, 0xffffff);
    double knee_x = 0.5 * (seat_x + pedal_x) + 0.26, knee_z = 0.5 * (seat_z + pedal_z) + 0.10;
    double foot = pedal_z + side * 0.08;
    limb(m, knee_x, side * 0.12, knee_z + side * 0.05, seat_x, side * 0.09, seat_z, 0.065, 0.085, 1,
         lod ? 4 : 6);
    limb(m, pedal_x, side * 0.12, foot, knee_x, side * 0.12, knee_z + side * 0.05, 0.045, 0.065, 1,
         lod ? 4 : 6);
    part(m, DJ__PART_FIXED, SHOE);
    limb(m, pedal_x - 0.06, side * 0.12, foot, pedal_x + 0.16, side * 0.12, foot, 0.04, 0.035, 1,
         4);
  }
  if (helmet) {
    part(m, DJ__PART_BODY, 0xf4f4f4);
    const double c[3] = {sx + 0.05, 0, sz + 0.20};
    dj__mesh_ball(m, c, 0.14, 1.1, lod ? 5 : 8, lod ? 3 : 5);
    part(m, DJ__PART_FIXED, 0x15181c);
    m->look.n[3] = 110;
    dj__mesh_box(m, sx + 0.155, 0, sz + 0.16, sz + 0.25, 0.06, 0.2, 0, 1, false);
  } else {
    head(m, sx + 0.05, sz + 0.19, 0xd4a484, 0x2a2420, lod);
  }
}

static void cyclist(dj__model *d) {
  d->length = 1.75f;
  d->width = 0.6f;
  d->height = 1.75f;
  d->axle[0] = 0.52f;
  d->axle[1] = -0.52f;
  d->wheel_r = 0.34f;
  for (int lod = 0; lod < DJ__ACTOR_LODS; lod++) {
    dj__mesh *m = &d->lod[lod];
    int sides = lod == 0 ? 12 : lod == 1 ? 8 : 6;
    thin_wheel(m, 0.52, 0.34, 0.022, sides, DJ__PART_FRONT_WHEEL, lod == 0);
    thin_wheel(m, -0.52, 0.34, 0.022, sides, DJ__PART_REAR_WHEEL, lod == 0);
    part(m, DJ__PART_SECOND, 0xffffff);
    double r = lod == 2 ? 0.03 : 0.02;
    limb(m, -0.20, 0, 0.90, -0.05, 0, 0.32, r, r, 1, 4);
    limb(m, -0.05, 0, 0.32, 0.38, 0, 0.78, r, r, 1, 4);
    limb(m, -0.17, 0, 0.80, 0.38, 0, 0.84, r, r, 1, 4);
    limb(m, 0.52, 0, 0.34, 0.38, 0, 0.92, r, r, 1, 4);
    if (lod < 2) {
      limb(m, -0.52, 0, 0.34, -0.05, 0, 0.32, r, r, 1, 4);
      limb(m, -0.52, 0, 0.34, -0.18, 0, 0.82, r, r, 1, 4);
    }
    part(m, DJ__PART_FIXED, 0x202022);
    limb(m, 0.36, -0.26, 1.02, 0.36, 0.26, 1.02, 0.02, 0.02, 1, 4);
    limb(m, -0.30, 0, 0.95, -0.08, 0, 0.95, 0.07, 0.03, 0.4, 4);
    rider(m, -0.20, 0.95, 0.22, 0.36, 1.03, -0.03, 0.33, false, lod);
    part(m, DJ__PART_HEAD, 0xe0e0d8);
    limb(m, 0.42, 0, 0.94, 0.46, 0, 0.94, 0.035, 0.035, 1, 4);
    part(m, DJ__PART_TAIL, 0x8e1016);
    limb(m, -0.34, 0, 0.84, -0.31, 0, 0.84, 0.03, 0.03, 1, 4);
  }
}

static void motorcyclist(dj__model *d) {
  d->length = 2.15f;
  d->width = 0.8f;
  d->height = 1.5f;
  d->axle[0] = 0.74f;
  d->axle[1] = -0.68f;
  d->wheel_r = 0.32f;
  for (int lod = 0; lod < DJ__ACTOR_LODS; lod++) {
    dj__mesh *m = &d->lod[lod];
    int sides = lod == 0 ? 12 : 7;
    thin_wheel(m, 0.74, 0.27, 0.065, sides, DJ__PART_FRONT_WHEEL, false);
    thin_wheel(m, -0.68, 0.26, 0.08, sides, DJ__PART_REAR_WHEEL, false);
    part(m, DJ__PART_SECOND, 0xffffff);
    m->look.n[3] = 80;
    limb(m, -0.15, 0, 0.80, 0.45, 0, 0.88, 0.14, 0.16, 0.9, lod ? 4 : 8); // tank
    limb(m, 0.45, 0, 0.85, 0.72, 0, 0.90, 0.15, 0.10, 1.2, lod ? 4 : 8);  // fairing
    limb(m, -0.85, 0, 0.86, -0.15, 0, 0.76, 0.06, 0.13, 0.6, lod ? 4 : 6);
    part(m, DJ__PART_FIXED, 0x3a3c40);
    limb(m, -0.35, 0, 0.42, 0.40, 0, 0.48, 0.15, 0.17, 1.2, lod ? 4 : 6); // engine
    limb(m, 0.74, 0, 0.30, 0.50, 0, 0.95, 0.06, 0.07, 1, 4);
    limb(m, -0.68, 0, 0.30, -0.15, 0, 0.45, 0.06, 0.08, 1, 4);
    limb(m, -0.80, -0.16, 0.40, -0.1, -0.16, 0.34, 0.05, 0.05, 1, 5); // exhaust
    limb(m, 0.42, -0.34, 1.02, 0.42, 0.34, 1.02, 0.022, 0.022, 1, 4);
    rider(m, -0.28, 0.84, 0.26, 0.42, 1.02, -0.02, 0.42, true, lod);
    part(m, DJ__PART_HEAD, 0xe0e0d8);
    limb(m, 0.72, 0, 0.90, 0.80, 0, 0.90, 0.085, 0.075, 1, lod ? 4 : 8);
    part(m, DJ__PART_TAIL, 0x8e1016);
    dj__mesh_box(m, -0.90, 0, 0.82, 0.90, 0.05, 0.16, 0, 1, true);
    for (int side = -1; side <= 1; side += 2) {
      part(m, side > 0 ? DJ__PART_LEFT : DJ__PART_RIGHT, 0xb06a18);
      dj__mesh_box(m, -0.86, side * 0.16, 0.80, 0.86, 0.05, 0.06, 0, 1, true);
      dj__mesh_box(m, 0.70, side * 0.20, 0.84, 0.90, 0.05, 0.06, 0, 1, true);
    }
    part(m, DJ__PART_FIXED, 0xe8e8e4);
    dj__mesh_box(m, -0.93, 0, 0.60, 0.75, 0.02, 0.2, 0, 1, true);
  }
}

void dj__model_person(dj__model *m, int index) {
  if (index == 6) motorcyclist(m);
  if (index == 7) cyclist(m);
  if (index >= 8 && index <= 10) walker(m, index - 8);
}

// ---- all models --------------------------------------------------------------------------------

int dj__model_of(dj__kind kind, uint8_t variant) {
  switch (kind) {
  case DJ__CAR:
    return variant % 3;
  case DJ__VAN:
    return 3;
  case DJ__LORRY:
    return 4;
  case DJ__BUS:
    return 5;
  case DJ__MOTORCYCLE:
    return 6;
  case DJ__CYCLIST:
    return 7;
  case DJ__PEDESTRIAN:
    return 8 + variant % 3;
  case DJ__CONE:
    return 11;
  case DJ__BARRIER:
    return 12;
  case DJ__RC_CAR:
    return 13;
  default:
    return 1;
  }
}

dj_status dj__models_make(dj__model model[DJ__MODELS]) {
  bool failed = false;
  for (int k = 0; k < DJ__MODELS; k++) {
    model[k] = (dj__model){.length = 1, .width = 1, .height = 1};
    dj__model_vehicle(&model[k], k);
    dj__model_person(&model[k], k);
    for (int l = 0; l < DJ__ACTOR_LODS; l++) failed |= model[k].lod[l].failed;
  }
  if (!failed) return DJ_OK;
  dj__models_free(model);
  return dj_error(DJ_E_NOMEM, "cameras: no memory for models");
}

void dj__models_free(dj__model model[DJ__MODELS]) {
  for (int k = 0; k < DJ__MODELS; k++)
    for (int l = 0; l < DJ__ACTOR_LODS; l++) dj__mesh_free(&model[k].lod[l]);
}

void dj__actor_colours(dj__kind kind, uint8_t variant, uint32_t rgb[2]) {
  // Shares of colours on European roads: greys, white and black first.
  static const uint32_t cars[16] = {0xd9dbdc, 0x9a9fa4, 0x6b7076, 0x2b2d31, 0x1a1b1e, 0xe9eaea,
                                    0x7d8288, 0x8e1b1e, 0x24497c, 0x3b5e8c, 0x5a6b4a, 0xb8b2a4,
                                    0xc8342a, 0x1f3350, 0xcaa23a, 0x46494e};
  static const uint32_t vans[8] = {0xeeeeec, 0xe4e4e2, 0xc9cbcc, 0x2f5a94,
                                   0xd8b23a, 0xa8241e, 0x555a60, 0xf2f2f0};
  static const uint32_t lorries[8] = {0xb02a22, 0x2a5590, 0xe6e6e4, 0x2f6a44,
                                      0xd07a20, 0x3c4046, 0xdcdcd8, 0x6a1f2c};
  static const uint32_t buses[4] = {0xc8281e, 0xe0b020, 0x2c6aa8, 0x3f8a52};
  static const uint32_t clothes[16] = {0x2c3440, 0x7a2a2e, 0x3f5f4a, 0xb8a888, 0x1e1f24, 0x5a6c84,
                                       0xa04a2c, 0xd6d2c8, 0x4a3a58, 0xc0a030, 0x6b7a3a, 0x303c5c,
                                       0x8a8f94, 0xc86a7a, 0x24484c, 0xe4e2dc};
  static const uint32_t trousers[8] = {0x2a3348, 0x3a3a3e, 0x1c1d20, 0x6a5a46,
                                       0x4a5870, 0x28303a, 0x7a7468, 0x38424e};
  unsigned v = variant;
  rgb[0] = rgb[1] = 0xffffff;
  switch (kind) {
  case DJ__CAR:
    rgb[0] = cars[v / 3 % 16];
    break;
  case DJ__VAN:
    rgb[0] = vans[v % 8];
    break;
  case DJ__LORRY:
    rgb[0] = lorries[v % 8];
    break;
  case DJ__BUS:
    rgb[0] = buses[v % 4];
    break;
  case DJ__RC_CAR:
    rgb[0] = cars[(v + 8) % 16];
    break;
  case DJ__MOTORCYCLE:
    rgb[0] = clothes[(v * 5 + 4) % 16];
    rgb[1] = cars[(v * 3 + 7) % 16];
    break;
  case DJ__CYCLIST:
  case DJ__PEDESTRIAN:
    rgb[0] = clothes[v * 7 % 16];
    rgb[1] = trousers[v * 3 % 8];
    break;
  default:
    break;
  }
}
