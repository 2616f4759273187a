/*
 * Who goes first. A lane whose area others share (a `dj__conflict`) may be entered only with the
 * right to pass it, which is asked for at the last place where one could still stop:
 *   - lights: green, or yellow when it is too late to stop (3 m/s^2 as in ITE's rule for the length
 *     of yellow; ITE, "Guidelines for determining traffic signal change and clearance intervals",
 *     2020); stop signs: only after having stood;
 *   - gap acceptance against those with right of way: they must come at least GAP s after one has
 *     left what is shared (with the time of the manoeuvre itself this gives critical gaps of 4 to 7
 *     s, as in the Highway Capacity Manual, 6th ed., exhibit 20-11), less the longer one has waited
 *     (Polus, Shmueli Lazar, Livneh, "Critical gap as a function of waiting time in determining
 *     roundabout capacity", Journal of Transportation Engineering 129, 2003), until those who can
 *     still stop with ease let one in;
 *   - where lanes side by side become one, who is on the lane that ends gives way to those on the
 *     one that goes on; in a jam, when these are slow, they go by turns: who is nearer goes first;
 *   - nobody who has the right already may still be going to use it;
 *   - room behind the junction, so that nobody stands in it.
 * Rights are numbered. Inside, one waits only for those who hold a lower number, which cannot go
 * round in a circle. Lanes that follow each other without room to stand between them are asked for
 * together (roundabouts). Where all who might go first stand and wait for each other, the one who
 * has stood longest enough goes.
 */
#include <math.h>

#include "world/traffic.h"

#define GAP     1.0f  /* s */
#define PATIENT 6.0f  /* s of waiting that change nothing */
#define LET_IN  25.0f /* s after which one is let in */
#define STANDS  15.0f /* s after which one whom others move is let in */
#define LETS    6.0f  /* s for which one waits for it */

dj__light dj__traffic_light(const dj__traffic *t, int stop) {
  return t->map->stop[stop].control == DJ__CONTROL_LIGHTS ? dj__map_light(t->map, stop, t->time)
                                                          : DJ__LIGHT_OFF;
}

static int order_of(const dj__mind *m, int lane) {
  for (int h = 0; h < DJ__HOLD; h++)
    if (m->hold[h] == lane) return m->hold_order[h];
  return 0;
}

bool dj__holds(const dj__mind *m, int lane) {
  return order_of(m, lane) > 0;
}

static int free_holds(const dj__mind *m) {
  int n = 0;
  for (int h = 0; h < DJ__HOLD; h++) n += m->hold[h] < 0;
  return n;
}

static void take(dj__traffic *t, int i, int lane) {
  dj__mind *m = &t->mind[i];
  for (int h = 0; h < DJ__HOLD; h++)
    if (m->hold[h] < 0) {
      m->hold[h] = lane;
      m->hold_order[h] = t->next_order++;
      for (int k = t->intent_head[lane]; k >= 0; k = t->intent[k].next)
        if (t->intent[k].agent == i) t->intent[k].order = m->hold_order[h];
      return;
    }
}

static void drop(dj__traffic *t, int i, int lane) {
  dj__mind *m = &t->mind[i];
  for (int h = 0; h < DJ__HOLD; h++)
    if (m->hold[h] == lane) m->hold[h] = -1, m->hold_order[h] = 0;
  for (int k = t->intent_head[lane]; k >= 0; k = t->intent[k].next)
    if (t->intent[k].agent == i) t->intent[k].order = 0;
}

/* Rights are given back when the box has left the lane. */
void dj__holds_release(dj__traffic *t, int i) {
  dj__mind *m = &t->mind[i];
  for (int h = 0; h < DJ__HOLD; h++) {
    int lane = m->hold[h];
    bool keep = lane >= 0 && lane == m->behind && t->agents.s[i] < 0.5f * t->agents.length[i];
    for (int k = 0; k < m->n_path && lane >= 0; k++) keep |= m->path[k] == lane;
    if (!keep) m->hold[h] = -1, m->hold_order[h] = 0;
  }
}

