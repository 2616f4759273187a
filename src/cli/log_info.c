/*
 * dojo log info: what a log holds, from its summary and message indexes; nothing is uncompressed
 * where these are there. Per channel it gives the rate over the channel's own time and the longest
 * gap between two messages, which is what tells a camera that dropped frames.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/fs.h"
#include "cli/cli.h"
#include "cli/log.h"
#include "cli/log_json.h"
#include "dojo/mcap.h"

static const char HELP[] =
    "Usage: dojo log info FILE.mcap... [--json]\n\n"
    "Tells what a log holds: profile, library, time range, channels with their schema, message\n"
    "count, rate and longest gap between two messages, chunks and how well they compress,\n"
    "attachments, metadata. Reads the summary and the indexes, not the messages.\n\n"
    "Example:\n"
    "  dojo log info S/logs/tub-1.mcap\n"
    "  dojo log info --json S/logs/tub-1.mcap | jq '.channels[].rate_hz'\n";

/* Above this many messages their index (24 bytes each) is not made only to tell rates. */
static const uint64_t MAX_INDEXED = 50000000;

typedef struct channel_info {
  const dj_mcap_channel *def;
  const dj_mcap_schema *schema;        // NULL: none
  uint64_t messages, first, last, gap; // ns; of two messages or more
  bool timed;                          // first, last, gap are known
} channel_info;

typedef struct chunk_info { // chunks of one compression
  const char *compression;
  uint64_t n, packed, plain;
} chunk_info;

typedef struct info {
  const char *path;
  dj_mcap *m;
  uint64_t bytes, messages, start, end;
  channel_info *channels;
  size_t n_channels;
  chunk_info chunks[3];
  size_t n_chunk_infos, n_chunks, largest_chunk;
} info;

static uint64_t told_count(const dj_mcap_statistics *st, uint16_t id) {
  for (size_t i = 0; i < st->n_channel_counts; i++)
    if (st->channel_counts[i].channel_id == id) return st->channel_counts[i].value;
  return 0;
}

static dj_status time_channel(dj_mcap *m, channel_info *c) {
  const dj_mcap_entry *e;
  size_t n;
  DJ_TRY(dj_mcap_channel_entries(m, c->def->id, &e, &n));
  c->timed = true;
  c->messages = n;
  if (n) {
    c->first = e[0].log_time;
    c->last = e[n - 1].log_time;
  }
  for (size_t i = 1; i < n; i++) {
    uint64_t gap = e[i].log_time - e[i - 1].log_time;
    if (gap > c->gap) c->gap = gap;
  }
  return DJ_OK;
}

static dj_status gather_channels(info *o) {
  const dj_mcap_statistics *st = dj_mcap_get_statistics(o->m);
  const dj_mcap_channel *defs = dj_mcap_channels(o->m, &o->n_channels);
  o->channels = calloc(o->n_channels + 1, sizeof *o->channels);
  if (!o->channels) return dj_error(DJ_E_NOMEM, "no memory for %zu channels", o->n_channels);
  bool by_index = !st || st->message_count <= MAX_INDEXED;
  bool any = false;
  for (size_t i = 0; i < o->n_channels; i++) {
    channel_info *c = &o->channels[i];
    c->def = &defs[i];
    c->schema = defs[i].schema_id ? dj_mcap_schema_by_id(o->m, defs[i].schema_id) : NULL;
    if (!by_index) {
      c->messages = told_count(st, defs[i].id);
      continue;
    }
    DJ_TRY(time_channel(o->m, c));
    o->messages += c->messages;
    if (!c->messages) continue;
    if (!any || c->first < o->start) o->start = c->first;
    if (!any || c->last > o->end) o->end = c->last;
    any = true;
  }
  if (!by_index) {
    o->messages = st->message_count;
    o->start = st->start_time;
    o->end = st->end_time;
  }
  return DJ_OK;
}

