/* OpenDRIVE: what is written is read again as the same map; files of others are understood; broken
 * ones give an error with file, line and what was expected. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fs.h"
#include "world/map.h"

static dj__map *parse(const char *text) {
  dj__map *m = NULL;
  if (dj__map_parse_xodr("test.xodr", text, strlen(text), &m)) fail_msg("%s", dj_error_message());
  return m;
}

/* ---- round trip ---- */
static void same_graph(const dj__map *a, const dj__map *b) {
  assert_int_equal(a->n_lane, b->n_lane);
  assert_int_equal(a->n_point, b->n_point);
  assert_int_equal(a->n_graph, b->n_graph);
  assert_int_equal(a->n_stop, b->n_stop);
  assert_int_equal(a->n_conflict, b->n_conflict);
  assert_int_equal(a->n_crossing, b->n_crossing);
  assert_memory_equal(a->graph, b->graph, (size_t)a->n_graph * sizeof *a->graph);
  for (int i = 0; i < a->n_point; i++) {
    const dj__lane_point *p = &a->point[i], *q = &b->point[i];
    assert_true(hypot(p->x - q->x, p->y - q->y) < 1e-3 && fabs(p->z - q->z) < 1e-3);
    assert_true(fabsf(p->width - q->width) < 1e-3f && fabsf(p->left - q->left) < 1e-2f);
  }
  for (int i = 0; i < a->n_lane; i++) {
    const dj__lane *p = &a->lane[i], *q = &b->lane[i];
    assert_true(p->type == q->type && p->zone == q->zone && p->junction == q->junction &&
                p->left == q->left && p->right == q->right && p->opposite == q->opposite &&
                p->stop == q->stop && p->turn == q->turn && p->change_left == q->change_left &&
                p->change_right == q->change_right && p->n_conflict == q->n_conflict &&
                fabs(p->speed_limit - q->speed_limit) < 1e-6);
  }
  for (int i = 0; i < a->n_stop; i++)
    for (double t = 0; t < 130; t += 1.3)
      assert_int_equal(dj__map_light(a, i, t), dj__map_light(b, i, t));
  for (int i = 0; i < a->n_conflict; i++)
    assert_true(a->conflict[i].lane == b->conflict[i].lane &&
                a->conflict[i].yield == b->conflict[i].yield);
  for (int i = 0; i < a->n_crossing; i++)
    assert_true(fabs(a->crossing[i].x0 - b->crossing[i].x0) < 1e-3 &&
                fabs(a->crossing[i].y1 - b->crossing[i].y1) < 1e-3 &&
                a->crossing[i].lights == b->crossing[i].lights &&
                a->crossing[i].n_lane == b->crossing[i].n_lane);
  assert_true(a->digest == b->digest);
  double x = 0.4 * a->x0 + 0.6 * a->x1, y = 0.5 * (a->y0 + a->y1);
  assert_true(fabs(dj__map_ground(a, x, y) - dj__map_ground(b, x, y)) < 1e-3);
}

static void a_written_town_is_read_again(void **state) {
  (void)state;
  static const dj__town_style style[] = {DJ__TOWN_GRID,     DJ__TOWN_ORGANIC, DJ__TOWN_RURAL,
                                         DJ__TOWN_MOTORWAY, DJ__TOWN_MIXED,   DJ__TOWN_TRACK};
  for (size_t i = 0; i < sizeof style / sizeof *style; i++) {
    char path[] = "/tmp/dojo-xodr-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)close(fd);
    dj__map *a, *b;
    dj__town_config c = {.seed = 11 + i, .style = style[i], .hills = -1};
    assert_int_equal(dj__map_generate(&c, &a), DJ_OK);
    assert_int_equal(dj__map_write_xodr(a, path), DJ_OK);
    if (dj__map_read_xodr(path, &b)) fail_msg("%s", dj_error_message());
    same_graph(a, b);
    dj__map_destroy(a);
    dj__map_destroy(b);
    (void)unlink(path);
  }
}

/* ---- files of others ---- */
#define HEAD                                                                                       \
  "<?xml version=\"1.0\"?>\n<OpenDRIVE><header revMajor=\"1\" revMinor=\"4\" name=\"\"/>\n"
#define LANE(id, width)                                                                            \
  "<lane id=\"" id "\" type=\"driving\"><link><predecessor id=\"" id "\"/><successor id=\"" id     \
  "\"/></link><width sOffset=\"0\" a=\"" width "\" b=\"0\" c=\"0\" d=\"0\"/>"                      \
  "<roadMark sOffset=\"0\" type=\"broken\" color=\"white\"/></lane>"
