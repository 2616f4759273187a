/*
 * The program's commands. One file each (cmd_NAME.c) with one `int dj__cmd_NAME(int argc, char
 * **argv)`; argv[0] is the command's name. Returns the exit code. Errors go to stderr as "dojo
 * NAME: message".
 */
#ifndef DOJO_CLI_H
#define DOJO_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/text.h"
#include "dojo/status.h"
#include "dojo/train.h"

/* X(name, C identifier, one-line summary) */
#define DJ_COMMANDS(X)                                                                             \
  X("ingest", ingest, "import a recorded drive into a store")                                      \
  X("store", store, "list, check and rebuild a store of drives")                                   \
  X("train", train, "train a network from a recipe, or go on with a run")                          \
  X("eval", eval, "score a run on a split, beside baselines")                                      \
  X("predict", predict, "write a video of what a network sees and would do")                       \
  X("drive", drive, "let a driver drive in the world, scored")                                     \
  X("runs", runs, "list and compare runs")                                                         \
  X("world", world, "record drives in a generated world; look at towns and suites")                \
  X("report", report, "one page of runs, scores of drives, pictures and videos")                   \
  X("log", log, "look into MCAP logs: info, check, cat, recover")                                  \
  X("text", text, "tokens from text and back; files of tokens for training")                       \
  X("ops", ops, "the op table: gradients, backends, kernels")                                      \
  X("bench", bench, "time kernels and networks")

#define DJ_X(name, id, text) int dj__cmd_##id(int argc, char **argv);
DJ_COMMANDS(DJ_X)
#undef DJ_X

/*
 * Option parsing shared by the commands, so that all behave alike:
 *
 *     const char *store = NULL; bool json = false;
 *     const dj__option options[] = {
 *         {"store", 'S', DJ_OPT_STRING, &store, "DIR", "the store"},
 *         {"json", 0, DJ_OPT_FLAG, &json, NULL, "machine-readable report on stdout"},
 *         {0}};
 *     int npos; char **pos;      // positional arguments
 *     int rc = dj__parse_options(argc, argv, options, HELP, &npos, &pos);
 *     if (rc >= 0) return rc;    // --help printed (0) or bad use (2)
 *
 * Long options take "--name value" or "--name=value"; "--" ends options. An unknown option names
 * the nearest known one. `help` is the text above the option list: usage, what it does, an example.
 */
typedef enum dj__option_type {
  DJ_OPT_FLAG,   // bool *
  DJ_OPT_STRING, // const char **
  DJ_OPT_INT,    // int64_t *
  DJ_OPT_DOUBLE  // double *
} dj__option_type;

typedef struct dj__option {
  const char *name;
  char letter; // 0: none
  dj__option_type type;
  void *target;
  const char *value; // name of the value in help; NULL for flags
  const char *help;
} dj__option;

int dj__parse_options(int argc, char **argv, const dj__option *options, const char *help, int *npos,
                      char ***pos);

/* Prints "dojo COMMAND: message of the last failure" to stderr; returns the exit code of `s`. */
int dj__fail(const char *command, dj_status s);

/* Checks --split (train, validation, test) and --checkpoint (best, last). */
dj_status dj__cli_split_and_checkpoint(const char *split, const char *checkpoint,
                                       dj_checkpoint_which *which);

/* Installs the terminal progress line (plain lines when stderr is no terminal) and the log sink. */
void dj__cli_init(void);
/* Ends a progress line that is still open. */
void dj__cli_progress_end(void);

#endif
