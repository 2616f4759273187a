/* Scores against values worked out by hand and in another way, and what the intervals promise. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "drive/metrics.h"

static void near(double a, double b, double eps) {
  if (!(fabs(a - b) <= eps)) fail_msg("%.12g is not %.12g (to %g)", a, b, eps);
}

static void steering_by_hand(void **state) {
  (void)state;
  // errors 0.1, -0.1, 0.3, 0; driver's mean 0.1, spread 0.04 + 0 + 0.04 + 0
  const double truth[4] = {-0.1, 0.1, 0.3, 0.1}, said[4] = {0.0, 0.0, 0.6, 0.1};
  dj_steering_scores s;
  dj__score_steering(said, truth, 4, 1, &s);
  assert_int_equal(s.n, 4);
  near(s.mae.value, 0.5 / 4, 1e-15);
  near(s.rmse.value, sqrt(0.11 / 4), 1e-15);
  near(s.r2.value, 1 - 0.11 / 0.08, 1e-12);
  // A mean over a series is a special case of the same interval.
  const double x[4] = {1, 2, 3, 4};
  near(dj__mean_with_interval(x, 4, 1).value, 2.5, 1e-15);
}

static void perfect_and_none(void **state) {
  (void)state;
  const double truth[3] = {-0.5, 0.25, 0.5};
  dj_steering_scores s;
  dj__score_steering(truth, truth, 3, 2, &s);
  near(s.mae.value, 0, 0);
  near(s.mae.low, 0, 0);
  near(s.mae.high, 0, 0);
  near(s.r2.value, 1, 0);
  dj__score_steering(truth, truth, 0, 2, &s);
  assert_int_equal(s.n, 0);
  assert_true(isnan(s.mae.value) && isnan(s.rmse.low) && isnan(s.r2.high));
  dj_figure f = dj__mean_with_interval(NULL, 0, 5);
  assert_true(isnan(f.value) && isnan(f.low) && isnan(f.high));
  // Constant steering has no spread to explain: no R2, and no infinite one.
  const double flat[3] = {0.2, 0.2, 0.2};
  dj__score_steering(truth, flat, 3, 1, &s);
  assert_true(isnan(s.r2.value));
  assert_true(isfinite(s.mae.value) && isfinite(s.mae.low) && isfinite(s.mae.high));
}

static void one_block_is_the_whole(void **state) {
  (void)state;
  // A block as long as the series draws each frame once, wherever it begins: no width at all.
  const double x[5] = {1, 5, 2, 8, 3};
  for (size_t block = 5; block < 9; block++) {
    dj_figure f = dj__mean_with_interval(x, 5, block);
    near(f.value, 3.8, 1e-15);
    near(f.low, 3.8, 1e-12);
    near(f.high, 3.8, 1e-12);
  }
}

static double gauss(dj__rng *r) {
  double sum = 0;
  for (int i = 0; i < 12; i++) sum += dj__rng_uniform(r, 0, 1);
  return sum - 6;
}

/* x_t = 0.9 x_(t-1) + e: neighbours resemble each other, as frames of a drive do. */
static void series(dj__rng *r, double *x, size_t n) {
  double v = 0;
  for (size_t i = 0; i < 100; i++) v = 0.9 * v + gauss(r);
  for (size_t i = 0; i < n; i++) x[i] = v = 0.9 * v + gauss(r);
}

/* The true mean, 0, should lie in 95 of 100 intervals. Frame by frame they are far too narrow. */
static void blocks_cover_the_true_mean(void **state) {
  (void)state;
  enum { N = 800, SERIES = 60 };
  double *x = malloc(N * sizeof *x);
  assert_non_null(x);
  dj__rng r = {.key = 7, .stream = 3};
  int covered = 0, covered_by_frames = 0;
  for (int k = 0; k < SERIES; k++) {
    series(&r, x, N);
    dj_figure f = dj__mean_with_interval(x, N, 60), g = dj__mean_with_interval(x, N, 1);
    assert_true(f.low <= f.value && f.value <= f.high);
    covered += f.low <= 0 && 0 <= f.high;
    covered_by_frames += g.low <= 0 && 0 <= g.high;
  }
  free(x);
  print_message("intervals that hold the true mean: %d of %d; frame by frame %d\n", covered, SERIES,
                covered_by_frames);
  assert_true(covered >= SERIES * 80 / 100);
  assert_true(covered_by_frames <= SERIES * 60 / 100);
}

static void the_same_every_time(void **state) {
  (void)state;
  enum { N = 300 };
  double x[N], y[N];
  dj__rng r = {.key = 1, .stream = 1};
  series(&r, x, N);
  series(&r, y, N);
  dj_steering_scores a, b;
  dj__score_steering(x, y, N, 40, &a);
  dj__score_steering(x, y, N, 40, &b);
  assert_memory_equal(&a, &b, sizeof a);
  assert_true(a.mae.low < a.mae.value && a.mae.value < a.mae.high);
  assert_true(a.rmse.value > a.mae.value); // Jensen
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(steering_by_hand),       cmocka_unit_test(perfect_and_none),
      cmocka_unit_test(one_block_is_the_whole), cmocka_unit_test(blocks_cover_the_true_mean),
      cmocka_unit_test(the_same_every_time),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
