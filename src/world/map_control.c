/*
 * Who is told what where: poles of signals, crossings, stop lines and their lights' phases.
 *
 * Every lane that leads into a junction has a stop line. What rules there is the strongest signal
 * for this lane on its road (or on the connecting roads behind it, as some tools write it): lights,
 * then stop, give way, priority. Phases come from the junction's controllers, one sequence number
 * after the other; lights without a controller share two phases by the axis they lie on.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "world/map_build.h"

#define SIGNAL_REACH  60.0 /* m before a lane's end where its signals stand */
#define CROSS_REACH   25.0 /* m before a junction where a crossing belongs to it */
#define DEFAULT_GREEN 15.0 /* s; lights that no controller times */
#define YELLOW        3.0
#define ALL_RED       2.0

static void place_signals(dj__map *m) {
  for (int i = 0; i < m->n_signal; i++) {
    dj__signal *g = &m->signal[i];
    dj__pose p;
    dj__road_at(m, g->road, g->s, &p);
    g->x = p.x - g->t * sin(p.hdg);
    g->y = p.y + g->t * cos(p.hdg);
    g->z = dj__road_z(m, g->road, g->s, NULL);
    g->yaw = dj__wrap(p.hdg + (g->forward ? M_PI : 0));
    g->stop = -1;
  }
}

static int junction_near(const dj__map *m, const dj__road *r, double s) {
  if (r->junction >= 0) return r->junction;
  if (r->succ.kind == DJ__LINK_JUNCTION && r->length - s < CROSS_REACH && s >= 0.5 * r->length)
    return r->succ.index;
  if (r->pred.kind == DJ__LINK_JUNCTION && s < CROSS_REACH) return r->pred.index;
  (void)m;
  return -1;
}

static void place_crossing(dj__build *b, dj__crossing *c) {
  dj__map *m = b->m;
  const dj__road *r = &m->road[c->road];
  dj__pose p;
  dj__road_at(m, c->road, c->s, &p);
  c->x0 = p.x - c->t0 * sin(p.hdg);
  c->y0 = p.y + c->t0 * cos(p.hdg);
  c->x1 = p.x - c->t1 * sin(p.hdg);
  c->y1 = p.y + c->t1 * cos(p.hdg);
  c->z0 = c->z1 = dj__road_z(m, c->road, c->s, NULL);
  c->junction = junction_near(m, r, c->s);
  c->lane0 = m->n_crossing_lane;
  c->n_lane = 0;
  int section = dj__road_section(m, c->road, c->s);
  for (int i = 0; i < m->section[section].n_lane; i++) {
    int k = m->section[section].lane0 + i, lane = m->road_lane[k].lane;
    if (lane < 0 ||
        !((1u << m->lane[lane].type) & (1u << DJ__LANE_DRIVING | 1u << DJ__LANE_BIKING)))
      continue;
    double in, out, s = 0;
    dj__lane_edges(m, c->road, section, k, c->s, &in, &out);
    double t = 0.5 * (in + out);
    dj__map_project(m, lane, p.x - t * sin(p.hdg), p.y + t * cos(p.hdg), -1, &s, NULL);
    dj__crossing_lane *l = DJ__PUSH(b, crossing_lane);
    l->lane = lane;
    l->s = s;
    if (!b->failed) c->n_lane++;
  }
}

static int rank_of(dj__signal_kind k) {
  return k == DJ__SIGNAL_LIGHT      ? 4
         : k == DJ__SIGNAL_STOP     ? 3
         : k == DJ__SIGNAL_GIVE_WAY ? 2
         : k == DJ__SIGNAL_PRIORITY ? 1
                                    : 0;
}

static bool holds_for(const dj__signal *g, const dj__road *r, int id) {
  if (g->forward != dj__lane_forward(r, id)) return false;
  if (g->from_lane == 0 && g->to_lane == 0) return true;
  int lo = g->from_lane < g->to_lane ? g->from_lane : g->to_lane;
  int hi = g->from_lane < g->to_lane ? g->to_lane : g->from_lane;
  return id >= lo && id <= hi;
}

/* Signals by road. */
typedef struct by_road {
  int *start, *list;
} by_road;

static bool sort_signals(const dj__map *m, by_road *o) {
  o->start = calloc((size_t)m->n_road + 2, sizeof *o->start);
  o->list = calloc((size_t)m->n_signal + 1, sizeof *o->list);
  if (!o->start || !o->list) return false;
  for (int i = 0; i < m->n_signal; i++) o->start[m->signal[i].road + 2]++;
  for (int r = 0; r < m->n_road; r++) o->start[r + 2] += o->start[r + 1];
  for (int i = 0; i < m->n_signal; i++) o->list[o->start[m->signal[i].road + 1]++] = i;
  return true;
}

