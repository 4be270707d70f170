/* The device thread: it opens the stick, runs it, and does what others ask of it. */
#include <errno.h>
#include <time.h>

#include <base/log.h>
#ifdef HAVE_LIBUSB
#include <usb/libusb.h>
#endif

#include "server.h"

enum { IMPORT_MS = 5000, CLOSE_SECONDS = 3 };

/* Something for the device thread; the one who asks waits for it. */
struct source_call {
    struct source_call *next;
    struct server *server;
    void (*run)(struct usb_stick *stick, struct source_call *call);
    unsigned unit;
    struct usb_stick_counts counts;
    int result;
    struct error *err;
    bool is_done;
};

static void call_done(struct source_call *call, int result)
{
    struct server *server = call->server;
    pthread_mutex_lock(&server->lock);
    call->result = result;
    call->is_done = true;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

static int call(struct server *server, struct source_call *call)
{
    call->server = server;
    pthread_mutex_lock(&server->lock);
    if (!server->stick) {
        pthread_mutex_unlock(&server->lock);
        return error_set(call->err, -ENODEV, "the stick is not open");
    }
    call->next = server->calls;
    server->calls = call;
    usb_stick_wake(server->stick);
    while (!call->is_done)
        pthread_cond_wait(&server->changed, &server->lock);
    pthread_mutex_unlock(&server->lock);
    return call->result;
}

static void serve_calls(struct server *server, struct usb_stick *stick)
{
    pthread_mutex_lock(&server->lock);
    struct source_call *next, *calls = steal_ptr(server->calls);
    pthread_mutex_unlock(&server->lock);
    for (; calls; calls = next) {
        next = calls->next;
        if (stick)
            calls->run(stick, calls);
        else
            call_done(calls, error_set(calls->err, -ENODEV, "the stick is gone"));
    }
}

/* Opening. */

static int open_transport(struct server *server, struct usb_transport **ret_transport,
                          struct error *err)
{
    const struct server_options *options = server->options;
    if (options->kind == SERVER_USBIP)
        return usb_usbip_open(options->fd, options->bus_id, IMPORT_MS, ret_transport, err);
#ifdef HAVE_LIBUSB
    int r = usb_libusb_open(options->fd, options->configuration, ret_transport, err);
    if (r == 0)
        usb_libusb_reset_by(*ret_transport, device_reset, (int *)(uintptr_t)&options->help);
    return r;
#else
    return error_set(err, -ENOTSUP, "built without libusb, only sticks by USB/IP are served");
#endif
}

/* The device thread. A disk is told once. */
static void tell_unit(struct usb_stick *stick, unsigned unit, void *data)
{
    struct server *server = data;
    struct usb_unit_facts facts;
    usb_stick_unit(stick, unit, &facts);
    struct block_device *disk = facts.state == USB_UNIT_READY ? usb_stick_disk(stick, unit) : NULL;
    bool is_new = disk && disk != server->disks[unit];
    server->disks[unit] = disk;
    source_unit(server, unit, &facts, is_new ? disk : NULL);
}

static int open_stick(struct server *server, struct usb_stick **ret_stick, struct error *err)
{
    struct usb_stick_nothing nothing = {0};
    const struct usb_stick_event event = {.opened = &nothing};
    const struct usb_stick_options options = {.locked_in = server->options->locked_in};
    struct usb_transport *transport;
    struct usb_stick *stick;
    int r = open_transport(server, &transport, err);
    if (r == 0)
        r = usb_stick_open(transport, &options, tell_unit, server, &stick, err);
    if (r != 0)
        return r;
    pthread_mutex_lock(&server->lock);
    server->stick = stick;
    server->device = *usb_stick_facts(stick);
    server->has_device = true;
    server->state = SOURCE_OPEN;
    unsigned units = server->device.units;
    pthread_mutex_unlock(&server->lock);
    for (unsigned i = 0; i < units; i++)
        tell_unit(stick, i, server);
    control_tell(server, &event);
    *ret_stick = stick;
    return 0;
}

/* Running. */

static bool is_closing(struct server *server)
{
    pthread_mutex_lock(&server->lock);
    bool closing = server->is_closing;
    pthread_mutex_unlock(&server->lock);
    return closing;
}

static void close_stick(struct server *server, struct usb_stick *stick)
{
    pthread_mutex_lock(&server->lock);
    usb_stick_counts(stick, &server->stick_counts);
    server->stick = NULL;
    pthread_mutex_unlock(&server->lock);
    usb_stick_close(stick);
    serve_calls(server, NULL);
}

static void *run_device(void *data)
{
    struct server *server = data;
    struct usb_stick *stick = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = open_stick(server, &stick, &err);
    if (r != 0) {
        source_gone(server, &err);
    } else {
        while (r == 0 && !is_closing(server)) {
            r = usb_stick_run(stick, -1, &err);
            serve_calls(server, stick);
        }
        close_stick(server, stick);
        if (r != 0)
            source_gone(server, r == -ENODEV ? NULL : &err);
    }
    pthread_mutex_lock(&server->lock);
    server->has_device_thread = false;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

static int stick_open(struct server *server, struct error *err)
{
    pthread_mutex_lock(&server->lock);
    server->has_device_thread = true;
    pthread_mutex_unlock(&server->lock);
    return thread_start(run_device, server, NULL, err);
}

/* What others ask. */

static void eject_done(int result, void *data)
{
    struct source_call *call = data;
    if (result != 0)
        error_errno(call->err, -result, "let go of the medium of unit %u", call->unit);
    call_done(call, result);
}

static void run_eject(struct usb_stick *stick, struct source_call *call)
{
    int r = usb_stick_eject(stick, call->unit, eject_done, call, call->err);
    if (r != 0)
        call_done(call, r);
}

static int stick_eject(struct server *server, unsigned unit, struct error *err)
{
    struct source_call eject = {.run = run_eject, .unit = unit, .err = err};
    return call(server, &eject);
}

static void stick_hold(struct server *server, unsigned unit, bool held)
{
    if (server->stick)
        usb_stick_hold(server->stick, unit, held);
}

static void run_counts(struct usb_stick *stick, struct source_call *call)
{
    usb_stick_counts(stick, &call->counts);
    call_done(call, 0);
}

static void stick_counts(struct server *server, struct usb_stick_counts *ret_counts)
{
    struct source_call counts = {.run = run_counts};
    if (call(server, &counts) == 0) {
        *ret_counts = counts.counts;
        return;
    }
    pthread_mutex_lock(&server->lock);
    *ret_counts = server->stick_counts;
    pthread_mutex_unlock(&server->lock);
}

/* A stick that answers nothing may keep its thread for longer than is waited for. */
static void stick_close(struct server *server)
{
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += CLOSE_SECONDS;
    pthread_mutex_lock(&server->lock);
    server->is_closing = true;
    if (server->stick)
        usb_stick_wake(server->stick);
    while (server->has_device_thread &&
           pthread_cond_timedwait(&server->changed, &server->lock, &deadline) == 0)
        ;
    pthread_mutex_unlock(&server->lock);
}

const struct source_ops stick_source = {
    .open = stick_open,
    .eject = stick_eject,
    .hold = stick_hold,
    .counts = stick_counts,
    .close = stick_close,
};
