#include "place.h"

#include <sched.h>
#include <stddef.h>
#include <string.h>

/* Ends of transfers. A command has three: who is in the right place sleeps for one of them, or for
 * none where the device is slow to nothing. */
enum { WINDOW_FIRST = 8, WINDOW = 24, CHECK = 1024, INTERVAL_MOST = 8192 };
enum { REST_FIRST = 1024, REST_MOST = 1 << 24 };
enum { GOOD_PART = 500, BAD_WINDOWS = 3 }; /* of a thousand */

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
    if (sched_getaffinity(0, sizeof(before), &before) != 0 ||
        sched_setaffinity(0, sizeof(there), &there) != 0 ||
        sched_setaffinity(0, sizeof(before), &before) == 0)
        return;
    memset(&before, 0xff, sizeof(before)); /* its processors were changed meanwhile: all of those */
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
    place->best_part = UINT32_MAX;
    begin_window(place);
}

void place_init(struct place *place, const struct place_ops *ops)
{
    *place = (struct place){.ops = ops ? ops : &real_ops, .window = WINDOW_FIRST};
    learn(place);
}

bool place_counts(const struct place *place)
{
    return place->state == PLACE_LEARNING ||
           (place->state == PLACE_FOUND && place->ends >= CHECK - WINDOW);
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

static void stay(struct place *place)
{
    place->state = PLACE_FOUND;
    place->ends = place->sleeps = place->bad = 0;
    place->until = 0;
    place->interval = WINDOW;
}

/* To one that was not tried. Where there is none, to the best of them, and no more of it for now.
 */
static void try_another(struct place *place)
{
    uint64_t left = place->ops->allowed() & ~place->tried;
    if (left == 0) {
        if (place->best != place->here)
            place->ops->go(place->best);
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
    if (++place->ends < place->window)
        return;
    unsigned part = place->sleeps * 1000 / place->ends;
    int now = place->ops->where();
    place->window = WINDOW;
    if (now < 0 || now >= PLACE_PROCESSORS) {
        rest(place);
    } else if (now != place->here) {
        begin_window(place); /* it was moved, or is another thread */
    } else if (part <= GOOD_PART) {
        stay(place);
    } else {
        place->tried |= UINT64_C(1) << now;
        if (part < place->best_part) {
            place->best = now;
            place->best_part = part;
        }
        try_another(place);
    }
}

/* At once when it is another thread, or was moved; whoever moved it may have had reasons, so that
 * it is gone after less and less often. */
void place_look(struct place *place)
{
    if (place->state != PLACE_FOUND)
        return;
    if (place->until > 0)
        place->until--;
    bool is_there = place->ops->where() == place->here;
    if (is_there && place->until == 0) {
        place->interval = WINDOW;
    } else if (!is_there && place->until == 0) {
        place->ops->go(place->here);
        place->until = place->interval;
        place->interval = place->interval < INTERVAL_MOST ? place->interval * 2 : INTERVAL_MOST;
    }
}

/* Now and then: whether it is still right. */
static void note_found(struct place *place, bool slept)
{
    place->sleeps += slept && place_counts(place);
    place_look(place);
    if (++place->ends < CHECK)
        return;
    bool is_there = place->ops->where() == place->here;
    bool is_good = place->sleeps <= WINDOW * GOOD_PART / 1000;
    place->bad = is_there && !is_good ? place->bad + 1 : 0;
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
