/* dojo world events: how often others do what they should not, over the drives of a suite. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/world.h"
#include "world/rates.h"

static const char HELP[] =
    "Usage: dojo world events --suite FILE [--limit N] [--seed0 N] [--threads N] [--json]\n\n"
    "Lets the expert drive a suite and tells how often others do what they should not (cut in,\n"
    "brake for nothing, run a red light, ...), by themselves: in an hour of a drive and in a\n"
    "vehicle-hour, which is one hour of one of the others that drive, cyclists too. An event led\n"
    "to a contact if whoever it names, or the ego, touched somebody while it lasted or in the 5 s\n"
    "after. Contacts among others are those without the ego. Intervals are 95 % ones of a "
    "bootstrap\n"
    "over drives. The same figures at any number of threads. docs/world.md says what the events "
    "are.\n\n"
    "Examples:\n"
    "  dojo world events --suite suites/test.yaml\n"
    "  dojo world events --suite suites/train.yaml --limit 100 --json | jq .events\n";

typedef struct report {
  dj__suite suite;
  dj__event_tally *tally; /* (n) of the suite's cases */
  dj__event_rates all;
} report;

/* Rates over some of the cases: those of a group. */
typedef const char *group_of(const dj__case *c, char *name, size_t size);

static const char *style_of(const dj__case *c, char *name, size_t size) {
  (void)name, (void)size;
  return c->xodr[0] ? "xodr" : dj__town_style_name(c->town.style);
}

static const char *unruly_of(const dj__case *c, char *name, size_t size) {
  (void)snprintf(name, size, "%g", c->unruly);
  return name;
}

/* The next group, in the order of the suite; *at is the first case that may begin one, and then
 * the one that did. False: no more. */
static bool next_group(const report *r, group_of *of, int *at) {
  char a[32], b[32];
  for (; *at < r->suite.n; ++*at) {
    const char *name = of(&r->suite.cases[*at], a, sizeof a);
    int k = 0;
    while (strcmp(name, of(&r->suite.cases[k], b, sizeof b)) != 0) k++;
    if (k == *at) return true;
  }
  return false;
}

static dj_status rates_of_group(const report *r, group_of *of, int at, dj__event_rates *rates) {
  char a[32], b[32];
  const char *name = of(&r->suite.cases[at], a, sizeof a);
  dj__event_tally *some = malloc((size_t)r->suite.n * sizeof *some);
  if (!some) return dj_error(DJ_E_NOMEM, "no memory for rates of %d drives", r->suite.n);
  size_t n = 0;
  for (int i = at; i < r->suite.n; i++)
    if (!strcmp(name, of(&r->suite.cases[i], b, sizeof b))) some[n++] = r->tally[i];
  dj_status s = dj__event_rates_of(some, n, rates);
  free(some);
  return s;
}

/* ---- JSON ---- */
static json_t *figure(dj_figure f) {
  return isfinite(f.value) ? json_pack("{s:f, s:[f, f]}", "value", f.value, "ci95", f.low, f.high)
                           : json_null();
}

static json_t *rates_json(const dj__event_rates *r) {
  json_t *events = json_object(), *contacts = json_object();
  const dj__event_tally *t = &r->sum;
  for (int k = 0; k < DJ__N_EVENTS; k++) {
    const int all = t->by_itself[k] + t->staged[k];
    json_object_set_new(events, dj__event_name((dj__event_kind)k),
                        json_pack("{s:i, s:o, s:o, s:i, s:i, s:i, s:o}", "by_themselves",
                                  t->by_itself[k], "per_hour", figure(r->per_hour[k]),
                                  "per_vehicle_hour", figure(r->per_vehicle_hour[k]), "staged",
                                  t->staged[k], "staged_asked", t->asked[k], "led_to_contact",
                                  t->struck[k], "contact_share",
                                  all ? json_real((double)t->struck[k] / all) : json_null()));
  }
  for (int k = 0; k < DJ__N_TOUCHED; k++)
    json_object_set_new(contacts, dj__touched_name((dj__touched)k),
                        json_pack("{s:i, s:o, s:f}", "count", t->contacts[k], "per_vehicle_hour",
                                  figure(r->contacts_per_vehicle_hour[k]), "closing_max_mps",
                                  t->fastest[k]));
  return json_pack("{s:i, s:f, s:f, s:i, s:o, s:o, s:i}", "drives", t->drives, "hours", t->hours,
                   "vehicle_hours", t->vehicle_hours, "lights", t->lights, "events", events,
                   "contacts", contacts, "ego_contacts", t->ego_contacts);
}

static dj_status groups_json(const report *r, group_of *of, json_t **out) {
  char name[32];
  dj__event_rates rates;
  *out = json_object();
  for (int at = 0; next_group(r, of, &at); at++) {
    DJ_TRY(rates_of_group(r, of, at, &rates));
    json_object_set_new(*out, of(&r->suite.cases[at], name, sizeof name), rates_json(&rates));
  }
  return DJ_OK;
}

static dj_status print_json(const report *r) {
  json_t *root = rates_json(&r->all), *styles = NULL, *unruly = NULL;
  dj_status s = groups_json(r, style_of, &styles);
  if (!s) s = groups_json(r, unruly_of, &unruly);
  json_object_set_new(root, "suite", json_string(r->suite.name));
  json_object_set_new(root, "by_style", styles);
  json_object_set_new(root, "by_unruly", unruly);
  if (!s && json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(10)))
    s = dj_error(DJ_E_IO, "cannot print the report");
  if (!s) (void)puts("");
  json_decref(root);
  return s;
}

