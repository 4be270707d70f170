/* UAS against a stick that speaks it by USB/IP, so without streams: what it does, and what becomes
 * of each of its faults. With streams: tests/vm/test_usb_uas.py. */
#include "../usb/rig.h"

#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>

static const struct stick_options both = {.sectors = SECTORS, .uas = true};
static const struct stick_options only = {.sectors = SECTORS, .uas_only = true};

enum { PIECES = 64 };

static void both_settings_are_read_and_uas_is_chosen(void **state)
{
    static const struct stick_options *const kinds[] = {&both, &only};
    for (int i = 0; i < 2; i++) {
        struct rig *rig = rig_start_ready(kinds[i], "");
        struct block_device *disk = rig_disk(rig, 0);
        uint8_t *data = xmalloc(BIG);
        assert_int_equal(rig->facts.interfaces[0].protocol, USB_PROTOCOL_UAS);
        assert_int_equal(rig->facts.units, 1);
        assert_string_equal(rig_unit(rig, 0).serial, "UNIT-0001");
        assert_int_equal(block_read(disk, 0, BIG / 512, data, NULL), 0);
        assert_memory_equal(data, stick_disk(rig->model), BIG);
        memset(data, 0xA5, BIG);
        assert_int_equal(block_write(disk, 100, 2048, data, NULL), 0);
        assert_int_equal(block_flush(disk, NULL), 0);
        assert_memory_equal(stick_disk(rig->model) + 51200, data, BIG);
        assert_int_equal(block_discard(disk, 100, 8, NULL), 0);
        assert_int_equal(stick_disk(rig->model)[51200], 0);
        assert_int_equal(rig_counts(rig).recoveries, 0);
        struct stick_counts counts = stick_counts(rig->model);
        assert_true(counts.flushes == 1 && counts.discards == 1 && counts.functions == 0);
        free(data);
        rig_finish(rig);
    }
}

static void what_lies_about_its_pipes_is_not_spoken_to_by_uas(void **state)
{
    static const char *const lies[] = {"pipes-lie", "pipes-none"};
    for (int i = 0; i < 2; i++) {
        struct rig *rig = rig_start_ready(&both, lies[i]);
        rig_disk(rig, 0);
        assert_int_equal(rig->facts.interfaces[0].protocol, USB_PROTOCOL_BULK_ONLY);
        rig_finish(rig);
        rig = rig_start(&only, lies[i]);
        wait_for(rig, rig->opened != 1);
        assert_int_equal(rig->opened, -ENOTSUP);
        rig_finish(rig);
    }
}

static void units_are_those_that_are_reported(void **state)
{
    struct stick_options options = both;
    options.units = 4;
    options.absent = 1U << 1; /* 0, 2, 3 */
    struct rig *rig = rig_start_ready(&options, "");
    uint8_t data[512];
    assert_int_equal(rig->facts.units, 3);
    for (unsigned i = 0; i < 3; i++) {
        struct block_device *disk = rig_disk(rig, i);
        assert_int_equal(block_read(disk, i, 1, data, NULL), 0);
        assert_memory_equal(data, stick_disk(rig->model) + i * 512, 512);
    }
    rig_finish(rig);
}

/* Requests that are all there at once. */
struct batch {
    struct block_request requests[PIECES];
    sem_t done;
};

static void request_done(struct block_request *request)
{
    sem_post(&((struct batch *)request->owner)->done);
}

static struct batch *submit_batch(struct block_device *disk, enum block_operation operation,
                                  uint8_t *data, uint32_t count)
{
    struct batch *batch = xnew(struct batch);
    sem_init(&batch->done, 0, 0);
    for (unsigned i = 0; i < PIECES; i++) {
        bool flush = operation == BLOCK_WRITE && i % 16 == 15;
        batch->requests[i] = (struct block_request){
            .operation = flush ? BLOCK_FLUSH : operation,
            .sector = i * count,
            .count = count,
            .data = data + (size_t)i * count * 512,
            .done = request_done,
            .owner = batch,
        };
        block_submit(disk, &batch->requests[i]);
    }
    return batch;
}

/* How many of them ended so. */
static unsigned end_batch(struct batch *batch, int result)
{
    unsigned count = 0;
    for (unsigned i = 0; i < PIECES; i++)
        sem_wait(&batch->done);
    for (unsigned i = 0; i < PIECES; i++)
        count += batch->requests[i].result == result;
    sem_destroy(&batch->done);
    free(batch);
    return count;
}

