/*
 * One English sentence about a moment, made from its state: light and weather, the road and its
 * traffic, what the vehicle does and why, the traffic light ahead, and what somebody does wrong.
 *
 *     At night in the rain, on a wet street in town with little traffic, the car follows a van at
 *     32 km/h towards a red light 40 m ahead.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "world/labels.h"

typedef struct words {
  char *at;
  size_t left;
} words;

static void say(words *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(words *w, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(w->at, w->left, fmt, ap);
  va_end(ap);
  size_t used = n < 0 ? 0 : (size_t)n < w->left ? (size_t)n : w->left - 1;
  w->at += used;
  w->left -= used;
}

static const char *kind_word(int kind) {
  static const char *const names[DJ_N_AGENT_KINDS] = {[DJ_AGENT_CAR] = "car",
                                                      [DJ_AGENT_VAN] = "van",
                                                      [DJ_AGENT_LORRY] = "lorry",
                                                      [DJ_AGENT_BUS] = "bus",
                                                      [DJ_AGENT_MOTORCYCLE] = "motorcycle",
                                                      [DJ_AGENT_CYCLIST] = "cyclist",
                                                      [DJ_AGENT_PEDESTRIAN] = "pedestrian",
                                                      [DJ_AGENT_CONE] = "traffic cone",
                                                      [DJ_AGENT_BARRIER] = "barrier",
                                                      [DJ_AGENT_RC_CAR] = "model car"};
  return kind >= 0 && kind < DJ_N_AGENT_KINDS ? names[kind] : "vehicle";
}

// "a van", "another car" where the vehicle is one itself.
static const char *article(const dj__moment *m, int kind) {
  return kind == (int)m->kind ? "another" : "a";
}

// ---- weather and road --------------------------------------------------------------------------

static void say_weather(words *w, const dj__weather *k, bool indoors) {
  bool night = k->sun_elevation < 0, low = !night && k->sun_elevation < 0.2f;
  if (indoors) {
    say(w, "Indoors");
    return;
  }
  say(w, "%s",
      night                    ? "At night"
      : low && k->cloud < 0.6f ? "In the low sun of the evening"
                               : "By day");
  if (k->rain > 0.1f)
    say(w, " in %s rain", k->rain > 0.65f ? "heavy" : "steady");
  else if (k->fog > 0.3f)
    say(w, " in %s fog", k->fog > 0.75f ? "thick" : "the");
  else if (k->cloud > 0.6f)
    say(w, " under an overcast sky");
  else if (!low)
    say(w, " under a %s sky", k->cloud > 0.3f ? "cloudy" : "clear");
}

static int lanes_of_direction(const dj__map *map, int lane) {
  int n = 1;
  for (int l = map->lane[lane].left; l >= 0 && n < 8; l = map->lane[l].left)
    n += map->lane[l].type == DJ__LANE_DRIVING;
  for (int l = map->lane[lane].right; l >= 0 && n < 8; l = map->lane[l].right)
    n += map->lane[l].type == DJ__LANE_DRIVING;
  return n;
}

static void say_road(words *w, const dj__map *map, const dj__moment *m) {
  static const char *const names[] = {[DJ__ZONE_TOWN] = "street in town",
                                      [DJ__ZONE_SUBURB] = "street in the suburbs",
                                      [DJ__ZONE_RURAL] = "country road",
                                      [DJ__ZONE_MOTORWAY] = "motorway",
                                      [DJ__ZONE_TRACK] = "marked track"};
  static const char *const counts[] = {"", "", "", "three-lane ", "four-lane "};
  const dj__lane *lane = &map->lane[m->lane];
  int n = lanes_of_direction(map, m->lane);
  say(w, ", on a %s%s%s", m->weather.wet > 0.3f && lane->zone != DJ__ZONE_TRACK ? "wet " : "",
      lane->zone == DJ__ZONE_MOTORWAY && n < 5 ? counts[n] : "", names[lane->zone]);
}

static void say_traffic(words *w, const dj_agents *a) {
  int moving = 0, people = 0;
  for (int i = 0; i < a->n; i++) {
    const dj_agent *g = &a->agents[i];
    if (hypotf(g->x, g->y) > 60) continue;
    bool motor = g->kind <= DJ_AGENT_MOTORCYCLE || g->kind == DJ_AGENT_RC_CAR;
    moving += motor && !g->parked;
    people += g->kind == DJ_AGENT_PEDESTRIAN || g->kind == DJ_AGENT_CYCLIST;
  }
  say(w, " with %s",
      moving == 0  ? "no other traffic"
      : moving < 4 ? "little traffic"
      : moving < 9 ? "some traffic"
                   : "dense traffic");
  if (people > 7) say(w, " and many people about");
}

// ---- what the vehicle does ---------------------------------------------------------------------

/* Where the path is to the side at x ahead; beyond its end, straight on from there. */
static double path_side(const dj_path *p, double x) {
  for (int i = 1; i < p->n; i++) {
    const dj_path_point *a = &p->points[i - 1], *b = &p->points[i];
    if (x >= a->x && x <= b->x && b->x > a->x)
      return a->y + (x - a->x) / (b->x - a->x) * (b->y - a->y);
  }
  const dj_path_point *e = &p->points[p->n - 1];
  return x > e->x ? e->y + tan(fmin(fmax(e->yaw, -0.7), 0.7)) * (x - e->x) : 0;
}

