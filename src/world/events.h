/* What other people do wrong: choice (events.c), those brought for it (events_stage.c), labels. */
#ifndef DOJO_WORLD_EVENTS_H
#define DOJO_WORLD_EVENTS_H

#include "world/traffic.h"
#include "world/world.h"

/* Before anyone moves. */
void dj__events_prepare(dj__world *w);
/* The way of some staged events is kept clear of those who have not been seen yet: all of them
 * when they have just been put. */
void dj__events_clear(dj__world *w);
/* Ends, goes on with and begins events; lists of the step are made already. */
void dj__events_step(dj__world *w);
uint64_t dj__events_digest(const dj__world *w, uint64_t h);

/* ---- between the two files ---- */
#define DJ__UNSEEN  85.0 /* m ahead where things may be put */
#define DJ__STAGE_S 45.0 /* s that a staged event has to begin before others may */
enum { DJ__MAX_EVENTS = 4096 };

float dj__event_draw(dj__world *w); /* [0, 1) */
int dj__event_begin(dj__world *w, dj__event_kind kind, int agent, dj__role role);
/* Whoever is in a position to do it does; false: nobody is. */
bool dj__event_cast(dj__world *w, dj__event_kind kind);
/* Someone is put where the ego does not see it, in a position to do it; it may have begun. */
bool dj__event_bring(dj__world *w, dj__event_kind kind);
/* The staged event: what is there from the start, and its part of a step. */
void dj__events_stage_prepare(dj__world *w);
void dj__events_stage(dj__world *w);

/* m that the ego needs to stop, with a second of reaction and 0.6 of what friction gives. */
double dj__ego_stopping(const dj__world *w, double v);
/* The lane of the route `dist` m ahead of the ego's middle; false beyond its end. */
bool dj__way_ahead(const dj__world *w, double dist, int *lane, double *s);
/* A plain stretch of road: no junction within `before` and `after` m. */
bool dj__way_plain(const dj__world *w, int lane, double s, double before, double after);
/* m from the ego's front to the rear of whoever is next in its lane; 1e9: nobody near. */
double dj__ego_leader(const dj__world *w, int *who);
/* The next light of the ego's way that is further than `least` m: its stop line and m from the
 * ego's front to it; -1: none. */
int dj__next_light(const dj__world *w, double least, double *dist);
/* m of road ahead of s without a crossing or a choice of ways; `through`: straight through
 * junctions where nobody else goes. */
double dj__plain_ahead(const dj__world *w, int lane, double s, bool through);
/* Least m between the ego at speed v and who comes into its lane at `speed`. */
double dj__cut_in_gap(double v, double speed);
/* Someone on a lane beside is chosen to cut in (cast.actor) when he can. */
bool dj__cut_in_actor(dj__world *w);
bool dj__is_free_rider(const dj__world *w, int i);
bool dj__is_unseen(const dj__world *w, int lane, double s);
/* A car in a spare slot, if there is room; or -1. */
int dj__event_vehicle(dj__world *w, int lane, double s, double lateral, double speed);

#endif
