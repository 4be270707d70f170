/*
 * The end of a stick's process, and what comes of the stick then: started again, put down, gone.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>

#include "usb_internal.h"
#include "usb_sysfs.h"
#include "usb_turns.h"

enum {
    FAILURES_MAX = 5, /* one soon after the other: then it is given up */
    AGAIN_MS = 200,   /* doubled each time */
    SOUND_MS = 60 * 1000,
    EXIT_GONE = 3, /* of cloche-usb */
};

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

void stick_stop_timer(struct stick *stick)
{
    if (stick->timer)
        uv_close((uv_handle_t *)steal_ptr(stick->timer), on_timer_closed);
}

/* The kernel's drivers get what they would have without usb.exclusive, or lose what cloche-usb had.
 */
struct handing {
    uv_work_t work;
    struct usb *usb;
    char port[USB_PORT_MAX];
    bool withdraw;
    uint8_t configuration; /* that the kernel had chosen; 0: that is set */
};

static void hand_work(uv_work_t *work)
{
    const struct handing *handing = work->data;
    _cleanup_free_ char *record =
        handing->usb->exclusive ? NULL : usb_run_path(handing->usb, "exclusive", ".json");
    _cleanup_error_ struct error err = ERROR_INIT;
    int fd = handing->usb->devices_fd, r = 0;

    if (handing->withdraw) {
        usb_sysfs_withdraw(fd, handing->port);
        return;
    }
    if (handing->configuration)
        r = usb_sysfs_configure(fd, handing->port, handing->configuration, record, &err);
    if (r >= 0)
        r = usb_sysfs_give_to_kernel(fd, handing->port, &err);
    if (r < 0)
        log_failure(LOG_WARNING, &err, "USB %s is not given to the kernel", handing->port);
}

static void hand_done(uv_work_t *work, int status)
{
    struct handing *handing = work->data;

    free(handing);
}

void stick_hand_over(struct stick *stick, bool withdraw)
{
    struct usb *usb = stick->usb;

    if (usb->devices_fd < 0 || stick->url || usb->ending)
        return;
    struct handing *handing = xnew(struct handing);
    handing->usb = usb;
    handing->work.data = handing;
    handing->withdraw = withdraw;
    if (!withdraw) {
        handing->configuration = stick->chosen;
        stick->chosen = 0;
    }
    snprintf(handing->port, sizeof(handing->port), "%s", stick->identity.port);
    usb_turn_run(usb, handing->port, &handing->work, hand_work, hand_done);
}

void stick_give_back(struct stick *stick)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    struct usb *usb = stick->usb;

    if (!stick->chosen || stick->url || usb->devices_fd < 0)
        return;
    if (usb_sysfs_configure(usb->devices_fd, stick->identity.port, stick->chosen, NULL, &err) < 0)
        log_failure(LOG_WARNING, &err, "USB %s is not as it was", stick->identity.port);
    stick->chosen = 0;
}

void stick_let_go(struct stick *stick, bool eject)
{
    stick->ending = true;
    stick->eject = stick->eject || eject;
    stick_unmount_all(stick);
    stick_process_end(stick);
}

void stick_goes_amiss(struct stick *stick, const char *what)
{
    if (!stick->amiss)
        stick->amiss = xstrdup(what);
}

static void tell_end(struct stick *stick)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_free_ char *amiss = steal_ptr(stick->amiss);

    if (amiss) {
        error_set(&err, -EIO, "USB device %s is let go of, but: %s", stick->id, amiss);
        error_hint(&err, "what was written last may not be on it: see cloche usb check");
    }
    stick_tell(stick, STICK_WAIT_END, amiss ? &err : NULL);
}

static void remove_from_table(struct stick *stick)
{
    struct usb *usb = stick->usb;

    for (size_t i = 0; i < usb->sticks_count; i++) {
        if (usb->sticks[i] != stick)
            continue;
        usb->sticks_count--;
        memmove(&usb->sticks[i], &usb->sticks[i + 1],
                (usb->sticks_count - i) * sizeof(struct stick *));
        stick_event(stick, "gone", NULL, NULL);
        stick_unref(stick);
        return;
    }
}

void stick_gone(struct stick *stick)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    if (stick->gone)
        return;
    stick_ref(stick);
    stick->gone = true;
    stick_stop_timer(stick);
    error_set(&err, -ENODEV, "USB device %s is gone", stick->id);
    stick_tell(stick, STICK_WAIT_READY, &err);
    bool has_process = stick->pid || stick->starting;
    if (has_process)
        stick_let_go(stick, false);
    remove_from_table(stick);
    stick_tell(stick, STICK_WAIT_LOOK, &err);
    if (!has_process)
        tell_end(stick);
    stick_unref(stick);
}

