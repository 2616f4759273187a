/*
 * Routes: the cheapest way by time over the lane graph (Dijkstra with a binary heap). Going on to a
 * successor costs the lane's length over its speed limit; a lane change costs some seconds on top,
 * and needs marks that allow it. Ties are broken by lane index, so a route is a function of the map
 * and its ends.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "world/map_build.h"

enum { MAX_WALK = 1 << 18 };
#define CHANGE_PRICE   4.0  /* s */
#define CHANGE_LENGTH  20.0 /* m that a lane must still have for a change */
#define JUNCTION_PRICE 1.5  /* s */

typedef struct node {
  double cost;
  int lane;
} node;
typedef struct finder {
  const dj__map *m;
  double *cost; /* s to stand at the lane's start (or beside its start, after a change) */
  int *from;
  node *heap;
  int n, cap;
  bool failed;
} finder;

static bool before(node a, node b) {
  return a.cost < b.cost || (a.cost == b.cost && a.lane < b.lane);
}

static void heap_push(finder *f, node v) {
  if (f->n == f->cap) {
    int cap = f->cap ? 2 * f->cap : 256;
    node *h = realloc(f->heap, (size_t)cap * sizeof *h);
    if (!h) {
      f->failed = true;
      return;
    }
    f->heap = h;
    f->cap = cap;
  }
  int i = f->n++;
  for (; i > 0 && before(v, f->heap[(i - 1) / 2]); i = (i - 1) / 2)
    f->heap[i] = f->heap[(i - 1) / 2];
  f->heap[i] = v;
}

static node heap_pop(finder *f) {
  node top = f->heap[0], v = f->heap[--f->n];
  int i = 0;
  for (;;) {
    int c = 2 * i + 1;
    if (c >= f->n) break;
    if (c + 1 < f->n && before(f->heap[c + 1], f->heap[c])) c++;
    if (!before(f->heap[c], v)) break;
    f->heap[i] = f->heap[c];
    i = c;
  }
  if (f->n > 0) f->heap[i] = v;
  return top;
}

static double lane_time(const dj__lane *l) {
  double v = l->speed_limit > 0.3 ? l->speed_limit : 0.3;
  return l->length / v + (l->junction >= 0 ? JUNCTION_PRICE : 0);
}

static void relax(finder *f, int from, int to, double cost) {
  if (!(cost < f->cost[to])) return;
  f->cost[to] = cost;
  f->from[to] = from;
  heap_push(f, (node){cost, to});
}

static void expand(finder *f, int at, double on_it) {
  const dj__lane *l = &f->m->lane[at];
  double c = f->cost[at];
  for (int i = 0; i < l->n_succ; i++) relax(f, at, f->m->graph[l->succ0 + i], c + on_it);
  if (l->length < CHANGE_LENGTH && f->m->x1 - f->m->x0 > CHANGE_LENGTH) return;
  if (l->change_left && l->left >= 0) relax(f, at, l->left, c + CHANGE_PRICE);
  if (l->change_right && l->right >= 0) relax(f, at, l->right, c + CHANGE_PRICE);
}

static bool finder_start(finder *f, const dj__map *m) {
  *f = (finder){.m = m};
  f->cost = malloc(((size_t)m->n_lane + 1) * sizeof *f->cost);
  f->from = malloc(((size_t)m->n_lane + 1) * sizeof *f->from);
  if (!f->cost || !f->from) return false;
  for (int i = 0; i < m->n_lane; i++) {
    f->cost[i] = INFINITY;
    f->from[i] = -1;
  }
  return true;
}

static void finder_free(finder *f) {
  free(f->cost);
  free(f->from);
  free(f->heap);
}

/* Length along a chain of lanes: a change goes on beside, so only what follows a successor counts.
 */
static void measure(const dj__map *m, dj__route *r) {
  r->length = r->end - r->start;
  for (int i = 0; i + 1 < r->n; i++) {
    const dj__lane *l = &m->lane[r->lane[i]];
    if (l->left != r->lane[i + 1] && l->right != r->lane[i + 1]) r->length += l->length;
  }
}

static dj_status trace(finder *f, int from, double from_s, int to, double to_s, bool loop,
                       dj__route *r) {
  int n = 1;
  for (int at = to; (at != from || loop) && f->from[at] >= 0; at = f->from[at]) {
    n++;
    if (f->from[at] == from) break;
  }
  r->lane = malloc((size_t)n * sizeof *r->lane);
  if (!r->lane) return dj_error(DJ_E_NOMEM, "no memory for a route");
  int at = to;
  for (int i = n - 1; i >= 0; i--) {
    r->lane[i] = at;
    at = i > 0 ? f->from[at] : at;
  }
  r->n = n;
  r->start = from_s;
  r->end = to_s;
  measure(f->m, r);
  return DJ_OK;
}

dj_status dj__map_route(const dj__map *m, int from, double from_s, int to, double to_s,
                        dj__route *r) {
  *r = (dj__route){0};
  if (from < 0 || from >= m->n_lane || to < 0 || to >= m->n_lane)
    return dj_error(DJ_E_INVALID, "%s: route from lane %d to %d: the map has %d lanes", m->name,
                    from, to, m->n_lane);
  finder f;
  dj_status s = DJ_OK;
  bool loop = from == to && to_s < from_s; /* once round, back onto the lane it begins on */
  if (!finder_start(&f, m)) {
    s = dj_error(DJ_E_NOMEM, "no memory for a route");
    goto done;
  }
  f.cost[from] = 0;
  const dj__lane *first = &m->lane[from];
  double rest = (first->length - from_s) / (first->speed_limit > 0.3 ? first->speed_limit : 0.3);
  expand(&f, from, rest);
  if (loop) f.cost[from] = INFINITY;
  bool found = from == to && !loop;
  while (!found && f.n > 0 && !f.failed) {
    node v = heap_pop(&f);
    if (v.cost > f.cost[v.lane]) continue;
    found = v.lane == to;
    if (!found) expand(&f, v.lane, lane_time(&m->lane[v.lane]));
  }
  if (f.failed)
    s = dj_error(DJ_E_NOMEM, "no memory for a route");
  else if (!found)
    s = dj_error(DJ_E_NOT_FOUND, "%s: no way leads from lane %d to lane %d", m->name, from, to);
  else
    s = trace(&f, from, from_s, to, to_s, loop, r);
done:
  finder_free(&f);
  return s;
}

