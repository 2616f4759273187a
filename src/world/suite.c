/*
 * Suites: a YAML file of towns, weathers, traffic and recovery cases, expanded into single drives.
 *
 * Weather, traffic and vehicle go round from route to route and from town seed to town seed: after
 * each round of weathers the traffic is shifted by one, then the vehicle, so that every combination
 * comes up as evenly as the number of cases allows. Everything random about a case (route, traffic,
 * how a recovery case starts) is a function of its seed, and that of the town, the kind of case and
 * its number in the town: a case stays the same when other towns are added or left out.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/rng.h"
#include "base/text.h"
#include "base/yaml.h"
#include "world/drive.h"

enum { MAX_BYTES = 1 << 20, MAX_TOWNS = 4096, MAX_CASES = 100000, MAX_LIST = 64, MAX_TEXT = 255 };

const char *dj__case_name(dj__case_kind k) {
  static const char *const names[DJ__N_CASES] = {
      [DJ__CASE_ROUTE] = "route",          [DJ__CASE_OFFSET] = "offset",
      [DJ__CASE_TURNED] = "turned",        [DJ__CASE_SPEED] = "speed",
      [DJ__CASE_BLOCKED] = "blocked",      [DJ__CASE_CUT_IN] = "cut-in",
      [DJ__CASE_ONCOMING] = "oncoming",    [DJ__CASE_RED_LIGHT] = "red-light",
      [DJ__CASE_PEDESTRIAN] = "pedestrian"};
  return (unsigned)k < DJ__N_CASES ? names[k] : "unknown";
}

// ---- schema ------------------------------------------------------------------------------------

typedef struct traffic_file {
  char *name;
  int vehicles, cyclists, pedestrians, parked;
  double unruly, roadworks;
} traffic_file;

typedef struct list {
  char **v;
  unsigned n;
} list;

typedef struct town_file { // lists and numbers that are not given are the suite's
  int style;
  char *xodr, *rig;
  list seeds, weather, vehicles, traffic;
  double size, hills, seconds, slowest, length;
  int routes;
} town_file;

typedef struct suite_file {
  char *name, *about, *rig;
  double seconds, slowest, length;
  int routes;
  list weather, vehicles;
  traffic_file *traffic;
  unsigned n_traffic;
  town_file *towns;
  unsigned n_towns;
  int recovery[DJ__N_CASES];
} suite_file;

#define N_OF(a)  ((uint32_t)(sizeof(a) / sizeof *(a)))
#define OPTIONAL CYAML_FLAG_OPTIONAL
#define TEXTS(key, S, member, least)                                                               \
  CYAML_FIELD_SEQUENCE_COUNT(key, OPTIONAL | CYAML_FLAG_POINTER, S, member.v, member.n,            \
                             &text_entry, least, MAX_LIST)
#define TEXT(key, S, member) CYAML_FIELD_STRING_PTR(key, OPTIONAL, S, member, 1, MAX_TEXT)

static const cyaml_strval_t styles[] = {{"any", DJ__TOWN_ANY},           {"grid", DJ__TOWN_GRID},
                                        {"organic", DJ__TOWN_ORGANIC},   {"rural", DJ__TOWN_RURAL},
                                        {"motorway", DJ__TOWN_MOTORWAY}, {"mixed", DJ__TOWN_MIXED},
                                        {"track", DJ__TOWN_TRACK}};

static const cyaml_schema_value_t text_entry = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, MAX_TEXT)};

static const cyaml_schema_field_t traffic_fields[] = {
    TEXT("name", traffic_file, name),
    CYAML_FIELD_INT("vehicles", OPTIONAL, traffic_file, vehicles),
    CYAML_FIELD_INT("cyclists", OPTIONAL, traffic_file, cyclists),
    CYAML_FIELD_INT("pedestrians", OPTIONAL, traffic_file, pedestrians),
    CYAML_FIELD_INT("parked", OPTIONAL, traffic_file, parked),
    CYAML_FIELD_FLOAT("unruly", OPTIONAL, traffic_file, unruly),
    CYAML_FIELD_FLOAT("roadworks", OPTIONAL, traffic_file, roadworks),
    CYAML_FIELD_END};
static const cyaml_schema_value_t traffic_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, traffic_file, traffic_fields)};

static const cyaml_schema_field_t town_fields[] = {
    CYAML_FIELD_ENUM("style", OPTIONAL | CYAML_FLAG_STRICT, town_file, style, styles, N_OF(styles)),
    TEXT("xodr", town_file, xodr),
    TEXTS("seeds", town_file, seeds, 1),
    CYAML_FIELD_FLOAT("size", OPTIONAL, town_file, size),
    CYAML_FIELD_FLOAT("hills", OPTIONAL, town_file, hills),
    CYAML_FIELD_INT("routes", OPTIONAL, town_file, routes),
    CYAML_FIELD_FLOAT("seconds", OPTIONAL, town_file, seconds),
    CYAML_FIELD_FLOAT("slowest", OPTIONAL, town_file, slowest),
    CYAML_FIELD_FLOAT("length", OPTIONAL, town_file, length),
    TEXTS("weather", town_file, weather, 1),
    TEXTS("vehicles", town_file, vehicles, 1),
    TEXTS("traffic", town_file, traffic, 1),
    TEXT("rig", town_file, rig),
    CYAML_FIELD_END};
static const cyaml_schema_value_t town_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, town_file, town_fields)};

// An array inside suite_file: the mapping sits at its start.
#define RECOVERY(key, kind) CYAML_FIELD_INT(key, OPTIONAL, suite_file, recovery[kind])
static const cyaml_schema_field_t recovery_fields[] = {RECOVERY("offset", DJ__CASE_OFFSET),
                                                       RECOVERY("turned", DJ__CASE_TURNED),
                                                       RECOVERY("speed", DJ__CASE_SPEED),
                                                       RECOVERY("blocked", DJ__CASE_BLOCKED),
                                                       RECOVERY("cut-in", DJ__CASE_CUT_IN),
                                                       RECOVERY("oncoming", DJ__CASE_ONCOMING),
                                                       RECOVERY("red-light", DJ__CASE_RED_LIGHT),
                                                       RECOVERY("pedestrian", DJ__CASE_PEDESTRIAN),
                                                       CYAML_FIELD_END};

static const cyaml_schema_field_t top_fields[] = {
    CYAML_FIELD_STRING_PTR("name", OPTIONAL, suite_file, name, 1, 40),
    TEXT("about", suite_file, about),
    TEXT("rig", suite_file, rig),
    CYAML_FIELD_FLOAT("seconds", OPTIONAL, suite_file, seconds),
    CYAML_FIELD_FLOAT("slowest", OPTIONAL, suite_file, slowest),
    CYAML_FIELD_FLOAT("length", OPTIONAL, suite_file, length),
    CYAML_FIELD_INT("routes", OPTIONAL, suite_file, routes),
    TEXTS("weather", suite_file, weather, 1),
    TEXTS("vehicles", suite_file, vehicles, 1),
    CYAML_FIELD_SEQUENCE_COUNT("traffic", OPTIONAL | CYAML_FLAG_POINTER, suite_file, traffic,
                               n_traffic, &traffic_entry, 1, MAX_LIST),
    CYAML_FIELD_SEQUENCE_COUNT("towns", OPTIONAL | CYAML_FLAG_POINTER, suite_file, towns, n_towns,
                               &town_entry, 1, 1024),
    {.key = "recovery",
     .value = {.type = CYAML_MAPPING,
               .flags = OPTIONAL,
               .data_size = sizeof(suite_file),
               .mapping = {.fields = recovery_fields}},
     .data_offset = 0},
    CYAML_FIELD_END};
static const cyaml_schema_value_t top = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, suite_file, top_fields)};

static const struct {
  const char *path;
  double lo, hi;
} ranges[] = {
    {"seconds", 1, 36000},
    {"slowest", 0, 1},
    {"length", 1, 100000},
    {"routes", 0, 10000},
    {"towns.seconds", 1, 36000},
    {"towns.slowest", 0, 1},
    {"towns.length", 1, 100000},
    {"towns.routes", 0, 10000},
    {"towns.size", 0, 20000},
    {"towns.hills", -1, 5},
    {"traffic.vehicles", 0, 2000},
    {"traffic.cyclists", 0, 2000},
    {"traffic.pedestrians", 0, 2000},
    {"traffic.parked", 0, 2000},
    {"traffic.unruly", 0, 100},
    {"traffic.roadworks", 0, 20},
};

static bool range_of(const char *path, double *lo, double *hi) {
  if (!strncmp(path, "recovery.", 9)) {
    *lo = 0;
    *hi = 10000;
    return true;
  }
  for (size_t i = 0; i < N_OF(ranges); i++)
    if (!strcmp(path, ranges[i].path)) {
      *lo = ranges[i].lo;
      *hi = ranges[i].hi;
      return true;
    }
  return false;
}

static const dj__yaml_kind kind = {"suite", &top, range_of, MAX_BYTES};

// ---- names that other parts know ---------------------------------------------------------------

typedef struct reader {
  const char *file;
  const suite_file *in;
  const dj__yaml_lines *lines;
  int64_t seed0;
  dj__suite *out;
  int cap;
} reader;

static int line_at(const reader *r, const char *path) {
  int line = dj__yaml_line_of(r->lines, path);
  return line ? line : 1;
}

static dj_status check_weather(const reader *r, const list *l, const char *path) {
  int n;
  const char *const *names = dj__weather_names(&n);
  for (unsigned i = 0; i < l->n; i++) {
    dj__weather w;
    if (!dj__weather_find(l->v[i], &w)) continue;
    const char *near = dj__nearest(l->v[i], names, (size_t)n);
    char all[256] = "";
    for (int k = 0; k < n; k++) {
      size_t at = strlen(all);
      (void)snprintf(all + at, sizeof all - at, "%s%s", k ? ", " : "", names[k]);
    }
    return dj_error(DJ_E_FORMAT, "%s:%d: unknown weather '%.40s'%s%s%s; known: %s", r->file,
                    line_at(r, path), l->v[i], near ? "; did you mean '" : "", near ? near : "",
                    near ? "'?" : "", all);
  }
  return DJ_OK;
}

static dj_status check_vehicles(const reader *r, const list *l, const char *path) {
  for (unsigned i = 0; i < l->n; i++) {
    if (dj__vehicle_find(l->v[i])) continue;
    char all[256] = "";
    for (int k = 0; k < dj__n_vehicle_models; k++) {
      size_t at = strlen(all);
      (void)snprintf(all + at, sizeof all - at, "%s%s", k ? ", " : "", dj__vehicle_models[k].name);
    }
    return dj_error(DJ_E_FORMAT, "%s:%d: unknown vehicle '%.40s'; known: %s", r->file,
                    line_at(r, path), l->v[i], all);
  }
  return DJ_OK;
}

static const traffic_file usual_traffic = {"usual", 30, 6, 20, 30, 1, 0.5},
                          no_traffic = {.name = "none"};

static const traffic_file *find_traffic(const suite_file *in, const char *name) {
  for (unsigned i = 0; i < in->n_traffic; i++)
    if (!strcmp(in->traffic[i].name, name)) return &in->traffic[i];
  return NULL;
}

static dj_status check_traffic(const reader *r) {
  const suite_file *in = r->in;
  char path[DJ__YAML_PATH];
  for (unsigned i = 0; i < in->n_traffic; i++) {
    (void)snprintf(path, sizeof path, "traffic[%u].name", i);
    if (!in->traffic[i].name) return dj__yaml_missing(r->file, r->lines, path);
    if (find_traffic(in, in->traffic[i].name) != &in->traffic[i])
      return dj_error(DJ_E_FORMAT, "%s:%d: two entries of 'traffic' are called '%s'", r->file,
                      line_at(r, path), in->traffic[i].name);
  }
  for (unsigned k = 0; k < in->n_towns; k++) {
    const list *l = &in->towns[k].traffic;
    (void)snprintf(path, sizeof path, "towns[%u].traffic", k);
    for (unsigned i = 0; i < l->n; i++)
      if (!find_traffic(in, l->v[i]))
        return dj_error(DJ_E_FORMAT, "%s:%d: there is no '%.40s' in the suite's 'traffic'", r->file,
                        line_at(r, path), l->v[i]);
  }
  return DJ_OK;
}

static dj_status check_names(const reader *r) {
  const suite_file *in = r->in;
  char path[DJ__YAML_PATH];
  DJ_TRY(check_weather(r, &in->weather, "weather"));
  DJ_TRY(check_vehicles(r, &in->vehicles, "vehicles"));
  for (unsigned k = 0; k < in->n_towns; k++) {
    (void)snprintf(path, sizeof path, "towns[%u].weather", k);
    DJ_TRY(check_weather(r, &in->towns[k].weather, path));
    (void)snprintf(path, sizeof path, "towns[%u].vehicles", k);
    DJ_TRY(check_vehicles(r, &in->towns[k].vehicles, path));
  }
  return check_traffic(r);
}

// ---- towns -------------------------------------------------------------------------------------

typedef struct town {
  const town_file *from;
  unsigned entry; // of the suite's towns
  uint64_t seed;
  int n[DJ__N_CASES]; // cases of each kind so far
} town;

/* "7" or "1000..1019" (both ends included). */
static bool parse_seeds(const char *text, uint64_t *first, uint64_t *last) {
  char *end;
  if (*text < '0' || *text > '9') return false;
  *first = *last = strtoull(text, &end, 10);
  if (!strncmp(end, "..", 2) && end[2] >= '0' && end[2] <= '9') *last = strtoull(end + 2, &end, 10);
  return !*end && *first <= *last && *last < UINT64_C(1) << 53;
}

