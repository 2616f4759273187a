/*
 * From the frame buffer to pictures. The atlas lies top row first already (views are drawn upside
 * down), so that reading is a copy. With 2 x 2 samples a view has 2 w + 1 by 2 h + 1 of them, and
 * every pixel's centre is a sample: labels are that sample, colours are a tent over the 3 x 3 round
 * it. Distorted cameras are taken from their wider pinhole view: colours bilinearly, labels from
 * the nearest sample.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "world/render_internal.h"

static size_t aligned(size_t n) {
  return (n + 63) / 64 * 64;
}

dj_status dj__slot_pictures(dj__renderer *r, dj__slot *s) {
  uint32_t layers = r->options.layers;
  size_t size = 0;
  for (int pass = 0; pass < 2; pass++) {
    size = 0;
    for (int k = 0; k < s->n_view; k++) {
      const dj_camera *c = &s->rig.camera[k].camera;
      size_t n = (size_t)c->width * (size_t)c->height;
      dj__picture *p = &s->picture[k];
      size_t part[5] = {
          3 * n, layers & DJ__LAYER_DEPTH ? 4 * n : 0, layers & DJ__LAYER_SEMANTIC ? n : 0,
          layers & DJ__LAYER_INSTANCE ? 4 * n : 0, layers & DJ__LAYER_FLOW && s->flow ? 8 * n : 0};
      uint8_t *at[5];
      for (int i = 0; i < 5; i++) {
        at[i] = pass && part[i] ? s->out + size : NULL;
        size += aligned(part[i]);
      }
      if (pass)
        *p = (dj__picture){c->width,
                           c->height,
                           at[0],
                           (float *)(void *)at[1],
                           at[2],
                           (uint32_t *)(void *)at[3],
                           (float *)(void *)at[4]};
    }
    if (!pass && size > s->out_size) {
      free(s->out);
      s->out = aligned_alloc(64, size);
      s->out_size = s->out ? size : 0;
      if (!s->out) return dj_error(DJ_E_NOMEM, "cameras: no memory for pictures: %zu bytes", size);
    }
  }
  return DJ_OK;
}

// ---- colour ------------------------------------------------------------------------------------

static void colour_plain(const uint8_t *src, size_t stride, int w, int h, uint8_t *rgb) {
  for (int v = 0; v < h; v++) {
    const uint8_t *a = src + (size_t)v * stride;
    for (int u = 0; u < w; u++, a += 4, rgb += 3) {
      rgb[0] = a[0];
      rgb[1] = a[1];
      rgb[2] = a[2];
    }
  }
}

enum { TENT_WIDTH = 2 * 8192 + 1 };
static void colour_tent(const uint8_t *src, size_t stride, int w, int h, uint16_t *row,
                        uint8_t *rgb) {
  int n = 4 * (2 * w + 1);
  for (int v = 0; v < h; v++) {
    const uint8_t *restrict a = src + (size_t)(2 * v) * stride, *restrict b = a + stride,
                            *restrict c = b + stride;
    uint16_t *restrict t = row;
    for (int i = 0; i < n; i++) t[i] = (uint16_t)(a[i] + 2 * b[i] + c[i]);
    for (int u = 0; u < w; u++, t += 8, rgb += 3)
      for (int k = 0; k < 3; k++) rgb[k] = (uint8_t)((t[k] + 2 * t[4 + k] + t[8 + k] + 8) >> 4);
  }
}

static void colour_warp(const uint8_t *from, int sw, int sh, const float *at, int n, uint8_t *rgb) {
  for (int i = 0; i < n; i++, at += 2, rgb += 3) {
    if (isnan(at[0])) {
      memset(rgb, 0, 3);
      continue;
    }
    float x = fminf(fmaxf(at[0], 0), (float)sw - 1.001f),
          y = fminf(fmaxf(at[1], 0), (float)sh - 1.001f);
    int u = (int)x, v = (int)y, a = (int)((x - (float)u) * 256), b = (int)((y - (float)v) * 256);
    const uint8_t *p = from + ((size_t)v * (size_t)sw + (size_t)u) * 3, *q = p + (size_t)sw * 3;
    for (int k = 0; k < 3; k++) {
      int top = p[k] * (256 - a) + p[k + 3] * a, low = q[k] * (256 - a) + q[k + 3] * a;
      rgb[k] = (uint8_t)((top * (256 - b) + low * b + 32768) >> 16);
    }
  }
}

void dj__add_noise(uint8_t *rgb, int n, float sigma, uint64_t key, uint64_t frame) {
  // Sum of four bytes: near enough to normal; its deviation is 147.8.
  float k = sigma * 255 / 147.8f;
  for (int i = 0; i < n; i++, rgb += 3) {
    dj__u32x4 x = dj__philox(key, (uint64_t)i, frame);
    for (int c = 0; c < 3; c++) {
      uint32_t b = x.v[c];
      int sum = (int)((b & 255) + (b >> 8 & 255) + (b >> 16 & 255) + (b >> 24)) - 510;
      float y = (float)rgb[c] + k * (float)sum;
      rgb[c] = (uint8_t)(y <= 0 ? 0 : y >= 255 ? 255 : lrintf(y));
    }
  }
}

// ---- labels ------------------------------------------------------------------------------------

typedef struct labels { // of one view in the atlas
  const uint32_t *at;
  size_t stride; // words a row
  int words;     // a sample
  int scale;
} labels;

static const uint32_t *sample(const labels *l, int sx, int sy) {
  return l->at + (size_t)sy * l->stride + (size_t)sx * (size_t)l->words;
}

static void put_labels(const uint32_t *q, const dj__picture *p, size_t i) {
  if (p->depth) memcpy((float *)p->depth + i, q, 4);
  if (p->semantic) ((uint8_t *)p->semantic)[i] = (uint8_t)q[1];
  if (p->instance) ((uint32_t *)p->instance)[i] = q[1] >> 8;
  if (p->flow) memcpy((float *)p->flow + 2 * i, q + 2, 8);
}

static void labels_plain(const labels *l, const dj__picture *p) {
  int first = l->scale - 1;
  for (int v = 0; v < p->height; v++) {
    const uint32_t *q = sample(l, first, l->scale * v + first);
    for (int u = 0; u < p->width; u++, q += l->scale * l->words)
      put_labels(q, p, (size_t)v * (size_t)p->width + (size_t)u);
  }
}

/* Flow in a pinhole view to flow between distorted pixels. */
static void warp_flow(const dj__view *v, const dj_camera *c, const double src[2], float flow[2]) {
  double from[2], to[2];
  dj__camera_distort(c, (src[0] - v->cx) / v->fx, (src[1] - v->cy) / v->fy, &from[0], &from[1]);
  dj__camera_distort(c, (src[0] + flow[0] - v->cx) / v->fx, (src[1] + flow[1] - v->cy) / v->fy,
                     &to[0], &to[1]);
  flow[0] = (float)(to[0] - from[0]);
  flow[1] = (float)(to[1] - from[1]);
}

