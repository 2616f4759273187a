#include "world/seat.h"

#include <math.h>
#include <string.h>

static void sense(dj__seat *s, const dj__world *w, dj__sense *in) {
  in->time = (double)w->step * DJ__WORLD_DT;
  in->speed = w->ego.vx;
  in->command = dj__world_route_command(w);
  in->yaw_rate =
      s->sensed ? remainder(w->ego.yaw - s->yaw, 2 * M_PI) / fmax(in->time - s->time, 1e-9) : 0;
  s->yaw = w->ego.yaw;
  s->time = in->time;
  s->sensed = true;
}

dj_status dj__seat_decide(dj__seat *s, dj__driver *d, const dj__world *w, dj__sense *in) {
  sense(s, w, in);
  dj__command c = s->now;
  DJ_TRY(d->drive(d->self, in, d->privileged ? w : NULL, &c));
  if (s->n == DJ__SEAT_PENDING)
    memmove(s->pending, s->pending + 1, (size_t)--s->n * sizeof *s->pending);
  s->pending[s->n].step = w->step + (uint64_t)lround(d->latency / DJ__WORLD_DT);
  s->pending[s->n++].command = c;
  return DJ_OK;
}

const dj__command *dj__seat_command(dj__seat *s, uint64_t step) {
  int k = 0;
  while (k < s->n && s->pending[k].step <= step) s->now = s->pending[k++].command;
  s->n -= k;
  memmove(s->pending, s->pending + k, (size_t)s->n * sizeof *s->pending);
  return &s->now;
}