/* ---- tables ---- */
static void print_events(const dj__event_rates *r) {
  const dj__event_tally *t = &r->sum;
  (void)printf("%-13s  %6s  %-21s  %12s  %9s  %s\n", "by themselves", "n", "an hour of a drive",
               "vehicle-hour", "staged", "led to a contact");
  for (int k = 0; k < DJ__N_EVENTS; k++) {
    char staged[32] = "-";
    if (t->asked[k]) (void)snprintf(staged, sizeof staged, "%d of %d", t->staged[k], t->asked[k]);
    (void)printf("%-13s  %6d  %6.2f [%5.2f, %5.2f]  %12.3f  %9s  %d of %d\n",
                 dj__event_name((dj__event_kind)k), t->by_itself[k], r->per_hour[k].value,
                 r->per_hour[k].low, r->per_hour[k].high, r->per_vehicle_hour[k].value, staged,
                 t->struck[k], t->by_itself[k] + t->staged[k]);
  }
}

static dj_status print_groups(const report *r, group_of *of, const char *title) {
  char name[32];
  dj__event_rates rates;
  (void)printf("\n%-13s  %6s", title, "hours");
  for (int k = 0; k < DJ__N_EVENTS; k++) (void)printf("  %s", dj__event_name((dj__event_kind)k));
  (void)puts("");
  for (int at = 0; next_group(r, of, &at); at++) {
    DJ_TRY(rates_of_group(r, of, at, &rates));
    (void)printf("%-13s  %6.2f", of(&r->suite.cases[at], name, sizeof name), rates.sum.hours);
    for (int k = 0; k < DJ__N_EVENTS; k++)
      (void)printf("  %*.2f", (int)strlen(dj__event_name((dj__event_kind)k)),
                   rates.per_hour[k].value);
    (void)puts("");
  }
  return DJ_OK;
}

static void print_contacts(const dj__event_rates *r) {
  const dj__event_tally *t = &r->sum;
  (void)puts("\ncontacts among others");
  for (int k = 0; k < DJ__N_TOUCHED; k++) {
    (void)printf("with a %-7s %6d  %.4f a vehicle-hour", dj__touched_name((dj__touched)k),
                 t->contacts[k], r->contacts_per_vehicle_hour[k].value);
    if (t->contacts[k]) (void)printf(", closing at %.1f m/s at most", t->fastest[k]);
    (void)puts("");
  }
  (void)printf("of the ego     %6d\n", t->ego_contacts);
}

static dj_status print_text(const report *r) {
  const dj__event_tally *t = &r->all.sum;
  (void)printf("%s: %d drives, %.2f h, %.1f vehicle-hours of others, %d lights passed\n\n",
               r->suite.name, t->drives, t->hours, t->vehicle_hours, t->lights);
  print_events(&r->all);
  DJ_TRY(print_groups(r, style_of, "an hour, town"));
  DJ_TRY(print_groups(r, unruly_of, "unruly"));
  print_contacts(&r->all);
  return DJ_OK;
}

static dj_status count(report *r, int threads) {
  r->tally = calloc((size_t)r->suite.n + 1, sizeof *r->tally);
  if (!r->tally) return dj_error(DJ_E_NOMEM, "no memory for a suite of %d drives", r->suite.n);
  DJ_TRY(dj__tally_suite(&r->suite, threads, r->tally));
  return dj__event_rates_of(r->tally, (size_t)r->suite.n, &r->all);
}

int dj__world_events(int argc, char **argv) {
  const char *suite = NULL;
  int64_t limit = 0, seed0 = -1, threads = 0;
  bool json = false;
  const dj__option options[] = {
      {"suite", 0, DJ_OPT_STRING, &suite, "FILE", "what to drive (suites/*.yaml)"},
      {"limit", 0, DJ_OPT_INT, &limit, "N", "so many drives only, spread evenly over the suite"},
      {"seed0", 0, DJ_OPT_INT, &seed0, "N", "towns of seeds N, N + 1, ... instead of the suite's"},
      {"threads", 0, DJ_OPT_INT, &threads, "N", "drives at once; all cores if not given"},
      {"json", 0, DJ_OPT_FLAG, &json, NULL, "machine-readable report on stdout"},
      {0}};
  int npos;
  char **pos;
  int rc = dj__parse_options(argc, argv, options, HELP, &npos, &pos);
  if (rc >= 0) return rc;
  report r = {0};
  dj_status s = DJ_OK;
  if (npos || !suite)
    s = dj_error(DJ_E_INVALID, "events needs --suite FILE; see dojo world events --help");
  else if (limit < 0 || limit > INT32_MAX || seed0 < -1)
    s = dj_error(DJ_E_INVALID, "--limit and --seed0 are 0 or more");
  else if (threads < 0 || threads > 1024)
    s = dj_error(DJ_E_INVALID, "--threads is 0 to 1024, not %lld", (long long)threads);
  if (!s) s = dj__suite_read(suite, seed0, (int)limit, &r.suite);
  if (!s) s = count(&r, (int)threads);
  dj__cli_progress_end();
  if (!s) s = json ? print_json(&r) : print_text(&r);
  free(r.tally);
  dj__suite_free(&r.suite);
  return s ? dj__fail("world", s) : 0;
}
