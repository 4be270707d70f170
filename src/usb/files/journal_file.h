/* The journal's file (cloche-journal(5)): how large it is. */
#ifndef FILES_JOURNAL_FILE_H
#define FILES_JOURNAL_FILE_H

#include <block/medium.h>

enum { JOURNAL_SHARE = 8 /* of the free clusters, it takes at most one in so many */ };

/* Bytes: a 128th of the volume, whole clusters. */
static inline uint32_t journal_file_size(uint64_t volume_size, uint32_t cluster_size)
{
    uint64_t size = volume_size / 128;
    if (size < MEDIUM_JOURNAL_LEAST)
        size = MEDIUM_JOURNAL_LEAST;
    if (size > MEDIUM_JOURNAL_MOST)
        size = MEDIUM_JOURNAL_MOST;
    return (uint32_t)((size + cluster_size - 1) / cluster_size * cluster_size);
}

#endif
