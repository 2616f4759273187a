#include "fleet/split.h"

#include <math.h>

const char *const dj__split_names[DJ__N_SPLITS] = {"train", "validation", "test"};

dj_status dj__split_check(const dj_split_options *o) {
  const double share[DJ__N_SPLITS] = {o->train, o->validation, o->test};
  for (int i = 0; i < DJ__N_SPLITS; i++)
    if (!(share[i] >= 0 && share[i] <= 1))
      return dj_error(DJ_E_INVALID, "split: the share of %s is %g; it must be from 0 to 1",
                      dj__split_names[i], share[i]);
  double sum = o->train + o->validation + o->test;
  if (fabs(sum - 1) > 1e-6)
    return dj_error(DJ_E_INVALID, "split: the shares %g + %g + %g sum to %g; they must sum to 1",
                    o->train, o->validation, o->test, sum);
  if (!(o->gap_s >= 0 && o->gap_s <= 1e6))
    return dj_error(DJ_E_INVALID, "split: the gap is %g s; it must be from 0 to 1e6", o->gap_s);
  return DJ_OK;
}

static int largest_share(const dj_split_options *o) {
  if (o->train >= o->validation && o->train >= o->test) return 0;
  return o->validation >= o->test ? 1 : 2;
}

int dj__split_cut(const uint64_t *t_ns, size_t n, const dj_split_options *o,
                  dj__block out[DJ__N_SPLITS]) {
  if (n == 0) return 0;
  if (n < DJ__SPLIT_MIN_FRAMES) {
    out[0] = (dj__block){largest_share(o), 0, n};
    return 1;
  }
  size_t n_test = (size_t)llround(o->test * (double)n);
  if (n_test > n) n_test = n;
  size_t n_validation = (size_t)llround(o->validation * (double)n);
  if (n_validation > n - n_test) n_validation = n - n_test;
  const size_t begin[DJ__N_SPLITS + 1] = {0, n - n_test - n_validation, n - n_test, n};
  const double duration = (double)(t_ns[n - 1] - t_ns[0]) * 1e-9;
  const double gap_ns = fmin(o->gap_s, 0.02 * duration) * 1e9;
  int blocks = 0;
  for (int i = 0; i < DJ__N_SPLITS; i++) {
    size_t end = begin[i + 1];
    if (end == begin[i]) continue;
    // `end` is the first frame of the next block that has any: the gap is taken off this side.
    while (end < n && end > begin[i] && (double)(t_ns[begin[i + 1]] - t_ns[end - 1]) < gap_ns)
      end--;
    if (end > begin[i]) out[blocks++] = (dj__block){i, begin[i], end - begin[i]};
  }
  return blocks;
}
