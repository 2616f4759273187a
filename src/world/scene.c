/*
 * Scenes: copied from a world's state, moved on in time, and lit. Light is worked out in arbitrary
 * units first (noon's sun on a white wall is about 1) and then scaled by automatic exposure, which
 * is a function of the light alone: the same scene always gives the same picture.
 */
#include <math.h>
#include <string.h>

#include "world/render_internal.h"

const char *dj__class_name(dj__class c) {
  static const char *const names[DJ__N_CLASSES] = {
      "sky",        "road",        "marking", "sidewalk", "terrain", "building",
      "vegetation", "pole",        "sign",    "light",    "car",     "truck",
      "bus",        "two-wheeler", "person",  "barrier",  "water"};
  return c >= 0 && c < DJ__N_CLASSES ? names[c] : "unknown";
}

static void actor_of(const dj__agents *a, int i, dj__actor *o) {
  *o = (dj__actor){.id = a->id[i],
                   .kind = a->kind[i],
                   .flags = a->flags[i],
                   .lamps = a->lamps[i],
                   .variant = a->variant[i],
                   .x = a->x[i],
                   .y = a->y[i],
                   .z = a->z[i],
                   .yaw = a->yaw[i],
                   .pitch = a->pitch[i],
                   .roll = a->roll[i],
                   .length = a->length[i],
                   .width = a->width[i],
                   .height = a->height[i],
                   .speed = a->speed[i],
                   .steer = a->steer[i]};
}

void dj__scene_of(const dj__world *w, double reach, dj__scene *s) {
  const dj__agents *a = &w->agents;
  const dj__ego *e = &w->ego;
  double rear = e->model->wheelbase - e->model->cg_front; // from the centre of gravity backwards
  if (!(reach > 0)) reach = 250;
  *s = (dj__scene){.time = (double)w->step * DJ__WORLD_DT + w->config.start_time,
                   .x = e->x - rear * cos(e->yaw),
                   .y = e->y - rear * sin(e->yaw),
                   .yaw = (float)e->yaw,
                   .yaw_rate = (float)e->yaw_rate,
                   .speed = (float)e->vx,
                   .weather = w->config.weather};
  if (a->n > 0) {
    s->pitch = a->pitch[0];
    s->roll = a->roll[0];
    s->ego_id = a->id[0];
    actor_of(a, 0, &s->actor[s->n_actor++]);
  }
  s->z = (float)dj__map_height(w->map, s->x, s->y);
  for (int i = 1; i < a->n && s->n_actor < DJ__SCENE_ACTORS; i++) {
    if (!(a->flags[i] & DJ__AGENT_LIVE)) continue;
    double dx = a->x[i] - e->x, dy = a->y[i] - e->y;
    if (dx * dx + dy * dy > reach * reach) continue;
    actor_of(a, i, &s->actor[s->n_actor++]);
  }
}

void dj__scene_at(const dj__scene *s, double dt, dj__scene *out) {
  *out = *s;
  out->time += dt;
  double yaw = s->yaw + 0.5 * s->yaw_rate * dt; // middle of the arc
  out->x += s->speed * dt * cos(yaw);
  out->y += s->speed * dt * sin(yaw);
  out->z += (float)(s->speed * dt * -sin(s->pitch));
  out->yaw += (float)(s->yaw_rate * dt);
  for (int i = 0; i < s->n_actor; i++) {
    dj__actor *a = &out->actor[i];
    a->x += a->speed * dt * cos(a->yaw);
    a->y += a->speed * dt * sin(a->yaw);
    if (a->length > 1 && fabsf(a->steer) > 0)
      a->yaw += (float)(a->speed * dt * tan(a->steer) / (0.6 * a->length));
  }
}

// ---- light -------------------------------------------------------------------------------------

static float smooth(float lo, float hi, float x) {
  float t = (x - lo) / (hi - lo);
  t = t < 0 ? 0 : t > 1 ? 1 : t;
  return t * t * (3 - 2 * t);
}
static void blend(float out[3], const float a[3], const float b[3], float t) {
  for (int k = 0; k < 3; k++) out[k] = a[k] + (b[k] - a[k]) * t;
}
static void scale(float c[3], float k) {
  for (int i = 0; i < 3; i++) c[i] *= k;
}
static float grey(const float c[3]) {
  return 0.2126f * c[0] + 0.7152f * c[1] + 0.0722f * c[2];
}

