/*
 * Many worlds at once. Each has its own traffic on the shared map, the same that a single world
 * has; threads take whole worlds, so that results do not depend on how many there are. Agents that
 * are given actions move as kinematic bicycles (Polack et al., "The kinematic bicycle model", IV
 * 2017) and are seen by the others as they are.
 */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "world/traffic.h"

enum { OWN = 8, PER_NEAR = 7, MAX_NEAR = 64, FEW = 128 };
#define SIGHT 100.0 /* m */

typedef struct scratch { /* of a world, in one block */
  float *x, *y, *cos, *sin;
} scratch;

struct dj__worlds {
  dj__worlds_config config;
  dj__net *net;
  dj__traffic **traffic; /* (n_world) */
  scratch *scratch;      /* (n_world) */
  uint64_t step;
};

static dj_status check(const dj__worlds_config *c) {
  if (!c->map || c->map->n_lane < 1) return dj_error(DJ_E_INVALID, "worlds need a map with lanes");
  if (c->n_world < 1 || c->n_world > 1 << 20 || c->n_agent < 1 || c->n_agent > 20000)
    return dj_error(DJ_E_INVALID, "%d worlds of %d agents: 1 to 1048576 of 1 to 20000", c->n_world,
                    c->n_agent);
  if (c->n_near < 0 || c->n_near > MAX_NEAR || c->threads < 0)
    return dj_error(DJ_E_INVALID, "%d neighbours, %d threads: 0 to %d, 0 or more", c->n_near,
                    c->threads, MAX_NEAR);
  return DJ_OK;
}

static dj_status create_one(dj__worlds *w, int k) {
  int cyclists = w->config.n_agent / 10;
  dj__population p = {0, w->config.n_agent - cyclists, cyclists, 0, 0, 0};
  uint64_t seed = dj__philox(w->config.seed, (uint64_t)k, 0x77).v[0];
  seed = seed << 32 | dj__philox(w->config.seed, (uint64_t)k, 0x77).v[1];
  DJ_TRY(dj__traffic_create(w->net, seed, &p, &w->traffic[k]));
  size_t n = (size_t)w->traffic[k]->agents.capacity;
  scratch *s = &w->scratch[k];
  s->x = calloc(4 * n, sizeof *s->x);
  if (!s->x) return dj_error(DJ_E_NOMEM, "no memory for world %d", k);
  s->y = s->x + n;
  s->cos = s->y + n;
  s->sin = s->cos + n;
  dj__traffic_populate(w->traffic[k], &p);
  dj__traffic_hash(w->traffic[k]);
  return DJ_OK;
}

dj_status dj__worlds_create(const dj__worlds_config *c, dj__worlds **out) {
  *out = NULL;
  DJ_TRY(check(c));
  dj__worlds *w = calloc(1, sizeof *w);
  if (!w) return dj_error(DJ_E_NOMEM, "no memory for worlds");
  w->config = *c;
  if (w->config.threads == 0) w->config.threads = omp_get_num_procs();
  if (w->config.threads > c->n_world) w->config.threads = c->n_world;
  w->traffic = calloc((size_t)c->n_world, sizeof *w->traffic);
  w->scratch = calloc((size_t)c->n_world, sizeof *w->scratch);
  dj_status s = DJ_OK;
  if (!w->traffic || !w->scratch) s = dj_error(DJ_E_NOMEM, "no memory for %d worlds", c->n_world);
  if (!s) s = dj__net_create(c->map, &w->net);
  for (int k = 0; k < c->n_world && !s; k++) s = create_one(w, k);
  if (s)
    dj__worlds_destroy(w);
  else
    *out = w;
  return s;
}

void dj__worlds_destroy(dj__worlds *w) {
  if (!w) return;
  for (int k = 0; k < w->config.n_world && w->traffic && w->scratch; k++) {
    dj__traffic_destroy(w->traffic[k]);
    free(w->scratch[k].x);
  }
  free(w->traffic);
  free(w->scratch);
  dj__net_release(w->net);
  free(w);
}

/* ---- agents with actions ---- */
static void take_actions(dj__traffic *t, const float *action) { /* (n_agent, 2) or NULL */
  const dj__agents *a = &t->agents;
  for (int i = 0; i < a->n; i++) {
    bool given = action && isfinite(action[2 * i]) && isfinite(action[2 * i + 1]);
    t->mind[i].given = given;
    if (!given) continue;
    t->plan[i] = dj__clampf(action[2 * i], -9, 4);
    a->steer[i] = dj__clampf(action[2 * i + 1], -0.7f, 0.7f);
  }
}

