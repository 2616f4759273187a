/*
 * Decoding of the video in logs (libavcodec), and just enough of Annex B to find key frames.
 *
 * A decoder may keep a picture back until it has seen later units (by its own caution, or because
 * the stream reorders after all). Units are therefore sent with their index as time stamp, and
 * pictures taken until the one with the index asked for comes out; the end of the stream is
 * drained. So a frame is never mistaken for its neighbour, whatever the delay.
 *
 * One thread a decoder: loaders run several drives side by side.
 */
#include "fleet/video.h"

#include <libavcodec/avcodec.h>
#include <libavutil/imgutils.h>
#include <libswscale/swscale.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "fleet/image.h"

dj__codec dj__codec_by_name(const char *format) {
  if (!strcmp(format, "h264")) return DJ__CODEC_H264;
  if (!strcmp(format, "h265") || !strcmp(format, "hevc")) return DJ__CODEC_H265;
  return DJ__CODEC_NONE;
}

static void note_nal(dj__codec codec, unsigned char first, dj__au_info *info) {
  info->n_nals++;
  if (codec == DJ__CODEC_H264) { // ITU-T H.264, table 7-1
    int type = first & 31;
    info->key |= type == 5;
    info->picture |= type >= 1 && type <= 5;
    info->parameter_sets |= type == 7;
  } else { // ITU-T H.265, table 7-1
    int type = first >> 1 & 63;
    info->key |= type >= 16 && type <= 21;
    info->picture |= type <= 21;
    info->parameter_sets |= type == 33;
  }
}

dj__au_info dj__au_scan(dj__codec codec, const void *data, size_t size) {
  dj__au_info info = {0};
  const unsigned char *p = data;
  for (size_t i = 0; i + 3 < size;) {
    const unsigned char *zero = memchr(p + i, 0, size - 3 - i);
    if (!zero) break;
    i = (size_t)(zero - p);
    if (p[i + 1] == 0 && p[i + 2] == 1) {
      note_nal(codec, p[i + 3], &info);
      i += 4;
    } else {
      i++;
    }
  }
  return info;
}

static void be_quiet(void) {
  av_log_set_level(AV_LOG_QUIET);
}

void dj__video_quiet(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, be_quiet);
}

