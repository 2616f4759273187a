/* Where the expert may have to stop: lights, stop signs, right of way, people on crossings, full
 * junctions, lane changes that are not free yet. */
#include <math.h>
#include <stdlib.h>

#include "world/expert.h"
#include "world/traffic.h"

#define GO_ACCEL 1.3 /* m/s^2, when it works out how long it takes to clear a junction */
#define YELLOW   2.6 /* m/s^2: a yellow light is passed where stopping needs more */

/* ---- once a route ---- */

static void study_row(dj__expert *e, int row) {
  const dj__map *m = e->map;
  const dj__guide_row *w = &e->guide.row[row];
  int lane = dj__guide_row_lane(&e->guide, row);
  const dj__lane *l = &m->lane[lane];
  double at0 = w->s0 - w->from; /* station of the lane's start */
  int line = -1;                /* the last one before */
  for (int k = 0; k < e->guide.n_line && e->guide.line[k].row <= row; k++)
    if (e->guide.line[k].row >= row - 1) line = k;
  for (int k = 0; k < l->n_conflict && e->n_meet < DJ__MEETS; k++) {
    const dj__conflict *c = &m->conflict[l->conflict0 + k];
    double from = at0 + c->from, to = at0 + c->to;
    if (to < w->s0 || from > w->s1) continue;
    double gate = line >= 0 && e->guide.line[line].s <= from ? e->guide.line[line].s
                                                             : fmin(from, fmax(w->s0, from - 1));
    e->meet[e->n_meet++] = (dj__guide_meet){from, to, gate, l->conflict0 + k, line};
  }
}

static void study_crossings(dj__expert *e) {
  const dj__map *m = e->map;
  for (int row = 0; row < e->guide.n_row; row++) {
    const dj__guide_row *w = &e->guide.row[row];
    int lane = dj__guide_row_lane(&e->guide, row);
    for (int i = 0; i < m->n_crossing && e->n_zebra < DJ__ZEBRAS; i++)
      for (int k = 0; k < m->crossing[i].n_lane; k++) {
        const dj__crossing_lane *c = &m->crossing_lane[m->crossing[i].lane0 + k];
        double s = w->s0 - w->from + c->s;
        if (c->lane == lane && s > w->s0 - 0.1 && s < w->s1 + 0.1)
          e->zebra[e->n_zebra++] = (dj__guide_zebra){s, 0.5 * m->crossing[i].width, i};
      }
  }
}

dj_status dj__expert_study(dj__expert *e) {
  e->meet = calloc(DJ__MEETS, sizeof *e->meet);
  e->zebra = calloc(DJ__ZEBRAS, sizeof *e->zebra);
  if (!e->meet || !e->zebra) return dj_error(DJ_E_NOMEM, "expert: no memory");
  for (int row = 0; row < e->guide.n_row; row++) study_row(e, row);
  study_crossings(e);
  return DJ_OK;
}

/* ---- each step ---- */
void dj__expert_stop_at(dj__expert *e, double s, double gap) {
  if (e->n_stop < DJ__STOPS) e->stop[e->n_stop++] = (dj__stop_at){s, gap};
}

static double front_of(const dj__expert *e) {
  return e->mid + 0.5 * e->model->length;
}

static double horizon(const dj__expert *e) {
  return (35 + e->v * e->v / 2.5) * e->scale + 5;
}

/* Least time for the ego to go so far. */
static double time_for(const dj__expert *e, double way) {
  if (way <= 0) return 0;
  double top = 0.1;
  for (int k = 0; 4 * k < way + 1; k++) {
    int i = (int)((e->mid + 4 * k) / e->guide.step);
    double v = e->v_max[i < 0 ? 0 : i >= e->guide.n ? e->guide.n - 1 : i];
    top = k == 0 ? v : fmin(top, fmax(v, 2));
  }
  return (double)dj__travel_time((float)way, (float)e->v, (float)GO_ACCEL,
                                 (float)fmax(top, fmax(e->v, 1)));
}

static void heed_lights(dj__expert *e, const dj__world *w) {
  double front = front_of(e);
  for (int i = 0; i < e->guide.n_line; i++) {
    const dj__guide_line *l = &e->guide.line[i];
    double way = l->s - front;
    if (way < -0.3 * e->scale || way > horizon(e)) continue;
    const dj__stop_line *s = &e->map->stop[l->stop];
    if (s->control == DJ__CONTROL_STOP) {
      if (e->v < 0.15 && way < 2.5) e->stood[i] = true;
      if (!e->stood[i]) dj__expert_stop_at(e, l->s, 0.8);
    }
    if (s->control != DJ__CONTROL_LIGHTS) continue;
    dj__light k = dj__world_light(w, l->stop);
    bool red = k == DJ__LIGHT_RED || k == DJ__LIGHT_RED_YELLOW;
    bool yellow = k == DJ__LIGHT_YELLOW && e->v * e->v < 2 * YELLOW * fmax(way - 0.5, 0.01);
    if (red || yellow) dj__expert_stop_at(e, l->s, 0.9);
  }
}

