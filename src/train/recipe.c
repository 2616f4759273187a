/*
 * Recipes: YAML to dj_recipe.
 *
 * base/yaml.h judges a document by the schema and the table of ranges here, and fills the struct;
 * defaults go in last.
 *
 * Assumes recipes are small (1 MB at most) and read once a run. Leaves to others: whether a network
 * of that name exists, whether a store holds the labels (they report with dj_recipe_line).
 */
#include "train/recipe.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/digest.h"
#include "base/fs.h"
#include "base/yaml.h"

enum { MAX_BYTES = 1 << 20, MAX_STRING = 1024, MAX_LIST = 256 };

// ---- schema ------------------------------------------------------------------------------------

#define FIELD(KIND, P, key, S, member, lo, hi, def, text)                                          \
  CYAML_FIELD_##KIND(#key, CYAML_FLAG_OPTIONAL, S, member),
#define N_OF(a) ((uint32_t)(sizeof(a) / sizeof *(a)))

static const cyaml_strval_t labels[] = {
    {"control", DJ_LABEL_CONTROL}, {"speed", DJ_LABEL_SPEED}, {"path", DJ_LABEL_PATH}};
static const cyaml_strval_t losses[] = {
    {"laplace", DJ_LOSS_LAPLACE}, {"l1", DJ_LOSS_L1}, {"l2", DJ_LOSS_L2}, {"huber", DJ_LOSS_HUBER}};
static const cyaml_strval_t optimizers[] = {{"adamw", DJ_ADAMW}, {"sgd", DJ_SGD}};
static const cyaml_strval_t schedules[] = {
    {"constant", DJ_SCHEDULE_CONSTANT}, {"cosine", DJ_SCHEDULE_COSINE}, {"step", DJ_SCHEDULE_STEP}};
static const cyaml_strval_t tasks[] = {{"drive", DJ_TASK_DRIVE}, {"text", DJ_TASK_TEXT}};
static const cyaml_strval_t norms[] = {{"layer", DJ_NORM_LAYER}, {"rms", DJ_NORM_RMS}};
static const cyaml_strval_t positions[] = {{"learned", DJ_POSITIONS_LEARNED},
                                           {"rotary", DJ_POSITIONS_ROTARY}};
static const cyaml_strval_t mlps[] = {{"gelu", DJ_MLP_GELU}, {"swiglu", DJ_MLP_SWIGLU}};
static const cyaml_strval_t precisions[] = {{"bf16", DJ_PRECISION_BF16}, {"f32", DJ_PRECISION_F32}};

static const cyaml_schema_value_t string_entry = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, MAX_STRING)};
static const cyaml_schema_value_t float_entry = {CYAML_VALUE_FLOAT(CYAML_FLAG_DEFAULT, float)};

#define ENUM_FIELD(key, S, member, strings)                                                        \
  CYAML_FIELD_ENUM(key, CYAML_FLAG_OPTIONAL | CYAML_FLAG_STRICT, S, member, strings, N_OF(strings))

static const cyaml_schema_field_t data_fields[] = {
    DJ__DATA_KEYS(FIELD, , dj_recipe_data) CYAML_FIELD_SEQUENCE_FIXED(
        "crop", CYAML_FLAG_OPTIONAL, dj_recipe_data, crop, &float_entry, 4),
    CYAML_FIELD_FLAGS("labels", CYAML_FLAG_OPTIONAL | CYAML_FLAG_STRICT, dj_recipe_data, labels,
                      labels, N_OF(labels)),
    CYAML_FIELD_SEQUENCE_COUNT("cameras", CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER, dj_recipe_data,
                               cameras, n_cameras, &string_entry, 1, DJ_MAX_CAMERAS),
    CYAML_FIELD_SEQUENCE_COUNT("drives", CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER, dj_recipe_data,
                               drives, n_drives, &string_entry, 1, MAX_LIST),
    CYAML_FIELD_END};
