/* Painted lines and road edges of a map as polylines in the world, and those near a vehicle. */
#ifndef DOJO_WORLD_LABELS_LINES_H
#define DOJO_WORLD_LABELS_LINES_H

#include "world/labels.h"

typedef struct dj__lines dj__lines;

/* `scale`: of tolerances, 1 for roads. */
dj_status dj__lines_create(const dj__map *m, double scale, dj__lines **l);
void dj__lines_destroy(dj__lines *l);
/* All polylines of the map, in the world's frame: point (n, 3) of line i. For tests and drawing. */
int dj__lines_count(const dj__lines *l);
const double (*dj__lines_get(const dj__lines *l, int i, int *n, dj_line_kind *kind))[3];
/* Those within area (x0, y0, x1, y1 in the vehicle frame), cut at its border. Arrays belong to `l`
 * until the next call. */
dj_status dj__lines_near(dj__lines *l, uint64_t t_ns, const dj__frame *f, const double area[4],
                         dj_lanes *out);

#endif
