#include "folder_index.h"

#include <stdlib.h>
#include <string.h>

#include <block/budget.h>

#include "name_hash.h"

enum {
    BUCKETS_FIRST = 32,
    NAMES_FIRST = 16,
    WORDS_FIRST = 4,
    WORD = 64,  /* entries */
    HINTS = 32, /* entries in a row that are looked for: what is longer is taken as that */
};
#define NOTHING UINT32_MAX

/* Items of one hash are a ring by `same`, in the order in which they came; the last of them is in
 * its bucket's list. One that is not used is in the list of these, by `next`. */
struct item {
    uint32_t hash, position, next, same;
};

struct folder_index {
    struct name_key key;
    uint32_t *heads; /* owned, buckets of them */
    struct item *items;
    uint32_t buckets; /* a power of two */
    uint32_t hashes;  /* that are different */
    uint32_t count, room, spare;
    uint64_t *used; /* owned: a bit an entry */
    uint32_t words;
    uint32_t end;
    uint32_t hints[HINTS]; /* before it there are never so many free ones, and one more, in a row */
};

static uint32_t hash_of(const struct folder_index *index, const uint16_t *units, unsigned length)
{
    return (uint32_t)name_hash(&index->key, units, length);
}

struct folder_index *folder_index_create(void)
{
    struct folder_index *index = budget_new(BUDGET_KEPT, 1, sizeof(*index));
    name_key_draw(&index->key);
    index->buckets = BUCKETS_FIRST;
    index->heads = budget_new(BUDGET_KEPT, BUCKETS_FIRST, sizeof(*index->heads));
    memset(index->heads, 0xFF, BUCKETS_FIRST * sizeof(*index->heads));
    index->spare = NOTHING;
    return index;
}

void folder_index_free(struct folder_index *index)
{
    if (!index)
        return;
    budget_free(BUDGET_KEPT, index->heads);
    budget_free(BUDGET_KEPT, index->items);
    budget_free(BUDGET_KEPT, index->used);
    budget_free(BUDGET_KEPT, index);
}

size_t folder_index_size(const struct folder_index *index)
{
    if (!index)
        return 0;
    return sizeof(*index) + index->buckets * sizeof(*index->heads) +
           index->room * sizeof(*index->items) + index->words * sizeof(*index->used);
}

size_t folder_index_step(const struct folder_index *index)
{
    size_t items = index->spare == NOTHING && index->count == index->room ? index->room : 0;
    size_t heads = index->hashes == index->buckets ? index->buckets * 2 : 0;
    return items * sizeof(*index->items) + heads * sizeof(*index->heads);
}

/* Names. */

static uint32_t *head_of(const struct folder_index *index, uint32_t hash)
{
    return &index->heads[hash & (index->buckets - 1)];
}

/* What leads to the last one of this hash, or to nothing. */
static uint32_t *find(const struct folder_index *index, uint32_t hash)
{
    uint32_t *at = head_of(index, hash);
    while (*at != NOTHING && index->items[*at].hash != hash)
        at = &index->items[*at].next;
    return at;
}

static void grow_heads(struct folder_index *index)
{
    uint32_t had = index->buckets, *old = index->heads;
    index->buckets *= 2;
    index->heads = budget_new(BUDGET_KEPT, index->buckets, sizeof(*index->heads));
    memset(index->heads, 0xFF, index->buckets * sizeof(*index->heads));
    for (uint32_t bucket = 0; bucket < had; bucket++) {
        for (uint32_t i = old[bucket], next; i != NOTHING; i = next) {
            uint32_t *head = head_of(index, index->items[i].hash);
            next = index->items[i].next;
            index->items[i].next = *head;
            *head = i;
        }
    }
    budget_free(BUDGET_KEPT, old);
}

static uint32_t take_item(struct folder_index *index)
{
    uint32_t i = index->spare;
    if (i != NOTHING) {
        index->spare = index->items[i].next;
        return i;
    }
    if (index->count == index->room) {
        index->room = index->room ? index->room * 2 : NAMES_FIRST;
        index->items = budget_resize(BUDGET_KEPT, index->items, index->room, sizeof(*index->items));
    }
    return index->count++;
}

void folder_index_add(struct folder_index *index, const uint16_t *upper, unsigned length,
                      uint32_t position)
{
    uint32_t hash = hash_of(index, upper, length), i = take_item(index);
    uint32_t *at = find(index, hash);
    struct item *item = &index->items[i], *last = *at == NOTHING ? NULL : &index->items[*at];
    *item = (struct item){
        .hash = hash,
        .position = position,
        .next = last ? last->next : NOTHING,
        .same = last ? last->same : i,
    };
    if (last)
        last->same = i;
    *at = i;
    if (!last && ++index->hashes > index->buckets)
        grow_heads(index);
}

