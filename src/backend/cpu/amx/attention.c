/*
 * Scaled dot-product attention on AMX, forward and backward, of bf16 numbers (definitions:
 * engine/ops/attention.c; without AMX: isa/attention.c). Scores, sums and the log of the sums are
 * f32; probabilities and gradients of scores are rounded to bf16 for the products they enter.
 *
 * Everything is blocks of 32 x 32. Forward: 32 queries by KEYS keys, with the running maximum and
 * sum of Milakov & Gimelshein (2018); o stays in 32 x 32 sums. Backward, as Dao et al. (2022): the
 * scores of 32 keys (rows) by 32 queries (columns), so that the rows are probabilities turned, as
 * dv = P' dy and dk = dS' q want them, and log-sums and delta lie along vectors; dS is turned once
 * for dq = dS k. A unit of work is a tile of queries of one head (forward), or a head of keys with
 * all heads of queries that read it (backward): no unit depends on another, so results do not
 * depend on threads.
 */
#include "backend/cpu/amx/amx.h"
#include "engine/attrs.h"

enum {
  KEYS = 4,     /* blocks of 32 keys whose scores are made together, forward */
  GROUP = 2,    /* blocks of 32 keys, and of 32 queries, that a turn of backward takes */
  BLOCK = 1024, /* numbers of a block */
  MOST_D = 256, /* width of a head */
  LEAST_T = 16  /* queries worth it */
};

typedef struct dims {
  dj__attention heads; /* where they lie; sizes are repeated here */
  int64_t b, h, hk, t, s, d;
  int64_t per;    /* heads of queries that read a head of keys */
  int64_t deep;   /* steps of 32 in d */
  int64_t tb, sb; /* blocks of queries, of keys */
  int64_t tile;   /* bytes of a block of 32 rows as A, or a panel as B, d deep */
  float scale;
  bool causal;
} dims;

static dims dims_of(const dj__call *c) {
  const dj__attention a = dj__attention_of(c);
  dims m = {.heads = a, .b = a.b, .h = a.h, .hk = a.hk, .t = a.t, .s = a.s, .d = a.d};
  m.per = m.h / m.hk;
  m.deep = up(m.d, 32) / 32;
  m.tb = up(m.t, 32) / 32;
  m.sb = up(m.s, 32) / 32;
  m.tile = m.deep * DJ__STEP_BYTES;
  m.scale = a.scale;
  m.causal = a.causal;
  return m;
}

/* bf16 alone: who wants f32 results of it wants probabilities in f32, too. */
static bool supports(const dj__call *c) {
  const bool grad = c->op == DJ__OP_attention_grad;
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i].dtype != DJ_BF16 && !(grad && i == 1)) return false;
  for (int i = 0; i < c->n_out; i++)
    if (c->out[i].dtype != DJ_BF16 && (grad || i == 0)) return false;
  const dims m = dims_of(c);
  return m.d <= MOST_D && (m.t >= LEAST_T || dj__worth_threads == 0 /* a test: small shapes */);
}

/* Keys that query t sees. */
DJ__INLINE int64_t seen(const dims *m, int64_t t) {
  return m->causal ? t + m->s - m->t + 1 : m->s;
}

/* The n rows of head u (n, d). */
DJ__INLINE dj__amx_matrix rows_of(const dims *m, const dj__heads *x, int64_t u, int64_t n) {
  const dj_tensor *t = x->of;
  const void *first = at(t->data, t->dtype, dj__head_row(x, u, 0));
  return (dj__amx_matrix){first, t->dtype, n, m->d, x->row, 1, NULL};
}

/* Block b of 32 rows comes into first-level cache: where rows lie far apart the processor does not
 * fetch them ahead by itself. */
DJ__INLINE void fetch(const dj__amx_matrix *x, int64_t b) {
  for (int64_t i = 32 * b; i < least(32 * (b + 1), x->rows); i++) {
    const char *row = at(x->data, x->dtype, i * x->ld), *end = at(row, x->dtype, x->cols);
    for (; row < end; row += 64) _mm_prefetch(row, _MM_HINT_T0);
  }
}

