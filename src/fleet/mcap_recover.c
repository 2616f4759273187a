/*
 * Rescue of a cut or damaged file: walks the mapped file record by record and copies what is whole
 * to a new, well-formed one. The old indexes are not believed, they are made anew.
 *
 * Whole chunks are taken over as they are, compressed. Of a cut one the messages up to the cut are
 * kept; of one that does not match its CRC nothing, since the wrong bytes could be anywhere. Where
 * the framing breaks, the length of the record before may be what is broken: the search for the
 * next Chunk begins behind the last record that a CRC vouches for, or one byte behind the start of
 * a later one.
 *
 * Definitions of schemas and channels that were lost with their chunk are taken from the summary,
 * if there is one; a channel that stays unknown gets a name made of its id, so that its messages
 * are not lost. Ids are kept; one that the file gives two meanings gets a new id for the second.
 *
 * Memory: one chunk of limits.max_chunk, what the writer's summary needs, and tables of ids.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/crc32.h"
#include "base/fs.h"
#include "fleet/mcap_write.h"

enum { IDS = 65536 };

typedef struct rescue {
  const unsigned char *data;
  uint64_t size;
  dj_mcap_writer *out;
  dj_mcap_limits limits;
  dj_mcap_problem_fn *problem;
  void *user;
  dj_mcap_recover_report *report;
  uint64_t told, kept;      // problems; bytes of records that are in the new file or made anew
  dj__arena arena, strings; // of the present record; of the present chunk record
  dj__mcap_codec codec;
  dj__buf chunk;
  uint32_t *schema_new, *channel_new;     // (IDS) id in the new file + 1; 0: its own
  uint64_t *schema_spare, *channel_spare; // (IDS) place of the definition in the summary; 0: none
  uint32_t *schema_seen, *channel_seen;   // (IDS) number of the chunk that defined it last
  uint32_t chunk_number;
  bool counting; // a chunk was lost: its MessageIndex records tell how many messages it had
  uint64_t chunk_saved, chunk_listed;
  bool behind_chunk;           // only MessageIndex records since the last chunk
  uint64_t statistics, stated; // place of the summary's Statistics, 0: none; its message_count
} rescue;

static void tell(rescue *r, uint64_t offset, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void tell(rescue *r, uint64_t offset, const char *fmt, ...) {
  if (!r->problem || r->told++ >= DJ_MCAP_MAX_TOLD) return;
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  (void)vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  r->problem(r->user, offset, text);
}

// ---- definitions ----

static uint16_t new_id(const uint32_t *table, uint16_t id) {
  return table[id] ? (uint16_t)(table[id] - 1) : id;
}

static dj_status take_schema(rescue *r, const dj_mcap_schema *s) {
  dj_status st = dj__mcap_define_schema(r->out, s);
  r->schema_new[s->id] = 0;
  if (st != DJ_E_EXISTS) return st;
  uint16_t id;
  DJ_TRY(dj_mcap_add_schema(r->out, s->name, s->encoding, s->data, s->size, &id));
  r->schema_new[s->id] = (uint32_t)id + 1;
  return DJ_OK;
}

/* Decodes a definition in the summary, whose place is noted in `table`. */
static bool spare(rescue *r, const uint64_t *table, uint16_t id, dj__arena *a,
                  dj_mcap_record *rec) {
  uint8_t op;
  const unsigned char *body;
  uint64_t length;
  return table[id] && !dj__mcap_frame(r->data, r->size, table[id], &op, &body, &length) &&
         !dj__mcap_decode(op, body, length, a, rec);
}

