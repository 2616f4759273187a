/* The closed loop, and suites of drives over threads. */
#include "world/loop.h"

#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "dojo/log.h"
#include "world/seat.h"

/* ---- drivers ---- */
void dj__driver_destroy(dj__driver *d) {
  if (d->destroy) d->destroy(d->self);
  *d = (dj__driver){0};
}

/* ---- one drive ---- */
typedef struct loop {
  dj__world *world;
  dj__driver *driver;
  dj__renderer *renderer;
  dj__scene *scene;
  dj__picture picture[DJ__RIG_CAMERAS];
  uint64_t next; /* step of the next decision */
  dj__seat seat;
  uint64_t decisions;
} loop;

static dj_status decide(loop *l, dj__sense *in) {
  const dj__world *w = l->world;
  *in = (dj__sense){0};
  if (l->driver->rig) {
    dj__scene_of(w, 0, l->scene);
    DJ_TRY(dj__render(l->renderer, l->scene, NULL, l->driver->rig, l->picture));
    in->n_picture = l->driver->rig->n_camera;
    in->picture = l->picture;
  }
  DJ_TRY(dj__seat_decide(&l->seat, l->driver, w, in));
  l->next = (uint64_t)llround(++l->decisions * l->driver->period / DJ__WORLD_DT);
  if (l->next <= w->step) l->next = w->step + 1;
  return DJ_OK;
}

/* The route at its speed limits takes `slowest` of it. */
static double time_limit(const dj__case *c, const dj__guide *g) {
  double at_limits = 0;
  for (int i = 0; i < g->n && i * g->step < g->end; i++)
    at_limits += g->step / fmax(g->point[i].limit, 1);
  return c->slowest > 0 ? fmax(c->seconds, at_limits / c->slowest) : c->seconds;
}

static dj_status run(loop *l, const dj__case *c, dj__observer *o, const dj__watcher *watcher,
                     dj__history *h) {
  dj__sense in = {0};
  const double limit = time_limit(c, &o->guide);
  for (bool over = false; !over;) {
    if (l->world->step >= l->next) DJ_TRY(decide(l, &in));
    dj__world_step(l->world, dj__seat_command(&l->seat, l->world->step));
    DJ_TRY(dj__observer_step(o, l->world, limit, h, &over));
    if (watcher && watcher->step) DJ_TRY(watcher->step(watcher->self, l->world, o, &in));
  }
  return DJ_OK;
}

dj_status dj__drive_case(const dj__case *c, const dj__map *m, dj__driver *d, dj__renderer *renderer,
                         const dj__watcher *watcher, dj__history *h) {
  loop l = {.driver = d, .renderer = renderer};
  dj__observer o = {0};
  *h = (dj__history){.par = NAN};
  dj_status s = dj__case_world(c, m, &l.world);
  if (!s && d->rig && !(l.scene = malloc(sizeof *l.scene)))
    s = dj_error(DJ_E_NOMEM, "no memory for a scene");
  if (!s) s = dj__observer_start(&o, l.world);
  if (!s) {
    h->length = l.world->ego.model->length;
    h->width = l.world->ego.model->width;
    h->passengers = l.world->ego.model->kind != DJ__RC_CAR;
    h->route_length = o.guide.end - 2 * o.scale;
    s = d->reset ? d->reset(d->self, l.world) : DJ_OK;
  }
  if (!s) s = run(&l, c, &o, watcher, h);
  dj__observer_end(&o);
  free(l.scene);
  dj__world_destroy(l.world);
  if (s) dj__history_free(h);
  return s ? dj_error_context(s, "case %s", c->name) : DJ_OK;
}

/* ---- suites ---- */
typedef struct shared_map { /* of consecutive cases */
  dj__map *map;
  int first, n, left; /* cases; not yet driven */
  bool failed;
} shared_map;

typedef struct job {
  const dj__suite *suite;
  const dj__suite_drive_options *o;
  dj__suite_drive *r;
  shared_map *maps;
  int n_maps, next, done;
  int failed; /* case, or n */
  dj_status status;
  char message[512];
  double km;
  pthread_mutex_t lock, map_lock;
} job;

typedef struct worker { /* of one thread */
  job *j;
  dj__driver driver, expert;
  dj__renderer *renderer;
  int drawn; /* index of the renderer's map, or -1 */
} worker;

static dj_status find_maps(job *j) {
  const dj__suite *s = j->suite;
  j->maps = calloc((size_t)s->n + 1, sizeof *j->maps);
  if (!j->maps) return dj_error(DJ_E_NOMEM, "no memory for a suite");
  for (int i = 0; i < s->n; i++) {
    if (!j->n_maps || !dj__case_same_map(&s->cases[i - 1], &s->cases[i]))
      j->maps[j->n_maps++] = (shared_map){.first = i};
    j->maps[j->n_maps - 1].n++;
    j->maps[j->n_maps - 1].left++;
  }
  return DJ_OK;
}

static shared_map *map_of(job *j, int i) {
  int k = 0;
  while (k + 1 < j->n_maps && j->maps[k + 1].first <= i) k++;
  return &j->maps[k];
}

static dj_status take_map(job *j, int i, shared_map **out) {
  pthread_mutex_lock(&j->map_lock);
  shared_map *m = *out = map_of(j, i);
  dj_status s = m->map ? DJ_OK : dj__case_map(&j->suite->cases[i], &m->map);
  pthread_mutex_unlock(&j->map_lock);
  return s;
}

