/*
 * The attendant: a thread that waits for its own request does the stick's work meanwhile, while the
 * device thread sleeps. A command then changes threads no more than its transfers end.
 *
 * It takes an idle stick only, and gives it up when its request is done, or when a command has
 * ended in a way that others must hear of: that one is parked, for the device thread. Whatever is
 * left then, the device thread is woken for.
 */
#include "stick.h"

enum { ATTEND_MS = 50 }; /* a transport that cannot be woken looks at its time-outs so often */

/* False: nothing is under way that would end. */
static bool wait_in_place(struct usb_stick *stick)
{
    int timeout = usb_transport_timeout(stick->transport);
    if (timeout < 0)
        return false;
    if (timeout > ATTEND_MS)
        timeout = ATTEND_MS;
    stick->attendant_has_it = false;
    stick->transport->ops->wait(stick->transport, timeout, &stick->lock);
    stick->attendant_has_it = true;
    return true;
}

/* With the lock, and the stick idle. */
static void work(struct usb_stick *stick, const atomic_bool *done)
{
    atomic_store(&stick->attended, true);
    stick->attends++;
    stick->attendant_has_it = true;
    if (stick->sleeps_long) { /* somebody has to end what takes too long */
        stick->sleeps_long = false;
        usb_stick_wake(stick);
    }
    stick_go_on(stick);
    while (!atomic_load(done) && stick->flying > 0 && !stick->parked && !stick->gone &&
           !stick_falls_back(stick)) {
        if (!stick->transport->ended && !wait_in_place(stick))
            break;
        usb_transport_dispatch(stick->transport);
        stick_go_on(stick);
    }
    stick->attendant_has_it = false;
    atomic_store(&stick->attended, false);
    pthread_cond_broadcast(&stick->left);
}

void stick_end_attendance(struct usb_stick *stick)
{
    while (atomic_load(&stick->attended)) {
        for (unsigned i = 0; i < stick->facts.interface_count; i++) {
            const struct carrier *carrier = &stick->channels[i].carrier;
            if (carrier->ops)
                carrier->ops->cancel(carrier->data);
        }
        pthread_cond_wait(&stick->left, &stick->lock);
    }
}

static bool is_free(const struct usb_stick *stick)
{
    return stick->transport->ops->wait && stick->flying == 0 && !stick_falls_back(stick) &&
           !stick->gone && !atomic_load(&stick->attended);
}

/* Something that the device thread must be awake for. */
static bool has_rest(const struct usb_stick *stick)
{
    for (unsigned i = 0; i < stick->facts.units; i++)
        if (unit_has_requests(&stick->units[i]))
            return true;
    return stick->flying > 0 || stick_falls_back(stick) || stick_has_submitted(stick);
}

/* An interface takes further commands; what ends them is somebody else's already. */
static void begin_beside(struct usb_stick *stick)
{
    stick->attendant_has_it = true;
    stick_go_on(stick);
    stick->attendant_has_it = false;
}

void stick_attend(const struct unit *unit, const atomic_bool *done)
{
    struct usb_stick *stick = unit->stick;
    const struct channel *channel = unit->channel;
    bool has_it = pthread_mutex_trylock(&stick->lock) == 0, is_seen = false;
    if (has_it && is_free(stick)) {
        work(stick, done);
        is_seen = !has_rest(stick);
    } else if (has_it) {
        if (stick->flying > 0 && channel->flying < channel->carrier.depth && !stick->gone)
            begin_beside(stick);
        is_seen = channel->flying > 0 && !stick->parked; /* the command's end wakes who looks */
    }
    if (!is_seen && !atomic_load(&stick->awake) && !atomic_load(&stick->attended))
        usb_stick_wake(stick);
    if (has_it)
        pthread_mutex_unlock(&stick->lock);
}
