/*
 * Reading an MCAP file through its index: the file is mapped, the summary decoded once, chunks
 * uncompressed when a message in them is asked for (the last four are kept, and up to 64 once
 * chunks are asked for again, as when their times overlap; uncompressed ones are read in place).
 *
 * What the summary lacks is found by a scan of the data section: when there is no Statistics record
 * to vouch for the lists, or its counts differ from them. Where messages lie is worked out on first
 * use, from the MessageIndex records where a chunk has them, else by walking through the chunk.
 *
 * Every offset and size from the file is checked against the file before it is used; memory is
 * bounded by dj_mcap_limits. What the index says of where messages lie must be consistent: chunks
 * and the MessageIndex records behind them do not overlap and are used once, so a list of messages
 * is never longer than the bytes that make it. Streaming, checking and rescue are in files of their
 * own.
 */
#include <stdlib.h>
#include <string.h>

#include "base/crc32.h"
#include "base/fs.h"
#include "fleet/mcap_wire.h"

enum { CACHE = 64, FEWEST_SLOTS = 4, IDS = 65536 };

typedef struct list {
  void *data;
  size_t n, cap;
} list;

typedef struct cached {
  uint32_t chunk;
  bool used;
  uint64_t stamp;
  unsigned char *buffer; // NULL: `data` points into the map
  size_t cap;
  const unsigned char *data;
  uint64_t size;
} cached;

typedef struct per_channel {
  uint16_t id;
  list entries; // dj_mcap_entry
} per_channel;

struct dj_mcap {
  dj__file_map map;
  const unsigned char *data;
  uint64_t size;
  char *name;
  dj_mcap_limits limits;
  dj__arena arena;
  dj_mcap_header header;
  dj_mcap_footer footer;
  dj_mcap_statistics *statistics;
  list schemas, channels, chunks, attachments, metadata;
  uint32_t *schema_at, *channel_at; // (IDS) place in the list + 1; 0: none
  list loose;                       // dj_mcap_entry of messages outside of chunks, in file order
  list index;                       // per_channel, one for each channel, made on first use
  bool indexed;
  uint64_t index_bytes;
  dj__mcap_codec codec;
  cached cache[CACHE];
  int slots;             // of the cache that are in use
  uint64_t cached_bytes; // in all buffers
  uint32_t gone[CACHE];  // chunks that had to leave the cache last, + 1
  unsigned gone_at;
  uint64_t clock;
};

static dj_status push(list *l, const void *item, size_t size) {
  if (l->n == l->cap) {
    size_t cap = l->cap ? l->cap * 2 : 16;
    void *p = cap < SIZE_MAX / size ? realloc(l->data, cap * size) : NULL;
    if (!p) return dj_error(DJ_E_NOMEM, "mcap: no memory for a list of %zu", cap);
    l->data = p;
    l->cap = cap;
  }
  memcpy((char *)l->data + l->n++ * size, item, size);
  return DJ_OK;
}

static dj_status at_offset(const dj_mcap *m, dj_status s, uint64_t offset) {
  return dj_error_context(s, "%s: byte %llu", m->name, (unsigned long long)offset);
}

/* Records that a reader has no use for, and definitions of ids that are known: the first one holds,
 * and a copy in each of many chunks takes no memory. */
static bool skipped(const dj_mcap *m, uint8_t op, const unsigned char *body, uint64_t length) {
  if (op == DJ_MCAP_MESSAGE_INDEX || op == DJ_MCAP_SUMMARY_OFFSET) return true;
  if (length < 2 || (op != DJ_MCAP_SCHEMA && op != DJ_MCAP_CHANNEL)) return false;
  uint16_t id = dj__mcap_u16(body);
  return (op == DJ_MCAP_SCHEMA ? m->schema_at : m->channel_at)[id] != 0;
}

/* Decodes the record at `offset`, which must end at or before `end`; one that is skipped gets
 * opcode 0. */
static dj_status record_at(dj_mcap *m, uint64_t offset, uint64_t end, dj_mcap_record *r,
                           const unsigned char **body) {
  uint64_t length;
  dj_status s = dj__mcap_frame(m->data, end, offset, &r->opcode, body, &length);
  if (!s && skipped(m, r->opcode, *body, length))
    r->opcode = 0;
  else if (!s)
    s = dj__mcap_decode(r->opcode, *body, length, &m->arena, r);
  if (s) return at_offset(m, s, offset);
  r->offset = offset;
  r->length = DJ__MCAP_FRAME + length;
  r->in_chunk = false;
  return DJ_OK;
}

