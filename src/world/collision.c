/*
 * Who is where: agents sorted by counting into the buckets of a hash of square cells, made anew
 * every step; and oriented boxes against each other by the separating axis theorem.
 */
#include <math.h>

#include "world/traffic.h"

static uint32_t bucket_of(const dj__hash *h, int cx, int cy) {
  uint32_t k = (uint32_t)cx * 0x9E3779B1u ^ (uint32_t)cy * 0x85EBCA77u;
  return (k ^ (k >> 15)) & (uint32_t)(h->n_bucket - 1);
}
static int cell_of(double v) {
  return (int)floor(v * (1 / DJ__HASH_CELL));
}

void dj__traffic_hash(dj__traffic *t) {
  dj__hash *h = &t->hash;
  const dj__agents *a = &t->agents;
  for (int b = 0; b <= h->n_bucket; b++) h->start[b] = 0;
  for (int i = 0; i < a->n; i++) {
    if (!(a->flags[i] & DJ__AGENT_LIVE)) continue;
    h->cell[i][0] = cell_of(a->x[i]);
    h->cell[i][1] = cell_of(a->y[i]);
    h->bucket[i] = bucket_of(h, h->cell[i][0], h->cell[i][1]);
    h->start[h->bucket[i] + 1]++;
  }
  for (int b = 0; b < h->n_bucket; b++) h->start[b + 1] += h->start[b];
  for (int i = a->n - 1; i >= 0; i--) /* from behind, start[] ends where it should */
    if (a->flags[i] & DJ__AGENT_LIVE) h->item[--h->start[h->bucket[i] + 1]] = i;
  /* start[b + 1] is now where b begins: shift it back */
  int total = 0;
  for (int i = 0; i < a->n; i++) total += (a->flags[i] & DJ__AGENT_LIVE) != 0;
  for (int b = 0; b < h->n_bucket; b++) h->start[b] = h->start[b + 1];
  h->start[h->n_bucket] = total;
}

static int near_cell(const dj__traffic *t, int cx, int cy, double x, double y, double reach2,
                     int *out, int n, int max) {
  const dj__hash *h = &t->hash;
  const dj__agents *a = &t->agents;
  uint32_t b = bucket_of(h, cx, cy);
  for (int k = h->start[b]; k < h->start[b + 1] && n < max; k++) {
    int i = h->item[k];
    if (h->cell[i][0] != cx || h->cell[i][1] != cy || !(a->flags[i] & DJ__AGENT_LIVE))
      continue; /* another cell of the same bucket */
    double dx = a->x[i] - x, dy = a->y[i] - y;
    if (dx * dx + dy * dy <= reach2) out[n++] = i;
  }
  return n;
}

int dj__hash_near(const dj__traffic *t, double x, double y, double reach, int *out, int max) {
  int cx = cell_of(x), cy = cell_of(y), rings = (int)ceil(reach / DJ__HASH_CELL), n = 0;
  double reach2 = reach * reach;
  for (int r = 0; r <= rings && n < max; r++)
    for (int i = -r; i <= r; i++) {
      if (i == -r || i == r) {
        for (int j = -r; j <= r; j++) n = near_cell(t, cx + i, cy + j, x, y, reach2, out, n, max);
      } else {
        n = near_cell(t, cx + i, cy - r, x, y, reach2, out, n, max);
        n = near_cell(t, cx + i, cy + r, x, y, reach2, out, n, max);
      }
    }
  return n;
}

int dj__world_near(const dj__world *w, double x, double y, double reach, int *out, int max) {
  return dj__hash_near(w->traffic, x, y, reach, out, max);
}

/* True if the boxes are apart along the axes of box a. */
static bool apart(double dx, double dy, double ca, double sa, double la, double wa, double cb,
                  double sb, double lb, double wb) {
  double c = fabs(ca * cb + sa * sb), s = fabs(ca * sb - sa * cb);
  return fabs(dx * ca + dy * sa) > la + lb * c + wb * s ||
         fabs(dy * ca - dx * sa) > wa + lb * s + wb * c;
}

