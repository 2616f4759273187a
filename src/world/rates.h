/*
 * How often others do what they should not in the drives of a suite, and what comes of it.
 *
 *     dj__event_tally *t = calloc(suite.n, sizeof *t);
 *     dj__event_rates r;
 *     DJ_TRY(dj__tally_suite(&suite, 0, t));                      // drives them all
 *     DJ_TRY(dj__event_rates_of(t, (size_t)suite.n, &r));         // r.per_hour[DJ__EVENT_CUT_IN]
 */
#ifndef DOJO_WORLD_RATES_H
#define DOJO_WORLD_RATES_H

#include "dojo/drive.h"
#include "world/drive.h"

typedef enum dj__touched { /* by a vehicle that drives */
                           DJ__TOUCHED_VEHICLE,
                           DJ__TOUCHED_PERSON,
                           DJ__TOUCHED_THING, /* parked cars, cones, barriers */
                           DJ__N_TOUCHED
} dj__touched;
const char *dj__touched_name(dj__touched k); /* "vehicle", ... */

typedef struct dj__event_tally { /* of one drive, or of several */
  int drives;
  double hours, vehicle_hours;   /* driven; of others that drive, cyclists too */
  int lights;                    /* that the ego came past */
  int by_itself[DJ__N_EVENTS];   /* begun without being staged */
  int asked[DJ__N_EVENTS];       /* drives that are to have it staged, */
  int staged[DJ__N_EVENTS];      /* and have */
  int struck[DJ__N_EVENTS];      /* of all: whom it names, or the ego, touched somebody while it
                                    lasted or in the DJ__AFTERMATH_S after */
  int contacts[DJ__N_TOUCHED];   /* of others that drive, the ego not among them */
  double fastest[DJ__N_TOUCHED]; /* m/s at which such came together */
  int ego_contacts;
} dj__event_tally;
#define DJ__AFTERMATH_S 5.0

/* Watches a drive of yours into *t. To be called after each step. */
typedef struct dj__event_watch dj__event_watch;
dj_status dj__event_watch_create(dj__event_tally *t, dj__event_watch **out);
dj_status dj__event_watch_step(dj__event_watch *s, const dj__world *w);
void dj__event_watch_destroy(dj__event_watch *s);

/* The expert drives; t is (s->n). Says its progress; the same at any number of threads (0: all
 * cores). */
dj_status dj__tally_suite(const dj__suite *s, int threads, dj__event_tally *t);

typedef struct dj__event_rates { /* with 95 % intervals: bootstrap over drives */
  dj__event_tally sum;
  dj_figure per_hour[DJ__N_EVENTS], per_vehicle_hour[DJ__N_EVENTS]; /* begun by themselves */
  dj_figure contacts_per_vehicle_hour[DJ__N_TOUCHED];
} dj__event_rates;
dj_status dj__event_rates_of(const dj__event_tally *t, size_t n, dj__event_rates *out);

#endif
