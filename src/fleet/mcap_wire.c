/*
 * MCAP records to bytes and back (https://mcap.dev/spec, version 0). Every record is
 *   u8 opcode, u64 length of the body, body
 * with little-endian numbers; a string is u32 length and bytes; a map is u32 length in bytes and
 * then keys and values.
 *
 * Decoding trusts nothing: a cursor that has run over its end stays at its end and remembers the
 * field, and what is allocated is at most three times the bytes that describe it. Messages take no
 * allocation at all. Encoding computes the length afterwards, so there is one description of each
 * record's fields here and not two.
 */
#include "fleet/mcap_wire.h"

#include "base/crc32.h"

const unsigned char dj__mcap_magic[DJ__MCAP_MAGIC] = {0x89, 'M', 'C', 'A', 'P', '0', '\r', '\n'};

const char *dj_mcap_op_name(uint8_t opcode) {
  static const char *const names[] = {
      "unknown",  "Header",        "Footer",        "Schema",     "Channel",         "Message",
      "Chunk",    "MessageIndex",  "ChunkIndex",    "Attachment", "AttachmentIndex", "Statistics",
      "Metadata", "MetadataIndex", "SummaryOffset", "DataEnd"};
  return names[opcode < sizeof names / sizeof *names ? opcode : 0];
}

const char *dj_mcap_pair_value(const dj_mcap_pair *pairs, size_t n, const char *key) {
  for (size_t i = 0; i < n; i++)
    if (!strcmp(pairs[i].key, key)) return pairs[i].value;
  return NULL;
}

// ---- encoding ----

static void put_u8(dj__buf *b, uint8_t v) {
  dj__buf_put(b, &v, 1);
}
static void put_u16(dj__buf *b, uint16_t v) {
  v = htole16(v);
  dj__buf_put(b, &v, sizeof v);
}
static void put_u32(dj__buf *b, uint32_t v) {
  v = htole32(v);
  dj__buf_put(b, &v, sizeof v);
}
static void put_u64(dj__buf *b, uint64_t v) {
  v = htole64(v);
  dj__buf_put(b, &v, sizeof v);
}
static void put_str(dj__buf *b, const char *s) {
  size_t n = strlen(s);
  put_u32(b, (uint32_t)n);
  dj__buf_put(b, s, n);
}

// A length field whose value is known when what follows has been written.
static size_t begin_u32(dj__buf *b) {
  put_u32(b, 0);
  return b->size;
}
static void end_u32(dj__buf *b, size_t begin) {
  if (b->failed) return;
  uint32_t n = htole32((uint32_t)(b->size - begin));
  memcpy(b->data + begin - sizeof n, &n, sizeof n);
}

static void put_map(dj__buf *b, const dj_mcap_pair *pairs, size_t n) {
  size_t begin = begin_u32(b);
  for (size_t i = 0; i < n; i++) {
    put_str(b, pairs[i].key);
    put_str(b, pairs[i].value);
  }
  end_u32(b, begin);
}

static void put_numbers(dj__buf *b, const dj_mcap_channel_number *c, size_t n) {
  size_t begin = begin_u32(b);
  for (size_t i = 0; i < n; i++) {
    put_u16(b, c[i].channel_id);
    put_u64(b, c[i].value);
  }
  end_u32(b, begin);
}

static void put_attachment(dj__buf *b, const dj_mcap_attachment *a, bool no_crc) {
  size_t begin = b->size;
  put_u64(b, a->log_time);
  put_u64(b, a->create_time);
  put_str(b, a->name);
  put_str(b, a->media_type);
  put_u64(b, a->size);
  dj__buf_put(b, a->data, a->size);
  put_u32(b, no_crc || b->failed ? 0 : dj__crc32(0, b->data + begin, b->size - begin));
}

static void put_chunk_index(dj__buf *b, const dj_mcap_chunk_index *c) {
  put_u64(b, c->start_time);
  put_u64(b, c->end_time);
  put_u64(b, c->chunk_offset);
  put_u64(b, c->chunk_length);
  put_numbers(b, c->offsets, c->n_offsets);
  put_u64(b, c->message_index_length);
  put_str(b, c->compression);
  put_u64(b, c->compressed_size);
  put_u64(b, c->uncompressed_size);
}