static const cyaml_schema_field_t augment_fields[] = {DJ__AUGMENT_KEYS(FIELD, , dj_augment)
                                                          CYAML_FIELD_END};
static const cyaml_schema_field_t network_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_OPTIONAL, dj_recipe_network, name, 1, 64),
    ENUM_FIELD("norm", dj_recipe_network, norm, norms),
    ENUM_FIELD("positions", dj_recipe_network, positions, positions),
    ENUM_FIELD("mlp", dj_recipe_network, mlp, mlps),
    DJ__NETWORK_KEYS(FIELD, , dj_recipe_network) CYAML_FIELD_END};
static const cyaml_schema_field_t loss_fields[] = {ENUM_FIELD("kind", dj_recipe_loss, kind, losses),
                                                   DJ__LOSS_KEYS(FIELD, , dj_recipe_loss)
                                                       CYAML_FIELD_END};

// optimizer and schedule are unnamed structs inside dj_recipe_train: their offsets are taken from
// dj_recipe_train, so the mappings sit at its start.
static const cyaml_schema_field_t optimizer_fields[] = {
    ENUM_FIELD("name", dj_recipe_train, optimizer.name, optimizers),
    DJ__OPTIMIZER_KEYS(FIELD, , dj_recipe_train) CYAML_FIELD_END};
static const cyaml_schema_field_t schedule_fields[] = {
    ENUM_FIELD("name", dj_recipe_train, schedule.name, schedules),
    DJ__SCHEDULE_KEYS(FIELD, , dj_recipe_train) CYAML_FIELD_END};

#define NESTED(key_, fields_)                                                                      \
  {                                                                                                \
    .key = key_,                                                                                   \
    .value = {.type = CYAML_MAPPING,                                                               \
              .flags = CYAML_FLAG_OPTIONAL,                                                        \
              .data_size = sizeof(dj_recipe_train),                                                \
              .mapping = {.fields = fields_}},                                                     \
    .data_offset = 0                                                                               \
  }
static const cyaml_schema_field_t train_fields[] = {
    DJ__TRAIN_KEYS(FIELD, , dj_recipe_train)
        ENUM_FIELD("precision", dj_recipe_train, precision, precisions),
    NESTED("optimizer", optimizer_fields), NESTED("schedule", schedule_fields), CYAML_FIELD_END};

static const cyaml_schema_field_t top_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_OPTIONAL, dj_recipe, name, 1, 100),
    CYAML_FIELD_STRING_PTR("about", CYAML_FLAG_OPTIONAL, dj_recipe, about, 0, MAX_STRING),
    ENUM_FIELD("task", dj_recipe, task, tasks),
    CYAML_FIELD_MAPPING("data", CYAML_FLAG_OPTIONAL, dj_recipe, data, data_fields),
    CYAML_FIELD_MAPPING("augment", CYAML_FLAG_OPTIONAL, dj_recipe, augment, augment_fields),
    CYAML_FIELD_MAPPING("network", CYAML_FLAG_OPTIONAL, dj_recipe, network, network_fields),
    CYAML_FIELD_MAPPING("loss", CYAML_FLAG_OPTIONAL, dj_recipe, loss, loss_fields),
    CYAML_FIELD_MAPPING("train", CYAML_FLAG_OPTIONAL, dj_recipe, train, train_fields),
    CYAML_FIELD_END};
static const cyaml_schema_value_t top = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, dj_recipe, top_fields)};

// ---- ranges, defaults, text --------------------------------------------------------------------

typedef enum rule_kind { RULE_INT, RULE_UINT, RULE_FLOAT, RULE_BOOL } rule_kind;
typedef struct rule {
  const char *path;
  rule_kind kind;
  size_t offset, bytes; // in dj_recipe
  double lo, hi, def;   // def NaN: required
  const char *text;
} rule;