/* ---- others on their way through a conflict ---- */
typedef struct other {
  int agent;
  bool sure;           /* it will go: it has the right, or cannot stop any more */
  int order;           /* of its right; externals: 0 */
  float in, out;       /* m until its front comes to the shared part, its rear leaves it */
  float to_end;        /* m from its middle to the lane's end */
  float v, soon, late; /* m/s; s to `in` at the earliest, to `out` at the latest */
} other;

static other see_other(const dj__traffic *t, const dj__intent *u, const dj__conflict *c) {
  const dj__agents *a = &t->agents;
  const dj__mind *m = &t->mind[u->agent];
  float half = 0.5f * a->length[u->agent];
  other o = {.agent = u->agent, .order = u->order, .v = a->speed[u->agent]};
  o.in = u->dist + (float)c->other_from - half;
  o.out = u->dist + (float)c->other_to + half;
  o.to_end = u->dist + (float)t->map->lane[c->lane].length;
  float v_max = fmaxf(m->v_free, o.v + 0.5f), accel = fmaxf(m->accel, 0.5f);
  /* people judge by the speed they see, and expect those to set off who stand */
  o.soon = dj__travel_time(o.in, o.v, 0.7f * accel, fminf(v_max, fmaxf(1.1f * o.v, 3)));
  o.late = dj__travel_time(o.out, o.v, 0.4f * accel, 0.8f * v_max);
  o.sure = u->order > 0;
  if (dj__is_external(t, u->agent)) /* has no rights, but a speed */
    o.sure = (o.in <= 0 && o.out > 0) || o.v * o.v > 2 * 4.0f * fmaxf(o.in - 1, 0.01f);
  return o;
}

/* It stands before a red light, or will have to. */
static bool held_by_light(const dj__traffic *t, int agent, int lane) {
  const dj__mind *m = &t->mind[agent];
  for (int k = 1; k < m->n_path; k++) {
    if (m->path[k] != lane) continue;
    const dj__lane *l = &t->map->lane[m->path[k - 1]];
    if (l->stop < 0) return false;
    dj__light s = dj__traffic_light(t, l->stop);
    if (s == DJ__LIGHT_OFF || s == DJ__LIGHT_GREEN) return false;
    if (s == DJ__LIGHT_RED || s == DJ__LIGHT_RED_YELLOW) return m->role != DJ__ROLE_RUN_RED;
    float v = t->agents.speed[agent], left = (float)t->map->stop[l->stop].s - t->agents.s[agent] -
                                             0.5f * t->agents.length[agent];
    return k == 1 && v * v < 2 * 3.0f * left;
  }
  return false;
}

/* It stands in a queue, and will not set off before those ahead of it. */
static bool queues(const dj__traffic *t, int i) {
  const dj__mind *m = &t->mind[i];
  return m->stop_reason == DJ__REASON_LEADER && m->leader >= 0 &&
         fabsf(t->agents.speed[m->leader]) < 0.3f;
}

/* ---- asking for the right to pass ---- */
typedef struct asking {
  int i, k;      /* agent, place in its path */
  double base;   /* m from its middle to the lane's start */
  float v, half; /* own */
} asking;

/* Somebody whom others move has waited long: one in two lets it in, for a moment. */
static bool lets_in(const dj__mind *m, const dj__mind *u, const other *o) {
  return u->still > STANDS && o->in > 0 && o->in < 12 * u->scale && m->polite > 0.25f &&
         m->wait < LETS;
}

