/*
 * Where the time of a training step goes, for people: totals by op and the slowest nodes. Rates are
 * from the cost table: arithmetic done, and bytes if each tensor is touched once; what a kernel
 * moves beyond that, or finds in a cache, is not in them.
 */
#include "cli/profile.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_NODES = 40, MOST_OPS = 128 };

typedef struct total {
  const char *op;
  int nodes;
  double seconds;
} total;

static int slower_node(const void *a, const void *b) {
  double x = ((const dj_node_report *)a)->seconds, y = ((const dj_node_report *)b)->seconds;
  return (x < y) - (x > y);
}
static int slower_total(const void *a, const void *b) {
  double x = ((const total *)a)->seconds, y = ((const total *)b)->seconds;
  return (x < y) - (x > y);
}

static void print_totals(FILE *out, const dj_node_report *node, int n, double all) {
  total t[MOST_OPS] = {{0}};
  int n_t = 0;
  for (int i = 0; i < n; i++) {
    int k = 0;
    while (k < n_t && strcmp(t[k].op, node[i].op) != 0) k++;
    if (k == MOST_OPS) continue;
    if (k == n_t) t[n_t++].op = node[i].op;
    t[k].nodes++;
    t[k].seconds += node[i].seconds;
  }
  qsort(t, (size_t)n_t, sizeof *t, slower_total);
  (void)fprintf(out, "%9s %6s %6s  op\n", "ms", "share", "nodes");
  for (int k = 0; k < n_t; k++)
    (void)fprintf(out, "%9.3f %5.1f%% %6d  %s\n", 1e3 * t[k].seconds, 100 * t[k].seconds / all,
                  t[k].nodes, t[k].op);
}

static void print_nodes(FILE *out, const dj_node_report *node, int n, double all) {
  char shape[DJ_SHAPE_TEXT];
  double rest = 0;
  (void)fprintf(out, "%9s %6s %8s %6s  %-18s %-34s result, label\n", "ms", "share", "GFLOP/s",
                "GB/s", "op", "kernel");
  for (int i = 0; i < n; i++) {
    const dj_node_report *r = &node[i];
    if (i >= MOST_NODES) {
      rest += r->seconds;
      continue;
    }
    double s = r->seconds > 0 ? r->seconds : 1e-9;
    (void)fprintf(out, "%9.3f %5.1f%% %8.1f %6.1f  %-18s %-34s %s %s %s\n", 1e3 * r->seconds,
                  100 * r->seconds / all, 1e-9 * r->flops / s, 1e-9 * r->bytes / s, r->op,
                  r->kernel, dj_dtype_name(r->dtype), dj_shape_text(&r->shape, shape, sizeof shape),
                  r->label);
  }
  if (n > MOST_NODES)
    (void)fprintf(out, "%9.3f %5.1f%%  the other %d nodes\n", 1e3 * rest, 100 * rest / all,
                  n - MOST_NODES);
}

void dj__print_profile(FILE *out, const dj_train_profile *p) {
  int n = dj_program_n_nodes(p->program);
  dj_node_report *node = calloc((size_t)n + 1, sizeof *node);
  if (!node) return;
  double all = 0;
  for (int i = 0; i < n; i++) {
    dj_program_node(p->program, i, &node[i]);
    all += node[i].seconds;
  }
  qsort(node, (size_t)n, sizeof *node, slower_node);
  (void)fprintf(out,
                "Mean of %d steps: %.2f ms, of which %.2f ms waiting for data and filling it in. "
                "One run of the program, %d nodes: %.2f ms.\n",
                p->steps, 1e3 * p->seconds, 1e3 * p->data_seconds, n, 1e3 * all);
  if (all <= 0) all = 1;
  print_totals(out, node, n, all);
  print_nodes(out, node, n, all);
  (void)fflush(out);
  free(node);
}

static bool is_product(const char *op) {
  return strcmp(op, "matmul") == 0 || strncmp(op, "conv2d", 6) == 0;
}

static bool same_work(const dj_node_report *a, const dj_node_report *b) {
  return strcmp(a->op, b->op) == 0 && a->dtype == b->dtype && a->flops == b->flops &&
         a->bytes == b->bytes && dj_shape_equal(&a->shape, &b->shape);
}

/* Nodes of one kind: the first one's index, how many, and their seconds in a step. */
typedef struct kind {
  dj_node_report first;
  int index, n;
  double seconds;
} kind;

static int kinds_of(const dj_program *p, kind *k, double *all) {
  int n = 0;
  *all = 0;
  for (int i = 0; i < dj_program_n_nodes(p); i++) {
    dj_node_report r;
    dj_program_node(p, i, &r);
    *all += r.seconds;
    if (!is_product(r.op)) continue;
    int j = 0;
    while (j < n && !same_work(&k[j].first, &r)) j++;
    if (j == n) k[n++] = (kind){.first = r, .index = i};
    k[j].n++;
    k[j].seconds += r.seconds;
  }
  return n;
}

dj_status dj__print_alone(FILE *out, dj_program *p) {
  const double span = 0.15; /* s for each */
  kind *k = calloc((size_t)dj_program_n_nodes(p) + 1, sizeof *k);
  if (!k) return dj_error(DJ_E_NOMEM, "no memory for the nodes' table");
  double all, sum[3] = {0}; /* s: in the step, alone, oneDNN's alone */
  dj_status s = DJ_OK;
  const int n = kinds_of(p, k, &all);
  (void)fprintf(out, "Products and convolutions, GFLOP/s:\n%9s %9s %9s %7s %6s\n", "in step",
                "alone", "oneDNN", "ratio", "nodes");
  for (int i = 0; i < n && !s; i++) {
    char shape[DJ_SHAPE_TEXT];
    double alone, other;
    const dj_node_report *r = &k[i].first;
    if (k[i].seconds < 0.01 * all) continue;
    s = dj_program_time_alone(p, k[i].index, NULL, span, &alone);
    if (!s) s = dj_program_time_alone(p, k[i].index, "onednn", span, &other);
    if (s) break;
    const double g = 1e-9 * r->flops, mean = k[i].seconds / k[i].n;
    (void)fprintf(out, "%9.1f %9.1f %9.1f %6.0f%% %6d  %-14s %-8.8s %s %s %s\n", g / mean,
                  g / alone, g / other, 100 * other / mean, k[i].n, r->op, r->kernel,
                  dj_dtype_name(r->dtype), dj_shape_text(&r->shape, shape, sizeof shape), r->label);
    sum[0] += k[i].seconds;
    sum[1] += alone * k[i].n;
    sum[2] += other * k[i].n;
  }
  if (sum[0] > 0 && !s)
    (void)fprintf(
        out,
        "Those of 1 %% of a step and more: %.2f ms in the step, %.2f alone, %.2f by oneDNN "
        "alone. In the step: %.0f %% of oneDNN's rate.\n",
        1e3 * sum[0], 1e3 * sum[1], 1e3 * sum[2], 100 * sum[2] / sum[0]);
  (void)fflush(out);
  free(k);
  return s;
}