/* Block b of a head as B: turned, a panel of 32 rows; or what it is of panels of 32 of the width,
 * all rows deep. */
static void pack_turned(const dims *m, const dj__amx_matrix *x, int64_t b, char *to) {
  dj__amx_pack_b(to + b * m->tile, m->tile, x, true, 0, m->deep, 32 * b, 1);
}
static void pack_deep(const dims *m, const dj__amx_matrix *x, int64_t b, char *to) {
  const int64_t size = up(x->rows, 32) / 32 * DJ__STEP_BYTES;
  dj__amx_pack_b(to + b * DJ__STEP_BYTES, size, x, false, 32 * b, 1, 0, m->deep);
}

/* A block of A that was packed: `steps` tiles for its first 16 rows, as many for the others. */
DJ__INLINE dj__amx_a packed_a(const char *a, int64_t steps, const int32_t *tiles) {
  return (dj__amx_a){{a, a + steps * DJ__TILE_BYTES}, 64, tiles, DJ__TILE_BYTES};
}

/* sums (32, 32) = (or, with `add`, +=) A B over `steps`. */
DJ__INLINE void multiply(const char *a, int64_t a_steps, const int32_t *tiles, const char *b,
                         int64_t steps, float *sums, bool add) {
  const dj__amx_a rows = packed_a(a, a_steps, tiles);
  dj__amx_block((dj__amx_form){2, 2, 1}, &rows, b, steps, sums, add, NULL);
}

/* Where tiles of a packed block lie. */
enum { MOST_TILES = MOST_D / 32 > KEYS ? MOST_D / 32 : KEYS };
static void fill_tiles(int32_t tiles[MOST_TILES]) {
  for (int i = 0; i < MOST_TILES; i++) tiles[i] = i * DJ__TILE_BYTES;
}

/* Rows of sums (panels, 32, 32), each times its factor (or all times `all`), to those of head u
 * from `first` on. */
static void store_rows(const dims *m, float *sums, const float *factor, float all, int64_t rows,
                       const dj__heads *to, int64_t u, int64_t first) {
  const dj_dtype type = to->of->dtype;
  const dj__amx_to how = {.dtype = type};
  char *out = at_w(to->of->data, type, dj__head_row(to, u, first));
  for (int64_t p = 0; p < m->deep; p++, sums += BLOCK) {
    for (int64_t i = 0; i < rows; i++) {
      const float f = factor ? factor[i] : all;
      DJ__SIMD for (int64_t k = 0; k < 32; k++) sums[i * 32 + k] *= f;
    }
    dj__amx_store(sums, rows, least(32, m->d - 32 * p), at_w(out, type, 32 * p), to->row, &how);
  }
}

/* ---- forward ---- */
typedef struct forward { // of one thread; blocks of 64 bytes
  float s[KEYS][BLOCK];  // scores, a block a piece
  float o[MOST_D / 32][BLOCK];
  char q[MOST_D / 32 * DJ__STEP_BYTES]; // a block of A
  char p[KEYS * DJ__STEP_BYTES];        // probabilities, a block of A, KEYS steps deep
  float max[32], sum[32], inverse[32];
  int32_t tiles[MOST_TILES];
} forward;

static int64_t head_bytes(const dims *m) { // k, turned, as panels of keys; v as panels of width
  return 2 * m->sb * m->tile;
}

static size_t workspace(const dj__call *c) {
  const dims m = dims_of(c);
  const size_t threads = (size_t)(c->threads > 1 ? c->threads : 1);
  return (size_t)(m.b * m.hk * head_bytes(&m)) + threads * up(sizeof(forward), 64) + 64;
}

/* Row i of scores, of `pieces` blocks of keys, n of which are seen: to probabilities by the maximum
 * so far; what o has is shrunk to it. */