static void leave_map(job *j, shared_map *m) {
  pthread_mutex_lock(&j->map_lock);
  if (--m->left == 0) {
    dj__map_destroy(m->map);
    m->map = NULL;
  }
  pthread_mutex_unlock(&j->map_lock);
}

static dj_status find_renderer(worker *w, const shared_map *m) {
  int index = (int)(m - w->j->maps);
  if (!w->driver.rig || (w->renderer && w->drawn == index)) return DJ_OK;
  dj__renderer_destroy(w->renderer);
  w->renderer = NULL;
  w->drawn = index;
  return dj__renderer_create(m->map, &(dj__render_options){0}, &w->renderer);
}

static dj_status drive_one(worker *w, int i, const shared_map *m) {
  job *j = w->j;
  const dj__case *c = &j->suite->cases[i];
  dj__history h;
  double par = NAN;
  if (!j->o->is_expert) {
    DJ_TRY(dj__drive_case(c, m->map, &w->expert, NULL, NULL, &h));
    if (h.end == DJ__END_ARRIVED) par = h.step[h.n_step - 1].time;
    dj__history_free(&h);
  }
  DJ_TRY(find_renderer(w, m));
  const dj__watcher *watcher = j->o->watchers ? &j->o->watchers[i] : NULL;
  DJ_TRY(dj__drive_case(c, m->map, &w->driver, w->renderer, watcher, &h));
  h.par = par;
  j->r->par[i] = par;
  dj_status s = dj__score_drive(&h, &j->r->score[i]);
  dj__history_free(&h);
  return s;
}

static void note(job *j, int i, dj_status s) {
  pthread_mutex_lock(&j->lock);
  j->done++;
  if (s && i < j->failed) {
    j->failed = i;
    j->status = s;
    (void)snprintf(j->message, sizeof j->message, "%s", dj_error_message());
  }
  if (!s) j->km += j->r->score[i].km;
  char text[64];
  (void)snprintf(text, sizeof text, "%.1f km", j->km);
  if (!j->status) dj_progress("driving", (uint64_t)j->done, (uint64_t)j->suite->n, "drives", text);
  pthread_mutex_unlock(&j->lock);
}

static int take_case(job *j) {
  pthread_mutex_lock(&j->lock);
  int i = j->status || j->next >= j->suite->n ? -1 : j->next++;
  pthread_mutex_unlock(&j->lock);
  return i;
}

static void work(job *j) {
  worker w = {.j = j, .drawn = -1};
  dj_status s = j->o->make(j->o->user, &w.driver);
  if (!s && !j->o->is_expert) s = dj__driver_expert(&w.expert);
  if (s) note(j, 0, s);
  for (int i; !s && (i = take_case(j)) >= 0;) {
    shared_map *m;
    s = take_map(j, i, &m);
    if (!s) s = drive_one(&w, i, m);
    if (!s) leave_map(j, m);
    note(j, i, s);
  }
  dj__renderer_destroy(w.renderer);
  dj__driver_destroy(&w.driver);
  dj__driver_destroy(&w.expert);
}

static dj_status score_kinds(const dj__suite *s, dj__suite_drive *r) {
  dj__drive_score *some = malloc((size_t)(s->n + 1) * sizeof *some);
  if (!some) return dj_error(DJ_E_NOMEM, "no memory for scores");
  dj_status st = dj__score_suite(r->score, (size_t)s->n, &r->total);
  for (int k = 0; k < DJ__N_CASES && !st; k++) {
    size_t n = 0;
    for (int i = 0; i < s->n; i++)
      if ((int)s->cases[i].kind == k) some[n++] = r->score[i];
    st = dj__score_suite(some, n, &r->kind[k]);
  }
  free(some);
  return st;
}

dj_status dj__drive_suite(const dj__suite *s, const dj__suite_drive_options *o,
                          dj__suite_drive *r) {
  job j = {.suite = s, .o = o, .r = r, .failed = s->n};
  double start = dj__now();
  *r = (dj__suite_drive){.n = s->n,
                         .score = calloc((size_t)s->n + 1, sizeof *r->score),
                         .par = calloc((size_t)s->n + 1, sizeof *r->par)};
  dj_status st = r->score && r->par ? find_maps(&j) : dj_error(DJ_E_NOMEM, "no memory for a suite");
  if (!st) {
    pthread_mutex_init(&j.lock, NULL);
    pthread_mutex_init(&j.map_lock, NULL);
    int threads = o->threads ? o->threads : omp_get_num_procs();
    if (threads > s->n) threads = s->n > 0 ? s->n : 1;
    dj_progress("driving", 0, (uint64_t)s->n, "drives", NULL);
#pragma omp parallel num_threads(threads)
    work(&j);
    pthread_mutex_destroy(&j.lock);
    pthread_mutex_destroy(&j.map_lock);
    if (j.status) st = dj_error(j.status, "%s", j.message);
  }
  for (int k = 0; k < j.n_maps; k++)
    if (j.maps[k].map) dj__map_destroy(j.maps[k].map);
  free(j.maps);
  if (!st) st = score_kinds(s, r);
  r->seconds = dj__now() - start;
  if (st) dj__suite_drive_free(r);
  return st;
}

void dj__suite_drive_free(dj__suite_drive *r) {
  free(r->score);
  free(r->par);
  *r = (dj__suite_drive){0};
}
