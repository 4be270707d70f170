/* src/usb/files: exFAT's boot region, up-case table, entry sets, format and check. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <block/bytes.h>

#include "../usb/recorder.h"
#include "exfat_check.h"
#include "exfat_format.h"
#include "exfat_layout.h"
#include "exfat_set.h"
#include "exfat_upcase.h"
#include "times.h"
#include "utf16.h"

static void the_recommended_table_has_its_sum(void **state)
{
    size_t size;
    uint8_t *packed = exfat_upcase_packed(&size);
    struct exfat_upcase *made = xnew(struct exfat_upcase), *read = xnew(struct exfat_upcase);
    /* 7.2.5.1: 5836 bytes, 0xE619D30D. */
    assert_int_equal(size, 5836);
    assert_int_equal(exfat_upcase_sum(packed, size), 0xE619D30D);
    exfat_upcase_recommended(made);
    assert_int_equal(exfat_upcase_read(packed, size, 0xE619D30D, read, NULL), 0);
    assert_memory_equal(made, read, sizeof(*made));
    packed[100] ^= 1;
    assert_int_equal(exfat_upcase_read(packed, size, 0xE619D30D, read, NULL), -EUCLEAN);
    uint8_t run[] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02, 0x00};
    assert_int_equal(exfat_upcase_read(run, 8, exfat_upcase_sum(run, 8), read, NULL), -EUCLEAN);
    free(read);
    free(made);
    free(packed);
}

