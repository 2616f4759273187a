/* Paths past what is in the way, rolled forward and compared. */
#include <math.h>
#include <string.h>

#include "world/expert.h"
#include "world/score.h"

/* IDM's parameters (Treiber et al. 2000), for a calm driver. */
#define ACCEL     1.4  /* m/s^2 */
#define BRAKE     1.8  /* m/s^2 */
#define HEADWAY   1.4  /* s */
#define HARDEST   8.0  /* m/s^2 */
#define LATERAL   1.9  /* m/s^2 in curves */
#define YAW_RATE  0.55 /* rad/s */
#define SLOW_DOWN 1.3  /* m/s^2 before curves */
#define CAP_STEP  2.0  /* m */
#define SLOWEST   0.8  /* m/s */
#define ONSET     8.0  /* m/s^3 of brakes */
enum {
  LOOK = 6 /* forecast steps that a crossing way is seen ahead */,
  MAX_PLANS = 16,
  TABLE = 128
};

/* ---- speeds along the guide ---- */
void dj__expert_speeds(dj__expert *e) {
  const dj__guide *g = &e->guide;
  bool toy = e->scale < 1;
  double lateral = LATERAL * (toy ? 1.2 : fmin(1, e->speed_factor));
  for (int i = 0; i < g->n; i++) {
    const dj__guide_point *p = &g->point[i];
    double k = fabs(p->curvature), v = p->limit * fmin(1, 0.4 + 0.6 * e->speed_factor);
    if (k > 1e-6) v = fmin(v, sqrt(lateral / k));
    if (k > 1e-6 && !toy) v = fmin(v, YAW_RATE / k);
    e->v_max[i] = fmin(v, 0.9 * e->model->max_speed);
  }
  for (int i = g->n - 2; i >= 0; i--)
    e->v_max[i] =
        fmin(e->v_max[i], sqrt(e->v_max[i + 1] * e->v_max[i + 1] + 2 * SLOW_DOWN * g->step));
}

static double speed_at(const dj__expert *e, double s) {
  int i = (int)(s / e->guide.step + 0.5), k = (int)((s - e->cap_s) / CAP_STEP + 0.5);
  double v = e->v_max[i < 0 ? 0 : i > e->guide.n - 1 ? e->guide.n - 1 : i];
  return k >= 0 && k < DJ__CAPS ? fmin(v, e->cap[k]) : v;
}

/* ---- what lies ahead of the nose ---- */
typedef struct pose {
  double x, y, yaw;
} pose;

/* The vehicle's nose points where the line leads at its rear axle. */
static pose pose_at(const dj__expert *e, double s) {
  double rear = s - 0.5 * e->model->wheelbase, slope;
  dj__guide_point p = dj__guide_at(&e->guide, s), q = dj__guide_at(&e->guide, rear);
  double d = dj__swerve_at(&e->way, s, NULL, NULL);
  (void)dj__swerve_at(&e->way, rear, &slope, NULL);
  return (pose){p.x - d * sin(p.yaw) - e->ox, p.y + d * cos(p.yaw) - e->oy, q.yaw + atan(slope)};
}

/* Would the box, going straight on from p at speed v, hit somebody within 0.9 s? */
static bool runs_into(const dj__expert *e, const dj__seen *o, const pose *p, double v, int j) {
  for (int k = 1; k <= 3; k++) {
    double run = 0.35 * k * v, at = fmin(j + 0.3 * k / DJ__AHEAD_DT, DJ__AHEAD - 1e-3);
    const dj__box *b = &o->at[(int)at], *c = b + 1;
    double f = at - (int)at, x = (double)b->x + f * (double)(c->x - b->x),
           y = (double)b->y + f * (double)(c->y - b->y);
    if (dj__boxes_touch(p->x + run * cos(p->yaw), p->y + run * sin(p->yaw), p->yaw,
                        e->model->length + 0.3, e->model->width + 0.3, x, y, (double)b->yaw,
                        (double)o->length, (double)o->width))
      return true;
  }
  return false;
}