static void gather_chunks(info *o) {
  static const char *const kinds[] = {"", "lz4", "zstd"};
  const dj_mcap_chunk_index *c = dj_mcap_chunks(o->m, &o->n_chunks);
  for (size_t k = 0; k < 3; k++) {
    chunk_info sum = {.compression = kinds[k]};
    for (size_t i = 0; i < o->n_chunks; i++) {
      if (strcmp(c[i].compression, kinds[k]) != 0) continue;
      sum.n++;
      sum.packed += c[i].compressed_size;
      sum.plain += c[i].uncompressed_size;
      if (c[i].uncompressed_size > o->largest_chunk) o->largest_chunk = c[i].uncompressed_size;
    }
    if (sum.n) o->chunks[o->n_chunk_infos++] = sum;
  }
}

static dj_status gather(info *o, const char *path) {
  *o = (info){.path = path};
  DJ_TRY(dj_mcap_open(path, NULL, &o->m));
  int64_t size = dj__file_size(path);
  o->bytes = size < 0 ? 0 : (uint64_t)size;
  DJ_TRY(gather_channels(o));
  gather_chunks(o);
  return DJ_OK;
}

static void drop(info *o) {
  free(o->channels);
  dj_mcap_close(o->m);
}

// Messages a second between the first and the last; 0 where that says nothing.
static double rate(const channel_info *c) {
  return c->timed && c->messages > 1 && c->last > c->first
             ? (double)(c->messages - 1) * 1e9 / (double)(c->last - c->first)
             : 0;
}

static double ratio(const chunk_info *c) {
  return c->packed ? (double)c->plain / (double)c->packed : 1;
}

// ---- text ----

static const char *bytes_text(char to[32], uint64_t n) {
  static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double v = (double)n;
  int u = 0;
  for (; v >= 1024 && u < 6; u++) v /= 1024;
  (void)snprintf(to, 32, u ? "%.1f %s" : "%.0f %s", v, units[u]);
  return to;
}

// A date where the time can be one (after 1990), else seconds.
static const char *time_text(char to[64], uint64_t ns) {
  time_t s = (time_t)(ns / 1000000000);
  struct tm tm;
  char day[32];
  if (ns > UINT64_C(631152000) * 1000000000 && gmtime_r(&s, &tm) &&
      strftime(day, sizeof day, "%Y-%m-%d %H:%M:%S", &tm))
    (void)snprintf(to, 64, "%s.%06u UTC", day, (unsigned)(ns % 1000000000 / 1000));
  else
    (void)snprintf(to, 64, "%.6f s", (double)ns * 1e-9);
  return to;
}

static void print_channels(const info *o) {
  if (!o->n_channels) return;
  (void)printf("channels:     %zu\n", o->n_channels);
  (void)printf("  %5s  %-28s %9s %10s %12s  %s\n", "id", "topic", "messages", "rate", "longest gap",
               "schema (encoding)");
  for (size_t i = 0; i < o->n_channels; i++) {
    const channel_info *c = &o->channels[i];
    char topic[128], schema[128], encoding[32], hz[32] = "-", gap[32] = "-";
    if (rate(c) > 0) (void)snprintf(hz, sizeof hz, "%.2f Hz", rate(c));
    if (c->timed && c->messages > 1)
      (void)snprintf(gap, sizeof gap, "%.3f s", (double)c->gap * 1e-9);
    (void)printf("  %5u  %-28s %9" PRIu64 " %10s %12s  %s (%s)\n", c->def->id,
                 dj__printable(topic, sizeof topic, c->def->topic), c->messages, hz, gap,
                 c->schema ? dj__printable(schema, sizeof schema, c->schema->name) : "no schema",
                 dj__printable(encoding, sizeof encoding, c->def->message_encoding));
  }
}