static dj_status add_town(reader *r, town *towns, int *n, unsigned entry, uint64_t seed) {
  const town_file *f = &r->in->towns[entry];
  char path[DJ__YAML_PATH];
  (void)snprintf(path, sizeof path, "towns[%u]", entry);
  if (*n == MAX_TOWNS)
    return dj_error(DJ_E_LIMIT, "%s:%d: more than %d towns", r->file, line_at(r, path), MAX_TOWNS);
  if (r->seed0 >= 0) seed = (uint64_t)r->seed0 + (uint64_t)*n;
  for (int i = 0; i < *n; i++) {
    bool same = towns[i].seed == seed &&
                (f->xodr && towns[i].from->xodr
                     ? !strcmp(f->xodr, towns[i].from->xodr)
                     : !f->xodr && !towns[i].from->xodr && f->style == towns[i].from->style);
    if (same)
      return dj_error(DJ_E_FORMAT, "%s:%d: seed %llu of this town comes up twice", r->file,
                      line_at(r, path), (unsigned long long)seed);
  }
  towns[(*n)++] = (town){.from = f, .entry = entry, .seed = seed};
  return DJ_OK;
}

static dj_status expand_town(reader *r, town *towns, int *n, unsigned entry) {
  const town_file *f = &r->in->towns[entry];
  char path[DJ__YAML_PATH], whole[DJ__YAML_PATH];
  (void)snprintf(path, sizeof path, "towns[%u].seeds", entry);
  (void)snprintf(whole, sizeof whole, "towns[%u].style", entry);
  if (f->xodr && dj__yaml_line_of(r->lines, whole))
    return dj_error(DJ_E_FORMAT, "%s:%d: a town has either a 'style' or an 'xodr' file", r->file,
                    line_at(r, whole));
  if (!f->seeds.n && f->xodr) return add_town(r, towns, n, entry, 0);
  if (!f->seeds.n) return dj__yaml_missing(r->file, r->lines, path);
  for (unsigned i = 0; i < f->seeds.n; i++) {
    uint64_t first, last;
    if (!parse_seeds(f->seeds.v[i], &first, &last))
      return dj_error(DJ_E_FORMAT,
                      "%s:%d: '%.40s' is no seed: a whole number (7) or a range (1000..1019)",
                      r->file, line_at(r, path), f->seeds.v[i]);
    for (uint64_t k = first; k <= last; k++) DJ_TRY(add_town(r, towns, n, entry, k));
  }
  return DJ_OK;
}

