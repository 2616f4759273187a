/*
 * Recipes: YAML to dj_recipe.
 *
 * Two passes over one schema. The first walks libyaml's events beside the schema and judges: it
 * knows the line of everything, so unknown keys, wrong types, values out of range, NaN, aliases
 * (and with them YAML bombs) and deep nesting are found here, with file and line. Then libcyaml,
 * which only ever sees documents that passed, fills the struct; defaults go in last.
 *
 * Assumes recipes are small (1 MB at most) and read once a run. Leaves to others: whether a network
 * of that name exists, whether a store holds the labels (they report with dj_recipe_line).
 */
#include "train/recipe.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <yaml.h>

#include "base/buf.h"
#include "base/digest.h"
#include "base/fs.h"
#include "base/text.h"

enum { MAX_BYTES = 1 << 20, MAX_PATH = 128, MAX_STRING = 1024, MAX_LIST = 256 };

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

// ---- first pass: judge -------------------------------------------------------------------------

typedef struct key_line {
  char path[MAX_PATH];
  int line;
} key_line;

typedef struct key_lines {
  key_line *v;
  size_t n, cap;
} key_lines;

typedef struct walk {
  const char *file;
  yaml_parser_t parser;
  yaml_event_t event;
  bool have_event;
  key_lines keys;
} walk;

static dj_status add_line(key_lines *k, const char *path, int line) {
  if (k->n == k->cap) {
    size_t cap = k->cap ? 2 * k->cap : 64;
    key_line *v = realloc(k->v, cap * sizeof *v);
    if (!v) return dj_error(DJ_E_NOMEM, "recipe: no memory for %zu keys", cap);
    k->v = v;
    k->cap = cap;
  }
  (void)snprintf(k->v[k->n].path, MAX_PATH, "%s", path);
  k->v[k->n++].line = line;
  return DJ_OK;
}

static int find_line(const key_lines *k, const char *path) {
  for (size_t i = 0; i < k->n; i++)
    if (!strcmp(k->v[i].path, path)) return k->v[i].line;
  return 0;
}

static int line_of(const walk *w) {
  return (int)w->event.start_mark.line + 1;
}

static dj_status next_event(walk *w) {
  if (w->have_event) yaml_event_delete(&w->event);
  w->have_event = false;
  if (!yaml_parser_parse(&w->parser, &w->event)) {
    const yaml_parser_t *p = &w->parser;
    if (p->error == YAML_MEMORY_ERROR) return dj_error(DJ_E_NOMEM, "%s: no memory", w->file);
    return dj_error(DJ_E_FORMAT, "%s:%d: not YAML: %s%s%s", w->file, (int)p->problem_mark.line + 1,
                    p->problem ? p->problem : "unreadable", p->context ? ", " : "",
                    p->context ? p->context : "");
  }
  w->have_event = true;
  const yaml_event_t *e = &w->event;
  const yaml_char_t *anchor = NULL, *tag = NULL;
  if (e->type == YAML_ALIAS_EVENT) anchor = e->data.alias.anchor;
  if (e->type == YAML_SCALAR_EVENT) anchor = e->data.scalar.anchor, tag = e->data.scalar.tag;
  if (e->type == YAML_SEQUENCE_START_EVENT)
    anchor = e->data.sequence_start.anchor, tag = e->data.sequence_start.tag;
  if (e->type == YAML_MAPPING_START_EVENT)
    anchor = e->data.mapping_start.anchor, tag = e->data.mapping_start.tag;
  if (anchor)
    return dj_error(DJ_E_FORMAT,
                    "%s:%d: anchors and aliases ('%.40s') are not taken in recipes: write the "
                    "value out",
                    w->file, line_of(w), (const char *)anchor);
  if (tag)
    return dj_error(DJ_E_FORMAT, "%s:%d: tags ('%.40s') are not taken in recipes", w->file,
                    line_of(w), (const char *)tag);
  return DJ_OK;
}

static const char *event_name(yaml_event_type_t t) {
  return t == YAML_SCALAR_EVENT           ? "a single value"
         : t == YAML_SEQUENCE_START_EVENT ? "a list"
         : t == YAML_MAPPING_START_EVENT  ? "a mapping"
                                          : "nothing";
}

