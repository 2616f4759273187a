/*
 * Any bytes as an MCAP file, to all who read one: the index, the stream, the checker, the rescuer.
 * Beyond not crashing they have to agree: what the checker calls whole, the readers read to the
 * end; and what the rescuer makes is whole.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dojo/mcap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const dj_mcap_limits limits = {
    .max_chunk = 1 << 18, .max_record = 1 << 20, .max_index = 1 << 22};

static volatile unsigned keep;

static void touch(const void *data, size_t n) {
  unsigned sum = 0;
  for (size_t i = 0; i < n; i++) sum += ((const uint8_t *)data)[i];
  keep = keep + sum;
}

static void touch_text(const char *s) {
  touch(s, strlen(s));
}

static dj_status read_messages(dj_mcap *m, bool file_order, uint64_t *count) {
  dj_mcap_iter *it;
  dj_mcap_message msg;
  bool more = true;
  dj_status s = dj_mcap_iter_open(m, &(dj_mcap_query){.file_order = file_order}, &it);
  *count = 0;
  while (!s && (s = dj_mcap_iter_next(it, &msg, &more)) == DJ_OK && more) {
    touch(msg.data, msg.size);
    ++*count;
  }
  dj_mcap_iter_close(it);
  return s;
}

static dj_status read_indexed(const uint8_t *data, size_t size, uint64_t *messages) {
  dj_mcap *m;
  size_t n;
  DJ_TRY(dj_mcap_open_memory("fuzz", data, size, &limits, &m));
  touch_text(dj_mcap_get_header(m)->profile);
  const dj_mcap_schema *schemas = dj_mcap_schemas(m, &n);
  for (size_t i = 0; i < n; i++) touch(schemas[i].data, schemas[i].size);
  const dj_mcap_channel *channels = dj_mcap_channels(m, &n);
  for (size_t i = 0; i < n; i++) {
    if (dj_mcap_channel_by_id(m, channels[i].id) != &channels[i]) abort();
    touch_text(channels[i].topic);
    (void)dj_mcap_pair_value(channels[i].metadata, channels[i].n_metadata, "key");
  }
  dj_status s = DJ_OK, t;
  (void)dj_mcap_attachments(m, &n);
  for (size_t i = 0; i < n; i++) {
    dj_mcap_attachment a;
    if ((t = dj_mcap_read_attachment(m, i, &a)))
      s = t;
    else
      touch(a.data, a.size);
  }
  (void)dj_mcap_metadata_list(m, &n);
  for (size_t i = 0; i < n; i++) {
    dj_mcap_metadata md;
    if ((t = dj_mcap_read_metadata(m, i, &md))) s = t;
  }
  uint64_t again;
  if ((t = read_messages(m, false, messages))) s = t;
  if ((t = read_messages(m, true, &again))) s = t;
  if (!s && again != *messages) abort();
  dj_mcap_close(m);
  return s;
}

static dj_status read_streamed(const uint8_t *data, size_t size, bool raw, uint64_t *messages) {
  dj_mcap_stream *s;
  dj_mcap_record r;
  bool more = true;
  *messages = 0;
  DJ_TRY(dj_mcap_stream_open_memory(data, size, &limits, raw, &s));
  dj_status st = DJ_OK;
  while ((st = dj_mcap_stream_next(s, &r, &more)) == DJ_OK && more) {
    if (r.opcode == DJ_MCAP_MESSAGE) {
      touch(r.u.message.data, r.u.message.size);
      ++*messages;
    }
    if (r.opcode == DJ_MCAP_METADATA)
      for (size_t i = 0; i < r.u.metadata.n; i++) touch_text(r.u.metadata.pairs[i].value);
    if (r.opcode == DJ_MCAP_ATTACHMENT) touch(r.u.attachment.data, r.u.attachment.size);
  }
  dj_mcap_stream_close(s);
  return st;
}

static void told(void *user, uint64_t offset, const char *text) {
  if (offset > *(const size_t *)user) abort();
  touch_text(text);
}

static uint64_t problems(const uint8_t *data, size_t size, uint64_t *messages) {
  dj_mcap_check_report r;
  if (dj_mcap_check_memory(data, size, &limits, told, &size, &r)) abort(); // only out of memory
  *messages = r.messages;
  return r.problems;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint64_t indexed = 0, streamed = 0, raw = 0, checked;
  uint64_t faults = problems(data, size, &checked);
  dj_status by_index = read_indexed(data, size, &indexed);
  dj_status by_stream = read_streamed(data, size, false, &streamed);
  (void)read_streamed(data, size, true, &raw);
  if (!faults && (by_index || by_stream)) abort();
  if (!faults && (checked != indexed || checked != streamed)) abort();
  void *out = NULL;
  size_t out_size = 0;
  dj_mcap_recover_report report;
  dj_status s =
      dj_mcap_recover_memory("fuzz", data, size, &limits, told, &size, &report, &out, &out_size);
  if (!s) {
    if (problems(out, out_size, &checked) || checked != report.messages_saved) abort();
    if (!faults && (!report.complete || checked != indexed)) abort();
  }
  free(out);
  return 0;
}