static void online_row(const dims *m, forward *f, int64_t i, int64_t pieces, int64_t n) {
  const __m512 scale = _mm512_set1_ps(m->scale), low = _mm512_set1_ps(-__builtin_inff());
  __m512 top = low;
  for (int64_t p = 0; p < pieces; p++) {
    float *s = f->s[p] + i * 32;
    const __mmask32 there = dj__amx_first(n - 32 * p);
    const __m512 x = _mm512_mask_mul_ps(low, (__mmask16)there, _mm512_load_ps(s), scale),
                 y = _mm512_mask_mul_ps(low, (__mmask16)(there >> 16), _mm512_load_ps(s + 16),
                                        scale);
    _mm512_store_ps(s, x);
    _mm512_store_ps(s + 16, y);
    top = _mm512_max_ps(top, _mm512_max_ps(x, y));
  }
  const float before = f->max[i], now = _mm512_reduce_max_ps(top);
  const float max = now > before ? now : before;
  if (max != before) {
    const float shrink = vm_exp(before - max);
    f->max[i] = max;
    f->sum[i] *= shrink;
    for (int64_t p = 0; p < m->deep; p++)
      DJ__SIMD for (int64_t k = 0; k < 32; k++) f->o[p][i * 32 + k] *= shrink;
  }
  __m512 sum = _mm512_setzero_ps();
  for (int64_t p = 0; p < pieces; p++) {
    float *s = f->s[p] + i * 32;
    DJ__SIMD for (int64_t k = 0; k < 32; k++) s[k] = vm_exp(s[k] - max);
    const __m512 x = _mm512_load_ps(s), y = _mm512_load_ps(s + 16);
    sum = _mm512_add_ps(sum, _mm512_add_ps(x, y));
    char *to = f->p + (i / 16 * KEYS + p) * DJ__TILE_BYTES + i % 16 * 64;
    _mm512_store_si512(to, (__m512i)_mm512_cvtne2ps_pbh(y, x));
  }
  f->sum[i] += _mm512_reduce_add_ps(sum);
}

/* Block `tile` of queries of head u of (B, H). k, v: packed, of its head of keys. */
static void forward_tile(const dims *m, const dj__call *c, int64_t u, int64_t tile, const char *k,
                         const char *v, forward *f) {
  const int64_t t0 = tile * 32, rows = least(32, m->t - t0);
  const int64_t blocks = up(seen(m, t0 + rows - 1), 32) / 32;
  const dj__amx_matrix q = rows_of(m, &m->heads.q, u, m->t), o = rows_of(m, &m->heads.o, u, m->t);
  dj__amx_pack_a(f->q, &q, false, 0, m->deep, t0, 1);
  fetch(&o, tile);
  memset(f->o, 0, (size_t)m->deep * sizeof f->o[0]);
  for (int64_t i = 0; i < 32; i++) f->max[i] = -__builtin_inff(), f->sum[i] = 0;
  for (int64_t j = 0; j < blocks; j += KEYS) {
    const int64_t pieces = least(KEYS, blocks - j);
    for (int64_t p = 0; p < pieces; p++)
      multiply(f->q, m->deep, f->tiles, k + (j + p) * m->tile, m->deep, f->s[p], false);
    for (int64_t i = 0; i < rows; i++) online_row(m, f, i, pieces, seen(m, t0 + i) - 32 * j);
    for (int64_t p = 0; p < m->deep; p++)
      multiply(f->p, KEYS, f->tiles, v + (p * m->sb + j) * DJ__STEP_BYTES, pieces, f->o[p], true);
  }
  float *lse = (float *)c->out[1].data + u * m->t + t0; // (B, H, T) f32
  for (int64_t i = 0; i < rows; i++) {
    f->inverse[i] = 1.0f / f->sum[i];
    lse[i] = f->max[i] + vm_log(f->sum[i]);
  }
  store_rows(m, f->o[0], f->inverse, 1, rows, &m->heads.o, u, t0);
}

/* Keys or values of one head: those turned, panels of 32 keys, d deep; these panels of 32 of their
 * width, S deep. */
static void pack_head(const dims *m, int64_t head, bool values, char *to) {
  const dj__amx_matrix x = rows_of(m, values ? &m->heads.v : &m->heads.k, head, m->s);
  for (int64_t b = 0; b < m->sb; b++) {
    fetch(&x, b + 1);
    if (values)
      pack_deep(m, &x, b, to);
    else
      pack_turned(m, &x, b, to);
  }
}

