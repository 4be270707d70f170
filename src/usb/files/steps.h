/* How far a format or a check is, and whether it is to go on. */
#ifndef FILES_STEPS_H
#define FILES_STEPS_H

#include <errno.h>

#include <files/tools.h>

enum {
    STEPS_SMALL = 1024,   /* fewer than these are told of now and then only, */
    STEPS_TOLD_EVERY = 16 /* every so many times */
};

struct steps {
    volume_progress progress; /* or NULL */
    void *data;
    uint64_t done, total; /* of whatever is counted */
    unsigned calls;
};

/* So many more are done, which may be 0: a place where it can end. Never within an update of the
 * medium. */
static inline int steps_take(struct steps *steps, uint64_t count, struct error *err)
{
    steps->done = count < steps->total - steps->done ? steps->done + count : steps->total;
    if (!steps->progress || (count < STEPS_SMALL && steps->calls++ % STEPS_TOLD_EVERY != 0))
        return 0;
    return steps->progress(steps->done, steps->total, steps->data)
               ? 0
               : error_set(err, -ECANCELED, "it was cancelled");
}

/* A part is over, with as many done by now. */
static inline int steps_reach(struct steps *steps, uint64_t done, struct error *err)
{
    steps->done = done < steps->total ? done : steps->total;
    return steps_take(steps, 0, err);
}

#endif
