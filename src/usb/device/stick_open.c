/* The beginning and the end of a stick. */
#include "stick.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/log.h>

#include "enumerate.h"

enum { UNLOCK_MS = 1000 };

static const struct usb_stick_options defaults = {
    .command_ms = 30000,
    .recovery_ms = 5000,
    .patience_ms = 30000,
    .look_ms = 1000,
};

static void set_options(struct usb_stick *stick, const struct usb_stick_options *options)
{
    static const struct usb_stick_options none;
    const struct usb_stick_options *wanted = options ? options : &none;
    stick->options = (struct usb_stick_options){
        .command_ms = wanted->command_ms ? wanted->command_ms : defaults.command_ms,
        .recovery_ms = wanted->recovery_ms ? wanted->recovery_ms : defaults.recovery_ms,
        .patience_ms = wanted->patience_ms ? wanted->patience_ms : defaults.patience_ms,
        .look_ms = wanted->look_ms ? wanted->look_ms : defaults.look_ms,
        .locked_in = wanted->locked_in,
    };
}

static int watch(struct usb_stick *stick, struct error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = stick};
    stick->epoll = epoll_create1(EPOLL_CLOEXEC);
    stick->quiet = epoll_create1(EPOLL_CLOEXEC);
    stick->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stick->epoll < 0 || stick->quiet < 0 || stick->wake < 0 ||
        epoll_ctl(stick->epoll, EPOLL_CTL_ADD, stick->wake, &event) != 0 ||
        epoll_ctl(stick->quiet, EPOLL_CTL_ADD, stick->wake, &event) != 0)
        return error_errno(err, errno, "make the stick's loop");
    return usb_transport_watch(stick->transport, stick->epoll, stick->transport, err);
}

static void begin_unit(struct channel *channel, uint8_t lun)
{
    struct usb_stick *stick = channel->stick;
    if (stick->facts.units == UNITS_MAX)
        return;
    uint8_t number = (uint8_t)stick->facts.units++;
    unit_init(&stick->units[number], channel, number, lun);
    channel->facts->units++;
}

static int begin_channel(struct usb_stick *stick, const struct usb_found *found, struct error *err)
{
    struct channel *channel = &stick->channels[stick->facts.interface_count];
    struct usb_interface_facts *facts = &stick->facts.interfaces[stick->facts.interface_count];
    uint16_t units;
    int r = carrier_open(&channel->carrier, stick->transport, found, stick->options.recovery_ms,
                         &units);
    if (r != 0)
        return error_set(err, r,
                         r == -ENODEV ? "the stick is gone"
                                      : "the device answers none of its protocols");
    stick->facts.interface_count++;
    channel->stick = stick;
    channel->facts = facts;
    *facts = (struct usb_interface_facts){
        .number = found->interface,
        .protocol = channel->carrier.ops->protocol,
        .first_unit = stick->facts.units,
    };
    for (uint8_t lun = 0; lun < UNITS_MAX; lun++)
        if (units & 1U << lun)
            begin_unit(channel, lun);
    return 0;
}

/* One that answers nothing does not keep the others from being served. */
static int begin_channels(struct usb_stick *stick, const struct usb_found_all *found,
                          struct error *err)
{
    int r = 0;
    stick->transport->shared = found->count > 1;
    for (unsigned i = 0; i < found->count && r != -ENODEV; i++) {
        r = begin_channel(stick, &found->interfaces[i], err);
        if (r != 0)
            carrier_finish(&stick->channels[stick->facts.interface_count].carrier);
        if (r != 0 && r != -ENODEV && found->count > 1) {
            log_failure(LOG_WARNING, err, "interface %u", found->interfaces[i].interface);
            error_finish(err);
        }
    }
    if (r != 0 && r != -ENODEV && found->count > 1 && stick->facts.units == 0)
        error_set(err, r, "none of its interfaces answers");
    if (r != -ENODEV && stick->facts.units > 0)
        r = 0;
    stick->transport->shared = stick->facts.interface_count > 1;
    return r;
}

