/*
 * MCAP: the container of our drive logs (https://mcap.dev/spec). A reader, a writer, a streamed
 * reader, a checker and a rescuer, usable on their own: this header needs nothing else of Dojo but
 * dojo/status.h.
 *
 * Writing:
 *
 *     dj_mcap_writer *w;
 *     uint16_t schema, channel;
 *     DJ_TRY(dj_mcap_writer_open("drive.mcap", &(dj_mcap_options){.compression = DJ_MCAP_ZSTD},
 * &w)); DJ_TRY(dj_mcap_add_schema(w, "example.Speed", "jsonschema", "{}", 2, &schema));
 *     DJ_TRY(dj_mcap_add_channel(w, schema, "/speed", "json", NULL, 0, &channel));
 *     DJ_TRY(dj_mcap_write(w, &(dj_mcap_message){.channel_id = channel, .log_time = 1000,
 *                                                .publish_time = 1000, .data = "{\"v\":1}", .size =
 * 7})); DJ_TRY(dj_mcap_writer_close(w));      // only now is drive.mcap there, whole and on disk
 *
 * (On an error call dj_mcap_writer_abort(w): nothing is left behind.)
 *
 * Reading in log-time order, only one topic:
 *
 *     dj_mcap *m;
 *     dj_mcap_iter *it;
 *     dj_mcap_message msg;
 *     bool more;
 *     const char *topics[] = {"/speed"};
 *     DJ_TRY(dj_mcap_open("drive.mcap", NULL, &m));
 *     DJ_TRY(dj_mcap_iter_open(m, &(dj_mcap_query){.topics = topics, .n_topics = 1}, &it));
 *     while (!(s = dj_mcap_iter_next(it, &msg, &more)) && more) use(msg.log_time, msg.data,
 * msg.size); dj_mcap_iter_close(it); dj_mcap_close(m);
 *
 * Message k of a channel:
 *
 *     const dj_mcap_channel *c = dj_mcap_channel_by_topic(m, "/camera/front/image");
 *     DJ_TRY(dj_mcap_channel_entries(m, c->id, &entries, &n));  // n messages, in log-time order
 *     DJ_TRY(dj_mcap_read_message(m, &entries[k], &msg));
 *
 * Rules that hold everywhere here: times are nanoseconds; strings are UTF-8, NUL-terminated and
 * without NUL inside; sizes and offsets are bytes; ids of channels and schemas are 16 bits, schema
 * 0 means "no schema". One object is used by one thread at a time; open a file several times to
 * read it from several threads. Input may be hostile: every size is checked before memory is taken,
 * and what is taken stays below the dj_mcap_limits.
 */
#ifndef DOJO_MCAP_H
#define DOJO_MCAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dojo/status.h"

/* ---- records ---- */

/* Opcodes (MCAP spec). Records with other opcodes are skipped when read. */
typedef enum dj_mcap_op {
  DJ_MCAP_HEADER = 0x01,
  DJ_MCAP_FOOTER = 0x02,
  DJ_MCAP_SCHEMA = 0x03,
  DJ_MCAP_CHANNEL = 0x04,
  DJ_MCAP_MESSAGE = 0x05,
  DJ_MCAP_CHUNK = 0x06,
  DJ_MCAP_MESSAGE_INDEX = 0x07,
  DJ_MCAP_CHUNK_INDEX = 0x08,
  DJ_MCAP_ATTACHMENT = 0x09,
  DJ_MCAP_ATTACHMENT_INDEX = 0x0A,
  DJ_MCAP_STATISTICS = 0x0B,
  DJ_MCAP_METADATA = 0x0C,
  DJ_MCAP_METADATA_INDEX = 0x0D,
  DJ_MCAP_SUMMARY_OFFSET = 0x0E,
  DJ_MCAP_DATA_END = 0x0F
} dj_mcap_op;
/* "Header", "Footer", ...; "unknown" for others. */
const char *dj_mcap_op_name(uint8_t opcode);

typedef enum dj_mcap_compression { DJ_MCAP_NONE, DJ_MCAP_LZ4, DJ_MCAP_ZSTD } dj_mcap_compression;

typedef struct dj_mcap_pair {
  const char *key, *value;
} dj_mcap_pair;

typedef struct dj_mcap_header {
  const char *profile, *library;
} dj_mcap_header;

