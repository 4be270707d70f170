/*
 * Devices themselves in containers (--device-usb): who is to have which, and the way there and
 * back. One change of a container at a time; when it is done, all is looked at again.
 *
 *     usb_devices_settle  compares what is plugged in with what containers ask for
 *     add, take_back      a child makes or removes the node (usb_devices_run.c)
 *     on_added, on_taken  it has
 *
 * What a container has is written down before it gets it and forgotten after it has lost it: the
 * next daemon takes back what has gone meanwhile. A device is not passed while cloche-usb has it,
 * nor is one served that is passed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>

#include "events.h"
#include "usb.h"
#include "usb_internal.h"

/* --- the list --------------------------------------------------------------------------------- */

bool usb_pass_is_of(const struct usb_pass *pass, const struct stick *stick)
{
    return !stick->url && text_equal(pass->port, stick->id) && pass->bus == stick->identity.bus &&
           pass->device == stick->identity.device;
}

const struct usb_pass *usb_devices_holder(const struct stick *stick)
{
    for (const struct usb_pass *pass = stick->usb->passes; pass; pass = pass->next) {
        if (usb_pass_is_of(pass, stick) && pass->state <= PASS_REMOVING)
            return pass;
    }
    return NULL;
}

static void drop(struct usb *usb, struct usb_pass *pass)
{
    for (struct usb_pass **at = &usb->passes; *at; at = &(*at)->next) {
        if (*at != pass)
            continue;
        *at = pass->next;
        free(pass);
        return;
    }
}

void usb_devices_free(struct usb *usb)
{
    while (usb->passes)
        drop(usb, usb->passes);
}

static bool is_container(const struct usb_pass *pass, const struct container *container)
{
    return text_equal(pass->container, container->id);
}

static struct usb_pass *find(const struct usb *usb, const struct container *container,
                             const struct stick *stick)
{
    struct usb_pass *pass = usb->passes;

    while (pass && !(is_container(pass, container) && usb_pass_is_of(pass, stick)))
        pass = pass->next;
    return pass;
}

/* That of which a change has ended; NULL: the container has ended meanwhile. */
static struct usb_pass *find_again(const struct usb *usb, const struct usb_pass *copy)
{
    struct usb_pass *pass = usb->passes;

    while (pass && !(text_equal(pass->container, copy->container) && pass->pid == copy->pid &&
                     text_equal(pass->port, copy->port) && pass->bus == copy->bus &&
                     pass->device == copy->device))
        pass = pass->next;
    return pass;
}

static void record(struct usb *usb, const char *id)
{
    struct container *container;

    if (engine_find(usb->engine, id, &container, NULL) == 0)
        usb_passes_record(usb, container);
}

static void tell(struct usb *usb, const struct usb_pass *pass, const char *action, const char *why)
{
    _cleanup_free_ char *whole = xasprintf("device-%s", action);
    const char *node = pass->node;

    event_usb(usb->engine, whole, pass->port,
              (struct event_attribute[]){
                  {"container", pass->container}, {"node", node}, {"error", why}, {NULL, NULL}});
    if (why)
        log_warning("USB %s is not passed to container %.12s: %s", pass->port, pass->container,
                    why);
    else
        log_info("USB %s: %s %s container %.12s", pass->port, node,
                 text_equal(action, "add") ? "is in" : "is taken from", pass->container);
}

/* --- there and back --------------------------------------------------------------------------- */

static void on_added(struct usb *usb, const struct usb_pass *copy, const struct error *err)
{
    struct usb_pass *pass = find_again(usb, copy);

    if (!pass || usb->ending)
        return;
    pass->state = err ? PASS_FAILED : PASS_THERE;
    tell(usb, pass, err ? "failed" : "add", err ? error_message(err) : NULL);
    if (err)
        record(usb, pass->container);
    usb_devices_settle(usb);
}