bool dj__agents_touch(const dj__agents *a, int i, int j, double margin) {
  double dx = a->x[j] - a->x[i], dy = a->y[j] - a->y[i];
  double li = 0.5 * (double)a->length[i] + margin, wi = 0.5 * (double)a->width[i] + margin;
  double lj = 0.5 * (double)a->length[j] + margin, wj = 0.5 * (double)a->width[j] + margin;
  double most = li + wi + lj + wj;
  if (dx * dx + dy * dy > most * most) return false;
  if (fabsf(a->z[i] - a->z[j]) > 3) return false; /* a bridge and what runs under it */
  double ci = cos((double)a->yaw[i]), si = sin((double)a->yaw[i]);
  double cj = cos((double)a->yaw[j]), sj = sin((double)a->yaw[j]);
  return !apart(dx, dy, ci, si, li, wi, cj, sj, lj, wj) &&
         !apart(dx, dy, cj, sj, lj, wj, ci, si, li, wi);
}

int dj__world_ego_collision(const dj__world *w) {
  int near[64], n = dj__world_near(w, w->agents.x[0], w->agents.y[0], 20, near, 64);
  for (int k = 0; k < n; k++)
    if (near[k] != 0 && dj__agents_touch(&w->agents, 0, near[k], 0)) return near[k];
  return -1;
}

static void ahead_in(const dj__agents *a, int i, double time, double *x, double *y, double *yaw) {
  double turn = (double)a->yaw_rate[i] * time, way = (double)a->speed[i] * time;
  *yaw = (double)a->yaw[i] + turn;
  *x = a->x[i] + way * cos((double)a->yaw[i] + 0.5 * turn);
  *y = a->y[i] + way * sin((double)a->yaw[i] + 0.5 * turn);
}

/* Boxes of i and j `time` s from now if both go on as they do. */
static bool will_touch(const dj__agents *a, int i, int j, double time, double margin) {
  double xi, yi, hi, xj, yj, hj;
  ahead_in(a, i, time, &xi, &yi, &hi);
  ahead_in(a, j, time, &xj, &yj, &hj);
  double li = 0.5 * (double)a->length[i] + margin, wi = 0.5 * (double)a->width[i] + margin;
  double lj = 0.5 * (double)a->length[j], wj = 0.5 * (double)a->width[j];
  double dx = xj - xi, dy = yj - yi, most = li + wi + lj + wj;
  if (dx * dx + dy * dy > most * most) return false;
  double ci = cos(hi), si = sin(hi), cj = cos(hj), sj = sin(hj);
  return !apart(dx, dy, ci, si, li, wi, cj, sj, lj, wj) &&
         !apart(dx, dy, cj, sj, lj, wj, ci, si, li, wi);
}

float dj__bumper(const dj__traffic *t, int i) {
  const dj__agents *a = &t->agents;
  double v = (double)a->speed[i], c = cos((double)a->yaw[i]), s = sin((double)a->yaw[i]);
  if (t->mind[i].push > 0) return HUGE_VALF; /* someone has to begin */
  int near[32], n = dj__hash_near(t, a->x[i], a->y[i], 14, near, 32);
  double scale = (double)t->mind[i].scale;
  for (int k = 0; k < n; k++) {
    int j = near[k];
    if (j == i || a->kind[j] == DJ__PEDESTRIAN) continue;
    double dx = a->x[j] - a->x[i], dy = a->y[j] - a->y[i];
    double ahead = dx * c + dy * s, reach = 0.5 * ((double)a->length[i] + (double)a->length[j]);
    if (ahead < 0 || dx * dx + dy * dy > (reach + v + 2) * (reach + v + 2)) continue;
    if (fabsf(a->z[i] - a->z[j]) > 3) continue;
    bool still = a->flags[j] & (DJ__AGENT_PARKED | DJ__AGENT_STATIC);
    if (will_touch(a, i, j, 0.35, still ? 0 : 0.1 * scale) ||
        (!still && will_touch(a, i, j, 0.7, 0.02 * scale)))
      return -6 * (float)fmin(1, v / (0.5 * scale) + 0.2);
  }
  return HUGE_VALF;
}