static void put_statistics(dj__buf *b, const dj_mcap_statistics *s) {
  put_u64(b, s->message_count);
  put_u16(b, s->schema_count);
  put_u32(b, s->channel_count);
  put_u32(b, s->attachment_count);
  put_u32(b, s->metadata_count);
  put_u32(b, s->chunk_count);
  put_u64(b, s->start_time);
  put_u64(b, s->end_time);
  put_numbers(b, s->channel_counts, s->n_channel_counts);
}

static void put_message_index(dj__buf *b, const dj_mcap_message_index *m) {
  put_u16(b, m->channel_id);
  put_u32(b, (uint32_t)(m->n * sizeof *m->entries));
  for (size_t i = 0; i < m->n; i++) {
    put_u64(b, m->entries[i].log_time);
    put_u64(b, m->entries[i].offset);
  }
}

static void put_body(dj__buf *b, const dj_mcap_record *r, bool no_crc) {
  switch ((dj_mcap_op)r->opcode) {
  case DJ_MCAP_HEADER:
    put_str(b, r->u.header.profile);
    put_str(b, r->u.header.library);
    break;
  case DJ_MCAP_FOOTER:
    put_u64(b, r->u.footer.summary_start);
    put_u64(b, r->u.footer.summary_offset_start);
    put_u32(b, r->u.footer.summary_crc);
    break;
  case DJ_MCAP_SCHEMA:
    put_u16(b, r->u.schema.id);
    put_str(b, r->u.schema.name);
    put_str(b, r->u.schema.encoding);
    put_u32(b, (uint32_t)r->u.schema.size);
    dj__buf_put(b, r->u.schema.data, r->u.schema.size);
    break;
  case DJ_MCAP_CHANNEL:
    put_u16(b, r->u.channel.id);
    put_u16(b, r->u.channel.schema_id);
    put_str(b, r->u.channel.topic);
    put_str(b, r->u.channel.message_encoding);
    put_map(b, r->u.channel.metadata, r->u.channel.n_metadata);
    break;
  case DJ_MCAP_MESSAGE:
    put_u16(b, r->u.message.channel_id);
    put_u32(b, r->u.message.sequence);
    put_u64(b, r->u.message.log_time);
    put_u64(b, r->u.message.publish_time);
    dj__buf_put(b, r->u.message.data, r->u.message.size);
    break;
  case DJ_MCAP_CHUNK:
    put_u64(b, r->u.chunk.start_time);
    put_u64(b, r->u.chunk.end_time);
    put_u64(b, r->u.chunk.uncompressed_size);
    put_u32(b, r->u.chunk.uncompressed_crc);
    put_str(b, r->u.chunk.compression);
    put_u64(b, r->u.chunk.records_size);
    dj__buf_put(b, r->u.chunk.records, r->u.chunk.records_size);
    break;
  case DJ_MCAP_MESSAGE_INDEX:
    put_message_index(b, &r->u.message_index);
    break;
  case DJ_MCAP_CHUNK_INDEX:
    put_chunk_index(b, &r->u.chunk_index);
    break;
  case DJ_MCAP_ATTACHMENT:
    put_attachment(b, &r->u.attachment, no_crc);
    break;
  case DJ_MCAP_ATTACHMENT_INDEX:
    put_u64(b, r->u.attachment_index.offset);
    put_u64(b, r->u.attachment_index.length);
    put_u64(b, r->u.attachment_index.log_time);
    put_u64(b, r->u.attachment_index.create_time);
    put_u64(b, r->u.attachment_index.data_size);
    put_str(b, r->u.attachment_index.name);
    put_str(b, r->u.attachment_index.media_type);
    break;
  case DJ_MCAP_STATISTICS:
    put_statistics(b, &r->u.statistics);
    break;
  case DJ_MCAP_METADATA:
    put_str(b, r->u.metadata.name);
    put_map(b, r->u.metadata.pairs, r->u.metadata.n);
    break;
  case DJ_MCAP_METADATA_INDEX:
    put_u64(b, r->u.metadata_index.offset);
    put_u64(b, r->u.metadata_index.length);
    put_str(b, r->u.metadata_index.name);
    break;
  case DJ_MCAP_SUMMARY_OFFSET:
    put_u8(b, r->u.summary_offset.group_opcode);
    put_u64(b, r->u.summary_offset.group_start);
    put_u64(b, r->u.summary_offset.group_length);
    break;
  case DJ_MCAP_DATA_END:
    put_u32(b, r->u.data_end.data_section_crc);
    break;
  }
}

