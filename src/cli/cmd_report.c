/* dojo report: one page with what runs, scores, pictures and videos show. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "cli/cli.h"
#include "cli/report_page.h"
#include "dojo/train.h"
#include "train/events.h"

static const char HELP[] =
    "Usage: dojo report THING... --out PAGE.html [--title TEXT] [--about TEXT]\n\n"
    "Writes one HTML page that needs nothing beside it: curves of runs, a table of the drivers\n"
    "whose scores `dojo drive --json` wrote, pictures and videos. A THING is a run's folder, a\n"
    "report (*.json), a picture (*.png, *.jpg), a video (*.mp4) or a folder of those; each may be\n"
    "given a caption: THING=CAPTION. Pictures and videos come in the order given.\n\n"
    "Example:\n"
    "  dojo drive expert --suite suites/test.yaml --json > expert.json\n"
    "  dojo drive R --suite suites/test.yaml --json --replay replays > network.json\n"
    "  dojo report R expert.json network.json town.png='The town' replays --out report.html\n";

typedef struct thing {
  char *path, *caption; /* owned */
} thing;
typedef struct things {
  thing *v;
  size_t n;
} things;

static dj_status add(things *l, const char *path, const char *caption) {
  thing *v = realloc(l->v, (l->n + 1) * sizeof *v);
  if (!v) return dj_error(DJ_E_NOMEM, "no memory for %zu things", l->n + 1);
  l->v = v;
  l->v[l->n++] = (thing){dj__strf("%s", path), dj__strf("%s", caption)};
  return DJ_OK;
}
static void free_things(things *l) {
  for (size_t i = 0; i < l->n; i++) {
    free(l->v[i].path);
    free(l->v[i].caption);
  }
  free(l->v);
}

static bool is_json(const char *path) {
  size_t n = strlen(path);
  return n > 5 && !strcmp(path + n - 5, ".json");
}

/* The file's name without folder and ending: what a caption is if none is given. */
static char *plain_caption(const char *path) {
  const char *name = strrchr(path, '/');
  char *c = dj__strf("%s", name ? name + 1 : path), *dot = strrchr(c, '.');
  if (dot && dot != c) *dot = 0;
  return c;
}

/* ---- what is given: runs, reports, media ---- */
typedef struct given {
  things runs, reports, media;
} given;

static dj_status sort_thing(given *g, const char *path, const char *caption);

static dj_status sort_folder(given *g, const char *dir) {
  char **names;
  size_t n;
  DJ_TRY(dj__list_dir(dir, &names, &n));
  dj_status s = DJ_OK;
  for (size_t i = 0; i < n && !s; i++) {
    char *path = dj__join(dir, names[i]);
    if (dj__page_media_type(path)) s = sort_thing(g, path, "");
    free(path);
  }
  dj__free_names(names, n);
  return s;
}

static dj_status sort_thing(given *g, const char *path, const char *caption) {
  char *run = dj__join(path, "run.json");
  const bool is_run = dj__exists(run);
  free(run);
  if (is_run) return add(&g->runs, path, caption);
  if (dj__is_dir(path)) return sort_folder(g, path);
  if (!dj__exists(path))
    return dj_error(DJ_E_NOT_FOUND, "%s: no such run, report, picture or video", path);
  if (is_json(path)) return add(&g->reports, path, caption);
  if (!dj__page_media_type(path))
    return dj_error(DJ_E_INVALID, "%s: neither a run's folder nor *.json, *.png, *.jpg or *.mp4",
                    path);
  char *c = *caption ? dj__strf("%s", caption) : plain_caption(path);
  dj_status s = add(&g->media, path, c);
  free(c);
  return s;
}

static dj_status sort_all(given *g, int n, char **arg) {
  for (int i = 0; i < n; i++) {
    char *path = dj__strf("%s", arg[i]), *eq = dj__exists(path) ? NULL : strchr(path, '=');
    if (eq) *eq = 0;
    dj_status s = sort_thing(g, path, eq ? eq + 1 : "");
    free(path);
    if (s) return s;
  }
  return DJ_OK;
}

/* ---- runs ---- */
typedef struct curves {
  dj__curve *v;
  size_t n;
  bool failed;
} curves;

static dj__curve *curve_of(curves *l, const char *name) {
  for (size_t i = 0; i < l->n; i++)
    if (!strcmp(l->v[i].name, name)) return &l->v[i];
  dj__curve *v = realloc(l->v, (l->n + 1) * sizeof *v);
  if (!v) return NULL;
  l->v = v;
  l->v[l->n] = (dj__curve){.name = dj__strf("%s", name)};
  return &l->v[l->n++];
}