// ---- cases -------------------------------------------------------------------------------------

/* The town's value, or the suite's, or the default. */
static double number(const reader *r, const town *t, const char *key, double own, double suite,
                     double otherwise) {
  char path[DJ__YAML_PATH];
  (void)snprintf(path, sizeof path, "towns[%u].%s", t->entry, key);
  if (dj__yaml_line_of(r->lines, path)) return own;
  return dj__yaml_line_of(r->lines, key) ? suite : otherwise;
}

static const char *pick(const list *own, const list *suite, uint64_t turn, const char *otherwise) {
  const list *l = own->n ? own : suite;
  return l->n ? l->v[turn % l->n] : otherwise;
}

static const traffic_file *pick_traffic(const reader *r, const town *t, uint64_t turn) {
  const list *own = &t->from->traffic;
  if (own->n) return find_traffic(r->in, own->v[turn % own->n]);
  if (t->from->style == DJ__TOWN_TRACK) return &no_traffic;
  return r->in->n_traffic ? &r->in->traffic[turn % r->in->n_traffic] : &usual_traffic;
}

static dj_status xodr_path(const reader *r, const town *t, dj__case *c) {
  const char *slash = strrchr(r->file, '/'), *name = t->from->xodr;
  int folder = slash && *name != '/' ? (int)(slash + 1 - r->file) : 0;
  if (snprintf(c->xodr, sizeof c->xodr, "%.*s%s", folder, r->file, name) < (int)sizeof c->xodr)
    return DJ_OK;
  return dj_error(DJ_E_LIMIT, "%s: the path of '%.80s' is too long", r->file, name);
}