static bool conflict_free(const dj__traffic *t, const asking *q, const dj__conflict *c) {
  const dj__mind *m = &t->mind[q->i];
  float in = (float)(q->base + c->from) - q->half, out = (float)(q->base + c->to) + q->half;
  float soon = dj__travel_time(in, q->v, m->accel, m->v_free);
  /* where both go on in one lane it is enough to be well in it: the other one follows */
  float past = c->merge ? fminf(out, in + fminf(2 * q->half, 6) + 4 * m->scale) : out;
  float late = dj__travel_time(past, q->v, 0.7f * m->accel, fmaxf(0.9f * m->v_free, 1));
  float my_end = (float)(q->base + t->map->lane[m->path[q->k]].length);
  const bool zip = t->net->zip[c - t->map->conflict];
  float spare = GAP - 1.8f * dj__clampf((m->wait - PATIENT) / (LET_IN - PATIENT), 0, 1);
  for (int k = t->intent_head[c->lane]; k >= 0; k = t->intent[k].next) {
    if (t->intent[k].agent == q->i) continue;
    other o = see_other(t, &t->intent[k], c);
    if (o.out <= 0) continue;
    if (o.sure && !(m->role == DJ__ROLE_RUN_RED && dj__is_external(t, o.agent))) {
      if (o.late + 0.5f < soon) continue;
      if (c->merge && o.in <= 0 && o.to_end < my_end - q->half) continue; /* is followed */
      if (late + spare + 0.5f < o.soon) continue;
      return false;
    }
    if (m->role == DJ__ROLE_RUN_RED && dj__is_external(t, o.agent)) continue;
    const dj__mind *u = &t->mind[o.agent];
    const bool turns = zip && (c->yield ? o.v : q->v) < DJ__JAM * m->scale;
    bool first = turns ? o.in < in || (o.in <= in && o.agent < q->i) : c->yield;
    if (!first && dj__is_external(t, o.agent)) first = lets_in(m, u, &o);
    if (!first || held_by_light(t, o.agent, c->lane)) continue;
    if (!dj__is_external(t, o.agent) && o.v < 0.3f && m->wait > 3 &&
        (u->still > 3 || queues(t, o.agent)))
      continue;
    if (dj__is_external(t, o.agent) && o.v < 0.1f && m->wait > 6) continue;
    if (late + spare < o.soon) continue;
    if (m->wait > LET_IN && o.in > 0 && !dj__is_external(t, o.agent)) continue;
    return false;
  }
  return true;
}

/* m that are needed behind `lane` for those who will leave it before this one gets there. */
static float promised(const dj__traffic *t, int i, int lane) {
  const dj__lane *l = &t->map->lane[lane];
  float sum = 0;
  for (int c = l->conflict0; c < l->conflict0 + l->n_conflict; c++) {
    const dj__conflict *x = &t->map->conflict[c];
    if (!x->merge) continue;
    for (int k = t->intent_head[x->lane]; k >= 0; k = t->intent[k].next) {
      int u = t->intent[k].agent;
      if (u != i && t->intent[k].order > 0) sum += t->agents.length[u] + t->mind[u].gap;
    }
  }
  return sum;
}

/* Room for the whole box between the end of what is shared on path[k] and whoever is ahead when he
 * will have stopped. */
static bool exit_room(const dj__traffic *t, const asking *q, double zone_end) {
  const dj__mind *m = &t->mind[q->i];
  float need = (float)zone_end + 2 * q->half + m->gap + promised(t, q->i, m->path[q->k]);
  double base = q->base;
  for (int k = q->k; k < m->n_path && base < (double)need + 10; k++) {
    for (int e = t->lane_head[m->path[k]]; e >= 0; e = t->entry[e].next) {
      const dj__entry *x = &t->entry[e];
      int u = x->agent;
      if (u == q->i || x->hi < -1.5f || x->lo > 1.5f || (float)base + x->s <= 0) continue;
      float rear = (float)base + x->rear;
      if (k == q->k && rear < (float)zone_end && dj__holds(&t->mind[u], m->path[k]) &&
          t->agents.speed[u] > 2)
        continue; /* on its way out */
      float v = x->speed > 0 ? x->speed : 0;
      bool flows = v > 3 && t->agents.accel[u] > -0.7f;
      return flows || rear + v * v / 5 + v * 0.5f >= need;
    }
    base += t->map->lane[m->path[k]].length;
  }
  return true;
}

