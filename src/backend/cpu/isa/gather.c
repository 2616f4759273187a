/*
 * Kernels of gather, scatter_add and dropout.
 *
 * Indices are checked before anything is written. scatter_add gives every thread columns of the
 * table, or rows where it is narrow: each goes through all indices and adds what is its own, so
 * that every element is added to in the order of the indices. Sums are f32; for a bf16 result they
 * are made beside it, of the rows that are added to, and rounded once.
 */
#include "backend/cpu/isa/basic.h"
#include "backend/cpu/isa/philox.h"
#include "engine/attrs.h"
#include "engine/ops/basic.h"

/* ---- gather, scatter_add ---- */
bool DJ__I(gather_supports)(const dj__call *c) {
  return is_float(&c->in[0]) && is_float(&c->out[0]);
}

static dj_status check_indices(const dj__call *c, const int32_t *index, int64_t n, int64_t rows) {
  int32_t low = 0, high = 0;
#pragma omp simd reduction(min : low) reduction(max : high)
  for (int64_t i = 0; i < n; i++) {
    low = index[i] < low ? index[i] : low;
    high = index[i] > high ? index[i] : high;
  }
  if (low >= 0 && high < rows) return DJ_OK;
  int64_t at = 0;
  while (index[at] >= 0 && index[at] < rows) at++;
  return dj_error(DJ_E_INVALID, "%s: index %d at position %lld is outside 0..%lld",
                  dj__op_get(c->op)->name, index[at], (long long)at, (long long)rows - 1);
}

dj_status DJ__I(gather_run)(const dj__call *c, void *self) {
  (void)self;
  int64_t n = dj_shape_count(&c->in[1].shape), d = c->in[0].shape.dim[1];
  const int32_t *index = c->in[1].data; // (...) i32
  const void *table = c->in[0].data;    // (V, D)
  void *y = c->out[0].data;             // (..., D)
  dj_dtype from = c->in[0].dtype, to = c->out[0].dtype;
  DJ_TRY(check_indices(c, index, n, c->in[0].shape.dim[0]));
  int nt = threads_for(c, n * d);
#pragma omp parallel for schedule(static) num_threads(nt)
  for (int64_t i = 0; i < n; i++) {
    const void *src = at(table, from, index[i] * d);
    void *dst = at_w(y, to, i * d);
    if (from == to)
      memcpy(dst, src, (size_t)d * dj_dtype_size(to));
    else if (to == DJ_F32)
      DJ__I(load_block)(dst, src, from, d);
    else
      DJ__I(store_block)(dst, to, src, d);
  }
  return DJ_OK;
}

bool DJ__I(scatter_add_supports)(const dj__call *c) {
  return (c->in[0].shape.rank < 0 || is_float(&c->in[0])) && is_float(&c->in[1]) &&
         is_float(&c->out[0]);
}

/* Where sums of rows are made: in the result, or in scratch, where only rows that are added to have
 * a place, and are rounded from there. */
typedef struct sums {
  float *y;             /* (n, D) */
  const int32_t *place; /* (indices) row of y that each belongs to */
  const int32_t *row;   /* (n) row of the result that each is; NULL: itself */
  int64_t n;
} sums;

static int64_t most_places(const dj__call *c) {
  const int64_t n = dj_shape_count(&c->in[2].shape), rows = c->out[0].shape.dim[0];
  return n < rows ? n : rows;
}

size_t DJ__I(scatter_add_workspace)(const dj__call *c) {
  const int64_t places = most_places(c), d = c->out[0].shape.dim[1];
  const int64_t words = places * (d + 1) + dj_shape_count(&c->in[2].shape) + c->out[0].shape.dim[0];
  return c->out[0].dtype == DJ_F32 ? 0 : (size_t)words * sizeof(float);
}

static sums find_places(const dj__call *c, const int32_t *index, int64_t n) {
  if (c->out[0].dtype == DJ_F32) return (sums){c->out[0].data, index, NULL, c->out[0].shape.dim[0]};
  const int64_t rows = c->out[0].shape.dim[0], most = most_places(c);
  float *y = c->workspace;
  int32_t *row = (int32_t *)(y + most * c->out[0].shape.dim[1]), *place = row + most,
          *place_of = place + n, found = 0;
  memset(place_of, 0xff, (size_t)rows * sizeof *place_of);
  for (int64_t i = 0; i < n; i++) {
    int32_t *p = &place_of[index[i]];
    if (*p < 0) {
      row[found] = index[i];
      *p = found++;
    }
    place[i] = *p;
  }
  return (sums){y, place, row, found};
}

/* Rows r0..r1 and columns k0..k1 of sums as they are before anything is added. */
static void first_rows(const sums *s, const dj_tensor *table, int64_t d, int64_t r0, int64_t r1,
                       int64_t k0, int64_t k1) {
  if (table->shape.rank >= 0 && table->data == s->y) return;
  for (int64_t r = r0; r < r1; r++) {
    const int64_t from = (s->row ? s->row[r] : r) * d + k0;
    float *to = s->y + r * d + k0;
    if (table->shape.rank < 0)
      memset(to, 0, (size_t)(k1 - k0) * sizeof *to);
    else
      DJ__I(load_block)(to, at(table->data, table->dtype, from), table->dtype, k1 - k0);
  }
}

