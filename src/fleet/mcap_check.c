/*
 * Checker of MCAP files: walks the mapped file once from front to back, remembers what is there
 * (a few dozen bytes a chunk, attachment and metadata record; the messages of one chunk at a time)
 * and holds every index, count, time and CRC against it.
 *
 * Findings do not stop it, except broken framing in the data section: behind that no place of a
 * record is known (mcap_recover.c searches on). What a hostile file can cost is bounded: one
 * uncompressed chunk of limits.max_chunk, the messages within, and lists in proportion to the file.
 * The data section is checked here, summary and footer in mcap_check_summary.c.
 */
#include "fleet/mcap_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/crc32.h"
#include "base/fs.h"

enum { IDS = 65536 };

void dj__check_problem(dj__check *c, uint64_t offset, const char *fmt, ...) {
  c->report->problems++;
  if (!c->problem || c->report->problems > DJ_MCAP_MAX_TOLD) return;
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  (void)vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  c->problem(c->user, offset, text);
}

dj_status dj__check_push(dj__check_list *l, const void *item, size_t size) {
  if (l->n == l->cap) {
    size_t cap = l->cap ? l->cap * 2 : 64;
    void *p = cap < SIZE_MAX / size ? realloc(l->data, cap * size) : NULL;
    if (!p) return dj_error(DJ_E_NOMEM, "checking an MCAP file: no memory for a list of %zu", cap);
    l->data = p;
    l->cap = cap;
  }
  memcpy((char *)l->data + l->n++ * size, item, size);
  return DJ_OK;
}

// ---- definitions ----

static uint32_t digest_text(uint32_t crc, const char *s) {
  return dj__crc32(crc, s, strlen(s) + 1);
}

static uint32_t digest_schema(const dj_mcap_schema *s) {
  return dj__crc32(digest_text(digest_text(0, s->name), s->encoding), s->data, s->size);
}

static uint32_t digest_channel(const dj_mcap_channel *c) {
  uint32_t crc = dj__crc32(0, &c->schema_id, sizeof c->schema_id);
  crc = digest_text(digest_text(crc, c->topic), c->message_encoding);
  uint32_t pairs = 0; // a sum: the order of a map's entries means nothing
  for (size_t i = 0; i < c->n_metadata; i++)
    pairs += digest_text(digest_text(0, c->metadata[i].key), c->metadata[i].value);
  return dj__crc32(crc, &pairs, sizeof pairs);
}

void dj__check_schema(dj__check *c, const dj_mcap_schema *s, uint64_t at, bool repeated) {
  dj__check_definition *d = &c->schemas[s->id];
  uint32_t digest = digest_schema(s);
  if (!d->seen && repeated)
    dj__check_problem(c, at, "schema %u (%.64s) is in the summary and not in the data section",
                      s->id, s->name);
  else if (d->seen && d->digest != digest)
    dj__check_problem(c, at, "schema %u (%.64s) was defined before with another content", s->id,
                      s->name);
  if (!d->seen && !repeated) c->n_schemas++;
  *d = (dj__check_definition){.seen = true, .digest = digest};
}

void dj__check_channel(dj__check *c, const dj_mcap_channel *ch, uint64_t at, bool repeated) {
  dj__check_definition *d = &c->channels[ch->id];
  uint32_t digest = digest_channel(ch);
  if (ch->schema_id && !c->schemas[ch->schema_id].seen)
    dj__check_problem(c, at, "channel %u (%.64s) uses schema %u, which is not defined before it",
                      ch->id, ch->topic, ch->schema_id);
  if (!d->seen && repeated)
    dj__check_problem(c, at, "channel %u (%.64s) is in the summary and not in the data section",
                      ch->id, ch->topic);
  else if (d->seen && d->digest != digest)
    dj__check_problem(c, at, "channel %u (%.64s) was defined before with another content", ch->id,
                      ch->topic);
  if (!d->seen && !repeated) c->n_channels++;
  d->seen = true;
  d->digest = digest;
}

static void check_message(dj__check *c, const dj_mcap_message *m, uint64_t at) {
  dj__check_definition *d = &c->channels[m->channel_id];
  if (!d->seen && !d->messages)
    dj__check_problem(c, at, "a message of channel %u, which is not defined before it",
                      m->channel_id);
  d->messages++;
  if (!c->report->messages || m->log_time < c->start) c->start = m->log_time;
  if (!c->report->messages || m->log_time > c->end) c->end = m->log_time;
  c->report->messages++;
}

