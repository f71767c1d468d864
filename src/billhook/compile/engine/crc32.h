/* CRC-32 as in zlib, gzip and PNG. */
#ifndef BH_CRC32_H
#define BH_CRC32_H

#include <stddef.h>
#include <stdint.h>

uint32_t bh_crc32(const unsigned char *bytes, size_t size);

#endif
