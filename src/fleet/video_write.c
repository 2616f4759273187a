/*
 * Video files through libavformat and libavcodec. The first encoder of H.264 that this libavcodec
 * brings is taken, else MPEG-4 part 2. The file is written under a temporary name beside its own;
 * no creation time or library version goes into it, so that the same pictures give the same file.
 */
#include "fleet/video_write.h"

#include <errno.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/fs.h"
#include "fleet/video.h"

struct dj__video_writer {
  dj__atomic file; // holds the name; libavformat writes to file.tmp
  AVFormatContext *format;
  AVCodecContext *codec;
  AVStream *stream;
  AVFrame *frame;
  AVPacket *packet;
  struct SwsContext *sws;
  int64_t n;
  bool header; // is written
};

static dj_status av_failed(const dj__video_writer *w, const char *what, int code) {
  if (code == AVERROR(ENOMEM))
    return dj_error(DJ_E_NOMEM, "%s: %s: out of memory", w->file.path, what);
  if (code == AVERROR(ENOSPC) || code == AVERROR(EDQUOT) || code == AVERROR(EACCES) ||
      code == AVERROR(ENOENT) || code == AVERROR(EIO) || code == AVERROR(EROFS)) {
    errno = AVUNERROR(code);
    return dj_error_errno("%s: %s", w->file.path, what);
  }
  char text[AV_ERROR_MAX_STRING_SIZE] = "";
  (void)av_strerror(code, text, sizeof text);
  return dj_error(DJ_E_IO, "%s: %s: %s", w->file.path, what, text);
}

static const AVCodec *find_encoder(void) {
  static const char *const names[] = {"libx264", "libopenh264", "mpeg4"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const AVCodec *c = avcodec_find_encoder_by_name(names[i]);
    if (c) return c;
  }
  return NULL;
}

static dj_status open_codec(dj__video_writer *w, int width, int height, double fps) {
  const AVCodec *encoder = find_encoder();
  if (!encoder)
    return dj_error(DJ_E_UNSUPPORTED,
                    "%s: this libavcodec has no encoder for H.264 or MPEG-4; install one with "
                    "libx264, or write pictures with --png",
                    w->file.path);
  AVCodecContext *c = w->codec = avcodec_alloc_context3(encoder);
  w->frame = av_frame_alloc();
  w->packet = av_packet_alloc();
  if (!c || !w->frame || !w->packet) return dj_error(DJ_E_NOMEM, "%s: out of memory", w->file.path);
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
  c->gop_size = fps < 15 ? 30 : (int)(2 * fps);
  c->flags |= AV_CODEC_FLAG_BITEXACT;
  if (w->format->oformat->flags & AVFMT_GLOBALHEADER) c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  if (!strcmp(encoder->name, "libx264")) {
    (void)av_opt_set(c->priv_data, "preset", "veryfast", 0);
    (void)av_opt_set(c->priv_data, "crf", "20", 0);
  } else {
    c->bit_rate = (int64_t)width * height * 5;
  }
  int code = avcodec_open2(c, encoder, NULL);
  if (code < 0) return av_failed(w, "cannot start the video encoder", code);
  w->frame->format = c->pix_fmt;
  w->frame->width = width;
  w->frame->height = height;
  w->frame->color_range = c->color_range;
  w->frame->colorspace = c->colorspace;
  code = av_frame_get_buffer(w->frame, 0);
  return code < 0 ? av_failed(w, "no picture buffer", code) : DJ_OK;
}

static dj_status open_file(dj__video_writer *w) {
  w->stream = avformat_new_stream(w->format, NULL);
  if (!w->stream) return dj_error(DJ_E_NOMEM, "%s: out of memory", w->file.path);
  int code = avcodec_parameters_from_context(w->stream->codecpar, w->codec);
  if (code < 0) return av_failed(w, "cannot describe the video", code);
  w->stream->time_base = w->codec->time_base;
  w->stream->avg_frame_rate = w->codec->framerate;
  w->format->flags |= AVFMT_FLAG_BITEXACT;
  code = avio_open(&w->format->pb, w->file.tmp, AVIO_FLAG_WRITE);
  if (code < 0) return av_failed(w, "cannot create", code);
  AVDictionary *options = NULL; // the index in front: browsers play it before it is whole
  (void)av_dict_set(&options, "movflags", "+faststart", 0);
  code = avformat_write_header(w->format, &options);
  av_dict_free(&options);
  if (code < 0) return av_failed(w, "cannot write", code);
  w->header = true;
  return DJ_OK;
}

