/* src/usb/files: who moves the content of a file at a time. */
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
#include <unistd.h>

#include <base/alloc.h>
#include <files/tools.h>
#include <files/volume.h>

#include "../usb/recorder.h"

/* A volume that tells in which order it hears of writes. */
static uint64_t heard[8];
static atomic_uint heard_count;

static int reserve(struct volume *volume, struct node *file, uint64_t offset, uint64_t length,
                   struct error *err)
{
    return offset >= 1 << 20 ? error_set(err, -ENOSPC, "full") : 0;
}

static int wrote(struct volume *volume, struct node *file, uint64_t offset, uint64_t length,
                 bool dated, struct error *err)
{
    heard[atomic_fetch_add(&heard_count, 1)] = offset;
    return 0;
}

static atomic_uint given_back;

static void unreserve(struct volume *volume, struct node *file)
{
    atomic_fetch_add(&given_back, 1);
}

static const struct volume_ops listening = {
    .reserve = reserve, .wrote = wrote, .unreserve = unreserve};

struct ending {
    struct volume *volume;
    struct content_move write;
    int result;
    atomic_bool ended;
    pthread_t thread;
};

static void *end_write(void *data)
{
    struct ending *ending = data;
    ending->result = volume_write_end(ending->volume, &ending->write, ending->result, NULL);
    atomic_store(&ending->ended, true);
    return NULL;
}

static void begin(struct ending *ending, struct volume *volume, void *file, uint64_t offset)
{
    *ending = (struct ending){.volume = volume};
    assert_int_equal(volume_write_begin(volume, &ending->write, file, offset, 4096, NULL), 0);
}

static void start_end(struct ending *ending, int result)
{
    ending->result = result;
    assert_int_equal(pthread_create(&ending->thread, NULL, end_write, ending), 0);
}

static void a_file_grows_in_the_order_of_its_bytes(void **state)
{
    struct volume volume;
    volume_init(&volume, &listening, NULL);
    struct ending first, second, third, other;
    int file, another;
    begin(&first, &volume, &file, 0);
    begin(&second, &volume, &file, 8192);
    begin(&third, &volume, &file, 16384);
    begin(&other, &volume, &another, 4096);
    start_end(&third, 0);
    start_end(&second, 0);
    start_end(&other, 0);
    pthread_join(other.thread, NULL);
    usleep(20000);
    assert_false(atomic_load(&second.ended) || atomic_load(&third.ended));
    assert_int_equal(heard_count, 1);
    start_end(&first, 0);
    pthread_join(first.thread, NULL);
    pthread_join(second.thread, NULL);
    pthread_join(third.thread, NULL);
    assert_int_equal(heard_count, 4);
    assert_true(heard[0] == 4096 && heard[1] == 0 && heard[2] == 8192 && heard[3] == 16384);
    assert_true(first.result == 0 && second.result == 0 && third.result == 0);
    volume_finish(&volume);
}

static void what_follows_a_failed_write_fails_too(void **state)
{
    struct volume volume;
    volume_init(&volume, &listening, NULL);
    struct ending first, second;
    struct content_move write;
    int file;
    atomic_store(&heard_count, 0);
    begin(&first, &volume, &file, 0);
    begin(&second, &volume, &file, 8192);
    start_end(&second, 0);
    start_end(&first, -EIO);
    pthread_join(first.thread, NULL);
    pthread_join(second.thread, NULL);
    assert_int_equal(first.result, -EIO);
    assert_int_equal(second.result, -EIO);
    assert_int_equal(heard_count, 0);
    assert_int_equal(given_back, 1);
    assert_int_equal(volume_write_begin(&volume, &write, (void *)&file, 1 << 20, 1, NULL), -ENOSPC);
    assert_int_equal(volume_write_begin(&volume, &write, (void *)&file, UINT64_MAX, 2, NULL),
                     -EINVAL);
    begin(&first, &volume, &file, 0); /* nothing of those that failed is in its way */
    assert_int_equal(volume_write_end(&volume, &first.write, 0, NULL), 0);
    volume_finish(&volume);
}

static void *begin_again(void *data)
{
    struct ending *ending = data;
    assert_int_equal(
        volume_write_begin(ending->volume, &ending->write, ending->write.file, 50, 10, NULL), 0);
    atomic_store(&ending->ended, true);
    return NULL;
}

