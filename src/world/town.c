/*
 * Towns from a seed: the plane graph, made fit to be built, then built.
 */
#include "world/town.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIN_ANGLE  0.96 /* rad between streets at a node */
#define MIN_STREET 26.0 /* m between two junctions */
#define CLEARANCE  5.0  /* m between the outer edges of two streets */

double dj__town_uniform(dj__town *t, double lo, double hi) {
  return lo + (hi - lo) * (double)dj__rng_uniform(&t->rng, 0, 1);
}

bool dj__town_chance(dj__town *t, double p) {
  return dj__town_uniform(t, 0, 1) < p;
}

/* ---- the graph ---- */
static bool grow(dj__town *t, void *array, int n, int *cap, size_t size) {
  void *at;
  memcpy(&at, array, sizeof at);
  if (n < *cap) return true;
  int c = *cap ? 2 * *cap : 128;
  void *v = realloc(at, (size_t)c * size);
  if (!v) {
    t->failed = true;
    return false;
  }
  memcpy(array, &v, sizeof v);
  *cap = c;
  return true;
}

int dj__town_node(dj__town *t, double x, double y) {
  if (!grow(t, &t->node, t->n_node, &t->cap_node, sizeof *t->node)) return 0;
  t->node[t->n_node] = (dj__node){.x = x, .y = y, .junction = -1};
  return t->n_node++;
}

int dj__town_edge(dj__town *t, int a, int b, const dj__street *s) {
  if (!grow(t, &t->edge, t->n_edge, &t->cap_edge, sizeof *t->edge)) return 0;
  t->edge[t->n_edge] = (dj__edge){.a = a, .b = b, .street = *s, .road = -1};
  return t->n_edge++;
}

void dj__town_via(dj__town *t, int edge, double x, double y) {
  dj__edge *e = &t->edge[edge];
  if (t->failed || e->n_via >= TOWN_VIA) return;
  e->via[e->n_via][0] = x;
  e->via[e->n_via++][1] = y;
}

int dj__town_degree(const dj__town *t, int node) {
  int n = 0;
  for (int i = 0; i < t->n_edge; i++)
    if (!t->edge[i].gone) n += (t->edge[i].a == node) + (t->edge[i].b == node);
  return n;
}

dj__port *dj__town_port(dj__town *t, int n_arm) {
  static _Thread_local dj__port nowhere;
  if (!grow(t, &t->port, t->n_port, &t->cap_port, sizeof *t->port)) return &nowhere;
  t->port[t->n_port] = (dj__port){.n_arm = n_arm};
  return &t->port[t->n_port++];
}

void dj__port_move(dj__port *p, int arm, int lane, int to, int to_lane) {
  if (p->n_move == PORT_MOVES) return;
  int *v = p->move[p->n_move++];
  v[0] = arm;
  v[1] = lane;
  v[2] = to;
  v[3] = to_lane;
}

double dj__street_half(const dj__street *s, int side) {
  double w = s->lanes[side] * s->lane + 0.5 * s->median;
  if (s->lanes[side]) w += s->bike + s->shoulder;
  return w;
}

/* Widths after RASt 06 and RAL (German guidelines for town and country roads), rounded. */
dj__street dj__street_of(dj__town *t, int rank, dj__zone zone) {
  bool town = zone == DJ__ZONE_TOWN || zone == DJ__ZONE_SUBURB;
  static const double lane[] = {2.9, 3.1, 3.3, 3.5}, radius[] = {26, 48, 72, 150};
  static const double kmh[] = {30, 50, 50, 70}, country[] = {50, 70, 80, 100};
  dj__street s = {.lanes = {1, 1}, .lane = lane[rank], .zone = zone, .rank = rank};
  s.speed = (town ? kmh[rank] : country[rank]) * KMH;
  s.radius = town ? radius[rank] : 2 * radius[rank];
  if (rank == 2 && town && dj__town_chance(t, 0.7)) s.lanes[0] = s.lanes[1] = 2;
  if (town) {
    s.sidewalk = dj__town_uniform(t, 2.0, 3.0);
    if (dj__town_chance(t, rank == 0 ? 0.7 : rank == 1 ? 0.5 : 0.25)) s.parking = 2.1;
    if (rank > 0 && dj__town_chance(t, 0.4)) s.bike = 1.6;
    s.unmarked = rank == 0 && dj__town_chance(t, 0.6);
  } else {
    s.shoulder = rank >= 2 ? 1.5 : 1.0;
  }
  return s;
}

