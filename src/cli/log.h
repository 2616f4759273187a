/* The verbs of `dojo log`, one file each; cmd_log.c chooses. argv[0] is "log VERB". */
#ifndef DOJO_CLI_LOG_H
#define DOJO_CLI_LOG_H

#include <jansson.h>

int dj__log_info(int argc, char **argv);
int dj__log_check(int argc, char **argv);
int dj__log_cat(int argc, char **argv);
int dj__log_recover(int argc, char **argv);

/* "dojo log VERB: TEXT 'VALUE'; see dojo log VERB --help" on stderr; the exit code of bad use. */
int dj__log_bad_use(const char *command, const char *text, const char *value);
/* Prints a report and frees it; NULL is memory that is out. Returns 0 or an exit code. */
int dj__log_print_json(const char *command, json_t *report);

#endif