#define CENTRE "<center><lane id=\"0\" type=\"none\"/></center>"

static const char two_roads[] = HEAD
    "<road id=\"7\" length=\"100\" junction=\"-1\"><link><successor elementType=\"road\" "
    "elementId=\"9\" contactPoint=\"start\"/></link>"
    "<type s=\"0\" type=\"town\"><speed max=\"30\" unit=\"mph\"/></type>"
    "<planView><geometry s=\"0\" x=\"0\" y=\"0\" hdg=\"0\" length=\"60\"><line/></geometry>"
    "<geometry s=\"60\" x=\"60\" y=\"0\" hdg=\"0\" length=\"40\"><spiral curvStart=\"0\" "
    "curvEnd=\"0.02\"/></geometry></planView>"
    "<elevationProfile><elevation s=\"0\" a=\"3\" b=\"0.02\" c=\"0\" d=\"0\"/></elevationProfile>"
    "<lateralProfile><superelevation s=\"0\" a=\"0.02\" b=\"0\" c=\"0\" d=\"0\"/></lateralProfile>"
    "<lanes><laneSection s=\"0\"><left>" LANE("1", "3") "</left>" CENTRE "<right>" LANE("-1", "3.5")
        LANE("-2", "3.5") "</right></laneSection></lanes></road>\n"
                          "<road id=\"9\" length=\"50\" junction=\"-1\"><link><predecessor "
                          "elementType=\"road\" "
                          "elementId=\"7\" contactPoint=\"end\"/></link>"
                          "<planView><geometry s=\"0\" x=\"98.952566\" y=\"5.273178\" hdg=\"0.4\" "
                          "length=\"50\">"
                          "<arc curvature=\"0.02\"/></geometry></planView>"
                          "<lanes><laneSection s=\"0\"><left>" LANE(
                              "1", "3") "</left>" CENTRE "<right>" LANE("-1", "3.5")
                              LANE("-2", "3.5") "</right></laneSection></lanes></road></OpenDRIVE>";

static void lanes_of_others_are_understood(void **state) {
  (void)state;
  dj__map *m = parse(two_roads);
  assert_int_equal(m->n_road, 2);
  assert_int_equal(m->n_lane, 6);
  for (int i = 0; i < m->n_lane; i++) {
    const dj__lane *l = &m->lane[i];
    bool first = l->road == 0, forward = l->id < 0;
    assert_int_equal(l->n_succ, first == forward);
    if (first) assert_true(fabs(l->speed_limit - 30 * 0.44704) < 1e-9);
    if (l->id == -1) assert_true(l->right >= 0 && l->left == -1 && l->change_right);
    if (l->id == -2) assert_true(m->lane[l->left].id == -1 && l->change_left && l->right == -1);
    assert_true((l->opposite >= 0) && (m->lane[l->opposite].id > 0) != (l->id > 0));
  }
  dj__place p;
  int lane = dj__map_nearest(m, 30, -1.75, 0, 1u << DJ__LANE_DRIVING, 3, NULL, NULL);
  assert_true(lane >= 0 && m->lane[lane].id == -1);
  dj__map_at(m, lane, 30, 0, &p);
  assert_true(fabs(p.x - 30) < 1e-3 && fabs(p.y + 1.75) < 1e-6 && fabs(p.z - 3.6) < 1e-6);
  /* against it runs lane 1 */
  lane = dj__map_nearest(m, 30, -1.75, M_PI, 1u << DJ__LANE_DRIVING, 6, NULL, NULL);
  assert_true(lane >= 0 && m->lane[lane].id == 1);
  dj__map_destroy(m);
}

/* A clothoid's end: its parameters are those of the Fresnel integrals (x, y from their series). */
static void clothoids_end_where_they_should(void **state) {
  (void)state;
  dj__map *m = parse(two_roads);
  double k = 0.02 / 40, x = 0, y = 0; /* heading k u^2 / 2 */
  int n = 200000;
  for (int i = 0; i < n; i++) {
    double u = 40 * (i + 0.5) / n, a = 0.5 * k * u * u;
    x += 40.0 / n * cos(a);
    y += 40.0 / n * sin(a);
  }
  const dj__lane *l = NULL;
  for (int i = 0; i < m->n_lane; i++)
    if (m->lane[i].road == 0 && m->lane[i].id == -1) l = &m->lane[i];
  assert_non_null(l);
  const dj__lane_point *e = &m->point[l->point0 + l->n_point - 1];
  double hdg = 0.4; /* k 40^2 / 2 */
  assert_true(fabs(e->x - (60 + x + 1.75 * sin(hdg))) < 1e-6);
  assert_true(fabs(e->y - (y - 1.75 * cos(hdg))) < 1e-6);
  assert_true(fabs(e->yaw - hdg) < 1e-6);
  dj__map_destroy(m);
}

