/*
 * Kernels of reductions over any set of axes.
 *
 * Axes are joined and sorted into kept and reduced ones, so that every reduction is, for each
 * position of the outer kept axes, one over the rows of matrices (rows, cols): `cols` is the
 * innermost kept axis (1 if the innermost axis is reduced), the rows are the axis before it, and
 * further reduced axes say where the matrices begin. Narrow matrices are read as wider ones
 * (several rows side by side), so that vectors are full.
 *
 * Sums run in f32 over at most a few hundred terms, then in double. Where there are too few outputs
 * to share among threads, rows are cut into parts; the number of parts depends on the shape alone
 * and parts are added in order: results are the same for any number of threads.
 */
#include <assert.h>

#include "backend/cpu/isa/basic.h"
#include "backend/cpu/isa/nn.h"
#include "engine/ops/basic.h"

enum {
  WIDE = 1024,        /* columns worked on at once, at most */
  NARROW = 64,        /* rows are joined until they are at least this wide */
  FLUSH = 64,         /* rows of four added in f32 before they go into the double */
  PARTS = 32,         /* units of work wanted */
  PART_WORK = 1 << 14 /* elements that a part has at least */
};

/* ---- axes ---- */
typedef struct axes_list {
  int rank;
  int64_t dim[DJ_MAX_RANK], step[DJ_MAX_RANK], count;
} axes_list;

typedef struct fold {
  int64_t cols, rows;         /* a matrix of x: contiguous */
  axes_list outer, matrices;  /* kept axes but cols; reduced axes but rows */
  int64_t tiles, parts, part; /* column tiles; parts of the joint rows; rows of a part */
} fold;

static void push(axes_list *l, int64_t dim, int64_t step) {
  if (l->rank > 0 && l->step[l->rank - 1] == dim * step) {
    l->dim[l->rank - 1] *= dim;
    l->step[l->rank - 1] = step;
  } else {
    l->dim[l->rank] = dim;
    l->step[l->rank++] = step;
  }
  l->count *= dim;
}

/* Element offset of position `at` in row-major order. */
DJ__INLINE int64_t offset_of(const axes_list *l, int64_t at) {
  int64_t o = 0;
  for (int i = l->rank - 1; i >= 0; i--) {
    o += at % l->dim[i] * l->step[i];
    at /= l->dim[i];
  }
  return o;
}

static fold fold_of(const dj_shape *x, uint32_t axes) {
  axes_list kept = {.count = 1}, reduced = {.count = 1};
  int64_t stride[DJ_MAX_RANK], step = 1;
  for (int i = x->rank - 1; i >= 0; i--) {
    stride[i] = step;
    step *= x->dim[i];
  }
  for (int i = 0; i < x->rank; i++)
    if (x->dim[i] != 1) push(axes >> i & 1u ? &reduced : &kept, x->dim[i], stride[i]);
  fold f = {.cols = 1, .rows = 1};
  if (kept.rank > 0 && kept.step[kept.rank - 1] == 1) {
    f.cols = kept.dim[--kept.rank];
    kept.count /= f.cols;
  }
  if (reduced.rank > 0 && reduced.step[reduced.rank - 1] == f.cols) {
    f.rows = reduced.dim[--reduced.rank];
    reduced.count /= f.rows;
  }
  f.outer = kept;
  f.matrices = reduced;
  f.tiles = (f.cols + WIDE - 1) / WIDE;
  int64_t all = f.rows * f.matrices.count, units = f.outer.count * f.tiles,
          width = f.cols / f.tiles;
  f.parts = 1;
  if (units < PARTS) {
    int64_t most = all * width / PART_WORK;
    f.parts = (PARTS + units - 1) / units;
    if (f.parts > most) f.parts = most > 0 ? most : 1;
    if (f.parts > all) f.parts = all;
  }
  f.part = (all + f.parts - 1) / f.parts;
  f.parts = (all + f.part - 1) / f.part;
  return f;
}

/* ---- sum ---- */
/* sum[v * VW ..] += rows of V vectors of x, `step` elements apart; sums of four rows first. */
#define DJ__ADD_VECTORS(V)                                                                         \
  DJ__INLINE void add_vectors_##V(double *sum, const void *x, const dj_dtype t, int64_t step,      \
                                  int64_t fours) {                                                 \
    vf acc[V] = {{0}};                                                                             \
    for (int64_t k = 0; k < fours; k++)                                                            \
      for (int v = 0; v < (V); v++) {                                                              \
        int64_t i = 4 * k * step + v * VW;                                                         \
        acc[v] += (v_load(x, t, i) + v_load(x, t, i + step)) +                                     \
                  (v_load(x, t, i + 2 * step) + v_load(x, t, i + 3 * step));                       \
      }                                                                                            \
    for (int v = 0; v < (V); v++)                                                                  \
      for (int i = 0; i < VW; i++) sum[v * VW + i] += (double)acc[v][i];                           \
  }
