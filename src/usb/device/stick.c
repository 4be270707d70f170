#include "stick.h"

#include <errno.h>
#include <limits.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <base/clock.h>

enum { EVENTS = 8, QUIET_MS = 50, TURNS = 64, GET_STATUS_MS = 1000 };

void stick_lose(struct usb_stick *stick)
{
    stick->gone = true;
    for (unsigned i = 0; i < stick->facts.units; i++)
        unit_lose_medium(&stick->units[i], USB_UNIT_FAILED, -ENODEV, "the stick is gone");
    for (struct disk *disk = stick->disks; disk; disk = disk->next)
        disk->gone = -ENODEV;
}

/* One of several interfaces answers nothing any more, or all have gone. */
static void lose_channel(struct channel *channel)
{
    struct usb_stick *stick = channel->stick;
    struct usb_setup get_status = {0x80, 0, 0, 0, 2};
    uint8_t status[2];
    unsigned left = 0;
    if (channel->gone || stick->gone)
        return;
    channel->gone = true;
    for (unsigned i = 0; i < stick->facts.interface_count; i++)
        left += !stick->channels[i].gone;
    stick->transport->shared = left > 1;
    if (left == 0 || usb_control(stick->transport, &get_status, status, GET_STATUS_MS) == -ENODEV) {
        stick_lose(stick);
        return;
    }
    for (unsigned i = 0; i < stick->facts.units; i++)
        if (stick->units[i].channel == channel)
            unit_lose_medium(&stick->units[i], USB_UNIT_FAILED, -ENODEV,
                             "its interface answers nothing any more");
}

static void land(struct lane *lane)
{
    lane->flying = false;
    lane->unit->flying--;
    lane->unit->channel->flying--;
    lane->unit->stick->flying--;
}

/* The command has ended. */
static void settle(struct lane *lane)
{
    land(lane);
    if (lane->command.outcome == USB_COMMAND_GONE) {
        lose_channel(lane->unit->channel);
        if (lane->request) /* another one was told first */
            requests_doom(lane);
    } else {
        unit_done(lane, judge(&lane->command), clock_ticks());
    }
}

void stick_settle_parked(struct usb_stick *stick)
{
    for (unsigned i = 0; i < UNITS_MAX && stick->parked > 0; i++) {
        for (unsigned j = 0; j < LANES_MAX; j++) {
            struct lane *lane = &stick->units[i].lanes[j];
            if (!lane->parked)
                continue;
            lane->parked = false;
            stick->parked--;
            settle(lane);
        }
    }
}

/* Nothing but the answer to a request follows from it: no step, nobody who is told of a change. */
static bool is_plain(const struct lane *lane)
{
    bool plain = lane->work == WORK_REQUEST || lane->work == WORK_LOOK;
    return plain && lane->command.outcome == USB_COMMAND_GOOD;
}

static void command_done(struct usb_command *command)
{
    struct lane *lane = command->owner;
    struct usb_stick *stick = lane->unit->stick;
    if (stick->attendant_has_it && !is_plain(lane)) {
        lane->parked = true;
        stick->parked++;
        return;
    }
    settle(lane);
    stick_go_on(stick);
}

static void take_submitted(struct usb_stick *stick)
{
    for (struct disk *next, *disk = stick->disks; disk; disk = next) {
        next = disk->next;
        disk_take(disk);
    }
}

bool stick_has_submitted(const struct usb_stick *stick)
{
    for (const struct disk *disk = stick->disks; disk; disk = disk->next)
        if (!block_queue_is_empty(&disk->queue))
            return true;
    return false;
}

/* False: there is nothing to be sent by it, or not now. */
static bool send(struct lane *lane, int64_t now)
{
    struct unit *unit = lane->unit;
    struct channel *channel = unit->channel;
    struct usb_stick *stick = unit->stick;
    struct usb_command *command = &lane->command;
    if (lane->flying)
        return false;
    command->unit = unit->lun;
    command->timeout_ms = stick->options.command_ms;
    command->done = command_done;
    lane->work = unit_word(lane, now);
    if (lane->work == WORK_NONE)
        return false;
    lane->flying = true;
    unit->flying++;
    channel->flying++;
    stick->flying++;
    int r = channel->carrier.ops->submit(channel->carrier.data, command);
    if (r == 0)
        return true;
    channel->is_full = true;
    if (r == -EBUSY || r == -EPROTONOSUPPORT) {
        land(lane);
        channel->falls_back |= r == -EPROTONOSUPPORT;
        return false;
    }
    command->outcome = USB_COMMAND_GONE;
    command_done(command);
    return false;
}

