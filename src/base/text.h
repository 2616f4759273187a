/* Small helpers on text, for messages. */
#ifndef DOJO_BASE_TEXT_H
#define DOJO_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Levenshtein distance, for "did you mean". Names longer than 63 bytes are cut. */
int dj__edit_distance(const char *a, const char *b);

/* The nearest of n names by edit distance, case aside; NULL where none is near enough to be meant:
 * at most a third of the word's letters differ, and at least one is allowed to. NULL names are
 * passed over. */
const char *dj__nearest(const char *word, const char *const *names, size_t n);

/* True for a file name that stays where it is put: 1 to 255 bytes, no '/', '\\' or control
 * character, not hidden ('.' in front, and so neither "." nor ".."). */
bool dj__plain_name(const char *name);

#endif