/* What could not be taken back is tried again with whatever happens next. */
static void on_taken(struct usb *usb, const struct usb_pass *copy, const struct error *err)
{
    struct usb_pass *pass = find_again(usb, copy);

    if (!pass || usb->ending)
        return;
    if (err) {
        pass->state = PASS_THERE;
        log_failure(LOG_ERROR, err, "USB %s cannot be taken from container %.12s", pass->port,
                    pass->container);
        return;
    }
    tell(usb, pass, "remove", NULL);
    drop(usb, pass);
    record(usb, copy->container);
    stick_settle_all(usb); /* cloche-usb may have it now */
}

static void add(struct usb *usb, struct usb_pass *pass, const struct container *container)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    pass->state = PASS_ADDING;
    usb_passes_record(usb, container);
    if (usb_pass_run(usb, pass, true, on_added, &err) >= 0)
        return;
    pass->state = PASS_FAILED;
    usb_passes_record(usb, container);
    tell(usb, pass, "failed", error_message(&err));
}

static void take_back(struct usb *usb, struct usb_pass *pass)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    pass->state = PASS_REMOVING;
    if (usb_pass_run(usb, pass, false, on_taken, &err) >= 0)
        return;
    pass->state = PASS_THERE;
    log_failure(LOG_ERROR, &err, "USB %s cannot be taken from container %.12s", pass->port,
                pass->container);
}

/* --- who may have what ------------------------------------------------------------------------ */

static bool is_wanted(const struct container *container, const struct stick *stick)
{
    const struct api_container_spec *spec = container->effective;

    if (stick->url || !stick->identified || !stick->identity.configuration ||
        !stick->identity.major_number)
        return false;
    for (size_t i = 0; i < spec->usb_devices_count; i++) {
        if (usb_device_fits(spec->usb_devices[i], &stick->identity))
            return true;
    }
    return false;
}

/* NULL: it may be passed. */
static const char *why_not(const struct stick *stick)
{
    if (stick->identity.hub)
        return "it is a hub: what is behind it goes through it";
    if (stick->state == STICK_DENIED)
        return "the policy denies it";
    if (stick->pid || stick->starting ||
        (stick->state != STICK_KERNEL && stick->state != STICK_IDLE))
        return "cloche-usb serves it, or has until it is plugged in again";
    if (stick->state == STICK_IDLE && stick->usb->exclusive)
        return "cloche-usb is to serve it (usb.exclusive); a rule \"kernel\" would leave it";
    return NULL;
}

static const struct stick *stick_of(const struct usb *usb, const struct usb_pass *pass)
{
    for (size_t i = 0; i < usb->sticks_count; i++) {
        if (usb_pass_is_of(pass, usb->sticks[i]))
            return usb->sticks[i];
    }
    return NULL;
}

/* Those that are not plugged in any more, or may not be passed any more. true: one goes, the rest
 * has to wait. */
static bool take_out(struct usb *usb, const struct container *container)
{
    struct usb_pass *next;

    for (struct usb_pass *pass = usb->passes; pass; pass = next) {
        next = pass->next;
        if (!is_container(pass, container))
            continue;
        const struct stick *stick = stick_of(usb, pass);
        if (pass->state == PASS_ADDING || pass->state == PASS_REMOVING)
            return true;
        if (pass->state == PASS_THERE && (!stick || why_not(stick))) {
            take_back(usb, pass);
            return pass->state == PASS_REMOVING;
        }
        if (pass->state != PASS_THERE && !stick)
            drop(usb, pass);
    }
    return false;
}

static struct usb_pass *make(struct usb *usb, const struct container *container,
                             const struct stick *stick)
{
    struct usb_pass *pass = xnew(struct usb_pass);

    *pass = (struct usb_pass){
        .next = usb->passes,
        .type = 'c',
        .pid = (pid_t)container->record->pid,
        .bus = stick->identity.bus,
        .device = stick->identity.device,
        .major_number = stick->identity.major_number,
        .minor_number = stick->identity.minor_number,
        .state = PASS_REFUSED,
    };
    snprintf(pass->container, sizeof(pass->container), "%s", container->id);
    snprintf(pass->port, sizeof(pass->port), "%s", stick->identity.port);
    snprintf(pass->node, sizeof(pass->node), "/dev/bus/usb/%03u/%03u", pass->bus, pass->device);
    usb->passes = pass;
    return pass;
}

