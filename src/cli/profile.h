/* The table that `dojo train --profile` prints. */
#ifndef DOJO_CLI_PROFILE_H
#define DOJO_CLI_PROFILE_H

#include <stdio.h>

#include "dojo/train.h"

/* Time of the step, totals of each op, then the slowest nodes with op, kernel, shape and label. */
void dj__print_profile(FILE *out, const dj_train_profile *p);

/* Products and convolutions that take 1 % of a step or more, equal ones together: how fast they
 * were inside of it, how fast the same kernel is alone, and how fast oneDNN's is. Spoils the
 * program's values. */
dj_status dj__print_alone(FILE *out, dj_program *p);

#endif
