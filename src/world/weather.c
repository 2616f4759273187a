/* Weather presets, and what rain does to a road's friction. */
#include <math.h>
#include <string.h>

#include "world/ego.h"
#include "world/world.h"

#define DEG 0.01745329251994329577f

typedef struct preset {
  const char *name;
  dj__weather w; /* azimuth, elevation, cloud, rain, wet, fog, wind */
} preset;

static const preset PRESETS[] = {
    {"clear", {135 * DEG, 38 * DEG, 0.15f, 0, 0, 0, 2}},
    {"noon", {180 * DEG, 62 * DEG, 0.05f, 0, 0, 0, 1}},
    {"evening", {195 * DEG, 9 * DEG, 0.30f, 0, 0, 0.03f, 2}},
    {"overcast", {120 * DEG, 35 * DEG, 0.90f, 0, 0, 0.05f, 4}},
    {"rain", {120 * DEG, 30 * DEG, 1, 0.7f, 1, 0.15f, 6}},
    {"wet", {60 * DEG, 28 * DEG, 0.45f, 0, 0.8f, 0.05f, 3}},
    {"fog", {100 * DEG, 22 * DEG, 0.80f, 0, 0.3f, 0.6f, 1}},
    {"night", {0, -25 * DEG, 0.20f, 0, 0, 0, 2}},
    {"night-rain", {0, -25 * DEG, 1, 0.6f, 1, 0.12f, 5}},
};
enum { N_PRESETS = sizeof PRESETS / sizeof *PRESETS };

const char *const *dj__weather_names(int *n) {
  static const char *const names[N_PRESETS] = {"clear", "noon", "evening", "overcast",  "rain",
                                               "wet",   "fog",  "night",   "night-rain"};
  *n = N_PRESETS;
  return names;
}

dj_status dj__weather_find(const char *name, dj__weather *w) {
  for (int i = 0; i < N_PRESETS; i++)
    if (!strcmp(PRESETS[i].name, name)) {
      *w = PRESETS[i].w;
      return DJ_OK;
    }
  return dj_error(DJ_E_NOT_FOUND,
                  "there is no weather '%s'; known are clear, noon, evening, overcast, rain, wet, "
                  "fog, night, night-rain",
                  name);
}

/* Wong, "Theory of ground vehicles", table 1.3: asphalt dry 0.8 to 0.9, wet 0.5 to 0.7. */
double dj__road_friction(const dj__weather *w) {
  return 0.9 - 0.25 * (double)w->wet - 0.05 * (double)w->rain;
}