static double cap_at(const dj__expert *e, const dj__seen *o, double s, double v, double t) {
  int j = (int)(t / DJ__AHEAD_DT);
  if (j < o->from || j > o->to) return v;
  pose p = pose_at(e, s);
  double dx = (double)o->at[j].x - p.x, dy = (double)o->at[j].y - p.y;
  double ahead = dx * cos(p.yaw) + dy * sin(p.yaw), aside = dy * cos(p.yaw) - dx * sin(p.yaw);
  if (ahead < 0 || ahead > v + 8 || fabs(aside) > ahead + 1) return v;
  while (v > SLOWEST && runs_into(e, o, &p, v, j)) v *= 0.88;
  return v;
}

/* Would the box, t from now and `run` m further on along an arc, touch somebody? */
static bool bumps(const dj__expert *e, const pose *p, double run, double arc, double t,
                  double margin) {
  double yaw = p->yaw + run * arc, x = p->x + run * cos(p->yaw + 0.5 * run * arc),
         y = p->y + run * sin(p->yaw + 0.5 * run * arc);
  int j = (int)(t / DJ__AHEAD_DT);
  double f = t / DJ__AHEAD_DT - j;
  for (int k = 0; k < e->n_seen; k++) {
    const dj__seen *o = &e->seen[k];
    const dj__box *b = &o->at[j], *c = b + 1;
    double dx = (double)b->x + f * (double)(c->x - b->x), l = e->model->length + margin,
           dy = (double)b->y + f * (double)(c->y - b->y), w = e->model->width + margin;
    double ahead =
        ((double)o->at[0].x - p->x) * cos(p->yaw) + ((double)o->at[0].y - p->y) * sin(p->yaw);
    if (o->behind || ahead < 0) continue;
    if (dj__boxes_touch(x, y, yaw, l, w, dx, dy, (double)b->yaw, (double)o->length,
                        (double)o->width) &&
        !dj__boxes_touch(p->x, p->y, p->yaw, l, w, (double)o->at[0].x, (double)o->at[0].y,
                         (double)o->at[0].yaw, (double)o->length, (double)o->width))
      return true;
  }
  return false;
}

double dj__expert_bumper(const dj__expert *e, const dj__world *w) {
  double v = e->v, arc = tan(w->ego.steer) / e->model->wheelbase;
  pose p = {w->agents.x[0] - e->ox, w->agents.y[0] - e->oy, w->ego.yaw};
  if (e->scale < 1 || v > 8) return HUGE_VAL;
  if (v < 3 && (bumps(e, &p, 0.3 + 0.4 * v, arc, 0, 0.1) || bumps(e, &p, 0.15, arc, 0, 0.1)))
    return -3;
  for (int k = 1; k <= 3 && v > SLOWEST; k++)
    if (bumps(e, &p, 0.4 * k * v, 0, 0.4 * k, 0.2)) return -2.8;
  return HUGE_VAL;
}

void dj__expert_caps(dj__expert *e) {
  e->cap_s = e->mid;
  for (int i = 0; i < DJ__CAPS; i++) e->cap[i] = HUGE_VAL;
  if (e->scale < 1) return;
  for (int i = 0; i < DJ__CAPS; i++) {
    double s = e->mid + i * CAP_STEP,
           v = fmin(speed_at(e, s), sqrt(e->v * e->v + 2 * i * CAP_STEP));
    double t = i * CAP_STEP / fmax(1, 0.5 * (e->v + v)), cap = v;
    if (t > 6) break;
    for (int k = 0; k < e->n_seen && cap > SLOWEST; k++)
      if (!e->seen[k].behind) cap = cap_at(e, &e->seen[k], s, cap, t);
    if (cap < v) e->cap[i] = cap;
  }
  for (int i = DJ__CAPS - 2; i >= 0; i--)
    e->cap[i] = fmin(e->cap[i], sqrt(e->cap[i + 1] * e->cap[i + 1] + 2 * SLOW_DOWN * CAP_STEP));
}

