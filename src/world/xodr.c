/* OpenDRIVE's words: tables. */
#include "world/xodr.h"

#include <string.h>

typedef struct word {
  const char *name;
  int value;
} word;

static int find(const word *w, size_t n, const char *name, int otherwise) {
  for (size_t i = 0; i < n; i++)
    if (strcmp(w[i].name, name) == 0) return w[i].value;
  return otherwise;
}

static const char *name_of(const word *w, size_t n, int value) { /* the first one of that value */
  for (size_t i = 0; i < n; i++)
    if (w[i].value == value) return w[i].name;
  return w[0].name;
}

#define COUNT(a) (sizeof(a) / sizeof *(a))

static const word lane_types[] = {
    {"none", DJ__LANE_NONE},         {"driving", DJ__LANE_DRIVING},
    {"entry", DJ__LANE_DRIVING},     {"exit", DJ__LANE_DRIVING},
    {"onRamp", DJ__LANE_DRIVING},    {"offRamp", DJ__LANE_DRIVING},
    {"slipLane", DJ__LANE_DRIVING},  {"connectingRamp", DJ__LANE_DRIVING},
    {"bus", DJ__LANE_DRIVING},       {"taxi", DJ__LANE_DRIVING},
    {"HOV", DJ__LANE_DRIVING},       {"bidirectional", DJ__LANE_DRIVING},
    {"mwyEntry", DJ__LANE_DRIVING},  {"mwyExit", DJ__LANE_DRIVING},
    {"shoulder", DJ__LANE_SHOULDER}, {"stop", DJ__LANE_SHOULDER},
    {"biking", DJ__LANE_BIKING},     {"sidewalk", DJ__LANE_SIDEWALK},
    {"walking", DJ__LANE_SIDEWALK},  {"parking", DJ__LANE_PARKING},
    {"curb", DJ__LANE_CURB},         {"median", DJ__LANE_MEDIAN},
    {"border", DJ__LANE_BORDER},     {"restricted", DJ__LANE_RESTRICTED}};

const char *dj__xodr_lane_type(dj__lane_type t) {
  return name_of(lane_types, COUNT(lane_types), (int)t);
}
dj__lane_type dj__xodr_find_lane_type(const char *name) {
  return (dj__lane_type)find(lane_types, COUNT(lane_types), name, DJ__LANE_RESTRICTED);
}

static const word mark_types[] = {{"none", DJ__MARK_NONE},
                                  {"solid", DJ__MARK_SOLID},
                                  {"broken", DJ__MARK_BROKEN},
                                  {"botts dots", DJ__MARK_BROKEN},
                                  {"solid solid", DJ__MARK_SOLID_SOLID},
                                  {"solid broken", DJ__MARK_SOLID_BROKEN},
                                  {"broken solid", DJ__MARK_BROKEN_SOLID},
                                  {"broken broken", DJ__MARK_BROKEN},
                                  {"curb", DJ__MARK_CURB},
                                  {"grass", DJ__MARK_NONE},
                                  {"edge", DJ__MARK_NONE}};

const char *dj__xodr_mark_type(dj__mark_type t) {
  return name_of(mark_types, COUNT(mark_types), (int)t);
}
dj__mark_type dj__xodr_find_mark_type(const char *name) {
  return (dj__mark_type)find(mark_types, COUNT(mark_types), name, DJ__MARK_SOLID);
}

static const word zones[] = {{"town", DJ__ZONE_TOWN},
                             {"townArterial", DJ__ZONE_SUBURB},
                             {"townExpressway", DJ__ZONE_SUBURB},
                             {"townCollector", DJ__ZONE_TOWN},
                             {"townLocal", DJ__ZONE_TOWN},
                             {"townPrivate", DJ__ZONE_TOWN},
                             {"townPlayStreet", DJ__ZONE_TOWN},
                             {"rural", DJ__ZONE_RURAL},
                             {"motorway", DJ__ZONE_MOTORWAY},
                             {"lowSpeed", DJ__ZONE_TRACK}};

const char *dj__xodr_zone(dj__zone z) {
  return name_of(zones, COUNT(zones), (int)z);
}
dj__zone dj__xodr_find_zone(const char *name) {
  int z = find(zones, COUNT(zones), name, DJ__ZONE_TOWN);
  return z == DJ__ZONE_TRACK ? DJ__ZONE_TOWN : (dj__zone)z; /* tracks are told by userData */
}

static const word signals[] = {
    {"1000001", DJ__SIGNAL_LIGHT}, {"206", DJ__SIGNAL_STOP},       {"205", DJ__SIGNAL_GIVE_WAY},
    {"301", DJ__SIGNAL_PRIORITY},  {"306", DJ__SIGNAL_PRIORITY},   {"274", DJ__SIGNAL_SPEED},
    {"350", DJ__SIGNAL_CROSSING},  {"215", DJ__SIGNAL_ROUNDABOUT}, {"1000009", DJ__SIGNAL_LIGHT},
    {"1000010", DJ__SIGNAL_OTHER}, {"1000011", DJ__SIGNAL_LIGHT},  {"1000012", DJ__SIGNAL_OTHER},
    {"R1-1", DJ__SIGNAL_STOP},     {"R1-2", DJ__SIGNAL_GIVE_WAY},  {"R2-1", DJ__SIGNAL_SPEED},
    {"-1", DJ__SIGNAL_OTHER}};

const char *dj__xodr_signal_type(dj__signal_kind k) {
  return k == DJ__SIGNAL_OTHER ? "-1" : name_of(signals, COUNT(signals), (int)k);
}
dj__signal_kind dj__xodr_find_signal_kind(const char *type) {
  return (dj__signal_kind)find(signals, COUNT(signals), type, DJ__SIGNAL_OTHER);
}

const char *dj__xodr_second_road(const dj__junction *j) {
  return j->direct ? "linkedRoad" : "connectingRoad";
}
