/* The up-case table, by which names are compared (exFAT specification, 7.2). */
#ifndef FILES_EXFAT_UPCASE_H
#define FILES_EXFAT_UPCASE_H

#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

enum {
    EXFAT_UPCASE_UNITS = 1 << 16,
    EXFAT_UPCASE_BYTES_MOST = EXFAT_UPCASE_UNITS * 2,
};

struct exfat_upcase {
    uint16_t units[EXFAT_UPCASE_UNITS];
};

/* The table that the specification recommends (7.2.5.1). */
void exfat_upcase_recommended(struct exfat_upcase *ret_upcase);

/* It as bytes on a volume: owned, of *ret_size bytes. */
uint8_t *exfat_upcase_packed(size_t *ret_size);

/* size bytes of a volume, plain or with runs. -EUCLEAN: it is none, or its sum is not this one. */
int exfat_upcase_read(const uint8_t *data, size_t size, uint32_t sum,
                      struct exfat_upcase *ret_upcase, struct error *err);

/* 7.2.2, figure 3. */
uint32_t exfat_upcase_sum(const uint8_t *data, size_t size);

#endif
