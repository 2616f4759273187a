/*
 * Elementwise kernels: every op of ewise.h, `fused` programs of them, casts, and broadcast.
 *
 * One interpreter runs them all. The output is cut into blocks of about a thousand elements; for a
 * block, registers are f32 vectors in first-level cache and every instruction is one vector loop,
 * so a chain of any length reads its inputs and writes its outputs once. Inputs that are f32 and
 * not broadcast are used where they lie, f32 outputs are written where they belong, all others go
 * through scratch with conversion. Broadcast inputs that repeat within a block (scalars, biases
 * over channels) are laid out once per run.
 *
 * Column sums, if a program has them, are added up on the way: blocks hold whole rows and are added
 * element by element, in f32 at first, then in double. Parts that are summed apart depend on the
 * shape alone and are added in order: sums are the same for any number of threads.
 *
 * Invariants: an output may be the memory of an input of the same shape and dtype; no other
 * overlap.
 */
#include <assert.h>

#include "backend/cpu/isa/vmath.h"
#include "engine/ewise.h"

enum {
  BLOCK = 1024,
  MAX_REG = DJ__FUSED_IN + DJ__FUSED_INSTR,
  PARTS = 64,      /* of sums, at most */
  PART_BLOCKS = 8, /* that a part has at least, if there are as many */
  FLUSH = 64       /* blocks added in f32 before they go into the double */
};
static_assert((int)DJ__FUSED_COLUMNS <= (int)BLOCK, "a block holds whole rows");

/* ---- instructions ---- */
typedef void instr_fn(float *d, const float *a, const float *b, const float *c, float p, float q,
                      int64_t n);

#define DJ__X(name, arity, expr, flops)                                                            \
  static void k_##name(float *d, const float *ra, const float *rb, const float *rc, float p,       \
                       float q, int64_t n) {                                                       \
    (void)p, (void)q;                                                                              \
    DJ__SIMD for (int64_t i = 0; i < n; i++) {                                                     \
      float a = ra[i], b = (arity) > 1 ? rb[i] : 0, c = (arity) > 2 ? rc[i] : 0;                   \
      (void)b, (void)c;                                                                            \
      d[i] = (expr);                                                                               \
    }                                                                                              \
  }
DJ__EWISE_LIST(DJ__X)
#undef DJ__X

static void k_cast(float *d, const float *a, const float *b, const float *c, float p, float q,
                   int64_t n) {
  (void)b, (void)c, (void)q;
  if (p == 1) {
    DJ__SIMD for (int64_t i = 0; i < n; i++) d[i] = vm_bits((uint32_t)to_bf16(a[i]) << 16);
  } else if (d != a) {
    memcpy(d, a, (size_t)n * sizeof *d);
  }
}

/* The same on bf16 as it lies, for single ops: no way through registers of the interpreter. */
typedef void instr16_fn(uint16_t *d, const uint16_t *a, const uint16_t *b, const uint16_t *c,
                        float p, float q, int64_t n);
#define DJ__X(name, arity, expr, flops)                                                            \
  static void h_##name(uint16_t *d, const uint16_t *ra, const uint16_t *rb, const uint16_t *rc,    \
                       float p, float q, int64_t n) {                                              \
    (void)p, (void)q;                                                                              \
    DJ__SIMD for (int64_t i = 0; i < n; i++) {                                                     \
      float a = ld(ra, DJ_BF16, i), b = (arity) > 1 ? ld(rb, DJ_BF16, i) : 0;                      \
      float c = (arity) > 2 ? ld(rc, DJ_BF16, i) : 0;                                              \
      (void)b, (void)c;                                                                            \
      d[i] = to_bf16(expr);                                                                        \
    }                                                                                              \
  }
DJ__EWISE_LIST(DJ__X)
#undef DJ__X
static instr16_fn *const INSTR16[DJ__N_OPS] = {
#define DJ__X(name, arity, expr, flops) [DJ__OP_##name] = h_##name,
    DJ__EWISE_LIST(DJ__X)
#undef DJ__X
};

static instr_fn *const INSTR[DJ__N_OPS] = {
#define DJ__X(name, arity, expr, flops) [DJ__OP_##name] = k_##name,
    DJ__EWISE_LIST(DJ__X)
#undef DJ__X
        [DJ__OP_cast] = k_cast};