static void labels_warp(const labels *l, const dj__view *v, const dj__warp *w,
                        const dj__picture *p) {
  size_t n = (size_t)p->width * (size_t)p->height;
  int first = l->scale - 1;
  for (size_t i = 0; i < n; i++) {
    static const uint32_t outside[4] = {0x7f800000u, 0, 0x7fc00000u, 0x7fc00000u};
    const float *at = w->at + 2 * i;
    if (isnan(at[0])) {
      put_labels(outside, p, i);
      continue;
    }
    int sx = (int)lrintf((float)l->scale * at[0]) + first,
        sy = (int)lrintf((float)l->scale * at[1]) + first;
    sx = sx < 0 ? 0 : sx >= v->vw ? v->vw - 1 : sx;
    sy = sy < 0 ? 0 : sy >= v->vh ? v->vh - 1 : sy;
    put_labels(sample(l, sx, sy), p, i);
    if (!p->flow) continue;
    double src[2] = {(double)(sx - first) / l->scale, (double)(sy - first) / l->scale};
    warp_flow(v, &w->camera, src, (float *)p->flow + 2 * i);
  }
}

static bool same_lens(const dj_camera *a, const dj_camera *b) {
  bool same = a->width == b->width && a->height == b->height &&
              a->n_distortion == b->n_distortion &&
              !strcmp(a->distortion_model, b->distortion_model);
  for (int k = 0; k < 9; k++) same &= a->K[k] == b->K[k];
  for (int k = 0; k < a->n_distortion && same; k++) same &= a->D[k] == b->D[k];
  return same;
}

static dj_status make_warp(const dj_camera *c, const dj__view *v, dj__warp *w) {
  if (w->at && same_lens(&w->camera, c)) return DJ_OK;
  free(w->at);
  w->at = malloc((size_t)c->width * (size_t)c->height * 2 * sizeof *w->at);
  if (!w->at) return dj_error(DJ_E_NOMEM, "cameras: no memory for the lens of '%s'", c->name);
  w->camera = *c;
  float *o = w->at;
  for (int y = 0; y < c->height; y++)
    for (int x = 0; x < c->width; x++, o += 2) {
      double px, py;
      o[0] = o[1] = NAN;
      if (!dj__camera_undistort(c, x, y, &px, &py)) continue;
      o[0] = (float)(v->fx * px + v->cx);
      o[1] = (float)(v->fy * py + v->cy);
    }
  return DJ_OK;
}

// ---- all ---------------------------------------------------------------------------------------

