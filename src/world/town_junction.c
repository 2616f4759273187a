/*
 * Nodes into junctions and roundabouts: which lane leads where, and the connecting roads.
 *
 * A connecting road's line is the middle of its driving lane (laneOffset moves it there from the
 * lane's left edge), so that what is driven is exactly its geometry. The one that goes round a
 * corner carries the pavement and the cycle lane with it.
 */
#include <math.h>
#include <stdio.h>

#include "world/town.h"

#define TURN 0.6 /* rad from where on a way is a turn */

/* ---- arms ---- */
static void lanes_of(const dj__map *m, dj__arm *a) {
  const dj__road *r = &m->road[a->road];
  int section = a->at_end ? r->section0 + r->n_section - 1 : r->section0;
  const dj__section *k = &m->section[section];
  double s = a->at_end ? r->length : 0;
  for (int pass = 0; pass < 2; pass++) { /* in the order from the left, then from the right */
    for (int n = 0; n < k->n_lane; n++) {
      int i = k->lane0 + (pass ? k->n_lane - 1 - n : n);
      const dj__road_lane *l = &m->road_lane[i];
      bool left = pass == 0, in = left != a->at_end;
      if ((left && l->id <= 0) || (!left && l->id >= 0)) continue;
      double inner, outer;
      dj__lane_edges(m, a->road, section, i, s, &inner, &outer);
      if (l->type != DJ__LANE_SIDEWALK) {
        double *half = in ? &a->half_in : &a->half_out;
        *half = fmax(*half, fabs(outer));
      } else {
        a->sidewalk = fmax(a->sidewalk, fabs(outer - inner));
      }
      if (l->type != DJ__LANE_DRIVING) continue;
      if (in && a->n_in < TOWN_LANES) a->in[a->n_in++] = l->id;
      if (!in && a->n_out < TOWN_LANES) a->out[a->n_out++] = l->id;
    }
  }
}

void dj__arm_of(dj__town *t, int road, bool at_end, int edge, dj__arm *a) {
  const dj__map *m = t->b.m;
  const dj__road *r = &m->road[road];
  *a = (dj__arm){.road = road, .edge = edge, .at_end = at_end, .zone = r->zone};
  dj__pose p;
  dj__road_at(m, road, at_end ? r->length : 0, &p);
  a->x = p.x;
  a->y = p.y;
  a->z = dj__road_z(m, road, at_end ? r->length : 0, NULL);
  a->angle = dj__wrap(p.hdg + (at_end ? M_PI : 0));
  a->rank = edge >= 0 ? t->edge[edge].street.rank : 1;
  lanes_of(m, a);
}

static int end_section_of(const dj__map *m, const dj__arm *a) {
  const dj__road *r = &m->road[a->road];
  return a->at_end ? r->section0 + r->n_section - 1 : r->section0;
}

/* Where a lane crosses the arm's end, in driving direction; its width. */
static double lane_pose(const dj__map *m, const dj__arm *a, int id, bool in, dj__pose *p) {
  int section = end_section_of(m, a), i = dj__section_lane(m, section, id);
  double s = a->at_end ? m->road[a->road].length : 0, inner, outer;
  dj__lane_edges(m, a->road, section, i, s, &inner, &outer);
  double hdg = dj__wrap(a->angle + (a->at_end ? M_PI : 0)), t = 0.5 * (inner + outer);
  *p =
      (dj__pose){a->x - t * sin(hdg), a->y + t * cos(hdg), dj__wrap(a->angle + (in ? M_PI : 0)), 0};
  return fabs(outer - inner);
}

/* ---- connecting roads ---- */
typedef struct extra { /* a lane beside the driving lane, on the kerb's side */
  dj__lane_type type;
  int id[2]; /* on the roads before and behind; 0: not there */
  double width[2];
} extra;