/* Someone stands at the beginning of a lane that parts from this one. */
static bool beginning_blocked(const dj__traffic *t, int i, int lane, double base) {
  const dj__lane *l = &t->map->lane[lane];
  for (int n = l->conflict0; n < l->conflict0 + l->n_conflict; n++) {
    const dj__conflict *c = &t->map->conflict[n];
    if (!t->net->parting[n]) continue;
    for (int k = t->lane_head[c->lane]; k >= 0; k = t->entry[k].next) {
      const dj__entry *e = &t->entry[k];
      if (e->agent == i || e->speed > 2 || base + (double)e->s <= 0) continue;
      if (e->front > 0 && (double)e->rear < c->other_to + 1.5) return true;
    }
  }
  return false;
}

static double last_shared(const dj__traffic *t, int lane) {
  const dj__lane *l = &t->map->lane[lane];
  double to = 0;
  for (int c = l->conflict0; c < l->conflict0 + l->n_conflict; c++)
    if (t->map->conflict[c].to > to) to = t->map->conflict[c].to;
  return to;
}
static double first_shared(const dj__traffic *t, int lane) {
  const dj__lane *l = &t->map->lane[lane];
  double from = 1e9;
  for (int c = l->conflict0; c < l->conflict0 + l->n_conflict; c++)
    if (!t->net->parting[c] && t->map->conflict[c].from < from) from = t->map->conflict[c].from;
  return from;
}

/* It waits for nobody there. */
static bool has_priority(const dj__traffic *t, int lane) {
  const dj__lane *l = &t->map->lane[lane];
  for (int n = l->conflict0; n < l->conflict0 + l->n_conflict; n++)
    if (!t->net->parting[n] && t->map->conflict[n].yield) return false;
  return true;
}

/* Whoever stands on this lane may keep others from another way than the one it takes itself. In a
 * roundabout those who want in keep it free; those who go round close up, or they would wait for
 * each other. */
static bool in_the_way(const dj__traffic *t, int lane) {
  const dj__lane *l = &t->map->lane[lane];
  if (l->junction >= 0 && t->map->junction[l->junction].roundabout) return !has_priority(t, lane);
  for (int n = l->conflict0; n < l->conflict0 + l->n_conflict; n++)
    if (!t->net->parting[n] && !t->map->conflict[n].merge) return true;
  return false;
}

/* Asks for path[k] and for what follows without room to stand. On success the last of these is
 * *last. */
static dj__reason may_pass(const dj__traffic *t, asking q, int *last) {
  const dj__mind *m = &t->mind[q.i];
  const dj__map *map = t->map;
  int room = free_holds(m);
  double base = q.base;
  for (int k = q.k;; k++) {
    int lane = m->path[k];
    const dj__lane *l = &map->lane[lane];
    if (room-- <= 0) return DJ__REASON_YIELD;
    if (beginning_blocked(t, q.i, lane, base)) return DJ__REASON_EXIT;
    asking one = {q.i, k, base, q.v, q.half};
    for (int c = l->conflict0; c < l->conflict0 + l->n_conflict; c++)
      if (!t->net->parting[c] && !conflict_free(t, &one, &map->conflict[c]))
        return DJ__REASON_YIELD;
    double end = base + last_shared(t, lane);
    *last = k;
    double next = base, need = 2 * (double)q.half + (double)m->gap;
    bool more = false;
    for (int j = k; j + 1 < m->n_path && !more; j++) { /* the next junction lane on the way */
      next += map->lane[m->path[j]].length;
      if (map->lane[m->path[j]].stop >= 0 && j > k) break;
      if (map->lane[m->path[j + 1]].n_conflict && !dj__holds(m, m->path[j + 1])) {
        double at = next + first_shared(t, m->path[j + 1]);
        if (at - end < need && j + 1 > k) more = true, base = next, k = j;
        break;
      }
      if (next - end > need) break;
    }
    if (!more)
      return !in_the_way(t, lane) || exit_room(t, &one, end) ? DJ__REASON_NONE : DJ__REASON_EXIT;
  }
}

