/* src/usb/device: several interfaces of mass storage of one device, and media that are locked in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <unistd.h>

#include <usb/disk.h>

#include "../usb/rig.h"

static const struct stick_options two = {.sectors = SECTORS, .interfaces = 2, .units = 2};

static void units_of_all_interfaces_are_numbered_on(void **state)
{
    struct rig *rig = rig_start_ready(&two, "");
    uint8_t data[512], back[512];
    assert_int_equal(rig->facts.interface_count, 2);
    assert_int_equal(rig->facts.units, 4);
    for (unsigned i = 0; i < 2; i++) {
        const struct usb_interface_facts *facts = &rig->facts.interfaces[i];
        assert_int_equal(facts->number, i);
        assert_int_equal(facts->protocol, USB_PROTOCOL_BULK_ONLY);
        assert_int_equal(facts->first_unit, 2 * i);
        assert_int_equal(facts->units, 2);
    }
    for (unsigned i = 0; i < 4; i++) {
        memset(data, 0x11 * (int)(i + 1), sizeof(data));
        assert_int_equal(block_write(rig_disk(rig, i), 100 + i, 1, data, NULL), 0);
        assert_int_equal(block_read(rig->disks[i], 100 + i, 1, back, NULL), 0);
        assert_memory_equal(data, back, sizeof(data));
        struct stick *model = stick_interface(rig->model, i / 2);
        assert_memory_equal(data, stick_disk(model) + (100 + i) * 512, sizeof(data));
    }
    assert_int_equal(stick_disk(rig->model)[102 * 512], (uint8_t)(102 * 7)); /* rig_start() */
    assert_int_equal(rig_counts(rig).recoveries, 0);
    rig_finish(rig);
}

enum { AT_ONCE = 2, ROUNDS = 300 };

static void *read_and_write(void *data)
{
    struct block_device *disk = data;
    uint8_t bytes[4096], back[4096];
    for (int i = 0; i < ROUNDS; i++) {
        memset(bytes, i, sizeof(bytes));
        if (block_write(disk, 4000, 8, bytes, NULL) != 0 ||
            block_read(disk, 4000, 8, back, NULL) != 0)
            return "an error";
        if (memcmp(bytes, back, sizeof(back)) != 0)
            return "other bytes";
    }
    return NULL;
}

static void interfaces_are_used_at_once(void **state)
{
    struct stick_options options = {.sectors = SECTORS, .interfaces = AT_ONCE};
    struct rig *rig = rig_start_ready(&options, "");
    pthread_t threads[AT_ONCE];
    for (unsigned i = 0; i < AT_ONCE; i++)
        rig_disk(rig, i);
    for (unsigned i = 0; i < AT_ONCE; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_and_write, rig->disks[i]), 0);
    for (unsigned i = 0; i < AT_ONCE; i++) {
        void *fault;
        pthread_join(threads[i], &fault);
        if (fault)
            fail_msg("%s", (char *)fault);
    }
    rig_finish(rig);
}

static void wake(struct block_request *request)
{
    sem_post(request->owner);
}

/* Its command is given up after some hundred milliseconds, three times. */
static void one_that_hangs_holds_up_nobody(void **state)
{
    struct stick_options options = {.sectors = SECTORS, .interfaces = 2};
    struct rig *rig = rig_start_ready(&options, "1:mute-data@1+");
    struct block_device *good = rig_disk(rig, 0), *bad = rig_disk(rig, 1);
    uint8_t data[512], other[512];
    sem_t done;
    sem_init(&done, 0, 0);
    struct block_request request = {
        .operation = BLOCK_READ, .count = 1, .data = other, .done = wake, .owner = &done};
    block_submit(bad, &request);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(block_read(good, i, 1, data, NULL), 0);
    assert_int_equal(sem_trywait(&done), -1);
    sem_wait(&done);
    assert_int_equal(request.result, -ETIMEDOUT);
    sem_destroy(&done);
    rig_finish(rig);
}

