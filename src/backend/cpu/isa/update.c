/*
 * Kernels of the update ops: optimiser steps over all variables in one pass, gradient accumulation,
 * assignment, running statistics, and the global norm.
 *
 * All variables are cut into blocks of DJ__NORM_BLOCK elements, counted through from the first
 * variable to the last; threads take equal shares of the blocks, so that many small variables and a
 * few large ones are both spread. Of a weight that kernels want packed (dj__call.copies) a thread
 * gets whole groups of rows, and packs each when it is updated and still in cache. Per element the
 * arithmetic is f32 (constants are prepared in double); the norm is summed in double, a sum for
 * each block, added in the order of the blocks.
 *
 * After the first update the moments of a variable are functions of one gradient: a backend may
 * keep that instead, and have the moments written when they are needed.
 */
#include "backend/cpu/isa/basic.h"
#include "engine/attrs.h"

enum {
  CHUNK = DJ__NORM_BLOCK,
  PIECE = 64, /* elements worked on between two requests to memory */
  AHEAD = 256
};

static const dj__copy *copies_of(const dj__call *c, int input) {
  return c->copies ? c->copies[input] : NULL;
}

/* Elements of a block: fewer where each is packed, too, so that blocks take equal times. */
static int64_t block_of(const dj__call *c, int input) {
  enum { UPDATE = 6 }; /* times as long as writing a copy */
  int64_t work = UPDATE;
  for (const dj__copy *copy = copies_of(c, input); copy; copy = copy->next) work++;
  return CHUNK * UPDATE / work;
}

static int64_t chunks_of(const dj__call *c, int input) {
  const int64_t block = block_of(c, input);
  return (dj_shape_count(&c->in[input].shape) + block - 1) / block;
}

/* Inputs first, first + step, .. are cut into blocks: the position of one of them. */
typedef struct cursor {
  int input;
  int64_t block; /* of that input */
} cursor;

static cursor cursor_at(const dj__call *c, int first, int step, int64_t block) {
  cursor at = {first, block};
  while (at.input < c->n_in && at.block >= chunks_of(c, at.input)) {
    at.block -= chunks_of(c, at.input);
    at.input += step;
  }
  return at;
}
static void cursor_next(const dj__call *c, int step, cursor *at) {
  at->block++;
  while (at->input < c->n_in && at->block >= chunks_of(c, at->input)) {
    at->block = 0;
    at->input += step;
  }
}
static int64_t all_chunks(const dj__call *c, int first, int step, int64_t *elements) {
  int64_t n = 0;
  *elements = 0;
  for (int i = first; i < c->n_in; i += step) {
    n += chunks_of(c, i);
    *elements += dj_shape_count(&c->in[i].shape);
  }
  return n;
}

/* ---- optimisers ---- */
typedef struct step_constants {
  float clip, beta1, rest1, beta2, rest2, correct1, correct2, eps, lr, decay, ema_rest;
  void *const *kept; /* of dj__late; NULL: nowhere */
} step_constants;

DJ__INLINE void average_piece(float *ema, const float *p, int64_t n, float rest) {
  DJ__SIMD for (int64_t i = 0; i < n; i++) ema[i] += rest * (p[i] - ema[i]);
}

/* The corrections of both averages are drawn out of the root: one division an element. m, v NULL:
 * they were zero, and are not written. */
DJ__INLINE void adamw_piece(float *p, const float *g, float *m, float *v, int64_t n,
                            const step_constants s) {
  const float root = __builtin_sqrtf(s.correct2), scale = root / s.correct1, eps = s.eps * root;
  DJ__SIMD for (int64_t i = 0; i < n; i++) {
    float gi = g[i] * s.clip;
    float mi = s.rest1 * gi, vi = s.rest2 * gi * gi;
    if (m) {
      mi += s.beta1 * m[i];
      vi += s.beta2 * v[i];
      m[i] = mi;
      v[i] = vi;
    }
    float step = scale * mi / (__builtin_sqrtf(vi) + eps);
    p[i] -= s.lr * (step + s.decay * p[i]);
  }
}

DJ__INLINE void sgd_piece(float *p, const float *g, float *m, int64_t n, const step_constants s) {
  DJ__SIMD for (int64_t i = 0; i < n; i++) {
    float mi = s.beta1 * m[i] + (g[i] * s.clip + s.decay * p[i]);
    m[i] = mi;
    p[i] -= s.lr * mi;
  }
}

