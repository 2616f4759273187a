/*
 * MCAP writer. One pass, no seeking back: what the summary needs is kept in memory (a few dozen
 * bytes a chunk, attachment and channel), messages are gathered in a chunk buffer with their index
 * and go out when it is full. Buffers are reused, so a message costs two copies and no allocation.
 *
 * Schemas and channels are written where they are added (into the open chunk) and again in the
 * summary. After a failed write the writer only takes an abort: a half-written record is never
 * followed by another, and the file under its final name is replaced only by a whole one.
 *
 * Left to others: compression (mcap_codec.c), bytes of records (mcap_wire.c), atomic replacement
 * (base/fs.c).
 */
#include "fleet/mcap_write.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/crc32.h"
#include "base/fs.h"

static const uint64_t DEFAULT_CHUNK = 1u << 20, MAX_CHUNK = 1u << 30;

typedef struct channel {
  dj_mcap_channel def;
  uint64_t count;               // messages in the whole file
  dj_mcap_index_entry *entries; // of the open chunk
  size_t n, cap;
} channel;

struct dj_mcap_writer {
  dj_mcap_options o;
  dj__atomic file;
  dj__buf memory; // the whole file, when it is written to memory
  bool to_memory;
  dj_status failed; // of the first write that failed
  uint64_t pos;
  uint32_t data_crc;

  dj__arena arena;          // definitions, and what the summary says
  dj_mcap_schema **schemas; // by id, with holes
  size_t schemas_cap, next_schema, n_schemas;
  channel **channels; // by id, with holes
  size_t channels_cap, next_channel, n_channels;

  dj__buf chunk; // the open chunk's records
  uint64_t chunk_start, chunk_end, chunk_messages;
  uint16_t *touched; // channels with messages in the open chunk, by first use
  size_t n_touched, touched_cap;
  dj__buf packed, record; // scratch
  dj__mcap_codec codec;

  dj_mcap_statistics stats;
  dj_mcap_chunk_index *chunks;
  size_t n_chunks, chunks_cap;
  dj_mcap_attachment_index *attachments;
  size_t n_attachments, attachments_cap;
  dj_mcap_metadata_index *metadata;
  size_t n_metadata, metadata_cap;
};

// Room for one more element behind n of them; NULL when memory is out.
static void *grown(void *array, size_t n, size_t *cap, size_t element) {
  if (n < *cap) return array;
  size_t want = *cap ? *cap * 2 : 16;
  void *p = want > SIZE_MAX / element ? NULL : realloc(array, want * element);
  if (!p) {
    dj_error(DJ_E_NOMEM, "MCAP writer: no memory for %zu index entries", want);
    return NULL;
  }
  *cap = want;
  return p;
}

static dj_status fail(dj_mcap_writer *w, dj_status s) {
  if (s && !w->failed) w->failed = s;
  return s;
}

static dj_status ready(const dj_mcap_writer *w) {
  return w->failed ? dj_error(DJ_E_STATE, "MCAP writer: an earlier write failed (%s); abort it",
                              dj_status_text(w->failed))
                   : DJ_OK;
}

static dj_status emit(dj_mcap_writer *w, const void *data, size_t n) {
  if (w->to_memory) {
    dj__buf_put(&w->memory, data, n);
    if (w->memory.failed) return dj_error(DJ_E_NOMEM, "MCAP in memory: no room for %zu bytes", n);
  } else if (n && fwrite(data, 1, n, w->file.file) != n) {
    return dj_error_errno("%s: cannot write %zu bytes at %llu", w->file.tmp, n,
                          (unsigned long long)w->pos);
  }
  w->pos += n;
  return DJ_OK;
}

// Writes to the data section.
static dj_status emit_data(dj_mcap_writer *w, const dj__buf *b) {
  if (b->failed) return dj_error(DJ_E_NOMEM, "MCAP writer: no memory for a record");
  if (!(w->o.omit & DJ_MCAP_OMIT_CRC)) w->data_crc = dj__crc32(w->data_crc, b->data, b->size);
  return emit(w, b->data, b->size);
}

static dj_status emit_record(dj_mcap_writer *w, const dj_mcap_record *r, int padding) {
  w->record.size = 0;
  dj__mcap_encode(&w->record, r, padding, (w->o.omit & DJ_MCAP_OMIT_CRC) != 0);
  return emit_data(w, &w->record);
}

