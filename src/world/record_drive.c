/*
 * One recorded drive: simulate | draw | encode | write, side by side.
 *
 * The caller's thread simulates and writes; drawing goes on in the renderer's threads between
 * dj__render_begin and dj__render_end, while the world is stepped to the next frame; pictures are
 * encoded by threads of their own (encode.h). Each step's moment is kept in a ring of 6 s. A frame
 * is written when the ring holds its whole future, everything in the order of time. The simulation
 * therefore goes 6 s on after the last frame; a drive that ends in a collision keeps only the
 * frames whose future does not see it.
 */
#include "world/record.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/rng.h"
#include "world/encode.h"
#include "world/labels.h"
#include "world/pupil.h"

enum {
  RING = DJ__AHEAD_STEPS + 1,                    // moments
  HELD = DJ__AHEAD_STEPS + 2 * DJ__ENCODE_DEPTH, // encoded frames waiting for their future
  STREAM_PUSH = 0x9054
};
static const uint64_t START_NS = 1700000000ull * 1000000000ull; // of every drive: they compare well
static const uint64_t STEP_NS = 50000000ull;

typedef struct recording {
  const dj__record_job *j;
  dj__world *w;
  dj__driver driver;
  dj__truth *labels;
  dj__encoders *encoders;
  dj_drive_writer *out;
  dj__scene scene;
  dj__moment ring[RING];        // of step i at i % RING
  dj__encoded held[HELD];       // of frame i at i % HELD
  uint64_t drawn, encoded;      // frames
  uint64_t written;             // steps
  uint64_t stride;              // steps a frame
  uint64_t last;                // the last step that is written: frames end there
  bool ended;                   // no more frames are drawn
  bool drawing;                 // dj__render_begin without its end
  double next_decision, origin; // s; m along the route at the start
  dj__command command;          // what the driver wants; a pupil may do something else
  dj__pupil pupil;
} recording;

// ---- driving -----------------------------------------------------------------------------------

double dj__perturbation(uint64_t seed, uint64_t step, double strength, double speed,
                        const dj__vehicle_model *v) {
  // Every 8 s a push may begin; triangles as in Codevilla et al., "End-to-end driving via
  // conditional imitation learning" (ICRA 2018), section IV-B.
  enum { PERIOD = 160 };
  uint64_t period = step / PERIOD;
  dj__u32x4 r = dj__philox(seed, period, STREAM_PUSH);
  if (strength <= 0 || period == 0 || speed < 2 * v->length / 4.5) return 0;
  double length = 12 + 16 * dj__u01(r.v[0]); // steps: 0.6 to 1.4 s
  double from = (PERIOD - length) * dj__u01(r.v[1]), at = (double)(step % PERIOD) - from;
  if (at < 0 || at > length) return 0;
  double pull = (0.8 + 1.2 * dj__u01(r.v[2])) * strength; // m/s^2 to the side
  double angle = fmin(pull * v->wheelbase / (speed * speed), 0.3 * v->max_steer);
  double shape = 1 - fabs(2 * at / length - 1);
  return (r.v[3] & 1 ? 1 : -1) * shape * angle / v->max_steer;
}

static float unit(double v, double lo) {
  return (float)fmin(fmax(v, lo), 1);
}

/* The driver's wish for this step; it decides at its own rate. */
static dj_status decide(recording *r) {
  double now = (double)r->w->step * DJ__WORLD_DT;
  if (now + 1e-9 < r->next_decision) return DJ_OK;
  dj__sense in = {.time = now, .speed = r->w->ego.vx, .command = dj__world_route_command(r->w)};
  DJ_TRY(r->driver.drive(r->driver.self, &in, r->driver.privileged ? r->w : NULL, &r->command));
  r->next_decision += r->driver.period > 0 ? r->driver.period : DJ__WORLD_DT;
  return DJ_OK;
}

static void step_world(recording *r) {
  bool sees = r->j->pupil && !r->ended; // it drives as long as pictures are drawn
  dj__command c = sees ? dj__pupil_step(&r->pupil, r->w, &r->command) : r->command;
  c.steering = unit(c.steering + dj__perturbation(r->j->c->seed, r->w->step, r->j->o->perturb,
                                                  r->w->ego.vx, r->w->ego.model),
                    -1);
  dj__world_step(r->w, &c);
}

// ---- drawing and encoding ----------------------------------------------------------------------

static dj_status take_encoded(recording *r) {
  DJ_TRY(dj__encoders_take(r->encoders, &r->held[r->encoded % HELD]));
  r->encoded++;
  return DJ_OK;
}