// The schema in the new file; 0 after telling that it is lost.
static dj_status schema_of(rescue *r, uint16_t old, uint64_t at, uint16_t *id) {
  *id = new_id(r->schema_new, old);
  if (!old || dj__mcap_has_schema(r->out, *id)) return DJ_OK;
  dj__arena a = {0};
  dj_mcap_record rec = {0};
  dj_status s = DJ_OK;
  if (spare(r, r->schema_spare, old, &a, &rec)) {
    s = take_schema(r, &rec.u.schema);
    *id = new_id(r->schema_new, old);
  } else {
    tell(r, at, "schema %u is lost; its channels are kept without one", old);
    *id = 0;
  }
  dj__arena_free(&a);
  return s;
}

static dj_status take_channel(rescue *r, const dj_mcap_channel *c, uint64_t at) {
  dj_mcap_channel copy = *c;
  DJ_TRY(schema_of(r, c->schema_id, at, &copy.schema_id));
  dj_status st = dj__mcap_define_channel(r->out, &copy);
  r->channel_new[c->id] = 0;
  if (st != DJ_E_EXISTS) return st;
  uint16_t id;
  DJ_TRY(dj_mcap_add_channel(r->out, copy.schema_id, c->topic, c->message_encoding, c->metadata,
                             c->n_metadata, &id));
  r->channel_new[c->id] = (uint32_t)id + 1;
  return DJ_OK;
}

/* Makes a channel known whose definition has not been met: from the summary, or under a name. */
static dj_status find_channel(rescue *r, uint16_t id, uint64_t at) {
  dj__arena a = {0};
  dj_mcap_record rec = {0};
  dj_status s;
  if (spare(r, r->channel_spare, id, &a, &rec)) {
    s = take_channel(r, &rec.u.channel, at);
  } else {
    char topic[64];
    (void)snprintf(topic, sizeof topic, "recovered/channel-%u", id);
    tell(r, at, "the definition of channel %u is lost; its messages are kept as \"%s\"", id, topic);
    s = take_channel(r, &(dj_mcap_channel){.id = id, .topic = topic, .message_encoding = ""}, at);
  }
  dj__arena_free(&a);
  return s;
}

// ---- records ----

static dj_status take_message(rescue *r, const unsigned char *body, uint64_t length, uint64_t at) {
  if (length < DJ__MCAP_MESSAGE) {
    r->report->messages_lost++;
    tell(r, at, "a message of %" PRIu64 " bytes is too short", length);
    return DJ_OK;
  }
  dj_mcap_message m;
  dj__mcap_message(body, (size_t)length, &m);
  uint16_t id = new_id(r->channel_new, m.channel_id);
  if (!dj__mcap_has_channel(r->out, id)) {
    DJ_TRY(find_channel(r, m.channel_id, at));
    id = new_id(r->channel_new, m.channel_id);
  }
  m.channel_id = id;
  DJ_TRY(dj_mcap_write(r->out, &m));
  r->report->messages_saved++;
  r->chunk_saved++;
  return DJ_OK;
}

static dj_status take_attachment(rescue *r, const unsigned char *body, const dj_mcap_attachment *a,
                                 uint64_t at, uint64_t *sure) {
  if (a->crc && dj__mcap_attachment_crc(body, a) != a->crc) {
    r->report->attachments_lost++;
    tell(r, at, "attachment \"%.64s\" of %zu bytes does not match its CRC", a->name, a->size);
    return DJ_OK;
  }
  if (a->crc) *sure = (uint64_t)((const unsigned char *)a->data - body) + a->size + 4;
  r->report->attachments_saved++;
  return dj_mcap_write_attachment(r->out, a);
}

/* A record in the data section or in a chunk. Bad ones are lost, not errors. *sure: bytes of the
 * body that are known to be right, 0 where nothing vouches for them. */