static void far_end(const dj__town *t, const dj__edge *e, int end, double o[2]) {
  if (e->n_via) {
    memcpy(o, e->via[end ? e->n_via - 1 : 0], sizeof e->via[0]);
  } else {
    const dj__node *n = &t->node[end ? e->a : e->b];
    o[0] = n->x;
    o[1] = n->y;
  }
}

static double edge_angle(const dj__town *t, const dj__edge *e, int end) {
  const dj__node *n = &t->node[end ? e->b : e->a];
  double o[2];
  far_end(t, e, end, o);
  return atan2(o[1] - n->y, o[0] - n->x);
}

int dj__town_arms(const dj__town *t, int node, int edge[TOWN_ARMS], bool at_end[TOWN_ARMS],
                  double angle[TOWN_ARMS]) {
  int n = 0;
  for (int i = 0; i < t->n_edge; i++)
    for (int end = 0; end < 2; end++) {
      const dj__edge *e = &t->edge[i];
      if (e->gone || (end ? e->b : e->a) != node || n == TOWN_ARMS) continue;
      double a = edge_angle(t, e, end);
      int k = n++;
      for (; k > 0 && angle[k - 1] > a; k--) {
        angle[k] = angle[k - 1];
        edge[k] = edge[k - 1];
        at_end[k] = at_end[k - 1];
      }
      angle[k] = a;
      edge[k] = i;
      at_end[k] = end != 0;
    }
  return n;
}

/* ---- tidying ---- */
static void drop_edge(dj__town *t, int edge) {
  t->edge[edge].gone = true;
}

static bool leads_on(const dj__town *t, int node) {
  return t->node[node].kind == NODE_PORT || dj__town_degree(t, node) > 1;
}

static bool drop_dead_ends(dj__town *t) {
  bool any = false;
  for (bool again = true; again;) {
    again = false;
    for (int i = 0; i < t->n_edge; i++) {
      const dj__edge *e = &t->edge[i];
      if (e->gone || (e->a != e->b && leads_on(t, e->a) && leads_on(t, e->b))) continue;
      drop_edge(t, i);
      again = any = true;
    }
  }
  return any;
}

static int port_node(const dj__town *t, const dj__port *p, int arm) {
  const dj__edge *e = &t->edge[p->arm[arm].edge];
  return p->arm[arm].at_end ? e->b : e->a;
}

static void keep_largest(dj__town *t) {
  int *part = malloc(((size_t)t->n_node + 1) * sizeof *part),
      *size = calloc((size_t)t->n_node + 1, sizeof *size);
  if (part && size) {
    for (int i = 0; i < t->n_node; i++) part[i] = i;
    for (bool again = true; again;) {
      again = false;
      for (int i = 0; i < t->n_edge; i++) {
        const dj__edge *e = &t->edge[i];
        if (e->gone || part[e->a] == part[e->b]) continue;
        int low = part[e->a] < part[e->b] ? part[e->a] : part[e->b];
        part[e->a] = part[e->b] = low;
        again = true;
      }
      for (int i = 0; i < t->n_port; i++)
        for (int k = 1; k < t->port[i].n_arm; k++) {
          int *a = &part[port_node(t, &t->port[i], 0)], *b = &part[port_node(t, &t->port[i], k)];
          again |= *a != *b;
          *a = *b = *a < *b ? *a : *b;
        }
    }
    int best = 0;
    for (int i = 0; i < t->n_edge; i++)
      if (!t->edge[i].gone) size[part[t->edge[i].a]]++;
    for (int i = 0; i < t->n_node; i++)
      if (size[i] > size[best]) best = i;
    for (int i = 0; i < t->n_edge; i++)
      if (!t->edge[i].gone && part[t->edge[i].a] != best) drop_edge(t, i);
  } else {
    t->failed = true;
  }
  free(part);
  free(size);
}

static int polyline(const dj__town *t, const dj__edge *e, double p[TOWN_VIA + 2][2]) {
  int n = 0;
  p[n][0] = t->node[e->a].x;
  p[n++][1] = t->node[e->a].y;
  for (int i = 0; i < e->n_via; i++, n++) memcpy(p[n], e->via[i], sizeof p[n]);
  p[n][0] = t->node[e->b].x;
  p[n++][1] = t->node[e->b].y;
  return n;
}

