/*
 * A video file as frames that a log can hold: H.264 and H.265 without reordered frames are copied
 * as Annex B access units; everything else is decoded and comes out as JPEG (quality 95).
 *
 * Every frame is known to decode before it is given out. A copied stream is decoded once when it is
 * opened, by all cores; only where that meets an error is it decoded again, unit by unit, to tell
 * which frames are broken. What depends on a broken frame, up to the next key frame, is broken too.
 *
 * Times are the container's, from the first frame; a container without times (a raw stream) has its
 * frames laid by its frame rate, 20 Hz where it names none.
 */
#include <libavcodec/avcodec.h>
#include <libavcodec/bsf.h>
#include <libavformat/avformat.h>
#include <libswscale/swscale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>

#include "base/fs.h"
#include "dojo/log.h"
#include "fleet/image.h"
#include "fleet/video.h"

static const char containers[] = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,"
                                 "h264,hevc,m4v,mjpeg,flv,asf,ogg,av1,obu,ivf,y4m,mxf,nut";

struct dj__video_source {
  char *path;
  AVFormatContext *format;
  AVStream *stream;
  AVBSFContext *filter;    // copying
  AVCodecContext *decoder; // decoding; with `filter`, only to find the broken units
  AVPacket *packet;
  AVFrame *frame;
  struct SwsContext *sws;
  tjhandle jpeg;
  uint8_t *rgb, *coded; // (h, w, 3) u8; a JPEG

  uint64_t count, first_ns, last_ns;
  bool need_key; // a frame was broken: those behind it up to the next key frame are, too
  bool ended;    // an error that nothing comes behind
  dj__video_info info;
};

static dj_status av_error(const dj__video_source *v, int e, const char *what) {
  char text[AV_ERROR_MAX_STRING_SIZE];
  av_strerror(e, text, sizeof text);
  return dj_error(e == AVERROR(ENOMEM) ? DJ_E_NOMEM : DJ_E_FORMAT, "%s: %s: %s", v->path, what,
                  text);
}

/* Annex B by the codec's filter (which leaves Annex B as it is). */
static dj_status open_copy(dj__video_source *v, const char *filter) {
  const AVBitStreamFilter *f = av_bsf_get_by_name(filter);
  if (!f) return dj_error(DJ_E_UNSUPPORTED, "libavcodec lacks the filter %s", filter);
  int e = av_bsf_alloc(f, &v->filter);
  if (e >= 0) e = avcodec_parameters_copy(v->filter->par_in, v->stream->codecpar);
  if (e >= 0) {
    v->filter->time_base_in = v->stream->time_base;
    e = av_bsf_init(v->filter);
  }
  return e < 0 ? av_error(v, e, "cannot read the video stream") : DJ_OK;
}

/* A decoder that says so when data are broken, rather than to hide it. threads 0: one a core. */
static dj_status new_decoder(const dj__video_source *v, const AVCodecParameters *par, int threads,
                             AVCodecContext **out) {
  const AVCodec *codec = avcodec_find_decoder(par->codec_id);
  if (!codec)
    return dj_error(DJ_E_UNSUPPORTED, "%s: no decoder for %s in this build of libavcodec", v->path,
                    avcodec_get_name(par->codec_id));
  AVCodecContext *c = avcodec_alloc_context3(codec);
  if (!c) return dj_error(DJ_E_NOMEM, "%s: out of memory", v->path);
  int e = avcodec_parameters_to_context(c, par);
  c->thread_count = threads;
  c->err_recognition = AV_EF_EXPLODE | AV_EF_CAREFUL;
  c->error_concealment = 0;
  c->max_pixels = (int64_t)DJ__MAX_PIXELS;
  if (e >= 0) e = avcodec_open2(c, codec, NULL);
  *out = c;
  if (e >= 0) return DJ_OK;
  avcodec_free_context(out);
  return av_error(v, e, "cannot open the decoder");
}

