/*
 * Pictures and videos of towns and drives, to look at: a map from above, a bird's view of the drawn
 * town, a drive through all cameras of a rig.
 */
#ifndef DOJO_WORLD_VIEW_H
#define DOJO_WORLD_VIEW_H

#include "world/drive.h"

/* The map from above with the world's agents and the ego's route, `width` pixels across (64 to
 * 8192). `w` NULL: the map alone. */
dj_status dj__view_map(const dj__map *m, const dj__world *w, int width, const char *png);
/* The town as cameras see it, from the air south of it; 3/4 as high as wide. */
dj_status dj__view_bird(const dj__world *w, int width, const char *png);
/* What the rig's cameras see while a driver drives the world for `seconds`, side by side, as a
 * video at `rate` Hz (or the rig's, where 0). The world is driven on. */
dj_status dj__view_drive(dj__world *w, dj__driver *d, const dj__rig *rig, double seconds,
                         double rate, const char *mp4);

double dj__view_lane_metres(const dj__map *m); /* of all driving lanes */
int dj__view_lights(const dj__map *m);

#endif