/* Heads of queries u of (B, H) read the head of keys kv_head(u) of (B, HK). */
DJ__INLINE int64_t kv_head(const dims *m, int64_t u) {
  return u / m->per; /* B H = B HK per */
}

static dj_status run(const dj__call *c, void *self) {
  (void)self;
  const dims m = dims_of(c);
  char *packed = aligned(c->workspace), *scratch = packed + m.b * m.hk * head_bytes(&m);
#pragma omp parallel num_threads(threads_for(c, m.b *m.h *m.t *m.s * 4))
  {
    forward *f = (forward *)(void *)(scratch + omp_get_thread_num() * up(sizeof(forward), 64));
    fill_tiles(f->tiles);
    dj__amx_begin();
#pragma omp for schedule(static)
    for (int64_t u = 0; u < 2 * m.b * m.hk; u++)
      pack_head(&m, u / 2, u % 2, packed + u * (head_bytes(&m) / 2));
      /* Causal tiles cost more the later they are: take them in turns. */
#pragma omp for schedule(static, 1)
    for (int64_t u = 0; u < m.b * m.h * m.tb; u++) {
      const char *k = packed + kv_head(&m, u / m.tb) * head_bytes(&m);
      forward_tile(&m, c, u / m.tb, u % m.tb, k, k + head_bytes(&m) / 2, f);
    }
    dj__amx_end();
  }
  return DJ_OK;
}

const dj__own dj__amx_attention = {run, supports, workspace, NULL};

/* ---- backward ---- */
typedef struct backward {                   // of one thread; blocks of 64 bytes
  float s[BLOCK], dp[BLOCK];                // scores, then probabilities; gradients of these
  char p[GROUP][GROUP * DJ__STEP_BYTES];    // of a block of keys: A, queries deep
  char ds[GROUP][GROUP * DJ__STEP_BYTES];   // gradients of scores, likewise
  char turn[GROUP][GROUP * DJ__STEP_BYTES]; // the same of a block of queries, keys deep
  int32_t tiles[MOST_TILES];
  char *k, *v;            // (blocks of keys) as A, d deep
  char *k_deep;           // panels of d, keys deep
  char *q, *dy;           // panels of queries, d deep
  char *q_deep, *dy_deep; // panels of d, queries deep
  float *dk, *dv, *dq;    // (blocks, panels of d, 32, 32)
  float *lse, *delta;     // of queries; delta: sum(dy * o)
} backward;

static size_t grad_bytes(const dims *m) { // of one thread
  return (size_t)(up(sizeof(backward), 64) + (3 * m->sb + 4 * m->tb) * m->tile +
                  (2 * m->sb + m->tb) * m->deep * BLOCK * 4 + 2 * m->tb * 32 * 4);
}

static size_t grad_workspace(const dj__call *c) {
  const dims m = dims_of(c);
  return (size_t)(c->threads > 1 ? c->threads : 1) * grad_bytes(&m) + 64;
}

static backward *lay_out(const dims *m, char *at) {
  backward *f = (backward *)(void *)at;
  at += up(sizeof *f, 64);
  char **keys[] = {&f->k, &f->v, &f->k_deep},
       **queries[] = {&f->q, &f->dy, &f->q_deep, &f->dy_deep};
  for (int i = 0; i < 3; i++, at += m->sb * m->tile) *keys[i] = at;
  for (int i = 0; i < 4; i++, at += m->tb * m->tile) *queries[i] = at;
  float *sums = (float *)(void *)at;
  f->dk = sums;
  f->dv = f->dk + m->sb * m->deep * BLOCK;
  f->dq = f->dv + m->sb * m->deep * BLOCK;
  f->lse = f->dq + m->tb * m->deep * BLOCK;
  f->delta = f->lse + m->tb * 32;
  fill_tiles(f->tiles);
  return f;
}

/* Probabilities and gradients of scores of one key by 32 queries from t0 on, of which those in
 * `there` see it. s, dp (32): scores, gradients of probabilities. */