/* Joins the two streets at a node that is only a bend. */
static bool dissolve(dj__town *t, int node) {
  int edge[TOWN_ARMS], n = 0;
  for (int i = 0; i < t->n_edge && n < TOWN_ARMS; i++)
    if (!t->edge[i].gone && (t->edge[i].a == node || t->edge[i].b == node)) edge[n++] = i;
  if (n != 2 || t->node[node].fixed || t->node[node].kind != NODE_PLAIN) return false;
  dj__edge *e = &t->edge[edge[0]], *f = &t->edge[edge[1]];
  int a = e->a == node ? e->b : e->a, b = f->a == node ? f->b : f->a;
  if (a == b || a == node || b == node || e->n_via + f->n_via + 1 > TOWN_VIA) return false;
  double p[TOWN_VIA + 2][2], q[TOWN_VIA + 2][2];
  int np = polyline(t, e, p), nq = polyline(t, f, q), k = 0;
  dj__edge joined = {.a = a, .b = b, .keep = e->keep || f->keep, .road = -1};
  joined.street = e->street.rank >= f->street.rank ? e->street : f->street;
  for (int i = 1; i < np; i++, k++)
    memcpy(joined.via[k], p[e->a == node ? np - 1 - i : i], sizeof p[0]);
  for (int i = 1; i < nq - 1; i++, k++)
    memcpy(joined.via[k], q[f->a == node ? i : nq - 1 - i], sizeof q[0]);
  joined.n_via = k;
  *e = joined;
  f->gone = true;
  t->node[node].gone = true;
  return true;
}

/* A street that leaves another one at too sharp an angle goes; the lesser of the two. */
static bool drop_sharp(dj__town *t) {
  for (int node = 0; node < t->n_node; node++) {
    int edge[TOWN_ARMS];
    bool at_end[TOWN_ARMS];
    double angle[TOWN_ARMS];
    int n = dj__town_arms(t, node, edge, at_end, angle);
    for (int i = 0; i < n && n > 1; i++) {
      int k = (i + 1) % n;
      double gap = angle[k] - angle[i] + (k == 0 ? 2 * M_PI : 0);
      if (gap >= MIN_ANGLE) continue;
      const dj__edge *e = &t->edge[edge[i]], *f = &t->edge[edge[k]];
      bool first = e->keep != f->keep ? f->keep : e->street.rank <= f->street.rank;
      drop_edge(t, edge[first ? i : k]);
      return true;
    }
  }
  return false;
}

/* Length of a street's straight beginning, and its whole length along its points. */
static double straight_at(const dj__town *t, const dj__edge *e, int end) {
  const dj__node *n = &t->node[end ? e->b : e->a];
  double o[2];
  far_end(t, e, end, o);
  return hypot(o[0] - n->x, o[1] - n->y);
}

static double edge_length(const dj__town *t, const dj__edge *e) {
  double p[TOWN_VIA + 2][2], length = 0;
  int n = polyline(t, e, p);
  for (int i = 1; i < n; i++) length += hypot(p[i][0] - p[i - 1][0], p[i][1] - p[i - 1][1]);
  return length;
}

/* How far from a node its streets begin, so that corners have room for a kerb of radius r: where
 * the edges of neighbours meet, and the tangent of the fillet from there. */
void dj__town_cuts(dj__town *t, int node) {
  int edge[TOWN_ARMS];
  bool at_end[TOWN_ARMS];
  double angle[TOWN_ARMS], cut[TOWN_ARMS] = {0};
  int n = dj__town_arms(t, node, edge, at_end, angle);
  for (int i = 0; i < n; i++) {
    int k = (i + 1) % n;
    const dj__street *s = &t->edge[edge[i]].street, *o = &t->edge[edge[k]].street;
    double gap = angle[k] - angle[i] + (k == 0 ? 2 * M_PI : 0);
    double in = dj__street_half(s, at_end[i] ? 0 : 1), out = dj__street_half(o, at_end[k] ? 1 : 0);
    double r = fmax(7, fmax(s->sidewalk, o->sidewalk) + fmax(s->bike, o->bike) + 3.5);
    if (n == 2) r = 30;
    double a = 9, b = 9;
    if (gap < 2.6) {
      a = (out + in * cos(gap)) / sin(gap) + r / tan(0.5 * gap);
      b = (in + out * cos(gap)) / sin(gap) + r / tan(0.5 * gap);
    }
    cut[i] = fmax(cut[i], a);
    cut[k] = fmax(cut[k], b);
  }
  for (int i = 0; i < n; i++) {
    const dj__node *o = &t->node[node];
    double c = o->kind == NODE_PORT         ? 0
               : o->kind == NODE_ROUNDABOUT ? o->ring + 12
                                            : fmax(cut[i], 9);
    t->edge[edge[i]].cut[at_end[i]] = c;
    t->edge[edge[i]].angle[at_end[i]] = angle[i];
  }
}

