/*
 * The CPU backend: which kernel runs which op, and memory.
 *
 * Matrix products and convolutions are oneDNN's where it has a fast implementation for the call
 * (but see prefer_own); everything else is our own, in the best instruction set the processor has
 * (or the one asked for). What neither has falls back to the reference kernel (by the program, see
 * backend.h).
 */
#include <cpuid.h>
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend/cpu/cpu.h"
#include "engine/attrs.h"

enum { HUGE_PAGE = DJ__LATE_BYTES };

int64_t dj__worth_threads = 1 << 17;

static bool has_avx2(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static bool has_avx512(void) {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512cd");
}

/* Tiles of bf16. The system must be asked before their registers are touched (Linux:
 * ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA); threads made later inherit the right. */
static bool has_amx(void) {
#if defined DJ_HAVE_AMX
  static int known; /* 0: not asked yet, 1: no, 2: yes */
  int state = __atomic_load_n(&known, __ATOMIC_ACQUIRE);
  if (!state) {
    unsigned a, b, c, d = 0;
    const bool tiles = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1u) && (d >> 24 & 1u);
    const bool here = tiles && has_avx512() && __builtin_cpu_supports("avx512bf16");
    state = here && syscall(SYS_arch_prctl, 0x1023, 18) == 0 ? 2 : 1;
    __atomic_store_n(&known, state, __ATOMIC_RELEASE);
  }
  return state == 2;
#else
  return false;
#endif
}

const dj__own *dj__amx_find(const dj__call *c, const char *isa) {
#if defined DJ_HAVE_AMX
  if ((isa && strcmp(isa, "amx") != 0) || !has_amx()) return NULL;
  const dj__own *own = NULL;
  if (c->op == DJ__OP_matmul) own = &dj__amx_matmul;
  if (c->op == DJ__OP_conv2d || c->op == DJ__OP_conv2d_data) own = &dj__amx_conv2d;
  if (c->op == DJ__OP_conv2d_weight) own = &dj__amx_conv2d_weight;
  if (c->op == DJ__OP_attention) own = &dj__amx_attention;
  if (c->op == DJ__OP_attention_grad) own = &dj__amx_attention_grad;
  return own && own->supports(c) ? own : NULL;
#else
  (void)c, (void)isa;
  return NULL;
#endif
}

/* Kernels of oneDNN wherever it has one, the best of ours elsewhere: to measure ours against. */
static bool library_first(const char *isa) {
  return isa && strcmp(isa, "onednn") == 0;
}

const dj__kernels *dj__kernels_find(const char *isa) {
  __builtin_cpu_init();
  if (library_first(isa)) isa = NULL;
  if (isa && strcmp(isa, "amx") == 0) {
    if (has_amx()) return &dj__kernels_avx512;
    dj_error(DJ_E_UNSUPPORTED, "this processor (or system) has no AMX; choose avx512 or less");
    return NULL;
  }
  if (!isa)
    return has_avx512() ? &dj__kernels_avx512
           : has_avx2() ? &dj__kernels_avx2
                        : &dj__kernels_generic;
  bool known = true, here = false;
  const dj__kernels *k = &dj__kernels_generic;
  if (strcmp(isa, "generic") == 0)
    here = true;
  else if (strcmp(isa, "avx2") == 0)
    k = &dj__kernels_avx2, here = has_avx2();
  else if (strcmp(isa, "avx512") == 0)
    k = &dj__kernels_avx512, here = has_avx512();
  else
    known = false;
  if (here) return k;
  dj_error(known ? DJ_E_UNSUPPORTED : DJ_E_INVALID,
           known ? "this processor has no %s; choose generic, or nothing for the best"
                 : "unknown instruction set \"%s\"; choose generic, avx2, avx512, amx or onednn",
           isa);
  return NULL;
}

/* The call as the kernel will get it: with the number of threads of the program. */
static dj__call with_threads(const dj__call *c, const dj__backend_options *o) {
  dj__call call = *c;
  call.threads = o->threads > 0 ? o->threads : 1;
  return call;
}

static const dj__own *own_kernel(const dj__call *c, const dj__kernels *k) {
  const dj__own *own = &k->op[c->op];
  if (!own->run || (own->supports && !own->supports(c))) return NULL;
  return own;
}