void dj__mcap_encode(dj__buf *b, const dj_mcap_record *r, int padding, bool no_crc) {
  put_u8(b, r->opcode);
  put_u64(b, 0);
  size_t begin = b->size;
  put_body(b, r, no_crc);
  for (int i = 0; i < padding; i++) put_u8(b, i ? 0xff : 1);
  if (b->failed) return;
  uint64_t n = htole64((uint64_t)(b->size - begin));
  memcpy(b->data + begin - sizeof n, &n, sizeof n);
}

static dj_status fits(const char *record, const char *field, size_t n) {
  return n <= UINT32_MAX ? DJ_OK
                         : dj_error(DJ_E_LIMIT, "MCAP %s: %s is %zu bytes, the format holds 2^32-1",
                                    record, field, n);
}

static dj_status string_fits(const char *record, const char *field, const char *s) {
  if (!s) return dj_error(DJ_E_INVALID, "MCAP %s: %s is NULL", record, field);
  return fits(record, field, strlen(s));
}

static dj_status map_fits(const char *record, const dj_mcap_pair *pairs, size_t n) {
  size_t sum = 0;
  if (n && !pairs) return dj_error(DJ_E_INVALID, "MCAP %s: %zu metadata pairs at NULL", record, n);
  for (size_t i = 0; i < n; i++) {
    DJ_TRY(string_fits(record, "a metadata key", pairs[i].key));
    DJ_TRY(string_fits(record, "a metadata value", pairs[i].value));
    sum += 8 + strlen(pairs[i].key) + strlen(pairs[i].value);
  }
  return fits(record, "the metadata map", sum);
}

dj_status dj__mcap_encodable(const dj_mcap_record *r) {
  switch (r->opcode) {
  case DJ_MCAP_HEADER:
    DJ_TRY(string_fits("Header", "profile", r->u.header.profile));
    return string_fits("Header", "library", r->u.header.library);
  case DJ_MCAP_SCHEMA:
    if (r->u.schema.size && !r->u.schema.data)
      return dj_error(DJ_E_INVALID, "MCAP Schema: %zu bytes of data at NULL", r->u.schema.size);
    DJ_TRY(string_fits("Schema", "name", r->u.schema.name));
    DJ_TRY(string_fits("Schema", "encoding", r->u.schema.encoding));
    return fits("Schema", "data", r->u.schema.size);
  case DJ_MCAP_CHANNEL:
    DJ_TRY(string_fits("Channel", "topic", r->u.channel.topic));
    DJ_TRY(string_fits("Channel", "message encoding", r->u.channel.message_encoding));
    return map_fits("Channel", r->u.channel.metadata, r->u.channel.n_metadata);
  case DJ_MCAP_ATTACHMENT:
    if (r->u.attachment.size && !r->u.attachment.data)
      return dj_error(DJ_E_INVALID, "MCAP Attachment: %zu bytes at NULL", r->u.attachment.size);
    DJ_TRY(string_fits("Attachment", "name", r->u.attachment.name));
    return string_fits("Attachment", "media type", r->u.attachment.media_type);
  case DJ_MCAP_METADATA:
    DJ_TRY(string_fits("Metadata", "name", r->u.metadata.name));
    return map_fits("Metadata", r->u.metadata.pairs, r->u.metadata.n);
  default:
    return DJ_OK;
  }
}

// ---- decoding ----

typedef struct cursor {
  const unsigned char *p, *end;
  const char *bad; // the first field that did not fit, or held what it must not
  const char *why;
  dj__arena *arena;
  bool nomem;
} cursor;

