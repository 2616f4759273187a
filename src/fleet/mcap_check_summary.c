/*
 * The checker's second half: what stands behind the data section of an MCAP file. Every index entry
 * is held against the record it points to (found by binary search in what the first half noted),
 * the statistics against the counts, the groups against the summary offsets, the CRC against the
 * bytes.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/crc32.h"
#include "fleet/mcap_check.h"

// ---- index entries ----

/* All noted structs begin with their offset. */
static void *find_at(const dj__check_list *l, size_t size, uint64_t offset) {
  size_t lo = 0, hi = l->n;
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    uint64_t at;
    memcpy(&at, (char *)l->data + mid * size, sizeof at);
    if (at == offset) return (char *)l->data + mid * size;
    if (at < offset)
      lo = mid + 1;
    else
      hi = mid;
  }
  return NULL;
}

static int by_channel_and_value(const void *x, const void *y) {
  const dj_mcap_channel_number *a = x, *b = y;
  if (a->channel_id != b->channel_id) return a->channel_id < b->channel_id ? -1 : 1;
  return (a->value > b->value) - (a->value < b->value);
}

static bool same_offsets(dj__check *c, const dj_mcap_chunk_index *ci, const dj__check_chunk *k) {
  if (ci->n_offsets != k->n_index) return false;
  if (!k->n_index) return true;
  dj_mcap_channel_number *there =
                             (dj_mcap_channel_number *)c->message_indexes.data + k->first_index,
                         *told =
                             dj__arena_copy(&c->arena, ci->offsets, ci->n_offsets * sizeof *told);
  if (!told) return false;
  qsort(there, k->n_index, sizeof *there, by_channel_and_value);
  qsort(told, k->n_index, sizeof *told, by_channel_and_value);
  for (size_t i = 0; i < k->n_index; i++)
    if (by_channel_and_value(&there[i], &told[i])) return false;
  return true;
}

static void differ(dj__check *c, uint64_t at, const char *record, const char *field, uint64_t told,
                   uint64_t there) {
  if (told != there)
    dj__check_problem(c, at, "%s: %s is %" PRIu64 ", it should be %" PRIu64, record, field, told,
                      there);
}

static void check_chunk_index(dj__check *c, const dj_mcap_record *r) {
  const dj_mcap_chunk_index *ci = &r->u.chunk_index;
  dj__check_chunk *k = find_at(&c->chunks, sizeof *k, ci->chunk_offset);
  if (!k || k->listed) {
    dj__check_problem(c, r->offset,
                      k ? "a second ChunkIndex for the chunk at byte %" PRIu64
                        : "a ChunkIndex points to byte %" PRIu64 ", where no chunk is",
                      ci->chunk_offset);
    return;
  }
  k->listed = true;
  differ(c, r->offset, "ChunkIndex", "chunk_length", ci->chunk_length, k->length);
  differ(c, r->offset, "ChunkIndex", "message_start_time", ci->start_time, k->start);
  differ(c, r->offset, "ChunkIndex", "message_end_time", ci->end_time, k->end);
  differ(c, r->offset, "ChunkIndex", "compressed_size", ci->compressed_size, k->compressed);
  differ(c, r->offset, "ChunkIndex", "uncompressed_size", ci->uncompressed_size, k->uncompressed);
  differ(c, r->offset, "ChunkIndex", "message_index_length", ci->message_index_length,
         k->index_length);
  if (strncmp(ci->compression, k->compression, sizeof k->compression - 1) != 0)
    dj__check_problem(c, r->offset, "ChunkIndex: compression is \"%.32s\", the chunk says \"%s\"",
                      ci->compression, k->compression);
  if (!same_offsets(c, ci, k))
    dj__check_problem(c, r->offset,
                      "ChunkIndex: its %zu message index offsets are not those of the %zu records "
                      "behind the chunk at byte %" PRIu64,
                      ci->n_offsets, k->n_index, k->offset);
}

static uint32_t digest_text(uint32_t crc, const char *s) {
  return dj__crc32(crc, s, strlen(s) + 1);
}

// The noted record an index entry points to; NULL after telling.
static dj__check_extra *pointed_to(dj__check *c, const dj__check_list *l, const char *what,
                                   uint64_t at, uint64_t offset) {
  dj__check_extra *e = find_at(l, sizeof *e, offset);
  if (!e || e->listed) {
    dj__check_problem(c, at,
                      e ? "a second %s for byte %" PRIu64
                        : "a %s points to byte %" PRIu64 ", where no such record is",
                      what, offset);
    return NULL;
  }
  e->listed = true;
  return e;
}

