/* What the two halves of the MCAP checker share: mcap_check.c walks the data section and notes what
 * is there, mcap_check_summary.c holds summary and footer against it. */
#ifndef DOJO_FLEET_MCAP_CHECK_H
#define DOJO_FLEET_MCAP_CHECK_H

#include "fleet/mcap_wire.h"

typedef struct dj__check_list {
  void *data;
  size_t n, cap;
} dj__check_list;

typedef struct dj__check_definition { // of a schema or channel, by id
  bool seen;
  uint32_t digest;
  uint64_t messages; // of a channel
} dj__check_definition;

typedef struct dj__check_place { // a message in the present chunk
  uint16_t channel_id;
  bool indexed; // on the first one of a channel: a MessageIndex was there
  uint64_t log_time, offset;
} dj__check_place;

typedef struct dj__check_chunk {
  uint64_t offset, length, start, end, compressed, uncompressed;
  char compression[8];         // cut when longer, which no known one is
  bool looked_into;            // its records could be read
  bool listed;                 // a ChunkIndex was there
  size_t first_index, n_index; // in message_indexes
  uint64_t index_length;       // bytes of them
} dj__check_chunk;

typedef struct dj__check_extra { // an attachment or metadata record
  uint64_t offset, length, log_time, create_time, size;
  uint32_t names; // CRC of name and media type
  bool listed;
} dj__check_extra;

typedef struct dj__check_group { // records of one kind in the summary
  uint8_t opcode;
  bool listed;
  uint64_t start, length;
} dj__check_group;

typedef struct dj__check {
  const unsigned char *data;
  uint64_t size;
  dj_mcap_limits limits;
  dj_mcap_problem_fn *problem;
  void *user;
  dj_mcap_check_report *report;
  dj__check_definition *schemas, *channels; // (65536)
  uint64_t n_schemas, n_channels, start, end;
  dj__check_list chunks;          // dj__check_chunk by offset
  dj__check_list message_indexes; // dj_mcap_channel_number: channel and offset
  dj__check_list inside;          // dj__check_place by channel and offset
  dj__check_list attachments;     // dj__check_extra by offset
  dj__check_list metadata;        // dj__check_extra by offset
  dj__check_list groups;          // dj__check_group by offset
  bool behind_chunk;              // only MessageIndex records since the last chunk
  dj__buf chunk;
  dj__arena arena; // strings of the present record
  dj__mcap_codec codec;
} dj__check;

void dj__check_problem(dj__check *c, uint64_t offset, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
dj_status dj__check_push(dj__check_list *l, const void *item, size_t size);

/* A definition; `repeated`: in the summary. */
void dj__check_schema(dj__check *c, const dj_mcap_schema *s, uint64_t at, bool repeated);
void dj__check_channel(dj__check *c, const dj_mcap_channel *ch, uint64_t at, bool repeated);

/* The record at `at`, which ends at or before `end`. Not framed, or framed and not good: a problem
 * was told. Its strings live until the next call. */
dj_status dj__check_next(dj__check *c, uint64_t at, uint64_t end, dj_mcap_record *r,
                         const unsigned char **body, bool *framed, bool *good);

/* Everything behind DataEnd, which ends at `at`. */
dj_status dj__check_summary(dj__check *c, uint64_t at);

#endif
