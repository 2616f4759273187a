/*
 * Tokenisers: merges as written by hand, GPT-2's own where its files are there, any bytes there and
 * back, and merges files that are none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "dojo/text.h"
#include "drive_fixture.h"

static void check_ids(dj_tokenizer *t, const void *text, size_t size, const int32_t *want,
                      size_t n) {
  int32_t *ids;
  size_t got;
  fx_ok(dj_tokenizer_encode(t, text, size, &ids, &got));
  assert_int_equal(got, n);
  if (n) assert_memory_equal(ids, want, n * sizeof *want);
  free(ids);
}
#define CHECK(t, text, ...)                                                                        \
  check_ids(t, text, sizeof(text) - 1, (const int32_t[]){__VA_ARGS__},                             \
            sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void check_round_trip(dj_tokenizer *t, const void *text, size_t size) {
  int32_t *ids;
  size_t n, back_size;
  char *back;
  fx_ok(dj_tokenizer_encode(t, text, size, &ids, &n));
  assert_true(n <= size);
  for (size_t i = 0; i < n; i++) assert_true(ids[i] >= 0 && ids[i] < dj_tokenizer_size(t));
  fx_ok(dj_tokenizer_decode(t, ids, n, &back, &back_size));
  assert_int_equal(back_size, size);
  assert_memory_equal(back, text, size);
  free(back);
  free(ids);
}

/* Ids of bytes: '!' is 0, printable ASCII follows; the space is U+0120 in the file, id 220. */
static void merges_by_hand(void **state) {
  const char *path = fx_path(*state, "m.bpe");
  fx_write(path, "#version: 0.2\na b\nab c\n\xc4\xa0 a\nb c\n");
  dj_tokenizer *t;
  fx_ok(dj_tokenizer_open_bpe(path, &t));
  assert_int_equal(dj_tokenizer_size(t), 256 + 4 + 1);
  assert_int_equal(dj_tokenizer_end(t), 260);
  CHECK(t, "a", 'a' - '!');
  CHECK(t, "abc", 257);
  CHECK(t, "bc", 259);
  CHECK(t, "abcabc", 257, 257);
  CHECK(t, " a", 258);
  CHECK(t, " ab", 220, 256);                   // "a b" came before " a"
  CHECK(t, "  ab", 220, 220, 256);             // the last space goes with the word
  CHECK(t, "a1bc", 'a' - '!', '1' - '!', 259); // letters and digits are apart
  CHECK(t, "a\nb", 'a' - '!', 198, 'b' - '!');
  check_ids(t, "", 0, NULL, 0);
  CHECK(t, "\xff", 187); // no UTF-8: the byte
  int32_t *ids;
  size_t n, size;
  char *back;
  fx_ok(dj_tokenizer_encode(t, "<|endoftext|>", 13, &ids, &n)); // in a text it is just that text
  for (size_t i = 0; i < n; i++) assert_int_not_equal(ids[i], 260);
  free(ids);
  fx_ok(dj_tokenizer_decode(t, (const int32_t[]){260, 257}, 2, &back, &size));
  assert_string_equal(back, "<|endoftext|>abc");
  free(back);
  FX_ERROR(dj_tokenizer_decode(t, (const int32_t[]){1, 261}, 2, &back, &size), DJ_E_INVALID,
           "token 1 is 261", "0 to 260");
  FX_ERROR(dj_tokenizer_decode(t, (const int32_t[]){-1}, 1, &back, &size), DJ_E_INVALID, "-1");
  dj_tokenizer_close(t);
}

static void bytes(void **state) {
  (void)state;
  dj_tokenizer *t;
  fx_ok(dj_tokenizer_open_bytes(&t));
  assert_int_equal(dj_tokenizer_size(t), 256);
  assert_int_equal(dj_tokenizer_end(t), -1);
  CHECK(t, "A\xff", 65, 255);
  check_ids(t, "\0x", 2, (const int32_t[]){0, 'x'}, 2);
  dj_tokenizer_close(t);
}

static void bad_merges(void **state) {
  static const char *const bad[] = {"a",    "a b c",          " a b",        "a b\na b", "ab c",
                                    "a  b", "a \xe4\xbd\xa0", "a b\n\xff b", "a \xc4"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const char *path = fx_path(*state, "bad.bpe");
    dj_tokenizer *t;
    fx_write(path, bad[i]);
    FX_ERROR(dj_tokenizer_open_bpe(path, &t), DJ_E_FORMAT, "bad.bpe:", "no merge");
    assert_null(t);
  }
  dj_tokenizer *t;
  FX_ERROR(dj_tokenizer_open_bpe(fx_path(*state, "none.bpe"), &t), DJ_E_NOT_FOUND, "none.bpe");
}

/* Long pieces go another way than short ones, to the same ids. */
static void long_pieces(void **state) {
  enum { N = 3000 };
  const char *path = fx_path(*state, "m.bpe");
  fx_write(path, "a a\naa aa\na b\naaaa aaaa\nab ab\nb a\n");
  dj_tokenizer *t;
  fx_ok(dj_tokenizer_open_bpe(path, &t));
  char text[N];
  memset(text, 'a', N);
  int32_t *ids;
  size_t n;
  fx_ok(dj_tokenizer_encode(t, text, N, &ids, &n));
  assert_int_equal(n, N / 8);
  for (size_t i = 0; i < n; i++) assert_int_equal(ids[i], 259);
  free(ids);
  dj__rng r = {.key = 1, .stream = 2};
  for (int round = 0; round < 50; round++) { // a short piece, and the same in front of a long tail
    char few[48], many[48 + 64];
    for (size_t i = 0; i < sizeof few; i++) few[i] = dj__rng_below(&r, 3) ? 'a' : 'b';
    memcpy(many, few, sizeof few);
    memset(many + sizeof few, 'c', 64); // merges with nothing
    int32_t *a, *b;
    size_t na, nb;
    fx_ok(dj_tokenizer_encode(t, few, sizeof few, &a, &na));
    fx_ok(dj_tokenizer_encode(t, many, sizeof many, &b, &nb));
    assert_int_equal(nb, na + 64);
    assert_memory_equal(a, b, na * sizeof *a);
    free(a);
    free(b);
  }
  dj_tokenizer_close(t);
}

static void gpt2(void **state) {
  (void)state;
  const char *path = fx_recorded("text/gpt2-bpe/vocab.bpe");
  if (!path) skip();
  dj_tokenizer *t;
  fx_ok(dj_tokenizer_open_bpe(path, &t));
  assert_int_equal(dj_tokenizer_size(t), 50257);
  assert_int_equal(dj_tokenizer_end(t), 50256);
  CHECK(t, "Hello world", 15496, 995);
  CHECK(t, "Hello, y'all! How are you \xf0\x9f\x98\x81 ?", 15496, 11, 331, 6, 439, 0, 1374, 389,
        345, 30325, 223,
        5633); // the example of Hugging Face's documentation of the byte-level tokeniser
  dj__rng r = {.key = 4, .stream = 1};
  for (int round = 0; round < 200; round++) { // any bytes at all
    unsigned char text[400];
    size_t n = (size_t)dj__rng_below(&r, sizeof text);
    unsigned top = round % 2 ? 256 : 128;
    for (size_t i = 0; i < n; i++) text[i] = (unsigned char)dj__rng_below(&r, top);
    check_round_trip(t, text, n);
  }
  dj_tokenizer_close(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {FX_TEST(merges_by_hand), FX_TEST(bytes), FX_TEST(bad_merges),
                                     FX_TEST(long_pieces), FX_TEST(gpt2)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
