/*
 * Scores of drives. Everything here is a function of a dj__history: no map, no world, so that
 * hand-made drives can be scored as well. Definitions: score.h.
 */
#include "world/score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "drive/metrics.h"
#include "world/world.h"

/* nuPlan's thresholds (nuplan-devkit, comfort metrics), as NAVSIM uses them. */
#define MAX_AX        2.40 /* m/s^2 */
#define MIN_AX        (-4.05)
#define MAX_AY        4.89
#define MAX_JERK      8.37 /* m/s^3 */
#define MAX_LON_JERK  4.13
#define MAX_YAW_RATE  0.95 /* rad/s */
#define MAX_YAW_ACCEL 1.93 /* rad/s^2 */
#define STANDS        0.05 /* m/s: below it somebody counts as standing */
#define STANDS_TTC    0.005
#define OVERSPEED     2.23 /* m/s */
#define ONCOMING_M    2.0  /* m */
#define EPISODE_GAP   1.0  /* s */
#define SPEEDING_S    1.0
#define AHEAD_RAD     (30 * M_PI / 180)
#define BEHIND_RAD    (150 * M_PI / 180)
enum { MAX_HIT = 64, SMOOTH = 8, DERIVE = 15 /* half windows of 0.8 and 1.5 s, in steps */ };

const char *dj__end_name(dj__drive_end e) {
  static const char *const names[DJ__N_ENDS] = {"arrived",  "time",     "collision",
                                                "off_road", "deviated", "blocked"};
  return e >= 0 && e < DJ__N_ENDS ? names[e] : "?";
}

const char *dj__infraction_name(dj__infraction i) {
  static const char *const names[DJ__N_INFRACTIONS] = {
      "collision_vehicle", "collision_person", "collision_thing", "red_light", "stop_sign",
      "off_road",          "wrong_lane",       "speeding",        "deviation", "blocked"};
  return i >= 0 && i < DJ__N_INFRACTIONS ? names[i] : "?";
}

/* ---- histories ---- */
dj_status dj__history_add(dj__history *h, const dj__history_step *s,
                          const dj__history_agent *agents, int n) {
  if (h->n_step == h->cap_step) {
    size_t cap = h->cap_step ? 2 * h->cap_step : 256;
    dj__history_step *p = realloc(h->step, cap * sizeof *p);
    if (!p) return dj_error(DJ_E_NOMEM, "no memory for a drive of %zu steps", cap);
    h->step = p;
    h->cap_step = cap;
  }
  if (h->n_agent + (size_t)n > h->cap_agent) {
    size_t cap = 2 * h->cap_agent + (size_t)n + 1024;
    dj__history_agent *p = realloc(h->agent, cap * sizeof *p);
    if (!p) return dj_error(DJ_E_NOMEM, "no memory for a drive with %zu agents", cap);
    h->agent = p;
    h->cap_agent = cap;
  }
  if (n) memcpy(h->agent + h->n_agent, agents, (size_t)n * sizeof *agents);
  h->step[h->n_step] = *s;
  h->step[h->n_step].agent0 = (int)h->n_agent;
  h->step[h->n_step++].n_agent = n;
  h->n_agent += (size_t)n;
  return DJ_OK;
}

void dj__history_free(dj__history *h) {
  free(h->step);
  free(h->agent);
  *h = (dj__history){0};
}

/* ---- geometry ---- */

/* Separating axes of two rectangles (Gottschalk, Lin & Manocha 1996), along the first one's. */
static bool apart(double dx, double dy, double ayaw, double al, double aw, double byaw, double bl,
                  double bw) {
  double c = cos(ayaw), s = sin(ayaw), r = byaw - ayaw;
  double rc = fabs(cos(r)), rs = fabs(sin(r));
  double lon = fabs(c * dx + s * dy), lat = fabs(c * dy - s * dx);
  return lon > 0.5 * (al + bl * rc + bw * rs) || lat > 0.5 * (aw + bl * rs + bw * rc);
}

bool dj__boxes_touch(double ax, double ay, double ayaw, double al, double aw, double bx, double by,
                     double byaw, double bl, double bw) {
  double dx = bx - ax, dy = by - ay, reach = 0.5 * (hypot(al, aw) + hypot(bl, bw));
  if (dx * dx + dy * dy > reach * reach) return false;
  return !apart(dx, dy, ayaw, al, aw, byaw, bl, bw) && !apart(-dx, -dy, byaw, bl, bw, ayaw, al, aw);
}

