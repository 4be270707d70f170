/* src/usb/device against a stick that speaks USB/IP on a socket: what it says, and what it does. */
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

/* A machine that has memory for some transfers only. */
static struct usb_transport_ops replaced_ops;
static int (*submit_really)(struct usb_transport *transport, struct usb_transfer *transfer);
static atomic_uint cbws, data_transfers;

static int submit_sometimes(struct usb_transport *transport, struct usb_transfer *transfer)
{
    bool bulk = transfer->endpoint & 0x0F;
    if (bulk && transfer->length == 31 && atomic_fetch_add(&cbws, 1) % 5 == 4)
        return -ENOMEM;
    if (bulk && transfer->length > 31 && atomic_fetch_add(&data_transfers, 1) % 3 == 0)
        return -ENOMEM;
    return submit_really(transport, transfer);
}

/* ... or for none that are long. */
static atomic_uint longest;

static int submit_short(struct usb_transport *transport, struct usb_transfer *transfer)
{
    if (transfer->length > 40000)
        return -ENOMEM;
    if (transfer->length > atomic_load(&longest))
        atomic_store(&longest, transfer->length);
    return submit_really(transport, transfer);
}

/* An attendant that is slow to notice what it has waited for. */
static atomic_bool is_waiting, waited_at_the_end;
static void (*wait_really)(struct usb_transport *transport, int timeout_ms, pthread_mutex_t *lock);
static void (*destroy_really)(struct usb_transport *transport);

static void wait_longer(struct usb_transport *transport, int timeout_ms, pthread_mutex_t *lock)
{
    atomic_store(&is_waiting, true);
    wait_really(transport, timeout_ms, lock);
    pthread_mutex_unlock(lock);
    usleep(1500000); /* longer than closing takes */
    pthread_mutex_lock(lock);
    atomic_store(&is_waiting, false);
}

static void destroy_at_last(struct usb_transport *transport)
{
    atomic_store(&waited_at_the_end, atomic_load(&is_waiting));
    destroy_really(transport);
}

/* Command blocks that a thread other than the device's submits. */
static atomic_uint attended_commands;

static int submit_counted(struct usb_transport *transport, struct usb_transfer *transfer)
{
    static _Thread_local bool is_device_thread;
    if ((transfer->endpoint & 0x0F) == 0)
        is_device_thread = true; /* the enumeration's */
    else if (!is_device_thread && transfer->length == 31)
        atomic_fetch_add(&attended_commands, 1);
    return submit_really(transport, transfer);
}

static void replace_submit(struct usb_transport *transport,
                           int (*by)(struct usb_transport *, struct usb_transfer *))
{
    replaced_ops = *transport->ops;
    submit_really = replaced_ops.submit;
    replaced_ops.submit = by;
    transport->ops = &replaced_ops;
}

static void replace_wait(struct usb_transport *transport)
{
    replaced_ops = *transport->ops;
    wait_really = replaced_ops.wait;
    destroy_really = replaced_ops.destroy;
    replaced_ops.wait = wait_longer;
    replaced_ops.destroy = destroy_at_last;
    transport->ops = &replaced_ops;
}

static void make_scarce(struct usb_transport *transport)
{
    replace_submit(transport, submit_sometimes);
}

static void make_short(struct usb_transport *transport)
{
    replace_submit(transport, submit_short);
}

static void make_counted(struct usb_transport *transport)
{
    replace_submit(transport, submit_counted);
}

/* The good ones. */