/* Gradients of convolution weights are ours: as fast as oneDNN's alone on a machine, and not slowed
 * down tenfold beside other programs as those are (their threads wait for each other in a loop);
 * and the same to the bit for any number of threads. See docs/performance.md. */
static bool prefer_own(const dj__call *c, const dj__kernels *k) {
  if (c->op == DJ__OP_matmul) return own_kernel(c, k) != NULL; /* few rows */
  return c->op == DJ__OP_conv2d_weight && own_kernel(c, k);
}

/* Does each place lie `step` behind the one before, within groups? */
static bool in_steps(const int32_t *place, int64_t n, int64_t group, int32_t step) {
  for (int64_t i = 1; i < n; i++)
    if (i % group && place[i] - place[i - 1] != step) return false;
  return true;
}

/* A kernel that says `whole` has a place beside every element of an odd last row, which is to be 0.
 */
void dj__layout_finish(dj__layout *l) {
  const int32_t *row = l->place, *col = row + l->rows + l->taps;
  const bool half = l->dtype == DJ_BF16, paired = l->rows % 2 == 0 || l->whole;
  l->form = DJ__FORM_NUMBERS;
  l->whole = l->whole || l->count == l->rows * l->taps * l->cols;
  if (in_steps(row, l->rows, DJ__RUN, half ? 2 : 1) &&
      (!half || (l->cols % 2 == 0 && in_steps(col, l->cols, 2, 1))))
    l->form = DJ__FORM_TURNED;
  else if (half && paired && in_steps(row, l->rows, 2, 1) && in_steps(col, l->cols, DJ__RUN, 2))
    l->form = DJ__FORM_PAIRS;
  else if (half && in_steps(col, l->cols, l->cols, 1))
    l->form = DJ__FORM_ROWS;
  l->unit = l->form == DJ__FORM_TURNED ? DJ__RUN : l->form == DJ__FORM_PAIRS ? 2 : 1;
}

dj__layout *dj__layout_of_rows(const dj_shape *s) {
  const int64_t rows = s->dim[0], count = dj_shape_count(s), cols = rows ? count / rows : 0;
  dj__layout *l =
      count > INT32_MAX ? NULL : malloc(sizeof *l + (size_t)(rows + 1 + cols) * sizeof l->place[0]);
  if (!l) return NULL;
  *l = (dj__layout){.rows = rows, .taps = 1, .cols = cols, .count = count, .dtype = DJ_BF16};
  for (int64_t i = 0; i < rows; i++) l->place[i] = (int32_t)(i * cols);
  l->place[rows] = 0;
  for (int64_t i = 0; i < cols; i++) l->place[rows + 1 + i] = (int32_t)i;
  dj__layout_finish(l);
  return l;
}

/* A matrix product of ours that would round its weight, and reads a bf16 copy instead. */
typedef struct reader {
  const dj__own *own;
  dj__layout *layout;
} reader;

static void reader_destroy(void *self) {
  free(((reader *)self)->layout);
  free(self);
}
static dj__call reader_call(const dj__call *c, dj_tensor in[3]) {
  dj__call call = *c;
  for (int i = 0; i < c->n_in; i++) in[i] = c->in[i];
  in[1] = (dj_tensor){(void *)c->packed, DJ_BF16, in[1].shape}; /* never written */
  call.in = in;
  return call;
}
static dj_status reader_run(const dj__call *c, void *self) {
  dj_tensor in[3];
  const dj__call call = reader_call(c, in);
  return ((reader *)self)->own->run(&call, NULL);
}

/* False: not such a product, or memory is out. */
static bool reader_create(const dj__call *c, const dj__kernels *k, dj__kernel *out) {
  if (!c->keeps || c->op != DJ__OP_matmul || c->in[1].dtype != DJ_F32 ||
      !(((const dj__matmul_attr *)c->attr)->rounds >> 1 & 1u))
    return false;
  dj_tensor in[3];
  const dj__call call = reader_call(c, in);
  reader *r = malloc(sizeof *r);
  if (!r) return false;
  *r = (reader){own_kernel(&call, k), dj__layout_of_rows(&c->in[1].shape)};
  if (!r->own || !r->layout) {
    reader_destroy(r);
    return false;
  }
  *out = (dj__kernel){.run = reader_run,
                      .destroy = reader_destroy,
                      .self = r,
                      .workspace = r->own->workspace ? r->own->workspace(&call) : 0,
                      .name = k->isa,
                      .layout = r->layout};
  return true;
}