static dj_status make_picture(dj__renderer *r, dj__slot *s, int k, const uint8_t *colour,
                              const uint32_t *label, int words) {
  const dj__view *v = &s->view[k];
  const dj__rig_camera *c = &s->rig.camera[k];
  const dj__picture *p = &s->picture[k];
  size_t stride = (size_t)s->used_w * 4, at = (size_t)v->y * (size_t)s->used_w + (size_t)v->x;
  bool pinhole = dj__camera_is_pinhole(&c->camera);
  uint8_t *rgb = (uint8_t *)p->rgb, *whole = rgb;
  uint16_t *row = malloc(sizeof *row * 4 * (size_t)(v->vw + 4));
  if (!pinhole) whole = malloc((size_t)v->w * (size_t)v->h * 3);
  dj_status status = DJ_OK;
  if (!row || !whole) {
    status = dj_error(DJ_E_NOMEM, "cameras: no memory for a picture");
  } else {
    if (r->scale == 2)
      colour_tent(colour + 4 * at, stride, v->w, v->h, row, whole);
    else
      colour_plain(colour + 4 * at, stride, v->w, v->h, whole);
  }
  if (!status && !pinhole) {
    status = make_warp(&c->camera, v, &r->warp[k]);
    if (!status) colour_warp(whole, v->w, v->h, r->warp[k].at, p->width * p->height, rgb);
  }
  free(row);
  if (!pinhole) free(whole);
  if (status || !label) return status;
  labels l = {label + at * (size_t)words, (size_t)s->used_w * (size_t)words, words, r->scale};
  if (pinhole)
    labels_plain(&l, p);
  else
    labels_warp(&l, v, &r->warp[k], p);
  return DJ_OK;
}

/* Where the pixels are: mapped from the pixel buffers, or copied. */
static dj_status fetch(dj__renderer *r, dj__slot *s, const uint8_t **colour, const uint32_t **label,
                       int *words) {
  size_t n = (size_t)s->used_w * (size_t)s->used_h;
  bool labels_too = r->options.layers != 0;
  *words = r->options.layers & DJ__LAYER_FLOW ? 4 : 2;
  *label = NULL;
  if (!r->gl.software) {
    glBindBuffer(GL_PIXEL_PACK_BUFFER, s->pack[0]);
    *colour = glMapBufferRange(GL_PIXEL_PACK_BUFFER, 0, (GLsizeiptr)(4 * n), GL_MAP_READ_BIT);
    if (labels_too) {
      *words = 4;
      glBindBuffer(GL_PIXEL_PACK_BUFFER, s->pack[1]);
      *label = glMapBufferRange(GL_PIXEL_PACK_BUFFER, 0, (GLsizeiptr)(16 * n), GL_MAP_READ_BIT);
    }
    return dj__gl_check("reading pictures back");
  }
  size_t need = aligned(4 * n) + 16 * n;
  if (need > r->pixels_size) {
    free(r->pixels);
    r->pixels = aligned_alloc(64, aligned(need));
    r->pixels_size = r->pixels ? need : 0;
    if (!r->pixels) return dj_error(DJ_E_NOMEM, "cameras: no memory for %zu pixels", n);
  }
  glBindFramebuffer(GL_READ_FRAMEBUFFER, s->frame);
  glReadBuffer(GL_COLOR_ATTACHMENT0);
  glReadPixels(0, 0, s->used_w, s->used_h, GL_RGBA, GL_UNSIGNED_BYTE, r->pixels);
  *colour = r->pixels;
  if (labels_too) {
    glReadBuffer(GL_COLOR_ATTACHMENT1);
    GLenum format = *words == 4 ? GL_RGBA_INTEGER : GL_RG_INTEGER; // Mesa reads both
    glReadPixels(0, 0, s->used_w, s->used_h, format, GL_UNSIGNED_INT, r->pixels + aligned(4 * n));
    *label = (const uint32_t *)(const void *)(r->pixels + aligned(4 * n));
  }
  return dj__gl_check("reading pictures back");
}

dj_status dj__read_slot(dj__renderer *r, dj__slot *s) {
  const uint8_t *colour = NULL;
  const uint32_t *label = NULL;
  int words;
  dj_status status = fetch(r, s, &colour, &label, &words);
  if (!status && !colour) status = dj_error(DJ_E_UNSUPPORTED, "cameras: pictures cannot be mapped");
  for (int k = 0; k < s->n_view && !status; k++)
    status = make_picture(r, s, k, colour, label, words);
  if (!r->gl.software)
    for (int k = 0; k < (label ? 2 : 1); k++) {
      glBindBuffer(GL_PIXEL_PACK_BUFFER, s->pack[k]);
      (void)glUnmapBuffer(GL_PIXEL_PACK_BUFFER);
    }
  glBindBuffer(GL_PIXEL_PACK_BUFFER, 0);
  return status;
}
