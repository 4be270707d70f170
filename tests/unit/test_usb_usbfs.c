/* src/usb/device: the transfers of usbfs, of which one thread waits for the end while others begin
 * some. The kernel is this program: what it is asked by ioctl is answered here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/usbdevice_fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <base/clock.h>

#include "usbfs.h"

enum { URBS = 8, SLOW_MS = 100, SOON = 5, SHORT_MS = 200 };

/* The machine. What has ended goes to whoever asks first, and who sleeps is slow to wake. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct usbdevfs_urb *flying[URBS], *ended[URBS];
    unsigned flying_count, ended_count;
    unsigned sleepers;
    bool ends_at_once, refuses;
} machine = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void take_out(struct usbdevfs_urb **list, unsigned *count, unsigned at)
{
    for (--*count; at < *count; at++)
        list[at] = list[at + 1];
}

static void end_first(int status)
{
    machine.flying[0]->status = status;
    machine.flying[0]->actual_length = machine.flying[0]->buffer_length;
    machine.ended[machine.ended_count++] = machine.flying[0];
    take_out(machine.flying, &machine.flying_count, 0);
    pthread_cond_broadcast(&machine.changed);
}

static int submit_urb(struct usbdevfs_urb *urb)
{
    if (machine.refuses)
        return EPROTO;
    machine.flying[machine.flying_count++] = urb;
    while (machine.ends_at_once && machine.flying_count > 0)
        end_first(0);
    return 0;
}

static int discard(const struct usbdevfs_urb *urb)
{
    for (unsigned i = 0; i < machine.flying_count; i++) {
        if (machine.flying[i] != urb)
            continue;
        struct usbdevfs_urb *first = machine.flying[0];
        machine.flying[0] = machine.flying[i];
        machine.flying[i] = first;
        end_first(-ENOENT);
        return 0;
    }
    return EINVAL;
}

static int reap(struct usbdevfs_urb **ret)
{
    if (machine.ended_count == 0)
        return EAGAIN;
    *ret = machine.ended[0];
    take_out(machine.ended, &machine.ended_count, 0);
    return 0;
}

static int sleep_and_reap(struct usbdevfs_urb **ret)
{
    const struct timespec slow = {.tv_nsec = SLOW_MS * 1000000};
    int r;
    machine.sleepers++;
    while ((r = reap(ret)) == EAGAIN) {
        pthread_cond_wait(&machine.changed, &machine.lock);
        pthread_mutex_unlock(&machine.lock);
        nanosleep(&slow, NULL);
        pthread_mutex_lock(&machine.lock);
    }
    machine.sleepers--;
    return r;
}

static int answer(unsigned long request, void *argument)
{
    switch (request) {
    case USBDEVFS_SUBMITURB:
        return submit_urb(argument);
    case USBDEVFS_DISCARDURB:
        return discard(argument);
    case USBDEVFS_REAPURBNDELAY:
        return reap(argument);
    case USBDEVFS_REAPURB:
        return sleep_and_reap(argument);
    default:
        return ENOTTY;
    }
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    pthread_mutex_lock(&machine.lock);
    int r = answer(request, argument);
    pthread_mutex_unlock(&machine.lock);
    if (r != 0)
        errno = r;
    return r != 0 ? -1 : 0;
}

static unsigned sleepers(void)
{
    pthread_mutex_lock(&machine.lock);
    unsigned count = machine.sleepers;
    pthread_mutex_unlock(&machine.lock);
    return count;
}

/* A transport of usbfs alone. */
static struct {
    struct usb_transport transport;
    struct usbfs usbfs;
    pthread_mutex_t lock; /* under which all of it is called */
} stick;

static int submit(struct usb_transport *transport, struct usb_transfer *transfer)
{
    (void)transport;
    return usbfs_submit(&stick.usbfs, transfer);
}

static void collect(struct usb_transport *transport, int timeout_ms)
{
    (void)transport;
    usbfs_collect(&stick.usbfs, timeout_ms);
}

static int next_timeout(struct usb_transport *transport)
{
    (void)transport;
    return usbfs_next_timeout(&stick.usbfs);
}

static const struct usb_transport_ops ops = {
    .name = "usbfs",
    .submit = submit,
    .collect = collect,
    .next_timeout = next_timeout,
};

static void nothing(struct usb_transfer *transfer)
{
    (void)transfer;
}

static uint8_t data[512];
static struct usb_transfer waited = {
    .endpoint = 0x81, .data = data, .length = sizeof(data), .timeout_ms = 30000, .done = nothing};
static atomic_bool is_back;

static void *wait_for_it(void *unused)
{
    pthread_mutex_lock(&stick.lock);
    usbfs_wait(&stick.usbfs, &stick.lock);
    usbfs_collect(&stick.usbfs, 0);
    atomic_store(&is_back, true);
    pthread_mutex_unlock(&stick.lock);
    return unused;
}

static bool comes_back(void)
{
    int64_t end = clock_ticks() + SOON * 1000;
    while (!atomic_load(&is_back) && clock_ticks() < end)
        usleep(1000);
    return atomic_load(&is_back);
}

static void start(bool ends_at_once, pthread_t *ret_waiter)
{
    stick.transport.ops = &ops;
    pthread_mutex_init(&stick.lock, NULL);
    usbfs_init(&stick.usbfs, eventfd(0, EFD_CLOEXEC));
    atomic_store(&is_back, false);
    machine.ends_at_once = machine.refuses = false;
    assert_int_equal(usb_transport_submit(&stick.transport, &waited), 0);
    assert_int_equal(pthread_create(ret_waiter, NULL, wait_for_it, NULL), 0);
    while (sleepers() == 0)
        usleep(1000);
    machine.ends_at_once = ends_at_once;
}

static void finish(pthread_t waiter)
{
    pthread_join(waiter, NULL);
    assert_int_equal(stick.transport.ended == &waited, 1);
    stick.transport.ended = NULL;
    close(stick.usbfs.fd);
    usbfs_finish(&stick.usbfs);
    pthread_mutex_destroy(&stick.lock);
}

static const struct usb_setup get_status = {0x80, 0, 0, 0, 2};

/* Both ends are there at once. */
static void who_waits_is_not_left_behind_by_a_request_beside_it(void **state)
{
    pthread_t waiter;
    uint8_t status[2];
    start(true, &waiter);
    pthread_mutex_lock(&stick.lock);
    assert_int_equal(usb_control(&stick.transport, &get_status, status, SHORT_MS), 2);
    pthread_mutex_unlock(&stick.lock);
    assert_true(comes_back());
    finish(waiter);
}

/* Nothing ends but what is called back. */
static void a_request_beside_it_ends_by_its_time(void **state)
{
    pthread_t waiter;
    uint8_t status[2];
    start(false, &waiter);
    pthread_mutex_lock(&stick.lock);
    assert_int_equal(usb_control(&stick.transport, &get_status, status, SHORT_MS), -ETIMEDOUT);
    assert_false(atomic_load(&is_back));
    machine.refuses = true;
    assert_int_equal(usb_control(&stick.transport, &get_status, status, SHORT_MS), -EIO);
    pthread_mutex_lock(&machine.lock);
    end_first(0);
    pthread_mutex_unlock(&machine.lock);
    pthread_mutex_unlock(&stick.lock);
    assert_true(comes_back());
    finish(waiter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_waits_is_not_left_behind_by_a_request_beside_it),
        cmocka_unit_test(a_request_beside_it_ends_by_its_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
