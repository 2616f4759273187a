/*
 * A small generated drive as a Donkeycar tub (version 2), so that the whole way from recording to
 * evaluation can be walked without any recorded data.
 *
 *     DJ_TRY(dj_synth_tub("S/synth-7", 7, 2000));
 */
#ifndef DOJO_SYNTH_H
#define DOJO_SYNTH_H

#include <stdint.h>

#include "dojo/status.h"

/* Writes manifest.json, catalog_0.catalog and images/ (160x120 JPEG at 20 Hz) of a drive along a
 * winding lane into a new folder. The driver steers by pure pursuit and is pushed off the centre
 * now and then. The same seed gives the same drive. Errors: DJ_E_EXISTS, DJ_E_IO, DJ_E_NO_SPACE. */
dj_status dj_synth_tub(const char *folder, uint64_t seed, uint64_t frames);

#endif