/* Angle at which somebody is seen from the ego's middle, 0: straight ahead, 0..pi. */
static double bearing(const dj__history_step *s, double x, double y) {
  return fabs(remainder(atan2(y - s->y, x - s->x) - s->yaw, 2 * M_PI));
}

/* Would the ego, going on for `ego_dt` as it is, touch `a`, who goes on for `dt`? */
static bool touches(const dj__history *h, const dj__history_step *s, const dj__history_agent *a,
                    double ego_dt, double dt) {
  double e = ego_dt * s->speed, v = dt * (double)a->speed, yaw = (double)a->yaw;
  double dx = (double)a->x - s->x, dy = (double)a->y - s->y;
  double reach = 0.5 * (h->length + h->width + (double)a->length + (double)a->width) + fabs(e) +
                 fabs(v); // cheap, and never too small
  if (dx * dx + dy * dy > reach * reach) return false;
  return dj__boxes_touch(s->x + e * cos(s->yaw), s->y + e * sin(s->yaw), s->yaw, h->length,
                         h->width, (double)a->x + v * cos(yaw), (double)a->y + v * sin(yaw), yaw,
                         (double)a->length, (double)a->width);
}

/* The same after `dt`, with the other where it really is by then; behind the end of the history, or
 * where it is too far away to be in it, it goes on as it is. */
static bool meets(const dj__history *h, size_t i, const dj__history_agent *a, double dt) {
  size_t then = i + (size_t)lround(dt / DJ__WORLD_DT);
  if (then < h->n_step) {
    const dj__history_step *s = &h->step[then];
    for (int k = s->agent0; k < s->agent0 + s->n_agent; k++)
      if (h->agent[k].id == a->id) return touches(h, &h->step[i], &h->agent[k], dt, 0);
  }
  return touches(h, &h->step[i], a, dt, dt);
}

/* Does the ego's front edge cut the agent's box? The edge is a box without length. */
static bool front_touches(const dj__history *h, const dj__history_step *s,
                          const dj__history_agent *a) {
  double x = s->x + 0.5 * h->length * cos(s->yaw), y = s->y + 0.5 * h->length * sin(s->yaw);
  return dj__boxes_touch(x, y, s->yaw, 0, h->width, (double)a->x, (double)a->y, (double)a->yaw,
                         (double)a->length, (double)a->width);
}

bool dj__at_fault(const dj__history *h, const dj__history_step *s, const dj__history_agent *a) {
  if (fabs(s->speed) <= STANDS) return false;
  if (fabsf(a->speed) <= (float)STANDS) return true;
  if (bearing(s, (double)a->x, (double)a->y) > BEHIND_RAD) return false;
  if (front_touches(h, s, a)) return true;
  return (s->facts & (DJ__FACT_MANY_LANES | DJ__FACT_CORNER_OFF)) != 0;
}

/* ---- collisions and time to them ---- */
typedef struct hits { // whom the ego touched already: each counts once
  uint32_t id[MAX_HIT];
  int n;
} hits;

static bool was_hit(const hits *k, uint32_t id) {
  for (int i = 0; i < k->n; i++)
    if (k->id[i] == id) return true;
  return false;
}

static dj__infraction kind_of_hit(const dj__history_agent *a) {
  if (a->kind == DJ__PEDESTRIAN) return DJ__HIT_PERSON;
  return a->kind == DJ__CONE || a->kind == DJ__BARRIER ? DJ__HIT_THING : DJ__HIT_VEHICLE;
}

static void note_failure(dj__drive_score *s, double t) {
  s->failed = true;
  if (isnan(s->first_failure)) s->first_failure = t;
}

