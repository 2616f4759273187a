/*
 * The lane graph: every lane of every section as a line of points in driving direction, linked to
 * the lanes before, behind and beside it.
 *
 * A link joins two ends. Each lane has an end at its section's start and one at its section's end;
 * links of lanes, roads and junctions are all read as "these two ends touch", from whichever side
 * they were written down, and traffic goes from the one that leaves there to the one that begins
 * there. Links between ends that lie far apart are faults of the file: they are left out and
 * counted in one message.
 */
#include <math.h>
#include <stdlib.h>

#include "dojo/log.h"
#include "world/map_build.h"

enum { MAX_POINTS = 6000000 };
#define MAX_GAP    2.0 /* m */
#define MAX_EXTENT 2e7 /* m */

/* ---- sampling ---- */
static bool has_graph_lane(dj__lane_type t) {
  return t == DJ__LANE_DRIVING || t == DJ__LANE_BIKING || t == DJ__LANE_SIDEWALK ||
         t == DJ__LANE_SHOULDER || t == DJ__LANE_PARKING;
}

static bool paved(dj__lane_type t) {
  return ((1u << t) & DJ__PAVED_TYPES) != 0;
}

typedef struct profile { /* of a section at one s: edges of all lanes, from the left */
  int n, centre;
  double edge[64], slope[64]; /* t of the boundary to the left of lane i, and dt/ds */
} profile;

/* Boundaries from left to right: the centre lane has none of its own. n lanes give n boundaries
 * (sides together). */
static void cut(const dj__map *m, int road, int section, double s, profile *p) {
  const dj__section *k = &m->section[section];
  p->n = k->n_lane;
  p->centre = 0;
  while (p->centre < p->n && m->road_lane[k->lane0 + p->centre].id != 0) p->centre++;
  if (p->centre >= p->n) p->centre = p->n - 1;
  double d0, t0 = dj__lane_offset(m, road, section, s, &d0);
  double t = t0, d = d0;
  for (int side = 0; side < 2; side++) {
    t = t0;
    d = d0;
    for (int i = p->centre + (side ? 1 : -1); i >= 0 && i < p->n; i += side ? 1 : -1) {
      const dj__road_lane *l = &m->road_lane[k->lane0 + i];
      double w = dj__lane_width(m, section, k->lane0 + i, s);
      double dw = w > 0 ? dj__poly3_slope(m->width + l->width0, l->n_width, s - k->s) : 0;
      t += side ? -w : w;
      d += side ? -dw : dw;
      p->edge[i] = t; /* the outer edge of lane i */
      p->slope[i] = d;
    }
  }
  p->edge[p->centre] = t0;
  p->slope[p->centre] = d0;
}

/* Inner boundary of lane i is the outer one of its neighbour towards the centre. */
static int inner_of(const profile *p, int i) {
  return i < p->centre ? i + 1 : i - 1;
}

static double paved_edge(const dj__map *m, int section, const profile *p, int i, int step) {
  const dj__section *k = &m->section[section];
  int last = i;
  for (int j = i + step; j >= 0 && j < p->n; j += step) {
    if (j == p->centre) continue;
    if (!paved(m->road_lane[k->lane0 + j].type)) break;
    last = j;
  }
  bool outward = (step < 0) == (last < p->centre);
  return p->edge[outward ? last : inner_of(p, last)];
}

static void sample(dj__build *b, int lane, int section, int i, double s, const profile *p,
                   const dj__pose *ref, double z, double slope) {
  dj__lane *l = &b->m->lane[lane];
  bool forward = dj__lane_forward(&b->m->road[l->road], l->id);
  int in = inner_of(p, i);
  double t = 0.5 * (p->edge[i] + p->edge[in]), dt = 0.5 * (p->slope[i] + p->slope[in]);
  double along = 1 - ref->curv * t, speed = hypot(along, dt);
  double left = paved_edge(b->m, section, p, i, -1) - t,
         right = t - paved_edge(b->m, section, p, i, 1);
  dj__lane_point *q = DJ__PUSH(b, point);
  q->x = ref->x - t * sin(ref->hdg);
  q->y = ref->y + t * cos(ref->hdg);
  q->z = z;
  q->s = (float)s;
  q->yaw =
      (float)dj__wrap(ref->hdg + atan2(dt, along > 0.01 ? along : 0.01) + (forward ? 0 : M_PI));
  q->slope = (float)((forward ? slope : -slope) / (speed > 0.05 ? speed : 0.05));
  q->width = (float)fabs(p->edge[i] - p->edge[in]);
  q->left = (float)(forward ? left : right);
  q->right = (float)(forward ? right : left);
}