static const char *style_name(int style) {
  for (size_t i = 0; i < N_OF(styles); i++)
    if (styles[i].val == style) return styles[i].str;
  return "any";
}

static void name_case(const town *t, const dj__case *c, int index, char *out, size_t size) {
  if (!t->from->xodr) {
    (void)snprintf(out, size, "%s-%llu/%s/%s-%d", style_name(t->from->style),
                   (unsigned long long)t->seed, c->weather, dj__case_name(c->kind), index);
    return;
  }
  const char *slash = strrchr(t->from->xodr, '/'), *base = slash ? slash + 1 : t->from->xodr;
  const char *dot = strrchr(base, '.');
  (void)snprintf(out, size, "%.*s-%llu/%s/%s-%d",
                 (int)(dot && dot != base ? dot - base : (long)strlen(base)), base,
                 (unsigned long long)t->seed, c->weather, dj__case_name(c->kind), index);
}

/* `of`: how many of its kind the town has. */
static dj_status add_case(reader *r, town *t, dj__case_kind what, int of) {
  dj__suite *s = r->out;
  if (s->n == MAX_CASES) return dj_error(DJ_E_LIMIT, "%s: more than %d cases", r->file, MAX_CASES);
  if (s->n == r->cap) {
    r->cap = r->cap ? 2 * r->cap : 64;
    dj__case *grown = realloc(s->cases, (size_t)r->cap * sizeof *grown);
    if (!grown) return dj_error(DJ_E_NOMEM, "%s: no memory for %d cases", r->file, r->cap);
    s->cases = grown;
  }
  dj__case *c = &s->cases[s->n];
  const town_file *f = t->from;
  const list *weathers = f->weather.n ? &f->weather : &r->in->weather;
  int index = t->n[what]++;
  uint64_t k = t->seed * (uint64_t)of + (uint64_t)index + 4 * (uint64_t)what,
           round = k / (weathers->n ? weathers->n : 1);
  uint64_t n_traffic = f->traffic.n ? f->traffic.n : r->in->n_traffic ? r->in->n_traffic : 1;
  const traffic_file *traffic = pick_traffic(r, t, k + round);
  bool track = f->style == DJ__TOWN_TRACK; // too small for cars: only a town's own list counts
  *c = (dj__case){
      .kind = what,
      .town = {t->seed, (dj__town_style)f->style, f->size, number(r, t, "hills", f->hills, 0, -1)},
      .seconds = number(r, t, "seconds", f->seconds, r->in->seconds, 30),
      .slowest = number(r, t, "slowest", f->slowest, r->in->slowest, 0),
      .length = number(r, t, "length", f->length, r->in->length, 400),
      .n_vehicle = traffic->vehicles,
      .n_cyclist = traffic->cyclists,
      .n_pedestrian = traffic->pedestrians,
      .n_parked = traffic->parked,
      .unruly = traffic->unruly,
      .roadworks = traffic->roadworks};
  (void)snprintf(c->weather, sizeof c->weather, "%s",
                 pick(&f->weather, &r->in->weather, k, "clear"));
  (void)snprintf(c->vehicle, sizeof c->vehicle, "%s",
                 pick(&f->vehicles, track ? &f->vehicles : &r->in->vehicles,
                      k + round + round / n_traffic, track ? "rc-car" : "car"));
  (void)snprintf(c->rig, sizeof c->rig, "%s",
                 f->rig       ? f->rig
                 : r->in->rig ? r->in->rig
                 : track      ? "donkeycar"
                              : "mono");
  if (f->xodr) DJ_TRY(xodr_path(r, t, c));
  dj__u32x4 v = dj__philox(t->seed, (uint64_t)index, 0x5017e000u + 16 * (uint64_t)f->style + what);
  c->seed = ((uint64_t)v.v[0] << 32 | v.v[1]) >> 11; // fits a double: JSON
  name_case(t, c, index, c->name, sizeof c->name);
  s->n++;
  return DJ_OK;
}

