/* Watches the drives of a suite: which events begin, who touches whom. */
#include "world/rates.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "world/events.h"
#include "world/loop.h"

typedef struct seen { /* an event of the drive */
  uint32_t id;        /* of whom it names */
  bool struck;
} seen;

typedef struct pair { /* who touch, by identity */
  uint32_t a, b;
} pair;

struct dj__event_watch {
  dj__event_tally *t;
  uint64_t steps, vehicle_steps;
  int light;  /* stop line with lights ahead, or -1 */
  int staged; /* index of the staged event, or -1 */
  seen *event;
  int n_event, max_event;
  pair *touch, *before; /* in this step, in the last one */
  int n_touch, n_before, max_touch;
};

const char *dj__touched_name(dj__touched k) {
  static const char *const names[DJ__N_TOUCHED] = {"vehicle", "person", "thing"};
  return k >= 0 && k < DJ__N_TOUCHED ? names[k] : "?";
}

/* ---- events ---- */
static dj_status note_events(dj__event_watch *s, const dj__world *w) {
  if (w->n_event > s->max_event) {
    const int max = 2 * w->n_event;
    seen *more = realloc(s->event, (size_t)max * sizeof *more);
    if (!more) return dj_error(DJ_E_NOMEM, "no memory for %d events", max);
    s->event = more;
    s->max_event = max;
  }
  for (; s->n_event < w->n_event; s->n_event++) {
    const dj__event *e = &w->event[s->n_event];
    s->event[s->n_event] = (seen){.id = w->agents.id[e->agent < 0 ? 0 : e->agent]};
    s->t->by_itself[e->kind]++;
  }
  return DJ_OK;
}

/* The first one that has begun since it was due. */
static void note_staged(dj__event_watch *s, const dj__world *w) {
  const int kind = w->config.staged.kind;
  if (kind < 0 || !w->cast.staged) return;
  for (int e = 0; e < w->n_event && s->staged < 0; e++) {
    if ((int)w->event[e].kind != kind ||
        (double)w->event[e].start * DJ__WORLD_DT < w->config.staged.after)
      continue;
    s->staged = e;
    s->t->staged[kind]++;
    s->t->by_itself[kind]--;
  }
}

static void note_light(dj__event_watch *s, const dj__world *w) {
  double dist;
  const int stop = dj__next_light(w, 0, &dist);
  if (s->light >= 0 && stop != s->light) s->t->lights++;
  s->light = stop;
}

/* Events that a touch of agents i and j may have come from. */
static void strike(dj__event_watch *s, const dj__world *w, int i, int j) {
  const uint32_t *id = w->agents.id;
  for (int e = 0; e < w->n_event; e++) {
    const dj__event *v = &w->event[e];
    const double over = v->end ? (double)(w->step - v->end) * DJ__WORLD_DT : 0;
    bool named = id[i] == s->event[e].id || id[j] == s->event[e].id;
    if (s->event[e].struck || over > DJ__AFTERMATH_S || !(named || i == 0 || j == 0)) continue;
    s->event[e].struck = true;
    s->t->struck[v->kind]++;
  }
}

/* ---- contacts ---- */
static bool touched_before(const dj__event_watch *s, pair p) {
  for (int k = 0; k < s->n_before; k++)
    if (s->before[k].a == p.a && s->before[k].b == p.b) return true;
  return false;
}

static void count_contact(dj__event_watch *s, const dj__world *w, int i, int j) {
  const dj__agents *a = &w->agents;
  strike(s, w, i, j);
  if (i == 0 || j == 0) {
    s->t->ego_contacts++;
    return;
  }
  const dj__touched k = dj__is_rider(a, j)             ? DJ__TOUCHED_VEHICLE
                        : a->kind[j] == DJ__PEDESTRIAN ? DJ__TOUCHED_PERSON
                                                       : DJ__TOUCHED_THING;
  double vi = (double)a->speed[i], vj = (double)a->speed[j];
  double yi = (double)a->yaw[i], yj = (double)a->yaw[j];
  double closing = hypot(vi * cos(yi) - vj * cos(yj), vi * sin(yi) - vj * sin(yj));
  s->t->contacts[k]++;
  s->t->fastest[k] = fmax(s->t->fastest[k], closing);
}

static dj_status touch(dj__event_watch *s, const dj__world *w, int i, int j) {
  const pair p = {w->agents.id[i], w->agents.id[j]};
  if (s->n_touch == s->max_touch) {
    const int max = 2 * s->max_touch + 8;
    pair *now = realloc(s->touch, (size_t)max * sizeof *now);
    if (now) s->touch = now;
    pair *before = realloc(s->before, (size_t)max * sizeof *before);
    if (before) s->before = before;
    if (!now || !before) return dj_error(DJ_E_NOMEM, "no memory for %d contacts", max);
    s->max_touch = max;
  }
  s->touch[s->n_touch++] = p;
  if (!touched_before(s, p)) count_contact(s, w, i, j);
  return DJ_OK;
}