/* Adds a schema or channel unless one of that id is there. */
static dj_status add_schema(dj_mcap *m, const dj_mcap_schema *c) {
  if (m->schema_at[c->id]) return DJ_OK;
  dj_mcap_schema copy = *c; // data may lie in a chunk that is not kept
  copy.data = dj__arena_copy(&m->arena, c->data, c->size);
  if (!copy.data && c->size) return DJ_E_NOMEM;
  DJ_TRY(push(&m->schemas, &copy, sizeof copy));
  m->schema_at[c->id] = (uint32_t)m->schemas.n;
  return DJ_OK;
}

static dj_status add_channel(dj_mcap *m, const dj_mcap_channel *c) {
  if (m->channel_at[c->id]) return DJ_OK;
  DJ_TRY(push(&m->channels, c, sizeof *c));
  m->channel_at[c->id] = (uint32_t)m->channels.n;
  return DJ_OK;
}

/* ---- chunks ---- */

static void drop_slot(dj_mcap *m, cached *c) {
  free(c->buffer);
  m->cached_bytes -= c->cap;
  *c = (cached){0};
}

static cached *oldest_slot(dj_mcap *m) {
  cached *slot = &m->cache[0];
  for (int i = 0; i < m->slots; i++) {
    cached *c = &m->cache[i];
    if (!c->used) return c;
    if (c->stamp < slot->stamp) slot = c;
  }
  return slot;
}

/* A slot for chunk `index`. The cache grows when a chunk comes back that left it lately. */
static cached *take_slot(dj_mcap *m, uint32_t index) {
  bool again = false;
  for (int i = 0; i < CACHE; i++) again = again || m->gone[i] == index + 1;
  if (again && m->slots < CACHE) m->slots *= 2;
  cached *slot = oldest_slot(m);
  if (slot->used) m->gone[m->gone_at++ % CACHE] = slot->chunk + 1;
  slot->used = false;
  return slot;
}

/* Gives the slot a buffer of `size` bytes; buffers that were not used for longest go when all of
 * them would be more than 4 * max_chunk. */
static dj_status take_buffer(dj_mcap *m, cached *slot, uint64_t size) {
  if (slot->cap >= size) return DJ_OK;
  drop_slot(m, slot);
  while (m->cached_bytes + size > FEWEST_SLOTS * m->limits.max_chunk) {
    cached *old = NULL;
    for (int i = 0; i < m->slots; i++)
      if (m->cache[i].cap && (!old || m->cache[i].stamp < old->stamp)) old = &m->cache[i];
    if (!old) break;
    drop_slot(m, old);
  }
  slot->buffer = malloc((size_t)size);
  if (!slot->buffer)
    return dj_error(DJ_E_NOMEM, "no memory for a chunk of %llu bytes", (unsigned long long)size);
  slot->cap = (size_t)size;
  m->cached_bytes += size;
  return DJ_OK;
}

static dj_status fill_slot(dj_mcap *m, cached *slot, const dj_mcap_chunk *c) {
  if (c->uncompressed_size > m->limits.max_chunk)
    return dj_error(DJ_E_LIMIT, "a chunk of %llu bytes uncompressed; at most %llu are read",
                    (unsigned long long)c->uncompressed_size,
                    (unsigned long long)m->limits.max_chunk);
  if (!c->compression[0]) {
    if (c->uncompressed_size != c->records_size)
      return dj_error(DJ_E_FORMAT, "an uncompressed chunk says %llu bytes and holds %llu",
                      (unsigned long long)c->uncompressed_size,
                      (unsigned long long)c->records_size);
    slot->data = c->records;
  } else {
    DJ_TRY(take_buffer(m, slot, c->uncompressed_size ? c->uncompressed_size : 1));
    DJ_TRY(dj__mcap_decompress(&m->codec, c->compression, c->records, (size_t)c->records_size,
                               slot->buffer, (size_t)c->uncompressed_size));
    slot->data = slot->buffer;
  }
  if (c->uncompressed_crc && !m->limits.skip_crc &&
      dj__crc32(0, slot->data, (size_t)c->uncompressed_size) != c->uncompressed_crc)
    return dj_error(DJ_E_FORMAT, "the chunk's CRC does not match its records: the file is damaged; "
                                 "`dojo log recover` rescues the other chunks");
  slot->size = c->uncompressed_size;
  return DJ_OK;
}

/* Uncompresses the chunk at `offset` into a slot. */
static dj_status read_chunk(dj_mcap *m, uint64_t offset, cached *slot) {
  dj_mcap_record r = {0};
  const unsigned char *body;
  uint64_t length;
  uint8_t op;
  dj__arena scratch = {0}; // the name of the compression: a chunk may be read any number of times
  dj_status s = dj__mcap_frame(m->data, m->size, offset, &op, &body, &length);
  if (!s && op != DJ_MCAP_CHUNK)
    s = dj_error(DJ_E_FORMAT, "the chunk index points to a %s record", dj_mcap_op_name(op));
  if (!s) s = dj__mcap_decode(op, body, length, &scratch, &r);
  if (!s) s = fill_slot(m, slot, &r.u.chunk);
  dj__arena_free(&scratch);
  return s ? at_offset(m, s, offset) : DJ_OK;
}

