/*
 * Every gradient against finite differences, on every sample of the op table that is not for
 * benchmarks. The op's node is built in a graph, loss = sum(y * w) with fixed random w is
 * differentiated, and the result is compared with central differences of the same graph's forward
 * pass on the reference backend: along random directions through all inputs at once, through each
 * input alone, and along single elements.
 *
 * The reference computes in double and rounds its outputs to f32; the loss is summed in double
 * here. Differences are taken at h and h/2 and extrapolated (Richardson), so what is left is
 * O(h^4) and the rounding of y, 2^-24 |y| / h, which the tolerance contains. Where the two
 * differences disagree, or the second difference does not shrink with h, the function has a kink
 * between the points (a maximum that changes hands): the point is drawn anew. Only values of the
 * function decide that, never the gradient.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "dojo/ops.h"
#include "engine/graph.h"
#include "op_fixture.h"

static const double step = 2e-3, relative = 1e-3;
enum { DRAWS = 12, SINGLE = 4, JOINT = 3 };

static struct { int checks, failed, redrawn, samples, ops; } count;

/* One sample: the forward program, and values and analytic gradients of its inputs. */
typedef struct probe {
  dj__op op;
  const dj__op_def *def;
  const dj__sample *sample;
  dj_program *forward;
  int64_t n_y;
  float *w;                     // (n_y) weights of the loss
  float *x[DJ__SAMPLE_IN];      // values of f32 inputs, NULL for others
  float *g[DJ__SAMPLE_IN];      // gradients; zeros where the op gives none
  float *d[DJ__SAMPLE_IN];      // direction
  int64_t count[DJ__SAMPLE_IN]; // elements of f32 inputs, 0 for others
} probe;

static void name_input(char *buf, size_t size, int i) {
  (void)snprintf(buf, size, "x%d", i);
}

/* The node of the sample, its inputs as graph inputs; `in` gets their values. */
static dj_val build(dj_graph *g, const probe *p, dj_val *in) {
  for (int i = 0; i < p->sample->n_in; i++) {
    const dj_tensor *t = &p->sample->in[i];
    char name[16];
    name_input(name, sizeof name, i);
    in[i] = t->shape.rank < 0 ? DJ_NONE : dj_input(g, name, t->dtype, t->shape);
    if (t->shape.rank >= 0 && t->dtype == DJ_F32) dj_require_grad(g, in[i]);
  }
  return dj__emit(g, p->op, in, p->sample->n_in, p->sample->attr, p->sample->attr_size);
}

static dj_program *compile(dj_graph *g) {
  dj_program *program = NULL;
  dj_compile_options o = {.backend = "ref", .threads = 1, .passes_off = DJ_PASS_FUSION, .seed = 5};
  if (dj_program_compile(g, &o, NULL, &program)) fail_msg("%s", dj_error_message());
  return program;
}

static void load_inputs(dj_program *program, const probe *p, uint64_t draw) {
  for (int i = 0; i < p->sample->n_in; i++) {
    char name[16];
    name_input(name, sizeof name, i);
    dj_tensor *t = dj_program_input(program, name);
    if (!t) continue; // nothing reads it
    if (p->count[i])
      memcpy(t->data, p->x[i], dj_tensor_bytes(t));
    else
      fixture_fill(t, p->def, p->sample, i, draw);
  }
}

/* Draws the inputs and computes the analytic gradients at that point. */
static void differentiate(probe *p, uint64_t draw) {
  dj_graph *g = dj_graph_create();
  dj_val in[DJ__SAMPLE_IN];
  dj_val y = build(g, p, in);
  dj_val loss = dj_sum(g, dj_mul(g, y, dj_const_f32(g, p->w, dj_val_shape(g, y))), DJ_ALL_AXES);
  if (dj_graph_backward(g, loss)) fail_msg("%s: %s", p->def->name, dj_error_message());
  dj_output(g, "loss", loss);
  for (int i = 0; i < p->sample->n_in; i++) {
    char name[16];
    (void)snprintf(name, sizeof name, "g%d", i);
    if (p->count[i]) dj_output(g, name, dj_grad(g, in[i]));
  }
  dj_program *program = compile(g);
  for (int i = 0; i < p->sample->n_in; i++) {
    if (!p->count[i]) continue;
    dj_tensor t = {p->x[i], DJ_F32, p->sample->in[i].shape};
    fixture_fill(&t, p->def, p->sample, i, draw);
  }
  load_inputs(program, p, draw);
  if (dj_program_run(program, 3)) fail_msg("%s: %s", p->def->name, dj_error_message());
  for (int i = 0; i < p->sample->n_in; i++) {
    if (!p->count[i]) continue;
    char name[16];
    (void)snprintf(name, sizeof name, "g%d", i);
    const dj_tensor *t = dj_program_output(program, name);
    if (t)
      memcpy(p->g[i], t->data, dj_tensor_bytes(t));
    else
      memset(p->g[i], 0, (size_t)p->count[i] * sizeof *p->g[i]);
  }
  dj_program_destroy(program);
  dj_graph_destroy(g);
}