static int begin(struct usb_stick *stick, struct error *err)
{
    struct usb_found_all found;
    int r = watch(stick, err);
    if (r == 0)
        r = usb_enumerate(stick->transport, &stick->facts, &found, err);
    return r == 0 ? begin_channels(stick, &found, err) : r;
}

static void free_stick(struct usb_stick *stick)
{
    while (stick->disks)
        disk_free(stick->disks);
    for (unsigned i = 0; i < stick->facts.interface_count; i++)
        carrier_finish(&stick->channels[i].carrier);
    usb_transport_destroy(stick->transport);
    if (stick->epoll >= 0)
        close(stick->epoll);
    if (stick->quiet >= 0)
        close(stick->quiet);
    if (stick->wake >= 0)
        close(stick->wake);
    pthread_mutex_destroy(&stick->returning);
    pthread_mutex_destroy(&stick->lock);
    pthread_cond_destroy(&stick->left);
    for (unsigned i = 0; i < UNITS_MAX; i++)
        free(stick->units[i].answer);
    free(stick);
}

static void make_lock(struct usb_stick *stick)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&stick->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    pthread_cond_init(&stick->left, NULL);
    pthread_mutex_init(&stick->returning, NULL);
}

int usb_stick_open(struct usb_transport *transport, const struct usb_stick_options *options,
                   usb_unit_changed changed, void *data, struct usb_stick **ret_stick,
                   struct error *err)
{
    struct usb_stick *stick = xnew(struct usb_stick);
    stick->transport = transport;
    stick->changed = changed;
    stick->data = data;
    stick->epoll = stick->quiet = stick->wake = -1;
    make_lock(stick);
    set_options(stick, options);
    int r = begin(stick, err);
    if (r != 0) {
        free_stick(stick);
        return r;
    }
    *ret_stick = stick;
    return 0;
}

static bool is_quiet(const struct channel *channel)
{
    const struct carrier *carrier = &channel->carrier;
    return channel->flying == 0 && (!carrier->ops || carrier->ops->is_quiet(carrier->data));
}

static void quieten(struct usb_stick *stick)
{
    for (unsigned i = 0; i < stick->facts.interface_count; i++) {
        const struct channel *channel = &stick->channels[i];
        while (!is_quiet(channel)) {
            channel->carrier.ops->cancel(channel->carrier.data);
            stick->transport->ops->collect(stick->transport, 100);
            usb_transport_dispatch(stick->transport);
        }
    }
}

/* What was locked in can be taken out again, if the stick hears that in time. */
static void unlock(struct usb_stick *stick)
{
    int64_t end = clock_ticks() + UNLOCK_MS;
    bool locked = true;
    for (unsigned i = 0; i < stick->facts.units; i++)
        atomic_store(&stick->units[i].held, false);
    while (locked && !stick->gone && clock_ticks() < end) {
        locked = false;
        stick_go_on(stick);
        for (unsigned i = 0; i < stick->facts.units; i++)
            locked |= unit_is_locked(&stick->units[i]);
        if (locked && !usb_transport_dispatch(stick->transport))
            stick->transport->ops->collect(stick->transport, UNLOCK_MS / 10);
    }
}

void usb_stick_close(struct usb_stick *stick)
{
    if (!stick)
        return;
    pthread_mutex_lock(&stick->lock);
    stick->changed = NULL;
    bool gone = stick->gone;
    stick->gone = true; /* nothing new */
    stick_end_attendance(stick);
    stick_settle_parked(stick);
    stick->gone = gone; /* nobody else comes in between */
    unlock(stick);
    gone = stick->gone;
    stick->gone = true;
    quieten(stick);
    stick_lose(stick);
    pthread_mutex_lock(&stick->returning); /* whoever gives a disk back has done so */
    pthread_mutex_unlock(&stick->returning);
    for (struct disk *disk = stick->disks; disk; disk = disk->next)
        disk_take(disk);
    for (unsigned i = 0; i < stick->facts.interface_count && !gone; i++)
        usb_release(stick->transport, stick->facts.interfaces[i].number);
    pthread_mutex_unlock(&stick->lock);
    free_stick(stick);
}
