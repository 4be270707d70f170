/*
 * The journal on the medium: cloche-journal(5) has the format. A header twice, in the first two
 * sectors, written in turn; then records, one behind the other. Each record has the number of
 * sectors, where they belong, what was in them before and what is to be in them.
 *
 * The medium's own; one thread at a time.
 */
#ifndef BLOCK_JOURNAL_H
#define BLOCK_JOURNAL_H

#include <block/device.h>
#include <block/medium.h>

struct journal {
    struct block_device *device;
    uint64_t first;      /* sector */
    uint64_t size;       /* bytes */
    uint64_t salt;       /* of this journal's records */
    uint64_t generation; /* of the header written last */
    uint64_t sequence;   /* of the next record */
    uint64_t position;   /* of the next record: bytes from first on */
    bool in_use;         /* as the last record says */
    bool header_due;     /* the header on the medium names records that do not matter any more */
};

/* A record while it is made, in one piece of memory as it will be written. */
struct journal_record {
    uint8_t *data; /* owned: block_buffer_alloc() */
    uint64_t size;
    uint32_t count;
    bool in_use;             /* what the journal says from then on */
    uint8_t *before, *after; /* count sectors each, within data */
};

/* Bytes of a record of so many sectors. */
uint64_t journal_record_size(const struct journal *journal, uint32_t count);
uint32_t journal_record_most(const struct journal *journal); /* sectors of the largest one */
bool journal_has_room(const struct journal *journal, uint32_t count);

/* An empty journal: the headers are written, not flushed. */
int journal_make(struct journal *journal, struct block_device *device, uint64_t first,
                 uint64_t size, bool in_use, struct error *err);

void journal_record_start(const struct journal *journal, uint32_t count,
                          struct journal_record *ret_record);
void journal_record_target(struct journal_record *record, uint32_t i, uint64_t sector);
void journal_record_finish(const struct journal *journal, struct journal_record *record);

/* Writes it; there is room. Durable after the next flush. */
int journal_append(struct journal *journal, const struct journal_record *record, struct error *err);

/* Everything that was recorded is in place, durably: the next record is the first one. */
void journal_restart(struct journal *journal);
int journal_write_header(struct journal *journal, struct error *err);

/* Reads what is there (recover.c); only_look: and writes nothing. */
int journal_recover(struct block_device *device, uint64_t first, uint64_t size, bool only_look,
                    enum medium_recovery *ret_recovery, bool *ret_in_use, struct error *err);

/* Where things are in headers and records, in bytes. */
enum {
    HEADER_MAGIC = 0,         /* 8 */
    HEADER_VERSION = 8,       /* 4 */
    HEADER_SECTOR_SIZE = 12,  /* 4 */
    HEADER_OFFSET = 16,       /* 8: of the journal on the volume */
    HEADER_JOURNAL_SIZE = 24, /* 8 */
    HEADER_VOLUME_SIZE = 32,  /* 8 */
    HEADER_SALT = 40,         /* 8 */
    HEADER_GENERATION = 48,   /* 8 */
    HEADER_SEQUENCE = 56,     /* 8: of the first record that matters */
    HEADER_POSITION = 64,     /* 8: where that is */
    HEADER_SUM = 72,          /* 4 */
    HEADER_FLAGS = 76,        /* 4; 0 before there were any */
    HEADER_BYTES = 80,

    RECORD_MAGIC = 0,     /* 8 */
    RECORD_SALT = 8,      /* 8 */
    RECORD_SEQUENCE = 16, /* 8 */
    RECORD_SIZE = 24,     /* 8 */
    RECORD_COUNT = 32,    /* 4; the highest bit: in use */
    RECORD_SUM = 36,      /* 4 */
    RECORD_TARGETS = 40,  /* 8 each */

    HEADERS = 2, /* sectors at the journal's start */
    JOURNAL_VERSION = 1,
};
#define HEADER_IN_USE 1u
#define RECORD_IN_USE 0x80000000u
#define JOURNAL_HEADER_MAGIC "CLOCHEJ1"
#define JOURNAL_RECORD_MAGIC "CLOCHER1"

/* The bytes in front of a record's images: whole sectors. */
static inline uint64_t journal_front(uint32_t count, uint32_t sector_size)
{
    uint64_t bytes = RECORD_TARGETS + (uint64_t)count * 8;
    return (bytes + sector_size - 1) / sector_size * sector_size;
}

/* The sum of a header or record whose field for it is at sum_at. */
uint32_t journal_sum(const uint8_t *data, uint64_t size, size_t sum_at);

#endif