/* Lengths along the line, and curvature from how its yaw changes. */
static void measure(dj__map *m, dj__lane *l) {
  dj__lane_point *p = m->point + l->point0;
  double s = 0;
  for (int i = 0; i < l->n_point; i++) {
    if (i) s += hypot(p[i].x - p[i - 1].x, p[i].y - p[i - 1].y);
    p[i].s = (float)s;
  }
  l->length = s;
  for (int i = 0; i < l->n_point; i++) {
    int a = i > 0 ? i - 1 : 0, c = i + 1 < l->n_point ? i + 1 : i;
    double ds = p[c].s - p[a].s;
    p[i].curvature = (float)(ds > 1e-3 ? dj__wrap(p[c].yaw - p[a].yaw) / ds : 0);
  }
}

static void reverse(dj__lane_point *p, int n) {
  for (int i = 0, j = n - 1; i < j; i++, j--) {
    dj__lane_point q = p[i];
    p[i] = p[j];
    p[j] = q;
  }
}

/* Points of a section: at most 1 m apart on the outermost lane, 7 degrees in a curve. */
static int stations(const dj__map *m, int road, int section, double **out) {
  double s0 = m->section[section].s, s1 = dj__section_end(m, road, section), *v = NULL;
  int n = 0, cap = 0;
  profile p;
  for (double s = s0;;) {
    if (n == cap) {
      cap = cap ? 2 * cap : 64;
      double *w = cap <= 4 * MAX_POINTS ? realloc(v, (size_t)cap * sizeof *v) : NULL;
      if (!w) {
        free(v);
        return -1;
      }
      v = w;
    }
    v[n++] = s;
    if (n > MAX_POINTS) break;
    if (s >= s1 && n >= 2) break;
    cut(m, road, section, s, &p);
    double t = fmax(fabs(p.edge[0]), fabs(p.edge[p.n - 1])), k = 0;
    for (int ahead = 0; ahead < 5; ahead++) { /* a bend that begins within the step counts */
      dj__pose at;
      dj__road_at(m, road, fmin(s + 0.25 * ahead, s1), &at);
      k = fmax(k, fabs(at.curv));
    }
    double step = fmin(1 / (1 + fmin(k * t, 4)), k > 0.12 ? 0.12 / k : 1);
    step = fmax(step, 0.05);
    double left = s1 - s;
    int pieces = (int)ceil(left / step - 1e-9);
    s = pieces <= 1 ? s1 : pieces < 16 ? s + left / pieces : s + step;
  }
  *out = v;
  return n;
}

static void start_lane(dj__build *b, int road, int section, int i) {
  dj__map *m = b->m;
  int index = m->section[section].lane0 + i, id = m->road_lane[index].id;
  dj__lane *l = DJ__PUSH(b, lane);
  const dj__road *r = &m->road[road];
  *l = (dj__lane){.road = road,
                  .section = section,
                  .id = id,
                  .type = m->road_lane[index].type,
                  .zone = r->zone,
                  .point0 = m->n_point,
                  .speed_limit =
                      m->road_lane[index].speed > 0 ? m->road_lane[index].speed : r->speed,
                  .left = -1,
                  .right = -1,
                  .opposite = -1,
                  .junction = r->junction,
                  .stop = -1};
}

typedef struct station { /* the road's line at one s */
  dj__pose at;
  double s, z, slope;
} station;

static bool sane(const dj__lane_point *p) {
  return fabs(p->x) <= MAX_EXTENT && fabs(p->y) <= MAX_EXTENT && fabs(p->z) <= MAX_EXTENT &&
         p->width <= 1e4f && isfinite(p->yaw) && isfinite(p->slope);
}

