/*
 * What traffic works out from a map once: speeds for bends, conflicts of lanes that part, where
 * cyclists ride, where agents may be put, and how pavements hang together. Shared, never changed.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "world/traffic.h"

#define SPOT_DRIVE 8.0
#define SPOT_PARK  6.6 /* a parked car and its gaps */
#define SPOT_WALK  5.0
#define CORNER     14.0 /* m between ends of pavements that one walks from one to the other */

/* Speed for 1 m/s^2 sideways; before a bend no more than what 0.6 m/s^2 of braking brings down (a
 * driver who takes bends at 2 m/s^2 scales both). */
static void find_curve_speeds(dj__net *n) {
  const dj__map *m = n->map;
  for (int l = 0; l < m->n_lane; l++) {
    const dj__lane *lane = &m->lane[l];
    float v = 100;
    for (int k = lane->n_point - 1; k >= 0; k--) {
      const dj__lane_point *p = &m->point[lane->point0 + k];
      float ds = k + 1 < lane->n_point ? p[1].s - p[0].s : 0;
      float braked = sqrtf(v * v + 2 * 0.6f * ds), bend = sqrtf(1 / (fabsf(p->curvature) + 1e-4f));
      v = braked < bend ? braked : bend;
      n->curve_speed[lane->point0 + k] = v;
      n->bend[l] = fmaxf(n->bend[l], fabsf(p->curvature));
      /* what a box of 12 m sweeps: its width and length^2 / 8 R */
      if (fabsf(p->curvature) > fmaxf((p->width - 2.45f) / 18, lane->junction >= 0 ? 1 / 14.0f : 0))
        n->tight[l] = 1;
    }
  }
}

static bool same_origin(const dj__map *m, int a, int b) {
  for (int i = 0; i < m->lane[a].n_pred; i++)
    for (int j = 0; j < m->lane[b].n_pred; j++)
      if (dj__pred(m, a, i) == dj__pred(m, b, j)) return true;
  return false;
}

/* a lies beside b, or what leads to it beside what leads to b. */
static bool from_beside(const dj__map *m, int a, int b) {
  for (int i = 0; i < m->lane[a].n_pred; i++)
    for (int j = 0; j < m->lane[b].n_pred; j++) {
      const dj__lane *p = &m->lane[dj__pred(m, a, i)];
      int q = dj__pred(m, b, j);
      if (p->left == q || p->right == q) return true;
    }
  return false;
}

static void find_parting(dj__net *n) {
  const dj__map *m = n->map;
  for (int l = 0; l < m->n_lane; l++)
    for (int c = 0; c < m->lane[l].n_conflict; c++) {
      int k = m->lane[l].conflict0 + c;
      n->parting[k] = same_origin(m, l, m->conflict[k].lane);
      n->zip[k] = m->conflict[k].merge && m->lane[l].turn == m->lane[m->conflict[k].lane].turn &&
                  from_beside(m, l, m->conflict[k].lane);
    }
}

static bool leads_to_fast_only(const dj__net *n, int lane) {
  const dj__map *m = n->map;
  int ways = 0;
  for (int k = 0; k < m->lane[lane].n_succ; k++) {
    int next = dj__succ(m, lane, k);
    if (m->lane[next].type != DJ__LANE_DRIVING) continue;
    if (!n->fast[next]) return false;
    ways++;
  }
  return ways > 0;
}

static void find_fast(dj__net *n) {
  const dj__map *m = n->map;
  for (int l = 0; l < m->n_lane; l++) n->fast[l] = m->lane[l].zone == DJ__ZONE_MOTORWAY;
  for (bool more = true; more;) { /* back along slip roads */
    more = false;
    for (int l = m->n_lane - 1; l >= 0; l--) {
      if (n->fast[l] || !leads_to_fast_only(n, l)) continue;
      n->fast[l] = 1;
      more = true;
    }
  }
}

static bool beside(const dj__lane *a, const dj__lane *b) {
  return a->road == b->road && a->section == b->section && (a->id > 0) == (b->id > 0);
}

/* At the right edge, or in the middle of a bicycle lane beside. */
static void find_bike_places(dj__net *n) {
  const dj__map *m = n->map;
  for (int l = 0; l < m->n_lane; l++) {
    const dj__lane *lane = &m->lane[l];
    float w = dj__width_at(m, l, 0.5 * lane->length);
    n->bike_t[l] = lane->junction >= 0 ? 0 : -(0.5f * w - fminf(0.7f, 0.22f * w));
  }
  for (int b = 0; b < m->n_lane; b++) {
    const dj__lane *bike = &m->lane[b];
    if (bike->type != DJ__LANE_BIKING || bike->junction >= 0) continue;
    double x, y, s, t;
    dj__lane_xy(m, b, 0.5 * bike->length, 0, &x, &y);
    for (int l = 0; l < m->n_lane; l++) {
      const dj__lane *lane = &m->lane[l];
      if (lane->type != DJ__LANE_DRIVING || !beside(lane, bike) || lane->right >= 0) continue;
      (void)dj__map_project(m, l, x, y, -1, &s, &t);
      if (t < 0 && t > -6) n->bike_t[l] = (float)t;
    }
  }
}