static void two_writes_are_never_in_one_sector(void **state)
{
    struct volume volume;
    volume_init(&volume, &listening, NULL);
    struct ending first, second = {.volume = &volume};
    int file;
    atomic_store(&heard_count, 0);
    begin(&first, &volume, &file, 100);
    second.write.file = (struct node *)&file;
    assert_int_equal(pthread_create(&second.thread, NULL, begin_again, &second), 0);
    usleep(20000);
    assert_false(atomic_load(&second.ended));
    assert_int_equal(volume_write_end(&volume, &first.write, 0, NULL), 0);
    pthread_join(second.thread, NULL);
    assert_int_equal(volume_write_end(&volume, &second.write, 0, NULL), 0);
    volume_finish(&volume);
}

/* Volumes. What was on the disk before is in all clusters that nobody has written to. */

enum { SECTORS = 40000, STALE = 0xEE, TIME = 60 /* seconds; what hangs is red */ };

static const enum volume_kind kinds[] = {VOLUME_FAT16, VOLUME_EXFAT};

struct world {
    struct recorder *recorder;
    struct medium *medium;
    struct volume *volume;
    struct node *root, *file;
};

static void open_medium(struct world *world)
{
    struct medium_options options = {0};
    assert_int_equal(medium_open(recorder_device(world->recorder), &options, &world->medium, NULL),
                     0);
}

static struct world make(enum volume_kind kind)
{
    struct world world = {.recorder = recorder_create(512, SECTORS)};
    struct format_options format = {.kind = kind, .id = 7};
    struct volume_options options = {0};
    memset(recorder_disk(world.recorder), STALE, recorder_size(world.recorder));
    open_medium(&world);
    assert_int_equal(volume_format(world.medium, &format, NULL), 0);
    assert_int_equal(volume_mount(world.medium, &options, &world.volume, NULL), 0);
    world.root = world.volume->ops->root(world.volume);
    assert_int_equal(
        world.volume->ops->create(world.volume, world.root, "file", NODE_FILE, &world.file, NULL),
        0);
    return world;
}

static void found(const struct finding *finding, void *data)
{
    fail_msg("%s", finding->what);
}

static void ends_clean(struct world *world)
{
    struct check_options options = {0};
    world->volume->ops->node_drop(world->volume, world->file, 1);
    assert_int_equal(world->volume->ops->unmount(world->volume, NULL), 0);
    assert_int_equal(medium_close(world->medium, NULL), 0);
    open_medium(world);
    assert_int_equal(volume_check(world->medium, &options, found, NULL, NULL), 0);
    assert_int_equal(medium_close(world->medium, NULL), 0);
    recorder_destroy(world->recorder);
}

static uint64_t size_of(struct world *world)
{
    struct node_facts facts;
    assert_int_equal(world->volume->ops->node_facts(world->volume, world->file, &facts, NULL), 0);
    return facts.size;
}

static int set_size(struct world *world, uint64_t size)
{
    struct node_facts facts = {.size = size};
    return world->volume->ops->node_set(world->volume, world->file, NODE_SIZE, &facts, NULL);
}

static void are_all(struct world *world, uint64_t offset, size_t size, uint8_t wanted)
{
    uint8_t *back = xmalloc(size);
    assert_int_equal(volume_read(world->volume, world->file, offset, back, size, NULL), size);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(back[i], wanted);
    free(back);
}

struct other {
    struct world *world;
    atomic_bool ended;
    pthread_t thread;
};

static void *cut(void *data)
{
    struct other *other = data;
    assert_int_equal(set_size(other->world, 0), 0);
    atomic_store(&other->ended, true);
    return NULL;
}

static void *look(void *data)
{
    struct other *other = data;
    are_all(other->world, 0, 4096, 'w');
    atomic_store(&other->ended, true);
    return NULL;
}

static void waits_for_write(struct world *world, void *(*what)(void *data))
{
    struct other other = {.world = world};
    struct content_move write;
    uint8_t data[20000];
    memset(data, 'w', sizeof(data));
    assert_int_equal(volume_write_begin(world->volume, &write, world->file, 0, sizeof(data), NULL),
                     0);
    assert_int_equal(pthread_create(&other.thread, NULL, what, &other), 0);
    usleep(20000);
    assert_false(atomic_load(&other.ended));
    int r = volume_write_content(world->volume, &write, data, NULL);
    assert_int_equal(volume_write_end(world->volume, &write, r, NULL), 0);
    pthread_join(other.thread, NULL);
}