static void left_hand_traffic_is_driven_on_the_left(void **state) {
  (void)state;
  static const char text[] = HEAD
      "<road id=\"1\" length=\"80\" junction=\"-1\" rule=\"LHT\"><planView><geometry s=\"0\" "
      "x=\"0\" y=\"0\" hdg=\"0\" length=\"80\"><line/></geometry></planView><lanes>"
      "<laneSection s=\"0\"><left>" LANE("2", "3") LANE("1", "3") "</left>" CENTRE "<right>" LANE(
          "-1", "3") "</right></laneSection></lanes></road></OpenDRIVE>";
  dj__map *m = parse(text);
  for (int i = 0; i < m->n_lane; i++) {
    const dj__lane *l = &m->lane[i];
    const dj__lane_point *p = &m->point[l->point0];
    assert_true(fabs(remainder(p->yaw - (l->id > 0 ? 0 : M_PI), 2 * M_PI)) < 1e-6);
    if (l->id == 1) assert_true(l->left >= 0 && m->lane[l->left].id == 2);
  }
  dj__map_destroy(m);
}

/* ---- files in the dialect of CARLA and RoadRunner (tests/fuzz/corpus/xodr/dialect-*) ---- */
static dj__map *fixture(const char *name) {
  char *path = dj__strf("%s/tests/fuzz/corpus/xodr/%s", DOJO_SOURCE_DIR, name);
  dj__map *m = NULL;
  if (dj__map_read_xodr(path, &m)) fail_msg("%s", dj_error_message());
  free(path);
  return m;
}

static int lane_of(const dj__map *m, const char *road, int section, int id) {
  for (int i = 0; i < m->n_lane; i++) {
    const dj__road *r = &m->road[m->lane[i].road];
    if (strcmp(r->id, road) == 0 && m->lane[i].section == r->section0 + section &&
        m->lane[i].id == id)
      return i;
  }
  fail_msg("road %s, section %d, lane %d is not there", road, section, id);
  return -1;
}

static bool leads_to(const dj__map *m, int from, int to) {
  bool found = false;
  for (int k = 0; k < m->lane[from].n_succ; k++) found |= m->graph[m->lane[from].succ0 + k] == to;
  return found;
}

/* Lane -2 narrows to nothing at the seam of two sections and goes on in lane -1, as lane -1 does.
 */
static void lanes_go_on_from_section_to_section(void **state) {
  (void)state;
  dj__map *m = fixture("dialect-sections.xodr");
  int inner = lane_of(m, "0", 1, -1), ends = lane_of(m, "0", 1, -2), last = lane_of(m, "0", 2, -1);
  assert_true(leads_to(m, lane_of(m, "0", 0, -1), inner));
  assert_true(leads_to(m, lane_of(m, "0", 0, -2), ends));
  assert_true(leads_to(m, inner, last) && leads_to(m, ends, last));
  assert_true(leads_to(m, lane_of(m, "0", 2, 1), lane_of(m, "0", 1, 1)));
  assert_true(leads_to(m, lane_of(m, "0", 1, -3), lane_of(m, "0", 2, -2)));
  const dj__lane *l = &m->lane[last];
  assert_true(fabs(m->point[l->point0].y - (5 - 1.75)) < 1e-6); /* moved by laneOffset */
  assert_true(fabs(l->speed_limit - 25 * 0.44704) < 1e-9);
  dj__map_destroy(m);
}

