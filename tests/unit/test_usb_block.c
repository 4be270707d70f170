/* src/usb/block: queue, cache, updates of a medium and their journal, with the
 * power going at every write. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/bytes.h>
#include <block/cache.h>
#include <block/crc32c.h>
#include <block/file.h>
#include <block/medium.h>

#include "../usb/recorder.h"

static void crc32c_is_that_of_the_rfc(void **state)
{
    uint8_t zeros[32] = {0}, ones[32], count[32];
    memset(ones, 0xFF, sizeof(ones));
    for (int i = 0; i < 32; i++)
        count[i] = (uint8_t)i;
    /* RFC 3720, B.4, whose bytes are in the order of the wire. */
    assert_int_equal(crc32c(0, zeros, 32), 0x8A9136AA);
    assert_int_equal(crc32c(0, ones, 32), 0x62A8AB43);
    assert_int_equal(crc32c(0, count, 32), 0x46DD794E);
    assert_int_equal(crc32c(crc32c(0, count, 5), count + 5, 27), 0x46DD794E);
}

/* Both ways, wherever the bytes begin and however many there are. */
static void crc32c_is_the_same_by_instructions_and_by_table(void **state)
{
    enum { MOST = 4096, ALIGNMENTS = 8 };
    uint8_t *bytes = xmalloc(MOST + ALIGNMENTS);
    uint32_t seed = 1;
    for (size_t i = 0; i < MOST + ALIGNMENTS; i++) {
        seed = seed * 1103515245 + 12345;
        bytes[i] = (uint8_t)(seed >> 16);
    }
    for (size_t at = 0; at < ALIGNMENTS; at++)
        for (size_t size = 0; size <= MOST; size += size < 300 ? 1 : 61)
            assert_int_equal(crc32c(seed, bytes + at, size),
                             crc32c_by_table(seed, bytes + at, size));
    free(bytes);
}

/* Parts and limits. */

static void requests_beyond_the_end_do_not_reach_the_device(void **state)
{
    struct recorder *recorder = recorder_create(512, 100);
    struct block_device *part = NULL, *disk = recorder_device(recorder);
    uint8_t sector[512] = {1};
    assert_int_equal(block_part(disk, 90, 11, &part, NULL), -EINVAL);
    assert_int_equal(block_part(disk, UINT64_MAX, 2, &part, NULL), -EINVAL);
    assert_int_equal(block_part(disk, 90, 10, &part, NULL), 0);
    assert_int_equal(block_write(part, 9, 1, sector, NULL), 0);
    assert_int_equal(recorder_disk(recorder)[99 * 512], 1);
    assert_int_equal(block_write(part, 10, 1, sector, NULL), -EINVAL);
    assert_int_equal(block_read(part, UINT64_MAX, 1, sector, NULL), -EINVAL);
    part->read_only = true;
    assert_int_equal(block_write(part, 0, 1, sector, NULL), -EROFS);
    block_device_destroy(part);
    recorder_destroy(recorder);
}

static void a_file_is_a_device(void **state)
{
    struct block_device *device = NULL;
    FILE *file = tmpfile();
    uint8_t data[1024], back[1024];
    memset(data, 7, sizeof(data));
    assert_int_equal(ftruncate(fileno(file), 10000), 0);
    assert_int_equal(block_file_open(dup(fileno(file)), 100, false, &device, NULL), -EINVAL);
    assert_int_equal(block_file_open(dup(fileno(file)), 512, false, &device, NULL), 0);
    assert_int_equal(device->sectors, 19);
    assert_int_equal(block_write(device, 17, 2, data, NULL), 0);
    assert_int_equal(block_flush(device, NULL), 0);
    assert_int_equal(block_read(device, 17, 2, back, NULL), 0);
    assert_memory_equal(data, back, sizeof(data));
    assert_int_equal(ftruncate(fileno(file), 0), 0);
    assert_int_equal(block_read(device, 17, 2, back, NULL), -EIO);
    block_device_destroy(device);
    fclose(file);
}

