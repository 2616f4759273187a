/* dojo world: records drives, lists suites, counts events, shows towns. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/world.h"
#include "world/record.h"
#include "world/view.h"

static const char HELP[] =
    "Usage: dojo world record --suite FILE --out DIR [options]\n"
    "       dojo world suite FILE [--json]\n"
    "       dojo world events --suite FILE [--json]\n"
    "       dojo world view --seed N --out town.png [options]\n\n"
    "record  drives the cases of a suite and writes one MCAP log a drive: camera pictures,\n"
    "        calibration, poses, controls and speed as in recorded drives, and exact labels\n"
    "suite   lists the drives that a suite asks for\n"
    "events  how often others do what they should not in a suite's drives, and touch each other\n"
    "view    a town from above, its cameras' view of a drive, its map as OpenDRIVE\n\n"
    "dojo world COMMAND --help tells the options of each.\n\n"
    "Example:\n"
    "  dojo world record --suite suites/train.yaml --out logs --limit 10\n"
    "  dojo ingest logs --store S\n";

static const char RECORD_HELP[] =
    "Usage: dojo world record --suite FILE --out DIR [options]\n\n"
    "Drives the cases of a suite with the expert, and writes a log of each to DIR/NAME.mcap. Logs\n"
    "that are there already are left alone, so an interrupted recording is simply started again. "
    "A\n"
    "drive that ends in a collision keeps what lies more than 6 s before it. The channels are "
    "told\n"
    "in docs/record.md; dojo ingest DIR takes the logs into a store.\n\n"
    "With --driver RUN the network of a run of dojo train drives, and the control channel holds "
    "what\n"
    "the expert beside it would do; where the two part, the expert takes the wheel until the "
    "vehicle\n"
    "is in its lane again. Trained on such drives too, a network learns to mend its own errors.\n\n"
    "Example:\n"
    "  dojo world record --suite suites/train.yaml --out logs --limit 10 --rig ring6 --rate 10\n"
    "  dojo world record --suite suites/train.yaml --out more --driver R\n";

static const char VIEW_HELP[] =
    "Usage: dojo world view [--seed N | --xodr FILE] [--out town.png] [--bird bird.png]\n"
    "                       [--mp4 drive.mp4] [--xodr-out FILE] [options]\n\n"
    "Shows a town: its map from above with traffic (--out), drawn from the air (--bird), and a\n"
    "drive of the expert through all cameras of a rig (--mp4). --xodr-out writes the map as\n"
    "OpenDRIVE.\n\n"
    "Example:\n"
    "  dojo world view --seed 7 --style grid --out town.png --mp4 drive.mp4 --rig three\n";

static const char SUITE_HELP[] = "Usage: dojo world suite FILE [--seed0 N] [--limit N] [--json]\n\n"
                                 "Checks a suite and lists the drives that it asks for.\n\n"
                                 "Example:\n"
                                 "  dojo world suite suites/test.yaml --limit 20\n";

// ---- suite -------------------------------------------------------------------------------------

static json_t *case_json(const dj__case *c) {
  return json_pack("{s:s,s:s,s:s,s:I,s:I,s:s,s:s,s:s,s:f,s:f,s:f,s:i,s:i,s:i,s:i,s:f,s:f}", "name",
                   c->name, "kind", dj__case_name(c->kind), "town",
                   c->xodr[0] ? c->xodr : dj__town_style_name(c->town.style), "town_seed",
                   (json_int_t)c->town.seed, "seed", (json_int_t)c->seed, "weather", c->weather,
                   "vehicle", c->vehicle, "rig", c->rig, "seconds", c->seconds, "slowest",
                   c->slowest, "length", c->length, "vehicles", c->n_vehicle, "cyclists",
                   c->n_cyclist, "pedestrians", c->n_pedestrian, "parked", c->n_parked, "unruly",
                   c->unruly, "roadworks", c->roadworks);
}

static int print_json(json_t *j) {
  int rc = json_dumpf(j, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(10));
  (void)fputc('\n', stdout);
  json_decref(j);
  return rc == 0 ? 0 : dj_exit_code(DJ_E_IO);
}

static void print_suite(const dj__suite *s) {
  int kinds[DJ__N_CASES] = {0}, towns = 0;
  double seconds = 0;
  for (int i = 0; i < s->n; i++) {
    const dj__case *c = &s->cases[i];
    (void)printf(
        "%-40s %-8s %-10s %4.0f s %6.0f m  %d vehicles, %d people, %d cyclists, %d parked\n",
        c->name, c->vehicle, c->rig, c->seconds, c->length, c->n_vehicle, c->n_pedestrian,
        c->n_cyclist, c->n_parked);
    kinds[c->kind]++;
    towns += i == 0 || !dj__case_same_map(c, c - 1);
    seconds += c->seconds;
  }
  (void)printf("%s: %d drives in %d towns, %.1f h at most:", s->name, s->n, towns, seconds / 3600);
  for (int k = 0; k < DJ__N_CASES; k++)
    if (kinds[k]) (void)printf(" %d %s", kinds[k], dj__case_name((dj__case_kind)k));
  (void)puts("");
}

static int suite(int argc, char **argv) {
  int64_t seed0 = -1, limit = 0;
  bool json = false;
  const dj__option options[] = {
      {"seed0", 0, DJ_OPT_INT, &seed0, "N", "towns of seeds N, N + 1, ... instead of the suite's"},
      {"limit", 0, DJ_OPT_INT, &limit, "N", "so many drives only, spread evenly"},
      {"json", 0, DJ_OPT_FLAG, &json, NULL, "machine-readable list on stdout"},
      {0}};
  int npos;
  char **pos;
  int rc = dj__parse_options(argc, argv, options, SUITE_HELP, &npos, &pos);
  if (rc >= 0) return rc;
  if (npos != 1)
    return dj__fail("world",
                    dj_error(DJ_E_INVALID, "suite needs one FILE; see dojo world suite --help"));
  if (limit < 0 || limit > INT32_MAX || seed0 < -1)
    return dj__fail("world", dj_error(DJ_E_INVALID, "--limit and --seed0 are 0 or more"));
  dj__suite s;
  dj_status st = dj__suite_read(pos[0], seed0, (int)limit, &s);
  if (st) return dj__fail("world", st);
  if (json) {
    json_t *list = json_array();
    for (int i = 0; i < s.n; i++) json_array_append_new(list, case_json(&s.cases[i]));
    rc = print_json(json_pack("{s:s,s:o}", "suite", s.name, "cases", list));
  } else {
    print_suite(&s);
    rc = 0;
  }
  dj__suite_free(&s);
  return rc;
}

// ---- record ------------------------------------------------------------------------------------

static json_t *drive_json(const dj__record_drive *d) {
  return json_pack("{s:s,s:s,s:s,s:s,s:s,s:i,s:I,s:f,s:f,s:f,s:I,s:i,s:f}", "name", d->name, "case",
                   d->which, "path", d->path, "outcome", dj__record_outcome_name(d->outcome), "end",
                   d->outcome == DJ__RECORD_THERE ? "" : dj__record_end_name(d->end), "cameras",
                   d->n_cameras, "frames", (json_int_t)d->n_frames, "seconds", d->seconds, "metres",
                   d->metres, "wall_seconds", d->wall, "bytes", (json_int_t)d->bytes, "events",
                   d->n_events, "own", d->own);
}

static void print_report(const dj__record_report *r, bool failed) {
  double seconds = 0, wall = 0;
  for (int i = 0; i < r->n - failed; i++) {
    const dj__record_drive *d = &r->drives[i];
    (void)printf("%-55s %s", d->name, dj__record_outcome_name(d->outcome));
    if (d->outcome == DJ__RECORDED)
      (void)printf(": %.1f s, %.0f m, %d x %llu frames, %.1f MB, %.1fx real time%s", d->seconds,
                   d->metres, d->n_cameras, (unsigned long long)d->n_frames,
                   (double)d->bytes * 1e-6, d->wall > 0 ? d->seconds / d->wall : 0,
                   d->end == DJ__END_COLLISION ? ", cut before a collision" : "");
    if (d->outcome == DJ__RECORDED && d->own > 0) (void)printf(", %.0f %% by itself", 100 * d->own);
    if (d->outcome == DJ__RECORDED) {
      seconds += d->seconds;
      wall += d->wall;
    }
    (void)puts("");
  }
  (void)printf("%d recorded (%.1f min%s", r->n_recorded, seconds / 60, wall > 0 ? ", " : "");
  if (wall > 0) (void)printf("%.2fx real time", seconds / wall);
  (void)printf("), %d there already, %d empty\n", r->n_there, r->n_empty);
}

static dj_status parse_layers(const char *text, uint32_t *layers) {
  while (text && *text) {
    size_t n = strcspn(text, ",");
    int k = 0;
    while (dj_layer_name(k) &&
           (strlen(dj_layer_name(k)) != n || strncmp(dj_layer_name(k), text, n) != 0))
      k++;
    if (!dj_layer_name(k))
      return dj_error(DJ_E_INVALID,
                      "--layers is a list of depth, semantic, instance with commas, not '%.*s'",
                      (int)(n < 40 ? n : 40), text);
    *layers |= 1u << k;
    text += n + (text[n] == ',');
  }
  return DJ_OK;
}

static int record(int argc, char **argv) {
  dj__record_options o = {.seed0 = -1};
  int64_t limit = 0, quality = 90, threads = 0, seed0 = -1;
  bool json = false;
  const char *layers = NULL;
  const dj__option options[] = {
      {"suite", 0, DJ_OPT_STRING, &o.suite, "FILE", "what to drive (suites/*.yaml)"},
      {"out", 'o', DJ_OPT_STRING, &o.out, "DIR", "folder of the logs, made when missing"},
      {"limit", 0, DJ_OPT_INT, &limit, "N", "so many drives only, spread evenly over the suite"},
      {"seed0", 0, DJ_OPT_INT, &seed0, "N", "towns of seeds N, N + 1, ... instead of the suite's"},
      {"seconds", 0, DJ_OPT_DOUBLE, &o.seconds, "S", "of a drive at most"},
      {"rig", 0, DJ_OPT_STRING, &o.rig, "R",
       "cameras: mono, wide, donkeycar, openpilot, three, ring6, or FILE"},
      {"rate", 0, DJ_OPT_DOUBLE, &o.rate, "HZ",
       "frames a second: 1, 2, 4, 5, 10 or 20; default the rig's"},
      {"video", 0, DJ_OPT_FLAG, &o.video, NULL, "H.264 instead of JPEG pictures"},
      {"quality", 0, DJ_OPT_INT, &quality, "Q", "of JPEG, 1 to 100; default 90"},
      {"layers", 0, DJ_OPT_STRING, &layers, "LIST", "also depth, semantic, instance (with commas)"},
      {"driver", 0, DJ_OPT_STRING, &o.driver, "D",
       "expert (default), constant, or a run, whose network drives"},
      {"perturb", 0, DJ_OPT_DOUBLE, &o.perturb, "P",
       "pushes at the wheel, 0 to 1, to show how to come back; default 0"},
      {"threads", 0, DJ_OPT_INT, &threads, "N", "that encode; default all cores"},
      {"json", 0, DJ_OPT_FLAG, &json, NULL, "machine-readable report on stdout"},
      {0}};
  int npos;
  char **pos;
  int rc = dj__parse_options(argc, argv, options, RECORD_HELP, &npos, &pos);
  if (rc >= 0) return rc;
  dj_status s = DJ_OK;
  if (npos || !o.suite || !o.out)
    s = dj_error(DJ_E_INVALID, "record needs --suite and --out; see dojo world record --help");
  else if (limit < 0 || limit > INT32_MAX || seed0 < -1)
    s = dj_error(DJ_E_INVALID, "--limit and --seed0 are 0 or more");
  else if (quality < 1 || quality > 100)
    s = dj_error(DJ_E_INVALID, "--quality is 1 to 100, not %lld", (long long)quality);
  else if (threads < 0 || threads > 1024)
    s = dj_error(DJ_E_INVALID, "--threads is 0 to 1024, not %lld", (long long)threads);
  if (!s) s = parse_layers(layers, &o.layers);
  if (s) return dj__fail("world", s);
  o.limit = (int)limit;
  o.seed0 = seed0;
  o.quality = (int)quality;
  o.threads = (int)threads;
  dj__record_report r;
  s = dj__record(&o, &r);
  dj__cli_progress_end();
  char text[2048];
  (void)snprintf(text, sizeof text, "%s", dj_error_message());
  if (json) {
    json_t *list = json_array();
    for (int i = 0; i < r.n - (s ? 1 : 0); i++)
      json_array_append_new(list, drive_json(&r.drives[i]));
    (void)print_json(json_pack("{s:o,s:i,s:i,s:i}", "drives", list, "recorded", r.n_recorded,
                               "already_there", r.n_there, "empty", r.n_empty));
  } else if (r.n) {
    print_report(&r, s != DJ_OK);
  }
  dj__record_report_free(&r);
  return s ? dj__fail("world", dj_error(s, "%s", text)) : 0;
}

// ---- view --------------------------------------------------------------------------------------

typedef struct view_options {
  const char *style, *xodr, *out, *bird, *mp4, *rig, *weather, *vehicle, *xodr_out;
  int64_t seed, width;
  double size, hills, seconds, rate;
} view_options;

static dj_status parse_style(const char *name, dj__town_style *style) {
  const char *names[DJ__N_TOWN_STYLES];
  for (int k = 0; k < DJ__N_TOWN_STYLES; k++) {
    names[k] = dj__town_style_name((dj__town_style)k);
    if (!strcmp(name, names[k])) {
      *style = (dj__town_style)k;
      return DJ_OK;
    }
  }
  const char *near = dj__nearest(name, names, DJ__N_TOWN_STYLES);
  return dj_error(
      DJ_E_INVALID,
      "--style is any, grid, organic, rural, motorway, mixed or track, not '%.40s'%s%s%s", name,
      near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
}

static dj_status make_map(const view_options *o, dj__map **m) {
  dj__town_config c = {.seed = (uint64_t)o->seed, .size = o->size, .hills = o->hills};
  if (o->xodr) return dj__map_read_xodr(o->xodr, m);
  DJ_TRY(parse_style(o->style, &c.style));
  return dj__map_generate(&c, m);
}

static dj_status make_world(const view_options *o, const dj__map *m, dj__world **w) {
  dj__world_config c = dj__world_config_default(m, (uint64_t)o->seed);
  DJ_TRY(dj__weather_find(o->weather, &c.weather));
  if (!dj__vehicle_find(o->vehicle))
    return dj_error(DJ_E_INVALID, "unknown vehicle '%.40s' (rc-car, city-car, car, van, lorry)",
                    o->vehicle);
  c.vehicle = o->vehicle;
  DJ_TRY(dj__world_create(&c, w));
  return DJ_OK;
}

static dj_status film(const view_options *o, dj__world *w) {
  dj__rig rig;
  dj__driver d;
  DJ_TRY(dj__rig_find(o->rig, &rig));
  DJ_TRY(dj__driver_find("expert", &d));
  dj_status s = dj__view_drive(w, &d, &rig, o->seconds, o->rate, o->mp4);
  dj__driver_destroy(&d);
  return s;
}

static dj_status show(const view_options *o) {
  dj__map *m;
  dj__world *w = NULL;
  DJ_TRY(make_map(o, &m));
  dj_status s = o->xodr_out ? dj__map_write_xodr(m, o->xodr_out) : DJ_OK;
  if (!s && (o->out || o->bird || o->mp4)) s = make_world(o, m, &w);
  if (!s && o->out) s = dj__view_map(m, w, (int)o->width, o->out);
  if (!s && o->bird) s = dj__view_bird(w, (int)o->width, o->bird);
  if (!s && o->mp4) s = film(o, w);
  if (!s)
    (void)printf("%s: %d roads, %d junctions, %.1f km of lanes, %d traffic lights\n", m->name,
                 m->n_road, m->n_junction, dj__view_lane_metres(m) / 1000, dj__view_lights(m));
  dj__world_destroy(w);
  dj__map_destroy(m);
  return s;
}

static int view(int argc, char **argv) {
  view_options o = {.style = "any",
                    .rig = "mono",
                    .weather = "clear",
                    .vehicle = "car",
                    .seed = 1,
                    .width = 1600,
                    .hills = -1,
                    .seconds = 20};
  const dj__option options[] = {
      {"seed", 0, DJ_OPT_INT, &o.seed, "N", "of the town and its traffic; default 1"},
      {"style", 0, DJ_OPT_STRING, &o.style, "S",
       "any, grid, organic, rural, motorway, mixed or track"},
      {"size", 0, DJ_OPT_DOUBLE, &o.size, "M", "m across; default as the style has it"},
      {"hills", 0, DJ_OPT_DOUBLE, &o.hills, "H", "share of the usual height; default by the seed"},
      {"xodr", 0, DJ_OPT_STRING, &o.xodr, "FILE", "an OpenDRIVE map instead of a generated town"},
      {"out", 'o', DJ_OPT_STRING, &o.out, "FILE.png", "the map from above, with traffic"},
      {"bird", 0, DJ_OPT_STRING, &o.bird, "FILE.png", "the town drawn from the air"},
      {"width", 0, DJ_OPT_INT, &o.width, "N",
       "pixels across of pictures, 64 to 8192; default 1600"},
      {"mp4", 0, DJ_OPT_STRING, &o.mp4, "FILE.mp4", "a drive through the rig's cameras"},
      {"rig", 0, DJ_OPT_STRING, &o.rig, "R",
       "cameras: mono (default), wide, donkeycar, openpilot, three, ring6, or FILE"},
      {"weather", 0, DJ_OPT_STRING, &o.weather, "W",
       "clear (default), noon, evening, overcast, rain, wet, fog, night, night-rain"},
      {"vehicle", 0, DJ_OPT_STRING, &o.vehicle, "V",
       "rc-car, city-car, car (default), van or lorry"},
      {"seconds", 0, DJ_OPT_DOUBLE, &o.seconds, "S", "of the drive; default 20"},
      {"rate", 0, DJ_OPT_DOUBLE, &o.rate, "HZ", "frames a second of the drive; default the rig's"},
      {"xodr-out", 0, DJ_OPT_STRING, &o.xodr_out, "FILE", "writes the map as OpenDRIVE 1.7"},
      {0}};
  int npos;
  char **pos;
  int rc = dj__parse_options(argc, argv, options, VIEW_HELP, &npos, &pos);
  if (rc >= 0) return rc;
  dj_status s = DJ_OK;
  if (npos || !(o.out || o.bird || o.mp4 || o.xodr_out))
    s = dj_error(DJ_E_INVALID,
                 "view needs --out, --bird, --mp4 or --xodr-out; see dojo world view --help");
  else if (o.seed < 0)
    s = dj_error(DJ_E_INVALID, "--seed is 0 or more");
  else if (!(o.seconds >= 0.1 && o.seconds <= 3600))
    s = dj_error(DJ_E_INVALID, "--seconds is 0.1 to 3600, not %g", o.seconds);
  else if (!(o.rate >= 0 && o.rate <= 20))
    s = dj_error(DJ_E_INVALID, "--rate is up to 20 Hz, not %g", o.rate);
  else if (o.width < 64 || o.width > 8192)
    s = dj_error(DJ_E_INVALID, "--width is 64 to 8192, not %lld", (long long)o.width);
  else if (!(o.size >= 0 && o.size <= 20000) || !(o.hills >= -1 && o.hills <= 5))
    s = dj_error(DJ_E_INVALID, "--size is up to 20000 m, --hills 0 to 5");
  if (!s) s = show(&o);
  dj__cli_progress_end();
  return s ? dj__fail("world", s) : 0;
}

// ---- the command -------------------------------------------------------------------------------

int dj__cmd_world(int argc, char **argv) {
  static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
  } parts[] = {{"record", record}, {"suite", suite}, {"events", dj__world_events}, {"view", view}};
  enum { N = sizeof parts / sizeof *parts };
  const char *names[N];
  if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
    (void)fputs(HELP, argc < 2 ? stderr : stdout);
    return argc < 2 ? 2 : 0;
  }
  for (int i = 0; i < N; i++) {
    names[i] = parts[i].name;
    if (!strcmp(argv[1], parts[i].name)) {
      argv[1] = "world"; // as messages are to begin
      return parts[i].run(argc - 1, argv + 1);
    }
  }
  const char *near = dj__nearest(argv[1], names, N);
  return dj__fail("world", dj_error(DJ_E_INVALID,
                                    "unknown command '%.40s'%s%s%s; there are record, "
                                    "suite, events and view",
                                    argv[1], near ? " (did you mean '" : "", near ? near : "",
                                    near ? "'?)" : ""));
}
