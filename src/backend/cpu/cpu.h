/*
 * Inside of the CPU backend: what its files share. Kernels of our own live in isa/, compiled once
 * per instruction set and collected in one table each; onednn.c holds every oneDNN call; backend.c
 * chooses between them when a program is compiled.
 */
#ifndef DOJO_BACKEND_CPU_H
#define DOJO_BACKEND_CPU_H

#include "engine/backend.h"

/* Work that is worth waking threads for, in elements touched: a tenth of a nanosecond or two each.
 * Below some 20 microseconds, waking a thread and waiting for it takes longer than it saves, and on
 * a busy machine much longer. Tests lower it, so that small shapes are shared out, too; never while
 * a program runs. */
extern int64_t dj__worth_threads;

/* An own kernel of one op. Everything is in the call; `self` is the layout, if it has one. */
typedef struct dj__own {
  dj_status (*run)(const dj__call *c, void *self);
  bool (*supports)(const dj__call *c);      /* NULL: always. Shapes and dtypes only. */
  size_t (*workspace)(const dj__call *c);   /* NULL: none. Bytes of scratch for these shapes. */
  dj__layout *(*layout)(const dj__call *c); /* NULL: none. Of dj__kernel; malloc'ed, or NULL */
} dj__own;

/* What AdamW's first update keeps instead of moments. */
typedef struct dj__late {
  void **kept;              /* (variables) memory for the gradient; NULL: moments are written */
  float clip, rest1, rest2; /* of the update; set by it */
} dj__late;

/* All own kernels of one instruction set; an op without one has run == NULL. */
typedef struct dj__kernels {
  const char *isa;
  dj__own op[DJ__N_OPS];
  /* dst[i] = src[i] with conversion, any pair of dtypes (see dj__convert in isa/isa.h). */
  void (*convert)(void *dst, dj_dtype dt, const void *src, dj_dtype st, int64_t n, int threads);
  /* y = act(y + bias) in place: y (rows, n) f32 or bf16, bias (n) or NULL; act as in dj__post. */
  void (*post)(void *y, dj_dtype yt, int64_t rows, int64_t n, const void *bias, dj_dtype bt,
               int act, int threads);
  /* As of dj__backend. */
  void (*pack)(const dj__layout *l, void *copy, const float *w, int64_t from, int64_t to);
  /* Writes the moments of one of an update's variables from the gradient kept. */
  void (*adamw_moments)(const dj__call *c, int number, const dj__late *late);
  /* Multiply-adds in registers only, on the calling thread; *flops: how many operations. The result
   * depends on all of them. For measuring the processor's peak. */
  float (*fma_loop)(int64_t rounds, double *flops);
  /* x (n) normal with this deviation: numbers of the stream, as dj__rng_normal makes them. */
  void (*fill_normal)(float *x, int64_t n, float std, uint64_t key, uint64_t stream, int threads);
} dj__kernels;

/* Of amx/, whose header needs its compiler flags. */
extern const dj__own dj__amx_matmul, dj__amx_conv2d, dj__amx_conv2d_weight, dj__amx_attention,
    dj__amx_attention_grad;

extern const dj__kernels dj__kernels_generic, dj__kernels_avx2, dj__kernels_avx512;

/* Layouts of which pack (isa/pack.c) writes runs of 16 words. A word is an f32 number, or two of
 * bf16: neighbours in a row, or in pairs the same column of two rows. */
enum { DJ__RUN = 16 };
typedef enum dj__form {
  DJ__FORM_NUMBERS, /* none */
  DJ__FORM_ROWS,    /* bf16: a row is one run */
  DJ__FORM_PAIRS,   /* bf16: words of 16 columns are neighbours */
  DJ__FORM_TURNED   /* words of 16 rows are */
} dj__form;
/* Fills in form and unit, when everything else is there. */
void dj__layout_finish(dj__layout *l);
/* As the tensor lies, but in bf16; malloc'ed, NULL when it is too large. */
dj__layout *dj__layout_of_rows(const dj_shape *s);

/* The table for `isa` (NULL: the best this CPU runs); NULL with an error if the name is unknown or
 * the CPU lacks it. */
const dj__kernels *dj__kernels_find(const char *isa);

/* Kernels on AMX (amx/): NULL where there is none for this call, the build or the processor has no
 * AMX, or another instruction set was asked for. Asks the system for the right to use its registers
 * once. */
const dj__own *dj__amx_find(const dj__call *c, const char *isa);

/* matmul and convolutions. supports() is exact: it tries to make the primitive description. */
bool dj__onednn_supports(const dj__call *c, int threads);
dj_status dj__onednn_create(const dj__call *c, int threads, const dj__kernels *own, dj__kernel *k);

#endif