static dj_status open_decoder(dj__video_source *v) {
  const AVCodecParameters *par = v->stream->codecpar;
  v->jpeg = tjInitCompress();
  size_t bytes = (size_t)par->width * (size_t)par->height * 3;
  v->rgb = malloc(bytes);
  v->coded = malloc(tjBufSize(par->width, par->height, TJSAMP_444));
  if (!v->jpeg || !v->rgb || !v->coded) return dj_error(DJ_E_NOMEM, "%s: out of memory", v->path);
  return new_decoder(v, par, 1, &v->decoder);
}

static bool is_damaged(const AVFrame *f) {
  return f->flags & AV_FRAME_FLAG_CORRUPT || f->decode_error_flags;
}

/* Takes what the decoder has; < 0 where something in it is broken. */
static int drain(AVCodecContext *c, AVFrame *f) {
  for (;;) {
    int e = avcodec_receive_frame(c, f);
    if (e == AVERROR(EAGAIN) || e == AVERROR_EOF) return 0;
    if (e < 0) return e;
    if (is_damaged(f)) return AVERROR_INVALIDDATA;
  }
}

static dj_status open_format(const dj__video_source *v, AVFormatContext **format, int *stream);

/* Does the whole stream decode? A packet that cannot be read is left for the import to meet. */
static dj_status decode_once(const dj__video_source *v, bool *sound) {
  AVFormatContext *format = NULL;
  AVCodecContext *c = NULL;
  AVPacket *packet = av_packet_alloc();
  AVFrame *frame = av_frame_alloc();
  int stream = 0, e = 0;
  dj_status s = packet && frame ? open_format(v, &format, &stream)
                                : dj_error(DJ_E_NOMEM, "%s: out of memory", v->path);
  if (!s) s = new_decoder(v, format->streams[stream]->codecpar, 0, &c);
  for (uint64_t n = 0; !s && e >= 0 && av_read_frame(format, packet) >= 0;) {
    if (packet->stream_index == stream) {
      e = avcodec_send_packet(c, packet);
      if (e >= 0) e = drain(c, frame);
      dj_progress("decoding the video once", ++n, v->info.n_frames, "frames", NULL);
    }
    av_packet_unref(packet);
  }
  if (!s && e >= 0) e = avcodec_send_packet(c, NULL);
  if (!s && e >= 0) e = drain(c, frame);
  *sound = e >= 0;
  avcodec_free_context(&c);
  avformat_close_input(&format);
  av_packet_free(&packet);
  av_frame_free(&frame);
  return s;
}