static dj_status take_record(rescue *r, uint8_t op, const unsigned char *body, uint64_t length,
                             uint64_t at, uint64_t *sure) {
  if (op == DJ_MCAP_MESSAGE) return take_message(r, body, length, at);
  if (op != DJ_MCAP_SCHEMA && op != DJ_MCAP_CHANNEL && op != DJ_MCAP_ATTACHMENT &&
      op != DJ_MCAP_METADATA)
    return DJ_OK;
  dj_mcap_record rec = {0};
  dj__arena_free(&r->arena);
  dj_status s = dj__mcap_decode(op, body, length, &r->arena, &rec);
  if (s == DJ_E_NOMEM) return s;
  if (s) {
    r->report->attachments_lost += op == DJ_MCAP_ATTACHMENT;
    r->report->complete = false;
    tell(r, at, "%s", dj_error_message());
    return DJ_OK;
  }
  switch (op) {
  case DJ_MCAP_SCHEMA:
    return take_schema(r, &rec.u.schema);
  case DJ_MCAP_CHANNEL:
    return take_channel(r, &rec.u.channel, at);
  case DJ_MCAP_ATTACHMENT:
    return take_attachment(r, body, &rec.u.attachment, at, sure);
  default:
    r->report->metadata_saved++;
    return dj_mcap_write_metadata(r->out, rec.u.metadata.name, rec.u.metadata.pairs,
                                  rec.u.metadata.n);
  }
}

// ---- chunks ----

/* All records in `size` bytes of a chunk; *whole is false if they do not end where the bytes do. */
static dj_status take_inside(rescue *r, const unsigned char *data, uint64_t size, uint64_t at,
                             bool *whole) {
  uint64_t p = 0;
  while (p < size) {
    uint8_t op;
    const unsigned char *body;
    uint64_t length;
    uint64_t sure;
    if (dj__mcap_frame(data, size, p, &op, &body, &length)) break;
    if (op != DJ_MCAP_ATTACHMENT && op != DJ_MCAP_METADATA) // these may not lie in a chunk
      DJ_TRY(take_record(r, op, body, length, at, &sure));
    p += DJ__MCAP_FRAME + length;
  }
  *whole = p == size;
  return DJ_OK;
}

/* Can the definition stay as it is in the new file? Not when the chunk has another of that id. */
static bool definition_fits(rescue *r, const dj_mcap_record *rec) {
  if (rec->opcode == DJ_MCAP_SCHEMA) {
    const dj_mcap_schema *s = &rec->u.schema;
    if (r->schema_seen[s->id] == r->chunk_number) return false;
    r->schema_seen[s->id] = r->chunk_number;
    return !r->schema_new[s->id] && dj__mcap_agrees_schema(r->out, s);
  }
  const dj_mcap_channel *c = &rec->u.channel;
  if (r->channel_seen[c->id] == r->chunk_number) return false;
  r->channel_seen[c->id] = r->chunk_number;
  return !r->channel_new[c->id] && dj__mcap_agrees_channel(r->out, c) &&
         (!c->schema_id || r->schema_seen[c->schema_id] == r->chunk_number ||
          (!r->schema_new[c->schema_id] && dj__mcap_has_schema(r->out, c->schema_id)));
}

/* Can the chunk be taken over as it is? Every record decodes, ids mean what they mean in the new
 * file, channels are known (they are made known here if need be). */
static dj_status chunk_fits(rescue *r, const unsigned char *plain, uint64_t size, uint64_t at,
                            bool *fits, uint64_t *messages) {
  r->chunk_number++;
  *fits = false;
  *messages = 0;
  uint64_t length;
  for (uint64_t p = 0; p < size; p += DJ__MCAP_FRAME + length) {
    uint8_t op;
    const unsigned char *body;
    if (dj__mcap_frame(plain, size, p, &op, &body, &length)) return DJ_OK;
    if (op == DJ_MCAP_SCHEMA || op == DJ_MCAP_CHANNEL) {
      dj_mcap_record rec = {0};
      dj__arena_free(&r->arena);
      dj_status s = dj__mcap_decode(op, body, length, &r->arena, &rec);
      if (s == DJ_E_NOMEM) return s;
      if (s || !definition_fits(r, &rec)) return DJ_OK;
    } else if (op == DJ_MCAP_MESSAGE) {
      if (length < DJ__MCAP_MESSAGE) return DJ_OK;
      uint16_t id = dj__mcap_u16(body);
      if (r->channel_seen[id] != r->chunk_number) {
        if (!r->channel_new[id] && !dj__mcap_has_channel(r->out, id))
          DJ_TRY(find_channel(r, id, at));
        if (r->channel_new[id]) return DJ_OK;
      }
      ++*messages;
    } else if (op <= DJ_MCAP_DATA_END) {
      return DJ_OK; // not to be found in a chunk
    }
  }
  *fits = true;
  return DJ_OK;
}

