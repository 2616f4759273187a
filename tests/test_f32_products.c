/*
 * Products of f32 keep f32's accuracy on every kernel: those made of bf16 limbs (amx/) err no more
 * than ordinary ones, on numbers of very different size; infinities, NaN, numbers near the largest
 * and tiny ones come out as they should. The truth is summed in double here, beside the sum of
 * |a| |b|, which is what an error is measured by.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <float.h>

#include "backend/cpu/cpu.h"
#include "engine/backend.h"
#include "engine/ops/basic.h"
#include "engine/ops/common.h"
#include "op_fixture.h"

/* A product: its call, the truth, and what an error is measured by. */
typedef struct product {
  fixture f;
  double *truth, *size;
  int64_t count, depth; // of results; summands of one, at most
} product;

static void add(product *p, int64_t to, float a, float b) {
  p->truth[to] += (double)a * (double)b;
  p->size[to] += fabs((double)a * (double)b);
}

static void true_matmul(product *p) {
  const dj__matmul_attr *at = p->f.call.attr;
  const float *a = p->f.in[0].data, *b = p->f.in[1].data;
  const int64_t m = p->f.out[0].shape.dim[0], n = p->f.out[0].shape.dim[1],
                k = p->f.in[0].shape.dim[at->ta ? 0 : 1];
  p->depth = k;
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++)
      for (int64_t d = 0; d < k; d++)
        add(p, i * n + j, at->ta ? a[d * m + i] : a[i * k + d],
            at->tb ? b[j * k + d] : b[d * n + j]);
}

/* All three convolutions are the same triples of numbers, summed by another of the three. */
static void true_conv(product *p) {
  const dj__conv_attr *at = p->f.call.attr;
  const bool forward = p->f.call.op == DJ__OP_conv2d, data = p->f.call.op == DJ__OP_conv2d_data;
  const dj_tensor *x = data ? &p->f.out[0] : &p->f.in[0],
                  *w = forward || data ? &p->f.in[1] : &p->f.out[0],
                  *y = forward ? &p->f.out[0]
                       : data  ? &p->f.in[0]
                               : &p->f.in[1];
  const int64_t *xd = x->shape.dim, *yd = y->shape.dim, *wd = w->shape.dim;
  const float *xs = x->data, *ys = y->data, *ws = w->data;
  p->depth = forward ? wd[1] * wd[2] * wd[3] : data ? wd[1] * wd[2] * wd[0] : yd[0] * yd[1] * yd[2];
  const int64_t taps = wd[1] * wd[2], pixels = yd[0] * yd[1] * yd[2];
  for (int64_t q = 0; q < pixels * taps; q++) {
    const int64_t v = q / taps, ky = q % taps / wd[2], kx = q % wd[2];
    const int64_t iy = v / yd[2] % yd[1] * at->stride[0] + ky - at->pad[0],
                  ix = v % yd[2] * at->stride[1] + kx - at->pad[1];
    if (iy < 0 || iy >= xd[1] || ix < 0 || ix >= xd[2]) continue;
    const int64_t at_x = ((v / yd[2] / yd[1] * xd[1] + iy) * xd[2] + ix) * xd[3];
    for (int64_t o = 0; o < yd[3]; o++)
      for (int64_t c = 0; c < xd[3]; c++) {
        const int64_t iw = ((o * wd[1] + ky) * wd[2] + kx) * xd[3] + c, iy_ = v * yd[3] + o;
        if (forward) add(p, iy_, xs[at_x + c], ws[iw]);
        if (data) add(p, at_x + c, ys[iy_], ws[iw]);
        if (!forward && !data) add(p, iw, xs[at_x + c], ys[iy_]);
      }
  }
}

