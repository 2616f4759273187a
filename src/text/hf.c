/*
 * Models in the files of Hugging Face's transformers: GPT-2 and Llama.
 *
 * One list of pieces says where a tensor of theirs lies in one of ours: whole, or some rows of it
 * (queries, keys and values are one matrix here), straight or transposed (GPT-2's linear layers are
 * (in, out) there). Import and export walk the same list.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/fs.h"
#include "dojo/safetensors.h"
#include "dojo/text.h"
#include "text/decoder.h"
#include "text/tokenizer.h"
#include "train/run.h"

enum { NAME = 128, MAX_CONFIG = 4 << 20, MAX_SHARDS = 1024 };

// ---- the list of pieces ------------------------------------------------------------------------

typedef struct piece {
  char ours[NAME], theirs[NAME];
  int64_t rows, cols; // of ours: theirs are rows first .. first + rows; cols 0: a vector
  int64_t first, all; // all: rows that ours has
  bool transposed;    // theirs is (cols, rows)
} piece;

typedef dj_status visit_fn(const piece *p, void *user);

static bool is_llama(const dj__decoder *d) {
  return d->norm == DJ_NORM_RMS;
}

/* One tensor; `ours` and `theirs` are names without "weight". bias: the vector beside it, too. */
typedef struct layer {
  const char *ours, *theirs;
  int64_t rows, cols, first, all;
  bool transposed, bias;
} layer;

static dj_status visit(const char *our_prefix, const char *their_prefix, const layer *l,
                       visit_fn *fn, void *user) {
  for (int bias = 0; bias <= l->bias; bias++) {
    const char *what = bias ? "bias" : "weight";
    piece p = {.rows = l->rows,
               .cols = bias ? 0 : l->cols,
               .first = l->first,
               .all = l->all ? l->all : l->rows,
               .transposed = l->transposed && !bias};
    (void)snprintf(p.ours, NAME, "decoder/%s%s/%s", our_prefix, l->ours, what);
    (void)snprintf(p.theirs, NAME, "%s%s.%s", their_prefix, l->theirs, what);
    DJ_TRY(fn(&p, user));
  }
  return DJ_OK;
}

static dj_status visit_gpt2(const dj__decoder *d, visit_fn *fn, void *user) {
  const int64_t e = d->width, m = d->mlp_width;
  const bool b = d->bias;
  const layer ends[] = {{"token", "wte", d->vocabulary, e, 0, 0, false, false},
                        {"position", "wpe", d->context, e, 0, 0, false, false},
                        {"norm", "ln_f", e, 0, 0, 0, false, b}};
  const layer parts[] = {{"attention/norm", "ln_1", e, 0, 0, 0, false, b},
                         {"attention/qkv", "attn.c_attn", 3 * e, e, 0, 0, true, b},
                         {"attention/out", "attn.c_proj", e, e, 0, 0, true, b},
                         {"mlp/norm", "ln_2", e, 0, 0, 0, false, b},
                         {"mlp/up", "mlp.c_fc", m, e, 0, 0, true, b},
                         {"mlp/down", "mlp.c_proj", e, m, 0, 0, true, b}};
  for (int i = 0; i < d->layers; i++)
    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
      char ours[NAME], theirs[NAME];
      (void)snprintf(ours, sizeof ours, "layer%d/", i);
      (void)snprintf(theirs, sizeof theirs, "transformer.h.%d.", i);
      DJ_TRY(visit(ours, theirs, &parts[k], fn, user));
    }
  for (size_t k = 0; k < sizeof ends / sizeof *ends; k++)
    DJ_TRY(visit("", "transformer.", &ends[k], fn, user));
  const layer head = {"head", "lm_head", d->vocabulary, e, 0, 0, false, false};
  return d->tied ? DJ_OK : visit("", "", &head, fn, user);
}

