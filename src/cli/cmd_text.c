/* dojo text: tokens from text, text from tokens, and files of tokens for training. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/fs.h"
#include "cli/cli.h"
#include "cli/cmd_text.h"
#include "dojo/log.h"

static const char HELP[] =
    "Usage: dojo text encode [FILE] [--merges M]              text to token ids\n"
    "       dojo text decode [FILE] [--merges M]              and back, to the same bytes\n"
    "       dojo text pack FILE... [--merges M | --characters] --out TOKENS\n"
    "       dojo text generate R [--prompt TEXT] [--n N] [--temperature T] [--top-k K] [--top-p "
    "P]\n"
    "       dojo text score R [FILE]                          loss of a text\n"
    "       dojo text import DIR --out R [--tokens TOKENS]    GPT-2 or Llama, as transformers "
    "writes it\n"
    "       dojo text export R --out DIR                      and back\n\n"
    "FILE may be - or be left out: standard input. M is GPT-2's list of byte pairs (vocab.bpe or\n"
    "merges.txt); without it a token is a byte, or with --characters each character of the files.\n"
    "Bytes and pairs take any input, UTF-8 or not. `pack` makes what `dojo train --tokens` reads: "
    "the\n"
    "tensor \"tokens\" (N) i32, with the end-of-text token behind each file, and the tokeniser. R "
    "is\n"
    "the folder of a run. `generate` streams what the model writes; a text that outgrows the "
    "context\n"
    "goes on from its last half. docs/text.md says more.\n\n"
    "Examples:\n"
    "  echo -n 'Hello world' | dojo text encode --merges gpt2/vocab.bpe     # 15496 995\n"
    "  dojo text pack input.txt --characters --out t.safetensors\n"
    "  dojo train recipes/shakespeare.yaml --tokens t.safetensors --out R\n"
    "  dojo text generate R --prompt 'ROMEO:' --n 300 --temperature 0.8\n";

enum { MAX_TEXT = 1 << 30 };

static dj_status open_tokenizer(const dj__text_options *o, dj_tokenizer **t) {
  return o->merges ? dj_tokenizer_open_bpe(o->merges, t) : dj_tokenizer_open_bytes(t);
}

dj_status dj__text_read(const char *path, char **text, size_t *size) {
  if (strcmp(path, "-") != 0) return dj__read_file(path, MAX_TEXT, text, size);
  dj__buf b = {0};
  char piece[1 << 16];
  size_t n;
  while ((n = fread(piece, 1, sizeof piece, stdin)) > 0 && b.size <= MAX_TEXT)
    dj__buf_put(&b, piece, n);
  dj_status s = DJ_OK;
  if (ferror(stdin))
    s = dj_error_errno("standard input: cannot read");
  else if (b.size > MAX_TEXT)
    s = dj_error(DJ_E_LIMIT, "standard input: over %d bytes; cut it into files", MAX_TEXT);
  dj__buf_put(&b, "", 1);
  if (!s && b.failed) s = dj_error(DJ_E_NOMEM, "standard input: no memory");
  if (s) {
    dj__buf_free(&b);
    return s;
  }
  *text = (char *)b.data;
  *size = b.size - 1;
  return DJ_OK;
}

static dj_status encode(dj_tokenizer *t, const char *path) {
  char *text = NULL;
  size_t size, n = 0;
  int32_t *ids = NULL;
  DJ_TRY(dj__text_read(path, &text, &size));
  dj_status s = dj_tokenizer_encode(t, text, size, &ids, &n);
  for (size_t i = 0; i < n; i++) (void)printf(i ? " %d" : "%d", ids[i]);
  if (!s) (void)puts("");
  free(ids);
  free(text);
  return s;
}

dj_status dj__text_parse_ids(const char *text, const char *what, int32_t **out, size_t *n) {
  dj__buf ids = {0};
  (void)dj__buf_extend(&ids, 1); // something to free even where there are none
  ids.size = 0;
  for (const char *p = text + strspn(text, " \t\r\n"); *p; p += strspn(p, " \t\r\n")) {
    char *end;
    errno = 0;
    long v = strtol(p, &end, 10);
    if (end == p || errno || v < 0 || v > INT32_MAX || (*end && !strchr(" \t\r\n", *end))) {
      dj__buf_free(&ids);
      return dj_error(DJ_E_FORMAT, "%s: byte %zu: '%.20s' is no token id", what, (size_t)(p - text),
                      p);
    }
    int32_t id = (int32_t)v;
    dj__buf_put(&ids, &id, sizeof id);
    p = end;
  }
  if (ids.failed) {
    dj__buf_free(&ids);
    return dj_error(DJ_E_NOMEM, "%s: no memory", what);
  }
  *out = (int32_t *)(void *)ids.data;
  *n = ids.size / sizeof **out;
  return DJ_OK;
}

static dj_status decode(const dj_tokenizer *t, const char *path) {
  char *text = NULL, *back = NULL;
  size_t size, bytes = 0, n = 0;
  int32_t *ids = NULL;
  DJ_TRY(dj__text_read(path, &text, &size));
  dj_status s = dj__text_parse_ids(text, path, &ids, &n);
  if (!s) s = dj_tokenizer_decode(t, ids, n, &back, &bytes);
  if (!s && fwrite(back, 1, bytes, stdout) != bytes) s = dj_error_errno("cannot write");
  free(ids);
  free(back);
  free(text);
  return s;
}

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static dj_status pack_file(dj_tokenizer *t, const char *path, dj__buf *tokens, uint64_t *bytes) {
  char *text;
  size_t size, n;
  int32_t *ids;
  DJ_TRY(dj__text_read(path, &text, &size));
  dj_status s = dj_tokenizer_encode(t, text, size, &ids, &n);
  free(text);
  if (s) return dj_error_context(s, "%s", path);
  int32_t end = dj_tokenizer_end(t);
  dj__buf_put(tokens, ids, n * sizeof *ids);
  if (end >= 0) dj__buf_put(tokens, &end, sizeof end);
  free(ids);
  *bytes += size;
  return tokens->failed ? dj_error(DJ_E_NOMEM, "%s: no memory for its tokens", path) : DJ_OK;
}

/* The characters of all files. */
static dj_status open_characters(char **paths, int n, dj_tokenizer **t) {
  dj__buf all = {0};
  dj_status s = DJ_OK;
  for (int i = 0; i < n && !s; i++) {
    char *text;
    size_t size;
    dj_tokenizer *one = NULL;
    s = dj__text_read(paths[i], &text, &size);
    if (s) break;
    s = dj_tokenizer_open_characters(text, size, paths[i], &one);
    const void *seen = s ? NULL : dj_tokenizer_source(one, &size);
    if (!s) dj__buf_put(&all, seen, size);
    dj_tokenizer_close(one);
    free(text);
  }
  if (!s) s = dj_tokenizer_open_characters(all.data, all.size, "the files' characters", t);
  dj__buf_free(&all);
  return s;
}