/* Loss at x + t d, and the rounding noise in it. */
static double loss_at(const probe *p, double t, double *noise) {
  for (int i = 0; i < p->sample->n_in; i++) {
    char name[16];
    name_input(name, sizeof name, i);
    dj_tensor *x = p->count[i] ? dj_program_input(p->forward, name) : NULL;
    for (int64_t k = 0; x && k < p->count[i]; k++)
      ((float *)x->data)[k] = (float)(p->x[i][k] + t * p->d[i][k]);
  }
  if (dj_program_run(p->forward, 3)) fail_msg("%s: %s", p->def->name, dj_error_message());
  const float *y = dj_program_output(p->forward, "y")->data;
  double sum = 0, squares = 0;
  for (int64_t k = 0; k < p->n_y; k++) {
    double v = (double)y[k] * p->w[k];
    sum += v;
    squares += v * v;
  }
  *noise = 0x1p-24 * sqrt(squares);
  return sum;
}

/* How far the loss is from a smooth function between x - t d and x + t d: the jump of the slope
 * there, 0 + O(t^2) where there is no kink. */
static double kink(const probe *p, double t) {
  double n, f = loss_at(p, 0, &n);
  double outer = (loss_at(p, t, &n) - 2 * f + loss_at(p, -t, &n)) / t;
  double inner = (loss_at(p, t / 2, &n) - 2 * f + loss_at(p, -t / 2, &n)) / (t / 2);
  return fabs(inner - outer / 2);
}

/* Central difference at t, and what the gradient says of the very same step: the points are rounded
 * to f32, so the step is not exactly 2 t d. */
static double difference(const probe *p, double t, double *expected, double *scale, double *noise) {
  double n0, n1;
  double diff = loss_at(p, t, &n0) - loss_at(p, -t, &n1), sum = 0, squares = 0;
  for (int i = 0; i < p->sample->n_in; i++)
    for (int64_t k = 0; k < p->count[i]; k++) {
      double dx = (double)(float)(p->x[i][k] + t * p->d[i][k]) -
                  (double)(float)(p->x[i][k] - t * p->d[i][k]);
      double v = p->g[i][k] * dx;
      sum += v;
      squares += v * v;
    }
  *expected = sum / (2 * t);
  *scale = sqrt(squares) / (2 * t);
  *noise = (n0 + n1) / (2 * t);
  return diff / (2 * t);
}

/* Checks along the direction in p->d; false if there is a kink on the way. */
static bool check_direction(const probe *p, const char *what) {
  double e1, e2, s1, s2, n1, n2;
  double d1 = difference(p, step, &e1, &s1, &n1), d2 = difference(p, step / 2, &e2, &s2, &n2);
  double scale = fmax(s2, fmax(fabs(e2), fabs(d2)));
  double limit = relative * scale + 8 * (n1 + n2);
  if (fabs((d1 - e1) - (d2 - e2)) > limit || kink(p, step) > limit) return false;
  double error = (4 * (d2 - e2) - (d1 - e1)) / 3, allowed = limit;
  count.checks++;
  if (fabs(error) <= allowed) return true;
  count.failed++;
  print_message("%s, sample '%s', %s: gradient %.8g, finite difference %.8g, allowed difference "
                "%.2g\n",
                p->def->name, p->sample->label, what, e2, e2 + error, allowed);
  return true;
}

static void clear_direction(probe *p) {
  for (int i = 0; i < p->sample->n_in; i++)
    if (p->count[i]) memset(p->d[i], 0, (size_t)p->count[i] * sizeof *p->d[i]);
}

static void random_direction(probe *p, dj__rng *r, int input) {
  for (int64_t k = 0; k < p->count[input]; k++) p->d[input][k] = dj__rng_uniform(r, -1, 1);
}