/* Uncompressed records of a chunk, through the cache. */
static dj_status load_chunk(dj_mcap *m, uint32_t index, const unsigned char **data,
                            uint64_t *size) {
  cached *slot = NULL;
  for (int i = 0; i < m->slots && !slot; i++)
    if (m->cache[i].used && m->cache[i].chunk == index) slot = &m->cache[i];
  if (!slot) {
    slot = take_slot(m, index);
    DJ_TRY(read_chunk(m, ((dj_mcap_chunk_index *)m->chunks.data)[index].chunk_offset, slot));
    slot->used = true;
    slot->chunk = index;
  }
  slot->stamp = ++m->clock;
  *data = slot->data;
  *size = slot->size;
  return DJ_OK;
}

typedef dj_status chunk_visitor(dj_mcap *m, uint32_t chunk, uint64_t offset, uint8_t op,
                                const unsigned char *body, uint64_t length);

/* Calls `visit` for each record in a chunk. */
static dj_status walk_chunk(dj_mcap *m, uint32_t index, chunk_visitor *visit) {
  const unsigned char *data, *body;
  uint64_t size, length;
  DJ_TRY(load_chunk(m, index, &data, &size));
  for (uint64_t at = 0; at < size; at += DJ__MCAP_FRAME + length) {
    uint8_t op;
    dj_status s = dj__mcap_frame(data, size, at, &op, &body, &length);
    if (!s) s = visit(m, index, at, op, body, length);
    if (s)
      return dj_error_context(
          s, "%s: chunk at byte %llu, record at %llu", m->name,
          (unsigned long long)((dj_mcap_chunk_index *)m->chunks.data)[index].chunk_offset,
          (unsigned long long)at);
  }
  return DJ_OK;
}

static dj_status find_definitions(dj_mcap *m, uint32_t chunk, uint64_t offset, uint8_t op,
                                  const unsigned char *body, uint64_t length) {
  (void)chunk;
  (void)offset;
  if ((op != DJ_MCAP_SCHEMA && op != DJ_MCAP_CHANNEL) || skipped(m, op, body, length)) return DJ_OK;
  dj_mcap_record r = {0};
  DJ_TRY(dj__mcap_decode(op, body, length, &m->arena, &r));
  return op == DJ_MCAP_SCHEMA ? add_schema(m, &r.u.schema) : add_channel(m, &r.u.channel);
}

/* ---- opening ---- */
static dj_status take_summary_record(dj_mcap *m, const dj_mcap_record *r) {
  switch (r->opcode) {
  case DJ_MCAP_SCHEMA:
    return add_schema(m, &r->u.schema);
  case DJ_MCAP_CHANNEL:
    return add_channel(m, &r->u.channel);
  case DJ_MCAP_CHUNK_INDEX:
    return push(&m->chunks, &r->u.chunk_index, sizeof r->u.chunk_index);
  case DJ_MCAP_ATTACHMENT_INDEX:
    return push(&m->attachments, &r->u.attachment_index, sizeof r->u.attachment_index);
  case DJ_MCAP_METADATA_INDEX:
    return push(&m->metadata, &r->u.metadata_index, sizeof r->u.metadata_index);
  case DJ_MCAP_STATISTICS:
    m->statistics = dj__arena_copy(&m->arena, &r->u.statistics, sizeof r->u.statistics);
    return m->statistics ? DJ_OK : DJ_E_NOMEM;
  default:
    return DJ_OK;
  }
}

static dj_status read_summary(dj_mcap *m, uint64_t footer_at) {
  uint64_t start = m->footer.summary_start;
  if (!start) return DJ_OK;
  if (start < DJ__MCAP_MAGIC || start > footer_at)
    return at_offset(m,
                     dj_error(DJ_E_FORMAT,
                              "the footer puts the summary at byte %llu, outside "
                              "of the file",
                              (unsigned long long)start),
                     footer_at);
  uint64_t crc_size = footer_at + DJ__MCAP_FRAME + DJ__MCAP_FOOTER - 4 - start;
  if (m->footer.summary_crc && !m->limits.skip_crc &&
      dj__crc32(0, m->data + start, (size_t)crc_size) != m->footer.summary_crc)
    return at_offset(m,
                     dj_error(DJ_E_FORMAT, "the summary's CRC does not match: the file is "
                                           "damaged; `dojo log recover` rescues what is whole"),
                     start);
  dj_mcap_record r = {0};
  const unsigned char *body;
  for (uint64_t at = start; at < footer_at; at += r.length) {
    DJ_TRY(record_at(m, at, footer_at, &r, &body));
    DJ_TRY(take_summary_record(m, &r));
  }
  return DJ_OK;
}