/* ---- right of way ---- */
typedef struct arrival { /* of somebody at a conflict, s from now */
  double in, out, speed;
  double way;                 /* m from its front to the start of what is shared */
  double past;                /* ... that its rear has gone beyond that */
  bool inside, holds, stands; /* stands: waits there, without the right to pass */
} arrival;

/* Does agent i come to the conflict's other lane? */
static bool arrives(const dj__expert *e, const dj__world *w, int i, const dj__conflict *c,
                    arrival *out) {
  const dj__agents *a = &w->agents;
  const dj__map *map = e->map;
  const dj__mind *m = &w->traffic->mind[i];
  if (!dj__is_rider(a, i) || m->n_path < 1 || a->lane[i] != m->path[0] || m->role == DJ__ROLE_STAND)
    return false;
  double v = fabs((double)a->speed[i]), half = 0.5 * (double)a->length[i];
  double way = -(double)a->s[i];
  for (int k = 0; k < m->n_path && way < 130; k++) {
    int lane = m->path[k];
    if (lane == c->lane) {
      double in = way + c->other_from - half, past = way + c->other_to + half;
      if (past < 0) return false;
      double top = fmax(v, 0.9 * map->lane[lane].speed_limit), gains = e->waited > 12 ? 0.5 : 1.2;
      bool holds = dj__holds(m, c->lane);
      *out = (arrival){
          (double)dj__travel_time((float)fmax(in, 0), (float)v, (float)gains, (float)top),
          (double)dj__travel_time((float)past, (float)v, v < 2 ? 1.0f : 0.3f, (float)fmax(v, 6)),
          v,
          in,
          -in - 2 * half,
          in <= 0,
          holds,
          in > 0 && v < 0.3 && (m->still > 6 || !holds)};
      return true;
    }
    /* waits at a red light, or lets the ego go first */
    int stop = map->lane[lane].stop;
    bool before = k > 0 || (double)a->s[i] + half < (stop >= 0 ? map->stop[stop].s + 1 : 0);
    if (stop >= 0 && before && map->stop[stop].control == DJ__CONTROL_LIGHTS &&
        m->role != DJ__ROLE_RUN_RED) {
      dj__light l = dj__world_light(w, stop);
      double room = way + map->stop[stop].s - half;
      if ((l == DJ__LIGHT_RED || l == DJ__LIGHT_RED_YELLOW) && v * v < 2 * 5 * fmax(room, 0.3))
        return false;
    }
    way += map->lane[lane].length;
  }
  return false;
}

/* m to the nearest one who stands and waits there: those behind it cannot come. */
static double queue_at(const dj__expert *e, const dj__world *w, const dj__conflict *c) {
  double least = HUGE_VAL;
  for (int k = 0; k < e->n_seen; k++) {
    const dj__seen *o = &e->seen[k];
    arrival a;
    if (o->person || o->behind || !arrives(e, w, o->agent, c, &a) || !a.stands) continue;
    const dj__mind *m = &w->traffic->mind[o->agent];
    if (e->waited > (m->stop_reason == DJ__REASON_YIELD ? 4 : 7)) least = fmin(least, a.way);
  }
  return least;
}

/* Whether the ego has to wait for somebody at this conflict. */
static bool must_wait(const dj__expert *e, const dj__world *w, const dj__guide_meet *meet) {
  const dj__conflict *c = &e->map->conflict[meet->conflict];
  double half = 0.5 * e->model->length;
  double in = time_for(e, meet->from - (e->mid + half)),
         out =
             time_for(e, (c->merge ? fmin(meet->to, meet->from + e->model->length + 4) : meet->to) -
                             (e->mid - half)); /* where both go on, well in it is enough */
  double patience = e->waited > 12 ? 0.4 : e->waited > 6 ? 0.8 : 1.2;
  double queue = queue_at(e, w, c), mine = meet->from - (e->mid + half);
  for (int k = 0; k < e->n_seen; k++) {
    const dj__seen *o = &e->seen[k];
    arrival a;
    if (o->person || o->behind || !arrives(e, w, o->agent, c, &a)) continue;
    const dj__mind *m = &w->traffic->mind[o->agent];
    double gone = a.past + a.speed * fmin(in, 1.2); /* when the ego comes to what is shared */
    if (c->merge && gone > 1.5 && a.speed > 1.5) continue; /* is followed */
    if (a.inside) {
      if (a.speed < 0.1 && e->waited > 8) continue; /* waits for the ego */
      if (a.out + 0.2 > in || a.speed < 0.5) return true;
      continue;
    }
    if (a.way >= queue) continue;
    /* by turns in a jam: the nearer one, if the other one can let it in */
    bool turn = w->traffic->net->zip[meet->conflict] && a.speed < (double)DJ__JAM && !a.holds &&
                a.way > mine + 2;
    if (turn && a.speed * a.speed < 2 * 2.5 * fmax(a.way - mine - 2, 0)) continue;
    if (!c->yield && !(a.holds || m->role == DJ__ROLE_RUN_RED)) continue;
    double after = patience;
    if (c->merge) { /* it has room to slow down */
      double faster = fmax(0, a.speed - e->v - GO_ACCEL * out);
      double slows = e->waited > 12 ? 5 : 3.6; /* twice its deceleration */
      after = 0.5 * patience + (2 + 0.5 * faster + faster * faster / slows) / fmax(a.speed, 2);
    }
    if (out + after > a.in && in < a.out + 0.3) return true;
  }
  return false;
}