static void take_point(void *user, const dj__event *e) {
  curves *l = user;
  if (e->is_start) { // what earlier files hold from there on was done again
    for (size_t i = 0; i < l->n; i++)
      while (l->v[i].n && l->v[i].x[l->v[i].n - 1] >= (double)e->step) l->v[i].n--;
    return;
  }
  if (e->png || !e->tag) return;
  dj__curve *c = curve_of(l, e->tag);
  if (!c) {
    l->failed = true;
    return;
  }
  if (c->n == c->cap) {
    size_t cap = c->cap ? 2 * c->cap : 256;
    double *x = realloc(c->x, cap * sizeof *x), *y = x ? realloc(c->y, cap * sizeof *y) : NULL;
    if (x) c->x = x;
    if (y) c->y = y;
    if (!y) {
      l->failed = true;
      return;
    }
    c->cap = cap;
  }
  c->x[c->n] = (double)e->step;
  c->y[c->n++] = e->value;
}

static void free_curves(curves *l) {
  for (size_t i = 0; i < l->n; i++) {
    free(l->v[i].name);
    free(l->v[i].x);
    free(l->v[i].y);
  }
  free(l->v);
}

static dj_status put_run(dj__buf *b, const thing *t) {
  dj_run_info r;
  DJ_TRY(dj_run_read(t->path, &r));
  dj__page_text(b, "<h2>Training: ");
  dj__page_escaped(b, *t->caption ? t->caption : r.recipe->name);
  dj__page_put(b, "</h2>\n<p class=\"sub\">%" PRIu64 " steps, %s on %s", r.step, r.precision,
               r.backend);
  if (isfinite(r.best)) {
    dj__page_text(b, "; best ");
    dj__page_escaped(b, r.best_name);
    dj__page_put(b, " %.4g at step %" PRIu64, r.best, r.best_step);
  }
  dj__page_text(b, "</p>\n<div class=\"grid\">\n");
  dj_run_info_free(&r);
  curves l = {0};
  dj_status s = dj__events_read_dir(t->path, take_point, &l);
  for (size_t i = 0; i < l.n && !s; i++)
    if (l.v[i].n > 1 && strcmp(l.v[i].name, "train/samples_per_second") != 0)
      dj__page_curve(b, &l.v[i]);
  dj__page_text(b, "</div>\n");
  if (l.failed && !s) s = dj_error(DJ_E_NOMEM, "no memory for the curves of %s", t->path);
  free_curves(&l);
  return s;
}

/* ---- scores of drives ---- */
static double value_at(const json_t *o, const char *key, int part) { // 0: value, 1, 2: its interval
  const json_t *f = json_object_get(o, key);
  const json_t *v = part ? json_array_get(json_object_get(f, "ci95"), (size_t)part - 1)
                         : json_object_get(f, "value");
  return json_is_number(v) ? json_number_value(v) : NAN;
}

static void put_number(dj__buf *b, double v, const char *fmt_) {
  char text[64];
  if (isfinite(v))
    (void)snprintf(text, sizeof text, strcmp(fmt_, "1") == 0 ? "%.1f" : "%.3g", v);
  else
    (void)snprintf(text, sizeof text, "-");
  dj__page_put(b, "<td>%s</td>", text);
}

static dj_status read_report(const char *path, json_t **root) {
  json_error_t e;
  *root = json_load_file(path, 0, &e);
  if (!*root)
    return dj_error(DJ_E_FORMAT, "%s: line %d: %s; a report of dojo drive --json is wanted", path,
                    e.line, e.text);
  if (json_is_object(json_object_get(*root, "pdms")) &&
      json_is_string(json_object_get(*root, "driver")))
    return DJ_OK;
  json_decref(*root);
  *root = NULL;
  return dj_error(DJ_E_FORMAT,
                  "%s: not a report of dojo drive --json: it has no driver and no pdms", path);
}

static void put_driver(dj__buf *b, const thing *t, const json_t *root) {
  static const char *const shares[] = {"nc",      "dac",           "ttc",        "ep",
                                       "comfort", "driving_score", "completion", "arrived"};
  const double pdms = value_at(root, "pdms", 0);
  dj__page_text(b, "<tr><td>");
  dj__page_escaped(b,
                   *t->caption ? t->caption : json_string_value(json_object_get(root, "driver")));
  dj__page_put(
      b,
      "</td><td style=\"text-align:left\"><span class=\"bar\" style=\"width:%.0fpx\"></span>%.1f "
      "<span class=\"ci\">%.1f-%.1f</span></td>",
      isfinite(pdms) ? 1.2 * pdms : 0, pdms, value_at(root, "pdms", 1), value_at(root, "pdms", 2));
  for (size_t k = 0; k < sizeof shares / sizeof *shares; k++)
    put_number(b, value_at(root, shares[k], 0), "1");
  put_number(b, value_at(root, "collisions_per_km", 0), "g");
  put_number(b, value_at(root, "km_between_failures", 0), "g");
  dj__page_text(b, "</tr>\n");
}

