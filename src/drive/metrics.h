/* Scores with intervals, from arrays. Definitions: dojo/drive.h and docs/evaluation.md. */
#ifndef DOJO_DRIVE_METRICS_H
#define DOJO_DRIVE_METRICS_H

#include <stddef.h>

#include "dojo/drive.h"

enum { DJ__RESAMPLES = 1000 };

/* prediction, truth: (n), consecutive in time; `block`: frames in a bootstrap block. */
void dj__score_steering(const double *prediction, const double *truth, size_t n, size_t block,
                        dj_steering_scores *s);
/* Mean of x (n) with its interval. */
dj_figure dj__mean_with_interval(const double *x, size_t n, size_t block);

#endif