static void drive_given(dj__traffic *t, int i) {
  dj__agents *a = &t->agents;
  const double dt = DJ__WORLD_DT;
  double v = (double)a->speed[i], v1 = v + (double)t->plan[i] * dt;
  double wheelbase = 0.6 * (double)a->length[i], yaw = (double)a->yaw[i];
  if (v1 < 0) v1 = 0;
  double mean = 0.5 * (v + v1), slip = atan(0.5 * tan((double)a->steer[i]));
  double rate = mean * 2 * sin(slip) / wheelbase, course = yaw + slip + 0.5 * rate * dt;
  a->x[i] += mean * cos(course) * dt;
  a->y[i] += mean * sin(course) * dt;
  yaw += rate * dt;
  a->yaw[i] = (float)(yaw - 2 * M_PI * round(yaw / (2 * M_PI)));
  a->accel[i] = (float)((v1 - v) / dt);
  a->speed[i] = (float)v1;
  a->yaw_rate[i] = (float)rate;
  dj__external_track(t, i);
}

/* ---- observations ---- */
static float curvature_ahead(const dj__traffic *t, int i, double ahead) {
  const dj__mind *m = &t->mind[i];
  double s = (double)t->agents.s[i] + ahead, f;
  int k = 0;
  while (k + 1 < m->n_path && s > t->map->lane[m->path[k]].length)
    s -= t->map->lane[m->path[k++]].length;
  return dj__lane_at(t->map, m->path[k], s, &f)->curvature;
}

static void observe_self(const dj__traffic *t, int i, float *o) { /* (8) */
  const dj__agents *a = &t->agents;
  o[0] = a->speed[i];
  o[1] = a->accel[i];
  o[2] = a->steer[i];
  if (a->lane[i] < 0) return;
  double f;
  const dj__lane_point *p = dj__lane_at(t->map, a->lane[i], (double)a->s[i], &f);
  float turn = a->yaw[i] - p->yaw;
  o[3] = a->t[i];
  o[4] = turn - 6.2831853f * roundf(turn / 6.2831853f);
  o[5] = curvature_ahead(t, i, 10);
  o[6] = curvature_ahead(t, i, 30);
  o[7] = (float)t->map->lane[a->lane[i]].speed_limit;
}

/* The n_near nearest live agents, nearest first; equal distances by slot. */
static int nearest(const dj__traffic *t, const scratch *s, int i, int n_near, int *out) {
  float d2[MAX_NEAR], x = s->x[i], y = s->y[i];
  int list[4096], n = t->agents.n, found = 0;
  const int *some = NULL;
  if (n > FEW) {
    n = dj__hash_near(t, (double)x, (double)y, SIGHT, list, 4096);
    some = list;
  }
  float worst = (float)(SIGHT * SIGHT);
  for (int k = 0; k < n; k++) {
    int j = some ? some[k] : k;
    float dx = s->x[j] - x, dy = s->y[j] - y, d = dx * dx + dy * dy;
    if (!(d < worst) || j == i) continue; /* dead slots are at infinity */
    int at = found < n_near ? found++ : n_near - 1;
    while (at > 0 && (d2[at - 1] > d || (d2[at - 1] == d && out[at - 1] > j))) {
      d2[at] = d2[at - 1];
      out[at] = out[at - 1];
      at--;
    }
    d2[at] = d;
    out[at] = j;
    if (found == n_near) worst = d2[n_near - 1];
  }
  return found;
}

static void observe(const dj__traffic *t, const scratch *s, int n_near, float *row0) {
  const dj__agents *a = &t->agents;
  int width = OWN + PER_NEAR * n_near, near[MAX_NEAR];
  memset(row0, 0, (size_t)a->n * (size_t)width * sizeof *row0);
  for (int i = 0; i < a->n; i++) {
    if (!(a->flags[i] & DJ__AGENT_LIVE)) continue;
    float *row = row0 + (size_t)i * (size_t)width;
    observe_self(t, i, row);
    int n = n_near ? nearest(t, s, i, n_near, near) : 0;
    float c = s->cos[i], sn = s->sin[i], v = a->speed[i];
    for (int k = 0; k < n; k++) {
      int j = near[k];
      float *o = row + OWN + PER_NEAR * k, dx = s->x[j] - s->x[i], dy = s->y[j] - s->y[i];
      float cj = c * s->cos[j] + sn * s->sin[j], sj = c * s->sin[j] - sn * s->cos[j];
      o[0] = c * dx + sn * dy;
      o[1] = c * dy - sn * dx;
      o[2] = cj;
      o[3] = sj;
      o[4] = a->speed[j] * cj - v;
      o[5] = a->speed[j] * sj;
      o[6] = (float)a->kind[j] / 10;
    }
  }
}

