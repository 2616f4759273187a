/*
 * Memory plan. Every value made by a kernel gets an interval [made, last read] in the schedule and
 * an offset in one arena, so that values alive at the same time never overlap. Views share their
 * source's buffer; an elementwise result may take over an operand that dies there. What lasts from
 * one run into the next (packed weights) has two intervals: from the start, and to the end.
 *
 * Placement: buffers in some order, each at the lowest offset where it fits between those already
 * placed that overlap in time (greedy by size; Pisarchyk & Lee 2020). Several orders are tried
 * until one reaches the lower bound, the largest sum of bytes alive at one step; the best is taken.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "engine/ewise.h"
#include "engine/passes/passes.h"

enum { ALIGN = 64 };

typedef struct buffer {
  size_t bytes, offset;
  int first, last; // steps of the schedule
  int again;       // from this step to the end, too; NEVER: not
  int root;        // union-find: buffer that holds this one
} buffer;
enum { NEVER = INT_MAX };

static size_t padded(size_t bytes) {
  return (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

static int find(buffer *b, int v) {
  while (b[v].root != v) v = b[v].root = b[b[v].root].root;
  return v;
}

/* Puts b's interval into a's buffer. */
static void merge(buffer *b, int a, int v) {
  int x = find(b, a), y = find(b, v);
  if (x == y) return;
  b[y].root = x;
  if (b[y].first < b[x].first) b[x].first = b[y].first;
  if (b[y].last > b[x].last) b[x].last = b[y].last;
  if (b[y].bytes > b[x].bytes) b[x].bytes = b[y].bytes;
}

bool *dj__frozen_values(const dj_graph *g, const int *order, int n) {
  bool *frozen = calloc((size_t)g->n_values + 1, sizeof *frozen);
  if (!frozen) return NULL;
  for (int i = 0; i < g->n_nodes; i++)
    if (dj__is_source(g->nodes[i]) && g->nodes[i]->op != DJ__OP_input)
      frozen[g->nodes[i]->out[0]] = true;
  for (int i = 0; i < n; i++) // variables that are written
    for (int k = 0; k < g->nodes[order[i]]->n_in; k++)
      if (dj__node_writes(g->nodes[order[i]], k)) frozen[g->nodes[order[i]]->in[k]] = false;
  for (int i = 0; i < n; i++) {
    const dj__node *node = g->nodes[order[i]];
    bool all = !(dj__op_get(node->op)->flags & (DJ__EFFECT | DJ__RANDOM));
    for (int k = 0; k < node->n_in; k++) all = all && (node->in[k] < 0 || frozen[node->in[k]]);
    for (int k = 0; k < node->n_out; k++) frozen[node->out[k]] = all;
  }
  return frozen;
}

static void intervals(const dj_graph *g, const int *order, int n, const bool *frozen, dj__plan *p,
                      buffer *b) {
  for (int v = 0; v < g->n_values; v++) {
    const dj__value *x = &g->values[v];
    size_t bytes = (size_t)dj_shape_count(&x->shape) * dj_dtype_size(x->dtype);
    b[v] = (buffer){.bytes = padded(bytes), .first = -1, .last = -1, .again = NEVER, .root = v};
    p->source[v] = DJ_NONE;
    p->place[v] = dj__is_source(g->nodes[x->node]) ? DJ__PLACE_SOURCE : DJ__PLACE_NONE;
    if (p->place[v] == DJ__PLACE_SOURCE) p->source[v] = v;
  }
  for (int i = 0; i < n; i++) {
    const dj__node *node = g->nodes[order[i]];
    for (int k = 0; k < node->n_out; k++) {
      b[node->out[k]].first = b[node->out[k]].last = i;
      p->place[node->out[k]] = DJ__PLACE_ARENA;
    }
    for (int k = 0; k < node->n_in; k++)
      if (node->in[k] >= 0) b[node->in[k]].last = i;
  }
  for (int i = 0; i < g->n_outputs; i++) b[g->outputs[i].val].last = n;
  for (int v = 0; frozen && v < g->n_values; v++)
    if (frozen[v] && b[v].first >= 0) b[v].first = 0, b[v].last = n; // kept from run to run
}

