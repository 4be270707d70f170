/*
 * Partition tables. The first byte: 1 keeps the sums of GPT as they come, else they are made right;
 * the next two bits are the size of a sector, from 512 to 4096. The rest is the disk, piece by
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SECTORS = 400, SUMS = 1 };

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

static void make_gpt_right(uint8_t *disk, uint64_t at, uint32_t sector_size)
{
    uint8_t *header = disk + at * sector_size;
    uint32_t size = get_le32(header + 12);
    uint64_t entries = get_le64(header + 72);
    uint64_t bytes = (uint64_t)get_le32(header + 80) * get_le32(header + 84);
    if (entries < SECTORS && bytes <= (SECTORS - entries) * sector_size)
        put_le32(header + 88, (uint32_t)crc32(0, disk + entries * sector_size, (uInt)bytes));
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint32_t sector_size = 512u << (data[0] >> 1 & 3);
    struct recorder *recorder = recorder_create(sector_size, SECTORS);
    uint8_t *disk = recorder_disk(recorder);
    fill(disk, (size_t)SECTORS * sector_size, data + 1, size - 1);
    if (!(data[0] & SUMS)) {
        make_gpt_right(disk, 1, sector_size);
        make_gpt_right(disk, SECTORS - 1, sector_size);
    }
    read_partitions(recorder);
    recorder_destroy(recorder);
    return 0;
}