DJ__INLINE void score_row(const dims *m, const backward *f, float *s, float *dp, int64_t t0,
                          __mmask32 there, char *p, __m512i *ds) {
  const float *lse = f->lse + t0, *delta = f->delta + t0, scale = m->scale;
  DJ__SIMD for (int64_t k = 0; k < 32; k++) {
    const float e = vm_exp(s[k] * scale - lse[k]);
    s[k] = e;
    dp[k] = e * (dp[k] - delta[k]);
  }
  const __m512i x = (__m512i)_mm512_cvtne2ps_pbh(_mm512_load_ps(s + 16), _mm512_load_ps(s)),
                y = (__m512i)_mm512_cvtne2ps_pbh(_mm512_load_ps(dp + 16), _mm512_load_ps(dp));
  _mm512_store_si512(p, _mm512_maskz_mov_epi16(there, x));
  *ds = _mm512_maskz_mov_epi16(there, y);
}

/* 32 rows of 32 numbers, turned: 16 rows to each of two tiles. */
DJ__INLINE void turn_block(const __m512i row[32], char *first, char *last) {
  __m512i lo[16], hi[16];
  for (int i = 0; i < 16; i++) interleave(row[2 * i], row[2 * i + 1], &lo[i], &hi[i]);
  dj__amx_turn(lo);
  dj__amx_turn(hi);
  for (int i = 0; i < 16; i++) {
    _mm512_store_si512(first + i * 64, lo[i]);
    _mm512_store_si512(last + i * 64, hi[i]);
  }
}

/* Which of 32 queries from t0 on see key s. */
DJ__INLINE __mmask32 seers(const dims *m, int64_t s, int64_t t0) {
  const int64_t first = s >= m->s ? 32 : m->causal ? s - (m->s - m->t) - t0 : 0;
  return ~dj__amx_first(first);
}

/* Block kb of keys by block qb of queries, the kk-th and qq-th of their groups. */
static void score_block(const dims *m, backward *f, int64_t kb, int64_t qb, int64_t kk,
                        int64_t qq) {
  __m512i ds[32];
  multiply(f->k + kb * m->tile, m->deep, f->tiles, f->q + qb * m->tile, m->deep, f->s, false);
  multiply(f->v + kb * m->tile, m->deep, f->tiles, f->dy + qb * m->tile, m->deep, f->dp, false);
  for (int64_t i = 0; i < 32; i++) {
    const int64_t to = (i / 16 * GROUP + qq) * DJ__TILE_BYTES + i % 16 * 64;
    score_row(m, f, f->s + i * 32, f->dp + i * 32, 32 * qb, seers(m, 32 * kb + i, 32 * qb),
              f->p[kk] + to, &ds[i]);
    _mm512_store_si512(f->ds[kk] + to, ds[i]);
  }
  char *turned = f->turn[qq] + kk * DJ__TILE_BYTES;
  turn_block(ds, turned, turned + GROUP * DJ__TILE_BYTES);
}

/* A group of keys from block kg on by a group of queries from block qg on. */
static void score_group(const dims *m, backward *f, int64_t kg, int64_t qg) {
  const int64_t keys = least(GROUP, m->sb - kg), queries = least(GROUP, m->tb - qg);
  for (int64_t kk = 0; kk < keys; kk++)
    for (int64_t qq = 0; qq < queries; qq++) score_block(m, f, kg + kk, qg + qq, kk, qq);
  for (int64_t d = 0; d < m->deep; d++) {
    const int64_t query = (d * m->tb + qg) * DJ__STEP_BYTES,
                  key = (d * m->sb + kg) * DJ__STEP_BYTES;
    for (int64_t kk = 0; kk < keys; kk++) {
      const int64_t to = ((kg + kk) * m->deep + d) * BLOCK;
      multiply(f->p[kk], GROUP, f->tiles, f->dy_deep + query, queries, f->dv + to, true);
      multiply(f->ds[kk], GROUP, f->tiles, f->q_deep + query, queries, f->dk + to, true);
    }
    for (int64_t qq = 0; qq < queries; qq++)
      multiply(f->turn[qq], GROUP, f->tiles, f->k_deep + key, keys,
               f->dq + ((qg + qq) * m->deep + d) * BLOCK, true);
  }
}

/* What a head of queries brings: packed, its log-sums, delta. Block by block, so that each row is
 * read once. */
