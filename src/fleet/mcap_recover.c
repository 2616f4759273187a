/*
 * Rescue of a cut or damaged file: walks the mapped file record by record and copies what is whole
 * to a new, well-formed one. Of a chunk that is cut or does not match its CRC, the messages that
 * can be read up to the damage are kept if the compression gives them; where the framing itself is
 * broken, the walk stops looking at lengths and searches for the next place that reads as a Chunk.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/crc32.h"
#include "base/fs.h"
#include "fleet/mcap_wire.h"

enum { IDS = 65536 };

typedef struct rescue {
  dj__map in;
  dj_mcap_writer *out;
  dj_mcap_limits limits;
  dj_mcap_problem_fn *problem;
  void *user;
  dj_mcap_recover_report *report;
  dj__arena arena;
  dj__mcap_codec codec;
  dj__buf chunk;
  uint16_t *schema, *channel; // (IDS) new id of an old one; 0 and `known` bits: not seen
  bool *schema_known, *channel_known;
} rescue;

static void tell(const rescue *r, uint64_t offset, const char *text) {
  if (r->problem) r->problem(r->user, offset, text);
}

static dj_status take_schema(rescue *r, const dj_mcap_schema *s) {
  if (r->schema_known[s->id]) return DJ_OK;
  DJ_TRY(dj_mcap_add_schema(r->out, s->name, s->encoding, s->data, s->size, &r->schema[s->id]));
  r->schema_known[s->id] = true;
  return DJ_OK;
}

static dj_status take_channel(rescue *r, const dj_mcap_channel *c) {
  if (r->channel_known[c->id]) return DJ_OK;
  uint16_t schema = c->schema_id && r->schema_known[c->schema_id] ? r->schema[c->schema_id] : 0;
  DJ_TRY(dj_mcap_add_channel(r->out, schema, c->topic, c->message_encoding, c->metadata,
                             c->n_metadata, &r->channel[c->id]));
  r->channel_known[c->id] = true;
  return DJ_OK;
}

static dj_status take_message(rescue *r, const unsigned char *body, uint64_t length, uint64_t at) {
  if (length < DJ__MCAP_MESSAGE) return DJ_OK;
  dj_mcap_message m;
  dj__mcap_message(body, (size_t)length, &m);
  if (!r->channel_known[m.channel_id]) {
    r->report->messages_lost++;
    tell(r, at, "a message of a channel that is not defined (its definition is lost)");
    return DJ_OK;
  }
  m.channel_id = r->channel[m.channel_id];
  DJ_TRY(dj_mcap_write(r->out, &m));
  r->report->messages_saved++;
  return DJ_OK;
}

/* A record in the data section or in a chunk. Bad ones are lost, not errors. */
static dj_status take_record(rescue *r, uint8_t op, const unsigned char *body, uint64_t length,
                             uint64_t at) {
  if (op == DJ_MCAP_MESSAGE) return take_message(r, body, length, at);
  if (op != DJ_MCAP_SCHEMA && op != DJ_MCAP_CHANNEL && op != DJ_MCAP_ATTACHMENT &&
      op != DJ_MCAP_METADATA)
    return DJ_OK;
  dj_mcap_record rec = {0};
  dj__arena_free(&r->arena);
  dj_status s = dj__mcap_decode(op, body, length, &r->arena, &rec);
  if (s == DJ_E_NOMEM) return s;
  bool attachment = op == DJ_MCAP_ATTACHMENT;
  bool whole = !s && (!attachment || !rec.u.attachment.crc ||
                      dj__mcap_attachment_crc(body, &rec.u.attachment) == rec.u.attachment.crc);
  if (!whole) {
    r->report->attachments_lost += attachment;
    tell(r, at, attachment ? "a damaged attachment" : "a damaged record");
    return DJ_OK;
  }
  if (op == DJ_MCAP_SCHEMA) return take_schema(r, &rec.u.schema);
  if (op == DJ_MCAP_CHANNEL) return take_channel(r, &rec.u.channel);
  if (attachment) {
    r->report->attachments_saved++;
    return dj_mcap_write_attachment(r->out, &rec.u.attachment);
  }
  r->report->metadata_saved++;
  return dj_mcap_write_metadata(r->out, rec.u.metadata.name, rec.u.metadata.pairs,
                                rec.u.metadata.n);
}