static void put_in(struct usb *usb, const struct container *container)
{
    for (size_t i = 0; i < usb->sticks_count; i++) {
        const struct stick *stick = usb->sticks[i];
        struct usb_pass *pass = find(usb, container, stick);
        if (!is_wanted(container, stick) || (pass && pass->state != PASS_REFUSED))
            continue;
        const char *why = why_not(stick);
        if (!why) {
            add(usb, pass ? pass : make(usb, container, stick), container);
            return;
        }
        if (!pass)
            tell(usb, make(usb, container, stick), "refused", why);
    }
}

/* Of a container that has been started again. */
static void drop_stale(struct usb *usb, const struct container *container)
{
    struct usb_pass *next;

    for (struct usb_pass *pass = usb->passes; pass; pass = next) {
        next = pass->next;
        if (is_container(pass, container) && pass->pid != container->record->pid)
            drop(usb, pass);
    }
}

static bool has_any(const struct container *container)
{
    return usb_container_runs(container) && container->effective->usb_devices_count;
}

static void load_all(struct usb *usb)
{
    struct engine *engine = usb->engine;

    for (size_t i = 0; !usb->passes_loaded && i < engine->containers_count; i++) {
        if (has_any(engine->containers[i]))
            usb_passes_load(usb, engine->containers[i]);
    }
    usb->passes_loaded = true;
}

void usb_devices_settle(struct usb *usb)
{
    struct engine *engine = usb->engine;

    if (usb->ending || engine->adopting || !usb->looked)
        return;
    load_all(usb);
    for (size_t i = 0; i < engine->containers_count; i++) {
        const struct container *container = engine->containers[i];
        if (!has_any(container))
            continue;
        drop_stale(usb, container);
        if (!take_out(usb, container))
            put_in(usb, container);
    }
}

void usb_devices_ended(struct usb *usb, const struct container *container)
{
    struct usb_pass *next;
    bool any = false;

    for (struct usb_pass *pass = usb->passes; pass; pass = next) {
        next = pass->next;
        if (!is_container(pass, container))
            continue;
        if (pass->state == PASS_THERE)
            tell(usb, pass, "remove", NULL);
        drop(usb, pass);
        any = true;
    }
    if (any && !usb->ending && !usb->engine->ending)
        stick_settle_all(usb); /* cloche-usb may have them now */
}

/* --- the specification ------------------------------------------------------------------------ */

static bool wants_nodes(const struct api_container_spec *spec)
{
    for (size_t i = 0; i < spec->usb_blocks_count; i++) {
        if (!text_equal(spec->usb_blocks[i]->via, "ring"))
            return true;
    }
    return false;
}

int usb_check_root(const struct engine *engine, const char *what, struct error *err)
{
    if (!engine->rootless)
        return 0;
    error_set(err, -EOPNOTSUPP,
              "%s: that needs the machine's root: an engine of an ordinary user has neither USB "
              "devices nor a network of its own to reach remote ones",
              what);
    return error_hint(err, "ask the engine of the machine");
}

int usb_spec_check_engine(const struct engine *engine, const struct api_container_spec *spec,
                          struct error *err)
{
    int r = spec->usb_storage_count ? usb_check_root(engine, "--usb-storage", err) : 0;

    if (r == 0 && spec->usb_devices_count)
        r = usb_check_root(engine, "--device-usb", err);
    if (r == 0 && spec->usb_blocks_count)
        r = usb_check_root(engine, "--usb-block", err);
    if (r < 0 || (!spec->usb_devices_count && !wants_nodes(spec)))
        return r;
    if (spec->usb_devices_count && !engine->usb->local) {
        error_set(err, -EOPNOTSUPP,
                  "--device-usb: this instance does not look at the machine's USB devices");
        return error_hint(err, "it does with a section usb in its cloched.conf(5)");
    }
    return engine_need_cgroups(
        engine, spec->usb_devices_count ? "devices (--device-usb)" : "devices (--usb-block)", err);
}