/* The nearest thing in the way within `reach` m of the bumper. */
static const dj_agent *in_front(const dj__moment *m, const dj_path *p, const dj_agents *a,
                                double reach, double *gap) {
  const dj_agent *best = NULL;
  for (int i = 0; i < a->n; i++) {
    const dj_agent *g = &a->agents[i];
    double d = g->x - 0.5 * g->length - m->front;
    if (d < -1 || d > reach || (best && d >= *gap)) continue;
    double wide = g->kind == DJ_AGENT_PEDESTRIAN ? 2.0 : 1.4;
    if (fabs(g->y - path_side(p, g->x)) > wide) continue;
    if (g->kind != DJ_AGENT_PEDESTRIAN && !g->fixed && cosf(g->yaw) < 0.5f) continue;
    best = g;
    *gap = d;
  }
  return best;
}

static void say_standing(words *w, const dj__moment *m, const dj_agent *front, double gap) {
  bool red = (m->light == DJ_LIGHT_RED || m->light == DJ_LIGHT_RED_YELLOW) && m->light_distance < 8;
  if (front && front->kind == DJ_AGENT_PEDESTRIAN)
    say(w, "waits for a pedestrian");
  else if (front && gap < 8)
    say(w, "stands behind %s %s%s", article(m, front->kind), kind_word(front->kind),
        m->light == DJ_LIGHT_RED && m->light_distance < 60 ? " at a red light" : "");
  else if (red)
    say(w, "waits at a red light");
  else
    say(w, "stands still");
}

static const char *turn_words(const dj__map *map, const dj__moment *m) {
  const dj__lane *lane = &map->lane[m->lane];
  if (lane->junction >= 0 && lane->zone != DJ__ZONE_MOTORWAY) { // ramps part and join there
    if (map->junction[lane->junction].roundabout) return "goes round a roundabout";
    return lane->turn == DJ__TURN_LEFT    ? "turns left"
           : lane->turn == DJ__TURN_RIGHT ? "turns right"
           : lane->turn == DJ__TURN_BACK  ? "turns back"
                                          : "crosses a junction";
  }
  if (m->command == DJ_COMMAND_CHANGE_LEFT) return "moves to the left lane";
  if (m->command == DJ_COMMAND_CHANGE_RIGHT) return "moves to the right lane";
  return NULL;
}

