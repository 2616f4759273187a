/* Replays a fuzz corpus: every file below the folder (or file) named goes through the target once.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv) {
  if (argc != 2) {
    (void)fprintf(stderr, "use: %s CORPUS_FOLDER\n", argv[0]);
    return 2;
  }
  char **names;
  size_t n;
  if (dj__list_dir(argv[1], &names, &n) || n == 0) {
    (void)fprintf(stderr, "%s: no corpus: %s\n", argv[1], dj_error_message());
    return 1;
  }
  for (size_t i = 0; i < n; i++) {
    char *path = dj__join(argv[1], names[i]), *data;
    size_t size;
    if (dj__read_file(path, 64u << 20, &data, &size)) {
      (void)fprintf(stderr, "%s\n", dj_error_message());
      return 1;
    }
    LLVMFuzzerTestOneInput((const uint8_t *)data, size);
    free(data);
    free(path);
  }
  (void)printf("%zu passed, 0 failed\n", n);
  dj__free_names(names, n);
  return 0;
}
