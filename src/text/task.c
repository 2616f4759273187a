/*
 * The language-model task: predict the next token of a file of tokens.
 *
 * The last share of the file validates, the rest trains. A training window begins anywhere: where
 * is a pure function of (seed, step, place in the batch). Validation windows lie side by side, or
 * spread evenly where there are more than the recipe asks for.
 */
#include "text/task.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/rng.h"
#include "dojo/ops.h"
#include "dojo/text.h"

typedef struct text_task {
  dj_task base;
  const dj_recipe *recipe;
  dj__decoder net;
  dj_tokens *tokens;
  const int32_t *ids;
  size_t n_train, n_all; // ids[0 .. n_train) train, ids[n_train .. n_all) validate
} text_task;

// ---- graph -------------------------------------------------------------------------------------

/* Loss of every token: (B * T) f32. */
static dj_val losses(dj_graph *g, const dj_recipe *r, const dj__decoder *d, bool training) {
  dj_shape s = DJ_SHAPE(r->train.batch, d->context);
  dj_val token = dj_input(g, "token", DJ_I32, s), label = dj_input(g, "label", DJ_I32, s);
  dj__hidden h = dj__decoder_hidden(g, d, token, training);
  int64_t n = s.dim[0] * s.dim[1];
  dj_val x = dj_reshape(g, h.x, DJ_SHAPE(n, d->width));
  dj_val logits = dj__decoder_logits(g, d, &h, x);
  return dj_cross_entropy(g, logits, dj_reshape(g, label, DJ_SHAPE(n)));
}

dj_status dj__text_build_train(const dj_recipe *r, const dj__decoder *d, dj_graph *g,
                               dj_val *loss) {
  *loss = dj_mean(g, losses(g, r, d, true), DJ_ALL_AXES);
  return dj_graph_status(g);
}

static dj_status build(dj_task *base, dj_graph *g, bool training, dj_val *loss) {
  text_task *t = (text_task *)base;
  *loss = DJ_NONE;
  if (training) return dj__text_build_train(t->recipe, &t->net, g, loss);
  dj_output(g, "loss/sum", dj_sum(g, losses(g, t->recipe, &t->net, false), DJ_ALL_AXES));
  return dj_graph_status(g);
}

// ---- batches -----------------------------------------------------------------------------------

static int32_t *input(dj_program *p, const char *name) {
  return dj_program_input(p, name)->data;
}

/* Row b of the batch: the window that begins at token `from`. */
static void put_window(const text_task *t, dj_program *p, int b, size_t from) {
  size_t n = (size_t)t->net.context;
  memcpy(input(p, "token") + (size_t)b * n, t->ids + from, n * sizeof *t->ids);
  memcpy(input(p, "label") + (size_t)b * n, t->ids + from + 1, n * sizeof *t->ids);
}

static dj_status fill(dj_task *base, dj_program *p, uint64_t step, uint64_t *samples) {
  const text_task *t = (const text_task *)base;
  int batch = t->recipe->train.batch;
  for (int b = 0; b < batch; b++) {
    dj__rng r = {t->recipe->train.seed, step, (uint64_t)b * 2}; // two numbers a window
    put_window(t, p, b, (size_t)dj__rng_below(&r, t->n_train - (size_t)t->net.context));
  }
  *samples = (uint64_t)batch;
  return DJ_OK;
}

static uint64_t steps_per_epoch(dj_task *base) {
  const text_task *t = (const text_task *)base;
  uint64_t tokens = (uint64_t)t->recipe->train.batch * (uint64_t)t->net.context;
  return (t->n_train + tokens - 1) / tokens;
}

static dj_status validate(dj_task *base, dj_program *p, dj_scores *scores) {
  const text_task *t = (const text_task *)base;
  size_t context = (size_t)t->net.context, length = t->n_all - t->n_train;
  size_t all = length > context ? (length - 1) / context : 0;
  size_t n = all < (size_t)t->recipe->data.windows ? all : (size_t)t->recipe->data.windows;
  int batch = t->recipe->train.batch;
  double sum = 0;
  *scores = (dj_scores){.best = -1};
  if (!n) return DJ_OK;
  for (size_t done = 0; done < n;) {
    int b = 0;
    for (; b < batch && done < n; b++, done++)
      put_window(t, p, b, t->n_train + done * all / n * context);
    for (; b < batch; b++) {
      put_window(t, p, b, t->n_train);
      memset(input(p, "label") + (size_t)b * context, 0xff, context * sizeof(int32_t)); // -1
    }
    DJ_TRY(dj_program_run(p, 0));
    sum += (double)*(const float *)dj_program_output(p, "loss/sum")->data;
  }
  dj_scores_add(scores, "loss", sum / (double)(n * context));
  scores->best = 0;
  return DJ_OK;
}

static dj_status describe(dj_task *base, char **json) {
  const text_task *t = (const text_task *)base;
  *json = dj__strf("{\"task\": \"text\", \"network\": \"decoder\", \"data\": \"%s\", "
                   "\"vocabulary\": %d}",
                   dj_tokens_digest(t->tokens), t->net.vocabulary);
  return DJ_OK;
}

static void destroy(dj_task *base) {
  text_task *t = (text_task *)base;
  dj_tokens_close(t->tokens);
  free(t);
}

static const dj_task_ops ops = {.name = "text",
                                .build = build,
                                .fill = fill,
                                .validate = validate,
                                .describe = describe,
                                .steps_per_epoch = steps_per_epoch,
                                .destroy = destroy};

static dj_status open_tokens(text_task *t, const char *path) {
  const dj_recipe *r = t->recipe;
  DJ_TRY(dj_tokens_open(path, &t->tokens));
  DJ_TRY(dj__decoder_of(r, dj_tokens_vocabulary(t->tokens), &t->net));
  t->ids = dj_tokens_data(t->tokens, &t->n_all);
  t->n_train = t->n_all - (size_t)((double)r->data.validation * (double)t->n_all);
  if (t->n_train <= (size_t)t->net.context)
    return dj_error(DJ_E_INVALID,
                    "%s: %zu tokens train, but data.context in %s is %d; give more text or a "
                    "shorter context",
                    path, t->n_train, r->file, t->net.context);
  return DJ_OK;
}

dj_status dj_task_create_text(const dj_recipe *r, const char *tokens, dj_task **task) {
  *task = NULL;
  if (!tokens)
    return dj_error(DJ_E_INVALID, "%s: a text recipe needs a file of tokens (--tokens)", r->file);
  text_task *t = calloc(1, sizeof *t);
  if (!t) return dj_error(DJ_E_NOMEM, "text task: out of memory");
  t->base.ops = &ops;
  t->recipe = r;
  dj_status s = open_tokens(t, tokens);
  if (s)
    destroy(&t->base);
  else
    *task = &t->base;
  return s;
}
