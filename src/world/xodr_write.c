/*
 * A map as ASAM OpenDRIVE 1.7: header, roads with their plan view, heights, lanes, crossings (as
 * crosswalk objects) and signals, controllers, junctions. Numbers have 17 digits, so that what is
 * read again is the same to the bit. What OpenDRIVE has no place for (the seed, phases' lengths,
 * roundabouts, tracks) is userData with codes "dojo.*", which others pass over.
 *
 * Source: ASAM OpenDRIVE 1.7.0, concept document and XML schema.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "world/map_build.h"
#include "world/xodr.h"

static void text(FILE *f, const char *s) { /* as an attribute's value */
  for (; *s; s++) {
    switch (*s) {
    case '&':
      (void)fputs("&amp;", f);
      break;
    case '<':
      (void)fputs("&lt;", f);
      break;
    case '>':
      (void)fputs("&gt;", f);
      break;
    case '"':
      (void)fputs("&quot;", f);
      break;
    default:
      (void)fputc((unsigned char)*s < 32 ? ' ' : *s, f);
    }
  }
}

static void attribute(FILE *f, const char *name, const char *value) {
  (void)fprintf(f, " %s=\"", name);
  text(f, value);
  (void)fputc('"', f);
}

static void number(FILE *f, const char *name, double v) {
  (void)fprintf(f, " %s=\"%.17g\"", name, v);
}

static void cubic(FILE *f, const char *element, const char *at, const dj__poly3 *p) {
  (void)fprintf(f, "<%s", element);
  number(f, at, p->s);
  number(f, "a", p->a);
  number(f, "b", p->b);
  number(f, "c", p->c);
  number(f, "d", p->d);
  (void)fputs("/>\n", f);
}

static void write_link(FILE *f, const dj__map *m, const char *which, const dj__link *l) {
  if (l->kind == DJ__LINK_NONE) return;
  bool road = l->kind == DJ__LINK_ROAD;
  (void)fprintf(f, "<%s elementType=\"%s\"", which, road ? "road" : "junction");
  attribute(f, "elementId", road ? m->road[l->index].id : m->junction[l->index].id);
  if (road) attribute(f, "contactPoint", l->at_start ? "start" : "end");
  (void)fputs("/>\n", f);
}

static void write_geometry(FILE *f, const dj__geom *g) {
  (void)fputs("<geometry", f);
  number(f, "s", g->s);
  number(f, "x", g->x);
  number(f, "y", g->y);
  number(f, "hdg", g->hdg);
  number(f, "length", g->length);
  (void)fputc('>', f);
  switch (g->kind) {
  case DJ__GEOM_LINE:
    (void)fputs("<line/>", f);
    break;
  case DJ__GEOM_ARC:
    (void)fputs("<arc", f);
    number(f, "curvature", g->curv0);
    (void)fputs("/>", f);
    break;
  case DJ__GEOM_SPIRAL:
    (void)fputs("<spiral", f);
    number(f, "curvStart", g->curv0);
    number(f, "curvEnd", g->curv1);
    (void)fputs("/>", f);
    break;
  case DJ__GEOM_PARAM_POLY3: {
    static const char *const u[] = {"aU", "bU", "cU", "dU"}, *const v[] = {"aV", "bV", "cV", "dV"};
    (void)fputs("<paramPoly3", f);
    for (int i = 0; i < 4; i++) number(f, u[i], g->u[i]);
    for (int i = 0; i < 4; i++) number(f, v[i], g->v[i]);
    attribute(f, "pRange", g->normalized ? "normalized" : "arcLength");
    (void)fputs("/>", f);
  }
  }
  (void)fputs("</geometry>\n", f);
}

