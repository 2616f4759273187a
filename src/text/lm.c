/*
 * Reading and writing text with a model.
 *
 * Two programs over the same variables and the same cache: one takes a token, one a chunk (for
 * prompts). Weights are frozen: in bf16 their copies are made once. The chunk's program is made
 * when a prompt needs it and goes afterwards, it has copies of its own.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "dojo/ops.h"
#include "dojo/text.h"
#include "text/decoder.h"

enum { CHUNK = 64, WORTH_CHUNK = 8 };

typedef struct candidate {
  float logit;
  int32_t id;
} candidate;

struct dj_lm {
  dj__decoder net;
  dj_vars *vars;
  char backend[32];
  dj_precision precision;
  int threads;
  dj_program *one, *chunk; // a token; CHUNK tokens (NULL: not made)
  const float *logits;     // (V) of one or chunk; NULL before the first token
  float *kept;             // (V) logits of a chunk whose program is gone
  int32_t *text;           // (context) tokens in the cache
  int n;                   // of them
  candidate *heap;         // (V)
};

// ---- programs ----------------------------------------------------------------------------------

static dj_status compile(dj_lm *m, dj_graph *g, dj_program **p) {
  return dj_program_compile(
      g,
      &(dj_compile_options){
          .backend = m->backend, .precision = m->precision, .threads = m->threads, .frozen = true},
      m->vars, p);
}

/* Inputs "token" (1, T), "position" (T), "last" (1) i32: which token's logits are wanted. */
static dj_status make_program(dj_lm *m, int t, dj_program **p) {
  dj_graph *g = dj_graph_create();
  if (!g) return dj_error(DJ_E_NOMEM, "text: no memory for the graph");
  dj_val token = dj_input(g, "token", DJ_I32, DJ_SHAPE(1, t));
  dj_val position = dj_input(g, "position", DJ_I32, DJ_SHAPE(t));
  dj_val last = dj_input(g, "last", DJ_I32, DJ_SHAPE(1));
  dj__hidden h = dj__decoder_next(g, &m->net, token, position);
  dj_val x = dj_gather(g, dj_reshape(g, h.x, DJ_SHAPE(t, m->net.width)), last); // (1, E)
  dj_output(g, "logits", dj__decoder_logits(g, &m->net, &h, x));
  dj_status s = compile(m, g, p);
  dj_graph_destroy(g);
  return s;
}

static int32_t *input(dj_program *p, const char *name) {
  return dj_program_input(p, name)->data;
}

/* Runs the program of t tokens on the `n` tokens from place `from` of the text. */
static dj_status run(dj_lm *m, dj_program *p, int t, int from, int n) {
  for (int i = 0; i < t; i++) {
    // What is beyond the text goes into rows of the cache that are written again before they are
    // read.
    input(p, "token")[i] = m->text[from + (i < n ? i : 0)];
    input(p, "position")[i] = from + i;
  }
  *input(p, "last") = n - 1;
  DJ_TRY(dj_program_run(p, 0));
  m->logits = dj_program_output(p, "logits")->data;
  return DJ_OK;
}

/* Tokens `from` .. m->n of the text into the cache. */
static dj_status catch_up(dj_lm *m, int from) {
  while (from < m->n) {
    int left = m->n - from;
    if (left >= WORTH_CHUNK && from + CHUNK <= m->net.context) {
      if (!m->chunk) DJ_TRY(make_program(m, CHUNK, &m->chunk));
      int n = left < CHUNK ? left : CHUNK;
      DJ_TRY(run(m, m->chunk, CHUNK, from, n));
      from += n;
    } else {
      if (!m->one) DJ_TRY(make_program(m, 1, &m->one));
      DJ_TRY(run(m, m->one, 1, from++, 1));
    }
  }
  if (!m->chunk) return DJ_OK;
  if (m->logits == (const float *)dj_program_output(m->chunk, "logits")->data) {
    memcpy(m->kept, m->logits, (size_t)m->net.vocabulary * sizeof *m->kept);
    m->logits = m->kept;
  }
  dj_program_destroy(m->chunk);
  m->chunk = NULL;
  return DJ_OK;
}

