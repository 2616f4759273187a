/*
 * Vehicles: bodies lofted through cross-sections from tail to nose, with windows, lamps, plates and
 * wheels that turn. Models stand on the ground, x ahead, their box's middle at the origin. Three
 * levels of detail, of some 400, 200 and 60 triangles.
 *
 * Also what stands in roadworks: cones and barriers.
 */
#include <math.h>
#include <string.h>

#include "world/mesh.h"

enum { SIDE_GLASS = 1, TOP_GLASS = 2, DARK_TOP = 4 };
typedef struct section {
  double x, low, belt, top; /* m: heights of the sill, the windows' lower edge, the roof */
  double wide, roof;        /* half widths at the belt and at the roof */
  int flags;                /* of the piece up to the next section */
} section;

static const section hatchback[] = {{-2.02, 0.48, 0.86, 0.88, 0.74, 0.70, 0},
                                    {-1.96, 0.28, 0.96, 1.02, 0.82, 0.74, SIDE_GLASS | TOP_GLASS},
                                    {-1.62, 0.22, 0.98, 1.38, 0.86, 0.62, SIDE_GLASS},
                                    {-0.70, 0.20, 0.95, 1.48, 0.88, 0.64, SIDE_GLASS},
                                    {0.15, 0.20, 0.93, 1.46, 0.88, 0.64, SIDE_GLASS | TOP_GLASS},
                                    {1.02, 0.20, 0.92, 0.98, 0.87, 0.78, 0},
                                    {1.70, 0.22, 0.82, 0.85, 0.83, 0.72, 0},
                                    {1.98, 0.30, 0.68, 0.72, 0.76, 0.66, 0},
                                    {2.03, 0.42, 0.60, 0.62, 0.70, 0.62, 0}};
static const section sedan[] = {{-2.28, 0.46, 0.82, 0.84, 0.74, 0.70, 0},
                                {-2.18, 0.28, 0.96, 0.98, 0.83, 0.78, 0},
                                {-1.60, 0.22, 0.99, 1.02, 0.88, 0.80, SIDE_GLASS | TOP_GLASS},
                                {-0.95, 0.20, 0.97, 1.38, 0.89, 0.62, SIDE_GLASS},
                                {-0.25, 0.20, 0.95, 1.44, 0.90, 0.64, SIDE_GLASS},
                                {0.35, 0.20, 0.94, 1.40, 0.90, 0.64, SIDE_GLASS | TOP_GLASS},
                                {1.10, 0.20, 0.92, 0.96, 0.89, 0.80, 0},
                                {1.95, 0.22, 0.81, 0.84, 0.88, 0.76, 0},
                                {2.22, 0.27, 0.67, 0.70, 0.82, 0.70, 0},
                                {2.28, 0.42, 0.58, 0.60, 0.72, 0.62, 0}};
static const section estate[] = {{-2.32, 0.48, 0.84, 0.86, 0.76, 0.72, 0},
                                 {-2.26, 0.28, 0.98, 1.06, 0.84, 0.74, SIDE_GLASS | TOP_GLASS},
                                 {-2.00, 0.22, 1.00, 1.46, 0.88, 0.66, SIDE_GLASS},
                                 {-0.80, 0.20, 0.98, 1.56, 0.91, 0.68, SIDE_GLASS},
                                 {0.20, 0.20, 0.97, 1.54, 0.91, 0.68, SIDE_GLASS | TOP_GLASS},
                                 {1.05, 0.20, 0.97, 1.03, 0.90, 0.80, 0},
                                 {1.90, 0.24, 0.88, 0.92, 0.86, 0.76, 0},
                                 {2.26, 0.32, 0.74, 0.78, 0.80, 0.70, 0},
                                 {2.32, 0.44, 0.64, 0.66, 0.74, 0.64, 0}};
