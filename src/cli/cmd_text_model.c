/* dojo text generate, score, import, export: what needs a model. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/fs.h"
#include "cli/cli.h"
#include "cli/cmd_text.h"
#include "dojo/log.h"
#include "dojo/safetensors.h"

static double now_s(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The run's own tokeniser, or the one of --merges; with --ids none is needed: NULL. */
static dj_status open_tokenizer(const dj__text_options *o, const char *run, dj_tokenizer **t) {
  *t = NULL;
  if (o->merges) return dj_tokenizer_open_bpe(o->merges, t);
  char *path = dj__join(run, "tokenizer.safetensors");
  dj_status s = DJ_OK;
  if (dj__exists(path))
    s = dj_tokenizer_load(path, t);
  else if (!o->ids)
    s = dj_error(DJ_E_NOT_FOUND,
                 "%s: has no tokeniser; give GPT-2's merges with --merges, or token ids with --ids",
                 run);
  free(path);
  return s;
}

/* A model with its tokeniser and the tokens of a text. */
typedef struct session {
  dj_lm *model;
  dj_tokenizer *tokenizer; // may be NULL
  int32_t *ids;
  size_t n;
} session;

static void close_session(session *s) {
  dj_lm_close(s->model);
  dj_tokenizer_close(s->tokenizer);
  free(s->ids);
}

static dj_status open_session(const dj__text_options *o, const char *run, const char *text,
                              size_t size, session *s) {
  *s = (session){0};
  const dj_lm_options how = {
      .backend = o->backend, .precision = o->precision, .threads = (int)o->threads};
  if (o->threads < 0 || o->threads > 4096)
    return dj_error(DJ_E_INVALID, "--threads goes from 0 (all cores) to 4096");
  dj_status st = dj_lm_open(run, &how, &s->model);
  if (!st) st = open_tokenizer(o, run, &s->tokenizer);
  if (!st)
    st = o->ids ? dj__text_parse_ids(text, "the ids", &s->ids, &s->n)
                : dj_tokenizer_encode(s->tokenizer, text, size, &s->ids, &s->n);
  if (!st && s->tokenizer && dj_tokenizer_size(s->tokenizer) > dj_lm_vocabulary(s->model))
    st = dj_error(DJ_E_INVALID, "%s: the tokeniser has %d tokens, the model %d; is it another's?",
                  run, dj_tokenizer_size(s->tokenizer), dj_lm_vocabulary(s->model));
  if (st) close_session(s);
  return st;
}

static dj_status one_run(int n, const char *verb) {
  if (n == 1) return DJ_OK;
  return dj_error(DJ_E_INVALID, "%s: give one run's folder; see dojo text --help", verb);
}

// ---- generate ----------------------------------------------------------------------------------

/* What was written so far. */
typedef struct writing {
  dj__buf text; // bytes, for --json
  dj__buf ids;
  uint64_t n;
} writing;

static dj_status put(const dj__text_options *o, const session *s, int32_t id, writing *w) {
  dj__buf_put(&w->ids, &id, sizeof id);
  if (!s->tokenizer || o->ids) {
    if (!o->json) (void)printf(w->n ? " %" PRId32 : "%" PRId32, id);
  } else if (id < dj_tokenizer_size(s->tokenizer)) { // models are padded to round sizes
    char *text;
    size_t size;
    DJ_TRY(dj_tokenizer_decode(s->tokenizer, &id, 1, &text, &size));
    if (o->json)
      dj__buf_put(&w->text, text, size);
    else
      (void)fwrite(text, 1, size, stdout);
    free(text);
  }
  w->n++;
  return fflush(stdout) ? dj_error_errno("cannot write") : DJ_OK;
}

static dj_status write_tokens(const dj__text_options *o, session *s, writing *w) {
  const dj_sampling how = {.temperature = (float)o->temperature,
                           .top_k = (int)o->top_k,
                           .top_p = (float)o->top_p,
                           .seed = (uint64_t)o->seed};
  int32_t end = s->tokenizer ? dj_tokenizer_end(s->tokenizer) : -1;
  while (w->n < (uint64_t)o->n) {
    int32_t id = dj_lm_sample(s->model, &how, w->n);
    if (id == end) return DJ_OK;
    DJ_TRY(put(o, s, id, w));
    if (w->n < (uint64_t)o->n) DJ_TRY(dj_lm_feed(s->model, &id, 1));
  }
  return DJ_OK;
}

static dj_status report(const dj__text_options *o, const session *s, const writing *w,
                        double prompt_s, double write_s) {
  // The first token comes from the prompt's pass.
  double rate = w->n > 1 && write_s > 0 ? (double)(w->n - 1) / write_s : 0;
  if (!o->json) {
    (void)putchar('\n');
    dj_message(DJ_LOG_INFO, "%zu tokens read in %.2f s, %" PRIu64 " written at %.1f tokens/s", s->n,
               prompt_s, w->n, rate);
    return DJ_OK;
  }
  json_t *ids = json_array();
  for (uint64_t i = 0; i < w->n; i++)
    (void)json_array_append_new(ids, json_integer(((const int32_t *)(const void *)w->ids.data)[i]));
  json_t *text = s->tokenizer && !o->ids ? json_stringn((const char *)w->text.data, w->text.size)
                                         : NULL; // NULL too where the bytes are no UTF-8
  json_t *j = json_pack("{s:o, s:o, s:I, s:I, s:f, s:f}", "text", text ? text : json_null(), "ids",
                        ids, "prompt_tokens", (json_int_t)s->n, "tokens", (json_int_t)w->n,
                        "prompt_seconds", prompt_s, "tokens_per_second", rate);
  (void)json_dumpf(j, stdout, JSON_INDENT(2));
  (void)puts("");
  json_decref(j);
  return DJ_OK;
}