/* True if the summary's lists are vouched for by its statistics. */
static bool summary_complete(const dj_mcap *m) {
  const dj_mcap_statistics *s = m->statistics;
  return s && s->schema_count == m->schemas.n && s->channel_count == m->channels.n &&
         s->chunk_count == m->chunks.n && s->attachment_count == m->attachments.n &&
         s->metadata_count == m->metadata.n && (s->chunk_count || !s->message_count);
}

static dj_status scan_chunk(dj_mcap *m, const dj_mcap_record *r) {
  const dj_mcap_chunk *c = &r->u.chunk;
  dj_mcap_chunk_index ci = {.start_time = c->start_time,
                            .end_time = c->end_time,
                            .chunk_offset = r->offset,
                            .chunk_length = r->length,
                            .compression = c->compression,
                            .compressed_size = c->records_size,
                            .uncompressed_size = c->uncompressed_size};
  DJ_TRY(push(&m->chunks, &ci, sizeof ci));
  if (m->chunks.n >= DJ_MCAP_NO_CHUNK) return dj_error(DJ_E_LIMIT, "%s: too many chunks", m->name);
  return walk_chunk(m, (uint32_t)m->chunks.n - 1, find_definitions);
}

static dj_status scan_record(dj_mcap *m, const dj_mcap_record *r) {
  switch (r->opcode) {
  case DJ_MCAP_SCHEMA:
    return add_schema(m, &r->u.schema);
  case DJ_MCAP_CHANNEL:
    return add_channel(m, &r->u.channel);
  case DJ_MCAP_CHUNK:
    return scan_chunk(m, r);
  case DJ_MCAP_MESSAGE: {
    dj_mcap_entry e = {r->u.message.log_time, r->offset, DJ_MCAP_NO_CHUNK, r->u.message.channel_id};
    m->index_bytes += sizeof e;
    if (m->index_bytes > m->limits.max_index)
      return dj_error(DJ_E_LIMIT, "%s: more messages than the index limit allows", m->name);
    return push(&m->loose, &e, sizeof e);
  }
  case DJ_MCAP_ATTACHMENT: {
    const dj_mcap_attachment *a = &r->u.attachment;
    dj_mcap_attachment_index i = {r->offset, r->length, a->log_time,  a->create_time,
                                  a->size,   a->name,   a->media_type};
    return push(&m->attachments, &i, sizeof i);
  }
  case DJ_MCAP_METADATA: {
    dj_mcap_metadata_index i = {r->offset, r->length, r->u.metadata.name};
    return push(&m->metadata, &i, sizeof i);
  }
  default:
    return DJ_OK;
  }
}

/* Makes all lists anew from the data section. */
static dj_status scan(dj_mcap *m, uint64_t first, uint64_t end) {
  m->schemas.n = m->channels.n = m->chunks.n = m->attachments.n = m->metadata.n = 0;
  memset(m->schema_at, 0, IDS * sizeof *m->schema_at);
  memset(m->channel_at, 0, IDS * sizeof *m->channel_at);
  dj_mcap_record r = {0};
  const unsigned char *body;
  for (uint64_t at = first; at < end; at += r.length) {
    DJ_TRY(record_at(m, at, end, &r, &body));
    if (r.opcode == DJ_MCAP_DATA_END) return DJ_OK;
    DJ_TRY(scan_record(m, &r));
  }
  return at_offset(m,
                   dj_error(DJ_E_FORMAT, "the data section has no end record: the file is cut; "
                                         "`dojo log recover` rescues what is whole"),
                   end);
}

static dj_status open_data(dj_mcap *m) {
  uint64_t tail = DJ__MCAP_MAGIC + DJ__MCAP_FRAME + DJ__MCAP_FOOTER;
  if (m->size < DJ__MCAP_MAGIC || memcmp(m->data, dj__mcap_magic, DJ__MCAP_MAGIC) != 0)
    return dj_error(DJ_E_FORMAT, "%s: no MCAP file: it does not begin with the MCAP magic",
                    m->name);
  if (m->size < DJ__MCAP_MAGIC + DJ__MCAP_FRAME + tail ||
      memcmp(m->data + m->size - DJ__MCAP_MAGIC, dj__mcap_magic, DJ__MCAP_MAGIC) != 0)
    return dj_error(DJ_E_FORMAT,
                    "%s: the file is cut: it does not end with the MCAP magic; "
                    "`dojo log recover` rescues what is whole",
                    m->name);
  uint64_t footer_at = m->size - tail;
  dj_mcap_record r = {0};
  const unsigned char *body;
  DJ_TRY(record_at(m, footer_at, m->size - DJ__MCAP_MAGIC, &r, &body));
  if (r.opcode != DJ_MCAP_FOOTER)
    return at_offset(m, dj_error(DJ_E_FORMAT, "a footer should be here"), footer_at);
  m->footer = r.u.footer;
  DJ_TRY(record_at(m, DJ__MCAP_MAGIC, footer_at, &r, &body));
  if (r.opcode != DJ_MCAP_HEADER)
    return at_offset(m, dj_error(DJ_E_FORMAT, "a header should be here"), DJ__MCAP_MAGIC);
  m->header = r.u.header;
  uint64_t first = DJ__MCAP_MAGIC + r.length;
  DJ_TRY(read_summary(m, footer_at));
  return summary_complete(m) ? DJ_OK : scan(m, first, footer_at);
}

