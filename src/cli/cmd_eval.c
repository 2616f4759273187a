/* dojo eval: scores of a run, beside baselines. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "dojo/drive.h"

static const char HELP[] =
    "Usage: dojo eval RUN [--store DIR] [--split test] [--checkpoint best|last] [--json]\n\n"
    "Predicts every frame of a split from the window that ends at it and compares with the "
    "driver.\n\n"
    "Steering, in shares of full lock (-1..1, positive to the left):\n"
    "  mae   mean of |prediction - driver|\n"
    "  rmse  root of the mean squared difference\n"
    "  r2    1 - sum of squared differences / sum of squares of the driver about the mean\n"
    "Ego path, in metres, over frames whose recorded path reaches 1, 2 or 3 s and whose motion is\n"
    "known (not the first frame of a drive); of several hypotheses the likeliest counts:\n"
    "  ade   mean distance over the points up to the horizon, at openpilot's times 10 (i/32)^2 s\n"
    "  fde   distance at the last of these points (0.98, 1.91, 2.82 s)\n"
    "Baselines, on the same frames:\n"
    "  mean                the driver's mean steering over the training split\n"
    "  previous            the driver's steering one frame earlier (0 at a clip's start)\n"
    "  constant_velocity   straight on at the present speed\n"
    "  constant_turn_rate  at the present speed and turn rate\n"
    "The interval [low, high] is the 95 % one of a circular block bootstrap: blocks of 2 s,\n"
    "1000 resamples, fixed seed. docs/evaluation.md says more, and what --json prints.\n\n"
    "Example:\n"
    "  dojo eval R --store S --split test --json\n";

static json_t *number(double v) {
  return isfinite(v) ? json_real(v) : json_null();
}

static void set_figure(json_t *o, const char *name, const char *ci, dj_figure f) {
  json_object_set_new(o, name, number(f.value));
  json_t *pair = json_array();
  json_array_append_new(pair, number(f.low));
  json_array_append_new(pair, number(f.high));
  json_object_set_new(o, ci, pair);
}

static json_t *steering_json(const dj_steering_scores *s) {
  json_t *o = json_object();
  set_figure(o, "mae", "ci95", s->mae);
  set_figure(o, "rmse", "rmse_ci95", s->rmse);
  set_figure(o, "r2", "r2_ci95", s->r2);
  json_object_set_new(o, "frames", json_integer((json_int_t)s->n));
  return o;
}

static json_t *path_json(const dj_path_scores *s) {
  json_t *o = json_object();
  for (int h = 0; h < DJ_N_HORIZONS; h++) {
    char key[16];
    (void)snprintf(key, sizeof key, "%ds", h + 1);
    json_t *one = json_object();
    set_figure(one, "ade", "ade_ci95", s->ade[h]);
    set_figure(one, "fde", "fde_ci95", s->fde[h]);
    json_object_set_new(one, "frames", json_integer((json_int_t)s->n[h]));
    json_object_set_new(o, key, one);
  }
  return o;
}

static json_t *predictor_json(const dj_drive_scores *s, int p) {
  json_t *o = json_object();
  if (s->steering[p].n) json_object_set_new(o, "steering", steering_json(&s->steering[p]));
  bool path = s->has_path && p != DJ_PREDICT_MEAN && p != DJ_PREDICT_PREVIOUS;
  if (path) json_object_set_new(o, "path", path_json(&s->path[p]));
  return o;
}

static void print_json(const dj_drive_scores *s) {
  json_t *root = predictor_json(s, DJ_PREDICT_NETWORK), *baseline = json_object();
  for (int p = 1; p < DJ_N_PREDICTORS; p++) {
    json_t *o = predictor_json(s, p);
    if (json_object_size(o))
      json_object_set_new(baseline, dj_predictor_name((dj_predictor)p), o);
    else
      json_decref(o);
  }
  json_object_set_new(root, "baseline", baseline);
  json_object_set_new(root, "network", json_string(s->network));
  json_object_set_new(root, "split", json_string(s->split));
  json_object_set_new(root, "step", json_integer((json_int_t)s->step));
  json_object_set_new(root, "frames", json_integer((json_int_t)s->frames));
  if (s->has_path) json_object_set_new(root, "longest_path_s", json_real(s->longest_path));
  json_object_set_new(root, "data", json_string(s->data));
  json_object_set_new(root, "seconds", json_real(s->seconds));
  (void)json_dumpf(root, stdout, JSON_INDENT(2));
  (void)puts("");
  json_decref(root);
}

static void print_steering(const dj_drive_scores *s) {
  for (int p = 0; p < DJ_N_PREDICTORS; p++) {
    const dj_steering_scores *t = &s->steering[p];
    if (t->n)
      (void)printf("steering  %-20s mae %.4f [%.4f, %.4f]  rmse %.4f  r2 %6.3f  (%llu frames)\n",
                   dj_predictor_name((dj_predictor)p), t->mae.value, t->mae.low, t->mae.high,
                   t->rmse.value, t->r2.value, (unsigned long long)t->n);
  }
}

static void print_path(const dj_drive_scores *s) {
  for (int h = 0; h < DJ_N_HORIZONS; h++) {
    unsigned long long n = s->path[DJ_PREDICT_NETWORK].n[h];
    if (!n)
      (void)printf("path %d s  not scored: none of %llu frames has a recorded path that reaches "
                   "%d s (the longest reaches %.1f s; a path ends with the drive and at gaps)\n",
                   h + 1, (unsigned long long)s->frames, h + 1, s->longest_path);
    for (int p = 0; p < DJ_N_PREDICTORS && n; p++) {
      const dj_path_scores *t = &s->path[p];
      if (t->n[h])
        (void)printf("path %d s  %-20s ade %.3f [%.3f, %.3f] m  fde %.3f m  (%llu of %llu "
                     "frames)\n",
                     h + 1, dj_predictor_name((dj_predictor)p), t->ade[h].value, t->ade[h].low,
                     t->ade[h].high, t->fde[h].value, n, (unsigned long long)s->frames);
    }
  }
}

static void print_text(const dj_drive_scores *s) {
  (void)printf("%s, step %llu, split %s, %.1f s\n", s->network, (unsigned long long)s->step,
               s->split, s->seconds);
  print_steering(s);
  if (s->has_path) print_path(s);
  if (!s->steering[DJ_PREDICT_NETWORK].n && !s->has_path)
    (void)printf("steering  not scored: none of %llu frames has a steering label\n",
                 (unsigned long long)s->frames);
}

int dj__cmd_eval(int argc, char **argv) {
  const char *store = NULL, *split = "test", *checkpoint = "best";
  int64_t threads = 0;
  bool json = false;
  const dj__option options[] = {
      {"store", 'S', DJ_OPT_STRING, &store, "DIR", "the store; the one trained on if not given"},
      {"split", 0, DJ_OPT_STRING, &split, "NAME", "train, validation or test (default)"},
      {"checkpoint", 0, DJ_OPT_STRING, &checkpoint, "WHICH", "best (default) or last"},
      {"threads", 0, DJ_OPT_INT, &threads, "N", "threads; all cores if not given"},
      {"json", 0, DJ_OPT_FLAG, &json, NULL, "machine-readable report on stdout"},
      {0}};
  int npos;
  char **pos;
  const char *command = argv[0];
  int rc = dj__parse_options(argc, argv, options, HELP, &npos, &pos);
  if (rc >= 0) return rc;
  if (npos != 1)
    return dj__fail(command, dj_error(DJ_E_INVALID, "needs one RUN folder; see dojo eval --help"));
  dj_drive_eval_options o = {.threads = (int)threads};
  dj_status st = dj__cli_split_and_checkpoint(split, checkpoint, &o.checkpoint);
  if (st) return dj__fail(command, st);
  if (threads < 0 || threads > 1024)
    return dj__fail(command,
                    dj_error(DJ_E_INVALID, "--threads is 0 to 1024, not %lld", (long long)threads));
  dj_drive_scores s;
  st = dj_drive_eval(pos[0], store, split, &o, &s);
  dj__cli_progress_end();
  if (st) return dj__fail(command, st);
  if (json)
    print_json(&s);
  else
    print_text(&s);
  return 0;
}
