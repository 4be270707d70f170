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
int fat_rename(struct fat_volume *volume, struct fat_node *folder, const char *name,
               struct fat_node *new_folder, const char *new_name, bool replace, struct error *err);

#endif
