/*
 * Small recorded drives of every format, made in a folder of the test's own. Pictures are flat, in
 * a colour that says which frame they are. Included by the tests of importers, logs, store and
 * data, after cmocka's headers.
 */
#ifndef DOJO_TESTS_DRIVE_FIXTURE_H
#define DOJO_TESTS_DRIVE_FIXTURE_H

#include <errno.h>
#include <ftw.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <math.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "dojo/drivelog.h"
#include "dojo/ingest.h"
#include "dojo/log.h"
#include "dojo/store.h"
#include "fleet/image.h"
#include "fleet/importers/matrix.h"

enum { FX_W = 32, FX_H = 24 };

static inline void fx_near(double a, double b, double eps) {
  if (!(fabs(a - b) <= eps)) fail_msg("%.9g is not %.9g (to %g)", a, b, eps);
}

/* The status was `want` and the message holds every text of the NULL-terminated list. */
static inline void fx_error(int line, dj_status s, dj_status want, const char *const *texts) {
  if (s != want)
    fail_msg("line %d: status %d, not %d ('%s'); the message is '%s'", line, s, want,
             texts[0] && texts[1] ? texts[1] : texts[0], s ? dj_error_message() : "");
  for (; *texts; texts++)
    if (!strstr(dj_error_message(), *texts))
      fail_msg("line %d: '%s' is not in the message '%s'", line, *texts, dj_error_message());
}
#define FX_ERROR(s, want, ...) fx_error(__LINE__, s, want, (const char *const[]){__VA_ARGS__, NULL})

static inline void fx_succeed(int line, dj_status s) {
  if (s) fail_msg("line %d: failed: %s", line, dj_error_message());
}
#define fx_ok(s) fx_succeed(__LINE__, s)

// ---- folders and files --------------------------------------------------------------------------