static dj_mcap *new_mcap(const char *name, const dj_mcap_limits *l) {
  dj_mcap *m = calloc(1, sizeof *m);
  if (!m) {
    dj_error(DJ_E_NOMEM, "%s: out of memory", name);
    return NULL;
  }
  m->schema_at = calloc(IDS, sizeof *m->schema_at);
  m->channel_at = calloc(IDS, sizeof *m->channel_at);
  m->name = dj__strf("%s", name);
  m->slots = FEWEST_SLOTS;
  if (!m->schema_at || !m->channel_at) {
    dj_mcap_close(m);
    dj_error(DJ_E_NOMEM, "%s: out of memory", name);
    return NULL;
  }
  if (l) m->limits = *l;
  if (!m->limits.max_chunk) m->limits.max_chunk = (uint64_t)256 << 20;
  if (!m->limits.max_index) m->limits.max_index = (uint64_t)2 << 30;
  return m;
}

dj_status dj_mcap_open_memory(const char *name, const void *data, size_t size,
                              const dj_mcap_limits *l, dj_mcap **out) {
  *out = NULL;
  dj_mcap *m = new_mcap(name, l);
  if (!m) return DJ_E_NOMEM;
  m->data = data;
  m->size = size;
  dj_status s = open_data(m);
  if (s)
    dj_mcap_close(m);
  else
    *out = m;
  return s;
}

dj_status dj_mcap_open(const char *path, const dj_mcap_limits *l, dj_mcap **out) {
  *out = NULL;
  dj_mcap *m = new_mcap(path, l);
  if (!m) return DJ_E_NOMEM;
  dj_status s = dj__file_map_open(path, &m->map);
  m->data = m->map.data;
  m->size = m->map.size;
  if (!s) s = open_data(m);
  if (s)
    dj_mcap_close(m);
  else
    *out = m;
  return s;
}

void dj_mcap_close(dj_mcap *m) {
  if (!m) return;
  for (int i = 0; i < CACHE; i++) free(m->cache[i].buffer);
  for (size_t i = 0; i < m->index.n; i++) free(((per_channel *)m->index.data)[i].entries.data);
  free(m->index.data);
  free(m->schemas.data);
  free(m->channels.data);
  free(m->chunks.data);
  free(m->attachments.data);
  free(m->metadata.data);
  free(m->loose.data);
  free(m->schema_at);
  free(m->channel_at);
  dj__mcap_codec_free(&m->codec);
  dj__arena_free(&m->arena);
  dj__file_map_close(&m->map);
  free(m->name);
  free(m);
}

/* ---- what the file holds ---- */
const dj_mcap_header *dj_mcap_get_header(const dj_mcap *m) {
  return &m->header;
}
const dj_mcap_footer *dj_mcap_get_footer(const dj_mcap *m) {
  return &m->footer;
}
const dj_mcap_statistics *dj_mcap_get_statistics(const dj_mcap *m) {
  return m->statistics;
}
const dj_mcap_schema *dj_mcap_schemas(const dj_mcap *m, size_t *n) {
  *n = m->schemas.n;
  return m->schemas.data;
}
const dj_mcap_channel *dj_mcap_channels(const dj_mcap *m, size_t *n) {
  *n = m->channels.n;
  return m->channels.data;
}
const dj_mcap_chunk_index *dj_mcap_chunks(const dj_mcap *m, size_t *n) {
  *n = m->chunks.n;
  return m->chunks.data;
}
const dj_mcap_attachment_index *dj_mcap_attachments(const dj_mcap *m, size_t *n) {
  *n = m->attachments.n;
  return m->attachments.data;
}
const dj_mcap_metadata_index *dj_mcap_metadata_list(const dj_mcap *m, size_t *n) {
  *n = m->metadata.n;
  return m->metadata.data;
}
const dj_mcap_schema *dj_mcap_schema_by_id(const dj_mcap *m, uint16_t id) {
  uint32_t at = m->schema_at[id];
  return at ? (dj_mcap_schema *)m->schemas.data + at - 1 : NULL;
}
const dj_mcap_channel *dj_mcap_channel_by_id(const dj_mcap *m, uint16_t id) {
  uint32_t at = m->channel_at[id];
  return at ? (dj_mcap_channel *)m->channels.data + at - 1 : NULL;
}
const dj_mcap_channel *dj_mcap_channel_by_topic(const dj_mcap *m, const char *topic) {
  const dj_mcap_channel *c = m->channels.data;
  for (size_t i = 0; i < m->channels.n; i++)
    if (!strcmp(c[i].topic, topic)) return &c[i];
  return NULL;
}