DJ__ADD_VECTORS(4)
DJ__ADD_VECTORS(1)

/* Rows that fit into registers, at most `FLUSH` fours of them. */
DJ__INLINE int64_t add_narrow(double *sum, const void *x, const dj_dtype t, int64_t step,
                              int64_t fours, int64_t n) {
  int64_t i = 0;
  for (; i + 4 * VW <= n; i += 4 * VW) add_vectors_4(sum + i, at(x, t, i), t, step, fours);
  for (; i + VW <= n; i += VW) add_vectors_1(sum + i, at(x, t, i), t, step, fours);
  return i;
}

/* sum[i] += x[r * step + i] over r < rows, i < n <= WIDE. */
DJ__INLINE void add_rows(double *sum, const void *x, const dj_dtype t, int64_t step, int64_t rows,
                         int64_t n) {
  float acc[WIDE];
  assert(n >= 0 && n <= WIDE);
  for (int64_t r = 0; r < rows;) {
    int64_t fours = (rows - r) / 4 < FLUSH ? (rows - r) / 4 : FLUSH;
    if (fours <= 0) { /* the last one to three */
      for (; r < rows; r++)
        DJ__SIMD for (int64_t i = 0; i < n; i++) sum[i] += (double)ld(x, t, r * step + i);
      return;
    }
    int64_t done = n <= 2 * NARROW ? add_narrow(sum, at(x, t, r * step), t, step, fours, n) : 0;
    for (int64_t k = 0; k < fours && done < n; k++) {
      const void *a = at(x, t, (r + 4 * k) * step), *b = at(a, t, step), *c = at(b, t, step),
                 *d = at(c, t, step);
      if (k == 0) {
        DJ__SIMD for (int64_t i = done; i < n; i++) acc[i] =
            (ld(a, t, i) + ld(b, t, i)) + (ld(c, t, i) + ld(d, t, i));
      } else {
        DJ__SIMD for (int64_t i = done; i < n; i++) acc[i] +=
            (ld(a, t, i) + ld(b, t, i)) + (ld(c, t, i) + ld(d, t, i));
      }
    }
    DJ__SIMD for (int64_t i = done; i < n; i++) sum[i] += (double)acc[i];
    r += 4 * fours;
  }
}

/* Sum of n neighbours, for rows too short for the above. */
DJ__INLINE double add_short(const void *x, const dj_dtype t, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += ld(x, t, i);
  return (double)sum;
}

/* sum[0..n) of columns c.. of a matrix (rows, cols). */
DJ__INLINE void add_matrix(double *sum, const void *x, const dj_dtype t, int64_t rows, int64_t cols,
                           int64_t c, int64_t n) {
  if (cols >= NARROW) {
    add_rows(sum, at(x, t, c), t, cols, rows, n);
    return;
  }
  if (cols == 1 && rows <= 4 * NARROW) {
    sum[0] += add_short(x, t, rows);
    return;
  }
  int64_t join = (NARROW + cols - 1) / cols;
  for (int64_t j = join; j * cols <= 2 * NARROW; j++) /* whole vectors if that can be */
    if (j * cols % VW == 0) {
      join = j;
      break;
    }
  int64_t wide = rows / join;
  if (wide > 0) {
    double joint[2 * NARROW] = {0};
    add_rows(joint, x, t, join * cols, wide, join * cols);
    for (int64_t j = 0; j < join; j++)
      for (int64_t i = 0; i < cols; i++) sum[i] += joint[j * cols + i];
  }
  for (int64_t r = wide * join; r < rows; r++)
    for (int64_t i = 0; i < cols; i++) sum[i] += (double)ld(x, t, r * cols + i);
}

/* Rows from..to of the joint rows of all matrices that go into one output tile. */
DJ__INLINE void add_part(double *sum, const void *x, const dj_dtype t, const fold *f, int64_t outer,
                         int64_t c, int64_t n, int64_t from, int64_t to) {
  int64_t base = offset_of(&f->outer, outer);
  memset(sum, 0, (size_t)n * sizeof *sum);
  while (from < to) {
    int64_t m = from / f->rows, r = from % f->rows, rows = f->rows - r;
    if (rows > to - from) rows = to - from;
    int64_t start = base + offset_of(&f->matrices, m) + r * f->cols;
    add_matrix(sum, at(x, t, start), t, rows, f->cols, c, n);
    from += rows;
  }
}

bool DJ__I(sum_supports)(const dj__call *c) {
  return is_float(&c->in[0]) && c->out[0].dtype == DJ_F32;
}