static void a_stick_becomes_a_disk(void **state)
{
    struct rig *rig = rig_start_ready(NULL, "");
    struct block_device *disk = rig_disk(rig, 0);
    struct usb_unit_facts unit = rig_unit(rig, 0);
    uint8_t *data = xmalloc(BIG);
    assert_int_equal(rig->facts.vendor, 0x46F4);
    assert_string_equal(rig->facts.model, "Model stick");
    assert_string_equal(rig->facts.serial, "0123456789AB");
    assert_string_equal(unit.vendor, "Cloche");
    assert_string_equal(unit.product, "Model stick");
    assert_string_equal(unit.serial, "UNIT-0001");
    assert_true(unit.removable && unit.caching && unit.discards && !unit.write_protected);
    assert_int_equal(disk->sectors, SECTORS);
    assert_int_equal(disk->sector_size, 512);
    assert_int_equal(block_read(disk, 0, BIG / 512, data, NULL), 0);
    assert_memory_equal(data, stick_disk(rig->model), BIG);
    memset(data, 0xA5, BIG);
    assert_int_equal(block_write(disk, 100, 2048, data, NULL), 0);
    assert_int_equal(block_flush(disk, NULL), 0);
    assert_memory_equal(stick_disk(rig->model) + 51200, data, BIG);
    assert_int_equal(block_discard(disk, 100, 8, NULL), 0);
    assert_int_equal(stick_disk(rig->model)[51200], 0);
    assert_int_equal(stick_disk(rig->model)[51200 + 4096], 0xA5);
    assert_int_equal(block_read(disk, SECTORS - 1, 1, data, NULL), 0);
    assert_int_equal(rig_counts(rig).recoveries, 0);
    struct stick_counts counts = stick_counts(rig->model);
    assert_true(counts.flushes == 1 && counts.discards == 1 && counts.port_resets == 0);
    free(data);
    rig_finish(rig);
}

/* Longer than one command, and than all transfers in flight. */
static void a_long_request_is_several_commands(void **state)
{
    struct rig *rig = rig_start_ready(NULL, "");
    struct block_device *disk = rig_disk(rig, 0);
    size_t size = (size_t)SECTORS * 512;
    uint8_t *data = xmalloc(size);
    assert_int_equal(block_read(disk, 0, SECTORS, data, NULL), 0);
    assert_memory_equal(data, stick_disk(rig->model), size);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i / 512 + 3);
    assert_int_equal(block_write(disk, 0, SECTORS, data, NULL), 0);
    assert_memory_equal(data, stick_disk(rig->model), size);
    free(data);
    rig_finish(rig);
}

static void a_machine_short_of_memory_does_it_with_fewer_transfers(void **state)
{
    rig_adjust = make_scarce;
    struct rig *rig = rig_start_ready(NULL, "");
    rig_adjust = NULL;
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t *data = xmalloc(BIG);
    assert_int_equal(block_read(disk, 0, BIG / 512, data, NULL), 0);
    assert_memory_equal(data, stick_disk(rig->model), BIG);
    memset(data, 0x5C, BIG);
    for (int i = 0; i < 6; i++)
        assert_int_equal(block_write(disk, 0, BIG / 512, data, NULL), 0);
    assert_memory_equal(data, stick_disk(rig->model), BIG);
    assert_int_equal(rig_unit(rig, 0).state, USB_UNIT_READY);
    assert_int_equal(rig_counts(rig).recoveries, 0);
    assert_true(atomic_load(&cbws) > 10);
    free(data);
    rig_finish(rig);
}

static void a_machine_without_long_pieces_moves_short_ones(void **state)
{
    rig_adjust = make_short;
    struct rig *rig = rig_start_ready(NULL, "");
    rig_adjust = NULL;
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t *data = xmalloc(BIG);
    assert_int_equal(block_read(disk, 0, BIG / 512, data, NULL), 0);
    assert_memory_equal(data, stick_disk(rig->model), BIG);
    memset(data, 0x5C, BIG);
    assert_int_equal(block_write(disk, 0, BIG / 512, data, NULL), 0);
    assert_memory_equal(data, stick_disk(rig->model), BIG);
    assert_int_equal(rig_counts(rig).recoveries, 0);
    assert_in_range(atomic_load(&longest), 16 << 10, 40000);
    free(data);
    rig_finish(rig);
}

static void who_waits_does_the_work(void **state)
{
    enum { READS = 200 };
    rig_adjust = make_counted;
    struct rig *rig = rig_start_ready(NULL, "");
    rig_adjust = NULL;
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t data[512];
    for (unsigned i = 0; i < READS; i++) {
        assert_int_equal(block_read(disk, i, 1, data, NULL), 0);
        assert_memory_equal(data, stick_disk(rig->model) + i * 512, 512);
    }
    assert_in_range(atomic_load(&attended_commands), READS / 2, READS);
    rig_finish(rig);
}

