/*
 * Byte-pair tokenisers.
 *
 * Text is cut into pieces (words with the space before them, numbers, punctuation) by GPT-2's
 * pattern, which PCRE2 compiles to machine code. Within a piece the pair of neighbours that was
 * merged first in training is merged first, until no pair is a token. A token's id says when it was
 * merged, so ids are ranks, and one table from a pair of ids to the id of both is all that is
 * needed.
 *
 * Short pieces, nearly all, look for the lowest rank by going through them; long ones (a megabyte
 * of one letter) keep a heap, so time stays n log n. Pieces met before are remembered.
 *
 * A tokeniser is for one thread: its match data and cache are its own.
 */
#include "dojo/text.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/fs.h"
#include "text/tokenizer.h"

enum {
  N_BYTES = 256,
  SHORT_PIECE = 48,      /* bytes up to which pairs are found by going through them */
  CACHE_SLOTS = 1 << 15, /* pieces remembered; a power of two */
  CACHE_BYTES = 24,      /* longest piece remembered */
  CACHE_IDS = 8,         /* most ids of one */
  MAX_MERGES = 1 << 24,
  MAX_FILE = 64 << 20
};

typedef struct pair_slot {
  uint64_t pair; /* left << 32 | right; UINT64_MAX: empty */
  int32_t id;
} pair_slot;

typedef struct cached {
  uint8_t size, n; /* size 0: empty */
  char text[CACHE_BYTES];
  int32_t ids[CACHE_IDS];
} cached;

struct dj_tokenizer {
  dj_tokenizer_kind kind;
  int32_t size, end; /* tokens; the one between documents or -1 */
  uint32_t *start;   /* (size + 1) bytes of token i: text[start[i] .. start[i + 1]) */
  dj__buf text;
  dj__buf source; /* what it was made from: the list of merges, the characters */
  int32_t byte_id[N_BYTES];
  pair_slot *pairs; /* of ids; of characters: by code point */
  uint64_t mask;    /* of the table of pairs */
  cached *cache;
  pcre2_code *pattern; /* of byte pairs */
  pcre2_match_data *match;
};

/*
 * GPT-2's pattern. White space is Unicode's White_Space, spelled out: PCRE2's own \s differs from
 * it in two characters.
 */
#define SPACE                                                                                      \
  "\\x{09}-\\x{0d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
  "\\x{205f}\\x{3000}"
static const char pattern_text[] =
    "'(?:[sdmt]|ll|ve|re)| ?\\p{L}++| ?\\p{N}++| ?[^" SPACE "\\p{L}\\p{N}]++|[" SPACE "]++$|[" SPACE
    "]+(?![^" SPACE "])|[" SPACE "]++";

/* ---- pairs ---- */

static uint64_t mix(uint64_t x) { // finaliser of MurmurHash3 (Appleby)
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  return x ^ x >> 33;
}