/* ---- offsets ---- */
void dj__swerve_make(dj__swerve *w, double s, double d, double slope, double to, double length,
                     const dj__vehicle_model *m) {
  double l = fmax(length, 1e-3), h = to - d, v = slope * l; /* in units of the length */
  *w = (dj__swerve){.s0 = s, .length = l, .to = to};
  double bend = (5.77 * fabs(h) + 3 * fabs(v)) / (l * l); /* 1/m, most of it */
  w->speed = fmin(l * m->steer_rate / (4 * m->wheelbase * fmax(bend, 1e-6)),
                  sqrt(LATERAL / fmax(bend, 1e-6)));
  w->speed = fmax(w->speed, 0.4 * m->length / 0.9);
  w->c[0] = d;
  w->c[1] = v;
  w->c[3] = 10 * h - 6 * v;
  w->c[4] = -15 * h + 8 * v;
  w->c[5] = 6 * h - 3 * v;
}

double dj__swerve_at(const dj__swerve *w, double s, double *slope, double *bend) {
  double u = w->length > 0 ? (s - w->s0) / w->length : 1;
  const double *c = w->c;
  if (u >= 1 || u < 0) {
    if (slope) *slope = 0;
    if (bend) *bend = 0;
    return u < 0 ? c[0] : w->to;
  }
  double l = w->length;
  if (slope) *slope = (c[1] + u * (2 * c[2] + u * (3 * c[3] + u * (4 * c[4] + u * 5 * c[5])))) / l;
  if (bend) *bend = (2 * c[2] + u * (6 * c[3] + u * (12 * c[4] + u * 20 * c[5]))) / (l * l);
  return c[0] + u * (c[1] + u * (c[2] + u * (c[3] + u * (c[4] + u * c[5]))));
}

/* ---- rolling forward ---- */
typedef struct roll {
  const dj__expert *e;
  double half, wide;            /* of the ego's box */
  double s0, step;              /* of the table */
  float d[TABLE], front[TABLE]; /* of the path, and of the front edge's middle when it is there */
} roll;

static float path_at(const roll *r, double s) {
  int i = (int)((s - r->s0) / r->step + 0.5);
  return r->d[i < 0 ? 0 : i > TABLE - 1 ? TABLE - 1 : i];
}

static float front_at(const roll *r, double s) {
  int i = (int)((s - r->s0) / r->step + 0.5);
  return r->front[i < 0 ? 0 : i > TABLE - 1 ? TABLE - 1 : i];
}

static bool in_way(const roll *r, const dj__box *b, double from, double to, float margin) {
  double lo = fmax((double)b->lo, from), hi = fmin((double)b->hi, to);
  if (hi < lo) hi = lo;
  float p = path_at(r, lo), q = path_at(r, hi), u = front_at(r, lo), v = front_at(r, hi);
  float w = (float)r->wide + margin;
  float right = fminf(fminf(p, q), fminf(u, v)) - w, left = fmaxf(fmaxf(p, q), fmaxf(u, v)) + w;
  return b->left > right && b->right < left;
}

static double follow(const dj__expert *e, double v, double gap, double lead, double least) {
  double accel = fmin(ACCEL, e->model->max_accel * 0.7);
  double wanted = v * HEADWAY + v * (v - lead) / (2 * sqrt(accel * BRAKE));
  double q = (least + fmax(0, wanted)) / fmax(gap, 0.05);
  double a = accel * (1 - q * q);
  /* IDM brakes harder than it has to when something comes in near but as fast: no harder than
   * constant braking to the other's speed needs, and a little (Kesting et al. 2010, IDM with
   * constant-acceleration heuristic) */
  double room = fmax(gap - 0.25 * least, 0.15),
         need = v > lead ? (v - lead) * (v - lead) / (2 * room) : 0;
  if (a < -BRAKE && need < -a) a = fmax(a, -1.12 * need - 0.3);
  return fmax(a, -HARDEST);
}

/* Free road. */
static double approach(const dj__expert *e, double s, double v, double most) {
  double accel = fmin(ACCEL, e->model->max_accel * 0.7);
  double v0 = fmin(most, fmin(speed_at(e, s + 0.8 * v), speed_at(e, s)));
  double a = (v0 - v) / 0.65;
  if (a > 0) return fmin(a, accel * fmax(0.25, 1 - pow(v / fmax(v0, 0.1), 4)));
  return fmax(a, -2.8);
}

