/*
 * Lane sections of a micrometre to some centimetres, as converters leave them where a lane begins
 * or ends: no places to be, and their lanes have other ids than those beside. The section before
 * reaches over such a sliver, or the one behind if it is the first. Links of lanes go through it:
 * those within the road at once, those of other roads and of junctions to a sliver at its end when
 * all roads are known. The lane offset over it, and often a jump of it, belongs to the sliver.
 */
#include "world/xodr.h"

#define SLIVER 0.2 /* m: lane sections shorter than this are no places to be */

/* Where lane `id` of a section goes on (or comes from): an id in the section or road behind. */
static int passed_on(const dj__map *m, int section, int id, bool forward) {
  int i = id ? dj__section_lane(m, section, id) : -1;
  return i < 0 ? 0 : forward ? m->road_lane[i].succ : m->road_lane[i].pred;
}

/* The same cubic, written from another start. */
static void start_from(dj__poly3 *p, double s) {
  double d = s - p->s;
  *p = (dj__poly3){.s = s,
                   .a = p->a + d * (p->b + d * (p->c + d * p->d)),
                   .b = p->b + d * (2 * p->c + d * 3 * p->d),
                   .c = p->c + 3 * d * p->d,
                   .d = p->d};
}

/* Of the offsets that begin in from..to the last one stays, and begins at `start`; the road is the
 * last one read. */
static void pass_offsets(dj__map *m, dj__road *o, double from, double to, double start) {
  dj__poly3 *p = m->offset + o->offset0;
  int n = 0, last = -1;
  for (int i = 0; i < o->n_offset; i++)
    if (p[i].s > from - 1e-6 && p[i].s < to + 1e-6) last = i;
  for (int i = 0; i < o->n_offset; i++) {
    if (i == last) start_from(&p[i], start);
    if (i >= last || p[i].s <= from - 1e-6) p[n++] = p[i];
  }
  m->n_offset -= o->n_offset - n;
  o->n_offset = n;
}

/* Section `j` begins at `from` already, earlier than it says. */
static void begin_earlier(dj__map *m, int j, double from) {
  dj__section *k = &m->section[j];
  const double d = k->s - from;
  k->s = from;
  for (int i = k->lane0; i < k->lane0 + k->n_lane; i++) {
    const dj__road_lane *l = &m->road_lane[i];
    for (int w = l->width0; w < l->width0 + l->n_width; w++) m->width[w].s += d;
    if (l->n_width) start_from(&m->width[l->width0], 0);
    for (int w = l->mark0 + 1; w < l->mark0 + l->n_mark; w++) m->mark[w].s += d;
  }
}

static void rename_lane(dj__build *b, dj__lane_renames *r, int road, bool at_start, int id,
                        int to) {
  dj__lane_rename *n = dj__build_push(b, &r->of, &r->n, sizeof *r->of);
  *n = (dj__lane_rename){road, at_start, id, to};
}

/* What others call by the ids of sliver `j` at the road's end is known by those of the section
 * beside; a second sliver at a start renames what the first one did. */
static void rename_lanes_of(dj__build *b, dj__lane_renames *r, int road, int j, bool at_start) {
  const dj__map *m = b->m;
  bool again = r->n > 0 && r->of[r->n - 1].road == road && at_start;
  for (int i = r->n - 1; again && i >= 0 && r->of[i].road == road; i--)
    r->of[i].to = passed_on(m, j, r->of[i].to, true);
  const dj__section *k = &m->section[j];
  for (int i = k->lane0; i < k->lane0 + k->n_lane && !again; i++) {
    const dj__road_lane *l = &m->road_lane[i];
    if (l->id != 0) rename_lane(b, r, road, at_start, l->id, at_start ? l->succ : l->pred);
  }
}

static void drop(dj__build *b, int road, int j, double to, dj__lane_renames *r) {
  dj__map *m = b->m;
  dj__road *o = &m->road[road];
  const bool first = j == o->section0, last = j + 1 == o->section0 + o->n_section;
  const double from = m->section[j].s;
  for (int side = 0; side < 2; side++) { /* of the section before, of the one behind */
    if (side ? last : first) continue;
    const dj__section *k = &m->section[side ? j + 1 : j - 1];
    for (int i = k->lane0; i < k->lane0 + k->n_lane; i++) {
      dj__road_lane *l = &m->road_lane[i];
      if (side)
        l->pred = passed_on(m, j, l->pred, false);
      else
        l->succ = passed_on(m, j, l->succ, true);
    }
  }
  if (first || last) rename_lanes_of(b, r, road, j, first);
  pass_offsets(m, o, from, to, first ? from : to);
  if (first) begin_earlier(m, j + 1, from);
  for (int i = j; i + 1 < m->n_section; i++) m->section[i] = m->section[i + 1];
  m->n_section--;
  o->n_section--;
}

void dj__xodr_drop_slivers(dj__build *b, int road, dj__lane_renames *r) {
  const dj__map *m = b->m;
  const dj__road *o = &m->road[road];
  for (int j = o->section0; j < o->section0 + o->n_section && o->n_section > 1;) {
    const double to = dj__section_end(m, road, j);
    if (to - m->section[j].s < SLIVER)
      drop(b, road, j, to, r);
    else
      j++;
  }
}

/* ---- links from elsewhere ---- */
static int now_called(const dj__lane_renames *r, int road, bool at_start, int id) {
  int lo = 0, hi = r->n;
  while (lo < hi) { /* renames lie in the order of roads */
    int mid = (lo + hi) / 2;
    if (r->of[mid].road < road)
      lo = mid + 1;
    else
      hi = mid;
  }
  for (; lo < r->n && r->of[lo].road == road; lo++)
    if (r->of[lo].at_start == at_start && r->of[lo].id == id) return r->of[lo].to;
  return id;
}

static void rename_section(dj__map *m, const dj__lane_renames *r, int section, const dj__link *to,
                           bool succ) {
  const dj__section *k = &m->section[section];
  if (to->kind != DJ__LINK_ROAD) return;
  for (int i = k->lane0; i < k->lane0 + k->n_lane; i++) {
    int *id = succ ? &m->road_lane[i].succ : &m->road_lane[i].pred;
    *id = now_called(r, to->index, to->at_start, *id);
  }
}

void dj__xodr_rename_lanes(dj__map *m, const dj__lane_renames *r) {
  for (int i = 0; i < m->n_road && r->n; i++) {
    const dj__road *o = &m->road[i];
    rename_section(m, r, o->section0, &o->pred, false);
    rename_section(m, r, o->section0 + o->n_section - 1, &o->succ, true);
  }
  for (int j = 0; j < m->n_junction && r->n; j++)
    for (int i = 0; i < m->junction[j].n_connection; i++) {
      const dj__connection *c = &m->connection[m->junction[j].connection0 + i];
      bool in_end = dj__incoming_at_end(m, j, c);
      for (int l = c->link0; l < c->link0 + c->n_link; l++) {
        m->lane_link[l][0] = now_called(r, c->incoming, !in_end, m->lane_link[l][0]);
        m->lane_link[l][1] = now_called(r, c->connecting, c->at_start, m->lane_link[l][1]);
      }
    }
}