/* The chunk's records, or as many as there are; *got of them. NULL after telling why not. *exact:
 * its bytes are just these records and nothing else. */
static dj_status open_chunk(rescue *r, const dj_mcap_chunk *c, uint64_t at,
                            const unsigned char **plain, size_t *got, bool *exact) {
  *plain = NULL;
  *exact = c->records_size == c->uncompressed_size;
  if (c->uncompressed_size > r->limits.max_chunk) {
    tell(r, at, "a chunk of %" PRIu64 " bytes uncompressed, over the limit of %" PRIu64,
         c->uncompressed_size, r->limits.max_chunk);
    return DJ_OK;
  }
  if (!c->compression[0]) {
    *got =
        (size_t)(c->records_size < c->uncompressed_size ? c->records_size : c->uncompressed_size);
    *plain = c->records;
    return DJ_OK;
  }
  if (strcmp(c->compression, "zstd") != 0 && strcmp(c->compression, "lz4") != 0) {
    tell(r, at, "a chunk compressed with \"%.32s\", which is not known", c->compression);
    return DJ_OK;
  }
  r->chunk.size = 0;
  unsigned char *to = dj__buf_extend(&r->chunk, (size_t)c->uncompressed_size + 1);
  if (!to)
    return dj_error(DJ_E_NOMEM, "no memory for a chunk of %" PRIu64 " bytes", c->uncompressed_size);
  dj_status s = dj__mcap_decompress(&r->codec, c->compression, c->records, (size_t)c->records_size,
                                    to, (size_t)c->uncompressed_size);
  if (s == DJ_E_NOMEM) return s;
  *exact = !s;
  *got = (size_t)c->uncompressed_size;
  if (s)
    DJ_TRY(dj__mcap_decompress_prefix(&r->codec, c->compression, c->records,
                                      (size_t)c->records_size, to, (size_t)c->uncompressed_size,
                                      got));
  *plain = to;
  return DJ_OK;
}

static void lose_chunk(rescue *r) {
  r->report->chunks_lost++;
  r->counting = true;
}

/* `cut`: the file ends within it. *sure: bytes of the body if it is good; the length in front of it
 * may still be broken. */
static dj_status take_chunk(rescue *r, const dj_mcap_chunk *c, const unsigned char *body,
                            uint64_t at, bool cut, uint64_t *sure) {
  const unsigned char *plain;
  size_t got = 0;
  bool exact = false;
  *sure = 0;
  r->counting = false;
  r->chunk_saved = r->chunk_listed = 0;
  DJ_TRY(open_chunk(r, c, at, &plain, &got, &exact));
  if (!plain) {
    lose_chunk(r);
    return DJ_OK;
  }
  bool all = !cut && got == c->uncompressed_size, fits = false, whole = false;
  if (all && c->uncompressed_crc && dj__crc32(0, plain, got) != c->uncompressed_crc) {
    lose_chunk(r);
    tell(r, at, "a chunk that does not match its CRC");
    return DJ_OK;
  }
  uint64_t messages = 0;
  if (all && exact) DJ_TRY(chunk_fits(r, plain, got, at, &fits, &messages));
  if (fits) {
    DJ_TRY(dj__mcap_write_chunk(r->out, c, plain));
    r->report->messages_saved += messages;
    whole = true;
  } else {
    DJ_TRY(take_inside(r, plain, got, at, &whole));
  }
  if (all && whole) {
    r->report->chunks_saved++;
    *sure = (uint64_t)((const unsigned char *)c->records - body) + c->records_size;
  } else {
    lose_chunk(r);
    tell(r, at,
         "a chunk that ends after %zu of %" PRIu64 " bytes: its first %" PRIu64
         " messages are kept",
         got, c->uncompressed_size, r->chunk_saved);
  }
  return DJ_OK;
}