static const section van[] = {{-2.65, 0.40, 1.10, 2.10, 0.93, 0.84, 0},
                              {-2.58, 0.26, 1.15, 2.22, 0.97, 0.87, 0},
                              {0.70, 0.24, 1.15, 2.24, 0.98, 0.86, SIDE_GLASS},
                              {1.30, 0.24, 1.12, 2.08, 0.98, 0.80, SIDE_GLASS | TOP_GLASS},
                              {2.02, 0.24, 1.12, 1.20, 0.96, 0.84, 0},
                              {2.48, 0.26, 0.98, 1.04, 0.92, 0.80, 0},
                              {2.62, 0.38, 0.76, 0.80, 0.84, 0.74, 0}};
static const section bus[] = {{-6.0, 0.42, 1.25, 2.90, 1.20, 1.10, 0},
                              {-5.9, 0.32, 1.20, 3.02, 1.25, 1.205, SIDE_GLASS},
                              {5.70, 0.32, 1.20, 3.02, 1.25, 1.205, SIDE_GLASS},
                              {5.92, 0.32, 1.20, 2.96, 1.24, 1.12, 0},
                              {6.0, 0.36, 1.15, 2.80, 1.20, 1.05, 0}};
static const section cab[] = {{1.75, 0.55, 1.55, 3.05, 1.22, 1.12, 0},
                              {2.60, 0.55, 1.55, 3.05, 1.24, 1.14, SIDE_GLASS},
                              {3.55, 0.50, 1.50, 2.90, 1.24, 1.10, SIDE_GLASS | TOP_GLASS},
                              {3.85, 0.46, 1.45, 1.55, 1.22, 1.15, 0},
                              {3.92, 0.46, 1.30, 1.36, 1.18, 1.10, 0}};
static const section buggy[] = {{-0.20, 0.060, 0.10, 0.11, 0.060, 0.05, 0},
                                {-0.12, 0.045, 0.11, 0.13, 0.075, 0.05, SIDE_GLASS},
                                {-0.02, 0.045, 0.11, 0.165, 0.075, 0.05, SIDE_GLASS | TOP_GLASS},
                                {0.07, 0.045, 0.10, 0.105, 0.07, 0.055, 0},
                                {0.20, 0.055, 0.075, 0.08, 0.05, 0.04, 0}};

#define GLASS 0x20262c

static void paint(dj__mesh *m) {
  dj__look(m, DJ__TEX_PLAIN, DJ__CLASS_CAR, 0xffffff);
  m->look.lamp = DJ__PART_BODY;
  m->look.n[3] = 95;
}
static void fixed(dj__mesh *m, uint32_t rgb, int gloss) {
  dj__look(m, DJ__TEX_PLAIN, DJ__CLASS_CAR, rgb);
  m->look.lamp = DJ__PART_FIXED;
  m->look.n[3] = (int8_t)gloss;
}
static void glass(dj__mesh *m) {
  fixed(m, GLASS, 120);
}
static void lamp(dj__mesh *m, dj__part part, uint32_t rgb) {
  fixed(m, rgb, 60);
  m->look.lamp = (uint8_t)part;
}

static const double no_uv[4][2] = {{0, 0}, {0.1, 0}, {0.1, 0.1}, {0, 0.1}};

static void quad(dj__mesh *m, const double a[3], const double b[3], const double c[3],
                 const double d[3]) {
  double p[4][3];
  memcpy(p[0], a, sizeof p[0]);
  memcpy(p[1], b, sizeof p[0]);
  memcpy(p[2], c, sizeof p[0]);
  memcpy(p[3], d, sizeof p[0]);
  dj__mesh_quad(m, p, no_uv);
}
/* The same on both sides of the vehicle. */
static void both(dj__mesh *m, const double a[3], const double b[3], const double c[3],
                 const double d[3]) {
  quad(m, a, b, c, d);
  const double e[4][3] = {
      {a[0], -a[1], a[2]}, {d[0], -d[1], d[2]}, {c[0], -c[1], c[2]}, {b[0], -b[1], b[2]}};
  quad(m, e[0], e[1], e[2], e[3]);
}

static double sill_wide(const section *s) {
  return s->wide * 0.97;
}

