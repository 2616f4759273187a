/*
 * matmul on AMX: y = act(A B + bias), inputs bf16 (or f32 that may be rounded to it) or all f32,
 * in limbs (amx.h); sums f32.
 *
 * Depth is cut into chunks of at most CHUNK, columns into chunks whose packed B stays in
 * third-level cache. For each, all threads pack panels of B; then each takes a range of rows (of
 * panels, where rows are few): for a block of rows that stays in second-level cache, panel by
 * panel, depth by depth of DJ__DEEP. A is read where it lies if its rows are whole steps of 64
 * bytes, else it is packed, too. Every result is summed in the same order for any number of
 * threads.
 *
 * A weight that the program keeps packed (dj__call.packed) lies as panels of its whole depth, and
 * is read there.
 */
#include "backend/cpu/amx/amx.h"

enum {
  CHUNK = 1536,      /* of depth */
  B_BYTES = 4 << 20, /* of packed B in a chunk */
  LIMBS_CHUNK = 768, /* the same of numbers in limbs */
  LIMBS_B_BYTES = 6 << 20,
  LIMBS_A_BYTES = 3 << 18,
  SUM_BYTES = 16 << 20, /* of sums kept from chunk to chunk of depth */
  GROUP = 4,            /* panels whose results are written together: longer runs of memory */
  FAR = 16384,          /* bytes */
  LEAST_K = 128,        /* less, and oneDNN is faster */
  PAST = 1 << 20,       /* bytes of results that do not stay in cache anyway */
  SMALL_M = 64          /* rows below which oneDNN or another kernel is as good */
};

typedef struct plan {
  int64_t batch, m, n, k;
  int limbs;
  dj__amx_matrix a,
      b; /* of the first of the batch; A (M, K) or turned (K, M), B (K, N) or turned (N, K) */
  bool ta, tb;
  int64_t step_a, step_b; /* elements between matrices of a batch */
  int64_t chunk, columns; /* depth and columns of a chunk, whole steps and panels */
  bool past;              /* the result is large */
  int64_t group;          /* panels whose results are written together */
  int64_t block;          /* rows whose A stays in second-level cache */
  bool many_sums;         /* several chunks of depth: sums are kept in `sum` */
  int64_t rows;           /* whose sums are kept at once, for the columns of a chunk */
  bool kept;              /* B is packed already */
  size_t b_bytes, a_bytes, c_bytes, sum_bytes; /* workspace: b and sum once, a and c of a thread */
} plan;

/* B's depth and columns, in whole steps and panels. */
static int64_t weight_axis(const dj__call *c, bool depth) {
  const bool tb = ((const dj__matmul_attr *)c->attr)->tb;
  return up(c->in[1].shape.dim[depth == tb], 32);
}

/* May B be kept packed? A weight that is rounded, of whole pairs where they lie in its rows. */
static bool can_keep(const dj__call *c) {
  const dj_tensor *b = &c->in[1];
  const dj__matmul_attr *attr = c->attr;
  return b->shape.rank == 2 && b->dtype == DJ_F32 &&
         dj__amx_limbs(b, attr->rounds >> 1 & 1u) == 1 && !(attr->tb && b->shape.dim[1] % 2) &&
         weight_axis(c, true) * weight_axis(c, false) <= INT32_MAX;
}