static dj_status check(const char *path, int width, int height, double fps) {
  size_t n = strlen(path);
  if (n < 5 || strcasecmp(path + n - 4, ".mp4") != 0)
    return dj_error(DJ_E_INVALID, "%s: videos are written as MP4; give a name that ends in .mp4",
                    path);
  if (width < 16 || height < 16 || width > 8192 || height > 8192 || width % 2 || height % 2)
    return dj_error(DJ_E_INVALID, "%s: a video of %d x %d pixels; even sizes from 16 to 8192 work",
                    path, width, height);
  if (!(fps >= 0.1 && fps <= 240))
    return dj_error(DJ_E_INVALID, "%s: %g frames a second; 0.1 to 240 work", path, fps);
  return DJ_OK;
}

dj_status dj__video_writer_open(const char *path, int width, int height, double fps,
                                dj__video_writer **out) {
  *out = NULL;
  DJ_TRY(check(path, width, height, fps));
  dj__video_quiet();
  dj__video_writer *w = calloc(1, sizeof *w);
  if (!w) return dj_error(DJ_E_NOMEM, "%s: out of memory", path);
  dj_status s = DJ_OK;
  DJ_TRY_GOTO(s, dj__atomic_open(&w->file, path));
  if (avformat_alloc_output_context2(&w->format, NULL, "mp4", w->file.tmp) < 0)
    DJ_TRY_GOTO(s, dj_error(DJ_E_UNSUPPORTED, "%s: this libavformat cannot write MP4", path));
  DJ_TRY_GOTO(s, open_codec(w, width, height, fps));
  DJ_TRY_GOTO(s, open_file(w));
  *out = w;
  return DJ_OK;
fail:
  dj__video_writer_abort(w);
  return s;
}

/* Takes out of the encoder what is ready; frame NULL: the end. */
static dj_status encode(dj__video_writer *w, const AVFrame *frame) {
  int code = avcodec_send_frame(w->codec, frame);
  if (code < 0) return av_failed(w, "cannot encode", code);
  while ((code = avcodec_receive_packet(w->codec, w->packet)) >= 0) {
    w->packet->duration = 1; // of the encoder's time base: every picture lasts as long
    av_packet_rescale_ts(w->packet, w->codec->time_base, w->stream->time_base);
    w->packet->stream_index = w->stream->index;
    code = av_interleaved_write_frame(w->format, w->packet);
    if (code < 0) return av_failed(w, "cannot write", code);
  }
  return code == AVERROR(EAGAIN) || code == AVERROR_EOF ? DJ_OK
                                                        : av_failed(w, "cannot encode", code);
}

dj_status dj__video_writer_put(dj__video_writer *w, const uint8_t *bgrx, int stride) {
  int width = w->codec->width, height = w->codec->height;
  int code = av_frame_make_writable(w->frame);
  if (code < 0) return av_failed(w, "no picture buffer", code);
  w->sws =
      sws_getCachedContext(w->sws, width, height, AV_PIX_FMT_BGR0, width, height, w->codec->pix_fmt,
                           SWS_BILINEAR | SWS_ACCURATE_RND | SWS_BITEXACT, NULL, NULL, NULL);
  if (!w->sws) return dj_error(DJ_E_UNSUPPORTED, "%s: cannot convert pictures", w->file.path);
  const int *bt709 = sws_getCoefficients(SWS_CS_ITU709);
  (void)sws_setColorspaceDetails(w->sws, bt709, 1, bt709, 0, 0, 1 << 16, 1 << 16);
  const uint8_t *planes[4] = {bgrx};
  const int strides[4] = {stride};
  (void)sws_scale(w->sws, planes, strides, 0, height, w->frame->data, w->frame->linesize);
  w->frame->pts = w->n++;
  return encode(w, w->frame);
}

void dj__video_writer_abort(dj__video_writer *w) {
  if (!w) return;
  if (w->format && w->format->pb) (void)avio_closep(&w->format->pb);
  avcodec_free_context(&w->codec);
  avformat_free_context(w->format);
  av_frame_free(&w->frame);
  av_packet_free(&w->packet);
  sws_freeContext(w->sws);
  dj__atomic_abort(&w->file);
  free(w);
}

dj_status dj__video_writer_close(dj__video_writer *w) {
  dj_status s =
      w->n ? encode(w, NULL)
           : dj_error(DJ_E_INVALID, "%s: a video needs at least one picture", w->file.path);
  if (!s) {
    int code = av_write_trailer(w->format);
    if (code >= 0) code = avio_closep(&w->format->pb);
    if (code < 0) s = av_failed(w, "cannot write", code);
  }
  if (!s) s = dj__atomic_commit(&w->file);
  dj__video_writer_abort(w);
  return s;
}
