/*
 * Streamed reading: record after record from any source of bytes, without a summary and without
 * seeking. Records inside of chunks are given as if they stood in the data section, unless whole
 * chunks are asked for. CRCs of chunks and attachments are verified on the way, and the data
 * section's when its end record is met.
 *
 * Memory: one record of at most limits.max_record and one chunk of at most limits.max_chunk.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32.h"
#include "fleet/mcap_wire.h"

struct dj_mcap_stream {
  dj_mcap_read_fn *read;
  void *user;
  dj_mcap_limits limits;
  bool raw_chunks, ended, in_data;
  uint64_t offset;   // of the next byte
  uint32_t data_crc; // of the data section so far
  dj__buf record;    // body of the present record
  dj__arena arena;   // strings and arrays of the present record
  dj__mcap_codec codec;
  // Records of the present chunk:
  dj__buf chunk;
  const unsigned char *inside;
  uint64_t inside_size, inside_at, chunk_offset;
  // Source for reading from memory:
  const unsigned char *memory;
  size_t memory_size, memory_at;
};

static dj_status read_memory(void *user, void *buf, size_t n, size_t *got) {
  dj_mcap_stream *s = user;
  size_t left = s->memory_size - s->memory_at;
  *got = n < left ? n : left;
  if (*got) memcpy(buf, s->memory + s->memory_at, *got);
  s->memory_at += *got;
  return DJ_OK;
}

static dj_status cut(const dj_mcap_stream *s, const char *what) {
  return dj_error(DJ_E_FORMAT,
                  "byte %" PRIu64 ": the file ends within %s; `dojo log recover` rescues "
                  "what is whole",
                  s->offset, what);
}

/* Reads exactly n bytes; *got says how many there were when there were fewer. */
static dj_status read_all(dj_mcap_stream *s, void *buf, size_t n, size_t *got) {
  *got = 0;
  while (*got < n) {
    size_t k = 0;
    DJ_TRY(s->read(s->user, (char *)buf + *got, n - *got, &k));
    if (!k) break;
    *got += k;
  }
  s->offset += *got;
  if (s->in_data && !s->limits.skip_crc) s->data_crc = dj__crc32(s->data_crc, buf, *got);
  return DJ_OK;
}

static dj_status read_magic(dj_mcap_stream *s, const char *where) {
  unsigned char magic[DJ__MCAP_MAGIC];
  size_t got;
  uint64_t at = s->offset;
  DJ_TRY(read_all(s, magic, sizeof magic, &got));
  if (got < sizeof magic || memcmp(magic, dj__mcap_magic, sizeof magic) != 0)
    return dj_error(DJ_E_FORMAT, "byte %" PRIu64 ": the MCAP magic should stand at the %s", at,
                    where);
  return DJ_OK;
}

static dj_status stream_new(dj_mcap_read_fn *read, void *user, const dj_mcap_limits *l,
                            bool raw_chunks, dj_mcap_stream **out) {
  *out = NULL;
  dj_mcap_stream *s = calloc(1, sizeof *s);
  if (!s) return dj_error(DJ_E_NOMEM, "mcap: out of memory");
  s->read = read;
  s->user = user;
  s->raw_chunks = raw_chunks;
  if (l) s->limits = *l;
  if (!s->limits.max_chunk) s->limits.max_chunk = (uint64_t)256 << 20;
  if (!s->limits.max_record) s->limits.max_record = (uint64_t)512 << 20;
  *out = s;
  return DJ_OK;
}

static dj_status begin(dj_mcap_stream *s, dj_mcap_stream **out) {
  s->in_data = true; // the data section's CRC covers the magic too
  dj_status st = read_magic(s, "beginning");
  if (st) {
    dj_mcap_stream_close(s);
    s = NULL;
  }
  *out = s;
  return st;
}

dj_status dj_mcap_stream_open(dj_mcap_read_fn *read, void *user, const dj_mcap_limits *l,
                              bool raw_chunks, dj_mcap_stream **out) {
  dj_mcap_stream *s;
  DJ_TRY(stream_new(read, user, l, raw_chunks, &s));
  return begin(s, out);
}

dj_status dj_mcap_stream_open_memory(const void *data, size_t size, const dj_mcap_limits *l,
                                     bool raw_chunks, dj_mcap_stream **out) {
  dj_mcap_stream *s;
  DJ_TRY(stream_new(read_memory, NULL, l, raw_chunks, &s));
  s->user = s;
  s->memory = data;
  s->memory_size = size;
  return begin(s, out);
}

void dj_mcap_stream_close(dj_mcap_stream *s) {
  if (!s) return;
  dj__buf_free(&s->record);
  dj__buf_free(&s->chunk);
  dj__arena_free(&s->arena);
  dj__mcap_codec_free(&s->codec);
  free(s);
}

static dj_status decode(dj_mcap_stream *s, const unsigned char *body, uint64_t length,
                        dj_mcap_record *r) {
  dj__arena_free(&s->arena);
  dj_status st = dj__mcap_decode(r->opcode, body, length, &s->arena, r);
  if (!st && r->opcode == DJ_MCAP_ATTACHMENT && r->u.attachment.crc && !s->limits.skip_crc &&
      dj__mcap_attachment_crc(body, &r->u.attachment) != r->u.attachment.crc)
    st = dj_error(DJ_E_FORMAT, "the CRC of attachment '%s' does not match", r->u.attachment.name);
  if (!st) return DJ_OK;
  return r->in_chunk ? dj_error_context(st, "chunk at byte %" PRIu64 ", record at %" PRIu64,
                                        r->chunk_offset, r->offset)
                     : dj_error_context(st, "byte %" PRIu64, r->offset);
}