typedef struct dj_mcap_footer {
  uint64_t summary_start, summary_offset_start; /* 0: there is none */
  uint32_t summary_crc;                         /* 0: not computed */
} dj_mcap_footer;

typedef struct dj_mcap_schema {
  uint16_t id; /* never 0 */
  const char *name, *encoding;
  const void *data;
  size_t size;
} dj_mcap_schema;

typedef struct dj_mcap_channel {
  uint16_t id, schema_id; /* schema_id 0: no schema */
  const char *topic, *message_encoding;
  const dj_mcap_pair *metadata;
  size_t n_metadata;
} dj_mcap_channel;

typedef struct dj_mcap_message {
  uint16_t channel_id;
  uint32_t sequence;
  uint64_t log_time, publish_time; /* ns */
  const void *data;
  size_t size;
} dj_mcap_message;

typedef struct dj_mcap_chunk {
  uint64_t start_time, end_time; /* ns; both 0 without messages */
  uint64_t uncompressed_size;
  uint32_t uncompressed_crc; /* 0: not computed */
  const char *compression;   /* "", "lz4", "zstd" */
  const void *records;       /* as stored */
  uint64_t records_size;
} dj_mcap_chunk;

typedef struct dj_mcap_index_entry {
  uint64_t log_time, offset; /* offset into the chunk's uncompressed records */
} dj_mcap_index_entry;

typedef struct dj_mcap_message_index {
  uint16_t channel_id;
  const dj_mcap_index_entry *entries;
  size_t n;
} dj_mcap_message_index;

typedef struct dj_mcap_channel_number {
  uint16_t channel_id;
  uint64_t value; /* an offset in the file, or a count */
} dj_mcap_channel_number;

typedef struct dj_mcap_chunk_index {
  uint64_t start_time, end_time;         /* ns */
  uint64_t chunk_offset, chunk_length;   /* the whole Chunk record in the file */
  const dj_mcap_channel_number *offsets; /* of the MessageIndex records in the file */
  size_t n_offsets;
  uint64_t message_index_length;
  const char *compression;
  uint64_t compressed_size, uncompressed_size;
} dj_mcap_chunk_index;

typedef struct dj_mcap_attachment {
  uint64_t log_time, create_time; /* ns */
  const char *name, *media_type;
  const void *data;
  size_t size;
  uint32_t crc; /* when read: as stored, 0 = not computed; when written: ignored */
} dj_mcap_attachment;

typedef struct dj_mcap_attachment_index {
  uint64_t offset, length; /* the whole record in the file */
  uint64_t log_time, create_time, data_size;
  const char *name, *media_type;
} dj_mcap_attachment_index;

typedef struct dj_mcap_statistics {
  uint64_t message_count;
  uint16_t schema_count;
  uint32_t channel_count, attachment_count, metadata_count, chunk_count;
  uint64_t start_time, end_time; /* of the messages; both 0 without any */
  const dj_mcap_channel_number *channel_counts;
  size_t n_channel_counts;
} dj_mcap_statistics;

typedef struct dj_mcap_metadata {
  const char *name;
  const dj_mcap_pair *pairs;
  size_t n;
} dj_mcap_metadata;

typedef struct dj_mcap_metadata_index {
  uint64_t offset, length; /* the whole record in the file */
  const char *name;
} dj_mcap_metadata_index;

typedef struct dj_mcap_summary_offset {
  uint8_t group_opcode;
  uint64_t group_start, group_length;
} dj_mcap_summary_offset;

typedef struct dj_mcap_data_end {
  uint32_t data_section_crc; /* 0: not computed */
} dj_mcap_data_end;

/* One record of any kind; `opcode` says which member holds. */
typedef struct dj_mcap_record {
  uint8_t opcode;
  bool in_chunk;
  uint64_t offset; /* in the file; with in_chunk: into the uncompressed records of the chunk */
  uint64_t length; /* with opcode and length field */
  uint64_t chunk_offset; /* with in_chunk: the Chunk record in the file */
  union {
    dj_mcap_header header;
    dj_mcap_footer footer;
    dj_mcap_schema schema;
    dj_mcap_channel channel;
    dj_mcap_message message;
    dj_mcap_chunk chunk;
    dj_mcap_message_index message_index;
    dj_mcap_chunk_index chunk_index;
    dj_mcap_attachment attachment;
    dj_mcap_attachment_index attachment_index;
    dj_mcap_statistics statistics;
    dj_mcap_metadata metadata;
    dj_mcap_metadata_index metadata_index;
    dj_mcap_summary_offset summary_offset;
    dj_mcap_data_end data_end;
  } u;
} dj_mcap_record;