/* Does somebody who crosses the way leave it before the ego is there? */
static bool leaves(const roll *r, const dj__seen *o, int i, double s, double v, double gap) {
  const dj__box *b = &o->at[i];
  if (o->v < 0.7 || (double)b->along > 0.7 * o->v || gap < 1.5 * r->e->scale) return false;
  if (o->person && gap < 0.8 * v + v * v / (2 * 2.5)) return false; /* people may stop, too */
  int there = i + (int)(gap / fmax(v, 2) / DJ__AHEAD_DT);
  for (int j = there > i ? there - 1 : i; j <= there + 1; j++) {
    if (j > o->to) return true;
    if (in_way(r, &o->at[j], s - r->half, HUGE_VAL, o->margin)) return false;
  }
  return true;
}

/* The acceleration that one agent allows at forecast step i. */
static double heed(const roll *r, const dj__seen *o, int i, double s, double v) {
  const dj__expert *e = r->e;
  double front = s + r->half, least = (o->passable && fabs(o->v) < 0.5 ? 6.5 : 2.2) * e->scale;
  double a = HUGE_VAL;
  const dj__box *b = &o->at[i];
  if (i >= o->from && i <= o->to && (double)b->hi > s - 0.2 * r->half &&
      in_way(r, b, s - r->half, HUGE_VAL,
             (double)b->lo < front ? 0.1f * (float)e->scale
                                   : o->margin)) { /* beside it: must fit */
    double gap = (double)b->lo - front;
    if (!leaves(r, o, i, s, v, gap)) a = follow(e, v, gap, fmax((double)b->along, -15), least);
  }
  int last = i + LOOK < o->to ? i + LOOK : o->to;
  for (int j = i + 1 > o->from ? i + 1 : o->from; j <= last; j++) {
    b = &o->at[j];
    double pos = s + v * (j - i) * DJ__AHEAD_DT, near = 0.6 * e->scale + 0.15 * v;
    if ((double)b->lo > pos + r->half + near || (double)b->hi < pos - r->half - near) continue;
    if ((double)b->hi < front && (double)b->along < v) continue; /* braking would not help */
    if (!in_way(r, b, s - r->half, HUGE_VAL, o->margin)) continue;
    double gap = (double)b->lo - front - fmax(0, (double)b->along) * (j - i) * DJ__AHEAD_DT * 0.8;
    a = fmin(a, follow(e, v, fmax(gap, 0.3), fmax((double)b->along, 0), 1.5 * e->scale));
  }
  return a;
}

static bool hits(const roll *r, const dj__seen *o, int j, double s) {
  const dj__box *b = &o->at[j];
  if (j < o->from || j > o->to) return false;
  if ((double)b->lo > s + r->half + 0.2 * r->e->scale || (double)b->hi < s - r->half) return false;
  return in_way(r, b, s - r->half, s + r->half, 0.1f * (float)r->e->scale);
}

/* The way, and back to the lane where that will be possible. */
static double and_back(const dj__expert *e, const dj__plan *p, double s, double *slope) {
  if (s < p->back || p->way.to == 0) return dj__swerve_at(&p->way, s, slope, NULL);
  double length = (10 + 2.5 * fabs(p->way.to)) * e->scale, u = fmin(1, (s - p->back) / length);
  if (slope) *slope = -p->way.to * 30 * u * u * (1 - u) * (1 - u) / length;
  return p->way.to * (1 - u * u * u * (10 - 15 * u + 6 * u * u));
}

/* Where the plan leads, at even stations. */
static void roll_make(roll *r, const dj__expert *e, const dj__plan *p) {
  *r = (roll){.e = e, .half = 0.5 * e->model->length, .wide = 0.5 * e->model->width};
  r->step = fmax(0.1, 1.5 * e->scale);
  r->s0 = e->mid - 8 * e->scale;
  double ahead = e->model->wheelbase + e->model->front, slope;
  for (int i = 0; i < TABLE; i++) {
    double at = r->s0 + i * r->step, d = and_back(e, p, at - ahead, &slope);
    r->d[i] = (float)and_back(e, p, at, NULL);
    double bend = dj__guide_at(&e->guide, at - 0.5 * ahead).curvature; /* the front swings out */
    double out = bend * 0.25 * (ahead * ahead - 0.5 * e->model->wheelbase * e->model->wheelbase);
    r->front[i] = (float)(d + ahead * slope - fmax(-0.8, fmin(0.8, out)));
  }
}