static dj_status pack(dj_tokenizer *t, char **paths, int n, const dj__text_options *o) {
  dj__buf tokens = {0};
  uint64_t bytes = 0;
  double from = now_s();
  dj_status s = DJ_OK;
  for (int i = 0; i < n && !s; i++) {
    s = pack_file(t, paths[i], &tokens, &bytes);
    dj_progress("packing", (uint64_t)i + 1, (uint64_t)n, "files", NULL);
  }
  double seconds = now_s() - from;
  uint64_t count = tokens.size / sizeof(int32_t);
  if (!s) s = dj_tokens_save(o->out, t, (const int32_t *)(const void *)tokens.data, count);
  dj__buf_free(&tokens);
  dj__cli_progress_end();
  if (s) return s;
  if (o->json) {
    json_t *j =
        json_pack("{s:s, s:I, s:I, s:I, s:f}", "out", o->out, "files", (json_int_t)n, "bytes",
                  (json_int_t)bytes, "tokens", (json_int_t)count, "seconds", seconds);
    (void)json_dumpf(j, stdout, JSON_INDENT(2));
    (void)puts("");
    json_decref(j);
  } else {
    (void)printf("%s: %llu tokens (of %d) from %.1f MB in %.2f s (%.1f MB/s)\n", o->out,
                 (unsigned long long)count, dj_tokenizer_size(t), (double)bytes * 1e-6, seconds,
                 seconds > 0 ? (double)bytes * 1e-6 / seconds : 0);
  }
  return DJ_OK;
}

typedef enum verb { ENCODE, DECODE, PACK, GENERATE, SCORE, IMPORT, EXPORT, N_VERBS } verb;
static const char *const verbs[N_VERBS] = {"encode", "decode", "pack",  "generate",
                                           "score",  "import", "export"};

