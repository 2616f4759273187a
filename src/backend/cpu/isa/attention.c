/*
 * Scaled dot-product attention, forward and backward (definitions: engine/ops/attention.c).
 *
 * Scores are made and used tile by tile (TQ queries by TK keys) and never lie in memory as a whole:
 * forward with the running maximum and sum of Milakov & Gimelshein (2018), backward from the saved
 * log of the sums, as Dao et al. (2022). Keys are transposed once into panels (D, TK), so that
 * every product is a sum of rows times scalars, in f32 and in registers.
 *
 * Forward: a unit of work is a tile of queries of one head. Backward: one query head, which walks
 * its tiles of queries and adds to dk and dv as it goes; where heads share keys, their sums are
 * added in the order of the heads. No unit depends on another, so results do not depend on threads.
 */
#include "backend/cpu/isa/nn.h"
#include "backend/cpu/isa/vmath.h"

enum { TQ = 48, TK = 64, MR = 6, NV = VW == 16 ? 4 : 2, AHEAD = 16 /* rows */ };

/* ---- C (m, n) += or = A (m, k) B (k, n), n a multiple of VW ---- */
typedef struct mat {
  const float *p;
  int64_t rs, cs; /* steps between rows and between columns */
} mat;

/* mr rows by nv vectors of C; both are constants where it is inlined. */
DJ__INLINE void micro(int mr, int nv, mat a, const float *b, int64_t ldb, float *c, int64_t ldc,
                      int64_t depth, bool add) {
  vf acc[MR][NV];
#pragma GCC unroll 6
  for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
    for (int v = 0; v < nv; v++) acc[i][v] = add ? v_load(c, DJ_F32, i * ldc + v * VW) : v_all(0);
  for (int64_t k = 0; k < depth; k++) {
    vf row[NV];
#pragma GCC unroll 4
    for (int v = 0; v < nv; v++) row[v] = v_load(b, DJ_F32, k * ldb + v * VW);
#pragma GCC unroll 6
    for (int i = 0; i < mr; i++) {
      vf s = v_all(a.p[i * a.rs + k * a.cs]);
#pragma GCC unroll 4
      for (int v = 0; v < nv; v++) acc[i][v] += s * row[v];
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
    for (int v = 0; v < nv; v++) v_store(c, DJ_F32, i * ldc + v * VW, acc[i][v]);
}

DJ__INLINE void columns(int nv, mat a, const float *b, int64_t ldb, float *c, int64_t ldc,
                        int64_t rows, int64_t depth, bool add) {
  int64_t i = 0;
  for (; i + MR <= rows; i += MR) {
    micro(MR, nv, a, b, ldb, c, ldc, depth, add);
    a.p += MR * a.rs;
    c += MR * ldc;
  }
  for (; i + 2 <= rows; i += 2) {
    micro(2, nv, a, b, ldb, c, ldc, depth, add);
    a.p += 2 * a.rs;
    c += 2 * ldc;
  }
  if (i < rows) micro(1, nv, a, b, ldb, c, ldc, depth, add);
}

static void product(mat a, const float *b, int64_t ldb, float *c, int64_t ldc, int64_t m, int64_t n,
                    int64_t depth, bool add) {
  int64_t j = 0;
  for (; j + NV * VW <= n; j += NV * VW) columns(NV, a, b + j, ldb, c + j, ldc, m, depth, add);
  for (; j < n; j += VW) columns(1, a, b + j, ldb, c + j, ldc, m, depth, add);
}

/* ---- geometry ---- */
typedef struct dims {
  dj__attention heads; /* where they lie; sizes are repeated here */
  int64_t b, h, hk, t, s, d;
  int64_t dp;     /* d rounded up to whole vectors */
  int64_t tq, tk; /* tiles of queries and of keys */
  int64_t panels; /* floats of one head's transposed panels: (tk, D, TK) */
  int64_t keys;   /* floats of one head's padded rows: (S, dp) */
  float scale;
  bool causal;
} dims;

static dims dims_of(const dj__call *c) {
  const dj__attention a = dj__attention_of(c);
  dims m = {.heads = a, .b = a.b, .h = a.h, .hk = a.hk, .t = a.t, .s = a.s, .d = a.d};
  m.dp = (m.d + VW - 1) / VW * VW;
  m.tq = (m.t + TQ - 1) / TQ;
  m.tk = (m.s + TK - 1) / TK;
  m.panels = m.tk * m.d * TK;
  m.keys = m.s * m.dp;
  m.scale = a.scale;
  m.causal = a.causal;
  return m;
}

/* Keys that query t sees. */
DJ__INLINE int64_t seen(const dims *m, int64_t t) {
  return m->causal ? t + m->s - m->t + 1 : m->s;
}
DJ__INLINE int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
/* Head u of queries, of (B, H), reads this head of keys, of (B, HK). */
DJ__INLINE int64_t kv_head(const dims *m, int64_t u) {
  return u / (m->h / m->hk);
}

/* ---- packing ---- */
/* Rows first .. first + n of head u come into cache (behind the last row: nothing that is read):
 * where rows lie far apart the processor does not fetch them ahead by itself. */
DJ__INLINE void fetch(const dims *m, const dj__heads *x, int64_t u, int64_t first, int64_t n) {
  const dj_dtype type = x->of->dtype;
  for (int64_t i = first; i < first + n; i++) {
    const char *row = at(x->of->data, type, dj__head_row(x, u, i)), *end = at(row, type, m->d);
    for (; row < end; row += 64) __builtin_prefetch(row);
  }
}

/* Rows first .. first + n of head u, times factor, as f32 (n, dp), zeros behind D. */
static void pack_rows(const dims *m, const dj__heads *from, int64_t u, int64_t first, int64_t n,
                      float factor, float *out) {
  for (int64_t r = 0; r < n; r++, out += m->dp) {
    fetch(m, from, u, first + r + AHEAD, 1);
    const float *x = rd(from->of, dj__head_row(from, u, first + r), m->d, out);
    DJ__SIMD for (int64_t i = 0; i < m->d; i++) out[i] = x[i] * factor;
    for (int64_t i = m->d; i < m->dp; i++) out[i] = 0;
  }
}

/* Panel j of head u: (D, TK), zeros behind the last key. */
static void pack_panel(const dims *m, const dj__heads *from, int64_t u, int64_t j, float *out) {
  const int64_t n = smaller(TK, m->s - j * TK), row = from->row;
  const dj_dtype type = from->of->dtype;
  const void *rows = at(from->of->data, type, dj__head_row(from, u, j * TK));
  for (int64_t d0 = 0; d0 < m->d; d0 += VW) { /* a block of VW columns stays in cache */
    int64_t d1 = smaller(d0 + VW, m->d);
    for (int64_t r = 0; r < n; r++) {
      if (d0 == 0) fetch(m, from, u, j * TK + r + AHEAD, 1);
      DJ__WITH_DTYPE(type, T,
                     for (int64_t d = d0; d < d1; d++) out[d * TK + r] = ld(rows, T, r * row + d));
    }
    for (int64_t d = d0; d < d1; d++)
      for (int64_t r = n; r < TK; r++) out[d * TK + r] = 0;
  }
}

/* Row i of head u of a result: x (D). */
static void store_row(const dims *m, const dj__heads *to, int64_t u, int64_t i, const float *x) {
  const dj_dtype type = to->of->dtype;
  DJ__I(store_block)(at_w(to->of->data, type, dj__head_row(to, u, i)), type, x, m->d);
}

/* ---- forward ---- */
/* Of one thread. */
typedef struct forward {
  float *q; // (TQ, dp) scaled queries
  float *p; // (TQ, TK) scores, then probabilities
  float *o; // (TQ, dp) sums of values
  float max[TQ], sum[TQ];
} forward;

static bool values_in_place(const dims *m) {
  const dj__heads *v = &m->heads.v;
  return v->of->dtype == DJ_F32 && m->d == m->dp && v->row == m->d;
}

static size_t forward_floats(const dims *m) {
  return (size_t)TQ * (size_t)(2 * m->dp + TK);
}

size_t DJ__I(attention_workspace)(const dj__call *c) {
  dims m = dims_of(c);
  size_t heads = (size_t)(m.b * m.hk), threads = (size_t)(c->threads > 1 ? c->threads : 1);
  size_t values = values_in_place(&m) ? 0 : (size_t)m.keys;
  return (heads * ((size_t)m.panels + values) + threads * forward_floats(&m)) * sizeof(float);
}

/* One row of scores (n valid of TK) becomes probabilities by the maximum so far; o is rescaled. */
static void online_row(const dims *m, forward *f, int64_t i, int64_t n) {
  float *p = f->p + i * TK, *o = f->o + i * m->dp, max = f->max[i], sum = 0;
  for (int64_t k = n > 0 ? n : 0; k < TK; k++) p[k] = 0;
  if (n <= 0) return;
#pragma omp simd reduction(max : max)
  for (int64_t k = 0; k < n; k++) max = p[k] > max ? p[k] : max;
#pragma omp simd reduction(+ : sum)
  for (int64_t k = 0; k < n; k++) {
    float e = vm_exp(p[k] - max);
    p[k] = e;
    sum += e;
  }
  if (max != f->max[i]) {
    float shrink = expf(f->max[i] - max);
    f->sum[i] *= shrink;
    f->max[i] = max;
    DJ__SIMD for (int64_t k = 0; k < m->dp; k++) o[k] *= shrink;
  }
  f->sum[i] += sum;
}

/* Tile `tile` of queries of head u. panels (tk, D, TK), values (S, dp) */
static void forward_tile(const dims *m, const dj__call *c, int64_t u, int64_t tile,
                         const float *panels, const float *values, forward *f) {
  const int64_t t0 = tile * TQ, n = smaller(TQ, m->t - t0);
  const int64_t last = seen(m, t0 + n - 1);
  pack_rows(m, &m->heads.q, u, t0, n, m->scale, f->q);
  fetch(m, &m->heads.o, u, t0, n);
  memset(f->o, 0, (size_t)(n * m->dp) * sizeof *f->o);
  for (int64_t i = 0; i < n; i++) f->max[i] = -__builtin_inff(), f->sum[i] = 0;
  for (int64_t j = 0; j * TK < last; j++) {
    const int64_t keys = smaller(TK, last - j * TK), wide = (keys + VW - 1) / VW * VW;
    product((mat){f->q, m->dp, 1}, panels + j * m->d * TK, TK, f->p, TK, n, wide, m->d, false);
    for (int64_t i = 0; i < n; i++) online_row(m, f, i, smaller(keys, seen(m, t0 + i) - j * TK));
    product((mat){f->p, TK, 1}, values + j * TK * m->dp, m->dp, f->o, m->dp, n, m->dp, keys, true);
  }
  float *lse = (float *)c->out[1].data + u * m->t + t0; // (B, H, T) f32
  for (int64_t i = 0; i < n; i++) {
    float *x = f->o + i * m->dp, inv = 1.0f / f->sum[i];
    DJ__SIMD for (int64_t k = 0; k < m->d; k++) x[k] *= inv;
    store_row(m, &m->heads.o, u, t0 + i, x);
    lse[i] = f->max[i] + logf(f->sum[i]);
  }
}

dj_status DJ__I(attention)(const dj__call *c, void *self) {
  (void)self;
  dims m = dims_of(c);
  const int64_t heads = m.b * m.hk;
  const bool in_place = values_in_place(&m);
  float *panels = c->workspace, *values = panels + heads * m.panels;
  float *scratch = values + (in_place ? 0 : heads * m.keys);
  const int nt = threads_for(c, m.b * m.h * m.t * m.s * 16);
#pragma omp parallel num_threads(nt)
  {
    forward f = {.q = scratch + (size_t)omp_get_thread_num() * forward_floats(&m)};
    f.p = f.q + TQ * m.dp;
    f.o = f.p + TQ * TK;
#pragma omp for schedule(static)
    for (int64_t u = 0; u < heads * m.tk; u++) {
      int64_t head = u / m.tk, j = u % m.tk, n = smaller(TK, m.s - j * TK);
      pack_panel(&m, &m.heads.k, head, j, panels + head * m.panels + j * m.d * TK);
      if (!in_place)
        pack_rows(&m, &m.heads.v, head, j * TK, n, 1, values + head * m.keys + j * TK * m.dp);
    }
    /* Causal tiles cost more the later they are: take them in turns. */
#pragma omp for schedule(static, 1)
    for (int64_t u = 0; u < m.b * m.h * m.tq; u++) {
      int64_t head = kv_head(&m, u / m.tq);
      const float *v =
          in_place ? (const float *)m.heads.v.of->data + head * m.keys : values + head * m.keys;
      forward_tile(&m, c, u / m.tq, u % m.tq, panels + head * m.panels, v, &f);
    }
  }
  return DJ_OK;
}

/* ---- backward ---- */
/* Of one thread: its head's keys and values, and one tile of queries. */
typedef struct backward {
  float *k;        // (S, dp) keys
  float *kt;       // (tk, D, TK) keys, transposed panels
  float *vt;       // (tk, D, TK) values, transposed panels
  float *q;        // (TQ, dp) scaled queries
  float *dy;       // (TQ, dp) gradients of the output
  float *dq;       // (TQ, dp)
  float *p;        // (TQ, TK) probabilities
  float *ds;       // (TQ, TK) gradients of the scores
  float *dk, *dv;  // (S, dp) sums of this head
  float delta[TQ]; // (n) sum(dy * o)
} backward;

static size_t backward_floats(const dims *m) {
  size_t tile = (size_t)TQ * (size_t)(3 * m->dp + 2 * TK);
  return (size_t)(m->keys + 2 * m->panels) + tile;
}

/* dk and dv of every query head, in the order of the heads. */
size_t DJ__I(attention_grad_workspace)(const dj__call *c) {
  dims m = dims_of(c);
  size_t threads = (size_t)(c->threads > 1 ? c->threads : 1);
  size_t sums = 2 * (size_t)m.keys * (m.h > m.hk ? (size_t)(m.b * m.h) : threads);
  return (sums + threads * backward_floats(&m)) * sizeof(float);
}

/* p = exp(s - lse) and ds = p (dp - delta) of one row; n keys are seen. */
static void score_row(backward *f, int64_t i, int64_t n, float lse) {
  float *p = f->p + i * TK, *ds = f->ds + i * TK;
  const float delta = f->delta[i];
  if (n < 0) n = 0;
  DJ__SIMD for (int64_t k = 0; k < n; k++) {
    float e = vm_exp(p[k] - lse);
    p[k] = e;
    ds[k] = e * (ds[k] - delta);
  }
  for (int64_t k = n; k < TK; k++) p[k] = ds[k] = 0;
}

/* Tile `tile` of queries of head u: writes dq, adds to dk and dv. */
static void backward_tile(const dims *m, const dj__call *c, int64_t u, int64_t tile, backward *f) {
  const int64_t t0 = tile * TQ, n = smaller(TQ, m->t - t0);
  const int64_t last = seen(m, t0 + n - 1);
  const float *lse = (const float *)c->in[1].data + u * m->t + t0; // (B, H, T) f32
  pack_rows(m, &m->heads.o, u, t0, n, 1, f->q);                    /* for delta only */
  pack_rows(m, &m->heads.dy, u, t0, n, 1, f->dy);
  for (int64_t i = 0; i < n; i++) {
    const float *o = f->q + i * m->dp, *dy = f->dy + i * m->dp;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < m->d; k++) sum += o[k] * dy[k];
    f->delta[i] = sum;
  }
  pack_rows(m, &m->heads.q, u, t0, n, m->scale, f->q);
  fetch(m, &m->heads.dq, u, t0, n);
  memset(f->dq, 0, (size_t)(n * m->dp) * sizeof *f->dq);
  for (int64_t j = 0; j * TK < last; j++) {
    const int64_t keys = smaller(TK, last - j * TK), key = j * TK * m->dp;
    const int64_t wide = (keys + VW - 1) / VW * VW, panel = j * m->d * TK;
    product((mat){f->q, m->dp, 1}, f->kt + panel, TK, f->p, TK, n, wide, m->d, false);
    product((mat){f->dy, m->dp, 1}, f->vt + panel, TK, f->ds, TK, n, wide, m->d, false);
    for (int64_t i = 0; i < n; i++)
      score_row(f, i, smaller(keys, seen(m, t0 + i) - j * TK), lse[i]);
    product((mat){f->p, 1, TK}, f->dy, m->dp, f->dv + key, m->dp, keys, m->dp, n, true);
    product((mat){f->ds, 1, TK}, f->q, m->dp, f->dk + key, m->dp, keys, m->dp, n, true);
    product((mat){f->ds, TK, 1}, f->k + key, m->dp, f->dq, m->dp, n, m->dp, keys, true);
  }
  for (int64_t i = 0; i < n; i++) {
    float *x = f->dq + i * m->dp;
    DJ__SIMD for (int64_t k = 0; k < m->d; k++) x[k] *= m->scale;
    store_row(m, &m->heads.dq, u, t0 + i, x);
  }
}

/* Rows of sums (S, dp), of `heads` heads one behind the other 2 * keys apart, to those of head u.
 */
static void store_sums(const dims *m, float *sums, int64_t heads, const dj__heads *to, int64_t u) {
  for (int64_t r = 0; r < m->s; r++) {
    float *x = sums + r * m->dp;
    fetch(m, to, u, r + AHEAD, 1);
    for (int64_t h = 1; h < heads; h++) {
      const float *other = x + h * 2 * m->keys;
      DJ__SIMD for (int64_t k = 0; k < m->d; k++) x[k] += other[k];
    }
    store_row(m, to, u, r, x);
  }
}

static void backward_head(const dims *m, const dj__call *c, int64_t u, backward *f) {
  const int64_t head = kv_head(m, u);
  pack_rows(m, &m->heads.k, head, 0, m->s, 1, f->k);
  for (int64_t j = 0; j < m->tk; j++) {
    pack_panel(m, &m->heads.k, head, j, f->kt + j * m->d * TK);
    pack_panel(m, &m->heads.v, head, j, f->vt + j * m->d * TK);
  }
  memset(f->dk, 0, (size_t)m->keys * sizeof *f->dk);
  memset(f->dv, 0, (size_t)m->keys * sizeof *f->dv);
  for (int64_t i = 0; i < m->tq; i++) backward_tile(m, c, u, i, f);
}

dj_status DJ__I(attention_grad)(const dj__call *c, void *self) {
  (void)self;
  dims m = dims_of(c);
  const bool shared = m.h > m.hk; /* heads share keys: their sums are kept until all are there */
  const int64_t per = m.h / m.hk, slots = shared ? m.b * m.h : c->threads > 1 ? c->threads : 1;
  float *sums = c->workspace, *scratch = sums + slots * 2 * m.keys; // (slots, 2, S, dp)
#pragma omp parallel num_threads(threads_for(c, m.b *m.h *m.t *m.s * 16))
  {
    int64_t me = omp_get_thread_num();
    backward f = {.k = scratch + (size_t)me * backward_floats(&m)};
    f.kt = f.k + m.keys;
    f.vt = f.kt + m.panels;
    f.q = f.vt + m.panels;
    f.dy = f.q + TQ * m.dp;
    f.dq = f.dy + TQ * m.dp;
    f.p = f.dq + TQ * m.dp;
    f.ds = f.p + TQ * TK;
#pragma omp for schedule(static)
    for (int64_t u = 0; u < m.b * m.h; u++) {
      f.dk = sums + (shared ? u : me) * 2 * m.keys;
      f.dv = f.dk + m.keys;
      backward_head(&m, c, u, &f);
      if (shared) continue;
      store_sums(&m, f.dk, 1, &m.heads.dk, u);
      store_sums(&m, f.dv, 1, &m.heads.dv, u);
    }
#pragma omp for schedule(static)
    for (int64_t g = 0; g < (shared ? m.b * m.hk : 0); g++) {
      store_sums(&m, sums + g * per * 2 * m.keys, per, &m.heads.dk, g);
      store_sums(&m, sums + g * per * 2 * m.keys + m.keys, per, &m.heads.dv, g);
    }
  }
  return DJ_OK;
}
