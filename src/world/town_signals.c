/*
 * Who may go at a junction: lights with their phases, priority roads, stop and give-way signs,
 * crossings.
 */
#include <math.h>
#include <stdio.h>

#include "world/town.h"

#define CROSSING_AT    3.6 /* m from the road's end to the middle of a crossing */
#define CROSSING_WIDTH 3.6

/* A pole on the kerb's side of who drives up to the junction, `before` m before the road's end. */
dj__signal *dj__push_signal(dj__build *b, const dj__arm *a, dj__signal_kind kind, double before,
                            double z) {
  int index = b->m->n_signal;
  double length = b->failed ? 1 : b->m->road[a->road].length, side = a->half_in + 0.7;
  dj__signal *g = DJ__PUSH(b, signal);
  *g = (dj__signal){.kind = kind,
                    .road = a->road,
                    .s = a->at_end ? length - before : before,
                    .t = a->at_end ? -side : side,
                    .z_offset = z,
                    .forward = a->at_end,
                    .controller = -1,
                    .stop = -1};
  (void)snprintf(g->id, sizeof g->id, "%d", index);
  return g;
}

static void push_crossing(dj__town *t, const dj__arm *a) {
  double length = t->b.failed ? 1 : t->b.m->road[a->road].length;
  if (length < 20) return;
  dj__crossing *c = DJ__PUSH(&t->b, crossing);
  double right = a->at_end ? a->half_in : a->half_out, left = a->at_end ? a->half_out : a->half_in;
  *c = (dj__crossing){.road = a->road,
                      .s = a->at_end ? length - CROSSING_AT : CROSSING_AT,
                      .t0 = -right,
                      .t1 = left,
                      .width = CROSSING_WIDTH,
                      .junction = -1};
}

/* The two arms that lie most in line, the important ones first. */
static void main_pair(const dj__arm *arm, int n, int pair[2]) {
  double best = -1e9;
  pair[0] = 0;
  pair[1] = 1 % n;
  for (int i = 0; i < n; i++)
    for (int k = i + 1; k < n; k++) {
      double bend = fabs(dj__wrap(arm[k].angle - arm[i].angle - M_PI));
      double score = 10.0 * (arm[i].rank + arm[k].rank) - bend;
      if (score > best) {
        best = score;
        pair[0] = i;
        pair[1] = k;
      }
    }
}

static int push_phase(dj__town *t, int junction, int sequence, double green) {
  int index = t->b.m->n_controller;
  dj__controller *c = DJ__PUSH(&t->b, controller);
  *c = (dj__controller){
      .junction = junction, .sequence = sequence, .green = green, .yellow = 3, .all_red = 2};
  (void)snprintf(c->id, sizeof c->id, "%d", index);
  return index;
}

static void push_lights(dj__town *t, dj__arm *a, int controller, int first, int last) {
  dj__signal *g = dj__push_signal(&t->b, a, DJ__SIGNAL_LIGHT, 0.7, 3.0);
  g->controller = controller;
  if (first != 0 || last != a->n_in - 1) { /* some lanes only */
    g->from_lane = a->in[first];
    g->to_lane = a->in[last];
    if (first > 0) { /* an arm over the lane */
      g->t = (a->at_end ? -1 : 1) * 0.7;
      g->z_offset = 5;
    }
  }
}

static bool turns_left(const dj__arm *arm, int n, int from) {
  for (int k = 0; k < n; k++)
    if (k != from && arm[k].n_out > 0 && dj__wrap(arm[k].angle - arm[from].angle - M_PI) > 0.6)
      return true;
  return false;
}

static bool goes_straight(const dj__arm *arm, int n, int from) {
  for (int k = 0; k < n; k++)
    if (k != from && arm[k].n_out > 0 &&
        fabs(dj__wrap(arm[k].angle - arm[from].angle - M_PI)) <= 0.6)
      return true;
  return false;
}

/* Two axes take turns. Where an axis has lanes for it, turning left has a phase of its own
 * (protected); elsewhere left turns wait for a gap (permissive). With `split`, one arm goes at a
 * time. */
