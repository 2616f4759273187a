/*
 * H.264 access units for logs. Every unit is a whole picture that can be decoded with those since
 * the last key frame: no B-frames, no look-ahead, parameter sets with each key frame.
 */
#include <stdlib.h>

#include "fleet/video_codec.h"
#include "fleet/video_write.h"

struct dj__video_encoder {
  dj__video_codec v;
};

static dj_status av_failed(const dj__video_encoder *e, const char *what, int code) {
  char text[AV_ERROR_MAX_STRING_SIZE] = "";
  (void)av_strerror(code, text, sizeof text);
  const AVCodecContext *c = e->v.codec;
  return dj_error(code == AVERROR(ENOMEM) ? DJ_E_NOMEM : DJ_E_IO, "video of %d x %d pixels: %s: %s",
                  c ? c->width : 0, c ? c->height : 0, what, text);
}

dj_status dj__video_encoder_open(int width, int height, double fps, dj__video_encoder **out) {
  *out = NULL;
  if (!dj__video_size_ok(width, height))
    return dj_error(DJ_E_INVALID, "a video of %d x %d pixels; even sizes from 16 to 8192 work",
                    width, height);
  if (!dj__video_rate_ok(fps))
    return dj_error(DJ_E_INVALID, "a video of %g frames a second; 0.1 to 240 work", fps);
  dj__video_encoder *e = calloc(1, sizeof *e);
  if (!e) return dj_error(DJ_E_NOMEM, "no memory for a video encoder");
  const dj__video_codec_options o = {.width = width,
                                     .height = height,
                                     .fps = fps,
                                     .gop = fps < 1 ? 1 : (int)(fps + 0.5),
                                     .crf = "21",
                                     .bits = 4,
                                     .live = true};
  int code = dj__video_codec_open(&e->v, &o);
  if (code >= 0) {
    *out = e;
    return DJ_OK;
  }
  dj_status s =
      code == AVERROR_ENCODER_NOT_FOUND
          ? dj_error(DJ_E_UNSUPPORTED, "this libavcodec has no encoder for H.264; install one with "
                                       "libx264, or record JPEG pictures")
          : av_failed(e, "cannot start the encoder", code);
  dj__video_encoder_close(e);
  return s;
}

dj_status dj__video_encode(dj__video_encoder *e, const uint8_t *rgb, const uint8_t **data,
                           size_t *size) {
  dj__video_codec *v = &e->v;
  int code = dj__video_codec_fill(v, AV_PIX_FMT_RGB24, rgb, 3 * v->codec->width);
  if (code < 0) return av_failed(e, "cannot take the picture", code);
  av_packet_unref(v->packet);
  code = avcodec_send_frame(v->codec, v->frame);
  if (code >= 0) code = avcodec_receive_packet(v->codec, v->packet);
  if (code < 0) return av_failed(e, "cannot encode", code);
  *data = v->packet->data;
  *size = (size_t)v->packet->size;
  return DJ_OK;
}

void dj__video_encoder_close(dj__video_encoder *e) {
  if (!e) return;
  dj__video_codec_close(&e->v);
  free(e);
}