static int strongest(const dj__map *m, const by_road *o, int road, int id, bool whole, int best) {
  const dj__road *r = &m->road[road];
  bool forward = dj__lane_forward(r, id);
  for (int k = o->start[road]; k < o->start[road + 1]; k++) {
    const dj__signal *g = &m->signal[o->list[k]];
    double to_end = forward ? r->length - g->s : g->s;
    if (!holds_for(g, r, id) || rank_of(g->kind) == 0) continue;
    if (!whole && (to_end > SIGNAL_REACH || to_end > 0.6 * r->length)) continue;
    int now = best < 0 ? 0 : rank_of(m->signal[best].kind);
    if (rank_of(g->kind) > now) best = o->list[k];
  }
  return best;
}

/* Stops before a crossing that lies at the lane's end, otherwise half a metre before the junction.
 */
static double stop_at(const dj__map *m, const dj__lane *l, int lane, const int *crossing_of) {
  double s = l->length - 0.5;
  for (int k = crossing_of[lane]; k >= 0 && k < m->n_crossing_lane; k++) {
    if (m->crossing_lane[k].lane != lane) continue;
    int c = 0;
    while (c < m->n_crossing && k >= m->crossing[c].lane0 + m->crossing[c].n_lane) c++;
    double before = m->crossing_lane[k].s - 0.5 * m->crossing[c].width - 1;
    if (l->length - m->crossing_lane[k].s < CROSS_REACH && before < s) s = before;
  }
  return s > 0.1 ? s : fmin(0.1, 0.5 * l->length);
}

static void make_stop(dj__build *b, int lane, const by_road *o, const int *crossing_of) {
  dj__map *m = b->m;
  dj__lane *l = &m->lane[lane];
  int junction = -1;
  for (int i = 0; i < l->n_succ && junction < 0; i++)
    junction = m->lane[m->graph[l->succ0 + i]].junction;
  if (junction < 0) return;
  int sign = strongest(m, o, l->road, l->id, false, -1);
  for (int i = 0; i < l->n_succ; i++) {
    const dj__lane *next = &m->lane[m->graph[l->succ0 + i]];
    if (next->junction >= 0) sign = strongest(m, o, next->road, next->id, true, sign);
  }
  dj__stop_line *p = DJ__PUSH(b, stop);
  *p = (dj__stop_line){.lane = lane, .s = stop_at(m, l, lane, crossing_of), .junction = junction};
  if (b->failed) return;
  l->stop = m->n_stop - 1;
  if (sign < 0) return;
  dj__signal *g = &m->signal[sign];
  p->control = g->kind == DJ__SIGNAL_LIGHT      ? DJ__CONTROL_LIGHTS
               : g->kind == DJ__SIGNAL_STOP     ? DJ__CONTROL_STOP
               : g->kind == DJ__SIGNAL_GIVE_WAY ? DJ__CONTROL_GIVE_WAY
                                                : DJ__CONTROL_PRIORITY;
  if (g->stop < 0) g->stop = l->stop;
  p->green0 = g->controller; /* until phases are known */
}

static int by_phase(const void *a, const void *b, void *user) {
  const dj__map *m = user;
  int x = *(const int *)a, y = *(const int *)b;
  const dj__controller *p = &m->controller[x], *q = &m->controller[y];
  if (p->junction != q->junction) return p->junction < q->junction ? -1 : 1;
  if (p->sequence != q->sequence) return p->sequence < q->sequence ? -1 : 1;
  return x < y ? -1 : x > y;
}

/* Start of each controller's green, and the junction's cycle. `order`: room for the controllers. */
static void time_controllers(dj__map *m, double *start, int *order) {
  for (int j = 0; j < m->n_junction; j++) m->junction[j].cycle = 0;
  for (int i = 0; i < m->n_controller; i++) order[i] = i;
  if (m->n_controller) qsort_r(order, (size_t)m->n_controller, sizeof *order, by_phase, m);
  double begin = 0, end = 0;
  for (int i = 0; i < m->n_controller; i++) {
    const dj__controller *c = &m->controller[order[i]],
                         *before = i ? &m->controller[order[i - 1]] : NULL;
    if (c->junction < 0) continue;
    if (!before || before->junction != c->junction)
      begin = end = 0;
    else if (before->sequence != c->sequence)
      begin = end;
    start[order[i]] = begin;
    end = fmax(end, begin + c->green + c->yellow + c->all_red);
    m->junction[c->junction].cycle = end;
  }
}