/* ---- collisions ---- */
static bool apart(float dx, float dy, float ca, float sa, float la, float wa, float c, float s,
                  float lb, float wb) {
  return fabsf(dx * ca + dy * sa) > la + lb * c + wb * s ||
         fabsf(dy * ca - dx * sa) > wa + lb * s + wb * c;
}

static bool touch(const dj__traffic *t, const scratch *q, int i, int j) {
  const dj__agents *a = &t->agents;
  float dx = q->x[j] - q->x[i], dy = q->y[j] - q->y[i];
  float li = 0.5f * a->length[i], wi = 0.5f * a->width[i], lj = 0.5f * a->length[j],
        wj = 0.5f * a->width[j], most = li + wi + lj + wj;
  if (dx * dx + dy * dy > most * most || fabsf(a->z[i] - a->z[j]) > 3) return false;
  float c = fabsf(q->cos[i] * q->cos[j] + q->sin[i] * q->sin[j]);
  float s = fabsf(q->cos[i] * q->sin[j] - q->sin[i] * q->cos[j]);
  return !apart(dx, dy, q->cos[i], q->sin[i], li, wi, c, s, lj, wj) &&
         !apart(dx, dy, q->cos[j], q->sin[j], lj, wj, c, s, li, wi);
}

static void collide(const dj__traffic *t, const scratch *q, uint8_t *hit) { /* (n_agent) */
  const dj__agents *a = &t->agents;
  int near[64];
  memset(hit, 0, (size_t)a->n);
  for (int i = 0; i < a->n; i++) {
    if (!(a->flags[i] & DJ__AGENT_LIVE)) continue;
    int n = dj__hash_near(t, a->x[i], a->y[i], DJ__HASH_CELL, near, 64);
    for (int k = 0; k < n; k++)
      if (near[k] > i && touch(t, q, i, near[k])) hit[i] = hit[near[k]] = 1;
  }
}

/* ---- a step of one world ---- */
static void trigonometry(const dj__traffic *t, scratch *s) {
  const dj__agents *a = &t->agents;
  for (int i = 0; i < a->n; i++) {
    bool live = a->flags[i] & DJ__AGENT_LIVE;
    s->x[i] = live ? (float)a->x[i] : INFINITY;
    s->y[i] = live ? (float)a->y[i] : INFINITY;
    s->cos[i] = cosf(a->yaw[i]);
    s->sin[i] = sinf(a->yaw[i]);
  }
}

static void step_one(dj__worlds *w, int k, const float *action, float *observation, uint8_t *hit) {
  dj__traffic *t = w->traffic[k];
  take_actions(t, action);
  dj__traffic_register(t);
  dj__traffic_decide(t);
  dj__traffic_move(t);
  for (int i = 0; i < t->agents.n && action; i++)
    if (t->mind[i].given && (t->agents.flags[i] & DJ__AGENT_LIVE)) drive_given(t, i);
  t->step++;
  t->time = (double)t->step * DJ__WORLD_DT;
  dj__traffic_respawn(t);
  dj__traffic_hash(t);
  if (!observation && !hit) return;
  trigonometry(t, &w->scratch[k]);
  if (hit) collide(t, &w->scratch[k], hit);
  if (observation) observe(t, &w->scratch[k], w->config.n_near, observation);
}

void dj__worlds_step(dj__worlds *w, const float *action, float *observation, uint8_t *collision) {
  size_t n = (size_t)w->config.n_agent;
  size_t width = (size_t)(OWN + PER_NEAR * w->config.n_near);
#pragma omp parallel for schedule(static) num_threads(w->config.threads)
  for (int k = 0; k < w->config.n_world; k++) {
    size_t first = (size_t)k * n;
    step_one(w, k, action ? action + 2 * first : NULL,
             observation ? observation + width * first : NULL,
             collision ? collision + first : NULL);
  }
  w->step++;
}

uint64_t dj__worlds_digest(const dj__worlds *w) {
  uint64_t h = w->step;
  for (int k = 0; k < w->config.n_world; k++) h = dj__traffic_digest(w->traffic[k], h);
  return h;
}

const dj__agents *dj__worlds_agents(const dj__worlds *w, int world) {
  return &w->traffic[world]->agents;
}