static bool fits(const town *t, dj__case_kind what) {
  if (t->from->style == DJ__TOWN_TRACK) return false;
  if (what == DJ__CASE_RED_LIGHT)
    return t->from->xodr ||
           (t->from->style != DJ__TOWN_RURAL && t->from->style != DJ__TOWN_MOTORWAY);
  return what != DJ__CASE_PEDESTRIAN || t->from->style != DJ__TOWN_MOTORWAY;
}

/* Recovery cases go round over the towns that have what they need; counted first, so that a town's
 * cases come one after another. */
static dj_status share_out(const reader *r, const town *towns, int n, int (*count)[DJ__N_CASES]) {
  int at = 0;
  for (int what = DJ__CASE_OFFSET; what < DJ__N_CASES; what++) {
    int tried = 0;
    for (int i = 0; i < r->in->recovery[what];) {
      const town *t = &towns[at % n];
      if (fits(t, what)) {
        count[at % n][what]++;
        i++;
        tried = 0;
      } else if (++tried > n) {
        char path[DJ__YAML_PATH];
        (void)snprintf(path, sizeof path, "recovery.%s", dj__case_name(what));
        return dj_error(DJ_E_INVALID, "%s:%d: no town of the suite is fit for '%s' cases", r->file,
                        line_at(r, path), dj__case_name(what));
      }
      at++;
    }
  }
  return DJ_OK;
}