static void time_stop(dj__map *m, dj__stop_line *p, const double *start, const double *axis) {
  int c = (int)p->green0;
  dj__junction *j = &m->junction[p->junction];
  p->green0 = 0;
  if (p->control != DJ__CONTROL_LIGHTS) return;
  if (c >= 0 && c < m->n_controller && m->controller[c].junction == p->junction) {
    p->green0 = start[c];
    p->green1 = start[c] + m->controller[c].green;
    p->yellow = m->controller[c].yellow;
    return;
  }
  const dj__lane *l = &m->lane[p->lane];
  double yaw = m->point[l->point0 + l->n_point - 1].yaw;
  bool across = fabs(sin(yaw - axis[p->junction])) > 0.7071;
  p->green0 = across ? DEFAULT_GREEN + YELLOW + ALL_RED : 0;
  p->green1 = p->green0 + DEFAULT_GREEN;
  p->yellow = YELLOW;
  j->cycle = fmax(j->cycle, 2 * (DEFAULT_GREEN + YELLOW + ALL_RED));
}

static bool time_lights(dj__map *m) {
  double *start = calloc((size_t)m->n_controller + 1, sizeof *start);
  double *axis = calloc((size_t)m->n_junction + 1, sizeof *axis);
  bool *set = calloc((size_t)m->n_junction + 1, sizeof *set);
  int *order = calloc((size_t)m->n_controller + 1, sizeof *order);
  if (start && axis && set && order) {
    time_controllers(m, start, order);
    for (int i = 0; i < m->n_stop; i++) {
      const dj__stop_line *p = &m->stop[i];
      const dj__lane *l = &m->lane[p->lane];
      if (p->control != DJ__CONTROL_LIGHTS || set[p->junction]) continue;
      axis[p->junction] = m->point[l->point0 + l->n_point - 1].yaw;
      set[p->junction] = true;
    }
    for (int i = 0; i < m->n_stop; i++) time_stop(m, &m->stop[i], start, axis);
  }
  bool ok = start && axis && set && order;
  free(order);
  free(start);
  free(axis);
  free(set);
  return ok;
}

static int crossing_by_road(const void *a, const void *b) {
  const dj__crossing *p = a, *q = b;
  if (p->road != q->road) return p->road < q->road ? -1 : 1;
  return p->s < q->s ? -1 : p->s > q->s;
}
static int signal_by_road(const void *a, const void *b) {
  const dj__signal *p = a, *q = b;
  if (p->road != q->road) return p->road < q->road ? -1 : 1;
  if (p->s != q->s) return p->s < q->s ? -1 : 1;
  return strcmp(p->id, q->id);
}

/* In the order of roads, as files have them: what is made and what is read are then the same. */
static void put_in_order(dj__map *m) {
  if (m->n_crossing)
    qsort(m->crossing, (size_t)m->n_crossing, sizeof *m->crossing, crossing_by_road);
  if (m->n_signal) qsort(m->signal, (size_t)m->n_signal, sizeof *m->signal, signal_by_road);
}

dj_status dj__map_place_stops(dj__build *b) {
  dj__map *m = b->m;
  by_road o = {0};
  put_in_order(m);
  place_signals(m);
  for (int i = 0; i < m->n_crossing; i++) place_crossing(b, &m->crossing[i]);
  int *crossing_of = malloc(((size_t)m->n_lane + 1) * sizeof *crossing_of); /* first entry, or -1 */
  bool ok = sort_signals(m, &o) && crossing_of && !b->failed;
  if (ok) {
    for (int i = 0; i < m->n_lane; i++) crossing_of[i] = -1;
    for (int k = m->n_crossing_lane - 1; k >= 0; k--) crossing_of[m->crossing_lane[k].lane] = k;
    for (int i = 0; i < m->n_lane; i++)
      if ((m->lane[i].type == DJ__LANE_DRIVING || m->lane[i].type == DJ__LANE_BIKING) &&
          m->lane[i].junction < 0)
        make_stop(b, i, &o, crossing_of);
    ok = !b->failed && time_lights(m);
  }
  for (int i = 0; ok && i < m->n_crossing; i++) {
    int j = m->crossing[i].junction;
    m->crossing[i].lights = j >= 0 && m->junction[j].cycle > 0;
  }
  free(crossing_of);
  free(o.start);
  free(o.list);
  return ok ? DJ_OK : dj_error(DJ_E_NOMEM, "%s: no memory for stop lines", m->name);
}
