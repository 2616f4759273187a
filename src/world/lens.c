/*
 * Projection of rigs' cameras: mounting, lens distortion after OpenCV's models, and the pinhole
 * view that a distorted picture is taken from.
 *
 * plumb_bob: radial k1 k2 k3, tangential p1 p2 (Brown, "Decentering distortion of lenses", 1966), D
 * = [k1 k2 p1 p2 k3]. kannala_brandt: theta (1 + k1 theta^2 + ... + k4 theta^8) (Kannala and
 * Brandt, "A generic camera model", PAMI 2006), D = [k1 k2 k3 k4].
 */
#include <math.h>
#include <string.h>

#include "world/attitude.h"
#include "world/render_internal.h"

#define MAX_HALF_ANGLE (75 * M_PI / 180)

bool dj__camera_is_pinhole(const dj_camera *c) {
  if (!strcmp(c->distortion_model, "kannala_brandt")) return false;
  for (int k = 0; k < c->n_distortion; k++)
    if (c->D[k] != 0) return false;
  return true;
}

static void rotate(const double q[4], const double v[3], double out[3]) {
  double t[3] = {2 * (q[1] * v[2] - q[2] * v[1]), 2 * (q[2] * v[0] - q[0] * v[2]),
                 2 * (q[0] * v[1] - q[1] * v[0])};
  out[0] = v[0] + q[3] * t[0] + q[1] * t[2] - q[2] * t[1];
  out[1] = v[1] + q[3] * t[1] + q[2] * t[0] - q[0] * t[2];
  out[2] = v[2] + q[3] * t[2] + q[0] * t[1] - q[1] * t[0];
}

void dj__camera_pose(const dj__scene *s, const dj_camera *c, dj__pose3 *p) {
  double A[9], origin[3] = {s->x, s->y, s->z};
  dj__attitude(s->yaw, s->pitch, s->roll, A);
  for (int i = 0; i < 3; i++)
    p->p[i] = origin[i] + A[3 * i] * c->position[0] + A[3 * i + 1] * c->position[1] +
              A[3 * i + 2] * c->position[2];
  for (int k = 0; k < 3; k++) { // the optical frame's axes
    double axis[3] = {k == 0, k == 1, k == 2}, v[3];
    rotate(c->rotation, axis, v);
    for (int i = 0; i < 3; i++)
      p->R[3 * k + i] = A[3 * i] * v[0] + A[3 * i + 1] * v[1] + A[3 * i + 2] * v[2];
  }
}

static double fisheye(const double *D, double theta) {
  double t2 = theta * theta;
  return theta * (1 + t2 * (D[0] + t2 * (D[1] + t2 * (D[2] + t2 * D[3]))));
}

static void distort(const dj_camera *c, double x, double y, double *dx, double *dy) {
  double r2 = x * x + y * y;
  double D[8] = {0};
  memcpy(D, c->D, (size_t)c->n_distortion * sizeof *D);
  if (!strcmp(c->distortion_model, "kannala_brandt")) {
    double r = sqrt(r2), k = r > 1e-9 ? fisheye(D, atan(r)) / r : 1;
    *dx = x * k;
    *dy = y * k;
    return;
  }
  double radial = 1 + r2 * (D[0] + r2 * (D[1] + r2 * D[4]));
  *dx = x * radial + 2 * D[2] * x * y + D[3] * (r2 + 2 * x * x);
  *dy = y * radial + D[2] * (r2 + 2 * y * y) + 2 * D[3] * x * y;
}

void dj__camera_distort(const dj_camera *c, double x, double y, double *u, double *v) {
  double dx, dy;
  distort(c, x, y, &dx, &dy);
  *u = c->K[0] * dx + c->K[1] * dy + c->K[2];
  *v = c->K[4] * dy + c->K[5];
}

bool dj__camera_undistort(const dj_camera *c, double u, double v, double *x, double *y) {
  double ty = (v - c->K[5]) / c->K[4], tx = (u - c->K[2] - c->K[1] * ty) / c->K[0];
  double px = tx, py = ty;
  if (!strcmp(c->distortion_model, "kannala_brandt")) {
    double D[8] = {0}, rd = hypot(tx, ty), theta = rd;
    memcpy(D, c->D, (size_t)c->n_distortion * sizeof *D);
    for (int k = 0; k < 40; k++) {
      double h = 1e-6, slope = (fisheye(D, theta + h) - fisheye(D, theta - h)) / (2 * h);
      theta -= (fisheye(D, theta) - rd) / (slope > 0.05 ? slope : 0.05);
    }
    if (!(theta >= 0 && theta < MAX_HALF_ANGLE) || fabs(fisheye(D, theta) - rd) > 1e-6)
      return false;
    double k = rd > 1e-9 ? tan(theta) / rd : 1;
    *x = tx * k;
    *y = ty * k;
    return true;
  }
  for (int k = 0; k < 60; k++) {
    double a, b, ax, bx, ay, by, h = 1e-6;
    distort(c, px, py, &a, &b);
    distort(c, px + h, py, &ax, &bx);
    distort(c, px, py + h, &ay, &by);
    double j00 = (ax - a) / h, j10 = (bx - b) / h, j01 = (ay - a) / h, j11 = (by - b) / h;
    double det = j00 * j11 - j01 * j10, ex = tx - a, ey = ty - b;
    if (fabs(det) < 1e-9) return false;
    px += (j11 * ex - j01 * ey) / det;
    py += (j00 * ey - j10 * ex) / det;
    if (!(fabs(px) < 50 && fabs(py) < 50)) return false;
    if (ex * ex + ey * ey < 1e-18) break;
  }
  double a, b;
  distort(c, px, py, &a, &b);
  *x = px;
  *y = py;
  return hypot(a - tx, b - ty) < 1e-6 && atan(hypot(px, py)) < MAX_HALF_ANGLE;
}

dj_status dj__camera_source(const dj_camera *c, dj__view *v) {
  if (dj__camera_is_pinhole(c)) {
    v->fx = c->K[0];
    v->fy = c->K[4];
    v->cx = c->K[2];
    v->cy = c->K[5];
    v->w = c->width;
    v->h = c->height;
    return DJ_OK;
  }
  double low[2] = {1e9, 1e9}, high[2] = {-1e9, -1e9};
  int border = 2 * (c->width + c->height);
  for (int k = 0; k < border; k++) { // along the picture's rim
    double u = k < 2 * c->width ? k % c->width : k % 2 ? 0 : c->width - 1;
    double w = k < 2 * c->width ? (k < c->width ? 0 : c->height - 1) : (k - 2 * c->width) / 2;
    double x, y;
    if (!dj__camera_undistort(c, u, w, &x, &y))
      return dj_error(
          DJ_E_UNSUPPORTED,
          "camera '%s': pixel (%.0f, %.0f) looks more than 75 degrees aside, or nowhere; "
          "cameras of up to 150 degrees can be drawn",
          c->name, u, w);
    low[0] = fmin(low[0], x);
    low[1] = fmin(low[1], y);
    high[0] = fmax(high[0], x);
    high[1] = fmax(high[1], y);
  }
  double margin = 2.0; // pixels, for the filter
  v->fx = c->K[0];
  v->fy = c->K[4];
  v->cx = margin - low[0] * v->fx;
  v->cy = margin - low[1] * v->fy;
  v->w = (int)ceil((high[0] - low[0]) * v->fx + 2 * margin) + 1;
  v->h = (int)ceil((high[1] - low[1]) * v->fy + 2 * margin) + 1;
  return DJ_OK;
}
