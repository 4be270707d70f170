/* What changes folders; volume->lock is held to write, and writing has started. */
#ifndef FILES_FAT_NAMES_H
#define FILES_FAT_NAMES_H

#include "fat.h"

/* -ENOENT, -ENOTDIR, -ENAMETOOLONG. folder->lock is held, or volume->lock to write. */
int fat_find(struct fat_volume *volume, struct fat_node *folder, const char *name,
             struct fat_entry *ret_entry, struct error *err);

int fat_create(struct fat_volume *volume, struct fat_node *folder, const char *name,
               enum node_type type, struct fat_node **ret, struct error *err);
/* A file of clusters that are a chain already, of `size` bytes: one update. */
int fat_adopt(struct fat_volume *volume, struct fat_node *folder, const char *name, uint32_t first,
              uint32_t size, struct error *err);
int fat_remove(struct fat_volume *volume, struct fat_node *folder, const char *name,
               enum node_type type, struct error *err);
/* fat_leave.c: a name that goes, within the update of whoever takes it away: prepare, room (which
 * is beside the slots of an entry that is to be made; NULL: none), write within the update, memory
 * when it has ended, finish. */
struct fat_leaving {
    struct fat_entry entry;
    struct fat_node *node; /* held */
    uint32_t left;         /* clusters that go with the entry */
    unsigned sectors;      /* of the tables, that these are in */
    bool parks;            /* none do: the file is parked first */
    bool is_lost;          /* none do: they are freed when nothing leads to them */
    struct fat_new_entry parked;
    uint64_t parked_offset;
};
int fat_leave_prepare(struct fat_volume *volume, struct fat_leaving *leaving, struct error *err);
int fat_leave_room(struct fat_volume *volume, struct fat_leaving *leaving,
                   const struct fat_node *beside, const struct fat_new_entry *made,
                   struct error *err);
int fat_leave_write(struct fat_volume *volume, struct fat_node *folder, struct fat_leaving *leaving,
                    struct error *err);
void fat_leave_memory(struct fat_volume *volume, struct fat_node *folder,
                      struct fat_leaving *leaving);
void fat_leave_finish(struct fat_volume *volume, struct fat_leaving *leaving);
/* Goes on with what was parked when the power went. */
int fat_leave_resume(struct fat_volume *volume, struct error *err);

static inline enum node_type fat_entry_type(const struct fat_entry *entry)
{
    return entry->raw[ENTRY_ATTRIBUTES] & FAT_FOLDER ? NODE_FOLDER : NODE_FILE;
}
int fat_wrong_type(enum node_type is, struct error *err);

int fat_rename(struct fat_volume *volume, struct fat_node *folder, const char *name,
               struct fat_node *new_folder, const char *new_name, bool replace, struct error *err);

#endif