/* All records in `size` bytes of a chunk; *whole is false if they do not end where the bytes do. */
static dj_status take_inside(rescue *r, const unsigned char *data, uint64_t size, uint64_t at,
                             bool *whole) {
  uint64_t p = 0;
  while (p < size) {
    uint8_t op;
    const unsigned char *body;
    uint64_t length;
    if (dj__mcap_frame(data, size, p, &op, &body, &length)) break;
    DJ_TRY(take_record(r, op, body, length, at));
    p += DJ__MCAP_FRAME + length;
  }
  *whole = p == size;
  return DJ_OK;
}

static dj_status take_chunk(rescue *r, const dj_mcap_chunk *c, uint64_t at, bool cut) {
  if (c->uncompressed_size > r->limits.max_chunk) {
    r->report->chunks_lost++;
    tell(r, at, "a chunk larger than the limit");
    return DJ_OK;
  }
  const unsigned char *data = c->records;
  size_t got =
      (size_t)(c->records_size < c->uncompressed_size ? c->records_size : c->uncompressed_size);
  if (c->compression[0]) {
    r->chunk.size = 0;
    unsigned char *to = dj__buf_extend(&r->chunk, (size_t)c->uncompressed_size + 1);
    if (!to)
      return dj_error(DJ_E_NOMEM, "no memory for a chunk of %" PRIu64 " bytes",
                      c->uncompressed_size);
    dj_status s =
        dj__mcap_decompress_prefix(&r->codec, c->compression, c->records, (size_t)c->records_size,
                                   to, (size_t)c->uncompressed_size, &got);
    if (s) {
      r->report->chunks_lost++;
      tell(r, at, "a chunk whose compression is not known");
      return s == DJ_E_NOMEM ? s : DJ_OK;
    }
    data = to;
  }
  bool good = !cut && got == c->uncompressed_size &&
              (!c->uncompressed_crc || dj__crc32(0, data, got) == c->uncompressed_crc);
  // Damaged bytes in a chunk that decompressed whole could be anywhere: none of it can be trusted.
  if (!good && !cut && got == c->uncompressed_size) {
    r->report->chunks_lost++;
    r->report->bytes_lost += c->records_size;
    tell(r, at, "a chunk whose CRC does not match");
    return DJ_OK;
  }
  bool whole;
  DJ_TRY(take_inside(r, data, got, at, &whole));
  if (good && whole) {
    r->report->chunks_saved++;
  } else {
    r->report->chunks_lost++;
    tell(r, at, "a chunk that is cut: its first messages are saved");
  }
  return DJ_OK;
}

/* Next offset >= at where a Chunk record begins that decodes and fits; size where there is none. */
static uint64_t find_chunk(rescue *r, uint64_t at) {
  for (; at + DJ__MCAP_FRAME < r->in.size; at++) {
    if (r->in.data[at] != DJ_MCAP_CHUNK) continue;
    uint8_t op;
    const unsigned char *body;
    uint64_t length;
    if (dj__mcap_frame(r->in.data, r->in.size, at, &op, &body, &length)) continue;
    dj_mcap_record rec = {0};
    dj__arena_free(&r->arena);
    if (dj__mcap_decode(op, body, length, &r->arena, &rec)) continue;
    const char *c = rec.u.chunk.compression;
    if (!*c || !strcmp(c, "lz4") || !strcmp(c, "zstd")) return at;
  }
  return r->in.size;
}

/* The last record runs past the end: what of a chunk is there may still be read. */
static dj_status take_cut_chunk(rescue *r, uint64_t at) {
  const unsigned char *body = r->in.data + at + DJ__MCAP_FRAME;
  uint64_t left = r->in.size - at - DJ__MCAP_FRAME;
  if (left < 40) return DJ_OK;
  uint32_t name = dj__mcap_u32(body + 28);
  if (name > 8 || left < 40 + (uint64_t)name) return DJ_OK;
  char compression[16] = "";
  memcpy(compression, body + 32, name);
  dj_mcap_chunk c = {.uncompressed_size = dj__mcap_u64(body + 16),
                     .compression = compression,
                     .records = body + 40 + name,
                     .records_size = left - 40 - name};
  return take_chunk(r, &c, at, true);
}

