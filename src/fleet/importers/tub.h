/* Parsers of a Donkeycar tub (v2): manifest and catalogues. */
#ifndef DOJO_FLEET_TUB_H
#define DOJO_FLEET_TUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dojo/status.h"

typedef struct dj__tub_record {
  int64_t index;
  int64_t t_ms;           // -1: the record has none
  double angle, throttle; // as in the file: angle positive to the right, -1..1
  bool pilot;             // a network drove, not a person
  const char *catalog;    // file, for messages (the tub's)
  size_t line;
  char *image; // base name
} dj__tub_record;

typedef struct dj__tub {
  char **catalogs; // names within the tub, in order
  size_t n_catalogs;
  int64_t *deleted; // sorted
  size_t n_deleted;
  dj__tub_record *records;
  size_t n_records, cap;
} dj__tub;

/* Told of a broken catalogue line; DJ_OK: go on behind it. */
typedef dj_status dj__tub_bad_fn(void *user, dj_status s);

dj_status dj__tub_parse_manifest(const char *name, const void *data, size_t size, dj__tub *tub);
/* Appends the records of a catalogue; deleted ones are left out. `catalog` must outlive the tub. */
dj_status dj__tub_parse_catalog(const char *catalog, const void *data, size_t size,
                                dj__tub_bad_fn *bad, void *user, dj__tub *tub);
void dj__tub_free(dj__tub *tub);

#endif