/* The clusters of a write that is under way stay the file's, and nobody sees what was in them. */
static void a_write_is_not_cut_or_seen_while_it_is_under_way(void **state)
{
    for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
        struct world world = make(kinds[kind]);
        assert_int_equal(set_size(&world, 20000), 0);
        waits_for_write(&world, look);
        assert_int_equal(size_of(&world), 20000);
        waits_for_write(&world, cut);
        assert_int_equal(size_of(&world), 0);
        ends_clean(&world);
    }
}

static void what_a_failed_write_left_is_never_seen(void **state)
{
    for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
        struct world world = make(kinds[kind]);
        static const uint8_t data[128 << 10]; /* too large to be gathered */
        struct volume_facts before, after;
        assert_int_equal(medium_settle(world.medium, NULL), 0);
        assert_int_equal(world.volume->ops->facts(world.volume, &before, NULL), 0);
        recorder_fail(world.recorder, 0, -EIO);
        assert_int_equal(volume_write(world.volume, world.file, 0, data, sizeof(data), NULL), -EIO);
        recorder_fail(world.recorder, -1, 0);
        assert_int_equal(size_of(&world), 0);
        assert_int_equal(world.volume->ops->facts(world.volume, &after, NULL), 0);
        assert_int_equal(before.clusters_free, after.clusters_free);
        assert_int_equal(volume_write(world.volume, world.file, 20000, "x", 1, NULL), 1);
        are_all(&world, 0, 20000, 0);
        ends_clean(&world);
    }
}

static struct node *make_file(struct world *world, unsigned number)
{
    char name[16];
    struct node *file;
    snprintf(name, sizeof(name), "small%u", number);
    assert_int_equal(
        world->volume->ops->create(world->volume, world->root, name, NODE_FILE, &file, NULL), 0);
    return file;
}

enum { SMALL_FILES = 100, SMALL_SIZE = 4000 };

static void small_files_are_written_and_read_in_few_requests(void **state)
{
    for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
        struct world world = make(kinds[kind]);
        struct node *files[SMALL_FILES];
        uint8_t data[SMALL_SIZE], back[SMALL_SIZE];
        assert_int_equal(medium_settle(world.medium, NULL), 0);
        struct recorder_counts before = recorder_counts(world.recorder);
        for (unsigned i = 0; i < SMALL_FILES; i++) {
            struct content_move write;
            struct content_piece piece = {.write = &write, .data = data};
            memset(data, (int)i + 1, sizeof(data));
            files[i] = make_file(&world, i);
            assert_int_equal(
                volume_write_begin(world.volume, &write, files[i], 0, sizeof(data), NULL), 0);
            volume_write_pieces(world.volume, &piece, 1);
            assert_int_equal(volume_write_end(world.volume, &write, piece.result, NULL), 0);
        }
        assert_int_equal(medium_settle(world.medium, NULL), 0);
        struct recorder_counts written = recorder_counts(world.recorder);
        assert_true(written.writes - before.writes < SMALL_FILES / 4);
        for (unsigned i = 0; i < SMALL_FILES; i++) {
            memset(data, (int)i + 1, sizeof(data));
            assert_int_equal(volume_read(world.volume, files[i], 0, back, sizeof(back), NULL),
                             sizeof(back));
            assert_memory_equal(back, data, sizeof(back));
            world.volume->ops->node_drop(world.volume, files[i], 1);
        }
        assert_true(recorder_counts(world.recorder).reads - written.reads < SMALL_FILES / 4);
        ends_clean(&world);
    }
}

/* What was gathered is in nobody's way: read, cut, written again, and of a file that is gone. */
static void what_is_gathered_is_as_if_it_were_written(void **state)
{
    for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
        struct world world = make(kinds[kind]);
        uint8_t data[8192];
        memset(data, 1, sizeof(data));
        assert_int_equal(volume_write(world.volume, world.file, 0, data, sizeof(data), NULL),
                         sizeof(data));
        are_all(&world, 0, sizeof(data), 1);
        memset(data, 2, sizeof(data));
        assert_int_equal(volume_write(world.volume, world.file, 4096, data, 4096, NULL), 4096);
        assert_int_equal(volume_write(world.volume, world.file, 100, data, 7, NULL), 7);
        are_all(&world, 0, 100, 1);
        are_all(&world, 100, 7, 2);
        are_all(&world, 107, 4096 - 107, 1);
        are_all(&world, 4096, 4096, 2);
        assert_int_equal(set_size(&world, 10), 0);
        assert_int_equal(set_size(&world, 8192), 0);
        are_all(&world, 10, 8192 - 10, 0);
        /* Its clusters may become a folder's at once. */
        assert_int_equal(volume_write(world.volume, world.file, 0, data, sizeof(data), NULL),
                         sizeof(data));
        assert_int_equal(set_size(&world, 0), 0);
        for (unsigned i = 0; i < 300; i++)
            world.volume->ops->node_drop(world.volume, make_file(&world, i), 1);
        ends_clean(&world);
    }
}

