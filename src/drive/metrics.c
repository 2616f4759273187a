/*
 * Scores and their 95 % intervals.
 *
 * Frames of a drive resemble their neighbours, so the interval comes from a block bootstrap: series
 * of the same length are drawn block by block from the scored one, and the 2.5th and 97.5th
 * percentile of the figure over 1000 of them are given. Blocks may begin at every frame and go on
 * at the start where the series ends, so that every frame is drawn as often as any other (Politis &
 * Romano 1992, "A circular block-resampling procedure for stationary data"); without that, the ends
 * of a short drive would hardly count. The seed is fixed: the same scores give the same interval.
 */
#include "drive/metrics.h"

#include <math.h>
#include <stdlib.h>

#include "base/rng.h"

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* What one pass over a (resampled) series adds up to. */
typedef struct sums {
  double n, abs, square, truth, truth_square;
} sums;

/* `count` frames from `from` on, round the end; n frames in all, count <= n. */
static void add(sums *s, const double *prediction, const double *truth, size_t n, size_t from,
                size_t count) {
  for (size_t k = 0; k < count; k++) {
    size_t i = from + k < n ? from + k : from + k - n;
    double d = prediction[i] - truth[i];
    s->n++;
    s->abs += fabs(d);
    s->square += d * d;
    s->truth += truth[i];
    s->truth_square += truth[i] * truth[i];
  }
}

static double mae(const sums *s) {
  return s->abs / s->n;
}
static double rmse(const sums *s) {
  return sqrt(s->square / s->n);
}
static double r2(const sums *s) {
  double spread = s->truth_square - s->truth * s->truth / s->n;
  return spread > 0 ? 1 - s->square / spread : NAN;
}

static dj_figure interval(double value, double *resampled, size_t n) {
  qsort(resampled, n, sizeof *resampled, ascending);
  return (dj_figure){value, resampled[(size_t)(0.025 * (double)(n - 1) + 0.5)],
                     resampled[(size_t)(0.975 * (double)(n - 1) + 0.5)]};
}

void dj__score_steering(const double *prediction, const double *truth, size_t n, size_t block,
                        dj_steering_scores *s) {
  dj_figure none = {NAN, NAN, NAN};
  *s = (dj_steering_scores){.n = n, .mae = none, .rmse = none, .r2 = none};
  if (!n) return;
  if (block < 1) block = 1;
  if (block > n) block = n;
  sums all = {0};
  add(&all, prediction, truth, n, 0, n);
  double drawn[3][DJ__RESAMPLES];
  dj__rng r = {.key = 95, .stream = 1};
  for (int k = 0; k < DJ__RESAMPLES; k++) {
    sums one = {0};
    for (size_t got = 0; got < n; got += block) {
      size_t count = n - got < block ? n - got : block;
      add(&one, prediction, truth, n, (size_t)dj__rng_below(&r, n), count);
    }
    drawn[0][k] = mae(&one);
    drawn[1][k] = rmse(&one);
    double fit = r2(&one); // a stretch of constant steering has none: it counts as the whole's
    drawn[2][k] = isnan(fit) ? r2(&all) : fit;
  }
  s->mae = interval(mae(&all), drawn[0], DJ__RESAMPLES);
  s->rmse = interval(rmse(&all), drawn[1], DJ__RESAMPLES);
  s->r2 = interval(r2(&all), drawn[2], DJ__RESAMPLES);
}

dj_figure dj__mean_with_interval(const double *x, size_t n, size_t block) {
  if (!n) return (dj_figure){NAN, NAN, NAN};
  if (block < 1) block = 1;
  if (block > n) block = n;
  double drawn[DJ__RESAMPLES], total = 0;
  for (size_t i = 0; i < n; i++) total += x[i];
  dj__rng r = {.key = 95, .stream = 2};
  for (int k = 0; k < DJ__RESAMPLES; k++) {
    double sum = 0;
    for (size_t got = 0; got < n; got += block) {
      size_t count = n - got < block ? n - got : block, from = (size_t)dj__rng_below(&r, n);
      for (size_t i = 0; i < count; i++) sum += x[from + i < n ? from + i : from + i - n];
    }
    drawn[k] = sum / (double)n;
  }
  return interval(total / (double)n, drawn, DJ__RESAMPLES);
}
