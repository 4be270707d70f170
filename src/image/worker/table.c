#include "table.h"

#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include <base/alloc.h>

enum { SIZE_MIN = 64 };

struct table_slot {
    uint64_t hash;
    size_t value; /* plus one; 0: free */
};

static uint64_t secret[2];

static void make_secret(void)
{
    if (getrandom(secret, sizeof(secret), 0) != (ssize_t)sizeof(secret))
        secret[0] = (uint64_t)(uintptr_t)&secret; /* still another one each time */
    secret[0] |= 1;
    secret[1] |= 1;
}

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * secret[0];
    hash ^= hash >> 32;
    hash *= secret[1];
    return hash ^ (hash >> 29);
}

static uint64_t begin(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, make_secret);
    return secret[1];
}

uint64_t table_hash_text(const char *text)
{
    size_t length = strlen(text);
    uint64_t hash = mix(begin(), length);

    for (size_t at = 0; at < length; at += sizeof(uint64_t)) {
        uint64_t word = 0;
        size_t left = length - at;
        memcpy(&word, text + at, left < sizeof(word) ? left : sizeof(word));
        hash = mix(hash, word);
    }
    return hash;
}

uint64_t table_hash_file(const struct stat *status)
{
    return mix(mix(begin(), status->st_dev), status->st_ino);
}

static void put(struct table *table, struct table_slot slot)
{
    size_t at = slot.hash & (table->size - 1);

    while (table->slots[at].value)
        at = (at + 1) & (table->size - 1);
    table->slots[at] = slot;
}

static void grow(struct table *table)
{
    struct table old = *table;

    table->size = old.size ? old.size * 2 : SIZE_MIN;
    table->slots = xnew_array(struct table_slot, table->size);
    for (size_t i = 0; i < old.size; i++)
        if (old.slots[i].value)
            put(table, old.slots[i]);
    free(old.slots);
}

void table_add(struct table *table, uint64_t hash, size_t value)
{
    if (table->count * 2 >= table->size)
        grow(table);
    put(table, (struct table_slot){hash, value + 1});
    table->count++;
}

bool table_next(const struct table *table, uint64_t hash, size_t *cursor, size_t *ret_value)
{
    for (; table->size && *cursor < table->size; (*cursor)++) {
        const struct table_slot *slot = &table->slots[(hash + *cursor) & (table->size - 1)];
        if (!slot->value)
            return false;
        if (slot->hash != hash)
            continue;
        *ret_value = slot->value - 1;
        (*cursor)++;
        return true;
    }
    return false;
}

void table_finish(struct table *table)
{
    free(table->slots);
    *table = (struct table){0};
}