static void roll_forward(const dj__expert *e, dj__plan *p) {
  roll r;
  roll_make(&r, e, p);
  double swerves = p->way.s0 + p->way.length + 0.5 * e->model->wheelbase;
  double s = e->mid, v = e->v;
  p->hit = HUGE_VAL;
  p->blocker = -1;
  p->opposed = false;
  p->lowest = 0;
  for (int i = 0; i < DJ__AHEAD; i++) {
    double a = approach(e, s, v, s < swerves ? p->way.speed : HUGE_VAL), held = HUGE_VAL;
    for (int k = 0; k < e->n_stop; k++) {
      double gap = e->stop[k].s - (s + r.half);
      if (gap > -1.5 * e->scale && gap < 150) a = fmin(a, follow(e, v, gap, 0, e->stop[k].gap));
    }
    for (int k = 0; k < e->n_seen; k++) {
      if (e->seen[k].behind) continue;
      double x = heed(&r, &e->seen[k], i, s, v);
      if (x < held) {
        held = x;
        if (x < 0.3 && x < a && p->blocker < 0) p->blocker = k;
        if (x < 0 && x < a && e->seen[k].oncoming) p->opposed = true;
      }
    }
    a = fmax(-HARDEST, fmin(a, held));
    if (i == 0) p->accel = a;
    p->lowest = fmin(p->lowest, a);
    double next = fmax(0, v + a * DJ__AHEAD_DT);
    s += 0.5 * (v + next) * DJ__AHEAD_DT;
    v = next;
    for (int k = 0; k < e->n_seen && p->hit > 1e3; k++)
      if (!e->seen[k].behind && hits(&r, &e->seen[k], i + 1, s)) {
        p->hit = (i + 1) * DJ__AHEAD_DT;
        if (p->blocker < 0) p->blocker = k;
      }
  }
  p->progress = s - e->mid;
}

/* ---- whether to brake as hard as one can ---- */

/* Is the box in somebody's, t from now? */
static bool touches(const roll *r, const dj__seen *o, double t, double s) {
  double at = t / DJ__AHEAD_DT;
  int j = (int)at;
  if (j < o->from || j + 1 > o->to) return false;
  const dj__box *b = &o->at[j], *c = b + 1;
  float f = (float)(at - j);
  dj__box m = {.lo = b->lo + f * (c->lo - b->lo),
               .hi = b->hi + f * (c->hi - b->hi),
               .right = b->right + f * (c->right - b->right),
               .left = b->left + f * (c->left - b->left)};
  if ((double)m.lo > s + r->half + 0.2 * r->e->scale || (double)m.hi < s - r->half) return false;
  return in_way(r, &m, s - r->half, s + r->half, 0.1f * (float)r->e->scale);
}

typedef enum outcome { APART, CLOSE, HIT } outcome;

/* What comes of braking at up to `accel` from now on; close: less than 0.9 s from somebody. */
static outcome brake(const roll *r, double accel) {
  const dj__expert *e = r->e;
  const double dt = 0.15;
  double s = e->mid, v = e->v, a = e->accel;
  outcome worst = APART;
  for (int i = 0; i < 24 && v > 0; i++) {
    for (int k = 0; k < e->n_seen; k++) {
      const dj__seen *o = &e->seen[k];
      if (o->behind) continue;
      if (touches(r, o, i * dt, s)) return HIT;
      for (int n = 1; n <= 3 && worst == APART; n++)
        if (touches(r, o, i * dt + 0.3 * n, s + 0.3 * n * v)) worst = CLOSE;
    }
    a = fmax(accel, a - ONSET * dt);
    double next = fmax(0, v + a * dt);
    s += 0.5 * (v + next) * dt;
    v = next;
  }
  return worst;
}

