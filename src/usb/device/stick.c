#include "stick.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>

#include "enumerate.h"

enum { EVENTS = 8, QUIET_MS = 50, TURNS = 64 };

static const struct usb_stick_options defaults = {
    .command_ms = 30000,
    .recovery_ms = 5000,
    .patience_ms = 30000,
    .look_ms = 1000,
};

uint32_t stick_moved(const struct usb_stick *stick, const struct usb_command *command)
{
    uint32_t said = command->length - command->residue;
    return stick->residue_lies || command->moved < said ? command->moved : said;
}

/* SPC-4, annex on codes. */
enum {
    CODE_NOT_READY = 0x04,
    CODE_CHANGED = 0x28,
    CODE_RESET = 0x29,
    CODE_PARAMETERS = 0x2A,
    CODE_NO_MEDIUM = 0x3A,
    CODE_OPERATING = 0x3F,
    WANTS_START = 2,
    CAPACITY_CHANGED = 9, /* of CODE_PARAMETERS */
    OTHER_INQUIRY = 3,    /* of CODE_OPERATING: INQUIRY data have changed */
};

static enum verdict judge_attention(const struct scsi_sense *sense)
{
    switch (sense->code) {
    case CODE_CHANGED:
        return VERDICT_CHANGED;
    case CODE_RESET:
        return VERDICT_RESET;
    case CODE_PARAMETERS: /* what was known of it is wrong: it is looked at anew */
        return sense->qualifier == CAPACITY_CHANGED ? VERDICT_CHANGED : VERDICT_AGAIN;
    case CODE_OPERATING:
        return sense->qualifier == OTHER_INQUIRY ? VERDICT_CHANGED : VERDICT_AGAIN;
    default:
        return VERDICT_AGAIN;
    }
}

static enum verdict judge_sense(const struct scsi_sense *sense)
{
    switch (sense->key) {
    case SCSI_RECOVERED:
        return VERDICT_GOOD;
    case SCSI_NOT_READY:
        if (sense->code == CODE_NO_MEDIUM)
            return VERDICT_EMPTY;
        if (sense->code == CODE_NOT_READY && sense->qualifier == WANTS_START)
            return VERDICT_START;
        return VERDICT_WAIT;
    case SCSI_ILLEGAL_REQUEST:
        return VERDICT_REFUSED;
    case SCSI_UNIT_ATTENTION:
        return judge_attention(sense);
    case SCSI_DATA_PROTECT:
        return VERDICT_PROTECTED;
    case SCSI_MEDIUM_ERROR:
    case SCSI_HARDWARE_ERROR:
        return VERDICT_ERROR;
    default: /* aborted, and what has no meaning for disks */
        return VERDICT_LOST;
    }
}

static enum verdict judge(const struct usb_command *command)
{
    struct scsi_sense sense;
    if (command->outcome == USB_COMMAND_GOOD)
        return VERDICT_GOOD;
    if (command->outcome == USB_COMMAND_LATE)
        return VERDICT_LATE;
    if (command->outcome == USB_COMMAND_NO_MEMORY || command->outcome == USB_COMMAND_BUSY)
        return VERDICT_WAIT;
    if (command->outcome == USB_COMMAND_SWEPT)
        return VERDICT_AGAIN;
    if (command->outcome != USB_COMMAND_FAILED ||
        !scsi_parse_sense(command->sense, command->sense_size, &sense))
        return VERDICT_LOST;
    /* A write before this one has failed, and nobody was told. */
    return sense.deferred ? VERDICT_WRITE_LOST : judge_sense(&sense);
}

static void lose(struct usb_stick *stick)
{
    stick->gone = true;
    for (unsigned i = 0; i < stick->facts.units; i++)
        unit_lose_medium(&stick->units[i], USB_UNIT_FAILED, -ENODEV, "the stick is gone");
    for (struct disk *disk = stick->disks; disk; disk = disk->next)
        disk->gone = -ENODEV;
}

static void land(struct lane *lane)
{
    lane->flying = false;
    lane->unit->flying--;
    lane->unit->stick->flying--;
}

/* The command has ended. */
static void settle(struct lane *lane)
{
    land(lane);
    if (lane->command.outcome == USB_COMMAND_GONE)
        lose(lane->unit->stick);
    else
        unit_done(lane, judge(&lane->command), clock_ticks());
}

static void settle_parked(struct usb_stick *stick)
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
static bool send(struct lane *lane, int64_t now, bool *full)
{
    struct unit *unit = lane->unit;
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
    stick->flying++;
    int r = stick->carrier.ops->submit(stick->carrier.data, command);
    if (r == 0)
        return true;
    *full = true;
    if (r == -EBUSY || r == -EPROTONOSUPPORT) {
        land(lane);
        stick->falls_back |= r == -EPROTONOSUPPORT;
        return false;
    }
    command->outcome = USB_COMMAND_GONE;
    command_done(command);
    return false;
}