static bool chunked(const dj_mcap_writer *w) {
  return !(w->o.omit & DJ_MCAP_OMIT_CHUNKS);
}

// Schemas and channels go into the open chunk, or straight into the file.
static dj_status emit_definition(dj_mcap_writer *w, const dj_mcap_record *r) {
  if (!chunked(w)) return emit_record(w, r, w->o.padding);
  dj__mcap_encode(&w->chunk, r, 0, false);
  return w->chunk.failed ? dj_error(DJ_E_NOMEM, "MCAP writer: no memory for a chunk") : DJ_OK;
}

static void free_writer(dj_mcap_writer *w) {
  for (size_t i = 0; i < w->channels_cap; i++)
    if (w->channels[i]) free(w->channels[i]->entries);
  free(w->schemas);
  free(w->channels);
  free(w->touched);
  free(w->chunks);
  free(w->attachments);
  free(w->metadata);
  dj__buf_free(&w->memory);
  dj__buf_free(&w->chunk);
  dj__buf_free(&w->packed);
  dj__buf_free(&w->record);
  dj__mcap_codec_free(&w->codec);
  dj__arena_free(&w->arena);
  free(w);
}

void dj_mcap_writer_abort(dj_mcap_writer *w) {
  if (!w) return;
  dj__atomic_abort(&w->file);
  free_writer(w);
}

static dj_status check_options(const dj_mcap_options *o) {
  if (o->chunk_size > MAX_CHUNK)
    return dj_error(DJ_E_INVALID, "MCAP writer: chunk size %llu, at most %llu",
                    (unsigned long long)o->chunk_size, (unsigned long long)MAX_CHUNK);
  if (o->padding < 0 || o->padding > DJ__MCAP_MAX_PADDING)
    return dj_error(DJ_E_INVALID, "MCAP writer: padding %d, 0 to %d", o->padding,
                    (int)DJ__MCAP_MAX_PADDING);
  if ((unsigned)o->compression > DJ_MCAP_ZSTD)
    return dj_error(DJ_E_INVALID, "MCAP writer: compression %d is not known", (int)o->compression);
  return DJ_OK;
}

static dj_status start(const char *path, const dj_mcap_options *o, dj_mcap_writer **out) {
  *out = NULL;
  const dj_mcap_options defaults = {0};
  DJ_TRY(check_options(o ? o : &defaults));
  dj_mcap_writer *w = calloc(1, sizeof *w);
  if (!w) return dj_error(DJ_E_NOMEM, "no memory for an MCAP writer");
  w->o = o ? *o : defaults;
  if (!w->o.chunk_size) w->o.chunk_size = DEFAULT_CHUNK;
  w->next_schema = w->next_channel = 1;
  w->to_memory = !path;
  dj_mcap_record header = {.opcode = DJ_MCAP_HEADER};
  header.u.header.profile = w->o.profile ? w->o.profile : "";
  header.u.header.library = w->o.library ? w->o.library : "libdojo";
  dj_status s;
  DJ_TRY_GOTO(s, dj__mcap_encodable(&header));
  if (path) DJ_TRY_GOTO(s, dj__atomic_open(&w->file, path));
  dj__buf_put(&w->record, dj__mcap_magic, sizeof dj__mcap_magic);
  dj__mcap_encode(&w->record, &header, w->o.padding, false);
  DJ_TRY_GOTO(s, emit_data(w, &w->record));
  w->o.profile = w->o.library = NULL; // the caller's; written by now
  *out = w;
  return DJ_OK;
fail:
  dj_mcap_writer_abort(w);
  return s;
}

dj_status dj_mcap_writer_open(const char *path, const dj_mcap_options *o, dj_mcap_writer **w) {
  return start(path, o, w);
}

dj_status dj_mcap_writer_open_memory(const dj_mcap_options *o, dj_mcap_writer **w) {
  return start(NULL, o, w);
}

// ---- schemas and channels ----

static bool same_schema(const dj_mcap_schema *a, const dj_mcap_schema *b) {
  return !strcmp(a->name, b->name) && !strcmp(a->encoding, b->encoding) && a->size == b->size &&
         (!a->size || !memcmp(a->data, b->data, a->size));
}