bool dj__expert_emergency(const dj__expert *e, const dj__plan *p) {
  roll r;
  roll_make(&r, e, p);
  outcome soft = brake(&r, DJ__FIRMEST);
  return soft == HIT || (soft == CLOSE && brake(&r, -HARDEST) == APART);
}

/* ---- which paths ---- */

/* Offsets that keep the box on the road over the next metres. */
static void bounds(const dj__expert *e, double length, double *lo, double *hi) {
  double half = 0.5 * e->model->width + 0.45 * e->scale;
  *lo = -HUGE_VAL, *hi = HUGE_VAL;
  double step = fmax(e->guide.step, 2 * e->scale);
  for (int i = 0; i * step < length; i++) {
    dj__guide_point p = dj__guide_at(&e->guide, e->mid + i * step);
    *hi = fmin(*hi, p.left - half);
    *lo = fmax(*lo, half - p.right);
  }
  if (*lo > 0) *lo = 0;
  if (*hi < 0) *hi = 0;
}

static double change_length(const dj__expert *e, double by) {
  double b = fabs(by) / e->scale, v = (e->v + 1.5 * e->scale) * (e->scale < 1 ? 0.3 : 1);
  return fmax((9 + 2.6 * b) * e->scale, v * (1.2 + 1.5 * sqrt(b)));
}

/* Length that the wheels' lock allows at a walk. */
static double tightest(const dj__expert *e, double by) {
  double lock = 0.75 * tan(e->model->max_steer) / e->model->wheelbase; /* 1/m */
  return sqrt(5.77 * fabs(by) / lock);
}

static void price(const dj__expert *e, dj__plan *p, double most) {
  dj__guide_point g = dj__guide_at(&e->guide, p->way.s0 + p->way.length);
  double half = 0.5 * e->model->width, to = p->way.to, scale = e->scale;
  double over_left = to + half - g.same_left, over_right = -to + half - g.same_right;
  double own = fmax(to + half - g.own_left, -to + half - g.own_right);
  p->cost += most - p->progress + (0.8 * fabs(to) + 0.7 * fabs(to - e->way.to)) / scale;
  double shy = e->waited > 5 ? 0.4 : 1; /* of what is not its lane */
  if (own > 0.2 * scale) p->cost += 2 * shy;
  if (over_left > 0.2 * scale) p->cost += p->opposed ? 45 : 5 * shy;
  if (over_right > 0.2 * scale) p->cost += 3;
  double late = DJ__AHEAD * DJ__AHEAD_DT - p->hit;
  bool same = fmax(over_left, over_right) <= 0.2 * scale; /* much can change until then there */
  if (p->hit < 1e3) p->cost += p->hit > 4 && same ? 5 + 5 * late : 60 + 60 * late;
  p->cost += 4 * fmax(0, -p->lowest - 3.5);
  if (to == 0 && p->blocker >= 0 && e->seen[p->blocker].passable) { /* would stand athwart */
    double room = (double)e->seen[p->blocker].at[0].lo - 6 * scale - e->model->front;
    if (p->way.s0 + p->way.length > room && fabs(p->way.c[0]) > 0.7 * scale) p->cost += 25;
  }
}

typedef struct plans {
  dj__plan p[MAX_PLANS];
  int n;
  double lo, hi, d, slope;
} plans;

/* Swings out further than the road is wide before it comes to where it leads. */
static bool leaves_road(const plans *all, const dj__swerve *w) {
  enum { SAMPLES = 8 };
  for (int i = 1; i < SAMPLES; i++) {
    double d = dj__swerve_at(w, w->s0 + w->length * i / SAMPLES, NULL, NULL);
    if (d < fmin(all->lo, all->d) - 0.1 || d > fmax(all->hi, all->d) + 0.1) return true;
  }
  return false;
}