static void add_spot(dj__spot **list, int *n, int *room, const dj__map *m, int lane, double s) {
  if (*n == *room) {
    int more = *room ? 2 * *room : 1024;
    dj__spot *grown = realloc(*list, (size_t)more * sizeof **list);
    if (!grown) return; /* fewer places to choose from */
    *list = grown;
    *room = more;
  }
  double x, y;
  dj__lane_xy(m, lane, s, 0, &x, &y);
  (*list)[(*n)++] = (dj__spot){lane, (float)s, (float)x, (float)y};
}

/* Straight enough and of full width for the whole car. */
static bool may_park(const dj__map *m, int lane, double s) {
  double f;
  for (int d = -3; d <= 3; d += 3) {
    const dj__lane_point *p = dj__lane_at(m, lane, s + d, &f);
    if (fabsf(p->curvature) > 1 / 50.0f || p->width < 1.9f) return false;
  }
  return true;
}

static void find_spots(dj__net *n) {
  const dj__map *m = n->map;
  int room[3] = {0};
  for (int l = 0; l < m->n_lane; l++) {
    const dj__lane *lane = &m->lane[l];
    bool toy = lane->zone == DJ__ZONE_TRACK, drive = lane->type == DJ__LANE_DRIVING;
    bool park = lane->type == DJ__LANE_PARKING, walk = lane->type == DJ__LANE_SIDEWALK;
    if ((!drive && !park && !walk) || (drive && (lane->n_conflict || lane->junction >= 0)))
      continue;
    double edge = drive ? (toy ? 0.5 : 5) : park ? 4 : 1;
    double apart = drive ? (toy ? 1 : SPOT_DRIVE) : park ? SPOT_PARK : SPOT_WALK;
    int count = (int)ceil((lane->length - 2 * edge) / apart);
    for (int k = 0; k < count; k++) {
      double s = edge + k * apart;
      if (drive) add_spot(&n->drive, &n->n_drive, &room[0], m, l, s);
      if (park && may_park(m, l, s)) add_spot(&n->park, &n->n_park, &room[1], m, l, s);
      if (walk) add_spot(&n->walk, &n->n_walk, &room[2], m, l, s);
    }
  }
}

static int by_s(const void *a, const void *b) {
  const dj__lane_crossing *p = a, *q = b;
  return p->s < q->s ? -1 : p->s > q->s;
}

/* Crossings of each lane, by s. */
static void find_lane_crossings(dj__net *n) {
  const dj__map *m = n->map;
  for (int c = 0; c < m->n_crossing_lane; c++) n->crossing0[m->crossing_lane[c].lane + 1]++;
  for (int l = 0; l < m->n_lane; l++) n->crossing0[l + 1] += n->crossing0[l];
  for (int c = m->n_crossing - 1; c >= 0; c--) {
    const dj__crossing *x = &m->crossing[c];
    double dx = x->x1 - x->x0, dy = x->y1 - x->y0, d2 = dx * dx + dy * dy + 1e-9;
    for (int k = 0; k < x->n_lane; k++) {
      const dj__crossing_lane *cl = &m->crossing_lane[x->lane0 + k];
      double px, py;
      dj__lane_xy(m, cl->lane, cl->s, 0, &px, &py);
      float w = dj__width_at(m, cl->lane, cl->s);
      int first = n->crossing0[cl->lane], at = first; /* the first place that is still empty */
      while (n->lane_crossing[at].half > 0) at++;
      n->lane_crossing[at] = (dj__lane_crossing){
          c, (float)cl->s, (float)(((px - x->x0) * dx + (py - x->y0) * dy) / d2),
          0.5f * w / (float)sqrt(d2)};
    }
  }
  for (int l = 0; l < m->n_lane; l++)
    qsort(n->lane_crossing + n->crossing0[l], (size_t)(n->crossing0[l + 1] - n->crossing0[l]),
          sizeof *n->lane_crossing, by_s);
}

/* ---- how pavements hang together ---- */
typedef struct walk_end {
  int lane;
  float s;
  double x, y;
} walk_end;

static void link_walks(dj__net *n, int *room, int lane, double s, int to, double to_s, int crossing,
                       bool from_first) {
  if (n->n_walk_link == *room) {
    int more = *room ? 2 * *room : 1024;
    dj__walk_link *grown = realloc(n->walk_link, (size_t)more * sizeof *grown);
    if (!grown) return;
    n->walk_link = grown;
    *room = more;
  }
  n->walk_link[n->n_walk_link] = (dj__walk_link){.to = to,
                                                 .s = (float)s,
                                                 .to_s = (float)to_s,
                                                 .crossing = crossing,
                                                 .next = n->walk_head[lane],
                                                 .from_first = from_first};
  n->walk_head[lane] = n->n_walk_link++;
}

