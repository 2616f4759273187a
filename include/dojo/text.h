/*
 * Text: tokenisers, files of tokens, language models.
 *
 *     dj_tokenizer *t;
 *     DJ_TRY(dj_tokenizer_open_bpe("gpt2/vocab.bpe", &t));
 *     int32_t *ids; size_t n;
 *     DJ_TRY(dj_tokenizer_encode(t, text, strlen(text), &ids, &n));   // free(ids)
 *     char *back; size_t size;
 *     DJ_TRY(dj_tokenizer_decode(t, ids, n, &back, &size));           // the same bytes; free(back)
 *     dj_tokenizer_close(t);
 */
#ifndef DOJO_TEXT_H
#define DOJO_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "dojo/status.h"
#include "dojo/train.h"

typedef struct dj_tokenizer dj_tokenizer;

typedef enum dj_tokenizer_kind {
  DJ_TOKENS_BYTES,
  DJ_TOKENS_BPE,
  DJ_TOKENS_CHARACTERS
} dj_tokenizer_kind;

/* GPT-2's byte-pair tokeniser (Radford et al. 2019) from its list of merges, a line "left right"
 * each (vocab.bpe, merges.txt): 256 bytes, then one token a merge, then <|endoftext|>. Errors:
 * DJ_E_NOT_FOUND, DJ_E_FORMAT with the line, DJ_E_LIMIT (over 64 MiB). */
dj_status dj_tokenizer_open_bpe(const char *merges, dj_tokenizer **t);
/* The same from the list's text; `what` names it in errors. */
dj_status dj_tokenizer_open_bpe_memory(const void *merges, size_t size, const char *what,
                                       dj_tokenizer **t);
/* One token a byte: 0..255. */
dj_status dj_tokenizer_open_bytes(dj_tokenizer **t);
/* One token a character of `text`, in the order of their code points. Encoding another character is
 * an error. DJ_E_FORMAT where the text is not UTF-8. */
dj_status dj_tokenizer_open_characters(const void *text, size_t size, const char *what,
                                       dj_tokenizer **t);
void dj_tokenizer_close(dj_tokenizer *t); /* NULL is fine */

dj_tokenizer_kind dj_tokenizer_get_kind(const dj_tokenizer *t);
/* What it was made from: the text of the merges; the characters, each once; nothing for bytes. */
const void *dj_tokenizer_source(const dj_tokenizer *t, size_t *size);
/* To a safetensors file, and from one: a file of tokens (dj_tokens_open) will do. */
dj_status dj_tokenizer_save(const dj_tokenizer *t, const char *path);
dj_status dj_tokenizer_load(const char *path, dj_tokenizer **t);

/* Number of tokens: ids are 0..size-1. */
int32_t dj_tokenizer_size(const dj_tokenizer *t);
/* The token between documents; -1: none. Text never encodes to it. */
int32_t dj_tokenizer_end(const dj_tokenizer *t);

/* Bytes to ids (malloc'ed). Bytes and byte pairs take any input, UTF-8 or not; from the first byte
 * that is no UTF-8 on, what is left of a text is one piece that merges without looking at words, as
 * in OpenAI's tiktoken. Characters: DJ_E_FORMAT (no UTF-8), DJ_E_INVALID (a character that is no
 * token), with the place. One thread at a time. */
dj_status dj_tokenizer_encode(dj_tokenizer *t, const void *text, size_t size, int32_t **ids,
                              size_t *n);
/* Back to bytes (malloc'ed, a NUL behind them): those that were encoded. DJ_E_INVALID for an id
 * that is out of range, with its place. */
dj_status dj_tokenizer_decode(const dj_tokenizer *t, const int32_t *ids, size_t n, char **text,
                              size_t *size);

/* ---- files of tokens ---- */
/* A safetensors file with the tensor "tokens" (N) i32, its tokeniser in the tensor "tokenizer" (its
 * source, u8) and the metadata "tokenizer" (kind) and "vocabulary". Memory-mapped. */
