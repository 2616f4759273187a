/* Pictures as PNG files, their labels as colours. For people: nothing here is read back. */
#include <math.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "world/render.h"

static dj_status write_png(const uint8_t *rgb, int w, int h, const char *path) {
  png_image image = {.version = PNG_IMAGE_VERSION,
                     .width = (png_uint_32)w,
                     .height = (png_uint_32)h,
                     .format = PNG_FORMAT_RGB};
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  void *data = malloc(size);
  if (!data) return dj_error(DJ_E_NOMEM, "%s: no memory for %d x %d pixels", path, w, h);
  dj_status s = DJ_OK;
  if (!png_image_write_to_memory(&image, data, &size, 0, rgb, 3 * w, NULL))
    s = dj_error(DJ_E_NOMEM, "%s: libpng: %s", path, image.message);
  if (!s) s = dj__write_file_atomic(path, data, size);
  free(data);
  return s;
}

dj_status dj__picture_write_png(const dj__picture *p, const char *path) {
  return write_png(p->rgb, p->width, p->height, path);
}

static void put(uint8_t *o, uint32_t rgb) {
  o[0] = (uint8_t)(rgb >> 16);
  o[1] = (uint8_t)(rgb >> 8);
  o[2] = (uint8_t)rgb;
}

/* Hue 0..1 and value 0..1 at full saturation. */
static void hue(uint8_t *o, double h, double v) {
  for (int k = 0; k < 3; k++) {
    double d = fabs(fmod(h * 6 + (k == 0 ? 0 : k == 1 ? 4 : 2), 6) - 3) - 1;
    o[k] = (uint8_t)lrint(255 * v * (d < 0 ? 0 : d > 1 ? 1 : d));
  }
}

static void flow_colour(uint8_t *o, const float *f) {
  if (isnan(f[0])) {
    put(o, 0x404040);
    return;
  }
  double r = hypot(f[0], f[1]);
  hue(o, (atan2(f[1], f[0]) + M_PI) / (2 * M_PI), 1 - exp(-r / 6));
}

dj_status dj__picture_colour(const dj__picture *p, uint32_t layer, uint8_t *rgb) {
  static const uint32_t classes[DJ__N_CLASSES] = {
      0x4682b4, 0x804080, 0xf0f0f0, 0xf423e8, 0x98fb98, 0x464646, 0x6b8e23, 0x999999, 0xdcdc00,
      0xfaaa1e, 0x00008e, 0x000046, 0x003c64, 0x770b20, 0xdc143c, 0xbe9999, 0x2d3c96};
  size_t n = (size_t)p->width * (size_t)p->height;
  if ((layer == DJ__LAYER_DEPTH && !p->depth) || (layer == DJ__LAYER_SEMANTIC && !p->semantic) ||
      (layer == DJ__LAYER_INSTANCE && !p->instance) || (layer == DJ__LAYER_FLOW && !p->flow))
    return dj_error(DJ_E_INVALID, "pictures: layer %u was not drawn", layer);
  for (size_t i = 0; i < n; i++, rgb += 3) switch (layer) {
    case DJ__LAYER_DEPTH: {
      double d = p->depth[i];
      put(rgb, isinf(d) ? 0 : 0x010101 * (uint32_t)lrint(255 / (1 + d / 12)));
      break;
    }
    case DJ__LAYER_SEMANTIC:
      put(rgb, p->semantic[i] < DJ__N_CLASSES ? classes[p->semantic[i]] : 0xff0000);
      break;
    case DJ__LAYER_INSTANCE:
      if (p->instance[i])
        hue(rgb, fmod(p->instance[i] * 0.618034, 1), 1);
      else
        put(rgb, 0x202020);
      break;
    case DJ__LAYER_FLOW:
      flow_colour(rgb, p->flow + 2 * i);
      break;
    default:
      memcpy(rgb, p->rgb + 3 * i, 3);
    }
  return DJ_OK;
}

dj_status dj__pictures_write_png(const dj__picture *p, int n, uint32_t layers, const char *path) {
  enum { GAP = 4 };
  int wide = 0, high = 0;
  for (int k = 0; k < n; k++) {
    int columns = 1;
    for (uint32_t l = 1; l <= DJ__LAYER_FLOW; l <<= 1) columns += (layers & l) != 0;
    int w = columns * (p[k].width + GAP) - GAP;
    wide = w > wide ? w : wide;
    high += p[k].height + (k ? GAP : 0);
  }
  if (n < 1 || wide > 1 << 15 || high > 1 << 15)
    return dj_error(DJ_E_INVALID, "%s: %d pictures of %d x %d pixels together", path, n, wide,
                    high);
  uint8_t *all = malloc((size_t)wide * (size_t)high * 3), *one = NULL;
  dj_status s = all ? DJ_OK : dj_error(DJ_E_NOMEM, "%s: no memory", path);
  if (all) memset(all, 24, (size_t)wide * (size_t)high * 3);
  for (int k = 0, y = 0; k < n && !s; y += p[k].height + GAP, k++) {
    uint8_t *q = realloc(one, (size_t)p[k].width * (size_t)p[k].height * 3);
    if (!q) {
      s = dj_error(DJ_E_NOMEM, "%s: no memory", path);
      break;
    }
    one = q;
    int x = 0;
    for (uint32_t l = 0; l <= DJ__LAYER_FLOW && !s; l = l ? l << 1 : 1) {
      if (l && !(layers & l)) continue;
      if (!dj__picture_colour(&p[k], l, one))
        for (int v = 0; v < p[k].height; v++)
          memcpy(all + ((size_t)(y + v) * (size_t)wide + (size_t)x) * 3,
                 one + (size_t)v * (size_t)p[k].width * 3, (size_t)p[k].width * 3);
      x += p[k].width + GAP;
    }
  }
  if (!s) s = write_png(all, wide, high, path);
  free(one);
  free(all);
  return s;
}
