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

#endif