static bool same_channel(const dj_mcap_channel *a, const dj_mcap_channel *b) {
  if (strcmp(a->topic, b->topic) != 0 || strcmp(a->message_encoding, b->message_encoding) != 0 ||
      a->schema_id != b->schema_id || a->n_metadata != b->n_metadata)
    return false;
  for (size_t i = 0; i < a->n_metadata; i++)
    if (strcmp(a->metadata[i].key, b->metadata[i].key) != 0 ||
        strcmp(a->metadata[i].value, b->metadata[i].value) != 0)
      return false;
  return true;
}

// Makes table[id] exist.
static dj_status reserve_id(void ***table, size_t *cap, uint16_t id) {
  if (id < *cap) return DJ_OK;
  size_t want = *cap ? *cap : 16;
  while (want <= id) want *= 2;
  void **p = realloc(*table, want * sizeof *p);
  if (!p) return dj_error(DJ_E_NOMEM, "MCAP writer: no memory for %zu ids", want);
  memset(p + *cap, 0, (want - *cap) * sizeof *p);
  *table = p;
  *cap = want;
  return DJ_OK;
}

bool dj__mcap_has_schema(const dj_mcap_writer *w, uint16_t id) {
  return id < w->schemas_cap && w->schemas[id];
}
bool dj__mcap_has_channel(const dj_mcap_writer *w, uint16_t id) {
  return id < w->channels_cap && w->channels[id];
}

bool dj__mcap_agrees_schema(const dj_mcap_writer *w, const dj_mcap_schema *s) {
  return !dj__mcap_has_schema(w, s->id) || same_schema(w->schemas[s->id], s);
}
bool dj__mcap_agrees_channel(const dj_mcap_writer *w, const dj_mcap_channel *c) {
  return !dj__mcap_has_channel(w, c->id) || same_channel(&w->channels[c->id]->def, c);
}

// Remembers a new schema under its id; nothing is written.
static dj_status remember_schema(dj_mcap_writer *w, const dj_mcap_schema *s) {
  void **table = (void **)w->schemas;
  DJ_TRY(reserve_id(&table, &w->schemas_cap, s->id));
  w->schemas = (dj_mcap_schema **)table;
  dj_mcap_schema *copy = dj__arena_copy(&w->arena, s, sizeof *s);
  if (!copy) return DJ_E_NOMEM;
  copy->name = dj__arena_strdup(&w->arena, s->name);
  copy->encoding = dj__arena_strdup(&w->arena, s->encoding);
  copy->data = dj__arena_copy(&w->arena, s->data, s->size);
  if (!copy->name || !copy->encoding || !copy->data) return DJ_E_NOMEM;
  w->schemas[s->id] = copy;
  w->n_schemas++;
  if (s->id >= w->next_schema) w->next_schema = (size_t)s->id + 1;
  return DJ_OK;
}

static const dj_mcap_pair *copy_pairs(dj__arena *a, const dj_mcap_pair *pairs, size_t n) {
  dj_mcap_pair *copy = dj__arena_alloc(a, n * sizeof *copy);
  for (size_t i = 0; copy && i < n; i++) {
    copy[i].key = dj__arena_strdup(a, pairs[i].key);
    copy[i].value = dj__arena_strdup(a, pairs[i].value);
    if (!copy[i].key || !copy[i].value) return NULL;
  }
  return copy;
}

static dj_status remember_channel(dj_mcap_writer *w, const dj_mcap_channel *c) {
  void **table = (void **)w->channels;
  DJ_TRY(reserve_id(&table, &w->channels_cap, c->id));
  w->channels = (channel **)table;
  channel *copy = dj__arena_alloc(&w->arena, sizeof *copy);
  if (!copy) return DJ_E_NOMEM;
  copy->def = *c;
  copy->def.topic = dj__arena_strdup(&w->arena, c->topic);
  copy->def.message_encoding = dj__arena_strdup(&w->arena, c->message_encoding);
  copy->def.metadata = copy_pairs(&w->arena, c->metadata, c->n_metadata);
  if (!copy->def.topic || !copy->def.message_encoding || !copy->def.metadata) return DJ_E_NOMEM;
  w->channels[c->id] = copy;
  w->n_channels++;
  if (c->id >= w->next_channel) w->next_channel = (size_t)c->id + 1;
  return DJ_OK;
}