static void find_extra(const dj__map *m, const dj__arm *a, int lane, int which, extra *e) {
  int section = end_section_of(m, a), step = lane > 0 ? 1 : -1;
  double s = a->at_end ? m->road[a->road].length : 0;
  for (int id = lane + step;; id += step) {
    int i = dj__section_lane(m, section, id);
    if (i < 0 || m->road_lane[i].type == DJ__LANE_DRIVING) return; /* not the lane at the kerb */
    if (m->road_lane[i].type != e->type) continue;
    e->id[which] = id;
    e->width[which] = dj__lane_width(m, section, i, s);
    return;
  }
}

static int find_extras(const dj__map *m, const dj__arm *a, int from, const dj__arm *c, int to,
                       bool corner, extra *e) {
  static const dj__lane_type order[] = {DJ__LANE_BIKING, DJ__LANE_SHOULDER, DJ__LANE_SIDEWALK};
  int n = 0;
  for (int k = 0; k < 3; k++) {
    e[n] = (extra){.type = order[k]};
    find_extra(m, a, from, 0, &e[n]);
    find_extra(m, c, to, 1, &e[n]);
    bool both = e[n].id[0] && e[n].id[1];
    if (corner ? e[n].id[0] || e[n].id[1] : both && order[k] == DJ__LANE_BIKING) n++;
  }
  return n;
}

static void push_links(dj__build *b, int junction, int road, const dj__arm *a, int from,
                       const extra *e, int n) {
  dj__connection *c = DJ__PUSH(b, connection);
  *c = (dj__connection){
      .incoming = a->road, .connecting = road, .at_start = true, .link0 = b->m->n_lane_link};
  c->n_link = 1;
  int(*l)[2] = DJ__PUSH(b, lane_link);
  (*l)[0] = from;
  (*l)[1] = -1;
  for (int k = 0; k < n; k++) {
    if (!e[k].id[0]) continue;
    l = DJ__PUSH(b, lane_link);
    (*l)[0] = e[k].id[0];
    (*l)[1] = -2 - k;
    if (!b->failed) b->m->connection[b->m->n_connection - 1].n_link++;
  }
  if (!b->failed) b->m->junction[junction].n_connection++;
}

static dj__link link_to(const dj__arm *a) {
  return (dj__link){DJ__LINK_ROAD, a->road, !a->at_end};
}

/* edge: marks at the left and right edge of the driving lane; yellow: the left one is. */
static void connect(dj__town *t, int junction, const dj__arm *a, int from, const dj__arm *c, int to,
                    bool corner, bool arc, const dj__mark_type edge[2], bool yellow) {
  dj__build *b = &t->b;
  dj__map *m = b->m;
  if (b->failed) return;
  dj__pose p, q;
  double w0 = lane_pose(m, a, from, true, &p), w1 = lane_pose(m, c, to, false, &q);
  int road = m->n_road;
  dj__road *r = dj__push_road(b, "connection");
  r->junction = junction;
  r->zone = a->zone;
  r->pred = link_to(a);
  r->succ = link_to(c);
  double length = dj__push_connection(b, &p, &q, arc), d = 0.5 * (w1 - w0);
  if (b->failed) return;
  r = &m->road[road];
  r->length = length;
  r->n_geom = m->n_geom - r->geom0;
  double v = fmin(m->road[a->road].speed, m->road[c->road].speed);
  r->speed = v;
  double z0 = a->z, rise = c->z - a->z;
  *DJ__PUSH(b, elevation) = (dj__poly3){
      .a = z0, .c = 3 * rise / (length * length), .d = -2 * rise / (length * length * length)};
  *DJ__PUSH(b, offset) = (dj__poly3){
      .a = 0.5 * w0, .c = 3 * d / (length * length), .d = -2 * d / (length * length * length)};
  dj__push_section(b, 0);
  dj__push_lane(b, 0, DJ__LANE_NONE, 0, 0, 1, edge[0], yellow);
  extra e[3];
  int n = find_extras(m, a, from, c, to, corner, e);
  bool kerb = n > 0 && e[n - 1].type == DJ__LANE_SIDEWALK;
  dj__road_lane *l = dj__push_lane(b, -1, DJ__LANE_DRIVING, w0, w1, length,
                                   kerb && n == 1 ? DJ__MARK_CURB : edge[1], false);
  l->pred = from;
  l->succ = to;
  for (int k = 0; k < n; k++) {
    l = dj__push_lane(b, -2 - k, e[k].type, e[k].width[0], e[k].width[1], length,
                      kerb && k == n - 2 ? DJ__MARK_CURB : DJ__MARK_NONE, false);
    l->pred = e[k].id[0];
    l->succ = e[k].id[1];
  }
  if (b->failed) return;
  r = &m->road[road];
  r->n_elevation = r->n_offset = r->n_section = 1;
  push_links(b, junction, road, a, from, e, n);
}