static void score_contacts(const dj__history *h, dj__drive_score *out) {
  static const double ahead_s[] = {0.3, 0.6, 0.9};
  hits hit = {0};
  for (size_t i = 0; i < h->n_step; i++) {
    const dj__history_step *s = &h->step[i];
    bool astray = (s->facts & (DJ__FACT_MANY_LANES | DJ__FACT_CORNER_OFF)) != 0;
    for (int k = s->agent0; k < s->agent0 + s->n_agent; k++) {
      const dj__history_agent *a = &h->agent[k];
      if (was_hit(&hit, a->id)) continue;
      if (touches(h, s, a, 0, 0)) {
        if (hit.n < MAX_HIT) hit.id[hit.n++] = a->id;
        if (!dj__at_fault(h, s, a)) {
          out->hit_by_others++;
          continue;
        }
        dj__infraction kind = kind_of_hit(a);
        out->infraction[kind]++;
        out->nc = fmin(out->nc, kind == DJ__HIT_THING ? 0.5 : 0);
        out->ttc = 0;
        note_failure(out, s->time);
      }
      if (out->ttc == 0 || fabs(s->speed) < STANDS_TTC) continue;
      double angle = bearing(s, (double)a->x, (double)a->y);
      if (angle >= AHEAD_RAD && !(astray && angle <= BEHIND_RAD)) continue;
      for (int j = 0; j < 3; j++)
        if (meets(h, i, a, ahead_s[j])) out->ttc = 0;
    }
  }
}

/* ---- comfort ---- */

/* Solves the n x n system in place (n <= 4), symmetric and positive definite. */
static void solve(double a[4][5], int n) {
  for (int i = 0; i < n; i++)
    for (int j = i + 1; j < n; j++) {
      double f = a[j][i] / a[i][i];
      for (int k = i; k <= n; k++) a[j][k] -= f * a[i][k];
    }
  for (int i = n - 1; i >= 0; i--) {
    for (int k = i + 1; k < n; k++) a[i][n] -= a[i][k] * a[k][n];
    a[i][n] /= a[i][i];
  }
}

/* Derivative `d` at sample i of the polynomial of `order` fitted to the 2 half + 1 samples around
 * it (at the ends, to the first or last so many): Savitzky & Golay 1964. Unit: of x, per s^d. */
static double fitted(const double *x, size_t n, size_t i, size_t half, int order, int d) {
  size_t m = 2 * half + 1, from = i > half ? i - half : 0;
  if (m > n) m = n;
  if (from + m > n) from = n - m;
  if (m <= (size_t)order) return d ? 0 : x[i];
  double a[4][5] = {{0}};
  for (size_t j = from; j < from + m; j++) {
    double t = ((double)j - (double)i) * DJ__WORLD_DT, p[7] = {1};
    for (int k = 1; k < 7; k++) p[k] = p[k - 1] * t;
    for (int r = 0; r <= order; r++) {
      for (int c = 0; c <= order; c++) a[r][c] += p[r + c];
      a[r][order + 1] += p[r] * x[j];
    }
  }
  solve(a, order + 1);
  static const double factorial[4] = {1, 1, 2, 6};
  return a[d][order + 1] * factorial[d];
}

static bool comfortable(const dj__history *h, double *work) {
  size_t n = h->n_step;
  double *ax = work, *ay = ax + n, *rate = ay + n, *size = rate + n, *raw = size + n;
  for (int k = 0; k < 2; k++) {
    for (size_t i = 0; i < n; i++) raw[i] = k ? h->step[i].ay : h->step[i].ax;
    for (size_t i = 0; i < n; i++) (k ? ay : ax)[i] = fitted(raw, n, i, SMOOTH, 2, 0);
  }
  for (size_t i = 0; i < n; i++) {
    rate[i] = h->step[i].yaw_rate;
    size[i] = hypot(ax[i], ay[i]);
  }
  for (size_t i = 0; i < n; i++) {
    if (ax[i] > MAX_AX || ax[i] < MIN_AX || fabs(ay[i]) > MAX_AY) return false;
    if (fabs(fitted(size, n, i, DERIVE, 2, 1)) > MAX_JERK) return false;
    if (fabs(fitted(ax, n, i, DERIVE, 2, 1)) > MAX_LON_JERK) return false;
    if (fabs(fitted(rate, n, i, DERIVE, 2, 0)) > MAX_YAW_RATE) return false;
    if (fabs(fitted(rate, n, i, DERIVE, 2, 1)) > MAX_YAW_ACCEL) return false;
  }
  return true;
}

/* ---- what needs the map's facts ---- */
typedef struct episode { // counts what goes on for some time, or some way, once
  double since, last, metres;
  bool on, counted;
} episode;