/* What a reader may take of memory, and whether it checks. All zero: the defaults. A reader holds
 * at most 4 * max_chunk of uncompressed records, however many chunks overlap in time. */
typedef struct dj_mcap_limits {
  uint64_t max_chunk;  /* uncompressed records of one chunk; 0: 256 MiB */
  uint64_t max_record; /* one record that has to be copied (streamed reading); 0: 512 MiB */
  uint64_t max_index;  /* lists of where messages lie; 0: 2 GiB */
  bool skip_crc;       /* do not verify CRCs */
} dj_mcap_limits;

/* ---- writing ---- */

/* Parts of the file that a writer can leave out. */
enum {
  DJ_MCAP_OMIT_CHUNKS = 1 << 0, /* messages straight into the data section, without an index */
  DJ_MCAP_OMIT_MESSAGE_INDEX = 1 << 1,
  DJ_MCAP_OMIT_CHUNK_INDEX = 1 << 2,
  DJ_MCAP_OMIT_STATISTICS = 1 << 3,
  DJ_MCAP_OMIT_REPEATED_SCHEMAS = 1 << 4, /* the copies in the summary */
  DJ_MCAP_OMIT_REPEATED_CHANNELS = 1 << 5,
  DJ_MCAP_OMIT_ATTACHMENT_INDEX = 1 << 6,
  DJ_MCAP_OMIT_METADATA_INDEX = 1 << 7,
  DJ_MCAP_OMIT_SUMMARY_OFFSETS = 1 << 8,
  DJ_MCAP_OMIT_CRC = 1 << 9 /* all CRC fields are 0 */
};

/* All zero: uncompressed chunks of 1 MiB, with every index and CRC. */
typedef struct dj_mcap_options {
  const char *profile, *library;   /* NULL: "" and "libdojo" */
  dj_mcap_compression compression; /* of chunks; a chunk that does not shrink is stored plain */
  int level;                       /* of the compressor; 0: its default */
  uint64_t chunk_size;             /* a chunk is closed when it holds this much; 0: 1 MiB */
  uint32_t omit;                   /* DJ_MCAP_OMIT_ bits */
  int padding; /* 0..255 bytes (1, 255, 255, ...) behind every record that may be extended: for
                  tests of readers */
} dj_mcap_options;

typedef struct dj_mcap_writer dj_mcap_writer;

/* Starts a log under a temporary name beside `path`. `o` may be NULL. Errors: DJ_E_IO,
 * DJ_E_NO_SPACE, DJ_E_INVALID (options). */
dj_status dj_mcap_writer_open(const char *path, const dj_mcap_options *o, dj_mcap_writer **w);
/* Writes to memory; take it with dj_mcap_writer_close_memory. */
dj_status dj_mcap_writer_open_memory(const dj_mcap_options *o, dj_mcap_writer **w);
/* Adds a schema, or finds the equal one added before. At most 65535. */
dj_status dj_mcap_add_schema(dj_mcap_writer *w, const char *name, const char *encoding,
                             const void *data, size_t size, uint16_t *id);
/* Adds a channel, or finds the equal one added before. `schema_id` 0: none. `metadata` is copied.
 */
dj_status dj_mcap_add_channel(dj_mcap_writer *w, uint16_t schema_id, const char *topic,
                              const char *message_encoding, const dj_mcap_pair *metadata,
                              size_t n_metadata, uint16_t *id);
/* Appends a message; its data is copied (or written) before the call returns. Any order of times is
 * allowed; readers give messages by log time. */
dj_status dj_mcap_write(dj_mcap_writer *w, const dj_mcap_message *m);
dj_status dj_mcap_write_attachment(dj_mcap_writer *w, const dj_mcap_attachment *a);
dj_status dj_mcap_write_metadata(dj_mcap_writer *w, const char *name, const dj_mcap_pair *pairs,
                                 size_t n);
/* Ends the current chunk now (a chunk then begins at a place of the caller's choice). */
dj_status dj_mcap_end_chunk(dj_mcap_writer *w);
/* Writes the summary and commits; frees `w` in any case. On an error nothing is left at `path`
 * but what was there before. */
