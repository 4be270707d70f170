/*
 * Directory entries of exFAT (specification, sections 6 and 7), in memory: an entry set is a
 * file's, a stream extension and the parts of its name, one behind the other.
 */
#ifndef FILES_EXFAT_SET_H
#define FILES_EXFAT_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>

#include "exfat_upcase.h"

enum {
    EXFAT_ENTRY = 32, /* bytes */
    EXFAT_NAME_UNITS = 255,
    EXFAT_UNITS_OF_ENTRY = 15,
    EXFAT_SET_LEAST = 3, /* entries */
    EXFAT_SET_MOST = 19, /* that we make; 6.3: others may have up to 256 */
    EXFAT_SET_READ = 256,
};

enum exfat_type {
    EXFAT_END_OF_FOLDER = 0x00,
    EXFAT_IN_USE = 0x80, /* a bit */
    EXFAT_BITMAP = 0x81,
    EXFAT_UPCASE = 0x82,
    EXFAT_LABEL = 0x83,
    EXFAT_FILE = 0x85,
    EXFAT_STREAM = 0xC0,
    EXFAT_NAME = 0xC1,
};
/* 6.2.1: bits of a type. Who does not know a benign one leaves it alone. */
#define EXFAT_SECONDARY 0x40
#define EXFAT_BENIGN 0x20

enum exfat_attribute { /* 7.4.4 */
                       EXFAT_READ_ONLY = 1 << 0,
                       EXFAT_HIDDEN = 1 << 1,
                       EXFAT_SYSTEM = 1 << 2,
                       EXFAT_FOLDER = 1 << 4,
                       EXFAT_ARCHIVE = 1 << 5,
};

/* 7.4.8: a time as it is kept. */
struct exfat_time {
    uint32_t stamp;     /* date and time of day in steps of two seconds */
    uint8_t hundredths; /* 0 to 199, on top of it; accessed times have none */
    uint8_t offset;     /* of UTC; bit 7: it says something */
};

/* What a set says. */
struct exfat_set {
    unsigned entries; /* in all */
    uint16_t attributes;
    struct exfat_time created, modified, accessed;
    bool contiguous;      /* its clusters follow one another; the table says nothing of them */
    uint64_t size;        /* bytes; of a folder those of its clusters */
    uint64_t valid;       /* of these have been written; what is behind is read as zeros */
    uint32_t first;       /* cluster; 0: none */
    uint16_t hash;        /* of the name in capitals */
    unsigned name_length; /* units */
    uint16_t name[EXFAT_NAME_UNITS];
};

/* 6.3.3, figure 5: over all entries of a set. */
uint16_t exfat_set_sum(const uint8_t *entries, unsigned count);

/* 7.6.4: of a name in capitals. */
uint16_t exfat_name_hash(const struct exfat_upcase *upcase, const uint16_t *name, unsigned length);

/* 7.7.3: whether a name of so many units may be. */
bool exfat_name_is_allowed(const uint16_t *name, unsigned length);

/* How many entries a name of this length takes. */
static inline unsigned exfat_set_size(unsigned name_length)
{
    return 2 + (name_length + EXFAT_UNITS_OF_ENTRY - 1) / EXFAT_UNITS_OF_ENTRY;
}

/* entries: `count` of them, the first one of type EXFAT_FILE, of which it says that there are so
 * many. Whether the clusters are some of the volume's is for the caller. -EUCLEAN: it is none. */
int exfat_set_parse(const uint8_t *entries, unsigned count, struct exfat_set *ret_set,
                    struct error *err);

/* How many entries the set that begins so has; 0: it cannot be. */
unsigned exfat_set_count(const uint8_t *first_entry);

/* Writes the set's entries, exfat_set_size() of them, with hash and sum. */
void exfat_set_make(const struct exfat_set *set, const struct exfat_upcase *upcase,
                    uint8_t entries[EXFAT_SET_MOST * EXFAT_ENTRY]);

/* Puts what may change (attributes, times, sizes, clusters) into a set that is there, whatever else
 * it has. */
void exfat_set_update(const struct exfat_set *set, uint8_t *entries, unsigned count);

#endif