static uint64_t pair_of(int32_t left, int32_t right) {
  return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static pair_slot *find_pair(const dj_tokenizer *t, uint64_t pair) {
  uint64_t i = mix(pair) & t->mask;
  while (t->pairs[i].pair != pair && t->pairs[i].pair != UINT64_MAX) i = (i + 1) & t->mask;
  return &t->pairs[i];
}

/* Id of left and right together; INT32_MAX where they are no token. */
static int32_t merged(const dj_tokenizer *t, int32_t left, int32_t right) {
  const pair_slot *s = find_pair(t, pair_of(left, right));
  return s->pair == UINT64_MAX ? INT32_MAX : s->id;
}

/* ---- merging a piece ---- */

/* ids (n) in place; gives how many are left. */
static size_t merge_short(const dj_tokenizer *t, int32_t *ids, size_t n) {
  int32_t rank[SHORT_PIECE]; // of ids[i] with ids[i + 1]
  for (size_t i = 0; i + 1 < n; i++) rank[i] = merged(t, ids[i], ids[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; i++)
      if (rank[i] < rank[best]) best = i;
    if (rank[best] == INT32_MAX) break;
    ids[best] = rank[best];
    memmove(ids + best + 1, ids + best + 2, (n - best - 2) * sizeof *ids);
    memmove(rank + best, rank + best + 1, (n - best - 2) * sizeof *rank);
    n--;
    if (best + 1 < n) rank[best] = merged(t, ids[best], ids[best + 1]);
    if (best > 0) rank[best - 1] = merged(t, ids[best - 1], ids[best]);
  }
  return n;
}

typedef struct candidate { // to merge the token at `at` with the one behind it
  int32_t rank;
  uint32_t at, end; // `end`: where the second ends, to know whether it is still the same pair
} candidate;

typedef struct heap {
  candidate *c;
  size_t n;
} heap;

static bool before(candidate a, candidate b) {
  return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void heap_push(heap *h, candidate c) {
  size_t i = h->n++;
  for (; i > 0 && before(c, h->c[(i - 1) / 2]); i = (i - 1) / 2) h->c[i] = h->c[(i - 1) / 2];
  h->c[i] = c;
}

static candidate heap_pop(heap *h) {
  candidate top = h->c[0], last = h->c[--h->n];
  size_t i = 0;
  for (size_t k; (k = 2 * i + 1) < h->n; i = k) {
    if (k + 1 < h->n && before(h->c[k + 1], h->c[k])) k++;
    if (!before(h->c[k], last)) break;
    h->c[i] = h->c[k];
  }
  h->c[i] = last;
  return top;
}

/* The same with a heap. next[i] is where the token behind the one at i begins (n: none), back[i]
 * where the one before it does. */
static dj_status merge_long(const dj_tokenizer *t, int32_t *ids, size_t *count) {
  size_t n = *count;
  if (n >= UINT32_MAX / 2) return dj_error(DJ_E_LIMIT, "encode: a piece of %zu bytes", n);
  uint32_t *next = malloc(2 * (n + 1) * sizeof *next), *back = next ? next + n + 1 : NULL;
  heap h = {malloc(3 * n * sizeof *h.c), 0}; // n at first, and two a merge
  if (!next || !h.c) {
    free(next);
    free(h.c);
    return dj_error(DJ_E_NOMEM, "encode: no memory for a piece of %zu bytes", n);
  }
  for (size_t i = 0; i < n; i++) {
    next[i] = (uint32_t)i + 1;
    back[i] = (uint32_t)i - 1; // not read for 0
    int32_t rank = i + 1 < n ? merged(t, ids[i], ids[i + 1]) : INT32_MAX;
    if (rank != INT32_MAX) heap_push(&h, (candidate){rank, (uint32_t)i, (uint32_t)i + 2});
  }
  while (h.n) {
    candidate c = heap_pop(&h);
    uint32_t right = ids[c.at] < 0 ? (uint32_t)n : next[c.at];
    if (right >= n || next[right] != c.end || merged(t, ids[c.at], ids[right]) != c.rank) continue;
    ids[c.at] = c.rank;
    ids[right] = -1; // gone
    next[c.at] = c.end;
    if (c.end < n) {
      back[c.end] = c.at;
      int32_t rank = merged(t, c.rank, ids[c.end]);
      if (rank != INT32_MAX) heap_push(&h, (candidate){rank, c.at, next[c.end]});
    }
    if (c.at > 0) {
      int32_t rank = merged(t, ids[back[c.at]], c.rank);
      if (rank != INT32_MAX) heap_push(&h, (candidate){rank, back[c.at], c.end});
    }
  }
  size_t kept = 0;
  for (size_t i = 0; i < n; i = next[i]) ids[kept++] = ids[i];
  *count = kept;
  free(next);
  free(h.c);
  return DJ_OK;
}

/* Appends the ids of a piece. */
static dj_status encode_piece(dj_tokenizer *t, const unsigned char *piece, size_t n, dj__buf *out) {
  cached *slot = NULL;
  if (n <= CACHE_BYTES) {
    uint64_t h = n;
    for (size_t i = 0; i < n; i++) h = (h ^ piece[i]) * 0x100000001b3ull;
    slot = &t->cache[mix(h) & (CACHE_SLOTS - 1)];
    if (slot->size == n && !memcmp(slot->text, piece, n)) {
      dj__buf_put(out, slot->ids, slot->n * sizeof(int32_t));
      return DJ_OK;
    }
  }
  size_t at = out->size;
  int32_t *ids = (int32_t *)(void *)dj__buf_extend(out, n * sizeof *ids);
  if (!ids) return dj_error(DJ_E_NOMEM, "encode: out of memory");
  for (size_t i = 0; i < n; i++) ids[i] = t->byte_id[piece[i]];
  size_t left = n;
  if (n <= SHORT_PIECE)
    left = merge_short(t, ids, n);
  else
    DJ_TRY(merge_long(t, ids, &left));
  out->size = at + left * sizeof *ids;
  if (slot && left <= CACHE_IDS) {
    slot->size = (uint8_t)n;
    slot->n = (uint8_t)left;
    memcpy(slot->text, piece, n);
    memcpy(slot->ids, ids, left * sizeof *ids);
  }
  return DJ_OK;
}

/* ---- cutting into pieces ---- */

/* Bytes of valid UTF-8 at the start (Unicode 15, table 3-7). */
static size_t valid_utf8(const unsigned char *p, size_t n) {
  size_t i = 0;
  while (i < n) {
    unsigned c = p[i];
    if (c < 0x80) {
      i++;
      continue;
    }
    size_t k = c >= 0xc2 && c <= 0xdf   ? 1
               : c >= 0xe0 && c <= 0xef ? 2
               : c >= 0xf0 && c <= 0xf4 ? 3
                                        : 0;
    if (!k || n - i <= k) return i;
    unsigned lo = c == 0xe0   ? 0xa0
                  : c == 0xf0 ? 0x90
                              : 0x80,
             hi = c == 0xed   ? 0x9f
                  : c == 0xf4 ? 0x8f
                              : 0xbf;
    if (p[i + 1] < lo || p[i + 1] > hi) return i;
    for (size_t j = 2; j <= k; j++)
      if (p[i + j] < 0x80 || p[i + j] > 0xbf) return i;
    i += k + 1;
  }
  return i;
}

/* Code point of the valid character at p, of *n bytes. */
static uint32_t code_point(const unsigned char *p, size_t *n) {
  uint32_t c = p[0];
  *n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
  if (*n > 1) c &= 0x3fu >> (*n - 1);
  for (size_t i = 1; i < *n; i++) c = c << 6 | (p[i] & 0x3f);
  return c;
}

static dj_status encode_characters(const dj_tokenizer *t, const unsigned char *text, size_t size,
                                   dj__buf *out) {
  size_t valid = valid_utf8(text, size), n;
  for (size_t at = 0; at < valid; at += n) {
    uint32_t c = code_point(text + at, &n);
    const pair_slot *s = find_pair(t, c);
    if (s->pair == UINT64_MAX)
      return dj_error(DJ_E_INVALID,
                      "encode: byte %zu: the character '%.*s' (U+%04X) was not in the text that "
                      "the tokens were made from",
                      at, (int)n, text + at, c);
    dj__buf_put(out, &s->id, sizeof s->id);
  }
  if (valid < size)
    return dj_error(DJ_E_FORMAT, "encode: byte %zu is not UTF-8; tokens of characters need it",
                    valid);
  return DJ_OK;
}

/* Where the last piece of the valid text began in *last, and in ids. */
static dj_status encode_valid(dj_tokenizer *t, const unsigned char *text, size_t size, dj__buf *out,
                              size_t *last, size_t *last_id) {
  const PCRE2_SIZE *found = pcre2_get_ovector_pointer(t->match);
  for (size_t at = 0; at < size;) {
    int rc = pcre2_jit_match(t->pattern, text, size, at, PCRE2_NO_UTF_CHECK, t->match, NULL);
    if (rc < 0 || found[1] <= at)
      return dj_error(DJ_E_STATE, "encode: the pattern finds nothing at byte %zu (PCRE2: %d)", at,
                      rc);
    *last = at;
    *last_id = out->size / sizeof(int32_t);
    DJ_TRY(encode_piece(t, text + at, found[1] - at, out));
    at = found[1];
  }
  return DJ_OK;
}

static bool all_space(const dj_tokenizer *t, int32_t id) {
  const unsigned char *p = t->text.data + t->start[id];
  for (uint32_t i = 0, n = t->start[id + 1] - t->start[id]; i < n; i++)
    if (p[i] != ' ' && p[i] != '\n' && p[i] != '\t') return false;
  return true;
}

static dj_status encode_all(dj_tokenizer *t, const unsigned char *text, size_t size, dj__buf *out) {
  size_t valid = valid_utf8(text, size), last = 0, last_id = 0;
  DJ_TRY(encode_valid(t, text, valid, out, &last, &last_id));
  if (valid == size) return DJ_OK;
  /* What follows could belong to the last piece: that is taken back, with white space before it,
   * and merged with all the rest as one. */
  const int32_t *ids = (const int32_t *)(const void *)out->data;
  if (out->size && all_space(t, ids[last_id]))
    for (; last_id > 0 && all_space(t, ids[last_id - 1]); last_id--)
      last -= t->start[ids[last_id - 1] + 1] - t->start[ids[last_id - 1]];
  out->size = last_id * sizeof *ids;
  return encode_piece(t, text + last, size - last, out);
}

dj_status dj_tokenizer_encode(dj_tokenizer *t, const void *text, size_t size, int32_t **ids,
                              size_t *n) {
  dj__buf out = {0};
  dj_status s = DJ_OK;
  *ids = NULL;
  *n = 0;
  if (t->kind == DJ_TOKENS_BPE) {
    s = encode_all(t, text, size, &out);
  } else if (t->kind == DJ_TOKENS_CHARACTERS) {
    s = encode_characters(t, text, size, &out);
  } else {
    int32_t *to = (int32_t *)(void *)dj__buf_extend(&out, size * sizeof *to);
    for (size_t i = 0; to && i < size; i++) to[i] = ((const unsigned char *)text)[i];
  }
  if (!s && !out.data)
    (void)dj__buf_extend(&out, 1), out.size = 0; // no text: still something to free
  if (!s && out.failed) s = dj_error(DJ_E_NOMEM, "encode: no memory for %zu bytes of text", size);
  if (s) {
    dj__buf_free(&out);
    return s;
  }
  *ids = (int32_t *)(void *)out.data;
  *n = out.size / sizeof **ids;
  return DJ_OK;
}

dj_status dj_tokenizer_decode(const dj_tokenizer *t, const int32_t *ids, size_t n, char **text,
                              size_t *size) {
  dj__buf out = {0};
  *text = NULL;
  *size = 0;
  for (size_t i = 0; i < n; i++) {
    if (ids[i] < 0 || ids[i] >= t->size) {
      dj__buf_free(&out);
      return dj_error(DJ_E_INVALID, "decode: token %zu is %d; ids go from 0 to %d", i, ids[i],
                      t->size - 1);
    }
    dj__buf_put(&out, t->text.data + t->start[ids[i]], t->start[ids[i] + 1] - t->start[ids[i]]);
  }
  dj__buf_put(&out, "", 1);
  if (out.failed) {
    dj__buf_free(&out);
    return dj_error(DJ_E_NOMEM, "decode: no memory for %zu tokens", n);
  }
  *text = (char *)out.data;
  *size = out.size - 1;
  return DJ_OK;
}

/* ---- opening ---- */

int32_t dj_tokenizer_size(const dj_tokenizer *t) {
  return t->size;
}
int32_t dj_tokenizer_end(const dj_tokenizer *t) {
  return t->end;
}

dj_tokenizer_kind dj_tokenizer_get_kind(const dj_tokenizer *t) {
  return t->kind;
}
const void *dj_tokenizer_source(const dj_tokenizer *t, size_t *size) {
  *size = t->source.size;
  return t->source.data;
}

void dj_tokenizer_close(dj_tokenizer *t) {
  if (!t) return;
  dj__buf_free(&t->source);
  pcre2_match_data_free(t->match);
  pcre2_code_free(t->pattern);
  dj__buf_free(&t->text);
  free(t->start);
  free(t->pairs);
  free(t->cache);
  free(t);
}

static dj_status add_token(dj_tokenizer *t, const void *bytes, size_t n) {
  dj__buf_put(&t->text, bytes, n);
  if (t->text.failed || t->text.size > UINT32_MAX)
    return dj_error(DJ_E_NOMEM, "tokeniser: no memory");
  t->start[++t->size] = (uint32_t)t->text.size;
  return DJ_OK;
}

/* Room for `tokens` of them. */
static dj_tokenizer *new_tokenizer(size_t tokens) {
  dj_tokenizer *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  size_t slots = 1024;
  while (slots < 2 * tokens) slots *= 2;
  t->end = -1;
  t->start = calloc(tokens + 1, sizeof *t->start);
  t->pairs = malloc(slots * sizeof *t->pairs);
  t->cache = calloc(CACHE_SLOTS, sizeof *t->cache);
  if (!t->start || !t->pairs || !t->cache) {
    dj_tokenizer_close(t);
    return NULL;
  }
  t->mask = slots - 1;
  for (size_t i = 0; i < slots; i++) t->pairs[i].pair = UINT64_MAX;
  return t;
}

dj_status dj_tokenizer_open_bytes(dj_tokenizer **out) {
  dj_tokenizer *t = *out = new_tokenizer(N_BYTES);
  if (!t) return dj_error(DJ_E_NOMEM, "tokeniser: no memory");
  dj_status s = DJ_OK;
  for (int i = 0; i < N_BYTES && !s; i++) s = add_token(t, &(unsigned char){(unsigned char)i}, 1);
  if (s) {
    dj_tokenizer_close(t);
    *out = NULL;
  }
  return s;
}

static int by_value(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

/* Characters of the text in order, each once; their number, or -1. */
static int64_t distinct(const unsigned char *text, size_t size, uint32_t *out) {
  unsigned char *seen = calloc(0x110000 / 8, 1);
  int64_t count = 0;
  size_t n;
  if (!seen) return -1;
  for (size_t at = 0; at < size; at += n) {
    uint32_t c = code_point(text + at, &n);
    if (!(seen[c / 8] >> c % 8 & 1)) out[count++] = c;
    seen[c / 8] |= (unsigned char)(1u << c % 8);
  }
  free(seen);
  qsort(out, (size_t)count, sizeof *out, by_value);
  return count;
}

static size_t put_utf8(uint32_t c, unsigned char out[4]) {
  size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
  for (size_t i = n; i-- > 1; c >>= 6) out[i] = (unsigned char)(0x80 | (c & 0x3f));
  out[0] = (unsigned char)(lead[n] | c);
  return n;
}

dj_status dj_tokenizer_open_characters(const void *text, size_t size, const char *what,
                                       dj_tokenizer **out) {
  *out = NULL;
  size_t valid = valid_utf8(text, size);
  if (valid < size)
    return dj_error(DJ_E_FORMAT, "%s: byte %zu is not UTF-8; tokens of characters need it", what,
                    valid);
  uint32_t *c = malloc((size < 0x110000 ? size + 1 : 0x110000) * sizeof *c);
  int64_t n = c ? distinct(text, size, c) : -1;
  dj_tokenizer *t = n >= 0 ? new_tokenizer((size_t)n) : NULL;
  dj_status s = t ? DJ_OK : dj_error(DJ_E_NOMEM, "tokeniser: no memory");
  for (int64_t i = 0; i < n && !s; i++) {
    unsigned char bytes[4];
    *find_pair(t, c[i]) = (pair_slot){c[i], (int32_t)i};
    s = add_token(t, bytes, put_utf8(c[i], bytes));
  }
  free(c);
  if (!s) {
    t->kind = DJ_TOKENS_CHARACTERS;
    dj__buf_put(&t->source, t->text.data, t->text.size);
    if (t->source.failed) s = dj_error(DJ_E_NOMEM, "tokeniser: no memory");
  }
  if (s)
    dj_tokenizer_close(t);
  else
    *out = t;
  return s;
}

/*
 * GPT-2's files write a byte as a visible character: printable ones stand for themselves, the
 * others, in order, are U+0100 and on. Ids of bytes are in the order of these characters: printable
 * first.
 */
typedef struct alphabet {
  int byte_of[0x200]; // by character; -1: none
  unsigned char order[N_BYTES];
} alphabet;

static bool is_printable(int b) {
  return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
}

static void make_alphabet(alphabet *a) {
  int n = 0, beyond = 0x100;
  for (int i = 0; i < 0x200; i++) a->byte_of[i] = -1;
  for (int b = 0; b < N_BYTES; b++)
    if (is_printable(b)) a->byte_of[b] = b, a->order[n++] = (unsigned char)b;
  for (int b = 0; b < N_BYTES; b++)
    if (!is_printable(b)) a->byte_of[beyond++] = b, a->order[n++] = (unsigned char)b;
}

size_t dj__byte_letter(unsigned char byte, unsigned char out[2]) {
  unsigned c = byte;
  if (!is_printable(byte)) {
    c = 0x100;
    for (int b = 0; b < byte; b++) c += !is_printable(b);
  }
  out[0] = (unsigned char)c;
  if (c < 0x80) return 1;
  out[0] = (unsigned char)(0xc0 | c >> 6);
  out[1] = (unsigned char)(0x80 | (c & 0x3f));
  return 2;
}

/* A word of the file up to a space or the line's end, as bytes; *at moves behind it. False: not so.
 */
static bool take_word(const alphabet *a, const char **at, const char *end, unsigned char *out,
                      size_t room, size_t *n) {
  const unsigned char *p = (const unsigned char *)*at, *stop = (const unsigned char *)end;
  for (*n = 0; p < stop && *p != ' '; ++*n) {
    int c = *p++;
    if (c >= 0xc2 && c <= 0xdf) { // two bytes: up to U+07FF
      if (p >= stop || (*p & 0xc0) != 0x80) return false;
      c = (c & 0x1f) << 6 | (*p++ & 0x3f);
    } else if (c >= 0x80) {
      return false;
    }
    if (c >= 0x200 || a->byte_of[c] < 0 || *n >= room) return false;
    out[*n] = (unsigned char)a->byte_of[c];
  }
  *at = (const char *)p;
  return *n > 0;
}

/* Id of bytes that are a token made so far, by merging them; -1 where they are none. */
static int32_t token_of(const dj_tokenizer *t, const unsigned char *bytes, size_t n) {
  int32_t ids[4 * SHORT_PIECE];
  for (size_t i = 0; i < n; i++) ids[i] = t->byte_id[bytes[i]];
  if (n <= SHORT_PIECE) return merge_short(t, ids, n) == 1 ? ids[0] : -1;
  return merge_long(t, ids, &n) == DJ_OK && n == 1 ? ids[0] : -1;
}

static dj_status add_merge(dj_tokenizer *t, const alphabet *a, const char *line, const char *end) {
  unsigned char word[4 * SHORT_PIECE];
  size_t left, right;
  if (!take_word(a, &line, end, word, sizeof word, &left) || line == end) return DJ_E_FORMAT;
  line++;
  if (!take_word(a, &line, end, word + left, sizeof word - left, &right) || line != end)
    return DJ_E_FORMAT;
  int32_t l = token_of(t, word, left), r = token_of(t, word + left, right);
  if (l < 0 || r < 0) return DJ_E_FORMAT;
  pair_slot *s = find_pair(t, pair_of(l, r));
  if (s->pair != UINT64_MAX) return DJ_E_FORMAT; // twice
  *s = (pair_slot){pair_of(l, r), t->size};
  return add_token(t, word, left + right);
}

static dj_status read_merges(dj_tokenizer *t, const char *path, const char *text, size_t size) {
  alphabet a;
  make_alphabet(&a);
  for (int i = 0; i < N_BYTES; i++) {
    t->byte_id[a.order[i]] = t->size;
    DJ_TRY(add_token(t, &a.order[i], 1));
  }
  size_t line = 0;
  for (const char *p = text, *stop = text + size; p < stop;) {
    const char *end = memchr(p, '\n', (size_t)(stop - p));
    if (!end) end = stop;
    const char *last = end > p && end[-1] == '\r' ? end - 1 : end;
    line++;
    if (last > p && !(line == 1 && !strncmp(p, "#version", 8))) {
      dj_status s = add_merge(t, &a, p, last);
      if (s == DJ_E_FORMAT)
        return dj_error(s,
                        "%s:%zu: no merge: two tokens, each a byte or merged above, with a space "
                        "between them, and not there yet",
                        path, line);
      DJ_TRY(s);
    }
    p = end + 1;
  }
  t->end = t->size;
  return add_token(t, "<|endoftext|>", 13);
}

static dj_status compile_pattern(dj_tokenizer *t) {
  int code;
  PCRE2_SIZE at;
  t->pattern = pcre2_compile((PCRE2_SPTR)pattern_text, PCRE2_ZERO_TERMINATED,
                             PCRE2_UTF | PCRE2_ANCHORED | PCRE2_DOLLAR_ENDONLY, &code, &at, NULL);
  if (!t->pattern || pcre2_jit_compile(t->pattern, PCRE2_JIT_COMPLETE) != 0)
    return dj_error(DJ_E_UNSUPPORTED, "tokeniser: PCRE2 does not take the pattern (error %d)",
                    code);
  t->match = pcre2_match_data_create_from_pattern(t->pattern, NULL);
  return t->match ? DJ_OK : dj_error(DJ_E_NOMEM, "tokeniser: no memory");
}

dj_status dj_tokenizer_open_bpe(const char *merges, dj_tokenizer **out) {
  *out = NULL;
  char *text;
  size_t size;
  DJ_TRY(dj__read_file(merges, MAX_FILE, &text, &size));
  dj_status s = dj_tokenizer_open_bpe_memory(text, size, merges, out);
  free(text);
  return s;
}

dj_status dj_tokenizer_open_bpe_memory(const void *data, size_t size, const char *merges,
                                       dj_tokenizer **out) {
  const char *text = data;
  size_t lines = 1;
  *out = NULL;
  for (size_t i = 0; i < size; i++) lines += text[i] == '\n';
  dj_tokenizer *t = NULL;
  dj_status s;
  if (lines > MAX_MERGES)
    s = dj_error(DJ_E_LIMIT, "%s: %zu lines; up to %d are read", merges, lines, MAX_MERGES);
  else if (!(t = new_tokenizer(lines + N_BYTES + 1)))
    s = dj_error(DJ_E_NOMEM, "tokeniser: no memory for %zu merges", lines);
  else
    s = read_merges(t, merges, text, size);
  if (!s) s = compile_pattern(t);
  if (!s) {
    t->kind = DJ_TOKENS_BPE;
    dj__buf_put(&t->source, text, size);
    if (t->source.failed) s = dj_error(DJ_E_NOMEM, "tokeniser: no memory");
  }
  if (s) {
    dj_tokenizer_close(t);
    return s;
  }
  *out = t;
  return DJ_OK;
}