static dj_status expect_event(walk *w, yaml_event_type_t t, const char *path) {
  if (w->event.type == t) return DJ_OK;
  bool empty = w->event.type == YAML_SCALAR_EVENT && w->event.data.scalar.length == 0;
  return dj_error(DJ_E_FORMAT, "%s:%d: '%s' should be %s, not %s", w->file, line_of(w), path,
                  event_name(t), empty ? "empty" : event_name(w->event.type));
}

// Decimal only: 0x10 and 010 mean different things to different readers.
static bool is_whole(const char *s) {
  if (*s == '-' || *s == '+') s++;
  if (!*s || (s[0] == '0' && s[1])) return false;
  for (; *s; s++)
    if (*s < '0' || *s > '9') return false;
  return true;
}

static bool is_number(const char *s) {
  return *s && strspn(s, "+-.0123456789eE") == strlen(s);
}

static dj_status check_number(const walk *w, const char *path, const char *text, bool whole) {
  char *end;
  errno = 0;
  double v = strtod(text, &end);
  if (*end || (whole ? !is_whole(text) : !is_number(text)))
    return dj_error(DJ_E_INVALID, "%s:%d: '%s' should be a %s, not '%.40s'", w->file, line_of(w),
                    path, whole ? "whole number" : "finite decimal number", text);
  const rule *r = find_rule(path);
  if (r && !(v >= r->lo && v <= r->hi))
    return dj_error(DJ_E_INVALID, "%s:%d: '%s' is %.40s, out of range: %g to %g", w->file,
                    line_of(w), path, text, r->lo, r->hi);
  return DJ_OK;
}

static const char *nearest(const char *name, const char *(*at)(const void *, size_t),
                           const void *list) {
  const char *best = NULL, *s;
  int least = 1 + (int)strlen(name) / 2; // farther away is no help
  if (least > 5) least = 5;
  for (size_t i = 0; (s = at(list, i)); i++) {
    int d = dj__edit_distance(name, s);
    if (d < least) {
      least = d;
      best = s;
    }
  }
  return best;
}

static const char *field_at(const void *list, size_t i) {
  return ((const cyaml_schema_field_t *)list)[i].key;
}
static const char *word_at(const void *list, size_t i) {
  const cyaml_schema_value_t *v = list;
  return i < v->enumeration.count ? v->enumeration.strings[i].str : NULL;
}

static dj_status check_word(const walk *w, const cyaml_schema_value_t *v, const char *path,
                            const char *text) {
  char all[256] = "";
  size_t at = 0;
  for (uint32_t i = 0; i < v->enumeration.count; i++) {
    if (!strcmp(text, v->enumeration.strings[i].str)) return DJ_OK;
    at += (size_t)snprintf(all + at, sizeof all - at, "%s%s", i ? ", " : "",
                           v->enumeration.strings[i].str);
  }
  const char *near = nearest(text, word_at, v);
  return dj_error(DJ_E_FORMAT, "%s:%d: '%s' cannot be '%.40s'%s%s%s; known: %s", w->file,
                  line_of(w), path, text, near ? "; did you mean '" : "", near ? near : "",
                  near ? "'?" : "", all);
}

static dj_status check_scalar(walk *w, const cyaml_schema_value_t *v, const char *path) {
  DJ_TRY(expect_event(w, YAML_SCALAR_EVENT, path));
  const char *text = (const char *)w->event.data.scalar.value;
  size_t length = w->event.data.scalar.length;
  switch (v->type) {
  case CYAML_INT:
  case CYAML_UINT:
    return check_number(w, path, text, true);
  case CYAML_FLOAT:
    return check_number(w, path, text, false);
  case CYAML_BOOL:
    if (!strcmp(text, "true") || !strcmp(text, "false")) return DJ_OK;
    return dj_error(DJ_E_FORMAT, "%s:%d: '%s' should be true or false, not '%.40s'", w->file,
                    line_of(w), path, text);
  case CYAML_ENUM:
  case CYAML_FLAGS:
    return check_word(w, v, path, text);
  default:
    if (length >= v->string.min && length <= v->string.max) return DJ_OK;
    return dj_error(DJ_E_INVALID, "%s:%d: '%s' is a text of %zu bytes; %u to %u are taken", w->file,
                    line_of(w), path, length, v->string.min, v->string.max);
  }
}