/* A junction's connections, lights that hold for one lane, a crosswalk given by its outline. */
static void junctions_of_others_are_understood(void **state) {
  (void)state;
  dj__map *m = fixture("dialect-junction.xodr");
  int west = lane_of(m, "1", 0, -1), straight = lane_of(m, "4", 0, -1),
      right = lane_of(m, "6", 0, -1), left = lane_of(m, "7", 0, -1), south = lane_of(m, "3", 0, -1);
  assert_true(leads_to(m, west, straight) && leads_to(m, west, right));
  assert_true(leads_to(m, straight, lane_of(m, "2", 0, -1)));
  assert_true(leads_to(m, lane_of(m, "2", 0, 1), left) && leads_to(m, left, south) &&
              leads_to(m, right, south));
  assert_int_equal(m->lane[right].turn, DJ__TURN_RIGHT);
  assert_int_equal(m->lane[left].turn, DJ__TURN_LEFT);
  bool merge = false;
  for (int k = 0; k < m->lane[left].n_conflict; k++) {
    const dj__conflict *c = &m->conflict[m->lane[left].conflict0 + k];
    merge |= c->lane == right && c->merge;
  }
  assert_true(merge);
  assert_true(m->lane[west].stop >= 0);
  assert_int_equal(m->stop[m->lane[west].stop].control, DJ__CONTROL_LIGHTS);
  assert_int_equal(m->n_crossing, 1);
  assert_true(fabs(m->crossing[0].s - 84) < 1e-9 && m->crossing[0].lights);
  dj__map_destroy(m);
}

/* Sections of a micrometre to some centimetres, as converters leave them, are no lanes to be on. */
static void slivers_of_sections_are_passed_through(void **state) {
  (void)state;
  dj__map *m = fixture("dialect-slivers.xodr");
  assert_int_equal(m->road[0].n_section, 2);
  int first = lane_of(m, "1", 0, -1), last = lane_of(m, "1", 1, -1);
  assert_int_equal(m->lane[first].n_succ, 1);
  assert_true(leads_to(m, first, last));
  assert_true(fabs(m->lane[first].length - 60) < 0.2 && fabs(m->lane[last].length - 60) < 0.2);
  dj__map_destroy(m);
}

/* Converters number lanes anew where one begins or ends, and let the lane offset jump in return:
 * the road goes straight on, and roads and junctions that link to a sliver's lane mean the one
 * beside. */
static void offsets_that_jump_move_no_lane(void **state) {
  (void)state;
  dj__map *m = fixture("dialect-offsets.xodr");
  int way[5] = {lane_of(m, "1", 0, -1), lane_of(m, "2", 0, -1), lane_of(m, "2", 1, -3),
                lane_of(m, "3", 0, -1), lane_of(m, "4", 0, -1)};
  for (int k = 0; k < 5; k++) {
    const dj__lane *l = &m->lane[way[k]];
    for (int i = 0; i < l->n_point; i++) assert_true(fabs(m->point[l->point0 + i].y + 1.75) < 1e-6);
    assert_true(fabs(l->length - (k < 4 ? 60 : 30)) < 0.2);
    if (k) assert_true(leads_to(m, way[k - 1], way[k]));
  }
  dj__map_destroy(m);
}

/* A direct junction: roads meet in it without roads of its own between them. */
static void roads_that_split_are_understood(void **state) {
  (void)state;
  dj__map *m = fixture("dialect-direct.xodr");
  int lane[3] = {lane_of(m, "1", 0, -1), lane_of(m, "1", 0, -2), lane_of(m, "1", 0, -3)};
  assert_true(leads_to(m, lane[0], lane_of(m, "2", 0, -1)));
  assert_true(leads_to(m, lane[1], lane_of(m, "2", 0, -2)));
  assert_true(leads_to(m, lane[2], lane_of(m, "3", 0, -1)));
  for (int k = 0; k < 3; k++) assert_int_equal(m->lane[lane[k]].n_succ, 1);
  char *path = dj__strf("/tmp/dojo-xodr-%d.xodr", (int)getpid());
  assert_int_equal(dj__map_write_xodr(m, path), DJ_OK);
  dj__map *again;
  assert_int_equal(dj__map_read_xodr(path, &again), DJ_OK);
  same_graph(m, again);
  (void)remove(path);
  free(path);
  dj__map_destroy(again);
  dj__map_destroy(m);
}

/* ---- broken files ---- */
static void refuse(const char *text, dj_status expected, const char *line, const char *what) {
  dj__map *m = NULL;
  dj_status s = dj__map_parse_xodr("bad.xodr", text, strlen(text), &m);
  dj__map_destroy(m);
  if (s != expected)
    fail_msg("status %d (%s), expected %d for %s", s, dj_error_message(), expected, what);
  if (!strstr(dj_error_message(), line) || !strstr(dj_error_message(), what))
    fail_msg("message \"%s\" lacks \"%s\" or \"%s\"", dj_error_message(), line, what);
}

/* two_roads with a piece replaced. */
static void refuse_with(const char *old, const char *new, dj_status expected, const char *line,
                        const char *what) {
  const char *at = strstr(two_roads, old);
  assert_non_null(at);
  char *text = dj__strf("%.*s%s%s", (int)(at - two_roads), two_roads, new, at + strlen(old));
  refuse(text, expected, line, what);
  free(text);
}