/* ---- which lane leads where ---- */
typedef struct move {
  int arm, lane, to, to_lane; /* places in arm.in and arm.out, from the kerb */
} move;
typedef struct moves {
  move v[96];
  int n;
} moves;

static bool has_move(const moves *o, int arm, int lane, int to, int to_lane) {
  for (int i = 0; i < o->n; i++) {
    const move *v = &o->v[i];
    if ((arm < 0 || v->arm == arm) && (lane < 0 || v->lane == lane) && (to < 0 || v->to == to) &&
        (to_lane < 0 || v->to_lane == to_lane))
      return true;
  }
  return false;
}

static void add_move(moves *o, int arm, int lane, int to, int to_lane) {
  if (o->n < 96 && !has_move(o, arm, lane, to, to_lane))
    o->v[o->n++] = (move){arm, lane, to, to_lane};
}

/* Other arms from the sharpest right turn to the sharpest left one. */
static int by_turn(const dj__arm *arm, int n, int from, int order[TOWN_ARMS],
                   double turn[TOWN_ARMS]) {
  int count = 0;
  for (int k = 1; k < n; k++) { /* counter-clockwise from this arm: right first */
    int j = (from + k) % n;
    order[count] = j;
    turn[count++] = dj__wrap(arm[j].angle - arm[from].angle - M_PI);
  }
  return count;
}

static void usual_moves(dj__arm *arm, int n, int from, moves *o) {
  int order[TOWN_ARMS];
  double turn[TOWN_ARMS];
  int count = by_turn(arm, n, from, order, turn), lanes = arm[from].n_in;
  bool left = false;
  for (int k = 0; k < count; k++) left |= turn[k] > TURN && arm[order[k]].n_out > 0;
  for (int k = 0; k < count && lanes > 0; k++) {
    const dj__arm *to = &arm[order[k]];
    if (to->n_out == 0) continue;
    if (k == 0) add_move(o, from, 0, order[k], 0); /* round the corner */
    if (turn[k] < -TURN) {
      add_move(o, from, 0, order[k], 0);
    } else if (turn[k] > TURN) {
      if (lanes > 1 || k > 0) add_move(o, from, lanes - 1, order[k], to->n_out - 1);
    } else {
      int usable = arm[from].left_only && left ? lanes - 1 : lanes;
      if (usable > to->n_out && left) usable = to->n_out;
      for (int i = 0; i < usable; i++)
        add_move(o, from, i, order[k], i < to->n_out ? i : to->n_out - 1);
    }
  }
}