/* Also where its own thread has to wait: nine commands are lost then. */
static void one_that_is_dead_is_given_up_alone(void **state)
{
    struct stick_options options = {.sectors = SECTORS, .interfaces = 2};
    struct rig *rig = rig_start_ready(&options, "1:dead");
    struct block_device *good = rig_disk(rig, 0), *bad = rig_disk(rig, 1);
    uint8_t data[512];
    int r = 0;
    for (int i = 0; i < 4 && r != -ENODEV; i++) {
        r = block_read(bad, 0, 1, data, NULL);
        assert_int_equal(block_read(good, 0, 1, data, NULL), 0);
    }
    assert_int_equal(r, -ENODEV);
    wait_for(rig, rig->units[1].state == USB_UNIT_FAILED);
    assert_string_equal(rig_unit(rig, 1).error, "its interface answers nothing any more");
    assert_int_equal(rig_unit(rig, 0).state, USB_UNIT_READY);
    assert_int_equal(rig_counts(rig).port_resets, 0);
    assert_int_equal(stick_counts(rig->model).port_resets, 0);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(block_write(good, i, 1, data, NULL), 0);
    rig_finish(rig);
}

static void recovery_is_of_one_interface(void **state)
{
    struct stick_options options = {.sectors = SECTORS, .interfaces = 2};
    struct rig *rig = rig_start_ready(&options, "1:phase-error@2");
    uint8_t data[512];
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(block_read(rig_disk(rig, 0), 0, 1, data, NULL), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(block_read(rig_disk(rig, 1), 0, 1, data, NULL), 0);
    assert_int_equal(stick_counts(rig->model).class_resets, 0);
    assert_int_equal(stick_counts(stick_interface(rig->model, 1)).class_resets, 1);
    rig_finish(rig);
}

static void a_stick_that_is_pulled_out_ends_all(void **state)
{
    struct stick_options options = {.sectors = SECTORS, .interfaces = 2};
    struct rig *rig = rig_start_ready(&options, "disconnect");
    uint8_t data[512];
    rig_disk(rig, 1);
    assert_int_equal(block_read(rig_disk(rig, 0), 0, 1, data, NULL), -ENODEV);
    wait_for(rig, rig->units[1].state == USB_UNIT_FAILED);
    assert_int_equal(block_read(rig->disks[1], 0, 1, data, NULL), -ENODEV);
    for (unsigned i = 0; i < 2; i++) {
        block_device_destroy(rig->disks[i]);
        rig->disks[i] = NULL;
    }
    wait_for(rig, rig->over);
    rig_finish(rig);
}

/* Locking in. */

static void a_medium_that_is_held_is_locked_in(void **state)
{
    struct rig *rig = rig_start_ready(NULL, "");
    uint8_t data[512] = {1};
    for (unsigned i = 1; i <= 2; i++) {
        rig_disk(rig, 0);
        usb_stick_hold(rig->stick, 0, true);
        wait_for(rig, stick_counts(rig->model).prevents == i);
        assert_int_equal(block_write(rig->disks[0], 0, 1, data, NULL), 0);
        usb_stick_hold(rig->stick, 0, true);
        assert_int_equal(block_write(rig->disks[0], 0, 1, data, NULL), 0);
        assert_int_equal(stick_counts(rig->model).allows, i - 1);
        usb_stick_hold(rig->stick, 0, false);
        wait_for(rig, stick_counts(rig->model).allows == i);
        assert_int_equal(stick_counts(rig->model).prevents, i);
    }
    rig_finish(rig);
}

static void it_is_locked_in_again(const char *fault, bool is_another)
{
    struct rig *rig = rig_start_ready(NULL, fault);
    uint8_t data[512];
    rig_disk(rig, 0);
    usb_stick_hold(rig->stick, 0, true);
    wait_for(rig, stick_counts(rig->model).prevents == 1);
    struct block_device *old = rig->disks[0];
    assert_int_equal(block_read(old, 0, 1, data, NULL), 0);
    assert_int_equal(block_read(old, 0, 1, data, NULL), is_another ? -ENOMEDIUM : 0);
    if (is_another) {
        rig->disks[0] = NULL;
        rig_disk(rig, 0);
        assert_int_equal(block_read(rig->disks[0], 0, 1, data, NULL), 0);
        assert_int_equal(stick_counts(rig->model).prevents, 1); /* nobody holds this one */
        usb_stick_hold(rig->stick, 0, true);
        block_device_destroy(old);
    }
    wait_for(rig, stick_counts(rig->model).prevents == 2);
    rig_finish(rig);
}

static void after_a_change_or_a_reset_it_is_locked_in_again(void **state)
{
    it_is_locked_in_again("medium-change@2", true);
    it_is_locked_in_again("bus-reset@2", false);
}

static void what_cannot_be_taken_out_is_not_locked_in(void **state)
{
    struct stick_options options = {.sectors = SECTORS, .fixed = true};
    struct rig *rig = rig_start_ready(&options, "");
    uint8_t data[512];
    rig_disk(rig, 0);
    usb_stick_hold(rig->stick, 0, true);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(block_read(rig->disks[0], i, 1, data, NULL), 0);
    assert_int_equal(stick_counts(rig->model).prevents, 0);
    rig_finish(rig);
}

static void asked_once(const char *faults)
{
    struct rig *rig = rig_start_ready(NULL, faults);
    uint8_t data[512];
    rig_disk(rig, 0);
    usb_stick_hold(rig->stick, 0, true);
    wait_for(rig, stick_counts(rig->model).prevents == 1);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(block_write(rig->disks[0], i, 1, data, NULL), 0);
    usb_stick_hold(rig->stick, 0, false);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(block_read(rig->disks[0], i, 1, data, NULL), 0);
    assert_int_equal(stick_counts(rig->model).prevents, 1);
    assert_int_equal(stick_counts(rig->model).allows, 0);
    rig_finish(rig);
}

static void a_stick_without_the_command_is_asked_once(void **state)
{
    asked_once("no-prevent");
}

static void a_stick_that_hangs_with_the_command_is_asked_once(void **state)
{
    asked_once("prevent-hangs");
}

static void *end(void *data)
{
    return data;
}

/* For rig_finish(): the device's has been waited for. */
static pthread_t idle_thread(void)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, end, NULL), 0);
    return thread;
}