static void take_queries(const dims *m, const dj__call *c, int64_t u, backward *f) {
  const dj__amx_matrix q = rows_of(m, &m->heads.q, u, m->t), dy = rows_of(m, &m->heads.dy, u, m->t),
                       o = rows_of(m, &m->heads.o, u, m->t);
  const float *lse = (const float *)c->in[1].data + u * m->t; // (B, H, T) f32
  for (int64_t b = 0; b < m->tb; b++) {
    fetch(&q, b + 1);
    pack_turned(m, &q, b, f->q);
    pack_deep(m, &q, b, f->q_deep);
    fetch(&dy, b + 1);
    pack_turned(m, &dy, b, f->dy);
    pack_deep(m, &dy, b, f->dy_deep);
    fetch(&o, b + 1);
    for (int64_t i = 32 * b; i < 32 * (b + 1); i++) {
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t k = 0; k < (i < m->t ? m->d : 0); k++)
        sum += ld(o.data, DJ_BF16, i * o.ld + k) * ld(dy.data, DJ_BF16, i * dy.ld + k);
      f->delta[i] = sum;
      f->lse[i] = i < m->t ? lse[i] : __builtin_inff(); /* its probabilities are 0 */
    }
  }
  memset(f->dq, 0, (size_t)(m->tb * m->deep * BLOCK) * sizeof *f->dq);
}

/* Sums times `factor` to the n rows of head u. */
static void store_head(const dims *m, float *sums, float factor, const dj__heads *to, int64_t u,
                       int64_t n) {
  const dj__amx_matrix x = rows_of(m, to, u, n);
  for (int64_t b = 0; 32 * b < n; b++, sums += m->deep * BLOCK) {
    fetch(&x, b + 1);
    store_rows(m, sums, NULL, factor, least(32, n - 32 * b), to, u, 32 * b);
  }
}

/* A head of keys (of B, HK), with all heads of queries that read it. */
static void backward_head(const dims *m, const dj__call *c, int64_t head, backward *f) {
  const dj__amx_matrix k = rows_of(m, &m->heads.k, head, m->s),
                       v = rows_of(m, &m->heads.v, head, m->s);
  for (int64_t b = 0; b < m->sb; b++) {
    fetch(&k, b + 1);
    dj__amx_pack_a(f->k + b * m->tile, &k, false, 0, m->deep, 32 * b, 1);
    pack_deep(m, &k, b, f->k_deep);
    fetch(&v, b + 1);
    dj__amx_pack_a(f->v + b * m->tile, &v, false, 0, m->deep, 32 * b, 1);
  }
  memset(f->dk, 0, (size_t)(2 * m->sb * m->deep * BLOCK) * sizeof *f->dk); /* and dv */
  for (int64_t u = head * m->per; u < (head + 1) * m->per; u++) {
    take_queries(m, c, u, f);
    for (int64_t kg = 0; kg < m->sb; kg += GROUP) {
      const int64_t first = m->causal ? 32 * kg - (m->s - m->t) : 0; /* query that sees a key */
      for (int64_t qg = first > 0 ? first / 32 / GROUP * GROUP : 0; qg < m->tb; qg += GROUP)
        score_group(m, f, kg, qg);
    }
    store_head(m, f->dq, m->scale, &m->heads.dq, u, m->t);
  }
  store_head(m, f->dk, m->scale, &m->heads.dk, head, m->s);
  store_head(m, f->dv, 1, &m->heads.dv, head, m->s);
}

static dj_status grad_run(const dj__call *c, void *self) {
  (void)self;
  const dims m = dims_of(c);
  char *scratch = aligned(c->workspace);
#pragma omp parallel num_threads(threads_for(c, m.b *m.h *m.t *m.s * 8))
  {
    backward *f = lay_out(&m, scratch + (size_t)omp_get_thread_num() * grad_bytes(&m));
    dj__amx_begin();
#pragma omp for schedule(static)
    for (int64_t u = 0; u < m.b * m.hk; u++) backward_head(&m, c, u, f);
    dj__amx_end();
  }
  return DJ_OK;
}

const dj__own dj__amx_attention_grad = {grad_run, supports, grad_workspace, NULL};