static dj_status finish_drawing(recording *r) {
  dj__picture pictures[DJ__RIG_CAMERAS];
  if (!r->drawing) return DJ_OK;
  r->drawing = false;
  DJ_TRY(dj__render_end(r->j->renderer, pictures));
  while (dj__encoders_ready(r->encoders) || dj__encoders_pending(r->encoders) == DJ__ENCODE_DEPTH)
    DJ_TRY(take_encoded(r));
  if (r->j->pupil) DJ_TRY(dj__pupil_see(&r->pupil, pictures, r->j->rig->n_camera, r->w));
  return dj__encoders_push(r->encoders, pictures);
}

static dj_status start_drawing(recording *r) {
  DJ_TRY(finish_drawing(r));
  dj__scene_of(r->w, 0, &r->scene);
  DJ_TRY(dj__render_begin(r->j->renderer, &r->scene, NULL, r->j->rig));
  r->drawing = true;
  r->drawn++;
  return r->j->pupil ? finish_drawing(r) : DJ_OK; // it decides before the world goes on
}

// ---- writing -----------------------------------------------------------------------------------

static void rotation_of(const dj__moment *m, double q[4]) {
  double cy = cos(0.5 * m->yaw), sy = sin(0.5 * m->yaw), cp = cos(0.5 * m->pitch),
         sp = sin(0.5 * m->pitch), cr = cos(0.5 * m->roll), sr = sin(0.5 * m->roll);
  q[0] = cy * cp * sr - sy * sp * cr;
  q[1] = cy * sp * cr + sy * cp * sr;
  q[2] = sy * cp * cr - cy * sp * sr;
  q[3] = cy * cp * cr + sy * sp * sr;
}

static dj_status write_state(recording *r, const dj__moment *m, uint64_t t_ns) {
  dj_control c = m->control;
  c.t_ns = t_ns;
  dj_pose p = {.t_ns = t_ns, .position = {m->x, m->y, m->z}};
  rotation_of(m, p.rotation);
  DJ_TRY(dj_drive_write_control(r->out, &c));
  DJ_TRY(dj_drive_write_speed(r->out, &(dj_speed){t_ns, m->speed}));
  return dj_drive_write_pose(r->out, &p);
}

static dj_status write_pictures(recording *r, uint64_t frame, uint64_t t_ns) {
  if (frame >= r->encoded && r->drawing) DJ_TRY(finish_drawing(r));
  while (r->encoded <= frame) DJ_TRY(take_encoded(r));
  dj__encoded *f = &r->held[frame % HELD];
  for (int c = 0; c < r->j->rig->n_camera; c++) {
    if (r->j->o->video)
      DJ_TRY(dj_drive_write_video(r->out, c, t_ns, "h264", f->part[c][0].data, f->part[c][0].size));
    else
      DJ_TRY(dj_drive_write_image(r->out, c, t_ns, "jpeg", f->part[c][0].data, f->part[c][0].size));
    for (int layer = 0; layer < DJ_N_LAYERS; layer++)
      if (f->part[c][1 + layer].data)
        DJ_TRY(dj_drive_write_layer(r->out, c, (dj_layer)layer, t_ns, f->part[c][1 + layer].data,
                                    f->part[c][1 + layer].size));
  }
  dj__encoded_free(f);
  return DJ_OK;
}

static dj_status write_labels(recording *r, uint64_t step, uint64_t t_ns) {
  const dj__moment *ahead[RING];
  dj__label_set l;
  for (uint64_t i = 0; i < RING; i++) ahead[i] = &r->ring[(step + i) % RING];
  DJ_TRY(dj__truth_make(r->labels, t_ns, ahead, RING, &l));
  DJ_TRY(dj_drive_write_path(r->out, &l.path));
  DJ_TRY(dj_drive_write_lanes(r->out, &l.lanes));
  DJ_TRY(dj_drive_write_agents(r->out, &l.agents));
  DJ_TRY(dj_drive_write_occupancy(r->out, &l.occupancy));
  DJ_TRY(dj_drive_write_light(r->out, &l.light));
  DJ_TRY(dj_drive_write_route(r->out, &l.route));
  DJ_TRY(dj_drive_write_events(r->out, &l.events));
  DJ_TRY(dj_drive_write_text(r->out, &l.text));
  return dj_drive_write_scene(r->out, t_ns, &l.agents, &l.lanes, &l.path, &l.route);
}

/* Step `written`, whose future is in the ring. */
static dj_status write_step(recording *r, dj__record_drive *d) {
  uint64_t step = r->written++, t_ns = START_NS + step * STEP_NS;
  const dj__moment *m = &r->ring[step % RING];
  if (step % r->stride == 0) {
    DJ_TRY(write_pictures(r, step / r->stride, t_ns));
    DJ_TRY(write_labels(r, step, t_ns));
    d->n_frames++;
  }
  d->metres += fabs(m->speed) * DJ__WORLD_DT;
  return write_state(r, m, t_ns);
}