static void closing_lets_go_of_it(void **state)
{
    struct rig *rig = rig_start_ready(NULL, "");
    rig_disk(rig, 0);
    usb_stick_hold(rig->stick, 0, true);
    wait_for(rig, stick_counts(rig->model).prevents == 1);
    block_device_destroy(rig->disks[0]);
    rig->disks[0] = NULL;
    atomic_store(&rig->stop, true);
    pthread_join(rig->device, NULL);
    assert_int_equal(stick_counts(rig->model).allows, 1);
    rig->device = idle_thread();
    rig_finish(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(units_of_all_interfaces_are_numbered_on),
        cmocka_unit_test(interfaces_are_used_at_once),
        cmocka_unit_test(one_that_hangs_holds_up_nobody),
        cmocka_unit_test(one_that_is_dead_is_given_up_alone),
        cmocka_unit_test(recovery_is_of_one_interface),
        cmocka_unit_test(a_stick_that_is_pulled_out_ends_all),
        cmocka_unit_test(a_medium_that_is_held_is_locked_in),
        cmocka_unit_test(after_a_change_or_a_reset_it_is_locked_in_again),
        cmocka_unit_test(what_cannot_be_taken_out_is_not_locked_in),
        cmocka_unit_test(a_stick_without_the_command_is_asked_once),
        cmocka_unit_test(a_stick_that_hangs_with_the_command_is_asked_once),
        cmocka_unit_test(closing_lets_go_of_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