/* Every lane goes on, and every lane is reached. */
static void missing_moves(const dj__arm *arm, int n, moves *o) {
  for (int a = 0; a < n; a++)
    for (int i = 0; i < arm[a].n_in; i++) {
      if (has_move(o, a, i, -1, -1)) continue;
      int order[TOWN_ARMS], best = -1;
      double turn[TOWN_ARMS];
      int count = by_turn(arm, n, a, order, turn);
      for (int k = 0; k < count; k++)
        if (arm[order[k]].n_out > 0 && (best < 0 || fabs(turn[k]) < fabs(turn[best]))) best = k;
      if (best < 0) continue;
      int out = arm[order[best]].n_out;
      add_move(o, a, i, order[best], i < out ? i : out - 1);
    }
  for (int c = 0; c < n; c++)
    for (int k = 0; k < arm[c].n_out; k++) {
      if (has_move(o, -1, -1, c, k)) continue;
      int best = -1;
      double best_turn = 10;
      for (int a = 0; a < n; a++) {
        double turn = fabs(dj__wrap(arm[c].angle - arm[a].angle - M_PI));
        if (a != c && arm[a].n_in > 0 && turn < best_turn) {
          best = a;
          best_turn = turn;
        }
      }
      if (best >= 0) add_move(o, best, k < arm[best].n_in ? k : arm[best].n_in - 1, c, k);
    }
}

void dj__town_connect(dj__town *t, int junction, dj__arm *arm, int n, bool ring) {
  static const dj__mark_type unmarked[2] = {DJ__MARK_NONE, DJ__MARK_NONE};
  moves o = {.n = 0};
  for (int a = 0; a < n; a++) usual_moves(arm, n, a, &o);
  missing_moves(arm, n, &o);
  t->b.m->junction[junction].connection0 = t->b.m->n_connection;
  for (int i = 0; i < o.n && !t->b.failed; i++) {
    const move *v = &o.v[i];
    bool through = ring && arm[v->arm].edge < 0 && arm[v->to].edge < 0;
    bool corner = v->lane == 0 && v->to_lane == 0 && v->to == (v->arm + 1) % n;
    connect(t, junction, &arm[v->arm], arm[v->arm].in[v->lane], &arm[v->to],
            arm[v->to].out[v->to_lane], corner, through, unmarked, false);
  }
}

static int push_junction(dj__town *t, bool roundabout) {
  int index = t->b.m->n_junction;
  dj__junction *j = DJ__PUSH(&t->b, junction);
  (void)snprintf(j->id, sizeof j->id, "%d", index);
  (void)snprintf(j->name, sizeof j->name, "%s %d", roundabout ? "roundabout" : "junction", index);
  j->roundabout = roundabout;
  return index;
}

static void point_at_junction(dj__town *t, const dj__arm *a, int junction) {
  if (t->b.failed) return;
  dj__road *r = &t->b.m->road[a->road];
  *(a->at_end ? &r->succ : &r->pred) = (dj__link){DJ__LINK_JUNCTION, junction, false};
}

void dj__town_junction(dj__town *t, int node) {
  dj__arm arm[TOWN_ARMS];
  int edge[TOWN_ARMS];
  bool at_end[TOWN_ARMS];
  double angle[TOWN_ARMS];
  int n = dj__town_arms(t, node, edge, at_end, angle);
  if (t->b.failed || n < 2) return;
  int j = push_junction(t, false);
  t->node[node].junction = j;
  for (int i = 0; i < n; i++) {
    dj__arm_of(t, t->edge[edge[i]].road, at_end[i], edge[i], &arm[i]);
    point_at_junction(t, &arm[i], j);
  }
  dj__town_control(t, j, arm, n);
  dj__town_connect(t, j, arm, n, false);
}

void dj__town_port_junction(dj__town *t, const dj__port *p) {
  dj__arm arm[PORT_ARMS];
  if (t->b.failed) return;
  int j = push_junction(t, false);
  for (int i = 0; i < p->n_arm; i++) {
    dj__arm_of(t, t->edge[p->arm[i].edge].road, p->arm[i].at_end, p->arm[i].edge, &arm[i]);
    point_at_junction(t, &arm[i], j);
  }
  if (t->b.failed) return;
  t->b.m->junction[j].connection0 = t->b.m->n_connection;
  for (int i = 0; i < p->n_move; i++) {
    const int *v = p->move[i];
    const dj__arm *a = &arm[v[0]], *c = &arm[v[2]];
    bool outer = v[1] == 0 && v[3] == 0, same = a->n_in - v[1] == c->n_out - v[3];
    bool inner = v[1] == a->n_in - 1 && v[3] == c->n_out - 1;
    const dj__street *s = &t->edge[p->arm[v[0]].edge].street; /* the line between directions */
    bool middle = inner && s->median == 0 && s->lanes[0] && s->lanes[1];
    dj__mark_type line =
        middle && s->lanes[0] + s->lanes[1] > 2 ? DJ__MARK_SOLID_SOLID : DJ__MARK_SOLID;
    dj__mark_type edge[2] = {inner  ? line
                             : same ? DJ__MARK_BROKEN
                                    : DJ__MARK_NONE,
                             outer ? DJ__MARK_SOLID : DJ__MARK_NONE};
    connect(t, j, a, a->in[v[1]], c, c->out[v[3]], outer, false, edge, middle && t->yellow);
  }
}