static dj_status check_list(walk *w, const cyaml_schema_value_t *v, const char *path) {
  DJ_TRY(expect_event(w, YAML_SEQUENCE_START_EVENT, path));
  bool flags = v->type == CYAML_FLAGS;
  uint32_t n = 0, min = flags ? 1 : v->sequence.min, max = flags ? 64 : v->sequence.max;
  int line = line_of(w);
  for (;;) {
    DJ_TRY(next_event(w));
    if (w->event.type == YAML_SEQUENCE_END_EVENT) break;
    DJ_TRY(check_scalar(w, flags ? v : v->sequence.entry, path));
    if (++n > max) break;
  }
  if (n >= min && n <= max) return DJ_OK;
  return dj_error(DJ_E_FORMAT, "%s:%d: '%s' has %s%u entries; %u to %u are taken", w->file, line,
                  path, n > max ? "over " : "", n > max ? max : n, min, max);
}

static dj_status check_mapping(walk *w, const cyaml_schema_field_t *fields, const char *path);

static dj_status check_value(walk *w, const cyaml_schema_value_t *v, const char *path) {
  switch (v->type) {
  case CYAML_MAPPING:
    return check_mapping(w, v->mapping.fields, path);
  case CYAML_SEQUENCE:
  case CYAML_SEQUENCE_FIXED:
  case CYAML_FLAGS:
    return check_list(w, v, path);
  default:
    return check_scalar(w, v, path);
  }
}

static dj_status unknown_key(const walk *w, const cyaml_schema_field_t *fields, const char *path,
                             const char *key) {
  const char *near = nearest(key, field_at, fields);
  if (near)
    return dj_error(DJ_E_FORMAT, "%s:%d: unknown key '%.60s' in '%s'; did you mean '%s'?", w->file,
                    line_of(w), key, *path ? path : "the recipe", near);
  char all[512] = "";
  size_t at = 0;
  for (size_t i = 0; fields[i].key && at < sizeof all; i++)
    at += (size_t)snprintf(all + at, sizeof all - at, "%s%s", i ? ", " : "", fields[i].key);
  return dj_error(DJ_E_FORMAT, "%s:%d: unknown key '%.60s' in '%s'; known: %s", w->file, line_of(w),
                  key, *path ? path : "the recipe", all);
}

// Recursion is as deep as the schema (3), whatever the document does.
static dj_status check_mapping(walk *w, const cyaml_schema_field_t *fields, const char *path) {
  DJ_TRY(expect_event(w, YAML_MAPPING_START_EVENT, *path ? path : "a recipe"));
  for (;;) {
    DJ_TRY(next_event(w));
    if (w->event.type == YAML_MAPPING_END_EVENT) return DJ_OK;
    DJ_TRY(expect_event(w, YAML_SCALAR_EVENT, "a key"));
    const char *key = (const char *)w->event.data.scalar.value;
    const cyaml_schema_field_t *f = fields;
    while (f->key && strcmp(f->key, key) != 0) f++;
    if (!f->key) return unknown_key(w, fields, path, key);
    char full[MAX_PATH];
    (void)snprintf(full, sizeof full, "%s%s%s", path, *path ? "." : "", f->key);
    int before = find_line(&w->keys, full);
    if (before)
      return dj_error(DJ_E_FORMAT, "%s:%d: '%s' is given twice; first in line %d", w->file,
                      line_of(w), full, before);
    DJ_TRY(add_line(&w->keys, full, line_of(w)));
    DJ_TRY(next_event(w));
    DJ_TRY(check_value(w, &f->value, full));
  }
}

static dj_status check_document(walk *w) {
  DJ_TRY(next_event(w)); // stream start
  DJ_TRY(next_event(w));
  if (w->event.type == YAML_STREAM_END_EVENT)
    return dj_error(DJ_E_FORMAT, "%s: the recipe is empty", w->file);
  DJ_TRY(next_event(w));
  DJ_TRY(check_mapping(w, top_fields, ""));
  DJ_TRY(next_event(w)); // document end
  DJ_TRY(next_event(w));
  if (w->event.type != YAML_STREAM_END_EVENT)
    return dj_error(DJ_E_FORMAT, "%s:%d: a second document; a recipe is one", w->file, line_of(w));
  return DJ_OK;
}