static dj_status expand(reader *r, town *towns, int (*count)[DJ__N_CASES]) {
  int n = 0;
  for (unsigned i = 0; i < r->in->n_towns; i++) DJ_TRY(expand_town(r, towns, &n, i));
  DJ_TRY(share_out(r, towns, n, count));
  for (int i = 0; i < n; i++) {
    int routes = (int)number(r, &towns[i], "routes", towns[i].from->routes, r->in->routes, 1);
    for (int k = 0; k < routes; k++) DJ_TRY(add_case(r, &towns[i], DJ__CASE_ROUTE, routes));
    for (int what = DJ__CASE_OFFSET; what < DJ__N_CASES; what++)
      for (int k = 0; k < count[i][what]; k++) DJ_TRY(add_case(r, &towns[i], what, count[i][what]));
  }
  if (!r->out->n) return dj_error(DJ_E_INVALID, "%s: the suite has no cases", r->file);
  return DJ_OK;
}

static void name_suite(const char *file, const char *given, char *out, size_t size) {
  const char *slash = strrchr(file, '/'), *base = given ? given : slash ? slash + 1 : file;
  const char *dot = strrchr(base, '.');
  int n = !given && dot && dot != base ? (int)(dot - base) : (int)strlen(base);
  (void)snprintf(out, size, "%.*s", n, base);
}

