/*
 * The decoder: a transformer that predicts the next token from those before it. One network for
 * GPT-2 (Radford et al. 2019: layer norm, learned positions, GELU) and Llama (Touvron et al. 2023:
 * RMS norm, rotary positions, SwiGLU, grouped heads); a recipe picks the parts.
 *
 * Variables (linear weights are (out, in)):
 *   decoder/token/weight (V, E)     decoder/position/weight (context, E)   learned positions only
 *   decoder/layer<i>/attention/norm/{weight, bias}   /qkv/{weight, bias}   /out/{weight, bias}
 *   decoder/layer<i>/mlp/norm/{weight, bias}         /up/{weight, bias}    /down/{weight, bias}
 *   decoder/norm/{weight, bias}     decoder/head/weight (V, E)             not tied only
 * qkv holds H heads of queries, HK of keys and HK of values; up of SwiGLU the gate, then the rest.
 */
#ifndef DOJO_TEXT_DECODER_H
#define DOJO_TEXT_DECODER_H

#include "dojo/graph.h"
#include "dojo/train.h"

typedef struct dj__decoder {
  int vocabulary, context, layers, width, heads, kv_heads, mlp_width;
  dj_norm_kind norm;
  dj_positions_kind positions;
  dj_mlp_kind mlp;
  bool tied, bias;
  float dropout, rope_theta, norm_eps, recompute; /* recompute: share of the layers, in training */
} dj__decoder;

/* From a recipe; `vocabulary` where the recipe leaves it open. DJ_E_INVALID with file and line. */
dj_status dj__decoder_of(const dj_recipe *r, int32_t vocabulary, dj__decoder *d);

/* What a pass over tokens gives. */
typedef struct dj__hidden {
  dj_val x;     /* (B, T, E) the last norm's output */
  dj_val table; /* (V, E) the embedding */
} dj__hidden;

/* Tokens (B, T) i32, a text each. */
dj__hidden dj__decoder_hidden(dj_graph *g, const dj__decoder *d, dj_val token, bool training);
/* x (..., E), as in `h` or part of it, to logits (..., V). */
dj_val dj__decoder_logits(dj_graph *g, const dj__decoder *d, const dj__hidden *h, dj_val x);

/* The same for tokens (1, T) that follow others: `position` (T) i32 counts up from the number of
 * those. Keys and values are kept in the states "decoder/layer<i>/attention/cache/{key, value}" (1,
 * HK, context, D). */
dj__hidden dj__decoder_next(dj_graph *g, const dj__decoder *d, dj_val token, dj_val position);

#endif