static void put_kinds(dj__buf *b, const json_t *const *root, const things *l) {
  const char *kind;
  json_t *unused;
  dj__page_text(b, "<h2>By kind of drive</h2>\n<table><tr><th>PDMS</th>");
  for (size_t i = 0; i < l->n; i++) {
    dj__page_text(b, "<th>");
    dj__page_escaped(b, *l->v[i].caption ? l->v[i].caption
                                         : json_string_value(json_object_get(root[i], "driver")));
    dj__page_text(b, "</th>");
  }
  dj__page_text(b, "</tr>\n");
  json_object_foreach(json_object_get(root[0], "kinds"), kind, unused) {
    dj__page_text(b, "<tr><td>");
    dj__page_escaped(b, kind);
    dj__page_text(b, "</td>");
    for (size_t i = 0; i < l->n; i++)
      put_number(b, value_at(json_object_get(json_object_get(root[i], "kinds"), kind), "pdms", 0),
                 "1");
    dj__page_text(b, "</tr>\n");
  }
  dj__page_text(b, "</table>\n");
}

static dj_status put_scores(dj__buf *b, const things *l) {
  if (!l->n) return DJ_OK;
  json_t **root = calloc(l->n, sizeof *root);
  if (!root) return dj_error(DJ_E_NOMEM, "no memory for %zu reports", l->n);
  dj_status s = DJ_OK;
  for (size_t i = 0; i < l->n && !s; i++) s = read_report(l->v[i].path, &root[i]);
  if (!s) {
    dj__page_put(b, "<h2>Driving, closed loop</h2>\n<p class=\"sub\">%" PRId64 " drives of suite ",
                 (int64_t)json_integer_value(json_object_get(root[0], "drives")));
    const char *suite = json_string_value(json_object_get(root[0], "suite"));
    dj__page_escaped(b, suite ? suite : "?");
    dj__page_text(
        b,
        ". PDMS: NAVSIM's score, with its 95 % interval; NC no collision at fault, DAC on the "
        "road, TTC "
        "time to collision kept, EP progress, C comfort; DS CARLA's driving score, RC route done. "
        "Shares in per cent.</p>\n<table><tr><th>driver</th><th style=\"text-align:left\">PDMS</th>"
        "<th>NC</th><th>DAC</th><th>TTC</th><th>EP</th><th>C</th><th>DS</th><th>RC</"
        "th><th>arrived</th>"
        "<th>collisions/km</th><th>km between failures</th></tr>\n");
    for (size_t i = 0; i < l->n; i++) put_driver(b, &l->v[i], root[i]);
    dj__page_text(b, "</table>\n");
    if (json_object_size(json_object_get(root[0], "kinds")) > 1)
      put_kinds(b, (const json_t *const *)root, l);
  }
  for (size_t i = 0; i < l->n; i++) json_decref(root[i]);
  free(root);
  return s;
}

static dj_status put_media(dj__buf *b, const things *l) {
  for (size_t i = 0; i < l->n; i++) DJ_TRY(dj__page_media(b, l->v[i].path, l->v[i].caption));
  return DJ_OK;
}

static dj_status make_page(const given *g, const char *title, const char *about, dj__buf *b) {
  dj__page_begin(b, title);
  if (about) {
    dj__page_text(b, "<p class=\"sub\">");
    dj__page_escaped(b, about);
    dj__page_text(b, "</p>\n");
  }
  DJ_TRY(put_scores(b, &g->reports));
  if (g->media.n) dj__page_text(b, "<h2>Pictures</h2>\n");
  DJ_TRY(put_media(b, &g->media));
  for (size_t i = 0; i < g->runs.n; i++) DJ_TRY(put_run(b, &g->runs.v[i]));
  dj__page_end(b);
  return b->failed ? dj_error(DJ_E_NOMEM, "no memory for the page") : DJ_OK;
}

int dj__cmd_report(int argc, char **argv) {
  const char *out = NULL, *title = "Dojo: a report", *about = NULL;
  const dj__option options[] = {{"out", 'o', DJ_OPT_STRING, &out, "PAGE.html", "the page"},
                                {"title", 0, DJ_OPT_STRING, &title, "TEXT", "its heading"},
                                {"about", 0, DJ_OPT_STRING, &about, "TEXT", "a paragraph below it"},
                                {0}};
  int npos;
  char **pos;
  const char *command = argv[0];
  int rc = dj__parse_options(argc, argv, options, HELP, &npos, &pos);
  if (rc >= 0) return rc;
  if (!out || npos < 1)
    return dj__fail(command,
                    dj_error(DJ_E_INVALID,
                             "needs something to report and --out PAGE.html; see dojo report "
                             "--help"));
  given g = {0};
  dj__buf b = {0};
  dj_status s = sort_all(&g, npos, pos);
  if (!s) s = make_page(&g, title, about, &b);
  if (!s) s = dj__write_file_atomic(out, b.data, b.size);
  if (!s) (void)printf("%s: %.1f MB\n", out, (double)b.size / 1e6);
  dj__buf_free(&b);
  free_things(&g.runs);
  free_things(&g.reports);
  free_things(&g.media);
  return s ? dj__fail(command, s) : 0;
}
