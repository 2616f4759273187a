/* `dojo store`: what a store holds, its splits, making its catalogue anew, checking it. */
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "cli/cli.h"
#include "dojo/store.h"

static const char help[] =
    "Usage: dojo store ls      --store DIR [--json]\n"
    "       dojo store split   --store DIR [--drive NAME] [--train X --validation X --test X --gap "
    "S]\n"
    "       dojo store rebuild --store DIR [--keep-going]\n"
    "       dojo store check   --store DIR [--decode] [--json]\n"
    "       dojo store rm      --store DIR DRIVE...\n"
    "\n"
    "ls       drives, the clips each is cut into, and the labels each holds\n"
    "split    shows how drives are cut into train, validation and test; with any of the shares, "
    "cuts\n"
    "         them anew: by time, first train, then validation, last test, a gap between two "
    "blocks\n"
    "rebuild  makes the catalogue anew from the logs, store.json and runs/\n"
    "check    compares the catalogue with the files; --decode also decodes every frame\n"
    "rm       removes drives, with their logs\n"
    "\n"
    "Example:\n"
    "  dojo store ls --store S\n"
    "  dojo store split --store S --drive tub --train 0 --validation 0 --test 1\n";

typedef struct options {
  const char *store, *drive;
  double train, validation, test, gap;
  bool json, keep_going, decode;
} options;

static json_t *labels_json(uint32_t labels) {
  json_t *list = json_array();
  for (int i = 0; i < DJ_N_LABELS; i++)
    if (labels & 1u << i) json_array_append_new(list, json_string(dj_label_name(i)));
  return list;
}

static int print_json(json_t *j) {
  int rc = json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
  (void)fputc('\n', stdout);
  json_decref(j);
  return rc == 0 ? 0 : dj_exit_code(DJ_E_IO);
}

static double seconds(uint64_t from, uint64_t to) {
  return (double)(to - from) * 1e-9;
}

// ---- ls -----------------------------------------------------------------------------------------

static json_t *clip_json(const dj_store_clip *c) {
  return json_pack("{s:i,s:s,s:I,s:I,s:I,s:I,s:f,s:o}", "clip", c->index, "split", c->split,
                   "first_frame", (json_int_t)c->first_frame, "frames", (json_int_t)c->n_frames,
                   "start_ns", (json_int_t)c->start_ns, "end_ns", (json_int_t)c->end_ns, "seconds",
                   seconds(c->start_ns, c->end_ns), "labels", labels_json(c->labels));
}

static json_t *drive_json(const dj_store_drive *d) {
  json_t *clips = json_array(), *cameras = json_array();
  for (int i = 0; i < d->n_clips; i++) json_array_append_new(clips, clip_json(&d->clips[i]));
  for (int i = 0; i < d->n_cameras; i++)
    json_array_append_new(cameras,
                          json_pack("{s:s,s:i,s:i,s:I}", "name", d->cameras[i].name, "width",
                                    d->cameras[i].width, "height", d->cameras[i].height, "frames",
                                    (json_int_t)d->cameras[i].n_frames));
  return json_pack("{s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:f,s:I,s:o,s:o,s:o}", "name", d->name, "format",
                   d->format, "digest", d->digest, "source", d->source, "source_digest",
                   d->source_digest, "bytes", (json_int_t)d->log_bytes, "frames",
                   (json_int_t)d->n_frames, "seconds", seconds(d->start_ns, d->end_ns), "skipped",
                   (json_int_t)d->n_skipped, "labels", labels_json(d->labels), "cameras", cameras,
                   "clips", clips);
}

static void print_drive(const dj_store_drive *d) {
  char labels[128];
  (void)printf("%-24s %-12s %8" PRIu64 " frames %8.1f s %7.1f MB  %s\n", d->name, d->format,
               d->n_frames, seconds(d->start_ns, d->end_ns), (double)d->log_bytes * 1e-6,
               dj_label_list(d->labels, ",", labels, sizeof labels));
  if (!d->n_cameras) (void)printf("  no camera: not for training\n");
  for (int i = 0; i < d->n_cameras; i++)
    (void)printf("  camera %-15s %dx%d, %" PRIu64 " frames\n", d->cameras[i].name,
                 d->cameras[i].width, d->cameras[i].height, d->cameras[i].n_frames);
  for (int i = 0; i < d->n_clips; i++) {
    const dj_store_clip *c = &d->clips[i];
    (void)printf("  clip %d %-14s  %8" PRIu64 " frames %8.1f s  from frame %-8" PRIu64 " %s\n",
                 c->index, c->split, c->n_frames, seconds(c->start_ns, c->end_ns), c->first_frame,
                 dj_label_list(c->labels, ",", labels, sizeof labels));
  }
  if (d->n_skipped) (void)printf("  %" PRIu64 " records skipped on import\n", d->n_skipped);
}