/* True at the moment when the episode has lasted for `seconds` and `metres`. */
static bool episode_step(episode *e, bool now, double t, double metres, double least_s,
                         double least_m) {
  if (!now) {
    if (e->on && t - e->last > EPISODE_GAP) *e = (episode){0};
    return false;
  }
  if (!e->on) *e = (episode){.since = t, .on = true};
  e->last = t;
  e->metres += metres;
  if (e->counted || t - e->since < least_s || e->metres < least_m) return false;
  return e->counted = true;
}

static void score_facts(const dj__history *h, dj__drive_score *out, double *metres_off) {
  episode off = {0}, oncoming = {0}, fast = {0}, deviated = {0};
  for (size_t i = 0; i < h->n_step; i++) {
    const dj__history_step *s = &h->step[i];
    double m = fabs(s->speed) * DJ__WORLD_DT, t = s->time;
    out->km += 1e-3 * m;
    if (s->facts & DJ__FACT_CORNER_OFF) out->dac = 0;
    if (s->facts & DJ__FACT_OFF_ROAD) *metres_off += m;
    if (episode_step(&off, s->facts & DJ__FACT_OFF_ROAD, t, m, 0, 0)) {
      out->infraction[DJ__LEFT_ROAD]++;
      note_failure(out, t);
    }
    bool wrong = (s->facts & DJ__FACT_ONCOMING) && !(s->facts & DJ__FACT_PASSING);
    if (episode_step(&oncoming, wrong, t, m, 0, ONCOMING_M)) out->infraction[DJ__WRONG_LANE]++;
    if (episode_step(&fast, s->speed > s->limit + OVERSPEED, t, m, SPEEDING_S, 0))
      out->infraction[DJ__SPEEDING]++;
    if (episode_step(&deviated, s->facts & DJ__FACT_DEVIATED, t, m, 0, 0)) {
      out->infraction[DJ__DEVIATED]++;
      note_failure(out, t);
    }
    if (s->facts & DJ__FACT_RED_LIGHT) {
      out->infraction[DJ__RAN_RED]++;
      note_failure(out, t);
    }
    if (s->facts & DJ__FACT_STOP_SIGN) out->infraction[DJ__RAN_STOP]++;
  }
  if (h->end == DJ__END_BLOCKED) {
    out->infraction[DJ__BLOCKED]++;
    note_failure(out, h->n_step ? h->step[h->n_step - 1].time : 0);
  }
}

/* Furthest along the route until `t`, m. */
static double progress_until(const dj__history *h, double t) {
  double most = 0;
  for (size_t i = 0; i < h->n_step && h->step[i].time <= t + 1e-9; i++)
    most = fmax(most, h->step[i].route_s);
  return most;
}

static double share(double part, double whole) {
  return whole > 0 ? fmin(1, fmax(0, part / whole)) : 0;
}

dj_status dj__score_drive(const dj__history *h, dj__drive_score *s) {
  *s = (dj__drive_score){
      .nc = 1, .dac = 1, .ttc = 1, .comfort = 1, .end = h->end, .first_failure = NAN};
  double *work = malloc((5 * h->n_step + 1) * sizeof *work), off = 0;
  if (!work) return dj_error(DJ_E_NOMEM, "no memory to score %zu steps", h->n_step);
  score_contacts(h, s);
  score_facts(h, s, &off);
  if (h->passengers && !comfortable(h, work)) s->comfort = 0;
  free(work);
  s->seconds = h->n_step ? h->step[h->n_step - 1].time : 0;
  s->arrived = h->end == DJ__END_ARRIVED;
  double done = s->arrived ? h->route_length : progress_until(h, INFINITY);
  double by_par = isnan(h->par) || (s->arrived && s->seconds <= h->par + 1e-9)
                      ? done
                      : progress_until(h, h->par);
  s->ep = share(by_par, h->route_length);
  s->completion = 100 * share(done - off, h->route_length);
  s->pdms = s->nc * s->dac * (5 * s->ttc + 2 * s->comfort + 5 * s->ep) / 12;
  static const double penalty[DJ__N_INFRACTIONS] = {[DJ__HIT_PERSON] = 0.50,
                                                    [DJ__HIT_VEHICLE] = 0.60,
                                                    [DJ__HIT_THING] = 0.65,
                                                    [DJ__RAN_RED] = 0.70,
                                                    [DJ__RAN_STOP] = 0.80};
  s->driving_score = s->completion;
  for (int i = 0; i < DJ__N_INFRACTIONS; i++)
    if (penalty[i] > 0) s->driving_score *= pow(penalty[i], s->infraction[i]);
  return DJ_OK;
}

