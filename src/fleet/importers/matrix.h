/* Rotations as 3x3 row-major matrices and unit quaternions (x, y, z, w), for importers. */
#ifndef DOJO_FLEET_MATRIX_H
#define DOJO_FLEET_MATRIX_H

#include <math.h>

static inline void dj__mat_mul(const double a[9], const double b[9], double out[9]) {
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++)
      out[i * 3 + j] = a[i * 3] * b[j] + a[i * 3 + 1] * b[3 + j] + a[i * 3 + 2] * b[6 + j];
}

static inline void dj__mat_vec(const double a[9], const double v[3], double out[3]) {
  for (int i = 0; i < 3; i++) out[i] = a[i * 3] * v[0] + a[i * 3 + 1] * v[1] + a[i * 3 + 2] * v[2];
}

static inline void dj__mat_transpose(const double a[9], double out[9]) {
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++) out[j * 3 + i] = a[i * 3 + j];
}

/* How far from a rotation: largest error of R R^T against 1, and a mirrored frame counts as 2. */
static inline double dj__mat_error(const double r[9]) {
  double t[9], p[9], worst = 0;
  dj__mat_transpose(r, t);
  dj__mat_mul(r, t, p);
  for (int i = 0; i < 9; i++) worst = fmax(worst, fabs(p[i] - (i % 4 == 0)));
  double det = r[0] * (r[4] * r[8] - r[5] * r[7]) - r[1] * (r[3] * r[8] - r[5] * r[6]) +
               r[2] * (r[3] * r[7] - r[4] * r[6]);
  return isnan(det) || det < 0 ? 2 : worst;
}

/* Shepperd's method: divides by the largest component. */
static inline void dj__mat_to_quat(const double r[9], double q[4]) {
  double t[4] = {1 + r[0] - r[4] - r[8], 1 - r[0] + r[4] - r[8], 1 - r[0] - r[4] + r[8],
                 1 + r[0] + r[4] + r[8]};
  int k = 0;
  for (int i = 1; i < 4; i++)
    if (t[i] > t[k]) k = i;
  double xy = r[3] + r[1], xz = r[2] + r[6], yz = r[7] + r[5];
  double wx = r[7] - r[5], wy = r[2] - r[6], wz = r[3] - r[1];
  double c[4][4] = {{t[0], xy, xz, wx}, {xy, t[1], yz, wy}, {xz, yz, t[2], wz}, {wx, wy, wz, t[3]}};
  double n = 0;
  for (int i = 0; i < 4; i++) n += c[k][i] * c[k][i];
  double scale = (c[k][3] < 0 ? -1 : 1) / sqrt(n);
  for (int i = 0; i < 4; i++) q[i] = c[k][i] * scale;
}

static inline void dj__quat_to_mat(const double q[4], double r[9]) {
  double x = q[0], y = q[1], z = q[2], w = q[3];
  double m[9] = {1 - 2 * (y * y + z * z), 2 * (x * y - z * w),     2 * (x * z + y * w),
                 2 * (x * y + z * w),     1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
                 2 * (x * z - y * w),     2 * (y * z + x * w),     1 - 2 * (x * x + y * y)};
  for (int i = 0; i < 9; i++) r[i] = m[i];
}

#endif