static dj_status note_contacts(dj__event_watch *s, const dj__world *w) {
  const dj__agents *a = &w->agents;
  pair *last = s->before;
  s->before = s->touch;
  s->n_before = s->n_touch;
  s->touch = last;
  s->n_touch = 0;
  for (int i = 0; i < a->n; i++) {
    if (!dj__is_rider(a, i)) continue;
    s->vehicle_steps += i > 0;
    int near[64], n = dj__world_near(w, a->x[i], a->y[i], 16, near, 64);
    for (int k = 0; k < n; k++) {
      const int j = near[k];
      if (j == i || (j < i && dj__is_rider(a, j)) || !dj__agents_touch(a, i, j, 0)) continue;
      DJ_TRY(touch(s, w, i, j));
    }
  }
  return DJ_OK;
}

/* ---- drives ---- */
dj_status dj__event_watch_create(dj__event_tally *t, dj__event_watch **out) {
  dj__event_watch *s = *out = calloc(1, sizeof *s);
  if (!s) return dj_error(DJ_E_NOMEM, "no memory to watch a drive");
  *t = (dj__event_tally){.drives = 1};
  *s = (dj__event_watch){.t = t, .light = -1, .staged = -1};
  return DJ_OK;
}

void dj__event_watch_destroy(dj__event_watch *s) {
  if (!s) return;
  free(s->event);
  free(s->touch);
  free(s->before);
  free(s);
}

dj_status dj__event_watch_step(dj__event_watch *s, const dj__world *w) {
  if (!s->steps++ && w->config.staged.kind >= 0) s->t->asked[w->config.staged.kind]++;
  DJ_TRY(note_events(s, w));
  note_staged(s, w);
  note_light(s, w);
  DJ_TRY(note_contacts(s, w));
  s->t->hours = (double)s->steps * DJ__WORLD_DT / 3600;
  s->t->vehicle_hours = (double)s->vehicle_steps * DJ__WORLD_DT / 3600;
  return DJ_OK;
}

static dj_status see(void *self, const dj__world *w, const dj__observer *o, const dj__sense *in) {
  (void)o, (void)in;
  return dj__event_watch_step(self, w);
}

static dj_status make_expert(void *user, dj__driver *d) {
  (void)user;
  return dj__driver_expert(d);
}

dj_status dj__tally_suite(const dj__suite *s, int threads, dj__event_tally *t) {
  dj__watcher *watchers = calloc((size_t)s->n + 1, sizeof *watchers);
  dj_status st = watchers ? DJ_OK : dj_error(DJ_E_NOMEM, "no memory for a suite");
  for (int i = 0; i < s->n && !st; i++) {
    dj__event_watch *one;
    st = dj__event_watch_create(&t[i], &one);
    watchers[i] = (dj__watcher){see, one};
  }
  dj__suite_drive_options o = {
      .make = make_expert, .is_expert = true, .threads = threads, .watchers = watchers};
  dj__suite_drive r = {0};
  if (!st) st = dj__drive_suite(s, &o, &r);
  for (int i = 0; i < s->n && watchers; i++) dj__event_watch_destroy(watchers[i].self);
  dj__suite_drive_free(&r);
  free(watchers);
  return st;
}

/* ---- rates ---- */
static void add(dj__event_tally *to, const dj__event_tally *t) {
  to->drives += t->drives;
  to->hours += t->hours;
  to->vehicle_hours += t->vehicle_hours;
  to->lights += t->lights;
  to->ego_contacts += t->ego_contacts;
  for (int k = 0; k < DJ__N_EVENTS; k++) {
    to->by_itself[k] += t->by_itself[k];
    to->asked[k] += t->asked[k];
    to->staged[k] += t->staged[k];
    to->struck[k] += t->struck[k];
  }
  for (int k = 0; k < DJ__N_TOUCHED; k++) {
    to->contacts[k] += t->contacts[k];
    to->fastest[k] = fmax(to->fastest[k], t->fastest[k]);
  }
}

dj_status dj__event_rates_of(const dj__event_tally *t, size_t n, dj__event_rates *out) {
  *out = (dj__event_rates){0};
  double *x = calloc(3 * n + 1, sizeof *x), *hours = x + n, *vehicle = hours + n;
  if (!x) return dj_error(DJ_E_NOMEM, "no memory for rates of %zu drives", n);
  for (size_t i = 0; i < n; i++) {
    add(&out->sum, &t[i]);
    hours[i] = t[i].hours;
    vehicle[i] = t[i].vehicle_hours;
  }
  for (int k = 0; k < DJ__N_EVENTS; k++) {
    for (size_t i = 0; i < n; i++) x[i] = t[i].by_itself[k];
    out->per_hour[k] = dj__ratio_with_interval(x, hours, n);
    out->per_vehicle_hour[k] = dj__ratio_with_interval(x, vehicle, n);
  }
  for (int k = 0; k < DJ__N_TOUCHED; k++) {
    for (size_t i = 0; i < n; i++) x[i] = t[i].contacts[k];
    out->contacts_per_vehicle_hour[k] = dj__ratio_with_interval(x, vehicle, n);
  }
  free(x);
  return DJ_OK;
}