/* The cache. */

enum { THREADS = 4, LOOKS = 20000, BLOCKS = 64 };

static void *look_blocks_up(void *data)
{
    struct cache *cache = data;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    for (int i = 0; i < LOOKS; i++) {
        struct cached *block;
        uint64_t number = (uint64_t)rand_r(&seed) % BLOCKS;
        if (cache_get(cache, number, &block, NULL) != 0)
            return "not to be had";
        for (size_t at = 0; at < CACHE_BLOCK; at += 512)
            if (get_le64(block->data + at) != number)
                return "another block's bytes";
        cache_put(block);
        if (i % 64 == 0)
            cache_expect(cache, number, 4);
        if (i % 256 == 0)
            cache_drop(cache);
    }
    return NULL;
}

static void readers_find_their_blocks_while_others_evict(void **state)
{
    struct recorder *recorder = recorder_create(512, BLOCKS * 8);
    for (uint64_t i = 0; i < BLOCKS * 8; i++)
        put_le64(recorder_disk(recorder) + i * 512, i / 8);
    struct cache *cache = cache_create(recorder_device(recorder), 16 * CACHE_BLOCK);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look_blocks_up, cache), 0);
    for (int i = 0; i < THREADS; i++) {
        void *fault;
        pthread_join(threads[i], &fault);
        if (fault)
            fail_msg("%s", (char *)fault);
    }
    struct cache_facts facts;
    cache_facts(cache, &facts);
    assert_in_range(facts.bytes, 16 * CACHE_BLOCK, (16 + 2 * THREADS) * CACHE_BLOCK);
    cache_destroy(cache);
    recorder_destroy(recorder);
}

static atomic_uint device_memories;

static void *count_memory(struct block_device *device, size_t size)
{
    atomic_fetch_add(&device_memories, 1);
    return NULL;
}

/* A device has few of them, which content and the journal need. */
static void kept_blocks_take_none_of_the_devices_memory(void **state)
{
    struct recorder *recorder = recorder_create(512, 64 * 8);
    struct block_device *device = recorder_device(recorder);
    struct block_device_ops ops = *device->ops;
    struct cache *cache = cache_create(device, 64 * CACHE_BLOCK);
    struct cached *block;
    ops.buffer_alloc = count_memory;
    device->ops = &ops;
    for (uint64_t i = 0; i < 64; i++) {
        assert_int_equal(cache_get(cache, i, &block, NULL), 0);
        cache_put(block);
    }
    assert_int_equal(atomic_load(&device_memories), 0);
    cache_destroy(cache);
    recorder_destroy(recorder);
}

static void a_block_that_cannot_be_read_is_asked_for_again(void **state)
{
    struct recorder *recorder = recorder_create(512, 64);
    struct cache *cache = cache_create(recorder_device(recorder), 0);
    struct cached *block;
    recorder_fail(recorder, 0, -EIO);
    assert_int_equal(cache_get(cache, 3, &block, NULL), -EIO);
    assert_int_equal(cache_get(cache, 8, &block, NULL), -EINVAL);
    recorder_fail(recorder, -1, 0);
    assert_int_equal(cache_get(cache, 3, &block, NULL), 0);
    cache_put(block);
    cache_destroy(cache);
    recorder_destroy(recorder);
}

/* Updates. */

enum { SECTORS = 600, JOURNAL = 400, JOURNAL_SECTORS = 160, VALUES = 24 };

static struct medium *open_medium(struct block_device *device)
{
    struct medium_options options = {.cache_size = 1};
    struct medium *medium = NULL;
    assert_int_equal(medium_open(device, &options, &medium, NULL), 0);
    return medium;
}

/* Update number i writes its number into some sectors, which are the same for the same number. */
static unsigned targets_of(unsigned update, unsigned targets[4])
{
    unsigned seed = update * 2654435761u, count = 1 + update % 4;
    for (unsigned i = 0; i < count; i++) {
        seed = seed * 1103515245 + 12345;
        targets[i] = (seed >> 16) % VALUES;
    }
    return count;
}