#define RULE(KIND, P, key, S, member, lo_, hi_, def_, text_)                                       \
  {P "." #key,                                                                                     \
   RULE_##KIND,                                                                                    \
   (S) + offsetof(RULE_STRUCT, member),                                                            \
   sizeof(((RULE_STRUCT *)0)->member),                                                             \
   lo_,                                                                                            \
   hi_,                                                                                            \
   def_,                                                                                           \
   text_},
static const rule rules[] = {
#define RULE_STRUCT dj_recipe_data
    DJ__DATA_KEYS(RULE, "data", offsetof(dj_recipe, data))
#undef RULE_STRUCT
#define RULE_STRUCT dj_augment
        DJ__AUGMENT_KEYS(RULE, "augment", offsetof(dj_recipe, augment))
#undef RULE_STRUCT
#define RULE_STRUCT dj_recipe_network
            DJ__NETWORK_KEYS(RULE, "network", offsetof(dj_recipe, network))
#undef RULE_STRUCT
#define RULE_STRUCT dj_recipe_loss
                DJ__LOSS_KEYS(RULE, "loss", offsetof(dj_recipe, loss))
#undef RULE_STRUCT
#define RULE_STRUCT dj_recipe_train
                    DJ__TRAIN_KEYS(RULE, "train", offsetof(dj_recipe, train))
                        DJ__OPTIMIZER_KEYS(RULE, "train.optimizer", offsetof(dj_recipe, train))
                            DJ__SCHEDULE_KEYS(RULE, "train.schedule", offsetof(dj_recipe, train))
#undef RULE_STRUCT
};
static const rule crop_rule = {"data.crop", RULE_FLOAT, 0, 0, 0, 0.9, 0, ""};

// Keys that are not numbers, for the reference page.
static const struct {
  const char *path, *values, *def, *text;
} words[] = {
    {"name", "text", "the file's name", "of the recipe"},
    {"about", "text", "", "a line for people"},
    {"data.crop", "[left, top, right, bottom], 0 to 0.9", "[0, 0, 0, 0]",
     "share of the picture cut off"},
    {"data.labels", "list of control, speed, path", "[control]",
     "labels a drive must hold to be taken"},
    {"data.cameras", "list of names", "each drive's first", "in the order of the rig"},
    {"data.drives", "list of names", "all that hold the labels", "drives to learn from"},
    {"task", "drive, text", "drive", "what the network learns"},
    {"network.name", "text", "required",
     "which network: dojo4d, pilotnet or resnet18; for text, decoder"},
    {"network.norm", "layer, rms", "layer", "decoder: in front of attention and MLP"},
    {"network.positions", "learned, rotary", "learned", "decoder: how it knows where a token is"},
    {"network.mlp", "gelu, swiglu", "gelu", "decoder: activation, or gate"},
    {"loss.kind", "laplace, l1, l2, huber", "laplace", "of the control head"},
    {"train.precision", "bf16, f32", "bf16", "of compute; weights are always kept in f32"},
    {"train.optimizer.name", "adamw, sgd", "adamw", ""},
    {"train.schedule.name", "constant, cosine, step", "cosine", ""},
};

static const rule *find_rule(const char *path) {
  if (!strcmp(path, crop_rule.path)) return &crop_rule;
  for (size_t i = 0; i < N_OF(rules); i++)
    if (!strcmp(rules[i].path, path)) return &rules[i];
  return NULL;
}

static void set_default(dj_recipe *r, const rule *d) {
  void *at = (char *)r + d->offset;
  if (d->kind == RULE_FLOAT && d->bytes == sizeof(float)) {
    *(float *)at = (float)d->def;
  } else if (d->kind == RULE_FLOAT) {
    *(double *)at = d->def;
  } else if (d->kind == RULE_BOOL) {
    *(bool *)at = d->def != 0;
  } else if (d->bytes == sizeof(int64_t)) {
    *(int64_t *)at = (int64_t)d->def;
  } else {
    *(int *)at = (int)d->def;
  }
}

