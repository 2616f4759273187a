/*
 * Pockets: a lane of its own for turning left, at some approaches to junctions, which then have
 * lights. The last stretch before the junction becomes a street of one lane more; between it and
 * the street's rest lies a port, in which the pocket's lane parts from the innermost one and all
 * others move over by a lane's width.
 */
#include <math.h>

#include "world/town.h"

#define POCKET   36.0 /* m of it, from the old end of the road */
#define MOVE     32.0 /* m over which lanes move over: below 4 m/s^2 at 50 km/h */
#define REST     34.0 /* m of the street that must be left */
#define LEAST    28.0 /* m of a pocket that must be left where the junction grew */
#define TURNS    0.6  /* rad: less is straight on */
#define LANES_IN 2    /* streets with more have no pockets */

/* Where the street goes from this end: the next point on its way, or the other node. */
static void next_point(const dj__town *t, const dj__edge *e, int end, double o[2]) {
  const dj__node *far = &t->node[end ? e->a : e->b];
  int k = end ? e->n_via - 1 : 0;
  o[0] = e->n_via ? e->via[k][0] : far->x;
  o[1] = e->n_via ? e->via[k][1] : far->y;
}

/* m of straight street that the bend at its first point, or the other junction, needs. */
static double needed_beyond(const dj__town *t, const dj__edge *e, int end, const double from[2]) {
  if (e->n_via == 0) return e->cut[1 - end] + REST;
  int k = end ? e->n_via - 1 : 0, step = end ? -1 : 1;
  const dj__node *far = &t->node[end ? e->a : e->b];
  bool last = k + step < 0 || k + step >= e->n_via;
  double x = last ? far->x : e->via[k + step][0], y = last ? far->y : e->via[k + step][1];
  double in = atan2(e->via[k][1] - from[1], e->via[k][0] - from[0]);
  double turn = fabs(dj__wrap(atan2(y - e->via[k][1], x - e->via[k][0]) - in));
  return 1.3 * e->street.radius * tan(0.5 * fmin(turn, 2.6)) + 10;
}

static bool can_widen(const dj__town *t, const dj__edge *e, int end, int node) {
  const dj__street *s = &e->street;
  int in = s->lanes[end ? 0 : 1], out = s->lanes[end ? 1 : 0];
  if (in < 1 || in > LANES_IN || out < 1 || s->rank < 1 || s->sidewalk <= 0 || s->median > 0)
    return false;
  const dj__node *n = &t->node[node];
  double o[2], from[2] = {n->x, n->y};
  next_point(t, e, end, o);
  return hypot(o[0] - n->x, o[1] - n->y) >
         e->cut[end] + POCKET + MOVE + needed_beyond(t, e, end, from);
}

static void join(dj__town *t, int edge, int end, int pocket, int in, int out) {
  dj__port *p = dj__town_port(t, 2);
  p->arm[0] = (dj__port_arm){edge, end != 0};
  p->arm[1] = (dj__port_arm){pocket, false};
  for (int i = 0; i < in; i++) dj__port_move(p, 0, i, 1, i);
  dj__port_move(p, 0, in - 1, 1, in);
  for (int i = 0; i < out; i++) dj__port_move(p, 1, i, 0, i);
}

/* Every street here still has room between its junctions. */
static bool room(const dj__town *t, int node) {
  int edge[TOWN_ARMS];
  bool at_end[TOWN_ARMS];
  double angle[TOWN_ARMS];
  int n = dj__town_arms(t, node, edge, at_end, angle);
  for (int i = 0; i < n; i++) {
    const dj__edge *e = &t->edge[edge[i]];
    double o[2];
    next_point(t, e, at_end[i], o);
    double straight = hypot(o[0] - t->node[node].x, o[1] - t->node[node].y);
    if (straight < e->cut[at_end[i]] + (e->pocket ? LEAST : 10)) return false;
    if (e->n_via == 0 && !e->pocket && straight < e->cut[0] + e->cut[1] + REST - 8) return false;
  }
  return true;
}

static void split(dj__town *t, int edge, int end) {
  int node = end ? t->edge[edge].b : t->edge[edge].a;
  const dj__edge was = t->edge[edge];
  double o[2], x = t->node[node].x, y = t->node[node].y;
  next_point(t, &was, end, o);
  double d = hypot(o[0] - x, o[1] - y), ux = (o[0] - x) / d, uy = (o[1] - y) / d;
  double s = was.cut[end] + POCKET;
  int near = dj__town_node(t, x + s * ux, y + s * uy),
      far = dj__town_node(t, x + (s + MOVE) * ux, y + (s + MOVE) * uy);
  dj__street street = was.street;
  int in = street.lanes[end ? 0 : 1], out = street.lanes[end ? 1 : 0];
  street.lanes[0] = in + 1;
  street.lanes[1] = out;
  street.parking = 0;
  street.unmarked = false;
  int pocket = dj__town_edge(t, near, node, &street);
  join(t, edge, end, pocket, in, out);
  if (t->failed) return;
  t->node[near].kind = t->node[far].kind = NODE_PORT;
  t->edge[pocket].pocket = true;
  *(end ? &t->edge[edge].b : &t->edge[edge].a) = far;
  t->edge[edge].cut[end] = 0;
  dj__town_cuts(t, node);
  if (room(t, node)) return;
  t->n_edge--; /* as it was */
  t->n_node -= 2;
  t->n_port--;
  t->edge[edge] = was;
  dj__town_cuts(t, node);
}

/* Arm i has somebody to turn left to, and somewhere to go straight on to. */
static bool wants_pocket(const dj__town *t, const int *edge, const bool *at_end,
                         const double *angle, int n, int i) {
  bool left = false, straight = false;
  for (int k = 0; k < n; k++) {
    const dj__edge *e = &t->edge[edge[k]];
    if (k == i || e->street.lanes[at_end[k] ? 1 : 0] == 0) continue;
    double turn = dj__wrap(angle[k] - angle[i] - M_PI);
    left |= turn > TURNS;
    straight |= fabs(turn) <= TURNS;
  }
  return left && straight;
}

void dj__town_pockets(dj__town *t) {
  int n_node = t->n_node;
  for (int node = 0; node < n_node && !t->failed; node++) {
    int edge[TOWN_ARMS];
    bool at_end[TOWN_ARMS], walk = true;
    double angle[TOWN_ARMS];
    if (t->node[node].gone || t->node[node].kind != NODE_PLAIN) continue;
    int n = dj__town_arms(t, node, edge, at_end, angle);
    for (int i = 0; i < n; i++) walk &= t->edge[edge[i]].street.sidewalk > 0;
    if (n < 3 || !walk || !dj__town_chance(t, 0.5 * t->lights)) continue;
    for (int i = 0; i < n && !t->failed; i++)
      if (wants_pocket(t, edge, at_end, angle, n, i) &&
          can_widen(t, &t->edge[edge[i]], at_end[i], node) && dj__town_chance(t, 0.75))
        split(t, edge[i], at_end[i]);
  }
}