static void loft_piece(dj__mesh *m, const section *s, const section *t) {
  // left side (y > 0), from the front to the tail so that it faces outwards
  double ms = s->low + 0.45 * (s->belt - s->low), mt = t->low + 0.45 * (t->belt - t->low);
  const double sl[3] = {s->x, sill_wide(s), s->low}, tl[3] = {t->x, sill_wide(t), t->low},
               sm[3] = {s->x, s->wide, ms}, tm[3] = {t->x, t->wide, mt},
               sb[3] = {s->x, s->wide * 0.97, s->belt}, tb[3] = {t->x, t->wide * 0.97, t->belt},
               st[3] = {s->x, s->roof, s->top}, tt[3] = {t->x, t->roof, t->top};
  paint(m);
  m->look.c[3] = 170;
  both(m, tl, sl, sm, tm);
  m->look.c[3] = 255;
  both(m, tm, sm, sb, tb);
  if (s->flags & SIDE_GLASS) glass(m);
  both(m, tb, sb, st, tt);
  paint(m);
  if (s->flags & TOP_GLASS) glass(m);
  const double sr[3] = {s->x, -s->roof, s->top}, tr[3] = {t->x, -t->roof, t->top};
  quad(m, st, sr, tr, tt);
}

static void loft(dj__mesh *m, const section *s, int n, bool coarse) {
  for (int k = 0; k + 1 < n; k++) loft_piece(m, &s[k], &s[k + 1]);
  fixed(m, 0x101114, 0);
  m->look.c[3] = 60;
  const section *a = &s[coarse ? 0 : 1], *b = &s[coarse ? n - 1 : n - 2];
  const double u[4][3] = {{a->x, a->wide * 0.9, a->low},
                          {b->x, b->wide * 0.9, b->low},
                          {b->x, -b->wide * 0.9, b->low},
                          {a->x, -a->wide * 0.9, a->low}};
  quad(m, u[0], u[1], u[2], u[3]);
  paint(m);
  for (int e = 0; e < 2; e++) { // tail and nose
    const section *q = e ? &s[n - 1] : &s[0];
    const double p[6][3] = {{q->x, sill_wide(q), q->low}, {q->x, q->wide, q->belt},
                            {q->x, q->roof, q->top},      {q->x, -q->roof, q->top},
                            {q->x, -q->wide, q->belt},    {q->x, -sill_wide(q), q->low}};
    if (e) {
      quad(m, p[5], p[0], p[1], p[4]);
      quad(m, p[4], p[1], p[2], p[3]);
    } else {
      quad(m, p[0], p[5], p[4], p[1]);
      quad(m, p[1], p[4], p[3], p[2]);
    }
  }
}

/* A plate on the nose (facing +x) or the tail, textured with a cell of the vehicle texture (-1:
 * plain). */
static void plate(dj__mesh *m, double x, double y0, double y1, double z0, double z1, bool front,
                  int cell) {
  double u0 = cell < 0 ? 0 : cell % 2 * 0.5, v0 = cell < 0 ? 0 : cell / 2 * 0.5;
  double w = cell < 0 ? 0.05 : 0.49, e = 0.005;
  double uv[4][2] = {{u0 + e, v0 + e}, {u0 + w, v0 + e}, {u0 + w, v0 + w}, {u0 + e, v0 + w}};
  if (cell >= 0) m->look.tex = DJ__TEX_VEHICLE;
  double p[4][3] = {{x, y0, z0}, {x, y1, z0}, {x, y1, z1}, {x, y0, z1}};
  if (!front) {
    p[0][1] = p[3][1] = y1;
    p[1][1] = p[2][1] = y0;
  }
  dj__mesh_quad(m, p, uv);
  m->look.tex = DJ__TEX_PLAIN;
}