static void make_update(struct medium *medium, unsigned update)
{
    unsigned targets[4], count = targets_of(update, targets);
    uint8_t value[8];
    put_le64(value, update);
    assert_int_equal(medium_begin(medium, count, NULL), 0);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(medium_write(medium, targets[i] * 700 + 100, value, 8, NULL), 0);
    medium_end(medium);
}

static void values_after(unsigned update, uint64_t values[VALUES])
{
    memset(values, 0, VALUES * sizeof(uint64_t));
    for (unsigned i = 1; i <= update; i++) {
        unsigned targets[4], count = targets_of(i, targets);
        for (unsigned j = 0; j < count; j++)
            values[targets[j]] = i;
    }
}

/* The last update that the disk has wholly, with nothing of later ones; -1: there is none such. */
static int last_update(const uint8_t *disk, unsigned most)
{
    uint64_t values[VALUES], now[VALUES];
    for (unsigned i = 0; i < VALUES; i++)
        now[i] = get_le64(disk + i * 700 + 100);
    for (int update = (int)most; update >= 0; update--) {
        values_after((unsigned)update, values);
        if (memcmp(values, now, sizeof(now)) == 0)
            return update;
    }
    return -1;
}

static void an_aborted_update_was_never_there(void **state)
{
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct medium *medium = open_medium(recorder_device(recorder));
    uint8_t value[8];
    make_update(medium, 1);
    assert_int_equal(medium_begin(medium, 8, NULL), 0);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(medium_write(medium, i * 700 + 98, "abcdefghijkl", 12, NULL), 0);
    medium_abort(medium);
    assert_int_equal(medium_read(medium, 100, value, 8, NULL), 0);
    make_update(medium, 2);
    assert_int_equal(medium_close(medium, NULL), 0);
    assert_int_equal(last_update(recorder_disk(recorder), 2), 2);
    recorder_destroy(recorder);
}

enum { UPDATES = 60 };

/* What is acknowledged at which moment of the log. */
struct acknowledged {
    size_t moment;
    unsigned update;
};

static unsigned acknowledged_at(const struct acknowledged *list, size_t count, size_t moment)
{
    unsigned update = 0;
    for (size_t i = 0; i < count && list[i].moment <= moment; i++)
        update = list[i].update;
    return update;
}

static int recover(struct recorder *after, enum medium_recovery *recovery)
{
    struct medium *medium = open_medium(recorder_device(after));
    int r = medium_recover(medium, JOURNAL * 512, JOURNAL_SECTORS * 512, recovery, NULL);
    assert_int_equal(medium_close(medium, NULL), 0);
    return r;
}

static size_t record_updates(struct recorder *recorder, struct acknowledged *list)
{
    struct medium *medium = open_medium(recorder_device(recorder));
    size_t count = 0;
    assert_int_equal(medium_journal(medium, JOURNAL * 512, JOURNAL_SECTORS * 512, NULL), 0);
    recorder_start(recorder);
    for (unsigned i = 1; i <= UPDATES; i++) {
        make_update(medium, i);
        if (i % 3 != 0)
            continue;
        assert_int_equal(i % 15 ? medium_sync(medium, NULL) : medium_settle(medium, NULL), 0);
        list[count++] = (struct acknowledged){recorder_moments(recorder), i};
    }
    assert_int_equal(medium_close(medium, NULL), 0);
    return count;
}

static void the_power_may_go_at_any_write(void **state)
{
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct recorder *after = recorder_create(512, SECTORS);
    struct acknowledged list[UPDATES];
    size_t count = record_updates(recorder, list);
    unsigned replayed = 0;
    for (size_t moment = 0; moment <= recorder_moments(recorder); moment++)
        for (unsigned seed = 0; seed < 24; seed++) {
            enum medium_recovery recovery;
            recorder_cut(recorder, moment, seed % 4, seed, recorder_disk(after));
            assert_int_equal(recover(after, &recovery), 0);
            assert_int_not_equal(recovery, MEDIUM_DISCARDED);
            int last = last_update(recorder_disk(after), UPDATES);
            assert_in_range(last, acknowledged_at(list, count, moment), UPDATES);
            replayed += recovery == MEDIUM_REPLAYED;
        }
    assert_true(replayed > 100);
    recorder_destroy(after);
    recorder_destroy(recorder);
}

