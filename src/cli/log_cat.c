/*
 * dojo log cat: messages as lines of JSON. The file is streamed, chunk after chunk, so memory does
 * not grow with it and a pipe will do; with a time range or an order by time the index is used, and
 * only chunks that hold wanted messages are read.
 *
 * Messages of the types that Dojo writes are decoded, JSON is passed on, and of anything else the
 * size (or, asked for, the bytes) is given. A message that does not decode is told and does not end
 * the output; a damaged file does, after what could be read before the damage.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "cli/cli.h"
#include "cli/log.h"
#include "cli/log_json.h"
#include "dojo/mcap.h"

#include "dojo/Agents.pb-c.h"
#include "dojo/EgoPath.pb-c.h"
#include "dojo/Events.pb-c.h"
#include "dojo/Lanes.pb-c.h"
#include "dojo/Occupancy.pb-c.h"
#include "dojo/Route.pb-c.h"
#include "dojo/SceneText.pb-c.h"
#include "dojo/TrafficLight.pb-c.h"
#include "dojo/VehicleControl.pb-c.h"
#include "dojo/VehicleSpeed.pb-c.h"
#include "foxglove/CameraCalibration.pb-c.h"
#include "foxglove/CompressedImage.pb-c.h"
#include "foxglove/CompressedVideo.pb-c.h"
#include "foxglove/FrameTransform.pb-c.h"
#include "foxglove/LocationFix.pb-c.h"
#include "foxglove/PoseInFrame.pb-c.h"
#include "foxglove/SceneUpdate.pb-c.h"

static const char HELP[] =
    "Usage: dojo log cat FILE.mcap [--topics A,B] [--start T] [--end T] [--limit N] [--by-time]\n"
    "                              [--bytes]\n\n"
    "Prints messages as lines of JSON: topic, log_time and publish_time (ns), sequence, schema,\n"
    "data. foxglove.* and dojo.* messages are decoded, JSON messages are passed on, pictures and\n"
    "messages of other encodings are told by their size. FILE may be - (standard input). In the\n"
    "order of the file unless --by-time is given.\n\n"
    "T is in seconds after the log's first message, or an absolute time in nanoseconds followed "
    "by\n"
    "ns. --end is the first time no longer shown.\n\n"
    "Example:\n"
    "  dojo log cat S/logs/tub-1.mcap --topics /vehicle/control --start 10 --end 12\n"
    "  dojo log cat drive.mcap --limit 1 | jq .data\n";

static const ProtobufCMessageDescriptor *const types[] = {&dojo__agents__descriptor,
                                                          &dojo__ego_path__descriptor,
                                                          &dojo__events__descriptor,
                                                          &dojo__lanes__descriptor,
                                                          &dojo__occupancy__descriptor,
                                                          &dojo__route__descriptor,
                                                          &dojo__scene_text__descriptor,
                                                          &dojo__traffic_light__descriptor,
                                                          &dojo__vehicle_control__descriptor,
                                                          &dojo__vehicle_speed__descriptor,
                                                          &foxglove__camera_calibration__descriptor,
                                                          &foxglove__compressed_image__descriptor,
                                                          &foxglove__compressed_video__descriptor,
                                                          &foxglove__frame_transform__descriptor,
                                                          &foxglove__location_fix__descriptor,
                                                          &foxglove__pose__descriptor,
                                                          &foxglove__pose_in_frame__descriptor,
                                                          &foxglove__quaternion__descriptor,
                                                          &foxglove__scene_update__descriptor,
                                                          &foxglove__vector3__descriptor};
enum { N_TYPES = sizeof types / sizeof *types, IDS = 65536 };

typedef struct channel {
  char *topic, *encoding, *schema; // schema: NULL for none
  const ProtobufCMessageDescriptor *type;
  bool wanted;
} channel;

typedef struct cat {
  const char *command, *path;
  char **topics; // asked for; NULL: all
  bool *seen;    // (n_topics)
  int n_topics;
  const char *start_text, *end_text;
  uint64_t start, end; // ns; end 0: none
  bool relative_start, relative_end, have_base;
  int64_t limit, printed;
  bool by_time, bytes;
  char **schemas;     // (IDS) names
  channel **channels; // (IDS)
  uint64_t undecoded;
  dj__buf line;
} cat;

// ---- what is asked for ----

// "12.5" or "1700000000000000000ns".
static bool parse_time(const char *text, uint64_t *ns, bool *relative) {
  char *end;
  errno = 0;
  size_t n = strlen(text);
  *relative = n < 2 || strcmp(text + n - 2, "ns") != 0;
  if (!*relative) {
    if (*text < '0' || *text > '9') return false;
    *ns = strtoull(text, &end, 10);
    return !errno && !strcmp(end, "ns");
  }
  double v = strtod(text, &end);
  if (errno || end == text || *end || !(v >= 0) || v > 1e9) return false;
  *ns = (uint64_t)(v * 1e9 + 0.5);
  return true;
}

static int parse_range(cat *c) {
  if (c->start_text && !parse_time(c->start_text, &c->start, &c->relative_start))
    return dj__log_bad_use(c->command, "--start needs seconds or nanoseconds with ns, got",
                           c->start_text);
  if (c->end_text && !parse_time(c->end_text, &c->end, &c->relative_end))
    return dj__log_bad_use(c->command, "--end needs seconds or nanoseconds with ns, got",
                           c->end_text);
  if (c->limit < 0) return dj__log_bad_use(c->command, "--limit must not be negative", NULL);
  return -1;
}

// Relative times become absolute ones.
static void set_base(cat *c, uint64_t first) {
  if (c->have_base) return;
  c->have_base = true;
  if (c->relative_start) c->start = c->start > UINT64_MAX - first ? UINT64_MAX : c->start + first;
  if (c->relative_end) c->end = c->end > UINT64_MAX - first ? UINT64_MAX : c->end + first;
}

static bool in_range(const cat *c, uint64_t t) {
  return t >= c->start && (!c->end_text || t < c->end);
}

static dj_status split_topics(cat *c, const char *list) {
  if (!list) return DJ_OK;
  size_t n = 1;
  for (const char *p = list; *p; p++) n += *p == ',';
  char **topics = calloc(n, sizeof(char *));
  bool *seen = calloc(n, sizeof *seen);
  c->topics = topics;
  c->seen = seen;
  if (!topics || !seen) return dj_error(DJ_E_NOMEM, "no memory for %zu topics", n);
  for (const char *p = list; (size_t)c->n_topics < n; p += strcspn(p, ",") + 1)
    topics[c->n_topics++] = dj__strf("%.*s", (int)strcspn(p, ","), p);
  return DJ_OK;
}

// ---- definitions ----

static void free_channel(channel *c) {
  if (!c) return;
  free(c->topic);
  free(c->encoding);
  free(c->schema);
  free(c);
}

static void learn_schema(cat *c, const dj_mcap_schema *s) {
  if (!c->schemas[s->id]) c->schemas[s->id] = dj__strf("%s", s->name);
}

static dj_status learn_channel(cat *c, const dj_mcap_channel *def) {
  if (c->channels[def->id]) return DJ_OK;
  channel *ch = calloc(1, sizeof *ch);
  if (!ch) return dj_error(DJ_E_NOMEM, "no memory for a channel");
  c->channels[def->id] = ch;
  ch->topic = dj__strf("%s", def->topic);
  ch->encoding = dj__strf("%s", def->message_encoding);
  const char *schema = def->schema_id ? c->schemas[def->schema_id] : NULL;
  if (schema) ch->schema = dj__strf("%s", schema);
  for (int i = 0; i < N_TYPES && schema && !strcmp(ch->encoding, "protobuf"); i++)
    if (!strcmp(schema, types[i]->name)) ch->type = types[i];
  ch->wanted = !c->topics;
  for (int i = 0; i < c->n_topics; i++) {
    const char *topic = c->topics ? c->topics[i] : NULL;
    if (topic && !strcmp(topic, ch->topic)) ch->wanted = c->seen[i] = true;
  }
  return DJ_OK;
}

// ---- a line ----

static void put(dj__buf *b, const char *s) {
  dj__buf_put(b, s, strlen(s));
}

// JSON as it is, on one line; false if it is none.
static bool put_json(dj__buf *b, const void *data, size_t n) {
  json_error_t e;
  json_t *j = json_loadb(data, n, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &e);
  if (!j) return false;
  json_decref(j);
  size_t at = b->size;
  dj__buf_put(b, data, n);
  for (size_t i = at; i < b->size; i++) // never within a string: JSON has them escaped there
    if (b->data[i] == '\n' || b->data[i] == '\r') b->data[i] = ' ';
  return true;
}

static bool put_data(cat *c, const channel *ch, const dj_mcap_message *m) {
  if (ch->type) {
    ProtobufCMessage *p = protobuf_c_message_unpack(ch->type, NULL, m->size, m->data);
    if (!p) return false;
    dj__json_put_protobuf(&c->line, p, c->bytes);
    protobuf_c_message_free_unpacked(p, NULL);
    return true;
  }
  if (!strcmp(ch->encoding, "json")) return put_json(&c->line, m->data, m->size);
  dj__json_put_bytes(&c->line, m->data, m->size, c->bytes);
  return true;
}

static dj_status print_message(cat *c, const dj_mcap_message *m) {
  const channel *ch = c->channels[m->channel_id];
  if (!ch)
    return dj_error(DJ_E_FORMAT, "a message of channel %u, which is not defined before it",
                    m->channel_id);
  if (!ch->wanted || !in_range(c, m->log_time)) return DJ_OK;
  dj__buf *b = &c->line;
  b->size = 0;
  put(b, "{\"topic\":");
  dj__json_put_string(b, ch->topic, strlen(ch->topic));
  put(b, ",\"log_time\":");
  dj__json_put_u64(b, m->log_time);
  put(b, ",\"publish_time\":");
  dj__json_put_u64(b, m->publish_time);
  put(b, ",\"sequence\":");
  dj__json_put_u64(b, m->sequence);
  put(b, ",\"schema\":");
  if (ch->schema)
    dj__json_put_string(b, ch->schema, strlen(ch->schema));
  else
    put(b, "null");
  put(b, ",\"data\":");
  size_t before = b->size;
  if (!put_data(c, ch, m)) {
    b->size = before;
    put(b, "null,\"error\":\"the message does not decode\"");
    c->undecoded++;
  }
  put(b, "}\n");
  if (b->failed) return dj_error(DJ_E_NOMEM, "no memory for a message of %zu bytes", m->size);
  if (fwrite(b->data, 1, b->size, stdout) != b->size)
    return dj_error_errno("cannot write to standard output");
  c->printed++;
  return DJ_OK;
}

static bool enough(const cat *c, bool limited) {
  return limited && c->printed >= c->limit;
}

// ---- the two ways to read ----

static dj_status read_file(void *user, void *buf, size_t n, size_t *got) {
  FILE *f = user;
  *got = fread(buf, 1, n, f);
  return *got < n && ferror(f) ? dj_error_errno("cannot read") : DJ_OK;
}

static dj_status take(cat *c, const dj_mcap_record *r) {
  if (r->opcode == DJ_MCAP_SCHEMA) learn_schema(c, &r->u.schema);
  if (r->opcode == DJ_MCAP_CHANNEL) return learn_channel(c, &r->u.channel);
  if (r->opcode != DJ_MCAP_MESSAGE) return DJ_OK;
  set_base(c, r->u.message.log_time);
  return print_message(c, &r->u.message);
}

static dj_status cat_streamed(cat *c, bool limited) {
  FILE *f = strcmp(c->path, "-") != 0 ? fopen(c->path, "rb") : stdin;
  if (!f) return dj_error_errno("%s", c->path);
  dj_mcap_stream *stream = NULL;
  dj_mcap_record r;
  bool more = true;
  dj_status s = dj_mcap_stream_open(read_file, f, NULL, false, &stream);
  while (!s && more && !enough(c, limited)) {
    s = dj_mcap_stream_next(stream, &r, &more);
    if (!s && more) s = take(c, &r);
  }
  dj_mcap_stream_close(stream);
  if (f != stdin) (void)fclose(f);
  return s ? dj_error_context(s, "%s", c->path) : DJ_OK;
}

static dj_status cat_indexed(cat *c, dj_mcap *m, bool limited) {
  size_t n;
  const dj_mcap_schema *schemas = dj_mcap_schemas(m, &n);
  for (size_t i = 0; i < n; i++) learn_schema(c, &schemas[i]);
  const dj_mcap_channel *channels = dj_mcap_channels(m, &n);
  for (size_t i = 0; i < n; i++) DJ_TRY(learn_channel(c, &channels[i]));
  const dj_mcap_statistics *st = dj_mcap_get_statistics(m);
  uint64_t first = st ? st->start_time : UINT64_MAX;
  for (size_t i = 0; i < n && !st; i++) {
    const dj_mcap_entry *e;
    size_t k;
    DJ_TRY(dj_mcap_channel_entries(m, channels[i].id, &e, &k));
    if (k && e[0].log_time < first) first = e[0].log_time;
  }
  set_base(c, first);
  const dj_mcap_query q = {.topics = (const char *const *)c->topics,
                           .n_topics = c->n_topics,
                           .start = c->start,
                           .end = c->end_text ? c->end : 0,
                           .file_order = !c->by_time};
  dj_mcap_iter *it;
  DJ_TRY(dj_mcap_iter_open(m, &q, &it));
  dj_mcap_message msg;
  bool more = true;
  dj_status s = DJ_OK;
  while (!s && more && !enough(c, limited)) {
    s = dj_mcap_iter_next(it, &msg, &more);
    if (!s && more) s = print_message(c, &msg);
  }
  dj_mcap_iter_close(it);
  return s;
}

// A damaged file is streamed up to the damage, unless an order is wanted that only the index has.
static dj_status print_all(cat *c, bool limited) {
  bool pipe = !strcmp(c->path, "-");
  if (pipe && c->by_time)
    return dj_error(DJ_E_INVALID, "--by-time needs a file, not standard input");
  if (!pipe && (c->by_time || c->start_text || c->end_text)) {
    dj_mcap *m;
    dj_status s = dj_mcap_open(c->path, NULL, &m);
    if (!s) {
      s = cat_indexed(c, m, limited);
      dj_mcap_close(m);
      return s;
    }
    if (s != DJ_E_FORMAT || c->by_time) return s;
  }
  return cat_streamed(c, limited);
}

static const char *nearest_topic(const cat *c, const char *asked) {
  const char *near = NULL;
  int best = 0;
  for (int k = 0; k < IDS; k++) {
    const channel *ch = c->channels[k];
    if (!ch) continue;
    int d = dj__edit_distance(asked, ch->topic);
    if (!near || d < best) {
      best = d;
      near = ch->topic;
    }
  }
  return near;
}

static int told_apart(const cat *c, bool limited) {
  for (int i = 0; i < c->n_topics && !enough(c, limited); i++) {
    if (c->seen[i]) continue;
    const char *near = nearest_topic(c, c->topics[i]);
    char name[128];
    return dj__fail(c->command,
                    near ? dj_error(DJ_E_NOT_FOUND, "%s: no topic '%s'; the nearest is '%s'",
                                    c->path, c->topics[i], dj__printable(name, sizeof name, near))
                         : dj_error(DJ_E_NOT_FOUND, "%s: no topic '%s'; the log has no channels",
                                    c->path, c->topics[i]));
  }
  if (c->undecoded)
    return dj__fail(c->command, dj_error(DJ_E_FORMAT, "%s: %" PRIu64 " messages do not decode",
                                         c->path, c->undecoded));
  return 0;
}

static void free_cat(cat *c) {
  for (int i = 0; i < c->n_topics; i++) free(c->topics[i]);
  for (int i = 0; i < IDS; i++) {
    if (c->schemas) free(c->schemas[i]);
    if (c->channels) free_channel(c->channels[i]);
  }
  free(c->topics);
  free(c->seen);
  free(c->schemas);
  free(c->channels);
  dj__buf_free(&c->line);
}

int dj__log_cat(int argc, char **argv) {
  cat c = {.command = argv[0], .limit = INT64_MAX};
  const char *topics = NULL;
  const dj__option options[] = {
      {"topics", 't', DJ_OPT_STRING, &topics, "A,B", "only these topics"},
      {"start", 0, DJ_OPT_STRING, &c.start_text, "T", "first time shown"},
      {"end", 0, DJ_OPT_STRING, &c.end_text, "T", "first time no longer shown"},
      {"limit", 'n', DJ_OPT_INT, &c.limit, "N", "at most N messages"},
      {"by-time", 0, DJ_OPT_FLAG, &c.by_time, NULL, "by log time rather than as they lie"},
      {"bytes", 0, DJ_OPT_FLAG, &c.bytes, NULL, "bytes in base64 rather than their number"},
      {0}};
  int n, rc;
  char **files;
  if ((rc = dj__parse_options(argc, argv, options, HELP, &n, &files)) >= 0) return rc;
  if (n < 1) return dj__log_bad_use(c.command, "which log?", NULL);
  if (n > 1) return dj__log_bad_use(c.command, "one log at a time; what is", files[1]);
  if ((rc = parse_range(&c)) >= 0) return rc;
  c.path = files[0];
  c.schemas = calloc(IDS, sizeof *c.schemas);
  c.channels = calloc(IDS, sizeof *c.channels);
  bool limited = c.limit != INT64_MAX;
  dj_status s = c.schemas && c.channels ? split_topics(&c, topics)
                                        : dj_error(DJ_E_NOMEM, "no memory for tables of channels");
  if (!s) s = print_all(&c, limited);
  rc = s ? dj__fail(c.command, s) : told_apart(&c, limited);
  free_cat(&c);
  return rc;
}