/* The last record runs past the end: what of a chunk is there may still be read. */
static dj_status take_cut_chunk(rescue *r, uint64_t at) {
  const unsigned char *body = r->data + at + DJ__MCAP_FRAME;
  uint64_t left = r->size - at - DJ__MCAP_FRAME;
  if (left < 40) return DJ_OK;
  uint32_t name = dj__mcap_u32(body + 28);
  if (name > 8 || left < 40 + (uint64_t)name) return DJ_OK;
  char compression[16] = "";
  memcpy(compression, body + 32, name);
  dj_mcap_chunk c = {.uncompressed_size = dj__mcap_u64(body + 16),
                     .compression = compression,
                     .records = body + 40 + name,
                     .records_size = left - 40 - name};
  uint64_t sure;
  return take_chunk(r, &c, body, at, true, &sure);
}

// ---- walking ----

/* Does a record begin at `at` that fits and is as long as one of its kind has to be? */
static bool plausible(const rescue *r, uint64_t at) {
  static const unsigned char least[] = {0,  8,  20, 14, 16, 22, 40, 6,
                                        68, 36, 48, 46, 8,  20, 17, 4}; // bytes of a body
  if (at > r->size || r->size - at < DJ__MCAP_FRAME || !r->data[at]) return false;
  uint64_t length = dj__mcap_u64(r->data + at + 1);
  return length <= r->size - at - DJ__MCAP_FRAME &&
         (r->data[at] >= sizeof least || length >= least[r->data[at]]);
}

/* Is there a Chunk at `at`, by its own fields? *length of its body is theirs: the one in front of
 * it may be broken. It must be followed by a record or the end of the file. */
static bool is_chunk(const rescue *r, uint64_t at, uint64_t *length) {
  enum { FIXED = 40 }; // bytes of a body without name and records
  uint64_t left = r->size - at;
  if (left < DJ__MCAP_FRAME + FIXED + 4) return false;
  left -= DJ__MCAP_FRAME + FIXED;
  const unsigned char *body = r->data + at + DJ__MCAP_FRAME;
  uint32_t name = dj__mcap_u32(body + 28);
  if (name > 4 || name > left) return false;
  left -= name;
  if (name && memcmp(body + 32, "lz4", name) != 0 && memcmp(body + 32, "zstd", name) != 0)
    return false;
  uint64_t records = dj__mcap_u64(body + 32 + name);
  if (records > left) return false;
  *length = FIXED + name + records;
  return records == left || plausible(r, at + DJ__MCAP_FRAME + *length);
}

/* Next offset >= at where a Chunk begins, and the length of its body; `size` where there is none.
 */
static uint64_t find_chunk(const rescue *r, uint64_t at, uint64_t *length) {
  for (; at < r->size; at++) {
    const unsigned char *p = memchr(r->data + at, DJ_MCAP_CHUNK, (size_t)(r->size - at));
    if (!p) break;
    at = (uint64_t)(p - r->data);
    if (is_chunk(r, at, length)) return at;
  }
  return r->size;
}

static bool is_end(const rescue *r, uint64_t at) {
  uint64_t length = dj__mcap_u64(r->data + at + 1), most = DJ__MCAP_MAX_PADDING;
  return (r->data[at] == DJ_MCAP_DATA_END && length <= DJ__MCAP_DATA_END + most) ||
         (r->data[at] == DJ_MCAP_FOOTER && length <= DJ__MCAP_FOOTER + most);
}