/* Results that may take over an operand: none, all but gradients that ops other than elementwise
 * ones give to updates, or all. */
typedef enum takeover { TAKE_NOTHING, TAKE_VALUES, TAKE_ALL } takeover;

static bool is_updated_by(const dj_graph *g, const int *order, int n, dj_val v) {
  for (int i = n - 1; i >= 0; i--) {
    const dj__node *node = g->nodes[order[i]];
    for (int k = 0; dj__op_get(node->op)->flags & DJ__EFFECT && k < node->n_in; k++)
      if (node->in[k] == v) return true;
  }
  return false;
}

/* Views first: they extend lifetimes; then in-place reuse where the operand dies at the node. */
static void share(const dj_graph *g, const int *order, int n, takeover take, dj__plan *p,
                  buffer *b) {
  for (int i = 0; i < n; i++) {
    const dj__node *node = g->nodes[order[i]];
    if (!(dj__op_get(node->op)->flags & DJ__VIEW)) continue;
    dj_val in = node->in[0], out = node->out[0];
    if (p->place[in] == DJ__PLACE_SOURCE) {
      p->place[out] = DJ__PLACE_SOURCE;
      p->source[out] = p->source[in];
    } else {
      merge(b, in, out);
    }
  }
  for (int i = 0; take && i < n; i++) {
    const dj__node *node = g->nodes[order[i]];
    uint32_t flags = dj__op_get(node->op)->flags;
    const bool fused = node->op == DJ__OP_fused, ewise = fused || flags & DJ__EWISE;
    const int sums = fused && ((const dj__fused_attr *)node->attr)->sum; // made after the last read
    if (!(flags & DJ__INPLACE || ewise) || node->n_out != 1 + sums) continue;
    dj_val out = node->out[0];
    if (take == TAKE_VALUES && !ewise && is_updated_by(g, order, n, out)) continue;
    for (int k = 0; k < node->n_in; k++) {
      dj_val in = node->in[k];
      if (in < 0 || (k > 0 && !ewise) || p->place[in] != DJ__PLACE_ARENA) continue;
      if (g->values[in].dtype != g->values[out].dtype ||
          !dj_shape_equal(&g->values[in].shape, &g->values[out].shape))
        continue;
      int x = find(b, in);
      if (b[x].last != i || find(b, out) == x) continue;
      // A second view of the same buffer among the inputs would be read after it is overwritten.
      bool twice = false;
      for (int j = 0; j < node->n_in; j++)
        twice |= j != k && node->in[j] >= 0 && node->in[j] != in && find(b, node->in[j]) == x;
      if (twice) continue;
      merge(b, in, out);
      break;
    }
  }
}