static int list(dj_store *s, const options *o) {
  dj_store_drive *drives;
  size_t n;
  dj_status st = dj_store_drives(s, &drives, &n);
  if (st) return dj__fail("store", st);
  int rc = 0;
  uint64_t frames = 0;
  double total = 0;
  if (o->json) {
    json_t *list_json = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(list_json, drive_json(&drives[i]));
    rc = print_json(json_pack("{s:s,s:o}", "store", o->store, "drives", list_json));
  } else {
    for (size_t i = 0; i < n; i++) {
      print_drive(&drives[i]);
      frames += drives[i].n_frames;
      total += seconds(drives[i].start_ns, drives[i].end_ns);
    }
    (void)printf("%s%zu drive%s, %" PRIu64 " frames, %.1f s\n", n ? "\n" : "", n, n == 1 ? "" : "s",
                 frames, total);
  }
  dj_store_drives_free(drives, n);
  return rc;
}

// ---- split --------------------------------------------------------------------------------------

static dj_status change_split(dj_store *s, const options *o) {
  bool shares = o->train >= 0 || o->validation >= 0 || o->test >= 0;
  if (!shares && o->gap < 0) return DJ_OK;
  dj_split_options split;
  DJ_TRY(dj_store_get_split(s, o->drive, &split));
  if (shares) { // one share left out is what the other two leave
    split.train = o->train >= 0 ? o->train : 0;
    split.validation = o->validation >= 0 ? o->validation : 0;
    split.test = o->test >= 0 ? o->test : 0;
    double rest = 1 - split.train - split.validation - split.test;
    if (o->train < 0 && rest > 0)
      split.train = rest;
    else if (o->test < 0 && rest > 0)
      split.test = rest;
    else if (o->validation < 0 && rest > 0)
      split.validation = rest;
  }
  if (o->gap >= 0) split.gap_s = o->gap;
  return dj_store_set_split(s, o->drive, &split);
}

static json_t *split_json(const dj_split_options *o) {
  return json_pack("{s:f,s:f,s:f,s:f}", "train", o->train, "validation", o->validation, "test",
                   o->test, "gap_s", o->gap_s);
}

static int split(dj_store *s, const options *o) {
  dj_store_drive *drives = NULL;
  size_t n = 0;
  dj_split_options common;
  dj_store_drive *only = NULL;
  dj_status st = o->drive ? dj_store_find(s, o->drive, &only) : DJ_OK;
  if (!st) st = change_split(s, o);
  dj_store_drives_free(only, only ? 1 : 0);
  if (!st) st = dj_store_get_split(s, NULL, &common);
  if (!st) st = dj_store_drives(s, &drives, &n);
  if (st) return dj__fail("store", st);
  json_t *rows = json_object();
  if (!o->json)
    (void)printf("%-24s train %g, validation %g, test %g, gap %g s\n", "(store)", common.train,
                 common.validation, common.test, common.gap_s);
  for (size_t i = 0; i < n && !st; i++) {
    if (o->drive && strcmp(drives[i].name, o->drive) != 0) continue;
    dj_split_options own;
    st = dj_store_get_split(s, drives[i].name, &own);
    if (st) break;
    json_object_set_new(rows, drives[i].name, split_json(&own));
    if (o->json) continue;
    (void)printf("%-24s train %g, validation %g, test %g, gap %g s:", drives[i].name, own.train,
                 own.validation, own.test, own.gap_s);
    for (int k = 0; k < drives[i].n_clips; k++)
      (void)printf(" %s %" PRIu64 "..%" PRIu64, drives[i].clips[k].split,
                   drives[i].clips[k].first_frame,
                   drives[i].clips[k].first_frame + drives[i].clips[k].n_frames - 1);
    (void)printf("\n");
  }
  dj_store_drives_free(drives, n);
  json_t *report =
      json_pack("{s:s,s:o,s:o}", "store", o->store, "split", split_json(&common), "drives", rows);
  if (!st && o->json) return print_json(report);
  json_decref(report);
  return st ? dj__fail("store", st) : 0;
}

// ---- rebuild, check, rm
// -----------------------------------------------------------------------------

static int rebuild(const options *o) {
  size_t bad = 0;
  dj_status st = dj_store_rebuild(o->store, o->keep_going, &bad);
  if (st) return dj__fail("store", st);
  dj__cli_progress_end();
  if (o->json)
    return print_json(json_pack("{s:s,s:I}", "store", o->store, "left_out", (json_int_t)bad));
  (void)printf("%s: catalogue made anew", o->store);
  if (bad) (void)printf(", %zu broken file%s left out", bad, bad == 1 ? "" : "s");
  (void)printf("\n");
  return 0;
}

