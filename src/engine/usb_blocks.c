/*
 * Whole sticks in containers (--usb-block): which is wanted where, and the way of one:
 *
 *     begin        a descriptor for its door (a socket pair, /dev/cuse, a listening socket), and
 * the request to give it out there on_given     cloche-usb serves it: the kernel's device, if there
 * is to be one on_node      its node is in the container (usb_devices_run.c); a ring has none
 *
 * and back: the node out of the container, the kernel's device disconnected, the unit taken back.
 * A stick that is given out is not mounted by cloche-usb, nor the other way round.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/socket.h>
#include <base/text.h>

#include "usb.h"
#include "usb_internal.h"

/* --- the list --------------------------------------------------------------------------------- */

static struct usb_given *find(const struct stick *stick, const char *container, const char *target)
{
    struct usb_given *given = stick->given;

    while (given && !(text_equal(given->container, container) && text_equal(given->target, target)))
        given = given->next;
    return given;
}

static void given_free(struct usb_given *given)
{
    free(given->target);
    free(given);
}

static void drop(struct stick *stick, struct usb_given *given)
{
    for (struct usb_given **at = &stick->given; *at; at = &(*at)->next) {
        if (*at != given)
            continue;
        *at = given->next;
        given_free(given);
        return;
    }
}

void usb_given_free_all(struct stick *stick)
{
    while (stick->given)
        drop(stick, stick->given);
}

static struct container *container_of(const struct stick *stick, const struct usb_given *given)
{
    struct container *container = NULL;

    if (engine_find(stick->usb->engine, given->container, &container, NULL) < 0 ||
        container->record->pid != given->pid)
        return NULL;
    return container;
}

/* --- back ------------------------------------------------------------------------------------- */

static void on_node_gone(struct usb *usb, const struct usb_pass *pass, const struct error *err)
{
    if (err && !usb->ending)
        log_failure(LOG_WARNING, err, "%s stays in container %.12s", pass->node, pass->container);
}

static struct usb_pass node_of(const struct stick *stick, const struct usb_given *given)
{
    struct usb_pass pass = {
        .type = given->via == USB_VIA_NBD ? 'b' : 'c',
        .read_only = given->read_only,
        .pid = given->pid,
        .major_number = given->major_number,
        .minor_number = given->minor_number,
    };

    snprintf(pass.container, sizeof(pass.container), "%s", given->container);
    snprintf(pass.port, sizeof(pass.port), "%.*s", USB_PORT_MAX - 1, stick->id);
    snprintf(pass.node, sizeof(pass.node), "%.*s", USB_NODE_MAX - 1, given->target);
    return pass;
}

static char *socket_path(const struct container *container, const char *target)
{
    size_t i = 0;

    while (i < container->effective->usb_blocks_count &&
           !text_equal(container->effective->usb_blocks[i]->target, target))
        i++;
    _cleanup_free_ char *folder = container_run_path(container, NULL);
    return xasprintf("%s/usb-ring.%zu/socket", folder, i);
}

/* Out of the container, and the kernel's device. */
static void take_out(struct stick *stick, struct usb_given *given)
{
    const struct container *container = container_of(stick, given);
    const struct usb_pass pass = node_of(stick, given);
    _cleanup_error_ struct error err = ERROR_INIT;

    if (given->placed && container && given->via == USB_VIA_RING) {
        _cleanup_free_ char *path = socket_path(container, given->target);
        unlink(path);
    } else if (given->placed && container && !stick->usb->ending &&
               usb_pass_run(stick->usb, &pass, false, on_node_gone, &err) < 0) {
        on_node_gone(stick->usb, &pass, &err);
    }
    if (given->connected)
        usb_nbd_disconnect(given->index);
    if (given->placed)
        stick_event(stick, "unblock", NULL, given->container);
    given->placed = given->connected = false;
}

static void ask_back(struct stick *stick, uint32_t number)
{
    struct usb_stick_unblock what = {.block = number};
    struct usb_stick_request request = {.unblock = &what};

    if (stick->link && number)
        usb_link_request(stick->link, &request, -1, NULL, NULL);
}