/* What belongs to rows r0..r1 and columns k0..k1. */
DJ__INLINE void add_rows(const sums *s, const void *x, const dj_dtype t, int64_t n, int64_t d,
                         int64_t r0, int64_t r1, int64_t k0, int64_t k1) {
  for (int64_t i = 0; i < n; i++) {
    if (s->place[i] < r0 || s->place[i] >= r1) continue;
    float *row = s->y + s->place[i] * d;
    const void *src = at(x, t, i * d);
    DJ__SIMD for (int64_t k = k0; k < k1; k++) row[k] += ld(src, t, k);
  }
}

static void round_rows(const sums *s, const dj_tensor *out, int64_t r0, int64_t r1, int64_t k0,
                       int64_t k1) {
  const int64_t d = out->shape.dim[1];
  for (int64_t r = r0; s->row && r < r1; r++) DJ__I(store_block)
  (at_w(out->data, out->dtype, s->row[r] * d + k0), out->dtype, s->y + r * d + k0, k1 - k0);
}

/* Rows that nothing is added to, where the sums lie elsewhere. */
static void other_rows(const dj__call *c) {
  const dj_tensor *table = &c->in[0], *out = &c->out[0];
  if (table->shape.rank < 0)
    memset(out->data, 0, dj_tensor_bytes(out));
  else if (table->data != out->data)
    DJ__I(convert)
  (out->data, out->dtype, table->data, table->dtype, dj_shape_count(&out->shape), c->threads);
}

enum { COLUMNS = 32 }; /* the fewest that are worth a thread of their own */

dj_status DJ__I(scatter_add_run)(const dj__call *c, void *self) {
  (void)self;
  const int64_t n = dj_shape_count(&c->in[2].shape), d = c->out[0].shape.dim[1];
  const int32_t *index = c->in[2].data; // (...) i32
  const void *x = c->in[1].data;        // (..., D)
  DJ_TRY(check_indices(c, index, n, c->out[0].shape.dim[0]));
  const sums s = find_places(c, index, n);
  if (s.row) other_rows(c);
  int nt = threads_for(c, n * d + s.n * d);
#pragma omp parallel num_threads(nt)
  {
    int64_t t = omp_get_thread_num(), team = omp_get_num_threads(), r0 = 0, r1 = s.n, k0 = 0,
            k1 = d;
    if (d >= COLUMNS * team) { /* whole vectors for all but the last */
      k0 = part_from(d / 16, team, t) * 16;
      k1 = t + 1 == team ? d : part_from(d / 16, team, t + 1) * 16;
    } else {
      r0 = part_from(s.n, team, t);
      r1 = part_from(s.n, team, t + 1);
    }
    first_rows(&s, &c->in[0], d, r0, r1, k0, k1);
    DJ__WITH_DTYPE(c->in[1].dtype, T, add_rows(&s, x, T, n, d, r0, r1, k0, k1));
    round_rows(&s, &c->out[0], r0, r1, k0, k1);
  }
  return DJ_OK;
}

/* ---- dropout ---- */
enum { DRAW = 256 }; /* random blocks of four numbers made at once */

typedef union words {
  uint64_t pair[2 * DRAW];
  uint32_t word[4 * DRAW];
} words;

/* Those of dj__dropout_block(seed, step, stream, block), and of the blocks that follow. */
static void draw(words *w, uint64_t seed, uint64_t step, uint64_t stream, uint64_t block) {
  uint64_t half[2][DRAW];
  vq at = q_from(block);
  for (int i = 0; i < DRAW; i += VW / 2) {
    const vq c1 = q_all(stream << 40) ^ at;
    const vq4 r = v_philox(seed, q_all(step), q_all(step >> 32), c1, c1 >> 32);
    *(vu *)(half[0] + i) = q_pairs(r.v[0], r.v[1]);
    *(vu *)(half[1] + i) = q_pairs(r.v[2], r.v[3]);
    at += VW / 2;
  }
  DJ__SIMD for (int i = 0; i < DRAW; i++) {
    w->pair[2 * i] = half[0][i];
    w->pair[2 * i + 1] = half[1][i];
  }
}

/* Elements stay where their word is not below the threshold. */
DJ__INLINE void drop(void *y, const dj_dtype yt, const void *x, const dj_dtype xt,
                     const uint32_t *word, uint32_t threshold, float scale, int64_t n) {
  DJ__SIMD for (int64_t i = 0; i < n; i++) {
    float v = ld(x, xt, i) * scale;
    st(y, yt, i, word[i] >= threshold ? v : 0.0f);
  }
}

dj_status DJ__I(dropout_run)(const dj__call *c, void *self) {
  (void)self;
  const dj__dropout_attr *a = c->attr;
  int64_t n = dj_shape_count(&c->in[0].shape), chunks = (n + 4 * DRAW - 1) / (4 * DRAW);
  float scale = 1.0f / (1.0f - a->p);
  int nt = threads_for(c, 4 * n);
#pragma omp parallel for schedule(static) num_threads(nt)
  for (int64_t b = 0; b < chunks; b++) {
    words w;
    int64_t from = b * 4 * DRAW, len = n - from < 4 * DRAW ? n - from : 4 * DRAW;
    draw(&w, c->seed, c->step, a->stream, (uint64_t)b * DRAW);
    const void *x = at(c->in[0].data, c->in[0].dtype, from);
    void *y = at_w(c->out[0].data, c->out[0].dtype, from);
    DJ__WITH_DTYPE(
        c->in[0].dtype, XT,
        DJ__WITH_DTYPE(c->out[0].dtype, YT, drop(y, YT, x, XT, w.word, a->threshold, scale, len)));
  }
  return DJ_OK;
}