static dj_status open_format(const dj__video_source *v, AVFormatContext **format, int *stream) {
  // A file and nothing else: the name is no address, and of libavformat's formats only containers
  // are let in, no playlists or scripts that name further files.
  char *url = dj__strf("file:%s", v->path);
  AVDictionary *o = NULL;
  (void)av_dict_set(&o, "protocol_whitelist", "file", 0);
  (void)av_dict_set(&o, "format_whitelist", containers, 0);
  int e = avformat_open_input(format, url, NULL, &o);
  av_dict_free(&o);
  free(url);
  if (e < 0) return av_error(v, e, "no video file that libavformat reads");
  e = avformat_find_stream_info(*format, NULL);
  if (e < 0) return av_error(v, e, "cannot find the streams");
  *stream = av_find_best_stream(*format, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
  if (*stream < 0) return dj_error(DJ_E_UNSUPPORTED, "%s: holds no video stream", v->path);
  return DJ_OK;
}

static dj_status open_stream(dj__video_source *v) {
  int k;
  DJ_TRY(open_format(v, &v->format, &k));
  v->stream = v->format->streams[k];
  const AVCodecParameters *par = v->stream->codecpar;
  if (par->width < 1 || par->height < 1 || par->width > 16384 || par->height > 16384)
    return dj_error(DJ_E_FORMAT, "%s: frames of %dx%d pixels", v->path, par->width, par->height);
  AVRational rate =
      v->stream->avg_frame_rate.num ? v->stream->avg_frame_rate : v->stream->r_frame_rate;
  v->info =
      (dj__video_info){.width = par->width,
                       .height = par->height,
                       .n_frames = v->stream->nb_frames > 0 ? (uint64_t)v->stream->nb_frames : 0,
                       .fps = rate.num > 0 && rate.den > 0 ? av_q2d(rate) : 0};
  bool h264 = par->codec_id == AV_CODEC_ID_H264, h265 = par->codec_id == AV_CODEC_ID_HEVC;
  if ((h264 || h265) && par->video_delay == 0) {
    v->info.format = h264 ? "h264" : "h265";
    DJ_TRY(open_copy(v, h264 ? "h264_mp4toannexb" : "hevc_mp4toannexb"));
    bool sound;
    DJ_TRY(decode_once(v, &sound));
    return sound ? DJ_OK : new_decoder(v, v->filter->par_out, 1, &v->decoder);
  }
  v->info.format = "jpeg";
  return open_decoder(v);
}

dj_status dj__video_source_open(const char *path, dj__video_source **out) {
  *out = NULL;
  dj__video_quiet();
  if (!dj__exists(path)) return dj_error(DJ_E_NOT_FOUND, "%s: no such file", path);
  if (dj__file_size(path) < 0) return dj_error(DJ_E_FORMAT, "%s: not a regular file", path);
  dj__video_source *v = calloc(1, sizeof *v);
  if (!v) return dj_error(DJ_E_NOMEM, "%s: out of memory", path);
  v->path = dj__strf("%s", path);
  v->packet = av_packet_alloc();
  v->frame = av_frame_alloc();
  dj_status s =
      v->packet && v->frame ? open_stream(v) : dj_error(DJ_E_NOMEM, "%s: out of memory", path);
  if (s)
    dj__video_source_close(v);
  else
    *out = v;
  return s;
}

const dj__video_info *dj__video_source_info(const dj__video_source *v) {
  return &v->info;
}

void dj__video_source_close(dj__video_source *v) {
  if (!v) return;
  av_bsf_free(&v->filter);
  avcodec_free_context(&v->decoder);
  avformat_close_input(&v->format);
  av_packet_free(&v->packet);
  av_frame_free(&v->frame);
  if (v->sws) sws_freeContext(v->sws);
  if (v->jpeg) tjDestroy(v->jpeg);
  free(v->rgb);
  free(v->coded);
  free(v->path);
  free(v);
}

/* Next packet of the video stream; DJ_E_END behind the last. */
static dj_status read_packet(dj__video_source *v) {
  for (;;) {
    int e = av_read_frame(v->format, v->packet);
    if (e == AVERROR_EOF) return DJ_E_END;
    if (e < 0) {
      v->ended = true;
      return av_error(v, e, "the video is cut or damaged");
    }
    if (v->packet->stream_index == v->stream->index) return DJ_OK;
    av_packet_unref(v->packet);
  }
}

static void set_time(dj__video_source *v, int64_t pts, dj__video_frame *f) {
  double fps = v->info.fps > 0 ? v->info.fps : 20;
  f->index = v->count;
  f->has_time = pts != AV_NOPTS_VALUE;
  uint64_t t = (uint64_t)llround((double)v->count * 1e9 / fps);
  if (f->has_time) {
    int64_t ns = av_rescale_q(pts, v->stream->time_base, (AVRational){1, 1000000000});
    if (!v->count) v->first_ns = (uint64_t)ns;
    t = ns > (int64_t)v->first_ns ? (uint64_t)ns - v->first_ns : 0;
  }
  if (t < v->last_ns) t = v->last_ns;
  f->t_ns = v->last_ns = t;
  v->count++;
}

static dj_status broken(dj__video_source *v, uint64_t index, uint64_t t_ns, const char *why) {
  v->need_key = true;
  avcodec_flush_buffers(v->decoder);
  return dj_error(DJ_E_FORMAT, "%s: frame %llu at %.3f s: %s", v->path, (unsigned long long)index,
                  (double)t_ns * 1e-9, why);
}

/* The unit in v->packet, in a stream that is known to be broken somewhere. */
static dj_status check_unit(dj__video_source *v, const dj__video_frame *f) {
  bool key = v->packet->flags & AV_PKT_FLAG_KEY;
  if (v->need_key && !key)
    return broken(v, f->index, f->t_ns, "builds on a frame that does not decode");
  v->need_key = false;
  int e = avcodec_send_packet(v->decoder, v->packet);
  if (e >= 0) e = drain(v->decoder, v->frame);
  return e < 0 ? broken(v, f->index, f->t_ns, "does not decode") : DJ_OK;
}

static dj_status next_copied(dj__video_source *v, dj__video_frame *f) {
  av_packet_unref(v->packet);
  for (;;) {
    int e = av_bsf_receive_packet(v->filter, v->packet);
    if (e >= 0) break;
    if (e == AVERROR_EOF) return DJ_E_END;
    dj_status s = e == AVERROR(EAGAIN) ? read_packet(v) : DJ_OK;
    if (s && s != DJ_E_END) return s;
    if (e == AVERROR(EAGAIN)) e = av_bsf_send_packet(v->filter, s ? NULL : v->packet);
    if (e < 0) {
      v->ended = true;
      return av_error(v, e, "the video stream is damaged");
    }
  }
  f->data = v->packet->data;
  f->size = (size_t)v->packet->size;
  f->key = v->packet->flags & AV_PKT_FLAG_KEY;
  set_time(v, v->packet->pts != AV_NOPTS_VALUE ? v->packet->pts : v->packet->dts, f);
  return v->decoder ? check_unit(v, f) : DJ_OK;
}

static dj_status next_decoded(dj__video_source *v, dj__video_frame *f) {
  for (;;) {
    int e = avcodec_receive_frame(v->decoder, v->frame);
    if (e >= 0 && !is_damaged(v->frame)) break;
    if (e == AVERROR_EOF) return DJ_E_END;
    if (e != AVERROR(EAGAIN)) return broken(v, v->count++, v->last_ns, "does not decode");
    dj_status s = read_packet(v);
    if (s && s != DJ_E_END) return s;
    bool key = s || v->packet->flags & AV_PKT_FLAG_KEY;
    if (v->need_key && !key) {
      av_packet_unref(v->packet);
      return broken(v, v->count++, v->last_ns, "builds on a frame that does not decode");
    }
    v->need_key = false;
    e = avcodec_send_packet(v->decoder, s ? NULL : v->packet);
    av_packet_unref(v->packet);
    if (e < 0 && e != AVERROR_EOF) return broken(v, v->count++, v->last_ns, "does not decode");
  }
  int w = v->info.width, h = v->info.height;
  dj_status st = dj__video_to_rgb(&v->sws, v->frame, w, h, v->rgb);
  if (st) {
    v->count++;
    return dj_error_context(st, "%s", v->path);
  }
  unsigned long size = tjBufSize(w, h, TJSAMP_444);
  if (tjCompress2(v->jpeg, v->rgb, w, 0, h, TJPF_RGB, &v->coded, &size, TJSAMP_444, 95,
                  TJFLAG_NOREALLOC))
    return dj_error(DJ_E_STATE, "%s: JPEG: %s", v->path, tjGetErrorStr2(v->jpeg));
  f->data = v->coded;
  f->key = true;
  f->size = size;
  set_time(v, v->frame->best_effort_timestamp, f);
  return DJ_OK;
}

dj_status dj__video_source_next(dj__video_source *v, dj__video_frame *f) {
  *f = (dj__video_frame){0};
  if (v->ended) return DJ_E_END;
  return v->filter ? next_copied(v, f) : next_decoded(v, f);
}