static void thin_out(dj__suite *s, int limit) {
  if (limit <= 0 || limit >= s->n) return;
  for (int i = 0; i < limit; i++) s->cases[i] = s->cases[(int64_t)i * s->n / limit];
  s->n = limit;
}

dj_status dj__suite_parse(const char *text, size_t size, const char *file, int64_t seed0, int limit,
                          dj__suite *s) {
  *s = (dj__suite){0};
  dj__yaml_lines lines;
  suite_file *in = NULL;
  dj_status st = dj__yaml_check(&kind, text, size, file, &lines);
  if (!st && !dj__yaml_line_of(&lines, "towns")) st = dj__yaml_missing(file, &lines, "towns");
  if (!st) st = dj__yaml_fill(&kind, text, size, file, &in);
  reader r = {.file = file, .in = in, .lines = &lines, .seed0 = seed0, .out = s};
  if (!st) st = check_names(&r);
  town *towns = st ? NULL : calloc(MAX_TOWNS, sizeof *towns);
  int(*count)[DJ__N_CASES] = st ? NULL : calloc(MAX_TOWNS, sizeof *count);
  if (!st && (!towns || !count)) st = dj_error(DJ_E_NOMEM, "%s: no memory for its towns", file);
  if (!st) st = expand(&r, towns, count);
  if (!st) name_suite(file, in->name, s->name, sizeof s->name);
  if (!st) thin_out(s, limit);
  free(towns);
  free(count);
  dj__yaml_free(&kind, in);
  dj__yaml_lines_free(&lines);
  if (st) dj__suite_free(s);
  return st;
}

dj_status dj__suite_read(const char *path, int64_t seed0, int limit, dj__suite *s) {
  *s = (dj__suite){0};
  char *text;
  size_t size;
  DJ_TRY(dj__read_file(path, MAX_BYTES, &text, &size));
  dj_status st = dj__suite_parse(text, size, path, seed0, limit, s);
  free(text);
  return st;
}

bool dj__case_same_map(const dj__case *a, const dj__case *b) {
  if (a->xodr[0] || b->xodr[0]) return !strcmp(a->xodr, b->xodr);
  return a->town.seed == b->town.seed && a->town.style == b->town.style &&
         a->town.size == b->town.size && a->town.hills == b->town.hills;
}

void dj__suite_free(dj__suite *s) {
  free(s->cases);
  *s = (dj__suite){0};
}
