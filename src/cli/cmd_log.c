/* dojo log: looks into MCAP logs, ours or anybody's. This file chooses the verb and holds the two
 * that look for damage and mend it; info and cat have files of their own. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "cli/cli.h"
#include "cli/log.h"
#include "cli/log_json.h"
#include "dojo/mcap.h"

static const char HELP[] =
    "Usage: dojo log VERB FILE.mcap [options]     dojo log VERB --help shows an example\n\n"
    "  info      what a log holds: channels, rates, gaps, chunks, attachments, metadata\n"
    "  check     reads every byte: structure, checksums, indexes, times, counts\n"
    "  cat       messages as lines of JSON\n"
    "  recover   a new, whole log with everything that can be read of a damaged one\n\n"
    "Logs are MCAP: those that `dojo ingest` writes, and any other.\n\n"
    "Example:\n"
    "  dojo log info S/logs/tub-1.mcap\n"
    "  dojo log cat S/logs/tub-1.mcap --topics /vehicle/control --limit 3\n";

int dj__log_bad_use(const char *command, const char *text, const char *value) {
  (void)fprintf(stderr, "dojo %s: %s", command, text);
  if (value) (void)fprintf(stderr, " '%s'", value);
  (void)fprintf(stderr, "; see dojo %s --help\n", command);
  return dj_exit_code(DJ_E_INVALID);
}

int dj__log_print_json(const char *command, json_t *report) {
  char *text = report ? json_dumps(report, JSON_INDENT(2)) : NULL;
  json_decref(report);
  if (!text) return dj__fail(command, dj_error(DJ_E_NOMEM, "no memory for a report"));
  (void)puts(text);
  free(text);
  return 0;
}

// ---- problems, as the checker and the rescuer tell them ----

typedef struct problems {
  const char *path;
  FILE *out;    // lines; NULL: into `list`
  json_t *list; // of {offset, text}
} problems;

static void tell(void *user, uint64_t offset, const char *text) {
  const problems *p = user;
  char line[600];
  (void)dj__printable(line, sizeof line, text);
  if (p->out)
    (void)fprintf(p->out, "%s: byte %" PRIu64 ": %s\n", p->path, offset, line);
  else
    (void)json_array_append_new(p->list, json_pack("{s:o,s:o}", "offset", dj__json_u64(offset),
                                                   "text", dj__json_text(line)));
}

// ---- check ----

static const char CHECK_HELP[] =
    "Usage: dojo log check FILE.mcap... [--json]\n\n"
    "Reads every byte once and tells each fault with its place in the file: framing, checksums of\n"
    "chunks, attachments, data section and summary, message and chunk indexes against what they\n"
    "point to, times, counts, definitions. The exit code is 0 only when there is none (5: there "
    "is\n"
    "one). A fault inside of a chunk is told at the chunk's place.\n\n"
    "Example:\n"
    "  dojo log check S/logs/*.mcap && echo all whole\n";

static int check_file(const char *command, const char *path, bool json, json_t *reports) {
  problems p = {.path = path, .out = json ? NULL : stdout, .list = json ? json_array() : NULL};
  dj_mcap_check_report r;
  dj_status s = dj_mcap_check(path, NULL, tell, &p, &r);
  if (s) {
    json_decref(p.list);
    return dj__fail(command, s);
  }
  if (json) {
    (void)json_array_append_new(
        reports, json_pack("{s:o,s:b,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "file", dj__json_text(path),
                           "ok", r.problems == 0, "bytes", dj__json_u64(r.bytes), "records",
                           dj__json_u64(r.records), "messages", dj__json_u64(r.messages), "chunks",
                           dj__json_u64(r.chunks), "attachments", dj__json_u64(r.attachments),
                           "metadata", dj__json_u64(r.metadata), "problem_count",
                           dj__json_u64(r.problems), "problems", p.list));
  } else {
    if (r.problems > DJ_MCAP_MAX_TOLD)
      (void)printf("%s: ... and %" PRIu64 " more\n", path, r.problems - DJ_MCAP_MAX_TOLD);
    (void)printf("%s: %s, %" PRIu64 " problem%s (%" PRIu64 " bytes, %" PRIu64 " records, %" PRIu64
                 " messages, %" PRIu64 " chunks)\n",
                 path, r.problems ? "damaged" : "whole", r.problems, r.problems == 1 ? "" : "s",
                 r.bytes, r.records, r.messages, r.chunks);
  }
  return r.problems ? dj_exit_code(DJ_E_FORMAT) : 0;
}

int dj__log_check(int argc, char **argv) {
  bool json = false;
  const dj__option options[] = {
      {"json", 0, DJ_OPT_FLAG, &json, NULL, "machine-readable report on stdout"}, {0}};
  int n, rc;
  char **files;
  const char *command = argv[0];
  if ((rc = dj__parse_options(argc, argv, options, CHECK_HELP, &n, &files)) >= 0) return rc;
  if (n < 1) return dj__log_bad_use(command, "which log?", NULL);
  json_t *reports = json_array();
  int worst = 0;
  for (int i = 0; i < n; i++) { // all of them, whatever is found
    rc = check_file(command, files[i], json, reports);
    if (rc) worst = rc;
  }
  if (json && json_array_size(reports) > 0) {
    rc = dj__log_print_json(command, json_incref(n == 1 ? json_array_get(reports, 0) : reports));
    if (rc) worst = rc;
  }
  json_decref(reports);
  return worst;
}

// ---- recover ----

static const char RECOVER_HELP[] =
    "Usage: dojo log recover FILE.mcap [--out NEW.mcap] [--force] [--json]\n\n"
    "Writes a new, whole log with everything that can be read of one that was cut or damaged:\n"
    "every complete chunk, the first messages of a cut one, attachments and metadata, with new\n"
    "indexes and checksums. FILE itself is never changed. The new log appears under its name only\n"
    "when it is whole. What was lost is told with its place; the exit code is 0 when a log was\n"
    "written. A bit that flipped inside of a chunk costs that chunk.\n\n"
    "Example:\n"
    "  dojo log recover drive.mcap            # writes drive.recovered.mcap\n";

// "x.mcap" -> "x.recovered.mcap"; free().
static char *recovered_name(const char *path) {
  size_t n = strlen(path);
  if (n > 5 && !strcmp(path + n - 5, ".mcap")) n -= 5;
  return dj__strf("%.*s.recovered.mcap", (int)n, path);
}

static int report_rescue(const char *command, const char *in, const char *out,
                         const dj_mcap_recover_report *r, json_t *list) {
  if (list)
    return dj__log_print_json(
        command,
        json_pack("{s:o,s:o,s:b,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "file",
                  dj__json_text(in), "out", dj__json_text(out), "complete", r->complete, "bytes_in",
                  dj__json_u64(r->bytes_in), "bytes_lost", dj__json_u64(r->bytes_lost),
                  "messages_saved", dj__json_u64(r->messages_saved), "messages_lost",
                  dj__json_u64(r->messages_lost), "chunks_saved", dj__json_u64(r->chunks_saved),
                  "chunks_lost", dj__json_u64(r->chunks_lost), "attachments_saved",
                  dj__json_u64(r->attachments_saved), "attachments_lost",
                  dj__json_u64(r->attachments_lost), "metadata_saved",
                  dj__json_u64(r->metadata_saved), "problems", json_incref(list)));
  (void)printf("%s: %s\n", out,
               r->complete ? "complete, nothing is lost" : "rescued from a damaged log");
  (void)printf("  saved  %" PRIu64 " messages, %" PRIu64 " chunks, %" PRIu64
               " attachments, %" PRIu64 " metadata records\n",
               r->messages_saved, r->chunks_saved, r->attachments_saved, r->metadata_saved);
  if (r->complete) return 0;
  (void)printf("  lost   %" PRIu64 " of %" PRIu64 " bytes: %" PRIu64
               " chunks (wholly or in part), %" PRIu64 " attachments",
               r->bytes_lost, r->bytes_in, r->chunks_lost, r->attachments_lost);
  if (r->messages_lost) (void)printf(", at least %" PRIu64 " messages", r->messages_lost);
  (void)puts("");
  return 0;
}

int dj__log_recover(int argc, char **argv) {
  bool json = false, force = false;
  const char *out = NULL, *command = argv[0];
  const dj__option options[] = {
      {"out", 'o', DJ_OPT_STRING, &out, "FILE", "the new log (FILE.recovered.mcap)"},
      {"force", 'f', DJ_OPT_FLAG, &force, NULL, "replace the new log where there is one"},
      {"json", 0, DJ_OPT_FLAG, &json, NULL, "machine-readable report on stdout"},
      {0}};
  int n, rc;
  char **files;
  if ((rc = dj__parse_options(argc, argv, options, RECOVER_HELP, &n, &files)) >= 0) return rc;
  if (n < 1) return dj__log_bad_use(command, "which log?", NULL);
  if (n > 1) return dj__log_bad_use(command, "one log at a time; what is", files[1]);
  char *own = out ? NULL : recovered_name(files[0]);
  if (!out) out = own;
  dj_status s = DJ_OK;
  if (!force && dj__exists(out))
    s = dj_error(DJ_E_EXISTS, "%s is there already; --force replaces it, --out takes another name",
                 out);
  problems p = {.path = files[0], .out = json ? NULL : stderr, .list = json ? json_array() : NULL};
  dj_mcap_recover_report r;
  if (!s) s = dj_mcap_recover(files[0], out, NULL, tell, &p, &r);
  rc = s ? dj__fail(command, s) : report_rescue(command, files[0], out, &r, p.list);
  json_decref(p.list);
  free(own);
  return rc;
}

// ---- the verbs ----

static const struct {
  const char *name;
  char *full; // what argv[0] of the verb is
  int (*run)(int argc, char **argv);
} verbs[] = {{"info", "log info", dj__log_info},
             {"check", "log check", dj__log_check},
             {"cat", "log cat", dj__log_cat},
             {"recover", "log recover", dj__log_recover}};
enum { N_VERBS = sizeof verbs / sizeof *verbs };

int dj__cmd_log(int argc, char **argv) {
  if (argc < 2)
    return dj__log_bad_use("log", "what to do is missing: info, check, cat or recover", NULL);
  if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
    (void)fputs(HELP, stdout);
    return 0;
  }
  const char *near = verbs[0].name;
  int best = 100;
  for (int i = 0; i < N_VERBS; i++) {
    if (!strcmp(argv[1], verbs[i].name)) {
      argv[1] = verbs[i].full;
      return verbs[i].run(argc - 1, argv + 1);
    }
    int d = dj__edit_distance(argv[1], verbs[i].name);
    if (d < best) {
      best = d;
      near = verbs[i].name;
    }
  }
  (void)fprintf(stderr, "dojo log: unknown '%s'; did you mean '%s'?\n", argv[1], near);
  return dj_exit_code(DJ_E_INVALID);
}