/* ---- numbers ---- */
/* Normal numbers of either sign between 2^-spread and 2^spread. */
static void fill(dj_tensor *t, int spread, uint64_t stream) {
  dj__rng r = {.key = 11, .stream = stream};
  for (int64_t i = 0, n = dj_shape_count(&t->shape); i < n; i++) {
    const float size = dj__rng_uniform(&r, 1, 2), side = dj__rng_uniform(&r, -1, 1);
    const int power = (int)dj__rng_below(&r, 2 * (uint64_t)spread + 1) - spread;
    ((float *)t->data)[i] = ldexpf(side < 0 ? -size : size, power);
  }
}

static void make(product *p, dj__op op, const dj__sample *s, int spread) {
  *p = (product){0};
  assert_int_equal(fixture_shape(&p->f, op, s, 0), DJ_OK);
  fixture_make(&p->f, dj__op_get(op), s);
  for (int i = 0; i < p->f.call.n_in; i++) fill(&p->f.in[i], spread, (uint64_t)i);
  p->count = dj_shape_count(&p->f.out[0].shape);
}

static void find_truth(product *p) {
  p->truth = calloc((size_t)p->count, sizeof(double));
  p->size = calloc((size_t)p->count, sizeof(double));
  if (!p->truth || !p->size) abort();
  if (p->f.call.op == DJ__OP_matmul)
    true_matmul(p);
  else
    true_conv(p);
}

static void drop(product *p) {
  fixture_free(&p->f);
  free(p->truth);
  free(p->size);
}

/* Runs the product; false where this machine has no kernel of that set for it. */
static bool run_on(product *p, const char *isa, int threads) {
  const dj__backend *cpu = dj__backend_find("cpu");
  const dj__backend_options o = {.threads = threads, .isa = isa};
  dj__kernel k = {0};
  dj__call *c = &p->f.call;
  c->threads = threads;
  if (!cpu->supports(c, &o)) return false;
  assert_int_equal(cpu->create(c, &o, &k), DJ_OK);
  const bool limbs = !strcmp(isa, "amx");
  if (limbs) assert_string_equal(k.name, "amx"); // not another kernel's accuracy
  c->workspace = fixture_alloc(k.workspace);
  memset(c->workspace, 0xff, k.workspace);
  memset(p->f.out[0].data, 0xff, dj_tensor_bytes(&p->f.out[0]));
  assert_int_equal(k.run(c, k.self), DJ_OK);
  assert_true(fixture_guard_whole(c->workspace, k.workspace));
  free(c->workspace);
  if (k.destroy) k.destroy(k.self);
  return true;
}

/* ---- accuracy ---- */
typedef struct error {
  double most, mean;
} error;

static error error_of(const product *p) {
  error e = {0, 0};
  for (int64_t i = 0; i < p->count; i++) {
    const double size = p->size[i] > 0 ? p->size[i] : 1;
    const double one = fabs((double)((const float *)p->f.out[0].data)[i] - p->truth[i]) / size;
    assert_true(one >= 0 && one < 1); // no NaN
    e.mean += one / (double)p->count;
    if (one > e.most) e.most = one;
  }
  return e;
}

static void check_accuracy(dj__op op, const dj__sample *s, int spread) {
  product p;
  make(&p, op, s, spread);
  find_truth(&p);
  if (run_on(&p, "amx", 2)) {
    const error ours = error_of(&p);
    assert_true(run_on(&p, "avx512", 2));
    const error others = error_of(&p);
    /* Where a few products are 2^60 times the others, all that counts is how often a sum is rounded
       behind them, which oneDNN's blocks of depth do less often. */
    const double factor = spread > 20 ? 2 : 1;
    if (ours.most > factor * others.most + 0x1p-23 || ours.mean > factor * others.mean + 0x1p-28)
      fail_msg("%s, sample '%s', sizes 2^+-%d: largest error %.3g, mean %.3g; ordinary kernel "
               "%.3g, %.3g",
               dj__op_get(op)->name, s->label, spread, ours.most, ours.mean, others.most,
               others.mean);
  }
  drop(&p);
}

