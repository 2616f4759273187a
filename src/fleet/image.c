/*
 * JPEG (TurboJPEG) and PNG (libpng's simplified API) to RGB and back.
 *
 * Assumes whole files in memory, as logs and importers hold them. A decoder handle is made a call:
 * that costs microseconds beside the decode, and makes every function safe on every thread.
 * Warnings of the JPEG decoder (premature end, extraneous bytes in the entropy data) are errors
 * here, because a frame that is grey from the middle down would be trained on without anybody
 * noticing.
 */
#include "fleet/image.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>

const char *dj__image_format(const void *data, size_t size) {
  const unsigned char *p = data;
  if (size >= 3 && p[0] == 0xff && p[1] == 0xd8 && p[2] == 0xff) return "jpeg";
  if (size >= 8 && !memcmp(p, "\x89PNG\r\n\x1a\n", 8)) return "png";
  return NULL;
}

static dj_status unknown_format(const void *data, size_t size) {
  const unsigned char *p = data;
  if (size < 8) return dj_error(DJ_E_FORMAT, "picture of %zu bytes is neither JPEG nor PNG", size);
  return dj_error(DJ_E_FORMAT,
                  "picture of %zu bytes is neither JPEG nor PNG (starts %02x %02x %02x %02x)", size,
                  p[0], p[1], p[2], p[3]);
}

static dj_status check_size(const char *format, uint64_t w, uint64_t h, uint64_t max_pixels) {
  if (w == 0 || h == 0) return dj_error(DJ_E_FORMAT, "%s picture without pixels", format);
  if (w > 65535 || h > 65535 || w * h > max_pixels)
    return dj_error(
        DJ_E_LIMIT,
        "%s picture of %llu x %llu pixels; at most %llu pixels and 65535 a side are read", format,
        (unsigned long long)w, (unsigned long long)h, (unsigned long long)max_pixels);
  return DJ_OK;
}

static dj_status jpeg_size(tjhandle tj, const void *data, size_t size, uint64_t max_pixels, int *w,
                           int *h) {
  int subsampling, colourspace;
  if (tjDecompressHeader3(tj, data, size, w, h, &subsampling, &colourspace) != 0)
    return dj_error(DJ_E_FORMAT, "broken JPEG header: %s", tjGetErrorStr2(tj));
  return check_size("JPEG", (uint64_t)*w, (uint64_t)*h, max_pixels);
}

static dj_status png_begin(png_image *png, const void *data, size_t size, uint64_t max_pixels) {
  *png = (png_image){.version = PNG_IMAGE_VERSION};
  if (!png_image_begin_read_from_memory(png, data, size))
    return dj_error(DJ_E_FORMAT, "broken PNG header: %s", png->message);
  dj_status s = check_size("PNG", png->width, png->height, max_pixels);
  if (s) png_image_free(png);
  return s;
}

static dj_status measure(const void *data, size_t size, uint64_t max_pixels, int *w, int *h) {
  const char *format = dj__image_format(data, size);
  if (!format) return unknown_format(data, size);
  if (format[0] == 'p') {
    png_image png;
    DJ_TRY(png_begin(&png, data, size, max_pixels));
    *w = (int)png.width;
    *h = (int)png.height;
    png_image_free(&png);
    return DJ_OK;
  }
  tjhandle tj = tjInitDecompress();
  if (!tj) return dj_error(DJ_E_NOMEM, "no memory for a JPEG decoder");
  dj_status s = jpeg_size(tj, data, size, max_pixels, w, h);
  tjDestroy(tj);
  return s;
}

dj_status dj__image_size(const void *data, size_t size, int *w, int *h) {
  return measure(data, size, DJ__MAX_PIXELS, w, h);
}

static dj_status wrong_size(int got_w, int got_h, int w, int h) {
  return dj_error(DJ_E_FORMAT, "picture is %d x %d pixels where %d x %d were expected", got_w,
                  got_h, w, h);
}