// ---- the drive ---------------------------------------------------------------------------------

static dj_status take_moment(recording *r) {
  dj__moment *m = &r->ring[r->w->step % RING];
  DJ_TRY(dj__moment_take(r->w, m));
  m->command = (dj_route_command)dj__world_route_command(r->w);
  m->control = (dj_control){0, unit(r->command.steering, -1), unit(r->command.throttle, 0),
                            unit(r->command.brake, 0), r->w->ego.steer};
  return DJ_OK;
}

static bool collided(const recording *r) {
  int hit = dj__world_ego_collision(r->w);
  return hit >= 0;
}

static dj_status run(recording *r, dj__record_drive *d) {
  double seconds = r->j->c->seconds;
  if (r->j->o->seconds > 0) seconds = fmin(seconds, r->j->o->seconds);
  r->last = (uint64_t)llround(seconds / DJ__WORLD_DT);
  d->end = DJ__END_TIME;
  for (;; step_world(r)) {
    uint64_t step = r->w->step;
    if (collided(r)) {
      d->end = DJ__END_COLLISION;
      break;
    }
    if (!r->ended && r->w->route_s - r->origin >= r->w->route.length - 1) {
      d->end = DJ__END_ROUTE;
      r->last = step;
    }
    if (!r->ended && step % r->stride == 0) DJ_TRY(start_drawing(r));
    if (step >= r->last) r->ended = true;
    DJ_TRY(decide(r));
    DJ_TRY(take_moment(r));
    while (r->written + DJ__AHEAD_STEPS <= step && r->written <= r->last) DJ_TRY(write_step(r, d));
    if (r->written > r->last) break;
    if (r->j->progress && step % 10 == 0) // the 6 s behind the last frame count as well
      r->j->progress(r->j->user, seconds * (double)step / (double)(r->last + DJ__AHEAD_STEPS));
  }
  d->n_events = r->w->n_event;
  if (r->pupil.steps) d->own = (double)r->pupil.own / (double)r->pupil.steps;
  d->seconds = (double)r->written * DJ__WORLD_DT;
  d->n_cameras = r->j->rig->n_camera;
  return DJ_OK;
}

static dj_status open_all(recording *r, const char *path) {
  const dj__record_job *j = r->j;
  r->stride = (uint64_t)llround(1 / (j->rate * DJ__WORLD_DT));
  DJ_TRY(dj__case_world(j->c, j->map, &r->w));
  r->origin = r->w->route_s;
  DJ_TRY(dj__driver_find(j->pupil || !j->o->driver ? "expert" : j->o->driver, &r->driver));
  if (j->pupil) DJ_TRY(dj__pupil_start(&r->pupil, j->pupil, r->w));
  DJ_TRY(r->driver.reset(r->driver.self, r->w));
  DJ_TRY(dj__truth_create(j->map, r->w->ego.model->length < 1 ? 0.1 : 1, &r->labels));
  dj__encode_options e = {.rig = j->rig,
                          .rate = j->rate,
                          .video = j->o->video,
                          .quality = j->o->quality ? j->o->quality : 90,
                          .layers = j->o->layers,
                          .threads = j->o->threads};
  DJ_TRY(dj__encoders_create(&e, &r->encoders));
  return dj_drive_writer_open(path, &j->info, &r->out);
}

dj_status dj__record_case(const dj__record_job *j, dj__record_drive *d) {
  recording *r = calloc(1, sizeof *r);
  if (!r) return dj_error(DJ_E_NOMEM, "case %s: no memory to record it", j->c->name);
  r->j = j;
  dj_status s = open_all(r, d->path);
  if (!s) s = run(r, d);
  if (!s && d->n_frames < 2) {
    d->outcome = DJ__RECORD_EMPTY;
  } else if (!s) {
    s = dj_drive_writer_close(r->out, 0);
    r->out = NULL;
    d->bytes = dj__file_size(d->path);
  }
  if (r->drawing) { // the renderer is used again
    dj__picture pictures[DJ__RIG_CAMERAS];
    dj_status end = dj__render_end(j->renderer, pictures);
    if (!s) s = end;
  }
  dj_drive_writer_abort(r->out);
  dj__encoders_destroy(r->encoders);
  dj__truth_destroy(r->labels);
  dj__driver_destroy(&r->driver);
  dj__world_destroy(r->w);
  for (int i = 0; i < RING; i++) dj__moment_free(&r->ring[i]);
  for (int i = 0; i < HELD; i++) dj__encoded_free(&r->held[i]);
  free(r);
  return s ? dj_error_context(s, "case %s", j->c->name) : DJ_OK;
}