size_t DJ__I(sum_workspace)(const dj__call *c) {
  fold f = fold_of(&c->in[0].shape, ((const dj__reduce_attr *)c->attr)->axes);
  return f.parts == 1 ? 0 : (size_t)(f.outer.count * f.tiles * f.parts) * WIDE * sizeof(double);
}

DJ__INLINE void sum_units(const dj__call *c, const fold *f, const dj_dtype t, int nt) {
  float scale = ((const dj__reduce_attr *)c->attr)->scale;
  const void *x = c->in[0].data;  // (...)
  float *y = c->out[0].data;      // (outer, cols) f32
  double *partial = c->workspace; // (outer * tiles, parts, WIDE) f64
  int64_t units = f->outer.count * f->tiles * f->parts, all = f->rows * f->matrices.count;
#pragma omp parallel for schedule(static) num_threads(nt)
  for (int64_t u = 0; u < units; u++) {
    double own[WIDE];
    int64_t part = u % f->parts, tile = u / f->parts % f->tiles, outer = u / f->parts / f->tiles;
    int64_t col = tile * WIDE, n = f->cols - col < WIDE ? f->cols - col : WIDE;
    int64_t from = part * f->part, to = from + f->part < all ? from + f->part : all;
    double *sum = f->parts > 1 ? partial + u * WIDE : own;
    add_part(sum, x, t, f, outer, col, n, from, to);
    if (f->parts > 1) continue;
    DJ__SIMD for (int64_t i = 0; i < n; i++) y[outer * f->cols + col + i] =
        (float)(own[i] * (double)scale);
  }
  if (f->parts == 1) return;
  for (int64_t u = 0; u < f->outer.count * f->tiles; u++) {
    int64_t col = u % f->tiles * WIDE, n = f->cols - col < WIDE ? f->cols - col : WIDE;
    double *sum = partial + u * f->parts * WIDE;
    for (int64_t p = 1; p < f->parts; p++)
      DJ__SIMD for (int64_t i = 0; i < n; i++) sum[i] += sum[p * WIDE + i];
    for (int64_t i = 0; i < n; i++)
      y[u / f->tiles * f->cols + col + i] = (float)(sum[i] * (double)scale);
  }
}

/* y[i] = scale * sum of the n neighbours at x[i * n], for the n of colours, points and the like:
 * with n known to the compiler, outputs are worked on side by side. */
DJ__INLINE void sum_few(float *y, const void *x, const dj_dtype t, int64_t count, const int n,
                        float scale) {
  DJ__SIMD for (int64_t i = 0; i < count; i++) {
    float sum = ld(x, t, i * n);
    for (int k = 1; k < n; k++) sum += ld(x, t, i * n + k);
    y[i] = sum * scale;
  }
}

/* Each output is the sum of 2 to 4 neighbours, and outputs lie as their inputs do. */
static bool is_few(const fold *f) {
  return f->cols == 1 && f->matrices.count == 1 && f->parts == 1 && f->rows >= 2 && f->rows <= 4 &&
         f->outer.rank == 1 && f->outer.step[0] == f->rows;
}

DJ__INLINE void sum_fews(const dj__call *c, const fold *f, const dj_dtype t, int nt) {
  enum { BLOCK_OF = 4096 };
  float scale = ((const dj__reduce_attr *)c->attr)->scale;
#pragma omp parallel for schedule(static) num_threads(nt)
  for (int64_t u = 0; u < (f->outer.count + BLOCK_OF - 1) / BLOCK_OF; u++) {
    int64_t i = u * BLOCK_OF, n = f->outer.count - i < BLOCK_OF ? f->outer.count - i : BLOCK_OF;
    const void *x = at(c->in[0].data, t, i * f->rows);
    float *y = (float *)c->out[0].data + i;
    if (f->rows == 2)
      sum_few(y, x, t, n, 2, scale);
    else if (f->rows == 3)
      sum_few(y, x, t, n, 3, scale);
    else
      sum_few(y, x, t, n, 4, scale);
  }
}

dj_status DJ__I(sum_run)(const dj__call *c, void *self) {
  (void)self;
  fold f = fold_of(&c->in[0].shape, ((const dj__reduce_attr *)c->attr)->axes);
  int nt = threads_for(c, dj_shape_count(&c->in[0].shape));
  if (is_few(&f)) {
    DJ__WITH_DTYPE(c->in[0].dtype, T, sum_fews(c, &f, T, nt));
    return DJ_OK;
  }
  DJ__WITH_DTYPE(c->in[0].dtype, T, sum_units(c, &f, T, nt));
  return DJ_OK;
}

/* ---- maximum ---- */
/* The first maximum of each of n columns: its value, and its row among the joint rows of all
 * matrices. A NaN counts as larger than any number, as in the reference. */