static void print_chunks(const info *o) {
  char packed[32], plain[32];
  (void)printf("chunks:       %zu", o->n_chunks);
  if (o->n_chunks) (void)printf(", largest %s uncompressed", bytes_text(plain, o->largest_chunk));
  (void)puts("");
  for (size_t i = 0; i < o->n_chunk_infos; i++) {
    const chunk_info *c = &o->chunks[i];
    (void)printf("  %-8s %6" PRIu64 "   %s from %s (%.2f to 1)\n",
                 *c->compression ? c->compression : "plain", c->n, bytes_text(packed, c->packed),
                 bytes_text(plain, c->plain), ratio(c));
  }
}

static dj_status print_extras(const info *o) {
  size_t n;
  char name[128], type[64], size[32];
  const dj_mcap_attachment_index *a = dj_mcap_attachments(o->m, &n);
  (void)printf("attachments:  %zu\n", n);
  for (size_t i = 0; i < n; i++)
    (void)printf("  %-28s %s, %s\n", dj__printable(name, sizeof name, a[i].name),
                 dj__printable(type, sizeof type, a[i].media_type),
                 bytes_text(size, a[i].data_size));
  (void)dj_mcap_metadata_list(o->m, &n);
  (void)printf("metadata:     %zu\n", n);
  for (size_t i = 0; i < n; i++) {
    dj_mcap_metadata md;
    DJ_TRY(dj_mcap_read_metadata(o->m, i, &md));
    (void)printf("  %s\n", dj__printable(name, sizeof name, md.name));
    for (size_t k = 0; k < md.n; k++) {
      char key[64], value[160];
      (void)printf("    %-18s %s\n", dj__printable(key, sizeof key, md.pairs[k].key),
                   dj__printable(value, sizeof value, md.pairs[k].value));
    }
  }
  return DJ_OK;
}

static dj_status print_text(const info *o) {
  const dj_mcap_header *h = dj_mcap_get_header(o->m);
  char text[128], size[32], start[64], end[64];
  (void)printf("file:         %s, %s\n", o->path, bytes_text(size, o->bytes));
  (void)printf("profile:      %s\n",
               *h->profile ? dj__printable(text, sizeof text, h->profile) : "none");
  (void)printf("library:      %s\n",
               *h->library ? dj__printable(text, sizeof text, h->library) : "none");
  (void)printf("messages:     %" PRIu64 "\n", o->messages);
  if (o->messages) {
    (void)printf("time:         %s to %s\n", time_text(start, o->start), time_text(end, o->end));
    (void)printf("duration:     %.3f s\n", (double)(o->end - o->start) * 1e-9);
  }
  print_channels(o);
  print_chunks(o);
  return print_extras(o);
}

// ---- JSON ----

static json_t *pairs_json(const dj_mcap_pair *pairs, size_t n) {
  json_t *j = json_object();
  for (size_t i = 0; i < n; i++) {
    json_t *key = dj__json_text(pairs[i].key);
    if (key) (void)json_object_set_new(j, json_string_value(key), dj__json_text(pairs[i].value));
    json_decref(key);
  }
  return j;
}

static json_t *channel_json(const channel_info *c) {
  json_t *j = json_pack(
      "{s:i,s:o,s:o,s:o?,s:o?,s:o,s:o}", "id", c->def->id, "topic", dj__json_text(c->def->topic),
      "message_encoding", dj__json_text(c->def->message_encoding), "schema",
      c->schema ? dj__json_text(c->schema->name) : NULL, "schema_encoding",
      c->schema ? dj__json_text(c->schema->encoding) : NULL, "messages", dj__json_u64(c->messages),
      "metadata", pairs_json(c->def->metadata, c->def->n_metadata));
  if (j && c->timed && c->messages) {
    (void)json_object_set_new(j, "start_ns", dj__json_u64(c->first));
    (void)json_object_set_new(j, "end_ns", dj__json_u64(c->last));
  }
  if (j && c->timed && c->messages > 1) {
    (void)json_object_set_new(j, "rate_hz", json_real(rate(c)));
    (void)json_object_set_new(j, "longest_gap_s", json_real((double)c->gap * 1e-9));
  }
  return j;
}

