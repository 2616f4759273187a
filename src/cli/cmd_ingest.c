/* dojo ingest: a recorded drive into a store. */
#include <jansson.h>
#include <stdio.h>

#include "cli/cli.h"
#include "dojo/ingest.h"

static const char HELP[] =
    "Usage: dojo ingest SOURCE --store DIR [--format F] [--name N] [--keep-going] [--json]\n\n"
    "Imports a recorded drive into a store (made when missing). The format is found by looking at "
    "the\n"
    "source; a folder that holds several drives imports them all. Importing the same source again\n"
    "changes nothing; an interrupted import is simply run again.\n\n"
    "Formats: donkeycar, udacity, kitti, comma2k19, video-csv, dojo (logs of dojo world record, or "
    "of\n"
    "another store); synth:SEED[:FRAMES] makes a "
    "drive.\n\n"
    "Example:\n"
    "  dojo ingest ~/mycar/data --store S\n"
    "  dojo ingest synth:7:2000 --store S\n";

static const char *outcome(dj_ingest_outcome o) {
  return o == DJ_INGEST_IMPORTED        ? "imported"
         : o == DJ_INGEST_ALREADY_THERE ? "already there"
                                        : "failed";
}

static json_t *labels_json(uint32_t labels) {
  json_t *list = json_array();
  for (int i = 0; i < DJ_N_LABELS; i++)
    if (labels & 1u << i) json_array_append_new(list, json_string(dj_label_name(i)));
  return list;
}

static void print_json(const dj_ingest_report *r) {
  json_t *drives = json_array();
  for (size_t i = 0; i < r->n_drives; i++) {
    const dj_ingest_drive *d = &r->drives[i];
    json_array_append_new(
        drives,
        json_pack(
            "{s:s, s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:f, s:b, s:b, s:b, s:o, s:s}",
            "name", d->name, "format", d->format, "source", d->source, "digest", d->digest,
            "outcome", outcome(d->outcome), "cameras", d->n_cameras, "frames",
            (json_int_t)d->n_frames, "controls", (json_int_t)d->n_controls, "speeds",
            (json_int_t)d->n_speeds, "poses", (json_int_t)d->n_poses, "skipped",
            (json_int_t)d->n_skipped, "seconds", d->duration_s, "control",
            (d->labels & DJ_LABEL_CONTROL) != 0, "speed", (d->labels & DJ_LABEL_SPEED) != 0, "path",
            (d->labels & DJ_LABEL_PATH) != 0, "labels", labels_json(d->labels), "error", d->error));
  }
  json_t *root =
      json_pack("{s:o, s:I, s:I, s:I}", "drives", drives, "imported", (json_int_t)r->n_imported,
                "already_there", (json_int_t)r->n_already_there, "failed", (json_int_t)r->n_failed);
  (void)json_dumpf(root, stdout, JSON_INDENT(2));
  (void)puts("");
  json_decref(root);
}

static void print_text(const dj_ingest_report *r) {
  for (size_t i = 0; i < r->n_drives; i++) {
    const dj_ingest_drive *d = &r->drives[i];
    char labels[128];
    (void)printf("%s: %s (%s, %llu frames, %.1f s, labels: %s)", d->name[0] ? d->name : d->source,
                 outcome(d->outcome), d->format, (unsigned long long)d->n_frames, d->duration_s,
                 dj_label_list(d->labels, " ", labels, sizeof labels));
    if (d->n_skipped) (void)printf(", %llu records skipped", (unsigned long long)d->n_skipped);
    (void)puts("");
  }
}

int dj__cmd_ingest(int argc, char **argv) {
  dj_ingest_options o = {0};
  bool json = false;
  const dj__option options[] = {
      {"store", 'S', DJ_OPT_STRING, &o.store, "DIR", "the store"},
      {"format", 0, DJ_OPT_STRING, &o.format, "F",
       "format of the source; found by looking if not given"},
      {"name", 0, DJ_OPT_STRING, &o.name, "N", "name of the drive in the store"},
      {"keep-going", 0, DJ_OPT_FLAG, &o.keep_going, NULL, "count and skip broken records"},
      {"json", 0, DJ_OPT_FLAG, &json, NULL, "machine-readable report on stdout"},
      {0}};
  int npos;
  char **pos;
  const char *command = argv[0];
  int rc = dj__parse_options(argc, argv, options, HELP, &npos, &pos);
  if (rc >= 0) return rc;
  if (npos != 1 || !o.store)
    return dj__fail(command,
                    dj_error(DJ_E_INVALID, "needs one SOURCE and --store; see dojo ingest --help"));
  dj_ingest_report r;
  dj_status s = dj_ingest(pos[0], &o, &r);
  dj__cli_progress_end();
  char text[2048];
  (void)snprintf(text, sizeof text, "%s", dj_error_message());
  if (json)
    print_json(&r);
  else
    print_text(&r);
  size_t failed = r.n_failed;
  dj_ingest_report_free(&r);
  if (s) return dj__fail(command, dj_error(s, "%s", text));
  return failed ? 1 : 0;
}