static void write_lane(FILE *f, const dj__map *m, const dj__road_lane *l) {
  (void)fprintf(f, "<lane id=\"%d\" type=\"%s\" level=\"false\">\n", l->id,
                dj__xodr_lane_type(l->type));
  if (l->pred || l->succ) {
    (void)fputs("<link>", f);
    if (l->pred) (void)fprintf(f, "<predecessor id=\"%d\"/>", l->pred);
    if (l->succ) (void)fprintf(f, "<successor id=\"%d\"/>", l->succ);
    (void)fputs("</link>\n", f);
  }
  for (int i = 0; i < l->n_width && l->id; i++)
    cubic(f, "width", "sOffset", &m->width[l->width0 + i]);
  for (int i = 0; i < l->n_mark; i++) {
    const dj__road_mark *k = &m->mark[l->mark0 + i];
    (void)fputs("<roadMark", f);
    number(f, "sOffset", k->s);
    attribute(f, "type", dj__xodr_mark_type(k->type));
    attribute(f, "weight", "standard");
    attribute(f, "color", k->yellow ? "yellow" : "white");
    number(f, "width", k->width);
    bool may = k->type == DJ__MARK_BROKEN || k->type == DJ__MARK_NONE;
    attribute(f, "laneChange",
              may ? "both"
              : k->type == DJ__MARK_SOLID_BROKEN || k->type == DJ__MARK_BROKEN_SOLID
                  ? ((k->type == DJ__MARK_SOLID_BROKEN) == (l->id > 0) ? "decrease" : "increase")
                  : "none");
    (void)fputs("/>\n", f);
  }
  if (l->speed > 0) {
    (void)fputs("<speed sOffset=\"0\"", f);
    number(f, "max", l->speed);
    (void)fputs(" unit=\"m/s\"/>\n", f);
  }
  if (l->type == DJ__LANE_SIDEWALK)
    (void)fprintf(f, "<height sOffset=\"0\" inner=\"%g\" outer=\"%g\"/>\n", DJ__KERB, DJ__KERB);
  (void)fputs("</lane>\n", f);
}

static void write_section(FILE *f, const dj__map *m, const dj__section *k) {
  static const char *const part[] = {"left", "center", "right"};
  (void)fputs("<laneSection", f);
  number(f, "s", k->s);
  (void)fputs(">\n", f);
  for (int p = 0; p < 3; p++) {
    bool open = false;
    for (int i = k->lane0; i < k->lane0 + k->n_lane; i++) {
      int id = m->road_lane[i].id;
      if ((id > 0 ? 0 : id == 0 ? 1 : 2) != p) continue;
      if (!open) (void)fprintf(f, "<%s>\n", part[p]);
      open = true;
      write_lane(f, m, &m->road_lane[i]);
    }
    if (open) (void)fprintf(f, "</%s>\n", part[p]);
  }
  (void)fputs("</laneSection>\n", f);
}

static void write_objects(FILE *f, const dj__map *m, int road) {
  bool open = false;
  for (int i = 0; i < m->n_crossing; i++) {
    const dj__crossing *c = &m->crossing[i];
    if (c->road != road) continue;
    if (!open) (void)fputs("<objects>\n", f);
    open = true;
    double t = 0.5 * (c->t0 + c->t1), across = c->t1 - c->t0, u = 0.5 * c->width, v = 0.5 * across;
    (void)fprintf(f, "<object id=\"%d\" name=\"crossing\" type=\"crosswalk\" orientation=\"none\"",
                  i);
    number(f, "s", c->s);
    number(f, "t", t);
    (void)fputs(" zOffset=\"0\" hdg=\"0\" pitch=\"0\" roll=\"0\" height=\"0\"", f);
    number(f, "length", c->width);
    number(f, "width", across);
    (void)fputs("><outlines><outline id=\"0\" closed=\"true\">", f);
    const double corner[4][2] = {{-u, -v}, {u, -v}, {u, v}, {-u, v}};
    for (int k = 0; k < 4; k++) {
      (void)fprintf(f, "<cornerLocal id=\"%d\"", k);
      number(f, "u", corner[k][0]);
      number(f, "v", corner[k][1]);
      (void)fputs(" z=\"0\" height=\"0\"/>", f);
    }
    (void)fputs("</outline></outlines>", f);
    (void)fputs("<userData code=\"dojo.t\" value=\"", f);
    (void)fprintf(f, "%.17g %.17g\"/></object>\n", c->t0, c->t1);
  }
  if (open) (void)fputs("</objects>\n", f);
}