static dj_status sample_lane(dj__build *b, int road, int section, int i, const station *v, int n) {
  dj__map *m = b->m;
  dj__road_lane *own = &m->road_lane[m->section[section].lane0 + i];
  int lane = m->n_lane;
  start_lane(b, road, section, i);
  for (int k = 0; k < n && !b->failed; k++) {
    profile p;
    cut(m, road, section, v[k].s, &p);
    sample(b, lane, section, i, v[k].s, &p, &v[k].at, v[k].z, v[k].slope);
    if (!b->failed && !sane(&m->point[m->n_point - 1]))
      return dj_error(DJ_E_FORMAT,
                      "%s: road %s, lane %d: at s=%g it lies beyond %g km or has no direction: "
                      "expected curves and widths of roads",
                      m->name, m->road[road].id, own->id, v[k].s, MAX_EXTENT / 1000);
  }
  if (b->failed) return dj_error(DJ_E_NOMEM, "%s: no memory for lanes", m->name);
  own->lane = lane;
  dj__lane *l = &m->lane[lane];
  l->n_point = n;
  if (!dj__lane_forward(&m->road[road], l->id)) reverse(m->point + l->point0, n);
  measure(m, l);
  return DJ_OK;
}

static dj_status sample_section(dj__build *b, int road, int section) {
  dj__map *m = b->m;
  double *s = NULL;
  int n = stations(m, road, section, &s), n_lane = m->section[section].n_lane;
  station *v = n > 0 ? malloc((size_t)n * sizeof *v) : NULL;
  dj_status status = DJ_OK;
  if (!v) {
    status = dj_error(DJ_E_NOMEM, "%s: no memory for lanes", m->name);
  } else if ((int64_t)m->n_point + (int64_t)n * n_lane > MAX_POINTS) {
    status = dj_error(DJ_E_LIMIT, "%s: lanes are longer than %d km in all, which is the most",
                      m->name, MAX_POINTS / 1000);
  }
  for (int k = 0; !status && k < n; k++) {
    v[k].s = s[k];
    dj__road_at(m, road, s[k], &v[k].at);
    v[k].z = dj__road_z(m, road, s[k], &v[k].slope);
  }
  for (int i = 0; !status && i < n_lane; i++) {
    dj__road_lane *l = &m->road_lane[m->section[section].lane0 + i];
    l->lane = -1;
    if (l->id != 0 && has_graph_lane(l->type)) status = sample_lane(b, road, section, i, v, n);
  }
  free(s);
  free(v);
  return status;
}

dj_status dj__map_sample_lanes(dj__build *b) {
  dj__map *m = b->m;
  if (b->failed) return dj_error(DJ_E_NOMEM, "%s: no memory for a map", m->name);
  for (int r = 0; r < m->n_road; r++)
    for (int k = 0; k < m->road[r].n_section; k++)
      DJ_TRY(sample_section(b, r, m->road[r].section0 + k));
  m->x0 = m->y0 = 1e30;
  m->x1 = m->y1 = -1e30;
  for (int i = 0; i < m->n_point; i++) {
    m->x0 = fmin(m->x0, m->point[i].x);
    m->y0 = fmin(m->y0, m->point[i].y);
    m->x1 = fmax(m->x1, m->point[i].x);
    m->y1 = fmax(m->y1, m->point[i].y);
  }
  if (m->n_point == 0) m->x0 = m->y0 = m->x1 = m->y1 = 0;
  return DJ_OK;
}

/* ---- links ---- */
typedef struct pair {
  int from, to;
} pair;
typedef struct linker {
  const dj__map *m;
  pair *pair;
  int n, cap, apart;
  bool failed;
} linker;

/* Lanes a and b touch: a at the end of its section if a_end, otherwise at its start. */
static void touch(linker *k, int a, bool a_end, int b, bool b_end) {
  const dj__map *m = k->m;
  if (a < 0 || b < 0 || (a == b && a_end == b_end)) return;
  const dj__lane *la = &m->lane[a], *lb = &m->lane[b];
  if (la->type != lb->type) return;
  bool a_leaves = dj__lane_forward(&m->road[la->road], la->id) == a_end;
  bool b_leaves = dj__lane_forward(&m->road[lb->road], lb->id) == b_end;
  if (a_leaves == b_leaves) return;
  pair p = a_leaves ? (pair){a, b} : (pair){b, a};
  const dj__lane_point *e = &m->point[m->lane[p.from].point0 + m->lane[p.from].n_point - 1],
                       *f = &m->point[m->lane[p.to].point0];
  if (hypot(e->x - f->x, e->y - f->y) > MAX_GAP) {
    k->apart++;
    return;
  }
  if (k->n == k->cap) {
    k->cap = k->cap ? 2 * k->cap : 1024;
    pair *grown = realloc(k->pair, (size_t)k->cap * sizeof *grown);
    if (!grown) {
      k->failed = true;
      k->cap = k->n;
      return;
    }
    k->pair = grown;
  }
  k->pair[k->n++] = p;
}