static void lights(dj__town *t, int junction, dj__arm *arm, int n) {
  int pair[2], sequence = 0;
  main_pair(arm, n, pair);
  bool split = n == 3 && dj__town_chance(t, 0.3), protect = dj__town_chance(t, 0.6);
  for (int axis = 0; axis < 2; axis++) {
    bool left = false;
    int straight = -1, turn = -1;
    for (int i = 0; i < n; i++) {
      bool on_axis = i == pair[0] || i == pair[1];
      if (on_axis != (axis == 0) || arm[i].n_in == 0) continue;
      if (straight < 0 || (split && axis == 0))
        straight = push_phase(t, junction, sequence++,
                              round(dj__town_uniform(t, 10, 16)) + 3 * arm[i].rank);
      arm[i].left_only =
          protect && !split && arm[i].n_in > 1 && turns_left(arm, n, i) && goes_straight(arm, n, i);
      left |= arm[i].left_only;
      push_lights(t, &arm[i], straight, 0, arm[i].n_in - 1 - arm[i].left_only);
    }
    for (int i = 0; left && i < n; i++) {
      bool on_axis = i == pair[0] || i == pair[1];
      if (on_axis != (axis == 0) || !arm[i].left_only) continue;
      if (turn < 0) turn = push_phase(t, junction, sequence++, round(dj__town_uniform(t, 7, 11)));
      push_lights(t, &arm[i], turn, arm[i].n_in - 1, arm[i].n_in - 1);
    }
  }
}

static void signs(dj__town *t, dj__arm *arm, int n, bool stop) {
  int pair[2];
  main_pair(arm, n, pair);
  for (int i = 0; i < n; i++) {
    if (arm[i].n_in == 0) continue;
    bool first = i == pair[0] || i == pair[1];
    dj__signal_kind k = first ? DJ__SIGNAL_PRIORITY : stop ? DJ__SIGNAL_STOP : DJ__SIGNAL_GIVE_WAY;
    dj__push_signal(&t->b, &arm[i], k, first ? 8 : 0.6, 2.1);
  }
}

void dj__town_control(dj__town *t, int junction, dj__arm *arm, int n) {
  int high = 0, low = 9, lanes = 0, walk = 0;
  bool pocket = false;
  for (int i = 0; i < n; i++) {
    high = arm[i].rank > high ? arm[i].rank : high;
    low = arm[i].rank < low ? arm[i].rank : low;
    lanes += arm[i].n_in;
    walk += arm[i].sidewalk > 0;
    pocket |= arm[i].edge >= 0 && t->edge[arm[i].edge].pocket;
  }
  if (n < 3) return;
  bool big = (high >= 2 && low >= 1) || lanes >= 6;
  bool lit = pocket || (walk == n && (big ? dj__town_chance(t, t->lights)
                                          : high >= 1 && dj__town_chance(t, 0.25 * t->lights)));
  if (lit) {
    lights(t, junction, arm, n);
  } else if (high > low || high >= 1) {
    signs(t, arm, n, dj__town_chance(t, 0.4));
  } else if (dj__town_chance(t, 0.2)) { /* all-way stop */
    for (int i = 0; i < n; i++) dj__push_signal(&t->b, &arm[i], DJ__SIGNAL_STOP, 0.6, 2.1);
  }
  for (int i = 0; i < n; i++)
    if (arm[i].sidewalk > 0 && (lit || dj__town_chance(t, arm[i].rank > 0 ? 0.45 : 0.2)))
      push_crossing(t, &arm[i]);
}

/* Between two junctions, on streets of one lane each way without parked cars at the kerb. */
void dj__town_zebra(dj__town *t, int edge) {
  dj__build *b = &t->b;
  const dj__edge *e = &t->edge[edge];
  const dj__street *s = &e->street;
  double length = b->m->road[e->road].length;
  if (s->sidewalk <= 0 || s->parking > 0 || s->lanes[0] != 1 || s->lanes[1] != 1 || length < 90 ||
      s->speed > 51 * KMH || !dj__town_chance(t, 0.35))
    return;
  double at = length * dj__town_uniform(t, 0.42, 0.58);
  dj__crossing *c = DJ__PUSH(b, crossing);
  *c = (dj__crossing){.road = e->road,
                      .s = at,
                      .t0 = -dj__street_half(s, 0),
                      .t1 = dj__street_half(s, 1),
                      .width = CROSSING_WIDTH,
                      .junction = -1};
  for (int side = 0; side < 2; side++) { /* a sign for either direction, before it */
    double beside = dj__street_half(s, side) + 0.7, before = 0.5 * CROSSING_WIDTH + 0.6;
    int index = b->m->n_signal;
    dj__signal *g = DJ__PUSH(b, signal);
    *g = (dj__signal){.kind = DJ__SIGNAL_CROSSING,
                      .road = e->road,
                      .s = side ? at + before : at - before,
                      .t = side ? beside : -beside,
                      .z_offset = 2.1,
                      .forward = side == 0,
                      .controller = -1,
                      .stop = -1};
    (void)snprintf(g->id, sizeof g->id, "%d", index);
  }
}