/* Sun light through the air: extinction by air mass, more for blue. */
static void sun_light(float up, float cloud, float c[3]) {
  static const float extinction[3] = {0.06f, 0.13f, 0.27f};
  float mass = 1 / (fmaxf(up, 0) + 0.09f);
  for (int k = 0; k < 3; k++)
    c[k] = 1.45f * expf(-extinction[k] * mass) * smooth(-0.03f, 0.04f, up) * (1 - 0.97f * cloud);
}

static void sky_colours(dj__sky *k, float up, float cloud) {
  static const float night_z[3] = {0.0016f, 0.0024f, 0.0055f},
                     night_h[3] = {0.0055f, 0.0062f, 0.0095f};
  static const float dusk_z[3] = {0.045f, 0.065f, 0.14f}, dusk_h[3] = {0.34f, 0.22f, 0.16f};
  static const float day_z[3] = {0.15f, 0.30f, 0.62f}, day_h[3] = {0.60f, 0.73f, 0.87f};
  static const float white[3] = {0.62f, 0.65f, 0.69f};
  float day = smooth(0.02f, 0.40f, up), dusk = smooth(-0.20f, 0.05f, up);
  float z[3], h[3];
  blend(z, night_z, dusk_z, dusk);
  blend(z, z, day_z, day);
  blend(h, night_h, dusk_h, dusk);
  blend(h, h, day_h, day);
  float dull[3];
  for (int i = 0; i < 3; i++)
    dull[i] = white[i] * (0.008f + 0.22f * dusk + 0.55f * day); // under a closed cover of cloud
  blend(k->zenith, z, dull, cloud * 0.96f);
  blend(k->fog, h, dull, cloud * 0.94f);
}

static void clouds(dj__sky *k, const dj__weather *w) {
  k->cloud[0] = 0.72f - 0.58f * w->cloud;
  k->cloud[1] = 4.5f - 2.0f * w->cloud;
  for (int i = 0; i < 3; i++)
    k->cloud_colour[i] = 0.45f * k->sun_colour[i] + 0.75f * k->fog[i] + 0.25f * k->zenith[i];
}

void dj__sky_of(const dj__weather *w, float exposure_stops, dj__sky *k) {
  *k = (dj__sky){0};
  float up = sinf(w->sun_elevation), flat = cosf(w->sun_elevation);
  float cloud = fminf(1, fmaxf(w->cloud, fmaxf(w->rain, w->fog * 0.9f)));
  float cover = smooth(0.35f, 0.95f, cloud); // few clouds leave the sun alone
  float low = fmaxf(up, 0.10f), side = up < 0.10f ? sqrtf(1 - low * low) : flat;
  k->sun[0] = side * cosf(w->sun_azimuth);
  k->sun[1] = side * sinf(w->sun_azimuth);
  k->sun[2] = low;
  sun_light(up, cover, k->sun_colour);
  sky_colours(k, up, cover);
  for (int i = 0; i < 3; i++) {
    k->sky[i] = 1.0f * (0.55f * k->zenith[i] + 0.45f * k->fog[i]) + 0.10f * cover * k->fog[i];
    k->sky[i] = 0.7f * k->sky[i] + 0.3f * (k->fog[i] * 0.62f); // less blue than the sky itself
    k->ground[i] = 0.24f * (k->sky[i] + 0.55f * k->sun_colour[i] * fmaxf(up, 0));
    k->glow[i] = 0.5f * k->sun_colour[i];
  }
  for (int i = 0; i < 3; i++) k->zenith[i] *= 1 + 0.35f * (1 - cover); // eyes like it blue
  clouds(k, w);
  k->night = 1 - smooth(-0.06f, 0.12f, up + 0.05f * (1 - cover));
  k->density = 0.00045f + 0.0016f * w->rain + 0.075f * w->fog * w->fog;
  k->haze = fminf(1, 1.15f * w->fog + 0.35f * w->rain);
  k->wet = fmaxf(w->wet, w->rain);
  k->shadow = grey(k->sun_colour) * low / (grey(k->sun_colour) * low + grey(k->sky) + 1e-4f);
  float mean = grey(k->sun_colour) * fmaxf(up, 0) + 1.2f * grey(k->sky) + 0.03f * k->night;
  float exposure = 1.25f / (0.08f + mean) * exp2f(exposure_stops);
  scale(k->sun_colour, exposure);
  scale(k->sky, exposure);
  scale(k->ground, exposure);
  scale(k->zenith, exposure);
  scale(k->fog, exposure);
  scale(k->glow, exposure);
  scale(k->cloud_colour, exposure);
  k->lamp = 0.046f * exposure * k->night;
}
