/* Any bytes as a list of merges: a clear error, or a tokeniser that gives back what it is given. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dojo/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static char path[] = "/tmp/dojo-fuzz-bpe-XXXXXX";
  static int fd = -1;
  if (fd < 0) {
    if ((fd = mkstemp(path)) < 0) abort();
    unlink(path);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  }
  if (ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size) abort();
  dj_tokenizer *t;
  if (dj_tokenizer_open_bpe(path, &t)) {
    if (t || !*dj_error_message()) abort();
    return 0;
  }
  int32_t *ids;
  size_t n, back_size;
  char *back;
  if (dj_tokenizer_encode(t, data, size, &ids, &n) || n > size) abort();
  if (dj_tokenizer_decode(t, ids, n, &back, &back_size)) abort();
  if (back_size != size || (size && memcmp(back, data, size) != 0)) abort();
  free(back);
  free(ids);
  dj_tokenizer_close(t);
  return 0;
}
