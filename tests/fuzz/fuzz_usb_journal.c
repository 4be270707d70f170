/*
 * The journal of a volume. The first byte: 1 keeps sums as they come, else they are made right; 2:
 * sectors of 4096 bytes; 4: the size of a record is made what follows from how many sectors it says
 * to have. The rest is the disk, piece by piece: where a piece begins (2 bytes, in steps of 32),
 * how long it is (2 bytes), its bytes. What no piece says is zeros. One at 0xFFFE is none: it says
 * what is not read twice alike (usb_varying.h).
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <block/bytes.h>

#include "../usb/recorder.h"
#include "journal.h"
#include "usb_varying.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    SECTORS = 400,
    JOURNAL_AT = 200,
    JOURNAL_BYTES = 64 << 10,
    SUMS = 1,
    LARGE_SECTORS = 2,
    SIZES = 4,
};

static void fill(uint8_t *disk, size_t disk_size, const uint8_t *data, size_t size)
{
    while (size >= 4) {
        size_t at = (size_t)get_le16(data) * 32, length = get_le16(data + 2);
        data += 4;
        size -= 4;
        length = length < size ? length : size;
        if (at == VARYING * 32)
            varying = (struct varying){data, length};
        else if (at < disk_size)
            memcpy(disk + at, data, length < disk_size - at ? length : disk_size - at);
        data += length;
        size -= length;
    }
}

static void make_headers_right(uint8_t *journal, uint32_t sector_size)
{
    for (uint32_t i = 0; i < HEADERS; i++) {
        uint8_t *header = journal + (size_t)i * sector_size;
        put_le32(header + HEADER_SUM, journal_sum(header, sector_size, HEADER_SUM));
    }
}

/* From where the first header says on. */
static void make_records_right(uint8_t *journal, uint32_t sector_size, uint8_t how)
{
    uint64_t at = get_le64(journal + HEADER_POSITION);
    while (at < JOURNAL_BYTES && at % sector_size == 0) {
        uint32_t count = get_le32(journal + at + RECORD_COUNT) & ~RECORD_IN_USE;
        if (how & SIZES)
            put_le64(journal + at + RECORD_SIZE,
                     journal_front(count, sector_size) + 2 * (uint64_t)count * sector_size);
        uint64_t size = get_le64(journal + at + RECORD_SIZE);
        if (how & SUMS || size < RECORD_TARGETS || size > JOURNAL_BYTES - at)
            break;
        put_le32(journal + at + RECORD_SUM, journal_sum(journal + at, size, RECORD_SUM));
        at += size;
    }
}

/* What varies may be refused. */
static bool recover_once(struct recorder *recorder, bool read_only, enum medium_recovery *ret)
{
    bool in_use;
    *ret = MEDIUM_NO_JOURNAL;
    int r = journal_recover(recorder_device(recorder), JOURNAL_AT, JOURNAL_BYTES, read_only, ret,
                            &in_use, NULL);
    if (r != 0 && varying.size == 0)
        abort();
    return r == 0 && varying.size == 0;
}

/* Nothing is written beyond what records may name, and a second recovery finds nothing more to do.
 */
static void recover(struct recorder *recorder)
{
    enum medium_recovery first, second;
    recover_once(recorder, true, &first);
    if (recorder_counts(recorder).writes > 0)
        abort();
    bool sound = recover_once(recorder, false, &first);
    uint64_t writes = recorder_counts(recorder).writes;
    if (sound && (first == MEDIUM_NOTHING || first == MEDIUM_NO_JOURNAL) && writes > 0)
        abort();
    sound = recover_once(recorder, false, &second);
    if (sound && (second == MEDIUM_REPLAYED || second == MEDIUM_DISCARDED))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint32_t sector_size = data[0] & LARGE_SECTORS ? 4096 : 512;
    struct recorder *recorder = recorder_create(sector_size, SECTORS);
    uint8_t *journal = recorder_disk(recorder) + (size_t)JOURNAL_AT * sector_size;
    varying.size = 0;
    fill(recorder_disk(recorder), (size_t)SECTORS * sector_size, data + 1, size - 1);
    if (!(data[0] & SUMS))
        make_headers_right(journal, sector_size);
    make_records_right(journal, sector_size, data[0]);
    make_varying(recorder);
    recover(recorder);
    recorder_destroy(recorder);
    return 0;
}