// How many messages a lost chunk had is told by the records behind it.
static void count_listed(rescue *r, uint64_t at, const unsigned char *body, uint64_t length) {
  if (!r->behind_chunk) {
    tell(r, at, "a MessageIndex without its chunk");
    lose_chunk(r);
    r->chunk_saved = r->chunk_listed = 0;
    r->behind_chunk = true;
  }
  uint32_t bytes = dj__mcap_u32(body + 2);
  if (r->counting && bytes <= length - 6) r->chunk_listed += bytes / 16;
}

static void end_counting(rescue *r) {
  if (r->counting && r->chunk_listed > r->chunk_saved)
    r->report->messages_lost += r->chunk_listed - r->chunk_saved;
  r->counting = false;
}

static dj_status take_any(rescue *r, uint64_t at, uint64_t length, uint64_t *sure) {
  uint8_t op = r->data[at];
  const unsigned char *body = r->data + at + DJ__MCAP_FRAME;
  *sure = 0;
  if (op == DJ_MCAP_MESSAGE_INDEX) {
    count_listed(r, at, body, length);
    return DJ_OK;
  }
  end_counting(r);
  r->behind_chunk = op == DJ_MCAP_CHUNK;
  if (op != DJ_MCAP_CHUNK) return take_record(r, op, body, length, at, sure);
  dj_mcap_record rec = {0};
  dj__arena_free(&r->strings);
  dj_status s = dj__mcap_decode(op, body, length, &r->strings, &rec);
  if (!s) return take_chunk(r, &rec.u.chunk, body, at, false, sure);
  if (s == DJ_E_NOMEM) return s;
  lose_chunk(r);
  tell(r, at, "%s", dj_error_message());
  return DJ_OK;
}

/* No record is at *at: goes on at the next chunk, whose length is given, or at the end of the file.
 */
static dj_status skip_damage(rescue *r, uint64_t from, uint64_t *at, uint64_t *length) {
  uint64_t next = find_chunk(r, from, length), broken = *at;
  r->report->complete = false;
  end_counting(r);
  *at = next;
  if (next < r->size) {
    tell(r, broken, "no whole record is here: going on with the chunk at byte %" PRIu64, next);
    return DJ_OK;
  }
  tell(r, broken, "the file is cut here, or nothing behind can be read");
  if (r->size - broken > DJ__MCAP_FRAME && r->data[broken] == DJ_MCAP_CHUNK)
    return take_cut_chunk(r, broken);
  return DJ_OK;
}

/* Where a record ends: where its length says, or where its fields do if only there a record of a
 * known kind follows. */
static uint64_t record_end(const rescue *r, uint64_t at, uint64_t length, uint64_t sure) {
  uint64_t end = at + DJ__MCAP_FRAME + length, inner = at + DJ__MCAP_FRAME + sure;
  bool follows = plausible(r, end) && r->data[end] <= DJ_MCAP_DATA_END;
  return sure && !follows && plausible(r, inner) && r->data[inner] <= DJ_MCAP_DATA_END ? inner
                                                                                       : end;
}

static dj_status walk(rescue *r, uint64_t at) {
  uint64_t from = at; // where a search has to begin if what is at `at` is no record
  while (at < r->size) {
    uint64_t length = 0, lost = r->report->chunks_lost;
    if (!plausible(r, at)) {
      DJ_TRY(skip_damage(r, from, &at, &length));
      if (at >= r->size) return DJ_OK;
    } else if (is_end(r, at)) {
      end_counting(r);
      if (r->data[at] == DJ_MCAP_FOOTER) r->report->complete = false; // without a DataEnd
      r->kept += r->size - at;
      return DJ_OK;
    } else {
      length = dj__mcap_u64(r->data + at + 1);
    }
    uint64_t sure;
    DJ_TRY(take_any(r, at, length, &sure));
    uint64_t end = record_end(r, at, length, sure);
    if (lost == r->report->chunks_lost) r->kept += end - at;
    from = sure ? at + DJ__MCAP_FRAME + sure : at + 1;
    at = end;
  }
  end_counting(r);
  r->report->complete = false;
  return DJ_OK;
}

