/* Reads and writes of one size, timed: of a block device of ours, or of one of the kernel's, or of
 * both in turn. */
#ifndef TIMING_H
#define TIMING_H

#include <block/device.h>

struct timing {
    uint32_t size;   /* bytes of each, a multiple of the sectors' */
    unsigned count;  /* how many, one after the other but for depth */
    unsigned depth;  /* how many at a time; 0: 1 */
    unsigned rounds; /* 0: 1 */
    bool write, random;
    bool ahead;         /* ours: as doors read it, read ahead */
    const char *beside; /* a block device of the kernel's, in turn with ours; NULL: none */
};

/* "SIZE COUNT [write] [random] [depth N] [ahead] [rounds N] [beside PATH]"; false: it is not that.
 */
bool timing_parse(char **words, struct timing *ret_timing);

/* Prints percentiles of one operation and the rate of all, a line a round and side. From 0 on,
 * around at the end. */
int timing_run(struct block_device *disk, const struct timing *timing, struct error *err);

/* The same by pread and pwrite past the page cache, a thread for each of depth. */
int timing_run_kernel(const char *path, const struct timing *timing, struct error *err);

#endif
