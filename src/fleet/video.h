/*
 * Compressed video: Annex B access units, a decoder that gives back the picture of the unit asked
 * for, and a source that reads a video file as what a log can hold.
 */
#ifndef DOJO_FLEET_VIDEO_H
#define DOJO_FLEET_VIDEO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dojo/status.h"

/* ---- access units ---- */
typedef enum dj__codec { DJ__CODEC_NONE, DJ__CODEC_H264, DJ__CODEC_H265 } dj__codec;
dj__codec dj__codec_by_name(const char *format); // "h264", "h265"; others DJ__CODEC_NONE

typedef struct dj__au_info {
  int n_nals;
  bool key;            // a decoder can start here (H.264 IDR, H.265 IRAP)
  bool parameter_sets; // holds a sequence parameter set
  bool picture;        // holds a slice
} dj__au_info;
/* Looks at the NAL units of Annex B data. Never fails: data without a start code has no units. */
dj__au_info dj__au_scan(dj__codec codec, const void *data, size_t size);

/* ---- decoding ---- */
typedef struct dj__video_decoder dj__video_decoder;

/* Gives access unit `index`, valid until the next call. */
typedef dj_status dj__video_read_fn(void *user, size_t index, const uint8_t **data, size_t *size);

/* `n` units come from `read`. */
dj_status dj__video_decoder_open(dj__codec codec, size_t n, dj__video_read_fn *read, void *user,
                                 dj__video_decoder **d);
/* Picture of unit `index` into rgb (h, w, 3) u8; the stream's pictures must be w x h. Going forward
 * is fast; a jump starts at the key frame before. A unit that does not decode is DJ_E_FORMAT. */
dj_status dj__video_decode(dj__video_decoder *d, size_t index, int w, int h, uint8_t *rgb);
void dj__video_decoder_close(dj__video_decoder *d); // NULL is fine

/* ---- video files ---- */
typedef struct dj__video_source dj__video_source;

typedef struct dj__video_info {
  int width, height;
  uint64_t n_frames;  // packets in the file
  double fps;         // mean frame rate as the container says; 0 unknown
  const char *format; // what frames come out as: "h264", "h265" (copied) or "jpeg" (decoded)
} dj__video_info;

typedef struct dj__video_frame {
  const uint8_t *data; // valid until the next call
  size_t size;
  uint64_t index; // of the frame in the file, broken ones counted
  uint64_t t_ns;  // since the first frame; never runs backwards
  bool key;       // can be decoded without the frames before
  bool has_time;  // false: the container has no times, t_ns was laid by fps
} dj__video_frame;

/* Opens any file that libavformat reads. The stream is copied as it is when it is H.264 or H.265
 * without reordered frames; otherwise frames come out decoded, as JPEG. Errors: DJ_E_FORMAT,
 * DJ_E_UNSUPPORTED (no video stream, no decoder). */
dj_status dj__video_source_open(const char *path, dj__video_source **v);
const dj__video_info *dj__video_source_info(const dj__video_source *v);
/* Next frame, which is known to decode; DJ_E_END behind the last. DJ_E_FORMAT names file, frame and
 * time of one that is broken, or builds on a broken one; the next call goes on behind it. */
dj_status dj__video_source_next(dj__video_source *v, dj__video_frame *f);
void dj__video_source_close(dj__video_source *v);

/* ---- shared with both ---- */
struct AVFrame;
struct SwsContext;
/* A decoded picture to rgb (h, w, 3) u8. *sws is made anew as needed. */
dj_status dj__video_to_rgb(struct SwsContext **sws, const struct AVFrame *frame, int w, int h,
                           uint8_t *rgb);
/* Keeps libav's own messages off the standard error stream, once a process. */
void dj__video_quiet(void);

#endif
