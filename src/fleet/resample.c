#include "fleet/resample.h"

#include <math.h>
#include <stdlib.h>

enum { ONE = 1 << 14, MAX_TAPS = 4096 };

typedef struct axis { // out[i] = sum_k weight[i * taps + k] * in[first[i] + k] / ONE
  int n, taps;
  int *first;
  int16_t *weight;
} axis;

struct dj__resample {
  int src_w, src_h, out_w, out_h;
  axis x, y;
  int row0, rows;   // source rows that are looked at
  uint8_t *between; // (rows, out_w, 3): resized sideways only
};

static void free_axis(axis *a) {
  free(a->first);
  free(a->weight);
}

/* Weights of one output pixel, whole numbers that sum to ONE. Taps outside go to the edge pixel. */
static void fill_pixel(axis *a, int i, double center, double support, int n_src, double *w) {
  const int lo = (int)floor(center - support + 0.5), last = n_src - a->taps;
  int first = lo < 0 ? 0 : lo;
  if (first > last) first = last < 0 ? 0 : last;
  double sum = 0;
  for (int k = 0; k < a->taps; k++) w[k] = 0;
  for (int k = 0; k < a->taps + 2; k++) {
    const double d = fabs(lo + k + 0.5 - center) / support;
    if (d >= 1) continue;
    int at = lo + k < 0 ? 0 : lo + k >= n_src ? n_src - 1 : lo + k;
    at -= first;
    if (at < 0) at = 0;
    if (at >= a->taps) at = a->taps - 1;
    w[at] += 1 - d;
    sum += 1 - d;
  }
  int left = ONE, best = 0;
  for (int k = 0; k < a->taps; k++) {
    int q = (int)lround(w[k] / sum * ONE);
    a->weight[i * a->taps + k] = (int16_t)q;
    left -= q;
    if (w[k] > w[best]) best = k;
  }
  a->weight[i * a->taps + best] = (int16_t)(a->weight[i * a->taps + best] + left);
  a->first[i] = first;
}

static dj_status make_axis(axis *a, int n_src, double from, double to, int n_out) {
  const double scale = (to - from) / n_out, support = scale > 1 ? scale : 1;
  int taps = (int)ceil(2 * support) + 1;
  if (taps > n_src) taps = n_src;
  if (taps > MAX_TAPS) return dj_error(DJ_E_LIMIT, "resize: %d pixels to %d", n_src, n_out);
  *a = (axis){.n = n_out,
              .taps = taps,
              .first = calloc((size_t)n_out, sizeof *a->first),
              .weight = calloc((size_t)n_out * (size_t)taps, sizeof *a->weight)};
  double *w = malloc((size_t)taps * sizeof *w);
  if (!a->first || !a->weight || !w) {
    free(w);
    return dj_error(DJ_E_NOMEM, "resize: no memory for tables");
  }
  for (int i = 0; i < n_out; i++) fill_pixel(a, i, from + (i + 0.5) * scale, support, n_src, w);
  free(w);
  return DJ_OK;
}

dj_status dj__resample_new(int src_w, int src_h, double x0, double y0, double x1, double y1,
                           int out_w, int out_h, dj__resample **out) {
  *out = NULL;
  if (src_w < 1 || src_h < 1 || out_w < 1 || out_h < 1 || !(x1 - x0 >= 1) || !(y1 - y0 >= 1))
    return dj_error(DJ_E_INVALID,
                    "resize: from the part (%g, %g)..(%g, %g) of %dx%d to %dx%d: less than a pixel",
                    x0, y0, x1, y1, src_w, src_h, out_w, out_h);
  dj__resample *r = calloc(1, sizeof *r);
  if (!r) return dj_error(DJ_E_NOMEM, "resize: no memory");
  *r = (dj__resample){.src_w = src_w, .src_h = src_h, .out_w = out_w, .out_h = out_h};
  dj_status s = make_axis(&r->x, src_w, x0, x1, out_w);
  if (!s) s = make_axis(&r->y, src_h, y0, y1, out_h);
  if (!s) {
    r->row0 = r->y.first[0];
    r->rows = r->y.first[out_h - 1] + r->y.taps - r->row0;
    r->between = malloc((size_t)r->rows * (size_t)out_w * 3);
    if (!r->between) s = dj_error(DJ_E_NOMEM, "resize: no memory");
  }
  if (s) {
    dj__resample_free(r);
    return s;
  }
  *out = r;
  return DJ_OK;
}

void dj__resample_free(dj__resample *r) {
  if (!r) return;
  free_axis(&r->x);
  free_axis(&r->y);
  free(r->between);
  free(r);
}

static uint8_t to_byte(int sum) {
  int v = (sum + ONE / 2) / ONE;
  return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

void dj__resample_run(dj__resample *r, const uint8_t *src, uint8_t *out) {
  const size_t src_row = (size_t)r->src_w * 3, row = (size_t)r->out_w * 3;
  for (int y = 0; y < r->rows; y++) {
    const uint8_t *line = src + (size_t)(r->row0 + y) * src_row;
    uint8_t *to = r->between + (size_t)y * row;
    for (int x = 0; x < r->out_w; x++) {
      const uint8_t *p = line + (size_t)r->x.first[x] * 3;
      const int16_t *w = r->x.weight + (size_t)x * (size_t)r->x.taps;
      int sum[3] = {0, 0, 0};
      for (int k = 0; k < r->x.taps; k++)
        for (int c = 0; c < 3; c++) sum[c] += w[k] * p[k * 3 + c];
      for (int c = 0; c < 3; c++) to[x * 3 + c] = to_byte(sum[c]);
    }
  }
  for (int y = 0; y < r->out_h; y++) {
    const uint8_t *from = r->between + (size_t)(r->y.first[y] - r->row0) * row;
    const int16_t *w = r->y.weight + (size_t)y * (size_t)r->y.taps;
    for (size_t i = 0; i < row; i++) {
      int sum = 0;
      for (int k = 0; k < r->y.taps; k++) sum += w[k] * from[(size_t)k * row + i];
      out[(size_t)y * row + i] = to_byte(sum);
    }
  }
}