static void sectors_of_4096_bytes(void **state)
{
    struct stick_options options = {.sector_size = 4096, .sectors = 1024, .fixed = true};
    struct rig *rig = rig_start_ready(&options, "");
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t data[8192];
    assert_int_equal(disk->sector_size, 4096);
    assert_int_equal(disk->sectors, 1024);
    assert_int_equal(block_read(disk, 3, 2, data, NULL), 0);
    assert_memory_equal(data, stick_disk(rig->model) + 3 * 4096, sizeof(data));
    rig_finish(rig);
}

static void beyond_two_tebibytes(void **state)
{
    struct stick_options options = {.sectors = SECTORS, .pretended = UINT64_C(3) << 32};
    struct rig *rig = rig_start_ready(&options, "");
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t data[512];
    assert_int_equal(disk->sectors, UINT64_C(3) << 32);
    for (uint64_t sector = (UINT64_C(3) << 32) - 1; sector > 0; sector >>= 1) {
        assert_int_equal(block_read(disk, sector, 1, data, NULL), 0);
        assert_int_equal(stick_counts(rig->model).last_sector, sector);
    }
    assert_int_equal(block_write(disk, UINT64_C(5) << 31, 1, data, NULL), 0);
    assert_int_equal(stick_counts(rig->model).last_sector, UINT64_C(5) << 31);
    assert_int_equal(block_flush(disk, NULL), 0);
    rig_finish(rig);
}

static void units_are_served_in_turn(void **state)
{
    struct stick_options options = {.sectors = SECTORS, .units = 3};
    struct rig *rig = rig_start_ready(&options, "");
    uint8_t data[512];
    assert_int_equal(rig->facts.units, 3);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(block_read(rig_disk(rig, i), i, 1, data, NULL), 0);
    assert_memory_equal(data, stick_disk(rig->model) + 1024, 512);
    rig_finish(rig);
}

static void a_protected_stick_is_read_only(void **state)
{
    struct stick_options options = {.sectors = SECTORS, .read_only = true};
    struct rig *rig = rig_start_ready(&options, "");
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t data[512] = {0};
    assert_true(rig_unit(rig, 0).write_protected && disk->read_only);
    assert_int_equal(block_write(disk, 0, 1, data, NULL), -EROFS);
    rig_finish(rig);
}

static void an_old_stick_is_asked_little(void **state)
{
    struct stick_options options = {.sectors = SECTORS, .version = 2, .uncached = true};
    struct rig *rig = rig_start_ready(&options, "lun-stalls no-modes");
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t data[512];
    assert_false(rig_unit(rig, 0).discards);
    assert_true(disk->flushes); /* nobody says that it has no cache */
    assert_int_equal(block_read(disk, 0, 1, data, NULL), 0);
    assert_int_equal(block_discard(disk, 0, 1, NULL), -EOPNOTSUPP);
    rig_finish(rig);
}

enum { THREADS = 4, ROUNDS = 300 };

static void *read_and_write(void *data)
{
    struct block_device *disk = data;
    static atomic_uint number;
    unsigned mine = atomic_fetch_add(&number, 1) % THREADS, seed = mine;
    uint8_t bytes[8 * 512], back[8 * 512];
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t sector = 4096 + mine * 512 + (unsigned)rand_r(&seed) % 500;
        uint32_t count = 1 + (unsigned)rand_r(&seed) % 8;
        memset(bytes, rand_r(&seed), count * 512);
        if (block_write(disk, sector, count, bytes, NULL) != 0 ||
            block_read(disk, sector, count, back, NULL) != 0)
            return "an error";
        if (memcmp(bytes, back, count * 512) != 0)
            return "other bytes";
        if (i % 50 == 0 && block_flush(disk, NULL) != 0)
            return "no flush";
    }
    return NULL;
}

static void many_threads_submit(void **state)
{
    struct rig *rig = rig_start_ready(NULL, "");
    struct block_device *disk = rig_disk(rig, 0);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_and_write, disk), 0);
    for (int i = 0; i < THREADS; i++) {
        void *fault;
        pthread_join(threads[i], &fault);
        if (fault)
            fail_msg("%s", (char *)fault);
    }
    rig_finish(rig);
}