/* What belongs to a variable, from some element on; m, v and ema may be NULL, g may be bf16. kept:
 * where g is kept; NULL: nowhere. */
typedef struct variable {
  float *p, *m, *v, *ema;
  void *kept;
  const void *g;
  dj_dtype g_type;
} variable;

static float *floats(const dj__call *c, int i, int64_t from) {
  return c->in[i].shape.rank < 0 ? NULL : (float *)c->in[i].data + from;
}

/* Asks for what lies AHEAD: what the processor fetches by itself ends with each page. */
DJ__INLINE void ask(const void *x, dj_dtype t) {
  const char *to = at(x, t, AHEAD);
  for (int64_t b = 0; b < PIECE * (int64_t)dj_dtype_size(t); b += 64) __builtin_prefetch(to + b);
}

/* Elements [i, i + n), n at most PIECE. */
DJ__INLINE void update_piece(bool adamw, const variable *x, int64_t i, int64_t n,
                             const step_constants s) {
  float made[PIECE];
  const void *at_i = at(x->g, x->g_type, i);
  const float *g = at_i;
  if (x->g_type == DJ_BF16) {
    DJ__SIMD for (int64_t k = 0; k < n; k++) made[k] = ld(at_i, DJ_BF16, k);
    g = made;
  }
  if (x->kept) {
    memcpy(at_w(x->kept, x->g_type, i), at_i, (size_t)n * dj_dtype_size(x->g_type));
    adamw_piece(x->p + i, g, NULL, NULL, n, s);
  } else if (adamw)
    adamw_piece(x->p + i, g, x->m + i, x->v + i, n, s);
  else
    sgd_piece(x->p + i, g, x->m + i, n, s);
  if (x->ema) average_piece(x->ema + i, x->p + i, n, s.ema_rest);
}

DJ__INLINE void update_pieces(bool adamw, const variable *x, int64_t n, const step_constants s) {
  int64_t i = 0;
  for (; i + PIECE <= n; i += PIECE) {
    ask(x->p + i, DJ_F32), ask(at(x->g, x->g_type, i), x->g_type);
    if (!x->kept) ask(x->m + i, DJ_F32);
    if (!x->kept && adamw) ask(x->v + i, DJ_F32);
    update_piece(adamw, x, i, PIECE, s);
  }
  update_piece(adamw, x, i, n - i, s);
}

/* Elements [from, from + n) of the variable that is this input. */
static void update_block(const dj__call *c, int input, int64_t from, int64_t n,
                         const step_constants *general) {
  const dj__update_attr *a = c->attr;
  const dj__update_var *var = &a->var[(input - DJ__UPDATE_FIRST) / DJ__UPDATE_PER_VAR];
  const dj_tensor *g = &c->in[input + 1];
  step_constants k = *general;
  k.lr = general->lr * var->lr_scale;
  k.decay = var->weight_decay;
  void *kept = k.kept ? k.kept[(input - DJ__UPDATE_FIRST) / DJ__UPDATE_PER_VAR] : NULL;
  const variable x = {.p = floats(c, input, from),
                      .kept = kept ? at_w(kept, g->dtype, from) : NULL,
                      .m = floats(c, input + 2, from),
                      .v = floats(c, input + 3, from),
                      .ema = floats(c, input + 4, from),
                      .g = at(g->data, g->dtype, from),
                      .g_type = g->dtype};
  if (c->op == DJ__OP_adamw)
    update_pieces(true, &x, n, k);
  else
    update_pieces(false, &x, n, k);
}

/* Elements of a variable that one thread updates together: a block, or rows that are packed. */
static int64_t group_of(const dj__call *c, int input) {
  int64_t rows = 0;
  for (const dj__copy *copy = copies_of(c, input); copy; copy = copy->next)
    if (copy->layout->unit > rows) rows = copy->layout->unit;
  const dj_shape *s = &c->in[input].shape;
  const int64_t unit = rows ? dj_shape_count(s) / s->dim[0] * rows : CHUNK;
  return unit < CHUNK ? CHUNK / unit * unit : unit;
}