static dj_status wrong_record(const dj_mcap *m, uint64_t at, const char *wanted, uint8_t op) {
  return at_offset(
      m,
      dj_error(DJ_E_FORMAT, "the index says %s, the record is a %s", wanted, dj_mcap_op_name(op)),
      at);
}

dj_status dj_mcap_read_attachment(dj_mcap *m, size_t index, dj_mcap_attachment *a) {
  if (index >= m->attachments.n)
    return dj_error(DJ_E_NOT_FOUND, "%s: no attachment %zu, there are %zu", m->name, index,
                    m->attachments.n);
  uint64_t at = ((dj_mcap_attachment_index *)m->attachments.data)[index].offset;
  dj_mcap_record r = {0};
  const unsigned char *body;
  DJ_TRY(record_at(m, at, m->size, &r, &body));
  if (r.opcode != DJ_MCAP_ATTACHMENT) return wrong_record(m, at, "Attachment", r.opcode);
  *a = r.u.attachment;
  if (a->crc && !m->limits.skip_crc && dj__mcap_attachment_crc(body, a) != a->crc)
    return at_offset(m, dj_error(DJ_E_FORMAT, "the CRC of attachment '%s' does not match", a->name),
                     at);
  return DJ_OK;
}

dj_status dj_mcap_read_metadata(dj_mcap *m, size_t index, dj_mcap_metadata *md) {
  if (index >= m->metadata.n)
    return dj_error(DJ_E_NOT_FOUND, "%s: no metadata record %zu, there are %zu", m->name, index,
                    m->metadata.n);
  uint64_t at = ((dj_mcap_metadata_index *)m->metadata.data)[index].offset;
  dj_mcap_record r = {0};
  const unsigned char *body;
  DJ_TRY(record_at(m, at, m->size, &r, &body));
  if (r.opcode != DJ_MCAP_METADATA) return wrong_record(m, at, "Metadata", r.opcode);
  *md = r.u.metadata;
  return DJ_OK;
}

dj_status dj_mcap_find_metadata(dj_mcap *m, const char *name, dj_mcap_metadata *md) {
  for (size_t i = 0; i < m->metadata.n; i++)
    if (!strcmp(((dj_mcap_metadata_index *)m->metadata.data)[i].name, name))
      return dj_mcap_read_metadata(m, i, md);
  return dj_error(DJ_E_NOT_FOUND, "%s: no metadata record '%s'", m->name, name);
}

/* ---- where messages lie ---- */
static dj_status add_entry(dj_mcap *m, const dj_mcap_entry *e) {
  uint32_t at = m->channel_at[e->channel_id];
  if (!at)
    return dj_error(DJ_E_FORMAT, "%s: a message of channel %u, which the file does not define",
                    m->name, e->channel_id);
  m->index_bytes += sizeof *e;
  if (m->index_bytes > m->limits.max_index)
    return dj_error(DJ_E_LIMIT, "%s: more messages than the index limit of %llu bytes allows",
                    m->name, (unsigned long long)m->limits.max_index);
  return push(&((per_channel *)m->index.data)[at - 1].entries, e, sizeof *e);
}

static dj_status index_message(dj_mcap *m, uint32_t chunk, uint64_t offset, uint8_t op,
                               const unsigned char *body, uint64_t length) {
  if (op != DJ_MCAP_MESSAGE) return DJ_OK;
  if (length < DJ__MCAP_MESSAGE)
    return dj_error(DJ_E_FORMAT, "a Message of %llu bytes is too short",
                    (unsigned long long)length);
  dj_mcap_message msg;
  dj__mcap_message(body, (size_t)length, &msg);
  return add_entry(m, &(dj_mcap_entry){msg.log_time, offset, chunk, msg.channel_id});
}

/* One MessageIndex record of chunk `chunk`, which must end at or before `end`. */
static dj_status index_from_record(dj_mcap *m, uint32_t chunk, uint64_t at, uint64_t end,
                                   uint64_t *used) {
  uint64_t length;
  uint8_t op;
  const unsigned char *body;
  dj_mcap_record r = {0};
  dj__arena scratch = {0}; // entries go into our own lists
  DJ_TRY(dj__mcap_frame(m->data, end, at, &op, &body, &length));
  if (op != DJ_MCAP_MESSAGE_INDEX)
    return dj_error(DJ_E_FORMAT, "the index says MessageIndex, the record is a %s",
                    dj_mcap_op_name(op));
  *used += DJ__MCAP_FRAME + length;
  dj_status s = dj__mcap_decode(op, body, length, &scratch, &r);
  const dj_mcap_message_index *mi = &r.u.message_index;
  for (size_t k = 0; !s && k < mi->n; k++)
    s = add_entry(
        m, &(dj_mcap_entry){mi->entries[k].log_time, mi->entries[k].offset, chunk, mi->channel_id});
  dj__arena_free(&scratch);
  return s;
}