static inline int fx_remove_one(const char *path, const struct stat *st, int type, struct FTW *f) {
  (void)st;
  (void)type;
  (void)f;
  return remove(path);
}
static inline void fx_remove(const char *path) {
  (void)nftw(path, fx_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static char **fx_kept;
static size_t fx_n_kept;

/* A new folder for one test; cmocka setup and teardown. */
static inline int fx_setup(void **state) {
  char *dir = dj__strf("/tmp/dojo-test-XXXXXX");
  if (!mkdtemp(dir)) return -1;
  *state = dir;
  return 0;
}
static inline int fx_teardown(void **state) {
  fx_remove(*state);
  free(*state);
  for (size_t i = 0; i < fx_n_kept; i++) free(fx_kept[i]);
  free(fx_kept);
  fx_kept = NULL;
  fx_n_kept = 0;
  return 0;
}
#define FX_TEST(f) cmocka_unit_test_setup_teardown(f, fx_setup, fx_teardown)

/* DIR/NAME; valid until the test ends. */
static inline const char *fx_path(const char *dir, const char *name) {
  char *path = dj__join(dir, name);
  fx_kept = realloc(fx_kept, (fx_n_kept + 1) * sizeof *fx_kept);
  assert_non_null(fx_kept);
  return fx_kept[fx_n_kept++] = path;
}

static inline void fx_write_bytes(const char *path, const void *data, size_t size) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(data, 1, size, f), size);
  assert_int_equal(fclose(f), 0);
}
static inline void fx_write(const char *path, const char *text) {
  fx_write_bytes(path, text, strlen(text));
}
static __attribute__((noinline, unused)) char *fx_read(const char *path, size_t *size) {
  char *data = NULL;
  size_t n;
  fx_ok(dj__read_file(path, 1 << 30, &data, &n));
  assert_non_null(data);
  if (size) *size = n;
  return data;
}
/* Keeps the first `size` bytes. */
static inline void fx_cut(const char *path, off_t size) {
  assert_int_equal(truncate(path, size), 0);
}
/* Replaces the one occurrence of a text. */
static inline void fx_replace(const char *path, const char *from, const char *to) {
  char *text = fx_read(path, NULL), *at = strstr(text, from);
  if (!at) fail_msg("%s: no '%s' in it", path, from);
  char *changed = dj__strf("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
  fx_write(path, changed);
  free(changed);
  free(text);
}

// ---- pictures -----------------------------------------------------------------------------------

static inline void fx_colour(int i, uint8_t c[3]) {
  c[0] = (uint8_t)(40 + i * 37 % 160);
  c[1] = (uint8_t)(50 + i * 71 % 150);
  c[2] = (uint8_t)(60 + i * 23 % 140);
}
static inline void fx_fill(int i, int w, int h, uint8_t *rgb) {
  uint8_t c[3];
  fx_colour(i, c);
  for (int k = 0; k < w * h; k++) memcpy(rgb + 3 * k, c, 3);
}
static inline void fx_check_picture(const uint8_t *rgb, int w, int h, int i, int eps) {
  uint8_t c[3];
  fx_colour(i, c);
  const uint8_t *p = rgb + ((size_t)(h / 2) * (size_t)w + (size_t)(w / 2)) * 3;
  for (int k = 0; k < 3; k++)
    if (abs(p[k] - c[k]) > eps) fail_msg("frame %d: colour %d is %d, not %d", i, k, p[k], c[k]);
}
static inline void fx_jpeg(const char *path, int i, int w, int h) {
  uint8_t *rgb = malloc((size_t)w * (size_t)h * 3), *jpeg;
  size_t size;
  fx_fill(i, w, h, rgb);
  fx_ok(dj__jpeg_encode(rgb, w, h, 90, &jpeg, &size));
  fx_write_bytes(path, jpeg, size);
  free(rgb);
  free(jpeg);
}
static inline void fx_png(const char *path, int i, int w, int h) { // grey: the green of the colour
  uint8_t c[3], *grey = malloc((size_t)w * (size_t)h);
  fx_colour(i, c);
  memset(grey, c[1], (size_t)w * (size_t)h);
  png_image png = {.version = PNG_IMAGE_VERSION,
                   .width = (png_uint_32)w,
                   .height = (png_uint_32)h,
                   .format = PNG_FORMAT_GRAY};
  assert_int_equal(png_image_write_to_file(&png, path, 0, grey, 0, NULL), 1);
  free(grey);
}

// ---- drives -------------------------------------------------------------------------------------

static inline double fx_angle(int i) { // of record i, as a Donkeycar writes it: right positive
  return round(sin(0.13 * i) * 8e5) / 1e6;
}
static inline const char *fx_tub_image(const char *dir, int i) {
  char name[64];
  (void)snprintf(name, sizeof name, "images/%d_cam_image_array_.jpg", i);
  return fx_path(dir, name);
}
/* A Donkeycar tub of n records at 20 Hz. */
static inline void fx_tub(const char *dir, int n) {
  fx_ok(dj__mkdirs(fx_path(dir, "images")));
  fx_write(fx_path(dir, "manifest.json"),
           "[\"cam/image_array\", \"user/angle\", \"user/throttle\", \"user/mode\"]\n"
           "[\"image_array\", \"float\", \"float\", \"str\"]\n{}\n"
           "{\"created_at\": 1600000000.0, \"sessions\": {}}\n"
           "{\"paths\": [\"catalog_0.catalog\"], \"current_index\": 0, \"max_len\": 1000, "
           "\"deleted_indexes\": []}\n");
  FILE *f = fopen(fx_path(dir, "catalog_0.catalog"), "w");
  assert_non_null(f);
  for (int i = 0; i < n; i++) {
    (void)fprintf(f,
                  "{\"_index\": %d, \"_timestamp_ms\": %lld, \"cam/image_array\": "
                  "\"%d_cam_image_array_.jpg\", \"user/angle\": %.6f, \"user/mode\": \"user\", "
                  "\"user/throttle\": 0.25}\n",
                  i, 1600000000000ll + 50 * i, i, fx_angle(i));
    fx_jpeg(fx_tub_image(dir, i), i, FX_W, FX_H);
  }
  assert_int_equal(fclose(f), 0);
}

static inline void fx_udacity_name(int i, const char *camera, char *out, size_t size) {
  (void)snprintf(out, size, "%s_2018_07_16_17_%02d_%02d_%03d.jpg", camera, i / 600, i / 10 % 60,
                 i % 10 * 100);
}
/* A Udacity recording of n rows at 10 Hz, with Windows paths; `sides`: with side cameras. */
static inline void fx_udacity(const char *dir, int n, bool header, bool sides) {
  static const char *const cameras[3] = {"center", "left", "right"};
  fx_ok(dj__mkdirs(fx_path(dir, "IMG")));
  FILE *f = fopen(fx_path(dir, "driving_log.csv"), "w");
  assert_non_null(f);
  if (header) (void)fprintf(f, "center,left,right,steering,throttle,brake,speed\n");
  for (int i = 0; i < n; i++) {
    char name[3][64];
    for (int k = 0; k < 3; k++) {
      fx_udacity_name(i, cameras[k], name[k], sizeof name[k]);
      if (k && !sides) continue;
      char *file = dj__strf("IMG/%s", name[k]);
      fx_jpeg(fx_path(dir, file), i + 7 * k, FX_W, FX_H);
      free(file);
    }
    (void)fprintf(f, "C:\\rec\\IMG\\%s, C:\\rec\\IMG\\%s, /rec/IMG/%s,%.6f,0.5,0,%.3f\n", name[0],
                  name[1], name[2], fx_angle(i), 10.0 + i);
  }
  assert_int_equal(fclose(f), 0);
}

/* A KITTI sequence of n frames at 10 Hz: 0.5 m a frame forward along a left curve of 0.02 rad each.
 */
static inline void fx_kitti(const char *dir, int n, bool times) {
  fx_ok(dj__mkdirs(fx_path(dir, "image_0")));
  fx_write(fx_path(dir, "calib.txt"), "P0: 30 0 16 0 0 30 12 0 0 0 1 0\n"
                                      "P1: 30 0 16 -15 0 30 12 0 0 0 1 0\n");
  FILE *f = fopen(fx_path(dir, "poses.txt"), "w"),
       *t = times ? fopen(fx_path(dir, "times.txt"), "w") : NULL;
  double x = 0, z = 0;
  for (int i = 0; i < n; i++) {
    double a = 0.02 * i, c = cos(a), s = sin(a);
    char name[64];
    (void)fprintf(f, "%.12g 0 %.12g %.12g 0 1 0 0 %.12g 0 %.12g %.12g\n", c, -s, x, s, c, z);
    if (t) (void)fprintf(t, "%.6e\n", 0.1 * i);
    (void)snprintf(name, sizeof name, "image_0/%06d.png", i);
    fx_png(fx_path(dir, name), i, FX_W, FX_H);
    x -= 0.5 * s;
    z += 0.5 * c;
  }
  assert_int_equal(fclose(f), 0);
  if (t) assert_int_equal(fclose(t), 0);
}

/* An array of f64 with `columns` a row (0: one dimension) as a NumPy file. */
static inline void fx_npy(const char *path, const double *v, size_t rows, size_t columns) {
  char header[128];
  int n = columns ? snprintf(header, sizeof header,
                             "{'descr': '<f8', 'fortran_order': False, 'shape': (%zu, %zu), }\n",
                             rows, columns)
                  : snprintf(header, sizeof header,
                             "{'descr': '<f8', 'fortran_order': False, 'shape': (%zu,), }\n", rows);
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  unsigned char start[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)n, 0};
  size_t count = rows * (columns ? columns : 1);
  assert_int_equal(fwrite(start, 1, 10, f), 10);
  assert_int_equal(fwrite(header, 1, (size_t)n, f), n);
  assert_int_equal(fwrite(v, sizeof *v, count, f), count);
  assert_int_equal(fclose(f), 0);
}

