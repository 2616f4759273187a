/*
 * MCAP on the wire: little-endian numbers, framing, one encoder and one decoder for every record
 * type, chunk compression. Shared by the writer, the readers, the checker and the rescuer; knows
 * nothing of files.
 */
#ifndef DOJO_FLEET_MCAP_WIRE_H
#define DOJO_FLEET_MCAP_WIRE_H

#include <endian.h>
#include <string.h>

#include "base/arena.h"
#include "base/buf.h"
#include "dojo/mcap.h"

enum {
  DJ__MCAP_MAGIC = 8,         // bytes of magic at either end
  DJ__MCAP_FRAME = 9,         // opcode and length in front of each record
  DJ__MCAP_FOOTER = 20,       // body of a Footer
  DJ__MCAP_MESSAGE = 22,      // body of a Message without its data
  DJ__MCAP_DATA_END = 4,      // body of a DataEnd
  DJ__MCAP_MAX_PADDING = 255, // a writer's option
};
extern const unsigned char dj__mcap_magic[DJ__MCAP_MAGIC];

static inline uint16_t dj__mcap_u16(const unsigned char *p) {
  uint16_t v;
  memcpy(&v, p, sizeof v);
  return le16toh(v);
}
static inline uint32_t dj__mcap_u32(const unsigned char *p) {
  uint32_t v;
  memcpy(&v, p, sizeof v);
  return le32toh(v);
}
static inline uint64_t dj__mcap_u64(const unsigned char *p) {
  uint64_t v;
  memcpy(&v, p, sizeof v);
  return le64toh(v);
}

/* A Message body in place, without a copy; size >= DJ__MCAP_MESSAGE. */
static inline void dj__mcap_message(const unsigned char *body, size_t size, dj_mcap_message *m) {
  *m = (dj_mcap_message){.channel_id = dj__mcap_u16(body),
                         .sequence = dj__mcap_u32(body + 2),
                         .log_time = dj__mcap_u64(body + 6),
                         .publish_time = dj__mcap_u64(body + 14),
                         .data = body + DJ__MCAP_MESSAGE,
                         .size = size - DJ__MCAP_MESSAGE};
}

/* Appends a record: framing, fields of r->opcode and member, `padding` bytes 1, 255, 255, ... Out
 * of memory is sticky in `b`. An attachment's CRC is computed (0 with `no_crc`). Sizes were checked
 * by the caller (dj__mcap_encodable). */
void dj__mcap_encode(dj__buf *b, const dj_mcap_record *r, int padding, bool no_crc);
/* All strings, maps and arrays fit into their 32-bit lengths: DJ_E_LIMIT otherwise; DJ_E_INVALID
 * for a missing string. */
dj_status dj__mcap_encodable(const dj_mcap_record *r);

/* Decodes the body of a record into r->u. Strings and arrays come from `a`; data (of messages,
 * schemas, chunks, attachments) point into `body`. Bytes behind the last field are allowed, as the
 * spec demands. DJ_E_FORMAT names record and field. Unknown opcodes: DJ_OK, nothing decoded. */
dj_status dj__mcap_decode(uint8_t opcode, const unsigned char *body, uint64_t size, dj__arena *a,
                          dj_mcap_record *r);

/* Reads the framing at `offset` of size bytes: *body, *length (of the body). DJ_E_FORMAT when the
 * record does not fit. */
dj_status dj__mcap_frame(const unsigned char *data, uint64_t size, uint64_t offset, uint8_t *opcode,
                         const unsigned char **body, uint64_t *length);

/* CRC of an attachment record's body as the spec has it: everything before the CRC field. */
uint32_t dj__mcap_attachment_crc(const unsigned char *body, const dj_mcap_attachment *a);

/* ---- codec ---- */

/* Contexts of the compressors, made when first needed. All zero is a valid start. */
typedef struct dj__mcap_codec {
  void *zstd_in, *zstd_out, *lz4_in;
} dj__mcap_codec;
void dj__mcap_codec_free(dj__mcap_codec *c);

/* Name of a compression in the file: "", "lz4", "zstd". */
const char *dj__mcap_compression_name(dj_mcap_compression c);

/* Compresses into `out` (its old content goes). */
dj_status dj__mcap_compress(dj__mcap_codec *c, dj_mcap_compression how, int level, const void *data,
                            size_t size, dj__buf *out);
/* Fills exactly `size` bytes of `out` or is DJ_E_FORMAT; DJ_E_UNSUPPORTED for another compression.
 * Never writes beyond and takes no memory in proportion to the input. */
dj_status dj__mcap_decompress(dj__mcap_codec *c, const char *compression, const void *data,
                              size_t data_size, void *out, size_t size);
/* As much as can be had of a cut chunk: *got bytes of `out`. Never fails on bad data. */
dj_status dj__mcap_decompress_prefix(dj__mcap_codec *c, const char *compression, const void *data,
                                     size_t data_size, void *out, size_t size, size_t *got);

#endif