/* A roundabout as large as its streets need, or none. */
static void size_ring(dj__town *t, int node) {
  int edge[TOWN_ARMS];
  bool at_end[TOWN_ARMS];
  double angle[TOWN_ARMS], least = 10;
  int n = dj__town_arms(t, node, edge, at_end, angle);
  bool fits = n >= 3;
  for (int i = 0; i < n; i++) {
    const dj__street *s = &t->edge[edge[i]].street;
    int k = (i + 1) % n;
    least = fmin(least, angle[k] - angle[i] + (k == 0 ? 2 * M_PI : 0));
    fits &= s->lanes[0] == 1 && s->lanes[1] == 1;
  }
  double r = 14;
  while (r < 26 && 2 * asin(8.5 / r) + 6 / r > least) r += 1;
  fits &= 2 * asin(8.5 / r) + 6 / r <= least;
  t->node[node].ring = r;
  if (!fits) t->node[node].kind = NODE_PLAIN;
}

static void drop_via(dj__edge *e, int end) {
  e->n_via--;
  if (end == 0) memmove(e->via, e->via + 1, (size_t)e->n_via * sizeof e->via[0]);
}

/* Streets too short for their junctions go; too short straight ends are straightened. */
static bool drop_short(dj__town *t) {
  for (int i = 0; i < t->n_node; i++) {
    if (t->node[i].kind == NODE_ROUNDABOUT) size_ring(t, i);
    dj__town_cuts(t, i);
  }
  for (int i = 0; i < t->n_edge; i++) {
    const dj__edge *e = &t->edge[i];
    if (e->gone) continue;
    if (edge_length(t, e) < e->cut[0] + e->cut[1] + MIN_STREET) {
      drop_edge(t, i);
      return true;
    }
    for (int end = 0; end < 2; end++)
      if (straight_at(t, e, end) < e->cut[end] + 10) {
        if (e->n_via)
          drop_via(&t->edge[i], end); /* straighter there */
        else
          drop_edge(t, i);
        return true;
      }
  }
  return false;
}

/* ---- clearance ---- */
static double across(const dj__street *s) { /* the wider half, with pavement */
  double a = dj__street_half(s, 0), b = dj__street_half(s, 1);
  return fmax(a, b) + s->sidewalk + s->parking;
}

static double piece_distance(const double a[2], const double b[2], const double c[2],
                             const double d[2]) {
  double best = INFINITY;
  const double *p[4] = {a, b, c, d};
  for (int k = 0; k < 4; k++) {
    const double *q = p[k], *u = k < 2 ? c : a, *v = k < 2 ? d : b;
    double ex = v[0] - u[0], ey = v[1] - u[1], e2 = ex * ex + ey * ey;
    double f = e2 > 0 ? ((q[0] - u[0]) * ex + (q[1] - u[1]) * ey) / e2 : 0;
    f = f < 0 ? 0 : f > 1 ? 1 : f;
    best = fmin(best, hypot(q[0] - u[0] - f * ex, q[1] - u[1] - f * ey));
  }
  double r0 = b[0] - a[0], r1 = b[1] - a[1], s0 = d[0] - c[0], s1 = d[1] - c[1];
  double det = r0 * s1 - r1 * s0;
  if (fabs(det) > 1e-12) {
    double u = ((c[0] - a[0]) * s1 - (c[1] - a[1]) * s0) / det,
           v = ((c[0] - a[0]) * r1 - (c[1] - a[1]) * r0) / det;
    if (u >= 0 && u <= 1 && v >= 0 && v <= 1) return 0;
  }
  return best;
}