// ---- chunks ----

// The records of a chunk, uncompressed; NULL after a problem was told.
static dj_status chunk_records(dj__check *c, const dj_mcap_chunk *k, uint64_t at,
                               const unsigned char **records) {
  *records = NULL;
  if (k->uncompressed_size > c->limits.max_chunk) {
    dj__check_problem(c, at,
                      "a chunk of %" PRIu64 " bytes uncompressed, over the limit of %" PRIu64
                      ": not looked into",
                      k->uncompressed_size, c->limits.max_chunk);
    return DJ_OK;
  }
  if (!k->compression[0]) {
    if (k->uncompressed_size == k->records_size)
      *records = k->records;
    else
      dj__check_problem(c, at, "an uncompressed chunk says %" PRIu64 " bytes and holds %" PRIu64,
                        k->uncompressed_size, k->records_size);
  } else {
    c->chunk.size = 0;
    unsigned char *to = dj__buf_extend(&c->chunk, (size_t)k->uncompressed_size + 1);
    if (!to)
      return dj_error(DJ_E_NOMEM, "no memory for a chunk of %" PRIu64 " bytes",
                      k->uncompressed_size);
    dj_status s = dj__mcap_decompress(&c->codec, k->compression, k->records,
                                      (size_t)k->records_size, to, (size_t)k->uncompressed_size);
    if (s == DJ_E_NOMEM) return s;
    if (s)
      dj__check_problem(c, at, "%s", dj_error_message());
    else
      *records = to;
  }
  if (*records && k->uncompressed_crc && !c->limits.skip_crc) {
    uint32_t crc = dj__crc32(0, *records, (size_t)k->uncompressed_size);
    if (crc != k->uncompressed_crc)
      dj__check_problem(c, at, "the chunk's CRC is %08" PRIx32 ", its records have %08" PRIx32,
                        k->uncompressed_crc, crc);
  }
  return DJ_OK;
}

// One record inside of a chunk that begins at `chunk`.
static dj_status check_inside(dj__check *c, uint64_t chunk, uint64_t offset, uint8_t op,
                              const unsigned char *body, uint64_t length) {
  c->report->records++;
  dj_mcap_record r = {0};
  dj__arena_free(&c->arena);
  dj_status s = dj__mcap_decode(op, body, length, &c->arena, &r);
  if (s == DJ_E_NOMEM) return s;
  if (s) {
    dj__check_problem(c, chunk, "record at byte %" PRIu64 " of the chunk: %s", offset,
                      dj_error_message());
    return DJ_OK;
  }
  if (op == DJ_MCAP_SCHEMA) {
    dj__check_schema(c, &r.u.schema, chunk, false);
  } else if (op == DJ_MCAP_CHANNEL) {
    dj__check_channel(c, &r.u.channel, chunk, false);
  } else if (op == DJ_MCAP_MESSAGE) {
    const dj_mcap_message *m = &r.u.message;
    check_message(c, m, chunk);
    return dj__check_push(&c->inside, &(dj__check_place){m->channel_id, false, m->log_time, offset},
                          sizeof(dj__check_place));
  } else if (op && op <= DJ_MCAP_DATA_END) {
    dj__check_problem(c, chunk, "record at byte %" PRIu64 " of the chunk: a %s may not lie in one",
                      offset, dj_mcap_op_name(op));
  }
  return DJ_OK;
}

static int by_channel_and_offset(const void *x, const void *y) {
  const dj__check_place *a = x, *b = y;
  if (a->channel_id != b->channel_id) return a->channel_id < b->channel_id ? -1 : 1;
  return (a->offset > b->offset) - (a->offset < b->offset);
}

static void check_times(dj__check *c, const dj_mcap_chunk *k, uint64_t at) {
  const dj__check_place *p = c->inside.data;
  uint64_t start = 0, end = 0;
  for (size_t i = 0; i < c->inside.n; i++) {
    if (!i || p[i].log_time < start) start = p[i].log_time;
    if (!i || p[i].log_time > end) end = p[i].log_time;
  }
  if (k->start_time != start || k->end_time != end)
    dj__check_problem(c, at,
                      "the chunk says its messages are from %" PRIu64 " to %" PRIu64
                      " ns, they are from %" PRIu64 " to %" PRIu64,
                      k->start_time, k->end_time, start, end);
}