/* Rolls out the way to offset `to`, unless there is one like it already. */
static dj__plan *try_offset(const dj__expert *e, plans *all, double to, double quick, double back) {
  to = fmax(all->lo, fmin(all->hi, to));
  for (int i = 0; i < all->n; i++)
    if (fabs(all->p[i].way.to - to) < 0.15 * e->scale && all->p[i].quick == quick)
      return &all->p[i];
  if (all->n == MAX_PLANS) return NULL;
  dj__plan *p = &all->p[all->n++];
  p->quick = quick;
  p->back = back;
  if (fabs(to - e->way.to) < 1e-6 && quick == 1)
    p->way = e->way;
  else
    dj__swerve_make(&p->way, e->s, all->d, all->slope, to,
                    fmax(tightest(e, to - all->d), quick * change_length(e, to - all->d)),
                    e->model);
  roll_forward(e, p);
  p->cost = leaves_road(all, &p->way) ? 60 : 0;
  return p;
}

/* Offsets that pass somebody on either side, with those close behind it (along the way) as well;
 * returns the station of their end. */
static double sides_of(const dj__expert *e, int blocker, double *left, double *right) {
  const dj__seen *o = &e->seen[blocker];
  double half = 0.5 * e->model->width, extra = 0.25 * e->scale, end = (double)o->at[0].hi;
  *left = (double)(o->at[0].left + o->margin) + half + extra;
  *right = (double)(o->at[0].right - o->margin) - half - extra;
  for (int pass = 0; pass < 3; pass++)
    for (int k = 0; k < e->n_seen; k++) {
      const dj__seen *q = &e->seen[k];
      if (k == blocker || !q->passable || fabs(q->v) > 0.5) continue;
      if ((double)q->at[0].lo > end + 14 * e->scale ||
          (double)q->at[0].hi < (double)o->at[0].lo - 14 * e->scale)
        continue;
      if ((double)q->at[0].right > *left + half || (double)q->at[0].left < *right - half) continue;
      end = fmax(end, (double)q->at[0].hi);
      *left = fmax(*left, (double)(q->at[0].left + q->margin) + half + extra);
      *right = fmin(*right, (double)(q->at[0].right - q->margin) - half - extra);
    }
  return end;
}

void dj__expert_plan(dj__expert *e, dj__plan *best) {
  plans all = {.n = 0};
  double slope;
  all.d = dj__swerve_at(&e->way, e->s, &slope, NULL);
  all.slope = slope;
  bounds(e, fmax(25 * e->scale, 2.5 * e->v), &all.lo, &all.hi);
  int row = dj__guide_row_at(&e->guide, e->mid + 0.5 * e->model->length);
  bool junction = e->map->lane[e->guide.row[row].a].junction >= 0;
  dj__plan *keep = try_offset(e, &all, e->way.to, 1, e->back),
           *home = try_offset(e, &all, 0, 1, HUGE_VAL);
  if (fabs(all.d) > 0.7 * e->scale) (void)try_offset(e, &all, 0, 0.6, HUGE_VAL);
  for (int k = 0; k < 2; k++) { /* round what blocks these two */
    const dj__plan *p = k ? keep : home;
    if (!p || p->blocker < 0) continue;
    const dj__seen *o = &e->seen[p->blocker];
    if (o->passable && (!junction || p->hit < 4 || e->waited > 3)) {
      double left, right;
      double back = sides_of(e, p->blocker, &left, &right) + 0.5 * e->model->length + 2 * e->scale;
      static const double quick[] = {1, 0.6, 0.38};
      for (int q = 0; q < (e->waited > 3 ? 3 : e->v < 4 * e->scale + 0.5 ? 2 : 1); q++) {
        if (left < all.hi + 0.05) (void)try_offset(e, &all, left, quick[q], back);
        if (right > all.lo - 0.05) (void)try_offset(e, &all, right, quick[q], back);
      }
    }
    if (p->hit < 3.5)
      for (int j = 1; j <= 3; j++) {
        (void)try_offset(e, &all, all.d + j * e->scale, 0.7, HUGE_VAL);
        (void)try_offset(e, &all, all.d - j * e->scale, 0.7, HUGE_VAL);
      }
  }
  double most = 0;
  for (int i = 0; i < all.n; i++) most = fmax(most, all.p[i].progress);
  const dj__plan *b = NULL;
  for (int i = 0; i < all.n; i++) {
    price(e, &all.p[i], most);
    if (!b || all.p[i].cost < b->cost - 1e-9) b = &all.p[i];
  }
  *best = *b;
}