typedef struct dj_tokens dj_tokens;
dj_status dj_tokens_save(const char *path, const dj_tokenizer *t, const int32_t *ids, size_t n);
/* Errors: as dj_safetensors_open; DJ_E_FORMAT where there are no tokens, or one is out of range. */
dj_status dj_tokens_open(const char *path, dj_tokens **f);
void dj_tokens_close(dj_tokens *f); /* NULL is fine */
const int32_t *dj_tokens_data(const dj_tokens *f, size_t *n);
int32_t dj_tokens_vocabulary(const dj_tokens *f);
/* sha256 of tokens and tokeniser, hex. */
const char *dj_tokens_digest(const dj_tokens *f);

/* ---- language models ---- */
/* The task that a recipe with `task: text` trains: predicting the next token of a file of tokens.
 * Batch `step` holds windows that begin anywhere in the training share. Scores: "loss", nats a
 * token. Errors: as dj_tokens_open; DJ_E_INVALID (too few tokens, a network that cannot be). `r`
 * must outlive the task. */
dj_status dj_task_create_text(const dj_recipe *r, const char *tokens, dj_task **task);

/*
 * A trained (or imported) model that reads and writes:
 *
 *     dj_lm *m;
 *     DJ_TRY(dj_lm_open("R", &(dj_lm_options){0}, &m));
 *     DJ_TRY(dj_lm_feed(m, ids, n));                          // the prompt
 *     for (int i = 0; i < 100; i++) {
 *       int32_t id = dj_lm_sample(m, &(dj_sampling){.temperature = 0.8f, .top_k = 200}, i);
 *       DJ_TRY(dj_lm_feed(m, &id, 1));
 *     }
 *     dj_lm_close(m);
 *
 * Keys and values of what was fed are kept, so that a token costs one pass of one token. A text
 * longer than the context goes on from its last half.
 */
typedef struct dj_lm_options {
  const char *backend, *precision; /* NULL: "cpu"; the run's */
  int threads;                     /* 0: all cores */
} dj_lm_options;

typedef struct dj_sampling {
  float temperature; /* 0: the likeliest token always */
  int top_k;         /* only the k likeliest; 0: all */
  float top_p;       /* only the likeliest that together have this probability; 0: all */
  uint64_t seed;
} dj_sampling;

typedef struct dj_lm dj_lm;
/* From a run's folder: its best checkpoint. DJ_E_NOT_FOUND, DJ_E_INVALID (the run trains no text).
 */
dj_status dj_lm_open(const char *run_dir, const dj_lm_options *o, dj_lm **m);
void dj_lm_close(dj_lm *m); /* NULL is fine */
int32_t dj_lm_vocabulary(const dj_lm *m);
int dj_lm_context(const dj_lm *m);
/* Reads n more tokens. DJ_E_INVALID for an id that is out of range. */
dj_status dj_lm_feed(dj_lm *m, const int32_t *ids, size_t n);
void dj_lm_forget(dj_lm *m); /* begins a new text */
/* Logits (V) f32 of the next token; valid until the next feed. NULL before the first. */
const float *dj_lm_logits(const dj_lm *m);
/* The next token: a function of the logits, the seed and `index`, the token's number. -1 before the
 * first feed. */
int32_t dj_lm_sample(dj_lm *m, const dj_sampling *how, uint64_t index);
/* Logits (n, V) f32 of a text of n tokens, 1 to the context's length; without the cache. */
dj_status dj_lm_score(dj_lm *m, const int32_t *ids, size_t n, float *logits);

/* ---- other people's files ---- */
/* A model as Hugging Face's transformers writes it (config.json; model.safetensors, whole or in
 * shards; merges.txt where there is one), GPT-2 or Llama, becomes a run's folder with a checkpoint
 * of step 0. `tokens` may be NULL: a file to train on. Errors: DJ_E_NOT_FOUND, DJ_E_FORMAT,
 * DJ_E_UNSUPPORTED (a part that is not known here: names it). */
dj_status dj_lm_import(const char *from, const char *run_dir, const char *tokens);
/* And back: config.json and model.safetensors, merges.txt and vocab.json of a byte-pair tokeniser.
 * Weights are f32. DJ_E_UNSUPPORTED for a mix of parts that neither GPT-2 nor Llama has. */
dj_status dj_lm_export(const char *run_dir, const char *to);

#endif