static dj_status with_tokenizer(const dj__text_options *o, verb v, char **args, int n) {
  dj_tokenizer *t = NULL;
  if (v == PACK && n < 1) return dj_error(DJ_E_INVALID, "pack: which files? see dojo text --help");
  if (v == PACK && !o->out)
    return dj_error(DJ_E_INVALID, "pack: give a file to write: --out FILE.safetensors");
  if (o->characters && (v != PACK || o->merges))
    return dj_error(DJ_E_INVALID, "--characters goes with pack, and not with --merges");
  if (v != PACK && n > 1) return dj_error(DJ_E_INVALID, "'%s' is one argument too many", args[1]);
  DJ_TRY(o->characters ? open_characters(args, n, &t) : open_tokenizer(o, &t));
  const char *path = n ? args[0] : "-";
  dj_status s = v == ENCODE ? encode(t, path) : v == DECODE ? decode(t, path) : pack(t, args, n, o);
  dj_tokenizer_close(t);
  return s;
}

int dj__cmd_text(int argc, char **argv) {
  dj__text_options o = {.n = 200, .temperature = 1, .seed = 1};
  const dj__option list[] = {
      {"merges", 'm', DJ_OPT_STRING, &o.merges, "FILE", "GPT-2's byte pairs; bytes if not given"},
      {"characters", 'c', DJ_OPT_FLAG, &o.characters, NULL, "pack: a token is a character"},
      {"out", 'o', DJ_OPT_STRING, &o.out, "PATH", "pack: *.safetensors; import, export: a folder"},
      {"tokens", 'T', DJ_OPT_STRING, &o.tokens, "FILE", "import: what the run may train on"},
      {"prompt", 'p', DJ_OPT_STRING, &o.prompt, "TEXT", "generate: how it begins; - reads it"},
      {"n", 'n', DJ_OPT_INT, &o.n, "N", "generate: tokens to write (200)"},
      {"temperature", 't', DJ_OPT_DOUBLE, &o.temperature, "T",
       "generate: 0 takes the likeliest (1)"},
      {"top-k", 'k', DJ_OPT_INT, &o.top_k, "K", "generate: of the K likeliest tokens (all)"},
      {"top-p", 0, DJ_OPT_DOUBLE, &o.top_p, "P",
       "generate: of the likeliest with probability P (all)"},
      {"seed", 's', DJ_OPT_INT, &o.seed, "N", "generate: the same seed writes the same text (1)"},
      {"ids", 0, DJ_OPT_FLAG, &o.ids, NULL, "generate, score: token ids in place of text"},
      {"logits", 0, DJ_OPT_STRING, &o.logits, "FILE", "score: logits of the first window"},
      {"precision", 0, DJ_OPT_STRING, &o.precision, "P", "f32 or bf16 (the run's)"},
      {"backend", 0, DJ_OPT_STRING, &o.backend, "NAME", "cpu or ref (the run's)"},
      {"threads", 0, DJ_OPT_INT, &o.threads, "N", "threads (all cores)"},
      {"json", 0, DJ_OPT_FLAG, &o.json, NULL, "pack, generate, score: a report on stdout"},
      {0}};
  int n;
  char **pos;
  const char *command = argv[0];
  int rc = dj__parse_options(argc, argv, list, HELP, &n, &pos);
  if (rc >= 0) return rc;
  int v = 0;
  while (n && v < N_VERBS && strcmp(pos[0], verbs[v]) != 0) v++;
  if (!n || v == N_VERBS) {
    const char *near = n ? dj__nearest(pos[0], verbs, N_VERBS) : NULL;
    return dj__fail(command,
                    near ? dj_error(DJ_E_INVALID, "unknown '%s'; did you mean '%s'?", pos[0], near)
                         : dj_error(DJ_E_INVALID, "what to do is missing: encode, decode, pack, "
                                                  "generate, score, import or export; see dojo "
                                                  "text --help"));
  }
  dj_status s = v == GENERATE ? dj__text_generate(&o, pos + 1, n - 1)
                : v == SCORE  ? dj__text_score(&o, pos + 1, n - 1)
                : v == IMPORT ? dj__text_import(&o, pos + 1, n - 1)
                : v == EXPORT ? dj__text_export(&o, pos + 1, n - 1)
                              : with_tokenizer(&o, (verb)v, pos + 1, n - 1);
  return s ? dj__fail(command, s) : 0;
}
