/*
 * Protobuf descriptors of the messages in our logs, embedded when building (scripts/embed.cmake):
 * each is a serialized google.protobuf.FileDescriptorSet with all imports, which is what an MCAP
 * schema record with encoding "protobuf" holds.
 */
#ifndef DOJO_FLEET_FOXGLOVE_DESCRIPTORS_H
#define DOJO_FLEET_FOXGLOVE_DESCRIPTORS_H

#include <stddef.h>

typedef struct dj__descriptor {
  const char *name; // full message name, for example "foxglove.CompressedImage"
  const unsigned char *data;
  size_t size;
} dj__descriptor;

extern const dj__descriptor dj__foxglove_descriptors[];
extern const int dj__n_foxglove_descriptors;

#endif
