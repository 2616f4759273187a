/*
 * Kernels of the ops that only move elements: transpose, slice, concat, pad; any dtype, the same in
 * and out. (broadcast is the elementwise interpreter's, in ewise.c.)
 *
 * All come down to two motions: copying rows of equal length between two row distances (rows of few
 * bytes with the length known to the compiler), and turning a matrix in tiles where the innermost
 * axis changes.
 */
#include "backend/cpu/isa/basic.h"
#include "engine/ops/basic.h"

bool DJ__I(move_supports)(const dj__call *c) {
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i].dtype != c->out[0].dtype) return false;
  return true;
}

/* ---- rows ---- */
#define ROWS(bytes)                                                                                \
  case bytes:                                                                                      \
    for (int64_t i = 0; i < n; i++) memcpy(dst + i * dstep, src + i * sstep, bytes);               \
    return
/* n rows of `run` bytes; rows lie dstep and sstep bytes apart. */
static void copy_rows(char *dst, int64_t dstep, const char *src, int64_t sstep, size_t run,
                      int64_t n) {
  switch (run) {
    ROWS(1);
    ROWS(2);
    ROWS(3);
    ROWS(4);
    ROWS(6);
    ROWS(8);
    ROWS(9);
    ROWS(12);
    ROWS(16);
    ROWS(24);
    ROWS(32);
    ROWS(36);
    ROWS(48);
    ROWS(64);
    ROWS(128);
  default:
    for (int64_t i = 0; i < n; i++) memcpy(dst + i * dstep, src + i * sstep, run);
  }
}
#undef ROWS

enum { PIECE = 1 << 16 }; /* bytes of a long row that one unit of work copies */

/* The same over threads: few long rows are cut into pieces. */
static void copy_rows_threaded(const dj__call *c, char *dst, int64_t dstep, const char *src,
                               int64_t sstep, size_t run, int64_t n) {
  if (n == 0 || run == 0) return;
  int64_t pieces = ((int64_t)run + PIECE - 1) / PIECE;
  int nt = threads_for(c, run < 4 ? n : n * (int64_t)run / 4);
#pragma omp parallel num_threads(nt)
  {
    int t = omp_get_thread_num(), team = omp_get_num_threads();
    if (pieces == 1) {
      int64_t from = part_from(n, team, t), to = part_from(n, team, t + 1);
      copy_rows(dst + from * dstep, dstep, src + from * sstep, sstep, run, to - from);
    } else {
      int64_t to = part_from(n * pieces, team, t + 1);
      for (int64_t u = part_from(n * pieces, team, t); u < to; u++) {
        int64_t row = u / pieces, at = u % pieces * PIECE, left = (int64_t)run - at;
        memcpy(dst + row * dstep + at, src + row * sstep + at,
               (size_t)(left < PIECE ? left : PIECE));
      }
    }
  }
}

/* Elements before an axis, and bytes of one step along it. */
static int64_t outer_of(const dj_tensor *t, int axis) {
  return dj__dims_product(&t->shape, 0, axis);
}
static int64_t step_of(const dj_tensor *t, int axis) {
  return dj__dims_product(&t->shape, axis + 1, t->shape.rank) * (int64_t)dj_dtype_size(t->dtype);
}

dj_status DJ__I(slice_run)(const dj__call *c, void *self) {
  (void)self;
  const dj__slice_attr *a = c->attr;
  int64_t step = step_of(&c->in[0], a->axis);
  int64_t from = c->in[0].shape.dim[a->axis] * step, to = a->length * step;
  const char *x = c->in[0].data; // (outer, size, step) bytes
  char *y = c->out[0].data;      // (outer, length, step) bytes
  copy_rows_threaded(c, y, to, x + a->start * step, from, (size_t)to, outer_of(&c->in[0], a->axis));
  return DJ_OK;
}

dj_status DJ__I(concat_run)(const dj__call *c, void *self) {
  (void)self;
  int axis = ((const dj__axis_attr *)c->attr)->axis;
  int64_t outer = outer_of(&c->out[0], axis), step = step_of(&c->out[0], axis);
  int64_t to = c->out[0].shape.dim[axis] * step;
  char *y = c->out[0].data; // (outer, total, step) bytes
  for (int i = 0; i < c->n_in; i++) {
    int64_t from = c->in[i].shape.dim[axis] * step; // input: (outer, size, step) bytes
    copy_rows_threaded(c, y, to, c->in[i].data, from, (size_t)from, outer);
    y += from;
  }
  return DJ_OK;
}