/* Starts on the records within a chunk. */
static dj_status enter_chunk(dj_mcap_stream *s, const dj_mcap_record *r) {
  const dj_mcap_chunk *c = &r->u.chunk;
  if (c->uncompressed_size > s->limits.max_chunk)
    return dj_error(DJ_E_LIMIT,
                    "byte %" PRIu64 ": a chunk of %" PRIu64 " bytes uncompressed; at most "
                    "%" PRIu64 " are read",
                    r->offset, c->uncompressed_size, s->limits.max_chunk);
  dj_status st = DJ_OK;
  if (!c->compression[0]) {
    if (c->uncompressed_size != c->records_size)
      st = dj_error(DJ_E_FORMAT, "an uncompressed chunk says %" PRIu64 " bytes and holds %" PRIu64,
                    c->uncompressed_size, c->records_size);
    s->inside = c->records; // in s->record, which stays until the chunk is done
  } else {
    s->chunk.size = 0;
    if (!dj__buf_extend(&s->chunk, (size_t)c->uncompressed_size + 1))
      return dj_error(DJ_E_NOMEM, "no memory for a chunk of %" PRIu64 " bytes",
                      c->uncompressed_size);
    st = dj__mcap_decompress(&s->codec, c->compression, c->records, (size_t)c->records_size,
                             s->chunk.data, (size_t)c->uncompressed_size);
    s->inside = s->chunk.data;
  }
  if (!st && c->uncompressed_crc && !s->limits.skip_crc &&
      dj__crc32(0, s->inside, (size_t)c->uncompressed_size) != c->uncompressed_crc)
    st = dj_error(DJ_E_FORMAT, "the chunk's CRC does not match its records");
  if (st) return dj_error_context(st, "byte %" PRIu64, r->offset);
  s->inside_size = c->uncompressed_size;
  s->inside_at = 0;
  s->chunk_offset = r->offset;
  return DJ_OK;
}

static dj_status next_inside(dj_mcap_stream *s, dj_mcap_record *r) {
  const unsigned char *body;
  uint64_t length;
  *r = (dj_mcap_record){.in_chunk = true, .offset = s->inside_at, .chunk_offset = s->chunk_offset};
  dj_status st =
      dj__mcap_frame(s->inside, s->inside_size, s->inside_at, &r->opcode, &body, &length);
  if (st)
    return dj_error_context(st, "chunk at byte %" PRIu64 ", record at %" PRIu64, s->chunk_offset,
                            s->inside_at);
  r->length = DJ__MCAP_FRAME + length;
  s->inside_at += r->length;
  return decode(s, body, length, r);
}

/* Fills s->record with `length` bytes, growing as they come: a length that lies costs nothing. */
static dj_status read_body(dj_mcap_stream *s, uint64_t length, uint64_t at) {
  enum { STEP = 1 << 20 };
  if (length > s->limits.max_record)
    return dj_error(DJ_E_LIMIT,
                    "byte %" PRIu64 ": a record of %" PRIu64 " bytes; at most %" PRIu64 " are read",
                    at, length, s->limits.max_record);
  s->record.size = 0;
  while (s->record.size < length) {
    size_t left = (size_t)(length - s->record.size), want = left < STEP ? left : STEP, got;
    unsigned char *to = dj__buf_extend(&s->record, want);
    if (!to) return dj_error(DJ_E_NOMEM, "no memory for a record of %" PRIu64 " bytes", length);
    DJ_TRY(read_all(s, to, want, &got));
    if (got < want) return cut(s, "a record");
  }
  return DJ_OK;
}

static dj_status next_outside(dj_mcap_stream *s, dj_mcap_record *r) {
  unsigned char frame[DJ__MCAP_FRAME];
  size_t got;
  uint32_t crc_before = s->data_crc;
  *r = (dj_mcap_record){.offset = s->offset};
  DJ_TRY(read_all(s, frame, sizeof frame, &got));
  if (got < sizeof frame)
    return cut(s, got ? "a record" : "the records: the closing magic is missing");
  r->opcode = frame[0];
  uint64_t length = dj__mcap_u64(frame + 1);
  DJ_TRY(read_body(s, length, r->offset));
  r->length = DJ__MCAP_FRAME + length;
  static const unsigned char nothing[1];
  DJ_TRY(decode(s, length ? s->record.data : nothing, length, r));
  if (r->opcode == DJ_MCAP_DATA_END) {
    s->in_data = false;
    uint32_t told = r->u.data_end.data_section_crc;
    if (told && !s->limits.skip_crc && told != crc_before)
      return dj_error(DJ_E_FORMAT, "byte %" PRIu64 ": the CRC of the data section does not match",
                      r->offset);
  }
  if (r->opcode == DJ_MCAP_FOOTER) {
    DJ_TRY(read_magic(s, "end"));
    s->ended = true;
  }
  return DJ_OK;
}

dj_status dj_mcap_stream_next(dj_mcap_stream *s, dj_mcap_record *r, bool *more) {
  *more = false;
  for (;;) {
    if (s->inside && s->inside_at < s->inside_size) {
      DJ_TRY(next_inside(s, r));
      break;
    }
    s->inside = NULL;
    if (s->ended) return DJ_OK;
    DJ_TRY(next_outside(s, r));
    if (r->opcode != DJ_MCAP_CHUNK || s->raw_chunks) break;
    DJ_TRY(enter_chunk(s, r));
  }
  *more = true;
  return DJ_OK;
}