/* A sector that was being written as the power went cannot be read. */
static void what_was_being_written_may_be_unreadable(void **state)
{
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct acknowledged list[UPDATES];
    size_t count = record_updates(recorder, list);
    for (size_t moment = 0; moment <= recorder_moments(recorder); moment++) {
        enum medium_recovery recovery;
        uint64_t sector;
        uint32_t sectors;
        if (!recorder_last_write(recorder, moment, &sector, &sectors))
            continue;
        for (uint32_t i = 0; i < sectors; i++) {
            struct recorder *after = recorder_create(512, SECTORS);
            recorder_cut(recorder, moment - 1, LOSS_NONE, 0, recorder_disk(after));
            recorder_spoil(after, sector + i, 1);
            assert_int_equal(recover(after, &recovery), 0);
            assert_int_not_equal(recovery, MEDIUM_DISCARDED);
            assert_in_range(last_update(recorder_disk(after), UPDATES),
                            acknowledged_at(list, count, moment - 1), UPDATES);
            recorder_destroy(after);
        }
    }
    recorder_destroy(recorder);
}

static void a_journal_with_bad_sectors_is_still_one(void **state)
{
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct acknowledged list[UPDATES];
    enum medium_recovery recovery;
    record_updates(recorder, list);
    recorder_spoil(recorder, JOURNAL + JOURNAL_SECTORS - 40, 40);
    assert_int_equal(recover(recorder, &recovery), 0);
    assert_int_equal(recovery, MEDIUM_NOTHING);
    recorder_spoil(recorder, JOURNAL, 2); /* both headers */
    assert_int_equal(recover(recorder, &recovery), 0);
    assert_int_equal(recovery, MEDIUM_NO_JOURNAL);
    recorder_spoil(recorder, JOURNAL, JOURNAL_SECTORS);
    assert_int_equal(recover(recorder, &recovery), -EIO);
    recorder_destroy(recorder);
}

/* The power goes again while what it left is recovered. */
static void the_power_may_go_during_recovery(void **state)
{
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct recorder *after = recorder_create(512, SECTORS);
    struct recorder *again = recorder_create(512, SECTORS);
    struct acknowledged list[UPDATES];
    size_t count = record_updates(recorder, list);
    for (size_t moment = 0; moment <= recorder_moments(recorder); moment += 3) {
        enum medium_recovery recovery;
        recorder_cut(recorder, moment, LOSS_TORN, (unsigned)moment, recorder_disk(after));
        recorder_start(after);
        assert_int_equal(recover(after, &recovery), 0);
        for (size_t second = 0; second <= recorder_moments(after); second++) {
            recorder_cut(after, second, LOSS_TORN, (unsigned)second, recorder_disk(again));
            assert_int_equal(recover(again, &recovery), 0);
            assert_in_range(last_update(recorder_disk(again), UPDATES),
                            acknowledged_at(list, count, moment), UPDATES);
        }
    }
    recorder_destroy(again);
    recorder_destroy(after);
    recorder_destroy(recorder);
}