static void broken_files_are_named(void **state) {
  (void)state;
  refuse("", DJ_E_FORMAT, "bad.xodr:1", "no element");
  refuse("<OpenDRIVE><road", DJ_E_FORMAT, "bad.xodr:1", "");
  refuse("<a/>", DJ_E_FORMAT, "bad.xodr:1", "expected <OpenDRIVE>");
  refuse(HEAD "</OpenDRIVE>", DJ_E_FORMAT, "bad.xodr", "expected at least one road");
  refuse("<!DOCTYPE a [<!ENTITY b \"c\">]><OpenDRIVE/>", DJ_E_FORMAT, "bad.xodr:1",
         "document type");
  refuse_with("revMajor=\"1\"", "revMajor=\"2\"", DJ_E_UNSUPPORTED, "bad.xodr:2",
              "expected revMajor 1");
  refuse_with("length=\"100\"", "length=\"1e300\"", DJ_E_FORMAT, "bad.xodr:3", "length=\"1e300\"");
  refuse_with("length=\"100\"", "length=\"nan\"", DJ_E_FORMAT, "bad.xodr:3", "expected a number");
  refuse_with("length=\"100\"", "length=\"-4\"", DJ_E_FORMAT, "bad.xodr:3", "expected above 0");
  refuse_with("length=\"100\"", "length=\"120\"", DJ_E_FORMAT, "bad.xodr:3",
              "its geometry is 100 m");
  refuse_with("length=\"100\"", "size=\"100\"", DJ_E_FORMAT, "bad.xodr:3", "attribute 'length'");
  refuse_with("elementId=\"9\"", "elementId=\"8\"", DJ_E_FORMAT, "bad.xodr:3", "linked road \"8\"");
  refuse_with("junction=\"-1\"", "junction=\"5\"", DJ_E_FORMAT, "bad.xodr:3", "junction \"5\"");
  refuse_with("curvEnd=\"0.02\"", "curvEnd=\"200\"", DJ_E_FORMAT, "bad.xodr:3", "in one piece");
  refuse_with("s=\"60\" x", "s=\"20\" x", DJ_E_FORMAT, "bad.xodr:3", "expected 60");
  refuse_with("a=\"3.5\"", "a=\"-3.5\"", DJ_E_FORMAT, "bad.xodr:3", "expected 0 to 100 m");
  refuse_with("a=\"3.5\"", "a=\"inf\"", DJ_E_FORMAT, "bad.xodr:3", "expected a number");
  refuse_with("lane id=\"-2\"", "lane id=\"-3\"", DJ_E_FORMAT, "bad.xodr:3", "without gaps");
  refuse_with("lane id=\"-2\"", "lane id=\"x\"", DJ_E_FORMAT, "bad.xodr:3", "expected a number");
  refuse_with("road id=\"9\"", "road id=\"7\"", DJ_E_FORMAT, "bad.xodr:4", "is there twice");
  refuse_with("<arc curvature=\"0.02\"/>",
              "<paramPoly3 aU=\"0\" bU=\"1e7\" cU=\"1e7\" dU=\"0\" aV=\"0\" bV=\"0\" cV=\"0\" "
              "dV=\"0\" pRange=\"arcLength\"/>",
              DJ_E_FORMAT, "bad.xodr", "road 9");
}

static void missing_files_are_said_to_be(void **state) {
  (void)state;
  dj__map *m;
  assert_int_equal(dj__map_read_xodr("/nonexistent/a.xodr", &m), DJ_E_NOT_FOUND);
  assert_non_null(strstr(dj_error_message(), "/nonexistent/a.xodr"));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_written_town_is_read_again),
                                     cmocka_unit_test(lanes_of_others_are_understood),
                                     cmocka_unit_test(clothoids_end_where_they_should),
                                     cmocka_unit_test(left_hand_traffic_is_driven_on_the_left),
                                     cmocka_unit_test(lanes_go_on_from_section_to_section),
                                     cmocka_unit_test(junctions_of_others_are_understood),
                                     cmocka_unit_test(slivers_of_sections_are_passed_through),
                                     cmocka_unit_test(offsets_that_jump_move_no_lane),
                                     cmocka_unit_test(roads_that_split_are_understood),
                                     cmocka_unit_test(broken_files_are_named),
                                     cmocka_unit_test(missing_files_are_said_to_be)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
