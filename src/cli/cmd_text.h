/* `dojo text`: options of all its verbs, and those verbs that need a model (cmd_text_model.c). */
#ifndef DOJO_CLI_CMD_TEXT_H
#define DOJO_CLI_CMD_TEXT_H

#include <stdbool.h>

#include "dojo/text.h"

typedef struct dj__text_options {
  const char *merges, *out, *tokens, *prompt, *precision, *backend, *logits;
  int64_t n, top_k, seed, threads;
  double temperature, top_p;
  bool json, characters, ids;
} dj__text_options;

/* A file, or standard input for "-", with a NUL behind it; free() it. */
dj_status dj__text_read(const char *path, char **text, size_t *size);
/* Token ids separated by white space, malloc'ed. */
dj_status dj__text_parse_ids(const char *text, const char *what, int32_t **ids, size_t *n);

/* `args` are what follows the verb. */
dj_status dj__text_generate(const dj__text_options *o, char **args, int n);
dj_status dj__text_score(const dj__text_options *o, char **args, int n);
dj_status dj__text_import(const dj__text_options *o, char **args, int n);
dj_status dj__text_export(const dj__text_options *o, char **args, int n);

#endif
