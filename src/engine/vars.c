/*
 * Persistent variables: weights, moments, running statistics. Owned here, shared by every program
 * of a network. Initial values are a function of (seed, name) alone, so that adding a layer does
 * not change the others.
 *
 * Small variables are laid out one after the other in blocks of 8 MiB, so that an optimiser's pass
 * over all of them is a pass over dense memory.
 */
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "dojo/graph.h"
#include "engine/backend.h"
#include "engine/graph.h"

enum { BLOCK_BYTES = 8 << 20 };

typedef struct block {
  struct block *next;
  unsigned char *data;
  size_t size, used;
} block;

struct dj_vars {
  uint64_t seed, version;
  void (*settle)(void *owner);
  void *owner;   // of what is put off; NULL: nothing is
  dj_var **vars; // each allocated on its own: pointers stay valid
  int n, cap;
  block *blocks[2]; // parameters and state apart
};

dj_vars *dj_vars_create(uint64_t seed) {
  dj_vars *v = calloc(1, sizeof *v);
  if (!v) {
    dj_error(DJ_E_NOMEM, "variables: out of memory");
    return NULL;
  }
  v->seed = seed;
  v->version = 1;
  return v;
}

void dj_vars_destroy(dj_vars *v) {
  if (!v) return;
  for (int i = 0; i < v->n; i++) {
    free((char *)v->vars[i]->name);
    free(v->vars[i]);
  }
  for (int k = 0; k < 2; k++)
    for (block *b = v->blocks[k], *next; b; b = next) {
      next = b->next;
      dj__backend_cpu.free(b->data, b->size);
      free(b);
    }
  free(v->vars);
  free(v);
}

void dj__vars_put_off(dj_vars *v, void (*settle)(void *owner), void *owner) {
  v->settle = settle;
  v->owner = owner;
}
void dj__vars_settle(dj_vars *v) {
  if (v->owner) v->settle(v->owner);
  v->owner = NULL;
}

void dj_vars_changed(dj_vars *v) {
  v->version++;
}
uint64_t dj__vars_version(const dj_vars *v) {
  return v->version;
}

int dj_vars_count(const dj_vars *v) {
  return v->n;
}
dj_var *dj_vars_get(dj_vars *v, int i) {
  dj__vars_settle(v);
  dj_vars_changed(v);
  return i < 0 || i >= v->n ? NULL : v->vars[i];
}

dj_var *dj_vars_find(dj_vars *v, const char *name) {
  dj__vars_settle(v);
  dj_vars_changed(v);
  for (int i = 0; i < v->n; i++)
    if (!strcmp(v->vars[i]->name, name)) return v->vars[i];
  return NULL;
}

static void *block_alloc(dj_vars *v, int kind, size_t bytes, bool late) {
  bytes = (bytes + 63) & ~(size_t)63;
  block *b = v->blocks[kind];
  if (!b || b->size - b->used < bytes) {
    b = calloc(1, sizeof *b);
    if (!b) return NULL;
    const bool large = bytes >= DJ__LATE_BYTES; // these have their own
    b->size = large ? bytes : BLOCK_BYTES;
    b->data = (late && large ? dj__backend_cpu.reserve : dj__backend_cpu.alloc)(b->size);
    if (!b->data) {
      free(b);
      return NULL;
    }
    if (v->blocks[kind] && large) { // the one in use goes on being filled
      b->next = v->blocks[kind]->next;
      v->blocks[kind]->next = b;
    } else {
      b->next = v->blocks[kind];
      v->blocks[kind] = b;
    }
  }
  void *p = b->data + b->used;
  b->used += bytes;
  return p;
}

static void fill(float *x, int64_t n, dj_init init, uint64_t seed, const char *name) {
  dj__rng r = {seed, dj__hash64(name, strlen(name), 0), 0};
  if (init.kind == DJ_INIT_NORMAL) {
    dj__backend_cpu.fill_normal(x, n, init.a, r.key, r.stream);
    return;
  }
  if (init.a == 0) return; // new memory is zero
  for (int64_t i = 0; i < n; i++) {
    x[i] = init.kind == DJ_INIT_CONST ? init.a : dj__rng_uniform(&r, -init.a, init.a);
  }
}

dj_status dj_vars_add(dj_vars *v, const char *name, dj_var_kind kind, dj_shape s, dj_init init,
                      dj_var **out) {
  dj_var *old = dj_vars_find(v, name);
  if (old) {
    char a[DJ_SHAPE_TEXT], b[DJ_SHAPE_TEXT];
    if (!dj_shape_equal(&old->tensor.shape, &s))
      return dj_error(DJ_E_INVALID,
                      "variable '%s' has shape %s, not %s: these weights belong to "
                      "another network",
                      name, dj_shape_text(&old->tensor.shape, a, sizeof a),
                      dj_shape_text(&s, b, sizeof b));
    *out = old;
    return DJ_OK;
  }
  if (v->n == v->cap) {
    int cap = v->cap ? v->cap * 2 : 64;
    dj_var **grown = realloc(v->vars, (size_t)cap * sizeof *grown);
    if (!grown) return dj_error(DJ_E_NOMEM, "variables: out of memory");
    v->vars = grown;
    v->cap = cap;
  }
  dj_var *n = calloc(1, sizeof *n);
  char *copy = strdup(name);
  size_t bytes = (size_t)dj_shape_count(&s) * sizeof(float);
  const bool late = init.kind == DJ_INIT_LATE;
  void *data = n && copy ? block_alloc(v, kind == DJ_VAR_STATE, bytes, late) : NULL;
  if (!data) {
    free(n);
    free(copy);
    return dj_error(DJ_E_NOMEM, "variable '%s': no memory for %zu bytes", name, bytes);
  }
  *n = (dj_var){copy, kind, {data, DJ_F32, s}};
  fill(data, dj_shape_count(&s), init, v->seed, name);
  v->vars[v->n++] = n;
  *out = n;
  return DJ_OK;
}
