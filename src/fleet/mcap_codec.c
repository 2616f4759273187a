/*
 * Chunk compression: zstd and lz4 frames. Contexts are kept from chunk to chunk. Decompression
 * writes into a buffer of the size the chunk declares (which the caller has held against its limit)
 * and nowhere else, so a bomb ends when that buffer is full.
 */
#include <lz4frame.h>
#include <zstd.h>

#include "fleet/mcap_wire.h"

void dj__mcap_codec_free(dj__mcap_codec *c) {
  (void)ZSTD_freeDCtx(c->zstd_in);
  (void)ZSTD_freeCCtx(c->zstd_out);
  (void)LZ4F_freeDecompressionContext(c->lz4_in);
  *c = (dj__mcap_codec){0};
}

const char *dj__mcap_compression_name(dj_mcap_compression c) {
  return c == DJ_MCAP_ZSTD ? "zstd" : c == DJ_MCAP_LZ4 ? "lz4" : "";
}

static dj_status compress_zstd(dj__mcap_codec *c, int level, const void *data, size_t size,
                               dj__buf *out) {
  if (!c->zstd_out && !(c->zstd_out = ZSTD_createCCtx()))
    return dj_error(DJ_E_NOMEM, "no memory for a zstd compressor");
  size_t bound = ZSTD_compressBound(size);
  unsigned char *to = dj__buf_extend(out, bound);
  if (!to) return dj_error(DJ_E_NOMEM, "no memory for %zu bytes of compressed chunk", bound);
  size_t n = ZSTD_compressCCtx(c->zstd_out, to, bound, data, size, level);
  if (ZSTD_isError(n)) return dj_error(DJ_E_IO, "zstd: %s", ZSTD_getErrorName(n));
  out->size = n;
  return DJ_OK;
}

static dj_status compress_lz4(int level, const void *data, size_t size, dj__buf *out) {
  const LZ4F_preferences_t prefs = {
      .frameInfo = {.blockSizeID = LZ4F_max4MB, .blockMode = LZ4F_blockLinked, .contentSize = size},
      .compressionLevel = level};
  size_t bound = LZ4F_compressFrameBound(size, &prefs);
  unsigned char *to = dj__buf_extend(out, bound);
  if (!to) return dj_error(DJ_E_NOMEM, "no memory for %zu bytes of compressed chunk", bound);
  size_t n = LZ4F_compressFrame(to, bound, data, size, &prefs);
  if (LZ4F_isError(n)) return dj_error(DJ_E_IO, "lz4: %s", LZ4F_getErrorName(n));
  out->size = n;
  return DJ_OK;
}

dj_status dj__mcap_compress(dj__mcap_codec *c, dj_mcap_compression how, int level, const void *data,
                            size_t size, dj__buf *out) {
  out->size = 0;
  switch (how) {
  case DJ_MCAP_ZSTD:
    return compress_zstd(c, level, data, size, out);
  case DJ_MCAP_LZ4:
    return compress_lz4(level, data, size, out);
  case DJ_MCAP_NONE:
    break;
  }
  dj__buf_put(out, data, size);
  return out->failed ? dj_error(DJ_E_NOMEM, "no memory for a chunk of %zu bytes", size) : DJ_OK;
}

static dj_status zstd_context(dj__mcap_codec *c) {
  if (!c->zstd_in && !(c->zstd_in = ZSTD_createDCtx()))
    return dj_error(DJ_E_NOMEM, "no memory for a zstd decompressor");
  return DJ_OK;
}

// Feeds lz4 until the output is full, the input is used up or it is bad; *got and `fault` say
// which.
static dj_status lz4_run(dj__mcap_codec *c, const void *data, size_t data_size, void *out,
                         size_t size, size_t *got, const char **fault) {
  LZ4F_dctx *ctx = c->lz4_in;
  if (!ctx) {
    if (LZ4F_isError(LZ4F_createDecompressionContext(&ctx, LZ4F_VERSION)))
      return dj_error(DJ_E_NOMEM, "no memory for an lz4 decompressor");
    c->lz4_in = ctx;
  }
  LZ4F_resetDecompressionContext(ctx);
  const unsigned char *in = data;
  unsigned char *to = out;
  size_t in_left = data_size, out_left = size, hint = 1;
  *fault = NULL;
  while (in_left) {
    size_t used = in_left, made = out_left;
    hint = LZ4F_decompress(ctx, to, &made, in, &used, NULL);
    if (LZ4F_isError(hint)) {
      *fault = LZ4F_getErrorName(hint);
      break;
    }
    in += used;
    in_left -= used;
    to += made;
    out_left -= made;
    if (!used && !made) break; // the output is full and the frame goes on
  }
  *got = size - out_left;
  if (!*fault && (hint || in_left))
    *fault = in_left ? "holds more than it declares" : "frame is cut";
  return DJ_OK;
}

dj_status dj__mcap_decompress(dj__mcap_codec *c, const char *compression, const void *data,
                              size_t data_size, void *out, size_t size) {
  size_t got = 0;
  const char *fault = NULL;
  if (!*compression) {
    got = data_size;
    if (got == size && size) memcpy(out, data, size);
  } else if (!strcmp(compression, "zstd")) {
    DJ_TRY(zstd_context(c));
    got = ZSTD_decompressDCtx(c->zstd_in, out, size, data, data_size);
    if (ZSTD_isError(got)) {
      fault = ZSTD_getErrorName(got);
      got = 0;
    }
  } else if (!strcmp(compression, "lz4")) {
    DJ_TRY(lz4_run(c, data, data_size, out, size, &got, &fault));
  } else {
    return dj_error(DJ_E_UNSUPPORTED, "chunk compression \"%.32s\"; known are \"\", lz4 and zstd",
                    compression);
  }
  if (fault)
    return dj_error(DJ_E_FORMAT, "%s chunk of %zu bytes: %s", compression, data_size, fault);
  if (got != size)
    return dj_error(DJ_E_FORMAT, "chunk holds %zu bytes uncompressed, it says %zu", got, size);
  return DJ_OK;
}

dj_status dj__mcap_decompress_prefix(dj__mcap_codec *c, const char *compression, const void *data,
                                     size_t data_size, void *out, size_t size, size_t *got) {
  const char *fault;
  *got = 0;
  if (!*compression) {
    *got = data_size < size ? data_size : size;
    if (*got) memcpy(out, data, *got);
  } else if (!strcmp(compression, "zstd")) {
    DJ_TRY(zstd_context(c));
    ZSTD_DCtx_reset(c->zstd_in, ZSTD_reset_session_only);
    ZSTD_outBuffer o = {out, size, 0};
    ZSTD_inBuffer i = {data, data_size, 0};
    while (i.pos < i.size && o.pos < o.size) {
      size_t in0 = i.pos, out0 = o.pos;
      if (ZSTD_isError(ZSTD_decompressStream(c->zstd_in, &o, &i))) break;
      if (i.pos == in0 && o.pos == out0) break;
    }
    *got = o.pos;
    ZSTD_DCtx_reset(c->zstd_in, ZSTD_reset_session_only);
  } else if (!strcmp(compression, "lz4")) {
    DJ_TRY(lz4_run(c, data, data_size, out, size, got, &fault));
  }
  return DJ_OK;
}
