#include "fleet/video_codec.h"

#include <libavutil/opt.h>
#include <string.h>

#include "fleet/video.h"

bool dj__video_size_ok(int width, int height) {
  return width >= 16 && height >= 16 && width <= 8192 && height <= 8192 && width % 2 == 0 &&
         height % 2 == 0;
}

bool dj__video_rate_ok(double fps) {
  return fps >= 0.1 && fps <= 240;
}

static const AVCodec *find_encoder(bool any_mpeg4) {
  static const char *const names[] = {"libx264", "libopenh264", "mpeg4"};
  for (int i = 0; i < (any_mpeg4 ? 3 : 2); i++) {
    const AVCodec *c = avcodec_find_encoder_by_name(names[i]);
    if (c) return c;
  }
  return NULL;
}

static void describe(AVCodecContext *c, const dj__video_codec_options *o, bool x264) {
  AVRational rate = av_d2q(o->fps, 1001 * 240);
  c->width = o->width;
  c->height = o->height;
  c->framerate = rate;
  c->time_base = av_inv_q(rate);
  c->pix_fmt = AV_PIX_FMT_YUV420P;
  c->color_range = AVCOL_RANGE_MPEG;
  c->colorspace = AVCOL_SPC_BT709;
  c->color_primaries = AVCOL_PRI_BT709;
  c->color_trc = AVCOL_TRC_BT709;
  c->gop_size = o->gop;
  c->flags |= AV_CODEC_FLAG_BITEXACT;
  if (o->global) c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  if (o->live) {
    c->max_b_frames = 0;
    c->thread_count = 1; // threads would change the bytes
  }
  if (x264) {
    (void)av_opt_set(c->priv_data, "preset", "veryfast", 0);
    if (o->live) (void)av_opt_set(c->priv_data, "tune", "zerolatency", 0);
    (void)av_opt_set(c->priv_data, "crf", o->crf, 0);
  } else {
    c->bit_rate = (int64_t)o->width * o->height * o->bits;
  }
}

int dj__video_codec_open(dj__video_codec *v, const dj__video_codec_options *o) {
  const AVCodec *encoder = find_encoder(o->any_mpeg4);
  if (!encoder) return AVERROR_ENCODER_NOT_FOUND;
  dj__video_quiet();
  AVCodecContext *c = v->codec = avcodec_alloc_context3(encoder);
  v->frame = av_frame_alloc();
  v->packet = av_packet_alloc();
  if (!c || !v->frame || !v->packet) return AVERROR(ENOMEM);
  describe(c, o, !strcmp(encoder->name, "libx264"));
  int code = avcodec_open2(c, encoder, NULL);
  if (code < 0) return code;
  v->frame->format = c->pix_fmt;
  v->frame->width = o->width;
  v->frame->height = o->height;
  v->frame->color_range = c->color_range;
  v->frame->colorspace = c->colorspace;
  return av_frame_get_buffer(v->frame, 0);
}

int dj__video_codec_fill(dj__video_codec *v, enum AVPixelFormat format, const uint8_t *pixels,
                         int stride) {
  const int width = v->codec->width, height = v->codec->height;
  int code = av_frame_make_writable(v->frame);
  if (code < 0) return code;
  v->sws = sws_getCachedContext(v->sws, width, height, format, width, height, v->codec->pix_fmt,
                                SWS_BILINEAR | SWS_ACCURATE_RND | SWS_BITEXACT, NULL, NULL, NULL);
  if (!v->sws) return AVERROR(EINVAL);
  const int *bt709 = sws_getCoefficients(SWS_CS_ITU709);
  (void)sws_setColorspaceDetails(v->sws, bt709, 1, bt709, 0, 0, 1 << 16, 1 << 16);
  const uint8_t *planes[4] = {pixels};
  const int strides[4] = {stride};
  (void)sws_scale(v->sws, planes, strides, 0, height, v->frame->data, v->frame->linesize);
  v->frame->pts = v->n++;
  return 0;
}

void dj__video_codec_close(dj__video_codec *v) {
  avcodec_free_context(&v->codec);
  av_frame_free(&v->frame);
  av_packet_free(&v->packet);
  sws_freeContext(v->sws);
}