static bool supports(const dj__call *c, const dj__backend_options *o) {
  const dj__kernels *k = dj__kernels_find(o->isa);
  if (!k) return false;
  dj__call call = with_threads(c, o);
  return dj__amx_find(&call, o->isa) || dj__onednn_supports(&call, call.threads) ||
         own_kernel(&call, k) != NULL;
}

static int usable_cores(void) {
  int n = omp_get_num_procs();
  return n > 1 ? n : 1;
}

/* Touches every page of huge pages first, first + step, ... */
typedef struct touching {
  char *p;
  size_t size;
  int64_t first, step;
} touching;

static void *touch(void *arg) {
  const touching *t = arg;
  const size_t page = 4096;
  for (size_t from = (size_t)t->first * HUGE_PAGE; from < t->size;
       from += (size_t)t->step * HUGE_PAGE)
    for (size_t i = from; i < t->size && i < from + HUGE_PAGE; i += page)
      ((volatile char *)t->p)[i] = 0;
  return NULL;
}

/* By all cores. Threads of their own: OpenMP's would be missing in a child of fork. */
static void touch_all(char *p, size_t size) {
  enum { MOST = 16 };
  const int64_t huge = (int64_t)((size + HUGE_PAGE - 1) / HUGE_PAGE);
  int n = usable_cores();
  n = n > MOST ? MOST : n;
  n = n > huge ? (int)huge : n;
  touching part[MOST];
  pthread_t thread[MOST];
  bool started[MOST] = {false};
  for (int i = 0; i < n; i++) {
    part[i] = (touching){p, size, i, n};
    started[i] = i > 0 && pthread_create(&thread[i], NULL, touch, &part[i]) == 0;
  }
  for (int i = 0; i < n; i++)
    if (!started[i]) touch(&part[i]);
  for (int i = 0; i < n; i++)
    if (started[i]) pthread_join(thread[i], NULL);
}

