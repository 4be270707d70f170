/*
 * The processor on which the ends of a device's transfers are told: a thread that waits for them
 * there sleeps once for a command, and elsewhere up to three times, since another processor must be
 * woken first, and this one by it. No interface says which one it is, so it is found out: by how
 * often is slept.
 */
#ifndef USB_PLACE_H
#define USB_PLACE_H

#include <stdbool.h>
#include <stdint.h>

enum { PLACE_PROCESSORS = 64 }; /* those beyond are never gone to */

/* A thread's processors; what it does about its own. */
struct place_ops {
    int (*where)(void); /* it runs; -1: not known */
    /* Those that it may run on: bit n is processor n. 0: not known, or it may not choose. */
    uint64_t (*allowed)(void);
    /* It runs there now; where it may run afterwards is as before. */
    void (*go)(int processor);
};

enum place_state {
    PLACE_LEARNING,
    PLACE_FOUND,
    PLACE_RESTING, /* no processor is better than the others */
};

struct place {
    const struct place_ops *ops;
    enum place_state state;
    int here;                 /* LEARNING: where the window began; FOUND: where it is best */
    unsigned ends, sleeps;    /* of the window */
    unsigned window;          /* LEARNING: ends that it has */
    uint64_t tried;           /* LEARNING: bit n: processor n was */
    int best;                 /* LEARNING: of these */
    unsigned best_part;       /* how many of a thousand ends were slept for there */
    unsigned rest, rest_ends; /* RESTING: ends until it learns anew; how many that was last */
    unsigned until, interval; /* FOUND: ends until it may go there again; and after that */
    unsigned bad;             /* FOUND: windows in a row */
};

/* ops NULL: the calling thread's. */
void place_init(struct place *place, const struct place_ops *ops);

/* Whether place_note() wants to be told how the next end is waited for. */
bool place_counts(const struct place *place);

/* This thread takes in ends, however it heard of them. May move it. */
void place_look(struct place *place);

/* A transfer's end was waited for by this thread; slept: it had not come. May move the thread. */
void place_note(struct place *place, bool slept);

#endif
