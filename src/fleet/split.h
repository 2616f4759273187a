/*
 * Cuts a drive into contiguous blocks for training, validation and test (rules: dojo/store.h).
 * A pure function of frame times and options, so that a rebuilt catalogue has the same clips.
 */
#ifndef DOJO_FLEET_SPLIT_H
#define DOJO_FLEET_SPLIT_H

#include <stddef.h>
#include <stdint.h>

#include "dojo/store.h"

enum { DJ__SPLIT_MIN_FRAMES = 30, DJ__N_SPLITS = 3 };
extern const char *const dj__split_names[DJ__N_SPLITS]; // "train", "validation", "test"

typedef struct dj__block {
  int split; // index into dj__split_names
  uint64_t first, n;
} dj__block;

/* DJ_E_INVALID unless the shares are 0..1 and sum to 1, and the gap is finite and not negative. */
dj_status dj__split_check(const dj_split_options *o);
/* Blocks in order of time; t_ns (n) must not fall. Returns how many there are (0..3, none empty).
 */
int dj__split_cut(const uint64_t *t_ns, size_t n, const dj_split_options *o,
                  dj__block out[DJ__N_SPLITS]);

#endif