/* Points every 8 m or so, without the ends (there streets meet). */
static int trimmed(const dj__town *t, const dj__edge *e, double end0, double end1,
                   double o[512][2]) {
  double p[TOWN_VIA + 2][2], s = 0, total = edge_length(t, e);
  int n = polyline(t, e, p), count = 0;
  for (int i = 1; i < n; i++) {
    double length = hypot(p[i][0] - p[i - 1][0], p[i][1] - p[i - 1][1]);
    int pieces = 1 + (int)(length / 8);
    for (int k = 0; k < pieces && count < 512; k++) {
      double f = (double)k / pieces, at = s + f * length;
      if (at < end0 || at > total - end1) continue;
      o[count][0] = p[i - 1][0] + f * (p[i][0] - p[i - 1][0]);
      o[count++][1] = p[i - 1][1] + f * (p[i][1] - p[i - 1][1]);
    }
    s += length;
  }
  return count;
}

static bool shares(const dj__edge *e, int node) {
  return e->a == node || e->b == node;
}

static bool too_close(const dj__town *t, const dj__edge *e, const dj__edge *f) {
  double p[512][2], q[512][2], reach = across(&e->street) + across(&f->street) + CLEARANCE;
  const double near = 2.2 * reach; /* of a shared node: by then they have parted */
  int n = trimmed(t, e, shares(f, e->a) ? near : 0, shares(f, e->b) ? near : 0, p);
  int k = trimmed(t, f, shares(e, f->a) ? near : 0, shares(e, f->b) ? near : 0, q);
  for (int i = 0; i + 1 < n; i++)
    for (int j = 0; j + 1 < k; j++) {
      if (fabs(p[i][0] - q[j][0]) + fabs(p[i][1] - q[j][1]) > 1.5 * reach + 40) continue;
      if (piece_distance(p[i], p[i + 1], q[j], q[j + 1]) < reach) return true;
    }
  return false;
}

static void box(const dj__town *t, const dj__edge *e, double o[4]) {
  double p[TOWN_VIA + 2][2];
  int n = polyline(t, e, p);
  o[0] = o[1] = 1e30;
  o[2] = o[3] = -1e30;
  for (int i = 0; i < n; i++)
    for (int k = 0; k < 2; k++) {
      o[k] = fmin(o[k], p[i][k]);
      o[2 + k] = fmax(o[2 + k], p[i][k]);
    }
}

static bool drop_close(dj__town *t) {
  for (int i = 0; i < t->n_edge; i++)
    for (int k = i + 1; k < t->n_edge; k++) {
      const dj__edge *e = &t->edge[i], *f = &t->edge[k];
      if (e->gone || f->gone ||
          (e->street.zone == DJ__ZONE_MOTORWAY && f->street.zone == DJ__ZONE_MOTORWAY))
        continue;
      double a[4], b[4];
      box(t, e, a);
      box(t, f, b);
      if (a[0] > b[2] + 60 || b[0] > a[2] + 60 || a[1] > b[3] + 60 || b[1] > a[3] + 60) continue;
      if (!too_close(t, e, f)) continue;
      bool first = e->keep != f->keep ? f->keep : e->street.rank < f->street.rank;
      drop_edge(t, first ? i : k);
      return true;
    }
  return false;
}

/* Tangent length that a bend at point i of a line wants; the turn there. */
static double bend_room(double p[][2], int i, double radius, double *turn) {
  double a = atan2(p[i][1] - p[i - 1][1], p[i][0] - p[i - 1][0]);
  double b = atan2(p[i + 1][1] - p[i][1], p[i + 1][0] - p[i][0]);
  *turn = fabs(dj__wrap(b - a));
  return 1.25 * radius * tan(0.5 * fmin(*turn, 2.6));
}

/* Points that leave a bend no room go, the straighter ones first; a street that still bends too
 * sharply for its width goes as a whole. */
