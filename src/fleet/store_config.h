/* store.json: the options a user chose for a store. Internal to src/fleet. */
#ifndef DOJO_FLEET_STORE_CONFIG_H
#define DOJO_FLEET_STORE_CONFIG_H

#include "dojo/store.h"

/* The split options of `drive` (NULL: the store's own) from the file; defaults where it is silent
 * or missing. DJ_E_FORMAT names file and key. */
dj_status dj__config_split(const char *file, const char *drive, dj_split_options *o);
dj_status dj__config_set_split(const char *file, const char *drive, const dj_split_options *o);
/* Drops what the file says about a drive; fine where it says nothing. */
dj_status dj__config_forget(const char *file, const char *drive);

#endif