static bool off_the_road(const dj__map *m, const walk_end *a, const walk_end *b) {
  double d = hypot(b->x - a->x, b->y - a->y);
  int steps = (int)(d / 0.5) + 1;
  for (int k = 0; k <= steps; k++) {
    double f = (double)k / steps;
    if (dj__map_drivable(m, a->x + f * (b->x - a->x), a->y + f * (b->y - a->y), false))
      return false;
  }
  return true;
}

static dj_status find_walk_links(dj__net *n) {
  const dj__map *m = n->map;
  int n_end = 0, room = 0;
  walk_end *end = malloc(((size_t)m->n_lane * 2 + 1) * sizeof *end);
  if (!end) return dj_error(DJ_E_NOMEM, "no memory for the pavements' ends");
  for (int l = 0; l < m->n_lane; l++) {
    n->walk_head[l] = -1;
    if (m->lane[l].type != DJ__LANE_SIDEWALK) continue;
    for (int k = 0; k < 2; k++) {
      walk_end *e = &end[n_end++];
      e->lane = l;
      e->s = k ? (float)m->lane[l].length : 0;
      dj__lane_xy(m, l, (double)e->s, 0, &e->x, &e->y);
    }
  }
  for (int i = 0; i < n_end; i++)
    for (int j = 0; j < n_end; j++) {
      if (end[i].lane == end[j].lane) continue;
      double dx = end[j].x - end[i].x, dy = end[j].y - end[i].y;
      if (dx * dx + dy * dy > CORNER * CORNER || !off_the_road(m, &end[i], &end[j])) continue;
      link_walks(n, &room, end[i].lane, (double)end[i].s, end[j].lane, (double)end[j].s, -1, false);
    }
  free(end);
  for (int c = 0; c < m->n_crossing; c++) {
    const dj__crossing *x = &m->crossing[c];
    double s0, t0, s1, t1;
    int a = dj__map_nearest(m, x->x0, x->y0, NAN, 1u << DJ__LANE_SIDEWALK, 8, &s0, &t0);
    int b = dj__map_nearest(m, x->x1, x->y1, NAN, 1u << DJ__LANE_SIDEWALK, 8, &s1, &t1);
    if (a < 0 || b < 0) continue;
    link_walks(n, &room, a, s0, b, s1, c, true);
    link_walks(n, &room, b, s1, a, s0, c, false);
  }
  return DJ_OK;
}

dj_status dj__net_create(const dj__map *m, dj__net **out) {
  *out = NULL;
  dj__net *n = calloc(1, sizeof *n);
  if (!n) return dj_error(DJ_E_NOMEM, "no memory for traffic's view of the map");
  n->references = 1;
  n->map = m;
  n->curve_speed = calloc((size_t)m->n_point + 1, sizeof *n->curve_speed);
  n->parting = calloc((size_t)m->n_conflict + 1, 1);
  n->zip = calloc((size_t)m->n_conflict + 1, 1);
  n->bend = calloc((size_t)m->n_lane + 1, sizeof *n->bend);
  n->tight = calloc((size_t)m->n_lane + 1, 1);
  n->fast = calloc((size_t)m->n_lane + 1, 1);
  n->bike_t = calloc((size_t)m->n_lane + 1, sizeof *n->bike_t);
  n->crossing0 = calloc((size_t)m->n_lane + 2, sizeof *n->crossing0);
  n->lane_crossing = calloc((size_t)m->n_crossing_lane + 1, sizeof *n->lane_crossing);
  n->walk_head = calloc((size_t)m->n_lane + 1, sizeof *n->walk_head);
  dj_status s = DJ_OK;
  if (!n->curve_speed || !n->parting || !n->zip || !n->fast || !n->bike_t || !n->tight ||
      !n->bend || !n->crossing0 || !n->lane_crossing || !n->walk_head)
    s = dj_error(DJ_E_NOMEM, "no memory for traffic's view of the map");
  if (!s) {
    find_curve_speeds(n);
    find_parting(n);
    find_fast(n);
    find_bike_places(n);
    find_spots(n);
    find_lane_crossings(n);
    s = find_walk_links(n);
  }
  if (s)
    dj__net_release(n);
  else
    *out = n;
  return s;
}

dj__net *dj__net_share(dj__net *n) {
  (void)__atomic_add_fetch(&n->references, 1, __ATOMIC_RELAXED);
  return n;
}

void dj__net_release(dj__net *n) {
  if (!n || __atomic_sub_fetch(&n->references, 1, __ATOMIC_ACQ_REL) > 0) return;
  free(n->curve_speed);
  free(n->parting);
  free(n->zip);
  free(n->tight);
  free(n->fast);
  free(n->bend);
  free(n->bike_t);
  free(n->crossing0);
  free(n->lane_crossing);
  free(n->drive);
  free(n->park);
  free(n->walk);
  free(n->walk_head);
  free(n->walk_link);
  free(n);
}