static void wheel(dj__mesh *m, double x, double y, double r, double width, int sides,
                  dj__part part) {
  fixed(m, 0xffffff, 0);
  m->look.lamp = (uint8_t)part;
  m->look.tex = DJ__TEX_VEHICLE;
  double out = y > 0 ? 1 : y < 0 ? -1 : 0;
  uint32_t tread[2][17];
  for (int k = 0; k <= sides && k < 17; k++) {
    double a = 2 * M_PI * k / sides, n[3] = {cos(a), 0, sin(a)};
    for (int e = 0; e < 2; e++) {
      double p[3] = {x + r * n[0], y + (e ? 0.5 : -0.5) * width, r + r * n[2]};
      tread[e][k] = dj__mesh_vertex(m, p, n, 0.02, 0.02);
    }
  }
  for (int k = 0; k < sides; k++) {
    dj__mesh_triangle(m, tread[0][k], tread[1][k + 1], tread[1][k]);
    dj__mesh_triangle(m, tread[0][k], tread[0][k + 1], tread[1][k + 1]);
  }
  for (int e = -1; e <= 1; e += 2) { // outer faces
    if (out != 0 && e != out) continue;
    double n[3] = {0, e, 0};
    uint32_t first = 0, last = 0;
    for (int k = 0; k < sides; k++) {
      double a = 2 * M_PI * k / sides * e;
      double p[3] = {x + r * sin(a), y + e * 0.5 * width, r + r * cos(a)};
      uint32_t i = dj__mesh_vertex(m, p, n, 0.25 + 0.247 * sin(a), 0.25 + 0.247 * cos(a));
      if (k == 0) first = i;
      if (k > 1) dj__mesh_triangle(m, first, last, i);
      last = i;
    }
  }
}

/* Dark half discs over the wheels, just outside of the body. */
static void arch(dj__mesh *m, double x, double y, double r, double low, int sides) {
  fixed(m, 0x0c0c0e, 0);
  for (int side = -1; side <= 1; side += 2) {
    double n[3] = {0, side, 0};
    uint32_t first = 0, last = 0;
    for (int k = 0; k <= sides; k++) {
      double a = M_PI * k / sides,
             p[3] = {x - side * r * cos(a), side * y, fmax(low, r * 0.9 + r * sin(a) * 1.02)};
      uint32_t i = dj__mesh_vertex(m, p, n, 0, 0);
      if (k == 0) first = i;
      if (k > 1) dj__mesh_triangle(m, first, i, last);
      last = i;
    }
  }
}

static void wheels(dj__mesh *m, const dj__model *d, int lod, double body_wide) {
  int sides = lod == 0 ? 14 : lod == 1 ? 8 : 5;
  for (int axle = 0; axle < 2; axle++) {
    double x = d->axle[axle], r = d->wheel_r;
    dj__part part = axle ? DJ__PART_REAR_WHEEL : DJ__PART_FRONT_WHEEL;
    if (lod < 2) arch(m, x, body_wide + 0.004, r * 1.16, 0.2 * r, lod ? 6 : 10);
    for (int side = -1; side <= 1; side += 2)
      wheel(m, x, side * d->wheel_y, r, 0.62 * r, sides, part);
  }
}

static void lamps(dj__mesh *m, const section *s, int n, double front_z, double tail_z, double size,
                  double inset) {
  const section *a = &s[0], *b = &s[n - 1];
  double xf = b->x + 0.012, xr = a->x - 0.012, wf = b->wide - inset, wr = a->wide - inset;
  for (int side = -1; side <= 1; side += 2) {
    double y0 = side * wf, y1 = side * (wf - 1.9 * size), lo, hi;
    lo = fmin(y0, y1), hi = fmax(y0, y1);
    lamp(m, DJ__PART_HEAD, 0xdfe6ea);
    plate(m, xf, lo, hi, front_z, front_z + size, true, -1);
    lamp(m, side > 0 ? DJ__PART_LEFT : DJ__PART_RIGHT, 0xc07820);
    plate(m, xf + 0.002, side > 0 ? hi - 0.05 : lo, side > 0 ? hi : lo + 0.05, front_z - 0.05,
          front_z + size, true, -1);
    y0 = side * wr, y1 = side * (wr - 1.3 * size);
    lo = fmin(y0, y1), hi = fmax(y0, y1);
    lamp(m, DJ__PART_TAIL, 0x8e1016);
    plate(m, xr, lo, hi, tail_z, tail_z + 1.25 * size, false, -1);
    lamp(m, side > 0 ? DJ__PART_LEFT : DJ__PART_RIGHT, 0xb06a18);
    plate(m, xr - 0.002, lo, hi, tail_z - 0.08, tail_z - 0.005, false, -1);
    if (side > 0) {
      lamp(m, DJ__PART_REVERSE, 0xd8d8d8);
      plate(m, xr - 0.002, y1 - 0.10, y1, tail_z, tail_z + 0.1, false, -1);
    }
  }
}