static plan plan_of(const dj__call *call) {
  const dj__matmul_attr *attr = call->attr;
  const dj_tensor *ta = &call->in[0], *tb = &call->in[1];
  const dj_shape *a = &ta->shape, *b = &tb->shape;
  plan p = {.batch = 1, .ta = attr->ta, .tb = attr->tb};
  p.m = a->dim[a->rank - (attr->ta ? 1 : 2)];
  p.k = a->dim[a->rank - (attr->ta ? 2 : 1)];
  p.n = b->dim[b->rank - (attr->tb ? 2 : 1)];
  for (int i = 0; i < a->rank - 2; i++) p.batch *= a->dim[i];
  p.step_a = p.m * p.k;
  p.step_b = b->rank == 2 ? 0 : p.k * p.n;
  if (b->rank == 2 && !attr->ta) p.m *= p.batch, p.batch = 1;
  p.limbs = dj__amx_limbs(ta, attr->rounds & 1u);
  p.a = (dj__amx_matrix){
      ta->data, ta->dtype, attr->ta ? p.k : p.m, attr->ta ? p.m : p.k, a->dim[a->rank - 1],
      p.limbs,  NULL};
  p.b = (dj__amx_matrix){
      tb->data, tb->dtype, attr->tb ? p.n : p.k, attr->tb ? p.k : p.n, b->dim[b->rank - 1],
      p.limbs,  NULL};
  const int64_t number = 2 * p.limbs; /* bytes */
  p.chunk = least(up(p.k, 32), p.limbs > 1 ? LIMBS_CHUNK : CHUNK);
  p.columns = up(p.n, 32);
  if (p.batch == 1)
    p.columns =
        least(p.columns, up((p.limbs > 1 ? LIMBS_B_BYTES : B_BYTES) / (number * p.chunk), 32));
  p.many_sums = p.chunk < p.k;
  p.block = up((p.limbs > 1 ? LIMBS_A_BYTES : DJ__A_BYTES) / (number * p.chunk), 32);
  if (p.block > up(p.m, 32)) p.block = up(p.m, 32);
  p.past = p.m * p.n * (int64_t)dj_dtype_size(call->out[0].dtype) > PAST;
  p.group = p.n * 4 > FAR ? GROUP : 1;
  p.kept = call->keeps && can_keep(call);
  p.b_bytes = p.kept ? 0 : (size_t)(p.columns * p.chunk * number);
  p.a_bytes = (size_t)(p.block * p.chunk * number);
  p.c_bytes =
      (size_t)p.block * 32 * p.group * sizeof(float) + (size_t)p.chunk / 32 * sizeof(int32_t) + 256;
  p.c_bytes = (p.c_bytes + 63) / 64 * 64;
  p.rows = up(p.m, 32);
  if (p.many_sums) p.rows = least(p.rows, up(SUM_BYTES / (4 * p.columns), p.block));
  p.sum_bytes = p.many_sums ? (size_t)(p.rows * p.columns) * sizeof(float) : 0;
  return p;
}

static int64_t thread_count(const dj__call *c) {
  return c->threads > 1 ? c->threads : 1;
}
/* Matrices of a batch are shared out whole: then each thread packs a B and keeps sums of its own.
 */
static int64_t copies(const dj__call *c, const plan *p) {
  return p->batch > 1 ? thread_count(c) : 1;
}

static size_t workspace(const dj__call *c) {
  plan p = plan_of(c);
  size_t n = (size_t)thread_count(c), own = (size_t)copies(c, &p);
  return own * (p.b_bytes + p.sum_bytes) + n * (p.a_bytes + p.c_bytes) + (size_t)up(p.n, 32) * 4 +
         64;
}

static bool supports(const dj__call *c) {
  const dj__matmul_attr *attr = c->attr;
  if (!DJ__I(all_float)(c) || dj_shape_count(&c->out[0].shape) == 0) return false;
  const int limbs = dj__amx_limbs(&c->in[0], attr->rounds & 1u);
  if (limbs != dj__amx_limbs(&c->in[1], attr->rounds >> 1 & 1u)) return false;
  if (limbs > 1 && c->out[0].dtype != DJ_F32) return false;
  plan p = plan_of(c);
  if (dj__worth_threads == 0) return p.k > 0; /* a test, with small shapes */
  return p.batch == 1 && p.m >= SMALL_M && p.n >= 32 && p.k >= LEAST_K;
}

/* What a thread works with. */
typedef struct job {
  const plan *p;
  const char *kept;  /* B packed, from the first panel on; or NULL */
  char *b, *a;       /* packed: (panels, steps of the chunk); (16 rows, steps) */
  float *c;          /* (block / 32, 32, 32) sums of a panel */
  float *sum;        /* (panels of a chunk, rows, 32) f32, or NULL */
  int32_t *at;       /* (steps) where they lie in A */
  dj__amx_matrix ma; /* A and the result of this one of the batch */
  void *out;
  dj__amx_to to;     /* its bias: of all columns */
  int64_t k0, steps; /* the chunk of depth: first element, steps of 32 */
  int64_t n0, n1;    /* the chunk of columns */
  int64_t m0, m1;    /* the rows whose sums are kept */
} job;

/* Where the sums of the panel at column n begin: those of all rows, or of the block at m0. */
static float *sums_of(const job *j, int64_t m0, int64_t n, int64_t group) {
  const plan *p = j->p;
  if (!j->sum) return j->c + (n - group) * p->block;
  return j->sum + ((n - j->n0) / 32 * p->rows + m0 - j->m0) * 32;
}

/* The packed panel of the columns from n on, from the chunk's depth on. */
static const char *panel_of(const job *j, int64_t n) {
  const int64_t step = j->p->limbs * DJ__STEP_BYTES;
  if (!j->kept) return j->b + (n - j->n0) / 32 * j->steps * step;
  return j->kept + (n / 32 * (up(j->p->k, 32) / 32) + j->k0 / 32) * step;
}

