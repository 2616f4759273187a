/* OpenDRIVE files: whatever is in them, reading ends with a map that can be asked, or an error. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "world/map.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  dj__map *m = NULL;
  if (dj__map_parse_xodr("fuzz.xodr", (const char *)data, size, &m)) return 0;
  double s, t;
  int lane =
      dj__map_nearest(m, 0.5 * (m->x0 + m->x1), 0.5 * (m->y0 + m->y1), NAN, ~0u, 1e9, &s, &t);
  if (lane >= 0) {
    dj__place p;
    dj__map_at(m, lane, s, 0, &p);
    (void)dj__map_drivable(m, p.x, p.y, true);
    (void)dj__map_height(m, p.x, p.y);
    (void)dj__map_ground(m, p.x, p.y);
  }
  for (int i = 0; i < m->n_stop; i++) (void)dj__map_light(m, i, 12.5);
  dj__route r;
  if (!dj__map_random_route(m, 1, 100, &r)) free(r.lane);
  dj__map_destroy(m);
  return 0;
}