static void heed_junctions(dj__expert *e, const dj__world *w) {
  double front = front_of(e), far = horizon(e);
  for (int i = 0; i < e->n_meet; i++) {
    const dj__guide_meet *m = &e->meet[i];
    if (m->from < front - 0.5 || m->gate > front + far) continue;
    const dj__conflict *c = &e->map->conflict[m->conflict];
    bool entered = front > m->gate + 0.7;
    if (!c->yield && entered) continue; /* it has the right: others are seen by their forecasts */
    if (!must_wait(e, w, m)) continue;
    double room = m->gate - front;
    bool late = room < 1 || e->v * e->v > 2 * 2.8 * room; /* too late for the line */
    if (entered || (late && m->from > m->gate + 2))
      dj__expert_stop_at(e, m->from, 0.6 * e->scale);
    else
      dj__expert_stop_at(e, m->gate, 0.9 * e->scale);
  }
}

/* Does not enter a junction that it could not leave. */
static void keep_clear(dj__expert *e) {
  double front = front_of(e);
  for (int i = 0; i < e->guide.n_line; i++) {
    const dj__guide_line *l = &e->guide.line[i];
    if (l->s < front - 0.3 || l->s > front + horizon(e)) continue;
    if (e->v * e->v > 2 * 2.4 * fmax(l->s - front, 0)) return; /* too late */
    int row = l->row + 1;
    while (row < e->guide.n_row && e->map->lane[e->guide.row[row].a].junction >= 0) row++;
    if (row >= e->guide.n_row || row == l->row + 1) continue;
    double end = e->guide.row[row].s0;
    for (int k = 0; k < e->n_seen; k++) {
      const dj__seen *o = &e->seen[k];
      const dj__box *b = &o->at[0], *later = &o->at[5];
      if (o->person || o->passable || o->behind || b->left < -0.8f || b->right > 0.8f) continue;
      double need = end + e->model->length + 1.5;
      if ((double)b->lo > l->s + 1 && (double)b->lo < need && (double)later->lo < need &&
          o->v < 1.5 && b->along > -0.5f)
        dj__expert_stop_at(e, l->s, 0.9);
    }
    return;
  }
}

/* ---- people ---- */
static bool near_zebra(const dj__map *m, const dj__guide_zebra *z, double x, double y) {
  const dj__crossing *c = &m->crossing[z->crossing];
  double dx = c->x1 - c->x0, dy = c->y1 - c->y0, l2 = dx * dx + dy * dy;
  double t = l2 > 0 ? ((x - c->x0) * dx + (y - c->y0) * dy) / l2 : 0;
  t = t < 0 ? 0 : t > 1 ? 1 : t;
  return hypot(x - c->x0 - t * dx, y - c->y0 - t * dy) < z->half + 1;
}

/* Will this person be in the ego's way between `in` and `out`? */
static bool in_the_way(const dj__expert *e, const dj__seen *o, double in, double out) {
  float wide = (float)(0.5 * e->model->width + 0.9 * e->scale);
  for (int j = o->from; j <= o->to; j++) {
    double t = j * DJ__AHEAD_DT;
    if (t > 7 || o->at[j].right > wide || o->at[j].left < -wide) continue;
    if (t > in - 1.5 && t < out + 1.2) return true;
  }
  return false;
}

