/*
 * Video files through libavformat and libavcodec. The first encoder of H.264 that this libavcodec
 * brings is taken, else MPEG-4 part 2. The file is written under a temporary name beside its own;
 * no creation time or library version goes into it, so that the same pictures give the same file.
 */
#include "fleet/video_write.h"

#include <errno.h>
#include <libavformat/avformat.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/fs.h"
#include "fleet/video_codec.h"

struct dj__video_writer {
  dj__atomic file; // holds the name; libavformat writes to file.tmp
  AVFormatContext *format;
  AVStream *stream;
  dj__video_codec v;
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

static dj_status open_codec(dj__video_writer *w, int width, int height, double fps) {
  const dj__video_codec_options o = {.width = width,
                                     .height = height,
                                     .fps = fps,
                                     .gop = fps < 15 ? 30 : (int)(2 * fps),
                                     .crf = "20",
                                     .bits = 5,
                                     .global =
                                         (w->format->oformat->flags & AVFMT_GLOBALHEADER) != 0,
                                     .any_mpeg4 = true};
  int code = dj__video_codec_open(&w->v, &o);
  if (code == AVERROR_ENCODER_NOT_FOUND)
    return dj_error(DJ_E_UNSUPPORTED,
                    "%s: this libavcodec has no encoder for H.264 or MPEG-4; install one with "
                    "libx264, or write pictures with --png",
                    w->file.path);
  return code < 0 ? av_failed(w, "cannot start the video encoder", code) : DJ_OK;
}

static dj_status open_file(dj__video_writer *w) {
  w->stream = avformat_new_stream(w->format, NULL);
  if (!w->stream) return dj_error(DJ_E_NOMEM, "%s: out of memory", w->file.path);
  int code = avcodec_parameters_from_context(w->stream->codecpar, w->v.codec);
  if (code < 0) return av_failed(w, "cannot describe the video", code);
  w->stream->time_base = w->v.codec->time_base;
  w->stream->avg_frame_rate = w->v.codec->framerate;
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
  if (!dj__video_size_ok(width, height))
    return dj_error(DJ_E_INVALID, "%s: a video of %d x %d pixels; even sizes from 16 to 8192 work",
                    path, width, height);
  if (!dj__video_rate_ok(fps))
    return dj_error(DJ_E_INVALID, "%s: %g frames a second; 0.1 to 240 work", path, fps);
  return DJ_OK;
}

dj_status dj__video_writer_open(const char *path, int width, int height, double fps,
                                dj__video_writer **out) {
  *out = NULL;
  DJ_TRY(check(path, width, height, fps));
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
  int code = avcodec_send_frame(w->v.codec, frame);
  if (code < 0) return av_failed(w, "cannot encode", code);
  while ((code = avcodec_receive_packet(w->v.codec, w->v.packet)) >= 0) {
    w->v.packet->duration = 1; // of the encoder's time base: every picture lasts as long
    av_packet_rescale_ts(w->v.packet, w->v.codec->time_base, w->stream->time_base);
    w->v.packet->stream_index = w->stream->index;
    code = av_interleaved_write_frame(w->format, w->v.packet);
    if (code < 0) return av_failed(w, "cannot write", code);
  }
  return code == AVERROR(EAGAIN) || code == AVERROR_EOF ? DJ_OK
                                                        : av_failed(w, "cannot encode", code);
}

dj_status dj__video_writer_put(dj__video_writer *w, const uint8_t *bgrx, int stride) {
  int code = dj__video_codec_fill(&w->v, AV_PIX_FMT_BGR0, bgrx, stride);
  return code < 0 ? av_failed(w, "cannot take the picture", code) : encode(w, w->v.frame);
}

void dj__video_writer_abort(dj__video_writer *w) {
  if (!w) return;
  if (w->format && w->format->pb) (void)avio_closep(&w->format->pb);
  dj__video_codec_close(&w->v);
  avformat_free_context(w->format);
  dj__atomic_abort(&w->file);
  free(w);
}

dj_status dj__video_writer_close(dj__video_writer *w) {
  dj_status s =
      w->v.n ? encode(w, NULL)
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