static void names_go_to_utf16_and_back(void **state)
{
    static const char *const names[] = {"a", "Stück", "\xe2\x82\xac", "\xf0\x9f\x94\x94",
                                        "\xed\xa0\x80x"};
    static const char *const wrong[] = {"\xc0\x80", "\xe0\x80\x80", "\xf4\x90\x80\x80",
                                        "\x80",     "a\xc3",        "\xff"};
    uint16_t units[16];
    char back[64];
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        int count = utf16_from_utf8(names[i], units, 16);
        assert_true(count > 0);
        assert_int_equal(utf8_from_utf16(units, (size_t)count, back), strlen(names[i]));
        assert_string_equal(back, names[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_int_equal(utf16_from_utf8(wrong[i], units, 16), -EILSEQ);
    assert_int_equal(utf16_from_utf8("12345", units, 4), -ENAMETOOLONG);
    assert_int_equal(utf16_from_utf8("\xf0\x9f\x94\x94", units, 1), -ENAMETOOLONG);
}

static struct exfat_set sample_set(const char *name, uint32_t first, uint64_t size)
{
    struct exfat_set set = {
        .attributes = EXFAT_ARCHIVE,
        .contiguous = true,
        .size = size,
        .valid = size,
        .first = first,
    };
    int length = utf16_from_utf8(name, set.name, EXFAT_NAME_UNITS);
    assert_true(length > 0);
    set.name_length = (unsigned)length;
    return set;
}

static void a_set_is_read_as_it_was_made(void **state)
{
    struct exfat_upcase *upcase = xnew(struct exfat_upcase);
    uint8_t entries[EXFAT_SET_MOST * EXFAT_ENTRY];
    struct exfat_set made = sample_set("a name of more than fifteen units", 7, 5000), read;
    unsigned count = exfat_set_size(made.name_length);
    exfat_upcase_recommended(upcase);
    exfat_set_make(&made, upcase, entries);
    assert_int_equal(count, 5);
    assert_int_equal(exfat_set_count(entries), count);
    assert_int_equal(exfat_set_parse(entries, count, &read, NULL), 0);
    assert_int_equal(read.size, 5000);
    assert_int_equal(read.first, 7);
    assert_true(read.contiguous);
    assert_memory_equal(read.name, made.name, made.name_length * 2);
    for (size_t i = 0; i < (size_t)count * EXFAT_ENTRY; i++) {
        entries[i] ^= 0x40;
        assert_int_equal(exfat_set_parse(entries, count, &read, NULL), -EUCLEAN);
        entries[i] ^= 0x40;
    }
    /* What a checksum does not find. */
    made.valid = 5001;
    exfat_set_make(&made, upcase, entries);
    assert_int_equal(exfat_set_parse(entries, count, &read, NULL), -EUCLEAN);
    made.valid = 0;
    made.first = 0;
    exfat_set_make(&made, upcase, entries);
    assert_int_equal(exfat_set_parse(entries, count, &read, NULL), -EUCLEAN);
    free(upcase);
}

/* A volume in memory. */
struct made {
    struct recorder *recorder;
    struct medium *medium;
    struct exfat_layout layout;
    struct exfat_upcase *upcase;
};

static struct made make(uint64_t sectors)
{
    struct made made = {.recorder = recorder_create(512, sectors),
                        .upcase = xnew(struct exfat_upcase)};
    struct medium_options options = {0};
    struct format_options format = {.kind = VOLUME_EXFAT, .label = "made"};
    exfat_upcase_recommended(made.upcase);
    assert_int_equal(medium_open(recorder_device(made.recorder), &options, &made.medium, NULL), 0);
    assert_int_equal(exfat_format(made.medium, &format, NULL), 0);
    assert_int_equal(exfat_layout_read(made.medium, &made.layout, NULL), 0);
    return made;
}

/* What is changed in the recorder's bytes is seen from here on. */
static void open_again(struct made *made)
{
    struct medium_options options = {0};
    assert_int_equal(medium_close(made->medium, NULL), 0);
    assert_int_equal(medium_open(recorder_device(made->recorder), &options, &made->medium, NULL),
                     0);
}

static void let_go(struct made *made)
{
    assert_int_equal(medium_close(made->medium, NULL), 0);
    recorder_destroy(made->recorder);
    free(made->upcase);
}

struct findings {
    int count;
    char text[2000];
};

static void note(const struct finding *finding, void *data)
{
    struct findings *findings = data;
    size_t length = strlen(findings->text);
    findings->count++;
    snprintf(findings->text + length, sizeof(findings->text) - length, "%s\n", finding->what);
}

static int check(struct made *made, bool repair, struct findings *findings)
{
    struct check_options options = {.repair = repair};
    *findings = (struct findings){0};
    return exfat_check(made->medium, &options, note, findings, NULL);
}

static uint8_t *root_of(struct made *made)
{
    return recorder_disk(made->recorder) + exfat_offset(&made->layout, made->layout.root);
}

/* Behind the label, the bitmap and the up-case table. */
static void put_set(struct made *made, unsigned at, const struct exfat_set *set)
{
    uint8_t entries[EXFAT_SET_MOST * EXFAT_ENTRY];
    exfat_set_make(set, made->upcase, entries);
    memcpy(root_of(made) + (size_t)(3 + at) * EXFAT_ENTRY, entries,
           (size_t)exfat_set_size(set->name_length) * EXFAT_ENTRY);
}

static void a_new_volume_has_nothing_to_find(void **state)
{
    struct made made = make(8192);
    struct findings findings;
    assert_int_equal(check(&made, false, &findings), 0);
    assert_string_equal(findings.text, "");
    let_go(&made);
}

static void the_backup_boot_region_stands_in(void **state)
{
    struct made made = make(8192);
    struct findings findings;
    struct exfat_layout layout;
    recorder_disk(made.recorder)[72]++;
    open_again(&made);
    assert_int_equal(exfat_layout_read(made.medium, &layout, NULL), 0);
    assert_true(layout.of_backup);
    assert_int_equal(check(&made, false, &findings), 1);
    assert_int_equal(check(&made, true, &findings), 0);
    open_again(&made);
    assert_int_equal(exfat_layout_read(made.medium, &layout, NULL), 0);
    assert_false(layout.of_backup);
    recorder_disk(made.recorder)[72]++;
    recorder_disk(made.recorder)[12 * 512 + 72]++;
    open_again(&made);
    assert_int_equal(exfat_layout_read(made.medium, &layout, NULL), -EUCLEAN);
    let_go(&made);
}

static void damage_is_found_and_repaired(void **state)
{
    struct made made = make(8192);
    struct findings findings;
    uint32_t first = made.layout.root + 1;
    struct exfat_set one = sample_set("one", first, 9000), two = sample_set("two", first + 1, 5000);
    struct exfat_set far = sample_set("far", made.layout.clusters, 100000);
    struct exfat_set folder = sample_set("folder", first + 40, 4096);
    folder.attributes = EXFAT_FOLDER;
    put_set(&made, 0, &one); /* not in the bitmap */
    put_set(&made, 3, &two); /* its first cluster is one's */
    put_set(&made, 6, &far); /* goes beyond the end */
    put_set(&made, 9, &folder);
    memset(recorder_disk(made.recorder) + exfat_offset(&made.layout, first + 40), 0, 4096);
    root_of(&made)[(3 + 12) * EXFAT_ENTRY] = EXFAT_NAME; /* of nobody */
    open_again(&made);
    assert_int_equal(check(&made, false, &findings), 4);
    assert_non_null(strstr(findings.text, "/two: its clusters end"));
    assert_non_null(strstr(findings.text, "/far: its clusters end"));
    assert_non_null(strstr(findings.text, "an entry of no file"));
    assert_non_null(strstr(findings.text, "marked as free"));
    assert_int_equal(check(&made, true, &findings), 0);
    open_again(&made);
    assert_int_equal(check(&made, false, &findings), 0);
    assert_string_equal(findings.text, "");
    /* Clusters that nobody has. */
    recorder_disk(made.recorder)[exfat_offset(&made.layout, 2) + 100] = 0x10;
    open_again(&made);
    assert_int_equal(check(&made, true, &findings), 0);
    assert_non_null(strstr(findings.text, "1 clusters are taken by nobody"));
    let_go(&made);
}

/* What the bitmap, sets, chains and the boot region may have; each is repaired by an update. */
static void damage_much(struct made *made)
{
    uint32_t first = made->layout.root + 1;
    struct exfat_set one = sample_set("one", first, 9000), two = sample_set("two", first + 1, 5000);
    struct exfat_set far = sample_set("far", made->layout.clusters, 100000);
    struct exfat_set kept = sample_set("kept", first + 60, 4096);
    put_set(made, 0, &one);
    put_set(made, 3, &two);
    put_set(made, 6, &far);
    put_set(made, 9, &kept);
    root_of(made)[(3 + 12) * EXFAT_ENTRY] = EXFAT_NAME;
    recorder_disk(made->recorder)[exfat_offset(&made->layout, 2) + 100] = 0x10;
    memset(recorder_disk(made->recorder) + exfat_offset(&made->layout, first + 60), 'k', 4096);
    recorder_disk(made->recorder)[72]++; /* the boot region, which has a backup */
}

/* From wherever the power went, another repair goes on, and what was whole stays whole. */
static void a_repair_may_be_cut(void **state)
{
    struct made made = make(4096);
    struct findings findings;
    damage_much(&made);
    open_again(&made);
    assert_in_range(check(&made, false, &findings), 4, 9);
    recorder_start(made.recorder);
    assert_int_equal(check(&made, true, &findings), 0);
    assert_int_equal(medium_close(made.medium, NULL), 0);
    assert_true(recorder_moments(made.recorder) > 5);
    uint64_t kept = exfat_offset(&made.layout, made.layout.root + 61);
    for (size_t moment = 0; moment <= recorder_moments(made.recorder); moment++)
        for (int loss = LOSS_NONE; loss <= LOSS_ALL; loss++) {
            struct made after = {.recorder = recorder_create(512, 4096)};
            struct medium_options options = {0};
            const uint8_t *disk = recorder_disk(after.recorder);
            recorder_cut(made.recorder, moment, (enum recorder_loss)loss, (unsigned)moment,
                         recorder_disk(after.recorder));
            assert_int_equal(
                medium_open(recorder_device(after.recorder), &options, &after.medium, NULL), 0);
            assert_int_equal(check(&after, true, &findings), 0);
            assert_int_equal(check(&after, false, &findings), 0);
            assert_string_equal(findings.text, "");
            for (unsigned i = 0; i < 4096; i++)
                assert_int_equal(disk[kept + i], 'k');
            let_go(&after);
        }
    assert_int_equal(medium_open(recorder_device(made.recorder), &(struct medium_options){0},
                                 &made.medium, NULL),
                     0);
    let_go(&made);
}

/* A folder that has itself in it is looked at once. */
static void a_loop_of_folders_ends(void **state)
{
    struct made made = make(8192);
    struct findings findings;
    struct exfat_set loop = sample_set("loop", made.layout.root, 4096);
    loop.attributes = EXFAT_FOLDER;
    put_set(&made, 0, &loop);
    open_again(&made);
    assert_int_equal(check(&made, false, &findings), 1);
    let_go(&made);
}

/* With what others have put there: boot code, and parameters of the maker. */
static void the_backup_is_copied_as_it_is(void **state)
{
    struct made made = make(8192);
    struct findings findings;
    uint8_t *main = recorder_disk(made.recorder), *backup = main + (size_t)12 * 512;
    uint32_t sum = 0;
    memset(main + 130, 0xC3, 100);
    memset(main + (size_t)9 * 512, 0x33, 48);
    for (uint32_t i = 0; i < 11 * 512; i++)
        if (i != 106 && i != 107 && i != 112)
            sum = (sum << 31 | sum >> 1) + main[i];
    for (uint32_t i = 0; i < 512; i += 4)
        put_le32(main + (size_t)11 * 512 + i, sum);
    memcpy(backup, main, (size_t)12 * 512);
    main[72]++;
    open_again(&made);
    recorder_start(made.recorder);
    assert_int_equal(check(&made, true, &findings), 0);
    assert_int_equal(findings.count, 1);
    assert_memory_equal(main + 113, backup + 113, (size_t)12 * 512 - 113);
    uint8_t *cut = xmalloc(recorder_size(made.recorder));
    for (size_t moment = 0; moment <= recorder_moments(made.recorder); moment++) {
        recorder_cut(made.recorder, moment, LOSS_TORN, (unsigned)moment, cut);
        assert_memory_equal(cut + (size_t)12 * 512, backup, (size_t)12 * 512);
    }
    free(cut);
    let_go(&made);
}

static void a_volume_is_known_by_its_first_sector(void **state)
{
    struct made made = make(8192);
    struct volume_options options = {.read_only = true};
    struct check_options check_options = {0};
    struct findings findings = {0};
    struct volume *volume;
    struct volume_facts facts;
    assert_int_equal(volume_mount(made.medium, &options, &volume, NULL), 0);
    assert_int_equal(volume->ops->facts(volume, &facts, NULL), 0);
    assert_int_equal(facts.kind, VOLUME_EXFAT);
    assert_string_equal(facts.label, "made");
    assert_int_equal(volume->ops->unmount(volume, NULL), 0);
    assert_int_equal(volume_check(made.medium, &check_options, note, &findings, NULL), 0);
    memset(recorder_disk(made.recorder), 0, 512);
    open_again(&made);
    assert_int_equal(volume_mount(made.medium, &options, &volume, NULL), -EMEDIUMTYPE);
    assert_int_equal(volume_check(made.medium, &check_options, note, &findings, NULL),
                     -EMEDIUMTYPE);
    assert_int_equal(volume_kind_parse("fat32"), VOLUME_FAT32);
    assert_true(volume_kind_parse("ntfs") < 0);
    let_go(&made);
}

static void what_cannot_be_formatted_is_refused(void **state)
{
    struct recorder *recorder = recorder_create(512, 4096);
    struct medium_options options = {0};
    struct format_options format = {.kind = VOLUME_EXFAT, .cluster_size = 1000};
    struct medium *medium;
    assert_int_equal(medium_open(recorder_device(recorder), &options, &medium, NULL), 0);
    assert_int_equal(exfat_format(medium, &format, NULL), -EINVAL);
    struct format_options fat = {.kind = VOLUME_FAT32};
    assert_int_equal(volume_format(medium, &fat, NULL), -EINVAL); /* too few clusters */
    format = (struct format_options){.label = "twelve units"};
    assert_int_equal(exfat_format(medium, &format, NULL), -EINVAL);
    assert_int_equal(medium_close(medium, NULL), 0);
    assert_int_equal(recorder_counts(recorder).writes, 0);
    recorder_destroy(recorder);
}

/* Each day, beside the C library; and days that a month does not have, as that takes them. */
static void dates_are_those_of_the_calendar(void **state)
{
    const int64_t day = 86400 * CLOCK_SECOND, first = 3652 * day, last = 50402 * day;
    int64_t in_day = 0;
    for (int64_t at = first; at <= last; at += day, in_day = (in_day + 3947 * CLOCK_SECOND) % day) {
        int64_t east = (at / day % 3 - 1) * 900 * CLOCK_SECOND;
        time_t seconds = (time_t)((at + in_day) / CLOCK_SECOND);
        struct tm parts;
        gmtime_r(&seconds, &parts);
        struct dos_time time = dos_time_from(at + in_day - east, (int)(east / CLOCK_SECOND / 60));
        assert_int_equal(time.date,
                         (parts.tm_year - 80) << 9 | (parts.tm_mon + 1) << 5 | parts.tm_mday);
        assert_int_equal(time.time, parts.tm_hour << 11 | parts.tm_min << 5 | parts.tm_sec / 2);
        assert_int_equal(time.hundredths, parts.tm_sec % 2 * 100);
        assert_int_equal(dos_time_to(time, (int)(east / CLOCK_SECOND / 60)), at + in_day - east);
    }
    for (int date = 0; date < 1 << 16; date++) {
        int month = date >> 5 & 15, in_month = date & 31;
        struct tm parts = {
            .tm_year = 80 + (date >> 9),
            .tm_mon = month < 1    ? 0
                      : month > 12 ? 11
                                   : month - 1,
            .tm_mday = in_month < 1 ? 1 : in_month,
        };
        assert_int_equal(dos_time_to((struct dos_time){.date = (uint16_t)date}, 0),
                         timegm(&parts) * CLOCK_SECOND);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_recommended_table_has_its_sum),
        cmocka_unit_test(names_go_to_utf16_and_back),
        cmocka_unit_test(a_set_is_read_as_it_was_made),
        cmocka_unit_test(dates_are_those_of_the_calendar),
        cmocka_unit_test(a_new_volume_has_nothing_to_find),
        cmocka_unit_test(the_backup_boot_region_stands_in),
        cmocka_unit_test(the_backup_is_copied_as_it_is),
        cmocka_unit_test(damage_is_found_and_repaired),
        cmocka_unit_test(a_repair_may_be_cut),
        cmocka_unit_test(a_loop_of_folders_ends),
        cmocka_unit_test(a_volume_is_known_by_its_first_sector),
        cmocka_unit_test(what_cannot_be_formatted_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