#define MM(ta, tb) DJ__ATTR_OF(dj__matmul_attr, ta, tb, 0, {0, 0})
static const dj__sample products[] = {
    {"plain", 2, {DJ__F32(70, 530), DJ__F32(530, 75)}, MM(0, 0)},
    {"a turned", 2, {DJ__F32(530, 70), DJ__F32(530, 75)}, MM(1, 0)},
    {"b turned", 2, {DJ__F32(70, 530), DJ__F32(75, 530)}, MM(0, 1)},
    {"both turned", 2, {DJ__F32(530, 70), DJ__F32(75, 530)}, MM(1, 1)},
    {"one summand", 2, {DJ__F32(40, 1), DJ__F32(1, 40)}, MM(0, 0)},
    {"deep", 2, {DJ__F32(33, 5000), DJ__F32(5000, 40)}, MM(0, 0)},
};
#define BY(n)                                                                                      \
  {                                                                                                \
    .stride = {n, n}, .pad = {1, 1, 1, 1}, .dilation = {1, 1}, .groups = 1, .in_h = 9, .in_w = 16, \
    .kh = 3, .kw = 3                                                                               \
  }
static const dj__conv_attr by_one = BY(1), by_two = BY(2);
enum { C1 = 24, C2 = 64, O = 40 };
static const dj__sample forwards[] = {
    {"24 channels", 2, {DJ__F32(3, 9, 16, C1), DJ__F32(O, 3, 3, C1)}, DJ__ATTR(by_one)},
    {"64 channels", 2, {DJ__F32(3, 9, 16, C2), DJ__F32(O, 3, 3, C2)}, DJ__ATTR(by_one)},
    {"stride 2", 2, {DJ__F32(3, 9, 16, C2), DJ__F32(O, 3, 3, C2)}, DJ__ATTR(by_two)},
};
static const dj__sample datas[] = {
    {"24 channels", 2, {DJ__F32(3, 9, 16, O), DJ__F32(O, 3, 3, C1)}, DJ__ATTR(by_one)},
    {"64 channels", 2, {DJ__F32(3, 9, 16, C2), DJ__F32(C2, 3, 3, C2)}, DJ__ATTR(by_one)},
    {"stride 2", 2, {DJ__F32(3, 5, 8, O), DJ__F32(O, 3, 3, C2)}, DJ__ATTR(by_two)},
};
static const dj__sample weights[] = {
    {"24 channels", 2, {DJ__F32(3, 9, 16, C1), DJ__F32(3, 9, 16, O)}, DJ__ATTR(by_one)},
    {"64 channels", 2, {DJ__F32(3, 9, 16, C2), DJ__F32(3, 9, 16, O)}, DJ__ATTR(by_one)},
    {"stride 2", 2, {DJ__F32(3, 9, 16, C2), DJ__F32(3, 5, 8, O)}, DJ__ATTR(by_two)},
};
#define COUNT(a) (int)(sizeof(a) / sizeof *(a))

/* Calls fn(op, sample, x) for every product above. */
static void for_all(void (*fn)(dj__op, const dj__sample *, int), int x) {
  for (int i = 0; i < COUNT(products); i++) fn(DJ__OP_matmul, &products[i], x);
  for (int i = 0; i < COUNT(forwards); i++) fn(DJ__OP_conv2d, &forwards[i], x);
  for (int i = 0; i < COUNT(datas); i++) fn(DJ__OP_conv2d_data, &datas[i], x);
  for (int i = 0; i < COUNT(weights); i++) fn(DJ__OP_conv2d_weight, &weights[i], x);
}

static void errors_are_those_of_f32(void **state) {
  (void)state;
  const int spreads[] = {0, 8, 30};
  for (int i = 0; i < 3; i++) for_all(check_accuracy, spreads[i]);
}

/* ---- numbers out of the ordinary ---- */
/* Results must be what the sum in double says: infinite, NaN, or near. With infinities and NaN
 * beside them convolutions may say NaN: they multiply neighbours by 0, too. What is not finite
 * never becomes finite. */