static void what_others_wrote_since_stays(void **state)
{
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct recorder *after = recorder_create(512, SECTORS);
    struct acknowledged list[UPDATES];
    record_updates(recorder, list);
    unsigned discarded = 0;
    for (size_t moment = 0; moment <= recorder_moments(recorder); moment++) {
        enum medium_recovery recovery;
        recorder_cut(recorder, moment, LOSS_NONE, 0, recorder_disk(after));
        uint8_t *disk = recorder_disk(after);
        uint8_t *before = xmemdup(disk, JOURNAL * 512);
        for (unsigned i = 0; i < VALUES; i++)
            before[i * 700 + 104] = disk[i * 700 + 104] = 0xEE;
        assert_int_equal(recover(after, &recovery), 0);
        assert_int_not_equal(recovery, MEDIUM_REPLAYED);
        assert_memory_equal(disk, before, JOURNAL * 512);
        discarded += recovery == MEDIUM_DISCARDED;
        assert_int_equal(recover(after, &recovery), 0);
        assert_int_equal(recovery, MEDIUM_NOTHING);
        free(before);
    }
    assert_true(discarded > 10);
    recorder_destroy(after);
    recorder_destroy(recorder);
}

/* A disk with one record that is pending: the first 32 bytes of sector 3 become 1, 2, 3 ... */
static struct recorder *pending_record(void)
{
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct medium *medium = open_medium(recorder_device(recorder));
    uint8_t entry[32];
    assert_int_equal(medium_journal(medium, JOURNAL * 512, JOURNAL_SECTORS * 512, NULL), 0);
    for (unsigned i = 0; i < sizeof(entry); i++)
        entry[i] = (uint8_t)(i + 1);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(medium_begin(medium, 2, NULL), 0);
        assert_int_equal(medium_write(medium, 3 * 512, entry, sizeof(entry), NULL), 0);
        assert_int_equal(medium_write(medium, 4 * 512, entry, sizeof(entry), NULL), 0);
        medium_end(medium);
        assert_int_equal(medium_sync(medium, NULL), 0);
        entry[0] = 0x55;
    }
    struct recorder *cut = recorder_create(512, SECTORS);
    memcpy(recorder_disk(cut), recorder_disk(recorder), recorder_size(recorder));
    assert_int_equal(medium_close(medium, NULL), 0);
    recorder_destroy(recorder);
    return cut;
}

/* Bytes that were there at some time, but not by any write of ours. */
static void a_mix_that_no_write_leaves_is_anothers(void **state)
{
    enum { OF_NEWEST = 'n', OF_ZEROS = '0', OF_FIRST = '1' };
    static const struct {
        const char *bytes; /* of the first ones of sector 3 */
        enum medium_recovery recovery;
    } cases[] = {
        {"0000000000000000", MEDIUM_REPLAYED},  {"nnnnnnnnnnnnnnnn", MEDIUM_REPLAYED},
        {"1nnnnnnnnnnnnnnn", MEDIUM_REPLAYED},  {"nnnn000000000000", MEDIUM_REPLAYED},
        {"0000nnnnnnnnnnnn", MEDIUM_REPLAYED},  {"nn000000nnnnnnnn", MEDIUM_REPLAYED},
        {"0nnn0nnnnnnnnnnn", MEDIUM_DISCARDED}, {"n0n0n0n0n0n0n0n0", MEDIUM_DISCARDED},
        {"10000000nnnnnnnn", MEDIUM_DISCARDED},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct recorder *cut = pending_record();
        uint8_t *at = recorder_disk(cut) + 3 * 512;
        enum medium_recovery recovery;
        bool tail = cases[i].bytes[15] == OF_NEWEST;
        for (unsigned j = 0; j < 32; j++) {
            char of = j < 16 ? cases[i].bytes[j] : tail ? OF_NEWEST : OF_ZEROS;
            uint8_t newest = j == 0 ? 0x55 : (uint8_t)(j + 1);
            at[j] = of == OF_NEWEST ? newest : of == OF_FIRST ? (uint8_t)(j + 1) : 0;
        }
        assert_int_equal(recover(cut, &recovery), 0);
        assert_int_equal(recovery, cases[i].recovery);
        recorder_destroy(cut);
    }
}