static dj_status visit_llama(const dj__decoder *d, visit_fn *fn, void *user) {
  const int64_t e = d->width, m = d->mlp_width, kv = e / d->heads * d->kv_heads, all = e + 2 * kv;
  const bool b = d->bias;
  const layer parts[] = {{"attention/norm", "input_layernorm", e, 0, 0, 0, false, false},
                         {"attention/qkv", "self_attn.q_proj", e, e, 0, all, false, b},
                         {"attention/qkv", "self_attn.k_proj", kv, e, e, all, false, b},
                         {"attention/qkv", "self_attn.v_proj", kv, e, e + kv, all, false, b},
                         {"attention/out", "self_attn.o_proj", e, e, 0, 0, false, b},
                         {"mlp/norm", "post_attention_layernorm", e, 0, 0, 0, false, false},
                         {"mlp/up", "mlp.gate_proj", m, e, 0, 2 * m, false, b},
                         {"mlp/up", "mlp.up_proj", m, e, m, 2 * m, false, b},
                         {"mlp/down", "mlp.down_proj", e, m, 0, 0, false, b}};
  const layer token = {"token", "embed_tokens", d->vocabulary, e, 0, 0, false, false},
              norm = {"norm", "norm", e, 0, 0, 0, false, false},
              head = {"head", "lm_head", d->vocabulary, e, 0, 0, false, false};
  for (int i = 0; i < d->layers; i++)
    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
      char ours[NAME], theirs[NAME];
      (void)snprintf(ours, sizeof ours, "layer%d/", i);
      (void)snprintf(theirs, sizeof theirs, "model.layers.%d.", i);
      DJ_TRY(visit(ours, theirs, &parts[k], fn, user));
    }
  DJ_TRY(visit("", "model.", &token, fn, user));
  DJ_TRY(visit("", "model.", &norm, fn, user));
  return d->tied ? DJ_OK : visit("", "", &head, fn, user);
}

static dj_status visit_all(const dj__decoder *d, visit_fn *fn, void *user) {
  return is_llama(d) ? visit_llama(d, fn, user) : visit_gpt2(d, fn, user);
}

// ---- config.json -------------------------------------------------------------------------------

static dj_status whole(const json_t *j, const char *file, const char *key, int fallback, int *out) {
  const json_t *v = json_object_get(j, key);
  *out = fallback;
  if ((!v || json_is_null(v)) && fallback >= 0) return DJ_OK;
  json_int_t n = json_integer_value(v);
  if (!json_is_integer(v) || n < 0 || n > 1 << 30)
    return dj_error(DJ_E_FORMAT, "%s: '%s' should be a whole number above 0", file, key);
  *out = (int)n;
  return DJ_OK;
}

static bool flag(const json_t *j, const char *key, bool fallback) {
  const json_t *v = json_object_get(j, key);
  return json_is_boolean(v) ? json_is_true(v) : fallback;
}

static double number(const json_t *j, const char *key, double fallback) {
  const json_t *v = json_object_get(j, key);
  return json_is_number(v) ? json_number_value(v) : fallback;
}

static dj_status expect(const json_t *j, const char *file, const char *key, const char *value) {
  const char *v = json_string_value(json_object_get(j, key));
  if (!v || !strcmp(v, value)) return DJ_OK;
  return dj_error(DJ_E_UNSUPPORTED, "%s: '%s' is '%.40s'; only '%s' is known here", file, key, v,
                  value);
}

static dj_status read_gpt2(const json_t *j, const char *f, dj__decoder *d) {
  DJ_TRY(whole(j, f, "vocab_size", 50257, &d->vocabulary));
  DJ_TRY(whole(j, f, "n_positions", 1024, &d->context));
  DJ_TRY(whole(j, f, "n_embd", 768, &d->width));
  DJ_TRY(whole(j, f, "n_layer", 12, &d->layers));
  DJ_TRY(whole(j, f, "n_head", 12, &d->heads));
  DJ_TRY(whole(j, f, "n_inner", 4 * d->width, &d->mlp_width));
  DJ_TRY(expect(j, f, "activation_function", "gelu_new"));
  if (!flag(j, "scale_attn_weights", true) || flag(j, "scale_attn_by_inverse_layer_idx", false))
    return dj_error(DJ_E_UNSUPPORTED, "%s: another scale of attention than 1/sqrt(width)", f);
  d->kv_heads = d->heads;
  d->bias = true;
  d->tied = flag(j, "tie_word_embeddings", true);
  d->norm_eps = (float)number(j, "layer_norm_epsilon", 1e-5);
  return DJ_OK;
}

