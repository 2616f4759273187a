/*
 * SHA-256 digests as lower-case hex text, over bytes, files and mixes of both.
 *
 *     dj__digest d;
 *     dj__digest_init(&d);
 *     dj__digest_text(&d, "v1");
 *     dj__digest_bytes(&d, data, size);
 *     char hex[65];
 *     DJ_TRY(dj__digest_hex(&d, hex));   // frees d; errors on the way are kept until here
 */
#ifndef DOJO_BASE_DIGEST_H
#define DOJO_BASE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "dojo/status.h"

typedef struct dj__digest {
  void *ctx; // NULL after a failure
} dj__digest;

void dj__digest_init(dj__digest *d);
void dj__digest_bytes(dj__digest *d, const void *data, size_t size);
// A string with its length in front, so that two texts never run into each other.
void dj__digest_text(dj__digest *d, const char *s);
void dj__digest_u64(dj__digest *d, uint64_t v);
// Writes 64 hex digits and a NUL; frees d in any case.
dj_status dj__digest_hex(dj__digest *d, char hex[65]);

// sha256 of a whole file, read in pieces. `bytes` (its size) may be NULL.
dj_status dj__digest_file(const char *path, char hex[65], uint64_t *bytes);

#endif