DJ__INLINE void find_columns(float *best, int32_t *row, const void *x, const dj_dtype t,
                             const fold *f, int64_t base, int64_t n) {
  for (int64_t m = 0; m < f->matrices.count; m++) {
    int64_t start = base + offset_of(&f->matrices, m);
    for (int64_t r = 0; r < f->rows; r++) {
      const void *src = at(x, t, start + r * f->cols);
      int32_t number = (int32_t)(m * f->rows + r);
      bool first = number == 0;
      DJ__SIMD for (int64_t i = 0; i < n; i++) {
        float v = ld(src, t, i), b = first ? v : best[i];
        bool more = (v > b) | ((v != v) & (b == b));
        best[i] = more ? v : b;
        row[i] = more || first ? number : row[i];
      }
    }
  }
}

/* The same for a single column: neighbours in memory. */
DJ__INLINE void find_run(float *best, int32_t *row, const void *x, const dj_dtype t, const fold *f,
                         int64_t base) {
  *best = ld(x, t, base + offset_of(&f->matrices, 0));
  *row = 0;
  for (int64_t m = 0; m < f->matrices.count && *best == *best; m++) {
    const void *src = at(x, t, base + offset_of(&f->matrices, m));
    float most = -__builtin_inff();
    int nan = 0;
#pragma omp simd reduction(max : most) reduction(| : nan)
    for (int64_t r = 0; r < f->rows; r++) {
      float v = ld(src, t, r);
      most = v > most ? v : most;
      nan |= v != v;
    }
    if (!nan && !(most > *best)) continue;
    int64_t r = 0;
    if (nan)
      while (ld(src, t, r) == ld(src, t, r)) r++;
    else
      while (ld(src, t, r) != most) r++;
    *best = ld(src, t, r);
    *row = (int32_t)(m * f->rows + r);
  }
}

/* Offset of a joint row in one column's matrices. */
DJ__INLINE int64_t row_offset(const fold *f, int64_t row) {
  return offset_of(&f->matrices, row / f->rows) + row % f->rows * f->cols;
}

static void put_maximum(const dj__call *c, const fold *f, int64_t base, int64_t first, int64_t n,
                        const float *best, const int32_t *row) {
  dj_tensor *y = &c->out[0];
  if (c->op == DJ__OP_reduce_max) { // y: x without axes
    DJ__I(store_block)(at_w(y->data, y->dtype, first), y->dtype, best, n);
  } else if (c->op == DJ__OP_argmax) { // y: x without the axis, i32
    memcpy((int32_t *)y->data + first, row, (size_t)n * sizeof *row);
  } else { // reduce_max_grad: dx like x, zero so far; dy: x without axes
    for (int64_t i = 0; i < n; i++)
      st(y->data, y->dtype, base + i + row_offset(f, row[i]),
         ld(c->in[1].data, c->in[1].dtype, first + i));
  }
}

static uint32_t axes_of(const dj__call *c) {
  if (c->op == DJ__OP_argmax) return 1u << ((const dj__axis_attr *)c->attr)->axis;
  return ((const dj__reduce_attr *)c->attr)->axes;
}

bool DJ__I(maximum_supports)(const dj__call *c) {
  if (!is_float(&c->in[0]) || (c->op == DJ__OP_reduce_max_grad && !is_float(&c->in[1])))
    return false;
  fold f = fold_of(&c->in[0].shape, axes_of(c));
  return (is_float(&c->out[0]) || c->op == DJ__OP_argmax) && f.rows * f.matrices.count <= INT32_MAX;
}

dj_status DJ__I(maximum_run)(const dj__call *c, void *self) {
  (void)self;
  fold f = fold_of(&c->in[0].shape, axes_of(c));
  dj_dtype type = c->in[0].dtype;
  const void *x = c->in[0].data; // (...)
  if (c->op == DJ__OP_reduce_max_grad) memset(c->out[0].data, 0, dj_tensor_bytes(&c->out[0]));
  int nt = threads_for(c, dj_shape_count(&c->in[0].shape));
#pragma omp parallel for schedule(static) num_threads(nt)
  for (int64_t u = 0; u < f.outer.count * f.tiles; u++) {
    float best[WIDE];
    int32_t row[WIDE];
    int64_t col = u % f.tiles * WIDE, n = f.cols - col < WIDE ? f.cols - col : WIDE;
    int64_t base = offset_of(&f.outer, u / f.tiles) + col;
    if (f.cols == 1)
      DJ__WITH_DTYPE(type, T, find_run(best, row, x, T, &f, base));
    else
      DJ__WITH_DTYPE(type, T, find_columns(best, row, x, T, &f, base, n));
    put_maximum(c, &f, base, u / f.tiles * f.cols + col, n, best, row);
  }
  return DJ_OK;
}
