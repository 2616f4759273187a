/* dojo drive: closed loop in the world, scored. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "cli/cli.h"
#include "world/replay.h"

static const char HELP[] =
    "Usage: dojo drive expert|constant|RUN|LOG --suite FILE [--limit N] [--seed N] [--json]\n"
    "                  [--replay DIR [--replay-of WHICH]] [--threads N] [--latency S] [--rig "
    "NAME|FILE]\n\n"
    "Lets a driver drive a suite's cases in the world and scores how. Drivers: the expert (a\n"
    "planner that sees the state), constant (keeps speed and wheel as at the start), a run of "
    "dojo\n"
    "train (sees its cameras, its own motion and the navigator's command alone), a log (its\n"
    "controls by time).\n\n"
    "PDMS = NC DAC (5 TTC + 2 C + 5 EP) / 12, in per cent (NAVSIM: Dauner et al. 2024), over the\n"
    "whole drive; other people react:\n"
    "  NC   1: no collision at fault, 1/2: one with a thing, 0: with anyone else. At fault "
    "(nuPlan):\n"
    "       it ran into what stands, its front hit, or it was hit at its side while in several\n"
    "       lanes or off the road; not: it stood, or was hit from behind\n"
    "  DAC  1: no corner ever off what may be driven on\n"
    "  TTC  1: going straight on for 0.9 s would never have hit anybody ahead\n"
    "  EP   share of the route done when the expert had done it (or when the time was up)\n"
    "  C    1: acceleration -4.05..2.40, lateral 4.89 m/s^2, jerk 8.37, longitudinal 4.13 m/s^3,\n"
    "       yaw rate 0.95 rad/s, yaw acceleration 1.93 rad/s^2, all of the time\n"
    "Driving score (CARLA's leaderboard): route completion in per cent, times 0.50 a person hit, "
    "0.60\n"
    "a vehicle, 0.65 a thing, 0.70 a red light, 0.80 a stop sign passed; at fault only.\n"
    "Infractions are counted a kilometre. A failure is a collision at fault, a red light passed, "
    "off\n"
    "the road, 30 m from the route, or 60 s without moving. Intervals are 95 % ones of a bootstrap "
    "over\n"
    "drives, 1000 resamples, fixed seed. The time of a drive is the suite's `seconds`, or what "
    "the\n"
    "route takes at its share `slowest` of the speed limits, if that is more.\n"
    "The same suite and driver give the same figures to the\n"
    "last digit, with any number of threads. docs/drive.md says more.\n\n"
    "Examples:\n"
    "  dojo drive expert --suite suites/test.yaml --limit 200\n"
    "  dojo drive R --suite suites/test.yaml --json --replay failures\n";

typedef enum kind { EXPERT, CONSTANT, RUN, LOG } kind;
typedef struct choice {
  kind kind;
  const char *path;
  double latency;
  const dj__rig *rig;
} choice;

static dj_status make_driver(void *user, dj__driver *d) {
  const choice *c = user;
  switch (c->kind) {
  case EXPERT:
    return dj__driver_expert(d);
  case CONSTANT:
    return dj__driver_constant(d);
  case RUN:
    return dj__driver_network(c->path, c->latency, c->rig, d);
  default:
    return dj__driver_recorded(c->path, d);
  }
}

static dj_status choose(const char *name, choice *c) {
  c->path = name;
  if (!strcmp(name, "expert"))
    c->kind = EXPERT;
  else if (!strcmp(name, "constant"))
    c->kind = CONSTANT;
  else if (dj__is_dir(name))
    c->kind = RUN;
  else if (dj__exists(name))
    c->kind = LOG;
  else
    return dj_error(DJ_E_NOT_FOUND,
                    "%s: no such driver: expert, constant, the folder of a run, or a log (*.mcap)",
                    name);
  return DJ_OK;
}

/* ---- JSON ---- */
static json_t *number(double v) {
  return isfinite(v) ? json_real(v) : json_null();
}

static json_t *figure(dj_figure f) {
  return json_pack("{s:o, s:[o, o]}", "value", number(f.value), "ci95", number(f.low),
                   number(f.high));
}