dj_status dj_mcap_writer_close(dj_mcap_writer *w);
/* The same for a writer to memory: free(*data). */
dj_status dj_mcap_writer_close_memory(dj_mcap_writer *w, void **data, size_t *size);
void dj_mcap_writer_abort(dj_mcap_writer *w); /* frees, leaves nothing behind; NULL is fine */

/* ---- reading through the index ---- */
typedef struct dj_mcap dj_mcap;

/* Maps a file and reads its summary. What the summary lacks (a file without one, or without chunk
 * index, channels, ...) is found by a scan of the data section. `l` may be NULL. Errors:
 * DJ_E_FORMAT with the byte offset, for a cut file too (dj_mcap_recover mends those), DJ_E_LIMIT,
 * DJ_E_IO. */
dj_status dj_mcap_open(const char *path, const dj_mcap_limits *l, dj_mcap **m);
/* Reads from memory that the caller keeps until dj_mcap_close. `name` is for messages. */
dj_status dj_mcap_open_memory(const char *name, const void *data, size_t size,
                              const dj_mcap_limits *l, dj_mcap **m);
void dj_mcap_close(dj_mcap *m); /* NULL is fine */

/* What is handed out belongs to `m`. Arrays of records are in file order; the ones by id and topic
 * are NULL where there is none (the first one where there are several). */
const dj_mcap_header *dj_mcap_get_header(const dj_mcap *m);
const dj_mcap_footer *dj_mcap_get_footer(const dj_mcap *m);
const dj_mcap_statistics *dj_mcap_get_statistics(const dj_mcap *m); /* NULL: the file has none */
const dj_mcap_schema *dj_mcap_schemas(const dj_mcap *m, size_t *n);
const dj_mcap_channel *dj_mcap_channels(const dj_mcap *m, size_t *n);
const dj_mcap_chunk_index *dj_mcap_chunks(const dj_mcap *m, size_t *n);
const dj_mcap_attachment_index *dj_mcap_attachments(const dj_mcap *m, size_t *n);
const dj_mcap_metadata_index *dj_mcap_metadata_list(const dj_mcap *m, size_t *n);
const dj_mcap_schema *dj_mcap_schema_by_id(const dj_mcap *m, uint16_t id);
const dj_mcap_channel *dj_mcap_channel_by_id(const dj_mcap *m, uint16_t id);
const dj_mcap_channel *dj_mcap_channel_by_topic(const dj_mcap *m, const char *topic);

/* Attachment and metadata records; valid until dj_mcap_close. */
dj_status dj_mcap_read_attachment(dj_mcap *m, size_t index, dj_mcap_attachment *a);
dj_status dj_mcap_read_metadata(dj_mcap *m, size_t index, dj_mcap_metadata *md);
/* The first metadata record of that name. DJ_E_NOT_FOUND where there is none. */
dj_status dj_mcap_find_metadata(dj_mcap *m, const char *name, dj_mcap_metadata *md);
/* Value of a key, or NULL. */
const char *dj_mcap_pair_value(const dj_mcap_pair *pairs, size_t n, const char *key);

/* Where a message lies. */
typedef struct dj_mcap_entry {
  uint64_t log_time;
  uint64_t offset; /* into the chunk's uncompressed records, or in the file */
  uint32_t chunk;  /* index into dj_mcap_chunks, or DJ_MCAP_NO_CHUNK */
  uint16_t channel_id;
} dj_mcap_entry;
#define DJ_MCAP_NO_CHUNK UINT32_MAX

/* All messages of a channel by log time (equal times: file order). Made on the first call, from the
 * message indexes alone where the file has them. An unknown channel is DJ_E_NOT_FOUND. */
dj_status dj_mcap_channel_entries(dj_mcap *m, uint16_t channel_id, const dj_mcap_entry **entries,
                                  size_t *n);
/* Reads one message. Its data points into the map or into a cached chunk: valid until 3 other
 * chunks have been read through `m`, or until dj_mcap_close. */
dj_status dj_mcap_read_message(dj_mcap *m, const dj_mcap_entry *e, dj_mcap_message *msg);

/* Which messages to give. All zero: all. */
typedef struct dj_mcap_query {
  const char *const *topics; /* NULL: all; a topic that the file lacks matches nothing */
  int n_topics;
  uint64_t start;  /* first log time wanted */
  uint64_t end;    /* log times < end; 0: no end */
  bool file_order; /* as they lie in the file rather than by log time */
} dj_mcap_query;

