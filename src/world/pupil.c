#include "world/pupil.h"

#include <math.h>

#define STRAY  1.1 /* m off its lane's middle, at which the expert takes the wheel */
#define HOME   0.4 /* m, at which it may give it back */
#define LENGTH 4.7 /* m, of the car that these fit */

dj_status dj__pupil_start(dj__pupil *p, dj__driver *network, const dj__world *w) {
  *p = (dj__pupil){.network = network};
  return network->reset ? network->reset(network->self, w) : DJ_OK;
}

dj_status dj__pupil_see(dj__pupil *p, const dj__picture *pictures, int n, const dj__world *w) {
  return dj__seat_decide(&p->seat, p->network, w,
                         &(dj__sense){.n_picture = n, .picture = pictures});
}

/* m from the middle of the nearest of the route's lanes here. */
static double off_lane(const dj__world *w) {
  double least = HUGE_VAL, s, t;
  for (int i = w->route_at > 0 ? w->route_at - 1 : 0; i < w->route.n && i <= w->route_at + 1; i++) {
    double d =
        dj__map_project(w->map, w->route.lane[i], w->agents.x[0], w->agents.y[0], -1, &s, &t);
    least = fmin(least, d);
  }
  return least;
}

/* Do they want different things: another way, one brakes and the other does not, one stands? */
static bool differ(const dj__command *a, const dj__command *b, double v) {
  if (fabsf(a->steering - b->steering) > 0.25f) return true;
  if (a->brake > 0.25f && b->brake < 0.05f) return true;
  return v < 0.5 && a->throttle > 0.15f && b->throttle < 0.05f;
}

dj__command dj__pupil_step(dj__pupil *p, const dj__world *w, const dj__command *expert) {
  const dj__command *own = dj__seat_command(&p->seat, w->step);
  double scale = fmin(1, w->ego.model->length / LENGTH), off = off_lane(w);
  double patience = w->ego.vx < 0.5 ? 2 : 0.4; /* s */
  p->apart = differ(expert, own, w->ego.vx) ? p->apart + DJ__WORLD_DT : 0;
  if (off > STRAY * scale || p->apart > patience)
    p->taken = 2;
  else if (p->taken > 0 && off < HOME * scale)
    p->taken -= DJ__WORLD_DT;
  p->steps++;
  if (p->taken > 0) return *expert;
  p->own++;
  return *own;
}