dj_status dj__mcap_define_schema(dj_mcap_writer *w, const dj_mcap_schema *s) {
  DJ_TRY(ready(w));
  if (dj__mcap_has_schema(w, s->id))
    return same_schema(w->schemas[s->id], s)
               ? DJ_OK
               : dj_error(DJ_E_EXISTS, "schema %u is \"%s\" and also \"%s\"", s->id,
                          w->schemas[s->id]->name, s->name);
  dj_mcap_record r = {.opcode = DJ_MCAP_SCHEMA, .u.schema = *s};
  DJ_TRY(dj__mcap_encodable(&r));
  DJ_TRY(fail(w, remember_schema(w, s)));
  return fail(w, emit_definition(w, &r));
}

dj_status dj__mcap_define_channel(dj_mcap_writer *w, const dj_mcap_channel *c) {
  DJ_TRY(ready(w));
  if (dj__mcap_has_channel(w, c->id))
    return same_channel(&w->channels[c->id]->def, c)
               ? DJ_OK
               : dj_error(DJ_E_EXISTS, "channel %u is \"%s\" and also \"%s\"", c->id,
                          w->channels[c->id]->def.topic, c->topic);
  dj_mcap_record r = {.opcode = DJ_MCAP_CHANNEL, .u.channel = *c};
  DJ_TRY(dj__mcap_encodable(&r));
  DJ_TRY(fail(w, remember_channel(w, c)));
  return fail(w, emit_definition(w, &r));
}

dj_status dj_mcap_add_schema(dj_mcap_writer *w, const char *name, const char *encoding,
                             const void *data, size_t size, uint16_t *id) {
  *id = 0;
  dj_mcap_record r = {.opcode = DJ_MCAP_SCHEMA,
                      .u.schema = {.name = name, .encoding = encoding, .data = data, .size = size}};
  DJ_TRY(dj__mcap_encodable(&r));
  for (size_t i = 1; i < w->next_schema; i++)
    if (w->schemas[i] && same_schema(w->schemas[i], &r.u.schema)) {
      *id = (uint16_t)i;
      return DJ_OK;
    }
  if (w->next_schema > UINT16_MAX)
    return dj_error(DJ_E_LIMIT, "MCAP: schema \"%s\" would be the 65536th", name);
  r.u.schema.id = (uint16_t)w->next_schema;
  DJ_TRY(dj__mcap_define_schema(w, &r.u.schema));
  *id = r.u.schema.id;
  return DJ_OK;
}

dj_status dj_mcap_add_channel(dj_mcap_writer *w, uint16_t schema_id, const char *topic,
                              const char *message_encoding, const dj_mcap_pair *metadata,
                              size_t n_metadata, uint16_t *id) {
  *id = 0;
  dj_mcap_record r = {.opcode = DJ_MCAP_CHANNEL,
                      .u.channel = {.schema_id = schema_id,
                                    .topic = topic,
                                    .message_encoding = message_encoding,
                                    .metadata = metadata,
                                    .n_metadata = n_metadata}};
  DJ_TRY(dj__mcap_encodable(&r));
  if (schema_id && !dj__mcap_has_schema(w, schema_id))
    return dj_error(DJ_E_INVALID, "MCAP channel \"%s\": there is no schema %u; add it first", topic,
                    schema_id);
  for (size_t i = 0; i < w->next_channel && i < w->channels_cap; i++)
    if (w->channels[i] && same_channel(&w->channels[i]->def, &r.u.channel)) {
      *id = (uint16_t)i;
      return DJ_OK;
    }
  if (w->next_channel > UINT16_MAX)
    return dj_error(DJ_E_LIMIT, "MCAP: channel \"%s\" would be the 65536th", topic);
  r.u.channel.id = (uint16_t)w->next_channel;
  DJ_TRY(dj__mcap_define_channel(w, &r.u.channel));
  *id = r.u.channel.id;
  return DJ_OK;
}

// ---- chunks ----

