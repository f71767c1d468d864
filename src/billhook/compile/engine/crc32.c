/* Slicing by 16: sixteen bytes a step, one table for each of them.
 *
 * The tables (16 KB) are made on the stack in microseconds, which is nothing beside the file they are for.
 */
#include "crc32.h"

#include <string.h>

#define SLICES 16
#define POLYNOMIAL 0xEDB88320u /* bits reversed */

typedef uint32_t bh_crc_tables[SLICES][256];

/* table[0][b]: what a byte b leaves in the register; table[n][b]: the same with n zero bytes behind it. */
static void make_tables(bh_crc_tables table) {
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
        table[0][b] = crc;
    }
    for (int n = 1; n < SLICES; n++)
        for (int b = 0; b < 256; b++) table[n][b] = (table[n - 1][b] >> 8) ^ table[0][table[n - 1][b] & 0xFF];
}

/* Four bytes, of which the last one has `behind` bytes of this step behind it. */
static inline uint32_t four(bh_crc_tables table, uint32_t word, int behind) {
    return table[behind + 3][word & 0xFF] ^ table[behind + 2][word >> 8 & 0xFF] ^
           table[behind + 1][word >> 16 & 0xFF] ^ table[behind][word >> 24];
}

uint32_t bh_crc32(const unsigned char *bytes, size_t size) {
    bh_crc_tables table;
    make_tables(table);
    uint32_t crc = 0xFFFFFFFFu;
    for (; size >= SLICES; bytes += SLICES, size -= SLICES) {
        uint32_t word[4];
        memcpy(word, bytes, sizeof word);
        crc = four(table, word[0] ^ crc, 12) ^ four(table, word[1], 8) ^ four(table, word[2], 4) ^
              four(table, word[3], 0);
    }
    for (; size; bytes++, size--) crc = (crc >> 8) ^ table[0][(crc ^ *bytes) & 0xFF];
    return ~crc;
}