void folder_index_remove(struct folder_index *index, const uint16_t *upper, unsigned length,
                         uint32_t position)
{
    struct item *items = index->items;
    uint32_t *at = find(index, hash_of(index, upper, length));
    if (*at == NOTHING)
        return;
    uint32_t last = *at, before = last;
    while (items[items[before].same].position != position) {
        before = items[before].same;
        if (before == last)
            return;
    }
    uint32_t i = items[before].same;
    items[before].same = items[i].same;
    if (i == last && before == last)
        index->hashes--;
    if (i == last) {
        *at = before == last ? items[i].next : before;
        items[before].next = items[i].next;
    }
    items[i].next = index->spare;
    index->spare = i;
}

uint32_t folder_index_first(const struct folder_index *index, const uint16_t *upper,
                            unsigned length, struct folder_index_search *ret_search)
{
    uint32_t last = *find(index, hash_of(index, upper, length));
    *ret_search = (struct folder_index_search){.index = index, .last = last, .at = last};
    if (last == NOTHING)
        return FOLDER_INDEX_NONE;
    ret_search->at = index->items[last].same;
    return index->items[ret_search->at].position;
}

uint32_t folder_index_next(struct folder_index_search *search)
{
    if (search->at == search->last)
        return FOLDER_INDEX_NONE;
    search->at = search->index->items[search->at].same;
    return search->index->items[search->at].position;
}

/* Entries. */

static void grow_used(struct folder_index *index, uint32_t end)
{
    uint32_t had = index->words, words = had ? had : WORDS_FIRST;
    while (words < (end + WORD - 1) / WORD)
        words *= 2;
    index->used = budget_resize(BUDGET_KEPT, index->used, words, sizeof(*index->used));
    memset(index->used + had, 0, (words - had) * sizeof(*index->used));
    index->words = words;
}

static void set_used(struct folder_index *index, uint32_t first, uint32_t count, bool used)
{
    for (uint32_t at = first; at < first + count; at++) {
        if (used)
            index->used[at / WORD] |= (uint64_t)1 << at % WORD;
        else
            index->used[at / WORD] &= ~((uint64_t)1 << at % WORD);
    }
}

void folder_index_use(struct folder_index *index, uint32_t first, uint32_t count, bool used)
{
    uint32_t end = first + count;
    if (end > index->words * WORD)
        grow_used(index, end);
    if (end > index->end)
        index->end = end;
    set_used(index, first, count, used);
    for (uint32_t i = 0; !used && i < HINTS; i++) {
        uint32_t from = first > i ? first - i : 0;
        if (index->hints[i] > from)
            index->hints[i] = from;
    }
}

uint32_t folder_index_end(const struct folder_index *index)
{
    return index->end;
}

static uint32_t find_room(const struct folder_index *index, uint32_t from, uint32_t count)
{
    uint32_t run = 0, at = from;
    while (run < count && at < index->end) {
        uint64_t word = index->used[at / WORD] >> at % WORD;
        uint32_t left = WORD - at % WORD;
        if (word & 1) {
            uint32_t skip = ~word ? (uint32_t)__builtin_ctzll(~word) : WORD;
            at += skip < left ? skip : left;
            run = 0;
        } else {
            at++;
            run++;
        }
    }
    return at - run;
}

/* Marked as used for as long as it is looked. */
static uint32_t find_room_beside(struct folder_index *index, uint32_t from, uint32_t count,
                                 uint32_t beside, uint32_t beside_count)
{
    uint32_t end = index->end;
    if (beside + beside_count > index->words * WORD)
        grow_used(index, beside + beside_count);
    if (beside + beside_count > end)
        index->end = beside + beside_count;
    set_used(index, beside, beside_count, true);
    uint32_t first = find_room(index, from, count);
    set_used(index, beside, beside_count, false);
    index->end = end;
    return first;
}

uint32_t folder_index_room(struct folder_index *index, uint32_t count, uint32_t beside,
                           uint32_t beside_count)
{
    uint32_t which = (count < HINTS ? count : HINTS) - 1, from = 0;
    for (uint32_t i = 0; i <= which; i++)
        from = index->hints[i] > from ? index->hints[i] : from;
    if (beside_count > 0)
        return find_room_beside(index, from, count, beside, beside_count);
    uint32_t first = find_room(index, from, count);
    if (count <= HINTS)
        index->hints[which] = first;
    return first;
}