static dj_status walk(rescue *r) {
  uint64_t at = DJ__MCAP_MAGIC, size = r->in.size;
  while (at + DJ__MCAP_FRAME <= size) {
    uint8_t op;
    const unsigned char *body;
    uint64_t length;
    if (dj__mcap_frame(r->in.data, size, at, &op, &body, &length)) {
      uint64_t next = find_chunk(r, at + 1);
      r->report->complete = false;
      tell(r, at,
           next < size ? "broken framing: going on at the next chunk" : "the file is cut here");
      if (r->in.data[at] == DJ_MCAP_CHUNK && next >= size) DJ_TRY(take_cut_chunk(r, at));
      r->report->bytes_lost += next - at;
      at = next;
      continue;
    }
    if (op == DJ_MCAP_DATA_END || op == DJ_MCAP_FOOTER) return DJ_OK;
    if (op == DJ_MCAP_CHUNK) {
      dj_mcap_record rec = {0};
      dj__arena a = {0}; // the chunk's strings live while its records are decoded
      dj_status s = dj__mcap_decode(op, body, length, &a, &rec);
      if (!s) {
        s = take_chunk(r, &rec.u.chunk, at, false);
      } else if (s != DJ_E_NOMEM) {
        r->report->chunks_lost++;
        r->report->bytes_lost += length;
        tell(r, at, "a chunk whose header is damaged");
        s = DJ_OK;
      }
      dj__arena_free(&a);
      DJ_TRY(s);
    } else {
      DJ_TRY(take_record(r, op, body, length, at));
    }
    at += DJ__MCAP_FRAME + length;
  }
  r->report->complete = false;
  return DJ_OK;
}

static dj_status begin(rescue *r, const char *in, const char *out) {
  DJ_TRY(dj__map_open(in, &r->in));
  r->report->bytes_in = r->in.size;
  if (r->in.size < DJ__MCAP_MAGIC || memcmp(r->in.data, dj__mcap_magic, DJ__MCAP_MAGIC) != 0)
    return dj_error(DJ_E_FORMAT, "%s: no MCAP file: it does not begin with the MCAP magic", in);
  r->schema = calloc(IDS, sizeof *r->schema);
  r->channel = calloc(IDS, sizeof *r->channel);
  r->schema_known = calloc(IDS, sizeof *r->schema_known);
  r->channel_known = calloc(IDS, sizeof *r->channel_known);
  if (!r->schema || !r->channel || !r->schema_known || !r->channel_known)
    return dj_error(DJ_E_NOMEM, "%s: out of memory", in);
  char profile[256] = "";
  uint8_t op;
  const unsigned char *body;
  uint64_t length;
  dj_mcap_record rec = {0};
  if (!dj__mcap_frame(r->in.data, r->in.size, DJ__MCAP_MAGIC, &op, &body, &length) &&
      op == DJ_MCAP_HEADER && !dj__mcap_decode(op, body, length, &r->arena, &rec))
    (void)snprintf(profile, sizeof profile, "%s", rec.u.header.profile);
  return dj_mcap_writer_open(
      out, &(dj_mcap_options){.profile = profile, .compression = DJ_MCAP_ZSTD}, &r->out);
}

// By whatever name: the damaged file must not be replaced by what was saved of it.
static bool same_file(const char *a, const char *b) {
  struct stat x, y;
  return !strcmp(a, b) ||
         (!stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

dj_status dj_mcap_recover(const char *in, const char *out, const dj_mcap_limits *l,
                          dj_mcap_problem_fn *problem, void *user, dj_mcap_recover_report *report) {
  dj_mcap_recover_report own;
  rescue r = {.problem = problem, .user = user, .report = report ? report : &own};
  *r.report = (dj_mcap_recover_report){.complete = true};
  if (l) r.limits = *l;
  if (!r.limits.max_chunk) r.limits.max_chunk = (uint64_t)256 << 20;
  if (same_file(in, out))
    return dj_error(DJ_E_INVALID, "%s is %s: the rescued file needs another name", out, in);
  dj_status s = begin(&r, in, out);
  if (!s) s = walk(&r);
  if (!s)
    s = dj_mcap_writer_close(r.out);
  else
    dj_mcap_writer_abort(r.out);
  if (r.report->chunks_lost || r.report->attachments_lost || r.report->messages_lost)
    r.report->complete = false;
  dj__arena_free(&r.arena);
  dj__buf_free(&r.chunk);
  dj__mcap_codec_free(&r.codec);
  free(r.schema);
  free(r.channel);
  free(r.schema_known);
  free(r.channel_known);
  dj__map_close(&r.in);
  return s;
}
