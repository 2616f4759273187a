/*
 * Layers of a camera (depth, classes, instances) as PNG files: 16-bit grey, 8-bit grey and RGB, the
 * numbers as they are, without gamma. libpng reports errors by longjmp; everything that must
 * survive one lives in a struct.
 */
#include <math.h>
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "fleet/drivelog.h"
#include "fleet/image.h"

#include "foxglove/CompressedImage.pb-c.h"

enum { BITS = 0, COLOUR = 1, CHANNELS = 2 };
static const int formats[DJ_N_LAYERS][3] = {
    [DJ_LAYER_DEPTH] = {16, PNG_COLOR_TYPE_GRAY, 2},
    [DJ_LAYER_SEMANTIC] = {8, PNG_COLOR_TYPE_GRAY, 1},
    [DJ_LAYER_INSTANCE] = {8, PNG_COLOR_TYPE_RGB, 3}, // bytes a pixel in the last column
};

typedef struct job {
  jmp_buf on_error;
  char message[128];
  dj__buf out;       // encoding
  const uint8_t *in; // decoding
  size_t size, at;
  uint8_t *row;
} job;

static void on_error(png_structp png, png_const_charp text) {
  job *j = png_get_error_ptr(png);
  (void)snprintf(j->message, sizeof j->message, "%s", text);
  longjmp(j->on_error, 1);
}

static void on_warning(png_structp png, png_const_charp text) {
  (void)png;
  (void)text;
}

static void write_bytes(png_structp png, png_bytep data, size_t n) {
  dj__buf_put(&((job *)png_get_io_ptr(png))->out, data, n);
}

static void flush_bytes(png_structp png) {
  (void)png;
}

static void read_bytes(png_structp png, png_bytep data, size_t n) {
  job *j = png_get_io_ptr(png);
  if (n > j->size - j->at) png_error(png, "it ends too early");
  memcpy(data, j->in + j->at, n);
  j->at += n;
}

// ---- rows --------------------------------------------------------------------------------------

static void pack_row(dj_layer layer, const void *pixels, int y, int w, uint8_t *row) {
  size_t from = (size_t)y * (size_t)w;
  if (layer == DJ_LAYER_SEMANTIC) {
    memcpy(row, (const uint8_t *)pixels + from, (size_t)w);
  } else if (layer == DJ_LAYER_INSTANCE) {
    const uint32_t *id = (const uint32_t *)pixels + from;
    for (int x = 0; x < w; x++)
      for (int k = 0; k < 3; k++) row[3 * x + k] = (uint8_t)(id[x] >> 8 * k);
  } else {
    const float *depth = (const float *)pixels + from;
    for (int x = 0; x < w; x++) {
      float cm = roundf(depth[x] * 100);
      unsigned v = cm >= 1 && cm < 65535 ? (unsigned)cm : cm < 1 ? 1 : 0; // NaN: 0
      row[2 * x] = (uint8_t)(v >> 8);
      row[2 * x + 1] = (uint8_t)v;
    }
  }
}

static void unpack_row(dj_layer layer, const uint8_t *row, int y, int w, void *pixels) {
  size_t to = (size_t)y * (size_t)w;
  if (layer == DJ_LAYER_SEMANTIC) {
    memcpy((uint8_t *)pixels + to, row, (size_t)w);
  } else if (layer == DJ_LAYER_INSTANCE) {
    uint32_t *id = (uint32_t *)pixels + to;
    for (int x = 0; x < w; x++)
      id[x] = row[3 * x] | (uint32_t)row[3 * x + 1] << 8 | (uint32_t)row[3 * x + 2] << 16;
  } else {
    float *depth = (float *)pixels + to;
    for (int x = 0; x < w; x++) {
      unsigned v = (unsigned)row[2 * x] << 8 | row[2 * x + 1];
      depth[x] = v ? (float)v * 0.01f : INFINITY;
    }
  }
}

// ---- encoding ----------------------------------------------------------------------------------