static void collect_problem(void *user, const char *what, const char *text) {
  json_array_append_new(user, json_pack("{s:s,s:s}", "what", what, "problem", text));
}

static int check(dj_store *s, const options *o) {
  json_t *problems = json_array();
  size_t n = 0;
  dj_status st = dj_store_check(s, o->decode, collect_problem, problems, &n);
  dj__cli_progress_end();
  if (st) {
    json_decref(problems);
    return dj__fail("store", st);
  }
  if (o->json) {
    int rc = print_json(
        json_pack("{s:s,s:b,s:o}", "store", o->store, "ok", n == 0, "problems", problems));
    return rc ? rc : n ? dj_exit_code(DJ_E_FORMAT) : 0;
  }
  size_t i;
  json_t *p;
  json_array_foreach(problems, i, p)(void)
      printf("%s: %s\n", json_string_value(json_object_get(p, "what")),
             json_string_value(json_object_get(p, "problem")));
  json_decref(problems);
  (void)printf("%s: %zu problem%s\n", o->store, n, n == 1 ? "" : "s");
  return n ? dj_exit_code(DJ_E_FORMAT) : 0;
}

static int remove_drives(dj_store *s, int n, char **names) {
  for (int i = 0; i < n; i++) {
    dj_status st = dj_store_remove(s, names[i]);
    if (st) return dj__fail("store", st);
    (void)printf("%s: removed\n", names[i]);
  }
  return 0;
}

static int __attribute__((format(printf, 1, 2))) bad_use(const char *fmt, ...) {
  va_list ap;
  (void)fprintf(stderr, "dojo store: ");
  va_start(ap, fmt);
  (void)vfprintf(stderr, fmt, ap);
  va_end(ap);
  (void)fprintf(stderr, "; see dojo store --help\n");
  return dj_exit_code(DJ_E_INVALID);
}

static int unknown_verb(const char *verb) {
  static const char *const verbs[] = {"ls", "split", "rebuild", "check", "rm"};
  enum { N = sizeof verbs / sizeof *verbs };
  for (int i = 0; i < N; i++)
    if (!strcmp(verb, verbs[i])) return 0;
  const char *near = dj__nearest(verb, verbs, N);
  if (near) return bad_use("unknown '%s'; did you mean '%s'?", verb, near);
  return bad_use("unknown '%s'; there are ls, split, rebuild, check and rm", verb);
}

int dj__cmd_store(int argc, char **argv) {
  options o = {.train = -1, .validation = -1, .test = -1, .gap = -1};
  const dj__option list_of_options[] = {
      {"store", 'S', DJ_OPT_STRING, &o.store, "DIR", "the store"},
      {"json", 0, DJ_OPT_FLAG, &o.json, NULL, "machine-readable report on stdout"},
      {"drive", 0, DJ_OPT_STRING, &o.drive, "NAME", "split: only this drive"},
      {"train", 0, DJ_OPT_DOUBLE, &o.train, "SHARE", "split: share of train, 0..1 (0.7)"},
      {"validation", 0, DJ_OPT_DOUBLE, &o.validation, "SHARE", "split: share of validation (0.1)"},
      {"test", 0, DJ_OPT_DOUBLE, &o.test, "SHARE", "split: share of test (0.2)"},
      {"gap", 0, DJ_OPT_DOUBLE, &o.gap, "SECONDS",
       "split: gap between blocks (1; at most 2 % of the drive)"},
      {"keep-going", 0, DJ_OPT_FLAG, &o.keep_going, NULL, "rebuild: leave broken logs out"},
      {"decode", 0, DJ_OPT_FLAG, &o.decode, NULL, "check: decode every frame"},
      {0}};
  int n;
  char **pos;
  int rc = dj__parse_options(argc, argv, list_of_options, help, &n, &pos);
  if (rc >= 0) return rc;
  if (n < 1) return bad_use("what to do is missing: ls, split, rebuild, check or rm");
  const char *verb = pos[0];
  bool rm = !strcmp(verb, "rm");
  if ((rc = unknown_verb(verb))) return rc;
  if (!o.store) return bad_use("--store DIR is missing");
  if (n > 1 && !rm) return bad_use("'%s' is one argument too many", pos[1]);
  if (n < 2 && rm) return bad_use("rm: which drives?");
  if (!strcmp(verb, "rebuild")) return rebuild(&o);
  dj_store *s;
  dj_status st = dj_store_open(o.store, DJ_STORE_EXISTING, &s);
  if (st) return dj__fail("store", st);
  if (!strcmp(verb, "ls"))
    rc = list(s, &o);
  else if (!strcmp(verb, "split"))
    rc = split(s, &o);
  else if (!strcmp(verb, "check"))
    rc = check(s, &o);
  else
    rc = remove_drives(s, n - 1, pos + 1);
  dj_store_close(s);
  return rc;
}
