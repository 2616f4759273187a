/*
 * From a loss to updated weights: gradients, their global norm, one update node over all variables
 * (a few where these are large); gradient accumulation as two programs over the same variables;
 * moving averages; learning rates.
 *
 * The optimiser's variables are ordinary states named "optimizer/...", so that checkpoints hold
 * them without knowing what they are. What changes from step to step (learning rate, bias
 * correction) enters through one input; nothing here keeps time.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dojo/train.h"

enum { NAME_BYTES = 320 };
#define PREFIX "optimizer/"

// ---- graphs ------------------------------------------------------------------------------------

static float defaulted(float v, float def) {
  return v > 0 ? v : def;
}

static dj_status check_optimizer(const dj_optimizer *o) {
  const float v[] = {o->beta1, o->beta2, o->eps, o->weight_decay, o->max_norm, o->ema};
  bool ok = o->kind == DJ_ADAMW || o->kind == DJ_SGD;
  for (size_t i = 0; i < sizeof v / sizeof *v; i++) ok = ok && v[i] >= 0 && isfinite(v[i]);
  if (ok && o->beta1 < 1 && o->beta2 < 1 && o->ema < 1) return DJ_OK;
  return dj_error(DJ_E_INVALID,
                  "optimizer: kind %d, beta1 %g, beta2 %g, eps %g, weight_decay %g, max_norm %g, "
                  "ema %g: all must be at least 0, betas and ema below 1",
                  (int)o->kind, (double)o->beta1, (double)o->beta2, (double)o->eps,
                  (double)o->weight_decay, (double)o->max_norm, (double)o->ema);
}

static dj_val state(dj_graph *g, const char *what, const char *param, dj_shape s, dj_init init) {
  char name[NAME_BYTES];
  int n = snprintf(name, sizeof name, PREFIX "%s/%s", what, param);
  if (n < 0 || n >= (int)sizeof name) {
    dj_error(DJ_E_LIMIT, "optimizer: the name '%.60s...' is over %d bytes", param, NAME_BYTES - 20);
    return DJ_NONE;
  }
  return dj_state(g, name, s, init);
}

typedef struct pair {
  dj_val param, grad;
  const char *name;
} pair;

// One node for every SHARE elements: what the gradients of the first take is free in the next.
static void update_in_shares(dj_graph *g, const dj_optimizer *o, dj_val hyper, dj_val guard,
                             const dj_update *u, int n) {
  enum { SHARE = 1 << 25 };
  for (int from = 0, to; from < n; from = to) {
    int64_t elements = 0;
    for (to = from; to < n && elements < SHARE; to++) {
      dj_shape s = dj_val_shape(g, u[to].param);
      elements += dj_shape_count(&s);
    }
    if (o->kind == DJ_ADAMW)
      dj_adamw(g, hyper, guard, u + from, to - from);
    else
      dj_sgd(g, hyper, guard, u + from, to - from);
  }
}

// Norm, guard, update. `p` are the variables with a gradient.
static dj_status update(dj_graph *g, dj_val loss, const dj_optimizer *o, const pair *p, int n) {
  dj_val *grads = calloc((size_t)n + 1, sizeof *grads);
  dj_update *u = calloc((size_t)n + 1, sizeof *u);
  if (!grads || !u) {
    free(grads);
    free(u);
    return dj_error(DJ_E_NOMEM, "optimizer: no memory for %d variables", n);
  }
  for (int i = 0; i < n; i++) grads[i] = p[i].grad;
  dj_val norm = dj_global_norm(g, grads, n); // () f32
  dj_val both[] = {dj_reshape(g, loss, DJ_SHAPE(1)), dj_reshape(g, norm, DJ_SHAPE(1))};
  dj_val guard = dj_concat(g, both, 2, 0);                         // (2) f32
  dj_val hyper = dj_input(g, PREFIX "hyper", DJ_F32, DJ_SHAPE(8)); // (8) f32
  const bool adam = o->kind == DJ_ADAMW;
  const dj_init zero = dj_init_const(0), moment = adam ? dj_init_late() : zero;
  for (int i = 0; i < n; i++) {
    dj_shape s = dj_val_shape(g, p[i].param);
    u[i] = (dj_update){.param = p[i].param,
                       .grad = p[i].grad,
                       .m = state(g, "m", p[i].name, s, moment),
                       .v = adam ? state(g, "v", p[i].name, s, moment) : DJ_NONE,
                       .ema = o->ema > 0 ? state(g, "ema", p[i].name, s, zero) : DJ_NONE,
                       .weight_decay = s.rank >= 2 ? o->weight_decay : 0,
                       .lr_scale = 1};
  }
  update_in_shares(g, o, hyper, guard, u, n);
  // Not `loss` itself: accumulated, it is a variable, which is zero again at the end of the run.
  dj_output(g, "loss", dj_reshape(g, dj_slice(g, guard, 0, 0, 1), DJ_SCALAR));
  dj_output(g, "grad_norm", norm);
  free(grads);
  free(u);
  return dj_graph_status(g);
}

// Variables with a gradient, and their gradients as values of `g`.
static dj_status differentiate(dj_graph *g, dj_val loss, pair **out, int *n) {
  *out = NULL;
  *n = 0;
  DJ_TRY(dj_graph_status(g));
  DJ_TRY(dj_graph_backward(g, loss));
  int all = dj_graph_n_params(g);
  pair *p = calloc((size_t)all + 1, sizeof *p);
  if (!p) return dj_error(DJ_E_NOMEM, "optimizer: no memory for %d variables", all);
  for (int i = 0; i < all; i++) {
    dj_val v = dj_graph_param(g, i);
    dj_val d = dj_grad(g, v);
    if (d != DJ_NONE) p[(*n)++] = (pair){v, d, dj_graph_param_name(g, i)};
  }
  if (*n == 0) {
    free(p);
    return dj_error(DJ_E_INVALID, "optimizer: the loss depends on no trainable variable");
  }
  *out = p;
  return DJ_OK;
}

dj_status dj_optimizer_apply(dj_graph *g, dj_val loss, const dj_optimizer *o) {
  pair *p;
  int n;
  DJ_TRY(check_optimizer(o));
  DJ_TRY(differentiate(g, loss, &p, &n));
  dj_status s = update(g, loss, o, p, n);
  free(p);
  return s;
}

dj_status dj_optimizer_accumulate(dj_graph *g, dj_val loss, int n) {
  pair *p;
  int n_pairs;
  if (n < 1) return dj_error(DJ_E_INVALID, "optimizer: %d runs for one update; at least 1", n);
  DJ_TRY(differentiate(g, loss, &p, &n_pairs));
  float share = 1.0f / (float)n;
  for (int i = 0; i < n_pairs; i++) {
    dj_val sum = state(g, "grad", p[i].name, dj_val_shape(g, p[i].param), dj_init_const(0));
    dj_accumulate(g, sum, p[i].grad, share);
  }
  dj_accumulate(g, dj_state(g, PREFIX "loss", DJ_SCALAR, dj_init_const(0)), loss, share);
  dj_output(g, "loss", loss);
  free(p);
  return dj_graph_status(g);
}

static void set_zero(dj_graph *g, dj_val v) {
  dj_assign(g, v, dj_broadcast(g, dj_scalar(g, 0), dj_val_shape(g, v)));
}

dj_status dj_optimizer_apply_accumulated(dj_graph *g, const dj_graph *from, const dj_optimizer *o) {
  DJ_TRY(check_optimizer(o));
  int all = dj_graph_n_params(from), n = 0;
  pair *p = calloc((size_t)all + 1, sizeof *p);
  if (!p) return dj_error(DJ_E_NOMEM, "optimizer: no memory for %d variables", all);
  for (int i = 0; i < all; i++) {
    dj_val v = dj_graph_param(from, i);
    if (dj_grad(from, v) == DJ_NONE) continue;
    const char *name = dj_graph_param_name(from, i);
    dj_shape s = dj_val_shape(from, v);
    // The initial value is never used: the variable is there already.
    const dj_init zero = dj_init_const(0);
    p[n++] = (pair){dj_param(g, name, s, zero), state(g, "grad", name, s, zero), name};
  }
  dj_val loss = dj_state(g, PREFIX "loss", DJ_SCALAR, dj_init_const(0));
  dj_status s = update(g, loss, o, p, n);
  for (int i = 0; i < n && !s; i++) set_zero(g, p[i].grad);
  set_zero(g, loss);
  free(p);
  return s ? s : dj_graph_status(g);
}

// ---- values ------------------------------------------------------------------------------------

dj_status dj_optimizer_fill(dj_program *p, const dj_optimizer *o, uint64_t step, double lr) {
  dj_tensor *t = dj_program_input(p, PREFIX "hyper"); // (8) f32
  if (!t) return dj_error(DJ_E_INVALID, "optimizer: the program updates no variables");
  bool adam = o->kind == DJ_ADAMW;
  float beta1 = adam ? defaulted(o->beta1, 0.9f) : o->beta1;
  float beta2 = adam ? defaulted(o->beta2, 0.999f) : 0;
  double n = (double)step + 1;
  double warm = n / (n + 9);
  float *h = t->data;
  h[0] = (float)lr;
  h[1] = beta1;
  h[2] = beta2;
  h[3] = defaulted(o->eps, 1e-8f);
  h[4] = adam ? (float)(1 - pow((double)beta1, n)) : 1;
  h[5] = adam ? (float)(1 - pow((double)beta2, n)) : 1;
  h[6] = o->max_norm;
  h[7] = o->ema > 0 ? (float)fmin((double)o->ema, warm) : 0;
  return DJ_OK;
}

static const char *after(const char *name, const char *prefix) {
  size_t n = strlen(prefix);
  return strncmp(name, prefix, n) == 0 ? name + n : NULL;
}

dj_status dj_optimizer_start(dj_vars *v) {
  for (int i = 0; i < dj_vars_count(v); i++) {
    dj_var *ema = dj_vars_get(v, i);
    const char *name = after(ema->name, PREFIX "ema/");
    if (!name) continue;
    const dj_var *p = dj_vars_find(v, name);
    if (!p || !dj_shape_equal(&p->tensor.shape, &ema->tensor.shape))
      return dj_error(DJ_E_INVALID, "optimizer: '%s' averages no variable", ema->name);
    memcpy(ema->tensor.data, p->tensor.data, dj_tensor_bytes(&p->tensor));
  }
  return DJ_OK;
}

dj_status dj_vars_copy_for_eval(dj_vars *from, dj_vars *to) {
  for (int i = 0; i < dj_vars_count(from); i++) {
    const dj_var *v = dj_vars_get(from, i);
    if (after(v->name, PREFIX)) continue;
    char name[NAME_BYTES];
    (void)snprintf(name, sizeof name, PREFIX "ema/%s", v->name);
    const dj_var *ema = v->kind == DJ_VAR_PARAM ? dj_vars_find(from, name) : NULL;
    const dj_tensor *value = ema ? &ema->tensor : &v->tensor;
    dj_var *copy;
    DJ_TRY(dj_vars_add(to, v->name, v->kind, value->shape, dj_init_const(0), &copy));
    memcpy(copy->tensor.data, value->data, dj_tensor_bytes(value));
  }
  return DJ_OK;
}

// ---- learning rate -----------------------------------------------------------------------------

double dj_schedule_lr(const dj_schedule *s, uint64_t step) {
  if (step < s->warmup) return s->lr * (double)(step + 1) / (double)(s->warmup + 1);
  uint64_t since = step - s->warmup;
  if (s->kind == DJ_SCHEDULE_STEP) {
    uint64_t drops = s->every ? since / s->every : 0;
    return s->lr * pow(s->gamma, (double)drops);
  }
  if (s->kind == DJ_SCHEDULE_CONSTANT || s->steps <= s->warmup) return s->lr;
  double length = (double)(s->steps - s->warmup);
  double at = fmin((double)since / length, 1);
  return s->lr * (s->final + (1 - s->final) * 0.5 * (1 + cos(3.14159265358979323846 * at)));
}