/* One panel (32 columns from n on) against rows m0 .. m1, whose A is in cache. */
static void panel(const job *j, int64_t m0, int64_t m1, int64_t n, float *sums) {
  const plan *p = j->p;
  const int64_t cols = least(32, p->n - n), deep = dj__amx_deep(p->limbs);
  const int64_t step = p->limbs * DJ__STEP_BYTES, run = p->limbs * j->steps * DJ__TILE_BYTES;
  const char *b = panel_of(j, n);
  const int64_t pieces = (j->steps + deep - 1) / deep, blocks = (m1 - m0 + 31) / 32;
  for (int64_t q = 0; q < pieces; q++) {
    int64_t s0 = j->steps * q / pieces, s1 = j->steps * (q + 1) / pieces;
    const char *bq = b + s0 * step, *next = b + s1 * step;
    const int64_t lines = ((s1 - s0) * step / 64 + blocks - 1) / blocks;
    for (int64_t m = m0; m < m1; m += 32, next += lines * 64) {
      const char *at = j->a + (m - m0) / 32 * 2 * run;
      dj__amx_a a = {{at, at + run}, 64, j->at + s0, DJ__TILE_BYTES};
      float *c = sums + (m - m0) * 32;
      const bool sum = q > 0 || j->k0 > 0;
      dj__amx_ahead ahead = {next, sum && m + 32 < m1 ? (const char *)(c + 1024) : NULL, lines};
      dj__amx_any(p->limbs, least(32, m1 - m), cols, &a, bq, s1 - s0, c, sum, &ahead);
    }
  }
}

/* Rows m0 .. m1 of panels n0 .. n1: sums to results, row by row. */
static void store(const job *j, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
  const plan *p = j->p;
  const size_t size = dj_dtype_size(j->to.dtype);
  for (int64_t m = m0; m < m1; m += 32)
    for (int64_t n = n0; n < n1; n += 32) {
      char *out = (char *)j->out + ((size_t)(m * p->n) + (size_t)n) * size;
      dj__amx_to to = j->to;
      if (to.bias) to.bias += n;
      dj__amx_store(sums_of(j, m0, n, n0) + (m - m0) * 32, least(32, m1 - m), least(32, p->n - n),
                    out, p->n, &to);
    }
}

/* Rows m0 .. m1 against columns n0 .. n1 of the chunk. */
static void range(const job *j, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
  const plan *p = j->p;
  const bool last = j->k0 + j->steps * 32 >= p->k;
  for (int64_t m = m0; m < m1; m += p->block) {
    const int64_t end = least(m + p->block, m1);
    dj__amx_pack_a(j->a, &j->ma, p->ta, j->k0, j->steps, m, (end - m + 31) / 32);
    for (int64_t g = n0; g < n1; g += 32 * p->group) {
      const int64_t stop = least(g + 32 * p->group, n1);
      for (int64_t n = g; n < stop; n += 32) panel(j, m, end, n, sums_of(j, m, n, g));
      if (last) store(j, m, end, g, stop);
    }
  }
}

static void steps_of(job *j) {
  for (int64_t s = 0; s < j->steps; s++) j->at[s] = (int32_t)(s * j->p->limbs * DJ__TILE_BYTES);
}

/* One chunk of depth for rows m0 .. m1 and columns n0 .. n1. */
static void chunk(job *j, const dj__amx_matrix *b, int id, int team) {
  const plan *p = j->p;
  const int64_t rows = up(j->m1 - j->m0, 32) / 32, panels = (j->n1 - j->n0) / 32;
  const int64_t first = part_from(panels, team, id), next = part_from(panels, team, id + 1);
  const int64_t size = j->steps * p->limbs * DJ__STEP_BYTES; /* of a panel */
  const bool shared = team > 1 && !j->kept;
  if (!j->kept)
    dj__amx_pack_b(j->b + first * size, size, b, p->tb, j->k0, j->steps, j->n0 + 32 * first,
                   next - first);
  if (shared) {
#pragma omp barrier
  }
  if (rows >= 2 * team || panels < 2 * team)
    range(j, j->m0 + 32 * part_from(rows, team, id),
          least(j->m1, j->m0 + 32 * part_from(rows, team, id + 1)), j->n0, j->n1);
  else
    range(j, j->m0, j->m1, j->n0 + 32 * first, j->n0 + 32 * next);
  if (shared) {
#pragma omp barrier
  }
}

/* The whole product, by one thread (team 1) or as part of a team in a parallel region. */
static void product(job *j, const dj__amx_matrix *b, int id, int team) {
  const plan *p = j->p;
  for (j->m0 = 0; j->m0 < p->m; j->m0 = j->m1) {
    j->m1 = least(j->m0 + p->rows, p->m);
    for (j->n0 = 0; j->n0 < p->n; j->n0 = j->n1) {
      j->n1 = least(j->n0 + p->columns, up(p->n, 32));
      for (j->k0 = 0; j->k0 < p->k; j->k0 += p->chunk) {
        j->steps = (least(p->chunk, p->k - j->k0) + 31) / 32;
        steps_of(j);
        chunk(j, b, id, team);
      }
    }
  }
}