static bool smooth_bends(dj__town *t) {
  bool any = false;
  for (int i = 0; i < t->n_edge; i++) {
    dj__edge *e = &t->edge[i];
    double least = across(&e->street) + 6;
    for (bool again = true; again && !e->gone;) {
      again = false;
      double p[TOWN_VIA + 2][2], room[TOWN_VIA + 2] = {0}, turn[TOWN_VIA + 2] = {0};
      int n = polyline(t, e, p);
      for (int k = 1; k + 1 < n; k++) room[k] = bend_room(p, k, e->street.radius, &turn[k]);
      room[0] = e->cut[0] + 8;
      room[n - 1] = e->cut[1] + 8;
      for (int k = 0; k + 1 < n && !again; k++) {
        double length = hypot(p[k + 1][0] - p[k][0], p[k + 1][1] - p[k][1]);
        if (room[k] + room[k + 1] <= length) continue;
        int out = k == 0 ? 1 : k + 2 == n ? k : turn[k] < turn[k + 1] ? k : k + 1;
        if (out >= 1 && out + 1 < n && turn[out] < (out == 1 || out + 2 == n ? 0.35 : 0.9)) {
          memmove(e->via + out - 1, e->via + out, (size_t)(e->n_via - out) * sizeof e->via[0]);
          e->n_via--;
          again = any = true;
        } else if (length - room[k] - room[k + 1] <
                   -(room[k] + room[k + 1]) * (1 - least / e->street.radius)) {
          drop_edge(t, i);
          any = true;
        }
      }
    }
  }
  return any;
}

static void tidy(dj__town *t) {
  for (bool again = true; again && !t->failed;) {
    again = false;
    drop_dead_ends(t);
    keep_largest(t);
    for (int i = 0; i < t->n_node; i++)
      if (!t->node[i].gone) again |= dissolve(t, i);
    again |= drop_sharp(t);
    if (!again) again |= drop_short(t);
    if (!again) again |= smooth_bends(t);
    if (!again) again |= drop_close(t);
  }
}

/* ---- heights of nodes ---- */
/* All of a port's streets, and its stretch of motorway, lie at one height. */
static void level_ports(dj__town *t) {
  for (int i = 0; i < t->n_port; i++) {
    double z = 0;
    int n = t->port[i].n_arm;
    for (int k = 0; k < n; k++) z += t->node[port_node(t, &t->port[i], k)].z / n;
    for (int k = 0; k < n; k++) t->node[port_node(t, &t->port[i], k)].z = z;
  }
}

static void set_heights(dj__town *t) {
  for (int i = 0; i < t->n_node; i++) t->node[i].z = dj__town_ground(t, t->node[i].x, t->node[i].y);
  for (int sweep = 0; sweep < 1000; sweep++) {
    level_ports(t);
    for (int i = 0; i < t->n_edge; i++) {
      const dj__edge *e = &t->edge[i];
      if (e->gone) continue;
      dj__node *a = &t->node[e->a], *b = &t->node[e->b];
      double run = 0.9 * edge_length(t, e) - e->cut[0] - e->cut[1] - 20; /* corners are cut */
      double most = 0.03 * fmax(run, 2), over = fabs(b->z - a->z) - most;
      if (over <= 0) continue;
      double move = 0.5 * over * (b->z > a->z ? 1 : -1);
      a->z += move;
      b->z -= move;
    }
  }
  level_ports(t);
}

static void build(dj__town *t) {
  for (int i = 0; i < t->n_edge; i++)
    if (!t->edge[i].gone) dj__town_road(t, i);
  for (int i = 0; i < t->n_edge && !t->b.failed; i++)
    if (!t->edge[i].gone) dj__town_zebra(t, i);
  for (int i = 0; i < t->n_node && !t->b.failed; i++) {
    if (dj__town_degree(t, i) == 0 || t->node[i].kind == NODE_PORT) continue;
    if (t->node[i].kind == NODE_ROUNDABOUT)
      dj__town_roundabout(t, i);
    else
      dj__town_junction(t, i);
  }
  for (int i = 0; i < t->n_port && !t->b.failed; i++) dj__town_port_junction(t, &t->port[i]);
}

/* ---- the whole ---- */
static const char *const style_names[DJ__N_TOWN_STYLES] = {"any",      "grid",  "organic", "rural",
                                                           "motorway", "mixed", "track"};

const char *dj__town_style_name(dj__town_style s) {
  return (unsigned)s < DJ__N_TOWN_STYLES ? style_names[s] : "?";
}

static dj__town_style pick_style(dj__town *t) {
  static const dj__town_style s[] = {DJ__TOWN_GRID,  DJ__TOWN_ORGANIC,  DJ__TOWN_RURAL,
                                     DJ__TOWN_MIXED, DJ__TOWN_MOTORWAY, DJ__TOWN_MIXED};
  return s[dj__rng_below(&t->rng, sizeof s / sizeof *s)];
}