static bool send_next(struct unit *unit, int64_t now)
{
    const struct channel *channel = unit->channel;
    for (unsigned i = 0; i < LANES_MAX && !channel->is_full && !channel->gone &&
                         channel->flying < channel->carrier.depth;
         i++)
        if (send(&unit->lanes[i], now))
            return true;
    return false;
}

bool stick_falls_back(const struct usb_stick *stick)
{
    bool any = false;
    for (unsigned i = 0; i < stick->facts.interface_count; i++)
        any |= stick->channels[i].falls_back;
    return any;
}

/* The next commands, of the units in turn. */
void stick_go_on(struct usb_stick *stick)
{
    int64_t now = clock_ticks();
    take_submitted(stick);
    stick->again = true;
    if (stick->scheduling)
        return;
    stick->scheduling = true;
    while (stick->again) {
        stick->again = false;
        for (unsigned i = 0; i < stick->facts.interface_count; i++)
            stick->channels[i].is_full = stick->channels[i].falls_back;
        for (unsigned idle = 0; idle < stick->facts.units && !stick->gone;) {
            struct unit *unit = &stick->units[stick->next];
            stick->next = (stick->next + 1) % stick->facts.units;
            idle = send_next(unit, now) ? 0 : idle + 1;
        }
    }
    stick->scheduling = false;
}

/* UAS has failed. */
static void fall_back(struct channel *channel)
{
    struct usb_stick *stick = channel->stick;
    if (!channel->falls_back || channel->gone || stick->gone || atomic_load(&stick->attended) ||
        !channel->carrier.ops->is_quiet(channel->carrier.data))
        return;
    channel->falls_back = false;
    if (carrier_fall_back(&channel->carrier) == 0)
        channel->facts->protocol = channel->carrier.ops->protocol;
    else
        lose_channel(channel);
}

static int next_timeout(const struct usb_stick *stick, int timeout_ms)
{
    int64_t now = clock_ticks(), first = timeout_ms < 0 ? INT_MAX : timeout_ms;
    int transport = usb_transport_timeout(stick->transport);
    if (transport >= 0 && transport < first)
        first = transport;
    if (stick_falls_back(stick) && !stick->gone)
        return 0;
    for (unsigned i = 0; i < stick->facts.units && !stick->gone; i++) {
        const struct unit *unit = &stick->units[i];
        int64_t due = unit_due(unit);
        if (due <= now && unit->channel->flying > 0)
            continue; /* it is looked at when that has ended */
        if (due >= 0 && due - now < first)
            first = due > now ? due - now : 0;
    }
    return timeout_ms < 0 && first == INT_MAX ? -1 : (int)first;
}

/* Disks that were given back. */
static void free_returned(struct usb_stick *stick)
{
    pthread_mutex_lock(&stick->returning);
    for (struct disk *next, *disk = stick->disks; disk; disk = next) {
        next = disk->next;
        if (!disk->returned)
            continue;
        disk->returned = disk->given = false;
        if (disk->unit->disk != disk)
            disk_free(disk);
    }
    pthread_mutex_unlock(&stick->returning);
}

static void look_at(struct usb_stick *stick, void *source)
{
    uint64_t count;
    if (source == stick) {
        if (read(stick->wake, &count, sizeof(count)) < 0)
            return;
        free_returned(stick);
        return;
    }
    for (struct disk *disk = stick->disks; disk; disk = disk->next) {
        if (disk != source)
            continue;
        block_queue_wait(&disk->queue);
        return;
    }
}

/* Nobody can ask for anything any more. */
static bool is_over(const struct usb_stick *stick)
{
    for (const struct disk *disk = stick->disks; disk; disk = disk->next)
        if (disk->given)
            return false;
    return stick->gone && stick->flying == 0;
}

/* Where an attendant is, or was a moment ago, the transport is its own to wait for. */
static bool is_quiet(struct usb_stick *stick)
{
    bool lately = stick->attends != stick->attends_seen;
    stick->attends_seen = stick->attends;
    return atomic_load(&stick->attended) || (lately && stick->flying == 0);
}

/* Gives the stick away, sleeps, has it again. Events, or -errno. */
static int sleep_until(struct usb_stick *stick, struct epoll_event *events, int timeout_ms)
{
    bool quiet = is_quiet(stick);
    int timeout = next_timeout(stick, timeout_ms);
    if (quiet && (timeout < 0 || timeout > QUIET_MS))
        timeout = QUIET_MS;
    atomic_store(&stick->awake, false);
    if (stick_has_submitted(stick))
        timeout = 0;
    stick->sleeps_long = !quiet && (timeout < 0 || timeout > QUIET_MS);
    pthread_mutex_unlock(&stick->lock);
    int count = epoll_wait(quiet ? stick->quiet : stick->epoll, events, EVENTS, timeout);
    int r = count < 0 ? -errno : count;
    pthread_mutex_lock(&stick->lock);
    atomic_store(&stick->awake, true);
    return r;
}