static _Thread_local const buffer *sort_buffers; // qsort takes no context
static _Thread_local int sort_steps;
static int by_size(const void *x, const void *y) {
  const buffer *a = &sort_buffers[*(const int *)x], *b = &sort_buffers[*(const int *)y];
  if (a->bytes != b->bytes) return a->bytes < b->bytes ? 1 : -1;
  if (a->first != b->first) return a->first - b->first;
  return *(const int *)x - *(const int *)y;
}
/* Steps of its life. */
static int length(const buffer *b) {
  return b->last - b->first + 1 + (b->again == NEVER ? 0 : sort_steps - b->again + 1);
}
/* Long-lived ones first: those made at one step and read at another lie at the bottom. */
static int by_duration(const void *x, const void *y) {
  const buffer *a = &sort_buffers[*(const int *)x], *b = &sort_buffers[*(const int *)y];
  if (length(a) != length(b)) return length(b) - length(a);
  return by_size(x, y);
}
static int by_area(const void *x, const void *y) {
  const buffer *a = &sort_buffers[*(const int *)x], *b = &sort_buffers[*(const int *)y];
  double p = (double)a->bytes * length(a), q = (double)b->bytes * length(b);
  return p != q ? (p < q ? 1 : -1) : by_size(x, y);
}
/* In the order of the schedule. */
static int by_start(const void *x, const void *y) {
  const buffer *a = &sort_buffers[*(const int *)x], *b = &sort_buffers[*(const int *)y];
  return a->first != b->first ? a->first - b->first : by_size(x, y);
}
/* From the schedule's end. */
static int by_end(const void *x, const void *y) {
  const buffer *a = &sort_buffers[*(const int *)x], *b = &sort_buffers[*(const int *)y];
  return a->last != b->last ? b->last - a->last : by_size(x, y);
}
/* Large ones by size, the crowd of small ones by length of life. */
static int by_class(const void *x, const void *y) {
  const buffer *a = &sort_buffers[*(const int *)x], *b = &sort_buffers[*(const int *)y];
  int p = 63 - __builtin_clzll(a->bytes | 1), q = 63 - __builtin_clzll(b->bytes | 1);
  return p != q ? q - p : by_duration(x, y);
}
static int by_offset(const void *x, const void *y) {
  const buffer *a = &sort_buffers[*(const int *)x], *b = &sort_buffers[*(const int *)y];
  if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
  return *(const int *)x - *(const int *)y;
}

/* Are both in use at some step? */
static bool meet(const buffer *a, const buffer *b) {
  return (a->last >= b->first && a->first <= b->last) || a->last >= b->again || b->last >= a->again;
}

/* Lowest offset for buffer v among the placed ones (sorted by offset). */
static size_t lowest_gap(const buffer *b, const int *placed, int n, int v) {
  size_t at = 0;
  for (int i = 0; i < n; i++) {
    const buffer *o = &b[placed[i]];
    if (!meet(o, &b[v])) continue;
    if (o->offset >= at + b[v].bytes) break;
    if (o->offset + o->bytes > at) at = o->offset + o->bytes;
  }
  return at;
}

/* Offsets of the n buffers in `order` by turns; bytes needed. placed: room for n. */
static size_t fit(buffer *b, const int *order, int n, int *placed, bool reuse) {
  size_t arena = 0;
  for (int i = 0; i < n; i++) {
    int v = order[i], at = i;
    b[v].offset = reuse ? lowest_gap(b, placed, i, v) : arena;
    if (b[v].offset + b[v].bytes > arena) arena = b[v].offset + b[v].bytes;
    while (at > 0 && by_offset(&placed[at - 1], &v) > 0) {
      placed[at] = placed[at - 1];
      at--;
    }
    placed[at] = v;
  }
  return arena;
}

static size_t most_alive(const buffer *b, const int *roots, int n, int n_steps, size_t *alive) {
  size_t most = 0;
  for (int i = 0; i < n; i++) {
    const buffer *x = &b[roots[i]];
    for (int t = x->first; t <= x->last; t++) alive[t] += x->bytes;
    for (int t = x->again; t <= n_steps; t++) alive[t] += x->bytes;
  }
  for (int t = 0; t <= n_steps; t++) most = alive[t] > most ? alive[t] : most;
  return most;
}

/* In use up to step `read` and from `made` on: always, if these meet. */
static buffer lasting_buffer(const dj__lasting *l, int n_steps, int root) {
  const bool always = l->made <= l->read + 1;
  return (buffer){.bytes = padded(l->bytes),
                  .last = always ? n_steps : l->read,
                  .again = always ? NEVER : l->made,
                  .root = root};
}