// Notes a message of the open chunk: its place, its time, the counts.
static dj_status note_message(dj_mcap_writer *w, channel *c, uint64_t log_time, uint64_t offset) {
  if (chunked(w)) {
    if (c->n == 0) {
      uint16_t *touched = grown(w->touched, w->n_touched, &w->touched_cap, sizeof *touched);
      if (!touched) return DJ_E_NOMEM;
      w->touched = touched;
      touched[w->n_touched++] = c->def.id;
    }
    dj_mcap_index_entry *entries = grown(c->entries, c->n, &c->cap, sizeof *entries);
    if (!entries) return DJ_E_NOMEM;
    c->entries = entries;
    entries[c->n++] = (dj_mcap_index_entry){log_time, offset};
    if (!w->chunk_messages || log_time < w->chunk_start) w->chunk_start = log_time;
    if (!w->chunk_messages || log_time > w->chunk_end) w->chunk_end = log_time;
    w->chunk_messages++;
  }
  dj_mcap_statistics *st = &w->stats;
  if (!st->message_count || log_time < st->start_time) st->start_time = log_time;
  if (!st->message_count || log_time > st->end_time) st->end_time = log_time;
  st->message_count++;
  c->count++;
  return DJ_OK;
}

// The MessageIndex records behind a chunk; fills in the chunk's index entry.
static dj_status emit_message_indexes(dj_mcap_writer *w, dj_mcap_chunk_index *index) {
  uint64_t begin = w->pos;
  dj_mcap_channel_number *offsets = dj__arena_alloc(&w->arena, w->n_touched * sizeof *offsets);
  if (!offsets) return DJ_E_NOMEM;
  for (size_t i = 0; i < w->n_touched; i++) {
    channel *c = w->channels[w->touched[i]];
    dj_mcap_record r = {.opcode = DJ_MCAP_MESSAGE_INDEX};
    r.u.message_index = (dj_mcap_message_index){c->def.id, c->entries, c->n};
    offsets[i] = (dj_mcap_channel_number){c->def.id, w->pos};
    DJ_TRY(emit_record(w, &r, w->o.padding));
  }
  index->offsets = offsets;
  index->n_offsets = w->n_touched;
  index->message_index_length = w->pos - begin;
  return DJ_OK;
}

// A chunk record and its indexes. What was noted of its messages is used up.
static dj_status emit_chunk(dj_mcap_writer *w, const dj_mcap_chunk *c) {
  dj_mcap_record r = {.opcode = DJ_MCAP_CHUNK, .u.chunk = *c};
  dj_mcap_chunk_index index = {.start_time = c->start_time,
                               .end_time = c->end_time,
                               .chunk_offset = w->pos,
                               .compressed_size = c->records_size,
                               .uncompressed_size = c->uncompressed_size,
                               .compression = dj__arena_strdup(&w->arena, c->compression)};
  if (!index.compression) return DJ_E_NOMEM;
  DJ_TRY(emit_record(w, &r, 0));
  index.chunk_length = w->pos - index.chunk_offset;
  if (!(w->o.omit & DJ_MCAP_OMIT_MESSAGE_INDEX)) DJ_TRY(emit_message_indexes(w, &index));
  for (size_t i = 0; i < w->n_touched; i++) w->channels[w->touched[i]]->n = 0;
  w->n_touched = 0;
  w->chunk_messages = 0;
  dj_mcap_chunk_index *chunks = grown(w->chunks, w->n_chunks, &w->chunks_cap, sizeof *chunks);
  if (!chunks) return DJ_E_NOMEM;
  w->chunks = chunks;
  chunks[w->n_chunks++] = index;
  return DJ_OK;
}

static dj_status end_chunk(dj_mcap_writer *w) {
  if (!w->chunk.size) return DJ_OK;
  bool any = w->chunk_messages > 0;
  dj_mcap_chunk c = {.start_time = any ? w->chunk_start : 0,
                     .end_time = any ? w->chunk_end : 0,
                     .uncompressed_size = w->chunk.size,
                     .compression = "",
                     .records = w->chunk.data,
                     .records_size = w->chunk.size};
  if (!(w->o.omit & DJ_MCAP_OMIT_CRC))
    c.uncompressed_crc = dj__crc32(0, w->chunk.data, w->chunk.size);
  if (w->o.compression != DJ_MCAP_NONE) {
    DJ_TRY(dj__mcap_compress(&w->codec, w->o.compression, w->o.level, w->chunk.data, w->chunk.size,
                             &w->packed));
    if (w->packed.size < w->chunk.size) {
      c.compression = dj__mcap_compression_name(w->o.compression);
      c.records = w->packed.data;
      c.records_size = w->packed.size;
    }
  }
  DJ_TRY(emit_chunk(w, &c));
  w->chunk.size = 0;
  return DJ_OK;
}