static void plates(dj__mesh *m, const section *s, int n, double z) {
  fixed(m, 0xffffff, 0);
  plate(m, s[n - 1].x + 0.016, -0.26, 0.26, z, z + 0.12, true, 2);
  plate(m, s[0].x - 0.016, -0.26, 0.26, z + 0.12, z + 0.24, false, 2);
}

static void mirrors(dj__mesh *m, double x, double y, double z) {
  for (int side = -1; side <= 1; side += 2) {
    paint(m);
    dj__mesh_box(m, x, side * (y + 0.09), z, z + 0.13, 0.11, 0.18, 0, 1, true);
  }
}

static void car(dj__model *d, const section *s, int n, double rear, double front) {
  d->length = (float)(s[n - 1].x - s[0].x + 0.03);
  d->width = 1.82f;
  double top = 0;
  for (int k = 0; k < n; k++) top = fmax(top, s[k].top);
  d->height = (float)top;
  d->axle[0] = (float)front;
  d->axle[1] = (float)rear;
  d->wheel_y = 0.76f;
  d->wheel_r = 0.32f;
  for (int lod = 0; lod < DJ__ACTOR_LODS; lod++) {
    dj__mesh *m = &d->lod[lod];
    if (lod < 2) {
      loft(m, s, n, false);
    } else { // every other section
      section few[8];
      int k = 0;
      for (int i = 0; i < n && k < 8; i++)
        if (i == 0 || i == n - 1 || (i != 1 && i != n - 2)) few[k++] = s[i];
      loft(m, few, k, true);
    }
    fixed(m, 0x0e0f11, 0); // the floor, between the wheels
    m->look.c[3] = 90;
    dj__mesh_box(m, 0, 0, 0.17, 0.52, d->length - 0.5, 1.36, 0, 1, false);
    wheels(m, d, lod, 0.905);
    lamps(m, s, n, s[n - 1].low + 0.10, s[0].belt - 0.24, 0.16, 0.02);
    if (lod == 2) continue;
    plates(m, s, n, 0.40);
    if (lod == 0) {
      mirrors(m, 0.72, 0.86, 0.96);
      fixed(m, 0xffffff, 20);
      plate(m, s[n - 1].x + 0.010, -0.42, 0.42, 0.40, 0.56, true, 1);
    }
  }
}

static void big(dj__model *d, double length, double width, double height, double rear, double front,
                double r) {
  d->length = (float)length;
  d->width = (float)width;
  d->height = (float)height;
  d->axle[0] = (float)front;
  d->axle[1] = (float)rear;
  d->wheel_y = (float)(0.5 * width - 0.24);
  d->wheel_r = (float)r;
}

static void make_van(dj__model *d) {
  enum { N = sizeof van / sizeof *van };
  big(d, 5.3, 1.98, 2.24, -1.65, 1.70, 0.35);
  d->wheel_y = 0.86f;
  for (int lod = 0; lod < DJ__ACTOR_LODS; lod++) {
    dj__mesh *m = &d->lod[lod];
    loft(m, van, N, lod == 2);
    wheels(m, d, lod, 0.985);
    lamps(m, van, N, 0.80 - 0.28, 0.95, 0.20, 0.03);
    glass(m);
    if (lod < 2) {
      plate(m, -2.665, -0.78, -0.06, 1.30, 1.90, false, -1);
      plate(m, -2.665, 0.06, 0.78, 1.30, 1.90, false, -1);
      plates(m, van, N, 0.44);
    }
    if (lod == 0) mirrors(m, 1.55, 0.92, 1.22);
  }
}