/* ---- inside ---- */
/* What those who were given the right earlier leave to the holder of path[k]. */
static float wait_inside(const dj__traffic *t, const asking *q) {
  const dj__mind *m = &t->mind[q->i];
  int lane = m->path[q->k], mine = order_of(m, lane);
  const dj__lane *l = &t->map->lane[lane];
  float acc = 1e9f, my_end = (float)(q->base + l->length);
  for (int n = l->conflict0; n < l->conflict0 + l->n_conflict; n++) {
    const dj__conflict *c = &t->map->conflict[n];
    if (t->net->parting[n]) continue;
    float in = (float)(q->base + c->from) - q->half, out = (float)(q->base + c->to) + q->half;
    if (out < 0) continue;
    float late_out = dj__travel_time(out, q->v, 0.7f * m->accel, fmaxf(0.9f * m->v_free, 1));
    for (int k = t->intent_head[c->lane]; k >= 0; k = t->intent[k].next) {
      if (t->intent[k].agent == q->i) continue;
      other o = see_other(t, &t->intent[k], c);
      bool external = dj__is_external(t, o.agent);
      bool first = external || o.order < mine || (o.in <= 0 && in > 0);
      if (o.out <= 0 || !o.sure || !first) continue;
      float u_half = 0.5f * t->agents.length[o.agent];
      if (c->merge && o.to_end < my_end) {
        float gap = my_end - o.to_end - q->half - u_half;
        if (in > 0 && gap < in) gap = in; /* it does not get in the way before */
        acc = fminf(acc, dj__idm_follow(m, q->v, gap, o.v, m->gap));
        continue;
      }
      if (in < -0.3f) continue; /* in it already: the other one sees that */
      if (late_out + 0.5f * GAP < o.soon) continue;
      if (o.late + 0.3f < dj__travel_time(in, q->v, m->accel, m->v_free)) continue;
      acc = fminf(acc, dj__idm_follow(m, q->v, in, 0, 0.7f * m->scale));
    }
  }
  return acc;
}

/* ---- all of it ---- */
static void blink(dj__mind *m, const dj__lane *l, double base, float v) {
  if (base > 15 + 3 * (double)v) return;
  if (l->turn == DJ__TURN_LEFT || l->turn == DJ__TURN_BACK) m->blinks = DJ__LAMP_LEFT;
  if (l->turn == DJ__TURN_RIGHT) m->blinks = DJ__LAMP_RIGHT;
}

/* Lights and signs before path[k]; gap: m from the front to the line. */
static dj__reason line_allows(const dj__traffic *t, const asking *q, float gap) {
  const dj__mind *m = &t->mind[q->i];
  int stop = q->k > 0 ? t->map->lane[m->path[q->k - 1]].stop : -1;
  if (stop < 0 || m->role == DJ__ROLE_RUN_RED) return DJ__REASON_NONE;
  if (t->map->stop[stop].control == DJ__CONTROL_STOP && m->wait < 0.5f) return DJ__REASON_YIELD;
  dj__light s = dj__traffic_light(t, stop);
  if (s == DJ__LIGHT_OFF || s == DJ__LIGHT_GREEN) return DJ__REASON_NONE;
  if (s == DJ__LIGHT_YELLOW) {
    bool late = gap <= 0 || q->v * q->v > 2 * 3.0f * gap;
    bool turner = q->v < 2 && gap < 3 && m->wait > 6; /* has waited for a gap all the green */
    if (late || turner) return DJ__REASON_NONE;
  }
  return DJ__REASON_LIGHT;
}