static void take_back(struct stick *stick, struct usb_given *given)
{
    uint32_t number = given->number;

    take_out(stick, given);
    given->number = 0;
    ask_back(stick, number);
}

void stick_take_blocks(struct stick *stick)
{
    while (stick->given) {
        take_out(stick, stick->given);
        drop(stick, stick->given);
    }
}

void stick_unblocked(struct stick *stick, const struct usb_stick_unblocked *event)
{
    for (struct usb_given *given = stick->given; given; given = given->next) {
        if (given->number != event->block)
            continue;
        take_out(stick, given);
        if (event->error)
            log_warning("USB %s: unit %u: %s", stick->id, event->unit, event->error);
        given->number = 0;
        if (text_equal(event->reason, "gone") || text_equal(event->reason, "ejected"))
            drop(stick, given);
        else /* by who had it, or for a reason that stays */
            given->failed = true;
        break;
    }
    stick_record(stick);
    stick_ask_status(stick);
}

void usb_blocks_ended(struct usb *usb, const struct container *container)
{
    for (size_t i = 0; i < usb->sticks_count; i++) {
        struct stick *stick = usb->sticks[i];
        struct usb_given *next;
        for (struct usb_given *given = stick->given; given; given = next) {
            next = given->next;
            if (!text_equal(given->container, container->id))
                continue;
            take_back(stick, given);
            drop(stick, given);
            stick_record(stick);
        }
    }
}

/* --- there ------------------------------------------------------------------------------------ */

struct giving {
    struct stick *stick;         /* a reference */
    struct container *container; /* a reference */
    char *target;
    int fd;                  /* NBD: the kernel's end; else -1 */
    char name[USB_PORT_MAX]; /* of a CUSE device */
};

static void giving_free(struct giving *giving)
{
    close_fd(giving->fd);
    container_unref(giving->container);
    stick_unref(giving->stick);
    free(giving->target);
    free(giving);
}

/* Not tried again before something changes: it stays in the way. */
static void fail(struct stick *stick, struct usb_given *given, const struct error *err)
{
    log_failure(LOG_WARNING, err, "USB %s is not given to container %.12s as %s", stick->id,
                given->container, given->target);
    stick_event(stick, "failed", error_message(err), given->container);
    given->failed = true;
    take_back(stick, given);
}

static void is_there(struct stick *stick, struct usb_given *given)
{
    given->placed = true;
    stick_record(stick);
    log_info("USB %s: unit %u is %s of container %.12s, by %s%s", stick->id, given->unit,
             given->target, given->container, usb_via_names[given->via],
             given->read_only ? ", read-only" : "");
    stick_event(stick, "block", NULL, given->container);
}

static void on_node(struct usb *usb, const struct usb_pass *pass, const struct error *err)
{
    struct stick *stick = usb_stick_by_id(usb, pass->port);
    struct usb_given *given = stick ? find(stick, pass->container, pass->node) : NULL;

    if (usb->ending)
        return;
    if (!given || given->number == 0 || given->pid != pass->pid) { /* it has ended meanwhile */
        if (!err)
            usb_pass_run(usb, pass, false, on_node_gone, NULL);
        return;
    }
    if (err)
        fail(stick, given, err);
    else
        is_there(stick, given);
}

static int make_device(const struct giving *giving, struct usb_given *given,
                       const struct usb_stick_blocked *blocked, struct error *err)
{
    _cleanup_free_ char *path = NULL;
    int r = 0;

    if (given->via == USB_VIA_NBD) {
        r = usb_nbd_connect(giving->fd, blocked, &given->index, err);
        given->connected = r == 0;
        path = xasprintf("/sys/block/nbd%u/dev", given->index);
    } else {
        path = xasprintf("/sys/class/cuse/%s/dev", giving->name);
    }
    return r < 0 ? r : usb_device_number(path, &given->major_number, &given->minor_number, err);
}