static void check_attachment_index(dj__check *c, const dj_mcap_record *r) {
  const dj_mcap_attachment_index *a = &r->u.attachment_index;
  const dj__check_extra *e =
      pointed_to(c, &c->attachments, "AttachmentIndex", r->offset, a->offset);
  if (!e) return;
  differ(c, r->offset, "AttachmentIndex", "length", a->length, e->length);
  differ(c, r->offset, "AttachmentIndex", "log_time", a->log_time, e->log_time);
  differ(c, r->offset, "AttachmentIndex", "create_time", a->create_time, e->create_time);
  differ(c, r->offset, "AttachmentIndex", "data_size", a->data_size, e->size);
  if (digest_text(digest_text(0, a->name), a->media_type) != e->names)
    dj__check_problem(c, r->offset,
                      "AttachmentIndex: name or media type (\"%.64s\", \"%.64s\") is not the "
                      "attachment's",
                      a->name, a->media_type);
}

static void check_metadata_index(dj__check *c, const dj_mcap_record *r) {
  const dj_mcap_metadata_index *m = &r->u.metadata_index;
  const dj__check_extra *e = pointed_to(c, &c->metadata, "MetadataIndex", r->offset, m->offset);
  if (!e) return;
  differ(c, r->offset, "MetadataIndex", "length", m->length, e->length);
  if (digest_text(0, m->name) != e->names)
    dj__check_problem(c, r->offset, "MetadataIndex: name \"%.64s\" is not the record's", m->name);
}

static void check_statistics(dj__check *c, const dj_mcap_record *r) {
  const dj_mcap_statistics *s = &r->u.statistics;
  const dj_mcap_check_report *p = c->report;
  uint64_t at = r->offset;
  differ(c, at, "Statistics", "message_count", s->message_count, p->messages);
  differ(c, at, "Statistics", "schema_count", s->schema_count, c->n_schemas);
  differ(c, at, "Statistics", "channel_count", s->channel_count, c->n_channels);
  differ(c, at, "Statistics", "attachment_count", s->attachment_count, p->attachments);
  differ(c, at, "Statistics", "metadata_count", s->metadata_count, p->metadata);
  differ(c, at, "Statistics", "chunk_count", s->chunk_count, p->chunks);
  differ(c, at, "Statistics", "message_start_time", s->start_time, c->start);
  differ(c, at, "Statistics", "message_end_time", s->end_time, c->end);
  uint64_t sum = 0;
  bool good = true;
  for (size_t i = 0; i < s->n_channel_counts; i++) {
    const dj_mcap_channel_number *n = &s->channel_counts[i];
    uint64_t there = c->channels[n->channel_id].messages;
    if (n->value != there) {
      dj__check_problem(c, at,
                        "Statistics: channel %u has %" PRIu64 " messages, it should be %" PRIu64,
                        n->channel_id, n->value, there);
      good = false;
    }
    sum += n->value;
  }
  if (good && s->n_channel_counts) // an empty map means: not counted
    differ(c, at, "Statistics", "the sum of channel_message_counts", sum, p->messages);
}

// ---- groups and summary offsets ----

static dj_status note_group(dj__check *c, const dj_mcap_record *r) {
  dj__check_group *g = c->groups.data, *last = c->groups.n ? g + c->groups.n - 1 : NULL;
  if (last && last->opcode == r->opcode) {
    last->length += r->length;
    return DJ_OK;
  }
  for (size_t i = 0; last && i < c->groups.n; i++)
    if (g[i].opcode == r->opcode) {
      if (!g[i].listed)
        dj__check_problem(c, r->offset, "the %s records of the summary are not together",
                          dj_mcap_op_name(r->opcode));
      g[i].listed = true; // told once
      return DJ_OK;
    }
  return dj__check_push(
      &c->groups, &(dj__check_group){.opcode = r->opcode, .start = r->offset, .length = r->length},
      sizeof *g);
}

static void check_summary_offset(dj__check *c, const dj_mcap_record *r) {
  const dj_mcap_summary_offset *o = &r->u.summary_offset;
  const dj__check_group *g = c->groups.data;
  for (size_t i = 0; i < c->groups.n; i++) {
    if (g[i].opcode != o->group_opcode) continue;
    differ(c, r->offset, "SummaryOffset", "group_start", o->group_start, g[i].start);
    differ(c, r->offset, "SummaryOffset", "group_length", o->group_length, g[i].length);
    return;
  }
  if (!o->group_length && o->group_start <= r->offset) return; // an empty group: some write those
  dj__check_problem(c, r->offset, "a SummaryOffset for %s records, of which the summary has none",
                    dj_mcap_op_name(o->group_opcode));
}