static dj_status read_llama(const json_t *j, const char *f, dj__decoder *d) {
  int head_width;
  DJ_TRY(whole(j, f, "vocab_size", -1, &d->vocabulary));
  DJ_TRY(whole(j, f, "max_position_embeddings", 2048, &d->context));
  DJ_TRY(whole(j, f, "hidden_size", -1, &d->width));
  DJ_TRY(whole(j, f, "intermediate_size", -1, &d->mlp_width));
  DJ_TRY(whole(j, f, "num_hidden_layers", -1, &d->layers));
  DJ_TRY(whole(j, f, "num_attention_heads", -1, &d->heads));
  DJ_TRY(whole(j, f, "num_key_value_heads", d->heads, &d->kv_heads));
  DJ_TRY(whole(j, f, "head_dim", d->heads ? d->width / d->heads : 0, &head_width));
  DJ_TRY(expect(j, f, "hidden_act", "silu"));
  if (head_width * d->heads != d->width)
    return dj_error(DJ_E_UNSUPPORTED, "%s: heads of %d x %d do not fill the width %d", f, d->heads,
                    head_width, d->width);
  d->bias = flag(j, "attention_bias", false);
  if (d->bias != flag(j, "mlp_bias", false))
    return dj_error(DJ_E_UNSUPPORTED, "%s: biases in attention or MLP alone", f);
  const json_t *rope = json_object_get(j, "rope_parameters"),
               *scaling = json_object_get(j, "rope_scaling");
  if (!rope) rope = scaling;
  const char *type = json_string_value(json_object_get(rope, "rope_type"));
  if (type && strcmp(type, "default") != 0)
    return dj_error(DJ_E_UNSUPPORTED, "%s: rotary positions scaled by '%.40s'", f, type);
  d->rope_theta = (float)number(rope, "rope_theta", number(j, "rope_theta", 10000));
  d->tied = flag(j, "tie_word_embeddings", false);
  d->norm = DJ_NORM_RMS;
  d->positions = DJ_POSITIONS_ROTARY;
  d->mlp = DJ_MLP_SWIGLU;
  d->norm_eps = (float)number(j, "rms_norm_eps", 1e-6);
  return DJ_OK;
}

static dj_status read_config(const char *dir, dj__decoder *d) {
  char *path = dj__join(dir, "config.json"), *text = NULL;
  size_t size;
  json_error_t e;
  dj_status s = dj__read_file(path, MAX_CONFIG, &text, &size);
  json_t *j = s ? NULL : json_loadb(text, size, 0, &e);
  *d = (dj__decoder){.rope_theta = 10000};
  if (!s && !json_is_object(j))
    s = dj_error(DJ_E_FORMAT, "%s:%d: not a JSON object: %s", path, j ? 1 : e.line,
                 j ? "another value" : e.text);
  const char *type = json_string_value(json_object_get(j, "model_type"));
  if (!s && !type) s = dj_error(DJ_E_FORMAT, "%s: 'model_type' is missing", path);
  if (!s)
    s = !strcmp(type, "gpt2") ? read_gpt2(j, path, d)
        : !strcmp(type, "llama")
            ? read_llama(j, path, d)
            : dj_error(DJ_E_UNSUPPORTED, "%s: model_type '%.40s'; known are gpt2 and llama", path,
                       type);
  json_decref(j);
  free(text);
  free(path);
  return s;
}