/* A comma2k19 segment of n frames at 20 Hz without its video, at latitude and longitude 0, where
 * east, north, up are the ECEF axes y, z, x: a left curve of radius 50 m, 0.01 rad a frame. */
static inline void fx_comma(const char *dir, int n) {
  static const char *const folders[] = {"global_pose", "processed_log/CAN/speed",
                                        "processed_log/CAN/steering_angle"};
  for (int i = 0; i < 3; i++) fx_ok(dj__mkdirs(fx_path(dir, folders[i])));
  double *t = calloc((size_t)n * 10, sizeof *t), *p = t + n, *q = p + 3 * n, *v = q + 4 * n;
  for (int i = 0; i < n; i++) {
    double a = 0.01 * i, f[3] = {0, cos(a), sin(a)}, r[3] = {0, sin(a), -cos(a)};
    double R[9] = {f[0], r[0], -1, f[1], r[1], 0, f[2], r[2], 0}, xyzw[4];
    dj__mat_to_quat(R, xyzw);
    t[i] = 1000 + 0.05 * i;
    p[3 * i] = 6378137;
    p[3 * i + 1] = 50 * sin(a);
    p[3 * i + 2] = 50 * (1 - cos(a));
    for (int k = 0; k < 4; k++) q[4 * i + k] = xyzw[(k + 3) % 4];
    v[i] = 10;
  }
  fx_npy(fx_path(dir, "global_pose/frame_times"), t, (size_t)n, 0);
  fx_npy(fx_path(dir, "global_pose/frame_positions"), p, (size_t)n, 3);
  fx_npy(fx_path(dir, "global_pose/frame_orientations"), q, (size_t)n, 4);
  fx_npy(fx_path(dir, "processed_log/CAN/speed/t"), t, (size_t)n, 0);
  fx_npy(fx_path(dir, "processed_log/CAN/speed/value"), v, (size_t)n, 1);
  fx_npy(fx_path(dir, "processed_log/CAN/steering_angle/t"), t, (size_t)n, 0);
  for (int i = 0; i < n; i++) v[i] = -54.0 + i; // degrees
  fx_npy(fx_path(dir, "processed_log/CAN/steering_angle/value"), v, (size_t)n, 0);
  free(t);
}