/* What the transport has; the attendant's is left to it. */
static void serve_transport(struct usb_stick *stick, bool is_ready)
{
    struct usb_transport *transport = stick->transport;
    if (atomic_load(&stick->attended)) {
        if (transport->ops->expire)
            transport->ops->expire(transport);
    } else if (is_ready || stick->flying > 0 || usb_transport_timeout(transport) == 0) {
        /* What is submitted from within has often ended already. */
        for (int i = 0; i < TURNS && usb_transport_dispatch(transport); i++)
            ;
    }
}

/* With the lock. */
static int run(struct usb_stick *stick, int timeout_ms, struct error *err)
{
    struct epoll_event events[EVENTS];
    bool transport = false;
    stick_settle_parked(stick);
    for (unsigned i = 0; i < stick->facts.interface_count; i++)
        fall_back(&stick->channels[i]);
    stick_go_on(stick);
    if (is_over(stick))
        return error_set(err, -ENODEV, "the stick is gone");
    int count = sleep_until(stick, events, timeout_ms);
    if (count < 0 && count != -EINTR)
        return error_errno(err, -count, "wait for the stick");
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == stick->transport)
            transport = true;
        else
            look_at(stick, events[i].data.ptr);
    }
    stick_settle_parked(stick);
    stick_go_on(stick);
    serve_transport(stick, transport);
    stick_go_on(stick);
    return is_over(stick) ? error_set(err, -ENODEV, "the stick is gone") : 0;
}

int usb_stick_run(struct usb_stick *stick, int timeout_ms, struct error *err)
{
    pthread_mutex_lock(&stick->lock);
    atomic_store(&stick->awake, true);
    int r = run(stick, timeout_ms, err);
    pthread_mutex_unlock(&stick->lock);
    return r;
}

void usb_stick_wake(struct usb_stick *stick)
{
    int saved = errno;
    uint64_t one = 1;
    while (write(stick->wake, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
    errno = saved;
}

/* What it is. */

const struct usb_stick_facts *usb_stick_facts(const struct usb_stick *stick)
{
    return &stick->facts;
}

void usb_stick_unit(const struct usb_stick *stick, unsigned unit, struct usb_unit_facts *ret_facts)
{
    pthread_mutex_lock((pthread_mutex_t *)&stick->lock);
    *ret_facts = stick->units[unit].facts;
    pthread_mutex_unlock((pthread_mutex_t *)&stick->lock);
}

void usb_stick_counts(const struct usb_stick *stick, struct usb_stick_counts *ret_counts)
{
    pthread_mutex_lock((pthread_mutex_t *)&stick->lock);
    *ret_counts = (struct usb_stick_counts){0};
    for (unsigned i = 0; i < stick->facts.interface_count; i++) {
        struct bot_counts counts = carrier_counts(&stick->channels[i].carrier);
        ret_counts->commands += counts.commands;
        ret_counts->failed += counts.failed;
        ret_counts->recoveries += counts.recoveries;
        ret_counts->port_resets += counts.port_resets;
    }
    pthread_mutex_unlock((pthread_mutex_t *)&stick->lock);
}

struct block_device *usb_stick_disk(struct usb_stick *stick, unsigned unit)
{
    pthread_mutex_lock(&stick->lock);
    struct disk *disk = stick->units[unit].disk;
    pthread_mutex_lock(&stick->returning);
    if (disk) {
        disk->given = true;
        disk->returned = false; /* it is had again before that was seen */
    }
    pthread_mutex_unlock(&stick->returning);
    pthread_mutex_unlock(&stick->lock);
    return disk ? &disk->device : NULL;
}

void usb_stick_hold(struct usb_stick *stick, unsigned unit, bool held)
{
    atomic_store(&stick->units[unit].held, held);
    usb_stick_wake(stick);
}

static int begin_eject(struct unit *ejected, void (*done)(int result, void *data), void *data,
                       struct error *err)
{
    unsigned unit = ejected->number;
    if (!ejected->disk)
        return error_set(err, -ENOMEDIUM, "unit %u has no medium to be ejected", unit);
    if (ejected->eject)
        return error_set(err, -EBUSY, "unit %u is being ejected", unit);
    ejected->eject = EJECT_FLUSH;
    ejected->eject_result = 0;
    ejected->eject_done = done;
    ejected->eject_data = data;
    return 0;
}

int usb_stick_eject(struct usb_stick *stick, unsigned unit, void (*done)(int result, void *data),
                    void *data, struct error *err)
{
    pthread_mutex_lock(&stick->lock);
    int r = begin_eject(&stick->units[unit], done, data, err);
    pthread_mutex_unlock(&stick->lock);
    return r;
}