static void make_lorry(dj__model *d) {
  enum { N = sizeof cab / sizeof *cab };
  big(d, 8.1, 2.5, 3.6, -2.35, 2.85, 0.48);
  for (int lod = 0; lod < DJ__ACTOR_LODS; lod++) {
    dj__mesh *m = &d->lod[lod];
    loft(m, cab, N, lod == 2);
    dj__look(m, DJ__TEX_PLAIN, DJ__CLASS_TRUCK, 0xe2e2de); // the box
    m->look.lamp = DJ__PART_FIXED;
    dj__mesh_box(m, -1.25, 0, 1.10, 3.6, 5.6, 2.5, 0, 2.6, true);
    paint(m); // a band in the cab's colour
    for (int side = -1; side <= 1; side += 2) {
      double y = side * 1.256;
      const double p[4][3] = {{-4.0, y, 1.5}, {1.5, y, 1.5}, {1.5, y, 2.2}, {-4.0, y, 2.2}};
      if (side < 0)
        quad(m, p[0], p[1], p[2], p[3]);
      else
        quad(m, p[1], p[0], p[3], p[2]);
    }
    fixed(m, 0x26282b, 0);
    dj__mesh_box(m, -0.2, 0, 0.55, 1.08, 7.4, 1.1, 0, 1, true);
    wheels(m, d, lod, 1.24);
    if (lod < 2) wheel(m, -3.35, 1.0, 0.48, 0.3, 8, DJ__PART_FIXED);
    if (lod < 2) wheel(m, -3.35, -1.0, 0.48, 0.3, 8, DJ__PART_FIXED);
    section tail[N];
    memcpy(tail, cab, sizeof tail);
    tail[0].x = -4.06;
    lamps(m, tail, N, 0.62, 0.86, 0.20, 0.05);
    fixed(m, 0x2a2c30, 0); // bumper with plate
    dj__mesh_box(m, -4.0, 0, 0.50, 0.75, 0.1, 2.3, 0, 1, true);
    if (lod < 2) plates(m, tail, N, 0.50);
    if (lod == 0) mirrors(m, 3.3, 1.26, 2.0);
    if (lod == 0) {
      fixed(m, 0xffffff, 20);
      plate(m, 3.935, -0.8, 0.8, 0.75, 1.2, true, 1);
    }
  }
}

static void make_bus(dj__model *d) {
  enum { N = sizeof bus / sizeof *bus };
  big(d, 12.0, 2.5, 3.05, -3.1, 3.4, 0.48);
  for (int lod = 0; lod < DJ__ACTOR_LODS; lod++) {
    dj__mesh *m = &d->lod[lod];
    loft(m, bus, N, true);
    glass(m);
    plate(m, 6.012, -1.08, 1.08, 1.20, 2.55, true, -1); // windscreen
    plate(m, -6.012, -0.95, 0.95, 1.75, 2.55, false, -1);
    lamp(m, DJ__PART_HEAD, 0xf0c040); // the line's number
    plate(m, 6.014, -0.8, 0.8, 2.58, 2.78, true, -1);
    if (lod < 2) {
      paint(m); // pillars between the windows
      for (int k = 0; k < 8; k++)
        for (int side = -1; side <= 1; side += 2)
          dj__mesh_box(m, -5.4 + 1.5 * k, side * 1.215, 1.25, 2.98, 0.12, 0.06, 0, 1, false);
    }
    if (lod == 0) mirrors(m, 5.9, 1.24, 2.3);
    wheels(m, d, lod, 1.256);
    lamps(m, bus, N, 0.55, 0.95, 0.22, 0.04);
    if (lod < 2) plates(m, bus, N, 0.45);
  }
}

static void make_rc_car(dj__model *d) {
  enum { N = sizeof buggy / sizeof *buggy };
  big(d, 0.42, 0.20, 0.20, -0.135, 0.135, 0.045);
  d->wheel_y = 0.085f;
  for (int lod = 0; lod < DJ__ACTOR_LODS; lod++) {
    dj__mesh *m = &d->lod[lod];
    loft(m, buggy, N, lod == 2);
    for (int axle = 0; axle < 2; axle++)
      for (int side = -1; side <= 1; side += 2)
        wheel(m, d->axle[axle], side * d->wheel_y, d->wheel_r, 0.035, lod ? 6 : 10,
              axle ? DJ__PART_REAR_WHEEL : DJ__PART_FRONT_WHEEL);
    fixed(m, 0x2b2d31, 0); // the camera on its mast
    dj__mesh_box(m, -0.02, 0, 0.15, 0.20, 0.012, 0.03, 0, 1, false);
    dj__mesh_box(m, -0.005, 0, 0.175, 0.20, 0.03, 0.03, 0, 1, true);
    lamp(m, DJ__PART_TAIL, 0x8e1016);
    plate(m, -0.203, -0.05, 0.05, 0.08, 0.10, false, -1);
  }
}