static json_t *suite_json(const dj__suite_score *s) {
  json_t *per_km = json_object();
  for (int k = 0; k < DJ__N_INFRACTIONS; k++)
    json_object_set_new(per_km, dj__infraction_name((dj__infraction)k), figure(s->per_km[k]));
  return json_pack(
      "{s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:i, s:i, s:f,"
      " s:f}",
      "drives", (json_int_t)s->n, "pdms", figure(s->pdms), "nc", figure(s->nc), "dac",
      figure(s->dac), "ttc", figure(s->ttc), "ep", figure(s->ep), "comfort", figure(s->comfort),
      "driving_score", figure(s->driving_score), "completion", figure(s->completion), "arrived",
      figure(s->arrived), "collisions_per_km", figure(s->collisions_per_km), "km_between_failures",
      figure(s->km_between_failures), "infractions_per_km", per_km, "failures", s->failures,
      "hit_by_others", s->hit_by_others, "km", s->km, "hours", s->hours);
}

static json_t *case_json(const dj__case *c, const dj__drive_score *s, double par) {
  json_t *infractions = json_object();
  for (int k = 0; k < DJ__N_INFRACTIONS; k++)
    if (s->infraction[k])
      json_object_set_new(infractions, dj__infraction_name((dj__infraction)k),
                          json_integer(s->infraction[k]));
  return json_pack(
      "{s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:i, s:f, s:f, s:o}", "case",
      c->name, "kind", dj__case_name(c->kind), "end", dj__end_name(s->end), "pdms", 100 * s->pdms,
      "nc", s->nc, "dac", s->dac, "ttc", s->ttc, "ep", s->ep, "comfort", s->comfort,
      "driving_score", s->driving_score, "completion", s->completion, "infractions", infractions,
      "hit_by_others", s->hit_by_others, "km", s->km, "seconds", s->seconds, "expert_seconds",
      number(par));
}

static void print_json(const dj__suite *s, const dj__suite_drive *r, const char *driver) {
  json_t *root = suite_json(&r->total), *kinds = json_object(), *cases = json_array();
  for (int k = 0; k < DJ__N_CASES; k++)
    if (r->kind[k].n)
      json_object_set_new(kinds, dj__case_name((dj__case_kind)k), suite_json(&r->kind[k]));
  for (int i = 0; i < s->n; i++)
    json_array_append_new(cases, case_json(&s->cases[i], &r->score[i], r->par[i]));
  json_object_set_new(root, "driver", json_string(driver));
  json_object_set_new(root, "suite", json_string(s->name));
  json_object_set_new(root, "kinds", kinds);
  json_object_set_new(root, "cases", cases);
  json_object_set_new(root, "seconds", json_real(r->seconds));
  (void)json_dumpf(root, stdout, JSON_INDENT(2));
  (void)puts("");
  json_decref(root);
}

/* ---- tables ---- */
static void print_row(const char *name, const dj__suite_score *s) {
  (void)printf(
      "%-11s %5zu  %5.1f [%5.1f, %5.1f]  %5.1f %5.1f %5.1f %5.1f %5.1f  %5.1f  %5.1f  %5.1f\n",
      name, s->n, s->pdms.value, s->pdms.low, s->pdms.high, s->nc.value, s->dac.value, s->ttc.value,
      s->ep.value, s->comfort.value, s->driving_score.value, s->completion.value, s->arrived.value);
}

static void print_text(const dj__suite *s, const dj__suite_drive *r, const char *driver) {
  const dj__suite_score *t = &r->total;
  (void)printf("%s on %s: %d drives, %.1f km, %.2f h of driving, in %.1f s\n\n", driver, s->name,
               s->n, t->km, t->hours, r->seconds);
  (void)printf("%-11s %5s  %-21s  %5s %5s %5s %5s %5s  %5s  %5s  %5s\n", "", "n", " PDMS", "NC",
               "DAC", "TTC", "EP", "C", "DS", "RC", "done");
  print_row("all", t);
  for (int k = 0; k < DJ__N_CASES; k++)
    if (r->kind[k].n && (int)r->kind[k].n < s->n)
      print_row(dj__case_name((dj__case_kind)k), &r->kind[k]);
  (void)printf(
      "\nDS: driving score. RC: route completion. done: drives that arrived. All in %%.\n\n");
  for (int k = 0; k < DJ__N_INFRACTIONS; k++)
    if (t->per_km[k].value > 0)
      (void)printf("%-18s %7.3f a km  [%.3f, %.3f]\n", dj__infraction_name((dj__infraction)k),
                   t->per_km[k].value, t->per_km[k].low, t->per_km[k].high);
  if (t->failures)
    (void)printf("between failures   %7.3f km    [%.3f, %.3f]  (%d)\n",
                 t->km_between_failures.value, t->km_between_failures.low,
                 t->km_between_failures.high, t->failures);
  else
    (void)printf("between failures   more than %.2f km (95 %%): none in %.2f km\n",
                 t->km_between_failures.low, t->km);
  if (t->hit_by_others) (void)printf("hit by others      %7d (not at fault)\n", t->hit_by_others);
}

