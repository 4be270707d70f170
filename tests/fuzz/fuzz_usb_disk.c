/*
 * What a stick has before its file system: partition tables, and the journal of a volume. The first
 * byte says which, and whether sums are made right first ('P', 'J'). The rest is the disk, piece by
 * piece: where a piece begins (2 bytes, in steps of 32), how long it is (2 bytes), its bytes. What
 * no piece says is zeros.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <block/bytes.h>
#include <block/partitions.h>
#include <zlib.h>

#include "../usb/recorder.h"
#include "journal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    SECTORS = 400,
    JOURNAL_AT = 200,
    JOURNAL_BYTES = 64 << 10,
};

static void fill(uint8_t *disk, size_t disk_size, const uint8_t *data, size_t size)
{
    while (size >= 4) {
        size_t at = (size_t)get_le16(data) * 32, length = get_le16(data + 2);
        data += 4;
        size -= 4;
        length = length < size ? length : size;
        if (at < disk_size)
            memcpy(disk + at, data, length < disk_size - at ? length : disk_size - at);
        data += length;
        size -= length;
    }
}

static void make_gpt_right(uint8_t *disk, uint64_t at)
{
    uint8_t *header = disk + at * 512;
    uint32_t size = get_le32(header + 12);
    uint64_t entries = get_le64(header + 72), bytes = (uint64_t)get_le32(header + 80) * 128;
    if (entries < SECTORS && bytes <= (SECTORS - entries) * 512)
        put_le32(header + 88, (uint32_t)crc32(0, disk + entries * 512, (uInt)bytes));
    if (size >= 92 && size <= 512) {
        put_le32(header + 16, 0);
        put_le32(header + 16, (uint32_t)crc32(0, header, size));
    }
}

static bool no_volume(const uint8_t *sector, size_t size)
{
    return memcmp(sector + 3, "EXFAT   ", 8) == 0;
}

static void read_partitions(struct recorder *recorder)
{
    struct partitions found;
    if (partitions_read(recorder_device(recorder), no_volume, &found, NULL) != 0 ||
        found.count > PARTITIONS_MAX)
        abort();
    for (size_t i = 0; i < found.count; i++)
        if (found.partitions[i].count == 0 || found.partitions[i].first == 0 ||
            !block_within(recorder_device(recorder), found.partitions[i].first,
                          found.partitions[i].count))
            abort();
    if (recorder_counts(recorder).writes > 0)
        abort();
}

static void make_journal_right(uint8_t *disk)
{
    uint8_t *journal = disk + JOURNAL_AT * 512;
    for (int i = 0; i < HEADERS; i++)
        put_le32(journal + i * 512 + HEADER_SUM, journal_sum(journal + i * 512, 512, HEADER_SUM));
    uint64_t at = get_le64(journal + HEADER_POSITION);
    while (at < JOURNAL_BYTES && at % 512 == 0) {
        uint64_t size = get_le64(journal + at + RECORD_SIZE);
        if (size < RECORD_TARGETS || size > JOURNAL_BYTES - at)
            break;
        put_le32(journal + at + RECORD_SUM, journal_sum(journal + at, size, RECORD_SUM));
        at += size;
    }
}

/* Nothing is written beyond what records may name, and a second recovery finds nothing more to do.
 */
static void recover(struct recorder *recorder)
{
    enum medium_recovery first, second;
    struct block_device *device = recorder_device(recorder);
    bool in_use;
    if (journal_recover(device, JOURNAL_AT, JOURNAL_BYTES, true, &first, &in_use, NULL) != 0 ||
        recorder_counts(recorder).writes > 0)
        abort();
    if (journal_recover(device, JOURNAL_AT, JOURNAL_BYTES, false, &first, &in_use, NULL) != 0)
        abort();
    uint64_t writes = recorder_counts(recorder).writes;
    if ((first == MEDIUM_NOTHING || first == MEDIUM_NO_JOURNAL) && writes > 0)
        abort();
    if (journal_recover(device, JOURNAL_AT, JOURNAL_BYTES, false, &second, &in_use, NULL) != 0 ||
        second == MEDIUM_REPLAYED || second == MEDIUM_DISCARDED)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct recorder *recorder = recorder_create(512, SECTORS);
    uint8_t *disk = recorder_disk(recorder);
    fill(disk, SECTORS * 512, data + 1, size - 1);
    if (data[0] == 'P') {
        make_gpt_right(disk, 1);
        make_gpt_right(disk, SECTORS - 1);
    } else if (data[0] == 'J') {
        make_journal_right(disk);
    }
    if (data[0] == 'p' || data[0] == 'P')
        read_partitions(recorder);
    else
        recover(recorder);
    recorder_destroy(recorder);
    return 0;
}