static dj_status check_chunk(dj__check *c, const dj_mcap_record *r) {
  const dj_mcap_chunk *k = &r->u.chunk;
  dj__check_chunk note = {.offset = r->offset,
                          .length = r->length,
                          .start = k->start_time,
                          .end = k->end_time,
                          .compressed = k->records_size,
                          .uncompressed = k->uncompressed_size,
                          .first_index = c->message_indexes.n};
  (void)snprintf(note.compression, sizeof note.compression, "%s", k->compression);
  c->report->chunks++;
  c->inside.n = 0;
  const unsigned char *records;
  const dj_mcap_chunk copy = *k; // its strings go when records within are decoded
  DJ_TRY(chunk_records(c, k, r->offset, &records));
  note.looked_into = records != NULL;
  for (uint64_t p = 0; records && p < copy.uncompressed_size;) {
    uint8_t op;
    const unsigned char *body;
    uint64_t length;
    if (dj__mcap_frame(records, copy.uncompressed_size, p, &op, &body, &length)) {
      dj__check_problem(c, r->offset, "record at byte %" PRIu64 " of the chunk: %s", p,
                        dj_error_message());
      note.looked_into = false;
      break;
    }
    DJ_TRY(check_inside(c, note.offset, p, op, body, length));
    p += DJ__MCAP_FRAME + length;
  }
  if (note.looked_into) check_times(c, &copy, note.offset);
  if (c->inside.n)
    qsort(c->inside.data, c->inside.n, sizeof(dj__check_place), by_channel_and_offset);
  return dj__check_push(&c->chunks, &note, sizeof note);
}

// ---- message indexes ----

static int by_offset(const void *x, const void *y) {
  const dj_mcap_index_entry *a = x, *b = y;
  return (a->offset > b->offset) - (a->offset < b->offset);
}