// ---- beginning and end ----

/* Notes what the summary has of definitions and counts, if there is one that can be believed. */
static void learn_summary(rescue *r) {
  const uint64_t tail = DJ__MCAP_FRAME + DJ__MCAP_FOOTER + DJ__MCAP_MAGIC;
  if (r->size < 2 * tail) return;
  uint64_t footer = r->size - tail, at = 0;
  const unsigned char *p = r->data + footer;
  if (p[0] != DJ_MCAP_FOOTER || dj__mcap_u64(p + 1) != DJ__MCAP_FOOTER) return;
  at = dj__mcap_u64(p + DJ__MCAP_FRAME);
  uint32_t crc = dj__mcap_u32(p + DJ__MCAP_FRAME + 16);
  if (at < DJ__MCAP_MAGIC || at > footer) return;
  if (crc && dj__crc32(0, r->data + at, (size_t)(footer - at) + DJ__MCAP_FRAME + 16) != crc) return;
  while (at < footer && plausible(r, at)) {
    uint64_t length = dj__mcap_u64(r->data + at + 1);
    uint16_t id = dj__mcap_u16(r->data + at + DJ__MCAP_FRAME);
    if (r->data[at] == DJ_MCAP_SCHEMA) r->schema_spare[id] = at;
    if (r->data[at] == DJ_MCAP_CHANNEL) r->channel_spare[id] = at;
    if (r->data[at] == DJ_MCAP_STATISTICS) {
      r->statistics = at;
      r->stated = dj__mcap_u64(r->data + at + DJ__MCAP_FRAME);
    }
    at += DJ__MCAP_FRAME + length;
  }
}

static dj_status make_tables(rescue *r) {
  uint32_t **small[] = {&r->schema_new, &r->channel_new, &r->schema_seen, &r->channel_seen};
  for (size_t i = 0; i < sizeof small / sizeof *small; i++)
    if (!(*small[i] = calloc(IDS, sizeof **small[i])))
      return dj_error(DJ_E_NOMEM, "no memory for a rescuer's tables");
  r->schema_spare = calloc(IDS, sizeof *r->schema_spare);
  r->channel_spare = calloc(IDS, sizeof *r->channel_spare);
  if (!r->schema_spare || !r->channel_spare)
    return dj_error(DJ_E_NOMEM, "no memory for a rescuer's tables");
  return DJ_OK;
}

/* *at: where the first record is. */
static dj_status find_begin(rescue *r, const char *name, uint64_t *at) {
  *at = DJ__MCAP_MAGIC;
  if (r->size >= DJ__MCAP_MAGIC && !memcmp(r->data, dj__mcap_magic, DJ__MCAP_MAGIC)) {
    r->kept = DJ__MCAP_MAGIC;
    return DJ_OK;
  }
  r->report->complete = false;
  uint64_t length;
  *at = find_chunk(r, 0, &length);
  if (*at >= r->size)
    return dj_error(DJ_E_FORMAT,
                    "%s: no MCAP file: it does not begin with the MCAP magic and holds no chunk",
                    name);
  tell(r, 0, "the file does not begin with the MCAP magic: going on at the chunk at byte %" PRIu64,
       *at);
  return DJ_OK;
}

