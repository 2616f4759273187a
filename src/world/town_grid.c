/*
 * Town layouts: a grid of blocks of different sizes, and an organic one, where the grid is bent by
 * smooth noise and thinned out until streets wind between T junctions.
 */
#include <math.h>

#include "world/town.h"

enum { MAX_LINES = 24 };

typedef struct lines { /* streets of one direction */
  int n;
  double at[MAX_LINES];
  int rank[MAX_LINES];
  dj__street street[MAX_LINES];
} lines;

static void place_lines(dj__town *t, double size, double lo, double hi, lines *o) {
  o->n = 0;
  double at = 0;
  while (o->n < MAX_LINES && at <= size) {
    o->at[o->n++] = at;
    at += dj__town_uniform(t, lo, hi);
  }
  double middle = 0.5 * (o->at[0] + o->at[o->n - 1]);
  for (int i = 0; i < o->n; i++) {
    o->at[i] -= middle;
    o->rank[i] = dj__town_chance(t, 0.35) ? 1 : 0;
  }
  int avenue = (int)dj__rng_below(&t->rng, (uint64_t)o->n);
  o->rank[avenue] = 2;
  if (o->n > 5 && dj__town_chance(t, 0.6)) o->rank[(avenue + o->n / 2) % o->n] = 2;
  for (int i = 0; i < o->n; i++) o->street[i] = dj__street_of(t, o->rank[i], DJ__ZONE_TOWN);
}

/* Takes streets away at random where both ends keep at least two others. */
static void thin_out(dj__town *t, int edge0, double share) {
  int n = t->n_edge - edge0;
  for (int k = 0; k < n && !t->failed; k++) {
    dj__edge *e = &t->edge[edge0 + (int)dj__rng_below(&t->rng, (uint64_t)n)];
    if (e->gone || e->keep || !dj__town_chance(t, share)) continue;
    double p = e->street.rank == 0 ? 1 : e->street.rank == 1 ? 0.5 : 0.1;
    if (!dj__town_chance(t, p)) continue;
    if (dj__town_degree(t, e->a) > 2 && dj__town_degree(t, e->b) > 2) e->gone = true;
  }
}

static void roundabouts(dj__town *t, int node0, double share) {
  for (int i = node0; i < t->n_node; i++)
    if (dj__town_chance(t, share)) t->node[i].kind = NODE_ROUNDABOUT;
}

void dj__town_grid(dj__town *t, double x0, double y0, double size, double most) {
  lines across, up;
  double turn = dj__town_uniform(t, -most, most), c = cos(turn), s = sin(turn);
  double block = dj__town_uniform(t, 0.9, 1.25);
  place_lines(t, size, 78 * block, 135 * block, &across);
  place_lines(t, size * dj__town_uniform(t, 0.75, 1), 74 * block, 120 * block, &up);
  int node0 = t->n_node, edge0 = t->n_edge;
  for (int j = 0; j < up.n; j++)
    for (int i = 0; i < across.n; i++) {
      double x = across.at[i] + dj__town_uniform(t, -5, 5),
             y = up.at[j] + dj__town_uniform(t, -5, 5);
      dj__town_node(t, x0 + c * x - s * y, y0 + s * x + c * y);
    }
  for (int j = 0; j < up.n; j++)
    for (int i = 0; i < across.n; i++) {
      int k = node0 + j * across.n + i;
      if (i + 1 < across.n) dj__town_edge(t, k, k + 1, &up.street[j]);
      if (j + 1 < up.n) dj__town_edge(t, k, k + across.n, &across.street[i]);
    }
  thin_out(t, edge0, dj__town_uniform(t, 0.12, 0.4));
  roundabouts(t, node0, 0.06);
}

/* Where the organic town bends a point of its grid to. */
static void bend(const dj__town *t, double amount, double wave, double x, double y, double o[2]) {
  o[0] = x + amount * dj__noise2(t->seed + 201, x / wave, y / wave);
  o[1] = y + amount * dj__noise2(t->seed + 202, x / wave, y / wave);
}

static void bent_edge(dj__town *t, int a, int b, const double from[2], const double to[2],
                      double amount, double wave, const dj__street *s) {
  int e = dj__town_edge(t, a, b, s);
  double length = hypot(to[0] - from[0], to[1] - from[1]), o[2];
  int pieces = length > 105 ? 4 : length > 70 ? 3 : 2;
  for (int k = 1; k < pieces; k++) {
    double f = (double)k / pieces;
    bend(t, amount, wave, from[0] + f * (to[0] - from[0]), from[1] + f * (to[1] - from[1]), o);
    dj__town_via(t, e, o[0], o[1]);
  }
}

void dj__town_organic(dj__town *t, double x0, double y0, double size) {
  lines across, up;
  place_lines(t, size, 95, 165, &across);
  place_lines(t, size, 95, 150, &up);
  double amount = dj__town_uniform(t, 50, 85), wave = dj__town_uniform(t, 190, 300);
  double grid[MAX_LINES * MAX_LINES][2];
  int node0 = t->n_node, edge0 = t->n_edge;
  for (int j = 0; j < up.n; j++)
    for (int i = 0; i < across.n; i++) {
      double *g = grid[j * across.n + i], o[2];
      g[0] = x0 + across.at[i] + dj__town_uniform(t, -14, 14);
      g[1] = y0 + up.at[j] + dj__town_uniform(t, -14, 14);
      bend(t, amount, wave, g[0], g[1], o);
      dj__town_node(t, o[0], o[1]);
    }
  for (int j = 0; j < up.n; j++)
    for (int i = 0; i < across.n; i++) {
      int k = j * across.n + i;
      if (i + 1 < across.n)
        bent_edge(t, node0 + k, node0 + k + 1, grid[k], grid[k + 1], amount, wave, &up.street[j]);
      if (j + 1 < up.n)
        bent_edge(t, node0 + k, node0 + k + across.n, grid[k], grid[k + across.n], amount, wave,
                  &across.street[i]);
    }
  thin_out(t, edge0, dj__town_uniform(t, 0.3, 0.6));
  roundabouts(t, node0, 0.14);
}