dj_status dj_lm_feed(dj_lm *m, const int32_t *ids, size_t n) {
  const int context = m->net.context, half = context / 2;
  for (size_t i = 0; i < n; i++)
    if (ids[i] < 0 || ids[i] >= m->net.vocabulary)
      return dj_error(DJ_E_INVALID, "text: token %zu is %" PRId32 "; ids go from 0 to %d", i,
                      ids[i], m->net.vocabulary - 1);
  while (n) {
    int from = m->n, room = context - m->n;
    if (!room) { // go on from the last half
      memmove(m->text, m->text + context - half, (size_t)half * sizeof *m->text);
      m->n = half;
      from = 0;
      room = context - half;
    }
    int take = n < (size_t)room ? (int)n : room;
    memcpy(m->text + m->n, ids, (size_t)take * sizeof *ids);
    m->n += take;
    ids += take;
    n -= (size_t)take;
    DJ_TRY(catch_up(m, from));
  }
  return DJ_OK;
}

void dj_lm_forget(dj_lm *m) {
  m->n = 0;
  m->logits = NULL;
}

const float *dj_lm_logits(const dj_lm *m) {
  return m->logits;
}
int32_t dj_lm_vocabulary(const dj_lm *m) {
  return m->net.vocabulary;
}
int dj_lm_context(const dj_lm *m) {
  return m->net.context;
}

dj_status dj_lm_score(dj_lm *m, const int32_t *ids, size_t n, float *logits) {
  if (n < 1 || n > (size_t)m->net.context)
    return dj_error(DJ_E_INVALID, "score: %zu tokens; 1 to %d (the context) are read at once", n,
                    m->net.context);
  for (size_t i = 0; i < n; i++)
    if (ids[i] < 0 || ids[i] >= m->net.vocabulary)
      return dj_error(DJ_E_INVALID, "score: token %zu is %" PRId32 "; ids go from 0 to %d", i,
                      ids[i], m->net.vocabulary - 1);
  dj_graph *g = dj_graph_create();
  if (!g) return dj_error(DJ_E_NOMEM, "score: no memory for the graph");
  dj_program *p = NULL;
  dj_val token = dj_input(g, "token", DJ_I32, DJ_SHAPE(1, (int64_t)n));
  dj__hidden h = dj__decoder_hidden(g, &m->net, token, false);
  dj_output(g, "logits", dj__decoder_logits(g, &m->net, &h, h.x));
  dj_status s = compile(m, g, &p);
  if (!s) {
    memcpy(dj_program_input(p, "token")->data, ids, n * sizeof *ids);
    s = dj_program_run(p, 0);
  }
  if (!s) {
    const dj_tensor *out = dj_program_output(p, "logits"); // (1, n, V) f32
    memcpy(logits, out->data, dj_tensor_bytes(out));
  }
  dj_program_destroy(p);
  dj_graph_destroy(g);
  return s;
}

// ---- sampling ----------------------------------------------------------------------------------

