/* CRC-32 as zlib, PNG and MCAP use it (polynomial 0xEDB88320, reflected). Start with 0; a running
 * value goes back in. Carry-less multiplication where the processor has it, a table of 8 x 256
 * elsewhere. */
#ifndef DOJO_BASE_CRC32_H
#define DOJO_BASE_CRC32_H

#include <stddef.h>
#include <stdint.h>

uint32_t dj__crc32(uint32_t crc, const void *data, size_t n);
/* The table version alone: for tests. */
uint32_t dj__crc32_table(uint32_t crc, const void *data, size_t n);

#endif