/* b: buffers of the values, then of what lasts. */
static dj_status place(const dj_graph *g, int n_steps, bool reuse, dj__lasting *lasting,
                       int n_lasting, dj__plan *p, buffer *b) {
  size_t room = (size_t)g->n_values + (size_t)n_lasting + 1;
  int *roots = malloc(room * 2 * sizeof *roots), *placed = roots + room, n = 0;
  size_t *alive = calloc((size_t)n_steps + 2, sizeof *alive), *best = malloc(room * sizeof *best);
  if (!roots || !alive || !best) {
    free(roots);
    free(alive);
    free(best);
    return dj_error(DJ_E_NOMEM, "compile: out of memory");
  }
  for (int v = 0; v < g->n_values; v++)
    if (p->place[v] == DJ__PLACE_ARENA && find(b, v) == v) roots[n++] = v;
  for (int i = 0; i < n_lasting; i++) {
    b[g->n_values + i] = lasting_buffer(&lasting[i], n_steps, g->n_values + i);
    roots[n++] = g->n_values + i;
  }
  p->lower_bound = most_alive(b, roots, n, n_steps, alive);
  static int (*const orders[])(const void *, const void *) = {by_size,     by_class, by_area,
                                                              by_duration, by_start, by_end};
  sort_buffers = b;
  sort_steps = n_steps;
  for (size_t k = 0; k < sizeof orders / sizeof *orders && (k == 0 || reuse); k++) {
    if (reuse) qsort(roots, (size_t)n, sizeof *roots, orders[k]);
    size_t arena = fit(b, roots, n, placed, reuse);
    if (k && arena >= p->arena) continue;
    p->arena = arena;
    for (int i = 0; i < n; i++) best[roots[i]] = b[roots[i]].offset;
    if (arena == p->lower_bound) break;
  }
  for (int v = 0; v < g->n_values; v++)
    if (p->place[v] == DJ__PLACE_ARENA) p->offset[v] = best[find(b, v)];
  for (int i = 0; i < n_lasting; i++) lasting[i].offset = best[g->n_values + i];
  free(roots);
  free(alive);
  free(best);
  return DJ_OK;
}

static dj_status plan(const dj_graph *g, const int *order, int n, takeover take, const bool *frozen,
                      dj__lasting *lasting, int n_lasting, dj__plan *p) {
  *p = (dj__plan){0};
  size_t values = (size_t)g->n_values + 1;
  p->place = calloc(values, sizeof *p->place);
  p->offset = calloc(values, sizeof *p->offset);
  p->source = calloc(values, sizeof *p->source);
  buffer *b = calloc(values + (size_t)n_lasting, sizeof *b);
  dj_status s = DJ_OK;
  if (!p->place || !p->offset || !p->source || !b) {
    s = dj_error(DJ_E_NOMEM, "compile: out of memory");
  } else {
    intervals(g, order, n, frozen, p, b);
    share(g, order, n, take, p, b);
    s = place(g, n, take, lasting, n_lasting, p, b);
  }
  free(b);
  if (s) dj__plan_free(p);
  return s;
}

/* A gradient that another op adds rows to in its place lives up to its update, where copies of the
 * weight need memory at once. So where the plan has gaps, the same is tried without. */
dj_status dj__pass_memory(const dj_graph *g, const int *order, int n, bool reuse,
                          const bool *frozen, dj__lasting *lasting, int n_lasting, dj__plan *p) {
  enum { SHARE = 20 }; // of the bytes alive: gaps that are many
  DJ_TRY(plan(g, order, n, reuse ? TAKE_ALL : TAKE_NOTHING, frozen, lasting, n_lasting, p));
  if (!reuse || p->arena - p->lower_bound <= p->lower_bound / SHARE) return DJ_OK;
  const size_t with = p->arena;
  dj__plan_free(p);
  DJ_TRY(plan(g, order, n, TAKE_VALUES, frozen, lasting, n_lasting, p));
  if (p->arena < with) return DJ_OK;
  dj__plan_free(p);
  return plan(g, order, n, TAKE_ALL, frozen, lasting, n_lasting, p);
}

void dj__plan_free(dj__plan *p) {
  free(p->place);
  free(p->offset);
  free(p->source);
  *p = (dj__plan){0};
}
