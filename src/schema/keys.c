#include <string.h>
#include <sys/auxv.h>

#include "parser.h"

enum { KEY_NONE = UINT32_MAX, BUCKETS_INITIAL = 16 };

/* Multiplication to 128 bits, both halves folded: every bit of the input reaches every bit of the
 * hash, and the seed decides where. */
static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Seeded with the kernel's random bytes of this process, so that a document cannot be made to have
 * all its keys in one bucket. */
static void seed_set(struct key_set *set)
{
    const void *random = (const void *)getauxval(AT_RANDOM);

    set->seed = UINT64_C(0x9e3779b97f4a7c15);
    if (random)
        memcpy(&set->seed, random, sizeof(set->seed));
    set->seed |= 1;
}

uint64_t key_set_hash(struct key_set *set, const char *text, size_t length)
{
    if (set->seed == 0)
        seed_set(set);
    uint64_t hash = set->seed ^ length;
    while (length > 0) {
        uint64_t word = 0;
        size_t size = length < sizeof(word) ? length : sizeof(word);
        memcpy(&word, text, size);
        hash = mix(hash ^ word ^ UINT64_C(0xa0761d6478bd642f),
                   set->seed ^ UINT64_C(0xe7037ed1a0b428db));
        text += size;
        length -= size;
    }
    return mix(hash, UINT64_C(0x8ebc6af09c88c6e3));
}

static uint32_t *bucket_of(const struct key_set *set, uint64_t hash)
{
    return &set->buckets[hash & (set->buckets_count - 1)];
}

static void link_key(struct key_set *set, size_t index)
{
    uint32_t *bucket = bucket_of(set, set->keys[index].hash);

    set->keys[index].next = *bucket;
    *bucket = (uint32_t)index;
}

static void grow(struct key_set *set)
{
    if (set->count < set->capacity)
        return;
    set->capacity = set->capacity ? set->capacity * 2 : BUCKETS_INITIAL;
    set->keys = xrealloc(set->keys, set->capacity, sizeof(*set->keys));
    set->buckets_count = set->capacity;
    set->buckets = xrealloc(set->buckets, set->buckets_count, sizeof(*set->buckets));
    memset(set->buckets, 0xff, set->buckets_count * sizeof(*set->buckets));
    for (size_t i = 0; i < set->count; i++)
        link_key(set, i);
}

const struct key *key_set_find(const struct key_set *set, uint32_t frame, const char *text,
                               size_t length, uint64_t hash)
{
    if (set->buckets_count == 0)
        return NULL;
    for (uint32_t i = *bucket_of(set, hash); i != KEY_NONE; i = set->keys[i].next) {
        const struct key *key = &set->keys[i];
        if (key->hash == hash && key->frame == frame && key->length == length &&
            memcmp(set->text.data + key->text, text, length) == 0)
            return key;
    }
    return NULL;
}

void key_set_push(struct key_set *set, uint32_t frame, const char *text, size_t length,
                  uint64_t hash, size_t place)
{
    grow(set);
    set->keys[set->count] = (struct key){
        .hash = hash,
        .text = set->text.length,
        .length = length,
        .frame = frame,
        .place = place,
    };
    buffer_append(&set->text, text, length);
    buffer_append_char(&set->text, '\0');
    link_key(set, set->count++);
}

void key_set_truncate(struct key_set *set, size_t count)
{
    while (set->count > count) {
        const struct key *key = &set->keys[--set->count];
        *bucket_of(set, key->hash) = key->next;
        set->text.length = key->text;
    }
}

const char *key_set_text(const struct key_set *set, const struct key *key)
{
    return set->text.data + key->text;
}

void key_set_finish(struct key_set *set)
{
    free(set->keys);
    free(set->buckets);
    buffer_finish(&set->text);
}