/* From the beginning. */

static void sticks_that_become_ready(void **state)
{
    /* The first two are states of the unit, the others are met on the way. */
    enum { WITH_COMMANDS = 2 };
    static const char *const faults[] = {"unit-attention", "becomes-ready", "needs-start",
                                         "ready-refused",  "string-junk",   "lun-lie",
                                         "residue-always"};
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        struct rig *rig = rig_start(NULL, faults[i]);
        uint8_t data[512];
        assert_int_equal(block_read(rig_disk(rig, 0), 0, 1, data, NULL), 0);
        assert_memory_equal(data, stick_disk(rig->model), 512);
        if (i >= WITH_COMMANDS)
            assert_true(stick_fired(rig->model, faults[i]) > 0);
        rig_finish(rig);
    }
}

static void sticks_that_do_not(void **state)
{
    static const struct {
        const char *fault, *why;
        enum usb_unit_state state;
    } cases[] = {
        {"no-medium", "no medium", USB_UNIT_EMPTY},
        {"never-ready", "TEST UNIT READY: it does not become ready", USB_UNIT_FAILED},
        {"capacity-none", "READ CAPACITY(10): the answer is not as it must be", USB_UNIT_FAILED},
        {"capacity-odd", "READ CAPACITY(10): the answer is not as it must be", USB_UNIT_FAILED},
        {"capacity-short", "READ CAPACITY(10): the answer is not as it must be", USB_UNIT_FAILED},
        {"capacity-huge", "READ CAPACITY(16): it does not say how large it is", USB_UNIT_FAILED},
        {"inquiry-stalls", "INQUIRY: refused (5/20/00)", USB_UNIT_FAILED},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig *rig = rig_start_ready(NULL, cases[i].fault);
        wait_for(rig, rig->units[0].state == cases[i].state);
        assert_string_equal(rig_unit(rig, 0).error, cases[i].why);
        rig_finish(rig);
    }
}

static void descriptors_that_lie_are_refused(void **state)
{
    static const struct {
        const char *fault, *message;
        int result;
    } cases[] = {
        {"device-short", "device descriptor: 8 bytes came, where 18 are needed", -EPROTO},
        {"device-many", "device descriptor: 255 configurations", -EPROTO},
        {"device-stalls", "read the device descriptor: Broken pipe", -EPROTO},
        {"total-lie", "configuration descriptor: 65535 bytes altogether", -EPROTO},
        {"total-short", "configuration descriptor: 200 bytes altogether, 32 came", -EPROTO},
        {"count-lie", "configuration descriptor: 1 interfaces, it says 9", -EPROTO},
        {"endpoint-lie",
         "configuration, byte 32: interface descriptor: the one before has 2 endpoints and says 3",
         -EPROTO},
        {"nested", "configuration, byte 18: configuration descriptor: 7 bytes, where 9 are needed",
         -EPROTO},
        {"length-zero", "configuration, byte 18: endpoint descriptor: 0 bytes, where 7 are needed",
         -EPROTO},
        {"no-endpoints",
         "device 46f4:0001 has no interface for mass storage that is spoken here (SCSI by "
         "bulk-only transport or UAS)",
         -ENOTSUP},
        {"keyboard",
         "device 46f4:0001 has no interface for mass storage that is spoken here (SCSI by "
         "bulk-only transport or UAS)",
         -ENOTSUP},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig *rig = rig_start(NULL, cases[i].fault);
        wait_for(rig, rig->opened != 1);
        assert_string_equal(rig->message, cases[i].message);
        assert_int_equal(rig->opened, cases[i].result);
        rig_finish(rig);
    }
}

static void descriptors_and_answers_of_chance(void **state)
{
    for (unsigned i = 0; i < 60; i++) {
        srand(i);
        struct rig *rig = rig_start(NULL, i % 2 ? "random" : "inquiry-junk sense-junk");
        wait_for(rig, rig->opened != 1 && (rig->opened < 0 || rig->units[0].state));
        rig_finish(rig);
    }
}