static int lane_at(const dj__map *m, int section, int id) {
  int i = id ? dj__section_lane(m, section, id) : -1;
  return i < 0 ? -1 : m->road_lane[i].lane;
}

static int end_section(const dj__map *m, int road, bool at_start) {
  const dj__road *r = &m->road[road];
  return at_start ? r->section0 : r->section0 + r->n_section - 1;
}

static void touch_road(linker *k, int lane, bool at_end, int id, const dj__link *to) {
  if (to->kind != DJ__LINK_ROAD || id == 0) return;
  touch(k, lane, at_end, lane_at(k->m, end_section(k->m, to->index, to->at_start), id),
        !to->at_start);
}

static void touch_along(linker *k) {
  const dj__map *m = k->m;
  for (int r = 0; r < m->n_road; r++) {
    const dj__road *road = &m->road[r];
    for (int j = road->section0; j < road->section0 + road->n_section; j++) {
      bool first = j == road->section0, last = j + 1 == road->section0 + road->n_section;
      for (int i = m->section[j].lane0; i < m->section[j].lane0 + m->section[j].n_lane; i++) {
        const dj__road_lane *l = &m->road_lane[i];
        if (l->lane < 0) continue;
        if (last)
          touch_road(k, l->lane, true, l->succ, &road->succ);
        else
          touch(k, l->lane, true, lane_at(m, j + 1, l->succ), false);
        if (first)
          touch_road(k, l->lane, false, l->pred, &road->pred);
        else
          touch(k, l->lane, false, lane_at(m, j - 1, l->pred), true);
      }
    }
  }
}

bool dj__incoming_at_end(const dj__map *m, int junction, const dj__connection *c) {
  const dj__road *in = &m->road[c->incoming], *road = &m->road[c->connecting];
  bool at_end = in->succ.kind == DJ__LINK_JUNCTION && in->succ.index == junction;
  bool at_start = in->pred.kind == DJ__LINK_JUNCTION && in->pred.index == junction;
  if (at_end != at_start) return at_end;
  dj__pose e, s, p;
  dj__road_at(m, c->incoming, in->length, &e);
  dj__road_at(m, c->incoming, 0, &s);
  dj__road_at(m, c->connecting, c->at_start ? 0 : road->length, &p);
  return hypot(e.x - p.x, e.y - p.y) <= hypot(s.x - p.x, s.y - p.y);
}

static void touch_junctions(linker *k) {
  const dj__map *m = k->m;
  for (int j = 0; j < m->n_junction; j++)
    for (int i = 0; i < m->junction[j].n_connection; i++) {
      const dj__connection *c = &m->connection[m->junction[j].connection0 + i];
      bool in_end = dj__incoming_at_end(m, j, c);
      int in = end_section(m, c->incoming, !in_end),
          out = end_section(m, c->connecting, c->at_start);
      for (int l = c->link0; l < c->link0 + c->n_link; l++)
        touch(k, lane_at(m, in, m->lane_link[l][0]), in_end, lane_at(m, out, m->lane_link[l][1]),
              !c->at_start);
    }
}

static int by_from(const void *a, const void *b) {
  const pair *p = a, *q = b;
  if (p->from != q->from) return p->from < q->from ? -1 : 1;
  return p->to < q->to ? -1 : p->to > q->to;
}
static int by_to(const void *a, const void *b) {
  const pair *p = a, *q = b;
  if (p->to != q->to) return p->to < q->to ? -1 : 1;
  return p->from < q->from ? -1 : p->from > q->from;
}

static void store_links(dj__build *b, linker *k) {
  dj__map *m = b->m;
  int n = 0;
  if (k->n) qsort(k->pair, (size_t)k->n, sizeof *k->pair, by_from);
  for (int i = 0; i < k->n; i++)
    if (i == 0 || by_from(&k->pair[i], &k->pair[i - 1]) != 0) k->pair[n++] = k->pair[i];
  for (int i = 0; i < n; i++) {
    dj__lane *l = &m->lane[k->pair[i].from];
    if (l->n_succ++ == 0) l->succ0 = m->n_graph;
    *DJ__PUSH(b, graph) = k->pair[i].to;
  }
  if (n) qsort(k->pair, (size_t)n, sizeof *k->pair, by_to);
  for (int i = 0; i < n; i++) {
    dj__lane *l = &m->lane[k->pair[i].to];
    if (l->n_pred++ == 0) l->pred0 = m->n_graph;
    *DJ__PUSH(b, graph) = k->pair[i].from;
  }
}