static dj_status write_config(const char *dir, const dj__decoder *d, int32_t end) {
  json_t *j;
  if (is_llama(d))
    j = json_pack(
        "{s:s, s:[s], s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f, s:f, s:{s:s, s:f}, s:b,"
        " s:b, s:b, s:s}",
        "model_type", "llama", "architectures", "LlamaForCausalLM", "vocab_size", d->vocabulary,
        "max_position_embeddings", d->context, "hidden_size", d->width, "intermediate_size",
        d->mlp_width, "num_hidden_layers", d->layers, "num_attention_heads", d->heads,
        "num_key_value_heads", d->kv_heads, "hidden_act", "silu", "rms_norm_eps",
        (double)d->norm_eps, "rope_theta", (double)d->rope_theta, "rope_parameters", "rope_type",
        "default", "rope_theta", (double)d->rope_theta, "attention_bias", d->bias, "mlp_bias",
        d->bias, "tie_word_embeddings", d->tied, "dtype", "float32");
  else
    j = json_pack("{s:s, s:[s], s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f, s:b, s:s}", "model_type",
                  "gpt2", "architectures", "GPT2LMHeadModel", "vocab_size", d->vocabulary,
                  "n_positions", d->context, "n_embd", d->width, "n_layer", d->layers, "n_head",
                  d->heads, "n_inner", d->mlp_width, "activation_function", "gelu_new",
                  "layer_norm_epsilon", (double)d->norm_eps, "tie_word_embeddings", d->tied,
                  "dtype", "float32");
  json_t *id = end >= 0 ? json_integer(end) : json_null();
  (void)json_object_set_new(j, "eos_token_id", id);
  (void)json_object_set(j, "bos_token_id", id);
  char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL, *path = dj__join(dir, "config.json");
  dj_status s = text ? dj__write_file_atomic(path, text, strlen(text))
                     : dj_error(DJ_E_NOMEM, "%s: no memory", path);
  json_decref(j);
  free(text);
  free(path);
  return s;
}

// ---- import ------------------------------------------------------------------------------------

typedef struct import {
  const char *dir;
  dj_safetensors *file[MAX_SHARDS];
  int n_files;
  dj_vars *vars;
} import;

/* All *.safetensors of the folder that are the model's: model.safetensors or its shards. */
static dj_status open_files(import *m) {
  char **names;
  size_t n;
  dj_status s = dj__list_dir(m->dir, &names, &n);
  if (s) return s;
  for (size_t i = 0; i < n && !s; i++) {
    const char *end = strstr(names[i], ".safetensors");
    if (strncmp(names[i], "model", 5) != 0 || !end || end[12]) continue;
    char *path = dj__join(m->dir, names[i]);
    s = m->n_files < MAX_SHARDS ? dj_safetensors_open(path, &m->file[m->n_files])
                                : dj_error(DJ_E_LIMIT, "%s: over %d files", m->dir, MAX_SHARDS);
    if (!s) m->n_files++;
    free(path);
  }
  dj__free_names(names, n);
  if (!s && !m->n_files) s = dj_error(DJ_E_NOT_FOUND, "%s: holds no model*.safetensors", m->dir);
  return s;
}

/* With or without the first part of the name, which some files leave out. */
static const dj_st_tensor *find_theirs(const import *m, const char *name) {
  const char *dot = strchr(name, '.');
  for (int i = 0; i < m->n_files; i++) {
    const dj_st_tensor *t = dj_safetensors_find(m->file[i], name);
    if (!t && dot) t = dj_safetensors_find(m->file[i], dot + 1);
    if (t) return t;
  }
  return NULL;
}

static float half_to_f32(uint16_t h) {
  int e = h >> 10 & 31, m = h & 1023;
  float v = e == 0    ? ldexpf((float)m, -24)
            : e == 31 ? (m ? NAN : INFINITY)
                      : ldexpf((float)(m | 1024), e - 25);
  return h >> 15 ? -v : v;
}

static float element(const dj_st_tensor *t, int64_t i) {
  if (t->dtype == DJ_ST_F32) {
    float v;
    memcpy(&v, (const char *)t->data + 4 * i, sizeof v);
    return v;
  }
  uint16_t v;
  memcpy(&v, (const char *)t->data + 2 * i, sizeof v);
  return t->dtype == DJ_ST_BF16 ? dj_bf16_to_f32(v) : half_to_f32(v);
}