static void fill(char *dst, dj_dtype t, float value, int64_t bytes) {
  if (t == DJ_F32) {
    for (int64_t i = 0; i < bytes / 4; i++) ((float *)dst)[i] = value;
  } else {
    uint16_t v = to_bf16(value);
    for (int64_t i = 0; i < bytes / 2; i++) ((uint16_t *)dst)[i] = v;
  }
}

dj_status DJ__I(pad_run)(const dj__call *c, void *self) {
  (void)self;
  const dj__pad_attr *a = c->attr;
  dj_dtype type = c->in[0].dtype;
  int64_t outer = outer_of(&c->in[0], a->axis), step = step_of(&c->in[0], a->axis);
  int64_t size = c->in[0].shape.dim[a->axis] * step, before = a->before * step,
          after = a->after * step, to = before + size + after;
  const char *x = c->in[0].data; // (outer, size) bytes
  char *y = c->out[0].data;      // (outer, before + size + after) bytes
  int nt = threads_for(c, outer * to / 4);
  if (outer < nt) { /* few rows: the copy is worth spreading, the margins are not */
    copy_rows_threaded(c, y + before, to, x, size, (size_t)size, outer);
    nt = 1;
    x = NULL;
  }
#pragma omp parallel for schedule(static) num_threads(nt)
  for (int64_t i = 0; i < outer; i++) {
    char *row = y + i * to;
    fill(row, type, a->value, before);
    if (x) memcpy(row + before, x + i * size, (size_t)size);
    fill(row + before + size, type, a->value, after);
  }
  return DJ_OK;
}

/* ---- transpose ---- */
/* The output's axes with the steps of the input along them, in elements; axes that stay together
 * are joined, axes of size 1 dropped. */
typedef struct turn {
  int rank;
  int64_t dim[DJ_MAX_RANK], in[DJ_MAX_RANK], out[DJ_MAX_RANK];
} turn;

static turn turn_of(const dj__call *c) {
  const int *perm = ((const dj__transpose_attr *)c->attr)->perm;
  const dj_shape *x = &c->in[0].shape, *y = &c->out[0].shape;
  int64_t stride[DJ_MAX_RANK], step = 1;
  for (int i = x->rank - 1; i >= 0; i--) {
    stride[i] = step;
    step *= x->dim[i];
  }
  turn t = {0};
  for (int i = 0; i < y->rank; i++) {
    int64_t d = y->dim[i], s = stride[perm[i]];
    if (d == 1) continue;
    if (t.rank > 0 && t.in[t.rank - 1] == s * d) {
      t.dim[t.rank - 1] *= d;
      t.in[t.rank - 1] = s;
    } else {
      t.dim[t.rank] = d;
      t.in[t.rank++] = s;
    }
  }
  if (t.rank == 0) t.dim[0] = 1, t.in[0] = 1, t.rank = 1;
  step = 1;
  for (int i = t.rank - 1; i >= 0; i--) {
    t.out[i] = step;
    step *= t.dim[i];
  }
  return t;
}

/* Takes axis i out. */
static void drop_axis(turn *t, int i) {
  t->rank--;
  for (; i < t->rank; i++) {
    t->dim[i] = t->dim[i + 1];
    t->in[i] = t->in[i + 1];
    t->out[i] = t->out[i + 1];
  }
}

/* Element offsets of position `at` of the axes that are left. */
static void offsets(const turn *t, int64_t at, int64_t *in, int64_t *out) {
  *in = *out = 0;
  for (int i = t->rank - 1; i >= 0; i--) {
    int64_t k = at % t->dim[i];
    at /= t->dim[i];
    *in += k * t->in[i];
    *out += k * t->out[i];
  }
}

static int64_t positions(const turn *t) {
  int64_t n = 1;
  for (int i = 0; i < t->rank; i++) n *= t->dim[i];
  return n;
}