static bool send_next(struct unit *unit, int64_t now, bool *full)
{
    for (unsigned i = 0; i < LANES_MAX && !*full; i++)
        if (send(&unit->lanes[i], now, full))
            return true;
    return false;
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
        bool full = stick->falls_back;
        stick->again = false;
        for (unsigned idle = 0; idle < stick->facts.units && !full && !stick->gone &&
                                stick->flying < stick->carrier.depth;) {
            struct unit *unit = &stick->units[stick->next];
            stick->next = (stick->next + 1) % stick->facts.units;
            idle = send_next(unit, now, &full) ? 0 : idle + 1;
        }
    }
    stick->scheduling = false;
}

/* UAS has failed. */
static void fall_back(struct usb_stick *stick)
{
    if (!stick->falls_back || stick->gone || atomic_load(&stick->attended) ||
        !stick->carrier.ops->is_quiet(stick->carrier.data))
        return;
    stick->falls_back = false;
    if (carrier_fall_back(&stick->carrier) == 0)
        stick->facts.protocol = stick->carrier.ops->protocol;
    else
        lose(stick);
}

static int next_timeout(const struct usb_stick *stick, int timeout_ms)
{
    int64_t now = clock_ticks(), first = timeout_ms < 0 ? INT_MAX : timeout_ms;
    int transport = usb_transport_timeout(stick->transport);
    if (transport >= 0 && transport < first)
        first = transport;
    if (stick->falls_back && !stick->gone)
        return 0;
    for (unsigned i = 0; i < stick->facts.units && !stick->gone; i++) {
        int64_t due = unit_due(&stick->units[i]);
        if (due <= now && stick->flying > 0)
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
    settle_parked(stick);
    fall_back(stick);
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
    settle_parked(stick);
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

/* Opening and closing. */

static void set_options(struct usb_stick *stick, const struct usb_stick_options *options)
{
    static const struct usb_stick_options none;
    const struct usb_stick_options *wanted = options ? options : &none;
    stick->options = (struct usb_stick_options){
        .command_ms = wanted->command_ms ? wanted->command_ms : defaults.command_ms,
        .recovery_ms = wanted->recovery_ms ? wanted->recovery_ms : defaults.recovery_ms,
        .patience_ms = wanted->patience_ms ? wanted->patience_ms : defaults.patience_ms,
        .look_ms = wanted->look_ms ? wanted->look_ms : defaults.look_ms,
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

static void begin_unit(struct usb_stick *stick, uint8_t lun)
{
    uint8_t number = (uint8_t)stick->facts.units++;
    struct unit *unit = &stick->units[number];
    unit_init(unit, stick, number);
    unit->lun = lun;
    unit->answer = xmalloc(ANSWER_SIZE);
}

static int begin(struct usb_stick *stick, struct error *err)
{
    struct usb_found found;
    int r = watch(stick, err);
    if (r == 0)
        r = usb_enumerate(stick->transport, &stick->facts, &found, err);
    if (r != 0)
        return r;
    uint16_t units;
    r = carrier_open(&stick->carrier, stick->transport, &found, stick->options.recovery_ms, &units);
    if (r != 0)
        return error_set(err, r,
                         r == -ENODEV ? "the stick is gone"
                                      : "the device answers none of its protocols");
    stick->facts.protocol = stick->carrier.ops->protocol;
    for (uint8_t lun = 0; lun < UNITS_MAX; lun++)
        if (units & 1U << lun)
            begin_unit(stick, lun);
    return 0;
}

static void free_stick(struct usb_stick *stick)
{
    while (stick->disks)
        disk_free(stick->disks);
    carrier_finish(&stick->carrier);
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

void usb_stick_close(struct usb_stick *stick)
{
    if (!stick)
        return;
    pthread_mutex_lock(&stick->lock);
    stick->changed = NULL;
    bool gone = stick->gone;
    stick->gone = true; /* nothing new */
    stick_end_attendance(stick);
    settle_parked(stick);
    const struct carrier *carrier = &stick->carrier;
    while (stick->flying > 0 || !carrier->ops->is_quiet(carrier->data)) {
        carrier->ops->cancel(carrier->data);
        stick->transport->ops->collect(stick->transport, 100);
        usb_transport_dispatch(stick->transport);
    }
    lose(stick);
    pthread_mutex_lock(&stick->returning); /* whoever gives a disk back has done so */
    pthread_mutex_unlock(&stick->returning);
    for (struct disk *disk = stick->disks; disk; disk = disk->next)
        disk_take(disk);
    if (!gone)
        usb_release(stick->transport, stick->facts.interface);
    pthread_mutex_unlock(&stick->lock);
    free_stick(stick);
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
    struct bot_counts counts = carrier_counts(&stick->carrier);
    *ret_counts = (struct usb_stick_counts){
        .commands = counts.commands,
        .failed = counts.failed,
        .recoveries = counts.recoveries,
        .port_resets = counts.port_resets,
    };
    pthread_mutex_unlock((pthread_mutex_t *)&stick->lock);
}

struct block_device *usb_stick_disk(struct usb_stick *stick, unsigned unit)
{
    pthread_mutex_lock(&stick->lock);
    struct disk *disk = stick->units[unit].disk;
    if (disk)
        disk->given = true;
    pthread_mutex_unlock(&stick->lock);
    return disk ? &disk->device : NULL;
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
