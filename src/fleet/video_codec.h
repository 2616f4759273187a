/*
 * An encoder of H.264 set up the way that all our videos are: 8 bit 4:2:0, BT.709, limited range,
 * and the same pictures give the same bytes. What logs and files differ in are options. Codes are
 * libav's; callers say what was being done.
 */
#ifndef DOJO_FLEET_VIDEO_CODEC_H
#define DOJO_FLEET_VIDEO_CODEC_H

#include <libavcodec/avcodec.h>
#include <libswscale/swscale.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct dj__video_codec {
  AVCodecContext *codec;
  AVFrame *frame; // to be encoded next
  AVPacket *packet;
  struct SwsContext *sws;
  int64_t n; // frames so far
} dj__video_codec;

typedef struct dj__video_codec_options {
  int width, height;
  double fps;
  int gop;         // pictures from one key frame to the next
  const char *crf; // x264's quality
  int bits;        // a second and pixel, of encoders that know no quality
  bool live;       // each picture comes out at once: no B-frames, no look-ahead, one thread
  bool global;     // parameter sets beside the stream
  bool any_mpeg4;  // MPEG-4 part 2 will do where there is no H.264
} dj__video_codec_options;

/* Sizes and rates that the encoders take. */
bool dj__video_size_ok(int width, int height);
bool dj__video_rate_ok(double fps);
/* AVERROR_ENCODER_NOT_FOUND: this libavcodec has none. */
int dj__video_codec_open(dj__video_codec *c, const dj__video_codec_options *o);
/* Pixels (height rows of `stride` bytes) become the next frame; AVERROR(EINVAL): no conversion. */
int dj__video_codec_fill(dj__video_codec *c, enum AVPixelFormat format, const uint8_t *pixels,
                         int stride);
void dj__video_codec_close(dj__video_codec *c);

#endif
