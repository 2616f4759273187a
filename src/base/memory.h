/* How much memory this process may still take. */
#ifndef DOJO_BASE_MEMORY_H
#define DOJO_BASE_MEMORY_H

#include <stdint.h>

/* Bytes that can be had without swapping or being killed: what the system has available, or less
 * where a control group (container, batch job) allows less. UINT64_MAX where nothing says. */
uint64_t dj__memory_available(void);

#endif
