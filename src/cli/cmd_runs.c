/* dojo runs: what runs there are, how far they are, what came out, and how their recipes differ. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "cli/cli.h"
#include "dojo/train.h"

static const char HELP[] =
    "Usage: dojo runs [DIR...] [--json]\n\n"
    "Lists runs: steps done and planned, last loss, best validation score, samples/s, and how\n"
    "the recipes of several runs differ. DIR is a run's folder or a folder of runs; without one,\n"
    "the present folder is looked through.\n\n"
    "Example:\n"
    "  dojo runs runs/donkey-1 runs/donkey-2\n";

typedef struct list {
  dj_run_info *v;
  size_t n;
} list;

static dj_status add_run(list *l, const char *dir) {
  dj_run_info *v = realloc(l->v, (l->n + 1) * sizeof *v);
  if (!v) return dj_error(DJ_E_NOMEM, "no memory for %zu runs", l->n + 1);
  l->v = v;
  DJ_TRY(dj_run_read(dir, &v[l->n]));
  l->n++;
  return DJ_OK;
}

static bool is_run(const char *dir) {
  char *path = dj__join(dir, "run.json");
  bool yes = dj__exists(path);
  free(path);
  return yes;
}

// The folder itself, or the runs right below it.
static dj_status add_folder(list *l, const char *dir) {
  if (is_run(dir)) return add_run(l, dir);
  char **names;
  size_t n;
  DJ_TRY(dj__list_dir(dir, &names, &n));
  dj_status s = DJ_OK;
  size_t before = l->n;
  for (size_t i = 0; i < n && !s; i++) {
    char *path = strcmp(dir, ".") ? dj__join(dir, names[i]) : dj__strf("%s", names[i]);
    if (is_run(path)) s = add_run(l, path);
    free(path);
  }
  dj__free_names(names, n);
  if (!s && l->n == before)
    s = dj_error(DJ_E_NOT_FOUND, "%s: neither a run nor a folder with runs in it", dir);
  return s;
}

// ---- differences of recipes: lines that are not in all of them ---------------------------------

static bool has_line(const char *text, const char *line, size_t n) {
  for (const char *p = text; *p;) {
    size_t k = strcspn(p, "\n");
    if (k == n && !memcmp(p, line, n)) return true;
    p += k + (p[k] == '\n');
  }
  return false;
}

static bool in_all(const list *l, const char *line, size_t n) {
  for (size_t i = 0; i < l->n; i++)
    if (!has_line(l->v[i].recipe->text, line, n)) return false;
  return true;
}

static void print_differences(const list *l) {
  bool any = false;
  for (size_t i = 0; i < l->n; i++) {
    bool first = true;
    for (const char *p = l->v[i].recipe->text; *p;) {
      size_t k = strcspn(p, "\n"), blank = strspn(p, " \t");
      if (blank < k && p[blank] != '#' && !in_all(l, p, k)) {
        if (!any) (void)puts("\nRecipes differ:");
        if (first) (void)printf("  %s\n", l->v[i].dir);
        (void)printf("    %.*s\n", (int)k, p);
        any = true;
        first = false;
      }
      p += k + (p[k] == '\n');
    }
  }
  if (!any && l->n > 1) (void)puts("\nThe recipes are equal.");
}

// ---- output ------------------------------------------------------------------------------------

static void number(char *text, size_t size, int digits, double v) {
  if (isfinite(v))
    (void)snprintf(text, size, "%.*g", digits, v);
  else
    (void)snprintf(text, size, "-");
}

static void print_table(const list *l) {
  (void)printf("%-28s %-14s %17s %10s %26s %10s  %s\n", "run", "recipe", "steps", "loss",
               "best score", "samples/s", "state");
  for (size_t i = 0; i < l->n; i++) {
    const dj_run_info *r = &l->v[i];
    char steps[48], loss[32], best[128], rate[32], value[32];
    (void)snprintf(steps, sizeof steps, "%" PRIu64 "/%" PRIu64, r->step, r->steps);
    number(loss, sizeof loss, 4, r->loss);
    number(rate, sizeof rate, 4, r->samples_per_second);
    number(value, sizeof value, 4, r->best);
    (void)snprintf(best, sizeof best, "%s%s%s", r->best_name, *r->best_name ? " " : "", value);
    const char *state = r->running                        ? "running"
                        : r->steps && r->step >= r->steps ? "done"
                                                          : "stopped";
    (void)printf("%-28s %-14s %17s %10s %26s %10s  %s\n", r->dir, r->recipe->name, steps, loss,
                 best, rate, state);
  }
}

static json_t *maybe(double v) {
  return isfinite(v) ? json_real(v) : json_null();
}

static dj_status print_json(const list *l) {
  json_t *all = json_array();
  for (size_t i = 0; i < l->n; i++) {
    const dj_run_info *r = &l->v[i];
    json_array_append_new(
        all,
        json_pack("{s:s, s:s, s:s, s:s?, s:s, s:s, s:i, s:I, s:I, s:o, s:o, s:o, s:o, s:I, "
                  "s:s, s:b}",
                  "dir", r->dir, "recipe", r->recipe->name, "recipe_digest", r->recipe->digest,
                  "store", r->store, "backend", r->backend, "precision", r->precision, "threads",
                  r->threads, "step", (json_int_t)r->step, "steps", (json_int_t)r->steps, "loss",
                  maybe(r->loss), "learning_rate", maybe(r->lr), "samples_per_second",
                  maybe(r->samples_per_second), "best", maybe(r->best), "best_step",
                  (json_int_t)r->best_step, "best_name", r->best_name, "running", r->running));
  }
  char *text = json_array_size(all) == l->n ? json_dumps(all, JSON_INDENT(2)) : NULL;
  json_decref(all);
  if (!text) return dj_error(DJ_E_INVALID, "a run's name is not UTF-8: no JSON");
  (void)puts(text);
  free(text);
  return DJ_OK;
}

int dj__cmd_runs(int argc, char **argv) {
  bool json = false;
  const dj__option options[] = {
      {"json", 0, DJ_OPT_FLAG, &json, NULL, "machine-readable list on stdout"}, {0}};
  int npos;
  char **pos;
  int rc = dj__parse_options(argc, argv, options, HELP, &npos, &pos);
  if (rc >= 0) return rc;
  list l = {0};
  dj_status s = npos ? DJ_OK : add_folder(&l, ".");
  for (int i = 0; i < npos && !s; i++) s = add_folder(&l, pos[i]);
  if (!s && json) s = print_json(&l);
  if (!s && !json) {
    print_table(&l);
    print_differences(&l);
  }
  for (size_t i = 0; i < l.n; i++) dj_run_info_free(&l.v[i]);
  free(l.v);
  return s ? dj__fail("runs", s) : 0;
}