/* Lanes side by side that become one: they close up to where that is. */
static bool by_turns(const dj__traffic *t, int lane, int line) {
  const dj__lane *l = &t->map->lane[lane];
  dj__control c = t->map->stop[line].control;
  int turns = 0;
  for (int n = l->conflict0; n < l->conflict0 + l->n_conflict; n++) {
    if (!t->net->parting[n] && !t->net->zip[n]) return false;
    turns += t->net->zip[n];
  }
  return turns > 0 && (c == DJ__CONTROL_NONE || c == DJ__CONTROL_PRIORITY);
}

/* Whoever is ahead in the queue asks first: a right that cannot be used only keeps others away. */
static bool behind_someone(const dj__traffic *t, int i, float gap) {
  const dj__mind *m = &t->mind[i];
  int j = m->leader;
  if (j < 0 || dj__is_external(t, j) || !dj__is_rider(&t->agents, j)) return false;
  if (m->leader_gap + t->agents.length[j] > gap + 1) return false; /* over the line */
  return free_holds(&t->mind[j]) == DJ__HOLD;
}

float dj__junctions_decide(dj__traffic *t, int i, float reach, float *until) {
  dj__mind *m = &t->mind[i];
  const dj__map *map = t->map;
  asking q = {i, 0, -(double)t->agents.s[i], t->agents.speed[i], 0.5f * t->agents.length[i]};
  float acc = 1e9f, ask = 0.6f * q.v + q.v * q.v / (2 * 2.0f) + 6 * m->scale;
  bool waits = false;
  *until = HUGE_VALF;
  m->blinks = 0;
  double before = q.base; /* start of the lane before */
  for (; q.k < m->n_path && q.base < (double)reach; q.k++) {
    int lane = m->path[q.k], line = q.k > 0 ? map->lane[m->path[q.k - 1]].stop : -1;
    const dj__lane *l = &map->lane[lane];
    blink(m, l, q.base, q.v);
    if (l->n_conflict || line >= 0) {
      double shared = l->n_conflict ? first_shared(t, lane) : 0;
      bool to_line = line >= 0 && !by_turns(t, lane, line);
      double at = to_line ? before + map->stop[line].s : q.base + fmax(shared - 0.5, 0);
      float gap = (float)at - q.half;
      bool held = dj__holds(m, lane);
      dj__reason no = gap > -1.5f ? line_allows(t, &q, gap) : DJ__REASON_NONE;
      if (held && no == DJ__REASON_LIGHT && gap > 0 && q.v * q.v < 2 * 3.0f * gap)
        drop(t, i, lane), held = false;
      /* who cannot go although it may gives the right back, so that others can */
      if (held && m->still > 3 && q.base + shared - q.half > 0.1) drop(t, i, lane), held = false;
      if (!held && (gap > ask || behind_someone(t, i, gap))) break;
      if (!held && gap < 4 * m->scale && q.v < 0.5f) waits = true;
      int last = q.k;
      /* cyclists come in from their lane before they turn with the others */
      if (!held && !no && t->agents.kind[i] == DJ__CYCLIST && fabsf(t->agents.t[i]) > 1.1f &&
          m->wait < 15)
        no = DJ__REASON_YIELD;
      if (!held && !no && gap > -1.5f) no = may_pass(t, q, &last);
      if (!held && no) {
        m->stop_reason = (int)no;
        *until = (float)at;
        acc = fminf(acc, dj__idm_follow(m, q.v, gap, 0, 0.8f * m->scale));
        break;
      }
      if (!held)
        for (int k = q.k; k <= last; k++)
          if (!dj__holds(m, m->path[k])) take(t, i, m->path[k]);
      float inside = wait_inside(t, &q);
      if (inside < acc) acc = inside, m->stop_reason = DJ__REASON_YIELD;
    }
    before = q.base;
    q.base += l->length;
  }
  if (waits) m->wait += (float)DJ__WORLD_DT;
  if (q.v > 2 * m->scale) m->wait = 0;
  return acc;
}