static void write_signal(FILE *f, const dj__signal *g) {
  (void)fputs("<signal", f);
  number(f, "s", g->s);
  number(f, "t", g->t);
  attribute(f, "id", g->id);
  attribute(f, "name", "");
  attribute(f, "dynamic", g->kind == DJ__SIGNAL_LIGHT ? "yes" : "no");
  attribute(f, "orientation", g->forward ? "+" : "-");
  number(f, "zOffset", g->z_offset);
  attribute(f, "country", g->kind == DJ__SIGNAL_LIGHT ? "OpenDRIVE" : "DE");
  attribute(f, "type", dj__xodr_signal_type(g->kind));
  attribute(f, "subtype", "-1");
  if (g->kind == DJ__SIGNAL_SPEED) {
    number(f, "value", g->value);
    attribute(f, "unit", "m/s");
  } else {
    number(f, "value", -1);
  }
  (void)fputs(" height=\"0.8\" width=\"0.6\" hOffset=\"0\" pitch=\"0\" roll=\"0\">", f);
  if (g->from_lane || g->to_lane)
    (void)fprintf(f, "<validity fromLane=\"%d\" toLane=\"%d\"/>", g->from_lane, g->to_lane);
  (void)fputs("</signal>\n", f);
}

static void write_reference(FILE *f, const dj__signal *g) {
  (void)fputs("<signalReference", f);
  number(f, "s", g->s);
  number(f, "t", g->t);
  attribute(f, "id", g->id);
  attribute(f, "orientation", g->forward ? "+" : "-");
  (void)fputc('>', f);
  if (g->from_lane || g->to_lane)
    (void)fprintf(f, "<validity fromLane=\"%d\" toLane=\"%d\"/>", g->from_lane, g->to_lane);
  (void)fputs("</signalReference>\n", f);
}

static void write_signals(FILE *f, const dj__map *m, int road) {
  bool open = false;
  for (int i = 0; i < m->n_signal; i++) {
    if (m->signal[i].road != road) continue;
    if (!open) (void)fputs("<signals>\n", f);
    open = true;
    (m->signal[i].reference ? write_reference : write_signal)(f, &m->signal[i]);
  }
  if (open) (void)fputs("</signals>\n", f);
}

static void write_road(FILE *f, const dj__map *m, int road) {
  const dj__road *r = &m->road[road];
  (void)fputs("<road", f);
  attribute(f, "name", r->name);
  number(f, "length", r->length);
  attribute(f, "id", r->id);
  attribute(f, "junction", r->junction >= 0 ? m->junction[r->junction].id : "-1");
  attribute(f, "rule", r->left_hand ? "LHT" : "RHT");
  (void)fputs(">\n<link>\n", f);
  write_link(f, m, "predecessor", &r->pred);
  write_link(f, m, "successor", &r->succ);
  (void)fprintf(f, "</link>\n<type s=\"0\" type=\"%s\"><speed", dj__xodr_zone(r->zone));
  number(f, "max", r->speed);
  (void)fputs(" unit=\"m/s\"/></type>\n<planView>\n", f);
  for (int i = 0; i < r->n_geom; i++) write_geometry(f, &m->geom[r->geom0 + i]);
  (void)fputs("</planView>\n<elevationProfile>\n", f);
  for (int i = 0; i < r->n_elevation; i++)
    cubic(f, "elevation", "s", &m->elevation[r->elevation0 + i]);
  (void)fputs("</elevationProfile>\n<lateralProfile/>\n<lanes>\n", f);
  for (int i = 0; i < r->n_offset; i++) cubic(f, "laneOffset", "s", &m->offset[r->offset0 + i]);
  for (int i = 0; i < r->n_section; i++) write_section(f, m, &m->section[r->section0 + i]);
  (void)fputs("</lanes>\n", f);
  write_objects(f, m, road);
  write_signals(f, m, road);
  if (r->zone == DJ__ZONE_TRACK) (void)fputs("<userData code=\"dojo.zone\" value=\"track\"/>\n", f);
  (void)fputs("</road>\n", f);
}