static void heed_crossings(dj__expert *e, const dj__world *w) {
  double front = front_of(e);
  const dj__agents *a = &w->agents;
  for (int i = 0; i < e->n_zebra; i++) {
    const dj__guide_zebra *z = &e->zebra[i];
    double line = z->s - z->half - 0.8;
    if (line < front - 0.4 || line > front + horizon(e)) continue;
    double in = time_for(e, line - front), out = time_for(e, z->s + z->half - e->mid);
    for (int k = 0; k < e->n_seen; k++) {
      const dj__seen *o = &e->seen[k];
      if (!o->person && o->kind != DJ__CYCLIST) continue;
      if (!(a->flags[o->agent] & DJ__AGENT_CROSSING)) continue;
      if (!near_zebra(e->map, z, a->x[o->agent], a->y[o->agent])) continue;
      if (in_the_way(e, o, in, out)) dj__expert_stop_at(e, line, 0.5);
    }
  }
}

/* ---- lane changes ---- */

/* Is the lane beside free for the ego? Offsets of its box there, relative to the line now. */
static bool is_free(const dj__expert *e, double right, double left) {
  double front = front_of(e), rear = e->mid - 0.5 * e->model->length;
  for (int k = 0; k < e->n_seen; k++) {
    const dj__seen *o = &e->seen[k];
    if (o->behind) continue;
    for (int j = 0; j <= 5; j++) { /* for 2 s */
      const dj__box *b = &o->at[j];
      if (j < o->from || j > o->to || (double)b->left < right || (double)b->right > left) continue;
      double ahead = e->v * j * DJ__AHEAD_DT, slack = e->waited > 8 ? 0.5 : 1;
      double before = (2 + 0.5 * e->v + fmax(0, e->v - (double)b->along) * 1.5) * slack,
             after = (2 + 0.3 * e->v + fmax(0, (double)b->along - e->v) * 2.2) * slack;
      if ((double)b->lo < front + ahead + before && (double)b->hi > rear + ahead - after)
        return false;
    }
  }
  return true;
}

static void heed_changes(dj__expert *e) {
  dj__guide *g = &e->guide;
  double front = front_of(e);
  bool moved = false;
  for (int k = 0; k < g->n_change; k++) {
    dj__guide_change *c = &g->change[k];
    /* begun, but somebody keeps it in the lane that it has to leave */
    if (c->begun && c->s1 > front && fmax(e->d * c->side, e->way.to * c->side) < -1.5 * e->scale)
      dj__expert_stop_at(e, c->s1, 1.5 * e->scale);
    if (c->begun || e->mid > c->s1 || c->s0 > front + horizon(e)) continue;
    double due = c->start - e->s, shortest = 14 * e->scale;
    if (due > fmax(1.5, 0.6 * e->v) * e->scale + 1) {
      if (c->start - e->mid > 40) break;
    }
    int i = (int)(fmax(c->start, e->mid) / g->step);
    i = i > g->n - 1 ? g->n - 1 : i;
    double dx = g->b[i][0] - g->a[i][0], dy = g->b[i][1] - g->a[i][1];
    double yaw = g->point[i].yaw, d = cos(yaw) * dy - sin(yaw) * dx; /* of the lane beside */
    double half = 0.5 * e->model->width + 0.4 * e->scale;
    double right = fmin(d - half, (d > 0 ? half : d - half)),
           left = fmax(d + half, (d > 0 ? d + half : -half));
    bool open = is_free(e, right, left);
    double last = fmax(c->s1 - shortest, c->s0); /* where it has to stand if it never opens */
    bool hurry = e->v * e->v > 2 * 2.2 * fmax(last - front, 0.1);
    if (open && hurry && e->s > c->s0 && due > 1.5 * e->scale) {
      c->start = e->s + 1.5 * e->scale;
      c->length = fmax(shortest, fmin(c->s1 - c->start, 3.5 * e->v));
      c->begun = moved = true;
    } else if (open && due <= fmax(1.5, 0.6 * e->v) * e->scale + 1) {
      c->begun = true;
    } else if (!open && due < fmax(3, e->v) * e->scale + 1) { /* later */
      double start = e->s + fmax(3, e->v) * e->scale + 1;
      if (start + shortest > c->s1) start = fmax(c->start, c->s1 - shortest);
      if (start > c->start + 0.2) c->start = start, moved = true;
      c->length = fmin(c->length, fmax(shortest, c->s1 - c->start));
    }
    if (!c->begun && (!open || hurry)) dj__expert_stop_at(e, last, 1.5 * e->scale);
    break; /* one after the other */
  }
  if (moved) {
    dj__guide_blend(g);
    dj__expert_speeds(e);
  }
}

void dj__expert_rules(dj__expert *e, const dj__world *w) {
  e->n_stop = 0;
  heed_lights(e, w);
  heed_junctions(e, w);
  keep_clear(e);
  heed_crossings(e, w);
  heed_changes(e);
}