// ---- video --------------------------------------------------------------------------------------

typedef struct fx_encoder {
  AVFormatContext *out;
  AVCodecContext *codec;
  AVFrame *frame;
  AVPacket *packet;
} fx_encoder;

static inline void fx_drain(fx_encoder *e) {
  while (avcodec_receive_packet(e->codec, e->packet) >= 0) {
    av_packet_rescale_ts(e->packet, e->codec->time_base, e->out->streams[0]->time_base);
    e->packet->stream_index = 0;
    assert_true(av_interleaved_write_frame(e->out, e->packet) >= 0);
  }
}

/* A limited-range BT.601 picture of the frame's colour. */
static inline void fx_yuv(AVFrame *f, int i) {
  uint8_t c[3];
  fx_colour(i, c);
  double y = 16 + 0.257 * c[0] + 0.504 * c[1] + 0.098 * c[2];
  double u = 128 - 0.148 * c[0] - 0.291 * c[1] + 0.439 * c[2];
  double v = 128 + 0.439 * c[0] - 0.368 * c[1] - 0.071 * c[2];
  double value[3] = {y, u, v};
  for (int k = 0; k < 3; k++)
    for (int row = 0; row < f->height >> (k > 0); row++)
      memset(f->data[k] + row * f->linesize[k], (int)lround(value[k]), (size_t)f->width >> (k > 0));
}

/* A video file of n frames at 20 Hz; the container is the name's ending. False where this build of
 * libavcodec lacks the encoder. */