static dj_status rescue_all(rescue *r, const char *name, const char *out) {
  uint64_t at;
  DJ_TRY(find_begin(r, name, &at));
  DJ_TRY(make_tables(r));
  learn_summary(r);
  dj_mcap_record rec = {0};
  uint8_t op;
  const unsigned char *body;
  uint64_t length;
  const char *profile = "";
  if (at == DJ__MCAP_MAGIC && !dj__mcap_frame(r->data, r->size, at, &op, &body, &length) &&
      op == DJ_MCAP_HEADER && !dj__mcap_decode(op, body, length, &r->arena, &rec))
    profile = rec.u.header.profile;
  const dj_mcap_options o = {.profile = profile, .compression = DJ_MCAP_ZSTD};
  DJ_TRY(out ? dj_mcap_writer_open(out, &o, &r->out) : dj_mcap_writer_open_memory(&o, &r->out));
  return walk(r, at);
}

static void free_rescue(rescue *r) {
  dj__arena_free(&r->arena);
  dj__arena_free(&r->strings);
  dj__buf_free(&r->chunk);
  dj__mcap_codec_free(&r->codec);
  free(r->schema_new);
  free(r->channel_new);
  free(r->schema_seen);
  free(r->channel_seen);
  free(r->schema_spare);
  free(r->channel_spare);
}

static void finish_report(rescue *r) {
  dj_mcap_recover_report *p = r->report;
  if (r->statistics && r->stated > p->messages_saved &&
      r->stated - p->messages_saved > p->messages_lost) {
    p->messages_lost = r->stated - p->messages_saved;
    tell(r, r->statistics, "the summary counts %" PRIu64 " messages, %" PRIu64 " could be read",
         r->stated, p->messages_saved);
  }
  p->bytes_in = r->size;
  p->bytes_lost = r->kept < r->size ? r->size - r->kept : 0;
  if (p->chunks_lost || p->attachments_lost || p->messages_lost) p->complete = false;
  if (p->complete) p->bytes_lost = 0;
}

/* To the file `out`, or with `out` NULL to *made. */
static dj_status run(const char *name, const void *data, size_t size, const char *out,
                     const dj_mcap_limits *l, dj_mcap_problem_fn *problem, void *user,
                     dj_mcap_recover_report *report, void **made, size_t *made_size) {
  dj_mcap_recover_report own;
  rescue r = {.data = data,
              .size = size,
              .problem = problem,
              .user = user,
              .report = report ? report : &own};
  *r.report = (dj_mcap_recover_report){.complete = true};
  if (l) r.limits = *l;
  if (!r.limits.max_chunk) r.limits.max_chunk = (uint64_t)256 << 20;
  dj_status s = rescue_all(&r, name, out);
  if (s)
    dj_mcap_writer_abort(r.out);
  else
    s = out ? dj_mcap_writer_close(r.out) : dj_mcap_writer_close_memory(r.out, made, made_size);
  if (!s) finish_report(&r);
  free_rescue(&r);
  return s;
}

// By whatever name: the damaged file must not be replaced by what was saved of it.
static bool same_file(const char *a, const char *b) {
  struct stat x, y;
  return !strcmp(a, b) ||
         (!stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

dj_status dj_mcap_recover(const char *in, const char *out, const dj_mcap_limits *l,
                          dj_mcap_problem_fn *problem, void *user, dj_mcap_recover_report *report) {
  if (report) *report = (dj_mcap_recover_report){0};
  if (same_file(in, out))
    return dj_error(DJ_E_INVALID, "%s is %s: the rescued file needs another name", out, in);
  dj__file_map map;
  DJ_TRY(dj__file_map_open(in, &map));
  dj_status s = run(in, map.data, map.size, out, l, problem, user, report, NULL, NULL);
  dj__file_map_close(&map);
  return s;
}

dj_status dj_mcap_recover_memory(const char *name, const void *data, size_t size,
                                 const dj_mcap_limits *l, dj_mcap_problem_fn *problem, void *user,
                                 dj_mcap_recover_report *report, void **out, size_t *out_size) {
  *out = NULL;
  *out_size = 0;
  return run(name, data, size, NULL, l, problem, user, report, out, out_size);
}
