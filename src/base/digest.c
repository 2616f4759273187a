#include "base/digest.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void dj__digest_init(dj__digest *d) {
  EVP_MD_CTX *c = EVP_MD_CTX_new();
  if (c && EVP_DigestInit_ex(c, EVP_sha256(), NULL) != 1) {
    EVP_MD_CTX_free(c);
    c = NULL;
  }
  d->ctx = c;
}

void dj__digest_bytes(dj__digest *d, const void *data, size_t size) {
  if (!d->ctx || !size) return;
  if (EVP_DigestUpdate(d->ctx, data, size) != 1) {
    EVP_MD_CTX_free(d->ctx);
    d->ctx = NULL;
  }
}

void dj__digest_u64(dj__digest *d, uint64_t v) {
  unsigned char b[8];
  for (int i = 0; i < 8; i++) b[i] = (unsigned char)(v >> (8 * i));
  dj__digest_bytes(d, b, sizeof b);
}

void dj__digest_text(dj__digest *d, const char *s) {
  size_t n = strlen(s);
  dj__digest_u64(d, n);
  dj__digest_bytes(d, s, n);
}

dj_status dj__digest_hex(dj__digest *d, char hex[65]) {
  unsigned char sum[EVP_MAX_MD_SIZE];
  unsigned n = 0;
  int ok = d->ctx && EVP_DigestFinal_ex(d->ctx, sum, &n) == 1 && n == 32;
  EVP_MD_CTX_free(d->ctx);
  d->ctx = NULL;
  hex[0] = 0;
  if (!ok) return dj_error(DJ_E_NOMEM, "sha256: the crypto library failed (out of memory?)");
  static const char digits[] = "0123456789abcdef";
  for (unsigned i = 0; i < 32; i++) {
    hex[2 * i] = digits[sum[i] >> 4];
    hex[2 * i + 1] = digits[sum[i] & 15];
  }
  hex[64] = 0;
  return DJ_OK;
}

dj_status dj__digest_file(const char *path, char hex[65], uint64_t *bytes) {
  enum { PIECE = 1 << 20 };
  hex[0] = 0;
  FILE *f = fopen(path, "rbe");
  if (!f) return dj_error_errno("%s: cannot open", path);
  unsigned char *buf = malloc(PIECE);
  dj__digest d;
  dj__digest_init(&d);
  uint64_t total = 0;
  for (size_t n; buf && (n = fread(buf, 1, PIECE, f)) > 0; total += n) dj__digest_bytes(&d, buf, n);
  dj_status s = DJ_OK;
  if (!buf) s = dj_error(DJ_E_NOMEM, "%s: no memory to read it", path);
  if (!s && ferror(f)) s = dj_error_errno("%s: cannot read", path);
  fclose(f);
  free(buf);
  dj_status hs = dj__digest_hex(&d, hex);
  if (bytes) *bytes = total;
  return s ? s : hs;
}