/* Returns false after an error of libpng's. */
static bool encode(job *j, png_structp png, png_infop info, dj_layer layer, const void *pixels,
                   int w, int h) {
  if (setjmp(j->on_error)) return false;
  png_set_write_fn(png, j, write_bytes, flush_bytes);
  png_set_compression_level(png, 2); // labels are flat: more costs time and gains little
  png_set_filter(png, 0, layer == DJ_LAYER_DEPTH ? PNG_FILTER_SUB : PNG_FILTER_NONE);
  png_set_IHDR(png, info, (png_uint_32)w, (png_uint_32)h, formats[layer][BITS],
               formats[layer][COLOUR], PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  png_write_info(png, info);
  for (int y = 0; y < h; y++) {
    pack_row(layer, pixels, y, w, j->row);
    png_write_row(png, j->row);
  }
  png_write_end(png, info);
  return true;
}

dj_status dj_layer_encode(dj_layer layer, const void *pixels, int w, int h, uint8_t **out,
                          size_t *size) {
  *out = NULL;
  *size = 0;
  if ((unsigned)layer >= DJ_N_LAYERS || w < 1 || h < 1 || w > 65535 || h > 65535)
    return dj_error(DJ_E_INVALID, "cannot encode layer %d of %d x %d pixels", (int)layer, w, h);
  job j = {.row = malloc((size_t)w * (size_t)formats[layer][CHANNELS])};
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &j, on_error, on_warning);
  png_infop info = png ? png_create_info_struct(png) : NULL;
  dj_status s = info && j.row ? DJ_OK : dj_error(DJ_E_NOMEM, "no memory to encode a PNG");
  if (!s && !encode(&j, png, info, layer, pixels, w, h))
    s = dj_error(DJ_E_INVALID, "cannot encode a PNG of %d x %d pixels: %s", w, h, j.message);
  if (!s && j.out.failed) s = dj_error(DJ_E_NOMEM, "no memory for a PNG of %d x %d pixels", w, h);
  png_destroy_write_struct(&png, &info);
  free(j.row);
  if (s) {
    dj__buf_free(&j.out);
    return s;
  }
  *out = j.out.data;
  *size = j.out.size;
  return DJ_OK;
}

// ---- decoding ----------------------------------------------------------------------------------

static bool decode(job *j, png_structp png, png_infop info, dj_layer layer, int w, int h,
                   void *pixels) {
  if (setjmp(j->on_error)) return false;
  png_set_read_fn(png, j, read_bytes);
  png_set_user_limits(png, 65535, 65535);
  png_read_info(png, info);
  bool right = png_get_image_width(png, info) == (png_uint_32)w &&
               png_get_image_height(png, info) == (png_uint_32)h &&
               png_get_bit_depth(png, info) == formats[layer][BITS] &&
               png_get_color_type(png, info) == formats[layer][COLOUR] &&
               png_get_interlace_type(png, info) == PNG_INTERLACE_NONE;
  if (!right) png_error(png, "another size or kind of picture than the layer's");
  for (int y = 0; y < h; y++) {
    png_read_row(png, j->row, NULL);
    unpack_row(layer, j->row, y, w, pixels);
  }
  png_read_end(png, NULL);
  return true;
}

dj_status dj__layer_decode(dj_layer layer, const void *data, size_t size, int w, int h,
                           void *pixels) {
  job j = {.in = data, .size = size, .row = malloc((size_t)w * (size_t)formats[layer][CHANNELS])};
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &j, on_error, on_warning);
  png_infop info = png ? png_create_info_struct(png) : NULL;
  dj_status s = info && j.row ? DJ_OK : dj_error(DJ_E_NOMEM, "no memory to decode a PNG");
  if (!s && !decode(&j, png, info, layer, w, h, pixels))
    s = dj_error(DJ_E_FORMAT, "broken PNG of %zu bytes: %s", size, j.message);
  png_destroy_read_struct(&png, &info, NULL);
  free(j.row);
  return s;
}

dj_status dj__drive_read_layer(dj_drive *d, const dj_mcap_entry *e, dj_layer layer, int w, int h,
                               void *pixels) {
  ProtobufCMessage *m;
  DJ_TRY(dj__drive_unpack(d, e, &foxglove__compressed_image__descriptor, &m));
  const Foxglove__CompressedImage *image = (const Foxglove__CompressedImage *)m;
  dj_status s = dj__layer_decode(layer, image->data.data, image->data.len, w, h, pixels);
  protobuf_c_message_free_unpacked(m, NULL);
  return s;
}