static void lay_out(dj__town *t, dj__town_style style, double size) {
  t->lights = dj__town_uniform(t, 0.4, 1);
  t->yellow = dj__town_chance(t, 0.35);
  t->rough = dj__town_uniform(t, 420, 700);
  static const double usual[DJ__N_TOWN_STYLES][2] = {[DJ__TOWN_GRID] = {520, 800},
                                                     [DJ__TOWN_ORGANIC] = {560, 860},
                                                     [DJ__TOWN_RURAL] = {900, 1300},
                                                     [DJ__TOWN_MOTORWAY] = {1200, 1500},
                                                     [DJ__TOWN_MIXED] = {1150, 1450}};
  double drawn = dj__town_uniform(t, usual[style][0], usual[style][1]);
  if (size == 0) size = drawn;
  switch (style) {
  case DJ__TOWN_GRID:
    dj__town_grid(t, 0, 0, size, 0.5);
    break;
  case DJ__TOWN_ORGANIC:
    dj__town_organic(t, 0, 0, size);
    break;
  case DJ__TOWN_RURAL:
    dj__town_rural(t, size);
    break;
  case DJ__TOWN_MOTORWAY:
    dj__town_motorway(t, size);
    break;
  default:
    dj__town_mixed(t, size);
    break;
  }
}

static void free_town(dj__town *t) {
  free(t->node);
  free(t->edge);
  free(t->port);
  t->port = NULL;
  t->node = NULL;
  t->edge = NULL;
}

/* No port has lost a street. */
static bool whole(const dj__town *t) {
  for (int i = 0; i < t->n_port; i++)
    for (int k = 0; k < t->port[i].n_arm; k++)
      if (t->edge[t->port[i].arm[k].edge].gone) return false;
  return true;
}

/* With fewer, a town that was thinned out too much is drawn again. */
static int least_junctions(dj__town_style style, double size) {
  double share = size > 0 && size < 500 ? size * size / 250000 : 1;
  int n = style == DJ__TOWN_GRID || style == DJ__TOWN_ORGANIC ? 12 : 6;
  return (int)fmax(2, n * share);
}

dj_status dj__map_generate(const dj__town_config *c, dj__map **m) {
  *m = NULL;
  if ((unsigned)c->style >= DJ__N_TOWN_STYLES)
    return dj_error(DJ_E_INVALID, "town style %d: there are %d", (int)c->style, DJ__N_TOWN_STYLES);
  if (!(c->size >= 0 && c->size <= 4000))
    return dj_error(DJ_E_INVALID, "a town of %g m: must be 0 (the style's own) to 4000", c->size);
  if (!(c->hills <= 3)) return dj_error(DJ_E_INVALID, "hills %g: must be 3 or less", c->hills);
  for (uint64_t attempt = 0; attempt < 20; attempt++) {
    dj__town t = {.seed = c->seed + attempt * 0x9e3779b97f4a7c15ull};
    t.rng = (dj__rng){t.seed, 0x746f776e, 0};
    dj__town_style style = c->style == DJ__TOWN_ANY ? pick_style(&t) : c->style;
    char name[64];
    (void)snprintf(name, sizeof name, "%s-%llu", style == DJ__TOWN_TRACK ? "track" : "town",
                   (unsigned long long)c->seed);
    DJ_TRY(dj__build_start(&t.b, name, c->seed));
    double usual = dj__town_chance(&t, 0.35) ? 0.1 : dj__town_uniform(&t, 0.4, 1.3);
    t.hills = 11 * (c->hills < 0 ? usual : c->hills);
    dj_status s = DJ_OK;
    if (style == DJ__TOWN_TRACK) {
      s = dj__town_track(&t, c->size);
    } else {
      lay_out(&t, style, c->size);
      tidy(&t);
      dj__town_pockets(&t);
      set_heights(&t);
      if (whole(&t)) build(&t);
    }
    bool empty =
        style != DJ__TOWN_TRACK && (t.tight || t.b.m->n_junction < least_junctions(style, c->size));
    bool failed = t.failed || t.b.failed;
    free_town(&t);
    if (failed) s = dj_error(DJ_E_NOMEM, "%s: no memory for a town", name);
    if (!s && !empty) s = dj__build_finish(&t.b, m);
    dj__build_drop(&t.b);
    if (s) return s;
    if (*m && dj__map_connected(*m)) return DJ_OK;
    dj__map_destroy(*m);
    *m = NULL;
  }
  return dj_error(DJ_E_INVALID, "a town of %g m is too small for the style '%s'", c->size,
                  dj__town_style_name(c->style));
}
