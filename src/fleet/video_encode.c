/*
 * H.264 access units for logs. Every unit is a whole picture that can be decoded with those since
 * the last key frame: no B-frames, no look-ahead, parameter sets with each key frame, one thread
 * (threads would change the bytes).
 */
#include <libavcodec/avcodec.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>
#include <stdlib.h>
#include <string.h>

#include "fleet/video.h"
#include "fleet/video_write.h"

struct dj__video_encoder {
  AVCodecContext *codec;
  AVFrame *frame;
  AVPacket *packet;
  struct SwsContext *sws;
  int64_t n;
};

static dj_status av_failed(const dj__video_encoder *e, const char *what, int code) {
  char text[AV_ERROR_MAX_STRING_SIZE] = "";
  (void)av_strerror(code, text, sizeof text);
  return dj_error(code == AVERROR(ENOMEM) ? DJ_E_NOMEM : DJ_E_IO, "video of %d x %d pixels: %s: %s",
                  e->codec ? e->codec->width : 0, e->codec ? e->codec->height : 0, what, text);
}

static const AVCodec *find_encoder(void) {
  const AVCodec *c = avcodec_find_encoder_by_name("libx264");
  return c ? c : avcodec_find_encoder_by_name("libopenh264");
}

static dj_status open_codec(dj__video_encoder *e, const AVCodec *encoder, int width, int height,
                            double fps) {
  AVCodecContext *c = e->codec = avcodec_alloc_context3(encoder);
  e->frame = av_frame_alloc();
  e->packet = av_packet_alloc();
  if (!c || !e->frame || !e->packet) return dj_error(DJ_E_NOMEM, "no memory for a video encoder");
  AVRational rate = av_d2q(fps, 1001 * 240);
  c->width = width;
  c->height = height;
  c->framerate = rate;
  c->time_base = av_inv_q(rate);
  c->pix_fmt = AV_PIX_FMT_YUV420P;
  c->color_range = AVCOL_RANGE_MPEG;
  c->colorspace = AVCOL_SPC_BT709;
  c->color_primaries = AVCOL_PRI_BT709;
  c->color_trc = AVCOL_TRC_BT709;
  c->gop_size = fps < 1 ? 1 : (int)(fps + 0.5);
  c->max_b_frames = 0;
  c->thread_count = 1;
  c->flags |= AV_CODEC_FLAG_BITEXACT;
  if (!strcmp(encoder->name, "libx264")) {
    (void)av_opt_set(c->priv_data, "preset", "veryfast", 0);
    (void)av_opt_set(c->priv_data, "tune", "zerolatency", 0);
    (void)av_opt_set(c->priv_data, "crf", "21", 0);
  } else {
    c->bit_rate = (int64_t)width * height * 4;
  }
  int code = avcodec_open2(c, encoder, NULL);
  if (code < 0) return av_failed(e, "cannot start the encoder", code);
  e->frame->format = c->pix_fmt;
  e->frame->width = width;
  e->frame->height = height;
  e->frame->color_range = c->color_range;
  e->frame->colorspace = c->colorspace;
  code = av_frame_get_buffer(e->frame, 0);
  return code < 0 ? av_failed(e, "no picture buffer", code) : DJ_OK;
}

dj_status dj__video_encoder_open(int width, int height, double fps, dj__video_encoder **out) {
  *out = NULL;
  if (width < 16 || height < 16 || width > 8192 || height > 8192 || width % 2 || height % 2)
    return dj_error(DJ_E_INVALID, "a video of %d x %d pixels; even sizes from 16 to 8192 work",
                    width, height);
  if (!(fps >= 0.1 && fps <= 240))
    return dj_error(DJ_E_INVALID, "a video of %g frames a second; 0.1 to 240 work", fps);
  const AVCodec *encoder = find_encoder();
  if (!encoder)
    return dj_error(DJ_E_UNSUPPORTED, "this libavcodec has no encoder for H.264; install one with "
                                      "libx264, or record JPEG pictures");
  dj__video_quiet();
  dj__video_encoder *e = calloc(1, sizeof *e);
  if (!e) return dj_error(DJ_E_NOMEM, "no memory for a video encoder");
  dj_status s = open_codec(e, encoder, width, height, fps);
  if (s) {
    dj__video_encoder_close(e);
    return s;
  }
  *out = e;
  return DJ_OK;
}

dj_status dj__video_encode(dj__video_encoder *e, const uint8_t *rgb, const uint8_t **data,
                           size_t *size) {
  int width = e->codec->width, height = e->codec->height;
  int code = av_frame_make_writable(e->frame);
  if (code < 0) return av_failed(e, "no picture buffer", code);
  e->sws = sws_getCachedContext(e->sws, width, height, AV_PIX_FMT_RGB24, width, height,
                                e->codec->pix_fmt, SWS_BILINEAR | SWS_ACCURATE_RND | SWS_BITEXACT,
                                NULL, NULL, NULL);
  if (!e->sws)
    return dj_error(DJ_E_UNSUPPORTED, "cannot convert pictures of %d x %d pixels", width, height);
  const int *bt709 = sws_getCoefficients(SWS_CS_ITU709);
  (void)sws_setColorspaceDetails(e->sws, bt709, 1, bt709, 0, 0, 1 << 16, 1 << 16);
  const uint8_t *planes[4] = {rgb};
  const int strides[4] = {3 * width};
  (void)sws_scale(e->sws, planes, strides, 0, height, e->frame->data, e->frame->linesize);
  e->frame->pts = e->n++;
  av_packet_unref(e->packet);
  code = avcodec_send_frame(e->codec, e->frame);
  if (code >= 0) code = avcodec_receive_packet(e->codec, e->packet);
  if (code < 0) return av_failed(e, "cannot encode", code);
  *data = e->packet->data;
  *size = (size_t)e->packet->size;
  return DJ_OK;
}

void dj__video_encoder_close(dj__video_encoder *e) {
  if (!e) return;
  avcodec_free_context(&e->codec);
  av_frame_free(&e->frame);
  av_packet_free(&e->packet);
  sws_freeContext(e->sws);
  free(e);
}