static inline bool fx_video(const char *path, const char *encoder, int n, int w, int h,
                            int b_frames) {
  av_log_set_level(AV_LOG_QUIET);
  const AVCodec *codec = avcodec_find_encoder_by_name(encoder);
  if (!codec) return false;
  fx_encoder e = {.codec = avcodec_alloc_context3(codec),
                  .frame = av_frame_alloc(),
                  .packet = av_packet_alloc()};
  assert_true(avformat_alloc_output_context2(&e.out, NULL, NULL, path) >= 0);
  e.codec->width = e.frame->width = w;
  e.codec->height = e.frame->height = h;
  e.codec->pix_fmt = AV_PIX_FMT_YUV420P;
  e.frame->format = AV_PIX_FMT_YUV420P;
  e.codec->time_base = (AVRational){1, 20};
  e.codec->framerate = (AVRational){20, 1};
  e.codec->gop_size = 8;
  e.codec->max_b_frames = b_frames;
  e.codec->thread_count = 1;
  e.codec->bit_rate = 2000000;
  if (e.out->oformat->flags & AVFMT_GLOBALHEADER) e.codec->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  (void)av_opt_set(e.codec->priv_data, "preset", "ultrafast", 0);
  char x265[128];
  (void)snprintf(x265, sizeof x265,
                 "log-level=none:pools=none:frame-threads=1:bframes=%d:keyint=8:repeat-headers=1",
                 b_frames);
  (void)av_opt_set(e.codec->priv_data, "x265-params", x265, 0);
  assert_true(avcodec_open2(e.codec, codec, NULL) >= 0);
  AVStream *stream = avformat_new_stream(e.out, NULL);
  stream->time_base = e.codec->time_base;
  stream->avg_frame_rate = e.codec->framerate;
  assert_true(avcodec_parameters_from_context(stream->codecpar, e.codec) >= 0);
  assert_true(avio_open(&e.out->pb, path, AVIO_FLAG_WRITE) >= 0);
  assert_true(avformat_write_header(e.out, NULL) >= 0);
  assert_true(av_frame_get_buffer(e.frame, 0) >= 0);
  for (int i = 0; i < n; i++) {
    assert_true(av_frame_make_writable(e.frame) >= 0);
    fx_yuv(e.frame, i);
    e.frame->pts = i;
    assert_true(avcodec_send_frame(e.codec, e.frame) >= 0);
    fx_drain(&e);
  }
  assert_true(avcodec_send_frame(e.codec, NULL) >= 0);
  fx_drain(&e);
  assert_true(av_write_trailer(e.out) >= 0);
  (void)avio_closep(&e.out->pb);
  avformat_free_context(e.out);
  avcodec_free_context(&e.codec);
  av_frame_free(&e.frame);
  av_packet_free(&e.packet);
  return true;
}

// ---- importing ----------------------------------------------------------------------------------

static inline dj_status fx_ingest(const char *source, const char *store, bool keep_going,
                                  dj_ingest_report *r) {
  return dj_ingest(source, &(dj_ingest_options){.store = store, .keep_going = keep_going}, r);
}
/* Imports one drive that must succeed and be new; its line of the report. */
static inline dj_ingest_drive fx_import(const char *source, const char *store) {
  dj_ingest_report r;
  fx_ok(fx_ingest(source, store, false, &r));
  assert_int_equal(r.n_drives, 1);
  assert_int_equal(r.n_imported, 1);
  dj_ingest_drive d = r.drives[0];
  dj_ingest_report_free(&r);
  return d;
}
/* Opens a drive of a store. */
static inline dj_drive *fx_open(const char *store, const char *name) {
  char *file = dj__strf("%s/logs/%s.mcap", store, name);
  dj_drive *d;
  fx_ok(dj_drive_open(file, &d));
  free(file);
  return d;
}
static inline size_t fx_count_drives(const char *path) {
  dj_store *s;
  dj_store_drive *drives;
  size_t n;
  fx_ok(dj_store_open(path, DJ_STORE_EXISTING, &s));
  fx_ok(dj_store_drives(s, &drives, &n));
  dj_store_drives_free(drives, n);
  dj_store_close(s);
  return n;
}
static inline char *fx_dump(const char *path) {
  dj_store *s;
  char *text;
  fx_ok(dj_store_open(path, DJ_STORE_EXISTING, &s));
  fx_ok(dj_store_dump(s, &text));
  dj_store_close(s);
  return text;
}

/* Recorded drives, where they are: DOJO_DATA or ../shared/data. NULL: not there, said once. */
static inline const char *fx_recorded(const char *name) {
  const char *data = getenv("DOJO_DATA");
  const char *path = fx_path(data ? data : DOJO_SOURCE_DIR "/../shared/data", name);
  if (dj__exists(path)) return path;
  print_message("skipped: the recorded drive %s is not there\n", path);
  return NULL;
}

#endif
