/* CRC-32C (RFC 3720, appendix B.4: polynomial 0x1EDC6F41, reflected), by the processor's
 * instructions where it has them. */
#ifndef BLOCK_CRC32C_H
#define BLOCK_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* crc: 0, or the sum of what came before. */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);

/* The same by table, wherever it runs: what the other one is compared with. */
uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t size);

#endif