/* In the order that the device likes. */
static void several_commands_are_under_way_at_once(void **state)
{
    static const char *const orders[] = {"", "reorder"};
    for (int i = 0; i < 2; i++) {
        struct rig *rig = rig_start_ready(&both, orders[i]);
        struct block_device *disk = rig_disk(rig, 0);
        uint8_t *data = xmalloc(BIG);
        assert_int_equal(end_batch(submit_batch(disk, BLOCK_READ, data, 32), 0), PIECES);
        assert_memory_equal(data, stick_disk(rig->model), BIG);
        for (size_t at = 0; at < BIG; at++)
            data[at] = (uint8_t)(at / 512 * 3 + 1);
        assert_int_equal(end_batch(submit_batch(disk, BLOCK_WRITE, data, 32), 0), PIECES);
        for (size_t piece = 0; piece < PIECES; piece++)
            if (piece % 16 != 15)
                assert_memory_equal(stick_disk(rig->model) + piece * 16384, data + piece * 16384,
                                    16384);
        free(data);
        assert_int_equal(rig_counts(rig).recoveries, 0);
        struct stick *model = rig->model;
        assert_true(stick_counts(model).most_at_once >= 4);
        assert_int_equal(stick_counts(model).flushes, PIECES / 16);
        rig_finish(rig);
    }
}

/* The model's faults: what the first request of that many ends in, and what it takes. */
static const struct {
    const char *faults;
    int read, write;
    unsigned recoveries, port_resets; /* at least; 0: none */
    bool gone;
} misbehaviours[] = {
    {"wrong-tag", 0, 0, 1, 0, false},
    {"wrong-tag@1+", -EIO, -EIO, 2, 1, false},
    {"wrong-signature", 0, 0, 1, 0, false},
    {"short-csw", 0, 0, 1, 0, false},
    {"long-csw", 0, 0, 1, 0, false},
    {"empty-csw", 0, 0, 1, 0, false},
    {"mute-csw", 0, 0, 1, 0, false},
    {"mute-csw@1+", -ETIMEDOUT, -ETIMEDOUT, 2, 1, false},
    {"stall-csw", 0, 0, 1, 0, false},
    {"stall-cbw", 0, 0, 1, 0, false},
    {"stall-data", -EIO, -EIO, 0, 0, false},
    {"mute-data", 0, 0, 1, 0, false},
    {"short-data", 0, 0, 0, 0, false},
    {"short-data@1+", -EIO, -EIO, 0, 0, false},
    {"iu-refused", 0, 0, 1, 0, false},
    {"iu-refused@1+", -EIO, -EIO, 2, 1, false},
    {"ready-wrong", 0, 0, 1, 0, false},
    {"uas-lost", 0, 0, 1, 0, false},
    {"uas-lost abort-refused", 0, 0, 2, 0, false},
    {"uas-lost functions-refused", 0, 0, 2, 1, false},
    {"uas-lost functions-mute", 0, 0, 2, 1, false},
    {"unit-busy", 0, 0, 0, 0, false},
    {"set-full", 0, 0, 0, 0, false},
    {"medium-error", -EIO, -EIO, 0, 0, false},
    {"aborted", 0, 0, 0, 0, false},
    {"aborted@1+", -EIO, -EIO, 0, 0, false},
    {"bus-reset", 0, 0, 0, 0, false},
    {"sense-junk", 0, 0, 0, 0, false},
    {"write-protect", 0, -EROFS, 0, 0, false},
    {"medium-gone", -ENOMEDIUM, -ENOMEDIUM, 0, 0, false},
    {"dead", -ENODEV, -ENODEV, 0, 0, true},
    {"disconnect", -ENODEV, -ENODEV, 0, 0, true},
};

static void misbehave(bool write)
{
    for (size_t i = 0; i < sizeof(misbehaviours) / sizeof(misbehaviours[0]); i++) {
        const char *faults = misbehaviours[i].faults;
        struct rig *rig = rig_start_ready(&only, faults);
        struct block_device *disk = rig_disk(rig, 0);
        uint8_t data[8192];
        memset(data, 0x3C, sizeof(data));
        int expected = write ? misbehaviours[i].write : misbehaviours[i].read;
        int r = write ? block_write(disk, 0, 16, data, NULL) : block_read(disk, 0, 16, data, NULL);
        if (r != expected)
            fail_msg("%s: %d, not %d", faults, r, expected);
        if (r == 0 && memcmp(data, stick_disk(rig->model), sizeof(data)) != 0)
            fail_msg("%s: other data", faults);
        wait_for(rig, !misbehaviours[i].gone || rig->units[0].state == USB_UNIT_FAILED);
        /* Its last counts are known a turn of the device thread later. */
        unsigned recoveries = misbehaviours[i].gone ? 0 : misbehaviours[i].recoveries;
        wait_for(rig, rig->counts.recoveries >= recoveries);
        wait_for(rig, rig->counts.port_resets >= misbehaviours[i].port_resets);
        struct usb_stick_counts counts = rig_counts(rig);
        if (!misbehaviours[i].gone && ((recoveries == 0 && counts.recoveries != 0) ||
                                       counts.port_resets != misbehaviours[i].port_resets))
            fail_msg("%s: %u recoveries, %u resets of the port", faults, counts.recoveries,
                     counts.port_resets);
        rig_finish(rig);
    }
}

