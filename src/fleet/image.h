/* Still pictures in memory: sizes, decoding into a caller's buffer, JPEG encoding. */
#ifndef DOJO_FLEET_IMAGE_H
#define DOJO_FLEET_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "dojo/drivelog.h"
#include "dojo/status.h"

/* Largest picture taken anywhere: 64 megapixels, a 192 MiB buffer. */
#define DJ__MAX_PIXELS ((uint64_t)64 << 20)

/* "jpeg" or "png" by the first bytes, else NULL. */
const char *dj__image_format(const void *data, size_t size);

/* Width and height from the header alone. Errors: DJ_E_FORMAT, DJ_E_LIMIT (over DJ__MAX_PIXELS). */
dj_status dj__image_size(const void *data, size_t size, int *w, int *h);

/* Decodes into rgb (h, w, 3) u8. The picture must be exactly w x h. A truncated or damaged picture
 * is DJ_E_FORMAT, never a partly grey frame. */
dj_status dj__image_decode_into(const void *data, size_t size, int w, int h, uint8_t *rgb);

/* Encodes rgb (h, w, 3) u8 as baseline JPEG, 4:2:0; quality 1..100. *out is malloc'ed. */
dj_status dj__jpeg_encode(const uint8_t *rgb, int w, int h, int quality, uint8_t **out,
                          size_t *size);

#endif