/* ---- beside ---- */
static bool may_cross(dj__mark_type mark, bool outward) {
  switch (mark) {
  case DJ__MARK_NONE:
  case DJ__MARK_BROKEN:
    return true;
  case DJ__MARK_SOLID_BROKEN:
    return !outward; /* solid on the inner side */
  case DJ__MARK_BROKEN_SOLID:
    return outward;
  default:
    return false;
  }
}

static void look_beside(dj__map *m, dj__lane *l) {
  int section = l->section, n = m->section[section].n_lane, lane0 = m->section[section].lane0;
  int at = dj__section_lane(m, section, l->id) - lane0;
  int inward = l->id > 0 ? at + 1 : at - 1, outward = l->id > 0 ? at - 1 : at + 1;
  double mid = 0.5 * (m->section[section].s + dj__section_end(m, l->road, section));
  dj__mark_type in = DJ__MARK_NONE, out = dj__lane_mark(m, section, lane0 + at, mid)->type;
  if (inward >= 0 && inward < n) in = dj__lane_mark(m, section, lane0 + inward, mid)->type;
  int in_lane = -1, out_lane = -1;
  if (inward >= 0 && inward < n && m->road_lane[lane0 + inward].id != 0 &&
      m->road_lane[lane0 + inward].type == l->type)
    in_lane = m->road_lane[lane0 + inward].lane;
  if (outward >= 0 && outward < n && m->road_lane[lane0 + outward].type == l->type)
    out_lane = m->road_lane[lane0 + outward].lane;
  bool in_ok = in_lane >= 0 && l->junction < 0 && may_cross(in, false);
  bool out_ok = out_lane >= 0 && l->junction < 0 && may_cross(out, true);
  bool inner_left = !m->road[l->road].left_hand; /* the centre is to the left of traffic */
  l->left = inner_left ? in_lane : out_lane;
  l->right = inner_left ? out_lane : in_lane;
  l->mark_left = inner_left ? in : out;
  l->mark_right = inner_left ? out : in;
  l->change_left = inner_left ? in_ok : out_ok;
  l->change_right = inner_left ? out_ok : in_ok;
  int step = l->id > 0 ? -1 : 1;
  for (int id = step; l->opposite < 0; id += step) { /* across the centre, from inside out */
    int i = dj__section_lane(m, section, id);
    if (i < 0) break;
    if (m->road_lane[i].type == DJ__LANE_DRIVING) l->opposite = m->road_lane[i].lane;
  }
}

static dj__turn turn_of(const dj__map *m, const dj__lane *l) {
  const dj__lane_point *p = m->point + l->point0;
  double turned = 0;
  for (int i = 1; i < l->n_point; i++) turned += dj__wrap(p[i].yaw - p[i - 1].yaw);
  return fabs(turned) > 2.6 ? DJ__TURN_BACK
         : turned > 0.5     ? DJ__TURN_LEFT
         : turned < -0.5    ? DJ__TURN_RIGHT
                            : DJ__TURN_STRAIGHT;
}

dj_status dj__map_link_lanes(dj__build *b) {
  dj__map *m = b->m;
  linker k = {.m = m};
  touch_along(&k);
  touch_junctions(&k);
  store_links(b, &k);
  free(k.pair);
  if (k.failed || b->failed) return dj_error(DJ_E_NOMEM, "%s: no memory for links", m->name);
  if (k.apart)
    dj_message(DJ_LOG_WARN, "%s: %d links of lanes whose ends lie more than %g m apart left out",
               m->name, k.apart, MAX_GAP);
  for (int i = 0; i < m->n_lane; i++) {
    look_beside(m, &m->lane[i]);
    int j = m->lane[i].junction;
    m->lane[i].turn = j >= 0 ? turn_of(m, &m->lane[i]) : DJ__TURN_STRAIGHT;
    if (j >= 0 && m->junction[j].roundabout && /* round it is straight on */
        m->lane[i].turn == (m->road[m->lane[i].road].left_hand ? DJ__TURN_RIGHT : DJ__TURN_LEFT))
      m->lane[i].turn = DJ__TURN_STRAIGHT;
  }
  return DJ_OK;
}