static dj_status missing_key(const char *file, const key_lines *k, const char *path) {
  char section[MAX_PATH];
  (void)snprintf(section, sizeof section, "%s", path);
  char *dot = strrchr(section, '.');
  if (dot) *dot = 0;
  int line = find_line(k, section);
  return dj_error(DJ_E_FORMAT, "%s:%d: the key '%s' is missing and has no default", file,
                  line ? line : 1, path);
}

static dj_status check_text(const char *text, size_t size, const char *file, key_lines *keys) {
  walk w = {.file = file};
  if (!yaml_parser_initialize(&w.parser)) return dj_error(DJ_E_NOMEM, "%s: no memory", file);
  yaml_parser_set_encoding(&w.parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&w.parser, (const unsigned char *)text, size);
  dj_status s = check_document(&w);
  if (w.have_event) yaml_event_delete(&w.event);
  yaml_parser_delete(&w.parser);
  *keys = w.keys;
  if (!s && !find_line(keys, "network.name")) s = missing_key(file, keys, "network.name");
  for (size_t i = 0; i < N_OF(rules) && !s; i++)
    if (isnan(rules[i].def) && !find_line(keys, rules[i].path))
      s = missing_key(file, keys, rules[i].path);
  return s;
}

// ---- second pass: fill -------------------------------------------------------------------------

static void cyaml_message(cyaml_log_t level, void *ctx, const char *fmt, va_list ap) {
  (void)level;
  char *text = ctx;
  if (!*text) (void)vsnprintf(text, 256, fmt, ap);
  text[strcspn(text, "\n")] = 0;
}

static cyaml_config_t config(char message[256]) {
  return (cyaml_config_t){.log_fn = cyaml_message,
                          .log_ctx = message,
                          .log_level = CYAML_LOG_ERROR,
                          .mem_fn = cyaml_mem,
                          .flags = CYAML_CFG_NO_ALIAS};
}

static void fill_defaults(dj_recipe *r, const key_lines *k) {
  for (size_t i = 0; i < N_OF(rules); i++)
    if (!find_line(k, rules[i].path)) set_default(r, &rules[i]);
  if (!find_line(k, "data.labels")) r->data.labels = DJ_LABEL_CONTROL;
  if (!find_line(k, "loss.kind")) r->loss.kind = DJ_LOSS_LAPLACE;
  if (!find_line(k, "train.precision")) r->train.precision = DJ_PRECISION_BF16;
  if (!find_line(k, "train.optimizer.name")) r->train.optimizer.name = DJ_ADAMW;
  if (!find_line(k, "train.schedule.name")) r->train.schedule.name = DJ_SCHEDULE_COSINE;
}

static dj_status check_drive(const dj_recipe *r) {
  if (r->data.width <= 0) return missing_key(r->file, r->internal, "data.width");
  if (r->data.height <= 0) return missing_key(r->file, r->internal, "data.height");
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
                        key_lines *keys) {
  r->internal = calloc(1, sizeof(key_lines));
  r->text = malloc(size + 1);
  r->file = dj__strf("%s", file);
  if (!r->internal || !r->text) return dj_error(DJ_E_NOMEM, "%s: no memory", file);
  *(key_lines *)r->internal = *keys;
  *keys = (key_lines){0};
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
  if (size > MAX_BYTES)
    return dj_error(DJ_E_LIMIT, "%s: %zu bytes; a recipe has at most %d", file, size, MAX_BYTES);
  key_lines keys = {0};
  dj_status s = check_text(text, size, file, &keys);
  dj_recipe *r = NULL;
  if (!s) {
    char message[256] = "";
    cyaml_config_t c = config(message);
    cyaml_err_t e = cyaml_load_data((const uint8_t *)text, size, &c, &top, (cyaml_data_t **)&r, 0);
    if (e != CYAML_OK)
      s = dj_error(e == CYAML_ERR_OOM ? DJ_E_NOMEM : DJ_E_FORMAT, "%s: %s: %s", file,
                   cyaml_strerror(e), message);
  }
  if (!s) s = finish(r, text, size, file, &keys);
  free(keys.v);
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
  if (r->internal) free(((key_lines *)r->internal)->v);
  free(r->internal);
  free(r->text);
  free(r->file);
  char message[256] = "";
  cyaml_config_t c = config(message);
  (void)cyaml_free(&c, &top, r, 0);
}

int dj_recipe_line(const dj_recipe *r, const char *key) {
  return r->internal ? find_line(r->internal, key) : 0;
}