static dj_status take(const piece *p, void *user) {
  import *m = user;
  const dj_st_tensor *t = find_theirs(m, p->theirs);
  if (!t) return dj_error(DJ_E_FORMAT, "%s: the tensor '%s' is missing", m->dir, p->theirs);
  const int64_t cols = p->cols ? p->cols : 1, r = p->transposed ? cols : p->rows,
                c = p->transposed ? p->rows : cols;
  bool fits = t->rank == (p->cols ? 2 : 1) && (int64_t)t->shape[0] == r &&
              (!p->cols || (int64_t)t->shape[1] == c);
  bool known = t->dtype == DJ_ST_F32 || t->dtype == DJ_ST_BF16 || t->dtype == DJ_ST_F16;
  if (!fits || !known)
    return dj_error(
        DJ_E_FORMAT,
        "%s: '%s' is %s of rank %d, %llu x %llu; config.json makes it a "
        "float tensor of %lld x %lld",
        m->dir, t->name, dj_st_dtype_name(t->dtype), t->rank, (unsigned long long)t->shape[0],
        (unsigned long long)(t->rank > 1 ? t->shape[1] : 1), (long long)r, (long long)c);
  dj_shape shape = p->cols ? DJ_SHAPE(p->all, p->cols) : DJ_SHAPE(p->all);
  dj_var *v;
  DJ_TRY(dj_vars_add(m->vars, p->ours, DJ_VAR_PARAM, shape, dj_init_const(0), &v));
  float *to = (float *)v->tensor.data + p->first * cols;
  for (int64_t i = 0; i < p->rows; i++)
    for (int64_t k = 0; k < cols; k++)
      to[i * cols + k] = element(t, p->transposed ? k * p->rows + i : i * cols + k);
  return DJ_OK;
}

static char *recipe_text(const dj__decoder *d) {
  return dj__strf(
      "# Made by `dojo text import`.\n"
      "name: imported\ntask: text\n\n"
      "data:\n  context: %d\n\n"
      "network:\n  name: decoder\n  layers: %d\n  heads: %d\n  kv_heads: %d\n  width: %d\n"
      "  mlp_width: %d\n  vocabulary: %d\n  norm: %s\n  positions: %s\n  mlp: %s\n  tied: %s\n"
      "  bias: %s\n  rope_theta: %.9g\n  norm_eps: %.9g\n\n"
      "train:\n  steps: 1000\n  batch: 1\n  precision: bf16\n"
      "  optimizer: {name: adamw, lr: 0.00003, beta2: 0.95, weight_decay: 0.1}\n"
      "  schedule: {name: cosine, warmup: 100, final: 0.1}\n  clip: 1\n",
      d->context, d->layers, d->heads, d->kv_heads, d->width, d->mlp_width, d->vocabulary,
      d->norm == DJ_NORM_RMS ? "rms" : "layer",
      d->positions == DJ_POSITIONS_ROTARY ? "rotary" : "learned",
      d->mlp == DJ_MLP_SWIGLU ? "swiglu" : "gelu", d->tied ? "true" : "false",
      d->bias ? "true" : "false", (double)d->rope_theta, (double)d->norm_eps);
}

static dj_status write_checkpoint(const dj_run *run, dj_vars *vars, const char *tokens) {
  dj_task *task = NULL;
  char *about = NULL;
  dj_status s = DJ_OK;
  if (tokens) {
    s = dj_task_create_text(dj_run_recipe(run), tokens, &task);
    if (!s) s = task->ops->describe(task, &about);
  } else {
    about = dj__strf("{\"task\": \"text\", \"network\": \"decoder\"}");
  }
  dj__checkpointer *c = NULL;
  dj__run_state state = {.seed = dj_run_recipe(run)->train.seed,
                         .best = NAN,
                         .recipe_digest = dj_run_recipe(run)->digest,
                         .task = about};
  if (!s) s = dj__checkpointer_open(dj_run_dir(run), 1, vars, &c);
  if (!s) s = dj__checkpointer_submit(c, &state, false);
  dj_status end = dj__checkpointer_close(c);
  dj_task_destroy(task);
  free(about);
  return s ? s : end;
}

/* merges.txt (or vocab.bpe) beside the model becomes the run's tokeniser. */
static dj_status take_tokenizer(const char *from, const char *run_dir) {
  static const char *const names[] = {"merges.txt", "vocab.bpe"};
  for (size_t i = 0; i < 2; i++) {
    char *path = dj__join(from, names[i]), *to = dj__join(run_dir, "tokenizer.safetensors");
    dj_tokenizer *t = NULL;
    bool there = dj__exists(path);
    dj_status s = there ? dj_tokenizer_open_bpe(path, &t) : DJ_OK;
    if (t) s = dj_tokenizer_save(t, to);
    dj_tokenizer_close(t);
    free(path);
    free(to);
    if (s || there) return s;
  }
  return DJ_OK;
}