/* A walk that turns at random, with few U-turns and lane changes, and never into a dead end if
 * another way is open. */
static dj_status walk(const dj__map *m, dj__rng *g, int start, double length, dj__route *r) {
  int cap = 64, n = 0, at = start;
  int *lane = malloc((size_t)cap * sizeof *lane);
  double done = -r->start;
  while (lane) {
    if (n + 2 > cap) {
      cap *= 2;
      int *grown = realloc(lane, (size_t)cap * sizeof *lane);
      if (!grown) {
        free(lane);
        lane = NULL;
        break;
      }
      lane = grown;
    }
    lane[n++] = at;
    const dj__lane *l = &m->lane[at];
    if (n > MAX_WALK) { /* round and round lanes of no length */
      r->end = r->start;
      break;
    }
    if (done + l->length >= length || l->n_succ == 0) {
      r->end = l->n_succ == 0 ? l->length : fmax(length - done, n == 1 ? r->start : 0);
      break;
    }
    int beside = -1; /* now and then a change of lane */
    if (l->length > 2 * CHANGE_LENGTH && (n < 2 || m->lane[lane[n - 2]].section != l->section) &&
        dj__rng_below(g, 4) == 0)
      beside = l->change_left && (!l->change_right || dj__rng_below(g, 2)) ? l->left
               : l->change_right                                           ? l->right
                                                                           : -1;
    if (beside >= 0) {
      at = beside;
      continue;
    }
    done += l->length;
    int pick = (int)dj__rng_below(g, (uint64_t)l->n_succ);
    for (int k = 0; k < l->n_succ; k++) {
      const dj__lane *next = &m->lane[m->graph[l->succ0 + (pick + k) % l->n_succ]];
      if (next->n_succ > 0 && next->turn != DJ__TURN_BACK) {
        pick = (pick + k) % l->n_succ;
        break;
      }
    }
    at = m->graph[l->succ0 + pick];
  }
  if (!lane) return dj_error(DJ_E_NOMEM, "no memory for a route");
  r->lane = lane;
  r->n = n;
  measure(m, r);
  return DJ_OK;
}

dj_status dj__map_random_route(const dj__map *m, uint64_t seed, double length, dj__route *r) {
  *r = (dj__route){0};
  if (!(length > 0 && length < 1e6))
    return dj_error(DJ_E_INVALID, "a route of %g m: must be above 0 and below 1000 km", length);
  dj__rng g = {seed, 0x726f757465, 0};
  int open = 0;
  for (int i = 0; i < m->n_lane; i++)
    open += m->lane[i].type == DJ__LANE_DRIVING && m->lane[i].junction < 0;
  for (int attempt = 0; attempt < 64 && open > 0; attempt++) {
    int pick = (int)dj__rng_below(&g, (uint64_t)open), lane = 0;
    for (;; lane++)
      if (m->lane[lane].type == DJ__LANE_DRIVING && m->lane[lane].junction < 0 && pick-- == 0)
        break;
    *r = (dj__route){.start = m->lane[lane].length * dj__rng_uniform(&g, 0.1f, 0.5f)};
    DJ_TRY(walk(m, &g, lane, length, r));
    if (r->length >= 0.999 * length) return DJ_OK;
    free(r->lane);
  }
  *r = (dj__route){0};
  return dj_error(DJ_E_NOT_FOUND, "%s: no route of %g m begins on any of its lanes", m->name,
                  length);
}

/* Lanes that can be reached from lane `from`, or from which it can be: their number, or -1. */
static int count_reached(const dj__map *m, int from, bool back) {
  int *stack = malloc(((size_t)m->n_lane + 1) * sizeof *stack), n = 0, count = 0;
  bool *seen = calloc((size_t)m->n_lane + 1, sizeof *seen);
  if (stack && seen) {
    stack[n++] = from;
    seen[from] = true;
  }
  while (n > 0) {
    const dj__lane *l = &m->lane[stack[--n]];
    count++;
    int fixed = back ? l->n_pred : l->n_succ, at = back ? l->pred0 : l->succ0;
    for (int i = 0; i < fixed + 2; i++) {
      int next = i < fixed ? m->graph[at + i] : i == fixed ? l->left : l->right;
      if (next < 0 || seen[next]) continue;
      const dj__lane *o = &m->lane[next];
      bool open = i < fixed    ? true
                  : i == fixed ? (back ? o->change_right : l->change_left)
                               : (back ? o->change_left : l->change_right);
      if (!open) continue;
      seen[next] = true;
      stack[n++] = next;
    }
  }
  bool failed = !stack || !seen;
  free(stack);
  free(seen);
  return failed ? -1 : count;
}

bool dj__map_connected(const dj__map *m) {
  int first = -1, n = 0;
  for (int i = 0; i < m->n_lane; i++) {
    if (m->lane[i].type != DJ__LANE_DRIVING) continue;
    if (first < 0) first = i;
    n++;
  }
  return n > 0 && count_reached(m, first, false) == n && count_reached(m, first, true) == n;
}