/* Groups of the variable from element `from` to `to`. k NULL: copies only. */
static void update_groups(const dj__call *c, int input, int64_t from, int64_t to,
                          const step_constants *k) {
  const dj_shape *s = &c->in[input].shape;
  const int64_t group = group_of(c, input), row = s->rank ? dj_shape_count(s) / s->dim[0] : 1;
  for (int64_t end; from < to; from = end) {
    end = to - from < group ? to : from + group;
    for (int64_t i = from; k && i < end; i += CHUNK)
      update_block(c, input, i, end - i < CHUNK ? end - i : CHUNK, k);
    for (const dj__copy *copy = copies_of(c, input); copy; copy = copy->next)
      DJ__I(pack)(copy->layout, copy->data, c->in[input].data, from / row, end / row);
  }
}

/* The first element, from a block on, that begins a group. */
static int64_t group_from(const dj__call *c, cursor at) {
  const int64_t group = group_of(c, at.input);
  return at.block * block_of(c, at.input) / group * group;
}

/* The groups that begin in blocks [from, to) of all. */
static void update_share(const dj__call *c, int64_t from, int64_t to, const step_constants *k) {
  const cursor first = cursor_at(c, DJ__UPDATE_FIRST, DJ__UPDATE_PER_VAR, from),
               last = cursor_at(c, DJ__UPDATE_FIRST, DJ__UPDATE_PER_VAR, to);
  for (int i = first.input; i < c->n_in && i <= last.input; i += DJ__UPDATE_PER_VAR)
    update_groups(c, i, i == first.input ? group_from(c, first) : 0,
                  i == last.input ? group_from(c, last) : dj_shape_count(&c->in[i].shape), k);
}

static void update_all(const dj__call *c, const step_constants *k) {
  int64_t elements, chunks = all_chunks(c, DJ__UPDATE_FIRST, DJ__UPDATE_PER_VAR, &elements);
  int nt = threads_for(c, elements);
#pragma omp parallel num_threads(nt)
  {
    int t = omp_get_thread_num(), team = omp_get_num_threads();
    update_share(c, part_from(chunks, team, t), part_from(chunks, team, t + 1), k);
  }
}

/* inputs: hyper (8), guard (2), then param, grad, m, v, ema of every variable, all f32 but grad,
 * which may be bf16. late: NULL, or where gradients are kept. */
static void update_run(const dj__call *c, dj__late *late) {
  const float *h = c->in[0].data; // (8) f32
  step_constants k;
  if (!dj__update_clip(h, c->in[1].data, &k.clip)) {
    if (c->copies) update_all(c, NULL); // whose memory has served others in this run
    return;
  }
  const bool first = c->op == DJ__OP_adamw && dj__update_is_first(h);
  k.beta1 = first ? 0 : h[DJ__HYPER_BETA1];
  k.rest1 = (float)(1 - (double)h[DJ__HYPER_BETA1]);
  k.beta2 = first ? 0 : h[DJ__HYPER_BETA2];
  k.rest2 = (float)(1 - (double)h[DJ__HYPER_BETA2]);
  k.correct1 = h[DJ__HYPER_CORRECT1];
  k.correct2 = h[DJ__HYPER_CORRECT2];
  k.eps = h[DJ__HYPER_EPS];
  k.lr = h[DJ__HYPER_LR];
  k.decay = 0;
  k.ema_rest = (float)(1 - (double)h[DJ__HYPER_EMA]);
  k.kept = late ? late->kept : NULL;
  if (late) *late = (dj__late){late->kept, k.clip, k.rest1, k.rest2};
  update_all(c, &k);
}

/* self: dj__late; NULL: moments are always written. */
dj_status DJ__I(adamw_run)(const dj__call *c, void *self) {
  update_run(c, self);
  return DJ_OK;
}
dj_status DJ__I(sgd_run)(const dj__call *c, void *self) {
  (void)self;
  update_run(c, NULL);
  return DJ_OK;
}

/* m and v of a variable as its first update leaves them. */
DJ__INLINE void first_moments(float *m, float *v, const void *g, const dj_dtype t, int64_t n,
                              const dj__late *late, int nt) {
  const float clip = late->clip, rest1 = late->rest1, rest2 = late->rest2;
#pragma omp parallel for simd schedule(static) num_threads(nt)
  for (int64_t i = 0; i < n; i++) {
    float gi = ld(g, t, i) * clip;
    m[i] = rest1 * gi;
    v[i] = rest2 * gi * gi;
  }
}