/* Another write wants the room, the device fails once: whoever asks next hears of it. */
static void lose_gathered(struct world *world)
{
    static const uint8_t data[4096];
    struct node *other = make_file(world, 1);
    uint64_t far = 64 << 10;
    assert_int_equal(medium_settle(world->medium, NULL), 0);
    assert_int_equal(volume_write(world->volume, world->file, 0, data, sizeof(data), NULL),
                     sizeof(data));
    struct content_move write;
    assert_int_equal(volume_write_begin(world->volume, &write, other, 0, 2 * far, NULL), 0);
    struct extent extent;
    assert_int_equal(world->volume->ops->map(world->volume, other, far, 4096, &extent, 1, NULL), 1);
    recorder_fail(world->recorder, 0, -EIO);
    assert_int_equal(medium_write_content(world->medium, extent.offset, data, sizeof(data), NULL),
                     -EIO);
    recorder_fail(world->recorder, -1, 0);
    assert_int_equal(volume_write_end(world->volume, &write, -EIO, NULL), -EIO);
    world->volume->ops->node_drop(world->volume, other, 1);
}

static void gathered_content_that_is_lost_is_told_and_led_to_by_nothing(void **state)
{
    for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
        struct world world = make(kinds[kind]);
        uint8_t data[4096] = {0};
        lose_gathered(&world);
        assert_int_equal(medium_sync(world.medium, NULL), -EIO);
        assert_int_equal(volume_write(world.volume, world.file, 0, data, sizeof(data), NULL), -EIO);
        world.volume->ops->node_drop(world.volume, world.file, 1);
        world.volume->ops->unmount(world.volume, NULL);
        medium_close(world.medium, NULL);
        open_medium(&world);
        struct volume_options options = {.read_only = true};
        assert_int_equal(volume_mount(world.medium, &options, &world.volume, NULL), 0);
        world.root = world.volume->ops->root(world.volume);
        assert_int_equal(
            world.volume->ops->lookup(world.volume, world.root, "file", &world.file, NULL), 0);
        assert_int_equal(size_of(&world), 0);
        world.volume->ops->node_drop(world.volume, world.file, 1);
        assert_int_equal(world.volume->ops->unmount(world.volume, NULL), 0);
        assert_int_equal(medium_close(world.medium, NULL), 0);
        recorder_destroy(world.recorder);
    }
}

enum { WHOLE = 300001, BEST = 512 << 10 };

static void write_and_read_pattern(struct world *world, unsigned seed)
{
    uint8_t *data = xmalloc(WHOLE), *back = xmalloc(WHOLE);
    for (unsigned i = 0; i < WHOLE; i++)
        data[i] = (uint8_t)(i / 7 + i / 4093 + seed);
    assert_int_equal(volume_write(world->volume, world->file, 777, data, WHOLE, NULL), WHOLE);
    assert_int_equal(volume_read(world->volume, world->file, 777, back, WHOLE, NULL), WHOLE);
    assert_memory_equal(back, data, WHOLE);
    free(data);
    free(back);
}

static void *read_often(void *data)
{
    const struct other *other = data;
    uint8_t *back = xmalloc(WHOLE);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(
            volume_read(other->world->volume, other->world->file, 777, back, WHOLE, NULL), WHOLE);
        for (unsigned at = 0; at < WHOLE; at++)
            if (back[at] != (uint8_t)(at / 7 + at / 4093 + 2))
                fail_msg("byte %u", at);
    }
    free(back);
    return NULL;
}