/* Which is of the second header alone. */
static void the_last_generation_is_followed_by_the_first(void **state)
{
    struct recorder *cut = pending_record();
    enum medium_recovery recovery;
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *header = recorder_disk(cut) + (size_t)(JOURNAL + i) * 512;
        put_le64(header + 48, UINT64_MAX);
        put_le32(header + 72, 0);
        put_le32(header + 72, crc32c(0, header, 512));
    }
    assert_int_equal(recover(cut, &recovery), 0);
    assert_int_equal(recovery, MEDIUM_REPLAYED);
    assert_int_equal(get_le64(recorder_disk(cut) + JOURNAL * 512 + 48), 0);
    assert_int_equal(recover(cut, &recovery), 0);
    assert_int_equal(recovery, MEDIUM_NOTHING);
    recorder_destroy(cut);
}

static void content_is_there_before_what_leads_to_it(void **state)
{
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct recorder *after = recorder_create(512, SECTORS);
    struct medium *medium = open_medium(recorder_device(recorder));
    uint8_t content[1000], value[8];
    assert_int_equal(medium_journal(medium, JOURNAL * 512, JOURNAL_SECTORS * 512, NULL), 0);
    recorder_start(recorder);
    for (unsigned i = 1; i <= 20; i++) {
        memset(content, (int)i, sizeof(content));
        put_le64(value, i);
        assert_int_equal(medium_write_content(medium, 100000 + i * 1000, content, 1000, NULL), 0);
        assert_int_equal(medium_begin(medium, 1, NULL), 0);
        assert_int_equal(medium_write(medium, 100, value, 8, NULL), 0);
        medium_end(medium);
        if (i % 4 == 0)
            assert_int_equal(medium_sync(medium, NULL), 0);
    }
    assert_int_equal(medium_close(medium, NULL), 0);
    for (size_t moment = 0; moment <= recorder_moments(recorder); moment++)
        for (unsigned seed = 0; seed < 16; seed++) {
            enum medium_recovery recovery;
            recorder_cut(recorder, moment, seed % 4, seed, recorder_disk(after));
            assert_int_equal(recover(after, &recovery), 0);
            uint64_t last = get_le64(recorder_disk(after) + 100);
            for (unsigned i = 1; i <= last; i++) {
                memset(content, (int)i, sizeof(content));
                assert_memory_equal(recorder_disk(after) + 100000 + i * 1000, content, 1000);
            }
        }
    recorder_destroy(after);
    recorder_destroy(recorder);
}

/* Update i takes place i in a table, and then a folder of its own leads there. */
static void take_and_lead(struct medium *medium, unsigned i, bool given_up)
{
    uint8_t value = (uint8_t)i;
    assert_int_equal(medium_begin(medium, 2, NULL), 0);
    assert_int_equal(medium_write(medium, i, &value, 1, NULL), 0);
    medium_barrier(medium);
    assert_int_equal(medium_write(medium, i * 512, &value, 1, NULL), 0);
    medium_barrier(medium);
    if (given_up)
        assert_int_equal(medium_write(medium, i, "\xEE", 1, NULL), 0);
    if (given_up)
        medium_abort(medium);
    else
        medium_end(medium);
}

static void without_a_journal_the_order_of_updates_holds(void **state)
{
    enum { TAKEN = 12 };
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct medium *medium = open_medium(recorder_device(recorder));
    uint8_t *disk = xmalloc(recorder_size(recorder));
    recorder_start(recorder);
    for (unsigned i = 1; i <= TAKEN; i++) {
        take_and_lead(medium, i, true);
        take_and_lead(medium, i, false);
        if (i % 4 == 0)
            assert_int_equal(medium_sync(medium, NULL), 0);
    }
    assert_int_equal(medium_close(medium, NULL), 0);
    for (size_t moment = 0; moment <= recorder_moments(recorder); moment++)
        for (unsigned seed = 0; seed < 12; seed++) {
            recorder_cut(recorder, moment, seed % 4 == LOSS_TORN ? LOSS_CHANCE : seed % 4, seed,
                         disk);
            for (unsigned i = 1; i <= TAKEN; i++) {
                if (disk[i * 512] != 0)
                    assert_int_equal(disk[i], i);
                if (i > 1 && disk[i] != 0)
                    assert_int_equal(disk[(i - 1) * 512], i - 1);
                assert_int_not_equal(disk[i], 0xEE);
            }
        }
    for (unsigned i = 1; i <= TAKEN; i++)
        assert_int_equal(recorder_disk(recorder)[i * 512], i);
    free(disk);
    recorder_destroy(recorder);
}

