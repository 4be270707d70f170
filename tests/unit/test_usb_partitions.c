/* src/usb/block: partition tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include <block/bytes.h>
#include <block/partitions.h>
#include <zlib.h>

#include "../usb/recorder.h"

static bool no_volume(const uint8_t *sector, size_t size)
{
    return false;
}

static void mbr_entry(uint8_t *sector, int i, uint8_t type, uint32_t first, uint32_t count)
{
    uint8_t *entry = sector + 446 + i * 16;
    entry[4] = type;
    put_le32(entry + 8, first);
    put_le32(entry + 12, count);
    sector[510] = 0x55;
    sector[511] = 0xAA;
}

static void find_logical(uint32_t sector_size)
{
    struct recorder *recorder = recorder_create(sector_size, 1000);
    uint8_t *disk = recorder_disk(recorder);
    struct partitions found;
    mbr_entry(disk, 0, 0x0C, 10, 100);
    mbr_entry(disk, 1, 0x0F, 200, 800);
    mbr_entry(disk, 2, 0x0C, 900, 101); /* beyond the end */
    mbr_entry(disk + (size_t)200 * sector_size, 0, 0x07, 5, 50);
    mbr_entry(disk + (size_t)200 * sector_size, 1, 0x05, 100, 100);
    mbr_entry(disk + (size_t)300 * sector_size, 0, 0x01, 5, 60);
    assert_int_equal(partitions_read(recorder_device(recorder), no_volume, &found, NULL), 0);
    assert_int_equal(found.table, PARTITIONS_MBR);
    assert_int_equal(found.count, 3);
    assert_int_equal(found.skipped, 1);
    assert_int_equal(found.partitions[1].number, 5);
    assert_int_equal(found.partitions[1].first, 205);
    assert_int_equal(found.partitions[2].number, 6);
    assert_int_equal(found.partitions[2].first, 305);
    mbr_entry(disk + (size_t)300 * sector_size, 1, 0x05, 0, 100); /* to the first one again */
    assert_int_equal(partitions_read(recorder_device(recorder), no_volume, &found, NULL), 0);
    assert_int_equal(found.count, 3); /* none of them twice */
    assert_int_equal(found.skipped, 2);
    recorder_destroy(recorder);
}

static void logical_partitions_are_found_and_loops_end(void **state)
{
    for (uint32_t sector_size = 512; sector_size <= 4096; sector_size *= 2)
        find_logical(sector_size);
}

/* entries of entry_size bytes each, of which the first is one, and the second is none. */
struct gpt {
    uint32_t sector_size, header_size, entries, entry_size;
};

static void make_gpt_of(const struct gpt *gpt, uint8_t *disk, uint64_t at, uint64_t entries_at,
                        uint64_t first)
{
    uint8_t *entries = disk + entries_at * gpt->sector_size;
    uint8_t *header = disk + at * gpt->sector_size;
    uint32_t size = gpt->entries * gpt->entry_size;
    memset(entries, 0, size);
    entries[0] = 0xAF;
    put_le64(entries + 32, first);
    put_le64(entries + 40, first + 99);
    put_le16(entries + 56, 'D');
    put_le16(entries + 58, 0xE4);
    if (gpt->entries > 1) {
        uint8_t *second = entries + gpt->entry_size;
        put_le64(second, 1);
        put_le64(second + 32, 500);
        put_le64(second + 40, 499); /* ends before it begins */
    }
    memset(header, 0, gpt->sector_size);
    memcpy(header, "EFI PART", 8);
    put_le32(header + 12, gpt->header_size);
    put_le64(header + 24, at);
    put_le64(header + 72, entries_at);
    put_le32(header + 80, gpt->entries);
    put_le32(header + 84, gpt->entry_size);
    put_le32(header + 88, (uint32_t)crc32(0, entries, size));
    put_le32(header + 16, (uint32_t)crc32(0, header, gpt->header_size));
}