/* Media. */

static void another_medium_is_another_disk(void **state)
{
    struct rig *rig = rig_start_ready(NULL, "medium-change@2");
    struct block_device *old = rig_disk(rig, 0);
    uint8_t data[512], zeros[512] = {0};
    assert_int_equal(block_read(old, 1, 1, data, NULL), 0);
    assert_int_equal(block_read(old, 1, 1, data, NULL), -ENOMEDIUM);
    assert_int_equal(block_read(old, 1, 1, data, NULL), -ENOMEDIUM);
    rig->disks[0] = NULL;
    struct block_device *new = rig_disk(rig, 0);
    assert_ptr_not_equal(old, new);
    assert_int_equal(block_read(new, 1, 1, data, NULL), 0);
    assert_memory_equal(data, zeros, 512);
    assert_int_equal(block_read(old, 1, 1, data, NULL), -ENOMEDIUM);
    block_device_destroy(old);
    rig_finish(rig);
}

static void a_unit_of_another_size_is_another_disk(void **state)
{
    struct rig *rig = rig_start_ready(NULL, "capacity-changed@2");
    struct block_device *old = rig_disk(rig, 0);
    uint8_t data[512];
    assert_int_equal(block_read(old, 1, 1, data, NULL), 0);
    assert_int_equal(block_read(old, 1, 1, data, NULL), -ENOMEDIUM);
    rig->disks[0] = NULL;
    assert_int_equal(rig_disk(rig, 0)->sectors, SECTORS / 2);
    block_device_destroy(old);
    rig_finish(rig);
}

static void a_medium_that_is_taken_out_is_noticed(void **state)
{
    struct rig *rig = rig_start_ready(NULL, "medium-gone@2");
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t data[512];
    assert_int_equal(block_read(disk, 0, 1, data, NULL), 0);
    assert_int_equal(block_read(disk, 0, 1, data, NULL), -ENOMEDIUM);
    wait_for(rig, rig->units[0].state == USB_UNIT_EMPTY);
    rig_finish(rig);
}

static void eject_once(const char *fault, unsigned flushes)
{
    struct rig *rig = rig_start_ready(NULL, fault);
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t data[512] = {1};
    assert_int_equal(block_write(disk, 0, 1, data, NULL), 0);
    pthread_mutex_lock(&rig->lock);
    rig->wants_eject = true;
    pthread_mutex_unlock(&rig->lock);
    wait_for(rig, rig->units[0].state == USB_UNIT_EMPTY);
    assert_string_equal(rig_unit(rig, 0).error, "ejected");
    assert_int_equal(rig->ejected, 0);
    assert_int_equal(block_read(disk, 0, 1, data, NULL), -ENOMEDIUM);
    struct stick_counts counts = stick_counts(rig->model);
    assert_true(counts.flushes == flushes && counts.allows == 1 && counts.stops == 1);
    rig_finish(rig);
}

static void ejecting_flushes_and_stops(void **state)
{
    eject_once("", 1);
    eject_once("sync-lost", 2);
}

/* Half as large as it said first. */
static void a_medium_that_changes_while_it_is_asked_is_asked_anew(void **state)
{
    struct rig *rig = rig_start_ready(NULL, "change-early");
    assert_int_equal(rig_disk(rig, 0)->sectors, SECTORS / 2);
    rig_finish(rig);
}

/* Of a device that pads INQUIRY as it may, the residue of a WRITE counts. */
static void a_padded_inquiry_is_no_lie(void **state)
{
    struct rig *rig = rig_start_ready(NULL, "inquiry-padded residue-lie@1+");
    uint8_t data[1024] = {1};
    assert_int_equal(block_write(rig_disk(rig, 0), 0, 2, data, NULL), -EIO);
    rig_finish(rig);
}

static void wake(struct block_request *request)
{
    sem_post(request->owner);
}