static void check_results(const product *p, const char *what, const char *isa) {
  const float *got = p->f.out[0].data;
  bool any = false;
  for (int k = 0; k < 2; k++)
    for (int64_t i = 0, n = dj_shape_count(&p->f.in[k].shape); i < n; i++)
      any |= !isfinite(((const float *)p->f.in[k].data)[i]);
  const bool may_be_nan = any && p->f.call.op != DJ__OP_matmul;
  for (int64_t i = 0; i < p->count; i++) {
    const double want = p->truth[i], allowed = 0x1p-18 * p->size[i] + (double)p->depth * 0x1p-124;
    const bool fine = may_be_nan && isnan(got[i]) ? true
                      : isnan(want)               ? isnan(got[i])
                      : isinf(want)               ? (double)got[i] == want
                                                  : fabs((double)got[i] - want) <= allowed;
    if (!fine)
      fail_msg("%s, %s on %s: element %lld is %.9g, not %.9g", dj__op_get(p->f.call.op)->name, what,
               isa, (long long)i, (double)got[i], want);
  }
}

static void check_special(dj__op op, const dj__sample *s, int kind) {
  static const char *const names[] = {"infinities", "NaN", "large numbers", "tiny numbers"};
  product p;
  make(&p, op, s, 3);
  for (int i = 0; i < 2; i++) {
    float *x = p.f.in[i].data;
    const int64_t n = dj_shape_count(&p.f.in[i].shape);
    dj__rng r = {.key = 5, .stream = (uint64_t)i};
    if (kind == 0 && i == 0) x[n / 3] = INFINITY, x[n / 2] = -INFINITY;
    if (kind == 1 && i == 1) x[n / 3] = NAN;
    for (int64_t j = 0; kind == 2 && j < n; j++) // FLT_MAX times numbers that keep sums finite
      x[j] = i == 0 ? j % 5 ? 0x1p100f : -FLT_MAX : ldexpf(x[j], -16);
    for (int64_t j = 0; kind == 3 && j < n; j++)
      x[j] = ldexpf(dj__rng_uniform(&r, -1, 1), i == 0 ? -(int)dj__rng_below(&r, 150) : 0);
  }
  find_truth(&p);
  const char *const sets[] = {"amx", "avx512"};
  for (int i = 0; i < 2; i++)
    for (int threads = 1; threads <= 2; threads++)
      if (run_on(&p, sets[i], threads)) check_results(&p, names[kind], sets[i]);
  drop(&p);
}

static void special_numbers(void **state) {
  (void)state;
  for (int kind = 0; kind < 4; kind++) for_all(check_special, kind);
}

/* An infinite sum goes through the activation like any other. */
static void activations_of_infinities(void **state) {
  (void)state;
  const struct {
    unsigned char act;
    float high, low;
  } acts[] = {{DJ__OP_relu, INFINITY, 0}, {DJ__OP_sigmoid, 1, 0}, {DJ__OP_tanh, 1, -1}};
  for (int i = 0; i < 3; i++) {
    const dj__matmul_attr attr = {false, true, 0, {true, acts[i].act}};
    const dj__sample s = {"", 3, {DJ__F32(40, 64), DJ__F32(40, 64), DJ__F32(40)}, DJ__ATTR(attr)};
    product p;
    make(&p, DJ__OP_matmul, &s, 0);
    float *a = p.f.in[0].data, *b = p.f.in[1].data, *out = p.f.out[0].data;
    a[3 * 64 + 17] = INFINITY;
    a[35 * 64 + 2] = NAN;
    if (run_on(&p, "amx", 2))
      for (int64_t j = 0; j < 40; j++) {
        assert_true(out[3 * 40 + j] == (b[j * 64 + 17] > 0 ? acts[i].high : acts[i].low));
        assert_true(isnan(out[35 * 40 + j]));
        assert_true(isfinite(out[34 * 40 + j]));
      }
    drop(&p);
  }
}

int main(void) {
  dj__worth_threads = 0; // the samples are small: on every kernel all the same
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(errors_are_those_of_f32),
      cmocka_unit_test(special_numbers),
      cmocka_unit_test(activations_of_infinities),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