void DJ__I(adamw_moments)(const dj__call *c, int number, const dj__late *late) {
  const int input = DJ__UPDATE_FIRST + DJ__UPDATE_PER_VAR * number;
  const int64_t n = dj_shape_count(&c->in[input].shape);
  DJ__WITH_DTYPE(c->in[input + 1].dtype, T,
                 first_moments(floats(c, input + 2, 0), floats(c, input + 3, 0), late->kept[number],
                               T, n, late, threads_for(c, n)));
}

/* ---- global norm ---- */
/* Side by side, so that no addition waits for the one before. */
DJ__INLINE double square_sum(const void *x, const dj_dtype t, int64_t n) {
  enum { SUMS = 32 };
  double part[SUMS] = {0}, sum = 0;
  int64_t i = 0;
  for (; i + SUMS <= n; i += SUMS)
    DJ__SIMD for (int64_t k = 0; k < SUMS; k++) part[k] +=
        (double)ld(x, t, i + k) * (double)ld(x, t, i + k);
  for (; i < n; i++) sum += (double)ld(x, t, i) * (double)ld(x, t, i);
  for (int64_t k = 0; k < SUMS; k++) sum += part[k];
  return sum;
}

size_t DJ__I(global_norm_workspace)(const dj__call *c) {
  int64_t elements;
  return (size_t)all_chunks(c, 0, 1, &elements) * sizeof(double);
}

dj_status DJ__I(global_norm_run)(const dj__call *c, void *self) {
  (void)self;
  double *sums = c->workspace; // (chunks) f64
  int64_t elements, chunks = all_chunks(c, 0, 1, &elements);
  int nt = threads_for(c, elements);
#pragma omp parallel num_threads(nt)
  {
    int t = omp_get_thread_num(), team = omp_get_num_threads();
    int64_t b = part_from(chunks, team, t), to = part_from(chunks, team, t + 1);
    cursor pos = cursor_at(c, 0, 1, b);
    for (; b < to; b++, cursor_next(c, 1, &pos)) {
      const dj_tensor *x = &c->in[pos.input]; // (...) f32 or bf16
      const int64_t from = pos.block * CHUNK, rest = dj_shape_count(&x->shape) - from;
      DJ__WITH_DTYPE(x->dtype, T,
                     sums[b] = square_sum(at(x->data, T, from), T, rest < CHUNK ? rest : CHUNK));
    }
  }
  double total = 0;
  for (int64_t b = 0; b < chunks; b++) total += sums[b];
  *(float *)c->out[0].data = (float)__builtin_sqrt(total);
  return DJ_OK;
}

/* ---- state ---- */
dj_status DJ__I(accumulate_run)(const dj__call *c, void *self) {
  (void)self;
  float *state = c->in[0].data;   // (...) f32
  const float *x = c->in[1].data; // (...) f32
  float scale = ((const dj__accumulate_attr *)c->attr)->scale;
  int64_t n = dj_shape_count(&c->in[0].shape);
  int nt = threads_for(c, n);
#pragma omp parallel for simd schedule(static) num_threads(nt)
  for (int64_t i = 0; i < n; i++) state[i] += scale * x[i];
  return DJ_OK;
}

dj_status DJ__I(assign_run)(const dj__call *c, void *self) {
  (void)self;
  DJ__I(convert)
  (c->in[0].data, DJ_F32, c->in[1].data, DJ_F32, dj_shape_count(&c->in[0].shape), c->threads);
  return DJ_OK;
}

dj_status DJ__I(running_update_run)(const dj__call *c, void *self) {
  (void)self;
  const dj__running_attr *a = c->attr;
  float *running_mean = c->in[0].data, *running_var = c->in[1].data; // (C) f32
  const float *mean = c->in[2].data, *inv = c->in[3].data;           // (C) f32
  double k = (double)a->momentum, eps = (double)a->eps, unbias = (double)a->unbias;
  int64_t n = c->in[0].shape.dim[0];
  DJ__SIMD for (int64_t i = 0; i < n; i++) {
    double var = 1 / ((double)inv[i] * (double)inv[i]) - eps;
    var = (var > 0 ? var : 0) * unbias;
    running_mean[i] =
        (float)((double)running_mean[i] + k * ((double)mean[i] - (double)running_mean[i]));
    running_var[i] = (float)((double)running_var[i] + k * (var - (double)running_var[i]));
  }
  return DJ_OK;
}