static void on_given(const struct error *err, const struct usb_stick_result *result, void *data)
{
    struct giving *giving = data;
    struct stick *stick = giving->stick;
    struct usb_given *given = find(stick, giving->container->id, giving->target);
    _cleanup_error_ struct error own = ERROR_INIT;
    const struct usb_stick_blocked *blocked = !err && result ? result->block : NULL;
    int r = 0;

    if (!given || stick->usb->ending) {
        if (blocked && !stick->usb->ending)
            ask_back(stick, blocked->block);
        giving_free(giving);
        return;
    }
    if (!blocked && !err)
        error_set(&own, -EBADMSG, "cloche-usb does not say what it has given out");
    if (blocked) {
        given->number = blocked->block;
        given->read_only = blocked->read_only;
        if (given->via != USB_VIA_RING)
            r = make_device(giving, given, blocked, &own);
    }
    stick_record(stick);
    const struct usb_pass pass = node_of(stick, given);
    if (blocked && r == 0 && given->via == USB_VIA_RING)
        is_there(stick, given);
    else if (blocked && r == 0)
        r = usb_pass_run(stick->usb, &pass, true, on_node, &own);
    if (!blocked || r < 0)
        fail(stick, given, err ? err : &own);
    giving_free(giving);
}

/* What cloche-usb gets; the other end, where there is one, in giving. */
static int open_door(struct giving *giving, enum usb_via via, struct error *err)
{
    int ends[2];

    if (via == USB_VIA_CUSE)
        return usb_cuse_open(giving->name, sizeof(giving->name), err);
    if (via == USB_VIA_RING) {
        _cleanup_free_ char *path = socket_path(giving->container, giving->target);
        unlink(path);
        return socket_listen_unix(path, SOCK_SEQPACKET | SOCK_CLOEXEC, 0666, err);
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return error_errno(err, errno, "make a pair of sockets");
    giving->fd = ends[0];
    return ends[1];
}

static void begin(struct stick *stick, struct container *container,
                  const struct api_usb_block *wanted, uint32_t unit)
{
    struct giving *giving = xnew(struct giving);
    struct usb_given *given = xnew(struct usb_given);
    _cleanup_error_ struct error err = ERROR_INIT;
    int fd = -1;

    *giving = (struct giving){.stick = stick_ref(stick),
                              .container = container_ref(container),
                              .target = xstrdup(wanted->target),
                              .fd = -1};
    snprintf(given->container, sizeof(given->container), "%s", container->id);
    given->pid = (pid_t)container->record->pid;
    given->target = xstrdup(wanted->target);
    given->unit = unit;
    given->read_only = wanted->read_only;
    given->next = stick->given;
    stick->given = given;
    int r = usb_via_choose(wanted->via, &given->via, &err);
    if (r >= 0)
        r = fd = open_door(giving, given->via, &err);
    if (r < 0) {
        fail(stick, given, &err);
        giving_free(giving);
        return;
    }
    struct usb_stick_block what = {
        .unit = unit,
        .door = (char *)(uintptr_t)usb_via_names[given->via],
        .read_only = wanted->read_only,
        .has_read_only = true,
        .name = giving->name[0] ? giving->name : NULL,
    };
    struct usb_stick_request request = {.block = &what};
    stick->locked |= !wanted->read_only;
    stick_record(stick);
    usb_link_request(stick->link, &request, fd, on_given, giving);
    close_fd(fd);
}

/* --- which ------------------------------------------------------------------------------------ */

static const struct usb_stick_unit *find_unit(const struct stick *stick,
                                              const struct api_usb_block *wanted)
{
    for (size_t i = 0; stick->status && i < stick->status->units_count; i++) {
        const struct usb_stick_unit *unit = stick->status->units[i];
        if (text_equal(unit->state, "ready") && (!wanted->has_unit || wanted->unit == unit->number))
            return unit;
    }
    return NULL;
}

static bool is_used(const struct usb *usb, const struct container *container, const char *target)
{
    for (size_t i = 0; i < usb->sticks_count; i++) {
        if (find(usb->sticks[i], container->id, target))
            return true;
    }
    return false;
}

static void settle_one(struct usb *usb, struct container *container,
                       const struct api_usb_block *wanted)
{
    if (is_used(usb, container, wanted->target))
        return;
    for (size_t i = 0; i < usb->sticks_count; i++) {
        struct stick *stick = usb->sticks[i];
        const struct usb_stick_unit *unit = find_unit(stick, wanted);
        if (stick->state != STICK_READY || stick->ending || !stick->link || !unit ||
            !stick_fits(stick, wanted->device, wanted->port))
            continue;
        begin(stick, container, wanted, unit->number);
        return;
    }
}

/* Of a container that has been started again, or an earlier daemon's. */
static void drop_stale(struct stick *stick)
{
    struct usb_given *next;

    for (struct usb_given *given = stick->given; given; given = next) {
        struct container *container = NULL;
        next = given->next;
        if (engine_find(stick->usb->engine, given->container, &container, NULL) == 0 &&
            (!usb_container_runs(container) || container->record->pid == given->pid))
            continue;
        take_back(stick, given);
        drop(stick, given);
    }
}

void usb_blocks_settle(struct usb *usb)
{
    struct engine *engine = usb->engine;

    for (size_t i = 0; i < usb->sticks_count; i++)
        drop_stale(usb->sticks[i]);
    for (size_t i = 0; i < engine->containers_count; i++) {
        struct container *container = engine->containers[i];
        for (size_t j = 0;
             usb_container_runs(container) && j < container->effective->usb_blocks_count; j++)
            settle_one(usb, container, container->effective->usb_blocks[j]);
    }
}

bool stick_is_wanted_whole(const struct stick *stick)
{
    const struct engine *engine = stick->usb->engine;

    for (size_t i = 0; i < engine->containers_count; i++) {
        const struct container *container = engine->containers[i];
        for (size_t j = 0;
             usb_container_runs(container) && j < container->effective->usb_blocks_count; j++) {
            const struct api_usb_block *wanted = container->effective->usb_blocks[j];
            if (stick_fits(stick, wanted->device, wanted->port))
                return true;
        }
    }
    return false;
}

/* --- the next daemon -------------------------------------------------------------------------- */

struct usb_settings_given **usb_blocks_record(const struct stick *stick, size_t *ret_count)
{
    size_t count = 0;

    for (const struct usb_given *given = stick->given; given; given = given->next)
        count += given->number != 0;
    struct usb_settings_given **made = xnew_array(struct usb_settings_given *, count + 1);
    *ret_count = 0;
    for (const struct usb_given *given = stick->given; given; given = given->next) {
        if (given->number == 0)
            continue;
        struct usb_settings_given *record = xnew(struct usb_settings_given);
        *record = (struct usb_settings_given){
            .number = given->number,
            .container = xstrdup(given->container),
            .pid = given->pid,
            .target = xstrdup(given->target),
            .unit = given->unit,
            .via = xstrdup(usb_via_names[given->via]),
            .index = given->index,
            .major = given->major_number,
            .minor = given->minor_number,
            .read_only = given->read_only,
        };
        made[(*ret_count)++] = record;
    }
    return made;
}

void usb_blocks_adopt(struct stick *stick, const struct usb_settings_record *record)
{
    for (size_t i = 0; i < record->blocks_count; i++) {
        const struct usb_settings_given *from = record->blocks[i];
        struct usb_given *given = xnew(struct usb_given);
        snprintf(given->container, sizeof(given->container), "%s", from->container);
        given->pid = (pid_t)from->pid;
        given->target = xstrdup(from->target);
        given->unit = from->unit;
        given->via = text_equal(from->via, "nbd")    ? USB_VIA_NBD
                     : text_equal(from->via, "cuse") ? USB_VIA_CUSE
                                                     : USB_VIA_RING;
        given->number = from->number;
        given->index = from->index;
        given->major_number = from->major;
        given->minor_number = from->minor;
        given->read_only = from->read_only;
        given->connected = given->via == USB_VIA_NBD && from->major;
        given->placed = true;
        given->next = stick->given;
        stick->given = given;
    }
}
