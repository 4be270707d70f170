/* src/usb/device against a stick that speaks USB/IP on a socket: what becomes of each of its
 * faults.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <usb/disk.h>

#include "../usb/rig.h"
/* Faults of one command: what the request comes to, and how. recoveries and port resets: at least.
 * gone: nothing works afterwards; else the next request does. */
static const struct misbehaviour {
    const char *fault;
    int read, write; /* results */
    unsigned recoveries, port_resets;
    bool gone;
} misbehaviours[] = {
    {"wrong-tag", 0, 0, 1, 0, false},
    {"wrong-tag@1+", -EIO, -EIO, 2, 1, false},
    {"wrong-signature", 0, 0, 1, 0, false},
    {"short-csw", 0, 0, 1, 0, false},
    {"long-csw", 0, 0, 1, 0, false},
    {"empty-csw", 0, 0, 0, 0, false},
    {"stall-cbw", 0, 0, 1, 0, false},
    {"stall-data", -EIO, -EIO, 0, 0, false},
    {"stall-csw", 0, 0, 0, 0, false},
    {"stall-csw-twice", 0, 0, 1, 0, false},
    {"phase-error", 0, 0, 1, 0, false},
    {"phase-error@1+", -EIO, -EIO, 2, 1, false},
    {"phase-error reset-stalls", 0, 0, 1, 1, false},
    {"csw-first", 0, 0, 0, 0, false},
    {"csw-first@1+", -EIO, 0, 0, 0, false},
    {"residue-lie", 0, 0, 0, 0, false},
    {"residue-lie@1+", -EIO, -EIO, 0, 0, false},
    {"residue-huge", 0, 0, 1, 0, false},
    {"residue-always", 0, 0, 0, 0, false},
    {"case-4", 0, 0, 0, 0, false},
    {"case-4@1+", -EIO, -EIO, 0, 0, false},
    {"case-5", 0, 0, 0, 0, false},
    {"case-5@1+", -EIO, -EIO, 0, 0, false},
    {"case-7", 0, 0, 1, 0, false},
    {"case-8", 0, 0, 1, 0, false},
    {"case-9", 0, 0, 0, 0, false},
    {"case-10", 0, 0, 1, 0, false},
    {"case-11", 0, 0, 0, 0, false},
    {"case-11@1+", -EIO, -EIO, 0, 0, false},
    {"case-13", 0, 0, 1, 0, false},
    {"short-data", 0, 0, 0, 0, false},
    {"short-silent@1+", -EIO, -EIO, 0, 0, false},
    {"babble", 0, 0, 0, 0, false},
    {"mute-data", 0, 0, 1, 0, false},
    {"mute-csw", 0, 0, 1, 0, false},
    {"mute-csw@1+", -ETIMEDOUT, -ETIMEDOUT, 2, 1, false},
    {"dead", -ENODEV, -ENODEV, 1, 0, true},
    {"usbip-number", -ENODEV, -ENODEV, 0, 0, true},
    {"usbip-length", -ENODEV, -ENODEV, 0, 0, true},
    {"usbip-cut", -ENODEV, -ENODEV, 0, 0, true},
    {"medium-error", -EIO, -EIO, 0, 0, false},
    {"descriptor-sense", -EIO, -EIO, 0, 0, false},
    {"aborted", 0, 0, 0, 0, false},
    {"aborted@1+", -EIO, -EIO, 0, 0, false},
    {"deferred", 0, -EIO, 0, 0, false},
    {"bus-reset", 0, 0, 0, 0, false},
    {"bus-reset@1+", -EIO, -EIO, 0, 0, false},
    {"sense-junk", 0, 0, 0, 0, false},
    {"sense-stalls", 0, 0, 0, 0, false},
    {"sense-stalls@1+", -EIO, -EIO, 0, 0, false},
    {"write-protect", 0, -EROFS, 0, 0, false},
    {"medium-gone", -ENOMEDIUM, -ENOMEDIUM, 0, 0, false},
    {"medium-change", -ENOMEDIUM, -ENOMEDIUM, 0, 0, false},
};

static void misbehave(const struct misbehaviour *what, bool write, uint32_t count)
{
    struct rig *rig = rig_start_ready(NULL, what->fault);
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t *data = xmalloc(BIG);
    struct error err = ERROR_INIT;
    int64_t begun = clock_milliseconds();
    memset(data, 0x3C, BIG);
    int wanted = write ? what->write : what->read;
    int r =
        write ? block_write(disk, 0, count, data, &err) : block_read(disk, 0, count, data, &err);
    /* Chance may say that it is refused, or anything else. */
    bool chance = strcmp(what->fault, "sense-junk") == 0 && r < 0;
    if (r != wanted && !chance)
        fail_msg("%s, %s %u: %d (%s), not %d", what->fault, write ? "write" : "read", count, r,
                 error_message(&err), wanted);
    if (r == 0 && memcmp(data, stick_disk(rig->model), count * 512) != 0)
        fail_msg("%s, %s %u: a wrong datum", what->fault, write ? "write" : "read", count);
    assert_in_range(clock_milliseconds() - begun, 0, 12000);
    error_finish(&err);
    if (what->gone)
        wait_for(rig, rig->units[0].state == USB_UNIT_FAILED);
    else if (!strchr(what->fault, '+') && r != -ENOMEDIUM)
        assert_int_equal(block_read(disk, 0, 1, data, NULL), 0);
    usleep(20000); /* the counts come with the next turn */
    struct usb_stick_counts counts = rig_counts(rig);
    if (counts.recoveries < what->recoveries || counts.port_resets < what->port_resets)
        fail_msg("%s: %u recoveries, %u resets of the port", what->fault, counts.recoveries,
                 counts.port_resets);
    if (what->recoveries == 0 && counts.recoveries > 0 && strncmp(what->fault, "babble", 6) != 0)
        fail_msg("%s: recovered, where nothing was to be", what->fault);
    if (stick_fired(rig->model, what->fault) == 0)
        fail_msg("%s, %s %u: it was not met", what->fault, write ? "write" : "read", count);
    free(data);
    rig_finish(rig);
}