/* All products of the call. True: there were numbers that are not finite. */
static bool products(const dj__call *c, const plan *p, bool mend) {
  const dj__matmul_attr *attr = c->attr;
  const int64_t own = copies(c, p);
  char *ws = aligned(c->workspace);
  char *bs = ws, *sums = bs + (size_t)own * p->b_bytes, *as = sums + (size_t)own * p->sum_bytes;
  const size_t each = p->a_bytes + p->c_bytes;
  float *bias = (float *)(void *)(as + (size_t)thread_count(c) * each);
  if (attr->post.bias) DJ__I(load_block)(bias, c->in[2].data, c->in[2].dtype, p->n);
  const dj__amx_to to = {c->out[0].dtype, attr->post.act, attr->post.bias ? bias : NULL, p->past,
                         mend};
  const int threads = (int)thread_count(c);
  bool any = false;
#pragma omp parallel num_threads(threads) reduction(|| : any)
  {
    const int id = omp_get_thread_num(), team = omp_get_num_threads();
    char *mine = as + (size_t)id * each;
    job j = {.p = p, .a = mine, .c = (float *)(void *)(mine + p->a_bytes), .to = to};
    j.kept = p->kept ? c->packed : NULL;
    j.at = (int32_t *)(void *)(j.c + p->block * 32 * p->group);
    const int copy = own > 1 ? id : 0;
    j.b = bs + (size_t)copy * p->b_bytes;
    j.sum = p->many_sums ? (float *)(void *)(sums + (size_t)copy * p->sum_bytes) : NULL;
    dj__amx_begin();
    for (int64_t i = 0; i < p->batch; i++) {
      if (own > 1 && i % team != id) continue;
      dj__amx_matrix b = p->b;
      j.ma = p->a;
      j.ma.data = at(c->in[0].data, c->in[0].dtype, i * p->step_a);
      b.data = at(c->in[1].data, c->in[1].dtype, i * p->step_b);
      j.ma.strange = b.strange = &any;
      j.out = at_w(c->out[0].data, c->out[0].dtype, i * p->m * p->n);
      product(&j, &b, own > 1 ? 0 : id, own > 1 ? 1 : team);
    }
    dj__amx_end();
  }
  return any;
}

static dj_status run(const dj__call *c, void *self) {
  (void)self;
  plan p = plan_of(c);
  if (!products(c, &p, false)) return DJ_OK;
  p.limbs = p.a.limbs = p.b.limbs = 1;
  products(c, &p, true);
  return DJ_OK;
}

/* Panels of 32 columns, all of their depth: step by step two tiles of 16 pairs of 16 columns. */
static dj__layout *layout(const dj__call *c) {
  if (!can_keep(c)) return NULL;
  const dj_shape *s = &c->in[1].shape;
  const bool tb = ((const dj__matmul_attr *)c->attr)->tb;
  const int64_t depth = weight_axis(c, true), count = depth * weight_axis(c, false);
  const int64_t there = s->dim[tb ? 1 : 0], pairs = (there + 1) / 2 % 16; /* in the last step */
  const int gaps = pairs ? (int)(count / depth / 16 * (16 - pairs)) : 0;
  dj__layout *l =
      malloc(sizeof *l + (size_t)(s->dim[0] + 1 + s->dim[1] + gaps) * sizeof l->place[0]);
  if (!l) return NULL;
  *l = (dj__layout){.rows = s->dim[0],
                    .taps = 1,
                    .cols = s->dim[1],
                    .count = count,
                    .gaps = gaps,
                    .whole = true, /* columns that are not there are not stored */
                    .dtype = DJ_BF16};
  int32_t *row = l->place, *col = row + l->rows + 1;
  row[l->rows] = 0;
  int32_t *k = tb ? col : row, *n = tb ? row : col; /* places along depth and columns */
  for (int64_t i = 0; i < there; i++) k[i] = (int32_t)(i / 32 * 1024 + i % 32 / 2 * 32 + i % 2);
  for (int64_t i = 0; i < s->dim[tb ? 0 : 1]; i++)
    n[i] = (int32_t)(i / 32 * 32 * depth + i % 32 / 16 * 512 + i % 16 * 2);
  int32_t *gap = col + l->cols;
  for (int64_t i = 0; pairs && i < count / depth; i += 16)
    for (int64_t p = pairs; p < 16; p++)
      *gap++ = (int32_t)(i / 32 * 32 * depth + i % 32 / 16 * 512 + (depth - 32) * 32 + p * 32);
  dj__layout_finish(l);
  return l;
}

const dj__own dj__amx_matmul = {run, supports, workspace, layout};
