/* Writes pictures as a video file: H.264 in MP4, which every player and browser shows. */
#ifndef DOJO_FLEET_VIDEO_WRITE_H
#define DOJO_FLEET_VIDEO_WRITE_H

#include <stddef.h>
#include <stdint.h>

#include "dojo/status.h"

typedef struct dj__video_writer dj__video_writer;

/* The file appears under `path` (*.mp4, replacing what is there) when the writer is closed. Width
 * and height are even, 16 to 8192; fps 0.1 to 240. Errors: DJ_E_INVALID, DJ_E_UNSUPPORTED (no
 * encoder), DJ_E_NOT_FOUND (no such folder), DJ_E_IO, DJ_E_NO_SPACE. */
dj_status dj__video_writer_open(const char *path, int width, int height, double fps,
                                dj__video_writer **w);
/* bgrx: rows of `stride` bytes, 4 bytes a pixel, as cairo's CAIRO_FORMAT_RGB24 has them on a
 * little-endian machine. */
dj_status dj__video_writer_put(dj__video_writer *w, const uint8_t *bgrx, int stride);
/* Ends the file, syncs it and gives it its name; frees `w` in any case. */
dj_status dj__video_writer_close(dj__video_writer *w);
void dj__video_writer_abort(dj__video_writer *w); /* leaves nothing behind; NULL is fine */

/* ---- video for logs: Annex B access units in memory ---- */
typedef struct dj__video_encoder dj__video_encoder;
/* H.264, a key frame every second, no frame that waits for a later one. Errors: as above. */
dj_status dj__video_encoder_open(int width, int height, double fps, dj__video_encoder **e);
/* rgb (height, width, 3) u8 to one access unit, valid until the next call. */
dj_status dj__video_encode(dj__video_encoder *e, const uint8_t *rgb, const uint8_t **data,
                           size_t *size);
void dj__video_encoder_close(dj__video_encoder *e); /* NULL is fine */

#endif