static void closing_answers_what_is_under_way(void **state)
{
    struct rig *rig = rig_start_ready(NULL, "mute-data@1+");
    struct block_device *disk = rig_disk(rig, 0);
    uint8_t data[512];
    sem_t done;
    sem_init(&done, 0, 0);
    struct block_request request = {
        .operation = BLOCK_READ, .count = 1, .data = data, .done = wake, .owner = &done};
    block_submit(disk, &request);
    atomic_store(&rig->stop, true);
    sem_wait(&done);
    assert_int_equal(request.result, -ENODEV);
    pthread_join(rig->device, NULL);
    rig->device = pthread_self();
    rig->disks[0] = NULL;
    pthread_join(rig->server, NULL);
    close(rig->fds[1]);
    stick_destroy(rig->model);
    free(rig);
    sem_destroy(&done);
}

static void *read_to_the_end(void *data)
{
    struct rig *rig = data;
    uint8_t sector[512];
    int r;
    do /* the device thread may be awake at first */
        r = block_read(rig->disks[0], 0, 1, sector, NULL);
    while (r == 0 && !atomic_load(&rig->stop));
    return (void *)(intptr_t)r;
}

static void closing_ends_an_attendance(void **state)
{
    rig_adjust = replace_wait;
    struct rig *rig = rig_start_ready(NULL, "");
    rig_adjust = NULL;
    pthread_t reader;
    void *result;
    rig_disk(rig, 0);
    assert_int_equal(pthread_create(&reader, NULL, read_to_the_end, rig), 0);
    wait_for(rig, atomic_load(&is_waiting));
    atomic_store(&rig->stop, true);
    pthread_join(reader, &result);
    assert_true((intptr_t)result == 0 || (intptr_t)result == -ENODEV);
    rig->disks[0] = NULL;
    rig_finish(rig);
    assert_false(atomic_load(&waited_at_the_end));
}

static void a_server_that_is_none_is_refused(void **state)
{
    static const char *const answers[] = {"HTTP/1.1 400 Bad Request\r\n\r\n",
                                          "\x01\x11\x00\x03\x00\x00\x00\x01", "\x01\x11"};
    static const int results[] = {-EPROTO, -ENODEV, -ECONNRESET};
    for (int i = 0; i < 3; i++) {
        struct usb_transport *transport = NULL;
        int fds[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        size_t size = i == 0 ? strlen(answers[0]) : i == 1 ? 8 : 2;
        assert_int_equal(send(fds[1], answers[i], size, 0), size);
        shutdown(fds[1], SHUT_WR);
        assert_int_equal(usb_usbip_open(fds[0], "1-1", 500, &transport, NULL), results[i]);
        close(fds[1]);
    }
    int fds[2];
    struct usb_transport *transport = NULL;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(usb_usbip_open(fds[0], "1-1", 50, &transport, NULL), -ETIMEDOUT);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stick_becomes_a_disk),
        cmocka_unit_test(a_long_request_is_several_commands),
        cmocka_unit_test(a_machine_short_of_memory_does_it_with_fewer_transfers),
        cmocka_unit_test(a_machine_without_long_pieces_moves_short_ones),
        cmocka_unit_test(who_waits_does_the_work),
        cmocka_unit_test(sectors_of_4096_bytes),
        cmocka_unit_test(beyond_two_tebibytes),
        cmocka_unit_test(units_are_served_in_turn),
        cmocka_unit_test(a_protected_stick_is_read_only),
        cmocka_unit_test(an_old_stick_is_asked_little),
        cmocka_unit_test(many_threads_submit),
        cmocka_unit_test(sticks_that_become_ready),
        cmocka_unit_test(sticks_that_do_not),
        cmocka_unit_test(descriptors_that_lie_are_refused),
        cmocka_unit_test(descriptors_and_answers_of_chance),
        cmocka_unit_test(another_medium_is_another_disk),
        cmocka_unit_test(a_unit_of_another_size_is_another_disk),
        cmocka_unit_test(a_medium_that_is_taken_out_is_noticed),
        cmocka_unit_test(a_medium_that_changes_while_it_is_asked_is_asked_anew),
        cmocka_unit_test(a_padded_inquiry_is_no_lie),
        cmocka_unit_test(ejecting_flushes_and_stops),
        cmocka_unit_test(closing_answers_what_is_under_way),
        cmocka_unit_test(closing_ends_an_attendance),
        cmocka_unit_test(a_server_that_is_none_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
