/* The table that `dojo train --profile` prints. */
#ifndef DOJO_CLI_PROFILE_H
#define DOJO_CLI_PROFILE_H

#include <stdio.h>

#include "dojo/train.h"

/* Time of the step, totals of each op, then the slowest nodes with op, kernel, shape and label. */
void dj__print_profile(FILE *out, const dj_train_profile *p);

#endif
