#include "world/delay.h"

#include <string.h>

void dj__delay_push(dj__delay *d, uint64_t step, const dj__command *c) {
  if (d->n == DJ__DELAY_MOST)
    memmove(d->pending, d->pending + 1, (size_t)--d->n * sizeof *d->pending);
  d->pending[d->n].step = step;
  d->pending[d->n++].command = *c;
}

const dj__command *dj__delay_at(dj__delay *d, uint64_t step) {
  int k = 0;
  while (k < d->n && d->pending[k].step <= step) d->now = d->pending[k++].command;
  d->n -= k;
  memmove(d->pending, d->pending + k, (size_t)d->n * sizeof *d->pending);
  return &d->now;
}