static dj_status make_run(const char *run_dir, const dj__decoder *d, dj_vars *vars,
                          const char *tokens, const char *from) {
  char *text = recipe_text(d), *file = dj__strf("%s/recipe.yaml", run_dir);
  dj_recipe *r = NULL;
  dj_run *run = NULL;
  dj_status s = dj_recipe_parse(text, strlen(text), file, &r);
  if (!s) s = dj_run_create(run_dir, r, &(dj_run_options){.store = tokens}, &run);
  if (!s) {
    s = write_checkpoint(run, vars, tokens);
    if (!s) s = take_tokenizer(from, run_dir);
    if (s)
      dj_run_discard(run);
    else
      dj_run_close(run);
  }
  dj_recipe_free(r);
  free(text);
  free(file);
  return s;
}

dj_status dj_lm_import(const char *from, const char *run_dir, const char *tokens) {
  dj__decoder d;
import m = {.dir = from, .vars = dj_vars_create(0) };
  if (!m.vars) return dj_error(DJ_E_NOMEM, "import: no memory");
  dj_status s = read_config(from, &d);
  if (!s) s = open_files(&m);
  if (!s) s = visit_all(&d, take, &m);
  if (!s) s = make_run(run_dir, &d, m.vars, tokens, from);
  for (int i = 0; i < m.n_files; i++) dj_safetensors_close(m.file[i]);
  dj_vars_destroy(m.vars);
  return s;
}

// ---- export ------------------------------------------------------------------------------------

typedef struct export {
  dj_vars *vars;
  dj__buf tensors; // dj_st_tensor
}
export;

static dj_status give(const piece *p, void *user) {
  export *m = user;
  const dj_var *v = dj_vars_find(m->vars, p->ours);
  const int64_t cols = p->cols ? p->cols : 1, n = p->rows * cols;
  float *data = calloc((size_t)n, sizeof *data);
  char *name = dj__strf("%s", p->theirs);
  if (!data) {
    free(name);
    return dj_error(DJ_E_NOMEM, "export: no memory for '%s'", p->theirs);
  }
  const float *from = v ? (const float *)v->tensor.data + p->first * cols : NULL; // none: zeros
  for (int64_t i = 0; from && i < p->rows; i++)
    for (int64_t k = 0; k < cols; k++)
      data[p->transposed ? k * p->rows + i : i * cols + k] = from[i * cols + k];
  dj_st_tensor t = {.name = name, .dtype = DJ_ST_F32, .rank = p->cols ? 2 : 1, .data = data};
  t.shape[0] = (uint64_t)(p->transposed ? p->cols : p->rows);
  t.shape[1] = (uint64_t)(p->transposed ? p->rows : p->cols);
  dj__buf_put(&m->tensors, &t, sizeof t);
  return m->tensors.failed ? dj_error(DJ_E_NOMEM, "export: no memory") : DJ_OK;
}

/* vocab.json: every token in the byte alphabet of merges.txt, with its id. */
static dj_status write_vocabulary(const dj_tokenizer *t, const char *dir) {
  dj__buf b = {0};
  dj__buf_put(&b, "{", 1);
  for (int32_t id = 0; id < dj_tokenizer_size(t); id++) {
    char *text;
    size_t size;
    dj_status s = dj_tokenizer_decode(t, &id, 1, &text, &size);
    if (s) {
      dj__buf_free(&b);
      return s;
    }
    dj__buf word = {0};
    for (size_t i = 0; i < size; i++) {
      unsigned char letter[2];
      size_t n = id == dj_tokenizer_end(t) ? (letter[0] = (unsigned char)text[i], 1)
                                           : dj__byte_letter((unsigned char)text[i], letter);
      dj__buf_put(&word, letter, n);
    }
    json_t *j = json_stringn((const char *)word.data, word.size);
    char *quoted = j ? json_dumps(j, JSON_ENCODE_ANY) : NULL,
         *entry = quoted ? dj__strf("%s%s: %d", id ? ",\n" : "\n", quoted, id) : NULL;
    if (entry) dj__buf_put(&b, entry, strlen(entry));
    b.failed |= !entry;
    free(entry);
    free(quoted);
    json_decref(j);
    dj__buf_free(&word);
    free(text);
  }
  dj__buf_put(&b, "\n}\n", 3);
  char *path = dj__join(dir, "vocab.json");
  dj_status s = b.failed ? dj_error(DJ_E_NOMEM, "%s: no memory", path)
                         : dj__write_file_atomic(path, b.data, b.size);
  free(path);
  dj__buf_free(&b);
  return s;
}