dj_status dj_mcap_end_chunk(dj_mcap_writer *w) {
  DJ_TRY(ready(w));
  return fail(w, end_chunk(w));
}

dj_status dj_mcap_write(dj_mcap_writer *w, const dj_mcap_message *m) {
  DJ_TRY(ready(w));
  if (!dj__mcap_has_channel(w, m->channel_id))
    return dj_error(DJ_E_INVALID, "MCAP message: there is no channel %u; add it first",
                    m->channel_id);
  if (m->size && !m->data)
    return dj_error(DJ_E_INVALID, "MCAP message: %zu bytes of data at NULL", m->size);
  channel *c = w->channels[m->channel_id];
  dj_mcap_record r = {.opcode = DJ_MCAP_MESSAGE, .u.message = *m};
  if (!chunked(w)) {
    DJ_TRY(fail(w, emit_record(w, &r, 0)));
    return fail(w, note_message(w, c, m->log_time, 0));
  }
  uint64_t at = w->chunk.size;
  dj__mcap_encode(&w->chunk, &r, 0, false);
  if (w->chunk.failed)
    return fail(w,
                dj_error(DJ_E_NOMEM, "MCAP writer: no memory for a message of %zu bytes", m->size));
  DJ_TRY(fail(w, note_message(w, c, m->log_time, at)));
  return w->chunk.size >= w->o.chunk_size ? fail(w, end_chunk(w)) : DJ_OK;
}

// Learns the definitions within a taken-over chunk and notes its messages.
static dj_status note_chunk(dj_mcap_writer *w, const unsigned char *plain, uint64_t size) {
  dj__arena scratch = {0};
  dj_status s = DJ_OK;
  uint8_t op;
  const unsigned char *body;
  uint64_t length;
  for (uint64_t at = 0; !s && at < size; at += DJ__MCAP_FRAME + length) {
    dj_mcap_record r;
    if ((s = dj__mcap_frame(plain, size, at, &op, &body, &length))) break;
    if ((s = dj__mcap_decode(op, body, length, &scratch, &r))) break;
    if (op == DJ_MCAP_SCHEMA && !dj__mcap_has_schema(w, r.u.schema.id))
      s = remember_schema(w, &r.u.schema);
    else if (op == DJ_MCAP_CHANNEL && !dj__mcap_has_channel(w, r.u.channel.id))
      s = remember_channel(w, &r.u.channel);
    else if (op == DJ_MCAP_MESSAGE)
      s = note_message(w, w->channels[r.u.message.channel_id], r.u.message.log_time, at);
  }
  dj__arena_free(&scratch);
  return s;
}

dj_status dj__mcap_write_chunk(dj_mcap_writer *w, const dj_mcap_chunk *c,
                               const unsigned char *plain) {
  DJ_TRY(ready(w));
  DJ_TRY(fail(w, end_chunk(w)));
  DJ_TRY(fail(w, note_chunk(w, plain, c->uncompressed_size)));
  dj_mcap_chunk copy = *c; // with the times its messages really have
  copy.start_time = w->chunk_messages ? w->chunk_start : 0;
  copy.end_time = w->chunk_messages ? w->chunk_end : 0;
  return fail(w, emit_chunk(w, &copy));
}

// ---- attachments and metadata ----

dj_status dj_mcap_write_attachment(dj_mcap_writer *w, const dj_mcap_attachment *a) {
  DJ_TRY(ready(w));
  dj_mcap_record r = {.opcode = DJ_MCAP_ATTACHMENT, .u.attachment = *a};
  DJ_TRY(dj__mcap_encodable(&r));
  DJ_TRY(fail(w, end_chunk(w)));
  dj_mcap_attachment_index *at =
      grown(w->attachments, w->n_attachments, &w->attachments_cap, sizeof *at);
  if (!at) return fail(w, DJ_E_NOMEM);
  w->attachments = at;
  at += w->n_attachments++;
  *at = (dj_mcap_attachment_index){.offset = w->pos,
                                   .log_time = a->log_time,
                                   .create_time = a->create_time,
                                   .data_size = a->size,
                                   .name = dj__arena_strdup(&w->arena, a->name),
                                   .media_type = dj__arena_strdup(&w->arena, a->media_type)};
  if (!at->name || !at->media_type) return fail(w, DJ_E_NOMEM);
  DJ_TRY(fail(w, emit_record(w, &r, w->o.padding)));
  at->length = w->pos - at->offset;
  return DJ_OK;
}

