/*
 * Files of tokens, and tokenisers on disk: safetensors with the tokeniser's source beside the ids,
 * so that a file (and a run made from it) needs nothing else to turn ids into text again.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/fs.h"
#include "dojo/safetensors.h"
#include "dojo/text.h"

struct dj_tokens {
  dj_safetensors *file;
  const int32_t *ids;
  size_t n;
  int32_t vocabulary;
  char digest[65];
};

static const char *const kinds[] = {[DJ_TOKENS_BYTES] = "bytes",
                                    [DJ_TOKENS_BPE] = "gpt2-bpe",
                                    [DJ_TOKENS_CHARACTERS] = "characters"};

/* ids: NULL for the tokeniser alone */
static dj_status save(const char *path, const dj_tokenizer *t, const int32_t *ids, size_t n) {
  size_t size;
  const void *source = dj_tokenizer_source(t, &size);
  char vocabulary[16];
  (void)snprintf(vocabulary, sizeof vocabulary, "%" PRId32, dj_tokenizer_size(t));
  dj_st_meta meta[] = {{"tokenizer", kinds[dj_tokenizer_get_kind(t)]}, {"vocabulary", vocabulary}};
  dj_st_tensor tensors[2];
  size_t count = 0;
  if (ids)
    tensors[count++] =
        (dj_st_tensor){.name = "tokens", .dtype = DJ_ST_I32, .rank = 1, .shape = {n}, .data = ids};
  if (size)
    tensors[count++] = (dj_st_tensor){
        .name = "tokenizer", .dtype = DJ_ST_U8, .rank = 1, .shape = {size}, .data = source};
  return dj_safetensors_save(path, tensors, count, meta, 2);
}

dj_status dj_tokens_save(const char *path, const dj_tokenizer *t, const int32_t *ids, size_t n) {
  return save(path, t, ids, n);
}

dj_status dj_tokenizer_save(const dj_tokenizer *t, const char *path) {
  return save(path, t, NULL, 0);
}

static dj_status load(const dj_safetensors *f, const char *path, dj_tokenizer **t) {
  const char *kind = dj_safetensors_metadata(f, "tokenizer");
  const dj_st_tensor *source = dj_safetensors_find(f, "tokenizer");
  if (!kind) return dj_error(DJ_E_FORMAT, "%s: holds no tokeniser; `dojo text pack` adds it", path);
  if (!strcmp(kind, kinds[DJ_TOKENS_BYTES])) return dj_tokenizer_open_bytes(t);
  if (!source || source->dtype != DJ_ST_U8 || source->rank != 1)
    return dj_error(DJ_E_FORMAT, "%s: the tensor 'tokenizer' (N) u8 is missing", path);
  if (!strcmp(kind, kinds[DJ_TOKENS_BPE]))
    return dj_tokenizer_open_bpe_memory(source->data, source->size, path, t);
  if (!strcmp(kind, kinds[DJ_TOKENS_CHARACTERS]))
    return dj_tokenizer_open_characters(source->data, source->size, path, t);
  return dj_error(DJ_E_UNSUPPORTED, "%s: tokeniser '%.40s' is not known here", path, kind);
}

dj_status dj_tokenizer_load(const char *path, dj_tokenizer **t) {
  *t = NULL;
  dj_safetensors *f;
  DJ_TRY(dj_safetensors_open(path, &f));
  dj_status s = load(f, path, t);
  dj_safetensors_close(f);
  return s;
}

static dj_status check(dj_tokens *f, const char *path) {
  dj_tokenizer *t;
  DJ_TRY(load(f->file, path, &t));
  f->vocabulary = dj_tokenizer_size(t);
  dj_tokenizer_close(t);
  const dj_st_tensor *x = dj_safetensors_find(f->file, "tokens");
  if (!x || x->dtype != DJ_ST_I32 || x->rank != 1)
    return dj_error(DJ_E_FORMAT, "%s: the tensor 'tokens' (N) i32 is missing", path);
  f->ids = x->data;
  f->n = (size_t)x->shape[0];
  for (size_t i = 0; i < f->n; i++)
    if (f->ids[i] < 0 || f->ids[i] >= f->vocabulary)
      return dj_error(DJ_E_FORMAT, "%s: token %zu is %" PRId32 "; they go from 0 to %" PRId32, path,
                      i, f->ids[i], f->vocabulary - 1);
  dj__digest d;
  dj__digest_init(&d);
  dj__digest_bytes(&d, f->ids, f->n * sizeof *f->ids);
  const dj_st_tensor *source = dj_safetensors_find(f->file, "tokenizer");
  if (source) dj__digest_bytes(&d, source->data, source->size);
  return dj__digest_hex(&d, f->digest);
}

dj_status dj_tokens_open(const char *path, dj_tokens **out) {
  *out = NULL;
  dj_tokens *f = calloc(1, sizeof *f);
  if (!f) return dj_error(DJ_E_NOMEM, "%s: no memory", path);
  dj_status s = dj_safetensors_open(path, &f->file);
  if (!s) s = check(f, path);
  if (s)
    dj_tokens_close(f);
  else
    *out = f;
  return s;
}

void dj_tokens_close(dj_tokens *f) {
  if (!f) return;
  dj_safetensors_close(f->file);
  free(f);
}

const int32_t *dj_tokens_data(const dj_tokens *f, size_t *n) {
  *n = f->n;
  return f->ids;
}
int32_t dj_tokens_vocabulary(const dj_tokens *f) {
  return f->vocabulary;
}
const char *dj_tokens_digest(const dj_tokens *f) {
  return f->digest;
}