char *dj__recipe_reference(void) {
  dj__buf b = {0};
  char line[512];
  int n = snprintf(line, sizeof line, "| key | values | default | meaning |\n|---|---|---|---|\n");
  dj__buf_put(&b, line, (size_t)n);
  for (size_t i = 0; i < N_OF(words); i++) {
    n = snprintf(line, sizeof line, "| `%s` | %s | %s | %s |\n", words[i].path, words[i].values,
                 words[i].def, words[i].text);
    dj__buf_put(&b, line, (size_t)n);
  }
  for (size_t i = 0; i < N_OF(rules); i++) {
    const rule *r = &rules[i];
    char range[64], def[32];
    if (r->kind == RULE_BOOL) {
      (void)snprintf(range, sizeof range, "true, false");
      (void)snprintf(def, sizeof def, "%s", r->def != 0 ? "true" : "false");
    } else {
      const char *kind = r->kind == RULE_FLOAT ? "number" : "whole number";
      if (r->hi >= DJ__BIG)
        (void)snprintf(range, sizeof range, "%s, %g or more", kind, r->lo);
      else
        (void)snprintf(range, sizeof range, "%s, %g to %g", kind, r->lo, r->hi);
      (void)snprintf(def, sizeof def, "%g", r->def);
    }
    n = snprintf(line, sizeof line, "| `%s` | %s | %s | %s |\n", r->path, range,
                 isnan(r->def) ? "required" : def, r->text);
    dj__buf_put(&b, line, (size_t)n);
  }
  dj__buf_put(&b, "", 1);
  if (b.failed) dj__buf_free(&b);
  return (char *)b.data;
}

static bool range_of(const char *path, double *lo, double *hi) {
  const rule *r = find_rule(path);
  if (!r) return false;
  *lo = r->lo;
  *hi = r->hi;
  return true;
}

static const dj__yaml_kind kind = {"recipe", &top, range_of, MAX_BYTES};

static dj_status check_text(const char *text, size_t size, const char *file, dj__yaml_lines *keys) {
  DJ_TRY(dj__yaml_check(&kind, text, size, file, keys));
  if (!dj__yaml_line_of(keys, "network.name")) return dj__yaml_missing(file, keys, "network.name");
  for (size_t i = 0; i < N_OF(rules); i++)
    if (isnan(rules[i].def) && !dj__yaml_line_of(keys, rules[i].path))
      return dj__yaml_missing(file, keys, rules[i].path);
  return DJ_OK;
}

static void fill_defaults(dj_recipe *r, const dj__yaml_lines *k) {
  for (size_t i = 0; i < N_OF(rules); i++)
    if (!dj__yaml_line_of(k, rules[i].path)) set_default(r, &rules[i]);
  if (!dj__yaml_line_of(k, "data.labels")) r->data.labels = DJ_LABEL_CONTROL;
  if (!dj__yaml_line_of(k, "loss.kind")) r->loss.kind = DJ_LOSS_LAPLACE;
  if (!dj__yaml_line_of(k, "train.precision")) r->train.precision = DJ_PRECISION_BF16;
  if (!dj__yaml_line_of(k, "train.optimizer.name")) r->train.optimizer.name = DJ_ADAMW;
  if (!dj__yaml_line_of(k, "train.schedule.name")) r->train.schedule.name = DJ_SCHEDULE_COSINE;
}

static dj_status check_drive(const dj_recipe *r) {
  if (r->data.width <= 0) return dj__yaml_missing(r->file, r->internal, "data.width");
  if (r->data.height <= 0) return dj__yaml_missing(r->file, r->internal, "data.height");
  return DJ_OK;
}

