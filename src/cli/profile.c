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

dj_status dj__print_alone(FILE *out, dj_program *p) {
  const double span = 0.1; /* s for each */
  const int n = dj_program_n_nodes(p);
  dj_node_report r;
  double all = 0, sum[3] = {0}; /* s: in the step, alone, oneDNN's */
  for (int i = 0; i < n; i++) {
    dj_program_node(p, i, &r);
    all += r.seconds;
  }
  (void)fprintf(out, "%9s %9s %9s %7s  of products and convolutions, GFLOP/s\n", "in step", "alone",
                "oneDNN", "ratio");
  for (int i = 0; i < n; i++) {
    char shape[DJ_SHAPE_TEXT];
    double alone, other;
    dj_program_node(p, i, &r);
    if (!is_product(r.op) || r.seconds < 0.01 * all) continue;
    DJ_TRY(dj_program_time_alone(p, i, NULL, span, &alone));
    DJ_TRY(dj_program_time_alone(p, i, "onednn", span, &other));
    const double g = 1e-9 * r.flops;
    (void)fprintf(out, "%9.1f %9.1f %9.1f %6.0f%%  %-14s %-14.14s %s %s %s\n", g / r.seconds,
                  g / alone, g / other, 100 * other / r.seconds, r.op, r.kernel,
                  dj_dtype_name(r.dtype), dj_shape_text(&r.shape, shape, sizeof shape), r.label);
    sum[0] += r.seconds;
    sum[1] += alone;
    sum[2] += other;
  }
  if (sum[0] > 0)
    (void)fprintf(out,
                  "All of them: %.2f ms in the step, %.2f alone, %.2f with oneDNN alone: in the "
                  "step %.0f %% of oneDNN's rate.\n",
                  1e3 * sum[0], 1e3 * sum[1], 1e3 * sum[2], 100 * sum[2] / sum[0]);
  (void)fflush(out);
  return DJ_OK;
}
