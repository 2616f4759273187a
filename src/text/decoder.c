/* The decoder's graph; decoder.h says what it is. */
#include "text/decoder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dojo/ops.h"

dj_status dj__decoder_of(const dj_recipe *r, int32_t vocabulary, dj__decoder *d) {
  const dj_recipe_network *n = &r->network;
  if (strcmp(n->name, "decoder") != 0)
    return dj_error(DJ_E_NOT_FOUND,
                    "%s:%d: there is no network '%.60s' for text; there is 'decoder'", r->file,
                    dj_recipe_line(r, "network.name"), n->name);
  *d = (dj__decoder){.vocabulary = n->vocabulary ? n->vocabulary : vocabulary,
                     .context = r->data.context,
                     .layers = n->layers,
                     .width = n->width,
                     .heads = n->heads,
                     .kv_heads = n->kv_heads ? n->kv_heads : n->heads,
                     .mlp_width = n->mlp_width ? n->mlp_width : 4 * n->width,
                     .norm = n->norm,
                     .positions = n->positions,
                     .mlp = n->mlp,
                     .tied = n->tied,
                     .bias = n->bias,
                     .dropout = n->dropout,
                     .rope_theta = n->rope_theta,
                     .norm_eps = n->norm_eps,
                     .recompute = r->train.recompute};
  if (d->width % d->heads)
    return dj_error(DJ_E_INVALID, "%s:%d: network.width %d is no multiple of network.heads %d",
                    r->file, dj_recipe_line(r, "network.width"), d->width, d->heads);
  if (d->heads % d->kv_heads)
    return dj_error(DJ_E_INVALID, "%s:%d: network.heads %d is no multiple of network.kv_heads %d",
                    r->file, dj_recipe_line(r, "network.kv_heads"), d->heads, d->kv_heads);
  if (d->positions == DJ_POSITIONS_ROTARY && d->width / d->heads % 2)
    return dj_error(DJ_E_INVALID, "%s:%d: rotary positions need heads of even width, not %d",
                    r->file, dj_recipe_line(r, "network.width"), d->width / d->heads);
  if (d->vocabulary < vocabulary)
    return dj_error(DJ_E_INVALID,
                    "%s:%d: network.vocabulary is %d, but the tokeniser has %d tokens", r->file,
                    dj_recipe_line(r, "network.vocabulary"), d->vocabulary, vocabulary);
  return DJ_OK;
}

// ---- layers ------------------------------------------------------------------------------------

static dj_val norm(dj_graph *g, const dj__decoder *d, dj_val x) {
  dj_graph_push(g, "norm");
  dj_val weight = dj_param(g, "weight", DJ_SHAPE(d->width), dj_init_const(1)), y;
  if (d->norm == DJ_NORM_RMS) {
    y = dj_rms_norm(g, x, weight, d->norm_eps);
  } else {
    // Without bias a constant takes its place.
    dj_val bias = d->bias ? dj_param(g, "bias", DJ_SHAPE(d->width), dj_init_const(0))
                          : dj_broadcast(g, dj_scalar(g, 0), DJ_SHAPE(d->width));
    y = dj_layer_norm(g, x, weight, bias, d->norm_eps);
  }
  dj_graph_pop(g);
  return y;
}

/* x (..., I) -> (..., out); weights of GPT-2's standard deviation, 0.02 times gain */
static dj_val linear(dj_graph *g, const dj__decoder *d, const char *name, dj_val x, int out,
                     float gain) {
  dj_shape s = dj_val_shape(g, x);
  dj_graph_push(g, "%s", name);
  dj_val w = dj_param(g, "weight", DJ_SHAPE(out, s.dim[s.rank - 1]), dj_init_normal(0.02f * gain));
  dj_val b = d->bias ? dj_param(g, "bias", DJ_SHAPE(out), dj_init_const(0)) : DJ_NONE;
  dj_graph_pop(g);
  return dj_linear(g, x, w, b);
}

/* Layers that add to the residual stream begin smaller: 2 of them a block. */
static float residual_gain(const dj__decoder *d) {
  return 1 / sqrtf(2 * (float)d->layers);
}