static json_t *chunks_json(const info *o) {
  json_t *kinds = json_array();
  for (size_t i = 0; i < o->n_chunk_infos; i++) {
    const chunk_info *c = &o->chunks[i];
    (void)json_array_append_new(
        kinds, json_pack("{s:s,s:o,s:o,s:o,s:f}", "compression", c->compression, "chunks",
                         dj__json_u64(c->n), "compressed_bytes", dj__json_u64(c->packed),
                         "uncompressed_bytes", dj__json_u64(c->plain), "ratio", ratio(c)));
  }
  return kinds;
}

static dj_status extras_json(const info *o, json_t *report) {
  json_t *attachments = json_array(), *metadata = json_array();
  (void)json_object_set_new(report, "attachments", attachments);
  (void)json_object_set_new(report, "metadata", metadata);
  size_t n;
  const dj_mcap_attachment_index *a = dj_mcap_attachments(o->m, &n);
  for (size_t i = 0; i < n; i++)
    (void)json_array_append_new(
        attachments,
        json_pack("{s:o,s:o,s:o,s:o,s:o,s:o}", "name", dj__json_text(a[i].name), "media_type",
                  dj__json_text(a[i].media_type), "bytes", dj__json_u64(a[i].data_size), "log_time",
                  dj__json_u64(a[i].log_time), "create_time", dj__json_u64(a[i].create_time),
                  "offset", dj__json_u64(a[i].offset)));
  (void)dj_mcap_metadata_list(o->m, &n);
  for (size_t i = 0; i < n; i++) {
    dj_mcap_metadata md;
    DJ_TRY(dj_mcap_read_metadata(o->m, i, &md));
    (void)json_array_append_new(metadata, json_pack("{s:o,s:o}", "name", dj__json_text(md.name),
                                                    "values", pairs_json(md.pairs, md.n)));
  }
  return DJ_OK;
}

static dj_status report_json(const info *o, json_t **out) {
  const dj_mcap_header *h = dj_mcap_get_header(o->m);
  json_t *channels = json_array();
  for (size_t i = 0; i < o->n_channels; i++)
    (void)json_array_append_new(channels, channel_json(&o->channels[i]));
  *out = json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:f,s:o,s:o,s:o}", "file", dj__json_text(o->path),
                   "bytes", dj__json_u64(o->bytes), "profile", dj__json_text(h->profile), "library",
                   dj__json_text(h->library), "messages", dj__json_u64(o->messages), "start_ns",
                   dj__json_u64(o->start), "end_ns", dj__json_u64(o->end), "duration_s",
                   (double)(o->end - o->start) * 1e-9, "channels", channels, "chunk_count",
                   dj__json_u64(o->n_chunks), "chunks", chunks_json(o));
  return *out ? extras_json(o, *out) : dj_error(DJ_E_NOMEM, "no memory for a report");
}

int dj__log_info(int argc, char **argv) {
  bool json = false;
  const dj__option options[] = {
      {"json", 0, DJ_OPT_FLAG, &json, NULL, "machine-readable report on stdout"}, {0}};
  int n, rc;
  char **files;
  const char *command = argv[0];
  if ((rc = dj__parse_options(argc, argv, options, HELP, &n, &files)) >= 0) return rc;
  if (n < 1) return dj__log_bad_use(command, "which log?", NULL);
  json_t *reports = json ? json_array() : NULL;
  rc = 0;
  for (int i = 0; i < n && !rc; i++) {
    info o;
    dj_status s = gather(&o, files[i]);
    if (!s && json) {
      json_t *one = NULL;
      s = report_json(&o, &one);
      (void)json_array_append_new(reports, one);
    } else if (!s) {
      if (i) (void)puts("");
      s = print_text(&o);
    }
    drop(&o);
    if (s) rc = dj__fail(command, s);
  }
  if (json && !rc)
    rc = dj__log_print_json(command, n == 1 ? json_incref(json_array_get(reports, 0))
                                            : json_incref(reports));
  json_decref(reports);
  return rc;
}