/* Likelier first; equal ones by id, so that a seed gives one text. */
static bool before(candidate a, candidate b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

static void sift_down(candidate *heap, int n, int i) {
  for (candidate x = heap[i];;) {
    int child = 2 * i + 1;
    if (child + 1 < n && before(heap[child + 1], heap[child])) child++;
    if (child >= n || !before(heap[child], x)) {
      heap[i] = x;
      return;
    }
    heap[i] = heap[child];
    i = child;
  }
}

/* Takes the likeliest off the heap's top: to its end. */
static candidate pop(candidate *heap, int *n) {
  candidate top = heap[0];
  heap[0] = heap[--*n];
  if (*n) sift_down(heap, *n, 0);
  heap[*n] = top;
  return top;
}

/* Moves the likeliest candidates, as many as `how` leaves, to the end of the array, in order from
 * its last; where they begin. *sum: of their exp(logit), before: of all. */
static int keep_likeliest(candidate *heap, int n, const dj_sampling *how, double *sum) {
  int left = n; // in the heap; heap[left .. n) are out of it
  for (int i = n / 2; i-- > 0;) sift_down(heap, n, i);
  if (how->top_k > 0 && how->top_k < n)
    for (*sum = 0; n - left < how->top_k;) *sum += (double)expf(pop(heap, &left).logit);
  if (!(how->top_p > 0 && how->top_p < 1)) return left;
  const int last = how->top_k > 0 && how->top_k < n ? left : 0; // top_p is a share of top_k's sum
  const double wanted = (double)how->top_p * *sum;
  int at = n;
  for (*sum = 0; *sum < wanted && at > last;) {
    if (at == left) (void)pop(heap, &left);
    *sum += (double)expf(heap[--at].logit);
  }
  return at;
}

int32_t dj_lm_sample(dj_lm *m, const dj_sampling *how, uint64_t index) {
  if (!m->logits) return -1;
  const int n = m->net.vocabulary;
  int best = 0, from = 0;
  for (int i = 1; i < n; i++)
    if (m->logits[i] > m->logits[best]) best = i;
  if (!(how->temperature > 0)) return best;
  const float inv = 1 / how->temperature, max = m->logits[best];
  double sum = 0;
  for (int i = 0; i < n; i++) {
    m->heap[i] = (candidate){(m->logits[i] - max) * inv, i};
    sum += (double)expf(m->heap[i].logit);
  }
  if ((how->top_k > 0 && how->top_k < n) || (how->top_p > 0 && how->top_p < 1))
    from = keep_likeliest(m->heap, n, how, &sum);
  dj__rng r = {how->seed, index, 0};
  double x = (double)dj__rng_uniform(&r, 0, 1) * sum;
  int i = n - 1;
  for (; i > from; i--) {
    x -= (double)expf(m->heap[i].logit);
    if (x < 0) break;
  }
  return m->heap[i].id;
}

// ---- opening -----------------------------------------------------------------------------------

static dj_status set_up(dj_lm *m, const char *dir, const dj_lm_options *o,
                        const dj_run_info *info) {
  if (info->recipe->task != DJ_TASK_TEXT)
    return dj_error(DJ_E_INVALID, "%s: recipe '%s' is for driving; it writes no text", dir,
                    info->recipe->name);
  const char *backend = o->backend ? o->backend : info->backend;
  const char *precision = o->precision ? o->precision : info->precision;
  if (strcmp(precision, "f32") != 0 && strcmp(precision, "bf16") != 0)
    return dj_error(DJ_E_INVALID, "precision '%.40s': known are f32 and bf16", precision);
  (void)snprintf(m->backend, sizeof m->backend, "%s", backend);
  m->precision = precision[0] == 'b' ? DJ_PRECISION_BF16 : DJ_PRECISION_F32;
  m->threads = o->threads;
  DJ_TRY(dj_checkpoint_load_run(dir, DJ_CHECKPOINT_BEST, m->vars, NULL));
  const dj_var *table = dj_vars_find(m->vars, "decoder/token/weight");
  if (!table || table->tensor.shape.rank != 2)
    return dj_error(DJ_E_FORMAT, "%s: holds no variable 'decoder/token/weight'", dir);
  DJ_TRY(dj__decoder_of(info->recipe, (int32_t)table->tensor.shape.dim[0], &m->net));
  size_t v = (size_t)m->net.vocabulary;
  m->kept = malloc(v * sizeof *m->kept);
  m->heap = malloc(v * sizeof *m->heap);
  m->text = malloc((size_t)m->net.context * sizeof *m->text);
  return m->kept && m->heap && m->text ? DJ_OK : dj_error(DJ_E_NOMEM, "%s: no memory", dir);
}

dj_status dj_lm_open(const char *dir, const dj_lm_options *o, dj_lm **out) {
  *out = NULL;
  dj_run_info info;
  DJ_TRY(dj_run_read(dir, &info));
  dj_lm *m = calloc(1, sizeof *m);
  dj_status s = DJ_OK;
  if (!m || !(m->vars = dj_vars_create(0))) s = dj_error(DJ_E_NOMEM, "%s: no memory", dir);
  if (!s) s = set_up(m, dir, o, &info);
  dj_run_info_free(&info);
  if (s)
    dj_lm_close(m);
  else
    *out = m;
  return s;
}

void dj_lm_close(dj_lm *m) {
  if (!m) return;
  dj_program_destroy(m->one);
  dj_program_destroy(m->chunk);
  dj_vars_destroy(m->vars);
  free(m->kept);
  free(m->heap);
  free(m->text);
  free(m);
}