static void make_cone(dj__model *d) {
  big(d, 0.42, 0.42, 0.75, 0, 0, 0);
  for (int lod = 0; lod < DJ__ACTOR_LODS; lod++) {
    dj__mesh *m = &d->lod[lod];
    int sides = lod == 0 ? 10 : 6;
    fixed(m, 0x2c2c30, 0);
    dj__mesh_box(m, 0, 0, 0, 0.05, 0.42, 0.42, 0, 1, false);
    static const double z[5] = {0.05, 0.28, 0.42, 0.55, 0.75},
                        r[5] = {0.165, 0.115, 0.085, 0.057, 0.02};
    for (int k = 0; k < 4; k++) {
      fixed(m, k % 2 ? 0xf2f2f0 : 0xf0561c, 10);
      dj__mesh_pole(m, 0, 0, z[k], z[k + 1], r[k], r[k + 1], sides);
    }
  }
}

static void make_barrier(dj__model *d) { // across the lane: width is the long side
  big(d, 0.5, 2.0, 1.05, 0, 0, 0);
  for (int lod = 0; lod < DJ__ACTOR_LODS; lod++) {
    dj__mesh *m = &d->lod[lod];
    for (int board = 0; board < 2; board++)
      for (int k = 0; k < 8; k++) {
        fixed(m, (k + board) % 2 ? 0xf4f4f2 : 0xcf2018, 10);
        dj__mesh_box(m, 0, -0.875 + 0.25 * k, board ? 0.80 : 0.42, board ? 1.0 : 0.62, 0.05, 0.25,
                     0, 1, lod == 0);
      }
    fixed(m, 0x6c7074, 10);
    for (int side = -1; side <= 1; side += 2) {
      dj__mesh_box(m, 0, side * 0.8, 0, 1.0, 0.06, 0.06, 0, 1, false);
      dj__mesh_box(m, 0, side * 0.8, 0, 0.08, 0.5, 0.14, 0, 1, false);
    }
    lamp(m, DJ__PART_LEFT, 0xd09020); // warning lamps blink where the actor's lamps say so
    for (int side = -1; side <= 1; side += 2)
      dj__mesh_box(m, 0, side * 0.8, 1.0, 1.05, 0.08, 0.12, 0, 1, false);
  }
}

void dj__model_vehicle(dj__model *m, int index) {
  switch (index) {
  case 0:
    car(m, hatchback, sizeof hatchback / sizeof *hatchback, -1.28, 1.26);
    break;
  case 1:
    car(m, sedan, sizeof sedan / sizeof *sedan, -1.36, 1.38);
    break;
  case 2:
    car(m, estate, sizeof estate / sizeof *estate, -1.38, 1.42);
    break;
  case 3:
    make_van(m);
    break;
  case 4:
    make_lorry(m);
    break;
  case 5:
    make_bus(m);
    break;
  case 11:
    make_cone(m);
    break;
  case 12:
    make_barrier(m);
    break;
  case 13:
    make_rc_car(m);
    break;
  case DJ__MODEL_LENS: { // a disc of radius 1 facing +x
    m->length = m->width = m->height = 1;
    for (int lod = 0; lod < DJ__ACTOR_LODS; lod++) {
      dj__mesh *o = &m->lod[lod];
      int sides = lod ? 5 : 10;
      fixed(o, 0x404040, 0);
      o->look.lamp = DJ__PART_LENS;
      const double n[3] = {1, 0, 0};
      for (int k = 0; k < sides; k++) {
        double a = 2 * M_PI * k / sides, p[3] = {0, cos(a), sin(a)};
        uint32_t i = dj__mesh_vertex(o, p, n, 0, 0);
        if (k > 1) dj__mesh_triangle(o, 0, i - 1, i);
      }
    }
    break;
  }
  default:
    break;
  }
}
