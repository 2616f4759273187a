#include "base/text.h"

#include <ctype.h>
#include <string.h>

int dj__edit_distance(const char *a, const char *b) {
  int row[65] = {0};
  int la = (int)strnlen(a, 63), lb = (int)strnlen(b, 63);
  for (int j = 0; j <= lb; j++) row[j] = j;
  for (int i = 1; i <= la; i++) {
    int diagonal = row[0];
    row[0] = i;
    for (int j = 1; j <= lb; j++) {
      int up = row[j];
      int best = diagonal + (a[i - 1] != b[j - 1]);
      if (up + 1 < best) best = up + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      diagonal = up;
      row[j] = best;
    }
  }
  return row[lb];
}

const char *dj__nearest(const char *word, const char *const *names, size_t n) {
  char low[64] = "", other[64] = "";
  const char *best = NULL;
  int least = (int)strnlen(word, 63) / 3;
  if (least < 1) least = 1;
  least++; // the first one at or below the limit is taken
  for (size_t i = 0; word[0] && i < n; i++) {
    if (!names[i]) continue;
    size_t k = 0;
    for (; word[k] && k < 63; k++) low[k] = (char)tolower((unsigned char)word[k]);
    low[k] = 0;
    for (k = 0; names[i][k] && k < 63; k++) other[k] = (char)tolower((unsigned char)names[i][k]);
    other[k] = 0;
    int d = dj__edit_distance(low, other);
    if (d >= least) continue;
    least = d;
    best = names[i];
  }
  return best;
}

bool dj__plain_name(const char *name) {
  size_t n = strlen(name);
  if (!n || n > 255 || name[0] == '.') return false;
  for (size_t i = 0; i < n; i++) {
    unsigned char c = (unsigned char)name[i];
    if (c < 32 || c == 127 || c == '/' || c == '\\') return false;
  }
  return true;
}