/* More folders than the cache has blocks, and no rest in between. */
static void changed_blocks_leave_room_in_the_cache(void **state)
{
    enum { PLACES = 400, LARGE = PLACES * 8 + 1024 };
    struct recorder *recorder = recorder_create(512, LARGE);
    struct medium *medium = open_medium(recorder_device(recorder)); /* 64 blocks at most */
    assert_int_equal(medium_journal(medium, PLACES * CACHE_BLOCK, 1024 * 512, NULL), 0);
    for (unsigned i = 0; i < PLACES; i++) {
        uint64_t value;
        assert_int_equal(medium_begin(medium, 1, NULL), 0);
        assert_int_equal(medium_write(medium, (uint64_t)i * CACHE_BLOCK, &(uint64_t){i}, 8, NULL),
                         0);
        medium_end(medium);
        assert_int_equal(medium_read(medium, (uint64_t)i / 2 * CACHE_BLOCK, &value, 8, NULL), 0);
        assert_int_equal(value, i / 2);
        if (i % 3 == 0)
            assert_int_equal(medium_sync(medium, NULL), 0);
    }
    assert_int_equal(medium_close(medium, NULL), 0);
    for (unsigned i = 0; i < PLACES; i++)
        assert_int_equal(get_le64(recorder_disk(recorder) + (size_t)i * CACHE_BLOCK), i);
    recorder_destroy(recorder);
}

static void a_device_of_more_blocks_than_have_numbers_is_refused(void **state)
{
    struct block_device device = {.sector_size = 512, .sectors = UINT64_C(1) << 47};
    struct medium_options options = {.read_only = true};
    struct medium *medium = NULL;
    assert_int_equal(medium_open(&device, &options, &medium, NULL), -EFBIG);
    device.sectors -= 64;
    assert_int_equal(medium_open(&device, &options, &medium, NULL), 0);
    assert_int_equal(medium_close(medium, NULL), 0);
}

/* Metadata and content in one block of the cache. */
static void content_beside_metadata_is_not_lost(void **state)
{
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct medium *medium = open_medium(recorder_device(recorder));
    uint8_t content[512], back[512];
    memset(content, 9, sizeof(content));
    assert_int_equal(medium_read(medium, 512, back, 512, NULL), 0);
    assert_int_equal(medium_write_content(medium, 512, content, 512, NULL), 0);
    assert_int_equal(medium_begin(medium, 1, NULL), 0);
    assert_int_equal(medium_write(medium, 0, "x", 1, NULL), 0);
    assert_int_equal(medium_read(medium, 512, back, 512, NULL), 0);
    medium_end(medium);
    assert_memory_equal(content, back, 512);
    assert_int_equal(medium_close(medium, NULL), 0);
    assert_memory_equal(recorder_disk(recorder) + 512, content, 512);
    assert_int_equal(recorder_disk(recorder)[0], 'x');
    recorder_destroy(recorder);
}

/* A device whose flush is awaited by a commit while somebody else changes the same sector. */
static const struct block_device_ops *ops_of_recorder;
static struct medium *medium_to_change;

static void submit_and_change(struct block_device *device, struct block_request *request)
{
    struct medium *medium = request->operation == BLOCK_FLUSH ? steal_ptr(medium_to_change) : NULL;
    if (medium) {
        assert_int_equal(medium_begin(medium, 1, NULL), 0);
        assert_int_equal(medium_write(medium, 512, "later", 5, NULL), 0);
        medium_end(medium);
    }
    ops_of_recorder->submit(device, request);
}