static void make_gpt(uint8_t *disk, uint64_t at, uint64_t entries_at, uint64_t first)
{
    make_gpt_of(&(struct gpt){512, 92, 128, 128}, disk, at, entries_at, first);
}

static void find_either_gpt(const struct gpt *gpt)
{
    struct recorder *recorder = recorder_create(gpt->sector_size, 1000);
    uint8_t *disk = recorder_disk(recorder);
    struct partitions found;
    mbr_entry(disk, 0, 0xEE, 1, 999);
    make_gpt_of(gpt, disk, 1, 2, 100);
    make_gpt_of(gpt, disk, 999, 967, 200);
    assert_int_equal(partitions_read(recorder_device(recorder), no_volume, &found, NULL), 0);
    assert_int_equal(found.table, PARTITIONS_GPT);
    assert_int_equal(found.count, 1);
    assert_int_equal(found.skipped, gpt->entries > 1);
    assert_int_equal(found.partitions[0].first, 100);
    assert_int_equal(found.partitions[0].count, 100);
    assert_string_equal(found.partitions[0].name, "D\u00e4");
    assert_false(found.of_backup);
    disk[2 * gpt->sector_size + 100]++;
    assert_int_equal(partitions_read(recorder_device(recorder), no_volume, &found, NULL), 0);
    assert_true(found.of_backup);
    assert_int_equal(found.partitions[0].first, 200);
    disk[999 * gpt->sector_size]++;
    assert_int_equal(partitions_read(recorder_device(recorder), no_volume, &found, NULL), 0);
    assert_int_equal(found.table, PARTITIONS_NONE);
    assert_int_equal(found.count, 0);
    recorder_destroy(recorder);
}

static void the_second_gpt_counts_when_the_first_is_broken(void **state)
{
    for (uint32_t sector_size = 512; sector_size <= 4096; sector_size *= 2) {
        find_either_gpt(&(struct gpt){sector_size, 92, 128, 128});
        find_either_gpt(&(struct gpt){sector_size, 512, 4, 256});
        find_either_gpt(&(struct gpt){sector_size, 96, 2, 4096});
        find_either_gpt(&(struct gpt){sector_size, 92, 1, 128});
    }
}

static void tables_that_cannot_be_read_hide_no_others(void **state)
{
    static const uint64_t spoiled[] = {1, 2};
    for (size_t i = 0; i < ARRAY_SIZE(spoiled); i++) {
        struct recorder *recorder = recorder_create(512, 1000);
        struct partitions found;
        mbr_entry(recorder_disk(recorder), 0, 0xEE, 1, 999);
        make_gpt(recorder_disk(recorder), 1, 2, 100);
        make_gpt(recorder_disk(recorder), 999, 967, 200);
        recorder_spoil(recorder, spoiled[i], 1);
        assert_int_equal(partitions_read(recorder_device(recorder), no_volume, &found, NULL), 0);
        assert_true(found.of_backup);
        assert_int_equal(found.partitions[0].first, 200);
        recorder_spoil(recorder, 999, 1);
        assert_int_equal(partitions_read(recorder_device(recorder), no_volume, &found, NULL), -EIO);
        recorder_destroy(recorder);
    }
    struct recorder *recorder = recorder_create(512, 1000);
    struct partitions found;
    mbr_entry(recorder_disk(recorder), 0, 0x0C, 10, 100);
    mbr_entry(recorder_disk(recorder), 1, 0x0F, 200, 800);
    recorder_spoil(recorder, 200, 1);
    assert_int_equal(partitions_read(recorder_device(recorder), no_volume, &found, NULL), 0);
    assert_true(found.count == 1 && found.skipped == 1);
    recorder_destroy(recorder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logical_partitions_are_found_and_loops_end),
        cmocka_unit_test(the_second_gpt_counts_when_the_first_is_broken),
        cmocka_unit_test(tables_that_cannot_be_read_hide_no_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