static const unsigned char *take(cursor *c, uint64_t n, const char *field) {
  static const unsigned char zero[8];
  if (c->bad || n > (uint64_t)(c->end - c->p)) {
    if (!c->bad) {
      c->bad = field;
      c->why = "runs over the end of the record";
    }
    return zero; // enough for numbers; longer pieces are not looked at once bad is set
  }
  const unsigned char *at = c->p;
  c->p += n;
  return at;
}

static uint8_t get_u8(cursor *c, const char *field) {
  return *take(c, 1, field);
}
static uint16_t get_u16(cursor *c, const char *field) {
  return dj__mcap_u16(take(c, 2, field));
}
static uint32_t get_u32(cursor *c, const char *field) {
  return dj__mcap_u32(take(c, 4, field));
}
static uint64_t get_u64(cursor *c, const char *field) {
  return dj__mcap_u64(take(c, 8, field));
}

static void *get_memory(cursor *c, size_t n) {
  void *p = dj__arena_alloc(c->arena, n);
  if (!p) c->nomem = true;
  return p;
}

// Copies a string to `to` (its length and a NUL). Refuses a NUL inside.
static size_t copy_str(cursor *c, char *to, const unsigned char *s, size_t n, const char *field) {
  if (n && memchr(s, 0, n)) {
    c->bad = field;
    c->why = "holds a NUL byte";
    return 0;
  }
  if (n) memcpy(to, s, n);
  to[n] = 0;
  return n + 1;
}

static const char *get_str(cursor *c, const char *field) {
  uint32_t n = get_u32(c, field);
  const unsigned char *s = take(c, n, field);
  if (c->bad) return "";
  char *to = get_memory(c, (size_t)n + 1);
  if (!to) return "";
  (void)copy_str(c, to, s, n, field);
  return to;
}

// A map's bytes bound its strings: each has 4 bytes of length for its one NUL.
static const dj_mcap_pair *get_map(cursor *c, size_t *n, const char *field) {
  *n = 0;
  uint32_t bytes = get_u32(c, field);
  cursor map = {.p = take(c, bytes, field), .arena = c->arena};
  if (c->bad || !bytes) return NULL;
  map.end = map.p + bytes;
  cursor count = map;
  size_t strings = 0;
  while (count.p < count.end && !count.bad) {
    take(&count, get_u32(&count, field), field);
    strings++;
  }
  if (count.bad || strings % 2) {
    c->bad = field;
    c->why = count.bad ? "has an entry that runs over its end" : "ends behind a key";
    return NULL;
  }
  dj_mcap_pair *pairs = get_memory(c, strings / 2 * sizeof *pairs);
  char *text = pairs ? get_memory(c, bytes) : NULL;
  if (!text) return NULL;
  for (size_t i = 0; i < strings && !map.bad; i++) {
    uint32_t len = get_u32(&map, field);
    const unsigned char *s = take(&map, len, field);
    *(i % 2 ? &pairs[i / 2].value : &pairs[i / 2].key) = text;
    text += copy_str(&map, text, s, len, field);
  }
  if (map.bad) {
    c->bad = map.bad;
    c->why = map.why;
    return NULL;
  }
  *n = strings / 2;
  return pairs;
}

static const dj_mcap_channel_number *get_numbers(cursor *c, size_t *n, const char *field) {
  *n = 0;
  uint32_t bytes = get_u32(c, field);
  const unsigned char *p = take(c, bytes, field);
  if (c->bad || !bytes) return NULL;
  if (bytes % 10) {
    c->bad = field;
    c->why = "has a length that is no multiple of 10";
    return NULL;
  }
  dj_mcap_channel_number *v = get_memory(c, bytes / 10 * sizeof *v);
  if (!v) return NULL;
  *n = bytes / 10;
  for (size_t i = 0; i < *n; i++, p += 10)
    v[i] = (dj_mcap_channel_number){dj__mcap_u16(p), dj__mcap_u64(p + 2)};
  return v;
}