static void faults_of_a_read(void **state)
{
    misbehave(false);
}

static void faults_of_a_write(void **state)
{
    misbehave(true);
}

/* Those that are under way beside the one that is lost are done all the same. */
static void others_are_done_though_one_is_lost(void **state)
{
    static const char *const faults[] = {
        "uas-lost@5",
        "uas-lost@5 reorder",
        "uas-lost@5 abort-refused",
        "uas-lost@5 functions-refused",
        "uas-lost@5 functions-mute",
        "wrong-tag@5",
        "stall-csw@7",
        "set-full@5",
        "mute-data@9",
    };
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        struct rig *rig = rig_start_ready(&both, faults[i]);
        struct block_device *disk = rig_disk(rig, 0);
        uint8_t *data = xmalloc(BIG);
        if (end_batch(submit_batch(disk, BLOCK_READ, data, 32), 0) != PIECES)
            fail_msg("%s: some failed", faults[i]);
        assert_memory_equal(data, stick_disk(rig->model), BIG);
        assert_int_equal(rig->facts.interfaces[0].protocol, USB_PROTOCOL_UAS);
        free(data);
        rig_finish(rig);
    }
}

static void one_that_keeps_failing_is_spoken_to_by_bulk_only_transport(void **state)
{
    struct rig *rig = rig_start_ready(&both, "uas-lost@1+");
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t data[512];
    int r = -EIO;
    for (unsigned i = 0; i < 6 && r != 0; i++)
        r = block_read(disk, i, 1, data, NULL);
    assert_int_equal(r, 0);
    wait_for(rig, usb_stick_facts(rig->stick)->interfaces[0].protocol == USB_PROTOCOL_BULK_ONLY);
    memset(data, 0x77, sizeof(data));
    assert_int_equal(block_write(disk, 9, 1, data, NULL), 0);
    assert_memory_equal(stick_disk(rig->model) + 9 * 512, data, 512);
    rig_finish(rig);
}

static void one_that_cannot_fall_back_is_given_up(void **state)
{
    struct rig *rig = rig_start_ready(&both, "uas-lost@1+ uas-no-way-back");
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t data[512];
    int r = -EIO;
    for (unsigned i = 0; i < 12 && r != -ENODEV; i++)
        r = block_read(disk, i, 1, data, NULL);
    assert_int_equal(r, -ENODEV);
    rig_finish(rig);
}

static void one_that_says_nothing_by_uas_is_not_spoken_to_by_it(void **state)
{
    struct rig *rig = rig_start_ready(&both, "uas-mute");
    uint8_t data[512];
    assert_int_equal(rig->facts.interfaces[0].protocol, USB_PROTOCOL_BULK_ONLY);
    assert_int_equal(block_read(rig_disk(rig, 0), 0, 1, data, NULL), 0);
    rig_finish(rig);
    rig = rig_start(&only, "uas-mute");
    wait_for(rig, rig->opened != 1);
    assert_true(rig->opened < 0);
    rig_finish(rig);
}

/* Who has the turn sleeps in the transport's wait, and nobody else is in it or collects meanwhile
 * (usb/transport.h). */
static struct usb_transport_ops replaced_ops;
static const struct usb_transport_ops *real_ops;
static atomic_uint waiting, waits, intrusions;

static void wait_alone(struct usb_transport *transport, int timeout_ms, pthread_mutex_t *lock)
{
    if (atomic_fetch_add(&waiting, 1) > 0)
        atomic_fetch_add(&intrusions, 1);
    atomic_fetch_add(&waits, 1);
    real_ops->wait(transport, timeout_ms, lock);
    pthread_mutex_unlock(lock);
    sched_yield(); /* others have time to come */
    pthread_mutex_lock(lock);
    atomic_fetch_sub(&waiting, 1);
}

static void collect_alone(struct usb_transport *transport, int timeout_ms)
{
    if (atomic_load(&waiting) > 0)
        atomic_fetch_add(&intrusions, 1);
    real_ops->collect(transport, timeout_ms);
}

