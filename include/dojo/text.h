/*
 * Text: tokenisers.
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

typedef struct dj_tokenizer dj_tokenizer;

/* GPT-2's byte-pair tokeniser (Radford et al. 2019) from its list of merges, a line "left right"
 * each (vocab.bpe, merges.txt): 256 bytes, then one token a merge, then <|endoftext|>. Errors:
 * DJ_E_NOT_FOUND, DJ_E_FORMAT with the line, DJ_E_LIMIT (over 64 MiB). */
dj_status dj_tokenizer_open_bpe(const char *merges, dj_tokenizer **t);
/* One token a byte: 0..255. */
dj_status dj_tokenizer_open_bytes(dj_tokenizer **t);
void dj_tokenizer_close(dj_tokenizer *t); /* NULL is fine */

/* Number of tokens: ids are 0..size-1. */
int32_t dj_tokenizer_size(const dj_tokenizer *t);
/* The token between documents; -1: none. Text never encodes to it. */
int32_t dj_tokenizer_end(const dj_tokenizer *t);

/* Any bytes, UTF-8 or not, to ids (malloc'ed). From the first byte that is no UTF-8 on, what is
 * left is one piece that merges without looking at words, as in OpenAI's tiktoken. One thread at a
 * time. */
dj_status dj_tokenizer_encode(dj_tokenizer *t, const void *text, size_t size, int32_t **ids,
                              size_t *n);
/* Back to bytes (malloc'ed, a NUL behind them): those that were encoded. DJ_E_INVALID for an id
 * that is out of range, with its place. */
dj_status dj_tokenizer_decode(const dj_tokenizer *t, const int32_t *ids, size_t n, char **text,
                              size_t *size);

#endif
