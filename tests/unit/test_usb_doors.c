/* src/usb/doors: limits, requests that several threads read, and those of block doors that are
 * under way together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/cleanup.h>
#include <base/clock.h>
#include <doors/nbd.h>

#include "arrivals.h"
#include "nbd_protocol.h"
#include "rate.h"

static void a_rate_makes_those_wait_who_come_later(void **state)
{
    const int64_t ms = CLOCK_SECOND / 1000, now = 5 * CLOCK_SECOND;
    struct rate rate;
    rate_init(&rate, 1000);
    /* After a pause a tenth of a second may be taken at once, and no more. */
    assert_int_equal(rate_take(&rate, 100, now), 0);
    assert_int_equal(rate_take(&rate, 50, now), 50 * ms);
    assert_int_equal(rate_take(&rate, 50, now), 100 * ms);
    assert_int_equal(rate_take(&rate, 1, now + 101 * ms), 0);
    assert_int_equal(rate_take(&rate, 100, now + 3600 * CLOCK_SECOND), 0);
    assert_int_equal(rate_take(&rate, 1, now + 3600 * CLOCK_SECOND), 1 * ms);
    /* No amount is a wait for ever, or none. */
    assert_true(rate_take(&rate, UINT64_MAX, now + 3601 * CLOCK_SECOND) > 3000 * CLOCK_SECOND);
    rate_finish(&rate);
    rate_init(&rate, 0);
    assert_int_equal(rate_take(&rate, UINT64_MAX, now), 0);
    rate_finish(&rate);
}

enum { TOGETHER = 16, SECTOR = 512 };

/* A device that answers when it has so many requests, the last one first. */
struct patient {
    struct block_device device; /* first */
    struct block_request *held[TOGETHER];
    unsigned count;
};

static void hold(struct block_device *device, struct block_request *request)
{
    struct patient *patient = (struct patient *)device;
    memset(request->data, (int)request->at, SECTOR);
    patient->held[patient->count++] = request;
    if (patient->count < TOGETHER)
        return;
    while (patient->count > 0) {
        struct block_request *last = patient->held[--patient->count];
        last->result = 0;
        last->done(last);
    }
}

static void many_requests_of_nbd_are_under_way_and_done_in_any_order(void **state)
{
    static const struct block_device_ops ops = {.submit = hold};
    struct patient patient = {
        .device = {.ops = &ops, .whole = &patient.device, .sector_size = SECTOR, .sectors = 64}};
    const struct nbd_door_options options = {0};
    const struct timeval patience = {.tv_sec = 20};
    struct nbd_door *door;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    assert_int_equal(nbd_door_open(&patient.device, pair[1], &options, &door, NULL), 0);
    for (unsigned i = 0; i < TOGETHER; i++) {
        uint8_t request[NBD_REQUEST_SIZE] = {0};
        nbd_put32(request, NBD_REQUEST_MAGIC);
        nbd_put16(request + 6, NBD_READ);
        nbd_put64(request + 8, 1000 + i);
        nbd_put64(request + 16, (uint64_t)i * SECTOR);
        nbd_put32(request + 24, SECTOR);
        assert_int_equal(write(pair[0], request, sizeof(request)), sizeof(request));
    }
    for (unsigned i = TOGETHER; i-- > 0;) {
        uint8_t reply[NBD_REPLY_SIZE + SECTOR];
        assert_int_equal(recv(pair[0], reply, sizeof(reply), MSG_WAITALL), sizeof(reply));
        assert_int_equal(nbd_get32(reply + 4), 0);
        assert_int_equal(nbd_get64(reply + 8), 1000 + i);
        assert_int_equal(reply[NBD_REPLY_SIZE], i);
        assert_int_equal(reply[sizeof(reply) - 1], i);
    }
    close(pair[0]);
    nbd_door_close(door);
}

enum { READERS = 3, A_WHILE_US = 20000 };

struct reader {
    struct arrivals *all;
    struct arrival *own;
    atomic_bool is_first;
};

static void *wait_for_those_before(void *data)
{
    struct reader *reader = data;
    arrivals_wait(reader->all, reader->own);
    atomic_store(&reader->is_first, true);
    return NULL;
}

static void who_has_read_waits_for_what_came_before(void **state)
{
    struct arrivals all;
    _Atomic uint64_t numbers[READERS];
    pthread_t thread;
    arrivals_init(&all, READERS);
    for (unsigned i = 0; i < READERS; i++)
        arrival_begins(&all.items[i], &numbers[i]);
    struct reader reader = {.all = &all, .own = &all.items[1]};
    atomic_store(&numbers[1], 0x20010);
    pthread_create(&thread, NULL, wait_for_those_before, &reader);
    usleep(A_WHILE_US); /* of the others nothing is known */
    assert_false(atomic_load(&reader.is_first));
    atomic_store(&numbers[2], 0x20014);
    atomic_store(&numbers[0], 0x0c);
    usleep(A_WHILE_US); /* the rest of a number */
    assert_false(atomic_load(&reader.is_first));
    atomic_store(&numbers[0], 0x2000c);
    usleep(A_WHILE_US); /* is before it */
    assert_false(atomic_load(&reader.is_first));
    arrival_ends(&all, &all.items[0]);
    pthread_join(thread, NULL);
    arrival_ends(&all, &all.items[1]);
    /* Nobody is before it any more, and what is read next is behind it. */
    arrival_begins(&all.items[0], &numbers[0]);
    atomic_store(&numbers[0], 0x20018);
    arrivals_wait(&all, &all.items[2]);
    arrivals_finish(&all);
}

static void numbers_that_do_not_grow_are_no_order(void **state)
{
    static const uint64_t grow[] = {2, 4, 10, 12}, two_counters[] = {2, 6, 3, 10};
    struct arrivals all;
    arrivals_init(&all, READERS);
    for (size_t i = 0; i < ARRAY_SIZE(grow); i++)
        arrivals_look(&all, grow[i]);
    assert_true(arrivals_are_ordered(&all));
    arrivals_finish(&all);
    arrivals_init(&all, READERS);
    for (size_t i = 0; i < ARRAY_SIZE(two_counters); i++)
        arrivals_look(&all, two_counters[i]);
    assert_false(arrivals_are_ordered(&all));
    arrivals_finish(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rate_makes_those_wait_who_come_later),
        cmocka_unit_test(who_has_read_waits_for_what_came_before),
        cmocka_unit_test(numbers_that_do_not_grow_are_no_order),
        cmocka_unit_test(many_requests_of_nbd_are_under_way_and_done_in_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