/* From the MessageIndex records behind a chunk (check_regions has seen that they are in the file).
 * Each may be used once: together they are no longer than the place they have. */
static dj_status index_from_records(dj_mcap *m, uint32_t chunk) {
  const dj_mcap_chunk_index *ci = (dj_mcap_chunk_index *)m->chunks.data + chunk;
  uint64_t begin = ci->chunk_offset + ci->chunk_length, used = 0;
  for (size_t i = 0; i < ci->n_offsets; i++) {
    uint64_t at = ci->offsets[i].value;
    dj_status s = at < begin
                      ? dj_error(DJ_E_FORMAT, "a MessageIndex before the end of its chunk")
                      : index_from_record(m, chunk, at, begin + ci->message_index_length, &used);
    if (!s && used > ci->message_index_length)
      s = dj_error(DJ_E_FORMAT, "the chunk index lists a MessageIndex twice");
    if (s) return at_offset(m, s, at);
  }
  return DJ_OK;
}

typedef struct region {
  uint64_t begin, end;
} region;

static int by_begin(const void *x, const void *y) {
  const region *a = x, *b = y;
  return (a->begin > b->begin) - (a->begin < b->begin);
}

/* Chunks with the indexes behind them lie in the file and apart from each other. */
static dj_status check_regions(dj_mcap *m) {
  const dj_mcap_chunk_index *c = m->chunks.data;
  region *r = calloc(m->chunks.n + 1, sizeof *r);
  if (!r) return dj_error(DJ_E_NOMEM, "%s: no memory for %zu chunks", m->name, m->chunks.n);
  dj_status s = DJ_OK;
  bool sorted = true;
  for (size_t i = 0; i < m->chunks.n && !s; i++) {
    uint64_t begin = c[i].chunk_offset, end;
    if (__builtin_add_overflow(begin, c[i].chunk_length, &end) ||
        __builtin_add_overflow(end, c[i].message_index_length, &end) || end > m->size)
      s = dj_error(DJ_E_FORMAT,
                   "%s: the index puts chunk %zu at byte %llu with %llu bytes and %llu of indexes, "
                   "outside of the file",
                   m->name, i, (unsigned long long)begin, (unsigned long long)c[i].chunk_length,
                   (unsigned long long)c[i].message_index_length);
    else
      r[i] = (region){begin, end};
    sorted = sorted && (i == 0 || r[i - 1].begin <= begin);
  }
  if (!sorted && !s) qsort(r, m->chunks.n, sizeof *r, by_begin);
  for (size_t i = 1; i < m->chunks.n && !s; i++)
    if (r[i].begin < r[i - 1].end)
      s = dj_error(DJ_E_FORMAT, "%s: the index puts two chunks over each other at byte %llu",
                   m->name, (unsigned long long)r[i].begin);
  free(r);
  return s;
}

static int by_time(const void *x, const void *y) {
  const dj_mcap_entry *a = x, *b = y;
  if (a->log_time != b->log_time) return a->log_time < b->log_time ? -1 : 1;
  if (a->chunk != b->chunk) return a->chunk < b->chunk ? -1 : 1;
  return (a->offset > b->offset) - (a->offset < b->offset);
}

static int by_place(const void *x, const void *y) {
  const dj_mcap_entry *a = x, *b = y;
  if (a->chunk != b->chunk) return a->chunk < b->chunk ? -1 : 1;
  return (a->offset > b->offset) - (a->offset < b->offset);
}

static void sort_entries(list *l, int (*order)(const void *, const void *)) {
  const dj_mcap_entry *e = l->data;
  bool sorted = true;
  for (size_t i = 1; i < l->n && sorted; i++) sorted = order(&e[i - 1], &e[i]) <= 0;
  if (!sorted) qsort(l->data, l->n, sizeof *e, order);
}

static dj_status build_index(dj_mcap *m) {
  if (m->indexed) return DJ_OK;
  DJ_TRY(check_regions(m));
  m->index_bytes = m->loose.n * sizeof(dj_mcap_entry);
  for (size_t i = 0; i < m->index.n; i++) free(((per_channel *)m->index.data)[i].entries.data);
  m->index.n = 0; // a build that failed half-way starts again
  const dj_mcap_channel *c = m->channels.data;
  for (size_t i = 0; i < m->channels.n; i++)
    DJ_TRY(push(&m->index, &(per_channel){.id = c[i].id}, sizeof(per_channel)));
  for (size_t i = 0; i < m->loose.n; i++) DJ_TRY(add_entry(m, (dj_mcap_entry *)m->loose.data + i));
  for (size_t i = 0; i < m->chunks.n; i++) {
    const dj_mcap_chunk_index *ci = (dj_mcap_chunk_index *)m->chunks.data + i;
    DJ_TRY(ci->n_offsets ? index_from_records(m, (uint32_t)i)
                         : walk_chunk(m, (uint32_t)i, index_message));
  }
  for (size_t i = 0; i < m->index.n; i++)
    sort_entries(&((per_channel *)m->index.data)[i].entries, by_time);
  m->indexed = true;
  return DJ_OK;
}

