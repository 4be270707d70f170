/*
 * One USB device: what it is by the policy's rules and by who wants it, and what its process says.
 *
 *     stick_settle        judged; somebody wants it: stick_process_start() (usb_process.c)
 *     on_event, on_status its process tells of units and volumes
 *     usb_mounts_settle   its volumes into containers (usb_mounts.c)
 *     stick_let_go        out of them, then the process ends (usb_ending.c)
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>

#include "errand.h"
#include "events.h"
#include "usb_internal.h"
#include "usb_sysfs.h"
#include "usb_turns.h"

const char *const stick_state_names[] = {
    "denied", "kernel", "idle", "starting", "ready", "waiting", "failed", "ejected",
};

struct stick_waiter {
    struct stick_waiter *next;
    enum stick_wait what;
    stick_done done;
    void *data;
};

/* --- who waits -------------------------------------------------------------------------------- */

void stick_wait(struct stick *stick, enum stick_wait what, stick_done done, void *data)
{
    struct stick_waiter *waiter = xnew(struct stick_waiter);

    *waiter = (struct stick_waiter){stick->waiters, what, done, data};
    stick->waiters = waiter;
}

void stick_tell(struct stick *stick, enum stick_wait what, const struct error *err)
{
    struct stick_waiter **at = &stick->waiters, *told = NULL;

    while (*at) {
        struct stick_waiter *waiter = *at;
        if (waiter->what != what) {
            at = &waiter->next;
            continue;
        }
        *at = waiter->next;
        waiter->next = told;
        told = waiter;
    }
    while (told) {
        struct stick_waiter *waiter = told;
        told = waiter->next;
        waiter->done(stick, err, waiter->data);
        free(waiter);
    }
}

/* --- states ----------------------------------------------------------------------------------- */

void stick_event(const struct stick *stick, const char *action, const char *error,
                 const char *container)
{
    char device[16] = "";

    if (stick->identified)
        snprintf(device, sizeof(device), "%04x:%04x", stick->identity.vendor,
                 stick->identity.product);
    event_usb(stick->usb->engine, action, stick->id,
              (struct event_attribute[]){
                  {"device", device},
                  {"serial", stick->identity.serial[0] ? stick->identity.serial : NULL},
                  {"url", stick->url},
                  {"container", container},
                  {"error", error},
                  {NULL, NULL}});
}

void stick_set_state(struct stick *stick, enum stick_state state, const char *error)
{
    char *copy = text_make_harmless(xstrdup(error), ""); /* the process may have said it */

    free(stick->error);
    stick->error = copy;
    if (stick->state == state)
        return;
    log_info("USB %s: %s%s%s", stick->id, stick_state_names[state], error ? ": " : "",
             error ? error : "");
    stick->state = state;
    if (state == STICK_READY)
        stick_event(stick, "ready", NULL, NULL);
    else if (state == STICK_DENIED)
        stick_event(stick, "denied", error, NULL);
    else if (state == STICK_FAILED)
        stick_event(stick, "failed", error, NULL);
}

static void refuse(struct stick *stick, enum stick_state state, const char *why)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    stick_set_state(stick, state, why);
    error_set(&err, -EACCES, "USB device %s: %s", stick->id, why);
    error_hint(&err, "See: cloche usb policy ls");
    stick_tell(stick, STICK_WAIT_READY, &err);
    if (stick->pid || stick->starting)
        stick_let_go(stick, false);
    else
        stick_stop_timer(stick); /* it is not started again */
    if (stick->url && !stick->pid && !stick->starting)
        stick_gone(stick);
}

/* Two cannot have it; who was first has it. */
static void leave_passed(struct stick *stick)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_free_ char *why = xasprintf("container %.12s has the device itself (--device-usb)",
                                         usb_devices_holder(stick)->container);

    stick->wanted = false;
    stick_set_state(stick, STICK_IDLE, why);
    error_set(&err, -EBUSY, "USB device %s: %s", stick->id, why);
    stick_tell(stick, STICK_WAIT_READY, &err);
}

static void settle_allowed(struct stick *stick)
{
    if (stick->pid || stick->starting || stick->timer || stick->dropping ||
        stick->state == STICK_EJECTED || stick->state == STICK_FAILED)
        return;
    if (!stick->identity.configuration && !stick->url)
        return;
    if (!stick->usb->exclusive && !stick->wanted && !stick_is_wanted(stick)) {
        stick_set_state(stick, STICK_IDLE, NULL);
        return;
    }
    if (usb_devices_holder(stick)) {
        leave_passed(stick);
        return;
    }
    if (stick->state != STICK_WAITING) {
        stick_set_state(stick, STICK_STARTING, NULL);
        stick_event(stick, "attach", NULL, NULL);
    }
    stick_process_start(stick);
}

void stick_settle(struct stick *stick)
{
    if (stick->gone || stick->usb->ending || (!stick->identified && !stick->url))
        return;
    _cleanup_free_ char *remote =
        stick->url ? xasprintf("usbip:%s", stick->url + strlen("usbip://")) : NULL;
    enum usb_verdict verdict = USB_ALLOW; /* who asked for a remote one may have it, so far */

    if (stick->identified)
        verdict = usb_judge(stick->usb, &stick->identity, remote ? remote : stick->id);
    if (verdict == USB_ALLOW && (stick->state == STICK_DENIED || stick->state == STICK_KERNEL))
        stick->state = STICK_IDLE;
    if (verdict == USB_ALLOW || (stick->url && verdict == USB_KERNEL)) {
        settle_allowed(stick);
    } else if (verdict == USB_DENY) {
        refuse(stick, STICK_DENIED,
               stick->identity.storage && !stick->identity.storage_only
                   ? "the policy denies it: it is more than a stick"
                   : "the policy denies it");
    } else {
        bool had = stick->state == STICK_KERNEL;
        refuse(stick, STICK_KERNEL, "the policy leaves it to the kernel's drivers");
        if (!had && (stick->usb->exclusive || stick->chosen) && !stick->pid &&
            !stick->starting) /* else when it ended */
            stick_hand_over(stick, false);
    }
}