/* ---- roundabouts ---- */
#define RING_WIDTH 4.6

static int ring_road(dj__town *t, const dj__node *c, double from, double to, const dj__edge *e) {
  dj__build *b = &t->b;
  int road = b->m->n_road;
  double r = c->ring - 0.5 * RING_WIDTH, length = dj__wrap(to - from);
  if (length < 0) length += 2 * M_PI;
  length *= r;
  dj__road *o = dj__push_road(b, "ring");
  o->zone = e->street.zone;
  o->speed = 25 * KMH;
  o->length = length;
  o->n_geom = o->n_elevation = o->n_section = 1;
  dj__push_arc(b, 0, c->x + r * cos(from), c->y + r * sin(from), dj__wrap(from + M_PI_2), length,
               1 / r);
  *DJ__PUSH(b, elevation) = (dj__poly3){.a = c->z};
  bool town = e->street.sidewalk > 0;
  dj__push_section(b, 0);
  dj__push_lane(b, 0, DJ__LANE_NONE, 0, 0, 1, town ? DJ__MARK_CURB : DJ__MARK_SOLID, false);
  dj__push_lane(b, -1, DJ__LANE_DRIVING, RING_WIDTH, RING_WIDTH, 1,
                town ? DJ__MARK_CURB : DJ__MARK_SOLID, false);
  if (town)
    dj__push_lane(b, -2, DJ__LANE_SIDEWALK, e->street.sidewalk, e->street.sidewalk, 1,
                  DJ__MARK_NONE, false);
  else
    dj__push_lane(b, -2, DJ__LANE_SHOULDER, 1, 1, 1, DJ__MARK_NONE, false);
  return road;
}

void dj__town_roundabout(dj__town *t, int node) {
  int edge[TOWN_ARMS], ring[TOWN_ARMS];
  bool at_end[TOWN_ARMS];
  double angle[TOWN_ARMS];
  int n = dj__town_arms(t, node, edge, at_end, angle);
  const dj__node *c = &t->node[node];
  double half = asin(8.5 / c->ring); /* of an entry, as an angle */
  for (int i = 0; i < n && !t->b.failed; i++)
    ring[i] = ring_road(t, c, angle[i] + half, angle[(i + 1) % n] - half, &t->edge[edge[i]]);
  for (int i = 0; i < n && !t->b.failed; i++) {
    int j = push_junction(t, true);
    dj__arm arm[3]; /* the street, the ring behind it, the ring before it: counter-clockwise */
    dj__arm_of(t, t->edge[edge[i]].road, at_end[i], edge[i], &arm[0]);
    dj__arm_of(t, ring[i], false, -1, &arm[1]);
    dj__arm_of(t, ring[(i + n - 1) % n], true, -1, &arm[2]);
    for (int k = 0; k < 3; k++) point_at_junction(t, &arm[k], j);
    dj__push_signal(&t->b, &arm[0], DJ__SIGNAL_GIVE_WAY, 0.6, 2.1);
    dj__push_signal(&t->b, &arm[0], DJ__SIGNAL_ROUNDABOUT, 1.0, 1.4);
    dj__town_connect(t, j, arm, 3, true);
    t->node[node].junction = j;
  }
}
