#include "place.h"

#include <sched.h>
#include <stddef.h>

/* Ends of transfers. A command has three: who is in the right place sleeps for one of them, or for
 * none where the device is slow to nothing. */
enum { WINDOW = 48, GOOD_PART = 2, CHECK = 1024, REST_FIRST = 8192, REST_MOST = 1 << 24 };
enum { BAD_WINDOWS = 3 };

static int where_really(void)
{
    return sched_getcpu();
}

static uint64_t allowed_really(void)
{
    cpu_set_t set;
    uint64_t allowed = 0;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 0;
    for (size_t i = 0; i < PLACE_PROCESSORS; i++)
        if (CPU_ISSET(i, &set))
            allowed |= UINT64_C(1) << i;
    return allowed;
}

static void go_really(int processor)
{
    cpu_set_t before, there;
    CPU_ZERO(&there);
    CPU_SET((size_t)processor, &there);
    if (sched_getaffinity(0, sizeof(before), &before) == 0 &&
        sched_setaffinity(0, sizeof(there), &there) == 0)
        sched_setaffinity(0, sizeof(before), &before);
}

static const struct place_ops real_ops = {where_really, allowed_really, go_really};

static void begin_window(struct place *place)
{
    place->ends = place->sleeps = 0;
    if (place->state == PLACE_LEARNING)
        place->here = place->ops->where();
}

static void learn(struct place *place)
{
    place->state = PLACE_LEARNING;
    place->tried = 0;
    begin_window(place);
}

void place_init(struct place *place, const struct place_ops *ops)
{
    *place = (struct place){.ops = ops ? ops : &real_ops};
    learn(place);
}

bool place_counts(const struct place *place)
{
    return place->state == PLACE_LEARNING ||
           (place->state == PLACE_FOUND && place->ends >= CHECK - WINDOW);
}

static bool is_good(const struct place *place)
{
    return place->sleeps <= WINDOW / GOOD_PART;
}

static void rest(struct place *place)
{
    place->state = PLACE_RESTING;
    if (place->rest_ends == 0)
        place->rest_ends = REST_FIRST;
    else if (place->rest_ends < REST_MOST)
        place->rest_ends *= 2;
    place->rest = place->rest_ends;
}

/* To one that was not tried; where there is none, it is not worth it. */
static void try_another(struct place *place)
{
    uint64_t left = place->ops->allowed() & ~place->tried;
    if (left == 0) {
        rest(place);
        return;
    }
    place->ops->go(__builtin_ctzll(left));
    begin_window(place);
    if (place->here < 0 || place->here >= PLACE_PROCESSORS ||
        place->tried & UINT64_C(1) << place->here)
        rest(place); /* it could not go there */
}

static void note_learning(struct place *place, bool slept)
{
    place->sleeps += slept;
    if (++place->ends < WINDOW)
        return;
    int now = place->ops->where();
    if (now < 0 || now >= PLACE_PROCESSORS) {
        rest(place);
    } else if (now != place->here) {
        begin_window(place); /* it was moved, or is another thread */
    } else if (is_good(place)) {
        place->state = PLACE_FOUND;
        place->ends = place->sleeps = place->bad = 0;
        place->until = place->interval = WINDOW;
    } else {
        place->tried |= UINT64_C(1) << now;
        try_another(place);
    }
}

/* Whoever moved it may have had reasons: it is gone after less and less often. */
static void look_after(struct place *place)
{
    if (place->ops->where() == place->here) {
        place->interval = WINDOW;
    } else {
        place->ops->go(place->here);
        place->interval = place->interval < REST_FIRST ? place->interval * 2 : REST_FIRST;
    }
    place->until = place->interval;
}

/* Now and then: whether it is still right. */
static void note_found(struct place *place, bool slept)
{
    place->sleeps += slept && place_counts(place);
    if (--place->until == 0)
        look_after(place);
    if (++place->ends < CHECK)
        return;
    bool is_there = place->ops->where() == place->here;
    place->bad = is_there && !is_good(place) ? place->bad + 1 : 0;
    place->ends = place->sleeps = 0;
    if (place->bad >= BAD_WINDOWS)
        learn(place);
}

void place_note(struct place *place, bool slept)
{
    switch (place->state) {
    case PLACE_LEARNING:
        note_learning(place, slept);
        break;
    case PLACE_FOUND:
        note_found(place, slept);
        break;
    case PLACE_RESTING:
        if (--place->rest == 0)
            learn(place);
        break;
    }
}