// What no key can know alone.
static dj_status check_together(const dj_recipe *r) {
  const dj_recipe_train *t = &r->train;
  if (r->task == DJ_TASK_DRIVE) DJ_TRY(check_drive(r));
  if ((t->epochs > 0) == (t->steps > 0))
    return dj_error(DJ_E_INVALID, "%s:%d: give either train.epochs or train.steps, above 0%s",
                    r->file, dj_recipe_line(r, "train"), t->steps ? "; both are there" : "");
  if (t->schedule.name == DJ_SCHEDULE_STEP && !t->schedule.every)
    return dj_error(DJ_E_INVALID, "%s:%d: the schedule 'step' needs train.schedule.every", r->file,
                    dj_recipe_line(r, "train.schedule"));
  const float *c = r->data.crop;
  if (c[0] + c[2] > 0.9f || c[1] + c[3] > 0.9f)
    return dj_error(DJ_E_INVALID, "%s:%d: data.crop leaves less than a tenth of the picture",
                    r->file, dj_recipe_line(r, "data.crop"));
  if (t->checkpoint_every == 0 && !(t->checkpoint_seconds > 0))
    return dj_error(DJ_E_INVALID,
                    "%s:%d: train.checkpoint_every and train.checkpoint_seconds are both 0: no "
                    "checkpoint would be written",
                    r->file, dj_recipe_line(r, "train.checkpoint_every"));
  if ((int64_t)t->batch * t->accumulate > 1 << 24)
    return dj_error(DJ_E_INVALID, "%s:%d: batch * accumulate is over 2^24", r->file,
                    dj_recipe_line(r, "train.batch"));
  return DJ_OK;
}

static char *name_from_file(const char *file) {
  const char *slash = strrchr(file, '/');
  char *name = dj__strf("%s", slash ? slash + 1 : file);
  char *dot = strrchr(name, '.');
  if (dot && dot != name && (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml"))) *dot = 0;
  return name;
}

static dj_status finish(dj_recipe *r, const char *text, size_t size, const char *file,
                        dj__yaml_lines *keys) {
  r->internal = calloc(1, sizeof(dj__yaml_lines));
  r->text = malloc(size + 1);
  r->file = dj__strf("%s", file);
  if (!r->internal || !r->text) return dj_error(DJ_E_NOMEM, "%s: no memory", file);
  *(dj__yaml_lines *)r->internal = *keys;
  *keys = (dj__yaml_lines){0};
  memcpy(r->text, text, size);
  r->text[size] = 0;
  if (!r->name) r->name = name_from_file(file);
  fill_defaults(r, r->internal);
  dj__digest d;
  dj__digest_init(&d);
  dj__digest_bytes(&d, text, size);
  DJ_TRY(dj__digest_hex(&d, r->digest));
  return check_together(r);
}

dj_status dj_recipe_parse(const char *text, size_t size, const char *file, dj_recipe **out) {
  *out = NULL;
  dj__yaml_lines keys;
  dj_recipe *r = NULL;
  dj_status s = check_text(text, size, file, &keys);
  if (!s) s = dj__yaml_fill(&kind, text, size, file, &r);
  if (!s) s = finish(r, text, size, file, &keys);
  dj__yaml_lines_free(&keys);
  if (s) {
    dj_recipe_free(r);
    return s;
  }
  *out = r;
  return DJ_OK;
}

dj_status dj_recipe_load(const char *path, dj_recipe **r) {
  *r = NULL;
  char *text = NULL;
  size_t size = 0;
  DJ_TRY(dj__read_file(path, MAX_BYTES, &text, &size));
  dj_status s = dj_recipe_parse(text, size, path, r);
  free(text);
  return s;
}

void dj_recipe_free(dj_recipe *r) {
  if (!r) return;
  if (r->internal) dj__yaml_lines_free(r->internal);
  free(r->internal);
  free(r->text);
  free(r->file);
  dj__yaml_free(&kind, r);
}

int dj_recipe_line(const dj_recipe *r, const char *key) {
  return r->internal ? dj__yaml_line_of(r->internal, key) : 0;
}