/* ---- many drives ---- */
static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

dj_figure dj__ratio_with_interval(const double *a, const double *b, size_t n) {
  double drawn[DJ__RESAMPLES], sa = 0, sb = 0;
  for (size_t i = 0; i < n; i++) sa += a[i], sb += b[i];
  if (!(sb > 0)) return (dj_figure){NAN, NAN, NAN};
  dj__rng r = {.key = 95, .stream = 3};
  for (int k = 0; k < DJ__RESAMPLES; k++) {
    double da = 0, db = 0;
    for (size_t j = 0; j < n; j++) {
      size_t i = (size_t)dj__rng_below(&r, n);
      da += a[i], db += b[i];
    }
    drawn[k] = db > 0 ? da / db : sa / sb;
  }
  qsort(drawn, DJ__RESAMPLES, sizeof *drawn, ascending);
  return (dj_figure){sa / sb, drawn[(size_t)(0.025 * (DJ__RESAMPLES - 1) + 0.5)],
                     drawn[(size_t)(0.975 * (DJ__RESAMPLES - 1) + 0.5)]};
}

typedef double getter(const dj__drive_score *s);
static double get_pdms(const dj__drive_score *s) {
  return 100 * s->pdms;
}
static double get_nc(const dj__drive_score *s) {
  return 100 * s->nc;
}
static double get_dac(const dj__drive_score *s) {
  return 100 * s->dac;
}
static double get_ttc(const dj__drive_score *s) {
  return 100 * s->ttc;
}
static double get_ep(const dj__drive_score *s) {
  return 100 * s->ep;
}
static double get_comfort(const dj__drive_score *s) {
  return 100 * s->comfort;
}
static double get_driving(const dj__drive_score *s) {
  return s->driving_score;
}
static double get_completion(const dj__drive_score *s) {
  return s->completion;
}
static double get_arrived(const dj__drive_score *s) {
  return s->arrived ? 100 : 0;
}

static dj_figure mean_of(const dj__drive_score *s, size_t n, getter *get, double *work) {
  for (size_t i = 0; i < n; i++) work[i] = get(&s[i]);
  return dj__mean_with_interval(work, n, 1);
}

dj_status dj__score_suite(const dj__drive_score *s, size_t n, dj__suite_score *out) {
  *out = (dj__suite_score){.n = n};
  double *a = calloc(2 * n + 1, sizeof *a), *km = a + n;
  if (!a) return dj_error(DJ_E_NOMEM, "no memory to score %zu drives", n);
  out->pdms = mean_of(s, n, get_pdms, a);
  out->nc = mean_of(s, n, get_nc, a);
  out->dac = mean_of(s, n, get_dac, a);
  out->ttc = mean_of(s, n, get_ttc, a);
  out->ep = mean_of(s, n, get_ep, a);
  out->comfort = mean_of(s, n, get_comfort, a);
  out->driving_score = mean_of(s, n, get_driving, a);
  out->completion = mean_of(s, n, get_completion, a);
  out->arrived = mean_of(s, n, get_arrived, a);
  for (size_t i = 0; i < n; i++) {
    km[i] = s[i].km;
    out->km += s[i].km;
    out->hours += s[i].seconds / 3600;
    out->hit_by_others += s[i].hit_by_others;
    out->failures += s[i].failed;
  }
  for (int k = 0; k < DJ__N_INFRACTIONS; k++) {
    for (size_t i = 0; i < n; i++) a[i] = s[i].infraction[k];
    out->per_km[k] = dj__ratio_with_interval(a, km, n);
  }
  for (size_t i = 0; i < n; i++)
    a[i] = s[i].infraction[DJ__HIT_VEHICLE] + s[i].infraction[DJ__HIT_PERSON] +
           s[i].infraction[DJ__HIT_THING];
  out->collisions_per_km = dj__ratio_with_interval(a, km, n);
  for (size_t i = 0; i < n; i++) a[i] = s[i].failed ? 1 : 0;
  dj_figure rate = dj__ratio_with_interval(a, km, n);
  out->km_between_failures =
      out->failures ? (dj_figure){1 / rate.value, 1 / rate.high, rate.low > 0 ? 1 / rate.low : NAN}
                    : (dj_figure){NAN, out->km / 3, NAN};
  free(a);
  return DJ_OK;
}
