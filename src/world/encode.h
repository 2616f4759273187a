/*
 * Encoding pictures on threads of their own while the next ones are simulated and drawn: JPEG or
 * H.264 of the colour, PNG of the layers.
 *
 *     DJ_TRY(dj__encoders_create(&options, &e));
 *     DJ_TRY(dj__encoders_push(e, pictures));              // frame after frame; copies
 *     while (dj__encoders_ready(e)) DJ_TRY(dj__encoders_take(e, &frame));   // in order
 *     dj__encoders_destroy(e);
 *
 * A camera is always encoded by the same thread, in order, so that the bytes do not depend on how
 * many threads there are.
 */
#ifndef DOJO_WORLD_ENCODE_H
#define DOJO_WORLD_ENCODE_H

#include "world/render.h"

typedef struct dj__encode_options {
  const dj__rig *rig;
  double rate;     /* Hz, of the video */
  bool video;      /* H.264 instead of JPEG */
  int quality;     /* of JPEG, 1..100 */
  uint32_t layers; /* 1 << dj_layer */
  int threads;     /* 1 or more */
} dj__encode_options;

typedef struct dj__encoded { /* one frame of all cameras; free with dj__encoded_free */
  struct {
    uint8_t *data;
    size_t size;
  } part[DJ__RIG_CAMERAS][1 + DJ_N_LAYERS]; /* colour, then layers; NULL where not asked for */
} dj__encoded;
void dj__encoded_free(dj__encoded *f);

enum { DJ__ENCODE_DEPTH = 8 }; /* frames on their way at once */

typedef struct dj__encoders dj__encoders;
dj_status dj__encoders_create(const dj__encode_options *o, dj__encoders **e);
void dj__encoders_destroy(dj__encoders *e); /* NULL is fine */
/* pictures[rig->n_camera], with the layers asked for. At most DJ__ENCODE_DEPTH frames may be under
 * way: DJ_E_STATE. */
dj_status dj__encoders_push(dj__encoders *e, const dj__picture *pictures);
int dj__encoders_pending(const dj__encoders *e); /* pushed and not taken */
bool dj__encoders_ready(dj__encoders *e);        /* the next one is done */
/* Waits for the next frame. */
dj_status dj__encoders_take(dj__encoders *e, dj__encoded *frame);

#endif
