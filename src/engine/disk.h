/*
 * The engine's disk thread: everything that touches our own disk or SQLite on behalf of containers
 * is a job here, so that the event loop never waits for it. Jobs run one after the other in the
 * order in which they were submitted; that order is what makes "the record is committed before the
 * folder is deleted" true.
 */
#ifndef ENGINE_DISK_H
#define ENGINE_DISK_H

#include <uv.h>

#include <base/error.h>

struct disk;

/* Embedded in the job's own structure (disk_job_of). */
struct disk_job {
    void (*work)(struct disk_job *job); /* on the disk thread; may block */
    void (*done)(struct disk_job *job); /* on the loop's thread afterwards; may release the job */
    struct disk_job *next;              /* the disk's own */
};

#define disk_job_of(job, type, member) ((type *)(void *)((char *)(job)-offsetof(type, member)))

int disk_create(uv_loop_t *loop, struct disk **ret, struct error *err);

/* From the loop's thread. disk NULL: the daemon ends, and what it can no longer do is dropped; the
 * next one finds out. */
void disk_submit(struct disk *disk, struct disk_job *job);

/* Waits until every job has run and calls what is left of their done functions, then ends the
 * thread. The loop must run once more afterwards for libuv to let go of the handle, which
 * releases the rest. NULL allowed. */
void disk_destroy(struct disk *disk);

#endif