static void an_update_during_a_commit_is_in_the_next_one(void **state)
{
    static const struct block_device_ops changing = {.submit = submit_and_change};
    for (int journal = 0; journal < 2; journal++) {
        struct recorder *recorder = recorder_create(512, 4096);
        struct block_device *device = recorder_device(recorder);
        struct medium_options options = {0};
        struct medium *medium;
        assert_int_equal(medium_open(device, &options, &medium, NULL), 0);
        if (journal)
            assert_int_equal(medium_journal(medium, 512 * 512, 256 * 512, NULL), 0);
        ops_of_recorder = device->ops;
        device->ops = &changing;
        assert_int_equal(medium_begin(medium, 1, NULL), 0);
        assert_int_equal(medium_write(medium, 512, "first", 5, NULL), 0);
        medium_end(medium);
        medium_to_change = medium;
        assert_int_equal(medium_sync(medium, NULL), 0);
        assert_null(medium_to_change);
        device->ops = ops_of_recorder;
        assert_int_equal(medium_close(medium, NULL), 0);
        assert_memory_equal(recorder_disk(recorder) + 512, "later", 5);
        recorder_destroy(recorder);
    }
}

static void after_an_error_nothing_is_written(void **state)
{
    struct recorder *recorder = recorder_create(512, SECTORS);
    struct medium *medium = open_medium(recorder_device(recorder));
    assert_int_equal(medium_journal(medium, JOURNAL * 512, JOURNAL_SECTORS * 512, NULL), 0);
    make_update(medium, 1);
    assert_int_equal(medium_sync(medium, NULL), 0);
    make_update(medium, 2);
    recorder_fail(recorder, 0, -EIO);
    assert_int_equal(medium_sync(medium, NULL), -EIO);
    recorder_fail(recorder, -1, 0);
    struct recorder_counts before = recorder_counts(recorder);
    assert_int_equal(medium_begin(medium, 1, NULL), -EIO);
    assert_int_equal(medium_write_content(medium, 0, "x", 1, NULL), -EIO);
    assert_int_equal(medium_close(medium, NULL), -EIO);
    assert_int_equal(recorder_counts(recorder).writes, before.writes);
    enum medium_recovery recovery;
    assert_int_equal(recover(recorder, &recovery), 0);
    assert_int_equal(recovery, MEDIUM_REPLAYED);
    assert_int_equal(last_update(recorder_disk(recorder), 2), 1);
    recorder_destroy(recorder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc32c_is_that_of_the_rfc),
        cmocka_unit_test(crc32c_is_the_same_by_instructions_and_by_table),
        cmocka_unit_test(requests_beyond_the_end_do_not_reach_the_device),
        cmocka_unit_test(a_file_is_a_device),
        cmocka_unit_test(readers_find_their_blocks_while_others_evict),
        cmocka_unit_test(kept_blocks_take_none_of_the_devices_memory),
        cmocka_unit_test(a_block_that_cannot_be_read_is_asked_for_again),
        cmocka_unit_test(an_aborted_update_was_never_there),
        cmocka_unit_test(the_power_may_go_at_any_write),
        cmocka_unit_test(what_was_being_written_may_be_unreadable),
        cmocka_unit_test(a_journal_with_bad_sectors_is_still_one),
        cmocka_unit_test(the_power_may_go_during_recovery),
        cmocka_unit_test(what_others_wrote_since_stays),
        cmocka_unit_test(a_mix_that_no_write_leaves_is_anothers),
        cmocka_unit_test(the_last_generation_is_followed_by_the_first),
        cmocka_unit_test(content_is_there_before_what_leads_to_it),
        cmocka_unit_test(without_a_journal_the_order_of_updates_holds),
        cmocka_unit_test(changed_blocks_leave_room_in_the_cache),
        cmocka_unit_test(a_device_of_more_blocks_than_have_numbers_is_refused),
        cmocka_unit_test(content_beside_metadata_is_not_lost),
        cmocka_unit_test(an_update_during_a_commit_is_in_the_next_one),
        cmocka_unit_test(after_an_error_nothing_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
