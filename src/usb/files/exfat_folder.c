/* Entries of folders, as they are on the medium. */
#include "exfat.h"

#include <errno.h>
#include <stdlib.h>

#include <base/alloc.h>

struct exfat_entries *exfat_entries_create(void)
{
    struct exfat_entries *entries = xmalloc(sizeof(*entries));
    entries->place = (struct exfat_place){0};
    return entries;
}

void exfat_place_finish(struct exfat_place *place)
{
    free(place->offsets);
    *place = (struct exfat_place){0};
}

/* Where an entry is, and how many bytes follow it in its run. 0: beyond the folder's clusters. */
static int locate(struct exfat_volume *volume, struct exfat_node *folder, uint32_t position,
                  uint64_t *ret_offset, uint64_t *ret_room, struct error *err)
{
    const struct exfat_layout *layout = &volume->layout;
    uint64_t at = (uint64_t)position * EXFAT_ENTRY;
    uint64_t cluster = at >> layout->cluster_shift;
    int r = at < EXFAT_FOLDER_MOST ? exfat_runs_load(volume, folder, cluster + 1, err) : 0;
    if (r != 0 || at >= EXFAT_FOLDER_MOST || cluster >= folder->runs.clusters)
        return r;
    const struct exfat_run *run = exfat_runs_find(&folder->runs, (uint32_t)cluster);
    uint64_t in = at - ((uint64_t)run->at << layout->cluster_shift);
    *ret_offset = exfat_offset(layout, run->first) + in;
    *ret_room = ((uint64_t)run->count << layout->cluster_shift) - in;
    return 1;
}

int exfat_folder_offset(struct exfat_volume *volume, struct exfat_node *folder, uint32_t position,
                        uint64_t *ret_offset, struct error *err)
{
    uint64_t room;
    int r = locate(volume, folder, position, ret_offset, &room, err);
    return r == 0 ? exfat_damage(volume, err, "a folder has become shorter") : r < 0 ? r : 0;
}

int exfat_folder_read(struct exfat_volume *volume, struct exfat_node *folder, uint32_t position,
                      uint32_t count, uint8_t *raw, struct error *err)
{
    uint32_t done = 0;
    while (done < count) {
        uint64_t offset, room;
        int r = locate(volume, folder, position + done, &offset, &room, err);
        if (r <= 0)
            return r < 0 ? r : (int)done;
        uint32_t part = count - done;
        part = room / EXFAT_ENTRY < part ? (uint32_t)(room / EXFAT_ENTRY) : part;
        r = medium_read(exfat_medium(volume), offset, raw + (size_t)done * EXFAT_ENTRY,
                        (size_t)part * EXFAT_ENTRY, err);
        if (r != 0)
            return r;
        done += part;
    }
    return (int)done;
}

static int find_offsets(struct exfat_volume *volume, struct exfat_node *folder,
                        struct exfat_place *place, struct error *err)
{
    place->offsets = xnew_array(uint64_t, place->count);
    for (unsigned i = 0; i < place->count; i++) {
        int r = exfat_folder_offset(volume, folder, place->position + i, &place->offsets[i], err);
        if (r != 0) {
            exfat_place_finish(place);
            return r;
        }
    }
    return 0;
}

/* The set that begins here. 0: it is none that can be used, and is left alone. */
static int read_set(struct exfat_volume *volume, struct exfat_node *folder, uint32_t position,
                    struct exfat_entries *ret, struct error *err)
{
    unsigned count = exfat_set_count(ret->raw);
    if (count == 0)
        return 0;
    int r = exfat_folder_read(volume, folder, position, count, ret->raw, err);
    if (r < 0)
        return r;
    if ((unsigned)r < count || exfat_set_parse(ret->raw, count, &ret->set, NULL) != 0) {
        volume->damaged = true;
        return 0;
    }
    ret->place = (struct exfat_place){.position = position, .count = count};
    r = find_offsets(volume, folder, &ret->place, err);
    return r == 0 ? 1 : r;
}

int exfat_folder_next(struct exfat_volume *volume, struct exfat_node *folder, uint32_t *position,
                      struct exfat_entries *ret_entries, struct error *err)
{
    for (;;) {
        int r = exfat_folder_read(volume, folder, *position, 1, ret_entries->raw, err);
        if (r <= 0 || ret_entries->raw[0] == EXFAT_END_OF_FOLDER)
            return r < 0 ? r : 0;
        uint32_t at = *position;
        r = ret_entries->raw[0] == EXFAT_FILE ? read_set(volume, folder, at, ret_entries, err) : 0;
        *position = at + (r == 1 ? ret_entries->place.count : 1);
        if (r != 0)
            return r;
    }
}

int exfat_folder_is_empty(struct exfat_volume *volume, struct exfat_node *folder, struct error *err)
{
    struct exfat_entries *entries = exfat_entries_create();
    uint32_t position = 0;
    int r = exfat_folder_next(volume, folder, &position, entries, err);
    if (r == 1)
        exfat_place_finish(&entries->place);
    free(entries);
    return r < 0 ? r : r == 1 ? error_set(err, -ENOTEMPTY, "the folder is not empty") : 0;
}

/* Entries of a place that are next to each other on the medium, from number `first` on. */
static unsigned in_a_row(const struct exfat_place *place, unsigned first)
{
    unsigned count = 1;
    while (first + count < place->count &&
           place->offsets[first + count] == place->offsets[first] + (uint64_t)count * EXFAT_ENTRY)
        count++;
    return count;
}

int exfat_place_read(struct exfat_volume *volume, const struct exfat_place *place, uint8_t *raw,
                     struct error *err)
{
    int r = 0;
    for (unsigned i = 0, count; r == 0 && i < place->count; i += count) {
        count = in_a_row(place, i);
        r = medium_read(exfat_medium(volume), place->offsets[i], raw + (size_t)i * EXFAT_ENTRY,
                        (size_t)count * EXFAT_ENTRY, err);
    }
    return r;
}

int exfat_place_write(struct exfat_volume *volume, const struct exfat_place *place,
                      const uint8_t *raw, struct error *err)
{
    int r = 0;
    for (unsigned i = 0, count; r == 0 && i < place->count; i += count) {
        count = in_a_row(place, i);
        r = medium_write(exfat_medium(volume), place->offsets[i], raw + (size_t)i * EXFAT_ENTRY,
                         (size_t)count * EXFAT_ENTRY, err);
    }
    return r;
}

/* 6.2.1.4: the type's bit says that it is not in use; all else stays. */
int exfat_folder_erase(struct exfat_volume *volume, const struct exfat_place *place,
                       struct error *err)
{
    uint8_t raw[EXFAT_SET_READ * EXFAT_ENTRY] _uninitialized_;
    int r = exfat_place_read(volume, place, raw, err);
    for (unsigned i = 0; r == 0 && i < place->count; i++)
        raw[(size_t)i * EXFAT_ENTRY] &= (uint8_t)~EXFAT_IN_USE;
    return r == 0 ? exfat_place_write(volume, place, raw, err) : r;
}