static dj_val attention(dj_graph *g, const dj__decoder *d, dj_val x, dj_val position, bool cached) {
  dj_shape s = dj_val_shape(g, x); // (B, T, E)
  const int64_t width = d->width / d->heads, all = d->heads + 2 * d->kv_heads;
  dj_graph_push(g, "attention");
  dj_val qkv = linear(g, d, "qkv", norm(g, d, x), (int)(all * width), 1), o;
  qkv = dj_reshape(g, qkv, DJ_SHAPE(s.dim[0], s.dim[1], all, width)); // (B, T, N, D)
  if (d->positions == DJ_POSITIONS_ROTARY)
    qkv = dj_rotary(g, qkv, position, d->heads + d->kv_heads, d->rope_theta);
  if (cached) {
    dj_shape whole = DJ_SHAPE(s.dim[0], d->kv_heads, d->context, width);
    dj_val keys = dj_state(g, "cache/key", whole, dj_init_const(0));
    dj_val values = dj_state(g, "cache/value", whole, dj_init_const(0));
    o = dj_attention_cached(g, qkv, keys, values, position, 0);
  } else {
    o = dj_self_attention(g, qkv, d->kv_heads, true, 0);
  }
  o = linear(g, d, "out", dj_reshape(g, o, s), d->width, residual_gain(d));
  dj_graph_pop(g);
  return o;
}

static dj_val mlp(dj_graph *g, const dj__decoder *d, dj_val x) {
  dj_graph_push(g, "mlp");
  dj_val h = norm(g, d, x);
  if (d->mlp == DJ_MLP_SWIGLU) {
    int last = dj_val_shape(g, x).rank - 1;
    h = linear(g, d, "up", h, 2 * d->mlp_width, 1);
    dj_val gate = dj_silu(g, dj_slice(g, h, last, 0, d->mlp_width));
    h = dj_mul(g, gate, dj_slice(g, h, last, d->mlp_width, d->mlp_width));
  } else {
    h = dj_gelu(g, linear(g, d, "up", h, d->mlp_width, 1));
  }
  h = linear(g, d, "down", h, d->width, residual_gain(d));
  dj_graph_pop(g);
  return h;
}

// ---- the whole ---------------------------------------------------------------------------------

static dj_val table(dj_graph *g, const char *name, int64_t rows, int64_t width) {
  dj_graph_push(g, "%s", name);
  dj_val t = dj_param(g, "weight", DJ_SHAPE(rows, width), dj_init_normal(0.02f));
  dj_graph_pop(g);
  return t;
}

/* token (B, T) i32, position (T) i32 */
static dj__hidden blocks(dj_graph *g, const dj__decoder *d, dj_val token, dj_val position,
                         bool cached, float dropout) {
  dj_graph_push(g, "decoder");
  dj__hidden h = {.table = table(g, "token", d->vocabulary, d->width)};
  dj_val x = dj_gather(g, h.table, token); // (B, T, E)
  if (d->positions == DJ_POSITIONS_LEARNED)
    x = dj_add(g, x, dj_gather(g, table(g, "position", d->context, d->width), position));
  x = dj_dropout(g, x, dropout);
  for (int i = 0; i < d->layers; i++) {
    dj_graph_push(g, "layer%d", i);
    if ((float)i < d->recompute * (float)d->layers) dj_recompute_begin(g);
    x = dj_add(g, x, dj_dropout(g, attention(g, d, x, position, cached), dropout));
    x = dj_add(g, x, dj_dropout(g, mlp(g, d, x), dropout));
    dj_recompute_end(g);
    dj_graph_pop(g);
  }
  h.x = norm(g, d, x);
  dj_graph_pop(g);
  return h;
}

dj__hidden dj__decoder_hidden(dj_graph *g, const dj__decoder *d, dj_val token, bool training) {
  int64_t t = dj_val_shape(g, token).dim[1];
  int32_t *at = malloc((size_t)t * sizeof *at);
  for (int32_t i = 0; at && i < t; i++) at[i] = i;
  dj_val position = at ? dj_const_i32(g, at, DJ_SHAPE(t)) : DJ_NONE;
  free(at);
  return blocks(g, d, token, position, false, training ? d->dropout : 0);
}

dj__hidden dj__decoder_next(dj_graph *g, const dj__decoder *d, dj_val token, dj_val position) {
  return blocks(g, d, token, position, true, 0);
}

dj_val dj__decoder_logits(dj_graph *g, const dj__decoder *d, const dj__hidden *h, dj_val x) {
  dj_graph_push(g, "decoder");
  dj_val w = d->tied ? h->table : table(g, "head", d->vocabulary, d->width);
  dj_val logits = dj_linear(g, x, w, DJ_NONE);
  dj_graph_pop(g);
  return logits;
}
