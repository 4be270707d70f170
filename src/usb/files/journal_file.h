/* The journal's file (cloche-journal(5)): how large it is. */
#ifndef FILES_JOURNAL_FILE_H
#define FILES_JOURNAL_FILE_H

#include <block/medium.h>

enum {
    JOURNAL_SHARE = 8,           /* of the free clusters, it takes at most one in so many */
    JOURNAL_SECTORS_LEAST = 128, /* fewer do not take the update that an operation is */
};

/* Bytes of the smallest that is of use. */
static inline uint32_t journal_file_least(uint32_t sector_size)
{
    uint32_t size = JOURNAL_SECTORS_LEAST * sector_size;
    return size < MEDIUM_JOURNAL_LEAST ? MEDIUM_JOURNAL_LEAST : size;
}

/* Bytes: a 128th of the volume, whole clusters. */
static inline uint32_t journal_file_size(uint64_t volume_size, uint32_t cluster_size,
                                         uint32_t sector_size)
{
    uint64_t size = volume_size / 128;
    if (size < journal_file_least(sector_size))
        size = journal_file_least(sector_size);
    if (size > MEDIUM_JOURNAL_MOST)
        size = MEDIUM_JOURNAL_MOST;
    return (uint32_t)((size + cluster_size - 1) / cluster_size * cluster_size);
}

#endif