static dj_status check_sampling(const dj__text_options *o) {
  if (o->n >= 1 && o->n <= 100000000 && o->top_k >= 0 && o->top_k <= INT32_MAX &&
      o->temperature >= 0 && o->temperature <= 100 && o->top_p >= 0 && o->top_p <= 1 &&
      o->seed >= 0)
    return DJ_OK;
  return dj_error(DJ_E_INVALID,
                  "generate: --n from 1, --temperature 0 to 100, --top-k from 0, --top-p 0 to 1, "
                  "--seed from 0");
}

dj_status dj__text_generate(const dj__text_options *o, char **args, int n) {
  DJ_TRY(one_run(n, "generate"));
  DJ_TRY(check_sampling(o));
  const char *prompt = o->prompt ? o->prompt : o->ids ? "" : "\n";
  char *text = NULL;
  size_t size = strlen(prompt);
  if (!strcmp(prompt, "-")) {
    DJ_TRY(dj__text_read("-", &text, &size));
    prompt = text;
  }
  session s;
  writing w = {0};
  dj_status st = open_session(o, args[0], prompt, size, &s);
  free(text);
  if (st) return st;
  if (!s.n) st = dj_error(DJ_E_INVALID, "generate: the prompt is empty; give --prompt");
  double from = now_s();
  if (!st) st = dj_lm_feed(s.model, s.ids, s.n);
  double read = now_s();
  if (!st) st = write_tokens(o, &s, &w);
  if (!st) st = report(o, &s, &w, read - from, now_s() - read);
  dj__buf_free(&w.text);
  dj__buf_free(&w.ids);
  close_session(&s);
  return st;
}

// ---- score -------------------------------------------------------------------------------------

/* -log p of the token that followed, nats. */
static double loss_of(const float *logits, int v, int32_t next) {
  float max = logits[0];
  for (int i = 1; i < v; i++) max = logits[i] > max ? logits[i] : max;
  double sum = 0;
  for (int i = 0; i < v; i++) sum += exp((double)(logits[i] - max));
  return log(sum) + (double)max - (double)logits[next];
}

static dj_status save_logits(const char *path, const float *logits, size_t n, int v) {
  dj_st_tensor t = {
      .name = "logits", .dtype = DJ_ST_F32, .rank = 2, .shape = {n, (uint64_t)v}, .data = logits};
  return dj_safetensors_save(path, &t, 1, NULL, 0);
}

/* Windows of the context's length side by side. */
static dj_status score_all(const dj__text_options *o, session *s, double *sum, size_t *scored) {
  const size_t context = (size_t)dj_lm_context(s->model);
  const int v = dj_lm_vocabulary(s->model);
  float *logits = malloc((s->n < context ? s->n : context) * (size_t)v * sizeof *logits);
  dj_status st = logits ? DJ_OK : dj_error(DJ_E_NOMEM, "score: no memory for logits");
  for (size_t at = 0; at < s->n && !st; at += context) {
    size_t n = s->n - at < context ? s->n - at : context;
    st = dj_lm_score(s->model, s->ids + at, n, logits);
    if (!st && at == 0 && o->logits) st = save_logits(o->logits, logits, n, v);
    for (size_t i = 0; i < n && at + i + 1 < s->n && !st; i++, ++*scored)
      *sum += loss_of(logits + i * (size_t)v, v, s->ids[at + i + 1]);
    dj_progress("scoring", at + n, s->n, "tokens", NULL);
  }
  dj__cli_progress_end();
  free(logits);
  return st;
}

dj_status dj__text_score(const dj__text_options *o, char **args, int n) {
  if (n < 1 || n > 2)
    return dj_error(DJ_E_INVALID, "score: give a run's folder and a file; see dojo text --help");
  char *text;
  size_t size, scored = 0;
  double sum = 0;
  session s;
  DJ_TRY(dj__text_read(n > 1 ? args[1] : "-", &text, &size));
  dj_status st = open_session(o, args[0], text, size, &s);
  free(text);
  if (st) return st;
  if (s.n < 2) st = dj_error(DJ_E_INVALID, "score: at least 2 tokens, there are %zu", s.n);
  if (!st) st = score_all(o, &s, &sum, &scored);
  close_session(&s);
  if (st) return st;
  double loss = sum / (double)scored;
  if (o->json) {
    json_t *j = json_pack("{s:I, s:f, s:f}", "tokens", (json_int_t)scored, "loss", loss,
                          "perplexity", exp(loss));
    (void)json_dumpf(j, stdout, JSON_INDENT(2));
    (void)puts("");
    json_decref(j);
  } else {
    (void)printf("%zu tokens, loss %.4f nats a token, perplexity %.4g\n", scored, loss, exp(loss));
  }
  return DJ_OK;
}

// ---- import, export ----------------------------------------------------------------------------

dj_status dj__text_import(const dj__text_options *o, char **args, int n) {
  if (n != 1 || !o->out)
    return dj_error(DJ_E_INVALID, "import: give the folder of a model, and --out R");
  DJ_TRY(dj_lm_import(args[0], o->out, o->tokens));
  (void)printf("run: %s\n", o->out);
  return DJ_OK;
}

dj_status dj__text_export(const dj__text_options *o, char **args, int n) {
  if (n != 1 || !o->out)
    return dj_error(DJ_E_INVALID, "export: give a run's folder, and --out DIR");
  DJ_TRY(dj_lm_export(args[0], o->out));
  (void)printf("model: %s\n", o->out);
  return DJ_OK;
}