/* All directions of a point; false where a kink is met. */
static bool check_point(probe *p, dj__rng *r) {
  for (int j = 0; j < JOINT; j++) {
    for (int i = 0; i < p->sample->n_in; i++) random_direction(p, r, i);
    if (!check_direction(p, "all inputs")) return false;
  }
  for (int i = 0; i < p->sample->n_in; i++) {
    char what[64];
    if (!p->count[i]) continue;
    clear_direction(p);
    random_direction(p, r, i);
    (void)snprintf(what, sizeof what, "input %d", i);
    if (!check_direction(p, what)) return false;
    for (int k = 0; k < SINGLE; k++) {
      clear_direction(p);
      int64_t at = (int64_t)dj__rng_below(r, (uint64_t)p->count[i]);
      p->d[i][at] = 1;
      (void)snprintf(what, sizeof what, "input %d element %lld", i, (long long)at);
      if (!check_direction(p, what)) return false;
    }
  }
  return true;
}

static void open_probe(probe *p, dj__op op, const dj__sample *s) {
  *p = (probe){.op = op, .def = dj__op_get(op), .sample = s};
  dj_graph *g = dj_graph_create();
  dj_val in[DJ__SAMPLE_IN];
  dj_val y = build(g, p, in);
  dj_output(g, "y", y);
  if (dj_graph_status(g)) fail_msg("%s", dj_error_message());
  dj_shape shape = dj_val_shape(g, y);
  p->n_y = dj_shape_count(&shape);
  p->forward = compile(g);
  dj_graph_destroy(g);
  dj__rng r = {.key = 11, .stream = (uint64_t)op};
  p->w = fixture_alloc((size_t)p->n_y * sizeof *p->w);
  for (int64_t k = 0; k < p->n_y; k++) p->w[k] = dj__rng_uniform(&r, -1, 1);
  for (int i = 0; i < s->n_in; i++) {
    if (s->in[i].shape.rank < 0 || s->in[i].dtype != DJ_F32) continue;
    p->count[i] = dj_shape_count(&s->in[i].shape);
    size_t bytes = (size_t)p->count[i] * sizeof(float);
    p->x[i] = fixture_alloc(bytes);
    p->g[i] = fixture_alloc(bytes);
    p->d[i] = fixture_alloc(bytes);
  }
}

static void close_probe(probe *p) {
  dj_program_destroy(p->forward);
  free(p->w);
  for (int i = 0; i < DJ__SAMPLE_IN; i++) {
    free(p->x[i]);
    free(p->g[i]);
    free(p->d[i]);
  }
}

/* Fused epilogues and rounded inputs come after differentiation; bf16 steps are no function to
 * differentiate. */
static bool differentiable(dj__op op, const dj__sample *s) {
  if (s->bench) return false;
  if (op == DJ__OP_matmul) {
    const dj__matmul_attr *a = s->attr;
    if (a->post.bias || a->post.act || a->rounds) return false;
  }
  if (op == DJ__OP_conv2d || op == DJ__OP_conv2d_data) {
    const dj__conv_attr *a = s->attr;
    if (a->post.act || a->post.bias || a->rounds) return false;
  }
  fixture f;
  bool any = false;
  assert_int_equal(fixture_shape(&f, op, s, 0), DJ_OK);
  for (int i = 0; i < s->n_in; i++) any |= s->in[i].shape.rank >= 0 && s->in[i].dtype == DJ_F32;
  return any && f.out[0].dtype == DJ_F32;
}

static void check_sample(dj__op op, const dj__sample *s) {
  probe p;
  open_probe(&p, op, s);
  bool smooth = false;
  for (uint64_t draw = 0; draw < DRAWS && !smooth; draw++) {
    dj__rng r = {.key = 17 + draw, .stream = (uint64_t)op};
    differentiate(&p, draw);
    load_inputs(p.forward, &p, draw);
    smooth = check_point(&p, &r);
    count.redrawn += !smooth;
  }
  if (!smooth) {
    count.failed++;
    print_message("%s, sample '%s': not smooth at any of %d points\n", p.def->name, s->label,
                  DRAWS);
  }
  count.samples++;
  close_probe(&p);
}

static void test_every_gradient(void **state) {
  (void)state;
  for (int op = 0; op < DJ__N_OPS; op++) {
    const dj__op_def *def = dj__op_get((dj__op)op);
    if (def->grad == DJ__NO_GRAD) continue;
    int before = count.samples;
    for (int i = 0; i < def->n_samples; i++)
      if (differentiable((dj__op)op, &def->samples[i])) check_sample((dj__op)op, &def->samples[i]);
    if (count.samples == before) {
      count.failed++;
      print_message("%s has a gradient and no sample to check it on\n", def->name);
    }
    count.ops++;
  }
  print_message("%d checks of the gradients of %d ops on %d samples, %d points drawn anew, %d "
                "failures\n",
                count.checks, count.ops, count.samples, count.redrawn, count.failed);
  assert_int_equal(count.failed, 0);
  assert_true(count.checks > 2000);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_gradient)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
