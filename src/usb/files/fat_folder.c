/* Folders: slots of 32 bytes; a file is a short entry, with the long ones before it that carry its
 * name, the last part first (FAT specification, 7). */
#include "fat.h"

#include <errno.h>
#include <string.h>

#include <block/bytes.h>

enum {
    LONG_LAST = 0x40, /* of an order: the name's last part, which comes first */
    LONG_SUM = 13,
    AHEAD = 32 << 10, /* bytes of a folder that are asked for at once */
    SHORT_TRIES = 65536,
};

static const uint8_t long_places[FAT_LONG_UNITS] = {1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30};

void fat_entry_set_first(const struct fat_layout *layout, uint8_t *raw, uint32_t first)
{
    put_le16(raw + ENTRY_FIRST_LOW, (uint16_t)first);
    put_le16(raw + ENTRY_FIRST_HIGH, layout->kind == VOLUME_FAT32 ? (uint16_t)(first >> 16) : 0);
}

/* Slots. */

bool fat_is_fixed_root(const struct fat_volume *volume, const struct fat_node *folder)
{
    return folder == volume->root && volume->layout.kind != VOLUME_FAT32;
}

int fat_slot_offset(struct fat_volume *volume, struct fat_node *folder, uint32_t slot,
                    uint64_t *ret_offset, struct error *err)
{
    const struct fat_layout *layout = &volume->layout;
    if (fat_is_fixed_root(volume, folder)) {
        *ret_offset = layout->root_offset + (uint64_t)slot * FAT_ENTRY;
        return slot < layout->root_slots;
    }
    uint32_t cluster = slot / fat_slots_of_cluster(volume),
             in = slot % fat_slots_of_cluster(volume);
    if (slot >= FAT_SLOTS_MOST)
        return 0;
    int r = fat_runs_load(volume, folder, cluster + 1, err);
    if (r != 0 || cluster >= folder->runs.clusters)
        return r;
    const struct run *run = runs_find(&folder->runs, cluster);
    *ret_offset =
        fat_cluster_offset(layout, run->first + (cluster - run->at)) + (uint64_t)in * FAT_ENTRY;
    uint64_t left = fat_cluster_offset(layout, run->first + run->count) - *ret_offset;
    if (slot % (AHEAD / FAT_ENTRY) == 0)
        medium_expect(fat_medium(volume), *ret_offset, left < AHEAD ? left : AHEAD);
    return 1;
}

int fat_slot_read(struct fat_volume *volume, struct fat_node *folder, uint32_t slot, uint8_t *raw,
                  uint64_t *ret_offset, struct error *err)
{
    int r = fat_slot_offset(volume, folder, slot, ret_offset, err);
    if (r <= 0)
        return r;
    r = medium_read(fat_medium(volume), *ret_offset, raw, FAT_ENTRY, err);
    return r == 0 ? 1 : r;
}

/* Reading entries. */

static void take_long(struct fat_assembly *assembly, const uint8_t *raw, uint32_t slot,
                      struct fat_entry *entry)
{
    unsigned order = raw[0] & 0xBF; /* without LONG_LAST */
    if (raw[0] & LONG_LAST) {
        *assembly = (struct fat_assembly){
            .begun = order >= 1 && order <= FAT_LONG_MOST,
            .next = order,
            .sum = raw[LONG_SUM],
            .first = slot,
        };
        entry->length = 0;
    }
    if (!assembly->begun || order != assembly->next || order == 0 ||
        raw[LONG_SUM] != assembly->sum) {
        assembly->begun = false;
        return;
    }
    assembly->next = order - 1;
    for (unsigned i = FAT_LONG_UNITS; i-- > 0;) {
        unsigned at = (order - 1) * FAT_LONG_UNITS + i;
        uint16_t unit = get_le16(raw + long_places[i]);
        if (unit == 0)
            entry->length = at;
        if (at < UNITS_MAX)
            entry->name[at] = unit;
        else if (unit != 0 && unit != 0xFFFF)
            assembly->begun = false;
    }
    if ((raw[0] & LONG_LAST) && entry->length == 0)
        entry->length = order * FAT_LONG_UNITS;
    if (entry->length > UNITS_MAX)
        assembly->begun = false;
}

static bool has_its_long_name(const struct fat_assembly *assembly, const uint8_t *raw,
                              const struct fat_entry *entry)
{
    return assembly->begun && assembly->next == 0 && assembly->sum == fat_short_sum(raw) &&
           fat_name_may_be_shown(entry->name, entry->length);
}

static bool is_dot(const uint8_t *raw)
{
    return memcmp(raw, ".          ", 11) == 0 || memcmp(raw, "..         ", 11) == 0;
}