/* More of them than there are buffers, one of which is kept by somebody else. */
static void readers_take_turns(struct world *world)
{
    struct other readers[4];
    void *kept = medium_buffer(world->medium, 4096);
    for (size_t i = 0; i < ARRAY_SIZE(readers); i++) {
        readers[i] = (struct other){.world = world};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_often, &readers[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(readers); i++)
        pthread_join(readers[i].thread, NULL);
    medium_buffer_free(world->medium, kept, 4096);
}

/* As much of it as the device has, for as long as it is wanted. */
static void large_content_passes_through_memory_of_the_device(void **state)
{
    for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
        struct world world = make(kinds[kind]);
        recorder_device(world.recorder)->best_size = BEST;
        write_and_read_pattern(&world, 1);
        assert_int_equal(recorder_counts(world.recorder).sectors_lent, 0);
        recorder_lend(world.recorder, 3);
        assert_int_equal(medium_tick(world.medium, 1, NULL), 0); /* it is asked for again */
        write_and_read_pattern(&world, 2);
        assert_true(recorder_counts(world.recorder).sectors_lent >= 2 * (WHOLE / 512 - 1));
        assert_true(recorder_counts(world.recorder).lent > 0);
        uint64_t before = recorder_counts(world.recorder).sectors_lent;
        readers_take_turns(&world);
        assert_true(recorder_counts(world.recorder).sectors_lent - before >=
                    200 * (WHOLE / 512 - 1));
        assert_int_equal(medium_tick(world.medium, 2, NULL), 0);
        write_and_read_pattern(&world, 3);
        recorder_lend(world.recorder, 0);
        assert_int_equal(medium_tick(world.medium, 3, NULL), 0);
        assert_true(recorder_counts(world.recorder).lent > 0);
        assert_int_equal(medium_tick(world.medium, 4, NULL), 0);
        assert_int_equal(recorder_counts(world.recorder).lent, 0);
        write_and_read_pattern(&world, 4);
        ends_clean(&world);
    }
}

/* More than is made zeros while the lock is held. */
static void a_large_gap_is_zeros(void **state)
{
    enum { LARGE = 5000000 };
    for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
        struct world world = make(kinds[kind]);
        assert_int_equal(volume_write(world.volume, world.file, LARGE, "x", 1, NULL), 1);
        assert_int_equal(set_size(&world, 2 * LARGE), 0);
        are_all(&world, 0, LARGE, 0);
        are_all(&world, LARGE + 1, LARGE - 1, 0);
        ends_clean(&world);
    }
}

/* Each thread writes its pieces, which share sectors with those of others. */
enum { THREADS = 4, ROUNDS = 60, PIECE = 1000 };

struct worker {
    struct world *world;
    unsigned seed;
    pthread_t thread;
};

static void *work(void *data)
{
    struct worker *worker = data;
    uint8_t piece[PIECE];
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t at = (uint64_t)(i * THREADS + worker->seed) * PIECE;
        memset(piece, (int)('a' + worker->seed), sizeof(piece));
        assert_int_equal(
            volume_write(worker->world->volume, worker->world->file, at, piece, PIECE, NULL),
            PIECE);
    }
    return NULL;
}

static void threads_do_not_lose_each_others_bytes(void **state)
{
    for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
        struct world world = make(kinds[kind]);
        struct worker workers[THREADS];
        for (unsigned i = 0; i < THREADS; i++) {
            workers[i] = (struct worker){.world = &world, .seed = i};
            assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
        }
        for (unsigned i = 0; i < THREADS; i++)
            pthread_join(workers[i].thread, NULL);
        for (unsigned i = 0; i < ROUNDS * THREADS; i++)
            are_all(&world, (uint64_t)i * PIECE, PIECE, (uint8_t)('a' + i % THREADS));
        ends_clean(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_grows_in_the_order_of_its_bytes),
        cmocka_unit_test(what_follows_a_failed_write_fails_too),
        cmocka_unit_test(two_writes_are_never_in_one_sector),
        cmocka_unit_test(a_write_is_not_cut_or_seen_while_it_is_under_way),
        cmocka_unit_test(what_a_failed_write_left_is_never_seen),
        cmocka_unit_test(small_files_are_written_and_read_in_few_requests),
        cmocka_unit_test(what_is_gathered_is_as_if_it_were_written),
        cmocka_unit_test(gathered_content_that_is_lost_is_told_and_led_to_by_nothing),
        cmocka_unit_test(large_content_passes_through_memory_of_the_device),
        cmocka_unit_test(a_large_gap_is_zeros),
        cmocka_unit_test(threads_do_not_lose_each_others_bytes),
    };
    alarm(TIME);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
