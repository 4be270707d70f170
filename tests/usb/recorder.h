/*
 * A disk in memory that keeps a log of what was written, and tells what could be on it had the
 * power gone at any moment: what was flushed is there, of what was not each write is there, is not,
 * or is there in part.
 */
#ifndef TESTS_USB_RECORDER_H
#define TESTS_USB_RECORDER_H

#include <block/device.h>

struct recorder; /* a struct block_device at its start */

struct recorder *recorder_create(uint32_t sector_size, uint64_t sectors);
struct block_device *recorder_device(struct recorder *recorder);
void recorder_destroy(struct recorder *recorder);

uint8_t *recorder_disk(struct recorder *recorder);       /* its bytes as they are */
uint64_t recorder_size(const struct recorder *recorder); /* bytes */

/* The log begins here: the disk as it is now is what was there before. */
void recorder_start(struct recorder *recorder);

/* Entries of the log: writes, discards and flushes. A moment is how many of them have been carried
 * out. */
size_t recorder_moments(const struct recorder *recorder);

enum recorder_loss {
    LOSS_NONE,   /* everything up to the moment is there */
    LOSS_CHANCE, /* of what was not flushed, each write by chance: there or not */
    LOSS_TORN,   /* the same, and some sectors are there in part */
    LOSS_ALL,    /* nothing of what was not flushed */
};

/* A disk of recorder_size() bytes as it could be after the power went at this moment. seed: of
 * chance. */
void recorder_cut(const struct recorder *recorder, size_t moment, enum recorder_loss loss,
                  unsigned seed, uint8_t *ret_disk);

/* These cannot be read until they are written. */
void recorder_spoil(struct recorder *recorder, uint64_t sector, uint64_t count);

/* What was being written as the power went at this moment. False: nothing was. */
bool recorder_last_write(const struct recorder *recorder, size_t moment, uint64_t *ret_sector,
                         uint32_t *ret_count);

/* Of bytes from this one on, reading gives others now and then: those of `mask` are turned. The
 * n-th reading of a sector does if bit n % 8 of the pattern is set. Whatever is written does not
 * matter. */
void recorder_vary(struct recorder *recorder, uint8_t pattern, uint64_t offset, const uint8_t *mask,
                   size_t size);

/* From the n-th request on (0: the next one) every one fails with this error; n negative: none. */
void recorder_fail(struct recorder *recorder, int n, int error);

/* From now on it has memory of its own for so many buffers at once; those that are out stay. */
void recorder_lend(struct recorder *recorder, unsigned buffers);
enum { RECORDER_BUFFERS = 16 };

/* Every discard fails with this error; 0: none does. Those that do not, lose what was there. */
void recorder_fail_discards(struct recorder *recorder, int error);

/* Requests done. */
struct recorder_counts {
    uint64_t reads, writes, flushes, discards, sectors_read, sectors_written, sectors_discarded;
    uint64_t sectors_lent; /* of those read and written, in memory of its own */
    unsigned lent;         /* buffers that are out */
};
struct recorder_counts recorder_counts(const struct recorder *recorder);

#endif