// The first place in the last chunk whose channel is `id` or above.
static size_t first_of_channel(const dj__check *c, uint32_t id) {
  const dj__check_place *p = c->inside.data;
  size_t lo = 0, hi = c->inside.n;
  while (lo < hi) {
    size_t mid = lo + (hi - lo) / 2;
    if (p[mid].channel_id < id)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

// The messages of a channel in the last chunk: *n of them from the one returned; NULL for none.
static dj__check_place *channel_range(dj__check *c, uint16_t id, size_t *n) {
  size_t first = first_of_channel(c, id);
  *n = first_of_channel(c, (uint32_t)id + 1) - first;
  return *n ? (dj__check_place *)c->inside.data + first : NULL;
}

static void compare_entries(dj__check *c, const dj_mcap_message_index *mi, uint64_t at) {
  size_t n;
  dj__check_place *p = channel_range(c, mi->channel_id, &n);
  if (n && p->indexed) {
    dj__check_problem(c, at, "a second MessageIndex for channel %u behind one chunk",
                      mi->channel_id);
    return;
  }
  if (n) p->indexed = true;
  if (mi->n != n) {
    dj__check_problem(c, at, "the MessageIndex of channel %u lists %zu messages, the chunk has %zu",
                      mi->channel_id, mi->n, n);
    return;
  }
  dj_mcap_index_entry *e = dj__arena_copy(&c->arena, mi->entries, n * sizeof *e);
  if (!e) return; // no memory to look closer
  qsort(e, n, sizeof *e, by_offset);
  for (size_t i = 0; i < n; i++)
    if (e[i].offset != p[i].offset || e[i].log_time != p[i].log_time) {
      dj__check_problem(c, at,
                        "the MessageIndex of channel %u says a message at byte %" PRIu64
                        " and %" PRIu64 " ns, it is at byte %" PRIu64 " and %" PRIu64 " ns",
                        mi->channel_id, e[i].offset, e[i].log_time, p[i].offset, p[i].log_time);
      return;
    }
}

static dj_status check_message_index(dj__check *c, const dj_mcap_record *r) {
  const dj_mcap_message_index *mi = &r->u.message_index;
  if (!c->behind_chunk) {
    dj__check_problem(c, r->offset, "a MessageIndex that does not follow a chunk");
    return DJ_OK;
  }
  dj__check_chunk *k = (dj__check_chunk *)c->chunks.data + c->chunks.n - 1;
  k->n_index++;
  k->index_length += r->length;
  DJ_TRY(dj__check_push(&c->message_indexes, &(dj_mcap_channel_number){mi->channel_id, r->offset},
                        sizeof(dj_mcap_channel_number)));
  if (k->looked_into) compare_entries(c, mi, r->offset);
  return DJ_OK;
}

// Behind the last MessageIndex of a chunk: has every channel got one?
static void end_indexes(dj__check *c) {
  if (!c->behind_chunk) return;
  c->behind_chunk = false;
  const dj__check_chunk *k = (dj__check_chunk *)c->chunks.data + c->chunks.n - 1;
  const dj__check_place *p = c->inside.data;
  if (!k->looked_into || !k->n_index) return;
  for (size_t i = 0; i < c->inside.n; i++)
    if ((i == 0 || p[i].channel_id != p[i - 1].channel_id) && !p[i].indexed)
      dj__check_problem(c, k->offset,
                        "channel %u has messages in this chunk and no MessageIndex behind it",
                        p[i].channel_id);
}

// ---- the data section ----

static dj_status check_attachment(dj__check *c, const dj_mcap_record *r,
                                  const unsigned char *body) {
  const dj_mcap_attachment *a = &r->u.attachment;
  if (a->crc && !c->limits.skip_crc) {
    uint32_t crc = dj__mcap_attachment_crc(body, a);
    if (crc != a->crc)
      dj__check_problem(c, r->offset,
                        "the CRC of attachment \"%.64s\" is %08" PRIx32 ", its bytes have "
                        "%08" PRIx32,
                        a->name, a->crc, crc);
  }
  c->report->attachments++;
  dj__check_extra note = {.offset = r->offset,
                          .length = r->length,
                          .log_time = a->log_time,
                          .create_time = a->create_time,
                          .size = a->size,
                          .names = digest_text(digest_text(0, a->name), a->media_type)};
  return dj__check_push(&c->attachments, &note, sizeof note);
}

static void check_data_end(dj__check *c, const dj_mcap_record *r) {
  uint32_t told = r->u.data_end.data_section_crc;
  if (!told || c->limits.skip_crc) return;
  uint32_t crc = dj__crc32(0, c->data, (size_t)r->offset);
  if (crc != told)
    dj__check_problem(c, r->offset,
                      "the CRC of the data section is %08" PRIx32 ", its bytes have %08" PRIx32,
                      told, crc);
}

static dj_status check_record(dj__check *c, const dj_mcap_record *r, const unsigned char *body) {
  switch (r->opcode) {
  case DJ_MCAP_HEADER:
    if (r->offset != DJ__MCAP_MAGIC) dj__check_problem(c, r->offset, "a second Header");
    return DJ_OK;
  case DJ_MCAP_SCHEMA:
    dj__check_schema(c, &r->u.schema, r->offset, false);
    return DJ_OK;
  case DJ_MCAP_CHANNEL:
    dj__check_channel(c, &r->u.channel, r->offset, false);
    return DJ_OK;
  case DJ_MCAP_MESSAGE:
    check_message(c, &r->u.message, r->offset);
    return DJ_OK;
  case DJ_MCAP_CHUNK:
    DJ_TRY(check_chunk(c, r));
    c->behind_chunk = true;
    return DJ_OK;
  case DJ_MCAP_MESSAGE_INDEX:
    return check_message_index(c, r);
  case DJ_MCAP_ATTACHMENT:
    return check_attachment(c, r, body);
  case DJ_MCAP_METADATA: {
    c->report->metadata++;
    dj__check_extra note = {
        .offset = r->offset, .length = r->length, .names = digest_text(0, r->u.metadata.name)};
    return dj__check_push(&c->metadata, &note, sizeof note);
  }
  case DJ_MCAP_DATA_END:
    check_data_end(c, r);
    return DJ_OK;
  case DJ_MCAP_FOOTER:
  case DJ_MCAP_CHUNK_INDEX:
  case DJ_MCAP_ATTACHMENT_INDEX:
  case DJ_MCAP_STATISTICS:
  case DJ_MCAP_METADATA_INDEX:
  case DJ_MCAP_SUMMARY_OFFSET:
    dj__check_problem(c, r->offset, "a %s before the end of the data section",
                      dj_mcap_op_name(r->opcode));
    return DJ_OK;
  default: // unknown: the format asks to skip it
    return DJ_OK;
  }
}

dj_status dj__check_next(dj__check *c, uint64_t at, uint64_t end, dj_mcap_record *r,
                         const unsigned char **body, bool *framed, bool *good) {
  uint64_t length;
  *r = (dj_mcap_record){.offset = at};
  *good = false;
  *framed = !dj__mcap_frame(c->data, end, at, &r->opcode, body, &length);
  if (!*framed) {
    dj__check_problem(c, at, "%s", dj_error_message());
    return DJ_OK;
  }
  c->report->records++;
  r->length = DJ__MCAP_FRAME + length;
  dj__arena_free(&c->arena);
  dj_status s = dj__mcap_decode(r->opcode, *body, length, &c->arena, r);
  if (s == DJ_E_NOMEM) return s;
  if (s) dj__check_problem(c, at, "%s", dj_error_message());
  *good = !s;
  return DJ_OK;
}

/* *end is the byte behind DataEnd; 0 when the section does not come to its end. */
static dj_status check_data(dj__check *c, uint64_t *end) {
  *end = 0;
  for (uint64_t at = DJ__MCAP_MAGIC; at < c->size;) {
    dj_mcap_record r;
    const unsigned char *body;
    bool framed, good;
    DJ_TRY(dj__check_next(c, at, c->size, &r, &body, &framed, &good));
    if (!framed) return DJ_OK;
    if (at == DJ__MCAP_MAGIC && r.opcode != DJ_MCAP_HEADER)
      dj__check_problem(c, at, "a Header should be here, it is a %s", dj_mcap_op_name(r.opcode));
    if (r.opcode != DJ_MCAP_MESSAGE_INDEX) end_indexes(c);
    if (good) DJ_TRY(check_record(c, &r, body));
    at += r.length;
    if (r.opcode == DJ_MCAP_DATA_END) {
      *end = at;
      return DJ_OK;
    }
    if (r.opcode == DJ_MCAP_FOOTER) break;
  }
  dj__check_problem(c, c->size, "the data section has no DataEnd: the file is cut");
  return DJ_OK;
}

static dj_status check_all(dj__check *c) {
  c->report->bytes = c->size;
  if (c->size < DJ__MCAP_MAGIC || memcmp(c->data, dj__mcap_magic, DJ__MCAP_MAGIC) != 0) {
    dj__check_problem(c, 0, "no MCAP file: it does not begin with the MCAP magic");
    return DJ_OK;
  }
  c->schemas = calloc(IDS, sizeof *c->schemas);
  c->channels = calloc(IDS, sizeof *c->channels);
  if (!c->schemas || !c->channels) return dj_error(DJ_E_NOMEM, "no memory for a checker's tables");
  uint64_t end;
  DJ_TRY(check_data(c, &end));
  return end ? dj__check_summary(c, end) : DJ_OK;
}

dj_status dj_mcap_check_memory(const void *data, size_t size, const dj_mcap_limits *l,
                               dj_mcap_problem_fn *problem, void *user,
                               dj_mcap_check_report *report) {
  *report = (dj_mcap_check_report){0};
  dj__check c = {.data = data, .size = size, .problem = problem, .user = user, .report = report};
  if (l) c.limits = *l;
  if (!c.limits.max_chunk) c.limits.max_chunk = (uint64_t)256 << 20;
  dj_status s = check_all(&c);
  free(c.schemas);
  free(c.channels);
  free(c.chunks.data);
  free(c.message_indexes.data);
  free(c.inside.data);
  free(c.attachments.data);
  free(c.metadata.data);
  free(c.groups.data);
  dj__buf_free(&c.chunk);
  dj__arena_free(&c.arena);
  dj__mcap_codec_free(&c.codec);
  return s;
}

dj_status dj_mcap_check(const char *path, const dj_mcap_limits *l, dj_mcap_problem_fn *problem,
                        void *user, dj_mcap_check_report *report) {
  *report = (dj_mcap_check_report){0};
  dj__file_map map;
  DJ_TRY(dj__file_map_open(path, &map));
  dj_status s = dj_mcap_check_memory(map.data, map.size, l, problem, user, report);
  dj__file_map_close(&map);
  return s ? dj_error_context(s, "%s", path) : DJ_OK;
}
