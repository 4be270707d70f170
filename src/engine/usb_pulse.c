/*
 * Whether the processes of sticks live. Who has a file of a stick open waits for that process in
 * the kernel, where no signal ends the waiting; so a process that does not answer is killed, and
 * the kernel ends what waited for it.
 */
#include <stdlib.h>

#include <base/alloc.h>
#include <base/text.h>

#include "usb.h"
#include "usb_internal.h"

enum {
    PATIENCE = 30,   /* seconds; usb.answerSeconds */
    PULSE_PARTS = 2, /* of that */
    HURRY = 10,      /* seconds at most: somebody waits */
    SECOND_MS = 1000,
};

unsigned usb_patience(const struct usb *usb)
{
    return usb->settings && usb->settings->has_answer_seconds ? usb->settings->answer_seconds
                                                              : PATIENCE;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle);
}

void usb_pulse_stop(struct usb *usb)
{
    if (usb->pulse)
        uv_close((uv_handle_t *)steal_ptr(usb->pulse), on_closed);
}

static void on_pulse(uv_timer_t *timer)
{
    struct usb *usb = timer->data;
    bool any = false;

    for (size_t i = 0; i < usb->sticks_count; i++) {
        struct stick *stick = usb->sticks[i];
        any |= stick->link != NULL;
        if (stick->places || stick->given || stick->calls || stick->ending)
            stick_ask_status(stick);
    }
    if (!any)
        usb_pulse_stop(usb);
}

void usb_pulse_start(struct usb *usb)
{
    uint64_t period = (uint64_t)usb_patience(usb) * SECOND_MS / PULSE_PARTS;

    if (usb->pulse)
        return;
    usb->pulse = xnew(uv_timer_t);
    uv_timer_init(usb->engine->loop, usb->pulse);
    usb->pulse->data = usb;
    uv_unref((uv_handle_t *)usb->pulse);
    uv_timer_start(usb->pulse, on_pulse, period, period);
}

void stick_ask_in_a_hurry(struct stick *stick)
{
    struct usb_stick_nothing nothing = {0};
    struct usb_stick_request request = {.status = &nothing};
    unsigned patience = usb_patience(stick->usb);

    if (!stick->link)
        return;
    usb_link_hurry(stick->link, usb_link_request(stick->link, &request, -1, NULL, NULL),
                   patience < HURRY ? patience : HURRY);
}

static void ask(struct stick *stick, struct usb_stick_request *request)
{
    usb_link_request(stick->link, request, -1, NULL, NULL);
}

/* Who was killed ends at once. What the process has not written yet is, before that is answered: it
 * has the time that it always has. */
static void take_back(struct stick *stick, const struct container *container)
{
    usb_connections_abort(stick, container->id);
    if (!stick->link)
        return;
    for (struct usb_place *place = stick->places; place; place = place->next) {
        struct usb_stick_unmount what = {.mount = place->number};
        struct usb_stick_request request = {.unmount = &what};
        if (place->number && text_equal(place->container, container->id))
            ask(stick, &request);
    }
    for (struct usb_given *given = stick->given; given; given = given->next) {
        struct usb_stick_unblock what = {.block = given->number};
        struct usb_stick_request request = {.unblock = &what};
        if (given->number && text_equal(given->container, container->id))
            ask(stick, &request);
    }
}

static bool has_any(const struct stick *stick, const struct container *container)
{
    bool has = false;

    for (const struct usb_place *place = stick->places; place; place = place->next)
        has |= text_equal(place->container, container->id);
    for (const struct usb_given *given = stick->given; given; given = given->next)
        has |= text_equal(given->container, container->id);
    return has;
}

void usb_container_stuck(struct container *container, bool is_last)
{
    struct usb *usb = container->engine->usb;

    for (size_t i = 0; usb && i < usb->sticks_count; i++) {
        struct stick *stick = usb->sticks[i];
        if (!has_any(stick, container))
            continue;
        if (is_last)
            take_back(stick, container);
        else
            stick_ask_in_a_hurry(stick);
    }
}