static dj_status check_summary_record(dj__check *c, const dj_mcap_record *r) {
  switch (r->opcode) {
  case DJ_MCAP_SCHEMA:
    dj__check_schema(c, &r->u.schema, r->offset, true);
    break;
  case DJ_MCAP_CHANNEL:
    dj__check_channel(c, &r->u.channel, r->offset, true);
    break;
  case DJ_MCAP_STATISTICS:
    check_statistics(c, r);
    break;
  case DJ_MCAP_CHUNK_INDEX:
    check_chunk_index(c, r);
    break;
  case DJ_MCAP_ATTACHMENT_INDEX:
    check_attachment_index(c, r);
    break;
  case DJ_MCAP_METADATA_INDEX:
    check_metadata_index(c, r);
    break;
  case DJ_MCAP_SUMMARY_OFFSET:
    check_summary_offset(c, r);
    return DJ_OK;
  case DJ_MCAP_HEADER:
  case DJ_MCAP_FOOTER:
  case DJ_MCAP_MESSAGE:
  case DJ_MCAP_CHUNK:
  case DJ_MCAP_MESSAGE_INDEX:
  case DJ_MCAP_ATTACHMENT:
  case DJ_MCAP_METADATA:
  case DJ_MCAP_DATA_END:
    dj__check_problem(c, r->offset, "a %s in the summary", dj_mcap_op_name(r->opcode));
    return DJ_OK;
  default:
    return DJ_OK;
  }
  return note_group(c, r);
}

// ---- what nothing points to ----

static void unlisted(dj__check *c, const dj__check_list *l, const char *what, const char *index) {
  const dj__check_extra *e = l->data;
  size_t listed = 0;
  for (size_t i = 0; i < l->n; i++) listed += e[i].listed;
  if (!listed) return; // the index was left out, as it may be
  for (size_t i = 0; i < l->n; i++)
    if (!e[i].listed) dj__check_problem(c, e[i].offset, "%s is not in the %s", what, index);
}

static void unlisted_chunks(dj__check *c) {
  const dj__check_chunk *k = c->chunks.data;
  size_t listed = 0;
  for (size_t i = 0; i < c->chunks.n; i++) listed += k[i].listed;
  if (!listed) return;
  for (size_t i = 0; i < c->chunks.n; i++)
    if (!k[i].listed) dj__check_problem(c, k[i].offset, "this chunk is not in the chunk index");
}

// ---- footer ----

/* Where the footer stands by the file's size; false after telling that it does not. */
static bool find_footer(dj__check *c, uint64_t at, uint64_t *footer) {
  const uint64_t tail = DJ__MCAP_FRAME + DJ__MCAP_FOOTER + DJ__MCAP_MAGIC;
  if (c->size - at < tail ||
      memcmp(c->data + c->size - DJ__MCAP_MAGIC, dj__mcap_magic, DJ__MCAP_MAGIC) != 0) {
    dj__check_problem(c, c->size, "the file does not end with the MCAP magic: it is cut");
    return false;
  }
  *footer = c->size - tail;
  if (c->data[*footer] == DJ_MCAP_FOOTER && dj__mcap_u64(c->data + *footer + 1) == DJ__MCAP_FOOTER)
    return true;
  dj__check_problem(c, *footer, "a Footer should be here");
  return false;
}

// `offsets`: where the summary offsets begin; not known unless the summary was `whole`.
static void check_footer(dj__check *c, uint64_t footer_at, uint64_t summary, uint64_t offsets,
                         bool whole) {
  const unsigned char *p = c->data + footer_at + DJ__MCAP_FRAME;
  uint32_t told = dj__mcap_u32(p + 16);
  differ(c, footer_at, "Footer", "summary_start", dj__mcap_u64(p),
         summary < footer_at ? summary : 0);
  uint64_t told_offsets = dj__mcap_u64(p + 8);
  bool empty = !offsets && told_offsets == footer_at; // a section without any: some write that
  if (whole && !empty)
    differ(c, footer_at, "Footer", "summary_offset_start", told_offsets, offsets);
  if (!told || c->limits.skip_crc) return;
  uint32_t crc = dj__crc32(0, c->data + summary, (size_t)(footer_at - summary) + 25);
  if (crc != told)
    dj__check_problem(c, footer_at,
                      "the CRC of the summary is %08" PRIx32 ", its bytes have %08" PRIx32, told,
                      crc);
}

dj_status dj__check_summary(dj__check *c, uint64_t at) {
  uint64_t footer = 0, offsets = 0, start = at;
  if (!find_footer(c, at, &footer)) return DJ_OK;
  bool whole = true;
  while (at < footer && whole) {
    dj_mcap_record r;
    const unsigned char *body;
    bool good;
    DJ_TRY(dj__check_next(c, at, footer, &r, &body, &whole, &good));
    if (!whole) break;
    if (r.opcode == DJ_MCAP_SUMMARY_OFFSET) {
      if (!offsets) offsets = at;
    } else if (offsets) {
      dj__check_problem(c, at, "a %s behind the summary offsets", dj_mcap_op_name(r.opcode));
    }
    if (good) DJ_TRY(check_summary_record(c, &r));
    at += r.length;
  }
  if (whole) {
    c->report->records++; // the footer itself
    unlisted_chunks(c);
    unlisted(c, &c->attachments, "this attachment", "attachment index");
    unlisted(c, &c->metadata, "this metadata record", "metadata index");
  }
  check_footer(c, footer, start, offsets, whole);
  return DJ_OK;
}