bool fat_take_slot(struct fat_volume *volume, struct fat_assembly *assembly, uint32_t slot,
                   const uint8_t *raw, struct fat_entry *entry)
{
    uint8_t attributes = raw[ENTRY_ATTRIBUTES] & FAT_ATTRIBUTES;
    if (raw[0] != FAT_DELETED && attributes == FAT_LONG) {
        take_long(assembly, raw, slot, entry);
        return false;
    }
    if (raw[0] == FAT_DELETED || (attributes & FAT_LABEL) || is_dot(raw)) {
        assembly->begun = false;
        return false;
    }
    entry->has_long = has_its_long_name(assembly, raw, entry);
    entry->first = entry->has_long ? assembly->first : slot;
    assembly->begun = false;
    entry->slot = slot;
    memcpy(entry->raw, raw, FAT_ENTRY);
    if (!entry->has_long)
        entry->length = fat_short_units(volume, raw, entry->name);
    return true;
}

int fat_folder_next(struct fat_volume *volume, struct fat_node *folder, uint32_t *slot,
                    struct fat_entry *ret_entry, struct error *err)
{
    struct fat_assembly assembly = {0};
    uint8_t raw[FAT_ENTRY];
    for (;;) {
        int r = fat_slot_read(volume, folder, *slot, raw, &ret_entry->offset, err);
        if (r <= 0 || raw[0] == 0)
            return r < 0 ? r : 0;
        uint32_t at = (*slot)++;
        if (fat_take_slot(volume, &assembly, at, raw, ret_entry))
            return 1;
    }
}

int fat_folder_is_empty(struct fat_volume *volume, struct fat_node *folder, struct error *err)
{
    struct fat_entry entry;
    uint32_t slot = 0;
    int r = fat_folder_next(volume, folder, &slot, &entry, err);
    return r < 0 ? r : r == 1 ? -ENOTEMPTY : 0;
}

/* Making entries. */

static int find_short(struct fat_volume *volume, struct fat_node *folder, const uint16_t *name,
                      unsigned length, struct fat_short *ret, struct error *err)
{
    struct fat_short made;
    fat_short_make(volume, name, length, &made);
    *ret = made;
    if (made.is_enough)
        return 0;
    for (unsigned tries = 1; tries < SHORT_TRIES; tries++) {
        uint8_t raw[FAT_ENTRY] = {0};
        uint16_t units[12];
        *ret = made;
        fat_short_number(ret, name, length, tries);
        memcpy(raw, ret->name, sizeof(ret->name));
        int r =
            fat_folder_may_have(volume, folder, units, fat_short_units(volume, raw, units), err);
        if (r <= 0)
            return r;
    }
    return error_set(err, -ENOSPC, "there is no short name left");
}

static void make_long(const uint16_t *name, unsigned length, unsigned order, unsigned parts,
                      uint8_t sum, uint8_t *raw)
{
    memset(raw, 0, FAT_ENTRY);
    raw[0] = (uint8_t)(order | (order == parts ? LONG_LAST : 0));
    raw[ENTRY_ATTRIBUTES] = FAT_LONG;
    raw[LONG_SUM] = sum;
    for (unsigned i = 0; i < FAT_LONG_UNITS; i++) {
        unsigned at = (order - 1) * FAT_LONG_UNITS + i;
        put_le16(raw + long_places[i], at < length ? name[at] : at == length ? 0 : 0xFFFF);
    }
}

int fat_folder_prepare(struct fat_volume *volume, struct fat_node *folder, const uint16_t *name,
                       unsigned length, struct fat_new_entry *ret, struct error *err)
{
    struct fat_short made;
    int r = find_short(volume, folder, name, length, &made, err);
    if (r != 0)
        return r;
    unsigned parts = made.is_enough ? 0 : (length + FAT_LONG_UNITS - 1) / FAT_LONG_UNITS;
    ret->count = parts + 1;
    r = fat_folder_room(volume, folder, ret->count, &ret->first, err);
    if (r != 0)
        return r;
    for (unsigned i = 0; i < parts; i++)
        make_long(name, length, parts - i, parts, fat_short_sum(made.name), ret->raw[i]);
    uint8_t *raw = ret->raw[parts];
    memset(raw, 0, FAT_ENTRY);
    memcpy(raw, made.name, sizeof(made.name));
    raw[ENTRY_CASE] = made.flags;
    memcpy(ret->name, name, length * sizeof(*name));
    ret->length = length;
    return 0;
}

int fat_folder_erase(struct fat_volume *volume, struct fat_node *folder,
                     const struct fat_entry *entry, struct error *err)
{
    const uint8_t deleted = FAT_DELETED;
    int r = 0;
    for (uint32_t slot = entry->first; r == 0 && slot <= entry->slot; slot++) {
        uint64_t offset;
        r = fat_slot_offset(volume, folder, slot, &offset, err);
        if (r == 0)
            return fat_damage(volume, err, "a folder has become shorter");
        r = r < 0 ? r : medium_write(fat_medium(volume), offset, &deleted, 1, err);
    }
    return r;
}
