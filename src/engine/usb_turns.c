#include "usb_turns.h"

#include <stdio.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <base/text.h>

#include "errand.h"

struct usb_turn {
    struct usb_turn *next;
    struct usb *usb;
    char port[USB_PORT_MAX];
    uv_work_t own, *work;
    uv_work_cb run;
    uv_after_work_cb done;
};

static void turn_work(uv_work_t *own)
{
    struct usb_turn *turn = own->data;

    turn->run(turn->work);
}

/* The first of its port. */
static struct usb_turn *first_of(const struct usb *usb, const char *port)
{
    for (struct usb_turn *turn = usb->turns; turn; turn = turn->next)
        if (text_equal(turn->port, port))
            return turn;
    return NULL;
}

static void turn_done(uv_work_t *own, int status);

static void begin(struct usb_turn *turn)
{
    errand_run(turn->usb->engine, &turn->own, turn_work, turn_done);
}

static void turn_done(uv_work_t *own, int status)
{
    struct usb_turn *turn = own->data;
    struct usb *usb = turn->usb;
    struct usb_turn **at = &usb->turns;

    while (*at != turn)
        at = &(*at)->next;
    *at = turn->next;
    struct usb_turn *next = turn->port[0] ? first_of(usb, turn->port) : NULL;
    if (next)
        begin(next);
    usb->errands--;
    turn->done(turn->work, status);
    free(turn);
}

void usb_turn_run(struct usb *usb, const char *port, uv_work_t *work, uv_work_cb run,
                  uv_after_work_cb done)
{
    struct usb_turn *turn = xnew(struct usb_turn), **at = &usb->turns;
    bool waits = port[0] && first_of(usb, port);

    turn->usb = usb;
    snprintf(turn->port, sizeof(turn->port), "%s", port);
    turn->own.data = turn;
    turn->work = work;
    turn->run = run;
    turn->done = done;
    while (*at)
        at = &(*at)->next;
    *at = turn;
    usb->errands++;
    if (!waits)
        begin(turn);
}