static dj_status give_tokenizer(const char *run_dir, const char *to, int32_t *end) {
  char *from = dj__join(run_dir, "tokenizer.safetensors");
  dj_tokenizer *t = NULL;
  dj_status s = dj__exists(from) ? dj_tokenizer_load(from, &t) : DJ_OK;
  *end = t ? dj_tokenizer_end(t) : -1;
  if (t && dj_tokenizer_get_kind(t) == DJ_TOKENS_BPE) {
    size_t size;
    const void *merges = dj_tokenizer_source(t, &size);
    char *path = dj__join(to, "merges.txt");
    s = dj__write_file_atomic(path, merges, size);
    free(path);
    if (!s) s = write_vocabulary(t, to);
  }
  dj_tokenizer_close(t);
  free(from);
  return s;
}

static dj_status load(const char *run_dir, dj_vars *vars, dj__decoder *d) {
  dj_run_info info;
  DJ_TRY(dj_run_read(run_dir, &info));
  dj_status s = dj_checkpoint_load_run(run_dir, DJ_CHECKPOINT_BEST, vars, NULL);
  const dj_var *table = s ? NULL : dj_vars_find(vars, "decoder/token/weight");
  if (!s && !table) s = dj_error(DJ_E_INVALID, "%s: holds no language model", run_dir);
  if (!s) s = dj__decoder_of(info.recipe, (int32_t)table->tensor.shape.dim[0], d);
  dj_run_info_free(&info);
  return s;
}

static dj_status check_layout(const char *run_dir, const dj__decoder *d) {
  bool llama =
      d->norm == DJ_NORM_RMS && d->positions == DJ_POSITIONS_ROTARY && d->mlp == DJ_MLP_SWIGLU;
  bool gpt2 = d->norm == DJ_NORM_LAYER && d->positions == DJ_POSITIONS_LEARNED &&
              d->mlp == DJ_MLP_GELU && d->kv_heads == d->heads;
  if (llama || gpt2) return DJ_OK;
  return dj_error(DJ_E_UNSUPPORTED,
                  "%s: this mix of norm, positions, MLP and heads is neither GPT-2's (layer, "
                  "learned, gelu, kv_heads as heads) nor Llama's (rms, rotary, swiglu)",
                  run_dir);
}

dj_status dj_lm_export(const char *run_dir, const char *to) {
  dj__decoder d;
  int32_t end = -1;
  export m = {.vars = dj_vars_create(0)};
  if (!m.vars) return dj_error(DJ_E_NOMEM, "export: no memory");
  dj_status s = load(run_dir, m.vars, &d);
  if (!s) s = check_layout(run_dir, &d);
  if (!s && !is_llama(&d)) d.bias = true; // transformers' GPT-2 always has them: zeros
  if (!s) s = visit_all(&d, give, &m);
  if (!s) s = dj__mkdirs(to);
  char *path = dj__join(to, "model.safetensors");
  dj_st_tensor *t = (dj_st_tensor *)(void *)m.tensors.data;
  size_t n = m.tensors.size / sizeof *t;
  if (!s) s = dj_safetensors_save(path, t, n, &(dj_st_meta){"format", "pt"}, 1);
  if (!s) s = give_tokenizer(run_dir, to, &end);
  if (!s) s = write_config(to, &d, end);
  for (size_t i = 0; i < n; i++) {
    free((void *)t[i].data);
    free((void *)t[i].name);
  }
  dj__buf_free(&m.tensors);
  dj_vars_destroy(m.vars);
  free(path);
  return s;
}