static bool concerns(const struct misbehaviour *what, bool write)
{
    static const char *const of_reads[] = {"case-4", "case-5", "case-7",   "case-8",
                                           "babble", "short-", "csw-first"};
    static const char *const of_writes[] = {"case-9", "case-10", "case-11", "case-13",
                                            "write-protect"};
    const char *const *others = write ? of_reads : of_writes;
    size_t count = write ? ARRAY_SIZE(of_reads) : ARRAY_SIZE(of_writes);
    for (size_t i = 0; i < count; i++)
        if (strncmp(what->fault, others[i], strlen(others[i])) == 0)
            return false;
    return true;
}

static void misbehave_all(bool write, uint32_t count)
{
    for (size_t i = 0; i < sizeof(misbehaviours) / sizeof(misbehaviours[0]); i++)
        if (concerns(&misbehaviours[i], write))
            misbehave(&misbehaviours[i], write, count);
}

static void faults_of_a_short_read(void **state)
{
    misbehave_all(false, 8);
}

static void faults_of_a_long_read(void **state)
{
    misbehave_all(false, BIG / 512);
}

static void faults_of_a_short_write(void **state)
{
    misbehave_all(true, 8);
}

static void faults_of_a_long_write(void **state)
{
    misbehave_all(true, BIG / 512);
}

static void a_stick_that_is_pulled_out_answers_everybody(void **state)
{
    struct rig *rig = rig_start_ready(NULL, "disconnect");
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t *data = xmalloc(BIG);
    assert_int_equal(block_read(disk, 0, BIG / 512, data, NULL), -ENODEV);
    assert_int_equal(block_read(disk, 0, 1, data, NULL), -ENODEV);
    assert_int_equal(block_write(disk, 0, 1, data, NULL), -ENODEV);
    wait_for(rig, rig->units[0].state == USB_UNIT_FAILED);
    free(data);
    block_device_destroy(disk);
    rig->disks[0] = NULL;
    wait_for(rig, rig->over);
    rig_finish(rig);
}

/* Cases 2 and 3: of a command without data. */
static void a_flush_that_wants_data(void **state)
{
    static const char *const faults[] = {"case-2", "case-3"};
    for (int i = 0; i < 2; i++) {
        struct rig *rig = rig_start_ready(NULL, faults[i]);
        assert_int_equal(block_flush(rig_disk(rig, 0), NULL), 0);
        wait_for(rig, rig->counts.recoveries == 1);
        rig_finish(rig);
    }
}

/* What a write that was answered as good turns out to be is said by the next flush, whoever the
 * unit tells first. */
static void a_write_that_is_lost_fails_the_flush(void **state)
{
    static const struct {
        const char *fault; /* of the second data command */
        bool write;        /* what that is */
        int result;
    } cases[] = {
        {"deferred@2", false, 0},
        {"deferred@2", true, -EIO},
        {"bus-reset@2", false, 0},
        {"bus-reset@2", true, 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct rig *rig = rig_start_ready(NULL, cases[i].fault);
        struct block_device *disk = rig_disk(rig, 0);
        uint8_t data[512] = {1};
        assert_int_equal(block_write(disk, 0, 1, data, NULL), 0);
        assert_int_equal(cases[i].write ? block_write(disk, 1, 1, data, NULL)
                                        : block_read(disk, 1, 1, data, NULL),
                         cases[i].result);
        assert_int_equal(block_flush(disk, NULL), -EIO);
        assert_int_equal(block_flush(disk, NULL), 0);
        rig_finish(rig);
    }
}

/* Nothing that was not flushed can be gone. */
static void a_reset_without_writes_fails_no_flush(void **state)
{
    struct rig *rig = rig_start_ready(NULL, "bus-reset@2");
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t data[512] = {1};
    assert_int_equal(block_write(disk, 0, 1, data, NULL), 0);
    assert_int_equal(block_flush(disk, NULL), 0);
    assert_int_equal(block_read(disk, 1, 1, data, NULL), 0);
    assert_int_equal(block_flush(disk, NULL), 0);
    rig_finish(rig);
}

static void a_stick_without_the_command_has_no_cache(void **state)
{
    struct rig *rig = rig_start_ready(NULL, "no-sync");
    struct block_device *disk = rig_disk(rig, 0);
    assert_int_equal(block_flush(disk, NULL), 0);
    assert_int_equal(block_flush(disk, NULL), 0);
    assert_int_equal(stick_counts(rig->model).flushes, 1);
    rig_finish(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_of_a_short_read),
        cmocka_unit_test(faults_of_a_long_read),
        cmocka_unit_test(faults_of_a_short_write),
        cmocka_unit_test(faults_of_a_long_write),
        cmocka_unit_test(a_stick_that_is_pulled_out_answers_everybody),
        cmocka_unit_test(a_flush_that_wants_data),
        cmocka_unit_test(a_write_that_is_lost_fails_the_flush),
        cmocka_unit_test(a_reset_without_writes_fails_no_flush),
        cmocka_unit_test(a_stick_without_the_command_has_no_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
