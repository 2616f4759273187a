/* Any bytes as a tub: the part up to a line "%%" as its manifest, what follows as a catalogue. What
 * is given out keeps to the rules of tub.h: plain file names, numbers in range, rising indexes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fleet/importers/tub.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static dj_status go_on(void *user, dj_status s) {
  if (s != DJ_E_FORMAT || !strstr(dj_error_message(), "catalog:")) abort();
  ++*(size_t *)user;
  return DJ_OK;
}

static void check_name(const char *name) {
  size_t n = strlen(name);
  if (!n || n > 255 || name[0] == '.' || strpbrk(name, "/\\\n\r")) abort();
}

static void check(const dj__tub *tub, size_t size) {
  if (tub->n_records > size || tub->n_deleted > size || tub->n_catalogs > size) abort();
  for (size_t i = 0; i < tub->n_catalogs; i++) check_name(tub->catalogs[i]);
  for (size_t i = 0; i < tub->n_records; i++) {
    const dj__tub_record *r = &tub->records[i];
    check_name(r->image);
    if (!(r->angle >= -1 && r->angle <= 1) || !(r->throttle >= -1 && r->throttle <= 1)) abort();
    if (r->index < 0 || r->t_ms < -1 || (i && r->index <= r[-1].index)) abort();
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char mark[] = "\n%%\n";
  const uint8_t *cut = memmem(data, size, mark, sizeof mark - 1);
  size_t manifest = cut ? (size_t)(cut - data) : size, bad = 0;
  dj__tub tub = {0};
  if (dj__tub_parse_manifest("manifest", data, manifest, &tub) && !*dj_error_message()) abort();
  const uint8_t *catalog = cut ? cut + sizeof mark - 1 : data;
  if (dj__tub_parse_catalog("catalog", catalog, (size_t)(data + size - catalog), go_on, &bad, &tub))
    abort();
  check(&tub, size);
  dj__tub_free(&tub);
  return 0;
}
