#include "discards.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <base/alloc.h>
#include <block/budget.h>

enum { PIECE = 64 << 20 /* bytes of a discard: whoever wants the volume waits for it */ };

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t discards_end(int milliseconds)
{
    return now_ms() + milliseconds;
}

bool discards_have_time(int64_t end)
{
    return now_ms() < end;
}

static size_t words_of(const struct discards *discards)
{
    return discards->clusters / 64 + 1;
}

void discards_init(struct discards *discards, uint32_t clusters)
{
    if (budget_check(clusters / 4, "discarding", NULL) != 0)
        return;
    *discards = (struct discards){.clusters = clusters};
    discards->durable = budget_new(BUDGET_FIXED, words_of(discards), sizeof(uint64_t));
    discards->in_place = budget_new(BUDGET_FIXED, words_of(discards), sizeof(uint64_t));
}

void discards_finish(struct discards *discards)
{
    budget_free(BUDGET_FIXED, discards->durable);
    budget_free(BUDGET_FIXED, discards->in_place);
    *discards = (struct discards){0};
}

static bool has(const uint64_t *bits, uint32_t cluster)
{
    return bits[cluster / 64] >> (cluster % 64) & 1;
}

static void set(uint64_t *bits, uint32_t first, uint32_t count, bool value)
{
    for (uint32_t cluster = first; cluster < first + count; cluster++) {
        uint64_t mask = UINT64_C(1) << (cluster % 64);
        bits[cluster / 64] = value ? bits[cluster / 64] | mask : bits[cluster / 64] & ~mask;
    }
}

/* All that was durable is in place. */
static void move_on(struct discards *discards, uint64_t in_place)
{
    if (discards->update == 0 || discards->update > in_place)
        return;
    for (size_t i = 0; i < words_of(discards); i++)
        discards->in_place[i] |= discards->durable[i];
    memset(discards->durable, 0, words_of(discards) * sizeof(uint64_t));
    discards->update = 0;
    discards->next = 0;
}

void discards_add(struct discards *discards, uint32_t first, uint32_t count, uint64_t update,
                  uint64_t in_place)
{
    if (discards->clusters == 0)
        return;
    move_on(discards, in_place);
    set(discards->durable, first, count, true);
    if (update > discards->update)
        discards->update = update;
}

void discards_forget(struct discards *discards, uint32_t first, uint32_t count)
{
    if (discards->clusters == 0)
        return;
    set(discards->durable, first, count, false);
    set(discards->in_place, first, count, false);
}

static uint32_t take(struct discards *discards, uint32_t most, uint64_t in_place,
                     uint32_t *ret_first)
{
    move_on(discards, in_place);
    uint32_t at = discards->next, count = 0;
    while (at < discards->clusters && !has(discards->in_place, at))
        at += at % 64 == 0 && discards->in_place[at / 64] == 0 ? 64 : 1;
    while (count < most && at + count < discards->clusters && has(discards->in_place, at + count))
        count++;
    discards->next = at + count;
    if (count > 0) {
        set(discards->in_place, at, count, false);
        *ret_first = at;
    }
    return count;
}

bool discards_next(struct discards *discards, struct medium *medium, uint64_t offset,
                   uint32_t cluster_size)
{
    uint32_t most = cluster_size < PIECE ? PIECE / cluster_size : 1, first = 0;
    if (discards->clusters == 0)
        return false;
    uint32_t count = take(discards, most, medium_in_place(medium), &first);
    if (count == 0)
        return false;
    int r = medium_discard(medium, offset + (uint64_t)first * cluster_size,
                           (uint64_t)count * cluster_size, NULL);
    if (r != 0)
        discards_finish(discards);
    return r == 0;
}

int discards_of_format(struct medium *medium, uint64_t offset, struct steps *steps,
                       struct error *err)
{
    uint64_t size = medium_size(medium);
    int r = 0;
    while (r == 0 && offset < size) {
        uint64_t part = size - offset < PIECE ? size - offset : PIECE;
        if (medium_discard(medium, offset, part, NULL) != 0)
            break;
        offset += part;
        r = steps_take(steps, 0, err);
    }
    return r;
}