static void get_message_index(cursor *c, dj_mcap_message_index *m) {
  m->channel_id = get_u16(c, "channel_id");
  uint32_t bytes = get_u32(c, "records");
  const unsigned char *p = take(c, bytes, "records");
  if (c->bad) return;
  if (bytes % 16) {
    c->bad = "records";
    c->why = "has a length that is no multiple of 16";
    return;
  }
  dj_mcap_index_entry *e = get_memory(c, bytes);
  if (!e) return;
  m->n = bytes / 16;
  for (size_t i = 0; i < m->n; i++, p += 16)
    e[i] = (dj_mcap_index_entry){dj__mcap_u64(p), dj__mcap_u64(p + 8)};
  m->entries = e;
}

static void get_chunk_index(cursor *c, dj_mcap_chunk_index *i) {
  i->start_time = get_u64(c, "message_start_time");
  i->end_time = get_u64(c, "message_end_time");
  i->chunk_offset = get_u64(c, "chunk_start_offset");
  i->chunk_length = get_u64(c, "chunk_length");
  i->offsets = get_numbers(c, &i->n_offsets, "message_index_offsets");
  i->message_index_length = get_u64(c, "message_index_length");
  i->compression = get_str(c, "compression");
  i->compressed_size = get_u64(c, "compressed_size");
  i->uncompressed_size = get_u64(c, "uncompressed_size");
}

static void get_statistics(cursor *c, dj_mcap_statistics *s) {
  s->message_count = get_u64(c, "message_count");
  s->schema_count = get_u16(c, "schema_count");
  s->channel_count = get_u32(c, "channel_count");
  s->attachment_count = get_u32(c, "attachment_count");
  s->metadata_count = get_u32(c, "metadata_count");
  s->chunk_count = get_u32(c, "chunk_count");
  s->start_time = get_u64(c, "message_start_time");
  s->end_time = get_u64(c, "message_end_time");
  s->channel_counts = get_numbers(c, &s->n_channel_counts, "channel_message_counts");
}