static void say_moving(words *w, const dj__map *map, const dj__moment *m, const dj_agent *front,
                       const char **toward) {
  static const char *const then[DJ_N_ROUTE_COMMANDS] = {
      [DJ_COMMAND_LEFT] = " before it turns left",
      [DJ_COMMAND_RIGHT] = " before it turns right",
      [DJ_COMMAND_STRAIGHT] = " before it crosses a junction"};
  double kmh = 3.6 * fabs(m->speed);
  const char *turn = m->lane >= 0 ? turn_words(map, m) : NULL;
  if (turn) {
    say(w, "%s at %.0f km/h", turn, kmh);
    return;
  }
  if (front && front->kind == DJ_AGENT_PEDESTRIAN)
    say(w, "slows down to %.0f km/h for a pedestrian", kmh);
  else if (front && front->fixed)
    say(w, "comes near a %s at %.0f km/h", kind_word(front->kind), kmh);
  else if (front && !front->parked)
    say(w, "follows %s %s at %.0f km/h", article(m, front->kind), kind_word(front->kind), kmh);
  else if (m->accel < -1.2)
    say(w, "slows down to %.0f km/h", kmh);
  else if (m->accel > 0.8)
    say(w, "speeds up past %.0f km/h", kmh);
  else
    say(w, "drives at %.0f km/h", kmh);
  if (m->lane < 0 || map->lane[m->lane].zone != DJ__ZONE_MOTORWAY) *toward = then[m->command];
}

static void say_light(words *w, const dj__moment *m) {
  static const char *const names[DJ_N_LIGHT_STATES] = {[DJ_LIGHT_RED] = "red",
                                                       [DJ_LIGHT_RED_YELLOW] = "red and yellow",
                                                       [DJ_LIGHT_GREEN] = "green",
                                                       [DJ_LIGHT_YELLOW] = "yellow"};
  if (m->light == DJ_LIGHT_NONE || m->light_distance > 80 || m->light_distance < 3) return;
  say(w, " towards a %s light %.0f m ahead", names[m->light], m->light_distance);
}

static void say_event(words *w, const dj__moment *m, const dj_agents *a, const dj_agent *front) {
  static const char *const does[DJ__N_EVENTS] = {[DJ__EVENT_CUT_IN] = "cuts in",
                                                 [DJ__EVENT_HARD_BRAKE] = "brakes hard",
                                                 [DJ__EVENT_JAYWALKER] = "walks onto the road",
                                                 [DJ__EVENT_WRONG_PARKING] = "is parked in the way",
                                                 [DJ__EVENT_RED_RUNNER] = "runs a red light",
                                                 [DJ__EVENT_ONCOMING] = "comes the wrong way",
                                                 [DJ__EVENT_BLOCKED] = "blocks the lane"};
  for (int i = 0; i < m->n_event; i++) {
    if (!does[m->event[i].kind] || !m->event[i].agent) continue;
    for (int k = 0; k < a->n; k++) {
      const dj_agent *g = &a->agents[k];
      if (g->id != m->event[i].agent || hypotf(g->x, g->y) > 60 || g == front) continue;
      say(w, ", while %s %s %s", article(m, g->kind), kind_word(g->kind), does[m->event[i].kind]);
      return;
    }
  }
}

void dj__label_sentence(const dj__map *map, const dj__moment *m, const dj_path *path,
                        const dj_agents *agents, char *out, size_t size) {
  words w = {out, size};
  double gap = 0, reach = fmax(10, 2.5 * m->speed);
  const dj_agent *front = in_front(m, path, agents, reach, &gap);
  const char *toward = NULL;
  bool track = m->lane >= 0 && map->lane[m->lane].zone == DJ__ZONE_TRACK;
  say_weather(&w, &m->weather, track);
  if (m->lane >= 0) say_road(&w, map, m);
  say_traffic(&w, agents);
  say(&w, ", the %s ", kind_word((int)m->kind));
  if (fabs(m->speed) < 0.3) {
    say_standing(&w, m, front, gap);
  } else {
    say_moving(&w, map, m, front, &toward);
    if (toward)
      say(&w, "%s", toward);
    else
      say_light(&w, m);
  }
  say_event(&w, m, agents, front);
  say(&w, ".");
}