static dj_status jpeg_into(const void *data, size_t size, int w, int h, uint8_t *rgb) {
  tjhandle tj = tjInitDecompress();
  if (!tj) return dj_error(DJ_E_NOMEM, "no memory for a JPEG decoder");
  int gw, gh;
  dj_status s = jpeg_size(tj, data, size, DJ__MAX_PIXELS, &gw, &gh);
  if (!s && (gw != w || gh != h)) s = wrong_size(gw, gh, w, h);
  if (!s && tjDecompress2(tj, data, size, rgb, w, w * 3, h, TJPF_RGB,
                          TJFLAG_STOPONWARNING | TJFLAG_ACCURATEDCT) != 0)
    s = dj_error(DJ_E_FORMAT, "broken JPEG of %zu bytes: %s", size, tjGetErrorStr2(tj));
  tjDestroy(tj);
  return s;
}

static dj_status png_into(const void *data, size_t size, int w, int h, uint8_t *rgb) {
  png_image png;
  DJ_TRY(png_begin(&png, data, size, DJ__MAX_PIXELS));
  dj_status s = DJ_OK;
  if ((int)png.width != w || (int)png.height != h) {
    s = wrong_size((int)png.width, (int)png.height, w, h);
  } else {
    png.format = PNG_FORMAT_RGB;
    png_color black = {0, 0, 0}; // what a transparent pixel becomes
    if (!png_image_finish_read(&png, &black, rgb, 0, NULL))
      s = dj_error(DJ_E_FORMAT, "broken PNG of %zu bytes: %s", size, png.message);
  }
  png_image_free(&png);
  return s;
}

dj_status dj__image_decode_into(const void *data, size_t size, int w, int h, uint8_t *rgb) {
  const char *format = dj__image_format(data, size);
  if (!format) return unknown_format(data, size);
  return format[0] == 'p' ? png_into(data, size, w, h, rgb) : jpeg_into(data, size, w, h, rgb);
}

dj_status dj_image_decode(const void *data, size_t size, uint64_t max_pixels, uint8_t **rgb, int *w,
                          int *h) {
  *rgb = NULL;
  if (max_pixels > DJ__MAX_PIXELS) max_pixels = DJ__MAX_PIXELS;
  DJ_TRY(measure(data, size, max_pixels, w, h));
  size_t bytes = (size_t)*w * (size_t)*h * 3;
  uint8_t *out = malloc(bytes);
  if (!out) return dj_error(DJ_E_NOMEM, "no memory for a picture of %d x %d pixels", *w, *h);
  dj_status s = dj__image_decode_into(data, size, *w, *h, out);
  if (s) {
    free(out);
    return s;
  }
  *rgb = out;
  return DJ_OK;
}

dj_status dj__jpeg_encode(const uint8_t *rgb, int w, int h, int quality, uint8_t **out,
                          size_t *size) {
  *out = NULL;
  *size = 0;
  unsigned long bytes = tjBufSize(w, h, TJSAMP_420);
  if (w <= 0 || h <= 0 || bytes == (unsigned long)-1)
    return dj_error(DJ_E_INVALID, "cannot encode a picture of %d x %d pixels", w, h);
  unsigned char *buffer = malloc(bytes); // ours, so that the caller frees with free()
  tjhandle tj = tjInitCompress();
  dj_status s = DJ_OK;
  if (!buffer || !tj) {
    s = dj_error(DJ_E_NOMEM, "no memory to encode a picture of %d x %d pixels", w, h);
  } else if (tjCompress2(tj, rgb, w, w * 3, h, TJPF_RGB, &buffer, &bytes, TJSAMP_420, quality,
                         TJFLAG_NOREALLOC | TJFLAG_ACCURATEDCT) != 0) {
    s = dj_error(DJ_E_INVALID, "cannot encode a JPEG of %d x %d pixels: %s", w, h,
                 tjGetErrorStr2(tj));
  }
  if (tj) tjDestroy(tj);
  if (s) {
    free(buffer);
    return s;
  }
  *out = buffer;
  *size = bytes;
  return DJ_OK;
}