static void get_body(cursor *c, dj_mcap_record *r) {
  switch ((dj_mcap_op)r->opcode) {
  case DJ_MCAP_HEADER:
    r->u.header.profile = get_str(c, "profile");
    r->u.header.library = get_str(c, "library");
    break;
  case DJ_MCAP_FOOTER:
    r->u.footer.summary_start = get_u64(c, "summary_start");
    r->u.footer.summary_offset_start = get_u64(c, "summary_offset_start");
    r->u.footer.summary_crc = get_u32(c, "summary_crc");
    break;
  case DJ_MCAP_SCHEMA:
    r->u.schema.id = get_u16(c, "id");
    r->u.schema.name = get_str(c, "name");
    r->u.schema.encoding = get_str(c, "encoding");
    r->u.schema.size = get_u32(c, "data");
    r->u.schema.data = take(c, r->u.schema.size, "data");
    if (!c->bad && r->u.schema.id == 0) {
      c->bad = "id";
      c->why = "is 0, which means \"no schema\"";
    }
    break;
  case DJ_MCAP_CHANNEL:
    r->u.channel.id = get_u16(c, "id");
    r->u.channel.schema_id = get_u16(c, "schema_id");
    r->u.channel.topic = get_str(c, "topic");
    r->u.channel.message_encoding = get_str(c, "message_encoding");
    r->u.channel.metadata = get_map(c, &r->u.channel.n_metadata, "metadata");
    break;
  case DJ_MCAP_MESSAGE: {
    const unsigned char *p = take(c, DJ__MCAP_MESSAGE, "header");
    if (!c->bad) dj__mcap_message(p, (size_t)(c->end - p), &r->u.message);
    break;
  }
  case DJ_MCAP_CHUNK:
    r->u.chunk.start_time = get_u64(c, "message_start_time");
    r->u.chunk.end_time = get_u64(c, "message_end_time");
    r->u.chunk.uncompressed_size = get_u64(c, "uncompressed_size");
    r->u.chunk.uncompressed_crc = get_u32(c, "uncompressed_crc");
    r->u.chunk.compression = get_str(c, "compression");
    r->u.chunk.records_size = get_u64(c, "records");
    r->u.chunk.records = take(c, r->u.chunk.records_size, "records");
    break;
  case DJ_MCAP_MESSAGE_INDEX:
    get_message_index(c, &r->u.message_index);
    break;
  case DJ_MCAP_CHUNK_INDEX:
    get_chunk_index(c, &r->u.chunk_index);
    break;
  case DJ_MCAP_ATTACHMENT:
    r->u.attachment.log_time = get_u64(c, "log_time");
    r->u.attachment.create_time = get_u64(c, "create_time");
    r->u.attachment.name = get_str(c, "name");
    r->u.attachment.media_type = get_str(c, "media_type");
    r->u.attachment.size = get_u64(c, "data");
    r->u.attachment.data = take(c, r->u.attachment.size, "data");
    r->u.attachment.crc = get_u32(c, "crc");
    break;
  case DJ_MCAP_ATTACHMENT_INDEX:
    r->u.attachment_index.offset = get_u64(c, "offset");
    r->u.attachment_index.length = get_u64(c, "length");
    r->u.attachment_index.log_time = get_u64(c, "log_time");
    r->u.attachment_index.create_time = get_u64(c, "create_time");
    r->u.attachment_index.data_size = get_u64(c, "data_size");
    r->u.attachment_index.name = get_str(c, "name");
    r->u.attachment_index.media_type = get_str(c, "media_type");
    break;
  case DJ_MCAP_STATISTICS:
    get_statistics(c, &r->u.statistics);
    break;
  case DJ_MCAP_METADATA:
    r->u.metadata.name = get_str(c, "name");
    r->u.metadata.pairs = get_map(c, &r->u.metadata.n, "metadata");
    break;
  case DJ_MCAP_METADATA_INDEX:
    r->u.metadata_index.offset = get_u64(c, "offset");
    r->u.metadata_index.length = get_u64(c, "length");
    r->u.metadata_index.name = get_str(c, "name");
    break;
  case DJ_MCAP_SUMMARY_OFFSET:
    r->u.summary_offset.group_opcode = get_u8(c, "group_opcode");
    r->u.summary_offset.group_start = get_u64(c, "group_start");
    r->u.summary_offset.group_length = get_u64(c, "group_length");
    break;
  case DJ_MCAP_DATA_END:
    r->u.data_end.data_section_crc = get_u32(c, "data_section_crc");
    break;
  }
}

dj_status dj__mcap_decode(uint8_t opcode, const unsigned char *body, uint64_t size, dj__arena *a,
                          dj_mcap_record *r) {
  cursor c = {.p = body, .end = body + size, .arena = a};
  r->opcode = opcode;
  memset(&r->u, 0, sizeof r->u);
  get_body(&c, r);
  if (c.nomem) return DJ_E_NOMEM; // the arena has said so
  if (c.bad)
    return dj_error(DJ_E_FORMAT, "%s record of %llu bytes: %s %s", dj_mcap_op_name(opcode),
                    (unsigned long long)size, c.bad, c.why);
  return DJ_OK;
}

dj_status dj__mcap_frame(const unsigned char *data, uint64_t size, uint64_t offset, uint8_t *opcode,
                         const unsigned char **body, uint64_t *length) {
  if (offset > size || size - offset < DJ__MCAP_FRAME)
    return dj_error(DJ_E_FORMAT, "a record starts here, but only %llu bytes are left",
                    (unsigned long long)(offset > size ? 0 : size - offset));
  *opcode = data[offset];
  *length = dj__mcap_u64(data + offset + 1);
  *body = data + offset + DJ__MCAP_FRAME;
  if (*length > size - offset - DJ__MCAP_FRAME)
    return dj_error(DJ_E_FORMAT, "%s record (opcode 0x%02x) says it has %llu bytes, %llu are left",
                    dj_mcap_op_name(*opcode), *opcode, (unsigned long long)*length,
                    (unsigned long long)(size - offset - DJ__MCAP_FRAME));
  return DJ_OK;
}

uint32_t dj__mcap_attachment_crc(const unsigned char *body, const dj_mcap_attachment *a) {
  return dj__crc32(0, body, (size_t)((const unsigned char *)a->data - body) + a->size);
}