void stick_settle_all(struct usb *usb)
{
    size_t count = usb->sticks_count;
    struct stick **all = xnew_array(struct stick *, count + 1);

    for (size_t i = 0; i < count; i++)
        all[i] = stick_ref(usb->sticks[i]);
    for (size_t i = 0; i < count; i++) {
        stick_settle(all[i]);
        stick_unref(all[i]);
    }
    free(all);
    usb_mounts_settle(usb);
    usb_devices_settle(usb);
}

/* --- the process says ------------------------------------------------------------------------- */

static void take_text(char *ret, size_t size, const char *text)
{
    _cleanup_free_ char *harmless = text_make_harmless(xstrdup(text), "");

    snprintf(ret, size, "%s", harmless);
    text_make_harmless(ret, ""); /* where it was cut */
}

static void identify(struct stick *stick, const struct usb_stick_device *device)
{
    struct usb_identity *identity = &stick->identity;

    if (!device || stick->identified || !stick->url)
        return;
    identity->vendor = device->vendor;
    identity->product = device->product;
    identity->release = device->release;
    take_text(identity->serial, sizeof(identity->serial), device->serial);
    take_text(identity->manufacturer, sizeof(identity->manufacturer), device->manufacturer);
    take_text(identity->model, sizeof(identity->model), device->model);
    take_text(identity->speed, sizeof(identity->speed), device->speed);
    usb_identity_set_classes(identity, device->classes, device->classes_count);
    stick->identified = true;
    stick_settle(stick); /* the rules can only now be asked */
}

static bool is_settled(const struct usb_stick_status *status)
{
    if (!text_equal(status->state, "open"))
        return false;
    for (size_t i = 0; i < status->units_count; i++) {
        if (text_equal(status->units[i]->state, "reading") ||
            (text_equal(status->units[i]->state, "waiting") && !status->volumes_count))
            return false;
    }
    return true;
}

static void take_status(struct stick *stick, const struct usb_stick_status *status)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    usb_stick_status_free(steal_ptr(stick->status));
    usb_stick_status_write(status, &text);
    usb_stick_status_parse(text.data, text.length, "status", &stick->status, NULL);
    if (stick->adopted && !stick->swept) {
        stick->swept = true;
        stick_sweep(stick);
    }
    identify(stick, status->device);
    if (stick->ending || stick->gone || !is_settled(status))
        return;
    if (stick->state == STICK_STARTING || stick->state == STICK_WAITING) {
        stick_set_state(stick, STICK_READY, NULL);
        stick_tell(stick, STICK_WAIT_READY, NULL);
    }
    usb_mounts_settle(stick->usb);
}

/* Nothing of its stick would ever be known. */
static void give_up(struct stick *stick)
{
    static const char why[] = "its process does not say what it has";

    log_warning("USB %s: %s and is killed", stick->id, why);
    stick_goes_amiss(stick, why);
    stick_process_kill(stick);
}

static void on_status(const struct error *err, const struct usb_stick_result *result, void *data)
{
    struct stick *stick = data;

    stick->asking = false;
    if (!err && result && result->status && !stick->usb->ending)
        take_status(stick, result->status);
    else if (stick->link && usb_link_is_open(stick->link) && !stick->ending && !stick->usb->ending)
        give_up(stick); /* its answer, and not its end */
    if (!err && stick->ask_again)
        stick_ask_status(stick);
    stick_unref(stick);
}

void stick_ask_status(struct stick *stick)
{
    struct usb_stick_nothing nothing = {0};
    struct usb_stick_request request = {.status = &nothing};

    stick->ask_again = stick->asking;
    if (stick->asking || !stick->link)
        return;
    stick->asking = true;
    usb_link_request(stick->link, &request, -1, on_status, stick_ref(stick));
}

static void on_event(const struct usb_stick_event *event, void *data)
{
    struct stick *stick = data;

    if (event->opened || event->ready || event->changed)
        stick_ask_status(stick);
    if (event->unmounted)
        stick_unmounted(stick, event->unmounted);
    if (event->unblocked)
        stick_unblocked(stick, event->unblocked);
    if (event->failed)
        stick_set_state(stick, stick->state, event->failed->message);
    if (event->progress)
        stick_progress(stick, event->progress);
    if (event->finding)
        stick_finding(stick, event->finding);
    if (event->recovered)
        log_info("USB %s: volume %u: its journal was %s", stick->id, event->recovered->volume,
                 event->recovered->outcome);
}

/* A child's end says more; one that does not speak any more is no use. */
static void on_closed(const char *why, bool is_late, void *data)
{
    struct stick *stick = data;

    stick_ref(stick);
    if (is_late) {
        log_warning("USB %s: its process %s and is killed", stick->id, why);
        stick_set_state(stick, stick->state, "its process does not answer");
        stick_goes_amiss(stick, "its process did not answer and was killed");
    }
    usb_link_destroy(steal_ptr(stick->link));
    if (!stick->child) {
        stick_process_kill(stick);
        stick_ended(stick, -1);
    } else if (is_late || !stick->ending) {
        log_debug("USB %s: its process says nothing any more: %s", stick->id, why);
        stick_process_kill(stick);
    }
    stick_unref(stick);
}

const struct usb_link_handlers stick_link_handlers = {.event = on_event, .closed = on_closed};
