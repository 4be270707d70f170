/*
 * The medium of one volume, as file systems work on it: metadata that changes all or nothing, and
 * the content of files, which is on the medium before the metadata that leads to it.
 *
 * Offsets and sizes are bytes from the volume's first; any alignment. One thread at a time may be
 * between medium_begin() and medium_end(); the file system's own lock sees to that. All other
 * functions may be called from any thread but the device's.
 *
 * Metadata lives in the block cache. An update is what is written between begin and end: after a
 * power cut all of it is there or nothing. Updates become durable in order: together, after a
 * while, when they are many, or by medium_sync(). With a journal (medium_journal()) that holds
 * whenever the power goes; without one (the file system has no room for it) updates are written one
 * after the other, each in an order that the file system chooses by medium_barrier().
 */
#ifndef BLOCK_MEDIUM_H
#define BLOCK_MEDIUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/error.h>
#include <block/cache.h>
#include <block/device.h>

struct medium;

struct medium_options {
    uint64_t cache_size; /* bytes; 0: the default, 4 MiB */
    bool read_only;      /* nothing is ever written */
};

/* The device must outlive the medium and is used by nobody else meanwhile. */
int medium_open(struct block_device *device, const struct medium_options *options,
                struct medium **ret_medium, struct error *err);

/* Syncs, writes everything in place and closes. Nothing is said of a device that is gone. */
int medium_close(struct medium *medium, struct error *err);

/* Of metadata. */
void medium_cache(const struct medium *medium, struct cache_facts *ret_facts);

uint64_t medium_size(const struct medium *medium);        /* bytes */
uint32_t medium_sector_size(const struct medium *medium); /* bytes */
bool medium_read_only(const struct medium *medium);

/* Metadata, through the cache. Sees what the running update wrote. */
int medium_read(struct medium *medium, uint64_t offset, void *data, size_t size, struct error *err);

/* Between begin and end only. */
int medium_write(struct medium *medium, uint64_t offset, const void *data, size_t size,
                 struct error *err);

/* Says that the following metadata will be looked at soon: starts to read it, never waits. */
void medium_expect(struct medium *medium, uint64_t offset, uint64_t size);

/* An update that touches at most `sectors` sectors; waits for room. -E2BIG: more than
 * medium_update_most(); -EROFS; -EIO and -ENODEV after an update could not be made durable: nothing
 * is written from then on. */
int medium_begin(struct medium *medium, unsigned sectors, struct error *err);
void medium_end(struct medium *medium);
void medium_abort(struct medium *medium);                 /* as if begin had not been called */
unsigned medium_update_most(const struct medium *medium); /* sectors */

/* Within an update: what was written before is on the medium before what is written after. With a
 * journal there is nothing to do. */
void medium_barrier(struct medium *medium);

/* Every update that has ended, and all content written before, is durable when this returns 0. */
int medium_sync(struct medium *medium, struct error *err);

/* Called about once a second: makes durable what has waited for MEDIUM_COMMIT_MS, and when nothing
 * was changed for MEDIUM_IDLE_MS, everything is written in place, so that other systems see it.
 * now_ms: of a clock that never goes back. */
enum { MEDIUM_COMMIT_MS = 1000, MEDIUM_IDLE_MS = 2000 };
int medium_tick(struct medium *medium, uint64_t now_ms, struct error *err);

/* Whether nothing was changed for MEDIUM_IDLE_MS, by the last medium_tick(). */
bool medium_rests(struct medium *medium, uint64_t now_ms);

/* Updates are numbered by what becomes durable together. Clusters that an update has freed may be
 * given away as content when it is durable, not before: else the power could bring the file back
 * with the content of another. Those that had metadata (of folders) may be given away when
 * everything is in place: else the journal would bring the metadata back. As metadata, both may be
 * given away at once. */
uint64_t
medium_running(struct medium *medium); /* the number of an update that runs, or would now */
uint64_t medium_committed(struct medium *medium); /* these are durable, up to this one */
uint64_t medium_in_place(struct medium *medium);  /* these are in place, and in no journal */

/* medium_sync(), and everything is in place when this returns 0. */
int medium_settle(struct medium *medium, struct error *err);

/* The journal: bytes [offset, offset + size) of the volume, whole sectors. Its format:
 * cloche-journal(5). */

enum medium_recovery {
    MEDIUM_NOTHING,   /* there was nothing to do */
    MEDIUM_REPLAYED,  /* updates were brought back; whatever was read of the medium before is old */
    MEDIUM_DISCARDED, /* others have written since: it was emptied */
    MEDIUM_NO_JOURNAL, /* what is there is none, or not of this place */
    MEDIUM_PENDING,    /* there are updates in it; nothing was written, as was asked for */
};

/* Before anything but reading was done. Everything in it is hostile. On a medium that is read-only
 * it is medium_look(). */
int medium_recover(struct medium *medium, uint64_t offset, uint64_t size,
                   enum medium_recovery *ret_recovery, struct error *err);

/* The same without writing anything. */
int medium_look(struct medium *medium, uint64_t offset, uint64_t size,
                enum medium_recovery *ret_recovery, struct error *err);

/* What that came to; MEDIUM_NO_JOURNAL when there was none of it. */
enum medium_recovery medium_recovered(const struct medium *medium);

/* The journal says whether its volume is in use by us: whose the file system's own mark of that is
 * cannot be seen from the mark. It says so as of the update within which this is called; both are
 * durable together. Without a journal there is nothing to do. */
void medium_set_in_use(struct medium *medium, bool in_use);
/* Whether the journal that was recovered said so; not when it was discarded. */
bool medium_was_in_use(const struct medium *medium);

/* From now on updates go through this journal, which is made anew: nothing may lead to its bytes
 * that is not a file of exactly these. The one update that makes that file may be the first to go
 * through it: where what leads to the journal is written in place first (medium_first), it holds
 * whenever the power goes. */
int medium_journal(struct medium *medium, uint64_t offset, uint64_t size, struct error *err);
bool medium_has_journal(const struct medium *medium);
enum { MEDIUM_JOURNAL_LEAST = 64 << 10, MEDIUM_JOURNAL_MOST = 4 << 20 }; /* bytes */

/* Within the update that makes the journal's file: this sector is written in place before all
 * others. */
void medium_first(struct medium *medium, uint64_t offset);

/* The content of files. Past the cache of metadata; waits until it has been moved. data may be of
 * medium_buffer(), which spares a copy. Content is durable after medium_sync(), and it is on the
 * medium before an update that ends later is. Small pieces are gathered first: when these cannot be
 * written, medium_sync() fails, and the medium takes no more writes. Not two writers at a time in
 * one sector. */
int medium_read_content(struct medium *medium, uint64_t offset, void *data, size_t size,
                        struct error *err);
/* Says that this content will be read soon: starts to read what a bounded memory has room for. */
void medium_expect_content(struct medium *medium, uint64_t offset, uint64_t size);
int medium_write_content(struct medium *medium, uint64_t offset, const void *data, size_t size,
                         struct error *err);
int medium_zero_content(struct medium *medium, uint64_t offset, uint64_t size, struct error *err);

/* These bytes are of no file, and that is in place (medium_in_place()): a hint for the device,
 * carried out at once. -EOPNOTSUPP: it takes none. */
int medium_discard(struct medium *medium, uint64_t offset, uint64_t size, struct error *err);

void *medium_buffer(struct medium *medium, size_t size); /* owned; never NULL */
void medium_buffer_free(struct medium *medium, void *buffer, size_t size);

#endif