static const unsigned char ARITY[DJ__N_OPS] = {
#define DJ__X(name, arity, expr, flops) [DJ__OP_##name] = (arity),
    DJ__EWISE_LIST(DJ__X)
#undef DJ__X
        [DJ__OP_cast] = 1};

/* ---- conversion of contiguous elements ---- */
void DJ__I(load_block)(float *dst, const void *src, dj_dtype t, int64_t n) {
  switch (t) {
  case DJ_F32:
    memcpy(dst, src, (size_t)n * sizeof *dst);
    break;
  case DJ_BF16:
    DJ__SIMD for (int64_t i = 0; i < n; i++) dst[i] = ld(src, DJ_BF16, i);
    break;
  case DJ_I32:
    DJ__SIMD for (int64_t i = 0; i < n; i++) dst[i] = ld(src, DJ_I32, i);
    break;
  default:
    DJ__SIMD for (int64_t i = 0; i < n; i++) dst[i] = ld(src, DJ_U8, i);
  }
}

/* Floats to integers: towards zero, held to the range of the type; NaN gives 0. */
DJ__INLINE int32_t float_to_int(float f, float lo, float hi) {
  f = f < lo ? lo : f;
  f = f > hi ? hi : f;
  return f == f ? (int32_t)f : 0;
}

void DJ__I(store_block)(void *dst, dj_dtype t, const float *src, int64_t n) {
  switch (t) {
  case DJ_F32:
    memcpy(dst, src, (size_t)n * sizeof *src);
    break;
  case DJ_BF16: {
    uint16_t *d = dst;
    DJ__SIMD for (int64_t i = 0; i < n; i++) d[i] = to_bf16(src[i]);
    break;
  }
  case DJ_I32: {
    int32_t *d = dst;
    DJ__SIMD for (int64_t i = 0; i < n; i++) d[i] = float_to_int(src[i], -0x1p31f, 0x1.fffffep30f);
    break;
  }
  default: {
    uint8_t *d = dst;
    DJ__SIMD for (int64_t i = 0; i < n; i++) d[i] = (uint8_t)float_to_int(src[i], 0, 255);
  }
  }
}