static void write_controllers(FILE *f, const dj__map *m) {
  for (int i = 0; i < m->n_controller; i++) {
    const dj__controller *c = &m->controller[i];
    (void)fputs("<controller", f);
    attribute(f, "id", c->id);
    attribute(f, "name", c->id);
    (void)fprintf(f, " sequence=\"%d\">\n", c->sequence);
    for (int k = 0; k < m->n_signal; k++) {
      if (m->signal[k].controller != i || m->signal[k].reference) continue;
      (void)fputs("<control", f);
      attribute(f, "signalId", m->signal[k].id);
      (void)fputs(" type=\"0\"/>\n", f);
    }
    (void)fprintf(f, "<userData code=\"dojo.phase\" value=\"%.17g %.17g %.17g\"/>\n</controller>\n",
                  c->green, c->yellow, c->all_red);
  }
}

static void write_junction(FILE *f, const dj__map *m, int junction) {
  const dj__junction *j = &m->junction[junction];
  (void)fputs("<junction", f);
  attribute(f, "name", j->name);
  attribute(f, "id", j->id);
  attribute(f, "type", j->direct ? "direct" : "default");
  (void)fputs(">\n", f);
  for (int i = 0; i < j->n_connection; i++) {
    const dj__connection *c = &m->connection[j->connection0 + i];
    (void)fprintf(f, "<connection id=\"%d\"", i);
    attribute(f, "incomingRoad", m->road[c->incoming].id);
    attribute(f, dj__xodr_second_road(j), m->road[c->connecting].id);
    attribute(f, "contactPoint", c->at_start ? "start" : "end");
    (void)fputc('>', f);
    for (int k = c->link0; k < c->link0 + c->n_link; k++)
      (void)fprintf(f, "<laneLink from=\"%d\" to=\"%d\"/>", m->lane_link[k][0], m->lane_link[k][1]);
    (void)fputs("</connection>\n", f);
  }
  for (int i = 0; i < m->n_controller; i++) {
    if (m->controller[i].junction != junction) continue;
    (void)fputs("<controller", f);
    attribute(f, "id", m->controller[i].id);
    (void)fprintf(f, " type=\"0\" sequence=\"%d\"/>\n", m->controller[i].sequence);
  }
  if (j->roundabout) (void)fputs("<userData code=\"dojo.roundabout\" value=\"1\"/>\n", f);
  (void)fputs("</junction>\n", f);
}

dj_status dj__map_write_xodr(const dj__map *m, const char *path) {
  dj__atomic a;
  DJ_TRY(dj__atomic_open(&a, path));
  FILE *f = a.file;
  (void)fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<OpenDRIVE>\n<header revMajor=\"1\" "
              "revMinor=\"7\" version=\"1\" vendor=\"Dojo\"",
              f);
  attribute(f, "name", m->name);
  number(f, "north", m->y1);
  number(f, "south", m->y0);
  number(f, "east", m->x1);
  number(f, "west", m->x0);
  (void)fprintf(f, ">\n<userData code=\"dojo.seed\" value=\"%llu\"/>\n</header>\n",
                (unsigned long long)m->seed);
  for (int i = 0; i < m->n_road; i++) write_road(f, m, i);
  write_controllers(f, m);
  for (int i = 0; i < m->n_junction; i++) write_junction(f, m, i);
  (void)fputs("</OpenDRIVE>\n", f);
  if (ferror(f)) {
    dj_status s = dj_error_errno("%s: cannot write", path);
    dj__atomic_abort(&a);
    return s;
  }
  return dj__atomic_commit(&a);
}
