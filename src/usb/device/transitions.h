/*
 * Tables of states and events, each with a place: where the event leads to in that state, and what
 * is done then, which may lead to an event in turn (0: to none).
 *
 * States begin with 1: a place in which there is nothing means that the event changes nothing.
 */
#ifndef USB_TRANSITIONS_H
#define USB_TRANSITIONS_H

/* struct transition TRANSITION(...): a place in the table of a `struct MACHINE`, which has a member
 * `state`. */
#define TRANSITION(MACHINE, EVENT)                                                                 \
    {                                                                                              \
        unsigned next;                                                                             \
        EVENT (*action)(struct MACHINE * MACHINE);                                                 \
    }

/* event is a variable: 0 afterwards. */
#define GO_ALONG(transitions, machine, event)                                                      \
    while (event) {                                                                                \
        const __typeof__((transitions)[0][0]) *place = &(transitions)[(machine)->state][event];    \
        (event) = 0;                                                                               \
        if (place->next)                                                                           \
            (machine)->state = place->next;                                                        \
        if (place->next && place->action)                                                          \
            (event) = place->action(machine);                                                      \
    }

#endif
