/* Names of entries while a volume is checked: no two of a folder are the same, each one can be. */
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <block/budget.h>

#include "fat_check_walk.h"

enum { NAMES_FIRST = 64, SHORT_TRIES = 65536 };

static uint64_t sum_of(const struct fat_walk *walk, const uint16_t *units, unsigned length)
{
    uint16_t upper[UNITS_MAX];
    for (unsigned i = 0; i < length; i++)
        upper[i] = unit_upper(units[i]);
    uint64_t sum = name_hash(&walk->key, upper, length);
    return sum ? sum : 1;
}

static size_t slot_of(const struct fat_check_names *names, uint64_t sum)
{
    size_t at = (size_t)(sum >> 20) & (names->room - 1);
    while (names->sums[at] != 0 && names->sums[at] != sum)
        at = (at + 1) & (names->room - 1);
    return at;
}

static bool names_have(const struct fat_check_names *names, uint64_t sum)
{
    return names->count > 0 && names->sums[slot_of(names, sum)] == sum;
}

static void names_add(struct fat_check_names *names, uint64_t sum)
{
    if (names->count * 2 >= names->room) {
        struct fat_check_names old = *names;
        names->room = old.room ? old.room * 2 : NAMES_FIRST;
        names->sums = budget_new(BUDGET_FIXED, names->room, sizeof(names->sums[0]));
        for (size_t i = 0; i < old.room; i++)
            if (old.sums[i])
                names->sums[slot_of(names, old.sums[i])] = old.sums[i];
        budget_free(BUDGET_FIXED, old.sums);
    }
    size_t at = slot_of(names, sum);
    names->count += names->sums[at] == 0;
    names->sums[at] = sum;
}

static uint64_t short_sum(const struct fat_walk *walk, const uint8_t *raw)
{
    uint16_t units[12];
    return sum_of(walk, units, fat_short_units(&walk->check->volume, raw, units));
}

/* The second byte of a character of two may be any from 0x40 on. */
static bool is_bad_byte(const uint8_t *name, int i)
{
    uint8_t byte = name[i];
    if (byte == 0x05 && i == 0)
        return false;
    if (byte >= 0x40 && i > 0 && name[i - 1] >= 0x80)
        return false;
    return byte < 0x20 || byte == 0x7F || (byte == 0x20 && i == 0) ||
           (byte < 0x80 && strchr("\"*./:<>?\\|", byte));
}

static bool is_bad_name(const uint8_t *name)
{
    for (int i = 0; i < 11; i++)
        if (is_bad_byte(name, i))
            return true;
    return false;
}

/* A name like it that nothing in the folder has. */
static bool find_name(struct fat_walk *walk, const struct fat_entry *entry, struct fat_short *ret)
{
    struct fat_short made = {0};
    uint8_t raw[FAT_ENTRY] = {0};
    for (int i = 0; i < 11; i++)
        made.name[i] = is_bad_byte(entry->raw, i) ? '_' : entry->raw[i];
    *ret = made;
    for (unsigned tries = 1; tries < SHORT_TRIES; tries++) {
        memcpy(raw, ret->name, sizeof(ret->name));
        if (!names_have(&walk->names, short_sum(walk, raw)))
            return true;
        *ret = made;
        fat_short_number(ret, entry->name, entry->length, tries);
    }
    return false;
}

size_t fat_check_names_step(const struct fat_check_names *names)
{
    return names->count * 2 >= names->room ? names->room * 2 * sizeof(names->sums[0]) : 0;
}

void fat_check_names_finish(struct fat_check_names *names)
{
    budget_free(BUDGET_FIXED, names->sums);
    *names = (struct fat_check_names){0};
}

/* The long name goes with the old one where it cannot be kept; else it belongs to the new one. */
static int write_name(struct fat_walk *walk, struct fat_item *item, const struct fat_short *made,
                      bool keep_long, struct error *err)
{
    enum { LONG_SUM = 13 };
    struct fat_entry *entry = &item->entry;
    int r = fat_repair_begin(walk->check, FAT_LONG_MOST + 2, err);
    if (r != 0)
        return r;
    memcpy(entry->raw, made->name, sizeof(made->name));
    r = medium_write(fat_medium(&walk->check->volume), item->offset, entry->raw, FAT_ENTRY, err);
    if (r == 0)
        r = fat_walk_write(walk, entry->first, entry->slot, keep_long ? LONG_SUM : 0,
                           keep_long ? fat_short_sum(made->name) : FAT_DELETED, err);
    if (!keep_long)
        entry->first = entry->slot;
    return fat_repair_end(walk->check, r);
}

static int rename_item(struct fat_walk *walk, struct fat_item *item, bool keep_long,
                       struct error *err)
{
    struct fat_short made;
    if (!find_name(walk, &item->entry, &made)) {
        fat_say_left(walk->check, "%s: there is no name left for it", item->path);
        return 0;
    }
    return write_name(walk, item, &made, keep_long, err);
}

int fat_check_name(struct fat_walk *walk, struct fat_item *item, struct error *err)
{
    struct fat_entry *entry = &item->entry;
    uint64_t name = sum_of(walk, entry->name, entry->length), other = short_sum(walk, entry->raw);
    bool twice = names_have(&walk->names, name), taken = names_have(&walk->names, other);
    bool bad = is_bad_name(entry->raw), keep_long = entry->has_long && !twice;
    int r = 0;
    if (twice || taken || bad) {
        bool repair =
            fat_say(walk->check, "%s: %s", item->path,
                    twice || taken ? "another one has this name, too" : "a name that cannot be");
        if (repair)
            r = rename_item(walk, item, keep_long, err);
    }
    if (keep_long)
        names_add(&walk->names, name);
    names_add(&walk->names, short_sum(walk, entry->raw));
    return r;
}
