/* The graph of the language-model task, shared with the bench. */
#ifndef DOJO_TEXT_TASK_H
#define DOJO_TEXT_TASK_H

#include "text/decoder.h"

/* Inputs "token" and "label" (B, T) i32; a label below 0 is left out. *loss: mean of -log p, nats a
 * token. */
dj_status dj__text_build_train(const dj_recipe *r, const dj__decoder *d, dj_graph *g, dj_val *loss);

#endif
