/* OpenDRIVE's words for our enums, shared by reader and writer; parts of the reader. */
#ifndef DOJO_WORLD_XODR_H
#define DOJO_WORLD_XODR_H

#include "world/map_build.h"

const char *dj__xodr_lane_type(dj__lane_type t);
dj__lane_type dj__xodr_find_lane_type(const char *name); /* unknown ones are RESTRICTED */
const char *dj__xodr_mark_type(dj__mark_type t);
dj__mark_type dj__xodr_find_mark_type(const char *name); /* unknown ones are SOLID */
const char *dj__xodr_zone(dj__zone z);
dj__zone dj__xodr_find_zone(const char *name);
/* Types of signs by the German catalogue (StVO), of lights by OpenDRIVE's own. */
const char *dj__xodr_signal_type(dj__signal_kind k);
dj__signal_kind dj__xodr_find_signal_kind(const char *type);
/* What a connection's second road is called: in a direct junction it is no road of the junction. */
const char *dj__xodr_second_road(const dj__junction *j);

/* ---- slivers of lane sections (xodr_slivers.c) ---- */
typedef struct dj__lane_rename { /* a lane at an end of a road, by its id in a sliver there */
  int road;
  bool at_start;
  int id, to; /* to 0: it does not go on */
} dj__lane_rename;
typedef struct dj__lane_renames {
  dj__lane_rename *of; /* (n) in the order of roads */
  int n;
} dj__lane_renames;
/* Of the road read last. */
void dj__xodr_drop_slivers(dj__build *b, int road, dj__lane_renames *r);
/* Links to lanes of slivers, when all roads are known. */
void dj__xodr_rename_lanes(dj__map *m, const dj__lane_renames *r);

#endif