static void watch_turns(struct usb_transport *transport)
{
    real_ops = transport->ops;
    replaced_ops = *real_ops;
    replaced_ops.wait = wait_alone;
    replaced_ops.collect = collect_alone;
    transport->ops = &replaced_ops;
}

enum { ATTENDANTS = 6, ROUNDS = 200 };

struct attendant {
    struct block_device *disk;
    unsigned number;
    const char *fault; /* NULL: none */
    pthread_t thread;
};

/* In sectors of its own. */
static void *read_and_write(void *data)
{
    struct attendant *attendant = data;
    unsigned seed = attendant->number;
    uint8_t bytes[8 * 512], back[8 * 512];
    for (int i = 0; i < ROUNDS && !attendant->fault; i++) {
        uint64_t sector = attendant->number * 512 + (unsigned)rand_r(&seed) % 500;
        uint32_t count = 1 + (unsigned)rand_r(&seed) % 8;
        memset(bytes, rand_r(&seed), count * 512);
        if (block_write(attendant->disk, sector, count, bytes, NULL) != 0 ||
            block_read(attendant->disk, sector, count, back, NULL) != 0)
            attendant->fault = "an error";
        else if (memcmp(bytes, back, count * 512) != 0)
            attendant->fault = "other bytes";
        else if (i % 50 == 0 && block_flush(attendant->disk, NULL) != 0)
            attendant->fault = "no flush";
    }
    return NULL;
}

static void several_threads_attend_in_turn(void **state)
{
    struct attendant attendants[ATTENDANTS];
    rig_adjust = watch_turns;
    struct rig *rig = rig_start_ready(&both, "");
    rig_adjust = NULL;
    struct block_device *disk = rig_disk(rig, 0);
    for (unsigned i = 0; i < ATTENDANTS; i++) {
        attendants[i] = (struct attendant){.disk = disk, .number = i};
        assert_int_equal(
            pthread_create(&attendants[i].thread, NULL, read_and_write, &attendants[i]), 0);
    }
    for (unsigned i = 0; i < ATTENDANTS; i++) {
        pthread_join(attendants[i].thread, NULL);
        if (attendants[i].fault)
            fail_msg("%s", attendants[i].fault);
    }
    assert_int_equal(rig->facts.interfaces[0].protocol, USB_PROTOCOL_UAS);
    assert_int_equal(atomic_load(&intrusions), 0);
    assert_true(atomic_load(&waits) > 0);
    assert_in_range(stick_counts(rig->model).most_at_once, 2, ATTENDANTS);
    assert_int_equal(rig_counts(rig).recoveries, 0);
    rig_finish(rig);
}

static void pulled_out_it_answers_everybody(void **state)
{
    struct rig *rig = rig_start_ready(&both, "disconnect@5");
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t *data = xmalloc(BIG);
    unsigned gone = end_batch(submit_batch(disk, BLOCK_READ, data, 32), -ENODEV);
    assert_in_range(gone, 1, PIECES);
    wait_for(rig, rig->units[0].state == USB_UNIT_FAILED);
    assert_int_equal(block_read(disk, 0, 1, data, NULL), -ENODEV);
    free(data);
    rig_finish(rig);
}

static void closing_answers_what_is_under_way(void **state)
{
    struct rig *rig = rig_start_ready(&both, "uas-lost@1+");
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t *data = xmalloc(BIG);
    struct batch *batch = submit_batch(disk, BLOCK_READ, data, 32);
    atomic_store(&rig->stop, true);
    unsigned done = end_batch(batch, -ENODEV);
    assert_int_equal(done, PIECES);
    free(data);
    rig->disks[0] = NULL; /* gone with the stick */
    rig_finish(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_settings_are_read_and_uas_is_chosen),
        cmocka_unit_test(what_lies_about_its_pipes_is_not_spoken_to_by_uas),
        cmocka_unit_test(units_are_those_that_are_reported),
        cmocka_unit_test(several_commands_are_under_way_at_once),
        cmocka_unit_test(faults_of_a_read),
        cmocka_unit_test(faults_of_a_write),
        cmocka_unit_test(others_are_done_though_one_is_lost),
        cmocka_unit_test(one_that_keeps_failing_is_spoken_to_by_bulk_only_transport),
        cmocka_unit_test(one_that_cannot_fall_back_is_given_up),
        cmocka_unit_test(one_that_says_nothing_by_uas_is_not_spoken_to_by_it),
        cmocka_unit_test(several_threads_attend_in_turn),
        cmocka_unit_test(pulled_out_it_answers_everybody),
        cmocka_unit_test(closing_answers_what_is_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