dj_status dj_mcap_channel_entries(dj_mcap *m, uint16_t channel_id, const dj_mcap_entry **entries,
                                  size_t *n) {
  DJ_TRY(build_index(m));
  uint32_t at = m->channel_at[channel_id];
  if (!at) return dj_error(DJ_E_NOT_FOUND, "%s: no channel %u", m->name, channel_id);
  const per_channel *p = (per_channel *)m->index.data + at - 1;
  *entries = p->entries.data;
  *n = p->entries.n;
  return DJ_OK;
}

dj_status dj_mcap_read_message(dj_mcap *m, const dj_mcap_entry *e, dj_mcap_message *msg) {
  const unsigned char *data = m->data, *body;
  uint64_t size = m->size, length, chunk_at = 0;
  if (e->chunk != DJ_MCAP_NO_CHUNK) {
    if (e->chunk >= m->chunks.n)
      return dj_error(DJ_E_INVALID, "%s: no chunk %u, there are %zu", m->name, e->chunk,
                      m->chunks.n);
    chunk_at = ((dj_mcap_chunk_index *)m->chunks.data)[e->chunk].chunk_offset;
    DJ_TRY(load_chunk(m, e->chunk, &data, &size));
  }
  uint8_t op;
  dj_status s = dj__mcap_frame(data, size, e->offset, &op, &body, &length);
  if (!s && (op != DJ_MCAP_MESSAGE || length < DJ__MCAP_MESSAGE))
    s = dj_error(DJ_E_FORMAT, "the index says there is a message, it is a %s", dj_mcap_op_name(op));
  if (s)
    return dj_error_context(s, "%s: chunk at byte %llu, message at %llu", m->name,
                            (unsigned long long)chunk_at, (unsigned long long)e->offset);
  dj__mcap_message(body, (size_t)length, msg);
  if (msg->channel_id != e->channel_id || msg->log_time != e->log_time)
    return dj_error(DJ_E_FORMAT,
                    "%s: chunk at byte %llu: the index says channel %u at %llu ns, the "
                    "message says channel %u at %llu ns",
                    m->name, (unsigned long long)chunk_at, e->channel_id,
                    (unsigned long long)e->log_time, msg->channel_id,
                    (unsigned long long)msg->log_time);
  return DJ_OK;
}

/* ---- iterating ---- */
struct dj_mcap_iter {
  dj_mcap *m;
  list entries;
  size_t next;
};

static bool wanted(const dj_mcap_query *q, const char *topic) {
  if (!q || !q->topics) return true;
  for (int i = 0; i < q->n_topics; i++)
    if (!strcmp(q->topics[i], topic)) return true;
  return false;
}

dj_status dj_mcap_iter_open(dj_mcap *m, const dj_mcap_query *q, dj_mcap_iter **out) {
  *out = NULL;
  DJ_TRY(build_index(m));
  dj_mcap_iter *it = calloc(1, sizeof *it);
  if (!it) return dj_error(DJ_E_NOMEM, "%s: out of memory", m->name);
  it->m = m;
  const dj_mcap_channel *c = m->channels.data;
  for (size_t i = 0; i < m->index.n; i++) {
    if (!wanted(q, c[i].topic)) continue;
    const list *l = &((per_channel *)m->index.data)[i].entries;
    for (size_t k = 0; k < l->n; k++) {
      const dj_mcap_entry *e = (dj_mcap_entry *)l->data + k;
      if (q && (e->log_time < q->start || (q->end && e->log_time >= q->end))) continue;
      dj_status s = push(&it->entries, e, sizeof *e);
      if (s) {
        dj_mcap_iter_close(it);
        return s;
      }
    }
  }
  sort_entries(&it->entries, q && q->file_order ? by_place : by_time);
  *out = it;
  return DJ_OK;
}

dj_status dj_mcap_iter_next(dj_mcap_iter *it, dj_mcap_message *msg, bool *more) {
  *more = it->next < it->entries.n;
  return *more ? dj_mcap_read_message(it->m, (dj_mcap_entry *)it->entries.data + it->next++, msg)
               : DJ_OK;
}

void dj_mcap_iter_close(dj_mcap_iter *it) {
  if (!it) return;
  free(it->entries.data);
  free(it);
}