static void on_again(uv_timer_t *timer)
{
    struct stick *stick = timer->data;

    stick_stop_timer(stick);
    stick_ref(stick);
    if (stick->state == STICK_WAITING)
        stick_settle(stick); /* somebody else may have it by now, or nobody wants it any more */
    stick_unref(stick);
}

static void try_again(struct stick *stick, const char *why)
{
    stick_set_state(stick, STICK_WAITING, why);
    stick->timer = xnew(uv_timer_t);
    uv_timer_init(stick->usb->engine->loop, stick->timer);
    stick->timer->data = stick;
    uv_unref((uv_handle_t *)stick->timer);
    uv_timer_start(stick->timer, on_again, (uint64_t)AGAIN_MS << stick->failures, 0);
}

static void give_up(struct stick *stick, const char *why)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    stick_set_state(stick, STICK_FAILED, why);
    error_set(&err, -EIO, "USB device %s: %s", stick->id, why);
    stick_tell(stick, STICK_WAIT_READY, &err);
    if (stick->url)
        stick_gone(stick);
}

/* Not wanted any more: as it was before it was, or as the policy wants it now. */
static void put_down(struct stick *stick)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    stick->ending = stick->eject = stick->asked = false;
    error_set(&err, -ECANCELED, "USB device %s was let go of meanwhile", stick->id);
    stick_tell(stick, STICK_WAIT_READY, &err);
    if (stick->url) {
        stick_gone(stick);
        return;
    }
    if (stick->state != STICK_DENIED && stick->state != STICK_KERNEL)
        stick_set_state(stick, STICK_EJECTED, NULL); /* until it is plugged in again, or attached */
    if (stick->state == STICK_KERNEL && (stick->usb->exclusive || stick->chosen))
        stick_hand_over(stick, false);
}

static void fail_or_again(struct stick *stick, int code)
{
    static const char silent[] = "it does not answer any more, or is gone";
    uint64_t now = uv_now(stick->usb->engine->loop);
    _cleanup_free_ char *why =
        stick->error ? xstrdup(stick->error)
                     : xasprintf("its process ended with %d; the daemon's log may say why", code);

    if (stick->running_since_ms && now - stick->running_since_ms >= SOUND_MS)
        stick->failures = 0;
    stick->failures++;
    if (code == EXIT_GONE && stick->url)
        stick_gone(stick);
    else if (code == EXIT_GONE && (stick->state != STICK_READY || stick->failures > FAILURES_MAX))
        give_up(stick, silent);
    else if (code == EXIT_GONE) /* one that another program has reset is there still */
        try_again(stick, silent);
    else if (stick->failures > FAILURES_MAX || code == EXIT_FAILURE)
        give_up(stick, why);
    else
        try_again(stick, why);
}

/* Nobody has its interfaces now: while they are authorised the kernel's drivers get them when any
 * other program resets the device. */
static void withdraw(struct stick *stick)
{
    bool wanted = stick->authorized && stick->usb->exclusive && stick->state != STICK_KERNEL;

    stick->authorized = false;
    if (wanted && !stick->gone)
        stick_hand_over(stick, true);
}

void stick_ended(struct stick *stick, int code)
{
    stick_ref(stick);
    stick_process_clear(stick);
    stick_unmount_all(stick);
    stick->locked &= code != 0; /* else it has let go of them itself */
    usb_stick_status_free(steal_ptr(stick->status));
    withdraw(stick);
    if (stick->ending && code > 0 && code != EXIT_GONE)
        stick_goes_amiss(stick, "its process ended in failure; the daemon's log may say why");
    if (!stick->gone && !stick->usb->ending) {
        if (stick->ending)
            put_down(stick);
        else
            fail_or_again(stick, code);
    }
    tell_end(stick); /* who waits for it may attach it anew */
    usb_devices_settle(stick->usb);
    stick_unref(stick);
}

void stick_start_failed(struct stick *stick, const struct error *err)
{
    stick_ref(stick);
    stick_process_clear(stick);
    withdraw(stick);
    if (!stick->gone && !stick->usb->ending) {
        stick_set_state(stick, STICK_FAILED, error_message(err));
        stick_tell(stick, STICK_WAIT_READY, err);
        if (stick->url || stick->ending)
            put_down(stick);
    }
    stick_tell(stick, STICK_WAIT_END, NULL);
    stick_unref(stick);
}
