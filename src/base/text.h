/* Small helpers on text, for messages. */
#ifndef DOJO_BASE_TEXT_H
#define DOJO_BASE_TEXT_H

/* Levenshtein distance, for "did you mean". Names longer than 63 bytes are cut. */
int dj__edit_distance(const char *a, const char *b);

#endif
