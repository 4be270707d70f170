/*
 * Places of things in lists that an archive or a tree makes as long as it likes, by hash: so that
 * looking for one does not take as long as the list. Nothing is taken out; whoever asks compares.
 */
#ifndef IMAGE_TABLE_H
#define IMAGE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* All zeros: empty. */
struct table {
    struct table_slot *slots;
    size_t size, count;
};

/* With a secret of this process: nobody can prepare many of the same hash. */
uint64_t table_hash_text(const char *text);
uint64_t table_hash_file(const struct stat *status); /* device and inode */

void table_add(struct table *table, uint64_t hash, size_t value);

/* The next value of this hash. *cursor begins with 0. False: there are no more. */
bool table_next(const struct table *table, uint64_t hash, size_t *cursor, size_t *ret_value);

void table_finish(struct table *table);

#endif