dj_status dj_mcap_write_metadata(dj_mcap_writer *w, const char *name, const dj_mcap_pair *pairs,
                                 size_t n) {
  DJ_TRY(ready(w));
  dj_mcap_record r = {.opcode = DJ_MCAP_METADATA, .u.metadata = {name, pairs, n}};
  DJ_TRY(dj__mcap_encodable(&r));
  DJ_TRY(fail(w, end_chunk(w)));
  dj_mcap_metadata_index *at = grown(w->metadata, w->n_metadata, &w->metadata_cap, sizeof *at);
  if (!at) return fail(w, DJ_E_NOMEM);
  w->metadata = at;
  at += w->n_metadata++;
  *at = (dj_mcap_metadata_index){.offset = w->pos, .name = dj__arena_strdup(&w->arena, name)};
  if (!at->name) return fail(w, DJ_E_NOMEM);
  DJ_TRY(fail(w, emit_record(w, &r, w->o.padding)));
  at->length = w->pos - at->offset;
  return DJ_OK;
}

// ---- summary ----

typedef struct summary {
  dj__buf bytes, offsets;
  uint64_t base; // its place in the file
  size_t group;  // start of the present group in `bytes`
} summary;

static void add(dj_mcap_writer *w, summary *s, const dj_mcap_record *r) {
  dj__mcap_encode(&s->bytes, r, w->o.padding, false);
}

static void end_group(dj_mcap_writer *w, summary *s, uint8_t opcode) {
  if (s->bytes.size > s->group && !(w->o.omit & DJ_MCAP_OMIT_SUMMARY_OFFSETS)) {
    dj_mcap_record r = {.opcode = DJ_MCAP_SUMMARY_OFFSET};
    r.u.summary_offset =
        (dj_mcap_summary_offset){opcode, s->base + s->group, s->bytes.size - s->group};
    dj__mcap_encode(&s->offsets, &r, w->o.padding, false);
  }
  s->group = s->bytes.size;
}

static void add_definitions(dj_mcap_writer *w, summary *s) {
  if (!(w->o.omit & DJ_MCAP_OMIT_REPEATED_SCHEMAS))
    for (size_t i = 0; i < w->schemas_cap; i++)
      if (w->schemas[i])
        add(w, s, &(dj_mcap_record){.opcode = DJ_MCAP_SCHEMA, .u.schema = *w->schemas[i]});
  end_group(w, s, DJ_MCAP_SCHEMA);
  if (!(w->o.omit & DJ_MCAP_OMIT_REPEATED_CHANNELS))
    for (size_t i = 0; i < w->channels_cap; i++)
      if (w->channels[i])
        add(w, s, &(dj_mcap_record){.opcode = DJ_MCAP_CHANNEL, .u.channel = w->channels[i]->def});
  end_group(w, s, DJ_MCAP_CHANNEL);
}

static dj_status add_statistics(dj_mcap_writer *w, summary *s) {
  if (w->o.omit & DJ_MCAP_OMIT_STATISTICS) return DJ_OK;
  dj_mcap_record r = {.opcode = DJ_MCAP_STATISTICS, .u.statistics = w->stats};
  dj_mcap_statistics *st = &r.u.statistics;
  dj_mcap_channel_number *counts = dj__arena_alloc(&w->arena, w->n_channels * sizeof *counts);
  if (!counts) return DJ_E_NOMEM;
  for (size_t i = 0; i < w->channels_cap; i++)
    if (w->channels[i] && w->channels[i]->count)
      counts[st->n_channel_counts++] = (dj_mcap_channel_number){(uint16_t)i, w->channels[i]->count};
  st->channel_counts = counts;
  st->schema_count = (uint16_t)w->n_schemas;
  st->channel_count = (uint32_t)w->n_channels;
  st->attachment_count = (uint32_t)w->n_attachments;
  st->metadata_count = (uint32_t)w->n_metadata;
  st->chunk_count = (uint32_t)w->n_chunks;
  add(w, s, &r);
  end_group(w, s, DJ_MCAP_STATISTICS);
  return DJ_OK;
}