static void convert_block(void *dst, dj_dtype dt, const void *src, dj_dtype stype, int64_t n) {
  if (dt == stype) {
    memmove(dst, src, (size_t)n * dj_dtype_size(dt));
  } else if (dt == DJ_F32) {
    DJ__I(load_block)(dst, src, stype, n);
  } else if (stype == DJ_F32) {
    DJ__I(store_block)(dst, dt, src, n);
  } else if (dt == DJ_I32 && stype == DJ_U8) {
    for (int64_t i = 0; i < n; i++) ((int32_t *)dst)[i] = ((const uint8_t *)src)[i];
  } else if (dt == DJ_U8 && stype == DJ_I32) {
    for (int64_t i = 0; i < n; i++) {
      int32_t v = ((const int32_t *)src)[i];
      ((uint8_t *)dst)[i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
  } else {
    float tmp[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK) {
      int64_t len = n - i < BLOCK ? n - i : BLOCK;
      DJ__I(load_block)(tmp, at(src, stype, i), stype, len);
      DJ__I(store_block)(at_w(dst, dt, i), dt, tmp, len);
    }
  }
}

void DJ__I(convert)(void *dst, dj_dtype dt, const void *src, dj_dtype stype, int64_t n,
                    int threads) {
  if (dst == src && dt == stype) return;
  int64_t blocks = (n + BLOCK - 1) / BLOCK;
  int nt = blocks < 32 || threads < 1 ? 1 : threads;
#pragma omp parallel for schedule(static) num_threads(nt)
  for (int64_t b = 0; b < blocks; b++) {
    int64_t i = b * BLOCK, len = n - i < BLOCK ? n - i : BLOCK;
    convert_block(at_w(dst, dt, i), dt, at(src, stype, i), stype, len);
  }
}

dj_status DJ__I(cast_run)(const dj__call *c, void *self) {
  (void)self;
  DJ__I(convert)
  (c->out[0].data, c->out[0].dtype, c->in[0].data, c->in[0].dtype, dj_shape_count(&c->out[0].shape),
   c->threads);
  return DJ_OK;
}

/* ---- planning a fused program ---- */
typedef enum src_kind { FULL, SCALAR, PERIODIC, GENERAL } src_kind;

/* An input seen over the output's elements: dimensions joined where strides allow. */
typedef struct source {
  src_kind kind;
  bool direct; /* FULL, f32, and no output overwrites it early: read in place */
  int rank;
  int64_t dim[DJ_MAX_RANK], stride[DJ_MAX_RANK];
} source;

typedef struct plan {
  int64_t n, block;
  int n_in, n_instr, n_out; /* outputs without the sums */
  source in[DJ__FUSED_IN];
  const dj__fused_instr *instr;
  const unsigned char *out;
  int16_t slot[MAX_REG];       /* scratch block, or -1: in place */
  int16_t direct_out[MAX_REG]; /* output written in place by this register, or -1 */
  bool direct16;               /* one op, all of it bf16 and of one shape */
  bool stored[DJ__FUSED_OUT];  /* copied from its register at the end of the block */
  int64_t columns, parts;      /* of the sums; 0: there are none */
  int summed;                  /* register, -1: none */
  int n_slots;
} plan;

static void look_at_input(source *s, const dj_tensor *t, const dj_shape *out) {
  int64_t stride[DJ_MAX_RANK], step = 1;
  int shift = out->rank - t->shape.rank;
  for (int i = out->rank - 1; i >= 0; i--) {
    int64_t d = i >= shift ? t->shape.dim[i - shift] : 1;
    stride[i] = d == 1 ? 0 : step;
    step *= d;
  }
  s->rank = 0;
  for (int i = 0; i < out->rank; i++) {
    if (out->dim[i] == 1) continue;
    int r = s->rank;
    if (r > 0 && s->stride[r - 1] == stride[i] * out->dim[i]) {
      s->dim[r - 1] *= out->dim[i];
      s->stride[r - 1] = stride[i];
    } else {
      s->dim[r] = out->dim[i];
      s->stride[r] = stride[i];
      s->rank++;
    }
  }
  if (s->rank == 0) { /* a single element */
    s->rank = 1;
    s->dim[0] = 1;
    s->stride[0] = 1;
  }
  if (s->rank == 1)
    s->kind = s->stride[0] ? FULL : SCALAR;
  else
    s->kind = s->rank == 2 && s->stride[0] == 0 && s->stride[1] == 1 ? PERIODIC : GENERAL;
}

static int64_t gcd(int64_t a, int64_t b) {
  while (b) {
    int64_t t = a % b;
    a = b;
    b = t;
  }
  return a;
}

/* A block length that is a multiple of the periods found, so that their registers never change. */
static void choose_block(plan *p) {
  int64_t unit = 16;
  if (p->columns) unit = unit / gcd(unit, p->columns) * p->columns;
  if (unit > BLOCK) unit = p->columns;
  for (int i = 0; i < p->n_in; i++) {
    source *s = &p->in[i];
    if (s->kind != PERIODIC) continue;
    int64_t period = s->dim[1], joint = unit / gcd(unit, period) * period;
    if (joint <= BLOCK)
      unit = joint;
    else if (unit == 16 && period <= BLOCK)
      unit = period;
    else
      s->kind = GENERAL;
  }
  for (int i = 0; i < p->n_in; i++)
    if (p->in[i].kind == PERIODIC && unit % p->in[i].dim[1]) p->in[i].kind = GENERAL;
  p->block = BLOCK / unit * unit;
}

/* Scratch blocks for registers, reused after their last reader. */
static void assign_slots(plan *p) {
  int last[MAX_REG], n_reg = p->n_in + p->n_instr;
  bool busy[MAX_REG] = {false};
  for (int r = 0; r < n_reg; r++) last[r] = -1;
  for (int i = 0; i < p->n_instr; i++) {
    const dj__fused_instr *f = &p->instr[i];
    last[f->a] = i;
    if (ARITY[f->op] > 1) last[f->b] = i;
    if (ARITY[f->op] > 2) last[f->c] = i;
  }
  for (int k = 0; k < p->n_out; k++)
    if (p->stored[k]) last[p->out[k]] = p->n_instr;
  if (p->summed >= 0) last[p->summed] = p->n_instr;
  p->n_slots = 0;
  for (int r = 0; r < n_reg; r++) {
    p->slot[r] = -1;
    bool in_place = r < p->n_in ? p->in[r].direct : p->direct_out[r] >= 0;
    if (r >= p->n_in) { /* operands read for the last time give their slot back first */
      for (int o = 0; o < r; o++)
        if (p->slot[o] >= 0 && last[o] == r - p->n_in &&
            !(o < p->n_in && (p->in[o].kind == SCALAR || p->in[o].kind == PERIODIC)))
          busy[p->slot[o]] = false;
    }
    if (in_place) continue;
    int s = 0;
    while (busy[s]) s++;
    busy[s] = true;
    p->slot[r] = (int16_t)s;
    if (s >= p->n_slots) p->n_slots = s + 1;
  }
}

/* True if a register may be read after an output has been written. */
static bool reads_late(const plan *p) {
  return p->n_instr > 1 || p->summed >= 0;
}

static void make_plan(plan *p, const dj__call *c, const dj__fused_instr *instr, int n_instr,
                      const unsigned char *out, bool sum) {
  p->n = dj_shape_count(&c->out[0].shape);
  p->n_in = c->n_in;
  p->n_instr = n_instr;
  p->n_out = c->n_out - sum;
  p->summed = sum ? out[p->n_out] : -1;
  p->columns = sum ? dj_shape_count(&c->out[p->n_out].shape) : 0;
  p->instr = instr;
  p->out = out;
  for (int i = 0; i < p->n_in; i++) look_at_input(&p->in[i], &c->in[i], &c->out[0].shape);
  choose_block(p);
  p->parts = p->n / p->block / PART_BLOCKS;
  p->parts = !sum ? 0 : p->parts < 1 ? 1 : p->parts > PARTS ? PARTS : p->parts;
  for (int i = 0; i < p->n_in; i++) {
    p->in[i].direct = p->in[i].kind == FULL && c->in[i].dtype == DJ_F32;
    for (int k = 0; k < p->n_out && reads_late(p); k++)
      if (c->in[i].data && c->in[i].data == c->out[k].data) p->in[i].direct = false;
  }
  p->direct16 = n_instr == 1 && p->n_out == 1 && INSTR16[instr->op] && out[0] == p->n_in &&
                (!sum || p->summed == p->n_in) && c->out[0].dtype == DJ_BF16;
  for (int i = 0; i < p->n_in; i++)
    if (p->in[i].kind != FULL || c->in[i].dtype != DJ_BF16) p->direct16 = false;
  for (int r = 0; r < p->n_in + n_instr; r++) p->direct_out[r] = -1;
  for (int k = 0; k < p->n_out; k++) {
    int r = out[k];
    assert(r < p->n_in + n_instr);
    bool direct = r >= p->n_in && c->out[k].dtype == DJ_F32 && p->direct_out[r] < 0;
    if (direct) p->direct_out[r] = (int16_t)k;
    p->stored[k] = !direct;
  }
  assign_slots(p);
}

/* ---- running it ---- */
/* dst[0..n) = elements from..from+n of a broadcast input. */
static void fill_general(float *dst, const source *s, const void *data, dj_dtype t, int64_t from,
                         int64_t n) {
  assert(s->rank > 0); /* a scalar is no GENERAL source */
  int64_t index[DJ_MAX_RANK], rest = from, offset = 0;
  for (int d = s->rank - 1; d >= 0; d--) {
    index[d] = rest % s->dim[d];
    rest /= s->dim[d];
    offset += index[d] * s->stride[d];
  }
  int in = s->rank - 1;
  while (n > 0) {
    int64_t len = s->dim[in] - index[in];
    if (len > n) len = n;
    if (s->stride[in] == 0) {
      float v = ld(data, t, offset);
      DJ__SIMD for (int64_t i = 0; i < len; i++) dst[i] = v;
    } else if (len >= 8) {
      DJ__I(load_block)(dst, at(data, t, offset), t, len);
    } else {
      for (int64_t i = 0; i < len; i++) dst[i] = ld(data, t, offset + i);
    }
    dst += len;
    n -= len;
    offset += len * s->stride[in];
    index[in] += len;
    for (int d = in; d > 0 && index[d] == s->dim[d]; d--) {
      index[d] = 0;
      offset += s->stride[d - 1] - s->dim[d] * s->stride[d];
      index[d - 1]++;
    }
  }
}

static void fill_constant(float *dst, const source *s, const void *data, dj_dtype t, int64_t n) {
  if (s->kind == SCALAR) {
    float v = ld(data, t, 0);
    for (int64_t i = 0; i < n; i++) dst[i] = v;
    return;
  }
  int64_t period = s->dim[1];
  for (int64_t i = 0; i < n; i += period)
    DJ__I(load_block)(dst + i, data, t, n - i < period ? n - i : period);
}

/* acc: what is summed is added to it, element by element; NULL: nothing is. */
static void run_block16(const plan *p, const dj__call *c, float *acc, int64_t from, int64_t n) {
  const dj__fused_instr *f = p->instr;
  const int reg[3] = {f->a, f->b, f->c};
  const uint16_t *in[3] = {NULL};
  for (int k = 0; k < ARITY[f->op]; k++) in[k] = (const uint16_t *)c->in[reg[k]].data + from;
  uint16_t *d = (uint16_t *)c->out[0].data + from;
  INSTR16[f->op](d, in[0], in[1], in[2], f->p, f->q, n);
  if (acc) DJ__SIMD for (int64_t i = 0; i < n; i++) acc[i] += ld(d, DJ_BF16, i);
}

static void run_block(const plan *p, const dj__call *c, float *scratch, float *acc, int64_t from,
                      int64_t n) {
  float *reg[MAX_REG];
  for (int i = 0; i < p->n_in; i++) {
    const source *s = &p->in[i];
    if (s->direct) {
      reg[i] = (float *)c->in[i].data + from; /* only read */
      continue;
    }
    reg[i] = scratch + p->slot[i] * BLOCK;
    if (s->kind == FULL)
      DJ__I(load_block)(reg[i], at(c->in[i].data, c->in[i].dtype, from), c->in[i].dtype, n);
    else if (s->kind == GENERAL)
      fill_general(reg[i], s, c->in[i].data, c->in[i].dtype, from, n);
  }
  for (int i = 0; i < p->n_instr; i++) {
    const dj__fused_instr *f = &p->instr[i];
    int r = p->n_in + i, k = p->direct_out[r];
    reg[r] = k >= 0 ? (float *)c->out[k].data + from : scratch + p->slot[r] * BLOCK;
    INSTR[f->op](reg[r], reg[f->a], ARITY[f->op] > 1 ? reg[f->b] : NULL,
                 ARITY[f->op] > 2 ? reg[f->c] : NULL, f->p, f->q, n);
  }
  if (acc) k_add(acc, acc, reg[p->summed], NULL, 0, 0, n);
  for (int k = 0; k < p->n_out; k++) {
    if (!p->stored[k]) continue;
    dj_dtype t = c->out[k].dtype;
    void *dst = at_w(c->out[k].data, t, from);
    if (dst != (void *)reg[p->out[k]]) DJ__I(store_block)(dst, t, reg[p->out[k]], n);
  }
}

/* Blocks from..to. sum (columns): sums of them; NULL: none. */
static void run_part(const plan *p, const dj__call *c, float *scratch, double *sum, int64_t from,
                     int64_t to) {
  float acc[BLOCK];
  const int64_t wide = p->n < p->block ? p->n : p->block;
  if (sum) memset(sum, 0, (size_t)p->columns * sizeof *sum);
  for (int64_t b = from; b < to; b++) {
    int64_t at = b * p->block, n = p->n - at < p->block ? p->n - at : p->block;
    if (sum && (b - from) % FLUSH == 0) memset(acc, 0, sizeof acc);
    if (p->direct16)
      run_block16(p, c, sum ? acc : NULL, at, n);
    else
      run_block(p, c, scratch, sum ? acc : NULL, at, n);
    if (!sum || ((b - from) % FLUSH != FLUSH - 1 && b != to - 1)) continue;
    for (int64_t r = 0; r < wide; r += p->columns)
      DJ__SIMD for (int64_t i = 0; i < p->columns; i++) sum[i] += (double)acc[r + i];
  }
}

/* The parts' sums come first in the workspace. */
static size_t sums_bytes(const plan *p) {
  return ((size_t)(p->parts * p->columns) * sizeof(double) + 63) / 64 * 64;
}

static void finish_sums(const plan *p, const dj__call *c) {
  double *sum = c->workspace;       // (parts, columns)
  float *y = c->out[p->n_out].data; // (columns) f32
  for (int64_t u = 1; u < p->parts; u++)
    DJ__SIMD for (int64_t i = 0; i < p->columns; i++) sum[i] += sum[u * p->columns + i];
  for (int64_t i = 0; i < p->columns; i++) y[i] = (float)sum[i];
}

static void run_plan(const plan *p, const dj__call *c) {
  if (p->n == 0) return;
  int64_t blocks = (p->n + p->block - 1) / p->block;
  int nt = threads_for(c, p->n * (1 + p->n_instr / 4));
  if (nt > blocks) nt = (int)blocks;
#pragma omp parallel num_threads(nt)
  {
    int t = omp_get_thread_num(), team = omp_get_num_threads();
    float *scratch = (float *)c->workspace + sums_bytes(p) / sizeof(float) +
                     (size_t)t * (size_t)p->n_slots * BLOCK;
    for (int i = 0; i < p->n_in; i++)
      if (p->in[i].kind == SCALAR || p->in[i].kind == PERIODIC)
        fill_constant(scratch + p->slot[i] * BLOCK, &p->in[i], c->in[i].data, c->in[i].dtype,
                      p->block < p->n ? p->block : p->n);
    int64_t parts = p->parts ? p->parts : team, to = part_from(parts, team, t + 1);
    for (int64_t u = part_from(parts, team, t); u < to; u++) {
      double *sum = p->parts ? (double *)c->workspace + u * p->columns : NULL;
      run_part(p, c, scratch, sum, part_from(blocks, parts, u), part_from(blocks, parts, u + 1));
    }
  }
  if (p->parts) finish_sums(p, c);
}

static void plan_for(plan *p, const dj__call *c, dj__fused_instr *one) {
  static const unsigned char FIRST[3 + DJ__FUSED_OUT] = {0, 1, 2, 3, 4, 5, 6};
  if (c->op == DJ__OP_fused) {
    const dj__fused_attr *f = c->attr;
    make_plan(p, c, f->instr, f->n_instr, f->out, f->sum);
    return;
  }
  assert(c->n_in >= 1 && c->n_in <= 3 && c->n_out == 1);
  if (c->op == DJ__OP_broadcast) { /* reading the input in the output's shape is all there is */
    *one = (dj__fused_instr){.op = DJ__OP_stop_gradient};
    make_plan(p, c, one, 1, &FIRST[1], false);
    return;
  }
  const dj__ewise_attr *a = c->attr;
  *one = (dj__fused_instr){.op = (unsigned char)c->op, .a = 0, .b = 1, .c = 2};
  if (a) one->p = a->p, one->q = a->q;
  make_plan(p, c, one, 1, &FIRST[c->n_in], false); /* the result is the register after the inputs */
}

bool DJ__I(ewise_supports)(const dj__call *c) {
  for (int i = 0; i < c->n_out; i++)
    if (!is_float(&c->out[i])) return false;
  return c->n_in <= (c->op == DJ__OP_fused ? DJ__FUSED_IN : 3);
}

size_t DJ__I(ewise_workspace)(const dj__call *c) {
  /* Data pointers are not known yet: plan as if every input were overwritten by an output. */
  dj__fused_instr one;
  plan p;
  plan_for(&p, c, &one);
  if (reads_late(&p))
    for (int i = 0; i < p.n_in; i++) p.in[i].direct = false;
  assign_slots(&p);
  return sums_bytes(&p) +
         (size_t)(c->threads > 1 ? c->threads : 1) * (size_t)p.n_slots * BLOCK * sizeof(float);
}

dj_status DJ__I(ewise_run)(const dj__call *c, void *self) {
  (void)self;
  dj__fused_instr one;
  plan p;
  plan_for(&p, c, &one);
  run_plan(&p, c);
  return DJ_OK;
}

/* ---- epilogue of matmul and convolution where the library cannot fuse it ---- */
void DJ__I(post)(void *y, dj_dtype yt, int64_t rows, int64_t n, const void *bias, dj_dtype bt,
                 int act, int threads) {
  if (!bias && !act) return;
  int64_t pieces = (n + BLOCK - 1) / BLOCK;
  int nt = rows * n < dj__worth_threads || threads < 1 ? 1 : threads;
#pragma omp parallel for schedule(static) num_threads(nt)
  for (int64_t u = 0; u < rows * pieces; u++) {
    float x[BLOCK], b[BLOCK];
    int64_t col = u % pieces * BLOCK, len = n - col < BLOCK ? n - col : BLOCK;
    void *dst = at_w(y, yt, u / pieces * n + col);
    DJ__I(load_block)(x, dst, yt, len);
    if (bias) {
      DJ__I(load_block)(b, at(bias, bt, col), bt, len);
      k_add(x, x, b, NULL, 0, 0, len);
    }
    if (act) INSTR[act](x, x, NULL, NULL, 0, 0, len);
    DJ__I(store_block)(dst, yt, x, len);
  }
}
