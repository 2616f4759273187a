/* Any bytes as a label's message in a drive log: a clear error, or labels within their limits. The
 * first byte says which label. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dojo/mcap.h"
#include "fleet/drivelog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(dj_status s) {
  if (s) abort();
}

static int make_log(int channel, const uint8_t *data, size_t size) {
  const dj__label_topic *t = &dj__label_topics[channel];
  dj_mcap_writer *w;
  uint16_t schema, id;
  void *log;
  size_t n;
  must(dj_mcap_writer_open_memory(NULL, &w));
  dj_mcap_pair pairs[] = {{"name", "fuzz"},   {"format", "world"}, {"source_digest", "0"},
                          {"source", "fuzz"}, {"cameras", ""},     {"calibrated", ""}};
  must(dj_mcap_write_metadata(w, DJ__META_DRIVE, pairs, 6));
  must(dj_mcap_add_schema(w, t->schema, "protobuf", "", 0, &schema));
  must(dj_mcap_add_channel(w, schema, t->topic, "protobuf", NULL, 0, &id));
  must(dj_mcap_write(w, &(dj_mcap_message){.channel_id = id, .data = data, .size = size}));
  must(dj_mcap_writer_close_memory(w, &log, &n));
  int fd = memfd_create("log", MFD_CLOEXEC);
  if (fd < 0 || write(fd, log, n) != (ssize_t)n) abort();
  free(log);
  return fd;
}

static dj_status read_label(dj_drive *d, int channel) {
  dj_path p;
  dj_lanes l;
  dj_agents a;
  dj_occupancy o;
  dj_light light;
  dj_route r;
  dj_events e;
  dj_text t;
  dj_status s;
  switch (channel) {
  case DJ__LABEL_PATH:
    if ((s = dj_drive_read_path(d, 0, &p))) return s;
    if (p.n < 1 || !isfinite(p.points[p.n - 1].speed)) abort();
    return DJ_OK;
  case DJ__LABEL_LANES:
    if ((s = dj_drive_read_lanes(d, 0, &l))) return s;
    for (int i = 0; i < l.n; i++)
      if (l.lines[i].n < 2 || !isfinite(l.lines[i].point[l.lines[i].n - 1][2])) abort();
    return DJ_OK;
  case DJ__LABEL_AGENTS:
    if ((s = dj_drive_read_agents(d, 0, &a))) return s;
    for (int i = 0; i < a.n; i++)
      if ((unsigned)a.agents[i].kind >= DJ_N_AGENT_KINDS || !(a.agents[i].width > 0)) abort();
    return DJ_OK;
  case DJ__LABEL_OCCUPANCY:
    if ((s = dj_drive_read_occupancy(d, 0, &o))) return s;
    for (int i = 0; i < o.n_times * o.nx * o.ny; i++)
      if (o.occupied[i] > 1) abort();
    return DJ_OK;
  case DJ__LABEL_LIGHT:
    if ((s = dj_drive_read_light(d, 0, &light))) return s;
    if (light.state != DJ_LIGHT_NONE && !isfinite(light.distance)) abort();
    return DJ_OK;
  case DJ__LABEL_ROUTE:
    if ((s = dj_drive_read_route(d, 0, &r))) return s;
    if (r.n && !isfinite(r.point[r.n - 1][0])) abort();
    return DJ_OK;
  case DJ__LABEL_EVENTS:
    if ((s = dj_drive_read_events(d, 0, &e))) return s;
    if (e.n && !(e.events[0].age >= 0)) abort();
    return DJ_OK;
  default:
    if ((s = dj_drive_read_text(d, 0, &t))) return s;
    if (!t.text[0]) abort();
    return DJ_OK;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1 || size > 1 << 20) return 0;
  int channel = data[0] % DJ__LABEL_SCENE, fd = make_log(channel, data + 1, size - 1);
  char path[64];
  (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  dj_drive *d;
  must(dj_drive_open(path, &d));
  dj_status s = read_label(d, channel);
  if (s && s != DJ_E_FORMAT) abort();
  dj_drive_close(d);
  (void)close(fd);
  return 0;
}