/* Straight from the system, on huge pages where it gives them. */
static void *cpu_reserve(size_t bytes) {
  size_t span = bytes + HUGE_PAGE; /* room to align */
  char *raw = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return NULL;
  size_t page = 4096, size = (bytes + page - 1) / page * page;
  char *p = (char *)(((uintptr_t)raw + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
  if (p > raw) munmap(raw, (size_t)(p - raw));
  if (raw + span > p + size) munmap(p + size, (size_t)(raw + span - (p + size)));
  madvise(p, size, MADV_HUGEPAGE); /* advice: failing is no harm */
  return p;
}

/* Large blocks are touched once so that no step pays for page faults. The system clears a page when
 * it is touched, and a virtual machine may have to fetch it from its host first, which takes ten
 * times as long. */
static void *cpu_alloc(size_t bytes) {
  const bool large = bytes >= HUGE_PAGE;
  char *p = large ? cpu_reserve(bytes) : aligned_alloc(64, (bytes + 127) / 64 * 64);
  if (p && large) touch_all(p, bytes);
  if (p && !large) memset(p, 0, bytes);
  return p;
}

static void unreserve(void *p, size_t bytes) {
  munmap(p, (bytes + 4095) / 4096 * 4096);
}
static void cpu_free(void *p, size_t bytes) {
  if (!p) return;
  if (bytes < HUGE_PAGE)
    free(p);
  else
    unreserve(p, bytes);
}

/* AdamW. After the first update moments follow from one gradient: of large variables that is kept
 * until somebody needs moments. So their memory, two thirds of what training takes to begin, is
 * fetched one step later. */
typedef struct updater {
  dj__late late; /* self of the kernel proper */
  const dj__kernels *kernels;
} updater;

static int updated(const dj__call *c) {
  return (c->n_in - DJ__UPDATE_FIRST) / DJ__UPDATE_PER_VAR;
}
static const dj_tensor *gradient(const dj__call *c, int variable) {
  return &c->in[DJ__UPDATE_FIRST + DJ__UPDATE_PER_VAR * variable + 1];
}

static void updater_settle(const dj__call *c, void *self) {
  updater *u = self;
  for (int i = 0; i < updated(c); i++) {
    if (!u->late.kept[i]) continue;
    u->kernels->adamw_moments(c, i, &u->late);
    unreserve(u->late.kept[i], dj_tensor_bytes(gradient(c, i)));
    u->late.kept[i] = NULL;
  }
}
static dj_status updater_run(const dj__call *c, void *self) {
  updater *u = self;
  const float *hyper = c->in[0].data; // (8) f32
  float clip;
  updater_settle(c, self);
  const bool first = dj__update_is_first(hyper) && dj__update_clip(hyper, c->in[1].data, &clip);
  for (int i = 0; first && i < updated(c); i++) // without memory the moments are written
    if (dj_shape_count(&gradient(c, i)->shape) * (int64_t)sizeof(float) >= DJ__LATE_BYTES)
      u->late.kept[i] = cpu_reserve(dj_tensor_bytes(gradient(c, i)));
  return u->kernels->op[DJ__OP_adamw].run(c, &u->late);
}
static void updater_destroy(void *self) {
  free(((updater *)self)->late.kept);
  free(self);
}
static dj_status updater_create(const dj__call *c, const dj__kernels *k, dj__kernel *out) {
  updater *u = calloc(1, sizeof *u);
  void **kept = calloc((size_t)updated(c) + 1, sizeof *kept);
  if (!u || !kept) {
    free(u);
    free(kept);
    return dj_error(DJ_E_NOMEM, "adamw: out of memory");
  }
  *u = (updater){{.kept = kept}, k};
  *out = (dj__kernel){.run = updater_run,
                      .destroy = updater_destroy,
                      .self = u,
                      .name = k->isa,
                      .packs = true,
                      .settle = updater_settle};
  return DJ_OK;
}

static dj_status create(const dj__call *c, const dj__backend_options *o, dj__kernel *out) {
  const dj__kernels *k = dj__kernels_find(o->isa);
  if (!k) return DJ_E_UNSUPPORTED;
  dj__call call = with_threads(c, o);
  const dj__own *amx = dj__amx_find(&call, o->isa);
  if (amx) {
    dj__layout *layout = call.keeps && amx->layout ? amx->layout(&call) : NULL;
    call.keeps = layout != NULL;
    *out = (dj__kernel){.run = amx->run,
                        .destroy = free,
                        .self = layout,
                        .workspace = amx->workspace(&call),
                        .name = "amx",
                        .layout = layout};
    return DJ_OK;
  }
  if ((library_first(o->isa) || !prefer_own(&call, k)) && dj__onednn_supports(&call, call.threads))
    return dj__onednn_create(&call, call.threads, k, out);
  if (reader_create(&call, k, out)) return DJ_OK;
  if (c->op == DJ__OP_adamw) return updater_create(c, k, out);
  const dj__own *own = own_kernel(&call, k);
  if (!own)
    return dj_error(DJ_E_UNSUPPORTED, "the cpu backend has no kernel for %s with these shapes",
                    dj__op_get(c->op)->name);
  *out = (dj__kernel){.run = own->run,
                      .workspace = own->workspace ? own->workspace(&call) : 0,
                      .name = k->isa,
                      .packs = c->op == DJ__OP_sgd};
  return DJ_OK;
}

static void fill_normal(float *x, int64_t n, float std, uint64_t key, uint64_t stream) {
  dj__kernels_find(NULL)->fill_normal(x, n, std, key, stream,
                                      n < dj__worth_threads ? 1 : usable_cores());
}

static void pack(const dj__layout *l, void *copy, const float *w, int64_t from, int64_t to) {
  const dj__kernels *k = dj__kernels_find(NULL);
  const int64_t runs = (to - from + DJ__RUN - 1) / DJ__RUN;
  const int threads = (to - from) * l->taps * l->cols < dj__worth_threads ? 1 : usable_cores();
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int i = 0; i < threads; i++) {
    const int64_t first = from + runs * i / threads * DJ__RUN,
                  end = from + runs * (i + 1) / threads * DJ__RUN;
    if (first < end) k->pack(l, copy, w, first, end < to ? end : to);
  }
}

const dj__backend dj__backend_cpu = {
    .version = DJ__BACKEND_VERSION,
    .name = "cpu",
    .host_memory = true,
    .supports = supports,
    .create = create,
    .pack = pack,
    .alloc = cpu_alloc,
    .reserve = cpu_reserve,
    .free = cpu_free,
    .fill_normal = fill_normal,
};