/* The innermost axis stays innermost: rows are copied, those along the second axis together. */
static void move_rows(const dj__call *c, turn t, int64_t size) {
  int last = t.rank - 1;
  int64_t run = t.dim[last] * size, rows = 1, din = 0, dout = 0;
  drop_axis(&t, last);
  if (t.rank > 0) {
    last = t.rank - 1;
    rows = t.dim[last], din = t.in[last] * size, dout = t.out[last] * size;
    drop_axis(&t, last);
  }
  const char *x = c->in[0].data;
  char *y = c->out[0].data;
  int64_t n = positions(&t);
  if (n == 1) {
    copy_rows_threaded(c, y, dout, x, din, (size_t)run, rows);
    return;
  }
  int nt = threads_for(c, n * rows * run / 4);
#pragma omp parallel for schedule(static) num_threads(nt)
  for (int64_t i = 0; i < n; i++) {
    int64_t from, to;
    offsets(&t, i, &from, &to);
    copy_rows(y + to * size, dout, x + from * size, din, (size_t)run, rows);
  }
}

enum { TILE = 32 };

/* y[i * ystep + j] = x[i + j * xstep] for i < n, j < m */
#define TURN_TILE(type, name)                                                                      \
  static void name(type *restrict y, int64_t ystep, const type *restrict x, int64_t xstep, int n,  \
                   int m) {                                                                        \
    if (n == TILE && m == TILE) {                                                                  \
      type tmp[TILE][TILE];                                                                        \
      for (int j = 0; j < TILE; j++)                                                               \
        for (int i = 0; i < TILE; i++) tmp[i][j] = x[i + j * xstep];                               \
      for (int i = 0; i < TILE; i++) memcpy(y + i * ystep, tmp[i], sizeof tmp[i]);                 \
      return;                                                                                      \
    }                                                                                              \
    for (int i = 0; i < n; i++)                                                                    \
      for (int j = 0; j < m; j++) y[i * ystep + j] = x[i + j * xstep];                             \
  }
TURN_TILE(uint8_t, turn_tile_1)
TURN_TILE(uint16_t, turn_tile_2)
TURN_TILE(uint32_t, turn_tile_4)

/* Another axis becomes innermost: tiles over it and the input's innermost axis. */
static void move_tiles(const dj__call *c, turn t, int64_t size) {
  int last = t.rank - 1, first = 0;
  while (t.in[first] != 1) first++; /* the input's innermost axis, in the output's order */
  int64_t n = t.dim[first], m = t.dim[last], ystep = t.out[first], xstep = t.in[last];
  drop_axis(&t, last);
  drop_axis(&t, first);
  int64_t rows = (n + TILE - 1) / TILE, units = positions(&t) * rows;
  const char *x = c->in[0].data;
  char *y = c->out[0].data;
  int nt = threads_for(c, dj_shape_count(&c->out[0].shape));
#pragma omp parallel for schedule(static) num_threads(nt)
  for (int64_t u = 0; u < units; u++) {
    int64_t from, to, i = u % rows * TILE;
    offsets(&t, u / rows, &from, &to);
    int ni = (int)(n - i < TILE ? n - i : TILE);
    for (int64_t j = 0; j < m; j += TILE) {
      int mj = (int)(m - j < TILE ? m - j : TILE);
      const char *src = x + (from + i + j * xstep) * size;
      char *dst = y + (to + i * ystep + j) * size;
      if (size == 4)
        turn_tile_4((uint32_t *)(void *)dst, ystep, (const uint32_t *)(const void *)src, xstep, ni,
                    mj);
      else if (size == 2)
        turn_tile_2((uint16_t *)(void *)dst, ystep, (const uint16_t *)(const void *)src, xstep, ni,
                    mj);
      else
        turn_tile_1((uint8_t *)dst, ystep, (const uint8_t *)src, xstep, ni, mj);
    }
  }
}

dj_status DJ__I(transpose_run)(const dj__call *c, void *self) {
  (void)self;
  turn t = turn_of(c);
  int64_t size = (int64_t)dj_dtype_size(c->in[0].dtype);
  if (t.in[t.rank - 1] == 1)
    move_rows(c, t, size);
  else
    move_tiles(c, t, size);
  return DJ_OK;
}
