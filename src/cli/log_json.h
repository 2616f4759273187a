/* JSON of what a log holds: names that may not be UTF-8, numbers of 64 bits, protobuf messages. */
#ifndef DOJO_CLI_LOG_JSON_H
#define DOJO_CLI_LOG_JSON_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

/* For reports: a string (bytes that are no UTF-8 become '?'), and a number that may not fit into
 * jansson's signed 64 bits (then it is rounded to a double). */
json_t *dj__json_text(const char *s);
json_t *dj__json_u64(uint64_t v);

/* For lines: appended to `b`, whose failed flag tells of memory that is out. */
void dj__json_put_string(dj__buf *b, const void *s, size_t n);
void dj__json_put_u64(dj__buf *b, uint64_t v);
/* base64 in quotes, or {"bytes": n} when `whole` is false. */
void dj__json_put_bytes(dj__buf *b, const void *data, size_t n, bool whole);
/* A message with its fields by their names in the .proto file. Scalars are always there, messages
 * and optional fields where they are set; NaN and infinities are null; enums are names. */
void dj__json_put_protobuf(dj__buf *b, const ProtobufCMessage *m, bool whole_bytes);

/* A name for people: control characters, which could move a terminal's cursor, become '?'. `to`
 * takes `size` bytes with the NUL; returns it. */
const char *dj__printable(char *to, size_t size, const char *s);

#endif