static void add_indexes(dj_mcap_writer *w, summary *s) {
  if (!(w->o.omit & DJ_MCAP_OMIT_METADATA_INDEX))
    for (size_t i = 0; i < w->n_metadata; i++)
      add(w, s,
          &(dj_mcap_record){.opcode = DJ_MCAP_METADATA_INDEX, .u.metadata_index = w->metadata[i]});
  end_group(w, s, DJ_MCAP_METADATA_INDEX);
  if (!(w->o.omit & DJ_MCAP_OMIT_ATTACHMENT_INDEX))
    for (size_t i = 0; i < w->n_attachments; i++)
      add(w, s,
          &(dj_mcap_record){.opcode = DJ_MCAP_ATTACHMENT_INDEX,
                            .u.attachment_index = w->attachments[i]});
  end_group(w, s, DJ_MCAP_ATTACHMENT_INDEX);
  if (!(w->o.omit & DJ_MCAP_OMIT_CHUNK_INDEX))
    for (size_t i = 0; i < w->n_chunks; i++)
      add(w, s, &(dj_mcap_record){.opcode = DJ_MCAP_CHUNK_INDEX, .u.chunk_index = w->chunks[i]});
  end_group(w, s, DJ_MCAP_CHUNK_INDEX);
}

// DataEnd, summary, summary offsets, Footer, magic.
static dj_status emit_end(dj_mcap_writer *w, summary *s) {
  dj_mcap_record end = {.opcode = DJ_MCAP_DATA_END, .u.data_end = {w->data_crc}};
  DJ_TRY(emit_record(w, &end, 0));
  s->base = w->pos;
  add_definitions(w, s);
  DJ_TRY(add_statistics(w, s));
  add_indexes(w, s);
  dj_mcap_record footer = {.opcode = DJ_MCAP_FOOTER};
  if (s->bytes.size) footer.u.footer.summary_start = s->base;
  if (s->offsets.size) footer.u.footer.summary_offset_start = s->base + s->bytes.size;
  dj__buf_put(&s->bytes, s->offsets.data, s->offsets.size);
  dj__mcap_encode(&s->bytes, &footer, 0, false);
  if (s->bytes.failed || s->offsets.failed)
    return dj_error(DJ_E_NOMEM, "MCAP writer: no memory for the summary");
  if (!(w->o.omit & DJ_MCAP_OMIT_CRC)) { // over everything from the summary up to this field
    uint32_t crc = htole32(dj__crc32(0, s->bytes.data, s->bytes.size - sizeof crc));
    memcpy(s->bytes.data + s->bytes.size - sizeof crc, &crc, sizeof crc);
  }
  DJ_TRY(emit(w, s->bytes.data, s->bytes.size));
  return emit(w, dj__mcap_magic, sizeof dj__mcap_magic);
}

static dj_status finish(dj_mcap_writer *w) {
  DJ_TRY(ready(w));
  DJ_TRY(end_chunk(w));
  summary s = {0};
  dj_status st = emit_end(w, &s);
  dj__buf_free(&s.bytes);
  dj__buf_free(&s.offsets);
  return st;
}

dj_status dj_mcap_writer_close(dj_mcap_writer *w) {
  dj_status s = w->to_memory
                    ? dj_error(DJ_E_STATE, "this MCAP writer writes to memory; close it with "
                                           "dj_mcap_writer_close_memory")
                    : finish(w);
  if (!s) s = dj__atomic_commit(&w->file);
  dj_mcap_writer_abort(w);
  return s;
}

dj_status dj_mcap_writer_close_memory(dj_mcap_writer *w, void **data, size_t *size) {
  *data = NULL;
  *size = 0;
  dj_status s = w->to_memory
                    ? finish(w)
                    : dj_error(DJ_E_STATE, "this MCAP writer writes to a file; close it with "
                                           "dj_mcap_writer_close");
  if (!s) {
    *data = w->memory.data;
    *size = w->memory.size;
    w->memory = (dj__buf){0};
  }
  dj_mcap_writer_abort(w);
  return s;
}
