/*
 * The cell of the gated recurrent unit, forward and backward (formulas: engine/ops/recurrent.c).
 * Rows are cut into tiles of units; a tile's gates live in first-level cache, and the exponentials
 * are all there is to pay for. The backward pass computes the gates again: cheaper than keeping
 * them.
 */
#include "backend/cpu/isa/nn.h"
#include "backend/cpu/isa/vmath.h"

enum { TILE = 256 };

bool DJ__I(all_float)(const dj__call *c) {
  for (int i = 0; i < c->n_in; i++)
    if (!is_float(&c->in[i])) return false;
  for (int k = 0; k < c->n_out; k++)
    if (!is_float(&c->out[k])) return false;
  return true;
}

bool DJ__I(all_f32)(const dj__call *c) {
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i].dtype != DJ_F32) return false;
  for (int k = 0; k < c->n_out; k++)
    if (c->out[k].dtype != DJ_F32) return false;
  return true;
}

/* A tile of one row: gates of the two products, and the state. */
typedef struct tile {
  const float *xr, *xz, *xn, *hr, *hz, *hn, *h; /* (n) each */
  float buf[7][TILE];
} tile;

static void load_tile(tile *t, const dj__call *c, int64_t row, int64_t w, int64_t from, int64_t n) {
  const dj_tensor *gx = &c->in[0], *gh = &c->in[1]; // (B, 3H) f32 or bf16
  int64_t at = row * 3 * w + from;
  t->xr = rd(gx, at, n, t->buf[0]);
  t->xz = rd(gx, at + w, n, t->buf[1]);
  t->xn = rd(gx, at + 2 * w, n, t->buf[2]);
  t->hr = rd(gh, at, n, t->buf[3]);
  t->hz = rd(gh, at + w, n, t->buf[4]);
  t->hn = rd(gh, at + 2 * w, n, t->buf[5]);
  t->h = rd(&c->in[2], row * w + from, n, t->buf[6]);
}

dj_status DJ__I(gru_cell)(const dj__call *c, void *self) {
  (void)self;
  const int64_t rows = c->in[2].shape.dim[0], w = c->in[2].shape.dim[1];
  const int64_t tiles = (w + TILE - 1) / TILE;
#pragma omp parallel for schedule(static) num_threads(threads_for(c, rows *w * 8))
  for (int64_t u = 0; u < rows * tiles; u++) {
    tile t;
    float out[TILE];
    int64_t row = u / tiles, from = u % tiles * TILE, n = w - from < TILE ? w - from : TILE;
    load_tile(&t, c, row, w, from, n);
    float *y = wr_at(&c->out[0], row * w + from, out);
    DJ__SIMD for (int64_t i = 0; i < n; i++) {
      float r = vm_sigmoid(t.xr[i] + t.hr[i]), z = vm_sigmoid(t.xz[i] + t.hz[i]);
      float m = vm_tanh(t.xn[i] + r * t.hn[i]);
      y[i] = m + z * (t.h[i] - m);
    }
    wr(&c->out[0], row * w + from, n, y);
  }
  return DJ_OK;
}

/* Gradients of a tile's gates before their nonlinearities, by products, and of the state. */
typedef struct tile_grad {
  float r[TILE], z[TILE], n[TILE], hn[TILE], h[TILE];
} tile_grad;

static void grad_of_tile(const tile *t, const float *dy, tile_grad *d, int64_t n) {
  DJ__SIMD for (int64_t i = 0; i < n; i++) {
    float r = vm_sigmoid(t->xr[i] + t->hr[i]), z = vm_sigmoid(t->xz[i] + t->hz[i]);
    float m = vm_tanh(t->xn[i] + r * t->hn[i]), g = dy[i];
    float an = g * (1.0f - z) * (1.0f - m * m);
    d->r[i] = an * t->hn[i] * r * (1.0f - r);
    d->z[i] = g * (t->h[i] - m) * z * (1.0f - z);
    d->n[i] = an;
    d->hn[i] = an * r;
    d->h[i] = g * z;
  }
}

dj_status DJ__I(gru_cell_grad)(const dj__call *c, void *self) {
  (void)self;
  const int64_t rows = c->in[2].shape.dim[0], w = c->in[2].shape.dim[1];
  const int64_t tiles = (w + TILE - 1) / TILE;
  const dj_tensor *dgx = &c->out[0], *dgh = &c->out[1],
                  *dh = &c->out[2]; // (B, 3H), (B, 3H), (B, H)
#pragma omp parallel for schedule(static) num_threads(threads_for(c, rows *w * 8))
  for (int64_t u = 0; u < rows * tiles; u++) {
    tile t;
    tile_grad d;
    float buf[TILE];
    int64_t row = u / tiles, from = u % tiles * TILE, n = w - from < TILE ? w - from : TILE;
    int64_t gates = row * 3 * w + from, state = row * w + from;
    load_tile(&t, c, row, w, from, n);
    grad_of_tile(&t, rd(&c->in[3], state, n, buf), &d, n);
    DJ__I(store_block)(at_w(dgx->data, dgx->dtype, gates), dgx->dtype, d.r, n);
    DJ__I(store_block)(at_w(dgx->data, dgx->dtype, gates + w), dgx->dtype, d.z, n);
    DJ__I(store_block)(at_w(dgx->data, dgx->dtype, gates + 2 * w), dgx->dtype, d.n, n);
    DJ__I(store_block)(at_w(dgh->data, dgh->dtype, gates), dgh->dtype, d.r, n);
    DJ__I(store_block)(at_w(dgh->data, dgh->dtype, gates + w), dgh->dtype, d.z, n);
    DJ__I(store_block)(at_w(dgh->data, dgh->dtype, gates + 2 * w), dgh->dtype, d.hn, n);
    DJ__I(store_block)(at_w(dh->data, dh->dtype, state), dh->dtype, d.h, n);
  }
  return DJ_OK;
}