dj_status dj__video_to_rgb(struct SwsContext **sws, const AVFrame *frame, int w, int h,
                           uint8_t *rgb) {
  if (frame->width != w || frame->height != h)
    return dj_error(DJ_E_FORMAT, "video picture is %d x %d pixels where %d x %d were expected",
                    frame->width, frame->height, w, h);
  // Bit-exact flags: the same pixels with every instruction set.
  *sws = sws_getCachedContext(*sws, w, h, frame->format, w, h, AV_PIX_FMT_RGB24,
                              SWS_BICUBIC | SWS_ACCURATE_RND | SWS_BITEXACT | SWS_FULL_CHR_H_INT,
                              NULL, NULL, NULL);
  if (!*sws)
    return dj_error(DJ_E_UNSUPPORTED, "cannot convert video pixel format %d", frame->format);
  int space = frame->colorspace == AVCOL_SPC_BT709 ? SWS_CS_ITU709 : SWS_CS_DEFAULT;
  int full = frame->color_range == AVCOL_RANGE_JPEG || frame->format == AV_PIX_FMT_YUVJ420P;
  (void)sws_setColorspaceDetails(*sws, sws_getCoefficients(space), full,
                                 sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
  uint8_t *planes[4] = {rgb};
  int strides[4] = {w * 3};
  if (sws_scale(*sws, (const uint8_t *const *)frame->data, frame->linesize, 0, h, planes,
                strides) != h)
    return dj_error(DJ_E_FORMAT, "cannot convert a video picture of %d x %d pixels", w, h);
  return DJ_OK;
}

struct dj__video_decoder {
  dj__codec codec;
  size_t n;
  dj__video_read_fn *read;
  void *user;
  AVCodecContext *ctx;
  AVPacket *packet;
  AVFrame *frame; // last picture that came out
  struct SwsContext *sws;
  size_t next;   // unit to send next
  bool running;  // units have been sent since the last flush
  bool draining; // the end has been sent
  bool have;     // `frame` holds the picture of unit `at`
  size_t at;
};

dj_status dj__video_decoder_open(dj__codec codec, size_t n, dj__video_read_fn *read, void *user,
                                 dj__video_decoder **out) {
  *out = NULL;
  dj__video_quiet();
  enum AVCodecID id = codec == DJ__CODEC_H264 ? AV_CODEC_ID_H264 : AV_CODEC_ID_HEVC;
  const AVCodec *av = avcodec_find_decoder(id);
  if (!av || codec == DJ__CODEC_NONE)
    return dj_error(DJ_E_UNSUPPORTED, "libavcodec has no decoder for %s",
                    codec == DJ__CODEC_NONE ? "this video format" : avcodec_get_name(id));
  dj__video_decoder *d = calloc(1, sizeof *d);
  if (!d) return dj_error(DJ_E_NOMEM, "no memory for a video decoder");
  *d = (dj__video_decoder){.codec = codec, .n = n, .read = read, .user = user};
  d->ctx = avcodec_alloc_context3(av);
  d->packet = av_packet_alloc();
  d->frame = av_frame_alloc();
  dj_status s = DJ_OK;
  if (!d->ctx || !d->packet || !d->frame) {
    s = dj_error(DJ_E_NOMEM, "no memory for a video decoder");
  } else {
    d->ctx->thread_count = 1;
    d->ctx->flags |= AV_CODEC_FLAG_LOW_DELAY;
    d->ctx->err_recognition = AV_EF_EXPLODE | AV_EF_CAREFUL;
    d->ctx->error_concealment = 0;
    d->ctx->max_pixels = (int64_t)DJ__MAX_PIXELS;
    if (avcodec_open2(d->ctx, av, NULL) < 0)
      s = dj_error(DJ_E_UNSUPPORTED, "cannot start the %s decoder", av->name);
  }
  if (s) {
    dj__video_decoder_close(d);
    return s;
  }
  *out = d;
  return DJ_OK;
}

void dj__video_decoder_close(dj__video_decoder *d) {
  if (!d) return;
  avcodec_free_context(&d->ctx);
  av_packet_free(&d->packet);
  av_frame_free(&d->frame);
  sws_freeContext(d->sws);
  free(d);
}

static void restart(dj__video_decoder *d, size_t unit) {
  if (d->running) avcodec_flush_buffers(d->ctx);
  av_frame_unref(d->frame);
  d->running = d->draining = d->have = false;
  d->next = unit;
}

// The last unit at or before `index` that a decoder can start at.
static dj_status find_key(dj__video_decoder *d, size_t index, size_t *key) {
  for (size_t i = index + 1; i-- > 0;) {
    const uint8_t *data;
    size_t size;
    DJ_TRY(d->read(d->user, i, &data, &size));
    if (dj__au_scan(d->codec, data, size).key) {
      *key = i;
      return DJ_OK;
    }
  }
  return dj_error(DJ_E_FORMAT, "video has no key frame at or before its frame %zu", index);
}

// Sends one unit, or the end. *full: the decoder wants its pictures taken first.
static dj_status send_unit(dj__video_decoder *d, bool *full) {
  *full = false;
  int r;
  if (d->next == d->n) {
    r = avcodec_send_packet(d->ctx, NULL);
    if (r >= 0) d->draining = true;
  } else {
    const uint8_t *data;
    size_t size;
    DJ_TRY(d->read(d->user, d->next, &data, &size));
    if (size > INT32_MAX - AV_INPUT_BUFFER_PADDING_SIZE)
      return dj_error(DJ_E_LIMIT, "video frame %zu has %zu bytes", d->next, size);
    if (av_new_packet(d->packet, (int)size) < 0)
      return dj_error(DJ_E_NOMEM, "no memory for a video frame of %zu bytes", size);
    if (size) memcpy(d->packet->data, data, size);
    d->packet->pts = d->packet->dts = (int64_t)d->next;
    r = avcodec_send_packet(d->ctx, d->packet);
    av_packet_unref(d->packet);
    if (r >= 0) d->next++;
  }
  d->running = true;
  if (r == AVERROR(EAGAIN)) {
    *full = true;
    return DJ_OK;
  }
  if (r < 0)
    return dj_error(DJ_E_FORMAT, "video frame %zu does not decode: %s", d->next, av_err2str(r));
  return DJ_OK;
}

// Takes pictures until that of `index` is there. *more: units have to be sent first.
static dj_status take(dj__video_decoder *d, size_t index, bool *more) {
  *more = false;
  for (;;) {
    int r = avcodec_receive_frame(d->ctx, d->frame);
    d->have = false;
    if (r == AVERROR(EAGAIN)) {
      *more = true;
      return DJ_OK;
    }
    if (r == AVERROR_EOF) return dj_error(DJ_E_FORMAT, "video frame %zu gives no picture", index);
    if (r < 0)
      return dj_error(DJ_E_FORMAT, "video frame %zu does not decode: %s", index, av_err2str(r));
    if (d->frame->pts < 0) continue;
    d->have = true;
    d->at = (size_t)d->frame->pts;
    bool damaged = d->frame->flags & AV_FRAME_FLAG_CORRUPT || d->frame->decode_error_flags;
    if (d->at == index && damaged)
      return dj_error(DJ_E_FORMAT, "video frame %zu is damaged", index);
    if (d->at == index) return DJ_OK;
    if (d->at > index) return dj_error(DJ_E_FORMAT, "video frame %zu gives no picture", index);
  }
}

static dj_status seek(dj__video_decoder *d, size_t index) {
  enum { NEAR = 8 }; // decoding on costs less than a look back
  bool forward = d->running && !d->draining && (!d->have || d->at < index) && d->next <= index;
  if (forward && index - d->next <= NEAR) return DJ_OK;
  if (d->running && d->have && d->at < index && index < d->next) return DJ_OK; // still inside
  size_t key = 0;
  DJ_TRY(find_key(d, index, &key));
  if (forward && key < d->next) return DJ_OK; // no key frame in between: go on from here
  restart(d, key);
  return DJ_OK;
}

dj_status dj__video_decode(dj__video_decoder *d, size_t index, int w, int h, uint8_t *rgb) {
  if (index >= d->n) return dj_error(DJ_E_INVALID, "video frame %zu of %zu", index, d->n);
  dj_status s = DJ_OK;
  if (!(d->have && d->at == index)) {
    DJ_TRY_GOTO(s, seek(d, index));
    for (bool more = true;;) {
      if (d->running) DJ_TRY_GOTO(s, take(d, index, &more));
      if (!more) break;
      bool full;
      DJ_TRY_GOTO(s, send_unit(d, &full));
    }
  }
  DJ_TRY_GOTO(s, dj__video_to_rgb(&d->sws, d->frame, w, h, rgb));
  return DJ_OK;
fail:
  restart(d, 0); // a decoder that met broken data starts afresh
  return s;
}
