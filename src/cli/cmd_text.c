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
#include "dojo/log.h"
#include "dojo/text.h"

static const char HELP[] =
    "Usage: dojo text encode [FILE] --merges vocab.bpe        text to token ids, separated by "
    "spaces\n"
    "       dojo text decode [FILE] --merges vocab.bpe        and back, to the same bytes\n"
    "       dojo text pack FILE... --merges vocab.bpe --out tokens.safetensors\n"
    "       dojo text pack FILE... --characters --out tokens.safetensors\n\n"
    "FILE may be - or be left out: standard input. --merges is GPT-2's list of byte pairs "
    "(vocab.bpe or\n"
    "merges.txt); without it a token is a byte, or with --characters each character of the files. "
    "Bytes\n"
    "and pairs take any input, UTF-8 or not. `pack` makes what `dojo train --tokens` reads: the "
    "tensor\n"
    "\"tokens\" (N) i32, with the end-of-text token behind each file, and the tokeniser.\n\n"
    "Example:\n"
    "  echo -n 'Hello world' | dojo text encode --merges gpt2/vocab.bpe     # 15496 995\n"
    "  dojo text pack books/*.txt --merges gpt2/vocab.bpe --out books.safetensors\n";

enum { MAX_TEXT = 1 << 30 };

typedef struct options {
  const char *merges, *out;
  bool json, characters;
} options;

static dj_status open_tokenizer(const options *o, dj_tokenizer **t) {
  return o->merges ? dj_tokenizer_open_bpe(o->merges, t) : dj_tokenizer_open_bytes(t);
}

/* A file, or standard input for "-"; free() it. */
static dj_status read_text(const char *path, char **text, size_t *size) {
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
  DJ_TRY(read_text(path, &text, &size));
  dj_status s = dj_tokenizer_encode(t, text, size, &ids, &n);
  for (size_t i = 0; i < n; i++) (void)printf(i ? " %d" : "%d", ids[i]);
  if (!s) (void)puts("");
  free(ids);
  free(text);
  return s;
}

static dj_status decode(const dj_tokenizer *t, const char *path) {
  char *text = NULL, *back = NULL;
  size_t size, bytes = 0;
  DJ_TRY(read_text(path, &text, &size));
  dj__buf ids = {0};
  dj_status s = DJ_OK;
  for (char *p = text + strspn(text, " \t\r\n"); *p && !s; p += strspn(p, " \t\r\n")) {
    char *end;
    errno = 0;
    long v = strtol(p, &end, 10);
    if (end == p || errno || v < 0 || v > INT32_MAX || (*end && !strchr(" \t\r\n", *end))) {
      s = dj_error(DJ_E_FORMAT, "%s: byte %zu: '%.20s' is no token id", path, (size_t)(p - text),
                   p);
    } else {
      int32_t id = (int32_t)v;
      dj__buf_put(&ids, &id, sizeof id);
      p = end;
    }
  }
  if (!s)
    s = dj_tokenizer_decode(t, (const int32_t *)(const void *)ids.data, ids.size / sizeof(int32_t),
                            &back, &bytes);
  if (!s && fwrite(back, 1, bytes, stdout) != bytes) s = dj_error_errno("cannot write");
  dj__buf_free(&ids);
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
  DJ_TRY(read_text(path, &text, &size));
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
    s = read_text(paths[i], &text, &size);
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

static dj_status pack(dj_tokenizer *t, char **paths, int n, const options *o) {
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

int dj__cmd_text(int argc, char **argv) {
  options o = {0};
  const dj__option list[] = {
      {"merges", 'm', DJ_OPT_STRING, &o.merges, "FILE", "GPT-2's byte pairs; bytes if not given"},
      {"characters", 'c', DJ_OPT_FLAG, &o.characters, NULL, "pack: a token is a character"},
      {"out", 'o', DJ_OPT_STRING, &o.out, "FILE", "pack: the file of tokens, *.safetensors"},
      {"json", 0, DJ_OPT_FLAG, &o.json, NULL, "pack: machine-readable report on stdout"},
      {0}};
  int n;
  char **pos;
  const char *command = argv[0];
  int rc = dj__parse_options(argc, argv, list, HELP, &n, &pos);
  if (rc >= 0) return rc;
  static const char *const verbs[] = {"encode", "decode", "pack"};
  int verb = 0;
  while (n && verb < 3 && strcmp(pos[0], verbs[verb]) != 0) verb++;
  if (!n || verb == 3) {
    const char *near = n ? dj__nearest(pos[0], verbs, 3) : NULL;
    return dj__fail(command,
                    near ? dj_error(DJ_E_INVALID, "unknown '%s'; did you mean '%s'?", pos[0], near)
                         : dj_error(DJ_E_INVALID, "what to do is missing: encode, decode or "
                                                  "pack; see dojo text --help"));
  }
  if (verb == 2 && n < 2)
    return dj__fail(command, dj_error(DJ_E_INVALID, "pack: which files? see dojo text --help"));
  if (verb < 2 && n > 2)
    return dj__fail(command, dj_error(DJ_E_INVALID, "'%s' is one argument too many", pos[2]));
  if (verb == 2 && !o.out)
    return dj__fail(command, dj_error(DJ_E_INVALID, "pack: give a file to write: --out "
                                                    "FILE.safetensors"));
  if (o.characters && (verb != 2 || o.merges))
    return dj__fail(command, dj_error(DJ_E_INVALID, "--characters goes with pack, and not with "
                                                    "--merges"));
  dj_tokenizer *t = NULL;
  dj_status s = o.characters ? open_characters(pos + 1, n - 1, &t) : open_tokenizer(&o, &t);
  if (s) return dj__fail(command, s);
  const char *path = n > 1 ? pos[1] : "-";
  s = verb == 0 ? encode(t, path) : verb == 1 ? decode(t, path) : pack(t, pos + 1, n - 1, &o);
  dj_tokenizer_close(t);
  return s ? dj__fail(command, s) : 0;
}
