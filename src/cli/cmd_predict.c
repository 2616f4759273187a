/* dojo predict: what a network saw, what it would do, what the driver did. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "dojo/drive.h"

static const char HELP[] =
    "Usage: dojo predict RUN [--store DIR] [--split test] [--out FILE.mp4] [--png FILE.png]\n\n"
    "Plays the run's network over a split and draws each frame: the recorded picture (what the\n"
    "network does not see of it is darker), what the network is given, the network's steering and\n"
    "path in blue, the driver's in amber, and both over time. The shaded band is the scale of the\n"
    "Laplacian that the network says with each value: half of all errors should lie within 0.7 of\n"
    "it. --png writes nine moments and the whole split over time on one sheet.\n\n"
    "The video plays at the recorded rate. Files that are there already are replaced, when the\n"
    "new ones are whole.\n\n"
    "Example:\n"
    "  dojo predict R --store S --split test --out overlay.mp4 --png overlay.png\n";

static void print_json(const dj_drive_predict_options *o, const dj_drive_predict_report *r,
                       const char *split) {
  json_t *root = json_object();
  if (o->video) json_object_set_new(root, "video", json_string(o->video));
  if (o->sheet) json_object_set_new(root, "sheet", json_string(o->sheet));
  json_object_set_new(root, "split", json_string(split));
  json_object_set_new(root, "step", json_integer((json_int_t)r->step));
  json_object_set_new(root, "frames", json_integer((json_int_t)r->frames));
  json_object_set_new(root, "fps", json_real(r->fps));
  json_object_set_new(root, "steering_mae",
                      isfinite(r->steering_mae) ? json_real(r->steering_mae) : json_null());
  json_object_set_new(root, "seconds", json_real(r->seconds));
  (void)json_dumpf(root, stdout, JSON_INDENT(2));
  (void)puts("");
  json_decref(root);
}

static void print_text(const dj_drive_predict_options *o, const dj_drive_predict_report *r) {
  (void)printf("%llu frames in %.1f s", (unsigned long long)r->frames, r->seconds);
  if (isfinite(r->steering_mae)) (void)printf(", steering MAE %.4f", r->steering_mae);
  (void)puts("");
  if (o->video) (void)printf("video  %s  (%.4g frames a second)\n", o->video, r->fps);
  if (o->sheet) (void)printf("sheet  %s\n", o->sheet);
}

int dj__cmd_predict(int argc, char **argv) {
  const char *store = NULL, *split = "test", *checkpoint = "best";
  dj_drive_predict_options o = {0};
  int64_t threads = 0, limit = 0;
  bool json = false;
  const dj__option options[] = {
      {"store", 'S', DJ_OPT_STRING, &store, "DIR", "the store; the one trained on if not given"},
      {"split", 0, DJ_OPT_STRING, &split, "NAME", "train, validation or test (default)"},
      {"out", 'o', DJ_OPT_STRING, &o.video, "FILE", "the video to write, *.mp4"},
      {"png", 0, DJ_OPT_STRING, &o.sheet, "FILE", "the contact sheet to write, *.png"},
      {"limit", 0, DJ_OPT_INT, &limit, "N", "the first N frames alone; all if not given"},
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
    return dj__fail(command,
                    dj_error(DJ_E_INVALID, "needs one RUN folder; see dojo predict --help"));
  dj_status s = dj__cli_split_and_checkpoint(split, checkpoint, &o.checkpoint);
  if (s) return dj__fail(command, s);
  if (threads < 0 || threads > 1024)
    return dj__fail(command,
                    dj_error(DJ_E_INVALID, "--threads is 0 to 1024, not %lld", (long long)threads));
  if (limit < 0)
    return dj__fail(command,
                    dj_error(DJ_E_INVALID, "--limit is 1 or more, not %lld", (long long)limit));
  o.threads = (int)threads;
  o.limit = (uint64_t)limit;
  dj_drive_predict_report report;
  s = dj_drive_predict(pos[0], store, split, &o, &report);
  dj__cli_progress_end();
  if (s) return dj__fail(command, s);
  if (json)
    print_json(&o, &report, split);
  else
    print_text(&o, &report);
  return 0;
}