static dj_status check(const char *suite, int64_t limit, int64_t threads, double latency) {
  if (!suite) return dj_error(DJ_E_INVALID, "needs --suite FILE; suites/test.yaml is one");
  if (limit < 0) return dj_error(DJ_E_INVALID, "--limit is 1 or more, not %lld", (long long)limit);
  if (threads < 0 || threads > 1024)
    return dj_error(DJ_E_INVALID, "--threads is 0 to 1024, not %lld", (long long)threads);
  if (!(latency <= 2)) return dj_error(DJ_E_INVALID, "--latency is 0 to 2 s, not %g", latency);
  return DJ_OK;
}

int dj__cmd_drive(int argc, char **argv);
int dj__cmd_drive(int argc, char **argv) {
  const char *suite = NULL, *replay = NULL, *which = "failures", *rig_name = NULL;
  int64_t limit = 0, seed = -1, threads = 0;
  double latency = -1;
  bool json = false;
  const dj__option options[] = {
      {"suite", 0, DJ_OPT_STRING, &suite, "FILE", "what to drive"},
      {"limit", 0, DJ_OPT_INT, &limit, "N", "so many cases, spread evenly; all if not given"},
      {"seed", 0, DJ_OPT_INT, &seed, "N", "towns N, N + 1, ... instead of the suite's own"},
      {"replay", 0, DJ_OPT_STRING, &replay, "DIR", "a video of every failure, into this folder"},
      {"replay-of", 0, DJ_OPT_STRING, &which, "WHICH",
       "failures, best, worst, case names, separated by commas; failures if not given"},
      {"latency", 0, DJ_OPT_DOUBLE, &latency, "S", "from picture to effect, for networks; 0.1 s"},
      {"rig", 0, DJ_OPT_STRING, &rig_name, "NAME",
       "cameras; those of the training drives if not given"},
      {"threads", 0, DJ_OPT_INT, &threads, "N", "drives at once; all cores if not given"},
      {"json", 0, DJ_OPT_FLAG, &json, NULL, "machine-readable report on stdout"},
      {0}};
  int npos;
  char **pos;
  const char *command = argv[0];
  int rc = dj__parse_options(argc, argv, options, HELP, &npos, &pos);
  if (rc >= 0) return rc;
  if (npos != 1)
    return dj__fail(command, dj_error(DJ_E_INVALID, "needs one driver: expert, constant, a RUN "
                                                    "folder or a LOG; see dojo drive --help"));
  choice c = {.latency = latency};
  dj__rig rig;
  dj__suite s = {0};
  dj__suite_drive r = {0};
  dj_status st = check(suite, limit, threads, latency);
  if (!st) st = choose(pos[0], &c);
  if (!st && rig_name) {
    st = dj__rig_find(rig_name, &rig);
    c.rig = &rig;
  }
  if (!st) st = dj__suite_read(suite, seed, (int)limit, &s);
  dj__suite_drive_options o = {
      .make = make_driver, .user = &c, .is_expert = c.kind == EXPERT, .threads = (int)threads};
  if (!st) st = dj__drive_suite(&s, &o, &r);
  int videos = 0;
  if (!st && replay) st = dj__replay_suite(&s, &r, make_driver, &c, which, replay, &videos);
  dj__cli_progress_end();
  if (!st && json)
    print_json(&s, &r, pos[0]);
  else if (!st)
    print_text(&s, &r, pos[0]);
  if (!st && replay && !json) (void)printf("replays            %7d in %s\n", videos, replay);
  dj__suite_drive_free(&r);
  dj__suite_free(&s);
  return st ? dj__fail(command, st) : 0;
}
