/* What the rescuer needs of the writer beyond the public header: records with ids of their own, and
 * chunks taken over as they are. */
#ifndef DOJO_FLEET_MCAP_WRITE_H
#define DOJO_FLEET_MCAP_WRITE_H

#include "fleet/mcap_wire.h"

/* Makes a schema or channel known under its own id and writes it. Known and equal: nothing happens.
 * Known and different: DJ_E_EXISTS. */
dj_status dj__mcap_define_schema(dj_mcap_writer *w, const dj_mcap_schema *s);
dj_status dj__mcap_define_channel(dj_mcap_writer *w, const dj_mcap_channel *c);
/* Could it be defined: is its id free, or does it mean the same? */
bool dj__mcap_agrees_schema(const dj_mcap_writer *w, const dj_mcap_schema *s);
bool dj__mcap_agrees_channel(const dj_mcap_writer *w, const dj_mcap_channel *c);
bool dj__mcap_has_channel(const dj_mcap_writer *w, uint16_t id);
bool dj__mcap_has_schema(const dj_mcap_writer *w, uint16_t id);

/* Takes over a chunk whose uncompressed records are `plain`; they were checked: only Schema,
 * Channel and Message records (and unknown ones), whole, messages of known channels or of channels
 * within. Ends the present chunk first. */
dj_status dj__mcap_write_chunk(dj_mcap_writer *w, const dj_mcap_chunk *c,
                               const unsigned char *plain);

#endif
