/*
 * What is kept in memory of a folder that somebody looks into: where its names are, and which of
 * its entries are used. Of FAT and exFAT alike; neither names themselves nor anything of the medium
 * is in it. "Position" is an entry's number in its folder.
 *
 * Names are found by a hash whose key is drawn for each index: who makes a folder on a medium
 * cannot choose names that share one. Those that are called the same, which no folder should have,
 * hang together behind one of them: they make finding others no longer. To add, to find the first
 * of a name and to remove that one take a time that does not depend on how many there are.
 *
 * Memory: 20 to 40 bytes a name, of the most there were at a time, and a bit an entry:
 * folder_index_size(). It is counted as what can be had again (block/budget.h).
 *
 * Not locked: whoever looks, too, keeps others from changing it.
 */
#ifndef FILES_FOLDER_INDEX_H
#define FILES_FOLDER_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FOLDER_INDEX_UNITS = 255 }; /* of a name */
#define FOLDER_INDEX_NONE UINT32_MAX

struct folder_index;

struct folder_index *folder_index_create(void); /* owned; without names and entries */
void folder_index_free(struct folder_index *index);
size_t folder_index_size(const struct folder_index *index); /* bytes; 0 of NULL */
size_t folder_index_step(const struct folder_index *index); /* that the next name needs more */

/* Names, by units of UTF-16 of which those that count as the same are the same: upper case. A
 * position may have several, but not one twice. At most FOLDER_INDEX_UNITS. Removing one that is
 * not there changes nothing. */
void folder_index_add(struct folder_index *index, const uint16_t *upper, unsigned length,
                      uint32_t position);
void folder_index_remove(struct folder_index *index, const uint16_t *upper, unsigned length,
                         uint32_t position);

/* Where something of this name may be, in the order in which they were added: the caller compares,
 * since another name may by chance be among them. FOLDER_INDEX_NONE: there is no more. The index
 * does not change meanwhile. */
struct folder_index_search {
    const struct folder_index *index;
    uint32_t last, at;
};
uint32_t folder_index_first(const struct folder_index *index, const uint16_t *upper,
                            unsigned length, struct folder_index_search *ret_search);
uint32_t folder_index_next(struct folder_index_search *search);

/* Entries [first, first + count): used, or free. first + count: at most 2^31. */
void folder_index_use(struct folder_index *index, uint32_t first, uint32_t count, bool used);

/* From here on entries were never spoken of. */
uint32_t folder_index_end(const struct folder_index *index);

/* The first of count free entries in a row, those beyond the end included, that are none of
 * [beside, beside + beside_count), which are free themselves. count: at least 1. */
uint32_t folder_index_room(struct folder_index *index, uint32_t count, uint32_t beside,
                           uint32_t beside_count);

#endif
