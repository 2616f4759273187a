/*
 * Linux overcommits: an allocation succeeds and the process is killed when it uses it. So large
 * ones are held against what is there first. Sources: MemAvailable of proc(5); memory.max and
 * memory.current of control groups, version 2 (as a container sees them), else version 1.
 */
#include "base/memory.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool read_number(const char *path, uint64_t *n) {
  FILE *f = fopen(path, "re");
  if (!f) return false;
  bool ok = fscanf(f, "%" SCNu64, n) == 1; // "max" is no number: no limit
  (void)fclose(f);
  return ok;
}

static uint64_t available_to_all(void) {
  FILE *f = fopen("/proc/meminfo", "re");
  if (!f) return UINT64_MAX;
  char line[128];
  uint64_t kib = 0;
  bool found = false;
  while (!found && fgets(line, sizeof line, f))
    found = sscanf(line, "MemAvailable: %" SCNu64 " kB", &kib) == 1;
  (void)fclose(f);
  return found ? kib << 10 : UINT64_MAX;
}

uint64_t dj__memory_available(void) {
  static const char *const groups[][2] = {
      {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
      {"/sys/fs/cgroup/memory/memory.limit_in_bytes",
       "/sys/fs/cgroup/memory/memory.usage_in_bytes"}};
  uint64_t least = available_to_all();
  for (int i = 0; i < 2; i++) {
    uint64_t limit, used;
    if (!read_number(groups[i][0], &limit) || !read_number(groups[i][1], &used)) continue;
    uint64_t left = limit > used ? limit - used : 0;
    if (left < least) least = left;
  }
  return least;
}