typedef struct dj_mcap_iter dj_mcap_iter;
dj_status dj_mcap_iter_open(dj_mcap *m, const dj_mcap_query *q, dj_mcap_iter **it);
/* Next message; `*more` is false at the end. The data is valid until the next call. Chunks whose
 * times lie apart are read once, one after another; only overlapping ones are held together. */
dj_status dj_mcap_iter_next(dj_mcap_iter *it, dj_mcap_message *msg, bool *more);
void dj_mcap_iter_close(dj_mcap_iter *it); /* before dj_mcap_close; NULL is fine */

/* ---- streamed reading: record after record, from a pipe too; needs no summary ---- */

/* Fills up to n bytes; *got = 0 is the end. An error status ends the reading. */
typedef dj_status dj_mcap_read_fn(void *user, void *buf, size_t n, size_t *got);

typedef struct dj_mcap_stream dj_mcap_stream;
/* `raw_chunks`: give Chunk records as they are; otherwise the records within them, and no Chunk. */
dj_status dj_mcap_stream_open(dj_mcap_read_fn *read, void *user, const dj_mcap_limits *l,
                              bool raw_chunks, dj_mcap_stream **s);
dj_status dj_mcap_stream_open_memory(const void *data, size_t size, const dj_mcap_limits *l,
                                     bool raw_chunks, dj_mcap_stream **s);
/* Next record, valid until the next call; `*more` is false behind the closing magic. A cut or
 * broken file is DJ_E_FORMAT with its byte offset. */
dj_status dj_mcap_stream_next(dj_mcap_stream *s, dj_mcap_record *r, bool *more);
void dj_mcap_stream_close(dj_mcap_stream *s); /* NULL is fine */

/* ---- checking and rescue ---- */

/* Called for each of the first DJ_MCAP_MAX_TOLD problems; `offset` is where in the file (of the
 * chunk, for what lies in one). */
#define DJ_MCAP_MAX_TOLD 1000
typedef void dj_mcap_problem_fn(void *user, uint64_t offset, const char *text);

typedef struct dj_mcap_check_report {
  uint64_t bytes, records, messages, chunks, attachments, metadata;
  uint64_t problems; /* all of them, also those beyond what was told */
} dj_mcap_check_report;
/* Reads everything once: structure, CRCs, indexes against what they point to, times, statistics,
 * summary. Problems are no error of the call: DJ_OK with report->problems > 0. */
dj_status dj_mcap_check(const char *path, const dj_mcap_limits *l, dj_mcap_problem_fn *problem,
                        void *user, dj_mcap_check_report *report);
dj_status dj_mcap_check_memory(const void *data, size_t size, const dj_mcap_limits *l,
                               dj_mcap_problem_fn *problem, void *user,
                               dj_mcap_check_report *report);

typedef struct dj_mcap_recover_report {
  uint64_t bytes_in, bytes_lost; /* lost: in records that could not be read, or could in part */
  uint64_t chunks_saved, chunks_lost; /* lost: wholly or in part */
  uint64_t messages_saved;
  uint64_t messages_lost; /* as far as summary and indexes tell */
  uint64_t attachments_saved, attachments_lost, metadata_saved;
  bool complete; /* nothing is lost: all could be read, up to the end of the data section */
} dj_mcap_recover_report;
/* Copies every complete chunk and record of a cut or damaged file to a new, well-formed one
 * (written to a temporary name first; `out` may not be `in`, by whatever name). Chunks are taken
 * over as they are; of a cut one the messages up to the cut are kept. A channel whose definition is
 * lost is kept as "recovered/channel-ID". `problem` and `report` may be NULL. DJ_E_FORMAT when the
 * file does not begin as MCAP and no chunk is found in it. */
dj_status dj_mcap_recover(const char *in, const char *out, const dj_mcap_limits *l,
                          dj_mcap_problem_fn *problem, void *user, dj_mcap_recover_report *report);
/* The same in memory: free(*out). */
dj_status dj_mcap_recover_memory(const char *name, const void *data, size_t size,
                                 const dj_mcap_limits *l, dj_mcap_problem_fn *problem, void *user,
                                 dj_mcap_recover_report *report, void **out, size_t *out_size);

#endif
